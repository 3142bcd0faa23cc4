//! What becomes of one file.

use prost::Message;
use shipwatch::inference::Network;
use tract_onnx::pb::{ModelProto, NodeProto};

use super::mangle::Noise;
use super::network::values;
use super::panics;

/// The largest image that is made up, in pixels along a side.
const LARGEST: usize = 64;

/// How far a probability may lie from tract's: rounding of a bias whose scale does not fit its layer, and
/// sums in floats that fall on another side of a tie, pass through all layers behind.
const NEAR: f32 = 0.05;

/// How far a file comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It is no network.
    Refused,
    /// It is one, too large to be run here, or its output is no number.
    Loaded,
    /// It runs in tract alone.
    Ran,
    /// The engine runs a part that tract does not understand.
    Engine,
    /// The engine runs a part, and tract makes the same of the whole.
    Agreed,
}

/// Loads a file, runs it on an image made of `seed`, and compares with tract.
///
/// # Panics
/// If the engine and tract differ by more than rounding, or shipwatch itself panicked.
pub fn trial(file: &[u8], seed: u64) -> Outcome {
    let outcome = load(file, seed);
    panics::check();
    outcome
}

fn load(file: &[u8], seed: u64) -> Outcome {
    let Ok(network) = Network::from_onnx(file, &values()) else {
        return Outcome::Refused;
    };
    if network.side() > LARGEST {
        return Outcome::Loaded;
    }
    let mut noise = Noise::new(seed);
    let bytes = 3 * network.side() * network.side();
    let image: Vec<u8> = (0..bytes).map(|_| noise.byte()).collect();
    let Ok(found) = network.run(&image) else {
        return Outcome::Loaded;
    };
    assert_eq!(
        found.len(),
        network.output_shape().iter().product::<usize>()
    );
    if network.engine().operators == 0 {
        return Outcome::Ran;
    }
    let Ok(alone) = Network::from_onnx(&for_tract(file), &values()) else {
        return Outcome::Engine;
    };
    assert_eq!(alone.engine().operators, 0, "tract has all");
    let Ok(want) = alone.run(&image) else {
        return Outcome::Engine;
    };
    assert_eq!(network.output_shape(), alone.output_shape());
    let (low, high) = want.iter().fold((f32::MAX, f32::MIN), |(low, high), &x| {
        (low.min(x), high.max(x))
    });
    // Where something else than a probability comes out, a share of its range.
    let near = NEAR * (high - low).max(1.0);
    let pairs = found.iter().zip(&want);
    let far = pairs.filter(|(a, b)| (*a - *b).abs() > near).count();
    assert!(
        far * 10 <= want.len(),
        "seed {seed}: {far} of {} values differ",
        want.len()
    );
    Outcome::Agreed
}

/// The same model, of which the engine takes nothing: a name that only the engine may give is there.
fn for_tract(file: &[u8]) -> Vec<u8> {
    let mut model = ModelProto::decode(file).expect("a model");
    let graph = model.graph.as_mut().expect("a graph");
    graph.node.push(NodeProto {
        op_type: "Identity".to_owned(),
        name: "shipwatch.taken".to_owned(),
        input: graph.input[..1]
            .iter()
            .map(|input| input.name.clone())
            .collect(),
        output: vec!["shipwatch.taken".to_owned()],
        ..NodeProto::default()
    });
    model.encode_to_vec()
}

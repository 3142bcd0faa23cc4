//! Any bytes as a model: refused, or a network that runs as tract runs it.

#![no_main]

#[path = "../../tests/fuzz/mangle.rs"]
mod mangle;
#[path = "../../tests/fuzz/network.rs"]
mod network;
#[path = "../../tests/fuzz/panics.rs"]
mod panics;
#[path = "../../tests/fuzz/trial.rs"]
mod trial;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use prost::Message;
use tract_onnx::pb::ModelProto;

fuzz_target!(init: panics::watch(), |file: &[u8]| {
    trial::trial(file, 0);
});

// Half of the changes are those of a model's structure. What is no model becomes one.
fuzz_mutator!(|data: &mut [u8], size: usize, most: usize, seed: u32| {
    let mut noise = mangle::Noise::new(u64::from(seed));
    let model = ModelProto::decode(&data[..size]).ok();
    let mut model = match model.filter(|model| model.graph.is_some()) {
        Some(_) if noise.below(2) == 0 => return fuzzer_mutate(data, size, most),
        Some(model) => model,
        None => {
            let file = &network::networks()[noise.below(2)];
            ModelProto::decode(&file[..]).expect("a model")
        }
    };
    mangle::structure(&mut model, &mut noise);
    let file = model.encode_to_vec();
    if file.len() > most {
        return fuzzer_mutate(data, size, most);
    }
    data[..file.len()].copy_from_slice(&file);
    file.len()
});

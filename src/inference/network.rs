//! One network as a runnable plan.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prost::Message;
use serde::Serialize;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;

use super::limits::{check_inputs, check_tensors, check_windows};
use super::onnx;
use super::operators::{Planes, RunSegment};
use super::recognise::{Recognised, operators, recognise};
use crate::contain::contain;
use crate::engine::{self, Summary};

/// The variable that forces a kernel of the engine.
const KERNEL: &str = "SHIPWATCH_KERNEL";

/// A network that is ready to run on an image's bytes. Threads share one plan.
pub struct Network {
    plan: Arc<TypedRunnableModel>,
    side: usize,
    output_shape: Vec<usize>,
    metadata: BTreeMap<String, String>,
    engine: Engine,
    segment: Option<RunSegment>,
}

/// What the engine of bytes runs of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Engine {
    /// Operators that it runs; tract runs the others.
    pub operators: usize,
    /// All operators of the network, those apart that only change the form of numbers.
    pub of: usize,
    /// The kernel that it runs them with; none if it runs none.
    pub kernel: Option<&'static str>,
    /// Whether the model is a quantized one, of which it should run all.
    pub quantized: bool,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} operators in the int8 engine",
            self.operators, self.of
        )?;
        match self.kernel {
            Some(kernel) => write!(f, " ({kernel})"),
            None => Ok(()),
        }
    }
}

/// Why a network could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum InferenceError {
    /// The bytes are no ONNX model that this engine can run.
    #[error("not a model this engine can run: {0}")]
    Load(String),
    /// A weight is not a number, or infinite. The model might run all the same: a sigmoid makes a
    /// number of anything.
    #[error("tensor `{tensor}` holds a value that is not finite: the weights are damaged")]
    Damaged {
        /// The tensor.
        tensor: String,
    },
    /// The model runs, but is not of the kind that shipwatch uses.
    #[error("{what}: wanted {wanted}, found {found}")]
    Unsuitable {
        /// What does not suit.
        what: &'static str,
        /// What shipwatch uses.
        wanted: &'static str,
        /// What the model has.
        found: String,
    },
    /// The image has the wrong number of bytes.
    #[error("the network takes an image of {wanted} bytes, got {found}")]
    InputLength {
        /// Bytes of an image.
        wanted: usize,
        /// Bytes given.
        found: usize,
    },
    /// A value of the output is not a number, or infinite.
    #[error("the network returned a value that is not finite; its weights are damaged or overflow")]
    NotFinite,
    /// `SHIPWATCH_KERNEL` names no kernel that this processor runs.
    #[error("{KERNEL} is `{wanted}`, but this processor runs: {}. Name one of these, or leave {KERNEL} out for the fastest", known.join(", "))]
    Kernel {
        /// The name given.
        wanted: String,
        /// The kernels there are, fastest first.
        known: Vec<&'static str>,
    },
    /// An operator failed.
    #[error("the network failed: {0}")]
    Run(String),
}

impl Network {
    /// Reads an ONNX model and makes it ready to run on images whose bytes stand for `values`.
    ///
    /// # Errors
    /// [`InferenceError::Load`] if the bytes are no such model, [`InferenceError::Damaged`] if a weight
    /// is no number, [`InferenceError::Unsuitable`] unless it has one input `[1, 3, S, S] f32` and one
    /// f32 output of known shape and asks for no more memory than a network should, [`InferenceError::Kernel`] if the environment asks for an engine's kernel
    /// that there is not.
    pub fn from_onnx(bytes: &[u8], values: &[f32; 256]) -> Result<Self, InferenceError> {
        Self::from_proto(decode(bytes)?, values)
    }

    pub(super) fn from_proto(
        proto: ModelProto,
        values: &[f32; 256],
    ) -> Result<Self, InferenceError> {
        if let Some(tensor) = onnx::not_finite(&proto) {
            let tensor = tensor.to_owned();
            return Err(InferenceError::Damaged { tensor });
        }
        check_inputs(&proto)?;
        check_windows(&proto)?;
        // tract looks names up without asking whether they exist, and panics on a malformed model.
        contain(|| {
            let recognised = recognise(&proto, values);
            prepare(proto, recognised, values)
        })
        .unwrap_or_else(|| Err(InferenceError::Load("the model is malformed".into())))
    }

    /// Runs the network on an image, bytes `[S, S, 3]` in row-major order, and returns its output likewise.
    /// All values of the output are finite.
    ///
    /// # Errors
    /// [`InferenceError::InputLength`], [`InferenceError::NotFinite`], or [`InferenceError::Run`]
    /// where the engine itself fails.
    pub fn run(&self, image: &[u8]) -> Result<Vec<f32>, InferenceError> {
        self.check_length(image)?;
        let input = Tensor::from_shape(&[1, self.side, self.side, 3], image).map_err(run)?;
        // Numbers that no model has make tract panic: a division of integers by zero, say.
        let outputs = contain(|| self.plan.run(tvec!(input.into_tvalue())))
            .ok_or_else(|| InferenceError::Run("the model is malformed".into()))?
            .map_err(run)?;
        let output = outputs[0].try_as_plain_ram().map_err(run)?;
        let values = output.as_slice::<f32>().map_err(run)?;
        if values.iter().all(|v| v.is_finite()) {
            Ok(values.to_vec())
        } else {
            Err(InferenceError::NotFinite)
        }
    }

    fn check_length(&self, image: &[u8]) -> Result<(), InferenceError> {
        let wanted = self.side.saturating_mul(self.side).saturating_mul(3);
        let found = image.len();
        match found == wanted {
            true => Ok(()),
            false => Err(InferenceError::InputLength { wanted, found }),
        }
    }

    /// The layers that the engine of bytes runs, in their order.
    pub fn layers(&self) -> &[Summary] {
        self.segment.as_ref().map_or(&[], RunSegment::layers)
    }

    /// Runs these layers alone on an image as [`Network::run`] takes it; `watch` hears of each that is over.
    ///
    /// # Errors
    /// [`InferenceError::InputLength`].
    pub fn watch_layers(
        &self,
        image: &[u8],
        watch: impl FnMut(usize),
    ) -> Result<(), InferenceError> {
        self.check_length(image)?;
        if let Some(segment) = &self.segment {
            segment.watch(image, watch);
        }
        Ok(())
    }

    /// Pixels along a side of the images that it looks at.
    pub fn side(&self) -> usize {
        self.side
    }

    /// What the engine of bytes runs of it.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Shape of the output.
    pub fn output_shape(&self) -> &[usize] {
        &self.output_shape
    }

    /// The model's `metadata_props`: where its weights come from.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }
}

/// A network that tract runs alone, as the model says.
#[cfg(test)]
pub(super) fn in_tract(proto: &ModelProto, values: &[f32; 256]) -> Network {
    prepare(proto.clone(), None, values).expect("loads")
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("side", &self.side)
            .field("output_shape", &self.output_shape)
            .finish_non_exhaustive()
    }
}

/// The `metadata_props` of an ONNX model that is not to be run.
///
/// # Errors
/// [`InferenceError::Load`] if the bytes are no such model.
pub fn metadata(bytes: &[u8]) -> Result<BTreeMap<String, String>, InferenceError> {
    decode(bytes).map(|proto| properties(&proto))
}

fn decode(bytes: &[u8]) -> Result<ModelProto, InferenceError> {
    ModelProto::decode(bytes).map_err(|error| InferenceError::Load(error.to_string()))
}

fn properties(proto: &ModelProto) -> BTreeMap<String, String> {
    let properties = proto.metadata_props.iter();
    properties
        .map(|property| (property.key.clone(), property.value.clone()))
        .collect()
}

/// A plan that reads an image's bytes: what the engine knows is one operator of it, and the rest is as the
/// model has it.
fn prepare(
    proto: ModelProto,
    recognised: Option<Recognised>,
    values: &[f32; 256],
) -> Result<Network, InferenceError> {
    let metadata = properties(&proto);
    let (of, quantized) = (operators(&proto), is_quantized(&proto));
    let kernel = kernel()?;
    // Whatever is not needed any more goes at once: weights are most of the memory that loading takes.
    let (rest, segment, maps, side) = match recognised {
        Some(found) => {
            drop(proto);
            let segment = RunSegment::new(&found.graph, &found.outputs, kernel);
            (found.rest, segment, found.outputs.len(), Some(found.side))
        }
        None => (proto, None, 0, None),
    };
    let engine = Engine {
        operators: of - operators(&rest),
        of,
        kernel: segment.as_ref().map(|_| kernel),
        quantized,
    };
    let mut model = tract_onnx::onnx()
        .model_for_proto_model(&rest)
        .map_err(load)?;
    drop(rest);
    check_tensors(&mut model)?;
    let mut model = model.into_typed().map_err(load)?;
    count("outputs", model.outputs.len())?;
    let inputs = model.inputs.clone();
    // The image is the last one, if it is read at all.
    let image = inputs.get(maps).copied();
    let side = match side {
        Some(side) => side,
        None => {
            count("inputs", inputs.len())?;
            square(&shape("input", model.input_fact(0).map_err(load)?)?)?
        }
    };
    let planes = image.map(|image| {
        let values = Arc::new(*values);
        (Planes { side, values }, image)
    });
    let wire = |model: &mut TypedModel| -> TractResult<()> {
        let pixels = u8::fact([1, side, side, 3]);
        let pixels = model.add_source("shipwatch.pixels", pixels)?;
        let mut patch = TypedModelPatch::default();
        let tap = patch.tap_model(model, pixels)?;
        if let Some(segment) = segment.clone() {
            let made = patch.wire_node("shipwatch.segment", segment, &[tap])?;
            for (input, made) in inputs.iter().zip(made) {
                patch.shunt_outside(model, *input, made)?;
            }
        }
        if let Some((planes, image)) = planes {
            let made = patch.wire_node("shipwatch.planes", planes, &[tap])?;
            patch.shunt_outside(model, image, made[0])?;
        }
        patch.apply(model)?;
        model.set_input_outlets(&[pixels])
    };
    wire(&mut model).map_err(load)?;
    let plan = model
        .into_optimized()
        .and_then(|model| model.into_runnable())
        .map_err(load)?;
    let output_shape = shape("output", plan.model().output_fact(0).map_err(load)?)?;
    Ok(Network {
        plan,
        side,
        output_shape,
        metadata,
        engine,
        segment,
    })
}

fn is_quantized(proto: &ModelProto) -> bool {
    let nodes = proto.graph.iter().flat_map(|graph| &graph.node);
    nodes
        .into_iter()
        .any(|node| node.op_type == "QuantizeLinear")
}

/// The kernel that the environment asks for, or the fastest.
fn kernel() -> Result<&'static str, InferenceError> {
    let known = engine::kernels();
    let wanted = std::env::var_os(KERNEL).unwrap_or_default();
    match known
        .iter()
        .find(|name| wanted.is_empty() || wanted == **name)
    {
        Some(name) => Ok(name),
        None => Err(InferenceError::Kernel {
            wanted: wanted.to_string_lossy().into_owned(),
            known,
        }),
    }
}

/// The side of an input `[1, 3, S, S]`.
fn square(shape: &[usize]) -> Result<usize, InferenceError> {
    match *shape {
        [1, 3, height, width] if height == width => Ok(height),
        _ => Err(InferenceError::Unsuitable {
            what: "input",
            wanted: "[1, 3, S, S]",
            found: format!("{shape:?}"),
        }),
    }
}

/// tract's errors are chains; the outer links say where, the inner ones what.
pub(super) fn load(error: TractError) -> InferenceError {
    InferenceError::Load(format!("{error:#}"))
}

fn run(error: TractError) -> InferenceError {
    InferenceError::Run(format!("{error:#}"))
}

fn count(what: &'static str, found: usize) -> Result<(), InferenceError> {
    match found {
        1 => Ok(()),
        _ => Err(InferenceError::Unsuitable {
            what,
            wanted: "one",
            found: found.to_string(),
        }),
    }
}

fn shape(what: &'static str, fact: &TypedFact) -> Result<Vec<usize>, InferenceError> {
    match fact.shape.as_concrete() {
        Some(shape) if fact.datum_type == f32::datum_type() => Ok(shape.to_vec()),
        _ => Err(InferenceError::Unsuitable {
            what,
            wanted: "f32 of a fixed shape",
            found: format!("{fact:?}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean of the channels, times 20, through a sigmoid, pixel by pixel.
    const UNET: &[u8] = include_bytes!("../../tests/fixtures/bright/unet.onnx");
    /// The same of the brightest pixel.
    const GATE: &[u8] = include_bytes!("../../tests/fixtures/bright/gate.onnx");
    const PIXELS: usize = 64 * 64;

    /// What bytes stand for: tenths from -12.8.
    fn tenths() -> [f32; 256] {
        std::array::from_fn(|byte| (byte as f32 - 128.0) / 10.0)
    }

    fn load(bytes: &[u8]) -> Result<Network, InferenceError> {
        Network::from_onnx(bytes, &tenths())
    }

    #[test]
    fn computes_what_the_model_says() {
        let unet = load(UNET).expect("loads");
        assert_eq!(unet.side(), 64);
        let none = Engine {
            operators: 0,
            of: 2,
            kernel: None,
            quantized: false,
        };
        assert_eq!(unet.engine(), none);
        assert_eq!(unet.output_shape(), [1, 1, 64, 64]);
        let mut image = vec![128; 3 * PIXELS];
        // Pixel 70: (0.3 + 0.1 - 0.1) / 3 * 20 = 2.
        image[3 * 70..][..3].copy_from_slice(&[131, 129, 127]);
        let sigmoid_of_2 = 1.0 / (1.0 + (-2f32).exp());
        let output = unet.run(&image).expect("runs");
        for (i, value) in output.into_iter().enumerate() {
            let wanted = if i == 70 { sigmoid_of_2 } else { 0.5 };
            assert!((value - wanted).abs() < 1e-3, "pixel {i}: {value}");
        }
        let gate = load(GATE).expect("loads");
        assert_eq!(gate.output_shape(), [1, 1]);
        let score = gate.run(&image).expect("runs");
        assert!((score[0] - sigmoid_of_2).abs() < 1e-3);
    }

    #[test]
    fn keeps_where_the_weights_come_from() {
        let network = load(GATE).expect("loads");
        assert_eq!(
            network.metadata()["origin"],
            "tests/fixtures/bright/make.py"
        );
    }

    #[test]
    fn threads_share_one_plan() {
        let network = load(GATE).expect("loads");
        let run = |byte: u8| network.run(&vec![byte; 3 * PIXELS]).expect("runs");
        let alone: Vec<_> = [127, 128, 129].map(run).into();
        let together: Vec<_> = std::thread::scope(|scope| {
            let threads = [127, 128, 129].map(|byte| scope.spawn(move || run(byte)));
            threads
                .map(|thread| thread.join().expect("no panic"))
                .into()
        });
        assert_eq!(alone, together);
    }

    /// A model that returns its input.
    fn identity(shape: &[i64]) -> ModelProto {
        use tract_onnx::pb::{
            GraphProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto,
            tensor_shape_proto::Dimension, tensor_shape_proto::dimension, type_proto,
        };

        let dim = |&size| Dimension {
            value: Some(dimension::Value::DimValue(size)),
            ..Dimension::default()
        };
        let tensor = type_proto::Tensor {
            elem_type: 1,
            shape: Some(TensorShapeProto {
                dim: shape.iter().map(dim).collect(),
            }),
        };
        let value = |name: &str| ValueInfoProto {
            name: name.into(),
            r#type: Some(TypeProto {
                value: Some(type_proto::Value::TensorType(tensor.clone())),
                ..TypeProto::default()
            }),
            ..ValueInfoProto::default()
        };
        let node = NodeProto {
            op_type: "Identity".into(),
            input: vec!["x".into()],
            output: vec!["y".into()],
            ..NodeProto::default()
        };
        let graph = GraphProto {
            node: vec![node],
            input: vec![value("x")],
            output: vec![value("y")],
            ..GraphProto::default()
        };
        ModelProto {
            ir_version: 8,
            opset_import: vec![OperatorSetIdProto {
                version: 13,
                ..OperatorSetIdProto::default()
            }],
            graph: Some(graph),
            ..ModelProto::default()
        }
    }

    #[test]
    fn refuses_input_of_another_length_and_output_that_is_no_number() {
        let mut values = tenths();
        values[255] = f32::NAN;
        let network = Network::from_proto(identity(&[1, 3, 1, 1]), &values).expect("loads");
        assert_eq!(
            network.run(&[138, 148, 158]).expect("runs"),
            [1.0, 2.0, 3.0]
        );
        let error = network.run(&[0; 5]).expect_err("too long");
        assert!(matches!(
            error,
            InferenceError::InputLength {
                wanted: 3,
                found: 5
            }
        ));
        let error = network.run(&[0, 255, 0]).expect_err("no number");
        assert!(matches!(error, InferenceError::NotFinite));
    }

    #[test]
    fn refuses_weights_that_are_no_numbers() {
        use prost::Message;
        use tract_onnx::pb::{NodeProto, TensorProto};

        let bright = ModelProto::decode(UNET).expect("a model");
        let with = |change: fn(&mut TensorProto)| {
            let mut model = bright.clone();
            let graph = model.graph.as_mut().expect("a graph");
            change(&mut graph.initializer[0]);
            load(&model.encode_to_vec())
        };
        with(|_| ()).expect("the model itself is good");
        let nan = |tensor: &mut TensorProto| {
            tensor.raw_data[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
        };
        let infinite = |tensor: &mut TensorProto| {
            tensor.raw_data.clear();
            tensor.float_data = vec![1.0, f32::NEG_INFINITY, 1.0];
        };
        for damaged in [with(nan), with(infinite)] {
            let error = damaged.expect_err("damaged").to_string();
            assert!(error.contains("`mean`"), "{error}");
        }

        // A constant that a node holds.
        let mut model = bright.clone();
        let graph = model.graph.as_mut().expect("a graph");
        let mut value = graph.initializer.remove(0);
        nan(&mut value);
        let attribute = tract_onnx::pb::AttributeProto {
            name: "value".into(),
            t: Some(value),
            ..Default::default()
        };
        let constant = NodeProto {
            op_type: "Constant".into(),
            name: "mean".into(),
            output: vec!["mean".into()],
            attribute: vec![attribute],
            ..NodeProto::default()
        };
        graph.node.insert(0, constant);
        let error = load(&model.encode_to_vec()).expect_err("damaged");
        assert!(error.to_string().contains("`mean`"), "{error}");
    }

    #[test]
    fn an_operator_that_panics_is_an_error() {
        use tract_onnx::pb::{AttributeProto, NodeProto, attribute_proto::AttributeType};

        let node = |kind: &str, inputs: &[&str], output: &str, to: i64| NodeProto {
            op_type: kind.into(),
            input: inputs.iter().map(|&input| input.into()).collect(),
            output: vec![output.into()],
            attribute: vec![AttributeProto {
                name: "to".into(),
                r#type: AttributeType::Int as i32,
                i: to,
                ..AttributeProto::default()
            }],
            ..NodeProto::default()
        };
        // A value over itself, in integers.
        let mut model = identity(&[1, 3, 1, 1]);
        model.graph.as_mut().expect("a graph").node = vec![
            node("Cast", &["x"], "i", 6),
            node("Div", &["i", "i"], "one", 0),
            node("Cast", &["one"], "y", 1),
        ];
        let network = Network::from_proto(model, &tenths()).expect("loads");
        assert_eq!(network.run(&[0, 255, 0]).expect("runs"), [1.0; 3]);
        let error = network.run(&[0, 128, 0]).expect_err("zero over zero");
        assert!(error.to_string().ends_with("malformed"), "{error}");
    }

    #[test]
    fn refuses_a_model_of_another_kind() {
        for shape in [&[1, 1, 2, 2][..], &[1, 3, 2, 4], &[2, 3, 2, 2], &[3]] {
            let error = Network::from_proto(identity(shape), &tenths()).expect_err("unsuitable");
            assert!(
                matches!(error, InferenceError::Unsuitable { what: "input", .. }),
                "{error}"
            );
        }
    }

    #[test]
    fn damaged_models_are_errors_or_models_but_no_panic() {
        for length in 0..UNET.len() {
            let _ = load(&UNET[..length]);
        }
        for at in 0..UNET.len() {
            for bits in [0x01, 0x18, 0xff] {
                let mut flipped = UNET.to_vec();
                flipped[at] ^= bits;
                let _ = load(&flipped);
            }
        }
    }
}

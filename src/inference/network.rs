//! One network as a runnable plan.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tract_onnx::prelude::*;

/// A network that is ready to run: f32 in, f32 out. Threads share one plan.
pub struct Network {
    plan: Arc<TypedRunnableModel>,
    input_shape: [usize; 4],
    output_shape: Vec<usize>,
    metadata: BTreeMap<String, String>,
}

/// Why a network could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum InferenceError {
    /// The bytes are no ONNX model that this engine can run.
    #[error("not a model this engine can run: {0}")]
    Load(String),
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
    /// The input has the wrong number of values.
    #[error("the network takes {wanted} values, got {found}")]
    InputLength {
        /// Values of the input tensor.
        wanted: usize,
        /// Values given.
        found: usize,
    },
    /// A value of the output is not a number, or infinite.
    #[error("the network returned a value that is not finite; its weights are damaged or overflow")]
    NotFinite,
    /// An operator failed.
    #[error("the network failed: {0}")]
    Run(String),
}

impl Network {
    /// Reads an ONNX model and makes it ready to run.
    ///
    /// # Errors
    /// [`InferenceError::Load`] if the bytes are no such model, [`InferenceError::Unsuitable`] unless
    /// it has one input `[1, 3, S, S] f32` and one f32 output of known shape.
    pub fn from_onnx(bytes: &[u8]) -> Result<Self, InferenceError> {
        let framework = tract_onnx::onnx();
        let proto = framework
            .proto_model_for_read(&mut &bytes[..])
            .map_err(load)?;
        let plan = framework
            .model_for_proto_model(&proto)
            .and_then(|model| model.into_optimized())
            .and_then(|model| model.into_runnable())
            .map_err(load)?;

        let model = plan.model();
        count("inputs", model.inputs.len())?;
        count("outputs", model.outputs.len())?;
        let input = shape("input", model.input_fact(0).map_err(load)?)?;
        let output_shape = shape("output", model.output_fact(0).map_err(load)?)?;
        let input_shape = match input[..] {
            [1, 3, height, width] if height == width => [1, 3, height, width],
            _ => {
                return Err(InferenceError::Unsuitable {
                    what: "input",
                    wanted: "[1, 3, S, S]",
                    found: format!("{input:?}"),
                });
            }
        };
        let metadata = proto
            .metadata_props
            .into_iter()
            .map(|p| (p.key, p.value))
            .collect();
        Ok(Self {
            plan,
            input_shape,
            output_shape,
            metadata,
        })
    }

    /// Runs the network on one input, `[1, 3, S, S]` in row-major order, and returns its output
    /// likewise. All values of the output are finite.
    ///
    /// # Errors
    /// [`InferenceError::InputLength`], [`InferenceError::NotFinite`], or [`InferenceError::Run`]
    /// where the engine itself fails.
    pub fn run(&self, input: &[f32]) -> Result<Vec<f32>, InferenceError> {
        let wanted = self.input_shape.iter().product();
        if input.len() != wanted {
            return Err(InferenceError::InputLength {
                wanted,
                found: input.len(),
            });
        }
        let input = Tensor::from_shape(&self.input_shape, input).map_err(run)?;
        let outputs = self.plan.run(tvec!(input.into_tvalue())).map_err(run)?;
        let output = outputs[0].try_as_plain_ram().map_err(run)?;
        let values = output.as_slice::<f32>().map_err(run)?;
        if values.iter().all(|v| v.is_finite()) {
            Ok(values.to_vec())
        } else {
            Err(InferenceError::NotFinite)
        }
    }

    /// Shape of the input: `[1, 3, S, S]`.
    pub fn input_shape(&self) -> [usize; 4] {
        self.input_shape
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

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("input_shape", &self.input_shape)
            .field("output_shape", &self.output_shape)
            .finish_non_exhaustive()
    }
}

/// tract's errors are chains; the outer links say where, the inner ones what.
fn load(error: TractError) -> InferenceError {
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

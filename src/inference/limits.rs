//! What a model may ask for, checked before tract allocates it or counts up to it.

use tract_onnx::pb::tensor_shape_proto::dimension::Value as Size;
use tract_onnx::pb::type_proto::Value as Type;
use tract_onnx::pb::{ModelProto, ValueInfoProto};
use tract_onnx::prelude::*;

use super::InferenceError;

/// Most pixels along a side of the image, of a window and of its padding.
const MOST: usize = 1 << 12;

/// Bytes of the largest tensor.
const LARGEST: usize = 1 << 28;

/// Attributes that measure windows.
const MEASURES: [&str; 6] = [
    "dilations",
    "kernel_shape",
    "output_padding",
    "output_shape",
    "pads",
    "strides",
];

/// Checks that sizes of inputs are numbers: tract's terms of unknown ones grow without bound.
pub(super) fn check_inputs(model: &ModelProto) -> Result<(), InferenceError> {
    let inputs = model.graph.iter().flat_map(|graph| &graph.input);
    match inputs.into_iter().find(|input| !is_fixed(input)) {
        None => Ok(()),
        Some(input) => Err(InferenceError::Unsuitable {
            what: "input",
            wanted: "a fixed shape",
            found: format!("none of `{}`", input.name),
        }),
    }
}

fn is_fixed(input: &ValueInfoProto) -> bool {
    let Some(Type::TensorType(tensor)) = input.r#type.as_ref().and_then(|t| t.value.as_ref())
    else {
        return false;
    };
    let is_number = |size: &Option<Size>| matches!(size, Some(Size::DimValue(0..)));
    let mut shapes = tensor.shape.iter();
    shapes.any(|shape| shape.dim.iter().all(|dim| is_number(&dim.value)))
}

/// Checks the windows of convolutions and pools.
pub(super) fn check_windows(model: &ModelProto) -> Result<(), InferenceError> {
    let nodes = model.graph.iter().flat_map(|graph| &graph.node);
    for node in nodes {
        let attributes = node.attribute.iter();
        for attribute in attributes.filter(|a| MEASURES.contains(&a.name.as_str())) {
            let fits = |number: &i64| number.unsigned_abs() <= MOST as u64;
            if !attribute.ints.iter().all(fits) {
                return Err(InferenceError::Unsuitable {
                    what: "window",
                    wanted: "numbers up to 4096",
                    found: format!("{} {:?} of `{}`", attribute.name, attribute.ints, node.name),
                });
            }
        }
    }
    Ok(())
}

/// Checks the side of the image.
pub(super) fn check_side(side: usize) -> Result<(), InferenceError> {
    if (1..=MOST).contains(&side) {
        return Ok(());
    }
    Err(InferenceError::Unsuitable {
        what: "side of the image",
        wanted: "1 to 4096 pixels",
        found: side.to_string(),
    })
}

/// Checks every tensor that tract will make.
pub(super) fn check_tensors(model: &TypedModel) -> Result<(), InferenceError> {
    for node in model.nodes() {
        for output in &node.outputs {
            let Some(shape) = output.fact.shape.as_concrete() else {
                continue;
            };
            let size = output.fact.datum_type.size_of();
            let bytes = shape.iter().try_fold(size, |n, &size| n.checked_mul(size));
            if bytes.is_none_or(|bytes| bytes > LARGEST) {
                return Err(InferenceError::Unsuitable {
                    what: "tensor",
                    wanted: "256 MiB at most",
                    found: format!("{shape:?} at `{}`", node.name),
                });
            }
        }
    }
    Ok(())
}

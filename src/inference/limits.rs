//! What a model may ask for, checked before tract allocates it or counts up to it.

use std::collections::BTreeSet;

use tract_onnx::pb::tensor_shape_proto::dimension::Value as Size;
use tract_onnx::pb::type_proto::Value as Type;
use tract_onnx::pb::{ModelProto, ValueInfoProto};
use tract_onnx::tract_hir::infer::{Factoid, InferenceFact, InferenceModel};
use tract_onnx::tract_hir::internal::{DimLike, OutletId, TVec, TractResult};

use super::InferenceError;
use super::network::load;

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

/// Infers what each node makes, and checks it before tract goes on with it: what cannot be said as a number
/// would grow from node to node.
pub(super) fn check_tensors(model: &mut InferenceModel) -> Result<(), InferenceError> {
    let needed = model.eval_order().map_err(load)?;
    let others = (0..model.nodes().len()).collect::<BTreeSet<_>>();
    let others = &others - &needed.iter().copied().collect();
    for node in needed.into_iter().chain(others) {
        infer(model, node).map_err(load)?;
        let node = model.node(node);
        if let Some(output) = node.outputs.iter().find(|output| !fits(&output.fact)) {
            return Err(InferenceError::Unsuitable {
                what: "tensor",
                wanted: "256 MiB at most, of a shape that is known",
                found: format!("{:?} at `{}`", output.fact.shape, node.name),
            });
        }
    }
    Ok(())
}

/// What the outputs of a node are by what its inputs are.
fn infer(model: &mut InferenceModel, id: usize) -> TractResult<()> {
    let (inputs, outputs) = model.node_facts(id)?;
    let [inputs, outputs] =
        [inputs, outputs].map(|facts| facts.into_iter().cloned().collect::<TVec<_>>());
    let node = model.node(id);
    let observed: TVec<InferenceFact> = node
        .op
        .observe_outlets(model, node)?
        .into_iter()
        .map(|outlet| model.outlet_fact(outlet).cloned())
        .collect::<TractResult<_>>()?;
    let op = &mut model.node_mut(id).op;
    let (_, found, _) = op.infer(
        inputs.iter().collect(),
        outputs.iter().collect(),
        observed.iter().collect(),
    )?;
    for (slot, (fact, found)) in outputs.iter().zip(&found).enumerate() {
        model.set_outlet_fact(OutletId::new(id, slot), fact.unify(found)?)?;
    }
    Ok(())
}

/// Whether what is known of a tensor is in numbers, and small.
fn fits(fact: &InferenceFact) -> bool {
    let kind = fact.datum_type.concretize();
    let mut bytes = kind.map_or(1, |kind| kind.size_of());
    for size in fact.shape.dims().filter_map(|size| size.concretize()) {
        match size
            .to_usize()
            .ok()
            .and_then(|size| bytes.checked_mul(size))
        {
            Some(more) if more <= LARGEST => bytes = more,
            _ => return false,
        }
    }
    true
}

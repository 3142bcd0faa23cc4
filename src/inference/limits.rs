//! What a model may ask for, checked before tract allocates it or counts up to it.

use std::collections::BTreeSet;

use tract_onnx::pb::tensor_shape_proto::dimension::Value as Size;
use tract_onnx::pb::type_proto::Value as Type;
use tract_onnx::pb::{ModelProto, ValueInfoProto};
use tract_onnx::tract_hir::infer::{Factoid, InferenceFact, InferenceModel};
use tract_onnx::tract_hir::internal::{DimLike, OutletId, TVec, TractResult};

use super::InferenceError;
use super::network::load;

/// The largest size of an image, of a window and of its padding.
const MOST: i64 = 1 << 12;

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

/// Checks the sizes of inputs: tract's terms of unknown ones grow without bound.
pub(super) fn check_inputs(model: &ModelProto) -> Result<(), InferenceError> {
    let inputs = model.graph.iter().flat_map(|graph| &graph.input);
    match inputs.into_iter().find(|input| !is_fixed(input)) {
        None => Ok(()),
        Some(input) => Err(InferenceError::Unsuitable {
            what: "input",
            wanted: "sizes from 1 to 4096",
            found: format!("others of `{}`", input.name),
        }),
    }
}

fn is_fixed(input: &ValueInfoProto) -> bool {
    let Some(Type::TensorType(tensor)) = input.r#type.as_ref().and_then(|t| t.value.as_ref())
    else {
        return false;
    };
    let is_number = |size: &Option<Size>| matches!(size, Some(Size::DimValue(1..=MOST)));
    let mut shapes = tensor.shape.iter();
    shapes.any(|shape| shape.dim.iter().all(|dim| is_number(&dim.value)))
}

/// Checks the windows of convolutions and pools.
pub(super) fn check_windows(model: &ModelProto) -> Result<(), InferenceError> {
    let nodes = model.graph.iter().flat_map(|graph| &graph.node);
    for node in nodes {
        let attributes = node.attribute.iter();
        for attribute in attributes.filter(|a| MEASURES.contains(&a.name.as_str())) {
            let fits = |number: &i64| (-MOST..=MOST).contains(number);
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

#[cfg(test)]
mod tests {
    use prost::Message;
    use tract_onnx::pb::{GraphProto, ModelProto};

    use super::super::network::Network;
    use super::super::onnx::{Filters, GraphBuilder, Value, Weights};
    use super::*;

    /// What is wrong with a model that makes something of an image.
    fn refused(
        side: usize,
        build: fn(&mut GraphBuilder, Value) -> Value,
        change: fn(&mut GraphProto),
    ) -> &'static str {
        let mut graph = GraphBuilder::default();
        let image = graph.input("image", &[1, 3, side, side]);
        let output = build(&mut graph, image);
        let file = graph.finish("test", &output, &[1, 3, side, side], &[]);
        let mut model = ModelProto::decode(&file[..]).expect("a model");
        change(model.graph.as_mut().expect("a graph"));
        match Network::from_onnx(&model.encode_to_vec(), &[0.0; 256]) {
            Err(InferenceError::Unsuitable { what, .. }) => what,
            Err(error) => panic!("{error}"),
            Ok(_) => "nothing",
        }
    }

    fn conv(graph: &mut GraphBuilder, x: &Value, name: &str, pad: usize) -> Value {
        let weight = &Weights {
            shape: vec![3, 3, 3, 3],
            values: vec![0.0; 81],
        };
        let filters = Filters::Float {
            weight,
            bias: &[0.0; 3],
        };
        graph.conv(name, x, filters, 1, [pad; 4])
    }

    fn padded(graph: &mut GraphBuilder, image: Value) -> Value {
        conv(graph, &image, "padded", 1)
    }

    #[test]
    fn sizes_that_no_network_has_are_refused_before_memory_is_asked_for() {
        let twice = |graph: &mut GraphBuilder, image| graph.upsample_2x("up", &image);
        assert_eq!(refused(8, padded, |_| ()), "nothing");
        assert_eq!(refused(2048, twice, |_| ()), "nothing");
        assert_eq!(refused(MOST as usize, twice, |_| ()), "tensor");
        assert_eq!(refused(1 << 40, padded, |_| ()), "input");
        assert_eq!(refused(0, twice, |_| ()), "input");
        // tract would count up to where such a window leaves the padding.
        let far = |graph: &mut GraphProto| {
            let attributes = &mut graph.node[0].attribute;
            let pads = attributes.iter_mut().find(|a| a.name == "pads");
            pads.expect("pads").ints[3] = 1 << 40;
        };
        assert_eq!(refused(8, padded, far), "window");
    }

    #[test]
    fn shapes_that_are_no_numbers_are_refused_before_they_grow() {
        let unknown = |graph: &mut GraphProto| {
            let Some(Type::TensorType(tensor)) =
                &mut graph.input[0].r#type.as_mut().expect("a type").value
            else {
                panic!("no tensor");
            };
            tensor.shape.as_mut().expect("a shape").dim[2].value = None;
        };
        assert_eq!(refused(8, padded, unknown), "input");
        // A sum of maps of 8 and 6 pixels, to which tract gives a shape of both.
        let unlike = |graph: &mut GraphBuilder, image: Value| {
            let x = conv(graph, &image, "valid", 0);
            graph.add("sum", &image, &x)
        };
        assert_eq!(refused(8, unlike, |_| ()), "tensor");
    }
}

//! Finds what of a quantized model the engine of bytes can run.
//!
//! Such a model says in floats what is meant in bytes: each map passes a QuantizeLinear and a
//! DequantizeLinear, and an operator between them is one of bytes. From the image on, all that is so is
//! taken out of the model; tract keeps the rest.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

use super::onnx::value_info;
use crate::engine::arithmetic::{Range, Scheme, sigmoid};
use crate::engine::{Filters, Graph, Op, Window};

/// What names begin with that are put into a model.
const PREFIX: &str = "shipwatch.";

/// The first operator set whose quantizers have a scale for each channel.
const OPSET: i64 = 13;

/// What was found in a model.
pub(super) struct Recognised {
    /// What the engine runs.
    pub(super) graph: Graph,
    /// Nodes of it, and what the bytes of their maps stand for. In floats they are inputs of what is left, in
    /// their order.
    pub(super) outputs: Vec<(usize, [f32; 256])>,
    /// What is left. Its inputs are those maps and, if it reads it, the image.
    pub(super) rest: ModelProto,
    /// Side of the image.
    pub(super) side: usize,
}

/// A value in floats that the engine knows.
#[derive(Clone)]
enum Known {
    /// What the bytes of a map stand for.
    Map(usize),
    /// What comes of maps, not yet in bytes, with the bounds that it is clipped to.
    Pending {
        op: Pending,
        inputs: Vec<usize>,
        bounds: [f32; 2],
    },
}

#[derive(Clone)]
enum Pending {
    /// An operator that rounds its own output.
    Op(Op),
    Upsample,
    Concat,
    Sigmoid,
    /// Nothing yet: bytes that change their scheme.
    Same,
}

/// A constant.
enum Constant<'a> {
    /// Steps with their scales, one for all or one for each along an axis.
    Bytes {
        shape: Vec<usize>,
        /// As the file has them: most of a model's memory.
        bytes: Cow<'a, [u8]>,
        scales: Vec<f32>,
        axis: usize,
    },
    /// The bias of a convolution.
    Words { words: Vec<i32>, scales: Vec<f32> },
}

struct Reader<'a> {
    tensors: BTreeMap<&'a str, &'a TensorProto>,
    constants: BTreeMap<&'a str, Constant<'a>>,
    graph: Graph,
    /// Maps by the names of their bytes.
    bytes: BTreeMap<&'a str, usize>,
    known: BTreeMap<&'a str, Known>,
    image: &'a str,
    side: usize,
    values: &'a [f32; 256],
}

/// Finds what the engine can run of a model that reads an image `[1, 3, side, side]`, whose bytes stand for
/// `values`; none if there is nothing.
pub(super) fn recognise(model: &ModelProto, values: &[f32; 256]) -> Option<Recognised> {
    let default = |domain: &str| matches!(domain, "" | "ai.onnx");
    let opsets = model.opset_import.iter();
    let opsets = opsets.filter(|opset| default(&opset.domain));
    if opsets.map(|opset| opset.version).min() < Some(OPSET) {
        return None;
    }
    let graph = model.graph.as_ref()?;
    let tensors: BTreeMap<&str, &TensorProto> = graph
        .initializer
        .iter()
        .map(|tensor| (tensor.name.as_str(), tensor))
        .collect();
    let mut inputs = graph
        .input
        .iter()
        .filter(|input| !tensors.contains_key(input.name.as_str()));
    let (input, None) = (inputs.next()?, inputs.next()) else {
        return None;
    };
    // Which of two values of one name is meant is not known here.
    let made = graph.node.iter().flat_map(|node| &node.output);
    let made = made.filter(|name| !name.is_empty());
    let given = graph.initializer.iter().map(|tensor| &tensor.name);
    let mut names = BTreeSet::from([&input.name]);
    if !made.chain(given).all(|name| names.insert(name)) {
        return None;
    }
    let mut reader = Reader {
        tensors,
        constants: BTreeMap::new(),
        graph: Graph::default(),
        bytes: BTreeMap::new(),
        known: BTreeMap::new(),
        image: &input.name,
        side: side(input)?,
        values,
    };
    for node in &graph.node {
        // What is not understood stays with tract.
        let _ = reader.read(node);
    }
    reader.split(model, graph)
}

/// Operators of a model; what only changes the form of numbers or maps is none.
pub(super) fn operators(model: &ModelProto) -> usize {
    let form = |node: &NodeProto| {
        matches!(
            node.op_type.as_str(),
            "QuantizeLinear" | "DequantizeLinear" | "Flatten" | "Reshape" | "Identity" | "Constant"
        )
    };
    let nodes = model.graph.iter().flat_map(|graph| &graph.node);
    nodes.filter(|node| !form(node)).count()
}

/// The side of an image input `[1, 3, S, S]`.
fn side(input: &tract_onnx::pb::ValueInfoProto) -> Option<usize> {
    use tract_onnx::pb::{tensor_shape_proto::dimension::Value, type_proto};
    let Some(type_proto::Value::TensorType(tensor)) = &input.r#type.as_ref()?.value else {
        return None;
    };
    if tensor.elem_type != DataType::Float as i32 {
        return None;
    }
    let dims = tensor
        .shape
        .as_ref()?
        .dim
        .iter()
        .map(|dim| match dim.value {
            Some(Value::DimValue(size)) => usize::try_from(size).ok(),
            _ => None,
        });
    let dims: Vec<usize> = dims.collect::<Option<_>>()?;
    match dims[..] {
        [1, 3, height, width] if height == width => Some(height),
        _ => None,
    }
}

impl<'a> Reader<'a> {
    fn read(&mut self, node: &'a NodeProto) -> Option<()> {
        let [output] = &node.output[..] else {
            return None;
        };
        if !matches!(node.domain.as_str(), "" | "ai.onnx") {
            return None;
        }
        let input = |nth: usize| node.input.get(nth).map(String::as_str);
        let attributes = node
            .attribute
            .iter()
            .map(|attribute| attribute.name.as_str());
        match node.op_type.as_str() {
            // Of later operator sets: scales of blocks, other types.
            "QuantizeLinear" | "DequantizeLinear" if attributes.clone().any(|a| a != "axis") => {
                return None;
            }
            "QuantizeLinear" => {
                let map = self.quantize(input(0)?, input(1)?, input(2)?)?;
                self.bytes.insert(output, map);
            }
            "DequantizeLinear" => {
                if let Some(&map) = self.bytes.get(input(0)?) {
                    let scheme = self.scheme(input(1)?, input(2)?)?;
                    if scheme == self.graph.nodes()[map].map.scheme {
                        self.known.insert(output, Known::Map(map));
                    }
                } else {
                    let constant = self.constant(node)?;
                    self.constants.insert(output, constant);
                }
            }
            "Relu" => self.clip(input(0)?, output, [0.0, f32::INFINITY])?,
            "Clip" => {
                let bound = |nth: usize, default: f32| match input(nth) {
                    None | Some("") => Some(default),
                    Some(name) => match floats(self.tensors.get(name)?)?[..] {
                        [bound] => Some(bound),
                        _ => None,
                    },
                };
                let bounds = [bound(1, f32::NEG_INFINITY)?, bound(2, f32::INFINITY)?];
                self.clip(input(0)?, output, bounds)?;
            }
            _ => {
                let (op, inputs) = self.operator(node)?;
                let bounds = [f32::NEG_INFINITY, f32::INFINITY];
                let known = Known::Pending { op, inputs, bounds };
                self.known.insert(output, known);
            }
        }
        Some(())
    }

    /// Narrows what a value may be.
    fn clip(&mut self, input: &str, output: &'a str, [low, high]: [f32; 2]) -> Option<()> {
        let known = match self.known.get(input)?.clone() {
            Known::Map(map) => Known::Pending {
                op: Pending::Same,
                inputs: vec![map],
                bounds: [low, high],
            },
            Known::Pending { op, inputs, bounds } => Known::Pending {
                op,
                inputs,
                bounds: [bounds[0].max(low), bounds[1].min(high)],
            },
        };
        self.known.insert(output, known);
        Some(())
    }

    /// Puts what `value` is into bytes: the number of their map.
    fn quantize(&mut self, value: &str, scale: &str, zero: &str) -> Option<usize> {
        let scheme = self.scheme(scale, zero)?;
        if value == self.image {
            let table = self.values.map(|value| scheme.quantize(value));
            let size = [self.side, self.side];
            return self.graph.image(size, Box::new(table), scheme).ok();
        }
        let (op, inputs, [low, high]) = match self.known.get(value)?.clone() {
            Known::Map(map) => (Pending::Same, vec![map], [f32::NEG_INFINITY, f32::INFINITY]),
            Known::Pending { op, inputs, bounds } => (op, inputs, bounds),
        };
        if low.is_nan() || high.is_nan() || low > high {
            return None;
        }
        let range = Range {
            low: scheme.quantize(low),
            high: scheme.quantize(high),
        };
        let graph = &mut self.graph;
        let table = |graph: &mut Graph, map: usize, function: &dyn Fn(f32) -> f32| {
            let from = graph.nodes()[map].map.scheme;
            let clipped = |value: f32| function(value).max(low).min(high);
            let op = Op::Table(Box::new(scheme.table(from, clipped)));
            graph.push(op, &[map], scheme, Range::FULL).ok()
        };
        match op {
            Pending::Op(op) => graph.push(op, &inputs, scheme, range).ok(),
            Pending::Sigmoid => table(graph, inputs[0], &sigmoid),
            Pending::Same => table(graph, inputs[0], &|value| value),
            Pending::Upsample | Pending::Concat => {
                // Bytes are only moved: they take the scheme before.
                let moved = |&map: &usize| {
                    let same = graph.nodes()[map].map.scheme == scheme && range == Range::FULL;
                    match same {
                        true => Some(map),
                        false => table(graph, map, &|value| value),
                    }
                };
                let inputs: Vec<usize> = inputs.iter().map(moved).collect::<Option<_>>()?;
                let op = match op {
                    Pending::Concat => Op::Concat,
                    _ => Op::Upsample,
                };
                graph.push(op, &inputs, scheme, Range::FULL).ok()
            }
        }
    }

    /// An operator on maps.
    fn operator(&self, node: &NodeProto) -> Option<(Pending, Vec<usize>)> {
        let map = |nth: usize| match self.known.get(node.input.get(nth)?.as_str())? {
            Known::Map(map) => Some(*map),
            Known::Pending { .. } => None,
        };
        let count = node.input.len();
        let pending = match node.op_type.as_str() {
            "Conv" => (Pending::Op(self.convolution(node, map(0)?)?), vec![map(0)?]),
            "ConvTranspose" => (Pending::Op(self.double(node, map(0)?)?), vec![map(0)?]),
            "Add" => (Pending::Op(Op::Add), vec![map(0)?, map(1)?]),
            "Concat" if count == 2 && int(node, "axis", 0) == Some(1) => {
                (Pending::Concat, vec![map(0)?, map(1)?])
            }
            "GlobalAveragePool" => (Pending::Op(Op::Pool), vec![map(0)?]),
            "Sigmoid" => (Pending::Sigmoid, vec![map(0)?]),
            "Resize" => {
                let scales = floats(self.tensors.get(node.input.get(2)?.as_str())?)?;
                let others = ["mode", "coordinate_transformation_mode", "nearest_mode"];
                let doubles = count == 3
                    && node
                        .attribute
                        .iter()
                        .all(|a| others.contains(&a.name.as_str()))
                    && scales == [1.0, 1.0, 2.0, 2.0]
                    && string(node, "mode") == Some(b"nearest")
                    && string(node, "coordinate_transformation_mode") == Some(b"asymmetric")
                    && string(node, "nearest_mode") == Some(b"floor");
                doubles.then_some((Pending::Upsample, vec![map(0)?]))?
            }
            _ => return None,
        };
        Some(pending)
    }

    fn convolution(&self, node: &NodeProto, map: usize) -> Option<Op> {
        let (shape, bytes, scales) = self.weight(node, 0)?;
        let [outputs, inputs, height, width] = shape[..] else {
            return None;
        };
        let group = int(node, "group", 1)?;
        let pads = ints(node, "pads").unwrap_or(vec![0; 4]);
        let strides = ints(node, "strides").unwrap_or(vec![1, 1]);
        let [stride, across] = strides[..] else {
            return None;
        };
        let plain = stride == across
            && ints(node, "kernel_shape").is_none_or(|all| all == [height, width])
            && ints(node, "dilations").is_none_or(|all| all == [1, 1])
            && string(node, "auto_pad").is_none_or(|pad| pad == b"NOTSET");
        if !plain {
            return None;
        }
        let bias = self.bias(node, map, scales, outputs)?;
        let filters = |weight| Filters {
            weight,
            scales: spread(scales, outputs),
            bias,
        };
        let [top, left, bottom, right] = pads[..] else {
            return None;
        };
        let window = Window {
            stride,
            top,
            left,
            bottom,
            right,
        };
        let channels = self.graph.nodes()[map].map.channels;
        match [height, width] {
            [1, 1] if group == 1 && stride == 1 && pads == [0; 4] => Some(Op::Pointwise(filters(
                bytes.iter().map(|&byte| byte as i8).collect(),
            ))),
            [3, 3] if group == 1 => {
                // Channels go last.
                let at = |o: usize, tap: usize, i: usize| bytes[(o * inputs + i) * 9 + tap] as i8;
                let weight = (0..outputs * 9 * inputs)
                    .map(|k| at(k / (9 * inputs), k / inputs % 9, k % inputs))
                    .collect();
                Some(Op::Full(filters(weight), window))
            }
            [3, 3] if inputs == 1 && group == channels && outputs == channels => {
                Some(Op::Depthwise(
                    filters(bytes.iter().map(|&byte| byte as i8).collect()),
                    window,
                ))
            }
            _ => None,
        }
    }

    fn double(&self, node: &NodeProto, map: usize) -> Option<Op> {
        let (shape, bytes, scales) = self.weight(node, 1)?;
        let [inputs, outputs, 2, 2] = shape[..] else {
            return None;
        };
        let doubles = ints(node, "strides").is_some_and(|all| all == [2, 2])
            && ints(node, "kernel_shape").is_none_or(|all| all == [2, 2])
            && ints(node, "pads").is_none_or(|all| all == [0; 4])
            && ints(node, "output_padding").is_none_or(|all| all == [0; 2])
            && ints(node, "dilations").is_none_or(|all| all == [1, 1])
            && node.attribute.iter().all(|a| a.name != "output_shape")
            && string(node, "auto_pad").is_none_or(|pad| pad == b"NOTSET")
            && int(node, "group", 1) == Some(1);
        if !doubles {
            return None;
        }
        let at = |part: usize, o: usize, i: usize| bytes[(i * outputs + o) * 4 + part] as i8;
        let weight = (0..4 * outputs * inputs)
            .map(|k| at(k / (outputs * inputs), k / inputs % outputs, k % inputs))
            .collect();
        Some(Op::Double(Filters {
            weight,
            scales: spread(scales, outputs),
            bias: self.bias(node, map, scales, outputs)?,
        }))
    }

    /// Shape, bytes and scales of a node's weight, whose outputs lie along `axis`.
    fn weight(&self, node: &NodeProto, axis: usize) -> Option<(&[usize], &[u8], &[f32])> {
        let constant = self.constants.get(node.input.get(1)?.as_str())?;
        let Constant::Bytes {
            shape,
            bytes,
            scales,
            axis: along,
        } = constant
        else {
            return None;
        };
        let outputs = *shape.get(axis)?;
        let fits = scales.len() == 1 || (*along == axis && scales.len() == outputs);
        fits.then_some((shape, bytes, scales))
    }

    /// A node's bias in units of input scale times weight scale.
    fn bias(
        &self,
        node: &NodeProto,
        map: usize,
        scales: &[f32],
        outputs: usize,
    ) -> Option<Vec<i32>> {
        let Some(name) = node.input.get(2).filter(|name| !name.is_empty()) else {
            return Some(vec![0; outputs]);
        };
        let input = self.graph.nodes()[map].map.scheme.scale;
        let units: Vec<f32> = spread(scales, outputs).iter().map(|s| input * s).collect();
        let values: Vec<f64> = match (
            self.constants.get(name.as_str()),
            self.tensors.get(name.as_str()),
        ) {
            (Some(Constant::Words { words, scales }), _) => {
                let scales = spread(scales, outputs);
                if scales == units {
                    return (words.len() == outputs).then(|| words.clone());
                }
                let pairs = words.iter().zip(scales);
                pairs
                    .map(|(&word, scale)| f64::from(word) * f64::from(scale))
                    .collect()
            }
            (None, Some(tensor)) => floats(tensor)?.into_iter().map(f64::from).collect(),
            _ => return None,
        };
        if values.len() != outputs {
            return None;
        }
        let word = |(value, unit): (f64, &f32)| {
            let word = (value / f64::from(*unit)).round_ties_even();
            (word.abs() < f64::from(i32::MAX)).then_some(word as i32)
        };
        values.into_iter().zip(&units).map(word).collect()
    }

    /// The scheme of a map: one scale, and a zero point of unsigned bytes, or of signed ones, which count
    /// from -128.
    fn scheme(&self, scale: &str, zero: &str) -> Option<Scheme> {
        let [scale] = floats(self.tensors.get(scale)?)?[..] else {
            return None;
        };
        let tensor = self.tensors.get(zero)?;
        let [zero] = integers(tensor)?[..] else {
            return None;
        };
        let signed = tensor.data_type == DataType::Int8 as i32;
        let unsigned = tensor.data_type == DataType::Uint8 as i32;
        let zero = u8::try_from(if signed { zero + 128 } else { zero }).ok()?;
        (signed || unsigned).then_some(Scheme { scale, zero })
    }

    /// What a DequantizeLinear makes of a constant.
    fn constant(&self, node: &NodeProto) -> Option<Constant<'a>> {
        let tensor = |nth: usize| Some(*self.tensors.get(node.input.get(nth)?.as_str())?);
        let values = tensor(0)?;
        let scales = floats(tensor(1)?)?;
        let zeros = match node.input.get(2).is_some_and(|name| !name.is_empty()) {
            true => integers(tensor(2)?)?,
            false => Vec::new(),
        };
        if zeros.iter().any(|&zero| zero != 0) {
            return None;
        }
        if values.data_type == DataType::Int32 as i32 {
            let words = integers(values)?;
            return Some(Constant::Words { words, scales });
        }
        let bytes = match values.raw_data.is_empty() {
            false => Cow::Borrowed(values.raw_data.as_slice()),
            true => values.int32_data.iter().map(|&n| n as u8).collect(),
        };
        let shape = shape(values)?;
        let count = volume(&shape)?;
        let axis = int(node, "axis", 1)?;
        let is_bytes = values.data_type == DataType::Int8 as i32;
        let fits = is_bytes && count > 0 && count == bytes.len();
        fits.then_some(Constant::Bytes {
            shape,
            bytes,
            scales,
            axis,
        })
    }

    /// What of the model is left if the engine runs all that is known.
    fn split(self, model: &ModelProto, graph: &GraphProto) -> Option<Recognised> {
        let makers: BTreeMap<&str, &NodeProto> = graph
            .node
            .iter()
            .flat_map(|node| node.output.iter().map(move |name| (name.as_str(), node)))
            .collect();
        let mut outputs: Vec<(&str, usize)> = Vec::new();
        let mut left: BTreeSet<&str> = BTreeSet::new();
        let mut used: BTreeSet<&str> = BTreeSet::new();
        let mut wanted: Vec<&str> = graph
            .output
            .iter()
            .map(|value| value.name.as_str())
            .collect();
        while let Some(name) = wanted.pop() {
            if name.is_empty() || !used.insert(name) {
                continue;
            }
            if let Some(Known::Map(map)) = self.known.get(name) {
                outputs.push((name, *map));
            } else if let Some(node) = makers.get(name) {
                // What graphs within a node read is not known here.
                let inner = |a: &AttributeProto| a.g.is_some() || !a.graphs.is_empty();
                if node.attribute.iter().any(inner) {
                    return None;
                }
                left.extend(node.output.first().map(String::as_str));
                wanted.extend(node.input.iter().map(String::as_str));
            }
        }
        let taken = makers.keys().any(|name| name.starts_with(PREFIX));
        if outputs.is_empty() || taken {
            return None;
        }
        let is_left = |node: &&NodeProto| {
            let first = node.output.first();
            first.is_some_and(|name| left.contains(name.as_str()))
        };
        let mut node: Vec<NodeProto> = graph.node.iter().filter(is_left).cloned().collect();
        let map = |&(name, node): &(&str, usize)| {
            let [height, width, channels] = self.graph.nodes()[node].map.shape();
            value_info(&format!("{PREFIX}{name}"), &[1, channels, height, width])
        };
        // tract cannot tell an output that is an input.
        node.extend(outputs.iter().map(|(name, _)| NodeProto {
            op_type: "Identity".to_owned(),
            name: (*name).to_owned(),
            input: vec![format!("{PREFIX}{name}")],
            output: vec![(*name).to_owned()],
            ..NodeProto::default()
        }));
        let image = graph
            .input
            .iter()
            .filter(|value| used.contains(value.name.as_str()));
        let tensors = graph.initializer.iter();
        let rest = GraphProto {
            input: outputs.iter().map(map).chain(image.cloned()).collect(),
            initializer: tensors
                .filter(|t| used.contains(t.name.as_str()))
                .cloned()
                .collect(),
            output: graph.output.clone(),
            name: graph.name.clone(),
            ..GraphProto::default()
        };
        let rest = ModelProto {
            ir_version: model.ir_version,
            opset_import: model.opset_import.clone(),
            graph: Some(GraphProto { node, ..rest }),
            ..ModelProto::default()
        };
        let outputs = outputs.iter().map(|(_, map)| self.graph.values(*map));
        let (maps, values): (Vec<usize>, Vec<_>) = outputs.unzip();
        let (graph, maps) = self.graph.trimmed(&maps);
        Some(Recognised {
            outputs: maps.into_iter().zip(values).collect(),
            graph,
            rest,
            side: self.side,
        })
    }
}

/// One scale for each output.
fn spread(scales: &[f32], outputs: usize) -> Vec<f32> {
    match scales {
        [scale] => vec![*scale; outputs],
        _ => scales.to_vec(),
    }
}

fn floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    let values: Vec<f32> = super::onnx::floats(tensor)?.collect();
    (volume(&shape(tensor)?) == Some(values.len())).then_some(values)
}

fn shape(tensor: &TensorProto) -> Option<Vec<usize>> {
    let sizes = tensor.dims.iter().map(|&size| usize::try_from(size).ok());
    sizes.collect()
}

fn volume(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1, |n: usize, &size| n.checked_mul(size))
}

/// The values of an integer tensor.
fn integers(tensor: &TensorProto) -> Option<Vec<i32>> {
    let raw = &tensor.raw_data;
    let plain = || tensor.int32_data.iter().copied();
    let values: Vec<i32> = match DataType::try_from(tensor.data_type).ok()? {
        DataType::Int8 => raw
            .iter()
            .map(|&byte| i32::from(byte as i8))
            .chain(plain())
            .collect(),
        DataType::Uint8 => raw
            .iter()
            .map(|&byte| i32::from(byte))
            .chain(plain())
            .collect(),
        DataType::Int32 => {
            let (words, _) = raw.as_chunks::<4>();
            let words = words.iter().map(|word| i32::from_le_bytes(*word));
            words.chain(plain()).collect()
        }
        _ => return None,
    };
    (volume(&shape(tensor)?) == Some(values.len())).then_some(values)
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute
        .iter()
        .find(|attribute| attribute.name == name)
}

/// A number of 0 or above.
fn int(node: &NodeProto, name: &str, default: usize) -> Option<usize> {
    match attribute(node, name) {
        Some(attribute) => usize::try_from(attribute.i).ok(),
        None => Some(default),
    }
}

fn ints(node: &NodeProto, name: &str) -> Option<Vec<usize>> {
    let ints = attribute(node, name)?.ints.iter();
    // A negative one is none that fits anything.
    Some(
        ints.map(|&i| usize::try_from(i).unwrap_or(usize::MAX))
            .collect(),
    )
}

fn string<'a>(node: &'a NodeProto, name: &str) -> Option<&'a [u8]> {
    attribute(node, name).map(|attribute| attribute.s.as_slice())
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::network::{Network, in_tract};
    use super::super::onnx::{ByteFilters, Bytes, Filters as Weights, GraphBuilder, Value};
    use super::*;

    const SIDE: usize = 8;

    /// Steps of the map that models end with.
    const STEP: f32 = 0.125;

    fn values() -> [f32; 256] {
        std::array::from_fn(|byte| (byte as f32 - 128.0) / 128.0)
    }

    /// Bytes that look random.
    fn noise(seed: usize, count: usize) -> impl Iterator<Item = u8> {
        let mut state = seed as u64 + 0x9e37_79b9_7f4a_7c15;
        (0..count).map(move |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as u8
        })
    }

    fn filters(shape: [usize; 4], outputs: usize) -> ByteFilters {
        let weights = noise(outputs, shape.iter().product());
        ByteFilters {
            shape: shape.to_vec(),
            bytes: weights.map(|byte| (byte as i8).max(-127)).collect(),
            scales: (0..outputs).map(|o| 0.002 + 0.0005 * o as f32).collect(),
            bias: (0..outputs).map(|o| 300 * o as i32 - 500).collect(),
        }
    }

    fn bytes(filters: &ByteFilters, input_scale: f32) -> Weights<'_> {
        Weights::Bytes {
            filters,
            input_scale,
        }
    }

    /// A model of the image's bytes and what `build` makes of them.
    fn model(build: impl FnOnce(&mut GraphBuilder, &Bytes) -> (Value, usize, usize)) -> ModelProto {
        let mut graph = GraphBuilder::default();
        let image = graph.input("image", &[1, 3, SIDE, SIDE]);
        let image = graph.quantize(&image, 1.0 / 128.0, 128);
        let (output, channels, side) = build(&mut graph, &image);
        let shape = [1, channels, side, side];
        let file = graph.finish("test", &output, &shape, &[]);
        ModelProto::decode(&file[..]).expect("a model")
    }

    /// A 3x3 convolution of stride 2, another of each channel, and one of pixels.
    fn chain(graph: &mut GraphBuilder, image: &Bytes) -> Bytes {
        let x = graph.dequantize("a.in", image);
        let x = graph.conv(
            "a",
            &x,
            bytes(&filters([5, 3, 3, 3], 5), 1.0 / 128.0),
            2,
            [0, 0, 1, 1],
        );
        let x = graph.quantize(&x, 0.02, 100);
        let x = graph.dequantize("b.in", &x);
        let x = graph.conv("b", &x, bytes(&filters([5, 1, 3, 3], 5), 0.02), 1, [1; 4]);
        let x = graph.quantize(&x, 0.03, 90);
        let x = graph.dequantize("c.in", &x);
        let x = graph.conv("c", &x, bytes(&filters([6, 5, 1, 1], 6), 0.03), 1, [0; 4]);
        graph.quantize(&x, STEP / 4.0, 128)
    }

    /// Runs a model on some images, and compares what tract makes of it alone: sums in floats may fall on
    /// another side of a tie.
    fn compare(model: &ModelProto, [operators, of]: [usize; 2]) {
        let network = Network::from_proto(model.clone(), &values()).expect("loads");
        let engine = network.engine();
        assert_eq!([engine.operators, engine.of], [operators, of]);
        assert_eq!(engine.kernel.is_some(), operators > 0);
        let alone = in_tract(model, &values());
        let (mut same, mut count, mut least, mut most) = (0, 0, f32::MAX, f32::MIN);
        for seed in 0..12 {
            let image: Vec<u8> = noise(seed, 3 * SIDE * SIDE).collect();
            let found = network.run(&image).expect("runs");
            let want = alone.run(&image).expect("runs");
            assert_eq!(found.len(), want.len());
            for (found, want) in found.iter().zip(&want) {
                assert!((found - want).abs() <= 2.0 * STEP, "{found} and {want}");
                same += usize::from((found - want).abs() < STEP / 100.0);
                count += 1;
                (least, most) = (least.min(*found), most.max(*found));
            }
        }
        assert!(same * 100 >= count * 98, "{same} of {count}");
        assert!(most - least > 0.05, "hardly more than a constant");
    }

    fn node(kind: &str, input: &str, output: &str) -> NodeProto {
        NodeProto {
            op_type: kind.to_owned(),
            name: output.to_owned(),
            input: vec![input.to_owned()],
            output: vec![output.to_owned()],
            ..NodeProto::default()
        }
    }

    fn graph(model: &mut ModelProto) -> &mut GraphProto {
        model.graph.as_mut().expect("a graph")
    }

    fn simple() -> ModelProto {
        model(|graph, image| {
            let x = chain(graph, image);
            (graph.dequantize("output", &x), 6, 4)
        })
    }

    #[test]
    fn a_chain_of_convolutions_is_the_engines() {
        compare(&simple(), [3, 3]);
    }

    fn joined() -> ModelProto {
        model(|graph, image| {
            let x = chain(graph, image);
            let up = graph.dequantize("up.in", &x);
            let up = graph.upsample_2x("up", &up);
            let up = graph.quantize(&up, STEP / 4.0, 128);
            let one = graph.dequantize("add.in0", &up);
            let other = graph.dequantize("add.in1", &up);
            let sum = graph.add("add", &one, &other);
            // The sum has another scheme than what it is joined with, and the two are brought to a third.
            let sum = graph.quantize(&sum, STEP / 2.0, 120);
            let sum = graph.dequantize("join.in0", &sum);
            let up = graph.dequantize("join.in1", &up);
            let joined = graph.concat("join", &sum, &up);
            let joined = graph.quantize(&joined, STEP, 130);
            (graph.dequantize("output", &joined), 12, 8)
        })
    }

    #[test]
    fn what_moves_bytes_and_what_adds_them_is_the_engines() {
        compare(&joined(), [6, 6]);
    }

    fn doubled() -> ModelProto {
        model(|graph, image| {
            let x = chain(graph, image);
            let x = graph.dequantize("double.in", &x);
            let x = graph.conv_transpose_2x2(
                "double",
                &x,
                bytes(&filters([6, 2, 2, 2], 2), STEP / 4.0),
            );
            let x = graph.quantize(&x, STEP, 128);
            let x = graph.dequantize("sigmoid.in", &x);
            let x = graph.sigmoid("sigmoid", &x);
            let x = graph.quantize(&x, 1.0 / 256.0, 0);
            let output = graph.dequantize("all", &x);
            let mean = graph.dequantize("pool.in", &x);
            let mean = graph.global_average_pool("pool", &mean);
            let mean = graph.quantize(&mean, 1.0 / 256.0, 0);
            // Both are read: the mean is added to each pixel, which is left to tract.
            let mean = graph.dequantize("mean", &mean);
            (graph.add("output", &output, &mean), 2, 8)
        })
    }

    #[test]
    fn means_and_the_sigmoid_are_the_engines() {
        compare(&doubled(), [6, 7]);
    }

    #[test]
    fn signed_bytes_are_unsigned_ones_that_count_from_128() {
        let mut model = simple();
        for tensor in &mut graph(&mut model).initializer {
            if tensor.data_type == DataType::Uint8 as i32 {
                tensor.data_type = DataType::Int8 as i32;
                tensor.raw_data[0] ^= 0x80;
            }
        }
        compare(&model, [3, 3]);
        let run = |model: ModelProto| {
            let network = Network::from_proto(model, &values()).expect("loads");
            let image: Vec<u8> = noise(3, 3 * SIDE * SIDE).collect();
            network.run(&image).expect("runs")
        };
        assert_eq!(run(model), run(simple()));
    }

    #[test]
    fn a_clip_before_the_quantizer_narrows_what_comes_out() {
        let mut model = simple();
        let graph = graph(&mut model);
        let at = graph
            .node
            .iter()
            .position(|node| node.op_type == "QuantizeLinear" && node.input[0] == "b");
        let at = at.expect("b is quantized");
        graph.node[at].input[0] = "clipped".to_owned();
        graph.node.insert(at, node("Relu", "b", "clipped"));
        compare(&model, [4, 4]);
        let clipped = recognise(&model, &values()).expect("recognised");
        let ranges: Vec<Range> = clipped
            .graph
            .nodes()
            .iter()
            .map(|node| node.range)
            .collect();
        assert_eq!(ranges[2], Range { low: 90, high: 255 });
    }

    #[test]
    fn what_is_not_understood_is_left_to_tract() {
        // At the end.
        let mut model = simple();
        graph(&mut model).output[0].name = "absolute".to_owned();
        graph(&mut model)
            .node
            .push(node("Abs", "output", "absolute"));
        compare(&model, [3, 4]);

        // On the image itself as well.
        let sum = NodeProto {
            input: vec!["output".to_owned(), "mean".to_owned()],
            ..node("Add", "", "sum")
        };
        let mut model = simple();
        graph(&mut model).output[0].name = "sum".to_owned();
        graph(&mut model)
            .node
            .push(node("ReduceMean", "image", "mean"));
        graph(&mut model).node.push(sum);
        compare(&model, [3, 5]);

        // Between the engine's bytes: tract runs what it reads from the map before on.
        let mut model = simple();
        let last = graph(&mut model).node.last_mut().expect("nodes");
        let bytes = std::mem::replace(&mut last.input[0], "same".to_owned());
        let at = graph(&mut model).node.len() - 1;
        let same = node("Identity", &bytes, "same");
        graph(&mut model).node.insert(at, same);
        compare(&model, [2, 3]);
    }

    #[test]
    fn numbers_that_the_engine_cannot_hold_are_left_to_tract() {
        let mut model = simple();
        let bias = graph(&mut model)
            .initializer
            .iter_mut()
            .find(|t| t.name == "b.bias.words");
        let words = &mut bias.expect("a bias").raw_data;
        words[..4].copy_from_slice(&i32::MAX.to_le_bytes());
        // What comes before is still the engine's.
        compare(&model, [1, 3]);
    }

    #[test]
    fn constants_whose_sizes_are_wrong_are_refused() {
        let model = simple();
        let tensors = &model.graph.as_ref().expect("a graph").initializer;
        for (at, TensorProto { name, .. }) in tensors.iter().enumerate() {
            let mut model = model.clone();
            graph(&mut model).initializer[at].dims.insert(0, 2);
            assert!(Network::from_proto(model, &values()).is_err(), "{name}");
        }
        // A zero point that is named, but is not there.
        let mut model = model.clone();
        let zeros = |tensor: &TensorProto| tensor.name != "c.weight.zeros";
        graph(&mut model).initializer.retain(zeros);
        assert!(Network::from_proto(model, &values()).is_err());
    }

    /// What loads also runs, whatever it computes then.
    #[test]
    fn damaged_quantized_models_are_errors_or_models_but_no_panic() {
        let models = [simple(), joined(), doubled()].map(|model| model.encode_to_vec());
        let image: Vec<u8> = noise(5, 3 * SIDE * SIDE).collect();
        let mut loaded = 0;
        for (at, model) in models.iter().enumerate() {
            for seed in 0..1500 {
                let mut damaged = model.clone();
                let places: Vec<u8> = noise(seed * 3 + at, 12).collect();
                for place in places.chunks_exact(3).take(1 + seed % 4) {
                    let place = [place[0], place[1]].map(usize::from);
                    let place = (place[0] * 256 + place[1]) % damaged.len();
                    damaged[place] ^= 1 << (places[2] % 8);
                }
                let Ok(network) = Network::from_onnx(&damaged, &values()) else {
                    continue;
                };
                loaded += 1;
                if network.side() == SIDE {
                    let _ = network.run(&image);
                }
            }
        }
        assert!(loaded > 300, "only {loaded} loaded");
    }

    #[test]
    fn what_the_engine_may_not_take_out_is_left_to_tract() {
        let none = |change: fn(&mut ModelProto)| {
            let mut model = simple();
            change(&mut model);
            assert!(recognise(&model, &values()).is_none());
        };
        none(|model| model.opset_import.clear());
        none(|model| model.opset_import[0].version = 12);
        none(|model| {
            use tract_onnx::pb::type_proto::Value as Type;
            let image = graph(model).input[0].r#type.as_mut().expect("a type");
            if let Some(Type::TensorType(tensor)) = &mut image.value {
                tensor.elem_type = DataType::Int32 as i32;
            }
        });
        // A name that the engine would give.
        none(|model| {
            let taken = node("Abs", "image", "shipwatch.output");
            graph(model).node.push(taken);
        });
        // A name of two values.
        none(|model| {
            let twin = graph(model).node[2].clone();
            graph(model).node.push(twin);
        });
        // A graph within a node, which may read any value.
        none(|model| {
            let mut branch = node("If", "output", "either");
            branch.attribute.push(AttributeProto {
                name: "then_branch".to_owned(),
                g: Some(GraphProto::default()),
                ..AttributeProto::default()
            });
            graph(model).output[0].name = "either".to_owned();
            graph(model).node.push(branch);
        });
        // A weight of very many outputs without a value.
        let mut model = simple();
        let tensors = &mut graph(&mut model).initializer;
        let weight = tensors
            .iter_mut()
            .find(|t| t.name == "a.weight.bytes")
            .expect("a weight");
        weight.dims = vec![1 << 42, 0, 3, 3];
        weight.raw_data.clear();
        assert!(recognise(&model, &values()).is_none_or(|found| found.graph.nodes().len() == 1));
    }
}

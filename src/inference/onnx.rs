//! Writing ONNX: a graph builder with the handful of operators that the networks are made of; and
//! reading the weights of what was written.

use std::collections::BTreeMap;

use prost::Message;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, tensor_shape_proto, type_proto,
};

use super::InferenceError;

/// The operator set that the files declare.
const OPSET: i64 = 13;

/// The file format's version that goes with [`OPSET`].
const IR_VERSION: i64 = 8;

/// A tensor of the graph under construction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value(String);

/// A tensor of unsigned bytes, and what they stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bytes {
    bytes: Value,
    scale: Value,
    zero: Value,
}

/// Padding at top, left, bottom and right.
pub type Pads = [usize; 4];

/// Builds a graph node by node. Nodes take the names that the caller gives and must be unique.
#[derive(Debug, Default)]
pub struct GraphBuilder {
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    inputs: Vec<ValueInfoProto>,
}

/// An f32 tensor in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: Vec<f32>,
}

/// Weight and bias of a convolution: weight `[O, I / groups, K, K]`, of a transposed one
/// `[I, O, K, K]`, bias `[O]`.
#[derive(Debug, Clone, Copy)]
pub enum Filters<'a> {
    /// As they are.
    Float {
        /// The weight.
        weight: &'a Weights,
        /// The bias.
        bias: &'a [f32],
    },
    /// As integers, which the file turns back.
    Bytes {
        /// The weight and the bias.
        filters: &'a ByteFilters,
        /// Scale of the convolution's input, part of the bias's scale.
        input_scale: f32,
    },
}

/// Weight and bias of a convolution as integers: of output channel `o` a byte stands for
/// `scales[o] * byte`, and a word of the bias for `input_scale * scales[o] * word`.
#[derive(Debug, Clone, PartialEq)]
pub struct ByteFilters {
    /// The weight's dimensions.
    pub shape: Vec<usize>,
    /// The weight in row-major order.
    pub bytes: Vec<i8>,
    /// A positive scale for each output channel.
    pub scales: Vec<f32>,
    /// The bias.
    pub bias: Vec<i32>,
}

/// The f32 constants of an ONNX file, by name.
///
/// # Errors
/// [`InferenceError::Load`] if the bytes are no ONNX model.
pub fn initializers(bytes: &[u8]) -> Result<BTreeMap<String, Weights>, InferenceError> {
    let model = ModelProto::decode(bytes).map_err(|e| InferenceError::Load(e.to_string()))?;
    let tensors = model.graph.unwrap_or_default().initializer;
    let floats = tensors.into_iter().filter_map(|tensor| {
        let shape: Vec<usize> = tensor
            .dims
            .iter()
            .map(|&size| usize::try_from(size).ok())
            .collect::<Option<_>>()?;
        let values: Vec<f32> = floats(&tensor)?.collect();
        let count = shape
            .iter()
            .try_fold(1usize, |n, &size| n.checked_mul(size));
        (count == Some(values.len())).then_some((tensor.name, Weights { shape, values }))
    });
    Ok(floats.collect())
}

/// A constant that holds infinities or no numbers, if one does; by the name of its node where it is
/// part of one.
pub(super) fn not_finite(model: &ModelProto) -> Option<&str> {
    let graph = model.graph.as_ref()?;
    let weights = graph
        .initializer
        .iter()
        .map(|tensor| (&tensor.name, tensor));
    let constants = graph.node.iter().flat_map(|node| {
        let tensors = node.attribute.iter().filter_map(|value| value.t.as_ref());
        tensors.map(|tensor| (&node.name, tensor))
    });
    let finite = |tensor| floats(tensor).is_none_or(|mut values| values.all(f32::is_finite));
    let mut damaged = weights
        .chain(constants)
        .filter(|(_, tensor)| !finite(*tensor));
    damaged.next().map(|(name, _)| name.as_str())
}

/// The values of an f32 tensor that lies in the file itself.
pub(super) fn floats(tensor: &TensorProto) -> Option<impl Iterator<Item = f32>> {
    let (words, _) = tensor.raw_data.as_chunks::<4>();
    let raw = words.iter().map(|word| f32::from_le_bytes(*word));
    let is_float = tensor.data_type == DataType::Float as i32;
    is_float.then(|| raw.chain(tensor.float_data.iter().copied()))
}

impl Filters<'_> {
    /// The weight's dimensions.
    fn shape(&self) -> &[usize] {
        match self {
            Self::Float { weight, .. } => &weight.shape,
            Self::Bytes { filters, .. } => &filters.shape,
        }
    }
}

impl GraphBuilder {
    /// Declares an f32 input.
    pub fn input(&mut self, name: &str, shape: &[usize]) -> Value {
        self.inputs.push(value_info(name, shape));
        Value(name.to_owned())
    }

    /// Convolution. A weight `[O, 1, K, K]` with K above 1 filters each channel by itself.
    ///
    /// # Panics
    /// If the weight has other than four dimensions.
    pub fn conv(
        &mut self,
        name: &str,
        x: &Value,
        filters: Filters<'_>,
        stride: usize,
        pads: Pads,
    ) -> Value {
        let [outputs, inputs, kernel_height, kernel_width] = filters.shape()[..] else {
            panic!("{name}: a convolution's weight has four dimensions");
        };
        let depthwise = inputs == 1 && outputs > 1 && kernel_height > 1;
        let attributes = vec![
            ints("kernel_shape", &[kernel_height, kernel_width]),
            ints("strides", &[stride, stride]),
            ints("pads", &pads),
            int("group", if depthwise { outputs } else { 1 }),
        ];
        let [weight, bias] = self.filters(name, filters, 0);
        self.node("Conv", name, &[x, &weight, &bias], attributes)
    }

    /// 2x2 transposed convolution of stride 2.
    pub fn conv_transpose_2x2(&mut self, name: &str, x: &Value, filters: Filters<'_>) -> Value {
        let attributes = vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])];
        let [weight, bias] = self.filters(name, filters, 1);
        self.node("ConvTranspose", name, &[x, &weight, &bias], attributes)
    }

    /// The bytes nearest to `x`, each of which stands for `scale * (byte - zero)`; halves go to the even
    /// one.
    pub fn quantize(&mut self, x: &Value, scale: f32, zero: u8) -> Bytes {
        let name = &x.0;
        let scale = self.scalar(&format!("{name}.scale"), scale);
        let zero = self.constant(&format!("{name}.zero"), DataType::Uint8, &[], vec![zero]);
        let inputs = [x, &scale, &zero];
        let bytes = self.node("QuantizeLinear", &format!("{name}.bytes"), &inputs, vec![]);
        Bytes { bytes, scale, zero }
    }

    /// What bytes stand for.
    pub fn dequantize(&mut self, name: &str, x: &Bytes) -> Value {
        let inputs = [&x.bytes, &x.scale, &x.zero];
        self.node("DequantizeLinear", name, &inputs, vec![])
    }

    /// `min(max(x, 0), 6)`.
    pub fn relu6(&mut self, name: &str, x: &Value) -> Value {
        let low = self.scalar("zero", 0.0);
        let high = self.scalar("six", 6.0);
        self.node("Clip", name, &[x, &low, &high], vec![])
    }

    /// Element-wise sum.
    pub fn add(&mut self, name: &str, a: &Value, b: &Value) -> Value {
        self.node("Add", name, &[a, b], vec![])
    }

    /// Joins channels.
    pub fn concat(&mut self, name: &str, a: &Value, b: &Value) -> Value {
        self.node("Concat", name, &[a, b], vec![int("axis", 1)])
    }

    /// Repeats each pixel twice in both directions.
    pub fn upsample_2x(&mut self, name: &str, x: &Value) -> Value {
        let scales = self.vector("double", &[1.0, 1.0, 2.0, 2.0]);
        let attributes = vec![
            string("mode", "nearest"),
            string("coordinate_transformation_mode", "asymmetric"),
            string("nearest_mode", "floor"),
        ];
        // The second input, a region of interest, does not apply.
        self.node(
            "Resize",
            name,
            &[x, &Value(String::new()), &scales],
            attributes,
        )
    }

    /// Mean over height and width: `[N, C, H, W] -> [N, C, 1, 1]`.
    pub fn global_average_pool(&mut self, name: &str, x: &Value) -> Value {
        self.node("GlobalAveragePool", name, &[x], vec![])
    }

    /// `[N, C, H, W] -> [N, C * H * W]`.
    pub fn flatten(&mut self, name: &str, x: &Value) -> Value {
        self.node("Flatten", name, &[x], vec![int("axis", 1)])
    }

    /// Logistic function.
    pub fn sigmoid(&mut self, name: &str, x: &Value) -> Value {
        self.node("Sigmoid", name, &[x], vec![])
    }

    /// The file: the graph with one output of the given shape, and `metadata` as `metadata_props`.
    pub fn finish(
        self,
        name: &str,
        output: &Value,
        shape: &[usize],
        metadata: &[(String, String)],
    ) -> Vec<u8> {
        let property = |(key, value): &(String, String)| StringStringEntryProto {
            key: key.clone(),
            value: value.clone(),
        };
        let model = ModelProto {
            ir_version: IR_VERSION,
            producer_name: env!("CARGO_PKG_NAME").to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            opset_import: vec![OperatorSetIdProto {
                domain: String::new(),
                version: OPSET,
            }],
            metadata_props: metadata.iter().map(property).collect(),
            graph: Some(GraphProto {
                name: name.to_owned(),
                node: self.nodes,
                initializer: self.initializers,
                input: self.inputs,
                output: vec![value_info(&output.0, shape)],
                ..Default::default()
            }),
            ..Default::default()
        };
        model.encode_to_vec()
    }

    fn node(
        &mut self,
        operator: &str,
        name: &str,
        inputs: &[&Value],
        attribute: Vec<AttributeProto>,
    ) -> Value {
        self.nodes.push(NodeProto {
            op_type: operator.to_owned(),
            name: name.to_owned(),
            input: inputs.iter().map(|value| value.0.clone()).collect(),
            output: vec![name.to_owned()],
            attribute,
            ..Default::default()
        });
        Value(name.to_owned())
    }

    /// Weight and bias as f32, whatever they are kept as; the weight's output channels lie along `axis`.
    fn filters(&mut self, name: &str, filters: Filters<'_>, axis: usize) -> [Value; 2] {
        let [weight_name, bias_name] = ["weight", "bias"].map(|part| format!("{name}.{part}"));
        match filters {
            Filters::Float { weight, bias } => [
                self.floats(&weight_name, &weight.shape, &weight.values),
                self.floats(&bias_name, &[bias.len()], bias),
            ],
            Filters::Bytes {
                filters,
                input_scale,
            } => {
                let scales = &filters.scales;
                let raw = filters.bytes.iter().map(|byte| byte.cast_unsigned());
                let name = format!("{weight_name}.bytes");
                let weight = self.constant(&name, DataType::Int8, &filters.shape, raw.collect());
                // All of zero, yet written: ONNX Runtime makes a scalar of what is left out where it
                // turns signed weights into unsigned ones.
                let name = format!("{weight_name}.zeros");
                let zeros = vec![0; scales.len()];
                let zeros = self.constant(&name, DataType::Int8, &[scales.len()], zeros);
                let words = filters.bias.iter().flat_map(|word| word.to_le_bytes());
                let name = format!("{bias_name}.words");
                let shape = [filters.bias.len()];
                let bias = self.constant(&name, DataType::Int32, &shape, words.collect());
                let bias_scales: Vec<f32> =
                    scales.iter().map(|scale| input_scale * scale).collect();
                [
                    self.scaled(&weight_name, &weight, scales, Some(&zeros), axis),
                    self.scaled(&bias_name, &bias, &bias_scales, None, 0),
                ]
            }
        }
    }

    /// `integers` times a scale for each index along `axis`.
    fn scaled(
        &mut self,
        name: &str,
        integers: &Value,
        scales: &[f32],
        zeros: Option<&Value>,
        axis: usize,
    ) -> Value {
        let scales = self.vector(&format!("{name}.scales"), scales);
        let inputs: Vec<&Value> = [integers, &scales].into_iter().chain(zeros).collect();
        self.node("DequantizeLinear", name, &inputs, vec![int("axis", axis)])
    }

    fn vector(&mut self, name: &str, values: &[f32]) -> Value {
        self.floats(name, &[values.len()], values)
    }

    fn scalar(&mut self, name: &str, value: f32) -> Value {
        self.floats(name, &[], &[value])
    }

    fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Value {
        let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(name, DataType::Float, shape, raw)
    }

    /// Adds a constant; one that is there under the same name is shared.
    fn constant(&mut self, name: &str, kind: DataType, shape: &[usize], raw: Vec<u8>) -> Value {
        if !self.initializers.iter().any(|tensor| tensor.name == name) {
            self.initializers.push(TensorProto {
                name: name.to_owned(),
                data_type: kind as i32,
                dims: shape.iter().map(|&d| d as i64).collect(),
                raw_data: raw,
                ..Default::default()
            });
        }
        Value(name.to_owned())
    }
}

pub(super) fn value_info(name: &str, shape: &[usize]) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension};
    let dimension = |&d: &usize| Dimension {
        value: Some(dimension::Value::DimValue(d as i64)),
        ..Default::default()
    };
    let tensor = type_proto::Tensor {
        elem_type: DataType::Float as i32,
        shape: Some(TensorShapeProto {
            dim: shape.iter().map(dimension).collect(),
        }),
    };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: kind as i32,
        ..Default::default()
    }
}

fn int(name: &str, value: usize) -> AttributeProto {
    AttributeProto {
        i: value as i64,
        ..attribute(name, AttributeType::Int)
    }
}

fn ints(name: &str, values: &[usize]) -> AttributeProto {
    let ints = values.iter().map(|&v| v as i64).collect();
    AttributeProto {
        ints,
        ..attribute(name, AttributeType::Ints)
    }
}

fn string(name: &str, value: &str) -> AttributeProto {
    AttributeProto {
        s: value.as_bytes().to_vec(),
        ..attribute(name, AttributeType::String)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::Network;

    fn run(build: impl FnOnce(&mut GraphBuilder, &Value) -> (Value, Vec<usize>)) -> Vec<f32> {
        let mut graph = GraphBuilder::default();
        let x = graph.input("x", &[1, 3, 2, 2]);
        let (y, shape) = build(&mut graph, &x);
        let file = graph.finish("test", &y, &shape, &[("key".into(), "value".into())]);
        let network = Network::from_onnx(&file, &std::array::from_fn(|byte| byte as f32));
        let network = network.expect("loads");
        assert_eq!(network.metadata()["key"], "value");
        // In planes 0 to 3, 4 to 7 and 8 to 11.
        let pixels = (0..4u8).flat_map(|pixel| [pixel, 4 + pixel, 8 + pixel]);
        network.run(&pixels.collect::<Vec<_>>()).expect("runs")
    }

    fn float<'a>(weight: &'a Weights, bias: &'a [f32]) -> Filters<'a> {
        Filters::Float { weight, bias }
    }

    #[test]
    fn stride_two_convolution_pads_where_it_is_told() {
        // A single tap in the middle of the window: padding right and bottom puts it on (1, 1).
        let mut weight = Weights {
            shape: vec![1, 3, 3, 3],
            values: vec![0.0; 27],
        };
        weight.values[4] = 1.0;
        let y = run(|g, x| {
            (
                g.conv("c", x, float(&weight, &[0.5]), 2, [0, 0, 1, 1]),
                vec![1, 1, 1, 1],
            )
        });
        assert_eq!(y, [3.5]);
        let y = run(|g, x| {
            (
                g.conv("c", x, float(&weight, &[0.5]), 2, [1, 1, 0, 0]),
                vec![1, 1, 1, 1],
            )
        });
        assert_eq!(y, [0.5]);
    }

    #[test]
    fn depthwise_and_relu6_by_hand() {
        let mut weight = Weights {
            shape: vec![3, 1, 3, 3],
            values: vec![0.0; 27],
        };
        weight.values[4] = -1.0;
        weight.values[13] = 1.0;
        weight.values[22] = 0.5;
        let y = run(|g, x| {
            let y = g.conv("c", x, float(&weight, &[0.0; 3]), 1, [1, 1, 1, 1]);
            (g.relu6("r", &y), vec![1, 3, 2, 2])
        });
        assert_eq!(
            y,
            [0.0, 0.0, 0.0, 0.0, 4.0, 5.0, 6.0, 6.0, 4.0, 4.5, 5.0, 5.5]
        );
    }

    #[test]
    fn upsampling_adding_and_joining_by_hand() {
        let y = run(|g, x| {
            let sum = g.add("a", x, x);
            let joined = g.concat("j", &sum, x);
            let pooled = g.global_average_pool("p", &joined);
            (g.flatten("f", &pooled), vec![1, 6])
        });
        assert_eq!(y, [3.0, 11.0, 19.0, 1.5, 5.5, 9.5]);
        let y = run(|g, x| (g.upsample_2x("u", x), vec![1, 3, 4, 4]));
        let first = [
            0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 2.0, 2.0, 3.0, 3.0,
        ];
        assert_eq!(y[..16], first);
    }

    #[test]
    fn transposed_convolution_and_sigmoid_by_hand() {
        let mut weight = Weights {
            shape: vec![3, 1, 2, 2],
            values: vec![0.0; 12],
        };
        weight.values[..4].copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
        let y = run(|g, x| {
            (
                g.conv_transpose_2x2("t", x, float(&weight, &[0.25])),
                vec![1, 1, 4, 4],
            )
        });
        let row = |a: f32, b: f32| [a, 2.0 * a, b, 2.0 * b].map(|v| v + 0.25);
        assert_eq!(y[..4], row(0.0, 1.0));
        assert_eq!(y[8..12], row(2.0, 3.0));
        let y = run(|g, x| (g.sigmoid("s", x), vec![1, 3, 2, 2]));
        assert!((y[1] - 0.731_058_6).abs() < 1e-4);
    }

    #[test]
    fn integer_filters_and_rounded_maps_by_hand() {
        // Two outputs of scales 0.5 and 0.25 over three channels; input scale 2, so that a word of the
        // bias is 1 and 0.5.
        let filters = ByteFilters {
            shape: vec![2, 3, 1, 1],
            bytes: vec![2, 0, -2, 127, -127, 4],
            scales: vec![0.5, 0.25],
            bias: vec![3, -8],
        };
        let by = |g: &mut GraphBuilder, x: &Value| {
            let bytes = Filters::Bytes {
                filters: &filters,
                input_scale: 2.0,
            };
            g.conv("c", x, bytes, 1, [0; 4])
        };
        // Pixel i holds i, 4 + i and 8 + i.
        let exact = run(|g, x| (by(g, x), vec![1, 2, 2, 2]));
        assert_eq!(
            exact,
            [-5.0, -5.0, -5.0, -5.0, -123.0, -122.0, -121.0, -120.0]
        );
        // In steps of 2 from zero at 125, the lowest byte stands for -250; halves go to the even byte,
        // counted from zero: -5 to -4, -123 to -124 and -121 to -120.
        let rounded = run(|g, x| {
            let y = by(g, x);
            let bytes = g.quantize(&y, 2.0, 125);
            (g.dequantize("d", &bytes), vec![1, 2, 2, 2])
        });
        assert_eq!(
            rounded,
            [-4.0, -4.0, -4.0, -4.0, -124.0, -122.0, -120.0, -120.0]
        );
        // What no byte stands for becomes the nearest that one does.
        let clipped = run(|g, x| {
            let bytes = g.quantize(x, 0.25, 228);
            (g.dequantize("d", &bytes), vec![1, 3, 2, 2])
        });
        let want = [
            0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 6.75, 6.75, 6.75, 6.75, 6.75,
        ];
        assert_eq!(clipped, want);
    }

    #[test]
    fn filters_of_a_transposed_convolution_are_scaled_by_output() {
        let filters = ByteFilters {
            shape: vec![3, 2, 2, 2],
            bytes: (0..24).map(|at| if at < 8 { 1 } else { 0 }).collect(),
            scales: vec![1.0, 0.5],
            bias: vec![0, 2],
        };
        let y = run(|g, x| {
            let bytes = Filters::Bytes {
                filters: &filters,
                input_scale: 1.0,
            };
            (g.conv_transpose_2x2("t", x, bytes), vec![1, 2, 4, 4])
        });
        assert_eq!(y[..4], [0.0, 0.0, 1.0, 1.0]);
        assert_eq!(y[16..20], [1.0, 1.0, 1.5, 1.5]);
    }
}

//! A trained network as a list of operators, batch norm folded: what is written as a file, and what
//! quantization works on.

use burn::module::Param;
use burn::nn::conv::ConvTranspose2d;
use burn::tensor::{Tensor, backend::Backend};
use shipwatch::inference::onnx::Weights;

use crate::nn::{ConvBn, Decoder, Encoder, Gate, LightStage, SeedStage, UNet};

/// Operators in an order in which each comes after what it reads; the last one gives the output.
#[derive(Debug, Clone)]
pub(crate) struct Graph {
    /// `gate` or `unet`.
    pub(crate) name: &'static str,
    pub(crate) nodes: Vec<Node>,
}

/// An operator and the feature map that it makes.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Unique in its graph.
    pub(crate) name: String,
    pub(crate) op: Op,
    /// What it reads, as places in the graph's list.
    pub(crate) inputs: Vec<usize>,
    pub(crate) channels: usize,
    /// Height and width.
    pub(crate) side: usize,
}

/// What a [`Node`] does.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// The image, normalised.
    Image,
    /// A convolution in TensorFlow's "SAME" padding.
    Conv {
        /// `[O, I, K, K]`, or `[C, 1, 3, 3]` for each channel by itself.
        weight: Weights,
        bias: Vec<f32>,
        stride: usize,
        relu6: bool,
    },
    /// A 2x2 transposed convolution of stride 2, its weight `[I, O, 2, 2]`.
    Double { weight: Weights, bias: Vec<f32> },
    /// The sum of two maps.
    Add,
    /// The channels of one map, then those of the other.
    Concat,
    /// Each pixel twice in both directions.
    Upsample,
    /// The mean of all pixels.
    Pool,
    /// The logistic function.
    Sigmoid,
}

impl Graph {
    /// From a tile's pixels `[3, S, S]` to its ship probability `[1, 1, 1]`.
    pub(crate) fn of_gate<B: Backend>(gate: &Gate<B>, tile: usize) -> Self {
        let mut graph = Self::new("gate", tile);
        let [.., deepest] = graph.encoder(&gate.encoder);
        let x = graph.conv_bn("head", deepest, &gate.head);
        let channels = graph.nodes[x].channels;
        let x = graph.push("pool", Op::Pool, &[x], channels, 1);
        let weight = values(&gate.classifier.weight);
        let bias = gate.classifier.bias.as_ref();
        let classifier = Op::Conv {
            weight: Weights {
                shape: vec![1, weight.len(), 1, 1],
                values: weight,
            },
            bias: bias.map_or_else(|| vec![0.0], values),
            stride: 1,
            relu6: false,
        };
        let x = graph.push("classifier", classifier, &[x], 1, 1);
        graph.push("probability", Op::Sigmoid, &[x], 1, 1);
        graph
    }

    /// From a tile's pixels `[3, S, S]` to each one's ship probability `[1, S, S]`, or to that and its
    /// centrality `[2, S, S]`.
    pub(crate) fn of_unet<B: Backend>(unet: &UNet<B>, tile: usize) -> Self {
        let mut graph = Self::new("unet", tile);
        let [s2, s4, s8, s16, mut x] = graph.encoder(&unet.encoder);
        let skips = [s16, s8, s4, s2].into_iter().enumerate();
        match &unet.decoder {
            Decoder::Light(light) => {
                for (stage, (index, skip)) in light.stages.iter().zip(skips) {
                    x = graph.light_stage(&format!("decoder.{index}"), stage, x, skip);
                }
            }
            Decoder::Seed(seed) => {
                for (stage, (index, skip)) in seed.stages.iter().zip(skips) {
                    x = graph.seed_stage(&format!("decoder.{index}"), stage, x, skip);
                }
            }
        }
        let x = graph.double("mask", x, &unet.head);
        graph.push("probability", Op::Sigmoid, &[x], unet.outputs(), tile);
        graph
    }

    fn new(name: &'static str, tile: usize) -> Self {
        let mut graph = Self {
            name,
            nodes: Vec::new(),
        };
        graph.push("image", Op::Image, &[], 3, tile);
        graph
    }

    fn push(
        &mut self,
        name: &str,
        op: Op,
        inputs: &[usize],
        channels: usize,
        side: usize,
    ) -> usize {
        self.nodes.push(Node {
            name: name.to_owned(),
            op,
            inputs: inputs.to_vec(),
            channels,
            side,
        });
        self.nodes.len() - 1
    }

    /// Feature maps of strides 2, 4, 8, 16 and 32.
    fn encoder<B: Backend>(&mut self, encoder: &Encoder<B>) -> [usize; 5] {
        let mut x = self.conv_bn("stem", 0, &encoder.stem);
        let mut taps = Vec::new();
        for (index, block) in encoder.blocks.iter().enumerate() {
            let name = format!("block.{index}");
            let mut y = x;
            if let Some(expand) = &block.expand {
                y = self.conv_bn(&format!("{name}.expand"), y, expand);
            }
            y = self.conv_bn(&format!("{name}.depthwise"), y, &block.depthwise);
            y = self.conv_bn(&format!("{name}.project"), y, &block.project);
            x = match block.residual {
                true => self.add(&format!("{name}.add"), x, y),
                false => y,
            };
            if Encoder::<B>::tap_of_block(index).is_some() {
                taps.push(x);
            }
        }
        taps.try_into()
            .unwrap_or_else(|_| unreachable!("the trunk passes each of five taps once"))
    }

    fn light_stage<B: Backend>(
        &mut self,
        name: &str,
        stage: &LightStage<B>,
        x: usize,
        skip: usize,
    ) -> usize {
        let x = self.conv_bn(&format!("{name}.reduce"), x, &stage.reduce);
        let (channels, side) = (self.nodes[x].channels, self.nodes[x].side * 2);
        let up = self.push(&format!("{name}.up"), Op::Upsample, &[x], channels, side);
        let lateral = self.conv_bn(&format!("{name}.lateral"), skip, &stage.lateral);
        let sum = self.add(&format!("{name}.add"), up, lateral);
        let y = self.conv_bn(&format!("{name}.depthwise"), sum, &stage.refine.depthwise);
        self.conv_bn(&format!("{name}.pointwise"), y, &stage.refine.pointwise)
    }

    fn seed_stage<B: Backend>(
        &mut self,
        name: &str,
        stage: &SeedStage<B>,
        x: usize,
        skip: usize,
    ) -> usize {
        let up = self.double(&format!("{name}.up"), x, &stage.up);
        let channels = self.nodes[up].channels + self.nodes[skip].channels;
        let side = self.nodes[up].side;
        let name_of = |part: &str| format!("{name}.{part}");
        let joined = self.push(&name_of("concat"), Op::Concat, &[up, skip], channels, side);
        let y = self.conv_bn(&name_of("first"), joined, &stage.first);
        self.conv_bn(&name_of("second"), y, &stage.second)
    }

    fn add(&mut self, name: &str, a: usize, b: usize) -> usize {
        let (channels, side) = (self.nodes[a].channels, self.nodes[a].side);
        self.push(name, Op::Add, &[a, b], channels, side)
    }

    fn double<B: Backend>(&mut self, name: &str, x: usize, conv: &ConvTranspose2d<B>) -> usize {
        let weight = Weights {
            shape: conv.weight.dims().to_vec(),
            values: values(&conv.weight),
        };
        let outputs = weight.shape[1];
        let bias = conv.bias.as_ref();
        let bias = bias.map_or_else(|| vec![0.0; outputs], values);
        let side = self.nodes[x].side * 2;
        self.push(name, Op::Double { weight, bias }, &[x], outputs, side)
    }

    fn conv_bn<B: Backend>(&mut self, name: &str, x: usize, layer: &ConvBn<B>) -> usize {
        let (weight, bias) = fold(layer);
        let (outputs, side) = (bias.len(), self.nodes[x].side.div_ceil(layer.stride));
        let conv = Op::Conv {
            weight,
            bias,
            stride: layer.stride,
            relu6: layer.relu6,
        };
        self.push(name, conv, &[x], outputs, side)
    }
}

/// The convolution that does what convolution and batch norm do: weight times
/// `gamma / sqrt(var + eps)`, bias `beta - mean * gamma / sqrt(var + eps)`.
fn fold<B: Backend>(layer: &ConvBn<B>) -> (Weights, Vec<f32>) {
    let bn = &layer.bn;
    let (gamma, beta) = (values(&bn.gamma), values(&bn.beta));
    let (mean, var) = (
        tensor_values(bn.running_mean.value_sync()),
        tensor_values(bn.running_var.value_sync()),
    );
    let scale: Vec<f32> = gamma
        .iter()
        .zip(&var)
        .map(|(g, v)| g / (v + bn.epsilon as f32).sqrt())
        .collect();
    let bias = beta
        .iter()
        .zip(&mean)
        .zip(&scale)
        .map(|((b, m), s)| b - m * s)
        .collect();
    let mut weight = Weights {
        shape: layer.weight.dims().to_vec(),
        values: values(&layer.weight),
    };
    let per_output = weight.values.len() / scale.len();
    for (filter, scale) in weight.values.chunks_exact_mut(per_output).zip(&scale) {
        filter.iter_mut().for_each(|w| *w *= scale);
    }
    (weight, bias)
}

fn values<B: Backend, const D: usize>(param: &Param<Tensor<B, D>>) -> Vec<f32> {
    tensor_values(param.val())
}

pub(super) fn tensor_values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().iter().collect()
}

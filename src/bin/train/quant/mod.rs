//! From a trained network to one of eight-bit integers: after training by what feature maps are seen to
//! hold, then by training on with all that rounding does.
//!
//! Feature maps are unsigned bytes with a scale and a zero point each, weights signed bytes with a scale
//! for each output channel, biases words; ARCHITECTURE.md says why. The image's bytes are its map, as
//! they are, for the input is normalised by [`BYTES`].

mod correct;
mod cost;
mod equalise;
#[cfg(test)]
mod fixtures;
mod forward;
mod observe;
mod post_training;
mod ranges;
mod scheme;
mod simulated;
mod tuned;

use std::sync::Arc;

use anyhow::{Result, ensure};
use shipwatch::inference::onnx::{ByteFilters, Weights};
use shipwatch::model::Normalisation;

pub(crate) use post_training::post_training;
pub(crate) use scheme::Scheme;
pub(crate) use simulated::Simulated;
pub(crate) use tuned::Tuned;

use crate::export::{Graph, Op};
use crate::tensors::NORMALISATION;
use cost::simulate;
use scheme::quantize_weight;

/// The normalisation that gives each byte of an image a byte of its own.
pub(crate) const BYTES: Normalisation = Normalisation {
    mean: 128.0,
    std: 128.0,
};

/// Largest bias in units of the scales of input and weight: beyond, the sums of products with a map
/// might not fit a word.
const LARGEST_BIAS: f32 = (1 << 30) as f32;

/// A network and the integers that it becomes.
#[derive(Debug, Clone)]
pub(crate) struct Quantized {
    /// In floats; its input normalised by [`BYTES`].
    pub(crate) graph: Graph,
    /// Of each node's map.
    pub(crate) schemes: Arc<[Scheme]>,
    /// Of each node that has some.
    filters: Vec<Option<ByteFilters>>,
}

impl Quantized {
    /// # Errors
    /// If a weight is no number.
    ///
    /// # Panics
    /// If there are not as many schemes as nodes, or the bytes of a ReLU6's map do not clip as it does.
    pub(crate) fn new(graph: Graph, schemes: Arc<[Scheme]>) -> Result<Self> {
        assert_eq!(graph.nodes.len(), schemes.len());
        graph.check_weights()?;
        let mut filters = Vec::with_capacity(graph.nodes.len());
        for (node, scheme) in graph.nodes.iter().zip(schemes.iter()) {
            if let Op::Conv { relu6: true, .. } = node.op {
                let grid = scheme.grid();
                let clips = grid.low == 0.0 && grid.high <= 6.0 + grid.step / 2.0;
                assert!(clips, "{} ends with a ReLU6: {grid:?}", node.name);
            }
            filters.push(node.op.filters().map(|(weight, bias)| {
                let input = schemes[node.inputs[0]];
                byte_filters(weight, bias, node.op.outputs_at(), input.scale)
            }));
        }
        Ok(Self {
            graph,
            schemes,
            filters,
        })
    }

    /// The integers of a node.
    ///
    /// # Panics
    /// If it has no weights.
    pub(crate) fn filters(&self, node: usize) -> &ByteFilters {
        self.filters[node].as_ref().expect("a node with weights")
    }

    /// The network with what the integers of its weights stand for; its maps are still to be rounded.
    pub(crate) fn rounded(&self) -> Graph {
        let mut graph = self.graph.clone();
        for at in 0..graph.nodes.len() {
            self.round(&mut graph, at);
        }
        graph
    }

    /// Gives node `at` of `graph` the weights that its integers stand for.
    fn round(&self, graph: &mut Graph, at: usize) {
        let Some(filters) = &self.filters[at] else {
            return;
        };
        let input = self.schemes[graph.nodes[at].inputs[0]].scale;
        let outputs_at = graph.nodes[at].op.outputs_at();
        let Some((weight, bias)) = graph.nodes[at].op.filters_mut() else {
            return;
        };
        let channel = channel_of(&weight.shape, outputs_at);
        for (index, value) in weight.values.iter_mut().enumerate() {
            *value = filters.scales[channel(index)] * f32::from(filters.bytes[index]);
        }
        for ((value, word), scale) in bias.iter_mut().zip(&filters.bias).zip(&filters.scales) {
            *value = input * scale * *word as f32;
        }
    }
}

impl Graph {
    /// # Errors
    /// If a weight is no number, or infinite; the message names the layer.
    pub(crate) fn check_weights(&self) -> Result<()> {
        for node in &self.nodes {
            let Some((weight, bias)) = node.op.filters() else {
                continue;
            };
            let mut numbers = weight.values.iter().chain(bias);
            ensure!(
                numbers.all(|value| value.is_finite()),
                "{}, layer {}: a weight is no number or infinite: the run is damaged, train it anew",
                self.name,
                node.name
            );
        }
        Ok(())
    }

    /// The same network for images that are normalised by [`BYTES`]. Beyond the image's border it sees
    /// zeros, which then are bytes of 128 instead of 127.5.
    ///
    /// # Panics
    /// If what reads the image is no convolution.
    pub(crate) fn of_bytes(mut self) -> Self {
        let Normalisation { mean, std } = NORMALISATION;
        let readers = self.nodes.iter_mut().filter(|node| node.inputs == [0]);
        for node in readers {
            let Op::Conv { weight, bias, .. } = &mut node.op else {
                panic!("{} reads the image", node.name);
            };
            // (byte - mean) / std = (byte - 128) / 128 * gain + offset
            let (gain, offset) = (BYTES.std / std, (BYTES.mean - mean) / std);
            let per_output = weight.values.len() / bias.len();
            for (filter, bias) in weight.values.chunks_exact_mut(per_output).zip(bias) {
                *bias += filter.iter().sum::<f32>() * offset;
                filter.iter_mut().for_each(|w| *w *= gain);
            }
        }
        self
    }
}

impl Op {
    /// Weight and bias.
    pub(crate) fn filters(&self) -> Option<(&Weights, &Vec<f32>)> {
        match self {
            Self::Conv { weight, bias, .. } | Self::Double { weight, bias } => Some((weight, bias)),
            _ => None,
        }
    }

    /// Weight and bias.
    pub(crate) fn filters_mut(&mut self) -> Option<(&mut Weights, &mut Vec<f32>)> {
        match self {
            Self::Conv { weight, bias, .. } | Self::Double { weight, bias } => Some((weight, bias)),
            _ => None,
        }
    }

    /// The dimension of the weight along which output channels lie.
    fn outputs_at(&self) -> usize {
        usize::from(matches!(self, Self::Double { .. }))
    }

    /// Whether each channel is filtered by itself.
    fn is_depthwise(&self) -> bool {
        matches!(self, Self::Conv { weight, .. } if weight.shape[1] == 1 && weight.shape[2] > 1)
    }
}

/// Which output channel the value at an index of a weight belongs to.
fn channel_of(shape: &[usize], outputs_at: usize) -> impl Fn(usize) -> usize {
    let inner: usize = shape[outputs_at + 1..].iter().product();
    let outputs = shape[outputs_at];
    move |index| index / inner % outputs
}

fn byte_filters(
    weight: &Weights,
    bias: &[f32],
    outputs_at: usize,
    input_scale: f32,
) -> ByteFilters {
    let channel = channel_of(&weight.shape, outputs_at);
    // So that no bias is out of reach: a channel of tiny weights would have too fine a scale for it.
    let least: Vec<f32> = bias
        .iter()
        .map(|bias| bias.abs() / (input_scale * LARGEST_BIAS))
        .collect();
    let (scales, bytes) = quantize_weight(&weight.values, &least, channel);
    let word =
        |(bias, scale): (&f32, &f32)| (bias / (input_scale * scale)).round_ties_even() as i32;
    ByteFilters {
        shape: weight.shape.clone(),
        bias: bias.iter().zip(&scales).map(word).collect(),
        bytes,
        scales,
    }
}

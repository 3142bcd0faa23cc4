//! Training on with all that rounding does: quantization-aware training with straight-through gradients
//! (Jacob et al. 2018, section 3; Krishnamoorthi 2018, section 3.2).
//!
//! Batch norm is folded and stays so, and so do the maps' schemes; weights are rounded in each step by the
//! scales that they would get.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use burn::backend::Autodiff;
use burn::module::{Module, Param};
use burn::tensor::activation::sigmoid;
use burn::tensor::{Tensor, TensorData, backend::Backend};

use super::forward::{pool, upsample};
use super::scheme::HEAVIEST;
use super::{BYTES, Quantized, Scheme};
use crate::config::Losses;
use crate::data::Tile;
use crate::export::{Graph, Op};
use crate::loss;
use crate::nn::{FusedOps, Params, double, round_to, rounded_conv};
use crate::stop::{Stop, Stopped};
use crate::task::{Score, Task, haze, judge_gate, judge_unet, read, unet_loss};
use crate::tensors;

/// A network that is trained as the integers see it.
#[derive(Module, Debug)]
pub(crate) struct Tuned<B: Backend> {
    /// Of the nodes that have some, in their order.
    weights: Vec<Param<Tensor<B, 4>>>,
    biases: Vec<Param<Tensor<B, 1>>>,
    /// Scale and zero point of each map, `[N, 2]`: never trained, but kept in checkpoints.
    ranges: Param<Tensor<B, 2>>,
    #[module(skip)]
    quantized: Arc<Quantized>,
}

impl<B: Backend> Tuned<B> {
    pub(crate) fn new(quantized: Arc<Quantized>, device: &B::Device) -> Self {
        let nodes = quantized.graph.nodes.iter();
        let (weights, biases) = nodes
            .filter_map(|node| node.op.filters())
            .map(|(weight, bias)| {
                let values = TensorData::new(weight.values.clone(), weight.shape.clone());
                (
                    Param::from_tensor(Tensor::from_data(values, device)),
                    Param::from_tensor(Tensor::from_floats(&bias[..], device)),
                )
            })
            .unzip();
        let ranges = ranges(&quantized);
        let ranges = TensorData::new(ranges.concat(), [ranges.len(), 2]);
        let ranges = Param::from_tensor(Tensor::from_data(ranges, device));
        Self {
            weights,
            biases,
            ranges: ranges.set_require_grad(false),
            quantized,
        }
    }
}

impl Quantized {
    /// A network of the shape of `graph` with the weights and schemes of a tuned one.
    ///
    /// # Errors
    /// If `params` are another network's.
    pub(crate) fn of_tuned(graph: &Graph, params: &Params) -> Result<Self> {
        let values = |name: &str, count: usize| -> Result<Vec<f32>> {
            let found = params.0.get(name).map(|data| data.iter().collect());
            let found: Vec<f32> = found.with_context(|| format!("tensor `{name}` is missing"))?;
            ensure!(
                found.len() == count,
                "tensor `{name}` has {} values, the network needs {count}",
                found.len()
            );
            Ok(found)
        };
        let mut graph = graph.clone();
        let filters = graph.nodes.iter_mut().filter_map(|n| n.op.filters_mut());
        for (index, (weight, bias)) in filters.enumerate() {
            weight.values = values(&format!("weights.{index}"), weight.values.len())?;
            *bias = values(&format!("biases.{index}"), bias.len())?;
        }
        let ranges = values("ranges", 2 * graph.nodes.len())?;
        let (pairs, _) = ranges.as_chunks::<2>();
        let scheme = |&[scale, zero]: &[f32; 2]| Scheme {
            scale,
            zero: zero as u8,
        };
        Self::new(graph, pairs.iter().map(scheme).collect())
    }
}

/// Scale and zero point of each map.
fn ranges(quantized: &Quantized) -> Vec<[f32; 2]> {
    let schemes = quantized.schemes.iter();
    schemes.map(|s| [s.scale, f32::from(s.zero)]).collect()
}

impl<B: FusedOps> Tuned<B> {
    /// Logits `[N, S, S, C]` of tiles; `S` is 1 of a gate.
    fn logits(&self, tiles: &[Tile]) -> Tensor<B, 4> {
        let device = self.biases[0].val().device();
        let image = tensors::pixels_by(BYTES, tiles, &device);
        let mut filters = self.weights.iter().zip(&self.biases);
        let graph = &self.quantized.graph;
        let mut maps: Vec<Tensor<B, 4>> = Vec::with_capacity(graph.nodes.len());
        for (node, scheme) in graph.nodes.iter().zip(self.quantized.schemes.iter()) {
            let x = |nth: usize| maps[node.inputs[nth]].clone();
            let grid = scheme.grid();
            let mut next = || {
                let (weight, bias) = filters.next().expect("as many as nodes that have some");
                (round_weight(weight.val(), &node.op), bias.val())
            };
            let map = match &node.op {
                Op::Image => image.clone(),
                Op::Conv { stride, .. } => {
                    let (weight, bias) = next();
                    rounded_conv(x(0), weight, bias, *stride, grid)
                }
                Op::Double { .. } => {
                    let (weight, bias) = next();
                    round_to(double(x(0), weight, bias), grid)
                }
                Op::Add => round_to(x(0) + x(1), grid),
                Op::Concat => Tensor::cat(vec![x(0), x(1)], 3),
                Op::Upsample => upsample(x(0)),
                Op::Pool => round_to(pool(x(0)), grid),
                Op::Sigmoid => break,
            };
            maps.push(map);
        }
        maps.pop().expect("a graph has nodes")
    }

    /// Logits `[N]` of a gate.
    fn scores(&self, tiles: &[Tile]) -> Tensor<B, 1> {
        self.logits(tiles).reshape([tiles.len()])
    }

    /// Logits `[N, 1, S, S]` of one of a U-Net's outputs.
    fn output(logits: &Tensor<B, 4>, nth: usize) -> Tensor<B, 4> {
        logits.clone().narrow(3, nth, 1).permute([0, 3, 1, 2])
    }

    fn is_gate(&self) -> bool {
        self.quantized.graph.name == "gate"
    }
}

/// What the bytes of a weight stand for; the gradient passes as if nothing were rounded, for nothing is
/// clipped.
fn round_weight<B: Backend>(weight: Tensor<B, 4>, op: &Op) -> Tensor<B, 4> {
    let most = weight.clone().detach().abs();
    let along = op.outputs_at();
    let others = (0..4).filter(|&dim| dim != along);
    let most = others.fold(most, |most, dim| most.max_dim(dim));
    // A channel without weights keeps a scale that can be divided by.
    let scale = (most / HEAVIEST).clamp_min(f32::MIN_POSITIVE);
    let rounded = (weight.clone().detach() / scale.clone()).round() * scale;
    weight.clone() + (rounded - weight.detach())
}

impl<B: FusedOps> Task<B> for Tuned<Autodiff<B>> {
    fn loss(
        &self,
        tiles: &[Tile],
        _frozen_blocks: usize,
        losses: &Losses,
        device: &B::Device,
    ) -> Tensor<Autodiff<B>, 1> {
        if self.is_gate() {
            let truth = tensors::labels(tiles, device);
            return loss::gate(self.scores(tiles), truth, losses.label_smoothing);
        }
        let logits = self.logits(tiles);
        let [.., outputs] = logits.dims();
        let centrality = (outputs > 1).then(|| Self::output(&logits, 1));
        unet_loss(Self::output(&logits, 0), centrality, tiles, losses)
    }

    fn judge(
        model: &Tuned<B>,
        tiles: &[Tile],
        _device: &B::Device,
        stop: &Stop,
    ) -> Result<Score, Stopped> {
        match model.is_gate() {
            true => judge_gate(tiles, stop, |tiles| model.scores(tiles)),
            false => judge_unet(tiles, stop, |tiles| Tuned::output(&model.logits(tiles), 0)),
        }
    }

    fn false_alarms(model: &Tuned<B>, tiles: &[Tile], _device: &B::Device) -> Vec<f32> {
        match model.is_gate() {
            true => read(sigmoid(model.scores(tiles))),
            false => haze(Tuned::output(&model.logits(tiles), 0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn_flex::{Flex, FlexDevice};
    use image::{GrayImage, Luma, Rgb, RgbImage};
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::nn::{DecoderKind, Encoder, UNet, collect};
    use crate::quant::fixtures;
    use crate::quant::observe::observe;
    use crate::quant::ranges::Rule;

    const SIDE: u32 = 64;

    fn tiles(count: u64) -> Vec<Tile> {
        let tile = |seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut byte = || rng.random_range(0..=255u8);
            let pixels = RgbImage::from_fn(SIDE, SIDE, |_, _| Rgb([byte(), byte(), byte()]));
            let ship = |x, y| Luma([u8::from(seed % 2 == 0 && x < 20 && y < 9)]);
            Tile {
                pixels,
                mask: GrayImage::from_fn(SIDE, SIDE, ship),
                doubtful: false,
            }
        };
        (0..count).map(tile).collect()
    }

    fn quantized(graph: Graph, tiles: &[Tile]) -> Quantized {
        let batch = tensors::pixels_by(BYTES, tiles, &FlexDevice);
        let observed = observe::<Flex>(&graph, &[batch], &Stop::new()).expect("observes");
        let schemes = (0..graph.nodes.len())
            .map(|node| observed.scheme(&graph, node, Rule::MinMax))
            .collect();
        Quantized::new(graph, schemes).expect("quantizes")
    }

    /// Trained ones, and random ones with what these lack.
    fn networks() -> [Graph; 4] {
        let side = SIDE as usize;
        let unet = |kind| UNet::<Flex>::on(Encoder::new(0.35, &FlexDevice), kind, &FlexDevice);
        let seed = Graph::of_unet(&unet(DecoderKind::Seed), side);
        let two = unet(DecoderKind::Light).with_centrality(&FlexDevice);
        let two = Graph::of_unet(&two, side);
        [
            fixtures::gate(),
            fixtures::unet(),
            seed.of_bytes(),
            two.of_bytes(),
        ]
    }

    #[test]
    fn it_sees_what_the_integers_see() {
        let tiles = tiles(2);
        // Random weights would magnify what the last bits of a sum decide.
        for graph in networks().into_iter().take(2) {
            let quantized = quantized(graph, &tiles);
            let tuned = Tuned::<Flex>::new(Arc::new(quantized.clone()), &FlexDevice);
            let found = sigmoid(tuned.logits(&tiles));
            let image = tensors::pixels_by(BYTES, &tiles, &FlexDevice);
            let want = quantized.simulate(image);
            let worst = (found.clone() - want.clone()).abs();
            // The last rounding, and sums that fall on another side of a step now and then.
            let mean = worst.mean().into_scalar();
            assert!(mean < 0.01, "{}: {mean}", quantized.graph.name);
            // Its weights and schemes are those that it began with.
            let again = Quantized::of_tuned(&quantized.graph, &collect(&tuned)).expect("the same");
            assert_eq!(again.schemes, quantized.schemes);
            let pairs = again.graph.nodes.iter().zip(&quantized.graph.nodes);
            for (a, b) in pairs.filter_map(|(a, b)| a.op.filters().zip(b.op.filters())) {
                assert_eq!(a, b);
            }
        }
    }

    #[test]
    fn training_on_lowers_the_loss() {
        let tiles = tiles(4);
        let losses = Losses::default();
        for graph in networks() {
            let quantized = Arc::new(quantized(graph, &tiles));
            let mut tuned = Tuned::<Autodiff<Flex>>::new(quantized, &FlexDevice);
            let mut optimiser = crate::nn::AdamW::<Flex>::new(Default::default());
            let mut found = Vec::new();
            for _ in 0..12 {
                let loss = tuned.loss(&tiles, 0, &losses, &FlexDevice);
                found.push(loss.clone().into_scalar());
                let gradients = loss.backward();
                (tuned, _) = optimiser.step(tuned, gradients, 1e-4);
            }
            let (first, last) = (found[0], found[11]);
            assert!(last < 0.996 * first, "{found:?}");
        }
    }

    #[test]
    fn each_weight_is_rounded_by_its_outputs_scale() {
        let weight = Tensor::<Flex, 4>::from_floats(
            [[[[1.27f32]], [[0.014]]], [[[-2.54]], [[0.03]]]],
            &FlexDevice,
        );
        let op = |double: bool| {
            let weight = shipwatch::inference::onnx::Weights {
                shape: vec![2, 2, 1, 1],
                values: vec![0.0; 4],
            };
            let bias = vec![0.0; 2];
            match double {
                true => Op::Double { weight, bias },
                false => Op::Conv {
                    weight,
                    bias,
                    stride: 1,
                    relu6: false,
                },
            }
        };
        let rounded = |double| -> Vec<f32> {
            let rounded = round_weight(weight.clone(), &op(double));
            rounded.into_data().to_vec().expect("f32")
        };
        let close = |found: Vec<f32>, want: [f32; 4]| {
            let worst = found.iter().zip(want).map(|(a, b)| (a - b).abs());
            assert!(worst.fold(0.0, f32::max) < 1e-5, "{found:?}");
        };
        // Scales 0.01 and 0.02.
        close(rounded(false), [1.27, 0.01, -2.54, 0.04]);
        // Scales 0.02 and 0.03 / 127.
        close(rounded(true), [1.28, 59.0 * 0.03 / 127.0, -2.54, 0.03]);
    }
}

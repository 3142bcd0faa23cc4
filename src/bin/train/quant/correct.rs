//! What rounding shifts the mean of a channel by, taken from its bias (Nagel et al. 2019, "Data-free
//! quantization through weight equalization and bias correction", section 4.2, by measurement as in
//! their appendix D).

use burn::tensor::Tensor;

use super::Quantized;
use super::forward::{apply, forward, walk};
use crate::export::Graph;
use crate::nn::{FusedOps, round_to};

/// Rounds of measuring for one layer: where a ReLU6 cuts, the mean follows the bias in part only.
const ROUNDS: usize = 2;

/// The graph of `quantized` with biases by which the mean of each channel of each layer is what it was
/// in floats, with all before it rounded; measured on tiles `[N, S, S, 3]`.
pub(crate) fn correct<B: FusedOps>(quantized: &Quantized, tiles: &Tensor<B, 4>) -> Graph {
    let mut graph = quantized.graph.clone();
    let mut wanted = Vec::with_capacity(graph.nodes.len());
    forward(&quantized.graph, tiles.clone(), |_, map| {
        wanted.push(means(map.clone()));
        map
    });
    let rounded = quantized.rounded();
    walk(&rounded, tiles.clone(), |at, inputs| {
        let mut node = rounded.nodes[at].clone();
        let grid = quantized.schemes[at].grid();
        let mut map = apply(&node, inputs);
        let Some((_, corrected)) = graph.nodes[at].op.filters_mut() else {
            return round_to(map, grid);
        };
        for _ in 0..ROUNDS {
            // Before it is rounded itself: a bias moves what lies near a tie by a whole step or not at all.
            let found = means(map);
            let biases = node.op.filters_mut().into_iter().flat_map(|(_, bias)| bias);
            let shifts = wanted[at]
                .iter()
                .zip(&found)
                .map(|(want, found)| want - found);
            for ((bias, corrected), shift) in biases.zip(&mut *corrected).zip(shifts) {
                *bias += shift;
                *corrected += shift;
            }
            map = apply(&node, inputs);
        }
        round_to(map, grid)
    });
    graph
}

/// The mean of each channel.
fn means<B: FusedOps>(map: Tensor<B, 4>) -> Vec<f32> {
    let [n, height, width, channels] = map.dims();
    let means = map.reshape([n * height * width, channels]).mean_dim(0);
    means.into_data().convert::<f32>().into_vec().expect("f32")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::quant::fixtures;
    use crate::quant::observe::observe;
    use crate::quant::ranges::Rule;
    use crate::stop::Stop;

    #[test]
    fn the_mean_of_each_layer_comes_back() {
        let (graph, tiles) = (fixtures::unet(), fixtures::tiles(4));
        let observed =
            observe(&graph, std::slice::from_ref(&tiles), &Stop::new()).expect("observes");
        let schemes = (0..graph.nodes.len())
            .map(|node| observed.scheme(&graph, node, Rule::MinMax))
            .collect();
        let plain = Quantized::new(graph.clone(), schemes).expect("quantizes");
        let graph = correct(&plain, &tiles);
        let corrected = Quantized::new(graph, Arc::clone(&plain.schemes)).expect("quantizes");
        // Errors of many layers have piled up by then.
        for name in ["block.6.project", "decoder.0.lateral", "decoder.3.reduce"] {
            let nodes = &plain.graph.nodes;
            let at = nodes.iter().position(|n| n.name == name).expect("there");
            let means_of = |graph: &Graph, schemes: Option<&Quantized>| {
                let mut found = Vec::new();
                forward(graph, tiles.clone(), |node, map| {
                    if node == at {
                        found = means(map.clone());
                    }
                    match schemes {
                        Some(by) => round_to(map, by.schemes[node].grid()),
                        None => map,
                    }
                });
                found
            };
            let want = means_of(&plain.graph, None);
            let error = |quantized: &Quantized| {
                let found = means_of(&quantized.rounded(), Some(quantized));
                let squares = found.iter().zip(&want).map(|(a, b)| (a - b).powi(2));
                squares.sum::<f32>().sqrt()
            };
            let (before, after) = (error(&plain), error(&corrected));
            assert!(after < 0.25 * before, "{name}: {before} to {after}");
        }
    }
}

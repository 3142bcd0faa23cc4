//! Channels of one map made to use their common bytes alike (Nagel et al. 2019, "Data-free quantization
//! through weight equalization and bias correction", section 4.1).
//!
//! A channel whose values stay small is magnified where it is made and reduced where it is read. ReLU6
//! would cut a channel that is magnified too much: so the gain is bounded by what the channel was seen
//! to hold, with room left.

use shipwatch::inference::onnx::Weights;

use super::observe::Observed;
use crate::export::{Graph, Op};

/// The share of its map's range that a channel may be magnified to.
const FILLED: f32 = 0.8;

/// No channel is magnified more than so much.
const MOST: f32 = 16.0;

/// The same network, as far as maps hold what they were seen to hold, with channels magnified where one
/// convolution alone reads the ReLU6 of another.
pub(crate) fn equalise(mut graph: Graph, observed: &Observed) -> Graph {
    for at in 0..graph.nodes.len() {
        let mut readers = (0..graph.nodes.len()).filter(|&n| graph.nodes[n].inputs.contains(&at));
        let (Some(reader), None) = (readers.next(), readers.next()) else {
            continue;
        };
        let Op::Conv { relu6: true, .. } = graph.nodes[at].op else {
            continue;
        };
        let Op::Conv { weight, .. } = &graph.nodes[reader].op else {
            continue;
        };
        let depthwise = graph.nodes[reader].op.is_depthwise();
        let highs: Vec<f32> = observed.channels[at].iter().map(|c| c.high).collect();
        let importance = match depthwise {
            // Each channel's weights have a scale of their own, which takes any gain.
            true => vec![1.0; highs.len()],
            false => importance(weight),
        };
        let gains = gains(&highs, &importance);
        let Some((weight, bias)) = graph.nodes[at].op.filters_mut() else {
            continue;
        };
        let per_output = weight.values.len() / gains.len();
        for (filter, gain) in weight.values.chunks_exact_mut(per_output).zip(&gains) {
            filter.iter_mut().for_each(|w| *w *= gain);
        }
        bias.iter_mut().zip(&gains).for_each(|(b, gain)| *b *= gain);
        let Some((weight, _)) = graph.nodes[reader].op.filters_mut() else {
            continue;
        };
        let window: usize = weight.shape[2..].iter().product();
        for (index, w) in weight.values.iter_mut().enumerate() {
            // Inputs lie along the first dimension of depthwise filters, else along the second.
            *w /= gains[index / window % gains.len()];
        }
    }
    graph
}

/// How heavy each input's weights are at most, as a share of the heaviest of the same output.
fn importance(weight: &Weights) -> Vec<f32> {
    let (inputs, window) = (weight.shape[1], weight.shape[2] * weight.shape[3]);
    let mut most = vec![0f32; inputs];
    for filter in weight.values.chunks_exact(inputs * window) {
        let heaviest = filter.iter().fold(0f32, |most, w| most.max(w.abs()));
        if heaviest == 0.0 {
            continue;
        }
        for (most, taps) in most.iter_mut().zip(filter.chunks_exact(window)) {
            let own = taps.iter().fold(0f32, |most, w| most.max(w.abs()));
            *most = most.max(own / heaviest);
        }
    }
    most
}

/// The gain of each channel that reaches up to `highs`: as much as fills the map where its weights lose
/// nothing, less where they would sink among the others' of their outputs.
fn gains(highs: &[f32], importance: &[f32]) -> Vec<f32> {
    let top = highs.iter().copied().fold(0f32, f32::max);
    let gain = |(&high, &importance): (&f32, &f32)| {
        if high <= 0.0 {
            return 1.0;
        }
        let share = high / top;
        let filled = FILLED / share;
        let even = match importance {
            1.0 => filled,
            _ => (importance / share).sqrt(),
        };
        even.min(filled).clamp(1.0, MOST)
    };
    highs.iter().zip(importance).map(gain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::fixtures;
    use crate::quant::forward::forward;
    use crate::quant::observe::observe;
    use crate::stop::Stop;

    #[test]
    fn gains_by_hand() {
        // A channel at the top stays; one at a tenth is magnified to 0.8, or less as its weights sink.
        let found = gains(
            &[5.0, 0.5, 0.5, 0.5, 0.0, 0.01],
            &[1.0, 1.0, 0.4, 0.001, 1.0, 1.0],
        );
        assert_eq!(found, [1.0, 8.0, 2.0, 1.0, 1.0, MOST]);
    }

    #[test]
    fn weights_are_as_important_as_their_share_of_an_output() {
        let weight = Weights {
            shape: vec![2, 3, 1, 1],
            values: vec![1.0, -0.5, 0.1, 0.2, 0.05, 0.1],
        };
        assert_eq!(importance(&weight), [1.0, 0.5, 0.5]);
    }

    #[test]
    fn an_equalised_network_computes_the_same() {
        let tiles = fixtures::tiles(4);
        for graph in [fixtures::gate(), fixtures::unet()] {
            let observe = |graph| {
                let batches = std::slice::from_ref(&tiles);
                observe(graph, batches, &Stop::new()).expect("observes")
            };
            let before = observe(&graph);
            let equal = equalise(graph.clone(), &before);
            let after = observe(&equal);
            let narrow = |observed: &Observed| {
                let at = graph.nodes.iter().position(|n| n.name == "block.3.expand");
                let channels = &observed.channels[at.expect("there")];
                let top = channels.iter().fold(0f32, |top, c| top.max(c.high));
                // What is narrower still gains as much as any may, or is always zero.
                let narrow = 0.06 * top..0.5 * top;
                channels.iter().filter(|c| narrow.contains(&c.high)).count()
            };
            let (before, after) = (narrow(&before), narrow(&after));
            assert!(before > 0 && after == 0, "{before} to {after}");
            let [a, b] = [&graph, &equal].map(|graph| forward(graph, tiles.clone(), |_, map| map));
            let worst = (a.clone() - b).abs().max().into_scalar();
            let spread = (a.clone().max() - a.min()).into_scalar();
            assert!(worst < 1e-3 && spread > 0.1, "{worst} of {spread}");
        }
    }
}

//! What feature maps hold for some tiles, and the schemes that this suggests.

use anyhow::{Result, ensure};
use burn::tensor::Tensor;

use super::Scheme;
use super::forward::forward;
use super::ranges::{Histogram, Rule};
use crate::export::{Graph, Op};
use crate::nn::FusedOps;
use crate::stop::{Stop, Stopped};

/// What a network's maps held.
pub(crate) struct Observed {
    /// By node, then by channel.
    pub(super) channels: Vec<Vec<Channel>>,
    /// By node: the first of those that its map shares a scheme with.
    pub(super) groups: Vec<usize>,
    /// Of each group, at its first node.
    histograms: Vec<Option<Histogram>>,
}

/// The values of one channel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Channel {
    pub(super) low: f32,
    pub(super) high: f32,
}

/// Looks at every map of `graph` for batches `[N, S, S, 3]`.
///
/// # Errors
/// If a map holds what is no number, or is infinite; or the user asks to stop.
pub(crate) fn observe<B: FusedOps>(
    graph: &Graph,
    batches: &[Tensor<B, 4>],
    stop: &Stop,
) -> Result<Observed> {
    let channels = look_at_channels(graph, batches, stop)?;
    for (node, channels) in graph.nodes.iter().zip(&channels) {
        let finite = |channel: &Channel| channel.low.is_finite() && channel.high.is_finite();
        ensure!(
            channels.iter().all(finite),
            "{}, layer {}: gives what is no number or infinite: the run is damaged, train it anew",
            graph.name,
            node.name
        );
    }
    let groups = groups(graph);
    let mut limits = vec![(0f32, 0f32); graph.nodes.len()];
    for (channels, &group) in channels.iter().zip(&groups) {
        let (low, high) = &mut limits[group];
        for channel in channels {
            (*low, *high) = (low.min(channel.low), high.max(channel.high));
        }
    }
    let mut histograms: Vec<Option<Histogram>> = (groups.iter().zip(&limits).enumerate())
        .map(|(at, (&group, &(low, high)))| (group == at).then(|| Histogram::new(low, high)))
        .collect();
    for batch in batches {
        stop.check()?;
        forward(graph, batch.clone(), |at, map| {
            // A map that repeats another one's values tells nothing new.
            let repeats = matches!(graph.nodes[at].op, Op::Upsample | Op::Concat);
            if let (false, Some(histogram)) = (repeats, &mut histograms[groups[at]]) {
                histogram.add(&values(map.clone()));
            }
            map
        });
    }
    Ok(Observed {
        channels,
        groups,
        histograms,
    })
}

impl Observed {
    /// The scheme of a node's group by a rule; the image's and the probability's are always the same.
    pub(super) fn scheme(&self, graph: &Graph, node: usize, rule: Rule) -> Scheme {
        match graph.nodes[node].op {
            Op::Image => Scheme::IMAGE,
            Op::Sigmoid => Scheme::PROBABILITY,
            _ => {
                let histogram = self.histograms[self.groups[node]].as_ref();
                histogram.expect("each group has one").scheme(rule)
            }
        }
    }

    /// Layers all of whose maps are always zero.
    pub(crate) fn dead<'a>(&self, graph: &'a Graph) -> Vec<&'a str> {
        let silent = |channel: &Channel| channel.low == 0.0 && channel.high == 0.0;
        let nodes = graph.nodes.iter().zip(&self.channels);
        let dead = nodes.filter(|(_, channels)| channels.iter().all(silent));
        dead.map(|(node, _)| &node.name[..]).collect()
    }

    /// How many channels of the layers' maps are always zero.
    pub(crate) fn silent_channels(&self) -> usize {
        let channels = self.channels.iter().flatten();
        channels.filter(|c| c.low == 0.0 && c.high == 0.0).count()
    }
}

fn look_at_channels<B: FusedOps>(
    graph: &Graph,
    batches: &[Tensor<B, 4>],
    stop: &Stop,
) -> Result<Vec<Vec<Channel>>, Stopped> {
    let nothing = Channel {
        low: f32::INFINITY,
        high: f32::NEG_INFINITY,
    };
    let mut all: Vec<Vec<Channel>> = (graph.nodes.iter())
        .map(|node| vec![nothing; node.channels])
        .collect();
    for batch in batches {
        stop.check()?;
        forward(graph, batch.clone(), |at, map| {
            let channels = &mut all[at];
            for pixel in values(map.clone()).chunks_exact(channels.len()) {
                for (channel, &value) in channels.iter_mut().zip(pixel) {
                    if value < channel.low || value.is_nan() {
                        channel.low = value;
                    }
                    channel.high = channel.high.max(value);
                }
            }
            map
        });
    }
    Ok(all)
}

/// For each node the first of those that must have one scheme: an upsampled map takes its source's bytes
/// as they are, and a joined map those of its parts.
fn groups(graph: &Graph) -> Vec<usize> {
    let mut groups: Vec<usize> = (0..graph.nodes.len()).collect();
    for (at, node) in graph.nodes.iter().enumerate() {
        if matches!(node.op, Op::Upsample | Op::Concat) {
            for &input in &node.inputs {
                let (a, b) = (groups[at], groups[input]);
                let first = a.min(b);
                for group in groups
                    .iter_mut()
                    .filter(|group| **group == a || **group == b)
                {
                    *group = first;
                }
            }
        }
    }
    groups
}

fn values<B: FusedOps>(map: Tensor<B, 4>) -> Vec<f32> {
    map.into_data().convert::<f32>().into_vec().expect("f32")
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;
    use burn_flex::{Flex, FlexDevice};

    use super::*;
    use crate::nn::{DecoderKind, Encoder, UNet};

    #[test]
    fn maps_that_are_joined_or_upsampled_share_a_scheme_and_no_others() {
        for kind in [DecoderKind::Light, DecoderKind::Seed] {
            let encoder = Encoder::new(0.35, &FlexDevice);
            let unet = UNet::<Flex>::on(encoder, kind, &FlexDevice);
            let graph = Graph::of_unet(&unet, 64);
            let batch = Tensor::<Flex, 4>::random(
                [1, 64, 64, 3],
                Distribution::Uniform(-1.0, 1.0),
                &FlexDevice,
            );
            let observed = observe(&graph, &[batch], &Stop::new()).expect("observes");
            let scheme = |at| observed.scheme(&graph, at, Rule::MinMax);
            let mut shared = 0;
            for (at, node) in graph.nodes.iter().enumerate() {
                if matches!(node.op, Op::Upsample | Op::Concat) {
                    for &input in &node.inputs {
                        assert_eq!(scheme(at), scheme(input), "{}", node.name);
                        shared += 1;
                    }
                }
            }
            assert_eq!(shared, if kind == DecoderKind::Light { 4 } else { 8 });
            let alone = |name: &str| {
                let at = graph.nodes.iter().position(|node| node.name == name);
                observed.groups[at.expect("there")] == at.expect("there")
            };
            assert!(alone("stem") && alone("block.0.project"));
        }
    }

    #[test]
    fn ranges_are_those_of_the_maps() {
        let encoder = Encoder::new(0.35, &FlexDevice);
        let unet = UNet::<Flex>::on(encoder, DecoderKind::Light, &FlexDevice);
        let graph = Graph::of_unet(&unet, 64);
        let batch = |at: f64| {
            let spread = Distribution::Uniform(at - 0.5, at + 0.5);
            Tensor::<Flex, 4>::random([2, 64, 64, 3], spread, &FlexDevice)
        };
        let batches = [batch(-0.5), batch(0.5)];
        let observed = observe(&graph, &batches, &Stop::new()).expect("observes");
        let image = observed.channels[0][1];
        assert!(image.low < -0.98 && image.high > 0.98, "{image:?}");
        let stem = graph
            .nodes
            .iter()
            .position(|node| node.name == "stem")
            .expect("there");
        let mut most = 0f32;
        for batch in &batches {
            forward(&graph, batch.clone(), |at, map| {
                if at == stem {
                    most = most.max(map.clone().max().into_scalar());
                }
                map
            });
        }
        let scheme = observed.scheme(&graph, stem, Rule::MinMax);
        assert_eq!(scheme.zero, 0, "nothing is below zero after a ReLU6");
        assert!((scheme.scale * 255.0 - most).abs() < 1e-5 && most <= 6.0);
        assert!(observed.dead(&graph).is_empty());
    }
}

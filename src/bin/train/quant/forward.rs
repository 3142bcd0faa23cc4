//! Running a graph in floats, with a say in every feature map: to look at it, or to round it.

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use shipwatch::inference::onnx::Weights;

use crate::export::{Graph, Node, Op};
use crate::nn::{
    Chain, ConvNorm, FusedOps, chain_eval, double, primitive, spatial_mean, upsample_add,
};

/// The output of `graph` for tiles `[N, S, S, 3]`, channels last. `change` gets each feature map by the
/// place of its node, and gives what is to be used in its stead.
pub(crate) fn forward<B: FusedOps>(
    graph: &Graph,
    tiles: Tensor<B, 4>,
    mut change: impl FnMut(usize, Tensor<B, 4>) -> Tensor<B, 4>,
) -> Tensor<B, 4> {
    walk(graph, tiles, |at, inputs| {
        change(at, apply(&graph.nodes[at], inputs))
    })
}

/// The output of `graph` for tiles `[N, S, S, 3]`, where `step` makes each map of those that its node
/// reads; the image's, of the tiles.
pub(super) fn walk<B: FusedOps>(
    graph: &Graph,
    tiles: Tensor<B, 4>,
    mut step: impl FnMut(usize, &[Tensor<B, 4>]) -> Tensor<B, 4>,
) -> Tensor<B, 4> {
    let last_use = last_use(graph);
    let mut maps: Vec<Option<Tensor<B, 4>>> = vec![None; graph.nodes.len()];
    for (at, node) in graph.nodes.iter().enumerate() {
        let made = |&input: &usize| maps[input].clone().expect(BEFORE);
        let inputs: Vec<_> = match node.op {
            Op::Image => vec![tiles.clone()],
            _ => node.inputs.iter().map(made).collect(),
        };
        maps[at] = Some(step(at, &inputs));
        for &input in &node.inputs {
            if last_use[input] == at {
                maps[input] = None;
            }
        }
    }
    maps.pop().flatten().expect(OUTPUT)
}

/// All feature maps of `graph` for tiles `[N, S, S, 3]`.
pub(super) fn all_maps<B: FusedOps>(graph: &Graph, tiles: Tensor<B, 4>) -> Vec<Tensor<B, 4>> {
    let mut maps = Vec::with_capacity(graph.nodes.len());
    forward(graph, tiles, |_, map| {
        maps.push(map.clone());
        map
    });
    maps
}

/// The output where the nodes that `touches` says make other maps than in `maps`: `change` gets what
/// `graph` gives there. What depends on none of them is not run again.
pub(super) fn again<B: FusedOps>(
    graph: &Graph,
    maps: &[Tensor<B, 4>],
    touches: impl Fn(usize) -> bool,
    mut change: impl FnMut(usize, Tensor<B, 4>) -> Tensor<B, 4>,
) -> Tensor<B, 4> {
    let last_use = last_use(graph);
    let mut others: Vec<Option<Tensor<B, 4>>> = vec![None; maps.len()];
    for (at, node) in graph.nodes.iter().enumerate() {
        let touched = touches(at);
        if !touched && node.inputs.iter().all(|&input| others[input].is_none()) {
            continue;
        }
        let made = |&input: &usize| others[input].as_ref().unwrap_or(&maps[input]).clone();
        let inputs: Vec<_> = match node.op {
            Op::Image => vec![maps[at].clone()],
            _ => node.inputs.iter().map(made).collect(),
        };
        let map = apply(node, &inputs);
        others[at] = Some(if touched { change(at, map) } else { map });
        for &input in &node.inputs {
            if last_use[input] == at {
                others[input] = None;
            }
        }
    }
    let output = others.pop().flatten();
    output.or_else(|| maps.last().cloned()).expect(OUTPUT)
}

/// The last node that reads each map.
fn last_use(graph: &Graph) -> Vec<usize> {
    let mut last_use = vec![0; graph.nodes.len()];
    for (at, node) in graph.nodes.iter().enumerate() {
        for &input in &node.inputs {
            last_use[input] = at;
        }
    }
    last_use
}

const BEFORE: &str = "inputs come before what reads them";
const OUTPUT: &str = "a graph's last node is its output";

/// What an operator makes of its inputs; the image is its own.
pub(super) fn apply<B: FusedOps>(node: &Node, inputs: &[Tensor<B, 4>]) -> Tensor<B, 4> {
    let x = |nth: usize| inputs[nth].clone();
    let device = inputs[0].device();
    match &node.op {
        Op::Image => x(0),
        Op::Conv {
            weight,
            bias,
            stride,
            relu6,
        } => {
            let layer = ConvNorm {
                weight: primitive(tensor::<B, 4>(weight, &device)),
                scale: primitive(Tensor::<B, 1>::ones([bias.len()], &device)),
                shift: primitive(Tensor::<B, 1>::from_floats(&bias[..], &device)),
                epsilon: 0.0,
                stride: *stride,
                relu6: *relu6,
            };
            let alone = Chain {
                layers: vec![layer],
                residual: false,
            };
            chain_eval(x(0), &alone)
        }
        Op::Double { weight, bias } => double(
            x(0),
            tensor(weight, &device),
            Tensor::from_floats(&bias[..], &device),
        ),
        Op::Add => x(0) + x(1),
        Op::Concat => Tensor::cat(vec![x(0), x(1)], 3),
        Op::Upsample => upsample(x(0)),
        Op::Pool => pool(x(0)),
        Op::Sigmoid => sigmoid(x(0)),
    }
}

/// Each pixel twice in both directions.
pub(super) fn upsample<B: FusedOps>(x: Tensor<B, 4>) -> Tensor<B, 4> {
    let [n, h, w, c] = x.dims();
    let nothing = Tensor::zeros([n, 2 * h, 2 * w, c], &x.device());
    upsample_add(x, nothing)
}

/// `[N, H, W, C] -> [N, 1, 1, C]`, the mean of all pixels.
pub(super) fn pool<B: FusedOps>(x: Tensor<B, 4>) -> Tensor<B, 4> {
    let [n, .., c] = x.dims();
    spatial_mean(x).reshape([n, 1, 1, c])
}

fn tensor<B: FusedOps, const D: usize>(weights: &Weights, device: &B::Device) -> Tensor<B, D> {
    let flat = Tensor::<B, 1>::from_floats(&weights.values[..], device);
    let shape: [usize; D] = weights.shape[..].try_into().expect("as many dimensions");
    flat.reshape(shape)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;
    use burn_flex::{Flex, FlexDevice};

    use super::*;
    use crate::nn::{DecoderKind, Encoder, Gate, UNet};

    const TILE: usize = 64;

    fn close(a: Tensor<Flex, 1>, b: Tensor<Flex, 1>) {
        let worst = (a.clone() - b).abs().max().into_scalar();
        let spread = (a.clone().max() - a.min()).into_scalar();
        assert!(worst < 1e-4, "{worst}");
        assert!(spread > 1e-3, "a constant output proves nothing");
    }

    #[test]
    fn what_depends_on_a_changed_map_is_run_again() {
        let unet = Encoder::new(0.35, &FlexDevice);
        let unet = UNet::<Flex>::on(unet, DecoderKind::Seed, &FlexDevice);
        let graph = Graph::of_unet(&unet, TILE);
        let tiles = || {
            let shape = [1, TILE, TILE, 3];
            Tensor::<Flex, 4>::random(shape, Distribution::Uniform(-1.0, 1.0), &FlexDevice)
        };
        let tiles = tiles();
        let maps = all_maps(&graph, tiles.clone());
        assert_eq!(maps.len(), graph.nodes.len());
        for chosen in [&[0][..], &[5, 9], &[maps.len() - 1], &[]] {
            let change = |at: usize, map: Tensor<Flex, 4>| match chosen.contains(&at) {
                true => map * 1.25,
                false => map,
            };
            let want = forward(&graph, tiles.clone(), change);
            let got = again(&graph, &maps, |at| chosen.contains(&at), change);
            close(got.reshape([-1]), want.reshape([-1]));
        }
    }

    #[test]
    fn a_graph_computes_what_its_network_computes() {
        let x = Tensor::<Flex, 4>::random(
            [2, 3, TILE, TILE],
            Distribution::Uniform(-1.0, 1.0),
            &FlexDevice,
        );
        let tiles = x.clone().permute([0, 2, 3, 1]);
        let gate = Gate::<Flex>::new(0.35, &FlexDevice);
        let mut seen = 0;
        let graph = Graph::of_gate(&gate, TILE);
        let found = forward(&graph, tiles.clone(), |at, map| {
            assert_eq!(at, seen);
            let node = &graph.nodes[at];
            assert_eq!(map.dims(), [2, node.side, node.side, node.channels]);
            seen += 1;
            map
        });
        assert_eq!(seen, graph.nodes.len());
        close(found.reshape([2]), sigmoid(gate.forward(x.clone())));
        for kind in [DecoderKind::Light, DecoderKind::Seed] {
            let unet = UNet::<Flex>::on(Encoder::new(0.35, &FlexDevice), kind, &FlexDevice);
            let found = forward(&Graph::of_unet(&unet, TILE), tiles.clone(), |_, map| map);
            let want = sigmoid(unet.forward(x.clone()));
            close(found.reshape([-1]), want.reshape([-1]));
        }
    }
}

//! Gradients for [`FusedOps`] through burn's autodiff graph.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::TensorMetadata;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::ops::FloatTensor;

use super::{Chain, Chained, ConvNorm, FusedOps, Grid, Normed, Rounded, RoundedConv};

/// Parents: the input, then weight, scale and shift of each layer.
#[derive(Debug)]
struct ChainOp;

#[derive(Debug, Clone)]
struct ChainState<B: FusedOps> {
    x: FloatTensor<B>,
    chain: Chain<B>,
    layers: Vec<Normed<B>>,
}

impl<B: FusedOps, const N: usize> Backward<B, N> for ChainOp {
    type State = ChainState<B>;

    fn backward(
        self,
        ops: Ops<Self::State, N>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let ChainState { x, chain, layers } = ops.state;
        let mut nodes = ops.parents.into_iter();
        let x_node = nodes.next().flatten();
        let grad = grads.consume::<B>(&ops.node);
        let back = B::chain_grad(x, &chain, layers, grad, x_node.is_some());
        if let (Some(node), Some(input)) = (x_node, back.input) {
            grads.register::<B>(node.id, input);
        }
        let params = back.layers.into_iter();
        let params = params.flat_map(|layer| [layer.weight, layer.scale, layer.shift]);
        for (node, grad) in nodes.zip(params) {
            if let Some(node) = node {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

/// A chain of as many layers as make `N` parents.
fn chain<B: FusedOps, C: CheckpointStrategy, const N: usize>(
    x: FloatTensor<Autodiff<B, C>>,
    chain: &Chain<Autodiff<B, C>>,
) -> Chained<Autodiff<B, C>> {
    let params = chain.layers.iter();
    let params = params.flat_map(|layer| [&layer.weight, &layer.scale, &layer.shift]);
    let tensors = std::iter::once(&x).chain(params);
    let nodes: Vec<_> = tensors.map(|tensor| tensor.node.clone()).collect();
    let nodes = nodes.try_into().expect("three parameters per layer");
    let prep = Backward::<B, N>::prepare::<C>(ChainOp, nodes);
    let chain = inner(chain);
    let Chained { output, layers } = B::chain(x.primitive.clone(), &chain);
    let statistics = layers.iter().map(|layer| Normed {
        raw: Autodiff::<B, C>::from_inner(layer.raw.clone()),
        mean: Autodiff::<B, C>::from_inner(layer.mean.clone()),
        inv_std: Autodiff::<B, C>::from_inner(layer.inv_std.clone()),
    });
    let statistics = statistics.collect();
    let output = match prep.compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let x = x.primitive;
            prep.finish(ChainState { x, chain, layers }, output)
        }
        OpsKind::UnTracked(prep) => prep.finish(output),
    };
    Chained {
        output,
        layers: statistics,
    }
}

fn inner<B: FusedOps, C: CheckpointStrategy>(chain: &Chain<Autodiff<B, C>>) -> Chain<B> {
    let layer = |layer: &ConvNorm<Autodiff<B, C>>| ConvNorm {
        weight: layer.weight.primitive.clone(),
        scale: layer.scale.primitive.clone(),
        shift: layer.shift.primitive.clone(),
        epsilon: layer.epsilon,
        stride: layer.stride,
        relu6: layer.relu6,
    };
    Chain {
        layers: chain.layers.iter().map(layer).collect(),
        residual: chain.residual,
    }
}

#[derive(Debug)]
struct UpsampleAdd;

impl<B: FusedOps> Backward<B, 2> for UpsampleAdd {
    type State = ();

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [x_node, skip_node] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        if let Some(node) = x_node {
            grads.register::<B>(node.id, B::upsample_grad(grad.clone()));
        }
        if let Some(node) = skip_node {
            grads.register::<B>(node.id, grad);
        }
    }
}

#[derive(Debug)]
struct SpatialMean;

impl<B: FusedOps> Backward<B, 1> for SpatialMean {
    type State = [usize; 2];

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [node] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        if let Some(node) = node {
            grads.register::<B>(node.id, B::spatial_mean_grad(grad, ops.state));
        }
    }
}

#[derive(Debug)]
struct Double;

impl<B: FusedOps> Backward<B, 3> for Double {
    /// Input and weight.
    type State = [FloatTensor<B>; 2];

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [x, weight] = ops.state;
        let back = B::double_grad(x, weight, grads.consume::<B>(&ops.node));
        let back = [back.input, back.weight, back.bias];
        for (node, grad) in ops.parents.into_iter().zip(back) {
            if let Some(node) = node {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

/// Parents: input, weight and bias.
#[derive(Debug)]
struct RoundedConvOp;

#[derive(Debug, Clone)]
struct RoundedConvState<B: FusedOps> {
    x: FloatTensor<B>,
    conv: RoundedConv<B>,
    raw: FloatTensor<B>,
}

impl<B: FusedOps> Backward<B, 3> for RoundedConvOp {
    type State = RoundedConvState<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let RoundedConvState { x, conv, raw } = ops.state;
        let grad = grads.consume::<B>(&ops.node);
        let wants_input = ops.parents[0].is_some();
        let back = B::rounded_conv_grad(x, &conv, raw, grad, wants_input);
        let back = [back.input, Some(back.weight), Some(back.bias)];
        for (node, grad) in ops.parents.into_iter().zip(back) {
            if let (Some(node), Some(grad)) = (node, grad) {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

#[derive(Debug)]
struct RoundTo;

impl<B: FusedOps> Backward<B, 1> for RoundTo {
    /// The input, and the grid.
    type State = (FloatTensor<B>, Grid);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [node] = ops.parents;
        let (x, grid) = ops.state;
        let grad = grads.consume::<B>(&ops.node);
        if let Some(node) = node {
            grads.register::<B>(node.id, B::round_to_grad(x, grid, grad));
        }
    }
}

impl<B: FusedOps, C: CheckpointStrategy> FusedOps for Autodiff<B, C> {
    fn chain(x: FloatTensor<Self>, layers: &Chain<Self>) -> Chained<Self> {
        match layers.layers.len() {
            1 => chain::<B, C, 4>(x, layers),
            2 => chain::<B, C, 7>(x, layers),
            3 => chain::<B, C, 10>(x, layers),
            n => panic!("a chain has one to three layers, not {n}"),
        }
    }

    fn upsample_add(x: FloatTensor<Self>, skip: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node.clone(), skip.node.clone()];
        let output = B::upsample_add(x.primitive, skip.primitive);
        let prep = Backward::<B, 2>::prepare::<C>(UpsampleAdd, nodes);
        match prep.compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn spatial_mean(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let [_, height, width, _] = x.primitive.shape().dims();
        let prep = Backward::<B, 1>::prepare::<C>(SpatialMean, [x.node.clone()]);
        let output = B::spatial_mean(x.primitive);
        match prep.compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish([height, width], output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn double(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let nodes = [x.node.clone(), weight.node.clone(), bias.node.clone()];
        let [x, weight] = [x, weight].map(|tensor| tensor.primitive);
        let output = B::double(x.clone(), weight.clone(), bias.primitive);
        match Double.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish([x, weight], output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn rounded_conv(x: FloatTensor<Self>, conv: &RoundedConv<Self>) -> Rounded<Self> {
        let nodes = [&x, &conv.weight, &conv.bias].map(|tensor| tensor.node.clone());
        let x = x.primitive;
        let conv = RoundedConv {
            weight: conv.weight.primitive.clone(),
            bias: conv.bias.primitive.clone(),
            stride: conv.stride,
            grid: conv.grid,
        };
        let Rounded { output, raw } = B::rounded_conv(x.clone(), &conv);
        let left = Self::from_inner(raw.clone());
        let prep = Backward::<B, 3>::prepare::<C>(RoundedConvOp, nodes);
        let output = match prep.compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(RoundedConvState { x, conv, raw }, output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        };
        Rounded { output, raw: left }
    }

    fn round_to(x: FloatTensor<Self>, grid: Grid) -> FloatTensor<Self> {
        let prep = Backward::<B, 1>::prepare::<C>(RoundTo, [x.node.clone()]);
        let output = B::round_to(x.primitive.clone(), grid);
        match prep.compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x.primitive, grid), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }
}

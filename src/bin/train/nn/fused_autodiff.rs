//! Gradients for [`FusedOps`] through burn's autodiff graph.

use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::ops::FloatTensor;

use super::fused::{FusedOps, NormState, Normalised};

#[derive(Debug)]
struct Depthwise;

impl<B: FusedOps> Backward<B, 2> for Depthwise {
    type State = (NodeId, NodeId, usize);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [x_node, weight_node] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (x, weight, stride) = ops.state;
        let x: FloatTensor<B> = checkpointer.retrieve_node_output(x);
        let weight: FloatTensor<B> = checkpointer.retrieve_node_output(weight);
        if let Some(node) = x_node {
            let d = B::depthwise_grad_input(x.clone(), weight, grad.clone(), stride);
            grads.register::<B>(node.id, d);
        }
        if let Some(node) = weight_node {
            grads.register::<B>(node.id, B::depthwise_grad_weight(x, grad, stride));
        }
    }
}

#[derive(Debug)]
struct NormRelu6;

impl<B: FusedOps> Backward<B, 3> for NormRelu6 {
    type State = (NodeId, NormState<B>);

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [x_node, gamma_node, beta_node] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (x, state) = ops.state;
        let d = B::norm_relu6_grad(checkpointer.retrieve_node_output(x), state, grad);
        for (node, gradient) in [
            (x_node, d.input),
            (gamma_node, d.gamma),
            (beta_node, d.beta),
        ] {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: FusedOps, C: CheckpointStrategy> FusedOps for Autodiff<B, C> {
    fn depthwise(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        stride: usize,
    ) -> FloatTensor<Self> {
        let parents = [x.node.clone(), weight.node.clone()];
        match Depthwise.prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&x), prep.checkpoint(&weight), stride);
                prep.finish(state, B::depthwise(x.primitive, weight.primitive, stride))
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::depthwise(x.primitive, weight.primitive, stride))
            }
        }
    }

    fn norm_relu6(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
        relu6: bool,
    ) -> Normalised<Self> {
        let parents = [x.node.clone(), gamma.node.clone(), beta.node.clone()];
        let prep = NormRelu6.prepare::<C>(parents).compute_bound().stateful();
        let run = |x| {
            let (gamma, beta) = (gamma.primitive.clone(), beta.primitive.clone());
            B::norm_relu6(x, gamma, beta, epsilon, relu6)
        };
        let (output, mean, inv_std) = match prep {
            OpsKind::Tracked(mut prep) => {
                let input = prep.checkpoint(&x);
                let Normalised {
                    output,
                    mean,
                    inv_std,
                } = run(x.primitive);
                let state = NormState {
                    gamma: gamma.primitive,
                    beta: beta.primitive,
                    mean: mean.clone(),
                    inv_std: inv_std.clone(),
                    relu6,
                };
                (prep.finish((input, state), output), mean, inv_std)
            }
            OpsKind::UnTracked(prep) => {
                let Normalised {
                    output,
                    mean,
                    inv_std,
                } = run(x.primitive);
                (prep.finish(output), mean, inv_std)
            }
        };
        Normalised {
            output,
            mean: Self::from_inner(mean),
            inv_std: Self::from_inner(inv_std),
        }
    }
}

//! The operators that decide how fast the networks train, as an extension of burn's back ends:
//! chains of convolutions with batch norm and ReLU6, and what stands between chains; and
//! convolutions whose output is rounded to what eight bits can tell apart.
//!
//! Every back end gets the definitions in `generic`; the CPU back end replaces them in `cpu`, and
//! `autodiff` gives all of them their gradients. Activations are channels last, `[N, H, W, C]`.

mod autodiff;
mod cpu;
mod generic;
#[cfg(test)]
mod tests;

use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorPrimitive, backend::Backend};

/// Convolutions in a row, each with batch norm, and each but linear ones with ReLU6; added to
/// their input if `residual`.
#[derive(Debug, Clone)]
pub(crate) struct Chain<B: Backend> {
    pub(crate) layers: Vec<ConvNorm<B>>,
    pub(crate) residual: bool,
}

/// A convolution without bias, in TensorFlow's "SAME" padding, and its norm.
///
/// The weight's shape says which: `[C, 1, 3, 3]` is depthwise, `[O, I, 3, 3]` dense and
/// `[O, I, 1, 1]` pointwise, of stride 1.
#[derive(Debug, Clone)]
pub(crate) struct ConvNorm<B: Backend> {
    pub(crate) weight: FloatTensor<B>,
    /// Batch norm's gamma, `[O]`; in [`FusedOps::chain_eval`] the factor of known statistics.
    pub(crate) scale: FloatTensor<B>,
    /// Batch norm's beta, `[O]`; in [`FusedOps::chain_eval`] the summand of known statistics.
    pub(crate) shift: FloatTensor<B>,
    pub(crate) epsilon: f32,
    pub(crate) stride: usize,
    pub(crate) relu6: bool,
}

/// What the bytes of a feature map stand for: the multiples of `step` from `low` to `high`, which are
/// multiples themselves. The step is positive.
///
/// Rounding takes a value to its clip between the ends, and that to the nearest multiple, of two the
/// even one. The gradient goes straight through (Bengio et al. 2013, "Estimating or propagating
/// gradients through stochastic neurons for conditional computation", section 4): where nothing is
/// clipped the upstream one, else zero. A ReLU6 is a grid from 0 to at most 6.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Grid {
    pub(crate) step: f32,
    pub(crate) low: f32,
    pub(crate) high: f32,
}

/// A convolution as in [`ConvNorm`], with a bias, whose output is rounded to a grid.
#[derive(Debug, Clone)]
pub(crate) struct RoundedConv<B: Backend> {
    pub(crate) weight: FloatTensor<B>,
    /// `[O]`.
    pub(crate) bias: FloatTensor<B>,
    pub(crate) stride: usize,
    pub(crate) grid: Grid,
}

/// What [`FusedOps::rounded_conv`] leaves, each `[N, H, W, O]`.
pub(crate) struct Rounded<B: Backend> {
    pub(crate) output: FloatTensor<B>,
    /// The convolution's output without bias, for the backward pass.
    pub(crate) raw: FloatTensor<B>,
}

/// Gradients of [`FusedOps::rounded_conv`].
pub(crate) struct RoundedGrads<B: Backend> {
    /// None if it was not wanted.
    pub(crate) input: Option<FloatTensor<B>>,
    pub(crate) weight: FloatTensor<B>,
    pub(crate) bias: FloatTensor<B>,
}

/// What a layer of a chain leaves for its backward pass and for the running statistics.
#[derive(Debug, Clone)]
pub(crate) struct Normed<B: Backend> {
    /// The convolution's output, `[N, H, W, O]`.
    pub(crate) raw: FloatTensor<B>,
    /// Its mean in each channel, `[O]`.
    pub(crate) mean: FloatTensor<B>,
    /// `1 / sqrt(variance + epsilon)` in each channel, `[O]`; the variance is the biased one.
    pub(crate) inv_std: FloatTensor<B>,
}

/// A chain's output, `[N, H, W, O]`, and its layers'.
pub(crate) struct Chained<B: Backend> {
    pub(crate) output: FloatTensor<B>,
    pub(crate) layers: Vec<Normed<B>>,
}

/// Gradients of [`FusedOps::chain`].
pub(crate) struct ChainGrads<B: Backend> {
    /// None if it was not wanted.
    pub(crate) input: Option<FloatTensor<B>>,
    pub(crate) layers: Vec<LayerGrads<B>>,
}

/// Gradients of one layer's parameters.
pub(crate) struct LayerGrads<B: Backend> {
    pub(crate) weight: FloatTensor<B>,
    pub(crate) scale: FloatTensor<B>,
    pub(crate) shift: FloatTensor<B>,
}

/// Gradients of [`FusedOps::double`].
pub(crate) struct DoubleGrads<B: Backend> {
    pub(crate) input: FloatTensor<B>,
    pub(crate) weight: FloatTensor<B>,
    pub(crate) bias: FloatTensor<B>,
}

/// Operators that a back end may implement better than by composing burn's own.
pub(crate) trait FusedOps: Backend {
    /// A chain whose norms take the batch's own statistics.
    fn chain(x: FloatTensor<Self>, chain: &Chain<Self>) -> Chained<Self> {
        generic::chain::<Self>(x, chain)
    }

    /// A chain whose norms are known affine maps.
    fn chain_eval(x: FloatTensor<Self>, chain: &Chain<Self>) -> FloatTensor<Self> {
        generic::chain_eval::<Self>(x, chain)
    }

    /// Gradients of [`FusedOps::chain`], of which the input's may not be wanted; `layers` is what
    /// it left.
    fn chain_grad(
        x: FloatTensor<Self>,
        chain: &Chain<Self>,
        layers: Vec<Normed<Self>>,
        grad: FloatTensor<Self>,
        wants_input: bool,
    ) -> ChainGrads<Self> {
        generic::chain_grad::<Self>(x, chain, layers, grad, wants_input)
    }

    /// Nearest upsampling by two, plus a skip:
    /// `[N, H, W, C]` and `[N, 2H, 2W, C]` to `[N, 2H, 2W, C]`.
    fn upsample_add(x: FloatTensor<Self>, skip: FloatTensor<Self>) -> FloatTensor<Self> {
        generic::upsample_add::<Self>(x, skip)
    }

    /// Gradient of [`FusedOps::upsample_add`] with respect to its first input; the skip's is
    /// `grad`.
    fn upsample_grad(grad: FloatTensor<Self>) -> FloatTensor<Self> {
        generic::upsample_grad::<Self>(grad)
    }

    /// `[N, H, W, C] -> [N, C]`.
    fn spatial_mean(x: FloatTensor<Self>) -> FloatTensor<Self> {
        generic::spatial_mean::<Self>(x)
    }

    /// Gradient of [`FusedOps::spatial_mean`] of an activation of that height and width.
    fn spatial_mean_grad(grad: FloatTensor<Self>, size: [usize; 2]) -> FloatTensor<Self> {
        generic::spatial_mean_grad::<Self>(grad, size)
    }

    /// 2x2 transposed convolution of stride 2, `[N, H, W, I]` with a weight `[I, O, 2, 2]` and a
    /// bias `[O]` to `[N, 2H, 2W, O]`.
    fn double(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        generic::double::<Self>(x, weight, bias)
    }

    /// Gradients of [`FusedOps::double`].
    fn double_grad(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> DoubleGrads<Self> {
        generic::double_grad::<Self>(x, weight, grad)
    }

    /// A convolution, its bias added and the sum rounded.
    fn rounded_conv(x: FloatTensor<Self>, conv: &RoundedConv<Self>) -> Rounded<Self> {
        generic::rounded_conv::<Self>(x, conv)
    }

    /// Gradients of [`FusedOps::rounded_conv`], of which the input's may not be wanted; `raw` is
    /// what it left.
    fn rounded_conv_grad(
        x: FloatTensor<Self>,
        conv: &RoundedConv<Self>,
        raw: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        wants_input: bool,
    ) -> RoundedGrads<Self> {
        generic::rounded_conv_grad::<Self>(x, conv, raw, grad, wants_input)
    }

    /// `[N, H, W, C]`, rounded.
    fn round_to(x: FloatTensor<Self>, grid: Grid) -> FloatTensor<Self> {
        generic::round_to::<Self>(x, grid)
    }

    /// Gradient of [`FusedOps::round_to`].
    fn round_to_grad(
        x: FloatTensor<Self>,
        grid: Grid,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        generic::round_to_grad::<Self>(x, grid, grad)
    }
}

#[cfg(feature = "cuda")]
impl FusedOps for burn::backend::Cuda {}

/// TensorFlow's "SAME" padding of a 3-tap window: pixels before and after.
pub(crate) fn same_padding(length: usize, stride: usize) -> (usize, usize) {
    let covered = (length.div_ceil(stride) - 1) * stride + 3;
    let total = covered.saturating_sub(length);
    (total / 2, total - total / 2)
}

/// [`FusedOps::chain`] on tensors: the output, and mean and inverse deviation of each layer.
pub(crate) fn chain<B: FusedOps>(
    x: Tensor<B, 4>,
    chain: &Chain<B>,
) -> (Tensor<B, 4>, Vec<[Tensor<B, 1>; 2]>) {
    let Chained { output, layers } = B::chain(primitive(x), chain);
    let statistics = layers
        .into_iter()
        .map(|layer| [layer.mean, layer.inv_std].map(tensor))
        .collect();
    (tensor(output), statistics)
}

/// [`FusedOps::chain_eval`] on tensors.
pub(crate) fn chain_eval<B: FusedOps>(x: Tensor<B, 4>, chain: &Chain<B>) -> Tensor<B, 4> {
    tensor(B::chain_eval(primitive(x), chain))
}

/// [`FusedOps::upsample_add`] on tensors.
pub(crate) fn upsample_add<B: FusedOps>(x: Tensor<B, 4>, skip: Tensor<B, 4>) -> Tensor<B, 4> {
    tensor(B::upsample_add(primitive(x), primitive(skip)))
}

/// [`FusedOps::spatial_mean`] on tensors.
pub(crate) fn spatial_mean<B: FusedOps>(x: Tensor<B, 4>) -> Tensor<B, 2> {
    tensor(B::spatial_mean(primitive(x)))
}

/// [`FusedOps::double`] on tensors.
pub(crate) fn double<B: FusedOps>(
    x: Tensor<B, 4>,
    weight: Tensor<B, 4>,
    bias: Tensor<B, 1>,
) -> Tensor<B, 4> {
    tensor(B::double(primitive(x), primitive(weight), primitive(bias)))
}

/// [`FusedOps::rounded_conv`] on tensors: the output.
pub(crate) fn rounded_conv<B: FusedOps>(
    x: Tensor<B, 4>,
    weight: Tensor<B, 4>,
    bias: Tensor<B, 1>,
    stride: usize,
    grid: Grid,
) -> Tensor<B, 4> {
    let conv = RoundedConv {
        weight: primitive(weight),
        bias: primitive(bias),
        stride,
        grid,
    };
    tensor(B::rounded_conv(primitive(x), &conv).output)
}

/// [`FusedOps::round_to`] on tensors.
pub(crate) fn round_to<B: FusedOps>(x: Tensor<B, 4>, grid: Grid) -> Tensor<B, 4> {
    tensor(B::round_to(primitive(x), grid))
}

fn tensor<B: Backend, const D: usize>(x: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

pub(crate) fn primitive<B: Backend, const D: usize>(x: Tensor<B, D>) -> FloatTensor<B> {
    x.into_primitive().tensor()
}

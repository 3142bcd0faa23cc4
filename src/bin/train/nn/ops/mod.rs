//! The operators that decide how fast the networks train, as an extension of burn's back ends:
//! chains of convolutions with batch norm and ReLU6, and what stands between chains.
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

fn tensor<B: Backend, const D: usize>(x: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

pub(crate) fn primitive<B: Backend, const D: usize>(x: Tensor<B, D>) -> FloatTensor<B> {
    x.into_primitive().tensor()
}

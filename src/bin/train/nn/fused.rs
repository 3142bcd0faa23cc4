//! The three operators that decide how fast MobileNetV2 trains, as an extension of burn's
//! back ends: depthwise convolution, batch norm fused with ReLU6, and pointwise convolution.
//!
//! Every back end gets the definitions in `fused_generic`; the CPU back end replaces them in
//! `fused_cpu`, and `fused_autodiff` gives all of them their gradients.

use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorPrimitive, backend::Backend};

use super::fused_generic as generic;

/// Batch-normalised activations and the batch statistics behind them.
pub(crate) struct Normalised<B: Backend> {
    /// `[N, C, H, W]`.
    pub(crate) output: FloatTensor<B>,
    /// Mean of each channel, `[C]`.
    pub(crate) mean: FloatTensor<B>,
    /// `1 / sqrt(variance + epsilon)` of each channel, `[C]`; the variance is the biased one.
    pub(crate) inv_std: FloatTensor<B>,
}

/// What the backward pass of [`FusedOps::norm_relu6`] needs from the forward pass.
#[derive(Debug, Clone)]
pub(crate) struct NormState<B: Backend> {
    pub(crate) gamma: FloatTensor<B>,
    pub(crate) beta: FloatTensor<B>,
    pub(crate) mean: FloatTensor<B>,
    pub(crate) inv_std: FloatTensor<B>,
    pub(crate) relu6: bool,
}

/// Gradients of [`FusedOps::norm_relu6`].
pub(crate) struct NormGrads<B: Backend> {
    pub(crate) input: FloatTensor<B>,
    pub(crate) gamma: FloatTensor<B>,
    pub(crate) beta: FloatTensor<B>,
}

/// Operators that a back end may implement better than by composing burn's own.
pub(crate) trait FusedOps: Backend {
    /// Depthwise 3x3 convolution with TensorFlow's "SAME" padding:
    /// `[N, C, H, W] * [C, 1, 3, 3] -> [N, C, ceil(H / stride), ceil(W / stride)]`.
    fn depthwise(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        stride: usize,
    ) -> FloatTensor<Self> {
        generic::depthwise::<Self>(x, weight, stride)
    }

    /// Gradient of [`FusedOps::depthwise`] with respect to its input.
    fn depthwise_grad_input(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        stride: usize,
    ) -> FloatTensor<Self> {
        generic::depthwise_grad_input::<Self>(x, weight, grad, stride)
    }

    /// Gradient of [`FusedOps::depthwise`] with respect to its weight.
    fn depthwise_grad_weight(
        x: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        stride: usize,
    ) -> FloatTensor<Self> {
        generic::depthwise_grad_weight::<Self>(x, grad, stride)
    }

    /// Batch norm over N, H and W by the batch's own statistics, then ReLU6 if `relu6`.
    fn norm_relu6(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
        relu6: bool,
    ) -> Normalised<Self> {
        generic::norm_relu6::<Self>(x, gamma, beta, epsilon, relu6)
    }

    /// `x * scale + shift` for each channel, then ReLU6 if `relu6`: batch norm by known statistics.
    fn affine_relu6(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        relu6: bool,
    ) -> FloatTensor<Self> {
        generic::affine_relu6::<Self>(x, scale, shift, relu6)
    }

    /// Gradients of [`FusedOps::norm_relu6`] (Ioffe and Szegedy 2015, section 3).
    fn norm_relu6_grad(
        x: FloatTensor<Self>,
        state: NormState<Self>,
        grad: FloatTensor<Self>,
    ) -> NormGrads<Self> {
        generic::norm_relu6_grad::<Self>(x, state, grad)
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

/// Zero-pads height and width as [`same_padding`] says.
pub(crate) fn pad_same<B: Backend>(x: Tensor<B, 4>, stride: usize) -> Tensor<B, 4> {
    let [_, _, height, width] = x.dims();
    let (top, bottom) = same_padding(height, stride);
    let (left, right) = same_padding(width, stride);
    x.pad((left, right, top, bottom), 0.0)
}

/// [`FusedOps::depthwise`] on tensors.
pub(crate) fn depthwise<B: FusedOps>(
    x: Tensor<B, 4>,
    weight: Tensor<B, 4>,
    stride: usize,
) -> Tensor<B, 4> {
    wrap4::<B>(B::depthwise(primitive(x), primitive(weight), stride))
}

/// [`FusedOps::norm_relu6`] on tensors: output, mean and inverse deviation.
pub(crate) fn norm_relu6<B: FusedOps>(
    x: Tensor<B, 4>,
    gamma: Tensor<B, 1>,
    beta: Tensor<B, 1>,
    epsilon: f32,
    relu6: bool,
) -> (Tensor<B, 4>, Tensor<B, 1>, Tensor<B, 1>) {
    let n = B::norm_relu6(
        primitive(x),
        primitive(gamma),
        primitive(beta),
        epsilon,
        relu6,
    );
    (
        wrap4::<B>(n.output),
        wrap1::<B>(n.mean),
        wrap1::<B>(n.inv_std),
    )
}

/// [`FusedOps::affine_relu6`] on tensors.
pub(crate) fn affine_relu6<B: FusedOps>(
    x: Tensor<B, 4>,
    scale: Tensor<B, 1>,
    shift: Tensor<B, 1>,
    relu6: bool,
) -> Tensor<B, 4> {
    wrap4::<B>(B::affine_relu6(
        primitive(x),
        primitive(scale),
        primitive(shift),
        relu6,
    ))
}

/// 1x1 convolution as a matrix product, whose weight gradient is one too:
/// `[N, I, H, W] * [O, I, 1, 1] -> [N, O, H, W]`.
pub(crate) fn pointwise<B: Backend>(x: Tensor<B, 4>, weight: Tensor<B, 4>) -> Tensor<B, 4> {
    let [n, inputs, height, width] = x.dims();
    let outputs = weight.dims()[0];
    weight
        .reshape([1, outputs, inputs])
        .matmul(x.reshape([n, inputs, height * width]))
        .reshape([n, outputs, height, width])
}

pub(super) fn rank4<B: Backend>(x: &FloatTensor<B>) -> Tensor<B, 4> {
    wrap4::<B>(x.clone())
}

pub(super) fn wrap4<B: Backend>(x: FloatTensor<B>) -> Tensor<B, 4> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

pub(super) fn wrap1<B: Backend>(x: FloatTensor<B>) -> Tensor<B, 1> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

pub(super) fn primitive<B: Backend, const D: usize>(x: Tensor<B, D>) -> FloatTensor<B> {
    x.into_primitive().tensor()
}

#[cfg(test)]
mod tests {
    use burn::backend::Autodiff;
    use burn::tensor::module::conv2d;
    use burn::tensor::ops::ConvOptions;
    use burn::tensor::{Distribution, Tolerance};
    use burn_flex::Flex;

    use super::*;

    type Ad = Autodiff<Flex>;

    fn random<B: Backend, const D: usize>(shape: [usize; D]) -> Tensor<B, D> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &B::Device::default())
    }

    fn assert_close<B: Backend, const D: usize>(got: Tensor<B, D>, want: Tensor<B, D>) {
        let tolerance = Tolerance::<f32>::rel_abs(2e-4, 2e-4);
        got.into_data()
            .assert_approx_eq::<f32>(&want.into_data(), tolerance);
    }

    /// Even and odd sides, both strides, planes that are no multiple of a vector.
    const CASES: [([usize; 4], usize); 5] = [
        ([2, 3, 8, 8], 1),
        ([2, 5, 7, 9], 1),
        ([2, 3, 8, 6], 2),
        ([3, 4, 9, 7], 2),
        ([1, 2, 1, 1], 1),
    ];

    #[test]
    fn same_padding_is_tensorflows() {
        // total = (ceil(n / s) - 1) * s + 3 - n, the smaller half first.
        assert_eq!(same_padding(224, 1), (1, 1));
        assert_eq!(same_padding(224, 2), (0, 1));
        assert_eq!(same_padding(7, 2), (1, 1));
        assert_eq!(same_padding(1, 2), (1, 1));
    }

    #[test]
    fn depthwise_has_the_values_and_gradients_of_burns_grouped_convolution() {
        for (shape, stride) in CASES {
            let channels = shape[1];
            let leaf = |t: Tensor<Ad, 4>| t.require_grad();
            let (x, w) = (
                random::<Flex, 4>(shape),
                random::<Flex, 4>([channels, 1, 3, 3]),
            );
            let run = |fused: bool| {
                let x = leaf(Tensor::from_inner(x.clone()));
                let w = leaf(Tensor::from_inner(w.clone()));
                let y = if fused {
                    depthwise(x.clone(), w.clone(), stride)
                } else {
                    let options = ConvOptions::new([stride; 2], [0, 0], [1, 1], channels);
                    conv2d(pad_same(x.clone(), stride), w.clone(), None, options)
                };
                // A loss whose gradient differs from pixel to pixel.
                let grads = (y.clone() * y.clone() * 0.5).sum().backward();
                let dx = x.grad(&grads).expect("x is a leaf");
                (y.inner(), dx, w.grad(&grads).expect("w is a leaf"))
            };
            let (got, want) = (run(true), run(false));
            assert_close(got.0, want.0);
            assert_close(got.1, want.1);
            assert_close(got.2, want.2);
        }
    }

    #[test]
    fn norm_relu6_has_the_values_and_gradients_of_the_composed_formula() {
        for (shape, _) in CASES.into_iter().filter(|(shape, _)| shape[2] > 1) {
            for relu6 in [true, false] {
                let x = random::<Flex, 4>(shape) * 3.0 + 1.0;
                let (g, b) = (
                    random::<Flex, 1>([shape[1]]) * 3.0,
                    random::<Flex, 1>([shape[1]]) * 2.0,
                );
                let weights = random::<Flex, 4>(shape);
                let run = |fused: bool| {
                    let x = Tensor::<Ad, 4>::from_inner(x.clone()).require_grad();
                    let g = Tensor::<Ad, 1>::from_inner(g.clone()).require_grad();
                    let b = Tensor::<Ad, 1>::from_inner(b.clone()).require_grad();
                    let y = if fused {
                        norm_relu6(x.clone(), g.clone(), b.clone(), 1e-3, relu6).0
                    } else {
                        composed(x.clone(), g.clone(), b.clone(), 1e-3, relu6)
                    };
                    let loss = (y.clone() * Tensor::from_inner(weights.clone())).sum();
                    let grads = loss.backward();
                    let grad_of = |t: &Tensor<Ad, 1>| t.grad(&grads).expect("a leaf");
                    (
                        y.inner(),
                        x.grad(&grads).expect("a leaf"),
                        grad_of(&g),
                        grad_of(&b),
                    )
                };
                let (got, want) = (run(true), run(false));
                assert_close(got.0, want.0);
                assert_close(got.1, want.1);
                assert_close(got.2, want.2);
                assert_close(got.3, want.3);
            }
        }
    }

    /// Batch norm as the paper writes it, differentiated by burn.
    fn composed<B: Backend>(
        x: Tensor<B, 4>,
        gamma: Tensor<B, 1>,
        beta: Tensor<B, 1>,
        epsilon: f32,
        relu6: bool,
    ) -> Tensor<B, 4> {
        let shape = [1, x.dims()[1], 1, 1];
        let mean = |t: Tensor<B, 4>| t.mean_dim(0).mean_dim(2).mean_dim(3);
        let centred = x.clone() - mean(x);
        let variance = mean(centred.clone() * centred.clone());
        let y = centred / (variance + epsilon).sqrt() * gamma.reshape(shape) + beta.reshape(shape);
        if relu6 { y.clamp(0.0, 6.0) } else { y }
    }

    #[test]
    fn generic_definitions_agree_with_the_cpu_back_end() {
        for (shape, stride) in CASES {
            let x = primitive(random::<Flex, 4>(shape));
            let w = primitive(random::<Flex, 4>([shape[1], 1, 3, 3]));
            let y = Flex::depthwise(x.clone(), w.clone(), stride);
            let agree = |a, b| assert_close(wrap4::<Flex>(a), wrap4::<Flex>(b));
            agree(
                y.clone(),
                generic::depthwise::<Flex>(x.clone(), w.clone(), stride),
            );
            agree(
                Flex::depthwise_grad_input(x.clone(), w.clone(), y.clone(), stride),
                generic::depthwise_grad_input::<Flex>(x.clone(), w, y.clone(), stride),
            );
            agree(
                Flex::depthwise_grad_weight(x.clone(), y.clone(), stride),
                generic::depthwise_grad_weight::<Flex>(x.clone(), y, stride),
            );

            let [scale, shift] = [(); 2].map(|()| primitive(random::<Flex, 1>([shape[1]])));
            agree(
                Flex::affine_relu6(x.clone(), scale.clone(), shift.clone(), true),
                generic::affine_relu6::<Flex>(x.clone(), scale, shift, true),
            );

            let [gamma, beta] = [(); 2].map(|()| primitive(random::<Flex, 1>([shape[1]])));
            let grad = primitive(random::<Flex, 4>(shape));
            let a = Flex::norm_relu6(x.clone(), gamma.clone(), beta.clone(), 1e-3, true);
            let b = generic::norm_relu6::<Flex>(x.clone(), gamma.clone(), beta.clone(), 1e-3, true);
            agree(a.output, b.output);
            assert_close(wrap1::<Flex>(a.mean.clone()), wrap1::<Flex>(b.mean));
            let (mean, inv_std) = (a.mean, a.inv_std);
            let state = NormState {
                gamma,
                beta,
                mean,
                inv_std,
                relu6: true,
            };
            let a = Flex::norm_relu6_grad(x.clone(), state.clone(), grad.clone());
            let b = generic::norm_relu6_grad::<Flex>(x, state, grad);
            agree(a.input, b.input);
            assert_close(wrap1::<Flex>(a.gamma), wrap1::<Flex>(b.gamma));
            assert_close(wrap1::<Flex>(a.beta), wrap1::<Flex>(b.beta));
        }
    }

    #[test]
    fn pointwise_is_burns_1x1_convolution() {
        let (x, w) = (
            random::<Flex, 4>([2, 5, 3, 4]),
            random::<Flex, 4>([7, 5, 1, 1]),
        );
        let want = conv2d(
            x.clone(),
            w.clone(),
            None,
            ConvOptions::new([1, 1], [0, 0], [1, 1], 1),
        );
        assert_close(pointwise(x, w), want);
    }
}

//! [`FusedOps`](super::fused::FusedOps) composed of burn's own operators, for any back end.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use burn::tensor::ops::{ConvOptions, FloatTensor};

use super::fused::{
    NormGrads, NormState, Normalised, pad_same, primitive, rank4, same_padding, wrap1, wrap4,
};

pub(super) fn depthwise<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    stride: usize,
) -> FloatTensor<B> {
    let channels = rank4::<B>(&weight).dims()[0];
    let x = pad_same(rank4::<B>(&x), stride);
    B::conv2d(
        primitive(x),
        weight,
        None,
        depthwise_options(channels, stride),
    )
}

pub(super) fn depthwise_grad_input<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    grad: FloatTensor<B>,
    stride: usize,
) -> FloatTensor<B> {
    let x = rank4::<B>(&x);
    let [_, channels, height, width] = x.dims();
    let (top, left) = (
        same_padding(height, stride).0,
        same_padding(width, stride).0,
    );
    let options = depthwise_options(channels, stride);
    let padded = primitive(pad_same(x, stride));
    let grad = wrap4::<B>(B::conv2d_x_backward(padded, weight, grad, options));
    primitive(grad.narrow(2, top, height).narrow(3, left, width))
}

/// One grouped convolution in which the batch takes the place of the input channels.
pub(super) fn depthwise_grad_weight<B: Backend>(
    x: FloatTensor<B>,
    grad: FloatTensor<B>,
    stride: usize,
) -> FloatTensor<B> {
    let x = pad_same(rank4::<B>(&x), stride);
    let grad = rank4::<B>(&grad);
    let [n, channels, height, width] = x.dims();
    let [_, _, out_height, out_width] = grad.dims();
    let x = x.swap_dims(0, 1).reshape([1, channels * n, height, width]);
    let kernel = grad
        .swap_dims(0, 1)
        .reshape([channels, n, out_height, out_width]);
    let options = ConvOptions::new([1, 1], [0, 0], [stride, stride], channels);
    let taps = B::conv2d(primitive(x), primitive(kernel), None, options);
    let taps = wrap4::<B>(taps).narrow(2, 0, 3).narrow(3, 0, 3);
    primitive(taps.reshape([channels, 1, 3, 3]))
}

pub(super) fn norm_relu6<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    epsilon: f32,
    relu6: bool,
) -> Normalised<B> {
    let x = rank4::<B>(&x);
    let mean = channel_mean(x.clone());
    let centred = x.clone() - over_channels(mean.clone());
    let inv_std = (channel_mean(centred.clone() * centred) + epsilon)
        .sqrt()
        .recip();
    let scale = wrap1::<B>(gamma) * inv_std.clone();
    let shift = wrap1::<B>(beta) - mean.clone() * scale.clone();
    let (scale, shift) = (primitive(scale), primitive(shift));
    Normalised {
        output: affine_relu6::<B>(primitive(x), scale, shift, relu6),
        mean: primitive(mean),
        inv_std: primitive(inv_std),
    }
}

pub(super) fn affine_relu6<B: Backend>(
    x: FloatTensor<B>,
    scale: FloatTensor<B>,
    shift: FloatTensor<B>,
    relu6: bool,
) -> FloatTensor<B> {
    let y = rank4::<B>(&x) * over_channels(wrap1::<B>(scale)) + over_channels(wrap1::<B>(shift));
    primitive(if relu6 { y.clamp(0.0, 6.0) } else { y })
}

pub(super) fn norm_relu6_grad<B: Backend>(
    x: FloatTensor<B>,
    state: NormState<B>,
    grad: FloatTensor<B>,
) -> NormGrads<B> {
    let x = rank4::<B>(&x);
    let gamma = wrap1::<B>(state.gamma);
    let inv_std = wrap1::<B>(state.inv_std);
    let normal = (x - over_channels(wrap1::<B>(state.mean))) * over_channels(inv_std.clone());
    let mut grad = wrap4::<B>(grad);
    if state.relu6 {
        let y =
            normal.clone() * over_channels(gamma.clone()) + over_channels(wrap1::<B>(state.beta));
        let clipped = y
            .clone()
            .lower_equal_elem(0.0)
            .bool_or(y.greater_equal_elem(6.0));
        grad = grad.mask_fill(clipped, 0.0);
    }
    let [n, _, height, width] = grad.dims();
    let count = (n * height * width) as f32;
    let grad_mean = channel_mean(grad.clone());
    let grad_normal_mean = channel_mean(grad.clone() * normal.clone());
    let input = (grad
        - over_channels(grad_mean.clone())
        - normal * over_channels(grad_normal_mean.clone()))
        * over_channels(gamma * inv_std);
    NormGrads {
        input: primitive(input),
        gamma: primitive(grad_normal_mean * count),
        beta: primitive(grad_mean * count),
    }
}

fn depthwise_options(channels: usize, stride: usize) -> ConvOptions<2> {
    ConvOptions::new([stride, stride], [0, 0], [1, 1], channels)
}

fn channel_mean<B: Backend>(x: Tensor<B, 4>) -> Tensor<B, 1> {
    let [n, channels, height, width] = x.dims();
    x.swap_dims(0, 1)
        .reshape([channels, n * height * width])
        .mean_dim(1)
        .reshape([channels])
}

fn over_channels<B: Backend>(x: Tensor<B, 1>) -> Tensor<B, 4> {
    let channels = x.dims()[0];
    x.reshape([1, channels, 1, 1])
}

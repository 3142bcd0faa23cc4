//! [`FusedOps`](super::FusedOps) composed of burn's own operators, for any back end.
//!
//! burn's convolutions have the channels second: activations are turned there and back.

use burn::tensor::backend::Backend;
use burn::tensor::module::conv_transpose2d;
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions, FloatTensor};
use burn::tensor::{Slice, Tensor};

use super::{
    Chain, ChainGrads, Chained, ConvNorm, DoubleGrads, Grid, LayerGrads, Normed, Rounded,
    RoundedConv, RoundedGrads, primitive, same_padding, tensor,
};

pub(super) fn chain<B: Backend>(x: FloatTensor<B>, chain: &Chain<B>) -> Chained<B> {
    let mut layers = Vec::with_capacity(chain.layers.len());
    let input: Tensor<B, 4> = tensor(x);
    let mut x = input.clone();
    for layer in &chain.layers {
        let raw = convolve(x, &layer.weight, layer.stride);
        let mean = channel_mean(raw.clone());
        let centred = raw.clone() - over_channels(mean.clone());
        let variance = channel_mean(centred.clone() * centred);
        let inv_std = (variance + layer.epsilon).sqrt().recip();
        let normed = Normed {
            raw: primitive(raw),
            mean: primitive(mean),
            inv_std: primitive(inv_std),
        };
        x = normalise(layer, &normed);
        layers.push(normed);
    }
    let output = primitive(if chain.residual { x + input } else { x });
    Chained { output, layers }
}

pub(super) fn chain_eval<B: Backend>(x: FloatTensor<B>, chain: &Chain<B>) -> FloatTensor<B> {
    let input: Tensor<B, 4> = tensor(x);
    let mut x = input.clone();
    for layer in &chain.layers {
        let [scale, shift] = [&layer.scale, &layer.shift].map(|t| tensor(t.clone()));
        let raw = convolve(x, &layer.weight, layer.stride);
        x = affine(raw, scale, shift, layer.relu6);
    }
    primitive(if chain.residual { x + input } else { x })
}

pub(super) fn chain_grad<B: Backend>(
    x: FloatTensor<B>,
    chain: &Chain<B>,
    normed: Vec<Normed<B>>,
    grad: FloatTensor<B>,
    wants_input: bool,
) -> ChainGrads<B> {
    let mut upstream: Tensor<B, 4> = tensor(grad);
    let skip = chain.residual.then(|| upstream.clone());
    let mut grads = Vec::with_capacity(normed.len());
    for (index, layer) in chain.layers.iter().enumerate().rev() {
        let norm = norm_grad(layer, &normed[index], upstream);
        let (filter, stride) = (&layer.weight, layer.stride);
        let x = match index {
            0 => tensor(x.clone()),
            _ => normalise(&chain.layers[index - 1], &normed[index - 1]),
        };
        grads.push(LayerGrads {
            weight: convolve_grad_weight(x.clone(), filter, stride, norm.input.clone()),
            scale: primitive(norm.scale),
            shift: primitive(norm.shift),
        });
        if index == 0 && !wants_input {
            upstream = norm.input;
            break;
        }
        upstream = convolve_grad_input(x, filter, stride, norm.input);
    }
    grads.reverse();
    let input = match skip {
        Some(skip) if wants_input => upstream + skip,
        _ => upstream,
    };
    ChainGrads {
        input: wants_input.then(|| primitive(input)),
        layers: grads,
    }
}

/// Batch norm by a batch's statistics, then the activation.
fn normalise<B: Backend>(layer: &ConvNorm<B>, normed: &Normed<B>) -> Tensor<B, 4> {
    let [gamma, beta, mean, inv_std] =
        [&layer.scale, &layer.shift, &normed.mean, &normed.inv_std].map(|t| tensor(t.clone()));
    let scale: Tensor<B, 1> = gamma * inv_std;
    let shift = beta - mean * scale.clone();
    affine(tensor(normed.raw.clone()), scale, shift, layer.relu6)
}

fn affine<B: Backend>(
    x: Tensor<B, 4>,
    scale: Tensor<B, 1>,
    shift: Tensor<B, 1>,
    relu6: bool,
) -> Tensor<B, 4> {
    let y = x * over_channels(scale) + over_channels(shift);
    if relu6 { y.clamp(0.0, 6.0) } else { y }
}

struct NormGrads<B: Backend> {
    input: Tensor<B, 4>,
    scale: Tensor<B, 1>,
    shift: Tensor<B, 1>,
}

/// Gradients of batch norm and activation (Ioffe and Szegedy 2015, section 3).
fn norm_grad<B: Backend>(
    layer: &ConvNorm<B>,
    normed: &Normed<B>,
    mut grad: Tensor<B, 4>,
) -> NormGrads<B> {
    let [gamma, beta, mean, inv_std]: [Tensor<B, 1>; 4] =
        [&layer.scale, &layer.shift, &normed.mean, &normed.inv_std].map(|t| tensor(t.clone()));
    let raw: Tensor<B, 4> = tensor(normed.raw.clone());
    let normal = (raw - over_channels(mean)) * over_channels(inv_std.clone());
    if layer.relu6 {
        let y = normal.clone() * over_channels(gamma.clone()) + over_channels(beta);
        grad = pass(y, 0.0, 6.0, grad);
    }
    let [n, height, width, _] = grad.dims();
    let count = (n * height * width) as f32;
    let grad_mean = channel_mean(grad.clone());
    let grad_normal_mean = channel_mean(grad.clone() * normal.clone());
    let input = (grad
        - over_channels(grad_mean.clone())
        - normal * over_channels(grad_normal_mean.clone()))
        * over_channels(gamma * inv_std);
    NormGrads {
        input,
        scale: grad_normal_mean * count,
        shift: grad_mean * count,
    }
}

/// The gradient where `y` is between the ends, else zero.
fn pass<B: Backend>(y: Tensor<B, 4>, low: f32, high: f32, grad: Tensor<B, 4>) -> Tensor<B, 4> {
    let clipped = y
        .clone()
        .lower_equal_elem(low)
        .bool_or(y.greater_equal_elem(high));
    grad.mask_fill(clipped, 0.0)
}

/// Whether each channel has a filter of its own.
fn is_depthwise<B: Backend>(weight: &Tensor<B, 4>) -> bool {
    weight.dims()[1] == 1 && weight.dims()[2] == 3
}

/// `[N, H, W, C] -> [N, C, H, W]`.
pub(super) fn channels_second<B: Backend>(x: Tensor<B, 4>) -> Tensor<B, 4> {
    x.permute([0, 3, 1, 2])
}

/// `[N, C, H, W] -> [N, H, W, C]`.
pub(super) fn channels_last<B: Backend>(x: Tensor<B, 4>) -> Tensor<B, 4> {
    x.permute([0, 2, 3, 1])
}

fn convolve<B: Backend>(x: Tensor<B, 4>, weight: &FloatTensor<B>, stride: usize) -> Tensor<B, 4> {
    let weight: Tensor<B, 4> = tensor(weight.clone());
    let [outputs, inputs, kernel, _] = weight.dims();
    if kernel == 1 {
        let [n, height, width, _] = x.dims();
        return x
            .reshape([n * height * width, inputs])
            .matmul(weight.reshape([outputs, inputs]).transpose())
            .reshape([n, height, width, outputs]);
    }
    let options = options(&weight, stride);
    let x = primitive(channels_second(pad_same(x, stride)));
    channels_last(tensor(B::conv2d(x, primitive(weight), None, options)))
}

fn convolve_grad_input<B: Backend>(
    x: Tensor<B, 4>,
    weight: &FloatTensor<B>,
    stride: usize,
    grad: Tensor<B, 4>,
) -> Tensor<B, 4> {
    let weight: Tensor<B, 4> = tensor(weight.clone());
    let [outputs, inputs, kernel, _] = weight.dims();
    let [n, height, width, _] = x.dims();
    if kernel == 1 {
        return grad
            .reshape([n * height * width, outputs])
            .matmul(weight.reshape([outputs, inputs]))
            .reshape([n, height, width, inputs]);
    }
    let options = options(&weight, stride);
    let [top, left] = [height, width].map(|length| same_padding(length, stride).0);
    let padded = primitive(channels_second(pad_same(x, stride)));
    let grad: Tensor<B, 4> = tensor(B::conv2d_x_backward(
        padded,
        primitive(weight),
        primitive(channels_second(grad)),
        options,
    ));
    channels_last(grad)
        .narrow(1, top, height)
        .narrow(2, left, width)
}

/// Back ends take this gradient for a convolution whose kernel is as large as the image, and have a
/// thread for each weight at most: here every tap has a sum of its own, over all pixels.
fn convolve_grad_weight<B: Backend>(
    x: Tensor<B, 4>,
    weight: &FloatTensor<B>,
    stride: usize,
    grad: Tensor<B, 4>,
) -> FloatTensor<B> {
    let weight: Tensor<B, 4> = tensor(weight.clone());
    let [outputs, inputs, kernel, _] = weight.dims();
    if kernel == 1 {
        return primitive(outer_products(grad, x).reshape([outputs, inputs, 1, 1]));
    }
    let depthwise = is_depthwise(&weight);
    let x = pad_same(x, stride);
    let [_, height, width, _] = grad.dims();
    let tap = |index: usize| {
        let x = at_tap(x.clone(), [index / 3, index % 3], [height, width], stride);
        if depthwise {
            channel_sum(x * grad.clone()).reshape([outputs, 1])
        } else {
            outer_products(grad.clone(), x)
        }
    };
    let sums = Tensor::stack::<3>((0..9).map(tap).collect(), 2);
    primitive(sums.reshape([outputs, inputs, 3, 3]))
}

/// What a window's tap meets of `[N, H, W, C]` as the window goes over `size` places.
fn at_tap<B: Backend>(
    x: Tensor<B, 4>,
    tap: [usize; 2],
    size: [usize; 2],
    stride: usize,
) -> Tensor<B, 4> {
    let [rows, columns] = [0, 1].map(|axis| {
        let end = tap[axis] + stride * (size[axis] - 1) + 1;
        Slice::new(tap[axis] as isize, Some(end as isize), stride as isize)
    });
    x.slice([Slice::full(), rows, columns, Slice::full()])
}

/// Products of `[N, H, W, A]` and `[N, H, W, B]`, summed over all pixels, `[A, B]`: for each image first,
/// so that a GPU has enough to do at once.
fn outer_products<B: Backend>(left: Tensor<B, 4>, right: Tensor<B, 4>) -> Tensor<B, 2> {
    let flat = |map: Tensor<B, 4>| {
        let [n, height, width, channels] = map.dims();
        map.reshape([n, height * width, channels])
    };
    let products = flat(left).swap_dims(1, 2).matmul(flat(right)).sum_dim(0);
    let [_, rows, columns] = products.dims();
    products.reshape([rows, columns])
}

fn options<B: Backend>(weight: &Tensor<B, 4>, stride: usize) -> ConvOptions<2> {
    let groups = if is_depthwise(weight) {
        weight.dims()[0]
    } else {
        1
    };
    ConvOptions::new([stride; 2], [0, 0], [1, 1], groups)
}

/// Zero-pads height and width of `[N, H, W, C]` as [`same_padding`] says.
pub(super) fn pad_same<B: Backend>(x: Tensor<B, 4>, stride: usize) -> Tensor<B, 4> {
    let [_, height, width, _] = x.dims();
    let [rows, columns] = [height, width].map(|length| same_padding(length, stride));
    x.pad([rows, columns, (0, 0)], 0.0)
}

pub(super) fn upsample_add<B: Backend>(x: FloatTensor<B>, skip: FloatTensor<B>) -> FloatTensor<B> {
    let x: Tensor<B, 4> = tensor(x);
    let [n, height, width, c] = x.dims();
    let up = x
        .reshape([n, height, 1, width, 1, c])
        .repeat(&[1, 1, 2, 1, 2, 1])
        .reshape([n, height * 2, width * 2, c]);
    primitive(up + tensor(skip))
}

pub(super) fn upsample_grad<B: Backend>(grad: FloatTensor<B>) -> FloatTensor<B> {
    let grad: Tensor<B, 4> = tensor(grad);
    let [n, height, width, c] = grad.dims();
    let sums = grad
        .reshape([n, height / 2, 2, width / 2, 2, c])
        .sum_dim(4)
        .sum_dim(2);
    primitive(sums.reshape([n, height / 2, width / 2, c]))
}

pub(super) fn spatial_mean<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let x: Tensor<B, 4> = tensor(x);
    let [n, height, width, c] = x.dims();
    let mean = x.reshape([n, height * width, c]).mean_dim(1);
    primitive(mean.reshape([n, c]))
}

pub(super) fn spatial_mean_grad<B: Backend>(
    grad: FloatTensor<B>,
    [height, width]: [usize; 2],
) -> FloatTensor<B> {
    let grad: Tensor<B, 2> = tensor(grad);
    let [n, c] = grad.dims();
    let share = grad.reshape([n, 1, 1, c]) / (height * width) as f32;
    primitive(share.repeat(&[1, height, width, 1]))
}

pub(super) fn double<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
) -> FloatTensor<B> {
    let options = ConvTransposeOptions::new([2, 2], [0, 0], [0, 0], [1, 1], 1);
    let bias = Some(tensor::<B, 1>(bias));
    let x = channels_second(tensor::<B, 4>(x));
    primitive(channels_last(conv_transpose2d(
        x,
        tensor(weight),
        bias,
        options,
    )))
}

/// The transposed convolution's adjoint is a convolution, and its weight's gradient that of the
/// convolution with input and gradient exchanged.
pub(super) fn double_grad<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    grad: FloatTensor<B>,
) -> DoubleGrads<B> {
    let (x, grad): (Tensor<B, 4>, Tensor<B, 4>) = (tensor(x), tensor(grad));
    let [_, height, width, inputs] = x.dims();
    let outputs = grad.dims()[3];
    let quarter = |index: usize| {
        let grad = at_tap(grad.clone(), [index / 2, index % 2], [height, width], 2);
        outer_products(x.clone(), grad)
    };
    let quarters = Tensor::stack::<3>((0..4).map(quarter).collect(), 2);
    let options = ConvOptions::new([2, 2], [0, 0], [1, 1], 1);
    let bias = primitive(channel_sum(grad.clone()));
    let input = B::conv2d(primitive(channels_second(grad)), weight, None, options);
    DoubleGrads {
        input: primitive(channels_last::<B>(tensor(input))),
        weight: primitive(quarters.reshape([inputs, outputs, 2, 2])),
        bias,
    }
}

pub(super) fn rounded_conv<B: Backend>(x: FloatTensor<B>, conv: &RoundedConv<B>) -> Rounded<B> {
    let raw = convolve::<B>(tensor(x), &conv.weight, conv.stride);
    let biased = raw.clone() + over_channels(tensor(conv.bias.clone()));
    Rounded {
        output: round_to::<B>(primitive(biased), conv.grid),
        raw: primitive(raw),
    }
}

pub(super) fn rounded_conv_grad<B: Backend>(
    x: FloatTensor<B>,
    conv: &RoundedConv<B>,
    raw: FloatTensor<B>,
    grad: FloatTensor<B>,
    wants_input: bool,
) -> RoundedGrads<B> {
    let RoundedConv { weight, stride, .. } = conv;
    let biased = tensor(raw) + over_channels(tensor(conv.bias.clone()));
    let Grid { low, high, .. } = conv.grid;
    let (x, grad) = (tensor(x), pass::<B>(biased, low, high, tensor(grad)));
    RoundedGrads {
        weight: convolve_grad_weight(x.clone(), weight, *stride, grad.clone()),
        bias: primitive(channel_sum(grad.clone())),
        input: wants_input.then(|| primitive(convolve_grad_input(x, weight, *stride, grad))),
    }
}

pub(super) fn round_to<B: Backend>(x: FloatTensor<B>, grid: Grid) -> FloatTensor<B> {
    let clipped = tensor::<B, 4>(x).clamp(grid.low, grid.high);
    primitive((clipped / grid.step).round() * grid.step)
}

pub(super) fn round_to_grad<B: Backend>(
    x: FloatTensor<B>,
    grid: Grid,
    grad: FloatTensor<B>,
) -> FloatTensor<B> {
    primitive(pass::<B>(tensor(x), grid.low, grid.high, tensor(grad)))
}

/// One axis after the other, so that a GPU has enough to do at once.
fn channel_sum<B: Backend>(x: Tensor<B, 4>) -> Tensor<B, 1> {
    let channels = x.dims()[3];
    x.sum_dim(2).sum_dim(1).sum_dim(0).reshape([channels])
}

fn channel_mean<B: Backend>(x: Tensor<B, 4>) -> Tensor<B, 1> {
    let [n, height, width, _] = x.dims();
    channel_sum(x) / (n * height * width) as f32
}

fn over_channels<B: Backend>(x: Tensor<B, 1>) -> Tensor<B, 4> {
    let channels = x.dims()[0];
    x.reshape([1, 1, 1, channels])
}

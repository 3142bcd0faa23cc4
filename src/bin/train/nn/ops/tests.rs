//! Every operator against burn's own operators and their gradients.

use burn::backend::Autodiff;
use burn::tensor::module::{conv_transpose2d, conv2d, interpolate};
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions, InterpolateMode, InterpolateOptions};
use burn::tensor::{Distribution, Tolerance};
use burn_flex::Flex;

use super::generic::{channels_last, channels_second, pad_same};
use super::*;

#[cfg(feature = "cuda")]
mod cuda;

type Ad = Autodiff<Flex>;

fn random<B: Backend, const D: usize>(shape: [usize; D]) -> Tensor<B, D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &B::Device::default())
}

fn assert_close<B: Backend, const D: usize>(got: Tensor<B, D>, want: Tensor<B, D>) {
    let tolerance = Tolerance::<f32>::rel_abs(1e-3, 1e-3);
    got.into_data()
        .assert_approx_eq::<f32>(&want.into_data(), tolerance);
}

/// A layer's shape: weight, stride, ReLU6.
type Shape = ([usize; 4], usize, bool);

/// A chain's test case: the input's shape, the layers', whether the input is added.
type Case = ([usize; 4], Vec<Shape>, bool);

/// Even and odd sides, both strides, channels that fill no vector and several, one image and more
/// than there are parts, a tile and several.
fn cases() -> Vec<Case> {
    let pointwise = |i, o| ([o, i, 1, 1], 1, true);
    let linear = |i, o| ([o, i, 1, 1], 1, false);
    let dense = |i, o, stride| ([o, i, 3, 3], stride, true);
    let depthwise = |c, stride| ([c, 1, 3, 3], stride, true);
    vec![
        ([2, 8, 8, 3], vec![dense(3, 5, 2)], false),
        ([1, 9, 7, 3], vec![dense(3, 16, 2)], false),
        ([3, 6, 5, 20], vec![dense(20, 7, 1), dense(7, 32, 1)], false),
        ([2, 7, 9, 5], vec![depthwise(5, 1), pointwise(5, 3)], false),
        ([11, 8, 6, 16], vec![depthwise(16, 2), linear(16, 8)], false),
        ([2, 5, 5, 24], vec![depthwise(24, 2), linear(24, 16)], false),
        (
            [3, 9, 9, 8],
            vec![pointwise(8, 48), depthwise(48, 1), linear(48, 8)],
            true,
        ),
        (
            [2, 9, 12, 8],
            vec![pointwise(8, 48), depthwise(48, 2), linear(48, 24)],
            false,
        ),
        ([1, 2, 2, 24], vec![linear(24, 120)], false),
        ([4, 3, 1, 7], vec![linear(7, 7)], true),
    ]
}

/// Weight, scale and shift.
type LayerParams<B> = (Tensor<B, 4>, Tensor<B, 1>, Tensor<B, 1>);

struct Params<B: Backend>(Vec<LayerParams<B>>);

impl Params<Flex> {
    fn random(shapes: &[Shape]) -> Self {
        let of = |&(weight, _, _): &Shape| {
            let scale = random::<Flex, 1>([weight[0]]) * 0.5 + 1.5;
            let shift = random::<Flex, 1>([weight[0]]) * 2.0;
            (random(weight), scale, shift)
        };
        Self(shapes.iter().map(of).collect())
    }

    fn leaves(&self) -> Params<Ad> {
        let of = |(weight, scale, shift): &LayerParams<Flex>| {
            (
                Tensor::from_inner(weight.clone()).require_grad(),
                Tensor::from_inner(scale.clone()).require_grad(),
                Tensor::from_inner(shift.clone()).require_grad(),
            )
        };
        Params(self.0.iter().map(of).collect())
    }
}

impl<B: Backend> Params<B> {
    fn chain(&self, shapes: &[Shape], residual: bool) -> Chain<B> {
        let layers = self.0.iter().zip(shapes);
        let layer =
            |((weight, scale, shift), &(_, stride, relu6)): (&LayerParams<B>, &Shape)| ConvNorm {
                weight: primitive(weight.clone()),
                scale: primitive(scale.clone()),
                shift: primitive(shift.clone()),
                epsilon: 1e-3,
                stride,
                relu6,
            };
        Chain {
            layers: layers.map(layer).collect(),
            residual,
        }
    }

    /// The chain of burn's convolution and of batch norm as the paper writes it; by known
    /// statistics if `known`.
    fn composed(
        &self,
        x: Tensor<B, 4>,
        shapes: &[Shape],
        residual: bool,
        known: bool,
    ) -> Tensor<B, 4> {
        let mut y = x.clone();
        for ((weight, scale, shift), &(shape, stride, relu6)) in self.0.iter().zip(shapes) {
            let groups = y.dims()[3] / shape[1];
            let options = ConvOptions::new([stride; 2], [0, 0], [1, 1], groups);
            let padded = if shape[2] == 3 {
                pad_same(y, stride)
            } else {
                y
            };
            let raw = conv2d(channels_second(padded), weight.clone(), None, options);
            let raw = channels_last(raw);
            let normal = if known { raw } else { standardise(raw) };
            let over = |t: &Tensor<B, 1>| t.clone().reshape([1, 1, 1, shape[0]]);
            y = normal * over(scale) + over(shift);
            if relu6 {
                y = y.clamp(0.0, 6.0);
            }
        }
        if residual { x + y } else { y }
    }
}

fn standardise<B: Backend>(x: Tensor<B, 4>) -> Tensor<B, 4> {
    let mean = |t: Tensor<B, 4>| t.mean_dim(0).mean_dim(1).mean_dim(2);
    let centred = x.clone() - mean(x);
    let variance = mean(centred.clone() * centred.clone());
    centred / (variance + 1e-3).sqrt()
}

#[test]
fn same_padding_is_tensorflows() {
    // total = (ceil(n / s) - 1) * s + 3 - n, the smaller half first.
    assert_eq!(same_padding(224, 1), (1, 1));
    assert_eq!(same_padding(224, 2), (0, 1));
    assert_eq!(same_padding(7, 2), (1, 1));
    assert_eq!(same_padding(1, 2), (1, 1));
}

#[test]
fn chains_have_the_values_and_gradients_of_burns_operators() {
    for (shape, shapes, residual) in cases() {
        let (x, params) = (random::<Flex, 4>(shape), Params::random(&shapes));
        let mut weights = None;
        let mut run = |fused: bool| {
            let x = Tensor::<Ad, 4>::from_inner(x.clone()).require_grad();
            let params = params.leaves();
            let y = if fused {
                chain(x.clone(), &params.chain(&shapes, residual)).0
            } else {
                params.composed(x.clone(), &shapes, residual, false)
            };
            // A loss whose gradient differs from pixel to pixel.
            let weights = weights
                .get_or_insert_with(|| random::<Flex, 4>(y.dims()))
                .clone();
            let grads = (y.clone() * Tensor::from_inner(weights)).sum().backward();
            let mut flat = vec![x.grad(&grads).expect("a leaf").flatten(0, 3)];
            for (weight, scale, shift) in &params.0 {
                flat.push(weight.grad(&grads).expect("a leaf").flatten(0, 3));
                flat.push(scale.grad(&grads).expect("a leaf"));
                flat.push(shift.grad(&grads).expect("a leaf"));
            }
            (y.inner(), flat)
        };
        let (got, want) = (run(true), run(false));
        assert_close(got.0, want.0);
        for (got, want) in got.1.into_iter().zip::<Vec<Tensor<Flex, 1>>>(want.1) {
            assert_close(got, want);
        }
    }
}

#[test]
fn a_chain_reports_the_moments_of_its_convolutions() {
    let (shape, shapes) = ([3, 6, 7, 8], [([24, 8, 1, 1], 1, true)]);
    let (x, params) = (random::<Flex, 4>(shape) + 0.5, Params::random(&shapes));
    let (_, statistics) = chain(x.clone(), &params.chain(&shapes, false));
    let options = ConvOptions::new([1, 1], [0, 0], [1, 1], 1);
    let raw = conv2d(channels_second(x), params.0[0].0.clone(), None, options);
    let raw = raw.swap_dims(0, 1).reshape([24, 3 * 6 * 7]);
    let (variance, mean) = raw.var_mean_bias(1);
    let [got_mean, got_inv_std] = statistics[0].clone();
    assert_close(got_mean, mean.reshape([24]));
    assert_close(got_inv_std, (variance + 1e-3).sqrt().recip().reshape([24]));
}

#[test]
fn chains_by_known_statistics_are_burns_operators() {
    for (shape, shapes, residual) in cases() {
        let (x, params) = (random::<Flex, 4>(shape), Params::random(&shapes));
        let got = chain_eval(x.clone(), &params.chain(&shapes, residual));
        assert_close(got, params.composed(x, &shapes, residual, true));
    }
}

#[test]
fn an_input_that_is_a_constant_gets_no_gradient_and_parameters_still_do() {
    for (shape, shapes, residual) in cases() {
        let (x, params) = (random::<Flex, 4>(shape), Params::random(&shapes));
        let run = |wanted: bool| {
            let x = Tensor::<Ad, 4>::from_inner(x.clone()).set_require_grad(wanted);
            let params = params.leaves();
            let (y, _) = chain(x, &params.chain(&shapes, residual));
            let grads = (y.clone() * y).sum().backward();
            params.0[0].0.grad(&grads).expect("a leaf")
        };
        assert_close(run(false), run(true));
    }
}

#[test]
fn the_generic_chain_agrees_with_the_cpu_back_end() {
    for (shape, shapes, residual) in cases() {
        let x = primitive(random::<Flex, 4>(shape));
        let chain = Params::random(&shapes).chain(&shapes, residual);
        let (a, b) = (
            Flex::chain(x.clone(), &chain),
            generic::chain::<Flex>(x.clone(), &chain),
        );
        let grad = random::<Flex, 4>(tensor::<Flex, 4>(a.output.clone()).dims());
        assert_close::<Flex, 4>(tensor(a.output), tensor(b.output));
        assert_close::<Flex, 4>(
            tensor(Flex::chain_eval(x.clone(), &chain)),
            tensor(generic::chain_eval::<Flex>(x.clone(), &chain)),
        );
        for wanted in [true, false] {
            let grad = primitive(grad.clone());
            let a = Flex::chain_grad(x.clone(), &chain, a.layers.clone(), grad.clone(), wanted);
            let b = generic::chain_grad::<Flex>(x.clone(), &chain, b.layers.clone(), grad, wanted);
            assert_eq!(a.input.is_some(), wanted);
            for (a, b) in a.input.into_iter().zip(b.input) {
                assert_close::<Flex, 4>(tensor(a), tensor(b));
            }
            for (a, b) in a.layers.into_iter().zip(b.layers) {
                assert_close::<Flex, 4>(tensor(a.weight), tensor(b.weight));
                assert_close::<Flex, 1>(tensor(a.scale), tensor(b.scale));
                assert_close::<Flex, 1>(tensor(a.shift), tensor(b.shift));
            }
        }
    }
}

#[test]
fn resampling_has_the_values_and_gradients_of_burns_operators() {
    let (x, skip) = (
        random::<Flex, 4>([3, 4, 3, 5]),
        random::<Flex, 4>([3, 8, 6, 5]),
    );
    let run = |fused: bool| {
        let x = Tensor::<Ad, 4>::from_inner(x.clone()).require_grad();
        let skip = Tensor::<Ad, 4>::from_inner(skip.clone()).require_grad();
        let y = if fused {
            upsample_add(x.clone(), skip.clone())
        } else {
            let options = InterpolateOptions::new(InterpolateMode::Nearest);
            channels_last(interpolate(channels_second(x.clone()), [8, 6], options)) + skip.clone()
        };
        let means = if fused {
            spatial_mean(y.clone())
        } else {
            y.clone().mean_dim(1).mean_dim(2).reshape([3, 5])
        };
        let loss = (y.clone() * y).sum() + (means.clone() * means.clone()).sum() * 10.0;
        let grads = loss.backward();
        let [dx, dskip] = [x, skip].map(|leaf| leaf.grad(&grads).expect("a leaf"));
        (means.inner(), dx, dskip)
    };
    let (got, want) = (run(true), run(false));
    assert_close(got.0, want.0);
    assert_close(got.1, want.1);
    assert_close(got.2, want.2);
}

#[test]
fn upsampling_repeats_pixels() {
    let x = Tensor::<Flex, 2>::from_floats([[1.0, 2.0], [3.0, 4.0]], &Default::default());
    let skip = Tensor::zeros([1, 4, 4, 1], &Default::default());
    let want = Tensor::<Flex, 2>::from_floats(
        [
            [1.0, 1.0, 2.0, 2.0],
            [1.0, 1.0, 2.0, 2.0],
            [3.0, 3.0, 4.0, 4.0],
            [3.0, 3.0, 4.0, 4.0],
        ],
        &Default::default(),
    );
    let up = upsample_add(x.reshape([1, 2, 2, 1]), skip);
    assert_close(up.reshape([4, 4]), want);
}

#[test]
fn doubling_has_the_values_and_gradients_of_burns_transposed_convolution() {
    for (shape, outputs) in [([2, 5, 4, 16], 1), ([3, 3, 5, 7], 6), ([1, 2, 2, 20], 16)] {
        let x = random::<Flex, 4>(shape);
        let weight = random::<Flex, 4>([shape[3], outputs, 2, 2]);
        let bias = random::<Flex, 1>([outputs]);
        let run = |fused: bool| {
            let x = Tensor::<Ad, 4>::from_inner(x.clone()).require_grad();
            let weight = Tensor::<Ad, 4>::from_inner(weight.clone()).require_grad();
            let bias = Tensor::<Ad, 1>::from_inner(bias.clone()).require_grad();
            let y = if fused {
                double(x.clone(), weight.clone(), bias.clone())
            } else {
                let options = ConvTransposeOptions::new([2, 2], [0, 0], [0, 0], [1, 1], 1);
                let x = channels_second(x.clone());
                channels_last(conv_transpose2d(
                    x,
                    weight.clone(),
                    Some(bias.clone()),
                    options,
                ))
            };
            let grads = (y.clone() * y.clone() * 0.5).sum().backward();
            let [dx, dw] = [x, weight].map(|leaf| leaf.grad(&grads).expect("a leaf"));
            (y.inner(), dx, dw, bias.grad(&grads).expect("a leaf"))
        };
        let (got, want) = (run(true), run(false));
        let (x, weight) = (primitive(x.clone()), primitive(weight.clone()));
        let generic = generic::double_grad::<Flex>(x, weight, primitive(got.0.clone()));
        assert_close(tensor(generic.input), want.1.clone());
        assert_close(tensor(generic.weight), want.2.clone());
        assert_close(tensor(generic.bias), want.3.clone());
        assert_close(got.0, want.0);
        assert_close(got.1, want.1);
        assert_close(got.2, want.2);
        assert_close(got.3, want.3);
    }
}

/// Every layer of [`cases`] by itself: the input's shape, and its own.
fn single_layers() -> Vec<([usize; 4], Shape)> {
    let cases = cases().into_iter();
    let layers = cases.flat_map(|([n, h, w, _], shapes, _)| {
        let inputs = |weight: [usize; 4]| match weight {
            [c, 1, 3, 3] => c,
            [_, i, _, _] => i,
        };
        let layer = move |shape: Shape| ([n, h, w, inputs(shape.0)], shape);
        shapes.into_iter().map(layer)
    });
    layers.collect()
}

/// Steps from a tie by which sums of 32-bit floats may miss it.
const NEAR: f32 = 1e-2;

/// 255 steps: a ReLU6's, or such that a normal variable is clipped at both ends.
fn grid(relu6: bool) -> Grid {
    let (step, low) = if relu6 {
        (6.0 / 255.0, 0.0)
    } else {
        (0.02, -108.0)
    };
    Grid {
        step,
        low: step * low,
        high: step * (low + 255.0),
    }
}

/// The definition, value by value.
fn rounded(value: f32, grid: Grid) -> f32 {
    (value.clamp(grid.low, grid.high) / grid.step).round_ties_even() * grid.step
}

/// Input, weight and bias for a layer, of a convolution whose output has a deviation near one.
fn layer_inputs(
    x: [usize; 4],
    weight: [usize; 4],
) -> (Tensor<Flex, 4>, Tensor<Flex, 4>, Tensor<Flex, 1>) {
    let fan_in = (weight[1] * weight[2] * weight[3]) as f32;
    let weights = random::<Flex, 4>(weight) / fan_in.sqrt();
    (random(x), weights, random::<Flex, 1>([weight[0]]))
}

/// burn's convolution, in TensorFlow's padding, and the bias.
fn biased_conv<B: Backend>(
    x: Tensor<B, 4>,
    weight: Tensor<B, 4>,
    bias: Tensor<B, 1>,
    stride: usize,
) -> Tensor<B, 4> {
    let [outputs, inputs, kernel, _] = weight.dims();
    let options = ConvOptions::new([stride; 2], [0, 0], [1, 1], x.dims()[3] / inputs);
    let x = if kernel == 3 { pad_same(x, stride) } else { x };
    channels_last(conv2d(channels_second(x), weight, None, options))
        + bias.reshape([1, 1, 1, outputs])
}

/// Whether `got` is `value` rounded: exactly, but for values that the rounding of sums may have
/// taken across a tie, `near` steps of it. Those may be one step off.
fn assert_rounded(got: Tensor<Flex, 4>, value: Tensor<Flex, 4>, grid: Grid, near: f32) {
    let floats = |t: Tensor<Flex, 4>| t.into_data().to_vec::<f32>().expect("f32");
    let (got, values) = (floats(got), floats(value));
    assert_eq!(got.len(), values.len());
    for (got, value) in got.into_iter().zip(values) {
        let (want, steps) = (rounded(value, grid), value / grid.step);
        let from_tie = ((steps - steps.floor()) - 0.5).abs();
        let on_grid = (got / grid.step).round_ties_even() * grid.step;
        assert!(got == on_grid, "{got} is not on {grid:?}");
        assert!((grid.low..=grid.high).contains(&got), "{got} off {grid:?}");
        let off = (got - want).abs() / grid.step;
        assert!(
            off == 0.0 || off < 1.01 && from_tie < near,
            "{value}: {got}, not {want}"
        );
    }
}

#[test]
fn rounded_convolutions_have_the_values_and_gradients_of_burns_operators() {
    for (shape, (weight, stride, relu6)) in single_layers() {
        let grid = grid(relu6);
        let (x, weight, bias) = layer_inputs(shape, weight);
        let mut weights = None;
        let mut run = |fused: bool| {
            let x = Tensor::<Ad, 4>::from_inner(x.clone()).require_grad();
            let weight = Tensor::<Ad, 4>::from_inner(weight.clone()).require_grad();
            let bias = Tensor::<Ad, 1>::from_inner(bias.clone()).require_grad();
            let (inputs, filter) = (x.clone(), weight.clone());
            // Rounding leaves the gradient alone, and a linear loss gives both the same upstream one.
            let y = if fused {
                rounded_conv(inputs, filter, bias.clone(), stride, grid)
            } else {
                biased_conv(inputs, filter, bias.clone(), stride).clamp(grid.low, grid.high)
            };
            let weights = weights
                .get_or_insert_with(|| random::<Flex, 4>(y.dims()))
                .clone();
            let grads = (y.clone() * Tensor::from_inner(weights)).sum().backward();
            let [dx, dw] = [x, weight].map(|leaf| leaf.grad(&grads).expect("a leaf"));
            (y.inner(), dx, dw, bias.grad(&grads).expect("a leaf"))
        };
        let (got, want) = (run(true), run(false));
        assert_rounded(got.0, want.0, grid, NEAR);
        assert_close(got.1, want.1);
        assert_close(got.2, want.2);
        assert_close(got.3, want.3);
    }
}

#[test]
fn the_generic_rounded_convolution_agrees_with_the_cpu_back_end() {
    for (shape, (weight, stride, relu6)) in single_layers() {
        let grid = grid(relu6);
        let (x, weight, bias) = layer_inputs(shape, weight);
        let value = biased_conv(x.clone(), weight.clone(), bias.clone(), stride);
        let grad = primitive(random::<Flex, 4>(value.dims()));
        let x = primitive(x);
        let conv = RoundedConv::<Flex> {
            weight: primitive(weight),
            bias: primitive(bias),
            stride,
            grid,
        };
        let a = Flex::rounded_conv(x.clone(), &conv);
        let b = generic::rounded_conv::<Flex>(x.clone(), &conv);
        assert_rounded(tensor(a.output), value.clone(), grid, NEAR);
        assert_rounded(tensor(b.output), value, grid, NEAR);
        assert_close::<Flex, 4>(tensor(a.raw.clone()), tensor(b.raw.clone()));
        for wanted in [true, false] {
            let (raw, grad) = (a.raw.clone(), grad.clone());
            let a = Flex::rounded_conv_grad(x.clone(), &conv, raw.clone(), grad.clone(), wanted);
            let b = generic::rounded_conv_grad::<Flex>(x.clone(), &conv, raw, grad, wanted);
            assert_eq!((a.input.is_some(), b.input.is_some()), (wanted, wanted));
            for (a, b) in a.input.into_iter().zip(b.input) {
                assert_close::<Flex, 4>(tensor(a), tensor(b));
            }
            assert_close::<Flex, 4>(tensor(a.weight), tensor(b.weight));
            assert_close::<Flex, 1>(tensor(a.bias), tensor(b.bias));
        }
    }
}

const HALVES: Grid = Grid {
    step: 0.5,
    low: -1.0,
    high: 2.0,
};
/// Values, what they become on a grid of halves from -1 to 2, and whether a gradient passes.
const ON_HALVES: [(f32, f32, bool); 12] = [
    (-7.0, -1.0, false),
    (-1.0, -1.0, false),
    (-0.875, -1.0, true),
    (-0.75, -1.0, true),
    (-0.25, 0.0, true),
    (0.25, 0.0, true),
    (0.375, 0.5, true),
    (0.75, 1.0, true),
    (1.25, 1.0, true),
    (1.875, 2.0, true),
    (2.0, 2.0, false),
    (9.0, 2.0, false),
];

#[test]
fn ties_go_to_the_even_step_and_what_is_at_an_end_gets_no_gradient() {
    let device = Default::default();
    let column = |values: [f32; 12]| Tensor::<Flex, 1>::from_floats(values, &device);
    let [x, rounded] = [
        column(ON_HALVES.map(|(x, _, _)| x)),
        column(ON_HALVES.map(|(_, y, _)| y)),
    ]
    .map(|values| values.reshape([1, 4, 3, 1]));
    let passed = column(ON_HALVES.map(|(_, _, passes)| if passes { 3.0 } else { 0.0 }));
    let passed = passed.reshape([1, 4, 3, 1]);
    let same = |got: FloatTensor<Flex>, want: &Tensor<Flex, 4>| {
        let got = tensor::<Flex, 4>(got).into_data();
        got.assert_eq(&want.clone().into_data(), true);
    };
    let (input, grad) = (primitive(x.clone()), primitive(x.full_like(3.0)));
    same(Flex::round_to(input.clone(), HALVES), &rounded);
    same(generic::round_to::<Flex>(input.clone(), HALVES), &rounded);
    same(
        Flex::round_to_grad(input.clone(), HALVES, grad.clone()),
        &passed,
    );
    same(
        generic::round_to_grad::<Flex>(input.clone(), HALVES, grad.clone()),
        &passed,
    );
    // A convolution by one, with a bias that moves the grid: exact in binary.
    let input = primitive(x + 8.0);
    let conv = RoundedConv::<Flex> {
        weight: primitive(Tensor::<Flex, 4>::ones([1, 1, 1, 1], &device)),
        bias: primitive(Tensor::<Flex, 1>::from_floats([-8.0], &device)),
        stride: 1,
        grid: HALVES,
    };
    let (a, b) = (
        Flex::rounded_conv(input.clone(), &conv),
        generic::rounded_conv::<Flex>(input.clone(), &conv),
    );
    same(a.output, &rounded);
    same(b.output, &rounded);
    let a = Flex::rounded_conv_grad(input.clone(), &conv, a.raw, grad.clone(), true);
    let b = generic::rounded_conv_grad::<Flex>(input, &conv, b.raw, grad, true);
    for back in [a, b] {
        same(back.input.expect("wanted"), &passed);
        let bias: Tensor<Flex, 1> = tensor(back.bias);
        assert_eq!(bias.into_scalar(), 8.0 * 3.0);
    }
}

/// Where multiplication by the inverse of the step would take the other side of a tie.
#[test]
fn rounding_divides_by_the_step() {
    for step in [0.1, 0.02, 6.0 / 255.0, 0.037] {
        let grid = Grid {
            step,
            low: step * -128.0,
            high: step * 127.0,
        };
        let near = |k: i32| {
            let tie = (k as f32 + 0.5) * step;
            [tie.next_down(), tie, tie.next_up(), step * k as f32]
        };
        let values: Vec<f32> = (-130..130).flat_map(near).collect();
        let want: Vec<f32> = values.iter().map(|&value| rounded(value, grid)).collect();
        let count = values.len();
        let x = Tensor::<Flex, 1>::from_floats(&*values, &Default::default());
        let got = round_to(x.reshape([2, 1, count / 10, 5]), grid);
        let got: Vec<f32> = got.into_data().to_vec().expect("f32");
        assert_eq!(got, want);
    }
}

#[test]
fn rounding_lets_the_gradient_straight_through() {
    for relu6 in [true, false] {
        let grid = grid(relu6);
        let x = random::<Flex, 4>([3, 5, 7, 6]) * 2.0;
        let weights = random::<Flex, 4>(x.dims());
        let run = |rounds: bool| {
            let x = Tensor::<Ad, 4>::from_inner(x.clone()).require_grad();
            let y = if rounds {
                round_to(x.clone(), grid)
            } else {
                x.clone().clamp(grid.low, grid.high)
            };
            let weights = Tensor::from_inner(weights.clone());
            let grads = (y.clone() * weights).sum().backward();
            (y.inner(), x.grad(&grads).expect("a leaf"))
        };
        let (got, want) = (run(true), run(false));
        assert_rounded(got.0, want.0, grid, NEAR);
        got.1.into_data().assert_eq(&want.1.into_data(), true);
    }
}

#[test]
fn results_repeat_to_the_bit() {
    let (shape, shapes) = (
        [9, 12, 12, 8],
        [
            ([48, 8, 1, 1], 1, true),
            ([48, 1, 3, 3], 1, true),
            ([8, 48, 1, 1], 1, false),
        ],
    );
    let x = primitive(random::<Flex, 4>(shape));
    let chain = Params::random(&shapes).chain(&shapes, true);
    let run = || {
        let Chained { output, layers } = Flex::chain(x.clone(), &chain);
        let back = Flex::chain_grad(x.clone(), &chain, layers, output.clone(), true);
        let mut tensors = vec![output, back.input.expect("wanted")];
        let params = back.layers.into_iter();
        tensors.extend(params.flat_map(|layer| [layer.weight, layer.scale, layer.shift]));
        let data = tensors.into_iter().map(|t| t.to_contiguous().into_data());
        data.collect::<Vec<_>>()
    };
    let first = run();
    for _ in 0..3 {
        assert_eq!(run(), first);
    }
}

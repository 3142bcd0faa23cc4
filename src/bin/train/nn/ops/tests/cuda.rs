//! The operators on a GPU against those on the CPU, which the other tests hold against burn's own.
//!
//! burn multiplies matrices of floats as TF32, with ten bits behind the point, on GPUs since Ampere: pointwise
//! convolutions and gradients of weights come out some 4e-4 off, its other convolutions do not. What lies that near
//! to an end of a ReLU6 passes its gradient or does not: so gradients are compared of single layers alone.

use burn::backend::{Autodiff, Cuda};
use burn::tensor::TensorData;

use super::*;
use crate::device;

/// What an output may be off, of its own size.
const OUTPUT: f64 = 2e-3;
/// What a gradient may be off where nothing is clipped.
const GRADIENT: f64 = 5e-3;
/// The same of a norm's gradient, from which most cancels out where there are few pixels.
const NORM_GRADIENT: f64 = 2e-2;
/// The same behind a ReLU6.
const CLIPPED_GRADIENT: f64 = 0.2;
/// Steps from a tie by which TF32 may miss it.
const NEAR_TF32: f32 = 0.15;

/// A leaf of the graph, on the back end that is tested.
fn leaf<B: FusedOps, const D: usize>(data: &Tensor<Flex, D>) -> Tensor<Autodiff<B>, D> {
    constant(data).require_grad()
}

fn constant<B: FusedOps, const D: usize>(data: &Tensor<Flex, D>) -> Tensor<Autodiff<B>, D> {
    Tensor::from_data(data.to_data(), &Default::default())
}

/// An output and gradients.
struct Values {
    output: TensorData,
    grads: Vec<TensorData>,
}

impl Values {
    /// Gradients of a loss that is another for each pixel, with respect to `maps` and `vectors`.
    fn of<B: FusedOps>(
        y: Tensor<Autodiff<B>, 4>,
        loss: &Tensor<Flex, 4>,
        maps: &[Tensor<Autodiff<B>, 4>],
        vectors: &[Tensor<Autodiff<B>, 1>],
    ) -> Self {
        let grads = (y.clone() * constant::<B, 4>(loss)).sum().backward();
        let maps = maps
            .iter()
            .map(|leaf| leaf.grad(&grads).expect("a leaf").into_data());
        let vectors = vectors
            .iter()
            .map(|leaf| leaf.grad(&grads).expect("a leaf").into_data());
        Self {
            output: y.into_data(),
            grads: maps.chain(vectors).collect(),
        }
    }

    fn assert_near(self, cpu: Self, gradient: f64, what: &str) {
        assert_near(self.output, cpu.output, OUTPUT, what);
        assert_eq!(self.grads.len(), cpu.grads.len());
        for (gpu, cpu) in self.grads.into_iter().zip(cpu.grads) {
            assert_near(gpu, cpu, gradient, what);
        }
    }
}

/// By the root of the sum of squares.
fn assert_near(gpu: TensorData, cpu: TensorData, most: f64, what: &str) {
    assert_eq!(gpu.shape, cpu.shape, "{what}");
    let [gpu, cpu] = [gpu, cpu].map(|data| data.convert::<f32>().to_vec::<f32>().expect("f32"));
    let size = |values: &mut dyn Iterator<Item = f32>| {
        let squares = values.map(|value| f64::from(value) * f64::from(value));
        squares.sum::<f64>().sqrt()
    };
    let error =
        size(&mut gpu.iter().zip(&cpu).map(|(a, b)| a - b)) / size(&mut cpu.iter().copied());
    println!("{what}: {error:.1e}");
    assert!(error <= most, "{what}: {error:.1e}");
}

/// [`single_layers`], and some as large as in the networks.
fn layers() -> Vec<([usize; 4], Shape)> {
    let mut layers = single_layers();
    layers.extend([
        ([4, 224, 224, 3], ([16, 3, 3, 3], 2, true)),
        ([8, 112, 112, 16], ([96, 16, 1, 1], 1, true)),
        ([8, 112, 112, 96], ([96, 1, 3, 3], 2, true)),
        ([8, 56, 56, 96], ([24, 96, 1, 1], 1, false)),
        ([8, 28, 28, 144], ([144, 1, 3, 3], 1, true)),
    ]);
    layers
}

#[test]
fn layers_agree_with_the_cpu() {
    fn run<B: FusedOps>(
        x: &Tensor<Flex, 4>,
        params: &Params<Flex>,
        shape: Shape,
        loss: &Tensor<Flex, 4>,
    ) -> (Values, Vec<TensorData>) {
        let x = leaf::<B, 4>(x);
        let (weight, scale, shift) = &params.0[0];
        let (weight, scale, shift) = (leaf::<B, 4>(weight), leaf(scale), leaf(shift));
        let layer = Params(vec![(weight.clone(), scale.clone(), shift.clone())]);
        let layer = layer.chain(&[shape], false);
        let (y, statistics) = chain(x.clone(), &layer);
        let values = Values::of::<B>(y, loss, &[x.clone(), weight], &[scale, shift]);
        // Of a channel that hardly varies the inverse is huge, and as far off.
        let others = statistics
            .into_iter()
            .flat_map(|[mean, inv_std]| [mean, inv_std.recip()]);
        let others = others.map(Tensor::into_data);
        let others = others.chain([chain_eval(x, &layer).into_data()]);
        (values, others.collect())
    }
    if !device::is_there() {
        return;
    }
    for (shape, layer) in layers() {
        let (x, params) = (random::<Flex, 4>(shape) + 0.5, Params::random(&[layer]));
        let loss = random(chain_eval(x.clone(), &params.chain(&[layer], false)).dims());
        let (gpu, gpu_others) = run::<Cuda>(&x, &params, layer, &loss);
        let (cpu, cpu_others) = run::<Flex>(&x, &params, layer, &loss);
        let what = format!("{shape:?} {layer:?}");
        let gradient = if layer.2 {
            CLIPPED_GRADIENT
        } else {
            NORM_GRADIENT
        };
        gpu.assert_near(cpu, gradient, &what);
        for (gpu, cpu) in gpu_others.into_iter().zip(cpu_others) {
            assert_near(gpu, cpu, OUTPUT, &what);
        }
    }
}

#[test]
fn outputs_of_chains_agree_with_the_cpu() {
    if !device::is_there() {
        return;
    }
    for (shape, shapes, residual) in cases() {
        let (x, params) = (random::<Flex, 4>(shape), Params::random(&shapes));
        let on_gpu = |(weight, scale, shift): &LayerParams<Flex>| {
            let weight = constant::<Cuda, 4>(weight).inner();
            (weight, constant(scale).inner(), constant(shift).inner())
        };
        let gpu_params = Params(params.0.iter().map(on_gpu).collect());
        let gpu = chain(
            constant::<Cuda, 4>(&x).inner(),
            &gpu_params.chain(&shapes, residual),
        )
        .0;
        let cpu = chain(x, &params.chain(&shapes, residual)).0;
        let what = format!("{shape:?} {shapes:?}");
        assert_near(gpu.into_data(), cpu.into_data(), OUTPUT, &what);
    }
}

#[test]
fn what_stands_between_chains_agrees_with_the_cpu() {
    fn run<B: FusedOps>(
        [x, skip, weight, loss]: [&Tensor<Flex, 4>; 4],
        bias: &Tensor<Flex, 1>,
    ) -> Values {
        let [x, skip, weight] = [x, skip, weight].map(leaf::<B, 4>);
        let bias = leaf::<B, 1>(bias);
        let up = upsample_add(x.clone(), skip.clone());
        let means = spatial_mean(up.clone());
        let [n, c] = means.dims();
        let sum = up + means.reshape([n, 1, 1, c]);
        let doubled = double(sum, weight.clone(), bias.clone());
        Values::of::<B>(doubled, loss, &[x, skip, weight], &[bias])
    }
    if !device::is_there() {
        return;
    }
    for (n, side, c, outputs) in [(3, 5, 7, 6), (4, 28, 16, 1)] {
        let [x, skip] = [side, 2 * side].map(|side| random([n, side, side, c]));
        let (weight, bias) = (random([c, outputs, 2, 2]), random([outputs]));
        let loss = random([n, 4 * side, 4 * side, outputs]);
        let maps = [&x, &skip, &weight, &loss];
        run::<Cuda>(maps, &bias).assert_near(
            run::<Flex>(maps, &bias),
            GRADIENT,
            &format!("{n} {side} {c} {outputs}"),
        );
    }
}

#[test]
fn rounded_convolutions_agree_with_the_cpu() {
    type Inputs = (Tensor<Flex, 4>, Tensor<Flex, 4>, Tensor<Flex, 1>);
    fn run<B: FusedOps>(
        (x, weight, bias): &Inputs,
        (stride, grid): (usize, Grid),
        loss: &Tensor<Flex, 4>,
    ) -> Values {
        let (x, weight, bias) = (leaf::<B, 4>(x), leaf::<B, 4>(weight), leaf::<B, 1>(bias));
        let y = rounded_conv(x.clone(), weight.clone(), bias.clone(), stride, grid);
        Values::of::<B>(y, loss, &[x, weight], &[bias])
    }
    if !device::is_there() {
        return;
    }
    for (shape, (weight, stride, relu6)) in single_layers() {
        let (grid, inputs) = (grid(relu6), layer_inputs(shape, weight));
        let value = biased_conv(inputs.0.clone(), inputs.1.clone(), inputs.2.clone(), stride);
        let loss = random(value.dims());
        let gpu = run::<Cuda>(&inputs, (stride, grid), &loss);
        let output = Tensor::from_data(gpu.output, &Default::default());
        assert_rounded(output, value, grid, NEAR_TF32);
        let cpu = run::<Flex>(&inputs, (stride, grid), &loss);
        for (gpu, cpu) in gpu.grads.into_iter().zip(cpu.grads) {
            assert_near(gpu, cpu, CLIPPED_GRADIENT, &format!("{shape:?} {weight:?}"));
        }
    }
}

#[test]
fn ties_go_to_the_even_step_on_the_gpu_too() {
    if !device::is_there() {
        return;
    }
    let x = Tensor::<Cuda, 1>::from_floats(ON_HALVES.map(|(x, _, _)| x), &Default::default());
    let got = round_to(x.reshape([1, 4, 3, 1]), HALVES);
    let got: Vec<f32> = got.into_data().to_vec().expect("f32");
    assert_eq!(got, ON_HALVES.map(|(_, y, _)| y));
}

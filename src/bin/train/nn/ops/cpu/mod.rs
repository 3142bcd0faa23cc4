//! [`FusedOps`] for the CPU back end: channels last, compiled for the vector units that are found
//! at run time.

mod channels;
mod depthwise;
mod double;
mod gemm;
mod layer;
mod layout;
mod resample;
mod spans;
mod window;

use burn_flex::{Flex, FlexTensor};

use self::channels::{Affine, AffineGrad, Sums};
use self::layer::{Input, Layer, OutputGrad};
use self::layout::{dense, dims, tensor, values, vector};
use super::{
    Chain, ChainGrads, Chained, ConvNorm, DoubleGrads, FusedOps, Grid, LayerGrads, Normed, Rounded,
    RoundedConv, RoundedGrads,
};
use crate::nn::profile::timed;

impl FusedOps for Flex {
    fn chain(x: FlexTensor, chain: &Chain<Self>) -> Chained<Self> {
        let mut source = Source::new(x);
        let x = source.raw.clone();
        let mut layers = Vec::with_capacity(chain.layers.len());
        for conv in &chain.layers {
            let layer = source.layer(conv);
            let (raw, sums) = source.run(&layer, conv);
            let count = layer.count() as f64;
            let (mean, inv_std): (Vec<f32>, Vec<f32>) = sums
                .into_iter()
                .map(|[sum, squares]| {
                    let mean = sum / count;
                    let variance = (squares / count - mean * mean).max(0.0);
                    let inv_std = 1.0 / (variance + f64::from(conv.epsilon)).sqrt();
                    (mean as f32, inv_std as f32)
                })
                .unzip();
            let affine = batch_affine(conv, &mean, &inv_std);
            source = Source::of(&layer, raw, affine);
            layers.push(Normed {
                raw: source.raw.clone(),
                mean: vector(mean),
                inv_std: vector(inv_std),
            });
        }
        let output = source.output(chain.residual.then_some(&x));
        Chained { output, layers }
    }

    fn chain_eval(x: FlexTensor, chain: &Chain<Self>) -> FlexTensor {
        let mut source = Source::new(x);
        let skip = chain.residual.then(|| source.raw.clone());
        for conv in &chain.layers {
            let layer = source.layer(conv);
            let (raw, _) = source.run(&layer, conv);
            let (scale, shift) = (dense(conv.scale.clone()), dense(conv.shift.clone()));
            let affine = Affine::new(values(&scale), values(&shift), conv.relu6);
            source = Source::of(&layer, raw, affine);
        }
        source.output(skip.as_ref())
    }

    fn chain_grad(
        x: FlexTensor,
        chain: &Chain<Self>,
        mut layers: Vec<Normed<Self>>,
        grad: FlexTensor,
        wants_input: bool,
    ) -> ChainGrads<Self> {
        let (x, upstream) = (dense(x), dense(grad));
        let shapes = shapes(&x, &layers);
        let affines: Vec<Affine> = chain
            .layers
            .iter()
            .zip(&layers)
            .map(|(conv, normed)| batch_affine(conv, values(&normed.mean), values(&normed.inv_std)))
            .collect();
        let mut grads = Vec::with_capacity(layers.len());
        // What reaches the layer's output, but for the last, and its sums.
        let mut passed = Vec::new();
        let mut sums = None;
        while let Some(normed) = layers.pop() {
            let index = layers.len();
            let (conv, affine) = (&chain.layers[index], &affines[index]);
            let weight = dense(conv.weight.clone());
            let layer = Layer::new(shapes[index], dims(&weight), conv.stride);
            let raw = values(&normed.raw);
            let last = index + 1 == chain.layers.len();
            let reaching = if last { values(&upstream) } else { &passed };
            let sums_here = sums.unwrap_or_else(|| {
                timed("norm sums", || count_passing(&layer, affine, raw, reaching))
            });
            let norm = NormGrad::new(&normed, &sums_here);
            let grad = OutputGrad {
                values: reaching,
                raw,
                norm: &norm.with_respect_to_input(affine, layer.count()),
            };
            let input = match layers.last() {
                None => Input {
                    values: values(&x),
                    norm: None,
                },
                Some(before) => Input {
                    values: values(&before.raw),
                    norm: Some(&affines[index - 1]),
                },
            };
            let skip = (chain.residual && index == 0).then(|| values(&upstream));
            let back = timed(layer.name_backward(), || {
                layer.backward(values(&weight), input, grad, skip, wants_input)
            });
            grads.push(LayerGrads {
                weight: tensor(back.weight, dims::<4>(&weight)),
                scale: vector(norm.gamma),
                shift: vector(norm.beta),
            });
            (passed, sums) = (back.input, Some(back.sums));
        }
        grads.reverse();
        ChainGrads {
            input: (!passed.is_empty()).then(|| tensor(passed, shapes[0])),
            layers: grads,
        }
    }

    fn upsample_add(x: FlexTensor, skip: FlexTensor) -> FlexTensor {
        timed("upsample", || resample::upsample_add(x, skip))
    }

    fn upsample_grad(grad: FlexTensor) -> FlexTensor {
        timed("upsample backward", || resample::upsample_grad(grad))
    }

    fn spatial_mean(x: FlexTensor) -> FlexTensor {
        timed("spatial mean", || resample::spatial_mean(x))
    }

    fn spatial_mean_grad(grad: FlexTensor, size: [usize; 2]) -> FlexTensor {
        timed("spatial mean backward", || {
            resample::spatial_mean_grad(grad, size)
        })
    }

    fn double(x: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> FlexTensor {
        timed("double", || double::forward(x, weight, bias))
    }

    fn double_grad(x: FlexTensor, weight: FlexTensor, grad: FlexTensor) -> DoubleGrads<Self> {
        timed("double backward", || double::backward(x, weight, grad))
    }

    fn rounded_conv(x: FlexTensor, conv: &RoundedConv<Self>) -> Rounded<Self> {
        let (x, weight, bias) = (
            dense(x),
            dense(conv.weight.clone()),
            dense(conv.bias.clone()),
        );
        let layer = Layer::new(dims(&x), dims(&weight), conv.stride);
        let input = Input {
            values: values(&x),
            norm: None,
        };
        let (raw, _) = timed(layer.name_forward(), || {
            layer.forward(values(&weight), input)
        });
        let shape = layer.out_shape();
        let output = timed("round", || {
            let biased = Affine::biased(values(&bias), conv.grid);
            resample::round(&biased, conv.grid.step, &raw, shape)
        });
        Rounded {
            output: tensor(output, shape),
            raw: tensor(raw, shape),
        }
    }

    fn rounded_conv_grad(
        x: FlexTensor,
        conv: &RoundedConv<Self>,
        raw: FlexTensor,
        grad: FlexTensor,
        wants_input: bool,
    ) -> RoundedGrads<Self> {
        let (x, grad) = (dense(x), dense(grad));
        let (weight, bias) = (dense(conv.weight.clone()), dense(conv.bias.clone()));
        let shape = dims(&x);
        let layer = Layer::new(shape, dims(&weight), conv.stride);
        let biased = Affine::biased(values(&bias), conv.grid);
        let (raw, grad) = (values(&raw), values(&grad));
        let sums = timed("bias sums", || count_passing(&layer, &biased, raw, grad));
        let input = Input {
            values: values(&x),
            norm: None,
        };
        let grad = OutputGrad {
            values: grad,
            raw,
            norm: &AffineGrad::of_known(&biased),
        };
        let back = timed(layer.name_backward(), || {
            layer.backward(values(&weight), input, grad, None, wants_input)
        });
        RoundedGrads {
            input: wants_input.then(|| tensor(back.input, shape)),
            weight: tensor(back.weight, dims::<4>(&weight)),
            bias: vector(sums.iter().map(|[sum, _]| *sum as f32).collect()),
        }
    }

    fn round_to(x: FlexTensor, grid: Grid) -> FlexTensor {
        let x = dense(x);
        let shape = dims(&x);
        timed("round", || {
            let clip = Affine::biased(&vec![0.0; shape[3]], grid);
            tensor(resample::round(&clip, grid.step, values(&x), shape), shape)
        })
    }

    fn round_to_grad(x: FlexTensor, grid: Grid, grad: FlexTensor) -> FlexTensor {
        let (x, grad) = (dense(x), dense(grad));
        let shape = dims(&x);
        timed("round backward", || {
            let clip = Affine::biased(&vec![0.0; shape[3]], grid);
            let norm = AffineGrad::of_known(&clip);
            let back = resample::round_grad(&norm, values(&x), values(&grad), shape);
            tensor(back, shape)
        })
    }
}

/// What the next layer of a chain reads.
struct Source {
    raw: FlexTensor,
    shape: [usize; 4],
    norm: Option<Affine>,
}

impl Source {
    fn new(x: FlexTensor) -> Self {
        let raw = dense(x);
        Self {
            shape: dims(&raw),
            raw,
            norm: None,
        }
    }

    fn layer(&self, conv: &ConvNorm<Flex>) -> Layer {
        Layer::new(self.shape, dims(&conv.weight), conv.stride)
    }

    fn run(&self, layer: &Layer, conv: &ConvNorm<Flex>) -> (Vec<f32>, Vec<[f64; 2]>) {
        let weight = dense(conv.weight.clone());
        let input = Input {
            values: values(&self.raw),
            norm: self.norm.as_ref(),
        };
        timed(layer.name_forward(), || {
            layer.forward(values(&weight), input)
        })
    }

    /// What a layer left.
    fn of(layer: &Layer, raw: Vec<f32>, norm: Affine) -> Self {
        let shape = layer.out_shape();
        Self {
            raw: tensor(raw, shape),
            shape,
            norm: Some(norm),
        }
    }

    /// The normalised activation, on top of `skip` if there is one.
    fn output(&self, skip: Option<&FlexTensor>) -> FlexTensor {
        let Some(norm) = &self.norm else {
            return self.raw.clone();
        };
        timed("norm", || {
            let out = resample::normalise(norm, values(&self.raw), skip.map(values), self.shape);
            tensor(out, self.shape)
        })
    }
}

/// Shapes `[N, H, W, C]` of what each layer reads.
fn shapes(x: &FlexTensor, layers: &[Normed<Flex>]) -> Vec<[usize; 4]> {
    let raws = layers.iter().map(|normed| &normed.raw);
    std::iter::once(x).chain(raws).map(dims).collect()
}

/// Batch norm as an affine map.
fn batch_affine(conv: &ConvNorm<Flex>, mean: &[f32], inv_std: &[f32]) -> Affine {
    let (gamma, beta) = (dense(conv.scale.clone()), dense(conv.shift.clone()));
    let scale: Vec<f32> = values(&gamma)
        .iter()
        .zip(inv_std)
        .map(|(gamma, inv_std)| gamma * inv_std)
        .collect();
    let shift: Vec<f32> = values(&beta)
        .iter()
        .zip(mean.iter().zip(&scale))
        .map(|(beta, (mean, scale))| beta - mean * scale)
        .collect();
    Affine::new(&scale, &shift, conv.relu6)
}

/// Batch norm's backward pass by channel (Ioffe and Szegedy 2015, section 3).
struct NormGrad<'a> {
    mean: &'a [f32],
    inv_std: &'a [f32],
    gamma: Vec<f32>,
    beta: Vec<f32>,
}

impl<'a> NormGrad<'a> {
    /// From sums of the gradient that passed the clip and of its products with the input.
    fn new(normed: &'a Normed<Flex>, sums: &[[f64; 2]]) -> Self {
        let (mean, inv_std) = (values(&normed.mean), values(&normed.inv_std));
        let statistics = mean.iter().zip(inv_std);
        let gamma = sums.iter().zip(statistics);
        let gamma = gamma.map(|([sum, product], (mean, inv_std))| {
            ((product - f64::from(*mean) * sum) * f64::from(*inv_std)) as f32
        });
        Self {
            mean,
            inv_std,
            gamma: gamma.collect(),
            beta: sums.iter().map(|[sum, _]| *sum as f32).collect(),
        }
    }

    fn with_respect_to_input<'b>(&self, forward: &'b Affine, count: usize) -> AffineGrad<'b> {
        let (scale, count) = (forward.scale(), count as f32);
        let slope = |c: usize| -scale[c] * self.inv_std[c] * self.gamma[c] / count;
        let offset = |c: usize| -scale[c] * self.beta[c] / count - self.mean[c] * slope(c);
        AffineGrad::new(forward, slope, offset)
    }
}

/// Sums per channel of a gradient that passes a clip, and of its products with `raw`.
fn count_passing(layer: &Layer, affine: &Affine, raw: &[f32], grad: &[f32]) -> Vec<[f64; 2]> {
    use rayon::prelude::*;

    let len = layer.part_len();
    let parts = raw
        .par_chunks(len)
        .zip(grad.par_chunks(len))
        .map(|(raw, grad)| {
            let mut sums = Sums::new(layer.outputs);
            affine.count_passing(raw, grad, &mut sums);
            sums
        })
        .collect();
    Sums::total(parts)
}

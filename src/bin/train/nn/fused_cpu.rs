//! [`FusedOps`] for the CPU back end: plain loops over planes, one plane per task, compiled for
//! the vector units that are found at run time.

use burn::tensor::TensorData;
use burn_flex::{Flex, FlexTensor};
use pulp::Arch;
use rayon::prelude::*;

use super::fused::{FusedOps, NormGrads, NormState, Normalised, same_padding};

impl FusedOps for Flex {
    fn depthwise(x: FlexTensor, weight: FlexTensor, stride: usize) -> FlexTensor {
        let [n, channels, height, width] = dims(&x);
        let plane = Plane::new(height, width, stride);
        let (x, weight) = (contiguous(x), contiguous(weight));
        let (x, taps) = (values(&x), values(&weight));
        let mut out = vec![0.0; n * channels * plane.out_len()];
        let arch = Arch::new();
        out.par_chunks_mut(plane.out_len())
            .enumerate()
            .for_each(|(i, out)| {
                let x = &x[i * plane.in_len()..][..plane.in_len()];
                let taps = nine(&taps[i % channels * 9..]);
                arch.dispatch(|| plane.convolve(x, taps, out));
            });
        tensor(out, &[n, channels, plane.out_height, plane.out_width])
    }

    fn depthwise_grad_input(
        x: FlexTensor,
        weight: FlexTensor,
        grad: FlexTensor,
        stride: usize,
    ) -> FlexTensor {
        let [n, channels, height, width] = dims(&x);
        let plane = Plane::new(height, width, stride);
        let (weight, grad) = (contiguous(weight), contiguous(grad));
        let (taps, grad) = (values(&weight), values(&grad));
        let mut out = vec![0.0; n * channels * plane.in_len()];
        let arch = Arch::new();
        out.par_chunks_mut(plane.in_len())
            .enumerate()
            .for_each(|(i, out)| {
                let grad = &grad[i * plane.out_len()..][..plane.out_len()];
                let taps = nine(&taps[i % channels * 9..]);
                arch.dispatch(|| plane.spread(grad, taps, out));
            });
        tensor(out, &[n, channels, height, width])
    }

    fn depthwise_grad_weight(x: FlexTensor, grad: FlexTensor, stride: usize) -> FlexTensor {
        let [n, channels, height, width] = dims(&x);
        let plane = Plane::new(height, width, stride);
        let (x, grad) = (contiguous(x), contiguous(grad));
        let (x, grad) = (values(&x), values(&grad));
        let mut out = vec![0.0; channels * 9];
        let arch = Arch::new();
        out.par_chunks_mut(9)
            .enumerate()
            .for_each(|(channel, out)| {
                for i in (0..n).map(|image| image * channels + channel) {
                    let x = &x[i * plane.in_len()..][..plane.in_len()];
                    let grad = &grad[i * plane.out_len()..][..plane.out_len()];
                    arch.dispatch(|| plane.correlate(x, grad, out));
                }
            });
        tensor(out, &[channels, 1, 3, 3])
    }

    fn norm_relu6(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        epsilon: f32,
        relu6: bool,
    ) -> Normalised<Self> {
        let shape = dims(&x);
        let [n, channels, height, width] = shape;
        let len = height * width;
        let count = (n * len) as f64;
        let (x, gamma, beta) = (contiguous(x), contiguous(gamma), contiguous(beta));
        let (x, gamma, beta) = (values(&x), values(&gamma), values(&beta));
        let arch = Arch::new();
        let (mean, inv_std): (Vec<f32>, Vec<f32>) = (0..channels)
            .into_par_iter()
            .map(|channel| {
                let (mut sum, mut squares) = (0.0, 0.0);
                for i in (0..n).map(|image| image * channels + channel) {
                    let (s, q) = arch.dispatch(|| moments(&x[i * len..][..len]));
                    sum += f64::from(s);
                    squares += f64::from(q);
                }
                let mean = sum / count;
                let variance = (squares / count - mean * mean).max(0.0);
                (
                    mean as f32,
                    (1.0 / (variance + f64::from(epsilon)).sqrt()) as f32,
                )
            })
            .unzip();
        let mut out = vec![0.0; x.len()];
        out.par_chunks_mut(len).enumerate().for_each(|(i, out)| {
            let channel = i % channels;
            let scale = gamma[channel] * inv_std[channel];
            let affine = Affine {
                scale,
                shift: beta[channel] - mean[channel] * scale,
                relu6,
            };
            arch.dispatch(|| affine.apply(&x[i * len..][..len], out));
        });
        Normalised {
            output: tensor(out, &shape),
            mean: tensor(mean, &[channels]),
            inv_std: tensor(inv_std, &[channels]),
        }
    }

    fn affine_relu6(
        x: FlexTensor,
        scale: FlexTensor,
        shift: FlexTensor,
        relu6: bool,
    ) -> FlexTensor {
        let shape = dims(&x);
        let [_, channels, height, width] = shape;
        let len = height * width;
        let (x, scale, shift) = (contiguous(x), contiguous(scale), contiguous(shift));
        let (x, scale, shift) = (values(&x), values(&scale), values(&shift));
        let arch = Arch::new();
        let mut out = vec![0.0; x.len()];
        out.par_chunks_mut(len).enumerate().for_each(|(i, out)| {
            let channel = i % channels;
            let affine = Affine {
                scale: scale[channel],
                shift: shift[channel],
                relu6,
            };
            arch.dispatch(|| affine.apply(&x[i * len..][..len], out));
        });
        tensor(out, &shape)
    }

    fn norm_relu6_grad(x: FlexTensor, state: NormState<Self>, grad: FlexTensor) -> NormGrads<Self> {
        let shape = dims(&x);
        let [n, channels, height, width] = shape;
        let len = height * width;
        let count = (n * len) as f32;
        let (x, grad) = (contiguous(x), contiguous(grad));
        let (gamma, beta) = (contiguous(state.gamma), contiguous(state.beta));
        let (mean, inv_std) = (contiguous(state.mean), contiguous(state.inv_std));
        let (x, grad) = (values(&x), values(&grad));
        let (gamma, beta) = (values(&gamma), values(&beta));
        let (mean, inv_std) = (values(&mean), values(&inv_std));
        let affine = |channel: usize| {
            let scale = gamma[channel] * inv_std[channel];
            Affine {
                scale,
                shift: beta[channel] - mean[channel] * scale,
                relu6: state.relu6,
            }
        };
        let arch = Arch::new();
        // Per channel: the sum of the unclipped gradient, and of its product with the normalised input.
        let (grad_beta, grad_gamma): (Vec<f32>, Vec<f32>) = (0..channels)
            .into_par_iter()
            .map(|channel| {
                let affine = affine(channel);
                let (mut sum, mut product) = (0.0, 0.0);
                for i in (0..n).map(|image| image * channels + channel) {
                    let span = i * len..(i + 1) * len;
                    let (s, p) = arch.dispatch(|| affine.grad_sums(&x[span.clone()], &grad[span]));
                    sum += f64::from(s);
                    product += f64::from(p);
                }
                let centred = product - f64::from(mean[channel]) * sum;
                (sum as f32, (centred * f64::from(inv_std[channel])) as f32)
            })
            .unzip();
        let mut out = vec![0.0; x.len()];
        out.par_chunks_mut(len).enumerate().for_each(|(i, out)| {
            let channel = i % channels;
            let affine = affine(channel);
            let span = i * len..(i + 1) * len;
            let slope = -affine.scale * inv_std[channel] * grad_gamma[channel] / count;
            let offset = -affine.scale * grad_beta[channel] / count - mean[channel] * slope;
            arch.dispatch(|| affine.grad_input(&x[span.clone()], &grad[span], slope, offset, out));
        });
        NormGrads {
            input: tensor(out, &shape),
            gamma: tensor(grad_gamma, &[channels]),
            beta: tensor(grad_beta, &[channels]),
        }
    }
}

/// Geometry of a 3x3 window sliding over one channel of one image.
struct Plane {
    height: usize,
    width: usize,
    out_height: usize,
    out_width: usize,
    stride: usize,
    top: usize,
    left: usize,
}

impl Plane {
    fn new(height: usize, width: usize, stride: usize) -> Self {
        Self {
            height,
            width,
            out_height: height.div_ceil(stride),
            out_width: width.div_ceil(stride),
            stride,
            top: same_padding(height, stride).0,
            left: same_padding(width, stride).0,
        }
    }

    fn in_len(&self) -> usize {
        self.height * self.width
    }

    fn out_len(&self) -> usize {
        self.out_height * self.out_width
    }

    /// Copies the input row under row `tap` of the window at output row `out_row` into `row`,
    /// where index 0 is the window's leftmost position; rows outside are zero.
    #[inline(always)]
    fn load_row(&self, x: &[f32], out_row: usize, tap: usize, row: &mut [f32]) {
        row.fill(0.0);
        if let Some(r) = self.input_row(out_row, tap) {
            row[self.left..][..self.width].copy_from_slice(&x[r * self.width..][..self.width]);
        }
    }

    #[inline(always)]
    fn input_row(&self, out_row: usize, tap: usize) -> Option<usize> {
        (out_row * self.stride + tap)
            .checked_sub(self.top)
            .filter(|&r| r < self.height)
    }

    fn row_buffer(&self) -> Vec<f32> {
        vec![0.0; self.width + 3]
    }

    #[inline(always)]
    fn convolve(&self, x: &[f32], k: &[f32; 9], out: &mut [f32]) {
        let mut rows = [self.row_buffer(), self.row_buffer(), self.row_buffer()];
        let n = self.out_width;
        for (out_row, out) in out.chunks_exact_mut(n).enumerate() {
            for (tap, row) in rows.iter_mut().enumerate() {
                self.load_row(x, out_row, tap, row);
            }
            let [a, b, c] = rows.each_ref().map(|r| r.as_slice());
            if self.stride == 1 {
                let (a, b, c) = (&a[..n + 2], &b[..n + 2], &c[..n + 2]);
                for j in 0..n {
                    out[j] = k[0] * a[j]
                        + k[1] * a[j + 1]
                        + k[2] * a[j + 2]
                        + k[3] * b[j]
                        + k[4] * b[j + 1]
                        + k[5] * b[j + 2]
                        + k[6] * c[j]
                        + k[7] * c[j + 1]
                        + k[8] * c[j + 2];
                }
            } else {
                for (j, out) in out.iter_mut().enumerate() {
                    let q = j * self.stride;
                    *out = k[0] * a[q]
                        + k[1] * a[q + 1]
                        + k[2] * a[q + 2]
                        + k[3] * b[q]
                        + k[4] * b[q + 1]
                        + k[5] * b[q + 2]
                        + k[6] * c[q]
                        + k[7] * c[q + 1]
                        + k[8] * c[q + 2];
                }
            }
        }
    }

    /// The adjoint of [`Plane::convolve`]: each output gradient is spread over its window.
    #[inline(always)]
    fn spread(&self, grad: &[f32], k: &[f32; 9], out: &mut [f32]) {
        if self.stride == 1 {
            let mut flipped = *k;
            flipped.reverse();
            return self.convolve(grad, &flipped, out);
        }
        let mut row = self.row_buffer();
        for (r, out) in out.chunks_exact_mut(self.width).enumerate() {
            row.fill(0.0);
            for tap in 0..3 {
                let Some(offset) = (r + self.top).checked_sub(tap) else {
                    continue;
                };
                let out_row = offset / self.stride;
                if !offset.is_multiple_of(self.stride) || out_row >= self.out_height {
                    continue;
                }
                let grad = &grad[out_row * self.out_width..][..self.out_width];
                for (j, g) in grad.iter().enumerate() {
                    let q = j * self.stride;
                    row[q] += k[tap * 3] * g;
                    row[q + 1] += k[tap * 3 + 1] * g;
                    row[q + 2] += k[tap * 3 + 2] * g;
                }
            }
            out.copy_from_slice(&row[self.left..][..self.width]);
        }
    }

    /// Adds to `out` the products of each window tap with the output gradients.
    #[inline(always)]
    fn correlate(&self, x: &[f32], grad: &[f32], out: &mut [f32]) {
        let n = self.out_width;
        let mut row = self.row_buffer();
        let mut columns = [vec![0.0; n], vec![0.0; n], vec![0.0; n]];
        for (out_row, grad) in grad.chunks_exact(n).enumerate() {
            for tap in 0..3 {
                if self.input_row(out_row, tap).is_none() {
                    continue;
                }
                self.load_row(x, out_row, tap, &mut row);
                let out = &mut out[tap * 3..][..3];
                if self.stride == 1 {
                    for (i, out) in out.iter_mut().enumerate() {
                        *out += dot(&row[i..i + n], grad);
                    }
                } else {
                    for (tap, column) in columns.iter_mut().enumerate() {
                        let strided = row[tap..].iter().step_by(self.stride);
                        column
                            .iter_mut()
                            .zip(strided)
                            .for_each(|(to, from)| *to = *from);
                    }
                    for (column, out) in columns.iter().zip(out) {
                        *out += dot(column, grad);
                    }
                }
            }
        }
    }
}

/// `y = x * scale + shift`, then ReLU6 if asked: batch norm of one channel.
struct Affine {
    scale: f32,
    shift: f32,
    relu6: bool,
}

impl Affine {
    #[inline(always)]
    fn apply(&self, x: &[f32], out: &mut [f32]) {
        if self.relu6 {
            for (y, x) in out.iter_mut().zip(x) {
                *y = (x * self.scale + self.shift).clamp(0.0, 6.0);
            }
        } else {
            for (y, x) in out.iter_mut().zip(x) {
                *y = x * self.scale + self.shift;
            }
        }
    }

    /// The gradient that reaches the affine map: none where ReLU6 clipped.
    #[inline(always)]
    fn pass(&self, x: f32, grad: f32) -> f32 {
        let y = x * self.scale + self.shift;
        if !self.relu6 || (y > 0.0 && y < 6.0) {
            grad
        } else {
            0.0
        }
    }

    /// Sums of the passed gradient and of its product with `x`.
    #[inline(always)]
    fn grad_sums(&self, x: &[f32], grad: &[f32]) -> (f32, f32) {
        let (mut sums, mut products) = ([0.0; LANES], [0.0; LANES]);
        let (x_lanes, x_rest) = x.as_chunks::<LANES>();
        let (grad_lanes, grad_rest) = grad.as_chunks::<LANES>();
        for (x, grad) in x_lanes.iter().zip(grad_lanes) {
            for l in 0..LANES {
                let g = self.pass(x[l], grad[l]);
                sums[l] += g;
                products[l] += g * x[l];
            }
        }
        let (mut sum, mut product) = (sums.iter().sum(), products.iter().sum());
        for (x, grad) in x_rest.iter().zip(grad_rest) {
            let g = self.pass(*x, *grad);
            sum += g;
            product += g * x;
        }
        (sum, product)
    }

    /// `out = passed gradient * scale + x * slope + offset`.
    #[inline(always)]
    fn grad_input(&self, x: &[f32], grad: &[f32], slope: f32, offset: f32, out: &mut [f32]) {
        for ((out, x), grad) in out.iter_mut().zip(x).zip(grad) {
            *out = self.pass(*x, *grad) * self.scale + x * slope + offset;
        }
    }
}

/// Partial sums kept side by side so that the compiler may use vector registers.
const LANES: usize = 16;

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    let (a_lanes, a_rest) = a.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for l in 0..LANES {
            sums[l] += a[l] * b[l];
        }
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

/// Sum and sum of squares.
#[inline(always)]
fn moments(x: &[f32]) -> (f32, f32) {
    let (mut sums, mut squares) = ([0.0; LANES], [0.0; LANES]);
    let (lanes, rest) = x.as_chunks::<LANES>();
    for x in lanes {
        for l in 0..LANES {
            sums[l] += x[l];
            squares[l] += x[l] * x[l];
        }
    }
    (
        sums.iter().sum::<f32>() + rest.iter().sum::<f32>(),
        squares.iter().sum::<f32>() + rest.iter().map(|x| x * x).sum::<f32>(),
    )
}

fn nine(taps: &[f32]) -> &[f32; 9] {
    taps.first_chunk()
        .expect("a depthwise weight has nine taps per channel")
}

fn dims(x: &FlexTensor) -> [usize; 4] {
    super::fused::rank4::<Flex>(x).dims()
}

fn contiguous(x: FlexTensor) -> FlexTensor {
    if x.is_contiguous() && x.layout().start_offset() == 0 {
        x
    } else {
        x.to_contiguous()
    }
}

fn values(x: &FlexTensor) -> &[f32] {
    x.storage::<f32>()
}

fn tensor(values: Vec<f32>, shape: &[usize]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.to_vec()))
}

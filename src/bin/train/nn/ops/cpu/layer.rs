//! One convolution forward and backward, batch norm's part of both fused into its loops.
//!
//! Activations are `[N, H, W, C]` in memory. A layer writes its convolution before batch norm and
//! counts the moments on the way; whoever reads it applies the norm while loading. Backward, a
//! layer turns the gradient after its norm into the one before it while loading, and lets what it
//! hands on pass the previous layer's clip while storing. So every activation is written once and
//! read once in each direction.
//!
//! Images are cut into as many parts as there are threads, twice over; sums over parts are added in
//! their order, which makes results repeat.

use aligned_vec::{AVec, avec};
use pulp::Arch;
use rayon::prelude::*;

use super::channels::{Affine, AffineGrad, Sums};
use super::depthwise::{FilterRow, SpreadRow};
use super::gemm::{Left, Packed, Product, Right, padded};
use super::window::{Place, Window};
use crate::nn::ops::same_padding;

/// Pixels of a tile: its rows stay in the first-level cache for most channel counts, and every
/// height of a register block divides it.
const TILE: usize = 48;

/// Which convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pointwise,
    /// 3x3.
    Dense,
    /// 3x3, each channel by itself.
    Depthwise,
}

/// A convolution's geometry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layer {
    kind: Kind,
    stride: usize,
    images: usize,
    inputs: usize,
    pub(super) outputs: usize,
    height: usize,
    width: usize,
    out_height: usize,
    out_width: usize,
    top: usize,
    left: usize,
}

/// What a layer reads: an activation, through the norm that belongs to it.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub(super) values: &'a [f32],
    pub(super) norm: Option<&'a Affine>,
}

/// The gradient after a layer's norm, with what it takes to get before it.
#[derive(Clone, Copy)]
pub(super) struct OutputGrad<'a> {
    pub(super) values: &'a [f32],
    /// The convolution's output.
    pub(super) raw: &'a [f32],
    pub(super) norm: &'a AffineGrad<'a>,
}

/// What a layer hands back.
pub(super) struct LayerGrads {
    /// As the weight, `[O, I / groups, K, K]`.
    pub(super) weight: Vec<f32>,
    /// With respect to the input before its norm's affine map but after its clip; none if not
    /// wanted.
    pub(super) input: Vec<f32>,
    /// Its sums and those of its products with the input, if that has a norm.
    pub(super) sums: Vec<[f64; 2]>,
}

impl Layer {
    /// A layer for `[N, H, W, I]` and a weight `[O, I / groups, K, K]`.
    pub(super) fn new([n, h, w, i]: [usize; 4], weight: [usize; 4], stride: usize) -> Self {
        let kind = match weight {
            [_, 1, 3, 3] => Kind::Depthwise,
            [_, _, 3, 3] => Kind::Dense,
            [_, _, 1, 1] if stride == 1 => Kind::Pointwise,
            _ => panic!("no such layer: weight {weight:?}, stride {stride}"),
        };
        let pad = |length| match kind {
            Kind::Pointwise => 0,
            _ => same_padding(length, stride).0,
        };
        Self {
            kind,
            stride,
            images: n,
            inputs: i,
            outputs: weight[0],
            height: h,
            width: w,
            out_height: h.div_ceil(stride),
            out_width: w.div_ceil(stride),
            top: pad(h),
            left: pad(w),
        }
    }

    /// Values of one image before and after.
    fn in_len(&self) -> usize {
        self.height * self.width * self.inputs
    }

    fn out_len(&self) -> usize {
        self.out_height * self.out_width * self.outputs
    }

    /// `[N, H, W, O]`.
    pub(super) fn out_shape(&self) -> [usize; 4] {
        [self.images, self.out_height, self.out_width, self.outputs]
    }

    /// Pixels over which batch norm averages.
    pub(super) fn count(&self) -> usize {
        self.images * self.out_height * self.out_width
    }

    /// Values of the output that one part has.
    pub(super) fn part_len(&self) -> usize {
        self.images_per_part() * self.out_len()
    }

    /// Names for a profile.
    pub(super) fn name_forward(&self) -> &'static str {
        match self.kind {
            Kind::Pointwise => "1x1",
            Kind::Dense => "3x3",
            Kind::Depthwise => "depthwise",
        }
    }

    pub(super) fn name_backward(&self) -> &'static str {
        match self.kind {
            Kind::Pointwise => "1x1 backward",
            Kind::Dense => "3x3 backward",
            Kind::Depthwise => "depthwise backward",
        }
    }

    fn images_per_part(&self) -> usize {
        self.images
            .div_ceil(2 * rayon::current_num_threads())
            .max(1)
    }

    fn weight_len(&self) -> usize {
        match self.kind {
            Kind::Pointwise => self.outputs * self.inputs,
            Kind::Dense => self.outputs * self.inputs * 9,
            Kind::Depthwise => self.outputs * 9,
        }
    }

    /// Row of the input under row `tap` of the window at output row `row`.
    fn input_row(&self, row: usize, tap: usize) -> Option<usize> {
        (row * self.stride + tap)
            .checked_sub(self.top)
            .filter(|&r| r < self.height)
    }

    /// Row of the output whose window has input row `row` under its row `tap`.
    fn output_row(&self, row: usize, tap: usize) -> Option<usize> {
        (row + self.top)
            .checked_sub(tap)
            .filter(|offset| offset.is_multiple_of(self.stride))
            .map(|offset| offset / self.stride)
            .filter(|&r| r < self.out_height)
    }

    /// The padded input under a window.
    fn input_place(&self, pitch: usize) -> Place {
        let span = (self.out_width - 1) * self.stride + 3;
        Place {
            channels: self.inputs,
            pitch,
            left: self.left,
            width: span.max(self.left + self.width),
            step: 1,
        }
    }

    /// The convolution's output and, for each channel, its sum and sum of squares.
    pub(super) fn forward(&self, weight: &[f32], input: Input<'_>) -> (Vec<f32>, Vec<[f64; 2]>) {
        let mut out = vec![0.0; self.images * self.out_len()];
        let per = self.images_per_part();
        let packed = self.pack_forward(weight);
        let parts = out
            .par_chunks_mut(per * self.out_len())
            .zip(input.values.par_chunks(per * self.in_len()))
            .map(|(out, values)| {
                let input = Input { values, ..input };
                let mut sums = Sums::new(self.outputs);
                match self.kind {
                    Kind::Pointwise => self.mix(&packed, input, out, &mut sums),
                    Kind::Dense => self.slide(&packed, input, out, &mut sums),
                    Kind::Depthwise => self.filter(&packed, input, out, &mut sums),
                }
                sums
            })
            .collect();
        (out, Sums::total(parts))
    }

    fn pack_forward(&self, weight: &[f32]) -> Weights {
        let (i, o) = (self.inputs, self.outputs);
        match self.kind {
            Kind::Pointwise => Weights::Products(vec![Packed::new(i, o, |k, n| weight[n * i + k])]),
            Kind::Dense => Weights::Products(
                (0..3)
                    .map(|ky| {
                        Packed::new(3 * i, o, |k, n| {
                            weight[((n * i + k % i) * 3 + ky) * 3 + k / i]
                        })
                    })
                    .collect(),
            ),
            Kind::Depthwise => Weights::Taps(self.pack_taps(weight)),
        }
    }

    /// `[9, C]`, whole groups.
    fn pack_taps(&self, weight: &[f32]) -> AVec<f32> {
        let width = padded(self.outputs);
        let mut taps = avec![0.0; 9 * width];
        for (channel, weight) in weight.chunks_exact(9).enumerate() {
            for (tap, value) in weight.iter().enumerate() {
                taps[tap * width + channel] = *value;
            }
        }
        taps
    }

    fn mix(&self, weights: &Weights, input: Input<'_>, out: &mut [f32], sums: &mut Sums) {
        let (i, o) = (self.inputs, self.outputs);
        let packed = &weights.products()[0];
        let mut normed = avec![0.0; TILE * i];
        let mut store = Store::new(o, TILE);
        for (x, out) in input.values.chunks(TILE * i).zip(out.chunks_mut(TILE * o)) {
            let pixels = x.len() / i;
            let x = match input.norm {
                Some(norm) => {
                    norm.apply(x, &mut normed[..x.len()]);
                    &normed[..x.len()]
                }
                None => x,
            };
            store.with(out, |c| {
                Arch::new().dispatch(Product {
                    m: pixels,
                    n: padded(o),
                    k: i,
                    a: Left {
                        values: x,
                        row_stride: i,
                        column_stride: 1,
                    },
                    b: packed.operand(i),
                    c,
                    accumulate: false,
                });
            });
            sums.add_moments(out);
        }
    }

    /// Dense 3x3: for each row of the window one product, whose left operand are the window's
    /// pixels as they lie.
    fn slide(&self, weights: &Weights, input: Input<'_>, out: &mut [f32], sums: &mut Sums) {
        let (i, o) = (self.inputs, self.outputs);
        let mut window = Window::new(self.input_place(i));
        let mut store = Store::new(o, self.out_width);
        let images = input.values.chunks_exact(self.in_len());
        for (x, out) in images.zip(out.chunks_exact_mut(self.out_len())) {
            window.reset();
            for (row, out) in out.chunks_exact_mut(self.out_width * o).enumerate() {
                self.load_inputs(&mut window, x, input.norm, row);
                store.with(out, |c| {
                    for (ky, packed) in weights.products().iter().enumerate() {
                        Arch::new().dispatch(Product {
                            m: self.out_width,
                            n: padded(o),
                            k: 3 * i,
                            a: Left {
                                values: window.row(self.input_row(row, ky)),
                                row_stride: self.stride * i,
                                column_stride: 1,
                            },
                            b: packed.operand(3 * i),
                            c: &mut *c,
                            accumulate: ky > 0,
                        });
                    }
                });
                sums.add_moments(out);
            }
        }
    }

    fn load_inputs(&self, window: &mut Window, x: &[f32], norm: Option<&Affine>, row: usize) {
        let len = self.width * self.inputs;
        for index in (0..3).filter_map(|tap| self.input_row(row, tap)) {
            window.load(index, self.width, |to| {
                let x = &x[index * len..][..len];
                match norm {
                    Some(norm) => norm.apply(x, to),
                    None => to.copy_from_slice(x),
                }
            });
        }
    }

    fn filter(&self, weights: &Weights, input: Input<'_>, out: &mut [f32], sums: &mut Sums) {
        let channels = self.inputs;
        let mut window = Window::new(self.input_place(padded(channels)));
        let mut store = Store::new(channels, self.out_width);
        let images = input.values.chunks_exact(self.in_len());
        for (x, out) in images.zip(out.chunks_exact_mut(self.out_len())) {
            window.reset();
            for (row, out) in out.chunks_exact_mut(self.out_width * channels).enumerate() {
                self.load_inputs(&mut window, x, input.norm, row);
                store.with(out, |out| {
                    Arch::new().dispatch(FilterRow {
                        rows: std::array::from_fn(|tap| window.row(self.input_row(row, tap))),
                        taps: weights.taps(),
                        channels: padded(channels),
                        stride: self.stride,
                        out,
                    });
                });
                sums.add_moments(out);
            }
        }
    }

    /// Gradients of weight and input; `skip` is added to the input's.
    pub(super) fn backward(
        &self,
        weight: &[f32],
        input: Input<'_>,
        grad: OutputGrad<'_>,
        skip: Option<&[f32]>,
        wants_input: bool,
    ) -> LayerGrads {
        let per = self.images_per_part();
        let wants_input = wants_input || input.norm.is_some();
        let mut input_grad = vec![0.0; if wants_input { input.values.len() } else { 0 }];
        let packed = self.pack_backward(weight);
        let mut slots: Vec<&mut [f32]> = input_grad.chunks_mut(per * self.in_len()).collect();
        let count = self.images.div_ceil(per);
        slots.resize_with(count, Default::default);
        let parts: Vec<(Sums, AVec<f32>)> = slots
            .into_par_iter()
            .enumerate()
            .map(|(part, out)| {
                let input = Input {
                    values: nth_chunk(input.values, per * self.in_len(), part),
                    ..input
                };
                let grad = OutputGrad {
                    values: nth_chunk(grad.values, per * self.out_len(), part),
                    raw: nth_chunk(grad.raw, per * self.out_len(), part),
                    ..grad
                };
                let skip = skip.map(|skip| nth_chunk(skip, per * self.in_len(), part));
                let mut sums = Sums::new(self.inputs);
                let weight_grad = match self.kind {
                    Kind::Pointwise => self.mix_back(&packed, input, grad, skip, out, &mut sums),
                    Kind::Dense => self.slide_back(&packed, input, grad, skip, out, &mut sums),
                    Kind::Depthwise => self.filter_back(&packed, input, grad, skip, out, &mut sums),
                };
                (sums, weight_grad)
            })
            .collect();
        let (sums, weight_grads): (Vec<Sums>, Vec<AVec<f32>>) = parts.into_iter().unzip();
        LayerGrads {
            weight: self.unpack_weight_grad(weight_grads),
            input: input_grad,
            sums: Sums::total(sums),
        }
    }

    fn pack_backward(&self, weight: &[f32]) -> Weights {
        let (i, o) = (self.inputs, self.outputs);
        match self.kind {
            Kind::Pointwise => Weights::Products(vec![Packed::new(o, i, |k, n| weight[k * i + n])]),
            // The window turned by half a turn.
            Kind::Dense => Weights::Products(
                (0..3)
                    .map(|ky| {
                        Packed::new(3 * o, i, |k, n| {
                            weight[((k % o * i + n) * 3 + 2 - ky) * 3 + 2 - k / o]
                        })
                    })
                    .collect(),
            ),
            Kind::Depthwise => Weights::Taps(self.pack_taps(weight)),
        }
    }

    /// Whether the pointwise weight's gradient has its inputs side by side, `[O, I]`, rather than
    /// `[I, O]`: whole groups are, if either has them.
    fn inputs_side_by_side(&self) -> bool {
        let whole = |channels| padded(channels) == channels;
        match (whole(self.inputs), whole(self.outputs)) {
            (true, true) => self.inputs >= self.outputs,
            (inputs, outputs) => inputs || !outputs,
        }
    }

    fn mix_back(
        &self,
        weights: &Weights,
        input: Input<'_>,
        grad: OutputGrad<'_>,
        skip: Option<&[f32]>,
        out: &mut [f32],
        sums: &mut Sums,
    ) -> AVec<f32> {
        let (i, o) = (self.inputs, self.outputs);
        let packed = &weights.products()[0];
        let (mut before, mut normed) = (avec![0.0; TILE * o], avec![0.0; TILE * i]);
        let mut wide = avec![0.0; TILE * padded(i)];
        let mut store = Store::new(i, TILE);
        let inputs_side_by_side = self.inputs_side_by_side();
        let (rows, columns) = if inputs_side_by_side { (o, i) } else { (i, o) };
        let mut weight_grad = avec![0.0; rows * padded(columns)];
        let mut out_tiles = out.chunks_mut(TILE * i);
        for (tile, x) in input.values.chunks(TILE * i).enumerate() {
            let pixels = x.len() / i;
            let before = &mut before[..pixels * o];
            let raw = nth_chunk(grad.raw, TILE * o, tile);
            grad.norm
                .apply(raw, nth_chunk(grad.values, TILE * o, tile), before);
            let source = match input.norm {
                Some(norm) => {
                    norm.apply(x, &mut normed[..x.len()]);
                    &normed[..x.len()]
                }
                None => x,
            };
            let (a, b) = if inputs_side_by_side {
                (&*before, widen(source, i, &mut wide))
            } else {
                (source, &*before)
            };
            Arch::new().dispatch(Product {
                m: rows,
                n: padded(columns),
                k: pixels,
                a: Left {
                    values: a,
                    row_stride: 1,
                    column_stride: rows,
                },
                b: Right::rows(b, padded(columns)),
                c: &mut weight_grad,
                accumulate: true,
            });
            let Some(out) = out_tiles.next() else {
                continue;
            };
            store.with(out, |c| {
                Arch::new().dispatch(Product {
                    m: pixels,
                    n: padded(i),
                    k: o,
                    a: Left {
                        values: before,
                        row_stride: o,
                        column_stride: 1,
                    },
                    b: packed.operand(o),
                    c,
                    accumulate: false,
                });
            });
            finish(
                x,
                input.norm,
                skip.map(|s| nth_chunk(s, TILE * i, tile)),
                out,
                sums,
            );
        }
        weight_grad
    }

    fn slide_back(
        &self,
        weights: &Weights,
        input: Input<'_>,
        grad: OutputGrad<'_>,
        skip: Option<&[f32]>,
        out: &mut [f32],
        sums: &mut Sums,
    ) -> AVec<f32> {
        let (i, o) = (self.inputs, self.outputs);
        let (in_row, out_row) = (self.width * i, self.out_width * o);
        let mut inputs = Window::new(self.input_place(i));
        // Stride 2 becomes zeros between the gradients. Input pixel q meets output pixel p under
        // tap q + left - p * stride, so that its three places start at q + left - 2 + `left`.
        let mut grads = Window::new(Place {
            channels: o,
            pitch: o,
            left: 2 - self.left,
            width: self.width + 4,
            step: self.stride,
        });
        let mut before = avec![0.0; self.out_width * o];
        let mut wide = avec![0.0; self.out_width * padded(o)];
        let mut weight_grad = avec![0.0; 9 * i * padded(o)];
        let mut store = Store::new(i, self.width);
        let mut outs = out.chunks_exact_mut(self.in_len());
        for (image, x) in input.values.chunks_exact(self.in_len()).enumerate() {
            let raw = nth_chunk(grad.raw, self.out_len(), image);
            let values = nth_chunk(grad.values, self.out_len(), image);
            let load = |row: usize, to: &mut [f32]| {
                let at = row * out_row..(row + 1) * out_row;
                grad.norm.apply(&raw[at.clone()], &values[at], to);
            };
            inputs.reset();
            for row in 0..self.out_height {
                self.load_inputs(&mut inputs, x, input.norm, row);
                load(row, &mut before);
                let b = widen(&before, o, &mut wide);
                for (ky, c) in weight_grad.chunks_exact_mut(3 * i * padded(o)).enumerate() {
                    let Some(source) = self.input_row(row, ky) else {
                        continue;
                    };
                    Arch::new().dispatch(Product {
                        m: 3 * i,
                        n: padded(o),
                        k: self.out_width,
                        a: Left {
                            values: inputs.row(Some(source)),
                            row_stride: 1,
                            column_stride: self.stride * i,
                        },
                        b: Right::rows(b, padded(o)),
                        c,
                        accumulate: true,
                    });
                }
            }
            let Some(out) = outs.next() else {
                continue;
            };
            grads.reset();
            for (row, out) in out.chunks_exact_mut(in_row).enumerate() {
                // Turned by half a turn: the last tap first.
                let reached: [Option<usize>; 3] =
                    std::array::from_fn(|ky| self.output_row(row, 2 - ky));
                for index in reached.into_iter().flatten() {
                    grads.load(index, self.out_width, |to| load(index, to));
                }
                store.with(out, |c| {
                    for (ky, packed) in weights.products().iter().enumerate() {
                        Arch::new().dispatch(Product {
                            m: self.width,
                            n: padded(i),
                            k: 3 * o,
                            a: Left {
                                values: grads.row(reached[ky]),
                                row_stride: o,
                                column_stride: 1,
                            },
                            b: packed.operand(3 * o),
                            c: &mut *c,
                            accumulate: ky > 0,
                        });
                    }
                });
                let at = row * in_row..(row + 1) * in_row;
                let skip = skip.map(|skip| &nth_chunk(skip, self.in_len(), image)[at.clone()]);
                finish(&x[at.clone()], input.norm, skip, out, sums);
            }
        }
        weight_grad
    }

    fn filter_back(
        &self,
        weights: &Weights,
        input: Input<'_>,
        grad: OutputGrad<'_>,
        skip: Option<&[f32]>,
        out: &mut [f32],
        sums: &mut Sums,
    ) -> AVec<f32> {
        let channels = self.inputs;
        let whole = padded(channels);
        let (in_row, out_row) = (self.width * channels, self.out_width * channels);
        let mut grads = Window::new(Place {
            channels,
            pitch: whole,
            left: 1,
            width: self.out_width + 3,
            step: 1,
        });
        let identity = Affine::identity(channels);
        let norm = input.norm.unwrap_or(&identity);
        let (mut scale, mut shift) = (avec![0.0; whole], avec![0.0; whole]);
        scale[..channels].copy_from_slice(norm.scale());
        shift[..channels].copy_from_slice(norm.shift());
        let mut wide = avec![0.0; self.width * whole];
        let mut scratch = vec![0.0; if out.is_empty() { in_row } else { 0 }];
        let mut store = Store::new(channels, self.width);
        let mut tap_grads = avec![0.0; 9 * whole];
        let (mut first, mut second) = (avec![0.0; whole], avec![0.0; whole]);
        for (image, x) in input.values.chunks_exact(self.in_len()).enumerate() {
            let raw = nth_chunk(grad.raw, self.out_len(), image);
            let values = nth_chunk(grad.values, self.out_len(), image);
            grads.reset();
            for (row, x) in x.chunks_exact(in_row).enumerate() {
                let reached: [Option<usize>; 3] =
                    std::array::from_fn(|tap| self.output_row(row, tap));
                for index in reached.into_iter().flatten() {
                    grads.load(index, self.out_width, |to| {
                        let at = index * out_row..(index + 1) * out_row;
                        grad.norm.apply(&raw[at.clone()], &values[at], to);
                    });
                }
                let at = (image * self.height + row) * in_row;
                let out = match out.get_mut(at..at + in_row) {
                    Some(out) => out,
                    None => &mut scratch,
                };
                let x_wide = widen(x, channels, &mut wide);
                store.with(out, |out| {
                    let mut spread = Spread {
                        layer: self,
                        reached,
                        grads: &grads,
                        taps: weights.taps(),
                        tap_grads: &mut tap_grads,
                        x: x_wide,
                        scale: &scale,
                        shift: &shift,
                        limits: (norm.low, norm.high),
                        out,
                        sums: &mut first,
                        products: &mut second,
                    };
                    for start in 0..self.stride.min(self.width) {
                        spread.pixels(row, start);
                    }
                });
                if let Some(skip) = skip {
                    for (out, skip) in out.iter_mut().zip(&skip[at..]) {
                        *out += skip;
                    }
                }
                let (to_first, to_second) = sums.parts();
                for (to, from) in [(to_first, &mut first), (to_second, &mut second)] {
                    for (to, from) in to.iter_mut().zip(&mut from[..channels]) {
                        *to += std::mem::take(from);
                    }
                }
                sums.count(in_row);
            }
        }
        tap_grads
    }

    /// Adds the parts of the weight's gradient and lays it out as the weight.
    fn unpack_weight_grad(&self, parts: Vec<AVec<f32>>) -> Vec<f32> {
        let (i, o) = (self.inputs, self.outputs);
        let mut parts = parts.into_iter();
        let mut sum = parts.next().expect("a batch has images");
        for part in parts {
            for (sum, part) in sum.iter_mut().zip(part.iter()) {
                *sum += part;
            }
        }
        let at = |index: usize| match self.kind {
            Kind::Pointwise if self.inputs_side_by_side() => index / i * padded(i) + index % i,
            Kind::Pointwise => index % i * padded(o) + index / i,
            Kind::Dense => {
                let (channel, output) = (index / 9 % i, index / 9 / i);
                let (ky, kx) = (index % 9 / 3, index % 3);
                ((ky * 3 + kx) * i + channel) * padded(o) + output
            }
            Kind::Depthwise => index % 9 * padded(o) + index / 9,
        };
        (0..self.weight_len()).map(|index| sum[at(index)]).collect()
    }
}

/// The state of one [`SpreadRow`] before the number of its taps is known.
struct Spread<'a> {
    layer: &'a Layer,
    reached: [Option<usize>; 3],
    grads: &'a Window,
    taps: &'a [f32],
    tap_grads: &'a mut [f32],
    x: &'a [f32],
    scale: &'a [f32],
    shift: &'a [f32],
    limits: (f32, f32),
    out: &'a mut [f32],
    sums: &'a mut [f32],
    products: &'a mut [f32],
}

impl Spread<'_> {
    /// Input pixels `start`, `start + stride` and so on of an input row.
    fn pixels(&mut self, row: usize, start: usize) {
        let Layer {
            stride, top, left, ..
        } = *self.layer;
        let meets = |at: usize, tap: usize| (at + tap).is_multiple_of(stride);
        let rows = (0..3).filter(|&ky| meets(row + top, ky));
        let taps: Vec<(usize, usize)> = rows
            .flat_map(|ky| (0..3).map(move |kx| (ky, kx)))
            .filter(|&(_, kx)| meets(start + left, kx))
            .collect();
        match taps.len() {
            9 => self.run::<9>(&taps, start),
            4 => self.run::<4>(&taps, start),
            2 => self.run::<2>(&taps, start),
            _ => self.run::<1>(&taps, start),
        }
    }

    fn run<const T: usize>(&mut self, taps: &[(usize, usize)], start: usize) {
        let Layer { stride, left, .. } = *self.layer;
        // One pixel of padding stands before the gradients.
        let at = |kx: usize| (start + left + stride - kx) / stride;
        Arch::new().dispatch(SpreadRow::<T> {
            rows: std::array::from_fn(|t| self.grads.row(self.reached[taps[t].0])),
            at: std::array::from_fn(|t| at(taps[t].1)),
            tap: std::array::from_fn(|t| taps[t].0 * 3 + taps[t].1),
            taps: self.taps,
            tap_grads: self.tap_grads,
            channels: self.scale.len(),
            first: start,
            step: stride,
            x: self.x,
            scale: self.scale,
            shift: self.shift,
            low: self.limits.0,
            high: self.limits.1,
            grad: self.out,
            sums: self.sums,
            products: self.products,
        });
    }
}

/// A weight as the loops read it.
enum Weights {
    Products(Vec<Packed>),
    /// `[9, C]`.
    Taps(AVec<f32>),
}

impl Weights {
    fn products(&self) -> &[Packed] {
        match self {
            Self::Products(products) => products,
            Self::Taps(_) => &[],
        }
    }

    fn taps(&self) -> &[f32] {
        match self {
            Self::Products(_) => &[],
            Self::Taps(taps) => taps,
        }
    }
}

/// Room for results whose channels are no whole groups.
struct Store {
    channels: usize,
    wide: AVec<f32>,
}

impl Store {
    fn new(channels: usize, pixels: usize) -> Self {
        let whole = padded(channels);
        let room = if whole == channels { 0 } else { pixels * whole };
        Self {
            channels,
            wide: avec![0.0; room],
        }
    }

    /// Has `work` write `[pixels, whole groups]` and leaves `[pixels, channels]` in `out`.
    fn with(&mut self, out: &mut [f32], work: impl FnOnce(&mut [f32])) {
        let whole = padded(self.channels);
        if whole == self.channels {
            return work(out);
        }
        let pixels = out.len() / self.channels;
        let wide = &mut self.wide[..pixels * whole];
        work(wide);
        for (out, wide) in out
            .chunks_exact_mut(self.channels)
            .zip(wide.chunks_exact(whole))
        {
            out.copy_from_slice(&wide[..self.channels]);
        }
    }
}

/// `[pixels, channels]` as `[pixels, whole groups]`, in `wide` if that differs.
fn widen<'a>(x: &'a [f32], channels: usize, wide: &'a mut [f32]) -> &'a [f32] {
    let whole = padded(channels);
    if whole == channels {
        return x;
    }
    let wide = &mut wide[..x.len() / channels * whole];
    for (wide, x) in wide.chunks_exact_mut(whole).zip(x.chunks_exact(channels)) {
        wide[..channels].copy_from_slice(x);
    }
    wide
}

/// What happens to an input's gradient before it is left: it passes the clip, and gets the skip's.
fn finish(
    x: &[f32],
    norm: Option<&Affine>,
    skip: Option<&[f32]>,
    out: &mut [f32],
    sums: &mut Sums,
) {
    if let Some(norm) = norm {
        norm.pass(x, out, sums);
    }
    if let Some(skip) = skip {
        for (out, skip) in out.iter_mut().zip(skip) {
            *out += skip;
        }
    }
}

fn nth_chunk(values: &[f32], len: usize, index: usize) -> &[f32] {
    let start = index * len;
    &values[start..(start + len).min(values.len())]
}

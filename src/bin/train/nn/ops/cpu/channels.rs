//! Batch norm, ReLU6 and rounding by channel, forward and backward, on pixels in a row, `[pixels, C]`.

use aligned_vec::{AVec, avec};
use pulp::{Arch, Simd};

use super::spans::{Map, Spans, repeat, span};
use crate::nn::ops::Grid;

/// `y = x * scale + shift`, clipped: to 0 to 6 by ReLU6, to its ends by a grid.
pub(super) struct Affine {
    channels: usize,
    scale: AVec<f32>,
    shift: AVec<f32>,
    pub(super) low: f32,
    pub(super) high: f32,
}

/// What [`Affine`] does to one vector.
#[derive(Clone, Copy)]
struct Clip {
    low: f32,
    high: f32,
}

impl Clip {
    #[inline(always)]
    fn forward<S: Simd>(self, simd: S, x: S::f32s, [scale, shift]: [S::f32s; 2]) -> S::f32s {
        let y = simd.mul_add_f32s(x, scale, shift);
        // In this order a NaN stays one.
        let y = simd.max_f32s(simd.splat_f32s(self.low), y);
        simd.min_f32s(simd.splat_f32s(self.high), y)
    }

    /// The gradient where nothing was clipped, else zero.
    #[inline(always)]
    fn pass<S: Simd>(
        self,
        simd: S,
        x: S::f32s,
        grad: S::f32s,
        [scale, shift]: [S::f32s; 2],
    ) -> S::f32s {
        let y = simd.mul_add_f32s(x, scale, shift);
        let (low, high) = (simd.splat_f32s(self.low), simd.splat_f32s(self.high));
        let inside = simd.and_m32s(simd.less_than_f32s(low, y), simd.less_than_f32s(y, high));
        simd.select_f32s(inside, grad, simd.splat_f32s(0.0))
    }
}

struct Forward(Clip);

impl Map<1, 2, 1, 0> for Forward {
    #[inline(always)]
    fn map<S: Simd>(
        &self,
        simd: S,
        [x]: [S::f32s; 1],
        affine: [S::f32s; 2],
        [y]: &mut [S::f32s; 1],
        []: &mut [S::f32s; 0],
    ) {
        *y = self.0.forward(simd, x, affine);
    }
}

impl Map<2, 2, 1, 0> for Forward {
    #[inline(always)]
    fn map<S: Simd>(
        &self,
        simd: S,
        [x, skip]: [S::f32s; 2],
        affine: [S::f32s; 2],
        [y]: &mut [S::f32s; 1],
        []: &mut [S::f32s; 0],
    ) {
        *y = simd.add_f32s(self.0.forward(simd, x, affine), skip);
    }
}

/// `1.5 * 2^23`: within `2^22` of it f32 has nothing but integers, to which a sum is rounded half to
/// even.
const INTEGERS: f32 = 12_582_912.0;

struct Round {
    clip: Clip,
    step: f32,
}

impl Map<1, 2, 1, 0> for Round {
    #[inline(always)]
    fn map<S: Simd>(
        &self,
        simd: S,
        [x]: [S::f32s; 1],
        affine: [S::f32s; 2],
        [y]: &mut [S::f32s; 1],
        []: &mut [S::f32s; 0],
    ) {
        let (step, integers) = (simd.splat_f32s(self.step), simd.splat_f32s(INTEGERS));
        let steps = simd.div_f32s(self.clip.forward(simd, x, affine), step);
        let whole = simd.sub_f32s(simd.add_f32s(steps, integers), integers);
        *y = simd.mul_f32s(whole, step);
    }
}

struct Pass(Clip);

impl Map<1, 2, 1, 2> for Pass {
    #[inline(always)]
    fn map<S: Simd>(
        &self,
        simd: S,
        [x]: [S::f32s; 1],
        affine: [S::f32s; 2],
        [grad]: &mut [S::f32s; 1],
        [first, second]: &mut [S::f32s; 2],
    ) {
        *grad = self.0.pass(simd, x, *grad, affine);
        *first = simd.add_f32s(*first, *grad);
        *second = simd.mul_add_f32s(*grad, x, *second);
    }
}

impl Map<2, 2, 0, 2> for Pass {
    #[inline(always)]
    fn map<S: Simd>(
        &self,
        simd: S,
        [x, grad]: [S::f32s; 2],
        affine: [S::f32s; 2],
        []: &mut [S::f32s; 0],
        [first, second]: &mut [S::f32s; 2],
    ) {
        let grad = self.0.pass(simd, x, grad, affine);
        *first = simd.add_f32s(*first, grad);
        *second = simd.mul_add_f32s(grad, x, *second);
    }
}

impl Affine {
    pub(super) fn new(scale: &[f32], shift: &[f32], relu6: bool) -> Self {
        let channels = scale.len();
        let (low, high) = if relu6 {
            (0.0, 6.0)
        } else {
            (f32::NEG_INFINITY, f32::INFINITY)
        };
        Self {
            channels,
            scale: repeat(channels, |c| scale[c]),
            shift: repeat(channels, |c| shift[c]),
            low,
            high,
        }
    }

    /// `x + bias`, clipped to the grid's ends.
    pub(super) fn biased(bias: &[f32], grid: Grid) -> Self {
        Self {
            low: grid.low,
            high: grid.high,
            ..Self::new(&vec![1.0; bias.len()], bias, false)
        }
    }

    /// Changes nothing.
    pub(super) fn identity(channels: usize) -> Self {
        Self::new(&vec![1.0; channels], &vec![0.0; channels], false)
    }

    pub(super) fn scale(&self) -> &[f32] {
        &self.scale[..self.channels]
    }

    pub(super) fn shift(&self) -> &[f32] {
        &self.shift[..self.channels]
    }

    fn clip(&self) -> Clip {
        Clip {
            low: self.low,
            high: self.high,
        }
    }

    pub(super) fn apply(&self, x: &[f32], out: &mut [f32]) {
        Arch::new().dispatch(Spans {
            map: Forward(self.clip()),
            read: [x],
            coefficients: [&self.scale, &self.shift],
            changed: [out],
            sums: [],
        });
    }

    /// [`Affine::apply`], then to the nearest multiple of `step`, fewer than `2^22` of them.
    pub(super) fn round(&self, step: f32, x: &[f32], out: &mut [f32]) {
        Arch::new().dispatch(Spans {
            map: Round {
                clip: self.clip(),
                step,
            },
            read: [x],
            coefficients: [&self.scale, &self.shift],
            changed: [out],
            sums: [],
        });
    }

    /// [`Affine::apply`], plus `skip`.
    pub(super) fn apply_and_add(&self, x: &[f32], skip: &[f32], out: &mut [f32]) {
        Arch::new().dispatch(Spans {
            map: Forward(self.clip()),
            read: [x, skip],
            coefficients: [&self.scale, &self.shift],
            changed: [out],
            sums: [],
        });
    }

    /// Lets a gradient pass where nothing was clipped, in place, and counts what passed: its sum
    /// and that of its products with `x`.
    pub(super) fn pass(&self, x: &[f32], grad: &mut [f32], sums: &mut Sums) {
        Arch::new().dispatch(Spans {
            map: Pass(self.clip()),
            read: [x],
            coefficients: [&self.scale, &self.shift],
            changed: [grad],
            sums: [&mut sums.first, &mut sums.second],
        });
        sums.count(x.len());
    }

    /// Counts what of a gradient would [`Affine::pass`].
    pub(super) fn count_passing(&self, x: &[f32], grad: &[f32], sums: &mut Sums) {
        for (x, grad) in sums.stretches(x).zip(sums.stretches(grad)) {
            Arch::new().dispatch(Spans {
                map: Pass(self.clip()),
                read: [x, grad],
                coefficients: [&self.scale, &self.shift],
                changed: [],
                sums: [&mut sums.first, &mut sums.second],
            });
            sums.count(x.len());
        }
    }
}

/// Batch norm's gradient with respect to its input, once the sums are known:
/// `passed gradient * scale + x * slope + offset`.
pub(super) struct AffineGrad<'a> {
    /// The map forward.
    forward: &'a Affine,
    slope: AVec<f32>,
    offset: AVec<f32>,
}

struct Back(Clip);

impl Map<2, 4, 1, 0> for Back {
    #[inline(always)]
    fn map<S: Simd>(
        &self,
        simd: S,
        [x, grad]: [S::f32s; 2],
        [scale, shift, slope, offset]: [S::f32s; 4],
        [out]: &mut [S::f32s; 1],
        []: &mut [S::f32s; 0],
    ) {
        let passed = self.0.pass(simd, x, grad, [scale, shift]);
        *out = simd.mul_add_f32s(passed, scale, simd.mul_add_f32s(x, slope, offset));
    }
}

impl<'a> AffineGrad<'a> {
    pub(super) fn new(
        forward: &'a Affine,
        slope: impl Fn(usize) -> f32,
        offset: impl Fn(usize) -> f32,
    ) -> Self {
        Self {
            slope: repeat(forward.channels, slope),
            offset: repeat(forward.channels, offset),
            forward,
        }
    }

    /// Of known statistics, which do not depend on the input.
    pub(super) fn of_known(forward: &'a Affine) -> Self {
        Self::new(forward, |_| 0.0, |_| 0.0)
    }

    pub(super) fn apply(&self, x: &[f32], grad: &[f32], out: &mut [f32]) {
        let Affine { scale, shift, .. } = self.forward;
        Arch::new().dispatch(Spans {
            map: Back(self.forward.clip()),
            read: [x, grad],
            coefficients: [scale, shift, &self.slope, &self.offset],
            changed: [out],
            sums: [],
        });
    }
}

/// Two sums per channel over pixels: in f32 over stretches, in f64 over all.
pub(super) struct Sums {
    channels: usize,
    first: AVec<f32>,
    second: AVec<f32>,
    /// Values since the last flush.
    values: usize,
    totals: Vec<[f64; 2]>,
}

/// Values per channel that are summed in f32.
const STRETCH: usize = 1024;

struct Moments;

impl Map<1, 0, 0, 2> for Moments {
    #[inline(always)]
    fn map<S: Simd>(
        &self,
        simd: S,
        [x]: [S::f32s; 1],
        []: [S::f32s; 0],
        []: &mut [S::f32s; 0],
        [first, second]: &mut [S::f32s; 2],
    ) {
        *first = simd.add_f32s(*first, x);
        *second = simd.mul_add_f32s(x, x, *second);
    }
}

impl Sums {
    pub(super) fn new(channels: usize) -> Self {
        let span = span(channels);
        Self {
            channels,
            first: avec![0.0; span],
            second: avec![0.0; span],
            values: 0,
            totals: vec![[0.0; 2]; channels],
        }
    }

    /// Pieces short enough to be added at once.
    fn stretches<'a>(&self, values: &'a [f32]) -> std::slice::Chunks<'a, f32> {
        values.chunks(STRETCH * self.channels)
    }

    /// The f32 sums, for kernels that add to them themselves and then [`Sums::count`].
    pub(super) fn parts(&mut self) -> (&mut [f32], &mut [f32]) {
        (&mut self.first, &mut self.second)
    }

    /// Notes that `values` were added.
    pub(super) fn count(&mut self, values: usize) {
        self.values += values;
        if self.values >= STRETCH * self.channels {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.values = 0;
        for (index, (first, second)) in self.first.iter_mut().zip(&mut *self.second).enumerate() {
            let total = &mut self.totals[index % self.channels];
            total[0] += f64::from(std::mem::take(first));
            total[1] += f64::from(std::mem::take(second));
        }
    }

    /// Adds values and their squares.
    pub(super) fn add_moments(&mut self, x: &[f32]) {
        Arch::new().dispatch(Spans {
            map: Moments,
            read: [x],
            coefficients: [],
            changed: [],
            sums: [&mut self.first, &mut self.second],
        });
        self.count(x.len());
    }

    /// The sums of all parts, added in their order.
    pub(super) fn total(parts: Vec<Self>) -> Vec<[f64; 2]> {
        let mut parts = parts.into_iter().map(|mut part| {
            part.flush();
            part.totals
        });
        let mut totals = parts.next().unwrap_or_default();
        for part in parts {
            for (total, part) in totals.iter_mut().zip(part) {
                total[0] += part[0];
                total[1] += part[1];
            }
        }
        totals
    }
}

//! Depthwise 3x3 convolution of a row of pixels, channels side by side in vectors.

use pulp::{Simd, WithSimd};

/// One output row.
pub(super) struct FilterRow<'a> {
    /// Padded input rows `[.., C]`, C whole groups.
    pub(super) rows: [&'a [f32]; 3],
    /// `[9, C]`.
    pub(super) taps: &'a [f32],
    pub(super) channels: usize,
    pub(super) stride: usize,
    /// `[W, C]`.
    pub(super) out: &'a mut [f32],
}

impl WithSimd for FilterRow<'_> {
    type Output = ();

    #[allow(clippy::needless_range_loop)]
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let vectors = self.channels / S::F32_LANES;
        let [first, second, third] = self.rows;
        let (first, _) = S::as_simd_f32s(first);
        let (second, _) = S::as_simd_f32s(second);
        let (third, _) = S::as_simd_f32s(third);
        let rows = [first, second, third];
        let (taps, _) = S::as_simd_f32s(self.taps);
        let (out, _) = S::as_mut_simd_f32s(self.out);
        let step = self.stride * vectors;
        for v in 0..vectors {
            // Loops over ranges: an iterator that is not inlined would push values out of registers.
            let mut own = [simd.splat_f32s(0.0); 9];
            for tap in 0..9 {
                own[tap] = taps[tap * vectors + v];
            }
            let (mut at, mut to) = (v, v);
            while to < out.len() {
                let mut sum = simd.mul_f32s(own[0], rows[0][at]);
                for tap in 1..9 {
                    let value = rows[tap / 3][at + tap % 3 * vectors];
                    sum = simd.mul_add_f32s(own[tap], value, sum);
                }
                out[to] = sum;
                at += step;
                to += vectors;
            }
        }
    }
}

/// What one row of input pixels gets back: gradients of the input and of the taps.
///
/// Of a window's nine taps, `T` reach an output pixel from these input pixels.
pub(super) struct SpreadRow<'a, const T: usize> {
    /// For each tap the padded row of output gradients that it reaches, `[.., C]`.
    pub(super) rows: [&'a [f32]; T],
    /// For each tap the pixel there that belongs to the first input pixel.
    pub(super) at: [usize; T],
    /// Which of the nine.
    pub(super) tap: [usize; T],
    /// `[9, C]`.
    pub(super) taps: &'a [f32],
    /// Gradients, to be added to.
    pub(super) tap_grads: &'a mut [f32],
    pub(super) channels: usize,
    /// The first input pixel, and from one to the next.
    pub(super) first: usize,
    pub(super) step: usize,
    /// The row before its affine map, `[W, C]`.
    pub(super) x: &'a [f32],
    pub(super) scale: &'a [f32],
    pub(super) shift: &'a [f32],
    /// Where the map clips.
    pub(super) low: f32,
    pub(super) high: f32,
    /// The gradient that passes the clip, `[W, C]`.
    pub(super) grad: &'a mut [f32],
    /// Sums over pixels of it, and of its products with `x`, `[C]`, to be added to.
    pub(super) sums: &'a mut [f32],
    pub(super) products: &'a mut [f32],
}

impl<const T: usize> WithSimd for SpreadRow<'_, T> {
    type Output = ();

    #[allow(clippy::needless_range_loop)]
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let vectors = self.channels / S::F32_LANES;
        let mut rows: [&[S::f32s]; T] = [&[]; T];
        for t in 0..T {
            (rows[t], _) = S::as_simd_f32s(self.rows[t]);
        }
        let (taps, _) = S::as_simd_f32s(self.taps);
        let (tap_grads, _) = S::as_mut_simd_f32s(self.tap_grads);
        let (x, _) = S::as_simd_f32s(self.x);
        let (scale, _) = S::as_simd_f32s(self.scale);
        let (shift, _) = S::as_simd_f32s(self.shift);
        let (grad, _) = S::as_mut_simd_f32s(self.grad);
        let (sums, _) = S::as_mut_simd_f32s(self.sums);
        let (products, _) = S::as_mut_simd_f32s(self.products);
        let (low, high) = (simd.splat_f32s(self.low), simd.splat_f32s(self.high));
        let zero = simd.splat_f32s(0.0);
        for v in 0..vectors {
            let (mut own, mut tap_sums) = ([zero; T], [zero; T]);
            let mut at = [0; T];
            for t in 0..T {
                own[t] = taps[self.tap[t] * vectors + v];
                tap_sums[t] = tap_grads[self.tap[t] * vectors + v];
                at[t] = self.at[t] * vectors + v;
            }
            let (scale, shift) = (scale[v], shift[v]);
            let (mut sum, mut product) = (sums[v], products[v]);
            let mut pixel = self.first * vectors + v;
            while pixel < x.len() {
                let x = x[pixel];
                let raw = simd.mul_add_f32s(x, scale, shift);
                let z = simd.min_f32s(high, simd.max_f32s(low, raw));
                let mut passed = zero;
                for t in 0..T {
                    let g = rows[t][at[t]];
                    passed = simd.mul_add_f32s(own[t], g, passed);
                    tap_sums[t] = simd.mul_add_f32s(z, g, tap_sums[t]);
                    at[t] += vectors;
                }
                let inside = simd.and_m32s(
                    simd.less_than_f32s(low, raw),
                    simd.less_than_f32s(raw, high),
                );
                passed = simd.select_f32s(inside, passed, zero);
                grad[pixel] = passed;
                pixel += self.step * vectors;
                sum = simd.add_f32s(sum, passed);
                product = simd.mul_add_f32s(passed, x, product);
            }
            for t in 0..T {
                tap_grads[self.tap[t] * vectors + v] = tap_sums[t];
            }
            (sums[v], products[v]) = (sum, product);
        }
    }
}

//! Loops over pixels in a row, `[pixels, C]`, with coefficients and sums by channel.
//!
//! A run of pixels starts with channel 0, so that what belongs to a channel repeats; it is kept in
//! spans of whole vectors, however many channels there are.

use aligned_vec::{AVec, avec};
use pulp::{Simd, WithSimd};

use super::gemm::GROUP;

/// Shortest span, which keeps loops over one long.
const SHORTEST: usize = 128;

/// Length of a span for so many channels: whole pixels and whole vectors.
pub(super) fn span(channels: usize) -> usize {
    let mut length = channels;
    while !length.is_multiple_of(GROUP) || length < SHORTEST {
        length += channels;
    }
    length
}

/// One value per channel, repeated to a span.
pub(super) fn repeat(channels: usize, value: impl Fn(usize) -> f32) -> AVec<f32> {
    let mut values = avec![0.0; span(channels)];
    for (index, to) in values.iter_mut().enumerate() {
        *to = value(index % channels);
    }
    values
}

/// What happens to a vector of `R` values read, with `K` coefficients, `W` values that it may
/// change and `A` sums that it may add to.
pub(super) trait Map<const R: usize, const K: usize, const W: usize, const A: usize> {
    fn map<S: Simd>(
        &self,
        simd: S,
        read: [S::f32s; R],
        coefficients: [S::f32s; K],
        changed: &mut [S::f32s; W],
        sums: &mut [S::f32s; A],
    );
}

/// A map over all of `read` and `changed`, which are equally long.
pub(super) struct Spans<'a, M, const R: usize, const K: usize, const W: usize, const A: usize> {
    pub(super) map: M,
    pub(super) read: [&'a [f32]; R],
    /// Spans.
    pub(super) coefficients: [&'a [f32]; K],
    pub(super) changed: [&'a mut [f32]; W],
    /// Spans.
    pub(super) sums: [&'a mut [f32]; A],
}

impl<M, const R: usize, const K: usize, const W: usize, const A: usize> WithSimd
    for Spans<'_, M, R, K, W, A>
where
    M: Map<R, K, W, A>,
{
    type Output = ();

    // Loops over ranges: an iterator that is not inlined would push values out of registers, and a
    // closure would not be compiled for the vector unit.
    #[allow(clippy::needless_range_loop)]
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let zero = simd.splat_f32s(0.0);
        let length = self.read[0].len();
        let span = if K > 0 {
            self.coefficients[0].len()
        } else {
            self.sums[0].len()
        };
        let mut start = 0;
        while start < length {
            let count = span.min(length - start);
            let vectors = count / S::F32_LANES;
            let (mut read, mut coefficients) = ([&[][..]; R], [&[][..]; K]);
            for r in 0..R {
                read[r] = &self.read[r][start..start + count];
            }
            for k in 0..K {
                coefficients[k] = &self.coefficients[k][..count];
            }
            for v in 0..vectors {
                let (mut values, mut factors) = ([zero; R], [zero; K]);
                let (mut changed, mut sums) = ([zero; W], [zero; A]);
                for r in 0..R {
                    values[r] = S::as_simd_f32s(read[r]).0[v];
                }
                for k in 0..K {
                    factors[k] = S::as_simd_f32s(coefficients[k]).0[v];
                }
                for w in 0..W {
                    let to = &self.changed[w][start..start + count];
                    changed[w] = S::as_simd_f32s(to).0[v];
                }
                for a in 0..A {
                    sums[a] = S::as_simd_f32s(&self.sums[a][..count]).0[v];
                }
                self.map.map(simd, values, factors, &mut changed, &mut sums);
                for w in 0..W {
                    let to = &mut self.changed[w][start..start + count];
                    S::as_mut_simd_f32s(to).0[v] = changed[w];
                }
                for a in 0..A {
                    S::as_mut_simd_f32s(&mut self.sums[a][..count]).0[v] = sums[a];
                }
            }
            let at = vectors * S::F32_LANES;
            if at < count {
                let (mut values, mut factors) = ([zero; R], [zero; K]);
                let (mut changed, mut sums) = ([zero; W], [zero; A]);
                for r in 0..R {
                    values[r] = simd.partial_load_f32s(&read[r][at..]);
                }
                for k in 0..K {
                    factors[k] = simd.partial_load_f32s(&coefficients[k][at..]);
                }
                for w in 0..W {
                    let to = &self.changed[w][start + at..start + count];
                    changed[w] = simd.partial_load_f32s(to);
                }
                for a in 0..A {
                    sums[a] = simd.partial_load_f32s(&self.sums[a][at..count]);
                }
                self.map.map(simd, values, factors, &mut changed, &mut sums);
                for w in 0..W {
                    let to = &mut self.changed[w][start + at..start + count];
                    simd.partial_store_f32s(to, changed[w]);
                }
                for a in 0..A {
                    simd.partial_store_f32s(&mut self.sums[a][at..count], sums[a]);
                }
            }
            start += count;
        }
    }
}

//! Arithmetic by channel on pixels in a row, `[pixels, C]`: batch norm forward and backward.
//!
//! A run of pixels starts with channel 0, so that coefficients repeat; they are kept in spans of
//! whole vectors, however many channels there are.

use pulp::Arch;

use super::gemm::GROUP;

/// Fewest coefficients in a span, which keeps loops over one long.
const SPAN: usize = 128;

/// Coefficients in a span for so many channels: whole pixels and whole vectors.
fn span(channels: usize) -> usize {
    let mut length = channels;
    while !length.is_multiple_of(GROUP) || length < SPAN {
        length += channels;
    }
    length
}

/// One value per channel, repeated to a span.
fn repeat(channels: usize, value: impl Fn(usize) -> f32) -> Vec<f32> {
    (0..span(channels)).map(|i| value(i % channels)).collect()
}

/// `y = x * scale + shift`, clipped to 0 to 6 by ReLU6.
pub(super) struct Affine {
    channels: usize,
    scale: Vec<f32>,
    shift: Vec<f32>,
    pub(super) low: f32,
    pub(super) high: f32,
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

    pub(super) fn apply(&self, x: &[f32], out: &mut [f32]) {
        let span = self.scale.len();
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for (x, out) in x.chunks(span).zip(out.chunks_mut(span)) {
                    let coefficients = self.scale.iter().zip(&self.shift);
                    for ((out, x), (scale, shift)) in out.iter_mut().zip(x).zip(coefficients) {
                        *out = (x * scale + shift).clamp(self.low, self.high);
                    }
                }
            },
        );
    }

    /// [`Affine::apply`], plus `skip`.
    pub(super) fn apply_and_add(&self, x: &[f32], skip: &[f32], out: &mut [f32]) {
        let span = self.scale.len();
        Arch::new().dispatch(
            #[inline(always)]
            || {
                let chunks = x.chunks(span).zip(skip.chunks(span));
                for ((x, skip), out) in chunks.zip(out.chunks_mut(span)) {
                    let coefficients = self.scale.iter().zip(&self.shift);
                    for (((out, x), skip), (scale, shift)) in
                        out.iter_mut().zip(x).zip(skip).zip(coefficients)
                    {
                        *out = (x * scale + shift).clamp(self.low, self.high) + skip;
                    }
                }
            },
        );
    }

    /// Lets a gradient pass where nothing was clipped, in place, and counts what passed.
    pub(super) fn pass(&self, x: &[f32], grad: &mut [f32], sums: &mut Sums) {
        let span = self.scale.len();
        let (low, high) = (self.low, self.high);
        sums.add(
            x.len(),
            #[inline(always)]
            |first, second| {
                for (x, grad) in x.chunks(span).zip(grad.chunks_mut(span)) {
                    let coefficients = self.scale.iter().zip(&self.shift);
                    let sums = first.iter_mut().zip(second.iter_mut());
                    for (((grad, x), (scale, shift)), (first, second)) in
                        grad.iter_mut().zip(x).zip(coefficients).zip(sums)
                    {
                        let y = x * scale + shift;
                        let passed = if y > low && y < high { *grad } else { 0.0 };
                        *grad = passed;
                        *first += passed;
                        *second += passed * x;
                    }
                }
            },
        );
    }

    /// Counts what of a gradient would [`Affine::pass`].
    pub(super) fn count_passing(&self, x: &[f32], grad: &[f32], sums: &mut Sums) {
        let span = self.scale.len();
        let (low, high) = (self.low, self.high);
        sums.add(
            x.len(),
            #[inline(always)]
            |first, second| {
                for (x, grad) in x.chunks(span).zip(grad.chunks(span)) {
                    let coefficients = self.scale.iter().zip(&self.shift);
                    let sums = first.iter_mut().zip(second.iter_mut());
                    for (((grad, x), (scale, shift)), (first, second)) in
                        grad.iter().zip(x).zip(coefficients).zip(sums)
                    {
                        let y = x * scale + shift;
                        let passed = if y > low && y < high { *grad } else { 0.0 };
                        *first += passed;
                        *second += passed * x;
                    }
                }
            },
        );
    }
}

/// Batch norm's gradient with respect to its input, once the sums are known:
/// `passed gradient * scale + x * slope + offset`.
pub(super) struct AffineGrad<'a> {
    /// The map forward.
    forward: &'a Affine,
    slope: Vec<f32>,
    offset: Vec<f32>,
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

    pub(super) fn apply(&self, x: &[f32], grad: &[f32], out: &mut [f32]) {
        let span = self.slope.len();
        let Affine {
            scale,
            shift,
            low,
            high,
            ..
        } = self.forward;
        let (low, high) = (*low, *high);
        Arch::new().dispatch(
            #[inline(always)]
            || {
                let chunks = x.chunks(span).zip(grad.chunks(span));
                for ((x, grad), out) in chunks.zip(out.chunks_mut(span)) {
                    let forward = scale.iter().zip(shift);
                    let backward = self.slope.iter().zip(&self.offset);
                    for ((((out, x), grad), (scale, shift)), (slope, offset)) in
                        out.iter_mut().zip(x).zip(grad).zip(forward).zip(backward)
                    {
                        let y = x * scale + shift;
                        let passed = if y > low && y < high { *grad } else { 0.0 };
                        *out = passed * scale + x * slope + offset;
                    }
                }
            },
        );
    }
}

/// Two sums per channel over pixels: in f32 over stretches, in f64 over all.
pub(super) struct Sums {
    channels: usize,
    first: Vec<f32>,
    second: Vec<f32>,
    /// Values since the last flush.
    values: usize,
    totals: Vec<[f64; 2]>,
}

/// Values per channel that are summed in f32.
const STRETCH: usize = 1024;

impl Sums {
    pub(super) fn new(channels: usize) -> Self {
        let span = span(channels);
        Self {
            channels,
            first: vec![0.0; span],
            second: vec![0.0; span],
            values: 0,
            totals: vec![[0.0; 2]; channels],
        }
    }

    #[inline(always)]
    fn add(&mut self, values: usize, work: impl FnOnce(&mut [f32], &mut [f32])) {
        let (first, second) = (&mut self.first[..], &mut self.second[..]);
        Arch::new().dispatch(
            #[inline(always)]
            || work(first, second),
        );
        self.count(values);
    }

    /// The f32 sums of the first `channels` places, for kernels that add to them themselves and
    /// then [`Sums::count`].
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
        for (index, (first, second)) in self.first.iter_mut().zip(&mut self.second).enumerate() {
            let total = &mut self.totals[index % self.channels];
            total[0] += f64::from(std::mem::take(first));
            total[1] += f64::from(std::mem::take(second));
        }
    }

    /// Adds values and their squares.
    pub(super) fn add_moments(&mut self, x: &[f32]) {
        let span = self.first.len();
        self.add(
            x.len(),
            #[inline(always)]
            |first, second| {
                for x in x.chunks(span) {
                    let sums = first.iter_mut().zip(second.iter_mut());
                    for (x, (first, second)) in x.iter().zip(sums) {
                        *first += x;
                        *second += x * x;
                    }
                }
            },
        );
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

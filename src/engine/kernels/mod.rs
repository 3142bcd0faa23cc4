//! The inner loops, one file for each kind of processor. All give the same bytes.
//!
//! A kernel works on rows of maps and knows nothing of graphs. Shapes are checked where these types are
//! made and at the entry of each function, so that the loops need not.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_dot;
mod portable;
#[cfg(test)]
mod tests;

use std::fmt;

use super::arithmetic::{Range, Sum};

/// The kernel that every other one is compared with, and that runs everywhere.
static PORTABLE: &dyn Kernel = &portable::Portable;

/// The kernels that this processor can run, fastest first.
pub(super) fn runnable() -> Vec<&'static dyn Kernel> {
    let mut kernels: Vec<&'static dyn Kernel> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if avx512::runs() {
            kernels.push(&avx512::Avx512);
        }
        if is_x86_feature_detected!("avx2") {
            kernels.push(&avx2::Avx2);
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        if neon_dot::runs() {
            kernels.push(&neon::Neon(neon_dot::Dot));
        }
        kernels.push(&neon::Neon(neon::Long));
    }
    kernels.push(PORTABLE);
    kernels
}

/// Loops for one kind of processor.
pub(super) trait Kernel: fmt::Debug + Send + Sync {
    /// As `SHIPWATCH_KERNEL` has it.
    fn name(&self) -> &'static str;

    /// The weight `[outputs, depth]` of a dense convolution, in the order in which [`Kernel::dense`] reads
    /// it; `depth` is a multiple of 4.
    fn pack_dense(&self, weight: &[i8], depth: usize) -> Lines;

    /// Convolves patches: the outputs of patch `i` go to `out[i * outputs..][..outputs]`.
    fn dense(&self, layer: &Dense, patches: Patches, out: &mut [u8]);

    /// The weight `[channels, 9]` of a depthwise convolution, in the order in which [`Kernel::depthwise`]
    /// reads it.
    fn pack_depthwise(&self, weight: &[i8]) -> Lines;

    /// Bytes that [`Kernel::depthwise`] needs to work on rows of `width` pixels that go in.
    fn depthwise_scratch(&self, width: usize) -> usize;

    /// Convolves rows of a map into a row or two of another, which lie in `out` one behind the other.
    fn depthwise(&self, layer: &Depthwise, rows: Rows, out: &mut [u8], scratch: &mut [u8]);

    /// Adds two maps byte by byte.
    fn add(&self, sum: &Sum, a: &[u8], b: &[u8], out: &mut [u8]) {
        portable::add(sum, a, b, out);
    }

    /// The mean of each channel of `pixels`; `out` is a pixel.
    fn pool(&self, pool: &Pool, pixels: &[u8], out: &mut [u8]) {
        portable::pool(pool, pixels, out);
    }
}

/// 64 bytes that start where a cache line does.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(super) struct Line(pub(super) [i8; 64]);

/// Packed weights.
pub(super) type Lines = Vec<Line>;

/// How sums become bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rounding {
    /// Zero point of what comes out.
    pub(super) zero: u8,
    /// What may come out.
    pub(super) range: Range,
}

/// A dense convolution, ready to run.
#[derive(Debug)]
pub(super) struct Dense {
    /// As the kernel packed it.
    pub(super) weight: Lines,
    /// Bytes of a patch.
    pub(super) depth: usize,
    /// Bytes of an output pixel.
    pub(super) outputs: usize,
    /// With the share of the input's zero point; of a whole number of lines, as `multipliers` is.
    pub(super) bias: Vec<i32>,
    pub(super) multipliers: Vec<f32>,
    pub(super) rounding: Rounding,
}

/// Patches of a map's rows: patch `i` is the bytes `[i * step..][..depth / rows]` of each row, one row
/// behind the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patches<'a> {
    /// One row or three.
    pub(super) rows: &'a [&'a [u8]],
    pub(super) step: usize,
    pub(super) count: usize,
}

/// A depthwise convolution, ready to run.
#[derive(Debug)]
pub(super) struct Depthwise {
    /// As the kernel packed it.
    pub(super) weight: Lines,
    pub(super) channels: usize,
    /// 1 or 2.
    pub(super) stride: usize,
    /// Columns of padding left of a row, 0 or 1.
    pub(super) left: usize,
    /// The byte of padding.
    pub(super) padding: u8,
    /// As [`Dense::bias`].
    pub(super) bias: Vec<i32>,
    /// As [`Dense::multipliers`].
    pub(super) multipliers: Vec<f32>,
    pub(super) rounding: Rounding,
}

/// A mean over pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pool {
    /// Zero point of the pixels.
    pub(super) zero: u8,
    /// What a step of the sum over all pixels is worth.
    pub(super) multiplier: f32,
    pub(super) rounding: Rounding,
}

/// Rows of a map, each `[width, channels]`: the first three make a row of output, the last three make the
/// next one, if one more is asked for; of stride 2 none is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) rows: [&'a [u8]; 4],
    /// Pixels of a row that goes in.
    pub(super) width: usize,
    /// Pixels of a row that comes out; the last one reaches one column of padding at most.
    pub(super) outputs: usize,
    /// Rows that come out, 1 or 2.
    pub(super) count: usize,
}

/// Channels that bias and multipliers are padded to.
pub(super) const PADDED: usize = 64;

impl Dense {
    /// Checks what [`Kernel::dense`] relies on, and says how many bytes of each row a patch has.
    ///
    /// # Panics
    /// If something is too short.
    fn check(&self, patches: &Patches, out: &[u8]) -> usize {
        let Patches { rows, step, count } = *patches;
        assert!(rows.len() == 1 || rows.len() == 3);
        assert!(self.depth.is_multiple_of(4 * rows.len()));
        let run = self.depth / rows.len();
        let padded = self.outputs.next_multiple_of(PADDED);
        assert!(self.bias.len() >= padded && self.multipliers.len() >= padded);
        let reach = count.checked_sub(1).map_or(0, |last| last * step + run);
        assert!(rows.iter().all(|row| row.len() >= reach));
        assert!(out.len() == count * self.outputs);
        run
    }
}

impl Depthwise {
    /// Checks what [`Kernel::depthwise`] relies on.
    ///
    /// # Panics
    /// If something is too short.
    fn check(&self, rows: &Rows, out: &[u8]) {
        let padded = self.channels.next_multiple_of(PADDED);
        assert!(self.bias.len() >= padded && self.multipliers.len() >= padded);
        assert!(self.left <= 1 && (1..=2).contains(&self.stride));
        assert!(rows.count == 1 || (rows.count == 2 && self.stride == 1));
        let length = rows.width * self.channels;
        assert!(rows.rows.iter().all(|row| row.len() == length));
        assert!(out.len() == rows.count * rows.outputs * self.channels);
        let reach = rows
            .outputs
            .checked_sub(1)
            .map_or(0, |last| last * self.stride + 3);
        assert!(reach <= self.left + rows.width + 1);
    }
}

/// Bytes as packed lines; what is missing in the last one is 0.
fn lines(bytes: &[i8]) -> Lines {
    let line = |chunk: &[i8]| {
        let mut line = Line([0; 64]);
        line.0[..chunk.len()].copy_from_slice(chunk);
        line
    };
    bytes.chunks(64).map(line).collect()
}

/// The bytes of packed lines.
#[expect(
    unsafe_code,
    reason = "lines are bytes that start where a cache line does"
)]
fn bytes(lines: &Lines) -> &[i8] {
    // SAFETY: a line is 64 bytes and nothing else, and lines lie one behind the other.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), 64 * lines.len()) }
}

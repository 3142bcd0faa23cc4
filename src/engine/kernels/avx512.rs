//! x86-64 with AVX-512 and its dot product of bytes, VNNI: four products are added to a sum at once.
#![expect(
    unsafe_code,
    reason = "intrinsics of instructions that `runnable` asks the processor for"
)]

use std::arch::x86_64::*;

use super::super::arithmetic::Sum;
use super::{Dense, Depthwise, Kernel, Line, Lines, PADDED, Patches, Pool, Rounding, Rows};

/// Outputs whose sums share a register.
const LANES: usize = 16;

/// Columns of a window.
const COLUMNS: usize = 3;

#[derive(Debug)]
pub(super) struct Avx512;

/// Whether this processor has what [`Avx512`] needs.
pub(super) fn runs() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

impl Kernel for Avx512 {
    fn name(&self) -> &'static str {
        "avx512-vnni"
    }

    /// `[outputs / 16][depth / 4][16][4]`.
    fn pack_dense(&self, weight: &[i8], depth: usize) -> Lines {
        let (outputs, steps) = (weight.len() / depth, depth / 4);
        let mut lines = vec![Line([0; 64]); outputs.div_ceil(LANES) * steps];
        for (o, filter) in weight.chunks_exact(depth).enumerate() {
            let (quads, _) = filter.as_chunks::<4>();
            for (step, quad) in quads.iter().enumerate() {
                let line = &mut lines[o / LANES * steps + step];
                line.0[o % LANES * 4..][..4].copy_from_slice(quad);
            }
        }
        lines
    }

    fn dense(&self, layer: &Dense, patches: Patches, out: &mut [u8]) {
        let run = layer.check(&patches, out);
        let blocks = layer.outputs.div_ceil(LANES);
        assert!(layer.weight.len() == blocks * (layer.depth / 4));
        // SAFETY: `runs` said that the instructions are there; patches, weights and output were checked.
        unsafe { dense(layer, patches, run, out) }
    }

    /// `[channels / 16][2][3][16][4]`: of each column the rows, for the upper row of output and a row
    /// further down for the lower one.
    fn pack_depthwise(&self, weight: &[i8]) -> Lines {
        let (windows, _) = weight.as_chunks::<9>();
        let mut lines = vec![Line([0; 64]); windows.len().div_ceil(LANES) * 2 * COLUMNS];
        for (c, window) in windows.iter().enumerate() {
            for (tap, &w) in window.iter().enumerate() {
                for lower in 0..2 {
                    let line = (c / LANES * 2 + lower) * COLUMNS + tap % 3;
                    lines[line].0[c % LANES * 4 + tap / 3 + lower] = w;
                }
            }
        }
        lines
    }

    fn depthwise_scratch(&self, width: usize) -> usize {
        (width + 2) * PADDED * 4
    }

    fn depthwise(&self, layer: &Depthwise, rows: Rows, out: &mut [u8], scratch: &mut [u8]) {
        layer.check(&rows, out);
        let blocks = layer.channels.div_ceil(LANES);
        assert!(layer.weight.len() == blocks * 2 * COLUMNS);
        assert!(scratch.len() >= self.depthwise_scratch(rows.width));
        // SAFETY: `runs` said that the instructions are there; rows, weights, output and scratch were
        // checked.
        unsafe { depthwise(layer, rows, out, scratch) }
    }

    fn add(&self, sum: &Sum, a: &[u8], b: &[u8], out: &mut [u8]) {
        assert!(a.len() == out.len() && b.len() == out.len());
        // SAFETY: `runs` said that the instructions are there; all three have one length.
        unsafe { add(sum, a, b, out) }
    }

    fn pool(&self, pool: &Pool, pixels: &[u8], out: &mut [u8]) {
        assert!(!out.is_empty() && pixels.len().is_multiple_of(out.len()));
        // SAFETY: `runs` said that the instructions are there; pixels are whole.
        unsafe { mean(pool, pixels, out) }
    }
}

/// A mask of the first `count` of 64 bytes.
fn first(count: usize) -> u64 {
    match count {
        64.. => u64::MAX,
        _ => (1 << count) - 1,
    }
}

/// What turns sums into bytes.
#[derive(Clone, Copy)]
struct Finish {
    zero: __m512i,
    low: __m512i,
    high: __m512i,
    /// Words of four bytes, transposed as a square of 4x4.
    transpose: __m512i,
}

impl Finish {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn new(rounding: Rounding) -> Self {
        Self {
            zero: _mm512_set1_epi16(i16::from(rounding.zero)),
            low: _mm512_set1_epi8(rounding.range.low as i8),
            high: _mm512_set1_epi8(rounding.range.high as i8),
            transpose: transpose(),
        }
    }

    /// The bytes of four registers of scaled sums, in their order. Packing saturates, which is the clamp to
    /// a byte: what is beyond an i16 is beyond a byte as well.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn bytes(&self, scaled: [__m512; 4]) -> __m512i {
        let [a, b, c, d] = scaled;
        let (a, b) = (_mm512_cvtps_epi32(a), _mm512_cvtps_epi32(b));
        let (c, d) = (_mm512_cvtps_epi32(c), _mm512_cvtps_epi32(d));
        let low = _mm512_adds_epi16(_mm512_packs_epi32(a, b), self.zero);
        let high = _mm512_adds_epi16(_mm512_packs_epi32(c, d), self.zero);
        let bytes = _mm512_permutexvar_epi32(self.transpose, _mm512_packus_epi16(low, high));
        _mm512_min_epu8(_mm512_max_epu8(bytes, self.low), self.high)
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn transpose() -> __m512i {
    _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)
}

/// `N` registers of words.
///
/// # Safety
/// `from` has as many.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn words<const N: usize>(from: *const i32) -> [__m512i; N] {
    let mut words = [_mm512_setzero_si512(); N];
    for (v, word) in words.iter_mut().enumerate() {
        // SAFETY: as above.
        *word = unsafe { _mm512_loadu_si512(from.add(v * LANES).cast()) };
    }
    words
}

/// `N` registers of floats.
///
/// # Safety
/// `from` has as many.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn floats<const N: usize>(from: *const f32) -> [__m512; N] {
    let mut floats = [_mm512_setzero_ps(); N];
    for (v, float) in floats.iter_mut().enumerate() {
        // SAFETY: as above.
        *float = unsafe { _mm512_loadu_ps(from.add(v * LANES)) };
    }
    floats
}

/// Stores those of the first `16 * N` bytes that `used` has. A plain store is faster than one by a mask.
///
/// # Safety
/// There is room for them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn store<const N: usize>(to: *mut u8, used: u64, bytes: __m512i) {
    // SAFETY: as above.
    unsafe {
        match N {
            1 if used == first(16) => _mm_storeu_si128(to.cast(), _mm512_castsi512_si128(bytes)),
            2 if used == first(32) => {
                _mm256_storeu_si256(to.cast(), _mm512_castsi512_si256(bytes));
            }
            4 if used == first(64) => _mm512_storeu_si512(to.cast(), bytes),
            _ => _mm512_mask_storeu_epi8(to.cast(), used, bytes),
        }
    }
}

/// Sums of `N` registers as bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn finish<const N: usize>(
    finish: &Finish,
    sums: [__m512i; N],
    multipliers: [__m512; N],
) -> __m512i {
    let mut scaled = [_mm512_setzero_ps(); 4];
    for v in 0..N {
        scaled[v] = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[v]), multipliers[v]);
    }
    finish.bytes(scaled)
}

/// # Safety
/// As [`Dense::check`] has it, with `run` bytes of a patch in each row, and a packed weight of all outputs.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn dense(layer: &Dense, patches: Patches, run: usize, out: &mut [u8]) {
    let blocks = layer.outputs.div_ceil(LANES);
    let groups = blocks.div_ceil(4);
    for group in 0..groups {
        // As even as can be.
        let (from, to) = (blocks * group / groups, blocks * (group + 1) / groups);
        let tiles = Tiles {
            layer,
            patches,
            run,
            block: from,
        };
        // SAFETY: blocks are those of the weight; the rest as above.
        unsafe {
            match to - from {
                1 => tiles.all::<1>(14, out),
                2 => tiles.all::<2>(12, out),
                3 => tiles.all::<3>(8, out),
                _ => tiles.all::<4>(6, out),
            }
        }
    }
}

/// Outputs of a few blocks, of all patches.
#[derive(Clone, Copy)]
struct Tiles<'a> {
    layer: &'a Dense,
    patches: Patches<'a>,
    run: usize,
    /// The first block.
    block: usize,
}

impl Tiles<'_> {
    /// # Safety
    /// As [`dense`]; there are `N` blocks.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn all<const N: usize>(self, most: usize, out: &mut [u8]) {
        let count = self.patches.count;
        let tiles = count.div_ceil(most);
        for tile in 0..tiles {
            let (from, to) = (count * tile / tiles, count * (tile + 1) / tiles);
            // SAFETY: patches `from..to` are among those that were checked.
            unsafe {
                match to - from {
                    1 => self.tile::<N, 1>(from, out),
                    2 => self.tile::<N, 2>(from, out),
                    3 => self.tile::<N, 3>(from, out),
                    4 => self.tile::<N, 4>(from, out),
                    5 => self.tile::<N, 5>(from, out),
                    6 => self.tile::<N, 6>(from, out),
                    7 => self.tile::<N, 7>(from, out),
                    8 => self.tile::<N, 8>(from, out),
                    9 => self.tile::<N, 9>(from, out),
                    10 => self.tile::<N, 10>(from, out),
                    11 => self.tile::<N, 11>(from, out),
                    12 => self.tile::<N, 12>(from, out),
                    13 => self.tile::<N, 13>(from, out),
                    _ => self.tile::<N, 14>(from, out),
                }
            }
        }
    }

    /// `M` patches from `from` on by `N` blocks.
    ///
    /// # Safety
    /// As [`dense`]; the patches and blocks exist.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn tile<const N: usize, const M: usize>(self, from: usize, out: &mut [u8]) {
        let Self {
            layer,
            patches,
            run,
            block,
        } = self;
        let steps = layer.depth / 4;
        // SAFETY: blocks of weights, of the padded bias and of the multipliers exist; a patch has `run`
        // bytes in each row; only outputs that exist are stored.
        unsafe {
            let bias = words::<N>(layer.bias.as_ptr().add(block * LANES));
            let mut sums = [bias; M];
            let mut weight = layer.weight.as_ptr().add(block * steps).cast::<u8>();
            for row in patches.rows {
                let patch = row.as_ptr().add(from * patches.step);
                for step in 0..run / 4 {
                    let mut w = [_mm512_setzero_si512(); N];
                    for (v, w) in w.iter_mut().enumerate() {
                        *w = _mm512_load_si512(weight.add(v * steps * 64).cast());
                    }
                    for (m, sums) in sums.iter_mut().enumerate() {
                        let four = patch.add(m * patches.step + 4 * step).cast::<i32>();
                        let x = _mm512_set1_epi32(four.read_unaligned());
                        for v in 0..N {
                            sums[v] = _mm512_dpbusd_epi32(sums[v], x, w[v]);
                        }
                    }
                    weight = weight.add(64);
                }
            }
            let multipliers = floats::<N>(layer.multipliers.as_ptr().add(block * LANES));
            let done = Finish::new(layer.rounding);
            let stored = first((layer.outputs - block * LANES).min(N * LANES));
            let out = out.as_mut_ptr().add(from * layer.outputs + block * LANES);
            for (m, sums) in sums.into_iter().enumerate() {
                let bytes = finish(&done, sums, multipliers);
                store::<N>(out.add(m * layer.outputs), stored, bytes);
            }
        }
    }
}

/// # Safety
/// As [`Depthwise::check`] has it, with a packed weight of all channels and enough scratch.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn depthwise(layer: &Depthwise, rows: Rows, out: &mut [u8], scratch: &mut [u8]) {
    let blocks = layer.channels.div_ceil(LANES);
    let groups = blocks.div_ceil(4);
    for group in 0..groups {
        let (from, to) = (blocks * group / groups, blocks * (group + 1) / groups);
        // SAFETY: blocks are those of the channels.
        unsafe {
            match to - from {
                1 => channels::<1>(layer, rows, from, out, scratch),
                2 => channels::<2>(layer, rows, from, out, scratch),
                3 => channels::<3>(layer, rows, from, out, scratch),
                _ => channels::<4>(layer, rows, from, out, scratch),
            }
        }
    }
}

/// The channels of `N` blocks.
///
/// # Safety
/// As [`depthwise`]; the blocks exist.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn channels<const N: usize>(
    layer: &Depthwise,
    rows: Rows,
    block: usize,
    out: &mut [u8],
    scratch: &mut [u8],
) {
    let (channel, count) = (block * LANES, layer.channels);
    let used = first((count - channel).min(N * LANES));
    // SAFETY: of rows and output only the channels from `channel` on that `used` has are read and written;
    // scratch has 256 bytes for each pixel of a row and two more, of which `64 * N` are used.
    unsafe {
        let woven = scratch.as_mut_ptr();
        let padding = _mm512_set1_epi8(layer.padding as i8);
        weave::<N>([padding; 4], woven);
        let [a, b, c, d] = rows.rows;
        for x in 0..rows.width {
            let at = x * count + channel;
            let load = |row: &[u8]| _mm512_maskz_loadu_epi8(used, row.as_ptr().add(at).cast());
            weave::<N>(
                [load(a), load(b), load(c), load(d)],
                woven.add((x + 1) * N * 64),
            );
        }
        weave::<N>([padding; 4], woven.add((rows.width + 1) * N * 64));

        let done = Finish::new(layer.rounding);
        let bias = words::<N>(layer.bias.as_ptr().add(channel));
        let multipliers = floats::<N>(layer.multipliers.as_ptr().add(channel));
        for y in 0..rows.count {
            let mut weight = [[_mm512_setzero_si512(); N]; COLUMNS];
            for (column, weight) in weight.iter_mut().enumerate() {
                for (v, weight) in weight.iter_mut().enumerate() {
                    let line = ((block + v) * 2 + y) * COLUMNS + column;
                    *weight = _mm512_load_si512(layer.weight.as_ptr().add(line).cast());
                }
            }
            let mut from = woven.add((1 - layer.left) * N * 64).cast_const();
            let mut to = out.as_mut_ptr().add(y * rows.outputs * count + channel);
            for _ in 0..rows.outputs {
                let mut sums = bias;
                for (column, weight) in weight.iter().enumerate() {
                    for v in 0..N {
                        let x = _mm512_loadu_si512(from.add((column * N + v) * 64).cast());
                        sums[v] = _mm512_dpbusd_epi32(sums[v], x, weight[v]);
                    }
                }
                let bytes = finish(&done, sums, multipliers);
                store::<N>(to, used, bytes);
                from = from.add(layer.stride * N * 64);
                to = to.add(count);
            }
        }
    }
}

/// Stores the bytes of four rows such that those of one channel are neighbours.
///
/// # Safety
/// `to` has room for `64 * N` bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn weave<const N: usize>(rows: [__m512i; 4], to: *mut u8) {
    // Weaving works within quarters of a register: channels are dealt to them first, four by four.
    let [a, b, c, d] = rows;
    let (a, b) = (
        _mm512_permutexvar_epi32(transpose(), a),
        _mm512_permutexvar_epi32(transpose(), b),
    );
    let (c, d) = (
        _mm512_permutexvar_epi32(transpose(), c),
        _mm512_permutexvar_epi32(transpose(), d),
    );
    let upper = [_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b)];
    let lower = [_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d)];
    let woven = [
        _mm512_unpacklo_epi16(upper[0], lower[0]),
        _mm512_unpackhi_epi16(upper[0], lower[0]),
        _mm512_unpacklo_epi16(upper[1], lower[1]),
        _mm512_unpackhi_epi16(upper[1], lower[1]),
    ];
    for (v, woven) in woven.into_iter().take(N).enumerate() {
        // SAFETY: as above.
        unsafe { _mm512_storeu_si512(to.add(v * 64).cast(), woven) };
    }
}

/// # Safety
/// `a`, `b` and `out` have one length.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn add(sum: &Sum, a: &[u8], b: &[u8], out: &mut [u8]) {
    let done = Finish::new(Rounding {
        zero: sum.zero,
        range: sum.range,
    });
    let [a_zero, b_zero] = sum.zeros;
    let zeros = [
        _mm512_set1_epi32(i32::from(a_zero)),
        _mm512_set1_epi32(i32::from(b_zero)),
    ];
    let [a_share, b_share] = sum.multipliers;
    let multipliers = [_mm512_set1_ps(a_share), _mm512_set1_ps(b_share)];
    for at in (0..out.len()).step_by(64) {
        let used = first(out.len() - at);
        // SAFETY: only bytes that exist are read and written.
        unsafe {
            let mut sums = [_mm512_setzero_ps(); 4];
            for (v, sum) in sums.iter_mut().enumerate() {
                let mask = (used >> (v * LANES)) as u16;
                let term = |bytes: &[u8], nth: usize| {
                    let from = bytes.as_ptr().wrapping_add(at + v * LANES);
                    let bytes = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, from.cast()));
                    let centred = _mm512_sub_epi32(bytes, zeros[nth]);
                    _mm512_mul_ps(_mm512_cvtepi32_ps(centred), multipliers[nth])
                };
                *sum = _mm512_add_ps(term(a, 0), term(b, 1));
            }
            _mm512_mask_storeu_epi8(out.as_mut_ptr().add(at).cast(), used, done.bytes(sums));
        }
    }
}

/// # Safety
/// `pixels` are whole pixels of `out`'s length.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn mean(pool: &Pool, pixels: &[u8], out: &mut [u8]) {
    let done = Finish::new(pool.rounding);
    let channels = out.len();
    let count = pixels.len() / channels;
    let multiplier = _mm512_set1_ps(pool.multiplier);
    let start = _mm512_set1_epi32(-i32::from(pool.zero) * count as i32);
    for at in (0..channels).step_by(64) {
        let used = first(channels - at);
        let mut sums = [start; 4];
        // SAFETY: only bytes that exist are read and written.
        unsafe {
            for pixel in 0..count {
                let from = pixels.as_ptr().add(pixel * channels + at);
                for (v, sum) in sums.iter_mut().enumerate() {
                    let mask = (used >> (v * LANES)) as u16;
                    let bytes = _mm_maskz_loadu_epi8(mask, from.wrapping_add(v * LANES).cast());
                    *sum = _mm512_add_epi32(*sum, _mm512_cvtepu8_epi32(bytes));
                }
            }
            let bytes = finish(&done, sums, [multiplier; 4]);
            _mm512_mask_storeu_epi8(out.as_mut_ptr().add(at).cast(), used, bytes);
        }
    }
}

//! x86-64 with AVX2.
//!
//! Bytes and weights are widened to i16, whose products VPMADDWD adds by twos into i32, exactly. (VPMADDUBSW,
//! which takes bytes, would clip the sum of two large products; to split one side such that it cannot takes
//! as many multiplications and more additions.) Where sums become bytes, two vectors of eight sums hold 16
//! channels in the order in which the packing instructions leave them straight: the first one channels 0 to
//! 3 and 8 to 11, the second one 4 to 7 and 12 to 15. VCVTPS2DQ rounds half to even.
//!
//! Functions that vectors pass through are inlined, and loops over vectors are written out: what takes a
//! closure in the standard library is compiled without AVX2, and calls it for each element.

#![expect(
    unsafe_code,
    reason = "vectors are read and written through pointers, within what the shapes' checks allow"
)]

use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::slice;

use super::super::arithmetic::Sum;
use super::portable::Portable;
use super::{
    Dense, Depthwise, Kernel, Lines, Patches, Pool, Rounding, Rows, bytes, lines, portable,
};

/// Sums in a vector.
const LANES: usize = 8;

/// Channels of two vectors of sums, which depthwise convolutions work on at once.
const BLOCK: usize = 2 * LANES;

/// Widened bytes that a dense convolution keeps on the stack. A deeper patch is left to the portable kernel.
const WORDS: usize = 16 << 10;

#[derive(Debug)]
pub(super) struct Avx2;

impl Kernel for Avx2 {
    fn name(&self) -> &'static str {
        "avx2"
    }

    /// For each vector of outputs and each two products of it, the two weights of each lane, in i16.
    fn pack_dense(&self, weight: &[i8], depth: usize) -> Lines {
        if depth > WORDS {
            return Portable.pack_dense(weight, depth);
        }
        let outputs = weight.len() / depth;
        let weight = |o: usize, at: usize| match o < outputs {
            true => i16::from(weight[o * depth + at]),
            false => 0,
        };
        let mut packed = Vec::new();
        let groups = outputs.div_ceil(LANES);
        let mut group = 0;
        while group < groups {
            let vectors = vectors(groups - group);
            for pair in (0..depth).step_by(2) {
                for lane in 0..vectors * LANES {
                    let o = group * LANES + channel(vectors, lane);
                    for at in [pair, pair + 1] {
                        packed.extend(weight(o, at).to_le_bytes().map(u8::cast_signed));
                    }
                }
            }
            group += vectors;
        }
        lines(&packed)
    }

    fn dense(&self, layer: &Dense, patches: Patches, out: &mut [u8]) {
        if layer.depth > WORDS {
            return Portable.dense(layer, patches, out);
        }
        let run = layer.check(&patches, out);
        let groups = layer.outputs.div_ceil(LANES);
        assert!(bytes(&layer.weight).len() >= 2 * groups * LANES * layer.depth);
        // SAFETY: `runnable` offers this kernel to processors that have AVX2.
        unsafe { dense(layer, patches, run, out) }
    }

    /// For each block of channels, nine times 16 weights.
    fn pack_depthwise(&self, weight: &[i8]) -> Lines {
        let (filters, _) = weight.as_chunks::<9>();
        let mut packed = Vec::new();
        for block in blocks(filters.len()) {
            for tap in 0..9 {
                let filter = |lane| filters.get(block + lane);
                packed.extend((0..BLOCK).map(|lane| filter(lane).map_or(0, |filter| filter[tap])));
            }
        }
        lines(&packed)
    }

    fn depthwise_scratch(&self, _width: usize) -> usize {
        0
    }

    fn depthwise(&self, layer: &Depthwise, rows: Rows, out: &mut [u8], _scratch: &mut [u8]) {
        layer.check(&rows, out);
        let needed = 9 * BLOCK * blocks(layer.channels).count();
        assert!(bytes(&layer.weight).len() >= needed);
        // SAFETY: `runnable` offers this kernel to processors that have AVX2.
        unsafe {
            match layer.channels >= BLOCK {
                true => depthwise::<true>(layer, rows, out),
                false => depthwise::<false>(layer, rows, out),
            }
        }
    }

    fn add(&self, sum: &Sum, a: &[u8], b: &[u8], out: &mut [u8]) {
        // SAFETY: `runnable` offers this kernel to processors that have AVX2.
        unsafe { add(sum, a, b, out) }
    }

    fn pool(&self, pool: &Pool, pixels: &[u8], out: &mut [u8]) {
        if out.len() < BLOCK {
            return portable::pool(pool, pixels, out);
        }
        // SAFETY: `runnable` offers this kernel to processors that have AVX2.
        unsafe { self::pool(pool, pixels, out) }
    }
}

/// Vectors of outputs that are computed together where `groups` of them are left: two, and three once if
/// their number is odd.
fn vectors(groups: usize) -> usize {
    match groups {
        1 => 1,
        odd if odd % 2 == 1 => 3,
        _ => 2,
    }
}

/// The channel in a lane of some vectors that are computed together.
fn channel(vectors: usize, lane: usize) -> usize {
    let (block, lane) = (lane / BLOCK, lane % BLOCK);
    let paired = (block + 1) * 2 <= vectors;
    let lane = match (paired, lane / 4) {
        (true, 1) => lane + 4,
        (true, 2) => lane - 4,
        _ => lane,
    };
    block * BLOCK + lane
}

/// First channels of blocks that cover all; the last block overlaps the one before it, or is the only one.
fn blocks(channels: usize) -> impl Iterator<Item = usize> {
    let last = channels.saturating_sub(BLOCK);
    (0..channels)
        .step_by(BLOCK)
        .map(move |first| first.min(last))
}

/// How sums become bytes.
#[derive(Clone, Copy)]
struct Finish {
    /// In i16.
    zero: __m256i,
    /// The bytes that may come out.
    low: __m256i,
    high: __m256i,
}

impl Finish {
    #[target_feature(enable = "avx2")]
    fn new(rounding: Rounding) -> Self {
        Self {
            zero: _mm256_set1_epi16(i16::from(rounding.zero)),
            low: _mm256_set1_epi8(rounding.range.low.cast_signed()),
            high: _mm256_set1_epi8(rounding.range.high.cast_signed()),
        }
    }

    /// Two vectors of scaled sums, each within i32, rounded, on the zero point. What exceeds i16 exceeds the
    /// bytes too, and ends where they do.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn words(self, a: __m256, b: __m256) -> __m256i {
        let rounded = _mm256_packs_epi32(_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b));
        _mm256_adds_epi16(rounded, self.zero)
    }

    /// Words as bytes within the range: of each half, those of `a` and then those of `b`.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn bytes(self, a: __m256i, b: __m256i) -> __m256i {
        let bytes = _mm256_packus_epi16(a, b);
        _mm256_min_epu8(_mm256_max_epu8(bytes, self.low), self.high)
    }

    /// Words of 16 channels of two pixels as the bytes of one and of the other.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn pixels(self, a: __m256i, b: __m256i) -> [__m128i; 2] {
        let bytes = _mm256_permute4x64_epi64::<0b11_01_10_00>(self.bytes(a, b));
        [
            _mm256_castsi256_si128(bytes),
            _mm256_extracti128_si256::<1>(bytes),
        ]
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn scaled(sums: __m256i, multipliers: __m256i) -> __m256 {
    _mm256_mul_ps(_mm256_cvtepi32_ps(sums), _mm256_castsi256_ps(multipliers))
}

/// The sum of `a` and of products of i16 by twos.
#[inline]
#[target_feature(enable = "avx2")]
fn multiply_add(a: __m256i, x: __m256i, w: __m256i) -> __m256i {
    _mm256_add_epi32(a, _mm256_madd_epi16(x, w))
}

/// Sixteen numbers of four bytes in the order of two vectors of sums.
#[inline]
#[target_feature(enable = "avx2")]
fn pair<T>(numbers: &[T]) -> [__m256i; 2] {
    const { assert!(size_of::<T>() == 4) };
    let numbers = numbers[..BLOCK].as_ptr().cast();
    // SAFETY: two vectors are sixteen such numbers.
    let [a, b] = unsafe {
        [
            _mm256_loadu_si256(numbers),
            _mm256_loadu_si256(numbers.add(1)),
        ]
    };
    [
        _mm256_permute2x128_si256::<0x20>(a, b),
        _mm256_permute2x128_si256::<0x31>(a, b),
    ]
}

/// Eight numbers of four bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn single<T>(numbers: &[T]) -> __m256i {
    const { assert!(size_of::<T>() == 4) };
    // SAFETY: a vector is eight such numbers.
    unsafe { _mm256_loadu_si256(numbers[..LANES].as_ptr().cast()) }
}

/// Writes the first `N` bytes, 8 or 16, to `out[at..]`, or `most` if that is less.
#[inline]
#[target_feature(enable = "avx2")]
fn put<const N: usize>(vector: __m128i, out: &mut [u8], at: usize, most: usize) {
    const { assert!(N == LANES || N == BLOCK) };
    if most < N {
        return put_some(vector, &mut out[at..][..most]);
    }
    let out = out[at..][..N].as_mut_ptr().cast();
    // SAFETY: these are `N` bytes.
    unsafe {
        match N {
            LANES => _mm_storel_epi64(out, vector),
            _ => _mm_storeu_si128(out, vector),
        }
    }
}

/// Writes as many bytes as there is room for, fewer than 16.
#[inline]
#[target_feature(enable = "avx2")]
fn put_some(vector: __m128i, out: &mut [u8]) {
    let mut rest = _mm_cvtsi128_si64(vector);
    let (low, high) = out.split_at_mut(out.len().min(8));
    for byte in low {
        *byte = rest as u8;
        rest >>= 8;
    }
    let mut rest = _mm_extract_epi64::<1>(vector);
    for byte in high {
        *byte = rest as u8;
        rest >>= 8;
    }
}

/// Words that start where a cache line does.
#[repr(align(64))]
struct Aligned([MaybeUninit<i16>; WORDS]);

/// Patches that are widened, and what becomes of them.
struct Panel<'a> {
    layer: &'a Dense,
    finish: Finish,
    /// Word `k` of row `r` of patch `p` is number `r * room + p * step + k`.
    words: *const i16,
    rows: usize,
    room: usize,
    step: usize,
    /// Words of a row of a patch, a multiple of four.
    run: usize,
    /// Patches.
    count: usize,
}

#[target_feature(enable = "avx2")]
fn dense(layer: &Dense, patches: Patches, run: usize, out: &mut [u8]) {
    let Patches { rows, step, count } = patches;
    let mut words = Aligned([const { MaybeUninit::<i16>::uninit() }; WORDS]);
    let room = WORDS / rows.len();
    let most = match (room - run) / step.max(1) + 1 {
        // A multiple of the patches of any tile.
        most @ 24.. => most / 24 * 24,
        most @ 12.. => most / 12 * 12,
        most => most,
    };
    let groups = layer.outputs.div_ceil(LANES);
    for (nth, out) in out.chunks_mut(most * layer.outputs).enumerate() {
        let from = nth * most;
        let count = most.min(count - from);
        let span = (count - 1) * step + run;
        for (row, words) in rows.iter().zip(words.0.chunks_exact_mut(room)) {
            for (byte, word) in row[from * step..][..span].iter().zip(words) {
                word.write(i16::from(*byte));
            }
        }
        let panel = Panel {
            layer,
            finish: Finish::new(layer.rounding),
            words: words.0.as_ptr().cast(),
            rows: rows.len(),
            room,
            step,
            run,
            count,
        };
        let mut group = 0;
        while group < groups {
            let vectors = vectors(groups - group);
            match vectors {
                1 => panel.sweep::<1>(group, out),
                2 => panel.sweep::<2>(group, out),
                _ => panel.sweep::<3>(group, out),
            }
            group += vectors;
        }
    }
}

impl Panel<'_> {
    /// Some vectors of outputs of all patches.
    #[inline(never)]
    #[target_feature(enable = "avx2")]
    fn sweep<const V: usize>(&self, group: usize, out: &mut [u8]) {
        let mut patch = 0;
        while patch < self.count {
            // As many sums as registers hold.
            patch += match (V, self.count - patch) {
                (1, 8..) => self.tile::<8, V>(group, patch, out),
                (2, 6..) => self.tile::<6, V>(group, patch, out),
                (3, 3..) => self.tile::<3, V>(group, patch, out),
                (1 | 2, 4..) => self.tile::<4, V>(group, patch, out),
                (_, 2..) => self.tile::<2, V>(group, patch, out),
                _ => self.tile::<1, V>(group, patch, out),
            };
        }
    }

    /// Some vectors of outputs of some patches; how many patches.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn tile<const P: usize, const V: usize>(
        &self,
        group: usize,
        patch: usize,
        out: &mut [u8],
    ) -> usize {
        let first = group * LANES;
        let mut start = [_mm256_setzero_si256(); V];
        for v in (0..V / 2 * 2).step_by(2) {
            let [a, b] = pair(&self.layer.bias[first + v * LANES..]);
            (start[v], start[v + 1]) = (a, b);
        }
        if V % 2 == 1 {
            start[V - 1] = single(&self.layer.bias[first + (V - 1) * LANES..]);
        }
        let mut sums = [start; P];
        let weights = &bytes(&self.layer.weight)[2 * first * self.layer.depth..];
        let mut weights: *const __m256i = weights.as_ptr().cast();
        for row in 0..self.rows {
            // SAFETY: the panel has `rows` rows of `count` patches, `patch + P` of which there are, each
            // of `run` words, written by `dense`; for each two of them, `V` vectors of weights follow.
            unsafe {
                let mut words = self.words.add(row * self.room + patch * self.step);
                for _ in 0..self.run / 2 {
                    let mut w = [_mm256_setzero_si256(); V];
                    for (v, w) in w.iter_mut().enumerate() {
                        *w = _mm256_load_si256(weights.add(v));
                    }
                    for (p, sums) in sums.iter_mut().enumerate() {
                        let x: *const i32 = words.add(p * self.step).cast();
                        let x = _mm256_set1_epi32(x.read_unaligned());
                        for v in 0..V {
                            sums[v] = multiply_add(sums[v], x, w[v]);
                        }
                    }
                    weights = weights.add(V);
                    words = words.add(2);
                }
            }
        }
        self.put(sums, first, &mut out[patch * self.layer.outputs..]);
        P
    }

    /// Writes sums as bytes.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn put<const P: usize, const V: usize>(
        &self,
        sums: [[__m256i; V]; P],
        first: usize,
        out: &mut [u8],
    ) {
        let Self { layer, finish, .. } = self;
        let outputs = layer.outputs;
        let out = &mut out[..P * outputs];
        for v in (0..V / 2 * 2).step_by(2) {
            let first = first + v * LANES;
            let [a, b] = pair(&layer.multipliers[first..]);
            let mut words = [finish.zero; P];
            for p in 0..P {
                words[p] = finish.words(scaled(sums[p][v], a), scaled(sums[p][v + 1], b));
            }
            for p in (0..P).step_by(2) {
                let next = if p + 1 < P { p + 1 } else { p };
                let [a, b] = finish.pixels(words[p], words[next]);
                put::<BLOCK>(a, out, p * outputs + first, outputs - first);
                if next > p {
                    put::<BLOCK>(b, out, next * outputs + first, outputs - first);
                }
            }
        }
        if V % 2 == 1 {
            let first = first + (V - 1) * LANES;
            let multipliers = single(&layer.multipliers[first..]);
            for p in (0..P).step_by(2) {
                let next = if p + 1 < P { p + 1 } else { p };
                let a = scaled(sums[p][V - 1], multipliers);
                let b = scaled(sums[next][V - 1], multipliers);
                let words = finish.words(a, b);
                let order = _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5);
                let both = _mm256_permutevar8x32_epi32(finish.bytes(words, words), order);
                let both = _mm256_castsi256_si128(both);
                put::<LANES>(both, out, p * outputs + first, outputs - first);
                if next > p {
                    let b = _mm_unpackhi_epi64(both, both);
                    put::<LANES>(b, out, next * outputs + first, outputs - first);
                }
            }
        }
    }
}

/// Rows of a block of channels. If it is not `WHOLE`, it has fewer channels than 16, and so has the map.
#[derive(Clone, Copy)]
struct Source<const WHOLE: bool> {
    /// The first pixel of each.
    rows: [*const u8; 4],
    /// Bytes from a pixel to the next.
    channels: usize,
    /// Pixels.
    width: usize,
    /// Columns of padding before the first pixel.
    left: usize,
    /// A pixel of padding, widened.
    padding: __m256i,
}

impl<const WHOLE: bool> Source<WHOLE> {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new(layer: &Depthwise, rows: &Rows, first: usize) -> Self {
        let [a, b, c, d] = rows.rows;
        Self {
            rows: [
                a[first..].as_ptr(),
                b[first..].as_ptr(),
                c[first..].as_ptr(),
                d[first..].as_ptr(),
            ],
            channels: layer.channels,
            width: rows.width,
            left: layer.left,
            padding: _mm256_set1_epi16(i16::from(layer.padding)),
        }
    }

    /// Sixteen channels of the pixel in a column of the padded map, widened.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn words(self, row: usize, column: usize) -> __m256i {
        let column = column.wrapping_sub(self.left);
        if column >= self.width {
            return self.padding;
        }
        // SAFETY: `check` has seen that a row is `width` pixels of `channels`, and the block is of these.
        unsafe {
            let pixel = self.rows[row].add(column * self.channels);
            _mm256_cvtepu8_epi16(match WHOLE {
                true => _mm_loadu_si128(pixel.cast()),
                false => load_some(slice::from_raw_parts(pixel, self.channels)),
            })
        }
    }

    /// Rows 0 and 1 of a column by twos, and rows 2 and 3.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn column(self, column: usize) -> [__m256i; 4] {
        let [a, b] = zip(self.words(0, column), self.words(1, column));
        let [c, d] = zip(self.words(2, column), self.words(3, column));
        [a, b, c, d]
    }

    /// Rows 0 and 1 of a column by twos, and row 2 of it and of the next column.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn left(self, column: usize) -> [__m256i; 4] {
        let [a, b] = zip(self.words(0, column), self.words(1, column));
        let [c, d] = zip(self.words(2, column), self.words(2, column + 1));
        [a, b, c, d]
    }

    /// Rows 0 and 1 of a column by twos.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn right(self, column: usize) -> [__m256i; 2] {
        zip(self.words(0, column), self.words(1, column))
    }
}

/// Fewer bytes than 16, and zeros.
#[inline(never)]
#[target_feature(enable = "avx2")]
fn load_some(some: &[u8]) -> __m128i {
    let mut bytes = [0; BLOCK];
    bytes[..some.len()].copy_from_slice(some);
    // SAFETY: a vector is sixteen bytes.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// The words of two vectors by twos.
#[inline]
#[target_feature(enable = "avx2")]
fn zip(a: __m256i, b: __m256i) -> [__m256i; 2] {
    [_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)]
}

#[target_feature(enable = "avx2")]
fn depthwise<const WHOLE: bool>(layer: &Depthwise, rows: Rows, out: &mut [u8]) {
    for (nth, first) in blocks(layer.channels).enumerate() {
        let line = Line::<WHOLE> {
            layer,
            finish: Finish::new(layer.rounding),
            source: Source::new(layer, &rows, first),
            first,
            outputs: rows.outputs,
        };
        let taps = taps(&bytes(&layer.weight)[9 * BLOCK * nth..]);
        match (layer.stride, rows.count) {
            (1, 1) => line.single(&[upper(taps)], out),
            (1, _) => line.single(&[upper(taps), lower(taps)], out),
            _ => line.double(taps, out),
        }
    }
}

/// The weights of each column for the first three of its rows.
#[inline]
#[target_feature(enable = "avx2")]
fn upper(k: [__m256i; 9]) -> [[__m256i; 4]; 3] {
    let mut columns = [[_mm256_setzero_si256(); 4]; 3];
    for (nth, column) in columns.iter_mut().enumerate() {
        let [a, b] = zip(k[nth], k[3 + nth]);
        let [c, d] = zip(k[6 + nth], _mm256_setzero_si256());
        *column = [a, b, c, d];
    }
    columns
}

/// The weights of each column for the last three of its rows.
#[inline]
#[target_feature(enable = "avx2")]
fn lower(k: [__m256i; 9]) -> [[__m256i; 4]; 3] {
    let mut columns = [[_mm256_setzero_si256(); 4]; 3];
    for (nth, column) in columns.iter_mut().enumerate() {
        let [a, b] = zip(_mm256_setzero_si256(), k[nth]);
        let [c, d] = zip(k[3 + nth], k[6 + nth]);
        *column = [a, b, c, d];
    }
    columns
}

/// The nine weights of a block of channels, widened.
#[inline]
#[target_feature(enable = "avx2")]
fn taps(weights: &[i8]) -> [__m256i; 9] {
    let weights = weights[..9 * BLOCK].as_ptr();
    let mut taps = [_mm256_setzero_si256(); 9];
    for (nth, tap) in taps.iter_mut().enumerate() {
        // SAFETY: there are nine times 16 weights.
        let weights = unsafe { _mm_loadu_si128(weights.add(nth * BLOCK).cast()) };
        *tap = _mm256_cvtepi8_epi16(weights);
    }
    taps
}

/// A row of output, or two, of a block of channels.
struct Line<'a, const WHOLE: bool> {
    layer: &'a Depthwise,
    finish: Finish,
    source: Source<WHOLE>,
    /// First channel.
    first: usize,
    /// Pixels of a row.
    outputs: usize,
}

/// The sums of two vectors and of two others times their weights.
#[inline]
#[target_feature(enable = "avx2")]
fn two([a, b]: [__m256i; 2], x: [__m256i; 2], w: [__m256i; 2]) -> [__m256i; 2] {
    [multiply_add(a, x[0], w[0]), multiply_add(b, x[1], w[1])]
}

/// The sums of two vectors and of two pairs of others times their weights.
#[inline]
#[target_feature(enable = "avx2")]
fn four(sums: [__m256i; 2], x: [__m256i; 4], w: &[__m256i; 4]) -> [__m256i; 2] {
    two(
        two(sums, [x[0], x[1]], [w[0], w[1]]),
        [x[2], x[3]],
        [w[2], w[3]],
    )
}

impl<const WHOLE: bool> Line<'_, WHOLE> {
    /// Convolves by steps of 1 into `N` rows of output. Each column is read once and counts for the output
    /// that begins there and for the two before.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn single<const N: usize>(&self, w: &[[[__m256i; 4]; 3]; N], out: &mut [u8]) {
        let Self {
            layer,
            finish,
            source,
            first,
            outputs,
        } = *self;
        let bias = pair(&layer.bias[first..]);
        let multipliers = pair(&layer.multipliers[first..]);
        let (mut one, mut two) = ([bias; N], [bias; N]);
        let x = source.column(0);
        for n in 0..N {
            one[n] = four(bias, x, &w[n][0]);
        }
        let x = source.column(1);
        for n in 0..N {
            two[n] = four(one[n], x, &w[n][1]);
            one[n] = four(bias, x, &w[n][0]);
        }
        for pixel in 0..outputs {
            let x = source.column(pixel + 2);
            let mut words = [finish.zero; N];
            for n in 0..N {
                let [a, b] = four(two[n], x, &w[n][2]);
                two[n] = four(one[n], x, &w[n][1]);
                one[n] = four(bias, x, &w[n][0]);
                words[n] = finish.words(scaled(a, multipliers[0]), scaled(b, multipliers[1]));
            }
            let [a, b] = finish.pixels(words[0], words[N - 1]);
            self.put(a, pixel, out);
            if N == 2 {
                self.put(b, outputs + pixel, out);
            }
        }
    }

    /// Convolves by steps of 2. Each two columns are read once, the first one of which also counts for the
    /// output before.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn double(&self, k: [__m256i; 9], out: &mut [u8]) {
        let Self {
            layer,
            finish,
            source,
            first,
            outputs,
        } = *self;
        let bias = pair(&layer.bias[first..]);
        let multipliers = pair(&layer.multipliers[first..]);
        let ([a, b], [c, d]) = (zip(k[0], k[3]), zip(k[6], k[7]));
        let left = [a, b, c, d];
        let middle = zip(k[1], k[4]);
        let ([a, b], [c, d]) = (zip(k[2], k[5]), zip(k[8], _mm256_setzero_si256()));
        let right = [a, b, c, d];
        let mut x = source.left(0);
        for pixel in 0..outputs {
            let sums = four(bias, x, &left);
            let sums = two(sums, source.right(2 * pixel + 1), middle);
            x = source.left(2 * pixel + 2);
            let [a, b] = four(sums, x, &right);
            let words = finish.words(scaled(a, multipliers[0]), scaled(b, multipliers[1]));
            let [bytes, _] = finish.pixels(words, words);
            self.put(bytes, pixel, out);
        }
    }

    /// Writes the block of a pixel.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn put(&self, bytes: __m128i, pixel: usize, out: &mut [u8]) {
        let Source { channels, .. } = self.source;
        let at = pixel * channels + self.first;
        if !WHOLE {
            return put_some(bytes, &mut out[at..][..channels]);
        }
        debug_assert!(at + BLOCK <= out.len());
        // SAFETY: `check` has seen that `out` has this pixel, of `channels`, and the block is of these.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().add(at).cast(), bytes) }
    }
}

/// Sixteen bytes in i16.
#[inline]
#[target_feature(enable = "avx2")]
fn widened(bytes: &[u8; BLOCK]) -> __m256i {
    // SAFETY: a vector is sixteen bytes.
    _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

#[target_feature(enable = "avx2")]
fn add(sum: &Sum, a: &[u8], b: &[u8], out: &mut [u8]) {
    // The bits of 2^23 with a byte at their end are those of 2^23 and the byte.
    const UNIT: f32 = (1 << 23) as f32;
    let upper = _mm256_set1_epi16((UNIT.to_bits() >> 16).cast_signed() as i16);
    let zeros = sum.zeros.map(|zero| UNIT + f32::from(zero));
    let [zero_a, zero_b] = [_mm256_set1_ps(zeros[0]), _mm256_set1_ps(zeros[1])];
    let [times_a, times_b] = sum.multipliers;
    let [times_a, times_b] = [_mm256_set1_ps(times_a), _mm256_set1_ps(times_b)];
    let term = |words, zero, times| {
        let low = _mm256_castsi256_ps(_mm256_unpacklo_epi16(words, upper));
        let high = _mm256_castsi256_ps(_mm256_unpackhi_epi16(words, upper));
        let [low, high] = [_mm256_sub_ps(low, zero), _mm256_sub_ps(high, zero)];
        [_mm256_mul_ps(low, times), _mm256_mul_ps(high, times)]
    };
    let finish = Finish::new(Rounding {
        zero: sum.zero,
        range: sum.range,
    });
    let words = |a: &[u8; BLOCK], b: &[u8; BLOCK]| {
        let a = term(widened(a), zero_a, times_a);
        let b = term(widened(b), zero_b, times_b);
        finish.words(_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1]))
    };
    let count = out.len().min(a.len()).min(b.len());
    let (a, a_rest) = a[..count].as_chunks();
    let (b, b_rest) = b[..count].as_chunks();
    let (out, out_rest) = out[..count].as_chunks_mut::<BLOCK>();
    for nth in (0..out.len()).step_by(2) {
        let next = (nth + 1).min(out.len() - 1);
        let bytes = finish.pixels(words(&a[nth], &b[nth]), words(&a[next], &b[next]));
        put::<BLOCK>(bytes[0], &mut out[nth], 0, BLOCK);
        put::<BLOCK>(bytes[1], &mut out[next], 0, BLOCK);
    }
    portable::add(sum, a_rest, b_rest, out_rest);
}

/// The mean of pixels of at least 16 channels.
#[target_feature(enable = "avx2")]
fn pool(pool: &Pool, pixels: &[u8], out: &mut [u8]) {
    let channels = out.len();
    let zeros = i32::from(pool.zero) * (pixels.len() / channels) as i32;
    let multiplier = _mm256_set1_epi32(pool.multiplier.to_bits().cast_signed());
    let finish = Finish::new(pool.rounding);
    for first in blocks(channels) {
        let mut sums = [_mm256_set1_epi32(-zeros); 2];
        // As many pixels as 16 bits hold the sum of.
        for pixels in pixels.chunks(257 * channels) {
            let mut words = _mm256_setzero_si256();
            for pixel in pixels.chunks_exact(channels) {
                let (block, _) = pixel[first..].split_first_chunk().expect("a whole block");
                words = _mm256_add_epi16(words, widened(block));
            }
            let [a, b] = zip(words, _mm256_setzero_si256());
            sums = [_mm256_add_epi32(sums[0], a), _mm256_add_epi32(sums[1], b)];
        }
        let [a, b] = [scaled(sums[0], multiplier), scaled(sums[1], multiplier)];
        let words = finish.words(a, b);
        let [bytes, _] = finish.pixels(words, words);
        put::<BLOCK>(bytes, out, first, BLOCK);
    }
}

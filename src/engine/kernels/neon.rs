//! AArch64: what kernels with NEON share, and the one for processors that have no more, such as the
//! Cortex-A53, A57 and A72.
//!
//! Bytes become signed by a flip of their highest bit, which takes 128 from each: packed weights begin with
//! what that takes from the sums. Four products make a step ([`Products`]); a register holds the sums of
//! four outputs.
//!
//! Multiply-accumulates per cycle of the inner loops by the models of `llvm-mca` (`tests/arm/mca neon`), all
//! data in the first cache: a static estimate, not a measurement.
//!
//! | | Cortex-A53 | Cortex-A55 | Cortex-A57, A72 | Neoverse N1, Cortex-A76 |
//! |---|---|---|---|---|
//! | peak of the instruction | 8 (`smlal`) | 16 (`sdot`) | 8 (`smlal`) | 32 (`sdot`) |
//! | `neon`, dense | 3.8 | | 8.0 | |
//! | `neon`, depthwise, stride 1 / 2 | 1.6 / 1.5 | | 3.8 / 3.2 | |
//! | `neon-dot`, dense | | 10.9 | | 26.6 |
//! | `neon-dot`, depthwise, stride 1 / 2 | | 2.5 / 2.3 | | 5.0 / 4.5 |
//!
//! Dense: a block of outputs of as many patches as are kept at once. On the A53 `sadalp` takes a third of
//! the cycles: 5.3 is the most. Depthwise: four outputs of 16 channels and their way to bytes, without the
//! weave; of the products those count that the window has, nine of twelve.
#![expect(
    unsafe_code,
    reason = "intrinsics of NEON, which every AArch64 processor has, on pointers that were checked"
)]

use std::arch::aarch64::*;
use std::fmt;

use super::super::arithmetic::Sum;
use super::portable;
use super::{Dense, Depthwise, Kernel, Line, Lines, Patches, Pool, Rounding, Rows};

/// Outputs of a block, whose weights of a step make a line.
const LANES: usize = 16;

/// Registers of a block's sums.
const QUADS: usize = LANES / 4;

/// Lines of a block of a packed depthwise weight: what the flip takes, then two places of the window in
/// four rows, each of three columns.
const WINDOW: usize = 1 + 2 * COLUMNS;
const COLUMNS: usize = 3;

/// Bytes of patches that all outputs are made of before the next ones are read: half of a first cache.
const NEAR: usize = 16 << 10;

/// Four products added to each of four sums.
pub(super) trait Products: fmt::Debug + Send + Sync {
    /// Name of the kernel.
    const NAME: &'static str;

    /// Most patches whose sums are kept at once.
    const PATCHES: usize;

    /// Where in a register the `nth` of the four factors of a sum lies.
    fn place(sum: usize, nth: usize) -> usize;

    /// The `STEP`th four bytes of a register, as [`Products::broadcast`] takes them.
    fn spread<const STEP: i32>(x: int8x16_t) -> int8x16_t;

    /// Adds products of each sum's four weights and the same four spread bytes.
    fn broadcast<const STEP: i32>(sums: int32x4_t, weight: int8x16_t, x: int8x16_t) -> int32x4_t;

    /// Registers of four rows' bytes, each of four channels in their places.
    fn weave(rows: [int8x16_t; 4]) -> [int8x16_t; QUADS];

    /// Adds products of each sum's four weights and its own four bytes.
    fn add(sums: int32x4_t, weight: int8x16_t, x: int8x16_t) -> int32x4_t;
}

/// Products by long multiplication: two of them fit an i16, since weights are -127 at least.
#[derive(Debug)]
pub(super) struct Long;

impl Products for Long {
    const NAME: &'static str = "neon";

    const PATCHES: usize = 3;

    fn place(sum: usize, nth: usize) -> usize {
        nth / 2 * 8 + 2 * sum + nth % 2
    }

    #[inline(always)]
    fn spread<const STEP: i32>(x: int8x16_t) -> int8x16_t {
        const PAIRS: [u8; 16] = [0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 2, 3];
        // SAFETY: NEON is there; sixteen bytes are read of as many.
        unsafe {
            let pairs = vaddq_u8(vld1q_u8(PAIRS.as_ptr()), vdupq_n_u8(4 * STEP as u8));
            vqtbl1q_s8(x, pairs)
        }
    }

    #[inline(always)]
    fn broadcast<const STEP: i32>(sums: int32x4_t, weight: int8x16_t, x: int8x16_t) -> int32x4_t {
        Self::add(sums, weight, x)
    }

    #[inline(always)]
    fn weave(rows: [int8x16_t; 4]) -> [int8x16_t; QUADS] {
        let pairs = zip_bytes(rows);
        // SAFETY: NEON is there.
        let halves = |upper: int16x8_t, lower: int16x8_t| unsafe {
            let (upper, lower) = (vreinterpretq_s64_s16(upper), vreinterpretq_s64_s16(lower));
            [vzip1q_s64(upper, lower), vzip2q_s64(upper, lower)].map(|x| vreinterpretq_s8_s64(x))
        };
        let [[a, b], [c, d]] = [0, 1].map(|half| halves(pairs[0][half], pairs[1][half]));
        [a, b, c, d]
    }

    #[inline(always)]
    fn add(sums: int32x4_t, weight: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: NEON is there.
        unsafe {
            let products = vmull_s8(vget_low_s8(weight), vget_low_s8(x));
            vpadalq_s16(sums, vmlal_high_s8(products, weight, x))
        }
    }
}

/// Bytes of the first two rows and of the last two in turn: of the first channels and of the last.
#[inline(always)]
pub(super) fn zip_bytes([a, b, c, d]: [int8x16_t; 4]) -> [[int16x8_t; 2]; 2] {
    // SAFETY: NEON is there.
    unsafe {
        [
            [vzip1q_s8(a, b), vzip2q_s8(a, b)],
            [vzip1q_s8(c, d), vzip2q_s8(c, d)],
        ]
        .map(|pair| pair.map(|x| vreinterpretq_s16_s8(x)))
    }
}

/// A kernel by one way to multiply.
#[derive(Debug)]
pub(super) struct Neon<P>(pub(super) P);

impl<P: Products> Kernel for Neon<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }

    /// `[outputs / 16]` blocks: what the flip takes, then `[depth / 4]` lines.
    fn pack_dense(&self, weight: &[i8], depth: usize) -> Lines {
        let block = 1 + depth / 4;
        let outputs = weight.len() / depth;
        // One more, which is loaded behind the last step.
        let mut lines = vec![Line([0; 64]); outputs.div_ceil(LANES) * block + 1];
        for (o, filter) in weight.chunks_exact(depth).enumerate() {
            let lines = &mut lines[o / LANES * block..][..block];
            pack_flip(&mut lines[0], o % LANES, filter);
            let (quads, _) = filter.as_chunks::<4>();
            for (line, quad) in lines[1..].iter_mut().zip(quads) {
                for (nth, &w) in quad.iter().enumerate() {
                    line.0[place::<P>(o % LANES, nth)] = w;
                }
            }
        }
        lines
    }

    fn dense(&self, layer: &Dense, patches: Patches, out: &mut [u8]) {
        let run = layer.check(&patches, out);
        let blocks = layer.outputs.div_ceil(LANES);
        assert!(layer.weight.len() == blocks * (1 + layer.depth / 4) + 1);
        // SAFETY: patches, weights and output were checked.
        unsafe { dense::<P>(layer, patches, run, out) }
    }

    /// [`blocks`] of [`WINDOW`] lines; the rows of the second place are a row further down.
    fn pack_depthwise(&self, weight: &[i8]) -> Lines {
        let (windows, _) = weight.as_chunks::<9>();
        let mut lines = Lines::new();
        for channel in blocks(windows.len()) {
            let mut block = [Line([0; 64]); WINDOW];
            for (c, window) in windows[channel..].iter().take(LANES).enumerate() {
                pack_flip(&mut block[0], c, window);
                for (tap, &w) in window.iter().enumerate() {
                    for lower in 0..2 {
                        let line = 1 + lower * COLUMNS + tap % 3;
                        block[line].0[place::<P>(c, tap / 3 + lower)] = w;
                    }
                }
            }
            lines.extend(block);
        }
        lines
    }

    fn depthwise_scratch(&self, width: usize) -> usize {
        (width + 2) * 64
    }

    fn depthwise(&self, layer: &Depthwise, rows: Rows, out: &mut [u8], scratch: &mut [u8]) {
        layer.check(&rows, out);
        assert!(layer.weight.len() == layer.channels.div_ceil(LANES) * WINDOW);
        assert!(scratch.len() >= self.depthwise_scratch(rows.width));
        for (block, channel) in blocks(layer.channels).enumerate() {
            let block = Block {
                layer,
                rows,
                weight: &layer.weight[block * WINDOW..][..WINDOW],
                channel,
            };
            // SAFETY: rows, weights, output and scratch were checked.
            unsafe {
                match (layer.channels >= LANES, layer.stride) {
                    (true, 1) => block.rows::<P, true, 1>(scratch, out),
                    (true, _) => block.rows::<P, true, 2>(scratch, out),
                    (false, 1) => block.rows::<P, false, 1>(scratch, out),
                    (false, _) => block.rows::<P, false, 2>(scratch, out),
                }
            }
        }
    }

    fn add(&self, sum: &Sum, a: &[u8], b: &[u8], out: &mut [u8]) {
        assert!(a.len() == out.len() && b.len() == out.len());
        match out.len() {
            // SAFETY: all three have one length, which is that of a register at least.
            LANES.. => unsafe { add(sum, a, b, out) },
            _ => portable::add(sum, a, b, out),
        }
    }

    fn pool(&self, pool: &Pool, pixels: &[u8], out: &mut [u8]) {
        assert!(!out.is_empty() && pixels.len().is_multiple_of(out.len()));
        match out.len() {
            // SAFETY: pixels are whole and have a register's channels at least.
            LANES.. => unsafe { mean(pool, pixels, out) },
            _ => portable::pool(pool, pixels, out),
        }
    }
}

/// Where in a line the `nth` of the four weights of an output lies.
fn place<P: Products>(output: usize, nth: usize) -> usize {
    output / 4 * 16 + P::place(output % 4, nth)
}

/// Writes what the flip of all bytes takes from an output's sum.
fn pack_flip(line: &mut Line, output: usize, weight: &[i8]) {
    let taken: i32 = weight.iter().map(|&w| 128 * i32::from(w)).sum();
    let bytes = taken.to_ne_bytes().map(|byte| byte as i8);
    line.0[4 * output..][..4].copy_from_slice(&bytes);
}

/// First of the sixteen that each block has: the last block ends where they do, so that it may share some
/// with the one before.
fn blocks(count: usize) -> impl Iterator<Item = usize> {
    let last = count.saturating_sub(LANES);
    (0..count).step_by(LANES).map(move |at| at.min(last))
}

/// What turns sums into bytes.
#[derive(Clone, Copy)]
struct Finish {
    zero: int16x8_t,
    low: uint8x16_t,
    high: uint8x16_t,
}

impl Finish {
    #[inline(always)]
    fn new(rounding: Rounding) -> Self {
        // SAFETY: NEON is there.
        unsafe {
            Self {
                zero: vdupq_n_s16(i16::from(rounding.zero)),
                low: vdupq_n_u8(rounding.range.low),
                high: vdupq_n_u8(rounding.range.high),
            }
        }
    }

    /// Scaled sums as bytes. Narrowing saturates, which is the clamp to a byte: what is beyond an i16 is
    /// beyond a byte as well.
    #[inline(always)]
    fn bytes(&self, [a, b, c, d]: [float32x4_t; QUADS]) -> uint8x16_t {
        // SAFETY: NEON is there.
        unsafe {
            let low = vqmovn_s32(vcvtnq_s32_f32(a));
            let low = vqmovn_high_s32(low, vcvtnq_s32_f32(b));
            let high = vqmovn_s32(vcvtnq_s32_f32(c));
            let high = vqmovn_high_s32(high, vcvtnq_s32_f32(d));
            let bytes = vqmovun_s16(vqaddq_s16(low, self.zero));
            let bytes = vqmovun_high_s16(bytes, vqaddq_s16(high, self.zero));
            vminq_u8(vmaxq_u8(bytes, self.low), self.high)
        }
    }

    /// Sums of `N` registers as bytes.
    #[inline(always)]
    fn sums<const N: usize>(
        &self,
        sums: [int32x4_t; N],
        multipliers: [float32x4_t; N],
    ) -> uint8x16_t {
        // SAFETY: NEON is there.
        unsafe {
            let mut scaled = [vdupq_n_f32(0.0); QUADS];
            for n in 0..N {
                scaled[n] = vmulq_f32(vcvtq_f32_s32(sums[n]), multipliers[n]);
            }
            self.bytes(scaled)
        }
    }
}

/// `N` registers of words.
///
/// # Safety
/// `from` has as many.
#[inline(always)]
unsafe fn words<const N: usize>(from: *const i32) -> [int32x4_t; N] {
    // SAFETY: as above.
    unsafe { std::array::from_fn(|n| vld1q_s32(from.add(4 * n))) }
}

/// `N` registers of floats.
///
/// # Safety
/// `from` has as many.
#[inline(always)]
unsafe fn floats<const N: usize>(from: *const f32) -> [float32x4_t; N] {
    // SAFETY: as above.
    unsafe { std::array::from_fn(|n| vld1q_f32(from.add(4 * n))) }
}

/// What `N` registers of sums start with.
///
/// # Safety
/// `bias` has as many words, and `taken` is a line of a packed weight.
#[inline(always)]
unsafe fn start<const N: usize>(bias: *const i32, taken: *const Line) -> [int32x4_t; N] {
    // SAFETY: as above; a line has four registers.
    unsafe {
        let (bias, taken) = (words::<N>(bias), words::<N>(taken.cast()));
        std::array::from_fn(|n| vaddq_s32(bias[n], taken[n]))
    }
}

/// Signed bytes, 128 less than unsigned ones.
#[inline(always)]
fn flip(bytes: uint8x16_t) -> int8x16_t {
    // SAFETY: NEON is there.
    unsafe { vreinterpretq_s8_u8(veorq_u8(bytes, vdupq_n_u8(128))) }
}

/// The first `count` of sixteen bytes; the others are 0.
///
/// # Safety
/// `from` has so many.
#[inline(always)]
unsafe fn load(from: *const u8, count: usize) -> uint8x16_t {
    // SAFETY: as above; `some` has sixteen.
    unsafe {
        if count >= LANES {
            return vld1q_u8(from);
        }
        let mut some = [0; LANES];
        std::ptr::copy_nonoverlapping(from, some.as_mut_ptr(), count);
        vld1q_u8(some.as_ptr())
    }
}

/// Stores the first `count` of sixteen bytes.
///
/// # Safety
/// `to` has room for so many.
#[inline(always)]
unsafe fn store(mut to: *mut u8, mut bytes: uint8x16_t, count: usize) {
    // SAFETY: each store is of bytes that are left.
    unsafe {
        if count >= LANES {
            vst1q_u8(to, bytes);
            return;
        }
        if count & 8 != 0 {
            vst1_u8(to, vget_low_u8(bytes));
            (to, bytes) = (to.add(8), vextq_u8::<8>(bytes, bytes));
        }
        if count & 4 != 0 {
            let four = vgetq_lane_u32::<0>(vreinterpretq_u32_u8(bytes));
            to.cast::<u32>().write_unaligned(four);
            (to, bytes) = (to.add(4), vextq_u8::<4>(bytes, bytes));
        }
        if count & 2 != 0 {
            let two = vgetq_lane_u16::<0>(vreinterpretq_u16_u8(bytes));
            to.cast::<u16>().write_unaligned(two);
            (to, bytes) = (to.add(2), vextq_u8::<2>(bytes, bytes));
        }
        if count & 1 != 0 {
            to.write(vgetq_lane_u8::<0>(bytes));
        }
    }
}

/// # Safety
/// As [`Dense::check`] has it, with `run` bytes of a patch in each row, and a packed weight of all outputs.
unsafe fn dense<P: Products>(layer: &Dense, patches: Patches, run: usize, out: &mut [u8]) {
    let near = (NEAR / (patches.rows.len() * patches.step).max(1)).max(P::PATCHES);
    for first in (0..patches.count).step_by(near) {
        let count = near.min(patches.count - first);
        for block in 0..layer.outputs.div_ceil(LANES) {
            let tiles = Tiles {
                layer,
                patches,
                run,
                block,
            };
            // SAFETY: patches and blocks are among those that were checked.
            unsafe {
                match (layer.outputs - block * LANES).div_ceil(4) {
                    1 => tiles.all::<P, 1>(first, count, out),
                    2 => tiles.all::<P, 2>(first, count, out),
                    3 => tiles.all::<P, 3>(first, count, out),
                    _ => tiles.all::<P, 4>(first, count, out),
                }
            }
        }
    }
}

/// Outputs of a block, of all patches.
#[derive(Clone, Copy)]
struct Tiles<'a> {
    layer: &'a Dense,
    patches: Patches<'a>,
    run: usize,
    block: usize,
}

impl Tiles<'_> {
    /// `count` patches from `first` on.
    ///
    /// # Safety
    /// As [`dense`]; the patches and the block exist, and the block has more than `4 * (N - 1)` outputs.
    #[inline(never)]
    unsafe fn all<P: Products, const N: usize>(self, first: usize, count: usize, out: &mut [u8]) {
        let tiles = count.div_ceil(P::PATCHES);
        for tile in 0..tiles {
            // As even as can be.
            let (from, to) = (count * tile / tiles, count * (tile + 1) / tiles);
            let at = first + from;
            // SAFETY: as above.
            unsafe {
                match to - from {
                    1 => self.tile::<P, N, 1>(at, out),
                    2 => self.tile::<P, N, 2>(at, out),
                    3 => self.tile::<P, N, 3>(at, out),
                    4 if P::PATCHES > 3 => self.tile::<P, N, 4>(at, out),
                    5 if P::PATCHES > 4 => self.tile::<P, N, 5>(at, out),
                    _ => unreachable!("no more than there are"),
                }
            }
        }
    }

    /// `M` patches from `from` on by `N` registers of outputs.
    ///
    /// # Safety
    /// As [`Tiles::all`].
    unsafe fn tile<P: Products, const N: usize, const M: usize>(self, from: usize, out: &mut [u8]) {
        let Self {
            layer,
            patches,
            run,
            block,
        } = self;
        let first = block * LANES;
        // SAFETY: lines of a block, and of the padded bias and multipliers, exist; a patch has `run` bytes
        // in each row; only outputs that exist are stored.
        unsafe {
            let line = layer.weight.as_ptr().add(block * (1 + layer.depth / 4));
            let mut sums = [start::<N>(layer.bias.as_ptr().add(first), line); M];
            let mut weight = line.add(1).cast::<i8>();
            let mut w: [int8x16_t; N] = std::array::from_fn(|n| vld1q_s8(weight.add(16 * n)));
            for row in patches.rows {
                let patch = row.as_ptr().add(from * patches.step);
                let whole = run / 16 * 16;
                for at in (0..whole).step_by(16) {
                    let patch = patch.add(at);
                    let x = std::array::from_fn(|m| flip(vld1q_u8(patch.add(m * patches.step))));
                    step::<P, N, M, 0>(&mut sums, &mut w, x, weight.add(64));
                    step::<P, N, M, 1>(&mut sums, &mut w, x, weight.add(128));
                    step::<P, N, M, 2>(&mut sums, &mut w, x, weight.add(192));
                    step::<P, N, M, 3>(&mut sums, &mut w, x, weight.add(256));
                    weight = weight.add(256);
                }
                let patch = patch.add(whole);
                if run - whole >= 8 {
                    let x = std::array::from_fn(|m| {
                        let eight = vld1_u8(patch.add(m * patches.step));
                        flip(vcombine_u8(eight, eight))
                    });
                    step::<P, N, M, 0>(&mut sums, &mut w, x, weight.add(64));
                    step::<P, N, M, 1>(&mut sums, &mut w, x, weight.add(128));
                    weight = weight.add(128);
                }
                if run % 8 != 0 {
                    let patch = patch.add(run - whole - 4);
                    let x = std::array::from_fn(|m| {
                        let four = patch.add(m * patches.step).cast::<u32>();
                        flip(vreinterpretq_u8_u32(vdupq_n_u32(four.read_unaligned())))
                    });
                    step::<P, N, M, 0>(&mut sums, &mut w, x, weight.add(64));
                    weight = weight.add(64);
                }
            }
            let multipliers = floats::<N>(layer.multipliers.as_ptr().add(first));
            let done = Finish::new(layer.rounding);
            let stored = (layer.outputs - first).min(LANES);
            let out = out.as_mut_ptr().add(from * layer.outputs + first);
            let bytes = sums.map(|sums| done.sums(sums, multipliers));
            for (m, bytes) in bytes.into_iter().enumerate() {
                store(out.add(m * layer.outputs), bytes, stored);
            }
        }
    }
}

/// Adds products of the `STEP`th four bytes of each patch and loads the weights of the next step, each as
/// soon as its register is free.
///
/// # Safety
/// `next` is a line.
#[inline(always)]
unsafe fn step<P: Products, const N: usize, const M: usize, const STEP: i32>(
    sums: &mut [[int32x4_t; N]; M],
    w: &mut [int8x16_t; N],
    x: [int8x16_t; M],
    next: *const i8,
) {
    let x = x.map(P::spread::<STEP>);
    for n in 0..N {
        for m in 0..M {
            sums[m][n] = P::broadcast::<STEP>(sums[m][n], w[n], x[m]);
        }
        // SAFETY: as above.
        w[n] = unsafe { vld1q_s8(next.add(16 * n)) };
    }
}

/// A block of channels of a depthwise convolution.
#[derive(Clone, Copy)]
struct Block<'a> {
    layer: &'a Depthwise,
    rows: Rows<'a>,
    /// Of this block.
    weight: &'a [Line],
    /// The first channel.
    channel: usize,
}

impl Block<'_> {
    /// Channels of the block, which are [`LANES`] if it is `WHOLE`.
    #[inline(always)]
    fn used<const WHOLE: bool>(&self) -> usize {
        match WHOLE {
            true => LANES,
            false => self.layer.channels,
        }
    }

    /// All rows that come out.
    ///
    /// # Safety
    /// As [`Depthwise::check`] has it, with stride `S`; `woven` has room.
    #[inline(never)]
    unsafe fn rows<P: Products, const WHOLE: bool, const S: usize>(
        &self,
        woven: &mut [u8],
        out: &mut [u8],
    ) {
        let Self { layer, rows, .. } = *self;
        let count = layer.channels;
        // SAFETY: outputs exist, and the lines that each is made of.
        unsafe {
            self.weave::<P, WHOLE>(woven);
            let mut to = out.as_mut_ptr().add(self.channel);
            for y in 0..rows.count {
                let mut from = woven.as_ptr().cast::<i8>().add((1 - layer.left) * 64);
                let mut left = rows.outputs;
                while WHOLE && left >= 4 {
                    self.outputs::<P, WHOLE, S, 4>(y, from, to);
                    (from, to) = (from.add(4 * S * 64), to.add(4 * count));
                    left -= 4;
                }
                while WHOLE && left >= 2 {
                    self.outputs::<P, WHOLE, S, 2>(y, from, to);
                    (from, to) = (from.add(2 * S * 64), to.add(2 * count));
                    left -= 2;
                }
                while left > 0 {
                    self.outputs::<P, WHOLE, S, 1>(y, from, to);
                    (from, to) = (from.add(S * 64), to.add(count));
                    left -= 1;
                }
            }
        }
    }

    /// Stores a line for each pixel of a row that goes in, and one of padding at both ends.
    ///
    /// # Safety
    /// As [`Block::rows`].
    #[inline(always)]
    unsafe fn weave<P: Products, const WHOLE: bool>(&self, woven: &mut [u8]) {
        let count = self.layer.channels;
        let used = self.used::<WHOLE>();
        let to = woven.as_mut_ptr().cast::<i8>();
        // SAFETY: the block's channels are read of each row.
        unsafe {
            let write = |line: usize, rows: [uint8x16_t; 4]| {
                let woven = P::weave(rows.map(flip));
                for (v, woven) in woven.into_iter().enumerate() {
                    vst1q_s8(to.add(64 * line + 16 * v), woven);
                }
            };
            let padding = [vdupq_n_u8(self.layer.padding); 4];
            write(0, padding);
            let rows = self.rows.rows.map(|row| row.as_ptr().add(self.channel));
            for x in 0..self.rows.width {
                write(1 + x, rows.map(|row| load(row.add(x * count), used)));
            }
            write(1 + self.rows.width, padding);
        }
    }

    /// `M` outputs of row `y` side by side, 4 at most.
    ///
    /// # Safety
    /// `from` has the lines that they are made of, `to` room for them.
    #[inline(always)]
    unsafe fn outputs<P: Products, const WHOLE: bool, const S: usize, const M: usize>(
        &self,
        y: usize,
        from: *const i8,
        to: *mut u8,
    ) {
        let Self { layer, channel, .. } = *self;
        // SAFETY: as above; bias and multipliers are padded.
        unsafe {
            let multipliers = floats::<QUADS>(layer.multipliers.as_ptr().add(channel));
            let done = Finish::new(layer.rounding);
            let [a, b, c, d] = [
                self.sums::<P, S, M>(y, 0, from),
                self.sums::<P, S, M>(y, 1, from),
                self.sums::<P, S, M>(y, 2, from),
                self.sums::<P, S, M>(y, 3, from),
            ];
            let bytes: [uint8x16_t; M] =
                std::array::from_fn(|m| done.sums([a[m], b[m], c[m], d[m]], multipliers));
            for (m, bytes) in bytes.into_iter().enumerate() {
                store(to.add(m * layer.channels), bytes, self.used::<WHOLE>());
            }
        }
    }

    /// Sums of the `v`th four channels.
    ///
    /// # Safety
    /// As [`Block::outputs`].
    #[inline(always)]
    unsafe fn sums<P: Products, const S: usize, const M: usize>(
        &self,
        y: usize,
        v: usize,
        from: *const i8,
    ) -> [int32x4_t; M] {
        // SAFETY: as above.
        unsafe {
            let bias = self.layer.bias.as_ptr().add(self.channel + 4 * v);
            let taken = self.weight.as_ptr().cast::<i32>().add(4 * v);
            let mut sums = [vaddq_s32(vld1q_s32(bias), vld1q_s32(taken)); M];
            let weight = self.weight.as_ptr().add(1 + y * COLUMNS).cast::<i8>();
            let column = |from: *const i8, column: usize| vld1q_s8(from.add(64 * column + 16 * v));
            let w: [int8x16_t; COLUMNS] = std::array::from_fn(|nth| column(weight, nth));
            // As many columns as four outputs of stride 2 are made of.
            let mut x = [vdupq_n_s8(0); COLUMNS + 6];
            for (nth, x) in x.iter_mut().enumerate().take(COLUMNS + S * (M - 1)) {
                *x = column(from, nth);
            }
            for nth in 0..COLUMNS {
                for m in 0..M {
                    sums[m] = P::add(sums[m], w[nth], x[S * m + nth]);
                }
            }
            sums
        }
    }
}

/// # Safety
/// `a`, `b` and `out` have one length, sixteen at least.
unsafe fn add(sum: &Sum, a: &[u8], b: &[u8], out: &mut [u8]) {
    let done = Finish::new(Rounding {
        zero: sum.zero,
        range: sum.range,
    });
    for at in blocks(out.len()) {
        // SAFETY: sixteen bytes from `at` on exist.
        unsafe {
            let term = |bytes: &[u8], nth: usize| {
                let bytes = vld1q_u8(bytes.as_ptr().add(at));
                let zero = vdupq_n_u8(sum.zeros[nth]);
                let low = vsubl_u8(vget_low_u8(bytes), vget_low_u8(zero));
                let low = vreinterpretq_s16_u16(low);
                let high = vreinterpretq_s16_u16(vsubl_high_u8(bytes, zero));
                let centred = [
                    vmovl_s16(vget_low_s16(low)),
                    vmovl_high_s16(low),
                    vmovl_s16(vget_low_s16(high)),
                    vmovl_high_s16(high),
                ];
                centred.map(|x| vmulq_n_f32(vcvtq_f32_s32(x), sum.multipliers[nth]))
            };
            let (a, b) = (term(a, 0), term(b, 1));
            let scaled = std::array::from_fn(|v| vaddq_f32(a[v], b[v]));
            vst1q_u8(out.as_mut_ptr().add(at), done.bytes(scaled));
        }
    }
}

/// # Safety
/// `pixels` are whole pixels of `out`'s length, which is sixteen at least.
unsafe fn mean(pool: &Pool, pixels: &[u8], out: &mut [u8]) {
    let channels = out.len();
    let count = pixels.len() / channels;
    let done = Finish::new(pool.rounding);
    for at in blocks(channels) {
        // SAFETY: sixteen channels from `at` on exist.
        unsafe {
            let mut sums = [vdupq_n_s32(-i32::from(pool.zero) * count as i32); QUADS];
            for pixel in 0..count {
                let bytes = vld1q_u8(pixels.as_ptr().add(pixel * channels + at));
                let low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(bytes)));
                let high = vreinterpretq_s16_u16(vmovl_high_u8(bytes));
                sums = [
                    vaddw_s16(sums[0], vget_low_s16(low)),
                    vaddw_high_s16(sums[1], low),
                    vaddw_s16(sums[2], vget_low_s16(high)),
                    vaddw_high_s16(sums[3], high),
                ];
            }
            let bytes = done.sums(sums, [vdupq_n_f32(pool.multiplier); QUADS]);
            vst1q_u8(out.as_mut_ptr().add(at), bytes);
        }
    }
}

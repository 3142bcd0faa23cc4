//! Plain Rust: the reference, and what runs where no other kernel does, on ARMv7 above all.
//!
//! Bytes become words of 16 bits before they are multiplied: of products of words compilers make vectors on any
//! processor (`vmlal.s16`, `pmaddwd`), of those of bytes few do.

use std::iter;

use super::super::arithmetic::{Sum, requantize};
use super::{Dense, Depthwise, Kernel, Lines, Patches, Pool, Rounding, Rows, bytes, lines};

/// Channels whose sums lie on the stack at once.
const BLOCK: usize = 64;

/// Filters that are multiplied at once, with two patches: ARMv7 has registers for as many vectors of sums.
const FILTERS: usize = 4;

/// Bytes of a patch's row that lie on the stack as words at once.
const RUN: usize = 256;

#[derive(Debug)]
pub(super) struct Portable;

impl Kernel for Portable {
    fn name(&self) -> &'static str {
        "portable"
    }

    /// `[outputs][depth]` words, of outputs in whole groups.
    fn pack_dense(&self, weight: &[i8], depth: usize) -> Lines {
        let outputs = (weight.len() / depth).next_multiple_of(FILTERS);
        let nothing = iter::repeat(&0);
        words(weight.iter().chain(nothing).take(outputs * depth))
    }

    fn dense(&self, layer: &Dense, patches: Patches, out: &mut [u8]) {
        let run = layer.check(&patches, out);
        let (weights, _) = bytes(&layer.weight).as_chunks::<2>();
        let weights = &weights[..layer.outputs.next_multiple_of(FILTERS) * layer.depth];
        let mut pair = [[0; RUN]; 2];
        for (nth, pixels) in out.chunks_mut(2 * layer.outputs).enumerate() {
            // The last patch is its own neighbour where it has none.
            let last = patches.count.min(2 * nth + 2) - 1;
            let at = [2 * nth, last].map(|nth| nth * patches.step);
            for first in (0..layer.outputs).step_by(BLOCK) {
                let (bias, _) = layer.bias[first..].as_chunks::<BLOCK>();
                let mut sums = [bias[0]; 2];
                for (nth, row) in patches.rows.iter().enumerate() {
                    for begin in (0..run).step_by(RUN) {
                        let length = RUN.min(run - begin);
                        for (patch, at) in pair.iter_mut().zip(at) {
                            widen(patch, &row[at + begin..][..length]);
                        }
                        let pair = pair.each_ref().map(|patch| &patch[..length]);
                        let weights = &weights[first * layer.depth + nth * run + begin..];
                        multiply(weights, layer.depth, pair, &mut sums);
                    }
                }
                let multipliers = &layer.multipliers[first..];
                for (pixel, sums) in pixels.chunks_exact_mut(layer.outputs).zip(&sums) {
                    round(&mut pixel[first..], sums, multipliers, layer.rounding);
                }
            }
        }
    }

    /// `[channels / 64][9][64]` words.
    fn pack_depthwise(&self, weight: &[i8]) -> Lines {
        let (filters, _) = weight.as_chunks::<9>();
        let blocks = filters.chunks(BLOCK).flat_map(|filters| {
            let channel =
                move |tap: usize, c: usize| filters.get(c).map_or(&0, |filter| &filter[tap]);
            (0..9).flat_map(move |tap| (0..BLOCK).map(move |c| channel(tap, c)))
        });
        words(blocks)
    }

    fn depthwise_scratch(&self, _width: usize) -> usize {
        0
    }

    fn depthwise(&self, layer: &Depthwise, rows: Rows, out: &mut [u8], _scratch: &mut [u8]) {
        layer.check(&rows, out);
        let channels = layer.channels;
        let (weights, _) = bytes(&layer.weight).as_chunks::<2>();
        let (weights, _) = weights.as_chunks::<BLOCK>();
        let (weights, _) = weights.as_chunks::<9>();
        for (block, weights) in weights.iter().enumerate() {
            let first = block * BLOCK;
            let wide = BLOCK.min(channels - first);
            let (bias, _) = layer.bias[first..].as_chunks::<BLOCK>();
            let multipliers = &layer.multipliers[first..];
            for (y, out) in out.chunks_exact_mut(rows.outputs * channels).enumerate() {
                // Of three columns, those that were met last: a column's place is its number modulo three.
                let mut columns = [[[0; BLOCK]; 3]; 3];
                let mut met = 0;
                for (x, pixel) in out.chunks_exact_mut(channels).enumerate() {
                    let left = x * layer.stride;
                    while met < left + 3 {
                        let column = met.checked_sub(layer.left).filter(|&x| x < rows.width);
                        for (to, row) in columns[met % 3].iter_mut().zip(&rows.rows[y..]) {
                            let to = &mut to[..wide];
                            match column {
                                Some(x) => widen(to, &row[x * channels + first..][..wide]),
                                None => to.fill(layer.padding.into()),
                            }
                        }
                        met += 1;
                    }
                    let columns = [0, 1, 2].map(|right| &columns[(left + right) % 3]);
                    let mut sums = bias[0];
                    convolve(&mut sums, columns, weights, wide);
                    round(
                        &mut pixel[first..][..wide],
                        &sums,
                        multipliers,
                        layer.rounding,
                    );
                }
            }
        }
    }
}

/// Weights as words of 16 bits, low byte first.
fn words<'a>(weight: impl Iterator<Item = &'a i8>) -> Lines {
    let words = weight.flat_map(|&w| i16::from(w).to_le_bytes().map(|byte| byte as i8));
    lines(&words.collect::<Vec<i8>>())
}

/// The weight that two packed bytes are. Written as a loop, for which LLVM loads both at once.
fn weight(word: [i8; 2]) -> i32 {
    let mut bytes = [0; 2];
    for at in 0..2 {
        bytes[at] = word[at] as u8;
    }
    i16::from_le_bytes(bytes).into()
}

fn widen(to: &mut [i16], from: &[u8]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = from.into();
    }
}

/// Adds to a block's sums the products of two patches with filters that lie `depth` words apart.
fn multiply(weights: &[[i8; 2]], depth: usize, pair: [&[i16]; 2], sums: &mut [[i32; BLOCK]; 2]) {
    let groups = weights.chunks(FILTERS * depth).take(BLOCK / FILTERS);
    for (group, weights) in groups.enumerate() {
        let filter = |nth: usize| &weights[nth * depth..][..pair[0].len()];
        let dots = dots([filter(0), filter(1), filter(2), filter(3)], pair);
        for (sums, dots) in sums.iter_mut().zip(&dots) {
            for (sum, dot) in sums[group * FILTERS..].iter_mut().zip(dots) {
                *sum += dot;
            }
        }
    }
}

/// The products of four filters and two patches, summed.
fn dots([a, b, c, d]: [&[[i8; 2]]; FILTERS], [x, y]: [&[i16]; 2]) -> [[i32; FILTERS]; 2] {
    let mut sums = [[0; FILTERS]; 2];
    let filters = a.iter().zip(b).zip(c).zip(d);
    for ((((&a, &b), &c), &d), (&x, &y)) in filters.zip(x.iter().zip(y)) {
        let pair = [i32::from(x), i32::from(y)];
        let filters = [weight(a), weight(b), weight(c), weight(d)];
        for patch in 0..2 {
            for filter in 0..FILTERS {
                sums[patch][filter] += pair[patch] * filters[filter];
            }
        }
    }
    sums
}

/// Adds to sums of channels the products of a window of three columns.
fn convolve(
    sums: &mut [i32; BLOCK],
    columns: [&[[i16; BLOCK]; 3]; 3],
    weights: &[[[i8; 2]; BLOCK]; 9],
    wide: usize,
) {
    for c in 0..wide.min(BLOCK) {
        for row in 0..3 {
            for column in 0..3 {
                let x = i32::from(columns[column][row][c]);
                sums[c] += x * weight(weights[3 * row + column][c]);
            }
        }
    }
}

fn round(out: &mut [u8], sums: &[i32], multipliers: &[f32], rounding: Rounding) {
    for ((byte, &sum), &multiplier) in out.iter_mut().zip(sums).zip(multipliers) {
        *byte = requantize(sum, multiplier, rounding.zero, rounding.range);
    }
}

pub(super) fn add(sum: &Sum, a: &[u8], b: &[u8], out: &mut [u8]) {
    for ((&a, &b), out) in a.iter().zip(b).zip(out) {
        *out = sum.add(a, b);
    }
}

pub(super) fn pool(pool: &Pool, pixels: &[u8], out: &mut [u8]) {
    let channels = out.len();
    let zeros = i32::from(pool.zero) * (pixels.len() / channels) as i32;
    for (block, out) in out.chunks_mut(BLOCK).enumerate() {
        let mut sums = [-zeros; BLOCK];
        for pixel in pixels.chunks_exact(channels) {
            let bytes = &pixel[block * BLOCK..][..out.len()];
            for (sum, &byte) in sums.iter_mut().zip(bytes) {
                *sum += i32::from(byte);
            }
        }
        round(out, &sums, &[pool.multiplier; BLOCK], pool.rounding);
    }
}

//! Plain Rust: the reference, and what runs where no other kernel does.

use super::super::arithmetic::{Sum, requantize};
use super::{Dense, Depthwise, Kernel, Lines, Patches, Pool, Rounding, Rows, bytes, lines};

/// Channels whose sums lie on the stack at once.
const BLOCK: usize = 64;

#[derive(Debug)]
pub(super) struct Portable;

impl Kernel for Portable {
    fn name(&self) -> &'static str {
        "portable"
    }

    fn pack_dense(&self, weight: &[i8], _depth: usize) -> Lines {
        lines(weight)
    }

    fn dense(&self, layer: &Dense, patches: Patches, out: &mut [u8]) {
        let run = layer.check(&patches, out);
        let filters = bytes(&layer.weight);
        for (nth, pixel) in out.chunks_exact_mut(layer.outputs).enumerate() {
            let at = nth * patches.step;
            for (o, byte) in pixel.iter_mut().enumerate() {
                let filter = &filters[o * layer.depth..][..layer.depth];
                let pieces = patches.rows.iter().zip(filter.chunks_exact(run));
                let sums = pieces.map(|(row, filter)| dot(&row[at..][..run], filter));
                let sum = layer.bias[o] + sums.sum::<i32>();
                *byte = round(sum, layer.multipliers[o], layer.rounding);
            }
        }
    }

    fn pack_depthwise(&self, weight: &[i8]) -> Lines {
        lines(weight)
    }

    fn depthwise_scratch(&self, _width: usize) -> usize {
        0
    }

    fn depthwise(&self, layer: &Depthwise, rows: Rows, out: &mut [u8], _scratch: &mut [u8]) {
        layer.check(&rows, out);
        let (filters, _) = bytes(&layer.weight).as_chunks::<9>();
        let channels = layer.channels;
        for (y, out) in out.chunks_exact_mut(rows.outputs * channels).enumerate() {
            for (x, pixel) in out.chunks_exact_mut(channels).enumerate() {
                for (c, byte) in pixel.iter_mut().enumerate() {
                    let mut sum = layer.bias[c];
                    for (tap, &weight) in filters[c].iter().enumerate() {
                        let column = (x * layer.stride + tap % 3).checked_sub(layer.left);
                        let inside = column.filter(|&column| column < rows.width);
                        let row = rows.rows[y + tap / 3];
                        let value = inside.map_or(layer.padding, |x| row[x * channels + c]);
                        sum += i32::from(value) * i32::from(weight);
                    }
                    *byte = round(sum, layer.multipliers[c], layer.rounding);
                }
            }
        }
    }
}

fn round(sum: i32, multiplier: f32, rounding: Rounding) -> u8 {
    requantize(sum, multiplier, rounding.zero, rounding.range)
}

fn dot(bytes: &[u8], filter: &[i8]) -> i32 {
    let products = bytes.iter().zip(filter);
    products.map(|(&x, &w)| i32::from(x) * i32::from(w)).sum()
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
        for (byte, sum) in out.iter_mut().zip(sums) {
            *byte = round(sum, pool.multiplier, pool.rounding);
        }
    }
}

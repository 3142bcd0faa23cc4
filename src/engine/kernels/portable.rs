//! Plain Rust: the reference, and what runs where no other kernel does.

use super::super::arithmetic::{Sum, requantize};
use super::{Dense, Depthwise, Kernel, Lines, Patches, Pool, Rounding, Rows, bytes, lines};

/// Channels whose sums lie on the stack at once.
const BLOCK: usize = 64;

/// Outputs that are summed at once.
const LANES: usize = 16;

#[derive(Debug)]
pub(super) struct Portable;

impl Kernel for Portable {
    fn name(&self) -> &'static str {
        "portable"
    }

    /// `[outputs / 16][depth][16]`, so that compilers make vectors of sums.
    fn pack_dense(&self, weight: &[i8], depth: usize) -> Lines {
        let outputs = weight.len() / depth;
        let mut packed = vec![0; outputs.next_multiple_of(LANES) * depth];
        for (o, filter) in weight.chunks_exact(depth).enumerate() {
            let block = &mut packed[o / LANES * LANES * depth..];
            let places = block[o % LANES..].iter_mut().step_by(LANES);
            for (to, &from) in places.zip(filter) {
                *to = from;
            }
        }
        lines(&packed)
    }

    fn dense(&self, layer: &Dense, patches: Patches, out: &mut [u8]) {
        let run = layer.check(&patches, out);
        let (taps, _) = bytes(&layer.weight).as_chunks::<LANES>();
        for (nth, pixel) in out.chunks_exact_mut(layer.outputs).enumerate() {
            let at = nth * patches.step;
            for (block, outputs) in pixel.chunks_mut(LANES).enumerate() {
                let first = block * LANES;
                let (bias, _) = layer.bias[first..].as_chunks::<LANES>();
                let mut sums = bias[0];
                let taps = &taps[block * layer.depth..][..layer.depth];
                for (row, taps) in patches.rows.iter().zip(taps.chunks_exact(run)) {
                    for (&x, taps) in row[at..][..run].iter().zip(taps) {
                        for (sum, &w) in sums.iter_mut().zip(taps) {
                            *sum += product(x, w);
                        }
                    }
                }
                let multipliers = &layer.multipliers[first..];
                for ((byte, sum), &multiplier) in outputs.iter_mut().zip(sums).zip(multipliers) {
                    *byte = round(sum, multiplier, layer.rounding);
                }
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
                        sum += product(value, weight);
                    }
                    *byte = round(sum, layer.multipliers[c], layer.rounding);
                }
            }
        }
    }
}

/// Both fit into 16 bits, and so does their product, for weights reach from -127 to 127.
fn product(x: u8, weight: i8) -> i32 {
    i32::from(i16::from(x) * i16::from(weight))
}

fn round(sum: i32, multiplier: f32, rounding: Rounding) -> u8 {
    requantize(sum, multiplier, rounding.zero, rounding.range)
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

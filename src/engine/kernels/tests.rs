//! Every kernel that runs here against the portable one, to the byte, and the portable one against the
//! definition of each operator.

use super::super::noise::{Noise, cases};
use super::*;

/// The byte that a sum becomes, by the text of the arithmetic.
fn byte(sum: i64, multiplier: f32, rounding: Rounding) -> u8 {
    let zero = f32::from(rounding.zero);
    let scaled = sum as f32 * multiplier;
    let low = f32::from(rounding.range.low) - zero;
    let high = f32::from(rounding.range.high) - zero;
    (scaled.clamp(low, high).round_ties_even() + zero) as u8
}

fn padded<T: Clone + Default>(mut values: Vec<T>, channels: usize) -> Vec<T> {
    values.resize(channels.next_multiple_of(PADDED), T::default());
    values
}

/// A dense convolution of random shape: what portable arithmetic makes of it, and what each kernel does.
#[test]
fn dense_convolutions_are_the_same_everywhere() {
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    for case in 0..cases(600) {
        let rows = noise.one_of([1, 3]);
        // One patch is deeper than any buffer.
        let run = 4 * match case {
            0 if !cfg!(miri) => 4200,
            _ => 1 + noise.upto([4, 12, 90]),
        };
        let depth = rows * run;
        let outputs = 1 + noise.upto([8, 70, 200]);
        let step = noise.one_of([run, run / 3 / 4 * 4 + 4, 2 * run]);
        let count = noise.upto([3, 20, 60]);
        let length = count.saturating_sub(1) * step + run;
        let bytes: Vec<Vec<u8>> = (0..rows).map(|_| noise.bytes(length)).collect();
        let rows: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
        let weight = noise.weights(outputs * depth);
        let (bias, multipliers) = (noise.bias(outputs), noise.multipliers(outputs, depth));
        let (zero, range) = noise.rounding();
        let rounding = Rounding { zero, range };
        let mut want = Vec::new();
        for patch in 0..count {
            let patch: Vec<u8> = rows
                .iter()
                .flat_map(|row| &row[patch * step..][..run])
                .copied()
                .collect();
            for o in 0..outputs {
                let filter = &weight[o * depth..][..depth];
                let products = patch
                    .iter()
                    .zip(filter)
                    .map(|(&x, &w)| i64::from(x) * i64::from(w));
                want.push(byte(
                    i64::from(bias[o]) + products.sum::<i64>(),
                    multipliers[o],
                    rounding,
                ));
            }
        }
        for kernel in runnable() {
            let layer = Dense {
                weight: kernel.pack_dense(&weight, depth),
                depth,
                outputs,
                bias: padded(bias.clone(), outputs),
                multipliers: padded(multipliers.clone(), outputs),
                rounding,
            };
            let mut out = vec![77; want.len()];
            let patches = Patches {
                rows: &rows,
                step,
                count,
            };
            kernel.dense(&layer, patches, &mut out);
            let shape = (rows.len(), run, step, count, outputs);
            assert!(out == want, "{} in case {case}, {shape:?}", kernel.name());
        }
    }
}

#[test]
fn depthwise_convolutions_are_the_same_everywhere() {
    let mut noise = Noise(0x2545_f491_4f6c_dd1d);
    for case in 0..cases(600) {
        let channels = 1 + noise.upto([8, 70, 200]);
        let (width, stride, left) = (2 + noise.below(30), 1 + noise.below(2), noise.below(2));
        let right = noise.below(2);
        let Some(places) = (width + left + right).checked_sub(3) else {
            continue;
        };
        let outputs = places / stride + 1;
        let count = if stride == 1 { 1 + noise.below(2) } else { 1 };
        let padding = noise.below(256) as u8;
        let bytes: Vec<Vec<u8>> = (0..4).map(|_| noise.bytes(width * channels)).collect();
        let weight = noise.weights(9 * channels);
        let (bias, multipliers) = (noise.bias(channels), noise.multipliers(channels, 9));
        let (zero, range) = noise.rounding();
        let rounding = Rounding { zero, range };
        let at = |row: usize, column: usize, c: usize| {
            let column = column.checked_sub(left).filter(|&column| column < width);
            column.map_or(padding, |column| bytes[row][column * channels + c])
        };
        let mut want = Vec::new();
        for y in 0..count {
            for x in 0..outputs {
                for c in 0..channels {
                    let product = |tap: usize| {
                        let value = at(y + tap / 3, x * stride + tap % 3, c);
                        i64::from(value) * i64::from(weight[9 * c + tap])
                    };
                    let sum = i64::from(bias[c]) + (0..9).map(product).sum::<i64>();
                    want.push(byte(sum, multipliers[c], rounding));
                }
            }
        }
        for kernel in runnable() {
            let layer = Depthwise {
                weight: kernel.pack_depthwise(&weight),
                channels,
                stride,
                left,
                padding,
                bias: padded(bias.clone(), channels),
                multipliers: padded(multipliers.clone(), channels),
                rounding,
            };
            let rows = Rows {
                rows: std::array::from_fn(|row| bytes[row].as_slice()),
                width,
                outputs,
                count,
            };
            let mut out = vec![77; want.len()];
            let mut scratch = vec![0; kernel.depthwise_scratch(width)];
            kernel.depthwise(&layer, rows, &mut out, &mut scratch);
            let shape = (channels, width, stride, left, right, count);
            assert!(out == want, "{} in case {case}, {shape:?}", kernel.name());
        }
    }
}

#[test]
fn sums_are_the_same_everywhere() {
    let mut noise = Noise(0xd134_2543_de82_ef95);
    for _ in 0..cases(300) {
        let (zero, range) = noise.rounding();
        let multiplier = |noise: &mut Noise| noise.one_of([0.01, 0.7, 1.0, 1.3, 30.0]);
        let sum = Sum {
            zeros: [noise.below(256) as u8, noise.below(256) as u8],
            multipliers: [multiplier(&mut noise), multiplier(&mut noise)],
            zero,
            range,
        };
        let count = noise.below(300);
        let (a, b) = (noise.bytes(count), noise.bytes(count));
        let want: Vec<u8> = a.iter().zip(&b).map(|(&a, &b)| sum.add(a, b)).collect();
        for kernel in runnable() {
            let mut out = vec![77; count];
            kernel.add(&sum, &a, &b, &mut out);
            assert!(out == want, "{}: {sum:?}", kernel.name());
        }
    }
}

#[test]
fn means_are_the_same_everywhere() {
    let mut noise = Noise(0xaf25_1af3_b0f0_25b5);
    for _ in 0..cases(200) {
        let (pixels, channels) = (1 + noise.upto([60, 60, 600]), 1 + noise.below(150));
        let bytes = noise.bytes(pixels * channels);
        let (zero, range) = noise.rounding();
        let pool = Pool {
            zero: noise.below(256) as u8,
            multiplier: noise.one_of([0.2, 1.0, 2.7]) / pixels as f32,
            rounding: Rounding { zero, range },
        };
        let mean = |c: usize| {
            let values = bytes[c..].iter().step_by(channels);
            let sum: i64 = values.map(|&x| i64::from(x) - i64::from(pool.zero)).sum();
            byte(sum, pool.multiplier, pool.rounding)
        };
        let want: Vec<u8> = (0..channels).map(mean).collect();
        for kernel in runnable() {
            let mut out = vec![77; channels];
            kernel.pool(&pool, &bytes, &mut out);
            assert!(out == want, "{}: {pool:?}", kernel.name());
        }
    }
}

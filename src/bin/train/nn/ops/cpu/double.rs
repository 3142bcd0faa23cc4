//! The 2x2 transposed convolution of stride 2: a product whose columns are the four pixels that an
//! input pixel becomes.

use aligned_vec::{AVec, avec};
use burn_flex::FlexTensor;
use pulp::Arch;
use rayon::prelude::*;

use super::gemm::{Left, Packed, Product, Right, padded};
use super::layout::{dense, dims, tensor, values, vector};
use crate::nn::ops::DoubleGrads;

/// Position of output `o` of the pixel at `dy`, `dx` in `[I, O, 2, 2]`.
fn at(i: usize, o: usize, outputs: usize, quarter: usize) -> usize {
    (i * outputs + o) * 4 + quarter
}

pub(super) fn forward(x: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> FlexTensor {
    let (x, weight, bias) = (dense(x), dense(weight), dense(bias));
    let ([n, h, w, i], [_, o, _, _]) = (dims(&x), dims(&weight));
    let (weight, bias) = (values(&weight), values(&bias));
    let packed = Packed::new(i, 4 * o, |k, n| weight[at(k, n % o, o, n / o)]);
    let wide = padded(4 * o);
    let row = 2 * w * o;
    let mut out = vec![0.0; n * 2 * h * row];
    out.par_chunks_mut(2 * h * row)
        .zip(values(&x).par_chunks(h * w * i))
        .for_each(|(out, x)| {
            let mut quads = avec![0.0; w * wide];
            for (out, x) in out.chunks_exact_mut(2 * row).zip(x.chunks_exact(w * i)) {
                Arch::new().dispatch(Product {
                    m: w,
                    n: wide,
                    k: i,
                    a: pixels(x, i),
                    b: packed.operand(i),
                    c: &mut quads,
                    accumulate: false,
                });
                for (half, out) in out.chunks_exact_mut(row).enumerate() {
                    for (out, quad) in out.chunks_exact_mut(2 * o).zip(quads.chunks_exact(wide)) {
                        let quad = quad[half * 2 * o..].iter().zip(bias.iter().cycle());
                        for (out, (value, bias)) in out.iter_mut().zip(quad) {
                            *out = value + bias;
                        }
                    }
                }
            }
        });
    tensor(out, [n, 2 * h, 2 * w, o])
}

pub(super) fn backward(
    x: FlexTensor,
    weight: FlexTensor,
    grad: FlexTensor,
) -> DoubleGrads<burn_flex::Flex> {
    let (x, weight, grad) = (dense(x), dense(weight), dense(grad));
    let (shape, [_, o, _, _]) = (dims(&x), dims(&weight));
    let [_, h, w, i] = shape;
    let weight = values(&weight);
    let packed = Packed::new(4 * o, i, |k, n| weight[at(n, k % o, o, k / o)]);
    let (wide, row) = (padded(4 * o), 2 * w * o);
    let mut input = vec![0.0; values(&x).len()];
    let parts: Vec<(AVec<f32>, Vec<f32>)> = input
        .par_chunks_mut(h * w * i)
        .zip(values(&x).par_chunks(h * w * i))
        .zip(values(&grad).par_chunks(2 * h * row))
        .map(|((input, x), grad)| {
            let mut quads = avec![0.0; w * wide];
            let mut back = avec![0.0; w * padded(i)];
            let mut weight_grad = avec![0.0; i * wide];
            let mut bias_grad = vec![0.0; o];
            let rows = x.chunks_exact(w * i).zip(grad.chunks_exact(2 * row));
            for (input, (x, grad)) in input.chunks_exact_mut(w * i).zip(rows) {
                for (half, grad) in grad.chunks_exact(row).enumerate() {
                    let quads = quads.chunks_exact_mut(wide);
                    for (quad, grad) in quads.zip(grad.chunks_exact(2 * o)) {
                        quad[half * 2 * o..][..2 * o].copy_from_slice(grad);
                        for grad in grad.chunks_exact(o) {
                            bias_grad
                                .iter_mut()
                                .zip(grad)
                                .for_each(|(sum, g)| *sum += g);
                        }
                    }
                }
                Arch::new().dispatch(Product {
                    m: i,
                    n: wide,
                    k: w,
                    a: Left {
                        values: x,
                        row_stride: 1,
                        column_stride: i,
                    },
                    b: Right::rows(&quads, wide),
                    c: &mut weight_grad,
                    accumulate: true,
                });
                Arch::new().dispatch(Product {
                    m: w,
                    n: padded(i),
                    k: 4 * o,
                    a: pixels(&quads, wide),
                    b: packed.operand(4 * o),
                    c: &mut back,
                    accumulate: false,
                });
                let back = back.chunks_exact(padded(i));
                for (input, back) in input.chunks_exact_mut(i).zip(back) {
                    input.copy_from_slice(&back[..i]);
                }
            }
            (weight_grad, bias_grad)
        })
        .collect();
    let (mut weight_grad, mut bias_grad) = (vec![0.0; i * o * 4], vec![0.0; o]);
    for (weight_part, bias_part) in parts {
        for (index, sum) in weight_grad.iter_mut().enumerate() {
            let (pair, quarter) = (index / 4, index % 4);
            *sum += weight_part[pair / o * wide + quarter * o + pair % o];
        }
        for (sum, part) in bias_grad.iter_mut().zip(bias_part) {
            *sum += part;
        }
    }
    DoubleGrads {
        input: tensor(input, shape),
        weight: tensor(weight_grad, [i, o, 2, 2]),
        bias: vector(bias_grad),
    }
}

fn pixels(values: &[f32], pitch: usize) -> Left<'_> {
    Left {
        values,
        row_stride: pitch,
        column_stride: 1,
    }
}

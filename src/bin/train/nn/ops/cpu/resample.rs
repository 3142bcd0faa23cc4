//! Passes over activations between chains.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::channels::{Affine, AffineGrad};
use super::layout::{dense, dims, tensor, values};

/// `norm(x)`, plus `skip` if there is one; one task per image.
pub(super) fn normalise(
    norm: &Affine,
    x: &[f32],
    skip: Option<&[f32]>,
    [_, h, w, c]: [usize; 4],
) -> Vec<f32> {
    let len = c * h * w;
    let mut out = vec![0.0; x.len()];
    let chunks = out.par_chunks_mut(len).zip(x.par_chunks(len)).enumerate();
    chunks.for_each(|(image, (out, x))| match skip {
        Some(skip) => norm.apply_and_add(x, &skip[image * len..][..len], out),
        None => norm.apply(x, out),
    });
    out
}

/// `norm(x)` to the nearest multiple of `step`; one task per image.
pub(super) fn round(norm: &Affine, step: f32, x: &[f32], [_, h, w, c]: [usize; 4]) -> Vec<f32> {
    let len = c * h * w;
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(len)
        .zip(x.par_chunks(len))
        .for_each(|(out, x)| norm.round(step, x, out));
    out
}

/// The gradient of [`round`], straight through; one task per image.
pub(super) fn round_grad(
    norm: &AffineGrad<'_>,
    x: &[f32],
    grad: &[f32],
    [_, h, w, c]: [usize; 4],
) -> Vec<f32> {
    let len = c * h * w;
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(len)
        .zip(x.par_chunks(len))
        .zip(grad.par_chunks(len))
        .for_each(|((out, x), grad)| norm.apply(x, grad, out));
    out
}

/// `[N, H, W, C]` and `[N, 2H, 2W, C]`: nearest upsampling of one, added to the other.
pub(super) fn upsample_add(x: FlexTensor, skip: FlexTensor) -> FlexTensor {
    let (x, skip) = (dense(x), dense(skip));
    let [n, h, w, c] = dims(&x);
    let row = 2 * w * c;
    let mut out = vec![0.0; n * 2 * h * row];
    let rows = values(&skip).par_chunks(2 * row);
    out.par_chunks_mut(2 * row)
        .zip(rows)
        .zip(values(&x).par_chunks(w * c))
        .for_each(|((out, skip), x)| {
            for (out, skip) in out.chunks_exact_mut(row).zip(skip.chunks_exact(row)) {
                let pairs = out.chunks_exact_mut(2 * c).zip(skip.chunks_exact(2 * c));
                for ((out, skip), x) in pairs.zip(x.chunks_exact(c)) {
                    for (out, skip) in out.chunks_exact_mut(c).zip(skip.chunks_exact(c)) {
                        for ((out, skip), x) in out.iter_mut().zip(skip).zip(x) {
                            *out = skip + x;
                        }
                    }
                }
            }
        });
    tensor(out, [n, 2 * h, 2 * w, c])
}

/// The adjoint of nearest upsampling: sums of 2x2 pixels.
pub(super) fn upsample_grad(grad: FlexTensor) -> FlexTensor {
    let grad = dense(grad);
    let [n, h, w, c] = dims(&grad);
    let row = w * c;
    let mut out = vec![0.0; n * c * h * w / 4];
    out.par_chunks_mut(row / 2)
        .zip(values(&grad).par_chunks(2 * row))
        .for_each(|(out, grad)| {
            let (upper, lower) = grad.split_at(row);
            let pairs = upper.chunks_exact(2 * c).zip(lower.chunks_exact(2 * c));
            for (out, (upper, lower)) in out.chunks_exact_mut(c).zip(pairs) {
                for (i, out) in out.iter_mut().enumerate() {
                    *out = upper[i] + upper[c + i] + lower[i] + lower[c + i];
                }
            }
        });
    tensor(out, [n, h / 2, w / 2, c])
}

/// `[N, H, W, C] -> [N, C]`.
pub(super) fn spatial_mean(x: FlexTensor) -> FlexTensor {
    let x = dense(x);
    let [n, h, w, c] = dims(&x);
    let mut out = vec![0.0; n * c];
    let images = values(&x).chunks_exact(c * h * w);
    for (out, x) in out.chunks_exact_mut(c).zip(images) {
        for x in x.chunks_exact(c) {
            out.iter_mut().zip(x).for_each(|(out, x)| *out += x);
        }
        for out in out {
            *out /= (h * w) as f32;
        }
    }
    tensor(out, [n, c])
}

/// The gradient of [`spatial_mean`] for pixels of that height and width.
pub(super) fn spatial_mean_grad(grad: FlexTensor, [h, w]: [usize; 2]) -> FlexTensor {
    let grad = dense(grad);
    let [n, c] = dims(&grad);
    let mut out = vec![0.0; n * c * h * w];
    let images = values(&grad).chunks_exact(c);
    for (out, grad) in out.chunks_exact_mut(c * h * w).zip(images) {
        for out in out.chunks_exact_mut(c) {
            for (out, grad) in out.iter_mut().zip(grad) {
                *out = grad / (h * w) as f32;
            }
        }
    }
    tensor(out, [n, h, w, c])
}

//! Tensors `[N, C, H, W]` that lie in memory as `[N, H, W, C]`.

use burn::tensor::{Shape, TensorData, TensorMetadata};
use burn_flex::FlexTensor;

/// The tensor, channels last in memory and nothing else in its storage.
pub(super) fn channels_last(x: FlexTensor) -> FlexTensor {
    let [n, c, h, w] = dims4(&x);
    let whole = x.layout().start_offset() == 0 && x.storage::<f32>().len() == n * c * h * w;
    if whole && lies_as(&x, [(n, h * w * c), (h, w * c), (w, c), (c, 1)]) {
        return x;
    }
    let x = x.to_contiguous();
    let plane = h * w;
    let mut out = vec![0.0; n * c * plane];
    if !out.is_empty() {
        let images = x.storage::<f32>().chunks_exact(c * plane);
        for (image, out) in images.zip(out.chunks_exact_mut(c * plane)) {
            for (pixel, out) in out.chunks_exact_mut(c).enumerate() {
                let channels = image[pixel..].iter().step_by(plane);
                out.iter_mut()
                    .zip(channels)
                    .for_each(|(to, from)| *to = *from);
            }
        }
    }
    activation(out, [n, c, h, w])
}

/// Whether the strides of the axes N, H, W and C are these; those of length 1 do not count.
fn lies_as(x: &FlexTensor, want: [(usize, usize); 4]) -> bool {
    let strides = x.layout().strides();
    let order = [0, 2, 3, 1];
    want.into_iter()
        .zip(order)
        .all(|((length, stride), axis)| length == 1 || strides[axis] == stride as isize)
}

/// `[N, H, W, C]` values as a tensor `[N, C, H, W]`.
pub(super) fn activation(values: Vec<f32>, [n, c, h, w]: [usize; 4]) -> FlexTensor {
    tensor(values, &[n, h, w, c]).permute(&[0, 3, 1, 2])
}

/// The values of a tensor that [`channels_last`] or [`activation`] made.
pub(super) fn images(x: &FlexTensor) -> &[f32] {
    x.storage::<f32>()
}

/// A parameter, in memory as its shape says.
pub(super) fn weights(x: &FlexTensor) -> FlexTensor {
    x.to_contiguous()
}

/// The values of a tensor from [`weights`] or [`vector`].
pub(super) fn values(x: &FlexTensor) -> &[f32] {
    x.storage::<f32>()
}

pub(super) fn vector(values: Vec<f32>) -> FlexTensor {
    let length = values.len();
    tensor(values, &[length])
}

pub(super) fn tensor(values: Vec<f32>, shape: &[usize]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.to_vec()))
}

pub(super) fn dims4(x: &FlexTensor) -> [usize; 4] {
    let shape: Shape = x.shape();
    shape.dims()
}

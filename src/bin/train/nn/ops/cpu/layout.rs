//! Between burn's tensors and slices.

use burn::tensor::{TensorData, TensorMetadata};
use burn_flex::FlexTensor;

/// The tensor, in memory as its shape says.
pub(super) fn dense(x: FlexTensor) -> FlexTensor {
    x.to_contiguous()
}

/// The values of a tensor from [`dense`] or [`tensor`].
pub(super) fn values(x: &FlexTensor) -> &[f32] {
    x.storage::<f32>()
}

pub(super) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

pub(super) fn vector(values: Vec<f32>) -> FlexTensor {
    let length = values.len();
    tensor(values, [length])
}

pub(super) fn dims<const D: usize>(x: &FlexTensor) -> [usize; D] {
    x.shape().dims()
}

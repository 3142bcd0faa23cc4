//! The classifier: does this tile hold a ship?

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Tensor, backend::Backend};

use super::layers::{ConvBn, Mode};
use super::mobilenet::{Encoder, Features, channels};
use super::ops::{FusedOps, spatial_mean};

/// MobileNetV2 with one logit.
#[derive(Module, Debug)]
pub(crate) struct Gate<B: Backend> {
    pub(crate) encoder: Encoder<B>,
    pub(crate) head: ConvBn<B>,
    pub(crate) classifier: Linear<B>,
}

impl<B: Backend> Gate<B> {
    pub(crate) fn new(width: f64, device: &B::Device) -> Self {
        let encoder = Encoder::new(width, device);
        let features = channels(1280, width.max(1.0));
        Self {
            head: ConvBn::dense([encoder.tap_channels()[4], features], 1, 1, device),
            classifier: LinearConfig::new(features, 1).init(device),
            encoder,
        }
    }
}

impl<B: FusedOps> Gate<B> {
    /// Ship logits `[N]` of tiles `[N, 3, S, S]`, by running statistics.
    pub(crate) fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 1> {
        self.classify(self.encoder.forward(x, Mode::Eval), Mode::Eval)
    }

    /// Ship logits `[N]` from the encoder's features.
    pub(crate) fn classify(&self, [.., deepest]: Features<B>, mode: Mode) -> Tensor<B, 1> {
        let n = deepest.dims()[0];
        let pooled = spatial_mean(self.head.forward(deepest, mode));
        self.classifier.forward(pooled).reshape([n])
    }
}

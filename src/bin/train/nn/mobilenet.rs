//! MobileNetV2 without its classifier (Sandler et al. 2018, table 2), channel counts as in Keras.

use burn::backend::Autodiff;
use burn::module::{AutodiffModule, Module};
use burn::tensor::{Tensor, backend::Backend};

use super::layers::{ConvBn, InvertedResidual, Mode};
use super::ops::FusedOps;

/// Expansion, channels at width 1, repeats and first stride of each stage.
const STAGES: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
];

/// Blocks after which the resolution is about to halve, and the last one: strides 2, 4, 8, 16, 32.
const TAPS: [usize; 5] = [0, 2, 5, 12, 16];

/// Feature maps at strides 2, 4, 8, 16 and 32, `[N, H, W, C]`.
pub(crate) type Features<B> = [Tensor<B, 4>; 5];

/// The convolutional trunk that gate and U-Net share.
#[derive(Module, Debug)]
pub(crate) struct Encoder<B: Backend> {
    pub(crate) stem: ConvBn<B>,
    pub(crate) blocks: Vec<InvertedResidual<B>>,
}

impl<B: Backend> Encoder<B> {
    /// `width` scales the channel counts (alpha in the paper).
    pub(crate) fn new(width: f64, device: &B::Device) -> Self {
        let mut inputs = channels(32, width);
        let stem = ConvBn::dense([3, inputs], 3, 2, device);
        let mut blocks = Vec::new();
        for (expansion, base, repeats, first_stride) in STAGES {
            let outputs = channels(base, width);
            for repeat in 0..repeats {
                let stride = if repeat == 0 { first_stride } else { 1 };
                let ends = [inputs, outputs];
                blocks.push(InvertedResidual::new(ends, expansion, stride, device));
                inputs = outputs;
            }
        }
        Self { stem, blocks }
    }

    /// Channels of the five feature maps.
    pub(crate) fn tap_channels(&self) -> [usize; 5] {
        TAPS.map(|tap| self.blocks[tap].project.weight.dims()[0])
    }

    /// For each block, the tap that it ends, if it ends one.
    pub(crate) fn tap_of_block(block: usize) -> Option<usize> {
        TAPS.iter().position(|&tap| tap == block)
    }
}

impl<B: FusedOps> Encoder<B> {
    /// `[N, 3, H, W]` in -1 to 1, H and W multiples of 32.
    pub(crate) fn forward(&self, x: Tensor<B, 4>, mode: Mode) -> Features<B> {
        let mut x = self.stem.forward(x.permute([0, 2, 3, 1]), mode);
        let mut taps = Vec::with_capacity(TAPS.len());
        for (index, block) in self.blocks.iter().enumerate() {
            x = block.forward(x, mode);
            if Self::tap_of_block(index).is_some() {
                taps.push(x.clone());
            }
        }
        taps.try_into().expect("the trunk passes each tap once")
    }
}

/// Features for training, with blocks before `first` frozen, and the stem too unless that is 0: the
/// frozen part runs by running statistics, without gradient and without the memory that one would
/// take.
pub(crate) fn features<B: FusedOps>(
    encoder: &Encoder<Autodiff<B>>,
    x: Tensor<Autodiff<B>, 4>,
    first: usize,
) -> Features<Autodiff<B>> {
    let (frozen, trained) = encoder.blocks.split_at(first.min(encoder.blocks.len()));
    let x = x.permute([0, 2, 3, 1]);
    let mut taps = Vec::with_capacity(TAPS.len());
    let mut x = if first == 0 {
        encoder.stem.forward(x, Mode::Train)
    } else {
        let mut still = encoder.stem.valid().forward(x.inner(), Mode::Eval);
        for (index, block) in frozen.iter().enumerate() {
            still = block.valid().forward(still, Mode::Eval);
            if TAPS.contains(&index) {
                taps.push(Tensor::from_inner(still.clone()));
            }
        }
        Tensor::from_inner(still)
    };
    for (index, block) in trained.iter().enumerate() {
        x = block.forward(x, Mode::Train);
        if TAPS.contains(&(frozen.len() + index)) {
            taps.push(x.clone());
        }
    }
    taps.try_into().expect("the trunk passes each tap once")
}

/// `base * width` rounded to a multiple of 8 without losing more than a tenth.
pub(crate) fn channels(base: usize, width: f64) -> usize {
    let exact = base as f64 * width;
    let rounded = ((exact + 4.0) as usize / 8 * 8).max(8);
    if (rounded as f64) < 0.9 * exact {
        rounded + 8
    } else {
        rounded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_flex::{Flex, FlexDevice};

    #[test]
    fn channel_counts_are_those_of_keras() {
        // From the layer shapes of tf.keras.applications.MobileNetV2.
        for (width, want) in [
            (0.35, [8, 8, 16, 32, 112]),
            (0.5, [8, 16, 16, 48, 160]),
            (0.75, [16, 24, 24, 72, 240]),
            (1.0, [16, 24, 32, 96, 320]),
        ] {
            let encoder = Encoder::<Flex>::new(width, &FlexDevice);
            assert_eq!(encoder.tap_channels(), want, "width {width}");
        }
    }
}

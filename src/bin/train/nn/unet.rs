//! The segmenter: a U-Net on the MobileNetV2 encoder.

use burn::module::{Module, Param};
use burn::nn::conv::{ConvTranspose2d, ConvTranspose2dConfig};
use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};

use super::layers::{ConvBn, Mode, SeparableConv, forward_all};
use super::mobilenet::{Encoder, Features};
use super::ops::{self, FusedOps, upsample_add};

/// Decoder channels at strides 16, 8, 4 and 2.
const LIGHT_CHANNELS: [usize; 4] = [96, 48, 32, 16];
const SEED_CHANNELS: [usize; 4] = [224, 112, 56, 28];

/// Ship probability of a pixel before anything is learnt: water is not to swamp the first steps
/// (Lin et al. 2017, section 4.1).
const PRIOR: f64 = 0.01;

/// Which decoder a U-Net has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DecoderKind {
    /// Projected skips added, separable convolutions, nearest upsampling: for small boards.
    Light,
    /// Transposed convolutions, concatenated skips, dense 3x3: the original project's.
    Seed,
}

/// Encoder, decoder and a head that predicts 2x2 pixels per cell of the finest feature map: whether
/// they are ship and, if it has a second output, how central in their ship they are.
#[derive(Module, Debug)]
pub(crate) struct UNet<B: Backend> {
    pub(crate) encoder: Encoder<B>,
    pub(crate) decoder: Decoder<B>,
    pub(crate) head: ConvTranspose2d<B>,
}

/// A U-Net's logits.
pub(crate) struct Outputs<B: Backend> {
    /// `[N, 1, S, S]`: is the pixel a ship's?
    pub(crate) ships: Tensor<B, 4>,
    /// `[N, 1, S, S]`: 0 at the edge of a ship up to 1 along its middle line.
    pub(crate) centrality: Option<Tensor<B, 4>>,
}

/// The way back up.
#[derive(Module, Debug)]
pub(crate) enum Decoder<B: Backend> {
    Light(LightDecoder<B>),
    Seed(SeedDecoder<B>),
}

/// Stages from stride 16 to stride 2.
#[derive(Module, Debug)]
pub(crate) struct LightDecoder<B: Backend> {
    pub(crate) stages: Vec<LightStage<B>>,
}

/// `refine(upsample(reduce(x)) + lateral(skip))`.
#[derive(Module, Debug)]
pub(crate) struct LightStage<B: Backend> {
    pub(crate) reduce: ConvBn<B>,
    pub(crate) lateral: ConvBn<B>,
    pub(crate) refine: SeparableConv<B>,
}

/// Stages from stride 16 to stride 2.
#[derive(Module, Debug)]
pub(crate) struct SeedDecoder<B: Backend> {
    pub(crate) stages: Vec<SeedStage<B>>,
}

/// `second(first(concat(up(x), skip)))`.
#[derive(Module, Debug)]
pub(crate) struct SeedStage<B: Backend> {
    pub(crate) up: ConvTranspose2d<B>,
    pub(crate) first: ConvBn<B>,
    pub(crate) second: ConvBn<B>,
}

impl<B: Backend> UNet<B> {
    /// A U-Net on an encoder.
    pub(crate) fn on(encoder: Encoder<B>, decoder: DecoderKind, device: &B::Device) -> Self {
        let [c2, c4, c8, c16, c32] = encoder.tap_channels();
        let skips = [c16, c8, c4, c2];
        let inputs = |channels: [usize; 4]| [c32, channels[0], channels[1], channels[2]];
        let (decoder, last) = match decoder {
            DecoderKind::Light => {
                let stage = |((inputs, skip), outputs)| LightStage {
                    reduce: ConvBn::linear([inputs, outputs], device),
                    lateral: ConvBn::linear([skip, outputs], device),
                    refine: SeparableConv::new([outputs, outputs], device),
                };
                let ends = inputs(LIGHT_CHANNELS)
                    .into_iter()
                    .zip(skips)
                    .zip(LIGHT_CHANNELS);
                (
                    Decoder::Light(LightDecoder {
                        stages: ends.map(stage).collect(),
                    }),
                    LIGHT_CHANNELS[3],
                )
            }
            DecoderKind::Seed => {
                let stage = |((inputs, skip), outputs)| SeedStage {
                    up: double(inputs, outputs).init(device),
                    first: ConvBn::dense([outputs + skip, outputs], 3, 1, device),
                    second: ConvBn::dense([outputs, outputs], 3, 1, device),
                };
                let ends = inputs(SEED_CHANNELS)
                    .into_iter()
                    .zip(skips)
                    .zip(SEED_CHANNELS);
                (
                    Decoder::Seed(SeedDecoder {
                        stages: ends.map(stage).collect(),
                    }),
                    SEED_CHANNELS[3],
                )
            }
        };
        Self {
            encoder,
            decoder,
            head: head([last, 1], device),
        }
    }

    /// The same with a head that says, besides, how central in their ship pixels are.
    pub(crate) fn with_centrality(mut self, device: &B::Device) -> Self {
        let [inputs, ..] = self.head.weight.dims();
        self.head = head([inputs, 2], device);
        self
    }

    /// Outputs for each pixel: one, or two with centrality.
    pub(crate) fn outputs(&self) -> usize {
        self.head.weight.dims()[1]
    }
}

impl<B: FusedOps> UNet<B> {
    /// Ship logits `[N, 1, S, S]` of tiles `[N, 3, S, S]`, by running statistics.
    pub(crate) fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        self.decode(self.encoder.forward(x, Mode::Eval), Mode::Eval)
            .ships
    }

    /// Logits from the encoder's features.
    pub(crate) fn decode(&self, features: Features<B>, mode: Mode) -> Outputs<B> {
        let x = match &self.decoder {
            Decoder::Light(light) => light.forward(features, mode),
            Decoder::Seed(seed) => seed.forward(features, mode),
        };
        let y = doubled(&self.head, x).permute([0, 3, 1, 2]);
        match self.outputs() {
            1 => Outputs {
                ships: y,
                centrality: None,
            },
            _ => Outputs {
                ships: y.clone().narrow(1, 0, 1),
                centrality: Some(y.narrow(1, 1, 1)),
            },
        }
    }
}

impl<B: FusedOps> LightDecoder<B> {
    fn forward(&self, [s2, s4, s8, s16, mut x]: Features<B>, mode: Mode) -> Tensor<B, 4> {
        for (stage, skip) in self.stages.iter().zip([s16, s8, s4, s2]) {
            let skip = stage.lateral.forward(skip, mode);
            let sum = upsample_add(stage.reduce.forward(x, mode), skip);
            x = stage.refine.forward(sum, mode);
        }
        x
    }
}

impl<B: FusedOps> SeedDecoder<B> {
    fn forward(&self, [s2, s4, s8, s16, mut x]: Features<B>, mode: Mode) -> Tensor<B, 4> {
        for (stage, skip) in self.stages.iter().zip([s16, s8, s4, s2]) {
            let joined = Tensor::cat(vec![doubled(&stage.up, x), skip], 3);
            x = forward_all([&stage.first, &stage.second], false, joined, mode);
        }
        x
    }
}

/// The head, which at first finds few ships, as few there are.
fn head<B: Backend>([inputs, outputs]: [usize; 2], device: &B::Device) -> ConvTranspose2d<B> {
    let mut head = double(inputs, outputs).init(device);
    let mut bias = vec![0.0; outputs];
    bias[0] = (PRIOR / (1.0 - PRIOR)).ln();
    head.bias = Some(Param::from_tensor(Tensor::from_floats(&bias[..], device)));
    head
}

/// A 2x2 transposed convolution of stride 2.
fn double(inputs: usize, outputs: usize) -> ConvTranspose2dConfig {
    ConvTranspose2dConfig::new([inputs, outputs], [2, 2]).with_stride([2, 2])
}

/// What a layer from [`double`] makes of `x`.
fn doubled<B: FusedOps>(layer: &ConvTranspose2d<B>, x: Tensor<B, 4>) -> Tensor<B, 4> {
    let bias = layer.bias.as_ref().expect("the layer was made with a bias");
    ops::double(x, layer.weight.val(), bias.val())
}

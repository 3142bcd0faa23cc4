//! The two networks, in burn.

mod gate;
mod layers;
mod mobilenet;
mod ops;
mod optimiser;
mod params;
mod pretrained;
pub(crate) mod profile;
mod unet;

pub(crate) use gate::Gate;
pub(crate) use layers::{ConvBn, Mode};
pub(crate) use mobilenet::{Encoder, features};
pub(crate) use ops::{
    Chain, ConvNorm, FusedOps, Grid, chain_eval, double, primitive, round_to, rounded_conv,
    same_padding, spatial_mean, upsample_add,
};
pub(crate) use optimiser::{AdamW, Ema, UpdateOps};
pub(crate) use params::{Params, apply, collect};
pub(crate) use pretrained::Pretrained;
pub(crate) use unet::{Decoder, DecoderKind, LightStage, SeedStage, UNet};

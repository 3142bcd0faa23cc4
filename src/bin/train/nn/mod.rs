//! The two networks, in burn.

mod fused;
mod fused_autodiff;
mod fused_cpu;
mod fused_generic;
mod gate;
mod layers;
mod mobilenet;
mod optimiser;
mod params;
mod pretrained;
mod unet;

pub(crate) use fused::{FusedOps, same_padding};
pub(crate) use gate::Gate;
pub(crate) use layers::{ConvBn, Mode};
pub(crate) use mobilenet::{Encoder, features};
pub(crate) use optimiser::{AdamW, Ema, UpdateOps};
pub(crate) use params::{Params, apply, collect};
pub(crate) use pretrained::Pretrained;
pub(crate) use unet::{Decoder, DecoderKind, LightStage, SeedStage, UNet};

//! The weights that a phase starts from: those of the phase before it, or pretrained ones.

use anyhow::Result;
use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::Tensor;

use crate::config::{Config, PhaseName};
use crate::data::{Sampler, Tile, key};
use crate::nn::{Gate, Params, Pretrained, UNet, apply};
use crate::run_folder::RunFolder;
use crate::tensors;
use crate::trainer::Engine;

/// Tiles by which the statistics of pretrained weights are measured.
const NORM_TILES: u64 = 32;

/// Tells the draws of these tiles from those of training.
const NORM: u64 = 0x6e6f726d;

/// What the first phase starts from.
pub(crate) struct Start<'a, B: Engine> {
    config: &'a Config,
    sampler: &'a Sampler<'a>,
    device: &'a B::Device,
    pretrained: Option<Pretrained>,
}

impl<'a, B: Engine> Start<'a, B> {
    /// # Errors
    /// If the config names pretrained weights that cannot be read.
    pub(crate) fn open(
        config: &'a Config,
        sampler: &'a Sampler,
        device: &'a B::Device,
    ) -> Result<Self> {
        let pretrained = config.pretrained.as_deref().map(Pretrained::load);
        Ok(Self {
            config,
            sampler,
            device,
            pretrained: pretrained.transpose()?,
        })
    }

    /// A gate with the weights of an earlier phase; of the pretrained file, or random, without one.
    pub(crate) fn gate(&self, before: Option<&Params>) -> Result<Gate<Autodiff<B>>> {
        let gate = Gate::new(self.config.width, self.device);
        if let Some(weights) = before {
            return Ok(apply(gate, weights)?);
        }
        let Some(file) = &self.pretrained else {
            return Ok(gate);
        };
        let images = || self.images();
        let (weights, report) = file.gate::<B>(self.config.width, self.device, images)?;
        log::info!("gate starts from pretrained weights: {report}");
        Ok(apply(gate, &weights)?)
    }

    /// A U-Net with the weights of an earlier phase. Where that phase trained the gate, or none came
    /// before, it is new on the gate's encoder, but for what the pretrained file knows of it.
    pub(crate) fn unet(&self, before: Option<(PhaseName, &Params)>) -> Result<UNet<Autodiff<B>>> {
        let on = |gate: Gate<Autodiff<B>>| {
            let unet = UNet::on(gate.encoder, self.config.decoder, self.device);
            match self.config.separation {
                true => unet.with_centrality(self.device),
                false => unet,
            }
        };
        if let Some((_, weights)) = before.filter(|(name, _)| !name.is_gate()) {
            let unet = on(Gate::new(self.config.width, self.device));
            return Ok(apply(unet, weights)?);
        }
        let unet = on(self.gate(before.map(|(_, weights)| weights))?);
        let Some(file) = &self.pretrained else {
            return Ok(unet);
        };
        let Some((weights, report)) = file.unet(unet.valid(), || self.images())? else {
            return Ok(unet);
        };
        log::info!("U-Net starts from pretrained weights: {report}");
        Ok(apply(unet, &weights)?)
    }

    /// A batch `[N, 3, S, S]`, half of it with ships.
    fn images(&self) -> Result<Tensor<B, 4>> {
        let draw = |i: u64| {
            let choice = |what| key(&[self.config.seed, NORM, i, what]);
            self.sampler.draw(i.is_multiple_of(2), choice(1), choice(2))
        };
        let tiles: Vec<Tile> = (0..NORM_TILES).map(draw).collect::<Result<_>>()?;
        Ok(tensors::pixels(&tiles, self.device))
    }
}

/// The phase on which another builds, and what it ended with; none for the first.
///
/// # Errors
/// If that phase is not over.
pub(crate) fn result_before(
    config: &Config,
    folder: &RunFolder,
    name: PhaseName,
) -> Result<Option<(PhaseName, Params)>> {
    let mut earlier = PhaseName::ALL.into_iter().rev().filter(|n| *n < name);
    match earlier.find(|name| config.phases.get(*name).steps > 0) {
        Some(before) => Ok(Some((before, folder.result(before)?))),
        None => Ok(None),
    }
}

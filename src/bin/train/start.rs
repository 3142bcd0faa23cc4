//! The weights that a phase starts from: those of the phase before it, or pretrained ones.

use std::fs;

use anyhow::Result;
use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use shipwatch::model::{MANIFEST, Manifest};

use crate::config::{Config, PhaseName};
use crate::data::{Pool, Sampler, Tile, key};
use crate::nn::{Encoder, Gate, Params, Pretrained, UNet, apply};
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
        let on = |gate: Gate<Autodiff<B>>| unet_on(self.config, gate.encoder, self.device);
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

/// A new U-Net on an encoder, with the decoder and the outputs that the config names.
pub(crate) fn unet_on<B: Backend>(
    config: &Config,
    encoder: Encoder<B>,
    device: &B::Device,
) -> UNet<B> {
    let unet = UNet::on(encoder, config.decoder, device);
    match config.separation {
        true => unet.with_centrality(device),
        false => unet,
    }
}

/// Whether the config starts from a bundle that says it was trained by another split than `pool`'s.
pub(crate) fn has_other_split(config: &Config, pool: &Pool) -> bool {
    let folder = config.pretrained.as_deref().and_then(Pretrained::bundle);
    // What is wrong with a manifest is said where the weights are loaded.
    folder
        .and_then(|folder| fs::read_to_string(folder.join(MANIFEST)).ok())
        .and_then(|text| Manifest::parse(&text).ok())
        .is_some_and(|manifest| pool.differs_from(&manifest))
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
    let mut earlier = PhaseName::FLOAT.into_iter().rev().filter(|n| *n < name);
    match earlier.find(|name| config.phases.get(*name).steps > 0) {
        Some(before) => Ok(Some((before, folder.result(before)?))),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::fixtures;

    #[test]
    fn a_bundle_of_another_split_is_told_from_one_of_the_same() {
        let dir = tempfile::tempdir().expect("folder");
        let pool = fixtures::pool(dir.path());
        let bundle = dir.path().join("bundle");
        fs::create_dir(&bundle).expect("folder");
        let has_other = |split: Option<String>, pretrained: &str| {
            let run = split.map_or(String::new(), |split| {
                format!("run = {{ split = \"{split}\" }}")
            });
            let manifest = format!(
                r#"
                schema = {}
                name = "toy"
                version = "1"
                licence = "none"
                tile = 64
                overlap = 16
                normalisation = {{ mean = 0, std = 1 }}
                gsd = [1.0, 1.0]
                thresholds = {{ gate = 0.5, classify = 0.5, mask = 0.5, min_area = 6 }}
                gate = {{ file = "gate.onnx", sha256 = "" }}
                unet = {{ file = "unet.onnx", sha256 = "" }}
                training = []
                {run}
                "#,
                Manifest::SCHEMA
            );
            Manifest::parse(&manifest).expect("a manifest");
            fs::write(bundle.join("manifest.toml"), manifest).expect("writes");
            let text = "name = \"toy\"\ngsd = [1.0, 1.0]\nphases = {}\ndata = []";
            let mut config: Config = toml::from_str(text).expect("a config");
            config.pretrained = Some(dir.path().join(pretrained));
            has_other_split(&config, &pool)
        };
        let other = Some("77".to_owned());
        assert!(has_other(other.clone(), "bundle"));
        assert!(has_other(other.clone(), "bundle/gate.onnx"));
        assert!(!has_other(other.clone(), "bundle/imagenet.safetensors"));
        assert!(!has_other(other, "nothing"));
        assert!(!has_other(Some(pool.split_hash()), "bundle"));
        assert!(!has_other(None, "bundle"), "it does not say");
    }
}

//! What a training run is made of: read from TOML, saved beside its results.

mod augment;
mod data;
mod judge;
mod phases;

pub(crate) use augment::Augment;
pub(crate) use data::DataRoot;
pub(crate) use judge::Judge;
pub(crate) use phases::{Optimiser, Stage};

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::nn::DecoderKind;

/// A training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Config {
    /// Name of the bundle that export writes.
    pub(crate) name: String,
    /// Every random choice follows from it.
    #[serde(default)]
    pub(crate) seed: u64,
    /// MobileNetV2's channel multiplier.
    #[serde(default = "default_width")]
    pub(crate) width: f64,
    /// The U-Net's decoder.
    #[serde(default = "default_decoder")]
    pub(crate) decoder: DecoderKind,
    /// Whether the U-Net learns, besides, to part ships that touch.
    #[serde(default)]
    pub(crate) separation: bool,
    /// Side of a tile in pixels.
    #[serde(default = "default_tile")]
    pub(crate) tile: u32,
    /// Least overlap of neighbouring tiles at the edge, in pixels.
    #[serde(default = "default_overlap")]
    pub(crate) overlap: u32,
    /// Weights to start from: ImageNet's in safetensors, or a bundle; random where absent.
    pub(crate) pretrained: Option<PathBuf>,
    /// Finest and coarsest ground resolution that the data and its scales cover, metres per pixel.
    pub(crate) gsd: [f64; 2],
    /// Memory for decoded images, in MiB.
    #[serde(default = "default_cache")]
    pub(crate) cache_mib: usize,
    /// Changes to tiles, and made-up scenes.
    #[serde(default)]
    pub(crate) augment: Augment,
    /// The frames by which models are judged.
    #[serde(default)]
    pub(crate) judge: Judge,
    /// What all phases share of the optimiser.
    #[serde(default)]
    pub(crate) optimiser: Optimiser,
    /// Training the gate.
    pub(crate) gate: Stage,
    /// Training the U-Net.
    pub(crate) unet: Stage,
    /// Where images come from.
    pub(crate) data: Vec<DataRoot>,
}

fn default_width() -> f64 {
    0.35
}
fn default_decoder() -> DecoderKind {
    DecoderKind::Light
}
fn default_tile() -> u32 {
    224
}
fn default_overlap() -> u32 {
    32
}
fn default_cache() -> usize {
    4096
}

impl Config {
    /// Reads and checks a config; paths in it become absolute.
    ///
    /// # Errors
    /// If the file cannot be read, a key is unknown or makes no sense, or a data folder is not
    /// there; the message names the file and the key.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let file = || path.display().to_string();
        let text = fs::read_to_string(path).with_context(file)?;
        let mut config: Self = toml::from_str(&text).with_context(file)?;
        config.check().with_context(file)?;
        let base = path.parent().unwrap_or(Path::new(""));
        for data in &mut config.data {
            let path = base.join(&data.root);
            data.root = fs::canonicalize(&path).with_context(|| {
                format!(
                    "{}: `root` of data `{}`: {}",
                    file(),
                    data.name,
                    path.display()
                )
            })?;
        }
        if let Some(weights) = &mut config.pretrained {
            // Only a run that starts from them needs them to be there.
            let path = base.join(&weights);
            *weights = fs::canonicalize(&path)
                .or_else(|_| std::path::absolute(&path))
                .with_context(file)?;
        }
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        ensure!(
            self.tile > 0 && self.tile.is_multiple_of(32),
            "`tile` must be a multiple of 32"
        );
        ensure!(
            (1..self.tile).contains(&self.overlap),
            "`overlap` must be smaller than `tile`, and positive"
        );
        ensure!(is_positive(self.width), "`width` must be positive");
        ensure!(
            is_range(self.gsd),
            "`gsd` must be [finest, coarsest], both positive"
        );
        data::check(&self.data)?;
        for (name, stage) in [("gate", &self.gate), ("unet", &self.unet)] {
            stage.check(name)?;
        }
        Ok(())
    }
}

fn is_positive(value: f64) -> bool {
    value.is_finite() && value > 0.0
}

fn is_range([low, high]: [f64; 2]) -> bool {
    is_positive(low) && is_positive(high) && low <= high
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        name = "toy"
        gsd = [1.0, 2.0]
        pretrained = "weights.safetensors"
        gate = { batch = 4, head-steps = 0, steps = 3, learning-rate = 1e-3, ship-share = 0.5 }
        unet = { batch = 5, head-steps = 2, steps = 0, learning-rate = 1e-3, ship-share = 1.0 }
        [[data]]
        name = "sea"
        root = "."
        licence = "none"
        attribution = "nobody"
        scale = [0.5, 0.5]
    "#;

    fn load(text: &str) -> Result<Config> {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("toy.toml");
        fs::write(&path, text).expect("config");
        Config::load(&path)
    }

    #[test]
    fn paths_become_absolute_and_weights_need_not_be_there() {
        let config = load(GOOD).expect("good");
        assert!(config.data[0].root.is_absolute());
        let weights = config.pretrained.expect("named");
        assert!(weights.is_absolute() && weights.ends_with("weights.safetensors"));
    }

    #[test]
    fn what_would_only_fail_later_is_refused_by_name() {
        for (good, bad, key) in [
            ("name = \"toy\"", "name = \"toy\"\noverlap = 0", "`overlap`"),
            ("name = \"toy\"", "name = \"toy\"\nwidth = inf", "`width`"),
            ("[1.0, 2.0]", "[2.0, 1.0]", "`gsd`"),
            ("[1.0, 2.0]", "[nan, 2.0]", "`gsd`"),
            ("[0.5, 0.5]", "[0.5, inf]", "`scale` of data `sea`"),
            (
                "[0.5, 0.5]",
                "[0.5, 0.5]\neval-scales = []",
                "`eval-scales`",
            ),
            (
                "[0.5, 0.5]",
                "[0.5, 0.5]\neval-scales = [0]",
                "`eval-scales`",
            ),
            ("[0.5, 0.5]", "[0.5, 0.5]\nweight = inf", "`weight`"),
            ("steps = 3", "steps = 0", "of [gate] are both 0"),
            ("batch = 5", "batch = 0", "`batch` of [unet]"),
            ("learning-rate = 1e-3", "learning-rate = nan", "of [gate]"),
            (
                "ship-share = 1.0",
                "ship-share = nan",
                "`ship-share` of [unet]",
            ),
        ] {
            let error = format!("{:#}", load(&GOOD.replacen(good, bad, 1)).expect_err(bad));
            assert!(error.contains(key), "{error}");
            assert!(error.contains("toy.toml"), "{error}");
        }
        let twice = format!("{GOOD}{}", &GOOD[GOOD.find("[[data]]").expect("data")..]);
        let error = format!("{:#}", load(&twice).expect_err("one name for two folders"));
        assert!(error.contains("`sea`"), "{error}");
    }
}

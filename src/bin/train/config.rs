//! What a training run is made of: read from TOML, saved beside its results.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::nn::DecoderKind;

/// A training run.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    /// Side of a tile in pixels.
    #[serde(default = "default_tile")]
    pub(crate) tile: u32,
    /// Least overlap of neighbouring tiles at the edge, in pixels.
    #[serde(default = "default_overlap")]
    pub(crate) overlap: u32,
    /// ImageNet weights in safetensors; random where absent.
    pub(crate) pretrained: Option<PathBuf>,
    /// Finest and coarsest ground resolution that the data and its scales cover, metres per pixel.
    pub(crate) gsd: [f64; 2],
    /// Memory for decoded images.
    #[serde(default = "default_cache")]
    pub(crate) cache_mib: usize,
    /// Training the gate.
    pub(crate) gate: Stage,
    /// Training the U-Net.
    pub(crate) unet: Stage,
    /// Where images come from.
    pub(crate) data: Vec<DataRoot>,
}

/// Training one network: its new layers alone, then all of it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Stage {
    /// Tiles in a step.
    pub(crate) batch: usize,
    /// Steps with the encoder frozen.
    pub(crate) head_steps: usize,
    /// Steps with everything trained.
    pub(crate) steps: usize,
    /// Peak learning rate of AdamW with everything trained; new layers alone take twice as much.
    pub(crate) learning_rate: f64,
    /// Share of tiles that hold a ship.
    pub(crate) ship_share: f64,
    /// Steps between two looks at the tune set.
    #[serde(default = "default_every")]
    pub(crate) tune_every: usize,
}

/// A folder in the challenge's layout.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct DataRoot {
    /// Short name for manifests and reports.
    pub(crate) name: String,
    /// The folder; relative to the config file.
    pub(crate) root: PathBuf,
    /// Licence, for the manifest.
    pub(crate) licence: String,
    /// Whom the licence asks to name, for the manifest.
    pub(crate) attribution: String,
    /// Smallest and largest factor by which images are resampled.
    pub(crate) scale: [f64; 2],
    /// Factors at which whole images are judged.
    #[serde(default = "default_eval_scales")]
    pub(crate) eval_scales: Vec<f64>,
    /// Relative share of the tiles.
    #[serde(default = "default_weight")]
    pub(crate) weight: f64,
    /// Ids that start so are for tuning; besides those that `split.csv` sets aside.
    #[serde(default)]
    pub(crate) tune: Vec<String>,
    /// Ids that start so are for testing.
    #[serde(default)]
    pub(crate) test: Vec<String>,
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
fn default_every() -> usize {
    200
}
fn default_eval_scales() -> Vec<f64> {
    vec![1.0]
}
fn default_weight() -> f64 {
    1.0
}

impl Config {
    /// Reads and checks a config; paths in it become absolute.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let file = || path.display().to_string();
        let text = fs::read_to_string(path).with_context(file)?;
        let mut config: Self = toml::from_str(&text).with_context(file)?;
        config.check().with_context(file)?;
        let base = path.parent().unwrap_or(Path::new(""));
        let resolve = |key: &str, relative: &Path| {
            let path = base.join(relative);
            fs::canonicalize(&path).with_context(|| format!("{}: {key} {}", file(), path.display()))
        };
        for data in &mut config.data {
            data.root = resolve("`root` of data", &data.root)?;
        }
        if let Some(weights) = &mut config.pretrained {
            *weights = resolve("`pretrained`", weights)?;
        }
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        ensure!(
            self.tile > 0 && self.tile.is_multiple_of(32),
            "`tile` must be a multiple of 32"
        );
        ensure!(
            self.overlap < self.tile,
            "`overlap` must be smaller than `tile`"
        );
        ensure!(self.width > 0.0, "`width` must be positive");
        ensure!(!self.data.is_empty(), "no [[data]] folder is named");
        for root in &self.data {
            let [low, high] = root.scale;
            let name = &root.name;
            ensure!(
                low > 0.0 && low <= high,
                "`scale` of data `{name}` must be [low, high]"
            );
            ensure!(
                root.weight > 0.0,
                "`weight` of data `{name}` must be positive"
            );
        }
        for (name, stage) in [("gate", self.gate), ("unet", self.unet)] {
            ensure!(stage.batch > 0, "`batch` of [{name}] must be positive");
            ensure!(
                stage.learning_rate > 0.0,
                "`learning-rate` of [{name}] must be positive"
            );
            let share = stage.ship_share;
            ensure!(
                (0.0..=1.0).contains(&share),
                "`ship-share` of [{name}] must be 0 to 1"
            );
            ensure!(
                stage.tune_every > 0,
                "`tune-every` of [{name}] must be positive"
            );
        }
        Ok(())
    }
}

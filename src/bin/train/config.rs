//! What a training run is made of: read from TOML, saved beside its results.

use std::collections::BTreeSet;
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
    /// Memory for decoded images, in MiB.
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
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

impl Stage {
    /// Steps of both phases.
    pub(crate) fn total_steps(&self) -> usize {
        self.head_steps.saturating_add(self.steps)
    }
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
        ensure!(!self.data.is_empty(), "no [[data]] folder is named");
        let mut names = BTreeSet::new();
        for root in &self.data {
            let name = &root.name;
            ensure!(names.insert(name), "two data folders are named `{name}`");
            ensure!(
                is_range(root.scale),
                "`scale` of data `{name}` must be [low, high], both positive"
            );
            ensure!(
                !root.eval_scales.is_empty() && root.eval_scales.iter().all(|&s| is_positive(s)),
                "`eval-scales` of data `{name}` must be one or more positive factors"
            );
            ensure!(
                is_positive(root.weight),
                "`weight` of data `{name}` must be positive"
            );
        }
        for (name, stage) in [("gate", self.gate), ("unet", self.unet)] {
            ensure!(stage.batch > 0, "`batch` of [{name}] must be positive");
            ensure!(
                stage.total_steps() > 0,
                "`head-steps` and `steps` of [{name}] are both 0: nothing would be trained"
            );
            ensure!(
                is_positive(stage.learning_rate),
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

//! What a training run is made of: read from TOML, saved beside its results.

mod augment;
mod data;
mod judge;
mod loss;
mod mining;
mod optimiser;
mod phases;

pub(crate) use augment::Augment;
pub(crate) use data::DataRoot;
pub(crate) use judge::Judge;
pub(crate) use loss::{Losses, Reduction};
pub(crate) use mining::Mining;
pub(crate) use optimiser::Optimiser;
pub(crate) use phases::{Phase, PhaseName, Phases};

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
    /// Minutes between checkpoints, besides those at each look at the tune set.
    #[serde(default = "default_checkpoint_minutes")]
    pub(crate) checkpoint_minutes: f64,
    /// Changes to tiles, and made-up scenes.
    #[serde(default)]
    pub(crate) augment: Augment,
    /// The frames by which models are judged.
    #[serde(default)]
    pub(crate) judge: Judge,
    /// What all phases share of the optimiser.
    #[serde(default)]
    pub(crate) optimiser: Optimiser,
    /// What training lowers.
    #[serde(default)]
    pub(crate) loss: Losses,
    /// Ship-free scenes that come back because a network fires on them.
    #[serde(default)]
    pub(crate) mining: Mining,
    /// The stretches of training, in their order.
    pub(crate) phases: Phases,
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
fn default_checkpoint_minutes() -> f64 {
    10.0
}

/// Keys that may change while a run lasts.
const FREE: [&str; 6] = [
    "name",
    "overlap",
    "cache-mib",
    "checkpoint-minutes",
    "pretrained",
    "gsd",
];

/// The key by which tune tiles are made: free unless a phase that they judge is unfinished.
const JUDGE: &str = "judge";

/// Keys of a data folder that may; `run.json` holds a digest of what the images are for.
const FREE_OF_DATA: [&str; 5] = ["root", "split", "licence", "attribution", "eval-scales"];

impl Config {
    /// Reads and checks a config; paths in it become absolute.
    ///
    /// # Errors
    /// If the file cannot be read, a key is unknown or makes no sense, or a data folder is not
    /// there; the message names the file and the key.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let file = || path.display().to_string();
        let text = fs::read_to_string(path)
            .with_context(|| format!("{}: no config can be read: name a TOML file", file()))?;
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
            if let Some(split) = &mut data.split {
                let path = base.join(&split);
                *split = fs::canonicalize(&path).with_context(|| {
                    format!(
                        "{}: `split` of data `{}`: {}",
                        file(),
                        data.name,
                        path.display()
                    )
                })?;
            }
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

    /// The first key by which `other` would have trained the phases that have begun differently. Free
    /// to change are the phases that have not, what says where things lie and how they are kept, and
    /// what only export and judging read; `[judge]` where no phase that has begun is `unfinished`.
    ///
    /// # Errors
    /// If a config cannot be written as TOML.
    pub(crate) fn conflict(
        &self,
        other: &Self,
        begun: &[PhaseName],
        unfinished: bool,
    ) -> Result<Option<String>> {
        if begun.is_empty() {
            return Ok(None);
        }
        let essence = |config: &Self| -> Result<toml::Table> {
            let mut table = toml::Table::try_from(config)?;
            for key in FREE {
                table.remove(key);
            }
            if !unfinished {
                table.remove(JUDGE);
            }
            if let Some(toml::Value::Table(phases)) = table.get_mut("phases") {
                phases.retain(|name, _| begun.iter().any(|begun| begun.name() == name));
            }
            if let Some(toml::Value::Array(roots)) = table.get_mut("data") {
                for root in roots.iter_mut().filter_map(toml::Value::as_table_mut) {
                    for key in FREE_OF_DATA {
                        root.remove(key);
                    }
                }
            }
            Ok(table)
        };
        let (mine, others) = (essence(self)?, essence(other)?);
        Ok(difference(&mine.into(), &others.into()))
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
        self.augment.check()?;
        data::check(&self.data)?;
        ensure!(
            is_positive(self.checkpoint_minutes),
            "`checkpoint-minutes` must be positive"
        );
        self.judge.check()?;
        self.optimiser.check()?;
        self.loss.check()?;
        self.mining.check()?;
        self.phases.check()
    }
}

/// The path of the first value by which two differ.
fn difference(a: &toml::Value, b: &toml::Value) -> Option<String> {
    use toml::Value::{Array, Table};
    let nested = |key: &str, a, b| match difference(a, b)? {
        inner if inner.is_empty() => Some(key.to_owned()),
        inner => Some(format!("{key}.{inner}")),
    };
    match (a, b) {
        (Table(a), Table(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            keys.into_iter()
                .find_map(|key| match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => nested(key, a, b),
                    _ => Some(key.clone()),
                })
        }
        (Array(a), Array(b)) if a.len() == b.len() => {
            let pairs = a.iter().zip(b).enumerate();
            pairs
                .into_iter()
                .find_map(|(i, (a, b))| nested(&i.to_string(), a, b))
        }
        (a, b) => (a != b).then(String::new),
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
        [phases]
        gate-head = { batch = 4, steps = 3, learning-rate = 1e-3, ship-share = 0.5 }
        unet = { batch = 5, steps = 2, learning-rate = 1e-3, ship-share = 1.0 }
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
            (
                "[[data]]",
                "[judge]\nempty-share = 1.5\n[[data]]",
                "`empty-share` of [judge]",
            ),
            (
                "[0.5, 0.5]",
                "[0.5, 0.5]\nframe-scale = [0, 1]",
                "`frame-scale`",
            ),
            ("[0.5, 0.5]", "[0.5, 0.5]\nheld-out = true", "`held-out`"),
            ("[0.5, 0.5]", "[0.5, 0.5]\nsplit = \"no.csv\"", "no.csv"),
            ("batch = 4, steps = 3", "batch = 4", "`steps`"),
            ("batch = 5", "batch = 0", "`batch` of [phases.unet]"),
            (
                "learning-rate = 1e-3",
                "learning-rate = nan",
                "of [phases.gate-head]",
            ),
            (
                "[[data]]",
                "[augment]\njpeg = 1.1\n[[data]]",
                "`jpeg` of [augment]",
            ),
            (
                "[[data]]",
                "[augment]\nmade-up = nan\n[[data]]",
                "`made-up` of [augment]",
            ),
            ("[[data]]", "[augment]\nmadeup = 1\n[[data]]", "`madeup`"),
            (
                "ship-share = 1.0",
                "ship-share = nan",
                "`ship-share` of [phases.unet]",
            ),
            (
                "batch = 4",
                "first-block = 3",
                "`first-block` of [phases.gate-head]",
            ),
            (
                "batch = 5",
                "first-block = 18",
                "`first-block` of [phases.unet]",
            ),
            ("[phases]", "[loss]\nbce = -1\n[phases]", "`bce` of [loss]"),
            (
                "[phases]",
                "[loss]\nbce = 0\ndice = 0\n[phases]",
                "all weights of [loss] are 0",
            ),
            ("[phases]", "[optimiser]\nema = 1\n[phases]", "`ema`"),
            (
                "[phases]",
                "[mining]\nshare = 1.5\n[phases]",
                "`share` of [mining]",
            ),
        ] {
            let error = format!("{:#}", load(&GOOD.replacen(good, bad, 1)).expect_err(bad));
            assert!(error.contains(key), "{error}");
            assert!(error.contains("toy.toml"), "{error}");
        }
        let idle = GOOD
            .replace("steps = 3", "steps = 0")
            .replace("steps = 2", "steps = 0");
        let error = format!("{:#}", load(&idle).expect_err("nothing to do"));
        assert!(error.contains("nothing would be trained"), "{error}");
        let twice = format!("{GOOD}{}", &GOOD[GOOD.find("[[data]]").expect("data")..]);
        let error = format!("{:#}", load(&twice).expect_err("one name for two folders"));
        assert!(error.contains("`sea`"), "{error}");
    }

    #[test]
    fn what_was_trained_already_must_not_change() {
        let before = load(GOOD).expect("good");
        let conflict = |old: &str, new: &str, begun: &[PhaseName]| {
            let after = load(&GOOD.replacen(old, new, 1)).expect("good");
            assert_ne!(before, after, "{new}");
            before.conflict(&after, begun, false).expect("compares")
        };
        let head = &[PhaseName::GateHead];
        assert_eq!(conflict("batch = 4", "batch = 9", &[]), None);
        assert_eq!(
            conflict("batch = 4", "batch = 9", head).as_deref(),
            Some("phases.gate-head.batch")
        );
        assert_eq!(conflict("batch = 5", "batch = 9", head), None);
        assert_eq!(
            conflict("[0.5, 0.5]", "[0.5, 0.7]", head).as_deref(),
            Some("data.0.scale.1")
        );
        assert_eq!(conflict("[1.0, 2.0]", "[1.0, 3.0]", head), None);
        assert_eq!(
            conflict("\"none\"", "\"CC0\"", head),
            None,
            "the first `none` is the licence"
        );
        assert_eq!(
            conflict("[phases]", "[mining]\nshare = 0\n[phases]", head).as_deref(),
            Some("mining.share")
        );
    }

    #[test]
    fn what_a_phase_is_judged_by_must_not_change_in_its_midst() {
        let before = load(GOOD).expect("good");
        let after = GOOD.replacen("[phases]", "[judge]\nframes = 9\n[phases]", 1);
        let after = load(&after).expect("good");
        let conflict = |unfinished| {
            let head = &[PhaseName::GateHead];
            let key = before.conflict(&after, head, unfinished);
            key.expect("compares")
        };
        assert_eq!(conflict(true).as_deref(), Some("judge.frames"));
        assert_eq!(conflict(false), None);
    }
}

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

use std::fmt::{Debug, Display};
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::eval::frames;
use crate::nn::DecoderKind;

/// How errors call the table of the keys that stand in none.
const FILE: &str = "the config";

/// MobileNetV2's widths of which Keras has ImageNet's weights; those of the mission end at 1.
const WIDTHS: [f64; 6] = [0.35, 0.5, 0.75, 1.0, 1.3, 1.4];

/// What is part of a whole.
const SHARE: RangeInclusive<f64> = 0.0..=1.0;

/// Most steps of anything: years.
const STEPS: usize = 100_000_000;

/// Most memory for images, in MiB: 16 TiB.
const MOST_CACHE: usize = 1 << 24;

/// Minutes of one.
const WEEK: f64 = 10_080.0;

/// A training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Config {
    /// Name of the bundle that export writes.
    pub(crate) name: String,
    /// Every random choice follows from it.
    #[serde(default)]
    pub(crate) seed: u64,
    /// MobileNetV2's channel multiplier: 0.35, 0.5, 0.75, 1, 1.3 or 1.4.
    #[serde(default = "default_width")]
    pub(crate) width: f64,
    /// The U-Net's decoder.
    #[serde(default = "default_decoder")]
    pub(crate) decoder: DecoderKind,
    /// Whether the U-Net learns, besides, to part ships that touch.
    #[serde(default)]
    pub(crate) separation: bool,
    /// Side of a tile in pixels: a multiple of 32, up to the 768 of a judging frame.
    #[serde(default = "default_tile")]
    pub(crate) tile: u32,
    /// Least overlap of neighbouring tiles at the edge, in pixels; 1 to three quarters of a tile.
    #[serde(default = "default_overlap")]
    pub(crate) overlap: u32,
    /// Weights to start from: ImageNet's in safetensors, or a bundle; random where absent.
    pub(crate) pretrained: Option<PathBuf>,
    /// Finest and coarsest ground resolution that the data and its scales cover, metres per pixel; 0.01
    /// to 1000.
    pub(crate) gsd: [f64; 2],
    /// Memory for decoded images, in MiB.
    #[serde(default = "default_cache")]
    pub(crate) cache_mib: usize,
    /// Minutes between checkpoints, besides those at each look at the tune set; 0 (after every step) to
    /// a week's.
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
        within("tile", FILE, self.tile, 32..=frames::SIDE)?;
        ensure!(
            self.tile.is_multiple_of(32),
            "`tile` of {FILE} is {}, but must be a multiple of 32",
            self.tile
        );
        // Closer tiles would let a frame take hours.
        within("overlap", FILE, self.overlap, 1..=self.tile / 4 * 3)?;
        ensure!(
            WIDTHS.contains(&self.width),
            "`width` of {FILE} is {}, but must be one of {WIDTHS:?}: those are MobileNetV2's",
            self.width
        );
        within_both("gsd", FILE, self.gsd, 0.01..=1000.0)?;
        within("cache-mib", FILE, self.cache_mib, 0..=MOST_CACHE)?;
        let minutes = self.checkpoint_minutes;
        within("checkpoint-minutes", FILE, minutes, 0.0..=WEEK)?;
        self.augment.check()?;
        data::check(&self.data)?;
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

/// # Errors
/// If `value` is out of `range`; the message names the key, the table that it stands in and the range.
fn within<T: PartialOrd + Debug + Display>(
    key: &str,
    table: &str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<()> {
    ensure!(
        range.contains(&value),
        "`{key}` of {table} is {value:?}, but must be {} to {}",
        range.start(),
        range.end()
    );
    Ok(())
}

/// # Errors
/// If one of `[low, high]` is out of `range`, or they are the wrong way round.
fn within_both(key: &str, table: &str, ends: [f64; 2], range: RangeInclusive<f64>) -> Result<()> {
    for end in ends {
        within(key, table, end, range.clone())?;
    }
    let [low, high] = ends;
    ensure!(
        low <= high,
        "`{key}` of {table} must be [low, high], but {low} is above {high}"
    );
    Ok(())
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

    /// Values that parse, and that panic, abort or make nonsense further on.
    #[test]
    fn every_number_has_its_bounds() {
        let top = |line: &str| format!("{line}\n{GOOD}");
        let table = |name: &str, line: &str| {
            GOOD.replace("[phases]", &format!("[{name}]\n{line}\n[phases]"))
        };
        let phase = |line: &str| GOOD.replace("unet = {", &format!("unet = {{ {line},"));
        let unet = |line: &str| phase(line).replace("batch = 5, ", "");
        let data = |line: &str| format!("{GOOD}\n{line}");
        let scale = |value: &str| GOOD.replace("[0.5, 0.5]", value);
        let gsd = |value: &str| GOOD.replace("[1.0, 2.0]", value);
        let cases: Vec<(String, &str, &str)> = [
            (top("tile = 0"), "`tile` of the config", "32 to 768"),
            (top("tile = 800"), "`tile` of the config", "32 to 768"),
            (top("tile = 8192"), "`tile` of the config", "32 to 768"),
            (
                top("tile = 4294967264"),
                "`tile` of the config",
                "32 to 768",
            ),
            (top("overlap = 0"), "`overlap` of the config", "1 to 168"),
            (top("overlap = 223"), "`overlap` of the config", "1 to 168"),
            (top("cache-mib = 99999999"), "`cache-mib`", "0 to 16777216"),
            (
                top("checkpoint-minutes = 1e300"),
                "`checkpoint-minutes`",
                "0 to 10080",
            ),
            (
                top("checkpoint-minutes = -1"),
                "`checkpoint-minutes`",
                "0 to 10080",
            ),
            (gsd("[1e-3, 2.0]"), "`gsd` of the config", "0.01 to 1000"),
            (gsd("[1.0, 1e4]"), "`gsd` of the config", "0.01 to 1000"),
            (
                scale("[1e-300, 1e300]"),
                "`scale` of data `sea`",
                "0.01 to 8",
            ),
            (scale("[1e9, 1e9]"), "`scale` of data `sea`", "0.01 to 8"),
            (
                data("frame-scale = [1e7, 1e8]"),
                "`frame-scale` of data `sea`",
                "0.05 to 8",
            ),
            (
                data("eval-scales = [1.0, 1e9]"),
                "`eval-scales` of data `sea`",
                "0.01 to 8",
            ),
            (
                data("weight = 1e308"),
                "`weight` of data `sea`",
                "0.001 to 1000",
            ),
            (
                data("weight = 0"),
                "`weight` of data `sea`",
                "0.001 to 1000",
            ),
            (
                unet("batch = 1000000"),
                "`batch` of [phases.unet]",
                "1 to 1024",
            ),
            (
                unet("batch = 1000000000000"),
                "`batch` of [phases.unet]",
                "1 to 1024",
            ),
            (
                phase("tune-every = 0"),
                "`tune-every` of [phases.unet]",
                "1 to 100000000",
            ),
            (
                phase("patience = 1000000000"),
                "`patience` of [phases.unet]",
                "0 to 100000000",
            ),
            (
                phase("first-block = 18"),
                "`first-block` of [phases.unet]",
                "0 to 17",
            ),
            (
                table("judge", "frames = 1000000000000"),
                "`frames` of [judge]",
                "0 to 10000",
            ),
            (
                table("judge", "empty-share = -0.1"),
                "`empty-share` of [judge]",
                "0 to 1",
            ),
            (
                table("mining", "pool = 1000000000000"),
                "`pool` of [mining]",
                "1 to 100000",
            ),
            (
                table("mining", "keep = 1000000000000"),
                "`keep` of [mining]",
                "1 to 100000",
            ),
            (
                table("mining", "keep = 0"),
                "`keep` of [mining]",
                "1 to 100000",
            ),
            (
                table("mining", "every = 1000000000"),
                "`every` of [mining]",
                "1 to 100000000",
            ),
            (
                table("optimiser", "weight-decay = 1e300"),
                "`weight-decay` of [opt",
                "0 to 10",
            ),
            (
                table("optimiser", "clip-norm = 1e300"),
                "`clip-norm` of [optimiser]",
                "0.001 to 1000000",
            ),
            (
                table("optimiser", "betas = [0.9, 0.9999999999]"),
                "`betas` of [opt",
                "0 to 0.99999",
            ),
            (
                table("optimiser", "ema = 0.9999999999"),
                "`ema` of [optimiser]",
                "0 to 0.99999",
            ),
            (
                table("loss", "dice = 1e300"),
                "`dice` of [loss]",
                "0 to 1000",
            ),
            (
                table("loss", "focal-gamma = 1e300"),
                "`focal-gamma` of [loss]",
                "0 to 10",
            ),
            (
                table("loss", "label-smoothing = 0.9"),
                "`label-smoothing` of [loss]",
                "0 to 0.5",
            ),
        ]
        .into();
        let refused = |text: &str| format!("{:#}", load(text).expect_err(text));
        for (text, key, range) in &cases {
            let error = refused(text);
            assert!(error.contains(key) && error.contains(range), "{error}");
        }
        for steps in ["steps = 100000001", "steps = 1000000000000"] {
            let error = refused(&GOOD.replace("steps = 2", steps));
            assert!(error.contains("`steps` of [phases.unet]"), "{error}");
        }
        for rate in ["1e-300", "1e300"] {
            let error = refused(&GOOD.replacen("1e-3", rate, 1));
            assert!(
                error.contains("`learning-rate` of [phases.gate-head]"),
                "{error}"
            );
        }
        for width in ["1e9", "1e-9", "0.36", "0", "-0.5", "nan"] {
            let error = refused(&top(&format!("width = {width}")));
            assert!(
                error.contains("[0.35, 0.5, 0.75, 1.0, 1.3, 1.4]"),
                "{error}"
            );
        }
        for width in ["0.35", "0.5", "0.75", "1.0", "1"] {
            load(&top(&format!("width = {width}"))).expect("one of MobileNetV2's");
        }
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

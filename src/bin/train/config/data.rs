//! `[[data]]`: the folders of labelled images.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::{within, within_both};

/// Factors by which images may be resampled: from a drone's 2 cm per pixel, or Sentinel-2's 10 m, to
/// the challenge's 1.5 m and beyond.
const SCALES: RangeInclusive<f64> = 0.01..=8.0;

/// Those for frames: of smaller pieces a frame would take thousands.
const FRAME_SCALES: RangeInclusive<f64> = 0.05..=8.0;

/// Relative shares of the tiles.
const WEIGHTS: RangeInclusive<f64> = 0.001..=1000.0;

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
    /// Smallest and largest factor by which images are resampled, 0.01 to 8.
    pub(crate) scale: [f64; 2],
    /// Factors at which whole images are judged, 0.01 to 8.
    #[serde(default = "default_eval_scales")]
    pub(crate) eval_scales: Vec<f64>,
    /// Smallest and largest factor at which its images go into judging frames, so that they look as
    /// if taken at about 1.5 m per pixel, 0.05 to 8; without it they go into none.
    pub(crate) frame_scale: Option<[f64; 2]>,
    /// Relative share of the tiles, 0.001 to 1000.
    #[serde(default = "default_weight")]
    pub(crate) weight: f64,
    /// Ids that start so are for tuning; besides those that `split` or `split.csv` sets aside.
    #[serde(default)]
    pub(crate) tune: Vec<String>,
    /// Ids that start so are for testing.
    #[serde(default)]
    pub(crate) test: Vec<String>,
    /// What `train split` wrote, in place of the folder's `split.csv`; relative to the config file.
    pub(crate) split: Option<PathBuf>,
    /// Whether every ship is labelled. Where some are not, scenes of its water and land are not mined:
    /// what a network fires on there may well be a ship.
    #[serde(default = "default_complete")]
    pub(crate) complete: bool,
    /// Whether all of its images are for testing: how models do on a sensor that they never saw.
    #[serde(default)]
    pub(crate) held_out: bool,
}

fn default_eval_scales() -> Vec<f64> {
    vec![1.0]
}
fn default_weight() -> f64 {
    1.0
}
fn default_complete() -> bool {
    true
}

/// # Errors
/// If a value makes no sense; the message names the key.
pub(super) fn check(roots: &[DataRoot]) -> Result<()> {
    ensure!(!roots.is_empty(), "no [[data]] folder is named");
    ensure!(
        roots.iter().any(|root| !root.held_out),
        "all [[data]] folders are `held-out`: nothing is left to train on"
    );
    let mut names = BTreeSet::new();
    for root in roots {
        let name = &root.name;
        ensure!(names.insert(name), "two data folders are named `{name}`");
        let data = format!("data `{name}`");
        within_both("scale", &data, root.scale, SCALES)?;
        ensure!(
            !root.eval_scales.is_empty(),
            "`eval-scales` of {data} must be one or more factors"
        );
        for &scale in &root.eval_scales {
            within("eval-scales", &data, scale, SCALES)?;
        }
        if let Some(scale) = root.frame_scale {
            within_both("frame-scale", &data, scale, FRAME_SCALES)?;
        }
        within("weight", &data, root.weight, WEIGHTS)?;
        ensure!(
            !root.held_out
                || (root.split.is_none() && root.tune.is_empty() && root.test.is_empty()),
            "`held-out` of data `{name}` leaves nothing for `split`, `tune` and `test` to say"
        );
    }
    Ok(())
}

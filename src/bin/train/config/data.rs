//! `[[data]]`: the folders of labelled images.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::{is_positive, is_range};

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
    /// Smallest and largest factor at which its images go into judging frames, so that they look as
    /// if taken at about 1.5 m per pixel; without it they go into none.
    pub(crate) frame_scale: Option<[f64; 2]>,
    /// Relative share of the tiles.
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
        ensure!(
            is_range(root.scale),
            "`scale` of data `{name}` must be [low, high], both positive"
        );
        ensure!(
            !root.eval_scales.is_empty() && root.eval_scales.iter().all(|&s| is_positive(s)),
            "`eval-scales` of data `{name}` must be one or more positive factors"
        );
        ensure!(
            root.frame_scale.is_none_or(is_range),
            "`frame-scale` of data `{name}` must be [low, high], both positive"
        );
        ensure!(
            is_positive(root.weight),
            "`weight` of data `{name}` must be positive"
        );
        ensure!(
            !root.held_out
                || (root.split.is_none() && root.tune.is_empty() && root.test.is_empty()),
            "`held-out` of data `{name}` leaves nothing for `split`, `tune` and `test` to say"
        );
    }
    Ok(())
}

//! What training lowers: `[loss]`.

use std::ops::RangeInclusive;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::within;

/// Weights of the losses.
const WEIGHTS: RangeInclusive<f64> = 0.0..=1000.0;

/// Exponents, and costs of errors.
const SHAPES: RangeInclusive<f64> = 0.0..=10.0;

/// Beyond it the truth would come close to saying nothing.
const SMOOTHING: RangeInclusive<f64> = 0.0..=0.5;

/// Weights, 0 to 1000, and shapes, 0 to 10, of the losses. The first five are summed for the U-Net.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Losses {
    /// Weight of the binary cross-entropy of the pixels.
    pub(crate) bce: f64,
    /// Weight of `1 - Dice`.
    pub(crate) dice: f64,
    /// Weight of the focal loss.
    pub(crate) focal: f64,
    /// Weight of `1 - Tversky index`.
    pub(crate) tversky: f64,
    /// Weight of the Lovász hinge.
    pub(crate) lovasz: f64,
    /// How strongly the focal loss passes over pixels that are right already.
    pub(crate) focal_gamma: f64,
    /// What a false alarm costs in the Tversky index.
    pub(crate) tversky_alpha: f64,
    /// What a miss costs in the Tversky index.
    pub(crate) tversky_beta: f64,
    /// What Dice and Tversky are taken of.
    pub(crate) overlap_of: Reduction,
    /// How far the gate's truth is drawn from 0 and 1 towards the middle, 0 to 0.5.
    pub(crate) label_smoothing: f64,
}

/// What an overlap such as Dice is taken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reduction {
    /// Each tile, averaged, as the score does: a small ship counts as much as a large one, and an
    /// empty tile by its false alarms.
    Tiles,
    /// Each tile with a ship, averaged.
    Ships,
    /// The batch as if it were one tile.
    Batch,
}

impl Default for Losses {
    fn default() -> Self {
        Self {
            bce: 1.0,
            dice: 1.0,
            focal: 0.0,
            tversky: 0.0,
            lovasz: 0.0,
            focal_gamma: 2.0,
            tversky_alpha: 0.3,
            tversky_beta: 0.7,
            overlap_of: Reduction::Tiles,
            label_smoothing: 0.0,
        }
    }
}

impl Losses {
    /// # Errors
    /// If a value makes no sense; the message names the key.
    pub(super) fn check(&self) -> Result<()> {
        let weights = [
            ("bce", self.bce),
            ("dice", self.dice),
            ("focal", self.focal),
            ("tversky", self.tversky),
            ("lovasz", self.lovasz),
        ];
        let shapes = [
            ("focal-gamma", self.focal_gamma),
            ("tversky-alpha", self.tversky_alpha),
            ("tversky-beta", self.tversky_beta),
        ];
        for (key, weight) in weights {
            within(key, "[loss]", weight, WEIGHTS)?;
        }
        for (key, value) in shapes {
            within(key, "[loss]", value, SHAPES)?;
        }
        ensure!(
            weights.iter().any(|(_, weight)| *weight > 0.0),
            "all weights of [loss] are 0: the U-Net would learn nothing"
        );
        within("label-smoothing", "[loss]", self.label_smoothing, SMOOTHING)
    }
}

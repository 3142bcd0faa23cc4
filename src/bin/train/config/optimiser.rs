//! What all phases share of the optimiser: `[optimiser]`.

use std::ops::RangeInclusive;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::within;

/// Decays of running means. Much closer to 1, `f32` could not tell them from 1.
const DECAY: RangeInclusive<f64> = 0.0..=0.999_99;

/// AdamW's settings (Loshchilov and Hutter 2019), and what surrounds it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Optimiser {
    /// Share of a weight that decays per unit of learning rate, 0 to 10; batch norms and biases keep
    /// all.
    pub(crate) weight_decay: f64,
    /// Decay of the running means of gradients and of their squares, 0 to 0.99999.
    pub(crate) betas: [f64; 2],
    /// Largest norm of all gradients together, 0.001 to 1,000,000.
    pub(crate) clip_norm: f64,
    /// Decay of the average of the weights, which is what gets judged and saved; 0 to 0.99999.
    pub(crate) ema: f64,
}

impl Default for Optimiser {
    fn default() -> Self {
        Self {
            weight_decay: 0.01,
            betas: [0.9, 0.999],
            clip_norm: 5.0,
            ema: 0.998,
        }
    }
}

impl Optimiser {
    /// # Errors
    /// If a value makes no sense; the message names the key.
    pub(super) fn check(&self) -> Result<()> {
        let table = "[optimiser]";
        within("weight-decay", table, self.weight_decay, 0.0..=10.0)?;
        within("clip-norm", table, self.clip_norm, 0.001..=1e6)?;
        for beta in self.betas {
            within("betas", table, beta, DECAY)?;
        }
        within("ema", table, self.ema, DECAY)
    }
}

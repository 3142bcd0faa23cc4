//! What all phases share of the optimiser: `[optimiser]`.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::is_positive;

/// AdamW's settings (Loshchilov and Hutter 2019), and what surrounds it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Optimiser {
    /// Share of a weight that decays per unit of learning rate; batch norms and biases keep all.
    pub(crate) weight_decay: f64,
    /// Decay of the running means of gradients and of their squares.
    pub(crate) betas: [f64; 2],
    /// Largest norm of all gradients together.
    pub(crate) clip_norm: f64,
    /// Decay of the average of the weights, which is what gets judged and saved.
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
        ensure!(
            self.weight_decay.is_finite() && self.weight_decay >= 0.0,
            "`weight-decay` of [optimiser] must be 0 or more"
        );
        ensure!(
            is_positive(self.clip_norm),
            "`clip-norm` of [optimiser] must be positive"
        );
        ensure!(
            self.betas.iter().all(|beta| (0.0..1.0).contains(beta)),
            "`betas` of [optimiser] must be two numbers from 0 to below 1"
        );
        ensure!(
            (0.0..1.0).contains(&self.ema),
            "`ema` of [optimiser] must be 0 to below 1"
        );
        Ok(())
    }
}

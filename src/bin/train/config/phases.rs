//! How the networks are trained: `[gate]`, `[unet]` and `[optimiser]`.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::is_positive;

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

/// What all phases share of the optimiser.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Optimiser {}

fn default_every() -> usize {
    200
}

impl Stage {
    /// Steps of both phases.
    pub(crate) fn total_steps(&self) -> usize {
        self.head_steps.saturating_add(self.steps)
    }

    /// # Errors
    /// If a value makes no sense; the message names the key.
    pub(super) fn check(&self, name: &str) -> Result<()> {
        ensure!(self.batch > 0, "`batch` of [{name}] must be positive");
        ensure!(
            self.total_steps() > 0,
            "`head-steps` and `steps` of [{name}] are both 0: nothing would be trained"
        );
        ensure!(
            is_positive(self.learning_rate),
            "`learning-rate` of [{name}] must be positive"
        );
        let share = self.ship_share;
        ensure!(
            (0.0..=1.0).contains(&share),
            "`ship-share` of [{name}] must be 0 to 1"
        );
        ensure!(
            self.tune_every > 0,
            "`tune-every` of [{name}] must be positive"
        );
        Ok(())
    }
}

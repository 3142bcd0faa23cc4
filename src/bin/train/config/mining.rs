//! Ship-free scenes that come back because a network fires on them: `[mining]`.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// Hard-negative mining.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Mining {
    /// Share of the ship-free tiles that show a mined scene; 0 turns mining off.
    pub(crate) share: f64,
    /// Steps between two rounds.
    pub(crate) every: usize,
    /// Fresh scenes that a round looks at.
    pub(crate) pool: usize,
    /// Scenes that are kept.
    pub(crate) keep: usize,
}

impl Default for Mining {
    fn default() -> Self {
        Self {
            share: 0.3,
            every: 400,
            pool: 384,
            keep: 128,
        }
    }
}

impl Mining {
    /// # Errors
    /// If a value makes no sense; the message names the key.
    pub(super) fn check(&self) -> Result<()> {
        ensure!(
            (0.0..=1.0).contains(&self.share),
            "`share` of [mining] must be 0 to 1"
        );
        for (key, value) in [
            ("every", self.every),
            ("pool", self.pool),
            ("keep", self.keep),
        ] {
            ensure!(value > 0, "`{key}` of [mining] must be positive");
        }
        Ok(())
    }
}

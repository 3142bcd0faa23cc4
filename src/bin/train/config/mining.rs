//! Ship-free scenes that come back because a network fires on them: `[mining]`.

use std::ops::RangeInclusive;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{SHARE, STEPS, within};

/// Scenes of a round.
const SCENES: RangeInclusive<usize> = 1..=100_000;

/// Hard-negative mining.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Mining {
    /// Share of the ship-free tiles that show a mined scene; 0 turns mining off.
    pub(crate) share: f64,
    /// Steps between two rounds.
    pub(crate) every: usize,
    /// Fresh scenes that a round looks at, 1 to 100,000.
    pub(crate) pool: usize,
    /// Scenes that are kept, 1 to 100,000.
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
        within("share", "[mining]", self.share, SHARE)?;
        within("every", "[mining]", self.every, 1..=STEPS)?;
        within("pool", "[mining]", self.pool, SCENES)?;
        within("keep", "[mining]", self.keep, SCENES)
    }
}

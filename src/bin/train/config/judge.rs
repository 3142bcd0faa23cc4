//! The frames by which models are judged: `[judge]`.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{SHARE, within};

/// Frames of each split.
const FRAMES: std::ops::RangeInclusive<usize> = 0..=10_000;

/// The frames by which models are judged, besides plain images: composed from those data folders that
/// have a `frame-scale`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Judge {
    /// Frames of each split, 0 to 10,000.
    pub(crate) frames: usize,
    /// Which ones they are follows from it; not from the seed of training.
    pub(crate) seed: u64,
    /// Share of frames without ships.
    pub(crate) empty_share: f64,
}

impl Default for Judge {
    fn default() -> Self {
        Self {
            frames: 200,
            seed: 1,
            empty_share: 0.6,
        }
    }
}

impl Judge {
    /// # Errors
    /// If a value makes no sense; the message names the key.
    pub(super) fn check(&self) -> Result<()> {
        within("frames", "[judge]", self.frames, FRAMES)?;
        within("empty-share", "[judge]", self.empty_share, SHARE)
    }
}

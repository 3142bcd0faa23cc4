//! Where a phase stands, apart from its tensors.

use serde::{Deserialize, Serialize};

use crate::miner::Mined;

/// Where a phase stands. A checkpoint holds it beside the tensors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct State {
    /// Steps done.
    pub(crate) step: usize,
    /// Best tune score so far.
    pub(crate) best: Option<f64>,
    /// Looks at the tune set since then.
    pub(crate) stale: usize,
    /// Whether the phase has come to its end.
    pub(crate) done: bool,
    /// Sum of the losses since the last look at the tune set.
    pub(crate) losses: f64,
    /// Sum of the gradients' norms since then.
    pub(crate) norms: f64,
    /// Steps since then.
    pub(crate) counted: usize,
    /// Ship-free scenes that come back.
    pub(crate) mined: Mined,
}

impl State {
    /// Forgets the losses up to a look at the tune set.
    pub(crate) fn start_window(&mut self) {
        (self.losses, self.norms, self.counted) = (0.0, 0.0, 0);
    }

    /// Mean loss since the last look at the tune set; none before the first step.
    pub(crate) fn mean_loss(&self) -> Option<f64> {
        (self.counted > 0).then(|| self.losses / self.counted as f64)
    }

    /// Mean norm of the gradients since the last look at the tune set.
    pub(crate) fn mean_norm(&self) -> Option<f64> {
        (self.counted > 0).then(|| self.norms / self.counted as f64)
    }
}

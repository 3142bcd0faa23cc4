//! Where a phase stands, apart from its tensors.

use serde::{Deserialize, Serialize};

use crate::config::Phase;
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
    /// The start of a phase after one that ended at `before`: with its hard scenes, for it goes on with the
    /// network that fires on them.
    pub(crate) fn after(before: Option<Self>) -> Self {
        Self {
            mined: Mined {
                round: 0,
                scenes: before.unwrap_or_default().mined.scenes,
            },
            ..Self::default()
        }
    }

    /// Whether a look at the tune set comes before the next step: before the first one, and where the
    /// user asked to stop during the look.
    pub(crate) fn owes_look(&self, phase: &Phase) -> bool {
        self.best.is_none() || (self.counted > 0 && self.is_look_due(phase))
    }

    /// Whether the steps done end with a look at the tune set.
    pub(crate) fn is_look_due(&self, phase: &Phase) -> bool {
        self.step == phase.steps || self.step.is_multiple_of(phase.tune_every)
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Phases;

    #[test]
    fn a_phase_begins_with_the_hard_scenes_of_the_one_before_and_nothing_else() {
        let mined = Mined {
            round: 7,
            scenes: vec![3, 1],
        };
        let before = State {
            step: 70,
            best: Some(0.5),
            stale: 2,
            done: true,
            mined,
            ..State::default()
        };
        let after = State::after(Some(before));
        assert_eq!(
            (after.mined.round, &after.mined.scenes[..]),
            (0, &[3, 1][..])
        );
        let rest = State {
            mined: Mined::default(),
            ..after
        };
        assert_eq!(rest, State::default());
        assert_eq!(State::after(None), State::default());
    }

    #[test]
    fn a_look_is_owed_at_the_start_and_where_it_was_cut_short() {
        let phase = Phase {
            steps: 7,
            tune_every: 3,
            ..Phases::default().unet
        };
        let at = |step, counted| State {
            step,
            counted,
            best: Some(0.5),
            ..State::default()
        };
        assert!(State::default().owes_look(&phase));
        for (step, owed) in [(1, false), (2, false), (3, true), (6, true), (7, true)] {
            assert_eq!(at(step, 1).owes_look(&phase), owed, "{step}");
            assert!(!at(step, 0).owes_look(&phase), "looked at {step}");
        }
    }
}

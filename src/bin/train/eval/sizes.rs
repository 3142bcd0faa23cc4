//! Figures by the length of ships: of the ships, and of the images that show them.

use std::fmt;

use serde::Serialize;
use shipwatch::metrics::{auc, mean, pass_rate, stopped_at_recall};

use super::bootstrap::Estimate;
use super::figures::{Measure, Sample, average};
use super::outcome::Outcome;

/// Lengths of ships that are told apart.
pub(super) const LENGTHS: [Length; 6] = [
    Length::new(0.0, Some(10.0)),
    Length::new(10.0, Some(20.0)),
    Length::new(20.0, Some(40.0)),
    Length::new(40.0, Some(80.0)),
    Length::new(80.0, Some(160.0)),
    Length::new(160.0, None),
];

/// Share of the images with ships of one length at which the gate's use is told.
const RECALL: f64 = 0.98;

/// A range of lengths in pixels at the networks' scale, its end not in it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Length {
    pub(crate) from: f64,
    /// None where there is no end.
    pub(crate) to: Option<f64>,
}

impl Length {
    const fn new(from: f64, to: Option<f64>) -> Self {
        Self { from, to }
    }

    pub(super) fn contains(self, length: f64) -> bool {
        length >= self.from && self.to.is_none_or(|to| length < to)
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to {
            Some(to) => write!(f, "{} to {to}", self.from),
            None => write!(f, "{} and more", self.from),
        }
    }
}

/// Ships of about one length.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Size {
    #[serde(flatten)]
    pub(crate) length: Length,
    pub(crate) ships: usize,
    /// Share of them that a prediction meets with an IoU above 0.5.
    pub(crate) recall: Option<Estimate>,
    /// Mean of their best IoU.
    pub(crate) iou: Option<Estimate>,
}

/// Images whose longest ship is of about one length.
///
/// By the longest, for an image is as easy as that one: by the shortest, a boat beside a tanker would
/// be credited with what the tanker gives, and images of one ship alone are too few.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SizedImages {
    #[serde(flatten)]
    pub(crate) length: Length,
    pub(crate) images: usize,
    /// Means, and what predicting nothing gives.
    pub(crate) dice: Option<Estimate>,
    pub(crate) dice_of_nothing: Option<f64>,
    pub(crate) f2: Option<Estimate>,
    pub(crate) f2_of_nothing: Option<f64>,
    /// Share of them that pass the gate at the manifest's threshold.
    pub(crate) gate_recall: Option<Estimate>,
    /// Area under the ROC curve of the gate's scores, against all images without ships.
    pub(crate) gate_auc: Option<Estimate>,
    /// Share of all images without ships that the gate stops where 98 % of these pass.
    pub(crate) stopped_at_98: Option<Estimate>,
}

impl Size {
    /// The ships of a sample by length.
    pub(super) fn all(sample: &Sample<'_>) -> Vec<Self> {
        LENGTHS.map(|length| Self::of(sample, length)).into()
    }

    fn of(sample: &Sample<'_>, length: Length) -> Self {
        let mean_over = |value: &(dyn Fn(f64, bool) -> f64 + Sync)| {
            sample.estimate(|some| {
                let ships = some.iter().flat_map(|outcome| &outcome.ships);
                let own = ships.filter(|ship| length.contains(ship.length));
                mean(own.map(|ship| value(ship.iou, ship.is_found())))
            })
        };
        let ships = sample.cases().flat_map(|outcome| &outcome.ships);
        Self {
            length,
            ships: ships.filter(|ship| length.contains(ship.length)).count(),
            recall: mean_over(&|_, found| f64::from(u8::from(found))),
            iou: mean_over(&|iou, _| iou),
        }
    }
}

impl SizedImages {
    /// The images of a sample with ships, by their longest; `gate` is the manifest's threshold.
    pub(super) fn all(sample: &Sample<'_>, gate: f32) -> Vec<Self> {
        LENGTHS.map(|length| Self::of(sample, length, gate)).into()
    }

    fn of(sample: &Sample<'_>, length: Length, gate: f32) -> Self {
        let own = |outcome: &Outcome| longest(outcome).is_some_and(|long| length.contains(long));
        let every = |of: fn(&Outcome) -> f64| sample.estimate(|some| average(some, own, of));
        let nothing = |nth: usize| {
            let own = sample.cases().filter(|outcome| own(outcome));
            mean(own.map(|outcome| outcome.nothing[nth]))
        };
        let gated = |of: &Measure<'_>| {
            sample.estimate(|some| {
                let judged = some.iter().filter(|o| own(o) || !o.with_ships);
                of(&judged
                    .map(|o| (o.gate_score, o.with_ships))
                    .collect::<Vec<_>>())
            })
        };
        Self {
            length,
            images: sample.cases().filter(|outcome| own(outcome)).count(),
            dice: every(|outcome| outcome.dice),
            dice_of_nothing: nothing(0),
            f2: every(|outcome| outcome.f2),
            f2_of_nothing: nothing(2),
            gate_recall: gated(&|scored| pass_rate(scored, gate, true)),
            gate_auc: gated(&auc),
            stopped_at_98: gated(&|scored| stopped_at_recall(scored, RECALL)),
        }
    }
}

/// Length of the longest ship; none without ships.
fn longest(outcome: &Outcome) -> Option<f64> {
    let lengths = outcome.ships.iter().map(|ship| ship.length);
    lengths.max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::figures::{sample, tests::outcome};

    #[test]
    fn images_count_by_their_longest_ship_by_hand() {
        let all = [
            // A boat beside a longer ship counts for the longer one.
            outcome(&[(8.0, 0.0), (30.0, 0.6)], 0.5, 1, 0.9),
            outcome(&[(39.9, 0.9)], 0.75, 1, 0.3),
            outcome(&[(9.0, 0.0)], 0.25, 1, 0.15),
            outcome(&[(40.0, 0.9)], 1.0, 1, 0.8),
            outcome(&[], 1.0, 0, 0.1),
            outcome(&[], 0.0, 2, 0.4),
        ];
        let refs: Vec<&Outcome> = all.iter().collect();
        let found = SizedImages::all(&sample(&refs), 0.2);
        let value = |estimate: Option<Estimate>| estimate.expect("has one").value;
        let images: Vec<usize> = found.iter().map(|some| some.images).collect();
        assert_eq!(images, [1, 0, 2, 1, 0, 0]);

        let small = &found[0];
        assert_eq!(value(small.dice), 0.25);
        assert_eq!(value(small.f2), 0.0625);
        // Its image scores below the threshold, above one of two empty ones.
        assert_eq!(value(small.gate_recall), 0.0);
        assert_eq!(value(small.gate_auc), 0.5);
        assert_eq!(value(small.stopped_at_98), 0.5);

        let medium = &found[2];
        assert_eq!(value(medium.dice), 0.625);
        assert_eq!(medium.dice_of_nothing, Some(0.25));
        assert_eq!(medium.f2_of_nothing, Some(0.0));
        assert_eq!(value(medium.gate_recall), 1.0);
        // Of four pairs (0.3, 0.4) is the wrong way round.
        assert_eq!(value(medium.gate_auc), 0.75);
        assert_eq!(value(medium.stopped_at_98), 0.5);

        assert_eq!(value(found[3].stopped_at_98), 1.0);
        let none = &found[1];
        assert!(none.dice.is_none() && none.gate_auc.is_none() && none.gate_recall.is_none());
        assert!(none.dice_of_nothing.is_none());

        // Without empty images nothing is stopped.
        let ships = SizedImages::all(&sample(&refs[..4]), 0.2);
        assert!(ships[2].gate_auc.is_none() && ships[2].stopped_at_98.is_none());
        assert_eq!(value(ships[2].gate_recall), 1.0);
    }
}

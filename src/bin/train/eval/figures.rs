//! From what came of each image to the figures that are reported.

use std::collections::BTreeMap;

use serde::Serialize;
use shipwatch::metrics::{auc, mean, pass_rate, stop_rate, stopped_at_recall};
use shipwatch::model::{Scores, Thresholds};

use super::bootstrap::{Clusters, Estimate};
use super::outcome::{Outcome, SWEEP};
use super::sizes::{Size, SizedImages};

/// Recalls at which the gate's use is told.
const RECALLS: [f64; 3] = [0.97, 0.98, 0.99];

/// Figures of one set, with 95 % intervals.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figures {
    pub(crate) images: usize,
    /// Different images that these show or are mainly made of: what intervals draw from.
    pub(crate) clusters: usize,
    pub(crate) with_ships: usize,
    /// Images without labelled ships of data that may lack labels: what is found there counts as false
    /// and may be a ship.
    pub(crate) empty_as_labelled: usize,
    /// Means over images with ships.
    pub(crate) dice_ships: Option<Estimate>,
    pub(crate) iou_ships: Option<Estimate>,
    pub(crate) f2_ships: Option<Estimate>,
    /// Means over all images, and what predicting nothing gives.
    pub(crate) dice_all: Option<Estimate>,
    pub(crate) dice_all_of_nothing: Option<f64>,
    pub(crate) iou_all: Option<Estimate>,
    pub(crate) iou_all_of_nothing: Option<f64>,
    pub(crate) f2: Option<Estimate>,
    pub(crate) f2_of_nothing: Option<f64>,
    /// Share of the images of which it is rightly said whether they show a ship: by whether one is
    /// emitted, and what saying no gives.
    pub(crate) decisions: Option<Estimate>,
    pub(crate) decisions_of_nothing: Option<f64>,
    /// The same by the gate's score alone, cut at the `classify` threshold.
    pub(crate) decisions_by_gate: Option<Estimate>,
    pub(crate) gate: Gate,
    pub(crate) sizes: Vec<Size>,
    pub(crate) images_by_size: Vec<SizedImages>,
    pub(crate) kinds: BTreeMap<&'static str, Kind>,
    /// Mean Dice and F2 of all images at each mask threshold; none unless outcomes tell.
    pub(crate) sweep: Vec<Swept>,
}

/// How the gate does.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Gate {
    /// Area under the ROC curve over tiles, and over images by their best tile.
    pub(crate) tile_auc: Option<Estimate>,
    pub(crate) image_auc: Option<Estimate>,
    /// At the manifest's threshold: shares of the tiles with ships that pass, and of those without
    /// that are stopped; the same of images, one of which is stopped when all its tiles are.
    pub(crate) tile_recall: Option<Estimate>,
    pub(crate) tiles_stopped: Option<Estimate>,
    pub(crate) image_recall: Option<Estimate>,
    pub(crate) images_stopped: Option<Estimate>,
    /// At thresholds that keep a share of what shows ships.
    pub(crate) at_recall: Vec<AtRecall>,
}

/// What the gate saves at one recall.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct AtRecall {
    pub(crate) recall: f64,
    /// Share of the tiles without ships that are stopped when so many tiles with ships pass.
    pub(crate) tiles_stopped: Option<Estimate>,
    /// Share of the images without ships all of whose tiles are stopped when so many images with ships
    /// pass.
    pub(crate) images_stopped: Option<Estimate>,
}

/// Judging frames of one kind.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Kind {
    pub(crate) images: usize,
    /// As in [`Figures::empty_as_labelled`].
    pub(crate) empty_as_labelled: usize,
    pub(crate) dice: Option<Estimate>,
    pub(crate) f2: Option<Estimate>,
    pub(crate) decisions: Option<Estimate>,
    /// Ships emitted where none is, per image.
    pub(crate) alarms: f64,
}

/// One threshold of the sweep.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Swept {
    pub(crate) mask: f32,
    pub(crate) dice: f64,
    pub(crate) f2: f64,
}

impl Figures {
    /// Those of each set.
    pub(super) fn by_set(outcomes: &[Outcome], thresholds: &Thresholds) -> BTreeMap<String, Self> {
        let mut sets: BTreeMap<&str, Vec<&Outcome>> = BTreeMap::new();
        for outcome in outcomes {
            sets.entry(&outcome.set).or_default().push(outcome);
        }
        let figures =
            |(set, some): (&str, Vec<&Outcome>)| (set.to_owned(), Self::of(&some, thresholds));
        sets.into_iter().map(figures).collect()
    }

    pub(crate) fn of(outcomes: &[&Outcome], thresholds: &Thresholds) -> Self {
        let sample = &sample(outcomes);
        let every = |of: fn(&Outcome) -> f64| sample.estimate(|some| average(some, |_| true, of));
        let ships = |of: fn(&Outcome) -> f64| {
            sample.estimate(|some| average(some, |outcome| outcome.with_ships, of))
        };
        let nothing = |nth: usize| mean(outcomes.iter().map(|outcome| outcome.nothing[nth]));
        let right = |yes: bool, outcome: &Outcome| f64::from(u8::from(yes == outcome.with_ships));
        let mut kinds: BTreeMap<&'static str, Vec<&Outcome>> = BTreeMap::new();
        for outcome in outcomes {
            if let Some(kind) = outcome.kind {
                kinds.entry(kind).or_default().push(outcome);
            }
        }
        Self {
            images: outcomes.len(),
            clusters: sample.count(),
            with_ships: outcomes.iter().filter(|outcome| outcome.with_ships).count(),
            empty_as_labelled: empty_as_labelled(outcomes),
            dice_ships: ships(|outcome| outcome.dice),
            iou_ships: ships(|outcome| outcome.iou),
            f2_ships: ships(|outcome| outcome.f2),
            dice_all: every(|outcome| outcome.dice),
            dice_all_of_nothing: nothing(0),
            iou_all: every(|outcome| outcome.iou),
            iou_all_of_nothing: nothing(1),
            f2: every(|outcome| outcome.f2),
            f2_of_nothing: nothing(2),
            decisions: every(decision),
            decisions_of_nothing: mean(outcomes.iter().map(|outcome| right(false, outcome))),
            decisions_by_gate: sample.estimate(|some| {
                let right =
                    |outcome: &Outcome| right(outcome.gate_score >= thresholds.classify, outcome);
                average(some, |_| true, right)
            }),
            gate: Gate::of(sample, thresholds.gate),
            sizes: Size::all(sample),
            images_by_size: SizedImages::all(sample, thresholds.gate),
            kinds: kinds
                .into_iter()
                .map(|(name, some)| (name, Kind::of(&some)))
                .collect(),
            sweep: (SWEEP.iter().enumerate())
                .filter_map(|(nth, &mask)| {
                    let at = || outcomes.iter().filter_map(|outcome| outcome.sweep.get(nth));
                    let dice = mean(at().map(|quality| quality.0))?;
                    let f2 = mean(at().map(|quality| quality.1))?;
                    Some(Swept { mask, dice, f2 })
                })
                .collect(),
        }
    }

    /// What of them stands in a manifest.
    pub(crate) fn scores(&self) -> Scores {
        let value = |estimate: Option<Estimate>| estimate.map(|e| e.value);
        Scores {
            images: self.images,
            dice_ships: value(self.dice_ships),
            dice_all: value(self.dice_all).unwrap_or(0.0),
            dice_all_empty_baseline: self.dice_all_of_nothing.unwrap_or(0.0),
            f2: value(self.f2).unwrap_or(0.0),
            f2_empty_baseline: self.f2_of_nothing.unwrap_or(0.0),
            gate_recall: value(self.gate.tile_recall),
            gate_rejected: value(self.gate.tiles_stopped),
            gate_auc: value(self.gate.tile_auc),
        }
    }
}

/// A figure of scores, each with whether a ship is there.
pub(super) type Measure<'a> = dyn Fn(&[(f32, bool)]) -> Option<f64> + Sync + 'a;

impl Gate {
    fn of(sample: &Sample<'_>, threshold: f32) -> Self {
        let of_tiles = |of: &Measure<'_>| {
            sample.estimate(|some| {
                of(&some
                    .iter()
                    .flat_map(|o| o.tiles.iter().copied())
                    .collect::<Vec<_>>())
            })
        };
        let of_images = |of: &Measure<'_>| {
            sample.estimate(|some| {
                of(&some
                    .iter()
                    .map(|o| (o.gate_score, o.with_ships))
                    .collect::<Vec<_>>())
            })
        };
        let at = |recall: f64| move |scored: &[(f32, bool)]| stopped_at_recall(scored, recall);
        Self {
            tile_auc: of_tiles(&auc),
            image_auc: of_images(&auc),
            tile_recall: of_tiles(&|scored| pass_rate(scored, threshold, true)),
            tiles_stopped: of_tiles(&|scored| stop_rate(scored, threshold)),
            image_recall: of_images(&|scored| pass_rate(scored, threshold, true)),
            images_stopped: of_images(&|scored| stop_rate(scored, threshold)),
            at_recall: RECALLS
                .into_iter()
                .map(|recall| AtRecall {
                    recall,
                    tiles_stopped: of_tiles(&at(recall)),
                    images_stopped: of_images(&at(recall)),
                })
                .collect(),
        }
    }
}

impl Kind {
    fn of(outcomes: &[&Outcome]) -> Self {
        let sample = sample(outcomes);
        let every = |of: fn(&Outcome) -> f64| sample.estimate(|some| average(some, |_| true, of));
        Self {
            images: outcomes.len(),
            empty_as_labelled: empty_as_labelled(outcomes),
            dice: every(|outcome| outcome.dice),
            f2: every(|outcome| outcome.f2),
            decisions: every(decision),
            alarms: mean(outcomes.iter().map(|outcome| outcome.alarms as f64)).unwrap_or(0.0),
        }
    }
}

/// Images of which those that have an image in common are drawn together.
pub(super) type Sample<'a> = Clusters<'a, Outcome>;

pub(super) fn sample<'a>(outcomes: &[&'a Outcome]) -> Sample<'a> {
    Clusters::by(outcomes, |outcome| &outcome.cluster)
}

fn empty_as_labelled(outcomes: &[&Outcome]) -> usize {
    outcomes
        .iter()
        .filter(|outcome| outcome.empty_as_labelled)
        .count()
}

/// 1 where a ship is emitted just when there is one.
fn decision(outcome: &Outcome) -> f64 {
    f64::from(u8::from(outcome.found.is_empty() != outcome.with_ships))
}

pub(super) fn average(
    some: &[&Outcome],
    keep: impl Fn(&Outcome) -> bool,
    of: impl Fn(&Outcome) -> f64,
) -> Option<f64> {
    mean(
        some.iter()
            .filter(|outcome| keep(outcome))
            .map(|outcome| of(outcome)),
    )
}

#[cfg(test)]
pub(super) mod tests {
    use shipwatch::mask::Rle;

    use super::*;
    use crate::eval::outcome::ShipOutcome;

    /// What came of an image with ships of the given lengths and IoUs. The IoU of its masks is half of
    /// their Dice, their F2 a quarter.
    pub(in super::super) fn outcome(
        ships: &[(f64, f64)],
        dice: f64,
        emitted: usize,
        gate: f32,
    ) -> Outcome {
        let with_ships = !ships.is_empty();
        let pixel = |nth| Rle::new([(2 * nth + 1, 1)]).expect("a run");
        Outcome {
            id: String::new(),
            set: String::new(),
            kind: Some(if with_ships { "ships" } else { "water" }),
            cluster: gate.to_string(),
            empty_as_labelled: !with_ships && emitted > 0,
            with_ships,
            dice,
            iou: dice / 2.0,
            f2: dice / 4.0,
            nothing: if with_ships {
                [0.25, 0.0, 0.0]
            } else {
                [1.0; 3]
            },
            found: (0..emitted as u64).map(pixel).collect(),
            alarms: if with_ships { 0 } else { emitted },
            gate_score: gate,
            tiles: vec![(gate, with_ships), (0.05, false)],
            ships: ships
                .iter()
                .map(|&(length, iou)| ShipOutcome { length, iou })
                .collect(),
            sweep: vec![(dice, 0.5); SWEEP.len()],
        }
    }

    #[test]
    fn figures_by_hand() {
        let all = [
            outcome(&[(8.0, 0.0), (30.0, 0.6)], 0.5, 1, 0.9),
            outcome(&[(30.0, 0.9)], 0.75, 1, 0.3),
            outcome(&[], 1.0, 0, 0.1),
            outcome(&[], 0.0, 2, 0.4),
        ];
        let refs: Vec<&Outcome> = all.iter().collect();
        let thresholds = Thresholds {
            gate: 0.2,
            classify: 0.35,
            valley: None,
            mask: 0.5,
            min_area: 1,
        };
        let figures = Figures::of(&refs, &thresholds);
        let value = |estimate: Option<Estimate>| estimate.expect("has one").value;
        assert_eq!((figures.images, figures.with_ships), (4, 2));
        assert_eq!(figures.empty_as_labelled, 1);
        assert_eq!(figures.kinds["water"].empty_as_labelled, 1);
        assert_eq!(figures.kinds["ships"].empty_as_labelled, 0);
        assert_eq!(value(figures.dice_ships), 0.625);
        assert_eq!(value(figures.dice_all), 0.5625);
        assert_eq!(value(figures.iou_all), 0.28125);
        assert_eq!(figures.dice_all_of_nothing, Some(0.625));
        assert_eq!(figures.f2_of_nothing, Some(0.5));
        // A ship is emitted on both ship images, and on one of two empty ones.
        assert_eq!(value(figures.decisions), 0.75);
        assert_eq!(figures.decisions_of_nothing, Some(0.5));
        // 0.9 and 0.1 fall on the right side of 0.35, 0.3 and 0.4 do not.
        assert_eq!(value(figures.decisions_by_gate), 0.5);
        // Of the pairs (0.9, 0.1), (0.9, 0.4), (0.3, 0.1), (0.3, 0.4) the last is the wrong way round.
        assert_eq!(value(figures.gate.image_auc), 0.75);
        assert_eq!(value(figures.gate.image_recall), 1.0);
        assert_eq!(value(figures.gate.images_stopped), 0.5);
        // Six tiles without ships: four at 0.05, 0.1 and 0.4.
        assert_eq!(value(figures.gate.tiles_stopped), 5.0 / 6.0);
        // All ship images pass at 0.3, where one of two empty ones is stopped.
        assert_eq!(value(figures.gate.at_recall[2].images_stopped), 0.5);
        let size = |from: f64| {
            figures
                .sizes
                .iter()
                .find(|size| size.length.from == from)
                .expect("listed")
        };
        assert_eq!((size(0.0).ships, value(size(0.0).recall)), (1, 0.0));
        assert_eq!((size(20.0).ships, value(size(20.0).recall)), (2, 1.0));
        assert_eq!(value(size(20.0).iou), 0.75);
        assert!(size(160.0).recall.is_none());
        assert_eq!(figures.kinds["water"].alarms, 1.0);
        assert_eq!(value(figures.kinds["water"].decisions), 0.5);
        assert_eq!(figures.sweep.len(), SWEEP.len());
    }
}

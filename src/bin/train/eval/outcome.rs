//! What came of one image.

use anyhow::Result;
use shipwatch::detect::Detector;
use shipwatch::mask::Rle;
use shipwatch::metrics::{best_overlaps, dice, f2_of, smoothed_iou, union};
use shipwatch::model::Thresholds;

use super::chain::{Case, Seen};
use crate::data::ship_length;

/// Mask thresholds of the sweep.
pub(super) const SWEEP: [f32; 13] = [
    0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 0.9,
];

/// IoU from which on a ship is found.
const FOUND: f64 = 0.5;

/// Everything measured on one image.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(super) id: String,
    pub(super) set: String,
    pub(super) kind: Option<&'static str>,
    /// As in [`Case::cluster`].
    pub(super) cluster: String,
    /// Whether it shows no ship but as far as is labelled.
    pub(super) empty_as_labelled: bool,
    pub(super) with_ships: bool,
    pub(super) dice: f64,
    pub(super) iou: f64,
    pub(super) f2: f64,
    /// Dice, IoU and F2 of predicting nothing.
    pub(super) nothing: [f64; 3],
    /// Ships emitted, in the image's own grid.
    pub(super) found: Vec<Rle>,
    /// Ships emitted that reach no truth.
    pub(super) alarms: usize,
    /// The gate's score of the best tile.
    pub(super) gate_score: f32,
    /// Gate score of each tile that is judged, and whether it shows a ship.
    pub(super) tiles: Vec<(f32, bool)>,
    pub(super) ships: Vec<ShipOutcome>,
    /// Dice and F2 at each of the mask thresholds that were asked for, of the tiles that are segmented at
    /// the manifest's.
    pub(super) sweep: Vec<(f64, f64)>,
}

/// What came of one ship.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ShipOutcome {
    /// Longer side of the smallest rectangle around it, in pixels at the networks' scale.
    pub(super) length: f64,
    /// Best IoU of a ship that was emitted.
    pub(super) iou: f64,
}

impl ShipOutcome {
    pub(super) fn is_found(&self) -> bool {
        self.iou > FOUND
    }
}

impl Outcome {
    /// Runs the detector with its own thresholds on a case and compares with the truth, at some other
    /// mask thresholds, too.
    pub(super) fn of(detector: &Detector, case: &Case, sweep: &[f32]) -> Result<Self> {
        let thresholds = detector.manifest().thresholds;
        let seen = case.see(detector, thresholds.gate, thresholds.mask)?;
        let tiles = case.judged_tiles(detector, &seen.gate);
        Ok(Self::compare(case, &seen, &thresholds, tiles, sweep))
    }

    fn compare(
        case: &Case,
        seen: &Seen,
        thresholds: &Thresholds,
        tiles: Vec<(f32, bool)>,
        sweep: &[f32],
    ) -> Self {
        let found = seen.ships(thresholds, case.scale);
        let truth = union(case.ships);
        let (of_truths, of_found) = best_overlaps(case.ships, &found);
        let height = case.pixels.height();
        let length = |ship: &Rle| ship_length(ship, height) * case.scale;
        let ships = case.ships.iter().zip(&of_truths);
        let prediction = union(&found);
        let nothing = Rle::default();
        Self {
            id: case.id.to_owned(),
            set: case.set.clone(),
            kind: case.kind,
            cluster: case.cluster.to_owned(),
            empty_as_labelled: case.ships.is_empty() && !case.complete,
            with_ships: !case.ships.is_empty(),
            dice: dice(&truth, &prediction),
            iou: smoothed_iou(&truth, &prediction),
            f2: f2_of(&of_truths, &of_found),
            nothing: [
                dice(&truth, &nothing),
                smoothed_iou(&truth, &nothing),
                f64::from(u8::from(case.ships.is_empty())),
            ],
            alarms: of_found.iter().filter(|&&iou| iou == 0.0).count(),
            gate_score: seen.gate_score(),
            tiles,
            ships: ships
                .map(|(ship, &iou)| ShipOutcome {
                    length: length(ship),
                    iou,
                })
                .collect(),
            sweep: sweep
                .iter()
                .map(|&mask| {
                    let thresholds = Thresholds {
                        mask,
                        ..*thresholds
                    };
                    quality(case, &truth, &seen.ships(&thresholds, case.scale))
                })
                .collect(),
            found,
        }
    }
}

/// Dice and F2 of a case of which these ships were `found`; `truth` is the union of its ships.
pub(super) fn quality(case: &Case, truth: &Rle, found: &[Rle]) -> (f64, f64) {
    let (of_truths, of_found) = best_overlaps(case.ships, found);
    (dice(truth, &union(found)), f2_of(&of_truths, &of_found))
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, RgbImage};
    use shipwatch::detect::Maps;

    use super::*;

    /// A case of 20 x 10 pixels, and a map that has 200 where it says.
    fn case<'a>(pixels: &'a RgbImage, ships: &'a [Rle]) -> Case<'a> {
        Case {
            set: "s".into(),
            ..Case::of(pixels, ships, 1.0)
        }
    }

    fn bar(columns: std::ops::Range<u32>, rows: std::ops::Range<u32>) -> Rle {
        let runs = columns.map(|x| {
            (
                u64::from(x * 10 + rows.start) + 1,
                u64::from(rows.end - rows.start),
            )
        });
        Rle::new(runs).expect("increasing")
    }

    fn seen(found: &[Rle]) -> Seen {
        let mut map = GrayImage::new(20, 10);
        for (x, y) in found.iter().flat_map(|rle| rle.pixels(10)) {
            map.put_pixel(x, y, image::Luma([200]));
        }
        Seen {
            gate: vec![0.2, 0.7],
            maps: Some(Maps {
                probabilities: map,
                centrality: None,
            }),
        }
    }

    const THRESHOLDS: Thresholds = Thresholds {
        gate: 0.5,
        classify: 0.5,
        mask: 0.5,
        valley: None,
        min_area: 2,
    };

    #[test]
    fn one_ship_found_half_and_one_false_alarm_by_hand() {
        let pixels = RgbImage::new(20, 10);
        let ships = [bar(2..10, 1..3)];
        let case = case(&pixels, &ships);
        // 8 of the ship's 16 pixels, 4 elsewhere, and a speck that is dropped.
        let seen = seen(&[bar(2..6, 1..3), bar(12..14, 6..8), bar(18..19, 0..1)]);
        let outcome = Outcome::compare(&case, &seen, &THRESHOLDS, vec![], &SWEEP);
        assert_eq!(outcome.dice, (2.0 * 8.0 + 1.0) / (16.0 + 12.0 + 1.0));
        assert_eq!(outcome.iou, (8.0 + 1.0) / (20.0 + 1.0));
        // An IoU of a half does not pass 0.5: a miss and two alarms at each threshold.
        assert_eq!(outcome.f2, 0.0);
        assert_eq!(outcome.nothing, [1.0 / 17.0, 1.0 / 17.0, 0.0]);
        assert_eq!((outcome.found.len(), outcome.alarms), (2, 1));
        assert_eq!(outcome.gate_score, 0.7);
        assert_eq!(
            outcome.ships,
            [ShipOutcome {
                length: 8.0,
                iou: 0.5
            }]
        );
        assert!(!outcome.ships[0].is_found());
        // 200 of 255 is above 0.7 and below 0.8.
        let at = |threshold: f32| SWEEP.iter().position(|&t| t == threshold).expect("listed");
        assert_eq!(outcome.sweep[at(0.7)], (outcome.dice, 0.0));
        assert_eq!(outcome.sweep[at(0.8)].0, 1.0 / 17.0);
    }

    #[test]
    fn an_empty_image_is_right_only_when_nothing_is_emitted() {
        let pixels = RgbImage::new(20, 10);
        let mut case = case(&pixels, &[]);
        let quiet = Outcome::compare(&case, &seen(&[]), &THRESHOLDS, vec![], &SWEEP);
        assert_eq!((quiet.dice, quiet.iou, quiet.f2), (1.0, 1.0, 1.0));
        assert_eq!(quiet.nothing, [1.0; 3]);
        let loud = Outcome::compare(
            &case,
            &seen(&[bar(0..3, 0..3)]),
            &THRESHOLDS,
            vec![],
            &SWEEP,
        );
        assert_eq!((loud.dice, loud.iou, loud.f2), (0.1, 0.1, 0.0));
        assert_eq!((loud.found.len(), loud.alarms), (1, 1));
        assert!(!loud.empty_as_labelled);
        // Where ships may lack labels, what was found may be one.
        case.complete = false;
        assert!(Outcome::compare(&case, &seen(&[]), &THRESHOLDS, vec![], &SWEEP).empty_as_labelled);
        let ships = [bar(0..3, 0..3)];
        case.ships = &ships;
        assert!(
            !Outcome::compare(&case, &seen(&[]), &THRESHOLDS, vec![], &SWEEP).empty_as_labelled
        );
    }
}

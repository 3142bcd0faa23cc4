//! Judges a bundle by the very code that the edge runs.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;
use image::{GrayImage, RgbImage};
use shipwatch::clock::MonotonicClock;
use shipwatch::detect::{Detector, Options, threshold_byte};
use shipwatch::frame::{Frame, Tags, resample_gray, resample_rgb};
use shipwatch::mask::{Mask, Rle, instances};
use shipwatch::metrics;
use shipwatch::model::{Scores, Thresholds};
use shipwatch::tile::TilePlan;

use crate::data::{Pool, Split, Tile};

/// Share of the tiles with ships that must pass the gate.
const GATE_RECALL: f64 = 0.98;

/// Thresholds that are tried for pixels.
const MASK_THRESHOLDS: [f32; 7] = [0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7];

/// Least areas that are tried for ships.
const MIN_AREAS: [u32; 5] = [4, 8, 12, 20, 32];

/// Results by set: one for each source and scale, named `source @ scale`.
pub(crate) struct Evaluation {
    pub(crate) sets: BTreeMap<String, Set>,
}

/// Everything measured on one set of images.
#[derive(Debug, Clone, Default)]
pub(crate) struct Set {
    /// Dice of each image, and whether it holds ships.
    dice: Vec<(f64, bool)>,
    /// Dice of predicting nothing.
    empty_dice: Vec<f64>,
    /// The challenge's F2 of each image.
    f2: Vec<f64>,
    /// The challenge's F2 of predicting nothing.
    empty_f2: Vec<f64>,
    /// Gate score of each tile that is judged, and whether it holds a ship.
    tiles: Vec<(f32, bool)>,
}

/// One image as the evaluation sees it.
struct Case<'a> {
    frame: &'a Frame,
    ships: &'a [Rle],
    scale: f64,
    set: String,
}

/// Runs `detector` over a split and compares with the labels.
pub(crate) fn evaluate(detector: &Detector, pool: &Pool, split: Split) -> Result<Evaluation> {
    let mut sets: BTreeMap<String, Set> = BTreeMap::new();
    for_each_case(pool, split, |case| {
        let (width, height) = case.frame.pixels.dimensions();
        let options = Options {
            scale: Some(case.scale),
            ..Options::default()
        };
        let record = detector.detect(case.frame, &options, &MonotonicClock::new())?;
        let found: Vec<Rle> = record.ships.into_iter().map(|ship| ship.rle).collect();
        let truth = union(case.ships, width, height);
        let prediction = union(&found, width, height);
        let truths = masks(case.ships, width, height)?;
        let found = masks(&found, width, height)?;
        let nothing = Mask::new(width, height);

        let set = sets.entry(case.set.clone()).or_default();
        set.dice
            .push((metrics::dice(&truth, &prediction), !truths.is_empty()));
        set.empty_dice.push(metrics::dice(&truth, &nothing));
        set.f2.push(metrics::f2(&truths, &found));
        set.empty_f2.push(metrics::f2(&truths, &[]));
        set.tiles.extend(judged_tiles(detector, &case)?);
        Ok(())
    })?;
    Ok(Evaluation { sets })
}

/// Thresholds that serve best on the tune images: the gate's by recall, the others by mean Dice.
pub(crate) fn choose_thresholds(detector: &Detector, pool: &Pool) -> Result<Thresholds> {
    let mut tiles = Vec::new();
    for_each_case(pool, Split::Tune, |case| {
        tiles.extend(judged_tiles(detector, &case)?);
        Ok(())
    })?;
    let gate = metrics::threshold_for_recall(&tiles, GATE_RECALL).unwrap_or(0.5);
    // Float kernels differ between processors; what just passes here is to pass there.
    let gate = gate * 0.999;

    let candidates: Vec<Thresholds> = MASK_THRESHOLDS
        .iter()
        .flat_map(|&mask| {
            MIN_AREAS.map(|min_area| Thresholds {
                gate,
                classify: gate,
                mask,
                min_area,
                valley: detector.manifest().thresholds.valley,
            })
        })
        .collect();
    let mut dice = vec![0.0; candidates.len()];
    for_each_case(pool, Split::Tune, |case| {
        let (width, height) = case.frame.pixels.dimensions();
        let truth = union(case.ships, width, height);
        let map = probabilities(detector, &case, gate)?;
        for (thresholds, sum) in candidates.iter().zip(&mut dice) {
            *sum += metrics::dice(&truth, &cut(&map, thresholds, case.scale));
        }
        Ok(())
    })?;
    let best = (0..candidates.len()).max_by(|&a, &b| dice[a].total_cmp(&dice[b]));
    Ok(candidates[best.unwrap_or(0)])
}

/// The map behind a detection, in the image's own grid, so that many thresholds can be tried on it.
fn probabilities(detector: &Detector, case: &Case, gate: f32) -> Result<GrayImage> {
    let pixels = case.resampled();
    let passed: Vec<bool> = detector
        .gate_scores(&pixels)?
        .iter()
        .map(|&score| score >= gate)
        .collect();
    let map = detector
        .segment(&pixels, &passed, MASK_THRESHOLDS[0])?
        .maps
        .probabilities;
    let (width, height) = case.frame.pixels.dimensions();
    Ok(resample_gray(&map, width, height))
}

/// The ships that thresholds leave of a map, as one mask.
fn cut(map: &GrayImage, thresholds: &Thresholds, scale: f64) -> Mask {
    let (width, height) = map.dimensions();
    let mask = Mask::from_threshold(map, threshold_byte(thresholds.mask));
    let least = f64::from(thresholds.min_area) / (scale * scale);
    let kept: Vec<Rle> = instances(&mask, map)
        .iter()
        .filter(|instance| instance.area() as f64 >= least)
        .map(|instance| instance.to_rle(height))
        .collect();
    union(&kept, width, height)
}

impl Case<'_> {
    /// The pixels at the networks' scale.
    fn resampled(&self) -> RgbImage {
        let side = |length: u32| ((f64::from(length) * self.scale).round() as u32).max(1);
        let (width, height) = self.frame.pixels.dimensions();
        resample_rgb(&self.frame.pixels, side(width), side(height))
    }
}

fn for_each_case(
    pool: &Pool,
    split: Split,
    mut work: impl FnMut(Case) -> Result<()>,
) -> Result<()> {
    for source in &pool.sources {
        for image in source.of(split) {
            let Some(pixels) = pool.with_pixels(image, RgbImage::clone)? else {
                continue;
            };
            let name = image.labelled.id.clone();
            let frame = Frame {
                name,
                pixels,
                tags: Tags::default(),
            };
            for &scale in &source.config.eval_scales {
                work(Case {
                    frame: &frame,
                    ships: &image.labelled.ships,
                    scale,
                    set: format!("{} @ {scale}", source.config.name),
                })?;
            }
        }
    }
    Ok(())
}

/// Gate scores of the tiles that are judged, and whether they show a ship.
fn judged_tiles(detector: &Detector, case: &Case) -> Result<Vec<(f32, bool)>> {
    let pixels = case.resampled();
    let plan = detector.plan(pixels.width(), pixels.height());
    let verdicts = verdicts(&plan, case.ships, case.frame.pixels.height(), case.scale);
    let judged = detector.gate_scores(&pixels)?.into_iter().zip(verdicts);
    Ok(judged
        .filter_map(|(score, ship)| Some((score, ship?)))
        .collect())
}

/// Whether each tile shows a ship: at least half of one, of a size that counts. None where a tile
/// shows a lesser part only, for a neighbour shows more.
fn verdicts(plan: &TilePlan, ships: &[Rle], height: u32, scale: f64) -> Vec<Option<bool>> {
    let mut verdicts = vec![Some(false); plan.count()];
    for ship in ships {
        let mut shown = vec![0; plan.count()];
        for (x, y) in ship.pixels(height) {
            let at = |place: u32| ((f64::from(place) + 0.5) * scale) as u32;
            for (index, shown) in shown.iter_mut().enumerate() {
                *shown += u64::from(plan.region(index).contains(at(x), at(y)));
            }
        }
        let counts = ship.area() as f64 * scale * scale >= Tile::MIN_SHIP_PIXELS as f64;
        for (verdict, shown) in verdicts.iter_mut().zip(shown) {
            if counts && 2 * shown >= ship.area() {
                *verdict = Some(true);
            } else if shown > 0 && *verdict == Some(false) {
                *verdict = None;
            }
        }
    }
    verdicts
}

fn masks(ships: &[Rle], width: u32, height: u32) -> Result<Vec<Mask>> {
    Ok(ships
        .iter()
        .map(|rle| rle.to_mask(width, height))
        .collect::<Result<_, _>>()?)
}

/// All ships as one mask. They lie on the image: the pool and the detector see to it.
fn union(ships: &[Rle], width: u32, height: u32) -> Mask {
    let mut union = Mask::new(width, height);
    for (x, y) in ships.iter().flat_map(|ship| ship.pixels(height)) {
        union.set(x, y, true);
    }
    union
}

impl Evaluation {
    /// All sets as one.
    pub(crate) fn total(&self) -> Set {
        self.sets
            .values()
            .cloned()
            .fold(Set::default(), |mut total, set| {
                total.dice.extend(set.dice);
                total.empty_dice.extend(set.empty_dice);
                total.f2.extend(set.f2);
                total.empty_f2.extend(set.empty_f2);
                total.tiles.extend(set.tiles);
                total
            })
    }
}

impl Set {
    /// The figures of the manifest, with the gate cut at `threshold`.
    pub(crate) fn scores(&self, threshold: f32) -> Scores {
        let mean = |values: &[f64]| metrics::mean(values.iter().copied()).unwrap_or(0.0);
        let with_ships = self.dice.iter().filter(|(_, ships)| *ships);
        Scores {
            images: self.dice.len(),
            dice_ships: metrics::mean(with_ships.map(|(dice, _)| *dice)),
            dice_all: metrics::mean(self.dice.iter().map(|(dice, _)| *dice)).unwrap_or(0.0),
            dice_all_empty_baseline: mean(&self.empty_dice),
            f2: mean(&self.f2),
            f2_empty_baseline: mean(&self.empty_f2),
            gate_recall: metrics::pass_rate(&self.tiles, threshold, true),
            gate_rejected: metrics::pass_rate(&self.tiles, threshold, false).map(|rate| 1.0 - rate),
            gate_auc: metrics::auc(&self.tiles),
        }
    }
}

/// A table row per set and one for all.
pub(crate) struct Table<'a>(pub(crate) &'a Evaluation, pub(crate) f32);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<26} {:>6} {:>10} {:>8} {:>9} {:>6} {:>9} {:>11} {:>13} {:>8}",
            "set @ scale",
            "images",
            "Dice ships",
            "Dice all",
            "(nothing)",
            "F2",
            "(nothing)",
            "gate recall",
            "gate rejected",
            "gate AUC"
        )?;
        let total = self.0.total();
        let all = ("all".to_owned(), &total);
        let rows = self
            .0
            .sets
            .iter()
            .map(|(name, set)| (name.clone(), set))
            .chain([all]);
        for (name, set) in rows {
            let s = set.scores(self.1);
            let known = |score: Option<f64>| score.map_or("-".to_owned(), |s| format!("{s:.4}"));
            writeln!(
                f,
                "{name:<26} {:>6} {:>10} {:>8.4} {:>9.4} {:>6.4} {:>9.4} {:>11} {:>13} {:>8}",
                s.images,
                known(s.dice_ships),
                s.dice_all,
                s.dice_all_empty_baseline,
                s.f2,
                s.f2_empty_baseline,
                known(s.gate_recall),
                known(s.gate_rejected),
                known(s.gate_auc)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_shows_a_ship_when_it_shows_half_of_one() {
        // Tiles of 64 pixels over columns 0 to 63 and 36 to 99.
        let plan = TilePlan::new(100, 64, 64, 16);
        let ship = |columns: std::ops::Range<u32>, rows: u32| -> Rle {
            let runs = columns.map(|x| (u64::from(x) * 64 + 1, u64::from(rows)));
            Rle::new(runs).expect("increasing")
        };
        let judge = |ships: &[Rle]| verdicts(&plan, ships, 64, 1.0);
        assert_eq!(judge(&[]), [Some(false), Some(false)]);
        assert_eq!(judge(&[ship(40..60, 2)]), [Some(true), Some(true)]);
        assert_eq!(judge(&[ship(20..40, 2)]), [Some(true), None]);
        assert_eq!(judge(&[ship(20..30, 2)]), [Some(true), Some(false)]);
        // Too small to count, yet no proof of empty water.
        assert_eq!(judge(&[ship(20..23, 1)]), [None, Some(false)]);
        // Seen at half the scale, the second of two tiles begins at column 72 of the file.
        let plan = TilePlan::new(100, 32, 64, 16);
        assert_eq!(
            verdicts(&plan, &[ship(0..70, 2)], 64, 0.5),
            [Some(true), Some(false)]
        );
    }
}

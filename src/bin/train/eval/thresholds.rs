//! The thresholds that serve best on the tune images.

use std::rc::Rc;

use anyhow::Result;
use shipwatch::detect::Detector;
use shipwatch::mask::Rle;
use shipwatch::metrics::{most_right, threshold_for_recall, union};
use shipwatch::model::Thresholds;

use super::cases::{Cases, FRAMES};
use super::chain::{Case, Seen, best, least_area};
use super::outcome::quality;
use crate::config::Config;
use crate::data::{Pool, Split};

/// Share of the images with ships that must pass the gate by their best tile.
const IMAGE_RECALL: f64 = 0.98;

/// Share of the tiles with ships that must pass: fewer, for the segmenter looks at their neighbours, too,
/// where a ship reaches over. What more tiles would save of ships they lose by false alarms.
const TILE_RECALL: f64 = 0.96;

/// Thresholds that are tried for pixels, rising.
const MASK_THRESHOLDS: [f32; 11] = [0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8];

/// Depths that are tried for the valleys that part ships. Last, as of equals the last is taken, the
/// middle of those that part true centralities best.
const VALLEYS: [f32; 5] = [0.6, 0.2, 0.5, 0.3, 0.4];

/// Least areas that are tried for ships, rising: none drops a boat of 8 by 3 pixels, however much that would
/// save in false alarms on frames with few of them.
const MIN_AREAS: [u32; 5] = [4, 8, 12, 16, 20];

/// Standard errors by which the best of all candidates must do better than what was chosen before: with a chance
/// of one in twenty the luckiest of 55 that are equally good does so by 3.1 (Bonferroni).
const CLEAR: f64 = 3.1;

/// Scores, each with whether a ship is there.
type Scored = Vec<(f32, bool)>;

/// What the gate says of one tune image.
struct Gated {
    frame: bool,
    tiles: Scored,
    image: (f32, bool),
}

/// Chooses thresholds on the tune images: `gate` by recall, `classify` by the images that it tells
/// rightly, the others by mean Dice + F2 of all images; those of masks and images on the judging
/// frames where there are any, for they are like what the models are for; else on plain images. Those of
/// `before`, of the same networks in floats, stay where they do as well: what was drawn anew from
/// as few images would change more than rounding does.
///
/// The test images have no say: their split is not asked for.
pub(crate) fn choose_thresholds(
    detector: &Detector,
    pool: &Pool,
    config: &Config,
    before: Option<&Thresholds>,
) -> Result<Thresholds> {
    let cases = Cases::open(pool, Split::Tune, config)?;
    let gated: Vec<Gated> = cases.map("choosing the gate's thresholds", |case| {
        let gate = case.gate_scores(detector)?;
        Ok(Gated {
            frame: case.set.starts_with(FRAMES),
            tiles: case.judged_tiles(detector, &gate),
            image: (best(&gate), !case.ships.is_empty()),
        })
    })?;
    let (gate, classify) = choose_gate(&gated, before);
    let parts = detector.manifest().thresholds.valley.is_some();
    let candidates = candidates(gate, classify, parts);
    let judged: Vec<(bool, Vec<f64>)> = cases.map("choosing the masks' thresholds", |case| {
        let seen = case.see_each(detector, gate, &MASK_THRESHOLDS)?;
        Ok((
            case.set.starts_with(FRAMES),
            qualities(case, &seen, &candidates),
        ))
    })?;
    Ok(choose_best(&judged, &candidates, before))
}

/// What is tried, by mask threshold, then by valley where the segmenter `parts` ships, then by area.
fn candidates(gate: f32, classify: f32, parts: bool) -> Vec<Thresholds> {
    let valleys = match parts {
        true => VALLEYS.map(Some).to_vec(),
        false => vec![None],
    };
    let mut candidates = Vec::new();
    for mask in MASK_THRESHOLDS {
        for &valley in &valleys {
            candidates.extend(MIN_AREAS.map(|min_area| Thresholds {
                gate,
                classify,
                mask,
                min_area,
                valley,
            }));
        }
    }
    candidates
}

/// Dice + F2 of a case by each of [`candidates`]; `seen` at each mask threshold.
fn qualities(case: &Case, seen: &[Rc<Seen>], candidates: &[Thresholds]) -> Vec<f64> {
    let truth = union(case.ships);
    let mut qualities = Vec::with_capacity(candidates.len());
    for (same_mask, seen) in candidates.chunk_by(|a, b| a.mask == b.mask).zip(seen) {
        for same_valley in same_mask.chunk_by(|a, b| a.valley == b.valley) {
            // The least of the areas comes first.
            let mut found: Vec<Rle> = seen.ships(&same_valley[0], case.scale);
            for thresholds in same_valley {
                let least = least_area(thresholds, case.scale);
                found.retain(|ship| ship.area() as f64 >= least);
                let (dice, f2) = quality(case, &truth, &found);
                qualities.push(dice + f2);
            }
        }
    }
    qualities
}

/// The highest score that keeps the recalls of tiles and of images, and the one that tells most images
/// rightly; or that of `before` if it keeps them, and tells no clear number less.
fn choose_gate(gated: &[Gated], before: Option<&Thresholds>) -> (f32, f32) {
    let tiles: Scored = gated.iter().flat_map(|g| g.tiles.iter().copied()).collect();
    let framed = gated.iter().any(|gated| gated.frame);
    let images: Scored = (gated.iter())
        .filter(|gated| gated.frame || !framed)
        .map(|gated| gated.image)
        .collect();
    let gates = [
        threshold_for_recall(&tiles, TILE_RECALL),
        threshold_for_recall(&images, IMAGE_RECALL),
    ];
    let gate = gates.into_iter().flatten().fold(f32::INFINITY, f32::min);
    // Float kernels differ between processors; what just passes here is to pass there.
    let gate = if gate.is_finite() { gate * 0.999 } else { 0.5 };
    let classify = most_right(&images).map_or(0.5, |(threshold, _)| threshold.clamp(0.0, 1.0));
    let Some(before) = before else {
        return (gate, classify);
    };
    let losses = images.iter().map(|&(score, ship)| {
        let right = |threshold| f64::from((score >= threshold) == ship);
        right(classify) - right(before.classify)
    });
    let classify = match is_within(CLEAR, losses) {
        true => before.classify,
        false => classify,
    };
    let keeps = before.gate <= gate;
    (if keeps { before.gate } else { gate }, classify)
}

/// The best of the candidates by mean quality, with a mask threshold as near to a half as the images
/// leave it: none further off is taken for a gain of less than its standard error (the one-standard-error
/// rule, Breiman et al. 1984, section 3.4.3), for it would owe its place to a few images. That of `before`, if it
/// is one of them, stays unless it is clearly worse. Frames decide where there are any.
fn choose_best(
    judged: &[(bool, Vec<f64>)],
    candidates: &[Thresholds],
    before: Option<&Thresholds>,
) -> Thresholds {
    let framed = judged.iter().any(|(frame, _)| *frame);
    let counted: Vec<&[f64]> = (judged.iter())
        .filter(|(frame, _)| *frame || !framed)
        .map(|(_, qualities)| &qualities[..])
        .collect();
    let total = |index: usize| counted.iter().map(|quality| quality[index]).sum::<f64>();
    let best_of = |some: &mut dyn Iterator<Item = usize>| {
        some.max_by(|&a, &b| total(a).total_cmp(&total(b)))
            .expect("some candidates")
    };
    let best = best_of(&mut (0..candidates.len()));
    let is_within = |errors, index: usize| {
        let losses = counted.iter().map(|q| q[best] - q[index]);
        is_within(errors, losses)
    };
    let of_masks = |of: &Thresholds| (of.mask, of.min_area, of.valley);
    let before = before.and_then(|before| {
        let mut those = candidates.iter().map(of_masks);
        those.position(|those| those == of_masks(before))
    });
    if let Some(before) = before.filter(|&before| is_within(CLEAR, before)) {
        return candidates[before];
    }
    let from_half = |index: usize| (candidates[index].mask - 0.5).abs();
    let nearest = (0..candidates.len())
        .filter(|&index| is_within(1.0, index))
        .map(from_half)
        .fold(from_half(best), f32::min);
    candidates[best_of(&mut (0..candidates.len()).filter(|&index| from_half(index) == nearest))]
}

/// Whether the mean of `losses` is no more than so many of its standard `errors`.
fn is_within(errors: f64, losses: impl Iterator<Item = f64> + Clone) -> bool {
    let count = losses.clone().count() as f64;
    let mean = losses.clone().sum::<f64>() / count;
    let squares: f64 = losses.map(|loss| (loss - mean).powi(2)).sum();
    mean <= errors * (squares / (count - 1.0).max(1.0) / count).sqrt()
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use image::{GrayImage, Luma, RgbImage};
    use shipwatch::detect::Maps;

    use super::*;

    #[test]
    fn recall_sets_the_gate_and_frames_the_decision() {
        let gated = |frame, gate: f32, ship| Gated {
            frame,
            tiles: vec![(gate, ship)],
            image: (gate, ship),
        };
        let all = [
            gated(true, 0.9, true),
            gated(true, 0.5, true),
            gated(true, 0.3, false),
            // A plain image that lies lower.
            gated(false, 0.2, true),
        ];
        let (gate, classify) = choose_gate(&all, None);
        assert!(
            (gate - 0.2 * 0.999).abs() < 1e-6,
            "the plain image's tile passes"
        );
        assert!((classify - 0.4).abs() < 1e-6);
        assert_eq!(choose_gate(&[], None), (0.5, 0.5));
    }

    /// Two ships of 7 x 4 pixels that touch, found as one; between them centrality falls by `depth`.
    fn moored(depth: u8, choose: impl FnOnce(&Case, &[Rc<Seen>]) -> Thresholds) -> Thresholds {
        let bar = |columns: Range<u32>| {
            Rle::new(columns.map(|x| (u64::from(x * 10) + 3, 4))).expect("increasing")
        };
        let pixels = RgbImage::new(20, 10);
        let ships = [bar(2..9), bar(9..16)];
        let case = Case::of(&pixels, &ships, 1.0);
        let mut maps = Maps {
            probabilities: GrayImage::new(20, 10),
            centrality: Some(GrayImage::new(20, 10)),
        };
        for (x, y) in ships.iter().flat_map(|ship| ship.pixels(10)) {
            maps.probabilities.put_pixel(x, y, Luma([250]));
            let height = if x == 8 || x == 9 { 200 - depth } else { 200 };
            let centrality = maps.centrality.as_mut().expect("has one");
            centrality.put_pixel(x, y, Luma([height]));
        }
        let maps = Some(maps);
        let gate = vec![1.0];
        let seen = Rc::new(Seen { gate, maps });
        choose(&case, &MASK_THRESHOLDS.map(|_| Rc::clone(&seen)))
    }

    #[test]
    fn the_valley_that_parts_what_is_two_is_chosen() {
        let choose = |parts: bool| {
            move |case: &Case, seen: &[Rc<Seen>]| {
                let candidates = candidates(0.5, 0.5, parts);
                let judged = [(true, qualities(case, seen, &candidates))];
                choose_best(&judged, &candidates, None)
            }
        };
        // 75 of 255 is deeper than 0.2 and less deep than 0.3; where each parts, the middle is taken.
        assert_eq!(moored(75, choose(true)).valley, Some(0.2));
        assert_eq!(moored(200, choose(true)).valley, Some(0.4));
        assert_eq!(moored(75, choose(false)).valley, None);
    }

    #[test]
    fn each_candidate_is_judged_by_what_it_leaves() {
        moored(75, |case, seen| {
            let candidates = candidates(0.5, 0.5, true);
            for (thresholds, found) in candidates.iter().zip(qualities(case, seen, &candidates)) {
                let ships = seen[0].ships(thresholds, case.scale);
                let (dice, f2) = quality(case, &union(case.ships), &ships);
                assert_eq!(found, dice + f2, "{thresholds:?}");
            }
            candidates[0]
        });
    }

    fn of_masks<const N: usize>(masks: [f32; N]) -> [Thresholds; N] {
        masks.map(|mask| Thresholds {
            gate: 0.5,
            classify: 0.5,
            mask,
            min_area: 4,
            valley: None,
        })
    }

    #[test]
    fn frames_choose_the_masks_thresholds_where_there_are_any() {
        let candidates = of_masks([0.5, 0.6]);
        let plain = (false, vec![2.0, 0.0]);
        let frames = [
            (true, vec![1.0, 1.2]),
            (true, vec![1.0, 1.1]),
            plain.clone(),
        ];
        assert_eq!(choose_best(&frames, &candidates, None).mask, 0.6);
        assert_eq!(choose_best(&[plain], &candidates, None).mask, 0.5);
    }

    #[test]
    fn a_few_images_do_not_drive_the_mask_threshold_from_a_half() {
        let candidates = of_masks([0.5, 0.8]);
        let frames = |better: usize| -> Vec<(bool, Vec<f64>)> {
            let gain = |nth| match nth {
                9 => -0.1,
                nth if nth < better => 1.0,
                _ => 0.0,
            };
            (0..10)
                .map(|nth| (true, vec![1.0, 1.0 + gain(nth)]))
                .collect()
        };
        // One of ten gains 1, and one loses 0.1: 0.09 on the mean, and a standard error of 0.1016. Where two
        // gain 1, 0.19 and 0.135.
        assert_eq!(choose_best(&frames(1), &candidates, None).mask, 0.5);
        assert_eq!(choose_best(&frames(2), &candidates, None).mask, 0.8);
    }

    #[test]
    fn thresholds_of_before_stay_unless_they_are_clearly_worse() {
        let before = |gate, classify, mask| Thresholds {
            gate,
            classify,
            ..of_masks([mask])[0]
        };
        // Twenty images, of which those of the ten higher scores show a ship.
        let images: Vec<Gated> = (0..20u8)
            .map(|nth| {
                let image = (0.05 * f32::from(nth) + 0.05, nth > 9);
                Gated {
                    frame: true,
                    tiles: vec![image],
                    image,
                }
            })
            .collect();
        let choose = |gate, classify| choose_gate(&images, Some(&before(gate, classify, 0.5)));
        // All with a ship pass at 0.55: a lower gate keeps the recall, a higher one does not. At 0.38 three of
        // twenty are told wrongly, 0.15 with a standard error of 0.082; at 0.18 seven, 0.35 and 0.109.
        assert_eq!(choose(0.3, 0.38), (0.3, 0.38));
        let (gate, classify) = choose(0.7, 0.18);
        assert!((gate - 0.55 * 0.999).abs() < 1e-6, "{gate}");
        assert!((classify - 0.525).abs() < 1e-6, "{classify}");

        let candidates = of_masks([0.3, 0.4, 0.5]);
        let judged: Vec<(bool, Vec<f64>)> = (0..10)
            .map(|nth| (true, vec![1.0, if nth < 9 { 1.1 } else { 0.9 }, 1.2]))
            .collect();
        // 0.4 is 0.12 worse on the mean, with a standard error of 0.02.
        let mask = |before_mask| {
            let before = before(0.5, 0.5, before_mask);
            choose_best(&judged, &candidates, Some(&before)).mask
        };
        assert_eq!(mask(0.4), 0.5);
        let judged_alike = [(true, vec![1.0, 1.2, 1.1]), (true, vec![1.2, 1.1, 1.2])];
        let alike = |before_mask| {
            let before = before(0.5, 0.5, before_mask);
            choose_best(&judged_alike, &candidates, Some(&before)).mask
        };
        assert_eq!((alike(0.3), alike(0.4)), (0.3, 0.4));
        // None that is tried.
        assert_eq!(alike(0.42), 0.5);
    }
}

//! The thresholds that serve best on the tune images.

use anyhow::Result;
use shipwatch::detect::Detector;
use shipwatch::metrics::{most_right, threshold_for_recall, union};
use shipwatch::model::Thresholds;

use super::cases::{Cases, FRAMES};
use super::chain::best;
use super::outcome::quality;
use crate::config::Config;
use crate::data::{Pool, Split};

/// Share of the tiles, and of the images, with ships that must pass the gate.
const GATE_RECALL: f64 = 0.98;

/// Thresholds that are tried for pixels.
const MASK_THRESHOLDS: [f32; 11] = [0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8];

/// Least areas that are tried for ships: none drops a boat of 8 by 3 pixels, however much that would
/// save in false alarms on frames with few of them.
const MIN_AREAS: [u32; 5] = [4, 8, 12, 16, 20];

/// Scores, each with whether a ship is there.
type Scored = Vec<(f32, bool)>;

/// What the gate says of one tune image.
struct Gated {
    frame: bool,
    tiles: Scored,
    image: (f32, bool),
}

/// Chooses thresholds on the tune images: `gate` by recall, `classify` by the images that it tells
/// rightly, the others by mean Dice + F2 of all images; those of masks and images on the judging frames where there
/// are any, for they are like what the models are for; else on plain images.
///
/// The test images have no say: their split is not asked for.
pub(crate) fn choose_thresholds(
    detector: &Detector,
    pool: &Pool,
    config: &Config,
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
    let (gate, classify) = choose_gate(&gated);
    let valley = detector.manifest().thresholds.valley;
    let candidates: Vec<Thresholds> = MASK_THRESHOLDS
        .iter()
        .flat_map(|&mask| {
            MIN_AREAS.map(|min_area| Thresholds {
                gate,
                classify,
                mask,
                min_area,
                valley,
            })
        })
        .collect();
    let judged: Vec<(bool, Vec<f64>)> = cases.map("choosing the masks' thresholds", |case| {
        let seen = case.see(detector, gate, MASK_THRESHOLDS[0])?;
        let truth = union(case.ships);
        let quality = candidates.iter().map(|thresholds| {
            let (dice, f2) = quality(case, &truth, &seen, thresholds);
            dice + f2
        });
        Ok((case.set.starts_with(FRAMES), quality.collect()))
    })?;
    Ok(candidates[choose_best(&judged, candidates.len())])
}

/// The highest score that keeps the recall of tiles and of images, and the one that tells most images
/// rightly.
fn choose_gate(gated: &[Gated]) -> (f32, f32) {
    let tiles: Scored = gated.iter().flat_map(|g| g.tiles.iter().copied()).collect();
    let framed = gated.iter().any(|gated| gated.frame);
    let images: Scored = (gated.iter())
        .filter(|gated| gated.frame || !framed)
        .map(|gated| gated.image)
        .collect();
    let at_recall = |scored: &[(f32, bool)]| threshold_for_recall(scored, GATE_RECALL);
    let gates = [at_recall(&tiles), at_recall(&images)];
    let gate = gates.into_iter().flatten().fold(f32::INFINITY, f32::min);
    // Float kernels differ between processors; what just passes here is to pass there.
    let gate = if gate.is_finite() { gate * 0.999 } else { 0.5 };
    let classify = most_right(&images).map_or(0.5, |(threshold, _)| threshold.clamp(0.0, 1.0));
    (gate, classify)
}

/// The candidate of the highest sum; frames decide where there are any.
fn choose_best(judged: &[(bool, Vec<f64>)], candidates: usize) -> usize {
    let framed = judged.iter().any(|(frame, _)| *frame);
    let count = |frame: bool| frame || !framed;
    let total = |index: usize| -> f64 {
        let counted = judged.iter().filter(|(frame, _)| count(*frame));
        counted.map(|(_, quality)| quality[index]).sum()
    };
    let best = (0..candidates).max_by(|&a, &b| total(a).total_cmp(&total(b)));
    best.unwrap_or(0)
}

#[cfg(test)]
mod tests {
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
        let (gate, classify) = choose_gate(&all);
        assert!(
            (gate - 0.2 * 0.999).abs() < 1e-6,
            "the plain image's tile passes"
        );
        assert!((classify - 0.4).abs() < 1e-6);
        assert_eq!(choose_gate(&[]), (0.5, 0.5));
    }

    #[test]
    fn frames_choose_the_masks_thresholds_where_there_are_any() {
        let plain = (false, vec![2.0, 0.0]);
        let frames = [
            (true, vec![1.0, 1.2]),
            (true, vec![1.0, 1.1]),
            plain.clone(),
        ];
        assert_eq!(choose_best(&frames, 2), 1);
        assert_eq!(choose_best(&[plain], 2), 0);
    }
}

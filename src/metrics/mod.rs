//! How good a prediction is, by the definitions of the challenge and of the original project.

mod curves;
mod overlap;

pub use curves::{Cut, cuts, most_right};
pub use overlap::{best_overlaps, overlap, union};

use crate::mask::{Mask, Rle};

/// IoU thresholds of the challenge's metric.
const IOU_THRESHOLDS: [f64; 10] = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95];

/// `(2 |A and B| + 1) / (|A| + |B| + 1)`, the original project's smoothed Dice: 1 for two empty masks.
pub fn dice(truth: &Rle, prediction: &Rle) -> f64 {
    let both = overlap(truth, prediction) as f64;
    (2.0 * both + 1.0) / ((truth.area() + prediction.area()) as f64 + 1.0)
}

/// `(|A and B| + 1) / (|A or B| + 1)`, the original project's smoothed IoU: 1 for two empty masks.
pub fn smoothed_iou(truth: &Rle, prediction: &Rle) -> f64 {
    let both = overlap(truth, prediction);
    (both as f64 + 1.0) / ((truth.area() + prediction.area() - both) as f64 + 1.0)
}

/// `|A and B| / |A or B|`; 1 for two empty masks.
///
/// # Panics
/// If the masks differ in size.
pub fn iou(truth: &Mask, prediction: &Mask) -> f64 {
    let both = intersection(truth, prediction);
    match truth.area() + prediction.area() - both {
        0 => 1.0,
        either => both as f64 / either as f64,
    }
}

/// The challenge's score of one image: F2 at IoU thresholds 0.5 to 0.95, averaged; an image without
/// ships scores 1 for an empty prediction and else 0.
///
/// A truth that no prediction reaches is a miss, a prediction that reaches no truth an alarm, as in
/// the challenge's reference. Where neither predictions nor truths overlap among themselves, as it
/// demands, a threshold of 0.5 or more lets each truth match at most one prediction.
pub fn f2(truths: &[Rle], predictions: &[Rle]) -> f64 {
    let (of_truths, of_predictions) = best_overlaps(truths, predictions);
    f2_of(&of_truths, &of_predictions)
}

/// [`f2`] from the overlaps that [`best_overlaps`] gives.
pub fn f2_of(of_truths: &[f64], of_predictions: &[f64]) -> f64 {
    if of_truths.is_empty() {
        return if of_predictions.is_empty() { 1.0 } else { 0.0 };
    }
    let at = |threshold: f64| {
        let reached = |overlaps: &[f64]| overlaps.iter().filter(|&&o| o > threshold).count() as f64;
        let hits = reached(of_truths);
        let misses = of_truths.len() as f64 - hits;
        let alarms = of_predictions.len() as f64 - reached(of_predictions);
        5.0 * hits / (5.0 * hits + 4.0 * misses + alarms)
    };
    IOU_THRESHOLDS.into_iter().map(at).sum::<f64>() / IOU_THRESHOLDS.len() as f64
}

/// Area under the ROC curve: the chance that a tile with ships scores above one without, ties
/// counting half. None if either kind is absent.
pub fn auc(scored: &[(f32, bool)]) -> Option<f64> {
    let positives = scored.iter().filter(|(_, ship)| *ship).count();
    let negatives = scored.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    let mut sorted = scored.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut rank_sum = 0.0;
    let mut below = 0;
    for ties in sorted.chunk_by(|a, b| a.0 == b.0) {
        let mean_rank = below as f64 + (ties.len() as f64 + 1.0) / 2.0;
        rank_sum += mean_rank * ties.iter().filter(|(_, ship)| *ship).count() as f64;
        below += ties.len();
    }
    let least = positives as f64 * (positives as f64 + 1.0) / 2.0;
    Some((rank_sum - least) / (positives as f64 * negatives as f64))
}

/// The highest threshold at which at least `recall` of the tiles with ships score at or above it.
/// None without such tiles.
pub fn threshold_for_recall(scored: &[(f32, bool)], recall: f64) -> Option<f32> {
    let mut ships: Vec<f32> = scored
        .iter()
        .filter(|(_, ship)| *ship)
        .map(|(s, _)| *s)
        .collect();
    ships.sort_by(|a, b| b.total_cmp(a));
    let kept = (recall * ships.len() as f64).ceil().max(1.0) as usize;
    ships.get(kept - 1).copied()
}

/// Share of the tiles with ships (`ship`), or of those without, that score at or above `threshold`.
/// None without such tiles.
pub fn pass_rate(scored: &[(f32, bool)], threshold: f32, ship: bool) -> Option<f64> {
    let of_kind = scored.iter().filter(|(_, kind)| *kind == ship);
    mean(of_kind.map(|(score, _)| f64::from(u8::from(*score >= threshold))))
}

/// Share of the tiles without ships that score below the threshold at which `recall` of those with
/// ships pass. None without tiles of both kinds.
pub fn stopped_at_recall(scored: &[(f32, bool)], recall: f64) -> Option<f64> {
    stop_rate(scored, threshold_for_recall(scored, recall)?)
}

/// Share of the tiles without ships that score below `threshold`. None without such tiles.
pub fn stop_rate(scored: &[(f32, bool)], threshold: f32) -> Option<f64> {
    pass_rate(scored, threshold, false).map(|passed| 1.0 - passed)
}

/// Arithmetic mean; none of nothing.
pub fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u64), |(sum, count), v| (sum + v, count + 1));
    (count > 0).then(|| sum / count as f64)
}

fn intersection(a: &Mask, b: &Mask) -> u64 {
    assert_eq!(
        (a.width(), a.height()),
        (b.width(), b.height()),
        "masks of one image"
    );
    a.as_slice()
        .iter()
        .zip(b.as_slice())
        .filter(|(a, b)| **a && **b)
        .count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 4x4 mask with the given row-major pixels set.
    fn mask(pixels: &[u32]) -> Mask {
        let mut mask = Mask::new(4, 4);
        for &p in pixels {
            mask.set(p % 4, p / 4, true);
        }
        mask
    }

    #[test]
    fn dice_and_iou_by_hand() {
        let (a, b) = (mask(&[0, 1, 2, 3]), mask(&[2, 3, 4]));
        let (ra, rb, none) = (a.to_rle(), b.to_rle(), Rle::default());
        assert_eq!(dice(&ra, &rb), 5.0 / 8.0);
        assert_eq!(smoothed_iou(&ra, &rb), 3.0 / 6.0);
        assert_eq!(iou(&a, &b), 2.0 / 5.0);
        assert_eq!(dice(&none, &none), 1.0);
        assert_eq!(smoothed_iou(&none, &none), 1.0);
        assert_eq!(iou(&mask(&[]), &mask(&[])), 1.0);
        assert_eq!(dice(&none, &mask(&[5]).to_rle()), 0.5);
    }

    #[test]
    fn f2_by_hand() {
        let ship = mask(&[0, 1, 2, 3]).to_rle();
        let three_quarters = mask(&[0, 1, 2]).to_rle();
        let elsewhere = mask(&[12]).to_rle();
        let one = std::slice::from_ref;
        assert_eq!(f2(&[], &[]), 1.0);
        assert_eq!(f2(&[], one(&elsewhere)), 0.0);
        assert_eq!(f2(one(&ship), &[]), 0.0);
        assert_eq!(f2(one(&ship), one(&ship)), 1.0);
        // IoU 0.75 beats 0.5, 0.55, 0.6, 0.65 and 0.7, but not 0.75 itself.
        assert_eq!(f2(one(&ship), one(&three_quarters)), 0.5);
        // One hit, one false alarm, no miss: 5 / (5 + 1) at each threshold.
        let score = f2(one(&ship), &[ship.clone(), elsewhere.clone()]);
        assert!((score - 5.0 / 6.0).abs() < 1e-12);
        // One hit, one miss, no alarm: 5 / (5 + 4).
        let score = f2(&[ship.clone(), elsewhere], one(&ship));
        assert!((score - 5.0 / 9.0).abs() < 1e-12);
        // A ship that the labels hold twice gives no more than a full score.
        let score = f2(&[ship.clone(), ship.clone()], one(&ship));
        assert_eq!(score, 1.0);
    }

    #[test]
    fn auc_by_hand() {
        let scored = [(0.9, true), (0.8, false), (0.7, true), (0.1, false)];
        // Of the four pairs only (0.7, 0.8) is the wrong way round.
        assert_eq!(auc(&scored), Some(0.75));
        assert_eq!(auc(&[(0.5, true), (0.5, false)]), Some(0.5));
        assert_eq!(auc(&[(0.5, true)]), None);
    }

    #[test]
    fn what_is_stopped_by_hand() {
        let scored = [
            (0.9, true),
            (0.4, true),
            (0.5, false),
            (0.4, false),
            (0.1, false),
        ];
        // What scores as much as the threshold passes.
        assert_eq!(stop_rate(&scored, 0.4), Some(1.0 - 2.0 / 3.0));
        assert_eq!(stopped_at_recall(&scored, 0.5), Some(1.0));
        assert_eq!(stopped_at_recall(&scored, 1.0), Some(1.0 - 2.0 / 3.0));
        assert_eq!(stopped_at_recall(&scored[..2], 1.0), None);
        assert_eq!(stopped_at_recall(&scored[2..], 1.0), None);
    }

    #[test]
    fn recall_threshold_keeps_as_many_as_asked() {
        let scored: Vec<_> = (1..=10u8).map(|i| (f32::from(i) / 10.0, true)).collect();
        assert_eq!(threshold_for_recall(&scored, 0.9), Some(0.2));
        assert_eq!(threshold_for_recall(&scored, 1.0), Some(0.1));
        assert_eq!(threshold_for_recall(&[(0.4, false)], 0.9), None);
        assert_eq!(pass_rate(&scored, 0.2, true), Some(0.9));
        assert_eq!(pass_rate(&scored, 0.2, false), None);
        let mixed = [(0.3, false), (0.1, false), (0.9, true)];
        assert_eq!(pass_rate(&mixed, 0.2, false), Some(0.5));
    }
}

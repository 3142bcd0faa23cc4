//! Overlap of masks as run lengths: what it costs follows from the ships, not from the image.

use crate::mask::Rle;

/// Number of pixels that two masks of one grid share.
pub fn overlap(a: &Rle, b: &Rle) -> u64 {
    let (mut a, mut b) = (a.runs().iter().peekable(), b.runs().iter().peekable());
    let mut shared = 0;
    while let (Some(&&(start_a, length_a)), Some(&&(start_b, length_b))) = (a.peek(), b.peek()) {
        let (end_a, end_b) = (start_a + length_a, start_b + length_b);
        shared += end_a.min(end_b).saturating_sub(start_a.max(start_b));
        if end_a <= end_b {
            a.next();
        } else {
            b.next();
        }
    }
    shared
}

/// All pixels of several masks of one grid as one mask; they may overlap.
pub fn union(masks: &[Rle]) -> Rle {
    let mut runs: Vec<(u64, u64)> = masks.iter().flat_map(|mask| mask.runs()).copied().collect();
    runs.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::with_capacity(runs.len());
    for (start, length) in runs {
        match joined.last_mut() {
            Some((last, run)) if start <= *last + *run => *run = (*run).max(start + length - *last),
            _ => joined.push((start, length)),
        }
    }
    Rle::new(joined).expect("the runs increase")
}

/// For each truth, the best IoU that a prediction has with it, and for each prediction the best that it
/// has with a truth; 0 where none meets it.
pub fn best_overlaps(truths: &[Rle], predictions: &[Rle]) -> (Vec<f64>, Vec<f64>) {
    let span = |rle: &Rle| {
        let (first, last) = (rle.runs().first()?, rle.runs().last()?);
        Some((first.0, last.0 + last.1))
    };
    let spans: Vec<_> = predictions.iter().map(span).collect();
    let areas: Vec<u64> = predictions.iter().map(Rle::area).collect();
    let mut of_truths = vec![0.0f64; truths.len()];
    let mut of_predictions = vec![0.0f64; predictions.len()];
    for (truth, best_of_truth) in truths.iter().zip(&mut of_truths) {
        let Some((first, end)) = span(truth) else {
            continue;
        };
        let area = truth.area();
        for (index, prediction) in predictions.iter().enumerate() {
            if spans[index].is_none_or(|(start, stop)| start >= end || stop <= first) {
                continue;
            }
            let both = overlap(truth, prediction);
            let iou = both as f64 / (area + areas[index] - both) as f64;
            *best_of_truth = best_of_truth.max(iou);
            of_predictions[index] = of_predictions[index].max(iou);
        }
    }
    (of_truths, of_predictions)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mask::Mask;
    use crate::metrics::iou;

    fn rle(text: &str) -> Rle {
        text.parse().expect(text)
    }

    #[test]
    fn overlap_and_union_by_hand() {
        // Pixels 1 to 4 and 8 to 9; 3 to 5 and 9 to 11.
        let (a, b) = (rle("1 4 8 2"), rle("3 3 9 3"));
        assert_eq!(overlap(&a, &b), 3);
        assert_eq!(union(&[a.clone(), b]).to_string(), "1 5 8 4");
        assert_eq!(overlap(&a, &rle("")), 0);
        assert_eq!(union(&[]), rle(""));
        // The first of the runs outlasts the second.
        assert_eq!(union(&[rle("1 9"), rle("2 3")]).to_string(), "1 9");
    }

    proptest! {
        #[test]
        fn run_lengths_and_bitmaps_agree(
            a in prop::collection::vec(any::<bool>(), 60), b in prop::collection::vec(any::<bool>(), 60)
        ) {
            let mask = |set: &[bool]| {
                let mut mask = Mask::new(10, 6);
                for (i, &set) in set.iter().enumerate() {
                    mask.set(i as u32 % 10, i as u32 / 10, set);
                }
                mask
            };
            let (ma, mb) = (mask(&a), mask(&b));
            let (ra, rb) = (ma.to_rle(), mb.to_rle());
            let both = a.iter().zip(&b).filter(|(a, b)| **a && **b).count() as u64;
            prop_assert_eq!(overlap(&ra, &rb), both);
            let either = a.iter().zip(&b).filter(|(a, b)| **a || **b).count() as u64;
            prop_assert_eq!(union(&[ra.clone(), rb.clone()]).area(), either);
            if both > 0 {
                let (truths, predictions) = best_overlaps(&[ra], &[rb]);
                prop_assert!((truths[0] - iou(&ma, &mb)).abs() < 1e-12);
                prop_assert_eq!(truths, predictions);
            }
        }
    }
}

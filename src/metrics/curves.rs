//! How a score tells two kinds apart, threshold by threshold.

/// What a threshold does to scores: those at or above it pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cut {
    /// The threshold.
    pub threshold: f32,
    /// Share of the positives that pass: recall, or true positive rate.
    pub recall: f64,
    /// Share of the negatives that pass: false positive rate.
    pub false_alarms: f64,
    /// Share of positives among those that pass.
    pub precision: f64,
}

/// All different cuts of `scored`, from the highest threshold to the lowest: the points of a
/// precision-recall and a ROC curve. None if either kind is absent.
pub fn cuts(scored: &[(f32, bool)]) -> Option<Vec<Cut>> {
    let positives = scored.iter().filter(|(_, positive)| *positive).count() as f64;
    let negatives = scored.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    let mut sorted = scored.to_vec();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut hits, mut alarms) = (0.0, 0.0);
    let cut = |ties: &[(f32, bool)]| {
        let of = ties.iter().filter(|(_, positive)| *positive).count() as f64;
        hits += of;
        alarms += ties.len() as f64 - of;
        Cut {
            threshold: ties[0].0,
            recall: hits / positives,
            false_alarms: alarms / negatives,
            precision: hits / (hits + alarms),
        }
    };
    Some(sorted.chunk_by(|a, b| a.0 == b.0).map(cut).collect())
}

/// The threshold at which most of `scored` are told apart rightly, and the share that is: positives at
/// or above it, negatives below. Between two scores it lies in their middle. None of nothing.
pub fn most_right(scored: &[(f32, bool)]) -> Option<(f32, f64)> {
    let mut sorted = scored.to_vec();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let highest = sorted.first()?.0;
    let mut right = sorted.iter().filter(|(_, positive)| !positive).count();
    // Nothing passes.
    let mut best = (right, highest.next_up());
    let groups: Vec<&[(f32, bool)]> = sorted.chunk_by(|a, b| a.0 == b.0).collect();
    for (nth, ties) in groups.iter().enumerate() {
        let positives = ties.iter().filter(|(_, positive)| *positive).count();
        right = right + positives - (ties.len() - positives);
        let below = groups.get(nth + 1).map_or(ties[0].0, |next| next[0].0);
        if right > best.0 {
            best = (right, (ties[0].0 + below) / 2.0);
        }
    }
    Some((best.1, best.0 as f64 / scored.len() as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_by_hand() {
        let scored = [
            (0.9, true),
            (0.8, false),
            (0.7, true),
            (0.7, false),
            (0.1, false),
        ];
        let found = cuts(&scored).expect("both kinds");
        let points: Vec<(f32, f64, f64, f64)> = found
            .iter()
            .map(|c| (c.threshold, c.recall, c.false_alarms, c.precision))
            .collect();
        assert_eq!(
            points,
            [
                (0.9, 0.5, 0.0, 1.0),
                (0.8, 0.5, 1.0 / 3.0, 0.5),
                (0.7, 1.0, 2.0 / 3.0, 0.5),
                (0.1, 1.0, 1.0, 0.4),
            ]
        );
        assert_eq!(cuts(&[(0.5, true)]), None);
    }

    #[test]
    fn most_are_right_between_the_kinds() {
        let scored = [
            (0.9, true),
            (0.6, true),
            (0.2, false),
            (0.1, false),
            (0.3, false),
        ];
        let (threshold, right) = most_right(&scored).expect("some");
        assert!((threshold - 0.45).abs() < 1e-6 && right == 1.0);
        // One positive below a negative: four of five at best.
        let scored = [
            (0.9, true),
            (0.4, false),
            (0.3, true),
            (0.2, false),
            (0.1, false),
        ];
        let (threshold, right) = most_right(&scored).expect("some");
        assert!((threshold - 0.65).abs() < 1e-6, "{threshold}");
        assert_eq!(right, 0.8);
        // Without positives nothing should pass.
        let (threshold, right) = most_right(&[(0.5, false), (0.2, false)]).expect("some");
        assert!(threshold > 0.5 && right == 1.0);
        assert_eq!(most_right(&[]), None);
    }
}

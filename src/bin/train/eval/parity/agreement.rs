//! How two networks agree on single ships, whatever the truth is.

use std::collections::{BTreeMap, BTreeSet};

use shipwatch::mask::Rle;
use shipwatch::metrics::{mean, overlap};

use super::{Figure, Judged};
use crate::eval::outcome::Outcome;

/// How the instances that one network finds agree with those of another.
#[derive(Debug, PartialEq)]
pub(super) struct Agreement {
    pub(super) images: usize,
    /// Different images that these show or are mainly made of.
    pub(super) clusters: usize,
    /// Images on which both find the same number.
    pub(super) same_count: usize,
    /// Instances of the one and of the other.
    pub(super) instances: [usize; 2],
    /// Pairs of instances, each in one pair at most.
    pub(super) matched: usize,
    /// Mean and least IoU of the pairs; none without any.
    pub(super) mean_iou: Option<f64>,
    pub(super) worst_iou: Option<f64>,
    /// Images of which both gates decide alike on every tile that is judged.
    pub(super) same_gate: usize,
    /// Largest difference of their scores of an image.
    pub(super) widest_gate: f32,
}

impl Agreement {
    /// Compares two networks on some of the images that both were judged by.
    pub(super) fn of(one: &Judged, other: &Judged, images: &[usize]) -> Self {
        let pairs = || {
            let pair = |&index: &usize| (&one.outcomes[index], &other.outcomes[index]);
            images.iter().map(pair)
        };
        let ious: Vec<f64> = pairs()
            .flat_map(|(a, b)| matched(&a.found, &b.found))
            .collect();
        let passes = |judged: &Judged, outcome: &Outcome| -> Vec<bool> {
            let scores = outcome.tiles.iter().map(|tile| tile.0);
            scores
                .map(|score| score >= judged.thresholds.gate)
                .collect()
        };
        Self {
            images: images.len(),
            clusters: Figure::DiceAll.clusters(&pairs().map(|(a, _)| a).collect::<Vec<_>>()),
            same_count: pairs()
                .filter(|(a, b)| a.found.len() == b.found.len())
                .count(),
            instances: [
                pairs().map(|(a, _)| a.found.len()).sum(),
                pairs().map(|(_, b)| b.found.len()).sum(),
            ],
            matched: ious.len(),
            mean_iou: mean(ious.iter().copied()),
            worst_iou: ious.iter().copied().reduce(f64::min),
            same_gate: pairs()
                .filter(|(a, b)| passes(one, a) == passes(other, b))
                .count(),
            widest_gate: pairs()
                .map(|(a, b)| (a.gate_score - b.gate_score).abs())
                .fold(0.0, f32::max),
        }
    }
}

/// IoU of the pairs of instances that meet, each instance in one pair at most: the best pair first, then
/// the best of those that are left.
fn matched(one: &[Rle], other: &[Rle]) -> Vec<f64> {
    let mut pairs = Vec::new();
    for (i, a) in one.iter().enumerate() {
        for (j, b) in other.iter().enumerate() {
            let both = overlap(a, b);
            if both > 0 {
                pairs.push((both as f64 / (a.area() + b.area() - both) as f64, i, j));
            }
        }
    }
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut free_one, mut free_other) = (vec![true; one.len()], vec![true; other.len()]);
    pairs.retain(|&(_, i, j)| {
        let free = free_one[i] && free_other[j];
        if free {
            (free_one[i], free_other[j]) = (false, false);
        }
        free
    });
    pairs.into_iter().map(|(iou, ..)| iou).collect()
}

/// Up to `most` images with ships: of each set all, or its share, evenly spread over those that show
/// what no other chosen one does, and then over the rest.
pub(super) fn choose(outcomes: &[Outcome], most: usize) -> Vec<usize> {
    let mut sets: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, outcome) in outcomes.iter().enumerate() {
        if outcome.with_ships {
            sets.entry(&outcome.set).or_default().push(index);
        }
    }
    // The largest last: what small sets lack, they give.
    let mut sets: Vec<Vec<usize>> = sets.into_values().collect();
    sets.sort_by_key(|set| set.len());
    let cluster = |index: usize| outcomes[index].cluster.as_str();
    let mut shown = BTreeSet::new();
    let mut chosen = Vec::new();
    for (nth, set) in sets.iter().enumerate() {
        let share = (most - chosen.len()) / (sets.len() - nth);
        let (fresh, known): (Vec<usize>, Vec<usize>) = set
            .iter()
            .partition(|&&index| !shown.contains(cluster(index)));
        let mut own = spread(&fresh, share);
        own.extend(spread(&known, share - own.len()));
        shown.extend(own.iter().map(|&index| cluster(index)));
        chosen.extend(own);
    }
    chosen.sort_unstable();
    chosen
}

/// `count` of some, evenly spread over them; all where they are fewer.
fn spread(some: &[usize], count: usize) -> Vec<usize> {
    let count = count.min(some.len());
    (0..count)
        .map(|nth| some[nth * some.len() / count])
        .collect()
}

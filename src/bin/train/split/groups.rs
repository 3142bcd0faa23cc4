//! Scenes: images tied to one another by pairs, and what each scene serves.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::data::Split;

/// Images that are tied to one another, directly or through others; each group sorted, the groups by
/// their first image.
pub(super) fn groups(images: usize, pairs: &[(usize, usize)]) -> Vec<Vec<usize>> {
    let mut parents: Vec<usize> = (0..images).collect();
    for &(a, b) in pairs {
        let (a, b) = (root(&mut parents, a), root(&mut parents, b));
        parents[a.max(b)] = a.min(b);
    }
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for image in 0..images {
        groups
            .entry(root(&mut parents, image))
            .or_default()
            .push(image);
    }
    groups.into_values().collect()
}

/// The image that stands for the group of `image`; shortens the way there.
fn root(parents: &mut [usize], mut image: usize) -> usize {
    while parents[image] != image {
        parents[image] = parents[parents[image]];
        image = parents[image];
    }
    image
}

/// Shares of the images that go into tuning and testing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shares {
    pub(super) tune: f64,
    pub(super) test: f64,
}

/// What each image serves. Groups stay whole; one with an image that `set_aside` names is never for
/// training. Such groups go where most is lacking, then others, in an order that follows from `seed`,
/// until tune and test have their shares.
pub(super) fn assign(
    groups: &[Vec<usize>],
    set_aside: &[bool],
    shares: Shares,
    seed: u64,
) -> Vec<Split> {
    let images = set_aside.len();
    let mut splits = vec![Split::Train; images];
    let mut order: Vec<&Vec<usize>> = groups.iter().collect();
    order.shuffle(&mut StdRng::seed_from_u64(seed));
    // Large ones first, so that small ones can even out what they leave.
    let (mut held, mut free): (Vec<_>, Vec<_>) = order
        .into_iter()
        .partition(|group| group.iter().any(|&image| set_aside[image]));
    held.sort_by_key(|group| std::cmp::Reverse(group.len()));
    // A scene of half the set would make a poor sample of it.
    free.retain(|group| (group.len() as f64) < images as f64 * shares.tune.min(shares.test) / 4.0);

    let targets = [shares.tune, shares.test].map(|share| share * images as f64);
    let mut sizes = [0.0; 2];
    let mut place = |group: &[usize], must: bool| {
        let lack = |at: usize| targets[at] - sizes[at];
        let at = usize::from(lack(1) > lack(0));
        if must || lack(at) >= group.len() as f64 / 2.0 {
            sizes[at] += group.len() as f64;
            for &image in group {
                splits[image] = [Split::Tune, Split::Test][at];
            }
        }
    };
    held.iter().for_each(|group| place(group, true));
    free.iter().for_each(|group| place(group, false));
    splits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_tie_groups_through_others() {
        let found = groups(7, &[(5, 1), (3, 5), (0, 6)]);
        assert_eq!(found, [vec![0, 6], vec![1, 3, 5], vec![2], vec![4]]);
    }

    #[test]
    fn groups_stay_whole_and_what_is_set_aside_is_never_trained_on() {
        let groups: Vec<Vec<usize>> = (0..50).map(|i| vec![2 * i, 2 * i + 1]).collect();
        let set_aside: Vec<bool> = (0..100).map(|image| image % 10 == 0).collect();
        let shares = Shares {
            tune: 0.2,
            test: 0.1,
        };
        let splits = assign(&groups, &set_aside, shares, 3);
        for group in &groups {
            assert_eq!(splits[group[0]], splits[group[1]]);
        }
        let aside = splits.iter().zip(&set_aside).filter(|(_, aside)| **aside);
        assert!(aside.into_iter().all(|(split, _)| *split != Split::Train));
        let count = |split| splits.iter().filter(|s| **s == split).count();
        assert_eq!((count(Split::Tune), count(Split::Test)), (20, 10));
        assert_eq!(assign(&groups, &set_aside, shares, 3), splits);
        assert_ne!(assign(&groups, &set_aside, shares, 4), splits);
    }

    #[test]
    fn more_set_aside_than_asked_for_is_halved_by_the_shares() {
        let groups: Vec<Vec<usize>> = (0..100).map(|image| vec![image]).collect();
        let set_aside: Vec<bool> = (0..100).map(|image| image < 40).collect();
        let splits = assign(
            &groups,
            &set_aside,
            Shares {
                tune: 0.1,
                test: 0.1,
            },
            1,
        );
        let count = |split| splits.iter().filter(|s| **s == split).count();
        assert_eq!((count(Split::Tune), count(Split::Test)), (20, 20));
    }
}

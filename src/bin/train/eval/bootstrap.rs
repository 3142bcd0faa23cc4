//! How sure a figure is: percentile intervals from resampled images.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;
use serde::Serialize;

/// Resamples.
pub(super) const ROUNDS: u64 = 500;

/// Share of the resamples within an interval.
const INSIDE: f64 = 0.95;

/// A figure with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Estimate {
    pub(crate) value: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// A figure with its one-sided 95 % upper bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AtMost {
    pub(crate) value: f64,
    pub(crate) bound: f64,
}

/// Cases in groups within which they are alike.
///
/// A draw takes a group or leaves it whole: the cluster bootstrap (Field and Welsh 2007, "Bootstrapping
/// clustered data", J. R. Stat. Soc. B 69, 369-390). Cases of one image are no more independent for being
/// many: drawn one by one, they would make intervals too narrow.
pub(crate) struct Clusters<'a, T>(Vec<Vec<&'a T>>);

impl<'a, T: Sync> Clusters<'a, T> {
    /// Cases of one `key` are a group.
    pub(crate) fn by<K: Ord>(cases: &[&'a T], key: impl Fn(&'a T) -> K) -> Self {
        let mut groups: BTreeMap<K, Vec<&'a T>> = BTreeMap::new();
        for &case in cases {
            groups.entry(key(case)).or_default().push(case);
        }
        Self(groups.into_values().collect())
    }

    /// How many groups there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// All cases.
    pub(crate) fn cases(&self) -> impl Iterator<Item = &'a T> {
        self.0.iter().flatten().copied()
    }

    /// The figure that `of` makes of some cases, with its interval: `of` gets all, then those of as many
    /// groups drawn with replacement, always the same draws for the same number. None where it has none
    /// of all.
    pub(crate) fn estimate(&self, of: impl Fn(&[&'a T]) -> Option<f64> + Sync) -> Option<Estimate> {
        let (value, drawn) = self.draw(of)?;
        let tail = (1.0 - INSIDE) / 2.0;
        let at = |share| quantile(&drawn, share).unwrap_or(value);
        Some(Estimate {
            value,
            low: at(tail),
            high: at(1.0 - tail),
        })
    }

    /// Like [`Clusters::estimate`], with the value that 95 % of the draws do not exceed: how large the
    /// figure may be, one-sided.
    pub(crate) fn at_most(&self, of: impl Fn(&[&'a T]) -> Option<f64> + Sync) -> Option<AtMost> {
        let (value, drawn) = self.draw(of)?;
        let bound = quantile(&drawn, INSIDE).unwrap_or(value);
        Some(AtMost { value, bound })
    }

    /// The figure of all, and those of the draws that have one, rising.
    fn draw(&self, of: impl Fn(&[&'a T]) -> Option<f64> + Sync) -> Option<(f64, Vec<f64>)> {
        let value = of(&self.cases().collect::<Vec<_>>())?;
        let groups = &self.0;
        let mut drawn: Vec<f64> = (0..ROUNDS)
            .into_par_iter()
            .filter_map(|round| {
                let mut rng = StdRng::seed_from_u64(round);
                let draw = |_| groups[rng.random_range(0..groups.len())].iter().copied();
                of(&(0..groups.len()).flat_map(draw).collect::<Vec<_>>())
            })
            .collect();
        drawn.sort_by(f64::total_cmp);
        Some((value, drawn))
    }
}

/// The value below which a share of some rising ones lies; none of none.
fn quantile(rising: &[f64], share: f64) -> Option<f64> {
    let last = rising.len().checked_sub(1)?;
    Some(rising[(share * last as f64).round() as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(values: &[&f64]) -> Option<f64> {
        (!values.is_empty()).then(|| values.iter().copied().sum::<f64>() / values.len() as f64)
    }

    /// Each of `values`, in groups of `size`.
    fn grouped(values: &[f64], size: usize) -> Option<Estimate> {
        let numbered: Vec<(usize, f64)> = values.iter().copied().enumerate().collect();
        let refs: Vec<&(usize, f64)> = numbered.iter().collect();
        Clusters::by(&refs, |case| case.0 / size)
            .estimate(|some| mean(&some.iter().map(|case| &case.1).collect::<Vec<_>>()))
    }

    fn spans_two_standard_errors(found: Estimate, error: f64, slack: f64) {
        let (low, high) = (found.value - 1.96 * error, found.value + 1.96 * error);
        assert!((found.low - low).abs() < slack, "{found:?}");
        assert!((found.high - high).abs() < slack, "{found:?}");
    }

    #[test]
    fn the_interval_of_a_mean_is_two_standard_errors() {
        // 100 of 400 are 1: the standard error of the share is sqrt(0.25 * 0.75 / 400) = 0.02165.
        let values: Vec<f64> = (0..400).map(|i| f64::from(u8::from(i < 100))).collect();
        let found = grouped(&values, 1).expect("some");
        assert_eq!(found.value, 0.25);
        spans_two_standard_errors(found, 0.02165, 0.008);
        assert_eq!(grouped(&values, 1), Some(found), "the same draws each time");
    }

    #[test]
    fn four_cases_of_one_image_tell_no_more_than_one() {
        // The same in 100 groups of four that agree: sqrt(0.25 * 0.75 / 100) = 0.0433.
        let values: Vec<f64> = (0..400).map(|i| f64::from(u8::from(i < 100))).collect();
        let found = grouped(&values, 4).expect("some");
        assert_eq!(found.value, 0.25);
        spans_two_standard_errors(found, 0.0433, 0.016);
    }

    #[test]
    fn what_never_varies_has_no_width_and_nothing_has_no_figure() {
        let found = grouped(&[0.5; 9], 2).expect("some");
        assert_eq!((found.low, found.high), (0.5, 0.5));
        assert_eq!(grouped(&[], 1), None);
    }
}

//! How sure a figure is: percentile intervals from resampled images.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;
use serde::Serialize;

/// Resamples.
const ROUNDS: u64 = 500;

/// Share of the resamples within an interval.
const INSIDE: f64 = 0.95;

/// A figure with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Estimate {
    pub(crate) value: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// The figure that `of` makes of some of `cases`, with its interval: `of` gets all, then as many drawn
/// with replacement, always the same draws for the same number. None where it has none of all.
pub(crate) fn estimate<T: Sync>(
    cases: &[T],
    of: impl Fn(&[&T]) -> Option<f64> + Sync,
) -> Option<Estimate> {
    let all: Vec<&T> = cases.iter().collect();
    let value = of(&all)?;
    let mut drawn: Vec<f64> = (0..ROUNDS)
        .into_par_iter()
        .filter_map(|round| {
            let mut rng = StdRng::seed_from_u64(round);
            let mut draw = || &cases[rng.random_range(0..cases.len())];
            of(&(0..cases.len()).map(|_| draw()).collect::<Vec<&T>>())
        })
        .collect();
    drawn.sort_by(f64::total_cmp);
    let at = |share: f64| {
        drawn
            .get((share * (drawn.len() - 1) as f64).round() as usize)
            .copied()
    };
    let tail = (1.0 - INSIDE) / 2.0;
    let known = (!drawn.is_empty()).then(|| (at(tail), at(1.0 - tail)));
    let (low, high) = known.map_or((value, value), |(l, h)| {
        (l.unwrap_or(value), h.unwrap_or(value))
    });
    Some(Estimate { value, low, high })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(values: &[&f64]) -> Option<f64> {
        (!values.is_empty()).then(|| values.iter().copied().sum::<f64>() / values.len() as f64)
    }

    #[test]
    fn the_interval_of_a_mean_is_two_standard_errors() {
        // 100 of 400 are 1: the standard error of the share is sqrt(0.25 * 0.75 / 400) = 0.02165.
        let values: Vec<f64> = (0..400).map(|i| f64::from(u8::from(i < 100))).collect();
        let found = estimate(&values, mean).expect("some");
        assert_eq!(found.value, 0.25);
        assert!(
            (found.low - (0.25 - 1.96 * 0.02165)).abs() < 0.008,
            "{found:?}"
        );
        assert!(
            (found.high - (0.25 + 1.96 * 0.02165)).abs() < 0.008,
            "{found:?}"
        );
        assert_eq!(
            estimate(&values, mean),
            Some(found),
            "the same draws each time"
        );
    }

    #[test]
    fn what_never_varies_has_no_width_and_nothing_has_no_figure() {
        let found = estimate(&[0.5; 9], mean).expect("some");
        assert_eq!((found.low, found.high), (0.5, 0.5));
        assert_eq!(estimate(&[], mean), None);
    }
}

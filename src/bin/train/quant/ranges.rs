//! What a feature map's values range over, and which part of that its bytes had best stand for.

use super::scheme::{HIGHEST, LOWEST, Scheme};

/// Bins of a histogram.
const BINS: usize = 4096;

/// Shares of the range that are tried as its end.
const TRIED: usize = 64;

/// Share of the values that a percentile's range holds.
const HELD: f64 = 0.9999;

/// How many values of a feature map fell where.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    /// Values other than zero, those of a bin about `(bin + 0.5) * width` above the lowest.
    counts: Vec<u64>,
    /// Zeros: half of what a ReLU6 leaves, and the one value that each scheme has a byte for.
    zeros: u64,
    low: f32,
    high: f32,
}

/// How a range is taken from a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// All of it.
    MinMax,
    /// All but the outermost values.
    Percentile,
    /// The part whose bytes stand for all values with the least mean squared error.
    Mse,
}

impl Rule {
    pub(crate) const ALL: [Self; 3] = [Self::MinMax, Self::Percentile, Self::Mse];

    /// As reports have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::MinMax => "min-max",
            Self::Percentile => "percentile",
            Self::Mse => "least squares",
        }
    }
}

impl Histogram {
    /// An empty one for values from `low` to `high`; those beyond count at the ends.
    pub(crate) fn new(low: f32, high: f32) -> Self {
        Self {
            counts: vec![0; BINS],
            zeros: 0,
            low,
            high: high.max(low + f32::MIN_POSITIVE),
        }
    }

    pub(crate) fn add(&mut self, values: &[f32]) {
        let per = BINS as f32 / (self.high - self.low);
        for value in values {
            if *value == 0.0 {
                self.zeros += 1;
                continue;
            }
            let bin = ((value - self.low) * per) as usize;
            self.counts[bin.min(BINS - 1)] += 1;
        }
    }

    fn width(&self) -> f32 {
        (self.high - self.low) / BINS as f32
    }

    fn total(&self) -> u64 {
        self.zeros + self.counts.iter().sum::<u64>()
    }

    /// The scheme that a rule gives.
    pub(crate) fn scheme(&self, rule: Rule) -> Scheme {
        match rule {
            Rule::MinMax => Scheme::over(self.low, self.high),
            Rule::Percentile => {
                let outside = ((1.0 - HELD) / 2.0 * self.total() as f64) as u64;
                let beyond = |counts: &mut dyn Iterator<Item = &u64>| {
                    let mut seen = 0;
                    counts
                        .take_while(|count| {
                            seen += **count;
                            seen <= outside
                        })
                        .count() as f32
                };
                let low = beyond(&mut self.counts.iter());
                let high = beyond(&mut self.counts.iter().rev());
                Scheme::over(
                    self.low + low * self.width(),
                    self.high - high * self.width(),
                )
            }
            Rule::Mse => {
                let shrunk = |share: usize| {
                    let share = share as f32 / TRIED as f32;
                    Scheme::over(self.low.min(0.0) * share, self.high.max(0.0) * share)
                };
                let schemes = (TRIED / 8..=TRIED).map(shrunk);
                let best = schemes.min_by(|a, b| self.error(*a).total_cmp(&self.error(*b)));
                best.expect("some shares")
            }
        }
    }

    /// Mean squared error of the values as the bytes of `scheme` stand for them.
    pub(crate) fn error(&self, scheme: Scheme) -> f64 {
        let zero = f32::from(scheme.zero);
        let (least, most) = (
            scheme.scale * (LOWEST - zero),
            scheme.scale * (HIGHEST - zero),
        );
        // Values are taken for even within a step.
        let rounding = f64::from(scheme.scale).powi(2) / 12.0;
        let errors = self.counts.iter().enumerate().map(|(bin, &count)| {
            let value = self.low + (bin as f32 + 0.5) * self.width();
            let clipped = f64::from(value - value.clamp(least, most));
            let error = if clipped == 0.0 {
                rounding
            } else {
                clipped * clipped
            };
            error * count as f64
        });
        errors.sum::<f64>() / self.total().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = f32>, low: f32, high: f32) -> Histogram {
        let mut histogram = Histogram::new(low, high);
        histogram.add(&values.into_iter().collect::<Vec<_>>());
        histogram
    }

    #[test]
    fn an_outlier_widens_the_range_of_one_rule_alone() {
        // 100,000 values from 0 to 1, and one of 50.
        let values = (0..100_000).map(|i| i as f32 / 1e5).chain([50.0]);
        let histogram = of(values, 0.0, 50.0);
        let reach = |rule| histogram.scheme(rule).scale * 255.0;
        assert!((reach(Rule::MinMax) - 50.0).abs() < 1e-3);
        assert!(
            (0.9..1.2).contains(&reach(Rule::Percentile)),
            "{}",
            reach(Rule::Percentile)
        );
        // To clip it by 44 costs 44^2 / 1e5 = 0.02; to keep it (50 / 255)^2 / 12 = 0.003.
        assert!(reach(Rule::Mse) > 30.0);
    }

    #[test]
    fn the_least_error_clips_the_tails_of_a_normal_distribution() {
        // 255 steps over a normal distribution: nearly nothing is clipped beyond four deviations, and
        // nothing is gained by keeping six (Banner et al. 2019, figure 1: about 3.9 for 8 bits).
        let bell = (-6000..=6000).flat_map(|i| {
            let x = i as f32 / 1000.0;
            let count = (1e4 * (-x * x / 2.0).exp()) as usize;
            std::iter::repeat_n(x, count)
        });
        let scheme = of(bell, -6.0, 6.0).scheme(Rule::Mse);
        let reach = scheme.scale * 127.5;
        assert!((3.4..4.6).contains(&reach), "{reach}");
        assert!((127..=129).contains(&scheme.zero));
    }

    #[test]
    fn the_error_of_an_even_spread_is_a_twelfth_of_the_step_squared() {
        let histogram = of((0..100_000).map(|i| i as f32 / 1e5), 0.0, 1.0);
        let scheme = histogram.scheme(Rule::MinMax);
        let step = scheme.scale;
        let direct: f64 = (0..100_000)
            .map(|i| i as f32 / 1e5)
            .map(|v| f64::from(v - (v / step).round_ties_even() * step).powi(2))
            .sum::<f64>()
            / 1e5;
        assert!((histogram.error(scheme) / direct - 1.0).abs() < 0.02);
    }
}

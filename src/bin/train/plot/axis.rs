//! From values to places along an axis, and the numbers beside it.

/// Ticks that an axis should have, about.
const TICKS: f64 = 7.0;

/// One axis of a chart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    log: bool,
}

impl Axis {
    /// From `low` to `high`; widened where that is no range.
    pub(super) fn exactly(low: f64, high: f64) -> Self {
        let log = false;
        if low < high {
            return Self { low, high, log };
        }
        let (low, high) = (low - 0.5, low + 0.5);
        Self { low, high, log }
    }

    /// As far as the values go.
    pub(super) fn tight(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = extent(values.filter(|v| v.is_finite())).unwrap_or((0.0, 1.0));
        Self::exactly(low, high)
    }

    /// As far as the values go, and on to the next round number on both sides.
    pub(super) fn rounded(values: impl Iterator<Item = f64>) -> Self {
        let axis = Self::tight(values);
        let step = axis.step();
        let (low, high) = (
            (axis.low / step).floor() * step,
            (axis.high / step).ceil() * step,
        );
        Self { low, high, ..axis }
    }

    /// A logarithmic axis over the whole decades of the positive values.
    pub(super) fn decades(values: impl Iterator<Item = f64>) -> Self {
        let positive = values.filter(|v| v.is_finite() && *v > 0.0).map(f64::log10);
        let (low, high) = extent(positive).unwrap_or((0.0, 1.0));
        let (low, high) = (low.floor(), high.ceil());
        let high = if high > low { high } else { low + 1.0 };
        Self {
            low: 10f64.powf(low),
            high: 10f64.powf(high),
            log: true,
        }
    }

    /// The same range, by decades where its ends are positive.
    pub(super) fn logarithmic(self, log: bool) -> Self {
        let log = log && self.low > 0.0;
        Self { log, ..self }
    }

    /// Where a value lies, 0 at the axis' start and 1 at its end.
    pub(super) fn share(&self, value: f64) -> f64 {
        match self.log {
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        }
    }

    /// Whether a value has a place at all.
    pub(super) fn shows(&self, value: f64) -> bool {
        value.is_finite() && (!self.log || value > 0.0)
    }

    /// The value on which bars stand.
    pub(super) fn ground(&self) -> f64 {
        match self.log {
            true => self.low,
            false => 0.0f64.clamp(self.low, self.high),
        }
    }

    /// Round values along the axis, as numbers and as text.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        if self.log {
            return self.log_ticks();
        }
        let step = self.step();
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        let digits = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
        let name = |value: f64| match value.abs().max(step) {
            1e7.. => format!("{value:.0e}"),
            _ if step < 1e-9 => format!("{value:.2e}"),
            _ => format!("{value:.digits$}"),
        };
        (first..=last)
            .map(|nth| nth as f64 * step)
            .map(|value| (value, name(value)))
            .collect()
    }

    /// Powers of ten; with their doubles and fives where there are few of them.
    fn log_ticks(&self) -> Vec<(f64, String)> {
        let (low, high) = (self.low.log10(), self.high.log10());
        let between: &[f64] = if high - low > 3.0 {
            &[1.0]
        } else {
            &[1.0, 2.0, 5.0]
        };
        let step = ((high - low) / 10.0).ceil().max(1.0) as usize;
        let powers = (low.floor() as i32..=high.ceil() as i32).step_by(step);
        powers
            .flat_map(|power| between.iter().map(move |b| b * 10f64.powi(power)))
            .filter(|value| (-1e-9..=1.0 + 1e-9).contains(&self.share(*value)))
            .map(|value| match value {
                0.001..1e6 => (value, format!("{}", (value * 1e4).round() / 1e4)),
                _ => (value, format!("{value:.0e}")),
            })
            .collect()
    }

    /// 1, 2 or 5 times a power of ten.
    fn step(&self) -> f64 {
        let least = (self.high - self.low) / TICKS;
        let power = 10f64.powf(least.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        steps
            .into_iter()
            .find(|step| *step >= least * (1.0 - 1e-9))
            .unwrap_or(least)
    }
}

/// The least and the greatest of some values.
fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |extent, value| match extent {
        Some((low, high)) => Some((value.min(low), value.max(high))),
        None => Some((value, value)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(axis: &Axis) -> Vec<String> {
        axis.ticks().into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn ticks_are_round_numbers_within_the_range() {
        assert_eq!(
            names(&Axis::exactly(0.0, 1.0)),
            ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
        assert_eq!(
            names(&Axis::exactly(-3.0, 9.0)),
            ["-2", "0", "2", "4", "6", "8"]
        );
        assert_eq!(
            names(&Axis::exactly(0.0, 3000.0)),
            ["0", "500", "1000", "1500", "2000", "2500", "3000"]
        );
        assert_eq!(
            names(&Axis::exactly(0.013, 0.018)),
            ["0.013", "0.014", "0.015", "0.016", "0.017", "0.018"]
        );
    }

    #[test]
    fn decades_hold_all_values() {
        let axis = Axis::decades([0.0, 3.0, 4000.0, f64::NAN].into_iter());
        assert_eq!(names(&axis), ["1", "10", "100", "1000", "10000"]);
        let close = Axis::decades([3.0].into_iter());
        assert_eq!(names(&close), ["1", "2", "5", "10"]);
        let rates = Axis::decades([1e-6, 1.0].into_iter());
        assert_eq!(names(&rates)[..2], ["1e-6", "1e-5"]);
    }

    #[test]
    fn rounding_widens_and_never_cuts() {
        let axis = Axis::rounded([0.31, 0.87].into_iter());
        assert!((axis.low - 0.3).abs() < 1e-12 && (axis.high - 0.9).abs() < 1e-12);
        // A flat line has an axis as well.
        let flat = Axis::rounded([2.0, 2.0].into_iter());
        assert!(flat.low < 2.0 && flat.high > 2.0);
    }
}

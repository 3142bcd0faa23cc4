//! What many runs took, in a few figures.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::table::row;

/// Fewest runs of which quarters are compared.
const COMPARABLE: usize = 8;

/// How much slower the last quarter may be before it is worth a word.
const TOLERATED: f64 = 0.1;

/// Figures of a thing that was done again and again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Figures {
    pub(super) runs: usize,
    pub(super) median_ms: f64,
    pub(super) p95_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) min_ms: f64,
}

impl Figures {
    /// # Panics
    /// Without a run.
    pub(super) fn of(times: &[Duration]) -> Self {
        let mut times = times.to_vec();
        times.sort_unstable();
        Self {
            runs: times.len(),
            median_ms: milliseconds(median(&times)),
            p95_ms: milliseconds(percentile(&times, 95)),
            p99_ms: milliseconds(percentile(&times, 99)),
            min_ms: milliseconds(times[0]),
        }
    }

    /// What the cells of [`Figures::row`] are.
    pub(super) fn head() -> Vec<String> {
        row(["ms", "runs", "median", "p95", "p99", "least"])
    }

    /// A row of a table, milliseconds to so many digits.
    pub(super) fn row(&self, name: &str, digits: usize) -> Vec<String> {
        let ms = |ms: f64| format!("{ms:.digits$}");
        vec![
            name.to_owned(),
            self.runs.to_string(),
            ms(self.median_ms),
            ms(self.p95_ms),
            ms(self.p99_ms),
            ms(self.min_ms),
        ]
    }
}

/// Does `work` until `length` has passed, at least once, and says how long it took each time.
pub(super) fn timed<E>(
    length: Duration,
    mut work: impl FnMut() -> Result<(), E>,
) -> Result<Vec<Duration>, E> {
    let mut times = Vec::new();
    let start = Instant::now();
    let mut before = start;
    loop {
        work()?;
        let after = Instant::now();
        times.push(after - before);
        before = after;
        if after - start >= length {
            return Ok(times);
        }
    }
}

/// To the nanosecond.
pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e6
}

/// How much longer the last quarter of the runs took than the first, by their medians: 0.5 is half as long
/// again. None of too few runs.
pub(super) fn slowdown(times: &[Duration]) -> Option<f64> {
    let quarter = times.len() / 4;
    (times.len() >= COMPARABLE).then(|| {
        let middle = |times: &[Duration]| {
            let mut times = times.to_vec();
            times.sort_unstable();
            median(&times).as_secs_f64()
        };
        middle(&times[times.len() - quarter..]) / middle(&times[..quarter]) - 1.0
    })
}

/// What a person should know of a slowdown; nothing if it is small.
pub(super) fn warning(slowdown: Option<f64>) -> Option<String> {
    let by = slowdown.filter(|&by| by > TOLERATED)?;
    Some(format!(
        "The last quarter was slower than the first by {:.0} %: the processor throttles, or something else runs.",
        100.0 * by
    ))
}

/// The middle one of sorted times, or the mean of both.
fn median(sorted: &[Duration]) -> Duration {
    let (below, above) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    (below + above) / 2
}

/// The least of sorted times that `percent` of them do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted[rank.max(1) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(milliseconds: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        let times = milliseconds.into_iter().map(Duration::from_millis);
        times.collect()
    }

    #[test]
    fn figures_are_those_worked_out_by_hand() {
        let hundred = times((1..=100).rev());
        let wanted = Figures {
            runs: 100,
            median_ms: 50.5,
            p95_ms: 95.0,
            p99_ms: 99.0,
            min_ms: 1.0,
        };
        assert_eq!(Figures::of(&hundred), wanted);
        // 95 % of 5 are 4.75, so all five.
        let five = Figures::of(&times([30, 10, 20, 50, 40]));
        let wanted = Figures {
            runs: 5,
            median_ms: 30.0,
            p95_ms: 50.0,
            p99_ms: 50.0,
            min_ms: 10.0,
        };
        assert_eq!(five, wanted);
        let one = Figures::of(&times([7]));
        assert_eq!([one.median_ms, one.p95_ms, one.min_ms], [7.0; 3]);
        // 95 % of 21 are 19.95.
        assert_eq!(Figures::of(&times(1..=21)).p95_ms, 20.0);
    }

    #[test]
    fn quarters_are_compared_by_their_medians() {
        assert_eq!(slowdown(&times([10; 7])), None);
        assert_eq!(slowdown(&times([10; 8])), Some(0.0));
        // First quarter 10, 10, 40; last 15, 15, 90; what lies between does not count.
        let slower = times([40, 10, 10, 99, 99, 99, 99, 99, 99, 15, 90, 15]);
        let by = slowdown(&slower).expect("enough runs");
        assert!((by - 0.5).abs() < 1e-12, "{by}");
        assert!(warning(Some(by)).is_some_and(|text| text.contains("by 50 %")));
        assert_eq!(warning(Some(0.1)), None);
        assert_eq!(warning(Some(-0.5)), None);
        assert_eq!(warning(None), None);
    }

    #[test]
    fn work_is_done_once_at_least_and_its_error_ends_it() {
        let mut count = 0;
        let once = timed(Duration::ZERO, || {
            count += 1;
            Ok::<_, ()>(())
        });
        assert_eq!((once.map(|times| times.len()), count), (Ok(1), 1));
        let failed = timed(Duration::from_secs(3600), || Err("broken"));
        assert_eq!(failed, Err("broken"));
    }
}

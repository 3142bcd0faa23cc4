//! What a person sees of a long run: a bar on a terminal, a line now and then in a log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use burn::tensor::backend::Backend;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::curves::Metrics;
use crate::logging;
use crate::trainer::Window;

/// A log gets a line no sooner than so long after the one before,
const SHORTEST: Duration = Duration::from_secs(30);

/// and no later.
const LONGEST: Duration = Duration::from_secs(300);

/// How far something has come.
#[derive(Debug, Clone, Copy)]
struct At {
    done: u64,
    /// Done before the clock started.
    before: u64,
    total: u64,
    elapsed: Duration,
}

impl At {
    /// Things done in a second; none before the first.
    fn rate(&self) -> Option<f64> {
        let done = self
            .done
            .checked_sub(self.before)
            .filter(|&done| done > 0)?;
        Some(done as f64 / self.elapsed.as_secs_f64().max(1e-9))
    }

    /// How long the rest takes if it goes on so; none where that is unknown, or nothing is left.
    fn left(&self) -> Option<Duration> {
        let rest = self.total.checked_sub(self.done).filter(|&rest| rest > 0)?;
        Duration::try_from_secs_f64(rest as f64 / self.rate()?).ok()
    }
}

/// When a log gets a line: after half a minute, at each tenth of the way, and every five minutes.
#[derive(Debug, Default)]
struct Pace {
    /// Time and tenth of the last line.
    said: Option<(Duration, u64)>,
}

impl Pace {
    fn is_due(&mut self, at: &At) -> bool {
        let tenth = at.done * 10 / at.total.max(1);
        let last = self.said.map_or(Duration::ZERO, |said| said.0);
        let quiet = at.elapsed.saturating_sub(last);
        let on = self.said.is_none_or(|said| tenth > said.1);
        let due = quiet >= SHORTEST && (on || quiet >= LONGEST);
        if due {
            self.said = Some((at.elapsed, tenth));
        }
        due
    }
}

/// A bar, or the lines that stand for it where nobody would see it.
struct Shown {
    bar: ProgressBar,
    pace: Mutex<Pace>,
    before: u64,
    start: Instant,
}

impl Shown {
    fn new(name: &str, style: &str, total: usize, before: usize) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
        bar.set_style(
            ProgressStyle::with_template(style)
                .expect("the template is well formed")
                .progress_chars("=> "),
        );
        bar.set_prefix(name.to_owned());
        bar.set_position(before as u64);
        bar.reset_eta();
        Self {
            bar,
            pace: Mutex::default(),
            before: before as u64,
            start: Instant::now(),
        }
    }

    fn at(&self) -> At {
        At {
            done: self.bar.position(),
            before: self.before,
            total: self.bar.length().unwrap_or(0),
            elapsed: self.start.elapsed(),
        }
    }

    /// Where things stand, if a log is to get a line now.
    fn due(&self) -> Option<At> {
        if !self.bar.is_hidden() {
            return None;
        }
        // Another thread that has it says what there is to say.
        let mut pace = self.pace.try_lock().ok()?;
        let at = self.at();
        pace.is_due(&at).then_some(at)
    }
}

/// Counts things that are done.
pub(crate) struct Counter {
    name: String,
    shown: Shown,
}

/// Counts up to `length`.
pub(crate) fn count(name: &str, length: usize) -> Counter {
    let style = "{prefix} [{bar:30}] {pos}/{len} {per_sec}, {eta} to go";
    Counter {
        name: name.to_owned(),
        shown: Shown::new(name, style, length, 0),
    }
}

impl Counter {
    pub(crate) fn inc(&self, things: u64) {
        self.shown.bar.inc(things);
        if let Some(at) = self.shown.due() {
            log::info!("{}: {}", self.name, counted(&at));
        }
    }

    /// Takes the bar out of the way of what `work` writes.
    pub(crate) fn suspend<T>(&self, work: impl FnOnce() -> T) -> T {
        self.shown.bar.suspend(work)
    }

    pub(crate) fn finish_and_clear(&self) {
        let at = self.shown.at();
        let pace = self.shown.pace.lock();
        if pace.unwrap_or_else(PoisonError::into_inner).said.is_some() {
            log::info!("{}: {}", self.name, counted(&at));
        }
        self.shown.bar.finish_and_clear();
    }
}

fn counted(at: &At) -> String {
    let percent = at.done as f64 / at.total.max(1) as f64 * 100.0;
    let rate = at
        .rate()
        .map_or(String::new(), |r| format!(", {r:.1} a second"));
    format!(
        "{} of {} ({percent:.0} %){rate}{}",
        at.done,
        at.total,
        to_go(at)
    )
}

fn to_go(at: &At) -> String {
    let left = at.left().map(HumanDuration);
    left.map_or(String::new(), |left| format!(", about {left} to go"))
}

/// Progress of one phase.
pub(crate) struct Progress {
    name: &'static str,
    shown: Shown,
}

impl Progress {
    /// Of `steps` steps, `done` are done already.
    pub(crate) fn new(name: &'static str, steps: usize, done: usize) -> Self {
        let style = "{prefix} [{bar:30}] {pos}/{len}, {eta} left  {msg}";
        let shown = Shown::new(name, style, steps, done);
        logging::step_aside(&shown.bar);
        Self { name, shown }
    }

    /// Says how far a phase has come, and how its last steps went.
    pub(crate) fn step<B: Backend>(&self, step: usize, loss: Option<f64>, window: &Window<B>) {
        let loss = loss.map_or(String::new(), |loss| format!("loss {loss:.4}, "));
        self.count(step, &format!("{loss}{:.1} images/s", window.rate()));
    }

    pub(crate) fn count(&self, step: usize, how: &str) {
        self.shown.bar.set_position(step as u64);
        self.shown.bar.set_message(how.to_owned());
        if let Some(at) = self.shown.due() {
            log::info!(
                "{} step {step} of {}: {how}{}",
                self.name,
                at.total,
                to_go(&at)
            );
        }
    }

    /// Reports a look at the tune set.
    pub(crate) fn tuned(&self, row: &Metrics, best: bool) {
        let known = |name: &str, value: Option<f64>| {
            value.map_or(String::new(), |value| format!("{name} {value:.4}, "))
        };
        let at = self.shown.at();
        log::info!(
            "{} step {} of {}: {}score {:.4}{} ({}{}{}{}{:.1} images/s, {:.0} % waiting for data){}",
            row.phase,
            row.step,
            at.total,
            known("loss", row.loss),
            row.score,
            if best { ", the best" } else { "" },
            known("AUC", row.auc),
            known("empty stopped", row.rejected),
            known("Dice of ships", row.dice_ships),
            known("of all", row.dice_all),
            row.images_per_s,
            row.data_wait * 100.0,
            to_go(&at),
        );
    }

    pub(crate) fn finish(&self) {
        self.shown.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(done: u64, total: u64, seconds: u64) -> At {
        At {
            done,
            before: 0,
            total,
            elapsed: Duration::from_secs(seconds),
        }
    }

    /// Seconds at which something that takes `whole` seconds puts a line into the log.
    fn lines(whole: u64) -> Vec<u64> {
        let mut pace = Pace::default();
        (0..=whole)
            .filter(|&second| pace.is_due(&at(second, whole, second)))
            .collect()
    }

    #[test]
    fn a_log_gets_a_line_now_and_then() {
        assert_eq!(lines(20), [0u64; 0], "nobody waits for that");
        // Tenths come every 10 seconds, lines no sooner than every 30.
        assert_eq!(lines(100), [30, 60, 90]);
        // A first line soon, then at tenths.
        let whole = [30, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000];
        assert_eq!(lines(1000), whole);
        // Tenths lie 100 minutes apart: never silent for longer than five minutes.
        let long = lines(60_000);
        assert!(long.windows(2).all(|pair| pair[1] - pair[0] <= 300));
        assert!(long.len() < 220, "{}", long.len());
    }

    #[test]
    fn a_line_says_count_rate_and_time_left() {
        assert_eq!(
            counted(&at(50, 200, 100)),
            "50 of 200 (25 %), 0.5 a second, about 5 minutes to go"
        );
        assert_eq!(counted(&at(0, 200, 100)), "0 of 200 (0 %)");
        assert_eq!(
            counted(&at(200, 200, 100)),
            "200 of 200 (100 %), 2.0 a second"
        );
        // What was done before says nothing of how fast it goes.
        let resumed = At {
            before: 40,
            ..at(50, 100, 60)
        };
        assert_eq!(to_go(&resumed), ", about 5 minutes to go");
    }
}

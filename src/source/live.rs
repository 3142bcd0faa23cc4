//! What cameras and streams have in common: frames without files, that come when they like, from what may
//! be gone for a while.

use std::fmt;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use image::RgbImage;
use jiff::Timestamp;

use super::{Next, Origin};
use crate::frame::{Frame, Tags};
use crate::ledger::Key;

/// A source whose frames have no files, as the ledger tells them apart.
#[derive(Debug)]
pub(super) struct Live {
    name: String,
    /// Tells openings from those of other boots of the machine, and of other runs.
    run: String,
}

/// Which frame of a run it is. No two have the same opening and sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// Counts openings, from 1.
    pub(super) opening: u64,
    /// Counts what came of one opening, whether it was looked at or not.
    pub(super) sequence: u64,
    /// When it was taken, by the wall clock.
    pub(super) captured: SystemTime,
}

impl Live {
    /// By the name that the log and the ledger know it by.
    pub(super) fn new(name: String) -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_nanos();
        let run = format!("{}/{now}", boot.trim());
        Self { name, run }
    }

    /// What the log calls it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A frame, named by its source, its time and its number. A time that it says for itself is kept.
    pub(super) fn frame(
        &self,
        moment: &Moment,
        pixels: RgbImage,
        tags: Tags,
        decode: Duration,
    ) -> Next {
        let Moment {
            opening, sequence, ..
        } = moment;
        let captured = timestamp(moment.captured);
        let key = Key {
            source: self.name.clone(),
            name: format!("{}/{opening}/{sequence}", self.run).into(),
            digest: [0; 32],
        };
        let name = format!(
            "{}-{}-{sequence}",
            self.name,
            captured.strftime("%Y%m%dT%H%M%S%.3fZ")
        );
        let captured = || captured.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
        Next::Frame {
            frame: Frame {
                name,
                pixels,
                tags: Tags {
                    captured: Some(tags.captured.unwrap_or_else(captured)),
                    ..tags
                },
            },
            decode,
            origin: Origin { key, file: None },
        }
    }

    /// Something that is no frame.
    pub(super) fn broken(&self, problem: impl fmt::Display) -> Next {
        Next::Broken {
            problem: format!("{}: {problem}", self.name),
            origin: None,
        }
    }
}

/// A time before 1970 or after 9999 is none that a clock should show.
fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or_default()
}

/// How long to wait before what failed is tried again: 1 s, twice as long each time, 30 s at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff(Duration);

impl Backoff {
    const FIRST: Duration = Duration::from_secs(1);
    const LAST: Duration = Duration::from_secs(30);

    /// The next wait.
    pub(super) fn advance(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (wait * 2).min(Self::LAST);
        wait
    }

    /// It works again.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self(Self::FIRST)
    }
}

/// What keeps a source from giving frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// What is wrong.
    pub(super) problem: String,
    /// The time of day at which frames ceased to come.
    pub(super) since: SystemTime,
    /// How long after a failure it is tried again; none if it is waited for.
    pub(super) retry: Option<Duration>,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = timestamp(self.since);
        write!(
            f,
            "{}; since {}",
            self.problem,
            since.strftime("%Y-%m-%dT%H:%M:%SZ")
        )?;
        match self.retry {
            Some(retry) => write!(f, ", tried again every {} s", retry.as_secs()),
            None => Ok(()),
        }
    }
}

/// Which frames are due. Times are those since some fixed moment.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    due: Option<Duration>,
}

impl Pace {
    /// One frame in an interval, on average.
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            due: None,
        }
    }

    /// How long after `now` the next is due.
    pub(super) fn wait(&self, now: Duration) -> Duration {
        self.due.unwrap_or_default().saturating_sub(now)
    }

    /// Whether a frame of that time is due.
    pub(super) fn is_due(&self, stamp: Duration) -> bool {
        self.wait(stamp).is_zero()
    }

    /// The next is due an interval after this one was, not after it came: else frames that come a
    /// little early would slow the pace down.
    pub(super) fn took(&mut self, stamp: Duration) {
        let planned = self.due.unwrap_or(stamp).saturating_add(self.interval);
        let late = planned < stamp;
        self.due = Some(if late {
            stamp.saturating_add(self.interval)
        } else {
            planned
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_holds_on_average() {
        let count = |interval: u64, frame: fn(u64) -> u64| {
            let mut pace = Pace::new(Duration::from_millis(interval));
            (0..300)
                .map(frame)
                .map(Duration::from_micros)
                .filter(|&stamp| {
                    let due = pace.is_due(stamp);
                    if due {
                        pace.took(stamp);
                    }
                    due
                })
                .count()
        };
        // Ten seconds at thirty frames per second, the second time a little early and late by turns.
        let steady = |i| i * 33_333;
        let jittery = |i| 1000 + i * 33_333 - (i % 2) * 900;
        assert_eq!(count(0, steady), 300);
        for stamps in [steady, jittery] {
            let taken = count(100, stamps);
            assert!((99..=101).contains(&taken), "{taken}");
        }
        // After a break, no frames in a row make up for it.
        let broken = |i| i * 33_333 + if i < 150 { 0 } else { 60_000_000 };
        let taken = count(100, broken);
        assert!((99..=102).contains(&taken), "{taken}");
    }

    #[test]
    fn waits_double_up_to_half_a_minute() {
        let mut backoff = Backoff::default();
        let mut waits = || backoff.advance().as_secs();
        assert_eq!([(); 7].map(|()| waits()), [1, 2, 4, 8, 16, 30, 30]);
        backoff.reset();
        assert_eq!(backoff.advance().as_secs(), 1);
    }

    #[test]
    fn trouble_says_since_when_and_what_is_done() {
        let trouble = Trouble {
            problem: "no camera".into(),
            since: UNIX_EPOCH + Duration::from_secs(1_795_651_201),
            retry: Some(Duration::from_secs(4)),
        };
        assert_eq!(
            trouble.to_string(),
            "no camera; since 2026-11-26T00:00:01Z, tried again every 4 s"
        );
    }

    #[test]
    fn what_a_frame_says_of_itself_is_kept() {
        let live = Live::new("deck".into());
        let moment = Moment {
            opening: 1,
            sequence: 7,
            captured: UNIX_EPOCH + Duration::from_millis(1_795_651_200_250),
        };
        let tags = |captured: Option<&str>| {
            let tags = Tags {
                captured: captured.map(str::to_owned),
                gsd: Some(2.0),
                ..Tags::default()
            };
            match live.frame(&moment, RgbImage::new(1, 1), tags, Duration::ZERO) {
                Next::Frame { frame, .. } => (frame.name, frame.tags),
                other => panic!("{other:?}"),
            }
        };
        let (name, own) = tags(Some("2026-01-01T00:00:00"));
        assert_eq!(name, "deck-20261126T000000.250Z-7");
        assert_eq!(own.captured.as_deref(), Some("2026-01-01T00:00:00"));
        let (_, ours) = tags(None);
        assert_eq!(ours.captured.as_deref(), Some("2026-11-26T00:00:00.250Z"));
        assert_eq!((own.gsd, ours.gsd), (Some(2.0), Some(2.0)));
    }
}

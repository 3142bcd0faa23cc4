//! Whether the system's clock is right, that is, was set by a time server or a receiver since the start. A board
//! without a battery clock starts at any time.
//!
//! The kernel knows (adjtimex(2)), whoever sets it: chrony, ntpd, systemd-timesyncd or gpsd behind them. Asking it
//! takes unsafe code, and a hole in the service's sandbox, which lets nobody near the calls that set the clock. So
//! systemd is asked to ask: its timedated(8) takes the clock for synchronised as long as the kernel's bound of the
//! error lies below 16 seconds.

use std::io::Read;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::process::command;

/// How often the system is asked.
const AGAIN: Duration = Duration::from_secs(60);

/// An answer that takes longer is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Of this one property: `timedatectl` asks for all, and needs more of the system to answer.
const QUESTION: [&str; 7] = [
    "busctl",
    "--system",
    "get-property",
    "org.freedesktop.timedate1",
    "/org/freedesktop/timedate1",
    "org.freedesktop.timedate1",
    "NTPSynchronized",
];

/// Whether the clock is synchronised, asked now and waited for; `None` if the system does not tell.
pub fn synchronised() -> Option<bool> {
    let start = Instant::now();
    let mut clock = ClockState::new();
    loop {
        let answer = clock.look(start.elapsed());
        if clock.asking.is_none() {
            return answer;
        }
        sleep(Duration::from_millis(5));
    }
}

/// Asks once a minute, and waits for no answer.
#[derive(Debug)]
pub struct ClockState {
    question: Vec<String>,
    asked: Option<Duration>,
    asking: Option<Asking>,
    answer: Option<bool>,
}

impl ClockState {
    /// Nothing is asked yet.
    pub fn new() -> Self {
        Self::of(&QUESTION)
    }

    fn of(question: &[&str]) -> Self {
        Self {
            question: question.iter().map(|&part| part.into()).collect(),
            asked: None,
            asking: None,
            answer: None,
        }
    }

    /// Whether the clock was synchronised when the system last answered, by `now` of any clock that never runs
    /// backwards; `None` before, and if the system does not tell. Never waits.
    pub fn look(&mut self, now: Duration) -> Option<bool> {
        let since = |at: Option<Duration>| at.map(|at| now.saturating_sub(at));
        if self.asking.is_none() && since(self.asked).is_none_or(|past| past >= AGAIN) {
            self.asked = Some(now);
            self.asking = Asking::start(&self.question);
            if self.asking.is_none() {
                self.answer = None;
            }
        }
        if let Some(asking) = &mut self.asking {
            let late = since(self.asked).is_none_or(|past| past >= PATIENCE);
            match asking.answer() {
                Some(answer) => self.answer = answer,
                None if late => self.answer = None,
                None => return self.answer,
            }
            self.asking = None;
        }
        self.answer
    }
}

impl Default for ClockState {
    fn default() -> Self {
        Self::new()
    }
}

/// A child that was asked; it dies with this.
#[derive(Debug)]
struct Asking(Child);

impl Asking {
    fn start(question: &[String]) -> Option<Self> {
        let (program, args) = question.split_first()?;
        let child = command(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        child.ok().map(Self)
    }

    /// What it says, once it ended; `Some(None)` if that is nothing of use.
    fn answer(&mut self) -> Option<Option<bool>> {
        let status = self.0.try_wait();
        if matches!(status, Ok(None)) {
            return None;
        }
        let mut said = String::new();
        if let Some(stdout) = &mut self.0.stdout {
            // What cannot be read says nothing of use.
            let _ = stdout.take(16).read_to_string(&mut said);
        }
        Some(match said.trim() {
            "b true" => Some(true),
            "b false" => Some(false),
            _ => None,
        })
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        // Fails if it has ended, which is as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// What a clock says whose question a shell answers.
    fn settled(clock: &mut ClockState, now: u64) -> Option<bool> {
        let start = Instant::now();
        loop {
            let answer = clock.look(Duration::from_secs(now));
            if clock.asking.is_none() {
                return answer;
            }
            assert!(start.elapsed() < PATIENCE, "no end");
            std::thread::yield_now();
        }
    }

    #[test]
    fn knows_what_the_system_answers() {
        let says = |script| settled(&mut ClockState::of(&["sh", "-c", script]), 0);
        assert_eq!(says("echo b true"), Some(true));
        assert_eq!(says("echo b false"), Some(false));
        assert_eq!(says("echo 'no system bus' >&2; exit 1"), None);
        assert_eq!(settled(&mut ClockState::of(&["no-such-program"]), 0), None);
    }

    #[test]
    fn asks_once_a_minute() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("answer");
        let path = file.to_str().expect("UTF-8");
        std::fs::write(&file, "b false\n").expect("writes");
        let mut clock = ClockState::of(&["cat", path]);
        assert_eq!(settled(&mut clock, 0), Some(false));
        std::fs::write(&file, "b true\n").expect("writes");
        assert_eq!(settled(&mut clock, 59), Some(false));
        assert_eq!(settled(&mut clock, 60), Some(true));
        std::fs::remove_file(&file).expect("removes");
        assert_eq!(settled(&mut clock, 120), None);
    }

    #[test]
    fn one_that_does_not_answer_is_given_up() {
        let mut clock = ClockState::of(&["sleep", "3600"]);
        assert_eq!(clock.look(Duration::ZERO), None);
        assert!(clock.asking.is_some());
        assert_eq!(clock.look(PATIENCE), None);
        assert!(clock.asking.is_none());
    }
}

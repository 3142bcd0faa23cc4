//! What systemd is told where it starts the program: that it is ready, alive, and stopping.

use std::cell::Cell;
use std::time::{Duration, Instant};

use shipwatch::daemon::status::Counts;

/// The notifications of one run. Without systemd nothing hears them.
pub(crate) struct Service {
    /// How often to say that the program lives.
    interval: Duration,
    next: Cell<Instant>,
}

impl Service {
    pub(crate) fn new() -> Self {
        let watchdog = watchdog().unwrap_or(Duration::from_secs(60));
        Self {
            // Half of the time that it is waited for is what systemd asks for; a quarter leaves room.
            interval: watchdog / 4,
            next: Cell::new(Instant::now()),
        }
    }

    /// Sources are open and models are loaded.
    pub(crate) fn ready(&self) {
        notify::ready();
    }

    /// The loop turns: a frame is done, or there is none.
    pub(crate) fn alive(&self, counts: &Counts) {
        let now = Instant::now();
        if now >= self.next.get() {
            self.next.set(now + self.interval);
            let Counts {
                frames,
                ships,
                broken,
                dropped,
                ..
            } = counts;
            notify::alive(&format!(
                "{frames} frames with {ships} ships; {broken} skipped, {dropped} dropped"
            ));
        }
    }
}

/// The config is read again.
pub(crate) fn reloading() {
    notify::reloading();
}

/// What was asked to be read again is in use, or was refused.
pub(crate) fn reloaded() {
    notify::ready();
}

/// The loop will end after the frame in hand.
pub(crate) fn stopping() {
    notify::stopping();
}

#[cfg(target_os = "linux")]
fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

#[cfg(not(target_os = "linux"))]
fn watchdog() -> Option<Duration> {
    None
}

#[cfg(target_os = "linux")]
mod notify {
    use log::debug;
    use sd_notify::NotifyState;

    fn say(state: &[NotifyState]) {
        if let Err(error) = sd_notify::notify(state) {
            debug!("systemd does not listen: {error}");
        }
    }

    pub(super) fn ready() {
        say(&[NotifyState::Ready]);
    }

    /// Units of `Type=notify-reload` want to know since when.
    pub(super) fn reloading() {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => say(&[NotifyState::Reloading, now]),
            Err(_) => say(&[NotifyState::Reloading]),
        }
    }

    pub(super) fn alive(status: &str) {
        say(&[NotifyState::Watchdog, NotifyState::Status(status)]);
    }

    pub(super) fn stopping() {
        say(&[NotifyState::Stopping]);
    }
}

#[cfg(not(target_os = "linux"))]
mod notify {
    pub(super) fn ready() {}
    pub(super) fn reloading() {}
    pub(super) fn alive(_: &str) {}
    pub(super) fn stopping() {}
}

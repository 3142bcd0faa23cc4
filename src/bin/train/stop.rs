//! Whether the user has asked to end: what lasts looks here every second or so.

use std::sync::atomic::{AtomicBool, Ordering};

/// Set by Ctrl-C and SIGTERM.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    asked: AtomicBool,
    /// Whether nothing would be saved by waiting.
    at_once: AtomicBool,
}

/// The user asked to end before the work was done.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
pub(crate) struct Stopped;

/// Exit code of what Ctrl-C stopped: 128 and the signal's number, as shells have it.
pub(crate) const INTERRUPTED: u8 = 130;

/// The one that Ctrl-C and SIGTERM set from now on. Whoever asks twice does not want to wait until what was
/// done is saved: the process ends.
///
/// # Errors
/// If signals are handled already.
pub(crate) fn on_signals() -> Result<&'static Stop, ctrlc::Error> {
    static STOP: Stop = Stop::new();
    ctrlc::set_handler(|| {
        if STOP.ask() || STOP.at_once.load(Ordering::Relaxed) {
            std::process::exit(INTERRUPTED.into());
        }
    })?;
    Ok(&STOP)
}

impl Stop {
    pub(crate) const fn new() -> Self {
        Self {
            asked: AtomicBool::new(false),
            at_once: AtomicBool::new(false),
        }
    }

    /// From now on the program ends as soon as it is asked to: what follows can be done again.
    pub(crate) fn at_once(&self) {
        self.at_once.store(true, Ordering::Relaxed);
    }

    /// Asks to end; says whether that had been asked before.
    pub(crate) fn ask(&self) -> bool {
        self.asked.swap(true, Ordering::Relaxed)
    }

    /// # Errors
    /// [`Stopped`] once the user has asked to end.
    pub(crate) fn check(&self) -> Result<(), Stopped> {
        match self.asked.load(Ordering::Relaxed) {
            true => Err(Stopped),
            false => Ok(()),
        }
    }
}

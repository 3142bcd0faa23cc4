//! Whether the user has asked to end: what lasts looks here every second or so.

use std::sync::atomic::{AtomicBool, Ordering};

/// Set by Ctrl-C and SIGTERM.
#[derive(Debug, Default)]
pub(crate) struct Stop(AtomicBool);

/// The user asked to end before the work was done.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
pub(crate) struct Stopped;

impl Stop {
    pub(crate) const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Asks to end; says whether that had been asked before.
    pub(crate) fn ask(&self) -> bool {
        self.0.swap(true, Ordering::Relaxed)
    }

    /// # Errors
    /// [`Stopped`] once the user has asked to end.
    pub(crate) fn check(&self) -> Result<(), Stopped> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(Stopped),
            false => Ok(()),
        }
    }
}

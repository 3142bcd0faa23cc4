//! What signals ask of a running daemon.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shipwatch::daemon::Stop;

/// What a daemon is asked to do when it next looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// To go on.
    None,
    /// To read its config again.
    Reload,
    /// To end.
    End,
}

/// The latest order, and the loop that has to stop for it.
#[derive(Debug, Clone, Default)]
pub(super) struct Orders(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    end: bool,
    reload: bool,
    stop: Stop,
}

impl Orders {
    /// What a loop that starts now is stopped by.
    pub(super) fn stop(&self) -> Stop {
        let mut state = self.lock();
        state.stop = Stop::default();
        if state.end {
            state.stop.request();
        }
        state.stop.clone()
    }

    /// The end is asked for.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.end = true;
        state.stop.request();
    }

    /// A loop should end for the next one, whose config is read already.
    pub(super) fn reload(&self) {
        let mut state = self.lock();
        state.reload = true;
        state.stop.request();
    }

    /// Whether the end is asked for.
    pub(super) fn is_ending(&self) -> bool {
        self.lock().end
    }

    /// What is asked for. Asked again, a reload is not.
    pub(super) fn take(&self) -> Order {
        let mut state = self.lock();
        match (state.end, std::mem::take(&mut state.reload)) {
            (true, _) => Order::End,
            (false, true) => Order::Reload,
            (false, false) => Order::None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has `reload` called, in a thread of its own, for each SIGHUP, and `end` for all signals that end a program;
/// also for SIGHUP where a terminal has started it, which says by it that it is closed.
#[cfg(unix)]
pub(super) fn listen(
    reload: impl Fn() + Send + 'static,
    end: impl Fn() + Send + 'static,
) -> io::Result<()> {
    use std::io::IsTerminal;

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let is_interactive = io::stdin().is_terminal() || io::stderr().is_terminal();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            match signal {
                SIGHUP if !is_interactive => reload(),
                _ => end(),
            }
        }
    });
    Ok(())
}

/// Has `end` called for what ends a program.
#[cfg(not(unix))]
pub(super) fn listen(
    _: impl Fn() + Send + 'static,
    end: impl Fn() + Send + 'static,
) -> io::Result<()> {
    ctrlc::set_handler(end).map_err(io::Error::other)
}

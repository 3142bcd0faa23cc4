//! What signals ask of a running daemon.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shipwatch::daemon::Stop;

use super::plan::Plan;

/// The latest order, and the loop that has to stop for it.
#[derive(Clone, Default)]
pub(super) struct Orders(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    end: bool,
    /// What should be done instead.
    next: Option<Plan>,
    stop: Stop,
}

impl Orders {
    /// What a loop that starts now is stopped by, at once if there is an order already.
    pub(super) fn stop(&self) -> Stop {
        let mut state = self.lock();
        state.stop = Stop::default();
        if state.end || state.next.is_some() {
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

    /// A loop should end for one that does something else.
    pub(super) fn reload(&self, next: Plan) {
        let mut state = self.lock();
        state.next = Some(next);
        state.stop.request();
    }

    /// Whether the end is asked for.
    pub(super) fn is_ending(&self) -> bool {
        self.lock().end
    }

    /// What should be done next; nothing if the end is asked for, or nothing is.
    pub(super) fn next(&self) -> Option<Plan> {
        let mut state = self.lock();
        state.next.take().filter(|_| !state.end)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has `reload` called for SIGHUP, and `end` for all signals that end a program; also for SIGHUP where a terminal has
/// started it, which says by it that it is closed. Each has a thread of its own, so that the end need not wait for a
/// config on a disk that hangs. Of several SIGHUPs while one is answered, one counts.
#[cfg(unix)]
pub(super) fn listen(
    reload: impl Fn() + Send + 'static,
    end: impl Fn() + Send + 'static,
) -> io::Result<()> {
    use std::io::IsTerminal;
    use std::sync::mpsc;
    use std::thread;

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let is_interactive = io::stdin().is_terminal() || io::stderr().is_terminal();
    let (asking, asked) = mpsc::sync_channel(1);
    thread::spawn(move || asked.iter().for_each(|()| reload()));
    thread::spawn(move || {
        for signal in signals.forever() {
            match signal {
                SIGHUP if !is_interactive => drop(asking.try_send(())),
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

#[cfg(test)]
mod tests {
    use shipwatch::daemon::config::Config;

    use super::*;

    #[test]
    fn an_order_stops_the_loop_that_runs_and_one_that_starts_after_it() {
        let plan = || Plan::of(Config::default()).expect("the models are built in");
        let orders = Orders::default();
        let stop = orders.stop();
        assert!(!stop.is_requested());
        orders.reload(plan());
        assert!(stop.is_requested() && orders.next().is_some());
        assert!(!orders.stop().is_requested());
        // Between two loops.
        orders.reload(plan());
        assert!(orders.stop().is_requested() && orders.next().is_some());
        orders.reload(plan());
        orders.end();
        assert!(orders.stop().is_requested() && orders.is_ending());
        assert!(orders.next().is_none());
    }
}

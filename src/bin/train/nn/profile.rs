//! Where a step's time goes: wall time by operator, kept only once asked for.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

static ON: AtomicBool = AtomicBool::new(false);
static TIMES: Mutex<BTreeMap<&'static str, (usize, Duration)>> = Mutex::new(BTreeMap::new());

/// What one operator took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) calls: usize,
    pub(crate) time: Duration,
}

/// From now on [`timed`] keeps times.
pub(crate) fn start() {
    ON.store(true, Ordering::Relaxed);
}

/// All operators so far, the slowest first.
pub(crate) fn entries() -> Vec<Entry> {
    let times = TIMES
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut entries: Vec<Entry> = times
        .iter()
        .map(|(&name, &(calls, time))| Entry { name, calls, time })
        .collect();
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.time));
    entries
}

/// Runs `work` and counts its time under `name`.
pub(crate) fn timed<T>(name: &'static str, work: impl FnOnce() -> T) -> T {
    if !ON.load(Ordering::Relaxed) {
        return work();
    }
    let start = Instant::now();
    let result = work();
    let time = start.elapsed();
    let mut times = TIMES
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let entry = times.entry(name).or_default();
    entry.0 += 1;
    entry.1 += time;
    result
}

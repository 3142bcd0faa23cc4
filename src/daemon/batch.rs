//! Frames that are done and not yet committed.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::ledger::{Entry, Key};
use crate::record::FrameRecord;
use crate::source::Origin;

/// How many frames are committed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// So many at most.
    pub frames: usize,
    /// None waits for longer than this.
    pub delay: Duration,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            frames: 32,
            delay: Duration::from_millis(500),
        }
    }
}

/// Frames that are done and not yet committed, or committed and not yet in all outputs.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) entries: Vec<Entry>,
    /// Lanes and frames of the entries.
    pub(super) origins: Vec<(usize, Origin)>,
    keys: HashSet<Key>,
    since: Option<Instant>,
    pub(super) committed: bool,
}

impl Batch {
    pub(super) fn push(
        &mut self,
        lane: usize,
        origin: Origin,
        outcome: Result<FrameRecord, String>,
    ) {
        if !self.keys.insert(origin.key.clone()) {
            return;
        }
        self.since.get_or_insert_with(Instant::now);
        self.entries.push(Entry {
            key: origin.key.clone(),
            stamp: origin.file.as_ref().map(|file| file.stamp),
            outcome,
        });
        self.origins.push((lane, origin));
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.keys.contains(key)
    }

    /// A file that was written anew with the same content is finished as it is now.
    pub(super) fn saw_again(&mut self, origin: Origin) {
        let mut origins = self.origins.iter_mut().map(|(_, origin)| origin);
        if let Some(before) = origins.find(|before| before.key == origin.key) {
            *before = origin;
        }
    }

    pub(super) fn is_due(&self, group: Group) -> bool {
        let late = |since: Instant| since.elapsed() >= group.delay;
        self.entries.len() >= group.frames || self.since.is_some_and(late)
    }

    /// How long to wait for another frame. Nothing waits for company that is not there yet.
    pub(super) fn wait(&self, group: Group, idle: Duration) -> Duration {
        match self.since {
            Some(since) => group.delay.saturating_sub(since.elapsed()).min(idle),
            None => idle,
        }
    }

    /// Records of the frames that have one.
    pub(super) fn records(&self) -> Vec<&FrameRecord> {
        let entries = self.entries.iter();
        entries
            .filter_map(|entry| entry.outcome.as_ref().ok())
            .collect()
    }
}

//! Tells finished files from those that are still being written, and new ones from known ones.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::stamp::Stamp;

/// A writer that was seen to open a file and not to close it is given this many settle times
/// without a change. Hard links and network mounts never report a close. So is a file that looks as if its end
/// were still to come.
const PATIENCE: u32 = 10;

/// A file that cannot be read is tried again this often at least.
const SELDOM: Duration = Duration::from_secs(600);

/// How a file came to notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sighting {
    /// It lay there, its writer unknown.
    Found,
    /// It was created or written to.
    Written,
    /// Its writer closed it, or it was moved into place.
    Closed,
}

#[derive(Debug)]
struct Waiting {
    stamp: Stamp,
    unchanged_since: Instant,
    open: bool,
}

/// A file that could not be read.
#[derive(Debug)]
struct Postponed {
    due: Instant,
    /// How long it waits the next time.
    wait: Duration,
}

/// Files on their way from first sight to being handed out, once per version. Reads no clock and
/// no file: the caller says what it sees and when.
#[derive(Debug)]
pub(super) struct Settling {
    settle: Duration,
    waiting: BTreeMap<PathBuf, Waiting>,
    handed_out: HashMap<PathBuf, Stamp>,
    /// Versions that were handed out and did not look whole.
    doubted: HashMap<PathBuf, Stamp>,
    postponed: HashMap<PathBuf, Postponed>,
}

impl Settling {
    /// Files count as whole once they have not changed for `settle`.
    pub(super) fn new(settle: Duration) -> Self {
        Self {
            settle,
            waiting: BTreeMap::new(),
            handed_out: HashMap::new(),
            doubted: HashMap::new(),
            postponed: HashMap::new(),
        }
    }

    /// Files that are not yet handed out; those that could not be read are not among them.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Notes that `path` was seen; `stamp` is `None` where it is gone.
    pub(super) fn saw(&mut self, path: PathBuf, stamp: Option<Stamp>, how: Sighting, now: Instant) {
        let Some(stamp) = stamp else {
            self.waiting.remove(&path);
            return;
        };
        if self.handed_out.get(&path) == Some(&stamp) && !self.waiting.contains_key(&path) {
            return;
        }
        let entry = self.waiting.entry(path).or_insert(Waiting {
            stamp,
            unchanged_since: now,
            open: false,
        });
        if entry.stamp != stamp {
            entry.stamp = stamp;
            entry.unchanged_since = now;
        }
        match how {
            Sighting::Found => {}
            Sighting::Written => entry.open = true,
            Sighting::Closed => entry.open = false,
        }
    }

    /// Has a file that was handed out wait once more, because it does not look whole: its writer may have paused.
    /// False if this version has done so already.
    pub(super) fn doubt(&mut self, path: &Path, now: Instant) -> bool {
        let Some(&stamp) = self.handed_out.get(path) else {
            return false;
        };
        if self.doubted.insert(path.to_owned(), stamp) == Some(stamp) {
            return false;
        }
        self.handed_out.remove(path);
        let waiting = Waiting {
            stamp,
            unchanged_since: now,
            open: true,
        };
        self.waiting.insert(path.to_owned(), waiting);
        true
    }

    /// Has a file that cannot be read handed out again after a while, and after twice as long each time it still
    /// cannot. False if it is known to be unreadable.
    pub(super) fn postpone(&mut self, path: &Path, wait: Duration, now: Instant) -> bool {
        let before = self.postponed.get(path).map(|before| before.wait);
        let wait = before.unwrap_or(wait);
        let postponed = Postponed {
            due: now + wait,
            wait: wait.max(SELDOM.min(2 * wait)),
        };
        self.postponed.insert(path.to_owned(), postponed);
        before.is_none()
    }

    /// Notes that a file can be read.
    pub(super) fn could_read(&mut self, path: &Path) {
        self.postponed.remove(path);
    }

    /// Notes that the rights of a file changed: one that could not be read is tried at once.
    pub(super) fn saw_rights(&mut self, path: &Path, now: Instant) {
        if let Some(postponed) = self.postponed.get_mut(path) {
            postponed.due = now;
        }
    }

    /// When [`Self::take`] may next have something.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let waiting = self.waiting.values().map(|file| self.due(file));
        let postponed = self.postponed.values().map(|file| file.due);
        waiting.chain(postponed).min()
    }

    /// Hands out the first file by path that has settled. `stamp` looks at a file once more: one
    /// that changed meanwhile goes on waiting, one that is gone is forgotten.
    pub(super) fn take(
        &mut self,
        now: Instant,
        stamp: impl Fn(&Path) -> Option<Stamp>,
    ) -> Option<PathBuf> {
        let mut postponed = self.postponed.iter_mut();
        if let Some((path, file)) = postponed.find(|(_, file)| file.due <= now) {
            file.due = now + file.wait;
            return Some(path.clone());
        }
        loop {
            let mut waiting = self.waiting.iter();
            let (path, file) = waiting.find(|(_, file)| self.due(file) <= now)?;
            let (path, before, after) = (path.clone(), file.stamp, stamp(path));
            if after == Some(before) {
                self.waiting.remove(&path);
                self.handed_out.insert(path.clone(), before);
                return Some(path);
            }
            self.saw(path, after, Sighting::Found, now);
        }
    }

    /// Forgets files that a complete search did not find, so that memory does not grow with every
    /// file that ever was.
    pub(super) fn retain(&mut self, found: &BTreeSet<PathBuf>) {
        self.waiting.retain(|path, _| found.contains(path));
        self.handed_out.retain(|path, _| found.contains(path));
        self.doubted.retain(|path, _| found.contains(path));
        self.postponed.retain(|path, _| found.contains(path));
    }

    fn due(&self, file: &Waiting) -> Instant {
        let quiet = if file.open {
            self.settle * PATIENCE
        } else {
            self.settle
        };
        file.unchanged_since + quiet
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const SETTLE: Duration = Duration::from_secs(1);

    fn stamp(length: u64) -> Option<Stamp> {
        Some(Stamp {
            length,
            modified: SystemTime::UNIX_EPOCH,
            inode: 1,
        })
    }

    fn path() -> PathBuf {
        PathBuf::from("a.jpg")
    }

    #[test]
    fn a_file_is_handed_out_once_per_version() {
        let (mut files, start) = (Settling::new(SETTLE), Instant::now());
        files.saw(path(), stamp(5), Sighting::Found, start);
        assert_eq!(files.take(start, |_| stamp(5)), None, "not settled yet");
        assert_eq!(files.take(start + SETTLE, |_| stamp(5)), Some(path()));
        files.saw(path(), stamp(5), Sighting::Closed, start + SETTLE);
        assert_eq!(files.waiting(), 0, "the same version again");
        files.saw(path(), stamp(6), Sighting::Found, start + SETTLE);
        assert_eq!(
            files.take(start + 2 * SETTLE, |_| stamp(6)),
            Some(path()),
            "a new version"
        );
    }

    #[test]
    fn a_growing_file_goes_on_waiting() {
        let (mut files, start) = (Settling::new(SETTLE), Instant::now());
        files.saw(path(), stamp(5), Sighting::Found, start);
        assert_eq!(
            files.take(start + SETTLE, |_| stamp(9)),
            None,
            "it grew unnoticed"
        );
        assert_eq!(files.next_due(), Some(start + 2 * SETTLE));
        assert_eq!(files.take(start + 2 * SETTLE, |_| stamp(9)), Some(path()));
    }

    #[test]
    fn an_open_file_is_given_patience_until_it_is_closed() {
        let (mut files, start) = (Settling::new(SETTLE), Instant::now());
        files.saw(path(), stamp(5), Sighting::Written, start);
        assert_eq!(files.take(start + 5 * SETTLE, |_| stamp(5)), None);
        files.saw(path(), stamp(9), Sighting::Closed, start + 5 * SETTLE);
        assert_eq!(files.take(start + 6 * SETTLE, |_| stamp(9)), Some(path()));

        files.saw(path(), stamp(20), Sighting::Written, start);
        let patience = start + PATIENCE * SETTLE;
        assert_eq!(
            files.take(patience, |_| stamp(20)),
            Some(path()),
            "a close that never comes"
        );
    }

    #[test]
    fn a_file_that_does_not_look_whole_waits_once_for_each_version() {
        let (mut files, start) = (Settling::new(SETTLE), Instant::now());
        files.saw(path(), stamp(5), Sighting::Found, start);
        let first = start + SETTLE;
        assert_eq!(files.take(first, |_| stamp(5)), Some(path()));
        assert!(files.doubt(&path(), first));
        assert_eq!(files.waiting(), 1);
        let patience = first + PATIENCE * SETTLE;
        let early = patience - SETTLE;
        assert_eq!(files.take(early, |_| stamp(5)), None);
        assert_eq!(files.take(patience, |_| stamp(5)), Some(path()));
        assert!(!files.doubt(&path(), patience), "it had its time");
        files.saw(path(), stamp(6), Sighting::Closed, patience);
        let later = patience + SETTLE;
        assert_eq!(files.take(later, |_| stamp(6)), Some(path()));
        assert!(files.doubt(&path(), later), "another version");
        assert!(!files.doubt(Path::new("b.jpg"), later), "never handed out");
    }

    #[test]
    fn an_unreadable_file_is_tried_less_and_less_often() {
        let (mut files, start) = (Settling::new(SETTLE), Instant::now());
        files.saw(path(), stamp(5), Sighting::Found, start);
        let mut now = start + SETTLE;
        assert_eq!(files.take(now, |_| stamp(5)), Some(path()));
        for (nth, seconds) in [30, 60, 120, 240, 480, 600, 600].into_iter().enumerate() {
            assert_eq!(files.postpone(&path(), 30 * SETTLE, now), nth == 0);
            assert_eq!(files.waiting(), 0);
            let due = now + seconds * SETTLE;
            assert_eq!(files.next_due(), Some(due));
            assert_eq!(files.take(due - SETTLE, |_| stamp(5)), None);
            assert_eq!(files.take(due, |_| stamp(5)), Some(path()));
            now = due;
        }
        files.postpone(&path(), SETTLE, now);
        files.saw_rights(&path(), now);
        assert_eq!(files.take(now, |_| stamp(5)), Some(path()));
        files.could_read(&path());
        assert_eq!(files.next_due(), None);
        assert!(files.postpone(&path(), SETTLE, now), "news again");
        files.retain(&BTreeSet::new());
        assert_eq!(files.next_due(), None);
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let (mut files, start) = (Settling::new(SETTLE), Instant::now());
        files.saw(path(), stamp(5), Sighting::Found, start);
        assert_eq!(files.take(start + SETTLE, |_| None), None);
        assert_eq!(files.waiting(), 0);
        files.saw(path(), stamp(5), Sighting::Found, start);
        assert_eq!(files.take(start + SETTLE, |_| stamp(5)), Some(path()));
        files.retain(&BTreeSet::new());
        files.saw(path(), stamp(5), Sighting::Found, start);
        assert_eq!(files.waiting(), 1, "came back after it was gone");
    }
}

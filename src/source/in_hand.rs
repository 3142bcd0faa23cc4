//! Files that the process has in hand, marked where a power cut leaves nothing. What is in hand at two unclean ends
//! is looked at in a process of its own from then on, and condemned only if that dies.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::{info, warn};
use sha2::{Digest as _, Sha256};

use crate::ledger::Key;
use crate::record::FrameRecord;

/// At so many unclean ends with a file in hand, it is tried alone.
const ENDS: u32 = 2;

/// Ends of the names of marks: of a file in hand, and of one that was in hand at unclean ends.
const HAND: &str = "hand";
const ENDED: &str = "ended";

/// What a process that looked at a file alone said of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// What it shows: this process need not look.
    Seen(Box<FrameRecord>),
    /// Why it is no frame.
    Broken(String),
    /// The process died of it, and how.
    Deadly(String),
    /// Nothing: it could not be tried, or the trial was ended by others.
    Unknown,
}

/// Looks at a file of the source of that name in a process of its own.
pub type Trial = Box<dyn Fn(&str, &Path) -> Verdict + Send + Sync>;

/// The marks of files in hand, of one process.
#[derive(Default)]
pub struct Marks {
    /// None where nothing is marked.
    folder: Option<PathBuf>,
    /// Marks of files that were in hand at unclean ends, and at how many.
    suspects: HashMap<PathBuf, u32>,
    /// Since when each mark is held, by a number of its own.
    held: Mutex<BTreeMap<u64, Instant>>,
}

impl Marks {
    /// Marks files in a folder, which is made. What lies there of files that were in hand when the process before
    /// this one ended is counted: a process opens its marks once. By default nothing is marked.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        for entry in fs::read_dir(folder)? {
            let hand = entry?.path();
            if hand.extension().is_some_and(|end| end == HAND) {
                let ended = hand.with_extension(ENDED);
                fs::write(&ended, format!("{}", ends(&ended) + 1))?;
                fs::remove_file(&hand)?;
            }
        }
        let mut suspects = HashMap::new();
        for entry in fs::read_dir(folder)? {
            let ended = entry?.path();
            if ended.extension().is_some_and(|end| end == ENDED) {
                suspects.insert(ended.clone(), ends(&ended));
            }
        }
        Ok(Self {
            folder: Some(folder.to_owned()),
            suspects,
            held: Mutex::default(),
        })
    }
}

/// Files in hand, and how those are tried that are suspected.
pub struct InHand {
    marks: Arc<Marks>,
    trial: Trial,
}

impl InHand {
    /// Marks files, and tries those that were in hand at unclean ends.
    pub fn new(marks: Arc<Marks>, trial: Trial) -> Self {
        Self { marks, trial }
    }

    /// Marks nothing and suspects nothing.
    pub fn none() -> Self {
        Self::new(Arc::default(), Box::new(|_, _| Verdict::Unknown))
    }

    /// Marks a file as long as the mark is held.
    pub fn mark(&self, key: &Key) -> Mark {
        let path = self.path(key, HAND);
        if let Some(path) = &path
            && let Err(error) = fs::write(path, "")
        {
            warn!("{}: cannot be written: {error}", path.display());
        }
        let mut held = lock(&self.marks.held);
        let number = held.last_key_value().map_or(0, |(last, _)| last + 1);
        held.insert(number, Instant::now());
        Mark {
            path,
            number,
            marks: Arc::clone(&self.marks),
        }
    }

    /// For how long the file has been in hand that has been so the longest.
    pub fn longest(&self) -> Duration {
        let held = lock(&self.marks.held);
        let first = held.first_key_value();
        first.map_or(Duration::ZERO, |(_, since)| since.elapsed())
    }

    /// What a process of its own says of a file that was in hand at unclean ends; none of a file that is not under
    /// suspicion, or could not be tried.
    pub fn tries(&self, key: &Key, path: &Path) -> Option<Result<FrameRecord, String>> {
        let (_, ends) = self.suspect(key)?;
        if ends < ENDS {
            return None;
        }
        let shown = path.display();
        info!(
            "{shown}: was in hand when shipwatch ended uncleanly, {ends} times; it is tried alone"
        );
        match (self.trial)(&key.source, path) {
            Verdict::Seen(record) => Some(Ok(*record)),
            Verdict::Broken(problem) => Some(Err(problem)),
            Verdict::Deadly(how) => Some(Err(format!(
                "{shown}: shipwatch ended uncleanly {ends} times with it in hand, and alone with it {how}"
            ))),
            Verdict::Unknown => {
                warn!("{shown}: could not be tried alone");
                None
            }
        }
    }

    /// A file is done: what was held against it is forgotten.
    pub fn acquit(&self, key: &Key) {
        if let Some((ended, _)) = self.suspect(key) {
            // If it stays, the worst is that the file is tried once more.
            let _ = fs::remove_file(ended);
        }
    }

    /// The mark of a file that was in hand at unclean ends, and at how many. Hardly any process has one.
    fn suspect(&self, key: &Key) -> Option<(PathBuf, u32)> {
        if self.marks.suspects.is_empty() {
            return None;
        }
        let ended = self.path(key, ENDED)?;
        let ends = *self.marks.suspects.get(&ended)?;
        Some((ended, ends))
    }

    fn path(&self, key: &Key, end: &str) -> Option<PathBuf> {
        let folder = self.marks.folder.as_ref()?;
        let mut hasher = Sha256::new();
        hasher.update(&key.source);
        hasher.update([0]);
        hasher.update(key.name.as_os_str().as_encoded_bytes());
        hasher.update([0]);
        hasher.update(key.digest);
        let mut name = String::new();
        for byte in &hasher.finalize()[..16] {
            write!(name, "{byte:02x}").expect("memory takes it");
        }
        Some(folder.join(name).with_extension(end))
    }
}

fn ends(path: &Path) -> u32 {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says that a file is in hand, until it is dropped.
#[must_use]
pub struct Mark {
    path: Option<PathBuf>,
    number: u64,
    marks: Arc<Marks>,
}

impl Drop for Mark {
    fn drop(&mut self) {
        lock(&self.marks.held).remove(&self.number);
        if let Some(path) = &self.path {
            // If it stays, the worst is that the file is tried once more.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::sink::sample_record;

    fn key(name: &str) -> Key {
        Key {
            source: "test".into(),
            name: name.into(),
            digest: [0; 32],
        }
    }

    #[test]
    fn a_file_is_tried_after_two_unclean_ends_until_it_is_acquitted() {
        let folder = tempfile::tempdir().expect("folder");
        let marks = folder.path().join("in-hand");
        let trials = Arc::new(AtomicUsize::new(0));
        let open = |verdict: Verdict| {
            let trials = Arc::clone(&trials);
            let trial = move |source: &str, _: &Path| {
                assert_eq!(source, "test");
                trials.fetch_add(1, Ordering::Relaxed);
                verdict.clone()
            };
            let marks = Marks::open(&marks).expect("opens");
            InHand::new(Arc::new(marks), Box::new(trial))
        };
        let tries = |hand: &InHand, name| hand.tries(&key(name), Path::new(name));
        let deadly = || open(Verdict::Deadly("it died".into()));
        for ends in 0..4 {
            let hand = deadly();
            let said = tries(&hand, "a");
            assert_eq!(said.is_some(), ends >= 2, "{ends}");
            if let Some(said) = said {
                assert!(said.expect_err("is condemned").contains("it died"));
            }
            assert_eq!(tries(&hand, "b"), None);
            drop(hand.mark(&key("b")));
            // As a process that is killed leaves it.
            mem::forget(hand.mark(&key("a")));
        }
        let record = sample_record("a", &["1 2"]);
        let seen = open(Verdict::Seen(Box::new(record.clone())));
        assert_eq!(tries(&seen, "a"), Some(Ok(record)));
        assert_eq!(tries(&open(Verdict::Unknown), "a"), None);
        deadly().acquit(&key("a"));
        assert_eq!(tries(&deadly(), "a"), None);
        assert_eq!(trials.load(Ordering::Relaxed), 4);
        assert_eq!(tries(&InHand::none(), "a"), None);
    }

    #[test]
    fn the_file_that_is_longest_in_hand_is_known() {
        let hand = InHand::none();
        assert_eq!(hand.longest(), Duration::ZERO);
        let first = hand.mark(&key("a"));
        std::thread::sleep(Duration::from_millis(20));
        let second = hand.mark(&key("b"));
        assert!(hand.longest() >= Duration::from_millis(20));
        drop(first);
        assert!(hand.longest() < Duration::from_millis(20));
        drop(second);
        assert_eq!(hand.longest(), Duration::ZERO);
    }
}

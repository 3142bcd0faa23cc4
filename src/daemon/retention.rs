//! What is forgotten, so that no disk fills up.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use log::{info, warn};

use super::output::Outputs;
use super::output::rotated::{self, Rotated};
use crate::ledger::{Ledger, LedgerError, Retention};

/// How often it is looked whether there is anything to forget.
const INTERVAL: Duration = Duration::from_secs(60);

/// After so many frames it is looked as well.
const FRAMES: i64 = 500;

/// How many files that were done last are looked for, to see that a folder is the one that it was.
const FAMILIAR: u32 = 16;

/// How much is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// In the ledger. Its age holds for files of results that are complete as well.
    pub ledger: Retention,
    /// Bytes of files of results that are complete, for each output.
    pub complete: u64,
    /// Bytes of a disk that are never used.
    pub reserve: u64,
    /// Folders, by the names of their sources.
    pub folders: Vec<Folder>,
}

/// The folder of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// The source's name.
    pub source: String,
    /// The folder.
    pub path: PathBuf,
    /// Whether files stay there when they are done.
    pub keeps: bool,
}

impl Keep {
    /// All is kept, and all of a disk is used.
    pub fn all() -> Self {
        Self {
            ledger: Retention {
                age: None,
                bytes: u64::MAX,
            },
            complete: u64::MAX,
            reserve: 0,
            folders: Vec::new(),
        }
    }
}

/// Forgets, now and then.
pub(super) struct Forgetting {
    keep: Keep,
    next: Instant,
    /// The last frame that was written when it was looked last.
    written: i64,
    trouble: bool,
}

impl Forgetting {
    pub(super) fn new(keep: Keep) -> Self {
        Self {
            keep,
            next: Instant::now(),
            written: 0,
            trouble: false,
        }
    }

    /// Does a step, if it is time for one; nothing goes for its age unless `by_age` says that ages are right. What
    /// cannot be forgotten now is tried again later.
    pub(super) fn step(&mut self, ledger: &mut Ledger, outputs: &Outputs, by_age: bool) {
        let written = outputs.written();
        if self.next > Instant::now() && written - self.written < FRAMES {
            return;
        }
        self.written = written;
        let age = self.keep.ledger.age.filter(|_| by_age);
        for path in outputs.files() {
            forget_complete(path, self.keep.complete, age);
        }
        let more = self.forget_frames(ledger, written, age);
        match &more {
            Ok(_) => self.trouble = false,
            Err(error) if !self.trouble => {
                warn!("nothing can be forgotten, tried again and again: {error}");
                self.trouble = true;
            }
            Err(_) => {}
        }
        let pause = match more {
            // A step at a time, so that no frame waits for long.
            Ok(true) => Duration::ZERO,
            _ => INTERVAL,
        };
        self.next = Instant::now() + pause;
    }

    fn forget_frames(
        &self,
        ledger: &mut Ledger,
        written: i64,
        age: Option<Duration>,
    ) -> Result<bool, LedgerError> {
        // Folders are looked at only where files may have to be forgotten.
        let mut familiar = Vec::new();
        if ledger.exceeds(&self.keep.ledger)? {
            for folder in &self.keep.folders {
                if folder.is_familiar(ledger)? {
                    familiar.push(folder);
                }
            }
        }
        let is_gone = |source: &str, name: &Path| {
            let folder = familiar.iter().find(|folder| folder.source == source);
            folder.is_some_and(|folder| folder.has_lost(name))
        };
        let retention = Retention {
            age,
            ..self.keep.ledger
        };
        ledger.forget(&retention, written, &is_gone)
    }
}

/// Deletes complete files of the output at `path`, of which so many bytes may stay, none older than `age`.
fn forget_complete(path: &Path, bytes: u64, age: Option<Duration>) {
    let Ok(files) = rotated::list(path) else {
        return;
    };
    for Rotated { path, .. } in too_much(&files, bytes, age, SystemTime::now()) {
        match fs::remove_file(path) {
            Ok(()) => info!("{}: is deleted, as [retention] has it", path.display()),
            Err(error) => warn!("{}: cannot be deleted: {error}", path.display()),
        }
    }
}

impl Folder {
    /// Whether it is sure that files which are not in this folder are gone: a disk that is not mounted has none,
    /// and they would come again.
    fn is_familiar(&self, ledger: &Ledger) -> Result<bool, LedgerError> {
        if self.path.read_dir().is_err() {
            return Ok(false);
        }
        let lies_there = |name: &PathBuf| self.path.join(name).exists();
        Ok(!self.keeps
            || ledger
                .last_files(&self.source, FAMILIAR)?
                .iter()
                .any(lies_there))
    }

    /// Whether it is sure that a file which was kept is gone, once the folder is familiar. What cannot be looked at
    /// now, for want of rights or of a network, is not, nor is what lay below in a folder that is empty.
    fn has_lost(&self, name: &Path) -> bool {
        let path = self.path.join(name);
        let is_missing = |error: io::Error| error.kind() == io::ErrorKind::NotFound;
        path.symlink_metadata().is_err_and(is_missing)
            && !(self.keeps && path.parent().is_some_and(is_empty))
    }
}

/// Whether it is a folder in which nothing lies, as that of a disk which is not mounted.
fn is_empty(folder: &Path) -> bool {
    folder
        .read_dir()
        .is_ok_and(|mut entries| entries.next().is_none())
}

/// Those of the files, from the oldest on, that are too old or too many.
fn too_much(files: &[Rotated], bytes: u64, age: Option<Duration>, now: SystemTime) -> &[Rotated] {
    let mut left: u64 = files.iter().map(|file| file.bytes).sum();
    let count = files.iter().take_while(|file| {
        let is_much = left > bytes;
        left -= file.bytes;
        let past = now.duration_since(file.modified).unwrap_or_default();
        is_much || age.is_some_and(|most| past > most)
    });
    &files[..count.count()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Entry, Key};
    use crate::source::stamp::Stamp;

    #[test]
    fn complete_files_go_by_age_and_by_size() {
        let now = SystemTime::now();
        let file = |number, bytes, seconds| Rotated {
            path: PathBuf::new(),
            number,
            bytes,
            modified: now - Duration::from_secs(seconds),
        };
        let files = [file(1, 10, 50), file(2, 10, 40), file(3, 10, 30)];
        let count = |bytes, age: Option<u64>| {
            let age = age.map(Duration::from_secs);
            too_much(&files, bytes, age, now).len()
        };
        assert_eq!(count(u64::MAX, None), 0);
        assert_eq!(
            [30, 29, 20, 19, 0].map(|bytes| count(bytes, None)),
            [0, 1, 1, 2, 3]
        );
        let ages = [Some(60), Some(45), Some(35), Some(1)];
        assert_eq!(ages.map(|age| count(u64::MAX, age)), [0, 1, 2, 3]);
    }

    #[test]
    fn a_file_is_gone_only_from_where_one_can_see() {
        let folder = tempfile::tempdir().expect("folder");
        let mut watched = Folder {
            source: "test".into(),
            path: folder.path().to_owned(),
            keeps: true,
        };
        fs::create_dir(folder.path().join("disk")).expect("creates");
        fs::write(folder.path().join("file"), "").expect("writes");
        let lost = |watched: &Folder, name| watched.has_lost(Path::new(name));
        assert!(!lost(&watched, "file"));
        assert!(lost(&watched, "a") && lost(&watched, "no-folder/a"));
        assert!(!lost(&watched, "disk/a"), "may be a mount point");
        // The system does not say that it is missing, but that nothing can lie there.
        assert!(!lost(&watched, "file/a"));
        fs::write(folder.path().join("disk/b"), "").expect("writes");
        assert!(lost(&watched, "disk/a"));
        fs::remove_file(folder.path().join("disk/b")).expect("removes");
        watched.keeps = false;
        assert!(lost(&watched, "disk/a"));
    }

    #[test]
    fn an_empty_folder_says_nothing_of_files_that_were_kept_there() {
        let folder = tempfile::tempdir().expect("folder");
        let mut ledger = Ledger::open(&folder.path().join("ledger")).expect("opens");
        let mut watched = Folder {
            source: "test".into(),
            path: folder.path().join("in"),
            keeps: true,
        };
        let familiar = |watched: &Folder| watched.is_familiar(&ledger).expect("looks");
        assert!(!familiar(&watched), "is not there");
        fs::create_dir(&watched.path).expect("creates");
        assert!(!familiar(&watched), "may be a mount point");
        let entry = |name: &str| Entry {
            key: Key {
                source: "test".into(),
                name: name.into(),
                digest: [0; 32],
            },
            stamp: Some(Stamp {
                length: 1,
                modified: SystemTime::now(),
                inode: 1,
            }),
            outcome: Err("is broken".into()),
        };
        ledger
            .commit(&mut [entry("a"), entry("b")], None)
            .expect("commits");
        let familiar = |watched: &Folder| watched.is_familiar(&ledger).expect("looks");
        fs::write(watched.path.join("other"), "").expect("writes");
        assert!(!familiar(&watched));
        fs::write(watched.path.join("a"), "").expect("writes");
        assert!(familiar(&watched));
        fs::remove_file(watched.path.join("a")).expect("removes");
        watched.keeps = false;
        assert!(familiar(&watched), "files are meant to go");
    }
}

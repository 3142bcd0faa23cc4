//! What becomes of files whose frames are done, now or when it can be done.

use std::collections::VecDeque;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use log::warn;

use super::space::{self, Short};
use crate::source::finish::{Finish, set_aside};
use crate::source::{Origin, SourceFile};

/// How long after a file could not be moved or deleted it is tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// For how long files are tried again in a row, while frames wait.
const SLICE: Duration = Duration::from_millis(200);

/// What becomes of the files of a feed.
pub(super) struct Fate {
    pub(super) finish: Finish,
    pub(super) failed: Option<PathBuf>,
    /// Bytes of a disk that are never used.
    pub(super) reserve: u64,
}

impl Fate {
    /// Keeps, moves or deletes a file; one with a `problem` is set aside, if there is a folder for that, and else
    /// stays where it is. A file that changed meanwhile is left alone: it will come again. False if it could not
    /// be done.
    fn decide(&self, Origin { key, file }: &Origin, problem: Option<&str>) -> bool {
        let Some(SourceFile { path, stamp }) = file else {
            return true;
        };
        let (name, digest) = (&key.name, &key.digest);
        let to = match (problem, &self.finish) {
            (Some(_), _) => self.failed.as_ref(),
            (None, Finish::Move(folder)) => Some(folder),
            (None, Finish::Keep | Finish::Delete) => None,
        };
        if let Some(to) = to
            && let Err(short) = room(path, stamp.length, to, self.reserve)
        {
            warn!("{}: stays where it is: {short}", path.display());
            return false;
        }
        let decided = match (problem, &self.failed) {
            (None, _) => self.finish.finish(path, name, digest, stamp),
            (Some(problem), Some(folder)) => set_aside(path, name, digest, stamp, folder, problem),
            (Some(_), None) => Ok(()),
        };
        if let Err(error) = &decided {
            warn!("{}: stays where it is: {error}", path.display());
        }
        decided.is_ok()
    }
}

/// Whether a file of that length fits into a folder without the reserve, if it lies on another disk.
fn room(file: &Path, length: u64, folder: &Path, reserve: u64) -> Result<(), Short> {
    let disk = |path: &Path| {
        let there = path.ancestors().find_map(|path| path.metadata().ok());
        there.map(|there| device(&there))
    };
    match disk(file) == disk(folder) {
        true => Ok(()),
        false => space::check([folder], reserve.saturating_add(length)),
    }
}

#[cfg(unix)]
fn device(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::dev(metadata)
}

#[cfg(not(unix))]
fn device(_: &Metadata) -> u64 {
    0
}

/// The fates of the files of all feeds, and files that still lie there although they are done.
pub(super) struct Fates {
    fates: Vec<Fate>,
    /// Lanes and files, and what is wrong with those that are broken.
    undecided: VecDeque<(usize, Origin, Option<String>)>,
    /// When these are tried again.
    next: Instant,
    /// How many are left of those that are tried again now.
    left: usize,
}

impl Fates {
    pub(super) fn new(fates: Vec<Fate>) -> Self {
        Self {
            fates,
            undecided: VecDeque::new(),
            next: Instant::now(),
            left: 0,
        }
    }

    /// Decides on a file, or puts that off if it cannot be done.
    pub(super) fn decide(&mut self, lane: usize, origin: Origin, problem: Option<String>) {
        if !self.fates[lane].decide(&origin, problem.as_deref()) {
            self.next = Instant::now() + AGAIN;
            self.undecided.push_back((lane, origin, problem));
        }
    }

    /// Decides on a file that is done as soon as there is time.
    pub(super) fn put_off(&mut self, lane: usize, origin: Origin, problem: Option<String>) {
        self.next = Instant::now();
        self.undecided.push_back((lane, origin, problem));
    }

    /// Tries again, now and then, what was put off; of many files some at a time.
    pub(super) fn decide_again(&mut self) {
        if self.left == 0 && self.next <= Instant::now() {
            self.left = self.undecided.len();
            self.next = Instant::now() + AGAIN;
        }
        let start = Instant::now();
        while self.left > 0 && start.elapsed() < SLICE {
            self.left -= 1;
            if let Some((lane, origin, problem)) = self.undecided.pop_front()
                && !self.fates[lane].decide(&origin, problem.as_deref())
            {
                self.undecided.push_back((lane, origin, problem));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::ledger::Key;
    use crate::source::stamp::Stamp;

    #[test]
    fn what_cannot_be_moved_is_tried_again() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a"), "a").expect("writes");
        let mut fates = Fates::new(vec![Fate {
            finish: Finish::Move(path("done")),
            failed: None,
            reserve: 0,
        }]);
        let origin = Origin {
            key: Key {
                source: "test".into(),
                name: "a".into(),
                digest: [0; 32],
            },
            file: Some(SourceFile {
                stamp: Stamp::of(&path("a")).expect("is there"),
                path: path("a"),
            }),
        };
        // A file lies where the folder should.
        fs::write(path("done"), "in the way").expect("writes");
        fates.decide(0, origin, None);
        assert!(path("a").exists());
        fs::remove_file(path("done")).expect("removes");
        fates.decide_again();
        assert!(path("a").exists(), "not at once");
        fates.next = Instant::now();
        fates.decide_again();
        assert!(!path("a").exists() && path("done/a").exists());
        assert!(fates.undecided.is_empty());
    }

    #[test]
    fn files_that_cannot_be_moved_hold_nobody_up_and_each_gets_its_turn() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("done"), "in the way").expect("writes");
        let mut fates = Fates::new(vec![Fate {
            finish: Finish::Move(path("done")),
            failed: None,
            reserve: 0,
        }]);
        let names: Vec<_> = (0..100).map(|nth| format!("{nth}")).collect();
        for name in &names {
            fs::write(path(name), name).expect("writes");
            let origin = Origin {
                key: Key {
                    source: "test".into(),
                    name: name.into(),
                    digest: [0; 32],
                },
                file: Some(SourceFile {
                    stamp: Stamp::of(&path(name)).expect("is there"),
                    path: path(name),
                }),
            };
            fates.decide(0, origin, None);
        }
        fs::remove_file(path("done")).expect("removes");
        // Half of them are at their turn.
        fates.left = 50;
        fates.decide_again();
        let left = |fates: &Fates| (fates.undecided.len(), fates.left);
        assert_eq!(left(&fates), (50, 0));
        fates.next = Instant::now();
        fates.decide_again();
        assert_eq!(left(&fates), (0, 0));
        assert!(names.iter().all(|name| path("done").join(name).exists()));
    }

    #[test]
    fn a_copy_to_another_disk_leaves_its_reserve_alone() {
        let folder = tempfile::tempdir().expect("folder");
        let other = Path::new("/dev/shm");
        let path = folder.path().join("a");
        fs::write(&path, "a").expect("writes");
        assert!(room(&path, 1, &folder.path().join("done"), u64::MAX).is_ok());
        let far = tempfile::tempdir_in(other);
        match far.map(|far| room(&path, 1, &far.path().join("done"), u64::MAX)) {
            Ok(Err(short)) => assert!(short.to_string().contains("/dev/shm"), "{short}"),
            _ => println!("SKIPPED: {} is no other disk here", other.display()),
        }
    }
}

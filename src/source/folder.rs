//! A watched folder: files that lie there and files that arrive, each once it is whole.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use log::{debug, info, warn};
use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};

use super::decode::{DecodeErrorKind, DecodeOptions, decode_file, of_file, open_regular};
use super::finish::digest;
use super::in_hand::InHand;
use super::search::{Found, is_hidden, is_image, search};
use super::settle::{Settling, Sighting};
use super::stamp::Stamp;
use super::{Next, Origin, Source, SourceFile};
use crate::ledger::{Digest, LedgerError, Roster};

/// A folder that cannot be read is tried again this soon.
const RETRY: Duration = Duration::from_secs(1);

/// Events that wait; of more, none is kept, and the folder is searched instead.
const EVENTS: usize = 4096;

/// How a folder is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FolderOptions {
    /// Whether folders below are watched too. Symbolic links to folders are not followed.
    pub recursive: bool,
    /// A file is whole once it has not changed for this long.
    pub settle: Duration,
    /// The folder is searched this often besides, because network mounts report no events.
    pub rescan: Duration,
}

impl Default for FolderOptions {
    fn default() -> Self {
        Self {
            recursive: false,
            settle: Duration::from_millis(500),
            rescan: Duration::from_secs(30),
        }
    }
}

/// Why a folder cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Nothing is there.
    #[error("{path}: no such folder; create it by `mkdir -p {path}`", path = .0.display())]
    Missing(PathBuf),
    /// Something else is there, or it may not be listed.
    #[error("{path}: cannot be read as a folder: {source}", path = .path.display())]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Image files of a folder by their usual extensions, in the order in which they settle.
///
/// Files already there count. Hidden files and folders and the names that transfers use for
/// unfinished files (`.part`, `.tmp`, `.filepart`, `.crdownload`, `.prog`) are passed over. A file
/// is handed out once; one that changes afterwards is handed out again.
pub struct FolderWatch {
    root: PathBuf,
    options: FolderOptions,
    files: Settling,
    events: Receiver<notify::Result<Event>>,
    sender: SyncSender<notify::Result<Event>>,
    /// Whether events found no room.
    lost: Arc<AtomicBool>,
    /// `None` while the folder cannot be watched: then searching alone finds files.
    watcher: Option<RecommendedWatcher>,
    next_scan: Instant,
    /// Why the folder cannot be searched or watched, as last logged.
    trouble: Option<String>,
    /// Folders below that cannot be read, as last logged.
    unreadable: BTreeSet<PathBuf>,
}

impl FolderWatch {
    /// Begins to watch.
    pub fn open(root: &Path, options: FolderOptions) -> Result<Self, FolderError> {
        root.read_dir().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => FolderError::Missing(root.to_owned()),
            _ => FolderError::Unreadable {
                path: root.to_owned(),
                source,
            },
        })?;
        // Events name absolute paths; searching must name the same.
        let root = std::path::absolute(root).map_err(|source| FolderError::Unreadable {
            path: root.to_owned(),
            source,
        })?;
        let (sender, events) = mpsc::sync_channel(EVENTS);
        Ok(Self {
            root,
            options,
            files: Settling::new(options.settle),
            events,
            sender,
            lost: Arc::default(),
            watcher: None,
            next_scan: Instant::now(),
            trouble: None,
            unreadable: BTreeSet::new(),
        })
    }

    /// The next whole file; `None` if there is none within `timeout`.
    pub fn next(&mut self, timeout: Duration) -> Option<PathBuf> {
        let deadline = Instant::now() + timeout;
        loop {
            let lost = self.lost.swap(false, Ordering::Relaxed);
            if lost || self.next_scan <= Instant::now() {
                self.scan();
            }
            // No more than wait by now: they may come faster than they are handled.
            for _ in 0..EVENTS {
                match self.events.try_recv() {
                    Ok(event) => self.handle(event),
                    Err(_) => break,
                }
            }
            let now = Instant::now();
            if let Some(path) = self.files.take(now, Stamp::of_any) {
                return Some(path);
            }
            if now >= deadline {
                return None;
            }
            let due = self.files.next_due().unwrap_or(deadline);
            let wake = deadline.min(due).min(self.next_scan);
            match self
                .events
                .recv_timeout(wake.saturating_duration_since(now))
            {
                Ok(event) => self.handle(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("self holds a sender"),
            }
        }
    }

    /// A file that was handed out changed while it was read: it is handed out again once it has settled.
    fn look_again(&mut self, path: PathBuf) {
        let stamp = Stamp::of_any(&path);
        self.files.saw(path, stamp, Sighting::Found, Instant::now());
    }

    /// Files seen but not yet handed out; those that could not be read are not among them.
    pub fn waiting(&self) -> usize {
        self.files.waiting()
    }

    /// The path below the watched folder.
    pub fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }

    /// Searches the folder, after arming the watch where it is not: what arrives in between is
    /// then seen twice instead of never.
    fn scan(&mut self) {
        let start = Instant::now();
        self.next_scan = start + self.options.rescan;
        let armed = self.arm();
        let trouble = match (search(&self.root, self.options.recursive), armed) {
            (Err(error), _) => {
                self.watcher = None;
                self.next_scan = start + self.options.rescan.min(RETRY);
                Some(format!("cannot be read, tried again and again: {error}"))
            }
            (Ok(found), armed) => {
                self.note(found);
                let rescan = self.options.rescan;
                armed.err().map(|error| {
                    format!("cannot be watched, searched every {rescan:?} instead: {error}")
                })
            }
        };
        if trouble != self.trouble {
            match &trouble {
                Some(trouble) => warn!("{}: {trouble}", self.root.display()),
                None => info!("{}: watched again", self.root.display()),
            }
            self.trouble = trouble;
        }
    }

    fn arm(&mut self) -> notify::Result<()> {
        if self.watcher.is_some() {
            return Ok(());
        }
        let mode = match self.options.recursive {
            true => RecursiveMode::Recursive,
            false => RecursiveMode::NonRecursive,
        };
        let (sender, lost) = (self.sender.clone(), Arc::clone(&self.lost));
        let mut watcher = notify::recommended_watcher(move |event| {
            if sender.try_send(event).is_err() {
                lost.store(true, Ordering::Relaxed);
            }
        })?;
        watcher.watch(&self.root, mode)?;
        self.watcher = Some(watcher);
        Ok(())
    }

    /// Takes in what a complete search found.
    fn note(&mut self, Found { images, unreadable }: Found) {
        let before = std::mem::take(&mut self.unreadable);
        for (folder, error) in unreadable {
            if !before.contains(&folder) {
                warn!(
                    "{}: passed over until it can be read: {error}",
                    folder.display()
                );
            }
            self.unreadable.insert(folder);
        }
        let now = Instant::now();
        for path in &images {
            self.files
                .saw(path.clone(), Stamp::of_any(path), Sighting::Found, now);
        }
        self.files.retain(&images);
    }

    fn handle(&mut self, event: notify::Result<Event>) {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                warn!(
                    "{}: watching failed, searching again: {error}",
                    self.root.display()
                );
                self.next_scan = Instant::now();
                return;
            }
        };
        if event.need_rescan() {
            debug!("{}: events were lost, searching again", self.root.display());
            self.next_scan = Instant::now();
        }
        let how = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => Sighting::Closed,
            EventKind::Modify(ModifyKind::Name(_)) => Sighting::Closed,
            EventKind::Modify(ModifyKind::Metadata(_)) => {
                let now = Instant::now();
                for path in &event.paths {
                    self.files.saw_rights(path, now);
                }
                return;
            }
            EventKind::Create(CreateKind::Folder) if self.options.recursive => {
                // Files may have come in before the new folder was watched.
                self.next_scan = Instant::now();
                return;
            }
            EventKind::Create(_) | EventKind::Modify(_) | EventKind::Any => Sighting::Written,
            EventKind::Remove(_) => Sighting::Found,
            EventKind::Access(_) | EventKind::Other => return,
        };
        let now = Instant::now();
        for path in event.paths {
            if path == self.root {
                // The folder itself was moved or removed: the watch sits on something gone.
                self.watcher = None;
                self.next_scan = now;
            } else if self.is_candidate(&path) {
                let stamp = Stamp::of_any(&path);
                self.files.saw(path, stamp, how, now);
            } else if self.options.recursive && how == Sighting::Closed && path.is_dir() {
                self.next_scan = now;
            }
        }
    }

    fn is_candidate(&self, path: &Path) -> bool {
        let mut parts = self.relative(path).iter();
        path.file_name().is_some_and(is_image) && !parts.any(is_hidden)
    }
}

/// A [`FolderWatch`] whose files are decoded: the [`Source`] of a daemon.
pub struct FolderFrames {
    watch: FolderWatch,
    decode: DecodeOptions,
    roster: Roster,
    in_hand: Arc<InHand>,
    once: bool,
}

impl FolderFrames {
    /// Frames are named by their path below the watched folder; what the `roster` knows is not decoded, nor what
    /// is tried alone for it was `in_hand` before. With `once`, the source ends when the files that
    /// are there have been handed out.
    pub fn new(
        watch: FolderWatch,
        decode: DecodeOptions,
        roster: Roster,
        in_hand: Arc<InHand>,
        once: bool,
    ) -> Self {
        Self {
            watch,
            decode,
            roster,
            in_hand,
            once,
        }
    }

    /// What the file at `path` is; none if it is not known yet, for then it is handed out once more.
    fn look(&mut self, path: PathBuf) -> Result<Option<Next>, LedgerError> {
        let start = Instant::now();
        let name = self.watch.relative(&path).to_owned();
        let Some(stamp) = Stamp::of(&path) else {
            let problem = open_regular(&path).err();
            return Ok(problem.and_then(|problem| self.refuse(&path, problem, None)));
        };
        let digest = match self.roster.digest(&name, &stamp)? {
            Some(digest) => digest,
            None => match self.digest(&path, &stamp) {
                Ok(digest) => digest,
                Err(problem) => return Ok(self.refuse(&path, problem, None)),
            },
        };
        let origin = Origin {
            key: self.roster.key(&name, digest),
            file: Some(SourceFile {
                path: path.clone(),
                stamp,
            }),
        };
        if let Some(outcome) = self.roster.outcome(&origin.key)? {
            self.watch.files.could_read(&path);
            return Ok(Some(Next::Known { origin, outcome }));
        }
        match self.in_hand.tries(&origin.key, &path) {
            Some(Ok(mut record)) => {
                record.frame = origin.key.name.to_string_lossy().into_owned();
                return Ok(Some(Next::Seen { record, origin }));
            }
            Some(Err(problem)) => {
                let origin = Some(origin);
                return Ok(Some(Next::Broken { problem, origin }));
            }
            None => {}
        }
        let mark = self.in_hand.mark(&origin.key);
        let decoded = decode_file(&path, &self.decode);
        drop(mark);
        if Stamp::of(&path) != Some(stamp) {
            self.watch.look_again(path);
            return Ok(None);
        }
        Ok(match decoded {
            Ok(mut frame) => {
                self.watch.files.could_read(&path);
                frame.name = origin.key.name.to_string_lossy().into_owned();
                Some(Next::Frame {
                    frame,
                    decode: start.elapsed(),
                    origin,
                })
            }
            Err(error) => self.refuse(&path, error.kind, Some(origin)),
        })
    }

    fn digest(&self, path: &Path, stamp: &Stamp) -> Result<Digest, DecodeErrorKind> {
        self.decode.check_length(stamp.length)?;
        digest(open_regular(path)?).map_err(DecodeErrorKind::Io)
    }

    /// Says what is wrong with a file, unless it is gone, known to be unreadable, or may become whole.
    fn refuse(
        &mut self,
        path: &Path,
        problem: DecodeErrorKind,
        origin: Option<Origin>,
    ) -> Option<Next> {
        let now = Instant::now();
        let files = &mut self.watch.files;
        let is_news = match &problem {
            DecodeErrorKind::Io(_) if path.symlink_metadata().is_err_and(is_missing) => false,
            DecodeErrorKind::Io(_) => files.postpone(path, self.watch.options.rescan, now),
            _ => {
                files.could_read(path);
                !(problem.is_lasting() && files.doubt(path, now))
            }
        };
        is_news.then(|| Next::Broken {
            origin: origin.filter(|_| problem.is_lasting()),
            problem: of_file(path, problem).to_string(),
        })
    }
}

fn is_missing(error: io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

impl Source for FolderFrames {
    fn next(&mut self, timeout: Duration) -> Result<Next, LedgerError> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(path) = self.watch.next(left) else {
                let drained = self.once && self.watch.waiting() == 0;
                return Ok(if drained { Next::End } else { Next::Idle });
            };
            if let Some(next) = self.look(path)? {
                return Ok(next);
            }
        }
    }

    fn trouble(&self) -> Option<String> {
        self.watch.trouble.clone()
    }

    fn backlog(&self) -> usize {
        self.watch.waiting()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const SOON: Duration = Duration::from_secs(5);
    const NEVER: Duration = Duration::from_millis(300);

    fn watch(root: &Path, recursive: bool) -> FolderWatch {
        let settle = Duration::from_millis(50);
        let rescan = Duration::from_secs(3600);
        FolderWatch::open(
            root,
            FolderOptions {
                recursive,
                settle,
                rescan,
            },
        )
        .expect("opens")
    }

    fn name(watch: &mut FolderWatch, timeout: Duration) -> Option<String> {
        let path = watch.next(timeout)?;
        Some(watch.relative(&path).display().to_string())
    }

    #[test]
    fn present_and_arriving_files_come_once() {
        let dir = tempfile::tempdir().expect("folder");
        fs::write(dir.path().join("b.jpg"), "x").expect("writes");
        fs::write(dir.path().join("a.png"), "x").expect("writes");
        let mut watch = watch(dir.path(), false);
        assert_eq!(name(&mut watch, SOON).as_deref(), Some("a.png"));
        assert_eq!(name(&mut watch, SOON).as_deref(), Some("b.jpg"));
        fs::write(dir.path().join("c.tif"), "x").expect("writes");
        assert_eq!(name(&mut watch, SOON).as_deref(), Some("c.tif"));
        assert_eq!(name(&mut watch, NEVER), None);
    }

    #[test]
    fn unfinished_and_foreign_names_wait_for_their_rename() {
        let dir = tempfile::tempdir().expect("folder");
        let mut watch = watch(dir.path(), false);
        for ignored in [
            ".a.jpg",
            "a.jpg.part",
            "a.tmp",
            "a.filepart",
            "a.crdownload",
            "a.prog",
            "a.txt",
        ] {
            fs::write(dir.path().join(ignored), "x").expect("writes");
        }
        assert_eq!(name(&mut watch, NEVER), None);
        fs::rename(dir.path().join("a.jpg.part"), dir.path().join("a.jpg")).expect("renames");
        assert_eq!(name(&mut watch, SOON).as_deref(), Some("a.jpg"));
    }

    #[test]
    fn a_file_deleted_before_it_settled_is_skipped() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("a.jpg");
        fs::write(&path, "x").expect("writes");
        let mut watch = watch(dir.path(), false);
        assert_eq!(name(&mut watch, Duration::ZERO), None);
        assert_eq!(watch.waiting(), 1);
        fs::remove_file(&path).expect("removes");
        assert_eq!(name(&mut watch, NEVER), None);
        assert_eq!(watch.waiting(), 0);
    }

    #[test]
    fn folders_below_are_entered_only_when_asked() {
        let dir = tempfile::tempdir().expect("folder");
        let mut flat = watch(dir.path(), false);
        let mut deep = watch(dir.path(), true);
        assert_eq!(
            (
                name(&mut flat, Duration::ZERO),
                name(&mut deep, Duration::ZERO)
            ),
            (None, None)
        );
        for folder in ["north/pier", ".hidden"] {
            fs::create_dir_all(dir.path().join(folder)).expect("folder");
            fs::write(dir.path().join(folder).join("a.jpg"), "x").expect("writes");
        }
        assert_eq!(name(&mut deep, SOON).as_deref(), Some("north/pier/a.jpg"));
        assert_eq!(
            (name(&mut flat, NEVER), name(&mut deep, NEVER)),
            (None, None)
        );
    }

    #[test]
    fn a_folder_that_returns_is_watched_again() {
        let dir = tempfile::tempdir().expect("folder");
        let root = dir.path().join("incoming");
        fs::create_dir(&root).expect("folder");
        let mut watch = watch(&root, false);
        watch.options.rescan = Duration::from_millis(50);
        assert_eq!(name(&mut watch, NEVER), None);
        fs::remove_dir(&root).expect("removes");
        assert_eq!(name(&mut watch, NEVER), None);
        fs::create_dir(&root).expect("folder");
        fs::write(root.join("a.jpg"), "x").expect("writes");
        assert_eq!(name(&mut watch, SOON).as_deref(), Some("a.jpg"));
    }

    #[test]
    fn a_folder_that_was_replaced_is_watched_at_once() {
        let dir = tempfile::tempdir().expect("folder");
        let root = dir.path().join("incoming");
        fs::create_dir(&root).expect("folder");
        let mut watch = watch(&root, false);
        assert_eq!(name(&mut watch, NEVER), None);
        fs::rename(&root, dir.path().join("old")).expect("moves");
        fs::create_dir(&root).expect("folder");
        fs::write(root.join("a.jpg"), "x").expect("writes");
        assert_eq!(name(&mut watch, SOON).as_deref(), Some("a.jpg"));
        fs::write(root.join("b.jpg"), "x").expect("writes");
        assert_eq!(name(&mut watch, SOON).as_deref(), Some("b.jpg"));
    }

    #[test]
    fn what_comes_with_more_events_than_wait_is_found_by_a_search() {
        let dir = tempfile::tempdir().expect("folder");
        let mut watch = watch(dir.path(), false);
        assert_eq!(name(&mut watch, NEVER), None);
        // Each makes three events at least.
        for nth in 0..EVENTS {
            fs::write(dir.path().join(format!("{nth:05}.jpg")), "x").expect("writes");
        }
        for _ in 0..EVENTS {
            assert!(watch.next(SOON).is_some());
        }
        assert_eq!(name(&mut watch, NEVER), None);
    }

    #[test]
    fn what_is_no_folder_is_refused_with_a_remedy() {
        let dir = tempfile::tempdir().expect("folder");
        let missing = dir.path().join("incoming");
        let refused = |path: &Path| {
            FolderWatch::open(path, FolderOptions::default())
                .err()
                .expect("refused")
                .to_string()
        };
        assert!(
            refused(&missing).contains("mkdir -p"),
            "{}",
            refused(&missing)
        );
        fs::write(&missing, "x").expect("writes");
        assert!(
            refused(&missing).contains("incoming"),
            "{}",
            refused(&missing)
        );
    }
}

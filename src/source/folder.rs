//! A watched folder: files that lie there and files that arrive, each once it is whole.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use log::{debug, warn};
use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};

use super::decode::{DecodeOptions, decode_file, has_image_extension};
use super::settle::{Settling, Sighting, Stamp};
use super::{Next, Source};

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
    sender: Sender<notify::Result<Event>>,
    /// `None` while the folder cannot be watched: then searching alone finds files.
    watcher: Option<RecommendedWatcher>,
    next_scan: Instant,
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
        let (sender, events) = mpsc::channel();
        Ok(Self {
            root,
            options,
            files: Settling::new(options.settle),
            events,
            sender,
            watcher: None,
            next_scan: Instant::now(),
        })
    }

    /// The next whole file; `None` if there is none within `timeout`.
    pub fn next(&mut self, timeout: Duration) -> Option<PathBuf> {
        let deadline = Instant::now() + timeout;
        loop {
            if self.next_scan <= Instant::now() {
                self.scan();
            }
            while let Ok(event) = self.events.try_recv() {
                self.handle(event);
            }
            let now = Instant::now();
            if let Some(path) = self.files.take(now, Stamp::of) {
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

    /// Files seen but not yet handed out.
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
        self.next_scan = Instant::now() + self.options.rescan;
        self.arm();
        let mut found = BTreeSet::new();
        if let Err(error) = self.list(&self.root, &mut found) {
            warn!(
                "{}: cannot be searched, tried again later: {error}",
                self.root.display()
            );
            self.watcher = None;
            return;
        }
        let now = Instant::now();
        for path in &found {
            self.files
                .saw(path.clone(), Stamp::of(path), Sighting::Found, now);
        }
        self.files.retain(&found);
    }

    fn arm(&mut self) {
        if self.watcher.is_some() {
            return;
        }
        let mode = match self.options.recursive {
            true => RecursiveMode::Recursive,
            false => RecursiveMode::NonRecursive,
        };
        let armed = notify::recommended_watcher(self.sender.clone()).and_then(|mut watcher| {
            watcher.watch(&self.root, mode)?;
            Ok(watcher)
        });
        match armed {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => warn!(
                "{}: cannot be watched, searched every {:?} instead: {error}",
                self.root.display(),
                self.options.rescan
            ),
        }
    }

    /// Adds the candidates below `folder`. A folder below that cannot be read is passed over.
    fn list(&self, folder: &Path, found: &mut BTreeSet<PathBuf>) -> io::Result<()> {
        for entry in folder.read_dir()? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let enter = self.options.recursive && !is_hidden(&entry.file_name());
                if enter && let Err(error) = self.list(&path, found) {
                    debug!("{}: passed over: {error}", path.display());
                }
            } else if self.is_candidate(&path) {
                found.insert(path);
            }
        }
        Ok(())
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
            EventKind::Modify(ModifyKind::Metadata(_)) => return,
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
            } else if self.is_candidate(&path) {
                let stamp = Stamp::of(&path);
                self.files.saw(path, stamp, how, now);
            } else if self.options.recursive && how == Sighting::Closed && path.is_dir() {
                self.next_scan = now;
            }
        }
    }

    fn is_candidate(&self, path: &Path) -> bool {
        let mut parts = self.relative(path).iter();
        has_image_extension(path) && !parts.any(is_hidden)
    }
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// A [`FolderWatch`] whose files are decoded: the [`Source`] of a daemon.
pub struct FolderFrames {
    watch: FolderWatch,
    decode: DecodeOptions,
    once: bool,
}

impl FolderFrames {
    /// Frames are named by their path below the watched folder. With `once`, the source ends when
    /// the files that are there have been handed out.
    pub fn new(watch: FolderWatch, decode: DecodeOptions, once: bool) -> Self {
        Self {
            watch,
            decode,
            once,
        }
    }
}

impl Source for FolderFrames {
    fn next(&mut self, timeout: Duration) -> Next {
        let Some(path) = self.watch.next(timeout) else {
            let drained = self.once && self.watch.waiting() == 0;
            return if drained { Next::End } else { Next::Idle };
        };
        let start = Instant::now();
        match decode_file(&path, &self.decode) {
            Ok(mut frame) => {
                frame.name = self.watch.relative(&path).to_string_lossy().into_owned();
                Next::Frame {
                    frame,
                    decode: start.elapsed(),
                }
            }
            Err(error) => Next::Broken(error),
        }
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

//! The runtime folder: what is of use only as long as the system runs. The daemon's status lies there, and marks of
//! the files that it has in hand.

use std::env;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use shipwatch::lock::{Taken, lock};

/// Below systemd's folder for all services.
#[cfg(unix)]
const SERVICE: &str = "/run/shipwatch";

/// The file that a running daemon holds locked.
const LOCK: &str = "lock";

/// A daemon's runtime folder.
pub(crate) struct Runtime {
    folder: PathBuf,
    _lock: File,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuntimeError {
    /// It cannot be made or written to.
    #[error("{folder}: {source}", folder = .folder.display())]
    Io { folder: PathBuf, source: io::Error },
    /// Another daemon's.
    #[error("{folder}: is another shipwatch's; set `runtime-folder` to another for each", folder = .0.display())]
    Busy(PathBuf),
    /// Somebody else's.
    #[error("{folder}: belongs to another user; set `runtime-folder`", folder = .0.display())]
    Foreign(PathBuf),
}

impl Runtime {
    /// Takes a folder for as long as this lives, and makes it.
    pub(crate) fn open(folder: Option<&Path>) -> Result<Self, RuntimeError> {
        let folder = folder.map_or_else(own, Path::to_owned);
        let io = |source| RuntimeError::Io {
            folder: folder.clone(),
            source,
        };
        make(&folder).map_err(io)?;
        if !is_own(&folder).map_err(io)? {
            return Err(RuntimeError::Foreign(folder));
        }
        let file = lock_file(&folder).map_err(io)?;
        match lock(&file) {
            Err(Taken) => Err(RuntimeError::Busy(folder)),
            Ok(()) => Ok(Self {
                folder,
                _lock: file,
            }),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Whether a daemon runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Daemon {
    Runs,
    RunsNot,
    /// The user may not know.
    Hidden,
}

/// Whether a daemon runs that has this folder.
pub(crate) fn daemon(folder: &Path) -> Daemon {
    match File::open(folder.join(LOCK)).map(|lock| lock.try_lock_shared()) {
        Ok(Err(TryLockError::WouldBlock)) => Daemon::Runs,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Daemon::Hidden,
        _ => Daemon::RunsNot,
    }
}

/// Where a daemon's runtime folder may be: where it is told, else the user's own or systemd's.
pub(crate) fn candidates(told: Option<&Path>) -> Vec<PathBuf> {
    if let Some(folder) = told {
        return vec![folder.to_owned()];
    }
    let mut candidates = vec![own()];
    #[cfg(unix)]
    candidates.push(SERVICE.into());
    candidates
}

/// The folder that systemd names, or one of the user's.
fn own() -> PathBuf {
    let named = |variable| env::var_os(variable).filter(|value| !value.is_empty());
    if let Some(folders) = named("RUNTIME_DIRECTORY") {
        return env::split_paths(&folders).next().unwrap_or_default();
    }
    match named("XDG_RUNTIME_DIR") {
        Some(folder) => Path::new(&folder).join("shipwatch"),
        None => env::temp_dir().join(format!("shipwatch-{}", user())),
    }
}

fn lock_file(folder: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    options.open(folder.join(LOCK))
}

/// For others it is there to be read.
fn make(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o755);
    builder.recursive(true).create(folder)
}

/// In a folder that all may write to, another may have made it first.
#[cfg(unix)]
fn is_own(folder: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;

    let there = folder.symlink_metadata()?;
    Ok(there.is_dir() && there.uid() == rustix::process::getuid().as_raw())
}

#[cfg(not(unix))]
fn is_own(_: &Path) -> io::Result<bool> {
    Ok(true)
}

#[cfg(unix)]
fn user() -> u32 {
    rustix::process::getuid().as_raw()
}

#[cfg(not(unix))]
fn user() -> u32 {
    0
}

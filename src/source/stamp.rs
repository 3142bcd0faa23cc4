//! What tells one version of a file from the next without reading it.

use std::fs::Metadata;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// A file as a look at its folder shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Length in bytes.
    pub length: u64,
    /// Time of the last change.
    pub modified: SystemTime,
    /// The file's number on its file system; 0 where there are none.
    pub inode: u64,
}

impl Stamp {
    /// `None` where the path is gone or no regular file.
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = path.metadata().ok().filter(|m| m.is_file())?;
        Some(Self {
            length: metadata.len(),
            modified: metadata.modified().ok()?,
            inode: inode(&metadata),
        })
    }

    /// As [`Stamp::of`]; besides, what is neither a folder nor a file that can be read has a stamp that stays the
    /// same, by which it is told from the file that may take its place.
    pub(super) fn of_any(path: &Path) -> Option<Self> {
        let odd = || match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Ok(_) if path.is_dir() => None,
            entry => Some(Self {
                length: 0,
                modified: UNIX_EPOCH,
                inode: entry.map_or(0, |metadata| inode(&metadata)),
            }),
        };
        Self::of(path).or_else(odd)
    }

    /// Length, nanoseconds since 1970 and inode, as a database keeps them. Times too far off to be told
    /// from each other are one.
    pub(crate) fn numbers(&self) -> [i64; 3] {
        let nanoseconds = match self.modified.duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |n| -n),
        };
        [self.length as i64, nanoseconds, self.inode as i64]
    }
}

/// A file's number on its file system; 0 where there are none.
#[cfg(unix)]
pub(crate) fn inode(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

/// A file's number on its file system; 0 where there are none.
#[cfg(not(unix))]
pub(crate) fn inode(_: &Metadata) -> u64 {
    0
}

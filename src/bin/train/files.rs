//! Files that survive a crash while they are written.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Writes a file whole or not at all: what stood there before stays until the new bytes are on disk.
///
/// # Errors
/// If the disk is full or the folder cannot be written; what was written of the new file is gone
/// then, so that it takes no room.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let write = || -> io::Result<()> {
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    let written = write().and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        let _ = fs::remove_file(&partial);
        return written;
    }
    // The new name is on disk once its folder is.
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("a.json");
        replace(&path, b"old, and longer").expect("writes");
        replace(&path, b"new").expect("writes");
        assert_eq!(fs::read(&path).expect("reads"), b"new");
        assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 1);
    }

    #[test]
    fn a_failure_leaves_the_old_file() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("a.json");
        replace(&path, b"old").expect("writes");
        // A folder stands where the unfinished file would go.
        fs::create_dir(dir.path().join("a.partial")).expect("folder");
        replace(&path, b"new").expect_err("no room");
        assert_eq!(fs::read(&path).expect("reads"), b"old");
    }

    #[test]
    fn a_full_disk_leaves_the_old_file_and_no_partial_one() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("a.json");
        replace(&path, b"old").expect("writes");
        // Every write to /dev/full fails for want of room.
        std::os::unix::fs::symlink("/dev/full", dir.path().join("a.partial")).expect("link");
        let error = replace(&path, b"new").expect_err("no room");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).expect("reads"), b"old");
        assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 1);
    }
}

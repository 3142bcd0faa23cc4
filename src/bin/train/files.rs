//! Files that survive a crash while they are written.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Writes a file whole or not at all: what stood there before stays until the new bytes are on disk.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = File::create(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)
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
}

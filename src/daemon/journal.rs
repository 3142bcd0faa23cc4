//! The file of detections: appended to line by line, and mended when a line was cut off.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use log::warn;

/// Why the file of detections cannot be appended to.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be opened or mended.
    #[error("{path}: cannot be appended to: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is something else, and nothing is cut off a stranger's file.
    #[error("{path}: ends in something that is no line of JSON; name another file", path = .0.display())]
    Foreign(PathBuf),
    /// Another process writes to it.
    #[error("{path}: another shipwatch appends to it; stop that, or name another file", path = .0.display())]
    Busy(PathBuf),
}

/// A file of JSON lines that is appended to by nobody else.
///
/// It is created again when it is moved or deleted meanwhile, so that logs can be rotated and no
/// line goes where nobody looks.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens a file for appending, and creates it where there is none.
    ///
    /// A last line that a crash left without its end is cut off, so that the next one starts clean.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        Ok(Self {
            path: path.to_owned(),
            file: open(path)?,
        })
    }
}

impl Write for Journal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.path.exists() {
            self.file = open(&self.path).map_err(io::Error::other)?;
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn open(path: &Path) -> Result<File, JournalError> {
    let io = |source| JournalError::Io {
        path: path.to_owned(),
        source,
    };
    // Pipes and terminals have no end to mend, and some cannot be opened for reading.
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return OpenOptions::new().append(true).open(path).map_err(io);
    }
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)
        .map_err(io)?;
    // Where the file system knows no locks, one writer is trusted to be alone.
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        return Err(JournalError::Busy(path.to_owned()));
    }
    let (whole, torn) = split_last_line(&mut file).map_err(io)?;
    match torn {
        None => {}
        Some(b'{') => {
            warn!(
                "{}: the last line was cut off by a crash and is removed",
                path.display()
            );
            file.set_len(whole).map_err(io)?;
        }
        Some(_) => return Err(JournalError::Foreign(path.to_owned())),
    }
    Ok(file)
}

/// Length of the file up to its last line end, and the first byte behind, if any.
fn split_last_line(file: &mut File) -> io::Result<(u64, Option<u8>)> {
    const BLOCK: u64 = 64 * 1024;
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut block = Vec::new();
    let mut first_behind = None;
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        block.clear();
        file.seek(SeekFrom::Start(start))?;
        Read::by_ref(file)
            .take(end - start)
            .read_to_end(&mut block)?;
        if let Some(newline) = block.iter().rposition(|&byte| byte == b'\n') {
            let first = block.get(newline + 1).copied();
            return Ok((start + newline as u64 + 1, first.or(first_behind)));
        }
        first_behind = block.first().copied();
        end = start;
    }
    Ok((0, first_behind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn reopened(content: &str) -> Result<String, JournalError> {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("detections.jsonl");
        fs::write(&path, content).expect("writes");
        let mut journal = Journal::open(&path)?;
        journal.write_all(b"{\"new\":1}\n").expect("appends");
        Ok(fs::read_to_string(&path).expect("reads"))
    }

    #[test]
    fn whole_lines_stay_and_a_torn_one_goes() {
        let long = format!("{{\"rle\":\"{}", "1 2 ".repeat(50_000));
        for (before, kept) in [
            ("", ""),
            ("{\"a\":1}\n", "{\"a\":1}\n"),
            ("{\"a\":1}\n{\"b\":", "{\"a\":1}\n"),
            ("{\"a\":", ""),
            (&format!("{{\"a\":1}}\n{long}"), "{\"a\":1}\n"),
        ] {
            assert_eq!(
                reopened(before).expect("opens"),
                format!("{kept}{{\"new\":1}}\n")
            );
        }
    }

    #[test]
    fn a_file_of_another_kind_is_left_alone() {
        assert!(matches!(
            reopened("notes\nwithout a last line end"),
            Err(JournalError::Foreign(_))
        ));
    }

    #[test]
    fn a_missing_file_is_created_and_a_missing_folder_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        Journal::open(&folder.path().join("new.jsonl")).expect("creates");
        let error = Journal::open(&folder.path().join("none/new.jsonl")).expect_err("no folder");
        assert!(error.to_string().contains("none/new.jsonl"), "{error}");
    }

    #[test]
    fn two_writers_are_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("detections.jsonl");
        let first = Journal::open(&path).expect("opens");
        assert!(matches!(Journal::open(&path), Err(JournalError::Busy(_))));
        drop(first);
        Journal::open(&path).expect("opens again");
    }

    #[test]
    fn a_file_that_was_moved_or_deleted_is_begun_anew() {
        let folder = tempfile::tempdir().expect("folder");
        let (path, rotated) = (folder.path().join("new"), folder.path().join("old"));
        let mut journal = Journal::open(&path).expect("opens");
        journal.write_all(b"1\n").expect("appends");
        fs::rename(&path, &rotated).expect("moves");
        journal.write_all(b"2\n").expect("appends");
        assert_eq!(fs::read(&rotated).expect("reads"), b"1\n");
        assert_eq!(fs::read(&path).expect("reads"), b"2\n");
        fs::remove_file(&path).expect("deletes");
        journal.write_all(b"3\n").expect("appends");
        assert_eq!(fs::read(&path).expect("reads"), b"3\n");
    }
}

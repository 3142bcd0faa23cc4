//! Files of results that were moved away for their length: `detections.jsonl` becomes `detections.1.jsonl`, the next
//! one `detections.2.jsonl`. So each keeps its name, and the highest number is the newest.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::source::finish::{ignoring_missing, sync_folder};

/// A file that was moved away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// Where it lies.
    pub path: PathBuf,
    /// The number in its name.
    pub number: u64,
    /// Its length.
    pub bytes: u64,
    /// When it was last written.
    pub modified: SystemTime,
}

/// Gives a file a name with the next number, on the disk as well.
///
/// # Errors
/// What the system says.
pub(super) fn rotate(path: &Path) -> io::Result<()> {
    let next = numbered(path)?.last().map_or(0, |(number, _)| *number);
    let next = next.checked_add(1).ok_or(io::ErrorKind::AlreadyExists)?;
    // Others may have moved it just now.
    ignoring_missing(fs::rename(path, name(path, next)))?;
    sync_folder(path)
}

/// Those of the file at `path` that were moved away, from the oldest to the newest.
///
/// # Errors
/// What the system says, if their folder cannot be read.
pub fn list(path: &Path) -> io::Result<Vec<Rotated>> {
    let mut found = Vec::new();
    for (number, entry) in numbered(path)? {
        let metadata = entry.metadata()?;
        if metadata.is_file() {
            found.push(Rotated {
                path: entry.path(),
                number,
                bytes: metadata.len(),
                modified: metadata.modified()?,
            });
        }
    }
    Ok(found)
}

/// Whatever lies there by the name of a file that was moved away, by rising numbers.
fn numbered(path: &Path) -> io::Result<Vec<(u64, DirEntry)>> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if let Some(number) = number(path, &entry.file_name()) {
            found.push((number, entry));
        }
    }
    found.sort_by_key(|(number, _)| *number);
    Ok(found)
}

fn name(path: &Path, number: u64) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!(".{number}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// The number in the name of a file that was moved away from `path`.
fn number(path: &Path, file: &OsStr) -> Option<u64> {
    let mut end = OsString::from("");
    if let Some(extension) = path.extension() {
        end.push(".");
        end.push(extension);
    }
    let mut start = path.file_stem()?.to_owned();
    start.push(".");
    let file = file.as_encoded_bytes();
    let digits = file
        .strip_prefix(start.as_encoded_bytes())?
        .strip_suffix(end.as_encoded_bytes())?;
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    // Not those that others write otherwise.
    (name(path, number).file_name()?.as_encoded_bytes() == file).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gets_the_next_number_and_others_are_not_touched() {
        for name in ["out.jsonl", "out"] {
            let folder = tempfile::tempdir().expect("folder");
            let path = folder.path().join(name);
            for other in [
                "out.9",
                "out.x.jsonl",
                "out.07.jsonl",
                "outer.3.jsonl",
                "out.7.csv",
            ] {
                fs::write(folder.path().join(other), "").expect("writes");
            }
            let before = list(&path).expect("lists").len() as u64;
            for nth in 1..=11 {
                fs::write(&path, "x".repeat(nth)).expect("writes");
                rotate(&path).expect("moves");
                assert!(!path.exists());
            }
            let numbers: Vec<_> = (list(&path).expect("lists").iter())
                .skip(before as usize)
                .map(|rotated| (rotated.number, rotated.bytes))
                .collect();
            let first = if name == "out" { 9 } else { 0 };
            let wanted: Vec<_> = (1..=11).map(|nth| (first + nth, nth)).collect();
            assert_eq!(numbers, wanted);
        }
    }
    #[test]
    #[cfg(unix)]
    fn nothing_is_written_over_and_a_file_that_is_gone_is_no_error() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("out.jsonl");
        let elsewhere = folder.path().join("elsewhere");
        let link = folder.path().join("out.1.jsonl");
        std::os::unix::fs::symlink(&elsewhere, &link).expect("links");
        fs::write(&path, "a").expect("writes");
        rotate(&path).expect("moves");
        assert!(link.is_symlink());
        let moved = fs::read_to_string(folder.path().join("out.2.jsonl"));
        assert_eq!(moved.expect("is there"), "a");
        rotate(&path).expect("has nothing to move");
        let last = folder.path().join(format!("out.{}.jsonl", u64::MAX));
        fs::write(last, "").expect("writes");
        fs::write(&path, "b").expect("writes");
        rotate(&path).expect_err("has no number left");
        assert!(path.exists());
    }
}

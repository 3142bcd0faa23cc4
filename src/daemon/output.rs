//! A file of results that follows the ledger: it has a line for each frame that is done, and never half of one.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use log::warn;

use crate::ledger::{Ledger, LedgerError, Position};
use crate::record::FrameRecord;
use crate::source::finish::sync_folder;
use crate::source::stamp::inode;

/// Bytes that are read at a time to find the end of a file's last line.
const BLOCK: u64 = 64 * 1024;

/// Why an output cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// It cannot be opened, mended or written.
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
    /// What is missing in it cannot be looked up.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl OutputError {
    /// Whether trying again may help, as it does where there is no space.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ),
            Self::Ledger(error) => error.may_pass(),
            _ => false,
        }
    }
}

/// A file of JSON lines that nobody else appends to.
///
/// It is created again when it is moved or deleted meanwhile, so that logs can be rotated and no
/// line goes where nobody looks. Lines of others stay. A pipe or a terminal takes lines as well; what it lost is
/// not said again.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    file: File,
    /// Of what is on the disk; a pipe has none.
    position: Option<Position>,
}

impl Output {
    /// Opens a file and mends it: a line that a crash cut off is taken away, lines that the ledger has and the
    /// file lacks are added. A file that the ledger does not know is appended to from the first frame on whose
    /// line is in no other.
    ///
    /// # Errors
    /// Any [`OutputError`].
    pub fn open(path: &Path, ledger: &Ledger) -> Result<Self, OutputError> {
        let file = open(path)?;
        let io = at(path);
        let metadata = file.metadata().map_err(&io)?;
        if !metadata.is_file() {
            return Ok(Self {
                path: path.to_owned(),
                file,
                position: None,
            });
        }
        // By one name, however it is spelt.
        let path = path.canonicalize().map_err(&io)?;
        let known = ledger.position(&path)?;
        let written = ledger.last_written()?.unwrap_or(ledger.last());
        let position = known.unwrap_or(Position {
            inode: 0,
            bytes: 0,
            frame: written,
        });
        let mut output = Self {
            path,
            file,
            position: Some(position),
        };
        output.find_place()?;
        let after = output.position.map_or(0, |position| position.frame);
        output.follow(&ledger.records_after(after.max(written))?)?;
        Ok(output)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How far it is written; none of what has no end to come back to.
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// Writes the lines of `records`, which the ledger has committed, through to the disk. Lines that are there
    /// already stay.
    ///
    /// # Errors
    /// [`OutputError::Io`]: the same records may be given again.
    pub fn follow<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a FrameRecord>,
    ) -> Result<(), OutputError> {
        let (mut lines, mut last) = (Vec::new(), 0);
        for record in records {
            last = last.max(record.id.unwrap_or(0));
            serde_json::to_writer(&mut lines, record).expect("a record is JSON");
            lines.push(b'\n');
        }
        if self.position.is_none() {
            let written = self.file.write_all(&lines).and_then(|()| self.file.flush());
            return written.map_err(at(&self.path));
        }
        self.find_place()?;
        let Some(position) = &mut self.position else {
            return Ok(());
        };
        let written = append(&mut self.file, position.bytes, &lines).map_err(at(&self.path));
        if written.is_err() {
            // Or what never came to the disk would be taken for what did.
            let _ = self.file.set_len(position.bytes);
        }
        position.bytes = written?;
        position.frame = position.frame.max(last);
        Ok(())
    }

    /// Begins the file anew where it was moved away, and goes to the end of one that is not as it was left.
    fn find_place(&mut self) -> Result<(), OutputError> {
        let Some(position) = &mut self.position else {
            return Ok(());
        };
        let io = at(&self.path);
        let own = self.file.metadata().map_err(&io)?;
        let there = self.path.metadata().ok();
        if there.as_ref().map(inode) != Some(inode(&own)) {
            self.file = open(&self.path)?;
        }
        let now = self.file.metadata().map_err(&io)?;
        if inode(&now) == position.inode
            && ends_line(&mut self.file, position.bytes).map_err(&io)?
        {
            return Ok(());
        }
        let before = *position;
        position.inode = inode(&now);
        position.bytes = mend(&self.path, &mut self.file)?;
        // Lines that were written after the ledger was last told of it.
        let last = last_id(&mut self.file, position.bytes).map_err(&io)?;
        position.frame = position.frame.max(last.unwrap_or(0));
        if before.inode != 0 {
            warn!(
                "{}: is not as it was left, and goes on from its end",
                self.path.display()
            );
        }
        Ok(())
    }
}

/// Makes what lies behind `from` the lines, and says where they end: what is there already stays, a line that was
/// cut off goes, and behind others' lines they are appended.
fn append(file: &mut File, from: u64, lines: &[u8]) -> io::Result<u64> {
    let mut there = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.read_to_end(&mut there)?;
    let same = there.iter().zip(lines).take_while(|(a, b)| a == b).count();
    let (start, kept) = match there[same..].iter().rposition(|&byte| byte == b'\n') {
        None => (from + same as u64, same),
        Some(newline) => {
            // Whole lines of ours before those of others count.
            let own = lines[..same].iter().rposition(|&byte| byte == b'\n');
            (
                from + (same + newline) as u64 + 1,
                own.map_or(0, |at| at + 1),
            )
        }
    };
    file.set_len(start)?;
    file.write_all(&lines[kept..])?;
    file.sync_data()?;
    Ok(start + (lines.len() - kept) as u64)
}

/// Whether a line ends at `bytes`.
fn ends_line(file: &mut File, bytes: u64) -> io::Result<bool> {
    let Some(last) = bytes.checked_sub(1) else {
        return Ok(true);
    };
    let mut byte = Vec::new();
    file.seek(SeekFrom::Start(last))?;
    Read::by_ref(file).take(1).read_to_end(&mut byte)?;
    Ok(byte == b"\n")
}

/// The `id` of the last line before `end`, if it has one.
fn last_id(file: &mut File, end: u64) -> io::Result<Option<i64>> {
    #[derive(serde::Deserialize)]
    struct Line {
        id: Option<i64>,
    }
    let mut start = end.saturating_sub(1);
    let mut line = Vec::new();
    loop {
        start = start.saturating_sub(BLOCK);
        line.clear();
        file.seek(SeekFrom::Start(start))?;
        let length = end.saturating_sub(start).saturating_sub(1);
        Read::by_ref(file).take(length).read_to_end(&mut line)?;
        let newline = line.iter().rposition(|&byte| byte == b'\n');
        if newline.is_some() || start == 0 {
            let last = &line[newline.map_or(0, |at| at + 1)..];
            let parsed: Option<Line> = serde_json::from_slice(last).ok();
            return Ok(parsed.and_then(|line| line.id));
        }
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> OutputError + use<> {
    let path = path.to_owned();
    move |source| OutputError::Io {
        path: path.clone(),
        source,
    }
}

fn open(path: &Path) -> Result<File, OutputError> {
    // Pipes and terminals have no end to mend, and some cannot be opened for reading.
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        let file = OpenOptions::new().append(true).open(path);
        return file.map_err(at(path));
    }
    let new = !path.exists();
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)
        .map_err(at(path))?;
    if new {
        // Or a power cut might take the file with all its lines.
        sync_folder(path).map_err(at(path))?;
    }
    // Where the file system knows no locks, one writer is trusted to be alone.
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(OutputError::Busy(path.to_owned())),
        Err(TryLockError::Error(_)) | Ok(()) => Ok(file),
    }
}

/// Cuts off a last line without its end, and says how many bytes are left.
fn mend(path: &Path, file: &mut File) -> Result<u64, OutputError> {
    let io = at(path);
    let (whole, torn) = split_last_line(file).map_err(&io)?;
    match torn {
        None => {}
        Some(b'{') => {
            warn!(
                "{}: the last line was cut off by a crash and is removed",
                path.display()
            );
            file.set_len(whole).map_err(&io)?;
        }
        Some(_) => return Err(OutputError::Foreign(path.to_owned())),
    }
    Ok(whole)
}

/// Length of the file up to its last line end, and the first byte behind, if any.
fn split_last_line(file: &mut File) -> io::Result<(u64, Option<u8>)> {
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
    use std::fs;

    use super::*;
    use crate::ledger::{Entry, Key};
    use crate::sink::sample_record;

    /// A folder with a ledger and an output.
    struct Field {
        folder: tempfile::TempDir,
        ledger: Ledger,
    }

    impl Field {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("folder");
            let ledger = Ledger::open(&folder.path().join("ledger")).expect("opens");
            Self { folder, ledger }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("out.jsonl")
        }

        fn open(&self) -> Result<Output, OutputError> {
            Output::open(&self.path(), &self.ledger)
        }

        /// Commits a frame, and how far the output is.
        fn commit(&mut self, name: &str, output: &Output) -> FrameRecord {
            let mut entry = [Entry {
                key: Key {
                    source: "test".into(),
                    name: name.into(),
                    digest: [0; 32],
                },
                stamp: None,
                outcome: Ok(sample_record(name, &["1 2"])),
            }];
            let position = output.position().map(|at| (output.path(), at));
            self.ledger.commit(&mut entry, position).expect("commits");
            let [entry] = entry;
            entry.outcome.expect("a record")
        }

        /// Frames of the lines.
        fn frames(&self) -> Vec<String> {
            let text = fs::read_to_string(self.path()).expect("reads");
            assert!(text.is_empty() || text.ends_with('\n'), "{text}");
            let frame = |line| -> String {
                let record: FrameRecord = serde_json::from_str(line).expect("a record");
                record.frame
            };
            text.lines().map(frame).collect()
        }
    }

    #[test]
    fn a_file_that_the_ledger_does_not_know_keeps_whole_lines_and_loses_a_torn_one() {
        let long = format!("{{\"rle\":\"{}", "1 2 ".repeat(50_000));
        for (before, kept) in [
            ("", ""),
            ("{\"a\":1}\n", "{\"a\":1}\n"),
            ("{\"a\":1}\n{\"b\":", "{\"a\":1}\n"),
            ("{\"a\":", ""),
            (&format!("{{\"a\":1}}\n{long}"), "{\"a\":1}\n"),
        ] {
            let mut field = Field::new();
            fs::write(field.path(), before).expect("writes");
            let mut output = field.open().expect("opens");
            let record = field.commit("a", &output);
            output
                .follow(std::slice::from_ref(&record))
                .expect("writes");
            let line = serde_json::to_string(&record).expect("JSON");
            let found = fs::read_to_string(field.path()).expect("reads");
            assert_eq!(found, format!("{kept}{line}\n"));
        }
        let field = Field::new();
        fs::write(field.path(), "notes\nwithout a last line end").expect("writes");
        assert!(matches!(field.open(), Err(OutputError::Foreign(_))));
    }

    #[test]
    fn wherever_a_crash_cut_the_file_it_follows_the_ledger() {
        let mut field = Field::new();
        let mut output = field.open().expect("opens");
        let first = field.commit("a", &output);
        output.follow(&[first]).expect("writes");
        // How far the file is, is committed with the next frames.
        let later = [field.commit("b", &output), field.commit("c", &output)];
        let known = fs::metadata(field.path()).expect("is there").len();
        output.follow(&later).expect("writes");
        drop(output);
        let whole = fs::read(field.path()).expect("reads");
        for length in known as usize..=whole.len() {
            fs::write(field.path(), &whole[..length]).expect("writes");
            drop(field.open().expect("opens"));
            assert_eq!(fs::read(field.path()).expect("reads"), whole, "{length}");
        }
        // What a crash of the system may leave where data never came to the disk.
        let mut zeros = whole.clone();
        zeros[known as usize + 5..].fill(0);
        fs::write(field.path(), zeros).expect("writes");
        drop(field.open().expect("opens"));
        assert_eq!(fs::read(field.path()).expect("reads"), whole);
    }

    #[test]
    fn a_file_that_was_moved_or_deleted_is_begun_anew() {
        let mut field = Field::new();
        let mut output = field.open().expect("opens");
        let old = field.path().with_extension("old");
        let mut write = |field: &mut Field, name| {
            let record = field.commit(name, &output);
            output.follow(&[record]).expect("writes");
        };
        write(&mut field, "a");
        fs::rename(field.path(), &old).expect("moves");
        write(&mut field, "b");
        assert_eq!(field.frames(), ["b"]);
        fs::remove_file(field.path()).expect("deletes");
        write(&mut field, "c");
        assert_eq!(field.frames(), ["c"]);
        // By somebody who puts another file in its place.
        fs::rename(field.path(), &old).expect("moves");
        fs::write(field.path(), "").expect("writes");
        write(&mut field, "d");
        assert_eq!(field.frames(), ["d"]);
        // While nobody was there.
        fs::remove_file(field.path()).expect("deletes");
        fs::write(field.path(), "").expect("writes");
        drop(output);
        let mut output = field.open().expect("opens");
        let record = field.commit("e", &output);
        output.follow(&[record]).expect("writes");
        // How far it was had not been committed, so that `d`, too, is in no file that is known of.
        assert_eq!(field.frames(), ["d", "e"]);
    }

    #[test]
    fn what_was_written_last_is_known_in_a_file_that_was_begun_anew_before_a_crash() {
        let mut field = Field::new();
        let mut output = field.open().expect("opens");
        let a = field.commit("a", &output);
        output.follow(&[a]).expect("writes");
        let b = field.commit("b", &output);
        fs::remove_file(field.path()).expect("deletes");
        output.follow(&[b]).expect("writes");
        drop(output);
        // The ledger has the position of the file that is gone.
        drop(field.open().expect("opens"));
        assert_eq!(field.frames(), ["b"]);
    }

    #[test]
    fn lines_of_others_stay() {
        let mut field = Field::new();
        let mut output = field.open().expect("opens");
        let a = field.commit("a", &output);
        output.follow(&[a]).expect("writes");
        let b = field.commit("b", &output);
        output.follow([&b]).expect("writes");
        drop(output);
        // After a crash, for the ledger does not know of `b`'s line.
        let other = serde_json::to_string(&sample_record("other", &[])).expect("JSON") + "\n";
        let append = |text: &str| {
            let file = OpenOptions::new().append(true).open(field.path());
            file.and_then(|mut file| file.write_all(text.as_bytes()))
                .expect("writes");
        };
        append(&other);
        drop(field.open().expect("opens"));
        assert_eq!(field.frames(), ["a", "b", "other"]);
        append(&other[..9]);
        let mut output = field.open().expect("opens");
        append(&other);
        let c = field.commit("c", &output);
        output.follow(&[c]).expect("writes");
        assert_eq!(field.frames(), ["a", "b", "other", "other", "c"]);
    }

    #[test]
    fn an_output_by_another_name_has_what_is_in_none() {
        let mut field = Field::new();
        let mut output = field.open().expect("opens");
        let a = field.commit("a", &output);
        output.follow(&[a]).expect("writes");
        // Committed, and never written.
        field.commit("b", &output);
        drop(output);
        let path = field.folder.path().join("other.jsonl");
        drop(Output::open(&path, &field.ledger).expect("opens"));
        let text = fs::read_to_string(path).expect("reads");
        assert!(
            text.contains("\"b\"") && text.lines().count() == 1,
            "{text}"
        );
        let link = field.folder.path().join("link.jsonl");
        std::os::unix::fs::symlink(field.path(), &link).expect("links");
        drop(Output::open(&link, &field.ledger).expect("opens"));
        assert_eq!(field.frames(), ["a", "b"]);
    }

    #[test]
    fn two_writers_are_refused_and_a_missing_folder_is_named() {
        let field = Field::new();
        let first = field.open().expect("opens");
        assert!(matches!(field.open(), Err(OutputError::Busy(_))));
        drop(first);
        field.open().expect("opens again");
        let none = field.folder.path().join("none/out.jsonl");
        let error = Output::open(&none, &field.ledger).expect_err("no folder");
        assert!(error.to_string().contains("none/out.jsonl"), "{error}");
    }
}

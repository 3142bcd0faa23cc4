//! Pipes, terminals and devices: what was written there cannot be looked at again, so each line comes at least once.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{OutputError, at, last_position};
use crate::ledger::{Ledger, Position};
use crate::record::FrameRecord;
use crate::sink::Form;

/// Lines on their way to a reader.
pub(super) struct PipeOutput {
    path: PathBuf,
    form: Box<dyn Form>,
    /// None while nobody reads.
    file: Option<File>,
    /// Frames and their lines, of which the reader has not got all bytes.
    unsent: VecDeque<(i64, Vec<u8>)>,
    /// How much of the first of these is sent.
    sent: usize,
    /// The last frame of which all lines are sent.
    frame: i64,
}

impl PipeOutput {
    pub(super) fn open(
        path: &Path,
        form: Box<dyn Form>,
        ledger: &Ledger,
    ) -> Result<Self, OutputError> {
        let mut pipe = Self {
            frame: last_position(path, ledger)?.frame,
            path: path.to_owned(),
            file: None,
            unsent: VecDeque::new(),
            sent: 0,
            form,
        };
        match pipe.connect() {
            Err(OutputError::Unread(_) | OutputError::Behind(_)) => {}
            connected => connected?,
        }
        Ok(pipe)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn position(&self) -> Position {
        Position {
            inode: 0,
            bytes: 0,
            frame: self.frame,
        }
    }

    /// Sends what waits, and the lines of records behind that.
    pub(super) fn follow(&mut self, records: &[&FrameRecord]) -> Result<(), OutputError> {
        for record in records {
            let last = self.unsent.back().map_or(self.frame, |(id, _)| *id);
            let id = record.id.unwrap_or(last + 1);
            if id > last {
                let mut lines = Vec::new();
                self.form.encode(record, &mut lines);
                self.unsent.push_back((id, lines));
            }
        }
        while let Some((id, lines)) = self.unsent.front() {
            let id = *id;
            let Some(file) = &mut self.file else {
                self.connect()?;
                continue;
            };
            match file.write(&lines[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => {
                        return Err(OutputError::Behind(self.path.clone()));
                    }
                    // Another reader begins with a whole line.
                    io::ErrorKind::BrokenPipe if has_name(&self.path) => {
                        self.file = None;
                        self.sent = 0;
                    }
                    _ => return Err(at(&self.path)(error)),
                },
            }
            if self.sent == lines.len() {
                self.frame = id;
                self.sent = 0;
                self.unsent.pop_front();
            }
        }
        Ok(())
    }

    fn connect(&mut self) -> Result<(), OutputError> {
        let mut file = match open(&self.path) {
            Err(error) if is_unread(&error) && is_fifo(&self.path) => return Err(self.unread()),
            opened => opened.map_err(at(&self.path))?,
        };
        let head = self.form.head().as_bytes();
        if !head.is_empty() {
            // It is short enough for a pipe to take it whole or not at all.
            file.write_all(head).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => OutputError::Behind(self.path.clone()),
                io::ErrorKind::BrokenPipe => self.unread(),
                _ => at(&self.path)(error),
            })?;
        }
        self.file = Some(file);
        Ok(())
    }

    fn unread(&self) -> OutputError {
        match has_name(&self.path) {
            true => OutputError::Unread(self.path.clone()),
            false => at(&self.path)(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

/// Whether a pipe may get another reader; standard output and the like cannot.
fn has_name(path: &Path) -> bool {
    !path.starts_with("/dev") && !path.starts_with("/proc")
}

/// Without waiting for a reader, nor for one that is behind.
#[cfg(unix)]
fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    let mut options = OpenOptions::new();
    options.append(true);
    if is_fifo(path) {
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
    }
    options.open(path)
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).open(path)
}

#[cfg(unix)]
fn is_fifo(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;

    path.metadata().is_ok_and(|it| it.file_type().is_fifo())
}

#[cfg(not(unix))]
fn is_fifo(_: &Path) -> bool {
    false
}

/// Whether a pipe has no reader.
fn is_unread(error: &io::Error) -> bool {
    #[cfg(unix)]
    let none = rustix::io::Errno::NXIO.raw_os_error();
    #[cfg(not(unix))]
    let none = -1;
    error.raw_os_error() == Some(none)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::Read;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;
    use crate::sink::{AirbusCsv, JsonLines, sample_record};

    fn fifo() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("pipe");
        // By no other process, which would share locks of tests beside this one for a moment.
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("makes");
        (folder, path)
    }

    fn record(id: i64, ships: usize) -> FrameRecord {
        let mut record = sample_record("a", &vec!["1 2"; ships]);
        record.id = Some(id);
        record
    }

    fn reader(path: &Path) -> File {
        let mut options = OpenOptions::new();
        options.read(true);
        std::os::unix::fs::OpenOptionsExt::custom_flags(
            &mut options,
            rustix::fs::OFlags::NONBLOCK.bits() as i32,
        );
        options.open(path).expect("opens")
    }

    /// What lies in the pipe.
    fn read(reader: &mut File) -> String {
        let mut text = Vec::new();
        match reader.read_to_end(&mut text) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => assert!(read.is_ok(), "{read:?}"),
        }
        String::from_utf8(text).expect("UTF-8")
    }

    fn ids(text: &str) -> Vec<i64> {
        let id = |line| -> FrameRecord { serde_json::from_str(line).expect("a record") };
        text.lines()
            .map(|line| id(line).id.expect("an id"))
            .collect()
    }

    #[test]
    fn lines_wait_for_a_reader_and_for_one_that_is_behind() {
        let (folder, path) = fifo();
        let ledger = Ledger::open(&folder.path().join("ledger")).expect("opens");
        let mut pipe = PipeOutput::open(&path, Box::new(JsonLines), &ledger).expect("opens");
        let first = record(1, 1);
        let unread = pipe.follow(&[&first]).expect_err("has no reader");
        assert!(matches!(unread, OutputError::Unread(_)) && unread.may_pass());
        assert_eq!(pipe.position().frame, 0);
        let mut one = reader(&path);
        pipe.follow(&[&first]).expect("writes");
        assert_eq!((ids(&read(&mut one)), pipe.position().frame), (vec![1], 1));

        // More than a pipe holds, in one line.
        let long = record(2, 2000);
        let behind = pipe.follow(&[&first, &long]).expect_err("is full");
        assert!(matches!(behind, OutputError::Behind(_)) && behind.may_pass());
        let mut text = read(&mut one);
        while pipe.follow(&[&long]).is_err() {
            text += &read(&mut one);
        }
        text += &read(&mut one);
        assert_eq!((ids(&text), pipe.position().frame), (vec![2], 2));

        // One that goes in the middle of a line: the next gets it whole.
        let next = record(3, 2000);
        pipe.follow(&[&next]).expect_err("is full");
        drop(one);
        pipe.follow(&[]).expect_err("has no reader");
        let mut other = reader(&path);
        let mut text = String::new();
        while pipe.follow(&[]).is_err() {
            text += &read(&mut other);
        }
        text += &read(&mut other);
        assert_eq!((ids(&text), pipe.position().frame), (vec![3], 3));
    }

    #[test]
    fn the_first_line_waits_for_room_as_others_do() {
        let (folder, path) = fifo();
        let ledger = Ledger::open(&folder.path().join("ledger")).expect("opens");
        let mut reader = reader(&path);
        let mut other = open(&path).expect("has a reader");
        while other.write(&[b'x'; 4096]).is_ok() {}
        let mut pipe = PipeOutput::open(&path, Box::new(AirbusCsv), &ledger).expect("opens");
        let first = record(1, 1);
        let behind = pipe.follow(&[&first]).expect_err("is full");
        assert!(matches!(behind, OutputError::Behind(_)), "{behind}");
        read(&mut reader);
        pipe.follow(&[]).expect("writes");
        assert_eq!(read(&mut reader), "ImageId,EncodedPixels\na,1 2\n");
    }
}

//! A file that follows the ledger: it has the lines of each frame that is done, and never half of one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use log::warn;

use super::{OutputError, at, last_position};
use crate::ledger::{Ledger, Position};
use crate::lock::{Taken, lock};
use crate::record::FrameRecord;
use crate::sink::Form;
use crate::source::finish::sync_folder;
use crate::source::stamp::inode;

/// Bytes that are read at a time to find the end of a file's last line.
const BLOCK: u64 = 64 * 1024;

/// A file that nobody else appends to. It is created again when it is moved or deleted meanwhile, so that no line
/// goes where nobody looks. Lines of others stay.
pub(super) struct FileOutput {
    path: PathBuf,
    form: Box<dyn Form>,
    file: File,
    /// Of what is on the disk.
    position: Position,
}

impl FileOutput {
    pub(super) fn open(
        path: &Path,
        form: Box<dyn Form>,
        ledger: &Ledger,
    ) -> Result<Self, OutputError> {
        let file = open(path)?;
        // By one name, however it is spelt.
        let path = path.canonicalize().map_err(at(path))?;
        Ok(Self {
            position: last_position(&path, ledger)?,
            path,
            form,
            file,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// Writes the lines of records behind the last one that is written.
    pub(super) fn follow(&mut self, records: &[&FrameRecord]) -> Result<(), OutputError> {
        let (lines, last) = self.lines(records);
        let Position { bytes, frame, .. } = &mut self.position;
        let written = append(&mut self.file, *bytes, &lines).map_err(at(&self.path));
        if written.is_err() {
            // Or what never came to the disk would be taken for what did.
            let _ = self.file.set_len(*bytes);
        }
        *bytes = written?;
        *frame = last;
        Ok(())
    }

    /// The lines behind the last one that is written, and the frame of the last of them.
    fn lines(&self, records: &[&FrameRecord]) -> (Vec<u8>, i64) {
        let (mut lines, mut last) = (Vec::new(), self.position.frame);
        if self.position.bytes == 0 {
            lines.extend(self.form.head().bytes());
        }
        for record in records {
            let id = record.id.unwrap_or(last + 1);
            if id > last {
                last = id;
                self.form.encode(record, &mut lines);
            }
        }
        (lines, last)
    }

    /// Completes a file that others moved within its folder after the last commit, if lines went there before a
    /// crash: they should not come again where the next ones go.
    pub(super) fn finish_moved(&mut self, ledger: &Ledger) -> Result<(), OutputError> {
        let io = at(&self.path);
        let Position {
            inode: known,
            bytes,
            frame,
        } = self.position;
        if known == 0 || inode(&self.file.metadata().map_err(&io)?) == known {
            return Ok(());
        }
        let Some(mut moved) = find(&self.path, known).map_err(&io)? else {
            return Ok(());
        };
        let missing = ledger.records_after(frame)?;
        let missing: Vec<_> = missing.iter().collect();
        let (lines, _) = self.lines(&missing);
        // The number alone may be that of another file by now.
        if ends_line(&mut moved, bytes).map_err(&io)?
            && holds_start(&mut moved, bytes, &lines).map_err(&io)?
        {
            self.file = moved;
            self.follow(&missing)?;
        }
        Ok(())
    }

    /// Begins the file anew where it was moved away, and goes to the end of one that is not as it was left.
    pub(super) fn find_place(&mut self) -> Result<(), OutputError> {
        let io = at(&self.path);
        let own = self.file.metadata().map_err(&io)?;
        let there = self.path.metadata().ok();
        if there.as_ref().map(inode) != Some(inode(&own)) {
            self.file = open(&self.path)?;
        }
        let now = self.file.metadata().map_err(&io)?;
        let position = &mut self.position;
        if inode(&now) == position.inode
            && ends_line(&mut self.file, position.bytes).map_err(&io)?
        {
            return Ok(());
        }
        let is_known = position.inode != 0;
        position.inode = inode(&now);
        position.bytes = mend(&self.path, &mut self.file, &*self.form)?;
        if is_known && position.bytes > 0 {
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
    // Others may have cut the file short just now, and bytes up to there would be zeros.
    let from = from.min(file.metadata()?.len());
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

/// Whether lines, or the first of them, lie at `bytes`.
fn holds_start(file: &mut File, bytes: u64, lines: &[u8]) -> io::Result<bool> {
    let mut there = Vec::new();
    file.seek(SeekFrom::Start(bytes))?;
    Read::by_ref(file)
        .take(lines.len() as u64)
        .read_to_end(&mut there)?;
    Ok(!there.is_empty() && lines.starts_with(&there))
}

/// The file of that number beside `path`.
fn find(path: &Path, number: u64) -> io::Result<Option<File>> {
    for entry in fs::read_dir(path.parent().unwrap_or(Path::new(".")))? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_file() && inode(&metadata) == number {
            let mut options = OpenOptions::new();
            return options.read(true).append(true).open(entry.path()).map(Some);
        }
    }
    Ok(None)
}

fn open(path: &Path) -> Result<File, OutputError> {
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
    match lock(&file) {
        Err(Taken) => Err(OutputError::Busy(path.to_owned())),
        Ok(()) => Ok(file),
    }
}

/// Cuts off a last line without its end, and says how many bytes are left.
fn mend(path: &Path, file: &mut File, form: &dyn Form) -> Result<u64, OutputError> {
    let io = at(path);
    let (whole, torn) = split_last_line(file).map_err(&io)?;
    let Some(torn) = torn else {
        return Ok(whole);
    };
    let mut start = Vec::new();
    file.rewind().map_err(&io)?;
    Read::by_ref(file)
        .take(form.head().len() as u64)
        .read_to_end(&mut start)
        .map_err(&io)?;
    if !form.is_torn(&start, torn) {
        return Err(OutputError::Foreign(path.to_owned()));
    }
    warn!(
        "{}: the last line was cut off by a crash and is removed",
        path.display()
    );
    file.set_len(whole).map_err(&io)?;
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

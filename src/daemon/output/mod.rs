//! Where results go: files and pipes that follow the ledger.

mod file;
mod pipe;
pub mod rotated;

use std::io;
use std::path::{Path, PathBuf};

use file::FileOutput;
use pipe::PipeOutput;

use crate::ledger::{Entry, Ledger, LedgerError, Position};
use crate::record::FrameRecord;
use crate::sink::Form;

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
    #[error("{path}: ends in something that shipwatch did not write; name another file", path = .0.display())]
    Foreign(PathBuf),
    /// Another process writes to it.
    #[error("{path}: another shipwatch appends to it; stop that, or name another file", path = .0.display())]
    Busy(PathBuf),
    /// Nobody reads the pipe.
    #[error("{path}: nobody reads from this pipe", path = .0.display())]
    Unread(PathBuf),
    /// The reader of the pipe is behind.
    #[error("{path}: the reader of this pipe is behind", path = .0.display())]
    Behind(PathBuf),
    /// What is missing in it cannot be looked up.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl OutputError {
    /// Whether trying again may help, as it does where there is no space or no reader.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ),
            Self::Ledger(error) => error.may_pass(),
            Self::Unread(_) | Self::Behind(_) => true,
            Self::Foreign(_) | Self::Busy(_) => false,
        }
    }
}

/// Where results go, each in its form.
///
/// The order of things keeps lines from being lost or doubled whenever the process ends: where lines go
/// ([`Outputs::prepare`]) is committed with the frames ([`Outputs::commit`]), then lines are written
/// ([`Outputs::follow`]).
pub struct Outputs {
    list: Vec<Output>,
    /// Bytes at which a file is begun anew.
    rotate: u64,
    /// What the ledger was told last.
    told: Vec<Position>,
}

impl Outputs {
    /// Opens places and mends what a crash left of them: a line that was cut off is taken away, lines that the
    /// ledger has and a place lacks are added. A file that is not there is made; one that the ledger does not know
    /// is appended to from the first frame on whose lines are in no other.
    ///
    /// # Errors
    /// Any [`OutputError`]; but lines for a pipe that nobody reads wait.
    pub fn open(
        places: impl IntoIterator<Item = (PathBuf, Box<dyn Form>)>,
        rotate: u64,
        ledger: &mut Ledger,
    ) -> Result<Self, OutputError> {
        let open = |(path, form): (PathBuf, _)| Output::open(&path, form, ledger);
        let list = places.into_iter().map(open).collect::<Result<_, _>>()?;
        let mut outputs = Self {
            list,
            rotate,
            told: Vec::new(),
        };
        for output in &mut outputs.list {
            if let Output::File(file) = output {
                file.finish_moved(ledger)?;
            }
            output.find_place()?;
        }
        outputs.tell(ledger)?;
        for output in &mut outputs.list {
            let missing = ledger.records_after(output.position().frame)?;
            match output.follow(&missing.iter().collect::<Vec<_>>()) {
                Err(OutputError::Unread(_) | OutputError::Behind(_)) => {}
                written => written?,
            }
        }
        Ok(outputs)
    }

    /// Finds where the next lines go. A file that was moved or deleted is begun anew; one that is long is moved to
    /// a name with a number, see [`rotated`].
    ///
    /// # Errors
    /// Any [`OutputError`].
    pub fn prepare(&mut self, ledger: &mut Ledger) -> Result<(), OutputError> {
        // First of all, or a file of others that lies there now would be moved for the length of the one before it.
        self.list.iter_mut().try_for_each(Output::find_place)?;
        let rotate = self.rotate;
        let is_long = |output: &Output| output.position().bytes >= rotate;
        if self.list.iter().any(is_long) {
            // Lines that the ledger has not heard of could not be found again.
            self.tell(ledger)?;
            for output in self.list.iter_mut().filter(|output| is_long(output)) {
                rotated::rotate(output.path()).map_err(at(output.path()))?;
                output.find_place()?;
            }
        }
        Ok(())
    }

    /// Commits frames, and where their lines will go.
    ///
    /// # Errors
    /// As [`Ledger::commit`].
    pub fn commit(
        &mut self,
        ledger: &mut Ledger,
        entries: &mut [Entry],
    ) -> Result<(), LedgerError> {
        ledger.commit(entries, self.list.iter().map(|o| (o.path(), o.position())))?;
        self.told = self.positions();
        Ok(())
    }

    /// Commits how far the outputs are, if the ledger does not know: then a file that is moved away takes no line
    /// with it that a crash would have written again.
    ///
    /// # Errors
    /// As [`Ledger::commit`].
    pub fn tell(&mut self, ledger: &mut Ledger) -> Result<(), LedgerError> {
        match self.positions() == self.told {
            true => Ok(()),
            false => self.commit(ledger, &mut []),
        }
    }

    /// Writes the lines of committed records through to the disk, those that are not there yet.
    ///
    /// # Errors
    /// Any [`OutputError`]: the same records may be given again.
    pub fn follow(&mut self, records: &[&FrameRecord]) -> Result<(), OutputError> {
        (self.list.iter_mut()).try_for_each(|output| output.follow(records))
    }

    /// Writes what waits for a reader. Files are not touched.
    ///
    /// # Errors
    /// Any [`OutputError`].
    pub fn send_waiting(&mut self) -> Result<(), OutputError> {
        self.list.iter_mut().try_for_each(|output| match output {
            Output::File(_) => Ok(()),
            Output::Pipe(pipe) => pipe.follow(&[]),
        })
    }

    /// The last frame whose lines are in all outputs, as far as the ledger knows.
    pub fn written(&self) -> i64 {
        let frames = self.told.iter().map(|position| position.frame);
        frames.min().unwrap_or(i64::MAX)
    }

    /// The paths of regular files, by which those of them are found that were moved for their length.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.list.iter().filter_map(|output| match output {
            Output::File(file) => Some(file.path()),
            Output::Pipe(_) => None,
        })
    }

    fn positions(&self) -> Vec<Position> {
        self.list.iter().map(Output::position).collect()
    }
}

/// One place that results go to.
enum Output {
    /// A regular file.
    File(FileOutput),
    /// A pipe, a terminal, a device: what was written there cannot be looked at again.
    Pipe(PipeOutput),
}

impl Output {
    fn open(path: &Path, form: Box<dyn Form>, ledger: &Ledger) -> Result<Self, OutputError> {
        let is_file = path.metadata().map_or(true, |metadata| metadata.is_file());
        Ok(match is_file {
            true => Self::File(FileOutput::open(path, form, ledger)?),
            false => Self::Pipe(PipeOutput::open(path, form, ledger)?),
        })
    }

    /// As the ledger knows it.
    fn path(&self) -> &Path {
        match self {
            Self::File(file) => file.path(),
            Self::Pipe(pipe) => pipe.path(),
        }
    }

    fn position(&self) -> Position {
        match self {
            Self::File(file) => file.position(),
            Self::Pipe(pipe) => pipe.position(),
        }
    }

    fn find_place(&mut self) -> Result<(), OutputError> {
        match self {
            Self::File(file) => file.find_place(),
            Self::Pipe(_) => Ok(()),
        }
    }

    fn follow(&mut self, records: &[&FrameRecord]) -> Result<(), OutputError> {
        match self {
            Self::File(file) => file.follow(records),
            Self::Pipe(pipe) => pipe.follow(records),
        }
    }
}

/// How far the output of that path is, as the ledger has it. One that it does not know begins behind the frames
/// whose lines are in others.
fn last_position(path: &Path, ledger: &Ledger) -> Result<Position, LedgerError> {
    if let Some(position) = ledger.position(path)? {
        return Ok(position);
    }
    let written = ledger.last_written()?.unwrap_or(ledger.last());
    Ok(Position {
        inode: 0,
        bytes: 0,
        frame: written,
    })
}

fn at(path: &Path) -> impl Fn(io::Error) -> OutputError + use<> {
    let path = path.to_owned();
    move |source| OutputError::Io {
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write;

    use super::*;
    use crate::ledger::Key;
    use crate::sink::{AirbusCsv, JsonLines, sample_record};

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

        fn open(&mut self) -> Result<Outputs, OutputError> {
            self.open_at(&self.path(), Box::new(JsonLines), u64::MAX)
        }

        fn open_at(
            &mut self,
            path: &Path,
            form: Box<dyn Form>,
            rotate: u64,
        ) -> Result<Outputs, OutputError> {
            Outputs::open([(path.to_owned(), form)], rotate, &mut self.ledger)
        }

        /// Commits a frame, and how far the output is.
        fn commit(&mut self, name: &str, outputs: &mut Outputs) -> FrameRecord {
            let mut entry = [Entry {
                key: Key {
                    source: "test".into(),
                    name: name.into(),
                    digest: [0; 32],
                },
                stamp: None,
                outcome: Ok(sample_record(name, &["1 2", "5 6"])),
            }];
            outputs.prepare(&mut self.ledger).expect("has a place");
            outputs
                .commit(&mut self.ledger, &mut entry)
                .expect("commits");
            let [entry] = entry;
            entry.outcome.expect("a record")
        }

        /// A frame with its lines.
        fn write(&mut self, name: &str, outputs: &mut Outputs) {
            let record = self.commit(name, outputs);
            outputs.follow(&[&record]).expect("writes");
        }

        /// Frames of the lines.
        fn frames(&self) -> Vec<String> {
            frames(&self.path())
        }
    }

    fn frames(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).expect("reads");
        assert!(text.is_empty() || text.ends_with('\n'), "{text}");
        let frame = |line| -> String {
            let record: FrameRecord = serde_json::from_str(line).expect("a record");
            record.frame
        };
        text.lines().map(frame).collect()
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
            let mut outputs = field.open().expect("opens");
            let record = field.commit("a", &mut outputs);
            outputs.follow(&[&record]).expect("writes");
            let line = serde_json::to_string(&record).expect("JSON");
            let found = fs::read_to_string(field.path()).expect("reads");
            assert_eq!(found, format!("{kept}{line}\n"));
        }
        let mut field = Field::new();
        fs::write(field.path(), "notes\nwithout a last line end").expect("writes");
        assert!(matches!(field.open(), Err(OutputError::Foreign(_))));
        let csv = field.open_at(&field.path(), Box::new(AirbusCsv), u64::MAX);
        assert!(matches!(csv, Err(OutputError::Foreign(_))));
    }

    #[test]
    fn wherever_a_crash_cut_the_file_it_follows_the_ledger() {
        for csv in [false, true] {
            let form = || -> Box<dyn Form> {
                match csv {
                    true => Box::new(AirbusCsv),
                    false => Box::new(JsonLines),
                }
            };
            for told in [false, true] {
                let mut field = Field::new();
                let path = field.path();
                let mut outputs = field.open_at(&path, form(), u64::MAX).expect("opens");
                if told {
                    field.write("a", &mut outputs);
                }
                // How far the file is, is committed with the next frames.
                let later = [
                    field.commit("b", &mut outputs),
                    field.commit("c", &mut outputs),
                ];
                let known = fs::metadata(&path).expect("is there").len();
                // A head is written at once.
                assert_eq!(known > 0, told || csv);
                outputs.follow(&later.each_ref()).expect("writes");
                drop(outputs);
                let whole = fs::read(&path).expect("reads");
                for length in (known as usize..=whole.len()).rev().step_by(7) {
                    fs::write(&path, &whole[..length]).expect("writes");
                    drop(field.open_at(&path, form(), u64::MAX).expect("opens"));
                    assert_eq!(fs::read(&path).expect("reads"), whole, "{length}");
                    // As if the ledger had not heard of it.
                    let position = Position {
                        inode: crate::source::stamp::inode(&path.metadata().expect("is there")),
                        bytes: known,
                        frame: i64::from(told),
                    };
                    let path = path.canonicalize().expect("is there");
                    field
                        .ledger
                        .commit(&mut [], [(&*path, position)])
                        .expect("commits");
                }
                // What a crash of the system may leave where data never came to the disk.
                let mut zeros = whole.clone();
                zeros[known as usize + 5..].fill(0);
                fs::write(&path, zeros).expect("writes");
                drop(field.open_at(&path, form(), u64::MAX).expect("opens"));
                assert_eq!(fs::read(&path).expect("reads"), whole);
            }
        }
    }

    #[test]
    fn a_file_that_was_moved_or_deleted_is_begun_anew() {
        let mut field = Field::new();
        let mut outputs = field.open().expect("opens");
        let old = field.path().with_extension("old");
        field.write("a", &mut outputs);
        fs::rename(field.path(), &old).expect("moves");
        field.write("b", &mut outputs);
        assert_eq!(field.frames(), ["b"]);
        fs::remove_file(field.path()).expect("deletes");
        field.write("c", &mut outputs);
        assert_eq!(field.frames(), ["c"]);
        // By somebody who puts another file in its place.
        fs::rename(field.path(), &old).expect("moves");
        fs::write(field.path(), "").expect("writes");
        field.write("d", &mut outputs);
        assert_eq!(field.frames(), ["d"]);
        // While nobody was there.
        fs::remove_file(field.path()).expect("deletes");
        fs::write(field.path(), "").expect("writes");
        drop(outputs);
        let mut outputs = field.open().expect("opens");
        field.write("e", &mut outputs);
        // How far it was had not been committed, so that `d`, too, is in no file that is known of.
        assert_eq!(field.frames(), ["d", "e"]);
    }

    #[test]
    fn a_long_file_is_moved_to_a_name_with_a_number_and_no_line_is_lost() {
        let mut field = Field::new();
        let open = |field: &mut Field| {
            let path = field.path();
            let outputs = field.open_at(&path, Box::new(JsonLines), 600);
            outputs.expect("opens")
        };
        let mut outputs = open(&mut field);
        let names: Vec<String> = (0..20).map(|nth| format!("{nth}")).collect();
        for (nth, name) in names.iter().enumerate() {
            // A crash after any step.
            if nth % 3 == 0 {
                drop(outputs);
                outputs = open(&mut field);
            }
            let record = field.commit(name, &mut outputs);
            if nth % 4 == 0 {
                drop(outputs);
                outputs = open(&mut field);
            }
            outputs.follow(&[&record]).expect("writes");
        }
        let files = rotated::list(&field.path()).expect("lists");
        assert!(files.len() > 3, "{files:?}");
        assert!(files.iter().all(|file| (600..2000).contains(&file.bytes)));
        let mut found: Vec<_> = files.iter().flat_map(|file| frames(&file.path)).collect();
        found.extend(field.frames());
        assert_eq!(found, names);
    }

    #[test]
    fn a_long_file_that_others_move_away_first_is_theirs() {
        let mut field = Field::new();
        let path = field.path();
        let outputs = field.open_at(&path, Box::new(JsonLines), 1);
        let mut outputs = outputs.expect("opens");
        let taken = field.folder.path().join("taken");
        field.write("a", &mut outputs);
        fs::rename(&path, &taken).expect("moves");
        field.write("b", &mut outputs);
        fs::rename(&path, &taken).expect("moves");
        // As logrotate does.
        fs::write(&path, "").expect("writes");
        field.write("c", &mut outputs);
        assert_eq!(field.frames(), ["c"]);
        assert_eq!(rotated::list(&path).expect("lists"), []);
    }

    #[test]
    fn lines_that_were_moved_away_before_a_crash_come_no_second_time() {
        let mut field = Field::new();
        let taken = field.folder.path().join("out.jsonl.1");
        let mut outputs = field.open().expect("opens");
        field.write("a", &mut outputs);
        field.write("b", &mut outputs);
        fs::rename(field.path(), &taken).expect("moves");
        fs::write(field.path(), "").expect("writes");
        drop(outputs);
        let mut outputs = field.open().expect("opens");
        assert_eq!(frames(&taken), ["a", "b"]);
        field.write("c", &mut outputs);
        field.write("d", &mut outputs);
        assert_eq!(field.frames(), ["c", "d"]);
        // In the middle of the last line, while nobody was there.
        let whole = fs::read(field.path()).expect("reads");
        fs::write(field.path(), &whole[..whole.len() - 9]).expect("cuts");
        drop(outputs);
        fs::rename(field.path(), &taken).expect("moves");
        drop(field.open().expect("opens"));
        assert_eq!(frames(&taken), ["c", "d"]);
        assert_eq!(field.frames(), [""; 0]);
        // What has the number of the file and nothing else of it is not touched.
        let mut outputs = field.open().expect("opens");
        field.write("e", &mut outputs);
        field.write("f", &mut outputs);
        drop(outputs);
        let mut other = fs::read(field.path()).expect("reads");
        let last = other.len() / 2 + 1;
        other[last] = b'!';
        fs::write(field.path(), &other).expect("writes");
        fs::rename(field.path(), &taken).expect("moves");
        drop(field.open().expect("opens"));
        assert_eq!(fs::read(&taken).expect("reads"), other);
        assert_eq!(field.frames(), ["f"]);
    }

    #[test]
    fn a_file_that_is_cut_short_before_lines_come_begins_with_them() {
        let mut field = Field::new();
        let mut outputs = field.open().expect("opens");
        field.write("a", &mut outputs);
        let record = field.commit("b", &mut outputs);
        fs::write(field.path(), "").expect("cuts");
        outputs.follow(&[&record]).expect("writes");
        field.write("c", &mut outputs);
        assert_eq!(field.frames(), ["b", "c"]);
    }

    #[test]
    fn what_was_written_last_is_known_in_a_file_that_was_begun_anew_before_a_crash() {
        let mut field = Field::new();
        let mut outputs = field.open().expect("opens");
        field.write("a", &mut outputs);
        fs::remove_file(field.path()).expect("deletes");
        field.write("b", &mut outputs);
        drop(outputs);
        drop(field.open().expect("opens"));
        assert_eq!(field.frames(), ["b"]);
    }

    #[test]
    fn lines_of_others_stay() {
        let mut field = Field::new();
        let mut outputs = field.open().expect("opens");
        field.write("a", &mut outputs);
        field.write("b", &mut outputs);
        drop(outputs);
        // After a crash, for the ledger does not know of `b`'s line.
        let other = serde_json::to_string(&sample_record("other", &[])).expect("JSON") + "\n";
        let path = field.path();
        let append = |text: &str| {
            let file = OpenOptions::new().append(true).open(&path);
            file.and_then(|mut file| file.write_all(text.as_bytes()))
                .expect("writes");
        };
        append(&other);
        drop(field.open().expect("opens"));
        assert_eq!(field.frames(), ["a", "b", "other"]);
        append(&other[..9]);
        let mut outputs = field.open().expect("opens");
        append(&other);
        field.write("c", &mut outputs);
        assert_eq!(field.frames(), ["a", "b", "other", "other", "c"]);
    }

    #[test]
    fn an_output_by_another_name_has_what_is_in_none() {
        let mut field = Field::new();
        let mut outputs = field.open().expect("opens");
        field.write("a", &mut outputs);
        // Committed, and never written.
        field.commit("b", &mut outputs);
        drop(outputs);
        let path = field.folder.path().join("other.jsonl");
        let other = field.open_at(&path, Box::new(JsonLines), u64::MAX);
        let mut other = other.expect("opens");
        assert_eq!(frames(&path), ["b"]);
        field.write("c", &mut other);
        drop(other);
        // By the name of a link, and long after: what is in the other is not missing.
        let link = field.folder.path().join("link.jsonl");
        std::os::unix::fs::symlink(field.path(), &link).expect("links");
        let mut outputs = field
            .open_at(&link, Box::new(JsonLines), u64::MAX)
            .expect("opens");
        field.write("d", &mut outputs);
        assert_eq!(field.frames(), ["a", "c", "d"]);
    }

    #[test]
    fn nothing_is_done_to_a_file_while_nothing_comes() {
        let mut field = Field::new();
        let mut outputs = field.open().expect("opens");
        field.write("a", &mut outputs);
        let before = field.path().metadata().expect("is there").modified();
        std::thread::sleep(std::time::Duration::from_millis(20));
        outputs.send_waiting().expect("nothing waits");
        let after = field.path().metadata().expect("is there").modified();
        assert_eq!(before.expect("is told"), after.expect("is told"));
    }

    #[test]
    fn each_of_several_gets_what_it_lacks() {
        let mut field = Field::new();
        let csv = field.folder.path().join("out.csv");
        let places = |field: &Field| -> [(PathBuf, Box<dyn Form>); 2] {
            [
                (field.path(), Box::new(JsonLines)),
                (csv.clone(), Box::new(AirbusCsv)),
            ]
        };
        let mut outputs =
            Outputs::open(places(&field), u64::MAX, &mut field.ledger).expect("opens");
        field.write("a", &mut outputs);
        let record = field.commit("b", &mut outputs);
        // A crash between the two.
        outputs.list[0].follow(&[&record]).expect("writes");
        drop(outputs);
        drop(Outputs::open(places(&field), u64::MAX, &mut field.ledger).expect("opens"));
        assert_eq!(field.frames(), ["a", "b"]);
        let rows = fs::read_to_string(&csv).expect("reads");
        assert_eq!(rows, "ImageId,EncodedPixels\na,1 2\na,5 6\nb,1 2\nb,5 6\n");
    }

    #[test]
    fn two_writers_are_refused_and_a_missing_folder_is_named() {
        let mut field = Field::new();
        let first = field.open().expect("opens");
        assert!(matches!(field.open(), Err(OutputError::Busy(_))));
        drop(first);
        field.open().expect("opens again");
        let none = field.folder.path().join("none/out.jsonl");
        let error = field.open_at(&none, Box::new(JsonLines), u64::MAX);
        let error = error.err().expect("no folder");
        assert!(error.to_string().contains("none/out.jsonl"), "{error}");
    }
}

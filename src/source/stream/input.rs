//! What a stream is read from: whether it is there, and reading it without waiting too long.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

use super::Input;
use super::program::{Epitaph, Program};
use crate::source::stamp::inode;

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// Nothing is there.
    #[error("{path}: no such FIFO; create it by `mkfifo {path}`", path = .0.display())]
    NoFifo(PathBuf),
    /// Something else is there.
    #[error("{path}: is no FIFO; name one that `mkfifo` made", path = .0.display())]
    NotAFifo(PathBuf),
    /// It may not be read.
    #[error("{path}: cannot be read: {source}", path = .path.display())]
    Unreadable {
        /// The FIFO.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No such program is found.
    #[error("{0}: no such program; install it, or name it with its folder")]
    NoProgram(String),
    /// A program that cannot be started.
    #[error("{program}: cannot be started: {source}")]
    Unstartable {
        /// The program.
        program: String,
        /// What the system says.
        source: io::Error,
    },
}

impl Input {
    /// Whether it is there at present. Nothing is read or started.
    ///
    /// # Errors
    /// If it is not.
    pub fn check(&self) -> Result<(), InputError> {
        match self {
            Self::Stdin => Ok(()),
            Self::Fifo(path) => fifo(path).map(drop),
            Self::Command(command) => {
                let program = command.first().map_or("", String::as_str);
                let found = match program.contains('/') {
                    true => is_program(Path::new(program)),
                    false => env::var_os("PATH").is_some_and(|paths| {
                        env::split_paths(&paths).any(|folder| is_program(&folder.join(program)))
                    }),
                };
                let missing = || InputError::NoProgram(program.to_owned());
                found.then_some(()).ok_or_else(missing)
            }
        }
    }
}

fn is_program(path: &Path) -> bool {
    let metadata = path.metadata();
    metadata.is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// The number of a FIFO on its file system.
fn fifo(path: &Path) -> Result<u64, InputError> {
    match path.metadata() {
        Ok(metadata) if metadata.file_type().is_fifo() => Ok(inode(&metadata)),
        Ok(_) => Err(InputError::NotAFifo(path.to_owned())),
        Err(error) => Err(unreadable(path, error)),
    }
}

fn unreadable(path: &Path, source: io::Error) -> InputError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => InputError::NoFifo(path),
        _ => InputError::Unreadable { path, source },
    }
}

/// An input that is open.
#[derive(Debug)]
pub(super) struct Opened {
    file: File,
    of: Of,
}

#[derive(Debug)]
enum Of {
    Stdin,
    Fifo { path: PathBuf, inode: u64 },
    Program(Program),
}

/// What [`Opened::read`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Got {
    Bytes(usize),
    Nothing,
    /// Nothing will come any more of this opening.
    End,
}

impl Opened {
    /// Opens without waiting for anyone.
    pub(super) fn open(input: &Input) -> Result<Self, InputError> {
        match input {
            Input::Stdin => {
                let stdin = io::stdin().as_fd().try_clone_to_owned();
                let file = stdin.map_err(|source| InputError::Unreadable {
                    path: "standard input".into(),
                    source,
                })?;
                Ok(Self {
                    file: file.into(),
                    of: Of::Stdin,
                })
            }
            Input::Fifo(path) => {
                let inode = fifo(path)?;
                let mut options = OpenOptions::new();
                // Else opening waits for a writer.
                let options = options
                    .read(true)
                    .custom_flags(OFlags::NONBLOCK.bits().cast_signed());
                let file = options.open(path).map_err(|e| unreadable(path, e))?;
                let path = path.clone();
                let of = Of::Fifo { path, inode };
                Ok(Self { file, of })
            }
            Input::Command(command) => {
                let program = || input.to_string();
                let started = Program::start(command);
                let (program, file) = started.map_err(|source| match source.kind() {
                    io::ErrorKind::NotFound => InputError::NoProgram(program()),
                    _ => InputError::Unstartable {
                        program: program(),
                        source,
                    },
                })?;
                let of = Of::Program(program);
                Ok(Self { file, of })
            }
        }
    }

    /// The number of the process that writes, if it was started here.
    pub(super) fn process(&self) -> Option<u32> {
        match &self.of {
            Of::Program(program) => Some(program.id()),
            _ => None,
        }
    }

    /// Waits for bytes, `timeout` at most.
    pub(super) fn read(&mut self, bytes: &mut [u8], timeout: Duration) -> io::Result<Got> {
        if self.wait(timeout)? {
            return match self.file.read(bytes) {
                Ok(0) => Ok(Got::End),
                Ok(count) => Ok(Got::Bytes(count)),
                Err(error) if passes(&error) => Ok(Got::Nothing),
                Err(error) => Err(error),
            };
        }
        let ended = match &self.of {
            Of::Stdin => false,
            // Another one may lie there by now.
            Of::Fifo { path, inode } => fifo(path).ok() != Some(*inode),
            // What it started may hold the pipe open.
            Of::Program(program) => program.has_ended() && !readable(&self.file),
        };
        Ok(if ended { Got::End } else { Got::Nothing })
    }

    /// Whether bytes, or the end, came in time.
    fn wait(&mut self, timeout: Duration) -> io::Result<bool> {
        let stderr = match &self.of {
            Of::Program(program) => program.stderr(),
            _ => None,
        };
        let mut waited_for = vec![PollFd::new(&self.file, PollFlags::IN)];
        waited_for.extend(stderr.map(|stderr| PollFd::new(stderr, PollFlags::IN)));
        let timeout = Timespec::try_from(timeout).ok();
        match poll(&mut waited_for, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = waited_for
            .iter()
            .map(|it| !it.revents().is_empty())
            .collect();
        if let (Of::Program(program), Some(true)) = (&mut self.of, ready.get(1)) {
            program.listen();
        }
        Ok(ready[0])
    }

    /// Closes it. A program may end by itself if its output has; what became of it comes back.
    pub(super) fn close(self, ended: bool) -> Option<Epitaph> {
        match self.of {
            Of::Program(program) => Some(program.close(ended, |stderr| readable(stderr))),
            _ => None,
        }
    }
}

fn passes(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Whether there are bytes, or the end, without waiting.
fn readable(file: impl AsFd) -> bool {
    let mut waited_for = [PollFd::new(&file, PollFlags::IN)];
    let now = Timespec::default();
    poll(&mut waited_for, Some(&now)).is_ok_and(|count| count > 0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Command;

    use super::*;

    const NOW: Duration = Duration::ZERO;
    const SOON: Duration = Duration::from_secs(20);

    fn make_fifo(folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        let status = Command::new("mkfifo").arg(&path).status();
        assert!(status.expect("mkfifo starts").success());
        path
    }

    fn writer(path: &Path) -> File {
        let writer = OpenOptions::new().write(true).open(path);
        writer.expect("opens, for there is a reader")
    }

    #[test]
    fn a_fifo_waits_for_its_writers_without_holding_anyone_up() {
        let folder = tempfile::tempdir().expect("folder");
        let path = make_fifo(folder.path(), "fifo");
        let input = Input::Fifo(path.clone());
        let mut bytes = [0; 9];
        let mut first = Opened::open(&input).expect("opens");
        assert_eq!(first.read(&mut bytes, NOW).expect("reads"), Got::Nothing);
        let mut one = writer(&path);
        assert_eq!(first.read(&mut bytes, NOW).expect("reads"), Got::Nothing);
        one.write_all(b"one").expect("writes");
        assert_eq!(first.read(&mut bytes, SOON).expect("reads"), Got::Bytes(3));
        drop(one);
        assert_eq!(first.read(&mut bytes, SOON).expect("reads"), Got::End);
        // A writer that comes before the next opening finds a reader.
        let mut two = writer(&path);
        two.write_all(b"two").expect("writes");
        let mut second = Opened::open(&input).expect("opens");
        drop(first);
        assert_eq!(second.read(&mut bytes, SOON).expect("reads"), Got::Bytes(3));
        assert_eq!(&bytes[..3], b"two");
    }

    #[test]
    fn a_fifo_that_was_replaced_is_no_longer_the_one() {
        let folder = tempfile::tempdir().expect("folder");
        let path = make_fifo(folder.path(), "fifo");
        let mut opened = Opened::open(&Input::Fifo(path.clone())).expect("opens");
        std::fs::rename(&path, folder.path().join("old")).expect("renames");
        assert_eq!(opened.read(&mut [0], NOW).expect("reads"), Got::End);
        make_fifo(folder.path(), "fifo");
        assert_eq!(opened.read(&mut [0], NOW).expect("reads"), Got::End);
    }

    #[test]
    fn what_is_not_there_is_named_with_a_remedy() {
        let folder = tempfile::tempdir().expect("folder");
        let refused = |input: Input| {
            let checked = input.check().expect_err("refused").to_string();
            let opened = Opened::open(&input).expect_err("refused").to_string();
            assert_eq!(checked, opened);
            opened
        };
        let path = folder.path().join("fifo");
        let text = refused(Input::Fifo(path.clone()));
        assert!(
            text.contains(&format!("mkfifo {}", path.display())),
            "{text}"
        );
        std::fs::write(&path, "x").expect("writes");
        assert!(refused(Input::Fifo(path.clone())).contains("is no FIFO"));
        let program = path.display().to_string();
        for name in ["shipwatch-no-such-program", &format!("{program}-too")] {
            // What it is told may be a password.
            let text = refused(Input::Command(vec![name.to_owned(), "secret".to_owned()]));
            assert!(
                text.starts_with(&format!("{name}: no such program")),
                "{text}"
            );
            assert!(!text.contains("secret"), "{text}");
        }
        // A file that may not be run.
        let input = Input::Command(vec![program]);
        input.check().expect_err("refused");
        Opened::open(&input).expect_err("refused");
        let there = ["sh", "/bin/sh"].map(|name| Input::Command(vec![name.to_owned()]));
        there
            .iter()
            .for_each(|input| input.check().expect("is there"));
    }
}

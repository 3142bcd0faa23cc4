//! How the program ends: codes after sysexits, so that scripts and service managers can tell a
//! wrong command from a wrong file.

use std::io;
use std::process::ExitCode;

use log::error;
use shipwatch::model::ModelError;
use shipwatch::sink::PictureError;

/// The program's exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All went well.
    Success = 0,
    /// The command line makes no sense.
    Usage = 64,
    /// At least one frame failed.
    Data = 65,
    /// An input does not exist or holds nothing to read.
    NoInput = 66,
    /// No daemon runs.
    Unavailable = 69,
    /// A fault of the program.
    Software = 70,
    /// An output cannot be created.
    CannotCreate = 73,
    /// Reading or writing failed.
    Io = 74,
    /// The models or the configuration are unusable.
    Config = 78,
}

/// The codes as `--help` shows them.
pub(crate) const HELP: &str = "\
Exit codes:
  0   all went well; also when the reader of standard output went away
  64  the command line makes no sense
  65  at least one frame failed; the others were processed
  66  a path does not exist, or a folder holds no image
  69  no daemon runs whose status could be told
  70  a fault of the program
  73  an output cannot be created
  74  reading or writing failed
  78  the models or the configuration are unusable";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error with the code it ends the program with.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    error: anyhow::Error,
    may_pass: bool,
}

impl Failure {
    pub(crate) fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit,
            error: error.into(),
            may_pass: false,
        }
    }

    /// The same, and whether trying again may help.
    pub(crate) fn passing(self, may_pass: bool) -> Self {
        Self { may_pass, ..self }
    }

    /// Whether trying again may help.
    pub(crate) fn may_pass(&self) -> bool {
        self.may_pass
    }

    /// What went wrong.
    pub(crate) fn error(&self) -> &anyhow::Error {
        &self.error
    }

    /// Logs the error and gives its code. A reader that went away is no error.
    pub(crate) fn report(&self) -> ExitCode {
        if is_broken_pipe(&self.error) {
            return Exit::Success.into();
        }
        error!("{}", explain(&self.error));
        self.exit.into()
    }
}

/// Names the code that an error ends the program with.
pub(crate) trait OrExit<T> {
    fn or_exit(self, exit: Exit) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, exit: Exit) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(exit, error))
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        Self::new(Exit::Config, error)
    }
}

impl From<PictureError> for Failure {
    fn from(error: PictureError) -> Self {
        let exit = match error {
            PictureError::Folder { .. } | PictureError::Create { .. } => Exit::CannotCreate,
            PictureError::Write { .. } => Exit::Io,
        };
        Self::new(exit, error)
    }
}

/// Prints what clap has to say: help and version are successes, the rest is wrong usage.
pub(crate) fn report_usage(error: &clap::Error) -> ExitCode {
    // Nobody is left to tell when this fails.
    let _ = error.print();
    if error.use_stderr() {
        Exit::Usage.into()
    } else {
        Exit::Success.into()
    }
}

/// The error and its causes on one line. Some errors tell their cause themselves; it is not repeated.
pub(crate) fn explain(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        match text.as_str() {
            "" => cause,
            _ if text.contains(&cause) => text,
            _ => format!("{text}: {cause}"),
        }
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::InputError;

    #[test]
    fn help_names_every_code() {
        let codes = [
            Exit::Success,
            Exit::Usage,
            Exit::Data,
            Exit::NoInput,
            Exit::Unavailable,
            Exit::Software,
            Exit::CannotCreate,
            Exit::Io,
            Exit::Config,
        ];
        let listed: Vec<u8> = HELP
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().next().expect("a code"))
            .map(|code| code.parse().expect("a number"))
            .collect();
        assert_eq!(listed, codes.map(|code| code as u8));
    }

    #[test]
    fn a_cause_is_told_once() {
        let told = InputError::Path {
            path: "a.png".into(),
            source: io::Error::other("gone"),
        };
        assert_eq!(explain(&told.into()), "a.png: gone");
        let untold = anyhow::Error::new(io::Error::other("full")).context("standard output");
        assert_eq!(explain(&untold), "standard output: full");
    }

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let failure = Failure::new(
            Exit::Io,
            anyhow::Error::new(gone()).context("standard output"),
        );
        assert_eq!(failure.report(), ExitCode::SUCCESS);
        let full = Failure::new(Exit::Io, io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full.report(), ExitCode::from(74));
    }
}

//! Video that another program writes: Motion JPEG or YUV4MPEG2, from standard input, a FIFO, or a command
//! that is started anew when it dies.

#[cfg(unix)]
mod buffer;
#[cfg(unix)]
mod desk;
#[cfg(unix)]
mod input;
#[cfg(unix)]
mod mjpeg;
#[cfg(unix)]
mod planar;
#[cfg(unix)]
mod program;
#[cfg(unix)]
mod reader;
#[cfg(unix)]
mod source;
#[cfg(unix)]
mod split;
#[cfg(unix)]
mod y4m;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

#[cfg(unix)]
pub use input::InputError;
#[cfg(unix)]
pub use source::StreamSource;

use super::decode::DecodeOptions;

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// What the program was started with. It can be read once.
    Stdin,
    /// A FIFO, whose writers may come and go.
    Fifo(PathBuf),
    /// What a command writes, by its program and its arguments. There is no shell.
    Command(Vec<String>),
}

impl fmt::Display for Input {
    /// Arguments are left out, for they may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("standard input"),
            Self::Fifo(path) => path.display().fmt(f),
            Self::Command(command) => f.write_str(command.first().map_or("", String::as_str)),
        }
    }
}

/// How frames lie in a stream. In config files: the name in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// JPEGs one after the other, whatever lies between them.
    Mjpeg,
    /// YUV4MPEG2: a header, then frames of Y'CbCr without compression.
    Y4m,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mjpeg => "MJPEG",
            Self::Y4m => "Y4M",
        })
    }
}

/// Which stream, and how it is read.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamOptions {
    /// What is read.
    pub input: Input,
    /// How frames lie in it; found out from its first bytes where it is not said.
    pub form: Option<Form>,
    /// Time from one frame that is looked at to the next; all are where it is zero.
    pub interval: Duration,
    /// Whether the writer is held up while frames wait, so that none is lost. Else the newest counts, and what it
    /// replaces is passed over undecoded.
    pub keep_all: bool,
    /// A command of which no frame comes for so long is started anew.
    pub silence: Duration,
    /// How frames are decoded. [`DecodeOptions::max_pixels`] bounds the memory that the stream may take, too.
    pub decode: DecodeOptions,
}

impl StreamOptions {
    /// [`Self::silence`] unless another is said.
    pub const SILENCE: Duration = Duration::from_secs(30);

    /// Every frame of `input`, the newest first where they come too fast.
    pub fn new(input: Input) -> Self {
        Self {
            input,
            form: None,
            interval: Duration::ZERO,
            keep_all: false,
            silence: Self::SILENCE,
            decode: DecodeOptions::default(),
        }
    }
}

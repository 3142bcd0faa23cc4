//! Where frames come from.

#[cfg(feature = "camera")]
pub mod camera;
pub mod decode;
pub mod finish;
pub mod folder;
mod grey_tiff;
mod jpeg;
pub mod pixels;
pub mod search;
mod settle;
pub mod stamp;
mod tags;

use std::path::PathBuf;
use std::time::Duration;

use crate::frame::Frame;
use crate::ledger::{Key, LedgerError, Outcome};
use decode::DecodeError;
use stamp::Stamp;

/// A stream of frames that a loop asks for the next one.
pub trait Source {
    /// Waits for something to happen, `timeout` at most.
    ///
    /// # Errors
    /// If the ledger cannot say what is known.
    fn next(&mut self, timeout: Duration) -> Result<Next, LedgerError>;
}

/// What a [`Source`] had to say.
#[derive(Debug)]
pub enum Next {
    /// A frame to look at.
    Frame {
        /// The decoded frame.
        frame: Frame,
        /// How long reading and decoding took.
        decode: Duration,
        /// Its file.
        file: SourceFile,
    },
    /// Something arrived that is no usable frame. It is not offered again.
    Broken {
        /// What is wrong with it.
        error: DecodeError,
        /// Its file; none if that could not be read.
        file: Option<SourceFile>,
    },
    /// A file that the ledger knows.
    Known {
        /// The file.
        file: SourceFile,
        /// What came of it.
        outcome: Outcome,
    },
    /// Nothing arrived in time.
    Idle,
    /// Nothing will come any more.
    End,
}

/// The file that a frame is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Which frame it is.
    pub key: Key,
    /// How it was seen.
    pub stamp: Stamp,
}

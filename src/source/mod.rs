//! Where frames come from.

#[cfg(feature = "camera")]
pub mod camera;
pub mod decode;
pub mod finish;
pub mod folder;
mod grey_tiff;
pub mod in_hand;
mod jpeg;
mod live;
pub mod pixels;
pub mod search;
mod settle;
pub mod stamp;
pub mod stream;
mod tags;

use std::path::PathBuf;
use std::time::Duration;

use crate::frame::Frame;
use crate::ledger::{Key, LedgerError, Outcome};
use crate::record::FrameRecord;
use stamp::Stamp;

/// A stream of frames that a loop asks for the next one.
pub trait Source {
    /// Waits for something to happen, `timeout` at most.
    ///
    /// # Errors
    /// If the ledger cannot say what is known.
    fn next(&mut self, timeout: Duration) -> Result<Next, LedgerError>;

    /// What keeps it from giving frames at present, for people to read.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Frames that it knows of and has not given yet.
    fn backlog(&self) -> usize {
        0
    }

    /// Frames that came faster than they were taken, and are gone, since this was asked last.
    fn take_dropped(&mut self) -> u64 {
        0
    }
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
        /// Which frame it is.
        origin: Origin,
    },
    /// A frame that was looked at already, in a process of its own.
    Seen {
        /// What it shows.
        record: FrameRecord,
        /// Which frame it is.
        origin: Origin,
    },
    /// Something arrived that is no usable frame. It is not offered again.
    Broken {
        /// What is wrong with it, and with which.
        problem: String,
        /// Which frame it is; none if it may be a good one another time, by other options or with other rights.
        origin: Option<Origin>,
    },
    /// A file that the ledger knows.
    Known {
        /// Which frame it is.
        origin: Origin,
        /// What came of it.
        outcome: Outcome,
    },
    /// Nothing arrived in time.
    Idle,
    /// Nothing will come any more.
    End,
}

impl Next {
    /// Bytes that its pixels take.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Frame { frame, .. } => frame.pixels.as_raw().len() as u64,
            _ => 0,
        }
    }
}

/// Where a frame comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Which frame it is.
    pub key: Key,
    /// Its file, if it has one.
    pub file: Option<SourceFile>,
}

/// The file of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Where it lies.
    pub path: PathBuf,
    /// How it was seen.
    pub stamp: Stamp,
}

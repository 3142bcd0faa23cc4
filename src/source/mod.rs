//! Where frames come from.

#[cfg(feature = "camera")]
pub mod camera;
pub mod decode;
pub mod folder;
mod grey_tiff;
mod jpeg;
pub mod search;
mod settle;
mod tags;

use std::time::Duration;

use crate::frame::Frame;
use decode::DecodeError;

/// A stream of frames that a loop asks for the next one.
pub trait Source {
    /// Waits for something to happen, `timeout` at most.
    fn next(&mut self, timeout: Duration) -> Next;
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
    },
    /// Something arrived that is no usable frame. It is not offered again.
    Broken(DecodeError),
    /// Nothing arrived in time.
    Idle,
    /// Nothing will come any more.
    End,
}

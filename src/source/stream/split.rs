//! From bytes as they come to frames that are still encoded.

use std::mem;

use super::Form;
use super::mjpeg::Mjpeg;
use super::planar::Planar;
use super::y4m::{MAGIC, Y4m, Y4mError};
use crate::frame::{RgbImage, Tags, stretch_integers};
use crate::source::decode::DecodeOptions;
use crate::source::pixels::{PixelError, decode_mjpeg};

/// What was cut from a stream.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    Frame(Encoded),
    /// What is wrong with what is no frame. The stream goes on.
    Broken(String),
}

/// A frame as it came.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Encoded {
    Jpeg(Vec<u8>),
    /// As many bytes as [`Planar::bytes`] says.
    Planar(Planar, Vec<u8>),
}

impl Encoded {
    pub(super) fn form(&self) -> Form {
        match self {
            Self::Jpeg(_) => Form::Mjpeg,
            Self::Planar(..) => Form::Y4m,
        }
    }

    pub(super) fn decode(&self, options: &DecodeOptions) -> Result<(RgbImage, Tags), PixelError> {
        match self {
            Self::Jpeg(bytes) => {
                let frame = decode_mjpeg(bytes, options)?;
                Ok((frame.pixels, frame.tags))
            }
            Self::Planar(planar, bytes) => {
                let mut pixels = planar.to_rgb(bytes);
                if let Some(percentiles) = options.stretch {
                    let stretched = stretch_integers(&pixels, percentiles);
                    pixels.copy_from_slice(&stretched);
                }
                Ok((pixels, Tags::default()))
            }
        }
    }
}

/// What a frame may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) bytes: usize,
    pub(super) pixels: u64,
}

impl Limits {
    /// For a frame as it lies in the stream: 3 bytes for a pixel and some for headers, and no more than an 8K frame
    /// of 4:4:4 takes.
    pub(super) fn new(pixels: u64) -> Self {
        const HEADERS: u64 = 1 << 20;
        const MOST: u64 = 128 << 20;
        let bytes = pixels.saturating_mul(3).saturating_add(HEADERS);
        Self {
            bytes: bytes.min(MOST) as usize,
            pixels,
        }
    }
}

/// Cuts one opening of a stream.
#[derive(Debug)]
pub(super) enum Splitter {
    /// The first bytes, as long as they do not tell.
    Unknown(Vec<u8>, Limits),
    Mjpeg(Mjpeg),
    Y4m(Y4m),
}

impl Splitter {
    pub(super) fn new(form: Option<Form>, limits: Limits) -> Self {
        match form {
            None => Self::Unknown(Vec::new(), limits),
            Some(form) => Self::of(form, limits),
        }
    }

    fn of(form: Form, limits: Limits) -> Self {
        match form {
            Form::Mjpeg => Self::Mjpeg(Mjpeg::new(limits.bytes)),
            Form::Y4m => Self::Y4m(Y4m::new(limits)),
        }
    }

    /// Takes bytes in.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        match self {
            Self::Mjpeg(mjpeg) => mjpeg.feed(bytes),
            Self::Y4m(y4m) => y4m.feed(bytes),
            Self::Unknown(first, limits) => {
                first.extend_from_slice(bytes);
                let alike = first.iter().zip(MAGIC).take_while(|(a, b)| a == b).count();
                if alike == MAGIC.len() {
                    let first = mem::take(first);
                    *self = Self::of(Form::Y4m, *limits);
                    self.feed(&first);
                } else if alike < first.len() {
                    let first = mem::take(first);
                    *self = Self::of(Form::Mjpeg, *limits);
                    self.feed(&first);
                }
            }
        }
    }

    /// The next frame, or what is none; `None` if more bytes are needed to tell.
    ///
    /// # Errors
    /// If no frames will come of this opening.
    pub(super) fn next(&mut self) -> Result<Option<Piece>, Y4mError> {
        match self {
            Self::Unknown(..) => Ok(None),
            Self::Mjpeg(mjpeg) => Ok(mjpeg.next()),
            Self::Y4m(y4m) => y4m.next(),
        }
    }

    /// What is wrong with an end of the stream here, after all that [`Self::next`] gives.
    pub(super) fn at_end(&self) -> Option<&'static str> {
        let whole = match self {
            Self::Unknown(first, _) => first.is_empty(),
            Self::Mjpeg(mjpeg) => mjpeg.is_between(),
            Self::Y4m(y4m) => y4m.is_between(),
        };
        (!whole).then_some("a frame that is cut off by the end of the stream")
    }
}

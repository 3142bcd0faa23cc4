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

    /// For the end of the stream, once [`Self::next`] gives nothing more: what is wrong with what it cuts off. Asked
    /// by turns with [`Self::next`] until both give nothing.
    pub(super) fn end(&mut self) -> Option<Piece> {
        match self {
            Self::Unknown(first, _) => {
                let problem = "a stream that ends before its first frame";
                let nothing = mem::take(first).is_empty();
                (!nothing).then(|| Piece::Broken(problem.to_owned()))
            }
            Self::Mjpeg(mjpeg) => mjpeg.end(),
            Self::Y4m(y4m) => y4m.end(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Percentiles;

    const JPEG: &[u8] = b"\xFF\xD8\xFF\xDA\x00\x02\x07\xFF\xD9";
    const Y4M: &[u8] = b"YUV4MPEG2 W1 H1 Cmono\nFRAME\n\x10";

    /// A stream that comes a byte at a time.
    fn forms(form: Option<Form>, stream: &[u8]) -> Vec<Option<Form>> {
        let mut splitter = Splitter::new(form, Limits::new(100));
        let mut forms = Vec::new();
        for byte in stream {
            splitter.feed(&[*byte]);
            while let Some(piece) = splitter.next().expect("no fault") {
                forms.push(match piece {
                    Piece::Frame(frame) => Some(frame.form()),
                    Piece::Broken(_) => None,
                });
            }
        }
        forms
    }

    #[test]
    fn the_first_bytes_tell_the_form() {
        assert_eq!(forms(None, JPEG), [Some(Form::Mjpeg)]);
        assert_eq!(forms(None, Y4M), [Some(Form::Y4m)]);
        let late = [b"YUV4 or not", JPEG].concat();
        assert_eq!(forms(None, &late), [Some(Form::Mjpeg)]);
        assert_eq!(forms(Some(Form::Mjpeg), Y4M), []);
        let mut y4m = Splitter::new(Some(Form::Y4m), Limits::new(100));
        y4m.feed(JPEG);
        y4m.feed(b"\n");
        assert_eq!(y4m.next(), Err(Y4mError::NoHeader));
    }

    #[test]
    fn an_end_before_the_form_is_known_is_noticed() {
        let mut splitter = Splitter::new(None, Limits::new(100));
        assert_eq!(splitter.end(), None);
        splitter.feed(b"YUV4");
        assert!(splitter.end().is_some());
        assert_eq!(splitter.end(), None);
    }

    #[test]
    fn limits_follow_from_the_pixels_and_end_at_128_mib() {
        assert_eq!(Limits::new(1_000_000).bytes, 3_000_000 + (1 << 20));
        assert_eq!(Limits::new(400_000_000).bytes, 128 << 20);
        assert_eq!(Limits::new(u64::MAX).bytes, 128 << 20);
        // 7680x4320 in 4:4:4.
        assert!(Limits::new(33_177_600).bytes as u64 >= 3 * 33_177_600);
    }

    #[test]
    fn values_are_stretched_where_it_is_asked_for() {
        let grey = b"YUV4MPEG2 W4 H1 Cmono XCOLORRANGE=FULL\nFRAME\n\x64\x68\x6C\x70";
        let mut splitter = Splitter::new(None, Limits::new(100));
        splitter.feed(grey);
        let Ok(Some(Piece::Frame(frame))) = splitter.next() else {
            panic!("a frame");
        };
        let options = DecodeOptions {
            stretch: Percentiles::new(0.0, 100.0).ok(),
            ..DecodeOptions::default()
        };
        let (pixels, _) = frame.decode(&options).expect("decodes");
        let values: Vec<u8> = pixels.pixels().map(|pixel| pixel[0]).collect();
        assert_eq!(values, [0, 85, 170, 255]);
    }
}

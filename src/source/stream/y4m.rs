//! YUV4MPEG2 (Y4M), as yuv4mpeg(5) of mjpegtools and FFmpeg's muxer write it: a line of parameters, then frames,
//! each a line that begins with `FRAME` and the planes of Y', Cb and Cr.

use super::buffer::Buffer;
use super::planar::Planar;
use super::split::{Encoded, Limits, Piece};
use crate::source::pixels::{Colours, Encoding, Range};

/// What a header begins with.
pub(super) const MAGIC: &[u8] = b"YUV4MPEG2";
const FRAME: &[u8] = b"FRAME";
/// Bytes of the longest line; mjpegtools writes 256 at most.
const LINE: usize = 1024;

/// Why a stream gives no frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Y4mError {
    /// It begins with something else.
    #[error("no YUV4MPEG2: no line of parameters at the start")]
    NoHeader,
    /// A parameter that must be there.
    #[error("YUV4MPEG2 without a usable {0}")]
    Missing(&'static str),
    /// More than 8 bits for a sample.
    #[error(
        "YUV4MPEG2 with `C{0}`, more than 8 bits for a sample; have it written with 8, as by `-pix_fmt yuv420p` of ffmpeg"
    )]
    Deep(String),
    /// Samples that lie in a way that is not known here.
    #[error(
        "YUV4MPEG2 with `C{0}`, which is not understood; have it written as 4:2:0, as by `-pix_fmt yuv420p` of ffmpeg"
    )]
    Unknown(String),
    /// More than a frame may have.
    #[error(
        "YUV4MPEG2 of {width}x{height} pixels, over the limit; raise `max-pixels` if memory allows, up to 128 MiB a frame"
    )]
    TooLarge {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
}

/// Cuts a stream into frames.
#[derive(Debug)]
pub(super) struct Y4m {
    buffer: Buffer,
    limits: Limits,
    /// As the last header says.
    planar: Option<Planar>,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A line must begin here.
    Line,
    /// A frame's planes.
    Planes,
    /// No line began where one must.
    Lost,
}

impl Y4m {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            buffer: Buffer::default(),
            limits,
            planar: None,
            place: Place::Line,
        }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.feed(bytes);
    }

    pub(super) fn is_between(&self) -> bool {
        match self.place {
            Place::Line => self.buffer.rest().is_empty(),
            Place::Planes => false,
            // That was said.
            Place::Lost => true,
        }
    }

    /// The next frame, or what is none; `None` if that needs more bytes.
    pub(super) fn next(&mut self) -> Result<Option<Piece>, Y4mError> {
        loop {
            let rest = self.buffer.rest();
            match (self.place, self.planar) {
                (Place::Planes, Some(planar)) => {
                    // Within the limit of bytes, and so within usize.
                    let bytes = planar.bytes() as usize;
                    if rest.len() < bytes {
                        return Ok(None);
                    }
                    self.place = Place::Line;
                    let frame = Encoded::Planar(planar, self.buffer.take(bytes));
                    return Ok(Some(Piece::Frame(frame)));
                }
                (Place::Lost, _) => {
                    if !self.search() {
                        return Ok(None);
                    }
                    self.place = Place::Line;
                }
                (Place::Line | Place::Planes, planar) => {
                    let within = &rest[..rest.len().min(LINE)];
                    let end = within.iter().position(|&byte| byte == b'\n');
                    if end.is_none() && rest.len() < LINE {
                        return Ok(None);
                    }
                    let line = &within[..end.unwrap_or(0)];
                    if let Some(parameters) = begins(line, MAGIC) {
                        let parameters = String::from_utf8_lossy(parameters);
                        self.planar = Some(header(&parameters, self.limits)?);
                    } else if begins(line, FRAME).is_some() && planar.is_some() {
                        self.place = Place::Planes;
                    } else if planar.is_none() {
                        return Err(Y4mError::NoHeader);
                    } else {
                        // Else the search would find the same again.
                        self.buffer.skip(1);
                        self.place = Place::Lost;
                        let problem = "bytes of YUV4MPEG2 where a frame should begin";
                        return Ok(Some(Piece::Broken(problem.to_owned())));
                    }
                    self.buffer.skip(line.len() + 1);
                }
            }
        }
    }

    /// Goes to what may be the next line; false if there is none yet.
    fn search(&mut self) -> bool {
        let rest = self.buffer.rest();
        let starts = |at: usize| {
            let rest = &rest[at..];
            let (frame, magic) = (rest.strip_prefix(FRAME), rest.strip_prefix(MAGIC));
            magic
                .or(frame)
                .is_some_and(|rest| matches!(rest, [b' ' | b'\n', ..]))
        };
        let found = (0..rest.len()).find(|&at| starts(at));
        // What is kept may be the beginning of one.
        let passed = found.unwrap_or(rest.len().saturating_sub(MAGIC.len()));
        self.buffer.skip(passed);
        found.is_some()
    }
}

/// The parameters of a line that begins with that word.
fn begins<'a>(line: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let rest = line.strip_prefix(word)?;
    matches!(rest, [] | [b' ', ..]).then_some(rest)
}

fn header(parameters: &str, limits: Limits) -> Result<Planar, Y4mError> {
    let (mut width, mut height) = (0, 0);
    let mut sampling = "420jpeg";
    let mut range = Range::Limited;
    for parameter in parameters.split(' ') {
        // Rate, aspect, interlacing and comments change no pixel.
        if let Some(value) = parameter.strip_prefix('W') {
            width = value.parse().unwrap_or(0);
        } else if let Some(value) = parameter.strip_prefix('H') {
            height = value.parse().unwrap_or(0);
        } else if let Some(value) = parameter.strip_prefix('C') {
            sampling = value;
        } else if parameter == "XCOLORRANGE=FULL" {
            range = Range::Full;
        }
    }
    for (side, what) in [(width, "width"), (height, "height")] {
        if side == 0 {
            return Err(Y4mError::Missing(what));
        }
    }
    let planar = Planar {
        width,
        height,
        chroma: chroma(sampling)?,
        colours: Colours {
            encoding: encoding(width, height),
            range,
        },
    };
    let pixels = u64::from(width) * u64::from(height);
    if pixels > limits.pixels || planar.bytes() > limits.bytes as u64 {
        return Err(Y4mError::TooLarge { width, height });
    }
    Ok(planar)
}

/// [`Planar::chroma`] by a header's `C`.
fn chroma(sampling: &str) -> Result<Option<[u32; 2]>, Y4mError> {
    Ok(match sampling {
        // They differ in where samples of chroma were taken, by half a pixel at most.
        "420" | "420jpeg" | "420mpeg2" | "420paldv" => Some([2, 2]),
        "411" => Some([4, 1]),
        "422" => Some([2, 1]),
        "444" => Some([1, 1]),
        "mono" => None,
        deep if is_deep(deep) => return Err(Y4mError::Deep(deep.to_owned())),
        other => return Err(Y4mError::Unknown(other.to_owned())),
    })
}

/// Of the kind of `420p10` or `mono16`.
fn is_deep(sampling: &str) -> bool {
    let bits = sampling
        .strip_prefix("mono")
        .or_else(|| sampling.split_once('p').map(|(_, bits)| bits));
    bits.and_then(|bits| bits.parse::<u8>().ok())
        .is_some_and(|bits| bits > 8)
}

/// No header says; players take high definition for BT.709 from these sizes on (mpv's `mp_csp_guess_colorspace`).
fn encoding(width: u32, height: u32) -> Encoding {
    match width >= 1280 || height > 576 {
        true => Encoding::Bt709,
        false => Encoding::Bt601,
    }
}

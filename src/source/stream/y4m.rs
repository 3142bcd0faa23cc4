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

    /// For the end of the stream, once [`Self::next`] gives nothing more: what is wrong with the frame that it cuts
    /// off, if it does.
    pub(super) fn end(&mut self) -> Option<Piece> {
        let whole = match self.place {
            Place::Line => self.buffer.rest().is_empty(),
            Place::Planes => false,
            // That was said.
            Place::Lost => true,
        };
        self.place = Place::Lost;
        let problem = "a frame of YUV4MPEG2 that is cut off by the end of the stream";
        (!whole).then(|| Piece::Broken(problem.to_owned()))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::source::decode::DecodeOptions;

    const LIMITS: Limits = Limits {
        bytes: 1000,
        pixels: 400,
    };

    type Cut = (Vec<Piece>, Option<Y4mError>);

    /// What a stream is cut into that comes in such pieces, the last of which is the rest.
    fn cut_at(stream: &[u8], lengths: &[usize]) -> Cut {
        let mut y4m = Y4m::new(LIMITS);
        let mut pieces = Vec::new();
        let mut rest = stream;
        for &length in lengths.iter().chain([&usize::MAX]) {
            let (now, then) = rest.split_at(length.min(rest.len()));
            y4m.feed(now);
            loop {
                match y4m.next() {
                    Ok(Some(piece)) => pieces.push(piece),
                    Ok(None) => break,
                    Err(error) => return (pieces, Some(error)),
                }
            }
            assert!(y4m.buffer.rest().len() < LIMITS.bytes.max(LINE));
            rest = then;
        }
        (pieces, None)
    }

    fn fault(stream: &str) -> Y4mError {
        let (pieces, error) = cut_at(stream.as_bytes(), &[]);
        assert_eq!(pieces, []);
        error.expect(stream)
    }

    /// The pixels of the frames of a stream, `broken` where one is.
    fn pixels(stream: &[u8]) -> Vec<Vec<[u8; 3]>> {
        let (pieces, error) = cut_at(stream, &[]);
        assert_eq!(error, None);
        let pixels = |piece: &Piece| match piece {
            Piece::Broken(_) => Vec::new(),
            Piece::Frame(frame) => {
                let decoded = frame.decode(&DecodeOptions::default());
                let (image, _) = decoded.expect("planes always are");
                image.pixels().map(|pixel| pixel.0).collect()
            }
        };
        pieces.iter().map(pixels).collect()
    }

    fn assert_near(is: &[[u8; 3]], should: &[[u8; 3]], what: &str) {
        assert_eq!(is.len(), should.len(), "{what}");
        for (a, b) in is.iter().flatten().zip(should.iter().flatten()) {
            assert!(a.abs_diff(*b) <= 1, "{what}: {is:?}, not {should:?}");
        }
    }

    const WHITE: [u8; 3] = [255; 3];
    const BLACK: [u8; 3] = [0; 3];
    const RED: [u8; 3] = [255, 0, 0];
    const GREEN: [u8; 3] = [0, 255, 0];
    const BLUE: [u8; 3] = [0, 0, 255];

    /// Y', Cb and Cr are those that ITU-R BT.601 gives for full colours: red 81, 90, 240; green 145, 54, 34; blue 41,
    /// 240, 110; white 235 and black 16 with 128, 128.
    #[test]
    fn each_sampling_gives_the_colours_of_bt_601() {
        for (sampling, planes, colours) in [
            (
                " C444",
                &[235, 16, 81, 145, 128, 128, 90, 54, 128, 128, 240, 34][..],
                [WHITE, BLACK, RED, GREEN],
            ),
            (
                " C422",
                &[81, 81, 41, 41, 90, 240, 240, 110],
                [RED, RED, BLUE, BLUE],
            ),
            (" C420jpeg", &[81, 81, 81, 81, 90, 240], [RED; 4]),
            (" C420mpeg2", &[41, 41, 41, 41, 240, 110], [BLUE; 4]),
            (" C420paldv", &[145, 145, 145, 145, 54, 34], [GREEN; 4]),
            (
                " C420",
                &[235, 16, 16, 235, 128, 128],
                [WHITE, BLACK, BLACK, WHITE],
            ),
            ("", &[145, 145, 145, 145, 54, 34], [GREEN; 4]),
            (
                " C411",
                &[81, 81, 41, 41, 90, 240, 240, 110],
                [RED, RED, BLUE, BLUE],
            ),
            (" Cmono", &[235, 16, 235, 16], [WHITE, BLACK, WHITE, BLACK]),
        ] {
            let header = format!("YUV4MPEG2 W2 H2 F25:1 Ip A1:1{sampling}\nFRAME\n");
            let stream = [header.as_bytes(), planes].concat();
            let pixels = pixels(&stream);
            assert_eq!(pixels.len(), 1, "{sampling}");
            assert_near(&pixels[0], &colours, sampling);
        }
    }

    /// JFIF: red is 76, 85, 255; BT.709, limited: 63, 102, 240.
    #[test]
    fn range_and_size_change_what_numbers_mean() {
        let full = b"YUV4MPEG2 W2 H2 C420jpeg XYSCSS=420JPEG XCOLORRANGE=FULL\nFRAME\n\x4C\x4C\x4C\x4C\x55\xFF";
        assert_near(&pixels(full)[0], &[RED; 4], "full");
        let encoding = |width, height| encoding(width, height);
        assert_eq!(encoding(720, 576), Encoding::Bt601);
        assert_eq!(encoding(1920, 1080), Encoding::Bt709);
        let limits = Limits::new(1 << 22);
        let wide = header(" W1280 H2 C444", limits).expect("a header");
        let planes = [vec![63; 2560], vec![102; 2560], vec![240; 2560]].concat();
        assert_near(&[wide.to_rgb(&planes)[(1279, 1)].0], &[RED], "wide");
    }

    /// An odd side has a sample of chroma more than half of its pixels.
    #[test]
    fn odd_sides_are_rounded_up() {
        let luma = [81, 81, 41, 81, 81, 41, 145, 145, 235];
        let blue = [90, 240, 54, 128];
        let red = [240, 110, 34, 128];
        let stream = [&b"YUV4MPEG2 W3 H3\nFRAME\n"[..], &luma, &blue, &red].concat();
        let should = [RED, RED, BLUE, RED, RED, BLUE, GREEN, GREEN, WHITE];
        assert_near(&pixels(&stream)[0], &should, "3x3");
        for (sampling, width, height, bytes) in [
            ("420", 3, 3, 9 + 2 * 4),
            ("422", 3, 3, 9 + 2 * 6),
            ("411", 5, 3, 15 + 2 * 6),
            ("444", 3, 3, 27),
            ("mono", 3, 3, 9),
        ] {
            let text = format!(" W{width} H{height} C{sampling}");
            let planar = header(&text, LIMITS).expect("a header");
            assert_eq!(planar.bytes(), bytes, "{text}");
        }
    }

    #[test]
    fn headers_that_are_not_understood_say_why() {
        assert_eq!(fault("RIFF\n"), Y4mError::NoHeader);
        assert_eq!(fault("FRAME\nabcd\n"), Y4mError::NoHeader);
        assert_eq!(fault(&"YUV4MPEG2 ".repeat(200)), Y4mError::NoHeader);
        assert_eq!(fault("YUV4MPEG2 H2\n"), Y4mError::Missing("width"));
        assert_eq!(fault("YUV4MPEG2 W2 H0\n"), Y4mError::Missing("height"));
        assert_eq!(
            fault("YUV4MPEG2 W2 H99999999999\n"),
            Y4mError::Missing("height")
        );
        for deep in ["420p10", "422p12", "444p16", "mono10", "mono16"] {
            let error = fault(&format!("YUV4MPEG2 W2 H2 C{deep}\n"));
            assert_eq!(error, Y4mError::Deep(deep.to_owned()));
            assert!(error.to_string().contains("-pix_fmt yuv420p"), "{error}");
        }
        let unknown = Y4mError::Unknown("444alpha".to_owned());
        assert_eq!(fault("YUV4MPEG2 W2 H2 C444alpha\n"), unknown);
        let (width, height) = (20, 21);
        assert_eq!(
            fault("YUV4MPEG2 W20 H21\n"),
            Y4mError::TooLarge { width, height }
        );
        // 400 pixels, but 1200 bytes.
        fault("YUV4MPEG2 W20 H20 C444\n");
        fault("YUV4MPEG2 W4294967295 H4294967295\n");
    }

    #[test]
    fn a_stream_goes_on_behind_rubbish_and_another_header() {
        let stream = b"YUV4MPEG2 W1 H1 Cmono\nFRAME\n\x10FRAME Ixyz\n\xEBrubbish\n FRAMEFRAMES \n FRAME\n\x10\
            YUV4MPEG2 W2 H1 Cmono F1:1\nFRAME\n\xEB\x10FRAME\n\n\n";
        let pixels = pixels(stream);
        let [a, b, lost, c, d, e] = &pixels[..] else {
            panic!("{pixels:?}");
        };
        assert_eq!([a, b, c], [&[BLACK], &[WHITE], &[BLACK]]);
        assert!(lost.is_empty());
        assert_eq!(d, &[WHITE, BLACK]);
        assert_eq!(e.len(), 2, "planes may hold any bytes");
    }

    #[test]
    fn an_end_within_a_frame_is_noticed() {
        let stream = b"YUV4MPEG2 W1 H1 Cmono\nFRAME\n\x10";
        for end in 1..=stream.len() {
            let mut y4m = Y4m::new(LIMITS);
            y4m.feed(&stream[..end]);
            while y4m.next().expect("no fault").is_some() {}
            let whole = end == 22 || end == stream.len();
            assert_eq!(y4m.end().is_none(), whole, "{end}");
            assert_eq!(y4m.end(), None, "said once");
        }
    }

    proptest! {
        /// However the bytes come, and whatever they are, memory is bounded and the result the same.
        #[test]
        fn pieces_do_not_depend_on_how_the_bytes_come(
            parts in proptest::collection::vec(prop_oneof![
                2 => Just(b"YUV4MPEG2 W2 H2\n".to_vec()),
                1 => Just(b"YUV4MPEG2 W20 H20 Cmono XCOLORRANGE=FULL\n".to_vec()),
                4 => Just(b"FRAME\nyyyyuv".to_vec()),
                1 => Just(b"FRAME I".to_vec()),
                1 => Just(b"YUV4".to_vec()),
                2 => proptest::collection::vec(any::<u8>(), 0..300),
                1 => Just(vec![b'x'; LINE]),
            ], 0..12),
            lengths in proptest::collection::vec(0..60_usize, 0..40),
        ) {
            let stream = [b"YUV4MPEG2 W2 H2\n".to_vec(), parts.concat()].concat();
            let whole = cut_at(&stream, &[]);
            prop_assert_eq!(&cut_at(&stream, &lengths), &whole);
            prop_assert_eq!(&cut_at(&stream, &vec![1; stream.len()]), &whole);
        }

        #[test]
        fn no_header_panics(text in "( ([WHCFIAX][0-9a-zA-Z:=]{0,12}))*") {
            let _ = header(&text, LIMITS);
        }
    }
}

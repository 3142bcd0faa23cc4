//! JPEGs one after the other (Motion JPEG), told apart by their markers (ISO/IEC 10918-1, Annex B).
//!
//! Searching for the end marker would cut at that of a thumbnail in a segment, so segments are passed over by
//! their lengths. What lies between images is passed over: cameras append data, and servers put headers there.

use super::buffer::Buffer;
use super::split::{Encoded, Piece};

/// The start of an image and the first byte of the marker that follows.
const START: [u8; 3] = [0xFF, 0xD8, 0xFF];
/// What the length of a scan's header says at most: that of four components.
const SCAN_HEADER: usize = 14;
/// So many bytes without an image are said to be none.
const RUBBISH: usize = 1 << 20;

/// Cuts a stream into images, whose content is not looked at.
#[derive(Debug)]
pub(super) struct Mjpeg {
    buffer: Buffer,
    /// Bytes of an image at most.
    limit: usize,
    place: Place,
    /// Bytes that were passed over since the last image, or since they were last said to be none.
    rubbish: usize,
}

/// Where in the stream all is known of what lies before. Numbers count from the start of the image.
#[derive(Debug, Clone, Copy)]
enum Place {
    Between,
    /// A marker must begin at `at`. `last` is where the content of the last segment begins, which may be
    /// shorter than it says if none does.
    Marker {
        at: usize,
        last: usize,
    },
    /// In entropy-coded data.
    Scan {
        at: usize,
    },
}

impl Mjpeg {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            buffer: Buffer::default(),
            limit,
            place: Place::Between,
            rubbish: 0,
        }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.feed(bytes);
    }

    /// The next image, or what is none; `None` if that needs more bytes.
    pub(super) fn next(&mut self) -> Option<Piece> {
        loop {
            let piece = match self.place {
                Place::Between => self.search()?,
                Place::Marker { at, .. } | Place::Scan { at } if at > self.limit => {
                    // Where to go on must not depend on how much is there already.
                    (self.buffer.rest().len() >= self.limit).then_some(())?;
                    let problem = format!("a JPEG of more than {} bytes", self.limit);
                    Some(self.give_up(self.limit, problem))
                }
                Place::Marker { at, last } => self.marker(at, last)?,
                Place::Scan { at } => self.scan(at)?,
            };
            if piece.is_some() {
                return piece;
            }
        }
    }

    /// For the end of the stream, once [`Self::next`] gives nothing more: what is wrong with the image that it cuts
    /// off, if it does. What lies behind a length that was wrong may hold images.
    pub(super) fn end(&mut self) -> Option<Piece> {
        let there = self.buffer.rest().len();
        let from = match self.place {
            Place::Between => return None,
            Place::Marker { at, last } if at > there => last,
            Place::Marker { at, .. } | Place::Scan { at } => at,
        };
        let problem = "a JPEG that is cut off by the end of the stream";
        Some(self.give_up(from, problem.to_owned()))
    }

    /// Each step: `None` if it needs more bytes, else what it found.
    fn search(&mut self) -> Option<Option<Piece>> {
        let rest = self.buffer.rest();
        let found = rest.windows(START.len()).position(|it| it == START);
        let passed = found.unwrap_or_else(|| {
            let begun = (1..START.len())
                .rev()
                .find(|&n| rest.ends_with(&START[..n]));
            rest.len() - begun.unwrap_or(0)
        });
        self.buffer.skip(passed);
        self.rubbish += passed;
        if self.rubbish >= RUBBISH {
            self.rubbish -= RUBBISH;
            let problem = format!(
                "{RUBBISH} bytes without a JPEG; of video, only Motion JPEG and YUV4MPEG2 are understood"
            );
            return Some(Some(Piece::Broken(problem)));
        }
        found?;
        self.rubbish = 0;
        self.place = Place::Marker { at: 2, last: 2 };
        Some(None)
    }

    fn marker(&mut self, at: usize, last: usize) -> Option<Option<Piece>> {
        let rest = self.buffer.rest().get(at..)?;
        let code = match rest {
            // Any number of these may stand before a marker.
            [0xFF, 0xFF, ..] => {
                self.place = Place::Marker { at: at + 1, last };
                return Some(None);
            }
            [0xFF, code, ..] => *code,
            [] | [0xFF] => return None,
            [_, ..] => return Some(Some(self.damaged(last))),
        };
        self.place = match code {
            0xD9 => {
                self.place = Place::Between;
                let image = self.buffer.take(at + 2);
                return Some(Some(Piece::Frame(Encoded::Jpeg(image))));
            }
            0xD8 => return Some(Some(self.cut_off(at))),
            // TEM and restarts have no segment.
            0x01 | 0xD0..=0xD7 => Place::Marker { at: at + 2, last },
            // Reserved, or data.
            0x00..=0xBF => return Some(Some(self.damaged(last))),
            _ => {
                let length = rest.get(2..4)?;
                let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                let end = at + 2 + length;
                match code {
                    _ if length < 2 => return Some(Some(self.damaged(at + 2))),
                    0xDA if length > SCAN_HEADER => return Some(Some(self.damaged(at + 2))),
                    0xDA => Place::Scan { at: end },
                    _ => Place::Marker {
                        at: end,
                        last: at + 4,
                    },
                }
            }
        };
        Some(None)
    }

    fn scan(&mut self, at: usize) -> Option<Option<Piece>> {
        let rest = self.buffer.rest();
        let within = &rest[..rest.len().min(self.limit + 1)];
        let data = within.get(at..)?;
        let Some(found) = data.iter().position(|&byte| byte == 0xFF) else {
            self.place = Place::Scan { at: within.len() };
            return (within.len() > self.limit).then_some(None);
        };
        let at = at + found;
        self.place = Place::Scan { at };
        self.place = match *rest.get(at + 1)? {
            // A byte of data, or a restart.
            0x00 | 0xD0..=0xD7 => Place::Scan { at: at + 2 },
            0xFF => Place::Scan { at: at + 1 },
            _ => Place::Marker { at, last: at },
        };
        Some(None)
    }

    fn damaged(&mut self, from: usize) -> Piece {
        self.give_up(from, "a JPEG that is damaged".to_owned())
    }

    fn cut_off(&mut self, from: usize) -> Piece {
        self.give_up(from, "a JPEG that is cut off by the next".to_owned())
    }

    /// Searches for the next image from there on.
    fn give_up(&mut self, from: usize, problem: String) -> Piece {
        self.buffer.skip(from);
        self.place = Place::Between;
        Piece::Broken(problem)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a stream is cut into that comes in such pieces, the last of which is the rest.
    fn cut_at(stream: &[u8], limit: usize, lengths: &[usize]) -> Vec<Piece> {
        let mut mjpeg = Mjpeg::new(limit);
        let mut pieces = Vec::new();
        let mut rest = stream;
        let lengths = lengths.iter().chain([&usize::MAX]);
        for &length in lengths {
            let (now, then) = rest.split_at(length.min(rest.len()));
            mjpeg.feed(now);
            pieces.extend(std::iter::from_fn(|| mjpeg.next()));
            assert!(mjpeg.buffer.rest().len() <= limit + 4);
            rest = then;
        }
        while let Some(piece) = mjpeg.end() {
            pieces.push(piece);
            pieces.extend(std::iter::from_fn(|| mjpeg.next()));
        }
        pieces
    }

    fn cut(stream: &[u8]) -> Vec<Piece> {
        cut_at(stream, 1 << 16, &[])
    }

    fn image(bytes: &[u8]) -> Piece {
        Piece::Frame(Encoded::Jpeg(bytes.to_vec()))
    }

    fn broken(pieces: &[Piece]) -> Vec<&str> {
        let texts = pieces.iter().filter_map(|piece| match piece {
            Piece::Broken(text) => Some(text.as_str()),
            Piece::Frame(_) => None,
        });
        texts.collect()
    }

    /// A segment with a whole image within, two scans with a table between them, a stuffed byte, a restart, a fill
    /// byte before a marker: all that holds an 0xFF where no end is.
    const TRICKY: &[u8] = b"\xFF\xD8\
        \xFF\xE1\x00\x08\xFF\xD8\xFF\xD9\xFF\xD8\
        \xFF\xFF\xDB\x00\x03\xFF\
        \xFF\xDA\x00\x04\xFF\xD9\
        \x12\xFF\x00\xD9\xFF\xD0\x34\xFF\xD7\xFF\xFF\x00\
        \xFF\xC4\x00\x02\
        \xFF\xDA\x00\x02\x56\
        \xFF\xFF\xD9";
    const PLAIN: &[u8] = b"\xFF\xD8\xFF\xDA\x00\x02\x07\x08\xFF\xD9";

    #[test]
    fn images_end_where_their_markers_say() {
        let stream = [TRICKY, PLAIN, PLAIN, TRICKY].concat();
        assert_eq!(cut(&stream), [TRICKY, PLAIN, PLAIN, TRICKY].map(image));
    }

    #[test]
    fn what_lies_between_images_is_passed_over() {
        let header = b"\r\n--frame\r\nContent-Type: image/jpeg\r\n\r\n";
        let stream = [
            header,
            PLAIN,
            header,
            b"\xFF\xD8 \xFF",
            PLAIN,
            &[0; 99],
            TRICKY,
        ]
        .concat();
        assert_eq!(cut(&stream), [PLAIN, PLAIN, TRICKY].map(image));
    }

    #[test]
    fn a_damaged_image_takes_none_of_those_that_follow_with_it() {
        for end in 3..TRICKY.len() {
            let stream = [PLAIN, &TRICKY[..end], PLAIN, PLAIN, PLAIN].concat();
            let pieces = cut(&stream);
            let images = pieces.iter().filter(|&it| *it == image(PLAIN)).count();
            // What ends in the middle of a segment takes no more than that segment says.
            assert!(images >= 3, "cut at {end}: {pieces:?}");
            // Half a thumbnail is one more.
            assert!(broken(&pieces).len() <= 2, "cut at {end}: {pieces:?}");
            assert!(
                pieces.ends_with(&[PLAIN, PLAIN].map(image)),
                "cut at {end}: {pieces:?}"
            );
        }
        let stream = [&PLAIN[..8], PLAIN].concat();
        let pieces = cut(&stream);
        assert_eq!(broken(&pieces), ["a JPEG that is cut off by the next"]);
        assert_eq!(pieces[1], image(PLAIN));
        // A length that is wrong points into the next image.
        let wrong = b"\xFF\xD8\xFF\xE0\x00\x09abc";
        let pieces = cut(&[&wrong[..], PLAIN].concat());
        assert_eq!(broken(&pieces), ["a JPEG that is damaged"]);
        assert_eq!(pieces[1], image(PLAIN));
    }

    #[test]
    fn the_end_of_the_stream_may_cut_an_image_off() {
        for end in 3..TRICKY.len() {
            // The thumbnail counts if its segment is cut off, for a wrong length would look alike.
            let pieces = cut(&TRICKY[..end]);
            let said = broken(&pieces);
            let cut_off = "a JPEG that is cut off by the end of the stream";
            assert!(said.starts_with(&[cut_off]), "cut at {end}: {pieces:?}");
        }
        let trailing = [TRICKY, b"\n\xFF\xD8"].concat();
        assert_eq!(cut(&trailing), [image(TRICKY)]);
    }

    #[test]
    fn an_image_that_does_not_end_is_given_up() {
        let endless = [&PLAIN[..8], &[9; 3000]].concat();
        let large = [&b"\xFF\xD8\xFF\xE0\x10\x00"[..], &[9; 0x0FFE], &PLAIN[2..]].concat();
        for bad in [endless, large] {
            let pieces = cut_at(&[&bad, PLAIN].concat(), 1000, &[700, 299, 1, 1, 1, 500]);
            assert_eq!(broken(&pieces), ["a JPEG of more than 1000 bytes"]);
            assert_eq!(pieces[1..], [image(PLAIN)]);
        }
        let exact = [&PLAIN[..8], &[9; 990], b"\xFF\xD9"].concat();
        assert_eq!(cut_at(&exact, 1000, &[]), [image(&exact)]);
    }

    #[test]
    fn a_stream_of_something_else_is_said_to_be_one_now_and_then() {
        let other = vec![0x47; 5 * RUBBISH / 2];
        let pieces = cut_at(&other, 1 << 16, &[RUBBISH / 3, RUBBISH]);
        let said = broken(&pieces);
        assert_eq!(said.len(), 2);
        assert!(
            said[0].contains("1048576 bytes without a JPEG"),
            "{}",
            said[0]
        );
    }

    proptest! {
        /// However the bytes come, and whatever they are, memory is bounded and the result the same.
        #[test]
        fn pieces_do_not_depend_on_how_the_bytes_come(
            parts in proptest::collection::vec(prop_oneof![
                3 => Just(TRICKY.to_vec()),
                3 => Just(PLAIN.to_vec()),
                2 => (0..TRICKY.len()).prop_map(|end| TRICKY[..end].to_vec()),
                4 => proptest::collection::vec(proptest::sample::select(
                    &[0xFF, 0xD8, 0xD9, 0xDA, 0xE0, 0xC4, 0xD0, 0x00, 0x01, 0x02, 0x20, 0x80_u8][..]), 0..40),
                1 => proptest::collection::vec(any::<u8>(), 0..200),
            ], 0..12),
            lengths in proptest::collection::vec(0..60_usize, 0..40),
            limit in 8..300_usize,
        ) {
            let stream = parts.concat();
            let whole = cut_at(&stream, limit, &[]);
            prop_assert_eq!(&cut_at(&stream, limit, &lengths), &whole);
            let single = vec![1; stream.len()];
            prop_assert_eq!(&cut_at(&stream, limit, &single), &whole);
            for piece in whole {
                if let Piece::Frame(Encoded::Jpeg(image)) = piece {
                    prop_assert!(image.len() <= limit + 2);
                    prop_assert!(image.starts_with(&START[..2]) && image.ends_with(b"\xFF\xD9"));
                }
            }
        }
    }
}

//! JPEGs one after the other (Motion JPEG), told apart by their markers (ISO/IEC 10918-1, Annex B).
//!
//! Searching for the end marker would cut at that of a thumbnail in a segment, so segments are passed over by
//! their lengths. What lies between images is passed over: cameras append data, and servers put headers there.

use super::buffer::Buffer;
use super::split::{Encoded, Piece};

/// The start of an image and the first byte of the marker that follows.
const START: [u8; 3] = [0xFF, 0xD8, 0xFF];
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

    pub(super) fn is_between(&self) -> bool {
        matches!(self.place, Place::Between)
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

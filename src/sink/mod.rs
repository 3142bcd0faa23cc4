//! Views of the record: JSON lines, the Airbus submission form, overlays and crops.

mod airbus;
mod crop;
mod jsonl;
mod overlay;
mod pictures;

use std::io::{self, Write};

pub use airbus::AirbusCsv;
use crop::CROP;
pub use crop::Crops;
pub use jsonl::JsonLines;
use overlay::OVERLAY;
pub use overlay::Overlay;
pub(crate) use pictures::is_name;
pub use pictures::{Draw, Drawn, PictureError, Pictures};

use crate::record::FrameRecord;

/// How records are written as lines of text.
pub trait Form: Send {
    /// The line that a file begins with, if there is one.
    fn head(&self) -> &'static str {
        ""
    }

    /// Appends the lines of one record.
    fn encode(&self, record: &FrameRecord, out: &mut Vec<u8>);

    /// Whether a last line without its end, which begins with `line`, is one of this form that was cut off, in a
    /// file that begins with `start`, which is no longer than the head.
    fn is_torn(&self, start: &[u8], line: u8) -> bool;
}

/// Writes records, one by one.
pub struct Lines<W> {
    form: Box<dyn Form>,
    out: W,
    bytes: Vec<u8>,
}

impl<W: Write> Lines<W> {
    /// Writes to `out`, which gets the head at once.
    ///
    /// # Errors
    /// What `out` says.
    pub fn new(form: Box<dyn Form>, mut out: W) -> io::Result<Self> {
        out.write_all(form.head().as_bytes())?;
        out.flush()?;
        Ok(Self {
            form,
            out,
            bytes: Vec::new(),
        })
    }

    /// Writes one record through to the end, so that a reader at the other end sees it at once.
    ///
    /// # Errors
    /// What the writer below says, `BrokenPipe` among it.
    pub fn write(&mut self, record: &FrameRecord) -> io::Result<()> {
        self.bytes.clear();
        self.form.encode(record, &mut self.bytes);
        self.out.write_all(&self.bytes)?;
        self.out.flush()
    }
}

#[cfg(test)]
pub(crate) fn sample_record(frame: &str, ships: &[&str]) -> FrameRecord {
    use crate::frame::Tags;
    use crate::record::{GateSummary, Millis, ModelId, Ship};

    let ship = |rle: &&str| Ship {
        score: 0.75,
        area: 4,
        bbox: [2, 2, 2, 2],
        centroid: [3.0, 3.0],
        length: 2.0,
        width: 2.0,
        angle: 0.0,
        length_m: None,
        width_m: None,
        rle: rle.parse().expect("good run lengths"),
    };
    FrameRecord {
        id: None,
        frame: frame.into(),
        width: 8,
        height: 8,
        tags: Tags::default(),
        scale: 1.0,
        gate: GateSummary {
            score: 0.5,
            ship: true,
            tiles: 1,
            passed: 1,
            segmented: 1,
        },
        ships: ships.iter().map(ship).collect(),
        model: ModelId {
            name: "test".into(),
            version: "1".into(),
        },
        millis: Millis::default(),
        board: None,
    }
}

//! Views of the record: JSON lines, the Airbus submission form, overlays.

mod airbus;
mod jsonl;
mod overlay;

pub use airbus::AirbusCsv;
pub use jsonl::JsonLines;
pub use overlay::{Overlay, OverlayError};

use std::io;

use crate::record::FrameRecord;

/// Takes records one by one.
pub trait Sink {
    /// Writes one record through to the end, so that a reader at the other end sees it at once.
    ///
    /// # Errors
    /// What the writer below says, `BrokenPipe` among it.
    fn write(&mut self, record: &FrameRecord) -> io::Result<()>;
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

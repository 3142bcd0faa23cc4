//! The submission form of the Airbus Ship Detection challenge.

use super::Form;
use crate::record::FrameRecord;

/// Records as `ImageId,EncodedPixels` rows: one per ship, and one with an empty field for a frame without ships.
#[derive(Debug, Clone, Copy)]
pub struct AirbusCsv;

impl Form for AirbusCsv {
    fn head(&self) -> &'static str {
        "ImageId,EncodedPixels\n"
    }

    fn encode(&self, record: &FrameRecord, out: &mut Vec<u8>) {
        let mut rows = csv::Writer::from_writer(out);
        let mut row = |masks: &str| {
            let row = rows.write_record([record.frame.as_str(), masks]);
            row.expect("memory takes it");
        };
        if record.ships.is_empty() {
            row("");
        }
        for ship in &record.ships {
            row(&ship.rle.to_string());
        }
    }

    fn is_torn(&self, start: &[u8], _: u8) -> bool {
        start == self.head().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::{Lines, sample_record};

    #[test]
    fn one_row_per_ship_and_an_empty_field_for_none() {
        let mut out = Vec::new();
        let mut lines = Lines::new(Box::new(AirbusCsv), &mut out).expect("writes to memory");
        for record in [
            sample_record("a.jpg", &["1 5 9 1", "33 2"]),
            sample_record("empty.jpg", &[]),
            sample_record("odd, \"name\".jpg", &["7 1"]),
        ] {
            lines.write(&record).expect("writes to memory");
        }
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "ImageId,EncodedPixels\n\
             a.jpg,1 5 9 1\n\
             a.jpg,33 2\n\
             empty.jpg,\n\
             \"odd, \"\"name\"\".jpg\",7 1\n"
        );
    }

    #[test]
    fn the_header_stands_without_a_record() {
        let mut out = Vec::new();
        drop(Lines::new(Box::new(AirbusCsv), &mut out).expect("writes to memory"));
        assert_eq!(out, b"ImageId,EncodedPixels\n");
    }
}

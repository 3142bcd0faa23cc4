//! The submission form of the Airbus Ship Detection challenge.

use std::io::{self, Write};

use super::Sink;
use crate::record::FrameRecord;

/// Writes records as `ImageId,EncodedPixels` rows: one per ship, and one with an empty field for a
/// frame without ships.
pub struct AirbusCsv<W: Write>(csv::Writer<W>);

impl<W: Write> AirbusCsv<W> {
    /// A sink on `writer`, which gets the header at once.
    ///
    /// # Errors
    /// What `writer` says.
    pub fn new(writer: W) -> io::Result<Self> {
        let mut rows = csv::Writer::from_writer(writer);
        rows.write_record(["ImageId", "EncodedPixels"])
            .map_err(into_io)?;
        rows.flush()?;
        Ok(Self(rows))
    }
}

impl<W: Write> Sink for AirbusCsv<W> {
    fn write(&mut self, record: &FrameRecord) -> io::Result<()> {
        if record.ships.is_empty() {
            self.0
                .write_record([record.frame.as_str(), ""])
                .map_err(into_io)?;
        }
        for ship in &record.ships {
            self.0
                .write_record([record.frame.as_str(), &ship.rle.to_string()])
                .map_err(into_io)?;
        }
        self.0.flush()
    }
}

/// Keeps the kind of the error below, which the crate's own conversion loses.
fn into_io(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::sample_record;

    #[test]
    fn one_row_per_ship_and_an_empty_field_for_none() {
        let mut out = Vec::new();
        let mut sink = AirbusCsv::new(&mut out).expect("writes to memory");
        sink.write(&sample_record("a.jpg", &["1 5 9 1", "33 2"]))
            .expect("writes to memory");
        sink.write(&sample_record("empty.jpg", &[]))
            .expect("writes to memory");
        sink.write(&sample_record("odd, \"name\".jpg", &["7 1"]))
            .expect("writes to memory");
        drop(sink);
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
        drop(AirbusCsv::new(&mut out).expect("writes to memory"));
        assert_eq!(out, b"ImageId,EncodedPixels\n");
    }
}

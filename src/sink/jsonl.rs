//! One JSON object per frame and line.

use std::io::{self, Write};

use super::Sink;
use crate::record::FrameRecord;

/// Writes records as JSON lines.
#[derive(Debug)]
pub struct JsonLines<W>(W);

impl<W: Write> JsonLines<W> {
    /// A sink on `writer`.
    pub fn new(writer: W) -> Self {
        Self(writer)
    }
}

impl<W: Write> Sink for JsonLines<W> {
    fn write(&mut self, record: &FrameRecord) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        self.0.write_all(&line)?;
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::sample_record;

    #[test]
    fn each_line_is_a_record() {
        let records = [
            sample_record("a.png", &["1 5"]),
            sample_record("b \"c\"\n.png", &[]),
        ];
        let mut out = Vec::new();
        let mut sink = JsonLines::new(&mut out);
        for record in &records {
            sink.write(record).expect("writes to memory");
        }
        let text = String::from_utf8(out).expect("JSON is UTF-8");
        let read: Vec<FrameRecord> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("a record"))
            .collect();
        assert_eq!(read, records);
    }
}

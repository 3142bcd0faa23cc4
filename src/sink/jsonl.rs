//! One JSON object per frame and line.

use super::Form;
use crate::record::FrameRecord;

/// Records as JSON lines.
#[derive(Debug, Clone, Copy)]
pub struct JsonLines;

impl Form for JsonLines {
    fn encode(&self, record: &FrameRecord, out: &mut Vec<u8>) {
        serde_json::to_writer(&mut *out, record).expect("a record is JSON, and memory takes it");
        out.push(b'\n');
    }

    fn is_torn(&self, _: &[u8], line: u8) -> bool {
        line == b'{'
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::{Lines, sample_record};

    #[test]
    fn each_line_is_a_record() {
        let records = [
            sample_record("a.png", &["1 5"]),
            sample_record("b \"c\"\n.png", &[]),
        ];
        let mut out = Vec::new();
        let mut lines = Lines::new(Box::new(JsonLines), &mut out).expect("writes to memory");
        for record in &records {
            lines.write(record).expect("writes to memory");
        }
        let text = String::from_utf8(out).expect("JSON is UTF-8");
        let read: Vec<FrameRecord> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("a record"))
            .collect();
        assert_eq!(read, records);
    }
}

//! What shipwatch says of a frame: the one record that every output format is a view of.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::frame::Tags;
use crate::mask::Rle;

/// Everything known of one frame after the chain has run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrameRecord {
    /// The frame's number in the ledger: unlike its name no two share it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// The frame's name.
    pub frame: String,
    /// Width of the stored grid in pixels.
    pub width: u32,
    /// Height of the stored grid in pixels.
    pub height: u32,
    /// Capture time, position and ground resolution where known.
    #[serde(flatten)]
    pub tags: Tags,
    /// Factor by which the frame was resampled before the networks saw it.
    pub scale: f64,
    /// What the gate said.
    pub gate: GateSummary,
    /// Ships by falling score; no pixel belongs to two of them.
    pub ships: Vec<Ship>,
    /// The models that looked.
    pub model: ModelId,
    /// Where the time went.
    pub millis: Millis,
    /// How the daemon's board fared when the frame was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub board: Option<BoardState>,
}

/// The gate's word on a frame.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GateSummary {
    /// Highest ship probability of any tile, 0 to 1; 0 where none was looked at.
    pub score: f32,
    /// Whether the frame shows a ship, by the highest score alone: what was segmented may say
    /// otherwise.
    pub ship: bool,
    /// Tiles that it looked at: all that the frame was cut into, but those without a pixel of the regions in which
    /// ships count.
    pub tiles: usize,
    /// Tiles that the gate let through.
    pub passed: usize,
    /// Tiles that were segmented: those that passed and neighbours a ship reached into, whatever the regions.
    pub segmented: usize,
}

/// One ship. Pixel coordinates are those of the stored grid: x to the right, y down, (0, 0) the
/// outer corner of the top-left pixel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ship {
    /// Mean probability over the ship's pixels, 0 to 1.
    pub score: f32,
    /// Pixels in the mask.
    pub area: u64,
    /// Axis-parallel box in whole pixels: x, y, width, height.
    pub bbox: [u32; 4],
    /// Mean of the pixel centres: x, y.
    pub centroid: [f64; 2],
    /// Longer side of the smallest rectangle around the ship, in pixels.
    pub length: f64,
    /// Shorter side of that rectangle, in pixels.
    pub width: f64,
    /// Direction of the longer side in degrees, 0 to 180, counted from the x axis towards the y
    /// axis (clockwise as seen on a screen).
    pub angle: f64,
    /// `length` in metres where the ground resolution is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length_m: Option<f64>,
    /// `width` in metres where the ground resolution is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width_m: Option<f64>,
    /// The mask as the challenge writes it: `start length` pairs, 1-based, column-major.
    pub rle: Rle,
}

/// Names the models behind a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelId {
    /// The bundle's name.
    pub name: String,
    /// The bundle's version.
    pub version: String,
}

/// Milliseconds by stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Millis {
    /// Reading and decoding the file; zero where a frame came decoded.
    pub decode: f64,
    /// Resampling to the networks' scale.
    pub prepare: f64,
    /// Cutting tiles and the gate over all of them.
    pub gate: f64,
    /// The U-Net over the tiles that were segmented, and merging.
    pub segment: f64,
    /// Instances and run lengths.
    pub extract: f64,
}

/// How the board fared. What the system does not tell is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct BoardState {
    /// How hot it was, and how much slower the daemon worked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heat: Option<Heat>,
    /// Whether the clock that times are read from was set by a time server or a receiver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_synchronised: Option<bool>,
}

/// How hot the board is, and what is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Heat {
    /// Degrees of the hottest part of its processor, to a tenth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub celsius: Option<f32>,
    /// Whether the board itself slows its processor down.
    pub throttled: bool,
    /// The daemon works for `1 / 2^step` of the time.
    pub step: u8,
}

/// A duration as records state it: milliseconds to the microsecond.
pub fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::sample_record;

    #[test]
    fn the_board_is_told_as_far_as_it_tells_and_older_lines_are_read() {
        let mut record = sample_record("a.png", &["1 4"]);
        let line = serde_json::to_string(&record).expect("writes");
        assert!(!line.contains("board"), "{line}");
        assert_eq!(
            serde_json::from_str::<FrameRecord>(&line).ok(),
            Some(record.clone())
        );

        record.board = Some(BoardState {
            heat: Some(Heat {
                celsius: Some(61.2),
                throttled: false,
                step: 1,
            }),
            clock_synchronised: Some(true),
        });
        let line = serde_json::to_string(&record).expect("writes");
        let heat = r#""heat":{"celsius":61.2,"throttled":false,"step":1}"#;
        let board = format!(r#""board":{{{heat},"clock_synchronised":true}}"#);
        assert!(line.contains(&board), "{line}");
        assert_eq!(
            serde_json::from_str::<FrameRecord>(&line).ok(),
            Some(record)
        );
    }
}

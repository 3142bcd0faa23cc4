//! The one type that carries pixels through the program.

mod optics;
mod resample;
mod stretch;

pub use image::RgbImage;
pub use optics::Lens;
pub use resample::{resample_gray, resample_rgb};
pub use stretch::{Percentiles, PercentilesError, stretch_floats, stretch_integers};

use serde::{Deserialize, Serialize};

/// An image as it came from a source, with what the source knows about it.
#[derive(Debug, Clone)]
pub struct Frame {
    /// What the record calls the frame: a file's name or a camera's sequence number.
    pub name: String,
    /// `[H, W, 3]` u8, sRGB, in the stored grid: no orientation tag is applied.
    pub pixels: RgbImage,
    /// What the source says of the picture.
    pub tags: Tags,
}

/// Facts that travel with a frame into its record; all optional.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tags {
    /// Capture time, RFC 3339; without an offset where the source names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub captured: Option<String>,
    /// Where the picture was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// Ground resolution of the stored grid in metres per pixel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gsd: Option<f64>,
    /// Top-left corner and pixel size in the file's own reference system, from GeoTIFF tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub geotransform: Option<GeoTransform>,
}

/// A WGS 84 position.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Degrees, north positive.
    pub latitude: f64,
    /// Degrees, east positive.
    pub longitude: f64,
    /// Metres above sea level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub altitude: Option<f64>,
}

/// A north-up GeoTIFF grid: pixel (col, row) has its top-left corner at
/// `origin + (col * pixel_size[0], -row * pixel_size[1])`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GeoTransform {
    /// Coordinates of the top-left corner of pixel (0, 0).
    pub origin: [f64; 2],
    /// Width and height of a pixel, both positive, in the units of `epsg`.
    pub pixel_size: [f64; 2],
    /// EPSG code of the reference system where the file names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsg: Option<u16>,
}

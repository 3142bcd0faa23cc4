//! The self-test: the whole chain on an image whose ships are known.

use std::fmt;

use crate::detect::{Clock, DetectError, Detector, Options};
use crate::frame::Frame;
use crate::mask::{Rle, RleError};
use crate::source::decode::{DecodeError, DecodeOptions, decode_bytes};

/// A crop of a Sentinel-2 scene; origin and licence stand beside it.
const NAME: &str = "algiers-roads.png";
const IMAGE: &[u8] = include_bytes!("../../tests/data/sentinel2-ports/images/algiers-roads.png");
const TRUTH: &str = include_str!("../../tests/data/sentinel2-ports/ship_segmentations.csv");
/// Metres per pixel of the built-in image.
pub const GSD: f64 = 10.0;

/// What the self-test saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Ships on the image.
    pub known: usize,
    /// Those of them that a detection touches.
    pub found: usize,
    /// Pixels of the known ships.
    pub known_area: u64,
    /// Pixels of all detections.
    pub found_area: u64,
}

impl Report {
    /// Whether the chain works: at least half of the ships are found, and the detections cover
    /// between a third and three times their pixels.
    ///
    /// The bounds are wide because they are to tell a broken installation from a working one, not
    /// a good model from a better one.
    pub fn passed(&self) -> bool {
        2 * self.found >= self.known
            && 3 * self.found_area >= self.known_area
            && self.found_area <= 3 * self.known_area
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            known,
            found,
            known_area,
            found_area,
        } = self;
        write!(
            f,
            "{found} of {known} ships found, {found_area} pixels for {known_area}"
        )
    }
}

/// Why the self-test came to no report.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// The embedded image cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The embedded ships cannot be read.
    #[error("embedded ships: {0}")]
    Truth(#[from] csv::Error),
    /// Run lengths do not fit the image.
    #[error("run lengths: {0}")]
    Runs(#[from] RleError),
    /// The chain failed.
    #[error(transparent)]
    Detect(#[from] DetectError),
}

/// The embedded image.
///
/// # Errors
/// Only if the program was built from another image.
pub fn image() -> Result<Frame, DecodeError> {
    decode_bytes(NAME, IMAGE, &DecodeOptions::default())
}

/// Runs `detector` on the embedded image.
pub fn run(detector: &Detector, clock: &dyn Clock) -> Result<Report, SelfTestError> {
    let frame = image()?;
    let options = Options {
        gsd: Some(GSD),
        ..Options::default()
    };
    let record = detector.detect(&frame, &options, clock)?;
    let detections: Vec<_> = record
        .ships
        .iter()
        .map(|ship| ship.rle.to_mask(record.width, record.height))
        .collect::<Result<_, _>>()?;
    let known = known_ships()?;
    let touched = |ship: &&Rle| {
        ship.pixels(record.height)
            .any(|(x, y)| detections.iter().any(|mask| mask.get(x, y)))
    };
    Ok(Report {
        known: known.len(),
        found: known.iter().filter(touched).count(),
        known_area: known.iter().map(Rle::area).sum(),
        found_area: record.ships.iter().map(|ship| ship.area).sum(),
    })
}

fn known_ships() -> Result<Vec<Rle>, csv::Error> {
    csv::Reader::from_reader(TRUTH.as_bytes())
        .deserialize::<(String, Rle)>()
        .filter_map(|row| match row {
            Ok((image, ship)) => (image == NAME).then_some(Ok(ship)),
            Err(error) => Some(Err(error)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_ships_lie_on_the_embedded_image() {
        let frame = image().expect("decodes");
        let (width, height) = frame.pixels.dimensions();
        let ships = known_ships().expect("reads");
        assert_eq!(ships.len(), 4);
        for ship in &ships {
            let mask = ship.to_mask(width, height).expect("fits");
            assert_eq!(mask.area(), ship.area());
        }
        // Ships are brighter than the sea around them.
        let brightness = |pixels: &mut dyn Iterator<Item = (u32, u32)>| {
            let values: Vec<f64> = pixels
                .map(|(x, y)| f64::from(frame.pixels[(x, y)].0[1]))
                .collect();
            values.iter().sum::<f64>() / values.len() as f64
        };
        let sea = brightness(&mut (0..width).flat_map(|x| (0..height).map(move |y| (x, y))));
        for ship in &ships {
            assert!(brightness(&mut ship.pixels(height)) > 1.5 * sea);
        }
    }

    #[test]
    fn nothing_found_and_everything_found_both_fail() {
        let report = Report {
            known: 4,
            found: 4,
            known_area: 400,
            found_area: 500,
        };
        assert!(report.passed());
        assert!(
            !Report {
                found: 0,
                found_area: 0,
                ..report
            }
            .passed()
        );
        assert!(!Report { found: 1, ..report }.passed());
        assert!(
            !Report {
                found_area: 65_536,
                ..report
            }
            .passed()
        );
    }
}

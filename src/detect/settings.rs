//! What the options mean for one frame.

use std::fmt;

use super::{DetectError, Regions};
use crate::frame::Frame;
use crate::model::Manifest;

/// What a caller may choose; `None` leaves it to the manifest and the frame.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// Factor by which frames are resampled before the networks see them.
    pub scale: Option<f64>,
    /// Ground resolution of the stored grid in metres per pixel; wins over the frame's own.
    pub gsd: Option<f64>,
    /// Width of the ground that a frame shows, in metres; gives the ground resolution where `gsd` does not, and
    /// wins over the frame's own too.
    pub swath: Option<f64>,
    /// Gate score at which a tile is segmented, 0 to 1.
    pub gate: Option<f32>,
    /// Probability at which a pixel is ship, 0 to 1.
    pub mask: Option<f32>,
    /// Fewest pixels of a ship at the networks' scale.
    pub min_area: Option<u32>,
    /// Where ships count. Tiles without a pixel that does are neither gated nor segmented, unless a ship reaches into
    /// them from one that is: it is found whole, and counts by its centroid.
    pub regions: Regions,
}

/// Options, manifest and frame brought together.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    /// Ground resolution of the stored grid in metres per pixel.
    pub gsd: Option<f64>,
    /// Factor from the stored grid to the networks' scale.
    pub scale: f64,
    /// Size at the networks' scale, where it differs from the stored grid.
    pub resampled: Option<(u32, u32)>,
    /// Gate score at which a tile is segmented.
    pub gate: f32,
    /// Probability at which a pixel is ship.
    pub mask: f32,
    /// Fewest pixels of a ship in the stored grid.
    pub min_area: f64,
    /// Depth of the valleys in the centrality that part ships; none where they stay together.
    pub valley: Option<f32>,
}

/// Most pixels that magnifying may give.
const MAX_MAGNIFIED: u64 = 400_000_000;

impl Options {
    /// Checks that each value makes sense, whatever the frame.
    ///
    /// # Errors
    /// [`DetectError::Option`].
    pub fn check(&self) -> Result<(), DetectError> {
        let positive = |option, value: Option<f64>| match value {
            Some(value) if !(value.is_finite() && value > 0.0) => Err(DetectError::Option {
                option,
                value,
                rule: "must be positive",
            }),
            _ => Ok(()),
        };
        let probability = |option, value: Option<f32>| match value {
            Some(value) if !(0.0..=1.0).contains(&value) => {
                let value = f64::from(value);
                Err(DetectError::Option {
                    option,
                    value,
                    rule: "must lie between 0 and 1",
                })
            }
            _ => Ok(()),
        };
        positive("scale", self.scale)?;
        positive("gsd", self.gsd)?;
        positive("swath", self.swath)?;
        probability("gate", self.gate)?;
        probability("mask", self.mask)
    }
}

impl Settings {
    pub(super) fn resolve(
        manifest: &Manifest,
        frame: &Frame,
        options: &Options,
    ) -> Result<Self, DetectError> {
        options.check()?;
        let (width, height) = frame.pixels.dimensions();
        if width == 0 || height == 0 {
            return Err(DetectError::Empty);
        }
        let (gsd, scale) = gsd_and_scale(manifest, frame, options);
        let resampled = resampled(width, height, scale)?;
        let min_area = options.min_area.unwrap_or(manifest.thresholds.min_area);
        Ok(Self {
            gsd,
            scale,
            resampled: Some(resampled).filter(|&size| size != (width, height)),
            gate: options.gate.unwrap_or(manifest.thresholds.gate),
            mask: options.mask.unwrap_or(manifest.thresholds.mask),
            min_area: f64::from(min_area) / (scale * scale),
            valley: manifest.thresholds.valley,
        })
    }
}

/// The byte from which on a pixel is ship. A pixel of probability 0 never is: 0 also stands where no
/// network ran.
pub fn threshold_byte(probability: f32) -> u8 {
    ((probability * 255.0).ceil() as u8).max(1)
}

/// The factor that brings `gsd` to the near end of the range the models were trained for.
fn scale_into([finest, coarsest]: [f64; 2], gsd: f64) -> f64 {
    gsd / gsd.clamp(finest, coarsest)
}

/// Ground resolution of the stored grid where known, and the factor to the networks' scale.
fn gsd_and_scale(manifest: &Manifest, frame: &Frame, options: &Options) -> (Option<f64>, f64) {
    let tagged = frame.tags.gsd.filter(|gsd| gsd.is_finite() && *gsd > 0.0);
    let width = f64::from(frame.pixels.width());
    let spread = options.swath.map(|swath| swath / width);
    let gsd = options.gsd.or(spread).or(tagged);
    let fitting = gsd.map_or(1.0, |gsd| scale_into(manifest.gsd, gsd));
    (gsd, options.scale.unwrap_or(fitting))
}

/// A ground resolution that the networks were not trained for, and what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResolutionWarning {
    /// Metres per pixel of the stored grid.
    gsd: f64,
    /// Factor by which the frame is resampled.
    scale: f64,
    /// Finest and coarsest metres per pixel that training covered.
    trained: [f64; 2],
}

impl ResolutionWarning {
    pub(super) fn of(manifest: &Manifest, frame: &Frame, options: &Options) -> Option<Self> {
        let (gsd, scale) = gsd_and_scale(manifest, frame, options);
        let warning = Self {
            gsd: gsd?,
            scale,
            trained: manifest.gsd,
        };
        let fits = warning.is_trained(warning.gsd) && warning.is_trained(warning.seen());
        (!fits).then_some(warning)
    }

    /// Metres per pixel of the stored grid.
    pub fn gsd(&self) -> f64 {
        self.gsd
    }

    /// Metres per pixel as the networks see them.
    fn seen(&self) -> f64 {
        self.gsd / self.scale
    }

    fn is_trained(&self, gsd: f64) -> bool {
        let [finest, coarsest] = self.trained;
        // Dividing may miss the end of the range by an ulp.
        gsd >= finest * (1.0 - 1e-9) && gsd <= coarsest * (1.0 + 1e-9)
    }
}

impl fmt::Display for ResolutionWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [finest, coarsest] = self.trained;
        let (gsd, seen, scale) = (rounded(self.gsd), rounded(self.seen()), rounded(self.scale));
        if self.is_trained(self.seen()) {
            write!(
                f,
                "{gsd} m per pixel lies outside of {finest} to {coarsest}, for which the networks \
                 were trained; resampled by {scale}"
            )
        } else {
            write!(
                f,
                "at scale {scale} the networks see {seen} m per pixel, but they were trained for \
                 {finest} to {coarsest}"
            )
        }
    }
}

/// As many digits as a message needs.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

fn resampled(width: u32, height: u32, scale: f64) -> Result<(u32, u32), DetectError> {
    let side = |length: u32| (f64::from(length) * scale).round().max(1.0);
    let limit = MAX_MAGNIFIED.max(u64::from(width) * u64::from(height));
    let pixels = side(width) * side(height);
    if pixels > limit as f64 {
        return Err(DetectError::TooLarge {
            scale,
            pixels: pixels as u64,
            limit,
        });
    }
    Ok((side(width) as u32, side(height) as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brings_the_resolution_into_the_trained_range() {
        let range = [0.5, 2.0];
        assert_eq!(scale_into(range, 1.0), 1.0);
        assert_eq!(scale_into(range, 0.5), 1.0);
        assert_eq!(scale_into(range, 0.25), 0.5);
        assert_eq!(scale_into(range, 10.0), 5.0);
    }

    #[test]
    fn a_size_never_shrinks_to_nothing_nor_grows_without_limit() {
        assert_eq!(resampled(1000, 10, 0.001).expect("fits"), (1, 1));
        assert_eq!(resampled(7, 3, 2.5).expect("fits"), (18, 8));
        // A large frame may stay as large as it is.
        assert_eq!(
            resampled(100_000, 100_000, 1.0).expect("fits"),
            (100_000, 100_000)
        );
        let error = resampled(10_000, 10_000, 1e6).expect_err("too large");
        assert!(matches!(
            error,
            DetectError::TooLarge {
                limit: MAX_MAGNIFIED,
                ..
            }
        ));
    }

    #[test]
    fn cuts_at_the_probability_and_never_at_nothing() {
        assert_eq!(threshold_byte(0.5), 128);
        assert_eq!(threshold_byte(0.2), 51);
        assert_eq!(threshold_byte(1.0), 255);
        assert_eq!(threshold_byte(0.0), 1);
    }

    #[test]
    fn names_the_option_that_makes_no_sense() {
        let bad = [
            (
                "scale",
                Options {
                    scale: Some(0.0),
                    ..Options::default()
                },
            ),
            (
                "scale",
                Options {
                    scale: Some(f64::NAN),
                    ..Options::default()
                },
            ),
            (
                "gsd",
                Options {
                    gsd: Some(f64::INFINITY),
                    ..Options::default()
                },
            ),
            (
                "swath",
                Options {
                    swath: Some(-1.0),
                    ..Options::default()
                },
            ),
            (
                "gate",
                Options {
                    gate: Some(1.5),
                    ..Options::default()
                },
            ),
            (
                "mask",
                Options {
                    mask: Some(f32::NAN),
                    ..Options::default()
                },
            ),
        ];
        for (name, options) in bad {
            let error = options.check().expect_err(name);
            assert!(matches!(error, DetectError::Option { option, .. } if option == name));
        }
        assert!(Options::default().check().is_ok());
    }
}

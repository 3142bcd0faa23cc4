//! How tiles are changed and made up: `[augment]`.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{SHARE, within};

/// How tiles are changed and made up: `[augment]`. Every value is a share, 0 to 1.
///
/// A scene is either cropped from the images or composed: ships and structures on water of another
/// image or on simulated sea. The first five say what a composed scene holds, apart from the ships of
/// a tile that is to show one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Augment {
    /// Tiles with ships that are composed.
    pub(crate) pasted: f64,
    /// Tiles without ships that are composed.
    pub(crate) made_up: f64,
    /// Composed scenes on simulated sea, rather than on water of an image.
    pub(crate) simulated_sea: f64,
    /// Composed scenes with a coast, or with something built or natural that is no ship.
    pub(crate) structures: f64,
    /// Composed scenes with ships in which ships lie moored side by side.
    pub(crate) moored: f64,
    /// Pasted ships under way, and scenes without ships that show wakes alone.
    pub(crate) wakes: f64,
    /// Scenes of either kind with whitecaps, glint, clouds or haze.
    pub(crate) weather: f64,
    /// Tiles turned by any angle, rather than by quarter turns.
    pub(crate) rotation: f64,
    /// Tiles blurred by optics, motion or resampling.
    pub(crate) blur: f64,
    /// Tiles with all light and colours changed.
    pub(crate) colour: f64,
    /// Tiles that lose some of their colour; a quarter of these lose all.
    pub(crate) grey: f64,
    /// Tiles under an even haze.
    pub(crate) haze: f64,
    /// Tiles with sensor noise.
    pub(crate) noise: f64,
    /// Tiles that went through JPEG.
    pub(crate) jpeg: f64,
}

impl Default for Augment {
    fn default() -> Self {
        Self {
            pasted: 0.5,
            made_up: 0.5,
            simulated_sea: 0.4,
            structures: 0.45,
            moored: 0.2,
            wakes: 0.35,
            weather: 0.35,
            rotation: 0.7,
            blur: 0.3,
            colour: 0.9,
            grey: 0.3,
            haze: 0.15,
            noise: 0.35,
            jpeg: 0.35,
        }
    }
}

impl Augment {
    /// # Errors
    /// If a value is no share; the message names the key.
    pub(super) fn check(&self) -> Result<()> {
        for (key, share) in [
            ("pasted", self.pasted),
            ("made-up", self.made_up),
            ("simulated-sea", self.simulated_sea),
            ("structures", self.structures),
            ("moored", self.moored),
            ("wakes", self.wakes),
            ("weather", self.weather),
            ("rotation", self.rotation),
            ("blur", self.blur),
            ("colour", self.colour),
            ("grey", self.grey),
            ("haze", self.haze),
            ("noise", self.noise),
            ("jpeg", self.jpeg),
        ] {
            within(key, "[augment]", share, SHARE)?;
        }
        Ok(())
    }
}

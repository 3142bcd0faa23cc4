//! One training example.

use image::{GrayImage, RgbImage};

/// Fewest ship pixels by which a tile counts as one with a ship.
const MIN_SHIP_PIXELS: usize = 8;

/// A square piece of the world with its truth.
pub(crate) struct Tile {
    /// `[S, S, 3]`.
    pub(crate) pixels: RgbImage,
    /// `[S, S]`, 255 where a ship is, else 0.
    pub(crate) mask: GrayImage,
}

impl Tile {
    /// Whether enough of a ship is in it.
    pub(crate) fn has_ship(&self) -> bool {
        self.ship_pixels() >= MIN_SHIP_PIXELS
    }

    /// Pixels that are ship.
    pub(crate) fn ship_pixels(&self) -> usize {
        self.mask.as_raw().iter().filter(|&&p| p > 0).count()
    }
}

//! One training example.

use image::{GrayImage, RgbImage};

/// A square piece of the world with its truth.
pub(crate) struct Tile {
    /// `[S, S, 3]`.
    pub(crate) pixels: RgbImage,
    /// `[S, S]`, 0 where no ship is, else the number of the ship: 1 to 255, each ship on the tile its
    /// own as long as they suffice.
    pub(crate) mask: GrayImage,
    /// Whether a ship may be shown that the mask lacks.
    pub(crate) doubtful: bool,
}

impl Tile {
    /// Fewest ship pixels by which a tile counts as one with a ship.
    pub(crate) const MIN_SHIP_PIXELS: usize = 8;

    /// Whether enough of a ship is in it.
    pub(crate) fn has_ship(&self) -> bool {
        self.ship_pixels() >= Self::MIN_SHIP_PIXELS
    }

    /// Pixels that are ship.
    pub(crate) fn ship_pixels(&self) -> usize {
        self.mask.as_raw().iter().filter(|&&p| p > 0).count()
    }
}

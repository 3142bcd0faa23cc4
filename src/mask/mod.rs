//! Binary masks: bitmaps, run lengths, connected components, parting of ships that touch, and the
//! geometry of one ship.

mod geometry;
mod instances;
mod rle;
mod separate;

pub use geometry::OrientedBox;
pub use instances::{Instance, instances};
pub use rle::{Rle, RleError};
pub use separate::separate;

use image::GrayImage;

/// A row-major bitmap: which pixels of a grid are ship.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    width: u32,
    height: u32,
    pixels: Vec<bool>,
}

impl Mask {
    /// A grid without a set pixel.
    pub fn new(width: u32, height: u32) -> Self {
        let pixels = vec![false; width as usize * height as usize];
        Self {
            width,
            height,
            pixels,
        }
    }

    /// The pixels of `image` that reach `threshold`.
    pub fn from_threshold(image: &GrayImage, threshold: u8) -> Self {
        let (width, height) = image.dimensions();
        let pixels = image.as_raw().iter().map(|&p| p >= threshold).collect();
        Self {
            width,
            height,
            pixels,
        }
    }

    /// Draws run lengths onto an empty grid; [`Rle::to_mask`] read from the other side.
    ///
    /// # Errors
    /// [`RleError::OutOfRange`] if a run leaves the grid.
    pub fn from_rle(rle: &Rle, width: u32, height: u32) -> Result<Self, RleError> {
        rle.to_mask(width, height)
    }

    /// Columns of the grid.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows of the grid.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Whether the pixel in column `x` and row `y` is set.
    ///
    /// # Panics
    /// If the pixel lies outside of the grid.
    pub fn get(&self, x: u32, y: u32) -> bool {
        self.pixels[self.index(x, y)]
    }

    /// Sets or clears the pixel in column `x` and row `y`.
    ///
    /// # Panics
    /// If the pixel lies outside of the grid.
    pub fn set(&mut self, x: u32, y: u32, value: bool) {
        let index = self.index(x, y);
        self.pixels[index] = value;
    }

    /// Row `y` from left to right.
    ///
    /// # Panics
    /// If the row lies outside of the grid.
    pub fn row(&self, y: u32) -> &[bool] {
        assert!(
            y < self.height,
            "row {y} of a mask with {} rows",
            self.height
        );
        let start = y as usize * self.width as usize;
        &self.pixels[start..start + self.width as usize]
    }

    /// All pixels, row after row.
    pub fn as_slice(&self) -> &[bool] {
        &self.pixels
    }

    /// Number of set pixels.
    pub fn area(&self) -> u64 {
        self.pixels.iter().filter(|&&set| set).count() as u64
    }

    /// The set pixels as run lengths.
    pub fn to_rle(&self) -> Rle {
        let height = u64::from(self.height);
        let columns = (0..self.width).flat_map(|x| (0..self.height).map(move |y| (x, y)));
        Rle::from_indices(
            columns
                .filter(|&(x, y)| self.get(x, y))
                .map(|(x, y)| u64::from(x) * height + u64::from(y)),
        )
    }

    fn index(&self, x: u32, y: u32) -> usize {
        assert!(
            x < self.width && y < self.height,
            "pixel ({x}, {y}) of a {}x{} mask",
            self.width,
            self.height
        );
        y as usize * self.width as usize + x as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threshold_is_inclusive() {
        let image = GrayImage::from_raw(3, 1, vec![127, 128, 129]).expect("three bytes");
        assert_eq!(
            Mask::from_threshold(&image, 128).as_slice(),
            [false, true, true]
        );
    }

    #[test]
    fn rows_and_area_follow_what_was_set() {
        let mut mask = Mask::new(3, 2);
        mask.set(2, 0, true);
        mask.set(0, 1, true);
        mask.set(0, 1, false);
        mask.set(1, 1, true);
        assert_eq!(mask.row(0), [false, false, true]);
        assert_eq!(mask.row(1), [false, true, false]);
        assert_eq!(mask.area(), 2);
    }
}

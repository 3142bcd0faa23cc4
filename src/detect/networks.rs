//! What the chain asks of networks, and the bundle's answer.

use image::{GrayImage, RgbImage};

use crate::inference::{InferenceError, Network};

/// A gate and a segmenter for square tiles. Threads share one.
pub trait TileNetworks: Send + Sync {
    /// Probability, 0 to 1, that the tile shows a ship.
    ///
    /// # Errors
    /// Any [`InferenceError`].
    fn gate(&self, tile: &RgbImage) -> Result<f32, InferenceError>;

    /// What each pixel of the tile shows.
    ///
    /// # Errors
    /// Any [`InferenceError`].
    fn segment(&self, tile: &RgbImage) -> Result<Maps, InferenceError>;
}

/// What a segmenter says of the pixels of a tile or a frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Maps {
    /// Ship probability; 255 is certain.
    pub probabilities: GrayImage,
    /// How far a ship's pixel lies from the hull's edge, 255 along its middle line; none from a
    /// segmenter that does not tell.
    pub centrality: Option<GrayImage>,
}

impl Maps {
    /// What a segmenter's output says: one or two planes of `width` x `height` values, 0 to 1, row by
    /// row.
    ///
    /// # Panics
    /// If a size is zero, or `output` is shorter than a plane.
    pub fn of_output(output: &[f32], width: u32, height: u32) -> Self {
        let plane = width as usize * height as usize;
        let mut maps = output.chunks_exact(plane).map(|plane| {
            let bytes = plane
                .iter()
                .map(|p| (p.clamp(0.0, 1.0) * 255.0).round() as u8);
            GrayImage::from_raw(width, height, bytes.collect())
                .expect("a plane has the tile's size")
        });
        Self {
            probabilities: maps.next().expect("an output is a plane or more"),
            centrality: maps.next(),
        }
    }
}

/// The networks of a bundle.
pub(super) struct BundleNetworks {
    pub(super) gate: Network,
    pub(super) unet: Network,
}

impl TileNetworks for BundleNetworks {
    fn gate(&self, tile: &RgbImage) -> Result<f32, InferenceError> {
        let output = self.gate.run(tile.as_raw())?;
        Ok(output[0].clamp(0.0, 1.0))
    }

    fn segment(&self, tile: &RgbImage) -> Result<Maps, InferenceError> {
        let output = self.unet.run(tile.as_raw())?;
        Ok(Maps::of_output(&output, tile.width(), tile.height()))
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;
    use crate::model::Bundle;

    #[test]
    fn the_embedded_networks_take_a_tile() {
        let Bundle {
            manifest,
            gate,
            unet,
        } = Bundle::embedded().expect("embedded models load");
        let networks = BundleNetworks { gate, unet };
        let side = manifest.tile;
        let tile = RgbImage::from_fn(side, side, |x, _| Rgb([1, 3, x as u8]));
        let score = networks.gate(&tile).expect("gate runs");
        assert!((0.0..=1.0).contains(&score));
        let maps = networks.segment(&tile).expect("unet runs");
        assert_eq!(maps.probabilities.dimensions(), tile.dimensions());
    }
}

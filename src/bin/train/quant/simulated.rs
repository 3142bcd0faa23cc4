//! The integers' networks computed in floats, for the chain that judges bundles.

use burn_flex::{Flex, FlexDevice};
use image::RgbImage;
use shipwatch::detect::{Maps, TileNetworks};
use shipwatch::inference::InferenceError;

use super::{BYTES, Quantized, simulate};
use crate::export::Graph;
use crate::tensors::images_by;

/// Gate and U-Net with all that rounding does.
pub(crate) struct Simulated([Network; 2]);

/// One of them: what its weights stand for, and of which integers.
struct Network {
    rounded: Graph,
    quantized: Quantized,
}

impl Simulated {
    pub(crate) fn new(networks: [&Quantized; 2]) -> Self {
        Self(networks.map(|quantized| Network {
            rounded: quantized.rounded(),
            quantized: quantized.clone(),
        }))
    }

    /// The output for a tile, plane by plane.
    fn run(&self, network: usize, tile: &RgbImage) -> Result<Vec<f32>, InferenceError> {
        let Network { rounded, quantized } = &self.0[network];
        let image = images_by::<Flex>(BYTES, std::iter::once(tile), &FlexDevice);
        let output = simulate(rounded, &quantized.schemes, image);
        let planes = output.permute([0, 3, 1, 2]).into_data();
        Ok(planes.convert::<f32>().into_vec().expect("f32"))
    }
}

impl TileNetworks for Simulated {
    fn gate(&self, tile: &RgbImage) -> Result<f32, InferenceError> {
        Ok(self.run(0, tile)?[0])
    }

    fn segment(&self, tile: &RgbImage) -> Result<Maps, InferenceError> {
        let output = self.run(1, tile)?;
        Ok(Maps::of_output(&output, tile.width(), tile.height()))
    }
}

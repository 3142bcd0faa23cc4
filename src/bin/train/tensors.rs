//! Tiles as tensors.

use burn::tensor::{Tensor, TensorData, backend::Backend};
use image::RgbImage;
use rayon::prelude::*;
use shipwatch::model::Normalisation;

use crate::data::{Centrality, Tile};

/// Keras's MobileNetV2 scale.
pub(crate) const NORMALISATION: Normalisation = Normalisation {
    mean: 127.5,
    std: 127.5,
};

/// `[N, 3, S, S]`, normalised; in memory the channels are last, as the networks' operators want.
pub(crate) fn pixels<B: Backend>(tiles: &[Tile], device: &B::Device) -> Tensor<B, 4> {
    pixels_by(NORMALISATION, tiles, device).permute([0, 3, 1, 2])
}

/// `[N, S, S, 3]`, normalised as told.
pub(crate) fn pixels_by<B: Backend>(
    by: Normalisation,
    tiles: &[Tile],
    device: &B::Device,
) -> Tensor<B, 4> {
    images_by(by, tiles.iter().map(|tile| &tile.pixels), device)
}

/// `[N, H, W, 3]` of images of one size, normalised as told.
pub(crate) fn images_by<'a, B: Backend>(
    by: Normalisation,
    images: impl Iterator<Item = &'a RgbImage>,
    device: &B::Device,
) -> Tensor<B, 4> {
    let (mut count, mut size, mut values) = (0, (0, 0), Vec::new());
    for image in images {
        (count, size) = (count + 1, image.dimensions());
        let bytes = image.as_raw().iter();
        values.extend(bytes.map(|&byte| (f32::from(byte) - by.mean) / by.std));
    }
    let shape = [count, size.1 as usize, size.0 as usize, 3];
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// `[N, 1, S, S]`, 1 where a ship is.
pub(crate) fn masks<B: Backend>(tiles: &[Tile], device: &B::Device) -> Tensor<B, 4> {
    let (width, height) = tiles.first().map_or((0, 0), |tile| tile.mask.dimensions());
    let mut values = Vec::with_capacity(tiles.len() * (width * height) as usize);
    for tile in tiles {
        values.extend(tile.mask.as_raw().iter().map(|&p| f32::from(p.min(1))));
    }
    let shape = [tiles.len(), 1, height as usize, width as usize];
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// How central in its ship each pixel is, and how much it counts: twice `[N, 1, S, S]`.
pub(crate) fn centralities<B: Backend>(tiles: &[Tile], device: &B::Device) -> [Tensor<B, 4>; 2] {
    let (width, height) = tiles.first().map_or((0, 0), |tile| tile.mask.dimensions());
    let maps: Vec<Centrality> = tiles
        .par_iter()
        .map(|tile| Centrality::of(&tile.mask))
        .collect();
    let shape = [tiles.len(), 1, height as usize, width as usize];
    let tensor = |map: fn(&Centrality) -> &[f32]| {
        let values: Vec<f32> = maps.iter().flat_map(map).copied().collect();
        Tensor::from_data(TensorData::new(values, shape), device)
    };
    [tensor(|map| &map.truth), tensor(|map| &map.weight)]
}

/// `[N]`, 1 for tiles with a ship.
pub(crate) fn labels<B: Backend>(tiles: &[Tile], device: &B::Device) -> Tensor<B, 1> {
    let values: Vec<f32> = tiles
        .iter()
        .map(|tile| f32::from(u8::from(tile.has_ship())))
        .collect();
    Tensor::from_floats(&values[..], device)
}

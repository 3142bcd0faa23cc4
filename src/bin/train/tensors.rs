//! Tiles as tensors.

use burn::tensor::{Tensor, TensorData, backend::Backend};
use rayon::prelude::*;

use crate::data::{Centrality, Tile};

/// Byte that becomes zero, and bytes per unit, at the networks' input: Keras's MobileNetV2 scale.
pub(crate) const NORMALISATION: (f32, f32) = (127.5, 127.5);

/// `[N, 3, S, S]`, normalised; in memory the channels are last, as the networks' operators want.
pub(crate) fn pixels<B: Backend>(tiles: &[Tile], device: &B::Device) -> Tensor<B, 4> {
    pixels_by(NORMALISATION, tiles, device).permute([0, 3, 1, 2])
}

/// `[N, S, S, 3]`, normalised by a mean and a deviation.
pub(crate) fn pixels_by<B: Backend>(
    (mean, std): (f32, f32),
    tiles: &[Tile],
    device: &B::Device,
) -> Tensor<B, 4> {
    let (width, height) = tiles
        .first()
        .map_or((0, 0), |tile| tile.pixels.dimensions());
    let mut values = Vec::with_capacity(tiles.len() * (width * height) as usize * 3);
    for tile in tiles {
        let bytes = tile.pixels.as_raw().iter();
        values.extend(bytes.map(|&byte| (f32::from(byte) - mean) / std));
    }
    let shape = [tiles.len(), height as usize, width as usize, 3];
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

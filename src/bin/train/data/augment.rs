//! Random changes that a ship survives: turns, flips, light, blur and sensor noise.

use image::imageops::{self, FilterType};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::data::tile::Tile;

/// Changes a tile in place.
pub(crate) fn augment(tile: &mut Tile, rng: &mut StdRng) {
    turn(tile, rng);
    if rng.random_bool(0.15) {
        blur(tile, rng);
    }
    recolour(tile, rng);
    if rng.random_bool(0.3) {
        add_noise(tile, rng);
    }
}

/// One of the eight symmetries of a square.
fn turn(tile: &mut Tile, rng: &mut StdRng) {
    for _ in 0..rng.random_range(0..4) {
        tile.pixels = imageops::rotate90(&tile.pixels);
        tile.mask = imageops::rotate90(&tile.mask);
    }
    if rng.random_bool(0.5) {
        imageops::flip_horizontal_in_place(&mut tile.pixels);
        imageops::flip_horizontal_in_place(&mut tile.mask);
    }
}

/// Gain of each channel, contrast, brightness and gamma, as one table per channel.
fn recolour(tile: &mut Tile, rng: &mut StdRng) {
    let contrast = rng.random_range(0.7..1.35f32);
    let brightness = rng.random_range(-0.12..0.15f32);
    let gamma = rng.random_range(-0.35..0.35f32).exp();
    let centre = mean_level(tile);
    let tables: [[u8; 256]; 3] = std::array::from_fn(|_| {
        let gain = rng.random_range(0.88..1.12f32);
        std::array::from_fn(|level| {
            let value = level as f32 / 255.0 * gain;
            let value = (value - centre) * contrast + centre + brightness;
            (value.clamp(0.0, 1.0).powf(gamma) * 255.0).round() as u8
        })
    });
    let colourless = rng.random_bool(0.08);
    for pixel in tile.pixels.pixels_mut() {
        if colourless {
            let [r, g, b] = pixel.0.map(u32::from);
            pixel.0 = [((r * 77 + g * 150 + b * 29) >> 8) as u8; 3];
        }
        for (value, table) in pixel.0.iter_mut().zip(&tables) {
            *value = table[usize::from(*value)];
        }
    }
}

/// Loses detail by shrinking and growing again.
fn blur(tile: &mut Tile, rng: &mut StdRng) {
    let (width, height) = tile.pixels.dimensions();
    let factor = rng.random_range(0.5..0.9f32);
    let small = |side: u32| ((side as f32 * factor) as u32).max(1);
    let shrunk = shipwatch::frame::resample_rgb(&tile.pixels, small(width), small(height));
    tile.pixels = imageops::resize(&shrunk, width, height, FilterType::Triangle);
}

/// Adds noise that is nearly normal: the sum of two uniform draws.
fn add_noise(tile: &mut Tile, rng: &mut StdRng) {
    let amplitude = rng.random_range(2..12i16);
    for value in tile.pixels.iter_mut() {
        let bits: u32 = rng.random();
        let span = 2 * amplitude + 1;
        let noise = (bits as u16 % span as u16) as i16 + ((bits >> 16) as u16 % span as u16) as i16
            - 2 * amplitude;
        *value = (i16::from(*value) + noise / 2).clamp(0, 255) as u8;
    }
}

fn mean_level(tile: &Tile) -> f32 {
    let raw = tile.pixels.as_raw();
    let sum: u64 = raw.iter().map(|&p| u64::from(p)).sum();
    sum as f32 / raw.len().max(1) as f32 / 255.0
}

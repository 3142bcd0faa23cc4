//! Real water, taken from beside ships.

use std::f32::consts::TAU;

use anyhow::Result;
use image::RgbImage;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use shipwatch::frame::resample_rgb;
use shipwatch::mask::Rle;

use super::canvas::{Canvas, Rect};
use super::crop::{Piece, anywhere, is_free};
use super::hull::Hull;
use super::images::{Images, choose};
use super::mosaic::{Quilt, Stats};
use super::noise::log_uniform;

/// Images looked at before water is given up.
const IMAGES: usize = 4;

/// Crops of one image looked at.
const CROPS: usize = 14;

/// Crops of one image that are set side by side.
const PATCHES: usize = 5;

/// Smallest side of a crop, in pixels of the canvas and in own pixels: smaller ones would make a pattern.
const SMALLEST: (f32, u32) = (90.0, 56);

/// Pixels over which crops of the same water fade into one another.
const FADE: u32 = 20;

/// A canvas of water from one image, at a scale of its own; none if none is found.
///
/// # Errors
/// If images cannot be read.
pub(crate) fn water(images: &Images, side: u32, rng: &mut StdRng) -> Result<Option<Canvas>> {
    for _ in 0..IMAGES {
        let drawer = choose(&images.with_ships, rng);
        let usual = drawer.source.config.scale[1] as f32;
        let scale = log_uniform(0.35 * usual, 1.6 * usual, rng);
        let canvas = images.pick(drawer, rng, |image, pixels, rng| {
            let patches = patches(&image.labelled.ships, pixels, scale, side, rng);
            (!patches.is_empty()).then(|| quilt(&patches, side, rng))
        })?;
        if let Some(mut canvas) = canvas {
            canvas.doubtful = !drawer.source.config.complete;
            return Ok(Some(canvas));
        }
    }
    Ok(None)
}

/// Crops that show nothing but water, resampled.
fn patches(
    ships: &[Rle],
    pixels: &RgbImage,
    scale: f32,
    side: u32,
    rng: &mut StdRng,
) -> Vec<RgbImage> {
    let (width, height) = pixels.dimensions();
    let Some(colour) = ships
        .choose(rng)
        .and_then(|ship| colour_around(ship, pixels))
    else {
        return Vec::new();
    };
    let mut length = ((side as f32 / scale) as u32).min(width.min(height));
    let mut found: Vec<RgbImage> = Vec::new();
    for _ in 0..CROPS {
        let crop = anywhere((length, length), width, height, rng);
        if is_free(crop, ships, height) {
            let image = crop.cut(pixels);
            if is_water(&image, colour) {
                let size = ((length as f32 * scale).round() as u32).clamp(1, side);
                found.push(resample_rgb(&image, size, size));
                if size == side || found.len() == PATCHES {
                    break;
                }
                continue;
            }
        }
        let smallest = SMALLEST.1.max((SMALLEST.0 / scale) as u32);
        if length * 4 / 5 >= smallest && found.is_empty() {
            length = length * 4 / 5;
        }
    }
    found
}

/// The median colour on a circle around a ship: that of water, unless it lies on land on most sides.
fn colour_around(ship: &Rle, pixels: &RgbImage) -> Option<[f32; 3]> {
    let hull = Hull::measure(ship, pixels.height())?;
    let radius = 0.7 * hull.length + 3.0;
    let mut levels: [Vec<u8>; 3] = Default::default();
    for step in 0..32 {
        let (sin, cos) = (TAU * step as f32 / 32.0).sin_cos();
        let (x, y) = (hull.centre[0] + radius * cos, hull.centre[1] + radius * sin);
        if x >= 0.0
            && y >= 0.0
            && let Some(pixel) = pixels.get_pixel_checked(x as u32, y as u32)
        {
            for (levels, &level) in levels.iter_mut().zip(&pixel.0) {
                levels.push(level);
            }
        }
    }
    if levels[0].len() < 8 {
        return None;
    }
    levels.iter_mut().for_each(|levels| levels.sort_unstable());
    Some(levels.map(|levels| f32::from(levels[levels.len() / 2])))
}

/// Whether a picture has the colour of water all over: waves average out, what stands in it does not.
fn is_water(image: &RgbImage, colour: [f32; 3]) -> bool {
    let cells = |length: u32| (length / 8).clamp(4, 24);
    let coarse = resample_rgb(image, cells(image.width()), cells(image.height()));
    let mut stats = Stats::default();
    for pixel in coarse.pixels() {
        stats.add(pixel.0);
    }
    let mean = stats.mean();
    let light = mean.iter().sum::<f32>() / 3.0;
    let near = |from: [f32; 3], most: f32| {
        from.iter()
            .zip(mean)
            .all(|(from, mean)| (from - mean).abs() <= most)
    };
    stats.deviation() < 2.5 + 0.045 * light
        && near(colour, 10.0 + 0.12 * light)
        && coarse
            .pixels()
            .all(|pixel| near(pixel.0.map(f32::from), 12.0 + 0.16 * light))
}

/// Fills a canvas with crops of the same water.
fn quilt(patches: &[RgbImage], side: u32, rng: &mut StdRng) -> Canvas {
    let mut quilt = Quilt::new(side, rng);
    let size = patches[0].width();
    let fade = FADE.min(size / 3);
    let mut y = 0;
    loop {
        let mut x = 0;
        loop {
            let patch = patches.choose(rng).expect("at least one patch");
            let piece = Piece {
                pixels: Rect::new(0, 0, size.min(side - x), size.min(side - y)).cut(patch),
                ships: None,
            };
            quilt.add(piece, x, y, fade);
            x += size - fade;
            if x + fade >= side {
                break;
            }
        }
        y += size - fade;
        if y + fade >= side {
            break;
        }
    }
    quilt.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::scene::weather;
    use image::Rgb;
    use rand::SeedableRng;

    #[test]
    fn waves_pass_for_water_and_a_pier_or_other_colours_do_not() {
        for seed in 0..20 {
            let rng = &mut StdRng::seed_from_u64(seed);
            let mut sea = weather::sea(160, 160, rng);
            let mut stats = Stats::default();
            sea.pixels().for_each(|pixel| stats.add(pixel.0));
            let colour = stats.mean();
            assert!(is_water(&sea, colour), "seed {seed}");
            assert!(
                !is_water(&sea, colour.map(|level| level + 45.0)),
                "seed {seed}"
            );
            for (x, y) in (0..160).flat_map(|x| (70..80).map(move |y| (x, y))) {
                sea.put_pixel(x, y, Rgb([215, 210, 205]));
            }
            assert!(!is_water(&sea, colour), "seed {seed}");
        }
    }
}

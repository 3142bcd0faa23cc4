//! Random changes that a ship survives: turns, flips, light, colour, blur, noise and compression.

use std::f32::consts::TAU;

use image::codecs::jpeg::{JpegDecoder, JpegEncoder};
use image::{DynamicImage, GrayImage, Luma, Rgb, RgbImage, imageops};
use rand::RngExt;
use rand::rngs::StdRng;
use shipwatch::frame::resample_rgb;

use crate::config::Augment;
use crate::data::scene::{Canvas, Grain, Layer, Rect, WHITE, log_uniform};
use crate::data::tile::Tile;

/// The middle of a scene as a tile: turned, flipped, lit and spoilt at random.
pub(crate) fn look(scene: &Canvas, tile: u32, augment: &Augment, rng: &mut StdRng) -> Tile {
    let mut out = if rng.random_bool(augment.rotation) {
        turned(scene, tile, rng.random_range(0.0..TAU))
    } else {
        middle(scene, tile)
    };
    symmetry(&mut out, rng);
    if rng.random_bool(augment.blur) {
        blur(&mut out.pixels, rng);
    }
    if rng.random_bool(augment.grey) {
        let most = if rng.random_bool(0.25) {
            1.0
        } else {
            rng.random_range(0.15..0.75f32)
        };
        desaturate(&mut out.pixels, most);
    }
    if rng.random_bool(augment.haze) {
        haze(&mut out.pixels, rng);
    }
    if rng.random_bool(augment.colour) {
        recolour(&mut out.pixels, rng);
    }
    if rng.random_bool(augment.noise) {
        noise(&mut out.pixels, rng);
    }
    if rng.random_bool(augment.jpeg) {
        compress(&mut out.pixels, rng.random_range(28..95));
    }
    out
}

/// The middle of a scene as it is.
pub(crate) fn middle(scene: &Canvas, tile: u32) -> Tile {
    let at = (scene.side() - tile) / 2;
    let rect = Rect::new(at, at, tile, tile);
    Tile {
        pixels: rect.cut(&scene.pixels),
        mask: rect.cut(&scene.ships),
        doubtful: scene.doubtful,
    }
}

/// The middle of a scene turned by `angle`, bilinear. A ship has a pixel if half of it is ship.
fn turned(scene: &Canvas, tile: u32, angle: f32) -> Tile {
    let (sin, cos) = angle.sin_cos();
    let middle = (tile as f32 - 1.0) / 2.0;
    let centre = (scene.side() as f32 - 1.0) / 2.0;
    let last = scene.side() as i32 - 2;
    let mut out = Tile {
        pixels: RgbImage::new(tile, tile),
        mask: GrayImage::new(tile, tile),
        doubtful: scene.doubtful,
    };
    let side = scene.side() as usize;
    let (pixels, ships) = (scene.pixels.as_raw(), scene.ships.as_raw());
    for y in 0..tile {
        for x in 0..tile {
            let (dx, dy) = (x as f32 - middle, y as f32 - middle);
            let (u, v) = (centre + cos * dx - sin * dy, centre + sin * dx + cos * dy);
            let (left, top) = ((u as i32).clamp(0, last), (v as i32).clamp(0, last));
            let (fx, fy) = (
                (u - left as f32).clamp(0.0, 1.0),
                (v - top as f32).clamp(0.0, 1.0),
            );
            let first = top as usize * side + left as usize;
            let corners = [first, first + 1, first + side, first + side + 1];
            let weights = [
                (1.0 - fx) * (1.0 - fy),
                fx * (1.0 - fy),
                (1.0 - fx) * fy,
                fx * fy,
            ];
            let pixel = std::array::from_fn(|c| {
                let parts = corners.iter().zip(weights);
                let sum: f32 = parts.map(|(at, w)| f32::from(pixels[3 * at + c]) * w).sum();
                (sum + 0.5) as u8
            });
            out.pixels.put_pixel(x, y, Rgb(pixel));
            let numbers = corners.map(|at| ships[at]);
            out.mask.put_pixel(x, y, Luma([weighed(numbers, weights)]));
        }
    }
    out
}

/// The number with the largest weight among those of ships, if ships weigh at least half.
fn weighed(numbers: [u8; 4], weights: [f32; 4]) -> u8 {
    if numbers == [0; 4] {
        return 0;
    }
    let weight = |wanted: u8| -> f32 {
        let parts = numbers.iter().zip(weights);
        parts.filter(|(n, _)| **n == wanted).map(|(_, w)| w).sum()
    };
    if weight(0) > 0.5 {
        return 0;
    }
    let ships = numbers.into_iter().filter(|&n| n > 0);
    ships
        .max_by(|&a, &b| weight(a).total_cmp(&weight(b)))
        .unwrap_or(0)
}

/// One of the eight symmetries of a square.
fn symmetry(tile: &mut Tile, rng: &mut StdRng) {
    for _ in 0..rng.random_range(0..4) {
        tile.pixels = imageops::rotate90(&tile.pixels);
        tile.mask = imageops::rotate90(&tile.mask);
    }
    if rng.random_bool(0.5) {
        imageops::flip_horizontal_in_place(&mut tile.pixels);
        imageops::flip_horizontal_in_place(&mut tile.mask);
    }
}

/// Loses detail: by optics, by motion, or by shrinking and growing again.
fn blur(pixels: &mut RgbImage, rng: &mut StdRng) {
    let (width, height) = pixels.dimensions();
    match rng.random_range(0..3) {
        0 => {
            let sigma = rng.random_range(0.4..1.3f32);
            smear(pixels, &gaussian(sigma, [1.0, 0.0]));
            smear(pixels, &gaussian(sigma, [0.0, 1.0]));
        }
        1 => {
            let (sin, cos) = rng.random_range(0.0..TAU).sin_cos();
            let length = rng.random_range(1.5..4.5f32);
            let n = 5;
            let steps = (0..n).map(|i| length * (i as f32 / (n - 1) as f32 - 0.5));
            let taps: Vec<_> = steps
                .map(|s| ([s * cos, s * sin], 1.0 / n as f32))
                .collect();
            smear(pixels, &taps);
        }
        _ => {
            let factor = rng.random_range(0.45..0.9f32);
            let small = |side: u32| ((side as f32 * factor) as u32).max(1);
            let shrunk = resample_rgb(pixels, small(width), small(height));
            *pixels = resample_rgb(&shrunk, width, height);
        }
    }
}

/// Whole-pixel taps of a Gaussian along a direction.
fn gaussian(sigma: f32, [x, y]: [f32; 2]) -> Vec<([f32; 2], f32)> {
    let reach = (2.5 * sigma).ceil() as i32;
    let weight = |i: i32| (-(i as f32 / sigma).powi(2) / 2.0).exp();
    let sum: f32 = (-reach..=reach).map(weight).sum();
    (-reach..=reach)
        .map(|i| ([i as f32 * x, i as f32 * y], weight(i) / sum))
        .collect()
}

/// Replaces each pixel by a weighted mean of those at whole-pixel offsets.
fn smear(pixels: &mut RgbImage, taps: &[([f32; 2], f32)]) {
    let (width, height) = pixels.dimensions();
    let (w, h) = (width as i32, height as i32);
    let source = pixels.as_raw().clone();
    let mut sums = vec![0.5f32; source.len()];
    for &([dx, dy], weight) in taps {
        let (dx, dy) = (dx.round() as i32, dy.round() as i32);
        for y in 0..h {
            let from = ((y + dy).clamp(0, h - 1) * w * 3) as usize;
            let row = &mut sums[(y * w * 3) as usize..][..(w * 3) as usize];
            let source = &source[from..][..(w * 3) as usize];
            let inside = dx.unsigned_abs().min(width) as usize * 3;
            let (to, from) = if dx >= 0 { (0, inside) } else { (inside, 0) };
            let length = row.len() - inside;
            for (sum, &level) in row[to..][..length]
                .iter_mut()
                .zip(&source[from..][..length])
            {
                *sum += weight * f32::from(level);
            }
            // Beyond the border the last pixel goes on.
            let (rim, edge) = if dx >= 0 {
                (length, row.len() - 3)
            } else {
                (0, 0)
            };
            for (i, sum) in row[rim..][..inside].iter_mut().enumerate() {
                *sum += weight * f32::from(source[edge + i % 3]);
            }
        }
    }
    for (level, sum) in pixels.iter_mut().zip(sums) {
        *level = sum as u8;
    }
}

/// Takes away a share of all colour.
fn desaturate(pixels: &mut RgbImage, share: f32) {
    for pixel in pixels.pixels_mut() {
        let [r, g, b] = pixel.0.map(f32::from);
        let grey = 0.3 * r + 0.59 * g + 0.11 * b;
        pixel.0 = [r, g, b].map(|level| (level + (grey - level) * share + 0.5) as u8);
    }
}

/// Blends everything with the colour of bright air.
fn haze(pixels: &mut RgbImage, rng: &mut StdRng) {
    let share = rng.random_range(0.05..0.35f32);
    let light = rng.random_range(120.0..220.0f32);
    let cool = rng.random_range(-2.0..16.0f32);
    let air = [light - cool, light, light + cool];
    let tables = air.map(|air| table(|level| level + (air / 255.0 - level) * share));
    apply(pixels, &tables);
}

/// Gain of each channel, contrast, brightness and gamma.
fn recolour(pixels: &mut RgbImage, rng: &mut StdRng) {
    let contrast = rng.random_range(0.75..1.3f32);
    let brightness = rng.random_range(-0.07..0.1f32);
    let gamma = rng.random_range(-0.3..0.25f32).exp();
    let centre = mean_level(pixels);
    // Air brightens what satellites see, more than pictures from lower down show.
    let brightness = brightness + rng.random_range(0.0..0.6f32) * (0.3 - centre).max(0.0);
    let tables = std::array::from_fn(|_| {
        let gain = rng.random_range(0.93..1.07f32);
        table(|level| {
            let level = (level * gain - centre) * contrast + centre + brightness;
            level.clamp(0.0, 1.0).powf(gamma)
        })
    });
    apply(pixels, &tables);
}

fn table(new: impl Fn(f32) -> f32) -> [u8; 256] {
    std::array::from_fn(|level| (new(level as f32 / 255.0) * 255.0).round() as u8)
}

fn apply(pixels: &mut RgbImage, tables: &[[u8; 256]; 3]) {
    for pixel in pixels.pixels_mut() {
        for (level, table) in pixel.0.iter_mut().zip(tables) {
            *level = table[usize::from(*level)];
        }
    }
}

fn mean_level(pixels: &RgbImage) -> f32 {
    let raw = pixels.as_raw();
    let sum: u64 = raw.iter().map(|&p| u64::from(p)).sum();
    sum as f32 / raw.len().max(1) as f32 / 255.0
}

/// Noise of a sensor: read noise, and shot noise that grows with the root of the light; in some the same
/// in all channels. Resampled pictures have it correlated.
fn noise(pixels: &mut RgbImage, rng: &mut StdRng) {
    let read = log_uniform(0.6, 6.0, rng);
    let shot = rng.random_range(0.0..0.45f32);
    let strength: [f32; 256] =
        std::array::from_fn(|level| read.hypot(shot * (level as f32).sqrt()));
    let same = rng.random_bool(0.4);
    if rng.random_bool(0.5) {
        let grains: [Grain; 3] = std::array::from_fn(|_| Grain::new(rng));
        add_noise(pixels, &strength, same, |c, x, y| grains[c].at(x, y));
    } else {
        let size = rng.random_range(1.2..2.2f32);
        let layers: [Layer; 3] = std::array::from_fn(|_| Layer::new(&WHITE, 0.0, [size; 2], rng));
        let value = |c: usize, x: u32, y: u32| layers[c].at(x as f32, y as f32);
        add_noise(pixels, &strength, same, value);
    }
}

/// Adds the value of each channel, column and row, times the strength at its level.
fn add_noise(
    pixels: &mut RgbImage,
    strength: &[f32; 256],
    same: bool,
    value: impl Fn(usize, u32, u32) -> f32,
) {
    for (x, y, pixel) in pixels.enumerate_pixels_mut() {
        let common = value(0, x, y);
        for (c, level) in pixel.0.iter_mut().enumerate() {
            let value = if same || c == 0 {
                common
            } else {
                value(c, x, y)
            };
            let noisy = f32::from(*level) + strength[usize::from(*level)] * value;
            *level = (noisy + 0.5) as u8;
        }
    }
}

/// Through JPEG and back.
fn compress(pixels: &mut RgbImage, quality: u8) {
    let mut bytes = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
    pixels
        .write_with_encoder(encoder)
        .expect("memory takes all bytes");
    let decoder = JpegDecoder::new(std::io::Cursor::new(bytes)).expect("just encoded");
    let decoded = DynamicImage::from_decoder(decoder).expect("just encoded");
    *pixels = decoded.into_rgb8();
}

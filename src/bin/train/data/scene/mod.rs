//! What a tile shows, before it is turned and lit.
//!
//! A scene is cropped from images ([`mosaic`]), or composed: water of an image ([`water`]) or simulated
//! sea ([`weather`]), things that are no ships on it ([`coast`], [`structure`], [`wake`]), ships cut out
//! of images ([`hull`], [`fleet`]), and weather over all. Everything is drawn in pixels of the tile.

mod canvas;
mod coast;
mod crop;
mod fleet;
mod hull;
mod images;
mod mosaic;
mod noise;
mod structure;
mod wake;
mod water;
pub(crate) mod weather;

pub(crate) use canvas::{Canvas, Rect};
pub(crate) use images::Images;
pub(crate) use noise::{Grain, Layer, WHITE, log_uniform};

use anyhow::Result;
use image::RgbImage;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::config::Augment;

/// A scene cropped from images as they are. With `ship`, a pixel of one comes to lie within that
/// distance of the centre; else none is shown if that can be helped.
///
/// # Errors
/// If images cannot be read.
pub(crate) fn cropped(
    images: &Images,
    side: u32,
    ship: Option<f32>,
    rng: &mut StdRng,
) -> Result<Canvas> {
    let drawers = match ship {
        Some(_) => &images.with_ships,
        None => &images.all,
    };
    let drawer = images::choose(drawers, rng);
    let mut canvas = mosaic::mosaic(images, drawer, side, ship, rng)?;
    canvas.doubtful = !drawer.source.config.complete;
    Ok(canvas)
}

/// Clouds or haze over a cropped scene.
pub(crate) fn overcast(canvas: &mut Canvas, rng: &mut StdRng) {
    air(&mut canvas.pixels, rng);
}

/// A composed scene. With `ship`, one lies within that distance of the centre if a place is found;
/// else there is none.
///
/// # Errors
/// If images cannot be read.
pub(crate) fn composed(
    images: &Images,
    augment: &Augment,
    side: u32,
    ship: Option<f32>,
    rng: &mut StdRng,
) -> Result<Canvas> {
    let real = match rng.random_bool(augment.simulated_sea) {
        true => None,
        false => water::water(images, side, rng)?,
    };
    let mut canvas = real.unwrap_or_else(|| Canvas::new(weather::sea(side, side, rng)));
    let weather = rng.random_bool(augment.weather);
    if weather {
        match rng.random_range(0..4) {
            0 => weather::glint(&mut canvas.pixels, rng),
            1 => weather::whitecaps(&mut canvas.pixels, rng),
            _ => {}
        }
    }
    let sun = structure::sun(rng);
    let berths = match rng.random_bool(augment.structures) {
        true => build(images, &mut canvas, sun, rng)?,
        false => Vec::new(),
    };
    match ship {
        Some(reach) => {
            let plan = fleet::Plan {
                berths: &berths,
                reach,
                sun,
                moored: augment.moored,
                wakes: augment.wakes,
            };
            fleet::launch(images, &mut canvas, &plan, rng)?;
        }
        None => {
            if rng.random_bool(augment.wakes / 2.0) {
                for _ in 0..rng.random_range(1..3) {
                    wake::alone(&mut canvas, rng);
                }
            }
        }
    }
    if weather && rng.random_bool(0.6) {
        air(&mut canvas.pixels, rng);
        if ship.is_none() && rng.random_bool(0.5) {
            weather::clouds(&mut canvas.pixels, rng);
        }
    }
    Ok(canvas)
}

/// Weather through which ships can be seen.
fn air(pixels: &mut RgbImage, rng: &mut StdRng) {
    match rng.random_bool(0.5) {
        true => weather::haze(pixels, rng),
        false => weather::thin_clouds(pixels, rng),
    }
}

/// One kind of thing that is no ship; says where ships may lie at it.
fn build(
    images: &Images,
    canvas: &mut Canvas,
    sun: [f32; 2],
    rng: &mut StdRng,
) -> Result<Vec<structure::Berth>> {
    Ok(match rng.random_range(0..20) {
        0..4 => {
            let land = land(images, canvas.side(), rng)?;
            coast::coast(canvas, &land, rng);
            if rng.random_bool(0.4) {
                structure::pier(canvas, sun, rng)
            } else {
                Vec::new()
            }
        }
        4..7 => {
            let land = land(images, canvas.side(), rng)?;
            coast::quay(canvas, &land, rng)
        }
        7..9 => {
            let ground = coast::ground(canvas.side(), rng);
            coast::islets(canvas, &ground, rng);
            Vec::new()
        }
        9..12 => structure::bridge(canvas, sun, rng),
        12..15 => structure::pier(canvas, sun, rng),
        15..17 => structure::breakwater(canvas, sun, rng),
        17 => structure::pans(canvas, rng),
        18 => structure::farm(canvas, rng),
        _ => match rng.random_bool(0.5) {
            true => structure::platform(canvas, sun, rng),
            false => structure::buoys(canvas, rng),
        },
    })
}

/// Land of an image if there is some, else made up.
fn land(images: &Images, side: u32, rng: &mut StdRng) -> Result<RgbImage> {
    if images.land.is_empty() || rng.random_bool(0.2) {
        return Ok(coast::ground(side, rng));
    }
    let drawer = images::choose(&images.land, rng);
    Ok(mosaic::mosaic(images, drawer, side, None, rng)?.pixels)
}

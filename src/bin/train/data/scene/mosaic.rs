//! Scenes cropped from images: one image at a random scale, and others beside it where it is too
//! small.

use std::f32::consts::TAU;

use anyhow::Result;
use image::RgbImage;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use shipwatch::frame::{resample_gray, resample_rgb};
use shipwatch::mask::Rle;

use super::canvas::{Canvas, Rect};
use super::crop::{Piece, anywhere, is_free, random_pixel};
use super::images::{Drawer, Images};
use super::noise::{FRACTAL, Layer, smoothstep};

/// Tries before a crop that must show no ship becomes what it is.
const TRIES: usize = 12;

/// Pixels over which neighbouring pieces fade into one another.
const FADE: u32 = 14;

/// A piece shows at least so many pixels in each direction, where its image is not smaller.
const LEAST: u32 = 24;

/// Share of scenes at sea that are crops of one image alone.
const ALIKE: f64 = 0.5;

/// An image beside another is shrunk to this size at most.
const SHOWN: u32 = 64;

/// Share of a piece that one colour must have for it to pass for the colour of its water or field.
const DOMINANT: f32 = 0.5;

/// A canvas being filled piece by piece.
pub(crate) struct Quilt {
    canvas: Canvas,
    filled: Vec<bool>,
    /// How much of each pixel's colour is a ship's, 0 to 1.
    weights: Vec<f32>,
    /// The dominant colour of the first piece that has one.
    tone: Option<[f32; 3]>,
    /// Makes borders between pieces crooked, as between land and water.
    bays: Layer,
}

impl Quilt {
    pub(crate) fn new(side: u32, rng: &mut StdRng) -> Self {
        Self {
            canvas: Canvas::new(RgbImage::new(side, side)),
            filled: vec![false; side as usize * side as usize],
            weights: vec![0.0; side as usize * side as usize],
            tone: None,
            bays: Layer::even(&FRACTAL, 0.15, rng),
        }
    }

    /// The canvas; a ship has a pixel if it makes up half of its colour.
    pub(crate) fn finish(mut self) -> Canvas {
        for (ship, &weight) in self.canvas.ships.iter_mut().zip(&self.weights) {
            if weight < 0.5 {
                *ship = 0;
            }
        }
        self.canvas
    }

    /// Puts a piece with its corner at `x`, `y`; where others lie already, it fades in over `fade`
    /// pixels from its rim. Water takes on the colour of the first.
    pub(crate) fn add(&mut self, mut piece: Piece, x: u32, y: u32, fade: u32) {
        let (width, height) = piece.pixels.dimensions();
        // Water flows into water, but anything else ends somewhere.
        let sharpness = match dominant(&piece) {
            Some(own) => {
                let tone = *self.tone.get_or_insert(own);
                adapt(&mut piece.pixels, own, tone);
                1.0
            }
            None => 4.0,
        };
        self.canvas.traces |= piece.ships.is_some();
        let side = self.canvas.side();
        let mut numbers = [0u8; 256];
        for py in 0..height {
            let rim = py.min(height - 1 - py);
            for px in 0..width {
                let at = ((y + py) * side + x + px) as usize;
                let from = (py * width + px) as usize;
                let rim = rim.min(px).min(width - 1 - px);
                let share = if !self.filled[at] || rim >= fade {
                    1.0
                } else {
                    let part = (rim as f32 + 0.5) / fade as f32;
                    let bay = self.bays.at((x + px) as f32, (y + py) as f32);
                    let bent = part + 2.0 * part * (1.0 - part) * bay.clamp(-1.0, 1.0);
                    smoothstep(0.0, 1.0, (bent - 0.5) * sharpness + 0.5)
                };
                self.filled[at] = true;
                let new = &piece.pixels.as_raw()[3 * from..][..3];
                let pixel = &mut self.canvas.pixels.as_mut()[3 * at..][..3];
                if share >= 1.0 {
                    pixel.copy_from_slice(new);
                } else {
                    for (level, &new) in pixel.iter_mut().zip(new) {
                        let under = f32::from(*level);
                        *level = (under + (f32::from(new) - under) * share + 0.5) as u8;
                    }
                }
                let own = piece.ships.as_ref().map_or(0, |ships| ships.as_raw()[from]);
                let weight = &mut self.weights[at];
                *weight += (f32::from(u8::from(own > 0)) - *weight) * share;
                if own > 0 {
                    let number = &mut numbers[usize::from(own)];
                    if *number == 0 {
                        *number = self.canvas.next_ship();
                    }
                    let ship = &mut self.canvas.ships.as_mut()[at];
                    if share >= 0.5 || *ship == 0 {
                        *ship = *number;
                    }
                }
            }
        }
    }
}

/// The colour that most of a piece has, waves averaged and ships aside, if there is one.
fn dominant(piece: &Piece) -> Option<[f32; 3]> {
    let (width, height) = piece.pixels.dimensions();
    let coarse = resample_rgb(&piece.pixels, width.div_ceil(8), height.div_ceil(8));
    let ships = piece.ships.as_ref().map(|ships| {
        let mut any = ships.clone();
        any.iter_mut().for_each(|p| *p = u8::from(*p > 0) * 255);
        resample_gray(&any, coarse.width(), coarse.height())
    });
    let is_ship = |at: usize| ships.as_ref().is_some_and(|ships| ships.as_raw()[at] > 0);
    let cells = coarse.pixels().enumerate();
    let sample: Vec<[u8; 3]> = cells
        .filter(|&(at, _)| !is_ship(at))
        .map(|(_, pixel)| pixel.0)
        .collect();
    if sample.is_empty() {
        return None;
    }
    let median = |c: usize| {
        let mut levels: Vec<u8> = sample.iter().map(|levels| levels[c]).collect();
        levels.sort_unstable();
        f32::from(levels[levels.len() / 2])
    };
    let colour: [f32; 3] = std::array::from_fn(median);
    let near = |levels: &&[u8; 3]| {
        let most = 8.0 + 0.08 * colour[1];
        (0..3).all(|c| (f32::from(levels[c]) - colour[c]).abs() < most)
    };
    let share = sample.iter().filter(near).count() as f32 / sample.len() as f32;
    (share >= DOMINANT).then_some(colour)
}

/// Sums over pixels.
#[derive(Default)]
pub(crate) struct Stats {
    count: f32,
    sums: [f32; 3],
    squares: f32,
}

impl Stats {
    pub(crate) fn add(&mut self, levels: [u8; 3]) {
        let levels = levels.map(f32::from);
        self.count += 1.0;
        self.sums = std::array::from_fn(|c| self.sums[c] + levels[c]);
        self.squares += (levels.iter().sum::<f32>() / 3.0).powi(2);
    }

    pub(crate) fn mean(&self) -> [f32; 3] {
        self.sums.map(|sum| sum / self.count.max(1.0))
    }

    /// Of the mean of the channels.
    pub(crate) fn deviation(&self) -> f32 {
        let mean = self.mean().iter().sum::<f32>() / 3.0;
        (self.squares / self.count.max(1.0) - mean * mean)
            .max(0.0)
            .sqrt()
    }
}

/// Tables that take the level `from` to `to` and leave white white.
pub(crate) fn tables(from: [f32; 3], to: [f32; 3]) -> [[u8; 256]; 3] {
    std::array::from_fn(|c| {
        let slope = ((255.0 - to[c]) / (255.0 - from[c]).max(1.0)).clamp(0.4, 2.5);
        std::array::from_fn(|level| (to[c] + (level as f32 - from[c]) * slope + 0.5) as u8)
    })
}

/// Takes the colour `from` to `to`, and white to white.
fn adapt(image: &mut RgbImage, from: [f32; 3], to: [f32; 3]) {
    let tables = tables(from, to);
    for pixel in image.pixels_mut() {
        for (level, table) in pixel.0.iter_mut().zip(&tables) {
            *level = table[usize::from(*level)];
        }
    }
}

/// Fills a canvas from images of one source at one scale. With `ship`, a pixel of one comes to lie
/// within `reach` of the centre; else no ship is shown if that can be helped.
///
/// # Errors
/// If images cannot be read.
pub(crate) fn mosaic<'a>(
    images: &Images<'a>,
    drawer: &Drawer<'a>,
    side: u32,
    ship: Option<f32>,
    rng: &mut StdRng,
) -> Result<Canvas> {
    let [low, high] = drawer.source.config.scale;
    let scale = rng.random_range(low.ln()..=high.ln()).exp();
    let mut quilt = Quilt::new(side, rng);
    // Water beside other water shows its borders; beside its own it does not.
    let mut beside = None;
    let alike = !drawer.is_land && rng.random_bool(ALIKE);
    let mut open = Vec::new();
    let whole = Rect::new(0, 0, side, side);
    if let Some(reach) = ship {
        let (angle, distance) = (
            rng.random_range(0.0..TAU),
            reach * rng.random::<f32>().sqrt(),
        );
        let at = |part: f32| (side as f32 / 2.0 + distance * part) as u32;
        let target = (at(angle.cos()), at(angle.sin()));
        let filled = images.pick(drawer, rng, |image, pixels, rng| {
            beside = alike.then(|| drawer.only(image));
            anchored(&image.labelled.ships, pixels, scale, target, side, rng).map(
                |(piece, x, y)| {
                    let (width, height) = piece.pixels.dimensions();
                    quilt.add(piece, x, y, 0);
                    Rect::new(x, y, width, height)
                },
            )
        })?;
        open.extend(around(whole, filled.unwrap_or(Rect::new(0, 0, 0, 0))));
    } else {
        open.push(whole);
    }
    while let Some(cell) = open.pop() {
        let drawer = beside.as_ref().unwrap_or(drawer);
        let mut used = None;
        let filled = images.pick(drawer, rng, |image, pixels, rng| {
            used = Some(image);
            let ships = &image.labelled.ships;
            // Pieces too small to show anything would take long to lay.
            let whole = f64::from(SHOWN) / f64::from(pixels.width().min(pixels.height()));
            let scale = scale.max(whole.min(high));
            // An image beside itself would show its ships again, and cut them.
            let free = ship.is_none() || beside.is_some();
            let (piece, at, fade) = fitting(ships, pixels, scale, cell, side, free, rng);
            let (right, bottom) = (at.x + at.width, at.y + at.height);
            quilt.add(piece, at.x, at.y, fade);
            // The far rim is for the neighbours to fade over, unless the cell ends there.
            let end = |end: u32, cell: u32| if end >= cell { cell } else { end - fade };
            Rect::new(
                cell.x,
                cell.y,
                end(right, cell.x + cell.width) - cell.x,
                end(bottom, cell.y + cell.height) - cell.y,
            )
        })?;
        open.extend(around(cell, filled));
        if alike && beside.is_none() {
            beside = used.map(|image| drawer.only(image));
        }
    }
    Ok(quilt.finish())
}

/// What of `cell` lies around `filled`: above, below, left and right of it.
fn around(cell: Rect, filled: Rect) -> impl Iterator<Item = Rect> {
    if filled.width == 0 || filled.height == 0 {
        return vec![cell].into_iter();
    }
    let (right, bottom) = (filled.x + filled.width, filled.y + filled.height);
    let rects = [
        Rect::new(cell.x, cell.y, cell.width, filled.y - cell.y),
        Rect::new(cell.x, bottom, cell.width, cell.y + cell.height - bottom),
        Rect::new(cell.x, filled.y, filled.x - cell.x, filled.height),
        Rect::new(right, filled.y, cell.x + cell.width - right, filled.height),
    ];
    let left: Vec<Rect> = rects
        .into_iter()
        .filter(|rect| rect.width > 0 && rect.height > 0)
        .collect();
    left.into_iter()
}

/// As much of an image as a canvas of `side` takes when a pixel of one of its ships comes to lie at
/// `target`; and where its corner comes to lie. None without ships.
fn anchored(
    ships: &[Rle],
    pixels: &RgbImage,
    scale: f64,
    target: (u32, u32),
    side: u32,
    rng: &mut StdRng,
) -> Option<(Piece, u32, u32)> {
    let anchor = random_pixel(ships.choose(rng)?, pixels.height(), rng)?;
    // Per axis: first own pixel, own pixels, corner on the canvas, canvas pixels.
    let place = |anchor: u32, target: u32, grid: u32| {
        let before = ((f64::from(target) / scale) as u32).min(anchor);
        let start = anchor - before;
        let at = (f64::from(target) - f64::from(before) * scale)
            .round()
            .max(0.0) as u32;
        let room = f64::from(side - at) / scale;
        let own = (room.round() as u32).clamp(1, grid - start);
        let size = ((f64::from(own) * scale).round() as u32).clamp(1, side - at);
        (start, own, at, size)
    };
    let (x, own_width, left, width) = place(anchor.0, target.0, pixels.width());
    let (y, own_height, top, height) = place(anchor.1, target.1, pixels.height());
    let crop = Rect::new(x, y, own_width, own_height);
    let piece = Piece::cut(pixels, ships, crop, (width, height));
    Some((piece, left, top))
}

/// A random crop of an image for the cell's corner, with its place, which reaches beyond the cell's
/// rim by the third value, where the canvas does.
fn fitting(
    ships: &[Rle],
    pixels: &RgbImage,
    scale: f64,
    cell: Rect,
    side: u32,
    free: bool,
    rng: &mut StdRng,
) -> (Piece, Rect, u32) {
    let full = |grid: u32| ((f64::from(grid) * scale).round() as u32).max(1);
    let available = (full(pixels.width()), full(pixels.height()));
    let fade_within = |size: (u32, u32)| FADE.min(size.0.min(size.1) / 5);
    let room = cell.grown(fade_within(available), side, side);
    let mut size = (available.0.min(room.width), available.1.min(room.height));
    if available.0 < room.width && available.1 < room.height {
        // The whole image time and again would make a pattern.
        let part = rng.random_range(0.6..1.0f64);
        let less = |size: u32| ((f64::from(size) * part) as u32).max(1);
        size = (less(size.0), less(size.1));
    }
    let own = |size: u32| (f64::from(size) / scale).round() as u32;
    let (width, height) = pixels.dimensions();
    let mut crop = anywhere((own(size.0), own(size.1)), width, height, rng);
    if free {
        for _ in 0..TRIES {
            if is_free(crop, ships, height) {
                break;
            }
            // Ships are everywhere in a small image: a smaller piece may lie between them.
            if size.0.min(size.1) > 2 * LEAST && rng.random_bool(0.5) {
                size = (size.0 / 2, size.1 / 2);
            }
            crop = anywhere((own(size.0), own(size.1)), width, height, rng);
        }
    }
    // The smaller the piece, the less of it may go into fading: some must be left in the cell.
    let fade = fade_within(available).min(fade_within(size));
    let corner = |cell: u32, size: u32| cell.saturating_sub(fade).min(side - size);
    let at = Rect::new(
        corner(cell.x, size.0),
        corner(cell.y, size.1),
        size.0,
        size.1,
    );
    let piece = Piece::cut(pixels, ships, crop, size);
    (piece, at, fade)
}

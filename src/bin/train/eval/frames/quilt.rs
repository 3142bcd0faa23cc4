//! Surfaces without seams, from pieces that are smaller.

use image::imageops::{self, FilterType};
use image::{GrayImage, Luma, Rgb, RgbImage};
use rand::{Rng, RngExt};

use super::subject::{Piece, Subject};

/// Side of a piece of water, at least, in pixels of the frame.
const WATER: u32 = 40;

/// Different pieces of water in a quilt, at most.
const PIECES: usize = 12;

/// How often water is asked for pieces, and fewest that make a quilt.
const ASKED: usize = 24;
const FEWEST: usize = 3;

/// Water all over, made of the calm places of an image: none where it has hardly any.
///
/// Where pieces meet, their differences from the mean are blended so that their strength is kept: a
/// plain blend would be smoother than water is.
pub(super) fn water(
    subject: &Subject,
    side: u32,
    scale: f64,
    rng: &mut impl Rng,
) -> Option<RgbImage> {
    let file = |side: u32| (f64::from(side) / scale).ceil() as u32;
    // Large pieces repeat less; crowded images have small ones only.
    let mut pieces: Vec<RgbImage> = Vec::new();
    for size in [96, 64, WATER] {
        let mut calm = || subject.calm(file(size), rng);
        let areas: Vec<_> = (0..ASKED).filter_map(|_| calm()).take(PIECES).collect();
        if areas.len() >= FEWEST {
            pieces = areas
                .iter()
                .map(|area| subject.piece(area, scale).pixels)
                .collect();
            break;
        }
    }
    let size = pieces.first()?.width().min(pieces[0].height());
    let mean = subject.colour();
    let (overlap, step) = (size / 3, size - size / 3);
    let mut sums = vec![[0.0f32; 3]; (side * side) as usize];
    let mut squares = vec![0.0f32; (side * side) as usize];
    let (dx, dy) = (rng.random_range(0..step), rng.random_range(0..step));
    for row in 0..side / step + 3 {
        for column in 0..side / step + 3 {
            let piece = &pieces[rng.random_range(0..pieces.len())];
            let turned = rng.random_bool(0.5);
            let own = mean_colour(piece);
            for (px, py) in (0..size).flat_map(|y| (0..size).map(move |x| (x, y))) {
                let at = |cell: u32, within: u32, shift: u32| {
                    (cell * step + within)
                        .checked_sub(step + shift)
                        .filter(|&at| at < side)
                };
                let (Some(x), Some(y)) = (at(column, px, dx), at(row, py, dy)) else {
                    continue;
                };
                let ramp = |within: u32| {
                    let edge = within.min(size - 1 - within) as f32 + 0.5;
                    (edge / overlap.max(1) as f32).min(1.0)
                };
                let weight = ramp(px) * ramp(py);
                let pixel = match turned {
                    true => piece.get_pixel(size - 1 - px, size - 1 - py),
                    false => piece.get_pixel(px, py),
                };
                let index = (y * side + x) as usize;
                for c in 0..3 {
                    // Half of the difference between places stays, as patches of other water.
                    let from = 0.5 * (own[c] + mean[c]);
                    sums[index][c] += weight * (f32::from(pixel.0[c]) - from);
                }
                squares[index] += weight * weight;
            }
        }
    }
    Some(RgbImage::from_fn(side, side, |x, y| {
        let index = (y * side + x) as usize;
        let strength = squares[index].max(1e-6).sqrt();
        Rgb(std::array::from_fn(|c| {
            byte(mean[c] + sums[index][c] / strength)
        }))
    }))
}

/// Pieces side by side, each fading into those already there, until a square is full. `next` gives the
/// pieces; it is asked again for each place that is still open.
pub(super) fn patchwork(side: u32, fade: u32, mut next: impl FnMut() -> RgbImage) -> RgbImage {
    let mut image = RgbImage::new(side, side);
    let mut full = vec![false; (side * side) as usize];
    while let Some(open) = full.iter().position(|full| !full) {
        let (x0, y0) = (open as u32 % side, open as u32 / side);
        let piece = next();
        let (width, height) = piece.dimensions();
        // Reaches back over its neighbours, to fade into them.
        let reach = fade.min(width / 3).min(height / 3);
        for (x, y, pixel) in piece.enumerate_pixels() {
            let at = |start: u32, within: u32| {
                (start + within).checked_sub(reach).filter(|&at| at < side)
            };
            let (Some(fx), Some(fy)) = (at(x0, x), at(y0, y)) else {
                continue;
            };
            let index = (fy * side + fx) as usize;
            let edge = x.min(y).min(width - 1 - x).min(height - 1 - y);
            let share = match full[index] {
                true => smooth((edge as f32 + 0.5) / (2 * reach).max(1) as f32),
                false => 1.0,
            };
            let below = image.get_pixel_mut(fx, fy);
            for (value, &new) in below.0.iter_mut().zip(&pixel.0) {
                *value = byte(f32::from(*value) * (1.0 - share) + f32::from(new) * share);
            }
            full[index] = true;
        }
    }
    image
}

/// A piece gone on with by its mirror images, over `width` x `height` pixels from `shift` on; each ship
/// of each image as an own map.
pub(super) fn mirrored(piece: &Piece, shift: (u32, u32), width: u32, height: u32) -> Piece {
    let (w, h) = piece.pixels.dimensions();
    let fold = |at: u32, length: u32| match at % (2 * length) {
        at if at < length => at,
        at => 2 * length - 1 - at,
    };
    let pixels = RgbImage::from_fn(width, height, |x, y| {
        *piece
            .pixels
            .get_pixel(fold(x + shift.0, w), fold(y + shift.1, h))
    });
    let mut ships = Vec::new();
    for row in shift.1 / h..=(shift.1 + height - 1) / h {
        for column in shift.0 / w..=(shift.0 + width - 1) / w {
            for ship in &piece.ships {
                let mut map = GrayImage::new(width, height);
                for (x, y, value) in ship.enumerate_pixels().filter(|(_, _, v)| v.0[0] > 0) {
                    let at = |nth: u32, within: u32, length: u32, shift: u32, end: u32| {
                        let within = if nth.is_multiple_of(2) {
                            within
                        } else {
                            length - 1 - within
                        };
                        (nth * length + within)
                            .checked_sub(shift)
                            .filter(|&at| at < end)
                    };
                    let (x, y) = (
                        at(column, x, w, shift.0, width),
                        at(row, y, h, shift.1, height),
                    );
                    if let (Some(x), Some(y)) = (x, y) {
                        map.put_pixel(x, y, *value);
                    }
                }
                ships.push(map);
            }
        }
    }
    Piece { pixels, ships }
}

/// A field that varies slowly between -1 and 1, `detail` times from border to border.
pub(super) fn slow_field(side: u32, detail: u32, rng: &mut impl Rng) -> GrayImage {
    let coarse = GrayImage::from_fn(detail, detail, |_, _| Luma([rng.random()]));
    imageops::resize(&coarse, side, side, FilterType::CatmullRom)
}

/// Lightens and darkens a picture slowly from here to there, by a few levels.
pub(super) fn shade(image: &mut RgbImage, rng: &mut impl Rng) {
    let strength = rng.random_range(0.0..14.0f32);
    let field = slow_field(image.width(), 3, rng);
    for (pixel, level) in image.pixels_mut().zip(field.pixels()) {
        let change = (f32::from(level.0[0]) / 127.5 - 1.0) * strength;
        pixel.0 = pixel.0.map(|value| byte(f32::from(value) + change));
    }
}

fn mean_colour(image: &RgbImage) -> [f32; 3] {
    let n = (image.width() * image.height()) as f32;
    std::array::from_fn(|c| image.pixels().map(|p| f32::from(p.0[c])).sum::<f32>() / n)
}

/// 0 to 1 with a level start and end.
pub(super) fn smooth(share: f32) -> f32 {
    let share = share.clamp(0.0, 1.0);
    share * share * (3.0 - 2.0 * share)
}

pub(super) fn byte(value: f32) -> u8 {
    value.round().clamp(0.0, 255.0) as u8
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use shipwatch::mask::Mask;

    use super::*;

    /// Mean and spread of light.
    fn statistics(image: &RgbImage) -> (f32, f32) {
        let levels: Vec<f32> = image.pixels().map(|p| f32::from(p.0[1])).collect();
        let mean = levels.iter().sum::<f32>() / levels.len() as f32;
        let square = levels.iter().map(|l| (l - mean).powi(2)).sum::<f32>();
        (mean, (square / levels.len() as f32).sqrt())
    }

    /// Rough water with a bright ship in the middle.
    fn subject() -> (Subject, RgbImage) {
        let mut rng = StdRng::seed_from_u64(3);
        let mut image = RgbImage::from_fn(400, 400, |_, _| Rgb([rng.random_range(70..110); 3]));
        let water = image.clone();
        let mut mask = Mask::new(400, 400);
        for (x, y) in (180..240).flat_map(|x| (190..210).map(move |y| (x, y))) {
            image.put_pixel(x, y, Rgb([250; 3]));
            mask.set(x, y, true);
        }
        let ships = vec![mask.to_rle()];
        (Subject::new(String::new(), image, ships, [1.0, 1.0]), water)
    }

    #[test]
    fn a_quilt_is_as_light_and_as_rough_as_its_water_and_shows_no_ship() {
        let (subject, water_alone) = subject();
        let mut rng = StdRng::seed_from_u64(5);
        let quilt = water(&subject, 300, 1.0, &mut rng).expect("there is water");
        assert!(quilt.pixels().all(|pixel| pixel.0[1] < 160));
        let ((mean, spread), (want_mean, want_spread)) =
            (statistics(&quilt), statistics(&water_alone));
        assert!((mean - want_mean).abs() < 3.0, "{mean} for {want_mean}");
        assert!(
            (spread / want_spread - 1.0).abs() < 0.1,
            "{spread} for {want_spread}"
        );
    }

    #[test]
    fn mirror_images_carry_their_ships_along() {
        let (subject, _) = subject();
        let piece = subject.piece(&subject.uncut().expect("it is not cut"), 0.4);
        let all = mirrored(&piece, (30, 100), 500, 450);
        assert_eq!(all.pixels.dimensions(), (500, 450));
        let ship = |x, y| all.ships.iter().any(|map| map.get_pixel(x, y).0[0] > 0);
        for (x, y, pixel) in all.pixels.enumerate_pixels() {
            assert!(pixel.0[1] < 245 || ship(x, y), "({x}, {y})");
            assert!(pixel.0[1] > 150 || !ship(x, y), "({x}, {y})");
        }
        // The piece has 160 pixels a side, the ship columns 72 to 95 and rows 76 to 83 of it: it shows in
        // the first three columns of images, and in the second and third row.
        let shown = all
            .ships
            .iter()
            .filter(|map| map.pixels().any(|p| p.0[0] > 0));
        assert_eq!(shown.count(), 6);
    }

    #[test]
    fn a_patchwork_leaves_no_pixel_open() {
        let mut number = 0;
        let next = || {
            number += 40;
            RgbImage::from_pixel(30 + number / 8, 50, Rgb([100 + (number % 90) as u8; 3]))
        };
        let image = patchwork(200, 8, next);
        assert!(image.pixels().all(|pixel| pixel.0[0] >= 100));
    }
}

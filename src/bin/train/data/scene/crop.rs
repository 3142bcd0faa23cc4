//! Rectangles cut from images, with the ships on them.

use image::{GrayImage, Luma, RgbImage};
use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use shipwatch::frame::{resample_gray, resample_rgb};
use shipwatch::mask::Rle;

use super::canvas::Rect;

/// A piece of a picture to come.
pub(crate) struct Piece {
    pub(crate) pixels: RgbImage,
    /// 0 where no ship is, else a number per ship; absent if there is none.
    pub(crate) ships: Option<GrayImage>,
}

impl Piece {
    /// Cuts `crop` out of an image and resamples it to `width` x `height`.
    pub(crate) fn cut(
        pixels: &RgbImage,
        ships: &[Rle],
        crop: Rect,
        (width, height): (u32, u32),
    ) -> Self {
        let own = rasterise(crop, ships, pixels.height());
        Self {
            pixels: resample_rgb(&crop.cut(pixels), width, height),
            ships: own.map(|own| resample_ships(&own, width, height)),
        }
    }
}

/// A ship's pixels as stretches of one column each: column, first row, row after the last.
pub(crate) fn stretches(ship: &Rle, grid_height: u32) -> impl Iterator<Item = (u32, u32, u32)> {
    let rows = u64::from(grid_height);
    ship.runs().iter().flat_map(move |&(start, length)| {
        let (first, end) = (start - 1, start - 1 + length);
        (first / rows..=(end - 1) / rows).map(move |column| {
            let top = (column * rows).max(first) - column * rows;
            let bottom = ((column + 1) * rows).min(end) - column * rows;
            (column as u32, top as u32, bottom as u32)
        })
    })
}

/// What of a ship lies within a crop, in the crop's own columns and rows.
fn stretches_within(
    crop: Rect,
    ship: &Rle,
    grid_height: u32,
) -> impl Iterator<Item = (u32, u32, u32)> {
    stretches(ship, grid_height).filter_map(move |(x, top, bottom)| {
        let column = x
            .checked_sub(crop.x)
            .filter(|&column| column < crop.width)?;
        let top = top.max(crop.y) - crop.y;
        let bottom = bottom.min(crop.y + crop.height).saturating_sub(crop.y);
        (top < bottom).then_some((column, top, bottom))
    })
}

/// The ships within a crop, each with its number; none if there are none.
fn rasterise(crop: Rect, ships: &[Rle], grid_height: u32) -> Option<GrayImage> {
    let mut mask: Option<GrayImage> = None;
    for (ship, number) in ships.iter().zip((1..=u8::MAX).cycle()) {
        for (x, top, bottom) in stretches_within(crop, ship, grid_height) {
            let mask = mask.get_or_insert_with(|| GrayImage::new(crop.width, crop.height));
            for y in top..bottom {
                mask.put_pixel(x, y, Luma([number]));
            }
        }
    }
    mask
}

/// Ships cover a pixel if half of it is theirs, by the filter that the pixels go through; it belongs to
/// the one with the largest share.
fn resample_ships(own: &GrayImage, width: u32, height: u32) -> GrayImage {
    let mut any = own.clone();
    any.iter_mut()
        .for_each(|p| *p = if *p > 0 { 255 } else { 0 });
    let mut out = resample_gray(&any, width, height);
    let (across, down) = (
        own.width() as f32 / width as f32,
        own.height() as f32 / height as f32,
    );
    for (x, y, pixel) in out.enumerate_pixels_mut() {
        pixel.0[0] = if pixel.0[0] < 128 {
            0
        } else {
            commonest(
                own,
                span(x, across, own.width()),
                span(y, down, own.height()),
            )
        };
    }
    out
}

/// The own pixels that the triangle filter may draw on for pixel `at`.
fn span(at: u32, step: f32, length: u32) -> std::ops::Range<u32> {
    let centre = (at as f32 + 0.5) * step;
    let reach = step.max(1.0) + 0.5;
    ((centre - reach).max(0.0) as u32)..((centre + reach).ceil() as u32).min(length)
}

/// The commonest number in a window that is not 0; 0 if there is none.
fn commonest(own: &GrayImage, columns: std::ops::Range<u32>, rows: std::ops::Range<u32>) -> u8 {
    let mut first = 0;
    let mut counts = [0u16; 256];
    let mut several = false;
    for (x, y) in rows.flat_map(|y| columns.clone().map(move |x| (x, y))) {
        let number = own.get_pixel(x, y).0[0];
        if number > 0 {
            counts[usize::from(number)] += 1;
            several |= first != 0 && first != number;
            first = number;
        }
    }
    if several {
        let best = (1..=u8::MAX).max_by_key(|&n| counts[usize::from(n)]);
        return best.expect("a range of numbers");
    }
    first
}

/// Own pixels by which a crop without ships stays away from them: masks are not perfect.
const MARGIN: u32 = 5;

/// Whether no ship pixel lies within the crop or near it.
pub(crate) fn is_free(crop: Rect, ships: &[Rle], grid_height: u32) -> bool {
    let crop = crop.grown(MARGIN, u32::MAX, grid_height);
    let within = |ship| stretches_within(crop, ship, grid_height).next().is_some();
    !ships.iter().any(within)
}

/// Any pixel of the ship, as column and row.
pub(crate) fn random_pixel(ship: &Rle, grid_height: u32, rng: &mut StdRng) -> Option<(u32, u32)> {
    let mut nth = rng.random_range(0..ship.area().max(1)) as u32;
    for (x, top, bottom) in stretches(ship, grid_height) {
        match nth.checked_sub(bottom - top) {
            Some(rest) => nth = rest,
            None => return Some((x, top + nth)),
        }
    }
    None
}

/// A rectangle of the given size anywhere in a picture of `width` x `height`.
pub(crate) fn anywhere(size: (u32, u32), width: u32, height: u32, rng: &mut impl Rng) -> Rect {
    let (w, h) = (size.0.clamp(1, width), size.1.clamp(1, height));
    let x = rng.random_range(0..=width - w);
    let y = rng.random_range(0..=height - h);
    Rect::new(x, y, w, h)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    /// A run that begins in one column and ends two columns on, in a grid with 5 rows.
    #[test]
    fn runs_are_cut_at_column_ends() {
        let ship: Rle = "4 9".parse().expect("one run");
        let all: Vec<_> = stretches(&ship, 5).collect();
        assert_eq!(all, [(0, 3, 5), (1, 0, 5), (2, 0, 2)]);
        let pixels: Vec<_> = all
            .iter()
            .flat_map(|&(x, top, bottom)| (top..bottom).map(move |y| (x, y)))
            .collect();
        assert_eq!(pixels, ship.pixels(5).collect::<Vec<_>>());
        let ships = [ship.clone()];
        assert!(is_free(Rect::new(2 + MARGIN + 1, 0, 3, 3), &ships, 5));
        assert!(!is_free(Rect::new(2 + MARGIN, 0, 3, 3), &ships, 5));
        let rng = &mut StdRng::seed_from_u64(1);
        let mut drawn: Vec<_> = (0..300)
            .filter_map(|_| random_pixel(&ship, 5, rng))
            .collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn, pixels);
    }

    /// Two ships, one pixel apart, stay two when shrunk; each pixel has the number of its own.
    #[test]
    fn neighbours_keep_their_numbers_when_resampled() {
        let own = GrayImage::from_fn(60, 40, |x, _| {
            Luma([match x {
                10..=19 => 1,
                21..=30 => 2,
                _ => 0,
            }])
        });
        for (width, height) in [(60, 40), (30, 20), (90, 60), (20, 13)] {
            let out = resample_ships(&own, width, height);
            let row: Vec<u8> = (0..width)
                .map(|x| out.get_pixel(x, height / 2).0[0])
                .collect();
            let count = |n| row.iter().filter(|&&p| p == n).count() as f32 / width as f32;
            assert!((count(1) - 10.0 / 60.0).abs() < 0.04, "{row:?}");
            assert!((count(2) - 10.0 / 60.0).abs() < 0.04, "{row:?}");
            let last = row.iter().rposition(|&p| p == 1).expect("the first ship");
            assert!(!row[..last].contains(&2), "{row:?}");
        }
    }
}

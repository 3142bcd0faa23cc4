//! Pictures for people: the frame with its ships outlined, their scores beside them, and the borders of regions.

use std::iter;

use font8x8::legacy::BASIC_LEGACY;
use image::{Pixel, Rgb, RgbImage};

use super::{Draw, Drawn};
use crate::detect::{Polygon, Regions};
use crate::mask::Mask;
use crate::record::{FrameRecord, Ship};

/// A colour that neither sea, land nor ships have.
const INK: Rgb<u8> = Rgb([255, 0, 255]);
/// Around what is looked at.
const LOOK: Rgb<u8> = Rgb([0, 255, 255]);
/// Around what is ignored.
const IGNORE: Rgb<u8> = Rgb([255, 160, 0]);
/// Side of a character in pixels.
const GLYPH: u32 = 8;
/// End of the names of all overlays.
pub(super) const OVERLAY: &str = ".overlay.png";

/// The whole frame, with regions and ships drawn in.
#[derive(Debug)]
pub struct Overlay {
    /// By source.
    pub regions: Vec<Regions>,
}

impl Draw for Overlay {
    fn suffix(&self) -> &'static str {
        OVERLAY
    }

    fn draw<'a>(
        &'a self,
        source: usize,
        pixels: &'a RgbImage,
        record: &'a FrameRecord,
    ) -> Drawn<'a> {
        let regions = &self.regions[source];
        Box::new(iter::once_with(|| draw(pixels, regions, &record.ships)))
    }
}

/// The frame with regions and ships drawn in.
fn draw(pixels: &RgbImage, regions: &Regions, ships: &[Ship]) -> RgbImage {
    let mut image = pixels.clone();
    let looks = regions.look.iter().map(|polygon| (polygon, LOOK));
    let ignores = regions.ignore.iter().map(|polygon| (polygon, IGNORE));
    for (polygon, colour) in looks.chain(ignores) {
        border(&mut image, polygon, colour);
    }
    // Where ships are crowded, lines matter more than numbers.
    for ship in ships {
        label(&mut image, ship);
    }
    for ship in ships {
        outline(&mut image, ship);
    }
    image
}

/// A line of a pixel's breadth through the pixels of the border.
fn border(image: &mut RgbImage, polygon: &Polygon, colour: Rgb<u8>) {
    let last = [image.width() - 1, image.height() - 1].map(f64::from);
    for [from, to] in polygon.edges() {
        let [from, to] = [from, to].map(|[x, y]| [x * last[0], y * last[1]]);
        let steps = (to[0] - from[0]).abs().max((to[1] - from[1]).abs()).ceil();
        for step in 0..=steps as u32 {
            let share = f64::from(step) / steps.max(1.0);
            let [x, y] = [0, 1].map(|axis| from[axis] + share * (to[axis] - from[axis]));
            image.put_pixel(x.round() as u32, y.round() as u32, colour);
        }
    }
}

/// Inks the pixels around the ship, which itself stays visible.
fn outline(image: &mut RgbImage, ship: &Ship) {
    let (width, height) = image.dimensions();
    let [left, top, columns, rows] = ship.bbox;
    // One pixel of room on each side.
    let mut mask = Mask::new(columns + 2, rows + 2);
    for (x, y) in ship.rle.pixels(height) {
        mask.set(x + 1 - left, y + 1 - top, true);
    }
    let around = |at: u32, size: u32| at.saturating_sub(1)..(at + 2).min(size);
    for (x, y) in ship.rle.pixels(height) {
        for y in around(y, height) {
            for x in around(x, width) {
                if !mask.get(x + 1 - left, y + 1 - top) {
                    image.put_pixel(x, y, INK);
                }
            }
        }
    }
}

/// Writes the score at the ship's right, or where there is room, on a ground that is darkened but lets
/// the picture through.
fn label(image: &mut RgbImage, ship: &Ship) {
    let text = format!("{:.2}", ship.score);
    let size = (GLYPH * text.len() as u32, GLYPH);
    let [x, y, width, _] = ship.bbox;
    let right = x + width + 2;
    let left = if right + size.0 <= image.width() {
        right
    } else {
        x.saturating_sub(size.0 + 2)
    };
    let top = y.min(image.height().saturating_sub(size.1));
    for (column, glyph) in (0..).zip(text.bytes().map(|c| BASIC_LEGACY[usize::from(c)])) {
        for (row, bits) in (0..).zip(glyph) {
            for bit in 0..GLYPH {
                let place = (left + column * GLYPH + bit, top + row);
                if let Some(pixel) = image.get_pixel_mut_checked(place.0, place.1) {
                    *pixel = match bits >> bit & 1 {
                        1 => INK,
                        _ => pixel.map(|value| value / 3),
                    };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::sample_record;

    fn grey(width: u32, height: u32) -> RgbImage {
        RgbImage::from_pixel(width, height, Rgb([90; 3]))
    }

    #[test]
    fn the_line_surrounds_the_ship_and_leaves_it_visible() {
        // Pixels (2..4, 2..4) of an 8 x 8 frame.
        let ship = &sample_record("a.png", &["19 2 27 2"]).ships[0];
        let mut image = grey(8, 8);
        outline(&mut image, ship);
        for (x, y, pixel) in image.enumerate_pixels() {
            let inside = (2..4).contains(&x) && (2..4).contains(&y);
            let near = (1..5).contains(&x) && (1..5).contains(&y);
            assert_eq!(*pixel == INK, near && !inside, "({x}, {y})");
        }
    }

    #[test]
    fn a_ship_that_fills_the_frame_is_no_trouble() {
        let mut record = sample_record("a.png", &["1 1"]);
        record.ships[0].bbox = [0, 0, 1, 1];
        let everywhere = Regions::default();
        let image = draw(&grey(1, 1), &everywhere, &record.ships);
        assert_eq!(image.dimensions(), (1, 1));
    }

    #[test]
    fn borders_run_from_corner_to_corner() {
        let regions = Regions {
            look: vec!["0,0 1,0 1,1 0,1".parse().expect("a polygon")],
            ignore: vec!["0.25,0.25 0.75,0.75 0.25,0.75".parse().expect("a polygon")],
        };
        let image = draw(&grey(9, 9), &regions, &[]);
        for (x, y, pixel) in image.enumerate_pixels() {
            let on_edge = [x, y].iter().any(|&at| at == 0 || at == 8);
            let within = (2..=6).contains(&x) && (2..=6).contains(&y);
            let on_triangle = within && (x == y || x == 2 && y > 2 || y == 6);
            let expected = match (on_edge, on_triangle) {
                (true, _) => LOOK,
                (_, true) => IGNORE,
                _ => Rgb([90; 3]),
            };
            assert_eq!(*pixel, expected, "({x}, {y})");
        }
        assert_eq!(draw(&grey(1, 1), &regions, &[]).get_pixel(0, 0), &IGNORE);
    }

    #[test]
    fn the_score_stands_beside_the_ship() {
        let ship = &sample_record("a.png", &["19 2 27 2"]).ships[0];
        let mut image = grey(64, 16);
        label(&mut image, ship);
        let inked = image.enumerate_pixels().filter(|(_, _, p)| **p == INK);
        assert!(inked.clone().count() > 20);
        assert!(
            inked
                .into_iter()
                .all(|(x, y, _)| (6..38).contains(&x) && (2..10).contains(&y))
        );
    }
}

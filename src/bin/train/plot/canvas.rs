//! Strokes and letters on a white ground.

use std::ops::Range;

use font8x8::legacy::BASIC_LEGACY;
use image::{Rgb, RgbImage};

/// Side of a character in pixels.
pub(super) const GLYPH: u32 = 8;

/// Column and row; whole numbers lie between pixels.
type Point = (f64, f64);

pub(super) struct Canvas(RgbImage);

impl Canvas {
    pub(super) fn new(width: u32, height: u32) -> Self {
        Self(RgbImage::from_pixel(width, height, Rgb([255; 3])))
    }

    pub(super) fn into_image(self) -> RgbImage {
        self.0
    }

    /// A smooth stroke.
    pub(super) fn line(&mut self, from: Point, to: Point, thick: f64, colour: Rgb<u8>) {
        let everywhere = (0.0, f64::from(self.0.height()));
        self.clipped_line(from, to, thick, colour, everywhere);
    }

    /// [`Canvas::line`] as far as it lies between two rows.
    pub(super) fn clipped_line(
        &mut self,
        from: Point,
        to: Point,
        thick: f64,
        colour: Rgb<u8>,
        rows: (f64, f64),
    ) {
        let reach = thick / 2.0 + 1.0;
        let columns = span(from.0, to.0, reach, (0.0, f64::from(self.0.width())));
        let within = (rows.0 - reach, rows.1 + reach);
        let within = (within.0.max(0.0), within.1.min(f64::from(self.0.height())));
        let along = (to.0 - from.0, to.1 - from.1);
        let square = along.0 * along.0 + along.1 * along.1;
        for y in span(from.1, to.1, reach, within) {
            for x in columns.clone() {
                let pixel = (f64::from(x) + 0.5 - from.0, f64::from(y) + 0.5 - from.1);
                let dot = pixel.0 * along.0 + pixel.1 * along.1;
                let near = (dot / square.max(1e-12)).clamp(0.0, 1.0);
                let off = (pixel.0 - near * along.0).hypot(pixel.1 - near * along.1);
                self.blend(x, y, colour, thick / 2.0 + 0.5 - off);
            }
        }
    }

    /// A filled rectangle.
    pub(super) fn fill(&mut self, corner: Point, end: Point, colour: Rgb<u8>) {
        self.wash(corner, end, colour, 1.0);
    }

    /// Lets what lies in a rectangle fade, so that text on it can be read.
    pub(super) fn veil(&mut self, corner: Point, end: Point) {
        self.wash(corner, end, Rgb([255; 3]), 0.8);
    }

    /// Text whose top-left corner is given; `size` is 1 for small and 2 for large letters.
    pub(super) fn text(&mut self, x: f64, y: f64, text: &str, size: u32, colour: Rgb<u8>) {
        for (dx, dy) in dots(text, size) {
            self.dot(x + f64::from(dx), y + f64::from(dy), colour);
        }
    }

    /// Text whose middle stands at `x`.
    pub(super) fn centred(&mut self, x: f64, y: f64, text: &str, size: u32, colour: Rgb<u8>) {
        let half = f64::from(text_width(text, size)) / 2.0;
        self.text(x - half, y, text, size, colour);
    }

    /// Text that is read upwards; its middle stands at `y`.
    pub(super) fn upward(&mut self, x: f64, y: f64, text: &str, colour: Rgb<u8>) {
        let start = y + f64::from(text_width(text, 1)) / 2.0;
        for (dx, dy) in dots(text, 1) {
            self.dot(x + f64::from(dy), start - f64::from(dx), colour);
        }
    }

    fn dot(&mut self, x: f64, y: f64, colour: Rgb<u8>) {
        if x >= 0.0 && y >= 0.0 {
            self.blend(x as u32, y as u32, colour, 1.0);
        }
    }

    fn wash(&mut self, corner: Point, end: Point, colour: Rgb<u8>, cover: f64) {
        let (width, height) = (f64::from(self.0.width()), f64::from(self.0.height()));
        for y in span(corner.1, end.1, 0.0, (0.0, height)) {
            for x in span(corner.0, end.0, 0.0, (0.0, width)) {
                self.blend(x, y, colour, cover);
            }
        }
    }

    fn blend(&mut self, x: u32, y: u32, colour: Rgb<u8>, cover: f64) {
        let cover = cover.clamp(0.0, 1.0);
        if let Some(pixel) = self.0.get_pixel_mut_checked(x, y) {
            for (value, ink) in pixel.0.iter_mut().zip(colour.0) {
                let mixed = f64::from(*value) * (1.0 - cover) + f64::from(ink) * cover;
                *value = mixed.round() as u8;
            }
        }
    }
}

/// Width of a text in pixels.
pub(super) fn text_width(text: &str, size: u32) -> u32 {
    text.chars().count() as u32 * GLYPH * size
}

/// Whole pixels between two places, `reach` further on both sides, as far as they lie `within`.
fn span(a: f64, b: f64, reach: f64, within: (f64, f64)) -> Range<u32> {
    let clamp = |at: f64| at.clamp(within.0, within.1.max(within.0));
    clamp((a.min(b) - reach).floor()).floor() as u32..clamp((a.max(b) + reach).ceil()).ceil() as u32
}

/// The inked pixels of a text; a letter that the font lacks is a question mark.
fn dots(text: &str, size: u32) -> impl Iterator<Item = (u32, u32)> {
    let glyph = |letter: char| {
        *BASIC_LEGACY
            .get(letter as usize)
            .unwrap_or(&BASIC_LEGACY[63])
    };
    let letters: Vec<[u8; 8]> = text.chars().map(glyph).collect();
    let side = GLYPH * size;
    (0..side).flat_map(move |y| {
        let letters = letters.clone();
        (0..letters.len() as u32 * side).filter_map(move |x| {
            let row = letters[(x / side) as usize][(y / size) as usize];
            (row >> (x % side / size) & 1 == 1).then_some((x, y))
        })
    })
}

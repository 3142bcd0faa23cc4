//! Contact sheets: image, truth and prediction side by side, with the scores.

use font8x8::legacy::BASIC_LEGACY;
use image::{Rgb, RgbImage, imageops};
use shipwatch::frame::resample_rgb;
use shipwatch::mask::Rle;

/// Longer side of a picture on a sheet, in pixels.
const SIDE: u32 = 320;

/// Height of a line of text.
const LINE: u32 = 12;

const GAP: u32 = 4;
const TRUTH: Rgb<u8> = Rgb([0, 230, 80]);
const FOUND: Rgb<u8> = Rgb([255, 0, 255]);
const TEXT: Rgb<u8> = Rgb([240, 240, 240]);

/// One row of a sheet.
pub(super) struct Row {
    pub(super) pixels: RgbImage,
    pub(super) truth: Vec<Rle>,
    pub(super) found: Vec<Rle>,
    /// Stands above the pictures.
    pub(super) caption: String,
}

/// Rows below one another: the image, the image with its true ships, and with those that were found.
pub(super) fn draw(rows: &[Row]) -> RgbImage {
    let height = SIDE + LINE + GAP;
    let mut sheet =
        RgbImage::from_pixel(3 * (SIDE + GAP), height * rows.len() as u32, Rgb([24; 3]));
    for (nth, row) in (0..).zip(rows) {
        let y = nth * height;
        write(&mut sheet, 2, y + 2, &row.caption);
        let views = [
            row.pixels.clone(),
            outlined(&row.pixels, &row.truth, TRUTH),
            outlined(&row.pixels, &row.found, FOUND),
        ];
        for (column, view) in (0..).zip(views) {
            let (width, height) = fitted(view.dimensions());
            let small = resample_rgb(&view, width, height);
            let x = i64::from(column * (SIDE + GAP));
            imageops::replace(&mut sheet, &small, x, i64::from(y + LINE));
        }
    }
    sheet
}

/// The size at which an image goes onto a sheet.
fn fitted((width, height): (u32, u32)) -> (u32, u32) {
    let factor = f64::from(SIDE) / f64::from(width.max(height));
    let side = |length: u32| ((f64::from(length) * factor).round() as u32).clamp(1, SIDE);
    (side(width), side(height))
}

/// The image with lines around ships, wide enough to survive shrinking.
fn outlined(pixels: &RgbImage, ships: &[Rle], ink: Rgb<u8>) -> RgbImage {
    let (width, height) = pixels.dimensions();
    let reach = width.max(height).div_ceil(SIDE).max(1);
    let mut image = pixels.clone();
    let ship_pixels = || ships.iter().flat_map(|ship| ship.pixels(height));
    for (x, y) in ship_pixels() {
        for y in y.saturating_sub(reach)..(y + reach + 1).min(height) {
            for x in x.saturating_sub(reach)..(x + reach + 1).min(width) {
                image.put_pixel(x, y, ink);
            }
        }
    }
    // What lies within stays visible.
    for (x, y) in ship_pixels() {
        image.put_pixel(x, y, *pixels.get_pixel(x, y));
    }
    image
}

fn write(image: &mut RgbImage, x: u32, y: u32, text: &str) {
    for (column, letter) in (0..).zip(text.chars()) {
        let glyph = BASIC_LEGACY
            .get(letter as usize)
            .unwrap_or(&BASIC_LEGACY[63]);
        for (row, bits) in (0..).zip(glyph) {
            for bit in (0..8).filter(|bit| bits >> bit & 1 == 1) {
                if let Some(pixel) = image.get_pixel_mut_checked(x + column * 8 + bit, y + row) {
                    *pixel = TEXT;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truth_and_prediction_are_inked_around_and_not_within() {
        let pixels = RgbImage::from_pixel(SIDE, SIDE, Rgb([90; 3]));
        // Columns 100 and 101, rows 50 to 59.
        let start = |column: u64| column * u64::from(SIDE) + 51;
        let ship = Rle::new([(start(100), 10), (start(101), 10)]).expect("increasing");
        let row = Row {
            pixels,
            truth: vec![ship.clone()],
            found: vec![],
            caption: "a".into(),
        };
        let sheet = draw(&[row]);
        let at =
            |column: u32, x: u32, y: u32| *sheet.get_pixel(column * (SIDE + GAP) + x, LINE + y);
        assert_eq!(at(1, 99, 55), TRUTH);
        assert_eq!(at(1, 100, 55), Rgb([90; 3]));
        assert_eq!(at(0, 99, 55), Rgb([90; 3]));
        assert_eq!(at(2, 99, 55), Rgb([90; 3]));
        assert!(sheet.pixels().any(|pixel| *pixel == TEXT));
    }
}

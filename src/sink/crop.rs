//! What was found, cut out of the frame: small pictures to look through, or to learn from.

use image::RgbImage;
use image::imageops::crop_imm;

use super::{Draw, Drawn};
use crate::record::{FrameRecord, Ship};

/// End of the names of all crops.
pub(super) const CROP: &str = ".crop.png";

/// Most crops of a frame: those of the highest scores.
const MOST: usize = 50;

/// A crop shows the ship with this much of its longer side around it, but some pixels at least.
const MARGIN: f64 = 0.5;
const LEAST: u32 = 16;

/// Each ship of a frame with what is around it.
#[derive(Debug, Clone, Copy)]
pub struct Crops;

impl Draw for Crops {
    fn suffix(&self) -> &'static str {
        CROP
    }

    fn draw<'a>(&'a self, _: usize, pixels: &'a RgbImage, record: &'a FrameRecord) -> Drawn<'a> {
        let ships = record.ships.iter().take(MOST);
        Box::new(ships.map(|ship| crop(pixels, ship)))
    }
}

fn crop(pixels: &RgbImage, ship: &Ship) -> RgbImage {
    let [x, y, width, height] = ship.bbox;
    let margin = (f64::from(width.max(height)) * MARGIN).ceil() as u32;
    let margin = margin.max(LEAST);
    let [left, top] = [x, y].map(|at| at.saturating_sub(margin));
    let right = (x + width + margin).min(pixels.width());
    let bottom = (y + height + margin).min(pixels.height());
    crop_imm(pixels, left, top, right - left, bottom - top).to_image()
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;
    use crate::sink::sample_record;

    #[test]
    fn a_crop_shows_the_ship_and_what_is_around_it_within_the_frame() {
        let pixels = RgbImage::from_fn(200, 100, |x, y| Rgb([x as u8, y as u8, 0]));
        let mut record = sample_record("a", &["1 1"; 60]);
        record.ships[0].bbox = [100, 50, 40, 10];
        record.ships[1].bbox = [0, 98, 3, 2];
        let crops: Vec<_> = Crops.draw(0, &pixels, &record).collect();
        assert_eq!(crops.len(), 50);
        // 20 pixels on each side; 16 at least, as far as there are any.
        assert_eq!(crops[0].dimensions(), (80, 50));
        assert_eq!(*crops[0].get_pixel(0, 0), Rgb([80, 30, 0]));
        assert_eq!(crops[1].dimensions(), (19, 18));
        assert_eq!(*crops[1].get_pixel(0, 0), Rgb([0, 82, 0]));
    }
}

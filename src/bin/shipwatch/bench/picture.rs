//! What networks are shown: the self-test's image, which has water, a coast and ships.

use image::RgbImage;
use shipwatch::daemon::selftest;

use crate::exit::{Exit, Failure, OrExit};

/// The image, continued by its mirror images to a square of `side` pixels.
pub(super) fn picture(side: u32) -> Result<RgbImage, Failure> {
    let image = selftest::image().or_exit(Exit::Software)?.pixels;
    let (width, height) = image.dimensions();
    Ok(RgbImage::from_fn(side, side, |x, y| {
        image[(mirrored(x, width), mirrored(y, height))]
    }))
}

/// Where along an image of `length` pixels the pixel `at` of its continuation lies.
fn mirrored(at: u32, length: u32) -> u32 {
    let at = at % (2 * length);
    at.min(2 * length - 1 - at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_goes_on_as_its_mirror_image() {
        let places: Vec<u32> = (0..8).map(|at| mirrored(at, 3)).collect();
        assert_eq!(places, [0, 1, 2, 2, 1, 0, 0, 1]);
    }
}

//! Resampling, the same for training and for the edge so that a model sees one kind of blur.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};
use image::{GrayImage, RgbImage};

/// Resamples to `width` x `height` by a triangle filter that widens when shrinking (no aliasing).
///
/// # Panics
/// If `width` or `height` is zero.
pub fn resample_rgb(src: &RgbImage, width: u32, height: u32) -> RgbImage {
    let bytes = resample::<U8x3>(src.as_raw(), src.dimensions(), (width, height));
    RgbImage::from_raw(width, height, bytes).expect("resampled buffer has the size asked for")
}

/// [`resample_rgb`] for one channel: probability maps and masks.
///
/// # Panics
/// If `width` or `height` is zero.
pub fn resample_gray(src: &GrayImage, width: u32, height: u32) -> GrayImage {
    let bytes = resample::<U8>(src.as_raw(), src.dimensions(), (width, height));
    GrayImage::from_raw(width, height, bytes).expect("resampled buffer has the size asked for")
}

// By the pixel's type, so that the program holds the code of these pixels and not that of eleven more.
fn resample<P: PixelTrait>(src: &[u8], from: (u32, u32), to: (u32, u32)) -> Vec<u8> {
    assert!(to.0 > 0 && to.1 > 0, "cannot resample to {}x{}", to.0, to.1);
    if from == to {
        return src.to_vec();
    }
    let view = TypedImageRef::<P>::from_buffer(from.0, from.1, src)
        .expect("buffer matches its dimensions");
    let mut bytes = vec![0; to.0 as usize * to.1 as usize * P::size()];
    let mut out = TypedImage::<P>::from_buffer(to.0, to.1, &mut bytes)
        .expect("buffer matches its dimensions");
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Resizer::new()
        .resize_typed(&view, &mut out, &options)
        .expect("there is no crop to be refused");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shrinking_averages_instead_of_skipping() {
        // Black and white columns: a filter that skipped would give pure black or white.
        let stripes = GrayImage::from_fn(64, 64, |x, _| {
            image::Luma([if x % 2 == 0 { 0 } else { 255 }])
        });
        let small = resample_gray(&stripes, 16, 16);
        assert!(small.pixels().all(|p| (118..=138).contains(&p.0[0])));
    }

    #[test]
    fn same_size_is_the_same_image() {
        let img = RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8, y as u8, 7]));
        assert_eq!(resample_rgb(&img, 5, 3), img);
    }
}

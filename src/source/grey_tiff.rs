//! Grey TIFF files that the image crate leaves out: those with alpha, and floating-point samples.

use std::array;
use std::io::{Read, Seek};

use image::error::DecodingError;
use image::{ColorType, ImageDecoder, ImageError, ImageFormat, ImageResult, Limits};
use tiff::TiffError;
use tiff::decoder::{Decoder, DecodingResult};
use tiff::tags::Tag;

/// What the pixels of such a file become; `None` where the file is of another kind.
pub(super) fn color(reader: impl Read + Seek) -> Option<ColorType> {
    let mut decoder = Decoder::new(reader).ok()?;
    let bits = match decoder.colortype().ok()? {
        tiff::ColorType::Gray(32) => 32,
        tiff::ColorType::Multiband {
            bit_depth,
            num_samples: 2,
        } if has_alpha(&mut decoder) => bit_depth,
        _ => return None,
    };
    match bits {
        8 => Some(ColorType::L8),
        16 => Some(ColorType::L16),
        // The image crate has no grey of floating-point values.
        32 => Some(ColorType::Rgb32F),
        _ => None,
    }
}

/// Decodes the grey samples of such a file; alpha is dropped.
pub(super) struct GreyTiff<R: Read + Seek> {
    decoder: Decoder<R>,
    size: (u32, u32),
    color: ColorType,
    limits: tiff::decoder::Limits,
}

impl<R: Read + Seek> GreyTiff<R> {
    /// `color` is what [`color`] says of the file.
    pub(super) fn new(reader: R, color: ColorType) -> ImageResult<Self> {
        let mut decoder = Decoder::new(reader).map_err(into_image)?;
        let size = decoder.dimensions().map_err(into_image)?;
        Ok(Self {
            decoder,
            size,
            color,
            limits: tiff::decoder::Limits::default(),
        })
    }
}

fn has_alpha<R: Read + Seek>(decoder: &mut Decoder<R>) -> bool {
    const ASSOCIATED: u16 = 1;
    const UNASSOCIATED: u16 = 2;
    let extra = decoder.get_tag_u16_vec(Tag::ExtraSamples);
    extra.is_ok_and(|extra| matches!(extra[..], [ASSOCIATED | UNASSOCIATED]))
}

impl<R: Read + Seek> ImageDecoder for GreyTiff<R> {
    fn dimensions(&self) -> (u32, u32) {
        self.size
    }

    fn color_type(&self) -> ColorType {
        self.color
    }

    fn set_limits(&mut self, limits: Limits) -> ImageResult<()> {
        let bytes = limits
            .max_alloc
            .and_then(|bytes| usize::try_from(bytes).ok())
            .unwrap_or(usize::MAX);
        self.limits.decoding_buffer_size = bytes;
        self.limits.intermediate_buffer_size = bytes;
        Ok(())
    }

    fn read_image(self, out: &mut [u8]) -> ImageResult<()> {
        let mut decoder = self.decoder.with_limits(self.limits);
        match (decoder.read_image().map_err(into_image)?, self.color) {
            (DecodingResult::U8(samples), ColorType::L8) => fill(out, &samples, |v| [v]),
            (DecodingResult::U16(samples), ColorType::L16) => fill(out, &samples, u16::to_ne_bytes),
            (DecodingResult::F32(samples), ColorType::Rgb32F) => fill(out, &samples, |v| {
                let bytes = v.to_ne_bytes();
                array::from_fn::<u8, 12, _>(|i| bytes[i % bytes.len()])
            }),
            _ => {
                let message =
                    "only unsigned 8 and 16 bit and 32-bit floating-point samples are read";
                let format = ImageFormat::Tiff.into();
                return Err(ImageError::Decoding(DecodingError::new(format, message)));
            }
        }
        Ok(())
    }

    fn read_image_boxed(self: Box<Self>, out: &mut [u8]) -> ImageResult<()> {
        (*self).read_image(out)
    }
}

/// Writes the first sample of each pixel to `out`, `N` bytes a pixel.
fn fill<S: Copy, const N: usize>(out: &mut [u8], samples: &[S], bytes: impl Fn(S) -> [u8; N]) {
    let per_pixel = (samples.len() * N / out.len().max(1)).max(1);
    let pixels = samples.iter().step_by(per_pixel);
    for (out, &sample) in out.chunks_exact_mut(N).zip(pixels) {
        out.copy_from_slice(&bytes(sample));
    }
}

fn into_image(error: TiffError) -> ImageError {
    ImageError::Decoding(DecodingError::new(ImageFormat::Tiff.into(), error))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::DynamicImage;
    use tiff::encoder::colortype::{self, ColorType as Encoded};
    use tiff::encoder::{TiffEncoder, TiffValue};

    use super::*;

    /// Two pixels of grey and alpha: the encoder has no such colour, so the tags of grey of twice
    /// the width are put right.
    fn grey_alpha<C: Encoded>(samples: [C::Inner; 4], extra: u16) -> Vec<u8>
    where
        [C::Inner]: TiffValue,
    {
        let mut file = Cursor::new(Vec::new());
        let mut encoder = TiffEncoder::new(&mut file).expect("encoder");
        let mut image = encoder.new_image::<C>(4, 1).expect("image");
        let tags = image.encoder();
        let bits = C::BITS_PER_SAMPLE[0];
        tags.write_tag(Tag::ImageWidth, 2_u32).expect("tag");
        tags.write_tag(Tag::SamplesPerPixel, 2_u16).expect("tag");
        tags.write_tag(Tag::BitsPerSample, &[bits; 2][..])
            .expect("tag");
        tags.write_tag(Tag::ExtraSamples, extra).expect("tag");
        image.write_data(&samples).expect("data");
        file.into_inner()
    }

    fn decode(bytes: Vec<u8>) -> Option<DynamicImage> {
        let color = color(Cursor::new(&bytes))?;
        let decoder = GreyTiff::new(Cursor::new(&bytes), color).expect("opens");
        Some(DynamicImage::from_decoder(decoder).expect("decodes"))
    }

    #[test]
    fn alpha_is_dropped() {
        let shallow = decode(grey_alpha::<colortype::Gray8>([7, 255, 9, 0], 2));
        assert_eq!(shallow.expect("grey and alpha").as_bytes(), [7, 9]);
        let deep = decode(grey_alpha::<colortype::Gray16>([700, 65535, 900, 0], 1));
        let deep = deep.expect("grey and alpha").into_luma16();
        assert_eq!(deep.as_raw(), &[700, 900]);
    }

    #[test]
    fn a_second_band_is_no_alpha() {
        assert!(decode(grey_alpha::<colortype::Gray8>([7, 255, 9, 0], 0)).is_none());
    }

    #[test]
    fn floating_point_grey_becomes_rgb() {
        let mut file = Cursor::new(Vec::new());
        TiffEncoder::new(&mut file)
            .and_then(|mut encoder| {
                encoder.write_image::<colortype::Gray32Float>(2, 1, &[0.5, -2.0])
            })
            .expect("encodes");
        let image = decode(file.into_inner()).expect("floating-point grey");
        let expected = [0.5, 0.5, 0.5, -2.0, -2.0, -2.0];
        assert_eq!(image.into_rgb32f().as_raw(), &expected);
    }
}

//! What becomes of the bytes of an image file, and of the same bytes as a camera's buffer.

use shipwatch::frame::{Frame, Percentiles};
use shipwatch::source::decode::{DecodeOptions, decode_bytes};
use shipwatch::source::pixels::{BufferFormat, Colours, Encoding, Layout, Range};

use super::panics;

/// Images with more pixels are refused.
const MAX_PIXELS: u64 = 1 << 16;

const LAYOUTS: [Layout; 6] = [
    Layout::Mjpeg,
    Layout::Yuyv,
    Layout::Uyvy,
    Layout::Nv12,
    Layout::Rgb24,
    Layout::Grey,
];

/// How far a file comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sight {
    /// It is no image.
    Refused,
    /// It is a frame.
    Frame,
}

/// Decodes bytes as the daemon does, and reads them as a buffer of the form that their last bytes name.
///
/// # Panics
/// If a frame is not as it must be, or shipwatch itself panicked.
pub fn look(bytes: &[u8]) -> Sight {
    let plain = decode(bytes, None);
    let stretched = decode(bytes, Some(Percentiles::default()));
    if let (Some(plain), Some(stretched)) = (&plain, &stretched) {
        assert_eq!(plain.pixels.dimensions(), stretched.pixels.dimensions());
        assert_eq!(plain.tags, stretched.tags);
    }
    if let Some((format, bytes)) = buffer(bytes)
        && let Ok(pixels) = format.to_rgb(bytes)
    {
        assert_eq!(pixels.dimensions(), (format.width, format.height));
    }
    panics::check();
    match plain.or(stretched) {
        Some(_) => Sight::Frame,
        None => Sight::Refused,
    }
}

fn decode(bytes: &[u8], stretch: Option<Percentiles>) -> Option<Frame> {
    let options = DecodeOptions {
        max_pixels: MAX_PIXELS,
        stretch,
    };
    let frame = decode_bytes("x", bytes, &options);
    let frame = frame
        .inspect_err(|error| assert!(error.to_string().starts_with("x: "), "{error}"))
        .ok()?;
    let pixels = u64::from(frame.pixels.width()) * u64::from(frame.pixels.height());
    assert!((1..=MAX_PIXELS).contains(&pixels), "{pixels} pixels");
    let tags = &frame.tags;
    assert!(tags.gsd.is_none_or(|gsd| gsd.is_finite() && gsd > 0.0));
    if let Some(position) = &tags.position {
        assert!(position.latitude.abs() <= 90.0 && position.longitude.abs() <= 180.0);
        assert!(position.altitude.is_none_or(f64::is_finite));
    }
    Some(frame)
}

/// A form of buffer by the last bytes, and the bytes before them.
fn buffer(bytes: &[u8]) -> Option<(BufferFormat, &[u8])> {
    let (bytes, &[layout, width, height, stride]) = bytes.split_last_chunk()?;
    let format = BufferFormat {
        layout: LAYOUTS[usize::from(layout) % LAYOUTS.len()],
        width: width.into(),
        height: height.into(),
        stride: u32::from(stride) * 3,
        colours: Colours {
            encoding: [Encoding::Bt601, Encoding::Bt709, Encoding::Bt2020]
                [usize::from(layout) / 6 % 3],
            range: [Range::Limited, Range::Full][usize::from(layout) / 18 % 2],
        },
    };
    Some((format, bytes))
}

/// The same scene in every format that is read, in several kinds of each.
pub fn images() -> Vec<Vec<u8>> {
    use image::codecs::jpeg::JpegEncoder;
    use image::codecs::png::PngEncoder;
    use image::{DynamicImage, ImageEncoder, ImageFormat, Rgb, RgbImage};
    use std::io::Cursor;

    let scene: DynamicImage = RgbImage::from_fn(21, 13, |x, y| {
        Rgb([(x * 12) as u8, (y * 19) as u8, (x * y) as u8])
    })
    .into();
    let encode = |image: &DynamicImage, format| {
        let mut file = Cursor::new(Vec::new());
        image.write_to(&mut file, format).expect("encodes");
        file.into_inner()
    };
    let mut files = Vec::new();
    for format in [
        ImageFormat::Jpeg,
        ImageFormat::Png,
        ImageFormat::Tiff,
        ImageFormat::WebP,
        ImageFormat::Bmp,
    ] {
        files.push(encode(&scene, format));
        let grey = scene.to_luma8().into();
        files.push(encode(&grey, format));
    }
    for deep in [scene.to_rgb16().into(), scene.to_luma16().into()] {
        files.push(encode(&deep, ImageFormat::Png));
        files.push(encode(&deep, ImageFormat::Tiff));
    }
    files.push(encode(&scene.to_rgb32f().into(), ImageFormat::Tiff));
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp] {
        files.push(encode(&scene.to_rgba8().into(), format));
    }
    // With tags.
    let tags = tags();
    let (pixels, size) = (scene.as_bytes(), (scene.width(), scene.height()));
    let mut jpeg = Vec::new();
    let mut encoder = JpegEncoder::new(&mut jpeg);
    encoder.set_exif_metadata(tags.clone()).expect("takes EXIF");
    (encoder.write_image(pixels, size.0, size.1, scene.color().into())).expect("encodes");
    let mut png = Vec::new();
    let mut encoder = PngEncoder::new(&mut png);
    encoder.set_exif_metadata(tags).expect("takes EXIF");
    (encoder.write_image(pixels, size.0, size.1, scene.color().into())).expect("encodes");
    files.extend([jpeg, png]);
    files
}

/// An EXIF block with a time.
fn tags() -> Vec<u8> {
    let mut block = b"II*\0\x08\0\0\0\x01\0".to_vec();
    let (time, at) = (b"2023:05:01 10:20:30\0", 8 + 2 + 12 + 4 + 2 + 12 + 4_u32);
    // A directory whose only entry is where that of EXIF lies, and then that, with DateTimeOriginal.
    block.extend([0x69, 0x87, 4, 0, 1, 0, 0, 0, 26, 0, 0, 0]);
    block.extend([0; 4]);
    block.extend([1, 0, 0x03, 0x90, 2, 0, time.len() as u8, 0, 0, 0]);
    block.extend(at.to_le_bytes());
    block.extend([0; 4]);
    block.extend(time);
    block
}

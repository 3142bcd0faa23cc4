//! Image files to frames.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Cursor, Seek, SeekFrom};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};

use super::grey_tiff::{self, GreyTiff};
use super::{jpeg, tags};
use crate::contain::contain;
use crate::frame::{Frame, Percentiles, stretch_floats, stretch_integers};

/// How files become frames.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DecodeOptions {
    /// Images with more pixels are refused before any memory is taken for them.
    pub max_pixels: u64,
    /// Maps the sensor values between these percentiles to 0..=255, over all channels jointly.
    /// Without it 8-bit values stay as they are, 16-bit values are divided by 257, and
    /// floating-point values are refused.
    pub stretch: Option<Percentiles>,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self {
            max_pixels: Self::MAX_PIXELS,
            stretch: None,
        }
    }
}

impl DecodeOptions {
    /// Default of `max_pixels`: a whole Sentinel-2 scene (10980 x 10980) fits three times.
    pub const MAX_PIXELS: u64 = 400_000_000;

    /// Whether a file of so many bytes may hold an image of no more pixels than allowed.
    pub(super) fn check_length(&self, bytes: u64) -> Result<(), DecodeErrorKind> {
        // Four channels of 32 bits.
        let most = self.max_pixels.saturating_mul(16).saturating_add(SCRATCH);
        if bytes <= most {
            return Ok(());
        }
        Err(DecodeErrorKind::TooLong {
            bytes,
            limit: self.max_pixels,
        })
    }
}

/// Why a file gave no frame.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {kind}")]
pub struct DecodeError {
    /// The file's path, or the name given for bytes.
    pub name: String,
    /// What went wrong.
    #[source]
    pub kind: DecodeErrorKind,
}

/// What went wrong with one file.
#[derive(Debug, thiserror::Error)]
pub enum DecodeErrorKind {
    /// The file cannot be opened or read.
    #[error("cannot be read: {0}")]
    Io(io::Error),
    /// A folder, a pipe or a device.
    #[error("is not a regular file")]
    NotAFile,
    /// The file has no bytes.
    #[error("is empty")]
    Empty,
    /// The first bytes are those of no format that is read here.
    #[error("is not a JPEG, PNG, TIFF, WebP or BMP image")]
    UnknownFormat,
    /// More pixels than allowed.
    #[error(
        "has {width}x{height} pixels, over the limit of {limit}; raise it by --max-pixels \
         (or `max-pixels` in the config file) if memory allows"
    )]
    TooLarge {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The limit in pixels.
        limit: u64,
    },
    /// More bytes than an image of so many pixels has: a file that is mostly holes, perhaps.
    #[error(
        "has {bytes} bytes, more than any image of {limit} pixels; raise the limit by --max-pixels \
         (or `max-pixels` in the config file) if it is one"
    )]
    TooLong {
        /// Length of the file, or of the JPEG in it.
        bytes: u64,
        /// The limit in pixels.
        limit: u64,
    },
    /// A JPEG that ends before its end marker.
    #[error("is cut off: the JPEG has no end marker; copy the file again")]
    Truncated,
    /// Floating-point samples have no natural range of bytes.
    #[error("has floating-point samples; choose their range by --stretch")]
    NeedsStretch,
    /// The decoder refused the content.
    #[error("cannot be decoded: {0}")]
    Image(ImageError),
    /// The decoder came to a state that it holds to be impossible.
    #[error("cannot be decoded: it is damaged, or of a kind that the decoder fails on")]
    Malformed,
}

impl DecodeErrorKind {
    /// Whether the same content will be refused again, whatever the system and the options say by then.
    pub fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::Empty | Self::UnknownFormat | Self::Truncated | Self::Image(_) | Self::Malformed
        )
    }
}

/// Reads a frame from a file, whose format is told by its content.
///
/// Grey becomes RGB, alpha is dropped (the colour stays as stored), colour profiles and the EXIF
/// orientation are not applied. The frame is named after the file, without its folders.
pub fn decode_file(path: &Path, options: &DecodeOptions) -> Result<Frame, DecodeError> {
    let name = path
        .file_name()
        .map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    open_file(path)
        .and_then(|reader| decode(name, reader, options))
        .map_err(|kind| of_file(path, kind))
}

/// Width and height of an image file by its header: no pixel is decoded, so that those may still turn
/// out to be broken.
pub fn read_size(path: &Path) -> Result<(u32, u32), DecodeError> {
    let size = || {
        let mut reader = open_file(path)?;
        match guess(&mut reader)? {
            // The decoder would read the whole file first.
            ImageFormat::Jpeg => match jpeg::size(reader) {
                Ok(size) => Ok(size),
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    Err(DecodeErrorKind::Truncated)
                }
                Err(e) => Err(DecodeErrorKind::Io(e)),
            },
            format => Ok(open(&mut reader, format)?.dimensions()),
        }
    };
    contain(size)
        .unwrap_or(Err(DecodeErrorKind::Malformed))
        .map_err(|kind| of_file(path, kind))
}

pub(super) fn of_file(path: &Path, kind: DecodeErrorKind) -> DecodeError {
    DecodeError {
        name: path.display().to_string(),
        kind,
    }
}

fn open_file(path: &Path) -> Result<BufReader<File>, DecodeErrorKind> {
    open_regular(path).map(BufReader::new)
}

/// Opens a file to read; a pipe, which would wait for a writer, or a device is not opened.
pub(super) fn open_regular(path: &Path) -> Result<File, DecodeErrorKind> {
    let io = DecodeErrorKind::Io;
    if !path.metadata().map_err(io)?.is_file() {
        return Err(DecodeErrorKind::NotAFile);
    }
    let mut options = OpenOptions::new();
    options.read(true);
    // It may have become a pipe since.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        rustix::fs::OFlags::NONBLOCK.bits() as i32,
    );
    let file = options.open(path).map_err(io)?;
    match file.metadata().map_err(io)?.is_file() {
        true => Ok(file),
        false => Err(DecodeErrorKind::NotAFile),
    }
}

/// [`decode_file`] for a file that lies in memory.
pub fn decode_bytes(
    name: &str,
    bytes: &[u8],
    options: &DecodeOptions,
) -> Result<Frame, DecodeError> {
    decode(name.to_owned(), Cursor::new(bytes), options).map_err(|kind| DecodeError {
        name: name.to_owned(),
        kind,
    })
}

fn decode(
    name: String,
    reader: impl BufRead + Seek,
    options: &DecodeOptions,
) -> Result<Frame, DecodeErrorKind> {
    // Decoders check much by assertions.
    contain(|| decode_trusting(name, reader, options)).unwrap_or(Err(DecodeErrorKind::Malformed))
}

fn decode_trusting(
    name: String,
    mut reader: impl BufRead + Seek,
    options: &DecodeOptions,
) -> Result<Frame, DecodeErrorKind> {
    let io = DecodeErrorKind::Io;
    let format = guess(&mut reader)?;
    let mut length = reader.seek(SeekFrom::End(0)).map_err(io)?;
    options.check_length(length)?;
    reader.rewind().map_err(io)?;
    if format == ImageFormat::Jpeg {
        if !jpeg::is_whole(&mut reader).map_err(io)? {
            return Err(DecodeErrorKind::Truncated);
        }
        // The decoder reads all that there is into memory.
        length = reader.stream_position().map_err(io)?;
        let samples = options.max_pixels.saturating_mul(4);
        if length > samples.saturating_add(SCRATCH) {
            return Err(DecodeErrorKind::TooLong {
                bytes: length,
                limit: options.max_pixels,
            });
        }
        reader.rewind().map_err(io)?;
    }
    let mut reader = reader.take(length);

    let mut decoder = open(&mut reader, format)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > options.max_pixels {
        return Err(DecodeErrorKind::TooLarge {
            width,
            height,
            limit: options.max_pixels,
        });
    }
    // The pixels are within the limit; this keeps a crafted file from taking much more beside them.
    let most = decoder
        .total_bytes()
        .saturating_mul(2)
        .saturating_add(SCRATCH);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(most);
    decoder.set_limits(limits).map_err(of_image)?;
    let exif = decoder.exif_metadata().ok().flatten();
    let xmp = decoder.xmp_metadata().ok().flatten();
    let image = DynamicImage::from_decoder(decoder).map_err(of_image)?;
    let pixels = to_rgb8(image, options.stretch)?;

    let tags = match format {
        ImageFormat::Tiff => {
            let whole = length <= most;
            tags::of_tiff(&name, reader, xmp, (width, height), whole)
        }
        _ => tags::of_blocks(&name, exif, xmp, (width, height)),
    };
    Ok(Frame { name, pixels, tags })
}

/// What a decoder says, unless it passes on what the system says of the file.
fn of_image(error: ImageError) -> DecodeErrorKind {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(error) = cause {
        let system = error.downcast_ref::<io::Error>();
        if let Some(code) = system.and_then(io::Error::raw_os_error) {
            return DecodeErrorKind::Io(io::Error::from_raw_os_error(code));
        }
        cause = error.source();
    }
    DecodeErrorKind::Image(error)
}

/// The format, by the first bytes; the reader is back at them then.
fn guess(reader: &mut (impl BufRead + Seek)) -> Result<ImageFormat, DecodeErrorKind> {
    let io = DecodeErrorKind::Io;
    let start = reader.fill_buf().map_err(io)?;
    if start.is_empty() {
        return Err(DecodeErrorKind::Empty);
    }
    // BigTIFF, which the guess below does not know and the decoder reads.
    let big_tiff = start.starts_with(b"II+\0") || start.starts_with(b"MM\0+");
    let format = ImageReader::new(&mut *reader)
        .with_guessed_format()
        .map_err(io)?
        .format()
        .or(big_tiff.then_some(ImageFormat::Tiff))
        .ok_or(DecodeErrorKind::UnknownFormat)?;
    reader.rewind().map_err(io)?;
    Ok(format)
}

fn open<'a, R: BufRead + Seek>(
    reader: &'a mut R,
    format: ImageFormat,
) -> Result<Box<dyn ImageDecoder + 'a>, DecodeErrorKind> {
    if format == ImageFormat::Tiff {
        let color = grey_tiff::color(&mut *reader);
        reader.rewind().map_err(DecodeErrorKind::Io)?;
        if let Some(color) = color {
            let decoder = GreyTiff::new(reader, color).map_err(of_image)?;
            return Ok(Box::new(decoder));
        }
    }
    // What unpacks before the size is known: colour profiles of PNG.
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(SCRATCH);
    let mut reader = ImageReader::with_format(reader, format);
    reader.limits(limits);
    Ok(Box::new(reader.into_decoder().map_err(of_image)?))
}

/// What a decoder may take beside twice the pixels.
const SCRATCH: u64 = 64 << 20;

fn to_rgb8(image: DynamicImage, stretch: Option<Percentiles>) -> Result<RgbImage, DecodeErrorKind> {
    use DynamicImage::*;
    let float = matches!(image, ImageRgb32F(_) | ImageRgba32F(_));
    let Some(percentiles) = stretch else {
        return if float {
            Err(DecodeErrorKind::NeedsStretch)
        } else {
            Ok(image.into_rgb8())
        };
    };
    let (width, height) = (image.width(), image.height());
    let deep = image.color().bytes_per_pixel() / image.color().channel_count() > 1;
    let bytes = if float {
        stretch_floats(&image.into_rgb32f(), percentiles)
    } else if deep {
        stretch_integers(&image.into_rgb16(), percentiles)
    } else {
        stretch_integers(&image.into_rgb8(), percentiles)
    };
    Ok(RgbImage::from_raw(width, height, bytes).expect("one byte per sample of the image"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::codecs::jpeg::JpegEncoder;
    use image::{ColorType, GrayImage, ImageBuffer, ImageEncoder, Luma, Rgb, Rgb32FImage, Rgba};

    fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        image.write_to(&mut file, format).expect("encodes");
        file.into_inner()
    }

    fn decode(bytes: &[u8]) -> Result<Frame, DecodeErrorKind> {
        decode_bytes("test", bytes, &DecodeOptions::default()).map_err(|e| e.kind)
    }

    fn stretched(bytes: &[u8]) -> Result<Frame, DecodeErrorKind> {
        let options = DecodeOptions {
            stretch: Some(Percentiles::default()),
            ..DecodeOptions::default()
        };
        decode_bytes("test", bytes, &options).map_err(|e| e.kind)
    }

    fn picture() -> RgbImage {
        RgbImage::from_fn(7, 5, |x, y| Rgb([x as u8 * 30, y as u8 * 50, 9]))
    }

    #[test]
    fn lossless_formats_give_the_very_pixels() {
        let picture = picture();
        for format in [
            ImageFormat::Png,
            ImageFormat::Tiff,
            ImageFormat::WebP,
            ImageFormat::Bmp,
        ] {
            let bytes = encode(&picture.clone().into(), format);
            assert_eq!(
                decode(&bytes).expect("decodes").pixels,
                picture,
                "{format:?}"
            );
        }
    }

    #[test]
    fn the_size_is_read_from_the_header_alone() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("named.jpg");
        let noise = RgbImage::from_fn(300, 200, |x, y| Rgb([(x * y) as u8, x as u8, y as u8]));
        for format in [
            ImageFormat::Jpeg,
            ImageFormat::Png,
            ImageFormat::Bmp,
            ImageFormat::WebP,
        ] {
            let bytes = encode(&noise.clone().into(), format);
            std::fs::write(&path, &bytes[..bytes.len() * 3 / 4]).expect("writes");
            assert_eq!(
                read_size(&path).expect("a header"),
                (300, 200),
                "{format:?}"
            );
            decode_file(&path, &DecodeOptions::default()).expect_err("cut off");
        }
        let tiff = encode(&noise.into(), ImageFormat::Tiff);
        std::fs::write(&path, tiff).expect("writes");
        assert_eq!(read_size(&path).expect("a header"), (300, 200));
        for junk in [&b""[..], b"no picture", b"\xff\xd8\xff\xe0 cut off"] {
            std::fs::write(&path, junk).expect("writes");
            let error = read_size(&path).expect_err("no header").to_string();
            assert!(error.contains("named.jpg"), "{error}");
        }
        read_size(dir.path()).expect_err("a folder");
    }

    #[test]
    fn deep_grey_and_alpha_become_rgb() {
        let deep =
            ImageBuffer::<Luma<u16>, _>::from_fn(2, 1, |x, _| Luma([[257 * 8, 65535][x as usize]]));
        let frame = decode(&encode(&deep.into(), ImageFormat::Png)).expect("decodes");
        assert_eq!(frame.pixels.as_raw(), &[8, 8, 8, 255, 255, 255]);

        let clear = ImageBuffer::from_pixel(1, 1, Rgba([10_u8, 20, 30, 0]));
        let frame = decode(&encode(&clear.into(), ImageFormat::Png)).expect("decodes");
        assert_eq!(
            frame.pixels.as_raw(),
            &[10, 20, 30],
            "the stored colour, not a blend"
        );

        let grey = GrayImage::from_pixel(1, 1, Luma([77]));
        let frame = decode(&encode(&grey.into(), ImageFormat::Tiff)).expect("decodes");
        assert_eq!(frame.pixels.as_raw(), &[77, 77, 77]);
    }

    #[test]
    fn stretch_spreads_any_depth() {
        let ramp = |x: u32, y: u32| 1 + (x + 10 * y) as u16;
        let deep = ImageBuffer::<Luma<u16>, _>::from_fn(10, 10, |x, y| Luma([ramp(x, y)]));
        let frame = stretched(&encode(&deep.into(), ImageFormat::Tiff)).expect("decodes");
        assert_eq!(frame.pixels[(0, 0)].0, [0; 3]);
        assert_eq!(frame.pixels[(9, 9)].0, [255; 3]);

        let shallow = GrayImage::from_fn(10, 10, |x, y| Luma([ramp(x, y) as u8]));
        let same = stretched(&encode(&shallow.into(), ImageFormat::Png)).expect("decodes");
        assert_eq!(same.pixels, frame.pixels, "depth does not matter");
    }

    #[test]
    fn tiffs_over_four_gigabytes_have_a_form_of_their_own() {
        let picture = picture();
        let mut file = Cursor::new(Vec::new());
        tiff::encoder::TiffEncoder::new_big(&mut file)
            .and_then(|mut encoder| {
                encoder.write_image::<tiff::encoder::colortype::RGB8>(7, 5, picture.as_raw())
            })
            .expect("encodes");
        let frame = decode(&file.into_inner()).expect("decodes");
        assert_eq!(frame.pixels, picture);
    }

    #[test]
    fn floats_need_a_stretch() {
        let float = Rgb32FImage::from_fn(10, 10, |x, y| Rgb([(x + 10 * y) as f32 / 1e4; 3]));
        let bytes = encode(&float.into(), ImageFormat::Tiff);
        assert!(matches!(decode(&bytes), Err(DecodeErrorKind::NeedsStretch)));
        assert_eq!(
            stretched(&bytes).expect("decodes").pixels[(9, 9)].0,
            [255; 3]
        );
    }

    #[test]
    fn a_size_over_the_limit_is_refused_from_the_header() {
        // A PNG header that promises 60000 x 60000 pixels, and nothing behind it but its checksum.
        let mut header = b"IHDR\0\0\xEA\x60\0\0\xEA\x60\x08\x02\0\0\0".to_vec();
        let crc = crc32(&header);
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0D".to_vec();
        bytes.append(&mut header);
        bytes.extend(crc.to_be_bytes());
        bytes.extend(b"\0\0\0\0IDAT\x35\xAF\x06\x1E");
        let error =
            decode_bytes("big.png", &bytes, &DecodeOptions::default()).expect_err("too big");
        assert!(matches!(
            error.kind,
            DecodeErrorKind::TooLarge {
                width: 60_000,
                height: 60_000,
                ..
            }
        ));
        let text = error.to_string();
        assert!(
            text.contains("big.png") && text.contains("60000x60000"),
            "{text}"
        );
        assert!(text.contains("--max-pixels"), "{text}");
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0_u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |c, _| {
                (c >> 1) ^ (0xEDB8_8320 * (c & 1))
            })
        })
    }

    #[test]
    fn what_is_no_image_is_named_as_what_it_is() {
        assert!(matches!(decode(b""), Err(DecodeErrorKind::Empty)));
        assert!(matches!(
            decode(b"hello, world"),
            Err(DecodeErrorKind::UnknownFormat)
        ));

        let folder = tempfile::tempdir().expect("folder");
        let options = DecodeOptions::default();
        let trap = folder.path().join("trap.jpg");
        let missing = decode_file(&trap, &options).expect_err("missing");
        assert!(matches!(missing.kind, DecodeErrorKind::Io(_)));
        std::fs::create_dir(&trap).expect("folder");
        let error = decode_file(&trap, &options).expect_err("a folder");
        assert!(matches!(error.kind, DecodeErrorKind::NotAFile));
        assert!(error.to_string().contains("trap.jpg"));
    }

    #[test]
    fn no_cut_file_is_taken_for_a_picture_or_panics() {
        let picture: DynamicImage = picture().into();
        for format in [
            ImageFormat::Jpeg,
            ImageFormat::Png,
            ImageFormat::WebP,
            ImageFormat::Bmp,
            ImageFormat::Tiff,
        ] {
            let bytes = encode(&picture, format);
            for end in 0..bytes.len() {
                // A cut TIFF or PNG may lack only its trailer: then all pixels must be there.
                if let Ok(frame) = decode(&bytes[..end]) {
                    assert_ne!(format, ImageFormat::Jpeg, "cut at {end}");
                    assert_eq!(frame.pixels, picture.to_rgb8(), "{format:?} cut at {end}");
                }
            }
        }
    }

    #[test]
    fn planes_in_tiles_are_right_or_refused() {
        // 20 x 20 pixels of (10, 20, 30), one plane per channel in four tiles each, which the TIFF
        // decoder fails on by an assertion.
        let mut bytes = b"II*\0\x08\0\0\0".to_vec();
        let entries: [(u16, u16, u32, u32); 11] = [
            (256, 3, 1, 20),
            (257, 3, 1, 20),
            (258, 3, 3, 146),
            (259, 3, 1, 1),
            (262, 3, 1, 2),
            (277, 3, 1, 3),
            (284, 3, 1, 2),
            (322, 3, 1, 16),
            (323, 3, 1, 16),
            (324, 4, 12, 152),
            (325, 4, 12, 200),
        ];
        bytes.extend((entries.len() as u16).to_le_bytes());
        for (tag, kind, count, value) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend(count.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend([0; 4]);
        bytes.extend([8, 0, 8, 0, 8, 0]);
        bytes.extend((0..12_u32).flat_map(|tile| (248 + 256 * tile).to_le_bytes()));
        bytes.extend([256_u32; 12].iter().flat_map(|length| length.to_le_bytes()));
        bytes.extend([10, 20, 30].iter().flat_map(|&value| [value; 4 * 256]));
        if let Ok(frame) = decode(&bytes) {
            assert_eq!(
                frame.pixels,
                RgbImage::from_pixel(20, 20, Rgb([10, 20, 30]))
            );
        }
    }

    /// A black JPEG of 40 x 30 pixels with an EXIF block of these fields.
    fn jpeg_with(fields: &[exif::Field]) -> Vec<u8> {
        let mut writer = exif::experimental::Writer::new();
        fields.iter().for_each(|field| writer.push_field(field));
        let mut block = Cursor::new(Vec::new());
        writer.write(&mut block, false).expect("writes");

        let mut bytes = Vec::new();
        let mut encoder = JpegEncoder::new(&mut bytes);
        encoder
            .set_exif_metadata(block.into_inner())
            .expect("takes EXIF");
        encoder
            .encode(&[0; 3600], 40, 30, ColorType::Rgb8.into())
            .expect("encodes");
        bytes
    }

    fn field(tag: exif::Tag, value: exif::Value) -> exif::Field {
        exif::Field {
            tag,
            ifd_num: exif::In::PRIMARY,
            value,
        }
    }

    #[test]
    fn exif_travels_with_a_jpeg() {
        let time = exif::Value::Ascii(vec![b"2023:05:01 10:20:30".to_vec()]);
        let bytes = jpeg_with(&[field(exif::Tag::DateTimeOriginal, time)]);
        let frame = decode(&bytes).expect("decodes");
        assert_eq!(frame.tags.captured.as_deref(), Some("2023-05-01T10:20:30"));
    }

    #[test]
    fn what_a_drone_writes_gives_the_ground_resolution() {
        let ratio = |num| exif::Value::Rational(vec![exif::Rational { num, denom: 1 }]);
        let bytes = jpeg_with(&[
            field(exif::Tag::PixelXDimension, exif::Value::Short(vec![40])),
            field(exif::Tag::FocalLength, ratio(10)),
            // 20 pixels to the centimetre: a sensor of 20 mm.
            field(exif::Tag::FocalPlaneXResolution, ratio(20)),
            field(
                exif::Tag::FocalPlaneResolutionUnit,
                exif::Value::Short(vec![3]),
            ),
        ]);
        let packet =
            b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta drone-dji:RelativeAltitude=\"+120.00\" \
            drone-dji:GimbalPitchDegree=\"-90.00\"/>";
        let length = (packet.len() + 2) as u16;
        let segment = [&b"\xff\xe1"[..], &length.to_be_bytes(), packet].concat();
        let flown = [&bytes[..2], &segment, &bytes[2..]].concat();
        // 120 m * 20 mm / 10 mm are 240 m on 40 pixels.
        let gsd = |bytes: &[u8]| decode(bytes).expect("decodes").tags.gsd;
        assert_eq!(gsd(&flown), Some(6.0));
        assert_eq!(gsd(&bytes), None, "no height");
    }
}

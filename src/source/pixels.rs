//! What cameras put into a buffer, turned into RGB.
//!
//! Layouts are those of the kernel's V4L2 documentation ("Image Formats"). Chroma that stands for
//! several pixels is repeated for each, not interpolated.

use std::fmt;

use image::RgbImage;
use serde::{Deserialize, Serialize};

use super::decode::{DecodeErrorKind, DecodeOptions, decode_bytes};
use super::jpeg;
use crate::frame::Frame;

/// How the pixels of a buffer lie. In config files: the name in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// One JPEG per frame, with or without Huffman tables.
    Mjpeg,
    /// `Y0 Cb Y1 Cr` for each two pixels of a line.
    Yuyv,
    /// `Cb Y0 Cr Y1` for each two pixels of a line.
    Uyvy,
    /// A plane of Y, then a plane of `Cb Cr` for each 2x2 pixels, with lines as long as those of Y.
    Nv12,
    /// `R G B` for each pixel.
    Rgb24,
    /// One byte of luminance for each pixel.
    Grey,
}

impl Layout {
    /// All that are understood.
    pub const ALL: [Self; 6] = [
        Self::Mjpeg,
        Self::Yuyv,
        Self::Uyvy,
        Self::Nv12,
        Self::Rgb24,
        Self::Grey,
    ];

    /// V4L2's four-character code.
    pub const fn fourcc(self) -> [u8; 4] {
        *match self {
            Self::Mjpeg => b"MJPG",
            Self::Yuyv => b"YUYV",
            Self::Uyvy => b"UYVY",
            Self::Nv12 => b"NV12",
            Self::Rgb24 => b"RGB3",
            Self::Grey => b"GREY",
        }
    }

    /// The layout that a driver means by a four-character code; `None` for those not understood here.
    pub fn of_fourcc(code: [u8; 4]) -> Option<Self> {
        if code == *b"JPEG" {
            return Some(Self::Mjpeg);
        }
        Self::ALL.into_iter().find(|layout| layout.fourcc() == code)
    }

    /// Bytes of a line of `width` pixels without padding; of the longer of both planes for
    /// [`Layout::Nv12`], and 0 for [`Layout::Mjpeg`], which has no lines.
    pub fn line(self, width: u32) -> u64 {
        let width = u64::from(width);
        match self {
            Self::Mjpeg => 0,
            Self::Yuyv | Self::Uyvy => width.div_ceil(2) * 4,
            Self::Nv12 => width.div_ceil(2) * 2,
            Self::Rgb24 => width * 3,
            Self::Grey => width,
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mjpeg => "MJPEG",
            Self::Yuyv => "YUYV",
            Self::Uyvy => "UYVY",
            Self::Nv12 => "NV12",
            Self::Rgb24 => "RGB24",
            Self::Grey => "GREY",
        })
    }
}

/// Which weights of red and blue make luminance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Encoding {
    /// ITU-R BT.601: cameras of standard definition, USB cameras, JPEG.
    #[default]
    Bt601,
    /// ITU-R BT.709: high definition.
    Bt709,
    /// ITU-R BT.2020, of non-constant luminance.
    Bt2020,
}

impl Encoding {
    /// Weights of red and blue.
    const fn weights(self) -> (f64, f64) {
        match self {
            Self::Bt601 => (0.299, 0.114),
            Self::Bt709 => (0.2126, 0.0722),
            Self::Bt2020 => (0.2627, 0.0593),
        }
    }
}

/// Which bytes stand for black and white.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Range {
    /// Y' from 16 to 235, Cb and Cr from 16 to 240; also called studio or video range.
    #[default]
    Limited,
    /// All from 0 to 255.
    Full,
}

/// What the numbers of a buffer of Y'CbCr or grey mean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Colours {
    /// Which weights make luminance; not asked for grey.
    pub encoding: Encoding,
    /// Which bytes stand for black and white.
    pub range: Range,
}

/// All that is needed to read a buffer. A JPEG says for itself what its numbers mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferFormat {
    /// How pixels lie.
    pub layout: Layout,
    /// Pixels of a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Bytes from the start of a line to that of the next, [`Layout::line`] or more; not asked for
    /// [`Layout::Mjpeg`].
    pub stride: u32,
    /// What Y, Cb and Cr mean.
    pub colours: Colours,
}

/// Why a buffer gave no frame.
#[derive(Debug, thiserror::Error)]
pub enum PixelError {
    /// No width or no height, or more pixels than any frame has.
    #[error("a frame of {width}x{height} pixels")]
    Size {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// Lines would overlap.
    #[error("{stride} bytes per line, where one has {line}")]
    Stride {
        /// Bytes from line to line.
        stride: u32,
        /// Bytes that a line has.
        line: u64,
    },
    /// The buffer ends before the last pixel.
    #[error("{has} bytes instead of {needs}")]
    TooShort {
        /// Bytes that are there.
        has: usize,
        /// Bytes up to the last pixel.
        needs: u64,
    },
    /// No start of image, or no scan.
    #[error("no JPEG")]
    NoJpeg,
    /// A JPEG without its end marker: the transfer was cut off.
    #[error("a JPEG that is cut off")]
    Truncated,
    /// A JPEG of another size than the driver says.
    #[error("a JPEG of {0}x{1} pixels")]
    OtherSize(u32, u32),
    /// The JPEG decoder refused the content.
    #[error("a JPEG that {0}")]
    Jpeg(DecodeErrorKind),
}

/// A JPEG may be larger than said by part of a block: encoders of whole blocks do so.
const BLOCK: u32 = 16;

impl BufferFormat {
    /// `[H, W, 3]` u8 from the bytes of one frame; bytes behind the last pixel are not looked at.
    ///
    /// # Errors
    /// If the bytes cannot be such a frame. Nothing panics, whatever they are.
    pub fn to_rgb(&self, bytes: &[u8]) -> Result<RgbImage, PixelError> {
        let (width, height) = (self.width, self.height);
        let pixels = u64::from(width) * u64::from(height);
        if pixels == 0 || pixels > DecodeOptions::MAX_PIXELS {
            return Err(PixelError::Size { width, height });
        }
        if self.layout == Layout::Mjpeg {
            return self.decode(bytes);
        }
        let line = self.layout.line(width);
        if u64::from(self.stride) < line {
            return Err(PixelError::Stride {
                stride: self.stride,
                line,
            });
        }
        let needs = self.needs();
        if (bytes.len() as u64) < needs {
            return Err(PixelError::TooShort {
                has: bytes.len(),
                needs,
            });
        }
        let mut image = RgbImage::new(width, height);
        self.convert(bytes, &mut image);
        Ok(image)
    }

    /// Bytes up to the last pixel: the padding behind the last line may be missing.
    fn needs(&self) -> u64 {
        let lines = match self.layout {
            Layout::Nv12 => u64::from(self.height) + u64::from(self.height.div_ceil(2)),
            _ => u64::from(self.height),
        };
        (lines - 1) * u64::from(self.stride) + self.layout.line(self.width)
    }

    /// The bytes must be as many as [`Self::needs`] says.
    fn convert(&self, bytes: &[u8], image: &mut RgbImage) {
        let stride = self.stride as usize;
        let ycbcr = Ycbcr::new(self.colours);
        let rows = image.chunks_exact_mut(self.width as usize * 3);
        match self.layout {
            Layout::Mjpeg => unreachable!("has no lines"),
            Layout::Yuyv | Layout::Uyvy => {
                let [y0, cb, y1, cr] = match self.layout {
                    Layout::Yuyv => [0, 1, 2, 3],
                    _ => [1, 0, 3, 2],
                };
                for (row, line) in rows.zip(bytes.chunks(stride)) {
                    for (pair, of) in row.chunks_mut(6).zip(line.chunks_exact(4)) {
                        let chroma = ycbcr.chroma(of[cb], of[cr]);
                        for (pixel, y) in pair.chunks_exact_mut(3).zip([of[y0], of[y1]]) {
                            pixel.copy_from_slice(&ycbcr.rgb(y, chroma));
                        }
                    }
                }
            }
            Layout::Nv12 => {
                let (luma, chroma) = bytes.split_at(stride * self.height as usize);
                let chroma = chroma.chunks(stride).flat_map(|line| [line, line]);
                for ((row, line), chroma) in rows.zip(luma.chunks_exact(stride)).zip(chroma) {
                    let pairs = row.chunks_mut(6).zip(line.chunks(2));
                    for ((pair, ys), of) in pairs.zip(chroma.chunks_exact(2)) {
                        let chroma = ycbcr.chroma(of[0], of[1]);
                        for (pixel, &y) in pair.chunks_exact_mut(3).zip(ys) {
                            pixel.copy_from_slice(&ycbcr.rgb(y, chroma));
                        }
                    }
                }
            }
            Layout::Rgb24 => {
                for (row, line) in rows.zip(bytes.chunks(stride)) {
                    row.copy_from_slice(&line[..row.len()]);
                }
            }
            Layout::Grey => {
                let neutral = ycbcr.chroma(128, 128);
                for (row, line) in rows.zip(bytes.chunks(stride)) {
                    for (pixel, &y) in row.chunks_exact_mut(3).zip(line) {
                        pixel.copy_from_slice(&ycbcr.rgb(y, neutral));
                    }
                }
            }
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<RgbImage, PixelError> {
        // Asked before any memory is taken for pixels.
        let (width, height) = jpeg::size(bytes).map_err(|_| PixelError::NoJpeg)?;
        let fits = |is: u32, said: u32| (said..said.saturating_add(BLOCK)).contains(&is);
        if !fits(width, self.width) || !fits(height, self.height) {
            return Err(PixelError::OtherSize(width, height));
        }
        let image = decode_mjpeg(bytes, &DecodeOptions::default())?.pixels;
        if image.dimensions() == (self.width, self.height) {
            return Ok(image);
        }
        Ok(image::imageops::crop_imm(&image, 0, 0, self.width, self.height).to_image())
    }
}

/// A frame of Motion JPEG, with or without Huffman tables, without a name.
pub(super) fn decode_mjpeg(bytes: &[u8], options: &DecodeOptions) -> Result<Frame, PixelError> {
    let jpeg = jpeg::with_huffman_tables(bytes).ok_or(PixelError::NoJpeg)?;
    decode_bytes("", &jpeg, options).map_err(|error| match error.kind {
        DecodeErrorKind::Truncated => PixelError::Truncated,
        kind => PixelError::Jpeg(kind),
    })
}

/// Y'CbCr to R'G'B' in units of 1/65536, solved from the definitions of ITU-R BT.601-7, 2.5 (limited
/// range) and of JFIF 1.02 (full range), with the weights of the encoding.
pub(super) struct Ycbcr {
    black: i32,
    luma: i32,
    red_of_cr: i32,
    green_of_cb: i32,
    green_of_cr: i32,
    blue_of_cb: i32,
}

const ONE: f64 = 65536.0;

impl Ycbcr {
    pub(super) fn new(colours: Colours) -> Self {
        let (red, blue) = colours.encoding.weights();
        let green = 1.0 - red - blue;
        let (black, luma, chroma) = match colours.range {
            Range::Limited => (16, 255.0 / 219.0, 255.0 / 224.0),
            Range::Full => (0, 1.0, 1.0),
        };
        let of_cr = 2.0 * (1.0 - red) * chroma;
        let of_cb = 2.0 * (1.0 - blue) * chroma;
        let fixed = |x: f64| (x * ONE).round() as i32;
        Self {
            black,
            luma: fixed(luma),
            red_of_cr: fixed(of_cr),
            green_of_cb: fixed(of_cb * blue / green),
            green_of_cr: fixed(of_cr * red / green),
            blue_of_cb: fixed(of_cb),
        }
    }

    /// What chroma adds to red, green and blue, with the half that makes the shift round.
    #[inline]
    pub(super) fn chroma(&self, cb: u8, cr: u8) -> [i32; 3] {
        let (cb, cr) = (i32::from(cb) - 128, i32::from(cr) - 128);
        let half = 1 << 15;
        [
            half + self.red_of_cr * cr,
            half - self.green_of_cb * cb - self.green_of_cr * cr,
            half + self.blue_of_cb * cb,
        ]
    }

    #[inline]
    pub(super) fn rgb(&self, y: u8, chroma: [i32; 3]) -> [u8; 3] {
        let luma = self.luma * (i32::from(y) - self.black);
        chroma.map(|c| ((luma + c) >> 16).clamp(0, 255) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;
    use image::codecs::jpeg::JpegEncoder;
    use proptest::prelude::*;

    const LIMITED_601: Colours = Colours {
        encoding: Encoding::Bt601,
        range: Range::Limited,
    };

    fn format(layout: Layout, width: u32, height: u32) -> BufferFormat {
        BufferFormat {
            layout,
            width,
            height,
            stride: layout.line(width) as u32,
            colours: LIMITED_601,
        }
    }

    /// One colour through the conversion.
    fn rgb(colours: Colours, [y, cb, cr]: [u8; 3]) -> [u8; 3] {
        let ycbcr = Ycbcr::new(colours);
        ycbcr.rgb(y, ycbcr.chroma(cb, cr))
    }

    fn assert_near(is: [u8; 3], should: [u8; 3], what: &str) {
        for (a, b) in is.into_iter().zip(should) {
            assert!(a.abs_diff(b) <= 1, "{what}: {is:?}, not {should:?}");
        }
    }

    /// Y'CbCr of colour bars, which the standards round to bytes: RGB is met to within 1.
    #[test]
    fn the_colour_bars_of_the_standards_are_met() {
        // BT.601, 100 %: white, yellow, cyan, green, magenta, red, blue, black.
        let bars_601 = [
            [235, 128, 128],
            [210, 16, 146],
            [170, 166, 16],
            [145, 54, 34],
            [106, 202, 222],
            [81, 90, 240],
            [41, 240, 110],
            [16, 128, 128],
        ];
        // BT.601, 75 %, as SMPTE EG 1 has them.
        let smpte = [
            [180, 128, 128],
            [162, 44, 142],
            [131, 156, 44],
            [112, 72, 58],
            [84, 184, 198],
            [65, 100, 212],
            [35, 212, 114],
            [16, 128, 128],
        ];
        // BT.709, 100 %.
        let bars_709 = [
            [235, 128, 128],
            [219, 16, 138],
            [188, 154, 16],
            [173, 42, 26],
            [78, 214, 230],
            [63, 102, 240],
            [32, 240, 118],
            [16, 128, 128],
        ];
        let present = [
            [1, 1, 1],
            [1, 1, 0],
            [0, 1, 1],
            [0, 1, 0],
            [1, 0, 1],
            [1, 0, 0],
            [0, 0, 1],
            [0, 0, 0_u8],
        ];
        for (encoding, bars, level) in [
            (Encoding::Bt601, bars_601, 255),
            (Encoding::Bt601, smpte, 191),
            (Encoding::Bt709, bars_709, 255),
        ] {
            let colours = Colours {
                encoding,
                range: Range::Limited,
            };
            for (bar, present) in bars.into_iter().zip(present) {
                let what = format!("{encoding:?} {bar:?}");
                assert_near(rgb(colours, bar), present.map(|p| p * level), &what);
            }
        }
    }

    #[test]
    fn full_range_is_that_of_jfif() {
        let full = Colours {
            range: Range::Full,
            ..LIMITED_601
        };
        assert_eq!(rgb(full, [0, 128, 128]), [0; 3]);
        assert_eq!(rgb(full, [255, 128, 128]), [255; 3]);
        assert_eq!(rgb(full, [77, 128, 128]), [77; 3]);
        // R = 76 + 1.402 * 127, G = 76 + 0.344136 * 43 - 0.714136 * 127, B = 76 - 1.772 * 43.
        assert_eq!(rgb(full, [76, 85, 255]), [254, 0, 0]);
        // 100 + 1.402 * 20, 100 - 0.344136 * 10 - 0.714136 * 20, 100 + 1.772 * 10.
        assert_eq!(rgb(full, [100, 138, 148]), [128, 82, 118]);
    }

    #[test]
    fn limited_range_is_clamped_beyond_black_and_white() {
        assert_eq!(rgb(LIMITED_601, [0, 128, 128]), [0; 3]);
        assert_eq!(rgb(LIMITED_601, [16, 128, 128]), [0; 3]);
        assert_eq!(rgb(LIMITED_601, [235, 128, 128]), [255; 3]);
        assert_eq!(rgb(LIMITED_601, [255, 128, 128]), [255; 3]);
        // (126 - 16) * 255 / 219 = 128.08
        assert_eq!(rgb(LIMITED_601, [126, 128, 128]), [128; 3]);
    }

    /// Two lines of red, blue, white, black with BT.601's bars; pairs share their chroma, so a colour
    /// fills a pair.
    fn bars(layout: Layout) -> Vec<u8> {
        let colours = [
            [81, 90, 240],
            [41, 240, 110],
            [235, 128, 128],
            [16, 128, 128_u8],
        ];
        let line: Vec<u8> = colours
            .into_iter()
            .flat_map(|[y, cb, cr]| match layout {
                Layout::Yuyv => vec![y, cb, y, cr],
                Layout::Uyvy => vec![cb, y, cr, y],
                _ => vec![y, y],
            })
            .collect();
        let mut bytes = [&line[..], &line[..]].concat();
        if layout == Layout::Nv12 {
            bytes.extend(colours.iter().flat_map(|[_, cb, cr]| [cb, cr]));
        }
        bytes
    }

    #[test]
    fn each_layout_puts_pixels_where_they_belong() {
        let shown = [[255, 0, 0], [0, 0, 255], [255; 3], [0; 3]];
        for layout in [Layout::Yuyv, Layout::Uyvy, Layout::Nv12] {
            let image = format(layout, 8, 2)
                .to_rgb(&bars(layout))
                .expect("converts");
            for (x, y, pixel) in image.enumerate_pixels() {
                let what = format!("{layout} at {x}, {y}");
                assert_near(pixel.0, shown[x as usize / 2], &what);
            }
        }

        let ramp: Vec<u8> = (0..18).collect();
        let rgb = format(Layout::Rgb24, 3, 2).to_rgb(&ramp).expect("converts");
        assert_eq!(rgb.as_raw(), &ramp);

        let grey = BufferFormat {
            colours: Colours {
                range: Range::Full,
                ..LIMITED_601
            },
            ..format(Layout::Grey, 3, 2)
        };
        let image = grey.to_rgb(&ramp[..6]).expect("converts");
        assert_eq!(image[(2, 1)], Rgb([5; 3]));
        assert_eq!(image[(0, 1)], Rgb([3; 3]));
    }

    #[test]
    fn lumas_of_a_pair_stay_apart_and_rows_share_chroma_by_two() {
        // White and black in one pair, then the other way round.
        let yuyv = [235, 128, 16, 128, 16, 128, 235, 128];
        let image = format(Layout::Yuyv, 4, 1).to_rgb(&yuyv).expect("converts");
        let greys: Vec<u8> = image.pixels().map(|p| p.0[1]).collect();
        assert_eq!(greys, [255, 0, 0, 255]);

        // Three lines, so that the last chroma line serves one alone; red above, blue below.
        let nv12 = [81, 81, 81, 81, 41, 41, 90, 240, 240, 110];
        let image = format(Layout::Nv12, 2, 3).to_rgb(&nv12).expect("converts");
        assert_near(image[(1, 1)].0, [255, 0, 0], "second line");
        assert_near(image[(1, 2)].0, [0, 0, 255], "third line");
    }

    #[test]
    fn a_jpeg_is_decoded_and_must_be_whole_and_of_the_size_said() {
        let picture = RgbImage::from_fn(64, 48, |x, y| Rgb([x as u8 * 4, y as u8 * 5, 90]));
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, 95)
            .encode_image(&picture)
            .expect("encodes");
        let decoded = image::load_from_memory(&jpeg).expect("decodes").to_rgb8();
        let said = format(Layout::Mjpeg, 64, 48);
        assert_eq!(said.to_rgb(&jpeg).expect("converts"), decoded);

        let padded = [&jpeg[..], &[0; 500]].concat();
        assert_eq!(said.to_rgb(&padded).expect("converts"), decoded);

        for end in 0..jpeg.len() {
            let error = said.to_rgb(&jpeg[..end]).expect_err("cut off");
            assert!(
                matches!(error, PixelError::Truncated | PixelError::NoJpeg),
                "cut at {end}: {error}"
            );
        }

        // 1088 lines where 1080 were asked for: whole blocks, of which the last has lines too many.
        let cropped = format(Layout::Mjpeg, 60, 40).to_rgb(&jpeg).expect("crops");
        assert_eq!(cropped.dimensions(), (60, 40));
        assert_eq!(cropped[(59, 39)], decoded[(59, 39)]);
        for (width, height) in [(48, 48), (64, 49), (64, 32)] {
            let error = format(Layout::Mjpeg, width, height).to_rgb(&jpeg);
            assert!(matches!(error, Err(PixelError::OtherSize(64, 48))));
        }
        let png = b"\x89PNG\r\n\x1a\n";
        assert!(matches!(said.to_rgb(png), Err(PixelError::NoJpeg)));
    }

    #[test]
    fn codes_are_those_of_the_kernel() {
        for layout in Layout::ALL {
            assert_eq!(Layout::of_fourcc(layout.fourcc()), Some(layout));
        }
        assert_eq!(Layout::of_fourcc(*b"JPEG"), Some(Layout::Mjpeg));
        assert_eq!(Layout::of_fourcc(*b"H264"), None);
    }

    fn layouts() -> impl Strategy<Value = Layout> {
        proptest::sample::select(&Layout::ALL[..])
    }

    fn lined_layouts() -> impl Strategy<Value = Layout> {
        proptest::sample::select(&Layout::ALL[1..])
    }

    proptest! {
        /// Forward by the definition of BT.601 in floats, back by the integers.
        #[test]
        fn every_colour_comes_back(colour: [u8; 3], full: bool) {
            let [r, g, b] = colour.map(f64::from);
            let y = 0.299 * r + 0.587 * g + 0.114 * b;
            let (cb, cr) = ((b - y) / 1.772, (r - y) / 1.402);
            let byte = |x: f64| x.round().clamp(0.0, 255.0) as u8;
            let (range, ycbcr) = if full {
                (Range::Full, [byte(y), byte(128.0 + cb), byte(128.0 + cr)])
            } else {
                let c = 224.0 / 255.0;
                (Range::Limited, [
                    byte(16.0 + y * 219.0 / 255.0),
                    byte(128.0 + cb * c),
                    byte(128.0 + cr * c),
                ])
            };
            let back = rgb(Colours { encoding: Encoding::Bt601, range }, ycbcr);
            // Half a step of each byte, times its weight: 0.58 + 1.01 for blue.
            for (a, b) in back.into_iter().zip(colour) {
                prop_assert!(a.abs_diff(b) <= 2, "{colour:?} as {ycbcr:?} is {back:?}");
            }
        }

        /// What lies between lines, and behind the last, changes nothing.
        #[test]
        fn padding_is_never_shown(
            layout in lined_layouts(),
            width in 1_u32..20,
            height in 1_u32..20,
            padding in 0_u32..9,
            seed: u8,
            junk: u8,
        ) {
            let tight = format(layout, width, height);
            let line = tight.stride as usize;
            let bytes: Vec<u8> = (0..tight.needs())
                .map(|i| (i as u8).wrapping_mul(37).wrapping_add(seed))
                .collect();
            let wide = BufferFormat { stride: tight.stride + padding, ..tight };
            let mut padded = Vec::new();
            for line in bytes.chunks(line) {
                padded.extend(line);
                padded.resize(padded.len() + padding as usize, junk);
            }
            let should = tight.to_rgb(&bytes).expect("converts");
            prop_assert_eq!(&wide.to_rgb(&padded).expect("converts"), &should);
            padded.truncate(wide.needs() as usize);
            prop_assert_eq!(&wide.to_rgb(&padded).expect("converts"), &should);
            padded.pop();
            let short = matches!(wide.to_rgb(&padded), Err(PixelError::TooShort { .. }));
            prop_assert!(short);
        }

        #[test]
        fn no_bytes_and_no_size_panic(
            layout in layouts(),
            width in prop_oneof![0_u32..70, any::<u32>()],
            height in prop_oneof![0_u32..70, any::<u32>()],
            stride in prop_oneof![0_u32..300, any::<u32>()],
            bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        ) {
            let format = BufferFormat { layout, width, height, stride, colours: LIMITED_601 };
            if let Ok(image) = format.to_rgb(&bytes) {
                prop_assert_eq!(image.dimensions(), (width, height));
            }
        }

        #[test]
        fn damaged_jpegs_do_not_panic(at in 2_usize..600, with: u8) {
            let mut jpeg = Vec::new();
            JpegEncoder::new(&mut jpeg)
                .encode_image(&RgbImage::from_fn(32, 32, |x, y| Rgb([(x * y) as u8; 3])))
                .expect("encodes");
            let at = at.min(jpeg.len() - 1);
            jpeg[at] = with;
            if let Ok(image) = format(Layout::Mjpeg, 32, 32).to_rgb(&jpeg) {
                prop_assert_eq!(image.dimensions(), (32, 32));
            }
        }
    }
}

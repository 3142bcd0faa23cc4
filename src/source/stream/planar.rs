//! Planes of Y', Cb and Cr, turned into RGB.

use crate::frame::RgbImage;
use crate::source::pixels::{Colours, Ycbcr};

/// How planes of 8-bit samples lie: Y', then Cb and Cr if there are any, without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Planar {
    pub(super) width: u32,
    pub(super) height: u32,
    /// Pixels of a line and of a column that share a sample of Cb and one of Cr; none where all is grey.
    pub(super) chroma: Option<[u32; 2]>,
    pub(super) colours: Colours,
}

impl Planar {
    /// Bytes of a frame.
    pub(super) fn bytes(&self) -> u64 {
        let luma = u64::from(self.width) * u64::from(self.height);
        luma + 2 * u64::from(self.chroma_line()) * u64::from(self.chroma_lines())
    }

    fn chroma_line(&self) -> u32 {
        self.chroma
            .map_or(0, |[across, _]| self.width.div_ceil(across))
    }

    fn chroma_lines(&self) -> u32 {
        self.chroma
            .map_or(0, |[_, down]| self.height.div_ceil(down))
    }

    /// `[H, W, 3]` u8. A sample of chroma stands for all of its pixels, wherever it was taken.
    ///
    /// # Panics
    /// If there are fewer bytes than a frame has.
    pub(super) fn to_rgb(self, bytes: &[u8]) -> RgbImage {
        let ycbcr = Ycbcr::new(self.colours);
        let mut image = RgbImage::new(self.width, self.height);
        let width = self.width as usize;
        let (luma, chroma) = bytes.split_at(width * self.height as usize);
        let lines = image
            .chunks_exact_mut(width * 3)
            .zip(luma.chunks_exact(width));
        let Some([across, down]) = self.chroma.map(|pixels| pixels.map(|n| n as usize)) else {
            let neutral = ycbcr.chroma(128, 128);
            for (row, line) in lines {
                fill(row, line, |y| ycbcr.rgb(y, neutral));
            }
            return image;
        };
        let line_bytes = self.chroma_line() as usize;
        let (blues, reds) = chroma.split_at(line_bytes * self.chroma_lines() as usize);
        for (y, (row, line)) in lines.enumerate() {
            let of = y / down * line_bytes..(y / down + 1) * line_bytes;
            let chroma = blues[of.clone()].iter().zip(&reds[of]);
            let blocks = row.chunks_mut(3 * across).zip(line.chunks(across));
            for ((pixels, ys), (&cb, &cr)) in blocks.zip(chroma) {
                let chroma = ycbcr.chroma(cb, cr);
                fill(pixels, ys, |y| ycbcr.rgb(y, chroma));
            }
        }
        image
    }
}

fn fill(pixels: &mut [u8], luma: &[u8], rgb: impl Fn(u8) -> [u8; 3]) {
    for (pixel, &y) in pixels.chunks_exact_mut(3).zip(luma) {
        pixel.copy_from_slice(&rgb(y));
    }
}

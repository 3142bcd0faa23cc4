//! What a scene is painted on.

use image::{GrayImage, ImageBuffer, Luma, Pixel, RgbImage};

/// A square picture in the making, larger than a tile so that the tile may be turned in it.
pub(crate) struct Canvas {
    /// `[S, S, 3]`.
    pub(crate) pixels: RgbImage,
    /// `[S, S]`, 0 where no ship is, else the ship's number.
    pub(crate) ships: GrayImage,
    /// `[S, S]`, 255 where something stands or lies on which no ship can be.
    pub(crate) solid: GrayImage,
    /// Whether a ship was shown at some time, of which a trace may be left.
    pub(crate) traces: bool,
    /// Whether a ship may be shown that no label names.
    pub(crate) doubtful: bool,
    next: u8,
}

/// What paint lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ground {
    /// Anything, which is solid from then on where half of a pixel is covered.
    BecomesSolid,
    /// Anything.
    Any,
    /// Water alone.
    Water,
}

/// A rectangle of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rect {
    pub(crate) x: u32,
    pub(crate) y: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

impl Rect {
    pub(crate) fn new(x: u32, y: u32, width: u32, height: u32) -> Self {
        Self {
            x,
            y,
            width,
            height,
        }
    }

    /// The pixels of an image in this rectangle, which must lie within it.
    pub(crate) fn cut<P: Pixel<Subpixel = u8>>(
        &self,
        image: &ImageBuffer<P, Vec<u8>>,
    ) -> ImageBuffer<P, Vec<u8>> {
        let channels = usize::from(P::CHANNEL_COUNT);
        let stride = image.width() as usize * channels;
        let length = self.width as usize * channels;
        let mut bytes = Vec::with_capacity(length * self.height as usize);
        let first = self.y as usize * stride + self.x as usize * channels;
        for row in 0..self.height as usize {
            bytes.extend_from_slice(&image.as_raw()[first + row * stride..][..length]);
        }
        ImageBuffer::from_raw(self.width, self.height, bytes).expect("as many rows as asked for")
    }

    /// Grown by `margin` on each side, as far as a picture of `width` x `height` reaches.
    pub(crate) fn grown(&self, margin: u32, width: u32, height: u32) -> Self {
        let x = self.x.saturating_sub(margin);
        let y = self.y.saturating_sub(margin);
        Self {
            x,
            y,
            width: (self.x + self.width + margin).min(width) - x,
            height: (self.y + self.height + margin).min(height) - y,
        }
    }
}

impl Canvas {
    /// A picture without ships.
    pub(crate) fn new(pixels: RgbImage) -> Self {
        let (width, height) = pixels.dimensions();
        Self {
            pixels,
            ships: GrayImage::new(width, height),
            solid: GrayImage::new(width, height),
            traces: false,
            doubtful: false,
            next: 0,
        }
    }

    pub(crate) fn side(&self) -> u32 {
        self.pixels.width()
    }

    /// The number of a ship to come. Past 255 they begin anew.
    pub(crate) fn next_ship(&mut self) -> u8 {
        self.next = self.next % u8::MAX + 1;
        self.next
    }

    /// Ship pixels within `radius` of the centre, which every turned tile shows.
    pub(crate) fn ship_pixels_within(&self, radius: f32) -> usize {
        let centre = (self.side() as f32 - 1.0) / 2.0;
        let near = |x: u32, y: u32| {
            (x as f32 - centre).powi(2) + (y as f32 - centre).powi(2) <= radius * radius
        };
        let ships = self.ships.enumerate_pixels().filter(|(_, _, p)| p.0[0] > 0);
        ships.filter(|(x, y, _)| near(*x, *y)).count()
    }

    /// Whether a ship is shown, or a trace of one may be.
    pub(crate) fn has_ships(&self) -> bool {
        self.traces || self.ships.as_raw().iter().any(|&p| p > 0)
    }

    /// The mean colour of the pixels at whole steps in `rect`.
    pub(crate) fn colour(&self, rect: Rect) -> [f32; 3] {
        let step = (rect.width.max(rect.height) / 12).max(1) as usize;
        let mut sum = [0.0; 3];
        let mut n = 0.0f32;
        for y in (rect.y..rect.y + rect.height).step_by(step) {
            for x in (rect.x..rect.x + rect.width).step_by(step) {
                for (sum, level) in sum.iter_mut().zip(self.pixels.get_pixel(x, y).0) {
                    *sum += f32::from(level);
                }
                n += 1.0;
            }
        }
        sum.map(|sum| sum / n.max(1.0))
    }

    /// Paints pixels in `rect`, clipped to the canvas: `paint` gives a colour and how much of the
    /// pixel it covers, 0 to 1, by column and row.
    pub(crate) fn paint(
        &mut self,
        rect: Rect,
        ground: Ground,
        mut paint: impl FnMut(f32, f32) -> ([f32; 3], f32),
    ) {
        let (right, bottom) = (
            (rect.x + rect.width).min(self.pixels.width()),
            (rect.y + rect.height).min(self.pixels.height()),
        );
        let side = self.pixels.width();
        let pixels: &mut [u8] = &mut self.pixels;
        for y in rect.y..bottom {
            for x in rect.x..right {
                let (colour, cover) = paint(x as f32, y as f32);
                if cover <= 0.0 {
                    continue;
                }
                let at = (y * side + x) as usize;
                let taken = self.solid.as_raw()[at] > 0 || self.ships.as_raw()[at] > 0;
                if ground == Ground::Water && taken {
                    continue;
                }
                for (level, colour) in pixels[3 * at..][..3].iter_mut().zip(colour) {
                    let under = f32::from(*level);
                    *level = (under + (colour - under) * cover.min(1.0) + 0.5) as u8;
                }
                if ground == Ground::BecomesSolid && cover >= 0.5 {
                    self.solid.put_pixel(x, y, Luma([255]));
                }
            }
        }
    }

    /// The whole canvas.
    pub(crate) fn all(&self) -> Rect {
        Rect::new(0, 0, self.pixels.width(), self.pixels.height())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::imageops;

    #[test]
    fn a_cut_is_what_the_image_crate_crops() {
        let image = RgbImage::from_fn(7, 5, |x, y| image::Rgb([x as u8, y as u8, 9]));
        for rect in [
            Rect::new(2, 1, 3, 4),
            Rect::new(0, 0, 7, 5),
            Rect::new(6, 4, 1, 1),
        ] {
            let want = imageops::crop_imm(&image, rect.x, rect.y, rect.width, rect.height);
            assert_eq!(rect.cut(&image), want.to_image());
        }
    }

    #[test]
    fn the_paint_is_solid_where_it_covers_half() {
        let mut canvas = Canvas::new(RgbImage::new(4, 1));
        let all = Rect::new(0, 0, 9, 9);
        canvas.paint(all, Ground::BecomesSolid, |x, _| ([200.0; 3], x / 4.0));
        let levels: Vec<u8> = canvas.pixels.pixels().map(|p| p.0[1]).collect();
        assert_eq!(levels, [0, 50, 100, 150]);
        assert_eq!(canvas.solid.as_raw(), &[0, 0, 255, 255]);
        canvas.paint(all, Ground::Water, |_, _| ([9.0; 3], 1.0));
        let levels: Vec<u8> = canvas.pixels.pixels().map(|p| p.0[1]).collect();
        assert_eq!(levels, [9, 9, 100, 150]);
    }
}

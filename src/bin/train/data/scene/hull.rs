//! Ships cut out of images, to be set elsewhere.

use image::{GrayImage, Luma, RgbImage};
use shipwatch::frame::{resample_gray, resample_rgb};
use shipwatch::mask::Rle;

use super::canvas::{Canvas, Rect};
use super::crop::stretches;
use super::mosaic::{Stats, tables};

/// Where a ship lies in its image and how large it is, in pixels, as a box with the second moments of
/// its mask.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hull {
    pub(crate) centre: [f32; 2],
    pub(crate) length: f32,
    pub(crate) beam: f32,
    /// Direction of the longer axis; which end is the bow is not known.
    pub(crate) angle: f32,
}

impl Hull {
    /// None for a mask without pixels.
    pub(crate) fn measure(ship: &Rle, grid_height: u32) -> Option<Self> {
        let n = ship.area() as f64;
        if n == 0.0 {
            return None;
        }
        // A stretch of rows has a mean and, about it, a variance of (rows^2 - 1) / 12.
        let parts = || {
            stretches(ship, grid_height).map(|(x, top, bottom)| {
                let rows = f64::from(bottom - top);
                (f64::from(x), f64::from(top) + (rows - 1.0) / 2.0, rows)
            })
        };
        let (mut x, mut y) = (0.0, 0.0);
        for (px, py, rows) in parts() {
            (x, y) = (x + rows * px, y + rows * py);
        }
        let (x, y) = (x / n, y / n);
        // A pixel is a square, which has a variance of its own.
        let (mut xx, mut yy, mut xy) = (n / 12.0, n / 12.0, 0.0);
        for (px, py, rows) in parts() {
            let (dx, dy) = (px - x, py - y);
            xx += rows * dx * dx;
            yy += rows * (dy * dy + (rows * rows - 1.0) / 12.0);
            xy += rows * dx * dy;
        }
        let (xx, yy, xy) = (xx / n, yy / n, xy / n);
        let half = (xx + yy) / 2.0;
        let spread = ((xx - yy) / 2.0).hypot(xy);
        let side = |variance: f64| (12.0 * variance.max(0.0)).sqrt() as f32;
        Some(Self {
            centre: [x as f32, y as f32],
            length: side(half + spread),
            beam: side(half - spread),
            angle: (0.5 * (2.0 * xy).atan2(xx - yy)) as f32,
        })
    }
}

/// A ship with a rim of its water, resampled.
pub(crate) struct CutOut {
    pixels: RgbImage,
    /// How much of each pixel is ship.
    cover: GrayImage,
    /// Colour of the water around it.
    water: [f32; 3],
    /// Mean colour of the ship.
    mean: [f32; 3],
    /// In pixels of `pixels`.
    pub(crate) hull: Hull,
    /// How far the ship reaches from the centre across its axis, to both sides.
    pub(crate) reach: [f32; 2],
}

/// How a ship is set.
pub(crate) struct Pose {
    pub(crate) centre: [f32; 2],
    /// Direction in which the longer axis comes to lie.
    pub(crate) angle: f32,
    /// How its own colours are changed.
    pub(crate) paint: Paint,
    /// Length and direction of a shadow, in pixels.
    pub(crate) shadow: [f32; 2],
}

/// How a ship's colours are changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Paint {
    /// Its own, times a factor.
    Own(f32),
    /// Grey with little contrast, lighter or darker than the water by some levels.
    Grey(f32),
}

impl CutOut {
    /// Cuts a ship out at `scale`. None if it touches the image's border, where the rest is missing.
    pub(crate) fn of(ship: &Rle, pixels: &RgbImage, scale: f32) -> Option<Self> {
        let (width, height) = pixels.dimensions();
        let own = Hull::measure(ship, height)?;
        let (mut left, mut top, mut right, mut bottom) = (width, height, 0, 0);
        for (x, first, end) in stretches(ship, height) {
            (left, right) = (left.min(x), right.max(x + 1));
            (top, bottom) = (top.min(first), bottom.max(end));
        }
        if left == 0 || top == 0 || right >= width || bottom >= height {
            return None;
        }
        let margin = (4.0 / scale).ceil() as u32 + 1;
        let crop = Rect::new(left, top, right - left, bottom - top);
        let crop = crop.grown(margin, width, height);
        let mut mask = GrayImage::new(crop.width, crop.height);
        for (x, top, bottom) in stretches(ship, height) {
            for y in top..bottom {
                mask.put_pixel(x - crop.x, y - crop.y, Luma([255]));
            }
        }
        let size = |own: u32| ((own as f32 * scale).round() as u32).max(2);
        let (w, h) = (size(crop.width), size(crop.height));
        let pixels = resample_rgb(&crop.cut(pixels), w, h);
        let cover = resample_gray(&mask, w, h);
        let (mut around, mut inside) = (Stats::default(), Stats::default());
        for (pixel, cover) in pixels.pixels().zip(cover.pixels()) {
            match cover.0[0] {
                0 => around.add(pixel.0),
                128.. => inside.add(pixel.0),
                _ => {}
            }
        }
        let (sx, sy) = (w as f32 / crop.width as f32, h as f32 / crop.height as f32);
        let place = |own: f32, corner: u32, scale: f32| (own + 0.5 - corner as f32) * scale - 0.5;
        let hull = Hull {
            centre: [
                place(own.centre[0], crop.x, sx),
                place(own.centre[1], crop.y, sy),
            ],
            length: own.length * scale,
            beam: own.beam * scale,
            angle: own.angle,
        };
        let (sin, cos) = hull.angle.sin_cos();
        let mut reach = [0.0f32; 2];
        for (x, y, _) in cover.enumerate_pixels().filter(|(_, _, p)| p.0[0] >= 128) {
            let across = -sin * (x as f32 - hull.centre[0]) + cos * (y as f32 - hull.centre[1]);
            reach = [reach[0].max(-across), reach[1].max(across)];
        }
        Some(Self {
            pixels,
            cover,
            water: around.mean(),
            mean: inside.mean(),
            hull,
            reach: reach.map(|reach| reach + 0.5),
        })
    }

    /// The pixels of the canvas that the ship would cover half or more, or none if it meets a solid
    /// thing or another ship.
    pub(crate) fn fits(&self, canvas: &Canvas, pose: &Pose) -> bool {
        let mut inside = 0;
        let mut hits = 0;
        self.each(canvas, pose, |x, y, at| {
            if self.covered(at) >= 0.5 {
                inside += 1;
                let taken =
                    canvas.solid.get_pixel(x, y).0[0] > 0 || canvas.ships.get_pixel(x, y).0[0] > 0;
                hits += usize::from(taken);
            }
        });
        inside > 0 && hits == 0
    }

    /// Sets the ship, with a number of its own.
    pub(crate) fn set(&self, canvas: &mut Canvas, pose: &Pose) {
        let number = canvas.next_ship();
        let [x, y] = pose.centre;
        let reach = self.hull.length / 2.0 + 6.0;
        let low = |v: f32| (v - reach).max(0.0) as u32;
        let last = canvas.side() - 1;
        let near = Rect::new(
            low(x).min(last),
            low(y).min(last),
            (2.0 * reach) as u32 + 1,
            (2.0 * reach) as u32 + 1,
        )
        .grown(0, canvas.side(), canvas.side());
        let here = canvas.colour(near);
        let tables = tables(self.water, here);
        let mut shadows = Vec::new();
        let mut hull = Vec::new();
        self.each(canvas, pose, |x, y, at| {
            let cover = self.covered(at);
            let rim = (2.2 * self.nearly_covered(at)).min(1.0);
            let cast = self.covered([at[0] - pose.shadow[0], at[1] - pose.shadow[1]]);
            if cast > 0.0 {
                shadows.push((x, y, cast));
            }
            if rim > 0.0 {
                hull.push((
                    x,
                    y,
                    rim,
                    cover,
                    self.colour(at, pose.paint, &tables, here, cover),
                ));
            }
        });
        for (x, y, cast) in shadows {
            let pixel = canvas.pixels.get_pixel_mut(x, y);
            pixel.0 = pixel.0.map(|p| (f32::from(p) * (1.0 - 0.45 * cast)) as u8);
        }
        for (x, y, rim, cover, colour) in hull {
            let pixel = canvas.pixels.get_pixel_mut(x, y);
            for (level, colour) in pixel.0.iter_mut().zip(colour) {
                let under = f32::from(*level);
                *level = (under + (colour - under) * rim + 0.5) as u8;
            }
            if cover >= 0.5 {
                canvas.ships.put_pixel(x, y, Luma([number]));
            }
        }
    }

    /// The colour at a place of the cut-out, made to suit the water `here`.
    fn colour(
        &self,
        at: [f32; 2],
        paint: Paint,
        tables: &[[u8; 256]; 3],
        here: [f32; 3],
        cover: f32,
    ) -> [f32; 3] {
        let own: [f32; 3] = self.sample(at);
        let light = here.iter().sum::<f32>() / 3.0;
        let mean = self.mean.iter().sum::<f32>() / 3.0;
        std::array::from_fn(|c| {
            let adapted = f32::from(tables[c][own[c] as usize]);
            let ship = match paint {
                Paint::Own(factor) => (own[c] + 0.4 * (adapted - own[c])) * factor,
                Paint::Grey(offset) => {
                    let level = own.iter().sum::<f32>() / 3.0;
                    let grey = 0.8 * level + 0.2 * own[c] - mean;
                    light + offset + 0.4 * grey + 0.15 * (here[c] - light)
                }
            };
            (adapted + (ship - adapted) * cover).clamp(0.0, 255.0)
        })
    }

    /// Calls `work` with each pixel of the canvas around the ship and its place in the cut-out.
    fn each(&self, canvas: &Canvas, pose: &Pose, mut work: impl FnMut(u32, u32, [f32; 2])) {
        let (sin, cos) = (pose.angle - self.hull.angle).sin_cos();
        let (width, height) = self.pixels.dimensions();
        let reach = (width.max(height) as f32).hypot(width.min(height) as f32);
        let range = |centre: f32| {
            let low = (centre - reach).floor().max(0.0) as u32;
            low..((centre + reach).ceil().max(0.0) as u32).min(canvas.side())
        };
        let [cx, cy] = pose.centre;
        for y in range(cy) {
            for x in range(cx) {
                let (dx, dy) = (x as f32 - cx, y as f32 - cy);
                let at = [
                    self.hull.centre[0] + cos * dx + sin * dy,
                    self.hull.centre[1] - sin * dx + cos * dy,
                ];
                let inside = |v: f32, length: u32| v > -1.0 && v < length as f32;
                if inside(at[0], width) && inside(at[1], height) {
                    work(x, y, at);
                }
            }
        }
    }

    /// Share of ship at a place between pixels, bilinear; 0 outside.
    fn covered(&self, [x, y]: [f32; 2]) -> f32 {
        let get = |x: i32, y: i32| {
            let pixel = (x >= 0 && y >= 0)
                .then(|| self.cover.get_pixel_checked(x as u32, y as u32))
                .flatten();
            pixel.map_or(0.0, |p| f32::from(p.0[0]) / 255.0)
        };
        let (left, top) = (x.floor(), y.floor());
        let (fx, fy) = (x - left, y - top);
        let (left, top) = (left as i32, top as i32);
        let upper = get(left, top) * (1.0 - fx) + get(left + 1, top) * fx;
        let lower = get(left, top + 1) * (1.0 - fx) + get(left + 1, top + 1) * fx;
        upper * (1.0 - fy) + lower * fy
    }

    /// [`CutOut::covered`] averaged over a pixel's neighbourhood: reaches a little beyond the ship.
    fn nearly_covered(&self, [x, y]: [f32; 2]) -> f32 {
        const AROUND: [[f32; 2]; 4] = [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]];
        AROUND
            .iter()
            .map(|[dx, dy]| self.covered([x + dx, y + dy]))
            .sum::<f32>()
            / 4.0
    }

    fn sample(&self, [x, y]: [f32; 2]) -> [f32; 3] {
        let (width, height) = self.pixels.dimensions();
        let clamp = |v: f32, length: u32| v.clamp(0.0, length as f32 - 1.0);
        let (x, y) = (clamp(x, width), clamp(y, height));
        let (left, top) = (x as u32, y as u32);
        let (fx, fy) = (x - left as f32, y - top as f32);
        let get = |x: u32, y: u32| self.pixels.get_pixel(x.min(width - 1), y.min(height - 1)).0;
        let corners = [
            get(left, top),
            get(left + 1, top),
            get(left, top + 1),
            get(left + 1, top + 1),
        ];
        std::array::from_fn(|c| {
            let [a, b, d, e] = corners.map(|p| f32::from(p[c]));
            (a + (b - a) * fx) * (1.0 - fy) + (d + (e - d) * fx) * fy
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;
    use shipwatch::mask::Mask;
    use std::f32::consts::{FRAC_PI_2, FRAC_PI_4};

    /// A white ship, 40 x 12 pixels, on grey water.
    fn ship() -> (Rle, RgbImage) {
        let mut mask = Mask::new(90, 70);
        for (x, y) in (20..60).flat_map(|x| (30..42).map(move |y| (x, y))) {
            mask.set(x, y, true);
        }
        let image = RgbImage::from_fn(90, 70, |x, y| {
            Rgb([if mask.get(x, y) { 250 } else { 60 }; 3])
        });
        (mask.to_rle(), image)
    }

    #[test]
    fn a_rectangle_measures_as_itself() {
        let (ship, image) = ship();
        let hull = Hull::measure(&ship, image.height()).expect("pixels");
        assert!((hull.length - 40.0).abs() < 1e-3 && (hull.beam - 12.0).abs() < 1e-3);
        assert_eq!((hull.centre, hull.angle), ([39.5, 35.5], 0.0));
    }

    #[test]
    fn the_mask_lies_on_the_ship_however_it_is_set() {
        let (ship, image) = ship();
        for (scale, angle) in [(1.0, 0.0), (0.5, FRAC_PI_2), (0.7, FRAC_PI_4), (1.2, 2.5)] {
            let cut_out = CutOut::of(&ship, &image, scale).expect("whole");
            let mut canvas = Canvas::new(RgbImage::from_pixel(120, 120, Rgb([60; 3])));
            let pose = Pose {
                centre: [55.3, 62.2],
                angle,
                paint: Paint::Own(1.0),
                shadow: [0.0; 2],
            };
            assert!(cut_out.fits(&canvas, &pose));
            cut_out.set(&mut canvas, &pose);
            let area = canvas.ships.as_raw().iter().filter(|&&p| p == 1).count() as f32;
            let want = 40.0 * 12.0 * scale * scale;
            assert!((area / want - 1.0).abs() < 0.12, "{area} of {want}");
            let wrong = canvas
                .pixels
                .pixels()
                .zip(canvas.ships.pixels())
                .filter(|(pixel, ship)| (pixel.0[0] > 200) != (ship.0[0] > 0))
                .count() as f32;
            assert!(wrong < 0.2 * area + 20.0, "{wrong} of {area}");
            assert!(!cut_out.fits(&canvas, &pose), "the place is taken");
        }
    }

    #[test]
    fn a_ship_cut_by_the_border_is_left_alone() {
        let mut mask = Mask::new(50, 50);
        for (x, y) in (0..20).flat_map(|x| (30..38).map(move |y| (x, y))) {
            mask.set(x, y, true);
        }
        assert!(CutOut::of(&mask.to_rle(), &RgbImage::new(50, 50), 1.0).is_none());
    }
}

//! One channel of an image as numbers that can be reckoned with.

use image::GrayImage;

/// `[H, W]` f32.
#[derive(Debug, Clone)]
pub(super) struct Plane {
    pub(super) width: usize,
    pub(super) height: usize,
    values: Vec<f32>,
}

impl From<&GrayImage> for Plane {
    fn from(image: &GrayImage) -> Self {
        Self {
            width: image.width() as usize,
            height: image.height() as usize,
            values: image.as_raw().iter().map(|&byte| f32::from(byte)).collect(),
        }
    }
}

impl Plane {
    pub(super) fn at(&self, x: usize, y: usize) -> f32 {
        self.values[y * self.width + x]
    }

    pub(super) fn values(&self) -> impl Iterator<Item = f32> + '_ {
        self.values.iter().copied()
    }

    pub(super) fn map(&self, f: impl Fn(f32) -> f32) -> Self {
        Self {
            values: self.values.iter().map(|&value| f(value)).collect(),
            ..*self
        }
    }

    pub(super) fn zip(&self, other: &Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let pairs = self.values.iter().zip(&other.values);
        Self {
            values: pairs.map(|(&a, &b)| f(a, b)).collect(),
            ..*self
        }
    }

    /// Every second pixel.
    pub(super) fn halved(&self) -> Self {
        let (width, height) = (self.width.div_ceil(2), self.height.div_ceil(2));
        let rows = (0..height).flat_map(|y| (0..width).map(move |x| (2 * x, 2 * y)));
        Self {
            width,
            height,
            values: rows.map(|(x, y)| self.at(x, y)).collect(),
        }
    }

    /// A Gaussian blur; border pixels go on beyond the border.
    pub(super) fn blurred(&self, sigma: f32) -> Self {
        let reach = (3.0 * sigma).ceil() as isize;
        let weights: Vec<f32> = (-reach..=reach)
            .map(|at| (-((at * at) as f32) / (2.0 * sigma * sigma)).exp())
            .collect();
        let sum: f32 = weights.iter().sum();
        let weights: Vec<f32> = weights.iter().map(|weight| weight / sum).collect();
        let mut across = vec![0.0f32; self.values.len()];
        let mut padded = Vec::new();
        for (row, out) in self
            .values
            .chunks_exact(self.width)
            .zip(across.chunks_exact_mut(self.width))
        {
            padded.clear();
            padded.extend(std::iter::repeat_n(row[0], reach as usize));
            padded.extend_from_slice(row);
            padded.extend(std::iter::repeat_n(row[self.width - 1], reach as usize));
            for (nth, weight) in weights.iter().enumerate() {
                let shifted = &padded[nth..nth + self.width];
                out.iter_mut()
                    .zip(shifted)
                    .for_each(|(out, value)| *out += weight * value);
            }
        }
        let mut values = vec![0.0f32; self.values.len()];
        for (y, out) in values.chunks_exact_mut(self.width).enumerate() {
            for (nth, weight) in weights.iter().enumerate() {
                let row =
                    (y as isize + nth as isize - reach).clamp(0, self.height as isize - 1) as usize;
                let row = &across[row * self.width..(row + 1) * self.width];
                out.iter_mut()
                    .zip(row)
                    .for_each(|(out, value)| *out += weight * value);
            }
        }
        Self { values, ..*self }
    }

    /// A wide blur, in a time that does not grow with `sigma`: three running means, which together come
    /// close to a Gaussian.
    pub(super) fn softened(&self, sigma: f32) -> Self {
        // The variance of a mean over 2 r + 1 pixels is r (r + 1) / 3; three of them add up.
        let reach = ((sigma * sigma + 0.25).sqrt() - 0.5).round().max(1.0) as usize;
        (0..3).fold(self.clone(), |plane, _| {
            plane.running_mean(reach).running_mean_down(reach)
        })
    }

    /// Means along the rows; border pixels go on beyond the border.
    fn running_mean(&self, reach: usize) -> Self {
        let mut values = Vec::with_capacity(self.values.len());
        for row in self.values.chunks_exact(self.width) {
            let at = |x: isize| row[x.clamp(0, self.width as isize - 1) as usize];
            let reach = reach as isize;
            let mut sum: f32 = (-reach..=reach).map(at).sum();
            for x in 0..self.width as isize {
                values.push(sum / (2 * reach + 1) as f32);
                sum += at(x + reach + 1) - at(x - reach);
            }
        }
        Self { values, ..*self }
    }

    /// Means along the columns.
    fn running_mean_down(&self, reach: usize) -> Self {
        let row = |y: isize| {
            let y = y.clamp(0, self.height as isize - 1) as usize;
            &self.values[y * self.width..(y + 1) * self.width]
        };
        let reach = reach as isize;
        let mut sums = vec![0.0f32; self.width];
        for y in -reach..=reach {
            sums.iter_mut()
                .zip(row(y))
                .for_each(|(sum, value)| *sum += value);
        }
        let mut values = Vec::with_capacity(self.values.len());
        for y in 0..self.height as isize {
            values.extend(sums.iter().map(|sum| sum / (2 * reach + 1) as f32));
            let change = row(y + reach + 1).iter().zip(row(y - reach));
            sums.iter_mut()
                .zip(change)
                .for_each(|(sum, (new, old))| *sum += new - old);
        }
        Self { values, ..*self }
    }

    /// Whether the surface at a pixel bends in one direction alone, so that a place there would slide.
    pub(super) fn is_edge(&self, x: usize, y: usize) -> bool {
        let here = 2.0 * self.at(x, y);
        let xx = self.at(x + 1, y) + self.at(x - 1, y) - here;
        let yy = self.at(x, y + 1) + self.at(x, y - 1) - here;
        let xy = (self.at(x + 1, y + 1) + self.at(x - 1, y - 1)
            - self.at(x - 1, y + 1)
            - self.at(x + 1, y - 1))
            / 4.0;
        let (trace, determinant) = (xx + yy, xx * yy - xy * xy);
        // Lowe's bound: one curvature is ten times the other.
        determinant <= 0.0 || trace * trace * 10.0 >= 121.0 * determinant
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn a_blur_keeps_the_sum_and_spreads_by_its_sigma() {
        let dot = GrayImage::from_fn(41, 41, |x, y| {
            image::Luma([if (x, y) == (20, 20) { 200 } else { 0 }])
        });
        let blurred = Plane::from(&dot).blurred(3.0);
        let sum: f32 = blurred.values.iter().sum();
        assert!((sum - 200.0).abs() < 0.1, "{sum}");
        // The Gaussian's density: 1 / (2 pi 9) in the middle, e^-0.5 of that one sigma away.
        let middle = blurred.at(20, 20);
        assert!(
            (middle - 200.0 / (std::f32::consts::TAU * 9.0)).abs() < 0.05,
            "{middle}"
        );
        assert!((blurred.at(23, 20) / middle - (-0.5f32).exp()).abs() < 0.01);
    }

    #[test]
    fn the_wide_blur_is_nearly_the_gaussian_one() {
        let mut rng = StdRng::seed_from_u64(1);
        let noise = GrayImage::from_fn(90, 70, |_, _| image::Luma([rng.random()]));
        let plane = Plane::from(&noise);
        let (wide, gaussian) = (plane.softened(8.0), plane.blurred(8.0));
        assert_eq!((wide.width, wide.height), (90, 70));
        // Away from the border, beyond which the two go on differently.
        for (x, y) in (24..66).flat_map(|x| (24..46).map(move |y| (x, y))) {
            let (wide, gaussian) = (wide.at(x, y), gaussian.at(x, y));
            assert!((wide - gaussian).abs() < 1.5, "{wide} for {gaussian}");
        }
    }
}

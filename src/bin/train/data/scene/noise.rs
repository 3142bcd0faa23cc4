//! Random textures, made once for the whole program and laid over pictures at any size and angle.

use std::f32::consts::TAU;
use std::sync::LazyLock;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt, SeedableRng};

/// Uncorrelated normal noise.
pub(crate) static WHITE: LazyLock<Field> = LazyLock::new(|| Field::white(512, 1));

/// Noise of all sizes, the larger the stronger: clouds, coasts, slicks.
pub(crate) static FRACTAL: LazyLock<Field> = LazyLock::new(|| Field::fractal(1024, 2));

/// Noise mostly of one size, crests [`WAVELENGTH`] pixels apart: waves.
pub(crate) static WAVES: LazyLock<Field> = LazyLock::new(|| Field::waves(512, 3));

/// Typical distance of crests in [`WAVES`], in pixels of the field.
pub(crate) const WAVELENGTH: f32 = 8.0;

/// Octaves of [`FRACTAL`].
const OCTAVES: i32 = 8;

/// How much stronger an octave is than the one half its size, as a power of two.
const ROUGHNESS: f32 = 0.8;

/// A square of noise with zero mean and unit variance that repeats without a seam.
pub(crate) struct Field {
    /// A power of two, so that wrapping is masking.
    side: usize,
    values: Vec<f32>,
}

impl Field {
    fn white(side: usize, seed: u64) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut values = Vec::with_capacity(side * side);
        while values.len() < side * side {
            values.extend(normal_pair(&mut rng));
        }
        Self { side, values }.normalised()
    }

    /// One octave: what a Gaussian of `sigma` keeps of white noise and one twice as wide does not.
    fn octave(side: usize, seed: u64, sigma: f32) -> Self {
        let fine = blurred(&Self::white(side, seed).values, side, sigma);
        let coarse = blurred(&fine, side, sigma * 3f32.sqrt());
        let values = fine.iter().zip(&coarse).map(|(f, c)| f - c).collect();
        Self { side, values }.normalised()
    }

    fn waves(side: usize, seed: u64) -> Self {
        let sigma = WAVELENGTH / 5.0;
        let octaves = [(0.5, 0.5), (1.0, 1.0), (2.0, 0.6)];
        Self::sum(
            side,
            seed,
            octaves.map(|(size, strength)| (sigma * size, strength)),
        )
    }

    fn fractal(side: usize, seed: u64) -> Self {
        let octaves = (0..OCTAVES).map(|octave| octave as f32);
        Self::sum(
            side,
            seed,
            octaves.map(|o| (o.exp2(), (o * ROUGHNESS).exp2())),
        )
    }

    /// Octaves of the given sigma and strength, added up.
    fn sum(side: usize, seed: u64, octaves: impl IntoIterator<Item = (f32, f32)>) -> Self {
        let mut values = vec![0.0; side * side];
        for (number, (sigma, strength)) in octaves.into_iter().enumerate() {
            let layer = Self::octave(side, seed + ((number as u64) << 8), sigma);
            for (sum, value) in values.iter_mut().zip(layer.values) {
                *sum += strength * value;
            }
        }
        Self { side, values }.normalised()
    }

    fn normalised(mut self) -> Self {
        let n = self.values.len() as f64;
        let mean = self.values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let square = |&v: &f32| (f64::from(v) - mean).powi(2);
        let deviation = (self.values.iter().map(square).sum::<f64>() / n).sqrt();
        for value in &mut self.values {
            *value = ((f64::from(*value) - mean) / deviation) as f32;
        }
        self
    }

    /// The value between pixels, bilinear.
    #[inline]
    fn at(&self, x: f32, y: f32) -> f32 {
        // Truncation is rounding down as long as coordinates are positive, and much faster.
        let shift = (16 * self.side) as f32;
        let (x, y) = (x + shift, y + shift);
        let (left, top) = (x as i32, y as i32);
        let (fx, fy) = (x - left as f32, y - top as f32);
        let wrap = |v: i32| v as usize & (self.side - 1);
        let (x0, x1) = (wrap(left), wrap(left + 1));
        let (y0, y1) = (wrap(top) * self.side, wrap(top + 1) * self.side);
        let v = &self.values;
        let upper = v[y0 + x0] + (v[y0 + x1] - v[y0 + x0]) * fx;
        let lower = v[y1 + x0] + (v[y1 + x1] - v[y1 + x0]) * fx;
        upper + (lower - upper) * fy
    }
}

/// A field laid over a picture.
pub(crate) struct Layer {
    field: &'static Field,
    origin: [f32; 2],
    /// Field coordinates per column and per row of the picture.
    column: [f32; 2],
    row: [f32; 2],
}

impl Layer {
    /// Lays `field` at a random place. One field pixel covers `size[0]` picture pixels in the
    /// direction `angle` and `size[1]` across it.
    pub(crate) fn new(
        field: &'static Field,
        angle: f32,
        size: [f32; 2],
        rng: &mut impl Rng,
    ) -> Self {
        let (sin, cos) = angle.sin_cos();
        let mut start = || rng.random_range(0.0..field.side as f32);
        Self {
            field,
            origin: [start(), start()],
            column: [cos / size[0], -sin / size[1]],
            row: [sin / size[0], cos / size[1]],
        }
    }

    /// [`Layer::new`] of the same size in all directions, at a random angle.
    pub(crate) fn even(field: &'static Field, size: f32, rng: &mut impl Rng) -> Self {
        let angle = rng.random_range(0.0..TAU);
        Self::new(field, angle, [size; 2], rng)
    }

    /// The value at a picture's column `x` and row `y`.
    #[inline]
    pub(crate) fn at(&self, x: f32, y: f32) -> f32 {
        self.field.at(
            self.origin[0] + self.column[0] * x + self.row[0] * y,
            self.origin[1] + self.column[1] * x + self.row[1] * y,
        )
    }
}

/// White noise laid over a picture pixel by pixel.
pub(crate) struct Grain {
    origin: [usize; 2],
}

impl Grain {
    pub(crate) fn new(rng: &mut impl Rng) -> Self {
        Self {
            origin: [0, 1].map(|_| rng.random_range(0..WHITE.side)),
        }
    }

    /// The value at a picture's column `x` and row `y`.
    #[inline]
    pub(crate) fn at(&self, x: u32, y: u32) -> f32 {
        let wrap = |v: u32, from: usize| (v as usize + from) & (WHITE.side - 1);
        WHITE.values[wrap(y, self.origin[1]) * WHITE.side + wrap(x, self.origin[0])]
    }
}

/// Two independent standard normal values (Box and Muller 1958).
pub(crate) fn normal_pair(rng: &mut impl Rng) -> [f32; 2] {
    let radius = (-2.0 * (1.0 - rng.random::<f32>()).ln()).sqrt();
    let (sin, cos) = (TAU * rng.random::<f32>()).sin_cos();
    [radius * cos, radius * sin]
}

/// A random value between `low` and `high`, both positive, each octave as likely as the next.
pub(crate) fn log_uniform(low: f32, high: f32, rng: &mut impl Rng) -> f32 {
    rng.random_range(low.ln()..=high.ln()).exp()
}

/// 0 up to `low`, 1 from `high` on, smooth between.
#[inline]
pub(crate) fn smoothstep(low: f32, high: f32, value: f32) -> f32 {
    let t = ((value - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Three running means in each direction, which is nearly a Gaussian; wraps around.
fn blurred(values: &[f32], side: usize, sigma: f32) -> Vec<f32> {
    let mut values = values.to_vec();
    for _ in 0..2 {
        for row in values.chunks_exact_mut(side) {
            blur_row(row, sigma);
        }
        values = transposed(&values, side);
    }
    values
}

fn transposed(values: &[f32], side: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    for (y, row) in values.chunks_exact(side).enumerate() {
        for (x, &value) in row.iter().enumerate() {
            out[x * side + y] = value;
        }
    }
    out
}

fn blur_row(row: &mut [f32], sigma: f32) {
    // Three boxes of width w have the variance (w^2 - 1) / 4; w may lie between odd numbers.
    let half = ((4.0 * sigma * sigma + 1.0).sqrt() - 1.0) / 2.0;
    let radius = half.floor() as isize;
    let edge = f64::from(half.fract());
    let n = row.len();
    let index = |i: isize| (i + n as isize) as usize % n;
    for _ in 0..3 {
        let source: Vec<f64> = row.iter().map(|&v| f64::from(v)).collect();
        let mut sum: f64 = (-radius..=radius).map(|i| source[index(i)]).sum();
        let norm = (2 * radius + 1) as f64 + 2.0 * edge;
        for (i, out) in row.iter_mut().enumerate() {
            let before = source[index(i as isize - radius - 1)];
            let after = source[index(i as isize + radius + 1)];
            *out = ((sum + edge * (before + after)) / norm) as f32;
            sum += after - source[index(i as isize - radius)];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;

    #[test]
    fn fields_are_smooth_across_their_border() {
        let step = |field: &Field, x: usize| -> f32 {
            let rows = field.values.chunks_exact(field.side);
            rows.map(|row| (row[(x + 1) % field.side] - row[x]).abs())
                .sum()
        };
        for field in [&*FRACTAL, &*WAVES] {
            let ratio = step(field, field.side - 1) / step(field, field.side / 2);
            assert!((0.7..1.4).contains(&ratio), "{ratio}");
        }
    }

    /// Half a wavelength apart, crests meet troughs.
    #[test]
    fn waves_have_the_length_they_are_said_to_have() {
        let lag = |d: usize| -> f32 {
            let v = &WAVES.values;
            v.iter().zip(&v[d..]).map(|(a, b)| a * b).sum()
        };
        let lowest = (1..20).min_by(|&a, &b| lag(a).total_cmp(&lag(b)));
        let half = WAVELENGTH as usize / 2;
        assert!(
            (half - 1..=half + 2).contains(&lowest.expect("some lag")),
            "{lowest:?}"
        );
    }

    #[test]
    fn a_layer_stretches_along_its_angle() {
        let mut rng = StdRng::seed_from_u64(5);
        let layer = Layer::new(&WAVES, 0.0, [6.0, 1.0], &mut rng);
        let mut change = [0.0, 0.0];
        for (x, y) in (0..100).flat_map(|x| (0..100).map(move |y| (x as f32, y as f32))) {
            change[0] += (layer.at(x + 1.0, y) - layer.at(x, y)).abs();
            change[1] += (layer.at(x, y + 1.0) - layer.at(x, y)).abs();
        }
        assert!(change[1] > 3.0 * change[0], "{change:?}");
    }
}

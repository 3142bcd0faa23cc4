//! What makes a scene known again when an image of it is shifted, turned, zoomed or lit otherwise:
//! hashes of its striking places.
//!
//! Places, their size and their direction are found as by D. Lowe, "Distinctive image features from
//! scale-invariant keypoints", IJCV 60(2), 2004; of the descriptor only which values lie above its
//! median is kept, so that looks are compared by counting bits.

use std::f32::consts::{SQRT_2, TAU};

use image::{RgbImage, imageops};
use shipwatch::frame::resample_gray;

use super::plane::Plane;

/// Longer side of an image when it is looked at, in pixels.
const SIDE: u32 = 512;

/// How much smaller the image is kept for a look at pixels.
const SHRINK: u32 = 4;

/// Halvings of the image at which places are looked for.
const OCTAVES: usize = 4;

/// Smallest blur, in pixels of an octave.
const SIGMA: f32 = 1.6;

/// Blurs of an octave, each the square root of two wider than the one before.
const BLURS: usize = 5;

/// Sigma of the surroundings within which contrast is evened out, in pixels.
const EVEN: f32 = 16.0;

/// Contrast in grey levels below which there is only noise.
const NOISE: f32 = 2.0;

/// Least contrast of a place against its surroundings, after evening out.
const CONTRAST: f32 = 0.03;

/// Most places of an image.
const PLACES: usize = 300;

/// Cells along a side of a descriptor, and directions told apart in each.
const CELLS: usize = 4;
const DIRECTIONS: usize = 8;

/// Bits of a hash.
pub(super) const BITS: usize = 128;

/// A striking place of an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Place {
    /// How it looks.
    pub(super) hash: u128,
    /// Middle, in pixels of an image of [`SIDE`].
    pub(super) at: [f32; 2],
    /// Radius, in pixels of an image of [`SIDE`].
    pub(super) size: f32,
    /// Direction of its strongest gradient, in radians.
    pub(super) angle: f32,
}

/// Where in an octave a place was found.
struct Found {
    strength: f32,
    octave: usize,
    blur: usize,
    x: usize,
    y: usize,
}

/// What is kept of an image.
pub(super) struct Look {
    /// Its most striking places; an even image has none.
    pub(super) places: Vec<Place>,
    /// The image with its contrast evened out, small.
    small: Small,
}

/// `[H, W]`, an eighth of a unit to a step, the longer side [`SIDE`] / [`SHRINK`] pixels.
struct Small {
    width: usize,
    height: usize,
    values: Vec<i8>,
}

pub(super) fn look(pixels: &RgbImage) -> Look {
    let grey = imageops::grayscale(pixels);
    let factor = f64::from(SIDE) / f64::from(grey.width().max(grey.height()));
    let side = |length: u32| (f64::from(length) * factor).round().max(1.0) as u32;
    let small = resample_gray(&grey, side(grey.width()), side(grey.height()));
    let evened = evened(&Plane::from(&small));
    let mut half = evened.clone();
    for _ in 0..SHRINK.ilog2() {
        half = half.blurred(1.0).halved();
    }
    let small = Small {
        width: half.width,
        height: half.height,
        values: half
            .map(|v| v * 64.0)
            .values()
            .map(|v| v.clamp(-127.0, 127.0) as i8)
            .collect(),
    };
    let octaves = octaves(evened);
    let mut found: Vec<Found> = octaves
        .iter()
        .enumerate()
        .flat_map(|(octave, blurs)| extremes(blurs, octave))
        .collect();
    found.sort_by(|a, b| b.strength.total_cmp(&a.strength));
    found.truncate(PLACES);
    let mut places: Vec<Place> = found
        .iter()
        .flat_map(|found| describe(&octaves[found.octave], found))
        .collect();
    places.shrink_to_fit();
    Look { places, small }
}

impl Look {
    /// Without pixels, so that only many places can prove a common scene.
    #[cfg(test)]
    pub(super) fn of(places: Vec<Place>) -> Self {
        let small = Small {
            width: 0,
            height: 0,
            values: Vec::new(),
        };
        Self { places, small }
    }

    /// Correlation of two images where they overlap, -1 to 1, when `map` says where a pixel of this one
    /// lies in the other; 0 where hardly any does.
    pub(super) fn likeness(&self, other: &Self, map: impl Fn([f32; 2]) -> [f32; 2]) -> f32 {
        let shrink = SHRINK as f32;
        let mut best = 0.0f32;
        for (sx, sy) in (-2..=2).flat_map(|y| (-2..=2).map(move |x| (x as f32, y as f32))) {
            let (mut n, mut sa, mut sb, mut saa, mut sbb, mut sab) =
                (0.0f32, 0.0, 0.0, 0.0, 0.0, 0.0);
            for y in 0..self.small.height {
                for x in 0..self.small.width {
                    let at = map([(x as f32 + 0.5) * shrink, (y as f32 + 0.5) * shrink]);
                    let Some(b) = other.small.at(
                        at[0] / shrink - 0.5 + sx * 0.7,
                        at[1] / shrink - 0.5 + sy * 0.7,
                    ) else {
                        continue;
                    };
                    let a = f32::from(self.small.values[y * self.small.width + x]);
                    n += 1.0;
                    sa += a;
                    sb += b;
                    saa += a * a;
                    sbb += b * b;
                    sab += a * b;
                }
            }
            if n < 400.0 {
                continue;
            }
            let (va, vb) = (saa - sa * sa / n, sbb - sb * sb / n);
            if va > 0.0 && vb > 0.0 {
                best = best.max((sab - sa * sb / n) / (va * vb).sqrt());
            }
        }
        best
    }
}

impl Small {
    /// Between pixels; none beyond the border.
    fn at(&self, x: f32, y: f32) -> Option<f32> {
        if x < 0.0 || y < 0.0 || x >= self.width as f32 - 1.0 || y >= self.height as f32 - 1.0 {
            return None;
        }
        let (left, top) = (x as usize, y as usize);
        let (u, v) = (x - left as f32, y - top as f32);
        let value = |x: usize, y: usize| f32::from(self.values[y * self.width + x]);
        let row = |y: usize| value(left, y) * (1.0 - u) + value(left + 1, y) * u;
        Some(row(top) * (1.0 - v) + row(top + 1) * v)
    }
}

/// The plane with its contrast made alike everywhere: dark water tells as much as a bright pier.
fn evened(plane: &Plane) -> Plane {
    let mean = plane.softened(EVEN);
    let difference = plane.zip(&mean, |value, mean| value - mean);
    let spread = difference.map(|value| value * value).softened(EVEN);
    difference.zip(&spread, |value, spread| {
        value / (spread + NOISE * NOISE).sqrt()
    })
}

/// Blurs of the plane, and of its halvings.
fn octaves(mut plane: Plane) -> Vec<Vec<Plane>> {
    let mut octaves = Vec::new();
    for _ in 0..OCTAVES {
        let mut blurs = vec![plane.blurred(SIGMA)];
        for blur in 1..BLURS {
            // Blurs add up by their squares.
            let before = sigma(blur - 1);
            blurs.push(blurs[blur - 1].blurred(before));
        }
        // Blurred by twice the smallest blur: what the next octave begins with, all but its own.
        plane = plane.blurred(1.0).halved();
        octaves.push(blurs);
    }
    octaves
}

fn sigma(blur: usize) -> f32 {
    SIGMA * SQRT_2.powi(blur as i32)
}

/// Places that differ more from their surroundings than all that is near in position and size.
fn extremes(blurs: &[Plane], octave: usize) -> Vec<Found> {
    let (width, height) = (blurs[0].width, blurs[0].height);
    let differences: Vec<Plane> = blurs
        .windows(2)
        .map(|pair| pair[1].zip(&pair[0], |coarse, fine| coarse - fine))
        .collect();
    let mut found = Vec::new();
    for (level, planes) in differences.windows(3).enumerate() {
        let margin = (sigma(level + 1) * 3.0).ceil() as usize;
        for y in margin..height.saturating_sub(margin) {
            for x in margin..width.saturating_sub(margin) {
                let here = planes[1].at(x, y);
                if here.abs() < CONTRAST {
                    continue;
                }
                let mut around = planes.iter().flat_map(|plane| {
                    (y - 1..y + 2).flat_map(move |y| (x - 1..x + 2).map(move |x| plane.at(x, y)))
                });
                if around.all(|value| value * here.signum() <= here.abs())
                    && !planes[1].is_edge(x, y)
                {
                    found.push(Found {
                        strength: here.abs(),
                        octave,
                        blur: level + 1,
                        x,
                        y,
                    });
                }
            }
        }
    }
    found
}

/// A place for each strong direction.
fn describe(blurs: &[Plane], found: &Found) -> Vec<Place> {
    let plane = &blurs[found.blur];
    let (size, zoom) = (sigma(found.blur), (1 << found.octave) as f32);
    directions(plane, found.x, found.y, size)
        .into_iter()
        .map(|angle| Place {
            hash: hash(&descriptor(plane, found.x, found.y, size, angle)),
            at: [found.x, found.y].map(|at| (at as f32 + 0.5) * zoom),
            size: size * zoom,
            angle,
        })
        .collect()
}

/// Directions of the gradients around a pixel that stand out.
fn directions(plane: &Plane, x: usize, y: usize, size: f32) -> Vec<f32> {
    const BINS: usize = 36;
    let mut bins = [0.0f32; BINS];
    let radius = size * 4.5;
    for_each_gradient(plane, x, y, radius, 1, |dx, dy, strength, angle| {
        let near = (-(dx * dx + dy * dy) / (2.0 * (1.5 * size).powi(2))).exp();
        let bin = (angle.rem_euclid(TAU) / TAU * BINS as f32) as usize % BINS;
        bins[bin] += strength * near;
    });
    let at = |bin: usize| bins[bin % BINS];
    let smooth: Vec<f32> = (0..BINS)
        .map(|bin| at(bin + BINS - 1) + 2.0 * at(bin) + at(bin + 1))
        .collect();
    let most = smooth.iter().copied().fold(0.0, f32::max);
    (0..BINS)
        .filter_map(|bin| {
            let (before, here, after) = (
                smooth[(bin + BINS - 1) % BINS],
                smooth[bin],
                smooth[(bin + 1) % BINS],
            );
            let peak = here >= 0.8 * most && here > before && here >= after;
            // The top of the parabola through three bins.
            let off = 0.5 * (before - after) / (before - 2.0 * here + after).min(-1e-9);
            peak.then(|| (bin as f32 + 0.5 + off) / BINS as f32 * TAU)
        })
        .take(2)
        .collect()
}

/// Histograms of directions in the cells around a pixel, seen along `angle`.
fn descriptor(plane: &Plane, x: usize, y: usize, size: f32, angle: f32) -> [f32; BITS] {
    let mut values = [0.0f32; BITS];
    let (sin, cos) = angle.sin_cos();
    let cell = 3.0 * size;
    let half = CELLS as f32 / 2.0;
    let radius = cell * (half + 0.5) * SQRT_2;
    for_each_gradient(plane, x, y, radius, 2, |dx, dy, strength, direction| {
        let column = (dx * cos + dy * sin) / cell;
        let row = (dy * cos - dx * sin) / cell;
        let near = (-(column * column + row * row) / (0.5 * (CELLS * CELLS) as f32)).exp();
        let turn = (direction - angle).rem_euclid(TAU) / TAU * DIRECTIONS as f32;
        // Each gradient counts in the cells and directions around it by how near it is to them.
        for (c, by_column) in shares(column + half - 0.5) {
            for (r, by_row) in shares(row + half - 0.5) {
                for (d, by_turn) in shares(turn) {
                    let inside = |cell: isize| (0..CELLS as isize).contains(&cell);
                    if inside(c) && inside(r) {
                        let d = d as usize % DIRECTIONS;
                        let at = (r as usize * CELLS + c as usize) * DIRECTIONS + d;
                        values[at] += strength * near * by_column * by_row * by_turn;
                    }
                }
            }
        }
    });
    values
}

/// The whole numbers around a value, with how near it is to each.
fn shares(value: f32) -> [(isize, f32); 2] {
    let low = value.floor();
    [
        (low as isize, 1.0 - (value - low)),
        (low as isize + 1, value - low),
    ]
}

/// Calls back with offset, strength and direction of every `step`th gradient within `radius`: the plane
/// is blurred, so that neighbours hardly differ.
fn for_each_gradient(
    plane: &Plane,
    x: usize,
    y: usize,
    radius: f32,
    step: usize,
    mut call: impl FnMut(f32, f32, f32, f32),
) {
    let reach = radius.ceil() as usize;
    let around = |at: usize, length: usize| {
        let first = at.saturating_sub(reach).max(1);
        (first + (at - first) % step..(at + reach + 1).min(length - 1)).step_by(step)
    };
    for py in around(y, plane.height) {
        for px in around(x, plane.width) {
            let (dx, dy) = (px as f32 - x as f32, py as f32 - y as f32);
            if dx * dx + dy * dy <= radius * radius {
                let right = plane.at(px + 1, py) - plane.at(px - 1, py);
                let down = plane.at(px, py + 1) - plane.at(px, py - 1);
                call(dx, dy, right.hypot(down), down.atan2(right));
            }
        }
    }
}

/// Which values lie above the median.
fn hash(values: &[f32; BITS]) -> u128 {
    let mut sorted = *values;
    sorted.sort_by(f32::total_cmp);
    let median = sorted[BITS / 2 - 1];
    let above = values
        .iter()
        .enumerate()
        .filter(|(_, value)| **value > median);
    above.fold(0, |hash, (bit, _)| hash | 1 << bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_picture_has_nothing_to_know_it_by() {
        for (width, height) in [(200, 300), (1, 1), (3, 900)] {
            let plain = RgbImage::from_pixel(width, height, image::Rgb([40, 60, 80]));
            assert_eq!(look(&plain).places, []);
        }
    }

    #[test]
    fn a_turned_blob_has_the_turned_direction_and_the_same_hash() {
        // A bright bar with a darker end, off the middle.
        let picture = RgbImage::from_fn(512, 512, |x, y| {
            let bar = (200..212).contains(&x) && (240..270).contains(&y);
            let end = (200..230).contains(&x) && (262..270).contains(&y);
            image::Rgb(
                [if bar {
                    230
                } else if end {
                    150
                } else {
                    60
                }; 3],
            )
        });
        let turned = look(&imageops::rotate90(&picture)).places;
        let places = look(&picture).places;
        assert!(!places.is_empty());
        for place in places {
            // Clockwise: columns become rows counted from the right.
            let at = [512.0 - place.at[1], place.at[0]];
            let angle = place.angle + TAU / 4.0;
            let same = turned.iter().find(|other| {
                let off = (other.at[0] - at[0]).hypot(other.at[1] - at[1]);
                let turn = (other.angle - angle).rem_euclid(TAU);
                off < 2.5
                    && turn.min(TAU - turn) < 0.1
                    && (other.size / place.size - 1.0).abs() < 0.01
            });
            let same = same.expect("found again");
            let differ = (same.hash ^ place.hash).count_ones();
            assert!(differ <= 16, "{differ} bits differ");
        }
    }
}

//! Which images show the same scene: places that look alike and lie alike.

use std::collections::BTreeMap;
use std::f32::consts::{PI, TAU};

use rayon::prelude::*;

use super::fingerprint::{BITS, Look, Place};

/// Bits by which places are brought together, so that not all pairs need be looked at: places that look
/// alike agree in all bits of at least one band, mostly.
const BAND: usize = 16;

/// Steps from a band's bit to its next: each gives bands that cover all bits.
const STRIDES: [usize; 3] = [1, 5, 37];

/// Places in one band's bucket beyond which that look is too common to tell anything.
const CROWD: usize = 4000;

/// Most differing bits of places that look alike.
const ALIKE: u32 = 30;

/// Fewest pairs of places that follow from one shift, turn and zoom.
const AGREEING: usize = 4;

/// Likeness of the pixels that proves a common scene with so few places, and how much less is asked for
/// each place more. Set by eye on pairs of google-earth-ships.
const LIKENESS: f32 = 0.6;
const BY_PLACE: f32 = 0.035;

/// How far a place may lie from where the others say, in pixels of the image as it is looked at.
const SLACK: f32 = 5.0;

/// Least distance of places that count as two, in the same pixels.
const APART: f32 = 10.0;

/// A place of an image.
#[derive(Debug, Clone, Copy)]
struct Owned {
    image: u32,
    place: Place,
}

/// Places of two images that look alike.
#[derive(Debug, Clone, Copy)]
struct Match(Place, Place);

/// Two images of one scene.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    /// The images, the smaller index first.
    pub(super) images: (usize, usize),
    /// Places that look alike and lie alike.
    pub(super) places: usize,
    /// Correlation of the pixels where the images overlap.
    pub(super) likeness: f32,
}

/// Pairs of images that share a scene; `looks` holds the look of each image.
pub(super) fn pairs(looks: &[Look]) -> Vec<Pair> {
    let all: Vec<Owned> = (0..)
        .zip(looks)
        .flat_map(|(image, look)| look.places.iter().map(move |&place| Owned { image, place }))
        .collect();
    let mut matches: BTreeMap<(u32, u32), Vec<Match>> = BTreeMap::new();
    for (a, b) in alike(&all) {
        let (a, b) = (all[a as usize], all[b as usize]);
        let of = matches.entry((a.image, b.image)).or_default();
        of.push(Match(a.place, b.place));
    }
    matches
        .into_par_iter()
        .filter(|(_, matches)| matches.len() >= AGREEING)
        .filter_map(|((a, b), matches)| {
            let (places, map) = consensus(&matches)?;
            let (a, b) = (a as usize, b as usize);
            let likeness = looks[a].likeness(&looks[b], |at| map.apply(at));
            let asked = LIKENESS - BY_PLACE * (places - AGREEING) as f32;
            (likeness >= asked).then_some(Pair {
                images: (a, b),
                places,
                likeness,
            })
        })
        .collect()
}

/// Pairs of places of different images that look alike, each once.
fn alike(all: &[Owned]) -> Vec<(u32, u32)> {
    let starts = (0..BITS).step_by(BAND);
    let bands: Vec<[usize; BAND]> = starts
        .flat_map(|start| {
            STRIDES.map(|stride| std::array::from_fn(|nth| (start + nth) * stride % BITS))
        })
        .collect();
    let mut pairs: Vec<(u32, u32)> = bands
        .par_iter()
        .flat_map_iter(|band| {
            let keys: Vec<u16> = all
                .iter()
                .map(|owned| pick(owned.place.hash, band))
                .collect();
            let key = |&index: &u32| keys[index as usize];
            let mut order: Vec<u32> = (0..all.len() as u32).collect();
            order.sort_by_key(key);
            let mut pairs = Vec::new();
            for group in order.chunk_by(|a, b| key(a) == key(b)) {
                if group.len() > CROWD {
                    continue;
                }
                for (nth, &a) in group.iter().enumerate() {
                    let one = all[a as usize];
                    pairs.extend(group[nth + 1..].iter().map(|&b| (a, b)).filter(|&(_, b)| {
                        let other = all[b as usize];
                        one.image != other.image
                            && (one.place.hash ^ other.place.hash).count_ones() <= ALIKE
                    }));
                }
            }
            pairs
        })
        .collect();
    pairs.par_sort_unstable();
    pairs.dedup();
    pairs
}

/// Some bits of a hash.
fn pick(hash: u128, bits: &[usize; BAND]) -> u16 {
    bits.iter()
        .fold(0, |key, bit| key << 1 | (hash >> bit & 1) as u16)
}

/// The shift, turn and zoom from which most matches of two images follow, with their number, places
/// close by counting once; none where they are few.
fn consensus(matches: &[Match]) -> Option<(usize, Similarity)> {
    let from = |first: &Match| {
        let rough: Vec<&Match> = matches.iter().filter(|other| first.suits(other)).collect();
        let near = |map: &Similarity, slack: f32| -> Vec<&Match> {
            let off = |m: &&Match| distance(map.apply(m.0.at), m.1.at) <= slack;
            rough.iter().copied().filter(off).collect()
        };
        if rough.len() < AGREEING {
            return None;
        }
        let map = Similarity::fit(&rough);
        let map = Similarity::fit(&near(&map, 4.0 * SLACK));
        let map = Similarity::fit(&near(&map, 2.0 * SLACK));
        let mut apart: Vec<&Match> = Vec::new();
        for m in near(&map, SLACK) {
            let new = |other: &&Match| {
                distance(m.0.at, other.0.at) > APART && distance(m.1.at, other.1.at) > APART
            };
            if apart.iter().all(new) {
                apart.push(m);
            }
        }
        (apart.len() >= AGREEING).then_some((apart.len(), map))
    };
    matches
        .iter()
        .filter_map(from)
        .max_by_key(|(places, _)| *places)
}

impl Match {
    /// Whether another match could follow from the shift, turn and zoom of this one.
    fn suits(&self, other: &Match) -> bool {
        let zoom = |m: &Match| (m.1.size / m.0.size).ln();
        let turn = |m: &Match| m.1.angle - m.0.angle;
        let map = Similarity::of(self);
        let reach = distance(self.1.at, other.1.at);
        (zoom(self) - zoom(other)).abs() < 0.4
            && ((turn(self) - turn(other) + PI).rem_euclid(TAU) - PI).abs() < 0.35
            && distance(map.apply(other.0.at), other.1.at) <= 4.0 * SLACK + 0.2 * reach
    }
}

/// A shift, turn and zoom of the plane: `z p + t` with complex numbers.
struct Similarity {
    z: [f32; 2],
    t: [f32; 2],
}

impl Similarity {
    /// What one match says.
    fn of(Match(from, to): &Match) -> Self {
        let (sin, cos) = (to.angle - from.angle).sin_cos();
        let zoom = to.size / from.size;
        let z = [zoom * cos, zoom * sin];
        let turned = times(z, from.at);
        Self {
            z,
            t: [to.at[0] - turned[0], to.at[1] - turned[1]],
        }
    }

    /// What suits several matches best, by least squares.
    fn fit(matches: &[&Match]) -> Self {
        let n = matches.len().max(1) as f32;
        let mean = |of: fn(&Match) -> [f32; 2]| {
            let sum = matches
                .iter()
                .fold([0.0; 2], |s, m| [s[0] + of(m)[0], s[1] + of(m)[1]]);
            [sum[0] / n, sum[1] / n]
        };
        let (from, to) = (mean(|m| m.0.at), mean(|m| m.1.at));
        let (mut product, mut square) = ([0.0f32; 2], 1e-6f32);
        for m in matches {
            let (a, b) = (minus(m.0.at, from), minus(m.1.at, to));
            // b times the conjugate of a.
            product[0] += b[0] * a[0] + b[1] * a[1];
            product[1] += b[1] * a[0] - b[0] * a[1];
            square += a[0] * a[0] + a[1] * a[1];
        }
        let z = [product[0] / square, product[1] / square];
        Self {
            z,
            t: minus(to, times(z, from)),
        }
    }

    fn apply(&self, at: [f32; 2]) -> [f32; 2] {
        let turned = times(self.z, at);
        [turned[0] + self.t[0], turned[1] + self.t[1]]
    }
}

fn times(a: [f32; 2], b: [f32; 2]) -> [f32; 2] {
    [a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]]
}

fn minus(a: [f32; 2], b: [f32; 2]) -> [f32; 2] {
    [a[0] - b[0], a[1] - b[1]]
}

fn distance(a: [f32; 2], b: [f32; 2]) -> f32 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

#[cfg(test)]
mod tests {
    use image::imageops::{self, FilterType};
    use image::{Rgb, RgbImage};
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::super::fingerprint::look;
    use super::*;

    /// Blobs of all sizes on rough ground.
    fn scene(seed: u64) -> RgbImage {
        let mut rng = StdRng::seed_from_u64(seed);
        let coarse = RgbImage::from_fn(250, 250, |_, _| Rgb([rng.random_range(80..110); 3]));
        let mut image = imageops::resize(&coarse, 1000, 1000, FilterType::CatmullRom);
        for _ in 0..260 {
            let (x, y) = (rng.random_range(0..980), rng.random_range(0..980));
            let (width, height) = (rng.random_range(4..28), rng.random_range(4..28));
            let level = rng.random_range(0..=255u8);
            for (x, y) in (x..(x + width).min(1000))
                .flat_map(|x| (y..(y + height).min(1000)).map(move |y| (x, y)))
            {
                image.put_pixel(x, y, Rgb([level; 3]));
            }
        }
        image
    }

    fn crop(image: &RgbImage, x: u32, y: u32, side: u32, to: u32) -> RgbImage {
        let part = imageops::crop_imm(image, x, y, side, side).to_image();
        imageops::resize(&part, to, to, FilterType::Triangle)
    }

    #[test]
    fn overlapping_views_are_found_however_turned_zoomed_and_lit() {
        let (one, other) = (scene(1), scene(2));
        let mut dim = crop(&one, 200, 150, 640, 640);
        dim.iter_mut().for_each(|value| *value = *value / 2 + 20);
        let images = [
            crop(&one, 0, 0, 640, 640),
            dim,
            imageops::rotate90(&crop(&one, 250, 60, 560, 640)),
            imageops::rotate180(&crop(&one, 100, 220, 700, 512)),
            crop(&other, 0, 0, 640, 640),
            crop(&other, 250, 300, 640, 640),
        ];
        let looks: Vec<Look> = images.iter().map(look).collect();
        let found: Vec<_> = pairs(&looks).iter().map(|pair| pair.images).collect();
        let all = |range: std::ops::Range<usize>| -> Vec<(usize, usize)> {
            range
                .clone()
                .flat_map(|a| (a + 1..range.end).map(move |b| (a, b)))
                .collect()
        };
        assert_eq!(found, [all(0..4), all(4..6)].concat());
    }

    #[test]
    fn a_similarity_fits_the_matches_it_came_from() {
        let place = |at: [f32; 2]| Place {
            hash: 0,
            at,
            size: 1.0,
            angle: 0.0,
        };
        // A quarter turn, half the size, shifted by (7, -3).
        let map = |[x, y]: [f32; 2]| [-0.5 * y + 7.0, 0.5 * x - 3.0];
        let matches: Vec<Match> = [[0.0, 0.0], [10.0, 0.0], [3.0, 8.0]]
            .map(|at| Match(place(at), place(map(at))))
            .into();
        let fitted = Similarity::fit(&matches.iter().collect::<Vec<_>>());
        let (got, want) = (fitted.apply([40.0, -20.0]), map([40.0, -20.0]));
        assert!(distance(got, want) < 1e-3, "{got:?}");
    }
}

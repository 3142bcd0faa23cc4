//! Which images show the same scene: places that look alike and lie alike.
//!
//! Images that may share one are found without looking at all pairs: places are sorted by some bits of
//! their hashes, then by others, and each is compared with the few that come after it (G. S. Manku et
//! al., "Detecting near-duplicates for web crawling", WWW 2007). Memory and the number of comparisons
//! grow with the number of places, whatever the images show.

use std::f32::consts::{PI, TAU};

use rayon::prelude::*;

use super::fingerprint::{BITS, Look, Place};

/// First bits in the order of their hashes' bits that places must share to be compared.
const SHARED: usize = 16;

/// Steps from a bit of a hash to the next: each gives orders that begin with all bits.
const STRIDES: [usize; 3] = [1, 5, 37];

/// Next places of an order that each one is compared with, and of these most that count.
const WINDOW: usize = 256;
const PARTNERS: usize = 16;

/// Places that are compared at a time, and by one thread.
const BATCH: usize = 1 << 20;
const CHUNK: usize = 1 << 13;

/// Most places that look alike that are remembered.
const MOST: usize = 1 << 26;

/// Most differing bits of places that look alike.
const ALIKE: u32 = 30;

/// Fewest pairs of places that follow from one shift, turn and zoom.
const AGREEING: usize = 4;

/// Most pairs of places of two images that are looked at, the most alike first: repeated textures have
/// no end of them.
const MATCHES: usize = 300;

/// Likeness of the pixels that proves a common scene with so few places, and how much less is asked for
/// each place more. Set by eye on pairs of google-earth-ships.
const LIKENESS: f32 = 0.6;
const BY_PLACE: f32 = 0.035;

/// How far a place may lie from where the others say, in pixels of the image as it is looked at.
const SLACK: f32 = 5.0;

/// Least distance of places that count as two, in the same pixels.
const APART: f32 = 10.0;

/// Some bits of a place's hash; its image, and which place of it.
type Key = (u32, u32, u16);

/// Places of two images that look alike: the images, the smaller index first, and which places of them.
type Hit = (u32, u32, u16, u16);

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
    let places: Vec<&[Place]> = looks.iter().map(|look| &look.places[..]).collect();
    hits(&places)
        .par_chunk_by(same_images)
        .filter(|hits| hits.len() >= AGREEING)
        .filter_map(|hits| {
            let (a, b) = (hits[0].0 as usize, hits[0].1 as usize);
            let (agreeing, map) = consensus(&closest(hits, places[a], places[b]))?;
            let likeness = looks[a].likeness(&looks[b], |at| map.apply(at));
            let asked = LIKENESS - BY_PLACE * (agreeing - AGREEING) as f32;
            (likeness >= asked).then_some(Pair {
                images: (a, b),
                places: agreeing,
                likeness,
            })
        })
        .collect()
}

/// Places of different images that look alike, sorted.
fn hits(places: &[&[Place]]) -> Vec<Hit> {
    let all = places.iter().map(|places| places.len()).sum();
    let mut hits = Vec::new();
    for stride in STRIDES {
        for start in (0..BITS).step_by(SHARED) {
            let keys = |image: u32| {
                let places = (0..).zip(places[image as usize]);
                places.map(move |(nth, place)| (pick(place.hash, start, stride), image, nth))
            };
            let mut order: Vec<Key> = Vec::with_capacity(all);
            order.extend((0..places.len() as u32).flat_map(keys));
            order.par_sort_unstable();
            for batch in (0..order.len()).step_by(BATCH) {
                let firsts = (batch..order.len().min(batch + BATCH)).into_par_iter();
                let chunks = firsts.step_by(CHUNK).map(|first| &order[first..]);
                hits.par_extend(chunks.flat_map_iter(|order| neighbours(places, order)));
                if hits.len() > MOST {
                    settle(&mut hits, MOST / 2);
                }
            }
        }
    }
    settle(&mut hits, MOST);
    hits
}

/// Some bits of a hash.
fn pick(hash: u128, start: usize, stride: usize) -> u32 {
    let bits = (start..start + 32).map(|nth| hash >> (nth * stride % BITS) & 1);
    bits.fold(0, |key, bit| key << 1 | bit as u32)
}

/// Places of the order's first chunk with those after them that look alike.
fn neighbours(places: &[&[Place]], order: &[Key]) -> Vec<Hit> {
    let order = &order[..order.len().min(CHUNK + WINDOW)];
    let hash = |&(_, image, nth): &Key| places[image as usize][nth as usize].hash;
    let hashes: Vec<u128> = order.iter().map(hash).collect();
    let mut hits = Vec::new();
    for (at, one) in order.iter().enumerate().take(CHUNK) {
        let alike = (at + 1..order.len())
            .take(WINDOW)
            .take_while(|&other| (order[other].0 ^ one.0) >> (32 - SHARED) == 0)
            .filter(|&other| differing(hashes[at], hashes[other]) <= ALIKE)
            .map(|other| &order[other])
            .filter(|other| other.1 != one.1)
            .take(PARTNERS);
        hits.extend(alike.map(|other| {
            let (a, b) = if one.1 < other.1 {
                (one, other)
            } else {
                (other, one)
            };
            (a.1, b.1, a.2, b.2)
        }));
    }
    hits
}

fn differing(a: u128, b: u128) -> u32 {
    (a ^ b).count_ones()
}

fn same_images(a: &Hit, b: &Hit) -> bool {
    (a.0, a.1) == (b.0, b.1)
}

/// Sorts, and counts what was found again once. Of more than `most`, pairs of images with the fewest are
/// forgotten, as in lossy counting (G. S. Manku and R. Motwani, "Approximate frequency counts over data
/// streams", VLDB 2002).
fn settle(hits: &mut Vec<Hit>, most: usize) {
    hits.par_sort_unstable();
    hits.dedup();
    for few in 1.. {
        if hits.len() <= most {
            break;
        }
        let (mut kept, mut start) = (0, 0);
        while start < hits.len() {
            let same = hits[start..].chunk_by(same_images).next();
            let end = start + same.map_or(1, <[Hit]>::len);
            if end - start > few {
                hits.copy_within(start..end, kept);
                kept += end - start;
            }
            start = end;
        }
        hits.truncate(kept);
    }
}

/// The most alike of two images' places that look alike.
fn closest(hits: &[Hit], a: &[Place], b: &[Place]) -> Vec<Match> {
    let places = |hit: &Hit| Match(a[hit.2 as usize], b[hit.3 as usize]);
    let mut matches: Vec<Match> = hits.iter().map(places).collect();
    matches.sort_by_key(|of| differing(of.0.hash, of.1.hash));
    matches.truncate(MATCHES);
    matches
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
    fn repeated_textures_are_matched_within_bounds() {
        let weave = |shift: u32| {
            RgbImage::from_fn(96, 96, |x, y| {
                let wave = |at: u32| (at as f32 * TAU / 8.0).sin();
                Rgb([(127.0 + 60.0 * (wave(x + shift) + wave(y))) as u8; 3])
            })
        };
        let looks = [look(&weave(0)), look(&weave(3))];
        let places: Vec<&[Place]> = looks.iter().map(|look| &look.places[..]).collect();
        let all = places[0].len() + places[1].len();
        let hits = hits(&places);
        assert!(hits.len() > MATCHES, "{} of {all} places", hits.len());
        let orders = STRIDES.len() * BITS / SHARED;
        assert!(hits.len() <= orders * all * PARTNERS);
        assert_eq!(closest(&hits, places[0], places[1]).len(), MATCHES);
        assert!(pairs(&looks).len() <= 1);
    }

    #[test]
    fn pairs_of_images_with_fewest_hits_are_forgotten() {
        let hit = |b, place| (0, b, place, 0);
        let mut hits = vec![
            hit(7, 3),
            hit(5, 1),
            hit(7, 1),
            hit(5, 1),
            hit(9, 4),
            hit(7, 2),
        ];
        hits.push((1, 3, 0, 0));
        settle(&mut hits, 4);
        assert_eq!(hits, [hit(7, 1), hit(7, 2), hit(7, 3)]);
    }

    /// Looks of `images` images, and which pairs of them share more than half of their places. Every
    /// fifth image looks on the scene of the one before, shifted, turned and zoomed; every second place
    /// looks nearly like one of a hundred that are everywhere.
    fn many_scenes(images: usize, places: usize) -> (Vec<Look>, Vec<(usize, usize)>) {
        let mut rng = StdRng::seed_from_u64(4);
        let common: Vec<u128> = (0..100).map(|_| rng.random()).collect();
        let mut looks: Vec<Look> = Vec::new();
        let mut truth = Vec::new();
        let blurred = |hash: u128, bits: usize, rng: &mut StdRng| {
            (0..bits).fold(hash, |hash, _| hash ^ 1 << rng.random_range(0..BITS))
        };
        for image in 0..images {
            let mut own: Vec<Place> = (0..places)
                .map(|nth| Place {
                    hash: match nth % 2 {
                        0 => rng.random(),
                        _ => {
                            let hash = common[rng.random_range(0..common.len())];
                            blurred(hash, 20, &mut rng)
                        }
                    },
                    at: [0; 2].map(|_| rng.random_range(0.0..512.0)),
                    size: rng.random_range(2.0..20.0),
                    angle: rng.random_range(0.0..TAU),
                })
                .collect();
            if image % 5 == 4 {
                let turn = rng.random_range(0.0..TAU);
                let zoom = rng.random_range(0.7..1.4);
                let map = Similarity {
                    z: [zoom * turn.cos(), zoom * turn.sin()],
                    t: [0; 2].map(|_| rng.random_range(-200.0..200.0)),
                };
                let shared = places * 3 / 5;
                for (mine, seen) in own.iter_mut().zip(&looks[image - 1].places[..shared]) {
                    *mine = Place {
                        hash: blurred(seen.hash, 12, &mut rng),
                        at: map
                            .apply(seen.at)
                            .map(|at| at + rng.random_range(-1.0..1.0)),
                        size: seen.size * zoom,
                        angle: seen.angle + turn,
                    };
                }
                truth.push((image - 1, image));
            }
            looks.push(Look::of(own));
        }
        (looks, truth)
    }

    #[test]
    fn shared_scenes_are_found_among_thousands() {
        let (looks, truth) = many_scenes(3000, 60);
        let found: Vec<_> = pairs(&looks).iter().map(|pair| pair.images).collect();
        assert!(found.iter().all(|pair| truth.contains(pair)), "{found:?}");
        assert!(
            found.len() * 100 >= truth.len() * 99,
            "{} of {}",
            found.len(),
            truth.len()
        );
    }

    /// `cargo test --release --features train --bin train at_scale -- --ignored --nocapture`
    #[test]
    #[ignore = "measures memory at 20,000 images: takes minutes"]
    fn shared_scenes_are_found_at_scale() {
        let (looks, truth) = many_scenes(20_000, 150);
        let found: Vec<_> = pairs(&looks).iter().map(|pair| pair.images).collect();
        assert_eq!(found, truth);
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
        let peak = status.lines().find(|line| line.starts_with("VmHWM"));
        println!("{} places, peak memory {peak:?}", 20_000 * 150);
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

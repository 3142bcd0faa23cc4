//! Judging frames: 768 x 768 pixels at about 1.5 m per pixel, as the challenge's images are, most of
//! them without ships, composed from the images of one split.
//!
//! What is simulated, and what is put together from several images, says so by its kind.

mod quilt;
mod subject;
mod write;

pub(crate) use write::{Args, run};

use std::cmp::Reverse;
use std::collections::BTreeMap;

use anyhow::Result;
use image::{GrayImage, RgbImage};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;
use shipwatch::mask::{Mask, Rle};

use crate::config::Judge;
use crate::data::scene::weather;
use crate::data::{Pool, PoolImage, Source, Split};
use crate::stop::Stop;
use quilt::{byte, mirrored, patchwork, shade, slow_field, smooth, water};
use subject::{Piece, Subject};

/// Side of a frame in pixels.
pub(crate) const SIDE: u32 = 768;

/// Images of one data folder that frames are made of, at most.
const MOST: usize = 300;

/// Pixels over which pieces fade into one another.
const FADE: u32 = 14;

/// Most that two waters differ in colour to be one water in a frame, in levels.
const ALIKE: f32 = 14.0;

/// Fewest pixels of a ship in a frame: the rest of one that is cut off counts as none.
const FEWEST: u64 = 8;

/// One frame with its truth.
pub(crate) struct JudgingFrame {
    /// File name.
    pub(crate) id: String,
    /// What it shows, and what of that is simulated or composed.
    pub(crate) kind: &'static str,
    /// The images that it is made of, as `source/id`: first the one that gives its water, shore or port,
    /// or most pieces of its land. None where all is simulated.
    pub(crate) images: Vec<String>,
    /// Whether all ships of those images are labelled: else it may show more than `ships`.
    pub(crate) complete: bool,
    pub(crate) pixels: RgbImage,
    /// No pixel belongs to two of them.
    pub(crate) ships: Vec<Rle>,
}

/// What is put together for a frame.
struct Composition<'a> {
    pixels: RgbImage,
    /// Each ship as 255 on a map of the frame.
    ships: Vec<GrayImage>,
    /// What it is made of, as in [`JudgingFrame::images`]; some may come again.
    subjects: Vec<&'a Subject>,
}

/// Builds the frames of one split.
pub(crate) struct FrameBuilder {
    split: Split,
    seed: u64,
    /// What each frame is to show.
    kinds: Vec<Kind>,
    /// Ships on open water.
    open: Vec<Subject>,
    /// Ships among piers, quays and shores.
    port: Vec<Subject>,
    /// Images without ships.
    land: Vec<Subject>,
}

/// What a frame shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ships,
    ShipsHaze,
    ShipsThinCloud,
    ShipsGlint,
    ShipsWhitecaps,
    ShipsInPort,
    Water,
    Sea,
    Clouds,
    CloudsOverSea,
    Glint,
    Whitecaps,
    Land,
    Port,
    Coast,
}

impl Kind {
    /// Kinds with ships, and how often each comes.
    const SHIPS: [(Self, u32); 6] = [
        (Self::Ships, 10),
        (Self::ShipsHaze, 2),
        (Self::ShipsThinCloud, 1),
        (Self::ShipsGlint, 1),
        (Self::ShipsWhitecaps, 1),
        (Self::ShipsInPort, 5),
    ];

    /// Kinds without ships.
    const EMPTY: [(Self, u32); 9] = [
        (Self::Water, 6),
        (Self::Sea, 2),
        (Self::Clouds, 3),
        (Self::CloudsOverSea, 1),
        (Self::Glint, 2),
        (Self::Whitecaps, 3),
        (Self::Land, 4),
        (Self::Port, 3),
        (Self::Coast, 3),
    ];

    fn shows_ships(self) -> bool {
        Self::SHIPS.iter().any(|&(kind, _)| kind == self)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ships => "ships at sea",
            Self::ShipsHaze => "ships, simulated haze",
            Self::ShipsThinCloud => "ships, simulated thin cloud",
            Self::ShipsGlint => "ships, simulated glint",
            Self::ShipsWhitecaps => "ships, simulated whitecaps",
            Self::ShipsInPort => "ships in port, mirrored",
            Self::Water => "water",
            Self::Sea => "simulated sea",
            Self::Clouds => "water, simulated cloud",
            Self::CloudsOverSea => "simulated sea and cloud",
            Self::Glint => "water, simulated glint",
            Self::Whitecaps => "water, simulated whitecaps",
            Self::Land => "land, composed",
            Self::Port => "port without ships, mirrored",
            Self::Coast => "coast, composed",
        }
    }
}

impl FrameBuilder {
    /// Looks at the images of `split` in the folders that have a `frame-scale`.
    ///
    /// # Errors
    /// If masks do not lie on their image, or the user asks to stop.
    pub(crate) fn new(pool: &Pool, split: Split, judge: Judge, stop: &Stop) -> Result<Self> {
        let mut rng = StdRng::seed_from_u64(judge.seed);
        let mut chosen: Vec<(&Source, &PoolImage, [f64; 2])> = Vec::new();
        for source in &pool.sources {
            let Some(scale) = source.config.frame_scale else {
                continue;
            };
            let mut images: Vec<&PoolImage> = source.of(split).collect();
            images.shuffle(&mut rng);
            images.truncate(MOST);
            chosen.extend(images.into_iter().map(|image| (source, image, scale)));
        }
        let look = |&(source, image, scale): &(&Source, &PoolImage, [f64; 2])| {
            stop.check()?;
            let name = format!("{}/{}", source.config.name, image.labelled.id);
            let ships = image.labelled.ships.clone();
            pool.with_pixels(image, |pixels| {
                let subject = Subject::new(name, pixels.clone(), ships, scale);
                match source.config.complete {
                    true => subject,
                    false => subject.incomplete(),
                }
            })
        };
        let subjects: Vec<Option<Subject>> = chosen.par_iter().map(look).collect::<Result<_>>()?;
        let (ships, land): (Vec<Subject>, Vec<Subject>) =
            subjects.into_iter().flatten().partition(Subject::has_ships);
        let (open, port) = ships.into_iter().partition(Subject::is_open);
        let mut builder = Self {
            split,
            kinds: Vec::new(),
            seed: judge.seed,
            open,
            port,
            land,
        };
        builder.kinds = builder.plan(&judge);
        Ok(builder)
    }

    /// How many frames there are: none where no image can go into one.
    pub(crate) fn count(&self) -> usize {
        self.kinds.len()
    }

    /// The name of a frame.
    pub(crate) fn id(&self, index: usize) -> String {
        format!("{}-{index:04}.png", self.split)
    }

    /// One frame; the same for the same images, seed and index.
    pub(crate) fn frame(&self, index: usize) -> JudgingFrame {
        let key = self
            .seed
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(index as u64);
        let mut rng = StdRng::seed_from_u64(key << 2 | self.split as u64);
        // What cannot be had of these images gives way to what is near it; sea can always be made up.
        let planned = self.kinds[index];
        let instead: &[Kind] = match planned.shows_ships() {
            true => &[
                planned,
                planned,
                planned,
                Kind::ShipsInPort,
                Kind::Ships,
                Kind::Sea,
            ],
            false => &[planned, planned, planned, Kind::Sea],
        };
        // Frames of a kind go through the images in turn, so that each counts about as much.
        let before = self.kinds[..index].iter().filter(|kind| **kind == planned);
        let turn = before.count() + 7 * planned as usize;
        let composed = instead.iter().enumerate().find_map(|(attempt, &kind)| {
            let composed = self.compose(kind, turn + attempt, &mut rng)?;
            let ships = truths(&composed.ships);
            (ships.is_empty() != kind.shows_ships()).then_some((kind, composed, ships))
        });
        let (kind, composed, ships) = composed.expect("sea needs no image");
        let complete = composed
            .subjects
            .iter()
            .all(|subject| subject.is_complete());
        let mut images: Vec<String> = Vec::new();
        for subject in composed.subjects {
            if !images.iter().any(|image| image == subject.name()) {
                images.push(subject.name().to_owned());
            }
        }
        JudgingFrame {
            id: self.id(index),
            kind: kind.name(),
            images,
            complete,
            pixels: composed.pixels,
            ships,
        }
    }

    /// Kinds in their shares, mixed.
    fn plan(&self, judge: &Judge) -> Vec<Kind> {
        let ships = !(self.open.is_empty() && self.port.is_empty());
        if !ships && self.land.is_empty() {
            return Vec::new();
        }
        let empty = match ships {
            true => (judge.frames as f64 * judge.empty_share).round() as usize,
            false => judge.frames,
        };
        let can = |kind: Kind| match kind {
            Kind::Sea | Kind::CloudsOverSea => true,
            Kind::Land | Kind::Coast => !self.land.is_empty(),
            Kind::Port | Kind::ShipsInPort => !self.port.is_empty(),
            _ => !self.open.is_empty(),
        };
        let mut kinds = in_shares(&Kind::EMPTY, empty, can);
        kinds.extend(in_shares(&Kind::SHIPS, judge.frames - empty, can));
        kinds.shuffle(&mut StdRng::seed_from_u64(judge.seed));
        kinds
    }

    fn compose(&self, kind: Kind, turn: usize, rng: &mut StdRng) -> Option<Composition<'_>> {
        let empty = |(pixels, subjects)| Composition {
            pixels,
            ships: Vec::new(),
            subjects,
        };
        let mut composed = match kind {
            Kind::Land => empty(self.land(self.land.choose(rng)?.draw_scale(rng), rng)?),
            Kind::Port => empty(self.port(turn, rng)?),
            Kind::Coast => empty(self.coast(turn, rng)?),
            Kind::ShipsInPort => self.ships_in_port(turn, rng)?,
            Kind::Sea | Kind::CloudsOverSea => empty((weather::sea(SIDE, SIDE, rng), Vec::new())),
            kind if kind.shows_ships() => self.ships(turn, rng)?,
            _ => {
                let (pixels, subject, _) = self.water(turn, rng)?;
                empty((pixels, vec![subject]))
            }
        };
        let image = &mut composed.pixels;
        match kind {
            Kind::ShipsHaze => weather::haze(image, rng),
            Kind::ShipsThinCloud => weather::thin_clouds(image, rng),
            Kind::ShipsGlint | Kind::Glint => weather::glint(image, rng),
            Kind::ShipsWhitecaps | Kind::Whitecaps => weather::whitecaps(image, rng),
            Kind::Clouds | Kind::CloudsOverSea => weather::clouds(image, rng),
            _ => shade(image, rng),
        }
        Some(composed)
    }

    /// Water of an image, with the image and its scale.
    fn water(&self, turn: usize, rng: &mut StdRng) -> Option<(RgbImage, &Subject, f64)> {
        let subject = of_turn(&self.open, turn)?;
        let scale = subject.draw_scale(rng);
        Some((water(subject, SIDE, scale, rng)?, subject, scale))
    }

    /// One image or a few on water like their own.
    fn ships(&self, turn: usize, rng: &mut StdRng) -> Option<Composition<'_>> {
        let (mut image, subject, scale) = self.water(turn, rng)?;
        let mut subjects = vec![subject];
        let mut ships = Vec::new();
        let mut taken = Vec::new();
        let images = match rng.random_range(0..10) {
            0..5 => 1,
            5..8 => 2,
            _ => rng.random_range(3..6),
        };
        for nth in 0..images {
            let subject = match nth {
                0 => subject,
                _ => match self.alike(subject, rng) {
                    Some(other) => other,
                    None => continue,
                },
            };
            let Some(area) = subject.uncut() else {
                continue;
            };
            let piece = subject.piece(&area, scale);
            let Some(at) = free_place(&piece, &mut taken, rng) else {
                continue;
            };
            ships.extend(paste(&mut image, &piece, at, subject.colour(), Fade::All));
            subjects.push(subject);
        }
        Some(Composition {
            pixels: image,
            ships,
            subjects,
        })
    }

    /// Of some random images the one whose water is most like that of `subject`.
    fn alike(&self, subject: &Subject, rng: &mut StdRng) -> Option<&Subject> {
        let off = |other: &&Subject| {
            let pairs = other.colour().into_iter().zip(subject.colour());
            pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        let some: Vec<&Subject> = (0..16).filter_map(|_| self.open.choose(rng)).collect();
        let nearest = some.into_iter().min_by(|a, b| off(a).total_cmp(&off(b)));
        nearest.filter(|other| off(other) < ALIKE)
    }

    /// A shore or quay with ships along one side of the frame, gone on with by its mirror images, and
    /// open water before it; mirror images all over where it has no side of water.
    fn ships_in_port(&self, turn: usize, rng: &mut StdRng) -> Option<Composition<'_>> {
        let subject = of_turn(&self.port, turn)?;
        let area = subject.uncut()?;
        let scale = subject.draw_scale(rng);
        let piece = subject.piece(&area, scale);
        let calm: Vec<usize> = (0..4)
            .filter(|&side| subject.calm_sides(&area)[side])
            .collect();
        let quilt = |rng: &mut StdRng| water(subject, SIDE, scale, rng);
        let framed = match calm
            .choose(rng)
            .copied()
            .and_then(|side| Some((side, quilt(rng)?)))
        {
            Some((side, mut image)) => {
                // Its water to the right.
                let piece = piece.turned((6 - side) % 4);
                let (width, height) = piece.pixels.dimensions();
                // A shore that is longer than the frame fades nowhere but towards the water.
                let long = 2 * (SIDE / height + 1) * height;
                let strip = mirrored(
                    &piece,
                    (0, rng.random_range(0..height)),
                    width,
                    SIDE.min(long),
                );
                let shown = SIDE.min(width);
                let at = (i64::from(shown) - i64::from(width), 0);
                let ships = paste(&mut image, &strip, at, subject.colour(), Fade::Right);
                Piece {
                    pixels: image,
                    ships,
                }
            }
            None => {
                let (width, height) = piece.pixels.dimensions();
                let shift = (rng.random_range(0..width), rng.random_range(0..height));
                mirrored(&piece, shift, SIDE, SIDE)
            }
        };
        let framed = framed.turned(rng.random_range(0..4));
        Some(Composition {
            pixels: framed.pixels,
            ships: framed.ships,
            subjects: vec![subject],
        })
    }

    /// Piers, quays and shores between ships, gone on with by their mirror images.
    fn port(&self, turn: usize, rng: &mut StdRng) -> Option<(RgbImage, Vec<&Subject>)> {
        (turn..turn + 60).find_map(|turn| {
            let subject = of_turn(&self.port, turn)?;
            let side = *[600, 480, 360, 280].choose(rng)?;
            let area = subject.shipless(side, rng)?;
            let piece = subject.piece(&area, subject.draw_scale(rng));
            let (width, height) = piece.pixels.dimensions();
            let shift = (rng.random_range(0..width), rng.random_range(0..height));
            let pixels = || mirrored(&piece, shift, SIDE, SIDE).pixels;
            (subject.busy_share(&area) > 0.4).then(|| (pixels(), vec![subject]))
        })
    }

    /// Pieces of land side by side.
    fn land(&self, scale: f64, rng: &mut StdRng) -> Option<(RgbImage, Vec<&Subject>)> {
        self.land.first()?;
        let mut subjects = Vec::new();
        let next = || {
            let subject = self.land.choose(rng).expect("one is there");
            subjects.push(subject);
            subject.piece(&subject.whole(), scale).pixels
        };
        let pixels = patchwork(SIDE, FADE, next);
        let mut pieces: BTreeMap<&str, usize> = BTreeMap::new();
        for subject in &subjects {
            *pieces.entry(subject.name()).or_default() += 1;
        }
        subjects.sort_by_key(|subject| Reverse(pieces[subject.name()]));
        Some((pixels, subjects))
    }

    /// Land and water along a winding line, with a strip of sand.
    fn coast(&self, turn: usize, rng: &mut StdRng) -> Option<(RgbImage, Vec<&Subject>)> {
        let (mut image, water, scale) = self.water(turn, rng)?;
        let (land, inland) = self.land(scale, rng)?;
        let winding = slow_field(SIDE, rng.random_range(3..9), rng);
        let (sin, cos) = rng.random_range(0.0..std::f32::consts::TAU).sin_cos();
        let level = rng.random_range(-0.4..0.4f32);
        let sand = rng.random_range(0.01..0.04f32);
        let light = rng.random_range(0.6..1.1f32);
        let tint = [200.0, 188.0, 160.0].map(|level: f32| level * light);
        let half = SIDE as f32 / 2.0;
        for (x, y, pixel) in image.enumerate_pixels_mut() {
            let along = (x as f32 - half) / half * cos + (y as f32 - half) / half * sin;
            let field = f32::from(winding.get_pixel(x, y).0[0]) / 127.5 - 1.0;
            let height = along + 0.5 * field - level;
            let ashore = smooth(height / 0.012 + 0.5);
            let inland = smooth((height - sand) / 0.02 + 0.5);
            let land = land.get_pixel(x, y);
            for ((value, &land), sand) in pixel.0.iter_mut().zip(&land.0).zip(tint) {
                let ground = f32::from(land) * inland + sand * (1.0 - inland);
                *value = byte(f32::from(*value) * (1.0 - ashore) + ground * ashore);
            }
        }
        Some((image, [vec![water], inland].concat()))
    }
}

/// The one whose turn it is.
fn of_turn(subjects: &[Subject], turn: usize) -> Option<&Subject> {
    subjects.get(turn % subjects.len().max(1))
}

/// A place for a piece that meets none of those `taken`, and may reach out of the frame a little.
fn free_place(piece: &Piece, taken: &mut Vec<[i64; 4]>, rng: &mut StdRng) -> Option<(i64, i64)> {
    let (width, height) = (
        i64::from(piece.pixels.width()),
        i64::from(piece.pixels.height()),
    );
    let side = i64::from(SIDE);
    for _ in 0..20 {
        let x = rng.random_range(-width / 4..=(side - 3 * width / 4).max(0));
        let y = rng.random_range(-height / 4..=(side - 3 * height / 4).max(0));
        let place = [x, y, x + width, y + height];
        let meets =
            |b: &[i64; 4]| place[0] < b[2] && b[0] < place[2] && place[1] < b[3] && b[1] < place[3];
        if !taken.iter().any(meets) {
            taken.push(place);
            return Some((x, y));
        }
    }
    None
}

/// Which borders of a piece fade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fade {
    All,
    Right,
}

/// Lays a piece on the water, its own water's colour made that of the frame's, and fades its border.
/// Gives its ships on maps of the frame.
fn paste(
    image: &mut RgbImage,
    piece: &Piece,
    at: (i64, i64),
    own: [f32; 3],
    fade: Fade,
) -> Vec<GrayImage> {
    let place = |x: u32, y: u32| {
        let (x, y) = (at.0 + i64::from(x), at.1 + i64::from(y));
        let inside = |at: i64| (0..i64::from(SIDE)).contains(&at);
        (inside(x) && inside(y)).then_some((x as u32, y as u32))
    };
    let (width, height) = piece.pixels.dimensions();
    let n = (SIDE * SIDE) as f32;
    let ground: [f32; 3] =
        std::array::from_fn(|c| image.pixels().map(|p| f32::from(p.0[c])).sum::<f32>() / n);
    for (x, y, pixel) in piece.pixels.enumerate_pixels() {
        let Some((fx, fy)) = place(x, y) else {
            continue;
        };
        let right = width - 1 - x;
        let edge = match fade {
            Fade::All => x.min(y).min(right).min(height - 1 - y),
            Fade::Right => right,
        };
        let share = smooth((edge as f32 + 0.5) / (2 * FADE) as f32);
        // Differences from the mean add up by their squares, so that the border is as rough as both.
        let strength = (share * share + (1.0 - share) * (1.0 - share)).sqrt();
        let below = image.get_pixel_mut(fx, fy);
        for c in 0..3 {
            let (new, old) = (
                f32::from(pixel.0[c]) - own[c],
                f32::from(below.0[c]) - ground[c],
            );
            below.0[c] = byte(ground[c] + (share * new + (1.0 - share) * old) / strength);
        }
    }
    let ships = piece.ships.iter().map(|ship| {
        let mut map = GrayImage::new(SIDE, SIDE);
        for (x, y, value) in ship
            .enumerate_pixels()
            .filter(|(_, _, value)| value.0[0] > 0)
        {
            if let Some((fx, fy)) = place(x, y) {
                map.put_pixel(fx, fy, *value);
            }
        }
        map
    });
    ships.collect()
}

/// Run lengths of ships that are large enough; a pixel that two claim goes to the first.
fn truths(ships: &[GrayImage]) -> Vec<Rle> {
    let mut taken = Mask::new(SIDE, SIDE);
    let mut truths = Vec::new();
    for ship in ships {
        let mut mask = Mask::new(SIDE, SIDE);
        for (x, y, _) in ship
            .enumerate_pixels()
            .filter(|(_, _, value)| value.0[0] > 0)
        {
            if !taken.get(x, y) {
                mask.set(x, y, true);
                taken.set(x, y, true);
            }
        }
        if mask.area() >= FEWEST {
            truths.push(mask.to_rle());
        }
    }
    truths
}

/// `count` kinds of those that can be had, in the given shares as nearly as whole numbers allow.
fn in_shares(shares: &[(Kind, u32)], count: usize, can: impl Fn(Kind) -> bool) -> Vec<Kind> {
    let shares: Vec<(Kind, u32)> = shares
        .iter()
        .copied()
        .filter(|&(kind, _)| can(kind))
        .collect();
    let total: u32 = shares.iter().map(|share| share.1).sum();
    let mut passed = 0;
    let mut kinds = Vec::new();
    for (kind, share) in shares {
        passed += share;
        let end = (count as f64 * f64::from(passed) / f64::from(total)).round() as usize;
        kinds.resize(end, kind);
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_come_in_their_shares() {
        let kinds = in_shares(&Kind::EMPTY, 54, |kind| kind != Kind::Port);
        assert_eq!(kinds.len(), 54);
        let count = |kind| kinds.iter().filter(|k| **k == kind).count() as f64;
        // 24 shares without the port's.
        assert_eq!(count(Kind::Port), 0.0);
        assert!((count(Kind::Water) - 54.0 * 6.0 / 24.0).abs() <= 1.0);
        assert!((count(Kind::Sea) - 54.0 * 2.0 / 24.0).abs() <= 1.0);
        assert_eq!(in_shares(&Kind::EMPTY, 5, |_| false), []);
    }

    #[test]
    fn a_pixel_that_two_ships_claim_goes_to_the_first_and_scraps_are_no_ships() {
        let map = |columns: std::ops::Range<u32>| {
            GrayImage::from_fn(SIDE, SIDE, |x, y| {
                image::Luma([if columns.contains(&x) && y < 4 {
                    255
                } else {
                    0
                }])
            })
        };
        let found = truths(&[map(10..14), map(12..16), map(700..701)]);
        let areas: Vec<u64> = found.iter().map(Rle::area).collect();
        assert_eq!(areas, [16, 8]);
        assert_eq!(shipwatch::metrics::overlap(&found[0], &found[1]), 0);
    }

    #[test]
    fn a_pasted_ship_is_where_its_map_says_even_over_the_border() {
        let mut piece = Piece {
            pixels: RgbImage::from_pixel(120, 120, image::Rgb([60; 3])),
            ships: vec![GrayImage::new(120, 120)],
        };
        for (x, y) in (50..70).flat_map(|x| (40..90).map(move |y| (x, y))) {
            piece.pixels.put_pixel(x, y, image::Rgb([250; 3]));
            piece.ships[0].put_pixel(x, y, image::Luma([255]));
        }
        for at in [(300, 400), (-60, 10), (700, 690)] {
            let mut image = RgbImage::from_pixel(SIDE, SIDE, image::Rgb([90; 3]));
            let ships = paste(&mut image, &piece, at, [60.0; 3], Fade::All);
            for (pixel, ship) in image.pixels().zip(ships[0].pixels()) {
                assert_eq!(pixel.0[0] > 200, ship.0[0] == 255, "at {at:?}");
            }
            // The piece's water took the frame's colour.
            assert!(
                image
                    .pixels()
                    .all(|p| p.0[0] > 200 || (85..=95).contains(&p.0[0]))
            );
        }
    }
}

//! The edge's chain on one case, with all that the networks said kept for judging.

use std::rc::Rc;

use anyhow::Result;
use image::RgbImage;
use shipwatch::detect::{Detector, Maps};
use shipwatch::frame::resample_rgb;
use shipwatch::mask::Rle;
use shipwatch::model::Thresholds;
use shipwatch::tile::TilePlan;

use crate::data::Tile;

/// One image as it is judged.
pub(crate) struct Case<'a> {
    /// Name of the image.
    pub(crate) id: &'a str,
    /// What it is reported under: `source of split @ scale`, or `frames of split`.
    pub(crate) set: String,
    /// What a judging frame shows.
    pub(crate) kind: Option<&'static str>,
    /// The image that it shows, or the first of those that it is made of: what it has in common with
    /// others.
    pub(crate) cluster: &'a str,
    /// Whether all ships that it shows are labelled.
    pub(crate) complete: bool,
    pub(crate) pixels: &'a RgbImage,
    pub(crate) ships: &'a [Rle],
    /// Factor to the networks' scale.
    pub(crate) scale: f64,
}

/// What the networks said of a case.
pub(crate) struct Seen {
    /// The gate's score of each tile.
    pub(crate) gate: Vec<f32>,
    /// The segmenter's word in the image's own grid; none where no tile was segmented.
    pub(crate) maps: Option<Maps>,
}

impl Case<'_> {
    /// Runs both networks, each tile through each once, as [`Detector::detect`] does.
    ///
    /// `gate` is the score at which a tile is segmented, `mask` the probability at which a ship makes
    /// its neighbours be segmented too.
    pub(crate) fn see(&self, detector: &Detector, gate: f32, mask: f32) -> Result<Rc<Seen>> {
        Ok(self.see_each(detector, gate, &[mask])?.swap_remove(0))
    }

    /// [`Case::see`] at each of some rising probabilities: what is segmented depends on them.
    ///
    /// # Panics
    /// If `masks` is empty.
    pub(crate) fn see_each(
        &self,
        detector: &Detector,
        gate: f32,
        masks: &[f32],
    ) -> Result<Vec<Rc<Seen>>> {
        let pixels = self.resampled();
        let scores = detector.gate_scores(&pixels)?;
        let passed: Vec<bool> = scores.iter().map(|&score| score >= gate).collect();
        let (width, height) = self.pixels.dimensions();
        let see = |mask: f32| -> Result<(usize, Rc<Seen>)> {
            let found = detector.segment(&pixels, &passed, mask)?;
            let maps = (found.segmented > 0).then(|| found.maps.resampled(width, height));
            let gate = scores.clone();
            Ok((found.segmented, Rc::new(Seen { gate, maps })))
        };
        // The higher the probability, the fewer tiles ships reach into; those that pass are segmented
        // anyhow. As many tiles are the same tiles.
        let first = see(masks[0])?;
        let highest = masks[masks.len() - 1];
        let fewest = match passed.iter().filter(|&&passed| passed).count() {
            count if count == first.0 => first.clone(),
            _ => see(highest)?,
        };
        let mut last = first.0;
        let mut each = vec![first.1];
        for &mask in &masks[1..] {
            let (count, seen) = match last == fewest.0 || mask == highest {
                true => fewest.clone(),
                false => see(mask)?,
            };
            last = count;
            each.push(seen);
        }
        Ok(each)
    }

    /// The gate's score of each tile.
    pub(crate) fn gate_scores(&self, detector: &Detector) -> Result<Vec<f32>> {
        Ok(detector.gate_scores(&self.resampled())?)
    }

    /// The pixels at the networks' scale.
    fn resampled(&self) -> RgbImage {
        let (width, height) = self.resampled_size();
        resample_rgb(self.pixels, width, height)
    }

    fn resampled_size(&self) -> (u32, u32) {
        let side = |length: u32| (f64::from(length) * self.scale).round().max(1.0) as u32;
        (side(self.pixels.width()), side(self.pixels.height()))
    }

    /// The gate's score of each tile that shows enough of a ship, or nothing of any.
    pub(crate) fn judged_tiles(&self, detector: &Detector, gate: &[f32]) -> Vec<(f32, bool)> {
        let (width, height) = self.resampled_size();
        let plan = detector.plan(width, height);
        let verdicts = verdicts(&plan, self.ships, self.pixels.height(), self.scale);
        let judged = gate.iter().zip(verdicts);
        judged
            .filter_map(|(&score, ship)| Some((score, ship?)))
            .collect()
    }
}

impl Seen {
    /// The ships that thresholds leave of an image at `scale`.
    pub(crate) fn ships(&self, thresholds: &Thresholds, scale: f64) -> Vec<Rle> {
        let Some(maps) = &self.maps else {
            return Vec::new();
        };
        let least = least_area(thresholds, scale);
        let height = maps.probabilities.height();
        maps.instances(thresholds.mask, thresholds.valley)
            .iter()
            .filter(|instance| instance.area() as f64 >= least)
            .map(|instance| instance.to_rle(height))
            .collect()
    }

    /// The image's gate score: that of its best tile.
    pub(crate) fn gate_score(&self) -> f32 {
        best(&self.gate)
    }
}

/// Fewest pixels that a ship has in the own grid of an image at `scale`.
pub(crate) fn least_area(thresholds: &Thresholds, scale: f64) -> f64 {
    f64::from(thresholds.min_area) / (scale * scale)
}

/// The highest of the tiles' scores.
pub(crate) fn best(gate: &[f32]) -> f32 {
    gate.iter().copied().fold(0.0, f32::max)
}

/// Whether each tile shows a ship: at least half of one, of a size that counts. None where a tile
/// shows a lesser part only, for a neighbour shows more.
fn verdicts(plan: &TilePlan, ships: &[Rle], height: u32, scale: f64) -> Vec<Option<bool>> {
    let mut verdicts = vec![Some(false); plan.count()];
    for ship in ships {
        let mut shown = vec![0; plan.count()];
        for (x, y) in ship.pixels(height) {
            let at = |place: u32| ((f64::from(place) + 0.5) * scale) as u32;
            for (index, shown) in shown.iter_mut().enumerate() {
                *shown += u64::from(plan.region(index).contains(at(x), at(y)));
            }
        }
        let counts = ship.area() as f64 * scale * scale >= Tile::MIN_SHIP_PIXELS as f64;
        for (verdict, shown) in verdicts.iter_mut().zip(shown) {
            if counts && 2 * shown >= ship.area() {
                *verdict = Some(true);
            } else if shown > 0 && *verdict == Some(false) {
                *verdict = None;
            }
        }
    }
    verdicts
}

#[cfg(test)]
impl<'a> Case<'a> {
    /// A plain image of which all ships are labelled.
    pub(super) fn of(pixels: &'a RgbImage, ships: &'a [Rle], scale: f64) -> Self {
        Self {
            id: "a",
            set: String::new(),
            kind: None,
            cluster: "a",
            complete: true,
            pixels,
            ships,
            scale,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use shipwatch::clock::MonotonicClock;
    use shipwatch::detect::{Options, TileNetworks};
    use shipwatch::frame::{Frame, Tags};
    use shipwatch::inference::InferenceError;
    use shipwatch::model::Manifest;

    use super::*;

    #[test]
    fn a_tile_shows_a_ship_when_it_shows_half_of_one() {
        // Tiles of 64 pixels over columns 0 to 63 and 36 to 99.
        let plan = TilePlan::new(100, 64, 64, 16);
        let ship = |columns: std::ops::Range<u32>, rows: u32| -> Rle {
            let runs = columns.map(|x| (u64::from(x) * 64 + 1, u64::from(rows)));
            Rle::new(runs).expect("increasing")
        };
        let judge = |ships: &[Rle]| verdicts(&plan, ships, 64, 1.0);
        assert_eq!(judge(&[]), [Some(false), Some(false)]);
        assert_eq!(judge(&[ship(40..60, 2)]), [Some(true), Some(true)]);
        assert_eq!(judge(&[ship(20..40, 2)]), [Some(true), None]);
        assert_eq!(judge(&[ship(20..30, 2)]), [Some(true), Some(false)]);
        // Too small to count, yet no proof of empty water.
        assert_eq!(judge(&[ship(20..23, 1)]), [None, Some(false)]);
        // Seen at half the scale, the second of two tiles begins at column 72 of the file.
        let plan = TilePlan::new(100, 32, 64, 16);
        assert_eq!(
            verdicts(&plan, &[ship(0..70, 2)], 64, 0.5),
            [Some(true), Some(false)]
        );
    }

    /// The gate fires on bright tiles, the segmenter on bright pixels.
    struct Bright;

    impl TileNetworks for Bright {
        fn gate(&self, tile: &RgbImage) -> Result<f32, InferenceError> {
            Ok(f32::from(tile.as_raw().iter().copied().max().unwrap_or(0)) / 255.0)
        }

        fn segment(&self, tile: &RgbImage) -> Result<Maps, InferenceError> {
            Ok(Maps {
                probabilities: image::imageops::grayscale(tile),
                centrality: None,
            })
        }
    }

    /// Detects bright ships of at least so many pixels.
    pub(in super::super) fn bright(min_area: u32) -> Detector {
        let manifest = Manifest::parse(&format!(
            r#"
            schema = 2
            name = "bright"
            version = "1"
            licence = "none"
            tile = 64
            overlap = 16
            normalisation = {{ mean = 0, std = 1 }}
            gsd = [1.0, 1.0]
            thresholds = {{ gate = 0.6, classify = 0.6, mask = 0.5, min_area = {min_area} }}
            gate = {{ file = "", sha256 = "" }}
            unet = {{ file = "", sha256 = "" }}
            training = []
            "#
        ));
        Detector::with_networks(manifest.expect("good"), Box::new(Bright))
    }

    #[test]
    fn each_probability_sees_what_the_edge_segments_at_it() {
        // A bright spot in the first of two tiles, from which a dim ship reaches into the second.
        let pixels = RgbImage::from_fn(112, 64, |x, y| {
            image::Rgb(
                [match (x, y) {
                    (5..15, 5..15) => 250,
                    (40..100, 30..36) => 110,
                    _ => 20,
                }; 3],
            )
        });
        let case = Case::of(&pixels, &[], 1.0);
        let masks = [0.3, 0.4, 0.5, 0.55, 0.6];
        let seen = case.see_each(&bright(6), 0.6, &masks).expect("runs");
        let map = |seen: &Seen| seen.maps.as_ref().expect("segmented").probabilities.clone();
        for (&mask, seen) in masks.iter().zip(&seen) {
            let alone = case.see(&bright(6), 0.6, mask).expect("runs");
            assert_eq!(map(&alone), map(seen), "{mask}");
            let reached = if mask < 0.43 { 110 } else { 0 };
            assert_eq!(map(seen).get_pixel(90, 32).0, [reached], "{mask}");
        }
        // Where nothing can differ any more, nothing runs.
        assert!(Rc::ptr_eq(&seen[3], &seen[4]));
        let calm = case.see_each(&bright(6), 0.6, &masks[2..]).expect("runs");
        assert!(calm.iter().all(|seen| Rc::ptr_eq(seen, &calm[0])));
    }

    #[test]
    fn the_chain_finds_what_the_edge_finds() {
        let detector = bright(6);
        let spots = [
            (10, 12, 7, 5, 250),
            (60, 50, 30, 9, 200),
            (120, 20, 2, 1, 255),
            (90, 100, 20, 20, 140),
        ];
        let pixels = RgbImage::from_fn(150, 130, |x, y| {
            let spot = spots
                .iter()
                .find(|s| (s.0..s.0 + s.2).contains(&x) && (s.1..s.1 + s.3).contains(&y));
            image::Rgb([spot.map_or(20, |s| s.4); 3])
        });
        for scale in [1.0, 0.7, 1.6] {
            let case = Case::of(&pixels, &[], scale);
            let thresholds = detector.manifest().thresholds;
            let seen = case
                .see(&detector, thresholds.gate, thresholds.mask)
                .expect("runs");
            let mut mine = seen.ships(&thresholds, scale);
            let frame = Frame {
                name: String::new(),
                pixels: pixels.clone(),
                tags: Tags::default(),
            };
            let options = Options {
                scale: Some(scale),
                ..Options::default()
            };
            let record = detector
                .detect(&frame, &options, &MonotonicClock::new())
                .expect("runs");
            let mut edge: Vec<Rle> = record.ships.into_iter().map(|ship| ship.rle).collect();
            assert!(edge.len() >= 2, "{edge:?}");
            let first = |rle: &Rle| rle.runs()[0];
            mine.sort_by_key(first);
            edge.sort_by_key(first);
            assert_eq!(mine, edge);
            assert_eq!(seen.gate_score(), record.gate.score);
        }
    }
}

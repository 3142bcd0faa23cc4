//! Tiles for training, each named by two numbers.

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::config::Augment;
use crate::data::Split;
use crate::data::augment::{look, middle};
use crate::data::pool::Pool;
use crate::data::scene::{Canvas, Images, composed, cropped, overcast};
use crate::data::tile::Tile;

/// Tries before a draw that must fulfil a condition takes what it has.
const TRIES: usize = 12;

/// Draws tiles from the images of one split.
pub(crate) struct Sampler<'a> {
    images: Images<'a>,
    split: Split,
    tile: u32,
    augment: Option<Augment>,
}

impl<'a> Sampler<'a> {
    /// Without `augment`, tiles are crops of the images as they are.
    ///
    /// # Errors
    /// If the split lacks images with ships.
    pub(crate) fn new(
        pool: &'a Pool,
        split: Split,
        tile: u32,
        augment: Option<Augment>,
    ) -> Result<Self> {
        Ok(Self {
            images: Images::new(pool, split)?,
            split,
            tile,
            augment,
        })
    }

    /// Images to draw from.
    pub(crate) fn images(&self) -> usize {
        self.images
            .all
            .iter()
            .map(|drawer| drawer.images.len())
            .sum()
    }

    /// A tile with a ship, or one without. `scene` alone decides what it shows, `look` how that is
    /// turned, lit and spoilt: a scene worth seeing again comes back by its number.
    pub(crate) fn draw(&self, ship: bool, scene: u64, look_at: u64) -> Result<Tile> {
        let rng = &mut StdRng::seed_from_u64(scene);
        let share = self.augment.map_or(0.0, |augment| match ship {
            true => augment.pasted,
            false => augment.made_up,
        });
        let composed = rng.random_bool(share);
        let mut canvas = self.scene(ship, composed, rng)?;
        for _ in 1..TRIES {
            if self.fits(&canvas, ship) {
                break;
            }
            canvas = self.scene(ship, composed, rng)?;
        }
        Ok(match &self.augment {
            Some(augment) => {
                let rng = &mut StdRng::seed_from_u64(look_at);
                look(&canvas, self.tile, augment, rng)
            }
            None => middle(&canvas, self.tile),
        })
    }

    /// How far from the centre a ship may lie that every tile of the scene is to show.
    fn reach(&self) -> f32 {
        self.tile as f32 / 2.0 - 1.0
    }

    fn scene(&self, ship: bool, compose: bool, rng: &mut StdRng) -> Result<Canvas> {
        let wanted = ship.then(|| self.reach());
        let Some(augment) = &self.augment else {
            return cropped(&self.images, self.tile, wanted, rng);
        };
        // Room for any turn.
        let side = (self.tile as f32 * std::f32::consts::SQRT_2).ceil() as u32 + 2;
        if compose {
            return composed(&self.images, augment, side, wanted, rng);
        }
        let mut canvas = cropped(&self.images, side, wanted, rng)?;
        if rng.random_bool(augment.weather / 2.0) {
            overcast(&mut canvas, rng);
        }
        Ok(canvas)
    }

    fn fits(&self, canvas: &Canvas, ship: bool) -> bool {
        if ship {
            canvas.ship_pixels_within(self.reach()) > Tile::MIN_SHIP_PIXELS
        } else {
            !canvas.has_ships()
        }
    }
}

impl std::fmt::Debug for Sampler<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} sampler over {} images", self.split, self.images())
    }
}

/// A small data set for tests.
#[cfg(test)]
pub(crate) mod fixtures {
    use std::fs;
    use std::path::Path;

    use image::RgbImage;
    use shipwatch::mask::Mask;

    use crate::config::DataRoot;
    use crate::data::Pool;

    /// Writes two images in which exactly the ships are white, one of them smaller than a tile of 64
    /// pixels, and opens them.
    pub(crate) fn pool(root: &Path) -> Pool {
        fs::create_dir(root.join("images")).expect("folder");
        let mut csv = "ImageId,EncodedPixels\n".to_owned();
        for (name, width, height, [x0, y0, w, h]) in [
            ("a.png", 150, 110, [20, 70, 30, 9]),
            ("b.png", 40, 50, [4, 5, 12, 7]),
        ] {
            let mut mask = Mask::new(width, height);
            for (x, y) in (x0..x0 + w).flat_map(|x| (y0..y0 + h).map(move |y| (x, y))) {
                mask.set(x, y, true);
            }
            let white = |x, y| image::Rgb([if mask.get(x, y) { 255 } else { 0 }; 3]);
            let image = RgbImage::from_fn(width, height, white);
            image.save(root.join("images").join(name)).expect("image");
            csv += &format!("{name},{}\n", mask.to_rle());
        }
        fs::write(root.join("ship_segmentations.csv"), csv).expect("csv");
        let config = DataRoot {
            name: "white ships".into(),
            root: root.to_owned(),
            licence: String::new(),
            attribution: String::new(),
            scale: [0.4, 1.5],
            eval_scales: vec![1.0],
            frame_scale: None,
            weight: 1.0,
            complete: true,
            tune: Vec::new(),
            test: Vec::new(),
            split: None,
            held_out: false,
        };
        Pool::open(&[config], 1).expect("opens")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_lie_on_their_ships_in_crops_and_mosaics() {
        let dir = tempfile::tempdir().expect("folder");
        let pool = fixtures::pool(dir.path());
        let sampler = Sampler::new(&pool, Split::Train, 64, None).expect("has ships");
        let (mut at_rims, mut ships) = (0, 0);
        for i in 0..200 {
            let tile = sampler.draw(i % 2 == 0, i, i).expect("draws");
            assert_eq!(tile.pixels.dimensions(), (64, 64));
            let wrong = tile
                .pixels
                .pixels()
                .zip(tile.mask.pixels())
                .filter(|(pixel, mask)| (pixel.0[0] >= 128) != (mask.0[0] > 0));
            // Where the rims of ships fade into other pieces, levels between may go either way.
            for (pixel, mask) in wrong.clone() {
                assert!((60..195).contains(&pixel.0[0]), "{pixel:?} {mask:?} {i}");
            }
            at_rims += wrong.count();
            ships += tile.ship_pixels();
        }
        assert!(at_rims * 20 < ships, "{at_rims} of {ships}");
    }

    #[test]
    fn gives_tiles_with_and_without_ships_as_asked() {
        let dir = tempfile::tempdir().expect("folder");
        let pool = fixtures::pool(dir.path());
        let augment = Some(Augment::default());
        let sampler = Sampler::new(&pool, Split::Train, 64, augment).expect("has ships");
        let drawn: Vec<bool> = (0..100)
            .map(|i| sampler.draw(i % 2 == 0, i, i).expect("draws").has_ship())
            .collect();
        let right = drawn
            .iter()
            .enumerate()
            .filter(|(i, ship)| (i % 2 == 0) == **ship)
            .count();
        assert!(right >= 98, "{right} of 100 as asked");
    }

    /// Nothing composed, nothing changed but what turning changes.
    const PLAIN: Augment = Augment {
        pasted: 0.0,
        made_up: 0.0,
        simulated_sea: 1.0,
        structures: 0.0,
        moored: 0.0,
        wakes: 0.0,
        weather: 0.0,
        rotation: 0.0,
        blur: 0.0,
        colour: 0.0,
        grey: 0.0,
        haze: 0.0,
        noise: 0.0,
        jpeg: 0.0,
    };

    #[test]
    fn masks_lie_on_their_ships_when_turned_by_any_angle() {
        let dir = tempfile::tempdir().expect("folder");
        let pool = fixtures::pool(dir.path());
        let augment = Augment {
            rotation: 1.0,
            ..PLAIN
        };
        let sampler = Sampler::new(&pool, Split::Train, 64, Some(augment)).expect("has ships");
        let (mut wrong, mut ships) = (0, 0);
        for i in 0..100 {
            let tile = sampler.draw(true, i, i).expect("draws");
            assert!(tile.has_ship());
            for (pixel, mask) in tile.pixels.pixels().zip(tile.mask.pixels()) {
                // Between black and white either may be right.
                let clear = !(60..195).contains(&pixel.0[0]);
                wrong += usize::from(clear && (pixel.0[0] >= 128) != (mask.0[0] > 0));
            }
            ships += tile.ship_pixels();
        }
        assert!(wrong * 200 < ships, "{wrong} of {ships}");
    }

    #[test]
    fn tiles_without_ships_show_none() {
        let dir = tempfile::tempdir().expect("folder");
        let pool = fixtures::pool(dir.path());
        let sampler = Sampler::new(&pool, Split::Train, 64, Some(PLAIN)).expect("has ships");
        for i in 0..60 {
            let tile = sampler.draw(false, i, i).expect("draws");
            assert_eq!(tile.ship_pixels(), 0);
            assert!(tile.pixels.iter().all(|&level| level == 0));
        }
        let made_up = Augment {
            made_up: 1.0,
            structures: 1.0,
            wakes: 1.0,
            weather: 1.0,
            ..Augment::default()
        };
        let sampler = Sampler::new(&pool, Split::Train, 64, Some(made_up)).expect("has ships");
        for i in 0..60 {
            assert_eq!(sampler.draw(false, i, i).expect("draws").ship_pixels(), 0);
        }
    }

    #[test]
    fn a_scene_comes_back_by_its_number_in_any_look() {
        let dir = tempfile::tempdir().expect("folder");
        let pool = fixtures::pool(dir.path());
        let everything = Sampler::new(&pool, Split::Train, 64, Some(Augment::default()));
        let everything = everything.expect("has ships");
        let turned_only = Augment {
            pasted: 1.0,
            made_up: 1.0,
            structures: 1.0,
            ..PLAIN
        };
        let turned_only = Sampler::new(&pool, Split::Train, 64, Some(turned_only));
        let turned_only = turned_only.expect("has ships");
        // Quarter turns and flips move pixels, but change none.
        let levels = |tile: &Tile| {
            let mut levels = tile.pixels.as_raw().clone();
            levels.sort_unstable();
            levels
        };
        for scene in 0..20 {
            let ship = scene % 2 == 0;
            let draw = |sampler: &Sampler, look| sampler.draw(ship, scene, look).expect("draws");
            let (first, again) = (draw(&everything, 7), draw(&everything, 7));
            assert_eq!(first.pixels, again.pixels);
            assert_eq!(first.mask, again.mask);
            assert_ne!(first.pixels, draw(&everything, 8).pixels);
            let (first, other) = (draw(&turned_only, 1), draw(&turned_only, 2));
            assert_eq!(levels(&first), levels(&other));
        }
    }

    /// The images are black and the simulated sea is not.
    #[test]
    fn as_many_tiles_are_composed_as_the_config_says() {
        let dir = tempfile::tempdir().expect("folder");
        let pool = fixtures::pool(dir.path());
        let augment = Augment {
            made_up: 0.3,
            ..PLAIN
        };
        let sampler = Sampler::new(&pool, Split::Train, 64, Some(augment)).expect("has ships");
        let composed = (0..300)
            .filter(|&i| {
                let tile = sampler.draw(false, i, i).expect("draws");
                tile.pixels.iter().any(|&level| level > 0)
            })
            .count();
        // Four standard deviations about 90.
        assert!((58..=122).contains(&composed), "{composed}");
    }

    #[test]
    fn ships_moored_side_by_side_have_numbers_of_their_own() {
        let dir = tempfile::tempdir().expect("folder");
        let pool = fixtures::pool(dir.path());
        let augment = Augment {
            pasted: 1.0,
            moored: 1.0,
            ..PLAIN
        };
        let sampler = Sampler::new(&pool, Split::Train, 128, Some(augment)).expect("has ships");
        let mut several = 0;
        for i in 0..30 {
            let tile = sampler.draw(true, i, i).expect("draws");
            let mut numbers: Vec<u8> = tile.mask.as_raw().clone();
            numbers.sort_unstable();
            numbers.dedup();
            several += usize::from(numbers.len() > 2);
        }
        assert!(several > 20, "{several} of 30 tiles with two ships or more");
    }

    /// The ends of what the config takes.
    #[test]
    fn tiles_come_at_any_scale() {
        let dir = tempfile::tempdir().expect("folder");
        let mut pool = fixtures::pool(dir.path());
        for scale in [[0.01, 0.01], [8.0, 8.0], [0.01, 8.0]] {
            pool.sources[0].config.scale = scale;
            let augment = Some(Augment::default());
            let sampler = Sampler::new(&pool, Split::Train, 32, augment).expect("has ships");
            for i in 0..2 {
                let tile = sampler.draw(i % 2 == 0, i, i).expect("draws");
                assert_eq!(tile.pixels.dimensions(), (32, 32), "{scale:?}");
            }
        }
    }

    #[test]
    fn a_split_without_ships_is_refused() {
        let dir = tempfile::tempdir().expect("folder");
        let pool = fixtures::pool(dir.path());
        let error = Sampler::new(&pool, Split::Test, 64, None).expect_err("no test images");
        assert!(error.to_string().contains("Test"), "{error}");
    }
}

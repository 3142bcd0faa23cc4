//! Tiles for training: crops at a random scale, set side by side where one image is too small.

use anyhow::{Result, bail};
use image::{GrayImage, RgbImage, imageops};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};
use shipwatch::frame::{resample_gray, resample_rgb};
use shipwatch::mask::Rle;

use crate::data::Split;
use crate::data::augment::augment;
use crate::data::pool::{Pool, PoolImage, Source};
use crate::data::tile::Tile;

/// Tries before a draw that must fulfil a condition takes what it has.
const TRIES: usize = 12;

/// Images in a row that cannot be read, after which a source is given up.
const MOST_BROKEN: usize = 100;

/// A crop leaves at least this many tile pixels, or none, for the ones beside and below it.
const MIN_CELL: u32 = 24;

/// Draws tiles from the images of one split.
pub(crate) struct Sampler<'a> {
    pool: &'a Pool,
    split: Split,
    tile: u32,
    augmented: bool,
    with_ships: Vec<Drawer<'a>>,
    all: Vec<Drawer<'a>>,
}

/// Images of one source among which a draw chooses.
struct Drawer<'a> {
    source: &'a Source,
    images: Vec<&'a PoolImage>,
}

/// A rectangle in tile pixels still to be filled.
#[derive(Clone, Copy)]
struct Cell {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

/// A rectangle in an image's own pixels.
struct Crop {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

/// What a crop must show.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Ship,
    NoShip,
    Anything,
}

impl<'a> Sampler<'a> {
    /// # Errors
    /// If the split lacks images with ships.
    pub(crate) fn new(pool: &'a Pool, split: Split, tile: u32, augmented: bool) -> Result<Self> {
        let drawers = |keep: &dyn Fn(&PoolImage) -> bool| -> Vec<Drawer<'a>> {
            let of = |source: &'a Source| Drawer {
                source,
                images: source.of(split).filter(|image| keep(image)).collect(),
            };
            pool.sources
                .iter()
                .map(of)
                .filter(|drawer| !drawer.images.is_empty())
                .collect()
        };
        let with_ships = drawers(&|image| !image.labelled.ships.is_empty());
        let all = drawers(&|_| true);
        if with_ships.is_empty() {
            bail!(
                "no image with ships is in the {split:?} split: see to `tune` and `test` under [[data]], and to split.csv"
            );
        }
        Ok(Self {
            pool,
            split,
            tile,
            augmented,
            with_ships,
            all,
        })
    }

    /// Images to draw from.
    pub(crate) fn images(&self) -> usize {
        self.all.iter().map(|drawer| drawer.images.len()).sum()
    }

    /// A tile with a ship, or one without. `scene` alone decides what it shows, `look` how that is
    /// turned, lit and spoilt: a scene worth seeing again comes back by its number.
    pub(crate) fn draw(&self, ship: bool, scene: u64, look: u64) -> Result<Tile> {
        let rng = &mut StdRng::seed_from_u64(scene);
        let drawers = if ship { &self.with_ships } else { &self.all };
        let mut tile = None;
        for _ in 0..TRIES {
            let drawer = drawers
                .choose_weighted(rng, |drawer| drawer.source.config.weight)
                .expect("weights are positive and a drawer is there");
            let candidate = self.compose(drawer, ship, rng)?;
            let fits = candidate.has_ship() == ship && (ship || candidate.ship_pixels() == 0);
            tile = Some(candidate);
            if fits {
                break;
            }
        }
        let mut tile = tile.expect("at least one try");
        if self.augmented {
            augment(&mut tile, &mut StdRng::seed_from_u64(look));
        }
        Ok(tile)
    }

    /// Fills a tile with crops of one source at one scale.
    fn compose(&self, drawer: &Drawer, ship: bool, rng: &mut StdRng) -> Result<Tile> {
        let [low, high] = drawer.source.config.scale;
        let scale = (rng.random_range(low.ln()..=high.ln())).exp();
        let mut tile = Tile {
            pixels: RgbImage::new(self.tile, self.tile),
            mask: GrayImage::new(self.tile, self.tile),
        };
        let mut open = vec![Cell {
            x: 0,
            y: 0,
            width: self.tile,
            height: self.tile,
        }];
        let mut wanted = if ship { Wanted::Ship } else { Wanted::NoShip };
        while let Some(cell) = open.pop() {
            let filled = self.fill(drawer, &mut tile, cell, scale, wanted, rng)?;
            if wanted == Wanted::Ship {
                wanted = Wanted::Anything;
            }
            let right = Cell {
                x: cell.x + filled.0,
                width: cell.width - filled.0,
                height: filled.1,
                ..cell
            };
            let below = Cell {
                y: cell.y + filled.1,
                height: cell.height - filled.1,
                ..cell
            };
            open.extend(
                [right, below]
                    .into_iter()
                    .filter(|c| c.width > 0 && c.height > 0),
            );
        }
        Ok(tile)
    }

    /// Fills the cell's top-left corner from an image that can be read; says how far.
    fn fill(
        &self,
        drawer: &Drawer,
        tile: &mut Tile,
        cell: Cell,
        scale: f64,
        wanted: Wanted,
        rng: &mut StdRng,
    ) -> Result<(u32, u32)> {
        for _ in 0..MOST_BROKEN {
            let image = drawer.images.choose(rng).expect("a drawer holds images");
            let piece = |pixels: &RgbImage| place(image, pixels, tile, cell, scale, wanted, rng);
            if let Some(size) = self.pool.with_pixels(image, piece)? {
                return Ok(size);
            }
        }
        bail!(
            "{}: hardly any image can be read",
            drawer.source.config.root.display()
        )
    }
}

/// Puts a crop of `pixels` into the cell's top-left corner; says how wide and high it came out.
fn place(
    image: &PoolImage,
    pixels: &RgbImage,
    tile: &mut Tile,
    cell: Cell,
    scale: f64,
    wanted: Wanted,
    rng: &mut StdRng,
) -> (u32, u32) {
    let ships = &image.labelled.ships;
    let size = |grid: u32, want: u32| ((f64::from(grid) * scale) as u32).clamp(1, want);
    let mut width = avoid_sliver(size(pixels.width(), cell.width), cell.width);
    let mut height = avoid_sliver(size(pixels.height(), cell.height), cell.height);
    let mut crop = Crop::around(pixels, ships, (width, height), scale, wanted, rng);
    for _ in 0..TRIES {
        if wanted != Wanted::NoShip || crop.is_free_of(ships, pixels.height()) {
            break;
        }
        // Ships are everywhere in a small image: a smaller piece may lie between them.
        if width.min(height) > 2 * MIN_CELL && rng.random_bool(0.5) {
            width = avoid_sliver(width / 2, cell.width);
            height = avoid_sliver(height / 2, cell.height);
        }
        crop = Crop::around(pixels, ships, (width, height), scale, wanted, rng);
    }
    let view = imageops::crop_imm(pixels, crop.x, crop.y, crop.width, crop.height);
    let piece = resample_rgb(&view.to_image(), width, height);
    let mask = resample_gray(&crop.rasterise(ships, pixels.height()), width, height);
    imageops::replace(&mut tile.pixels, &piece, cell.x.into(), cell.y.into());
    for (x, y, p) in mask.enumerate_pixels() {
        let value = if p.0[0] >= 128 { 255 } else { 0 };
        tile.mask
            .put_pixel(cell.x + x, cell.y + y, image::Luma([value]));
    }
    (width, height)
}

impl Crop {
    /// A random crop that comes out `size` tile pixels large; around a random ship if one is wanted.
    fn around(
        pixels: &RgbImage,
        ships: &[Rle],
        size: (u32, u32),
        scale: f64,
        wanted: Wanted,
        rng: &mut impl Rng,
    ) -> Self {
        let own = |tile: u32, grid: u32| ((f64::from(tile) / scale).round() as u32).clamp(1, grid);
        let (width, height) = (own(size.0, pixels.width()), own(size.1, pixels.height()));
        let anchor = match ships.choose(rng) {
            Some(ship) if wanted == Wanted::Ship => random_pixel(ship, pixels.height(), rng),
            _ => None,
        };
        let mut corner = |anchor: Option<u32>, length: u32, grid: u32| {
            let last = grid - length;
            match anchor {
                // Anywhere in the crop: at the edge only a part of the ship shows, as at a seam.
                Some(at) => rng.random_range((at + 1).saturating_sub(length)..=at.min(last)),
                None => rng.random_range(0..=last),
            }
        };
        Self {
            x: corner(anchor.map(|a| a.0), width, pixels.width()),
            y: corner(anchor.map(|a| a.1), height, pixels.height()),
            width,
            height,
        }
    }

    /// Ship pixels within the crop as 255.
    fn rasterise(&self, ships: &[Rle], grid_height: u32) -> GrayImage {
        let mut mask = GrayImage::new(self.width, self.height);
        for (x, y) in ships.iter().flat_map(|ship| ship.pixels(grid_height)) {
            if self.contains(x, y) {
                mask.put_pixel(x - self.x, y - self.y, image::Luma([255]));
            }
        }
        mask
    }

    fn is_free_of(&self, ships: &[Rle], grid_height: u32) -> bool {
        let mut pixels = ships.iter().flat_map(|ship| ship.pixels(grid_height));
        !pixels.any(|(x, y)| self.contains(x, y))
    }

    fn contains(&self, x: u32, y: u32) -> bool {
        (self.x..self.x + self.width).contains(&x) && (self.y..self.y + self.height).contains(&y)
    }
}

/// Any pixel of the ship, as column and row.
fn random_pixel(ship: &Rle, grid_height: u32, rng: &mut impl Rng) -> Option<(u32, u32)> {
    let nth = rng.random_range(0..ship.area().max(1)) as usize;
    ship.pixels(grid_height).nth(nth)
}

/// Gives way rather than leave a strip too narrow for a crop of any sense.
fn avoid_sliver(size: u32, cell: u32) -> u32 {
    match cell - size {
        0 => size,
        rest if rest < MIN_CELL && size > MIN_CELL => size - (MIN_CELL - rest).min(size - 1),
        _ => size,
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
        let sampler = Sampler::new(&pool, Split::Train, 64, false).expect("has ships");
        for i in 0..200 {
            let tile = sampler.draw(i % 2 == 0, i, i).expect("draws");
            assert_eq!(tile.pixels.dimensions(), (64, 64));
            for (pixel, mask) in tile.pixels.pixels().zip(tile.mask.pixels()) {
                assert_eq!(pixel.0[0] >= 128, mask.0[0] == 255);
            }
        }
    }

    #[test]
    fn gives_tiles_with_and_without_ships_as_asked() {
        let dir = tempfile::tempdir().expect("folder");
        let pool = fixtures::pool(dir.path());
        let sampler = Sampler::new(&pool, Split::Train, 64, true).expect("has ships");
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

    #[test]
    fn a_split_without_ships_is_refused() {
        let dir = tempfile::tempdir().expect("folder");
        let pool = fixtures::pool(dir.path());
        let error = Sampler::new(&pool, Split::Test, 64, false).expect_err("no test images");
        assert!(error.to_string().contains("Test"), "{error}");
    }
}

//! The images that scenes are made of.

use anyhow::{Result, bail};
use image::RgbImage;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::data::Split;
use crate::data::pool::{Pool, PoolImage, Source};

/// Images in a row that cannot be read, after which a source is given up.
const MOST_BROKEN: usize = 100;

/// The images of one split, by what they can serve for.
pub(crate) struct Images<'a> {
    pool: &'a Pool,
    pub(crate) with_ships: Vec<Drawer<'a>>,
    pub(crate) all: Vec<Drawer<'a>>,
    /// Of sources that have no ship at all: land, for water without ships is rarely labelled alone.
    pub(crate) land: Vec<Drawer<'a>>,
}

/// Images of one source among which a draw chooses.
pub(crate) struct Drawer<'a> {
    pub(crate) source: &'a Source,
    pub(crate) images: Vec<&'a PoolImage>,
    /// Whether no image of the source has a ship.
    pub(crate) is_land: bool,
}

impl<'a> Images<'a> {
    /// # Errors
    /// If the split lacks images with ships.
    pub(crate) fn new(pool: &'a Pool, split: Split) -> Result<Self> {
        let drawers = |keep: &dyn Fn(&PoolImage) -> bool| -> Vec<Drawer<'a>> {
            let of = |source: &'a Source| Drawer {
                source,
                images: source.of(split).filter(|image| keep(image)).collect(),
                is_land: !source.images.iter().any(has_ships),
            };
            pool.sources
                .iter()
                .map(of)
                .filter(|drawer| !drawer.images.is_empty())
                .collect()
        };
        let with_ships = drawers(&has_ships);
        if with_ships.is_empty() {
            bail!(
                "no image with ships is in the {split:?} split: see to `tune` and `test` under [[data]], and to split.csv"
            );
        }
        Ok(Self {
            pool,
            with_ships,
            all: drawers(&|_| true),
            land: drawers(&|_| true)
                .into_iter()
                .filter(|drawer| drawer.is_land)
                .collect(),
        })
    }

    /// Runs `work` on an image of `drawer` that can be read.
    ///
    /// # Errors
    /// If hardly any can, or the masks are of another image.
    pub(crate) fn pick<T>(
        &self,
        drawer: &Drawer<'a>,
        rng: &mut StdRng,
        mut work: impl FnMut(&'a PoolImage, &RgbImage, &mut StdRng) -> T,
    ) -> Result<T> {
        for _ in 0..MOST_BROKEN {
            let image = *drawer.images.choose(rng).expect("a drawer holds images");
            let done = self
                .pool
                .with_pixels(image, |pixels| work(image, pixels, rng))?;
            if let Some(done) = done {
                return Ok(done);
            }
        }
        bail!(
            "{}: hardly any image can be read",
            drawer.source.config.root.display()
        )
    }
}

impl<'a> Drawer<'a> {
    /// The same source, but with one image alone.
    pub(crate) fn only(&self, image: &'a PoolImage) -> Self {
        Self {
            source: self.source,
            images: vec![image],
            is_land: self.is_land,
        }
    }
}

fn has_ships(image: &PoolImage) -> bool {
    !image.labelled.ships.is_empty()
}

/// A source by its weight.
pub(crate) fn choose<'d, 'a>(drawers: &'d [Drawer<'a>], rng: &mut StdRng) -> &'d Drawer<'a> {
    drawers
        .choose_weighted(rng, |drawer| drawer.source.config.weight)
        .expect("weights are positive and a drawer is there")
}

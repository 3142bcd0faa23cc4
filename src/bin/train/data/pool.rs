//! The images of a run: which serve what, decoded once as far as memory allows.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Result, bail, ensure};
use image::RgbImage;
use shipwatch::dataset::{Dataset, LabelledImage};
use shipwatch::mask::Rle;
use shipwatch::source::decode::{DecodeOptions, decode_file};

use crate::config::DataRoot;
use crate::data::Split;

/// All data roots of a run.
pub(crate) struct Pool {
    pub(crate) sources: Vec<Source>,
    /// Bytes that decoded images may still take.
    budget: AtomicUsize,
}

/// One data root.
pub(crate) struct Source {
    pub(crate) config: DataRoot,
    pub(crate) images: Vec<PoolImage>,
}

/// One labelled image and what it is for.
pub(crate) struct PoolImage {
    pub(crate) labelled: LabelledImage,
    pub(crate) split: Split,
    decoded: OnceLock<RgbImage>,
    /// Set when the file turned out not to be readable.
    broken: AtomicBool,
}

impl Pool {
    /// Opens every root; images are decoded when first needed and kept up to `cache_mib`.
    pub(crate) fn open(roots: &[DataRoot], cache_mib: usize) -> Result<Self> {
        let mut sources = Vec::new();
        for config in roots {
            let data = Dataset::open(&config.root)?;
            if let Some(first) = data.missing.first() {
                log::warn!(
                    "{}: {} images named in the CSV are not there, {first} the first",
                    config.root.display(),
                    data.missing.len()
                );
            }
            if data.images.is_empty() {
                bail!("{}: no labelled image found", config.root.display());
            }
            let images = assign(config, data.images);
            sources.push(Source {
                config: config.clone(),
                images,
            });
        }
        Ok(Self {
            sources,
            budget: AtomicUsize::new(cache_mib.saturating_mul(1 << 20)),
        })
    }

    /// Runs `work` on an image's pixels. A file that cannot be decoded is reported once and gives
    /// `None`: one broken file must not end a long run.
    ///
    /// Images stay decoded while the budget lasts. As access is random, keeping the first ones
    /// serves as many requests as any other choice.
    ///
    /// # Errors
    /// If the masks do not lie on the image, for then other labels are wrong as well.
    pub(crate) fn with_pixels<T>(
        &self,
        image: &PoolImage,
        work: impl FnOnce(&RgbImage) -> T,
    ) -> Result<Option<T>> {
        if let Some(pixels) = image.decoded.get() {
            return Ok(Some(work(pixels)));
        }
        let order = Ordering::Relaxed;
        if image.broken.load(order) {
            return Ok(None);
        }
        let pixels = match decode_file(&image.labelled.path, &DecodeOptions::default()) {
            Ok(frame) => frame.pixels,
            Err(error) => {
                if !image.broken.swap(true, order) {
                    log::warn!("{}: {error}; left out", image.labelled.path.display());
                }
                return Ok(None);
            }
        };
        check_masks(&image.labelled, &pixels)?;
        let result = work(&pixels);
        let bytes = pixels.as_raw().len();
        let reserve = |left: usize| left.checked_sub(bytes);
        if self.budget.fetch_update(order, order, reserve).is_ok()
            && image.decoded.set(pixels).is_err()
        {
            self.budget.fetch_add(bytes, order);
        }
        Ok(Some(result))
    }
}

impl Source {
    /// The images of one split.
    pub(crate) fn of(&self, split: Split) -> impl Iterator<Item = &PoolImage> {
        self.images.iter().filter(move |image| image.split == split)
    }
}

/// Checks that the masks lie on the image.
fn check_masks(image: &LabelledImage, pixels: &RgbImage) -> Result<()> {
    let pixels = u64::from(pixels.width()) * u64::from(pixels.height());
    for (start, length) in image.ships.iter().flat_map(Rle::runs) {
        let end = start + length - 1;
        ensure!(
            end <= pixels,
            "{}: a mask reaches pixel {end}, but the image has {pixels}: the CSV is of another image",
            image.path.display()
        );
    }
    Ok(())
}

/// Splits by the config's id prefixes first. What `split.csv` sets aside is halved between tuning
/// and testing in the order of ids; the rest is for training.
fn assign(config: &DataRoot, images: Vec<LabelledImage>) -> Vec<PoolImage> {
    let listed =
        |prefixes: &[String], id: &str| prefixes.iter().any(|p| id.starts_with(p.as_str()));
    let mut set_aside = 0;
    let mut split = |image: &LabelledImage| {
        if listed(&config.test, &image.id) {
            Split::Test
        } else if listed(&config.tune, &image.id) {
            Split::Tune
        } else if image.split.as_deref().is_some_and(|split| split != "train") {
            set_aside += 1;
            if set_aside % 2 == 0 {
                Split::Test
            } else {
                Split::Tune
            }
        } else {
            Split::Train
        }
    };
    images
        .into_iter()
        .map(|labelled| PoolImage {
            split: split(&labelled),
            labelled,
            decoded: OnceLock::new(),
            broken: AtomicBool::new(false),
        })
        .collect()
}

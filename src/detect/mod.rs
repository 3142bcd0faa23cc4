//! The chain from a frame to a record.

mod networks;
mod regions;
mod segment;
mod settings;

pub use networks::{Maps, TileNetworks};
pub use regions::{Polygon, PolygonError, Regions};
pub use segment::Segmentation;
pub use settings::{Options, ResolutionWarning, threshold_byte};

use std::borrow::Cow;
use std::time::Duration;

use image::{GrayImage, RgbImage};
use rayon::prelude::*;

use crate::frame::{Frame, Tags, resample_gray, resample_rgb};
use crate::inference::InferenceError;
use crate::mask::{Instance, Mask, instances, separate};
use crate::model::{Bundle, Manifest};
use crate::record::{FrameRecord, GateSummary, Millis, ModelId, Ship, milliseconds};
use crate::tile::TilePlan;
use networks::BundleNetworks;
use settings::Settings;

/// A clock that never runs backwards. The core reads none of its own.
pub trait Clock: Sync {
    /// Time since some fixed moment.
    fn now(&self) -> Duration;
}

/// Finds ships in frames. Threads may share one.
pub struct Detector {
    manifest: Manifest,
    networks: Box<dyn TileNetworks>,
}

/// Why a frame has no record.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// An option's value makes no sense.
    #[error("{option} is {value}, but {rule}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its value.
        value: f64,
        /// What it must be.
        rule: &'static str,
    },
    /// The frame has no pixels.
    #[error("the frame has no pixels")]
    Empty,
    /// Resampling would make too large a frame.
    #[error(
        "at scale {scale} the frame would have {pixels} pixels, but {limit} is the limit: lower the \
         scale or correct the ground resolution"
    )]
    TooLarge {
        /// Factor that was asked for, or that follows from the ground resolution.
        scale: f64,
        /// Pixels after resampling.
        pixels: u64,
        /// Most pixels after resampling.
        limit: u64,
    },
    /// A network failed.
    #[error(transparent)]
    Inference(#[from] InferenceError),
}

impl Detector {
    /// A detector on a bundle's networks.
    pub fn new(bundle: Bundle) -> Self {
        let Bundle {
            manifest,
            gate,
            unet,
        } = bundle;
        let networks = BundleNetworks { gate, unet };
        Self::with_networks(manifest, Box::new(networks))
    }

    /// A detector on networks of any kind, which take tiles of `manifest.tile` pixels a side.
    pub fn with_networks(manifest: Manifest, networks: Box<dyn TileNetworks>) -> Self {
        Self { manifest, networks }
    }

    /// The manifest of the models that look.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The names of these models, as records have them.
    pub fn model(&self) -> ModelId {
        ModelId {
            name: self.manifest.name.clone(),
            version: self.manifest.version.clone(),
        }
    }

    /// What a user should be told of the frame's ground resolution; `None` where it fits the models
    /// or is not known.
    pub fn resolution_warning(
        &self,
        frame: &Frame,
        options: &Options,
    ) -> Option<ResolutionWarning> {
        ResolutionWarning::of(&self.manifest, frame, options)
    }

    /// Runs the whole chain on one frame.
    ///
    /// The record's `millis.decode` is zero: only the source knows it.
    ///
    /// # Errors
    /// Any [`DetectError`].
    pub fn detect(
        &self,
        frame: &Frame,
        options: &Options,
        clock: &dyn Clock,
    ) -> Result<FrameRecord, DetectError> {
        let settings = Settings::resolve(&self.manifest, frame, options)?;
        let mut laps = Laps {
            clock,
            last: clock.now(),
        };
        let mut millis = Millis::default();

        let pixels = match settings.resampled {
            Some((width, height)) => Cow::Owned(resample_rgb(&frame.pixels, width, height)),
            None => Cow::Borrowed(&frame.pixels),
        };
        millis.prepare = laps.lap();

        let plan = self.plan(pixels.width(), pixels.height());
        let (width, height) = frame.pixels.dimensions();
        let tiles = options.regions.tiles(&plan, (width, height));
        let scores = self.scores(&pixels, &plan, &tiles)?;
        let mut passed = vec![false; plan.count()];
        for (&tile, &score) in tiles.iter().zip(&scores) {
            passed[tile] = score >= settings.gate;
        }
        millis.gate = laps.lap();

        let segmentation = self.segment(&pixels, &passed, settings.mask)?;
        millis.segment = laps.lap();

        let score = scores.iter().copied().fold(0.0, f32::max);
        let ships = if segmentation.segmented == 0 {
            Vec::new()
        } else {
            let maps = match settings.resampled {
                Some(_) => segmentation.maps.resampled(width, height),
                None => segmentation.maps,
            };
            extract_ships(&maps, &settings, &options.regions)
        };
        millis.extract = laps.lap();

        Ok(FrameRecord {
            id: None,
            frame: frame.name.clone(),
            width,
            height,
            tags: Tags {
                gsd: settings.gsd,
                ..frame.tags.clone()
            },
            scale: settings.scale,
            gate: GateSummary {
                score,
                ship: !tiles.is_empty() && score >= self.manifest.thresholds.classify,
                tiles: tiles.len(),
                passed: passed.iter().filter(|&&passed| passed).count(),
                segmented: segmentation.segmented,
            },
            ships,
            model: self.model(),
            millis,
            board: None,
        })
    }

    /// How this detector cuts a frame of `width` x `height` pixels at the networks' scale.
    ///
    /// # Panics
    /// If a size is zero.
    pub fn plan(&self, width: u32, height: u32) -> TilePlan {
        TilePlan::new(width, height, self.manifest.tile, self.manifest.overlap)
    }

    /// The gate's ship probability of each tile of [`Detector::plan`]; `pixels` are at the networks'
    /// scale.
    ///
    /// # Errors
    /// [`DetectError::Inference`].
    ///
    /// # Panics
    /// If `pixels` is empty.
    pub fn gate_scores(&self, pixels: &RgbImage) -> Result<Vec<f32>, DetectError> {
        let plan = self.plan(pixels.width(), pixels.height());
        let tiles: Vec<usize> = (0..plan.count()).collect();
        self.scores(pixels, &plan, &tiles)
    }

    fn scores(
        &self,
        pixels: &RgbImage,
        plan: &TilePlan,
        tiles: &[usize],
    ) -> Result<Vec<f32>, DetectError> {
        let scores: Result<_, InferenceError> = tiles
            .par_iter()
            .map(|&tile| self.networks.gate(&plan.cut(pixels, tile)))
            .collect();
        Ok(scores?)
    }

    /// Segments the tiles that `passed` and those a ship reaches into, and merges them into one map;
    /// `pixels` are at the networks' scale.
    ///
    /// A ship reaches into a tile when a pixel of it, of at least the probability `mask`, lies in a
    /// segmented tile, near a border that the other tile crosses.
    ///
    /// # Errors
    /// [`DetectError::Inference`].
    ///
    /// # Panics
    /// If `pixels` is empty or `passed` has not one entry per tile of [`Detector::plan`].
    pub fn segment(
        &self,
        pixels: &RgbImage,
        passed: &[bool],
        mask: f32,
    ) -> Result<Segmentation, DetectError> {
        let plan = self.plan(pixels.width(), pixels.height());
        let threshold = threshold_byte(mask);
        Ok(segment::segment(
            &*self.networks,
            &plan,
            pixels,
            passed,
            threshold,
        )?)
    }
}

/// Ships that count by falling score in maps of the stored grid.
fn extract_ships(maps: &Maps, settings: &Settings, regions: &Regions) -> Vec<Ship> {
    let size = maps.probabilities.dimensions();
    let mut ships: Vec<Ship> = maps
        .instances(settings.mask, settings.valley)
        .iter()
        .filter(|instance| instance.area() as f64 >= settings.min_area)
        .filter(|instance| regions.count(instance.centroid(), size))
        .map(|instance| describe(instance, size.1, settings.gsd))
        .collect();
    ships.sort_by(|a, b| b.score.total_cmp(&a.score));
    ships
}

impl Maps {
    /// The same of a grid of `width` x `height` pixels.
    ///
    /// # Panics
    /// If a size is zero.
    pub fn resampled(&self, width: u32, height: u32) -> Self {
        let resampled = |map: &GrayImage| resample_gray(map, width, height);
        Self {
            probabilities: resampled(&self.probabilities),
            centrality: self.centrality.as_ref().map(resampled),
        }
    }

    /// The components of the pixels with at least the probability `mask`, parted where a valley of
    /// at least the depth `valley`, both 0 to 1, crosses their centrality.
    pub fn instances(&self, mask: f32, valley: Option<f32>) -> Vec<Instance> {
        let map = &self.probabilities;
        let whole = instances(&Mask::from_threshold(map, threshold_byte(mask)), map);
        match (&self.centrality, valley) {
            (Some(heights), Some(depth)) => separate(whole, map, heights, threshold_byte(depth)),
            _ => whole,
        }
    }
}

fn describe(instance: &Instance, height: u32, gsd: Option<f64>) -> Ship {
    let rectangle = instance.oriented_box();
    Ship {
        score: instance.score(),
        area: instance.area(),
        bbox: instance.bbox(),
        centroid: instance.centroid().map(hundredths),
        length: hundredths(rectangle.length),
        width: hundredths(rectangle.width),
        angle: hundredths(rectangle.angle) % 180.0,
        length_m: gsd.map(|gsd| hundredths(rectangle.length * gsd)),
        width_m: gsd.map(|gsd| hundredths(rectangle.width * gsd)),
        rle: instance.to_rle(height),
    }
}

/// Rounded to hundredths: no mask knows more.
fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Splits time into stages.
struct Laps<'a> {
    clock: &'a dyn Clock,
    last: Duration,
}

impl Laps<'_> {
    /// Milliseconds since the last lap.
    fn lap(&mut self) -> f64 {
        let now = self.clock.now();
        let lap = now.saturating_sub(self.last);
        self.last = now;
        milliseconds(lap)
    }
}

#[cfg(test)]
mod tests;

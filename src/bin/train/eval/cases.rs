//! The images by which a split judges: plain ones at their scales, and judging frames.

use anyhow::Result;
use rayon::prelude::*;

use super::chain::Case;
use super::frames::FrameBuilder;
use crate::config::Config;
use crate::data::{Pool, PoolImage, Source, Split};
use crate::progress::count;
use crate::stop::Stop;

/// How the sets of judging frames are called, before the split's name.
pub(super) const FRAMES: &str = "frames of";

/// What is judged, not yet loaded.
pub(super) struct Cases<'a> {
    pool: &'a Pool,
    frames: FrameBuilder,
    split: Split,
    jobs: Vec<Job<'a>>,
}

#[derive(Clone, Copy)]
enum Job<'a> {
    Plain(&'a Source, &'a PoolImage, f64),
    Frame(usize),
}

impl<'a> Cases<'a> {
    /// # Errors
    /// If masks do not lie on their image.
    pub(super) fn open(pool: &'a Pool, split: Split, config: &Config) -> Result<Self> {
        let frames = FrameBuilder::new(pool, split, config.judge, &Stop::new())?;
        let plain = pool.sources.iter().flat_map(|source| {
            source.of(split).flat_map(move |image| {
                let scales = source.config.eval_scales.iter();
                scales.map(move |&scale| Job::Plain(source, image, scale))
            })
        });
        let jobs = plain.chain((0..frames.count()).map(Job::Frame)).collect();
        Ok(Self {
            pool,
            frames,
            split,
            jobs,
        })
    }

    /// What `work` makes of each case that can be read, in an order that never changes.
    pub(super) fn map<T: Send>(
        &self,
        doing: &str,
        work: impl Fn(&Case) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let bar = count(doing, self.jobs.len());
        let each = |job: &Job<'a>| {
            let done = self.with(*job, &work);
            bar.inc(1);
            done
        };
        let done: Result<Vec<Option<T>>> = self.jobs.par_iter().map(each).collect();
        bar.finish_and_clear();
        Ok(done?.into_iter().flatten().collect())
    }

    /// What `work` makes of the case of a set and an image; none where there is no such.
    pub(super) fn with_one<T>(
        &self,
        set: &str,
        id: &str,
        work: impl Fn(&Case) -> Result<T>,
    ) -> Result<Option<T>> {
        let job = self.jobs.iter().copied().find(|&job| match job {
            Job::Plain(source, image, scale) => {
                image.labelled.id == id && name(source, self.split, scale) == set
            }
            Job::Frame(index) => set.starts_with(FRAMES) && self.frames.id(index) == id,
        });
        job.map_or(Ok(None), |job| self.with(job, work))
    }

    fn with<T>(&self, job: Job, work: impl Fn(&Case) -> Result<T>) -> Result<Option<T>> {
        match job {
            Job::Plain(source, image, scale) => {
                // As frames name it.
                let cluster = format!("{}/{}", source.config.name, image.labelled.id);
                let judged = self.pool.with_pixels(image, |pixels| {
                    work(&Case {
                        id: &image.labelled.id,
                        set: name(source, self.split, scale),
                        kind: None,
                        cluster: &cluster,
                        complete: source.config.complete,
                        pixels,
                        ships: &image.labelled.ships,
                        scale,
                    })
                })?;
                judged.transpose()
            }
            Job::Frame(index) => {
                let frame = self.frames.frame(index);
                let case = Case {
                    id: &frame.id,
                    set: format!("{FRAMES} {}", self.split),
                    kind: Some(frame.kind),
                    // What is all simulated has nothing in common with others.
                    cluster: frame.images.first().unwrap_or(&frame.id),
                    complete: frame.complete,
                    pixels: &frame.pixels,
                    ships: &frame.ships,
                    scale: 1.0,
                };
                work(&case).map(Some)
            }
        }
    }
}

/// The set of a source's images of one split at one scale.
fn name(source: &Source, split: Split, scale: f64) -> String {
    format!("{} of {split} @ {scale}", source.config.name)
}

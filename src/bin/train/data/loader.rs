//! Makes batches ahead of the step that wants them.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use anyhow::{Result, anyhow};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::data::sample::Sampler;
use crate::data::tile::Tile;

/// Batches that each worker keeps ready.
const AHEAD: usize = 2;

/// A stream of batches; the same for the same seed, however many workers make it.
pub(crate) struct Loader {
    workers: Vec<Receiver<Result<Vec<Tile>>>>,
    next: usize,
}

impl Loader {
    /// Starts `workers` threads that draw `batch` tiles at a time, `ship_share` of them with ships.
    /// They end when the loader is dropped.
    pub(crate) fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        sampler: &'scope Sampler<'scope>,
        batch: usize,
        ship_share: f64,
        seed: u64,
        workers: usize,
    ) -> Self {
        let ships = (batch as f64 * ship_share).round() as usize;
        let start = |worker: usize| {
            let (send, receive) = sync_channel(AHEAD);
            scope.spawn(move || {
                for number in (worker as u64..).step_by(workers) {
                    let mut rng = StdRng::seed_from_u64(seed.wrapping_add(number << 16));
                    let made = (0..batch)
                        .map(|i| sampler.draw(i < ships, rng.random(), rng.random()))
                        .collect();
                    if send.send(made).is_err() {
                        return;
                    }
                }
            });
            receive
        };
        Self {
            workers: (0..workers).map(start).collect(),
            next: 0,
        }
    }

    /// The next batch.
    ///
    /// # Errors
    /// If an image could not be read.
    pub(crate) fn next(&mut self) -> Result<Vec<Tile>> {
        let worker = self.next % self.workers.len();
        self.next += 1;
        self.workers[worker]
            .recv()
            .map_err(|_| anyhow!("a loader thread ended early"))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Augment;
    use crate::data::Split;
    use crate::data::sample::fixtures;

    #[test]
    fn batches_do_not_depend_on_the_number_of_workers() {
        let dir = tempfile::tempdir().expect("folder");
        let pool = fixtures::pool(dir.path());
        let sampler =
            Sampler::new(&pool, Split::Train, 64, Some(Augment::default())).expect("has ships");
        let draw = |workers| -> Vec<Vec<u8>> {
            std::thread::scope(|scope| {
                let mut loader = Loader::start(scope, &sampler, 3, 0.5, 9, workers);
                let mut batch = || loader.next().expect("a batch");
                let batches: Vec<Vec<Tile>> = (0..5).map(|_| batch()).collect();
                batches
                    .into_iter()
                    .flatten()
                    .map(|tile| tile.pixels.into_raw())
                    .collect()
            })
        };
        let alone = draw(1);
        assert_eq!(alone.len(), 15);
        assert_eq!(alone, draw(3));
        assert_ne!(alone[0], alone[3], "each batch is another draw");
    }
}

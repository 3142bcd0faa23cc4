//! Makes batches ahead of the step that wants them.

use std::ops::Range;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use anyhow::{Result, anyhow};

use crate::config::{Config, PhaseName};
use crate::data::sample::Sampler;
use crate::data::tile::Tile;
use crate::stop::Stop;

/// Batches that each worker keeps ready.
const AHEAD: usize = 2;

/// Which tiles a phase sees. Each follows from the seed, the phase, the step and its place in the
/// batch alone, so a run that was stopped goes on with the tiles that it would have seen.
#[derive(Debug, Clone)]
pub(crate) struct Draws {
    pub(crate) seed: u64,
    /// Number of the phase.
    pub(crate) phase: u64,
    /// Tiles in a batch.
    pub(crate) batch: usize,
    /// Share of tiles that hold a ship.
    pub(crate) ship_share: f64,
    /// Ship-free scenes that come back.
    pub(crate) hard: Vec<u64>,
    /// Share of the ship-free tiles that show one of them.
    pub(crate) hard_share: f64,
}

/// A stream of batches; the same however many workers make it.
pub(crate) struct Loader {
    workers: Vec<Receiver<Result<Vec<Tile>>>>,
    next: usize,
}

impl Draws {
    /// Those of a phase, before any scene was mined.
    pub(crate) fn of(config: &Config, name: PhaseName) -> Self {
        let phase = config.phases.get(name);
        Self {
            seed: config.seed,
            phase: name as u64,
            batch: phase.batch,
            ship_share: phase.ship_share,
            hard: Vec::new(),
            hard_share: config.mining.share,
        }
    }

    /// The batch of a step.
    ///
    /// # Errors
    /// If an image could not be read, or the user asks to stop.
    pub(crate) fn batch(&self, sampler: &Sampler, step: usize, stop: &Stop) -> Result<Vec<Tile>> {
        let ships = (self.batch as f64 * self.ship_share).round() as usize;
        let hard = if self.hard.is_empty() {
            0
        } else {
            ((self.batch - ships) as f64 * self.hard_share).round() as usize
        };
        let draw = |index: usize| {
            stop.check()?;
            let choice = |what| key(&[self.seed, self.phase, step as u64, index as u64, what]);
            let (scene, look) = (choice(0), choice(1));
            let scene = if (ships..ships + hard).contains(&index) {
                self.hard[scene as usize % self.hard.len()]
            } else {
                scene
            };
            sampler.draw(index < ships, scene, look)
        };
        (0..self.batch).map(draw).collect()
    }
}

impl Loader {
    /// Starts `workers` threads that make the batches of `steps`. They end with them, or when the
    /// loader is dropped.
    pub(crate) fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        sampler: &'scope Sampler<'scope>,
        draws: &'scope Draws,
        steps: Range<usize>,
        workers: usize,
        stop: &'scope Stop,
    ) -> Self {
        let start = |worker: usize| {
            let (send, receive) = sync_channel(AHEAD);
            let steps = steps.clone().skip(worker).step_by(workers);
            scope.spawn(move || {
                for step in steps {
                    if send.send(draws.batch(sampler, step, stop)).is_err() {
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
    /// If an image could not be read, or the user asks to stop.
    pub(crate) fn next(&mut self) -> Result<Vec<Tile>> {
        let worker = self.next % self.workers.len();
        self.next += 1;
        self.workers[worker]
            .recv()
            .map_err(|_| anyhow!("a loader thread ended early"))?
    }
}

/// A number that follows from others and looks random: SplitMix64's mixing function (Steele, Lea
/// and Flood 2014) over one after the other. It has 63 bits, which is what TOML can hold.
pub(crate) fn key(parts: &[u64]) -> u64 {
    let mixed = parts.iter().fold(0u64, |state, &part| {
        let mut z = state.wrapping_add(part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    });
    mixed >> 1
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::config::Augment;
    use crate::data::Split;
    use crate::data::sample::fixtures;
    use crate::stop::Stopped;

    fn draws() -> Draws {
        Draws {
            seed: 9,
            phase: 1,
            batch: 4,
            ship_share: 0.5,
            hard: Vec::new(),
            hard_share: 0.5,
        }
    }

    fn bytes(batch: Vec<Tile>) -> Vec<Vec<u8>> {
        batch
            .into_iter()
            .map(|tile| tile.pixels.into_raw())
            .collect()
    }

    #[test]
    fn batches_depend_on_their_step_alone() {
        let dir = tempfile::tempdir().expect("folder");
        let pool = fixtures::pool(dir.path());
        let sampler =
            Sampler::new(&pool, Split::Train, 64, Some(Augment::default())).expect("has ships");
        let draws = draws();
        let load = |steps: Range<usize>, workers| -> Vec<Vec<Vec<u8>>> {
            let go = Stop::new();
            std::thread::scope(|scope| {
                let mut loader =
                    Loader::start(scope, &sampler, &draws, steps.clone(), workers, &go);
                steps
                    .map(|_| bytes(loader.next().expect("a batch")))
                    .collect()
            })
        };
        let alone = load(0..5, 1);
        assert_eq!(alone, load(0..5, 3));
        assert_eq!(alone[2..], load(2..5, 2), "going on later");
        assert_ne!(alone[0], alone[1], "each batch is another draw");
    }

    #[test]
    fn whoever_asks_to_stop_waits_for_no_batch() {
        let dir = tempfile::tempdir().expect("folder");
        let pool = fixtures::pool(dir.path());
        let sampler = Sampler::new(&pool, Split::Train, 64, None).expect("has ships");
        // No machine draws that many within the test's time.
        let draws = Draws {
            batch: 100_000_000,
            ..draws()
        };
        let stop = Stop::new();
        let error = std::thread::scope(|scope| {
            let mut loader = Loader::start(scope, &sampler, &draws, 0..9, 2, &stop);
            stop.ask();
            loader.next().err().expect("no batch")
        });
        assert!(error.is::<Stopped>());
    }

    #[test]
    fn hard_scenes_come_back_among_the_ship_free_tiles() {
        let dir = tempfile::tempdir().expect("folder");
        let pool = fixtures::pool(dir.path());
        let sampler = Sampler::new(&pool, Split::Train, 64, None).expect("has ships");
        let batch = |hard: Vec<u64>| {
            let draws = Draws { hard, ..draws() };
            bytes(draws.batch(&sampler, 0, &Stop::new()).expect("draws"))
        };
        let (plain, mined) = (batch(Vec::new()), batch(vec![77]));
        let scene = sampler.draw(false, 77, 0).expect("draws");
        assert_eq!(mined[2], scene.pixels.into_raw());
        // Half of the two ship-free tiles; the rest of the batch is what it was.
        assert_eq!(
            [&plain[0], &plain[1], &plain[3]],
            [&mined[0], &mined[1], &mined[3]]
        );
    }

    #[test]
    fn keys_differ_by_each_part_and_by_order() {
        let mut keys = HashSet::new();
        for a in 0..40 {
            for b in 0..40 {
                keys.insert(key(&[a, b]));
                keys.insert(key(&[a, b, 0]));
            }
        }
        assert_eq!(keys.len(), 2 * 40 * 40);
        assert!(keys.iter().all(|key| i64::try_from(*key).is_ok()));
    }
}

//! One pass through the phases that a config plans.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use rayon::prelude::*;

use crate::config::{Config, PhaseName};
use crate::data::{Pool, Sampler, Split, Tile, key};
use crate::run_folder::RunFolder;
use crate::start::Start;
use crate::trainer::{Engine, Outcome, Trainer};

/// Tiles by which weights are compared; the same ones throughout a run.
const TUNE_TILES: u64 = 512;

/// Tells their draws from those of training.
const TUNE: u64 = 0x7e57;

/// Trains one phase, or all that the config has steps for.
pub(crate) fn run<B: Engine>(
    config: &Config,
    out: &Path,
    only: Option<PhaseName>,
    workers: usize,
    stop: &AtomicBool,
) -> Result<Outcome> {
    let device = B::Device::default();
    let folder = RunFolder::create(out, config)?;
    let pool = Pool::open(&config.data, config.cache_mib)?;
    let sampler = Sampler::new(&pool, Split::Train, config.tile, Some(config.augment))?;
    let tune = tune_tiles(&pool, config)?;
    log::info!("{sampler:?}, {} tune tiles", tune.len());
    let trainer = Trainer::<B> {
        config,
        folder: &folder,
        sampler: &sampler,
        tune: &tune,
        device: device.clone(),
        workers,
        stop,
    };
    let start = Start::<B>::open(config, &sampler, &device)?;
    let planned = |name: &PhaseName| config.phases.get(*name).steps > 0;
    if let Some(name) = only {
        ensure!(
            planned(&name),
            "the config has no steps for phase {}",
            name.name()
        );
    }
    for name in PhaseName::ALL.into_iter().filter(planned) {
        if only.is_some_and(|only| only != name) {
            continue;
        }
        if folder.is_done(name)? {
            log::info!("{}: done", name.name());
            continue;
        }
        // Random starts follow from the phase alone, whatever ran before it.
        B::seed(&device, key(&[config.seed, name as u64]));
        let mut earlier = PhaseName::ALL.into_iter().rev().filter(|n| *n < name);
        let before = match earlier.find(planned) {
            Some(before) => Some((before, folder.result(before)?)),
            None => None,
        };
        let before = before.as_ref().map(|(name, weights)| (*name, weights));
        let outcome = if name.is_gate() {
            trainer.train(name, start.gate(before.map(|(_, weights)| weights))?)?
        } else {
            trainer.train(name, start.unet(before)?)?
        };
        if outcome == Outcome::Stopped || stop.load(Ordering::Relaxed) {
            return Ok(Outcome::Stopped);
        }
    }
    Ok(Outcome::Done)
}

/// Tiles by which weights are compared: half of them with ships, as far as the images allow.
///
/// # Errors
/// If all are of one kind, for then no score would tell good weights from bad.
fn tune_tiles(pool: &Pool, config: &Config) -> Result<Vec<Tile>> {
    let sampler = Sampler::new(pool, Split::Tune, config.tile, None)?;
    let draw = |i: u64| sampler.draw(i.is_multiple_of(2), key(&[config.seed, TUNE, i]), 0);
    let tiles: Vec<Tile> = (0..TUNE_TILES)
        .into_par_iter()
        .map(draw)
        .collect::<Result<_>>()?;
    for (ship, lack) in [(true, "a ship large enough"), (false, "open water or land")] {
        ensure!(
            tiles.iter().any(|tile| tile.has_ship() == ship),
            "the images for tuning show no tile with {lack}: name others as `tune` under [[data]]"
        );
    }
    Ok(tiles)
}

//! Hard negatives: ship-free scenes on which a network fires come back more often.

use std::fmt;

use anyhow::Result;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::config::Mining;
use crate::data::{Sampler, Tile, key};
use crate::stop::Stop;

/// Scenes judged at once.
const BATCH: usize = 32;

/// Scenes that come back, hardest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Mined {
    /// Rounds of mining that are over.
    pub(crate) round: usize,
    /// Numbers of the scenes, as [`Sampler::draw`] takes them.
    pub(crate) scenes: Vec<u64>,
}

/// How hard the scenes of a round are.
#[derive(Debug, PartialEq)]
pub(crate) struct Report {
    round: usize,
    looked_at: usize,
    kept: usize,
    stayed: usize,
    fresh_median: f32,
    kept_median: f32,
    hardest: f32,
}

/// One round: `fires` says of ship-free tiles how strongly the network fires on each. Those of
/// before and fresh ones are judged alike, and the hardest stay. All follows from `seed`, which
/// must be another one in each round.
///
/// # Errors
/// If an image could not be read, or the user asks to stop: then `mined` is as it was.
pub(crate) fn mine(
    mined: &mut Mined,
    round: usize,
    seed: &[u64],
    sampler: &Sampler,
    mining: &Mining,
    stop: &Stop,
    fires: impl Fn(&[Tile]) -> Vec<f32>,
) -> Result<Report> {
    let choice = |number: usize, what: u64| {
        let mut parts = seed.to_vec();
        // Far from the numbers of the batches' draws.
        parts.extend([u64::MAX, number as u64, what]);
        key(&parts)
    };
    let old = mined.scenes.len();
    let fresh = (0..mining.pool).map(|number| choice(number, 0));
    let scenes: Vec<u64> = mined.scenes.iter().copied().chain(fresh).collect();
    let numbered: Vec<(usize, u64)> = scenes.into_iter().enumerate().collect();
    let mut judged: Vec<(usize, u64, f32)> = Vec::with_capacity(numbered.len());
    for numbered in numbered.chunks(BATCH) {
        let draw = |&(number, scene): &(usize, u64)| {
            stop.check()?;
            sampler.draw(false, scene, choice(number, 1))
        };
        let tiles: Vec<Tile> = numbered.par_iter().map(draw).collect::<Result<_>>()?;
        // Where ships are everywhere, a draw may show some against its order, labelled or not.
        let free = |tile: &Tile| !tile.doubtful && tile.ship_pixels() == 0;
        let (numbered, tiles): (Vec<_>, Vec<Tile>) = (numbered.iter().zip(tiles))
            .filter(|(_, tile)| free(tile))
            .unzip();
        if tiles.is_empty() {
            continue;
        }
        let scored = numbered.into_iter().zip(fires(&tiles));
        judged.extend(scored.map(|(&(number, scene), score)| (number, scene, score)));
    }
    let mut fresh: Vec<f32> = judged
        .iter()
        .filter(|(number, ..)| *number >= old)
        .map(|(.., score)| *score)
        .collect();
    fresh.sort_by(|a, b| b.total_cmp(a));
    judged.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.0.cmp(&b.0)));
    let looked_at = judged.len();
    judged.truncate(mining.keep);
    mined.round = round;
    mined.scenes = judged.iter().map(|(_, scene, _)| *scene).collect();
    let middle = |sorted: &[f32]| sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
    let kept: Vec<f32> = judged.iter().map(|(.., score)| *score).collect();
    Ok(Report {
        round,
        looked_at,
        kept: kept.len(),
        stayed: judged.iter().filter(|(number, ..)| *number < old).count(),
        fresh_median: middle(&fresh),
        kept_median: middle(&kept),
        hardest: kept.first().copied().unwrap_or(0.0),
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "mining round {}: kept {} of {} ship-free scenes, {} from before; false alarms {:.3} at worst, median {:.3} (fresh scenes {:.3})",
            self.round,
            self.kept,
            self.looked_at,
            self.stayed,
            self.hardest,
            self.kept_median,
            self.fresh_median
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Split;
    use crate::data::fixtures;
    use crate::stop::Stopped;

    /// Fires by the tile's brightness: a stand-in that ranks ship-free scenes the same each time.
    fn brightness(tiles: &[Tile]) -> Vec<f32> {
        let mean = |tile: &Tile| {
            let raw = tile.pixels.as_raw();
            raw.iter().map(|&p| f32::from(p)).sum::<f32>() / raw.len() as f32
        };
        tiles.iter().map(mean).collect()
    }

    #[test]
    fn the_hardest_scenes_stay_and_rounds_repeat() {
        let dir = tempfile::tempdir().expect("folder");
        let pool = fixtures::pool(dir.path());
        let sampler = Sampler::new(
            &pool,
            Split::Train,
            64,
            Some(crate::config::Augment::default()),
        )
        .expect("has ships");
        let mining = Mining {
            pool: 40,
            keep: 6,
            ..Mining::default()
        };
        let run = || {
            let mut mined = Mined::default();
            let reports = [1, 2, 3].map(|round| {
                let seed = [5, round as u64];
                let go = Stop::new();
                mine(&mut mined, round, &seed, &sampler, &mining, &go, brightness).expect("mines")
            });
            (mined, reports)
        };
        let (mined, reports) = run();
        assert_eq!((mined.round, mined.scenes.len()), (3, 6));
        for report in &reports {
            assert!(report.hardest >= report.kept_median, "{report}");
            assert!(report.kept_median > report.fresh_median, "{report}");
        }
        assert_eq!(reports[0].stayed, 0);
        assert!(reports[1].looked_at > reports[0].looked_at);
        assert_eq!(run(), (mined, reports), "the same again");
    }

    #[test]
    fn scenes_that_may_show_unlabelled_ships_are_left_out() {
        let dir = tempfile::tempdir().expect("folder");
        let mut pool = fixtures::pool(dir.path());
        pool.sources[0].config.complete = false;
        let mining = Mining::default();
        let round = |augment| {
            let sampler = Sampler::new(&pool, Split::Train, 64, augment).expect("has ships");
            let mut mined = Mined::default();
            let go = Stop::new();
            mine(&mut mined, 1, &[7], &sampler, &mining, &go, brightness).expect("draws");
            mined.scenes.len()
        };
        assert_eq!(round(None), 0, "crops of these images prove nothing");
        // Simulated sea holds what is put there.
        assert!(round(Some(crate::config::Augment::default())) > 0);
    }

    #[test]
    fn scenes_that_no_longer_fool_the_network_leave() {
        let dir = tempfile::tempdir().expect("folder");
        let pool = fixtures::pool(dir.path());
        let sampler = Sampler::new(
            &pool,
            Split::Train,
            64,
            Some(crate::config::Augment::default()),
        )
        .expect("has ships");
        let mining = Mining {
            pool: 20,
            keep: 5,
            ..Mining::default()
        };
        let (mut mined, stop) = (Mined::default(), Stop::new());
        mine(&mut mined, 1, &[1], &sampler, &mining, &stop, brightness).expect("mines");
        let before = mined.scenes.clone();
        // Now the network fires where it is dark.
        let darkness = |tiles: &[Tile]| brightness(tiles).iter().map(|b| -b).collect();
        mine(&mut mined, 2, &[2], &sampler, &mining, &stop, darkness).expect("mines");
        let stayed = mined.scenes.iter().filter(|s| before.contains(s)).count();
        assert!(stayed < 3, "{stayed} of {} stayed", before.len());

        // A round that is cut short has not been.
        let after = mined.clone();
        let asks = |tiles: &[Tile]| {
            stop.ask();
            brightness(tiles)
        };
        let long = Mining {
            pool: 1_000_000,
            ..mining
        };
        let cut = mine(&mut mined, 3, &[3], &sampler, &long, &stop, asks);
        assert!(cut.is_err_and(|error| error.is::<Stopped>()));
        assert_eq!(mined, after);
    }
}

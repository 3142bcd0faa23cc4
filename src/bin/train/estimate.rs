//! What a run will cost in time and disk, measured before it starts.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use burn::backend::Autodiff;
use indicatif::{DecimalBytes, HumanDuration};

use crate::config::{Config, PhaseName};
use crate::data::{Draws, Tile};
use crate::nn::{Encoder, Gate, Params, UNet, collect};
use crate::start::unet_on;
use crate::task::Task;
use crate::trainer::{Engine, Learner, Trainer};

/// Steps that are timed, after one that is not.
const STEPS: usize = 2;

/// What a phase takes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cost {
    /// Seconds from one step to the next.
    step: f64,
    /// Seconds to judge a tile.
    judge: f64,
    /// Seconds to make a tile, as shared among the threads that do it.
    draw: f64,
    /// Bytes of the checkpoint.
    last: u64,
    /// Bytes of the best weights.
    best: u64,
}

/// Measures each of `phases` by a few steps of a network that is then thrown away, and says how fast
/// it goes, how long all will take and how much disk.
///
/// # Errors
/// If the disk has no room for the run, or the user asks to stop.
pub(crate) fn announce<B: Engine>(trainer: &Trainer<B>, phases: &[PhaseName]) -> Result<()> {
    let (config, folder, device) = (trainer.config, trainer.folder, &trainer.device);
    let mut total = 0.0;
    let mut disk = 0;
    let mut largest = 0;
    for &name in phases {
        let phase = config.phases.get(name);
        let cost = if name.is_gate() {
            let gate = Gate::<Autodiff<B>>::new(config.width, device);
            measure(gate, trainer, name)?
        } else {
            measure(unet::<B>(config, device), trainer, name)?
        };
        let done = folder.state(name)?.map_or(0, |state| state.step);
        let seconds = seconds(&cost, config, name, done, trainer.tune.len());
        total += seconds;
        disk += (cost.last + cost.best).saturating_sub(folder.size(name));
        largest = largest.max(cost.last);
        log::info!(
            "{}: {:.1} images/s, about {} for {} steps",
            name.name(),
            phase.batch as f64 / cost.step,
            human(seconds),
            phase.steps - done
        );
    }
    // A new checkpoint is written beside the one that it replaces.
    let needed = disk + largest;
    let free = free(folder.path())?;
    check_room(folder.path(), needed, free)?;
    log::info!(
        "all: about {}; {} of disk, {} are free",
        human(total),
        DecimalBytes(needed),
        DecimalBytes(free)
    );
    Ok(())
}

/// A U-Net of the size that is trained.
fn unet<B: Engine>(config: &Config, device: &B::Device) -> UNet<Autodiff<B>> {
    unet_on(config, Encoder::new(config.width, device), device)
}

fn measure<B: Engine, M: Task<B>>(model: M, trainer: &Trainer<B>, name: PhaseName) -> Result<Cost> {
    let Trainer {
        config,
        sampler,
        device,
        workers,
        stop,
        ..
    } = trainer;
    let workers = *workers as f64;
    let phase = config.phases.get(name);
    let draws = Draws::of(config, name);
    // The first draws also decode images that later ones find decoded.
    draws.batch(sampler, 0, stop)?;
    let (tiles, draw) = timed(|| draws.batch(sampler, 1, stop));
    let tiles = tiles?;
    let draw = draw / phase.batch as f64 / workers;

    let mut learner = Learner::new(model, config, name);
    let mut step = || -> Result<()> {
        stop.check()?;
        learner.step(&tiles, 0.0, device).into_data();
        Ok(())
    };
    step()?;
    let (done, steps) = timed(|| (0..STEPS).try_for_each(|_| step()));
    done?;
    let model = learner.averaged();
    let few: &[Tile] = &tiles[..tiles.len().min(16)];
    M::judge(&model, few, device, stop)?;
    let (judged, judge) = timed(|| M::judge(&model, few, device, stop));
    judged?;
    let step = steps / STEPS as f64;
    let making = draw * phase.batch as f64;
    Ok(Cost {
        // Beside a GPU, tiles are made while it computes; the CPU has to do both.
        step: if shares_cores::<B>(device) {
            step + making * workers / rayon::current_num_threads() as f64
        } else {
            step.max(making)
        },
        judge: judge / few.len() as f64,
        draw,
        last: bytes(&learner.save()),
        best: bytes(&collect(&model)),
    })
}

/// Whether tiles are made by the cores that also train.
fn shares_cores<B: Engine>(device: &B::Device) -> bool {
    !B::name(device).contains("cuda")
}

/// Seconds that a phase has before it, from step `done` on.
fn seconds(cost: &Cost, config: &Config, name: PhaseName, done: usize, tune: usize) -> f64 {
    let phase = config.phases.get(name);
    let first = usize::from(done == 0);
    let looks = first + phase.steps.div_ceil(phase.tune_every) - done / phase.tune_every;
    let mining = &config.mining;
    let rounds = if mining.share > 0.0 {
        (phase.steps.saturating_sub(1) / mining.every).saturating_sub(done / mining.every)
    } else {
        0
    };
    let scene = cost.judge + cost.draw;
    (phase.steps - done) as f64 * cost.step
        + (looks * tune) as f64 * cost.judge
        + (rounds * (mining.pool + mining.keep)) as f64 * scene
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed().as_secs_f64())
}

fn human(seconds: f64) -> HumanDuration {
    HumanDuration(Duration::from_secs_f64(seconds))
}

fn bytes(params: &Params) -> u64 {
    let tensors = params.0.values();
    tensors.map(|tensor| tensor.bytes.len() as u64).sum()
}

fn check_room(path: &Path, needed: u64, free: u64) -> Result<()> {
    ensure!(
        needed <= free,
        "{}: the run needs {} more, and {} are free: make room, or give --out a folder on another disk",
        path.display(),
        DecimalBytes(needed),
        DecimalBytes(free)
    );
    Ok(())
}

/// Bytes that may still be written where `path` is.
fn free(path: &Path) -> Result<u64> {
    let disk = rustix::fs::statvfs(path).with_context(|| path.display().to_string())?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use burn::module::AutodiffModule;
    use burn_flex::{Flex, FlexDevice};

    use super::*;
    use crate::data::{Sampler, Split, fixtures};
    use crate::start::Start;

    #[test]
    fn time_by_hand() {
        let text = r#"
            name = "toy"
            gsd = [1.0, 2.0]
            mining = { every = 40, pool = 6, keep = 4 }
            phases.unet = { steps = 100, tune-every = 30 }
            data = [{ name = "sea", root = ".", licence = "", attribution = "", scale = [1.0, 1.0] }]
        "#;
        let config: Config = toml::from_str(text).expect("a config");
        let cost = Cost {
            step: 2.0,
            judge: 0.25,
            draw: 0.5,
            last: 0,
            best: 0,
        };
        let seconds = |done| seconds(&cost, &config, PhaseName::Unet, done, 8);
        // 100 steps; looks at 0, 30, 60, 90 and 100; rounds at 40 and 80, of ten scenes each.
        assert_eq!(seconds(0), 200.0 + 5.0 * 2.0 + 2.0 * 7.5);
        // What stands at step 60 has been looked at and mined there.
        assert_eq!(seconds(60), 80.0 + 2.0 * 2.0 + 7.5);
        // Stopped in its last look, at the step of a round that never comes.
        let config = toml::from_str(&text.replace("steps = 100", "steps = 80"));
        let config: Config = config.expect("a config");
        assert_eq!(super::seconds(&cost, &config, PhaseName::Unet, 80, 8), 2.0);
    }

    /// What the log says of a network's size is that of the network that a run trains.
    #[test]
    fn the_unet_that_is_measured_is_the_one_that_is_trained() {
        let dir = tempfile::tempdir().expect("folder");
        let pool = fixtures::pool(dir.path());
        let sampler = Sampler::new(&pool, Split::Train, 64, None).expect("has ships");
        let device = FlexDevice;
        for separation in [false, true] {
            let text = format!(
                r#"
                name = "toy"
                gsd = [1.0, 2.0]
                separation = {separation}
                phases.unet = {{ steps = 1 }}
                data = [{{ name = "sea", root = ".", licence = "", attribution = "", scale = [1.0, 1.0] }}]
            "#
            );
            let config: Config = toml::from_str(&text).expect("a config");
            let start = Start::<Flex>::open(&config, &sampler, &device).expect("random weights");
            let trained = start.unet(None).expect("random weights").valid();
            let measured = unet::<Flex>(&config, &device).valid();
            assert_eq!(bytes(&collect(&measured)), bytes(&collect(&trained)));
            assert_eq!(measured.outputs(), 1 + usize::from(separation));
        }
    }

    #[test]
    fn a_disk_without_room_is_refused() {
        let dir = tempfile::tempdir().expect("folder");
        let free = free(dir.path()).expect("asks");
        assert!(free > 0);
        check_room(dir.path(), free, free).expect("fits");
        let error = check_room(dir.path(), 2_000_000_001, 1_000_000).expect_err("no room");
        let error = error.to_string();
        assert!(
            error.contains("2.00 GB") && error.contains("1.00 MB"),
            "{error}"
        );
    }
}

//! Trains shipwatch's networks on a workstation and exports them for the edge.

mod config;
mod curves;
mod data;
mod device;
mod estimate;
mod eval;
mod export;
mod files;
mod logging;
mod loss;
mod lr_range;
mod miner;
mod nn;
mod plot;
mod progress;
mod release;
mod run_folder;
mod run_info;
mod schedule;
mod split;
mod task;
mod tensors;
mod trainer;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use clap::{Parser, Subcommand};
use rayon::prelude::*;
use shipwatch::detect::Detector;
use shipwatch::model::Bundle;

use crate::config::{Config, PhaseName};
use crate::data::{Pool, Sampler, Split, Tile, key};
use crate::device::{DeviceChoice, use_cuda};
use crate::eval::{Table, evaluate};
use crate::nn::{Gate, Params, UNet, apply, load_pretrained, unfold};
use crate::run_folder::RunFolder;
use crate::run_info::Session;
use crate::trainer::{Engine, Outcome, Trainer};

/// Trains shipwatch's gate and U-Net, exports them as ONNX and judges them.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train through the phases of the config, going on where a stopped run left off.
    ///
    /// Ctrl-C saves a checkpoint and ends with exit code 130; the same command goes on from there. A
    /// run that is killed goes on from its last checkpoint.
    Run {
        /// What to train on what (TOML).
        #[arg(long)]
        config: PathBuf,
        /// Folder for checkpoints and metrics.
        #[arg(long)]
        out: PathBuf,
        /// Only this phase; those before it must be over.
        #[arg(long, value_enum)]
        phase: Option<PhaseName>,
        /// ImageNet weights to start from (safetensors), instead of those the config names.
        #[arg(long)]
        pretrained: Option<PathBuf>,
        /// Processor to train on.
        #[arg(long, value_enum, default_value = "auto")]
        device: DeviceChoice,
        /// Threads that prepare tiles; as the processor has cores to spare if not given.
        #[arg(long)]
        workers: Option<NonZeroUsize>,
    },
    /// Find a learning rate for a phase: raise it step by step and watch the loss.
    LrRange {
        /// What would be trained on what (TOML).
        #[arg(long)]
        config: PathBuf,
        /// The phase.
        #[arg(long, value_enum)]
        phase: PhaseName,
        /// Folder for the loss at each rate, as CSV and PNG.
        #[arg(long)]
        out: PathBuf,
        /// A run in which the phases before are over; without one the phase starts from where a run
        /// starts.
        #[arg(long)]
        run: Option<PathBuf>,
        /// Steps of the sweep.
        #[arg(long, default_value_t = 100)]
        steps: usize,
        /// Processor to train on.
        #[arg(long, value_enum, default_value = "auto")]
        device: DeviceChoice,
        /// Threads that prepare tiles; as the processor has cores to spare if not given.
        #[arg(long)]
        workers: Option<NonZeroUsize>,
    },
    /// Write a trained run as a model bundle: ONNX, thresholds tuned, scores measured.
    Export {
        /// Folder of the run.
        #[arg(long)]
        run: PathBuf,
        /// Folder for the bundle.
        #[arg(long)]
        out: PathBuf,
    },
    /// Set images aside for tuning and testing so that no scene is on two sides.
    Split(split::Args),
    /// Judge a model bundle by the code that the edge runs.
    Eval {
        /// The bundle.
        #[arg(long)]
        models: PathBuf,
        /// A config that names the data.
        #[arg(long)]
        config: PathBuf,
        /// Which images.
        #[arg(long, value_enum, default_value = "test")]
        split: Split,
    },
}

/// Tiles by which weights are compared.
const TUNE_TILES: u64 = 512;

/// Tiles by which batch norms that a pretrained file lacks are measured.
const NORM_TILES: u64 = 32;

/// Sets the draws of tune tiles apart from those of the phases.
const TUNE: u64 = 0x7e57;

static STOP: AtomicBool = AtomicBool::new(false);

/// Exit code of a run that Ctrl-C stopped: 128 and the signal's number, as shells have it.
const INTERRUPTED: u8 = 130;

fn main() -> Result<ExitCode> {
    logging::init();
    match Cli::parse().command {
        Command::Run {
            config,
            out,
            phase,
            pretrained,
            device,
            workers,
        } => {
            ctrlc::set_handler(|| {
                // Whoever asks twice does not want to wait for the checkpoint.
                if STOP.swap(true, Ordering::Relaxed) {
                    std::process::exit(INTERRUPTED.into());
                }
            })?;
            let mut config = Config::load(&config)?;
            if let Some(file) = pretrained {
                let found = file.canonicalize();
                config.pretrained = Some(found.with_context(|| file.display().to_string())?);
            }
            let cuda = use_cuda(device)?;
            let workers = workers.map_or_else(|| spare_cores(cuda), NonZeroUsize::get);
            let outcome = match cuda {
                #[cfg(feature = "cuda")]
                true => run::<burn::backend::Cuda>(&config, &out, phase, workers)?,
                _ => run::<burn_flex::Flex>(&config, &out, phase, workers)?,
            };
            if outcome == Outcome::Stopped {
                log::info!("stopped: run the same command again to go on");
                return Ok(ExitCode::from(INTERRUPTED));
            }
        }
        Command::LrRange {
            config,
            phase,
            out,
            run,
            steps,
            device,
            workers,
        } => {
            let config = Config::load(&config)?;
            let cuda = use_cuda(device)?;
            let workers = workers.map_or_else(|| spare_cores(cuda), NonZeroUsize::get);
            let run = run.as_deref();
            match cuda {
                #[cfg(feature = "cuda")]
                true => {
                    lr_range::<burn::backend::Cuda>(&config, phase, &out, run, steps, workers)?;
                }
                _ => lr_range::<burn_flex::Flex>(&config, phase, &out, run, steps, workers)?,
            }
        }
        Command::Export { run, out } => release::export(&run, &out)?,
        Command::Split(args) => split::run(&args)?,
        Command::Eval {
            models,
            config,
            split,
        } => {
            let config = Config::load(&config)?;
            let pool = Pool::open(&config.data, config.cache_mib)?;
            let detector = Detector::new(Bundle::load(&models)?);
            let threshold = detector.manifest().thresholds.gate;
            let evaluation = evaluate(&detector, &pool, split)?;
            ensure!(
                !evaluation.sets.is_empty(),
                "no image of the {split:?} split can be read: name some under [[data]]"
            );
            print!("{}", Table(&evaluation, threshold));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Cores that may make tiles: half of them beside training on the CPU, all but one beside a GPU.
fn spare_cores(cuda: bool) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    if cuda { cores - 1 } else { cores / 2 }.max(1)
}

/// Trains one phase, or all that the config has steps for.
fn run<B: Engine>(
    config: &Config,
    out: &Path,
    only: Option<PhaseName>,
    workers: usize,
) -> Result<Outcome> {
    let device = B::Device::default();
    let folder = RunFolder::create(out, config)?;
    logging::copy_to(&folder.file("train.log"))?;
    let pool = Pool::open(&config.data, config.cache_mib)?;
    let session = Session::start(B::name(&device), workers);
    run_info::describe(&folder, config, pool.split_hash(), session)?;
    let sampler = Sampler::new(&pool, Split::Train, config.tile, true)?;
    let tune = tune_tiles(&pool, config)?;
    log::info!("{sampler:?}, {} tune tiles", tune.len());
    let trainer = Trainer::<B> {
        config,
        folder: &folder,
        sampler: &sampler,
        tune: &tune,
        device: device.clone(),
        workers,
        stop: &STOP,
    };
    let planned = |name: &PhaseName| config.phases.get(*name).steps > 0;
    if let Some(name) = only {
        ensure!(
            planned(&name),
            "the config has no steps for phase {}",
            name.name()
        );
    }
    let mut ahead = Vec::new();
    for name in PhaseName::ALL.into_iter().filter(planned) {
        if only.is_some_and(|only| only != name) {
            continue;
        }
        if folder.is_done(name)? {
            log::info!("{}: done", name.name());
        } else {
            ahead.push(name);
        }
    }
    if let [first, ..] = ahead[..] {
        // What it builds on must be there, or the measuring would be for nothing.
        result_before(config, &folder, first)?;
        estimate::announce::<B>(
            config,
            &folder,
            &sampler,
            tune.len(),
            &device,
            workers,
            &ahead,
        )?;
    }
    for name in ahead {
        // Random starts follow from the phase alone, whatever ran before it.
        B::seed(&device, key(&[config.seed, name as u64]));
        let before = result_before(config, &folder, name)?;
        let outcome = if name.is_gate() {
            trainer.train(name, start_gate(config, &sampler, &device, before)?)?
        } else {
            trainer.train(name, start_unet(config, &sampler, &device, before)?)?
        };
        if outcome == Outcome::Stopped || STOP.load(Ordering::Relaxed) {
            return Ok(Outcome::Stopped);
        }
    }
    Ok(Outcome::Done)
}

/// Sweeps the learning rate of one phase; from the weights of `run` if there is one.
fn lr_range<B: Engine>(
    config: &Config,
    name: PhaseName,
    out: &Path,
    run: Option<&Path>,
    steps: usize,
    workers: usize,
) -> Result<()> {
    let device = B::Device::default();
    let pool = Pool::open(&config.data, config.cache_mib)?;
    let sampler = Sampler::new(&pool, Split::Train, config.tile, true)?;
    let before = match run {
        Some(run) => result_before(config, &RunFolder::open(run), name)?,
        None => None,
    };
    B::seed(&device, key(&[config.seed, name as u64]));
    let sweep = lr_range::Sweep {
        config,
        name,
        sampler: &sampler,
        workers,
        steps,
    };
    if name.is_gate() {
        let gate = start_gate::<B>(config, &sampler, &device, before)?;
        sweep.run(gate, &device, out)
    } else {
        let unet = start_unet::<B>(config, &sampler, &device, before)?;
        sweep.run(unet, &device, out)
    }
}

/// The phase on which another builds, and what it ended with; none for the first.
///
/// # Errors
/// If that phase is not over.
fn result_before(
    config: &Config,
    folder: &RunFolder,
    name: PhaseName,
) -> Result<Option<(PhaseName, Params)>> {
    let mut earlier = PhaseName::ALL.into_iter().rev().filter(|n| *n < name);
    match earlier.find(|name| config.phases.get(*name).steps > 0) {
        Some(before) => Ok(Some((before, folder.result(before)?))),
        None => Ok(None),
    }
}

/// The gate that a phase starts from.
fn start_gate<B: Engine>(
    config: &Config,
    sampler: &Sampler,
    device: &B::Device,
    before: Option<(PhaseName, Params)>,
) -> Result<Gate<Autodiff<B>>> {
    match before {
        Some((_, weights)) => Ok(apply(Gate::new(config.width, device), &weights)?),
        None => start::<B>(config, sampler, device),
    }
}

/// The U-Net that a phase starts from: on the gate's encoder if the gate came before.
fn start_unet<B: Engine>(
    config: &Config,
    sampler: &Sampler,
    device: &B::Device,
    before: Option<(PhaseName, Params)>,
) -> Result<UNet<Autodiff<B>>> {
    let gate = || Gate::<Autodiff<B>>::new(config.width, device);
    let unet = |encoder| UNet::on(encoder, config.decoder, device);
    Ok(match before {
        Some((before, weights)) if before.is_gate() => unet(apply(gate(), &weights)?.encoder),
        Some((_, weights)) => apply(unet(gate().encoder), &weights)?,
        None => unet(start::<B>(config, sampler, device)?.encoder),
    })
}

/// Tiles by which weights are compared: half of them with ships, as far as the images allow.
///
/// # Errors
/// If all are of one kind, for then no score would tell good weights from bad.
fn tune_tiles(pool: &Pool, config: &Config) -> Result<Vec<Tile>> {
    let sampler = Sampler::new(pool, Split::Tune, config.tile, false)?;
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

/// A gate to train: from the pretrained weights if the config names some.
fn start<B: Engine>(
    config: &Config,
    sampler: &Sampler,
    device: &B::Device,
) -> Result<Gate<Autodiff<B>>> {
    let gate = Gate::<Autodiff<B>>::new(config.width, device);
    let Some(file) = &config.pretrained else {
        return Ok(gate);
    };
    let context = || file.display().to_string();
    let weights = Params::load(file)?;
    let (gate, report) = load_pretrained(gate, &weights).with_context(context)?;
    log::info!(
        "{}: {} tensors applied; start anew: {:?}; unused: {:?}",
        file.display(),
        report.applied,
        report.untouched,
        report.unused
    );
    if !report.folded {
        return Ok(gate);
    }
    log::info!("{}: measuring the folded batch norms", file.display());
    let draw = |i: u64| {
        let choice = |what| key(&[config.seed, TUNE, i, what]);
        sampler.draw(i.is_multiple_of(2), choice(1), choice(2))
    };
    let tiles: Vec<Tile> = (0..NORM_TILES).map(draw).collect::<Result<_>>()?;
    let norms = unfold(&gate.valid(), tensors::pixels(&tiles, device));
    Ok(apply(gate, &norms)?)
}

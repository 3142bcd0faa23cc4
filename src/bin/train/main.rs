//! Trains shipwatch's networks on a workstation and exports them for the edge.

mod config;
mod data;
mod device;
mod eval;
mod export;
mod files;
mod grid;
mod loss;
mod nn;
mod plot;
mod progress;
mod release;
mod run_folder;
mod schedule;
mod split;
mod stats;
mod task;
mod tensors;
mod trainer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use clap::{Parser, Subcommand};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shipwatch::detect::Detector;
use shipwatch::model::Bundle;

use crate::config::Config;
use crate::data::{Pool, Sampler, Split, Tile};
use crate::device::{DeviceChoice, use_cuda};
use crate::eval::{Table, evaluate, tune_tiles, write_report};
use crate::nn::{FusedOps, Gate, Params, UNet, apply, load_pretrained, unfold};
use crate::run_folder::RunFolder;
use crate::trainer::Trainer;

/// Trains shipwatch's gate and U-Net, exports them as ONNX and judges them.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train the gate, then the U-Net on its encoder; going on where a stopped run left off.
    Run {
        /// What to train on what (TOML).
        #[arg(long)]
        config: PathBuf,
        /// Folder for checkpoints and metrics.
        #[arg(long)]
        out: PathBuf,
        /// ImageNet weights to start from (safetensors), instead of those the config names.
        #[arg(long)]
        pretrained: Option<PathBuf>,
        /// Processor to train on.
        #[arg(long, value_enum, default_value = "auto")]
        device: DeviceChoice,
        /// Threads that prepare tiles.
        #[arg(long, default_value_t = 1)]
        workers: usize,
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
    /// Count what data sets hold.
    Stats(stats::Args),
    /// Set images aside for tuning and testing so that no scene is on two sides.
    Split(split::Args),
    /// Write the frames by which models are judged, in the challenge's layout.
    Frames {
        /// A config that names the data.
        #[arg(long)]
        config: PathBuf,
        /// Which images they are made of.
        #[arg(long, value_enum)]
        split: Split,
        /// Folder for the frames.
        #[arg(long)]
        out: PathBuf,
    },
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
        /// Folder for figures as JSON, curves and contact sheets as PNG.
        #[arg(long)]
        report: Option<PathBuf>,
    },
}

/// Tiles by which weights are compared; the same ones throughout a run.
const TUNE_TILES: usize = 512;

static STOP: AtomicBool = AtomicBool::new(false);

fn main() -> Result<()> {
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("SHIPWATCH_LOG", "info")).init();
    match Cli::parse().command {
        Command::Run {
            config,
            out,
            pretrained,
            device,
            workers,
        } => {
            ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed))?;
            let mut config = Config::load(&config)?;
            if let Some(file) = pretrained {
                let found = file.canonicalize();
                config.pretrained = Some(found.with_context(|| file.display().to_string())?);
            }
            if use_cuda(device)? {
                #[cfg(feature = "cuda")]
                return run::<burn::backend::Cuda>(&config, &out, workers);
            }
            run::<burn_flex::Flex>(&config, &out, workers)
        }
        Command::Export { run, out } => release::export(&run, &out),
        Command::Stats(args) => stats::run(&args),
        Command::Split(args) => split::run(&args),
        Command::Frames { config, split, out } => {
            eval::frames::write(&Config::load(&config)?, split, &out)
        }
        Command::Eval {
            models,
            config,
            split,
            report,
        } => {
            let config = Config::load(&config)?;
            let pool = Pool::open(&config.data, config.cache_mib)?;
            let detector = Detector::new(Bundle::load(&models)?);
            let evaluation = evaluate(&detector, &pool, &config, split, None)?;
            print!("{}", Table(&evaluation));
            match report {
                Some(folder) => write_report(&folder, &evaluation, &detector, &pool, &config),
                None => Ok(()),
            }
        }
    }
}

/// Trains both networks.
fn run<B: FusedOps>(config: &Config, out: &Path, workers: usize) -> Result<()> {
    let device = B::Device::default();
    B::seed(&device, config.seed);
    let folder = RunFolder::create(out, config)?;
    let pool = Pool::open(&config.data, config.cache_mib)?;
    let tune = tune_tiles(&pool, config, TUNE_TILES)?;
    let trainer = Trainer::<B> {
        pool: &pool,
        tune: &tune,
        folder: &folder,
        device: device.clone(),
        tile: config.tile,
        seed: config.seed,
        workers: workers.max(1),
        stop: &STOP,
    };

    let gate = start::<B>(config, &pool, &device)?;
    let best = trainer.train(gate, &config.gate)?;
    let gate = apply(Gate::<Autodiff<B>>::new(config.width, &device), &best)?;
    let unet = UNet::on(gate.encoder, config.decoder, &device);
    trainer.train(unet, &config.unet)?;
    Ok(())
}

/// A gate to train: from the pretrained weights if the config names some.
fn start<B: FusedOps>(
    config: &Config,
    pool: &Pool,
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
    let sampler = Sampler::new(pool, Split::Train, config.tile, true)?;
    let mut rng = StdRng::seed_from_u64(config.seed);
    let mut draw = |i| sampler.draw(i % 2 == 0, rng.random(), rng.random());
    let tiles: Vec<Tile> = (0..config.gate.batch)
        .map(&mut draw)
        .collect::<Result<_>>()?;
    let norms = unfold(&gate.valid(), tensors::pixels(&tiles, device));
    Ok(apply(gate, &norms)?)
}

//! Trains shipwatch's networks on a workstation and exports them for the edge.

mod config;
mod data;
mod device;
mod eval;
mod export;
mod files;
mod loss;
mod nn;
mod progress;
mod release;
mod run_folder;
mod schedule;
mod task;
mod tensors;
mod trainer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::Tensor;
use clap::{Parser, Subcommand};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shipwatch::detect::Detector;
use shipwatch::model::Bundle;

use crate::config::Config;
use crate::data::{Pool, Sampler, Split, Tile};
use crate::device::{DeviceChoice, use_cuda};
use crate::eval::{Table, evaluate};
use crate::nn::{FusedOps, Gate, Pretrained, UNet, apply};
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
        /// Weights to start from (ImageNet's in safetensors, or a bundle), instead of those the config
        /// names.
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
            Ok(())
        }
    }
}

/// Trains both networks.
fn run<B: FusedOps>(config: &Config, out: &Path, workers: usize) -> Result<()> {
    let device = B::Device::default();
    B::seed(&device, config.seed);
    let folder = RunFolder::create(out, config)?;
    let pool = Pool::open(&config.data, config.cache_mib)?;
    let trainer = Trainer::<B> {
        pool: &pool,
        folder: &folder,
        device: device.clone(),
        tile: config.tile,
        seed: config.seed,
        workers: workers.max(1),
        stop: &STOP,
    };

    let pretrained = config.pretrained.as_deref().map(Pretrained::load);
    let pretrained = pretrained.transpose()?;
    let images = || first_images::<B>(config, &pool, &device);

    let mut gate = Gate::<Autodiff<B>>::new(config.width, &device);
    if let Some(weights) = &pretrained {
        let (start, report) = weights.gate(config.width, &device, images)?;
        log::info!("gate starts from pretrained weights: {report}");
        gate = apply(gate, &start)?;
    }
    let best = trainer.train(gate, &config.gate)?;
    let gate = apply(Gate::<Autodiff<B>>::new(config.width, &device), &best)?;
    let mut unet = UNet::on(gate.encoder, config.decoder, &device);
    if config.separation {
        unet = unet.with_centrality(&device);
    }
    if let Some(weights) = &pretrained
        && let Some((start, report)) = weights.unet(unet.valid(), images)?
    {
        log::info!("U-Net starts from pretrained weights: {report}");
        unet = apply(unet, &start)?;
    }
    trainer.train(unet, &config.unet)?;
    Ok(())
}

/// A batch `[N, 3, S, S]` to measure the statistics of pretrained weights on.
fn first_images<B: FusedOps>(
    config: &Config,
    pool: &Pool,
    device: &B::Device,
) -> Result<Tensor<B, 4>> {
    let sampler = Sampler::new(pool, Split::Train, config.tile, true)?;
    let mut rng = StdRng::seed_from_u64(config.seed);
    let mut draw = |i| sampler.draw(i % 2 == 0, rng.random(), rng.random());
    let tiles: Vec<Tile> = (0..config.gate.batch)
        .map(&mut draw)
        .collect::<Result<_>>()?;
    Ok(tensors::pixels(&tiles, device))
}

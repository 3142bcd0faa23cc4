//! Trains shipwatch's networks on a workstation and exports them for the edge.

mod bench;
mod config;
mod data;
mod device;
mod eval;
mod export;
mod files;
mod loss;
mod miner;
mod nn;
mod plot;
mod progress;
mod release;
mod run;
mod run_folder;
mod schedule;
mod split;
mod start;
mod task;
mod tensors;
mod tiles;
mod trainer;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use shipwatch::detect::Detector;
use shipwatch::model::Bundle;

use crate::config::{Config, PhaseName};
use crate::data::{Pool, Split};
use crate::device::{DeviceChoice, use_cuda};
use crate::eval::{Table, evaluate, write_report};
use crate::run::run;
use crate::trainer::Outcome;

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
        /// Weights to start from (ImageNet's in safetensors, or a bundle), instead of those the config
        /// names.
        #[arg(long)]
        pretrained: Option<PathBuf>,
        /// Processor to train on.
        #[arg(long, value_enum, default_value = "auto")]
        device: DeviceChoice,
        /// Threads that prepare tiles; as the processor has cores to spare if not given.
        #[arg(long)]
        workers: Option<NonZeroUsize>,
    },
    /// Write contact sheets of the tiles that training sees, the ships outlined.
    Tiles {
        /// What would be trained on what (TOML).
        #[arg(long)]
        config: PathBuf,
        /// Folder for the sheets.
        #[arg(long)]
        out: PathBuf,
        /// Tiles with ships, and as many without.
        #[arg(long, default_value_t = 48)]
        count: usize,
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
    /// Measure how fast this machine trains, on made-up tiles.
    Bench {
        #[command(flatten)]
        workload: bench::Workload,
        /// Processor to train on.
        #[arg(long, value_enum, default_value = "cpu")]
        device: DeviceChoice,
    },
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

static STOP: AtomicBool = AtomicBool::new(false);

/// Exit code of a run that Ctrl-C stopped: 128 and the signal's number, as shells have it.
const INTERRUPTED: u8 = 130;

fn main() -> Result<ExitCode> {
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("SHIPWATCH_LOG", "info")).init();
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
                true => run::<burn::backend::Cuda>(&config, &out, phase, workers, &STOP)?,
                _ => run::<burn_flex::Flex>(&config, &out, phase, workers, &STOP)?,
            };
            if outcome == Outcome::Stopped {
                log::info!("stopped: run the same command again to go on");
                return Ok(ExitCode::from(INTERRUPTED));
            }
        }
        Command::Tiles { config, out, count } => {
            tiles::write_sheets(&Config::load(&config)?, &out, count)?;
        }
        Command::Export { run, out } => release::export(&run, &out)?,
        Command::Split(args) => split::run(&args)?,
        Command::Bench { workload, device } => {
            let report = match use_cuda(device)? {
                #[cfg(feature = "cuda")]
                true => bench::bench::<burn::backend::Cuda>(&workload, &Default::default())?,
                _ => bench::bench::<burn_flex::Flex>(&workload, &Default::default())?,
            };
            print!("{report}");
        }
        Command::Frames { config, split, out } => {
            eval::frames::write(&Config::load(&config)?, split, &out)?;
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
            let evaluation = evaluate(&detector, &pool, &config, split)?;
            print!("{}", Table(&evaluation));
            if let Some(folder) = report {
                write_report(&folder, &evaluation, &detector, &pool, &config)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Cores that may make tiles: half of them beside training on the CPU, all but one beside a GPU.
fn spare_cores(cuda: bool) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    if cuda { cores - 1 } else { cores / 2 }.max(1)
}

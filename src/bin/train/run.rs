//! One pass through the phases that a config plans.

use std::any::TypeId;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use crate::config::{Config, PhaseName};
use crate::data::{Pool, Sampler, Split, check_masks, key};
use crate::device::{DeviceChoice, Job};
use crate::estimate;
use crate::eval::tune_tiles;
use crate::logging;
use crate::run_folder::RunFolder;
use crate::run_info::{self, Session};
use crate::start::{Start, has_other_split, result_before};
use crate::stop::{INTERRUPTED, Stop, Stopped, on_signals};
use crate::trainer::{Engine, Trainer};

/// Tiles by which weights are compared; the same ones throughout a run.
pub(crate) const TUNE_TILES: usize = 512;

/// Trains the gate, then the U-Net on its encoder.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to train on what (TOML).
    #[arg(long)]
    config: PathBuf,
    /// Folder for checkpoints and metrics.
    #[arg(long)]
    out: PathBuf,
    /// Go on with the run in --out; refused where none is there.
    #[arg(long)]
    resume: bool,
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
}

/// `train run`: exit code 130 where Ctrl-C stopped it.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let stop = on_signals()?;
    if args.resume {
        RunFolder::open(&args.out).context("nothing to go on with: --resume begins no run")?;
    }
    let mut config = Config::load(&args.config)?;
    if let Some(file) = &args.pretrained {
        let found = file.canonicalize();
        config.pretrained = Some(found.with_context(|| file.display().to_string())?);
    }
    let training = Training {
        config: &config,
        out: &args.out,
        only: args.phase,
        workers: args.workers,
        stop,
    };
    match args.device.run(training) {
        Err(error) if error.is::<Stopped>() => {
            log::info!("stopped: run the same command again to go on");
            Ok(ExitCode::from(INTERRUPTED))
        }
        ended => ended.map(|()| ExitCode::SUCCESS),
    }
}

/// One phase, or all that the config has steps for.
struct Training<'a> {
    config: &'a Config,
    out: &'a Path,
    only: Option<PhaseName>,
    workers: Option<NonZeroUsize>,
    stop: &'static Stop,
}

impl Job for Training<'_> {
    type Output = ();

    fn on<B: Engine>(self) -> Result<()> {
        let config = self.config;
        let device = B::Device::default();
        let workers = workers::<B>(self.workers);
        let folder = RunFolder::create(self.out)?;
        logging::copy_to(&folder.file("train.log"))?;
        let pool = Pool::open(&config.data, config.cache_mib)?;
        let session = Session::start(B::name(&device), workers);
        run_info::describe(&folder, config, &pool, session)?;
        let sampler = Sampler::new(&pool, Split::Train, config.tile, Some(config.augment))?;
        check_masks(&pool, self.stop)?;
        let tune = tune_tiles(&pool, config, TUNE_TILES, self.stop)?;
        log::info!("{sampler:?}, {} tune tiles", tune.len());
        if has_other_split(config, &pool) {
            log::warn!(
                "the bundle that the run starts from was trained by another split: it may have been trained on images that are for tuning and testing here"
            );
        }
        let trainer = Trainer::<B> {
            config,
            folder: &folder,
            sampler: &sampler,
            tune: &tune,
            device: device.clone(),
            workers,
            stop: self.stop,
        };
        let ahead = self.ahead(&folder)?;
        if let [first, ..] = ahead[..] {
            // What it builds on must be there, or the measuring would be for nothing.
            result_before(config, &folder, first)?;
            estimate::announce(&trainer, &ahead)?;
        }
        let start = Start::<B>::open(config, &sampler, &device)?;
        for name in ahead {
            // Random starts follow from the phase alone, whatever ran before it.
            B::seed(&device, key(&[config.seed, name as u64]));
            let before = result_before(config, &folder, name)?;
            let before = before.as_ref().map(|(name, weights)| (*name, weights));
            if name.is_gate() {
                trainer.train(name, start.gate(before.map(|(_, weights)| weights))?)?;
            } else {
                trainer.train(name, start.unet(before)?)?;
            }
        }
        Ok(())
    }
}

impl Training<'_> {
    /// The phases that are still to be trained, in their order.
    fn ahead(&self, folder: &RunFolder) -> Result<Vec<PhaseName>> {
        let planned = |name: &PhaseName| self.config.phases.get(*name).steps > 0;
        if let Some(name) = self.only {
            let name = name.name();
            ensure!(
                self.only.as_ref().is_some_and(planned),
                "the config has no steps for phase {name}"
            );
        }
        let mut ahead = Vec::new();
        for name in PhaseName::FLOAT.into_iter().filter(planned) {
            if self.only.is_some_and(|only| only != name) {
                continue;
            }
            if folder.is_done(name)? {
                log::info!("{}: done", name.name());
            } else {
                ahead.push(name);
            }
        }
        Ok(ahead)
    }
}

/// Threads that make tiles: as asked, else half of the cores beside training on the CPU, and all but
/// one beside a GPU.
pub(crate) fn workers<B: Engine>(asked: Option<NonZeroUsize>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let on_cpu = TypeId::of::<B>() == TypeId::of::<burn_flex::Flex>();
    let spare = if on_cpu { cores / 2 } else { cores - 1 };
    asked.map_or(spare.max(1), NonZeroUsize::get)
}

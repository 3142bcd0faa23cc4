//! What a daemon is to do: the config, with what was typed laid over it, and its models.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use shipwatch::clock::MonotonicClock;
use shipwatch::daemon::config::{Config, SourceConfig};
use shipwatch::daemon::selftest;
use shipwatch::source::folder::{FolderError, FolderWatch};

use crate::cli::RunArgs;
use crate::detect::load_models;
use crate::exit::{Exit, Failure, OrExit};
use crate::lookout::Lookout;

/// A daemon's task.
pub(super) struct Plan {
    pub(super) config: Config,
    pub(super) lookout: Lookout,
}

impl Plan {
    /// The config; its folders are made if that is asked for, and are there.
    pub(super) fn config(args: &RunArgs) -> Result<Config, Failure> {
        let config = read(args)?;
        let watched = || config.source.iter().filter_map(SourceConfig::watched);
        if args.create {
            for folder in watched() {
                std::fs::create_dir_all(folder)
                    .with_context(|| format!("cannot create the folder {}", folder.display()))
                    .or_exit(Exit::CannotCreate)?;
            }
        }
        for source in &config.source {
            if let Some(folder) = source.watched() {
                FolderWatch::open(folder, source.folder_options()).map_err(unwatchable)?;
            }
        }
        let ends = |source: &SourceConfig| source.watched().is_some() || source.is_stdin();
        if args.once && !config.source.iter().all(ends) {
            let error = anyhow!(
                "--once has no end with a camera, a FIFO or a command: take its [[source]] out, or --once"
            );
            return Err(Failure::new(Exit::Config, error));
        }
        Ok(config)
    }

    /// Loads the models that a config names.
    pub(super) fn of(config: Config) -> Result<Self, Failure> {
        let models = load_models(config.models.as_deref())?;
        let options = config
            .source
            .iter()
            .map(|source| config.detect_options(source));
        let lookout = Lookout::new(models, options.collect());
        Ok(Self { config, lookout })
    }

    /// Whether the models work on this machine. The built-in image says so only of models for its resolution.
    pub(super) fn test(&self) -> anyhow::Result<()> {
        let detector = self.lookout.detector();
        let report = selftest::run(detector, &MonotonicClock::new())?;
        let [finest, coarsest] = detector.manifest().gsd;
        if (finest..=coarsest).contains(&selftest::GSD) && !report.passed() {
            bail!("the models fail on a known image: {report}");
        }
        Ok(())
    }
}

/// The config file with what was typed laid over it.
fn read(args: &RunArgs) -> Result<Config, Failure> {
    let mut config = match &args.config {
        Some(path) => Config::read(path).or_exit(Exit::Config)?,
        None => Config::default(),
    };
    if let Some(folder) = &args.folder {
        // Of several, none is the one that is meant.
        config.source.truncate(1);
        config.source.iter_mut().for_each(|source| {
            source.folder = Some(folder.clone());
            source.camera = None;
            source.stream = None;
            source.command = None;
        });
    }
    if let Some(output) = &args.output {
        config.output.detections.clone_from(output);
    }
    let typed = |typed: &Option<PathBuf>, configured| typed.clone().or(configured);
    config.output.overlay = typed(&args.overlay, config.output.overlay);
    config.models = typed(&args.models, config.models);
    config.runtime_folder = typed(&args.runtime_folder, config.runtime_folder);
    let problems = config.check();
    if problems.is_empty() {
        return Ok(config);
    }
    let source = args
        .config
        .as_ref()
        .map_or("the command line".into(), |path| path.display().to_string());
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Err(Failure::new(
        Exit::Config,
        anyhow!("{source}: {}", problems.join("; ")),
    ))
}

pub(super) fn unwatchable(error: FolderError) -> Failure {
    match error {
        FolderError::Missing(_) => Failure::new(
            Exit::NoInput,
            anyhow!("{error}, let --create do it, or name another by --folder"),
        ),
        FolderError::Unreadable { .. } => Failure::new(Exit::NoInput, error),
    }
}

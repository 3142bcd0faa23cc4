//! `shipwatch run`: the daemon on a watched folder.

use std::fs;

use anyhow::{Context, anyhow};
use log::info;
use shipwatch::daemon::config::{Config, SourceConfig};
use shipwatch::daemon::output::{Output, OutputError};
use shipwatch::daemon::{Daemon, Feed, Kept, Stop};
use shipwatch::ledger::{Ledger, LedgerError};
use shipwatch::sink::Overlay;
use shipwatch::source::Source;
use shipwatch::source::folder::{FolderError, FolderFrames, FolderWatch};

use crate::cli::RunArgs;
use crate::detect::load_models;
use crate::exit::{Exit, Failure, OrExit};
use crate::lookout::Lookout;
use crate::service::{self, Service};

/// Runs the subcommand.
pub(crate) fn run(args: RunArgs) -> Result<Exit, Failure> {
    let (once, create, reprocess) = (args.once, args.create, args.reprocess);
    let config = resolve(args)?;
    if create {
        for folder in config.source.iter().filter_map(SourceConfig::watched) {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create the folder {}", folder.display()))
                .or_exit(Exit::CannotCreate)?;
        }
    }
    if once
        && config
            .source
            .iter()
            .any(|source| source.watched().is_none())
    {
        let error = anyhow!("--once has no end with a camera: take its [[source]] out, or --once");
        return Err(Failure::new(Exit::Config, error));
    }
    // Signals count from here on, so that a stop while the models load is not lost.
    let stop = Stop::default();
    let handle = stop.clone();
    let on_signal = move || {
        handle.request();
        service::stopping();
    };
    ctrlc::set_handler(on_signal).or_exit(Exit::Software)?;

    let ledger = Ledger::open(&config.ledger_file()).map_err(unkept)?;
    let detections = &config.output.detections;
    let output = Output::open(detections, &ledger).map_err(unwritten)?;
    let feed = |source: &SourceConfig| -> Result<Feed, Failure> {
        let frames: Box<dyn Source + Send> = match source.watched() {
            Some(folder) => {
                let watch = FolderWatch::open(folder, source.folder_options());
                let roster = ledger.roster(&source.name).or_exit(Exit::Io)?;
                let roster = if reprocess { roster.blind() } else { roster };
                let watch = watch.map_err(unwatchable)?;
                let options = source.decode_options();
                Box::new(FolderFrames::new(watch, options, roster, once))
            }
            None => camera(source)?,
        };
        Ok(Feed {
            source: frames,
            waiting: source.queue,
            policy: source.policy(),
            finish: source.finish(),
            failed: source.failed_folder.clone(),
        })
    };
    let feeds = config.source.iter().map(feed).collect::<Result<_, _>>()?;
    let overlay = config
        .output
        .overlay
        .as_deref()
        .map(Overlay::new)
        .transpose()?;
    let models = load_models(config.models.as_deref())?;
    let options = config
        .source
        .iter()
        .map(|source| config.detect_options(source));
    let lookout = Lookout::new(models, options.collect());

    let watched = config.source.iter().filter_map(|source| {
        let path = source.watched().or(source.camera.as_deref());
        path.map(|path| path.display().to_string())
    });
    let watched: Vec<String> = watched.collect();
    info!(
        "watching {}, detections go to {}",
        watched.join(", "),
        detections.display()
    );
    let service = Service::new();
    service.ready();
    let mut daemon = Daemon {
        look: &|source, frame| lookout.look(source, frame),
        ledger,
        output,
        overlay,
        group: config.group(),
        reprocess,
        kept: Kept::default(),
        alive: &|summary| service.alive(summary),
    };
    let summary = daemon.run(feeds, &stop).or_exit(Exit::Io)?;
    info!(
        "stopped after {} frames with {} ships; {} skipped, {} done before, {} dropped",
        summary.frames, summary.ships, summary.broken, summary.known, summary.dropped
    );
    Ok(if once && summary.broken > 0 {
        Exit::Data
    } else {
        Exit::Success
    })
}

/// The config file with what was typed laid over it.
fn resolve(args: RunArgs) -> Result<Config, Failure> {
    let mut config = match &args.config {
        Some(path) => Config::read(path).or_exit(Exit::Config)?,
        None => Config::default(),
    };
    if let Some(folder) = args.folder {
        // Of several, none is the one that is meant.
        config.source.truncate(1);
        config.source.iter_mut().for_each(|source| {
            source.folder = Some(folder.clone());
            source.camera = None;
        });
    }
    if let Some(output) = args.output {
        config.output.detections = output;
    }
    config.output.overlay = args.overlay.or(config.output.overlay);
    config.models = args.models.or(config.models);
    let problems = config.check();
    if problems.is_empty() {
        return Ok(config);
    }
    let source = args
        .config
        .map_or("the command line".into(), |path| path.display().to_string());
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Err(Failure::new(
        Exit::Config,
        anyhow!("{source}: {}", problems.join("; ")),
    ))
}

#[cfg(feature = "camera")]
fn camera(source: &SourceConfig) -> Result<Box<dyn Source + Send>, Failure> {
    use shipwatch::source::camera::CameraSource;

    let options = source.camera_options();
    let options = options.context("a source without a folder or a camera");
    let options = options.or_exit(Exit::Config)?;
    Ok(Box::new(CameraSource::new(source.name.clone(), options)))
}

/// A config with a camera does not pass its check.
#[cfg(not(feature = "camera"))]
fn camera(_: &SourceConfig) -> Result<Box<dyn Source + Send>, Failure> {
    Err(Failure::new(
        Exit::Config,
        anyhow!("this build has no cameras"),
    ))
}

fn unwatchable(error: FolderError) -> Failure {
    match error {
        FolderError::Missing(_) => Failure::new(
            Exit::NoInput,
            anyhow!("{error}, let --create do it, or name another by --folder"),
        ),
        FolderError::Unreadable { .. } => Failure::new(Exit::NoInput, error),
    }
}

fn unkept(error: LedgerError) -> Failure {
    let exit = match error {
        LedgerError::Version { .. } => Exit::Config,
        _ => Exit::CannotCreate,
    };
    Failure::new(exit, error)
}

fn unwritten(error: OutputError) -> Failure {
    match error {
        OutputError::Ledger(error) => unkept(error),
        error => Failure::new(Exit::CannotCreate, error),
    }
}

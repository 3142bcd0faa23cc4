//! `shipwatch check`: whether `shipwatch run` would work, without running it.

use std::fmt::Display;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, bail};
use shipwatch::clock::MonotonicClock;
use shipwatch::daemon::config::{Config, SourceConfig};
use shipwatch::daemon::selftest;
use shipwatch::detect::Detector;
use shipwatch::model::{Bundle, Manifest};
#[cfg(feature = "camera")]
use shipwatch::source::camera::{Camera, CameraOptions};
use shipwatch::source::finish::Finish;
use shipwatch::source::folder::FolderWatch;

use crate::cli::CheckArgs;
use crate::exit::{Exit, Failure, OrExit, explain};

/// Runs the subcommand. All checks are made, whatever fails, as far as they do not build on it.
pub(crate) fn run(args: CheckArgs) -> Result<Exit, Failure> {
    let mut report = Report::default();
    let config = match &args.config {
        Some(path) => {
            let config = report.check("config", Exit::Config, read_config(path))?;
            if let Some(config) = &config {
                check_folders(config, &mut report)?;
            }
            config
        }
        None => Some(Config::default()),
    };
    let models = args.models.or_else(|| config?.models);
    let bundle = match &models {
        Some(dir) => report.check("models", Exit::Config, load(dir))?,
        None => report.check("models", Exit::Config, embedded())?,
    };
    if let Some(bundle) = bundle {
        let engines = format!(
            "gate: {}; U-Net: {}",
            bundle.gate.engine(),
            bundle.unet.engine()
        );
        report.check("engine", Exit::Software, passed((), engines))?;
        report.check("self-test", Exit::Software, self_test(bundle))?;
    }
    Ok(report.exit)
}

/// Prints a line per check and keeps the code to end with.
struct Report {
    exit: Exit,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            exit: Exit::Success,
        }
    }
}

impl Report {
    /// Prints how a check went; `exit` is the code for its failure. A wrong configuration outranks
    /// a fault of the program, because it may be what caused it.
    fn check<T>(
        &mut self,
        name: &str,
        exit: Exit,
        outcome: anyhow::Result<Passed<T>>,
    ) -> Result<Option<T>, Failure> {
        let (line, value) = match outcome {
            Ok(Passed { value, detail }) => (format!("ok    {name:<11} {detail}"), Some(value)),
            Err(error) => {
                if self.exit != Exit::Config {
                    self.exit = exit;
                }
                (format!("FAIL  {name:<11} {}", explain(&error)), None)
            }
        };
        writeln!(io::stdout(), "{line}")
            .context("standard output")
            .or_exit(Exit::Io)?;
        Ok(value)
    }
}

/// What a check found good.
struct Passed<T> {
    value: T,
    detail: String,
}

fn passed<T>(value: T, detail: impl Display) -> anyhow::Result<Passed<T>> {
    Ok(Passed {
        value,
        detail: detail.to_string(),
    })
}

fn read_config(path: &Path) -> anyhow::Result<Passed<Config>> {
    let config = Config::read(path)?;
    let problems: Vec<String> = config.check().iter().map(ToString::to_string).collect();
    if !problems.is_empty() {
        bail!("{}: {}", path.display(), problems.join("; "));
    }
    passed(config, path.display())
}

fn check_folders(config: &Config, report: &mut Report) -> Result<(), Failure> {
    for source in &config.source {
        check_source(source, report)?;
    }

    let detections = &config.output.detections;
    let writable = appendable(detections).context("output.detections");
    report.check("detections", Exit::Config, writable)?;

    let ledger = appendable(&config.ledger_file()).context("ledger.file");
    report.check("ledger", Exit::Config, ledger)?;

    if let Some(overlay) = &config.output.overlay {
        let writable = creatable(overlay).context("output.overlay");
        report.check("overlay", Exit::Config, writable)?;
    }
    Ok(())
}

fn check_source(source: &SourceConfig, report: &mut Report) -> Result<(), Failure> {
    let name = &source.name;
    if let Some(folder) = source.watched() {
        let watched = FolderWatch::open(folder, source.folder_options());
        let watched = watched
            .with_context(|| format!("folder of source `{name}`"))
            .and_then(|_| passed((), folder.display()));
        report.check("source", Exit::Config, watched)?;
    }
    #[cfg(feature = "camera")]
    if let Some(camera) = &source.camera {
        let opened = Camera::open(&CameraOptions::new(camera));
        let opened = opened
            .with_context(|| format!("camera of source `{name}`"))
            .and_then(|camera| passed((), camera.granted()));
        report.check("source", Exit::Config, opened)?;
    }

    if let Finish::Move(folder) = source.finish() {
        let writable = creatable(&folder);
        let writable = writable.with_context(|| format!("finished-folder of source `{name}`"));
        report.check("finished", Exit::Config, writable)?;
    }
    if let Some(folder) = &source.failed_folder {
        let writable = creatable(folder);
        let writable = writable.with_context(|| format!("failed-folder of source `{name}`"));
        report.check("failed", Exit::Config, writable)?;
    }
    Ok(())
}

/// Whether a file can be appended to; leaves no file behind.
fn appendable(path: &Path) -> anyhow::Result<Passed<()>> {
    let new = !path.exists();
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .with_context(|| {
            format!(
                "{} cannot be written; create its folder or allow it",
                path.display()
            )
        })?;
    if new {
        fs::remove_file(path).with_context(|| path.display().to_string())?;
    }
    passed((), path.display())
}

/// Whether files can be created in a folder, which may have to be created itself; leaves nothing
/// behind.
fn creatable(folder: &Path) -> anyhow::Result<Passed<()>> {
    let existing = folder
        .ancestors()
        .find(|ancestor| ancestor.is_dir())
        .unwrap_or(Path::new("."));
    let probe = existing.join(format!(".shipwatch-check-{}", std::process::id()));
    appendable(&probe).with_context(|| format!("{} cannot be written to", folder.display()))?;
    passed((), folder.display())
}

fn load(dir: &Path) -> anyhow::Result<Passed<Bundle>> {
    // The error says all by itself, its cause as well.
    let bundle = Bundle::load(dir).map_err(anyhow::Error::msg)?;
    let detail = format!("{} from {}", title(&bundle), dir.display());
    passed(bundle, detail)
}

fn embedded() -> anyhow::Result<Passed<Bundle>> {
    let bundle = Bundle::embedded().map_err(anyhow::Error::msg)?;
    let detail = format!("{}, built in", title(&bundle));
    passed(bundle, detail)
}

fn title(bundle: &Bundle) -> String {
    let Manifest {
        name,
        version,
        gsd: [finest, coarsest],
        ..
    } = &bundle.manifest;
    format!("{name} {version} for {finest} to {coarsest} m per pixel")
}

fn self_test(bundle: Bundle) -> anyhow::Result<Passed<()>> {
    let report = selftest::run(&Detector::new(bundle), &MonotonicClock::new())?;
    if !report.passed() {
        bail!("{report}; the models do not work on this machine, or not on 10 m per pixel");
    }
    passed((), report)
}

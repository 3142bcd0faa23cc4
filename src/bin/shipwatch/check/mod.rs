//! `shipwatch check`: whether `shipwatch run` would work, without running it.

#[cfg(feature = "camera")]
mod cameras;
mod folders;
mod report;
mod service;

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use shipwatch::clock::MonotonicClock;
use shipwatch::daemon::clock_state;
use shipwatch::daemon::config::Config;
use shipwatch::daemon::heat::Governor;
use shipwatch::daemon::selftest;
use shipwatch::detect::Detector;
use shipwatch::model::{Bundle, Manifest};
use shipwatch::record::Heat;

use crate::cli::CheckArgs;
use crate::exit::{Exit, Failure};
use report::{Passed, Report, passed};

/// Runs the subcommand. All checks are made, whatever fails, as far as they do not build on it.
pub(crate) fn run(args: CheckArgs) -> Result<Exit, Failure> {
    let mut report = Report::new();
    let config = match &args.config {
        Some(path) => {
            let config = report.check("config", Exit::Config, read_config(path))?;
            if let Some(config) = &config {
                check_config(config, &mut report)?;
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

fn read_config(path: &Path) -> anyhow::Result<Passed<Config>> {
    let config = Config::read(path)?;
    let problems: Vec<String> = config.check().iter().map(ToString::to_string).collect();
    if !problems.is_empty() {
        bail!("{}: {}", path.display(), problems.join("; "));
    }
    passed(config, path.display())
}

/// Everything that the config names but the models.
fn check_config(config: &Config, report: &mut Report) -> Result<(), Failure> {
    for source in &config.source {
        folders::check_source(source, report)?;
        #[cfg(feature = "camera")]
        cameras::check_camera(source, config.runtime_folder.as_deref(), report)?;
    }
    folders::check_outputs(config, report)?;
    service::check_user(report)?;
    service::check_service(config, report)?;
    check_clock(report)?;
    check_heat(config, report)
}

fn check_clock(report: &Report) -> Result<(), Failure> {
    match clock_state::synchronised() {
        Some(true) => report.ok("clock", "synchronised"),
        Some(false) => report.note(
            "clock",
            "not synchronised: records may tell wrong times until it is; `timedatectl set-ntp true` asks time servers",
        ),
        None => report.note("clock", "the system does not tell whether it is synchronised"),
    }
}

fn check_heat(config: &Config, report: &Report) -> Result<(), Failure> {
    let limits = config.heat_limits();
    let mut governor = Governor::new(Path::new("/sys"), limits);
    let Some(Heat {
        celsius, throttled, ..
    }) = governor.look(Duration::ZERO)
    else {
        let none = "the system tells neither temperature nor throttling: the daemon works as hard on a hot board";
        return report.note("heat", none);
    };
    let degrees = celsius.map_or_else(
        || "no temperature told".to_owned(),
        |celsius| format!("{celsius:.1} °C of {} °C", limits.celsius),
    );
    match throttled {
        true => report.note(
            "heat",
            format_args!("{degrees}; the board throttles itself now"),
        ),
        false => report.ok("heat", degrees),
    }
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

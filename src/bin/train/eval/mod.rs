//! Judges a bundle by the very code that the edge runs, on plain images and on judging frames.

mod bootstrap;
mod cases;
mod chain;
mod figures;
pub(crate) mod frames;
mod outcome;
mod parity;
mod peer;
mod report;
mod sheet;
mod sizes;
mod table;
mod thresholds;
mod tune;

pub(crate) use figures::Figures;
pub(crate) use parity::{Contender, compare};
pub(crate) use peer::Peer;
pub(crate) use table::Table;
pub(crate) use thresholds::choose_thresholds;
pub(crate) use tune::tune_tiles;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use shipwatch::detect::Detector;
use shipwatch::model::Bundle;

use crate::config::Config;
use crate::data::{Pool, Split};
use cases::Cases;
use outcome::{Outcome, SWEEP};

/// Results by set: one for each source and scale, named `source of split @ scale`, and one for the
/// `frames of split`.
pub(crate) struct Evaluation {
    pub(crate) split: Split,
    pub(crate) sets: BTreeMap<String, Figures>,
    outcomes: Vec<Outcome>,
}

/// Judges a bundle.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The bundle.
    #[arg(long)]
    models: PathBuf,
    /// A config that names the data.
    #[arg(long)]
    config: PathBuf,
    /// Which images. Those for testing are opened last, when nothing is left to choose.
    #[arg(long, value_enum, default_value = "tune")]
    split: Split,
    /// Folder for the figures as JSON, curves and contact sheets.
    #[arg(long)]
    report: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let config = Config::load(&args.config)?;
    let pool = Pool::open(&config.data, config.cache_mib)?;
    let detector = Detector::new(Bundle::load(&args.models)?);
    if pool.differs_from(detector.manifest()) {
        log::warn!(
            "{}: was trained by another split than that of {}: it may have been trained on images that it is judged by here",
            args.models.display(),
            args.config.display()
        );
    }
    let evaluation = evaluate(&detector, &pool, &config, args.split)?;
    print!("{}", Table(&evaluation));
    if let Some(folder) = &args.report {
        report::write(folder, &evaluation, &detector, &pool, &config)?;
    }
    Ok(())
}

/// Runs `detector`, with its own thresholds, over a split and compares with the labels.
///
/// # Errors
/// If no image of the split can be read, or a network fails.
pub(crate) fn evaluate(
    detector: &Detector,
    pool: &Pool,
    config: &Config,
    split: Split,
) -> Result<Evaluation> {
    let cases = Cases::open(pool, split, config)?;
    let outcomes = cases.map("judging", |case| Outcome::of(detector, case, &SWEEP))?;
    ensure!(
        !outcomes.is_empty(),
        "no image of the {split} split can be read: name some under [[data]]"
    );
    let thresholds = detector.manifest().thresholds;
    Ok(Evaluation {
        split,
        sets: Figures::by_set(&outcomes, &thresholds),
        outcomes,
    })
}

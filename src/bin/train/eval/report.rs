//! The report of an evaluation: figures as JSON, curves and contact sheets as PNG.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use shipwatch::detect::Detector;
use shipwatch::metrics::cuts;
use shipwatch::model::Thresholds;

use super::Evaluation;
use super::cases::Cases;
use super::figures::Figures;
use super::outcome::Outcome;
use super::sheet::{Row, draw};
use crate::config::{Config, Judge};
use crate::data::Pool;
use crate::files::replace;
use crate::plot::Chart;

/// Images on a contact sheet.
const ROWS: usize = 6;

/// `report.json`.
#[derive(Serialize)]
struct Report<'a> {
    models: &'a str,
    version: &'a str,
    thresholds: Thresholds,
    split: String,
    /// SHA-256 over what each image is for.
    split_hash: String,
    judge: Judge,
    sets: &'a std::collections::BTreeMap<String, Figures>,
}

/// Writes the report into a folder, which is made where it is missing.
pub(super) fn write(
    folder: &Path,
    evaluation: &Evaluation,
    detector: &Detector,
    pool: &Pool,
    config: &Config,
) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let manifest = detector.manifest();
    let report = Report {
        models: &manifest.name,
        version: &manifest.version,
        thresholds: manifest.thresholds,
        split: evaluation.split.to_string(),
        split_hash: pool.split_hash(),
        judge: config.judge,
        sets: &evaluation.sets,
    };
    let path = folder.join("report.json");
    replace(&path, &serde_json::to_vec_pretty(&report)?)
        .with_context(|| path.display().to_string())?;
    curves(folder, evaluation)?;
    sheets(folder, evaluation, detector, pool, config)
}

fn curves(folder: &Path, evaluation: &Evaluation) -> Result<()> {
    let unit =
        |title: &str, x: &str, y: &str| Chart::new(title, x, y).x_range(0.0, 1.0).y_range(0.0, 1.0);
    let mut precision = unit("Gate, images by their best tile", "recall", "precision");
    let mut roc = unit(
        "Gate, images by their best tile",
        "empty images that pass",
        "ship images that pass",
    );
    let mut f2 = Chart::new("Masks", "mask threshold", "F2");
    let mut dice = Chart::new("Masks", "mask threshold", "Dice of all images");
    for (name, figures) in &evaluation.sets {
        let own = evaluation
            .outcomes
            .iter()
            .filter(|outcome| outcome.set == *name);
        let scored: Vec<(f32, bool)> = own.map(|o| (o.gate_score, o.with_ships)).collect();
        if let Some(cuts) = cuts(&scored) {
            let points: Vec<(f64, f64)> =
                cuts.iter().map(|cut| (cut.recall, cut.precision)).collect();
            precision = precision.line(name, &points);
            let start = std::iter::once((0.0, 0.0));
            let points: Vec<(f64, f64)> = start
                .chain(cuts.iter().map(|cut| (cut.false_alarms, cut.recall)))
                .collect();
            roc = roc.line(name, &points);
        }
        let swept = |of: fn(&super::figures::Swept) -> f64| -> Vec<(f64, f64)> {
            figures
                .sweep
                .iter()
                .map(|s| (f64::from(s.mask), of(s)))
                .collect()
        };
        f2 = f2.line(name, &swept(|s| s.f2));
        dice = dice.line(name, &swept(|s| s.dice));
    }
    for (name, chart) in [
        ("gate-precision-recall.png", precision),
        ("gate-roc.png", roc),
        ("f2-by-threshold.png", f2),
        ("dice-by-threshold.png", dice),
    ] {
        chart.save(&folder.join(name))?;
    }
    Ok(())
}

/// The best, the median and the worst images of each set.
fn sheets(
    folder: &Path,
    evaluation: &Evaluation,
    detector: &Detector,
    pool: &Pool,
    config: &Config,
) -> Result<()> {
    let cases = Cases::open(pool, evaluation.split, config)?;
    for name in evaluation.sets.keys() {
        // An empty image on which nothing was found shows nothing.
        let mut own: Vec<&Outcome> = (evaluation.outcomes.iter())
            .filter(|outcome| {
                outcome.set == *name && (outcome.with_ships || !outcome.found.is_empty())
            })
            .collect();
        own.sort_by(|a, b| a.dice.total_cmp(&b.dice));
        let middle = own.len().saturating_sub(ROWS) / 2;
        let end = own.len().saturating_sub(ROWS);
        for (which, start) in [("worst", 0), ("median", middle), ("best", end)] {
            let some = &own[start..(start + ROWS).min(own.len())];
            let rows = some.iter().map(|outcome| row(&cases, detector, outcome));
            let rows: Vec<Row> = rows
                .collect::<Result<Vec<_>>>()?
                .into_iter()
                .flatten()
                .collect();
            if rows.is_empty() {
                continue;
            }
            let path = folder.join(format!("{which}-{}.png", slug(name)));
            draw(&rows)
                .save(&path)
                .with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// Looks at one image again; on the same machine it comes out the same.
fn row(cases: &Cases, detector: &Detector, outcome: &Outcome) -> Result<Option<Row>> {
    cases.with_one(&outcome.set, &outcome.id, |case| {
        let thresholds = detector.manifest().thresholds;
        let seen = case.see(detector, thresholds.gate, thresholds.mask)?;
        let kind = outcome
            .kind
            .map_or(String::new(), |kind| format!(", {kind}"));
        Ok(Row {
            pixels: case.pixels.clone(),
            truth: case.ships.to_vec(),
            found: seen.ships(&thresholds, case.scale),
            caption: format!(
                "{}{kind}: Dice {:.3}, F2 {:.3}, gate {:.2}, {} ships, {} found",
                outcome.id,
                outcome.dice,
                outcome.f2,
                outcome.gate_score,
                outcome.ships.len(),
                outcome.found.len()
            ),
        })
    })
}

/// A set's name as part of a file's name.
fn slug(name: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    };
    name.chars()
        .map(plain)
        .collect::<String>()
        .replace("---", "-")
}

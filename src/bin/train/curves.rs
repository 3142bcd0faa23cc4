//! The metrics of a run: what of their file can be read, and a chart of it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use csv::StringRecord;
use serde::{Deserialize, Serialize};

use crate::plot::Chart;

/// A row of the metrics: one look at the tune set. The file's columns are called as the fields.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Metrics {
    pub(crate) phase: String,
    /// Steps done in the phase.
    pub(crate) step: usize,
    /// Rate of the last step.
    pub(crate) learning_rate: Option<f64>,
    /// Mean since the row before.
    pub(crate) loss: Option<f64>,
    /// Mean since the row before, before clipping.
    pub(crate) gradient_norm: Option<f64>,
    /// What the best weights are chosen by.
    pub(crate) score: f64,
    pub(crate) auc: Option<f64>,
    /// Share of the empty tune tiles that the gate stops at 98 % recall.
    pub(crate) rejected: Option<f64>,
    pub(crate) dice_ships: Option<f64>,
    pub(crate) dice_all: Option<f64>,
    /// Training speed since the row before.
    pub(crate) images_per_s: f64,
    /// Share of the time spent waiting for tiles.
    pub(crate) data_wait: f64,
}

/// A value of a row, where there is one.
type Value = fn(&Metrics) -> Option<f64>;

/// What is drawn, by its name in the legend.
const LINES: [(&str, Value); 6] = [
    ("loss", |row| row.loss),
    ("score", |row| Some(row.score)),
    ("AUC", |row| row.auc),
    ("empty tiles stopped", |row| row.rejected),
    ("Dice of ships", |row| row.dice_ships),
    ("Dice of all", |row| row.dice_all),
];

/// What a file of metrics holds.
pub(crate) struct Rows {
    pub(crate) rows: Vec<Row>,
    /// Lines, from 1, that are neither a row nor the header.
    pub(crate) unreadable: Vec<usize>,
}

/// A row that can be read.
pub(crate) struct Row {
    pub(crate) metrics: Metrics,
    /// As it stands in the file.
    pub(crate) line: String,
}

impl Row {
    /// None if the line is no row of so many `columns`.
    fn parse(line: &str, columns: usize) -> Option<Self> {
        let cells: StringRecord = line.split(',').collect();
        let metrics = cells.deserialize(None).ok()?;
        (cells.len() == columns).then_some(Self {
            metrics,
            line: line.to_owned(),
        })
    }
}

/// The first line of the file: the names of its columns.
pub(crate) fn header() -> Result<String> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.serialize(Metrics::default())?;
    let text = String::from_utf8(csv.into_inner()?)?;
    Ok(text.lines().take(1).collect())
}

/// Reads `metrics` line by line: one that is damaged costs none of the others, as a stray quotation mark
/// in CSV would. A last line that was cut off while it was written is passed over.
///
/// # Errors
/// If the file cannot be read.
pub(crate) fn read(metrics: &Path) -> Result<Rows> {
    let header = header()?;
    let columns = header.split(',').count();
    let bytes = fs::read(metrics).with_context(|| metrics.display().to_string())?;
    let whole = bytes
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1);
    let lines = bytes[..whole]
        .split(|&byte| byte == b'\n')
        .map(<[u8]>::trim_ascii_end);
    let (mut rows, mut unreadable) = (Vec::new(), Vec::new());
    for (line, number) in lines.zip(1..) {
        if line.is_empty() || line == header.as_bytes() {
            continue;
        }
        let text = str::from_utf8(line).ok();
        match text.and_then(|line| Row::parse(line, columns)) {
            Some(row) => rows.push(row),
            None => unreadable.push(number),
        }
    }
    Ok(Rows { rows, unreadable })
}

/// Draws `metrics` (CSV) to `png`, one phase after the other.
///
/// # Errors
/// If a file cannot be read or written.
pub(crate) fn draw(metrics: &Path, png: &Path) -> Result<()> {
    let Rows { rows, .. } = read(metrics)?;
    let mut chart = Chart::new("training", "steps, through all phases", "");
    for (name, value) in LINES {
        let mut points = Vec::new();
        let mut start = 0.0;
        for phase in rows.chunk_by(|a, b| a.metrics.phase == b.metrics.phase) {
            let at = |row: &Row| start + row.metrics.step as f64;
            let of = |row: &Row| Some((at(row), value(&row.metrics)?));
            points.extend(phase.iter().filter_map(of));
            start = phase.last().map_or(start, at);
            // Lines do not cross from one phase to the next.
            points.push((start, f64::NAN));
        }
        if points.iter().any(|(_, y)| y.is_finite()) {
            chart = chart.line(name, &points);
        }
    }
    chart.save(png)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_what_columns_hold() {
        let dir = tempfile::tempdir().expect("folder");
        let (csv, png) = (dir.path().join("m.csv"), dir.path().join("m.png"));
        let row = |phase, step, loss, score, auc| {
            format!("{phase},{step},0.1,{loss},0.2,{score},{auc},,,,9.5,0\n")
        };
        let rows = [
            format!("{}\n", header().expect("names")),
            row("a", 0, "", "0.5", "0.5"),
            row("a", 9, "0.7", "0.9", "0.8"),
            row("b", 0, "", "0.2", ""),
            row("b", 5, "1.5", "0.3", ""),
        ]
        .concat();
        std::fs::write(&csv, &rows).expect("csv");
        draw(&csv, &png).expect("draws");
        let ink = |image: &image::RgbImage| {
            let coloured = image
                .pixels()
                .filter(|p| p.0.iter().max() > p.0.iter().min());
            coloured.count()
        };
        let full = ink(&image::open(&png).expect("a picture").to_rgb8());
        std::fs::write(&csv, rows.replace("0.7", "")).expect("csv");
        draw(&csv, &png).expect("draws");
        let less = ink(&image::open(&png).expect("a picture").to_rgb8());
        assert!(full > less && less > 0, "{full} and {less} coloured pixels");
    }

    /// What people and their spreadsheets read.
    #[test]
    fn the_columns_keep_their_names_and_order() {
        let names = "phase,step,learning_rate,loss,gradient_norm,score,auc,rejected,dice_ships,dice_all,images_per_s,data_wait";
        assert_eq!(header().expect("names"), names);
    }

    #[test]
    fn a_damaged_line_costs_no_other() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("m.csv");
        let row = |step| format!("unet,{step},0.1,,,0.5,,,,0.25,9.5,0\n");
        let good = [0, 5, 15].map(row);
        let whole = header().expect("names");
        for header in [&whole[..], "phase,step,lear", ""] {
            let damaged: [&[u8]; 9] = [
                header.as_bytes(),
                b"\n",
                good[0].as_bytes(),
                b"\xff\x00\"junk, with a quotation mark\n",
                good[1].as_bytes(),
                b"unet,10,0.1,x,,0.5,,,,0.25,9.5,0\n",
                good[2].as_bytes(),
                b"unet,17,0.1,,,0.5,,,,0.25,9.5,0,1\n",
                b"unet,20,0.1",
            ];
            fs::write(&path, damaged.concat()).expect("csv");
            let Rows { rows, unreadable } = read(&path).expect("reads");
            let steps: Vec<usize> = rows.iter().map(|row| row.metrics.step).collect();
            assert_eq!(steps, [0, 5, 15]);
            assert_eq!(rows[1].metrics.dice_all, Some(0.25));
            assert_eq!(rows[1].metrics.loss, None);
            let cut = usize::from(header.len() > 1 && header != whole);
            assert_eq!(unreadable.len(), 3 + cut, "{header}: {unreadable:?}");
            assert!(unreadable.ends_with(&[3, 5, 7]), "{unreadable:?}");
        }
    }
}

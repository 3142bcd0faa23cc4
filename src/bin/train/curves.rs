//! The metrics of a run: what of their file can be read, and a chart of it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::plot::Chart;

/// The first line of the file: the names of its columns.
pub(crate) const HEADER: &str = "phase,step,learning_rate,loss,gradient_norm,score,auc,rejected,dice_ships,dice_all,images_per_s,data_wait";

/// Columns that are drawn, and their names in the legend.
const COLUMNS: [(&str, &str); 6] = [
    ("loss", "loss"),
    ("score", "score"),
    ("auc", "AUC"),
    ("rejected", "empty tiles stopped"),
    ("dice_ships", "Dice of ships"),
    ("dice_all", "Dice of all"),
];

/// What a file of metrics holds.
pub(crate) struct Rows {
    pub(crate) rows: Vec<Row>,
    /// Lines, from 1, that are neither a row nor the header.
    pub(crate) unreadable: Vec<usize>,
}

/// A row that can be read.
pub(crate) struct Row {
    pub(crate) phase: String,
    pub(crate) step: usize,
    /// The cells; none where there is no value.
    values: Vec<Option<f64>>,
    /// As it stands in the file.
    pub(crate) line: String,
}

impl Row {
    /// None if the line is no row.
    fn parse(line: &str) -> Option<Self> {
        let value = |cell: &str| match cell {
            "" => Some(None),
            _ => cell.parse().ok().map(Some),
        };
        let cells: Vec<&str> = line.split(',').collect();
        let (phase, step) = (cells.first()?, cells.get(1)?);
        let known = HEADER.split(',').count();
        let values: Vec<Option<f64>> = cells[1..]
            .iter()
            .map(|cell| value(cell))
            .collect::<Option<_>>()?;
        (cells.len() == known).then_some(Self {
            phase: (*phase).to_owned(),
            step: step.parse().ok()?,
            values,
            line: line.to_owned(),
        })
    }

    fn value(&self, column: &str) -> Option<f64> {
        // The first column holds no number.
        let at = HEADER.split(',').skip(1).position(|name| name == column)?;
        self.values[at]
    }
}

/// Reads `metrics` line by line: one that is damaged costs none of the others, as a stray quotation mark
/// in CSV would. A last line that was cut off while it was written is passed over.
///
/// # Errors
/// If the file cannot be read.
pub(crate) fn read(metrics: &Path) -> Result<Rows> {
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
        if line.is_empty() || line == HEADER.as_bytes() {
            continue;
        }
        match str::from_utf8(line).ok().and_then(Row::parse) {
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
    for (column, name) in COLUMNS {
        let mut points = Vec::new();
        let mut start = 0.0;
        for phase in rows.chunk_by(|a, b| a.phase == b.phase) {
            let at = |row: &Row| start + row.step as f64;
            let of = |row: &Row| Some((at(row), row.value(column)?));
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
            format!("{HEADER}\n"),
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

    #[test]
    fn a_damaged_line_costs_no_other() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("m.csv");
        let row = |step| format!("unet,{step},0.1,,,0.5,,,,0.25,9.5,0\n");
        let good = [0, 5, 15].map(row);
        for header in [HEADER, "phase,step,lear", ""] {
            let damaged: [&[u8]; 8] = [
                header.as_bytes(),
                b"\n",
                good[0].as_bytes(),
                b"\xff\x00\"junk, with a quotation mark\n",
                good[1].as_bytes(),
                b"unet,10,0.1,x,,0.5,,,,0.25,9.5,0\n",
                good[2].as_bytes(),
                b"unet,20,0.1",
            ];
            fs::write(&path, damaged.concat()).expect("csv");
            let Rows { rows, unreadable } = read(&path).expect("reads");
            let steps: Vec<usize> = rows.iter().map(|row| row.step).collect();
            assert_eq!(steps, [0, 5, 15]);
            assert_eq!(rows[1].value("dice_all"), Some(0.25));
            assert_eq!(rows[1].value("loss"), None);
            let cut = usize::from(header.len() > 1 && header != HEADER);
            assert_eq!(unreadable.len(), 2 + cut, "{header}: {unreadable:?}");
            assert!(unreadable.ends_with(&[3, 5]), "{unreadable:?}");
        }
    }
}

//! The metrics of a run as a chart.

use std::path::Path;

use anyhow::{Context, Result};

use crate::plot::Chart;

/// Columns that are drawn, and their names in the legend.
const COLUMNS: [(&str, &str); 6] = [
    ("loss", "loss"),
    ("score", "score"),
    ("auc", "AUC"),
    ("rejected", "empty tiles stopped"),
    ("dice_ships", "Dice of ships"),
    ("dice_all", "Dice of all"),
];

/// Draws `metrics` (CSV) to `png`, one phase after the other.
///
/// # Errors
/// If a file cannot be read or written.
pub(crate) fn draw(metrics: &Path, png: &Path) -> Result<()> {
    let context = || metrics.display().to_string();
    let mut reader = csv::Reader::from_path(metrics).with_context(context)?;
    let headers = reader.headers().with_context(context)?.clone();
    let rows: Vec<csv::StringRecord> = reader
        .records()
        .collect::<Result<_, _>>()
        .with_context(context)?;
    let cell = |row: &csv::StringRecord, name: &str| -> Option<f64> {
        let column = headers.iter().position(|header| header == name)?;
        row.get(column)?.parse().ok()
    };
    let mut chart = Chart::new("training", "steps, through all phases", "");
    for (column, name) in COLUMNS {
        let mut points = Vec::new();
        let mut start = 0.0;
        for phase in rows.chunk_by(|a, b| a.get(0) == b.get(0)) {
            let at = |row| start + cell(row, "step").unwrap_or(0.0);
            let of = |row| Some((at(row), cell(row, column)?));
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
        let rows =
            "phase,step,loss,score,auc\na,0,,0.5,0.5\na,9,0.7,0.9,0.8\nb,0,,0.2,\nb,5,1.5,0.3,\n";
        std::fs::write(&csv, rows).expect("csv");
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
}

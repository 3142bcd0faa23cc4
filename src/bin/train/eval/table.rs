//! Figures as tables for a terminal.

use std::fmt;

use super::Evaluation;
use super::bootstrap::Estimate;
use super::figures::Figures;
use crate::grid::grid;

/// Tables of an evaluation.
pub(crate) struct Table<'a>(pub(crate) &'a Evaluation);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sets = || {
            self.0
                .sets
                .iter()
                .map(|(name, figures)| (name.as_str(), figures))
        };
        writeln!(
            f,
            "Masks; 95 % intervals over images; in brackets what predicting nothing gives"
        )?;
        grid(
            f,
            &[
                "set",
                "images",
                "with ships",
                "Dice ships",
                "Dice all",
                "",
                "IoU ships",
                "IoU all",
                "",
                "F2 ships",
                "F2",
                "",
            ],
            sets().map(|(name, s)| {
                vec![
                    name.to_owned(),
                    s.images.to_string(),
                    s.with_ships.to_string(),
                    cell(s.dice_ships),
                    cell(s.dice_all),
                    bracketed(s.dice_all_of_nothing),
                    cell(s.iou_ships),
                    cell(s.iou_all),
                    bracketed(s.iou_all_of_nothing),
                    cell(s.f2_ships),
                    cell(s.f2),
                    bracketed(s.f2_of_nothing),
                ]
            }),
        )?;
        writeln!(
            f,
            "\nIs there a ship? Share of images judged rightly, and what the gate stops"
        )?;
        grid(
            f,
            &[
                "set",
                "by ships",
                "",
                "by gate",
                "AUC images",
                "AUC tiles",
                "recall images",
                "stopped",
                "recall tiles",
                "stopped",
            ],
            sets().map(|(name, s)| {
                let g = &s.gate;
                vec![
                    name.to_owned(),
                    cell(s.decisions),
                    bracketed(s.decisions_of_nothing),
                    cell(s.decisions_by_gate),
                    cell(g.image_auc),
                    cell(g.tile_auc),
                    cell(g.image_recall),
                    cell(g.images_stopped),
                    cell(g.tile_recall),
                    cell(g.tiles_stopped),
                ]
            }),
        )?;
        writeln!(
            f,
            "\nEmpty images, and empty tiles, that the gate stops at a recall of"
        )?;
        let head = [
            "set",
            "97 % images",
            "98 % images",
            "99 % images",
            "97 % tiles",
            "98 % tiles",
            "99 % tiles",
        ];
        grid(
            f,
            &head,
            sets().map(|(name, s)| {
                let images = s.gate.at_recall.iter().map(|at| cell(at.images_stopped));
                let tiles = s.gate.at_recall.iter().map(|at| cell(at.tiles_stopped));
                std::iter::once(name.to_owned())
                    .chain(images)
                    .chain(tiles)
                    .collect()
            }),
        )?;
        for (name, figures) in sets().filter(|(_, figures)| figures.with_ships > 0) {
            writeln!(
                f,
                "\n{name}: ships by length in pixels at the networks' scale"
            )?;
            sizes(f, figures)?;
        }
        for (name, figures) in sets().filter(|(_, figures)| !figures.kinds.is_empty()) {
            writeln!(f, "\n{name}: by kind")?;
            kinds(f, figures)?;
        }
        Ok(())
    }
}

fn sizes(f: &mut fmt::Formatter<'_>, figures: &Figures) -> fmt::Result {
    let rows = figures.sizes.iter().map(|size| {
        let length = match size.to {
            Some(to) => format!("{} to {to}", size.from),
            None => format!("{} and more", size.from),
        };
        vec![
            length,
            size.ships.to_string(),
            cell(size.recall),
            cell(size.iou),
        ]
    });
    grid(
        f,
        &["length", "ships", "found at IoU 0.5", "mean IoU"],
        rows,
    )
}

fn kinds(f: &mut fmt::Formatter<'_>, figures: &Figures) -> fmt::Result {
    let rows = figures.kinds.iter().map(|(name, kind)| {
        vec![
            (*name).to_owned(),
            kind.images.to_string(),
            cell(kind.dice),
            cell(kind.f2),
            cell(kind.decisions),
            format!("{:.2}", kind.alarms),
        ]
    });
    grid(
        f,
        &[
            "kind",
            "images",
            "Dice",
            "F2",
            "judged rightly",
            "false ships an image",
        ],
        rows,
    )
}

fn cell(estimate: Option<Estimate>) -> String {
    match estimate {
        Some(Estimate { value, low, high }) => format!("{value:.3} ({low:.3}-{high:.3})"),
        None => "-".to_owned(),
    }
}

fn bracketed(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| format!("[{value:.3}]"))
}

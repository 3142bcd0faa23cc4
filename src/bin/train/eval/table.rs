//! Figures as tables for a terminal of 160 columns.

use std::fmt;

use super::Evaluation;
use super::bootstrap::Estimate;
use super::figures::{AtRecall, Figures};
use crate::grid::grid;

/// Tables of an evaluation.
pub(crate) struct Table<'a>(pub(crate) &'a Evaluation);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sets = &self.0.sets;
        let by_set =
            |f: &mut fmt::Formatter<'_>, head: &[&str], row: fn(&Figures) -> Vec<String>| {
                let head: Vec<&str> = std::iter::once("set").chain(head.iter().copied()).collect();
                let rows = sets
                    .iter()
                    .map(|(name, figures)| [vec![name.clone()], row(figures)].concat());
                grid(f, &head, rows)
            };
        writeln!(
            f,
            "Masks; 95 % intervals over the images that the images of a set show or are made of; in brackets what predicting \
             nothing gives"
        )?;
        by_set(
            f,
            &[
                "images",
                "with ships",
                "Dice ships",
                "Dice all",
                "",
                "IoU ships",
                "IoU all",
                "",
            ],
            |s| {
                vec![
                    s.images.to_string(),
                    s.with_ships.to_string(),
                    cell(s.dice_ships),
                    cell(s.dice_all),
                    bracketed(s.dice_all_of_nothing),
                    cell(s.iou_ships),
                    cell(s.iou_all),
                    bracketed(s.iou_all_of_nothing),
                ]
            },
        )?;
        writeln!(
            f,
            "\nShips: the challenge's F2, and the share of images of which it is rightly said whether they show one"
        )?;
        by_set(
            f,
            &[
                "made of",
                "F2 ships",
                "F2",
                "",
                "right by ships",
                "",
                "right by gate",
            ],
            |s| {
                vec![
                    s.clusters.to_string(),
                    cell(s.f2_ships),
                    cell(s.f2),
                    bracketed(s.f2_of_nothing),
                    cell(s.decisions),
                    bracketed(s.decisions_of_nothing),
                    cell(s.decisions_by_gate),
                ]
            },
        )?;
        writeln!(
            f,
            "\nGate on images by their best tile: at the manifest's threshold, and empty ones stopped at other recalls"
        )?;
        by_set(f, &GATE, |s| {
            let g = &s.gate;
            let own = [g.image_auc, g.image_recall, g.images_stopped];
            gate(own, &g.at_recall, |at| at.images_stopped)
        })?;
        writeln!(f, "\nGate on tiles")?;
        by_set(f, &GATE, |s| {
            let g = &s.gate;
            let own = [g.tile_auc, g.tile_recall, g.tiles_stopped];
            gate(own, &g.at_recall, |at| at.tiles_stopped)
        })?;
        for (name, figures) in sets.iter().filter(|(_, figures)| figures.with_ships > 0) {
            writeln!(
                f,
                "\n{name}: images by their longest ship, in pixels at the networks' scale; the gate against all \
                 without ships"
            )?;
            images_by_size(f, figures)?;
            writeln!(f, "\n{name}: ships by their length")?;
            sizes(f, figures)?;
        }
        for (name, figures) in sets.iter().filter(|(_, figures)| !figures.kinds.is_empty()) {
            writeln!(f, "\n{name}: by kind")?;
            kinds(f, figures)?;
        }
        for (name, figures) in sets
            .iter()
            .filter(|(_, figures)| figures.empty_as_labelled > 0)
        {
            writeln!(
                f,
                "\n{name}: {} of {} images without ships are so as labelled: they show images of data with \
                 `complete = false`;\nwhat is found there counts as false, and may be a ship without a label",
                figures.empty_as_labelled,
                figures.images - figures.with_ships
            )?;
        }
        Ok(())
    }
}

/// Head of what [`gate`] gives.
const GATE: [&str; 6] = [
    "AUC",
    "recall",
    "stopped",
    "stopped at 97 %",
    "at 98 %",
    "at 99 %",
];

/// AUC, recall and share stopped, then what is stopped at each recall.
fn gate(
    own: [Option<Estimate>; 3],
    at_recall: &[AtRecall],
    stopped: fn(&AtRecall) -> Option<Estimate>,
) -> Vec<String> {
    let others = at_recall.iter().map(stopped);
    own.into_iter().chain(others).map(cell).collect()
}

fn images_by_size(f: &mut fmt::Formatter<'_>, figures: &Figures) -> fmt::Result {
    let rows = figures.images_by_size.iter().map(|some| {
        vec![
            some.length.to_string(),
            some.images.to_string(),
            cell(some.dice),
            bracketed(some.dice_of_nothing),
            cell(some.f2),
            bracketed(some.f2_of_nothing),
            cell(some.gate_recall),
            cell(some.gate_auc),
            cell(some.stopped_at_98),
        ]
    });
    grid(
        f,
        &[
            "longest",
            "images",
            "Dice",
            "",
            "F2",
            "",
            "gate recall",
            "gate AUC",
            "stopped at 98 %",
        ],
        rows,
    )
}

fn sizes(f: &mut fmt::Formatter<'_>, figures: &Figures) -> fmt::Result {
    let rows = figures.sizes.iter().map(|size| {
        vec![
            size.length.to_string(),
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
            match kind.empty_as_labelled {
                0 => String::new(),
                some => some.to_string(),
            },
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
            "as labelled",
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

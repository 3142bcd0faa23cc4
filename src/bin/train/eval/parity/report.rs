//! Parity as Markdown that reads as well on a terminal.

use std::fmt;

use super::loss::{Change, FEWEST_IMAGES, FEWEST_SHIPS, Loss};
use super::{Agreement, Figure, Parity, Set};
use crate::eval::bootstrap::ROUNDS;
use crate::eval::sizes::LENGTHS;
use crate::grid::markdown;

impl fmt::Display for Parity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let splits: Vec<String> = self.splits.iter().map(ToString::to_string).collect();
        let all = &self.sets[0];
        writeln!(
            f,
            "# Parity\n\n\
             `{}` against `{}`, on {} images of {}, {} of them with ships: plain images at their scales and\n\
             judging frames, which show or are mainly made of {} different images. Each decides by its own manifest's\n\
             thresholds.",
            self.names[0],
            self.names[1..].join("`, `"),
            all.images,
            splits.join(" and "),
            all.with_ships,
            all.clusters
        )?;
        self.limits(f)?;
        self.by_set(f)?;
        self.by_length(f)?;
        self.instances(f)
    }
}

impl Parity {
    fn limits(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = &self.names[1];
        let breaches = self.breaches();
        writeln!(f, "\n## Limits\n")?;
        match breaches.is_empty() {
            true => writeln!(f, "`{first}` keeps all limits.")?,
            false => writeln!(f, "`{first}` breaks limits:\n")?,
        }
        for breach in breaches {
            writeln!(f, "- {breach}")?;
        }
        writeln!(
            f,
            "\nFall: float less int8 on all images, in points (hundredths). Bound: its one-sided 95 % upper bound by the paired\n\
             cluster bootstrap (percentiles of {ROUNDS} draws of different images, each with all that shows it and the same for\n\
             both networks), of each figure for itself. Limits hold for the bound; for a length with under {FEWEST_SHIPS} ships none\n\
             does."
        )?;
        let head = [
            "figure",
            "float",
            "int8",
            "fall",
            "bound",
            "limit",
            "of",
            "different images",
        ];
        for (name, losses) in self.names[1..].iter().zip(&self.losses) {
            writeln!(f, "\n### `{name}`\n")?;
            markdown(f, &head, losses.iter().map(loss))?;
        }
        Ok(())
    }

    fn by_set(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n## Figures by set\n\n\
             AUC and recall are the gate's; of the tiles those that show half of a ship or nothing of any.\n"
        )?;
        let figures = Figure::WHOLE.map(|figure| figure.to_string());
        let figures = figures.iter().map(|name| name.trim_start_matches("gate "));
        let head: Vec<&str> = ["set", "network"].into_iter().chain(figures).collect();
        let rows = self.sets.iter().flat_map(|set| {
            let counts = format!("({}, {} with ships)", set.images, set.with_ships);
            let title = format!("{} {counts}", set.name);
            let figures = set.whole.iter().map(|of| of.iter().map(|&v| cell(v)));
            self.networks(title, figures)
        });
        markdown(f, &head, rows)
    }

    fn by_length(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n## By length of ships, in pixels at the networks' scale\n\n\
             Ships: their mean best IoU, and the share of them that is found at IoU 0.5.\n"
        )?;
        let names = self.names.iter().map(String::as_str);
        let head: Vec<&str> = ["set", "length", "ships"]
            .into_iter()
            .chain(names)
            .collect();
        markdown(f, &head, self.sets.iter().flat_map(lengths))?;

        writeln!(
            f,
            "\nAll images by their longest ship; AUC and recall are those of the gate by an image's best tile, AUC against all\n\
             images without ships.\n"
        )?;
        let head = [
            "longest",
            "network",
            "Dice",
            "F2",
            "gate AUC",
            "gate recall",
        ];
        let rows = (0..LENGTHS.len()).flat_map(|nth| {
            let of = self.longest.iter().map(move |lengths| &lengths[nth]);
            let title = format!("{} ({} images)", LENGTHS[nth], self.longest[0][nth].images);
            let figures = of.map(|some| {
                let figures = [some.dice, some.f2, some.gate_auc, some.gate_recall];
                figures
                    .map(|figure| cell(figure.map(|of| of.value)))
                    .into_iter()
            });
            match self.longest[0][nth].images {
                0 => Vec::new(),
                _ => self.networks(title, figures),
            }
        });
        markdown(f, &head, rows)
    }

    fn instances(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let agreement = &self.agreements[0].1;
        writeln!(
            f,
            "\n## Instances\n\n\
             What `{}` finds against what each of the others finds, on {} images with ships, of {} different ones, chosen\n\
             evenly from the sets. Of instances that overlap, the best pairs come first, each instance in one; mean and least IoU\n\
             are of the pairs. The gates agree on an image where they do on all its tiles; the difference is that of their scores\n\
             of an image.",
            self.names[1], agreement.images, agreement.clusters
        )?;
        if agreement.clusters < FEWEST_IMAGES {
            writeln!(
                f,
                "So few prove nothing: at least {FEWEST_IMAGES} are needed before anything is called equal."
            )?;
        }
        writeln!(f)?;
        let head = [
            "against",
            "same count",
            "instances",
            "of the other",
            "pairs",
            "mean IoU",
            "least IoU",
            "gates agree",
            "largest difference",
        ];
        markdown(f, &head, self.agreements.iter().map(instances))
    }

    /// A row for each network, of which the first has a title.
    fn networks<T: Iterator<Item = String>>(
        &self,
        title: String,
        figures: impl Iterator<Item = T>,
    ) -> Vec<Vec<String>> {
        let titles = std::iter::once(title).chain(std::iter::repeat(String::new()));
        let named = titles.zip(&self.names).zip(figures);
        named
            .map(|((title, name), figures)| {
                [title, name.clone()].into_iter().chain(figures).collect()
            })
            .collect()
    }
}

/// A row for each length of which there are ships.
fn lengths(set: &Set) -> Vec<Vec<String>> {
    let some = LENGTHS.iter().zip(&set.lengths);
    some.filter(|(_, of)| of.ships > 0)
        .enumerate()
        .map(|(nth, (length, of))| {
            let title = match nth {
                0 => set.name.clone(),
                _ => String::new(),
            };
            let figures = of.figures.iter();
            [title, length.to_string(), of.ships.to_string()]
                .into_iter()
                .chain(figures.map(|&[iou, found]| format!("{}, {}", cell(iou), cell(found))))
                .collect()
        })
        .collect()
}

fn loss(loss: &Loss) -> Vec<String> {
    let points = |value: f64| format!("{:.2}", 100.0 * value);
    let [float, int8, fall, bound] = match &loss.change {
        Some(Change { float, int8, fall }) => [
            cell(Some(*float)),
            cell(Some(*int8)),
            points(fall.value),
            points(fall.bound),
        ],
        None => std::array::from_fn(|_| cell(None)),
    };
    let limit = match (loss.figure.limit(), loss.enforced()) {
        (Some(_), Some(limit)) => points(limit),
        (Some(_), None) => "not enforced".to_owned(),
        (None, _) => String::new(),
    };
    vec![
        loss.figure.to_string(),
        float,
        int8,
        fall,
        bound,
        limit,
        format!("{} {}", loss.count, loss.figure.unit()),
        loss.clusters.to_string(),
    ]
}

fn instances((name, some): &(String, Agreement)) -> Vec<String> {
    let share = |count: usize| match some.images {
        0 => "-".to_owned(),
        images => format!("{:.1} %", 100.0 * count as f64 / images as f64),
    };
    vec![
        name.clone(),
        share(some.same_count),
        some.instances[0].to_string(),
        some.instances[1].to_string(),
        some.matched.to_string(),
        cell(some.mean_iou),
        cell(some.worst_iou),
        share(some.same_gate),
        format!("{:.4}", some.widest_gate),
    ]
}

fn cell(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.4}"))
}

//! The figures by which networks are compared.

use std::collections::BTreeSet;
use std::fmt;

use shipwatch::metrics::{auc, mean, pass_rate};

use crate::eval::figures::average;
use crate::eval::outcome::Outcome;
use crate::eval::sizes::{LENGTHS, Length};

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Figure {
    /// Mean Dice of the images with ships.
    DiceShips,
    /// Mean Dice of all images.
    DiceAll,
    /// Mean of the challenge's F2 of all images.
    F2,
    /// Area under the ROC curve of the gate's scores of tiles.
    TileAuc,
    /// The same of images, by their best tile.
    ImageAuc,
    /// Share of the tiles with ships that pass the gate.
    Recall,
    /// Mean best IoU of the ships of a length.
    Iou(Length),
    /// Share of the ships of a length that a prediction meets with an IoU above 0.5.
    Found(Length),
}

impl Figure {
    /// Those of whole images.
    pub(super) const WHOLE: [Self; 6] = [
        Self::DiceShips,
        Self::DiceAll,
        Self::F2,
        Self::TileAuc,
        Self::ImageAuc,
        Self::Recall,
    ];

    pub(super) fn all() -> impl Iterator<Item = Self> {
        let of = |figure: fn(Length) -> Self| LENGTHS.into_iter().map(figure);
        (Self::WHOLE.into_iter())
            .chain(of(Self::Iou))
            .chain(of(Self::Found))
    }

    /// The figure of some images, with the score at which a tile passes the gate; none where they show
    /// nothing that it is of.
    pub(super) fn of(self, outcomes: &[&Outcome], gate: f32) -> Option<f64> {
        let tiles = || -> Vec<(f32, bool)> {
            let tiles = outcomes.iter().flat_map(|outcome| &outcome.tiles);
            tiles.copied().collect()
        };
        let ships = |length: Length| {
            let ships = outcomes.iter().flat_map(|outcome| &outcome.ships);
            ships.filter(move |ship| length.contains(ship.length))
        };
        match self {
            Self::DiceShips => average(outcomes, |o| o.with_ships, |o| o.dice),
            Self::DiceAll => average(outcomes, |_| true, |o| o.dice),
            Self::F2 => average(outcomes, |_| true, |o| o.f2),
            Self::TileAuc => auc(&tiles()),
            Self::ImageAuc => {
                let scored = outcomes.iter().map(|o| (o.gate_score, o.with_ships));
                auc(&scored.collect::<Vec<_>>())
            }
            Self::Recall => pass_rate(&tiles(), gate, true),
            Self::Iou(length) => mean(ships(length).map(|ship| ship.iou)),
            Self::Found(length) => {
                mean(ships(length).map(|ship| f64::from(u8::from(ship.is_found()))))
            }
        }
    }

    /// By how much it may fall.
    ///
    /// The gate by its tiles, for it is tile by tile that it decides, and each tile counts once. An
    /// image has the score of its best tile, whatever the others do: of large images with many tiles
    /// that says little of the gate, and there are far fewer of them.
    pub(super) fn limit(self) -> Option<f64> {
        match self {
            Self::DiceShips => Some(0.005),
            Self::TileAuc => Some(0.003),
            Self::Iou(_) => Some(0.02),
            _ => None,
        }
    }

    /// How many images, tiles or ships it is of.
    pub(super) fn count(self, outcomes: &[&Outcome]) -> usize {
        outcomes.iter().map(|outcome| self.count_in(outcome)).sum()
    }

    /// How many different images show them.
    pub(super) fn clusters(self, outcomes: &[&Outcome]) -> usize {
        let own = outcomes.iter().filter(|outcome| self.count_in(outcome) > 0);
        let different: BTreeSet<&str> = own.map(|outcome| outcome.cluster.as_str()).collect();
        different.len()
    }

    fn count_in(self, outcome: &Outcome) -> usize {
        match self {
            Self::DiceShips => usize::from(outcome.with_ships),
            Self::DiceAll | Self::F2 | Self::ImageAuc => 1,
            Self::TileAuc => outcome.tiles.len(),
            Self::Recall => outcome.tiles.iter().filter(|(_, ship)| *ship).count(),
            Self::Iou(length) | Self::Found(length) => {
                let ships = outcome.ships.iter();
                ships.filter(|ship| length.contains(ship.length)).count()
            }
        }
    }

    /// What is counted.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::DiceShips | Self::DiceAll | Self::F2 | Self::ImageAuc => "images",
            Self::TileAuc | Self::Recall => "tiles",
            Self::Iou(_) | Self::Found(_) => "ships",
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DiceShips => f.write_str("Dice ships"),
            Self::DiceAll => f.write_str("Dice all"),
            Self::F2 => f.write_str("F2"),
            Self::TileAuc => f.write_str("gate AUC, tiles"),
            Self::ImageAuc => f.write_str("gate AUC, images"),
            Self::Recall => f.write_str("gate recall, tiles"),
            Self::Iou(length) => write!(f, "IoU of ships of {length} pixels"),
            Self::Found(length) => write!(f, "ships of {length} pixels found"),
        }
    }
}

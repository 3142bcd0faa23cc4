//! Whether quantized networks lose nothing that a user would notice: the same images through several
//! bundles or engines, compared pair by pair.

mod agreement;
mod figure;
mod loss;
mod report;

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use shipwatch::detect::Detector;
use shipwatch::model::{Scores, Thresholds};

use super::cases::Cases;
use super::figures::{Figures, sample};
use super::outcome::Outcome;
use super::sizes::{LENGTHS, SizedImages};
use crate::config::Config;
use crate::data::{Pool, Split};
use agreement::{Agreement, choose};
use figure::Figure;
use loss::Loss;

/// Images with ships on which instances are compared, at most.
const MOST_COMPARED: usize = 100;

/// Networks that are compared, by the name that the report gives them.
pub(crate) struct Contender<'a> {
    pub(crate) name: &'a str,
    pub(crate) detector: &'a Detector,
}

/// How int8 networks do against those in float that they come from.
pub(crate) struct Parity {
    splits: Vec<Split>,
    /// Of the networks: float first, then int8.
    names: Vec<String>,
    /// All images together, then set by set.
    sets: Vec<Set>,
    /// All images of each network by their longest ship, for each of [`LENGTHS`].
    longest: Vec<Vec<SizedImages>>,
    /// What each of the int8 networks loses on all images.
    losses: Vec<Vec<Loss>>,
    /// How the instances of each other network agree with those of the first int8 one.
    agreements: Vec<(String, Agreement)>,
}

/// Figures of one set of images.
struct Set {
    name: String,
    images: usize,
    with_ships: usize,
    /// Different images that these show or are mainly made of.
    clusters: usize,
    /// Of each network, those of [`Figure::WHOLE`].
    whole: Vec<Vec<Option<f64>>>,
    /// Of each of [`LENGTHS`].
    lengths: Vec<OfLength>,
}

/// Ships of one length.
struct OfLength {
    ships: usize,
    /// Mean best IoU and recall of each network.
    figures: Vec<[Option<f64>; 2]>,
}

/// What came of all images by one contender.
struct Judged {
    name: String,
    thresholds: Thresholds,
    outcomes: Vec<Outcome>,
}

/// Runs all over the same cases of some splits (plain images at their scales and judging frames), each
/// with its own manifest's thresholds. The first of `int8` is the one that limits hold for; its scores by
/// set are returned, too.
///
/// # Errors
/// If no image of the splits can be read, or a network fails.
///
/// # Panics
/// If `int8` is empty.
pub(crate) fn compare(
    float: &Contender,
    int8: &[Contender],
    pool: &Pool,
    config: &Config,
    splits: &[Split],
) -> Result<(Parity, BTreeMap<String, Scores>)> {
    let cases: Vec<Cases> = splits
        .iter()
        .map(|&split| Cases::open(pool, split, config))
        .collect::<Result<_>>()?;
    let judge = |contender: &Contender| -> Result<Judged> {
        let doing = format!("judging {}", contender.name);
        let mut outcomes = Vec::new();
        for cases in &cases {
            outcomes.extend(cases.map(&doing, |case| Outcome::of(contender.detector, case, &[]))?);
        }
        Ok(Judged {
            name: contender.name.to_owned(),
            thresholds: contender.detector.manifest().thresholds,
            outcomes,
        })
    };
    let judged: Vec<Judged> = std::iter::once(float)
        .chain(int8)
        .map(judge)
        .collect::<Result<_>>()?;
    ensure!(
        !judged[0].outcomes.is_empty(),
        "no image of the splits can be read: name some under [[data]]"
    );
    let key = |outcome: &Outcome| (outcome.set.clone(), outcome.id.clone());
    for other in &judged[1..] {
        let same = judged[0].outcomes.iter().map(key);
        ensure!(
            same.eq(other.outcomes.iter().map(key)),
            "images changed while networks were compared on them: compare again"
        );
    }
    Ok((Parity::of(splits, &judged), judged[1].scores()))
}

impl Parity {
    /// # Panics
    /// If not all were judged by the same images, or fewer than two were.
    fn of(splits: &[Split], judged: &[Judged]) -> Self {
        let all = &judged[0].outcomes;
        let mut sets: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, outcome) in all.iter().enumerate() {
            sets.entry(&outcome.set).or_default().push(index);
        }
        let every = ("all images", (0..all.len()).collect());
        let others = judged.iter().enumerate().filter(|&(nth, _)| nth != 1);
        let chosen = choose(all, MOST_COMPARED);
        Self {
            splits: splits.to_vec(),
            names: judged.iter().map(|some| some.name.clone()).collect(),
            sets: std::iter::once(every)
                .chain(sets)
                .map(|(name, indices)| Set::of(name, &indices, judged))
                .collect(),
            longest: judged
                .iter()
                .map(|some| {
                    let outcomes: Vec<&Outcome> = some.outcomes.iter().collect();
                    SizedImages::all(&sample(&outcomes), some.thresholds.gate)
                })
                .collect(),
            losses: judged[1..]
                .iter()
                .map(|int8| Loss::all(&judged[0], int8))
                .collect(),
            agreements: others
                .map(|(_, other)| {
                    let agreement = Agreement::of(&judged[1], other, &chosen);
                    (other.name.clone(), agreement)
                })
                .collect(),
        }
    }

    /// The limits that the first of the int8 networks breaks against float, each a sentence with the
    /// numbers; empty if none.
    pub(crate) fn breaches(&self) -> Vec<String> {
        self.losses[0].iter().filter_map(Loss::breach).collect()
    }
}

impl Judged {
    /// By set.
    fn scores(&self) -> BTreeMap<String, Scores> {
        let sets = Figures::by_set(&self.outcomes, &self.thresholds);
        let scores = |(set, figures): (String, Figures)| (set, figures.scores());
        sets.into_iter().map(scores).collect()
    }
}

impl Set {
    fn of(name: &str, indices: &[usize], judged: &[Judged]) -> Self {
        let of = |some: &Judged, figure: Figure| {
            let outcomes: Vec<&Outcome> = indices.iter().map(|&i| &some.outcomes[i]).collect();
            figure.of(&outcomes, some.thresholds.gate)
        };
        let own: Vec<&Outcome> = indices.iter().map(|&i| &judged[0].outcomes[i]).collect();
        Self {
            name: name.to_owned(),
            images: own.len(),
            with_ships: Figure::DiceShips.count(&own),
            clusters: Figure::DiceAll.clusters(&own),
            whole: judged
                .iter()
                .map(|some| {
                    Figure::WHOLE
                        .iter()
                        .map(|&figure| of(some, figure))
                        .collect()
                })
                .collect(),
            lengths: LENGTHS
                .iter()
                .map(|&length| OfLength {
                    ships: Figure::Iou(length).count(&own),
                    figures: judged
                        .iter()
                        .map(|some| {
                            [Figure::Iou(length), Figure::Found(length)]
                                .map(|figure| of(some, figure))
                        })
                        .collect(),
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;

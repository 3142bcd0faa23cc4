//! What int8 loses against float, and how much it may.

use super::{Figure, Judged};
use crate::eval::bootstrap::{AtMost, Clusters};
use crate::eval::outcome::Outcome;

/// Different images with ships below which nothing is called equal.
pub(super) const FEWEST_IMAGES: usize = 10;

/// Ships below which the fall of a length is told, not limited.
pub(super) const FEWEST_SHIPS: usize = 30;

/// What int8 loses of one figure.
pub(super) struct Loss {
    pub(super) figure: Figure,
    /// How many images, tiles or ships the figure is of.
    pub(super) count: usize,
    /// Different images that show them.
    pub(super) clusters: usize,
    /// None where there is no figure.
    pub(super) change: Option<Change>,
}

pub(super) struct Change {
    pub(super) float: f64,
    pub(super) int8: f64,
    /// Float less int8.
    pub(super) fall: AtMost,
}

impl Loss {
    /// What `int8` loses of each figure.
    pub(super) fn all(float: &Judged, int8: &Judged) -> Vec<Self> {
        let pairs: Vec<(&Outcome, &Outcome)> = float.outcomes.iter().zip(&int8.outcomes).collect();
        let refs: Vec<&(&Outcome, &Outcome)> = pairs.iter().collect();
        let sample = Clusters::by(&refs, |pair| &pair.0.cluster);
        let own: Vec<&Outcome> = float.outcomes.iter().collect();
        let of = |figure: Figure| {
            let both = |some: &[&(&Outcome, &Outcome)]| {
                let (a, b): (Vec<&Outcome>, Vec<&Outcome>) = some.iter().copied().copied().unzip();
                Some((
                    figure.of(&a, float.thresholds.gate)?,
                    figure.of(&b, int8.thresholds.gate)?,
                ))
            };
            let change = both(&refs).and_then(|(of_float, of_int8)| {
                Some(Change {
                    float: of_float,
                    int8: of_int8,
                    fall: sample.at_most(|some| both(some).map(|(a, b)| a - b))?,
                })
            });
            Self {
                figure,
                count: figure.count(&own),
                clusters: figure.clusters(&own),
                change,
            }
        };
        Figure::all().map(of).collect()
    }

    /// The limit, where there is one and enough to judge by.
    pub(super) fn enforced(&self) -> Option<f64> {
        let few = matches!(self.figure, Figure::Iou(_)) && self.count < FEWEST_SHIPS;
        self.figure.limit().filter(|_| !few)
    }

    /// How the limit is broken, or cannot be shown to be kept.
    pub(super) fn breach(&self) -> Option<String> {
        let limit = self.enforced()?;
        let Self {
            figure,
            count,
            clusters,
            ..
        } = self;
        let unit = figure.unit();
        let Some(Change { float, int8, fall }) = &self.change else {
            return Some(format!(
                "{figure}: the {count} {unit} are too few or of one kind, so that no limit can be shown to be kept"
            ));
        };
        if *figure == Figure::DiceShips && *clusters < FEWEST_IMAGES {
            return Some(format!(
                "{figure}: {clusters} different images with ships prove nothing, at least {FEWEST_IMAGES} are needed"
            ));
        }
        (fall.bound > limit).then(|| {
            format!(
                "{figure}: {float:.4} in float and {int8:.4} in int8, a fall of {:.2} points that may be {:.2} (95 % \
                 bound, {count} {unit} of {clusters} different images), where {:.1} is the limit",
                100.0 * fall.value,
                100.0 * fall.bound,
                100.0 * limit
            )
        })
    }
}

//! `manifest.toml`: what a bundle's networks expect, what they were trained on and how well they do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What stands in a bundle's `manifest.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this layout; [`Manifest::SCHEMA`].
    pub schema: u32,
    /// The bundle's name, as records show it.
    pub name: String,
    /// The bundle's version, as records show it.
    pub version: String,
    /// Licence of the weights and who must be named.
    pub licence: String,
    /// Side of a square tile in pixels, a multiple of 32.
    pub tile: u32,
    /// Least overlap of neighbouring tiles in pixels, above zero and below `tile`.
    pub overlap: u32,
    /// How a byte becomes an input value: `(byte - mean) / std`.
    pub normalisation: Normalisation,
    /// Finest and coarsest ground resolution in metres per pixel that training covered.
    pub gsd: [f64; 2],
    /// Where decisions are cut.
    pub thresholds: Thresholds,
    /// The classifier.
    pub gate: NetworkFile,
    /// The segmenter.
    pub unet: NetworkFile,
    /// Data sets the weights saw.
    pub training: Vec<TrainingData>,
    /// The training run, as far as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// Measured quality by evaluation set.
    #[serde(default)]
    pub scores: BTreeMap<String, Scores>,
}

/// The affine map from bytes to network input, the same for each channel.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalisation {
    /// Byte value that maps to zero.
    pub mean: f32,
    /// Bytes per unit of input.
    pub std: f32,
}

impl Normalisation {
    /// The input value of each byte.
    pub fn values(self) -> [f32; 256] {
        std::array::from_fn(|byte| (byte as f32 - self.mean) / self.std)
    }
}

/// Probabilities at which decisions are cut, and the smallest ship worth naming.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// A tile whose gate score reaches this is segmented: set low, so that few ships are lost.
    pub gate: f32,
    /// A frame of which a tile's gate score reaches this is said to show a ship: set where most
    /// frames are judged right.
    pub classify: f32,
    /// A pixel whose merged probability reaches this is ship.
    pub mask: f32,
    /// Components with fewer pixels at the networks' scale are dropped.
    pub min_area: u32,
    /// Ships that touch are parted where the segmenter's second output, how central in its ship a
    /// pixel lies, falls by this much between two of them. Present if there is such an output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valley: Option<f32>,
}

/// One ONNX file of the bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkFile {
    /// Name within the bundle's folder.
    pub file: String,
    /// Lower-case hexadecimal SHA-256 of the file.
    pub sha256: String,
}

/// A data set behind the weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingData {
    /// The set's name.
    pub name: String,
    /// Images used.
    pub images: usize,
    /// Licence of the set.
    pub licence: String,
    /// Whom its licence asks to name.
    pub attribution: String,
}

/// The training run behind the weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Digest of what each image was for: training, tuning or testing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Git revision of the program that trained, `-dirty` where files differed from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

/// Measured quality on one evaluation set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    /// Images in the set.
    pub images: usize,
    /// Mean Dice over images with ships; none where no image holds any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dice_ships: Option<f64>,
    /// Mean Dice over all images.
    pub dice_all: f64,
    /// Mean Dice over all images of predicting nothing.
    pub dice_all_empty_baseline: f64,
    /// Mean of the challenge's F2 over all images.
    pub f2: f64,
    /// Mean of the challenge's F2 over all images of predicting nothing.
    pub f2_empty_baseline: f64,
    /// Share of the tiles that show at least half of a ship that pass the gate; none without such.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate_recall: Option<f64>,
    /// Share of the tiles without ships that the gate stops; none without such.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate_rejected: Option<f64>,
    /// Area under the gate's ROC curve over these tiles; none where all are of one kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate_auc: Option<f64>,
}

/// Why a manifest was refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not TOML, or a key that does not belong.
    #[error("{0}")]
    Syntax(#[from] toml::de::Error),
    /// The layout of another version.
    #[error(
        "this shipwatch reads `schema = {wanted}`, not {found}: export the models again, or get those of \
         this version",
        wanted = Manifest::SCHEMA
    )]
    Schema {
        /// The manifest's.
        found: u32,
    },
    /// Parses, but makes no sense.
    #[error("`{key}`: {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong with its value.
        reason: &'static str,
    },
}

impl Manifest {
    /// The layout this version of shipwatch reads and writes.
    pub const SCHEMA: u32 = 2;

    /// Parses and checks a manifest.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        /// What every layout has.
        #[derive(Deserialize)]
        struct Layout {
            schema: u32,
        }
        let Layout { schema } = toml::from_str(text)?;
        if schema != Self::SCHEMA {
            return Err(ManifestError::Schema { found: schema });
        }
        let manifest: Self = toml::from_str(text)?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), ManifestError> {
        let probability = |p: f32| p.is_finite() && (0.0..=1.0).contains(&p);
        let [fine, coarse] = self.gsd;
        let rules = [
            (
                "tile",
                self.tile > 0 && self.tile.is_multiple_of(32),
                "must be a positive multiple of 32",
            ),
            (
                "overlap",
                (1..self.tile).contains(&self.overlap),
                "must be smaller than `tile`, and positive: what tiles share tells which of them a ship reaches into",
            ),
            (
                "normalisation.std",
                self.normalisation.std > 0.0,
                "must be positive",
            ),
            (
                "gsd",
                fine > 0.0 && fine <= coarse && coarse.is_finite(),
                "must be [finest, coarsest], both positive",
            ),
            (
                "thresholds.gate",
                probability(self.thresholds.gate),
                "must lie between 0 and 1",
            ),
            (
                "thresholds.classify",
                probability(self.thresholds.classify),
                "must lie between 0 and 1",
            ),
            (
                "thresholds.mask",
                probability(self.thresholds.mask),
                "must lie between 0 and 1",
            ),
            (
                "thresholds.valley",
                self.thresholds.valley.is_none_or(|v| v > 0.0 && v <= 1.0),
                "must lie above 0 and be at most 1",
            ),
        ];
        match rules.into_iter().find(|(_, holds, _)| !holds) {
            Some((key, _, reason)) => Err(ManifestError::Value { key, reason }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        schema = 2
        name = "test"
        version = "1"
        licence = "none"
        tile = 224
        overlap = 32
        normalisation = { mean = 127.5, std = 127.5 }
        gsd = [0.4, 10.0]
        thresholds = { gate = 0.3, classify = 0.6, mask = 0.5, min_area = 6 }
        gate = { file = "gate.onnx", sha256 = "00" }
        unet = { file = "unet.onnx", sha256 = "00" }
        training = []
    "#;

    #[test]
    fn reads_what_it_wrote() {
        let run = format!("{GOOD}\n        run = {{ revision = \"0a1b-dirty\" }}");
        for text in [
            &run,
            GOOD,
            &GOOD.replace("min_area = 6", "min_area = 6, valley = 0.3"),
        ] {
            let manifest = Manifest::parse(text).expect("good manifest");
            let text = toml::to_string(&manifest).expect("serialises");
            assert_eq!(Manifest::parse(&text).expect("parses again"), manifest);
        }
    }

    #[test]
    fn names_the_key_that_makes_no_sense() {
        for (good, bad, key) in [
            ("tile = 224", "tile = 100", "`tile`"),
            ("overlap = 32", "overlap = 224", "`overlap`"),
            ("overlap = 32", "overlap = 0", "`overlap`"),
            ("gsd = [0.4, 10.0]", "gsd = [2.0, 1.0]", "`gsd`"),
            ("gate = 0.3", "gate = 1.5", "`thresholds.gate`"),
            (
                "min_area = 6",
                "min_area = 6, valley = 0.0",
                "`thresholds.valley`",
            ),
            ("classify = 0.6", "classify = nan", "`thresholds.classify`"),
            ("schema = 2", "schema = 1", "`schema = 2`, not 1"),
            (
                "version = \"1\"",
                "version = \"1\"\nnonsense = 1",
                "nonsense",
            ),
        ] {
            let error = Manifest::parse(&GOOD.replacen(good, bad, 1)).expect_err(key);
            assert!(error.to_string().contains(key), "{error}");
        }
    }
}

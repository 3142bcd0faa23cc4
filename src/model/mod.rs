//! Model bundles: a manifest beside a gate and a U-Net.

mod manifest;

pub use manifest::{
    Manifest, ManifestError, NetworkFile, Normalisation, Scores, Thresholds, TrainingData,
};

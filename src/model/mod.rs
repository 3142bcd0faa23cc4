//! Model bundles: a manifest beside a gate and a U-Net.

mod bundle;
mod manifest;

pub use bundle::{Bundle, MANIFEST, ModelError, digest};
pub use manifest::{
    Manifest, ManifestError, NetworkFile, Normalisation, Run, Scores, Thresholds, TrainingData,
};

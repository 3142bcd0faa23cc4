//! From labelled images to batches of tiles.

mod augment;
mod loader;
mod pool;
mod sample;
mod separation;
mod tile;

pub(crate) use loader::Loader;
pub(crate) use pool::Pool;
pub(crate) use sample::Sampler;
pub(crate) use separation::Centrality;
pub(crate) use tile::Tile;

use serde::{Deserialize, Serialize};

/// What an image is for. No image serves two purposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Split {
    /// Gradients.
    Train,
    /// Early stopping and thresholds.
    Tune,
    /// Reports.
    Test,
}

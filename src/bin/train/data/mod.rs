//! From labelled images to batches of tiles.

mod augment;
mod folder;
mod loader;
mod pool;
mod sample;
pub(crate) mod scene;
mod separation;
mod ship;
mod tile;

pub(crate) use folder::{check_masks, open};
pub(crate) use loader::{Draws, Loader, key};
pub(crate) use pool::{Pool, PoolImage, Source};
pub(crate) use sample::Sampler;
#[cfg(test)]
pub(crate) use sample::fixtures;
pub(crate) use separation::Centrality;
pub(crate) use ship::ship_length;
pub(crate) use tile::Tile;

use std::fmt;

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

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Train => "train",
            Self::Tune => "tune",
            Self::Test => "test",
        })
    }
}

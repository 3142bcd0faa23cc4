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

/// What an image is for. No image serves two purposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub(crate) enum Split {
    /// Gradients.
    Train,
    /// Early stopping and thresholds.
    Tune,
    /// Reports.
    Test,
}

impl Split {
    pub(crate) const ALL: [Self; 3] = [Self::Train, Self::Tune, Self::Test];

    /// As on the command line and in CSV files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Tune => "tune",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

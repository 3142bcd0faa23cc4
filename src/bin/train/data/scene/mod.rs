//! Scenes that no image of the data shows: made-up weather, water and structures.

mod noise;
pub(crate) mod weather;

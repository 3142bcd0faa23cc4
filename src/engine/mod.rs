//! Networks of bytes, from image to probabilities without a float map in between.
//!
//! A [`Graph`] says what is computed, by the arithmetic of [`arithmetic`]. A [`Segment`] is a graph made
//! ready for one kind of processor: weights packed, buffers planned. The folder refers to nothing outside
//! itself but rayon, so that its tests run wherever a compiler reaches.

pub mod arithmetic;
mod graph;
mod kernels;
mod layer;
#[cfg(test)]
mod noise;
mod pack;
mod plan;
mod segment;
mod share;
mod summary;
#[cfg(test)]
mod tests;

pub use graph::{Filters, Graph, Map, Node, Op, Refusal, Window};
pub use segment::{Scratch, Segment};
pub use summary::Summary;

/// Names of the kernels that this processor can run, fastest first.
pub fn kernels() -> Vec<&'static str> {
    let runnable = kernels::runnable();
    runnable.into_iter().map(|kernel| kernel.name()).collect()
}

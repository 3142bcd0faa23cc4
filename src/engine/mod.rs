//! Networks of bytes, from image to probabilities without a float map in between.
//!
//! A [`Graph`] says what is computed, by the arithmetic of [`arithmetic`]. A [`Segment`] is a graph made
//! ready for one kind of processor: weights packed, buffers planned. The folder refers to nothing outside
//! itself, so that its tests run wherever a compiler reaches.

pub mod arithmetic;
mod graph;
mod kernels;
mod layer;
mod plan;
mod segment;

pub use graph::{Filters, Graph, Map, Node, Op, Refusal, Window};
pub use segment::{Scratch, Segment};

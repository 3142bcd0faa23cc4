//! Running networks. tract is named in this folder alone.

mod limits;
mod network;
pub mod onnx;
mod operators;
mod recognise;

pub use network::{Engine, InferenceError, Network, metadata};

//! Running networks. tract is named in this folder alone.

mod network;
pub mod onnx;

pub use network::{InferenceError, Network};

//! Running networks. tract is named in this folder alone.

mod network;

pub use network::{InferenceError, Network};

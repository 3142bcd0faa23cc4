//! Running networks. tract is named in this folder alone.

mod network;
pub mod onnx;
mod operators;
mod recognise;

pub use network::{Engine, InferenceError, Network};

#[doc(hidden)]
pub fn graph_of(bytes: &[u8], values: &[f32; 256]) -> Option<(crate::engine::Graph, Vec<usize>)> {
    let p = <tract_onnx::pb::ModelProto as prost::Message>::decode(bytes).ok()?;
    let r = recognise::recognise(&p, values)?;
    Some((r.graph, r.outputs))
}

//! The small networks that ship, and pieces of a real scene: random networks magnify what the last bit of
//! a sum decides, trained ones do not.

use std::fs;
use std::path::Path;

use burn::tensor::Tensor;
use burn_flex::{Flex, FlexDevice};
use image::{RgbImage, imageops};
use shipwatch::inference::onnx::initializers;

use super::BYTES;
use crate::export::Graph;
use crate::nn::{DecoderKind, Encoder, Gate, UNet};
use crate::tensors::images_by;

/// Side of a tile.
pub(super) const SIDE: usize = 64;

/// `small-f32`'s gate for tiles of [`SIDE`] pixels.
pub(super) fn gate() -> Graph {
    let gate = Gate::<Flex>::new(0.35, &FlexDevice);
    with_weights(Graph::of_gate(&gate, SIDE), "gate.onnx")
}

/// `small-f32`'s U-Net for tiles of [`SIDE`] pixels.
pub(super) fn unet() -> Graph {
    let encoder = Encoder::new(0.35, &FlexDevice);
    let unet = UNet::<Flex>::on(encoder, DecoderKind::Light, &FlexDevice);
    with_weights(Graph::of_unet(&unet, SIDE), "unet.onnx")
}

fn with_weights(mut graph: Graph, file: &str) -> Graph {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/small-f32");
    let bytes = fs::read(models.join(file)).expect("a network");
    let mut constants = initializers(&bytes).expect("an ONNX model");
    for node in &mut graph.nodes {
        let name = node.name.clone();
        if let Some((weight, bias)) = node.op.filters_mut() {
            let mut take = |part| constants.remove(&format!("{name}.{part}")).expect("there");
            *weight = take("weight");
            *bias = take("bias").values;
        }
    }
    graph.of_bytes()
}

/// `[count, S, S, 3]`: pieces of the scene of Algiers, side by side.
pub(super) fn tiles(count: u32) -> Tensor<Flex, 4> {
    let file = "tests/data/sentinel2-ports/images/algiers.jpg";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let scene = image::open(path).expect("an image").into_rgb8();
    let side = SIDE as u32;
    let tile = |nth: u32| imageops::crop_imm(&scene, 300 + nth * side, 400, side, side).to_image();
    let tiles: Vec<RgbImage> = (0..count).map(tile).collect();
    images_by(BYTES, tiles.iter(), &FlexDevice)
}

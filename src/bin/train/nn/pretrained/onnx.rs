//! The networks of a bundle, as training knows them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use burn::tensor::TensorData;
use shipwatch::inference::onnx::{Weights, initializers};

use crate::nn::params::Params;

/// Reads a gate or a U-Net that `train export` wrote. Its batch norms are folded: each convolution
/// comes as weight and as the shift of the norm that it had.
pub(super) fn load(path: &Path) -> Result<Params> {
    let context = || path.display().to_string();
    let bytes = fs::read(path).with_context(context)?;
    Ok(own(initializers(&bytes).with_context(context)?))
}

/// Whether these are the tensors of a U-Net rather than of a gate.
pub(super) fn is_unet(params: &Params) -> bool {
    params.0.keys().any(|name| name.starts_with("decoder."))
}

/// Tensors under the training networks' names; those of unknown layers keep theirs.
fn own(file: BTreeMap<String, Weights>) -> Params {
    let named = file.into_iter().map(|(name, weights)| {
        let mut shape = weights.shape;
        if name == "classifier.weight" {
            // A 1x1 convolution in the file, a matrix in training.
            shape.truncate(2);
            shape.reverse();
        }
        let own = own_name(&name).unwrap_or(name);
        (own, TensorData::new(weights.values, shape))
    });
    // The operators' own constants.
    let constant = |name: &String| !name.contains('.');
    Params(named.filter(|(name, _)| !constant(name)).collect())
}

/// The training networks' name for a tensor that `export` named.
fn own_name(name: &str) -> Option<String> {
    let path: Vec<&str> = name.split('.').collect();
    let (place, normless) = match path[..] {
        ["stem", _] => ("encoder.stem".to_owned(), false),
        ["block", index, part, _] => (format!("encoder.blocks.{index}.{part}"), false),
        ["head", _] => ("head".to_owned(), false),
        ["decoder", index, part @ ("reduce" | "lateral"), _] => {
            (format!("decoder.Light.stages.{index}.{part}"), false)
        }
        ["decoder", index, part @ ("depthwise" | "pointwise"), _] => {
            (format!("decoder.Light.stages.{index}.refine.{part}"), false)
        }
        ["decoder", index, part @ ("first" | "second"), _] => {
            (format!("decoder.Seed.stages.{index}.{part}"), false)
        }
        ["decoder", index, "up", _] => (format!("decoder.Seed.stages.{index}.up"), true),
        ["mask", _] => ("head".to_owned(), true),
        ["classifier", _] => ("classifier".to_owned(), true),
        _ => return None,
    };
    // What has no norm keeps its bias.
    match (path.last()?, normless) {
        (&"bias", false) => Some(format!("{place}.bn.beta")),
        (tensor, _) => Some(format!("{place}.{tensor}")),
    }
}

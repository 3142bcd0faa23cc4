//! ImageNet weights under Keras's layer names.

use burn::tensor::{TensorData, backend::Backend};

use super::gate::Gate;
use super::params::{ParamError, Params, apply, collect};

/// What of a pretrained file went where.
#[derive(Debug)]
pub(crate) struct Report {
    /// Tensors of the gate that were set.
    pub(crate) applied: usize,
    /// Tensors of the gate that keep their random start.
    pub(crate) untouched: Vec<String>,
    /// Tensors of the file that nothing asked for.
    pub(crate) unused: Vec<String>,
}

/// Sets the gate's trunk and head from `file`, whose names are those of Keras's MobileNetV2 with
/// `.weight`, `.bias`, `.running_mean` and `.running_var` on each batch norm.
///
/// # Errors
/// If a tensor has another shape than the network, or the file's batch norms are folded.
pub(crate) fn load_pretrained<B: Backend>(
    gate: Gate<B>,
    file: &Params,
) -> Result<(Gate<B>, Report), ParamError> {
    if file.0.contains_key("Conv1.bias") {
        return Err(ParamError::Folded);
    }
    let mut params = collect(&gate);
    let mut unused: Vec<String> = file.0.keys().cloned().collect();
    let mut untouched = Vec::new();
    let mut applied = 0;
    for (name, slot) in &mut params.0 {
        let Some(source) = keras_name(name) else {
            untouched.push(name.clone());
            continue;
        };
        let data = file
            .0
            .get(&source)
            .ok_or_else(|| ParamError::Missing(source.clone()))?;
        check_shape(&source, data, slot)?;
        *slot = data.clone();
        unused.retain(|name| *name != source);
        applied += 1;
    }
    Ok((
        apply(gate, &params)?,
        Report {
            applied,
            untouched,
            unused,
        },
    ))
}

fn check_shape(name: &str, found: &TensorData, needed: &TensorData) -> Result<(), ParamError> {
    if found.shape == needed.shape {
        return Ok(());
    }
    Err(ParamError::Shape {
        name: name.to_owned(),
        found: found.shape.to_vec(),
        needed: needed.shape.to_vec(),
    })
}

/// Keras's name for one of the gate's tensors; none for the classifier.
fn keras_name(name: &str) -> Option<String> {
    let path: Vec<&str> = name.split('.').collect();
    let (conv, bn, tensor) = match &path[..] {
        ["encoder", "stem", tensor @ ..] => ("Conv1".to_owned(), "bn_Conv1".to_owned(), tensor),
        ["head", tensor @ ..] => ("Conv_1".to_owned(), "Conv_1_bn".to_owned(), tensor),
        ["encoder", "blocks", index, part, tensor @ ..] => {
            let conv = match *index {
                "0" => format!("expanded_conv_{part}"),
                _ => format!("block_{index}_{part}"),
            };
            (conv.clone(), format!("{conv}_BN"), tensor)
        }
        _ => return None,
    };
    Some(match tensor {
        ["weight"] => format!("{conv}.weight"),
        ["bn", "gamma"] => format!("{bn}.weight"),
        ["bn", "beta"] => format!("{bn}.bias"),
        ["bn", statistic] => format!("{bn}.{statistic}"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use burn::tensor::Tensor;
    use burn_flex::{Flex, FlexDevice};
    use serde::Deserialize;

    use super::*;
    use crate::nn::Mode;

    /// Features of Keras's MobileNetV2; `tests/fixtures/encoder/make_reference.py` wrote them.
    #[derive(Deserialize)]
    struct Reference {
        taps: Vec<Tap>,
    }

    #[derive(Deserialize)]
    struct Tap {
        name: String,
        shape: [usize; 3],
        mean: f64,
        std: f64,
        indices: Vec<usize>,
        values: Vec<f32>,
    }

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/encoder")
            .join(name)
    }

    #[test]
    fn other_files_are_refused_with_a_reason() {
        let refuse = |names: &[&str]| {
            let tensor = |name: &&str| (name.to_string(), TensorData::new(vec![0f32], [1]));
            let file = Params(names.iter().map(tensor).collect());
            load_pretrained(Gate::<Flex>::new(0.35, &FlexDevice), &file).expect_err("unfit")
        };
        assert!(matches!(
            refuse(&["Conv1.weight", "Conv1.bias"]),
            ParamError::Folded
        ));
        assert!(matches!(refuse(&["unrelated"]), ParamError::Missing(_)));
    }

    #[test]
    fn features_of_a_real_image_are_those_of_keras() {
        let weights = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../shared/weights/mobilenetv2_035_imagenet.safetensors");
        if !weights.exists() {
            eprintln!("SKIPPED: the ImageNet weights are not here (README, Training)");
            return;
        }
        let json = std::fs::read(fixture("reference_035.json")).expect("fixture");
        let reference: Reference = serde_json::from_slice(&json).expect("fixture parses");
        let image = image::open(fixture("algiers_224.png"))
            .expect("fixture")
            .to_rgb8();
        let pixels: Vec<f32> = image
            .as_raw()
            .iter()
            .map(|&p| f32::from(p) / 127.5 - 1.0)
            .collect();
        let input = Tensor::<Flex, 1>::from_floats(&pixels[..], &FlexDevice)
            .reshape([1, 224, 224, 3])
            .permute([0, 3, 1, 2]);

        let file = Params::load(&weights).expect("weights load");
        let (gate, report) = load_pretrained(Gate::new(0.35, &FlexDevice), &file).expect("fits");
        assert!(report.unused.is_empty(), "unused: {:?}", report.unused);
        assert_eq!(report.untouched, ["classifier.bias", "classifier.weight"]);

        let features = gate.encoder.forward(input, Mode::Eval);
        let head = gate.head.forward(features[4].clone(), Mode::Eval);
        for (tap, got) in reference
            .taps
            .iter()
            .zip(features.into_iter().chain([head]))
        {
            assert_eq!(got.dims()[1..], tap.shape, "{}", tap.name);
            let got = got.into_data().to_vec::<f32>().expect("f32");
            for (&index, want) in tap.indices.iter().zip(&tap.values) {
                let difference = (got[index] - want).abs();
                assert!(
                    difference < 5e-4,
                    "{}[{index}]: {} != {want}",
                    tap.name,
                    got[index]
                );
            }
            let n = got.len() as f64;
            let mean = got.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
            let variance = got
                .iter()
                .map(|&v| (f64::from(v) - mean).powi(2))
                .sum::<f64>()
                / n;
            assert!((mean - tap.mean).abs() < 1e-4, "{}: mean", tap.name);
            assert!(
                (variance.sqrt() - tap.std).abs() < 1e-4,
                "{}: deviation",
                tap.name
            );
        }
    }
}

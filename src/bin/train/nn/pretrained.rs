//! ImageNet weights under Keras's layer names.

use burn::tensor::{Tensor, TensorData, backend::Backend};

use super::gate::Gate;
use super::layers::{BATCH_NORM_EPSILON, Mode};
use super::ops::FusedOps;
use super::params::{ParamError, Params, apply, collect};

/// What of a pretrained file went where.
#[derive(Debug)]
pub(crate) struct Report {
    /// Tensors of the gate that were set.
    pub(crate) applied: usize,
    /// Tensors of the gate that keep their start; not those that [`unfold`] sets.
    pub(crate) untouched: Vec<String>,
    /// Tensors of the file that nothing asked for.
    pub(crate) unused: Vec<String>,
    /// Whether the file's batch norms are folded into its convolutions; then [`unfold`] is due.
    pub(crate) folded: bool,
}

/// Sets the gate's trunk and head from `file`, whose names are those of Keras's MobileNetV2: a
/// `.weight` for each convolution and, for each batch norm, `.weight`, `.bias`, `.running_mean` and
/// `.running_var`, or the convolution's `.bias` where they are folded.
///
/// # Errors
/// If a tensor is missing or has another shape than the network.
pub(crate) fn load_pretrained<B: Backend>(
    gate: Gate<B>,
    file: &Params,
) -> Result<(Gate<B>, Report), ParamError> {
    let folded = file.0.contains_key("Conv1.bias");
    let mut params = collect(&gate);
    let mut unused: Vec<String> = file.0.keys().cloned().collect();
    let mut untouched = Vec::new();
    let mut applied = 0;
    for (name, slot) in &mut params.0 {
        let Some(source) = keras_name(name, folded) else {
            if !(folded && name.contains(".bn.")) {
                untouched.push(name.clone());
            }
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
    let report = Report {
        applied,
        untouched,
        unused,
        folded,
    };
    Ok((apply(gate, &params)?, report))
}

/// Gives a gate that was loaded from a folded file the batch norms that it would have had, by
/// measuring a batch of images `[N, 3, S, S]`: the gate computes the same as before, and its
/// statistics are the batch's.
///
/// With mean m and variance v of a convolution's output, a scale of `sqrt(v + eps)` and a shift of
/// `folded bias + m` undo the normalisation.
pub(crate) fn unfold<B: FusedOps>(gate: &Gate<B>, images: Tensor<B, 4>) -> Params {
    let start = collect(gate);
    let norms: Vec<&str> = start
        .0
        .keys()
        .filter_map(|name| name.strip_suffix(".running_mean"))
        .collect();
    // A folded file leaves the norms' scale at 1 and their statistics at 0 and 1, which is the
    // identity but for epsilon.
    let mut identity = start.clone();
    let epsilon = BATCH_NORM_EPSILON as f32;
    for norm in &norms {
        identity.set(&format!("{norm}.gamma"), |_, gamma| {
            *gamma = (1.0 + epsilon).sqrt()
        });
    }
    let gate = apply(gate.clone(), &identity).expect("the gate's own tensors");
    let features = gate.encoder.forward(images, Mode::Measure);
    gate.classify(features, Mode::Measure);

    let mut params = collect(&gate);
    for norm in &norms {
        let values = |statistic| params.values(&format!("{norm}.{statistic}"));
        let (mean, variance) = (values("running_mean"), values("running_var"));
        params.set(&format!("{norm}.gamma"), |i, gamma| {
            *gamma = (variance[i] + epsilon).sqrt()
        });
        params.set(&format!("{norm}.beta"), |i, beta| *beta += mean[i]);
    }
    params
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

/// Keras's name for one of the gate's tensors; none for the classifier, and for what a folded file
/// does not hold.
fn keras_name(name: &str, folded: bool) -> Option<String> {
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
        ["bn", "beta"] if folded => format!("{conv}.bias"),
        ["bn", _] if folded => return None,
        ["bn", "gamma"] => format!("{bn}.weight"),
        ["bn", "beta"] => format!("{bn}.bias"),
        ["bn", statistic] => format!("{bn}.{statistic}"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use burn_flex::{Flex, FlexDevice};
    use serde::Deserialize;

    use super::*;

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

    fn input() -> Tensor<Flex, 4> {
        let image = image::open(fixture("algiers_224.png"))
            .expect("fixture")
            .to_rgb8();
        let pixels: Vec<f32> = image
            .as_raw()
            .iter()
            .map(|&p| f32::from(p) / 127.5 - 1.0)
            .collect();
        Tensor::<Flex, 1>::from_floats(&pixels[..], &FlexDevice)
            .reshape([1, 224, 224, 3])
            .permute([0, 3, 1, 2])
    }

    /// A gate with the weights of `file` from beside the checkout, where they are.
    fn pretrained(file: &str, width: f64) -> Option<(Gate<Flex>, Report)> {
        let weights = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../shared/weights")
            .join(file);
        if !weights.exists() {
            eprintln!("SKIPPED: the ImageNet weights are not here (README, Training)");
            return None;
        }
        let file = Params::load(&weights).expect("weights load");
        Some(load_pretrained(Gate::new(width, &FlexDevice), &file).expect("fits"))
    }

    fn assert_features(gate: &Gate<Flex>, reference: &str) {
        let json = std::fs::read(fixture(reference)).expect("fixture");
        let reference: Reference = serde_json::from_slice(&json).expect("fixture parses");
        let features = gate.encoder.forward(input(), Mode::Eval);
        let head = gate.head.forward(features[4].clone(), Mode::Eval);
        for (tap, got) in reference
            .taps
            .iter()
            .zip(features.into_iter().chain([head]))
        {
            let got = got.permute([0, 3, 1, 2]);
            assert_eq!(got.dims()[1..], tap.shape, "{}", tap.name);
            let got = got.into_data().to_vec::<f32>().expect("f32");
            for (&index, want) in tap.indices.iter().zip(&tap.values) {
                let difference = (got[index] - want).abs();
                assert!(
                    difference < 1e-3,
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

    #[test]
    fn features_of_a_real_image_are_those_of_keras() {
        let Some((gate, report)) = pretrained("mobilenetv2_035_imagenet.safetensors", 0.35) else {
            return;
        };
        assert!(report.unused.is_empty(), "unused: {:?}", report.unused);
        assert_eq!(report.untouched, ["classifier.bias", "classifier.weight"]);
        assert!(!report.folded);
        assert_features(&gate, "reference_035.json");
    }

    #[test]
    fn folded_weights_get_batch_norms_that_change_nothing() {
        let file = "mobilenetv2_100_imagenet_bnfolded.safetensors";
        let Some((gate, report)) = pretrained(file, 1.0) else {
            return;
        };
        assert!(report.folded);
        assert_eq!(report.untouched, ["classifier.bias", "classifier.weight"]);
        assert!(report.unused.is_empty(), "unused: {:?}", report.unused);
        let params = unfold(&gate, input());
        let gate = apply(gate, &params).expect("fits");
        assert_features(&gate, "reference_100.json");
        // The statistics are those of the batch: training starts from the same function.
        let trained = gate.encoder.forward(input(), Mode::Train)[4].clone();
        let evaluated = gate.encoder.forward(input(), Mode::Eval)[4].clone();
        let worst = (trained - evaluated).abs().max().into_scalar();
        assert!(worst < 1e-2, "{worst}");
    }

    #[test]
    fn a_file_of_another_network_is_refused() {
        let file = Params([("unrelated".into(), TensorData::new(vec![0f32], [1]))].into());
        let error = load_pretrained(Gate::<Flex>::new(0.35, &FlexDevice), &file);
        assert!(matches!(error, Err(ParamError::Missing(_))));
    }
}

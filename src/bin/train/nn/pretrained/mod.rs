//! Weights that a run starts from: ImageNet's, or those of a bundle.

mod keras;
mod narrow;
mod onnx;
mod unfold;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use burn::tensor::{Tensor, TensorData};
use shipwatch::model::Bundle;

use super::gate::Gate;
use super::layers::Mode;
use super::mobilenet::channels;
use super::ops::FusedOps;
use super::params::{ParamError, Params, apply, collect};
use super::unet::UNet;
use crate::tensors::NORMALISATION;

/// Weights to start from, under the networks' own names. Those whose batch norms are folded hold a
/// norm's shift, but no scale or statistics.
#[derive(Debug)]
pub(crate) struct Pretrained {
    path: PathBuf,
    gate: Option<Params>,
    unet: Option<Params>,
}

/// What a path of pretrained weights leads to.
enum Kind {
    /// The folder of a bundle.
    Bundle,
    /// One of a bundle's ONNX files.
    Onnx,
    /// A safetensors file with Keras's names.
    Keras,
}

impl Kind {
    fn of(path: &Path) -> Self {
        if path.is_dir() {
            Self::Bundle
        } else if path.extension().is_some_and(|end| end == "onnx") {
            Self::Onnx
        } else {
            Self::Keras
        }
    }
}

/// What of pretrained weights went where.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Tensors of the network that were set.
    pub(crate) applied: usize,
    /// Tensors of the network that keep their start; not the norms that were measured.
    pub(crate) untouched: Vec<String>,
    /// Tensors of the file that nothing asked for.
    pub(crate) unused: Vec<String>,
    /// Batch norms that were folded into their convolutions, and were measured anew.
    pub(crate) unfolded: usize,
    /// The width that the file has, where only its strongest channels were kept.
    pub(crate) narrowed_from: Option<f64>,
}

impl Pretrained {
    /// Reads a safetensors file with Keras's names, a bundle's folder, or one of its ONNX files.
    ///
    /// # Errors
    /// If the file cannot be read, a weight is no number, or a bundle wants other input than
    /// training gives.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let mut loaded = Self {
            path: path.to_owned(),
            gate: None,
            unet: None,
        };
        match Kind::of(path) {
            Kind::Bundle => {
                let manifest = Bundle::load(path)?.manifest;
                let normalisation = manifest.normalisation;
                ensure!(
                    normalisation == NORMALISATION,
                    "{}: the networks want other `normalisation` than training gives: {:?}",
                    path.display(),
                    NORMALISATION
                );
                loaded.gate = Some(onnx::load(&path.join(manifest.gate.file))?);
                loaded.unet = Some(onnx::load(&path.join(manifest.unet.file))?);
            }
            Kind::Onnx => {
                let params = onnx::load(path)?;
                if onnx::is_unet(&params) {
                    loaded.unet = Some(params);
                } else {
                    loaded.gate = Some(params);
                }
            }
            Kind::Keras => loaded.gate = Some(keras::load(path)?),
        }
        for params in loaded.gate.iter().chain(&loaded.unet) {
            if let Some(name) = params.not_finite() {
                anyhow::bail!(
                    "{}: tensor `{name}` holds a value that is no number",
                    path.display()
                );
            }
        }
        Ok(loaded)
    }

    /// The folder of the bundle that weights are of; none where they are of no bundle.
    pub(crate) fn bundle(path: &Path) -> Option<&Path> {
        match Kind::of(path) {
            Kind::Bundle => Some(path),
            Kind::Onnx => path.parent(),
            Kind::Keras => None,
        }
    }

    /// The start of a gate of `width`. From a wider file the strongest channels are kept. Where
    /// batch norms were folded or channels left out, statistics are measured on `images`,
    /// `[N, 3, S, S]`.
    ///
    /// # Errors
    /// If a tensor of the encoder is missing, the file is narrower than `width`, or `images` fails.
    pub(crate) fn gate<B: FusedOps>(
        &self,
        width: f64,
        device: &B::Device,
        images: impl FnOnce() -> Result<Tensor<B, 4>>,
    ) -> Result<(Params, Report)> {
        let context = || self.path.display().to_string();
        let encoder = |unet: &Params| unet.filter(|name| name.starts_with("encoder."));
        let file = match &self.gate {
            Some(gate) => gate.clone(),
            None => self.unet.as_ref().map(encoder).unwrap_or_default(),
        };
        let target = Gate::<B>::new(width, device);
        let found = width_of(&file, Some(width)).with_context(context)?;
        ensure!(
            found >= width,
            "{}: these weights are of width {found}, too narrow for `width = {width}`",
            self.path.display()
        );
        let wide = Gate::<B>::new(found, device);
        let (params, folded, mut report) = fill(collect(&wide), &file).with_context(context)?;
        let wide = apply(wide, &params)?;
        if folded.is_empty() && found == width {
            return Ok((params, report));
        }
        let images = images()?;
        let run = |gate: &Gate<B>, mode| {
            gate.classify(gate.encoder.forward(images.clone(), mode), mode);
        };
        let params = match folded.is_empty() {
            true => params,
            false => unfold::unfold(&wide, &folded, |gate| run(gate, Mode::Measure)),
        };
        report.unfolded = folded.len();
        if found == width {
            return Ok((params, report));
        }
        report.narrowed_from = Some(found);
        let narrow = narrow::narrow(&apply(wide, &params)?, &target);
        let target = apply(target, &narrow)?;
        run(&target, Mode::Recalibrate);
        Ok((collect(&target), report))
    }

    /// The start of a U-Net, which `unet` is already on a trained encoder; none if the file holds no
    /// U-Net. Layers that the file does not have stay as they are; so does all but the encoder where
    /// the file has another decoder, and a head's second output where the file has one.
    ///
    /// # Errors
    /// If the file's encoder is of another width, or `images`, `[N, 3, S, S]`, fails.
    pub(crate) fn unet<B: FusedOps>(
        &self,
        unet: UNet<B>,
        images: impl FnOnce() -> Result<Tensor<B, 4>>,
    ) -> Result<Option<(Params, Report)>> {
        let Some(file) = &self.unet else {
            return Ok(None);
        };
        let context = || format!("{}: the U-Net", self.path.display());
        let found = width_of(file, None).with_context(context)?;
        let start = collect(&unet);
        let width = width_of(&start, None)?;
        ensure!(
            found == width,
            "{}: its U-Net has width {found}, not {width}: set `width = {found}`, or name the gate's \
             file alone",
            self.path.display()
        );
        let decoder = |params: &Params| {
            let mut names = params
                .0
                .keys()
                .filter_map(|name| name.strip_prefix("decoder."));
            names
                .next()
                .and_then(|rest| rest.split('.').next())
                .map(str::to_owned)
        };
        let same = decoder(file) == decoder(&start);
        let mut file = file.filter(|name| same || name.starts_with("encoder."));
        fit_outputs(&mut file, &start);
        let (params, folded, mut report) = fill(start, &file).with_context(context)?;
        report.unfolded = folded.len();
        let unet = apply(unet, &params)?;
        let images = images()?;
        let params = unfold::unfold(&unet, &folded, |unet| {
            unet.decode(unet.encoder.forward(images, Mode::Measure), Mode::Measure);
        });
        Ok(Some((params, report)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tensors applied", self.applied)?;
        if self.unfolded > 0 {
            write!(f, "; {} folded batch norms measured", self.unfolded)?;
        }
        if let Some(width) = self.narrowed_from {
            write!(f, "; the strongest channels of width {width} kept")?;
        }
        write!(
            f,
            "; start anew: {:?}; unused: {:?}",
            self.untouched, self.unused
        )
    }
}

/// Gives the U-Net's head in `file` as many outputs as that of `start` has: those that it lacks are
/// from there.
fn fit_outputs(file: &mut Params, start: &Params) {
    for (name, axis) in [("head.weight", 1), ("head.bias", 0)] {
        let (Some(found), Some(needed)) = (file.0.get(name), start.0.get(name)) else {
            continue;
        };
        let mut shape = found.shape.to_vec();
        let (had, has) = (shape[axis], needed.shape[axis]);
        let inner: usize = shape[axis + 1..].iter().product();
        shape[axis] = has;
        if had == has || shape != needed.shape.to_vec() {
            continue;
        }
        let (old, mut new): (Vec<f32>, Vec<f32>) =
            (found.iter().collect(), needed.iter().collect());
        let both = had.min(has) * inner;
        let pairs = new
            .chunks_exact_mut(has * inner)
            .zip(old.chunks_exact(had * inner));
        for (new, old) in pairs {
            new[..both].copy_from_slice(&old[..both]);
        }
        file.0.insert(name.to_owned(), TensorData::new(new, shape));
    }
}

/// The channel multiplier of an encoder's tensors: `asked` if it gives as many channels at the end of
/// the trunk, where widths differ most.
fn width_of(file: &Params, asked: Option<f64>) -> Result<f64, ParamError> {
    const DEEPEST: &str = "encoder.blocks.16.project.weight";
    let data = file.0.get(DEEPEST);
    let found = data.ok_or(ParamError::Missing(DEEPEST.to_owned()))?.shape[0];
    let asked = asked.filter(|&width| channels(320, width) == found);
    Ok(asked.unwrap_or(found as f64 / 320.0))
}

/// Gives `params` the values that `file` has for them, says which batch norms the file has folded,
/// and what went where.
fn fill(
    mut params: Params,
    file: &Params,
) -> Result<(Params, BTreeSet<String>, Report), ParamError> {
    let mut report = Report::default();
    let shift_of = |name: &str| {
        let (norm, _) = name
            .rsplit_once('.')
            .filter(|(norm, _)| norm.ends_with(".bn"))?;
        file.0
            .contains_key(&format!("{norm}.beta"))
            .then(|| norm.to_owned())
    };
    let mut folded = BTreeSet::new();
    for (name, slot) in &mut params.0 {
        match (file.0.get(name), shift_of(name)) {
            (Some(data), _) => {
                check_shape(name, data, slot)?;
                *slot = data.clone();
                report.applied += 1;
            }
            (None, Some(norm)) => {
                folded.insert(norm);
            }
            (None, None) if name.starts_with("encoder.") => {
                return Err(ParamError::Missing(name.clone()));
            }
            (None, None) => report.untouched.push(name.clone()),
        }
    }
    let unused = file.0.keys().filter(|name| !params.0.contains_key(*name));
    report.unused = unused.cloned().collect();
    Ok((params, folded, report))
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
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
        let file = Pretrained::load(&weights).expect("weights load");
        let (params, report) = file
            .gate::<Flex>(width, &FlexDevice, || Ok(input()))
            .expect("fits");
        let gate = apply(Gate::new(width, &FlexDevice), &params).expect("fits");
        Some((gate, report))
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
        assert_eq!((report.unfolded, report.narrowed_from), (0, None));
        assert_features(&gate, "reference_035.json");
    }

    #[test]
    fn folded_weights_get_batch_norms_that_change_nothing() {
        let file = "mobilenetv2_100_imagenet_bnfolded.safetensors";
        let Some((gate, report)) = pretrained(file, 1.0) else {
            return;
        };
        assert_eq!((report.unfolded, report.narrowed_from), (52, None));
        assert_eq!(report.untouched, ["classifier.bias", "classifier.weight"]);
        assert!(report.unused.is_empty(), "unused: {:?}", report.unused);
        assert_features(&gate, "reference_100.json");
        // The statistics are those of the batch: training starts from the same function.
        let trained = gate.encoder.forward(input(), Mode::Train)[4].clone();
        let evaluated = gate.encoder.forward(input(), Mode::Eval)[4].clone();
        let worst = (trained - evaluated).abs().max().into_scalar();
        assert!(worst < 1e-2, "{worst}");
    }

    #[test]
    fn a_narrower_network_keeps_the_strongest_channels_of_a_wider_file() {
        let file = "mobilenetv2_100_imagenet_bnfolded.safetensors";
        let Some((gate, report)) = pretrained(file, 0.75) else {
            return;
        };
        assert_eq!(report.narrowed_from, Some(1.0));
        assert_eq!(report.untouched, ["classifier.bias", "classifier.weight"]);
        assert_eq!(gate.encoder.tap_channels(), [16, 24, 24, 72, 240]);
        // The statistics are those of the batch.
        let trained = gate.encoder.forward(input(), Mode::Train)[4].clone();
        let evaluated = gate.encoder.forward(input(), Mode::Eval)[4].clone();
        let worst = (trained - evaluated).abs().max().into_scalar();
        assert!(worst < 1e-2, "{worst}");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("w.safetensors");
        let load = |params: Params, width| {
            params.save(&file, HashMap::new()).expect("saves");
            let error = Pretrained::load(&file)
                .and_then(|file| file.gate::<Flex>(width, &FlexDevice, || Ok(input())))
                .expect_err("does not fit");
            format!("{error:#}")
        };
        let unrelated = TensorData::new(vec![0f32], [1]);
        let error = load(Params([("unrelated".into(), unrelated)].into()), 0.35);
        assert!(
            error.contains("w.safetensors") && error.contains("missing"),
            "{error}"
        );

        let mut narrow = collect(&Gate::<Flex>::new(0.35, &FlexDevice));
        let error = load(narrow.clone(), 0.5);
        assert!(
            error.contains("0.35") && error.contains("`width = 0.5`"),
            "{error}"
        );
        narrow.set("encoder.stem.weight", |_, weight| *weight = f32::NAN);
        let error = load(narrow, 0.35);
        assert!(error.contains("`encoder.stem.weight`"), "{error}");
    }
}

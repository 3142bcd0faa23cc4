//! A narrower MobileNetV2 out of a wider one: the channels that matter most are kept.
//!
//! Channels come in spaces in which all layers must agree: the hidden channels of a block, which
//! its expansion makes, its depthwise filters and its projection reads; and the channels that the
//! blocks of a stage add to one another. Each space is ranked by itself.

use std::collections::BTreeMap;

use burn::tensor::{TensorData, backend::Backend};

use crate::nn::gate::Gate;
use crate::nn::layers::BATCH_NORM_EPSILON;
use crate::nn::params::{Params, collect};

/// Channels in which several layers must agree.
#[derive(Default)]
struct Space {
    /// Layers that write them.
    makers: Vec<String>,
    /// Pointwise convolutions that read them.
    readers: Vec<String>,
    /// Whether ReLU6 stands between the last maker and the readers; else the makers add up.
    rectified: bool,
    /// How many stay.
    count: usize,
}

/// Channels of a layer's two sides that stay, in their order; all where none are named.
#[derive(Default)]
struct Kept {
    inputs: Option<Vec<usize>>,
    outputs: Option<Vec<usize>>,
}

/// The tensors of `target` taken from `wide`, which has at least as many channels everywhere.
///
/// A channel is worth what it adds to the deviation of the layers that read it: its own deviation
/// times the norm of the weights on it, each scaled as its batch norm does. What a channel adds to
/// their mean, batch norm makes good for, once the statistics are measured anew.
pub(super) fn narrow<B: Backend>(wide: &Gate<B>, target: &Gate<B>) -> Params {
    let params = collect(wide);
    let mut kept: BTreeMap<String, Kept> = BTreeMap::new();
    for space in spaces(wide, target) {
        let channels = strongest(&space.worth(&params), space.count);
        for maker in space.makers {
            kept.entry(maker).or_default().outputs = Some(channels.clone());
        }
        for reader in space.readers {
            kept.entry(reader).or_default().inputs = Some(channels.clone());
        }
    }
    select(params, &kept)
}

/// The spaces of a gate's trunk; image and features stay as they are.
fn spaces<B: Backend>(wide: &Gate<B>, target: &Gate<B>) -> Vec<Space> {
    let mut spaces = Vec::new();
    let mut sum = Space::default();
    let blocks = wide.encoder.blocks.iter().zip(&target.encoder.blocks);
    for (index, (block, slim)) in blocks.enumerate() {
        let layer = |part: &str| format!("encoder.blocks.{index}.{part}");
        let reader = match block.expand {
            Some(_) => layer("expand"),
            None => "encoder.stem".to_owned(),
        };
        spaces.push(Space {
            makers: vec![reader.clone(), layer("depthwise")],
            readers: vec![layer("project")],
            rectified: true,
            count: slim.depthwise.weight.dims()[0],
        });
        if index > 0 {
            sum.readers.push(reader);
        }
        if index > 0 && !block.residual {
            spaces.push(std::mem::take(&mut sum));
        }
        sum.makers.push(layer("project"));
        sum.count = slim.project.weight.dims()[0];
    }
    sum.readers.push("head".to_owned());
    spaces.push(sum);
    spaces
}

impl Space {
    /// What each channel is worth to the readers.
    fn worth(&self, params: &Params) -> Vec<f64> {
        let deviations = match self.makers.last() {
            Some(maker) if self.rectified => rectified_deviations(params, maker),
            _ => sum_deviations(params, &self.makers),
        };
        let mut squares = vec![0.0; deviations.len()];
        for reader in &self.readers {
            let values = |name: &str| params.values(&format!("{reader}.{name}"));
            let weight = values("weight");
            let (gamma, variance) = (values("bn.gamma"), values("bn.running_var"));
            let filters = weight.chunks_exact(squares.len());
            for ((filter, gamma), variance) in filters.zip(gamma).zip(variance) {
                let scale = f64::from(gamma) / (f64::from(variance) + BATCH_NORM_EPSILON).sqrt();
                for (square, &weight) in squares.iter_mut().zip(filter) {
                    *square += (f64::from(weight) * scale).powi(2);
                }
            }
        }
        let pairs = deviations.iter().zip(squares);
        pairs
            .map(|(deviation, square)| deviation * square.sqrt())
            .collect()
    }
}

/// Deviation of each channel behind a batch norm and ReLU6, if its input is normal.
fn rectified_deviations(params: &Params, layer: &str) -> Vec<f64> {
    let values = |name| params.values(&format!("{layer}.bn.{name}"));
    let ends = values("gamma").into_iter().zip(values("beta"));
    ends.map(|(gamma, beta)| relu6_deviation(beta.into(), gamma.into()))
        .collect()
}

/// Standard deviation of `relu6(z)` for normal z, by the midpoint rule over four deviations.
fn relu6_deviation(mean: f64, deviation: f64) -> f64 {
    const STEPS: u32 = 256;
    let (mut weights, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for step in 0..STEPS {
        let z = (f64::from(step) + 0.5) / f64::from(STEPS) * 8.0 - 4.0;
        let weight = (-z * z / 2.0).exp();
        let value = (mean + deviation * z).clamp(0.0, 6.0);
        weights += weight;
        sum += weight * value;
        squares += weight * value * value;
    }
    (squares / weights - (sum / weights).powi(2))
        .max(0.0)
        .sqrt()
}

/// Deviation of the sum of several layers behind their batch norms, if they are independent.
fn sum_deviations(params: &Params, layers: &[String]) -> Vec<f64> {
    let mut variances = vec![0.0; params.values(&format!("{}.bn.gamma", layers[0])).len()];
    for layer in layers {
        let gammas = params.values(&format!("{layer}.bn.gamma"));
        for (variance, gamma) in variances.iter_mut().zip(gammas) {
            *variance += f64::from(gamma).powi(2);
        }
    }
    variances.into_iter().map(f64::sqrt).collect()
}

/// Indices of the `count` largest values, in their order.
fn strongest(worth: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..worth.len()).collect();
    order.sort_by(|&a, &b| worth[b].total_cmp(&worth[a]));
    order.truncate(count);
    order.sort_unstable();
    order
}

/// The tensors without the channels that go.
fn select(params: Params, kept: &BTreeMap<String, Kept>) -> Params {
    let slim = |name: &str, data: TensorData| {
        let weight = name.strip_suffix(".weight");
        let norm = name.rsplit_once(".bn.").map(|(layer, _)| layer);
        let Some(kept) = weight.or(norm).and_then(|layer| kept.get(layer)) else {
            return data;
        };
        let data = match &kept.outputs {
            Some(outputs) => take(&data, 0, outputs),
            None => data,
        };
        match &kept.inputs {
            Some(inputs) if weight.is_some() => take(&data, 1, inputs),
            _ => data,
        }
    };
    let slimmed = params.0.into_iter().map(|(name, data)| {
        let data = slim(&name, data);
        (name, data)
    });
    Params(slimmed.collect())
}

/// The slices at `indices` along `axis`.
fn take(data: &TensorData, axis: usize, indices: &[usize]) -> TensorData {
    let mut shape = data.shape.to_vec();
    let inner: usize = shape[axis + 1..].iter().product();
    let values: Vec<f32> = data.iter().collect();
    let taken: Vec<f32> = values
        .chunks_exact(shape[axis] * inner)
        .flat_map(|outer| {
            let slice = |&index: &usize| &outer[index * inner..(index + 1) * inner];
            indices.iter().flat_map(slice).copied()
        })
        .collect();
    shape[axis] = indices.len();
    TensorData::new(taken, shape)
}

#[cfg(test)]
mod tests {
    use burn_flex::{Flex, FlexDevice};

    use super::*;
    use crate::nn::Mode;
    use crate::nn::params::apply;
    use burn::tensor::{Distribution, Tensor};

    fn gate(width: f64) -> Gate<Flex> {
        Gate::new(width, &FlexDevice)
    }

    #[test]
    fn the_strongest_come_in_their_order() {
        assert_eq!(strongest(&[0.1, 5.0, 0.2, 4.0, 0.0], 3), [1, 2, 3]);
    }

    #[test]
    fn rectified_deviations_by_hand() {
        // Of relu(z), z normal: variance 1/2 - 1 / (2 pi).
        let half = (0.5 - 0.5 / std::f64::consts::PI).sqrt();
        assert!((relu6_deviation(0.0, 1.0) - half).abs() < 1e-3);
        assert!((relu6_deviation(3.0, 0.1) - 0.1).abs() < 1e-3);
        assert!(relu6_deviation(-5.0, 1.0) < 1e-3);
        assert!(relu6_deviation(11.0, 1.0) < 1e-3);
    }

    #[test]
    fn slices_by_hand() {
        let data = TensorData::new((0..12u8).map(f32::from).collect(), [2, 3, 2]);
        let rows = take(&data, 0, &[1]);
        assert_eq!(rows.shape.to_vec(), [1, 3, 2]);
        assert_eq!(
            rows.to_vec::<f32>().expect("f32"),
            [6., 7., 8., 9., 10., 11.]
        );
        let columns = take(&data, 1, &[0, 2]);
        assert_eq!(
            columns.to_vec::<f32>().expect("f32"),
            [0., 1., 4., 5., 6., 7., 10., 11.]
        );
    }

    #[test]
    fn at_the_same_width_nothing_changes() {
        let wide = gate(0.5);
        assert_eq!(narrow(&wide, &gate(0.5)), collect(&wide));
    }

    /// A wide network whose even channels alone matter: the others are read with weight zero. What
    /// is left computes the same.
    #[test]
    fn channels_that_nothing_reads_go_and_the_function_stays() {
        let (wide, target) = (gate(1.0), gate(0.5));
        let mut params = collect(&wide);
        let names: Vec<String> = params.0.keys().cloned().collect();
        for name in names.iter().filter(|name| name.ends_with(".weight")) {
            let [_, inputs, kernel, _] = params.0[name].shape.to_vec()[..] else {
                continue;
            };
            if kernel == 1 {
                let channel = |i: usize| i % inputs;
                params.set(name, |i, w| {
                    *w *= f32::from(u8::from(channel(i) % 2 == 0)) + 1e-9
                });
            }
        }
        let wide = apply(wide, &params).expect("fits");
        let slim = apply(target, &narrow(&wide, &gate(0.5))).expect("the target's shapes");

        let kept = |name: &str| slim_rows(&collect(&slim), &params, name);
        // All 32 stem channels' 16 even ones, and so on through the trunk.
        assert_eq!(kept("encoder.stem"), (0..32).step_by(2).collect::<Vec<_>>());
        let x = Tensor::random(
            [1, 3, 64, 64],
            Distribution::Uniform(-1.0, 1.0),
            &FlexDevice,
        );
        let want = wide.encoder.forward(x.clone(), Mode::Eval)[4].clone();
        let got = slim.encoder.forward(x, Mode::Eval)[4].clone();
        let even = Tensor::arange(0..160, &FlexDevice) * 2;
        let worst = (want.select(3, even) - got.clone())
            .abs()
            .max()
            .into_scalar();
        let spread = got.abs().max().into_scalar();
        assert!(
            worst < 1e-3 * spread && spread > 0.01,
            "{worst} of {spread}"
        );
    }

    /// Which rows of the wide layer the slim one has.
    fn slim_rows(slim: &Params, wide: &Params, layer: &str) -> Vec<usize> {
        let rows = |params: &Params| -> Vec<Vec<f32>> {
            let name = format!("{layer}.weight");
            let values = params.values(&name);
            let rows = params.0[&name].shape[0];
            let each = values.len() / rows;
            values.chunks_exact(each).map(<[f32]>::to_vec).collect()
        };
        let wide = rows(wide);
        let place = |row| wide.iter().position(|other| *other == row);
        rows(slim).into_iter().filter_map(place).collect()
    }
}

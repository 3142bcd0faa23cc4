//! Trained networks as ONNX: batch norm folded, probabilities out.

use burn::module::Param;
use burn::nn::conv::ConvTranspose2d;
use burn::tensor::{Tensor, backend::Backend};
use shipwatch::inference::onnx::{GraphBuilder, Pads, Value, Weights};

use crate::nn::{ConvBn, Decoder, Encoder, Gate, LightStage, SeedStage, UNet, same_padding};

/// Provenance as it goes into `metadata_props`.
pub(crate) type Metadata = [(String, String)];

/// The gate: `[1, 3, S, S]` to the tile's ship probability `[1, 1]`.
pub(crate) fn gate<B: Backend>(gate: &Gate<B>, tile: usize, metadata: &Metadata) -> Vec<u8> {
    let mut writer = Writer::new(tile);
    let [.., deepest] = writer.encoder(&gate.encoder);
    let y = writer.conv_bn("head", deepest, &gate.head);
    let graph = &mut writer.graph;
    let y = graph.global_average_pool("pool", &y.value);
    let weight = values(&gate.classifier.weight);
    let weight = Weights {
        shape: vec![1, weight.len(), 1, 1],
        values: weight,
    };
    let bias = gate
        .classifier
        .bias
        .as_ref()
        .map_or_else(|| vec![0.0], values);
    let y = graph.conv("classifier", &y, &weight, &bias, 1, [0; 4]);
    let y = graph.flatten("logit", &y);
    let y = graph.sigmoid("probability", &y);
    writer.graph.finish("gate", &y, &[1, 1], metadata)
}

/// The U-Net: `[1, 3, S, S]` to each pixel's ship probability `[1, 1, S, S]`, or to that and its
/// centrality `[1, 2, S, S]`.
pub(crate) fn unet<B: Backend>(unet: &UNet<B>, tile: usize, metadata: &Metadata) -> Vec<u8> {
    let mut writer = Writer::new(tile);
    let [s2, s4, s8, s16, mut x] = writer.encoder(&unet.encoder);
    let skips = [s16, s8, s4, s2].into_iter().enumerate();
    match &unet.decoder {
        Decoder::Light(light) => {
            for (stage, (index, skip)) in light.stages.iter().zip(skips) {
                x = writer.light_stage(&format!("decoder.{index}"), stage, x, skip);
            }
        }
        Decoder::Seed(seed) => {
            for (stage, (index, skip)) in seed.stages.iter().zip(skips) {
                x = writer.seed_stage(&format!("decoder.{index}"), stage, x, skip);
            }
        }
    }
    let y = writer.double("mask", &x, &unet.head);
    let y = writer.graph.sigmoid("probability", &y.value);
    let shape = [1, unet.outputs(), tile, tile];
    writer.graph.finish("unet", &y, &shape, metadata)
}

/// A feature map and its side, which decides how a strided convolution pads.
#[derive(Clone)]
struct Map {
    value: Value,
    side: usize,
}

struct Writer {
    graph: GraphBuilder,
    input: Map,
}

impl Writer {
    fn new(tile: usize) -> Self {
        let mut graph = GraphBuilder::default();
        let value = graph.input("image", &[1, 3, tile, tile]);
        Self {
            graph,
            input: Map { value, side: tile },
        }
    }

    fn encoder<B: Backend>(&mut self, encoder: &Encoder<B>) -> [Map; 5] {
        let mut x = self.conv_bn("stem", self.input.clone(), &encoder.stem);
        let mut taps = Vec::new();
        for (index, block) in encoder.blocks.iter().enumerate() {
            let name = format!("block.{index}");
            let mut y = x.clone();
            if let Some(expand) = &block.expand {
                y = self.conv_bn(&format!("{name}.expand"), y, expand);
            }
            y = self.conv_bn(&format!("{name}.depthwise"), y, &block.depthwise);
            y = self.conv_bn(&format!("{name}.project"), y, &block.project);
            if block.residual {
                y.value = self.graph.add(&format!("{name}.add"), &x.value, &y.value);
            }
            x = y;
            if Encoder::<B>::tap_of_block(index).is_some() {
                taps.push(x.clone());
            }
        }
        taps.try_into()
            .unwrap_or_else(|_| unreachable!("the trunk passes each of five taps once"))
    }

    fn light_stage<B: Backend>(
        &mut self,
        name: &str,
        stage: &LightStage<B>,
        x: Map,
        skip: Map,
    ) -> Map {
        let reduced = self.conv_bn(&format!("{name}.reduce"), x, &stage.reduce);
        let up = self
            .graph
            .upsample_2x(&format!("{name}.up"), &reduced.value);
        let lateral = self.conv_bn(&format!("{name}.lateral"), skip, &stage.lateral);
        let value = self.graph.add(&format!("{name}.add"), &up, &lateral.value);
        let sum = Map { value, ..lateral };
        let y = self.conv_bn(&format!("{name}.depthwise"), sum, &stage.refine.depthwise);
        self.conv_bn(&format!("{name}.pointwise"), y, &stage.refine.pointwise)
    }

    fn seed_stage<B: Backend>(
        &mut self,
        name: &str,
        stage: &SeedStage<B>,
        x: Map,
        skip: Map,
    ) -> Map {
        let up = self.double(&format!("{name}.up"), &x, &stage.up);
        let value = self
            .graph
            .concat(&format!("{name}.concat"), &up.value, &skip.value);
        let y = self.conv_bn(&format!("{name}.first"), Map { value, ..up }, &stage.first);
        self.conv_bn(&format!("{name}.second"), y, &stage.second)
    }

    fn double<B: Backend>(&mut self, name: &str, x: &Map, conv: &ConvTranspose2d<B>) -> Map {
        let weight = Weights {
            shape: conv.weight.dims().to_vec(),
            values: values(&conv.weight),
        };
        let outputs = weight.shape[1];
        let bias = conv
            .bias
            .as_ref()
            .map_or_else(|| vec![0.0; outputs], values);
        let value = self
            .graph
            .conv_transpose_2x2(name, &x.value, &weight, &bias);
        Map {
            value,
            side: x.side * 2,
        }
    }

    fn conv_bn<B: Backend>(&mut self, name: &str, x: Map, layer: &ConvBn<B>) -> Map {
        let (weight, bias) = fold(layer);
        let pads = if weight.shape[2] == 1 {
            [0; 4]
        } else {
            square_pads(x.side, layer.stride)
        };
        let mut value = self
            .graph
            .conv(name, &x.value, &weight, &bias, layer.stride, pads);
        if layer.relu6 {
            value = self.graph.relu6(&format!("{name}.relu6"), &value);
        }
        Map {
            value,
            side: x.side.div_ceil(layer.stride),
        }
    }
}

fn square_pads(side: usize, stride: usize) -> Pads {
    let (before, after) = same_padding(side, stride);
    [before, before, after, after]
}

/// The convolution that does what convolution and batch norm do: weight times
/// `gamma / sqrt(var + eps)`, bias `beta - mean * gamma / sqrt(var + eps)`.
fn fold<B: Backend>(layer: &ConvBn<B>) -> (Weights, Vec<f32>) {
    let bn = &layer.bn;
    let (gamma, beta) = (values(&bn.gamma), values(&bn.beta));
    let (mean, var) = (
        tensor_values(bn.running_mean.value_sync()),
        tensor_values(bn.running_var.value_sync()),
    );
    let scale: Vec<f32> = gamma
        .iter()
        .zip(&var)
        .map(|(g, v)| g / (v + bn.epsilon as f32).sqrt())
        .collect();
    let bias = beta
        .iter()
        .zip(&mean)
        .zip(&scale)
        .map(|((b, m), s)| b - m * s)
        .collect();
    let mut weight = Weights {
        shape: layer.weight.dims().to_vec(),
        values: values(&layer.weight),
    };
    let per_output = weight.values.len() / scale.len();
    for (filter, scale) in weight.values.chunks_exact_mut(per_output).zip(&scale) {
        filter.iter_mut().for_each(|w| *w *= scale);
    }
    (weight, bias)
}

fn values<B: Backend, const D: usize>(param: &Param<Tensor<B, D>>) -> Vec<f32> {
    tensor_values(param.val())
}

fn tensor_values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().iter().collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;
    use burn::tensor::activation::sigmoid;
    use burn_flex::{Flex, FlexDevice};
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use shipwatch::inference::Network;

    use super::*;
    use crate::nn::{DecoderKind, Mode, Params, Pretrained, apply, collect};

    const TILE: usize = 64;

    /// Networks fresh from initialisation have trivial batch norms; these do not.
    fn shaken<M: burn::module::Module<Flex>>(module: M) -> M {
        let mut params: Params = collect(&module);
        let mut rng = StdRng::seed_from_u64(7);
        for (name, data) in &mut params.0 {
            for value in data.as_mut_slice::<f32>().expect("f32") {
                let noise = rng.random_range(-0.3..0.3);
                *value = if name.ends_with("running_var") {
                    *value + noise
                } else {
                    *value + noise * 0.5
                };
            }
        }
        apply(module, &params).expect("the same names and shapes")
    }

    fn fresh(kind: DecoderKind) -> UNet<Flex> {
        UNet::on(Encoder::new(0.35, &FlexDevice), kind, &FlexDevice)
    }

    fn image() -> Tensor<Flex, 4> {
        Tensor::random(
            [1, 3, TILE, TILE],
            Distribution::Uniform(-1.0, 1.0),
            &FlexDevice,
        )
    }

    fn assert_same(file: &[u8], input: Tensor<Flex, 4>, want: Vec<f32>) {
        let network = Network::from_onnx(file).expect("loads");
        let got = network
            .run(&input.into_data().to_vec::<f32>().expect("f32"))
            .expect("runs");
        assert_eq!(got.len(), want.len());
        // Rounding differs, and a deep network of random weights magnifies it at a few pixels.
        let differences: Vec<f32> = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).collect();
        let worst = differences.iter().copied().fold(0.0, f32::max);
        let mean = differences.iter().sum::<f32>() / differences.len() as f32;
        assert!(worst < 5e-3 && mean < 2e-4, "worst {worst}, mean {mean}");
        let spread = |v: &[f32]| v.iter().fold(0f32, |a, &b| a.max((b - v[0]).abs()));
        assert!(
            want.len() == 1 || spread(&want) > 0.01,
            "a constant output proves nothing"
        );
    }

    #[test]
    fn tract_computes_what_burn_computes() {
        let x = image();
        let model = shaken(Gate::<Flex>::new(0.35, &FlexDevice));
        let want = tensor_values(sigmoid(model.forward(x.clone())));
        assert_same(&gate(&model, TILE, &[]), x.clone(), want);
        for kind in [DecoderKind::Light, DecoderKind::Seed] {
            let model = shaken(fresh(kind));
            let want = tensor_values(sigmoid(model.forward(x.clone())));
            assert_same(&unet(&model, TILE, &[]), x.clone(), want);
        }
        let model = shaken(fresh(DecoderKind::Light).with_centrality(&FlexDevice));
        let outputs = model.decode(model.encoder.forward(x.clone(), Mode::Eval), Mode::Eval);
        let centrality = outputs.centrality.expect("a second output");
        let both = Tensor::cat(vec![outputs.ships, centrality], 1);
        let want = tensor_values(sigmoid(both));
        assert_eq!(want.len(), 2 * TILE * TILE);
        assert_same(&unet(&model, TILE, &[]), x, want);
    }

    /// Writes `file`, reads it as pretrained weights, and compares what both networks say.
    fn assert_same_again(got: Vec<f32>, want: Vec<f32>) {
        let worst = got.iter().zip(&want).map(|(a, b)| (a - b).abs());
        let worst = worst.fold(0.0, f32::max);
        assert!(worst < 5e-3, "{worst}");
    }

    #[test]
    fn training_goes_on_from_an_exported_network() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("network.onnx");
        let pretrained = |onnx: Vec<u8>| {
            std::fs::write(&file, onnx).expect("writes");
            Pretrained::load(&file).expect("loads")
        };
        let x = image();
        let model = shaken(Gate::<Flex>::new(0.35, &FlexDevice));
        let start = pretrained(gate(&model, TILE, &[]));
        let (params, report) = start
            .gate::<Flex>(0.35, &FlexDevice, || Ok(x.clone()))
            .expect("fits");
        assert!(
            report.untouched.is_empty() && report.unused.is_empty(),
            "{report}"
        );
        let again = apply(Gate::<Flex>::new(0.35, &FlexDevice), &params).expect("fits");
        let logit = |gate: &Gate<Flex>| tensor_values(sigmoid(gate.forward(x.clone())));
        assert_same_again(logit(&again), logit(&model));
        assert!(
            start
                .unet(fresh(DecoderKind::Light), || Ok(x.clone()))
                .expect("none")
                .is_none()
        );

        for kind in [DecoderKind::Light, DecoderKind::Seed] {
            let model = shaken(fresh(kind));
            let start = pretrained(unet(&model, TILE, &[]));
            let (params, report) = start
                .unet(fresh(kind), || Ok(x.clone()))
                .expect("fits")
                .expect("a U-Net");
            assert!(
                report.untouched.is_empty() && report.unused.is_empty(),
                "{report}"
            );
            let again = apply(fresh(kind), &params).expect("fits");
            let map = |unet: &UNet<Flex>| tensor_values(sigmoid(unet.forward(x.clone())));
            assert_same_again(map(&again), map(&model));
        }
    }

    #[test]
    fn a_head_with_a_new_output_keeps_the_one_it_had() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("network.onnx");
        let model = shaken(fresh(DecoderKind::Light));
        std::fs::write(&file, unet(&model, TILE, &[])).expect("writes");
        let start = Pretrained::load(&file).expect("loads");
        let x = image();
        let map = |unet: &UNet<Flex>| tensor_values(sigmoid(unet.forward(x.clone())));
        let wide = || fresh(DecoderKind::Light).with_centrality(&FlexDevice);
        let (params, report) = start
            .unet(wide(), || Ok(x.clone()))
            .expect("fits")
            .expect("a U-Net");
        assert!(report.untouched.is_empty(), "{report}");
        let again = apply(wide(), &params).expect("fits");
        assert_same_again(map(&again), map(&model));

        // And back.
        std::fs::write(&file, unet(&again, TILE, &[])).expect("writes");
        let start = Pretrained::load(&file).expect("loads");
        let (params, _) = start
            .unet(fresh(DecoderKind::Light), || Ok(x.clone()))
            .expect("fits")
            .expect("a U-Net");
        let narrow = apply(fresh(DecoderKind::Light), &params).expect("fits");
        assert_same_again(map(&narrow), map(&model));
    }

    #[test]
    fn another_decoder_takes_the_encoder_alone() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("network.onnx");
        std::fs::write(&file, unet(&fresh(DecoderKind::Light), TILE, &[])).expect("writes");
        let start = Pretrained::load(&file).expect("loads");
        let other = fresh(DecoderKind::Seed);
        let before = collect(&other);
        let start = start.unet(other, || Ok(image())).expect("fits");
        let (params, report) = start.expect("a U-Net");
        let anew = |name: &String| !name.starts_with("encoder.");
        assert!(
            report.applied > 50 && report.untouched.iter().all(anew),
            "{report}"
        );
        assert!(
            report
                .untouched
                .iter()
                .all(|name| params.0[name] == before.0[name])
        );
    }

    #[test]
    fn a_unet_of_another_width_is_refused() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("network.onnx");
        std::fs::write(&file, unet(&fresh(DecoderKind::Light), TILE, &[])).expect("writes");
        let start = Pretrained::load(&file).expect("loads");
        let encoder = Encoder::new(0.5, &FlexDevice);
        let wide = UNet::<Flex>::on(encoder, DecoderKind::Light, &FlexDevice);
        let error = start.unet(wide, || Ok(image())).expect_err("too wide");
        assert!(error.to_string().contains("`width = 0.35`"), "{error}");
    }
}

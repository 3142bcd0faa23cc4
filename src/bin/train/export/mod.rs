//! Trained networks as ONNX: batch norm folded, probabilities out, in floats or in bytes.

mod graph;

use shipwatch::inference::onnx::{Bytes, Filters, GraphBuilder, Pads, Value};

pub(crate) use graph::{Graph, Node, Op};

use crate::nn::same_padding;
use crate::quant::{Quantized, Scheme};

/// Provenance as it goes into `metadata_props`.
pub(crate) type Metadata = [(String, String)];

/// How a file keeps numbers.
#[derive(Debug, Clone, Copy)]
enum Numbers<'a> {
    Float,
    Bytes(&'a Quantized),
}

impl Graph {
    /// The float file: `[1, 3, S, S]` to `[1, C, S, S]`, or to `[1, 1]` where one value is all.
    pub(crate) fn to_onnx(&self, metadata: &Metadata) -> Vec<u8> {
        self.write(Numbers::Float, metadata)
    }

    fn write(&self, numbers: Numbers<'_>, metadata: &Metadata) -> Vec<u8> {
        let mut builder = GraphBuilder::default();
        let mut made: Vec<Map> = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            let name = &node.name;
            let inputs = node.inputs.iter().enumerate();
            let inputs: Vec<Value> = inputs
                .map(|(nth, &input)| made[input].read(&mut builder, &format!("{name}.input{nth}")))
                .collect();
            let filters = |weight, bias| match numbers {
                Numbers::Float => Filters::Float { weight, bias },
                Numbers::Bytes(quantized) => Filters::Bytes {
                    filters: quantized.filters(at),
                    input_scale: quantized.schemes[node.inputs[0]].scale,
                },
            };
            let value = match &node.op {
                Op::Image => builder.input(name, &[1, node.channels, node.side, node.side]),
                Op::Conv {
                    weight,
                    bias,
                    stride,
                    relu6,
                } => {
                    let pads = match weight.shape[2] {
                        1 => [0; 4],
                        _ => square_pads(self.nodes[node.inputs[0]].side, *stride),
                    };
                    let y = builder.conv(name, &inputs[0], filters(weight, bias), *stride, pads);
                    match numbers {
                        Numbers::Float if *relu6 => builder.relu6(&format!("{name}.relu6"), &y),
                        // Bytes that end at zero and six clip by themselves.
                        _ => y,
                    }
                }
                Op::Double { weight, bias } => {
                    builder.conv_transpose_2x2(name, &inputs[0], filters(weight, bias))
                }
                Op::Add => builder.add(name, &inputs[0], &inputs[1]),
                Op::Concat => builder.concat(name, &inputs[0], &inputs[1]),
                Op::Upsample => builder.upsample_2x(name, &inputs[0]),
                Op::Pool => builder.global_average_pool(name, &inputs[0]),
                Op::Sigmoid => builder.sigmoid(name, &inputs[0]),
            };
            made.push(match numbers {
                Numbers::Float => Map::Float(value),
                Numbers::Bytes(quantized) => {
                    let Scheme { scale, zero } = quantized.schemes[at];
                    Map::Bytes(builder.quantize(&value, scale, zero))
                }
            });
        }
        let (last, output) = (self.nodes.last(), made.last());
        let (last, output) = last.zip(output).expect("a graph starts with its image");
        let output = output.read(&mut builder, "output");
        if last.side == 1 {
            let output = builder.flatten("score", &output);
            return builder.finish(self.name, &output, &[1, last.channels], metadata);
        }
        let shape = [1, last.channels, last.side, last.side];
        builder.finish(self.name, &output, &shape, metadata)
    }
}

/// A feature map in a file.
enum Map {
    Float(Value),
    Bytes(Bytes),
}

impl Map {
    /// In floats, for one reader. Each has a `DequantizeLinear` of its own, for ONNX Runtime makes no
    /// integer operator of what shares one.
    fn read(&self, builder: &mut GraphBuilder, name: &str) -> Value {
        match self {
            Self::Float(value) => value.clone(),
            Self::Bytes(bytes) => builder.dequantize(name, bytes),
        }
    }
}

impl Quantized {
    /// The file in which every map goes through bytes between operators in floats, as ONNX has it (QDQ):
    /// a `QuantizeLinear` and a `DequantizeLinear` after each operator, weights and biases as integers
    /// with a `DequantizeLinear`. Shapes are those of [`Graph::to_onnx`].
    pub(crate) fn to_onnx(&self, metadata: &Metadata) -> Vec<u8> {
        self.graph.write(Numbers::Bytes(self), metadata)
    }
}

fn square_pads(side: usize, stride: usize) -> Pads {
    let (before, after) = same_padding(side, stride);
    [before, before, after, after]
}

#[cfg(test)]
mod tests {
    use burn::tensor::activation::sigmoid;
    use burn::tensor::{Distribution, Tensor};
    use burn_flex::{Flex, FlexDevice};
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use shipwatch::inference::Network;

    use super::graph::tensor_values;
    use super::*;
    use crate::nn::{DecoderKind, Encoder, Gate, Mode, Params, Pretrained, UNet, apply, collect};
    use crate::quant::{BYTES, post_training};
    use crate::stop::Stop;

    const TILE: usize = 64;

    fn gate(gate: &Gate<Flex>) -> Vec<u8> {
        Graph::of_gate(gate, TILE).to_onnx(&[])
    }

    fn unet(unet: &UNet<Flex>) -> Vec<u8> {
        Graph::of_unet(unet, TILE).to_onnx(&[])
    }

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
        assert_same(&gate(&model), x.clone(), want);
        for kind in [DecoderKind::Light, DecoderKind::Seed] {
            let model = shaken(fresh(kind));
            let want = tensor_values(sigmoid(model.forward(x.clone())));
            assert_same(&unet(&model), x.clone(), want);
        }
        let model = shaken(fresh(DecoderKind::Light).with_centrality(&FlexDevice));
        let outputs = model.decode(model.encoder.forward(x.clone(), Mode::Eval), Mode::Eval);
        let centrality = outputs.centrality.expect("a second output");
        let both = Tensor::cat(vec![outputs.ships, centrality], 1);
        let want = tensor_values(sigmoid(both));
        assert_eq!(want.len(), 2 * TILE * TILE);
        assert_same(&unet(&model), x, want);
    }

    #[test]
    fn tract_computes_of_bytes_what_the_simulation_computes() {
        let bytes = Distribution::Uniform(0.0, 255.0);
        let image = Tensor::<Flex, 4>::random([1, TILE, TILE, 3], bytes, &FlexDevice);
        let image = (image.round() - BYTES.mean) / BYTES.std;
        let planes = image.clone().permute([0, 3, 1, 2]).into_data();
        let planes: Vec<f32> = planes.iter().collect();
        let light = || shaken(fresh(DecoderKind::Light));
        for graph in [
            Graph::of_gate(&shaken(Gate::<Flex>::new(0.35, &FlexDevice)), TILE),
            Graph::of_unet(&light(), TILE),
            Graph::of_unet(&light().with_centrality(&FlexDevice), TILE),
            Graph::of_unet(&shaken(fresh(DecoderKind::Seed)), TILE),
        ] {
            let name = graph.name;
            let outputs = graph.nodes.last().map_or(0, |node| node.channels);
            let batches = [image.clone()];
            let quantized = post_training(graph.of_bytes(), &batches, &image, &Stop::new());
            let quantized = quantized.expect("quantizes");
            let network = Network::from_onnx(&quantized.to_onnx(&[])).expect("loads");
            let found = network.run(&planes).expect("runs");
            let want = quantized.simulate(image.clone()).permute([0, 3, 1, 2]);
            let want = tensor_values(want);
            assert_eq!(found.len(), want.len());
            let steps = |value: &f32| value * 256.0;
            assert!(
                found
                    .iter()
                    .all(|p| steps(p).fract() == 0.0 && steps(p) < 256.0)
            );
            // Engines divide by a scale or multiply by its inverse, and add in other orders: a value near
            // a tie goes the other way now and then, which layers of random weights magnify.
            let apart = found.iter().zip(&want).map(|(a, b)| (a - b).abs());
            let mean = apart.sum::<f32>() / want.len() as f32;
            let centre = want.iter().sum::<f32>() / want.len() as f32;
            let spread = want.iter().map(|p| (p - centre).abs()).sum::<f32>() / want.len() as f32;
            let most = if want.len() == 1 { 0.02 } else { 0.1 * spread };
            assert!(
                mean <= most,
                "{name} of {outputs}: {mean} apart, spread {spread}"
            );
        }
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
        let start = pretrained(gate(&model));
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
            let start = pretrained(unet(&model));
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
        std::fs::write(&file, unet(&model)).expect("writes");
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
        std::fs::write(&file, unet(&again)).expect("writes");
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
        std::fs::write(&file, unet(&fresh(DecoderKind::Light))).expect("writes");
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
        std::fs::write(&file, unet(&fresh(DecoderKind::Light))).expect("writes");
        let start = Pretrained::load(&file).expect("loads");
        let encoder = Encoder::new(0.5, &FlexDevice);
        let wide = UNet::<Flex>::on(encoder, DecoderKind::Light, &FlexDevice);
        let error = start.unet(wide, || Ok(image())).expect_err("too wide");
        assert!(error.to_string().contains("`width = 0.35`"), "{error}");
    }
}

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
    use shipwatch::inference::onnx::Weights;

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

    /// What random bytes stand for, in planes.
    fn image() -> Tensor<Flex, 4> {
        let shape = [1, 3, TILE, TILE];
        let bytes = Tensor::random(shape, Distribution::Uniform(0.0, 256.0), &FlexDevice).floor();
        (bytes.clamp_max(255.0) - BYTES.mean) / BYTES.std
    }

    /// The bytes of an image in planes.
    fn bytes(planes: Tensor<Flex, 4>) -> Vec<u8> {
        let values = tensor_values(planes.permute([0, 2, 3, 1]));
        let byte = |value: f32| (value * BYTES.std + BYTES.mean) as u8;
        values.into_iter().map(byte).collect()
    }

    fn assert_same(file: &[u8], input: Tensor<Flex, 4>, want: Vec<f32>) {
        let network = Network::from_onnx(file, &BYTES.values()).expect("loads");
        let got = network.run(&bytes(input)).expect("runs");
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

    /// Every operator once, on a few channels: a map with two readers, and one that is joined with
    /// another. Deep networks of random weights would magnify what the last bit of a sum decides.
    fn each_operator() -> [Graph; 2] {
        let mut rng = StdRng::seed_from_u64(11);
        let mut random = |count: usize, most: f32| -> Vec<f32> {
            (0..count).map(|_| rng.random_range(-most..most)).collect()
        };
        let mut filters = |shape: [usize; 4], outputs: usize| {
            let count: usize = shape.iter().product();
            let weight = Weights {
                shape: shape.to_vec(),
                values: random(count, 2.0 / (count as f32 / outputs as f32).sqrt()),
            };
            (weight, random(outputs, 0.5))
        };
        let mut conv = |shape: [usize; 4], stride, relu6| {
            let (weight, bias) = filters(shape, shape[0]);
            Op::Conv {
                weight,
                bias,
                stride,
                relu6,
            }
        };
        let mut trunk = vec![
            ("image", Op::Image, vec![], 3, 16),
            ("stem", conv([8, 3, 3, 3], 2, true), vec![0], 8, 8),
            ("depthwise", conv([8, 1, 3, 3], 1, true), vec![1], 8, 8),
            ("project", conv([8, 8, 1, 1], 1, false), vec![2], 8, 8),
            ("add", Op::Add, vec![1, 3], 8, 8),
            ("down", conv([8, 1, 3, 3], 2, true), vec![4], 8, 4),
            ("reduce", conv([8, 8, 1, 1], 1, false), vec![5], 8, 4),
        ];
        let mut gate = trunk.clone();
        gate.extend([
            ("pool", Op::Pool, vec![6], 8, 1),
            ("classifier", conv([1, 8, 1, 1], 1, false), vec![7], 1, 1),
            ("probability", Op::Sigmoid, vec![8], 1, 1),
        ]);
        let (weight, bias) = filters([16, 2, 2, 2], 2);
        trunk.extend([
            ("up", Op::Upsample, vec![6], 8, 8),
            ("concat", Op::Concat, vec![4, 7], 16, 8),
            ("mask", Op::Double { weight, bias }, vec![8], 2, 16),
            ("probability", Op::Sigmoid, vec![9], 2, 16),
        ]);
        [("gate", gate), ("unet", trunk)].map(|(name, nodes)| Graph {
            name,
            nodes: (nodes.into_iter())
                .map(|(name, op, inputs, channels, side)| Node {
                    name: name.to_owned(),
                    op,
                    inputs,
                    channels,
                    side,
                })
                .collect(),
        })
    }

    #[test]
    fn the_engine_computes_of_bytes_what_the_simulation_computes() {
        let mut rng = StdRng::seed_from_u64(12);
        for graph in each_operator() {
            let name = graph.name;
            let mut tile = || -> Tensor<Flex, 4> {
                let bytes = (0..16 * 16 * 3).map(|_| rng.random_range(0..=255u8));
                let values: Vec<f32> = bytes
                    .map(|byte| (f32::from(byte) - BYTES.mean) / BYTES.std)
                    .collect();
                let shape = [1, 16, 16, 3];
                Tensor::from_data(burn::tensor::TensorData::new(values, shape), &FlexDevice)
            };
            let tiles: Vec<_> = (0..16).map(|_| tile()).collect();
            let all = Tensor::cat(tiles.clone(), 0);
            let quantized = post_training(graph.of_bytes(), &tiles, &all, &Stop::new());
            let quantized = quantized.expect("quantizes");
            let file = quantized.to_onnx(&[]);
            let network = Network::from_onnx(&file, &BYTES.values()).expect("loads");
            let engine = network.engine();
            assert_eq!(
                engine.operators, engine.of,
                "{name}: tract is left something"
            );
            let (mut same, mut count, mut seen) = (0, 0, Vec::new());
            for tile in tiles {
                let image = bytes(tile.clone().permute([0, 3, 1, 2]));
                let found = network.run(&image).expect("runs");
                let want = tensor_values(quantized.simulate(tile).permute([0, 3, 1, 2]));
                assert_eq!(found.len(), want.len());
                for (found, want) in found.iter().zip(&want) {
                    let [found, want] = [found, want].map(|p| p * 256.0);
                    assert!(found.fract() == 0.0 && found < 256.0, "no byte: {found}");
                    // A sum near a tie goes the other way now and then, for engines add in other orders.
                    assert!((found - want).abs() <= 3.0, "{name}: {found} and {want}");
                    same += usize::from(found == want);
                    count += 1;
                    seen.push(found);
                }
            }
            assert!(
                same as f64 >= 0.97 * count as f64,
                "{name}: {same} of {count}"
            );
            seen.sort_by(f32::total_cmp);
            seen.dedup();
            assert!(seen.len() > 8, "{name}: hardly more than a constant");
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

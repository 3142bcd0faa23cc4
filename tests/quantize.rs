//! `train quantize` as a process: from a run to integers that the edge runs, and what it refuses.
#![cfg(feature = "train")]

mod toy;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use image::{Rgb, RgbImage};
use prost::Message;
use shipwatch::model::Bundle;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto};

use toy::{assert_success, train, write_data};

const CONFIG: &str = r#"
name = "toy-f32"
seed = 5
tile = 64
overlap = 16
gsd = [1.0, 2.0]

[phases]
gate-head = { batch = 4, steps = 6 }
gate-blocks = { batch = 4, steps = 6 }
decoder = { batch = 4, steps = 6 }
unet = { batch = 4, steps = 6 }
gate-int8 = { batch = 4, steps = 2, tune-every = 2 }
unet-int8 = { batch = 4, steps = 2, tune-every = 2 }

[[data]]
name = "toy sea"
root = "data"
licence = "none"
attribution = "nobody"
scale = [0.5, 1.2]
tune = ["08", "09"]
test = ["10", "11"]
"#;

/// A folder with data and a run that was trained on it.
fn trained() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("folder");
    write_data(&dir.path().join("data"));
    fs::write(dir.path().join("toy.toml"), CONFIG).expect("config");
    let run = [
        "run", "--config", "toy.toml", "--out", "run", "--device", "cpu",
    ];
    assert_success(&train(dir.path(), &run));
    dir
}

fn model(path: &Path) -> ModelProto {
    ModelProto::decode(&fs::read(path).expect("a file")[..]).expect("an ONNX model")
}

fn constants(graph: &GraphProto) -> BTreeMap<&str, &TensorProto> {
    let constants = graph.initializer.iter();
    constants.map(|tensor| (&*tensor.name, tensor)).collect()
}

fn floats(tensor: &TensorProto) -> Vec<f32> {
    assert_eq!(tensor.data_type, DataType::Float as i32, "{}", tensor.name);
    let (words, rest) = tensor.raw_data.as_chunks::<4>();
    assert!(rest.is_empty());
    words.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

fn bias_channels(constants: &BTreeMap<&str, &TensorProto>, bias: &NodeProto) -> i64 {
    constants[&*bias.input[0]].dims[0]
}

/// What an engine of integers needs: every operator reads what a `DequantizeLinear` gives, and what it
/// gives is quantized; weights are bytes without -128, biases words of the scales of input and weight.
fn assert_integers_all_through(model: &ModelProto) {
    for opset in &model.opset_import {
        assert_eq!(opset.domain, "", "no vendor's operators");
        assert!(opset.version >= 13);
    }
    let graph = model.graph.as_ref().expect("a graph");
    let constants = constants(graph);
    let maker: BTreeMap<&str, &NodeProto> = (graph.node.iter())
        .flat_map(|node| node.output.iter().map(move |output| (&**output, node)))
        .collect();
    let readers = |value: &str| -> Vec<&NodeProto> {
        let reads = |node: &&NodeProto| node.input.iter().any(|input| input == value);
        graph.node.iter().filter(reads).collect()
    };
    // The scale of a map and its zero point, by what dequantizes it.
    let scheme = |dequantize: &NodeProto| {
        let scale = floats(constants[&*dequantize.input[1]]);
        let zero = constants[&*dequantize.input[2]];
        assert_eq!(zero.data_type, DataType::Uint8 as i32);
        (scale[0].to_bits(), zero.raw_data[0])
    };
    let image = &graph.input[0].name;
    let mut operators = 0;
    for node in &graph.node {
        let name = &node.name;
        match &*node.op_type {
            "QuantizeLinear" => {
                let back = |reader: &&NodeProto| reader.op_type == "DequantizeLinear";
                assert!(readers(&node.output[0]).iter().all(back), "{name}");
            }
            // ONNX Runtime makes no integer operator of what shares one.
            "DequantizeLinear" => assert!(readers(&node.output[0]).len() <= 1, "{name}"),
            // What leaves the integers last.
            "Flatten" => assert_eq!(node.output[0], graph.output[0].name),
            kind => {
                operators += 1;
                let inputs = node.input.iter().filter(|input| !input.is_empty());
                let inputs: Vec<&NodeProto> = inputs
                    .filter_map(|input| maker.get(&**input).copied())
                    .collect();
                assert!(!inputs.is_empty(), "{name} reads {image} itself");
                assert!(
                    inputs
                        .iter()
                        .all(|maker| maker.op_type == "DequantizeLinear"),
                    "{name}"
                );
                let [quantize] = readers(&node.output[0])[..] else {
                    panic!("{name}: what it gives is read as it is");
                };
                assert_eq!(quantize.op_type, "QuantizeLinear", "{name}");
                let own = scheme(quantize);
                match kind {
                    "Resize" => assert_eq!(scheme(inputs[0]), own, "{name}"),
                    "Concat" => assert!(inputs.iter().all(|i| scheme(i) == own), "{name}"),
                    "Sigmoid" => assert_eq!(own, ((1f32 / 256.0).to_bits(), 0), "{name}"),
                    "Conv" | "ConvTranspose" => {
                        let [map, weight, bias] = inputs[..] else {
                            panic!("{name} has a map, a weight and a bias");
                        };
                        let bytes = constants[&*weight.input[0]];
                        assert_eq!(bytes.data_type, DataType::Int8 as i32);
                        assert!(
                            !bytes.raw_data.contains(&0x80),
                            "{name}: -128 has no negative"
                        );
                        assert_eq!(constants[&*bias.input[0]].data_type, DataType::Int32 as i32);
                        // ONNX Runtime makes a scalar of one that is left out, and trips over it.
                        let zeros = constants[&*weight.input[2]];
                        assert_eq!(zeros.dims, [bias_channels(&constants, bias)]);
                        assert!(zeros.raw_data.iter().all(|&zero| zero == 0));
                        let of_map = f32::from_bits(scheme(map).0);
                        let of_weight = floats(constants[&*weight.input[1]]);
                        let of_bias = floats(constants[&*bias.input[1]]);
                        let products: Vec<f32> = of_weight.iter().map(|w| of_map * w).collect();
                        assert_eq!(of_bias, products, "{name}");
                    }
                    _ => assert!(["Add", "GlobalAveragePool"].contains(&kind), "{kind}"),
                }
            }
        }
    }
    assert!(operators > 50, "{operators} operators");
    let [quantize] = readers(image)[..] else {
        panic!("the image is read once");
    };
    let scale = floats(constants[&*quantize.input[1]]);
    let zero = constants[&*quantize.input[2]].raw_data[0];
    assert_eq!(
        (scale[0], zero),
        (1.0 / 128.0, 128),
        "a byte of the image is a byte of the map"
    );
}

#[test]
fn a_run_becomes_integers_that_the_edge_runs() {
    let dir = trained();
    let quantize = |out: &str, more: &[&str]| {
        let args = ["quantize", "run", "--out", out, "--device", "cpu"];
        train(dir.path(), &[&args[..], more].concat())
    };
    // Four images with ships prove nothing: what they cannot prove is not written.
    let first = quantize("refused", &["--calibrate", "data"]);
    assert_eq!(first.status.code(), Some(1));
    let log = String::from_utf8_lossy(&first.stderr);
    assert!(
        log.contains("--over-limits") && log.contains("different images"),
        "{log}"
    );
    let names = |folder: &str| {
        let entries = fs::read_dir(dir.path().join(folder)).expect("lists");
        let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
        let mut names: Vec<_> = entries.map(name).collect();
        names.sort();
        names
    };
    assert_eq!(names("refused"), ["refused.md"]);
    for said in [
        "dearest first",
        "channels equalised",
        "biases corrected",
        "unet-int8",
    ] {
        assert!(log.contains(said), "{said} not in {log}");
    }

    // The phases are over: the same command trains nothing.
    let second = quantize("int8", &["--over-limits", "--calibrate", "data"]);
    assert_success(&second);
    let log = String::from_utf8_lossy(&second.stderr);
    assert!(
        !log.contains("unet-int8 step") && !log.contains("finding ranges"),
        "{log}"
    );
    assert_eq!(
        names("int8"),
        ["gate.onnx", "manifest.toml", "parity.md", "unet.onnx"]
    );
    let bundle = dir.path().join("int8");
    let report = fs::read_to_string(bundle.join("parity.md")).expect("a report");
    for named in ["float", "int8 simulated", "Dice"] {
        assert!(report.contains(named), "{named} not in {report}");
    }
    for network in ["gate.onnx", "unet.onnx"] {
        let model = model(&bundle.join(network));
        assert_integers_all_through(&model);
        let notes = model.metadata_props.iter();
        let notes: BTreeMap<&str, &str> = notes.map(|note| (&*note.key, &*note.value)).collect();
        assert_eq!(notes["input"], "RGB, NCHW, (byte - 128) / 128");
        let known = [
            "task",
            "thresholds",
            "gsd_metres_per_pixel",
            "data",
            "split",
            "metrics",
        ];
        for key in known.iter().chain(&["licence"]) {
            assert!(!notes[key].is_empty(), "{key}");
        }
    }
    let loaded = Bundle::load(&bundle).expect("the edge loads it");
    assert_eq!(loaded.manifest.name, "toy-int8");
    assert_eq!(loaded.manifest.scores.len(), 1);
    let detect = Command::new(env!("CARGO_BIN_EXE_shipwatch"))
        .args(["detect", "--models", "int8", "data/images/00.png"])
        .current_dir(dir.path())
        .output()
        .expect("shipwatch starts");
    assert_success(&detect);

    // Thresholds of somebody's choice.
    let chosen = concat!(env!("CARGO_MANIFEST_DIR"), "/models/small-f32");
    let args = [
        "--over-limits",
        "--calibrate",
        "data",
        "--thresholds",
        chosen,
    ];
    assert_success(&quantize("given", &args));
    let thresholds = |folder: &Path| Bundle::load(folder).expect("loads").manifest.thresholds;
    assert_eq!(
        thresholds(&dir.path().join("given")),
        thresholds(Path::new(chosen))
    );

    // Other images would give other ranges than those that the phases learnt to live with.
    write_data(&dir.path().join("elsewhere"));
    let other = quantize("other", &["--over-limits", "--calibrate", "elsewhere"]);
    let error = String::from_utf8_lossy(&other.stderr);
    let told = error.contains("int8.toml") && error.contains("unet-int8-last.safetensors");
    assert!(!other.status.success() && told, "{error}");
    // Another bundle than the run's own proves nothing.
    let other = quantize("other", &["--calibrate", "data", "--float", "int8"]);
    let error = String::from_utf8_lossy(&other.stderr);
    assert!(
        !other.status.success() && error.contains("is not the gate of this run"),
        "{error}"
    );
    assert!(!dir.path().join("other/manifest.toml").exists());
}

#[test]
fn what_cannot_be_quantized_is_named() {
    let dir = trained();
    let fails = |args: &[&str], wanted: &str| {
        let all = [&["quantize", "--out", "int8", "--device", "cpu"], args].concat();
        let output = train(dir.path(), &all);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{wanted}");
        assert!(error.contains(wanted), "{wanted} not in {error}");
        assert!(!error.contains("panicked"), "{error}");
        assert!(!dir.path().join("int8/manifest.toml").exists());
    };
    fails(&["data"], "holds no run");

    // Images of one colour, and images without ships.
    for (folder, ships, grey) in [("flat", true, true), ("empty", false, false)] {
        let root = dir.path().join(folder);
        fs::create_dir_all(root.join("images")).expect("folder");
        let mut csv = "ImageId,EncodedPixels\n".to_owned();
        for i in 0..4u32 {
            let level = |x, y| if grey { 90 } else { (x * 5 + y * 3 + i) as u8 };
            let image = RgbImage::from_fn(96, 96, |x, y| Rgb([level(x, y); 3]));
            image
                .save(root.join(format!("images/{i}.png")))
                .expect("image");
            csv += &format!("{i}.png,{}\n", if ships { "3000 40" } else { "" });
        }
        fs::write(root.join("ship_segmentations.csv"), csv).expect("csv");
    }
    fails(
        &["run", "--calibrate", "flat"],
        "flat: all images are of one and the same colour",
    );
    fails(
        &["run", "--calibrate", "empty"],
        "empty: no image shows a ship",
    );
    fails(&["run", "--calibrate", "nowhere"], "nowhere");
    write_data(&dir.path().join("elsewhere"));
    fails(
        &["run", "--calibrate", "elsewhere"],
        "elsewhere: the run is tested by an image named 10.png",
    );

    // A weight that is no number.
    let weights = dir.path().join("run/unet.safetensors");
    let good = fs::read(&weights).expect("weights");
    let mut damaged = good.clone();
    let at = damaged.len() - 4;
    damaged[at..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&weights, damaged).expect("writes");
    fails(&["run"], "no number");
    fs::write(&weights, good).expect("writes");

    // A run of another version.
    let config = dir.path().join("run/config.toml");
    let text = fs::read_to_string(&config).expect("config");
    fs::write(&config, text.replacen("tile = 64", "tyle = 64", 1)).expect("writes");
    fails(&["run"], "the run's own config does not serve");
}

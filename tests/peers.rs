//! What others say of the files in `models`.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use image::RgbImage;
use image::imageops::crop_imm;
use prost::Message;
use shipwatch::inference::Network;
use shipwatch::model::Bundle;
use tract_onnx::pb::ModelProto;
use tract_onnx::pb::tensor_shape_proto::dimension::Value;
use tract_onnx::pb::type_proto::Value as Type;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Python with a package, as `make peers` installs it: what `PYTHON` says, or `python3`.
fn python(package: &str) -> Option<String> {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let import = format!("import {package}");
    let found = Command::new(&python).args(["-c", &import]).output();
    if found.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    println!("SKIPPED: {python} has no package {package} here: run `make peers`, then `make test`");
    None
}

fn check(python: &str, models: &[PathBuf]) -> Output {
    Command::new(python)
        .arg(root().join("tests/check_models.py"))
        .args(models)
        .output()
        .expect("python starts")
}

/// The networks of all bundles.
fn shipped() -> Vec<PathBuf> {
    let bundles = fs::read_dir(root().join("models")).expect("the folder of bundles");
    let mut models: Vec<PathBuf> = bundles
        .flat_map(|bundle| {
            let bundle = bundle.expect("an entry").path();
            ["gate.onnx", "unet.onnx"].map(|name| bundle.join(name))
        })
        .filter(|path| path.exists())
        .collect();
    models.sort();
    models
}

#[test]
fn onnx_finds_no_fault_with_the_shipped_models() {
    let Some(python) = python("onnx") else { return };
    let models = shipped();
    let output = check(&python, &models);
    let faults = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{faults}");
    let passed = String::from_utf8_lossy(&output.stdout).lines().count();
    assert!(passed > 0 && passed == models.len(), "{passed} passed");
}

/// Only full checks look at shapes.
#[test]
fn a_model_that_promises_another_shape_is_found() {
    let Some(python) = python("onnx") else { return };
    let bytes = fs::read(root().join("models/small-f32/gate.onnx")).expect("a model");
    let mut model = ModelProto::decode(&bytes[..]).expect("an ONNX model");
    let graph = model.graph.as_mut().expect("a graph");
    let Some(Type::TensorType(output)) =
        (graph.output[0].r#type.as_mut()).and_then(|output| output.value.as_mut())
    else {
        panic!("the output is a tensor");
    };
    let shape = output.shape.as_mut().expect("of known shape");
    let last = shape.dim.last_mut().expect("of some rank");
    last.value = Some(Value::DimValue(7));
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("wrong.onnx");
    fs::write(&path, model.encode_to_vec()).expect("writes");
    let output = check(&python, &[path]);
    let faults = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{faults}");
    assert!(faults.contains("wrong.onnx"), "{faults}");
}

/// Tiles of the sample scene, half over half, and some of noise.
fn tiles(side: u32) -> Vec<RgbImage> {
    let scene = root().join("tests/data/sentinel2-ports/images/algiers.jpg");
    let scene = image::open(scene).expect("the scene").into_rgb8();
    let along = |size: u32| (0..=size - side).step_by(side as usize / 2);
    let places = along(scene.height()).flat_map(|y| along(scene.width()).map(move |x| (x, y)));
    let mut tiles: Vec<RgbImage> = places
        .map(|(x, y)| crop_imm(&scene, x, y, side, side).to_image())
        .collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    tiles.extend((0..4).map(|_| {
        RgbImage::from_fn(side, side, |_, _| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            image::Rgb([32, 40, 48].map(|shift| (state >> shift) as u8))
        })
    }));
    tiles
}

/// What ONNX Runtime's integers and the engine's make of the same tiles: probabilities are bytes, and
/// differ where a sum lies on a tie, of which each makes its own.
#[test]
fn onnx_runtime_computes_the_bytes_that_the_engine_computes() {
    let Some(python) = python("onnxruntime") else {
        return;
    };
    let folder = root().join("models/base-int8");
    let bundle = Bundle::load(&folder).expect("a bundle");
    let mut peer = Command::new(python)
        .arg(root().join("tests/onnx_runtime.py"))
        .args(["--mean", "128", "--std", "128"])
        .args([folder.join("gate.onnx"), folder.join("unet.onnx")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    let mut requests = peer.stdin.take().expect("piped");
    let mut answers = peer.stdout.take().expect("piped");
    let mut ask = |which: u8, tile: &RgbImage| -> Vec<f32> {
        requests.write_all(&[which]).expect("asks");
        requests.write_all(tile.as_raw()).expect("asks");
        requests.flush().expect("asks");
        let mut count = [0; 4];
        answers.read_exact(&mut count).expect("an answer");
        let mut bytes = vec![0; 4 * u32::from_le_bytes(count) as usize];
        answers.read_exact(&mut bytes).expect("an answer");
        let (words, _) = bytes.as_chunks::<4>();
        words.iter().map(|word| f32::from_le_bytes(*word)).collect()
    };
    for (which, network) in [&bundle.gate, &bundle.unet].into_iter().enumerate() {
        // How many probabilities differ by so many steps.
        let mut differences = [0usize; 257];
        let tiles = tiles(network.side() as u32);
        assert!(tiles.len() >= 100);
        for tile in &tiles {
            let found = network.run(tile.as_raw()).expect("runs");
            let want = ask(which as u8, tile);
            assert_eq!(found.len(), want.len());
            for (found, want) in found.iter().zip(&want) {
                let steps = (256.0 * (found - want)).abs().round();
                differences[steps as usize] += 1;
            }
        }
        let count: usize = differences.iter().sum();
        let equal = differences[0] as f64 / count as f64;
        let reach = differences
            .iter()
            .rposition(|&count| count > 0)
            .expect("some");
        println!(
            "{}: {count} probabilities of {} tiles, {:.4} % equal, the others by up to {reach} of 256 steps: {:?}",
            ["gate", "U-Net"][which],
            tiles.len(),
            100.0 * equal,
            &differences[..=reach.min(8)]
        );
        assert!(equal >= 0.99, "{equal}: {:?}", &differences[..=reach]);
    }
    drop(requests);
    assert!(peer.wait().expect("ends").success());
}

/// Each operator alone, fed the same bytes: what lies between two of the output's steps may go to either.
#[test]
fn each_operator_is_what_onnx_runtime_makes_of_it() {
    let Some(python) = python("onnx, onnxruntime") else {
        return;
    };
    let dir = tempfile::tempdir().expect("a folder");
    let made = Command::new(python)
        .arg(root().join("tests/operators.py"))
        .arg(dir.path())
        .output()
        .expect("python starts");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let images = fs::read(dir.path().join("images.u8")).expect("images");
    let values = std::array::from_fn(|byte| (byte as f32 - 128.0) / 128.0);
    let list = String::from_utf8(made.stdout).expect("names");
    assert!(list.lines().count() > 10, "{list}");
    for line in list.lines() {
        let (name, step) = line.split_once(' ').expect("a name and a step");
        let step: f32 = step.parse().expect("a number");
        let model = fs::read(dir.path().join(format!("{name}.onnx"))).expect("a model");
        let network = Network::from_onnx(&model, &values).expect(name);
        let engine = network.engine();
        assert_eq!(engine.operators, engine.of, "{name}: {engine}");
        let found: Vec<f32> = images
            .chunks_exact(3 * network.side().pow(2))
            .flat_map(|image| network.run(image).expect(name))
            .collect();
        let wanted = fs::read(dir.path().join(format!("{name}.f32"))).expect("outputs");
        let (words, _) = wanted.as_chunks::<4>();
        let wanted = words.iter().map(|word| f32::from_le_bytes(*word));
        assert_eq!(found.len(), words.len(), "{name}");
        let steps: Vec<f32> = (found.iter().zip(wanted))
            .map(|(found, wanted)| ((found - wanted) / step).abs().round())
            .collect();
        let furthest = steps.iter().copied().fold(0.0, f32::max);
        let unequal = steps.iter().filter(|&&steps| steps > 0.0).count();
        println!("{name}: {unequal} of {} differ", steps.len());
        assert!(furthest <= 1.0, "{name}: by {furthest} steps");
        assert!(unequal * 1000 <= steps.len(), "{name}: {unequal}");
    }
}

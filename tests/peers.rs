//! What others say of the files in `models`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use prost::Message;
use tract_onnx::pb::ModelProto;
use tract_onnx::pb::tensor_shape_proto::dimension::Value;
use tract_onnx::pb::type_proto::Value as Type;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Python with the package `onnx`, as `make peers` installs it: what `PYTHON` says, or `python3`.
fn python() -> Option<String> {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let found = Command::new(&python).args(["-c", "import onnx"]).output();
    if found.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    println!("SKIPPED: {python} has no package onnx here: run `make peers`, then `make test`");
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
    let Some(python) = python() else { return };
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
    let Some(python) = python() else { return };
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

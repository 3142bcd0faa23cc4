//! `shipwatch bench` as a process: what it says, not how fast it is.

mod harness;

use std::path::Path;

use harness::{Dir, Outcome, bright_models};
use serde_json::Value;

/// Runs `bench` for a moment.
fn bench(args: &[&str]) -> Outcome {
    Dir::new().run(&[&["bench", "--seconds", "0.2"], args].concat())
}

/// What `--json` prints: one object and nothing else.
fn object(outcome: &Outcome) -> Value {
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    serde_json::from_str(&outcome.stdout).expect("one JSON object")
}

/// A file of this repository.
fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    path.to_str().expect("UTF-8").to_owned()
}

fn number(object: &Value, key: &str) -> f64 {
    let number = object[key].as_f64();
    number.unwrap_or_else(|| panic!("`{key}` in {object}"))
}

/// Figures of runs, which grow from the least to the 99th percentile.
fn check_figures(figures: &Value) {
    assert!(number(figures, "runs") >= 1.0);
    let times = ["min_ms", "median_ms", "p95_ms", "p99_ms"].map(|key| number(figures, key));
    assert!(times[0] > 0.0 && times.is_sorted(), "{figures}");
}

#[test]
fn a_frame_is_measured_stage_by_stage() {
    let models = bright_models();
    let outcome = bench(&["--models", &models, "--threads", "1", "--json"]);
    assert_eq!(outcome.stderr, "");
    let object = object(&outcome);
    assert_eq!(object["models"], "bright 1");
    assert_eq!(object["threads"], 1);
    assert_eq!(object["frame"], serde_json::json!([768, 768]));
    // Tiles of 64 pixels that share 16: 16 along each side.
    assert_eq!(object["tiles"], 256);
    let stages = ["decode", "gate", "segment", "encode"].map(|stage| &object["stages"][stage]);
    stages.iter().for_each(|stage| check_figures(stage));
    for frames in ["full", "empty"] {
        check_figures(&object[frames]);
        assert!(number(&object[frames], "per_second") > 0.0);
    }
    // A frame takes what its stages take, which records round to the microsecond, and more.
    let least: f64 = stages.iter().map(|stage| number(stage, "min_ms")).sum();
    assert!(number(&object["full"], "min_ms") > least - 0.01);
    for network in ["gate", "unet"] {
        assert_eq!(object[network]["operators"], 0);
        assert!(object[network]["kernel"].is_null());
    }
    for board in ["start", "end"] {
        assert!(object["board"][board]["temperatures"].is_array());
        assert!(object["board"][board]["clocks"].is_array());
    }
    if cfg!(target_os = "linux") {
        // The program alone takes this much.
        assert!(number(&object, "peak_memory_bytes") > 1e6);
    }
}

#[test]
fn people_get_a_table() {
    let outcome = bench(&["--models", &bright_models()]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    for start in [
        "bright 1\n",
        "gate: 0 of 3 operators in the int8 engine\n",
        "decode ",
        "gate, all tiles ",
        "segment, all tiles ",
        "encode ",
        "full frame ",
        "empty frame ",
        "full frames per second ",
        "empty frames per second ",
        "peak memory ",
    ] {
        let found = outcome.stdout.starts_with(start);
        let found = found || outcome.stdout.contains(&format!("\n{start}"));
        assert!(found, "no {start:?} in\n{}", outcome.stdout);
    }
}

#[test]
fn one_network_is_measured_alone() {
    let model = file("tests/fixtures/bright/unet.onnx");
    let outcome = bench(&["--model", &model, "--threads", "2", "--json"]);
    assert_eq!(outcome.stderr, "");
    let object = object(&outcome);
    check_figures(&object);
    assert_eq!(object["model"], model.as_str());
    assert_eq!(
        (&object["side"], &object["threads"]),
        (&64.into(), &2.into())
    );
    assert_eq!(
        (&object["operators"], &object["of"]),
        (&0.into(), &2.into())
    );
    assert!(number(&object, "pictures_per_second") > 0.0);
    if cfg!(unix) {
        assert!(number(&object, "cpu_ms") > 0.0);
    }
    assert!(object.get("layers").is_none());
}

/// MobileNetV2 of width 1 takes 300 million multiply-adds on 224 pixels (Sandler et al. 2018, table 4).
#[test]
fn layers_add_up_to_the_network() {
    let model = file("models/base-int8/gate.onnx");
    let args = [
        "bench",
        "--seconds",
        "0.2",
        "--json",
        "--layers",
        "--model",
        &model,
    ];
    let dir = Dir::new();
    let outcome = Outcome::of(dir.shipwatch(&args).env("SHIPWATCH_KERNEL", "portable"));
    let object = object(&outcome);
    assert_eq!(object["kernel"], "portable");
    let layers = object["layers"].as_array().expect("layers");
    let products = layers
        .iter()
        .map(|layer| number(layer, "multiply_accumulates"))
        .sum::<f64>();
    assert!((295e6..305e6).contains(&products), "{products}");
    for layer in layers {
        assert!(number(layer, "min_us") >= 0.0 && layer["output"][2].as_u64() > Some(0));
    }
    // MobileNetV2 has 17 depthwise convolutions.
    let depthwise = layers
        .iter()
        .filter(|layer| layer["name"] == "depthwise 3x3");
    assert_eq!(depthwise.count(), 17);
}

#[test]
fn what_cannot_be_measured_is_named() {
    let dir = Dir::new();
    dir.image("a.png", (8, 8), &[]);
    dir.write("empty/notes.txt", "no models");
    let floats = file("tests/fixtures/bright/gate.onnx");
    for (args, code, words) in [
        (&["--model", "missing.onnx"][..], 66, "missing.onnx"),
        (&["--model", "a.png"], 78, "a.png: not a model"),
        (&["--models", "empty"], 78, "empty/manifest.toml"),
        (
            &["--model", &floats, "--layers"],
            78,
            "name a quantized network",
        ),
        (&["--layers"], 64, "--model <FILE>"),
        (
            &["--model", &floats, "--models", "empty"],
            64,
            "cannot be used with",
        ),
        (&["--seconds", "0"], 64, "above 0"),
        (&["--threads", "0"], 64, "--threads"),
    ] {
        let outcome = dir.run(&[&["bench", "--json"], args].concat());
        assert_eq!(outcome.code, Some(code), "{args:?}: {}", outcome.stderr);
        assert!(
            outcome.stderr.contains(words),
            "{args:?}: {}",
            outcome.stderr
        );
        assert_eq!(outcome.stdout, "");
    }
}

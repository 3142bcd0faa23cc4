//! The training binary as a process: from labelled images to a bundle that the edge loads.
#![cfg(feature = "train")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use image::{Rgb, RgbImage};
use shipwatch::mask::Mask;
use shipwatch::model::Bundle;

/// Twelve pictures of a dark sea, half of them with a bright ship, and one file that is no picture.
fn write_data(root: &Path) {
    fs::create_dir_all(root.join("images")).expect("folder");
    let mut csv = "ImageId,EncodedPixels\n".to_owned();
    for i in 0..12u32 {
        let mut mask = Mask::new(96, 96);
        if i % 2 == 0 {
            for (x, y) in (30..60).flat_map(|x| (20..30).map(move |y| (x + i, y + 2 * i))) {
                mask.set(x, y, true);
            }
        }
        let level = |x, y| {
            if mask.get(x, y) {
                220
            } else {
                30 + ((x * 7 + y * 3) % 11) as u8
            }
        };
        let image = RgbImage::from_fn(96, 96, |x, y| Rgb([level(x, y); 3]));
        image
            .save(root.join(format!("images/{i:02}.png")))
            .expect("image");
        csv += &format!("{i:02}.png,{}\n", mask.to_rle());
    }
    fs::write(root.join("images/broken.jpg"), b"\xff\xd8\xff\xe0 cut off").expect("file");
    csv += "broken.jpg,1 5\n";
    fs::write(root.join("ship_segmentations.csv"), csv).expect("csv");
}

const CONFIG: &str = r#"
name = "toy"
seed = 5
tile = 64
overlap = 16
separation = true
gsd = [1.0, 2.0]

[gate]
batch = 4
head-steps = 2
steps = 3
learning-rate = 1e-3
ship-share = 0.5
tune-every = 2

[unet]
batch = 4
head-steps = 2
steps = 3
learning-rate = 1e-3
ship-share = 0.5
tune-every = 2

[[data]]
name = "toy sea"
root = "data"
licence = "none"
attribution = "nobody"
scale = [0.5, 1.2]
tune = ["08", "09"]
test = ["10", "11"]
"#;

fn train(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_train"))
        .args(args)
        .current_dir(dir)
        .env_remove("RUST_BACKTRACE")
        .output()
        .expect("train starts")
}

fn assert_success(output: &Output) {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_run_becomes_a_bundle_and_goes_on_where_it_stood() {
    let dir = tempfile::tempdir().expect("folder");
    write_data(&dir.path().join("data"));
    fs::write(dir.path().join("toy.toml"), CONFIG).expect("config");
    let run = [
        "run", "--config", "toy.toml", "--out", "run", "--device", "cpu",
    ];
    let first = train(dir.path(), &run);
    assert_success(&first);
    let log = String::from_utf8_lossy(&first.stderr);
    assert!(log.contains("broken.jpg"), "{log}");
    let metrics = fs::read_to_string(dir.path().join("run/gate.csv")).expect("metrics");
    assert!(metrics.starts_with("phase,step,"), "{metrics}");
    let steps: Vec<&str> = metrics
        .lines()
        .skip(1)
        .filter_map(|line| line.split(',').nth(1))
        .collect();
    assert_eq!(steps, ["2", "4", "5"]);

    // All steps are done: the same command finds nothing left to do and changes no weight.
    let weights = fs::read(dir.path().join("run/unet.safetensors")).expect("weights");
    let again = train(dir.path(), &run);
    assert_success(&again);
    assert!(String::from_utf8_lossy(&again.stderr).contains("going on from step 5 of 5"));
    assert_eq!(
        fs::read(dir.path().join("run/unet.safetensors")).expect("weights"),
        weights
    );

    let export = train(dir.path(), &["export", "--run", "run", "--out", "bundle"]);
    assert_success(&export);
    let bundle = Bundle::load(&dir.path().join("bundle")).expect("the edge loads it");
    assert_eq!(bundle.manifest.name, "toy");
    assert_eq!(bundle.manifest.training[0].images, 9);
    assert_eq!(bundle.manifest.scores["toy sea @ 1"].images, 2);
    assert_eq!(bundle.unet.metadata()["data"], "toy sea");
    assert_eq!(bundle.unet.output_shape(), [1, 2, 64, 64]);
    assert!(bundle.manifest.thresholds.valley.is_some());
    let files = fs::read_dir(dir.path().join("bundle")).expect("lists");
    assert_eq!(files.count(), 3, "manifest and networks, nothing else");

    let eval = train(
        dir.path(),
        &["eval", "--models", "bundle", "--config", "toy.toml"],
    );
    assert_success(&eval);
    let table = String::from_utf8_lossy(&eval.stdout);
    assert!(table.contains("toy sea @ 1"), "{table}");
    let untested = CONFIG.replace("test = [\"10\", \"11\"]", "");
    fs::write(dir.path().join("untested.toml"), untested).expect("config");
    let eval = train(
        dir.path(),
        &["eval", "--models", "bundle", "--config", "untested.toml"],
    );
    assert!(!eval.status.success(), "a table of nothing was printed");
    let error = String::from_utf8_lossy(&eval.stderr);
    assert!(error.contains("Test split"), "{error}");
}

#[test]
fn what_is_wrong_is_named() {
    let dir = tempfile::tempdir().expect("folder");
    write_data(&dir.path().join("data"));
    let fails = |config: &str, wanted: &str| {
        fs::write(dir.path().join("toy.toml"), config).expect("config");
        let _ = fs::remove_dir_all(dir.path().join("run"));
        let output = train(dir.path(), &["run", "--config", "toy.toml", "--out", "run"]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{wanted}");
        assert!(error.contains(wanted), "{wanted} not in {error}");
        assert!(!error.contains("panicked"), "{error}");
    };
    fails(&CONFIG.replace("tile = 64", "tile = 60"), "`tile`");
    fails(&CONFIG.replace("tile = 64", "tyle = 64"), "tyle");
    fails(
        &CONFIG.replace("root = \"data\"", "root = \"nowhere\""),
        "nowhere",
    );
    fails(
        &CONFIG.replace("tune = [\"08\", \"09\"]", "tune = [\"09\"]"),
        "Tune",
    );
    fails(
        &CONFIG
            .replace("tune = [\"08\", \"09\"]", "tune = [\"08\"]")
            .replace("scale = [0.5, 1.2]", "scale = [0.05, 0.05]"),
        "no tile with a ship large enough",
    );
    fails(
        &CONFIG.replace("seed = 5", "pretrained = \"none.safetensors\""),
        "none.safetensors",
    );
    // A mask that leaves its image.
    let csv = dir.path().join("data/ship_segmentations.csv");
    let text = fs::read_to_string(&csv).expect("csv");
    fs::write(&csv, text.replacen("00.png,", "00.png,9217 1\n00.png,", 1)).expect("csv");
    fails(CONFIG, "00.png: a mask reaches pixel 9217");
    assert!(!dir.path().join("run/gate.safetensors").exists());
}

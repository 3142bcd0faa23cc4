//! The training binary as a process: from labelled images to a bundle that the edge loads.
#![cfg(feature = "train")]

mod toy;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use shipwatch::model::Bundle;

use toy::{assert_success, command, train, write_data};

const CONFIG: &str = r#"
name = "toy"
seed = 5
tile = 64
overlap = 16
separation = true
gsd = [1.0, 2.0]

[mining]
every = 3
pool = 6
keep = 4

[phases]
gate-head = { batch = 4, steps = 2, tune-every = 2 }
gate-blocks = { batch = 4, steps = 5, tune-every = 2, first-block = 14 }
decoder = { batch = 4, steps = 2, tune-every = 2 }
unet = { batch = 4, steps = 5, tune-every = 2 }

[[data]]
name = "toy sea"
root = "data"
licence = "none"
attribution = "nobody"
scale = [0.5, 1.2]
tune = ["08", "09"]
test = ["10", "11"]
"#;

const RUN: [&str; 9] = [
    "run",
    "--config",
    "toy.toml",
    "--out",
    "run",
    "--device",
    "cpu",
    "--workers",
    "2",
];

const PHASES: [&str; 4] = ["gate-head", "gate-blocks", "decoder", "unet"];

/// Two columns of the metrics: phase and step.
fn looks(run: &Path) -> Vec<String> {
    let metrics = fs::read_to_string(run.join("metrics.csv")).expect("metrics");
    assert!(metrics.starts_with("phase,step,"), "{metrics}");
    let two = |line: &str| line.split(',').take(2).collect::<Vec<_>>().join(" ");
    metrics.lines().skip(1).map(two).collect()
}

#[test]
fn a_run_becomes_a_bundle_and_goes_on_where_it_stood() {
    let dir = tempfile::tempdir().expect("folder");
    write_data(&dir.path().join("data"));
    fs::write(dir.path().join("toy.toml"), CONFIG).expect("config");
    let first = train(dir.path(), &RUN);
    assert_success(&first);
    let log = String::from_utf8_lossy(&first.stderr);
    assert!(log.contains("broken.jpg"), "{log}");
    assert!(log.contains("mining round 1"), "{log}");
    let run = dir.path().join("run");
    let want = [
        "gate-head 0",
        "gate-head 2",
        "gate-blocks 0",
        "gate-blocks 2",
        "gate-blocks 4",
        "gate-blocks 5",
        "decoder 0",
        "decoder 2",
        "unet 0",
        "unet 2",
        "unet 4",
        "unet 5",
    ];
    assert_eq!(looks(&run), want);

    // All steps are done: the same command finds nothing left to do and changes no weight.
    assert!(image::open(run.join("curves.png")).is_ok());
    assert!(log.contains("images/s, about"), "{log}");
    let lines = fs::read_to_string(run.join("train.log")).expect("the log");
    assert!(lines.contains("unet step 5"), "{lines}");

    let weights = fs::read(run.join("unet.safetensors")).expect("weights");
    let again = train(dir.path(), &[&RUN[..], &["--resume"]].concat());
    assert_success(&again);
    assert!(String::from_utf8_lossy(&again.stderr).contains("unet: done"));
    assert_eq!(looks(&run), want);
    let json = fs::read(run.join("run.json")).expect("the run's description");
    let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(json["sessions"].as_array().map(Vec::len), Some(2), "{json}");
    assert_eq!(json["split"].as_str().map(str::len), Some(64), "{json}");
    // The revision is that of the program, which is called in no checkout here.
    let head = Command::new("git")
        .args(["rev-parse", "HEAD"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let head = head.ok().filter(|output| output.status.success());
    let head = head.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let revision = json["sessions"][0]["revision"].as_str();
    let revision = revision.map(|revision| revision.trim_end_matches("-dirty").to_owned());
    assert_eq!(revision, head);
    assert_eq!(
        fs::read(run.join("unet.safetensors")).expect("weights"),
        weights
    );

    // The test images stay closed until they are asked for.
    let export = |bundle: &str, more: &[&str]| {
        let args = ["export", "--run", "run", "--out", bundle];
        let export = train(dir.path(), &[&args[..], more].concat());
        assert_success(&export);
        let bundle = Bundle::load(&dir.path().join(bundle)).expect("the edge loads it");
        let table = String::from_utf8_lossy(&export.stdout).into_owned();
        let named = |set: &String| table.contains(set.as_str());
        assert!(bundle.manifest.scores.keys().all(named), "{table}");
        (
            bundle.manifest.scores.into_keys().collect::<Vec<_>>(),
            table,
        )
    };
    let (tune, test) = ("toy sea of tune @ 1", "toy sea of test @ 1");
    let (sets, table) = export("bundle", &[]);
    assert_eq!(sets, [tune]);
    assert!(!table.contains("test"), "{table}");
    let (sets, _) = export("tested", &["--test"]);
    assert_eq!(sets, [test, tune]);
    let bundle = Bundle::load(&dir.path().join("bundle")).expect("the edge loads it");
    assert_eq!(bundle.manifest.name, "toy");
    assert_eq!(bundle.manifest.training[0].images, 9);
    assert_eq!(bundle.manifest.scores[tune].images, 2);
    assert_eq!(bundle.unet.metadata()["data"], "toy sea");
    let built_from = bundle.manifest.run.and_then(|run| run.revision);
    assert_eq!(bundle.unet.metadata().get("revision"), built_from.as_ref());
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
    assert!(table.contains("toy sea of tune @ 1"), "{table}");
    let log = String::from_utf8_lossy(&eval.stderr);
    assert!(!log.contains("another split"), "{log}");

    // Another split would tune and measure on images that were trained on.
    let config = fs::read_to_string(run.join("config.toml")).expect("the config");
    let other = config.replace("[\"10\", \"11\"]", "[\"10\"]");
    assert_ne!(other, config);
    fs::write(run.join("config.toml"), other).expect("config");
    let export = train(dir.path(), &["export", "--run", "run", "--out", "other"]);
    assert!(!export.status.success());
    let error = String::from_utf8_lossy(&export.stderr);
    assert!(
        error.contains("run: the run began with another split"),
        "{error}"
    );
    assert!(!dir.path().join("other").exists());

    let untested = CONFIG.replace("test = [\"10\", \"11\"]", "");
    fs::write(dir.path().join("untested.toml"), untested).expect("config");
    let eval = train(
        dir.path(),
        &[
            "eval",
            "--models",
            "bundle",
            "--config",
            "untested.toml",
            "--split",
            "test",
        ],
    );
    assert!(!eval.status.success(), "a table of nothing was printed");
    let error = String::from_utf8_lossy(&eval.stderr);
    assert!(error.contains("test split"), "{error}");
    assert!(error.contains("trained by another split"), "{error}");
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
    fails(
        CONFIG,
        "ship_segmentations.csv:2: a mask reaches pixel 9217 of 00.png",
    );
    assert!(!dir.path().join("run/gate-blocks.safetensors").exists());
}

/// Every file of a run by name, the metrics without their timing.
fn contents(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |name: &str| fs::read(run.join(name)).expect("a file of the run");
    let weights = PHASES.iter().flat_map(|phase| {
        [
            format!("{phase}.safetensors"),
            format!("{phase}-last.safetensors"),
        ]
    });
    let mut contents: BTreeMap<String, Vec<u8>> = weights
        .map(|name| {
            let bytes = read(&name);
            (name, bytes)
        })
        .collect();
    let metrics = String::from_utf8(read("metrics.csv")).expect("text");
    let timing = |cells: &[&str]| cells[..cells.len() - 2].join(",");
    let rows = metrics
        .lines()
        .map(|line| timing(&line.split(',').collect::<Vec<_>>()));
    let rows = rows.collect::<Vec<_>>().join("\n");
    contents.insert("metrics".to_owned(), rows.into_bytes());
    contents
}

#[test]
fn a_run_that_is_killed_again_and_again_gives_the_same_bits() {
    let dir = tempfile::tempdir().expect("folder");
    write_data(&dir.path().join("data"));
    fs::write(dir.path().join("toy.toml"), CONFIG).expect("config");
    assert_success(&train(dir.path(), &RUN));
    let want = contents(&dir.path().join("run"));
    fs::rename(dir.path().join("run"), dir.path().join("whole")).expect("renames");

    // A checkpoint after every step.
    let config = format!("checkpoint-minutes = 1e-9\n{CONFIG}");
    fs::write(dir.path().join("toy.toml"), config).expect("config");
    let checkpoints = || -> Vec<SystemTime> {
        let saved = |phase: &&str| {
            let file = dir.path().join(format!("run/{phase}-last.safetensors"));
            fs::metadata(file).and_then(|data| data.modified()).ok()
        };
        PHASES.iter().filter_map(saved).collect()
    };
    let mut kills = 0;
    'run: loop {
        let before = checkpoints();
        let mut child = command(dir.path(), &RUN).spawn().expect("starts");
        // Until it has got on a little, however slow the machine is.
        while checkpoints() == before {
            if let Some(status) = child.try_wait().expect("a child") {
                assert!(status.success());
                break 'run;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(kills * 53 % 200));
        if kills % 2 == 0 {
            // SIGKILL on Unix: nothing is tidied up.
            child.kill().expect("kills");
            child.wait().expect("a child");
        } else {
            signal("-INT", &child);
            let code = child.wait().expect("a child").code();
            assert!(matches!(code, Some(130 | 0)), "{code:?}");
        }
        kills += 1;
    }
    assert!(kills > 0, "the run was over before it could be killed");
    let got = contents(&dir.path().join("run"));
    for (name, bytes) in &want {
        assert!(got[name] == *bytes, "{name} differs after {kills} kills");
    }
}

#[test]
fn a_phase_needs_what_it_builds_on() {
    let dir = tempfile::tempdir().expect("folder");
    write_data(&dir.path().join("data"));
    fs::write(dir.path().join("toy.toml"), CONFIG).expect("config");
    let run = |phase| train(dir.path(), &[&RUN[..], &["--phase", phase]].concat());
    let nothing = train(dir.path(), &[&RUN[..], &["--resume"]].concat());
    assert!(!nothing.status.success());
    let error = String::from_utf8_lossy(&nothing.stderr);
    assert!(error.contains("run: holds no run"), "{error}");
    assert!(!dir.path().join("run").exists());
    let early = run("decoder");
    assert!(!early.status.success());
    let error = String::from_utf8_lossy(&early.stderr);
    assert!(error.contains("phase gate-blocks is not over"), "{error}");
    assert_success(&run("gate-head"));
    assert_eq!(
        looks(&dir.path().join("run")),
        ["gate-head 0", "gate-head 2"]
    );

    // What was trained is fixed, what was not may change.
    let change = |old: &str, new: &str| {
        assert!(CONFIG.contains(old));
        fs::write(dir.path().join("toy.toml"), CONFIG.replacen(old, new, 1)).expect("config");
        run("gate-blocks")
    };
    let refused = change("steps = 2", "steps = 3");
    assert!(!refused.status.success());
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(
        error.contains("`phases.gate-head.steps` differs"),
        "{error}"
    );
    assert_success(&change("steps = 5", "steps = 1"));
}

fn signal(name: &str, child: &Child) {
    let pid = child.id().to_string();
    let kill = Command::new("kill").args([name, &pid]).status();
    assert!(kill.expect("kill runs").success());
}

/// While it measures how fast it will be, there is nothing to save yet.
#[test]
fn a_run_may_be_stopped_before_its_first_step() {
    let dir = tempfile::tempdir().expect("folder");
    write_data(&dir.path().join("data"));
    let slow = CONFIG.replacen("batch = 4,", "batch = 1024,", 1);
    fs::write(dir.path().join("toy.toml"), slow).expect("config");
    let mut child = command(dir.path(), &RUN)
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut log = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let mut next = || log.next().expect("goes on").expect("text");
    while !next().contains("tune tiles") {}
    signal("-TERM", &child);
    while !next().contains("run the same command again to go on") {}
    assert_eq!(child.wait().expect("a child").code(), Some(130));
    assert!(!dir.path().join("run/gate-head.safetensors").exists());
}

#[test]
fn an_interrupted_run_says_how_to_go_on() {
    let dir = tempfile::tempdir().expect("folder");
    write_data(&dir.path().join("data"));
    let long = CONFIG.replace("steps = 2,", "steps = 100000,");
    fs::write(dir.path().join("toy.toml"), long).expect("config");
    let child = command(dir.path(), &RUN)
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let last = dir.path().join("run/gate-head-last.safetensors");
    while !last.exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    signal("-INT", &child);
    let output = child.wait_with_output().expect("a child");
    assert_eq!(output.status.code(), Some(130));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("run the same command again to go on"), "{log}");
}

#[test]
fn a_phase_without_gain_ends_early() {
    let dir = tempfile::tempdir().expect("folder");
    write_data(&dir.path().join("data"));
    let long = CONFIG.replacen(
        "steps = 2, tune-every = 2",
        "steps = 100000, tune-every = 10, patience = 2",
        1,
    );
    fs::write(dir.path().join("toy.toml"), long).expect("config");
    let phase = |name| train(dir.path(), &[&RUN[..], &["--phase", name]].concat());
    assert_success(&phase("gate-head"));
    let metrics = fs::read_to_string(dir.path().join("run/metrics.csv")).expect("metrics");
    let score = |row: &str| -> f64 {
        let cell = row.split(',').nth(5).expect("a score");
        cell.parse().expect("a number")
    };
    let scores: Vec<f64> = metrics.lines().skip(1).map(score).collect();
    let (before, last) = scores.split_at(scores.len() - 2);
    let best = before.iter().copied().fold(f64::MIN, f64::max);
    assert_eq!(before.last(), Some(&best), "{scores:?}");
    assert!(last.iter().all(|score| *score <= best), "{scores:?}");
    assert_success(&phase("gate-blocks"));
}

#[test]
fn the_learning_rate_is_swept() {
    let dir = tempfile::tempdir().expect("folder");
    write_data(&dir.path().join("data"));
    fs::write(dir.path().join("toy.toml"), CONFIG).expect("config");
    let sweep = [
        "lr-range", "--config", "toy.toml", "--phase", "decoder", "--out", "lr", "--steps", "12",
        "--device", "cpu",
    ];
    assert_success(&train(dir.path(), &sweep));
    let csv = fs::read_to_string(dir.path().join("lr/lr-range.csv")).expect("the sweep");
    assert!(
        csv.starts_with("learning_rate,loss,smoothed\n1e-6,"),
        "{csv}"
    );
    assert!(image::open(dir.path().join("lr/lr-range.png")).is_ok());
}

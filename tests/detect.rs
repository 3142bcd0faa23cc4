//! `shipwatch detect` as a process, on networks for which bright pixels are ships.

mod harness;

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use harness::{Dir, Outcome, bright_models};
use serde_json::Value;
use shipwatch::mask::Rle;
use shipwatch::record::{FrameRecord, Ship};

/// Runs `detect` on the bright models.
fn detect(dir: &Dir, args: &[&str]) -> Outcome {
    let models = bright_models();
    dir.run(&[&["detect", "--models", &models], args].concat())
}

fn records(outcome: &Outcome) -> Vec<FrameRecord> {
    outcome
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a record"))
        .collect()
}

#[test]
fn prints_one_object_per_frame() {
    let dir = Dir::new();
    // Four rows: pixels (10, 1), (10, 2), (11, 1) and (11, 2) are 42, 43, 46 and 47.
    dir.image("a.png", (100, 4), &[[10, 1, 2, 2]]);
    dir.image("b.bmp", (9, 9), &[]);
    let outcome = detect(&dir, &["a.png", "b.bmp"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));

    let [a, b] = &records(&outcome)[..] else {
        panic!("{}", outcome.stdout)
    };
    assert_eq!(
        (a.frame.as_str(), a.width, a.height, a.scale),
        ("a.png", 100, 4, 1.0)
    );
    assert_eq!((a.gate.tiles, a.gate.passed, a.gate.segmented), (2, 1, 1));
    assert!(a.gate.score > 0.99 && b.gate.score < 0.01);
    assert_eq!(
        (a.model.name.as_str(), a.model.version.as_str()),
        ("bright", "1")
    );
    assert_eq!(a.ships.len(), 1);
    assert_eq!(a.ships[0].rle.to_string(), "42 2 46 2");
    assert_eq!(a.ships[0].bbox, [10, 1, 2, 2]);
    assert_eq!(a.ships[0].centroid, [11.0, 2.0]);
    assert!(a.ships[0].score > 0.99);
    assert!(a.millis.decode > 0.0 && a.millis.gate > 0.0);
    assert!(b.ships.is_empty());

    // What is not known is not there.
    let object: Value =
        serde_json::from_str(outcome.stdout.lines().next().expect("a line")).expect("JSON");
    assert!(object.get("gsd").is_none() && object["ships"][0].get("length_m").is_none());
}

#[test]
fn prints_the_submission_form() {
    let dir = Dir::new();
    dir.image("images/two.png", (70, 10), &[[0, 0, 1, 2], [69, 9, 1, 1]]);
    dir.image("images/none.png", (70, 10), &[]);
    let outcome = detect(&dir, &["--format", "csv", "images"]);
    assert_eq!(outcome.code, Some(0));
    let mut rows: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(rows[..2], ["ImageId,EncodedPixels", "none.png,"]);
    rows[2..].sort_unstable();
    assert_eq!(rows[2..], ["two.png,1 2", "two.png,700 1"]);
}

#[test]
fn the_resolution_sets_scale_and_metres() {
    let dir = Dir::new();
    dir.image("a.png", (100, 100), &[[20, 20, 40, 20]]);
    let outcome = detect(&dir, &["--gsd", "0.25", "a.png"]);
    assert!(
        outcome.stderr.starts_with("warn: a.png: 0.25 m per pixel"),
        "{}",
        outcome.stderr
    );
    let record = &records(&outcome)[0];
    assert_eq!((record.scale, record.tags.gsd), (0.5, Some(0.25)));
    assert_eq!(
        (record.ships[0].length_m, record.ships[0].width_m),
        (Some(10.0), Some(5.0))
    );

    let outcome = detect(&dir, &["--gsd", "1", "a.png"]);
    assert_eq!(
        (outcome.stderr.as_str(), records(&outcome)[0].scale),
        ("", 1.0)
    );
    let outcome = detect(&dir, &["--gsd", "0.25", "--scale", "1", "a.png"]);
    assert!(
        outcome.stderr.contains("the networks see 0.25 m"),
        "{}",
        outcome.stderr
    );
    assert_eq!(records(&outcome)[0].scale, 1.0);
}

#[test]
fn a_broken_image_is_reported_counted_and_skipped() {
    let dir = Dir::new();
    dir.image("in/a.png", (8, 8), &[]);
    dir.write("in/broken.jpg", "no image at all");
    dir.write("in/empty.png", "");
    dir.image("in/z.png", (8, 8), &[]);
    let outcome = detect(&dir, &["in"]);
    assert_eq!(outcome.code, Some(65));
    let frames: Vec<String> = records(&outcome).into_iter().map(|r| r.frame).collect();
    assert_eq!(frames, ["a.png", "z.png"]);
    for part in ["in/broken.jpg", "in/empty.png", "2 of 4 frames failed"] {
        assert!(
            outcome.stderr.contains(part),
            "{part} in {}",
            outcome.stderr
        );
    }
}

#[test]
fn an_image_over_the_limit_gets_a_clear_error() {
    let dir = Dir::new();
    dir.image("a.png", (30, 20), &[]);
    let outcome = detect(&dir, &["--max-pixels", "599", "a.png"]);
    assert_eq!(outcome.code, Some(65));
    assert!(
        outcome.stderr.contains("--max-pixels"),
        "{}",
        outcome.stderr
    );
    assert_eq!(
        detect(&dir, &["--max-pixels", "600", "a.png"]).code,
        Some(0)
    );
}

#[test]
fn magnifying_without_limit_gets_a_clear_error() {
    let dir = Dir::new();
    dir.image("a.png", (30, 20), &[]);
    let outcome = detect(&dir, &["--scale", "100000", "a.png"]);
    assert_eq!(outcome.code, Some(65));
    assert!(
        outcome.stderr.contains("lower the scale"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn folders_below_are_searched_when_asked() {
    let dir = Dir::new();
    dir.image("in/b.png", (8, 8), &[]);
    dir.image("in/below/a.png", (8, 8), &[]);
    let frames = |args: &[&str]| -> Vec<String> {
        records(&detect(&dir, args))
            .into_iter()
            .map(|r| r.frame)
            .collect()
    };
    assert_eq!(frames(&["in"]), ["b.png"]);
    assert_eq!(frames(&["--recursive", "in"]), ["b.png", "below/a.png"]);
}

#[test]
fn overlays_show_the_ships_and_touch_no_input() {
    let dir = Dir::new();
    let input = dir.image("a.png", (60, 40), &[[20, 20, 4, 3]]);
    let before = fs::read(&input).expect("the input");
    // The second time the overlay lies in the folder that is searched.
    for _ in 0..2 {
        let outcome = detect(&dir, &["--overlay", ".", "."]);
        assert_eq!((outcome.code, records(&outcome).len()), (Some(0), 1));
    }
    assert_eq!(fs::read(&input).expect("the input"), before);
    let overlay = image::open(dir.path("a.png.overlay.png"))
        .expect("an overlay")
        .into_rgb8();
    assert_eq!(overlay.dimensions(), (60, 40));
    assert_eq!(overlay.get_pixel(20, 20).0, [255; 3]);
    assert_eq!(overlay.get_pixel(19, 21).0, [255, 0, 255]);
    assert!(dir.path("a.png.2.overlay.png").exists());
}

#[test]
fn a_closed_pipe_is_no_error() {
    let dir = Dir::new();
    for i in 0..40 {
        dir.image(&format!("in/{i}.png"), (64, 64), &[[0, 0, 64, 64]]);
    }
    for format in ["jsonl", "csv"] {
        let models = bright_models();
        let mut child = dir
            .shipwatch(&["detect", "--models", &models, "--format", format, "in"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        stdout.read_line(&mut line).expect("a line");
        drop(stdout);
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}

#[test]
fn height_and_lens_set_the_resolution() {
    let dir = Dir::new();
    dir.image("a.png", (100, 50), &[]);
    let gsd = |args: &[&str]| {
        let outcome = detect(&dir, &[args, &["a.png"]].concat());
        records(&outcome)[0].tags.gsd.expect("a resolution")
    };
    // 50 m * 13.2 mm / 8.8 mm are 75 m on 100 pixels; 90 degrees span twice the height.
    let sensor = [
        "--altitude",
        "50",
        "--focal-length",
        "8.8",
        "--sensor-width",
        "13.2",
    ];
    assert!((gsd(&sensor) - 0.75).abs() < 1e-12);
    let angle = ["--altitude", "50", "--field-of-view", "90"];
    assert!((gsd(&angle) - 1.0).abs() < 1e-12);
    assert_eq!(gsd(&[&angle[..], &["--gsd", "0.5"]].concat()), 0.5);
}

/// A frame's polygon around a box, as typed.
fn around([x, y, width, height]: [u32; 4], frame: &FrameRecord) -> String {
    let (right, bottom) = (x + width, y + height);
    let corner = |(x, y): (u32, u32)| {
        let (x, y) = (f64::from(x), f64::from(y));
        format!(
            "{},{}",
            x / f64::from(frame.width),
            y / f64::from(frame.height)
        )
    };
    [(x, y), (right, y), (right, bottom), (x, bottom)]
        .map(corner)
        .join(" ")
}

#[test]
fn regions_take_a_ship_out_or_leave_it_alone_just_as_it_was() {
    const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/sentinel2-ports");
    let scene = format!("{DATA}/images/algiers.jpg");
    let dir = Dir::new();
    let look = |regions: &[&str]| {
        let outcome = dir.run(&[&["detect", "--gsd", "10", &scene], regions].concat());
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        records(&outcome).remove(0)
    };
    let all = look(&[]);

    // The surest of the ships that are known to be there.
    let truth = fs::read_to_string(format!("{DATA}/ship_segmentations.csv")).expect("the truth");
    let known: Vec<Rle> = truth
        .lines()
        .filter_map(|line| line.strip_prefix("algiers.jpg,"))
        .map(|runs| runs.parse().expect("run lengths"))
        .collect();
    let known: HashSet<_> = known
        .iter()
        .flat_map(|ship| ship.pixels(all.height))
        .collect();
    let is_known = |ship: &&Ship| {
        ship.rle
            .pixels(all.height)
            .any(|pixel| known.contains(&pixel))
    };
    let ship = all.ships.iter().find(is_known).expect("a ship is found");
    let polygon = around(ship.bbox, &all);

    let others = look(&["--ignore", &polygon]);
    let expected: Vec<&Ship> = all.ships.iter().filter(|other| *other != ship).collect();
    assert_eq!(expected.len() + 1, all.ships.len());
    assert_eq!(others.ships.iter().collect::<Vec<_>>(), expected);
    assert_eq!(others.gate, all.gate, "no tile is smaller than a ship");

    let alone = look(&["--look", &polygon]);
    assert_eq!(alone.ships, std::slice::from_ref(ship));
    assert!(alone.gate.tiles < all.gate.tiles / 4, "{:?}", alone.gate);

    let none = look(&["--look", &polygon, "--ignore", "0,0 1,0 1,1 0,1"]);
    assert_eq!((none.ships.len(), none.gate.tiles), (0, 0));
    assert_eq!((none.gate.score, none.gate.ship), (0.0, false));
}

#[test]
fn overlays_show_the_borders_of_regions() {
    let dir = Dir::new();
    dir.image("a.png", (41, 41), &[]);
    let square = "0.25,0.25 0.75,0.25 0.75,0.75 0.25,0.75";
    let outcome = detect(&dir, &["--ignore", square, "--overlay", ".", "a.png"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let overlay = image::open(dir.path("a.png.overlay.png")).expect("an overlay");
    let overlay = overlay.into_rgb8();
    assert_ne!(overlay.get_pixel(10, 20).0, [0; 3]);
    assert_eq!(overlay.get_pixel(20, 20).0, [0; 3]);
}

#[test]
fn exit_codes_tell_what_was_wrong() {
    let dir = Dir::new();
    dir.image("a.png", (8, 8), &[]);
    dir.write("empty/notes.txt", "");
    dir.write("file", "");
    let cases: [(&[&str], i32, &str); 17] = [
        (&["detect"], 64, "PATH"),
        (&["detect", "--nonsense", "a.png"], 64, "--nonsense"),
        (&["detect", "--gsd", "-1", "a.png"], 64, "--gsd"),
        (&["detect", "--gate", "2", "a.png"], 64, "between 0 and 1"),
        (
            &["detect", "--altitude", "9", "a.png"],
            64,
            "--field-of-view",
        ),
        (
            &["detect", "--field-of-view", "9", "a.png"],
            64,
            "--altitude",
        ),
        (
            &["detect", "--altitude", "9", "--focal-length", "9", "a.png"],
            64,
            "--sensor-width",
        ),
        (
            &["detect", "--look", "0,0 1,1", "a.png"],
            64,
            "three corners",
        ),
        (
            &["detect", "--ignore", "0,0 1,0 2,1", "a.png"],
            64,
            "corner 3",
        ),
        (&["detect", "--threads", "0", "a.png"], 64, "--threads"),
        (&["detect", "--stretch=98,2", "a.png"], 64, "percentiles"),
        (&["detect", "missing.png"], 66, "missing.png"),
        (&["detect", "empty"], 66, "--recursive"),
        (&["detect", "--overlay", "file/x", "a.png"], 73, "file/x"),
        (
            &["detect", "--models", "missing", "a.png"],
            78,
            "missing/manifest.toml",
        ),
        (&["detect", "--threads", "2", "a.png"], 0, ""),
        (&["--version"], 0, ""),
    ];
    for (args, code, said) in cases {
        let outcome = dir.run(args);
        assert_eq!(outcome.code, Some(code), "{args:?}: {}", outcome.stderr);
        assert!(
            outcome.stderr.contains(said),
            "{args:?}: {}",
            outcome.stderr
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_output_error() {
    let dir = Dir::new();
    dir.image("a.png", (8, 8), &[]);
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("a full device");
    let outcome = Outcome::of(dir.shipwatch(&["detect", "a.png"]).stdout(full));
    assert_eq!(outcome.code, Some(74), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("standard output"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn damaged_models_are_refused_by_name() {
    let dir = Dir::new();
    dir.image("a.png", (8, 8), &[]);
    let copy = |name: &str, change: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        for file in ["manifest.toml", "gate.onnx", "unet.onnx"] {
            let bytes = fs::read(format!("{}/{file}", bright_models())).expect("the fixture");
            let bytes = if file == name { change(bytes) } else { bytes };
            dir.write(&format!("models/{file}"), bytes);
        }
        dir.run(&["detect", "--models", "models", "a.png"])
    };
    let edit = |from: &'static str, to: &'static str| {
        move |bytes| {
            let text = String::from_utf8(bytes).expect("TOML is text");
            text.replace(from, to).into_bytes()
        }
    };
    assert_eq!(copy("", &|bytes| bytes).code, Some(0));

    let outcome = copy("gate.onnx", &|mut bytes| {
        bytes[100] ^= 1;
        bytes
    });
    assert_eq!(outcome.code, Some(78));
    assert!(
        outcome.stderr.contains("models/gate.onnx has SHA-256"),
        "{}",
        outcome.stderr
    );

    let outcome = copy("manifest.toml", &edit("overlap = 16", "overlap = 64"));
    assert_eq!(outcome.code, Some(78));
    assert!(
        outcome.stderr.contains("manifest.toml: `overlap`"),
        "{}",
        outcome.stderr
    );

    let outcome = copy("manifest.toml", &edit("tile = 64", "tile = 96"));
    assert_eq!(outcome.code, Some(78));
    assert!(
        outcome.stderr.contains("models/gate.onnx: the input is"),
        "{}",
        outcome.stderr
    );

    let outcome = copy("manifest.toml", &|_| b"\xff".to_vec());
    assert_eq!(outcome.code, Some(78));
    assert!(
        outcome.stderr.contains("manifest.toml"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let dir = Dir::new();
    let boxes: Vec<[u32; 4]> = (0..30)
        .map(|i| [i * 17 % 290, i * 29 % 290, 12, 3])
        .collect();
    dir.image("a.png", (300, 300), &boxes);
    let ships = |threads| {
        records(&detect(&dir, &["--threads", threads, "a.png"]))
            .remove(0)
            .ships
    };
    let alone = ships("1");
    assert!(alone.len() > 5);
    assert_eq!(alone, ships("4"));
}

#[test]
fn one_warning_is_enough_for_frames_that_are_alike() {
    let dir = Dir::new();
    for name in ["in/a.png", "in/b.png", "in/c.png"] {
        dir.image(name, (80, 80), &[]);
    }
    let said = detect(&dir, &["--gsd", "9", "in"]).stderr;
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("warn: a.png: 9 m per pixel"), "{said}");
}

#[test]
fn messages_can_be_asked_for_and_silenced() {
    let dir = Dir::new();
    dir.image("a.png", (80, 80), &[]);
    let said = |args: &[&str]| detect(&dir, args).stderr;
    assert!(said(&["--gsd", "9", "a.png"]).contains("warn"));
    assert_eq!(said(&["--gsd", "9", "-q", "a.png"]), "");
    let models = bright_models();
    let mut command = dir.shipwatch(&["detect", "--models", &models, "--gsd", "9", "a.png"]);
    assert_eq!(
        Outcome::of(command.env("SHIPWATCH_LOG", "error")).stderr,
        ""
    );
}

/// As systemd.exec(5) and sd-daemon(3) have it.
#[test]
#[cfg(unix)]
fn the_journal_gets_a_line_and_a_priority_for_each_message() {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    let dir = Dir::new();
    let names: Vec<String> = (0..3)
        .map(|n| format!("{n}\n<0>forged: \u{1b}[2J.png"))
        .collect();
    for name in &names {
        dir.write(name, "no image at all");
    }
    let journal = File::create(dir.path("journal")).expect("creates");
    let there = journal.metadata().expect("is there");
    let stream = format!("{}:{}", there.dev(), there.ino());
    let mut args = vec!["detect"];
    args.extend(names.iter().map(String::as_str));
    let said = |stream: &str| {
        let journal = journal.try_clone().expect("is open");
        journal.set_len(0).expect("empties");
        let mut command = dir.shipwatch(&args);
        command
            .env("JOURNAL_STREAM", stream)
            .env("CLICOLOR_FORCE", "1")
            .stderr(journal);
        assert_eq!(Outcome::of(&mut command).code, Some(65));
        let said = fs::read(dir.path("journal")).expect("reads");
        // What was emptied is written on where it ended.
        String::from_utf8(said).expect("UTF-8").replace('\0', "")
    };
    let lines = said(&stream);
    assert_eq!(lines.lines().count(), 4, "{lines}");
    assert!(lines.lines().all(|line| line.starts_with("<3>")), "{lines}");
    assert!(
        lines.starts_with("<3>0\\n<0>forged: \\u{1b}[2J.png: "),
        "{lines}"
    );
    // Inherited by one whose messages go elsewhere.
    let lines = said("1:1");
    assert!(!lines.contains("<3>") && lines.contains("error"), "{lines}");
}

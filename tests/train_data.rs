//! What the training binary does before and after training: counting, splitting, judging frames.
#![cfg(feature = "train")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};
use shipwatch::dataset::Dataset;
use shipwatch::mask::Mask;

fn train(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_train"))
        .args(args)
        .current_dir(dir)
        .env_remove("RUST_BACKTRACE")
        .output()
        .expect("train starts")
}

/// What it printed.
fn succeeds(dir: &Path, args: &[&str]) -> String {
    let output = train(dir, args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What it complained of.
fn fails(dir: &Path, args: &[&str]) -> String {
    let output = train(dir, args);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{args:?} succeeded");
    assert!(!error.contains("panicked"), "{error}");
    error
}

/// Numbers that look random and are always the same.
fn noise(seed: u32) -> impl FnMut() -> u32 {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    }
}

/// A rough grey sea of its own kind, 640 pixels a side.
fn sea(seed: u32) -> RgbImage {
    let mut next = noise(seed);
    let coarse = RgbImage::from_fn(160, 160, |_, _| Rgb([60 + (next() >> 28) as u8; 3]));
    let mut image = imageops::resize(&coarse, 640, 640, FilterType::CatmullRom);
    // Driftwood, by which a place can be known again.
    for _ in 0..60 {
        let (x, y, w, h) = (next() % 620, next() % 620, 4 + next() % 12, 4 + next() % 12);
        let level = 50 + (next() >> 26) as u8;
        for (x, y) in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            if let Some(pixel) = image.get_pixel_mut_checked(x, y) {
                *pixel = Rgb([level; 3]);
            }
        }
    }
    image
}

/// Twelve seas with a bright ship each, the last of them the first one turned, and six lands without.
/// The publisher sets every fourth aside.
fn write_data(root: &Path) {
    fs::create_dir_all(root.join("images")).expect("folder");
    let (mut csv, mut split) = (
        "ImageId,EncodedPixels\n".to_owned(),
        "ImageId,split\n".to_owned(),
    );
    for i in 0..12u32 {
        let mut image = sea(if i == 11 { 100 } else { 100 + i });
        let mut mask = Mask::new(640, 640);
        let (x0, y0) = (200 + 11 * (i % 11), 300 - 9 * (i % 11));
        for (x, y) in (x0..x0 + 90).flat_map(|x| (y0..y0 + 24).map(move |y| (x, y))) {
            image.put_pixel(x, y, Rgb([235, 230, 225]));
            mask.set(x, y, true);
        }
        if i == 11 {
            image = imageops::rotate180(&image);
            let mut turned = Mask::new(640, 640);
            for (x, y) in mask.to_rle().pixels(640) {
                turned.set(639 - x, 639 - y, true);
            }
            mask = turned;
        }
        image
            .save(root.join(format!("images/sea{i:02}.png")))
            .expect("image");
        csv += &format!("sea{i:02}.png,{}\n", mask.to_rle());
        split += &format!(
            "sea{i:02}.png,{}\n",
            if i % 4 == 3 { "valid" } else { "train" }
        );
    }
    for i in 0..6u32 {
        let mut next = noise(i + 7);
        let coarse = RgbImage::from_fn(64, 64, |_, _| {
            let level = (next() >> 24) as u8;
            Rgb([level, level / 2 + 60, 40])
        });
        let image = imageops::resize(&coarse, 320, 320, FilterType::Nearest);
        image
            .save(root.join(format!("images/land{i}.png")))
            .expect("image");
        csv += &format!("land{i}.png,\n");
        split += &format!("land{i}.png,train\n");
    }
    fs::write(root.join("ship_segmentations.csv"), csv).expect("csv");
    fs::write(root.join("split.csv"), split).expect("csv");
}

const CONFIG: &str = r#"
name = "toy"
seed = 5
tile = 64
overlap = 16
gsd = [1.0, 2.0]

[judge]
frames = 10
seed = 3

[phases]
gate-head = { batch = 4, steps = 1 }
unet = { batch = 4, steps = 1 }

[[data]]
name = "toy sea"
root = "data"
licence = "none"
attribution = "nobody"
scale = [0.2, 0.4]
eval-scales = [0.35]
frame-scale = [0.3, 0.45]
split = "split.csv"
"#;

/// What `split.csv` says of each image.
fn splits(path: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).expect("written");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("ImageId,split"));
    lines
        .map(|line| line.split_once(',').expect("two columns"))
        .map(|(id, split)| (id.to_owned(), split.to_owned()))
        .collect()
}

#[test]
fn from_folders_to_figures() {
    let dir = tempfile::tempdir().expect("folder");
    let dir = dir.path();
    write_data(&dir.join("data"));

    let table = succeeds(dir, &["stats", "data", "--out", "plots"]);
    let row = |split: &str| {
        let row = table
            .lines()
            .find(|line| line.split_whitespace().nth(1) == Some(split));
        row.unwrap_or_else(|| panic!("{split} not in {table}"))
            .split_whitespace()
            .collect::<Vec<_>>()
    };
    // Set, split, images, without ships and their share, ships, an image with, most, length.
    assert_eq!(
        row("train")[2..10],
        ["15", "6", "(40", "%)", "9", "1.0", "1", "90"]
    );
    assert_eq!(
        row("valid")[2..10],
        ["3", "0", "(0", "%)", "3", "1.0", "1", "90"]
    );
    for plot in ["ships-per-image.png", "ship-lengths.png", "ship-pixels.png"] {
        image::open(dir.join("plots").join(plot)).expect("a PNG");
    }

    let split = [
        "split",
        "data",
        "--tune",
        "0.3",
        "--test",
        "0.3",
        "--out",
        "split.csv",
    ];
    let report = succeeds(dir, &[&split[..], &["--pairs", "pairs.csv"]].concat());
    assert!(report.contains("18 images, 17 scenes"), "{report}");
    assert!(
        report.contains("2 images of one scene: sea00.png, sea11.png"),
        "{report}"
    );
    let pairs = fs::read_to_string(dir.join("pairs.csv")).expect("written");
    assert!(
        pairs
            .lines()
            .nth(1)
            .expect("a pair")
            .starts_with("sea00.png,sea11.png,"),
        "{pairs}"
    );
    let found = splits(&dir.join("split.csv"));
    assert_eq!(found.len(), 18);
    assert_eq!(found["sea00.png"], found["sea11.png"]);
    for id in ["sea03.png", "sea07.png", "sea11.png"] {
        assert_ne!(found[id], "train", "{id} is set aside by the publisher");
    }
    let count = |split: &str| found.values().filter(|s| *s == split).count();
    assert_eq!((count("tune"), count("test")), (5, 5));
    succeeds(dir, &split);
    assert_eq!(splits(&dir.join("split.csv")), found, "one seed, one split");

    // What a person ties together stays together.
    fs::write(
        dir.join("ties.csv"),
        "ImageId,SameScene\nsea01.png,land2.png\n",
    )
    .expect("ties");
    let tied = ["split", "data", "--out", "tied.csv", "--ties", "ties.csv"];
    let report = succeeds(dir, &tied);
    assert!(report.contains("18 images, 16 scenes"), "{report}");
    fs::write(
        dir.join("ties.csv"),
        "ImageId,SameScene\nsea01.png,land9.png\n",
    )
    .expect("ties");
    let error = fails(dir, &tied);
    assert!(error.contains("ties.csv: land9.png"), "{error}");

    fs::write(dir.join("toy.toml"), CONFIG).expect("config");
    let frames = |out: &str| {
        succeeds(
            dir,
            &[
                "frames", "--config", "toy.toml", "--split", "tune", "--out", out,
            ],
        );
        let data = Dataset::open(&dir.join(out)).expect("the challenge's layout");
        let ships = data
            .images
            .iter()
            .filter(|image| !image.ships.is_empty())
            .count();
        assert_eq!((data.images.len(), ships), (10, 4));
        for image in &data.images {
            assert_eq!(
                image::image_dimensions(&image.path).expect("an image"),
                (768, 768)
            );
            image.check(768, 768).expect("its masks lie on it");
        }
        fs::read(dir.join(out).join("images/tune-0001.png")).expect("a frame")
    };
    assert_eq!(frames("one"), frames("two"), "one seed, one set of frames");
    let kinds = fs::read_to_string(dir.join("one/kinds.csv")).expect("written");
    assert_eq!(kinds.lines().count(), 11);
    // Each frame names the images of its split that it is made of, sea that is made up none.
    let mut rows = csv::Reader::from_path(dir.join("one/kinds.csv")).expect("written");
    for row in rows.records() {
        let row = row.expect("three columns");
        let images: Vec<&str> = row[2].split(';').filter(|name| !name.is_empty()).collect();
        assert_eq!(
            images.is_empty(),
            row[1].starts_with("simulated sea"),
            "{row:?}"
        );
        for image in images {
            let id = image.strip_prefix("toy sea/").expect("of the folder");
            assert_eq!(found[id], "tune", "{row:?}");
        }
    }
    // Frames hold what the images hold: the ships are bright, all else is not.
    let data = Dataset::open(&dir.join("one")).expect("opens");
    for image in data.images.iter().filter(|image| !image.ships.is_empty()) {
        let pixels = image::open(&image.path).expect("an image").to_rgb8();
        let levels = image.ships[0]
            .pixels(768)
            .map(|(x, y)| f64::from(pixels.get_pixel(x, y).0[1]));
        let mean = levels.sum::<f64>() / image.ships[0].area() as f64;
        assert!(mean > 150.0, "{}: {mean}", image.id);
    }

    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/small-f32");
    let models = models.to_str().expect("UTF-8");
    let eval = [
        "eval", "--models", models, "--config", "toy.toml", "--split", "tune",
    ];
    let table = succeeds(dir, &[&eval[..], &["--report", "report"]].concat());
    assert!(
        !table.contains("as labelled:")
            && table.contains("frames of tune")
            && table.contains("toy sea of tune @ 0.35"),
        "{table}"
    );
    // Where ships may lack labels, all water may show some; made-up sea does not.
    let incomplete = CONFIG.replace("split.csv\"", "split.csv\"\ncomplete = false");
    fs::write(dir.join("incomplete.toml"), incomplete).expect("config");
    let mut again = eval;
    again[4] = "incomplete.toml";
    let note = succeeds(dir, &again);
    let made_up = fs::read_to_string(dir.join("one/kinds.csv")).expect("written");
    let made_up = made_up.matches("\"simulated sea").count();
    let note_of = format!("frames of tune: {} of 6 images without ships", 6 - made_up);
    assert!(note.contains(&note_of), "{note_of} not in {note}");
    let json = fs::read_to_string(dir.join("report/report.json")).expect("written");
    let report: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(report["sets"]["frames of tune"]["images"], 10);
    // Ten frames of five images, and of sea.
    let clusters = report["sets"]["frames of tune"]["clusters"].as_u64();
    assert!(clusters < Some(10), "{clusters:?}");
    assert_eq!(
        report["sets"]["frames of tune"]["decisions_of_nothing"],
        0.6
    );
    assert_eq!(report["sets"]["toy sea of tune @ 0.35"]["images"], 5);
    // Each image with ships counts once, by its longest; what predicting nothing gives stands beside.
    let by_size = report["sets"]["frames of tune"]["images_by_size"].as_array();
    let by_size = by_size.expect("a list");
    let images: u64 = by_size
        .iter()
        .filter_map(|some| some["images"].as_u64())
        .sum();
    assert_eq!(images, 4, "{by_size:?}");
    let some = by_size
        .iter()
        .find(|some| some["images"] != 0)
        .expect("one");
    assert_eq!(some["f2_of_nothing"], 0.0);
    for figure in ["dice", "f2", "gate_recall", "gate_auc", "stopped_at_98"] {
        let low = some[figure]["low"].as_f64().expect("an interval");
        assert!(Some(low) <= some[figure]["high"].as_f64(), "{some}");
    }
    let widest = table.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(160), "{table}");
    assert_eq!(report["split_hash"].as_str().map(str::len), Some(64));
    for picture in [
        "gate-roc.png",
        "f2-by-threshold.png",
        "worst-frames-of-tune.png",
    ] {
        image::open(dir.join("report").join(picture)).expect("a PNG");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let dir = tempfile::tempdir().expect("folder");
    let dir = dir.path();
    write_data(&dir.join("data"));
    let error = fails(dir, &["split", "data", "--out", "s.csv", "--tune", "1.5"]);
    assert!(error.contains("--tune 1.5"), "{error}");
    let error = fails(dir, &["split", "data", "data", "--out", "s.csv"]);
    assert!(
        error.contains("land0.png is in data and in data"),
        "{error}"
    );
    let error = fails(dir, &["stats", "nowhere"]);
    assert!(error.contains("nowhere"), "{error}");

    fs::write(dir.join("split.csv"), "ImageId,split\nland0.png,tune\n").expect("split");
    fs::write(dir.join("toy.toml"), CONFIG).expect("config");
    let frames = |split| {
        fails(
            dir,
            &[
                "frames", "--config", "toy.toml", "--split", split, "--out", "f",
            ],
        )
    };
    let error = frames("tune");
    assert!(
        error.contains("split.csv: says nothing of land1.png"),
        "{error}"
    );
    let all: String = (0..12).map(|i| format!("sea{i:02}.png,train\n")).collect();
    let land: String = (0..6).map(|i| format!("land{i}.png,tune\n")).collect();
    fs::write(dir.join("split.csv"), format!("ImageId,split\n{all}{land}")).expect("split");
    let error = frames("train");
    assert!(error.contains("--split tune or test"), "{error}");
    let error = frames("test");
    assert!(error.contains("frame-scale"), "{error}");
    // One kind of image alone tells no weights from others.
    let error = fails(dir, &["run", "--config", "toy.toml", "--out", "run"]);
    assert!(error.contains("no image with ships"), "{error}");

    let csv = dir.join("data/ship_segmentations.csv");
    let good = fs::read_to_string(&csv).expect("csv");
    for (bad, wanted) in [
        (
            good.replacen("ImageId", "Id", 1),
            "ship_segmentations.csv:1: the columns are Id",
        ),
        (
            good.replacen("land0.png,", "land0.png,1 5\nland0.png,5 1", 1),
            "ship_segmentations.csv:15",
        ),
        (
            good.replacen("land0.png,", "land0.png,9 5 3 1", 1),
            "ship_segmentations.csv:14",
        ),
    ] {
        fs::write(&csv, bad).expect("csv");
        let error = fails(dir, &["stats", "data"]);
        assert!(error.contains(wanted), "{wanted} not in {error}");
    }
}

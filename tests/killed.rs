//! A daemon that is killed again and again: nothing is lost, and nothing is said twice.

#![cfg(unix)]

mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use harness::{Dir, bright_models};
use shipwatch::record::FrameRecord;

/// How often the daemon is killed; `SHIPWATCH_KILLS=200` for the full measure.
const KILLS: usize = 20;

/// Frames for each time.
const FRAMES: usize = 30;

/// Names of frames and the ships on them.
type Found = BTreeMap<String, Vec<String>>;

/// What lines say; no frame may come twice, and numbers rise.
fn found(lines: &str) -> Found {
    let mut found = Found::new();
    let mut last = 0;
    for line in lines.lines() {
        let record: FrameRecord = serde_json::from_str(line).expect("a record");
        if let Some(id) = record.id {
            assert!(id > last, "{id} after {last}");
            last = id;
        }
        let ships = record.ships.iter().map(|ship| ship.rle.to_string());
        let before = found.insert(record.frame.clone(), ships.collect());
        assert!(before.is_none(), "{} twice", record.frame);
    }
    found
}

#[test]
fn whatever_moment_it_is_killed_at_each_frame_has_its_line_once() {
    let kills = std::env::var("SHIPWATCH_KILLS");
    let kills = kills.map_or(KILLS, |kills| kills.parse().expect("a number"));
    let count = kills * FRAMES;
    let dir = Dir::new();
    for nth in 0..count {
        let (x, y) = (nth as u32 % 50, nth as u32 / 50 % 50);
        let boxes: &[[u32; 4]] = match nth % 3 {
            0 => &[],
            _ => &[[x, y, 9, 3]],
        };
        dir.image(&format!("all/{nth:05}.bmp"), (64, 64), boxes);
    }
    let models = bright_models();
    let truth = dir.run(&["detect", "--models", &models, "all"]);
    assert_eq!(truth.code, Some(0), "{}", truth.stderr);
    let truth = found(&truth.stdout);
    assert_eq!(truth.len(), count);

    fs::create_dir(dir.path("in")).expect("creates");
    let mut files = fs::read_dir(dir.path("all"))
        .expect("lists")
        .map(|file| file.expect("is"));
    dir.write(
        "config.toml",
        "[[source]]\nfolder = \"in\"\nsettle-seconds = 0.01\nrescan-seconds = 0.1\nfinished = \"move\"\n\
         [output]\ndetections = \"out.jsonl\"\ncsv = \"out.csv\"\n[ledger]\ncommit-frames = 7\ncommit-seconds = 0.02\n",
    );
    let start = || {
        let args = [
            "run",
            "--once",
            "--models",
            &models,
            "--config",
            "config.toml",
        ];
        let mut command = dir.shipwatch(&args);
        command.env("SHIPWATCH_LOG", "warn").stderr(Stdio::piped());
        command.spawn().expect("the binary starts")
    };
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let (mut alive, mut seen) = (0, 0);
    for _ in 0..kills {
        for file in files.by_ref().take(FRAMES) {
            let name = file.file_name().into_string().expect("UTF-8");
            fs::copy(file.path(), dir.path(&format!("in/{name}"))).expect("copies");
        }
        let mut daemon = start();
        sleep(Duration::from_millis(random(120)));
        alive += usize::from(daemon.try_wait().expect("waits").is_none());
        daemon.kill().expect("kills");
        daemon.wait().expect("ends");
        // What a reader may have seen stays.
        let lines = fs::read_to_string(dir.path("out.jsonl")).unwrap_or_default();
        let whole = lines.rfind('\n').map_or(0, |end| end + 1);
        let lines = found(&lines[..whole]).len();
        assert!(lines >= seen, "{lines} lines after {seen}");
        seen = lines;
    }
    assert!(2 * alive > kills, "{alive} of {kills} were killed alive");
    assert!(seen > 0, "none came far enough to write a line");

    let mut last = start();
    let mut said = String::new();
    let stderr = last.stderr.as_mut().expect("piped");
    stderr.read_to_string(&mut said).expect("UTF-8");
    assert!(last.wait().expect("ends").success(), "{said}");
    let lines = fs::read_to_string(dir.path("out.jsonl")).expect("reads");
    assert!(found(&lines) == truth);
    // In the other form as well: a row for each, of which none has two ships.
    let mut rows = csv::Reader::from_path(dir.path("out.csv")).expect("opens");
    let mut in_rows = Found::new();
    for row in rows.deserialize::<(String, String)>() {
        let (frame, ship) = row.expect("a row");
        let ships = Some(ship).filter(|ship| !ship.is_empty());
        let before = in_rows.insert(frame.clone(), ships.into_iter().collect());
        assert!(before.is_none(), "{frame} twice");
    }
    assert!(in_rows == truth);
    assert_eq!(fs::read_dir(dir.path("in")).expect("lists").count(), 0);
    for name in truth.keys() {
        let [all, done] =
            ["all", "done"].map(|folder| fs::read(dir.path(&format!("{folder}/{name}"))));
        assert!(all.expect("reads") == done.expect("is there"), "{name}");
    }
    assert_eq!(
        fs::read_dir(dir.path("done")).expect("lists").count(),
        count
    );
}

//! What keeps a daemon going for years: its status, new configs, files that end the process, files that grow.

#![cfg(unix)]

#[path = "harness/daemon.rs"]
mod daemon;
mod harness;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use daemon::{Daemon, PATIENCE};
use harness::{Dir, bright_models};
use shipwatch::daemon::status::Status;
use shipwatch::record::FrameRecord;

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(20));
    }
}

fn status(dir: &Dir) -> Option<Status> {
    let outcome = dir.run(&["status", "--json"]);
    (outcome.code == Some(0)).then(|| serde_json::from_str(&outcome.stdout).expect("a status"))
}

#[test]
fn a_running_daemon_tells_what_it_does() {
    let dir = Dir::new();
    dir.image("in/a.png", (40, 40), &[[10, 10, 9, 3]]);
    dir.write("in/broken.png", "broken");
    let none = dir.run(&["status"]);
    assert_eq!(none.code, Some(69));
    assert!(none.stderr.contains("no daemon runs"), "{}", none.stderr);

    let daemon = Daemon::start(&dir, &[]);
    until("both files are told of", || {
        status(&dir).is_some_and(|s| s.sources[0].counts.frames + s.sources[0].counts.broken == 2)
    });
    let told = status(&dir).expect("it runs");
    let source = &told.sources[0];
    assert_eq!(
        (source.name.as_str(), source.place.as_str()),
        ("folder", "in")
    );
    assert_eq!(
        (source.counts.ships, source.per_minute, source.counts.broken),
        (1, 1, 1)
    );
    assert_eq!(told.detections[0].frame, "a.png");
    assert_eq!(told.models.expect("has some").name, "bright");
    assert!(
        told.disks
            .iter()
            .any(|disk| disk.path.ends_with("out.jsonl") && disk.available > 0)
    );
    let text = dir.run(&["status"]).stdout;
    for words in [
        "waits for frames",
        "1 frames with 1 ships",
        "1 on a.png",
        "MB left, 100 of them in reserve",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // A second one for another output works, but has no status.
    let second = dir.run(&[
        "run",
        "--once",
        "--models",
        &bright_models(),
        "--folder",
        "in",
        "--output",
        "other.jsonl",
    ]);
    assert_eq!(second.code, Some(65));
    assert!(
        second.stderr.contains("there will be no status"),
        "{}",
        second.stderr
    );

    daemon.signal("-TERM");
    assert_eq!(daemon.end().0, Some(0));
    assert!(status(&dir).is_none());
}

#[test]
fn a_new_config_is_taken_if_it_is_good_and_no_frame_is_lost_or_doubled() {
    let dir = Dir::new();
    let config = |folder: &str, more: &str| {
        dir.write(
            "config.toml",
            format!(
                "[[source]]\nfolder = \"{folder}\"\nsettle-seconds = 0.05\n{more}\n\
                 [output]\ndetections = \"out.jsonl\"\n"
            ),
        );
    };
    dir.image("in/a.png", (40, 40), &[[10, 10, 9, 3]]);
    dir.image("other/b.png", (40, 40), &[[10, 10, 9, 3]]);
    dir.image("other/small.png", (40, 40), &[[10, 10, 3, 3]]);
    config("in", "");
    let models = bright_models();
    let args = ["run", "--models", &models, "--config", "config.toml"];
    let daemon = Daemon::of(&dir, &mut dir.shipwatch(&args));
    daemon.wait(1);
    let process = status(&dir).expect("it runs").process;

    // What is no good changes nothing.
    let refusals = [
        ("in", "gsdd = 1", "unknown field"),
        ("in", "gsd = 0", "must be positive"),
        ("none", "", "no such folder"),
    ];
    for (nth, (folder, more, reason)) in refusals.into_iter().enumerate() {
        config(folder, more);
        daemon.signal("-HUP");
        until(reason, || {
            let refused = status(&dir).and_then(|status| status.refused);
            refused.is_some_and(|refused| refused.contains(reason))
        });
        dir.image(&format!("in/{nth}.png"), (40, 40), &[]);
        daemon.wait(2 + nth);
    }

    config("other", "detect = { min-area = 20 }");
    daemon.signal("-HUP");
    let records = daemon.wait(6);
    let told = status(&dir).expect("it runs");
    assert_eq!(
        (told.process, told.reloads, told.refused),
        (process, 1, None)
    );
    let ships = |name: &str| {
        let record = records.iter().find(|record| record.frame == name);
        record.expect(name).ships.len()
    };
    assert_eq!((ships("b.png"), ships("small.png")), (1, 0));

    // Again and again, while files come.
    config("in", "finished = \"delete\"");
    for nth in 0..20 {
        dir.image(&format!("in/late-{nth}.png"), (40, 40), &[]);
        daemon.signal("-HUP");
        sleep(Duration::from_millis(30));
    }
    until("all files are done", || {
        fs::read_dir(dir.path("in")).expect("lists").count() == 0
    });
    let records = daemon.records();
    let names: BTreeSet<_> = records.iter().map(|record| &record.frame).collect();
    assert_eq!((records.len(), names.len()), (26, 26));
    daemon.signal("-TERM");
    let (code, said) = daemon.end();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("the old config stays").count(), 3, "{said}");
}

/// A file of little more than nothing that takes more memory than there is: the process ends itself.
#[test]
fn a_file_that_ends_the_process_is_set_aside_in_the_end_and_no_other() {
    let dir = Dir::new();
    for name in ["a", "b", "y", "z"] {
        dir.image(&format!("in/{name}.png"), (40, 40), &[[10, 10, 9, 3]]);
    }
    let side = 16_000;
    image::GrayImage::new(side, side)
        .save(dir.path("in/deadly.png"))
        .expect("writes");
    dir.write(
        "config.toml",
        "[[source]]\nfolder = \"in\"\nsettle-seconds = 0.05\nfailed-folder = \"failed\"\n\
         [output]\ndetections = \"out.jsonl\"\n",
    );
    let models = bright_models();
    let run = || {
        let mut command = Command::new("sh");
        let command = command
            .args([
                "-c",
                "ulimit -v 250000; exec \"$@\"",
                "sh",
                env!("CARGO_BIN_EXE_shipwatch"),
            ])
            .args([
                "run",
                "--once",
                "--models",
                &models,
                "--config",
                "config.toml",
            ])
            .current_dir(dir.path("."))
            .env("RUNTIME_DIRECTORY", dir.path("runtime"))
            .env("RAYON_NUM_THREADS", "1")
            .env("MALLOC_ARENA_MAX", "1")
            .env_remove("SHIPWATCH_LOG");
        let status = command.output().expect("starts");
        (
            status.status,
            String::from_utf8_lossy(&status.stderr).into_owned(),
        )
    };
    for _ in 0..2 {
        let (status, said) = run();
        assert_eq!(status.signal(), Some(6), "{said}");
        assert!(!dir.path("failed").exists());
    }
    let (status, said) = run();
    assert_eq!(status.code(), Some(65), "{said}");
    assert!(said.contains("it is tried alone"), "{said}");
    let reason = fs::read_to_string(dir.path("failed/deadly.png.reason.txt")).expect("a note");
    assert!(reason.contains("it died of SIGABRT"), "{reason}");
    assert_eq!(fs::read_dir(dir.path("failed")).expect("lists").count(), 2);
    let text = fs::read_to_string(dir.path("out.jsonl")).expect("reads");
    let mut frames: Vec<_> = text.lines().map(frame).collect();
    frames.sort();
    assert_eq!(frames, ["a.png", "b.png", "y.png", "z.png"]);
    let (status, said) = run();
    assert_eq!(status.code(), Some(0), "{said}");
}

fn frame(line: &str) -> String {
    let record: FrameRecord = serde_json::from_str(line).expect("a record");
    record.frame
}

#[test]
fn a_pipe_gets_every_line_at_least_once_whenever_it_has_a_reader() {
    let dir = Dir::new();
    let made = Command::new("mkfifo").arg(dir.path("pipe")).status();
    assert!(made.expect("mkfifo starts").success());
    for nth in 0..30 {
        dir.image(&format!("in/{nth:02}.png"), (40, 40), &[[10, 10, 9, 3]]);
    }
    dir.write(
        "config.toml",
        "[[source]]\nfolder = \"in\"\nsettle-seconds = 0.01\nfinished = \"delete\"\n\
         [output]\ndetections = \"pipe\"\n[ledger]\nfile = \"ledger\"\ncommit-frames = 4\n",
    );
    let models = bright_models();
    let args = ["run", "--models", &models, "--config", "config.toml"];
    // Nobody reads: it starts, and files wait.
    let daemon = Daemon::of(&dir, &mut dir.shipwatch(&args));
    until("it waits for a reader", || {
        let trouble = status(&dir).and_then(|status| status.trouble);
        trouble.is_some_and(|trouble| trouble.contains("nobody reads"))
    });
    assert_eq!(fs::read_dir(dir.path("in")).expect("lists").count(), 30);
    let reader = |count: usize| -> Vec<String> {
        let lines = BufReader::new(File::open(dir.path("pipe")).expect("opens")).lines();
        lines
            .take(count)
            .map(|line| frame(&line.expect("reads")))
            .collect()
    };
    let mut got = reader(3);
    // Killed with lines in hand that nobody has read.
    daemon.signal("-KILL");
    assert_eq!(daemon.end().0, None);
    let again = Daemon::of(&dir, &mut dir.shipwatch(&args));
    let mut pipe = BufReader::new(File::open(dir.path("pipe")).expect("opens")).lines();
    let names: BTreeSet<String> = (0..30).map(|nth| format!("{nth:02}.png")).collect();
    while got.iter().cloned().collect::<BTreeSet<_>>() != names {
        got.push(frame(&pipe.next().expect("more comes").expect("reads")));
    }
    assert!(got.len() < 60, "{got:?}");
    again.signal("-TERM");
    assert_eq!(again.end().0, Some(0));
}

#[test]
fn standard_output_takes_lines_as_a_pipe_and_as_a_file() {
    let dir = Dir::new();
    dir.image("in/a.png", (40, 40), &[[10, 10, 9, 3]]);
    let models = bright_models();
    let args = [
        "run", "--once", "--models", &models, "--folder", "in", "--output", "-",
    ];
    let piped = dir.run(&args);
    assert_eq!(piped.code, Some(0), "{}", piped.stderr);
    assert_eq!(
        piped.stdout.lines().map(frame).collect::<Vec<_>>(),
        ["a.png"]
    );
    // What was said there is said; other frames follow in a file, with a ledger beside it.
    dir.image("in/b.png", (40, 40), &[]);
    let file = File::create(dir.path("out.jsonl")).expect("creates");
    let status = dir
        .shipwatch(&args)
        .stdout(file)
        .stderr(Stdio::null())
        .status();
    assert!(status.expect("starts").success());
    let text = fs::read_to_string(dir.path("out.jsonl")).expect("reads");
    assert_eq!(
        text.lines().map(frame).collect::<Vec<_>>(),
        ["a.png", "b.png"]
    );
    assert!(dir.path("out.ledger").exists() && dir.path("shipwatch.ledger").exists());
    assert!(!dir.path("-").exists());
}

#[test]
fn a_config_is_read_again_while_nobody_reads_a_pipe_and_no_line_is_lost() {
    let dir = Dir::new();
    let made = Command::new("mkfifo").arg(dir.path("pipe")).status();
    assert!(made.expect("mkfifo starts").success());
    let config = |output: &str| {
        dir.write(
            "config.toml",
            format!(
                "[[source]]\nfolder = \"in\"\nsettle-seconds = 0.01\n\
                 [output]\ndetections = \"out.jsonl\"\n{output}\n"
            ),
        );
    };
    let names = ["a.png", "b.png", "c.png"];
    for name in names {
        dir.image(&format!("in/{name}"), (40, 40), &[[10, 10, 9, 3]]);
    }
    config("csv = \"pipe\"");
    let models = bright_models();
    let args = ["run", "--models", &models, "--config", "config.toml"];
    let daemon = Daemon::of(&dir, &mut dir.shipwatch(&args));
    let told =
        |what: &str, is_so: fn(Status) -> bool| until(what, || status(&dir).is_some_and(is_so));
    told("it waits for a reader", |status| status.trouble.is_some());
    daemon.signal("-HUP");
    told("it goes on", |status| {
        status.reloads == 1 && status.sources[0].counts.known == 3 && status.trouble.is_none()
    });
    // What fails only once the loop before has ended changes nothing either.
    config("overlay = \"config.toml/overlay\"");
    daemon.signal("-HUP");
    told("it is refused", |status| status.refused.is_some());
    let pipe = BufReader::new(File::open(dir.path("pipe")).expect("opens"));
    let mut rows = pipe.lines().map(|row| row.expect("reads")).take(4);
    assert_eq!(rows.next().as_deref(), Some("ImageId,EncodedPixels"));
    let mut got: Vec<_> = rows
        .filter_map(|row| Some(row.split_once(',')?.0.to_owned()))
        .collect();
    got.sort();
    assert_eq!(got, names);
    daemon.wait(3);
    daemon.signal("-TERM");
    assert_eq!(daemon.end().0, Some(0));
}

#[test]
fn a_stop_waits_neither_for_a_reader_nor_for_a_config() {
    let dir = Dir::new();
    for name in ["pipe", "hangs"] {
        let made = Command::new("mkfifo").arg(dir.path(name)).status();
        assert!(made.expect("mkfifo starts").success());
    }
    dir.image("in/a.png", (40, 40), &[[10, 10, 9, 3]]);
    dir.write(
        "config.toml",
        "[[source]]\nfolder = \"in\"\n[output]\ndetections = \"pipe\"\n[ledger]\nfile = \"ledger\"\n",
    );
    let models = bright_models();
    let args = ["run", "--models", &models, "--config", "config.toml"];
    let daemon = Daemon::of(&dir, &mut dir.shipwatch(&args));
    until("it waits for a reader", || {
        status(&dir).is_some_and(|status| status.trouble.is_some())
    });
    // As on a disk that does not answer.
    fs::rename(dir.path("hangs"), dir.path("config.toml")).expect("renames");
    daemon.signal("-HUP");
    daemon.signal("-TERM");
    let (code, said) = daemon.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("left for the next start"), "{said}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_trial_does_not_outlive_who_began_it() {
    let dir = Dir::new();
    let side = 16_000;
    image::GrayImage::new(side, side)
        .save(dir.path("long.png"))
        .expect("writes");
    let script = "\"$@\" & echo $! > began; wait";
    let mut parent = Command::new("sh")
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_shipwatch"), "trial"])
        .args(["--models", &bright_models(), "long.png"])
        .current_dir(dir.path("."))
        .spawn()
        .expect("starts");
    let of_trial = |file: &str| {
        let process = fs::read_to_string(dir.path("began")).unwrap_or_default();
        fs::read_to_string(format!("/proc/{}/{file}", process.trim())).unwrap_or_default()
    };
    until("it has begun", || {
        of_trial("oom_score_adj").trim() == "1000"
    });
    // So that it cannot end by itself.
    let process = fs::read_to_string(dir.path("began")).expect("is there");
    let stopped = Command::new("kill")
        .args(["-STOP", process.trim()])
        .status();
    assert!(stopped.expect("kill starts").success());
    parent.kill().expect("is there");
    parent.wait().expect("ends");
    until("it is gone", || {
        let status = of_trial("status");
        status.is_empty() || status.contains("State:\tZ")
    });
}

/// Peak of resident memory in kilobytes, and open files.
#[cfg(target_os = "linux")]
fn burden(process: u32) -> (u64, usize) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.expect("is told").trim().trim_end_matches(" kB");
    let files = fs::read_dir(format!("/proc/{process}/fd")).expect("lists");
    (kilobytes.parse().expect("a number"), files.count())
}

/// Frames of the soak test; `SHIPWATCH_SOAK=50000` for the full measure.
const SOAK: usize = 3_000;

/// Files come without end: memory, open files and all that it writes stay small, and no line is lost.
#[test]
#[cfg(target_os = "linux")]
fn a_long_run_needs_no_more_than_a_short_one() {
    let count = std::env::var("SHIPWATCH_SOAK");
    let count = count.map_or(SOAK, |count| count.parse().expect("a number"));
    let dir = Dir::new();
    let mut images = Vec::new();
    for nth in 0..50 {
        let path = dir.image(&format!("images/{nth}.bmp"), (64, 64), &[[nth, 10, 9, 3]]);
        images.push(fs::read(path).expect("reads"));
    }
    fs::create_dir(dir.path("in")).expect("creates");
    dir.write(
        "config.toml",
        "[[source]]\nfolder = \"in\"\nsettle-seconds = 0.02\nfinished = \"delete\"\n\
         [output]\ndetections = \"out.jsonl\"\ncsv = \"out.csv\"\nrotate-megabytes = 1\n\
         [retention]\nledger-megabytes = 1\n",
    );
    let models = bright_models();
    let mut command = dir.shipwatch(&["run", "--models", &models, "--config", "config.toml"]);
    command.env("SHIPWATCH_LOG", "warn");
    let daemon = Daemon::of(&dir, &mut command);
    until("it runs", || status(&dir).is_some());
    let process = status(&dir).expect("it runs").process;
    let mut early = None;
    for nth in 0..count {
        // Of another content each time, or it would be known by its name alone.
        let mut image = images[nth % images.len()].clone();
        let last = image.len() - 4;
        image[last..].copy_from_slice(&(nth as u32 & 0x3f3f_3f3f).to_le_bytes());
        fs::write(dir.path(&format!(".{nth}.bmp")), image).expect("writes");
        fs::rename(
            dir.path(&format!(".{nth}.bmp")),
            dir.path(&format!("in/{nth}.bmp")),
        )
        .expect("moves");
        if nth % 100 == 99 {
            let start = Instant::now();
            while fs::read_dir(dir.path("in")).expect("lists").count() > 50 {
                assert!(start.elapsed() < PATIENCE, "files are not taken");
                sleep(Duration::from_millis(5));
            }
        }
        if nth == count / 3 {
            early = Some(burden(process));
        }
    }
    until("all files are done", || {
        fs::read_dir(dir.path("in")).expect("lists").count() == 0
    });
    let (early, late) = (early.expect("is measured"), burden(process));
    println!("{count} frames: kB and open files, early {early:?}, late {late:?}");
    assert!(
        late.0 < early.0 + early.0 / 10 + 2048,
        "{early:?}, then {late:?}"
    );
    assert!(late.1 <= early.1 + 2, "{early:?}, then {late:?}");
    daemon.signal("-TERM");
    let (code, said) = daemon.end();
    assert_eq!((code, said.as_str()), (Some(0), ""));

    let mut lines = 0;
    let mut rows = BTreeSet::new();
    for entry in fs::read_dir(dir.path(".")).expect("lists") {
        let path = entry.expect("is").path();
        let text = |path: &Path| fs::read_to_string(path).expect("reads");
        match path.extension().and_then(|end| end.to_str()) {
            Some("jsonl") => {
                lines += text(&path).lines().count();
                assert!(path.metadata().expect("is there").len() < 1_100_000);
            }
            Some("csv") => rows.extend(text(&path).lines().map(str::to_owned)),
            Some("ledger") => {
                // What cannot be forgotten are names; here all files are gone.
                let most = 1_000_000 + 200_000;
                assert!(path.metadata().expect("is there").len() < most);
            }
            _ => {}
        }
    }
    assert_eq!(lines, count);
    // A head, and a row for each frame's ship.
    assert_eq!(rows.len(), count + 1);
}

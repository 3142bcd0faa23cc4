//! `shipwatch run` and `shipwatch check` as processes, on networks for which bright pixels are
//! ships.

#[path = "harness/daemon.rs"]
mod daemon;
mod harness;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use daemon::{Daemon, PATIENCE};
use harness::{Dir, bright_models};
use shipwatch::record::FrameRecord;

fn names(records: &[FrameRecord]) -> Vec<&str> {
    records.iter().map(|record| record.frame.as_str()).collect()
}

#[test]
fn files_that_lie_there_and_files_that_arrive_are_processed_once() {
    let dir = Dir::new();
    dir.image("in/a.png", (100, 40), &[[10, 10, 20, 5]]);
    let daemon = Daemon::start(&dir, &["--overlay", "seen"]);
    let records = daemon.wait(1);
    assert_eq!(records[0].ships.len(), 1);
    assert_eq!(records[0].ships[0].area, 100);
    assert!(records[0].millis.decode > 0.0);

    dir.image("new.png", (10, 10), &[]);
    fs::rename(dir.path("new.png"), dir.path("in/b.png")).expect("renames");
    daemon.wait(2);
    sleep(Duration::from_millis(700));
    assert_eq!(names(&daemon.records()), ["a.png", "b.png"]);
    daemon.signal("-TERM");
    let (code, said) = daemon.end();
    assert_eq!(code, Some(0));
    assert!(
        said.contains("a.png: 1 ship, gate") && said.contains("2 frames with 1 ships"),
        "{said}"
    );
    // Of what was found.
    assert_eq!(fs::read_dir(dir.path("seen")).expect("overlays").count(), 1);
}

#[test]
fn a_file_written_in_two_halves_is_processed_once_and_whole() {
    let dir = Dir::new();
    dir.image("in/a.png", (10, 10), &[]);
    let bytes = fs::read(dir.image("whole.bmp", (100, 40), &[[90, 30, 5, 5]])).expect("reads");
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let daemon = Daemon::start(&dir, &[]);
    daemon.wait(1);
    let mut slow = OpenOptions::new()
        .append(true)
        .create(true)
        .open(dir.path("in/slow.bmp"))
        .expect("creates");
    slow.write_all(first).expect("writes");
    // Longer than a file takes to settle: the writer still holds it open.
    sleep(Duration::from_millis(1500));
    assert_eq!(daemon.records().len(), 1);
    slow.write_all(second).expect("writes");
    drop(slow);
    daemon.wait(2);
    daemon.signal("-INT");
    let records = daemon.records();
    assert_eq!(names(&records), ["a.png", "slow.bmp"]);
    assert_eq!(records[1].ships.len(), 1);
    let (code, said) = daemon.end();
    assert_eq!(code, Some(0));
    assert!(said.contains("0 skipped"), "{said}");
}

#[test]
fn an_upload_counts_once_it_has_its_name() {
    let dir = Dir::new();
    let part = dir.image("in/a.png", (10, 10), &[]);
    fs::rename(&part, dir.path("in/a.png.part")).expect("renames");
    let daemon = Daemon::start(&dir, &[]);
    sleep(Duration::from_millis(1200));
    assert_eq!(daemon.records().len(), 0);
    fs::rename(dir.path("in/a.png.part"), &part).expect("renames");
    assert_eq!(names(&daemon.wait(1)), ["a.png"]);
}

#[test]
fn a_broken_file_is_skipped_and_the_process_lives() {
    let dir = Dir::new();
    dir.write("in/a.jpg", "no image at all");
    let whole = fs::read(dir.image("whole.jpg", (64, 64), &[])).expect("reads");
    dir.write("in/b.jpg", &whole[..whole.len() - 2]);
    let config = "[[source]]\nsettle-seconds = 0.05\nfailed-folder = \"failed\"\n";
    dir.write("config.toml", config);
    let daemon = Daemon::start(&dir, &["--config", "config.toml"]);
    dir.image("in/c.png", (10, 10), &[]);
    assert_eq!(names(&daemon.wait(1)), ["c.png"]);
    let start = Instant::now();
    while fs::read_dir(dir.path("in")).expect("lists").count() > 1 {
        assert!(start.elapsed() < PATIENCE, "broken files stay");
        sleep(Duration::from_millis(20));
    }
    // Signals that come again, and early, do no harm.
    daemon.signal("-TERM");
    let _ = Command::new("kill")
        .args(["-TERM", &daemon.child.id().to_string()])
        .output();
    let (code, said) = daemon.end();
    assert_eq!(code, Some(0));
    assert!(
        said.contains("in/a.jpg") && said.contains("in/b.jpg: is cut off"),
        "{said}"
    );
    assert!(said.contains("2 skipped"), "{said}");
}

#[test]
fn a_stop_leaves_whole_lines_and_a_start_mends_a_torn_one() {
    let dir = Dir::new();
    for name in ["in/a.png", "in/b.png", "in/c.png"] {
        dir.image(name, (400, 400), &[[10, 10, 20, 5]]);
    }
    dir.write("out.jsonl", "{\"frame\":\"torn");
    let daemon = Daemon::start(&dir, &[]);
    daemon.wait(1);
    daemon.signal("-TERM");
    let (code, said) = daemon.end();
    assert_eq!(code, Some(0));
    assert!(said.contains("cut off by a crash"), "{said}");
    let text = fs::read_to_string(dir.path("out.jsonl")).expect("reads");
    assert!(text.ends_with("}\n"));
    for line in text.lines() {
        serde_json::from_str::<FrameRecord>(line).expect("a record");
    }
}

#[test]
fn overlays_in_the_watched_folder_are_no_frames() {
    let dir = Dir::new();
    dir.image("in/a.png", (40, 40), &[[10, 10, 9, 3]]);
    let args = ["--overlay", "in", "--once", "--reprocess"];
    for count in 1..=2 {
        let daemon = Daemon::start(&dir, &args);
        assert_eq!(daemon.wait(count).len(), count);
        assert_eq!(daemon.end().0, Some(0));
    }
    // Of the same frame: it is written over.
    let overlay = overlay_of(&dir, "in/a.png");
    assert!(overlay.to_str().expect("UTF-8").ends_with(".overlay.png"));
    assert_eq!(fs::read_dir(dir.path("in")).expect("lists").count(), 2);
}

/// The picture of a frame: a part of its digest stands in the name.
fn overlay_of(dir: &Dir, frame: &str) -> PathBuf {
    let frame = dir.path(frame);
    let start = frame.file_name().expect("a name").to_str().expect("UTF-8");
    let start = format!("{start}-");
    let files = fs::read_dir(frame.parent().expect("a folder")).expect("lists");
    let mut found = files.map(|file| file.expect("is").path()).filter(|path| {
        let name = path.file_name().expect("a name");
        name.to_string_lossy().starts_with(&start)
    });
    found.next().expect("a picture")
}

#[test]
fn a_second_daemon_does_not_write_to_the_same_file() {
    let dir = Dir::new();
    dir.image("in/a.png", (10, 10), &[]);
    let first = Daemon::start(&dir, &[]);
    first.wait(1);
    let (code, said) = Daemon::start(&dir, &[]).end();
    assert_eq!(code, Some(73));
    assert!(said.contains("out.ledger: another shipwatch"), "{said}");
}

/// The same content under the same name is done; other content, and another name, are not.
#[test]
fn what_is_done_is_not_done_again() {
    let dir = Dir::new();
    let once = |count: usize, said: &str| {
        let daemon = Daemon::start(&dir, &["--once"]);
        let records = daemon.wait(count);
        let (code, log) = daemon.end();
        assert_eq!((code, records.len()), (Some(0), count), "{log}");
        assert!(log.contains(said), "{said} not in {log}");
        records
    };
    dir.image("in/a.png", (40, 40), &[[10, 10, 9, 3]]);
    once(1, "1 frames with 1 ships; 0 skipped, 0 done before");
    once(1, "0 frames with 0 ships; 0 skipped, 1 done before");
    // Written anew, and so with another time and number on the disk.
    fs::remove_file(dir.path("in/a.png")).expect("removes");
    dir.image("in/a.png", (40, 40), &[[10, 10, 9, 3]]);
    once(1, "1 done before");
    dir.image("in/a.png", (40, 40), &[[20, 20, 3, 9]]);
    dir.image("in/b.png", (40, 40), &[[10, 10, 9, 3]]);
    let records = once(3, "2 frames with 2 ships; 0 skipped, 0 done before");
    let ids: Vec<_> = records.iter().map(|record| record.id).collect();
    assert_eq!(ids, [Some(1), Some(2), Some(3)]);
    // Detections that somebody took away are not written again, and no new ones are lost.
    fs::remove_file(dir.path("out.jsonl")).expect("removes");
    dir.image("in/c.png", (40, 40), &[]);
    assert_eq!(names(&once(1, "2 done before")), ["c.png"]);
}

#[test]
fn done_files_move_or_go() {
    let dir = Dir::new();
    let config = |finished: &str| {
        let text = format!("[[source]]\nfolder = \"in\"\nfinished = \"{finished}\"\n");
        dir.write("config.toml", text);
    };
    let run = |count: usize| {
        let daemon = Daemon::start(&dir, &["--once", "--config", "config.toml"]);
        daemon.wait(count);
        assert_eq!(daemon.end().0, Some(0));
        fs::read_dir(dir.path("in")).expect("lists").count()
    };
    dir.image("in/a.png", (10, 10), &[]);
    config("move");
    assert_eq!(run(1), 0);
    assert!(dir.path("done/a.png").exists());
    // The same once more is not processed, and goes the same way.
    fs::copy(dir.path("done/a.png"), dir.path("in/a.png")).expect("copies");
    assert_eq!(run(1), 0);
    assert_eq!(fs::read_dir(dir.path("done")).expect("lists").count(), 1);
    dir.image("in/b.png", (10, 10), &[]);
    config("delete\"\nfailed-folder = \"failed");
    dir.write("in/c.png", "no image at all");
    let daemon = Daemon::start(&dir, &["--once", "--config", "config.toml"]);
    assert_eq!(daemon.wait(2).len(), 2);
    assert_eq!(daemon.end().0, Some(65));
    assert_eq!(fs::read_dir(dir.path("in")).expect("lists").count(), 0);
    let reason = fs::read_to_string(dir.path("failed/c.png.reason.txt")).expect("a note");
    assert!(reason.contains("is not a JPEG, PNG"), "{reason}");
    assert!(dir.path("failed/c.png").exists());
    config("shred");
    let outcome = dir.run(&["run", "--config", "config.toml"]);
    assert_eq!(outcome.code, Some(78));
    assert!(outcome.stderr.contains("`shred`"), "{}", outcome.stderr);
}

#[test]
fn once_ends_by_itself_and_tells_of_broken_files() {
    let dir = Dir::new();
    dir.image("in/north/a.png", (10, 10), &[]);
    let config = "[[source]]\nfolder = \"in\"\nrecursive = true\nsettle-seconds = 0.1\n";
    dir.write("config.toml", config);
    let daemon = Daemon::start(&dir, &["--once", "--config", "config.toml"]);
    assert_eq!(names(&daemon.wait(1)), ["north/a.png"]);
    assert_eq!(daemon.end().0, Some(0));
    dir.write("in/b.png", "broken");
    assert_eq!(Daemon::start(&dir, &["--once"]).end().0, Some(65));
}

/// The protocol of sd_notify(3): datagrams to the socket that the environment names.
#[test]
#[cfg(target_os = "linux")]
fn systemd_hears_that_it_is_ready_alive_and_stopping() {
    use std::os::unix::net::UnixDatagram;

    let dir = Dir::new();
    dir.image("in/a.png", (40, 40), &[[10, 10, 9, 3]]);
    let socket = UnixDatagram::bind(dir.path("notify")).expect("binds");
    socket.set_read_timeout(Some(PATIENCE)).expect("sets");
    let mut command = Daemon::command(&dir, &[]);
    command
        .env("NOTIFY_SOCKET", dir.path("notify"))
        .env("WATCHDOG_USEC", "400000");
    let daemon = Daemon::of(&dir, &mut command);
    let hear = || {
        let mut bytes = [0; 512];
        let length = socket.recv(&mut bytes).expect("says something");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    assert_eq!(hear().trim(), "READY=1");
    // It goes on while nothing comes.
    let start = Instant::now();
    let mut heard = Vec::new();
    while start.elapsed() < Duration::from_secs(2) {
        heard.push(hear());
    }
    assert!(
        heard.iter().all(|said| said.contains("WATCHDOG=1")),
        "{heard:?}"
    );
    assert!(heard.len() >= 5, "{heard:?}");
    let last = heard.last().expect("some");
    assert!(last.contains("STATUS=1 frames with 1 ships"), "{last}");
    // Nor is a process that hangs said to live.
    daemon.signal("-STOP");
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("sets");
    let mut bytes = [0; 512];
    while socket.recv(&mut bytes).is_ok() {}
    daemon.signal("-CONT");
    socket.set_read_timeout(Some(PATIENCE)).expect("sets");
    assert!(hear().contains("WATCHDOG=1"));
    daemon.signal("-TERM");
    while !hear().contains("STOPPING=1") {}
    assert_eq!(daemon.end().0, Some(0));
}

#[test]
fn each_source_has_regions_and_optics_of_its_own() {
    let dir = Dir::new();
    for file in ["port/a.png", "starboard/b.png"] {
        dir.image(file, (80, 40), &[[10, 10, 4, 4], [60, 10, 6, 6]]);
    }
    let config = r#"
        [[source]]
        name = "port"
        folder = "port"
        look = [[[0, 0], [0.5, 0], [0.5, 1], [0, 1]]]
        altitude = 30
        field-of-view = 90
        [[source]]
        name = "starboard"
        folder = "starboard"
        ignore = [[[0, 0], [0.5, 0], [0.5, 1], [0, 1]]]
        [output]
        detections = "out.jsonl"
        overlay = "seen"
    "#;
    dir.write("config.toml", config);
    let models = bright_models();
    let args = [
        "run",
        "--models",
        &models,
        "--once",
        "--config",
        "config.toml",
    ];
    let outcome = dir.run(&args);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let text = fs::read_to_string(dir.path("out.jsonl")).expect("lines");
    let mut records: Vec<FrameRecord> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a record"))
        .collect();
    records.sort_by(|a, b| a.frame.cmp(&b.frame));
    let [a, b] = &records[..] else {
        panic!("{text}")
    };
    // 60 m of ground on 80 pixels.
    assert!((a.tags.gsd.expect("a resolution") - 0.75).abs() < 1e-12);
    assert_eq!(b.tags.gsd, None);
    assert_eq!((a.ships.len(), a.ships[0].bbox), (1, [10, 10, 4, 4]));
    assert_eq!((b.ships.len(), b.ships[0].bbox), (1, [60, 10, 6, 6]));
    // The borders of each are drawn in a colour of their own.
    let border = |file: &str| {
        let overlay = image::open(overlay_of(&dir, file)).expect("an overlay");
        overlay.into_rgb8().get_pixel(20, 0).0
    };
    let borders = ["seen/a.png", "seen/b.png"].map(border);
    assert!(
        borders[0] != borders[1] && !borders.contains(&[0; 3]),
        "{borders:?}"
    );
}

/// A camera that is not there is tried again and again, and keeps nobody from working.
#[test]
#[cfg(feature = "camera")]
fn a_missing_camera_does_not_end_the_process() {
    let dir = Dir::new();
    dir.image("in/a.png", (40, 40), &[[10, 10, 9, 3]]);
    let config = "[[source]]\nname = \"deck\"\ncamera = \"none/video0\"\nrate = 2\n\
                  [[source]]\nname = \"shore\"\nfolder = \"in\"\n[output]\ndetections = \"out.jsonl\"\n";
    dir.write("config.toml", config);
    let models = bright_models();
    let args = ["run", "--models", &models, "--config", "config.toml"];
    let daemon = Daemon::of(&dir, &mut dir.shipwatch(&args));
    assert_eq!(names(&daemon.wait(1)), ["a.png"]);
    daemon.signal("-TERM");
    let (code, said) = daemon.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("deck: ") && said.contains("none/video0: no camera answers"),
        "{said}"
    );

    let outcome = dir.run(&[&args[..], &["--once"]].concat());
    assert_eq!(outcome.code, Some(78));
    assert!(
        outcome.stderr.contains("--once has no end"),
        "{}",
        outcome.stderr
    );
    let both = config.replace("camera =", "folder = \"x\"\ncamera =");
    dir.write("config.toml", both);
    let outcome = dir.run(&args);
    assert_eq!(outcome.code, Some(78));
    assert!(
        outcome.stderr.contains("source `deck`: camera"),
        "{}",
        outcome.stderr
    );
    dir.write("config.toml", config);
    let outcome = dir.run(&["check", "--config", "config.toml"]);
    assert_eq!(outcome.code, Some(78));
    assert!(
        outcome
            .stdout
            .contains("FAIL  source      camera of source `deck`"),
        "{}",
        outcome.stdout
    );
}

#[test]
fn a_missing_folder_is_named_and_created_on_request() {
    let dir = Dir::new();
    let outcome = dir.run(&["run"]);
    assert_eq!(outcome.code, Some(66));
    assert!(
        outcome.stderr.contains("mkdir -p incoming"),
        "{}",
        outcome.stderr
    );
    let daemon = Daemon::start(&dir, &["--create", "--once"]);
    assert_eq!(daemon.end().0, Some(0));
    assert!(dir.path("in").is_dir());
}

#[test]
fn an_unknown_key_is_named_with_its_file_and_ends_with_78() {
    let dir = Dir::new();
    dir.write("config.toml", "[[source]]\nfoldr = \"in\"\n");
    for command in ["run", "check"] {
        let outcome = dir.run(&[command, "--config", "config.toml"]);
        assert_eq!(outcome.code, Some(78), "{command}");
        let said = outcome.stdout + &outcome.stderr;
        for part in ["config.toml", "foldr", "line 2", "folder"] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
}

#[test]
fn values_that_make_no_sense_end_with_78() {
    let dir = Dir::new();
    dir.write(
        "config.toml",
        "[[source]]\nscale = 0\n[detect]\ngate = 2.0\n",
    );
    for command in ["run", "check"] {
        let outcome = dir.run(&[command, "--config", "config.toml"]);
        assert_eq!(outcome.code, Some(78), "{command}");
        let said = outcome.stdout + &outcome.stderr;
        assert!(
            said.contains("detect.gate") && said.contains("source.scale"),
            "{said}"
        );
    }
}

#[test]
fn check_passes_on_the_models_that_are_built_in() {
    let outcome = Dir::new().run(&["check"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stdout);
    assert!(
        outcome.stdout.contains("ok    models"),
        "{}",
        outcome.stdout
    );
    assert!(
        outcome.stdout.contains("ok    self-test"),
        "{}",
        outcome.stdout
    );
}

#[test]
fn check_names_what_fails_and_what_to_do() {
    let dir = Dir::new();
    dir.write(
        "config.toml",
        "models = \"none\"\n[output]\ndetections = \"none/out.jsonl\"\n",
    );
    let outcome = dir.run(&["check", "--config", "config.toml"]);
    assert_eq!(outcome.code, Some(78));
    for line in ["FAIL  source", "FAIL  detections", "FAIL  models"] {
        assert!(
            outcome.stdout.contains(line),
            "{line} in {}",
            outcome.stdout
        );
    }
    assert!(outcome.stdout.contains("mkdir -p"), "{}", outcome.stdout);
    assert_eq!(
        fs::read_dir(dir.path(".")).expect("reads").count(),
        1,
        "check leaves nothing behind"
    );
}

#[test]
fn the_example_config_parses() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/config.toml");
    let outcome = Dir::new().run(&["check", "--config", file]);
    assert!(
        outcome.stdout.starts_with("ok    config"),
        "{}",
        outcome.stdout
    );
}

/// In a file system of its own, of a few hundred kilobytes, where the system lets one be mounted.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_waited_for() {
    const SCRIPT: &str = r#"
        mount -t tmpfs -o size=400k none disk || exit 99
        mkdir disk/in && cp a.png disk/in
        "$@" 2> said &
        daemon=$!
        # The ledger is there, and then nothing else fits.
        while ! [ -s disk/out.jsonl ]; do sleep 0.05; done
        dd if=/dev/zero of=disk/filler bs=1k 2> /dev/null
        # What takes no room.
        ln -s ../../b.png disk/in/b.png
        while ! grep -q 'full; waiting' said; do sleep 0.05; done
        kill -0 $daemon || exit 98
        wc -l < disk/out.jsonl
        rm disk/filler
        while [ "$(wc -l < disk/out.jsonl)" -lt 2 ]; do sleep 0.05; done
        kill $daemon && wait $daemon || exit 98
        cat disk/out.jsonl
    "#;
    let dir = Dir::new();
    dir.image("a.png", (40, 40), &[[10, 10, 9, 3]]);
    dir.image("b.png", (40, 40), &[[20, 10, 9, 3]]);
    fs::create_dir(dir.path("disk")).expect("creates");
    dir.write(
        "config.toml",
        "[[source]]\nfolder = \"disk/in\"\n[output]\ndetections = \"disk/out.jsonl\"\n\
         [retention]\nreserve-megabytes = 0\n",
    );
    let models = bright_models();
    let daemon = [
        env!("CARGO_BIN_EXE_shipwatch"),
        "run",
        "--models",
        &models,
        "--config",
        "config.toml",
    ];
    let outcome = Command::new("timeout")
        .args([
            "60",
            "unshare",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            SCRIPT,
            "sh",
        ])
        .args(daemon)
        .current_dir(dir.path("."))
        .env("RUNTIME_DIRECTORY", dir.path("runtime"))
        .env_remove("SHIPWATCH_LOG")
        .output();
    let Some(outcome) = outcome
        .ok()
        .filter(|o| !matches!(o.status.code(), Some(1 | 99 | 127)))
    else {
        println!("SKIPPED: no file system can be mounted here");
        return;
    };
    let said = fs::read_to_string(dir.path("said")).unwrap_or_default();
    let stderr = String::from_utf8_lossy(&outcome.stderr);
    assert!(outcome.status.success(), "{stderr}\n{said}");
    let stdout = String::from_utf8(outcome.stdout).expect("UTF-8");
    let (before, lines) = stdout.split_once('\n').expect("a count");
    assert_eq!(before.trim(), "1", "{stdout}");
    let records = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("a record"));
    let records: Vec<FrameRecord> = records.collect();
    assert_eq!(records.len(), 2);
    assert!(said.contains("detections can be written again"), "{said}");
}

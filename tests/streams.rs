//! Streams of `shipwatch run`, by processes that write them: standard input, a FIFO, a command. The networks are
//! those for which bright pixels are ships.

#![cfg(unix)]

#[path = "harness/daemon.rs"]
#[expect(dead_code, reason = "starts daemons on folders, too")]
mod daemon;
mod harness;
#[path = "streams/source.rs"]
mod source;

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use daemon::{Daemon, PATIENCE};
use harness::{Dir, bright_models};
use shipwatch::record::FrameRecord;

/// Where a daemon keeps its status.
const RUNTIME: [&str; 2] = ["--runtime-folder", "runtime"];

/// Waits until something holds.
fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        sleep(Duration::from_millis(20));
    }
}

/// A folder with a config, and what runs in it.
struct Field(Dir);

impl Field {
    /// `source` are the keys of the stream named `deck`.
    fn new(source: &str) -> Self {
        let dir = Dir::new();
        let config = format!(
            "[[source]]\nname = \"deck\"\n{source}\n[output]\ndetections = \"out.jsonl\"\n\
             [ledger]\ncommit-seconds = 0.05\n"
        );
        dir.write("config.toml", config);
        fs::create_dir(dir.path("runtime")).expect("creates");
        Self(dir)
    }

    fn command(&self, args: &[&str]) -> Command {
        let models = bright_models();
        let run = ["run", "--models", &models, "--config", "config.toml"];
        self.0.shipwatch(&[&run, args].concat())
    }

    fn start(&self, command: &mut Command) -> Daemon<'_> {
        Daemon::of(&self.0, command)
    }

    /// What [`RUNTIME`] says of the daemon.
    fn status(&self) -> String {
        let status = ["status", "--json"];
        self.0.run(&[status, RUNTIME].concat()).stdout
    }

    /// What was written, once the daemon has ended.
    fn records(&self) -> Vec<FrameRecord> {
        let text = fs::read_to_string(self.0.path("out.jsonl")).unwrap_or_default();
        let record = |line| serde_json::from_str(line).expect("a record");
        text.lines().map(record).collect()
    }

    /// A JPEG with so many ships.
    fn jpeg(&self, ships: u32) -> Vec<u8> {
        let boxes: Vec<_> = (0..ships).map(|nth| [10 + 24 * nth, 10, 10, 16]).collect();
        fs::read(self.0.image("frame.jpg", (128, 64), &boxes)).expect("reads")
    }

    /// JPEGs one after the other, the nth with so many ships.
    fn video(&self, ships: &[u32]) -> Vec<u8> {
        ships.iter().flat_map(|&count| self.jpeg(count)).collect()
    }

    fn make_fifo(&self) {
        let status = Command::new("mkfifo").arg(self.0.path("fifo")).status();
        assert!(status.expect("mkfifo starts").success());
    }

    /// Writes a stream into the FIFO as one writer, who has left when this returns.
    fn write_fifo(&self, bytes: &[u8]) {
        let mut writer = OpenOptions::new().write(true).open(self.0.path("fifo"));
        let writer = writer.as_mut().expect("opens");
        writer.write_all(bytes).expect("writes");
    }
}

/// Asks it to stop; what it said.
fn stop(daemon: Daemon) -> String {
    daemon.signal("-TERM");
    let (code, said) = daemon.end();
    assert_eq!(code, Some(0), "{said}");
    said
}

fn ships(records: &[FrameRecord]) -> Vec<usize> {
    records.iter().map(|record| record.ships.len()).collect()
}

/// No two records are of one frame.
fn assert_once(records: &[FrameRecord]) {
    let names: HashSet<_> = records.iter().map(|record| &record.frame).collect();
    let ids: HashSet<_> = records.iter().map(|record| record.id).collect();
    assert_eq!((names.len(), ids.len()), (records.len(), records.len()));
}

#[cfg(target_os = "linux")]
fn runs(id: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(id).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_recorded_video_is_read_to_its_end_and_nothing_is_lost() {
    let field = Field::new("stream = \"-\"\nfull = \"block\"\nqueue = 1");
    let counts: Vec<u32> = (0..60).map(|nth| nth % 5).collect();
    let video = field.0.write("video", field.video(&counts));
    let file = File::open(video).expect("opens");
    let (code, said) = field.start(field.command(&["--once"]).stdin(file)).end();
    assert_eq!(code, Some(0), "{said}");
    let records = field.records();
    let counts: Vec<usize> = counts.iter().map(|&count| count as usize).collect();
    assert_eq!(ships(&records), counts);
    assert_once(&records);
    assert!(records[7].frame.starts_with("deck-2") && records[7].frame.ends_with("Z-7"));
    assert!(records.iter().all(|record| record.tags.captured.is_some()));
    assert!(said.contains("deck: MJPEG of 128x64 pixels"), "{said}");
    assert!(
        said.contains("60 frames with 120 ships; 0 skipped, 0 done before, 0 dropped"),
        "{said}"
    );

    // The same video once more is another time.
    let file = File::open(field.0.path("video")).expect("opens");
    let daemon = field.start(field.command(&[]).stdin(file));
    let (code, said) = daemon.end();
    assert_eq!(
        code,
        Some(0),
        "the end of standard input is one of the daemon: {said}"
    );
    assert_eq!(field.records().len(), 120);
    assert_once(&field.records());
}

#[test]
fn y4m_comes_through_a_pipe_and_what_is_damaged_is_counted() {
    let field = Field::new("stream = \"-\"\nfull = \"block\"");
    let mut daemon = field.start(field.command(&["--once"]).stdin(Stdio::piped()));
    let mut pipe = daemon.child.stdin.take().expect("piped");
    // A white box on black, in 4:2:0 of limited range.
    let mut luma = vec![16; 128 * 64];
    for line in luma.chunks_exact_mut(128).skip(10).take(16) {
        line[10..20].fill(235);
    }
    let frame = [b"FRAME\n".to_vec(), luma, vec![128; 64 * 32 * 2]].concat();
    let mut write = |bytes: &[u8]| pipe.write_all(bytes).expect("writes");
    write(b"YUV4MPEG2 W128 H64 F25:1 Ip C420jpeg XCOLORRANGE=LIMITED\n");
    write(&frame[..9999]);
    write(&frame[9999..]);
    // The first is there while the writer goes on.
    let records = daemon.wait(1);
    assert_eq!(ships(&records), [1]);
    assert_eq!(records[0].ships[0].area, 160);
    write(b"what is this?\n");
    write(&frame);
    write(&frame[..500]);
    drop(pipe);
    let (code, said) = daemon.end();
    assert_eq!(code, Some(65), "{said}");
    assert_eq!(ships(&field.records()), [1, 1]);
    assert!(said.contains("2 frames with 2 ships; 2 skipped"), "{said}");
}

#[test]
fn a_fifo_has_one_writer_after_the_other() {
    let field = Field::new("stream = \"fifo\"\nfull = \"block\"");
    // Not there yet, as at boot.
    let daemon = field.start(&mut field.command(&RUNTIME));
    wait("a word of that", || field.status().contains("no such FIFO"));
    field.make_fifo();
    // Opening waits for the daemon to open it.
    field.write_fifo(&field.video(&[1, 2]));
    assert_eq!(ships(&daemon.wait(2)), [1, 2]);
    let video = field.video(&[3, 1]);
    field.write_fifo(&[&video[..], &video[..700]].concat());
    daemon.wait(4);
    field.write_fifo(&field.jpeg(4));
    let records = daemon.wait(5);
    assert_eq!(ships(&records), [1, 2, 3, 1, 4]);
    assert_once(&records);
    let said = stop(daemon);
    assert!(
        said.contains("fifo: no such FIFO; create it by `mkfifo"),
        "{said}"
    );
    assert!(said.contains("cut off by the end of the stream"), "{said}");
    assert!(said.contains("5 frames with 11 ships; 1 skipped"), "{said}");
}

#[test]
fn a_command_is_started_anew_when_it_dies() {
    // Nor does it read what the daemon is given, or hear of systemd's socket.
    let script = "cat video -; echo camera is on fire$NOTIFY_SOCKET >&2; exit 1";
    let field = Field::new(&format!(
        "command = [\"sh\", \"-c\", \"{script}\", \"--password=secret\"]\nfull = \"block\""
    ));
    field.0.write("video", field.video(&[1, 2]));
    let mut command = field.command(&[]);
    let daemon = field.start(command.stdin(Stdio::piped()).env("NOTIFY_SOCKET", "/none"));
    let records = daemon.wait(6);
    assert_eq!(ships(&records[..6]), [1, 2, 1, 2, 1, 2]);
    assert_once(&records);
    let said = stop(daemon);
    let warned = "deck: sh ended, exit status: 1; it said: camera is on fire; tried again in 1 s";
    assert_eq!(said.matches(warned).count(), 1, "not each time: {said}");
    assert!(!said.contains("secret"), "{said}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_stop_ends_the_command_with_all_that_it_started() {
    let script = "echo $$ > parent; sleep 1000 & echo $! > child; cat video; wait";
    let field = Field::new(&format!("command = [\"sh\", \"-c\", \"{script}\"]"));
    field.0.write("video", field.jpeg(1));
    let daemon = field.start(&mut field.command(&[]));
    daemon.wait(1);
    let id = |name| {
        fs::read_to_string(field.0.path(name))
            .expect("reads")
            .trim()
            .to_owned()
    };
    let ids = ["parent", "child"].map(id);
    assert!(ids.iter().all(|id| runs(id)));
    stop(daemon);
    wait("their end", || !ids.iter().any(|id| runs(id)));
}

#[test]
fn a_pipe_without_an_end_keeps_nobody_from_stopping() {
    let field = Field::new("stream = \"-\"");
    let mut daemon = field.start(field.command(&[]).stdin(Stdio::piped()));
    let mut pipe = daemon.child.stdin.take().expect("piped");
    pipe.write_all(&field.video(&[2])).expect("writes");
    // Half of another, whose rest never comes.
    pipe.write_all(&field.jpeg(1)[..300]).expect("writes");
    daemon.wait(1);
    let said = stop(daemon);
    assert!(said.contains("1 frames with 2 ships; 0 skipped"), "{said}");
}

/// A config that is read again makes new sources, and the header of standard input came long before.
#[test]
fn standard_input_goes_on_where_it_was_left() {
    let field = Field::new("stream = \"-\"\nfull = \"block\"");
    let mut daemon = field.start(field.command(&RUNTIME).stdin(Stdio::piped()));
    let mut pipe = daemon.child.stdin.take().expect("piped");
    let frame = [b"FRAME\n".to_vec(), vec![235; 64 * 64]].concat();
    pipe.write_all(b"YUV4MPEG2 W64 H64 Cmono\n")
        .expect("writes");
    pipe.write_all(&frame).expect("writes");
    pipe.write_all(&frame[..1000]).expect("writes");
    daemon.wait(1);
    daemon.signal("-HUP");
    wait("the new config", || {
        field.status().replace(' ', "").contains("\"reloads\":1")
    });
    pipe.write_all(&frame[1000..]).expect("writes");
    pipe.write_all(&frame).expect("writes");
    drop(pipe);
    let (code, said) = daemon.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("3 frames with 3 ships; 0 skipped"), "{said}");
    assert_once(&field.records());
}

#[test]
fn configs_of_streams_that_make_no_sense_are_refused() {
    for (source, named) in [
        ("stream = \"-\"\ncommand = [\"true\"]", "source.stream"),
        ("stream = \"-\"\nfolder = \"in\"", "source.stream"),
        ("command = []", "source.command"),
        (
            "command = [\"true\"]\nsilent-seconds = 0",
            "source.silent-seconds",
        ),
        ("stream = \"-\"\nform = \"h264\"", "h264"),
        (
            "stream = \"-\"\n[[source]]\nname = \"two\"\nstream = \"-\"",
            "source `two`: stream",
        ),
    ] {
        let field = Field::new(source);
        for command in ["run", "check"] {
            let outcome = field.0.run(&[command, "--config", "config.toml"]);
            assert_eq!(outcome.code, Some(78), "{source}");
            let said = outcome.stdout + &outcome.stderr;
            assert!(said.contains(named), "{named} in {said}");
        }
    }
    let field = Field::new("command = [\"true\"]");
    let outcome = field.0.run(&["run", "--config", "config.toml", "--once"]);
    assert_eq!(outcome.code, Some(78));
    assert!(
        outcome.stderr.contains("--once has no end"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn check_names_what_is_missing_of_a_stream() {
    for (source, line) in [
        (
            "command = [\"rpicam-vidd\", \"-n\"]",
            "FAIL  source      stream of source `deck`: rpicam-vidd: no such program",
        ),
        ("stream = \"config.toml\"", "config.toml: is no FIFO"),
        (
            "stream = \"none\"",
            "none: no such FIFO; create it by `mkfifo",
        ),
        ("stream = \"-\"", "ok    source      standard input"),
        ("command = [\"sh\"]", "ok    source      sh"),
    ] {
        let outcome = Field::new(source)
            .0
            .run(&["check", "--config", "config.toml"]);
        assert!(
            outcome.stdout.contains(line),
            "{line} in {}",
            outcome.stdout
        );
    }
}

/// What real programs write, where there are any.
#[test]
fn ffmpeg_and_gstreamer_are_understood() {
    let ffmpeg = |form: &'static [&'static str]| {
        let common = [
            "ffmpeg",
            "-nostdin",
            "-loglevel",
            "error",
            "-f",
            "lavfi",
            "-i",
        ];
        let source = ["testsrc=size=320x240:rate=10:duration=1"];
        [&common[..], &source, form, &["-"]].concat()
    };
    let pipeline =
        "videotestsrc num-buffers=10 ! video/x-raw,width=320,height=240 ! jpegenc ! fdsink fd=1";
    let gstreamer = ["gst-launch-1.0", "-q"]
        .into_iter()
        .chain(pipeline.split(' '));
    for (command, form) in [
        (ffmpeg(&["-c:v", "mjpeg", "-f", "mjpeg"]), "MJPEG"),
        (
            ffmpeg(&["-pix_fmt", "yuv420p", "-f", "yuv4mpegpipe"]),
            "Y4M",
        ),
        (
            ffmpeg(&["-pix_fmt", "yuv444p", "-f", "yuv4mpegpipe"]),
            "Y4M",
        ),
        (gstreamer.collect(), "MJPEG"),
    ] {
        let there = Command::new(command[0]).arg("--version").output();
        if there.is_err() {
            println!("SKIPPED: there is no {}", command[0]);
            continue;
        }
        let words = command.iter().map(|word| format!("{word:?}"));
        let words: Vec<String> = words.collect();
        let field = Field::new(&format!(
            "command = [{}]\nfull = \"block\"",
            words.join(", ")
        ));
        let daemon = field.start(&mut field.command(&[]));
        assert_once(&daemon.wait(10));
        let said = stop(daemon);
        assert!(
            said.contains(&format!("deck: {form} of 320x240 pixels")),
            "{said}"
        );
        assert!(said.contains(" 0 skipped"), "{said}");
    }
}

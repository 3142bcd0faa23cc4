//! Streams as sources, by commands that really run. Here and not beside the code: while a process is started it holds
//! the locks of all others of its program's tests.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use shipwatch::frame::Frame;
use shipwatch::source::stream::{Form, Input, StreamOptions, StreamSource};
use shipwatch::source::{Next, Origin, Source};

use crate::{PATIENCE, wait};

const TURN: Duration = Duration::from_millis(100);

/// A grey image of that many pixels across.
fn jpeg(width: u32) -> Vec<u8> {
    let image = RgbImage::from_pixel(width, 8, image::Rgb([99; 3]));
    let mut bytes = Vec::new();
    let encoded = JpegEncoder::new(&mut bytes).encode_image(&image);
    encoded.expect("encodes");
    bytes
}

fn shell(script: &str, argument: &Path) -> StreamOptions {
    let argument = argument.to_str().expect("UTF-8");
    let command = ["sh", "-c", script, "sh", argument].map(str::to_owned);
    StreamOptions {
        keep_all: true,
        ..StreamOptions::new(Input::Command(command.to_vec()))
    }
}

fn source(options: StreamOptions) -> StreamSource {
    StreamSource::new("deck".into(), options)
}

/// What comes next that is anything.
fn next(source: &mut StreamSource) -> Next {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        match source.next(TURN).expect("no ledger is asked") {
            Next::Idle => {}
            next => return next,
        }
    }
    panic!("nothing comes: {:?}", source.trouble());
}

fn frame(source: &mut StreamSource) -> (Frame, Origin) {
    match next(source) {
        Next::Frame { frame, origin, .. } => (frame, origin),
        other => panic!("{other:?}"),
    }
}

fn wait_for_trouble(source: &mut StreamSource, part: &str) -> String {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let next = source.next(TURN).expect("no ledger is asked");
        assert!(matches!(next, Next::Idle), "{next:?}");
        if let Some(trouble) = source.trouble().filter(|it| it.contains(part)) {
            return trouble;
        }
    }
    panic!("{part} is not said: {:?}", source.trouble());
}

#[test]
fn a_command_that_dies_is_started_anew_and_its_frames_are_others() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("video");
    fs::write(&file, [jpeg(16), jpeg(24)].concat()).expect("writes");
    let mut source = source(shell("cat \"$1\"; echo no more >&2; exit 7", &file));
    assert_eq!(source.trouble(), None);
    let mut ends = Vec::new();
    for round in 1..=2 {
        for (nth, width) in [16, 24].into_iter().enumerate() {
            let (frame, origin) = frame(&mut source);
            assert_eq!(frame.pixels.dimensions(), (width, 8));
            assert!(frame.name.starts_with("deck-2") && frame.name.ends_with(&format!("Z-{nth}")));
            assert!(frame.tags.captured.is_some());
            assert_eq!((origin.key.source.as_str(), &origin.file), ("deck", &None));
            let end = format!("/{round}/{nth}");
            assert!(
                origin.key.name.to_string_lossy().ends_with(&end),
                "{origin:?}"
            );
            ends.push(origin.key);
        }
        let trouble = wait_for_trouble(&mut source, "exit status: 7");
        assert!(
            trouble.starts_with("sh ended, exit status: 7; it said: no more; since "),
            "{trouble}"
        );
        assert!(trouble.ends_with("tried again every 1 s"), "{trouble}");
    }
    ends.dedup();
    assert_eq!(ends.len(), 4);
}

#[test]
fn a_command_of_which_no_frame_comes_is_ended() {
    let script = "while :; do echo no video; sleep 0.05; done";
    let options = StreamOptions {
        silence: Duration::from_millis(400),
        ..shell(script, Path::new(""))
    };
    let mut source = source(options);
    let trouble = wait_for_trouble(&mut source, "no frame for");
    assert!(
        trouble.starts_with("no frame for 0.4 s; since "),
        "{trouble}"
    );
}

#[test]
fn a_stream_that_is_not_understood_says_why() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("video");
    fs::write(&file, "YUV4MPEG2 W2 H2 C420p10\nFRAME\n").expect("writes");
    let mut deep = source(shell("cat \"$1\"; sleep 1000", &file));
    let trouble = wait_for_trouble(&mut deep, "C420p10");
    assert!(trouble.contains("-pix_fmt yuv420p"), "{trouble}");
    let mut missing = source(StreamOptions::new(Input::Fifo(folder.path().join("none"))));
    wait_for_trouble(&mut missing, "mkfifo");
}

#[test]
fn damaged_frames_are_counted_and_those_behind_them_come() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("video");
    // Whole by its markers and cut off by its content, cut off by the next, too large, and good.
    let empty = b"\xFF\xD8\xFF\xD9".to_vec();
    let mut cut = jpeg(16);
    cut.truncate(cut.len() - 3);
    fs::write(&file, [empty, cut, jpeg(80), jpeg(32)].concat()).expect("writes");
    let mut options = shell("cat \"$1\"; sleep 1000", &file);
    options.form = Some(Form::Mjpeg);
    options.decode.max_pixels = 500;
    let mut source = source(options);
    let mut problem = || match next(&mut source) {
        Next::Broken { problem, origin } => {
            assert_eq!(origin, None);
            problem
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(problem(), "deck: no JPEG");
    assert_eq!(problem(), "deck: a JPEG that is cut off by the next");
    let large = problem();
    assert!(
        large.contains("80x8 pixels") && large.contains("max-pixels"),
        "{large}"
    );
    assert_eq!(frame(&mut source).0.pixels.dimensions(), (32, 8));
}

#[test]
fn how_a_command_ended_and_its_last_words_are_told() {
    let script = "for n in 1 2 3 4; do echo line $n >&2; done; exit 3";
    let mut ended = source(shell(script, Path::new("")));
    wait_for_trouble(
        &mut ended,
        "sh ended, exit status: 3; it said: line 2 / line 3 / line 4; since ",
    );
    let mut killed = source(shell("kill -9 $$", Path::new("")));
    wait_for_trouble(&mut killed, "sh ended, signal: 9");
}

/// What is left where only one process of several ended, where the output is held open by another, and where one
/// does not want to end.
#[test]
#[cfg(target_os = "linux")]
fn no_process_outlives_its_source() {
    use crate::runs;

    let folder = tempfile::tempdir().expect("folder");
    let number = |name: &str, script: &str| {
        let file = folder.path().join(name);
        let mut source = source(shell(script, &file));
        let id = || fs::read_to_string(&file).unwrap_or_default();
        wait("a process", || {
            let next = source.next(TURN).expect("no ledger is asked");
            assert!(matches!(next, Next::Idle), "{next:?}");
            id().ends_with('\n')
        });
        (source, id().trim().to_owned())
    };
    let (family, child) = number("family", "sleep 1000 & echo $! > \"$1\"; wait");
    assert!(runs(&child));
    drop(family);
    wait("its end", || !runs(&child));

    let script = "trap '' TERM; echo $$ > \"$1\"; while :; do sleep 0.1; done";
    let (stubborn, itself) = number("stubborn", script);
    drop(stubborn);
    wait("its end", || !runs(&itself));

    let (mut orphan, child) = number("orphan", "sleep 1000 & echo $! > \"$1\"; exit 5");
    wait_for_trouble(&mut orphan, "sh ended, exit status: 5");
    wait("its end", || !runs(&child));
}

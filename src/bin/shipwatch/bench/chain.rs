//! The whole chain on frames, stage by stage.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use serde::Serialize;
use shipwatch::clock::MonotonicClock;
use shipwatch::detect::{Detector, Maps, Options, TileNetworks};
use shipwatch::inference::{Engine, InferenceError, Network};
use shipwatch::model::Bundle;
use shipwatch::sink::{Form, JsonLines};
use shipwatch::source::decode::{DecodeOptions, decode_bytes};

use super::board::{Boards, board, mebibytes, peak_memory};
use super::figures::{Figures, milliseconds, slowdown, timed, warning};
use super::picture::picture;
use super::table::{self, row};
use super::warm_up;
use crate::detect::{load_models, use_threads};
use crate::exit::{Exit, Failure, OrExit};

/// Pixels along a side of the frame: an image of the Airbus challenge.
const SIDE: u32 = 768;

/// How well the frame's JPEG file is kept, as cameras do it.
const QUALITY: u8 = 90;

/// What was measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    models: String,
    gate: Engine,
    unet: Engine,
    threads: usize,
    /// Width and height.
    frame: [u32; 2],
    tiles: usize,
    seconds: f64,
    stages: Stages<Figures>,
    full: Frames,
    empty: Frames,
    #[serde(skip_serializing_if = "Option::is_none")]
    slowdown: Option<f64>,
    load_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_memory_bytes: Option<u64>,
    board: Boards,
}

/// Whole frames, from a file's bytes to a line.
#[derive(Debug, Serialize)]
struct Frames {
    #[serde(flatten)]
    figures: Figures,
    per_second: f64,
}

/// What a frame goes through, of a full one.
#[derive(Debug, Serialize)]
struct Stages<T> {
    /// From a JPEG file's bytes to pixels.
    decode: T,
    /// Cutting tiles and the gate over all of them.
    gate: T,
    /// The U-Net over all of them, and merging.
    segment: T,
    /// Masks, run lengths and the record's line.
    encode: T,
}

/// Networks whose gate computes, and then lets a tile pass as the options alone have it.
struct Undecided {
    gate: Network,
    unet: Network,
}

impl TileNetworks for Undecided {
    fn gate(&self, tile: &RgbImage) -> Result<f32, InferenceError> {
        self.gate.run(tile.as_raw())?;
        Ok(0.5)
    }

    fn segment(&self, tile: &RgbImage) -> Result<Maps, InferenceError> {
        let output = self.unet.run(tile.as_raw())?;
        Ok(Maps::of_output(&output, tile.width(), tile.height()))
    }
}

/// A gate that lets nothing pass, and one that lets all pass.
const EMPTY: f32 = 1.0;
const FULL: f32 = 0.0;

/// Measures the models in `dir`, or those that are built in.
pub(super) fn measure(
    dir: Option<&Path>,
    threads: Option<NonZeroUsize>,
    length: Duration,
) -> Result<Report, Failure> {
    let start = Instant::now();
    let bundle = load_models(dir)?;
    let load_ms = milliseconds(start.elapsed());
    use_threads(threads)?;
    let (gate, unet) = (bundle.gate.engine(), bundle.unet.engine());
    let models = format!("{} {}", bundle.manifest.name, bundle.manifest.version);
    let bench = Bench::new(bundle)?;
    let tiles = bench.detector.plan(SIDE, SIDE).count();

    timed(warm_up(length), || bench.round().map(drop))?;
    let start = board();
    let mut rounds: Vec<[Lap; 2]> = Vec::new();
    let begun = Instant::now();
    let times = timed(length, || bench.round().map(|round| rounds.push(round)))?;
    let seconds = begun.elapsed().as_secs_f64();
    let end = board();

    let frames = |nth: usize| {
        let times: Vec<Duration> = rounds.iter().map(|round| round[nth].whole).collect();
        let all: Duration = times.iter().sum();
        Frames {
            figures: Figures::of(&times),
            per_second: times.len() as f64 / all.as_secs_f64(),
        }
    };
    let stage = |stage: fn(&Stages<Duration>) -> Duration| {
        let times: Vec<Duration> = rounds.iter().map(|[full, _]| stage(&full.stages)).collect();
        Figures::of(&times)
    };
    Ok(Report {
        models,
        gate,
        unet,
        threads: rayon::current_num_threads(),
        frame: [SIDE, SIDE],
        tiles,
        seconds,
        stages: Stages {
            decode: stage(|full| full.decode),
            gate: stage(|full| full.gate),
            segment: stage(|full| full.segment),
            encode: stage(|full| full.encode),
        },
        full: frames(0),
        empty: frames(1),
        slowdown: slowdown(&times),
        load_ms,
        peak_memory_bytes: peak_memory(),
        board: Boards { start, end },
    })
}

struct Bench {
    detector: Detector,
    clock: MonotonicClock,
    /// The frame as a JPEG file.
    file: Vec<u8>,
}

/// What a frame took.
struct Lap {
    stages: Stages<Duration>,
    whole: Duration,
}

impl Bench {
    fn new(bundle: Bundle) -> Result<Self, Failure> {
        let Bundle {
            manifest,
            gate,
            unet,
        } = bundle;
        let networks = Box::new(Undecided { gate, unet });
        let mut file = Vec::new();
        JpegEncoder::new_with_quality(&mut file, QUALITY)
            .encode_image(&picture(SIDE)?)
            .or_exit(Exit::Software)?;
        Ok(Self {
            detector: Detector::with_networks(manifest, networks),
            clock: MonotonicClock::new(),
            file,
        })
    }

    /// A full frame and an empty one, so that whatever slows the machine down hits both.
    fn round(&self) -> Result<[Lap; 2], Failure> {
        Ok([self.frame(FULL)?, self.frame(EMPTY)?])
    }

    fn frame(&self, gate: f32) -> Result<Lap, Failure> {
        let options = Options {
            gate: Some(gate),
            ..Options::default()
        };
        let start = Instant::now();
        let frame = decode_bytes("frame.jpg", &self.file, &DecodeOptions::default())
            .or_exit(Exit::Software)?;
        let decode = start.elapsed();
        let record = self
            .detector
            .detect(&frame, &options, &self.clock)
            .context("the models fail on the built-in frame")
            .or_exit(Exit::Config)?;
        let found = Instant::now();
        JsonLines.encode(&record, &mut Vec::new());
        let (line, whole) = (found.elapsed(), start.elapsed());
        let stage = |millis: f64| Duration::from_secs_f64(millis / 1e3);
        Ok(Lap {
            stages: Stages {
                decode,
                gate: stage(record.millis.gate),
                segment: stage(record.millis.segment),
                encode: stage(record.millis.extract) + line,
            },
            whole,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.models)?;
        writeln!(f, "gate: {}", self.gate)?;
        writeln!(f, "U-Net: {}", self.unet)?;
        let [width, height] = self.frame;
        let threads = match self.threads {
            1 => "one thread".to_owned(),
            many => format!("{many} threads"),
        };
        writeln!(
            f,
            "{threads}; frames of {width}x{height} pixels in {} tiles; {:.1} s after warm-up\n",
            self.tiles, self.seconds
        )?;
        let Stages {
            decode,
            gate,
            segment,
            encode,
        } = &self.stages;
        let (full, empty) = (&self.full, &self.empty);
        let rows = [
            Figures::head(),
            decode.row("decode", 2),
            gate.row("gate, all tiles", 2),
            segment.row("segment, all tiles", 2),
            encode.row("encode", 2),
            full.figures.row("full frame", 2),
            empty.figures.row("empty frame", 2),
        ];
        table::write(f, &rows)?;
        writeln!(f)?;
        let rate = |frames: &Frames| format!("{:.2}", frames.per_second);
        let rows = [
            row(["full frames per second", &rate(full)]),
            row(["empty frames per second", &rate(empty)]),
            row(["loading", &format!("{:.0} ms", self.load_ms)]),
            row(["peak memory", &mebibytes(self.peak_memory_bytes)]),
        ];
        table::write(f, &rows)?;
        writeln!(f, "\n{}", self.board)?;
        match warning(self.slowdown) {
            Some(warning) => writeln!(f, "{warning}"),
            None => Ok(()),
        }
    }
}

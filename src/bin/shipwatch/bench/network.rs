//! One network alone.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use serde::Serialize;
use shipwatch::inference::{self, Engine, InferenceError, Network};
use shipwatch::model::Normalisation;

use super::board::{Boards, board, cpu_time, mebibytes, peak_memory};
use super::figures::{Figures, milliseconds, slowdown, timed, warning};
use super::layers::{self, Layer};
use super::picture::picture;
use super::table::{self, row};
use super::warm_up;
use crate::detect::use_threads;
use crate::exit::{Exit, Failure, OrExit};

/// How bytes become inputs of a network that does not say.
const USUAL: Normalisation = Normalisation {
    mean: 127.5,
    std: 127.5,
};

/// What is measured of a network.
pub(super) struct Plan {
    /// Threads that share each layer's rows.
    pub(super) threads: NonZeroUsize,
    pub(super) length: Duration,
    /// Whether each layer is measured, too, for as long again.
    pub(super) layers: bool,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    model: String,
    side: usize,
    #[serde(flatten)]
    engine: Engine,
    threads: usize,
    seconds: f64,
    #[serde(flatten)]
    picture: Figures,
    /// Processor time per picture, of all threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_ms: Option<f64>,
    pictures_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    slowdown: Option<f64>,
    load_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_memory_bytes: Option<u64>,
    board: Boards,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<Vec<Layer>>,
}

/// Measures the network in `file`.
pub(super) fn measure(file: &Path, plan: &Plan) -> Result<Report, Failure> {
    let start = Instant::now();
    let network = load(file)?;
    let load_ms = milliseconds(start.elapsed());
    let image = picture(network.side() as u32)?.into_raw();
    let fails = |error: InferenceError| {
        Failure::new(
            Exit::Config,
            anyhow!(error).context(file.display().to_string()),
        )
    };
    if plan.layers && network.layers().is_empty() {
        let error = anyhow!(
            "{}: tract runs all of it, so the engine has no layers to measure; name a quantized network, or \
             leave --layers out",
            file.display()
        );
        return Err(Failure::new(Exit::Config, error));
    }

    use_threads(Some(plan.threads))?;
    let measured = run(&network, &image, plan.length).map_err(fails)?;
    let layers = match plan.layers {
        true => Some(layers::measure(&network, &image, plan.length).map_err(fails)?),
        false => None,
    };

    let times = measured.times;
    Ok(Report {
        model: file.display().to_string(),
        side: network.side(),
        engine: network.engine(),
        threads: plan.threads.get(),
        seconds: measured.wall.as_secs_f64(),
        picture: Figures::of(&times),
        cpu_ms: (measured.cpu).map(|cpu| milliseconds(cpu) / times.len() as f64),
        pictures_per_second: times.len() as f64 / measured.wall.as_secs_f64(),
        slowdown: slowdown(&times),
        load_ms,
        peak_memory_bytes: measured.peak_memory,
        board: measured.board,
        layers,
    })
}

/// A network whose file says how its input is made of bytes, or is silent and has the usual one.
fn load(file: &Path) -> Result<Network, Failure> {
    let bytes = fs::read(file)
        .with_context(|| format!("cannot read the model {}", file.display()))
        .map_err(|error| {
            let missing = |cause: &io::Error| cause.kind() == io::ErrorKind::NotFound;
            let exit = match error.downcast_ref().is_some_and(missing) {
                true => Exit::NoInput,
                false => Exit::Io,
            };
            Failure::new(exit, error)
        })?;
    let network = inference::metadata(&bytes).and_then(|notes: BTreeMap<String, String>| {
        let note = notes.get(Normalisation::KEY);
        let said = note.and_then(|note| Normalisation::from_note(note));
        Network::from_onnx(&bytes, &said.unwrap_or(USUAL).values())
    });
    network
        .with_context(|| file.display().to_string())
        .or_exit(Exit::Config)
}

struct Measured {
    times: Vec<Duration>,
    wall: Duration,
    cpu: Option<Duration>,
    peak_memory: Option<u64>,
    board: Boards,
}

/// Runs the network from a thread of the pool, first to warm up.
fn run(network: &Network, image: &[u8], length: Duration) -> Result<Measured, InferenceError> {
    let run = |length| rayon::scope(|_| timed(length, || network.run(image).map(drop)));
    run(warm_up(length))?;
    // Before times pile up.
    let peak_memory = peak_memory();
    let start = board();
    let (begun, cpu) = (Instant::now(), cpu_time());
    let times = run(length)?;
    let wall = begun.elapsed();
    let cpu = cpu_time().zip(cpu).map(|(after, before)| after - before);
    let end = board();
    Ok(Measured {
        times,
        wall,
        cpu,
        peak_memory,
        board: Boards { start, end },
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.model, self.engine)?;
        let threads = match self.threads {
            1 => "one thread".to_owned(),
            many => format!("{many} threads, which share the rows of the int8 engine's layers"),
        };
        writeln!(
            f,
            "{threads}; pictures of {side}x{side} pixels; {:.1} s after warm-up\n",
            self.seconds,
            side = self.side
        )?;
        let (mut head, mut picture) = (Figures::head(), self.picture.row("a picture", 3));
        if let Some(cpu) = self.cpu_ms {
            head.push("CPU".to_owned());
            picture.push(format!("{cpu:.3}"));
        }
        table::write(f, &[head, picture])?;
        writeln!(f)?;
        let rate = format!("{:.1}", self.pictures_per_second);
        let rows = [
            row(["pictures per second", &rate]),
            row(["loading", &format!("{:.0} ms", self.load_ms)]),
            row(["peak memory", &mebibytes(self.peak_memory_bytes)]),
        ];
        table::write(f, &rows)?;
        writeln!(f, "\n{}", self.board)?;
        if let Some(warning) = warning(self.slowdown) {
            writeln!(f, "{warning}")?;
        }
        match &self.layers {
            Some(layers) => {
                writeln!(f)?;
                layers::write(f, layers)
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// sigmoid(20 * mean of the channels' values), pixel by pixel; says nothing of its input.
    const UNET: &[u8] = include_bytes!("../../../../tests/fixtures/bright/unet.onnx");

    /// Messages of Protocol Buffers that lie one behind the other are one, with the lists of both: the
    /// model with an entry in `metadata_props`, its field 14.
    fn with_note(model: &[u8], key: &str, value: &str) -> Vec<u8> {
        let text = |field: u8, text: &str| {
            let head = [field << 3 | 2, text.len() as u8];
            [&head[..], text.as_bytes()].concat()
        };
        let entry = [text(1, key), text(2, value)].concat();
        [model, &[14 << 3 | 2, entry.len() as u8], &entry].concat()
    }

    #[test]
    fn the_input_is_as_the_file_says_or_as_usual() {
        let folder = tempfile::tempdir().expect("a folder");
        let says = |model: &[u8], byte: u8| {
            let path = folder.path().join("unet.onnx");
            fs::write(&path, model).expect("writes");
            let network = load(&path).expect("loads");
            let image = vec![byte; 3 * network.side() * network.side()];
            network.run(&image).expect("runs")[0]
        };
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        let close = |a: f32, b: f32| assert!((a - b).abs() < 1e-3, "{a} is not {b}");
        close(says(UNET, 140), sigmoid(20.0 * 12.5 / 127.5));
        let noted = with_note(UNET, "input", "RGB, NCHW, (byte - 100) / 400");
        close(says(&noted, 140), sigmoid(20.0 * 40.0 / 400.0));
        close(says(&noted, 100), 0.5);
    }
}

//! One network alone.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use serde::Serialize;
use shipwatch::engine::Summary;
use shipwatch::inference::{self, Engine, InferenceError, Network};
use shipwatch::model::Normalisation;

use super::board::{Board, Boards, cpu_time, mebibytes, peak_memory};
use super::figures::{Figures, milliseconds, slowdown, timed, warning};
use super::picture::picture;
use super::table::{self, row};
use super::warm_up;
use crate::exit::{Exit, Failure, OrExit};

/// How bytes become inputs of a network that does not say.
const USUAL: Normalisation = Normalisation {
    mean: 127.5,
    std: 127.5,
};

/// What is measured of a network.
pub(super) struct Plan {
    /// Threads that run it at the same time, each on a picture of its own.
    pub(super) threads: usize,
    pub(super) length: Duration,
    /// Whether each layer is measured, too, for as long again.
    pub(super) layers: bool,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    model: String,
    side: usize,
    kernel: Option<&'static str>,
    /// What the engine runs of all operators.
    operators: usize,
    of: usize,
    threads: usize,
    seconds: f64,
    /// Of a picture in a thread.
    #[serde(flatten)]
    picture: Figures,
    /// Processor time per picture, of all threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_ms: Option<f64>,
    /// Of all threads.
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

/// A layer of the engine's and the least time that it took.
#[derive(Debug, Serialize)]
struct Layer {
    name: &'static str,
    /// Height, width and channels.
    input: [usize; 3],
    output: [usize; 3],
    min_us: f64,
    multiply_accumulates: usize,
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

    // What fails, fails here, before threads wait for one another.
    network.run(&image).map_err(fails)?;
    let measured = run_threads(&network, &image, plan).map_err(fails)?;
    let layers = match plan.layers {
        true => Some(time_layers(&network, &image, plan.length).map_err(fails)?),
        false => None,
    };

    let times = measured.times.concat();
    let slowest = measured.times.iter().filter_map(|times| slowdown(times));
    let Engine {
        operators,
        of,
        kernel,
        ..
    } = network.engine();
    Ok(Report {
        model: file.display().to_string(),
        side: network.side(),
        kernel,
        operators,
        of,
        threads: plan.threads,
        seconds: measured.wall.as_secs_f64(),
        picture: Figures::of(&times),
        cpu_ms: (measured.cpu).map(|cpu| milliseconds(cpu) / times.len() as f64),
        pictures_per_second: times.len() as f64 / measured.wall.as_secs_f64(),
        slowdown: slowest.max_by(f64::total_cmp),
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
    /// Of each thread, in order.
    times: Vec<Vec<Duration>>,
    wall: Duration,
    cpu: Option<Duration>,
    peak_memory: Option<u64>,
    board: Boards,
}

/// Warms threads up and lets them run the network at the same time.
fn run_threads(network: &Network, image: &[u8], plan: &Plan) -> Result<Measured, InferenceError> {
    let barrier = Barrier::new(plan.threads + 1);
    let run = || {
        let image = image.to_vec();
        let work = || network.run(&image).map(drop);
        let warm = timed(warm_up(plan.length), work);
        // All are warm, and the board is read; then all begin.
        barrier.wait();
        barrier.wait();
        warm.and_then(|_| timed(plan.length, work))
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.threads).map(|_| scope.spawn(run)).collect();
        barrier.wait();
        let start = Board::now();
        // Before times pile up.
        let peak_memory = peak_memory();
        let (begun, cpu) = (Instant::now(), cpu_time());
        barrier.wait();
        let times = threads.into_iter().map(|thread| match thread.join() {
            Ok(times) => times,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        let times = times.collect::<Result<_, _>>()?;
        let wall = begun.elapsed();
        let cpu = cpu_time().zip(cpu).map(|(after, before)| after - before);
        let end = Board::now();
        Ok(Measured {
            times,
            wall,
            cpu,
            peak_memory,
            board: Boards { start, end },
        })
    })
}

/// The least time of each layer of the engine's.
fn time_layers(
    network: &Network,
    image: &[u8],
    length: Duration,
) -> Result<Vec<Layer>, InferenceError> {
    let layers = network.layers();
    let mut least = vec![Duration::MAX; layers.len()];
    timed(length, || {
        let mut before = Instant::now();
        network.watch_layers(image, |nth| {
            let after = Instant::now();
            least[nth] = least[nth].min(after - before);
            before = after;
        })
    })?;
    let layers = layers.into_iter().zip(least);
    let layers = layers.map(|(layer, least)| {
        let Summary {
            name,
            input,
            output,
            products,
        } = layer;
        Layer {
            name,
            input,
            output,
            min_us: 1e3 * milliseconds(least),
            multiply_accumulates: products,
        }
    });
    Ok(layers.collect())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let engine = Engine {
            operators: self.operators,
            of: self.of,
            kernel: self.kernel,
            quantized: false,
        };
        writeln!(f, "{}: {engine}", self.model)?;
        let threads = match self.threads {
            1 => "one thread".to_owned(),
            many => format!("{many} threads at the same time, each on pictures of its own"),
        };
        writeln!(
            f,
            "{threads}; pictures of {side}x{side} pixels; {:.1} s after warm-up\n",
            self.seconds,
            side = self.side
        )?;
        let ms = |ms: f64| format!("{ms:.3}");
        let mut head = row(["ms", "runs", "median", "p95", "p99", "least"]);
        let mut picture = vec![
            "a picture".to_owned(),
            self.picture.runs.to_string(),
            ms(self.picture.median_ms),
            ms(self.picture.p95_ms),
            ms(self.picture.p99_ms),
            ms(self.picture.min_ms),
        ];
        if let Some(cpu) = self.cpu_ms {
            head.push("CPU".to_owned());
            picture.push(ms(cpu));
        }
        table::write(f, &[head, picture])?;
        writeln!(f)?;
        let rate = format!("{:.1}", self.pictures_per_second);
        let mut rows = vec![
            row(["pictures per second", &rate]),
            row(["loading", &format!("{:.0} ms", self.load_ms)]),
            row(["peak memory", &mebibytes(self.peak_memory_bytes)]),
        ];
        rows.extend(self.board.rows());
        table::write(f, &rows)?;
        if let Some(warning) = warning(self.slowdown) {
            writeln!(f, "\n{warning}")?;
        }
        match &self.layers {
            Some(layers) => write_layers(f, layers),
            None => Ok(()),
        }
    }
}

/// The layers, and the sums of each kind.
fn write_layers(f: &mut fmt::Formatter<'_>, layers: &[Layer]) -> fmt::Result {
    let mut rows = vec![row([
        "layer",
        "in",
        "out",
        "us, least",
        "million MACs",
        "GMAC/s",
    ])];
    let mut kinds: BTreeMap<&str, (f64, usize)> = BTreeMap::new();
    let figures = |us: f64, products: usize| {
        let rate = match products {
            0 => "-".to_owned(),
            _ => format!("{:.1}", products as f64 / us / 1e3),
        };
        [
            format!("{us:.1}"),
            format!("{:.2}", products as f64 / 1e6),
            rate,
        ]
    };
    let shape = |shape: [usize; 3]| shape.map(|size| size.to_string()).join("x");
    for (nth, layer) in layers.iter().enumerate() {
        let products = layer.multiply_accumulates;
        let name = format!("{nth:>3} {}", layer.name);
        let shapes = [name, shape(layer.input), shape(layer.output)];
        rows.push([&shapes[..], &figures(layer.min_us, products)].concat());
        let kind = kinds.entry(layer.name).or_default();
        *kind = (kind.0 + layer.min_us, kind.1 + products);
    }
    let all = kinds.values().fold((0.0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    for (name, (us, products)) in kinds.into_iter().chain([("all", all)]) {
        let name = format!("    {name}");
        rows.push(
            [
                &[name, String::new(), String::new()],
                &figures(us, products)[..],
            ]
            .concat(),
        );
    }
    writeln!(f)?;
    table::write(f, &rows)
}

//! The learning-rate range test (Smith 2017, section 3.3): the loss while the rate rises.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::config::{Config, PhaseName};
use crate::data::{Draws, Loader, Pool, Sampler, Split, key};
use crate::device::{DeviceChoice, Job};
use crate::files::replace;
use crate::plot::Chart;
use crate::progress::Progress;
use crate::run::workers;
use crate::run_folder::RunFolder;
use crate::start::{Start, result_before};
use crate::stop::Stop;
use crate::task::Task;
use crate::trainer::{Engine, Learner};

/// First and last rate.
const RATES: (f64, f64) = (1e-6, 1.0);

/// Share of the sweep's steps over which the loss is averaged to smooth it.
const SMOOTHING: f64 = 0.1;

/// The sweep ends when the loss is this many times the first one.
const EXPLODED: f64 = 4.0;

/// A step of the sweep.
#[derive(Debug, Clone, Copy, Serialize)]
struct Point {
    learning_rate: f64,
    loss: f64,
    smoothed: f64,
}

/// Sweeps the learning rate of one phase.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What would be trained on what (TOML).
    #[arg(long)]
    config: PathBuf,
    /// The phase.
    #[arg(long, value_enum)]
    phase: PhaseName,
    /// Folder for the loss at each rate, as CSV and PNG.
    #[arg(long)]
    out: PathBuf,
    /// A run in which the phases before are over; without one the phase starts from where a run
    /// starts.
    #[arg(long)]
    run: Option<PathBuf>,
    /// Steps of the sweep, 2 or more.
    #[arg(long, default_value_t = 100)]
    steps: usize,
    /// Processor to train on.
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,
    /// Threads that prepare tiles; as the processor has cores to spare if not given.
    #[arg(long)]
    workers: Option<NonZeroUsize>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    ensure!(
        args.steps >= 2,
        "--steps {}: a sweep from one rate to another takes 2 steps or more",
        args.steps
    );
    args.device.run(args)
}

impl Job for Args {
    type Output = ();

    fn on<B: Engine>(self) -> Result<()> {
        let config = &Config::load(&self.config)?;
        let device = B::Device::default();
        let pool = Pool::open(&config.data, config.cache_mib)?;
        let sampler = Sampler::new(&pool, Split::Train, config.tile, Some(config.augment))?;
        let name = self.phase;
        let before = match &self.run {
            Some(run) => result_before(config, &RunFolder::open(run)?, name)?,
            None => None,
        };
        let before = before.as_ref().map(|(name, weights)| (*name, weights));
        B::seed(&device, key(&[config.seed, name as u64]));
        let sweep = Sweep {
            config,
            name,
            sampler: &sampler,
            workers: workers::<B>(self.workers),
            steps: self.steps,
        };
        let start = Start::<B>::open(config, &sampler, &device)?;
        if name.is_gate() {
            let gate = start.gate(before.map(|(_, weights)| weights))?;
            sweep.run(gate, &device, &self.out)
        } else {
            sweep.run(start.unet(before)?, &device, &self.out)
        }
    }
}

/// What to sweep on.
struct Sweep<'a> {
    config: &'a Config,
    name: PhaseName,
    sampler: &'a Sampler<'a>,
    /// Threads that make tiles.
    workers: usize,
    /// Most steps.
    steps: usize,
}

impl Sweep<'_> {
    /// Raises the rate over the first steps of the phase, which starts from `model`; writes
    /// `lr-range.csv` and `lr-range.png` to `out` and says which rate to take.
    ///
    /// # Errors
    /// If data fail or a file cannot be written.
    fn run<B: Engine, M: Task<B>>(&self, model: M, device: &B::Device, out: &Path) -> Result<()> {
        let name = self.name.name();
        let points = self.measure(model, device)?;
        save(&points, name, out)?;
        match suggest(&points) {
            Some(rate) => log::info!(
                "{name}: `learning-rate = {rate:.1e}` is suggested, a tenth of where the loss is lowest; see {}",
                out.display()
            ),
            None => log::warn!(
                "{name}: the loss fell at no rate: are {} steps too few?",
                self.steps
            ),
        }
        Ok(())
    }

    fn measure<B: Engine, M: Task<B>>(&self, model: M, device: &B::Device) -> Result<Vec<Point>> {
        let steps = self.steps;
        let draws = Draws::of(self.config, self.name);
        let mut learner = Learner::new(model, self.config, self.name);
        let progress = Progress::new("lr-range", steps, 0);
        let mut losses: Vec<f64> = Vec::new();
        // Nothing would be lost: Ctrl-C ends the process.
        let stop = Stop::new();
        std::thread::scope(|scope| -> Result<()> {
            let workers = self.workers;
            let mut loader = Loader::start(scope, self.sampler, &draws, 0..steps, workers, &stop);
            for step in 0..steps {
                let tiles = loader.next()?;
                let rate = rate(step, steps);
                let figures = learner.step(&tiles, rate, device);
                let figures = figures.into_data().convert::<f32>();
                let loss = f64::from(figures.iter::<f32>().next().unwrap_or(f32::NAN));
                let first = losses.first().copied().unwrap_or(loss);
                if loss.is_nan() || loss > EXPLODED * first {
                    log::info!("the loss explodes at a rate of {rate:.1e}");
                    break;
                }
                losses.push(loss);
                progress.count(step + 1, &format!("loss {loss:.4}"));
            }
            progress.finish();
            Ok(())
        })?;
        ensure!(
            !losses.is_empty(),
            "{}: the loss is no number before any step: look at the data by `train tiles`",
            self.name.name()
        );
        Ok(smooth(&losses, steps))
    }
}

/// The losses of a sweep that was to have `steps` steps, with means over their neighbours.
fn smooth(losses: &[f64], steps: usize) -> Vec<Point> {
    let reach = (steps as f64 * SMOOTHING / 2.0).round() as usize;
    let point = |(step, &loss): (usize, &f64)| {
        // As far on both sides, so that the mean lags behind on neither.
        let reach = reach.min(step).min(losses.len() - 1 - step);
        let near = &losses[step - reach..=step + reach];
        Point {
            learning_rate: rate(step, steps),
            loss,
            smoothed: near.iter().sum::<f64>() / near.len() as f64,
        }
    };
    losses.iter().enumerate().map(point).collect()
}

/// The rate of a step: from the first to the last, each a constant factor above the one before.
fn rate(step: usize, steps: usize) -> f64 {
    let progress = step as f64 / (steps.max(2) - 1) as f64;
    RATES.0 * (RATES.1 / RATES.0).powf(progress)
}

/// A tenth of the rate at which the smoothed loss is lowest; none where it never fell.
fn suggest(points: &[Point]) -> Option<f64> {
    let first = points.first()?;
    let lowest = points
        .iter()
        .min_by(|a, b| a.smoothed.total_cmp(&b.smoothed))?;
    (lowest.smoothed < first.smoothed).then_some(lowest.learning_rate / 10.0)
}

fn save(points: &[Point], name: &str, out: &Path) -> Result<()> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    for point in points {
        csv.serialize(point)?;
    }
    let csv = csv.into_inner().map_err(|error| error.into_error())?;
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let path = out.join("lr-range.csv");
    replace(&path, &csv).with_context(|| path.display().to_string())?;
    let line = |of: fn(&Point) -> f64| -> Vec<(f64, f64)> {
        let point = |p: &Point| (p.learning_rate.log10(), of(p));
        points.iter().map(point).collect()
    };
    Chart::new(name, "learning rate, as a power of ten", "loss")
        .line("loss", &line(|p| p.loss))
        .line("smoothed", &line(|p| p.smoothed))
        .save(&out.join("lr-range.png"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_of_no_steps_is_refused() {
        for steps in [0, 1] {
            let args = Args {
                config: "toy.toml".into(),
                phase: PhaseName::Unet,
                out: "lr".into(),
                run: None,
                steps,
                device: DeviceChoice::Cpu,
                workers: None,
            };
            let error = run(args).expect_err("no sweep").to_string();
            assert!(error.starts_with(&format!("--steps {steps}:")), "{error}");
        }
    }

    #[test]
    fn rates_rise_by_a_constant_factor() {
        let rates: Vec<f64> = (0..7).map(|step| rate(step, 7)).collect();
        for (rate, want) in rates.iter().zip([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]) {
            assert!((rate / want - 1.0).abs() < 1e-9, "{rates:?}");
        }
    }

    #[test]
    fn smooths_over_as_many_neighbours_on_both_sides() {
        let smoothed = |losses: &[f64]| -> Vec<f64> {
            // A tenth of 40 steps: two on each side.
            smooth(losses, 40).iter().map(|p| p.smoothed).collect()
        };
        let losses = [0.0, 3.0, 0.0, 3.0, 9.0];
        assert_eq!(smoothed(&losses), [0.0, 1.0, 3.0, 4.0, 9.0]);
    }

    #[test]
    fn suggests_a_tenth_of_the_best_rate() {
        let curve = |loss: fn(f64) -> f64| {
            let losses: Vec<f64> = (0..61).map(|step| loss(rate(step, 61).log10())).collect();
            suggest(&smooth(&losses, 61))
        };
        // Lowest at a rate of 10^-2.
        let suggested = curve(|x| (x + 2.0).powi(2)).expect("falls");
        assert!((suggested / 1e-3 - 1.0).abs() < 1e-9, "{suggested}");
        assert_eq!(curve(|x| x), None, "it only rises");
        assert_eq!(suggest(&[]), None);
    }
}

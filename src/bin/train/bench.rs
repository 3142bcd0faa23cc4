//! How fast this machine trains: forward, backward and optimiser step on made-up tiles.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use image::{GrayImage, RgbImage};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::config::{Losses, Optimiser};
use crate::data::Tile;
use crate::device::{DeviceChoice, Job};
use crate::nn::{AdamW, DecoderKind, Encoder, Gate, UNet, profile};
use crate::stop::Stop;
use crate::task::Task;
use crate::trainer::Engine;

/// Which network a step trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Network {
    Gate,
    Unet,
}

/// What is measured.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// The network.
    #[arg(long, value_enum, default_value = "unet")]
    net: Network,
    /// The encoder's width.
    #[arg(long, default_value_t = 0.35)]
    width: f64,
    /// The U-Net's decoder.
    #[arg(long, value_enum, default_value = "light")]
    decoder: DecoderKind,
    /// Side of a tile in pixels, a multiple of 32.
    #[arg(long, default_value_t = 224, value_parser = clap::value_parser!(u32).range(32..))]
    tile: u32,
    /// Tiles per step.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Steps measured, after one that is not.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Measures looking at tiles by running statistics instead of training on them.
    #[arg(long)]
    forward: bool,
    /// Prints the time of each part of a step too, and of each operator on the CPU.
    #[arg(long)]
    profile: bool,
    /// Processor to train on.
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceChoice,
}

/// Speed and memory of a workload.
pub(crate) struct Report {
    images: f64,
    wall: Duration,
    cpu: Duration,
    peak_rss_mib: f64,
    profile: Option<Vec<profile::Entry>>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    print!("{}", args.device.run(args)?);
    Ok(())
}

impl Job for Args {
    type Output = Report;

    /// # Errors
    /// If the kernel does not tell what this process used.
    fn on<B: Engine>(self) -> Result<Report> {
        let device = B::Device::default();
        B::seed(&device, 1);
        match self.net {
            Network::Gate => measure::<B, _>(Gate::new(self.width, &device), &self, &device),
            Network::Unet => {
                let encoder = Encoder::new(self.width, &device);
                measure::<B, _>(UNet::on(encoder, self.decoder, &device), &self, &device)
            }
        }
    }
}

fn measure<B: Engine, M: Task<B>>(model: M, workload: &Args, device: &B::Device) -> Result<Report> {
    let tiles = tiles(workload);
    let mut optimiser = AdamW::<B>::new(Optimiser::default());
    let inner = model.valid();
    let mut model = Some(model);
    let mut step = || {
        if workload.forward {
            let score = M::judge(&inner, &tiles, device, &Stop::new());
            score.expect("nobody asks to stop");
            return;
        }
        let trained = model.take().expect("a step leaves a model");
        let waits = workload.profile.then_some(device);
        let forward = || trained.loss(&tiles, 0, &Losses::default(), device);
        let loss = part::<B, _>("forward", waits, forward);
        let gradients = part::<B, _>("backward", waits, || loss.backward());
        let update = || optimiser.step(trained, gradients, 1e-4).0;
        model = Some(part::<B, _>("optimiser", waits, update));
        loss.into_data();
    };
    step();
    if workload.profile {
        profile::start();
    }
    let (start, cpu_before) = (Instant::now(), cpu_time()?);
    for _ in 0..workload.steps {
        profile::timed("step", &mut step);
    }
    Ok(Report {
        images: f64::from(workload.steps * workload.batch),
        wall: start.elapsed(),
        cpu: cpu_time()? - cpu_before,
        peak_rss_mib: peak_rss_mib()?,
        profile: workload.profile.then(profile::entries),
    })
}

/// Times a part of a step. A GPU still computes when a call returns: waited for, each part's time is
/// its own.
fn part<B: Engine, T>(
    name: &'static str,
    waits: Option<&B::Device>,
    work: impl FnOnce() -> T,
) -> T {
    profile::timed(name, || {
        let done = work();
        if let Some(device) = waits {
            B::sync(device).expect("the device computes");
        }
        done
    })
}

/// Noise, half of it with a ship.
fn tiles(workload: &Args) -> Vec<Tile> {
    let (side, mut rng) = (workload.tile, StdRng::seed_from_u64(1));
    let tile = |i: u32| Tile {
        pixels: RgbImage::from_fn(side, side, |_, _| image::Rgb(rng.random())),
        mask: GrayImage::from_fn(side, side, |x, y| {
            image::Luma([if i.is_multiple_of(2) && x.max(y) < side / 4 {
                255
            } else {
                0
            }])
        }),
        doubtful: false,
    };
    (0..workload.batch).map(tile).collect()
}

/// What all threads of this process used so far, in steps of 10 ms (proc_pid_stat(5); user space's
/// clock ticks 100 times a second on every architecture).
fn cpu_time() -> Result<Duration> {
    let path = "/proc/self/stat";
    let stat = fs::read_to_string(path).context(path)?;
    let ticks = stat.rsplit_once(')').and_then(|(_, fields)| {
        let mut fields = fields.split_whitespace().skip(11);
        let mut next = || fields.next()?.parse::<u64>().ok();
        Some(next()? + next()?)
    });
    Ok(Duration::from_millis(10 * ticks.context(path)?))
}

fn peak_rss_mib() -> Result<f64> {
    let path = "/proc/self/status";
    let status = fs::read_to_string(path).context(path)?;
    let kib = status.lines().find_map(|line| {
        let value = line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?;
        value.trim().parse::<f64>().ok()
    });
    Ok(kib.context(path)? / 1024.0)
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let per_image = |time: Duration| time.as_secs_f64() * 1e3 / self.images;
        writeln!(
            f,
            "{:.1} images/s; {:.2} ms wall and {:.2} ms CPU per image; peak {:.0} MiB",
            self.images / self.wall.as_secs_f64(),
            per_image(self.wall),
            per_image(self.cpu),
            self.peak_rss_mib
        )?;
        for entry in self.profile.iter().flatten() {
            writeln!(
                f,
                "{:<32} {:>6} calls {:9.3} ms wall per image",
                entry.name,
                entry.calls,
                per_image(entry.time)
            )?;
        }
        Ok(())
    }
}

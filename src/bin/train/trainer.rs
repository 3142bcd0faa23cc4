//! The training loop: frozen encoder first, then everything; the best weights by tune score win.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use burn::backend::Autodiff;
use burn::grad_clipping::GradientClippingConfig;
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::backend::Backend;

use crate::config::Stage;
use crate::data::{Loader, Pool, Sampler, Split, Tile};
use crate::nn::{FusedOps, Mode, Params, apply, collect};
use crate::progress::Progress;
use crate::run_folder::{Checkpoint, Metrics, RunFolder};
use crate::schedule::learning_rate;
use crate::task::Task;

/// Largest norm of one tensor's gradient.
const CLIP_NORM: f32 = 1.0;

/// AdamW's, for every tensor.
const WEIGHT_DECAY: f32 = 1e-4;

/// Everything a phase needs besides the network.
pub(crate) struct Trainer<'a, B: Backend> {
    pub(crate) pool: &'a Pool,
    /// Tiles by which weights are compared.
    pub(crate) tune: &'a [Tile],
    pub(crate) folder: &'a RunFolder,
    pub(crate) device: B::Device,
    pub(crate) tile: u32,
    pub(crate) seed: u64,
    pub(crate) workers: usize,
    /// Set when the user asks to stop.
    pub(crate) stop: &'a AtomicBool,
}

/// One stretch of steps.
struct Phase {
    name: &'static str,
    encoder: Mode,
    first: usize,
    steps: usize,
    peak: f64,
}

impl<B: FusedOps> Trainer<'_, B> {
    /// Trains through both phases, from the last checkpoint if there is one, and returns the best
    /// weights.
    ///
    /// # Errors
    /// If data or checkpoints fail, the loss is no number, or the user asks to stop.
    pub(crate) fn train<M: Task<B>>(&self, mut model: M, stage: &Stage) -> Result<Params> {
        let phases = [
            Phase {
                name: "head",
                encoder: Mode::Eval,
                first: 0,
                steps: stage.head_steps,
                peak: stage.learning_rate * 2.0,
            },
            Phase {
                name: "all",
                encoder: Mode::Train,
                first: stage.head_steps,
                steps: stage.steps,
                peak: stage.learning_rate,
            },
        ];
        let total = stage.total_steps();
        let mut at = match self.folder.checkpoint(M::NAME)? {
            Some((checkpoint, last)) => {
                model = apply(model, &last)?;
                log::info!(
                    "{}: going on from step {} of {total}",
                    M::NAME,
                    checkpoint.step
                );
                if checkpoint.step >= total {
                    return self.folder.best(M::NAME);
                }
                checkpoint
            }
            None => Checkpoint {
                step: 0,
                best: f64::NEG_INFINITY,
            },
        };

        let training = Sampler::new(self.pool, Split::Train, self.tile, true)?;
        let tune = self.tune;
        log::info!("{}: {training:?}, {} tune tiles", M::NAME, tune.len());
        let mut optimiser = AdamWConfig::new()
            .with_weight_decay(WEIGHT_DECAY)
            .with_grad_clipping(Some(GradientClippingConfig::Norm(CLIP_NORM)))
            .init::<Autodiff<B>, M>();
        let mut metrics = self.folder.metrics(M::NAME)?;
        let progress = Progress::new(M::NAME, total);

        std::thread::scope(|scope| -> Result<()> {
            let seed = self.seed.wrapping_add(at.step as u64 * 7919);
            let (batch, share) = (stage.batch, stage.ship_share);
            let mut loader = Loader::start(scope, &training, batch, share, seed, self.workers);
            let mut window = Window::new();
            for phase in &phases {
                for step in at.step.saturating_sub(phase.first)..phase.steps {
                    let rate = learning_rate(phase.peak, step, phase.steps);
                    let asked = Instant::now();
                    let tiles = loader.next()?;
                    window.waited += asked.elapsed();
                    let loss = model.loss(&tiles, phase.encoder, &self.device);
                    let gradients = GradientsParams::from_grads(loss.backward(), &model);
                    model = optimiser.step(rate, model, gradients);
                    let loss =
                        f64::from(loss.into_data().convert::<f32>().iter::<f32>().sum::<f32>());
                    ensure!(
                        loss.is_finite(),
                        "{}: the loss is {loss} at step {}: lower `learning-rate`",
                        M::NAME,
                        at.step
                    );
                    window.add(loss, tiles.len());
                    at.step += 1;
                    progress.step(at.step, window.loss(), window.rate());

                    let stop = self.stop.load(Ordering::Relaxed);
                    if at.step % stage.tune_every == 0 || at.step == total || stop {
                        let (images_per_s, data_wait) = (window.rate(), window.data_wait());
                        let inner = model.valid();
                        let params = collect(&inner);
                        ensure!(
                            is_finite(&params),
                            "{}: weights are no numbers after step {}: lower `learning-rate`",
                            M::NAME,
                            at.step
                        );
                        let score = M::score(&inner, tune, &self.device);
                        let row = Metrics {
                            phase: phase.name,
                            step: at.step,
                            learning_rate: rate,
                            loss: window.loss(),
                            score,
                            images_per_s,
                            data_wait,
                        };
                        metrics.write(&row)?;
                        progress.tuned(&row, M::SCORE);
                        if score > at.best {
                            at.best = score;
                            self.folder.save_best(M::NAME, &params)?;
                        }
                        self.folder.save_checkpoint(M::NAME, at, &params)?;
                        window = Window::new();
                    }
                    if stop {
                        bail!(
                            "stopped at step {}: run the same command again to go on",
                            at.step
                        );
                    }
                }
            }
            Ok(())
        })?;
        progress.finish();
        self.folder.best(M::NAME)
    }
}

/// Whether every weight is a number.
fn is_finite(params: &Params) -> bool {
    let mut tensors = params.0.values();
    tensors.all(|tensor| tensor.iter::<f32>().all(f32::is_finite))
}

/// Averages since the last look at the tune set.
struct Window {
    since: Instant,
    images: usize,
    losses: f64,
    steps: usize,
    waited: Duration,
}

impl Window {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            images: 0,
            losses: 0.0,
            steps: 0,
            waited: Duration::ZERO,
        }
    }

    fn add(&mut self, loss: f64, images: usize) {
        self.losses += loss;
        self.steps += 1;
        self.images += images;
    }

    fn loss(&self) -> f64 {
        self.losses / self.steps.max(1) as f64
    }

    /// Share of the time that steps waited for tiles.
    fn data_wait(&self) -> f64 {
        self.waited.as_secs_f64() / self.since.elapsed().as_secs_f64().max(1e-9)
    }

    /// Images per second.
    fn rate(&self) -> f64 {
        self.images as f64 / self.since.elapsed().as_secs_f64().max(1e-9)
    }
}

//! The training loop: one phase after another, each from the best averaged weights of the one
//! before.

mod learner;
mod state;
mod window;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use burn::tensor::backend::Backend;

pub(crate) use learner::{Engine, Learner};
pub(crate) use state::State;
pub(crate) use window::Window;

use crate::config::{Config, Phase, PhaseName};
use crate::curves::Metrics;
use crate::data::{Draws, Loader, Sampler, Tile};
use crate::miner;
use crate::nn::{Params, collect};
use crate::progress::Progress;
use crate::run_folder::{Checkpoint, MetricsFile, RunFolder};
use crate::schedule::learning_rate;
use crate::stop::{Stop, Stopped};
use crate::task::Task;

/// Everything a phase needs besides the network.
pub(crate) struct Trainer<'a, B: Backend> {
    pub(crate) config: &'a Config,
    pub(crate) folder: &'a RunFolder,
    /// Draws the tiles that are trained on.
    pub(crate) sampler: &'a Sampler<'a>,
    /// Tiles by which weights are compared; the same ones throughout a run.
    pub(crate) tune: &'a [Tile],
    pub(crate) device: B::Device,
    /// Threads that make tiles.
    pub(crate) workers: usize,
    /// Set when the user asks to stop.
    pub(crate) stop: &'a Stop,
}

/// A phase in progress.
struct Running<'a, B: Engine, M: Task<B>> {
    trainer: &'a Trainer<'a, B>,
    name: PhaseName,
    phase: Phase,
    learner: Learner<B, M>,
    state: State,
    window: Window<B>,
    metrics: MetricsFile,
    progress: Progress,
    saved: Instant,
}

impl<B: Engine> Trainer<'_, B> {
    /// Trains a phase to its end, from its last checkpoint if there is one, else from `model`.
    ///
    /// # Errors
    /// If data or checkpoints fail, or the loss is no number; [`Stopped`] if the user asks to stop: a
    /// checkpoint says where.
    pub(crate) fn train<M: Task<B>>(&self, name: PhaseName, model: M) -> Result<()> {
        let phase = *self.config.phases.get(name);
        let checkpoint = self.folder.checkpoint(name)?;
        let (state, learner) = match checkpoint {
            Some(checkpoint) => {
                let step = checkpoint.state.step;
                let learner = Learner::restore(model, self.config, name, &checkpoint, &self.device)
                    .with_context(|| format!("the checkpoint of {} does not fit", name.name()))?;
                log::info!(
                    "{}: going on from step {step} of {}",
                    name.name(),
                    phase.steps
                );
                (checkpoint.state, learner)
            }
            None => (self.first(name)?, Learner::new(model, self.config, name)),
        };
        // The row of a look that is still owed would be there twice.
        let looked = match state.owes_look(&phase) {
            true => state.step.checked_sub(1),
            false => Some(state.step),
        };
        let mut running = Running {
            trainer: self,
            name,
            phase,
            metrics: self.folder.metrics(name, looked)?,
            window: Window::default(),
            progress: Progress::new(name.name(), phase.steps, state.step),
            saved: Instant::now(),
            learner,
            state,
        };
        let ended = running.train();
        running.progress.finish();
        ended
    }

    /// Where a phase begins.
    fn first(&self, name: PhaseName) -> Result<State> {
        let before = name.before().map(|before| self.folder.state(before));
        Ok(State::after(before.transpose()?.flatten()))
    }
}

impl<B: Engine, M: Task<B>> Running<'_, B, M> {
    /// Trains to the phase's end. Where the user asks to stop, all steps so far are kept, but a look or a
    /// round of mining in progress is not.
    fn train(&mut self) -> Result<()> {
        let ended = self.go_on();
        let stopped = ended.as_ref().is_err_and(|error| error.is::<Stopped>());
        // Before the first look there is nothing to keep.
        if stopped && self.state.best.is_some() {
            self.save()?;
        }
        ended
    }

    fn go_on(&mut self) -> Result<()> {
        let mining = self.trainer.config.mining;
        if self.state.owes_look(&self.phase) {
            self.look()?;
        }
        while !self.state.done {
            let round = self.state.step / mining.every;
            if mining.share > 0.0 && round > self.state.mined.round {
                self.mine(round)?;
            }
            let draws = Draws {
                hard: self.state.mined.scenes.clone(),
                ..Draws::of(self.trainer.config, self.name)
            };
            let end = self.phase.steps.min((round + 1) * mining.every);
            self.train_until(end, &draws)?;
        }
        Ok(())
    }

    /// Trains up to step `end`, which has not been reached yet.
    fn train_until(&mut self, end: usize, draws: &Draws) -> Result<()> {
        let trainer = self.trainer;
        let often = Duration::from_secs_f64(trainer.config.checkpoint_minutes * 60.0);
        std::thread::scope(|scope| {
            let steps = self.state.step..end;
            let (workers, stop) = (trainer.workers, trainer.stop);
            let mut loader = Loader::start(scope, trainer.sampler, draws, steps, workers, stop);
            while self.state.step < end && !self.state.done {
                stop.check()?;
                self.step(&mut loader)?;
                if self.state.is_look_due(&self.phase) {
                    self.look()?;
                } else if self.saved.elapsed() > often {
                    self.save()?;
                }
            }
            Ok(())
        })
    }

    fn step(&mut self, loader: &mut Loader) -> Result<()> {
        let asked = Instant::now();
        let tiles = loader.next()?;
        let waited = asked.elapsed();
        let rate = learning_rate(self.phase.learning_rate, self.state.step, self.phase.steps);
        let figures = self.learner.step(&tiles, rate, &self.trainer.device);
        // The figures of the step before: reading this one's would make a GPU wait for the CPU.
        self.settle()?;
        self.window.pending = Some(figures);
        self.window.add(tiles.len(), waited, asked.elapsed());
        self.state.step += 1;
        self.progress
            .step(self.state.step, self.state.mean_loss(), &self.window);
        Ok(())
    }

    /// Takes the last step's loss and gradient norm into account.
    fn settle(&mut self) -> Result<()> {
        let Some(figures) = self.window.pending.take() else {
            return Ok(());
        };
        let figures = figures.into_data().convert::<f32>();
        let mut figures = figures.iter::<f32>().map(f64::from);
        let mut next = || figures.next().unwrap_or(f64::NAN);
        let (loss, norm) = (next(), next());
        ensure!(
            loss.is_finite() && norm.is_finite(),
            "{}: after step {} the loss is {loss} and the gradient's norm {norm}: lower `learning-rate`",
            self.name.name(),
            self.state.step
        );
        self.state.losses += loss;
        self.state.norms += norm;
        self.state.counted += 1;
        Ok(())
    }

    /// Judges the averaged weights by the tune tiles, and keeps them if they are the best so far.
    fn look(&mut self) -> Result<()> {
        self.settle()?;
        let name = self.name.name();
        let averaged = self.learner.averaged();
        let params = collect(&averaged);
        ensure!(
            is_finite(&params),
            "{name}: weights are no numbers after step {}: lower `learning-rate`",
            self.state.step
        );
        let trainer = self.trainer;
        let score = M::judge(&averaged, trainer.tune, &trainer.device, trainer.stop)?;
        let before = self.state.step.checked_sub(1);
        let row = Metrics {
            phase: name.to_owned(),
            step: self.state.step,
            learning_rate: before
                .map(|step| learning_rate(self.phase.learning_rate, step, self.phase.steps)),
            loss: self.state.mean_loss(),
            gradient_norm: self.state.mean_norm(),
            score: score.combined,
            auc: score.auc,
            rejected: score.rejected,
            dice_ships: score.dice_ships,
            dice_all: score.dice_all,
            images_per_s: self.window.rate(),
            data_wait: self.window.data_wait(),
        };
        self.metrics.write(&row)?;
        if self.state.best.is_none_or(|best| score.combined > best) {
            self.state.best = Some(score.combined);
            self.state.stale = 0;
            let folder = trainer.folder;
            folder.save_best(self.name, self.state.step, score.combined, &params)?;
        } else {
            self.state.stale += 1;
        }
        let patience = self.phase.patience;
        let impatient = patience > 0 && self.state.stale >= patience;
        self.state.done = impatient || self.state.step == self.phase.steps;
        self.state.start_window();
        self.window = Window::default();
        self.progress.tuned(&row, self.state.stale == 0);
        if let Err(error) = trainer.folder.draw_curves() {
            log::warn!("no curves: {error:#}");
        }
        if impatient {
            log::info!("{name}: {patience} looks at the tune tiles without gain: ending early");
        }
        self.save()
    }

    fn save(&mut self) -> Result<()> {
        self.settle()?;
        let checkpoint = Checkpoint {
            state: self.state.clone(),
            tensors: self.learner.save(),
        };
        self.trainer
            .folder
            .save_checkpoint(self.name, &checkpoint)?;
        self.saved = Instant::now();
        Ok(())
    }

    fn mine(&mut self, round: usize) -> Result<()> {
        let trainer = self.trainer;
        let averaged = self.learner.averaged();
        let seed = [trainer.config.seed, self.name as u64, round as u64];
        let fires = |tiles: &[Tile]| M::false_alarms(&averaged, tiles, &trainer.device);
        let mined = &mut self.state.mined;
        let report = miner::mine(
            mined,
            round,
            &seed,
            trainer.sampler,
            &trainer.config.mining,
            trainer.stop,
            fires,
        )?;
        log::info!("{}: {report}", self.name.name());
        Ok(())
    }
}

/// Whether every weight is a number.
fn is_finite(params: &Params) -> bool {
    let mut tensors = params.0.values();
    tensors.all(|tensor| tensor.iter::<f32>().all(f32::is_finite))
}

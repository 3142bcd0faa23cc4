//! What a person sees of a long run: a bar on a terminal, plain lines in a log.

use burn::tensor::backend::Backend;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::logging;
use crate::run_folder::Metrics;
use crate::trainer::Window;

/// A bar over `length` things to do.
pub(crate) fn count(name: &'static str, length: usize) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length as u64), ProgressDrawTarget::stderr());
    let style = "{prefix} [{bar:30}] {pos}/{len} {per_sec}, {eta} to go";
    bar.set_style(
        ProgressStyle::with_template(style)
            .expect("the template is well formed")
            .progress_chars("=> "),
    );
    bar.with_prefix(name)
}

/// Progress of one phase.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Of `steps` steps, `done` are done already.
    pub(crate) fn new(name: &'static str, steps: usize, done: usize) -> Self {
        let bar = ProgressBar::with_draw_target(Some(steps as u64), ProgressDrawTarget::stderr());
        let style = "{prefix} [{bar:30}] {pos}/{len}, {eta} left  {msg}";
        bar.set_style(
            ProgressStyle::with_template(style)
                .expect("the template is well formed")
                .progress_chars("=> "),
        );
        bar.set_prefix(name);
        bar.set_position(done as u64);
        bar.reset_eta();
        logging::step_aside(&bar);
        Self { bar }
    }

    pub(crate) fn count(&self, step: usize) {
        self.bar.set_position(step as u64);
    }

    pub(crate) fn step<B: Backend>(&self, step: usize, loss: Option<f64>, window: &Window<B>) {
        self.count(step);
        let loss = loss.map_or(String::new(), |loss| format!("loss {loss:.4}  "));
        self.bar
            .set_message(format!("{loss}{:.1} images/s", window.rate()));
    }

    /// Reports a look at the tune set.
    pub(crate) fn tuned(row: &Metrics, best: bool) {
        let known = |name: &str, value: Option<f64>| {
            value.map_or(String::new(), |value| format!("{name} {value:.4}, "))
        };
        log::info!(
            "{} step {}: {}score {:.4}{} ({}{}{}{}{:.1} images/s, {:.0} % waiting for data)",
            row.phase,
            row.step,
            known("loss", row.loss),
            row.score,
            if best { ", the best" } else { "" },
            known("AUC", row.auc),
            known("empty stopped", row.rejected),
            known("Dice of ships", row.dice_ships),
            known("of all", row.dice_all),
            row.images_per_s,
            row.data_wait * 100.0,
        );
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

//! What a person sees of a long run: a bar on a terminal, plain lines in a log.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::run_folder::Metrics;

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

/// Progress of one network's training.
pub(crate) struct Progress {
    name: &'static str,
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn new(name: &'static str, steps: usize) -> Self {
        let bar = ProgressBar::with_draw_target(Some(steps as u64), ProgressDrawTarget::stderr());
        let style = "{prefix} [{bar:30}] {pos}/{len} {elapsed} of {duration}  {msg}";
        bar.set_style(
            ProgressStyle::with_template(style)
                .expect("the template is well formed")
                .progress_chars("=> "),
        );
        bar.set_prefix(name);
        Self { name, bar }
    }

    pub(crate) fn step(&self, step: usize, loss: f64, images_per_s: f64) {
        self.bar.set_position(step as u64);
        self.bar
            .set_message(format!("loss {loss:.4}  {images_per_s:.1} images/s"));
    }

    /// Reports a look at the tune set.
    pub(crate) fn tuned(&self, row: &Metrics, score: &str) {
        self.bar.suspend(|| {
            log::info!(
                "{} {} step {}: loss {:.4}, tune {score} {:.4}, {:.1} images/s, {:.0} % waiting for data, rate {:.2e}",
                self.name,
                row.phase,
                row.step,
                row.loss,
                row.score,
                row.images_per_s,
                row.data_wait * 100.0,
                row.learning_rate
            );
        });
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

//! The folder that describes a run: its config, where and when it ran, metrics, and best and last
//! weights.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::config::{Config, PhaseName};
use crate::curves::{self, Row, Rows};
use crate::files::replace;
use crate::nn::Params;
use crate::trainer::State;

/// All looks at the tune set.
const METRICS: &str = "metrics.csv";

/// The note in a checkpoint's header that holds its [`State`] as TOML.
const STATE: &str = "state";

/// The note in the header of a phase's weights that holds its [`Best`] as TOML.
const BEST: &str = "best";

/// Which weights a phase's best ones are.
#[derive(Serialize)]
struct Best {
    step: usize,
    score: f64,
}

/// A run's folder.
pub(crate) struct RunFolder(PathBuf);

/// All that a phase needs to go on as if it had not been stopped.
pub(crate) struct Checkpoint {
    pub(crate) state: State,
    /// The network's weights, their average and the optimiser's moments; each by a prefix.
    pub(crate) tensors: Params,
}

/// A row of the metrics: one look at the tune set.
#[derive(Debug, Serialize)]
pub(crate) struct Metrics {
    pub(crate) phase: &'static str,
    /// Steps done in the phase.
    pub(crate) step: usize,
    /// Rate of the last step.
    pub(crate) learning_rate: Option<f64>,
    /// Mean since the row before.
    pub(crate) loss: Option<f64>,
    /// Mean since the row before, before clipping.
    pub(crate) gradient_norm: Option<f64>,
    /// What the best weights are chosen by.
    pub(crate) score: f64,
    pub(crate) auc: Option<f64>,
    /// Share of the empty tune tiles that the gate stops at 98 % recall.
    pub(crate) rejected: Option<f64>,
    pub(crate) dice_ships: Option<f64>,
    pub(crate) dice_all: Option<f64>,
    /// Training speed since the row before.
    pub(crate) images_per_s: f64,
    /// Share of the time spent waiting for tiles.
    pub(crate) data_wait: f64,
}

/// The metrics as CSV: each row is on disk when `write` returns.
pub(crate) struct MetricsFile {
    path: PathBuf,
    writer: csv::Writer<File>,
}

impl MetricsFile {
    pub(crate) fn write(&mut self, row: &Metrics) -> Result<()> {
        let context = || self.path.display().to_string();
        self.writer.serialize(row).with_context(context)?;
        self.writer.flush().with_context(context)?;
        self.writer.get_ref().sync_data().with_context(context)
    }
}

impl RunFolder {
    /// Creates the folder with the config in it, or opens one whose config is the same in all that
    /// touches what was trained already.
    ///
    /// # Errors
    /// If the folder holds a run that another config began; the message names the first difference.
    pub(crate) fn create(path: &Path, config: &Config) -> Result<Self> {
        fs::create_dir_all(path).with_context(|| path.display().to_string())?;
        let folder = Self(path.to_owned());
        let file = folder.file("config.toml");
        let context = || file.display().to_string();
        if file.exists() {
            let text = fs::read_to_string(&file).with_context(context)?;
            let before: Config = toml::from_str(&text).with_context(context)?;
            if let Some(key) = before.conflict(config, &folder.begun())? {
                anyhow::bail!(
                    "{}: `{key}` differs, and the run has begun with it: give --out a new folder, or the same config to go on",
                    file.display()
                );
            }
        }
        replace(&file, toml::to_string(config)?.as_bytes()).with_context(context)?;
        Ok(folder)
    }

    /// A run that is there already.
    pub(crate) fn open(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// A file of the run.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Bytes that a phase takes so far.
    pub(crate) fn size(&self, name: PhaseName) -> u64 {
        let files = [self.last_file(name), self.best_file(name)];
        let size = |file: &PathBuf| fs::metadata(file).map_or(0, |data| data.len());
        files.iter().map(size).sum()
    }

    /// Whether any phase has a checkpoint.
    pub(crate) fn has_begun(&self) -> bool {
        !self.begun().is_empty()
    }

    /// Phases with a checkpoint.
    fn begun(&self) -> Vec<PhaseName> {
        let begun = |name: &PhaseName| self.last_file(*name).exists();
        PhaseName::ALL.into_iter().filter(begun).collect()
    }

    fn last_file(&self, name: PhaseName) -> PathBuf {
        self.file(&format!("{}-last.safetensors", name.name()))
    }

    fn best_file(&self, name: PhaseName) -> PathBuf {
        self.file(&format!("{}.safetensors", name.name()))
    }

    /// Opens the metrics for appending to a phase whose checkpoint stands at `step`, none before its
    /// first. Rows of later steps are taken out: those steps will be done again. So are lines that cannot
    /// be read, with a warning.
    pub(crate) fn metrics(&self, name: PhaseName, step: Option<usize>) -> Result<MetricsFile> {
        let path = self.file(METRICS);
        let context = || path.display().to_string();
        let mut kept = String::new();
        if path.exists() {
            let Rows { rows, unreadable } = curves::read(&path)?;
            if let [first, ..] = unreadable[..] {
                log::warn!(
                    "{}:{first}: no row of metrics: {} such lines are taken out. Nothing else is harmed; to have them in the curves again, stop the run and put back a copy of the file",
                    path.display(),
                    unreadable.len()
                );
            }
            let stays = |row: &Row| row.phase != name.name() || Some(row.step) <= step;
            for row in rows.into_iter().filter(stays) {
                kept += &format!("{}\n", row.line);
            }
        }
        let fresh = kept.is_empty();
        if !fresh {
            kept.insert_str(0, &format!("{}\n", curves::HEADER));
        }
        replace(&path, kept.as_bytes()).with_context(context)?;
        let file = OpenOptions::new()
            .append(true)
            .open(&path)
            .with_context(context)?;
        let writer = csv::WriterBuilder::new()
            .has_headers(fresh)
            .from_writer(file);
        Ok(MetricsFile { path, writer })
    }

    /// Draws the metrics so far.
    pub(crate) fn draw_curves(&self) -> Result<()> {
        curves::draw(&self.file(METRICS), &self.file("curves.png"))
    }

    /// Where a phase stands; none before its first checkpoint.
    pub(crate) fn checkpoint(&self, name: PhaseName) -> Result<Option<Checkpoint>> {
        let path = self.last_file(name);
        if !path.exists() {
            return Ok(None);
        }
        let (tensors, notes) = Params::load_noted(&path)?;
        let state = notes
            .get(STATE)
            .with_context(|| format!("{}: no checkpoint: `{STATE}` is missing", path.display()))?;
        let state = toml::from_str(state).with_context(|| path.display().to_string())?;
        Ok(Some(Checkpoint { state, tensors }))
    }

    /// Saves where a phase stands, as one file: it is there whole, or the one before is.
    ///
    /// # Errors
    /// If it cannot be written, for instance because the disk is full.
    pub(crate) fn save_checkpoint(&self, name: PhaseName, checkpoint: &Checkpoint) -> Result<()> {
        let notes = HashMap::from([(STATE.to_owned(), toml::to_string(&checkpoint.state)?)]);
        let path = self.last_file(name);
        checkpoint.tensors.save(&path, notes).with_context(|| {
            format!(
                "the checkpoint of step {} was not saved; the one before is unharmed. Make room, or mend what the cause says, and run the same command again",
                checkpoint.state.step
            )
        })
    }

    /// Saves the best weights of a phase so far.
    ///
    /// # Errors
    /// If they cannot be written, for instance because the disk is full.
    pub(crate) fn save_best(
        &self,
        name: PhaseName,
        step: usize,
        score: f64,
        params: &Params,
    ) -> Result<()> {
        let note = toml::to_string(&Best { step, score })?;
        let notes = HashMap::from([(BEST.to_owned(), note)]);
        params.save(&self.best_file(name), notes).with_context(|| {
            "the best weights were not saved; those before are unharmed. Make room, or mend what the cause says, and run the same command again"
        })
    }

    /// Whether a phase is over.
    pub(crate) fn is_done(&self, name: PhaseName) -> Result<bool> {
        Ok(self.checkpoint(name)?.is_some_and(|at| at.state.done))
    }

    /// The weights that a phase ended with.
    ///
    /// # Errors
    /// If the phase is not over.
    pub(crate) fn result(&self, name: PhaseName) -> Result<Params> {
        let label = name.name();
        ensure!(
            self.is_done(name)?,
            "phase {label} is not over, and what comes after builds on it: run `train run` without --phase, or with --phase {label} first"
        );
        Ok(Params::load(&self.best_file(name))?)
    }

    /// The best weights of a network, `gate` or `unet`: those of its last phase that has any.
    pub(crate) fn best(&self, network: &str) -> Result<Params> {
        let of_network = |name: &PhaseName| name.is_gate() == (network == "gate");
        let path = PhaseName::ALL
            .into_iter()
            .rev()
            .filter(of_network)
            .map(|name| self.best_file(name))
            .find(|path| path.exists())
            .with_context(|| {
                format!(
                    "{}: the run has no weights of its {network} yet: go on with `train run`",
                    self.0.display()
                )
            })?;
        Ok(Params::load(&path)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(phase: &'static str, step: usize) -> Metrics {
        Metrics {
            phase,
            step,
            learning_rate: Some(0.1),
            loss: None,
            gradient_norm: None,
            score: 0.5,
            auc: None,
            rejected: None,
            dice_ships: None,
            dice_all: Some(0.25),
            images_per_s: 9.0,
            data_wait: 0.0,
        }
    }

    fn steps(folder: &RunFolder) -> Vec<String> {
        let text = fs::read_to_string(folder.file(METRICS)).expect("metrics");
        let cells = |line: &str| -> Vec<String> { line.split(',').map(str::to_owned).collect() };
        text.lines()
            .skip(1)
            .map(|l| cells(l)[..2].join(" "))
            .collect()
    }

    #[test]
    fn rows_of_steps_that_are_done_again_go() {
        let dir = tempfile::tempdir().expect("folder");
        let folder = RunFolder::open(dir.path());
        let mut metrics = folder.metrics(PhaseName::GateHead, None).expect("opens");
        for step in [0, 5] {
            metrics.write(&row("gate-head", step)).expect("writes");
        }
        let mut metrics = folder.metrics(PhaseName::Unet, None).expect("opens");
        for step in [0, 5, 10] {
            metrics.write(&row("unet", step)).expect("writes");
        }
        // Killed within a row.
        let path = folder.file(METRICS);
        let mut text = fs::read_to_string(&path).expect("reads");
        text += "unet,15,0.1";
        fs::write(&path, text).expect("writes");

        let mut metrics = folder.metrics(PhaseName::Unet, Some(5)).expect("opens");
        metrics.write(&row("unet", 10)).expect("writes");
        let want = ["gate-head 0", "gate-head 5", "unet 0", "unet 5", "unet 10"];
        assert_eq!(steps(&folder), want);
        let text = fs::read_to_string(&path).expect("reads");
        assert_eq!(text.lines().next(), Some(curves::HEADER));
        folder.metrics(PhaseName::Unet, Some(0)).expect("opens");
        assert_eq!(steps(&folder), want[..3]);
        folder.metrics(PhaseName::Unet, None).expect("opens");
        assert_eq!(steps(&folder), want[..2]);
    }

    #[test]
    fn a_checkpoint_comes_back_as_it_was() {
        let dir = tempfile::tempdir().expect("folder");
        let folder = RunFolder::open(dir.path());
        assert!(folder.checkpoint(PhaseName::Unet).expect("reads").is_none());
        let tensors = Params([("weights.x".to_owned(), [0.1f32, -2.5e-8].into())].into());
        let state = State {
            step: 7,
            best: Some(0.1 + 0.2),
            losses: 1.0 / 3.0,
            mined: crate::miner::Mined {
                round: 2,
                scenes: vec![u64::MAX >> 1, 0],
            },
            ..State::default()
        };
        let checkpoint = Checkpoint { state, tensors };
        folder
            .save_checkpoint(PhaseName::Unet, &checkpoint)
            .expect("saves");
        let back = folder
            .checkpoint(PhaseName::Unet)
            .expect("reads")
            .expect("is there");
        assert_eq!(back.state, checkpoint.state);
        assert_eq!(back.tensors, checkpoint.tensors);

        // A disk that fills up harms no earlier checkpoint.
        let partial = dir.path().join("unet-last.partial");
        std::os::unix::fs::symlink("/dev/full", partial).expect("link");
        let error = folder
            .save_checkpoint(PhaseName::Unet, &checkpoint)
            .expect_err("no room");
        let error = format!("{error:#}");
        assert!(
            error.contains("No space left") && error.contains("unet-last"),
            "{error}"
        );
        let back = folder
            .checkpoint(PhaseName::Unet)
            .expect("reads")
            .expect("is there");
        assert_eq!(back.state, checkpoint.state);
    }
}

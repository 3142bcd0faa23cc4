//! The folder that describes a run: its config, where and when it ran, metrics, and best and last
//! weights.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::config::{Config, PhaseName};
use crate::curves::{self, Metrics, Row, Rows};
use crate::files::replace;
use crate::nn::Params;
use crate::trainer::State;

/// What the run was told to do.
pub(crate) const CONFIG: &str = "config.toml";

/// Locked as long as a run is trained.
const LOCK: &str = ".lock";

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
pub(crate) struct RunFolder {
    path: PathBuf,
    /// The lock is held until this is closed; none where the run is only read.
    _lock: Option<File>,
}

/// All that a phase needs to go on as if it had not been stopped.
pub(crate) struct Checkpoint {
    pub(crate) state: State,
    /// The network's weights, their average and the optimiser's moments; each by a prefix.
    pub(crate) tensors: Params,
}

/// What to do where a file that says what a run is cannot be read.
pub(crate) fn unreadable(path: &Path) -> String {
    format!(
        "{}: lost, damaged, or of another version of `train`: restore it, or train anew in a new folder",
        path.display()
    )
}

/// What to do where a run leaves nothing.
fn unwritable(path: &Path) -> String {
    format!(
        "{}: cannot be written: make room, or mend what the cause says, or give --out another folder",
        path.display()
    )
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
    /// Creates the folder, or opens the one that is there, for training.
    ///
    /// # Errors
    /// If it cannot be made, or another process trains in it.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        ensure!(
            path.is_dir() || !path.exists(),
            "{}: is a file: give --out a folder",
            path.display()
        );
        let context = || unwritable(path);
        fs::create_dir_all(path).with_context(context)?;
        let lock = File::create(path.join(LOCK)).with_context(context)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => anyhow::bail!(
                "{}: another `train` works on this run: wait for its end or stop it, or give --out another folder",
                path.display()
            ),
            // Not every network file system has locks.
            Err(TryLockError::Error(error)) => log::warn!(
                "{}: no lock keeps other processes from training in it: {error}",
                path.display()
            ),
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: Some(lock),
        })
    }

    /// A run that is there already, for reading.
    ///
    /// # Errors
    /// If none is there.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        ensure!(
            path.join(CONFIG).exists(),
            "{}: holds no run, for no {CONFIG} is there: name the --out folder of a `train run`",
            path.display()
        );
        Ok(Self {
            path: path.to_owned(),
            _lock: None,
        })
    }

    /// Checks that a config is the run's own in all that touches what was trained already.
    ///
    /// # Errors
    /// If it is not; the message names the first difference.
    pub(crate) fn check_config(&self, config: &Config) -> Result<()> {
        let file = self.file(CONFIG);
        let context = || unreadable(&file);
        let text = fs::read_to_string(&file).with_context(context)?;
        let before: Config = toml::from_str(&text).with_context(context)?;
        let begun = self.begun();
        let mut unfinished = false;
        for name in &begun {
            unfinished |= !self.is_done(*name)?;
        }
        if let Some(key) = before.conflict(config, &begun, unfinished)? {
            anyhow::bail!(
                "{}: `{key}` differs, and the run has begun with it: give --out a new folder, or the same config to go on",
                file.display()
            );
        }
        Ok(())
    }

    /// Writes a file of the run, whole or not at all.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.file(name);
        replace(&path, bytes).with_context(|| unwritable(&path))
    }

    /// A file of the run.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
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
            let stays = |Row { metrics, .. }: &Row| {
                metrics.phase != name.name() || Some(metrics.step) <= step
            };
            for row in rows.into_iter().filter(stays) {
                kept += &format!("{}\n", row.line);
            }
        }
        let fresh = kept.is_empty();
        if !fresh {
            kept.insert_str(0, &format!("{}\n", curves::header()?));
        }
        replace(&path, kept.as_bytes()).with_context(|| unwritable(&path))?;
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

    /// Where a phase stands; none before its first checkpoint. No tensor is read.
    ///
    /// # Errors
    /// If the checkpoint is damaged, or the best weights of a phase that is not over are lost.
    pub(crate) fn state(&self, name: PhaseName) -> Result<Option<State>> {
        let path = self.last_file(name);
        if !path.exists() {
            return Ok(None);
        }
        let read = || -> Result<State> {
            let notes = Params::notes(&path)?;
            let state = notes.get(STATE).context("a note on the state is missing")?;
            Ok(toml::from_str(state)?)
        };
        let state = read().with_context(|| self.lost_checkpoint(name))?;
        if !state.done {
            Params::notes(&self.best_file(name)).with_context(|| self.lost_weights(name))?;
        }
        Ok(Some(state))
    }

    /// Where a phase stands, with all that it needs to go on; none before its first checkpoint.
    ///
    /// # Errors
    /// As [`RunFolder::state`].
    pub(crate) fn checkpoint(&self, name: PhaseName) -> Result<Option<Checkpoint>> {
        let Some(state) = self.state(name)? else {
            return Ok(None);
        };
        let tensors = Params::load(&self.last_file(name));
        let tensors = tensors.with_context(|| self.lost_checkpoint(name))?;
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
        Ok(self.state(name)?.is_some_and(|state| state.done))
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
        self.weights(name)
    }

    /// The best weights of a network, `gate` or `unet`: those of the last of its phases that has begun.
    ///
    /// # Errors
    /// If none has, or its weights are lost.
    pub(crate) fn best(&self, network: &str) -> Result<Params> {
        let of_network = |name: &PhaseName| name.is_gate() == (network == "gate");
        let begun =
            |name: &PhaseName| self.last_file(*name).exists() || self.best_file(*name).exists();
        let name = PhaseName::FLOAT
            .into_iter()
            .rev()
            .filter(of_network)
            .find(begun)
            .with_context(|| {
                format!(
                    "{}: the run has no weights of its {network} yet: go on with `train run`",
                    self.path.display()
                )
            })?;
        self.weights(name)
    }

    /// The best weights of a phase that has begun.
    ///
    /// # Errors
    /// If they are lost.
    pub(crate) fn weights(&self, name: PhaseName) -> Result<Params> {
        Params::load(&self.best_file(name)).with_context(|| self.lost_weights(name))
    }

    /// What to do where a checkpoint cannot be read.
    fn lost_checkpoint(&self, name: PhaseName) -> String {
        format!(
            "{}: no checkpoint, or a damaged one: restore the file, or delete it and let `{}` train phase {} anew",
            self.last_file(name).display(),
            name.command(),
            name.name()
        )
    }

    /// What to do where the best weights cannot be read.
    fn lost_weights(&self, name: PhaseName) -> String {
        format!(
            "{}: the best weights of phase {name} are lost or damaged: restore the file, or delete it and {} and let `{}` train the phase anew",
            self.best_file(name).display(),
            self.last_file(name).display(),
            name.command(),
            name = name.name()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(phase: &str, step: usize) -> Metrics {
        Metrics {
            phase: phase.to_owned(),
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
        let folder = RunFolder::create(dir.path()).expect("creates");
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
        let header = curves::header().expect("names");
        assert_eq!(text.lines().next(), Some(&header[..]));
        folder.metrics(PhaseName::Unet, Some(0)).expect("opens");
        assert_eq!(steps(&folder), want[..3]);
        folder.metrics(PhaseName::Unet, None).expect("opens");
        assert_eq!(steps(&folder), want[..2]);
    }

    #[test]
    fn a_folder_that_will_not_do_is_refused_with_a_remedy() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("file");
        fs::write(&file, "").expect("writes");
        for (path, wanted) in [
            (&file, "file: is a file: give --out a folder"),
            (&file.join("run"), "file/run: cannot be written"),
        ] {
            let Err(error) = RunFolder::create(path) else {
                panic!("{} was taken", path.display());
            };
            assert!(error.to_string().contains(wanted), "{error:#}");
        }
        let Err(error) = RunFolder::open(dir.path()) else {
            panic!("an empty folder was taken for a run");
        };
        assert!(error.to_string().contains("holds no run"), "{error}");

        let folder = RunFolder::create(dir.path()).expect("creates");
        std::os::unix::fs::symlink("/dev/full", folder.file("config.partial")).expect("link");
        let error = folder.write(CONFIG, b"name").expect_err("no room");
        let error = format!("{error:#}");
        assert!(
            error.contains("config.toml: cannot be written: make room")
                && error.contains("No space"),
            "{error}"
        );
    }

    #[test]
    fn lost_weights_are_missed_and_not_replaced_by_those_of_an_earlier_phase() {
        let dir = tempfile::tempdir().expect("folder");
        let folder = RunFolder::create(dir.path()).expect("creates");
        let weights = |value: f32| Params([("x".to_owned(), [value].into())].into());
        let checkpoint = |done| Checkpoint {
            state: State {
                done,
                ..State::default()
            },
            tensors: Params::default(),
        };
        assert!(folder.best("unet").is_err(), "nothing was trained");
        for (name, value) in [(PhaseName::Decoder, 1.0), (PhaseName::Unet, 2.0)] {
            let saved = folder.save_best(name, 0, 0.5, &weights(value));
            saved.expect("saves");
            let saved = folder.save_checkpoint(name, &checkpoint(true));
            saved.expect("saves");
        }
        assert_eq!(folder.best("unet").expect("is there"), weights(2.0));
        fs::write(folder.file("unet.safetensors"), "").expect("writes");
        folder.best("unet").expect_err("damaged");
        let saved = folder.save_checkpoint(PhaseName::Unet, &checkpoint(false));
        saved.expect("saves");
        assert!(folder.checkpoint(PhaseName::Unet).is_err(), "damaged");
        let saved = folder.save_checkpoint(PhaseName::Unet, &checkpoint(true));
        saved.expect("saves");
        fs::remove_file(folder.file("unet.safetensors")).expect("deletes");
        let error = folder.best("unet").expect_err("lost");
        let error = format!("{error:#}");
        assert!(error.contains("unet.safetensors: the best"), "{error}");
        assert!(error.contains("unet-last.safetensors and let"), "{error}");

        // A phase that would go on without them might never find any as good.
        let saved = folder.save_checkpoint(PhaseName::Unet, &checkpoint(false));
        saved.expect("saves");
        assert!(folder.checkpoint(PhaseName::Unet).is_err());
        assert!(folder.is_done(PhaseName::Unet).is_err());
        // As the message says.
        fs::remove_file(folder.file("unet-last.safetensors")).expect("deletes");
        assert_eq!(folder.best("unet").expect("is there"), weights(1.0));
    }

    #[test]
    fn two_processes_never_train_in_one_folder() {
        let dir = tempfile::tempdir().expect("folder");
        let first = RunFolder::create(dir.path()).expect("creates");
        let Err(error) = RunFolder::create(dir.path()) else {
            panic!("a second one trains in the same folder");
        };
        let error = error.to_string();
        assert!(
            error.contains("another `train`") && error.contains(&dir.path().display().to_string()),
            "{error}"
        );
        drop(first);
        RunFolder::create(dir.path()).expect("the first is over");
    }

    #[test]
    fn a_checkpoint_comes_back_as_it_was() {
        let dir = tempfile::tempdir().expect("folder");
        let folder = RunFolder::create(dir.path()).expect("creates");
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
        let saved = folder.save_best(PhaseName::Unet, 7, 0.3, &tensors);
        saved.expect("saves");
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

        let path = folder.file("unet-last.safetensors");
        let whole = fs::read(&path).expect("reads");
        for length in [0, 4, 20, whole.len() - 1] {
            fs::write(&path, &whole[..length]).expect("writes");
            let read = folder.checkpoint(PhaseName::Unet).err();
            for error in [read, folder.is_done(PhaseName::Unet).err()] {
                let error = error.unwrap_or_else(|| panic!("{length} bytes were taken"));
                let error = error.to_string();
                assert!(
                    error.contains("unet-last.safetensors: no checkpoint"),
                    "{error}"
                );
                assert!(error.contains("delete it and let `train run`"), "{error}");
            }
        }
    }
}

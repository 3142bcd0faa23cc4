//! The folder that describes a run: its config, metrics, and best and last weights.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::files::replace;
use crate::nn::Params;

/// A run's folder.
pub(crate) struct RunFolder(PathBuf);

/// Where training stands.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    /// Steps done.
    pub(crate) step: usize,
    /// Best tune score so far.
    pub(crate) best: f64,
}

/// A row of a network's metrics file.
#[derive(Debug, Serialize)]
pub(crate) struct Metrics {
    /// `head` or `all`.
    pub(crate) phase: &'static str,
    /// Steps done, counted through both phases.
    pub(crate) step: usize,
    /// Rate of the last step.
    pub(crate) learning_rate: f64,
    /// Mean since the row before.
    pub(crate) loss: f64,
    /// AUC or Dice on the tune tiles.
    pub(crate) score: f64,
    /// Training speed since the row before, without the look at the tune tiles.
    pub(crate) images_per_s: f64,
    /// Share of the time spent waiting for tiles.
    pub(crate) data_wait: f64,
}

/// A network's metrics as CSV: each row is on disk when `write` returns.
pub(crate) struct MetricsFile(csv::Writer<File>);

impl MetricsFile {
    pub(crate) fn write(&mut self, row: &Metrics) -> Result<()> {
        self.0.serialize(row)?;
        Ok(self.0.flush()?)
    }
}

impl RunFolder {
    /// Creates the folder with the config in it, or opens one of the same config.
    ///
    /// # Errors
    /// If the folder holds a run of another config: its checkpoints would not fit.
    pub(crate) fn create(path: &Path, config: &Config) -> Result<Self> {
        fs::create_dir_all(path).with_context(|| path.display().to_string())?;
        let folder = Self(path.to_owned());
        let file = folder.file("config.toml");
        let context = || file.display().to_string();
        if file.exists() {
            let text = fs::read_to_string(&file).with_context(context)?;
            ensure!(
                toml::from_str::<Config>(&text).with_context(context)? == *config,
                "{} is of another run: give --out a new folder, or the same config to go on",
                file.display()
            );
        } else {
            replace(&file, toml::to_string(config)?.as_bytes()).with_context(context)?;
        }
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

    /// Opens the metrics of one network for appending.
    pub(crate) fn metrics(&self, network: &str) -> Result<MetricsFile> {
        let path = self.file(&format!("{network}.csv"));
        let context = || path.display().to_string();
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .with_context(context)?;
        let fresh = file.metadata().with_context(context)?.len() == 0;
        Ok(MetricsFile(
            csv::WriterBuilder::new()
                .has_headers(fresh)
                .from_writer(file),
        ))
    }

    /// Where training of a network stands, with its weights; none before the first checkpoint.
    pub(crate) fn checkpoint(&self, network: &str) -> Result<Option<(Checkpoint, Params)>> {
        let path = self.file(&format!("{network}-last.json"));
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let checkpoint = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        let params = Params::load(&self.file(&format!("{network}-last.safetensors")))?;
        Ok(Some((checkpoint, params)))
    }

    /// Saves where training of a network stands. Weights go first: after a crash between the two
    /// files, steps are taken again but none is left out.
    pub(crate) fn save_checkpoint(
        &self,
        network: &str,
        checkpoint: Checkpoint,
        params: &Params,
    ) -> Result<()> {
        params.save(&self.file(&format!("{network}-last.safetensors")))?;
        let path = self.file(&format!("{network}-last.json"));
        replace(&path, serde_json::to_string(&checkpoint)?.as_bytes())
            .with_context(|| path.display().to_string())
    }

    /// Saves the best weights of a network so far.
    pub(crate) fn save_best(&self, network: &str, params: &Params) -> Result<()> {
        Ok(params.save(&self.file(&format!("{network}.safetensors")))?)
    }

    /// The best weights of a network.
    pub(crate) fn best(&self, network: &str) -> Result<Params> {
        Params::load(&self.file(&format!("{network}.safetensors"))).with_context(|| {
            format!("the run has no weights of its {network} yet: go on with `train run`")
        })
    }
}

//! The folder that describes a run: its config, metrics, checkpoints and exported models.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::config::Config;
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
    pub(crate) phase: &'static str,
    pub(crate) step: usize,
    pub(crate) learning_rate: f64,
    pub(crate) loss: f64,
    pub(crate) score: f64,
    pub(crate) images_per_s: f64,
    /// Share of the time spent waiting for tiles.
    pub(crate) data_wait: f64,
}

/// Appends rows and flushes each.
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
        let text = toml::to_string(config)?;
        if file.exists() {
            ensure!(
                fs::read_to_string(&file).with_context(context)? == text,
                "{} is of another run: give --out a new folder, or the same config to go on",
                file.display()
            );
        } else {
            fs::write(&file, text).with_context(context)?;
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

    pub(crate) fn save_checkpoint(
        &self,
        network: &str,
        checkpoint: Checkpoint,
        params: &Params,
    ) -> Result<()> {
        params.save(&self.file(&format!("{network}-last.safetensors")))?;
        let path = self.file(&format!("{network}-last.json"));
        let partial = path.with_extension("partial");
        fs::write(&partial, serde_json::to_string(&checkpoint)?)
            .and_then(|()| fs::rename(&partial, &path))
            .with_context(|| path.display().to_string())
    }

    pub(crate) fn save_best(&self, network: &str, params: &Params) -> Result<()> {
        Ok(params.save(&self.file(&format!("{network}.safetensors")))?)
    }

    /// The best weights of a network.
    pub(crate) fn best(&self, network: &str) -> Result<Params> {
        Ok(Params::load(&self.file(&format!("{network}.safetensors")))?)
    }
}

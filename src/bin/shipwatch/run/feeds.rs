//! Sources as the config has them.

use std::sync::Arc;
use std::time::Duration;

use shipwatch::daemon::Feed;
use shipwatch::daemon::config::SourceConfig;
use shipwatch::ledger::Ledger;
use shipwatch::source::Source;
use shipwatch::source::folder::{FolderFrames, FolderWatch};
use shipwatch::source::in_hand::InHand;
use shipwatch::source::stream::StreamOptions;

use super::plan::unwatchable;
use crate::exit::{Exit, Failure, OrExit};

/// What sources are made with.
pub(super) struct Feeder<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) in_hand: Arc<InHand>,
    pub(super) once: bool,
    pub(super) reprocess: bool,
}

impl Feeder<'_> {
    /// Opens a source, or goes on with what is `begun`.
    pub(super) fn feed(
        &self,
        source: &SourceConfig,
        begun: Option<Box<dyn Source + Send>>,
    ) -> Result<Feed, Failure> {
        Ok(Feed {
            name: source.name.clone(),
            source: begun.map_or_else(|| self.open(source), Ok)?,
            waiting: source.queue,
            policy: source.policy(),
            interval: match source.watched() {
                Some(_) => source.interval(),
                None => Duration::ZERO,
            },
            finish: source.finish(),
            failed: source.failed_folder.clone(),
        })
    }

    fn open(&self, source: &SourceConfig) -> Result<Box<dyn Source + Send>, Failure> {
        match (source.watched(), source.stream_options()) {
            (Some(_), _) => self.folder(source),
            (None, Some(options)) => stream(source, options),
            (None, None) => camera(source),
        }
    }

    fn folder(&self, source: &SourceConfig) -> Result<Box<dyn Source + Send>, Failure> {
        let folder = source.watched().unwrap_or("".as_ref());
        let watch = FolderWatch::open(folder, source.folder_options()).map_err(unwatchable)?;
        let roster = self.ledger.roster(&source.name).or_exit(Exit::Io)?;
        let roster = match self.reprocess {
            true => roster.blind(),
            false => roster,
        };
        let options = source.decode_options();
        let in_hand = Arc::clone(&self.in_hand);
        Ok(Box::new(FolderFrames::new(
            watch, options, roster, in_hand, self.once,
        )))
    }
}

#[cfg(feature = "camera")]
fn camera(source: &SourceConfig) -> Result<Box<dyn Source + Send>, Failure> {
    use anyhow::Context;
    use shipwatch::source::camera::CameraSource;

    let options = source.camera_options();
    let options = options.context("a source without a folder or a camera");
    let options = options.or_exit(Exit::Config)?;
    Ok(Box::new(CameraSource::new(source.name.clone(), options)))
}

/// A config with a camera does not pass its check.
#[cfg(not(feature = "camera"))]
fn camera(_: &SourceConfig) -> Result<Box<dyn Source + Send>, Failure> {
    Err(Failure::new(
        Exit::Config,
        anyhow::anyhow!("this build has no cameras"),
    ))
}

#[cfg(unix)]
fn stream(
    source: &SourceConfig,
    options: StreamOptions,
) -> Result<Box<dyn Source + Send>, Failure> {
    use shipwatch::source::stream::StreamSource;

    Ok(Box::new(StreamSource::new(source.name.clone(), options)))
}

/// A config with a stream does not pass its check.
#[cfg(not(unix))]
fn stream(_: &SourceConfig, _: StreamOptions) -> Result<Box<dyn Source + Send>, Failure> {
    Err(Failure::new(
        Exit::Config,
        anyhow::anyhow!("this system has no streams"),
    ))
}

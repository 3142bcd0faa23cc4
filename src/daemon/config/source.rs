//! A source of frames, as the config file has it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::DetectConfig;
use super::rule::Rule;
use crate::daemon::queue::Policy;
use crate::frame::Percentiles;
use crate::source::decode::DecodeOptions;
use crate::source::finish::Finish;
use crate::source::folder::FolderOptions;
use crate::source::pixels::Layout;

/// The watched folder of a source that names none.
pub(super) const INCOMING: &str = "incoming";

/// A section `[[source]]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SourceConfig {
    /// What the log and the ledger call it; a source of another name knows no file. `folder` unless said.
    pub name: String,
    /// The watched folder; `incoming` where there is neither this nor a camera.
    pub folder: Option<PathBuf>,
    /// A V4L2 camera: its device, or a link to it.
    pub camera: Option<PathBuf>,
    /// Width and height that the camera is asked for; the largest there is where it is not.
    #[serde(deserialize_with = "pair")]
    pub size: Option<[u32; 2]>,
    /// Frames per second that the camera is asked for, and no more of which are looked at.
    pub rate: Option<f64>,
    /// How the camera's pixels travel.
    pub format: Option<Layout>,
    /// The camera's controls, by the names that `v4l2-ctl --list-ctrls` prints.
    pub controls: BTreeMap<String, i64>,
    /// Whether folders below are watched too.
    pub recursive: bool,
    /// A file is whole once it has not changed for this many seconds.
    pub settle_seconds: f64,
    /// The folder is searched this often besides being watched.
    pub rescan_seconds: f64,
    /// Images with more pixels are refused.
    pub max_pixels: u64,
    /// Percentiles of the values that become black and white.
    pub stretch: Option<Percentiles>,
    /// Ground resolution in metres per pixel; wins over the frames' own tags.
    pub gsd: Option<f64>,
    /// Factor by which frames are resampled before the networks see them.
    pub scale: Option<f64>,
    /// What becomes of a file whose frame is done.
    pub finished: Finished,
    /// Where it moves to, if it does.
    pub finished_folder: PathBuf,
    /// Where files move that are no frames, each with a note that says why; they stay without it.
    pub failed_folder: Option<PathBuf>,
    /// Frames that wait to be looked at.
    pub queue: usize,
    /// What happens to a frame that finds no room: those of a folder wait, of a camera the oldest is dropped.
    pub full: Option<Policy>,
    /// Thresholds for this source alone; what is not said here is as under `[detect]`.
    pub detect: DetectConfig,
}

/// What becomes of a file whose frame is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finished {
    /// It stays.
    #[default]
    Keep,
    /// It moves to another folder.
    Move,
    /// It is deleted.
    Delete,
}

impl Default for SourceConfig {
    fn default() -> Self {
        let folder = FolderOptions::default();
        let decode = DecodeOptions::default();
        Self {
            name: "folder".into(),
            folder: None,
            camera: None,
            size: None,
            rate: None,
            format: None,
            controls: BTreeMap::new(),
            recursive: folder.recursive,
            settle_seconds: folder.settle.as_secs_f64(),
            rescan_seconds: folder.rescan.as_secs_f64(),
            max_pixels: decode.max_pixels,
            stretch: decode.stretch,
            gsd: None,
            scale: None,
            finished: Finished::default(),
            finished_folder: "done".into(),
            failed_folder: None,
            queue: 2,
            full: None,
            detect: DetectConfig::default(),
        }
    }
}

/// Two numbers: TOML by itself takes the first two of three.
fn pair<'de, D: Deserializer<'de>>(from: D) -> Result<Option<[u32; 2]>, D::Error> {
    let numbers = Vec::<u32>::deserialize(from)?;
    let pair = <[u32; 2]>::try_from(numbers);
    pair.map(Some)
        .map_err(|numbers| D::Error::invalid_length(numbers.len(), &"two numbers"))
}

/// A path without links, as far as it is there.
fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let found = path.ancestors().find_map(|ancestor| {
        let rest = path.strip_prefix(ancestor).ok()?;
        Some(ancestor.canonicalize().ok()?.join(rest))
    });
    found.unwrap_or(path)
}

impl SourceConfig {
    pub(super) fn rules(&self, all: &[Self]) -> [Rule; 15] {
        let positive = |value: Option<f64>| value.is_none_or(|v| v.is_finite() && v > 0.0);
        let hour = 0.0..=3600.0;
        let unwatched = |folder: &Path| !all.iter().any(|source| source.watches(folder));
        let again = "must not lie in a folder that is watched: files would come again";
        [
            (
                "name",
                !self.name.is_empty() && !self.name.contains(char::is_control),
                "must be a word",
            ),
            (
                "settle-seconds",
                hour.contains(&self.settle_seconds),
                "must lie between 0 and 3600",
            ),
            (
                "rescan-seconds",
                self.rescan_seconds >= 0.1 && hour.contains(&self.rescan_seconds),
                "must lie between 0.1 and 3600",
            ),
            ("max-pixels", self.max_pixels > 0, "must be positive"),
            (
                "gsd",
                positive(self.gsd),
                "must be positive metres per pixel",
            ),
            ("scale", positive(self.scale), "must be a positive factor"),
            (
                "finished-folder",
                self.finished != Finished::Move || unwatched(&self.finished_folder),
                again,
            ),
            (
                "failed-folder",
                self.failed_folder.as_deref().is_none_or(unwatched),
                again,
            ),
            (
                "camera",
                self.camera.is_none() || self.folder.is_none(),
                "has a source of its own: take `folder` out, or put it under another [[source]]",
            ),
            (
                "camera",
                self.camera.is_none() || cfg!(feature = "camera"),
                "is not known to this build, which was made without the feature `camera`",
            ),
            (
                "rate",
                self.rate
                    .is_none_or(|rate| (0.001..=1000.0).contains(&rate)),
                "must lie between 0.001 and 1000 frames per second",
            ),
            (
                "size",
                self.size
                    .is_none_or(|size| size.iter().all(|side| (1..=16_384).contains(side))),
                "must be a width and a height of 1 to 16384 pixels",
            ),
            (
                "folder",
                !(all.iter()).any(|other| other.name != self.name && self.loses_to(other)),
                "must not be one, or lie in one, of which another source moves files away",
            ),
            (
                "full",
                self.camera.is_some() || self.full.is_none_or(|full| full == Policy::Block),
                "must be \"block\" for a folder: its files wait as well, and are not offered twice",
            ),
            (
                "queue",
                (1..=1000).contains(&self.queue),
                "must lie between 1 and 1000",
            ),
        ]
    }

    /// Whether files in a folder are watched.
    fn watches(&self, folder: &Path) -> bool {
        let Some(watched) = self.watched() else {
            return false;
        };
        let [watched, folder] = [watched, folder].map(real);
        match self.recursive {
            true => folder.starts_with(watched),
            false => folder == watched,
        }
    }

    /// Whether another source may take files away before this one has read them.
    fn loses_to(&self, other: &Self) -> bool {
        let takes = other.finished != Finished::Keep || other.failed_folder.is_some();
        let (Some(own), Some(its)) = (self.watched(), other.watched()) else {
            return false;
        };
        takes && (self.watches(its) || other.watches(own))
    }

    /// The watched folder; none of a camera.
    pub fn watched(&self) -> Option<&Path> {
        match (&self.folder, &self.camera) {
            (Some(folder), _) => Some(folder),
            (None, Some(_)) => None,
            (None, None) => Some(Path::new(INCOMING)),
        }
    }

    /// What happens to a frame that finds no room.
    pub fn policy(&self) -> Policy {
        let usual = match self.camera {
            Some(_) => Policy::DropOldest,
            None => Policy::Block,
        };
        self.full.unwrap_or(usual)
    }

    /// What becomes of a file whose frame is done.
    pub fn finish(&self) -> Finish {
        match self.finished {
            Finished::Keep => Finish::Keep,
            Finished::Delete => Finish::Delete,
            Finished::Move => Finish::Move(self.finished_folder.clone()),
        }
    }

    /// How the folder is watched.
    ///
    /// # Panics
    /// If [`Config::check`] finds a problem with the seconds.
    pub fn folder_options(&self) -> FolderOptions {
        FolderOptions {
            recursive: self.recursive,
            settle: Duration::from_secs_f64(self.settle_seconds),
            rescan: Duration::from_secs_f64(self.rescan_seconds),
        }
    }

    /// How files are decoded.
    pub fn decode_options(&self) -> DecodeOptions {
        DecodeOptions {
            max_pixels: self.max_pixels,
            stretch: self.stretch,
        }
    }
}

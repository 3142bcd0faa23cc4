//! A source of frames, as the config file has it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::DetectConfig;
use super::rule::Rule;
use crate::daemon::queue::Policy;
use crate::detect::{Polygon, Regions};
use crate::frame::{Lens, Percentiles};
#[cfg(feature = "camera")]
use crate::source::camera::CameraOptions;
use crate::source::decode::DecodeOptions;
use crate::source::finish::Finish;
use crate::source::folder::FolderOptions;
use crate::source::pixels::Layout;
use crate::source::stream::{Form, Input, StreamOptions};

/// The watched folder of a source that names none.
pub(super) const INCOMING: &str = "incoming";

/// Standard input, among streams.
const STDIN: &str = "-";

/// A section `[[source]]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SourceConfig {
    /// What the log and the ledger call it; a source of another name knows no file. `folder` unless said.
    pub name: String,
    /// The watched folder; `incoming` where there is neither this nor a camera, a stream or a command.
    pub folder: Option<PathBuf>,
    /// A FIFO that video is read from; standard input if it is `-`.
    pub stream: Option<PathBuf>,
    /// A command that writes video to its standard output: its program and its arguments.
    pub command: Option<Vec<String>>,
    /// How frames lie in a stream; found out where it is not said.
    pub form: Option<Form>,
    /// A command of which no frame comes for so many seconds is started anew.
    pub silent_seconds: f64,
    /// A V4L2 camera: its device, or a link to it.
    pub camera: Option<PathBuf>,
    /// Width and height that the camera is asked for; the largest there is where it is not.
    #[serde(deserialize_with = "pair")]
    pub size: Option<[u32; 2]>,
    /// Frames per second that the camera is asked for, and no more of which are looked at; of others, too.
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
    /// Height of the camera above the water in metres: gives the ground resolution of each frame, with what
    /// follows, where `gsd` does not. The camera looks straight down.
    pub altitude: Option<f64>,
    /// Focal length of the lens itself in millimetres.
    pub focal_length: Option<f64>,
    /// Width of what frames show of the sensor, in millimetres.
    pub sensor_width: Option<f64>,
    /// Angle that the width of frames spans, in degrees, instead of focal length and sensor.
    pub field_of_view: Option<f64>,
    /// Factor by which frames are resampled before the networks see them.
    pub scale: Option<f64>,
    /// Polygons outside of which no ship counts; everywhere without any.
    pub look: Vec<Polygon>,
    /// Polygons in which no ship counts.
    pub ignore: Vec<Polygon>,
    /// What becomes of a file whose frame is done.
    pub finished: Finished,
    /// Where it moves to, if it does.
    pub finished_folder: PathBuf,
    /// Where files move that are no frames, each with a note that says why; they stay without it.
    pub failed_folder: Option<PathBuf>,
    /// Frames that wait to be looked at.
    pub queue: usize,
    /// What happens to a frame that finds no room: those of a folder wait, of others the oldest is dropped.
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
            stream: None,
            command: None,
            form: None,
            silent_seconds: StreamOptions::SILENCE.as_secs_f64(),
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
            altitude: None,
            focal_length: None,
            sensor_width: None,
            field_of_view: None,
            scale: None,
            look: Vec::new(),
            ignore: Vec::new(),
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
    pub(super) fn rules(&self, all: &[Self]) -> impl Iterator<Item = Rule> {
        self.own_rules(all).into_iter().chain(self.optics_rules())
    }

    /// What is said of height and lens, if anything is, must be enough and not too much.
    fn optics_rules(&self) -> [Rule; 8] {
        let positive = |value: Option<f64>| value.is_none_or(|v| v.is_finite() && v > 0.0);
        let sensor = self.focal_length.or(self.sensor_width);
        let whole = self.focal_length.is_some() == self.sensor_width.is_some();
        [
            (
                "altitude",
                positive(self.altitude),
                "must be positive metres above the water",
            ),
            (
                "focal-length",
                positive(self.focal_length),
                "must be positive millimetres",
            ),
            (
                "sensor-width",
                positive(self.sensor_width),
                "must be positive millimetres",
            ),
            (
                "field-of-view",
                self.field_of_view.is_none_or(|v| v > 0.0 && v < 180.0),
                "must lie between 0 and 180 degrees",
            ),
            (
                "altitude",
                self.altitude.is_none() || sensor.or(self.field_of_view).is_some(),
                "gives a resolution with `focal-length` and `sensor-width`, or with `field-of-view`: name them too",
            ),
            (
                "altitude",
                self.altitude.is_some() || sensor.or(self.field_of_view).is_none(),
                "must be named where a lens is, which gives no resolution without it",
            ),
            (
                "focal-length",
                whole,
                "and `sensor-width` say how wide the camera sees together: name both or none",
            ),
            (
                "field-of-view",
                self.field_of_view.is_none() || sensor.is_none(),
                "says what `focal-length` and `sensor-width` do: take it out, or those",
            ),
        ]
    }

    fn own_rules(&self, all: &[Self]) -> [Rule; 20] {
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
                "stream",
                self.streams() <= usize::from(self.folder.is_none() && self.camera.is_none()),
                "has a source of its own, and so has `command`: keep one of `folder`, `camera`, `stream` and \
                 `command`, and put others under another [[source]]",
            ),
            (
                "stream",
                !(all.iter()).any(|other| other.name != self.name && self.shares_stream(other)),
                "must be read by one source alone: two would tear its frames apart",
            ),
            (
                "stream",
                self.streams() == 0 || cfg!(unix),
                "and `command` are not known on this system",
            ),
            (
                "command",
                (self.command.iter()).all(|words| words.first().is_some_and(|it| !it.is_empty())),
                "must name a program, with each argument a text of its own: [\"rpicam-vid\", \"-n\"]",
            ),
            (
                "silent-seconds",
                (1.0..=86_400.0).contains(&self.silent_seconds),
                "must lie between 1 and 86400",
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
                self.watched().is_none() || self.full.is_none_or(|full| full == Policy::Block),
                "must be \"block\" for a folder: its files wait as well, and are not offered twice",
            ),
            (
                "queue",
                (1..=1000).contains(&self.queue),
                "must lie between 1 and 1000",
            ),
        ]
    }

    /// Makes its paths relative to `base`, defaults too.
    pub(super) fn resolve(&mut self, base: &Path) {
        if self.camera.is_none() && self.streams() == 0 {
            self.folder.get_or_insert_with(|| INCOMING.into());
        }
        let stdin = self.is_stdin();
        let paths = [
            self.folder.as_mut(),
            self.stream.as_mut().filter(|_| !stdin),
            Some(&mut self.finished_folder),
            self.failed_folder.as_mut(),
        ];
        for path in paths.into_iter().flatten() {
            *path = base.join(&*path);
        }
        // Others are searched for in PATH.
        let program = self.command.as_mut().and_then(|words| words.first_mut());
        if let Some(program) = program.filter(|program| program.contains('/')) {
            *program = base.join(&*program).to_string_lossy().into_owned();
        }
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

    /// How many keys name something that is read as a stream.
    fn streams(&self) -> usize {
        usize::from(self.stream.is_some()) + usize::from(self.command.is_some())
    }

    fn shares_stream(&self, other: &Self) -> bool {
        self.stream.is_some() && self.stream == other.stream
    }

    /// The watched folder; none of a camera or a stream.
    pub fn watched(&self) -> Option<&Path> {
        let other = self.camera.is_some() || self.streams() > 0;
        let usual = (!other).then_some(Path::new(INCOMING));
        self.folder.as_deref().or(usual)
    }

    /// Whether it reads standard input, which ends.
    pub fn is_stdin(&self) -> bool {
        self.stream.as_deref() == Some(Path::new(STDIN))
    }

    /// How the stream is read; none of a folder or a camera.
    ///
    /// # Panics
    /// If [`Config::check`] finds a problem with the rate or the seconds.
    ///
    /// [`Config::check`]: super::Config::check
    pub fn stream_options(&self) -> Option<StreamOptions> {
        let input = match (&self.stream, &self.command) {
            (Some(_), _) if self.is_stdin() => Input::Stdin,
            (Some(path), _) => Input::Fifo(path.clone()),
            (None, Some(command)) => Input::Command(command.clone()),
            (None, None) => return None,
        };
        Some(StreamOptions {
            form: self.form,
            interval: self.interval(),
            keep_all: self.policy() == Policy::Block,
            silence: Duration::from_secs_f64(self.silent_seconds),
            decode: self.decode_options(),
            ..StreamOptions::new(input)
        })
    }

    /// Time from one frame that is looked at to the next.
    ///
    /// # Panics
    /// If [`Config::check`] finds a problem with the rate.
    ///
    /// [`Config::check`]: super::Config::check
    pub fn interval(&self) -> Duration {
        let interval = |rate: f64| Duration::from_secs_f64(1.0 / rate);
        self.rate.map_or(Duration::ZERO, interval)
    }

    /// What happens to a frame that finds no room.
    pub fn policy(&self) -> Policy {
        let usual = match self.watched() {
            Some(_) => Policy::Block,
            None => Policy::DropOldest,
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

    /// Width in metres of the ground that its frames show, where height and lens are named.
    pub fn swath(&self) -> Option<f64> {
        let lens = Lens::of(self.focal_length, self.sensor_width, self.field_of_view)?;
        Some(lens.swath(self.altitude?))
    }

    /// Where ships count on its frames.
    pub fn regions(&self) -> Regions {
        Regions {
            look: self.look.clone(),
            ignore: self.ignore.clone(),
        }
    }

    /// What a camera is asked for; none of a folder.
    #[cfg(feature = "camera")]
    pub fn camera_options(&self) -> Option<CameraOptions> {
        let path = self.camera.as_ref()?;
        Some(CameraOptions {
            layout: self.format,
            size: self.size,
            rate: self.rate,
            controls: self.controls.clone(),
            interval: self.interval(),
            ..CameraOptions::new(path)
        })
    }

    /// How files are decoded.
    pub fn decode_options(&self) -> DecodeOptions {
        DecodeOptions {
            max_pixels: self.max_pixels,
            stretch: self.stretch,
        }
    }
}

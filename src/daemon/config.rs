//! The config file of `shipwatch run`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::Group;
use crate::detect::Options;
use crate::frame::Percentiles;
use crate::source::decode::DecodeOptions;
use crate::source::finish::Finish;
use crate::source::folder::FolderOptions;

/// What the daemon is told to do. Every key may be left out.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Folder of the model bundle; the models embedded in the program where there is none.
    pub models: Option<PathBuf>,
    /// Where frames come from.
    pub source: SourceConfig,
    /// Where results go.
    pub output: OutputConfig,
    /// Where decisions are cut.
    pub detect: DetectConfig,
    /// What is done, on disk.
    pub ledger: LedgerConfig,
}

/// Section `[source]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SourceConfig {
    /// The watched folder.
    pub folder: PathBuf,
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

/// Section `[output]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct OutputConfig {
    /// File of JSON lines that is appended to.
    pub detections: PathBuf,
    /// Folder for pictures with the ships outlined; none are written where there is none.
    pub overlay: Option<PathBuf>,
}

/// Section `[ledger]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LedgerConfig {
    /// Its file; that of the detections with the ending `ledger` where there is none.
    pub file: Option<PathBuf>,
    /// Frames that are committed together.
    pub commit_frames: usize,
    /// None waits for longer than this many seconds.
    pub commit_seconds: f64,
}

/// Section `[detect]`: what differs from the manifest of the models.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DetectConfig {
    /// Gate score at which a tile is segmented, 0 to 1.
    pub gate: Option<f32>,
    /// Probability at which a pixel is ship, 0 to 1.
    pub mask: Option<f32>,
    /// Fewest pixels of a ship at the networks' scale.
    pub min_area: Option<u32>,
}

impl Default for SourceConfig {
    fn default() -> Self {
        let folder = FolderOptions::default();
        let decode = DecodeOptions::default();
        Self {
            folder: "incoming".into(),
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
        }
    }
}

impl Default for LedgerConfig {
    fn default() -> Self {
        let group = Group::default();
        Self {
            file: None,
            commit_frames: group.frames,
            commit_seconds: group.delay.as_secs_f64(),
        }
    }
}

impl Default for OutputConfig {
    fn default() -> Self {
        Self {
            detections: "detections.jsonl".into(),
            overlay: None,
        }
    }
}

/// A value that parses but makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key with its section.
    pub key: &'static str,
    /// What it must be.
    pub reason: &'static str,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.key, self.reason)
    }
}

/// Why a config file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{path}: cannot be read: {source}", path = .path.display())]
    Read {
        /// The config file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is no TOML, or has a key that does not belong, or a value of the wrong type.
    #[error("{path}: {source}", path = .path.display())]
    Syntax {
        /// The config file.
        path: PathBuf,
        /// What is wrong, with the line.
        source: toml::de::Error,
    },
}

impl Config {
    /// Reads a config file. Its paths are relative to the folder it lies in, and so are the
    /// defaults. Values are not yet checked: see [`Config::check`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut config: Self = toml::from_str(&text).map_err(|source| ConfigError::Syntax {
            path: path.to_owned(),
            source,
        })?;
        let base = path.parent().unwrap_or(Path::new(""));
        let paths = [
            Some(&mut config.source.folder),
            Some(&mut config.source.finished_folder),
            config.source.failed_folder.as_mut(),
            config.ledger.file.as_mut(),
            Some(&mut config.output.detections),
            config.output.overlay.as_mut(),
            config.models.as_mut(),
        ];
        for path in paths.into_iter().flatten() {
            *path = base.join(&*path);
        }
        Ok(config)
    }

    /// Everything that parses but makes no sense; touches no file.
    pub fn check(&self) -> Vec<Problem> {
        let positive = |value: Option<f64>| value.is_none_or(|v| v.is_finite() && v > 0.0);
        let probability = |value: Option<f32>| value.is_none_or(|v| (0.0..=1.0).contains(&v));
        let hour = 0.0..=3600.0;
        let source = &self.source;
        let rules = [
            (
                "source.settle-seconds",
                hour.contains(&source.settle_seconds),
                "must lie between 0 and 3600",
            ),
            (
                "source.rescan-seconds",
                source.rescan_seconds >= 0.1 && hour.contains(&source.rescan_seconds),
                "must lie between 0.1 and 3600",
            ),
            (
                "source.max-pixels",
                source.max_pixels > 0,
                "must be positive",
            ),
            (
                "source.gsd",
                positive(source.gsd),
                "must be positive metres per pixel",
            ),
            (
                "source.scale",
                positive(source.scale),
                "must be a positive factor",
            ),
            (
                "ledger.commit-frames",
                (1..=10_000).contains(&self.ledger.commit_frames),
                "must lie between 1 and 10000",
            ),
            (
                "ledger.commit-seconds",
                (0.0..=60.0).contains(&self.ledger.commit_seconds),
                "must lie between 0 and 60",
            ),
            (
                "source.finished-folder",
                self.source.finished != Finished::Move
                    || !self.watches(&self.source.finished_folder),
                "must not lie in a folder that is watched: files would come again",
            ),
            (
                "source.failed-folder",
                !(self.source.failed_folder.iter()).any(|folder| self.watches(folder)),
                "must not lie in a folder that is watched: files would come again",
            ),
            (
                "detect.gate",
                probability(self.detect.gate),
                "must lie between 0 and 1",
            ),
            (
                "detect.mask",
                probability(self.detect.mask),
                "must lie between 0 and 1",
            ),
        ];
        rules
            .into_iter()
            .filter(|(_, holds, _)| !holds)
            .map(|(key, _, reason)| Problem { key, reason })
            .collect()
    }

    /// How the folder is watched.
    ///
    /// # Panics
    /// If [`Config::check`] finds a problem with the seconds.
    pub fn folder_options(&self) -> FolderOptions {
        FolderOptions {
            recursive: self.source.recursive,
            settle: Duration::from_secs_f64(self.source.settle_seconds),
            rescan: Duration::from_secs_f64(self.source.rescan_seconds),
        }
    }

    /// Whether files in a folder are watched.
    fn watches(&self, folder: &Path) -> bool {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let [watched, folder] = [&self.source.folder, folder].map(absolute);
        match self.source.recursive {
            true => folder.starts_with(watched),
            false => folder == watched,
        }
    }

    /// What becomes of a file whose frame is done.
    pub fn finish(&self) -> Finish {
        match self.source.finished {
            Finished::Keep => Finish::Keep,
            Finished::Delete => Finish::Delete,
            Finished::Move => Finish::Move(self.source.finished_folder.clone()),
        }
    }

    /// Where the ledger lies: beside the detections unless it is said. A pipe or a terminal has no beside, so
    /// that is then the folder that the program runs in.
    pub fn ledger_file(&self) -> PathBuf {
        let detections = &self.output.detections;
        let is_file = |path: &Path| path.metadata().is_ok_and(|m| m.is_file());
        match &self.ledger.file {
            Some(file) => file.clone(),
            None if is_file(detections) || !detections.exists() => {
                detections.with_extension("ledger")
            }
            None => "shipwatch.ledger".into(),
        }
    }

    /// How many frames are committed together.
    ///
    /// # Panics
    /// If [`Config::check`] finds a problem with the seconds.
    pub fn group(&self) -> Group {
        Group {
            frames: self.ledger.commit_frames,
            delay: Duration::from_secs_f64(self.ledger.commit_seconds),
        }
    }

    /// How files are decoded.
    pub fn decode_options(&self) -> DecodeOptions {
        DecodeOptions {
            max_pixels: self.source.max_pixels,
            stretch: self.source.stretch,
        }
    }

    /// How ships are found.
    pub fn detect_options(&self) -> Options {
        Options {
            scale: self.source.scale,
            gsd: self.source.gsd,
            gate: self.detect.gate,
            mask: self.detect.mask,
            min_area: self.detect.min_area,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("config.toml");
        std::fs::write(&path, text).expect("writes");
        Config::read(&path)
    }

    fn problems(text: &str) -> Vec<&'static str> {
        read(text)
            .expect(text)
            .check()
            .iter()
            .map(|problem| problem.key)
            .collect()
    }

    #[test]
    fn an_empty_file_is_the_default_and_has_no_problems() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("config.toml");
        std::fs::write(&path, "").expect("writes");
        let config = Config::read(&path).expect("reads");
        assert_eq!(
            config.source.folder,
            folder.path().join("incoming"),
            "relative to the file"
        );
        assert_eq!(config.check(), []);
        assert_eq!(Config::default().check(), []);
        assert_eq!(Config::default().folder_options(), FolderOptions::default());
        assert_eq!(Config::default().decode_options(), DecodeOptions::default());
        assert_eq!(Config::default().detect_options(), Options::default());
    }

    #[test]
    fn every_key_reaches_its_place() {
        let config = read(
            r#"
            models = "/models"
            [source]
            folder = "/in"
            recursive = true
            settle-seconds = 2
            rescan-seconds = 60
            max-pixels = 1000
            stretch = [1, 99]
            gsd = 0.5
            scale = 0.25
            finished = "move"
            finished-folder = "/done"
            failed-folder = "/failed"
            [ledger]
            file = "/ledger"
            commit-frames = 3
            commit-seconds = 2
            [output]
            detections = "/out.jsonl"
            overlay = "/overlays"
            [detect]
            gate = 0.25
            mask = 0.5
            min-area = 9
            "#,
        )
        .expect("reads");
        assert_eq!(config.check(), []);
        assert_eq!(config.models.as_deref(), Some(Path::new("/models")));
        assert_eq!(
            config.output.overlay.as_deref(),
            Some(Path::new("/overlays"))
        );
        assert_eq!(config.finish(), Finish::Move("/done".into()));
        assert_eq!(
            config.source.failed_folder.as_deref(),
            Some(Path::new("/failed"))
        );
        assert_eq!(config.ledger_file(), Path::new("/ledger"));
        let group = config.group();
        assert_eq!((group.frames, group.delay), (3, Duration::from_secs(2)));
        let folder = config.folder_options();
        assert_eq!(
            (folder.recursive, folder.settle),
            (true, Duration::from_secs(2))
        );
        assert_eq!(
            config.decode_options().stretch,
            Percentiles::new(1.0, 99.0).ok()
        );
        let options = config.detect_options();
        assert_eq!((options.gsd, options.scale), (Some(0.5), Some(0.25)));
        assert_eq!(
            (options.gate, options.mask, options.min_area),
            (Some(0.25), Some(0.5), Some(9))
        );
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_named_with_file_and_line() {
        for (text, key) in [
            ("\n[source]\nfoldr = \"x\"", "foldr"),
            ("\n\n[nonsense]", "nonsense"),
            ("\n[source]\nstretch = [98, 2]", "percentiles"),
            ("\n[detect]\nmin-area = -1", "min-area"),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(
                error.contains("config.toml") && error.contains("line 3"),
                "{error}"
            );
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        assert_eq!(
            problems("[source]\nsettle-seconds = -1"),
            ["source.settle-seconds"]
        );
        assert_eq!(
            problems("[source]\nrescan-seconds = nan"),
            ["source.rescan-seconds"]
        );
        assert_eq!(problems("[source]\nmax-pixels = 0"), ["source.max-pixels"]);
        assert_eq!(
            problems("[source]\ngsd = 0.0\nscale = inf"),
            ["source.gsd", "source.scale"]
        );
        assert_eq!(
            problems("[detect]\ngate = 2\nmask = -1"),
            ["detect.gate", "detect.mask"]
        );
        assert_eq!(
            problems("[ledger]\ncommit-frames = 0\ncommit-seconds = nan"),
            ["ledger.commit-frames", "ledger.commit-seconds"]
        );
        let folders = "[source]\nfinished = 'move'\nfinished-folder = 'incoming/done'\n";
        assert_eq!(problems(folders), [""; 0]);
        assert_eq!(
            problems(&format!(
                "{folders}recursive = true\nfailed-folder = 'incoming'"
            )),
            ["source.finished-folder", "source.failed-folder"]
        );
    }
}

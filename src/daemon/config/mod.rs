//! The config file of `shipwatch run`.

mod rule;
mod source;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

pub use rule::Problem;
use rule::{Rule, broken};
pub use source::{Finished, SourceConfig};

use super::Group;
use super::heat::{Limits, MOST_STEPS};
use super::retention::{Folder, Keep};
use crate::detect::Options;
use crate::ledger::Retention;
use crate::source::finish::target;

/// Standard output, among outputs.
const STDOUT: &str = "-";

const MEGABYTE: u64 = 1_000_000;

/// What the daemon is told to do. Every key may be left out.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Folder of the model bundle; the models embedded in the program where there is none.
    pub models: Option<PathBuf>,
    /// Where frames come from; one source as it is by default if none is named.
    pub source: Vec<SourceConfig>,
    /// Where results go.
    pub output: OutputConfig,
    /// Where decisions are cut.
    pub detect: DetectConfig,
    /// What is done, on disk.
    pub ledger: LedgerConfig,
    /// When to work slower.
    pub heat: HeatConfig,
    /// How much is kept.
    pub retention: RetentionConfig,
    /// Folder for what is of use only while the system runs; systemd's, or the user's, where there is none.
    pub runtime_folder: Option<PathBuf>,
}

/// Section `[output]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct OutputConfig {
    /// File of JSON lines that is appended to; standard output if it is `-`.
    pub detections: PathBuf,
    /// File in the submission form of the Airbus challenge that is appended to as well, or `-`.
    pub csv: Option<PathBuf>,
    /// A file that has grown to so many megabytes is moved to a name with a number, and begun anew.
    pub rotate_megabytes: u64,
    /// Folder for pictures of frames with the ships outlined; none are written where there is none.
    pub overlay: Option<PathBuf>,
    /// Folder for each ship, cut out; none are written where there is none.
    pub crops: Option<PathBuf>,
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

/// Section `[retention]`. A megabyte is a million bytes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RetentionConfig {
    /// Detections in the ledger, and complete files of them, are deleted after so many days; never for their age
    /// where there is none.
    pub days: Option<f64>,
    /// Most megabytes of the ledger.
    pub ledger_megabytes: u64,
    /// Most megabytes of complete files of detections, for each kind.
    pub detections_megabytes: u64,
    /// Most megabytes of pictures, for each kind: the oldest are deleted.
    pub pictures_megabytes: u64,
    /// Megabytes of a disk that are never used.
    pub reserve_megabytes: u64,
}

/// Section `[heat]`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct HeatConfig {
    /// Degrees Celsius above which the daemon works slower.
    pub limit: f32,
    /// At most this many times it halves how much of the time it works.
    pub steps: u8,
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

impl Default for Config {
    fn default() -> Self {
        Self {
            models: None,
            source: vec![SourceConfig::default()],
            output: OutputConfig::default(),
            detect: DetectConfig::default(),
            ledger: LedgerConfig::default(),
            retention: RetentionConfig::default(),
            runtime_folder: None,
            heat: HeatConfig::default(),
        }
    }
}

impl Default for HeatConfig {
    fn default() -> Self {
        let Limits { celsius, steps } = Limits::default();
        Self {
            limit: celsius,
            steps,
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

impl OutputConfig {
    /// Where JSON lines go.
    pub fn detections(&self) -> &Path {
        named(&self.detections)
    }

    /// Where the Airbus form goes, if anywhere.
    pub fn csv(&self) -> Option<&Path> {
        self.csv.as_deref().map(named)
    }
}

fn named(path: &Path) -> &Path {
    match path == Path::new(STDOUT) {
        true => Path::new("/dev/stdout"),
        false => path,
    }
}

impl Default for OutputConfig {
    fn default() -> Self {
        Self {
            detections: "detections.jsonl".into(),
            csv: None,
            rotate_megabytes: 64,
            overlay: None,
            crops: None,
        }
    }
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self {
            days: None,
            ledger_megabytes: 256,
            detections_megabytes: 1024,
            pictures_megabytes: 1024,
            reserve_megabytes: 100,
        }
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
    #[error("{path}: line {line}, `{text}`: {message}", path = .path.display())]
    Syntax {
        /// The config file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What stands in that line.
        text: String,
        /// What is wrong there.
        message: String,
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
        let mut config: Self = toml::from_str(&text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = text[..start].matches('\n').count();
            ConfigError::Syntax {
                path: path.to_owned(),
                line: line + 1,
                text: text.lines().nth(line).unwrap_or_default().trim().to_owned(),
                message: error.message().to_owned(),
            }
        })?;
        let base = path.parent().unwrap_or(Path::new(""));
        for source in &mut config.source {
            source.resolve(base);
        }
        let paths = [
            config.ledger.file.as_mut(),
            Some(&mut config.output.detections),
            config.output.csv.as_mut(),
            config.output.overlay.as_mut(),
            config.output.crops.as_mut(),
            config.models.as_mut(),
            config.runtime_folder.as_mut(),
        ];
        let is_stdout = |path: &&mut PathBuf| path.as_path() == Path::new(STDOUT);
        for path in paths.into_iter().flatten().filter(|path| !is_stdout(path)) {
            *path = base.join(&*path);
        }
        Ok(config)
    }

    /// Everything that parses but makes no sense; touches no file.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let names: HashSet<&str> = self.source.iter().map(|s| s.name.as_str()).collect();
        let rules = [
            (
                "source",
                !self.source.is_empty(),
                "must have one entry at least",
            ),
            (
                "source.name",
                names.len() == self.source.len(),
                "must differ from source to source",
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
                "output.csv",
                self.output.csv() != Some(self.output.detections()),
                "must be another file than `output.detections`",
            ),
            (
                "output.rotate-megabytes",
                (1..=1_000_000).contains(&self.output.rotate_megabytes),
                "must lie between 1 and 1000000",
            ),
            (
                "retention.days",
                self.retention
                    .days
                    .is_none_or(|days| (0.001..=100_000.0).contains(&days)),
                "must lie between 0.001 and 100000",
            ),
            (
                "retention.ledger-megabytes",
                (1..=1_000_000).contains(&self.retention.ledger_megabytes),
                "must lie between 1 and 1000000",
            ),
            (
                "retention.detections-megabytes",
                self.retention.detections_megabytes <= 1_000_000_000,
                "must not be above 1000000000",
            ),
            (
                "retention.pictures-megabytes",
                (1..=1_000_000).contains(&self.retention.pictures_megabytes),
                "must lie between 1 and 1000000",
            ),
            (
                "retention.reserve-megabytes",
                self.retention.reserve_megabytes <= 1_000_000,
                "must not be above 1000000",
            ),
            (
                "heat.limit",
                self.heat.limit > 0.0,
                "must be positive degrees Celsius, or inf for no limit",
            ),
            (
                "heat.steps",
                self.heat.steps <= MOST_STEPS,
                "must lie between 0 and 4",
            ),
        ];
        problems.extend(broken(rules, str::to_owned));
        problems.extend(broken(self.detect.rules(), |key| format!("detect.{key}")));
        for source in &self.source {
            let at = |key: &str| match self.source.len() {
                1 => format!("source.{key}"),
                _ => format!("source `{}`: {key}", source.name),
            };
            problems.extend(broken(source.rules(&self.source), at));
            problems.extend(broken(source.detect.rules(), |key| {
                at(&format!("detect.{key}"))
            }));
        }
        problems
    }

    /// Where the ledger lies: beside the detections unless it is said. A pipe or a terminal has no beside, so
    /// that is then the folder that the program runs in.
    pub fn ledger_file(&self) -> PathBuf {
        if let Some(file) = &self.ledger.file {
            return file.clone();
        }
        let detections = self.output.detections();
        // Not beside a link such as /dev/stdout.
        let place = match detections.is_symlink() {
            // Of what a link leads to, and is yet to be made, the ledger lies there as well.
            true => detections.canonicalize().or_else(|_| target(detections)),
            false => Ok(detections.to_owned()),
        };
        match place {
            Ok(file) if file.is_file() || !file.exists() => file.with_extension("ledger"),
            _ => "shipwatch.ledger".into(),
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

    /// How much is kept.
    ///
    /// # Panics
    /// If [`Config::check`] finds a problem with the days.
    pub fn keep(&self) -> Keep {
        let RetentionConfig {
            days,
            ledger_megabytes,
            detections_megabytes,
            reserve_megabytes,
            ..
        } = self.retention;
        let folders = self.source.iter().filter_map(|source| {
            Some(Folder {
                source: source.name.clone(),
                path: source.watched()?.to_owned(),
                keeps: source.finished == Finished::Keep,
            })
        });
        Keep {
            ledger: Retention {
                age: days.map(|days| Duration::from_secs_f64(days * 86_400.0)),
                bytes: ledger_megabytes * MEGABYTE,
            },
            complete: detections_megabytes * MEGABYTE,
            reserve: reserve_megabytes * MEGABYTE,
            folders: folders.collect(),
        }
    }

    /// When the daemon works slower.
    pub fn heat_limits(&self) -> Limits {
        Limits {
            celsius: self.heat.limit,
            steps: self.heat.steps,
        }
    }

    /// How ships are found on frames of a source.
    pub fn detect_options(&self, source: &SourceConfig) -> Options {
        let (own, all) = (&source.detect, &self.detect);
        Options {
            scale: source.scale,
            gsd: source.gsd,
            swath: source.swath(),
            gate: own.gate.or(all.gate),
            mask: own.mask.or(all.mask),
            min_area: own.min_area.or(all.min_area),
            regions: source.regions(),
        }
    }
}

impl DetectConfig {
    fn rules(&self) -> [Rule; 2] {
        let probability = |value: Option<f32>| value.is_none_or(|v| (0.0..=1.0).contains(&v));
        let reason = "must lie between 0 and 1";
        [
            ("gate", probability(self.gate), reason),
            ("mask", probability(self.mask), reason),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Regions;
    use crate::frame::Percentiles;
    use crate::source::decode::DecodeOptions;
    use crate::source::finish::Finish;
    use crate::source::folder::FolderOptions;
    use crate::source::stream::{Form, Input, StreamOptions};

    fn read(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("config.toml");
        std::fs::write(&path, text).expect("writes");
        Config::read(&path)
    }

    fn problems(text: &str) -> Vec<String> {
        let problems = read(text).expect(text).check();
        problems.into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn an_empty_file_is_the_default_and_has_no_problems() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("config.toml");
        std::fs::write(&path, "").expect("writes");
        let config = Config::read(&path).expect("reads");
        assert_eq!(
            config.source[0].watched(),
            Some(&*folder.path().join("incoming")),
            "relative to the file"
        );
        assert_eq!(config.check(), []);
        assert_eq!(Config::default().check(), []);
        let source = SourceConfig::default();
        assert_eq!(source.folder_options(), FolderOptions::default());
        assert_eq!(source.decode_options(), DecodeOptions::default());
        assert_eq!(config.detect_options(&source), Options::default());
        assert_eq!(config.heat_limits(), Limits::default());
    }

    #[cfg(unix)]
    #[test]
    fn the_ledger_of_a_link_stays_where_it_is_once_detections_are_there() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("data")).expect("creates");
        std::os::unix::fs::symlink("data/out.jsonl", path("link.jsonl")).expect("links");
        let mut config = Config::default();
        config.output.detections = path("link.jsonl");
        let before = config.ledger_file();
        std::fs::write(path("data/out.jsonl"), "").expect("writes");
        assert_eq!(before, config.ledger_file());
        assert_eq!(before, path("data/out.ledger"));
        config.output.detections = "/dev/null".into();
        assert_eq!(config.ledger_file(), Path::new("shipwatch.ledger"));
    }

    #[test]
    fn every_key_reaches_its_place() {
        let config = read(
            r#"
            models = "/models"
            [[source]]
            name = "quay"
            queue = 9
            folder = "/in"
            recursive = true
            settle-seconds = 2
            rescan-seconds = 60
            max-pixels = 1000
            stretch = [1, 99]
            gsd = 0.5
            scale = 0.25
            look = [[[0, 0], [1, 0], [1, 1]], [[0, 0.5], [0.5, 1], [0, 1]]]
            ignore = [[[0, 0.9], [1, 0.9], [1, 1], [0, 1]]]
            finished = "move"
            finished-folder = "/done"
            failed-folder = "/failed"
            [ledger]
            file = "/ledger"
            commit-frames = 3
            commit-seconds = 2
            [heat]
            limit = 70
            steps = 2
            [output]
            detections = "/out.jsonl"
            csv = "/out.csv"
            rotate-megabytes = 3
            overlay = "/overlays"
            crops = "/crops"
            [retention]
            pictures-megabytes = 7
            days = 0.5
            ledger-megabytes = 4
            detections-megabytes = 5
            reserve-megabytes = 6
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
        let source = &config.source[0];
        assert_eq!((source.name.as_str(), source.queue), ("quay", 9));
        assert_eq!(source.finish(), Finish::Move("/done".into()));
        assert_eq!(source.failed_folder.as_deref(), Some(Path::new("/failed")));
        assert_eq!(config.ledger_file(), Path::new("/ledger"));
        let group = config.group();
        assert_eq!((group.frames, group.delay), (3, Duration::from_secs(2)));
        let keep = config.keep();
        assert_eq!(
            (keep.ledger.age, keep.ledger.bytes),
            (Some(Duration::from_secs(43_200)), 4_000_000)
        );
        assert_eq!((keep.complete, keep.reserve), (5_000_000, 6_000_000));
        assert_eq!(
            keep.folders,
            [Folder {
                source: "quay".into(),
                path: "/in".into(),
                keeps: false
            }]
        );
        assert_eq!(config.output.csv.as_deref(), Some(Path::new("/out.csv")));
        assert_eq!(config.output.rotate_megabytes, 3);
        assert_eq!(config.output.crops.as_deref(), Some(Path::new("/crops")));
        assert_eq!(config.retention.pictures_megabytes, 7);
        let heat = config.heat_limits();
        assert_eq!((heat.celsius, heat.steps), (70.0, 2));
        let folder = source.folder_options();
        assert_eq!(
            (folder.recursive, folder.settle),
            (true, Duration::from_secs(2))
        );
        assert_eq!(
            source.decode_options().stretch,
            Percentiles::new(1.0, 99.0).ok()
        );
        let options = config.detect_options(source);
        assert_eq!((options.gsd, options.scale), (Some(0.5), Some(0.25)));
        let polygon = |text: &str| text.parse().expect("a polygon");
        let regions = Regions {
            look: vec![polygon("0,0 1,0 1,1"), polygon("0,0.5 0.5,1 0,1")],
            ignore: vec![polygon("0,0.9 1,0.9 1,1 0,1")],
        };
        assert_eq!(options.regions, regions);
        assert_eq!(
            (options.gate, options.mask, options.min_area),
            (Some(0.25), Some(0.5), Some(9))
        );
    }

    #[test]
    fn streams_are_read_as_they_are_named() {
        let options = |keys: &str| {
            let config = read(&format!("[[source]]\n{keys}")).expect(keys);
            assert_eq!(config.check(), []);
            assert_eq!(config.source[0].watched(), None);
            config.source[0].stream_options().expect(keys)
        };
        assert_eq!(options("stream = '-'"), StreamOptions::new(Input::Stdin));
        assert_eq!(
            options("stream = '/run/deck'"),
            StreamOptions::new(Input::Fifo("/run/deck".into()))
        );
        let command = "command = ['ffmpeg', '-n']\nform = 'y4m'\nrate = 4\nsilent-seconds = 60";
        let command = format!("{command}\nfull = 'block'\nmax-pixels = 1000\nstretch = [1, 99]");
        let command = options(&command);
        assert_eq!(
            command,
            StreamOptions {
                input: Input::Command(vec!["ffmpeg".into(), "-n".into()]),
                form: Some(Form::Y4m),
                interval: Duration::from_millis(250),
                keep_all: true,
                silence: Duration::from_secs(60),
                decode: DecodeOptions {
                    max_pixels: 1000,
                    stretch: Percentiles::new(1.0, 99.0).ok(),
                },
            }
        );
        // Paths are relative to the file, programs are searched for.
        let Input::Fifo(path) = options("stream = 'deck'").input else {
            panic!("a FIFO");
        };
        assert!(path.is_absolute() && path.ends_with("deck"), "{path:?}");
        let Input::Command(words) = options("command = ['bin/film', 'a/b']").input else {
            panic!("a command");
        };
        assert!(words[0].starts_with('/') && words[0].ends_with("/bin/film"));
        assert_eq!(words[1], "a/b");
        assert_eq!(SourceConfig::default().stream_options(), None);
    }

    #[test]
    fn streams_that_make_no_sense_are_named() {
        for (keys, key) in [
            ("stream = '-'\ncommand = ['a']", "source.stream"),
            ("stream = '-'\nfolder = 'a'", "source.stream"),
            ("command = ['a']\ncamera = 'a'", "source.stream"),
            ("command = []", "source.command"),
            ("command = ['', 'a']", "source.command"),
            (
                "stream = '-'\nsilent-seconds = nan",
                "source.silent-seconds",
            ),
            ("stream = '-'\nrate = 0", "source.rate"),
        ] {
            let found = problems(&format!("[[source]]\n{keys}"));
            // A build without cameras has more to say of them.
            assert!(found.iter().any(|found| found == key), "{keys}: {found:?}");
        }
        let two = |a, b| {
            let source =
                |name, stream| format!("[[source]]\nname = '{name}'\nstream = '{stream}'\n");
            problems(&(source("a", a) + &source("b", b)))
        };
        assert_eq!(two("-", "-"), ["source `a`: stream", "source `b`: stream"]);
        assert_eq!(two("deck", "deck").len(), 2);
        assert_eq!(two("-", "deck"), [""; 0]);
    }

    #[test]
    fn height_and_lens_give_the_ground_that_frames_show() {
        let swath = |optics: &str| {
            let config = read(&format!("[[source]]\naltitude = 120\n{optics}")).expect(optics);
            assert_eq!(config.check(), [], "{optics}");
            config.detect_options(&config.source[0]).swath
        };
        // 120 m * 13.2 mm / 8.8 mm.
        let sensor = swath("focal-length = 8.8\nsensor-width = 13.2").expect("a width");
        assert!((sensor - 180.0).abs() < 1e-9, "{sensor}");
        let angle = swath("field-of-view = 90").expect("a width");
        assert!((angle - 240.0).abs() < 1e-9, "{angle}");
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_named_with_file_and_line() {
        for (text, key) in [
            ("\n[[source]]\nfoldr = \"x\"", "foldr"),
            ("\n\n[nonsense]", "nonsense"),
            ("\n[[source]]\nstretch = [98, 2]", "percentiles"),
            ("\n[detect]\nmin-area = -1", "min-area"),
            (
                "[[source]]\nlook = [[[0, 0], [1, 0], [1, 1]],\n[[0, 0], [1, 1]]]",
                "this one has 2",
            ),
            (
                "\n[[source]]\nlook = [[0, 0], [1, 0], [1, 1]]",
                "a polygon is [[x, y]",
            ),
            ("\n[[source]]\nlook = [[[0, 0, 0]]]", "a polygon is [[x, y]"),
            ("\n[[source]]\nlook = 'left'", "sequence"),
            (
                "\n[[source]]\nignore = [[[0, 0], [nan, 0], [1, 1]]]",
                "corner 2",
            ),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(
                error.contains("config.toml") && error.contains("line 3"),
                "{error}"
            );
            assert!(error.contains(key), "{error}");
        }
    }

    /// An unknown key is answered with those that are known.
    #[test]
    fn the_example_names_every_key() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/config.toml");
        let example = std::fs::read_to_string(file).expect("reads");
        let sections = [
            "",
            "[[source]]",
            "[output]",
            "[detect]",
            "[ledger]",
            "[retention]",
            "[heat]",
        ];
        for section in sections {
            let text = format!("{section}\nno-such-key = 1");
            let error = read(&text).expect_err(section).to_string();
            let (_, known) = error.split_once("expected ").expect("names them");
            let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
            assert!(known.len() > 1, "{error}");
            for key in known {
                let named = example.lines().any(|line| {
                    let line = line.trim_start_matches("# ");
                    line.starts_with(&format!("{key} =")) || line.trim_matches(['[', ']']) == key
                });
                assert!(named, "{section} {key}");
            }
        }
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        assert_eq!(
            problems("[[source]]\nsettle-seconds = -1"),
            ["source.settle-seconds"]
        );
        assert_eq!(
            problems("[[source]]\nrescan-seconds = nan"),
            ["source.rescan-seconds"]
        );
        assert_eq!(
            problems("[[source]]\nmax-pixels = 0"),
            ["source.max-pixels"]
        );
        assert_eq!(
            problems("[[source]]\ngsd = 0.0\nscale = inf"),
            ["source.gsd", "source.scale"]
        );
        for (optics, named) in [
            ("altitude = 120", "altitude"),
            ("field-of-view = 70", "altitude"),
            ("focal-length = 8.8\nsensor-width = 13.2", "altitude"),
            ("altitude = 120\nfocal-length = 8.8", "focal-length"),
            ("altitude = 120\nsensor-width = 13.2", "focal-length"),
            ("altitude = 0\nfield-of-view = 70", "altitude"),
            ("altitude = 9\nfield-of-view = 180", "field-of-view"),
            ("altitude = 9\nfield-of-view = nan", "field-of-view"),
            (
                "altitude = 9\nfocal-length = inf\nsensor-width = 1",
                "focal-length",
            ),
            (
                "altitude = 9\nfocal-length = 1\nsensor-width = -1",
                "sensor-width",
            ),
            (
                "altitude = 9\nfocal-length = 1\nsensor-width = 1\nfield-of-view = 9",
                "field-of-view",
            ),
        ] {
            let named = [format!("source.{named}")];
            assert_eq!(
                problems(&format!("[[source]]\n{optics}")),
                named,
                "{optics}"
            );
        }
        assert_eq!(
            problems("[detect]\ngate = 2\nmask = -1"),
            ["detect.gate", "detect.mask"]
        );
        assert_eq!(
            problems("[ledger]\ncommit-frames = 0\ncommit-seconds = nan"),
            ["ledger.commit-frames", "ledger.commit-seconds"]
        );
        assert_eq!(
            problems(
                "[retention]\ndays = 0\nledger-megabytes = 0\n[output]\ncsv = 'detections.jsonl'\n\
                 rotate-megabytes = 0"
            ),
            [
                "output.csv",
                "output.rotate-megabytes",
                "retention.days",
                "retention.ledger-megabytes"
            ]
        );
        assert_eq!(
            problems("[heat]\nlimit = nan\nsteps = 5"),
            ["heat.limit", "heat.steps"]
        );
        assert_eq!(problems("[heat]\nlimit = inf\nsteps = 0"), [""; 0]);
        let folders = "[[source]]\nfinished = 'move'\nfinished-folder = 'incoming/done'\n";
        assert_eq!(problems(folders), [""; 0]);
        let two =
            "[[source]]\nname = 'a'\n[[source]]\nname = 'b'\ngsd = 0\n[source.detect]\ngate = 3";
        assert_eq!(
            problems(two),
            ["source `b`: gsd", "source `b`: detect.gate"]
        );
        assert_eq!(problems("[[source]]\n[[source]]"), ["source.name"]);
        let same = "[[source]]\nname = 'a'\n[[source]]\nname = 'b'\nfinished = 'delete'";
        assert_eq!(problems(same), ["source `a`: folder"]);
        assert_eq!(
            problems("[[source]]\nfull = 'drop-oldest'"),
            ["source.full"]
        );
        assert_eq!(problems("source = []"), ["source"]);
        assert_eq!(
            problems(&format!(
                "{folders}recursive = true\nfailed-folder = 'incoming'"
            )),
            ["source.finished-folder", "source.failed-folder"]
        );
    }
}

//! `run.json`: where, when and by which build a run was made.

use std::fs;

use anyhow::{Context, Result, ensure};
use git_version::git_version;
use serde::{Deserialize, Serialize};
use shipwatch::model::Run;

use crate::config::Config;
use crate::data::Pool;
use crate::run_folder::{CONFIG, RunFolder, unreadable};

/// Git revision that this program was built from, `-dirty` where files differed from it; empty
/// outside a checkout.
const REVISION: &str = git_version!(
    args = ["--always", "--dirty", "--abbrev=40", "--exclude=*"],
    fallback = ""
);

/// The file's name.
const RUN: &str = "run.json";

/// A run, for whoever finds its folder; what it was told to do is in `config.toml`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RunInfo {
    name: String,
    seed: u64,
    /// SHA-256 of what each image is for.
    split: String,
    /// SHA-256 of the ships that are trained and tuned on; older runs do not know it.
    labels: Option<String>,
    /// The start, and each time that the run went on after a stop.
    sessions: Vec<Session>,
}

/// A stretch in which the run was not stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// RFC 3339, UTC.
    started: String,
    /// Version of shipwatch.
    shipwatch: String,
    /// What `train` was built from; none where that was no checkout.
    revision: Option<String>,
    /// The back end.
    device: String,
    /// Threads that the CPU computes with.
    threads: usize,
    /// Threads that make tiles.
    workers: usize,
}

impl Session {
    /// One that starts now.
    pub(crate) fn start(device: String, workers: usize) -> Self {
        Self {
            started: jiff::Timestamp::now().to_string(),
            shipwatch: env!("CARGO_PKG_VERSION").to_owned(),
            revision: (!REVISION.is_empty()).then(|| REVISION.to_owned()),
            device,
            threads: rayon::current_num_threads(),
            workers,
        }
    }

    /// Whether both compute the same bits, as far as can be told.
    fn computes_like(&self, other: &Self) -> bool {
        let of = |s: &Self| {
            (
                s.device.clone(),
                s.threads,
                s.shipwatch.clone(),
                s.revision.clone(),
            )
        };
        of(self) == of(other)
    }
}

impl RunInfo {
    /// What stands in a run's folder.
    ///
    /// # Errors
    /// If the file is not there or cannot be read.
    pub(crate) fn load(folder: &RunFolder) -> Result<Self> {
        let path = folder.file(RUN);
        let context = || unreadable(&path);
        let text = fs::read(&path).with_context(context)?;
        serde_json::from_slice(&text).with_context(context)
    }

    /// Checks that each image is for what it was for when the run began.
    ///
    /// # Errors
    /// If one is not, for then what was trained on could be tuned or tested on.
    pub(crate) fn check_split(&self, folder: &RunFolder, pool: &Pool) -> Result<()> {
        ensure!(
            self.split == pool.split_hash(),
            "{}: the run began with another split: images were added to a data folder or taken out of one, or `split`, `split.csv`, `tune` or `test` puts some elsewhere now. Bring them back to what they were, or train anew in a new folder",
            folder.path().display()
        );
        Ok(())
    }

    /// Checks that what is trained and tuned on is labelled as it was when the run began, as far as
    /// that is known.
    ///
    /// # Errors
    /// If it is not, for then scores before and after could not be compared.
    fn check_labels(&self, folder: &RunFolder, pool: &Pool) -> Result<()> {
        let known = self.labels.as_ref();
        ensure!(
            known.is_none_or(|labels| *labels == pool.label_hash()),
            "{}: the run began with other labels: a CSV of masks has changed since. Bring it back to what it was, or train anew in a new folder",
            folder.path().display()
        );
        Ok(())
    }

    /// Where the weights come from, for the manifest.
    pub(crate) fn origin(self) -> Run {
        let mut revisions = self.sessions.into_iter().filter_map(|s| s.revision);
        Run {
            split: Some(self.split),
            revision: revisions.next_back(),
        }
    }
}

/// Notes in the run's folder its config and a session. Neither is touched before both are known to go
/// on with what was trained already.
///
/// # Errors
/// If the config, the images, their labels, or what they are for, are not those with which the run
/// began.
pub(crate) fn describe(
    folder: &RunFolder,
    config: &Config,
    pool: &Pool,
    session: Session,
) -> Result<()> {
    let mut info = RunInfo {
        name: config.name.clone(),
        seed: config.seed,
        split: pool.split_hash(),
        labels: Some(pool.label_hash()),
        sessions: Vec::new(),
    };
    if folder.has_begun() {
        folder.check_config(config)?;
        let before = RunInfo::load(folder)?;
        before.check_split(folder, pool)?;
        before.check_labels(folder, pool)?;
        info.sessions = before.sessions;
    }
    if let Some(last) = info.sessions.last()
        && !session.computes_like(last)
    {
        log::warn!(
            "the run goes on by another build, device or number of threads than before: the last bits of its weights may differ from those of a run in one go"
        );
    }
    info.sessions.push(session);
    folder.write(CONFIG, toml::to_string(config)?.as_bytes())?;
    folder.write(RUN, &serde_json::to_vec_pretty(&info)?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::PhaseName;
    use crate::data::{Split, fixtures};
    use crate::nn::Params;
    use crate::run_folder::Checkpoint;
    use crate::trainer::State;

    fn session(threads: usize) -> Session {
        Session {
            threads,
            ..Session::start("cpu".into(), 1)
        }
    }

    /// A run of the images that `pool` holds, and where it is.
    fn begun(dir: &Path, pool: &Pool) -> (RunFolder, Config) {
        let phases = "phases.unet = { steps = 1 }\ndata = []";
        let text = format!("name = \"toy\"\ngsd = [1.0, 1.0]\n{phases}");
        let config: Config = toml::from_str(&text).expect("a config");
        let folder = RunFolder::create(&dir.join("run")).expect("creates");
        describe(&folder, &config, pool, session(1)).expect("describes");
        let checkpoint = Checkpoint {
            state: State::default(),
            tensors: Params::default(),
        };
        let saved = folder.save_best(PhaseName::Unet, 0, 0.5, &checkpoint.tensors);
        saved.expect("saves");
        let saved = folder.save_checkpoint(PhaseName::Unet, &checkpoint);
        saved.expect("saves");
        (folder, config)
    }

    #[test]
    fn another_split_is_refused_before_anything_is_written() {
        let dir = tempfile::tempdir().expect("folder");
        let mut pool = fixtures::pool(dir.path());
        let (folder, mut config) = begun(dir.path(), &pool);
        let read = || {
            let files = [CONFIG, RUN].map(|name| fs::read(folder.file(name)));
            files.map(|text| text.expect("reads"))
        };
        let before = read();
        config.name = "renamed".into();
        pool.sources[0].images[0].split = Split::Test;
        let error = describe(&folder, &config, &pool, session(1)).expect_err("another split");
        let error = error.to_string();
        assert!(
            error.contains("another split") && error.contains(&folder.path().display().to_string()),
            "{error}"
        );
        assert_eq!(read(), before);
        let info = RunInfo::load(&folder).expect("reads");
        info.check_split(&folder, &pool).expect_err("another split");

        pool.sources[0].images[0].split = Split::Train;
        describe(&folder, &config, &pool, session(1)).expect("goes on");
        let info = RunInfo::load(&folder).expect("reads");
        assert_eq!((info.name.as_str(), info.sessions.len()), ("renamed", 2));
    }

    #[test]
    fn what_is_lost_of_a_run_is_named_with_a_remedy() {
        for name in [RUN, CONFIG] {
            for damage in [None, Some(0), Some(10)] {
                let dir = tempfile::tempdir().expect("folder");
                let pool = fixtures::pool(dir.path());
                let (folder, config) = begun(dir.path(), &pool);
                let path = folder.file(name);
                let whole = fs::read(&path).expect("reads");
                fs::remove_file(&path).expect("deletes");
                if let Some(length) = damage {
                    fs::write(&path, &whole[..length]).expect("writes");
                }
                let error = describe(&folder, &config, &pool, session(1)).expect_err("damaged");
                let error = error.to_string();
                assert!(error.contains(&format!("{name}: lost, damaged")), "{error}");
                assert!(error.contains("restore it, or train anew"), "{error}");
            }
        }
    }

    #[test]
    fn other_labels_are_refused_where_those_of_the_start_are_known() {
        let dir = tempfile::tempdir().expect("folder");
        let mut pool = fixtures::pool(dir.path());
        let (folder, config) = begun(dir.path(), &pool);
        pool.sources[0].images[1].labelled.ships.clear();
        let error = describe(&folder, &config, &pool, session(1)).expect_err("other labels");
        assert!(error.to_string().contains("other labels"), "{error}");
        let info = RunInfo::load(&folder).expect("reads");
        assert_eq!(info.sessions.len(), 1);
        info.check_split(&folder, &pool)
            .expect("the split is the same");

        // As runs were described before labels counted.
        let (split, labels) = (pool.split_hash(), pool.label_hash());
        let old = format!(r#"{{ "name": "toy", "seed": 0, "split": "{split}", "sessions": [] }}"#);
        fs::write(folder.file(RUN), old).expect("writes");
        describe(&folder, &config, &pool, session(1)).expect("goes on");
        let info = RunInfo::load(&folder).expect("reads");
        assert_eq!(info.labels, Some(labels));
    }

    #[test]
    fn the_judging_frames_stay_until_the_phase_is_over() {
        let dir = tempfile::tempdir().expect("folder");
        let pool = fixtures::pool(dir.path());
        let (folder, mut config) = begun(dir.path(), &pool);
        config.judge.frames += 1;
        let error = describe(&folder, &config, &pool, session(1)).expect_err("other frames");
        assert!(error.to_string().contains("`judge.frames`"), "{error}");
        let mut checkpoint = folder
            .checkpoint(PhaseName::Unet)
            .expect("reads")
            .expect("begun");
        checkpoint.state.done = true;
        let saved = folder.save_checkpoint(PhaseName::Unet, &checkpoint);
        saved.expect("saves");
        describe(&folder, &config, &pool, session(1)).expect("no score hangs on it any more");
    }

    #[test]
    fn a_run_says_where_its_weights_come_from() {
        for (sessions, revision) in [
            (vec![], None),
            (vec![Some("0a1b")], Some("0a1b")),
            (vec![Some("0a1b"), Some("2c")], Some("2c")),
            (vec![Some("0a1b"), None], Some("0a1b")),
        ] {
            let session = |revision: Option<&str>| Session {
                revision: revision.map(str::to_owned),
                ..session(1)
            };
            let info = RunInfo {
                name: String::new(),
                seed: 1,
                split: "77".into(),
                labels: None,
                sessions: sessions.into_iter().map(session).collect(),
            };
            let run = info.origin();
            assert_eq!(
                (run.split.as_deref(), run.revision.as_deref()),
                (Some("77"), revision)
            );
        }
    }

    #[test]
    fn threads_and_builds_decide_over_bits_and_workers_do_not() {
        let one = session(2);
        let later = Session {
            workers: 7,
            started: "later".into(),
            ..one.clone()
        };
        assert!(later.computes_like(&one));
        assert!(!session(3).computes_like(&one));
        let other = Session {
            revision: Some("another build".into()),
            ..one.clone()
        };
        assert!(!other.computes_like(&one));
        assert!(one.started.ends_with('Z'), "{}", one.started);
    }
}

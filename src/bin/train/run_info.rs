//! `run.json`: where, when and by which build a run was made.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::files::replace;
use crate::run_folder::RunFolder;

/// A run, for whoever finds its folder; what it was told to do is in `config.toml`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RunInfo {
    name: String,
    seed: u64,
    /// SHA-256 of what each image is for.
    split: String,
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
    /// The checkout in which `train` was called; none outside one.
    git: Option<Git>,
    /// The back end.
    device: String,
    /// Threads that the CPU computes with.
    threads: usize,
    /// Threads that make tiles.
    workers: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Git {
    revision: String,
    /// Whether files differed from the revision.
    dirty: bool,
}

impl Session {
    /// One that starts now.
    pub(crate) fn start(device: String, workers: usize) -> Self {
        Self {
            started: jiff::Timestamp::now().to_string(),
            shipwatch: env!("CARGO_PKG_VERSION").to_owned(),
            git: git(),
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
                s.git.clone(),
            )
        };
        of(self) == of(other)
    }
}

fn git() -> Option<Git> {
    let ask = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    Some(Git {
        revision: ask(&["rev-parse", "HEAD"])?,
        dirty: !ask(&["status", "--porcelain"])?.is_empty(),
    })
}

/// Adds a session to the run's `run.json`.
///
/// # Errors
/// If the images, or what they are for, are not those with which the run began.
pub(crate) fn describe(
    folder: &RunFolder,
    config: &Config,
    split: String,
    session: Session,
) -> Result<()> {
    let path = folder.file("run.json");
    let context = || path.display().to_string();
    let mut info = RunInfo {
        name: config.name.clone(),
        seed: config.seed,
        split,
        sessions: Vec::new(),
    };
    if folder.has_begun() && path.exists() {
        let text = fs::read(&path).with_context(context)?;
        let before: RunInfo = serde_json::from_slice(&text).with_context(context)?;
        ensure!(
            before.split == info.split,
            "{}: the run began with other images, or other ones of them for training, tuning and testing: give --out a new folder, or the images of then",
            path.display()
        );
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
    replace(&path, &serde_json::to_vec_pretty(&info)?).with_context(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(threads: usize) -> Session {
        Session {
            threads,
            ..Session::start("cpu".into(), 1)
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
        assert!(one.started.ends_with('Z'), "{}", one.started);
    }
}

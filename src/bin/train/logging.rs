//! The log: lines on standard error that leave a progress bar whole, and a copy in the run's folder.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use log::{Log, Metadata, Record};

static LOG: OnceLock<Tee> = OnceLock::new();

struct Tee {
    terminal: env_logger::Logger,
    file: Mutex<Option<File>>,
    /// What is drawn at the bottom of the terminal.
    bar: Mutex<Option<ProgressBar>>,
}

/// Starts logging to standard error, at the level that SHIPWATCH_LOG says or else `info`.
pub(crate) fn init() {
    let tee = LOG.get_or_init(|| Tee {
        terminal: env_logger::Builder::from_env(
            env_logger::Env::new().filter_or("SHIPWATCH_LOG", "info"),
        )
        .build(),
        file: Mutex::new(None),
        bar: Mutex::new(None),
    });
    if log::set_logger(tee).is_ok() {
        log::set_max_level(tee.terminal.filter());
    }
}

/// Appends every line to `path` as well from now on.
///
/// # Errors
/// If the file cannot be opened.
pub(crate) fn copy_to(path: &Path) -> Result<()> {
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).open(path);
    let file = file.with_context(|| path.display().to_string())?;
    if let Some(tee) = LOG.get() {
        *locked(&tee.file) = Some(file);
    }
    Ok(())
}

/// Takes a bar out of the way of every line from now on.
pub(crate) fn step_aside(bar: &ProgressBar) {
    if let Some(tee) = LOG.get() {
        *locked(&tee.bar) = Some(bar.clone());
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log for Tee {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.terminal.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        if !self.terminal.matches(record) {
            return;
        }
        match &*locked(&self.bar) {
            Some(bar) => bar.suspend(|| self.terminal.log(record)),
            None => self.terminal.log(record),
        }
        if let Some(file) = &mut *locked(&self.file) {
            let now = jiff::Timestamp::now().round(jiff::Unit::Second);
            let now = now.map_or(String::new(), |now| now.to_string());
            // A line that finds no room on the disk is on standard error all the same.
            let _ = writeln!(file, "{now} {} {}", record.level(), record.args());
        }
    }

    fn flush(&self) {
        self.terminal.flush();
    }
}

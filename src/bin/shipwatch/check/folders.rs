//! Whether the folders of a config can be read and written to, as far as the daemon will have to.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::Context;
use shipwatch::daemon::config::{Config, SourceConfig};
use shipwatch::source::finish::Finish;
use shipwatch::source::folder::FolderWatch;
use shipwatch::source::search::search;

use super::report::{Passed, Report, passed};
use crate::exit::{Exit, Failure};

/// Of more files than this, the first are tried.
const TRIED: usize = 1000;

/// Checks where results go.
pub(super) fn check_outputs(config: &Config, report: &mut Report) -> Result<(), Failure> {
    let output = &config.output;
    let ledger = config.ledger_file();
    let files = [
        ("detections", "output.detections", Some(output.detections())),
        ("csv", "output.csv", output.csv()),
        ("ledger", "ledger.file", Some(ledger.as_path())),
    ];
    for (name, key, path) in files {
        if let Some(path) = path {
            report.check(name, Exit::Config, appendable(path).context(key))?;
        }
    }
    let folders = [
        ("overlay", "output.overlay", &output.overlay),
        ("crops", "output.crops", &output.crops),
    ];
    for (name, key, folder) in folders {
        if let Some(folder) = folder {
            report.check(name, Exit::Config, creatable(folder).context(key))?;
        }
    }
    check_room(config, report)
}

/// Checks a watched folder and those that its files go to.
pub(super) fn check_source(source: &SourceConfig, report: &mut Report) -> Result<(), Failure> {
    let name = &source.name;
    if let Some(folder) = source.watched() {
        let watched = FolderWatch::open(folder, source.folder_options());
        let watched = watched
            .with_context(|| format!("folder of source `{name}`"))
            .and_then(|_| passed((), folder.display()));
        if report.check("source", Exit::Config, watched)?.is_some() {
            if takes_away(source) {
                let writable = creatable(folder).with_context(|| {
                    format!("source `{name}`: files cannot be moved away or deleted")
                });
                report.check("emptied", Exit::Config, writable)?;
            }
            check_files(folder, source.recursive, report)?;
        }
    }
    #[cfg(unix)]
    if let Some(options) = source.stream_options() {
        let found = options.input.check();
        let found = found
            .with_context(|| format!("stream of source `{name}`"))
            .and_then(|()| passed((), &options.input));
        report.check("source", Exit::Config, found)?;
    }
    if let Finish::Move(folder) = source.finish() {
        let writable = creatable(&folder);
        let writable = writable.with_context(|| format!("finished-folder of source `{name}`"));
        report.check("finished", Exit::Config, writable)?;
    }
    if let Some(folder) = &source.failed_folder {
        let writable = creatable(folder);
        let writable = writable.with_context(|| format!("failed-folder of source `{name}`"));
        report.check("failed", Exit::Config, writable)?;
    }
    Ok(())
}

/// Whether files leave the watched folder.
pub(super) fn takes_away(source: &SourceConfig) -> bool {
    source.finish() != Finish::Keep || source.failed_folder.is_some()
}

/// Files that came with rights of their own: they are skipped, whoever owns the folder.
fn check_files(folder: &Path, recursive: bool, report: &Report) -> Result<(), Failure> {
    let Ok(found) = search(folder, recursive) else {
        return Ok(());
    };
    let closed = |path: &PathBuf| File::open(path).err().map(|error| (path.clone(), error));
    let closed: Vec<_> = found.images.iter().take(TRIED).filter_map(closed).collect();
    if let Some((path, error)) = closed.first() {
        let (count, path) = (closed.len(), path.display());
        let files = if count == 1 { "file" } else { "files" };
        let remedy = "chmod g+r, or let it come with a umask that does not forbid it";
        report.note(
            "source",
            format_args!("{count} {files} cannot be read, such as {path}: {error}; {remedy}"),
        )?;
    }
    for (path, error) in &found.unreadable {
        let path = path.display();
        report.note("source", format_args!("{path} is passed over: {error}"))?;
    }
    Ok(())
}

/// The room on each disk that results go to.
#[cfg(unix)]
fn check_room(config: &Config, report: &Report) -> Result<(), Failure> {
    use std::collections::HashSet;
    use std::os::unix::fs::MetadataExt;

    let ledger = config.ledger_file();
    let finished: Vec<PathBuf> = config
        .source
        .iter()
        .filter_map(|source| match source.finish() {
            Finish::Move(folder) => Some(folder),
            _ => None,
        })
        .collect();
    let failed = config
        .source
        .iter()
        .flat_map(|source| &source.failed_folder);
    let files = [config.output.detections(), &ledger].into_iter();
    let folders = (config.output.overlay.iter())
        .chain(&config.output.crops)
        .chain(&finished)
        .chain(failed);
    let paths = files
        .chain(config.output.csv())
        .chain(folders.map(PathBuf::as_path));
    let mut disks = HashSet::new();
    for path in paths {
        let folder = existing(path);
        let Ok(place) = folder.metadata() else {
            continue;
        };
        if !disks.insert(place.dev()) {
            continue;
        }
        let Ok(disk) = rustix::fs::statvfs(folder) else {
            continue;
        };
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        let (free, total) = (bytes(disk.f_bavail), bytes(disk.f_blocks));
        let room = format!(
            "{}: {} of {} free",
            folder.display(),
            gigabytes(free),
            gigabytes(total)
        );
        // Some file systems do not count files, and say that there are none at all.
        let no_files = disk.f_files > 0 && disk.f_favail == 0;
        let reserve = config.keep().reserve;
        match (total > 0 && free <= reserve, no_files) {
            (true, _) => report.note(
                "disk",
                format_args!(
                    "{room}, no more than `retention.reserve-megabytes`: frames wait until there is"
                ),
            )?,
            (_, true) => {
                report.note("disk", format_args!("{room}, but no more files fit on it"))?
            }
            _ => report.ok("disk", room)?,
        }
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_room(_: &Config, _: &Report) -> Result<(), Failure> {
    Ok(())
}

#[cfg(unix)]
fn gigabytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// Whether a file can be appended to; leaves no file behind. What is no file, such as a pipe, is not opened: that may
/// take as long as nobody reads.
fn appendable(path: &Path) -> anyhow::Result<Passed<()>> {
    if path
        .metadata()
        .is_ok_and(|there| !there.is_file() && !there.is_dir())
    {
        return passed((), format_args!("{}, no regular file", path.display()));
    }
    let new = !path.exists();
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .with_context(|| {
            format!(
                "{} cannot be written; create its folder or allow it",
                path.display()
            )
        })?;
    if new {
        fs::remove_file(path).with_context(|| path.display().to_string())?;
    }
    passed((), path.display())
}

/// Whether files can be created in a folder, which may have to be created itself; leaves nothing
/// behind.
fn creatable(folder: &Path) -> anyhow::Result<Passed<()>> {
    let probe = existing(folder).join(format!(".shipwatch-check-{}", std::process::id()));
    appendable(&probe).with_context(|| format!("{} cannot be written to", folder.display()))?;
    passed((), folder.display())
}

/// The nearest folder that is there.
fn existing(path: &Path) -> &Path {
    let mut ancestors = path.ancestors();
    let folder = ancestors.find(|ancestor| ancestor.is_dir());
    folder.unwrap_or(Path::new("."))
}

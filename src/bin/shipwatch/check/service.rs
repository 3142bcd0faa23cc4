//! What the sandbox of `systemd/shipwatch.service` keeps from the daemon, and the lines that let it through.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use shipwatch::daemon::config::Config;
use shipwatch::source::finish::Finish;

use super::folders::takes_away;
use super::report::Report;
use crate::exit::Failure;

/// Where the service may write without being told: its StateDirectory= and RuntimeDirectory=.
const OWN: [&str; 2] = ["/var/lib/shipwatch", "/run/shipwatch"];

/// Emptied for the service by ProtectHome=.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

/// The service has its own, by PrivateTmp=.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// The group whose cameras the service may use.
const CAMERAS: &str = "video";

/// Where those who run the service add to it.
const DROP_INS: [&str; 2] = [
    "/etc/systemd/system/shipwatch.service.d",
    "/run/systemd/system/shipwatch.service.d",
];

/// Says that the rights of root prove nothing, where a user of the service is there.
pub(super) fn check_user(report: &Report) -> Result<(), Failure> {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let known = users.lines().any(|line| line.starts_with("shipwatch:"));
    match known && is_root() {
        true => report.note(
            "user",
            "root may do what the service may not; `runuser -u shipwatch -- shipwatch check --config FILE` tells",
        ),
        false => Ok(()),
    }
}

#[cfg(unix)]
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;

    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

#[cfg(not(unix))]
fn is_root() -> bool {
    false
}

/// Says which lines the service needs for this config and does not have yet.
pub(super) fn check_service(config: &Config, report: &Report) -> Result<(), Failure> {
    let drop_ins = DROP_INS.map(Path::new);
    let needs = needs(config);
    let lines = missing(&needs, &given(&drop_ins));
    if lines.is_empty() {
        return Ok(());
    }
    let absent = needs.writes.iter().filter(|path| !path.exists());
    for path in absent.filter(|path| !lies(path, &OWN)) {
        let path = path.display();
        report.note(
            "service",
            format_args!(
                "it does not start without {path}: install -d -o shipwatch -g shipwatch {path}"
            ),
        )?;
    }
    report.note(
        "service",
        format_args!(
            "as a service it would be kept from these; let it through by `systemctl edit shipwatch`:\n\
             [Service]\n{}",
            lines.join("\n")
        ),
    )
}

fn lies(path: &Path, places: &[&str]) -> bool {
    places.iter().any(|place| path.starts_with(place))
}

/// Whether the service sees nothing of it by itself.
fn hidden(path: &Path) -> bool {
    lies(path, &HOMES) || lies(path, &TEMPORARY)
}

/// What the daemon asks of the system, by absolute path without links.
#[derive(Debug, Default, PartialEq)]
struct Needs {
    reads: BTreeSet<PathBuf>,
    writes: BTreeSet<PathBuf>,
    /// Groups of cameras.
    groups: BTreeSet<String>,
}

fn needs(config: &Config) -> Needs {
    let mut needs = Needs::default();
    needs.reads.extend(config.models.as_deref().map(real));
    for source in &config.source {
        if let Some(folder) = source.watched() {
            let set = match takes_away(source) {
                true => &mut needs.writes,
                false => &mut needs.reads,
            };
            set.insert(real(folder));
        }
        if let Finish::Move(folder) = source.finish() {
            needs.writes.insert(real(&folder));
        }
        needs
            .writes
            .extend(source.failed_folder.as_deref().map(real));
        let fifo = source.stream.as_deref().filter(|_| !source.is_stdin());
        needs.reads.extend(fifo.map(real));
        let camera = source.camera.as_deref();
        needs.groups.extend(camera.and_then(group));
    }
    // Of a file its folder: others lie beside it for a while.
    let ledger = config.ledger_file();
    let files = [config.output.detections(), &ledger].into_iter();
    for file in files.chain(config.output.csv()) {
        let file = real(file);
        if !file.starts_with("/dev") {
            needs.writes.extend(file.parent().map(Path::to_owned));
        }
    }
    let output = &config.output;
    let folders = [&output.overlay, &output.crops, &config.runtime_folder];
    let folders = folders.into_iter().flatten();
    needs.writes.extend(folders.map(|folder| real(folder)));
    needs
}

/// What drop-ins let through already.
fn given(folders: &[&Path]) -> Needs {
    let mut given = Needs::default();
    let entries = folders.iter().flat_map(fs::read_dir).flatten().flatten();
    let files = entries.map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|e| e == "conf"));
    for text in files.flat_map(fs::read_to_string) {
        for (key, values) in text.lines().filter_map(|line| line.split_once('=')) {
            for value in values.split_whitespace() {
                // A binding may name another place, and options; `-` stands before what may be missing.
                let path = value.trim_start_matches(['-', '+']).split(':');
                let path = || path.clone().next_back().map(PathBuf::from);
                match key.trim() {
                    "ReadWritePaths" | "BindPaths" => given.writes.extend(path()),
                    "ReadOnlyPaths" | "BindReadOnlyPaths" => given.reads.extend(path()),
                    "SupplementaryGroups" => drop(given.groups.insert(value.to_owned())),
                    _ => {}
                }
            }
        }
    }
    given
}

/// Lines for a drop-in.
fn missing(needs: &Needs, given: &Needs) -> Vec<String> {
    let lies_in = |path: &Path, folders: &BTreeSet<PathBuf>| {
        folders.iter().any(|folder| path.starts_with(folder))
    };
    // What lies in a folder that is let through comes with it.
    let outermost = |path: &&PathBuf, folders: &BTreeSet<PathBuf>| {
        !path
            .ancestors()
            .skip(1)
            .any(|above| folders.contains(above))
    };
    let unwritten: Vec<&Path> = (needs.writes.iter())
        .filter(|path| !lies(path, &OWN) && !lies_in(path, &given.writes))
        .filter(|path| outermost(path, &needs.writes))
        .map(PathBuf::as_path)
        .collect();
    let unread: Vec<&Path> = (needs.reads.iter())
        .filter(|path| hidden(path))
        .filter(|path| !lies_in(path, &given.reads) && !lies_in(path, &given.writes))
        .filter(|path| !lies_in(path, &needs.writes) && outermost(path, &needs.reads))
        .map(PathBuf::as_path)
        .collect();
    let line = |key: &str, paths: Vec<&Path>| {
        let paths: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
        (!paths.is_empty()).then(|| format!("{key}={}", paths.join(" ")))
    };
    let in_home = |path: &&Path| lies(path, &HOMES);
    let home = unwritten.iter().chain(&unread).any(in_home);
    let (bound, written): (Vec<_>, _) = unwritten.into_iter().partition(|path| hidden(path));
    // Before version 250 systemd itself makes folders above what it binds, closed to the service by its UMask=.
    let above: BTreeSet<&Path> = (bound.iter().chain(&unread))
        .flat_map(|path| path.ancestors().skip(1))
        .filter(|above| above.parent().is_some_and(hidden))
        .filter(|above| {
            let mut sets = [&needs.reads, &needs.writes, &given.reads, &given.writes].into_iter();
            !sets.any(|set| lies_in(above, set))
        })
        .collect();
    let groups: Vec<&str> = (needs.groups.difference(&given.groups))
        .map(String::as_str)
        .filter(|&group| group != CAMERAS)
        .collect();
    let lines = [
        line("ReadWritePaths", written),
        home.then(|| "ProtectHome=tmpfs".to_owned()),
        line("TemporaryFileSystem", above.into_iter().collect()),
        line("BindPaths", bound),
        line("BindReadOnlyPaths", unread),
        (!groups.is_empty()).then(|| format!("SupplementaryGroups={}", groups.join(" "))),
    ];
    lines.into_iter().flatten().collect()
}

/// A path without links, as far as it is there.
fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let found = path.ancestors().find_map(|ancestor| {
        let rest = path.strip_prefix(ancestor).ok()?;
        let real = ancestor.canonicalize().ok()?;
        Some(match rest.as_os_str().is_empty() {
            true => real,
            false => real.join(rest),
        })
    });
    found.unwrap_or(path)
}

/// The group that a device belongs to.
#[cfg(unix)]
fn group(device: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;

    let id = device.metadata().ok()?.gid().to_string();
    let groups = fs::read_to_string("/etc/group").ok()?;
    let named = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_owned())
    });
    named.or(Some(id)).filter(|name| name != "root")
}

#[cfg(not(unix))]
fn group(_: &Path) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(paths: &[&str]) -> BTreeSet<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    /// The paths that a sandbox of systemd.exec(5) hides or makes read-only.
    #[test]
    fn what_lies_outside_is_let_through() {
        let needs = Needs {
            reads: set(&["/srv/models", "/home/pi/models", "/data/seen"]),
            writes: set(&[
                "/var/lib/shipwatch",
                "/var/lib/shipwatch/incoming",
                "/data/in",
                "/data/in/failed",
                "/mnt/card/done",
                "/home/pi/in",
                "/home/pi/log/ships",
                "/tmp/out",
            ]),
            groups: ["video", "plugdev"].map(String::from).into(),
        };
        let lines = [
            "ReadWritePaths=/data/in /mnt/card/done",
            "ProtectHome=tmpfs",
            "TemporaryFileSystem=/home/pi /home/pi/log",
            "BindPaths=/home/pi/in /home/pi/log/ships /tmp/out",
            "BindReadOnlyPaths=/home/pi/models",
            "SupplementaryGroups=plugdev",
        ];
        assert_eq!(missing(&needs, &Needs::default()), lines);

        let folder = tempfile::tempdir().expect("folder");
        let mut text = format!("[Service]\n{}\n", lines.join("\n"));
        text = text.replace("/mnt/card/done", "-/mnt/card");
        fs::write(folder.path().join("override.conf"), &text).expect("writes");
        let none = folder.path().join("none");
        let given = given(&[folder.path(), &none]);
        assert_eq!(missing(&needs, &given), [""; 0], "{given:?}");
    }

    #[test]
    fn the_example_config_needs_nothing_more() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/config.toml");
        let config = Config::read(Path::new(file)).expect("reads");
        assert_eq!(missing(&needs(&config), &Needs::default()), [""; 0]);
    }
}

//! Trying a frame alone, in a process of its own.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{Child, ExitStatus, Output, Stdio};
use std::thread::{self, sleep};
use std::time::Duration;

use shipwatch::daemon::config::{Config, SourceConfig};
use shipwatch::detect::Options;
use shipwatch::process::command;
use shipwatch::source::in_hand::Verdict;

use super::orders::Orders;
use crate::cli::DetectArgs;
use crate::detect;
use crate::exit::{Exit, Failure};

/// Seconds of a processor that a trial may take: the longest frame takes minutes on a small board.
#[cfg(unix)]
const SECONDS: u64 = 3600;

/// How often it is looked whether a trial or this process is to end.
const POLL: Duration = Duration::from_millis(50);

/// Looks at a file as a source does, in a process of its own; once more if that was killed, which a system short of
/// memory does for the sake of others, too.
pub(super) fn run(config: &Config, source: &SourceConfig, orders: &Orders, path: &Path) -> Verdict {
    let once = || {
        let started = std::env::current_exe().and_then(|program| {
            command(program)
                .args(arguments(config, source))
                .arg("--")
                .arg(path)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
        });
        started.and_then(|child| wait(child, orders))
    };
    let tried = once().and_then(|output| match is_killed(output.status) {
        true => once(),
        false => Ok(output),
    });
    match tried {
        // Whoever stops the service stops its trials as well.
        Ok(output) if !orders.is_ending() => verdict(&output),
        Ok(_) | Err(_) => Verdict::Unknown,
    }
}

#[cfg(unix)]
fn is_killed(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;

    status.signal() == Some(signal_hook::consts::SIGKILL)
}

#[cfg(not(unix))]
fn is_killed(_: ExitStatus) -> bool {
    false
}

/// Waits for a process, and ends it if this one is to end.
fn wait(child: Child, orders: &Orders) -> io::Result<Output> {
    let process = child.id();
    let waiting = thread::spawn(move || child.wait_with_output());
    while !waiting.is_finished() {
        if orders.is_ending() {
            end(process);
        }
        sleep(POLL);
    }
    waiting
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the wait failed")))
}

#[cfg(unix)]
fn end(process: u32) {
    use rustix::process::{Pid, Signal, kill_process};

    if let Some(process) = i32::try_from(process).ok().and_then(Pid::from_raw) {
        // It may have ended by itself.
        let _ = kill_process(process, Signal::TERM);
    }
}

#[cfg(not(unix))]
fn end(_: u32) {}

fn arguments(config: &Config, source: &SourceConfig) -> Vec<OsString> {
    let Options {
        scale,
        gsd,
        swath: _,
        gate,
        mask,
        min_area,
        regions,
    } = config.detect_options(source);
    let mut arguments: Vec<OsString> = vec!["--quiet".into(), "trial".into()];
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            arguments.push(format!("--{name}={value}").into());
        }
    };
    let text = |value: Option<f64>| value.map(|value| value.to_string());
    add("max-pixels", Some(source.max_pixels.to_string()));
    add("stretch", source.stretch.map(|stretch| stretch.to_string()));
    add("scale", text(scale));
    add("gsd", text(gsd));
    add("altitude", text(source.altitude));
    add("focal-length", text(source.focal_length));
    add("sensor-width", text(source.sensor_width));
    add("field-of-view", text(source.field_of_view));
    add("gate", gate.map(|gate| gate.to_string()));
    add("mask", mask.map(|mask| mask.to_string()));
    add("min-area", min_area.map(|area| area.to_string()));
    for polygon in &regions.look {
        add("look", Some(polygon.to_string()));
    }
    for polygon in &regions.ignore {
        add("ignore", Some(polygon.to_string()));
    }
    if let Some(models) = &config.models {
        arguments.push("--models".into());
        arguments.push(models.into());
    }
    arguments
}

fn verdict(output: &Output) -> Verdict {
    if let Some(verdict) = death(output.status) {
        return verdict;
    }
    match output.status.code().map(|code| code == Exit::Data as i32) {
        Some(false) if output.status.success() => serde_json::from_slice(&output.stdout)
            .map_or(Verdict::Unknown, |record| Verdict::Seen(Box::new(record))),
        Some(true) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let problem = said.lines().find_map(|line| line.strip_prefix("error: "));
            problem.map_or(Verdict::Unknown, |problem| Verdict::Broken(problem.into()))
        }
        _ => Verdict::Unknown,
    }
}

/// Only what ends a process by itself speaks against the file.
#[cfg(unix)]
fn death(status: ExitStatus) -> Option<Verdict> {
    use std::os::unix::process::ExitStatusExt;

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    Some(match status.signal()? {
        SIGHUP | SIGINT | SIGTERM => Verdict::Unknown,
        signal => {
            let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
            Verdict::Deadly(format!("it died of {name} ({signal})"))
        }
    })
}

#[cfg(not(unix))]
fn death(_: ExitStatus) -> Option<Verdict> {
    None
}

/// The subcommand that tries: it is the first that a system short of memory ends, ends by itself if it takes too long,
/// and does not outlive the daemon.
pub(crate) fn try_alone(args: DetectArgs) -> Result<Exit, Failure> {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, set_parent_process_death_signal};

        // Without these it may outlive the daemon, or another process may be ended for want of memory.
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    }
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, setrlimit};

        let limit = Rlimit {
            current: Some(SECONDS),
            maximum: Some(SECONDS),
        };
        // Without the limit it takes as long as it takes.
        let _ = setrlimit(Resource::Cpu, limit);
    }
    detect::run(args)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn a_trial_looks_as_the_source_does() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("config.toml");
        let text = r#"
            models = "/models"
            [detect]
            gate = 0.1
            mask = 0.3
            [[source]]
            folder = "in"
            max-pixels = 1000
            stretch = [1, 99.5]
            scale = 0.35
            altitude = 120.5
            focal-length = 8.8
            sensor-width = 13.2
            look = [[[0, 0], [1, 0], [1, 0.7]], [[0, 0.5], [0.5, 1], [0, 1]]]
            ignore = [[[0, 0.9], [1, 0.9], [0.333333333333, 1]]]
            detect.gate = 0.25
            detect.min-area = 9
            [[source]]
            name = "plain"
            folder = "other"
            gsd = 0.5
            altitude = 30
            field-of-view = 61.7
        "#;
        std::fs::write(&path, text).expect("writes");
        let config = Config::read(&path).expect("reads");
        assert_eq!(config.check(), []);
        for source in &config.source {
            let words = arguments(&config, source);
            let words = ["shipwatch".into()].into_iter().chain(words);
            let typed = Cli::try_parse_from(words.chain(["a.png".into()]));
            let Command::Trial(typed) = typed.expect("is understood").command else {
                panic!("is a trial");
            };
            assert_eq!(typed.tuning.options(), config.detect_options(source));
            assert_eq!(typed.decoding.options(), source.decode_options());
            assert_eq!(typed.models, config.models);
        }
    }
}

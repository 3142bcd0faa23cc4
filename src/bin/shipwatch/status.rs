//! `shipwatch status`: what a running daemon tells of itself.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};

use anyhow::{Context, anyhow};
use shipwatch::daemon::status::{Counts, FILE, SourceStatus, Status};

use crate::cli::StatusArgs;
use crate::exit::{Exit, Failure, OrExit};
use crate::logging::one_line;
use crate::runtime::{self, Daemon, daemon};

/// Runs the subcommand.
pub(crate) fn run(args: &StatusArgs) -> Result<Exit, Failure> {
    let folders = runtime::candidates(args.runtime_folder.as_deref());
    let find = |state| folders.iter().find(|folder| daemon(folder) == state);
    let Some(folder) = find(Daemon::Runs) else {
        if let Some(hidden) = find(Daemon::Hidden) {
            let error = anyhow!(
                "{}: only the group of the daemon that has this folder may read its status: ask by sudo, or join the \
                 group (of the service: sudo usermod --append --groups shipwatch NAME, then log in again)",
                hidden.display()
            );
            return Err(Failure::new(Exit::Unavailable, error));
        }
        let folders: Vec<_> = folders.iter().map(|f| f.display().to_string()).collect();
        let error = anyhow!(
            "no daemon runs that keeps its status in {}; another folder is named by --runtime-folder",
            folders.join(" or ")
        );
        return Err(Failure::new(Exit::Unavailable, error));
    };
    let path = folder.join(FILE);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string());
    let text = text.or_exit(Exit::Unavailable)?;
    let status: Status = serde_json::from_str(&text)
        .with_context(|| path.display().to_string())
        .or_exit(Exit::Io)?;
    let text = match args.json {
        true => text + "\n",
        false => describe(&status),
    };
    let printed = io::stdout().write_all(text.as_bytes());
    printed.context("standard output").or_exit(Exit::Io)?;
    Ok(Exit::Success)
}

/// The status as people read it.
fn describe(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |title: &str, words: String| {
        // Files are named by whoever sends them.
        writeln!(text, "{title:<11} {}", one_line(&words)).expect("memory takes it");
    };
    let state = match (&status.trouble, &status.looking_at) {
        (Some(trouble), _) => format!("waits: {trouble}"),
        (None, Some(frame)) => format!("looks at {frame}"),
        (None, None) => "waits for frames".into(),
    };
    line(
        "shipwatch",
        format!(
            "{}, process {}, up {}",
            status.version,
            status.process,
            duration(status.uptime)
        ),
    );
    line("state", state);
    if let Some(models) = &status.models {
        line("models", format!("{} {}", models.name, models.version));
    }
    if let Some(refused) = &status.refused {
        line("refused", refused.clone());
    }
    for source in &status.sources {
        let mut titles = ["source"].into_iter();
        for words in describe_source(source) {
            line(titles.next().unwrap_or(""), words);
        }
    }
    for detection in &status.detections {
        line(
            "ships",
            format!(
                "{}  {} on {}, best score {:.2}, from {}",
                detection.time, detection.ships, detection.frame, detection.score, detection.source
            ),
        );
    }
    if let Some(heat) = &status.board.heat {
        let mut words = heat
            .celsius
            .map_or("no sensor".into(), |c| format!("{c:.1} C"));
        if heat.throttled {
            words += ", throttled";
        }
        if heat.step > 0 {
            write!(words, ", works for 1/{} of the time", 1 << heat.step).expect("memory takes it");
        }
        line("heat", words);
    }
    if let Some(is_right) = status.board.clock_synchronised {
        let words = if is_right {
            "synchronised"
        } else {
            "not synchronised"
        };
        line("clock", words.into());
    }
    for disks in
        (status.disks).chunk_by(|a, b| (a.available, a.reserve) == (b.available, b.reserve))
    {
        let paths: Vec<_> = disks
            .iter()
            .map(|disk| disk.path.display().to_string())
            .collect();
        line(
            "disk",
            format!(
                "{} MB left, {} of them in reserve: {}",
                disks[0].available / 1_000_000,
                disks[0].reserve / 1_000_000,
                paths.join(", ")
            ),
        );
    }
    text
}

/// Lines on a source.
fn describe_source(source: &SourceStatus) -> Vec<String> {
    let Counts {
        frames,
        ships,
        broken,
        known,
        dropped,
    } = source.counts;
    let mut lines = vec![
        format!("{} ({})", source.name, source.place),
        format!(
            "{frames} frames with {ships} ships, {} of them in the last minute; {} waiting",
            source.per_minute,
            source.waiting + source.backlog
        ),
    ];
    if broken + known + dropped > 0 {
        lines.push(format!(
            "{broken} skipped, {known} done before, {dropped} dropped"
        ));
    }
    if let Some((frame, time)) = &source.last {
        lines.push(format!("last {frame} at {time}"));
    }
    lines.extend(source.trouble.clone());
    lines
}

fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_forges_no_line() {
        let status = Status {
            looking_at: Some("a\nrefused     nothing\u{1b}[2K.png".into()),
            ..Status::default()
        };
        let state = r"state       looks at a\nrefused     nothing\u{1b}[2K.png";
        assert_eq!(describe(&status).lines().nth(1), Some(state));
    }

    #[test]
    fn times_are_told_in_two_units() {
        let told = [0, 59, 60, 3599, 3600, 86_399, 86_400, 200_000].map(duration);
        let wanted = [
            "0 s",
            "59 s",
            "1 min 0 s",
            "59 min 59 s",
            "1 h 0 min",
            "23 h 59 min",
            "1 d 0 h",
            "2 d 7 h",
        ];
        assert_eq!(told, wanted);
    }
}

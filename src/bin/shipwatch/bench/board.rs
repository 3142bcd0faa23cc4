//! How the board fared, and what this process took.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use shipwatch::board::{Board, Temperature};

use super::table::{self, row};

/// How the board fares now.
pub(super) fn board() -> Board {
    Board::read(Path::new("/sys"))
}

fn hottest(board: &Board) -> Option<&Temperature> {
    let zones = board.temperatures.iter();
    zones.max_by(|a, b| a.celsius.total_cmp(&b.celsius))
}

/// The board before and after what was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Boards {
    pub(super) start: Board,
    pub(super) end: Board,
}

impl fmt::Display for Boards {
    /// A table of what is told, or a line if nothing is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, end } = self;
        let mut rows = vec![row(["board", "at the start", "at the end"])];
        if let Some(hottest) = hottest(end) {
            let same = |zone: &&Temperature| zone.zone == hottest.zone;
            let before = start.temperatures.iter().find(same);
            let celsius = |zone: &Temperature| format!("{:.1} °C", zone.celsius);
            rows.push(vec![
                format!("temperature, {}", hottest.zone),
                before.map_or_else(|| "-".into(), celsius),
                celsius(hottest),
            ]);
        }
        for (before, after) in start.clocks.iter().zip(&end.clocks) {
            rows.push(vec![
                format!("clock, of {} MHz", after.max_mhz),
                format!("{} MHz", before.mhz),
                format!("{} MHz", after.mhz),
            ]);
        }
        if let (Some(before), Some(after)) = (&start.throttled, &end.throttled) {
            let row = |name: &str, before: &[&str], after: &[&str]| {
                let list = |limits: &[&str]| match limits {
                    [] => "no".to_owned(),
                    _ => limits.join(", "),
                };
                vec![name.to_owned(), list(before), list(after)]
            };
            rows.push(row("limited now", &before.now, &after.now));
            rows.push(row(
                "limited since boot",
                &before.since_boot,
                &after.since_boot,
            ));
        }
        match rows.len() {
            1 => writeln!(f, "The system tells neither temperature nor clock."),
            _ => table::write(f, &rows),
        }
    }
}

/// Most memory that this process has held, in bytes.
pub(super) fn peak_memory() -> Option<u64> {
    peak_of(&fs::read_to_string("/proc/self/status").ok()?)
}

fn peak_of(status: &str) -> Option<u64> {
    let mut lines = status.lines();
    let peak = lines.find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = peak.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(1024 * kib)
}

/// Mebibytes as a table shows them.
pub(super) fn mebibytes(bytes: Option<u64>) -> String {
    match bytes {
        Some(bytes) => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
        None => "not told".to_owned(),
    }
}

/// Processor time of all threads of this process.
#[cfg(unix)]
pub(super) fn cpu_time() -> Option<Duration> {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).ok()
}

#[cfg(not(unix))]
pub(super) fn cpu_time() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use shipwatch::board::{Clock, Throttled};

    use super::*;

    #[test]
    fn the_board_is_told_before_and_after() {
        let board = |celsius, mhz, now: &[&'static str]| Board {
            temperatures: vec![Temperature {
                zone: "cpu-thermal".into(),
                celsius,
            }],
            clocks: vec![Clock { mhz, max_mhz: 1500 }],
            throttled: Some(Throttled {
                now: now.to_vec(),
                since_boot: vec!["under-voltage", "throttled"],
            }),
        };
        let boards = Boards {
            start: board(48.9, 1500, &[]),
            end: board(61.224, 1200, &["throttled"]),
        };
        let wanted = "\
board                                 at the start                at the end
temperature, cpu-thermal                   48.9 °C                   61.2 °C
clock, of 1500 MHz                        1500 MHz                  1200 MHz
limited now                                     no                 throttled
limited since boot        under-voltage, throttled  under-voltage, throttled
";
        assert_eq!(boards.to_string(), wanted);
    }

    #[test]
    fn a_board_may_tell_nothing() {
        let board = Board {
            temperatures: Vec::new(),
            clocks: Vec::new(),
            throttled: None,
        };
        let (start, end) = (board.clone(), board);
        let text = Boards { start, end }.to_string();
        assert_eq!(text, "The system tells neither temperature nor clock.\n");
    }

    #[test]
    fn the_peak_of_memory_is_the_high_water_mark() {
        let status = "VmPeak:\t  9000 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n";
        assert_eq!(peak_of(status), Some(2 << 20));
        assert_eq!(peak_of("VmPeak:\t 9000 kB\n"), None);
    }

    #[cfg(unix)]
    #[test]
    fn the_processor_time_grows_with_work() {
        let before = cpu_time().expect("told");
        let mut sum = 0u64;
        while cpu_time().expect("told") == before {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(cpu_time().expect("told") > before);
    }
}

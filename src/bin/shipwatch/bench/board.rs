//! What the system tells of the board and of this process; what it does not tell is left out.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::table::{self, row};

/// How the board fares at a moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Board {
    /// Of each thermal zone that tells.
    pub(super) temperatures: Vec<Temperature>,
    /// Of each kind of core, by the clock it can have.
    pub(super) clocks: Vec<Clock>,
    /// What a Raspberry Pi's firmware says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) throttled: Option<Throttled>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Temperature {
    zone: String,
    celsius: f64,
}

/// The fastest of like cores: one that idles may be slow without any need.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Clock {
    mhz: u64,
    max_mhz: u64,
}

/// What limits a Raspberry Pi, by the bits of `vcgencmd get_throttled`
/// (<https://www.raspberrypi.com/documentation/computers/os.html#get_throttled>).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Throttled {
    now: Vec<&'static str>,
    since_boot: Vec<&'static str>,
}

/// The lowest four bits say what is so now; 16 bits higher, what has been so since the board started.
const LIMITS: [&str; 4] = [
    "under-voltage",
    "clock capped",
    "throttled",
    "soft temperature limit",
];

impl Board {
    /// How the board fares now.
    pub(super) fn now() -> Self {
        Self::read(Path::new("/sys"))
    }

    /// The same by the files of `sys`.
    fn read(sys: &Path) -> Self {
        let firmware = sys.join("devices/platform/soc/soc:firmware/get_throttled");
        Self {
            temperatures: temperatures(&sys.join("class/thermal")),
            clocks: clocks(&sys.join("devices/system/cpu")),
            throttled: text(&firmware).and_then(|bits| Throttled::of(&bits)),
        }
    }

    fn hottest(&self) -> Option<&Temperature> {
        let zones = self.temperatures.iter();
        zones.max_by(|a, b| a.celsius.total_cmp(&b.celsius))
    }
}

impl Throttled {
    fn of(bits: &str) -> Option<Self> {
        let digits = bits.trim_start_matches("0x");
        let bits = u32::from_str_radix(digits, 16).ok()?;
        let set = |from: usize| {
            let limits = LIMITS.iter().enumerate();
            let set = limits.filter(|(bit, _)| bits >> (from + bit) & 1 == 1);
            set.map(|(_, &limit)| limit).collect()
        };
        Some(Self {
            now: set(0),
            since_boot: set(16),
        })
    }
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
        if let Some(hottest) = end.hottest() {
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
    peak_of(&text(Path::new("/proc/self/status"))?)
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

fn temperatures(folder: &Path) -> Vec<Temperature> {
    let zone = |path: PathBuf| {
        let celsius = number(&path.join("temp"))? as f64 / 1e3;
        let zone = text(&path.join("type"))?;
        Some(Temperature { zone, celsius })
    };
    let zones = entries(folder, "thermal_zone").into_iter();
    zones.filter_map(zone).collect()
}

fn clocks(folder: &Path) -> Vec<Clock> {
    let clock = |path: PathBuf| {
        let mhz = |name: &str| Some(number(&path.join("cpufreq").join(name))? as u64 / 1000);
        Some(Clock {
            mhz: mhz("scaling_cur_freq")?,
            max_mhz: mhz("cpuinfo_max_freq")?,
        })
    };
    let cores = entries(folder, "cpu").into_iter();
    let mut clocks: Vec<Clock> = cores.filter_map(clock).collect();
    clocks.sort_by_key(|clock| std::cmp::Reverse((clock.max_mhz, clock.mhz)));
    clocks.dedup_by_key(|clock| clock.max_mhz);
    clocks
}

/// Entries of a folder whose names begin in a certain way, by name.
fn entries(folder: &Path, start: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(start));
    let mut paths: Vec<PathBuf> = named.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn number(path: &Path) -> Option<i64> {
    text(path)?.parse().ok()
}

fn text(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `/sys` of these files.
    fn sys(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("within the folder")).expect("folders");
            fs::write(path, text).expect("a file");
        }
        folder
    }

    #[test]
    fn reads_what_a_raspberry_pi_tells() {
        let sys = sys(&[
            ("class/thermal/thermal_zone0/type", "cpu-thermal\n"),
            ("class/thermal/thermal_zone0/temp", "61224\n"),
            ("class/thermal/cooling_device0/type", "fan\n"),
            (
                "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq",
                "600000\n",
            ),
            (
                "devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq",
                "1500000\n",
            ),
            (
                "devices/system/cpu/cpu1/cpufreq/scaling_cur_freq",
                "1200000\n",
            ),
            (
                "devices/system/cpu/cpu1/cpufreq/cpuinfo_max_freq",
                "1500000\n",
            ),
            ("devices/system/cpu/cpuidle/current_driver", "none\n"),
            ("devices/platform/soc/soc:firmware/get_throttled", "50004\n"),
        ]);
        let board = Board::read(sys.path());
        let zone = Temperature {
            zone: "cpu-thermal".into(),
            celsius: 61.224,
        };
        assert_eq!(board.temperatures, [zone]);
        let clock = Clock {
            mhz: 1200,
            max_mhz: 1500,
        };
        assert_eq!(board.clocks, [clock]);
        // Bits 2, 16 and 18.
        let throttled = Throttled {
            now: vec!["throttled"],
            since_boot: vec!["under-voltage", "throttled"],
        };
        assert_eq!(board.throttled, Some(throttled));

        let boards = Boards {
            start: board.clone(),
            end: board,
        };
        let wanted = "\
board                                 at the start                at the end
temperature, cpu-thermal                   61.2 °C                   61.2 °C
clock, of 1500 MHz                        1200 MHz                  1200 MHz
limited now                              throttled                 throttled
limited since boot        under-voltage, throttled  under-voltage, throttled
";
        assert_eq!(boards.to_string(), wanted);
    }

    #[test]
    fn a_board_may_tell_nothing() {
        let board = Board::read(sys(&[]).path());
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

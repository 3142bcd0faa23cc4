//! What the system tells of the board that it runs on; what it does not tell is left out.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// How the board fares at a moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Board {
    /// Of each thermal zone that tells.
    pub temperatures: Vec<Temperature>,
    /// Of each kind of core, by the clock it can have.
    pub clocks: Vec<Clock>,
    /// What a Raspberry Pi's firmware says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttled: Option<Throttled>,
}

/// What a thermal zone measures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Temperature {
    /// What the kernel calls it, such as `cpu-thermal`.
    pub zone: String,
    /// Degrees.
    pub celsius: f64,
}

/// The fastest of like cores: one that idles may be slow without any need.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Clock {
    /// Now.
    pub mhz: u64,
    /// At most.
    pub max_mhz: u64,
}

/// What limits a Raspberry Pi, by the bits of `vcgencmd get_throttled`
/// (<https://www.raspberrypi.com/documentation/computers/os.html#get_throttled>).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Throttled {
    /// At this moment.
    pub now: Vec<&'static str>,
    /// At any moment since the board started.
    pub since_boot: Vec<&'static str>,
}

/// The lowest four bits say what is so now; 16 bits higher, what has been so since the board started.
const LIMITS: [&str; 4] = [
    "under-voltage",
    "clock capped",
    "throttled",
    "soft temperature limit",
];

impl Board {
    /// How the board fares by the files of `sys`, usually `/sys`.
    pub fn read(sys: &Path) -> Self {
        Self {
            temperatures: temperatures(sys),
            clocks: clocks(sys),
            throttled: Throttled::read(sys),
        }
    }
}

impl Throttled {
    /// What the firmware says by the files of `sys`; none of other boards.
    pub fn read(sys: &Path) -> Option<Self> {
        // `soc/soc:firmware`, and by the address of a Pi 5's.
        let chips = entries(&sys.join("devices/platform"), "soc");
        let firmware = chips.into_iter().flat_map(|chip| entries(&chip, "soc"));
        let mut bits = firmware.filter_map(|firmware| text(&firmware.join("get_throttled")));
        Self::of(&bits.next()?)
    }

    /// Whether it runs slower than it could, for whatever reason.
    pub fn slows(&self) -> bool {
        self.now.iter().any(|limit| LIMITS[1..].contains(limit))
    }

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

/// What each thermal zone measures, by the files of `sys`.
pub fn temperatures(sys: &Path) -> Vec<Temperature> {
    let zone = |path: PathBuf| {
        let celsius = number(&path.join("temp"))? as f64 / 1e3;
        let zone = text(&path.join("type"))?;
        Some(Temperature { zone, celsius })
    };
    let zones = entries(&sys.join("class/thermal"), "thermal_zone").into_iter();
    zones.filter_map(zone).collect()
}

/// Whether the kernel holds the processor's clock down against heat, by the files of `sys`; none where it has no such
/// means.
pub fn is_held_back(sys: &Path) -> Option<bool> {
    let devices = entries(&sys.join("class/thermal"), "cooling_device").into_iter();
    let states = devices.filter_map(|device| {
        // ACPI's processors, and the clocks of all others, whatever the version of the kernel calls them.
        let kind = text(&device.join("type"))?;
        let slows = kind == "Processor" || kind.contains("cpufreq");
        slows.then(|| number(&device.join("cur_state")))?
    });
    states.reduce(i64::max).map(|state| state > 0)
}

fn clocks(sys: &Path) -> Vec<Clock> {
    let clock = |path: PathBuf| {
        let mhz = |name: &str| Some(number(&path.join("cpufreq").join(name))? as u64 / 1000);
        Some(Clock {
            mhz: mhz("scaling_cur_freq")?,
            max_mhz: mhz("cpuinfo_max_freq")?,
        })
    };
    let cores = entries(&sys.join("devices/system/cpu"), "cpu").into_iter();
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

/// A `/sys` of these files.
#[cfg(test)]
pub(crate) fn sys(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("within the folder")).expect("folders");
        fs::write(path, text).expect("a file");
    }
    folder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_raspberry_pi_tells() {
        let cpu = "devices/system/cpu";
        let sys = sys(&[
            ("class/thermal/thermal_zone0/type", "cpu-thermal\n"),
            ("class/thermal/thermal_zone0/temp", "61224\n"),
            ("class/thermal/cooling_device0/type", "fan\n"),
            ("class/thermal/cooling_device0/cur_state", "3\n"),
            (&format!("{cpu}/cpu0/cpufreq/scaling_cur_freq"), "600000\n"),
            (&format!("{cpu}/cpu0/cpufreq/cpuinfo_max_freq"), "1500000\n"),
            (&format!("{cpu}/cpu1/cpufreq/scaling_cur_freq"), "1200000\n"),
            (&format!("{cpu}/cpu1/cpufreq/cpuinfo_max_freq"), "1500000\n"),
            (&format!("{cpu}/cpuidle/current_driver"), "none\n"),
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
        assert!(throttled.slows());
        assert_eq!(board.throttled, Some(throttled));
        assert_eq!(is_held_back(sys.path()), None, "a fan slows nothing");
    }

    #[test]
    fn what_has_been_slows_no_more() {
        let slows = |bits| Throttled::of(bits).map(|throttled| throttled.slows());
        assert_eq!(slows("e0000"), Some(false));
        // Low voltage alone, and each of the others.
        assert_eq!(slows("0x1"), Some(false));
        assert_eq!(["2", "4", "8"].map(slows), [Some(true); 3]);
        assert_eq!(slows(""), None);
    }

    #[test]
    fn a_processor_is_held_back_by_its_clock() {
        let held = |kind, state| {
            let sys = sys(&[
                ("class/thermal/cooling_device0/type", "intel_powerclamp\n"),
                ("class/thermal/cooling_device0/cur_state", "7\n"),
                ("class/thermal/cooling_device1/type", kind),
                ("class/thermal/cooling_device1/cur_state", state),
            ]);
            is_held_back(sys.path())
        };
        assert_eq!(held("Processor\n", "0\n"), Some(false));
        assert_eq!(held("thermal-cpufreq-0\n", "2\n"), Some(true));
        assert_eq!(held("cpufreq-cpu0\n", "1\n"), Some(true));
        assert_eq!(held("LCD\n", "1\n"), None);
    }

    #[test]
    fn a_board_may_tell_nothing() {
        let sys = sys(&[]);
        let board = Board::read(sys.path());
        assert!(board.temperatures.is_empty() && board.clocks.is_empty());
        assert_eq!((board.throttled, is_held_back(sys.path())), (None, None));
    }
}

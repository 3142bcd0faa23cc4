//! How hot the board is, and how much slower the daemon works for it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::board::{Temperature, Throttled, is_held_back, temperatures};
use crate::record::Heat;

/// How often the sensors are read at most.
const LOOK: Duration = Duration::from_secs(5);

/// A step takes this long to show on the sensors; no other is made before.
const STEP: Duration = Duration::from_secs(10);

/// A board must have been cool for this long before it works harder.
const COOL: Duration = Duration::from_secs(30);

/// This many degrees below the limit it counts as cool.
const MARGIN: f32 = 5.0;

/// Most steps there are: at the last, one sixteenth of the time is worked.
pub const MOST_STEPS: u8 = 4;

/// Readings outside are those of sensors that are switched off or broken.
const PLAUSIBLE: std::ops::RangeInclusive<f64> = -60.0..=200.0;

/// Zones of the processor, by what drivers of common boards call them: `cpu-thermal`, `x86_pkg_temp`, `soc-thermal`,
/// `tj-thermal`. Others may measure anything, such as a battery or a voltage regulator that always says 100 degrees.
const PROCESSOR: [&str; 5] = ["cpu", "soc", "pkg", "core", "tj"];

/// When to work slower, and by how much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Degrees above which a board is too hot; infinite where only what the board says of itself counts.
    pub celsius: f32,
    /// Steps that may be made; none where it never works slower.
    pub steps: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            celsius: 80.0,
            steps: MOST_STEPS,
        }
    }
}

impl Heat {
    /// How long to rest after having worked for so long, for `1 / 2^step` of the time to be worked.
    pub fn rest(&self, busy: Duration) -> Duration {
        busy * ((1 << self.step.min(MOST_STEPS)) - 1)
    }
}

/// Says how much to work: slower step by step while the board is too hot or throttles itself, faster again once it has
/// been cool for a while.
#[derive(Debug)]
pub struct Governor {
    sys: PathBuf,
    pace: Pace,
    looked: Option<Duration>,
    heat: Option<Heat>,
}

impl Governor {
    /// A governor that reads the sensors in `sys`, usually `/sys`.
    pub fn new(sys: &Path, limits: Limits) -> Self {
        Self {
            sys: sys.to_owned(),
            pace: Pace::new(limits),
            looked: None,
            heat: None,
        }
    }

    /// How hot the board is at `now`, by any clock that never runs backwards; nothing if the system does not tell.
    /// Cheap: sensors are read every five seconds at most.
    pub fn look(&mut self, now: Duration) -> Option<Heat> {
        if self.looked.is_none_or(|at| now.saturating_sub(at) >= LOOK) {
            self.looked = Some(now);
            let reading = Reading::of(&self.sys);
            let step = self.pace.turn(&reading, now);
            self.heat = reading.is_told().then(|| Heat {
                celsius: reading.celsius,
                throttled: reading.throttled == Some(true),
                step,
            });
        }
        self.heat
    }
}

/// What sensors say.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Reading {
    /// Of the hottest part of the processor.
    celsius: Option<f32>,
    throttled: Option<bool>,
}

impl Reading {
    fn of(sys: &Path) -> Self {
        let firmware = Throttled::read(sys).map(|throttled| throttled.slows());
        let says = [firmware, is_held_back(sys)].into_iter().flatten();
        Self {
            celsius: hottest(&temperatures(sys)),
            throttled: says.reduce(|a, b| a || b),
        }
    }

    fn is_told(&self) -> bool {
        self.celsius.is_some() || self.throttled.is_some()
    }
}

/// Of the processor's zones, or of all where none goes by a name of such.
fn hottest(zones: &[Temperature]) -> Option<f32> {
    let of_processor = |zone: &&Temperature| {
        let name = zone.zone.to_lowercase();
        PROCESSOR.iter().any(|part| name.contains(part))
    };
    let plausible = || {
        let zones = zones.iter();
        zones.filter(|zone| PLAUSIBLE.contains(&zone.celsius))
    };
    let celsius = |zone: &Temperature| (zone.celsius * 10.0).round() as f32 / 10.0;
    let processor = plausible().filter(of_processor).map(celsius);
    let any = plausible().map(celsius).reduce(f32::max);
    processor.reduce(f32::max).or(any)
}

/// Steps up and down, with hysteresis.
#[derive(Debug)]
struct Pace {
    limits: Limits,
    step: u8,
    stepped: Option<Duration>,
    cool_since: Option<Duration>,
}

impl Pace {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            step: 0,
            stepped: None,
            cool_since: None,
        }
    }

    fn turn(&mut self, reading: &Reading, now: Duration) -> u8 {
        let past = |since: Option<Duration>, time| {
            since.is_none_or(|since| now.saturating_sub(since) >= time)
        };
        if self.is_hot(reading) {
            self.cool_since = None;
            if self.step < self.limits.steps && past(self.stepped, STEP) {
                self.step += 1;
                self.stepped = Some(now);
            }
        } else if self.is_cool(reading) {
            self.cool_since.get_or_insert(now);
            if self.step > 0 && past(self.cool_since, COOL) {
                self.step -= 1;
                self.stepped = Some(now);
                self.cool_since = Some(now);
            }
        } else {
            self.cool_since = None;
        }
        self.step
    }

    fn is_hot(&self, reading: &Reading) -> bool {
        let over = |celsius| celsius > self.limits.celsius;
        reading.throttled == Some(true) || reading.celsius.is_some_and(over)
    }

    /// Sensors that have gone silent prove nothing.
    fn is_cool(&self, reading: &Reading) -> bool {
        let below = |celsius| celsius < self.limits.celsius - MARGIN;
        reading.is_told() && reading.celsius.is_none_or(below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::sys;

    const ZONE: &str = "class/thermal/thermal_zone0";
    const FIRMWARE: &str = "devices/platform/soc/soc:firmware/get_throttled";

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn told(celsius: f32) -> Reading {
        Reading {
            celsius: Some(celsius),
            throttled: None,
        }
    }

    /// The step at each reading of one a second.
    fn steps(pace: &mut Pace, from: u64, readings: impl IntoIterator<Item = Reading>) -> Vec<u8> {
        let readings = readings.into_iter().zip(from..);
        let turn = |(reading, second)| pace.turn(&reading, seconds(second));
        readings.map(turn).collect()
    }

    #[test]
    fn slows_down_a_step_in_ten_seconds_and_no_further_than_it_may() {
        let mut pace = Pace::new(Limits::default());
        let hot = steps(&mut pace, 0, [told(80.1); 60]);
        let wanted: Vec<u8> = (0..60).map(|second| (second / 10 + 1).min(4)).collect();
        assert_eq!(hot, wanted);
        let limits = Limits {
            steps: 1,
            ..Limits::default()
        };
        assert_eq!(steps(&mut Pace::new(limits), 0, [told(99.0); 30]), [1; 30]);
    }

    #[test]
    fn speeds_up_once_it_was_cool_for_half_a_minute_and_again_after_as_long() {
        let mut pace = Pace::new(Limits::default());
        steps(&mut pace, 0, [told(90.0); 11]);
        // Between limit and limit - 5 nothing changes.
        assert_eq!(steps(&mut pace, 11, [told(75.0); 100]), [2; 100]);
        let cool = steps(&mut pace, 111, [told(74.9); 61]);
        let wanted = [[2; 30], [1; 30]].concat();
        assert_eq!(cool[..60], wanted);
        assert_eq!(cool[60], 0);
        let hot = steps(&mut pace, 172, [told(81.0); 10]);
        assert_eq!((hot[8], hot[9]), (0, 1), "ten seconds after the last step");
        // A moment of warmth begins the wait anew.
        let warm = |second| told(if second == 20 { 76.0 } else { 60.0 });
        let again = steps(&mut pace, 182, (0..52).map(warm));
        assert_eq!(again[..51], [1; 51]);
        assert_eq!(again[51], 0);
    }

    #[test]
    fn what_the_board_says_of_itself_counts_whatever_the_degrees() {
        let mut pace = Pace::new(Limits {
            celsius: f32::INFINITY,
            ..Limits::default()
        });
        let throttled = |throttled| Reading {
            celsius: Some(60.0),
            throttled: Some(throttled),
        };
        assert_eq!(steps(&mut pace, 0, [told(150.0)]), [0]);
        assert_eq!(steps(&mut pace, 1, [throttled(true)]), [1]);
        let silent = Reading {
            celsius: None,
            throttled: None,
        };
        assert_eq!(steps(&mut pace, 2, [silent; 100]), [1; 100]);
        let free = Reading {
            celsius: None,
            throttled: Some(false),
        };
        assert_eq!(*steps(&mut pace, 102, [free; 31]).last().expect("one"), 0);
    }

    #[test]
    fn works_for_a_half_a_quarter_an_eighth() {
        let rest = |step| {
            let heat = Heat {
                celsius: None,
                throttled: false,
                step,
            };
            heat.rest(Duration::from_millis(100)).as_millis()
        };
        assert_eq!([0, 1, 2, 3, 4].map(rest), [0, 100, 300, 700, 1500]);
    }

    #[test]
    fn reads_the_processor_and_no_more_often_than_needed() {
        let zone = |n: u8, file: &str| format!("class/thermal/thermal_zone{n}/{file}");
        // Of a Jetson: the regulator always says 100.
        let sys = sys(&[
            (&zone(0, "type"), "CPU-therm\n"),
            (&zone(0, "temp"), "48251\n"),
            (&zone(1, "type"), "PMIC-Die\n"),
            (&zone(1, "temp"), "100000\n"),
            (&zone(2, "type"), "soc0-thermal\n"),
            (&zone(2, "temp"), "-274000\n"),
            (FIRMWARE, "0\n"),
        ]);
        let mut governor = Governor::new(sys.path(), Limits::default());
        let heat = Heat {
            celsius: Some(48.3),
            throttled: false,
            step: 0,
        };
        assert_eq!(governor.look(seconds(7)), Some(heat));
        std::fs::write(sys.path().join(FIRMWARE), "4\n").expect("writes");
        assert_eq!(governor.look(seconds(11)), Some(heat), "not read again");
        let slower = Heat {
            throttled: true,
            step: 1,
            ..heat
        };
        assert_eq!(governor.look(seconds(12)), Some(slower));
    }

    #[test]
    fn a_zone_of_another_name_is_better_than_none() {
        let sys = sys(&[
            (&format!("{ZONE}/type"), "acpitz\n"),
            (&format!("{ZONE}/temp"), "27800\n"),
        ]);
        assert_eq!(Reading::of(sys.path()), told(27.8));
        let nothing = crate::board::sys(&[]);
        let mut governor = Governor::new(nothing.path(), Limits::default());
        assert_eq!(governor.look(seconds(0)), None);
    }
}

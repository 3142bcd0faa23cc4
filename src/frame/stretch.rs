//! Percentile stretch: from sensor values of any depth to the bytes that the networks know.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Percentiles of the sensor values that become byte 0 and byte 255.
///
/// Written as `LOW,HIGH` on a command line and as `[LOW, HIGH]` in a config file.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<f64>", into = "[f64; 2]")]
pub struct Percentiles {
    low: f64,
    high: f64,
}

/// Why a pair of percentiles was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("percentiles must be LOW,HIGH with 0 <= LOW < HIGH <= 100, such as 2,98")]
pub struct PercentilesError;

impl Percentiles {
    /// Accepts `0 <= low < high <= 100`.
    pub fn new(low: f64, high: f64) -> Result<Self, PercentilesError> {
        if (0.0..100.0).contains(&low) && low < high && high <= 100.0 {
            Ok(Self { low, high })
        } else {
            Err(PercentilesError)
        }
    }
}

impl Default for Percentiles {
    /// 2 and 98, the usual cut for satellite images.
    fn default() -> Self {
        Self {
            low: 2.0,
            high: 98.0,
        }
    }
}

impl FromStr for Percentiles {
    type Err = PercentilesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (low, high) = text.split_once(',').ok_or(PercentilesError)?;
        let number = |part: &str| part.trim().parse().map_err(|_| PercentilesError);
        Self::new(number(low)?, number(high)?)
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.low, self.high)
    }
}

/// Of a list, for TOML takes the first two numbers of three for two.
impl TryFrom<Vec<f64>> for Percentiles {
    type Error = PercentilesError;

    fn try_from(percentiles: Vec<f64>) -> Result<Self, Self::Error> {
        match percentiles[..] {
            [low, high] => Self::new(low, high),
            _ => Err(PercentilesError),
        }
    }
}

impl From<Percentiles> for [f64; 2] {
    fn from(percentiles: Percentiles) -> Self {
        [percentiles.low, percentiles.high]
    }
}

/// Maps integer samples so that the percentiles become 0 and 255, linearly and clamped between.
///
/// All channels share one pair of limits, so colours keep their balance and grey stays grey. Zero
/// is the usual "no data" of rotated scenes and does not count towards the percentiles.
pub fn stretch_integers<S: Copy + Into<u16>>(samples: &[S], percentiles: Percentiles) -> Vec<u8> {
    let mut histogram = vec![0_u64; usize::from(u16::MAX) + 1];
    for &sample in samples {
        histogram[usize::from(sample.into())] += 1;
    }
    histogram[0] = 0;
    let counted: u64 = histogram.iter().sum();
    let at = |percentile| {
        let rank = rank(counted, percentile);
        let mut below = 0;
        histogram
            .iter()
            .position(|count| {
                below += count;
                below > rank
            })
            .unwrap_or(0) as f32
    };
    let limits = (at(percentiles.low), at(percentiles.high));
    let table: Vec<u8> = (0..=u16::MAX)
        .map(|sample| to_byte(sample.into(), limits))
        .collect();
    samples
        .iter()
        .map(|&sample| table[usize::from(sample.into())])
        .collect()
}

/// [`stretch_integers`] for floating-point samples; those that are not finite do not count towards
/// the percentiles and become 0.
pub fn stretch_floats(samples: &[f32], percentiles: Percentiles) -> Vec<u8> {
    let mut counted: Vec<f32> = samples
        .iter()
        .copied()
        .filter(|s| s.is_finite() && *s != 0.0)
        .collect();
    if counted.is_empty() {
        return vec![0; samples.len()];
    }
    let mut at = |percentile| {
        let rank = rank(counted.len() as u64, percentile) as usize;
        *counted.select_nth_unstable_by(rank, f32::total_cmp).1
    };
    let limits = (at(percentiles.low), at(percentiles.high));
    samples
        .iter()
        .map(|&sample| to_byte(sample, limits))
        .collect()
}

/// Zero-based rank of a percentile among `count` sorted values (nearest rank).
fn rank(count: u64, percentile: f64) -> u64 {
    let last = count.saturating_sub(1);
    (last as f64 * percentile / 100.0).round() as u64
}

fn to_byte(sample: f32, (low, high): (f32, f32)) -> u8 {
    if high > low {
        // Casting saturates, and maps NaN to 0.
        (255.0 * (sample - low) / (high - low)).round() as u8
    } else {
        // One value only: nothing to tell apart.
        if sample > low { 255 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_black_and_white() {
        // 1..=101: the 2nd percentile is 3, the 98th is 99 by nearest rank.
        let samples: Vec<u16> = (1..=101).collect();
        let bytes = stretch_integers(&samples, Percentiles::default());
        assert_eq!(bytes[..3], [0, 0, 0]);
        assert_eq!(bytes[98..], [255, 255, 255]);
        assert_eq!(bytes[50], 128, "the middle, 127.5 rounded");
        let floats: Vec<f32> = samples.iter().map(|&s| f32::from(s)).collect();
        assert_eq!(stretch_floats(&floats, Percentiles::default()), bytes);
    }

    #[test]
    fn no_data_does_not_shift_the_limits() {
        let mut samples: Vec<u16> = (1000..=1100).collect();
        let plain = stretch_integers(&samples, Percentiles::default());
        samples.extend([0; 10_000]);
        assert_eq!(
            stretch_integers(&samples, Percentiles::default())[..101],
            plain
        );
        let floats = [f32::NAN, 0.0, f32::INFINITY, 1.0, 2.0, 3.0];
        let all = Percentiles::new(0.0, 100.0).expect("valid");
        assert_eq!(stretch_floats(&floats, all), [0, 0, 255, 0, 128, 255]);
    }

    #[test]
    fn flat_and_empty_inputs_are_harmless() {
        assert_eq!(
            stretch_integers(&[7_u16; 4], Percentiles::default()),
            [0; 4]
        );
        assert!(stretch_integers::<u8>(&[], Percentiles::default()).is_empty());
        assert_eq!(
            stretch_floats(&[f32::NAN; 3], Percentiles::default()),
            [0; 3]
        );
    }

    #[test]
    fn percentiles_are_read_and_refused() {
        assert_eq!("2, 98".parse(), Ok(Percentiles::default()));
        assert_eq!(Percentiles::default().to_string(), "2,98");
        for bad in ["", "2", "98,2", "-1,50", "0,101", "nan,50", "2,98,99"] {
            assert_eq!(bad.parse::<Percentiles>(), Err(PercentilesError), "{bad}");
        }
    }
}

//! The learning rate over a phase.

use std::f64::consts::PI;

/// Share of a phase spent warming up.
const WARM_UP: f64 = 0.05;

/// Where the cosine ends, relative to its peak.
const FLOOR: f64 = 0.02;

/// A linear rise to `peak`, then half a cosine down to a fiftieth of it. `step` counts from 0.
pub(crate) fn learning_rate(peak: f64, step: usize, steps: usize) -> f64 {
    let warm_up = (steps as f64 * WARM_UP).max(1.0);
    let at = step as f64 + 1.0;
    if at <= warm_up {
        return peak * at / warm_up;
    }
    let progress = (at - warm_up) / (steps as f64 - warm_up).max(1.0);
    peak * (FLOOR + (1.0 - FLOOR) * 0.5 * (1.0 + (PI * progress.min(1.0)).cos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_to_the_peak_and_falls_to_the_floor() {
        let rates: Vec<f64> = (0..100).map(|step| learning_rate(1.0, step, 100)).collect();
        assert!((rates[0] - 0.2).abs() < 1e-12);
        assert!((rates[4] - 1.0).abs() < 1e-12);
        assert!(rates[4..].is_sorted_by(|a, b| a > b));
        assert!((rates[99] - FLOOR).abs() < 1e-12);
    }
}

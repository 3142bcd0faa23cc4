//! Wakes: the foam that ships leave, which is no ship.

use std::f32::consts::TAU;

use rand::RngExt;
use rand::rngs::StdRng;

use super::canvas::{Canvas, Ground, Rect};
use super::noise::{FRACTAL, Layer, WAVES, WHITE, log_uniform, smoothstep};

/// What leaves a wake.
pub(crate) struct Course {
    pub(crate) stern: [f32; 2],
    /// Direction in which it goes.
    pub(crate) heading: f32,
    pub(crate) length: f32,
    pub(crate) beam: f32,
}

/// Paints a trail of foam behind the stern and the two arms of the bow wave.
pub(crate) fn wake(canvas: &mut Canvas, course: &Course, rng: &mut StdRng) {
    // Small boats are fast for their size.
    let small = smoothstep(80.0, 10.0, course.length);
    let trail = course.length * log_uniform(1.0, 3.0 + 9.0 * small, rng);
    let foam = rng.random_range(0.15..0.55 + 0.4 * small);
    let arms = rng.random_range(0.0..0.25 + 0.4 * small);
    let opening = rng.random_range(0.08..0.33f32);
    let spread = rng.random_range(0.01..0.07f32);
    let bend = rng.random_range(-0.12..0.12f32) / trail;
    let half = course.beam * rng.random_range(0.3..0.5f32);
    let fine = log_uniform(0.25, 0.7, rng);
    let streaks = Layer::new(
        &WAVES,
        course.heading,
        [fine * rng.random_range(2.0..6.0f32), fine],
        rng,
    );
    let tears = Layer::even(&FRACTAL, 0.15, rng);
    let crests = Layer::even(&WAVES, log_uniform(0.3, 0.9, rng), rng);
    let grain = Layer::new(&WHITE, 0.0, [1.2; 2], rng);
    let white = rng.random_range(215.0..248.0f32);
    let (sin, cos) = course.heading.sin_cos();
    let reach = 3.5 * trail + course.length;
    let corner = |v: f32| (v - reach).max(0.0) as u32;
    let [sx, sy] = course.stern;
    let rect = Rect::new(
        corner(sx),
        corner(sy),
        ((sx + reach).max(0.0) as u32).saturating_sub(corner(sx)),
        ((sy + reach).max(0.0) as u32).saturating_sub(corner(sy)),
    );
    canvas.paint(rect, Ground::Water, |x, y| {
        let (dx, dy) = (x - sx, y - sy);
        let behind = -(dx * cos + dy * sin);
        if behind < -course.length || behind > 3.5 * trail {
            return ([0.0; 3], 0.0);
        }
        let across = -dx * sin + dy * cos - bend * behind * behind.max(0.0);
        let arm = 0.55 * course.beam + opening * (behind + course.length);
        let thick = 0.7 + 0.02 * (behind + course.length);
        let width = half + spread * behind.max(0.0);
        if across.abs() > (2.5 * width).max(arm + 3.0 * thick) {
            return ([0.0; 3], 0.0);
        }
        let torn = tears.at(x, y);
        let mut cover = 0.0f32;
        if behind > 0.0 {
            let profile = (-(across / width).powi(2)).exp();
            let age = (-behind / trail).exp();
            let texture = 0.75 + 0.3 * streaks.at(x, y) + 0.2 * torn + 0.1 * grain.at(x, y);
            cover = foam * age * smoothstep(0.05, 0.9, profile * (texture + 0.35 * age));
        }
        let off = (across.abs() - arm) / thick;
        if off.abs() < 3.0 {
            let age = (-(behind + course.length) / (trail + course.length)).exp();
            let broken = (0.55 + 0.45 * crests.at(x, y) + 0.3 * torn).clamp(0.0, 1.0);
            cover = cover.max(arms * age * broken * (-off * off).exp());
        }
        let level = white + 6.0 * torn;
        ([level, level, level], cover)
    });
}

/// A wake whose ship is out of the picture, or has left it.
pub(crate) fn alone(canvas: &mut Canvas, rng: &mut StdRng) {
    let side = canvas.side() as f32;
    let heading = rng.random_range(0.0..TAU);
    let length = log_uniform(12.0, 70.0, rng);
    // The stern lies beyond the border ahead, so that the trail crosses the picture.
    let (sin, cos) = heading.sin_cos();
    let aside = rng.random_range(-0.3..0.3f32) * side;
    let ahead = side * rng.random_range(0.4..0.75f32) + length;
    let course = Course {
        stern: [
            side / 2.0 + ahead * cos - aside * sin,
            side / 2.0 + ahead * sin + aside * cos,
        ],
        heading,
        length: length.max(side / 5.0),
        beam: length * rng.random_range(0.15..0.35f32),
    };
    wake(canvas, &course, rng);
}

//! Sets ships on a scene: alone, in a roadstead, at a quay, side by side.

use std::f32::consts::{FRAC_PI_2, PI, TAU};

use anyhow::Result;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::canvas::Canvas;
use super::hull::{CutOut, Hull, Paint, Pose};
use super::images::{Images, choose};
use super::noise::log_uniform;
use super::structure::Berth;
use super::wake::{Course, wake};

/// Tries to find a ship large enough, or a place for it.
const TRIES: usize = 8;

/// Most by which a cut-out is magnified: beyond, it is a blur.
const MAGNIFIED: f32 = 1.4;

/// Ship lengths in pixels, short ones more often.
const LENGTHS: [f32; 2] = [7.0, 190.0];

/// What is common to the ships of a scene.
pub(crate) struct Plan<'a> {
    pub(crate) berths: &'a [Berth],
    /// At least one ship lies within this distance of the centre.
    pub(crate) reach: f32,
    pub(crate) sun: [f32; 2],
    /// Share of scenes with ships side by side.
    pub(crate) moored: f64,
    /// Share of ships under way.
    pub(crate) wakes: f64,
}

/// Sets one ship or more. Where none finds a place, the canvas stays empty.
///
/// # Errors
/// If images cannot be read.
pub(crate) fn launch(
    images: &Images,
    canvas: &mut Canvas,
    plan: &Plan,
    rng: &mut StdRng,
) -> Result<()> {
    let typical = length(rng);
    if rng.random_bool(plan.moored) {
        raft(images, canvas, plan, typical, rng)?;
    }
    let berthed = !plan.berths.is_empty() && rng.random_bool(0.6);
    let ships = match rng.random_range(0..10) {
        0..6 => 1,
        6..9 => rng.random_range(2..5),
        _ => rng.random_range(5..14),
    };
    for _ in 0..if berthed { 2 * ships } else { ships } {
        let near = !canvas.has_ships();
        let wanted = typical * log_uniform(0.6, 1.6, rng);
        if berthed {
            berth(images, canvas, plan, wanted, rng)?;
        } else {
            sail(images, canvas, plan, wanted, near, rng)?;
        }
    }
    Ok(())
}

fn length(rng: &mut StdRng) -> f32 {
    let [low, high] = LENGTHS;
    if rng.random_bool(0.6) {
        log_uniform(low, 45.0, rng)
    } else {
        log_uniform(20.0, high, rng)
    }
}

/// A ship of about the length wanted, or a shorter one if none is that large.
fn cut_out(images: &Images, wanted: f32, rng: &mut StdRng) -> Result<Option<CutOut>> {
    let wanted = wanted.clamp(LENGTHS[0], LENGTHS[1]);
    for _ in 0..TRIES {
        let drawer = choose(&images.with_ships, rng);
        let found = images.pick(drawer, rng, |image, pixels, rng| {
            let ship = image.labelled.ships.choose(rng)?;
            let own = Hull::measure(ship, pixels.height())?;
            let scale = wanted / own.length.max(1.0);
            if scale > MAGNIFIED || own.beam * scale < 2.0 {
                return None;
            }
            CutOut::of(ship, pixels, scale)
        })?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn paint(rng: &mut StdRng) -> Paint {
    if rng.random_bool(0.22) {
        let sign = if rng.random_bool(0.5) { 1.0 } else { -1.0 };
        Paint::Grey(sign * rng.random_range(16.0..60.0f32))
    } else {
        Paint::Own(rng.random_range(0.75..1.2f32))
    }
}

/// Shadows are as long as a ship is high.
fn shadow(sun: [f32; 2], ship: &CutOut) -> [f32; 2] {
    let height = (ship.hull.length / 60.0).min(1.5);
    sun.map(|s| s * height)
}

/// One ship anywhere, under way or at anchor.
fn sail(
    images: &Images,
    canvas: &mut Canvas,
    plan: &Plan,
    wanted: f32,
    near: bool,
    rng: &mut StdRng,
) -> Result<()> {
    let Some(ship) = cut_out(images, wanted, rng)? else {
        return Ok(());
    };
    let paint = paint(rng);
    for _ in 0..TRIES {
        let pose = Pose {
            centre: place(canvas, near.then_some(plan.reach), rng),
            angle: rng.random_range(0.0..TAU),
            paint,
            shadow: shadow(plan.sun, &ship),
        };
        if !ship.fits(canvas, &pose) {
            continue;
        }
        if rng.random_bool(plan.wakes) {
            let (sin, cos) = pose.angle.sin_cos();
            let back = 0.48 * ship.hull.length;
            let course = Course {
                stern: [pose.centre[0] - back * cos, pose.centre[1] - back * sin],
                heading: pose.angle,
                length: ship.hull.length,
                beam: ship.hull.beam,
            };
            wake(canvas, &course, rng);
        }
        ship.set(canvas, &pose);
        break;
    }
    Ok(())
}

/// A place on the canvas, within `reach` of the centre if that is given.
fn place(canvas: &Canvas, reach: Option<f32>, rng: &mut StdRng) -> [f32; 2] {
    let side = canvas.side() as f32;
    match reach {
        Some(reach) => {
            let (sin, cos) = rng.random_range(0.0..TAU).sin_cos();
            let distance = reach * rng.random::<f32>().sqrt();
            [side / 2.0 + distance * cos, side / 2.0 + distance * sin]
        }
        None => [0, 1].map(|_| rng.random_range(0.0..side)),
    }
}

/// One ship along an edge.
fn berth(
    images: &Images,
    canvas: &mut Canvas,
    plan: &Plan,
    wanted: f32,
    rng: &mut StdRng,
) -> Result<()> {
    let berth = *plan.berths.choose(rng).expect("there are berths");
    // In a marina, boats are about as long as the fingers.
    let wanted = wanted.min(berth.length.max(LENGTHS[0]));
    let Some(ship) = cut_out(images, wanted, rng)? else {
        return Ok(());
    };
    let turned = rng.random_bool(0.5);
    let angle = berth.angle + rng.random_range(-0.03..0.03f32) + if turned { PI } else { 0.0 };
    let paint = paint(rng);
    for _ in 0..TRIES {
        let gap = rng.random_range(0.5..3.5f32);
        let reach = ship.reach[usize::from(turned)] + gap;
        let free = (berth.length - ship.hull.length).max(0.0) / 2.0;
        let along = rng.random_range(-free..=free);
        let pose = Pose {
            centre: shift(berth.at, berth.angle, along, reach),
            angle,
            paint,
            shadow: shadow(plan.sun, &ship),
        };
        if ship.fits(canvas, &pose) {
            ship.set(canvas, &pose);
            break;
        }
    }
    Ok(())
}

/// Ships side by side, as close as 0 to 3 pixels.
fn raft(
    images: &Images,
    canvas: &mut Canvas,
    plan: &Plan,
    wanted: f32,
    rng: &mut StdRng,
) -> Result<()> {
    // Wide gaps between narrow hulls show nothing of what is hard.
    let wanted = wanted.max(12.0);
    let mut at = place(canvas, Some(plan.reach), rng);
    let angle = rng.random_range(0.0..TAU);
    let mut edge: Option<f32> = None;
    let first = cut_out(images, wanted, rng)?;
    let alike = rng.random_bool(0.6);
    for _ in 0..rng.random_range(2..6) {
        let other = if alike && first.is_some() {
            None
        } else {
            cut_out(images, wanted * log_uniform(0.75, 1.3, rng), rng)?
        };
        let Some(ship) = other.as_ref().or(first.as_ref()) else {
            return Ok(());
        };
        let turned = rng.random_bool(0.3);
        let gap = rng.random_range(0.0..3.0f32);
        let [near, far] = match turned {
            false => ship.reach,
            true => [ship.reach[1], ship.reach[0]],
        };
        // Across the common axis, this ship begins where the last one ends.
        if let Some(edge) = edge {
            let along = ship.hull.length * rng.random_range(-0.15..0.15f32);
            at = shift(at, angle, along, edge + gap + near);
        }
        let pose = Pose {
            centre: at,
            angle: angle + rng.random_range(-0.02..0.02f32) + if turned { PI } else { 0.0 },
            paint: paint(rng),
            shadow: [0.0; 2],
        };
        if !ship.fits(canvas, &pose) {
            break;
        }
        ship.set(canvas, &pose);
        edge = Some(far);
    }
    Ok(())
}

/// Moves a point along a direction, and across it to its left.
fn shift(at: [f32; 2], angle: f32, along: f32, across: f32) -> [f32; 2] {
    let ((sin, cos), (left_sin, left_cos)) = (angle.sin_cos(), (angle + FRAC_PI_2).sin_cos());
    [
        at[0] + along * cos + across * left_cos,
        at[1] + along * sin + across * left_sin,
    ]
}

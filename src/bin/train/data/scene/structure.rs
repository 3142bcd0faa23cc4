//! Things at sea and by the sea that are no ships, however long, thin or bright.

use std::f32::consts::{FRAC_PI_2, TAU};

use rand::RngExt;
use rand::rngs::StdRng;

use super::canvas::{Canvas, Ground, Rect};
use super::noise::{FRACTAL, Layer, WAVES, WHITE, log_uniform, smoothstep};

/// A place along an edge where a ship may lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Berth {
    /// A point of the edge.
    pub(crate) at: [f32; 2],
    /// Direction of the edge; the water lies at its left, a quarter turn on.
    pub(crate) angle: f32,
    /// Of the edge, to both sides of the point.
    pub(crate) length: f32,
}

/// A rectangle at any angle.
#[derive(Debug, Clone, Copy)]
struct Slab {
    centre: [f32; 2],
    angle: f32,
    /// Half its length and half its width.
    half: [f32; 2],
}

impl Slab {
    /// Coordinates along and across it.
    fn local(&self, x: f32, y: f32) -> [f32; 2] {
        let (sin, cos) = self.angle.sin_cos();
        let (dx, dy) = (x - self.centre[0], y - self.centre[1]);
        [dx * cos + dy * sin, -dx * sin + dy * cos]
    }

    /// The point at coordinates along and across it.
    fn point(&self, along: f32, across: f32) -> [f32; 2] {
        let (sin, cos) = self.angle.sin_cos();
        [
            self.centre[0] + along * cos - across * sin,
            self.centre[1] + along * sin + across * cos,
        ]
    }

    /// How much of a pixel it covers.
    fn cover(&self, x: f32, y: f32) -> f32 {
        let [u, v] = self.local(x, y);
        let inside = |d: f32, half: f32| (half - d.abs() + 0.5).clamp(0.0, 1.0).min(2.0 * half);
        inside(u, self.half[0]) * inside(v, self.half[1])
    }

    /// The pixels that it may touch.
    fn bounds(&self, margin: f32) -> Rect {
        let (sin, cos) = self.angle.sin_cos();
        let [a, b] = self.half;
        let (w, h) = (
            a * cos.abs() + b * sin.abs() + margin,
            a * sin.abs() + b * cos.abs() + margin,
        );
        let low = |v: f32| v.max(0.0) as u32;
        let [x, y] = self.centre;
        let (left, top) = (low(x - w), low(y - h));
        Rect::new(
            left,
            top,
            low(x + w + 2.0).saturating_sub(left),
            low(y + h + 2.0).saturating_sub(top),
        )
    }

    fn moved(&self, by: [f32; 2]) -> Self {
        Self {
            centre: [self.centre[0] + by[0], self.centre[1] + by[1]],
            ..*self
        }
    }
}

/// A colour of concrete, asphalt, planks or stone.
fn material(rng: &mut StdRng) -> [f32; 3] {
    let light = rng.random_range(75.0..225.0f32);
    let warm = rng.random_range(-4.0..18.0f32);
    [light + warm, light + 0.4 * warm, light - 0.8 * warm]
}

/// Paints a slab with an even grain, over its shadow on the water.
fn slab(canvas: &mut Canvas, slab: Slab, colour: [f32; 3], shadow: [f32; 2], rng: &mut StdRng) {
    shade(canvas, slab, shadow);
    let grain = Layer::new(&WHITE, 0.0, [1.1; 2], rng);
    let stains = Layer::even(&FRACTAL, 0.3, rng);
    let strength = rng.random_range(2.0..8.0f32);
    canvas.paint(slab.bounds(1.0), Ground::BecomesSolid, |x, y| {
        let cover = slab.cover(x, y);
        if cover <= 0.0 {
            return (colour, 0.0);
        }
        let level = strength * (grain.at(x, y) + stains.at(x, y));
        (colour.map(|c| (c + level).clamp(0.0, 255.0)), cover)
    });
}

fn shade(canvas: &mut Canvas, slab: Slab, shadow: [f32; 2]) {
    if shadow != [0.0; 2] {
        let cast = slab.moved(shadow);
        canvas.paint(cast.bounds(1.0), Ground::Any, |x, y| {
            ([6.0, 10.0, 14.0], 0.45 * cast.cover(x, y))
        });
    }
}

/// The direction and length of all shadows of a scene.
pub(crate) fn sun(rng: &mut StdRng) -> [f32; 2] {
    let (sin, cos) = rng.random_range(0.0..TAU).sin_cos();
    let length = rng.random_range(0.0..4.0f32);
    [length * cos, length * sin]
}

/// A bridge from one border to the other.
pub(crate) fn bridge(canvas: &mut Canvas, sun: [f32; 2], rng: &mut StdRng) -> Vec<Berth> {
    let side = canvas.side() as f32;
    let half = log_uniform(1.0, 13.0, rng);
    let deck = Slab {
        centre: [0, 1].map(|_| side * rng.random_range(0.25..0.75f32)),
        angle: rng.random_range(0.0..TAU),
        half: [1.5 * side, half],
    };
    let colour = material(rng);
    let high = rng.random_range(0.5..4.0f32);
    slab(canvas, deck, colour, sun.map(|s| s * high), rng);
    // Kerbs, a median and, now and then, a car on each side.
    let kerb = rng.random_range(-40.0..45.0f32);
    let line = colour.map(|c| (c + kerb).clamp(20.0, 250.0));
    let lanes = [-half + 0.5, half - 0.5, 0.0];
    for &at in &lanes[..if half > 3.0 { 3 } else { 2 }] {
        let strip = Slab {
            centre: deck.point(0.0, at),
            half: [1.5 * side, 0.5],
            ..deck
        };
        canvas.paint(strip.bounds(1.0), Ground::Any, |x, y| {
            (line, 0.8 * strip.cover(x, y))
        });
    }
    if half > 2.5 {
        for _ in 0..rng.random_range(0..24) {
            let lane = half * rng.random_range(-0.7..0.7f32);
            let car = Slab {
                centre: deck.point(side * rng.random_range(-0.7..0.7f32), lane),
                half: [rng.random_range(1.0..2.5f32), (0.22 * half).clamp(0.5, 1.2)],
                ..deck
            };
            let paint = *[[240.0; 3], [40.0; 3], [150.0, 40.0, 40.0], [110.0; 3]]
                .get(rng.random_range(0..4))
                .expect("one of four");
            canvas.paint(car.bounds(1.0), Ground::Any, |x, y| {
                (paint, car.cover(x, y))
            });
        }
    }
    Vec::new()
}

/// A pier that reaches in from a border, alone, with a head, or with fingers as in a marina.
pub(crate) fn pier(canvas: &mut Canvas, sun: [f32; 2], rng: &mut StdRng) -> Vec<Berth> {
    let side = canvas.side() as f32;
    let angle = rng.random_range(0.0..TAU);
    let length = side * rng.random_range(0.4..0.9f32);
    let half = log_uniform(0.8, 8.0, rng);
    let aside = side * rng.random_range(-0.35..0.35f32);
    let (sin, cos) = angle.sin_cos();
    let from = side / 2.0 - rng.random_range(0.55..0.75f32) * side + length / 2.0;
    let middle = side / 2.0;
    let stem = Slab {
        centre: [
            middle + (from - middle) * cos - aside * sin,
            middle + (from - middle) * sin + aside * cos,
        ],
        angle,
        half: [length / 2.0, half],
    };
    let colour = material(rng);
    let mut berths = sides(&stem);
    let mut parts = vec![stem];
    match rng.random_range(0..3) {
        0 => {
            let head = Slab {
                centre: stem.point(stem.half[0], 0.0),
                angle: angle + FRAC_PI_2,
                half: [half + log_uniform(6.0, 60.0, rng), half],
            };
            // The other side is the one towards the stem.
            berths = sides(&head).split_off(1);
            parts.push(head);
        }
        1 => {
            berths.clear();
            let finger = log_uniform(5.0, 40.0, rng);
            let step = finger * rng.random_range(0.5..1.1f32) + 3.0;
            let thin = (0.6 * half).clamp(0.5, 2.0);
            let both = rng.random_bool(0.7);
            let mut at = -stem.half[0] + step;
            while at < stem.half[0] {
                for turn in [1.0, -1.0].into_iter().take(1 + usize::from(both)) {
                    let part = Slab {
                        centre: stem.point(at, turn * (half + finger / 2.0)),
                        angle: angle + FRAC_PI_2,
                        half: [finger / 2.0, thin],
                    };
                    berths.extend(sides(&part));
                    parts.push(part);
                }
                at += step;
            }
        }
        _ => {}
    }
    for &part in &parts {
        shade(canvas, part, sun);
    }
    for part in parts {
        slab(canvas, part, colour, [0.0; 2], rng);
    }
    berths
}

fn sides(slab: &Slab) -> Vec<Berth> {
    let berth = |turn: f32, across: f32| Berth {
        at: slab.point(0.0, across),
        angle: slab.angle + turn,
        length: 2.0 * slab.half[0],
    };
    vec![
        berth(0.0, slab.half[1]),
        berth(2.0 * FRAC_PI_2, -slab.half[1]),
    ]
}

/// A wall of rocks with ragged edges, straight or with a knee.
pub(crate) fn breakwater(canvas: &mut Canvas, sun: [f32; 2], rng: &mut StdRng) -> Vec<Berth> {
    let side = canvas.side() as f32;
    let half = log_uniform(1.5, 9.0, rng);
    let first = Slab {
        centre: [0, 1].map(|_| side * rng.random_range(0.2..0.8f32)),
        angle: rng.random_range(0.0..TAU),
        half: [side * rng.random_range(0.15..0.7f32), half],
    };
    let knee = first.point(first.half[0], 0.0);
    let turned = first.angle + rng.random_range(-1.2..1.2f32);
    let arm = side * rng.random_range(0.1..0.4f32);
    let second = Slab {
        centre: [knee[0] + arm * turned.cos(), knee[1] + arm * turned.sin()],
        angle: turned,
        half: [arm, half],
    };
    let rocks = material(rng).map(|c| 0.75 * c + 20.0);
    let grain = Layer::new(&WHITE, 0.0, [1.6; 2], rng);
    let ragged = Layer::even(&WAVES, 0.4, rng);
    let surf = Layer::even(&FRACTAL, 0.2, rng);
    let parts = if rng.random_bool(0.5) {
        vec![first, second]
    } else {
        vec![first]
    };
    for &part in &parts {
        shade(canvas, part, sun);
    }
    for part in parts {
        canvas.paint(part.bounds(6.0), Ground::BecomesSolid, |x, y| {
            let [u, v] = part.local(x, y);
            let edge = (v.abs() - half).max(u.abs() - part.half[0]) + 0.25 * half * ragged.at(x, y);
            if edge < 0.5 {
                let level = 22.0 * grain.at(x, y) + 10.0 * ragged.at(x, y);
                let colour = rocks.map(|c| (c + level).clamp(10.0, 250.0));
                return (colour, (0.5 - edge).clamp(0.0, 1.0));
            }
            let foam = 0.45 * (1.0 - (edge - 0.5) / 4.0) * surf.at(x, y).max(0.0);
            ([225.0, 230.0, 230.0], foam.clamp(0.0, 0.49))
        });
    }
    Vec::new()
}

/// Bright and dark basins with dikes between: salt works and ponds.
pub(crate) fn pans(canvas: &mut Canvas, rng: &mut StdRng) -> Vec<Berth> {
    let side = canvas.side() as f32;
    let frame = Slab {
        centre: [0, 1].map(|_| side * rng.random_range(0.1..0.9f32)),
        angle: rng.random_range(0.0..TAU),
        half: [0, 1].map(|_| side * rng.random_range(0.25..1.2f32)),
    };
    let cell = [0, 1].map(|_| log_uniform(14.0, 90.0, rng));
    let dike = rng.random_range(0.7..2.5f32);
    let bank = material(rng);
    let salt = rng.random_range(215.0..242.0f32);
    let brine = rng.random_range(60.0..170.0f32);
    let hue: [f32; 3] = std::array::from_fn(|_| rng.random_range(0.85..1.05f32));
    let white = rng.random_range(0.15..0.7);
    let palette: Vec<[f32; 3]> = (0..7)
        .map(|_| {
            let light = rng.random_range(0.85..1.15f32);
            match rng.random_bool(white) {
                true => [salt, salt, 0.98 * salt].map(|c| c * (0.5 + 0.5 * light)),
                false => hue.map(|hue| brine * light * hue),
            }
        })
        .collect();
    let seed = rng.random_range(0..1000i32);
    let stagger = rng.random_range(0.0..0.5f32);
    let mottle = Layer::even(&FRACTAL, 0.5, rng);
    let warp = Layer::even(&FRACTAL, 2.0, rng);
    canvas.paint(frame.bounds(1.0), Ground::BecomesSolid, |x, y| {
        let cover = frame.cover(x, y);
        if cover <= 0.0 {
            return (bank, 0.0);
        }
        let bend = 2.0 * warp.at(x, y);
        let [u, v] = frame.local(x, y);
        let row = ((v + bend) / cell[1]).floor();
        // Rows of basins need not stand in line.
        let start = stagger * row * cell[0];
        let column = ((u + bend + start) / cell[0]).floor();
        let from_dike = |at: f32, size: f32| {
            let part = at - size * (at / size).floor();
            part.min(size - part)
        };
        let rim = from_dike(u + bend + start, cell[0]).min(from_dike(v + bend, cell[1]));
        let number = (column as i32 * 7919 + row as i32 * 104_729 + seed).unsigned_abs();
        let basin = palette[(number / 3 % 7) as usize];
        let wet = smoothstep(-0.5, 1.5, rim - dike - 0.4 * mottle.at(x, y));
        let level = 7.0 * mottle.at(x, y);
        let colour: [f32; 3] =
            std::array::from_fn(|c| bank[c] + (basin[c] - bank[c]) * wet + level);
        (colour.map(|c| c.clamp(0.0, 255.0)), cover)
    });
    Vec::new()
}

/// Floating cages in rows, round or square, or lines of floats.
pub(crate) fn farm(canvas: &mut Canvas, rng: &mut StdRng) -> Vec<Berth> {
    let side = canvas.side() as f32;
    let frame = Slab {
        centre: [0, 1].map(|_| side * rng.random_range(0.3..0.7f32)),
        angle: rng.random_range(0.0..TAU),
        half: [0.0; 2],
    };
    let radius = log_uniform(2.0, 11.0, rng);
    let pitch = radius * rng.random_range(2.2..3.2f32);
    let (columns, rows) = (rng.random_range(2..9), rng.random_range(1..4));
    let round = rng.random_bool(0.6);
    let dark = rng.random_bool(0.3);
    let tone = if dark {
        25.0
    } else {
        rng.random_range(130.0..235.0f32)
    };
    let strength = rng.random_range(0.45..0.95f32);
    let line = (0.12 * radius).clamp(0.45, 1.2);
    for (column, row) in (0..columns).flat_map(|c| (0..rows).map(move |r| (c, r))) {
        let along = pitch * (column as f32 - columns as f32 / 2.0);
        let across = pitch * (row as f32 - rows as f32 / 2.0);
        let cage = Slab {
            centre: frame.point(along, across),
            half: [radius; 2],
            ..frame
        };
        canvas.paint(cage.bounds(2.0), Ground::BecomesSolid, |x, y| {
            let [u, v] = cage.local(x, y);
            let from = if round {
                u.hypot(v)
            } else {
                u.abs().max(v.abs())
            } - radius;
            let rim = (line + 0.5 - from.abs()).clamp(0.0, 1.0) * strength;
            let net = if from < 0.0 { 0.2 } else { 0.0 };
            if rim >= net {
                ([tone; 3], rim)
            } else {
                ([20.0, 34.0, 34.0], net)
            }
        });
    }
    Vec::new()
}

/// A platform on legs: a few decks and cranes close together.
pub(crate) fn platform(canvas: &mut Canvas, sun: [f32; 2], rng: &mut StdRng) -> Vec<Berth> {
    let side = canvas.side() as f32;
    let size = log_uniform(4.0, 22.0, rng);
    let main = Slab {
        centre: [0, 1].map(|_| side * rng.random_range(0.2..0.8f32)),
        angle: rng.random_range(0.0..TAU),
        half: [size, size * rng.random_range(0.7..1.0f32)],
    };
    let colour = material(rng);
    slab(canvas, main, colour, sun.map(|s| 3.0 * s), rng);
    for _ in 0..rng.random_range(2..7) {
        let along = size * rng.random_range(-1.0..1.0f32);
        let across = size * rng.random_range(-1.0..1.0f32);
        let part = Slab {
            centre: main.point(along, across),
            angle: main.angle,
            half: [0, 1].map(|_| size * rng.random_range(0.1..0.4f32)),
        };
        let colour = material(rng);
        slab(canvas, part, colour, sun, rng);
    }
    Vec::new()
}

/// Buoys: bright dots, a pixel or two across.
pub(crate) fn buoys(canvas: &mut Canvas, rng: &mut StdRng) -> Vec<Berth> {
    let side = canvas.side() as f32;
    for _ in 0..rng.random_range(1..10) {
        let radius = rng.random_range(0.4..1.1f32);
        let dot = Slab {
            centre: [0, 1].map(|_| side * rng.random_range(0.05..0.95f32)),
            angle: 0.0,
            half: [radius; 2],
        };
        let light = rng.random_range(150.0..250.0f32);
        let colour = [light, light * rng.random_range(0.5..1.0f32), light * 0.8];
        canvas.paint(dot.bounds(1.0), Ground::Water, |x, y| {
            (colour, dot.cover(x, y))
        });
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Rgb, RgbImage};
    use rand::SeedableRng;

    #[test]
    fn structures_are_solid_where_they_stand_and_show_no_ship() {
        type Build = fn(&mut Canvas, &mut StdRng) -> Vec<Berth>;
        let all: [Build; 5] = [
            |canvas, rng| bridge(canvas, [1.0, 2.0], rng),
            |canvas, rng| pier(canvas, [1.0, 2.0], rng),
            |canvas, rng| breakwater(canvas, [1.0, 2.0], rng),
            |canvas, rng| platform(canvas, [1.0, 2.0], rng),
            pans,
        ];
        for build in all {
            for seed in 0..10 {
                let mut canvas = Canvas::new(RgbImage::from_pixel(200, 200, Rgb([30, 40, 50])));
                build(&mut canvas, &mut StdRng::seed_from_u64(seed));
                assert!(!canvas.has_ships());
                assert!(canvas.solid.as_raw().contains(&255), "seed {seed}");
                let untouched = canvas
                    .pixels
                    .pixels()
                    .zip(canvas.solid.pixels())
                    .filter(|(pixel, solid)| solid.0[0] > 0 && pixel.0 == [30, 40, 50]);
                assert!(untouched.count() < 20, "seed {seed}");
            }
        }
    }

    #[test]
    fn water_lies_to_the_left_of_a_berth() {
        for seed in 0..30 {
            let mut canvas = Canvas::new(RgbImage::new(300, 300));
            for berth in pier(&mut canvas, [0.0; 2], &mut StdRng::seed_from_u64(seed)) {
                let beside = |distance: f32| {
                    let turned = berth.angle + FRAC_PI_2;
                    let x = (berth.at[0] + distance * turned.cos()).round();
                    let y = (berth.at[1] + distance * turned.sin()).round();
                    let inside = (0.0..300.0).contains(&x) && (0.0..300.0).contains(&y);
                    inside.then(|| canvas.solid.get_pixel(x as u32, y as u32).0[0])
                };
                assert_ne!(beside(1.7), Some(255), "seed {seed}: {berth:?}");
            }
        }
    }
}

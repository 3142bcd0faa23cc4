//! Where land and water meet.

use std::f32::consts::{FRAC_PI_2, TAU};

use image::{Rgb, RgbImage};
use rand::RngExt;
use rand::rngs::StdRng;

use super::canvas::{Canvas, Ground};
use super::noise::{FRACTAL, Layer, WAVES, WHITE, log_uniform, smoothstep};
use super::structure::Berth;

/// Ground without anything built: grass, sand or rock.
pub(crate) fn ground(side: u32, rng: &mut StdRng) -> RgbImage {
    let light = rng.random_range(55.0..165.0f32);
    let green = rng.random_range(-0.1..0.12f32);
    let blue = rng.random_range(0.62..0.9f32);
    let colours: [[f32; 3]; 3] = std::array::from_fn(|_| {
        let light = light * rng.random_range(0.75..1.25f32);
        let green = green + rng.random_range(-0.05..0.05f32);
        [light * (1.0 - green), light, light * blue]
    });
    let patches = Layer::even(&FRACTAL, log_uniform(0.2, 1.0, rng), rng);
    let other = Layer::even(&FRACTAL, log_uniform(0.15, 0.6, rng), rng);
    let hills = Layer::even(&FRACTAL, log_uniform(0.3, 1.2, rng), rng);
    let bushes = Layer::even(&WAVES, log_uniform(0.3, 1.2, rng), rng);
    let grain = Layer::new(&WHITE, 0.0, [1.3; 2], rng);
    let rough = rng.random_range(2.0..11.0f32);
    let relief = rng.random_range(50.0..260.0f32);
    RgbImage::from_fn(side, side, |x, y| {
        let (x, y) = (x as f32, y as f32);
        let first = smoothstep(-1.0, 1.0, patches.at(x, y));
        let second = smoothstep(0.0, 1.2, other.at(x, y));
        let slope = hills.at(x + 1.0, y + 1.0) - hills.at(x, y);
        let level = relief * slope.clamp(-0.2, 0.2)
            + rough * (0.7 * bushes.at(x, y) + 0.5 * grain.at(x, y));
        Rgb(std::array::from_fn(|c| {
            let base = colours[0][c] + (colours[1][c] - colours[0][c]) * first;
            (base + (colours[2][c] - base) * second + level) as u8
        }))
    })
}

/// Lays `land` over one side of the canvas, along a fractal line with a beach and surf.
pub(crate) fn coast(canvas: &mut Canvas, land: &RgbImage, rng: &mut StdRng) {
    let side = canvas.side() as f32;
    let (sin, cos) = rng.random_range(0.0..TAU).sin_cos();
    let bays = Layer::even(&FRACTAL, log_uniform(0.5, 2.0, rng), rng);
    let depth = rng.random_range(6.0..45.0f32);
    let start = side * rng.random_range(-0.35..0.35f32);
    let from = |x: f32, y: f32| (x - side / 2.0) * cos + (y - side / 2.0) * sin + start;
    let beach = rng.random_range(-3.0..9.0f32).max(0.0);
    shore(canvas, land, beach, rng, |x, y| {
        from(x, y) + depth * bays.at(x, y)
    });
}

/// A few rocks or islands.
pub(crate) fn islets(canvas: &mut Canvas, land: &RgbImage, rng: &mut StdRng) {
    let side = canvas.side() as f32;
    let large = rng.random_bool(0.3);
    let most = if large { 70.0 } else { 16.0 };
    let spots: Vec<[f32; 3]> = (0..rng.random_range(1..7))
        .map(|_| {
            let at = |rng: &mut StdRng| side * rng.random_range(0.1..0.9f32);
            [at(rng), at(rng), log_uniform(2.0, most, rng)]
        })
        .collect();
    let outline = Layer::even(&FRACTAL, log_uniform(0.12, 0.6, rng), rng);
    let stretch = rng.random_range(1.0..2.5f32);
    let (sin, cos) = rng.random_range(0.0..TAU).sin_cos();
    let beach = rng.random_range(-2.0..2.5f32).max(0.0);
    shore(canvas, land, beach, rng, |x, y| {
        let height = |[cx, cy, radius]: &[f32; 3]| {
            let (dx, dy) = (x - cx, y - cy);
            let (u, v) = (dx * cos + dy * sin, -dx * sin + dy * cos);
            radius - u.hypot(v * stretch) + 0.45 * radius * outline.at(x, y)
        };
        spots.iter().map(height).fold(f32::MIN, f32::max)
    });
}

/// Paints `land` where `inland`, a distance in pixels, is positive, with a beach of the given width, and
/// surf and shallows beside it.
fn shore(
    canvas: &mut Canvas,
    land: &RgbImage,
    beach: f32,
    rng: &mut StdRng,
    inland: impl Fn(f32, f32) -> f32,
) {
    let light = rng.random_range(110.0..215.0f32);
    let sand = [light, 0.94 * light, 0.8 * light];
    let surf_width = log_uniform(1.0, 12.0, rng);
    let surf_strength = rng.random_range(-0.3..0.9f32).max(0.0);
    let shallow_width = log_uniform(4.0, 50.0, rng);
    let shallow = rng.random_range(0.0..0.5f32);
    let tint = [95.0, 135.0, 125.0];
    let foam = Layer::even(&FRACTAL, log_uniform(0.1, 0.4, rng), rng);
    let ragged = Layer::even(&WAVES, log_uniform(0.4, 1.0, rng), rng);
    let all = canvas.all();
    canvas.paint(all, Ground::BecomesSolid, |x, y| {
        let inland = inland(x, y) + 0.8 * ragged.at(x, y);
        let cover = (inland + 0.5).clamp(0.0, 1.0);
        if cover > 0.0 {
            let own = land.get_pixel(x as u32, y as u32).0.map(f32::from);
            let dry = if beach > 0.0 {
                smoothstep(0.0, 1.0, inland / beach)
            } else {
                1.0
            };
            return (
                std::array::from_fn(|c| sand[c] + (own[c] - sand[c]) * dry),
                cover,
            );
        }
        let distance = -inland;
        if distance < surf_width {
            let rolling = smoothstep(-0.4, 1.2, foam.at(x, y) + 0.4 * ragged.at(x, y));
            let cover = surf_strength * rolling * (1.0 - distance / surf_width);
            if cover > 0.12 {
                return ([235.0, 238.0, 238.0], cover.min(0.49));
            }
        }
        let cover = shallow * (1.0 - distance / shallow_width).max(0.0);
        (tint, cover.min(0.49))
    });
}

/// Lays `land` beyond a straight edge of stone: a quay, with places for ships along it.
pub(crate) fn quay(canvas: &mut Canvas, land: &RgbImage, rng: &mut StdRng) -> Vec<Berth> {
    let side = canvas.side() as f32;
    let angle = rng.random_range(0.0..TAU);
    let (sin, cos) = angle.sin_cos();
    let start = side * rng.random_range(-0.1..0.38f32);
    let apron = log_uniform(2.0, 30.0, rng);
    let light = rng.random_range(95.0..215.0f32);
    let warm = rng.random_range(-3.0..14.0f32);
    let stone = [light + warm, light, light - warm];
    let edge = rng.random_range(-35.0..35.0f32);
    let grain = Layer::new(&WHITE, 0.0, [1.2; 2], rng);
    let stains = Layer::even(&FRACTAL, 0.4, rng);
    let all = canvas.all();
    let middle = side / 2.0;
    canvas.paint(all, Ground::BecomesSolid, |x, y| {
        // Water lies on the side where the normal points, at a quarter turn from the edge.
        let outward = -(x - middle) * sin + (y - middle) * cos;
        let inland = -outward - start;
        let cover = (inland + 0.5).clamp(0.0, 1.0);
        if cover <= 0.0 {
            return (stone, 0.0);
        }
        if inland < apron {
            let level = 3.0 * grain.at(x, y) + 4.0 * stains.at(x, y);
            let level = level + if inland < 1.2 { edge } else { 0.0 };
            return (stone.map(|c| (c + level).clamp(0.0, 255.0)), cover);
        }
        (land.get_pixel(x as u32, y as u32).0.map(f32::from), cover)
    });
    let turned = angle + FRAC_PI_2;
    vec![Berth {
        at: [middle - start * turned.cos(), middle - start * turned.sin()],
        angle,
        length: 0.9 * side,
    }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn land_is_solid_and_water_is_not() {
        let land = RgbImage::from_pixel(160, 160, Rgb([10, 250, 10]));
        for seed in 0..20 {
            let rng = &mut StdRng::seed_from_u64(seed);
            let mut canvas = Canvas::new(RgbImage::from_pixel(160, 160, Rgb([20, 20, 90])));
            match seed % 3 {
                0 => coast(&mut canvas, &land, rng),
                1 => islets(&mut canvas, &land, rng),
                _ => drop(quay(&mut canvas, &land, rng)),
            }
            for (pixel, solid) in canvas.pixels.pixels().zip(canvas.solid.pixels()) {
                match pixel.0 {
                    [10, 250, 10] => assert_eq!(solid.0[0], 255),
                    [20, 20, 90] => assert_eq!(solid.0[0], 0),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn a_quay_has_its_berth_at_its_edge() {
        for seed in 0..20 {
            let rng = &mut StdRng::seed_from_u64(seed);
            let mut canvas = Canvas::new(RgbImage::new(200, 200));
            let land = RgbImage::from_pixel(200, 200, Rgb([90; 3]));
            let berth = quay(&mut canvas, &land, rng)[0];
            let solid = |distance: f32| {
                let turned = berth.angle + FRAC_PI_2;
                let x = berth.at[0] + distance * turned.cos();
                let y = berth.at[1] + distance * turned.sin();
                canvas.solid.get_pixel(x.round() as u32, y.round() as u32).0[0] > 0
            };
            assert!(solid(-3.0) && !solid(3.0), "seed {seed}");
        }
    }
}

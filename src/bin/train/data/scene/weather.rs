//! Made-up sea, and weather over a picture of any size: clouds, haze, sun glint, whitecaps.
//!
//! All of it is simulation, and whoever judges models by it should say so.

use std::f32::consts::{FRAC_PI_2, TAU};

use image::{Rgb, RgbImage};
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

use super::noise::{FRACTAL, Grain, Layer, WAVELENGTH, WAVES, log_uniform, smoothstep};

/// Colours of water as overhead pictures have them, darker and lighter ones come by chance.
const WATERS: [[f32; 3]; 10] = [
    [16.0, 34.0, 56.0],
    [20.0, 50.0, 84.0],
    [30.0, 58.0, 76.0],
    [28.0, 70.0, 80.0],
    [42.0, 66.0, 58.0],
    [70.0, 90.0, 90.0],
    [52.0, 112.0, 118.0],
    [108.0, 98.0, 80.0],
    [96.0, 104.0, 108.0],
    [14.0, 20.0, 26.0],
];

/// Open sea without anything on it, calm or rough.
pub(crate) fn sea(width: u32, height: u32, rng: &mut impl Rng) -> RgbImage {
    let base = water_colour(rng);
    let other = water_change(base, rng);
    let wind = rng.random_range(0.0..TAU);
    let roughness = rng.random::<f32>().powi(2);

    let shoal = Layer::even(&FRACTAL, log_uniform(0.8, 4.0, rng), rng);
    let gusts = Layer::even(&FRACTAL, log_uniform(0.3, 1.5, rng), rng);
    let swell = waves(wind + rng.random_range(-0.6..0.6f32), [14.0, 60.0], rng);
    let chop = waves(wind, [2.5, 9.0], rng);
    let ripple = waves(wind + rng.random_range(-0.9..0.9f32), [2.0, 4.0], rng);
    let grain = Grain::new(rng);
    let swell_height = rng.random_range(0.0..1.0 + 3.0 * roughness);
    let chop_height = 0.4 + rng.random_range(0.3..1.0f32) * 9.0 * roughness;
    let ripple_height = 0.3 + rng.random_range(0.2..0.8f32) * 6.0 * roughness;
    let grain_height = rng.random_range(0.4..1.6f32);
    let patchiness = rng.random_range(0.0..0.35f32);
    // Light water shows the same waves in stronger contrast.
    let contrast = (0.5 + base[1] / 90.0).min(1.6);

    RgbImage::from_fn(width, height, |x, y| {
        let grain = grain.at(x, y);
        let (x, y) = (x as f32, y as f32);
        let gust = 1.0 + patchiness * gusts.at(x, y);
        let chop = chop.at(x, y);
        let surface = swell_height * swell.at(x, y)
            + gust * (chop_height * (chop + 0.15 * chop * chop) + ripple_height * ripple.at(x, y));
        let level = contrast * surface + grain_height * grain;
        let mix = smoothstep(-1.5, 1.5, shoal.at(x, y));
        Rgb(std::array::from_fn(|c| {
            let colour = base[c] + (other[c] - base[c]) * mix;
            byte(colour + level * (0.85 + 0.3 * colour / 128.0))
        }))
    })
}

/// A colour of water, often less colourful than the eye would see it.
fn water_colour(rng: &mut impl Rng) -> [f32; 3] {
    let light = log_uniform(0.65, 1.35, rng);
    let grey = rng.random_range(0.0..0.5f32);
    let water = WATERS.choose(rng).expect("some colours");
    let mean = water.iter().sum::<f32>() / 3.0;
    water.map(|level| blend(level, mean, grey) * light * rng.random_range(0.97..1.03f32))
}

/// A colour that water may have beside the first: deeper, shallower or with more in it.
fn water_change([r, g, b]: [f32; 3], rng: &mut impl Rng) -> [f32; 3] {
    let light = rng.random_range(0.88..1.15f32);
    let green = rng.random_range(0.0..0.1f32);
    [
        r * light * (1.0 + 0.5 * green),
        g * light * (1.0 + green),
        b * light,
    ]
}

/// Clouds of one kind, with their shadows; where they are thickest, nothing shows through.
pub(crate) fn clouds(image: &mut RgbImage, rng: &mut impl Rng) {
    match rng.random_range(0..10) {
        0..4 => cumulus(image, rng),
        4..7 => streaks(image, 0.85, rng),
        _ => veil(image, 0.9, rng),
    }
}

/// Clouds through which ships can be seen.
pub(crate) fn thin_clouds(image: &mut RgbImage, rng: &mut impl Rng) {
    let most = rng.random_range(0.2..0.5);
    if rng.random_bool(0.5) {
        streaks(image, most, rng);
    } else {
        veil(image, most, rng);
    }
}

/// Heaps with sharp edges and a shadow each.
fn cumulus(image: &mut RgbImage, rng: &mut impl Rng) {
    let body = Layer::even(&FRACTAL, log_uniform(0.4, 1.6, rng), rng);
    let detail = Layer::even(&FRACTAL, log_uniform(0.15, 0.4, rng), rng);
    let cover = rng.random_range(0.5..1.8f32);
    let soft = rng.random_range(0.35..0.9f32);
    let away = rng.random_range(0.0..TAU);
    let distance = log_uniform(12.0, 90.0, rng);
    let (sy, sx) = (distance * away.sin(), distance * away.cos());
    let darkness = rng.random_range(0.25..0.55f32);
    let white = rng.random_range(225.0..255.0f32);
    let thickness = |x: f32, y: f32| body.at(x, y) + 0.25 * detail.at(x, y) - cover;
    change(image, |x, y, pixel| {
        let shadow = 1.0 - darkness * smoothstep(0.0, 1.3 * soft, thickness(x - sx, y - sy));
        let thick = thickness(x, y);
        let opacity = smoothstep(0.0, soft, thick);
        let shade = white - 22.0 * smoothstep(1.2, 0.2, thick) + 6.0 * detail.at(x, y);
        pixel.map(|level| blend(level * shadow, shade, opacity))
    });
}

/// Long thin cirrus: fibres in bands.
fn streaks(image: &mut RgbImage, most: f32, rng: &mut impl Rng) {
    let angle = rng.random_range(0.0..TAU);
    // Large enough for a frame to show no band twice.
    let size = log_uniform(0.75, 1.6, rng);
    let long = rng.random_range(3.0..9.0f32);
    let fine = rng.random_range(0.15..0.4f32);
    let bands = Layer::new(&FRACTAL, angle, [size * long, size], rng);
    let fibres = Layer::new(&FRACTAL, angle, [size * long * fine, size * fine], rng);
    let bend = Layer::even(&FRACTAL, 3.0, rng);
    let cover = rng.random_range(-0.3..1.0f32);
    let colour = cloud_colour(rng);
    change(image, |x, y, pixel| {
        let shift = 25.0 * bend.at(x, y);
        let (x, y) = (x + shift, y - shift);
        let body = 0.7 * (bands.at(x, y) + fibres.at(x, y));
        let opacity = most * smoothstep(cover, cover + 2.0, body);
        std::array::from_fn(|c| blend(pixel[c], colour[c], opacity))
    });
}

/// A broad sheet, torn here and there.
fn veil(image: &mut RgbImage, most: f32, rng: &mut impl Rng) {
    let body = Layer::even(&FRACTAL, log_uniform(0.6, 3.0, rng), rng);
    let cover = rng.random_range(-1.2..0.8f32);
    let soft = rng.random_range(1.2..2.8f32);
    let colour = cloud_colour(rng);
    change(image, |x, y, pixel| {
        let opacity = most * smoothstep(cover, cover + soft, body.at(x, y));
        std::array::from_fn(|c| blend(pixel[c], colour[c], opacity))
    });
}

fn cloud_colour(rng: &mut impl Rng) -> [f32; 3] {
    let light = rng.random_range(205.0..250.0f32);
    let cool = rng.random_range(-4.0..8.0f32);
    [light - cool, light, light + cool]
}

/// Thin haze all over the picture, a little thicker here than there.
pub(crate) fn haze(image: &mut RgbImage, rng: &mut impl Rng) {
    let body = Layer::even(&FRACTAL, log_uniform(1.5, 4.0, rng), rng);
    let mean = rng.random_range(0.08..0.4f32);
    let light = rng.random_range(140.0..215.0f32);
    let cool = rng.random_range(0.0..14.0f32);
    let colour = [light - cool, light, light + cool];
    change(image, |x, y, pixel| {
        let opacity = (mean * (1.0 + 0.3 * body.at(x, y))).clamp(0.0, 0.6);
        std::array::from_fn(|c| blend(pixel[c], colour[c], opacity))
    });
}

/// The sun mirrored by waves: bright, grey, and coarse in texture.
pub(crate) fn glint(image: &mut RgbImage, rng: &mut impl Rng) {
    let across = rng.random_range(0.0..TAU);
    let chop = waves(across + rng.random_range(-1.0..1.0f32), [2.5, 10.0], rng);
    let ripple = waves(across + rng.random_range(-1.0..1.0f32), [2.0, 4.0], rng);
    let patches = Layer::even(&FRACTAL, log_uniform(0.6, 3.0, rng), rng);
    let strength = rng.random_range(0.1..0.55f32);
    let texture = rng.random_range(0.1..0.5f32);
    let evenness = rng.random_range(0.2..1.0f32);
    let warm = rng.random_range(-8.0..14.0f32);
    let light = rng.random_range(190.0..245.0f32);
    let colour = [light + warm, light, light - warm];
    let (sin, cos) = across.sin_cos();
    let (width, height) = image.dimensions();
    let half = 0.5 * width.min(height) as f32;
    let middle = half * rng.random_range(-1.0..1.0f32);
    let breadth = half * rng.random_range(0.5..2.0f32);
    change(image, |x, y, pixel| {
        let from = (x - width as f32 / 2.0) * cos + (y - height as f32 / 2.0) * sin - middle;
        let beam = (-(from / breadth).powi(2)).exp();
        let spread = evenness + (1.0 - evenness) * beam;
        let facets = 1.0 + texture * (chop.at(x, y) + 0.7 * ripple.at(x, y));
        let patch = 1.0 + 0.25 * patches.at(x, y);
        let share = (strength * spread * facets * patch).clamp(0.0, 0.9);
        std::array::from_fn(|c| blend(pixel[c], colour[c], share))
    });
}

/// Breaking crests, each a few pixels long, in patches where gusts strike.
pub(crate) fn whitecaps(image: &mut RgbImage, rng: &mut impl Rng) {
    let wind = rng.random_range(0.0..TAU);
    let crests = waves(wind, [3.0, 14.0], rng);
    let fray = Layer::even(&WAVES, log_uniform(0.25, 0.6, rng), rng);
    let gusts = Layer::even(&FRACTAL, log_uniform(0.3, 1.5, rng), rng);
    let trail_length = rng.random_range(1.5..4.0f32);
    let trails = Layer::new(&WAVES, wind, [trail_length, 0.6], rng);
    let rare = rng.random_range(1.7..3.2f32);
    let sharp = rng.random_range(0.3..0.8f32);
    let white = rng.random_range(0.35..0.95f32);
    let foam = rng.random_range(-0.1..0.15f32).max(0.0);
    change(image, |x, y, pixel| {
        let gust = 0.5 * gusts.at(x, y);
        let breaking = crests.at(x, y) + 0.6 * fray.at(x, y) + gust;
        let cap = white * smoothstep(rare, rare + sharp, breaking);
        let trail = foam * smoothstep(1.0, 2.5, trails.at(x, y) + gust);
        pixel.map(|level| blend(level, 236.0, cap.max(trail)))
    });
}

/// Waves that run in the direction `wind`, of a length in `lengths` picture pixels.
fn waves(wind: f32, lengths: [f32; 2], rng: &mut impl Rng) -> Layer {
    let size = log_uniform(lengths[0], lengths[1], rng) / WAVELENGTH;
    let crest = rng.random_range(1.3..3.0f32);
    Layer::new(&WAVES, wind + FRAC_PI_2, [size * crest, size], rng)
}

/// Gives each pixel a new value by its column, row and levels.
fn change(image: &mut RgbImage, mut new: impl FnMut(f32, f32, [f32; 3]) -> [f32; 3]) {
    for (x, y, pixel) in image.enumerate_pixels_mut() {
        pixel.0 = new(x as f32, y as f32, pixel.0.map(f32::from)).map(byte);
    }
}

fn blend(under: f32, over: f32, share: f32) -> f32 {
    under + (over - under) * share
}

fn byte(level: f32) -> u8 {
    (level + 0.5) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    type Weather = fn(&mut RgbImage, &mut StdRng);

    const ALL: [Weather; 5] = [clouds, thin_clouds, haze, glint, whitecaps];

    #[test]
    fn the_same_seed_gives_the_same_picture_at_any_size() {
        let make = |seed: u64, width, height| {
            let rng = &mut StdRng::seed_from_u64(seed);
            let mut image = sea(width, height, rng);
            for weather in ALL {
                weather(&mut image, rng);
            }
            image
        };
        assert_eq!(make(1, 64, 48), make(1, 64, 48));
        assert_ne!(make(1, 64, 48), make(2, 64, 48));
        assert_eq!(make(3, 1, 1).dimensions(), (1, 1));
    }

    /// What lies below can be told from the result: the brighter stays the brighter.
    #[test]
    fn thin_clouds_and_haze_let_ships_show_through() {
        for seed in 0..40 {
            for weather in [thin_clouds as Weather, haze] {
                let shown = [40, 240].map(|level| {
                    let mut image = RgbImage::from_pixel(60, 60, Rgb([level; 3]));
                    weather(&mut image, &mut StdRng::seed_from_u64(seed));
                    image
                });
                for (dark, bright) in shown[0].iter().zip(shown[1].iter()) {
                    assert!(i32::from(*bright) - i32::from(*dark) > 70);
                }
            }
        }
    }

    #[test]
    fn whitecaps_only_brighten_dark_water_and_leave_most_of_it() {
        for seed in 0..20 {
            let mut image = RgbImage::from_pixel(120, 120, Rgb([30, 50, 70]));
            whitecaps(&mut image, &mut StdRng::seed_from_u64(seed));
            assert!(image.pixels().all(|p| p.0[0] >= 30 && p.0[2] >= 70));
            let white = image.pixels().filter(|p| p.0[0] > 100).count();
            assert!(white < 120 * 120 / 5, "{white}");
        }
    }
}

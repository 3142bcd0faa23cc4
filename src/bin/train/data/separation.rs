//! The U-Net's second truth: how central in its ship a pixel lies, so that touching ships come apart.

use image::GrayImage;

/// Chamfer steps to a neighbour at an edge and at a corner; 3 is one pixel (Borgefors 1986).
const STEPS: (u32, u32) = (3, 4);

/// How far around ships the truth counts, in chamfer units: six pixels.
const REACH: u32 = 18;

/// Weight of the pixels where the surroundings of two ships meet: there are few of them, and they are
/// what parts ships.
const VALLEY_WEIGHT: f32 = 5.0;

/// What the second output is to be, pixel by pixel.
pub(crate) struct Centrality {
    /// Distance to the edge of the pixel's ship over the greatest one in the ship, above 0 to 1; 0
    /// where no ship is.
    pub(crate) truth: Vec<f32>,
    /// How much the pixel counts: nothing far from all ships, where the edge never looks.
    pub(crate) weight: Vec<f32>,
}

impl Centrality {
    /// Of the ships of a tile: `mask` holds 0 for none, or the ship's number.
    ///
    /// The tile's border is no edge of a ship: what lies beyond is not known.
    pub(crate) fn of(mask: &GrayImage) -> Self {
        let ships = mask.as_raw();
        let depths = depths(mask);
        let mut greatest = [1; 256];
        for (&ship, &depth) in ships.iter().zip(&depths) {
            let greatest = &mut greatest[usize::from(ship)];
            *greatest = depth.max(*greatest);
        }
        let truth = ships.iter().zip(&depths).map(|(&ship, &depth)| match ship {
            0 => 0.0,
            _ => depth as f32 / greatest[usize::from(ship)] as f32,
        });
        Self {
            truth: truth.collect(),
            weight: weights(mask),
        }
    }
}

/// Chamfer distance of each ship's pixel to the nearest pixel that is not of its ship; 0 where no ship
/// is.
fn depths(mask: &GrayImage) -> Vec<u32> {
    let ships = mask.as_raw();
    let start = ships
        .iter()
        .map(|&ship| if ship == 0 { 0 } else { u32::MAX });
    let mut depths: Vec<u32> = start.collect();
    sweep(mask, |at, near, step| {
        let through = match ships[near] == ships[at] {
            true => depths[near].saturating_add(step),
            false => step,
        };
        if ships[at] != 0 {
            depths[at] = depths[at].min(through);
        }
    });
    // A ship that fills the tile has no edge in sight.
    depths
        .iter_mut()
        .for_each(|d| *d = if *d == u32::MAX { 1 } else { *d });
    depths
}

/// 1 near ships, [`VALLEY_WEIGHT`] where two of them are near, and 0 elsewhere.
fn weights(mask: &GrayImage) -> Vec<f32> {
    let ships = mask.as_raw();
    // The nearest ship of each pixel, and how far away it is.
    let start = ships
        .iter()
        .map(|&ship| if ship == 0 { u32::MAX } else { 0 });
    let mut nearest: Vec<(u32, u8)> = start.zip(ships.iter().copied()).collect();
    sweep(mask, |at, near, step| {
        let (distance, ship) = nearest[near];
        let distance = distance.saturating_add(step);
        if distance < nearest[at].0 {
            nearest[at] = (distance, ship);
        }
    });
    let is_near = |&(distance, _): &(u32, u8)| distance <= REACH;
    let mut weights: Vec<f32> = nearest
        .iter()
        .map(|place| f32::from(u8::from(is_near(place))))
        .collect();
    sweep(mask, |at, near, _| {
        let (a, b) = (nearest[at], nearest[near]);
        if is_near(&a) && is_near(&b) && a.1 != b.1 {
            weights[at] = VALLEY_WEIGHT;
            weights[near] = VALLEY_WEIGHT;
        }
    });
    weights
}

/// Shows each pair of neighbours forwards and backwards, in the two passes of a chamfer transform:
/// pixel, neighbour, and the step between them.
fn sweep(mask: &GrayImage, mut look: impl FnMut(usize, usize, u32)) {
    let (width, height) = (mask.width() as usize, mask.height() as usize);
    let (edge, corner) = STEPS;
    for y in 0..height {
        for x in 0..width {
            let at = y * width + x;
            if x > 0 {
                look(at, at - 1, edge);
            }
            if y > 0 {
                look(at, at - width, edge);
                if x > 0 {
                    look(at, at - width - 1, corner);
                }
                if x + 1 < width {
                    look(at, at - width + 1, corner);
                }
            }
        }
    }
    for y in (0..height).rev() {
        for x in (0..width).rev() {
            let at = y * width + x;
            if x + 1 < width {
                look(at, at + 1, edge);
            }
            if y + 1 < height {
                look(at, at + width, edge);
                if x + 1 < width {
                    look(at, at + width + 1, corner);
                }
                if x > 0 {
                    look(at, at + width - 1, corner);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use image::Luma;
    use proptest::prelude::*;

    use super::*;

    /// Digits are ships.
    fn of(rows: &[&str]) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
        let (width, height) = (rows[0].len() as u32, rows.len() as u32);
        let mask = GrayImage::from_fn(width, height, |x, y| {
            Luma([rows[y as usize].as_bytes()[x as usize] - b'0'])
        });
        let Centrality { truth, weight } = Centrality::of(&mask);
        let by_row = |values: Vec<f32>| values.chunks(rows[0].len()).map(<[f32]>::to_vec).collect();
        (by_row(truth), by_row(weight))
    }

    #[test]
    fn rises_from_the_edge_to_the_middle_line() {
        let (truth, _) = of(&["0000000", "0111110", "0111110", "0111110", "0000000"]);
        assert_eq!(truth[0], [0.0; 7]);
        assert_eq!(truth[1], [0.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.0]);
        assert_eq!(truth[2], [0.0, 0.5, 1.0, 1.0, 1.0, 0.5, 0.0]);
    }

    #[test]
    fn touching_ships_have_a_valley_between_them_that_counts_more() {
        let rows = [
            "000000000",
            "011122200",
            "011122200",
            "011122200",
            "000000000",
        ];
        let (truth, weight) = of(&rows);
        assert_eq!(truth[2], [0.0, 0.5, 1.0, 0.5, 0.5, 1.0, 0.5, 0.0, 0.0]);
        let five = VALLEY_WEIGHT;
        assert_eq!(weight[2], [1.0, 1.0, 1.0, five, five, 1.0, 1.0, 1.0, 1.0]);
        // As one ship, they have one middle line.
        let (truth, weight) = of(&rows
            .map(|row| row.replace('2', "1"))
            .each_ref()
            .map(|r| &r[..]));
        assert_eq!(truth[2], [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0, 0.0]);
        assert!(weight.concat().iter().all(|&w| w == 1.0));
    }

    #[test]
    fn the_gap_between_moored_ships_counts_and_the_open_sea_does_not() {
        let (_, weight) = of(&["10002000000000"]);
        let five = VALLEY_WEIGHT;
        let want = [
            1.0, 1.0, five, five, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0,
        ];
        assert_eq!(weight[0], want);
    }

    #[test]
    fn a_border_is_no_edge() {
        let (truth, _) = of(&["111000", "111000", "111000"]);
        assert_eq!(truth[1], [1.0, 2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0, 0.0]);
        let (truth, weight) = of(&["11", "11"]);
        assert_eq!(
            (truth.concat(), weight.concat()),
            (vec![1.0; 4], vec![1.0; 4])
        );
        let (truth, weight) = of(&["00", "00"]);
        assert_eq!(
            (truth.concat(), weight.concat()),
            (vec![0.0; 4], vec![0.0; 4])
        );
    }

    proptest! {
        /// The chamfer distance is the cheapest way of steps; two passes find it as a search over all
        /// pixels does.
        #[test]
        fn distances_are_those_of_the_cheapest_way(
            (width, height, pixels) in (1u32..14, 1u32..14).prop_flat_map(|(w, h)| {
                let pixel = prop::sample::select(vec![0u8, 1, 1, 1, 2]);
                (Just(w), Just(h), prop::collection::vec(pixel, (w * h) as usize))
            })
        ) {
            let mask = GrayImage::from_raw(width, height, pixels).expect("sizes agree");
            let ships = mask.as_raw();
            // Only a straight way counts: max and min of the offsets, whatever lies between.
            let way = |a: usize, b: usize| {
                let (w, a, b) = (width as usize, a as u32, b as u32);
                let w = w as u32;
                let (dx, dy) = ((a % w).abs_diff(b % w), (a / w).abs_diff(b / w));
                STEPS.0 * (dx.max(dy) - dx.min(dy)) + STEPS.1 * dx.min(dy)
            };
            for (at, &depth) in depths(&mask).iter().enumerate() {
                let others = (0..ships.len()).filter(|&b| ships[b] != ships[at]);
                let want = match ships[at] {
                    0 => 0,
                    _ => others.map(|b| way(at, b)).min().unwrap_or(1),
                };
                prop_assert_eq!(depth, want);
            }
        }
    }
}

//! Merging tiles into one map by a tent-weighted mean in integers.

use image::GrayImage;
use rayon::prelude::*;

use super::TilePlan;

/// Weight of a pixel that no border disturbs, along one axis.
const FULL_WEIGHT: u32 = 16;

impl TilePlan {
    /// Merges one map per tile (side x side, `None` where no network ran) into one map of the frame:
    /// the rounded mean of the tiles that cover a pixel, weighted by how far from their borders it
    /// lies, and 0 where none does.
    ///
    /// All arithmetic is in integers, so the result does not depend on the order of tiles.
    ///
    /// # Panics
    /// If there is not one entry per tile, or a map is not of the tiles' size.
    pub fn merge(&self, tiles: &[Option<GrayImage>]) -> GrayImage {
        assert_eq!(tiles.len(), self.count(), "one entry per tile");
        let size = (self.tile, self.tile);
        assert!(
            tiles.iter().flatten().all(|t| t.dimensions() == size),
            "maps of the tiles' size"
        );

        let tent = tent(self.tile, self.overlap);
        let mut merged = GrayImage::new(self.width, self.height);
        merged
            .par_chunks_exact_mut(self.width as usize)
            .enumerate()
            .for_each_init(
                || vec![Sum::default(); self.width as usize],
                |sums, (y, out)| {
                    sums.fill(Sum::default());
                    self.add_row(y as u32, tiles, &tent, sums);
                    for (out, sum) in out.iter_mut().zip(sums) {
                        *out = sum.mean();
                    }
                },
            );
        merged
    }

    /// Adds to `sums` what each tile says of row `y`.
    fn add_row(&self, y: u32, tiles: &[Option<GrayImage>], tent: &[u32], sums: &mut [Sum]) {
        let side = self.tile as usize;
        let first = self.ys.partition_point(|&top| top + self.tile <= y);
        let end = self.ys.partition_point(|&top| top <= y);
        for (row, &top) in self.ys.iter().enumerate().take(end).skip(first) {
            let local = (y - top) as usize;
            for (column, &left) in self.xs.iter().enumerate() {
                let Some(tile) = &tiles[row * self.xs.len() + column] else {
                    continue;
                };
                let values = &tile.as_raw()[local * side..(local + 1) * side];
                let places = sums[left as usize..].iter_mut();
                for ((sum, &value), &weight) in places.zip(values).zip(tent) {
                    sum.add(value, weight * tent[local]);
                }
            }
        }
    }
}

/// A weighted sum of bytes. Weights are at most 256, so 65,793 tiles may cover one pixel.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    value: u32,
    weight: u32,
}

impl Sum {
    fn add(&mut self, value: u8, weight: u32) {
        self.value += u32::from(value) * weight;
        self.weight += weight;
    }

    fn mean(self) -> u8 {
        match self.weight {
            0 => 0,
            weight => ((self.value + weight / 2) / weight) as u8,
        }
    }
}

/// Weights along one axis of a tile: from 1 at the borders up to [`FULL_WEIGHT`] where the least
/// overlap ends.
fn tent(tile: u32, overlap: u32) -> Vec<u32> {
    (0..tile)
        .map(|i| i.min(tile - 1 - i))
        .map(|depth| match overlap {
            0 => FULL_WEIGHT,
            _ => 1 + (FULL_WEIGHT - 1) * depth.min(overlap) / overlap,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use image::{Luma, Rgb, RgbImage};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn weights_rise_over_the_overlap() {
        assert_eq!(tent(8, 0), [16; 8]);
        assert_eq!(tent(12, 3), [1, 6, 11, 16, 16, 16, 16, 16, 16, 11, 6, 1]);
        // The overlap is more than half of the tile: the tent has no roof.
        assert_eq!(tent(6, 5), [1, 4, 7, 7, 4, 1]);
    }

    #[test]
    fn weighs_a_hand_worked_overlap() {
        // Two tiles of four pixels that share two: weights 1 8 8 1 each.
        let plan = TilePlan::new(6, 1, 4, 2);
        let flat = |v: u8| Some(GrayImage::from_pixel(4, 4, Luma([v])));
        let merged = plan.merge(&[flat(90), flat(180)]);
        // Pixel 2: (8 * 90 + 1 * 180) / 9 = 100; pixel 3: (1 * 90 + 8 * 180) / 9 = 170.
        assert_eq!(merged.as_raw(), &[90, 90, 100, 170, 180, 180]);
    }

    #[test]
    fn tiles_that_did_not_run_have_no_weight() {
        let plan = TilePlan::new(6, 1, 4, 2);
        let tile = GrayImage::from_pixel(4, 4, Luma([90]));
        assert_eq!(
            plan.merge(&[Some(tile), None]).as_raw(),
            &[90, 90, 90, 90, 0, 0]
        );
        assert_eq!(plan.merge(&[None, None]).as_raw(), &[0; 6]);
    }

    proptest! {
        #[test]
        fn merging_what_was_cut_gives_the_frame(
            width in 1u32..150, height in 1u32..150, seed in any::<u32>(), overlap in 0u32..32
        ) {
            let noise = |x: u32, y: u32| {
                (x.wrapping_mul(0x9E37_79B1) ^ y.wrapping_mul(0x85EB_CA77) ^ seed)
                    .wrapping_mul(0xC2B2_AE3D)
                    .to_be_bytes()[0]
            };
            let frame = RgbImage::from_fn(width, height, |x, y| Rgb([noise(x, y); 3]));
            let plan = TilePlan::new(width, height, 32, overlap);
            let tiles: Vec<_> = (0..plan.count())
                .map(|i| {
                    let tile = plan.cut(&frame, i);
                    Some(GrayImage::from_fn(32, 32, |x, y| Luma([tile.get_pixel(x, y).0[0]])))
                })
                .collect();
            let merged = plan.merge(&tiles);
            prop_assert!(merged.enumerate_pixels().all(|(x, y, p)| p.0[0] == noise(x, y)));
        }
    }
}

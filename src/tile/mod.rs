//! Cutting a frame into overlapping square tiles, and merging what a network says of each into one
//! map.

mod merge;

use image::RgbImage;

/// How a frame is cut into overlapping square tiles.
///
/// Along each axis there are as few tiles as the least overlap allows, spread evenly, so that the
/// first starts at the first pixel and the last ends at the last. An axis shorter than a tile has
/// one tile, which mirrored borders complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TilePlan {
    width: u32,
    height: u32,
    tile: u32,
    overlap: u32,
    /// First column of each column of tiles.
    xs: Vec<u32>,
    /// First row of each row of tiles.
    ys: Vec<u32>,
}

/// A tile's place in its frame. A tile that is larger than the frame reaches past its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// First column.
    pub x: u32,
    /// First row.
    pub y: u32,
    /// Side in pixels.
    pub side: u32,
}

impl Region {
    /// Whether the tile covers the frame's pixel in column `x` and row `y`.
    pub fn contains(&self, x: u32, y: u32) -> bool {
        let within = |start: u32, at: u32| at >= start && at - start < self.side;
        within(self.x, x) && within(self.y, y)
    }
}

impl TilePlan {
    /// Plans a frame of `width` x `height` pixels in tiles of `tile` pixels a side, of which
    /// neighbours share at least `overlap`.
    ///
    /// # Panics
    /// If a size is zero or `overlap` is not smaller than `tile`.
    pub fn new(width: u32, height: u32, tile: u32, overlap: u32) -> Self {
        assert!(
            width > 0 && height > 0,
            "cannot tile a frame of {width}x{height}"
        );
        assert!(
            overlap < tile,
            "an overlap of {overlap} does not fit tiles of {tile}"
        );
        let xs = origins(width, tile, overlap);
        let ys = origins(height, tile, overlap);
        Self {
            width,
            height,
            tile,
            overlap,
            xs,
            ys,
        }
    }

    /// Width and height of the frame that was planned for.
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// Number of tiles, at least one.
    pub fn count(&self) -> usize {
        self.xs.len() * self.ys.len()
    }

    /// Least overlap of neighbours in pixels.
    pub fn overlap(&self) -> u32 {
        self.overlap
    }

    /// Where tile `index` lies; tiles count along the rows.
    ///
    /// # Panics
    /// If there is no such tile.
    pub fn region(&self, index: usize) -> Region {
        let (row, column) = (index / self.xs.len(), index % self.xs.len());
        Region {
            x: self.xs[column],
            y: self.ys[row],
            side: self.tile,
        }
    }

    /// The other tiles that share pixels with tile `index`.
    pub fn neighbours(&self, index: usize) -> impl Iterator<Item = usize> + '_ {
        let Region { x, y, side } = self.region(index);
        let near = move |origins: &[u32], at: u32| {
            let first = origins.partition_point(|&o| o + side <= at);
            first..origins.partition_point(|&o| o < at + side)
        };
        let columns = near(&self.xs, x);
        near(&self.ys, y)
            .flat_map(move |row| {
                columns
                    .clone()
                    .map(move |column| row * self.xs.len() + column)
            })
            .filter(move |&other| other != index)
    }

    /// Cuts tile `index` out of `frame`, completed by mirrored borders where the frame is smaller.
    ///
    /// # Panics
    /// If `frame` has another size than was planned for, or there is no such tile.
    pub fn cut(&self, frame: &RgbImage, index: usize) -> RgbImage {
        assert_eq!(
            frame.dimensions(),
            (self.width, self.height),
            "a plan for another frame"
        );
        let region = self.region(index);
        let columns: Vec<u32> = (0..self.tile)
            .map(|x| mirrored(region.x + x, self.width))
            .collect();
        RgbImage::from_fn(self.tile, self.tile, |x, y| {
            *frame.get_pixel(columns[x as usize], mirrored(region.y + y, self.height))
        })
    }
}

/// First pixels of the tiles along an axis of `length` pixels.
fn origins(length: u32, tile: u32, overlap: u32) -> Vec<u32> {
    let count = length
        .saturating_sub(overlap)
        .div_ceil(tile - overlap)
        .max(1);
    let room = u64::from(length.saturating_sub(tile));
    (0..count)
        .map(|i| (room * u64::from(i) / u64::from(count - 1).max(1)) as u32)
        .collect()
}

/// The pixel that shows at `at` when an axis of `length` pixels is mirrored at its end pixels, as
/// often as needed.
fn mirrored(at: u32, length: u32) -> u32 {
    if length == 1 {
        return 0;
    }
    let at = at % (2 * (length - 1));
    at.min(2 * (length - 1) - at)
}

#[cfg(test)]
mod tests {
    use image::Rgb;
    use proptest::prelude::*;

    use super::*;

    /// Shows in its colour where each pixel came from.
    fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 0]))
    }

    #[test]
    fn spreads_as_few_tiles_as_the_overlap_allows() {
        // ceil((768 - 32) / 192) = 4 tiles, 544 / 3 apart.
        let plan = TilePlan::new(768, 224, 224, 32);
        assert_eq!(plan.xs, [0, 181, 362, 544]);
        assert_eq!(plan.ys, [0]);
        assert_eq!(plan.count(), 4);
        // 416 = 2 * 224 - 32 just fits two tiles; one pixel more needs three.
        assert_eq!(TilePlan::new(416, 1, 224, 32).xs, [0, 192]);
        assert_eq!(TilePlan::new(417, 1, 224, 32).xs, [0, 96, 193]);
    }

    #[test]
    fn a_small_frame_is_one_mirrored_tile() {
        let plan = TilePlan::new(3, 1, 8, 2);
        assert_eq!(plan.count(), 1);
        let tile = plan.cut(&gradient(3, 1), 0);
        let columns: Vec<u8> = (0..8).map(|x| tile.get_pixel(x, 5).0[0]).collect();
        assert_eq!(columns, [0, 1, 2, 1, 0, 1, 2, 1]);
        let point = TilePlan::new(1, 1, 8, 2).cut(&gradient(1, 1), 0);
        assert!(point.pixels().all(|p| p.0 == [0, 0, 0]));
    }

    #[test]
    fn neighbours_are_the_tiles_that_share_pixels() {
        let plan = TilePlan::new(40, 40, 16, 4);
        assert_eq!(plan.count(), 9);
        assert_eq!(plan.neighbours(0).collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!(
            plan.neighbours(4).collect::<Vec<_>>(),
            [0, 1, 2, 3, 5, 6, 7, 8]
        );
        // Without an overlap tiles share nothing.
        assert_eq!(TilePlan::new(32, 16, 16, 0).neighbours(0).count(), 0);
    }

    proptest! {
        #[test]
        fn tiles_cover_the_frame_and_keep_the_overlap(
            width in 1u32..2000, tile in 2u32..300, share in 0.0f64..1.0
        ) {
            let overlap = (f64::from(tile - 1) * share) as u32;
            let plan = TilePlan::new(width, 1, tile, overlap);
            prop_assert_eq!(plan.xs[0], 0);
            prop_assert!(plan.xs.windows(2).all(|w| w[0] < w[1] && w[1] + overlap <= w[0] + tile));
            let last = plan.xs[plan.xs.len() - 1];
            prop_assert_eq!(last + tile.min(width), width);
        }

        #[test]
        fn a_tile_shows_the_frame(width in 1u32..90, height in 1u32..90) {
            let frame = gradient(width, height);
            let plan = TilePlan::new(width, height, 32, 8);
            for index in 0..plan.count() {
                let tile = plan.cut(&frame, index);
                let region = plan.region(index);
                for (x, y, pixel) in tile.enumerate_pixels() {
                    let (x, y) = (region.x + x, region.y + y);
                    if x < width && y < height {
                        prop_assert_eq!(pixel, frame.get_pixel(x, y));
                    }
                }
            }
        }
    }
}

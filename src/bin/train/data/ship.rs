//! The size of a ship from its run lengths.

use image::GrayImage;
use shipwatch::mask::{Mask, Rle, instances};

/// Longer side of the smallest rectangle around a ship of an image of `height` rows; of its largest part
/// where it is in several.
pub(crate) fn ship_length(ship: &Rle, height: u32) -> f64 {
    let (mut left, mut top, mut right, mut bottom) = (u32::MAX, u32::MAX, 0, 0);
    for (x, y) in ship.pixels(height) {
        (left, top) = (left.min(x), top.min(y));
        (right, bottom) = (right.max(x + 1), bottom.max(y + 1));
    }
    if right == 0 {
        return 0.0;
    }
    let mut mask = Mask::new(right - left, bottom - top);
    for (x, y) in ship.pixels(height) {
        mask.set(x - left, y - top, true);
    }
    let flat = GrayImage::new(right - left, bottom - top);
    let parts = instances(&mask, &flat);
    let largest = parts.iter().max_by_key(|part| part.area());
    largest.map_or(0.0, |part| part.oriented_box().length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_side_of_the_largest_part() {
        // In 10 rows: columns 2 to 4 of rows 1 to 7, and one pixel far away.
        let ship = Rle::new([(22, 7), (32, 7), (42, 7), (100, 1)]).expect("increasing");
        assert_eq!(ship_length(&ship, 10), 7.0);
        assert_eq!(ship_length(&Rle::default(), 10), 0.0);
    }
}

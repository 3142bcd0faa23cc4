//! Instances: the 8-connected components of a mask, or parts of them.

use image::GrayImage;

use super::geometry::{Corner, OrientedBox};
use super::{Mask, Rle};

/// One 8-connected component of a mask, or an 8-connected part of one.
#[derive(Debug, Clone, Default)]
pub struct Instance {
    /// Spans by row, then column.
    pub(super) spans: Vec<Span>,
    /// Sum of the probability bytes over the pixels.
    sum: u64,
}

/// Neighbouring set pixels of one row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) y: u32,
    /// First column.
    pub(super) start: u32,
    /// Column after the last.
    pub(super) end: u32,
}

impl Span {
    pub(super) fn len(self) -> u64 {
        u64::from(self.end - self.start)
    }

    /// Whether this span and one of the row above share an edge or a corner.
    fn touches(self, above: Self) -> bool {
        self.start <= above.end && above.start <= self.end
    }
}

/// The components of `mask`, by the row and then the column of their first pixel.
///
/// `probabilities` gives each pixel's share in [`Instance::score`].
///
/// # Panics
/// If the two differ in size.
pub fn instances(mask: &Mask, probabilities: &GrayImage) -> Vec<Instance> {
    let size = (mask.width(), mask.height());
    assert_eq!(
        size,
        probabilities.dimensions(),
        "a mask and its probabilities differ in size"
    );
    let spans = spans(mask);
    let mut sets = DisjointSets::new(spans.len());
    join_rows(&spans, &mut sets);

    // A root is its set's first span, so instances come out in the order of their first pixels.
    let mut numbers = vec![usize::MAX; spans.len()];
    let mut found: Vec<Instance> = Vec::new();
    for (i, &span) in spans.iter().enumerate() {
        let root = sets.root(i);
        if root == i {
            numbers[i] = found.len();
            found.push(Instance::default());
        }
        found[numbers[root]].push(span, probabilities);
    }
    found
}

/// Row after row, the stretches of set pixels.
fn spans(mask: &Mask) -> Vec<Span> {
    let mut spans = Vec::new();
    for y in 0..mask.height() {
        let mut x = 0;
        for stretch in mask.row(y).chunk_by(|a, b| a == b) {
            let end = x + stretch.len() as u32;
            if stretch[0] {
                spans.push(Span { y, start: x, end });
            }
            x = end;
        }
    }
    spans
}

/// Joins each span with those of the row above that it touches.
fn join_rows(spans: &[Span], sets: &mut DisjointSets) {
    let mut above = 0;
    for (i, &span) in spans.iter().enumerate() {
        // Spans that end before this one starts touch nothing further right either.
        while spans[above].y + 1 < span.y
            || (spans[above].y + 1 == span.y && spans[above].end < span.start)
        {
            above += 1;
        }
        let candidates = spans[above..i].iter().take_while(|s| s.y < span.y);
        for (offset, _) in candidates.enumerate().take_while(|(_, s)| s.touches(span)) {
            sets.join(above + offset, i);
        }
    }
}

/// Union-find in which the smallest member is the root.
struct DisjointSets(Vec<usize>);

impl DisjointSets {
    fn new(len: usize) -> Self {
        Self((0..len).collect())
    }

    fn root(&mut self, mut i: usize) -> usize {
        while self.0[i] != i {
            self.0[i] = self.0[self.0[i]];
            i = self.0[i];
        }
        i
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
    }
}

impl Instance {
    /// Adds a span that comes after those there are.
    pub(super) fn push(&mut self, span: Span, probabilities: &GrayImage) {
        self.spans.push(span);
        self.sum += (span.start..span.end)
            .map(|x| u64::from(probabilities.get_pixel(x, span.y).0[0]))
            .sum::<u64>();
    }

    /// Number of pixels.
    pub fn area(&self) -> u64 {
        self.spans.iter().map(|span| span.len()).sum()
    }

    /// Mean probability over the pixels, 0 to 1.
    pub fn score(&self) -> f32 {
        (self.sum as f64 / self.area() as f64 / 255.0) as f32
    }

    /// Axis-parallel box in whole pixels: x, y, width, height.
    pub fn bbox(&self) -> [u32; 4] {
        let x = self.spans.iter().map(|s| s.start).min().unwrap_or(0);
        let end = self.spans.iter().map(|s| s.end).max().unwrap_or(0);
        let y = self.spans.first().map_or(0, |s| s.y);
        let bottom = self.spans.last().map_or(0, |s| s.y + 1);
        [x, y, end - x, bottom - y]
    }

    /// Mean of the pixel centres: x, y. The centre of pixel (0, 0) is (0.5, 0.5).
    pub fn centroid(&self) -> [f64; 2] {
        let area = self.area() as f64;
        let sum = |value: fn(&Span) -> f64| {
            self.spans
                .iter()
                .map(|s| value(s) * s.len() as f64)
                .sum::<f64>()
        };
        [
            sum(|s| (f64::from(s.start) + f64::from(s.end)) / 2.0) / area,
            sum(|s| f64::from(s.y) + 0.5) / area,
        ]
    }

    /// The rectangle of least area around the pixels.
    pub fn oriented_box(&self) -> OrientedBox {
        let corners = self.spans.iter().flat_map(|s| {
            let (y, start, end) = (i64::from(s.y), i64::from(s.start), i64::from(s.end));
            [(start, y), (end, y), (start, y + 1), (end, y + 1)] as [Corner; 4]
        });
        OrientedBox::around(corners.collect())
    }

    /// The pixels as run lengths of a grid with `height` rows.
    pub fn to_rle(&self, height: u32) -> Rle {
        let [left, top, width, rows] = self.bbox();
        let mut local = Mask::new(width, rows);
        for span in &self.spans {
            for x in span.start..span.end {
                local.set(x - left, span.y - top, true);
            }
        }
        let index = |x: u32, y: u32| u64::from(left + x) * u64::from(height) + u64::from(top + y);
        let pixels = (0..width).flat_map(|x| (0..rows).map(move |y| (x, y)));
        Rle::from_indices(
            pixels
                .filter(|&(x, y)| local.get(x, y))
                .map(|(x, y)| index(x, y)),
        )
    }
}

#[cfg(test)]
mod tests {
    use image::Luma;
    use proptest::prelude::*;

    use super::*;

    /// Digits are probabilities in steps of 25; anything above 0 is set.
    fn find(rows: &[&str]) -> Vec<Instance> {
        let image = GrayImage::from_fn(rows[0].len() as u32, rows.len() as u32, |x, y| {
            Luma([(rows[y as usize].as_bytes()[x as usize] - b'0') * 25])
        });
        instances(&Mask::from_threshold(&image, 1), &image)
    }

    #[test]
    fn diagonal_neighbours_are_one_instance() {
        let found = find(&["10010", "01100", "00000", "00011"]);
        let areas: Vec<u64> = found.iter().map(Instance::area).collect();
        assert_eq!(areas, [4, 2]);
        assert_eq!(found[0].bbox(), [0, 0, 4, 2]);
        assert_eq!(found[1].bbox(), [3, 3, 2, 1]);
    }

    #[test]
    fn branches_that_meet_below_are_one_instance() {
        let found = find(&["1010101", "1010101", "1111111"]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].area(), 15);
    }

    #[test]
    fn measures_a_hand_worked_ship() {
        let found = find(&["00000", "02400", "02400", "00000"]);
        let [ship] = &found[..] else {
            panic!("{} instances", found.len())
        };
        assert_eq!(ship.area(), 4);
        assert_eq!(ship.bbox(), [1, 1, 2, 2]);
        assert_eq!(ship.centroid(), [2.0, 2.0]);
        assert!((ship.score() - 75.0 / 255.0).abs() < 1e-6);
        assert_eq!(ship.to_rle(4).to_string(), "6 2 10 2");
        let rectangle = ship.oriented_box();
        assert_eq!((rectangle.length, rectangle.width), (2.0, 2.0));
    }

    #[test]
    fn one_pixel_is_a_ship_one_pixel_long() {
        let found = find(&["9"]);
        let rectangle = found[0].oriented_box();
        assert_eq!((rectangle.length, rectangle.width), (1.0, 1.0));
        assert_eq!(found[0].centroid(), [0.5, 0.5]);
        assert_eq!(found[0].to_rle(1).to_string(), "1 1");
    }

    #[test]
    fn an_empty_mask_has_no_instance() {
        assert!(find(&["000", "000"]).is_empty());
    }

    /// Labels by flood fill, the plain way: sorted lists of pixels.
    fn flood_fill(mask: &Mask) -> Vec<Vec<(u32, u32)>> {
        let mut left = mask.clone();
        let mut components = Vec::new();
        for y in 0..mask.height() {
            for x in 0..mask.width() {
                let mut stack = vec![(x, y)];
                let mut component = Vec::new();
                while let Some((x, y)) = stack.pop() {
                    if x >= mask.width() || y >= mask.height() || !left.get(x, y) {
                        continue;
                    }
                    left.set(x, y, false);
                    component.push((x, y));
                    for (dx, dy) in [(0, 1), (1, 0), (1, 1), (1, -1)] {
                        stack.push((x.wrapping_add_signed(dx), y.wrapping_add_signed(dy)));
                        stack.push((x.wrapping_add_signed(-dx), y.wrapping_add_signed(-dy)));
                    }
                }
                if !component.is_empty() {
                    component.sort_unstable();
                    components.push(component);
                }
            }
        }
        components
    }

    proptest! {
        #[test]
        fn agrees_with_a_flood_fill(
            (width, height, pixels) in (1u32..24, 1u32..24).prop_flat_map(|(w, h)| {
                let pixel = prop::sample::select(vec![0u8, 0, 255]);
                (Just(w), Just(h), prop::collection::vec(pixel, (w * h) as usize))
            })
        ) {
            let image = GrayImage::from_raw(width, height, pixels).expect("sizes agree");
            let mask = Mask::from_threshold(&image, 128);
            let found: Vec<Vec<(u32, u32)>> = instances(&mask, &image)
                .iter()
                .map(|instance| instance.to_rle(height).pixels(height).collect())
                .collect();
            prop_assert_eq!(found, flood_fill(&mask));
        }
    }
}

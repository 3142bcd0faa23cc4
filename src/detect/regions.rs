//! Where in a frame ships count.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use crate::tile::TilePlan;

/// A polygon in fractions of a frame's width and height: 0 to 1, x to the right, y down. Its last corner is
/// joined to its first. Where its border crosses itself the even-odd rule says what is inside: what is surrounded
/// twice is not.
///
/// Written as `x,y x,y x,y` on a command line and as `[[x, y], [x, y], [x, y]]` in a config file.
#[derive(Debug, Clone, PartialEq)]
pub struct Polygon(Vec<[f64; 2]>);

/// Why corners make no polygon.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PolygonError {
    /// Fewer than three corners.
    #[error("a polygon has three corners at least, and this one has {0}")]
    Corners(usize),
    /// A corner outside of the frame.
    #[error(
        "corner {number} is {x},{y}, but x and y are fractions of the frame's width and height and lie between 0 and 1"
    )]
    Outside {
        /// Which corner, counted from 1.
        number: usize,
        /// Its x.
        x: f64,
        /// Its y.
        y: f64,
    },
    /// All corners lie on one line.
    #[error("a polygon encloses something, but the corners of this one lie on one line")]
    Flat,
    /// Not written as corners.
    #[error(
        "`{0}` is no corner; a polygon is written as `x,y x,y x,y`, such as `0,0.9 1,0.9 1,1 0,1`"
    )]
    Syntax(String),
}

impl TryFrom<Vec<[f64; 2]>> for Polygon {
    type Error = PolygonError;

    fn try_from(corners: Vec<[f64; 2]>) -> Result<Self, Self::Error> {
        let outside = |[x, y]: [f64; 2]| !((0.0..=1.0).contains(&x) && (0.0..=1.0).contains(&y));
        if let Some((number, [x, y])) = (1..)
            .zip(corners.iter().copied())
            .find(|(_, at)| outside(*at))
        {
            return Err(PolygonError::Outside { number, x, y });
        }
        let &[first, .., _, _] = &corners[..] else {
            return Err(PolygonError::Corners(corners.len()));
        };
        let away = |[x, y]: [f64; 2]| [x - first[0], y - first[1]];
        let farthest = corners.iter().copied().map(away).max_by(|a, b| {
            let length = |[x, y]: [f64; 2]| x.hypot(y);
            length(*a).total_cmp(&length(*b))
        });
        let [dx, dy] = farthest.unwrap_or_default();
        // Twice the area of the triangle with each corner, as a share of the frame's: far below a pixel.
        if (corners.iter().copied().map(away)).all(|[x, y]| (x * dy - y * dx).abs() < 1e-12) {
            return Err(PolygonError::Flat);
        }
        Ok(Self(corners))
    }
}

/// By a visitor, so that an error bears the place of this very polygon.
impl<'de> Deserialize<'de> for Polygon {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Corners;

        impl<'de> Visitor<'de> for Corners {
            type Value = Polygon;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a polygon, [[x, y], [x, y], [x, y]]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Polygon, A::Error> {
                const FORM: &str =
                    "a polygon is [[x, y], [x, y], [x, y]], and several stand in a list";

                let mut corners = Vec::new();
                // Brackets are easily one pair too few.
                let explain = |error: A::Error| {
                    let error = error.to_string();
                    A::Error::custom(format_args!("{}; {FORM}", error.trim_end()))
                };
                // An array of two would pass over a third number.
                while let Some(corner) = seq.next_element::<Vec<f64>>().map_err(explain)? {
                    let corner = <[f64; 2]>::try_from(corner);
                    corners.push(corner.map_err(|_| A::Error::custom(FORM))?);
                }
                Polygon::try_from(corners).map_err(A::Error::custom)
            }
        }

        deserializer.deserialize_seq(Corners)
    }
}

impl fmt::Display for Polygon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let corners = self.0.iter().map(|[x, y]| format!("{x},{y}"));
        f.write_str(&corners.collect::<Vec<_>>().join(" "))
    }
}

impl FromStr for Polygon {
    type Err = PolygonError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let corner = |word: &str| {
            let (x, y) = word.split_once(',')?;
            Some([x.parse().ok()?, y.parse().ok()?])
        };
        let corners: Result<Vec<_>, _> = text
            .split_whitespace()
            .map(|word| corner(word).ok_or_else(|| PolygonError::Syntax(word.to_owned())))
            .collect();
        Self::try_from(corners?)
    }
}

impl Polygon {
    /// From corner to corner, round to the first.
    pub fn edges(&self) -> impl Iterator<Item = [[f64; 2]; 2]> {
        let next = self.0.iter().cycle().skip(1);
        self.0.iter().zip(next).map(|(&from, &to)| [from, to])
    }

    /// Where the border crosses the height `y`, by rising x; what lies between the first and the second, the third
    /// and the fourth and so on is inside.
    fn crossings(&self, y: f64) -> Vec<f64> {
        let mut crossings: Vec<f64> = self
            .edges()
            .filter(|[from, to]| (from[1] <= y) != (to[1] <= y))
            .map(|mut edge| {
                // Two polygons that share an edge agree on it to the last bit, whichever way they run along it.
                edge.sort_by(|a, b| a[1].total_cmp(&b[1]));
                let [from, to] = edge;
                from[0] + (y - from[1]) / (to[1] - from[1]) * (to[0] - from[0])
            })
            .collect();
        crossings.sort_by(f64::total_cmp);
        crossings
    }
}

/// Where in a frame ships count: in what is looked at, but not in what is ignored. Everywhere by default.
///
/// A pixel counts if its middle lies in one of the polygons `look`, or there are none, and in none of `ignore`; a
/// ship if the pixel does that holds its centroid. So a ship across a border counts whole or not at all, and in one
/// alone of two polygons that share the border.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Regions {
    /// Ships count here alone, if there are any.
    pub look: Vec<Polygon>,
    /// Ships do not count here.
    pub ignore: Vec<Polygon>,
}

/// Stretches of columns.
type Stretches = Vec<Range<u32>>;

impl Regions {
    /// Whether ships count everywhere.
    pub fn are_everywhere(&self) -> bool {
        self.look.is_empty() && self.ignore.is_empty()
    }

    /// Whether a ship with its centroid at `x`, `y`, in pixels, counts in a frame of `size` (width, height).
    pub(super) fn count(&self, [x, y]: [f64; 2], size: (u32, u32)) -> bool {
        self.are_everywhere()
            || (self.row(y as u32, size).iter()).any(|columns| columns.contains(&(x as u32)))
    }

    /// The tiles of `plan` with pixels that count, for a frame of `size` (width, height) in its stored grid; that
    /// of the plan may be another.
    pub(super) fn tiles(&self, plan: &TilePlan, size: (u32, u32)) -> Vec<usize> {
        if self.are_everywhere() {
            return (0..plan.count()).collect();
        }
        let rows: Vec<Stretches> = (0..size.1).map(|y| self.row(y, size)).collect();
        let planned = plan.size();
        let counts = |&index: &usize| {
            let tile = plan.region(index);
            let columns = stored(tile.x, tile.side, planned.0, size.0);
            let lines = stored(tile.y, tile.side, planned.1, size.1);
            let shares =
                |other: &Range<u32>| other.start < columns.end && columns.start < other.end;
            rows[lines.start as usize..lines.end as usize]
                .iter()
                .flatten()
                .any(shares)
        };
        (0..plan.count()).filter(counts).collect()
    }

    /// The columns of row `y` whose pixels count, from left to right.
    fn row(&self, y: u32, (width, height): (u32, u32)) -> Stretches {
        let middle = (f64::from(y) + 0.5) / f64::from(height);
        let mut steps: Vec<(u32, i32, i32)> = Vec::new();
        // The first pixel whose middle does not lie left of the border.
        let column = |x: f64| (x * f64::from(width) - 0.5).ceil().max(0.0) as u32;
        let looks = self.look.iter().map(|polygon| (polygon, 1, 0));
        let ignores = self.ignore.iter().map(|polygon| (polygon, 0, 1));
        for (polygon, look, ignore) in looks.chain(ignores) {
            for inside in polygon.crossings(middle).chunks_exact(2) {
                steps.push((column(inside[0]), look, ignore));
                steps.push((column(inside[1]), -look, -ignore));
            }
        }
        steps.sort_unstable_by_key(|&(column, ..)| column);
        steps.push((width, 0, 0));

        let (mut looked, mut ignored) = (i32::from(self.look.is_empty()), 0);
        let mut from = 0;
        let mut stretches = Stretches::new();
        for (column, look, ignore) in steps {
            if column > from {
                if looked > 0 && ignored == 0 {
                    stretches.push(from..column);
                }
                from = column;
            }
            looked += look;
            ignored += ignore;
        }
        stretches
    }
}

/// The pixels of an axis of `length` that a part of an axis of `planned` pixels shows, all that it has a share of.
fn stored(start: u32, side: u32, planned: u32, length: u32) -> Range<u32> {
    let end = u64::from(start) + u64::from(side);
    let [planned, length] = [planned, length].map(u64::from);
    let first = u64::from(start) * length / planned;
    let last = (end.min(planned) * length).div_ceil(planned);
    first as u32..last as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn polygon(text: &str) -> Polygon {
        text.parse().expect(text)
    }

    /// Rows of a frame, `#` where ships count.
    fn picture(regions: &Regions, (width, height): (u32, u32)) -> Vec<String> {
        let row = |y| {
            let stretches = regions.row(y, (width, height));
            let counts = |x| stretches.iter().any(|columns| columns.contains(&x));
            (0..width)
                .map(|x| if counts(x) { '#' } else { '.' })
                .collect()
        };
        (0..height).map(row).collect()
    }

    #[test]
    fn corners_that_make_no_polygon_are_refused() {
        let refused = |text: &str| Polygon::from_str(text).expect_err(text).to_string();
        assert!(refused("").contains("three corners at least, and this one has 0"));
        assert!(refused("0,0 1,1").contains("has 2"));
        for (text, corner) in [
            ("0,0 1.01,0 1,1", "corner 2 is 1.01,0"),
            ("0,0 1,0 1,-0.5", "corner 3 is 1,-0.5"),
            ("nan,0 1,0 1,1", "corner 1 is NaN,0"),
            ("0,0 1,inf 1,1", "corner 2 is 1,inf"),
        ] {
            assert!(refused(text).contains(corner), "{}", refused(text));
        }
        for flat in [
            "0,0 0.5,0.5 1,1",
            "0.3,0.3 0.3,0.3 0.3,0.3",
            "0,0 1,0 0,0",
            "0.1,0.1 0.4,0.2 0.7,0.3 0.1,0.1",
        ] {
            assert!(
                refused(flat).contains("one line"),
                "{flat}: {}",
                refused(flat)
            );
        }
        for word in ["0;0", "0,", "a,b", "0,0,0"] {
            let said = refused(&format!("{word} 1,0 1,1"));
            assert!(said.contains(&format!("`{word}` is no corner")), "{said}");
        }
        // Thin, but not flat; and one that encloses as much to its left as to its right.
        polygon("0,0 1,0 1,0.0001");
        polygon("0,0 1,1 1,0 0,1");
    }

    #[test]
    fn pixels_count_whose_middles_lie_inside() {
        // Right of the diagonal: of pixels on it the middle lies on the border, which belongs to what is right of it.
        let regions = Regions {
            look: vec![polygon("0,0 1,0 1,1")],
            ..Regions::default()
        };
        assert_eq!(picture(&regions, (4, 4)), ["####", ".###", "..##", "...#"]);
        // The same polygon on a frame of another size and shape.
        assert_eq!(picture(&regions, (8, 2)), ["..######", "......##"]);
    }

    #[test]
    fn what_is_ignored_is_taken_out_of_what_is_looked_at() {
        let frame = (8, 4);
        let look = vec![
            polygon("0,0 0.5,0 0.5,1 0,1"),
            polygon("0.25,0 0.75,0 0.75,0.5 0.25,0.5"),
        ];
        let ignore = vec![polygon("0.125,0.25 0.625,0.25 0.625,0.75 0.125,0.75")];
        let looked = Regions {
            look: look.clone(),
            ..Regions::default()
        };
        assert_eq!(
            picture(&looked, frame),
            ["######..", "######..", "####....", "####...."]
        );
        let both = Regions {
            look,
            ignore: ignore.clone(),
        };
        assert_eq!(
            picture(&both, frame),
            ["######..", "#....#..", "#.......", "####...."]
        );
        let ignored = Regions {
            ignore,
            ..Regions::default()
        };
        assert_eq!(
            picture(&ignored, frame),
            ["########", "#....###", "#....###", "########"]
        );
        assert_eq!(picture(&Regions::default(), (3, 1)), ["###"]);
    }

    #[test]
    fn what_a_border_surrounds_twice_is_outside() {
        // A square, and a smaller one within it on the same line.
        let ring = "0,0 1,0 1,1 0,1 0,0 0.25,0.25 0.75,0.25 0.75,0.75 0.25,0.75 0.25,0.25";
        let regions = Regions {
            look: vec![polygon(ring)],
            ..Regions::default()
        };
        assert_eq!(picture(&regions, (4, 4)), ["####", "#..#", "#..#", "####"]);
    }

    #[test]
    fn a_ship_counts_by_the_pixel_of_its_centroid() {
        let regions = Regions {
            look: vec![polygon("0,0 0.5,0 0.5,1 0,1")],
            ..Regions::default()
        };
        assert!(regions.count([4.99, 9.99], (10, 10)));
        assert!(!regions.count([5.0, 9.99], (10, 10)));
    }

    /// Corners on a grid of tenths, so that those of polygons meet often.
    fn polygons() -> impl Strategy<Value = Vec<Polygon>> {
        let corner = prop_oneof![
            (0u8..=10, 0u8..=10).prop_map(|(x, y)| [f64::from(x) / 10.0, f64::from(y) / 10.0]),
            (0.0..=1.0, 0.0..=1.0).prop_map(|(x, y)| [x, y]),
        ];
        let polygon = prop::collection::vec(corner, 3..8)
            .prop_filter_map("flat", |corners| Polygon::try_from(corners).ok());
        prop::collection::vec(polygon, 0..4)
    }

    /// Whether the border winds around a point an odd number of times, by the sum of the angles at which its edges
    /// are seen from there; none where the point lies too near to the border to tell.
    fn is_around(polygon: &Polygon, [x, y]: [f64; 2]) -> Option<bool> {
        let mut turn = 0.0;
        for [from, to] in polygon.edges() {
            let [a, b] = [from, to].map(|at| [at[0] - x, at[1] - y]);
            let cross = a[0] * b[1] - a[1] * b[0];
            let dot = a[0] * b[0] + a[1] * b[1];
            let length = (to[0] - from[0]).hypot(to[1] - from[1]);
            if cross.abs() <= 1e-9 * length.max(1e-9) && dot <= 1e-9 {
                return None;
            }
            turn += cross.atan2(dot);
        }
        let turns = (turn / std::f64::consts::TAU).round() as i64;
        Some(turns % 2 != 0)
    }

    proptest! {
        /// Against winding numbers, pixel by pixel.
        #[test]
        fn each_pixel_counts_as_its_middle_does(
            look in polygons(), ignore in polygons(), width in 1u32..40, height in 1u32..40,
        ) {
            let regions = Regions { look, ignore };
            for y in 0..height {
                let stretches = regions.row(y, (width, height));
                prop_assert!(stretches.iter().all(|columns| columns.start < columns.end && columns.end <= width));
                prop_assert!(stretches.windows(2).all(|pair| pair[0].end <= pair[1].start));
                for x in 0..width {
                    let middle = [
                        (f64::from(x) + 0.5) / f64::from(width),
                        (f64::from(y) + 0.5) / f64::from(height),
                    ];
                    let around = |polygons: &[Polygon]| -> Option<Vec<bool>> {
                        polygons.iter().map(|polygon| is_around(polygon, middle)).collect()
                    };
                    let (Some(look), Some(ignore)) = (around(&regions.look), around(&regions.ignore)) else {
                        continue;
                    };
                    let expected = (look.is_empty() || look.contains(&true)) && !ignore.contains(&true);
                    let counts = stretches.iter().any(|columns| columns.contains(&x));
                    prop_assert_eq!(counts, expected, "({}, {})", x, y);
                }
            }
        }

        /// A tile is looked at just if a pixel of the stored grid that it shows a part of counts.
        #[test]
        fn no_tile_is_left_out_that_shows_a_pixel_that_counts(
            look in polygons(), ignore in polygons(), width in 1u32..60, height in 1u32..60,
            scale in prop_oneof![Just(1.0), 0.2f64..3.0],
        ) {
            let regions = Regions { look, ignore };
            let side = |length: u32| (f64::from(length) * scale).round().max(1.0) as u32;
            let plan = TilePlan::new(side(width), side(height), 16, 4);
            let found = regions.tiles(&plan, (width, height));
            let counts: Vec<Vec<bool>> = picture(&regions, (width, height))
                .iter()
                .map(|row| row.chars().map(|c| c == '#').collect())
                .collect();
            // Whether [a, a + 1) of one grid and [b, b + 1) of the other share more than an edge.
            let shares = |a: u32, length: u32, b: u32, planned: u32| {
                a * planned < (b + 1) * length && b * length < (a + 1) * planned
            };
            for index in 0..plan.count() {
                let tile = plan.region(index);
                let seen = |at: u32, length: u32, planned: u32, start: u32| {
                    (start..(start + tile.side).min(planned)).any(|b| shares(at, length, b, planned))
                };
                let expected = (0..height).any(|y| {
                    seen(y, height, plan.size().1, tile.y)
                        && (0..width).any(|x| {
                            counts[y as usize][x as usize] && seen(x, width, plan.size().0, tile.x)
                        })
                });
                prop_assert_eq!(found.contains(&index), expected, "tile {}", index);
            }
        }

        /// Two that share a border divide the frame between them.
        #[test]
        fn a_pixel_on_a_common_border_counts_once(
            x in 0.05f64..0.95, y in 0.0f64..0.95, end in 0.05f64..0.95, width in 1u32..40, height in 1u32..40,
        ) {
            let of = |corners: &[[f64; 2]]| Regions {
                look: vec![Polygon::try_from(corners.to_vec()).expect("a polygon")],
                ..Regions::default()
            };
            let left = of(&[[0.0, 0.0], [x, 0.0], [end, y], [end, 1.0], [0.0, 1.0]]);
            let right = of(&[[1.0, 1.0], [end, 1.0], [end, y], [x, 0.0], [1.0, 0.0]]);
            for row in 0..height {
                let size = (width, height);
                let pixels = |r: &Regions| -> u32 { r.row(row, size).iter().map(|s| s.end - s.start).sum() };
                prop_assert_eq!(pixels(&left) + pixels(&right), width);
            }
        }
    }
}

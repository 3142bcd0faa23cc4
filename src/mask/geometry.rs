//! The smallest rectangle around a set of lattice points.

/// A lattice point: the corner of a pixel.
pub(super) type Corner = (i64, i64);

/// The rectangle of least area around a ship, over the outer corners of its pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OrientedBox {
    /// Longer side in pixels.
    pub length: f64,
    /// Shorter side in pixels.
    pub width: f64,
    /// Direction of the longer side in degrees, 0 up to but not including 180, from the x axis
    /// towards the y axis.
    pub angle: f64,
}

impl OrientedBox {
    /// The rectangle of least area around `corners`, which must not all lie on one line.
    ///
    /// One side of it lies along an edge of the convex hull, so the calipers turn from edge to edge;
    /// the points that touch the other three sides only ever move forward.
    pub(super) fn around(corners: Vec<Corner>) -> Self {
        let hull = convex_hull(corners);
        let n = hull.len();
        let edge = |i: usize| sub(hull[(i + 1) % n], hull[i % n]);
        // Index from `from` on of the last point before `direction` is left behind.
        let farthest = |mut from: usize, direction: Corner| {
            while dot(edge(from), direction) > 0 {
                from += 1;
            }
            from
        };

        let (mut right, mut top, mut left) = (0, 0, 0);
        let mut best: Option<(f64, Self)> = None;
        for i in 0..n {
            let along = edge(i);
            let across = (-along.1, along.0);
            right = farthest(right.max(i), along);
            top = farthest(top.max(right), across);
            left = farthest(left.max(top), (-along.0, -along.1));
            let point = |at: usize| hull[at % n];
            // Both extents are multiplied by the length of the edge: integers until here.
            let extent = dot(sub(point(right), point(left)), along) as f64;
            let depth = dot(sub(point(top), hull[i]), across) as f64;
            let squared = dot(along, along) as f64;
            let area = extent * depth / squared;
            if best.is_none_or(|(least, _)| area < least) {
                best = Some((area, Self::from_sides(along, extent, depth, squared.sqrt())));
            }
        }
        best.expect("a hull has edges").1
    }

    fn from_sides(along: Corner, extent: f64, depth: f64, unit: f64) -> Self {
        let (extent, depth) = (extent / unit, depth / unit);
        let direction = (along.1 as f64).atan2(along.0 as f64).to_degrees();
        let (length, width, angle) = if extent >= depth {
            (extent, depth, direction)
        } else {
            (depth, extent, direction + 90.0)
        };
        // A tiny negative angle rounds to 180 itself.
        let angle = angle.rem_euclid(180.0);
        Self {
            length,
            width,
            angle: if angle < 180.0 { angle } else { 0.0 },
        }
    }
}

/// Corners of the convex hull, counter-clockwise in a system with y up (Andrew's monotone chain).
fn convex_hull(mut points: Vec<Corner>) -> Vec<Corner> {
    points.sort_unstable();
    points.dedup();
    let mut hull = half_hull(points.iter().copied());
    hull.extend(half_hull(points.iter().rev().copied()));
    hull
}

/// One side of the hull without its last point, which the other side starts with.
fn half_hull(points: impl Iterator<Item = Corner>) -> Vec<Corner> {
    let mut chain: Vec<Corner> = Vec::new();
    for point in points {
        while let [.., a, b] = chain[..]
            && cross(sub(b, a), sub(point, a)) <= 0
        {
            chain.pop();
        }
        chain.push(point);
    }
    chain.pop();
    chain
}

fn sub(a: Corner, b: Corner) -> Corner {
    (a.0 - b.0, a.1 - b.1)
}

fn dot(a: Corner, b: Corner) -> i64 {
    a.0 * b.0 + a.1 * b.1
}

fn cross(a: Corner, b: Corner) -> i64 {
    a.0 * b.1 - a.1 * b.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn an_axis_parallel_rectangle_is_its_own_box() {
        let wide = OrientedBox::around(vec![(2, 3), (9, 3), (2, 5), (9, 5), (4, 4)]);
        assert_eq!((wide.length, wide.width, wide.angle), (7.0, 2.0, 0.0));
        let tall = OrientedBox::around(vec![(2, 3), (4, 3), (2, 10), (4, 10)]);
        assert_eq!((tall.length, tall.width, tall.angle), (7.0, 2.0, 90.0));
    }

    #[test]
    fn a_tilted_rectangle_keeps_its_sides() {
        // Sides along (3, 4) and (-4, 3), 10 and 5 long.
        let tilted = OrientedBox::around(vec![(0, 0), (6, 8), (2, 11), (-4, 3)]);
        assert!(close(tilted.length, 10.0) && close(tilted.width, 5.0));
        assert!(close(tilted.angle, 4f64.atan2(3.0).to_degrees()));
        // The same mirrored at the y axis: the angle counts from the other side.
        let mirrored = OrientedBox::around(vec![(0, 0), (-6, 8), (-2, 11), (4, 3)]);
        assert!(close(mirrored.length, 10.0) && close(mirrored.width, 5.0));
        assert!(close(mirrored.angle, 180.0 - tilted.angle));
    }

    #[test]
    fn hull_drops_inner_points_and_points_on_edges() {
        let square = vec![
            (0, 0),
            (2, 0),
            (1, 0),
            (2, 2),
            (1, 1),
            (0, 2),
            (0, 1),
            (0, 0),
        ];
        assert_eq!(convex_hull(square), [(0, 0), (2, 0), (2, 2), (0, 2)]);
    }

    proptest! {
        #[test]
        fn no_hull_edge_gives_a_smaller_box(
            points in prop::collection::vec((-30i64..30, -30i64..30), 1..40)
        ) {
            // Pixels rather than points, so that there is always an area.
            let corners: Vec<Corner> = points
                .iter()
                .flat_map(|&(x, y)| [(x, y), (x + 1, y), (x, y + 1), (x + 1, y + 1)])
                .collect();
            let hull = convex_hull(corners.clone());
            let extent = |direction: Corner| {
                let reach = corners.iter().map(|&p| dot(p, direction));
                (reach.clone().max().unwrap_or(0) - reach.min().unwrap_or(0)) as f64
            };
            let least = (0..hull.len())
                .map(|i| sub(hull[(i + 1) % hull.len()], hull[i]))
                .map(|e| extent(e) * extent((-e.1, e.0)) / dot(e, e) as f64)
                .fold(f64::INFINITY, f64::min);
            let found = OrientedBox::around(corners.clone());
            prop_assert!((found.length * found.width - least).abs() < 1e-6);
            prop_assert!(found.length >= found.width && found.width >= 1.0 - 1e-9);
            prop_assert!((0.0..180.0).contains(&found.angle));
        }
    }
}

//! Parting of ships that touch: watershed on a map that rises from a ship's edge to its middle line.

use std::ops::Range;

use image::GrayImage;

use super::instances::{Instance, Span};

/// Largest box of an instance that is looked at: more than any group of ships takes, and little
/// enough for the memory of a small board.
const MOST_PIXELS: u64 = 1 << 24;

/// Parts instances where valleys of `heights` cross them.
///
/// Two peaks are two ships if the way from the lower to the higher one leads down by at least
/// `depth` (the peak's dynamics; Grimaud 1992). What is connected to a peak above its highest pass to
/// another ship is its seed. Seeds grow over the instance, a pixel in all eight directions at a time:
/// a pixel falls to the seed that reaches it first, or to that of the higher peak. So no pixel is
/// lost or belongs to two ships. An instance with one peak stays whole, as does one with a box of
/// over 16 million pixels.
///
/// # Panics
/// If the images differ in size, an instance leaves them, or `depth` is zero.
pub fn separate(
    instances: Vec<Instance>,
    probabilities: &GrayImage,
    heights: &GrayImage,
    depth: u8,
) -> Vec<Instance> {
    assert_eq!(
        probabilities.dimensions(),
        heights.dimensions(),
        "two maps of one frame differ in size"
    );
    assert!(depth > 0, "a valley without depth parts everything");
    let mut parted = Vec::with_capacity(instances.len());
    for instance in instances {
        let [_, _, width, height] = instance.bbox();
        if u64::from(width) * u64::from(height) > MOST_PIXELS {
            parted.push(instance);
            continue;
        }
        let mut grid = Grid::new(&instance);
        match grid.seed(heights, depth) {
            0 | 1 => parted.push(instance),
            seeds => {
                grid.grow();
                parted.extend(grid.parts(seeds, probabilities));
            }
        }
    }
    parted.sort_by_key(|instance| instance.spans.first().map(|span| (span.y, span.start)));
    parted
}

/// A place outside of the instance.
const OUTSIDE: u32 = u32::MAX;

/// A pixel of the instance that nobody owns yet.
const FREE: u32 = u32::MAX - 1;

/// The owner of each pixel in an instance's box, with a rim of one pixel outside around it.
struct Grid<'a> {
    instance: &'a Instance,
    left: u32,
    top: u32,
    stride: usize,
    owners: Vec<u32>,
}

impl<'a> Grid<'a> {
    fn new(instance: &'a Instance) -> Self {
        let [left, top, width, height] = instance.bbox();
        let stride = width as usize + 2;
        let mut grid = Self {
            instance,
            left,
            top,
            stride,
            owners: vec![OUTSIDE; stride * (height as usize + 2)],
        };
        for &span in &instance.spans {
            let places = grid.places(span);
            grid.owners[places].fill(FREE);
        }
        grid
    }

    fn places(&self, span: Span) -> Range<usize> {
        let row = (span.y - self.top + 1) as usize * self.stride;
        let start = row + (span.start - self.left + 1) as usize;
        start..start + span.len() as usize
    }

    /// The eight places around one, in reading order.
    fn around(&self, at: usize) -> [usize; 8] {
        let (up, down) = (at - self.stride, at + self.stride);
        [up - 1, up, up + 1, at - 1, at + 1, down - 1, down, down + 1]
    }

    /// Gives the pixels of each seed its number, the highest peak's first; the others are free.
    /// Returns how many seeds there are.
    fn seed(&mut self, heights: &GrayImage, depth: u8) -> usize {
        let mut hills = Hills(Vec::new());
        for (height, places) in self.by_height(heights) {
            for at in places {
                let owners = self.around(at).map(|next| self.owners[next]);
                let mut near = owners.into_iter().filter(|&owner| owner < FREE);
                let owner = match near.next() {
                    None => hills.rise(height, at),
                    Some(first) => near.fold(hills.root(first), |owner, other| {
                        let other = hills.root(other);
                        hills.meet(owner, other, height, depth)
                    }),
                };
                self.owners[at] = owner;
            }
        }
        let peaks = hills.peaks();
        if peaks.len() < 2 {
            return peaks.len();
        }

        let mut above = vec![FREE; self.owners.len()];
        for &span in &self.instance.spans {
            for (at, &height) in self.places(span).zip(row(heights, span)) {
                let hill = hills.root(self.owners[at]);
                if hills.0[hill as usize].pass.is_none_or(|pass| height > pass) {
                    above[at] = hill;
                }
                self.owners[at] = FREE;
            }
        }
        for (number, &hill) in (0..).zip(&peaks) {
            let mut stack = vec![hills.0[hill as usize].top];
            while let Some(at) = stack.pop() {
                if above[at] == hill && self.owners[at] == FREE {
                    self.owners[at] = number;
                    stack.extend(self.around(at));
                }
            }
        }
        peaks.len()
    }

    /// The places of each height, the highest first, in reading order.
    fn by_height(&self, heights: &GrayImage) -> Vec<(u8, Vec<usize>)> {
        let mut places: Vec<(u8, Vec<usize>)> = (0..=255).rev().map(|h| (h, Vec::new())).collect();
        for &span in &self.instance.spans {
            for (at, &height) in self.places(span).zip(row(heights, span)) {
                places[usize::from(255 - height)].1.push(at);
            }
        }
        places
    }

    /// Lets the seeds share out what is free.
    fn grow(&mut self) {
        let spans = self.instance.spans.iter();
        let seeds = spans.flat_map(|&span| self.places(span));
        let mut front: Vec<usize> = seeds.filter(|&at| self.owners[at] != FREE).collect();
        while !front.is_empty() {
            let mut claims: Vec<(usize, u32)> = Vec::new();
            for &at in &front {
                let near = self.around(at).into_iter();
                let free = near.filter(|&next| self.owners[next] == FREE);
                claims.extend(free.map(|next| (next, self.owners[at])));
            }
            claims.sort_unstable();
            claims.dedup_by_key(|(at, _)| *at);
            front.clear();
            for (at, owner) in claims {
                self.owners[at] = owner;
                front.push(at);
            }
        }
    }

    /// What each seed owns, once nothing is free.
    fn parts(&self, seeds: usize, probabilities: &GrayImage) -> Vec<Instance> {
        let mut parts = vec![Instance::default(); seeds];
        for &span in &self.instance.spans {
            let Span { y, mut start, .. } = span;
            for stretch in self.owners[self.places(span)].chunk_by(|a, b| a == b) {
                let end = start + stretch.len() as u32;
                parts[stretch[0] as usize].push(Span { y, start, end }, probabilities);
                start = end;
            }
        }
        parts
    }
}

/// The map's values along a span.
fn row(map: &GrayImage, span: Span) -> &[u8] {
    let first = span.y as usize * map.width() as usize;
    &map.as_raw()[first + span.start as usize..first + span.end as usize]
}

/// The hills of a landscape that a flood lays bare as it falls.
struct Hills(Vec<Hill>);

struct Hill {
    /// The hill that it is a shoulder of; itself if it stands alone.
    parent: u32,
    /// Height of its peak.
    peak: u8,
    /// Place of its peak.
    top: usize,
    /// Height of the highest pass to another hill that stands alone, if there is one.
    pass: Option<u8>,
}

impl Hills {
    /// A new hill.
    fn rise(&mut self, peak: u8, top: usize) -> u32 {
        let own = self.0.len() as u32;
        self.0.push(Hill {
            parent: own,
            peak,
            top,
            pass: None,
        });
        own
    }

    /// The hill that stands alone of which `hill` is a part.
    fn root(&mut self, mut hill: u32) -> u32 {
        while self.0[hill as usize].parent != hill {
            let parent = self.0[hill as usize].parent;
            self.0[hill as usize].parent = self.0[parent as usize].parent;
            hill = parent;
        }
        hill
    }

    /// The hills that stand alone, the highest first.
    fn peaks(&self) -> Vec<u32> {
        let stands = |hill: &u32| self.0[*hill as usize].parent == *hill;
        (0..self.0.len() as u32).filter(stands).collect()
    }

    /// Two hills that stand alone meet at `height`; the lower becomes a shoulder of the higher unless
    /// it rises by `depth`. Returns the higher one.
    fn meet(&mut self, a: u32, b: u32, height: u8, depth: u8) -> u32 {
        if a == b {
            return a;
        }
        let (high, low) = match self.0[a as usize].peak >= self.0[b as usize].peak {
            true => (a, b),
            false => (b, a),
        };
        let hill = &mut self.0[low as usize];
        if hill.peak - height < depth {
            hill.parent = high;
        } else {
            // The flood falls: the first pass is the highest.
            hill.pass.get_or_insert(height);
            self.0[high as usize].pass.get_or_insert(height);
        }
        high
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use image::Luma;
    use proptest::prelude::*;

    use super::*;
    use crate::mask::{Mask, instances};

    /// Digits are heights in steps of 25; a dot is no ship.
    fn part(rows: &[&str], depth: u8) -> Vec<String> {
        let (width, height) = (rows[0].len() as u32, rows.len() as u32);
        let digit = |x: u32, y: u32| rows[y as usize].as_bytes()[x as usize];
        let mask = GrayImage::from_fn(width, height, |x, y| {
            Luma([if digit(x, y) == b'.' { 0 } else { 255 }])
        });
        let heights = GrayImage::from_fn(width, height, |x, y| {
            Luma([digit(x, y).saturating_sub(b'0') * 25])
        });
        let whole = instances(&Mask::from_threshold(&mask, 128), &mask);
        draw(&separate(whole, &mask, &heights, depth), width, height)
    }

    /// The instances as letters.
    fn draw(parts: &[Instance], width: u32, height: u32) -> Vec<String> {
        let mut rows = vec![vec![b'.'; width as usize]; height as usize];
        for (letter, part) in (b'a'..).zip(parts) {
            for (x, y) in part.to_rle(height).pixels(height) {
                assert_eq!(rows[y as usize][x as usize], b'.', "a pixel of two ships");
                rows[y as usize][x as usize] = letter;
            }
        }
        let text = |row| String::from_utf8(row).expect("letters");
        rows.into_iter().map(text).collect()
    }

    #[test]
    fn two_ships_side_by_side_share_the_valley() {
        let moored = ["1111111", "2823282", "2923292", "1111111"];
        let parted = ["aaaabbb", "aaaabbb", "aaaabbb", "aaaabbb"];
        assert_eq!(part(&moored, 100), parted);
        // Between the peaks of 9 the way leads down to 2, by 7 steps of 25.
        assert_eq!(part(&moored, 175), parted);
        assert_eq!(part(&moored, 176), ["aaaaaaa"; 4]);
    }

    #[test]
    fn a_shoulder_is_no_ship() {
        assert_eq!(part(&["259747652"], 100), ["aaaaaaaaa"]);
        assert_eq!(part(&["259717652"], 100), ["aaaaabbbb"]);
    }

    #[test]
    fn what_no_network_tells_apart_stays_whole() {
        assert_eq!(part(&["0000", "0000"], 1), ["aaaa", "aaaa"]);
        assert_eq!(part(&["9999", "9..9"], 1), ["aaaa", "a..a"]);
    }

    #[test]
    fn other_instances_are_untouched_and_the_order_is_that_of_first_pixels() {
        // The right one of the parted ships begins in the row above.
        let rows = ["...3.9", "3919.1", "......", "55...."];
        assert_eq!(part(&rows, 100), ["...a.b", "ccca.b", "......", "dd...."]);
    }

    /// Heights above `level` that hang together with (x, y), the plain way.
    fn reach(heights: &GrayImage, mask: &Mask, from: (u32, u32), level: i32) -> Vec<(u32, u32)> {
        let mut seen = vec![from];
        let mut next = 0;
        while next < seen.len() {
            for at in around(seen[next], mask) {
                let height = i32::from(heights.get_pixel(at.0, at.1).0[0]);
                if height > level && !seen.contains(&at) {
                    seen.push(at);
                }
            }
            next += 1;
        }
        seen
    }

    fn around((x, y): (u32, u32), mask: &Mask) -> impl Iterator<Item = (u32, u32)> + '_ {
        let near = |at: u32, size: u32| at.saturating_sub(1)..(at + 2).min(size);
        near(y, mask.height())
            .flat_map(move |ny| near(x, mask.width()).map(move |nx| (nx, ny)))
            .filter(move |&at| at != (x, y) && mask.get(at.0, at.1))
    }

    /// Steps from the nearest of some pixels.
    fn distances(from: &[(u32, u32)], mask: &Mask) -> BTreeMap<(u32, u32), u32> {
        let mut steps: BTreeMap<_, _> = from.iter().map(|&p| (p, 0)).collect();
        let mut front = from.to_vec();
        for step in 1.. {
            let near = front.iter().flat_map(|&p| around(p, mask));
            front = near.filter(|p| !steps.contains_key(p)).collect();
            if front.is_empty() {
                break;
            }
            steps.extend(front.iter().map(|&p| (p, step)));
        }
        steps
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// The definition, pixel by pixel: how many ships there are, that each keeps its seed, and that
        /// every pixel is with a seed of least distance.
        #[test]
        fn agrees_with_the_definition(
            (width, height, pixels) in (1u32..12, 1u32..12).prop_flat_map(|(w, h)| {
                let pixel = prop::sample::select(vec![0u8, 1, 40, 41, 80, 120, 120, 160, 200, 255]);
                (Just(w), Just(h), prop::collection::vec(pixel, (w * h) as usize))
            }),
            depth in 1u8..=255,
        ) {
            let heights = GrayImage::from_raw(width, height, pixels).expect("sizes agree");
            let mask = Mask::from_threshold(&heights, 1);
            let at = |(x, y): (u32, u32)| i32::from(heights.get_pixel(x, y).0[0]);
            for whole in instances(&mask, &heights) {
                let own: Vec<(u32, u32)> = whole.to_rle(height).pixels(height).collect();
                let parts = separate(vec![whole.clone()], &heights, &heights, depth);
                let parts: Vec<Vec<(u32, u32)>> = parts
                    .iter()
                    .map(|part| part.to_rle(height).pixels(height).collect())
                    .collect();
                let mut all: Vec<_> = parts.concat();
                all.sort_unstable();
                prop_assert_eq!(&all, &own, "each pixel once");

                // A plateau's pixels count as one peak. Its dynamics: how far down to reach higher
                // ground; a plateau of the same height that comes first counts as higher.
                let mut reading = own.clone();
                reading.sort_unstable_by_key(|&(x, y)| (y, x));
                let first = |p: (u32, u32)| {
                    let plateau = reach(&heights, &mask, p, at(p) - 1);
                    let higher = plateau.iter().any(|&q| at(q) > at(p));
                    let is_first = plateau.iter().all(|&q| (q.1, q.0) >= (p.1, p.0));
                    (!higher && is_first).then_some(p)
                };
                let peaks: Vec<_> = reading.iter().filter_map(|&p| first(p)).collect();
                let outranks = |q: (u32, u32), p: (u32, u32)| {
                    at(q) > at(p) || (at(q) == at(p) && (q.1, q.0) < (p.1, p.0))
                };
                let stands = |p: (u32, u32)| {
                    let least = at(p) - i32::from(depth);
                    !reach(&heights, &mask, p, least).iter().any(|&q| outranks(q, p))
                };
                let ships: Vec<_> = peaks.into_iter().filter(|&p| stands(p)).collect();
                prop_assert_eq!(parts.len(), ships.len());
                let owner = |p| parts.iter().position(|part| part.contains(&p));
                let owners: BTreeSet<_> = ships.iter().map(|&p| owner(p)).collect();
                prop_assert_eq!(owners.len(), ships.len(), "a ship for each peak");

                if ships.len() < 2 {
                    continue;
                }
                let seeds: Vec<Vec<(u32, u32)>> = ships
                    .iter()
                    .map(|&p| {
                        let meets = |level: &i32| {
                            let met = reach(&heights, &mask, p, level - 1);
                            ships.iter().any(|q| *q != p && met.contains(q))
                        };
                        let pass = (0..=at(p)).rev().find(meets).expect("one instance");
                        reach(&heights, &mask, p, pass)
                    })
                    .collect();
                let far: Vec<_> = seeds.iter().map(|seed| distances(seed, &mask)).collect();
                for &p in &own {
                    let nearest = far.iter().map(|far| far[&p]).min();
                    let kept = ships.iter().position(|&ship| owner(ship) == owner(p));
                    prop_assert_eq!(kept.map(|ship| far[ship][&p]), nearest);
                }

                for part in &parts {
                    let mut only = Mask::new(width, height);
                    part.iter().for_each(|&(x, y)| only.set(x, y, true));
                    let reached = reach(&heights, &only, part[0], -1);
                    prop_assert_eq!(reached.len(), part.len(), "a ship hangs together");
                }
            }
        }
    }
}

//! An image of a split, and what it lends to frames: ships, water, land.

use image::{GrayImage, Rgb, RgbImage, imageops};
use rand::{Rng, RngExt};
use shipwatch::frame::{resample_gray, resample_rgb};
use shipwatch::mask::Rle;

/// Factor at which an image is looked at, and side of the cells it is looked at in, in pixels there.
const LOOK: f64 = 0.25;
const CELL: u32 = 8;

/// Pixels of the file that a ship's surroundings reach.
const AROUND: u32 = 16;

/// Share of calm cells along a side that ends in water.
const OPEN: f64 = 0.85;

/// Tries to find a place before there is none.
const TRIES: usize = 60;

/// Shortest ship in a frame, in pixels.
const SHORTEST: f64 = 6.0;

/// A rectangle in pixels of the file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Area {
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

/// An image, looked at.
pub(super) struct Subject {
    /// Its name: `source/id`.
    name: String,
    /// Whether all ships that it shows are labelled.
    complete: bool,
    pixels: RgbImage,
    ships: Vec<Rle>,
    /// Axis-parallel box of each ship.
    boxes: Vec<Area>,
    /// Length of the shortest ship's box, in pixels.
    shortest: f64,
    /// Factors at which it may go into a frame.
    scale: [f64; 2],
    cells: Cells,
}

/// What cells of an image show.
struct Cells {
    columns: u32,
    rows: u32,
    kinds: Vec<Cell>,
    /// Mean colour of the calm ones.
    colour: [f32; 3],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    /// Nothing but water, as far as can be told without knowing the place.
    Calm,
    /// Land, structures, wakes.
    Busy,
    /// A ship or its surroundings.
    Ship,
}

/// A part of an image at a frame's scale.
pub(super) struct Piece {
    pub(super) pixels: RgbImage,
    /// Each ship as 255 on a map of the piece.
    pub(super) ships: Vec<GrayImage>,
}

impl Subject {
    pub(super) fn new(name: String, pixels: RgbImage, ships: Vec<Rle>, scale: [f64; 2]) -> Self {
        let boxes: Vec<Area> = ships
            .iter()
            .map(|ship| bounds(ship, pixels.height()))
            .collect();
        let length = |area: &Area| f64::from(area.width).hypot(f64::from(area.height));
        let shortest = boxes.iter().map(length).fold(f64::INFINITY, f64::min);
        let cells = Cells::of(&pixels, &boxes);
        Self {
            name,
            complete: true,
            pixels,
            ships,
            boxes,
            shortest,
            scale,
            cells,
        }
    }

    /// The same where ships may lack labels.
    pub(super) fn incomplete(self) -> Self {
        Self {
            complete: false,
            ..self
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn has_ships(&self) -> bool {
        !self.ships.is_empty()
    }

    /// Whether water surrounds all that it shows.
    pub(super) fn is_open(&self) -> bool {
        let around = |area: Area| self.calm_sides(&area) == [true; 4];
        self.uncut().is_some_and(around)
    }

    /// Whether an area ends in water at its left, top, right and bottom.
    pub(super) fn calm_sides(&self, area: &Area) -> [bool; 4] {
        let strip = (f64::from(CELL) / LOOK) as u32;
        let (width, height) = (strip.min(area.width), strip.min(area.height));
        let sides = [
            Area { width, ..*area },
            Area { height, ..*area },
            Area {
                x: area.x + area.width - width,
                width,
                ..*area
            },
            Area {
                y: area.y + area.height - height,
                height,
                ..*area
            },
        ];
        sides.map(|side| {
            let cells: Vec<Cell> = self.cells.within(&side).collect();
            let calm = cells.iter().filter(|cell| **cell == Cell::Calm).count();
            calm as f64 >= OPEN * cells.len() as f64
        })
    }

    /// Mean colour of its water.
    pub(super) fn colour(&self) -> [f32; 3] {
        self.cells.colour
    }

    /// A factor for a frame; so large that its ships can be seen, where it shows some.
    pub(super) fn draw_scale(&self, rng: &mut impl Rng) -> f64 {
        let [low, high] = self.scale;
        let low = low.max(SHORTEST / self.shortest).min(high);
        rng.random_range(low.ln()..=high.ln()).exp()
    }

    /// The largest part of it that cuts no ship; none where that is little, or shows none.
    pub(super) fn uncut(&self) -> Option<Area> {
        let (mut left, mut top) = (0, 0);
        let (mut right, mut bottom) = self.pixels.dimensions();
        let touches = |area: &Area, [left, top, right, bottom]: [u32; 4]| {
            let (end_x, end_y) = (area.x + area.width, area.y + area.height);
            let meets = area.x < right && end_x > left && area.y < bottom && end_y > top;
            let inside =
                area.x > left + 2 && area.y > top + 2 && end_x + 2 < right && end_y + 2 < bottom;
            meets && !inside
        };
        while let Some(ship) = self
            .boxes
            .iter()
            .find(|b| touches(b, [left, top, right, bottom]))
        {
            // Give up the side that costs least.
            let (width, height) = (right - left, bottom - top);
            let cuts = [
                (ship.x + ship.width).saturating_sub(left) * height,
                (ship.y + ship.height).saturating_sub(top) * width,
                right.saturating_sub(ship.x) * height,
                bottom.saturating_sub(ship.y) * width,
            ];
            match (0..4).min_by_key(|&side| cuts[side]) {
                Some(0) => left = ship.x + ship.width,
                Some(1) => top = ship.y + ship.height,
                Some(2) => right = ship.x,
                _ => bottom = ship.y,
            }
            if left >= right || top >= bottom {
                return None;
            }
        }
        let area = Area {
            x: left,
            y: top,
            width: right - left,
            height: bottom - top,
        };
        let whole = u64::from(self.pixels.width()) * u64::from(self.pixels.height());
        let left = u64::from(area.width) * u64::from(area.height);
        let shows = self.boxes.iter().any(|ship| area.contains(ship.x, ship.y));
        (3 * left >= whole && shows).then_some(area)
    }

    /// A random square of `side` pixels that shows water alone; none where none was found.
    pub(super) fn calm(&self, side: u32, rng: &mut impl Rng) -> Option<Area> {
        self.square(side, rng, |cell| cell == Cell::Calm)
    }

    /// A random square of `side` pixels without a ship.
    pub(super) fn shipless(&self, side: u32, rng: &mut impl Rng) -> Option<Area> {
        self.square(side, rng, |cell| cell != Cell::Ship)
    }

    /// Share of an area's cells that show more than water.
    pub(super) fn busy_share(&self, area: &Area) -> f64 {
        let cells: Vec<Cell> = self.cells.within(area).collect();
        let busy = cells.iter().filter(|cell| **cell == Cell::Busy).count();
        busy as f64 / cells.len().max(1) as f64
    }

    fn square(&self, side: u32, rng: &mut impl Rng, fits: impl Fn(Cell) -> bool) -> Option<Area> {
        let (width, height) = self.pixels.dimensions();
        if width < side || height < side {
            return None;
        }
        (0..TRIES)
            .map(|_| Area {
                x: rng.random_range(0..=width - side),
                y: rng.random_range(0..=height - side),
                width: side,
                height: side,
            })
            .find(|area| self.cells.within(area).all(&fits))
    }

    /// All of it.
    pub(super) fn whole(&self) -> Area {
        let (width, height) = self.pixels.dimensions();
        Area {
            x: 0,
            y: 0,
            width,
            height,
        }
    }

    /// An area at a frame's scale, with the ships in it.
    pub(super) fn piece(&self, area: &Area, scale: f64) -> Piece {
        let side = |length: u32| ((f64::from(length) * scale).round() as u32).max(1);
        let (width, height) = (side(area.width), side(area.height));
        let cut = |view: &RgbImage| {
            imageops::crop_imm(view, area.x, area.y, area.width, area.height).to_image()
        };
        let inside = |b: &&(&Area, &Rle)| {
            b.0.x < area.x + area.width
                && b.0.x + b.0.width > area.x
                && b.0.y < area.y + area.height
                && b.0.y + b.0.height > area.y
        };
        let pairs: Vec<(&Area, &Rle)> = self.boxes.iter().zip(&self.ships).collect();
        let ships = pairs.iter().filter(inside).map(|(_, ship)| {
            let mut map = GrayImage::new(area.width, area.height);
            for (x, y) in ship.pixels(self.pixels.height()) {
                if area.contains(x, y) {
                    map.put_pixel(x - area.x, y - area.y, image::Luma([255]));
                }
            }
            let mut small = resample_gray(&map, width, height);
            small
                .iter_mut()
                .for_each(|value| *value = if *value >= 128 { 255 } else { 0 });
            small
        });
        Piece {
            pixels: resample_rgb(&cut(&self.pixels), width, height),
            ships: ships.collect(),
        }
    }
}

impl Piece {
    /// Turned by `quarters` of a turn, clockwise.
    pub(super) fn turned(self, quarters: usize) -> Self {
        (0..quarters).fold(self, |piece, _| Self {
            pixels: imageops::rotate90(&piece.pixels),
            ships: piece.ships.iter().map(imageops::rotate90).collect(),
        })
    }
}

impl Area {
    pub(super) fn contains(&self, x: u32, y: u32) -> bool {
        (self.x..self.x + self.width).contains(&x) && (self.y..self.y + self.height).contains(&y)
    }
}

impl Cells {
    fn of(pixels: &RgbImage, ships: &[Area]) -> Self {
        let small = |length: u32| ((f64::from(length) * LOOK).round() as u32).max(1);
        let (width, height) = (small(pixels.width()), small(pixels.height()));
        let look = resample_rgb(pixels, width, height);
        let (columns, rows) = (width.div_ceil(CELL), height.div_ceil(CELL));
        let is_ship = |column: u32, row: u32| {
            let side = (f64::from(CELL) / LOOK) as u32;
            let (x, y) = (column * side, row * side);
            ships.iter().any(|ship| {
                ship.x < x + side + AROUND
                    && ship.x + ship.width + AROUND > x
                    && ship.y < y + side + AROUND
                    && ship.y + ship.height + AROUND > y
            })
        };
        let places: Vec<(u32, u32)> = (0..rows)
            .flat_map(|row| (0..columns).map(move |column| (column, row)))
            .collect();
        let stats: Vec<([f32; 3], f32)> = places
            .iter()
            .map(|&(c, r)| statistics(&look, c * CELL, r * CELL))
            .collect();
        let free: Vec<usize> = (0..places.len())
            .filter(|&i| !is_ship(places[i].0, places[i].1))
            .collect();
        let usual = |of: &dyn Fn(usize) -> f32| median(free.iter().map(|&i| of(i)).collect());
        let spread = usual(&|i| stats[i].1);
        let colour: [f32; 3] = std::array::from_fn(|c| usual(&|i| stats[i].0[c]));
        let kinds = (0..places.len())
            .map(|i| {
                let ((mean, own), (column, row)) = (stats[i], places[i]);
                let off = mean
                    .iter()
                    .zip(colour)
                    .map(|(m, c)| (m - c).abs())
                    .fold(0.0, f32::max);
                if is_ship(column, row) {
                    Cell::Ship
                } else if spread < 16.0 && own <= 2.0 * spread + 2.0 && off <= 8.0 + 1.5 * spread {
                    Cell::Calm
                } else {
                    Cell::Busy
                }
            })
            .collect();
        Self {
            columns,
            rows,
            kinds,
            colour,
        }
    }

    /// The cells that an area of the file touches.
    fn within(&self, area: &Area) -> impl Iterator<Item = Cell> {
        let cell = |at: u32, count: u32| ((f64::from(at) * LOOK) as u32 / CELL).min(count - 1);
        let columns = cell(area.x, self.columns)..=cell(area.x + area.width - 1, self.columns);
        let rows = cell(area.y, self.rows)..=cell(area.y + area.height - 1, self.rows);
        rows.flat_map(move |row| columns.clone().map(move |column| (column, row)))
            .map(|(column, row)| self.kinds[(row * self.columns + column) as usize])
    }
}

/// Mean colour and spread of light of a cell.
fn statistics(look: &RgbImage, x: u32, y: u32) -> ([f32; 3], f32) {
    let (width, height) = (CELL.min(look.width() - x), CELL.min(look.height() - y));
    let cell = imageops::crop_imm(look, x, y, width, height);
    let pixels: Vec<Rgb<u8>> = cell.to_image().pixels().copied().collect();
    let n = pixels.len() as f32;
    let mean: [f32; 3] =
        std::array::from_fn(|c| pixels.iter().map(|p| f32::from(p.0[c])).sum::<f32>() / n);
    let light = |p: &Rgb<u8>| p.0.iter().map(|&v| f32::from(v)).sum::<f32>() / 3.0;
    let level = mean.iter().sum::<f32>() / 3.0;
    let square = pixels
        .iter()
        .map(|p| (light(p) - level).powi(2))
        .sum::<f32>()
        / n;
    (mean, square.sqrt())
}

fn median(mut values: Vec<f32>) -> f32 {
    values.sort_by(f32::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The axis-parallel box of a ship.
fn bounds(ship: &Rle, height: u32) -> Area {
    let (mut left, mut top, mut right, mut bottom) = (u32::MAX, u32::MAX, 0, 0);
    for (x, y) in ship.pixels(height) {
        (left, top) = (left.min(x), top.min(y));
        (right, bottom) = (right.max(x + 1), bottom.max(y + 1));
    }
    Area {
        x: left,
        y: top,
        width: right - left,
        height: bottom - top,
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use shipwatch::mask::Mask;

    use super::*;

    /// 400 x 400 of even water; land from column 300 on; ships where asked.
    fn subject(ships: &[Area]) -> Subject {
        let pixels = RgbImage::from_fn(400, 400, |x, y| match x {
            300.. => Rgb([(x * 37 % 211) as u8, (y * 53 % 199) as u8, 90]),
            _ => Rgb([40, 60, 70]),
        });
        let mask = |area: &Area| {
            let mut mask = Mask::new(400, 400);
            for (x, y) in (0..400).flat_map(|x| (0..400).map(move |y| (x, y))) {
                mask.set(x, y, area.contains(x, y));
            }
            mask.to_rle()
        };
        Subject::new(
            String::new(),
            pixels,
            ships.iter().map(mask).collect(),
            [0.2, 0.5],
        )
    }

    fn area(x: u32, y: u32, width: u32, height: u32) -> Area {
        Area {
            x,
            y,
            width,
            height,
        }
    }

    #[test]
    fn calm_places_show_neither_land_nor_ships() {
        let ship = area(100, 100, 60, 20);
        let subject = subject(&[ship]);
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..50 {
            let calm = subject.calm(60, &mut rng).expect("there is water");
            assert!(calm.x + calm.width <= 300, "{calm:?}");
            let apart = calm.x >= 160 || calm.x + 60 <= 100 || calm.y >= 120 || calm.y + 60 <= 100;
            assert!(apart, "{calm:?}");
        }
        assert_eq!(
            subject.calm_sides(&subject.whole()),
            [true, false, false, false]
        );
        assert_eq!(subject.calm_sides(&area(0, 0, 280, 400)), [true; 4]);
        assert!(!subject.is_open());
        assert!(subject.busy_share(&area(320, 0, 60, 400)) > 0.9);
    }

    #[test]
    fn what_is_left_cuts_no_ship() {
        let whole = subject(&[area(100, 100, 60, 20)]);
        assert_eq!(whole.uncut(), Some(area(0, 0, 400, 400)));
        // One at the left border, one at the lower: the cheaper side of each is given up.
        let some = subject(&[
            area(0, 50, 30, 20),
            area(200, 380, 50, 20),
            area(100, 100, 60, 20),
        ]);
        assert_eq!(some.uncut(), Some(area(30, 0, 370, 380)));
        // Nothing is left to show.
        assert_eq!(subject(&[area(0, 50, 30, 20)]).uncut(), None);
    }

    #[test]
    fn the_scale_leaves_the_shortest_ship_to_be_seen() {
        let mut rng = StdRng::seed_from_u64(1);
        // 15 pixels long: at 0.4 it has six.
        let subject = subject(&[area(100, 100, 12, 9)]);
        for _ in 0..50 {
            let scale = subject.draw_scale(&mut rng);
            assert!((0.4 - 1e-9..=0.5).contains(&scale), "{scale}");
        }
    }
}

//! Charts as PNG: lines over two axes, and bars by name.

mod axis;
mod canvas;

use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result};
use image::{ImageFormat, Rgb, RgbImage};

use crate::files::replace;
use axis::Axis;
use canvas::{Canvas, GLYPH, text_width};

/// Size of a chart in pixels.
const SIZE: (u32, u32) = (960, 600);

/// Room around the plot for title, numbers and labels: left, top, right, bottom.
const MARGIN: [u32; 4] = [92, 48, 28, 60];

/// Pixels between a legend's lines.
const LEGEND_LINE: u32 = 16;

const BLACK: Rgb<u8> = Rgb([30, 30, 30]);
const GREY: Rgb<u8> = Rgb([222, 222, 222]);

/// Okabe and Ito's colours, told apart by colour-blind eyes too.
const COLOURS: [Rgb<u8>; 7] = [
    Rgb([0, 114, 178]),
    Rgb([213, 94, 0]),
    Rgb([0, 158, 115]),
    Rgb([204, 121, 167]),
    Rgb([230, 159, 0]),
    Rgb([86, 180, 233]),
    Rgb([90, 90, 90]),
];

/// A chart in the making.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chart {
    title: String,
    x_label: String,
    y_label: String,
    lines: Vec<Line>,
    bars: Vec<(String, f64)>,
    log_y: bool,
    x_range: Option<(f64, f64)>,
    y_range: Option<(f64, f64)>,
}

#[derive(Debug, Clone)]
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

/// The rectangle within the axes, in pixels.
#[derive(Debug, Clone, Copy)]
struct Area {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

impl Chart {
    pub(crate) fn new(title: &str, x_label: &str, y_label: &str) -> Self {
        Self {
            title: title.to_owned(),
            x_label: x_label.to_owned(),
            y_label: y_label.to_owned(),
            ..Self::default()
        }
    }

    /// Adds a line through `points`; one that is no number leaves a gap.
    pub(crate) fn line(mut self, name: &str, points: &[(f64, f64)]) -> Self {
        self.lines.push(Line {
            name: name.to_owned(),
            points: points.to_vec(),
        });
        self
    }

    /// Adds bars with their names below; the x axis then counts bars, from 0 in the first one's middle.
    pub(crate) fn bars(mut self, bars: &[(String, f64)]) -> Self {
        self.bars.extend_from_slice(bars);
        self
    }

    /// Makes the y axis logarithmic; what is not positive is left out.
    pub(crate) fn log_y(mut self) -> Self {
        self.log_y = true;
        self
    }

    /// Fixes the x axis instead of fitting it to the lines.
    pub(crate) fn x_range(mut self, low: f64, high: f64) -> Self {
        self.x_range = Some((low, high));
        self
    }

    /// Fixes the y axis instead of fitting it to what is drawn.
    pub(crate) fn y_range(mut self, low: f64, high: f64) -> Self {
        self.y_range = Some((low, high));
        self
    }

    /// Writes the chart as PNG, whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let mut png = Cursor::new(Vec::new());
        self.draw().write_to(&mut png, ImageFormat::Png)?;
        replace(path, png.get_ref()).with_context(|| path.display().to_string())
    }

    /// The chart as pixels.
    pub(crate) fn draw(&self) -> RgbImage {
        let [left, top, right, bottom] = MARGIN;
        let area = Area {
            left: f64::from(left),
            top: f64::from(top),
            width: f64::from(SIZE.0 - left - right),
            height: f64::from(SIZE.1 - top - bottom),
        };
        let (x, y) = (self.x_axis(), self.y_axis());
        let mut canvas = Canvas::new(SIZE.0, SIZE.1);
        self.draw_grid(&mut canvas, area, &x, &y);
        self.draw_bars(&mut canvas, area, &x, &y);
        for (line, colour) in self.lines.iter().zip(COLOURS.into_iter().cycle()) {
            line.draw(&mut canvas, area, &x, &y, colour);
        }
        self.draw_legend(&mut canvas, area);
        canvas.into_image()
    }

    fn x_axis(&self) -> Axis {
        if !self.bars.is_empty() {
            return Axis::exactly(-0.5, self.bars.len() as f64 - 0.5);
        }
        let points = self.lines.iter().flat_map(|line| &line.points);
        match self.x_range {
            Some((low, high)) => Axis::exactly(low, high),
            None => Axis::tight(points.map(|point| point.0)),
        }
    }

    fn y_axis(&self) -> Axis {
        let points = self.lines.iter().flat_map(|line| &line.points);
        let lines = points.map(|point| point.1);
        let bars = self.bars.iter().map(|bar| bar.1);
        match (self.y_range, self.log_y) {
            (Some((low, high)), log) => Axis::exactly(low, high).logarithmic(log),
            (None, true) => Axis::decades(lines.chain(bars)),
            (None, false) if self.bars.is_empty() => Axis::rounded(lines),
            // A bar stands on zero.
            (None, false) => Axis::rounded(lines.chain(bars).chain([0.0])),
        }
    }

    fn draw_grid(&self, canvas: &mut Canvas, area: Area, x: &Axis, y: &Axis) {
        let (right, bottom) = (area.left + area.width, area.top + area.height);
        for (value, name) in y.ticks() {
            let at = area.y(y, value);
            canvas.line((area.left, at), (right, at), 1.0, GREY);
            let left = area.left - 8.0 - f64::from(text_width(&name, 1));
            canvas.text(left, at - f64::from(GLYPH) / 2.0, &name, 1, BLACK);
        }
        let under = bottom + 8.0;
        if self.bars.is_empty() {
            for (value, name) in x.ticks() {
                let at = area.x(x, value);
                canvas.line((at, area.top), (at, bottom), 1.0, GREY);
                canvas.centred(at, under, &name, 1, BLACK);
            }
        } else {
            self.draw_names(canvas, area, x, under);
        }
        canvas.line((area.left, bottom), (right, bottom), 1.0, BLACK);
        canvas.line((area.left, area.top), (area.left, bottom), 1.0, BLACK);

        let middle = area.left + area.width / 2.0;
        canvas.centred(f64::from(SIZE.0) / 2.0, 16.0, &self.title, 2, BLACK);
        let low = f64::from(SIZE.1 - GLYPH) - 10.0;
        canvas.centred(middle, low, &self.x_label, 1, BLACK);
        canvas.upward(10.0, area.top + area.height / 2.0, &self.y_label, BLACK);
    }

    /// Names bars as far as there is room: on two rows in turn, and not all where they are many.
    fn draw_names(&self, canvas: &mut Canvas, area: Area, x: &Axis, under: f64) {
        let widest = self.bars.iter().map(|(name, _)| text_width(name, 1)).max();
        let widest = f64::from(widest.unwrap_or(0) + GLYPH);
        let room = area.width / self.bars.len() as f64;
        let rows = if widest > room { 2 } else { 1 };
        let step = (widest / (room * rows as f64)).ceil().max(1.0) as usize;
        for (nth, (at, (name, _))) in self.bars.iter().enumerate().step_by(step).enumerate() {
            let row = (nth % rows) as f64 * 1.5 * f64::from(GLYPH);
            canvas.centred(area.x(x, at as f64), under + row, name, 1, BLACK);
        }
    }

    fn draw_bars(&self, canvas: &mut Canvas, area: Area, x: &Axis, y: &Axis) {
        let ground = area.y(y, y.ground());
        for (at, (_, value)) in self.bars.iter().enumerate() {
            if !y.shows(*value) {
                continue;
            }
            let (left, right) = (area.x(x, at as f64 - 0.4), area.x(x, at as f64 + 0.4));
            let tip = area.y(y, *value).clamp(area.top, area.top + area.height);
            canvas.fill(
                (left, tip.min(ground)),
                (right, tip.max(ground)),
                COLOURS[0],
            );
        }
    }

    /// Names the lines at the top right, unless there is just one and it needs no name.
    fn draw_legend(&self, canvas: &mut Canvas, area: Area) {
        let named: Vec<(&str, Rgb<u8>)> = (self.lines.iter().map(|line| line.name.as_str()))
            .zip(COLOURS.into_iter().cycle())
            .filter(|(name, _)| !name.is_empty())
            .collect();
        let Some(widest) = named.iter().map(|(name, _)| text_width(name, 1)).max() else {
            return;
        };
        let left = area.left + area.width - f64::from(widest) - 48.0;
        let height = f64::from(LEGEND_LINE) * named.len() as f64 + 8.0;
        let (corner, end) = (
            (left, area.top + 8.0),
            (area.left + area.width - 8.0, area.top + 8.0 + height),
        );
        canvas.veil(corner, end);
        for (nth, (name, colour)) in named.into_iter().enumerate() {
            let y = corner.1 + 8.0 + f64::from(LEGEND_LINE) * nth as f64;
            let middle = y + f64::from(GLYPH) / 2.0;
            canvas.line((left + 6.0, middle), (left + 26.0, middle), 3.0, colour);
            canvas.text(left + 34.0, y, name, 1, BLACK);
        }
    }
}

impl Line {
    fn draw(&self, canvas: &mut Canvas, area: Area, x: &Axis, y: &Axis, colour: Rgb<u8>) {
        let place = |&(at, value): &(f64, f64)| {
            (x.shows(at) && y.shows(value)).then(|| (area.x(x, at), area.y(y, value)))
        };
        let places: Vec<Option<(f64, f64)>> = self.points.iter().map(place).collect();
        let inside = (area.top, area.top + area.height);
        for (nth, place) in places.iter().enumerate() {
            let Some(here) = *place else { continue };
            match places.get(nth + 1).copied().flatten() {
                Some(next) => canvas.clipped_line(here, next, 2.0, colour, inside),
                // The end of a stretch; a point between two gaps would be lost otherwise.
                None => canvas.clipped_line(here, here, 4.0, colour, inside),
            }
        }
    }
}

impl Area {
    fn x(&self, axis: &Axis, value: f64) -> f64 {
        self.left + self.width * axis.share(value)
    }

    fn y(&self, axis: &Axis, value: f64) -> f64 {
        self.top + self.height * (1.0 - axis.share(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows that show the first series' colour in a column of the plot.
    fn rows(image: &RgbImage, x: u32) -> Vec<u32> {
        let is_ink = |y: &u32| *image.get_pixel(x, *y) == COLOURS[0];
        (MARGIN[1]..SIZE.1 - MARGIN[3]).filter(is_ink).collect()
    }

    #[test]
    fn a_line_lies_where_its_values_say() {
        let chart = Chart::new("t", "x", "y").y_range(0.0, 4.0);
        let image = chart.line("", &[(0.0, 1.0), (10.0, 1.0)]).draw();
        // A quarter of 492 rows above the bottom of the plot, which is row 540.
        let found = rows(&image, 500);
        assert!(!found.is_empty());
        assert!(found.iter().all(|&y| y.abs_diff(417) <= 1), "{found:?}");
    }

    #[test]
    fn a_logarithmic_axis_gives_each_decade_the_same_room() {
        let chart = Chart::new("t", "x", "y").log_y().y_range(1.0, 1e4);
        let image = chart.line("", &[(0.0, 10.0), (10.0, 10.0)]).draw();
        let found = rows(&image, 500);
        assert!(!found.is_empty());
        assert!(found.iter().all(|&y| y.abs_diff(417) <= 1), "{found:?}");
    }

    #[test]
    fn bars_are_as_high_as_their_values() {
        let bars = [("a".to_owned(), 1.0), ("b".to_owned(), 4.0)];
        let image = Chart::new("t", "", "").bars(&bars).y_range(0.0, 4.0).draw();
        // The middles of the left and the right half of columns 92 to 932.
        let (low, high) = (rows(&image, 302).len(), rows(&image, 722).len());
        assert!(low.abs_diff(123) <= 1, "{low}");
        assert!(high.abs_diff(492) <= 1, "{high}");
    }

    #[test]
    fn what_is_no_number_leaves_a_gap() {
        let points = [
            (0.0, 1.0),
            (4.0, 1.0),
            (5.0, f64::NAN),
            (6.0, 1.0),
            (10.0, 1.0),
        ];
        let image = Chart::new("t", "", "")
            .y_range(0.0, 4.0)
            .line("", &points)
            .draw();
        let column = |x: f64| 92 + (84.0 * x) as u32;
        assert!(!rows(&image, column(2.0)).is_empty());
        assert!(rows(&image, column(5.0)).is_empty());
        assert!(!rows(&image, column(8.0)).is_empty());
    }

    #[test]
    fn nothing_to_draw_is_an_empty_chart_on_disk() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("a.png");
        for chart in [
            Chart::new("nothing", "x", "y"),
            Chart::new("nothing", "x", "y").log_y(),
            Chart::new("é", "x", "y").line("no number", &[(f64::NAN, f64::INFINITY)]),
            Chart::new("one", "x", "y").line("one", &[(3.0, 3.0)]),
            Chart::new("zero", "x", "y")
                .bars(&[(String::new(), 0.0)])
                .log_y(),
        ] {
            chart.save(&path).expect("writes");
            assert_eq!(
                image::open(&path).expect("a PNG").to_rgb8().dimensions(),
                SIZE
            );
        }
        Chart::new("", "", "")
            .save(&dir.path().join("no/a.png"))
            .expect_err("no such folder");
    }
}

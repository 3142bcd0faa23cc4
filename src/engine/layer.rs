//! One layer, ready to run.

use std::ops::Range;

use super::arithmetic::Sum;
use super::graph::{Node, Op, Window, mean_multiplier};
use super::kernels::{Dense, Depthwise, Kernel, Patches, Pool, Rounding, Rows};
use super::pack::{Packing, Shape};
use super::plan::Place;

/// Padded rows that a full convolution keeps at once: it reads three.
const KEPT: usize = 4;

/// What a layer runs on.
#[derive(Debug)]
pub(super) struct Layer {
    work: Work,
    /// Of its first input.
    input: Shape,
    output: Shape,
}

#[derive(Debug)]
enum Work {
    Image(Box<[u8; 256]>),
    Pointwise(Dense),
    Full {
        dense: Dense,
        window: Window,
        padding: u8,
    },
    Depthwise {
        depthwise: Depthwise,
        window: Window,
        /// A row outside the map.
        outside: Vec<u8>,
    },
    /// Of a pixel the two that come of it in the upper row, then those in the lower one.
    Double(Dense),
    Add(Sum),
    Concat,
    Upsample,
    Pool(Pool),
    Table(Box<[u8; 256]>),
}

/// A map.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) bytes: &'a [u8],
    /// Bytes of a row.
    pub(super) row: usize,
}

impl<'a> View<'a> {
    fn row(&self, row: usize) -> &'a [u8] {
        self.rows(row..row + 1)
    }

    fn rows(&self, rows: Range<usize>) -> &'a [u8] {
        &self.bytes[rows.start * self.row..rows.end * self.row]
    }
}

impl Layer {
    pub(super) fn new(nodes: &[Node], places: &[Place], node: usize, kernel: &dyn Kernel) -> Self {
        let shape = |node: usize| Shape {
            height: nodes[node].map.height,
            width: nodes[node].map.width,
            channels: nodes[node].map.channels,
            pixel: places[node].pixel,
        };
        let Node {
            op,
            inputs,
            map,
            range,
        } = &nodes[node];
        let output = shape(node);
        let input = inputs.first().map_or(output, |&input| shape(input));
        // The image has none.
        let from = inputs.first().map_or(*map, |&input| nodes[input].map);
        let rounding = Rounding {
            zero: map.scheme.zero,
            range: *range,
        };
        let packing = Packing {
            kernel,
            input,
            output,
            schemes: [from.scheme, map.scheme],
            rounding,
        };
        let work = match op {
            Op::Image(table) => Work::Image(table.clone()),
            Op::Pointwise(filters) => {
                Work::Pointwise(packing.dense([1, 1], &[&filters.weight], filters))
            }
            Op::Full(filters, window) => Work::Full {
                dense: packing.dense([3, 3], &[&filters.weight], filters),
                window: *window,
                padding: from.scheme.zero,
            },
            Op::Depthwise(filters, window) => Work::Depthwise {
                depthwise: packing.depthwise(filters, *window),
                window: *window,
                outside: vec![from.scheme.zero; input.width * input.pixel],
            },
            Op::Double(filters) => {
                let quarter = filters.weight.len() / 4;
                let parts: Vec<&[i8]> = filters.weight.chunks_exact(quarter).collect();
                Work::Double(packing.dense([1, 1], &parts, filters))
            }
            Op::Add => Work::Add(Sum::of(
                from.scheme,
                nodes[inputs[1]].map.scheme,
                map.scheme,
                *range,
            )),
            Op::Concat => Work::Concat,
            Op::Upsample => Work::Upsample,
            Op::Pool => Work::Pool(Pool {
                zero: from.scheme.zero,
                multiplier: mean_multiplier(from, map.scheme),
                rounding,
            }),
            Op::Table(table) => Work::Table(table.clone()),
        };
        Self {
            work,
            input,
            output,
        }
    }

    /// Rows of its map that are computed together. One where rows come two by two would repeat what the
    /// other needs as well.
    pub(super) fn unit(&self) -> usize {
        match &self.work {
            Work::Double(_) | Work::Upsample => 2,
            Work::Depthwise { window, .. } => at_once(*window),
            _ => 1,
        }
    }

    /// Rows of its map.
    pub(super) fn rows(&self) -> usize {
        self.output.height
    }

    /// Bytes of a row of its map.
    pub(super) fn row(&self) -> usize {
        self.output.width * self.output.pixel
    }

    /// Bytes that it needs beside its maps.
    pub(super) fn spare(&self, kernel: &dyn Kernel) -> usize {
        let Shape { width, pixel, .. } = self.input;
        match self.work {
            Work::Full { .. } => KEPT * padded_row(width, pixel),
            Work::Depthwise { .. } => kernel.depthwise_scratch(width),
            Work::Double(_) => 2 * self.output.width * self.output.pixel,
            _ => 0,
        }
    }

    /// Computes `rows` of its map into `out`, of its inputs; they start at a multiple of [`Layer::unit`], and
    /// end at one or where the map does.
    pub(super) fn run(
        &self,
        kernel: &dyn Kernel,
        rows: Range<usize>,
        [a, b]: [View<'_>; 2],
        out: &mut [u8],
        spare: &mut [u8],
    ) {
        let pixel = self.output.pixel;
        match &self.work {
            Work::Image(table) => {
                let (pixels, _) = a.rows(rows).as_chunks::<3>();
                for (from, out) in pixels.iter().zip(out.chunks_exact_mut(pixel)) {
                    out[..3].copy_from_slice(&from.map(|byte| table[usize::from(byte)]));
                }
            }
            Work::Pointwise(dense) => {
                let patches = Patches {
                    count: rows.len() * self.input.width,
                    rows: &[a.rows(rows)],
                    step: self.input.pixel,
                };
                kernel.dense(dense, patches, out);
            }
            Work::Full {
                dense,
                window,
                padding,
            } => self.run_full(kernel, rows, dense, *window, *padding, a, out, spare),
            Work::Depthwise {
                depthwise,
                window,
                outside,
            } => self.run_depthwise(kernel, rows, depthwise, *window, outside, a, out, spare),
            Work::Double(dense) => {
                let length = self.row();
                let four = &mut spare[..2 * length];
                for (y, out) in (rows.start / 2..).zip(out.chunks_exact_mut(2 * length)) {
                    let patches = Patches {
                        rows: &[a.row(y)],
                        step: self.input.pixel,
                        count: self.input.width,
                    };
                    kernel.dense(dense, patches, four);
                    let (upper, lower) = out.split_at_mut(length);
                    part(four, pixel, upper, lower);
                }
            }
            Work::Add(sum) => kernel.add(sum, a.rows(rows.clone()), b.rows(rows), out),
            Work::Concat => {
                let channels = self.input.channels;
                let more = self.output.channels - channels;
                let width = self.output.width;
                let [a, b] = [a, b].map(|x| x.rows(rows.clone()).chunks_exact(x.row / width));
                for ((a, b), out) in a.zip(b).zip(out.chunks_exact_mut(pixel)) {
                    out[..channels].copy_from_slice(&a[..channels]);
                    out[channels..][..more].copy_from_slice(&b[..more]);
                }
            }
            Work::Upsample => {
                let length = self.row();
                for (y, out) in (rows.start / 2..).zip(out.chunks_exact_mut(2 * length)) {
                    let (upper, lower) = out.split_at_mut(length);
                    repeat(a.row(y), pixel, upper);
                    lower.copy_from_slice(upper);
                }
            }
            Work::Pool(pool) => kernel.pool(pool, a.bytes, out),
            Work::Table(table) => {
                for (byte, out) in a.rows(rows).iter().zip(out) {
                    *out = table[usize::from(*byte)];
                }
            }
        }
    }
}

impl Layer {
    #[expect(
        clippy::too_many_arguments,
        reason = "a layer's parts, taken apart once"
    )]
    fn run_full(
        &self,
        kernel: &dyn Kernel,
        rows: Range<usize>,
        dense: &Dense,
        window: Window,
        padding: u8,
        x: View<'_>,
        out: &mut [u8],
        spare: &mut [u8],
    ) {
        let Shape {
            height,
            width,
            pixel,
            ..
        } = self.input;
        let length = padded_row(width, pixel);
        let mut kept = [None; KEPT];
        for (y, out) in rows.zip(out.chunks_exact_mut(self.row())) {
            // Rows of the padded map, which begins a row above the map.
            let top = y * window.stride + 1 - window.top;
            for row in top..top + 3 {
                let slot = row % KEPT;
                if kept[slot] == Some(row) {
                    continue;
                }
                kept[slot] = Some(row);
                let padded = &mut spare[slot * length..][..length];
                padded.fill(padding);
                if let Some(row) = row.checked_sub(1).filter(|&row| row < height) {
                    padded[pixel..][..x.row].copy_from_slice(x.row(row));
                }
            }
            let left = (1 - window.left) * pixel;
            let row = |nth: usize| &spare[(top + nth) % KEPT * length..][left..length];
            let patches = Patches {
                rows: &[row(0), row(1), row(2)],
                step: window.stride * pixel,
                count: self.output.width,
            };
            kernel.dense(dense, patches, out);
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a layer's parts, taken apart once"
    )]
    fn run_depthwise(
        &self,
        kernel: &dyn Kernel,
        rows: Range<usize>,
        depthwise: &Depthwise,
        window: Window,
        outside: &[u8],
        x: View<'_>,
        out: &mut [u8],
        spare: &mut [u8],
    ) {
        let (at_once, length) = (at_once(window), self.row());
        for (y, out) in rows.step_by(at_once).zip(out.chunks_mut(at_once * length)) {
            let count = out.len() / length;
            let row = |nth: usize| {
                let row = (y * window.stride + nth).checked_sub(window.top);
                // The fourth row counts only where two come out.
                let inside = row.filter(|&row| row < self.input.height && nth < count + 2);
                inside.map_or(outside, |row| x.row(row))
            };
            let rows = Rows {
                rows: [row(0), row(1), row(2), row(3)],
                width: self.input.width,
                outputs: self.output.width,
                count,
            };
            kernel.depthwise(depthwise, rows, out, spare);
        }
    }
}

/// Rows that a depthwise convolution computes at once, of which the second reads two that the first read.
fn at_once(window: Window) -> usize {
    if window.stride == 1 { 2 } else { 1 }
}

/// Repeats each pixel once. Known sizes are copied by a move or two, others by a call.
fn repeat(row: &[u8], pixel: usize, out: &mut [u8]) {
    fn by<const N: usize>(row: &[u8], out: &mut [u8]) {
        let (pixels, _) = row.as_chunks::<N>();
        let (pairs, _) = out.as_chunks_mut::<N>();
        for (pixel, pair) in pixels.iter().zip(pairs.chunks_exact_mut(2)) {
            pair.fill(*pixel);
        }
    }
    match pixel {
        16 => by::<16>(row, out),
        32 => by::<32>(row, out),
        48 => by::<48>(row, out),
        96 => by::<96>(row, out),
        _ => {
            for (from, pair) in row.chunks_exact(pixel).zip(out.chunks_exact_mut(2 * pixel)) {
                pair[..pixel].copy_from_slice(from);
                pair[pixel..].copy_from_slice(from);
            }
        }
    }
}

/// Parts squares of 2x2 pixels, one behind the other, into two rows.
fn part(squares: &[u8], pixel: usize, upper: &mut [u8], lower: &mut [u8]) {
    fn by<const N: usize>(squares: &[u8], upper: &mut [u8], lower: &mut [u8]) {
        let (halves, _) = squares.as_chunks::<N>();
        let (upper, _) = upper.as_chunks_mut::<N>();
        let (lower, _) = lower.as_chunks_mut::<N>();
        for ((square, upper), lower) in halves.chunks_exact(2).zip(upper).zip(lower) {
            (*upper, *lower) = (square[0], square[1]);
        }
    }
    match pixel {
        1 => by::<2>(squares, upper, lower),
        2 => by::<4>(squares, upper, lower),
        _ => {
            let pairs = upper
                .chunks_exact_mut(2 * pixel)
                .zip(lower.chunks_exact_mut(2 * pixel));
            for (square, (upper, lower)) in squares.chunks_exact(4 * pixel).zip(pairs) {
                upper.copy_from_slice(&square[..2 * pixel]);
                lower.copy_from_slice(&square[2 * pixel..]);
            }
        }
    }
}

/// Bytes of a row with a pixel of padding at both ends, and what the last patch reads beyond.
fn padded_row(width: usize, pixel: usize) -> usize {
    (width + 2) * pixel + 3
}

//! Where maps lie in memory, and which layers run together.
//!
//! Neighbouring layers form a stage. Within one, rows travel in bands: each layer computes the few rows
//! that the next needs, so that what lies between them stays in cache. Maps that a later stage reads lie
//! whole; they share memory where their lifetimes allow it.

use std::ops::Range;

use super::graph::{Graph, Node, Op, Window};

/// Bytes that a map's place starts at a multiple of: a cache line.
const ALIGNMENT: usize = 64;

/// Layers that run together, band by band.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stage {
    /// The layers; only maps of the last are read outside.
    pub(super) nodes: Range<usize>,
    /// Rows of the last layer that are computed at once.
    pub(super) band: usize,
}

/// Where a map lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// First byte.
    pub(super) offset: usize,
    /// Bytes of a pixel: channels, and padding if a dense convolution reads it.
    pub(super) pixel: usize,
    /// Bytes of a row.
    pub(super) row: usize,
    /// Rows that there is room for.
    pub(super) rows: usize,
}

impl Place {
    /// The bytes that it takes.
    pub(super) fn span(&self) -> Range<usize> {
        self.offset..self.offset + self.rows * self.row
    }
}

/// Places and stages of a graph.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) stages: Vec<Stage>,
    /// Of each node's map.
    pub(super) places: Vec<Place>,
    /// Bytes that hold all places.
    pub(super) size: usize,
}

impl Plan {
    /// A plan by which each of `outputs` lies whole at the end.
    pub(super) fn new(graph: &Graph, outputs: &[usize], cache: usize) -> Self {
        let nodes = graph.nodes();
        let last_use = last_uses(nodes, outputs);
        let pixels = pixels(nodes);
        let stages = stages(nodes, &last_use, &pixels, cache);
        let mut places: Vec<Place> = Vec::with_capacity(nodes.len());
        for (node, &pixel) in nodes.iter().zip(&pixels) {
            places.push(Place {
                offset: 0,
                pixel,
                row: pixel * node.map.width,
                rows: node.map.height,
            });
        }
        // In stages, the time that maps are alive in.
        let mut lives = vec![0..0; nodes.len()];
        for (time, stage) in stages.iter().enumerate() {
            for band in bands(nodes, stage) {
                for (node, rows) in stage.nodes.clone().zip(&band) {
                    if node + 1 < stage.nodes.end {
                        let place = &mut places[node];
                        place.rows = if lives[node].is_empty() {
                            0
                        } else {
                            place.rows
                        };
                        place.rows = place.rows.max(rows.len());
                        lives[node] = time..time + 1;
                    }
                }
            }
            let last = stage.nodes.end - 1;
            let of = |node: usize| stages.iter().position(|s| s.nodes.contains(&node));
            let end = match last_use[last] {
                Some(reader) => of(reader).expect("each node is in a stage") + 1,
                None => stages.len(),
            };
            lives[last] = time..end;
        }
        let size = allocate(&mut places, &lives);
        Self {
            stages,
            places,
            size,
        }
    }
}

/// Rows of each layer of a stage that are needed for each of its bands, in their order.
pub(super) fn bands<'a>(
    nodes: &'a [Node],
    stage: &'a Stage,
) -> impl Iterator<Item = Vec<Range<usize>>> + 'a {
    let height = nodes[stage.nodes.end - 1].map.height;
    (0..height).step_by(stage.band).map(move |from| {
        let mut needed = vec![0..0; stage.nodes.len()];
        need(
            nodes,
            stage,
            from..height.min(from + stage.band),
            &mut needed,
        );
        needed
    })
}

/// Rows of each layer of a stage that `rows` of its last layer need.
pub(super) fn need(nodes: &[Node], stage: &Stage, rows: Range<usize>, needed: &mut [Range<usize>]) {
    let first = stage.nodes.start;
    needed.fill(0..0);
    *needed.last_mut().expect("a stage has layers") = rows;
    for node in stage.nodes.clone().rev() {
        let rows = needed[node - first].clone();
        for &input in &nodes[node].inputs {
            if let Some(at) = input.checked_sub(first) {
                let more = nodes[node].op.reads(rows.clone(), nodes[input].map.height);
                let known = &mut needed[at];
                *known = match known.start == known.end {
                    true => more,
                    false => known.start.min(more.start)..known.end.max(more.end),
                };
            }
        }
    }
}

impl Op {
    /// Rows of an input, of `height` rows, that `rows` of the output are made of.
    fn reads(&self, rows: Range<usize>, height: usize) -> Range<usize> {
        match self {
            Self::Full(_, window) | Self::Depthwise(_, window) => window.reads(rows, height),
            Self::Double(_) | Self::Upsample => rows.start / 2..rows.end.div_ceil(2),
            Self::Pool => 0..height,
            Self::Image(_) | Self::Pointwise(_) | Self::Add | Self::Concat | Self::Table(_) => rows,
        }
    }

    /// Whether it reads pixels four bytes at once.
    fn is_dense(&self) -> bool {
        matches!(self, Self::Pointwise(_) | Self::Full(..) | Self::Double(_))
    }

    /// Whether its pixels have the bytes of its inputs' pixels.
    fn keeps_channels(&self) -> bool {
        matches!(
            self,
            Self::Depthwise(..) | Self::Add | Self::Upsample | Self::Pool | Self::Table(_)
        )
    }
}

impl Window {
    fn reads(self, rows: Range<usize>, height: usize) -> Range<usize> {
        let first = |row: usize| row * self.stride;
        let start = first(rows.start).saturating_sub(self.top);
        let end = (first(rows.end.saturating_sub(1)) + 3).saturating_sub(self.top);
        start.min(height)..end.min(height)
    }
}

/// The last reader of each map; none of an output, which is read at the end.
fn last_uses(nodes: &[Node], outputs: &[usize]) -> Vec<Option<usize>> {
    let mut uses: Vec<Option<usize>> = (0..nodes.len()).map(Some).collect();
    for (reader, node) in nodes.iter().enumerate() {
        for &input in &node.inputs {
            uses[input] = Some(reader);
        }
    }
    for &output in outputs {
        uses[output] = None;
    }
    uses
}

/// Bytes of each map's pixels.
fn pixels(nodes: &[Node]) -> Vec<usize> {
    let mut padded = vec![false; nodes.len()];
    for node in nodes.iter().filter(|node| node.op.is_dense()) {
        padded[node.inputs[0]] = true;
    }
    loop {
        let before = padded.clone();
        for (at, node) in nodes.iter().enumerate() {
            if node.op.keeps_channels() {
                let any = padded[at] || node.inputs.iter().any(|&input| padded[input]);
                padded[at] = any;
                node.inputs.iter().for_each(|&input| padded[input] = any);
            }
        }
        if padded == before {
            break;
        }
    }
    let pixel = |(node, padded): (&Node, bool)| match padded {
        true => node.map.channels.next_multiple_of(4),
        false => node.map.channels,
    };
    nodes.iter().zip(padded).map(pixel).collect()
}

/// Which layers run together, such that the bands of a stage fit into `cache` bytes.
fn stages(
    nodes: &[Node],
    last_use: &[Option<usize>],
    pixels: &[usize],
    cache: usize,
) -> Vec<Stage> {
    let _ = (last_use, pixels, cache);
    let stage = |node: usize| Stage {
        nodes: node..node + 1,
        band: nodes[node].map.height,
    };
    (0..nodes.len()).map(stage).collect()
}

/// Gives each place an offset such that no two overlap that are alive at once; largest first, each at the
/// lowest offset where it fits.
fn allocate(places: &mut [Place], lives: &[Range<usize>]) -> usize {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(places[at].span().len()));
    let mut placed: Vec<usize> = Vec::new();
    let mut size = 0;
    for at in order {
        let meets = |other: &&usize| {
            let (a, b) = (&lives[at], &lives[**other]);
            a.start < b.end && b.start < a.end
        };
        let mut taken: Vec<Range<usize>> = placed
            .iter()
            .filter(meets)
            .map(|&other| places[other].span())
            .collect();
        taken.sort_by_key(|span| span.start);
        let length = places[at].span().len();
        let mut offset = 0;
        for span in taken {
            if offset + length <= span.start {
                break;
            }
            offset = offset.max(span.end.next_multiple_of(ALIGNMENT));
        }
        places[at].offset = offset;
        size = size.max(offset + length);
        placed.push(at);
    }
    size
}

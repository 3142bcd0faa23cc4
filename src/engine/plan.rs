//! Where maps lie in memory: those share it that are not alive at once.

use std::ops::Range;

use super::graph::{Graph, Node, Op};

/// Bytes that a map's place starts at a multiple of: a cache line.
const ALIGNMENT: usize = 64;

/// Where a map lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// First byte.
    pub(super) offset: usize,
    /// Bytes of a pixel: channels, and padding to whole groups of four if a convolution of pixels reads the
    /// map, or one that has its pixels.
    pub(super) pixel: usize,
    /// Bytes of a row.
    pub(super) row: usize,
    /// Rows; none where the image itself is the map.
    pub(super) rows: usize,
}

impl Place {
    /// The bytes that it takes.
    pub(super) fn span(&self) -> Range<usize> {
        self.offset..self.offset + self.rows * self.row
    }
}

/// Places of a graph's maps.
#[derive(Debug)]
pub(super) struct Plan {
    /// Of each node's map.
    pub(super) places: Vec<Place>,
    /// Bytes that hold all places.
    pub(super) size: usize,
}

impl Plan {
    /// A plan by which each of `outputs` is there at the end.
    pub(super) fn new(graph: &Graph, outputs: &[usize]) -> Self {
        let nodes = graph.nodes();
        let place = |(at, pixel): (usize, usize)| {
            let unpadded = pixel == nodes[at].map.channels;
            let copied = outputs.contains(&at) || !nodes[at].op.is_identity() || !unpadded;
            Place {
                offset: 0,
                pixel,
                row: pixel * nodes[at].map.width,
                rows: if copied { nodes[at].map.height } else { 0 },
            }
        };
        let mut places: Vec<Place> = pixels(nodes).into_iter().enumerate().map(place).collect();
        let size = allocate(&mut places, &lives(nodes, outputs));
        Self { places, size }
    }
}

impl Op {
    /// Whether it makes the image's bytes the map's, which need not be copied then.
    fn is_identity(&self) -> bool {
        match self {
            Self::Image(table) => (0..=255).zip(&**table).all(|(byte, &to)| byte == to),
            _ => false,
        }
    }

    /// Whether it reads pixels four bytes at once.
    fn is_dense(&self) -> bool {
        matches!(self, Self::Pointwise(_) | Self::Double(_))
    }

    /// Whether its pixels have the bytes of its inputs' pixels.
    fn keeps_channels(&self) -> bool {
        matches!(
            self,
            Self::Depthwise(..) | Self::Add | Self::Upsample | Self::Pool | Self::Table(_)
        )
    }
}

/// The nodes during which each map is alive: from its own to its last reader, an output to the end.
fn lives(nodes: &[Node], outputs: &[usize]) -> Vec<Range<usize>> {
    let mut lives: Vec<Range<usize>> = (0..nodes.len()).map(|node| node..node + 1).collect();
    for (reader, node) in nodes.iter().enumerate() {
        for &input in &node.inputs {
            lives[input].end = reader + 1;
        }
    }
    for &output in outputs {
        lives[output].end = nodes.len();
    }
    lives
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

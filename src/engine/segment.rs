//! A graph that is ready to run on one kind of processor.

use std::ops::Range;

use super::graph::{Graph, Map, Node, Op};
use super::kernels::{Kernel, runnable};
use super::layer::{Layer, View};
use super::plan::{Plan, Stage, need};

/// Bytes of cache that the bands of a stage may take.
const CACHE: usize = 128 << 10;

/// A network of bytes, ready to run. Threads share one; each has a [`Scratch`] of its own.
#[derive(Debug)]
pub struct Segment {
    kernel: &'static dyn Kernel,
    layers: Vec<Layer>,
    nodes: Vec<Node>,
    plan: Plan,
    outputs: Vec<usize>,
    /// Bytes that layers need beside their maps.
    spare: usize,
}

/// Memory that a thread runs segments in. It grows to what a segment needs and is used again.
#[derive(Debug, Default)]
pub struct Scratch {
    maps: Vec<u8>,
    spare: Vec<u8>,
    needed: Vec<Range<usize>>,
    /// Rows that the place of each map holds.
    held: Vec<Range<usize>>,
}

impl Segment {
    /// Makes a graph ready; `outputs` are the nodes whose maps [`Segment::run`] gives.
    ///
    /// # Panics
    /// If an output is no node.
    pub fn new(graph: &Graph, outputs: &[usize]) -> Self {
        Self::with(graph, outputs, runnable()[0])
    }

    pub(super) fn with(graph: &Graph, outputs: &[usize], kernel: &'static dyn Kernel) -> Self {
        let nodes = graph.nodes().to_vec();
        let plan = Plan::new(graph, outputs, CACHE);
        let layers: Vec<Layer> = (0..nodes.len())
            .map(|node| Layer::new(&nodes, &plan.places, node, kernel))
            .collect();
        let spare = layers.iter().map(|layer| layer.spare(kernel)).max();
        Self {
            kernel,
            layers,
            nodes,
            plan,
            outputs: outputs.to_vec(),
            spare: spare.unwrap_or(0),
        }
    }

    /// Name of the kernel that runs it.
    pub fn kernel(&self) -> &'static str {
        self.kernel.name()
    }

    /// The map of each output.
    pub fn outputs(&self) -> impl Iterator<Item = Map> {
        self.outputs.iter().map(|&output| self.nodes[output].map)
    }

    /// Height and width of the image, if the segment reads one.
    pub fn image(&self) -> Option<[usize; 2]> {
        let image = self
            .nodes
            .iter()
            .find(|node| matches!(node.op, Op::Image(_)));
        image.map(|node| [node.map.height, node.map.width])
    }

    /// Bytes of memory that a thread needs to run it.
    pub fn memory(&self) -> usize {
        self.plan.size + self.spare
    }

    /// Runs on an image, bytes `[height, width, 3]`, and hands each output to `take`: its number, its bytes,
    /// and how many of them make a pixel; the channels are the first of these. Allocates nothing but what
    /// `scratch` lacks.
    ///
    /// # Panics
    /// If the image has another size.
    pub fn run(
        &self,
        image: &[u8],
        scratch: &mut Scratch,
        mut take: impl FnMut(usize, &[u8], usize),
    ) {
        let [height, width] = self.image().unwrap_or([0, 0]);
        assert_eq!(image.len(), 3 * height * width, "the image's size");
        scratch.fit(self);
        for stage in &self.plan.stages {
            self.run_stage(stage, image, scratch);
        }
        for (nth, &output) in self.outputs.iter().enumerate() {
            let place = self.plan.places[output];
            take(nth, &scratch.maps[place.span()], place.pixel);
        }
    }

    fn run_stage(&self, stage: &Stage, image: &[u8], scratch: &mut Scratch) {
        let last = stage.nodes.end - 1;
        let height = self.nodes[last].map.height;
        let Scratch {
            maps,
            spare,
            needed,
            held,
        } = scratch;
        held[stage.nodes.clone()].fill(0..0);
        let needed = &mut needed[..stage.nodes.len()];
        for from in (0..height).step_by(stage.band) {
            let rows = from..height.min(from + stage.band);
            need(&self.nodes, stage, rows, needed);
            for (node, wanted) in stage.nodes.clone().zip(&*needed) {
                if node != last {
                    self.forget(node, wanted.start, maps, &mut held[node]);
                }
                let rows = held[node].end..wanted.end;
                if !rows.is_empty() {
                    held[node].end = rows.end;
                    self.run_layer(node, rows, image, maps, spare, held);
                }
            }
        }
    }

    /// Moves what a place holds from row `start` on to its front.
    fn forget(&self, node: usize, start: usize, maps: &mut [u8], held: &mut Range<usize>) {
        let place = self.plan.places[node];
        if start >= held.end {
            *held = start..start;
        } else if start > held.start {
            let skipped = (start - held.start) * place.row;
            let kept = (held.end - start) * place.row;
            let from = place.offset + skipped;
            maps.copy_within(from..from + kept, place.offset);
            held.start = start;
        }
    }

    /// Computes rows of a layer from what is held of its inputs.
    fn run_layer(
        &self,
        node: usize,
        rows: Range<usize>,
        image: &[u8],
        maps: &mut [u8],
        spare: &mut [u8],
        held: &[Range<usize>],
    ) {
        let places = &self.plan.places;
        let start = places[node].offset + (rows.start - held[node].start) * places[node].row;
        let (before, rest) = maps.split_at_mut(start);
        let (out, after) = rest.split_at_mut(rows.len() * places[node].row);
        let end = start + out.len();
        let view = |input: usize| {
            let span = places[input].span();
            let bytes = match span.end <= start {
                true => &before[span],
                false => &after[span.start - end..span.end - end],
            };
            View {
                bytes,
                first: held[input].start,
                row: places[input].row,
            }
        };
        let inputs = &self.nodes[node].inputs;
        let image = View {
            bytes: image,
            first: 0,
            row: 3 * self.nodes[node].map.width,
        };
        let [a, b] = [0, 1].map(|nth| inputs.get(nth).map_or(image, |&input| view(input)));
        self.layers[node].run(self.kernel, [a, b], rows, out, spare);
    }
}

impl Scratch {
    /// Makes room for a segment.
    fn fit(&mut self, segment: &Segment) {
        let grow = |bytes: &mut Vec<u8>, size| {
            if bytes.len() < size {
                bytes.resize(size, 0);
            }
        };
        grow(&mut self.maps, segment.plan.size);
        grow(&mut self.spare, segment.spare);
        let nodes = segment.nodes.len();
        if self.held.len() < nodes {
            self.held.resize(nodes, 0..0);
            self.needed.resize(nodes, 0..0);
        }
    }
}

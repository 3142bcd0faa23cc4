//! A graph that is ready to run on one kind of processor.

use std::ops::Range;

use super::graph::{Graph, Map, Op};
use super::kernels::{Kernel, runnable};
use super::layer::{Layer, View};
use super::plan::Plan;
use super::share::{Part, Running};
use super::summary::Summary;

/// A network of bytes, ready to run. Threads share one; each has a [`Scratch`] of its own.
#[derive(Debug)]
pub struct Segment {
    kernel: &'static dyn Kernel,
    layers: Vec<Layer>,
    /// Of each layer those whose maps it reads.
    inputs: Vec<Vec<usize>>,
    plan: Plan,
    /// Height and width.
    image: Option<[usize; 2]>,
    outputs: Vec<(usize, Map)>,
    summaries: Vec<Summary>,
    /// Bytes that layers need beside their maps.
    spare: usize,
}

/// Memory that a thread runs segments in. It grows to what a segment needs and is used again.
#[derive(Debug, Default)]
pub struct Scratch {
    maps: Vec<u8>,
    spare: Vec<u8>,
}

impl Segment {
    /// Makes a graph ready for a kernel, one of [`kernels`](super::kernels()) by its name; `outputs` are the
    /// nodes whose maps [`Segment::run`] gives. None if this processor cannot run the kernel.
    ///
    /// # Panics
    /// If an output is no node.
    pub fn new(graph: &Graph, outputs: &[usize], kernel: &str) -> Option<Self> {
        let mut kernels = runnable().into_iter();
        let kernel = kernels.find(|known| known.name() == kernel)?;
        let nodes = graph.nodes();
        let plan = Plan::new(graph, outputs);
        let layers: Vec<Layer> = (0..nodes.len())
            .map(|node| Layer::new(nodes, &plan.places, node, kernel))
            .collect();
        let spare = layers.iter().map(|layer| layer.spare(kernel)).max();
        let image = nodes.iter().find(|node| matches!(node.op, Op::Image(_)));
        Some(Self {
            kernel,
            layers,
            inputs: nodes.iter().map(|node| node.inputs.clone()).collect(),
            plan,
            image: image.map(|node| [node.map.height, node.map.width]),
            outputs: outputs.iter().map(|&o| (o, nodes[o].map)).collect(),
            summaries: nodes.iter().map(|node| Summary::of(node, nodes)).collect(),
            spare: spare.unwrap_or(0),
        })
    }

    /// What each layer is, in the order in which they run.
    pub fn layers(&self) -> &[Summary] {
        &self.summaries
    }

    /// The map of each output.
    pub fn outputs(&self) -> impl Iterator<Item = Map> {
        self.outputs.iter().map(|&(_, map)| map)
    }

    /// Height and width of the image, if the segment reads one.
    pub fn image(&self) -> Option<[usize; 2]> {
        self.image
    }

    /// Runs on an image, bytes `[height, width, 3]`, and hands each output to `take`: its number, its bytes,
    /// and how many of them make a pixel; the channels are the first of these. Allocates nothing but what
    /// `scratch` lacks.
    ///
    /// In a thread of a rayon pool, the pool's other threads help with the rows of each layer unless they
    /// run segments themselves.
    ///
    /// # Panics
    /// If the image has another size.
    pub fn run(&self, image: &[u8], scratch: &mut Scratch, take: impl FnMut(usize, &[u8], usize)) {
        self.run_watched(image, scratch, |_| {}, take);
    }

    /// As [`Segment::run`]; `watch` hears of each layer that is over, by its number.
    ///
    /// # Panics
    /// If the image has another size.
    pub fn run_watched(
        &self,
        image: &[u8],
        scratch: &mut Scratch,
        watch: impl FnMut(usize),
        take: impl FnMut(usize, &[u8], usize),
    ) {
        let running = Running::begin();
        self.run_shared(image, scratch, &|work| running.threads(work), watch, take);
    }

    /// As [`Segment::run_watched`]; `threads` says before each layer how many compute it, by its
    /// products or bytes.
    pub(super) fn run_shared(
        &self,
        image: &[u8],
        scratch: &mut Scratch,
        threads: &dyn Fn(u64) -> usize,
        mut watch: impl FnMut(usize),
        mut take: impl FnMut(usize, &[u8], usize),
    ) {
        let [height, width] = self.image.unwrap_or([0, 0]);
        assert_eq!(image.len(), 3 * height * width, "the image's size");
        for node in 0..self.layers.len() {
            let layer = &self.layers[node];
            let most = layer.rows().div_ceil(layer.unit());
            let parts = threads(self.summaries[node].work()).clamp(1, most);
            scratch.fit(self, parts);
            self.run_layer(node, image, scratch, parts);
            watch(node);
        }
        for (nth, &(output, _)) in self.outputs.iter().enumerate() {
            let place = self.plan.places[output];
            take(nth, &scratch.maps[place.span()], place.pixel);
        }
    }

    fn run_layer(&self, node: usize, image: &[u8], scratch: &mut Scratch, parts: usize) {
        let places = &self.plan.places;
        let Range { start, end } = places[node].span();
        let (before, rest) = scratch.maps.split_at_mut(start);
        let (out, after) = rest.split_at_mut(end - start);
        let view = |input: usize| {
            let place = places[input];
            let span = place.span();
            let bytes = match () {
                () if span.is_empty() => image,
                () if span.end <= start => &before[span],
                () => &after[span.start - end..span.end - end],
            };
            View {
                bytes,
                row: place.row,
            }
        };
        let inputs = &self.inputs[node];
        let image = View {
            bytes: image,
            row: 3 * self.image.map_or(0, |[_, width]| width),
        };
        let [a, b] = [0, 1].map(|nth| inputs.get(nth).map_or(image, |&input| view(input)));
        let layer = &self.layers[node];
        let all = Part {
            // None of an image that is its map as it is.
            rows: 0..places[node].rows,
            out,
            spare: &mut scratch.spare[..parts * self.spare],
        };
        all.run(layer, self.kernel, [a, b], parts);
    }
}

impl Scratch {
    /// Makes room for a segment and so many parts of a layer.
    fn fit(&mut self, segment: &Segment, parts: usize) {
        let grow = |bytes: &mut Vec<u8>, size| {
            if bytes.len() < size {
                bytes.resize(size, 0);
            }
        };
        grow(&mut self.maps, segment.plan.size);
        grow(&mut self.spare, parts * segment.spare);
    }
}

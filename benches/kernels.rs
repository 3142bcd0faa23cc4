//! Layers of the small network (MobileNetV2 of width 0.35 at 224) on every kernel that this processor runs:
//! `cargo bench --bench kernels`, or a part of them by a word of their names: `... -- 'avx2/depthwise'`.
//!
//! Rates are products a second where a layer multiplies, and bytes of its map otherwise.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use shipwatch::engine::arithmetic::{Range, Scheme};
use shipwatch::engine::{Filters, Graph, Op, Scratch, Segment, Window, kernels};

const SCHEME: Scheme = Scheme {
    scale: 0.02,
    zero: 128,
};

/// What the layer under test reads: its size, and its channels.
const LAYERS: [(Kind, usize, usize); 14] = [
    (Kind::Full(16), 224, 3),
    (Kind::Depthwise(1), 112, 16),
    (Kind::Pointwise(48), 112, 8),
    (Kind::Depthwise(2), 112, 48),
    (Kind::Pointwise(8), 56, 48),
    (Kind::Depthwise(1), 28, 96),
    (Kind::Add, 28, 16),
    (Kind::Pointwise(144), 14, 24),
    (Kind::Depthwise(1), 14, 144),
    (Kind::Pointwise(56), 7, 336),
    (Kind::Pointwise(1280), 7, 112),
    (Kind::Pool, 7, 1280),
    (Kind::Upsample, 28, 32),
    (Kind::Double(16), 28, 32),
];

/// A layer, with the channels that it makes or its stride.
#[derive(Clone, Copy)]
enum Kind {
    Pointwise(usize),
    Full(usize),
    Depthwise(usize),
    Double(usize),
    Add,
    Upsample,
    Pool,
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for kernel in kernels() {
        let mut group = criterion.benchmark_group(kernel);
        for (kind, side, channels) in LAYERS {
            let segment = segment(kernel, kind, side, channels);
            let layer = segment.layers().last().expect("a layer");
            let rate = match layer.products {
                0 => Throughput::Bytes(layer.output.iter().product::<usize>() as u64),
                products => Throughput::Elements(products),
            };
            let shape = |shape: [usize; 3]| shape.map(|size| size.to_string()).join("x");
            let name = format!(
                "{} {} to {}",
                layer.name,
                shape(layer.input),
                shape(layer.output)
            );
            let image = vec![140; 3 * side * side];
            let mut scratch = Scratch::default();
            group.throughput(rate);
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|runs| time(&segment, &image, &mut scratch, runs));
            });
        }
        group.finish();
    }
    criterion.final_summary();
}

/// What the last layer takes in so many runs of all.
fn time(segment: &Segment, image: &[u8], scratch: &mut Scratch, runs: u64) -> Duration {
    let last = segment.layers().len() - 1;
    let mut time = Duration::ZERO;
    for _ in 0..runs {
        let mut before = Instant::now();
        let watch = |node| match node == last {
            true => time += before.elapsed(),
            false => before = Instant::now(),
        };
        segment.run_watched(image, scratch, watch, |_, map, _| {
            black_box(map);
        });
    }
    time
}

/// An image, layers that make the input of `kind` of it, and a layer of that kind.
fn segment(kernel: &str, kind: Kind, side: usize, channels: usize) -> Segment {
    let mut graph = Graph::default();
    let same = std::array::from_fn(|byte| byte as u8);
    let image = graph.image([side; 2], Box::new(same), SCHEME);
    let image = image.expect("an image");
    let mut push = |op: Op, inputs: &[usize]| {
        let node = graph.push(op, inputs, SCHEME, Range::FULL);
        node.expect("parts that fit")
    };
    let mut input = |seed| match channels {
        3 => image,
        _ => push(Op::Pointwise(filters(channels, 3, seed)), &[image]),
    };
    let a = input(1);
    let window = |stride| Window {
        stride,
        top: 1,
        left: 1,
        bottom: 1,
        right: 1,
    };
    let last = match kind {
        Kind::Pointwise(outputs) => push(Op::Pointwise(filters(outputs, channels, 3)), &[a]),
        Kind::Full(outputs) => push(Op::Full(filters(outputs, 9 * channels, 3), window(2)), &[a]),
        Kind::Depthwise(stride) => {
            push(Op::Depthwise(filters(channels, 9, 3), window(stride)), &[a])
        }
        Kind::Double(outputs) => {
            let quarter = filters(outputs, channels, 3);
            let weight = quarter.weight.repeat(4);
            push(Op::Double(Filters { weight, ..quarter }), &[a])
        }
        Kind::Add => {
            let b = input(2);
            push(Op::Add, &[a, b])
        }
        Kind::Upsample => push(Op::Upsample, &[a]),
        Kind::Pool => push(Op::Pool, &[a]),
    };
    Segment::new(&graph, &[last], kernel).expect("a kernel that runs here")
}

/// Filters of `depth` weights each, by which outputs spread over the bytes.
fn filters(outputs: usize, depth: usize, seed: usize) -> Filters {
    let weight = |at: usize| ((at + seed) * 37 % 255) as u8 as i8;
    Filters {
        weight: (0..outputs * depth)
            .map(|at| weight(at).max(-127))
            .collect(),
        scales: vec![0.01 / (depth as f32).sqrt(); outputs],
        bias: vec![100; outputs],
    }
}

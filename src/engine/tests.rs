//! Segments of random layers on every kernel, against a plain reading of each operator's definition.

use super::arithmetic::{Range, Scheme};
use super::noise::{Noise, cases};
use super::*;

/// A map's values, `[height, width, channels]`.
type Bytes = Vec<u8>;

/// What each node of a graph makes of an image.
fn define(graph: &Graph, image: &[u8]) -> Vec<Bytes> {
    let mut maps: Vec<Bytes> = Vec::new();
    for node in graph.nodes() {
        let inputs: Vec<(Map, &Bytes)> = node
            .inputs
            .iter()
            .map(|&input| (graph.nodes()[input].map, &maps[input]))
            .collect();
        let [height, width, channels] = node.map.shape();
        let mut map = Vec::new();
        for y in 0..height {
            for x in 0..width {
                for c in 0..channels {
                    map.push(element(node, &inputs, image, [y, x, c]));
                }
            }
        }
        maps.push(map);
    }
    maps
}

/// One value of a node's map.
fn element(node: &Node, inputs: &[(Map, &Bytes)], image: &[u8], [y, x, c]: [usize; 3]) -> u8 {
    let at = |nth: usize, y: usize, x: usize, c: usize| {
        let (map, bytes) = &inputs[nth];
        bytes[(y * map.width + x) * map.channels + c]
    };
    // Less its zero point, and 0 outside the map.
    let centred = |nth: usize, y: Option<usize>, x: Option<usize>, c: usize| {
        let (map, _) = &inputs[nth];
        match (y, x) {
            (Some(y), Some(x)) if y < map.height && x < map.width => {
                i64::from(at(nth, y, x, c)) - i64::from(map.scheme.zero)
            }
            _ => 0,
        }
    };
    let channels = |nth: usize| inputs[nth].0.channels;
    let scheme = node.map.scheme;
    let round = |scaled: f32| {
        let zero = f32::from(scheme.zero);
        let (low, high) = (f32::from(node.range.low), f32::from(node.range.high));
        (scaled.clamp(low - zero, high - zero).round_ties_even() + zero) as u8
    };
    let sum = |filters: &Filters, o: usize, products: i64| {
        let unit = inputs[0].0.scheme.scale * filters.scales[o] / scheme.scale;
        round((products + i64::from(filters.bias[o])) as f32 * unit)
    };
    let window = |window: &Window, term: &dyn Fn(usize, Option<usize>, Option<usize>) -> i64| {
        let place =
            |at: usize, tap: usize, before: usize| (at * window.stride + tap).checked_sub(before);
        let term = |tap: usize| {
            term(
                tap,
                place(y, tap / 3, window.top),
                place(x, tap % 3, window.left),
            )
        };
        (0..9).map(term).sum::<i64>()
    };
    match &node.op {
        Op::Image(table) => table[usize::from(image[(y * node.map.width + x) * 3 + c])],
        Op::Pointwise(filters) => {
            let inputs = channels(0);
            let products = (0..inputs).map(|i| {
                i64::from(filters.weight[c * inputs + i]) * centred(0, Some(y), Some(x), i)
            });
            sum(filters, c, products.sum())
        }
        Op::Full(filters, place) => {
            let inputs = channels(0);
            let products = window(place, &|tap, y, x| {
                let weight = |i: usize| i64::from(filters.weight[(c * 9 + tap) * inputs + i]);
                (0..inputs).map(|i| weight(i) * centred(0, y, x, i)).sum()
            });
            sum(filters, c, products)
        }
        Op::Depthwise(filters, place) => {
            let products = window(place, &|tap, y, x| {
                i64::from(filters.weight[c * 9 + tap]) * centred(0, y, x, c)
            });
            sum(filters, c, products)
        }
        Op::Double(filters) => {
            let (inputs, outputs) = (channels(0), channels_of(node));
            let part = y % 2 * 2 + x % 2;
            let products = (0..inputs).map(|i| {
                let weight = filters.weight[(part * outputs + c) * inputs + i];
                i64::from(weight) * centred(0, Some(y / 2), Some(x / 2), i)
            });
            sum(filters, c, products.sum())
        }
        Op::Add => {
            let term = |nth: usize| {
                let multiplier = inputs[nth].0.scheme.scale / scheme.scale;
                centred(nth, Some(y), Some(x), c) as f32 * multiplier
            };
            round(term(0) + term(1))
        }
        Op::Concat => match c.checked_sub(channels(0)) {
            None => at(0, y, x, c),
            Some(c) => at(1, y, x, c),
        },
        Op::Upsample => at(0, y / 2, x / 2, c),
        Op::Pool => {
            let (map, _) = &inputs[0];
            let pixels = (0..map.height * map.width).map(|p| (p / map.width, p % map.width));
            let sum: i64 = pixels.map(|(y, x)| centred(0, Some(y), Some(x), c)).sum();
            let count = (map.height * map.width) as f32;
            round(sum as f32 * (map.scheme.scale / (count * scheme.scale)))
        }
        Op::Table(table) => table[usize::from(at(0, y, x, c))],
    }
}

fn channels_of(node: &Node) -> usize {
    node.map.channels
}

/// Scale and zero point of a map whose values spread over some hundred bytes.
fn scheme(noise: &mut Noise) -> Scheme {
    Scheme {
        scale: noise.one_of([0.01, 0.02, 0.047]),
        zero: noise.one_of([0, 7, 128, 255]),
    }
}

fn filters(noise: &mut Noise, outputs: usize, depth: usize) -> Filters {
    let scales = (0..outputs).map(|_| noise.one_of([0.004, 0.01, 0.0]) / (depth as f32).sqrt());
    Filters {
        scales: scales.collect(),
        weight: noise.weights(outputs * depth),
        bias: noise.bias(outputs),
    }
}

fn window(noise: &mut Noise) -> Window {
    let mut pad = || noise.below(2);
    let [top, left, bottom, right] = [pad(), pad(), pad(), pad()];
    Window {
        stride: 1 + noise.below(2),
        top,
        left,
        bottom,
        right,
    }
}

fn table(noise: &mut Noise) -> Box<[u8; 256]> {
    match noise.below(2) {
        // The image as it is.
        0 => Box::new(std::array::from_fn(|byte| byte as u8)),
        _ => Box::new(std::array::from_fn(|_| noise.below(256) as u8)),
    }
}

/// A graph of random layers, each on one or two of the maps before.
fn graph(noise: &mut Noise) -> Graph {
    let mut graph = Graph::default();
    let size = [1 + noise.below(14), 1 + noise.below(14)];
    let (bytes, from) = (table(noise), scheme(noise));
    graph.image(size, bytes, from).expect("an image");
    for _ in 0..1 + noise.below(12) {
        let nodes = graph.nodes().len();
        // Mostly the last one, so that chains come about.
        let input = nodes - 1 - noise.upto([1, 1, nodes]);
        let map = graph.nodes()[input].map;
        let most = if cfg!(miri) { 500 } else { 20_000 };
        if map.height * map.width * map.channels > most {
            continue;
        }
        let other = noise.below(nodes);
        let outputs = 1 + noise.upto([4, 20, 70]);
        let mut to = scheme(noise);
        let mut inputs = vec![input];
        let op = match noise.below(10) {
            0 | 1 => Op::Pointwise(filters(noise, outputs, map.channels)),
            2 => Op::Full(filters(noise, outputs, 9 * map.channels), window(noise)),
            3 | 4 => Op::Depthwise(filters(noise, map.channels, 9), window(noise)),
            5 => {
                let mut filters = filters(noise, outputs, map.channels);
                filters.weight = noise.weights(4 * outputs * map.channels);
                Op::Double(filters)
            }
            6 => {
                inputs.push(other);
                Op::Add
            }
            7 => {
                inputs.push(other);
                to = map.scheme;
                Op::Concat
            }
            8 => {
                to = map.scheme;
                Op::Upsample
            }
            _ if noise.below(3) == 0 => Op::Pool,
            _ => Op::Table(table(noise)),
        };
        let (_, range) = noise.rounding();
        let moves = matches!(op, Op::Concat | Op::Upsample | Op::Table(_));
        let range = if moves { Range::FULL } else { range };
        // What does not fit is left out: maps of other shapes, a window larger than its map.
        let _ = graph.push(op, &inputs, to, range);
    }
    graph
}

#[test]
fn segments_compute_what_their_layers_are_defined_as() {
    let mut noise = Noise(0x1234_5678_9abc_def1);
    let mut scratch = Scratch::default();
    let mut seen = [0; 10];
    let cases = cases(400);
    for case in 0..cases {
        let graph = graph(&mut noise);
        for node in graph.nodes() {
            seen[kind(&node.op)] += 1;
        }
        let last = graph.nodes().len() - 1;
        let outputs = [last, noise.below(last + 1)];
        let [height, width, _] = graph.nodes()[0].map.shape();
        let image = noise.bytes(height * width * 3);
        let want = define(&graph, &image);
        for kernel in kernels() {
            let segment = Segment::new(&graph, &outputs, kernel).expect("runnable");
            // Memory that another segment has used, and then this one. Miri has objections to what rayon stands on.
            for threads in [1, if cfg!(miri) { 1 } else { 2 + case % 4 }] {
                let take = |nth: usize, bytes: &[u8], pixel: usize| {
                    let channels = graph.nodes()[outputs[nth]].map.channels;
                    let pixels = bytes.chunks_exact(pixel);
                    let found: Bytes = pixels.flat_map(|p| p[..channels].to_vec()).collect();
                    assert!(
                        found == want[outputs[nth]],
                        "{kernel} in case {case}: {graph:?}"
                    );
                };
                let share = |_| threads;
                segment.run_shared(&image, &mut scratch, &share, |_| {}, take);
            }
        }
    }
    assert!(seen.iter().all(|&count| count > cases / 20), "{seen:?}");
}

fn kind(op: &Op) -> usize {
    match op {
        Op::Image(_) => 0,
        Op::Pointwise(_) => 1,
        Op::Full(..) => 2,
        Op::Depthwise(..) => 3,
        Op::Double(_) => 4,
        Op::Add => 5,
        Op::Concat => 6,
        Op::Upsample => 7,
        Op::Pool => 8,
        Op::Table(_) => 9,
    }
}

#[test]
fn layers_that_do_not_fit_are_refused() {
    let unit = Scheme {
        scale: 1.0,
        zero: 0,
    };
    let mut graph = Graph::default();
    let identity = || Box::new(std::array::from_fn(|byte| byte as u8));
    assert!(graph.image([0, 4], identity(), unit).is_err());
    let image = graph.image([4, 4], identity(), unit).expect("fits");
    let filters = |weight: Vec<i8>, scale: f32, bias: i32| Filters {
        weight,
        scales: vec![scale],
        bias: vec![bias],
    };
    let mut push = |op, inputs: &[usize], to| graph.push(op, inputs, to, Range::FULL);
    let good = filters(vec![1, 2, 3], 0.1, 0);
    push(Op::Pointwise(good.clone()), &[image], unit).expect("fits");
    let window = Window {
        stride: 1,
        top: 0,
        left: 0,
        bottom: 0,
        right: 0,
    };
    let of_stride = |stride| Window { stride, ..window };
    let depthwise = Filters {
        weight: vec![1; 27],
        scales: vec![0.1; 3],
        bias: vec![0; 3],
    };
    let scale = |scale| Scheme { scale, zero: 0 };
    let refused = [
        push(Op::Pointwise(filters(vec![1, 2], 0.1, 0)), &[image], unit),
        push(
            Op::Pointwise(filters(vec![1, -128, 0], 0.1, 0)),
            &[image],
            unit,
        ),
        push(
            Op::Pointwise(filters(vec![1, 2, 3], f32::NAN, 0)),
            &[image],
            unit,
        ),
        push(
            Op::Pointwise(filters(vec![1, 2, 3], -0.1, 0)),
            &[image],
            unit,
        ),
        push(
            Op::Pointwise(filters(vec![1, 2, 3], 1e9, 0)),
            &[image],
            unit,
        ),
        push(
            Op::Pointwise(filters(vec![1, 2, 3], 1e-9, i32::MIN)),
            &[image],
            unit,
        ),
        push(Op::Pointwise(good.clone()), &[image], scale(0.0)),
        push(Op::Pointwise(good.clone()), &[image], scale(f32::INFINITY)),
        push(Op::Pointwise(good.clone()), &[image, image], unit),
        push(Op::Pointwise(good.clone()), &[], unit),
        push(
            Op::Depthwise(depthwise.clone(), of_stride(3)),
            &[image],
            unit,
        ),
        push(
            Op::Depthwise(depthwise.clone(), of_stride(0)),
            &[image],
            unit,
        ),
        push(Op::Depthwise(good.clone(), window), &[image], unit),
        push(Op::Double(good), &[image], unit),
        push(Op::Add, &[image, 1], unit),
        push(Op::Add, &[image, image], scale(1e-12)),
        push(Op::Upsample, &[image], scale(2.0)),
        push(Op::Concat, &[image, image], scale(2.0)),
    ];
    for (nth, refused) in refused.iter().enumerate() {
        assert!(refused.is_err(), "{nth}");
    }
    let two_wide = graph.push(
        Op::Depthwise(depthwise, window),
        &[image],
        unit,
        Range::FULL,
    );
    let small = two_wide.expect("fits");
    assert_eq!(graph.nodes()[small].map.shape(), [2, 2, 3]);
    let again = Filters {
        weight: vec![1; 27],
        scales: vec![0.1; 3],
        bias: vec![0; 3],
    };
    let too_small = graph.push(Op::Depthwise(again, window), &[small], unit, Range::FULL);
    assert!(too_small.is_err(), "a window larger than its map");
}

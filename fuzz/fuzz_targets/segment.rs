//! Random layers on a random image: every kernel gives the bytes of the portable one.

#![no_main]

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use shipwatch::engine::arithmetic::{Range, Scheme};
use shipwatch::engine::{Filters, Graph, Op, Scratch, Segment, Window, kernels};

/// Bytes of the largest map, so that a graph runs in milliseconds.
const LARGEST: usize = 20_000;

/// Layers of the longest graph.
const MOST: usize = 10;

fuzz_target!(|data: &[u8]| {
    let _ = compare(&mut Unstructured::new(data));
});

fn compare(input: &mut Unstructured) -> Result<()> {
    let side = |input: &mut Unstructured| input.int_in_range(1..=20);
    let size = [side(input)?, side(input)?];
    let image = bytes(input, size[0] * size[1] * 3)?;
    let (graph, outputs) = layers(input, size)?;
    let run = |kernel: &str| {
        let segment = Segment::new(&graph, &outputs, kernel).expect("runnable");
        // Memory of this segment alone, so that nothing lies beyond it.
        let mut scratch = Scratch::default();
        let mut run = || {
            let mut found = Vec::new();
            segment.run(&image, &mut scratch, |nth, bytes, pixel| {
                let channels = graph.nodes()[outputs[nth]].map.channels;
                let pixels = bytes.chunks_exact(pixel);
                found.extend(pixels.flat_map(|pixel| &pixel[..channels]));
            });
            found
        };
        let found: Vec<u8> = run();
        assert!(run() == found, "{kernel}: another time other bytes");
        found
    };
    let want = run("portable");
    for kernel in kernels() {
        assert!(run(kernel) == want, "{kernel}: {graph:?}");
    }
    Ok(())
}

/// Layers on an image of a size, and two outputs of theirs.
fn layers(input: &mut Unstructured, size: [usize; 2]) -> Result<(Graph, [usize; 2])> {
    let mut graph = Graph::default();
    let scheme = scheme(input)?;
    let table = table(input)?;
    if graph.image(size, table, scheme).is_err() {
        return Err(libfuzzer_sys::arbitrary::Error::IncorrectFormat);
    }
    for _ in 0..input.int_in_range(1..=MOST)? {
        if input.is_empty() {
            break;
        }
        // What does not fit is left out.
        let _ = layer(input, &mut graph)?;
    }
    let last = graph.nodes().len() - 1;
    let other = input.int_in_range(0..=last)?;
    Ok((graph, [last, other]))
}

fn layer(input: &mut Unstructured, graph: &mut Graph) -> Result<Option<usize>> {
    let last = graph.nodes().len() - 1;
    let x = last - input.int_in_range(0..=last)?;
    let y = input.int_in_range(0..=last)?;
    let map = graph.nodes()[x].map;
    let channels = map.channels;
    let outputs: usize = input.int_in_range(1..=80)?;
    let area = map.height * map.width;
    if 4 * area * outputs.max(channels) > LARGEST {
        return Ok(None);
    }
    let mut to = scheme(input)?;
    let mut range = Range::FULL;
    if input.arbitrary()? {
        let (a, b): (u8, u8) = input.arbitrary()?;
        (range.low, range.high) = (a.min(b), a.max(b));
    }
    let mut inputs = vec![x];
    let op = match input.int_in_range(0..=8)? {
        0 => Op::Pointwise(filters(input, outputs, channels)?),
        1 => Op::Full(filters(input, outputs, 9 * channels)?, window(input)?),
        2 => Op::Depthwise(filters(input, channels, 9)?, window(input)?),
        3 => {
            let mut filters = filters(input, outputs, channels)?;
            filters.weight = weight(input, 4 * outputs * channels)?;
            Op::Double(filters)
        }
        4 => {
            inputs.push(y);
            Op::Add
        }
        5 => {
            inputs.push(y);
            (to, range) = (map.scheme, Range::FULL);
            Op::Concat
        }
        6 => {
            (to, range) = (map.scheme, Range::FULL);
            Op::Upsample
        }
        7 => Op::Pool,
        _ => {
            range = Range::FULL;
            Op::Table(table(input)?)
        }
    };
    Ok(graph.push(op, &inputs, to, range).ok())
}

/// Bytes that repeat a few, or that differ from each other in no order.
fn bytes(input: &mut Unstructured, count: usize) -> Result<Vec<u8>> {
    let mixed: bool = input.arbitrary()?;
    let length = input.int_in_range(1..=13)?;
    let few: Vec<u8> = (0..length)
        .map(|_| input.arbitrary())
        .collect::<Result<_>>()?;
    let byte = |at: usize| {
        let mix = (at as u32).wrapping_mul(0x9e37_79b9) >> 24;
        few[at % length] ^ if mixed { mix as u8 } else { 0 }
    };
    Ok((0..count).map(byte).collect())
}

fn weight(input: &mut Unstructured, count: usize) -> Result<Vec<i8>> {
    let bytes = bytes(input, count)?;
    Ok(bytes
        .into_iter()
        .map(|byte| (byte as i8).max(-127))
        .collect())
}

fn filters(input: &mut Unstructured, outputs: usize, depth: usize) -> Result<Filters> {
    let unit = input.choose(&[0.001, 0.01, 0.1, 0.0, 1e-30, 1e4])? / (depth as f32).sqrt();
    let bias: i32 = *input.choose(&[0, 1, -700, 30_000, -(1 << 29), 1 << 29])?;
    Ok(Filters {
        weight: weight(input, outputs * depth)?,
        scales: (0..outputs)
            .map(|o| unit * (1.0 + o as f32 / 40.0))
            .collect(),
        bias: (0..outputs).map(|o| bias - 50 * o as i32).collect(),
    })
}

fn window(input: &mut Unstructured) -> Result<Window> {
    let pads: [bool; 4] = input.arbitrary()?;
    let [top, left, bottom, right] = pads.map(usize::from);
    let stride = input.int_in_range(1..=2)?;
    Ok(Window {
        stride,
        top,
        left,
        bottom,
        right,
    })
}

fn scheme(input: &mut Unstructured) -> Result<Scheme> {
    let scale = *input.choose(&[0.01, 0.02, 0.047, 1.0, 1e-20, 1e20])?;
    let zero = input.arbitrary()?;
    Ok(Scheme { scale, zero })
}

fn table(input: &mut Unstructured) -> Result<Box<[u8; 256]>> {
    // The image as it is, or other bytes.
    let xor: u8 = input.arbitrary()?;
    Ok(Box::new(std::array::from_fn(|byte| byte as u8 ^ xor)))
}

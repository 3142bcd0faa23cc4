//! What bounds each layer of a network on one core of this processor:
//! `cargo bench --bench roofline -- models/base-int8/unet.onnx`, the shipped networks if none is named.
//!
//! Three floors stand beside the least time of a layer:
//! - products: at the rate of a loop of nothing but the kernel's instruction of products, on registers;
//! - rounding: of each byte that comes out, at the rate of a layer of four products a byte whose maps fit
//!   the first-level cache, less the time of these products;
//! - memory: what the layer reads and writes (maps and weights), at the rate of copying as many bytes.
//!
//! No layer that does all three can be faster than the highest of them; the last column says how near it is.

use std::array::from_fn;
use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use shipwatch::engine::arithmetic::{Range, Scheme};
use shipwatch::engine::{Filters, Graph, Op, Scratch, Segment, Summary};
use shipwatch::inference::Network;

const SHIPPED: [&str; 2] = ["models/base-int8/gate.onnx", "models/base-int8/unet.onnx"];

/// Each thing is measured so often, and its least time counts.
const ROUNDS: usize = 1000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` adds a flag of its own.
    let mut files: Vec<&str> = args.iter().map(String::as_str).collect();
    files.retain(|arg| !arg.starts_with("--"));
    if files.is_empty() {
        files = SHIPPED.to_vec();
    }
    for file in files {
        let bytes = fs::read(file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let values = from_fn(|byte| (byte as f32 - 128.0) / 128.0);
        let network = Network::from_onnx(&bytes, &values).unwrap_or_else(|e| panic!("{file}: {e}"));
        match network.engine().kernel.map(|kernel| (kernel, peak(kernel))) {
            Some((kernel, Some(peak))) => table(file, &network, kernel, peak),
            Some((kernel, None)) => {
                println!("{file}: SKIPPED, no loop measures what bounds {kernel}")
            }
            None => println!("{file}: SKIPPED, the int8 engine runs nothing of it"),
        }
    }
}

fn table(file: &str, network: &Network, kernel: &str, peak: f64) {
    let rounding = rounding(kernel, peak);
    println!(
        "{file}: {kernel}, {peak:.0} billion multiply-accumulates a second at most, {rounding:.1} billion \
         bytes rounded\n"
    );
    println!(
        "| layer | in | out | us | products | rounding | memory | GMAC/s | of the highest floor |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut sums = [0.0; 6];
    let shape = |shape: [usize; 3]| shape.map(|size| size.to_string()).join("x");
    for (layer, time) in network.layers().iter().zip(times(network)) {
        let outputs = bytes(layer.output);
        // What no sum of products or of maps makes is moved as it is.
        let rounds = layer.products > 0 || layer.name == "add";
        let moved = reads(layer) + weights(layer) + outputs;
        let floors = [
            layer.products as f64 / peak / 1e3,
            if rounds {
                outputs as f64 / rounding / 1e3
            } else {
                0.0
            },
            copying(moved),
        ];
        let highest = floors.into_iter().fold(0.0, f64::max);
        let [products, rounding, memory] = floors.map(|floor| format!("{floor:.1}"));
        println!(
            "| {} | {} | {} | {time:.1} | {products} | {rounding} | {memory} | {} | {:.0} % |",
            layer.name,
            shape(layer.input),
            shape(layer.output),
            rate(layer.products as f64, time),
            100.0 * (highest / time).min(1.0),
        );
        let [a, b, c] = floors;
        let of_layer = [time, a, b, c, layer.products as f64, highest.min(time)];
        sums = from_fn(|nth| sums[nth] + of_layer[nth]);
    }
    let [time, a, b, c, products, highest] = sums;
    println!(
        "| all | | | {time:.1} | {a:.1} | {b:.1} | {c:.1} | {} | {:.0} % |\n\n{:.0} % of the most products\n",
        rate(products, time),
        100.0 * highest / time,
        100.0 * a / time
    );
}

/// Billions a second, of what took microseconds.
fn rate(count: f64, microseconds: f64) -> String {
    match count {
        0.0 => "-".to_owned(),
        count => format!("{:.0}", count / microseconds / 1e3),
    }
}

fn bytes(shape: [usize; 3]) -> usize {
    shape.iter().product()
}

/// Bytes of the maps that a layer reads.
fn reads(layer: &Summary) -> usize {
    match layer.name {
        "add" => 2 * bytes(layer.input),
        "concatenate" => bytes(layer.output),
        _ => bytes(layer.input),
    }
}

/// Weights, each of which meets every place of a map.
fn weights(layer: &Summary) -> usize {
    let [height, width, _] = match layer.name {
        "transposed 2x2" => layer.input,
        _ => layer.output,
    };
    layer.products as usize / (height * width)
}

/// The least time of each layer, in microseconds.
fn times(network: &Network) -> Vec<f64> {
    let image: Vec<u8> = (0..3 * network.side().pow(2))
        .map(|at| (at * 37 / 8) as u8)
        .collect();
    let mut least = vec![Duration::MAX; network.layers().len()];
    for _ in 0..ROUNDS {
        let mut before = Instant::now();
        let watched = network.watch_layers(&image, |nth| {
            let after = Instant::now();
            least[nth] = least[nth].min(after - before);
            before = after;
        });
        watched.expect("an image of the network's size");
    }
    least
        .into_iter()
        .map(|time| 1e6 * time.as_secs_f64())
        .collect()
}

/// The least time of `work`, in microseconds.
fn least(rounds: usize, mut work: impl FnMut()) -> f64 {
    let mut time = || {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    let least = (0..rounds).map(|_| time()).min().expect("a round");
    1e6 * least.as_secs_f64()
}

/// Microseconds in which this core reads half of `moved` bytes and writes the other half.
fn copying(moved: usize) -> f64 {
    let (from, mut to) = (vec![1u8; moved / 2], vec![0u8; moved / 2]);
    least(ROUNDS / 5, || {
        to.copy_from_slice(black_box(&from));
        black_box(&mut to);
    })
}

/// Billions of bytes that the kernel rounds in a second.
fn rounding(kernel: &str, peak: f64) -> f64 {
    const SIDE: usize = 14;
    const CHANNELS: usize = 64;
    let scheme = Scheme {
        scale: 0.02,
        zero: 128,
    };
    let filters = |depth: usize, outputs: usize| Filters {
        weight: (0..depth * outputs)
            .map(|at| (at * 37 % 255) as u8 as i8 / 2)
            .collect(),
        scales: vec![0.01; outputs],
        bias: vec![100; outputs],
    };
    let mut graph = Graph::default();
    let same = Box::new(from_fn(|byte| byte as u8));
    let mut last = graph.image([SIDE; 2], same, scheme).expect("an image");
    for (depth, outputs) in [(3, 4), (4, CHANNELS)] {
        let op = Op::Pointwise(filters(depth, outputs));
        last = graph.push(op, &[last], scheme, Range::FULL).expect("fits");
    }
    let segment = Segment::new(&graph, &[last], kernel).expect("a kernel that runs here");
    let image = vec![140; SIDE * SIDE * 3];
    let (mut scratch, mut least) = (Scratch::default(), Duration::MAX);
    for _ in 0..20 * ROUNDS {
        let mut before = Instant::now();
        let watch = |node| match node == last {
            true => least = least.min(before.elapsed()),
            false => before = Instant::now(),
        };
        segment.run_watched(&image, &mut scratch, watch, |_, map, _| {
            black_box(map);
        });
    }
    let outputs = (SIDE * SIDE * CHANNELS) as f64;
    let products = 4.0 * outputs / peak / 1e3;
    outputs / (1e6 * least.as_secs_f64() - products) / 1e3
}

/// Billions of multiply-accumulates a second of a loop of nothing else; none if it is not written for the
/// kernel.
fn peak(kernel: &str) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    match kernel {
        "avx512-vnni" => return Some(x86::avx512_peak()),
        "avx2" => return Some(x86::avx2_peak()),
        _ => {}
    }
    let _ = kernel;
    None
}

#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "instructions of which only some processors know"
)]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::array::from_fn;
    use std::hint::black_box;

    use super::{ROUNDS, least};

    /// Passes over all sums in a round.
    const PASSES: usize = 10_000;

    /// Sums at a time: more than an instruction takes cycles, times the instructions that begin in one.
    const SUMS: usize = 12;

    pub(super) fn avx512_peak() -> f64 {
        // SAFETY: the engine runs this kernel here, which needs the same instructions.
        let time = least(ROUNDS / 10, || unsafe { avx512() });
        (PASSES * SUMS * 64) as f64 / time / 1e3
    }

    pub(super) fn avx2_peak() -> f64 {
        // SAFETY: as above.
        let time = least(ROUNDS / 10, || unsafe { avx2() });
        (PASSES * SUMS * 16) as f64 / time / 1e3
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn avx512() {
        let (a, b) = (
            black_box(_mm512_set1_epi8(3)),
            black_box(_mm512_set1_epi8(5)),
        );
        let mut sums: [__m512i; SUMS] = from_fn(|_| _mm512_setzero_si512());
        for _ in 0..PASSES {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        black_box(sums);
    }

    /// Products of words, two of which are added: no instruction of AVX2 multiplies bytes without saturating.
    #[target_feature(enable = "avx2")]
    fn avx2() {
        let (a, b) = (
            black_box(_mm256_set1_epi16(3)),
            black_box(_mm256_set1_epi16(5)),
        );
        let mut sums: [__m256i; SUMS] = from_fn(|_| _mm256_setzero_si256());
        for _ in 0..PASSES {
            for sum in &mut sums {
                let mut a = a;
                // The same bytes, of which the compiler knows nothing: it would take the product out of the loop.
                // SAFETY: no instruction at all.
                unsafe {
                    asm!("/* {0} */", inout(ymm_reg) a, options(nomem, nostack, preserves_flags));
                }
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(a, b));
            }
        }
        black_box(sums);
    }
}

//! The layers of a network that the engine runs, one by one.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;
use shipwatch::engine::Summary;
use shipwatch::inference::{InferenceError, Network};

use super::figures::{milliseconds, timed};
use super::table::{self, row};

/// A layer and the least time that it took.
#[derive(Debug, Serialize)]
pub(super) struct Layer {
    name: &'static str,
    /// Height, width and channels.
    input: [usize; 3],
    output: [usize; 3],
    min_us: f64,
    multiply_accumulates: u64,
}

/// Runs the layers on an image, again and again.
pub(super) fn measure(
    network: &Network,
    image: &[u8],
    length: Duration,
) -> Result<Vec<Layer>, InferenceError> {
    let layers = network.layers();
    let mut least = vec![Duration::MAX; layers.len()];
    timed(length, || {
        let mut before = Instant::now();
        network.watch_layers(image, |nth| {
            let after = Instant::now();
            least[nth] = least[nth].min(after - before);
            before = after;
        })
    })?;
    let layers = layers.iter().zip(least);
    let layers = layers.map(|(layer, least)| {
        let &Summary {
            name,
            input,
            output,
            products,
        } = layer;
        Layer {
            name,
            input,
            output,
            min_us: 1e3 * milliseconds(least),
            multiply_accumulates: products,
        }
    });
    Ok(layers.collect())
}

/// A table of the layers, and below it the sums of each kind.
pub(super) fn write(f: &mut impl fmt::Write, layers: &[Layer]) -> fmt::Result {
    let head = ["layer", "in", "out", "us, least", "million MACs", "GMAC/s"];
    let mut rows = vec![row(head)];
    let mut kinds: BTreeMap<&str, (f64, u64)> = BTreeMap::new();
    for (nth, layer) in layers.iter().enumerate() {
        let (us, products) = (layer.min_us, layer.multiply_accumulates);
        let name = format!("{nth:>3} {}", layer.name);
        rows.push(cells(
            name,
            [layer.input, layer.output].map(shape),
            us,
            products,
        ));
        let kind = kinds.entry(layer.name).or_default();
        *kind = (kind.0 + us, kind.1 + products);
    }
    let all = kinds.values().fold((0.0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    for (name, (us, products)) in kinds.into_iter().chain([("all", all)]) {
        rows.push(cells(
            format!("    {name}"),
            Default::default(),
            us,
            products,
        ));
    }
    table::write(f, &rows)
}

fn cells(name: String, [input, output]: [String; 2], us: f64, products: u64) -> Vec<String> {
    // Thousands of them each microsecond are milliards each second.
    let rate = match products {
        0 => "-".to_owned(),
        _ => format!("{:.1}", products as f64 / us / 1e3),
    };
    let millions = format!("{:.2}", products as f64 / 1e6);
    vec![name, input, output, format!("{us:.1}"), millions, rate]
}

fn shape(shape: [usize; 3]) -> String {
    shape.map(|size| size.to_string()).join("x")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_summed_by_kind() {
        let layer = |name, min_us, multiply_accumulates| Layer {
            name,
            input: [4, 4, 3],
            output: [2, 2, 8],
            min_us,
            multiply_accumulates,
        };
        let layers = [
            layer("pointwise 1x1", 20.0, 1_000_000),
            layer("add", 0.5, 0),
            layer("pointwise 1x1", 5.0, 500_000),
        ];
        let mut text = String::new();
        write(&mut text, &layers).expect("a string takes all");
        let wanted = "\
layer                 in    out  us, least  million MACs  GMAC/s
  0 pointwise 1x1  4x4x3  2x2x8       20.0          1.00    50.0
  1 add            4x4x3  2x2x8        0.5          0.00       -
  2 pointwise 1x1  4x4x3  2x2x8        5.0          0.50   100.0
    add                                0.5          0.00       -
    pointwise 1x1                     25.0          1.50    60.0
    all                               25.5          1.50    58.8
";
        assert_eq!(text, wanted);
    }
}

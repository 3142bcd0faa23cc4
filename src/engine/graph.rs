//! What a segment computes: layers over maps of bytes.

use std::fmt;

use super::arithmetic::{Range, Scheme};

/// Largest side of a map and most channels: sizes stay far from any overflow.
const MOST: usize = 1 << 14;

/// Largest map, in bytes, and all maps together, with the padding that a plan may add, and all weights.
const LARGEST: usize = 1 << 28;
const ALL: usize = 1 << 30;

/// Most layers: plans take time that grows with their square.
const LAYERS: usize = 1 << 12;

/// Bytes of a map, `[height, width, channels]` in row-major order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Map {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channels.
    pub channels: usize,
    /// What the bytes stand for.
    pub scheme: Scheme,
}

/// Weight and bias of a convolution.
#[derive(Debug, Clone, PartialEq)]
pub struct Filters {
    /// `[outputs, height, width, inputs]` in row-major order, of a depthwise one `[outputs, height,
    /// width]`; -127 to 127.
    pub weight: Vec<i8>,
    /// What a step of the weight is worth, for each output.
    pub scales: Vec<f32>,
    /// In units of input scale times weight scale, for each output.
    pub bias: Vec<i32>,
}

/// Where a 3x3 window lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Step from one output to the next, 1 or 2.
    pub stride: usize,
    /// Rows of zeros above the map, 0 or 1.
    pub top: usize,
    /// Columns of zeros left of it, 0 or 1.
    pub left: usize,
    /// Rows of zeros below it, 0 or 1.
    pub bottom: usize,
    /// Columns of zeros right of it, 0 or 1.
    pub right: usize,
}

/// An operator.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// The segment's input, bytes `[height, width, 3]`, by a table.
    Image(Box<[u8; 256]>),
    /// 1x1 convolution.
    Pointwise(Filters),
    /// 3x3 convolution.
    Full(Filters, Window),
    /// 3x3 convolution of each channel by itself.
    Depthwise(Filters, Window),
    /// 2x2 transposed convolution of stride 2; the weight is `[2, 2, outputs, inputs]`.
    Double(Filters),
    /// Sum of two maps.
    Add,
    /// Two maps, one's channels behind the other's; all of one scheme.
    Concat,
    /// Each pixel four times; of one scheme.
    Upsample,
    /// Mean of each channel.
    Pool,
    /// Each byte by a table.
    Table(Box<[u8; 256]>),
}

/// An operator in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What is computed.
    pub op: Op,
    /// Of which nodes; all come before.
    pub inputs: Vec<usize>,
    /// What comes out.
    pub map: Map,
    /// The bytes that it may write; all of them where bytes are only moved or looked up.
    pub range: Range,
}

/// Why a layer cannot be part of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(pub &'static str);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Refusal {}

/// Layers in an order in which they can be computed. All that a kernel relies on holds of them: sizes fit,
/// scales are positive numbers, sums stay within i32 and their bytes within i32 before they are clamped.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Graph {
    nodes: Vec<Node>,
    /// Of all maps and weights.
    bytes: usize,
}

impl Graph {
    /// The layers.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Adds the segment's input; more than once if its bytes are put into maps in more than one way.
    ///
    /// # Errors
    /// If it has no pixels or too many, or another size than before.
    pub fn image(
        &mut self,
        [height, width]: [usize; 2],
        table: Box<[u8; 256]>,
        scheme: Scheme,
    ) -> Result<usize, Refusal> {
        let map = Map {
            height,
            width,
            channels: 3,
            scheme,
        };
        let images = self
            .nodes
            .iter()
            .filter(|node| matches!(node.op, Op::Image(_)));
        let mut shapes = images.map(|node| node.map.shape());
        check(shapes.all(|shape| shape == map.shape()), "one image")?;
        self.keep(Op::Image(table), &[], map, Range::FULL)
    }

    /// Adds a layer on maps of earlier ones.
    ///
    /// # Errors
    /// If the parts do not fit each other.
    ///
    /// # Panics
    /// If an input is no node yet.
    pub fn push(
        &mut self,
        op: Op,
        inputs: &[usize],
        scheme: Scheme,
        range: Range,
    ) -> Result<usize, Refusal> {
        let maps: Vec<Map> = inputs.iter().map(|&input| self.nodes[input].map).collect();
        let map = match (&op, &maps[..]) {
            (Op::Pointwise(filters), &[x]) => {
                let channels = convolves(filters, x.channels, x.scheme, scheme)?;
                Map { channels, ..x }
            }
            (Op::Full(filters, window), &[x]) => {
                let channels = convolves(filters, 9 * x.channels, x.scheme, scheme)?;
                let (height, width) = window.over(x)?;
                Map {
                    height,
                    width,
                    channels,
                    ..x
                }
            }
            (Op::Depthwise(filters, window), &[x]) => {
                let channels = convolves(filters, 9, x.scheme, scheme)?;
                check(channels == x.channels, "a filter for each channel")?;
                let (height, width) = window.over(x)?;
                Map { height, width, ..x }
            }
            (Op::Double(filters), &[x]) => {
                let outputs = filters.bias.len();
                // Each of the four parts by itself.
                let values = filters.weight.len();
                check(
                    outputs > 0 && values == 4 * outputs * x.channels,
                    "a weight of 2x2",
                )?;
                for part in filters.weight.chunks_exact(values / 4) {
                    let part = Filters {
                        weight: part.to_vec(),
                        ..filters.clone()
                    };
                    convolves(&part, x.channels, x.scheme, scheme)?;
                }
                Map {
                    height: 2 * x.height,
                    width: 2 * x.width,
                    channels: outputs,
                    scheme,
                }
            }
            (Op::Add, &[a, b]) => {
                check(a.shape() == b.shape(), "maps of one shape")?;
                for x in [a, b] {
                    check(
                        sane(x.scheme.scale / scheme.scale, 255.0),
                        "scales of like size",
                    )?;
                }
                a
            }
            (Op::Concat, &[a, b]) => {
                let like = a.height == b.height && a.width == b.width;
                check(like, "maps of one size")?;
                check(
                    a.scheme == scheme && b.scheme == scheme,
                    "maps of one scheme",
                )?;
                Map {
                    channels: a.channels + b.channels,
                    ..a
                }
            }
            (Op::Upsample, &[x]) => {
                check(x.scheme == scheme, "one scheme")?;
                Map {
                    height: 2 * x.height,
                    width: 2 * x.width,
                    ..x
                }
            }
            (Op::Pool, &[x]) => {
                let pixels = x.height * x.width;
                check(pixels <= 1 << 22, "fewer pixels")?;
                let most = 255.0 * pixels as f32;
                check(
                    sane(mean_multiplier(x, scheme), most),
                    "scales of like size",
                )?;
                Map {
                    height: 1,
                    width: 1,
                    ..x
                }
            }
            (Op::Table(_), &[x]) => x,
            _ => return Err(Refusal("another number of inputs")),
        };
        self.keep(op, inputs, Map { scheme, ..map }, range)
    }

    /// A node, and what each byte of its map stands for at `output`: tables between them need not be run, for
    /// whoever reads values looks them up in one of all.
    ///
    /// # Panics
    /// If the output is no node.
    pub fn values(&self, output: usize) -> (usize, [f32; 256]) {
        let scheme = self.nodes[output].map.scheme;
        let mut values = std::array::from_fn(|byte| scheme.dequantize(byte as u8));
        let mut node = output;
        while let Op::Table(table) = &self.nodes[node].op {
            values = table.map(|byte| values[usize::from(byte)]);
            node = self.nodes[node].inputs[0];
        }
        (node, values)
    }

    /// The layers that `outputs` need, and the numbers of these among them.
    ///
    /// # Panics
    /// If an output is no node.
    pub fn trimmed(&self, outputs: &[usize]) -> (Self, Vec<usize>) {
        let mut needed = vec![false; self.nodes.len()];
        for &output in outputs {
            needed[output] = true;
        }
        for (at, node) in self.nodes.iter().enumerate().rev() {
            if needed[at] {
                node.inputs.iter().for_each(|&input| needed[input] = true);
            }
        }
        let number = |node: usize| needed[..node].iter().filter(|&&needed| needed).count();
        let nodes = self.nodes.iter().zip(&needed);
        let nodes = nodes.filter(|(_, needed)| **needed).map(|(node, _)| Node {
            inputs: node.inputs.iter().map(|&input| number(input)).collect(),
            ..node.clone()
        });
        let nodes = nodes.collect();
        let bytes = self.bytes;
        (
            Self { nodes, bytes },
            outputs.iter().map(|&o| number(o)).collect(),
        )
    }

    fn keep(&mut self, op: Op, inputs: &[usize], map: Map, range: Range) -> Result<usize, Refusal> {
        let Map {
            height,
            width,
            channels,
            scheme,
        } = map;
        let sizes = [height, width, channels];
        check(sizes.iter().all(|size| (1..=MOST).contains(size)), "a size")?;
        // A product of all three would overflow where a word has 32 bits.
        check(height * width <= LARGEST / (channels + 3), "a smaller map")?;
        let bytes = self.bytes + height * width * (channels + 3) + op.bytes();
        check(bytes <= ALL, "smaller maps and weights")?;
        check(self.nodes.len() < LAYERS, "fewer layers")?;
        check(scheme.scale.is_normal() && scheme.scale > 0.0, "a scale")?;
        check(range.low <= range.high, "a range")?;
        let moves = matches!(op, Op::Image(_) | Op::Table(_) | Op::Concat | Op::Upsample);
        check(!moves || range == Range::FULL, "the whole range")?;
        self.bytes = bytes;
        self.nodes.push(Node {
            op,
            inputs: inputs.to_vec(),
            map,
            range,
        });
        Ok(self.nodes.len() - 1)
    }
}

impl Op {
    /// Bytes of its weight.
    fn bytes(&self) -> usize {
        match self {
            Self::Pointwise(filters)
            | Self::Full(filters, _)
            | Self::Depthwise(filters, _)
            | Self::Double(filters) => filters.weight.len(),
            _ => 0,
        }
    }
}

impl Map {
    /// Height, width and channels.
    pub fn shape(&self) -> [usize; 3] {
        [self.height, self.width, self.channels]
    }
}

impl Window {
    /// Height and width of what a 3x3 window leaves of a map.
    fn over(self, map: Map) -> Result<(usize, usize), Refusal> {
        let pads = [self.top, self.left, self.bottom, self.right];
        check(pads.iter().all(|pad| *pad <= 1), "padding of 0 or 1")?;
        check((1..=2).contains(&self.stride), "a stride of 1 or 2")?;
        let along = |size: usize, before: usize, after: usize| {
            let places = (size + before + after).checked_sub(3);
            places.map(|places| places / self.stride + 1)
        };
        let height = along(map.height, self.top, self.bottom);
        let width = along(map.width, self.left, self.right);
        height
            .zip(width)
            .ok_or(Refusal("a map as large as the window"))
    }
}

/// What a step of an output's sum is worth in bytes: `x * w / y`, in that order.
pub(super) fn multiplier(x: Scheme, weight: f32, y: Scheme) -> f32 {
    x.scale * weight / y.scale
}

/// What a step of a channel's sum over all pixels is worth in bytes.
pub(super) fn mean_multiplier(x: Map, y: Scheme) -> f32 {
    x.scheme.scale / ((x.height * x.width) as f32 * y.scale)
}

/// Checks a convolution of `depth` products for each output, and counts the outputs.
fn convolves(filters: &Filters, depth: usize, x: Scheme, y: Scheme) -> Result<usize, Refusal> {
    let Filters {
        weight,
        scales,
        bias,
    } = filters;
    let outputs = bias.len();
    check(
        outputs > 0 && scales.len() == outputs && weight.len() == outputs * depth,
        "a weight, a scale and a bias for each output",
    )?;
    for ((weight, &scale), &bias) in weight.chunks_exact(depth).zip(scales).zip(bias) {
        // -128 has no negative in a byte, which some kernels take.
        check(weight.iter().all(|&w| w != i8::MIN), "weights from -127")?;
        let most = weight
            .iter()
            .map(|w| u64::from(w.unsigned_abs()))
            .sum::<u64>();
        // A bias takes the zero point's share in, and kernels may shift bytes by 128.
        let most = 511 * most + u64::from(bias.unsigned_abs());
        check(most <= i32::MAX as u64, "sums within i32")?;
        check(
            sane(multiplier(x, scale, y), most as f32),
            "scales of like size",
        )?;
    }
    Ok(outputs)
}

/// Whether sums up to `most` times `multiplier` stay within i32, two of them and a zero point too; that of a channel
/// without weights may be too small for a number.
fn sane(multiplier: f32, most: f32) -> bool {
    multiplier >= 0.0 && multiplier * most < (1u32 << 29) as f32
}

fn check(holds: bool, wanted: &'static str) -> Result<(), Refusal> {
    holds.then_some(()).ok_or(Refusal(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_and_weights_are_limited_as_maps_are() {
        let scheme = Scheme {
            scale: 1.0,
            zero: 0,
        };
        let mut graph = Graph::default();
        let table = Box::new(std::array::from_fn(|byte| byte as u8));
        let image = graph.image([1, 1], table, scheme).expect("fits");
        let filters = Filters {
            weight: vec![0; 15],
            scales: vec![0.0; 5],
            bias: vec![0; 5],
        };
        let mut push = |op: Op| graph.push(op, &[image], scheme, Range::FULL);
        push(Op::Pointwise(filters)).expect("fits");
        // Maps of 3 and 5 channels with 3 bytes of padding each.
        assert_eq!(graph.bytes, 6 + 8 + 15);
        let mut push = |op: Op| graph.push(op, &[image], scheme, Range::FULL);
        let more = (0..LAYERS).take_while(|_| push(Op::Upsample).is_ok());
        assert_eq!(more.count(), LAYERS - 2);
    }
}

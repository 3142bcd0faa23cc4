//! Small networks of every operator that the engine has.

use shipwatch::inference::onnx::{ByteFilters, Bytes, Filters, GraphBuilder};

use super::mangle::Noise;

/// Pixels along a side of the image.
const SIDE: usize = 16;

/// Scale of most maps.
const SCALE: f32 = 6.0 / 255.0;

/// What bytes of an image stand for.
pub fn values() -> [f32; 256] {
    std::array::from_fn(|byte| (byte as f32 - 128.0) / 128.0)
}

/// A U-Net `[1, 3, 16, 16] -> [1, 1, 16, 16]`, and a gate `[1, 3, 16, 16] -> [1, 1]`.
pub fn networks() -> [Vec<u8>; 2] {
    [unet(), gate()]
}

fn unet() -> Vec<u8> {
    let mut net = Net::new();
    let stem = net.stem();
    let x = net.pointwise("expand", &stem, [8, 6], 100);
    let y = net.depthwise("residual", &x, 6, 1, [1; 4]);
    let a = net.graph.dequantize("add.in0", &x);
    let b = net.graph.dequantize("add.in1", &y);
    let sum = net.graph.add("add", &a, &b);
    let sum = net.graph.quantize(&sum, 1.5 * SCALE, 110);
    let low = net.depthwise("low", &sum, 6, 2, [0, 0, 1, 1]);
    let low = net.double("twice", &low, [6, 4]);
    // Another scheme than what it is joined with.
    let x = net.graph.dequantize("join.in0", &low);
    let y = net.graph.dequantize("join.in1", &sum);
    let joined = net.graph.concat("join", &x, &y);
    let joined = net.graph.quantize(&joined, 1.5 * SCALE, 110);
    let x = net.full("mix", &joined, [10, 5], 1, [1; 4], 1.5 * SCALE);
    let x = net.graph.dequantize("up.in", &x);
    let x = net.graph.upsample_2x("up", &x);
    let x = net.graph.quantize(&x, SCALE, 128);
    let logits = net.pointwise("head", &x, [5, 1], 128);
    let output = net.probability(&logits);
    let output = net.graph.dequantize("output", &output);
    net.graph.finish("unet", &output, &[1, 1, SIDE, SIDE], &[])
}

fn gate() -> Vec<u8> {
    let mut net = Net::new();
    let x = net.stem();
    let x = net.pointwise("expand", &x, [8, 6], 100);
    let x = net.graph.dequantize("pool.in", &x);
    let x = net.graph.global_average_pool("pool", &x);
    let x = net.graph.quantize(&x, SCALE, 128);
    let x = net.pointwise("head", &x, [6, 1], 128);
    let x = net.probability(&x);
    let x = net.graph.dequantize("flat.in", &x);
    let output = net.graph.flatten("output", &x);
    net.graph.finish("gate", &output, &[1, 1], &[])
}

/// A network in the making.
struct Net {
    graph: GraphBuilder,
    noise: Noise,
}

impl Net {
    fn new() -> Self {
        let (graph, noise) = (GraphBuilder::default(), Noise::new(1));
        Self { graph, noise }
    }

    /// The image, and two convolutions with a ReLU6 behind them.
    fn stem(&mut self) -> Bytes {
        let image = self.graph.input("image", &[1, 3, SIDE, SIDE]);
        let image = self.graph.quantize(&image, 1.0 / 128.0, 128);
        let x = self.graph.dequantize("stem.in", &image);
        let filters = self.filters([8, 3, 3, 3], 8, 27, 4.0);
        let filters = Filters::Bytes {
            filters: &filters,
            input_scale: 1.0 / 128.0,
        };
        let x = self.graph.conv("stem", &x, filters, 2, [0, 0, 1, 1]);
        let x = self.graph.relu6("stem.relu", &x);
        let x = self.graph.quantize(&x, SCALE, 0);
        self.depthwise("apart", &x, 8, 1, [1; 4])
    }

    /// Random filters by which values spread about as far as those of their input.
    fn filters(
        &mut self,
        shape: [usize; 4],
        outputs: usize,
        depth: usize,
        gain: f32,
    ) -> ByteFilters {
        let count = shape.iter().product();
        let scale = gain / (73.0 * (depth as f32).sqrt());
        ByteFilters {
            shape: shape.to_vec(),
            bytes: (0..count)
                .map(|_| (self.noise.byte() as i8).max(-127))
                .collect(),
            scales: (0..outputs)
                .map(|o| scale * (1.0 + o as f32 / 20.0))
                .collect(),
            bias: (0..outputs)
                .map(|_| self.noise.below(2000) as i32 - 1000)
                .collect(),
        }
    }

    fn full(
        &mut self,
        name: &str,
        x: &Bytes,
        [inputs, outputs]: [usize; 2],
        stride: usize,
        pads: [usize; 4],
        input_scale: f32,
    ) -> Bytes {
        let x = self.graph.dequantize(&format!("{name}.in"), x);
        let filters = self.filters([outputs, inputs, 3, 3], outputs, 9 * inputs, 1.0);
        let filters = Filters::Bytes {
            filters: &filters,
            input_scale,
        };
        let x = self.graph.conv(name, &x, filters, stride, pads);
        self.graph.quantize(&x, SCALE, 128)
    }

    fn depthwise(
        &mut self,
        name: &str,
        x: &Bytes,
        channels: usize,
        stride: usize,
        pads: [usize; 4],
    ) -> Bytes {
        let x = self.graph.dequantize(&format!("{name}.in"), x);
        let filters = self.filters([channels, 1, 3, 3], channels, 9, 1.0);
        let filters = Filters::Bytes {
            filters: &filters,
            input_scale: SCALE,
        };
        let x = self.graph.conv(name, &x, filters, stride, pads);
        self.graph.quantize(&x, SCALE, 120)
    }

    fn pointwise(
        &mut self,
        name: &str,
        x: &Bytes,
        [inputs, outputs]: [usize; 2],
        zero: u8,
    ) -> Bytes {
        let x = self.graph.dequantize(&format!("{name}.in"), x);
        let filters = self.filters([outputs, inputs, 1, 1], outputs, inputs, 1.0);
        let filters = Filters::Bytes {
            filters: &filters,
            input_scale: SCALE,
        };
        let x = self.graph.conv(name, &x, filters, 1, [0; 4]);
        self.graph.quantize(&x, SCALE, zero)
    }

    fn double(&mut self, name: &str, x: &Bytes, [inputs, outputs]: [usize; 2]) -> Bytes {
        let x = self.graph.dequantize(&format!("{name}.in"), x);
        let filters = self.filters([inputs, outputs, 2, 2], outputs, inputs, 1.0);
        let filters = Filters::Bytes {
            filters: &filters,
            input_scale: SCALE,
        };
        let x = self.graph.conv_transpose_2x2(name, &x, filters);
        self.graph.quantize(&x, SCALE, 128)
    }

    fn probability(&mut self, logits: &Bytes) -> Bytes {
        let x = self.graph.dequantize("sigmoid.in", logits);
        let x = self.graph.sigmoid("sigmoid", &x);
        self.graph.quantize(&x, 1.0 / 256.0, 0)
    }
}

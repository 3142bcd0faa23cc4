//! Weights in the order of a kernel, with the zero point of what comes in folded into the bias.

use super::arithmetic::Scheme;
use super::graph::{Filters, Window, multiplier};
use super::kernels::{Dense, Depthwise, Kernel, PADDED, Rounding};

/// Measures of a map.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shape {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    /// Bytes of a pixel.
    pub(super) pixel: usize,
}

/// What all convolutions of a layer share.
pub(super) struct Packing<'a> {
    pub(super) kernel: &'a dyn Kernel,
    pub(super) input: Shape,
    pub(super) output: Shape,
    /// Of input and output.
    pub(super) schemes: [Scheme; 2],
    pub(super) rounding: Rounding,
}

impl Packing<'_> {
    /// A dense convolution of a window of rows and columns; `parts` are weights `[outputs, rows, columns,
    /// inputs]` whose outputs lie side by side, each in a pixel of the output.
    pub(super) fn dense(
        &self,
        [rows, columns]: [usize; 2],
        parts: &[&[i8]],
        filters: &Filters,
    ) -> Dense {
        let (inputs, pixel) = (self.input.channels, self.input.pixel);
        // What a row's four last bytes hold beyond the window weighs nothing.
        let run = (columns * pixel).next_multiple_of(4);
        let depth = rows * run;
        let outputs = parts.len() * self.output.pixel;
        let mut weight = vec![0; outputs * depth];
        let mut bias = vec![0; outputs.next_multiple_of(PADDED)];
        let mut multipliers = vec![0.0; bias.len()];
        for (nth, part) in parts.iter().enumerate() {
            for (channel, filter) in part.chunks_exact(rows * columns * inputs).enumerate() {
                let o = nth * self.output.pixel + channel;
                let runs = weight[o * depth..][..depth].chunks_exact_mut(run);
                for (run, filter) in runs.zip(filter.chunks_exact(columns * inputs)) {
                    let pixels = run.chunks_mut(pixel);
                    for (to, from) in pixels.zip(filter.chunks_exact(inputs)) {
                        to[..inputs].copy_from_slice(from);
                    }
                }
                bias[o] = self.bias(filters.bias[channel], filter);
                multipliers[o] = self.multiplier(filters.scales[channel]);
            }
        }
        Dense {
            weight: self.kernel.pack_dense(&weight, depth),
            depth,
            outputs,
            bias,
            multipliers,
            rounding: self.rounding,
        }
    }

    pub(super) fn depthwise(&self, filters: &Filters, window: Window) -> Depthwise {
        let channels = self.output.pixel;
        let mut weight = filters.weight.clone();
        weight.resize(9 * channels, 0);
        let windows = filters.weight.chunks_exact(9).zip(&filters.bias);
        let mut bias: Vec<i32> = windows.map(|(w, &bias)| self.bias(bias, w)).collect();
        bias.resize(channels.next_multiple_of(PADDED), 0);
        let scales = filters.scales.iter();
        let mut multipliers: Vec<f32> = scales.map(|&scale| self.multiplier(scale)).collect();
        multipliers.resize(bias.len(), 0.0);
        Depthwise {
            weight: self.kernel.pack_depthwise(&weight),
            channels,
            stride: window.stride,
            left: window.left,
            padding: self.schemes[0].zero,
            bias,
            multipliers,
            rounding: self.rounding,
        }
    }

    fn multiplier(&self, scale: f32) -> f32 {
        let [input, output] = self.schemes;
        multiplier(input, scale, output)
    }

    /// A bias from which the zero point's share of the products is taken.
    fn bias(&self, bias: i32, weight: &[i8]) -> i32 {
        let sum: i32 = weight.iter().map(|&w| i32::from(w)).sum();
        bias - i32::from(self.schemes[0].zero) * sum
    }
}

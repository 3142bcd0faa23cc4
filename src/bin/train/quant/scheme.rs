//! Eight-bit numbers and what they stand for: `real = scale * (byte - zero)`.
//!
//! Feature maps have one scale and zero point each, weights one scale for each output channel and no
//! zero point (Jacob et al. 2018, "Quantization and training of neural networks for efficient
//! integer-arithmetic-only inference", with Krishnamoorthi 2018, section 2.3 for the channels).
//! Rounding is half to even, as ONNX has it.

use crate::nn::Grid;

/// Bytes of a feature map.
pub(crate) const LOWEST: f32 = 0.0;
pub(crate) const HIGHEST: f32 = 255.0;

/// Largest byte of a weight: -128 is left out, so that the negative of each weight is one, too.
pub(crate) const HEAVIEST: f32 = 127.0;

/// How the bytes of a feature map are to be read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scheme {
    /// Positive.
    pub(crate) scale: f32,
    /// The byte that stands for zero.
    pub(crate) zero: u8,
}

impl Scheme {
    /// Of an image that is normalised by [`super::BYTES`].
    pub(crate) const IMAGE: Self = Self {
        scale: 1.0 / 128.0,
        zero: 128,
    };

    /// Of probabilities: 0 to 255 / 256.
    pub(crate) const PROBABILITY: Self = Self {
        scale: 1.0 / 256.0,
        zero: 0,
    };

    /// The values that bytes stand for.
    pub(crate) fn grid(self) -> Grid {
        let at = |byte: f32| self.scale * (byte - f32::from(self.zero));
        Grid {
            step: self.scale,
            low: at(LOWEST),
            high: at(HIGHEST),
        }
    }

    /// The finest one that reaches from `low` to `high` and has a byte for zero, which both are drawn
    /// to enclose: padding is zero.
    pub(crate) fn over(low: f32, high: f32) -> Self {
        let (low, high) = (low.min(0.0), high.max(0.0));
        let scale = (high - low) / (HIGHEST - LOWEST);
        // What is always zero keeps a scale that can be divided by.
        let scale = if scale > 0.0 { scale } else { 1.0 };
        let zero = (LOWEST - low / scale).round_ties_even();
        Self {
            scale,
            zero: zero.clamp(LOWEST, HIGHEST) as u8,
        }
    }
}

/// A scale for each output channel of a weight, and the bytes. `channel` says which one an index belongs
/// to, `least` holds the smallest scale that each may have.
pub(crate) fn quantize_weight(
    weight: &[f32],
    least: &[f32],
    channel: impl Fn(usize) -> usize,
) -> (Vec<f32>, Vec<i8>) {
    let mut most = vec![0f32; least.len()];
    for (index, w) in weight.iter().enumerate() {
        let most = &mut most[channel(index)];
        *most = most.max(w.abs());
    }
    let scales: Vec<f32> = (most.iter().zip(least))
        .map(|(most, least)| (most / HEAVIEST).max(*least))
        // A channel without weights and bias keeps a scale that can be divided by.
        .map(|scale| if scale > 0.0 { scale } else { 1.0 })
        .collect();
    let byte = |(index, w): (usize, &f32)| {
        let byte = (w / scales[channel(index)]).round_ties_even();
        byte.clamp(-HEAVIEST, HEAVIEST) as i8
    };
    let bytes = weight.iter().enumerate().map(byte).collect();
    (scales, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_by_hand() {
        // 0 to 5.1 in 255 steps of 0.02.
        let relu = Scheme::over(0.0, 5.1);
        assert!((relu.scale - 0.02).abs() < 1e-9 && relu.zero == 0);
        let grid = relu.grid();
        assert_eq!((grid.step, grid.low), (relu.scale, 0.0));
        assert!((grid.high - 5.1).abs() < 1e-6);
        // -1 to 1.55 in steps of 0.01: zero is the byte 100 above the lowest.
        let linear = Scheme::over(-1.0, 1.55);
        assert_eq!(linear.zero, 100);
        let grid = linear.grid();
        assert!((grid.low + 1.0).abs() < 1e-6 && (grid.high - 1.55).abs() < 1e-6);
        // What has but positive values still has a byte for zero, and so has what has none.
        assert_eq!(Scheme::over(2.0, 3.0).zero, 0);
        assert_eq!(Scheme::over(0.0, 0.0).grid().low, 0.0);
        assert_eq!(Scheme::PROBABILITY.grid().high, 255.0 / 256.0);
        assert_eq!(
            (Scheme::IMAGE.grid().low, Scheme::IMAGE.grid().high),
            (-1.0, 127.0 / 128.0)
        );
    }

    #[test]
    fn each_channel_of_a_weight_uses_all_bytes() {
        let weight = [1.0, -2.0, 0.012, 0.02, 0.0, 0.0];
        let (scales, bytes) = quantize_weight(&weight, &[0.0; 3], |index| index / 2);
        assert_eq!(bytes, [64, -127, 76, 127, 0, 0]);
        assert_eq!(scales[2], 1.0, "a channel without weights");
        assert!((scales[0] - 2.0 / 127.0).abs() < 1e-9);
        // Outputs that lie side by side; the second may not be finer than a half.
        let (scales, bytes) = quantize_weight(&[1.27, 1.0, -1.27, 2.0], &[0.0, 0.5], |i| i % 2);
        assert_eq!(scales[1], 0.5);
        assert_eq!(bytes, [127, 2, -127, 4]);
    }
}

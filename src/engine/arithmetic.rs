//! The arithmetic that every kernel repeats to the byte.
//!
//! A convolution adds products of bytes and a bias exactly, in i32. The sum becomes a byte in five
//! steps: to f32 (rounded to nearest, ties to even), times an f32 multiplier (one rounding), clamped in
//! f32, rounded to an integer (ties to even), plus the zero point. A sum of two maps adds two such
//! products, each rounded, in f32 before the clamp. No step is contracted with the next; the clamp
//! may come last, for its bounds are integers.

/// What the bytes of a map stand for: `scale * (byte - zero)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scheme {
    /// A positive number.
    pub scale: f32,
    /// The byte that stands for 0.
    pub zero: u8,
}

/// The bytes that a layer may write, which is how a ReLU or a clip is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The least.
    pub low: u8,
    /// The greatest; not below `low`.
    pub high: u8,
}

impl Range {
    /// All bytes.
    pub const FULL: Self = Self { low: 0, high: 255 };
}

impl Scheme {
    /// The byte nearest to `value`, ties to even, as ONNX's QuantizeLinear has it; `zero` for what is no
    /// number.
    pub fn quantize(self, value: f32) -> u8 {
        let scaled = value / self.scale;
        let scaled = if scaled.is_nan() { 0.0 } else { scaled };
        (scaled.round_ties_even() + f32::from(self.zero)) as u8
    }

    /// What a byte stands for.
    pub fn dequantize(self, byte: u8) -> f32 {
        self.centred(byte) * self.scale
    }

    fn centred(self, byte: u8) -> f32 {
        f32::from(i16::from(byte) - i16::from(self.zero))
    }

    /// A table of bytes in this scheme: what `function` makes of the values of bytes in scheme `from`.
    pub fn table(self, from: Self, function: impl Fn(f32) -> f32) -> [u8; 256] {
        std::array::from_fn(|byte| self.quantize(function(from.dequantize(byte as u8))))
    }
}

/// The logistic function.
pub fn sigmoid(x: f32) -> f32 {
    // In f64, whose error is far below a step of any table.
    (1.0 / (1.0 + (-f64::from(x)).exp())) as f32
}

/// A scaled sum, which graphs keep within i32, as a byte.
#[inline]
fn to_byte(scaled: f32, zero: u8, range: Range) -> u8 {
    let (low, high) = (i32::from(range.low), i32::from(range.high));
    (nearest(scaled) + i32::from(zero)).max(low).min(high) as u8
}

/// Rounds half to even, without an instruction for it, which ARMv7 and the first x86-64 lack: beside 1.5 * 2^52 an f64
/// has no room for a fraction, and its last 32 bits are the integer.
#[inline]
fn nearest(x: f32) -> i32 {
    const BESIDE: f64 = 1.5 * (1u64 << 52) as f64;
    (f64::from(x) + BESIDE).to_bits() as i32
}

/// A convolution's sum as a byte.
#[inline]
pub(super) fn requantize(sum: i32, multiplier: f32, zero: u8, range: Range) -> u8 {
    to_byte(sum as f32 * multiplier, zero, range)
}

/// The sum of two maps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sum {
    /// Zero points of both.
    pub(super) zeros: [u8; 2],
    /// Scale of each over that of the sum.
    pub(super) multipliers: [f32; 2],
    /// Zero point of the sum.
    pub(super) zero: u8,
    pub(super) range: Range,
}

impl Sum {
    pub(super) fn of(a: Scheme, b: Scheme, out: Scheme, range: Range) -> Self {
        Self {
            zeros: [a.zero, b.zero],
            multipliers: [a.scale / out.scale, b.scale / out.scale],
            zero: out.zero,
            range,
        }
    }

    /// The byte of the sum of what two bytes stand for.
    pub(super) fn add(&self, a: u8, b: u8) -> u8 {
        let term = |nth: usize, byte: u8| {
            let centred = i16::from(byte) - i16::from(self.zeros[nth]);
            f32::from(centred) * self.multipliers[nth]
        };
        to_byte(term(0, a) + term(1, b), self.zero, self.range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_to_the_even_byte_and_what_is_beyond_to_the_ends() {
        // ONNX's own example of QuantizeLinear: scale 2, zero point 128.
        let scheme = Scheme {
            scale: 2.0,
            zero: 128,
        };
        let found = [0.0, 2.0, 3.0, 1000.0, -254.0, -1000.0].map(|x| scheme.quantize(x));
        assert_eq!(found, [128, 129, 130, 255, 1, 0]);
        let halves = [1.0, 3.0, 5.0, -1.0, -3.0].map(|x| scheme.quantize(x));
        assert_eq!(halves, [128, 130, 130, 128, 126]);
        assert_eq!(scheme.quantize(f32::NAN), 128);
        assert_eq!(scheme.quantize(f32::INFINITY), 255);
        assert_eq!(scheme.dequantize(1), -254.0);
    }

    #[test]
    fn the_nearest_integer_is_that_of_the_standard_library() {
        let step = if cfg!(miri) { 1_000_003 } else { 4_099 };
        let beyond = 2f32.powi(31).to_bits();
        for bits in (0..beyond).step_by(step) {
            for x in [f32::from_bits(bits), -f32::from_bits(bits)] {
                assert_eq!(nearest(x), x.round_ties_even() as i32, "{x}");
            }
        }
        assert_eq!([0.5, 1.5, -0.5, -1.5, 2.5].map(nearest), [0, 2, 0, -2, 2]);
    }

    #[test]
    fn sums_keep_to_their_range() {
        let range = Range { low: 10, high: 20 };
        let found = [-9000, -30, 0, 4, 5, 6, 300].map(|sum| requantize(sum, 0.5, 14, range));
        // -15, 0, 2, 2.5 to 2, 3, 150 and beyond, on 14.
        assert_eq!(found, [10, 10, 14, 16, 16, 17, 20]);
    }

    #[test]
    fn two_maps_are_added_by_what_they_stand_for() {
        let scheme = |scale, zero| Scheme { scale, zero };
        let sum = Sum::of(
            scheme(0.5, 100),
            scheme(2.0, 7),
            scheme(1.0, 30),
            Range::FULL,
        );
        // 0.5 * (103 - 100) + 2 * (9 - 7) = 5.5, to 6; 1.5 - 14 = -12.5, to -12; below and above.
        let found = [(103, 9), (103, 0), (0, 0), (255, 255)].map(|(a, b)| sum.add(a, b));
        assert_eq!(found, [36, 18, 0, 255]);
    }

    #[test]
    fn the_sigmoid_is_right_where_it_is_flat_and_where_it_is_steep() {
        for (x, y) in [(0.0, 0.5), (2.0, 0.880_797_1), (-4.0, 0.017_986_21)] {
            assert!((sigmoid(x) - y).abs() < 1e-7, "{x}");
        }
        assert_eq!((sigmoid(200.0), sigmoid(-200.0)), (1.0, 0.0));
    }
}

//! Random numbers for tests.

use super::arithmetic::Range;

/// Numbers that look random and are the same in each run (Marsaglia's xorshift).
pub(super) struct Noise(pub(super) u64);

/// Random cases that a test tries: fewer under Miri, which takes a thousand times as long for each.
pub(super) fn cases(count: usize) -> usize {
    if cfg!(miri) { count / 20 } else { count }
}

impl Noise {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 11) as usize % limit
    }

    /// A number below one of some limits: mostly small ones, some large.
    pub(super) fn upto<const N: usize>(&mut self, limits: [usize; N]) -> usize {
        // Without the largest under Miri.
        let known = if cfg!(miri) { N - 1 } else { N };
        let limit = limits[self.below(known)];
        self.below(limit)
    }

    pub(super) fn one_of<T: Copy, const N: usize>(&mut self, choices: [T; N]) -> T {
        choices[self.below(N)]
    }

    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        // Now and then all at an end, where sums are largest.
        match self.below(8) {
            0 => vec![255; count],
            1 => vec![0; count],
            _ => (0..count).map(|_| (self.next() >> 32) as u8).collect(),
        }
    }

    pub(super) fn weights(&mut self, count: usize) -> Vec<i8> {
        let weight = |byte: u64| (byte >> 32) as i8;
        match self.below(8) {
            0 => vec![127; count],
            1 => vec![-127; count],
            _ => (0..count).map(|_| weight(self.next()).max(-127)).collect(),
        }
    }

    /// Multipliers by which sums of `depth` products spread over the bytes and beyond.
    pub(super) fn multipliers(&mut self, count: usize, depth: usize) -> Vec<f32> {
        let unit = 0.002 / (depth as f32).sqrt();
        let mut multiplier = |_| match self.below(16) {
            0 => 0.0,
            1 => 60.0 * unit,
            _ => unit * (0.5 + self.below(1000) as f32 / 500.0),
        };
        (0..count).map(&mut multiplier).collect()
    }

    pub(super) fn rounding(&mut self) -> (u8, Range) {
        let zero = {
            let any = self.below(256) as u8;
            self.one_of([0, 128, 255, any])
        };
        let (a, b) = (self.below(256) as u8, self.below(256) as u8);
        let range = match self.below(3) {
            0 => Range {
                low: a.min(b),
                high: a.max(b),
            },
            _ => Range::FULL,
        };
        (zero, range)
    }

    pub(super) fn bias(&mut self, count: usize) -> Vec<i32> {
        let bias = |word: u64| (word >> 32) as i32 >> 17;
        (0..count).map(|_| bias(self.next())).collect()
    }
}

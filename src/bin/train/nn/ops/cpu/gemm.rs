//! Matrix products of one tile: operands that fit the caches, so nothing is blocked here, and the
//! right one already in groups of [`GROUP`] columns.

use aligned_vec::{AVec, avec};
use pulp::{Simd, WithSimd};

/// Columns that travel together: one AVX-512 register, two AVX2 ones, four NEON ones.
pub(super) const GROUP: usize = 16;

/// `n` rounded up to whole groups.
pub(super) fn padded(n: usize) -> usize {
    n.next_multiple_of(GROUP)
}

/// A matrix as the right operand of a product: `[groups, K, GROUP]`, zeros past the last column.
pub(super) struct Packed(AVec<f32>);

impl Packed {
    /// `rows` x `columns` values.
    pub(super) fn new(rows: usize, columns: usize, value: impl Fn(usize, usize) -> f32) -> Self {
        let mut packed = avec![0.0; rows * padded(columns)];
        for (group, block) in packed.chunks_exact_mut(rows * GROUP).enumerate() {
            let first = group * GROUP;
            for (row, to) in block.chunks_exact_mut(GROUP).enumerate() {
                for (column, to) in (first..columns).zip(to) {
                    *to = value(row, column);
                }
            }
        }
        Self(packed)
    }

    pub(super) fn operand(&self, rows: usize) -> Right<'_> {
        Right {
            values: &self.0,
            group_stride: rows * GROUP,
            row_stride: GROUP,
        }
    }
}

/// A right operand: column `GROUP * g + i` of row `k` at `g * group_stride + k * row_stride + i`.
#[derive(Clone, Copy)]
pub(super) struct Right<'a> {
    values: &'a [f32],
    group_stride: usize,
    row_stride: usize,
}

impl<'a> Right<'a> {
    /// Rows of `columns` values, a multiple of [`GROUP`].
    pub(super) fn rows(values: &'a [f32], columns: usize) -> Self {
        debug_assert!(columns.is_multiple_of(GROUP));
        Self {
            values,
            group_stride: GROUP,
            row_stride: columns,
        }
    }
}

/// A left operand: row `m`, column `k` at `m * row_stride + k * column_stride`.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub(super) values: &'a [f32],
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

/// `c = a b`, or `c += a b` where it accumulates; `c` has rows of `n` values, a multiple of
/// [`GROUP`].
pub(super) struct Product<'a> {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) a: Left<'a>,
    pub(super) b: Right<'a>,
    pub(super) c: &'a mut [f32],
    pub(super) accumulate: bool,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Registers: M * V sums, V columns, one broadcast value.
        match S::F32_LANES {
            16 => self.panels::<S, 4, 3, 2, 1>(simd),
            8 => self.panels::<S, 0, 0, 0, 2>(simd),
            4 => self.panels::<S, 0, 0, 0, 4>(simd),
            _ => self.panels::<S, 0, 0, 0, 16>(simd),
        }
    }
}

impl Product<'_> {
    /// Walks the columns in panels of four groups, or as few vectors as the names say.
    #[inline(always)]
    fn panels<S: Simd, const V4: usize, const V3: usize, const V2: usize, const V1: usize>(
        mut self,
        simd: S,
    ) {
        let groups = self.n / GROUP;
        let mut group = 0;
        while group < groups {
            let left = groups - group;
            if V4 > 0 && left >= 4 {
                self.panel::<S, 6, V4>(simd, group);
                group += 4;
            } else if V3 > 0 && left == 3 {
                self.panel::<S, 8, V3>(simd, group);
                group += 3;
            } else if V2 > 0 && left >= 2 {
                self.panel::<S, 12, V2>(simd, group);
                group += 2;
            } else if V4 > 0 {
                self.panel::<S, 12, V1>(simd, group);
                group += 1;
            } else {
                self.panel::<S, 6, V1>(simd, group);
                group += 1;
            }
        }
    }

    #[inline(always)]
    fn panel<S: Simd, const M: usize, const V: usize>(&mut self, simd: S, group: usize) {
        let mut row = 0;
        while row < self.m {
            let left = self.m - row;
            if left >= M {
                self.block::<S, M, V>(simd, row, group);
                row += M;
            } else if left >= 4 {
                self.block::<S, 4, V>(simd, row, group);
                row += 4;
            } else if left >= 2 {
                self.block::<S, 2, V>(simd, row, group);
                row += 2;
            } else {
                self.block::<S, 1, V>(simd, row, group);
                row += 1;
            }
        }
    }

    /// `M` rows by `V` vectors, summed in registers.
    #[allow(clippy::needless_range_loop)]
    #[inline(always)]
    fn block<S: Simd, const M: usize, const V: usize>(
        &mut self,
        simd: S,
        row: usize,
        group: usize,
    ) {
        let lanes = S::F32_LANES;
        let (b, _) = S::as_simd_f32s(self.b.values);
        let (c, _) = S::as_mut_simd_f32s(self.c);
        let (row_stride, c_stride) = (self.b.row_stride / lanes, self.n / lanes);
        // Loops over ranges: an iterator that is not inlined would push the sums out of registers.
        let mut b_at = [0; V];
        for v in 0..V {
            let column = v * lanes;
            b_at[v] = ((group + column / GROUP) * self.b.group_stride + column % GROUP) / lanes;
        }
        let first = row * c_stride + group * GROUP / lanes;
        let mut sums = [[simd.splat_f32s(0.0); V]; M];
        if self.accumulate {
            for m in 0..M {
                for v in 0..V {
                    sums[m][v] = c[first + m * c_stride + v];
                }
            }
        }
        let a = &self.a.values[row * self.a.row_stride..];
        let mut a_at = 0;
        for _ in 0..self.k {
            let mut columns = [simd.splat_f32s(0.0); V];
            for v in 0..V {
                columns[v] = b[b_at[v]];
                b_at[v] += row_stride;
            }
            for m in 0..M {
                let value = simd.splat_f32s(a[a_at + m * self.a.row_stride]);
                for v in 0..V {
                    sums[m][v] = simd.mul_add_f32s(value, columns[v], sums[m][v]);
                }
            }
            a_at += self.a.column_stride;
        }
        for m in 0..M {
            for v in 0..V {
                c[first + m * c_stride + v] = sums[m][v];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use pulp::Arch;

    fn value(i: usize) -> f32 {
        ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0
    }

    proptest! {
        #[test]
        fn products_are_sums_of_products(
            m in 1usize..30, n in 1usize..100, k in 1usize..20, transposed: bool, accumulate: bool,
        ) {
            let a: Vec<f32> = (0..m * k).map(value).collect();
            let (row_stride, column_stride) = if transposed { (1, m) } else { (k, 1) };
            let b = |k: usize, n: usize| value(k * 31 + n * 3 + 5);
            let width = padded(n);
            let mut c: Vec<f32> = (0..m * width).map(value).collect();
            let want = |row: usize, column: usize| {
                let start = if accumulate { value(row * width + column) } else { 0.0 };
                let terms = (0..k).map(|i| a[row * row_stride + i * column_stride] * b(i, column));
                start + terms.sum::<f32>()
            };
            let packed = Packed::new(k, n, b);
            let left = Left { values: &a, row_stride, column_stride };
            Arch::new().dispatch(Product {
                m, n: width, k, a: left, b: packed.operand(k), c: &mut c, accumulate,
            });
            for row in 0..m {
                for column in 0..n {
                    let (got, want) = (c[row * width + column], want(row, column));
                    prop_assert!((got - want).abs() < 1e-4, "{row} {column}: {got} {want}");
                }
            }
        }
    }
}

//! AArch64 with NEON's dot product of bytes, such as the Cortex-A55 and A76: four products are added to a
//! sum at once.
#![expect(
    unsafe_code,
    reason = "an instruction that `runnable` asks the processor for, and intrinsics of NEON"
)]

use std::arch::aarch64::*;
use std::arch::asm;

use super::neon::{Products, zip_bytes};

/// Products by `sdot`, whose intrinsics are unstable. As far as the compiler knows it does something beside:
/// else it would reorder what it knows no latency of, and one product would wait for another.
#[derive(Debug)]
pub(super) struct Dot;

/// Whether this processor has what [`Dot`] needs.
pub(super) fn runs() -> bool {
    std::arch::is_aarch64_feature_detected!("dotprod")
}

impl Products for Dot {
    const NAME: &'static str = "neon-dot";

    const PATCHES: usize = 5;

    fn place(sum: usize, nth: usize) -> usize {
        4 * sum + nth
    }

    #[inline(always)]
    fn spread<const STEP: i32>(x: int8x16_t) -> int8x16_t {
        x
    }

    #[inline(always)]
    fn broadcast<const STEP: i32>(
        mut sums: int32x4_t,
        weight: int8x16_t,
        x: int8x16_t,
    ) -> int32x4_t {
        // SAFETY: `runs` said that the instruction is there; it changes `sums` alone.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {sums:v}.4s, {weight:v}.16b, {x:v}.4b[{step}]",
                sums = inout(vreg) sums,
                weight = in(vreg) weight,
                x = in(vreg) x,
                step = const STEP,
                options(nomem, nostack, preserves_flags),
            );
        }
        sums
    }

    #[inline(always)]
    fn weave(rows: [int8x16_t; 4]) -> [int8x16_t; 4] {
        let pairs = zip_bytes(rows);
        // SAFETY: NEON is there.
        let fours = |upper: int16x8_t, lower: int16x8_t| unsafe {
            [vzip1q_s16(upper, lower), vzip2q_s16(upper, lower)].map(|x| vreinterpretq_s8_s16(x))
        };
        let [[a, b], [c, d]] = [0, 1].map(|half| fours(pairs[0][half], pairs[1][half]));
        [a, b, c, d]
    }

    #[inline(always)]
    fn add(mut sums: int32x4_t, weight: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: `runs` said that the instruction is there; it changes `sums` alone.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {sums:v}.4s, {weight:v}.16b, {x:v}.16b",
                sums = inout(vreg) sums,
                weight = in(vreg) weight,
                x = in(vreg) x,
                options(nomem, nostack, preserves_flags),
            );
        }
        sums
    }
}

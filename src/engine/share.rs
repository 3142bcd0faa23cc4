//! The rows of a layer among threads that have nothing else to do.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::kernels::Kernel;
use super::layer::{Layer, View};

/// Segments that run now.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Products, or bytes that are moved, of which a thread must have more to be worth waking: about ten
/// microseconds of a slow core.
const WORTHWHILE: u64 = 1 << 16;

/// Tells others that a segment runs, as long as it does.
pub(super) struct Running(());

impl Running {
    pub(super) fn begin() -> Self {
        RUNNING.fetch_add(1, Ordering::Relaxed);
        Self(())
    }

    /// Threads, this one among them, that are to compute a layer of so much `work`: no more than this one's part
    /// of the rayon pool that it belongs to, by the segments that run.
    pub(super) fn threads(&self, work: u64) -> usize {
        // Without a pool, rayon would hand the work to one that nobody asked for.
        if rayon::current_thread_index().is_none() {
            return 1;
        }
        let running = RUNNING.load(Ordering::Relaxed).max(1);
        let worthwhile = usize::try_from(work / WORTHWHILE).unwrap_or(usize::MAX);
        (rayon::current_num_threads() / running).min(worthwhile)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Rows of a layer's map, and memory for them.
pub(super) struct Part<'a> {
    pub(super) rows: Range<usize>,
    pub(super) out: &'a mut [u8],
    /// As much for each thread.
    pub(super) spare: &'a mut [u8],
}

impl Part<'_> {
    /// Computes it in so many parts of its own, at most as many as there are units of rows.
    pub(super) fn run(
        self,
        layer: &Layer,
        kernel: &dyn Kernel,
        inputs: [View<'_>; 2],
        parts: usize,
    ) {
        let Self { rows, out, spare } = self;
        if parts == 1 {
            return layer.run(kernel, rows, inputs, out, spare);
        }
        let few = parts / 2;
        let units = rows.len().div_ceil(layer.unit());
        let middle = rows.start + layer.unit() * (units * few / parts);
        let (upper, lower) = out.split_at_mut((middle - rows.start) * layer.row());
        let (left, right) = spare.split_at_mut(spare.len() / parts * few);
        let upper = Part {
            rows: rows.start..middle,
            out: upper,
            spare: left,
        };
        let lower = Part {
            rows: middle..rows.end,
            out: lower,
            spare: right,
        };
        rayon::join(
            || upper.run(layer, kernel, inputs, few),
            || lower.run(layer, kernel, inputs, parts - few),
        );
    }
}

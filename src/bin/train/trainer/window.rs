//! Speed since the last look at the tune set.

use std::time::Duration;

use burn::tensor::{Tensor, backend::Backend};

/// Time spent on steps since the last look at the tune set; looks, checkpoints and mining are not
/// counted.
pub(crate) struct Window<B: Backend> {
    /// Loss and gradient norm of the last step, `[2]`, which may still be computed.
    pub(crate) pending: Option<Tensor<B, 1>>,
    images: usize,
    waited: Duration,
    busy: Duration,
}

impl<B: Backend> Default for Window<B> {
    fn default() -> Self {
        Self {
            pending: None,
            images: 0,
            waited: Duration::ZERO,
            busy: Duration::ZERO,
        }
    }
}

impl<B: Backend> Window<B> {
    /// Counts a step that took `busy`, `waited` of it for tiles.
    pub(crate) fn add(&mut self, images: usize, waited: Duration, busy: Duration) {
        self.images += images;
        self.waited += waited;
        self.busy += busy;
    }

    /// Share of the time that steps waited for tiles.
    pub(crate) fn data_wait(&self) -> f64 {
        self.waited.as_secs_f64() / self.busy.as_secs_f64().max(1e-9)
    }

    /// Images per second.
    pub(crate) fn rate(&self) -> f64 {
        self.images as f64 / self.busy.as_secs_f64().max(1e-9)
    }
}

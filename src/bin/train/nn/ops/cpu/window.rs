//! The three padded input rows under a 3x3 window.

use aligned_vec::{AVec, avec};

/// Rows `[left + W + right, pitch]` of one image, zeros outside it; each is made once while the
/// window slides down.
pub(super) struct Window {
    rows: [AVec<f32>; 3],
    held: [Option<usize>; 3],
    zeros: AVec<f32>,
    place: Place,
    dense: Vec<f32>,
}

/// Where a row's pixels stand in its padded form.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) channels: usize,
    /// Values from one pixel to the next, at least `channels`.
    pub(super) pitch: usize,
    /// Pixels before the row's first.
    pub(super) left: usize,
    /// Pixels in all.
    pub(super) width: usize,
    /// Places from one pixel to the next; zeros are between them.
    pub(super) step: usize,
}

impl Window {
    pub(super) fn new(place: Place) -> Self {
        let row = || avec![0.0; place.width * place.pitch];
        Self {
            rows: [row(), row(), row()],
            held: [None; 3],
            zeros: row(),
            place,
            dense: Vec::new(),
        }
    }

    /// Forgets the rows: another image follows.
    pub(super) fn reset(&mut self) {
        self.held = [None; 3];
    }

    /// Makes row `index` with `fill`, which gets the row's pixels without padding, unless it is
    /// held.
    pub(super) fn load(&mut self, index: usize, width: usize, fill: impl FnOnce(&mut [f32])) {
        let slot = index % 3;
        if self.held[slot] == Some(index) {
            return;
        }
        self.held[slot] = Some(index);
        let Place {
            channels,
            pitch,
            left,
            step,
            ..
        } = self.place;
        let row = &mut self.rows[slot][left * pitch..];
        if pitch == channels && step == 1 {
            fill(&mut row[..width * channels]);
        } else {
            self.dense.resize(width * channels, 0.0);
            fill(&mut self.dense);
            let pixels = self.dense.chunks_exact(channels);
            for (to, from) in row.chunks_mut(pitch * step).zip(pixels) {
                to[..channels].copy_from_slice(from);
            }
        }
    }

    /// A row that was loaded, or zeros.
    pub(super) fn row(&self, index: Option<usize>) -> &[f32] {
        match index {
            Some(index) => {
                debug_assert_eq!(self.held[index % 3], Some(index));
                &self.rows[index % 3]
            }
            None => &self.zeros,
        }
    }
}

//! A detector with what the command line or the config chose for it.

use std::cell::RefCell;
use std::collections::HashSet;

use log::warn;
use shipwatch::clock::MonotonicClock;
use shipwatch::detect::{DetectError, Detector, Options};
use shipwatch::frame::Frame;
use shipwatch::model::Bundle;
use shipwatch::record::FrameRecord;

/// Looks at one frame after the other.
pub(crate) struct Lookout {
    detector: Detector,
    /// By source.
    options: Vec<Options>,
    clock: MonotonicClock,
    /// Of which sources, and to the nearest power of two which resolutions, was warned already.
    told: RefCell<HashSet<(usize, i64)>>,
}

impl Lookout {
    pub(crate) fn new(bundle: Bundle, options: Vec<Options>) -> Self {
        Self {
            detector: Detector::new(bundle),
            options,
            clock: MonotonicClock::new(),
            told: RefCell::default(),
        }
    }

    pub(crate) fn detector(&self) -> &Detector {
        &self.detector
    }

    /// Finds the ships of a frame of the source of that number. Frames of one run are much alike, so a warning about
    /// their resolution is given once, and again when it changes a lot.
    pub(crate) fn look(&self, source: usize, frame: &Frame) -> Result<FrameRecord, DetectError> {
        let options = &self.options[source];
        if let Some(warning) = self.detector.resolution_warning(frame, options) {
            let octave = warning.gsd().log2().round() as i64;
            if self.told.borrow_mut().insert((source, octave)) {
                warn!("{}: {warning}", frame.name);
            }
        }
        self.detector.detect(frame, options, &self.clock)
    }
}

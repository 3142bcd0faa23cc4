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
    /// What was warned of already.
    told: RefCell<HashSet<String>>,
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

    /// Finds the ships of a frame of the source of that number. Frames of one run are much alike, so each warning
    /// about their resolution is given once.
    pub(crate) fn look(&self, source: usize, frame: &Frame) -> Result<FrameRecord, DetectError> {
        let options = &self.options[source];
        if let Some(warning) = self.detector.resolution_warning(frame, options) {
            let warning = warning.to_string();
            if self.told.borrow_mut().insert(warning.clone()) {
                warn!("{}: {warning}", frame.name);
            }
        }
        self.detector.detect(frame, options, &self.clock)
    }
}

//! The loop that `shipwatch run` turns, with its config, its output file and its self-test.

pub mod config;
pub mod journal;
pub mod selftest;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use log::{info, warn};

use crate::detect::DetectError;
use crate::frame::Frame;
use crate::record::{FrameRecord, milliseconds};
use crate::sink::{Overlay, Sink};
use crate::source::{Next, Source};

/// How long a quiet source may keep the loop from noticing a request to stop.
const POLL: Duration = Duration::from_millis(200);

/// A request to stop that any thread or signal handler can make.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks the loop to stop after the frame in hand. Asking again changes nothing.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether anyone asked.
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where results go.
pub struct Outputs<'a> {
    /// Takes every record.
    pub records: &'a mut dyn Sink,
    /// Takes a picture of every frame.
    pub overlay: Option<&'a Overlay>,
}

/// What a run of the loop did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Frames with a record.
    pub frames: u64,
    /// Ships on them.
    pub ships: u64,
    /// Files and frames that were skipped because something was wrong with them.
    pub broken: u64,
}

/// Why the loop gave up.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A record could not be written. Going on would lose detections unnoticed.
    #[error("cannot write detections: {0}")]
    Records(#[source] std::io::Error),
}

/// Takes frames from `source`, lets `look` find ships and hands records on, until the source ends
/// or `stop` is requested. The frame in hand is finished first.
///
/// A broken frame is logged, counted and skipped; so is an overlay that cannot be written.
pub fn run(
    source: &mut dyn Source,
    look: &dyn Fn(&Frame) -> Result<FrameRecord, DetectError>,
    outputs: &mut Outputs,
    stop: &Stop,
) -> Result<Summary, RunError> {
    let mut summary = Summary::default();
    while !stop.is_requested() {
        let (frame, decode) = match source.next(POLL) {
            Next::Frame { frame, decode } => (frame, decode),
            Next::Broken(error) => {
                summary.broken += 1;
                warn!("{error}; skipped");
                continue;
            }
            Next::Idle => continue,
            Next::End => break,
        };
        match look(&frame) {
            Ok(mut record) => {
                record.millis.decode = milliseconds(decode);
                outputs.records.write(&record).map_err(RunError::Records)?;
                summary.frames += 1;
                summary.ships += record.ships.len() as u64;
                let overlay = outputs
                    .overlay
                    .map(|overlay| overlay.write(&frame.pixels, &record));
                info!("{}", describe(&record));
                match overlay {
                    Some(Ok(path)) => info!("{}: overlay {}", record.frame, path.display()),
                    Some(Err(error)) => warn!("{}: no overlay: {error}", record.frame),
                    None => {}
                }
            }
            Err(error) => {
                summary.broken += 1;
                warn!("{}: {error}; skipped", frame.name);
            }
        }
    }
    Ok(summary)
}

fn describe(record: &FrameRecord) -> String {
    let ships = record.ships.len();
    let gate = &record.gate;
    let time = &record.millis;
    let total = time.decode + time.prepare + time.gate + time.segment + time.extract;
    format!(
        "{}: {ships} {}, gate {:.2}, {} of {} tiles segmented, {total:.0} ms",
        record.frame,
        if ships == 1 { "ship" } else { "ships" },
        gate.score,
        gate.segmented,
        gate.tiles,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    use crate::frame::{RgbImage, Tags};
    use crate::sink::sample_record;
    use crate::source::decode::{DecodeError, DecodeErrorKind};

    /// Plays back what it was given, then ends.
    struct Script(Vec<Next>);

    impl Source for Script {
        fn next(&mut self, _: Duration) -> Next {
            if self.0.is_empty() {
                Next::End
            } else {
                self.0.remove(0)
            }
        }
    }

    fn frame(name: &str) -> Next {
        let frame = Frame {
            name: name.into(),
            pixels: RgbImage::new(8, 8),
            tags: Tags::default(),
        };
        Next::Frame {
            frame,
            decode: Duration::from_millis(7),
        }
    }

    fn look(frame: &Frame) -> Result<FrameRecord, DetectError> {
        match frame.name.as_str() {
            "bad" => Err(DetectError::Empty),
            name => Ok(sample_record(name, &["1 4", "17 4"])),
        }
    }

    /// Keeps records, and does something at each.
    struct Kept<F>(Vec<FrameRecord>, F);

    impl<F: FnMut() -> io::Result<()>> Sink for Kept<F> {
        fn write(&mut self, record: &FrameRecord) -> io::Result<()> {
            self.0.push(record.clone());
            (self.1)()
        }
    }

    #[test]
    fn broken_frames_are_counted_and_do_not_end_the_loop() {
        let broken = DecodeError {
            name: "x.jpg".into(),
            kind: DecodeErrorKind::Truncated,
        };
        let script = vec![
            Next::Idle,
            frame("a"),
            Next::Broken(broken),
            frame("bad"),
            frame("b"),
        ];
        let mut kept = Kept(Vec::new(), || Ok(()));
        let mut outputs = Outputs {
            records: &mut kept,
            overlay: None,
        };
        let summary = run(&mut Script(script), &look, &mut outputs, &Stop::default());
        assert_eq!(
            summary.expect("runs"),
            Summary {
                frames: 2,
                ships: 4,
                broken: 2
            }
        );
        let names: Vec<_> = kept.0.iter().map(|record| record.frame.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(kept.0[0].millis.decode, 7.0);
    }

    #[test]
    fn a_request_to_stop_lets_the_frame_in_hand_finish() {
        let stop = Stop::default();
        let mut kept = Kept(Vec::new(), || {
            stop.request();
            Ok(())
        });
        let mut outputs = Outputs {
            records: &mut kept,
            overlay: None,
        };
        let script = vec![frame("a"), frame("b")];
        let summary = run(&mut Script(script), &look, &mut outputs, &stop).expect("runs");
        assert_eq!(summary.frames, 1);
        assert_eq!(kept.0.len(), 1);
    }

    #[test]
    fn records_that_cannot_be_written_end_the_loop() {
        let mut full = Kept(Vec::new(), || Err(io::ErrorKind::StorageFull.into()));
        let mut outputs = Outputs {
            records: &mut full,
            overlay: None,
        };
        let result = run(
            &mut Script(vec![frame("a")]),
            &look,
            &mut outputs,
            &Stop::default(),
        );
        assert!(matches!(result, Err(RunError::Records(_))));
    }
}

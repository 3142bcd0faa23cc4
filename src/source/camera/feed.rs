//! A camera as a source of the daemon's.

use std::mem;
use std::time::{Duration, Instant};

use log::{info, warn};

use super::source::{CameraEvent, CameraFrame, CameraFrames};
use super::{CameraOptions, DeviceOpener, Opener, SystemTiming, Timing};
use crate::frame::Tags;
use crate::ledger::LedgerError;
use crate::source::live::{Live, Moment};
use crate::source::{Next, Source};

/// Frames of one camera, named by it and by the time.
pub struct CameraSource<O: Opener = DeviceOpener, T = SystemTiming> {
    live: Live,
    frames: CameraFrames<O, T>,
    /// Frames that the driver dropped.
    dropped: u64,
}

impl CameraSource {
    /// A camera of this machine, by the name that the log and the ledger know it by.
    pub fn new(name: String, options: CameraOptions) -> Self {
        Self::of(name, CameraFrames::new(options))
    }
}

impl<O: Opener, T: Timing> CameraSource<O, T> {
    fn of(name: String, frames: CameraFrames<O, T>) -> Self {
        let live = Live::new(name);
        Self {
            live,
            frames,
            dropped: 0,
        }
    }

    fn next_of(&mut self, frame: CameraFrame) -> Next {
        let CameraFrame {
            pixels,
            opening,
            sequence,
            captured,
            dropped,
        } = frame;
        self.dropped += dropped;
        let moment = Moment {
            opening,
            sequence,
            captured,
        };
        let tags = Tags::default();
        self.live.frame(&moment, pixels, tags, Duration::ZERO)
    }
}

impl<O, T> Source for CameraSource<O, T>
where
    O: Opener,
    T: Timing,
{
    fn next(&mut self, timeout: Duration) -> Result<Next, LedgerError> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.frames.next(left) {
                CameraEvent::Opened { granted, .. } => info!("{}: {granted}", self.live.name()),
                CameraEvent::Frame(frame) => return Ok(self.next_of(frame)),
                CameraEvent::Broken(problem) => return Ok(self.live.broken(problem)),
                CameraEvent::Trouble { error, retry } => {
                    warn!(
                        "{}: {error}; tried again in {} s",
                        self.live.name(),
                        retry.as_secs()
                    );
                }
                CameraEvent::Idle => return Ok(Next::Idle),
            }
        }
    }

    fn trouble(&self) -> Option<String> {
        self.frames.trouble()
    }

    fn take_dropped(&mut self) -> u64 {
        mem::take(&mut self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::{SystemTime, UNIX_EPOCH};

    use image::RgbImage;

    use super::super::{CameraError, CameraErrorKind, Capture, Captured, Granted, Shot};
    use super::*;
    use crate::source::pixels::{BufferFormat, Colours, Layout};

    /// A camera that gives these frames, by their numbers, and then is gone.
    struct Given {
        granted: Granted,
        sequences: VecDeque<u64>,
    }

    impl Capture for Given {
        fn granted(&self) -> &Granted {
            &self.granted
        }

        fn next(&mut self, _: Duration) -> Result<Shot, CameraError> {
            let Some(sequence) = self.sequences.pop_front() else {
                return Err(gone());
            };
            Ok(Shot::Frame(Captured {
                pixels: RgbImage::new(4, 2),
                sequence,
                stamp: Duration::from_secs(99),
                dropped: 0,
            }))
        }
    }

    fn gone() -> CameraError {
        CameraError {
            path: "/dev/video7".into(),
            kind: CameraErrorKind::Gone(std::io::ErrorKind::NotFound.into()),
        }
    }

    /// Openings, one after the other; none where the camera is missing.
    struct Openings(VecDeque<Option<Vec<u64>>>);

    impl Opener for Openings {
        type Camera = Given;

        fn open(&mut self, _: &CameraOptions) -> Result<Given, CameraError> {
            let sequences = self.0.pop_front().flatten().ok_or_else(gone)?;
            let format = BufferFormat {
                layout: Layout::Yuyv,
                width: 4,
                height: 2,
                stride: 8,
                colours: Colours::default(),
            };
            Ok(Given {
                granted: Granted {
                    node: "/dev/video7".into(),
                    card: "test".into(),
                    format,
                    rate: None,
                    differences: Vec::new(),
                },
                sequences: sequences.into(),
            })
        }
    }

    /// A clock that waiting moves on. At 100 s since the boot it is 2026-11-26 00:00:01 UTC.
    struct Clock(std::cell::Cell<Duration>);

    impl Timing for Clock {
        fn monotonic(&self) -> Duration {
            self.0.get()
        }

        fn wall(&self) -> SystemTime {
            let midnight = UNIX_EPOCH + Duration::from_secs(1_795_651_200);
            midnight + self.0.get() - Duration::from_secs(99)
        }

        fn sleep(&self, duration: Duration) {
            self.0.set(self.0.get() + duration);
        }
    }

    #[test]
    fn each_frame_has_a_key_of_its_own_and_the_time_it_was_taken_at() {
        let openings = [None, Some(vec![5, 7]), None, Some(vec![5])];
        let clock = Clock(Duration::from_secs(100).into());
        let options = CameraOptions::new("/dev/video7");
        let frames = CameraFrames::with(options, Openings(openings.into()), clock);
        let mut source = CameraSource::of("deck".into(), frames);
        let mut keys = Vec::new();
        let mut names = Vec::new();
        for _ in 0..200 {
            match source
                .next(Duration::from_secs(1))
                .expect("no ledger is asked")
            {
                Next::Frame { frame, origin, .. } => {
                    assert_eq!(frame.pixels.dimensions(), (4, 2));
                    assert_eq!((origin.key.source.as_str(), &origin.file), ("deck", &None));
                    assert_eq!(
                        frame.tags.captured.as_deref(),
                        Some("2026-11-26T00:00:00.000Z")
                    );
                    names.push(frame.name);
                    keys.push(origin.key.name);
                }
                Next::Idle => {}
                other => panic!("{other:?}"),
            }
            if keys.len() == 3 {
                break;
            }
        }
        assert_eq!(names[0], "deck-20261126T000000.000Z-5");
        let last = |nth: usize| {
            keys[nth]
                .iter()
                .rev()
                .take(2)
                .collect::<std::path::PathBuf>()
        };
        assert_eq!(
            [0, 1, 2].map(last),
            ["5/1", "7/1", "5/2"].map(std::path::PathBuf::from)
        );
    }
}

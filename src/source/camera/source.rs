//! Frames of a camera that may be missing at first, vanish and come back.

use std::thread;
use std::time::{Duration, SystemTime};

use image::RgbImage;

use super::capture::{Camera, CameraOptions, Captured, Granted, Shot, monotonic};
use super::{CameraError, CameraErrorKind};

/// The first wait before a camera is opened again; each one that follows is twice as long.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// No wait is longer.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// A camera that captures.
pub trait Capture {
    /// What the driver granted.
    fn granted(&self) -> &Granted;

    /// Waits for the next buffer, `timeout` at most.
    ///
    /// # Errors
    /// If the device fails. Then it is opened anew.
    fn next(&mut self, timeout: Duration) -> Result<Shot, CameraError>;
}

impl Capture for Camera {
    fn granted(&self) -> &Granted {
        self.granted()
    }

    fn next(&mut self, timeout: Duration) -> Result<Shot, CameraError> {
        self.next(timeout)
    }
}

/// What opens a camera, each time anew.
pub trait Opener {
    /// What is opened.
    type Camera: Capture;

    /// Opens it.
    ///
    /// # Errors
    /// If it is not there, or cannot be used.
    fn open(&mut self, options: &CameraOptions) -> Result<Self::Camera, CameraError>;
}

/// Opens the devices of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeviceOpener;

impl Opener for DeviceOpener {
    type Camera = Camera;

    fn open(&mut self, options: &CameraOptions) -> Result<Camera, CameraError> {
        Camera::open(options)
    }
}

/// The time, and waiting.
pub trait Timing {
    /// Time since some fixed moment, on the clock that frames are stamped with.
    fn monotonic(&self) -> Duration;

    /// The time of day.
    fn wall(&self) -> SystemTime;

    /// Waits.
    fn sleep(&self, duration: Duration);
}

/// The clocks of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemTiming;

impl Timing for SystemTiming {
    fn monotonic(&self) -> Duration {
        monotonic()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep(&self, duration: Duration) {
        thread::sleep(duration);
    }
}

/// What a camera had to say.
#[derive(Debug)]
pub enum CameraEvent {
    /// It is open.
    Opened {
        /// What the driver granted.
        granted: Granted,
        /// Counts openings, from 1.
        opening: u64,
    },
    /// A frame.
    Frame(CameraFrame),
    /// A buffer without a usable frame, and why.
    Broken(String),
    /// It cannot be opened or no longer used, for another reason than was said before.
    Trouble {
        /// Why.
        error: CameraError,
        /// In which time it is tried again.
        retry: Duration,
    },
    /// Nothing happened in time.
    Idle,
}

/// A frame of a camera. No two of one [`CameraFrames`] have the same opening and sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct CameraFrame {
    /// `[H, W, 3]` u8.
    pub pixels: RgbImage,
    /// Which opening it is of, from 1.
    pub opening: u64,
    /// Which buffer of the opening it is, dropped ones counted.
    pub sequence: u64,
    /// When it was taken, by the wall clock as it stood when the frame was fetched.
    pub captured: SystemTime,
    /// Frames that the driver dropped since the last one.
    pub dropped: u64,
}

/// Frames of one camera, without end: whatever fails is opened again, after a wait of 1 s that doubles
/// up to 30 s and is 1 s again after a good frame.
pub struct CameraFrames<O: Opener = DeviceOpener, T = SystemTiming> {
    options: CameraOptions,
    opener: O,
    timing: T,
    state: State<O::Camera>,
    /// How long to wait after the next failure.
    retry: Duration,
    openings: u64,
    /// The failure that was reported last, until a good frame.
    trouble: Option<String>,
}

enum State<C> {
    /// Nothing is open before `until`.
    Closed { until: Duration },
    /// `heard`: when the last frame came, or the opening.
    Open { camera: C, heard: Duration },
}

impl CameraFrames {
    /// Frames of a device of this machine. Nothing is opened before they are asked for.
    pub fn new(options: CameraOptions) -> Self {
        Self::with(options, DeviceOpener, SystemTiming)
    }
}

impl<O: Opener, T: Timing> CameraFrames<O, T> {
    /// Frames of what `opener` opens.
    pub fn with(options: CameraOptions, opener: O, timing: T) -> Self {
        Self {
            options,
            opener,
            timing,
            state: State::Closed {
                until: Duration::ZERO,
            },
            retry: FIRST_RETRY,
            openings: 0,
            trouble: None,
        }
    }

    /// Waits for something to happen, `timeout` at most, but for the time that opening takes.
    pub fn next(&mut self, timeout: Duration) -> CameraEvent {
        let deadline = self.timing.monotonic().saturating_add(timeout);
        loop {
            let event = match self.state {
                State::Closed { until } => self.open(until, deadline),
                State::Open { .. } => self.capture(deadline),
            };
            if let Some(event) = event {
                return event;
            }
            if self.timing.monotonic() >= deadline {
                return CameraEvent::Idle;
            }
        }
    }

    fn open(&mut self, until: Duration, deadline: Duration) -> Option<CameraEvent> {
        let now = self.timing.monotonic();
        if now < until {
            self.timing.sleep(until.min(deadline).saturating_sub(now));
            return None;
        }
        match self.opener.open(&self.options) {
            Ok(camera) => {
                let granted = camera.granted().clone();
                let heard = self.timing.monotonic();
                self.state = State::Open { camera, heard };
                self.openings += 1;
                Some(CameraEvent::Opened {
                    granted,
                    opening: self.openings,
                })
            }
            Err(error) => self.fail(error),
        }
    }

    fn capture(&mut self, deadline: Duration) -> Option<CameraEvent> {
        let State::Open { camera, heard } = &mut self.state else {
            return None;
        };
        let left = deadline.saturating_sub(self.timing.monotonic());
        let shot = camera.next(left);
        let now = self.timing.monotonic();
        let broken = match shot {
            Ok(Shot::Frame(frame)) => {
                *heard = now;
                self.retry = FIRST_RETRY;
                self.trouble = None;
                return Some(CameraEvent::Frame(self.dated(frame, now)));
            }
            Ok(Shot::Passed) => {
                *heard = now;
                None
            }
            Ok(Shot::Broken(reason)) => Some(CameraEvent::Broken(reason)),
            Ok(Shot::Nothing) => None,
            Err(error) => return self.fail(error),
        };
        if now.saturating_sub(*heard) >= self.options.silence {
            let error = CameraError {
                path: self.options.path.clone(),
                kind: CameraErrorKind::Silent(self.options.silence),
            };
            return self.fail(error);
        }
        broken
    }

    fn dated(&self, frame: Captured, now: Duration) -> CameraFrame {
        let age = now.saturating_sub(frame.stamp);
        let wall = self.timing.wall();
        CameraFrame {
            pixels: frame.pixels,
            opening: self.openings,
            sequence: frame.sequence,
            captured: wall.checked_sub(age).unwrap_or(wall),
            dropped: frame.dropped,
        }
    }

    /// Closes the camera until the next try. `None` if this was said before.
    fn fail(&mut self, error: CameraError) -> Option<CameraEvent> {
        let retry = self.retry;
        self.retry = (retry * 2).min(LAST_RETRY);
        self.state = State::Closed {
            until: self.timing.monotonic().saturating_add(retry),
        };
        let text = error.to_string();
        if self.trouble.as_ref() == Some(&text) {
            return None;
        }
        self.trouble = Some(text);
        Some(CameraEvent::Trouble { error, retry })
    }
}

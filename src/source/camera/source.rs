//! Frames of a camera that may be missing at first, vanish and come back.

use std::thread;
use std::time::{Duration, SystemTime};

use image::RgbImage;

use super::capture::{Camera, CameraOptions, Captured, Granted, Shot, monotonic};
use super::{CameraError, CameraErrorKind};
use crate::source::live::{Backoff, Trouble};

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
    retry: Backoff,
    openings: u64,
    /// The failure that was reported last, until a good frame.
    trouble: Option<Trouble>,
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
            retry: Backoff::default(),
            openings: 0,
            trouble: None,
        }
    }

    /// What keeps it from giving frames at present, for people to read.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.as_ref().map(ToString::to_string)
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
                self.retry.reset();
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
        let retry = self.retry.advance();
        self.state = State::Closed {
            until: self.timing.monotonic().saturating_add(retry),
        };
        let problem = error.to_string();
        let before = self.trouble.take();
        let said = before.as_ref().is_some_and(|it| it.problem == problem);
        self.trouble = Some(Trouble {
            problem,
            since: before.map_or_else(|| self.timing.wall(), |it| it.since),
            retry: Some(retry),
        });
        (!said).then_some(CameraEvent::Trouble { error, retry })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::io;
    use std::rc::Rc;

    use crate::source::pixels::{BufferFormat, Colours, Layout};

    /// Time that passes where something waits, and a camera that does what its script says.
    #[derive(Clone)]
    struct World(Rc<RefCell<Script>>);

    struct Script {
        now: Duration,
        /// Outcomes of openings; then the camera is gone.
        openings: VecDeque<Result<Vec<Step>, i32>>,
        /// When it was tried to open.
        tries: Vec<Duration>,
        /// Cameras open at the moment.
        open: usize,
    }

    #[derive(Clone, Copy)]
    enum Step {
        /// A frame after so many milliseconds.
        Frame(u64),
        Broken(u64),
        Passed(u64),
        Nothing,
        Fails(i32),
    }

    const ENODEV: i32 = 19;
    const EBUSY: i32 = 16;
    const BOOTED: SystemTime = SystemTime::UNIX_EPOCH;

    impl World {
        fn new(openings: impl IntoIterator<Item = Result<Vec<Step>, i32>>) -> Self {
            Self(Rc::new(RefCell::new(Script {
                now: Duration::from_secs(100),
                openings: openings.into_iter().collect(),
                tries: Vec::new(),
                open: 0,
            })))
        }

        fn frames(&self) -> CameraFrames<Self, Self> {
            CameraFrames::with(CameraOptions::new("/dev/cam"), self.clone(), self.clone())
        }

        /// Seconds between tries to open.
        fn waits(&self) -> Vec<u64> {
            let script = self.0.borrow();
            let tries = script.tries.windows(2);
            tries.map(|pair| (pair[1] - pair[0]).as_secs()).collect()
        }

        fn pass(&self, duration: Duration) {
            self.0.borrow_mut().now += duration;
        }
    }

    impl Timing for World {
        fn monotonic(&self) -> Duration {
            self.0.borrow().now
        }

        fn wall(&self) -> SystemTime {
            BOOTED + self.0.borrow().now
        }

        fn sleep(&self, duration: Duration) {
            self.pass(duration);
        }
    }

    fn error(errno: i32) -> CameraError {
        CameraError {
            path: "/dev/cam".into(),
            kind: io::Error::from_raw_os_error(errno).into(),
        }
    }

    impl Opener for World {
        type Camera = Scripted;

        fn open(&mut self, _: &CameraOptions) -> Result<Scripted, CameraError> {
            let mut script = self.0.borrow_mut();
            let now = script.now;
            script.tries.push(now);
            assert_eq!(script.open, 0, "the last one was closed");
            let steps = script.openings.pop_front().unwrap_or(Err(ENODEV));
            let steps = steps.map_err(error)?.into();
            script.open += 1;
            drop(script);
            Ok(Scripted {
                world: self.clone(),
                steps,
                granted: Granted {
                    node: "/dev/video0".into(),
                    card: "scripted".into(),
                    format: BufferFormat {
                        layout: Layout::Grey,
                        width: 1,
                        height: 1,
                        stride: 1,
                        colours: Colours::default(),
                    },
                    rate: None,
                    differences: Vec::new(),
                },
                sequence: 0,
            })
        }
    }

    struct Scripted {
        world: World,
        steps: VecDeque<Step>,
        granted: Granted,
        sequence: u64,
    }

    impl Drop for Scripted {
        fn drop(&mut self) {
            self.world.0.borrow_mut().open -= 1;
        }
    }

    impl Capture for Scripted {
        fn granted(&self) -> &Granted {
            &self.granted
        }

        fn next(&mut self, timeout: Duration) -> Result<Shot, CameraError> {
            let wait = |millis| self.world.pass(Duration::from_millis(millis).min(timeout));
            Ok(match self.steps.pop_front().unwrap_or(Step::Nothing) {
                Step::Frame(millis) => {
                    wait(millis);
                    self.sequence += 1;
                    Shot::Frame(Captured {
                        pixels: RgbImage::new(1, 1),
                        sequence: self.sequence - 1,
                        stamp: self.world.monotonic() - Duration::from_millis(40),
                        dropped: 0,
                    })
                }
                Step::Broken(millis) => {
                    wait(millis);
                    Shot::Broken("damaged".to_owned())
                }
                Step::Passed(millis) => {
                    wait(millis);
                    Shot::Passed
                }
                Step::Nothing => {
                    self.world.pass(timeout);
                    Shot::Nothing
                }
                Step::Fails(errno) => return Err(error(errno)),
            })
        }
    }

    const TURN: Duration = Duration::from_millis(500);

    /// What comes within so many seconds, a few words each.
    fn story(frames: &mut CameraFrames<World, World>, seconds: u64) -> Vec<String> {
        let mut story = Vec::new();
        let end = frames.timing.monotonic() + Duration::from_secs(seconds);
        while frames.timing.monotonic() < end {
            story.push(match frames.next(TURN) {
                CameraEvent::Opened { opening, .. } => format!("opened {opening}"),
                CameraEvent::Frame(frame) => format!("frame {}.{}", frame.opening, frame.sequence),
                CameraEvent::Broken(reason) => reason,
                CameraEvent::Trouble { error, retry } => match error.kind {
                    CameraErrorKind::Gone(_) => format!("gone, {} s", retry.as_secs()),
                    CameraErrorKind::Busy(_) => format!("busy, {} s", retry.as_secs()),
                    CameraErrorKind::Silent(_) => format!("silent, {} s", retry.as_secs()),
                    other => panic!("{other}"),
                },
                CameraEvent::Idle => continue,
            });
        }
        story
    }

    #[test]
    fn a_camera_that_never_comes_is_tried_less_and_less_often() {
        let world = World::new([]);
        assert_eq!(story(&mut world.frames(), 200), ["gone, 1 s"]);
        assert_eq!(world.waits(), [1, 2, 4, 8, 16, 30, 30, 30, 30, 30]);
    }

    #[test]
    fn a_camera_that_vanishes_comes_back() {
        let world = World::new([
            Err(ENODEV),
            Err(ENODEV),
            Err(EBUSY),
            Ok(vec![Step::Frame(30), Step::Frame(30), Step::Fails(ENODEV)]),
            Err(ENODEV),
            Ok(vec![Step::Fails(ENODEV)]),
            Ok(vec![Step::Frame(30)]),
        ]);
        let mut frames = world.frames();
        assert_eq!(
            story(&mut frames, 20),
            [
                "gone, 1 s",
                "busy, 4 s",
                "opened 1",
                "frame 1.0",
                "frame 1.1",
                "gone, 1 s",
                "opened 2",
                "opened 3",
                "frame 3.0",
            ]
        );
        // Only the frames, not the opening that gave none, start the waits anew.
        assert_eq!(world.waits(), [1, 2, 4, 1, 2, 4]);
    }

    #[test]
    fn one_that_goes_silent_or_gives_nothing_but_trash_is_opened_anew() {
        let trash = [Step::Broken(450); 23];
        let world = World::new([
            Ok(vec![Step::Frame(30)]),
            Ok([&trash[..], &[Step::Frame(1)]].concat()),
            Ok(vec![Step::Frame(30), Step::Broken(30), Step::Frame(30)]),
        ]);
        let mut frames = world.frames();
        let mut story = story(&mut frames, 30);
        story.dedup();
        assert_eq!(
            story,
            [
                "opened 1",
                "frame 1.0",
                "silent, 1 s",
                "opened 2",
                "damaged",
                "opened 3",
                "frame 3.0",
                "damaged",
                "frame 3.1",
            ]
        );
        // 10.03 s and a wait of 1 s; 23 x 0.45 s of trash, of which no frame comes, and a wait of 2 s.
        assert_eq!(world.waits(), [11, 12]);
    }

    #[test]
    fn frames_passed_over_are_a_sign_of_life() {
        let world = World::new([Ok(
            [&[Step::Passed(400); 100][..], &[Step::Frame(1)]].concat()
        )]);
        assert_eq!(
            story(&mut world.frames(), 30),
            ["opened 1", "frame 1.0"],
            "after 25 s"
        );
    }

    #[test]
    fn no_call_waits_longer_than_told() {
        let world = World::new([Err(ENODEV), Ok(vec![Step::Passed(30); 1000])]);
        let mut frames = world.frames();
        for _ in 0..100 {
            let before = world.monotonic();
            let event = frames.next(TURN);
            let took = world.monotonic() - before;
            assert!(
                took < TURN + Duration::from_millis(30),
                "{event:?}: {took:?}"
            );
        }
    }

    #[test]
    fn the_time_of_day_is_that_of_the_capture() {
        let world = World::new([Ok(vec![Step::Frame(200)])]);
        let mut frames = world.frames();
        frames.next(TURN);
        let CameraEvent::Frame(frame) = frames.next(TURN) else {
            panic!("a frame");
        };
        // Fetched at 100.2 s, stamped 40 ms before.
        assert_eq!(frame.captured, BOOTED + Duration::from_millis(100_160));
    }
}

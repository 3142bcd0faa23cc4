//! V4L2 cameras: what is plugged in, and frames of a camera that may come and go.

mod capture;
mod error;
mod feed;
mod list;
mod source;

pub use capture::{Camera, CameraOptions, Captured, Granted, Shot};
pub use error::{CameraError, CameraErrorKind};
pub use feed::CameraSource;
pub use list::{CameraInfo, FrameSize, PixelFormat, list};
pub use source::{
    CameraEvent, CameraFrame, CameraFrames, Capture, DeviceOpener, Opener, SystemTiming, Timing,
};

//! Why a camera gives no frames.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;

/// A camera that cannot be used, or no longer.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {kind}", path = .path.display())]
pub struct CameraError {
    /// The device as it was asked for, links not followed.
    pub path: PathBuf,
    /// What went wrong.
    #[source]
    pub kind: CameraErrorKind,
}

/// What went wrong with a camera.
#[derive(Debug, thiserror::Error)]
pub enum CameraErrorKind {
    /// Nothing is there, or no longer: not plugged in, without power, or its driver gave up.
    #[error("no camera answers there ({0}); is it plugged in?")]
    Gone(io::Error),
    /// Another program captures from it.
    #[error("in use by another program ({0})")]
    Busy(io::Error),
    /// The user may not open it.
    #[error("{0}; join the group `video` and log in again")]
    Forbidden(io::Error),
    /// Something that is no V4L2 device, or one that does not capture.
    #[error("is no camera: {0}")]
    NotACamera(&'static str),
    /// It has no format until a program feeds it, as v4l2loopback.
    #[error("has no format yet; does what feeds it run?")]
    Unfed,
    /// No pixel format that is understood here.
    #[error("gives {0}, of which none is understood here")]
    Unsupported(String),
    /// It is there and no frame comes that can be used.
    #[error("no usable frame for {} s", .0.as_secs_f64())]
    Silent(Duration),
    /// The driver says what the V4L2 library holds to be impossible.
    #[error("the driver answers in a way that the V4L2 library fails on")]
    Malformed,
    /// Whatever else the system says.
    #[error("{0}")]
    Io(io::Error),
}

impl From<io::Error> for CameraErrorKind {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NODEV | Errno::NXIO | Errno::IO) => Self::Gone(error),
            Some(Errno::BUSY) => Self::Busy(error),
            Some(Errno::ACCESS | Errno::PERM) => Self::Forbidden(error),
            Some(Errno::NOTTY) => Self::NotACamera("it is no video device"),
            _ => Self::Io(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers are those of Linux on all processors that it runs on here: errno-base.h.
    #[test]
    fn what_the_system_says_is_told_apart() {
        let kind = |errno| CameraErrorKind::from(io::Error::from_raw_os_error(errno));
        for gone in [2, 5, 6, 19] {
            assert!(matches!(kind(gone), CameraErrorKind::Gone(_)), "{gone}");
        }
        assert!(matches!(kind(16), CameraErrorKind::Busy(_)));
        assert!(matches!(kind(25), CameraErrorKind::NotACamera(_)));
        assert!(matches!(kind(22), CameraErrorKind::Io(_)));
        for forbidden in [1, 13] {
            let error = CameraError {
                path: "/dev/video0".into(),
                kind: kind(forbidden),
            };
            let text = error.to_string();
            assert!(text.starts_with("/dev/video0: "), "{text}");
            assert!(text.contains("group `video`"), "{text}");
        }
    }
}

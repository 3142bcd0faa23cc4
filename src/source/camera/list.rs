//! What is plugged in.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use v4l::capability::Flags;
use v4l::framesize::FrameSizeEnum;
use v4l::video::Capture;
use v4l::{Device, context};

use super::{CameraError, CameraErrorKind};
use crate::contain::contain;

/// A device that captures video.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CameraInfo {
    /// The device node, such as `/dev/video0`.
    pub path: PathBuf,
    /// The kernel's driver.
    pub driver: String,
    /// What the device calls itself.
    pub card: String,
    /// Pixel formats in the driver's order.
    pub formats: Vec<PixelFormat>,
}

/// A pixel format that a camera offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PixelFormat {
    /// Four-character code, such as `MJPG`.
    pub fourcc: String,
    /// The driver's description.
    pub description: String,
    /// Frame sizes; empty where the driver cannot list them.
    pub sizes: Vec<FrameSize>,
}

/// Frame sizes in pixels that a format comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameSize {
    /// One size: width, height.
    Discrete([u32; 2]),
    /// A range of widths and heights: least, greatest, step.
    Stepwise([u32; 3], [u32; 3]),
}

impl fmt::Display for FrameSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Discrete([width, height]) => write!(f, "{width}x{height}"),
            Self::Stepwise([w0, w1, dw], [h0, h1, dh]) => {
                write!(f, "{w0}x{h0} to {w1}x{h1} in steps of {dw}x{dh}")
            }
        }
    }
}

/// Asks every video node of the system, by path; nodes that do not capture are left out.
pub fn list() -> Vec<Result<CameraInfo, CameraError>> {
    let mut paths: Vec<PathBuf> = contain(context::enum_devices)
        .unwrap_or_default()
        .iter()
        .map(|node| node.path().to_owned())
        .collect();
    paths.sort();
    paths
        .into_iter()
        .filter_map(|path| {
            let asked = match contain(|| ask(&path)) {
                Some(answer) => answer.map_err(CameraErrorKind::from),
                None => Err(CameraErrorKind::Malformed),
            };
            match asked {
                Ok(camera) => camera.map(Ok),
                Err(kind) => Some(Err(CameraError { path, kind })),
            }
        })
        .collect()
}

/// `None` for nodes that do not capture, such as a camera's metadata node.
fn ask(path: &Path) -> io::Result<Option<CameraInfo>> {
    let device = Device::with_path(path)?;
    let capabilities = device.query_caps()?;
    if !capabilities.capabilities.contains(Flags::VIDEO_CAPTURE) {
        return Ok(None);
    }
    let formats = device
        .enum_formats()?
        .into_iter()
        .map(|format| PixelFormat {
            fourcc: String::from_utf8_lossy(&format.fourcc.repr)
                .trim_end()
                .to_owned(),
            description: format.description,
            // Not every driver can list sizes; the format is worth knowing all the same.
            sizes: device.enum_framesizes(format.fourcc).map_or_else(
                |_| Vec::new(),
                |offers| offers.into_iter().map(|offer| size(offer.size)).collect(),
            ),
        });
    Ok(Some(CameraInfo {
        path: path.to_owned(),
        driver: capabilities.driver,
        card: capabilities.card,
        formats: formats.collect(),
    }))
}

fn size(offer: FrameSizeEnum) -> FrameSize {
    match offer {
        FrameSizeEnum::Discrete(d) => FrameSize::Discrete([d.width, d.height]),
        FrameSizeEnum::Stepwise(s) => FrameSize::Stepwise(
            [s.min_width, s.max_width, s.step_width],
            [s.min_height, s.max_height, s.step_height],
        ),
    }
}

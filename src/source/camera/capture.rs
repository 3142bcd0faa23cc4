//! One opening of a camera, from the device node to frames.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::mem;
use std::path::PathBuf;
use std::time::Duration;

use image::RgbImage;
use log::warn;
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use v4l::buffer::{Flags as BufferFlags, Metadata, Type};
use v4l::capability::{Capabilities, Flags as Capability};
use v4l::control::{Control, Description, Type as ControlType, Value};
use v4l::format::{Colorspace, FieldOrder, Format, Quantization};
use v4l::framesize::FrameSizeEnum;
use v4l::io::mmap::Stream;
use v4l::io::traits::{CaptureStream, Stream as _};
use v4l::video::Capture;
use v4l::video::capture::Parameters;
use v4l::{Device, FourCC, Fraction};

use super::{CameraError, CameraErrorKind};
use crate::contain::contain;
use crate::source::live::Pace;
use crate::source::pixels::{BufferFormat, Colours, Encoding, Layout, PixelError, Range};

/// Buffers that are asked for: one is read while the driver fills others.
const BUFFERS: u32 = 4;
/// The most buffers that V4L2 gives (`VIDEO_MAX_FRAME`).
const MOST_BUFFERS: usize = 32;
/// `POLLIN` of poll.h.
const POLL_IN: i16 = 1;
/// A buffer that poll says is ready and that is not handed over within this time is never.
const HAND_OVER: Duration = Duration::from_secs(2);
/// Up to this many pixels USB 2 carries thirty frames of YUYV per second.
const RAW_OVER_USB: u64 = 640 * 480;

/// Which camera, and what is wanted of it. Drivers grant what they can: see [`Granted`].
#[derive(Debug, Clone, PartialEq)]
pub struct CameraOptions {
    /// The device node, such as `/dev/video0`, or a link to it, such as those in `/dev/v4l/by-id`,
    /// which is followed at each opening.
    pub path: PathBuf,
    /// How pixels travel; without it, compressed over USB unless frames are small, raw elsewhere.
    pub layout: Option<Layout>,
    /// Width and height in pixels; without it, the largest that the camera lists.
    pub size: Option<[u32; 2]>,
    /// Frames per second that the camera is asked for; without it, whatever it is set to.
    pub rate: Option<f64>,
    /// Values by the names that `v4l2-ctl --list-ctrls` prints, such as `brightness`; 0 and 1 for
    /// switches, the item's number for menus. What cannot be set is said in [`Granted`].
    pub controls: BTreeMap<String, i64>,
    /// Frames that come sooner than this after the last are passed over undecoded.
    pub interval: Duration,
    /// A camera that gives no usable frame for this long counts as failed.
    pub silence: Duration,
}

impl CameraOptions {
    /// Whatever the camera gives by itself, every frame.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            layout: None,
            size: None,
            rate: None,
            controls: BTreeMap::new(),
            interval: Duration::ZERO,
            silence: Duration::from_secs(10),
        }
    }
}

/// What a driver granted.
#[derive(Debug, Clone, PartialEq)]
pub struct Granted {
    /// The device node behind the path that was asked for.
    pub node: PathBuf,
    /// What the device calls itself, and the kernel's driver.
    pub card: String,
    /// Size and layout of frames.
    pub format: BufferFormat,
    /// Frames per second; `None` where the driver does not say.
    pub rate: Option<f64>,
    /// How that differs from what was asked, a phrase each.
    pub differences: Vec<String>,
}

impl fmt::Display for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BufferFormat {
            layout,
            width,
            height,
            ..
        } = self.format;
        let (node, card) = (self.node.display(), &self.card);
        write!(f, "{node} ({card}): {width}x{height} {layout}")?;
        if let Some(rate) = self.rate {
            write!(f, " at {} frames/s", shown(rate))?;
        }
        for difference in &self.differences {
            write!(f, "; {difference}")?;
        }
        Ok(())
    }
}

/// Two digits behind the point where they are needed.
fn shown(rate: f64) -> f64 {
    (rate * 100.0).round() / 100.0
}

/// A frame as it came from a camera.
#[derive(Debug, Clone, PartialEq)]
pub struct Captured {
    /// `[H, W, 3]` u8.
    pub pixels: RgbImage,
    /// Counts buffers since the opening, dropped ones too, by the driver's numbers; never the same twice.
    pub sequence: u64,
    /// When the driver took it, on `CLOCK_MONOTONIC`; when it was fetched where the driver uses another clock.
    pub stamp: Duration,
    /// Frames that the driver dropped since the last one that was captured.
    pub dropped: u64,
}

/// What a camera gave within a time.
#[derive(Debug)]
pub enum Shot {
    /// A frame.
    Frame(Captured),
    /// A buffer without a usable frame; the next one may be good.
    Broken(String),
    /// A frame that came before it was due.
    Passed,
    /// Nothing.
    Nothing,
}

/// A camera that captures.
pub struct Camera {
    path: PathBuf,
    buffers: Buffers,
    granted: Granted,
    sequence: Sequence,
    pace: Pace,
}

impl Camera {
    /// Opens the device, sets it up as far as it lets itself, and starts it.
    ///
    /// # Errors
    /// If there is no such device, or one that cannot be used.
    pub fn open(options: &CameraOptions) -> Result<Self, CameraError> {
        contain(|| Self::open_trusting(options))
            .unwrap_or(Err(CameraErrorKind::Malformed))
            .map_err(|kind| CameraError {
                path: options.path.clone(),
                kind,
            })
    }

    fn open_trusting(options: &CameraOptions) -> Result<Self, CameraErrorKind> {
        let node = options.path.canonicalize()?;
        let device = Device::with_path(&node)?;
        let capabilities = device.query_caps()?;
        check(&capabilities)?;
        let mut granted = negotiate(&device, options, node, &capabilities)?;
        granted
            .differences
            .extend(set_controls(&device, &options.controls));
        Ok(Self {
            path: options.path.clone(),
            buffers: Buffers::start(&device)?,
            granted,
            sequence: Sequence::default(),
            pace: Pace::new(options.interval),
        })
    }

    /// What the driver granted.
    pub fn granted(&self) -> &Granted {
        &self.granted
    }

    /// Waits for the next buffer, `timeout` at most.
    ///
    /// # Errors
    /// If the device fails. Then it must be opened anew.
    pub fn next(&mut self, timeout: Duration) -> Result<Shot, CameraError> {
        let next = contain(|| self.next_trusting(timeout));
        next.unwrap_or(Err(CameraErrorKind::Malformed))
            .map_err(|kind| CameraError {
                path: self.path.clone(),
                kind,
            })
    }

    fn next_trusting(&mut self, timeout: Duration) -> Result<Shot, CameraErrorKind> {
        if !self.buffers.wait(timeout)? {
            return Ok(Shot::Nothing);
        }
        let (bytes, about) = self.buffers.next()?;
        let sequence = self.sequence.advance(about.sequence);
        // A stamp ahead of the clock would keep all frames until then from being due.
        let now = monotonic();
        let stamp = stamp(about).map_or(now, |stamp| stamp.min(now));
        if !self.pace.is_due(stamp) {
            return Ok(Shot::Passed);
        }
        let pixels = match filled(bytes, about).and_then(|bytes| {
            let pixels = self.granted.format.to_rgb(bytes);
            pixels.map_err(|e: PixelError| e.to_string())
        }) {
            Ok(pixels) => pixels,
            Err(reason) => return Ok(Shot::Broken(reason)),
        };
        self.pace.took(stamp);
        Ok(Shot::Frame(Captured {
            pixels,
            sequence,
            stamp,
            dropped: mem::take(&mut self.sequence.dropped),
        }))
    }
}

/// The time since a fixed moment by `CLOCK_MONOTONIC`, which drivers stamp buffers with.
pub(super) fn monotonic() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}

fn stamp(about: &Metadata) -> Option<Duration> {
    if about.flags & BufferFlags::TIMESTAMP_MASK != BufferFlags::TIMESTAMP_MONOTONIC {
        return None;
    }
    let seconds = u64::try_from(about.timestamp.sec).ok()?;
    let micros = u64::try_from(about.timestamp.usec).ok()?;
    Duration::from_secs(seconds).checked_add(Duration::from_micros(micros))
}

/// The bytes that the driver filled, unless it says that they are of no use.
fn filled<'a>(bytes: &'a [u8], about: &Metadata) -> Result<&'a [u8], String> {
    if about.flags.contains(BufferFlags::ERROR) {
        return Err("damaged, says the driver".to_owned());
    }
    match bytes.get(..about.bytesused as usize) {
        Some([]) => Err("empty".to_owned()),
        Some(used) => Ok(used),
        None => Err(format!(
            "{} bytes in a buffer of {}",
            about.bytesused,
            bytes.len()
        )),
    }
}

fn check(capabilities: &Capabilities) -> Result<(), CameraErrorKind> {
    let flags = capabilities.capabilities;
    let captures = flags.contains(Capability::VIDEO_CAPTURE);
    let lacks = if captures && flags.contains(Capability::STREAMING) {
        return Ok(());
    } else if captures {
        "it does not stream"
    } else if flags.contains(Capability::VIDEO_CAPTURE_MPLANE) {
        "it captures planes apart from one another, which is not supported"
    } else {
        "it does not capture video"
    };
    Err(CameraErrorKind::NotACamera(lacks))
}

/// Agrees with the driver on layout, size and rate.
fn negotiate(
    device: &Device,
    options: &CameraOptions,
    node: PathBuf,
    capabilities: &Capabilities,
) -> Result<Granted, CameraErrorKind> {
    let current = Capture::format(device).map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::INVAL) => CameraErrorKind::Unfed,
        _ => error.into(),
    })?;
    let mut offered: Vec<[u8; 4]> = Capture::enum_formats(device)?
        .iter()
        .map(|format| format.fourcc.repr)
        .collect();
    if offered.is_empty() {
        offered.push(current.fourcc.repr);
    }
    let over_usb = capabilities.bus.starts_with("usb");
    let code = choose(&offered, options, over_usb).ok_or_else(|| {
        let names: Vec<_> = offered
            .iter()
            .map(|code| String::from_utf8_lossy(code).trim_end().to_owned())
            .collect();
        CameraErrorKind::Unsupported(names.join(", "))
    })?;
    let fourcc = FourCC::new(&code);
    let [width, height] = options
        .size
        .or_else(|| largest(device, fourcc))
        .unwrap_or([current.width, current.height]);
    let wanted = Format {
        field_order: FieldOrder::Progressive,
        ..Format::new(width, height, fourcc)
    };
    let is = Capture::set_format(device, &wanted)?;
    let layout = Layout::of_fourcc(is.fourcc.repr)
        .ok_or_else(|| CameraErrorKind::Unsupported(is.fourcc.to_string()))?;

    let mut differences = Vec::new();
    if let Some(wanted) = options.layout
        && wanted != layout
    {
        differences.push(format!("asked for {wanted}, which it does not give"));
    }
    if let Some([width, height]) = options.size
        && [width, height] != [is.width, is.height]
    {
        differences.push(format!("asked for {width}x{height}"));
    }
    if !matches!(is.field_order, FieldOrder::Progressive | FieldOrder::Any) {
        differences.push(format!("interlaced ({})", is.field_order));
    }
    Ok(Granted {
        node,
        card: format!("{}, {}", capabilities.card, capabilities.driver),
        format: BufferFormat {
            layout,
            width: is.width,
            height: is.height,
            stride: match is.stride {
                0 => u32::try_from(layout.line(is.width)).unwrap_or(u32::MAX),
                stride => stride,
            },
            colours: colours(layout, is.colorspace, is.quantization),
        },
        rate: rate(device, options.rate, &mut differences),
        differences,
    })
}

/// The code to ask for: that of the layout that is wanted, else the best that is offered and understood.
fn choose(offered: &[[u8; 4]], options: &CameraOptions, over_usb: bool) -> Option<[u8; 4]> {
    use Layout::*;
    let large = options
        .size
        .is_none_or(|[width, height]| u64::from(width) * u64::from(height) > RAW_OVER_USB);
    let preferred = if over_usb && large {
        [Mjpeg, Nv12, Yuyv, Uyvy, Rgb24, Grey]
    } else {
        [Yuyv, Uyvy, Nv12, Rgb24, Mjpeg, Grey]
    };
    options
        .layout
        .into_iter()
        .chain(preferred)
        .find_map(|layout| {
            let mut codes = offered.iter().copied();
            codes.find(|&code| Layout::of_fourcc(code) == Some(layout))
        })
}

/// The largest size that the driver lists; `None` if it lists none, or a range.
fn largest(device: &Device, fourcc: FourCC) -> Option<[u32; 2]> {
    Capture::enum_framesizes(device, fourcc)
        .ok()?
        .into_iter()
        .filter_map(|offer| match offer.size {
            FrameSizeEnum::Discrete(size) => Some([size.width, size.height]),
            FrameSizeEnum::Stepwise(_) => None,
        })
        .max_by_key(|&[width, height]| u64::from(width) * u64::from(height))
}

/// What Y'CbCr means where the driver leaves it to the default: `V4L2_MAP_YCBCR_ENC_DEFAULT` and
/// `V4L2_MAP_QUANTIZATION_DEFAULT` of videodev2.h. Grey is different: cameras that see nothing else
/// give all 256 values.
fn colours(layout: Layout, space: Colorspace, quantization: Quantization) -> Colours {
    let encoding = match space {
        Colorspace::Rec709 | Colorspace::DCIP3 => Encoding::Bt709,
        Colorspace::Rec2020 => Encoding::Bt2020,
        _ => Encoding::Bt601,
    };
    let range = match quantization {
        Quantization::FullRange => Range::Full,
        Quantization::LimitedRange => Range::Limited,
        Quantization::Default if layout == Layout::Grey => Range::Full,
        Quantization::Default if matches!(space, Colorspace::JPEG) => Range::Full,
        Quantization::Default => Range::Limited,
    };
    Colours { encoding, range }
}

/// Frames per second after asking for `wanted`; `None` where the driver does not say.
fn rate(device: &Device, wanted: Option<f64>, differences: &mut Vec<String>) -> Option<f64> {
    let answer = match wanted {
        Some(rate) => {
            let interval = Fraction::new(1000, (rate * 1000.0).round() as u32);
            Capture::set_params(device, &Parameters::new(interval))
        }
        None => Capture::params(device),
    };
    let granted = answer.ok().and_then(|parameters| {
        let Fraction {
            numerator,
            denominator,
        } = parameters.interval;
        (numerator > 0 && denominator > 0).then(|| f64::from(denominator) / f64::from(numerator))
    });
    if let Some(wanted) = wanted
        && granted.is_none_or(|rate| shown(rate) != shown(wanted))
    {
        differences.push(format!("asked for {} frames/s", shown(wanted)));
    }
    granted
}

/// Sets controls; what could not be done, a phrase each.
fn set_controls(device: &Device, wanted: &BTreeMap<String, i64>) -> Vec<String> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let known = match contain(|| device.query_controls()) {
        Some(Ok(known)) => known,
        Some(Err(error)) => return vec![format!("controls cannot be set: {error}")],
        None => {
            return vec![
                "controls cannot be set: one is of a kind that the V4L2 library fails on"
                    .to_owned(),
            ];
        }
    };
    let mut complaints = Vec::new();
    let mut left = Vec::new();
    for (name, &value) in wanted {
        match control(&known, name, value) {
            Ok(setting) => left.push((name, setting)),
            Err(complaint) => complaints.push(complaint),
        }
    }
    // One control may lock another that comes before it, as automatic exposure does exposure time.
    left.retain(|(_, setting)| set(device, setting).is_err());
    for (name, setting) in &left {
        if let Err(error) = set(device, setting) {
            complaints.push(format!("control `{name}` cannot be set: {error}"));
        }
    }
    complaints
}

fn set(device: &Device, &(id, kind, value): &(u32, ControlType, i64)) -> io::Result<()> {
    let value = match kind {
        ControlType::Boolean => Value::Boolean(value != 0),
        ControlType::Button => Value::None,
        _ => Value::Integer(value),
    };
    device.set_control(Control { id, value })
}

/// Number, kind and value of a control, or why that cannot be.
fn control(
    known: &[Description],
    name: &str,
    value: i64,
) -> Result<(u32, ControlType, i64), String> {
    use ControlType::*;
    let settable = |d: &&Description| {
        matches!(
            d.typ,
            Integer | Boolean | Menu | Button | Integer64 | Bitmask | IntegerMenu
        )
    };
    let Some(control) = known
        .iter()
        .filter(settable)
        .find(|d| variable(&d.name) == name)
    else {
        let names: Vec<_> = known
            .iter()
            .filter(settable)
            .map(|d| variable(&d.name))
            .collect();
        return Err(format!(
            "no control `{name}`; there are {}",
            names.join(", ")
        ));
    };
    let (least, greatest) = (control.minimum, control.maximum);
    if matches!(
        control.typ,
        Integer | Boolean | Menu | Integer64 | IntegerMenu
    ) && !(least..=greatest).contains(&value)
    {
        return Err(format!(
            "control `{name}` takes {least} to {greatest}, not {value}"
        ));
    }
    Ok((control.id, control.typ, value))
}

/// A control's name as `v4l2-ctl` prints it: lower case, and an underscore for all between words
/// (`name2var` in v4l-utils).
fn variable(name: &str) -> String {
    name.split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect::<Vec<_>>()
        .join("_")
}

/// A stream and its buffers. One buffer is with the reader, all others are with the driver.
struct Buffers(Option<Stream<'static>>);

impl Buffers {
    fn start(device: &Device) -> io::Result<Self> {
        let stream = Stream::with_buffers(device, Type::VideoCapture, BUFFERS)?;
        let mut buffers = Self(Some(stream));
        let stream = buffers.stream();
        stream.set_timeout(HAND_OVER);
        // `next` queues the buffer that it gave before, at first number 0. Let it start the stream and
        // it would queue that one again after a wait in vain, which is an error.
        for index in 1..MOST_BUFFERS {
            match CaptureStream::queue(stream, index) {
                Ok(()) => {}
                // There are no more.
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => break,
                Err(e) => return Err(e),
            }
        }
        stream.start()?;
        Ok(buffers)
    }

    fn stream(&mut self) -> &mut Stream<'static> {
        self.0.as_mut().expect("only dropping takes it")
    }

    /// Whether there is something to fetch, an error perhaps.
    fn wait(&mut self, timeout: Duration) -> io::Result<bool> {
        let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        match self.stream().handle().poll(POLL_IN, millis) {
            Ok(ready) => Ok(ready > 0),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn next(&mut self) -> io::Result<(&[u8], &Metadata)> {
        CaptureStream::next(self.stream())
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        let Some(mut stream) = self.0.take() else {
            return;
        };
        // Dropping panics if the stream cannot be stopped, and once more if buffers are in use
        // because of that, which would abort the process: better to lose them.
        match stream.stop() {
            Err(e) if Errno::from_io_error(&e) != Some(Errno::NODEV) => {
                warn!("a camera cannot be stopped, and stays open: {e}");
                mem::forget(stream);
            }
            _ => {
                contain(|| drop(stream));
            }
        }
    }
}

/// Numbers of buffers, from the driver's, which wrap, and which some drivers leave at one value.
#[derive(Debug, Default)]
struct Sequence {
    last: Option<(u32, u64)>,
    dropped: u64,
}

impl Sequence {
    fn advance(&mut self, driver: u32) -> u64 {
        let number = match self.last {
            None => driver.into(),
            Some((before, number)) => {
                // More than half the range ahead is behind.
                let step = match driver.wrapping_sub(before) {
                    step @ 1..=0x7FFF_FFFF => u64::from(step),
                    _ => 1,
                };
                self.dropped += step - 1;
                number + step
            }
        };
        self.last = Some((driver, number));
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use v4l::buffer::Metadata;
    use v4l::control::Flags as ControlFlags;
    use v4l::timestamp::Timestamp;

    fn options() -> CameraOptions {
        CameraOptions::new("/dev/video0")
    }

    fn kind_of(path: &std::path::Path) -> CameraErrorKind {
        match Camera::open(&CameraOptions::new(path)) {
            Ok(camera) => panic!("{} opened", camera.granted()),
            Err(error) => {
                assert_eq!(error.path, path);
                error.kind
            }
        }
    }

    #[test]
    fn what_is_no_camera_is_told_from_what_is_missing() {
        let folder = tempfile::tempdir().expect("folder");
        let link = folder.path().join("by-id");
        std::os::unix::fs::symlink("nowhere", &link).expect("links");
        assert!(matches!(kind_of(&link), CameraErrorKind::Gone(_)));

        let file = folder.path().join("video0");
        std::fs::write(&file, "no device").expect("writes");
        assert!(matches!(kind_of(&file), CameraErrorKind::NotACamera(_)));
        std::fs::remove_file(&link).expect("removes");
        std::os::unix::fs::symlink(&file, &link).expect("links");
        assert!(matches!(kind_of(&link), CameraErrorKind::NotACamera(_)));
        kind_of(folder.path());
    }

    #[test]
    fn the_layout_suits_the_bus() {
        let webcam = [*b"YUYV", *b"MJPG", *b"H264"];
        let sized = |width, height| CameraOptions {
            size: Some([width, height]),
            ..options()
        };
        let of = |options: &CameraOptions, usb| choose(&webcam, options, usb);
        assert_eq!(of(&options(), true), Some(*b"MJPG"), "the largest size");
        assert_eq!(of(&sized(1920, 1080), true), Some(*b"MJPG"));
        assert_eq!(of(&sized(640, 480), true), Some(*b"YUYV"));
        assert_eq!(of(&sized(1920, 1080), false), Some(*b"YUYV"));

        let wanted = |layout| CameraOptions {
            layout: Some(layout),
            ..sized(1920, 1080)
        };
        assert_eq!(of(&wanted(Layout::Yuyv), true), Some(*b"YUYV"));
        assert_eq!(of(&wanted(Layout::Nv12), true), Some(*b"MJPG"), "has none");
        assert_eq!(choose(&[*b"JPEG"], &options(), true), Some(*b"JPEG"));
        assert_eq!(choose(&[*b"H264", *b"HEVC"], &options(), true), None);
    }

    /// By `V4L2_MAP_QUANTIZATION_DEFAULT` and `V4L2_MAP_YCBCR_ENC_DEFAULT` of videodev2.h.
    #[test]
    fn ranges_are_those_that_the_driver_means() {
        use Quantization::{Default as Unsaid, FullRange, LimitedRange};
        let range = |layout, space, said| colours(layout, space, said).range;
        let encoding = |space| colours(Layout::Yuyv, space, Unsaid).encoding;
        assert_eq!(
            range(Layout::Yuyv, Colorspace::SRGB, Unsaid),
            Range::Limited
        );
        assert_eq!(range(Layout::Yuyv, Colorspace::JPEG, Unsaid), Range::Full);
        assert_eq!(
            range(Layout::Nv12, Colorspace::Rec709, FullRange),
            Range::Full
        );
        assert_eq!(
            range(Layout::Nv12, Colorspace::JPEG, LimitedRange),
            Range::Limited
        );
        assert_eq!(range(Layout::Grey, Colorspace::SRGB, Unsaid), Range::Full);
        assert_eq!(
            range(Layout::Grey, Colorspace::SRGB, LimitedRange),
            Range::Limited
        );
        assert_eq!(encoding(Colorspace::SRGB), Encoding::Bt601);
        assert_eq!(encoding(Colorspace::SMPTE170M), Encoding::Bt601);
        assert_eq!(encoding(Colorspace::Rec709), Encoding::Bt709);
        assert_eq!(encoding(Colorspace::Rec2020), Encoding::Bt2020);
    }

    #[test]
    fn the_log_says_what_was_granted_and_what_was_asked() {
        let granted = Granted {
            node: "/dev/video2".into(),
            card: "HD Webcam, uvcvideo".into(),
            format: BufferFormat {
                layout: Layout::Mjpeg,
                width: 1280,
                height: 720,
                stride: 0,
                colours: Colours::default(),
            },
            rate: Some(30000.0 / 1001.0),
            differences: vec!["asked for 1920x1080".into()],
        };
        assert_eq!(
            granted.to_string(),
            "/dev/video2 (HD Webcam, uvcvideo): 1280x720 MJPEG at 29.97 frames/s; asked for 1920x1080"
        );
    }

    fn description(
        id: u32,
        typ: ControlType,
        name: &str,
        [least, greatest]: [i64; 2],
    ) -> Description {
        Description {
            id,
            typ,
            name: name.to_owned(),
            minimum: least,
            maximum: greatest,
            step: 1,
            default: 0,
            flags: ControlFlags::empty(),
            items: None,
        }
    }

    #[test]
    fn controls_go_by_the_names_of_v4l2_ctl() {
        for (name, printed) in [
            ("Brightness", "brightness"),
            ("White Balance, Automatic", "white_balance_automatic"),
            ("Exposure Time, Absolute", "exposure_time_absolute"),
            ("Exposure, Dynamic Framerate", "exposure_dynamic_framerate"),
            ("LED1 Mode", "led1_mode"),
        ] {
            assert_eq!(variable(name), printed);
        }
        let known = [
            description(1, ControlType::CtrlClass, "User Controls", [0, 0]),
            description(2, ControlType::Integer, "Brightness", [-64, 64]),
            description(3, ControlType::Boolean, "White Balance, Automatic", [0, 1]),
        ];
        assert_eq!(
            control(&known, "brightness", -64),
            Ok((2, ControlType::Integer, -64))
        );
        assert_eq!(
            control(&known, "white_balance_automatic", 1),
            Ok((3, ControlType::Boolean, 1))
        );
        let complaint = control(&known, "brightness", 65).expect_err("too much");
        assert!(complaint.contains("-64 to 64"), "{complaint}");
        let complaint = control(&known, "user_controls", 0).expect_err("a heading");
        assert!(
            complaint.ends_with("brightness, white_balance_automatic"),
            "{complaint}"
        );
    }

    fn about(bytesused: u32, flags: u32) -> Metadata {
        Metadata {
            bytesused,
            flags: flags.into(),
            timestamp: Timestamp::new(12, 345_678),
            ..Metadata::default()
        }
    }

    /// Flags by videodev2.h: 0x40 is an error, 0x2000 a monotonic stamp, 0x4000 a copied one.
    #[test]
    fn buffers_are_used_as_far_as_the_driver_filled_them() {
        let bytes = [1, 2, 3, 4];
        assert_eq!(filled(&bytes, &about(3, 0)), Ok(&bytes[..3]));
        for (used, flags, says) in [(3, 0x40, "damaged"), (0, 0, "empty"), (5, 0, "5 bytes")] {
            let reason = filled(&bytes, &about(used, flags)).expect_err("broken");
            assert!(reason.contains(says), "{reason}");
        }
        assert_eq!(
            stamp(&about(3, 0x2001)),
            Some(Duration::from_micros(12_345_678))
        );
        assert_eq!(stamp(&about(3, 0x4000)), None);
        assert_eq!(stamp(&about(3, 0)), None);
    }

    #[test]
    fn gaps_in_the_driver_s_numbers_are_dropped_frames() {
        let mut sequence = Sequence::default();
        let mut advance = |driver| (sequence.advance(driver), mem::take(&mut sequence.dropped));
        assert_eq!(advance(u32::MAX - 1), (u64::from(u32::MAX) - 1, 0));
        assert_eq!(advance(u32::MAX), (u64::from(u32::MAX), 0));
        assert_eq!(advance(2), (u64::from(u32::MAX) + 3, 2), "round the end");
        assert_eq!(
            advance(2).0,
            u64::from(u32::MAX) + 4,
            "one that stands still"
        );
        assert_eq!(
            advance(0),
            (u64::from(u32::MAX) + 5, 0),
            "one that goes back"
        );
    }
}

//! What is typed. Parsing touches no file; what the arguments mean is resolved by the subcommands.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use log::LevelFilter;
use shipwatch::detect::{Options, Polygon, Regions};
use shipwatch::frame::{Lens, Percentiles};
use shipwatch::source::decode::DecodeOptions;

use crate::exit;
use crate::logging::Verbosity;

/// Finds ships in overhead images on the board that took them.
#[derive(Debug, Parser)]
#[command(version, after_long_help = exit::HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) verbosity: Verbosity,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Detect(DetectArgs),
    Run(RunArgs),
    Status(StatusArgs),
    Check(CheckArgs),
    Bench(BenchArgs),
    /// List the cameras that are plugged in, with the formats and sizes they offer
    #[cfg(feature = "camera")]
    Cameras,
    /// Look at one file that may end the process, as the daemon does with those that it suspects
    #[command(hide = true)]
    Trial(DetectArgs),
}

impl Command {
    /// How much is said without `-v` and `-q`: a daemon's log tells of every frame.
    pub(crate) fn usual_level(&self) -> LevelFilter {
        match self {
            Self::Run(_) => LevelFilter::Info,
            _ => LevelFilter::Warn,
        }
    }
}

/// Find ships in image files and print them.
///
/// Reads JPEG, PNG, TIFF, WebP and BMP. Prints one JSON object per frame, or the submission form of
/// the Airbus Ship Detection challenge. Pixel coordinates are those of the stored image. A file that
/// cannot be read is reported and skipped.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(crate) struct DetectArgs {
    /// Image files, and folders of them; a file that is named twice counts once
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,

    /// Search folders below the folders named, too
    #[arg(short, long)]
    pub(crate) recursive: bool,

    /// What to print
    #[arg(short, long, value_enum, default_value_t = Format::Jsonl)]
    pub(crate) format: Format,

    /// Threads that look at tiles; as many as there are processors by default
    #[arg(long, value_name = "N", value_parser = threads)]
    pub(crate) threads: Option<NonZeroUsize>,

    /// Write each frame with outlined ships and their scores into this folder, as PNG
    #[arg(long, value_name = "DIR")]
    pub(crate) overlay: Option<PathBuf>,

    /// Use the models in this folder instead of those built in
    #[arg(long, value_name = "DIR", help_heading = "Models")]
    pub(crate) models: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) tuning: TuningArgs,

    #[command(flatten)]
    pub(crate) decoding: DecodingArgs,
}

/// Watch a folder and append what is found to a file of JSON lines.
///
/// Image files that lie in the folder count, and those that arrive, once they are whole. Stops on
/// SIGINT and SIGTERM, after the frame in hand; on SIGHUP the config and the models are read again, and stay as they
/// were if the new ones are no good. What is typed here wins over the config file.
#[derive(Debug, Clone, Args)]
#[command(after_help = RUN_EXAMPLES, after_long_help = format!("{RUN_EXAMPLES}\n\n{}", exit::HELP))]
pub(crate) struct RunArgs {
    /// Read this config file; its paths are relative to the folder it lies in
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Watch this folder; `incoming` by default
    #[arg(long, value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,

    /// Create the watched folder where it is missing
    #[arg(long)]
    pub(crate) create: bool,

    /// Append to this file, or print on standard output if it is `-`; `detections.jsonl` by default
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Write each frame with outlined ships and their scores into this folder, as PNG
    #[arg(long, value_name = "DIR")]
    pub(crate) overlay: Option<PathBuf>,

    /// Use the models in this folder instead of those built in
    #[arg(long, value_name = "DIR")]
    pub(crate) models: Option<PathBuf>,

    /// Keep the status in this folder; systemd's for the service, or the user's, by default
    #[arg(long, value_name = "DIR")]
    pub(crate) runtime_folder: Option<PathBuf>,

    /// Process the files that are there and end; code 65 if any was broken
    #[arg(long)]
    pub(crate) once: bool,

    /// Process files again that are done already, as the ledger beside the detections has it
    #[arg(long)]
    pub(crate) reprocess: bool,
}

const RUN_EXAMPLES: &str = "\
Examples:
  shipwatch run --create                      watch ./incoming, append to ./detections.jsonl
  shipwatch run --folder cam --overlay seen   another folder, with pictures to look at
  shipwatch run --config config.toml          as the config file says";

/// Print what a running daemon is doing: its sources, rates, drops, the last detections, disks and models.
///
/// Ends with 69 if none runs.
#[derive(Debug, Args)]
#[command(after_long_help = exit::HELP)]
pub(crate) struct StatusArgs {
    /// The runtime folder of the daemon; the service's or the user's by default
    #[arg(long, value_name = "DIR")]
    pub(crate) runtime_folder: Option<PathBuf>,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Check the config, the folders it names and the models, and find known ships on a built-in image.
///
/// Prints a line per check. Without --config only the models are checked.
#[derive(Debug, Args)]
#[command(after_long_help = exit::HELP)]
pub(crate) struct CheckArgs {
    /// Check this config file and the folders it names
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Check the models in this folder instead of those configured or built in
    #[arg(long, value_name = "DIR")]
    pub(crate) models: Option<PathBuf>,
}

/// Measure how long frames take on this machine, stage by stage, or how long one network takes.
///
/// Measures at steady state, after a warm-up of a tenth of the time: a built-in frame of 768x768 pixels, by
/// turns as one whose tiles all stop at the gate (empty) and one whose tiles all go on (full). Prints times,
/// frames per second, peak memory, what the int8 engine runs, and the board's temperature and clock where the
/// system tells them. Boards throttle after minutes: give --seconds 600 to see it.
#[derive(Debug, Args)]
#[command(after_help = BENCH_EXAMPLES, after_long_help = format!("{BENCH_EXAMPLES}\n\n{}", exit::HELP))]
pub(crate) struct BenchArgs {
    /// Measure this network alone instead, an ONNX file, on pictures of its input's size
    ///
    /// Each run starts from the picture's RGB bytes. How these become numbers is read from the file's
    /// metadata; without any, it is (byte - 127.5) / 127.5.
    #[arg(long, value_name = "FILE")]
    pub(crate) model: Option<PathBuf>,

    /// Use the models in this folder instead of those built in
    #[arg(long, value_name = "DIR", conflicts_with = "model")]
    pub(crate) models: Option<PathBuf>,

    /// Threads that look at tiles; as many as there are processors by default, and one with --model
    ///
    /// With --model, they share the rows of each layer that the int8 engine runs.
    #[arg(long, value_name = "N", value_parser = threads)]
    pub(crate) threads: Option<NonZeroUsize>,

    /// Length of the measured part in seconds
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds, allow_negative_numbers = true)]
    pub(crate) seconds: Duration,

    /// Print the least time of each layer that the int8 engine runs, measured for as long again
    #[arg(long, requires = "model")]
    pub(crate) layers: bool,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

const BENCH_EXAMPLES: &str = "\
Examples:
  shipwatch bench                                   the built-in models
  shipwatch bench --seconds 600 --threads 1         one thread, long enough to throttle
  shipwatch bench --model gate.onnx --layers        one network, layer by layer";

/// How frames meet the networks.
#[derive(Debug, Args)]
#[command(next_help_heading = "Models")]
pub(crate) struct TuningArgs {
    /// Resample frames by this factor before looking; wins over --gsd
    #[arg(long, value_name = "FACTOR", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) scale: Option<f64>,

    /// Ground resolution of the stored images in metres per pixel
    ///
    /// Frames outside of the range that the models were trained for are resampled to reach it, with one
    /// warning, and ships are measured in metres. Wins over --altitude and over a file's own tags.
    #[arg(long, value_name = "METRES", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) gsd: Option<f64>,

    /// Look closely at tiles whose gate score reaches this; the models' own by default
    #[arg(long, value_name = "PROBABILITY", value_parser = probability, allow_negative_numbers = true)]
    pub(crate) gate: Option<f32>,

    /// Take pixels for ship that reach this; the models' own by default
    #[arg(long, value_name = "PROBABILITY", value_parser = probability, allow_negative_numbers = true)]
    pub(crate) mask: Option<f32>,

    /// Drop ships with fewer pixels at the scale the networks see; the models' own by default
    #[arg(long, value_name = "PIXELS")]
    pub(crate) min_area: Option<u32>,

    #[command(flatten)]
    pub(crate) optics: OpticsArgs,

    #[command(flatten)]
    pub(crate) regions: RegionArgs,
}

impl TuningArgs {
    pub(crate) fn options(&self) -> Options {
        Options {
            scale: self.scale,
            gsd: self.gsd,
            swath: self.optics.swath(),
            gate: self.gate,
            mask: self.mask,
            min_area: self.min_area,
            regions: self.regions.regions(),
        }
    }
}

/// What gives the ground resolution of images taken straight down.
#[derive(Debug, Args)]
#[command(next_help_heading = "Optics")]
pub(crate) struct OpticsArgs {
    /// Height in metres from which images were taken straight down: gives --gsd with a lens named as well
    #[arg(long, value_name = "METRES", requires = "lens", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) altitude: Option<f64>,

    /// Focal length of the lens itself, not its equivalent on film
    #[arg(
        long,
        value_name = "MM",
        group = "lens",
        requires_all = ["sensor_width", "altitude"],
        value_parser = positive,
        allow_negative_numbers = true
    )]
    pub(crate) focal_length: Option<f64>,

    /// Width of what the images show of the sensor
    #[arg(long, value_name = "MM", requires = "focal_length", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) sensor_width: Option<f64>,

    /// Angle that the width of an image spans, below 180, instead of focal length and sensor
    #[arg(
        long,
        value_name = "DEGREES",
        group = "lens",
        requires = "altitude",
        value_parser = angle,
        allow_negative_numbers = true
    )]
    pub(crate) field_of_view: Option<f64>,
}

impl OpticsArgs {
    fn swath(&self) -> Option<f64> {
        let lens = Lens::of(self.focal_length, self.sensor_width, self.field_of_view)?;
        Some(lens.swath(self.altitude?))
    }
}

/// Where in frames ships count.
#[derive(Debug, Args)]
#[command(next_help_heading = "Regions")]
pub(crate) struct RegionArgs {
    /// Count ships inside this polygon alone; may be repeated
    ///
    /// Written as '0,0 1,0 1,0.5': corners are fractions of an image's width and height, from its top left. A ship counts if its centroid lies
    /// inside. Tiles that lie outside are not looked at, which saves their time.
    #[arg(long, value_name = "POLYGON")]
    pub(crate) look: Vec<Polygon>,

    /// Count no ships inside this polygon: land, the drone's own feet, a caption; may be repeated
    #[arg(long, value_name = "POLYGON")]
    pub(crate) ignore: Vec<Polygon>,
}

impl RegionArgs {
    pub(crate) fn regions(&self) -> Regions {
        Regions {
            look: self.look.clone(),
            ignore: self.ignore.clone(),
        }
    }
}

/// How files become frames.
#[derive(Debug, Args)]
#[command(next_help_heading = "Decoding")]
pub(crate) struct DecodingArgs {
    /// Stretch values between two percentiles to the full range; 2,98 unless named
    ///
    /// For 16-bit and floating-point images whose values fill little of their range.
    #[arg(
        long,
        value_name = "LOW,HIGH",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2,98"
    )]
    pub(crate) stretch: Option<Percentiles>,

    /// Refuse images with more pixels than this, before any memory is taken for them
    #[arg(long, value_name = "N", default_value_t = MAX_PIXELS)]
    pub(crate) max_pixels: NonZeroU64,
}

const MAX_PIXELS: NonZeroU64 = NonZeroU64::new(DecodeOptions::MAX_PIXELS).expect("above zero");

impl DecodingArgs {
    pub(crate) fn options(&self) -> DecodeOptions {
        DecodeOptions {
            max_pixels: self.max_pixels.get(),
            stretch: self.stretch,
        }
    }
}

/// What `detect` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON object per frame
    Jsonl,
    /// `ImageId,EncodedPixels`, one row per ship
    Csv,
}

const EXAMPLES: &str = "\
Examples:
  shipwatch detect scene.tif                        one JSON object on standard output
  shipwatch detect --overlay seen images/           the same for a folder, with pictures to look at
  shipwatch detect --format csv test_v2 > out.csv   the Airbus challenge's submission form
  shipwatch detect --gsd 0.3 --stretch aerial.tif   0.3 m per pixel, 16 bits, most of them unused";

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if f64::is_finite(value) && value > 0.0 => Ok(value),
        _ => Err("must be a positive number".into()),
    }
}

fn angle(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if value > 0.0 && value < 180.0 => Ok(value),
        _ => Err("must lie between 0 and 180 degrees".into()),
    }
}

fn threads(text: &str) -> Result<NonZeroUsize, String> {
    /// More than processors have cores; many more would stall the machine.
    const MOST: usize = 1024;
    match text.parse() {
        Ok(count) if NonZeroUsize::get(count) <= MOST => Ok(count),
        _ => Err(format!("must be a whole number from 1 to {MOST}")),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    const DAY: f64 = 86_400.0;
    match text.parse() {
        Ok(value) if value > 0.0 && value <= DAY => Ok(Duration::from_secs_f64(value)),
        _ => Err(format!("must be a number above 0 and not above {DAY}")),
    }
}

fn probability(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("must be a number between 0 and 1".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_length_is_a_part_of_a_day() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for wrong in ["0", "-1", "nan", "inf", "1e300", "soon", ""] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn threads_are_no_more_than_a_machine_can_run() {
        assert_eq!(threads("1"), Ok(NonZeroUsize::MIN));
        assert!(threads("1024").is_ok());
        for wrong in ["0", "-1", "1025", "100000000", "1.5", ""] {
            assert!(threads(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}

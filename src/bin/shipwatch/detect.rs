//! `shipwatch detect`: files in, records out.

use std::io::{self, IsTerminal, Stdout};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use log::{error, info};
use shipwatch::frame::Frame;
use shipwatch::model::{Bundle, Manifest};
use shipwatch::record::{FrameRecord, milliseconds};
use shipwatch::sink::{AirbusCsv, Form, JsonLines, Lines, Overlay, Pictures};
use shipwatch::source::decode::{DecodeOptions, decode_file};

use crate::cli::{DetectArgs, Format};
use crate::exit::{Exit, Failure, OrExit, explain};
use crate::inputs::{self, Input};
use crate::lookout::Lookout;

/// What the arguments mean.
struct Job {
    inputs: Vec<Input>,
    lookout: Lookout,
    decoding: DecodeOptions,
    lines: Lines<Stdout>,
    overlay: Option<Pictures>,
}

/// Runs the subcommand.
pub(crate) fn run(args: DetectArgs) -> Result<Exit, Failure> {
    Job::resolve(args)?.run()
}

/// The models in `dir`, or those that are built in.
pub(crate) fn load_models(dir: Option<&Path>) -> Result<Bundle, Failure> {
    let start = Instant::now();
    let bundle = match dir {
        Some(dir) => Bundle::load(dir)?,
        None => Bundle::embedded()?,
    };
    let Manifest { name, version, .. } = &bundle.manifest;
    let millis = 1e3 * start.elapsed().as_secs_f64();
    info!("models {name} {version}, loaded in {millis:.0} ms");
    Ok(bundle)
}

/// Lets this many threads look at tiles, or as many as there are processors.
pub(crate) fn use_threads(threads: Option<NonZeroUsize>) -> Result<(), Failure> {
    match threads {
        Some(threads) => rayon::ThreadPoolBuilder::new()
            .num_threads(threads.get())
            .build_global()
            .or_exit(Exit::Software),
        None => Ok(()),
    }
}

impl Job {
    fn resolve(args: DetectArgs) -> Result<Self, Failure> {
        let inputs = inputs::list(&args.paths, args.recursive).or_exit(Exit::NoInput)?;
        let models = load_models(args.models.as_deref())?;
        use_threads(args.threads)?;
        let overlay = args.overlay.as_deref().map(|folder| {
            let regions = vec![args.tuning.regions.regions()];
            Pictures::new(folder, Box::new(Overlay { regions }))
        });
        Ok(Self {
            inputs,
            lookout: Lookout::new(models, vec![args.tuning.options()]),
            decoding: args.decoding.options(),
            overlay: overlay.transpose()?,
            lines: Lines::new(form(args.format), io::stdout())
                .context("standard output")
                .or_exit(Exit::Io)?,
        })
    }

    /// Processes all inputs; one that fails is reported and skipped.
    fn run(mut self) -> Result<Exit, Failure> {
        let inputs = std::mem::take(&mut self.inputs);
        let frames = inputs.len();
        let progress = progress(frames);
        let mut failed = 0;
        for input in inputs {
            progress.set_message(input.name.clone());
            match self.look(input) {
                Ok((frame, record)) => progress.suspend(|| self.write(&frame, &record))?,
                Err(failure) => {
                    failed += 1;
                    progress.suspend(|| error!("{}", explain(&failure)));
                }
            }
            progress.inc(1);
        }
        progress.finish_and_clear();
        if failed == 0 {
            return Ok(Exit::Success);
        }
        error!("{failed} of {frames} frames failed");
        Ok(Exit::Data)
    }

    fn look(&self, input: Input) -> anyhow::Result<(Frame, FrameRecord)> {
        let start = Instant::now();
        let mut frame = decode_file(&input.path, &self.decoding)?;
        let decode = start.elapsed();
        frame.name = input.name;
        let mut record = self
            .lookout
            .look(0, &frame)
            .with_context(|| input.path.display().to_string())?;
        record.millis.decode = milliseconds(decode);
        Ok((frame, record))
    }

    fn write(&mut self, frame: &Frame, record: &FrameRecord) -> Result<(), Failure> {
        if let Some(overlay) = &self.overlay {
            overlay
                .write(0, &frame.pixels, record, None)
                .or_exit(Exit::CannotCreate)?;
        }
        self.lines
            .write(record)
            .context("standard output")
            .or_exit(Exit::Io)
    }
}

fn form(format: Format) -> Box<dyn Form> {
    match format {
        Format::Jsonl => Box::new(JsonLines),
        Format::Csv => Box::new(AirbusCsv),
    }
}

/// A bar where a person watches, and nothing in a pipe.
fn progress(frames: usize) -> ProgressBar {
    if !io::stderr().is_terminal() || frames < 2 {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {eta}")
        .expect("the template is well-formed");
    ProgressBar::new(frames as u64).with_style(style)
}

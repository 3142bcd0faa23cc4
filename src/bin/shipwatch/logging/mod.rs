//! Messages for people, on standard error.

mod journal;
mod line;
mod repeats;

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use clap::Args;
use env_logger::WriteStyle;
use env_logger::fmt::Formatter;
use log::{Level, LevelFilter, log};
use shipwatch::clock::MonotonicClock;
use shipwatch::detect::Clock;

use line::Form;
use repeats::{Repeats, Summary};

/// The variable that overrides `-v` and `-q`.
const VARIABLE: &str = "SHIPWATCH_LOG";

/// The target of messages about messages, which are not counted themselves.
const SUMMARY: &str = "shipwatch::summary";

static REPEATS: Mutex<Repeats> = Mutex::new(Repeats::new());

/// How much is said.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Messages")]
pub(crate) struct Verbosity {
    /// Say more; twice for details. SHIPWATCH_LOG overrides it, as in `SHIPWATCH_LOG=debug`
    #[arg(short, long, action = clap::ArgAction::Count, global = true, conflicts_with = "quiet")]
    verbose: u8,
    /// Report errors only
    #[arg(short, long, global = true)]
    quiet: bool,
}

impl Verbosity {
    fn level(self, usual: LevelFilter) -> LevelFilter {
        if self.quiet {
            return LevelFilter::Error;
        }
        let raised = LevelFilter::iter().nth(usual as usize + usize::from(self.verbose));
        raised.unwrap_or(LevelFilter::Debug).min(LevelFilter::Debug)
    }
}

/// A text that may hold any character as one line, with all that moves a cursor written out.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    Form::Plain.text(text)
}

/// Sends this program's messages to standard error, and the errors of its libraries; `usual` is the
/// level without `-v` and `-q`.
///
/// Where the journal reads them, a line begins with its priority, as sd-daemon(3) says. A warning or an error that
/// comes again and again is shown a few times a minute and then counted.
pub(crate) fn init(verbosity: Verbosity, usual: LevelFilter) {
    let mut builder = env_logger::Builder::new();
    match std::env::var(VARIABLE) {
        Ok(filters) => builder.parse_filters(&filters),
        Err(_) => builder
            .filter_level(LevelFilter::Error)
            .filter_module("shipwatch", verbosity.level(usual)),
    };
    let form = if journal::reads_stderr() {
        builder.write_style(WriteStyle::Never);
        Form::Journal
    } else if io::stderr().is_terminal() {
        Form::Terminal
    } else {
        Form::Plain
    };
    let clock = MonotonicClock::new();
    builder
        .format(move |out, record| {
            let text = record.args().to_string();
            let mut repeats = REPEATS.lock().unwrap_or_else(PoisonError::into_inner);
            let now = clock.now();
            for summary in repeats.over(now) {
                write(out, form, summary.level, &summary.to_string())?;
            }
            let shown = record.target() == SUMMARY || repeats.admit(record.level(), &text, now);
            match shown {
                true => write(out, form, record.level(), &text),
                false => Ok(()),
            }
        })
        .init();
}

/// Says what was counted and not yet said.
pub(crate) fn end() {
    let rest: Vec<Summary> = {
        let mut repeats = REPEATS.lock().unwrap_or_else(PoisonError::into_inner);
        repeats.rest().collect()
    };
    for summary in rest {
        log!(target: SUMMARY, summary.level, "{summary}");
    }
}

fn write(out: &mut Formatter, form: Form, level: Level, text: &str) -> io::Result<()> {
    let text = form.text(text);
    match form {
        Form::Journal => writeln!(out, "<{}>{text}", journal::priority(level)),
        Form::Terminal | Form::Plain => {
            let style = out.default_level_style(level);
            let name = level.as_str().to_lowercase();
            writeln!(out, "{style}{name}{style:#}: {text}")
        }
    }
}

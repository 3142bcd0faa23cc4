//! Messages for people, on standard error.

use std::io::Write;

use clap::Args;
use log::LevelFilter;

/// The variable that overrides `-v` and `-q`.
const VARIABLE: &str = "SHIPWATCH_LOG";

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

/// Sends this program's messages to standard error, and the errors of its libraries; `usual` is the
/// level without `-v` and `-q`.
pub(crate) fn init(verbosity: Verbosity, usual: LevelFilter) {
    let mut builder = env_logger::Builder::new();
    match std::env::var(VARIABLE) {
        Ok(filters) => builder.parse_filters(&filters),
        Err(_) => builder
            .filter_level(LevelFilter::Error)
            .filter_module("shipwatch", verbosity.level(usual)),
    };
    builder
        .format(|out, record| {
            let style = out.default_level_style(record.level());
            let level = record.level().as_str().to_lowercase();
            writeln!(out, "{style}{level}{style:#}: {}", record.args())
        })
        .init();
}

//! The edge binary: finds ships in frames.

mod cli;
mod detect;
mod exit;
mod inputs;
mod logging;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use exit::{Exit, Failure};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::report_usage(&error),
    };
    logging::init(cli.verbosity);
    match run(cli.command) {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report(),
    }
}

fn run(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Detect(args) => detect::run(args),
    }
}

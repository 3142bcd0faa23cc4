//! The edge binary: finds ships in frames.

#[cfg(feature = "camera")]
mod cameras;
mod check;
mod cli;
mod detect;
mod exit;
mod inputs;
mod logging;
mod run;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use exit::{Exit, Failure};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::report_usage(&error),
    };
    logging::init(cli.verbosity, cli.command.usual_level());
    match dispatch(cli.command) {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report(),
    }
}

fn dispatch(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Detect(args) => detect::run(args),
        Command::Run(args) => run::run(args),
        Command::Check(args) => check::run(args),
        #[cfg(feature = "camera")]
        Command::Cameras => cameras::run(),
    }
}

//! The edge binary: finds ships in frames.

mod bench;
#[cfg(feature = "camera")]
mod cameras;
mod check;
mod cli;
mod detect;
mod exit;
mod inputs;
mod logging;
mod lookout;
mod run;
mod runtime;
mod service;
mod status;

use std::panic::{self, AssertUnwindSafe};
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
    shipwatch::contain::report_only_uncontained();
    let code = match panic::catch_unwind(AssertUnwindSafe(|| dispatch(cli.command))) {
        Ok(Ok(exit)) => exit.into(),
        Ok(Err(failure)) => failure.report(),
        // The panic has reported itself.
        Err(_) => Exit::Software.into(),
    };
    logging::end();
    code
}

fn dispatch(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Detect(args) => detect::run(args),
        Command::Run(args) => run::run(args),
        Command::Status(args) => status::run(&args),
        Command::Trial(args) => run::try_alone(args),
        Command::Check(args) => check::run(args),
        Command::Bench(args) => bench::run(args),
        #[cfg(feature = "camera")]
        Command::Cameras => cameras::run(),
    }
}

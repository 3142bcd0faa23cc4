//! `shipwatch bench`: how long networks take at steady state.

mod board;
mod chain;
mod figures;
mod layers;
mod network;
mod picture;
mod table;

use std::fmt::Display;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use crate::cli::BenchArgs;
use crate::exit::{Exit, Failure, OrExit};

/// Runs the subcommand.
pub(crate) fn run(args: BenchArgs) -> Result<Exit, Failure> {
    let BenchArgs {
        model,
        models,
        threads,
        seconds,
        layers,
        json,
    } = args;
    match model {
        Some(file) => {
            let threads = threads.unwrap_or(NonZeroUsize::MIN);
            let plan = network::Plan {
                threads,
                length: seconds,
                layers,
            };
            print(&network::measure(&file, &plan)?, json)
        }
        None => print(&chain::measure(models.as_deref(), threads, seconds)?, json),
    }
}

fn print(report: &(impl Serialize + Display), json: bool) -> Result<Exit, Failure> {
    let text = match json {
        true => serde_json::to_string(report).or_exit(Exit::Software)? + "\n",
        false => report.to_string(),
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("standard output")
        .or_exit(Exit::Io)?;
    Ok(Exit::Success)
}

/// The part of the measured time that runs before it, until caches, clocks and memory are what they stay.
fn warm_up(length: Duration) -> Duration {
    length / 10
}

//! Trains shipwatch's networks on a workstation and exports them for the edge.

mod bench;
mod config;
mod curves;
mod data;
mod device;
mod estimate;
mod eval;
mod export;
mod files;
mod grid;
mod logging;
mod loss;
mod lr_range;
mod memory;
mod miner;
mod nn;
mod plot;
mod progress;
mod quant;
mod quantize;
mod release;
mod run;
mod run_folder;
mod run_info;
mod schedule;
mod split;
mod start;
mod stats;
mod stop;
mod task;
mod tensors;
mod tiles;
mod trainer;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Trains shipwatch's gate and U-Net, exports them as ONNX and judges them.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Count what data sets hold.
    Stats(stats::Args),
    /// Set images aside for tuning and testing so that no scene is on two sides.
    Split(split::Args),
    /// Write contact sheets of the tiles that training sees, the ships outlined.
    Tiles(tiles::Args),
    /// Find a learning rate for a phase: raise it step by step and watch the loss.
    LrRange(lr_range::Args),
    /// Train the gate, then the U-Net on its encoder; going on where a stopped run left off.
    Run(run::Args),
    /// Write a trained run as a model bundle: ONNX, thresholds tuned, scores measured.
    Export(release::Args),
    /// Turn a trained run into a bundle of int8 networks, and measure what that loses.
    Quantize(quantize::Args),
    /// Write the frames by which models are judged, in the challenge's layout.
    Frames(eval::frames::Args),
    /// Judge a model bundle by the code that the edge runs.
    Eval(eval::Args),
    /// Measure how fast this machine trains, on made-up tiles.
    Bench(bench::Args),
}

fn main() -> Result<ExitCode> {
    logging::init();
    let cli = Cli::parse();
    memory::keep();
    match cli.command {
        Command::Stats(args) => stats::run(&args)?,
        Command::Split(args) => split::run(&args)?,
        Command::Tiles(args) => tiles::run(&args)?,
        Command::LrRange(args) => lr_range::run(args)?,
        Command::Run(args) => return run::run(args),
        Command::Export(args) => release::run(&args)?,
        Command::Quantize(args) => return quantize::run(&args),
        Command::Frames(args) => eval::frames::run(&args)?,
        Command::Eval(args) => eval::run(&args)?,
        Command::Bench(args) => bench::run(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

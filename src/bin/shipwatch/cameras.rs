//! `shipwatch cameras`: what is plugged in.

use std::io::{self, Write};

use anyhow::Context;
use log::warn;
use shipwatch::source::camera::{self, CameraInfo};

use crate::exit::{Exit, Failure, OrExit};

/// Runs the subcommand.
pub(crate) fn run() -> Result<Exit, Failure> {
    let mut cameras = Vec::new();
    for camera in camera::list() {
        match camera {
            Ok(camera) => cameras.push(camera),
            Err(error) => warn!("{error}"),
        }
    }
    print(&cameras)
        .context("standard output")
        .or_exit(Exit::Io)?;
    Ok(Exit::Success)
}

fn print(cameras: &[CameraInfo]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if cameras.is_empty() {
        writeln!(out, "no camera found")?;
    }
    for camera in cameras {
        writeln!(
            out,
            "{}  {} ({})",
            camera.path.display(),
            camera.card,
            camera.driver
        )?;
        for format in &camera.formats {
            let sizes: Vec<String> = format.sizes.iter().map(ToString::to_string).collect();
            writeln!(
                out,
                "  {}  {}: {}",
                format.fourcc,
                format.description,
                sizes.join(", ")
            )?;
        }
    }
    Ok(())
}

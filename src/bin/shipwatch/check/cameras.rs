//! What a camera grants of what the config wants, and what else it offers.

use std::path::Path;

use anyhow::Context;
use shipwatch::daemon::config::SourceConfig;
use shipwatch::source::camera::{self, Camera, CameraError, CameraErrorKind, CameraInfo};

use super::report::{Report, passed};
use crate::exit::{Exit, Failure};
use crate::runtime::{self, Daemon, daemon};

/// Opens the camera of a source as the daemon would, whose runtime folder may be told.
pub(super) fn check_camera(
    source: &SourceConfig,
    runtime_folder: Option<&Path>,
    report: &mut Report,
) -> Result<(), Failure> {
    let Some(options) = source.camera_options() else {
        return Ok(());
    };
    // Asked before it captures: some drivers tell less while they do.
    let node = options.path.canonicalize();
    let listed = camera::list().into_iter().flatten();
    let mut listed = listed.filter(|camera| node.as_ref().is_ok_and(|node| *node == camera.path));
    let offers = listed.next().map(|camera| offers(&camera));
    let named = format!("camera of source `{}`", source.name);
    let opened = Camera::open(&options);
    if opened.as_ref().is_err_and(is_busy) && may_run(runtime_folder) {
        let words = "in use, as by the daemon that runs; to have it tried, stop that (sudo systemctl stop shipwatch)";
        return report.note("source", format_args!("{named}: {words}"));
    }
    let opened = opened
        .with_context(|| named.clone())
        .and_then(|camera| passed(camera.granted().clone(), camera.granted()));
    let granted = report.check("source", Exit::Config, opened)?;
    for difference in granted.iter().flat_map(|granted| &granted.differences) {
        report.note("source", format_args!("{named}: {difference}"))?;
    }
    match offers {
        Some(offers) => report.ok("offers", offers),
        None => Ok(()),
    }
}

fn is_busy(error: &CameraError) -> bool {
    matches!(error.kind, CameraErrorKind::Busy(_))
}

/// Whether a daemon runs that may have the camera, as far as the user may know.
fn may_run(runtime_folder: Option<&Path>) -> bool {
    let mut folders = runtime::candidates(runtime_folder).into_iter();
    folders.any(|folder| daemon(&folder) != Daemon::RunsNot)
}

fn offers(camera: &CameraInfo) -> String {
    let formats = camera.formats.iter().map(|format| {
        let sizes: Vec<String> = format.sizes.iter().map(ToString::to_string).collect();
        match sizes.is_empty() {
            true => format.fourcc.clone(),
            false => format!("{}: {}", format.fourcc, sizes.join(", ")),
        }
    });
    formats.collect::<Vec<_>>().join("\n")
}

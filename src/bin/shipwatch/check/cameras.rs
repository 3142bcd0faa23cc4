//! What a camera grants of what the config wants, and what else it offers.

use anyhow::Context;
use shipwatch::daemon::config::SourceConfig;
use shipwatch::source::camera::{self, Camera, CameraInfo};

use super::report::{Report, passed};
use crate::exit::{Exit, Failure};

/// Opens the camera of a source as the daemon would.
pub(super) fn check_camera(source: &SourceConfig, report: &mut Report) -> Result<(), Failure> {
    let Some(options) = source.camera_options() else {
        return Ok(());
    };
    // Asked before it captures: some drivers tell less while they do.
    let node = options.path.canonicalize();
    let listed = camera::list().into_iter().flatten();
    let mut listed = listed.filter(|camera| node.as_ref().is_ok_and(|node| *node == camera.path));
    let offers = listed.next().map(|camera| offers(&camera));
    let opened = Camera::open(&options);
    let opened = opened
        .with_context(|| format!("camera of source `{}`", source.name))
        .and_then(|camera| passed(camera.granted().clone(), camera.granted()));
    let granted = report.check("source", Exit::Config, opened)?;
    for difference in granted.iter().flat_map(|granted| &granted.differences) {
        let name = &source.name;
        report.note(
            "source",
            format_args!("camera of source `{name}`: {difference}"),
        )?;
    }
    match offers {
        Some(offers) => report.ok("offers", offers),
        None => Ok(()),
    }
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

//! Runs the real binary in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use image::{Rgb, RgbImage};

/// A folder that goes away with the test.
pub(crate) struct Dir(tempfile::TempDir);

impl Dir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("within the folder")).expect("a folder");
        std::fs::write(&path, bytes).expect("a file");
        path
    }

    /// A black image with white boxes: x, y, width, height. Its format follows from its name.
    pub(crate) fn image(&self, name: &str, size: (u32, u32), boxes: &[[u32; 4]]) -> PathBuf {
        let path = self.write(name, "");
        let white = |x, y| {
            boxes.iter().any(|&[left, top, width, height]| {
                (left..left + width).contains(&x) && (top..top + height).contains(&y)
            })
        };
        RgbImage::from_fn(size.0, size.1, |x, y| {
            Rgb([if white(x, y) { 255 } else { 0 }; 3])
        })
        .save(&path)
        .expect("an image");
        path
    }

    /// `shipwatch` with this folder as its working directory, a runtime folder in it, and nothing that the
    /// caller's environment says of logging.
    pub(crate) fn shipwatch(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shipwatch"));
        command
            .current_dir(self.0.path())
            .args(args)
            .env("RUNTIME_DIRECTORY", self.path("runtime"))
            .env_remove("SHIPWATCH_LOG");
        command
    }

    /// Runs [`Dir::shipwatch`] to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Outcome {
        Outcome::of(&mut self.shipwatch(args))
    }
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    pub(crate) fn of(command: &mut Command) -> Self {
        let Output {
            status,
            stdout,
            stderr,
        } = command.output().expect("the binary starts");
        Self {
            code: status.code(),
            stdout: String::from_utf8(stdout).expect("UTF-8"),
            stderr: String::from_utf8(stderr).expect("UTF-8"),
        }
    }
}

/// The bundle for which bright pixels are ships.
pub(crate) fn bright_models() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bright");
    folder.to_str().expect("UTF-8").to_owned()
}

//! A bundle's networks in another runtime, which a child process holds.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use image::RgbImage;
use shipwatch::detect::{Maps, TileNetworks};
use shipwatch::inference::InferenceError;

/// A child process that runs the networks, one tile at a time.
///
/// A request on its standard input is a byte that names the network, and a tile as `[S, S, 3]` bytes. The
/// answer on its standard output is the number of values as u32, and the network's output as f32, both
/// little-endian. What it says on standard error is for people.
pub(crate) struct Peer {
    command: String,
    child: Child,
    /// Side of a tile.
    tile: u32,
    /// None once an exchange has failed: what comes next would be the rest of that one.
    pipes: Mutex<Option<Pipes>>,
}

struct Pipes {
    requests: ChildStdin,
    answers: ChildStdout,
}

/// A network, as requests name it.
#[derive(Debug, Clone, Copy)]
enum Network {
    Gate = 0,
    UNet = 1,
}

impl Peer {
    /// Starts `command`, split at white space, with the paths of the two networks as last arguments, and
    /// shows a black tile to both.
    ///
    /// # Errors
    /// If it cannot be started, or does not answer as it should.
    pub(crate) fn start(command: &str, gate: &Path, unet: &Path, tile: u32) -> Result<Self> {
        let mut words = command.split_whitespace();
        let program = words
            .next()
            .context("the command of another runtime is empty")?;
        let mut child = Command::new(program)
            .args(words)
            .args([gate, unet])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("`{command}`: cannot start `{program}`"))?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let pipes = pipes.map(|(requests, answers)| Pipes { requests, answers });
        let peer = Self {
            command: command.to_owned(),
            child,
            tile,
            pipes: Mutex::new(pipes),
        };
        let black = RgbImage::new(tile, tile);
        peer.gate(&black)?;
        peer.segment(&black)?;
        Ok(peer)
    }

    /// The output of a network, of one of some lengths.
    fn ask(
        &self,
        network: Network,
        tile: &RgbImage,
        lengths: &[usize],
    ) -> Result<Vec<f32>, InferenceError> {
        let failed = |how: String| InferenceError::Run(format!("`{}` {how}", self.command));
        let mut place = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pipes = place
            .take()
            .ok_or_else(|| failed("has failed before: see its first error".into()))?;
        let output = pipes.ask(network, tile, lengths).map_err(failed)?;
        *place = Some(pipes);
        Ok(output)
    }
}

impl Pipes {
    /// # Errors
    /// How the process failed, to follow its name.
    fn ask(
        &mut self,
        network: Network,
        tile: &RgbImage,
        lengths: &[usize],
    ) -> Result<Vec<f32>, String> {
        let gone = |error: io::Error| format!("ended before it answered ({error})");
        let request = [&[network as u8], tile.as_raw().as_slice()].concat();
        self.requests.write_all(&request).map_err(gone)?;
        self.requests.flush().map_err(gone)?;
        let mut count = [0; 4];
        self.answers.read_exact(&mut count).map_err(gone)?;
        let count = u32::from_le_bytes(count) as usize;
        if !lengths.contains(&count) {
            let wanted: Vec<String> = lengths.iter().map(usize::to_string).collect();
            let wanted = wanted.join(" or ");
            return Err(format!(
                "answered the {network:?} with {count} values, not {wanted}"
            ));
        }
        let mut bytes = vec![0; 4 * count];
        self.answers.read_exact(&mut bytes).map_err(gone)?;
        let (words, _) = bytes.as_chunks::<4>();
        let values: Vec<f32> = words.iter().map(|&word| f32::from_le_bytes(word)).collect();
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(format!("answered the {network:?} with {value}")),
            None => Ok(values),
        }
    }
}

impl TileNetworks for Peer {
    fn gate(&self, tile: &RgbImage) -> Result<f32, InferenceError> {
        let output = self.ask(Network::Gate, tile, &[1])?;
        Ok(output[0].clamp(0.0, 1.0))
    }

    fn segment(&self, tile: &RgbImage) -> Result<Maps, InferenceError> {
        let plane = self.tile as usize * self.tile as usize;
        let output = self.ask(Network::UNet, tile, &[plane, 2 * plane])?;
        Ok(Maps::of_output(&output, self.tile, self.tile))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended already; either way nothing is left of it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use image::Rgb;
    use shipwatch::detect::Detector;
    use shipwatch::model::{Bundle, Manifest};

    use super::*;

    /// Python to run peers with: what `PYTHON` says (`make test` names that of `make peers`), or `python3`.
    fn python() -> String {
        std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned())
    }

    /// Whether there is a Python that runs `code`; says so where not.
    fn can(code: &str) -> bool {
        let mut command = Command::new(python());
        let quiet = command.stderr(Stdio::null()).args(["-c", code]);
        let can = quiet.status().is_ok_and(|status| status.success());
        if !can {
            println!(
                "SKIPPED: {} cannot run `{code}` here: see `make peers`",
                python()
            );
        }
        can
    }

    /// What every peer below starts with: how it reads requests of tiles of 4 x 4 pixels and answers.
    const HEAD: &str = "
import struct, sys
def requests():
    while head := sys.stdin.buffer.read(1):
        yield head[0], sys.stdin.buffer.read(48)
def answer(values, count=None):
    count = len(values) if count is None else count
    sys.stdout.buffer.write(struct.pack(f'<I{len(values)}f', count, *values))
    sys.stdout.buffer.flush()
";

    /// A peer of which `code` is the rest.
    fn start(dir: &tempfile::TempDir, code: &str) -> Result<Peer> {
        let path = dir.path().join("peer.py");
        fs::write(&path, format!("{HEAD}{code}")).expect("writes");
        let command = format!("{} {}", python(), path.display());
        Peer::start(&command, Path::new("a"), Path::new("b"), 4)
    }

    fn words(error: impl std::fmt::Display) -> String {
        error.to_string()
    }

    #[test]
    fn what_a_peer_answers_is_what_the_networks_say() {
        if !can("pass") {
            return;
        }
        let dir = tempfile::tempdir().expect("folder");
        // The gate says the mean of the bytes in hundredths, the U-Net the red of each pixel likewise.
        let code = "
assert sys.argv[1:] == ['a', 'b']
for which, tile in requests():
    answer([sum(tile) / 4800] if which == 0 else [red / 100 for red in tile[::3]])
";
        let peer = start(&dir, code).expect("starts");
        let tile = RgbImage::from_fn(4, 4, |x, y| Rgb([(4 * y + x) as u8 * 10, 40, 20]));
        // Red goes from 0 to 150, 75 on average.
        assert!((peer.gate(&tile).expect("answers") - 0.45).abs() < 1e-6);
        let maps = peer.segment(&tile).expect("answers");
        assert!(maps.centrality.is_none());
        let byte = |x, y| maps.probabilities.get_pixel(x, y).0[0];
        // 0.1, 0.2 and 0.4 of 255 rounded; 1.5 is certain.
        assert_eq!(
            [byte(1, 0), byte(2, 0), byte(0, 1), byte(3, 3)],
            [26, 51, 102, 255]
        );
        // Threads take turns.
        let same = std::thread::scope(|scope| {
            let ask = || peer.segment(&tile).is_ok_and(|other| other == maps);
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads
                .into_iter()
                .all(|thread| thread.join().expect("no panic"))
        });
        assert!(same);
    }

    #[test]
    fn two_planes_are_probability_and_centrality() {
        if !can("pass") {
            return;
        }
        let dir = tempfile::tempdir().expect("folder");
        let code = "
for which, tile in requests():
    answer([0.5] if which == 0 else [0.2] * 16 + [0.6] * 16)
";
        let maps = start(&dir, code).expect("starts");
        let maps = maps.segment(&RgbImage::new(4, 4)).expect("answers");
        assert_eq!(maps.probabilities.as_raw(), &vec![51; 16]);
        assert_eq!(maps.centrality.expect("told").as_raw(), &vec![153; 16]);
    }

    #[test]
    fn a_peer_that_dies_in_the_middle_is_named_and_asked_no_more() {
        if !can("pass") {
            return;
        }
        let dir = tempfile::tempdir().expect("folder");
        // Two answers while it starts, half of one, and the end.
        let code = "
for nth, (which, tile) in enumerate(requests()):
    if nth == 2:
        answer([0.5] * 8, 16)
        sys.exit(1)
    answer([0.5] if which == 0 else [0.5] * 16)
";
        let peer = start(&dir, code).expect("starts");
        let black = RgbImage::new(4, 4);
        let first = words(peer.segment(&black).expect_err("it ended"));
        assert!(
            first.contains("peer.py") && first.contains("ended before"),
            "{first}"
        );
        let second = words(peer.gate(&black).expect_err("it has ended"));
        assert!(second.contains("failed before"), "{second}");
    }

    #[test]
    fn a_peer_that_answers_what_no_network_would_does_not_start() {
        if !can("pass") {
            return;
        }
        let dir = tempfile::tempdir().expect("folder");
        for (code, how) in [
            (
                "for which, tile in requests(): answer([0.5] * 2)",
                "Gate with 2 values, not 1",
            ),
            (
                "for which, tile in requests(): answer([0.5])",
                "UNet with 1 values, not 16 or 32",
            ),
            (
                "for which, tile in requests(): answer([], 4294967295)",
                "4294967295",
            ),
            (
                "for which, tile in requests(): answer([float('nan')])",
                "Gate with NaN",
            ),
            (
                "for which, tile in requests(): answer([float('inf')])",
                "Gate with inf",
            ),
            ("sys.exit(1)", "ended before"),
        ] {
            let error = words(start(&dir, code).err().expect("refused"));
            assert!(error.contains("peer.py"), "{error}");
            assert!(error.contains(how), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_started_is_named() {
        let start = |command| Peer::start(command, Path::new("a"), Path::new("b"), 4);
        let error = words(start("no-such-runtime --fast").err().expect("not there"));
        assert!(error.contains("`no-such-runtime --fast`"), "{error}");
        assert!(start("  ").is_err());
    }

    #[test]
    fn a_peer_ends_with_its_owner() {
        if !can("pass") {
            return;
        }
        let dir = tempfile::tempdir().expect("folder");
        // It would not end by itself.
        let code = "
import signal, time
for nth, (which, tile) in enumerate(requests()):
    answer([0.5] if which == 0 else [0.5] * 16)
time.sleep(1000)
";
        let peer = start(&dir, code).expect("starts");
        let process = PathBuf::from(format!("/proc/{}", peer.child.id()));
        assert!(process.exists());
        drop(peer);
        assert!(!process.exists());
    }

    #[test]
    fn onnx_runtime_says_what_tract_says() {
        if !can("import numpy, onnxruntime") {
            return;
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let models = root.join("models/small-f32");
        let bundle = Bundle::load(&models).expect("loads");
        let Manifest {
            normalisation,
            tile,
            ..
        } = bundle.manifest.clone();
        let script = root.join("tests/onnx_runtime.py");
        let command = format!(
            "{} {} --mean {} --std {}",
            python(),
            script.display(),
            normalisation.mean,
            normalisation.std
        );
        let [gate, unet] = ["gate.onnx", "unet.onnx"].map(|name| models.join(name));
        let peer = Peer::start(&command, &gate, &unet, tile).expect("starts");
        let other = Detector::with_networks(bundle.manifest.clone(), Box::new(peer));
        let own = Detector::new(bundle);
        let scene = root.join("tests/data/sentinel2-ports/images/algiers-roads.png");
        let scene = image::open(scene).expect("an image").to_rgb8();
        let scores = [&own, &other].map(|d| d.gate_scores(&scene).expect("runs"));
        let passed = vec![true; scores[0].len()];
        assert!(passed.len() > 1, "one tile proves nothing");
        for (own, other) in scores[0].iter().zip(&scores[1]) {
            assert!((own - other).abs() < 1e-4, "{own} and {other}");
        }
        let maps = [&own, &other].map(|d| {
            let found = d.segment(&scene, &passed, 0.5).expect("runs");
            found.maps.probabilities.into_raw()
        });
        assert!(maps[0].iter().any(|&byte| byte > 200), "it shows ships");
        // Sums in another order: a level at most.
        for (own, other) in maps[0].iter().zip(&maps[1]) {
            assert!(own.abs_diff(*other) <= 1, "{own} and {other}");
        }
    }
}

//! A bundle: two networks and the manifest that says how to use them.

use std::borrow::Cow;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{Manifest, ManifestError, NetworkFile};
use crate::inference::{Engine, InferenceError, Network};

/// The manifest's name within a bundle's folder.
pub const MANIFEST: &str = "manifest.toml";

/// Models that are ready to run.
#[derive(Debug)]
pub struct Bundle {
    /// What the networks expect and how well they do.
    pub manifest: Manifest,
    /// The classifier: `[1, 3, S, S]` to the tile's ship probability `[1, 1]`.
    pub gate: Network,
    /// The segmenter: `[1, 3, S, S]` to the ship probability of each pixel, `[1, 1, S, S]`; or to that
    /// and how central in its ship a pixel lies, `[1, 2, S, S]`, if the manifest has a `valley`.
    pub unet: Network,
}

/// Why a bundle was refused.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file cannot be read.
    #[error("cannot read {file}: {source}; a bundle holds {MANIFEST} and the two files it names")]
    Read {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// The manifest is not well-formed or makes no sense.
    #[error("{file}: {source}")]
    Manifest {
        /// The file.
        file: String,
        /// Why.
        source: ManifestError,
    },
    /// A file is not the one that the manifest describes.
    #[error(
        "{file} has SHA-256 {found}, but the manifest says {wanted}: copy the bundle again, or correct \
         `sha256` if the file was changed on purpose"
    )]
    Digest {
        /// The file.
        file: String,
        /// What the manifest says.
        wanted: String,
        /// The file's own.
        found: String,
    },
    /// A network cannot be loaded.
    #[error("{file}: {source}")]
    Network {
        /// The file.
        file: String,
        /// Why.
        source: InferenceError,
    },
    /// A network does not fit the manifest.
    #[error(
        "{file}: the {what} is {found:?}, but `tile`, `thresholds.valley` and the network's role ask for {wanted:?}"
    )]
    Shape {
        /// The file.
        file: String,
        /// Input or output.
        what: &'static str,
        /// What the manifest asks for.
        wanted: Vec<usize>,
        /// What the network has.
        found: Vec<usize>,
    },
}

impl Bundle {
    /// The models that are built into the program.
    ///
    /// # Errors
    /// Only if the program was built from a bundle that [`Bundle::load`] would refuse.
    pub fn embedded() -> Result<Self, ModelError> {
        macro_rules! file {
            ($name:literal) => {
                include_bytes!(concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/models/base-int8/",
                    $name
                ))
            };
        }
        Self::assemble("embedded models", |name| match name {
            MANIFEST => Ok(Cow::Borrowed(&file!("manifest.toml")[..])),
            "gate.onnx" => Ok(Cow::Borrowed(&file!("gate.onnx")[..])),
            "unet.onnx" => Ok(Cow::Borrowed(&file!("unet.onnx")[..])),
            _ => Err(io::ErrorKind::NotFound.into()),
        })
    }

    /// Loads the bundle in folder `dir`.
    ///
    /// # Errors
    /// Any [`ModelError`]; each names the file.
    pub fn load(dir: &Path) -> Result<Self, ModelError> {
        let place = dir.display().to_string();
        Self::assemble(&place, |name| fs::read(dir.join(name)).map(Cow::Owned))
    }

    fn assemble<'a>(
        place: &str,
        read: impl Fn(&str) -> io::Result<Cow<'a, [u8]>>,
    ) -> Result<Self, ModelError> {
        let path = |name: &str| format!("{place}/{name}");
        let read = |name: &str| {
            read(name).map_err(|source| ModelError::Read {
                file: path(name),
                source,
            })
        };
        let manifest_error = |source| ModelError::Manifest {
            file: path(MANIFEST),
            source,
        };

        let text = read(MANIFEST)?;
        let text = str::from_utf8(&text).map_err(|_| {
            let reason = "is not UTF-8 text";
            manifest_error(ManifestError::Value {
                key: MANIFEST,
                reason,
            })
        })?;
        let manifest = Manifest::parse(text).map_err(manifest_error)?;

        let side = manifest.tile as usize;
        let values = manifest.normalisation.values();
        let network = |named: &NetworkFile, output: &[usize]| {
            let file = path(&named.file);
            let bytes = read(&named.file)?;
            check_digest(&file, &bytes, &named.sha256)?;
            let network = match Network::from_onnx(&bytes, &values) {
                Ok(network) => network,
                Err(source) => return Err(ModelError::Network { file, source }),
            };
            let found = [1, 3, network.side(), network.side()];
            check_shape(&file, "input", &found, &[1, 3, side, side])?;
            check_shape(&file, "output", network.output_shape(), output)?;
            tell_engine(&file, network.engine());
            Ok(network)
        };
        let gate = network(&manifest.gate, &[1, 1])?;
        let maps = 1 + usize::from(manifest.thresholds.valley.is_some());
        let unet = network(&manifest.unet, &[1, maps, side, side])?;
        Ok(Self {
            manifest,
            gate,
            unet,
        })
    }
}

/// Warns of a quantized network that tract runs a part of: tract is slower on bytes than on floats.
fn tell_engine(file: &str, engine: Engine) {
    match engine.quantized && engine.operators < engine.of {
        true => log::warn!("{file}: only {engine}; the rest is slow"),
        false => log::debug!("{file}: {engine}"),
    }
}

/// The digest that a manifest states of a file: lower-case hexadecimal SHA-256.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
            hex
        })
}

fn check_digest(file: &str, bytes: &[u8], wanted: &str) -> Result<(), ModelError> {
    let found = digest(bytes);
    if found == wanted {
        return Ok(());
    }
    Err(ModelError::Digest {
        file: file.to_owned(),
        wanted: wanted.to_owned(),
        found,
    })
}

fn check_shape(
    file: &str,
    what: &'static str,
    found: &[usize],
    wanted: &[usize],
) -> Result<(), ModelError> {
    if found == wanted {
        return Ok(());
    }
    let (wanted, found) = (wanted.to_vec(), found.to_vec());
    Err(ModelError::Shape {
        file: file.to_owned(),
        what,
        wanted,
        found,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_models_fit_their_manifest() {
        let Bundle {
            manifest,
            gate,
            unet,
        } = Bundle::embedded().expect("embedded models load");
        let side = manifest.tile as usize;
        assert_eq!(gate.side(), side);
        assert_eq!(unet.output_shape(), [1, 1, side, side]);
    }

    #[test]
    fn every_bundle_that_ships_loads() {
        let models = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/models"));
        let mut names = Vec::new();
        for entry in fs::read_dir(models).expect("lists") {
            let folder = entry.expect("an entry").path();
            if folder.join(MANIFEST).exists() {
                let bundle = Bundle::load(&folder).expect("loads");
                names.push(bundle.manifest.name);
            }
        }
        names.sort();
        assert_eq!(names, ["base-f32", "base-int8", "small-f32", "small-int8"]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = Bundle::load(folder.path()).expect_err("nothing there");
        let ModelError::Read { file, source } = error else {
            panic!("{error}")
        };
        assert!(file.ends_with(MANIFEST), "{file}");
        assert_eq!(source.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn digests_are_lower_case_sha_256() {
        // The test vector of FIPS 180-2 for `abc`.
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(check_digest("f", b"abc", digest).is_ok());
        let error = check_digest("f", b"abd", digest).expect_err("another file");
        assert!(matches!(error, ModelError::Digest { wanted, .. } if wanted == digest));
    }
}

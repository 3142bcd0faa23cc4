//! From a run to a bundle that the edge can load.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use burn_flex::{Flex, FlexDevice};
use shipwatch::detect::Detector;
use shipwatch::model::{
    Bundle, MANIFEST, Manifest, NetworkFile, Normalisation, Thresholds, TrainingData, digest,
};

use crate::config::{Config, PhaseName};
use crate::data::{Pool, Split};
use crate::eval::{Figures, Table, choose_thresholds, evaluate};
use crate::export;
use crate::files::replace;
use crate::nn::{Encoder, Gate, UNet, apply};
use crate::run_folder::{CONFIG, RunFolder};
use crate::run_info::RunInfo;
use crate::start::unet_on;
use crate::tensors::NORMALISATION;

const GATE: &str = "gate.onnx";
const UNET: &str = "unet.onnx";

/// Exports a run as a bundle.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder of the run.
    #[arg(long)]
    run: PathBuf,
    /// Folder for the bundle.
    #[arg(long)]
    out: PathBuf,
    /// Measure on the test images as well. For the bundle that ships, once nothing is left to choose:
    /// images by which bundles were compared are no test of them any more.
    #[arg(long)]
    test: bool,
}

/// Exports a run's best weights, tunes the thresholds on the tune images, measures the bundle on
/// these, or on the test images too, and writes it all to `out`, where nothing appears before it is
/// complete.
pub(crate) fn run(Args { run, out, test }: &Args) -> Result<()> {
    let folder = RunFolder::open(run)?;
    let config = Config::load(&folder.file(CONFIG)).context(
        "the run's own config does not serve: see to what the cause names, or restore the file",
    )?;
    let info = RunInfo::load(&folder)?;
    let pool = Pool::open(&config.data, config.cache_mib)?;
    info.check_split(&folder, &pool)?;
    let tile = config.tile as usize;
    let origin = info.origin();
    let metadata = |task: &str, output: &str| -> Vec<(String, String)> {
        let notes = [
            ("task", task.to_owned()),
            ("bundle", config.name.clone()),
            ("input", "RGB, NCHW, (byte - 127.5) / 127.5".to_owned()),
            ("output", output.to_owned()),
            (
                "gsd_metres_per_pixel",
                format!("{} to {}", config.gsd[0], config.gsd[1]),
            ),
            ("seed", config.seed.to_string()),
            ("data", names(&config)),
            ("licence", licence(&config)),
        ];
        let revision = origin.revision.clone().map(|of| ("revision", of));
        let notes = notes.into_iter().chain(revision);
        notes.map(|(key, value)| (key.to_owned(), value)).collect()
    };
    for name in PhaseName::ALL {
        if config.phases.get(name).steps > 0 && !folder.is_done(name)? {
            log::warn!("phase {} of the run is not over", name.name());
        }
    }
    let gate: Gate<Flex> = apply(Gate::new(config.width, &FlexDevice), &folder.best("gate")?)?;
    let encoder = Encoder::new(config.width, &FlexDevice);
    let unet: UNet<Flex> = unet_on(&config, encoder, &FlexDevice);
    let unet = apply(unet, &folder.best("unet")?)?;
    let gate = export::gate(&gate, tile, &metadata("ship gate", "ship probability"));
    let output = match config.separation {
        true => "ship probability, centrality in the ship",
        false => "ship probability",
    };
    let unet = export::unet(&unet, tile, &metadata("ship segmentation", output));

    let splits: &[Split] = match test {
        true => &[Split::Tune, Split::Test],
        false => &[Split::Tune],
    };
    for &split in splits {
        ensure!(
            pool.sources
                .iter()
                .any(|source| source.of(split).next().is_some()),
            "no image is in the {split} split: name some under [[data]]"
        );
    }
    let mut manifest = Manifest {
        schema: Manifest::SCHEMA,
        name: config.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        licence: licence(&config),
        tile: config.tile,
        overlap: config.overlap,
        normalisation: Normalisation {
            mean: NORMALISATION.0,
            std: NORMALISATION.1,
        },
        gsd: config.gsd,
        thresholds: Thresholds {
            gate: 0.5,
            classify: 0.5,
            mask: 0.5,
            min_area: 1,
            valley: config.separation.then_some(0.5),
        },
        gate: NetworkFile {
            file: GATE.to_owned(),
            sha256: digest(&gate),
        },
        unet: NetworkFile {
            file: UNET.to_owned(),
            sha256: digest(&unet),
        },
        training: pool
            .sources
            .iter()
            .map(|source| TrainingData {
                name: source.config.name.clone(),
                images: source.of(Split::Train).count(),
                licence: source.config.licence.clone(),
                attribution: source.config.attribution.clone(),
            })
            .collect(),
        run: Some(origin),
        scores: Default::default(),
    };
    let unfinished = Unfinished::create(out)?;
    unfinished.write(GATE, &gate)?;
    unfinished.write(UNET, &unet)?;
    let save =
        |manifest: &Manifest| unfinished.write(MANIFEST, toml::to_string(manifest)?.as_bytes());

    save(&manifest)?;
    log::info!("choosing thresholds on the tune images");
    let detector = || -> Result<Detector> { Ok(Detector::new(Bundle::load(&unfinished.folder)?)) };
    manifest.thresholds = choose_thresholds(&detector()?, &pool, &config)?;
    save(&manifest)?;
    log::info!("{:?}", manifest.thresholds);
    for &split in splits {
        log::info!("measuring on the {split} images");
        let evaluation = evaluate(&detector()?, &pool, &config, split)?;
        println!("{}", Table(&evaluation));
        let scores = |(name, set): (&String, &Figures)| (name.clone(), set.scores());
        manifest.scores.extend(evaluation.sets.iter().map(scores));
    }
    save(&manifest)?;
    unfinished.publish(out)?;
    log::info!("wrote {}", out.display());
    Ok(())
}

/// A bundle that is still being made, in a hidden folder of the one that it is for, so that a crash
/// leaves no manifest whose thresholds nothing has chosen. Gone when dropped.
struct Unfinished {
    folder: PathBuf,
}

impl Unfinished {
    fn create(out: &Path) -> Result<Self> {
        let folder = out.join(".unfinished");
        let context = || folder.display().to_string();
        if folder.exists() {
            // Of an export that was killed.
            fs::remove_dir_all(&folder).with_context(context)?;
        }
        fs::create_dir_all(&folder).with_context(context)?;
        Ok(Self { folder })
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.folder.join(name);
        replace(&path, bytes).with_context(|| path.display().to_string())
    }

    /// Moves the files to where they belong. The manifest goes last: until it is there, the digests of
    /// an older one refuse the new networks.
    fn publish(self, out: &Path) -> Result<()> {
        for name in [GATE, UNET, MANIFEST] {
            let to = out.join(name);
            fs::rename(self.folder.join(name), &to).with_context(|| to.display().to_string())?;
        }
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // What is left is wiped by the next export, too.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The weights' own licence, and that of those they started from.
fn licence(config: &Config) -> String {
    let own = "MIT OR Apache-2.0";
    match &config.pretrained {
        // A bundle or a network of one, whose own licence says what it started from.
        Some(path) if path.extension().is_none_or(|end| end != "safetensors") => {
            let name = path.file_name().unwrap_or_default().display();
            format!(
                "{own}; started from the shipwatch models `{name}`, whose licence counts as well"
            )
        }
        Some(_) => {
            format!("{own}; started from ImageNet weights of MobileNetV2, Apache-2.0, Google")
        }
        None => own.to_owned(),
    }
}

fn names(config: &Config) -> String {
    config
        .data
        .iter()
        .map(|root| root.name.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("lists");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().into_string())
            .collect::<Result<_, _>>()
            .expect("UTF-8");
        names.sort();
        names
    }

    #[test]
    fn a_bundle_appears_whole_and_what_fails_leaves_the_old_one() {
        let dir = tempfile::tempdir().expect("folder");
        let out = dir.path().join("bundle");
        let read = |name: &str| fs::read_to_string(out.join(name)).expect("reads");
        let export = |text: &str| {
            let unfinished = Unfinished::create(&out).expect("creates");
            for name in [GATE, UNET, MANIFEST] {
                unfinished.write(name, text.as_bytes()).expect("writes");
            }
            unfinished
        };
        export("old").publish(&out).expect("publishes");
        fs::write(out.join("README.md"), "by hand").expect("writes");
        drop(export("never measured"));
        assert_eq!(read(MANIFEST), "old");
        // An export that was killed leaves its folder.
        std::mem::forget(export("killed"));
        export("new").publish(&out).expect("publishes");
        assert_eq!((read(MANIFEST), read(GATE)), ("new".into(), "new".into()));
        assert_eq!(names(&out), ["README.md", GATE, MANIFEST, UNET]);
    }
}

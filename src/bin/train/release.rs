//! From a run to a bundle that the edge can load.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use burn_flex::{Flex, FlexDevice};
use shipwatch::detect::Detector;
use shipwatch::model::{
    Bundle, Manifest, NetworkFile, Normalisation, Thresholds, TrainingData, digest,
};

use crate::config::Config;
use crate::data::{Pool, Split};
use crate::eval::{Table, choose_thresholds, evaluate};
use crate::export;
use crate::files::replace;
use crate::nn::{Encoder, Gate, UNet, apply};
use crate::run_folder::RunFolder;
use crate::tensors::NORMALISATION;

const GATE: &str = "gate.onnx";
const UNET: &str = "unet.onnx";

/// Depth of the valleys that part ships: the middle of those that part true centralities best.
const VALLEY: f32 = 0.4;

/// Exports a run's best weights, tunes the thresholds on the tune images, measures the bundle on
/// the test images and writes it all to `out`.
pub(crate) fn export(run: &Path, out: &Path) -> Result<()> {
    let folder = RunFolder::open(run);
    let config = Config::load(&folder.file("config.toml"))?;
    let tile = config.tile as usize;
    let metadata = |task: &str, output: &str| -> Vec<(String, String)> {
        [
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
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    };
    for (network, stage) in [("gate", config.gate), ("unet", config.unet)] {
        let step = folder.checkpoint(network)?.map_or(0, |(at, _)| at.step);
        let total = stage.total_steps();
        if step < total {
            log::warn!("{network}: the run stands at step {step} of {total}");
        }
    }
    let gate: Gate<Flex> = apply(Gate::new(config.width, &FlexDevice), &folder.best("gate")?)?;
    let mut unet = UNet::on(
        Encoder::new(config.width, &FlexDevice),
        config.decoder,
        &FlexDevice,
    );
    if config.separation {
        unet = unet.with_centrality(&FlexDevice);
    }
    let unet: UNet<Flex> = apply(unet, &folder.best("unet")?)?;
    let gate = export::gate(&gate, tile, &metadata("ship gate", "ship probability"));
    let output = match config.separation {
        true => "ship probability, centrality in the ship",
        false => "ship probability",
    };
    let unet = export::unet(&unet, tile, &metadata("ship segmentation", output));

    let pool = Pool::open(&config.data, config.cache_mib)?;
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
            valley: config.separation.then_some(VALLEY),
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
        scores: Default::default(),
    };
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    write(&out.join(GATE), &gate)?;
    write(&out.join(UNET), &unet)?;
    let save = |manifest: &Manifest| {
        write(
            &out.join("manifest.toml"),
            toml::to_string(manifest)?.as_bytes(),
        )
    };

    save(&manifest)?;
    log::info!("choosing thresholds on the tune images");
    manifest.thresholds = choose_thresholds(&Detector::new(Bundle::load(out)?), &pool)?;
    save(&manifest)?;
    log::info!("{:?}; measuring on the test images", manifest.thresholds);
    let evaluation = evaluate(&Detector::new(Bundle::load(out)?), &pool, Split::Test)?;
    let threshold = manifest.thresholds.gate;
    print!("{}", Table(&evaluation, threshold));
    manifest.scores = evaluation
        .sets
        .iter()
        .map(|(name, set)| (name.clone(), set.scores(threshold)))
        .collect();
    save(&manifest)?;
    log::info!("wrote {}", out.display());
    Ok(())
}

/// The weights' own licence, and that of those they started from.
fn licence(config: &Config) -> String {
    let own = "MIT OR Apache-2.0";
    match config.pretrained {
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

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, bytes).with_context(|| path.display().to_string())
}

//! From a trained run to a bundle of eight-bit integers, and the proof of what it loses.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use burn::backend::Autodiff;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use shipwatch::detect::Detector;
use shipwatch::model::{Bundle, digest};

use crate::config::{DataRoot, PhaseName};
use crate::data::{Draws, Pool, Sampler, Split, check_masks};
use crate::device::{DeviceChoice, Job};
use crate::eval::{Contender, Peer, compare, tune_tiles};
use crate::export::{Graph, Metadata};
use crate::files::replace;
use crate::logging;
use crate::quant::{BYTES, Quantized, Simulated, Tuned, post_training};
use crate::release::{Choice, GATE, Kind, Trained, UNET, UNFINISHED, WriteNetwork};
use crate::run::{TUNE_TILES, workers};
use crate::run_folder::{CONFIG, RunFolder};
use crate::stop::{INTERRUPTED, Stop, Stopped, on_signals};
use crate::tensors;
use crate::trainer::{Engine, Trainer};

/// Batches of tiles by which ranges are found.
const BATCHES: usize = 16;

/// Tiles of 224 pixels that are run at once; fewer of larger ones, so that memory holds their maps.
const BATCH: usize = 16;

/// The phase of each network, and how many batches serve to compare ways, to weigh layers and to correct
/// biases: of each tile the gate says one number, the U-Net thousands.
const PHASES: [(PhaseName, usize); 2] = [(PhaseName::GateInt8, 4), (PhaseName::UnetInt8, 1)];

/// Share of the tiles that show a ship: more than there are, for what is rare must not be clipped.
const SHIP_SHARE: f64 = 0.7;

/// Tells the draws of these tiles from those of training.
const PHASE: u64 = 0x0063_616c_6962;

/// What a quantization was begun with.
const BEGUN: &str = "int8.toml";

/// Where the float bundle is made that the other is compared with.
const UNFINISHED_FLOAT: &str = ".unfinished-float";

/// The report beside the models.
const REPORT: &str = "parity.md";

/// The report where no models are written.
const REFUSED: &str = "refused.md";

/// Turns a trained run into a bundle of int8 networks.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder of the run.
    run: PathBuf,
    /// Images by which the ranges of feature maps are found: a folder in the challenge's layout. Those
    /// that the run was trained on if not given.
    #[arg(long)]
    calibrate: Option<PathBuf>,
    /// Folder for the bundle.
    #[arg(long)]
    out: PathBuf,
    /// The run's float bundle, as `train export` wrote it, to compare with; made anew if not given.
    #[arg(long)]
    float: Option<PathBuf>,
    /// Take the thresholds of this bundle instead of choosing them on the tune images.
    #[arg(long)]
    thresholds: Option<PathBuf>,
    /// Measure on the test images as well, by which limits then are judged. For the bundle that ships,
    /// once nothing is left to choose.
    #[arg(long)]
    test: bool,
    /// Write the bundle even if it loses more than the limits allow.
    #[arg(long)]
    over_limits: bool,
    /// Another runtime to compare with: a command such as "python3 tests/onnx_runtime.py --mean 128 --std
    /// 128", to which the files' names are added.
    #[arg(long)]
    peer: Option<String>,
    /// Processor to train on.
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,
    /// Threads that prepare tiles; as the processor has cores to spare if not given.
    #[arg(long)]
    workers: Option<NonZeroUsize>,
}

/// `train quantize`: exit code 1 where limits are broken, 130 where Ctrl-C stopped it.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let stop = on_signals()?;
    RunFolder::open(&args.run)?;
    let trained = Trained::open(RunFolder::create(&args.run)?)?;
    let splits = trained.splits(args.test)?;
    logging::copy_to(&trained.folder.file("quantize.log"))?;
    let quantizing = Quantizing {
        trained: &trained,
        calibrate: args.calibrate.as_deref(),
        workers: args.workers,
        stop,
    };
    match args.device.run(quantizing) {
        Err(error) if error.is::<Stopped>() => {
            log::info!("stopped: run the same command again to go on");
            Ok(ExitCode::from(INTERRUPTED))
        }
        ended => {
            let quantized = ended?;
            stop.at_once();
            release(args, &trained, &quantized, splits)
        }
    }
}

/// Makes the bundle, measures what it loses, and publishes it if that is little enough.
fn release(
    args: &Args,
    trained: &Trained,
    quantized: &[Arc<Quantized>; 2],
    splits: &[Split],
) -> Result<ExitCode> {
    let networks = quantized.each_ref().map(|network| -> WriteNetwork {
        let network = Arc::clone(network);
        Box::new(move |notes: &Metadata| network.to_onnx(notes))
    });
    let name = trained.config.name.trim_end_matches("-f32");
    let kind = Kind {
        name: format!("{name}-int8"),
        normalisation: BYTES,
    };
    let float_folder = args.out.join(UNFINISHED_FLOAT);
    let float = match &args.float {
        Some(folder) => trained.float_bundle(folder)?,
        None => trained.float_draft(&float_folder)?.detector()?,
    };
    let given = args.thresholds.as_deref().map(Bundle::load).transpose()?;
    if let (Some(bundle), Some(folder)) = (&given, &args.thresholds) {
        ensure!(
            bundle.manifest.thresholds.valley.is_some() == trained.config.separation,
            "--thresholds {}: its U-Net parts ships by a second output and the run's does not, or the other way round: name a bundle of such networks",
            folder.display()
        );
    }
    let choice = match &given {
        Some(bundle) => Choice::Given(&bundle.manifest.thresholds),
        None => Choice::Unless(&float.manifest().thresholds),
    };
    let mut draft = trained.draft(&args.out.join(UNFINISHED), kind, networks, choice)?;
    let int8 = draft.detector()?;
    let [gate, unet] = quantized;
    let with = |networks| Detector::with_networks(int8.manifest().clone(), networks);
    let simulated = with(Box::new(Simulated::new([gate, unet])));
    let peer = args.peer.as_deref().map(|command| -> Result<Detector> {
        let tile = trained.config.tile;
        let peer = Peer::start(command, &draft.path(GATE), &draft.path(UNET), tile)?;
        Ok(with(Box::new(peer)))
    });
    let peer = peer.transpose()?;
    let contender = |name, detector| Contender { name, detector };
    let mut contenders = vec![
        contender("int8", &int8),
        contender("int8 simulated", &simulated),
    ];
    contenders.extend(peer.iter().map(|peer| contender("int8 by peer", peer)));
    let (mut report, mut breaches) = (String::new(), Vec::new());
    for &split in splits {
        let float = contender("float", &float);
        let (pool, config) = (&trained.pool, &trained.config);
        let (parity, scores) = compare(&float, &contenders, pool, config, &[split])?;
        println!("{parity}");
        draft.add_scores(scores);
        writeln!(report, "{parity}")?;
        breaches = parity.breaches();
    }
    draft.write(REPORT, report.as_bytes())?;
    for breach in &breaches {
        log::error!("{breach}");
    }
    if !breaches.is_empty() && !args.over_limits {
        let path = args.out.join(REFUSED);
        replace(&path, report.as_bytes())?;
        log::error!(
            "no bundle was written, for the networks lose more than the limits allow: {} says where. Take them all the same by --over-limits; or train them on for longer: raise `steps` of [phases.gate-int8] and [phases.unet-int8] in {}, and delete gate-int8* and unet-int8* beside it",
            path.display(),
            trained.folder.file(CONFIG).display()
        );
        return Ok(ExitCode::FAILURE);
    }
    draft.publish(&args.out)?;
    Ok(ExitCode::SUCCESS)
}

/// Both networks of a run, from floats to bytes.
struct Quantizing<'a> {
    trained: &'a Trained,
    calibrate: Option<&'a Path>,
    workers: Option<NonZeroUsize>,
    stop: &'static Stop,
}

impl Job for Quantizing<'_> {
    type Output = [Arc<Quantized>; 2];

    fn on<B: Engine>(self) -> Result<Self::Output> {
        let device = B::Device::default();
        let folder = &self.trained.folder;
        let graphs = self.trained.graphs()?;
        Begun::with(self.calibrate, &graphs)?.keep(folder)?;
        let mut batches: Vec<Tensor<B, 4>> = Vec::new();
        let mut quantized = Vec::new();
        for (graph, (name, probed)) in graphs.into_iter().zip(PHASES) {
            let graph = graph.of_bytes();
            quantized.push(match folder.state(name)? {
                Some(_) => Quantized::of_tuned(&graph, &folder.weights(name)?)?,
                None => {
                    if batches.is_empty() {
                        batches = self.batches(&device)?;
                    }
                    let probe = Tensor::cat(batches[..probed].to_vec(), 0);
                    post_training(graph, &batches, &probe, self.stop)?
                }
            });
        }
        let [gate, unet] = quantized.try_into().expect("two networks");
        self.train_on::<B>(gate, unet, &device)
    }
}

/// What a quantization was begun with.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Begun {
    /// Images that ranges were found by; none where they were the run's own.
    calibrate: Option<PathBuf>,
    /// SHA-256 of the networks in floats.
    gate: String,
    unet: String,
}

impl Begun {
    fn with(calibrate: Option<&Path>, [gate, unet]: &[Graph; 2]) -> Result<Self> {
        let folder = |path: &Path| {
            fs::canonicalize(path).with_context(|| format!("--calibrate {}", path.display()))
        };
        Ok(Self {
            calibrate: calibrate.map(folder).transpose()?,
            gate: digest(&gate.to_onnx(&[])),
            unet: digest(&unet.to_onnx(&[])),
        })
    }

    /// Notes it in a run whose phases have not begun, and compares it where one has.
    ///
    /// # Errors
    /// If a phase was begun with something else.
    fn keep(&self, folder: &RunFolder) -> Result<()> {
        let mut begun = Vec::new();
        for (name, _) in PHASES {
            if folder.state(name)?.is_some() {
                begun.push(format!(
                    "{0}.safetensors, {0}-last.safetensors",
                    name.name()
                ));
            }
        }
        if begun.is_empty() {
            return folder.write(BEGUN, toml::to_string(self)?.as_bytes());
        }
        let path = folder.file(BEGUN);
        let text = fs::read_to_string(&path).unwrap_or_default();
        ensure!(
            toml::from_str(&text).is_ok_and(|before: Self| before == *self),
            "{}: the run was begun to be quantized with other images, or its networks were trained on since: take the same --calibrate, or delete {} in that folder to begin anew",
            path.display(),
            begun.join(", ")
        );
        Ok(())
    }
}

impl Quantizing<'_> {
    /// Tiles to find ranges by, `[N, S, S, 3]` each.
    fn batches<B: Engine>(&self, device: &B::Device) -> Result<Vec<Tensor<B, 4>>> {
        let config = &self.trained.config;
        let own;
        let (pool, place) = match self.calibrate {
            None => (&self.trained.pool, self.trained.folder.path()),
            Some(folder) => {
                own = Pool::open(&[self.root(folder)?], config.cache_mib)?;
                check_masks(&own, self.stop)?;
                self.check_none_is_for_testing(&own, folder)?;
                (&own, folder)
            }
        };
        ensure!(
            pool.sources.iter().any(|source| {
                let mut images = source.of(Split::Train);
                images.any(|image| !image.labelled.ships.is_empty())
            }),
            "{}: no image shows a ship: ranges found on water alone would cut off what ships make. Name a folder whose CSV file knows some",
            place.display()
        );
        check_colours(pool, place)?;
        let sampler = Sampler::new(pool, Split::Train, config.tile, Some(config.augment))?;
        let draws = Draws {
            seed: config.seed,
            phase: PHASE,
            batch: batch(config.tile),
            ship_share: SHIP_SHARE,
            hard: Vec::new(),
            hard_share: 0.0,
        };
        let mut ships = 0;
        let batches = (0..BATCHES).map(|step| {
            let tiles = draws.batch(&sampler, step, self.stop)?;
            ships += tiles.iter().filter(|tile| tile.has_ship()).count();
            Ok(tensors::pixels_by(BYTES, &tiles, device))
        });
        let batches = batches.collect::<Result<_>>()?;
        let all = BATCHES * draws.batch;
        log::info!("finding ranges by {all} tiles, {ships} with ships");
        Ok(batches)
    }

    /// # Errors
    /// If an image to find ranges by has the name of one that the run is tested by.
    fn check_none_is_for_testing(&self, own: &Pool, folder: &Path) -> Result<()> {
        let of = |pool: &'_ Pool, split| -> BTreeSet<String> {
            let images = pool.sources.iter().flat_map(|source| source.of(split));
            images.map(|image| image.labelled.id.clone()).collect()
        };
        let tested = of(&self.trained.pool, Split::Test);
        if let Some(id) = of(own, Split::Train).intersection(&tested).next() {
            anyhow::bail!(
                "{}: the run is tested by an image named {id}, and what judges may not be calibrated on: take it out, or name the folder that the run's config names",
                folder.display()
            );
        }
        Ok(())
    }

    /// A folder of images as it is sampled: as the config has it where it names it, else in its own grid.
    fn root(&self, folder: &Path) -> Result<DataRoot> {
        let path = fs::canonicalize(folder).with_context(|| folder.display().to_string())?;
        let roots = &self.trained.config.data;
        if let Some(root) = roots.iter().find(|root| root.root == path) {
            return Ok(root.clone());
        }
        let text =
            "name = 'calibration'\nroot = ''\nlicence = ''\nattribution = ''\nscale = [1.0, 1.0]";
        let root: DataRoot = toml::from_str(text)?;
        Ok(DataRoot { root: path, ..root })
    }

    /// Trains both networks on with all that rounding does, as far as the config has steps for that.
    fn train_on<B: Engine>(
        &self,
        gate: Quantized,
        unet: Quantized,
        device: &B::Device,
    ) -> Result<[Arc<Quantized>; 2]> {
        let (trained, config) = (self.trained, &self.trained.config);
        if PHASES
            .iter()
            .all(|(name, _)| config.phases.get(*name).steps == 0)
        {
            return Ok([gate, unet].map(Arc::new));
        }
        let sampler = Sampler::new(
            &trained.pool,
            Split::Train,
            config.tile,
            Some(config.augment),
        )?;
        let tune = tune_tiles(&trained.pool, config, TUNE_TILES, self.stop)?;
        let trainer = Trainer::<B> {
            config,
            folder: &trained.folder,
            sampler: &sampler,
            tune: &tune,
            device: device.clone(),
            workers: workers::<B>(self.workers),
            stop: self.stop,
        };
        let train = |name: PhaseName, quantized: Quantized| -> Result<Arc<Quantized>> {
            let quantized = Arc::new(quantized);
            if config.phases.get(name).steps == 0 {
                return Ok(quantized);
            }
            if !trained.folder.is_done(name)? {
                let network = Tuned::<Autodiff<B>>::new(Arc::clone(&quantized), device);
                trainer.train(name, network)?;
            }
            let weights = trained.folder.weights(name)?;
            Ok(Arc::new(Quantized::of_tuned(&quantized.graph, &weights)?))
        };
        Ok([
            train(PhaseName::GateInt8, gate)?,
            train(PhaseName::UnetInt8, unet)?,
        ])
    }
}

/// Tiles of so many pixels a side that are run at once: one with a ship and one without at least.
fn batch(tile: u32) -> usize {
    let area = (tile as usize).pow(2);
    (BATCH * 224 * 224 / area).clamp(2, BATCH)
}

/// # Errors
/// If no image can be read, or none has more than one colour.
fn check_colours(pool: &Pool, place: &Path) -> Result<()> {
    let place = place.display();
    let sources = pool.sources.iter();
    let mut readable = false;
    for image in sources.flat_map(|source| source.of(Split::Train)) {
        let varies = pool.with_pixels(image, |pixels| {
            let first = pixels.get_pixel(0, 0);
            pixels.pixels().any(|pixel| pixel != first)
        })?;
        readable |= varies.is_some();
        if varies == Some(true) {
            return Ok(());
        }
    }
    ensure!(readable, "{place}: no image can be read");
    anyhow::bail!(
        "{place}: all images are of one and the same colour: no ranges can be found by them"
    )
}

//! From a run to a bundle that the edge can load.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use burn_flex::{Flex, FlexDevice};
use shipwatch::detect::Detector;
use shipwatch::inference::onnx::initializers;
use shipwatch::model::{
    Bundle, MANIFEST, Manifest, NetworkFile, Normalisation, Run, Scores, Thresholds, TrainingData,
    digest,
};

use crate::config::{Config, PhaseName};
use crate::data::{Pool, Split};
use crate::eval::{Figures, Table, choose_thresholds, evaluate};
use crate::export::{Graph, Metadata};
use crate::files::replace;
use crate::nn::{Encoder, Gate, UNet, apply};
use crate::run_folder::{CONFIG, RunFolder};
use crate::run_info::RunInfo;
use crate::start::unet_on;
use crate::tensors::NORMALISATION;

pub(crate) const GATE: &str = "gate.onnx";
pub(crate) const UNET: &str = "unet.onnx";

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
    let run = Trained::open(RunFolder::open(run)?)?;
    let splits = run.splits(*test)?;
    let mut draft = run.float_draft(&out.join(UNFINISHED))?;
    for &split in splits {
        log::info!("measuring on the {split} images");
        let evaluation = evaluate(&draft.detector()?, &run.pool, &run.config, split)?;
        println!("{}", Table(&evaluation));
        let scores = |(set, figures): (&String, &Figures)| (set.clone(), figures.scores());
        draft.add_scores(evaluation.sets.iter().map(scores));
    }
    draft.publish(out)
}

/// A run that was trained, and its images.
pub(crate) struct Trained {
    pub(crate) folder: RunFolder,
    pub(crate) config: Config,
    pub(crate) pool: Pool,
    origin: Run,
}

/// A network's file, by the notes that go into it.
pub(crate) type WriteNetwork = Box<dyn Fn(&Metadata) -> Vec<u8>>;

/// What kind of bundle is made.
pub(crate) struct Kind {
    pub(crate) name: String,
    pub(crate) normalisation: Normalisation,
}

/// Where a bundle's thresholds come from.
pub(crate) enum Choice<'a> {
    /// The tune images.
    Free,
    /// These, of the same networks in floats, unless the tune images speak clearly for others.
    Unless(&'a Thresholds),
    /// Somebody chose these.
    Given(&'a Thresholds),
}

/// A bundle whose thresholds are chosen.
pub(crate) struct Draft<'a> {
    run: &'a Trained,
    files: Unfinished,
    manifest: Manifest,
    gate: WriteNetwork,
    unet: WriteNetwork,
}

impl Trained {
    /// # Errors
    /// If the run's files cannot be read, or its images are not those that it was trained on.
    pub(crate) fn open(folder: RunFolder) -> Result<Self> {
        let config = Config::load(&folder.file(CONFIG)).context(
            "the run's own config does not serve: see to what the cause names, or restore the file",
        )?;
        let info = RunInfo::load(&folder)?;
        let pool = Pool::open(&config.data, config.cache_mib)?;
        info.check_split(&folder, &pool)?;
        for name in PhaseName::FLOAT {
            if config.phases.get(name).steps > 0 && !folder.is_done(name)? {
                log::warn!("phase {} of the run is not over", name.name());
            }
        }
        Ok(Self {
            folder,
            config,
            pool,
            origin: info.origin(),
        })
    }

    /// The splits that a bundle is measured by.
    ///
    /// # Errors
    /// If one has no images.
    pub(crate) fn splits(&self, test: bool) -> Result<&'static [Split]> {
        let splits: &[Split] = match test {
            true => &[Split::Tune, Split::Test],
            false => &[Split::Tune],
        };
        for &split in splits {
            let mut sources = self.pool.sources.iter();
            ensure!(
                sources.any(|source| source.of(split).next().is_some()),
                "no image is in the {split} split: name some under [[data]]"
            );
        }
        Ok(splits)
    }

    /// Gate and U-Net with their best weights.
    ///
    /// # Errors
    /// If the run has none yet, or they are lost or no numbers.
    pub(crate) fn graphs(&self) -> Result<[Graph; 2]> {
        let weights = |network: &str| {
            let params = self.folder.best(network)?;
            let damaged = params.not_finite();
            ensure!(
                damaged.is_none(),
                "{}: tensor `{}` of the {network} holds a value that is no number: restore the file, or train anew",
                self.folder.path().display(),
                damaged.unwrap_or_default()
            );
            Ok(params)
        };
        let (width, tile) = (self.config.width, self.config.tile as usize);
        let gate: Gate<Flex> = apply(Gate::new(width, &FlexDevice), &weights("gate")?)?;
        let encoder = Encoder::new(width, &FlexDevice);
        let unet: UNet<Flex> = unet_on(&self.config, encoder, &FlexDevice);
        let unet = apply(unet, &weights("unet")?)?;
        Ok([Graph::of_gate(&gate, tile), Graph::of_unet(&unet, tile)])
    }

    /// The run's bundle in floats.
    pub(crate) fn float_draft(&self, folder: &Path) -> Result<Draft<'_>> {
        let kind = Kind {
            name: self.config.name.clone(),
            normalisation: NORMALISATION,
        };
        let networks = self.graphs()?;
        let networks = networks.map(|graph| -> WriteNetwork {
            Box::new(move |notes: &Metadata| graph.to_onnx(notes))
        });
        self.draft(folder, kind, networks, Choice::Free)
    }

    /// The run's bundle in floats that was exported to `folder`.
    ///
    /// # Errors
    /// If it is another one.
    pub(crate) fn float_bundle(&self, folder: &Path) -> Result<Detector> {
        let bundle = Bundle::load(folder)?;
        let manifest = &bundle.manifest;
        let files = [&manifest.gate.file, &manifest.unet.file];
        for (graph, file) in self.graphs()?.iter().zip(files) {
            let path = folder.join(file);
            let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
            ensure!(
                initializers(&bytes)? == initializers(&graph.to_onnx(&[]))?
                    && manifest.tile == self.config.tile,
                "{}: is not the {} of this run in floats: export the run again, or leave --float out",
                path.display(),
                graph.name
            );
        }
        Ok(Detector::new(bundle))
    }

    /// A bundle of `kind` made in `folder`.
    pub(crate) fn draft(
        &self,
        folder: &Path,
        kind: Kind,
        [gate, unet]: [WriteNetwork; 2],
        choice: Choice<'_>,
    ) -> Result<Draft<'_>> {
        let mut draft = Draft {
            run: self,
            files: Unfinished::create(folder)?,
            manifest: self.manifest(kind),
            gate,
            unet,
        };
        draft.save()?;
        let choose = |before| {
            log::info!("choosing thresholds on the tune images");
            choose_thresholds(&draft.detector()?, &self.pool, &self.config, before)
        };
        draft.manifest.thresholds = match choice {
            Choice::Free => choose(None)?,
            Choice::Unless(before) => choose(Some(before))?,
            Choice::Given(thresholds) => *thresholds,
        };
        log::info!("{:?}", draft.manifest.thresholds);
        draft.save()?;
        Ok(draft)
    }

    fn manifest(&self, kind: Kind) -> Manifest {
        let config = &self.config;
        let file = |name: &str| NetworkFile {
            file: name.to_owned(),
            sha256: String::new(),
        };
        let sources = self.pool.sources.iter();
        Manifest {
            schema: Manifest::SCHEMA,
            name: kind.name,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            licence: licence(config),
            tile: config.tile,
            overlap: config.overlap,
            normalisation: kind.normalisation,
            gsd: config.gsd,
            thresholds: Thresholds {
                gate: 0.5,
                classify: 0.5,
                mask: 0.5,
                min_area: 1,
                valley: config.separation.then_some(0.5),
            },
            gate: file(GATE),
            unet: file(UNET),
            training: sources
                .map(|source| TrainingData {
                    name: source.config.name.clone(),
                    images: source.of(Split::Train).count(),
                    licence: source.config.licence.clone(),
                    attribution: source.config.attribution.clone(),
                })
                .collect(),
            run: Some(self.origin.clone()),
            scores: Default::default(),
        }
    }
}

impl Draft<'_> {
    /// The bundle as it stands.
    pub(crate) fn detector(&self) -> Result<Detector> {
        Ok(Detector::new(Bundle::load(&self.files.folder)?))
    }

    /// Where one of its files lies as long as it is not published.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.files.folder.join(name)
    }

    /// Notes in the manifest how the bundle did.
    pub(crate) fn add_scores(&mut self, scores: impl IntoIterator<Item = (String, Scores)>) {
        self.manifest.scores.extend(scores);
    }

    /// Adds a file that no bundle needs.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.files.write(name, bytes)
    }

    /// Moves the bundle to `out`.
    pub(crate) fn publish(mut self, out: &Path) -> Result<()> {
        self.save()?;
        self.files.publish(out)?;
        log::info!("wrote {}", out.display());
        Ok(())
    }

    /// Writes networks and manifest.
    fn save(&mut self) -> Result<()> {
        let outputs = match self.manifest.thresholds.valley {
            Some(_) => "ship probability, centrality in the ship",
            None => "ship probability",
        };
        let gate = (self.gate)(&self.notes("ship gate", "ship probability"));
        let unet = (self.unet)(&self.notes("ship segmentation", outputs));
        self.files.write(GATE, &gate)?;
        self.files.write(UNET, &unet)?;
        self.manifest.gate.sha256 = digest(&gate);
        self.manifest.unet.sha256 = digest(&unet);
        let text = toml::to_string(&self.manifest)?;
        self.files.write(MANIFEST, text.as_bytes())
    }

    /// Provenance, for whoever finds one of the files alone.
    fn notes(&self, task: &str, output: &str) -> Vec<(String, String)> {
        let (manifest, config) = (&self.manifest, &self.run.config);
        let [finest, coarsest] = manifest.gsd;
        let thresholds = manifest.thresholds;
        let mut notes = vec![
            ("task", task.to_owned()),
            ("bundle", manifest.name.clone()),
            (Normalisation::KEY, manifest.normalisation.note()),
            ("output", output.to_owned()),
            (
                "thresholds",
                format!(
                    "gate {}, classify {}, mask {}, min_area {}{}",
                    thresholds.gate,
                    thresholds.classify,
                    thresholds.mask,
                    thresholds.min_area,
                    (thresholds.valley)
                        .map_or(String::new(), |valley| format!(", valley {valley}"))
                ),
            ),
            ("gsd_metres_per_pixel", format!("{finest} to {coarsest}")),
            ("seed", config.seed.to_string()),
            ("data", names(config)),
            ("licence", manifest.licence.clone()),
        ];
        let origin = &self.run.origin;
        notes.extend(origin.revision.clone().map(|of| ("revision", of)));
        notes.extend(origin.split.clone().map(|of| ("split", of)));
        let metrics = manifest.scores.iter().map(|(set, scores)| {
            let ships = scores.dice_ships;
            let ships = ships.map_or(String::new(), |dice| format!("Dice of ships {dice:.3}, "));
            format!(
                "{set}: {ships}of all {:.3}, F2 {:.3}",
                scores.dice_all, scores.f2
            )
        });
        if !manifest.scores.is_empty() {
            notes.push(("metrics", metrics.collect::<Vec<_>>().join("; ")));
        }
        let owned = |(key, value): (&str, String)| (key.to_owned(), value);
        notes.into_iter().map(owned).collect()
    }
}

/// Where a bundle is made, below the folder that it is for.
pub(crate) const UNFINISHED: &str = ".unfinished";

/// A bundle that is still being made, in a hidden folder of the one that it is for, so that a crash
/// leaves no manifest whose thresholds nothing has chosen. Gone when dropped.
struct Unfinished {
    folder: PathBuf,
}

impl Unfinished {
    fn create(folder: &Path) -> Result<Self> {
        let folder = folder.to_owned();
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
        let context = || self.folder.display().to_string();
        let move_to = |name: &OsStr| {
            let to = out.join(name);
            fs::rename(self.folder.join(name), &to).with_context(|| to.display().to_string())
        };
        for entry in fs::read_dir(&self.folder).with_context(context)? {
            let name = entry.with_context(context)?.file_name();
            if name != MANIFEST {
                move_to(&name)?;
            }
        }
        move_to(MANIFEST.as_ref())
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
            let unfinished = Unfinished::create(&out.join(UNFINISHED)).expect("creates");
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

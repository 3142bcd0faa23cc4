//! The images of a run: which serve what, decoded once as far as memory allows.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use image::RgbImage;
use serde::Deserialize;
use shipwatch::dataset::{DatasetError, LabelledImage};
use shipwatch::model::digest;
use shipwatch::source::decode::{DecodeError, DecodeOptions, decode_file};

use crate::config::DataRoot;
use crate::data::{Split, open};

/// All data roots of a run.
pub(crate) struct Pool {
    pub(crate) sources: Vec<Source>,
    /// Bytes that decoded images may still take.
    budget: AtomicUsize,
}

/// One data root.
pub(crate) struct Source {
    pub(crate) config: DataRoot,
    pub(crate) images: Vec<PoolImage>,
}

/// One labelled image and what it is for.
pub(crate) struct PoolImage {
    pub(crate) labelled: LabelledImage,
    pub(crate) split: Split,
    decoded: OnceLock<RgbImage>,
    /// Set when the file turned out not to be readable.
    broken: AtomicBool,
}

impl Pool {
    /// Opens every root; images are decoded when first needed and kept up to `cache_mib`.
    pub(crate) fn open(roots: &[DataRoot], cache_mib: usize) -> Result<Self> {
        let mut sources = Vec::new();
        for config in roots {
            let data = open(&config.root)?;
            let images = assign(config, data.images)?;
            sources.push(Source {
                config: config.clone(),
                images,
            });
        }
        check_apart(&sources)?;
        Ok(Self {
            sources,
            budget: AtomicUsize::new(cache_mib.saturating_mul(1 << 20)),
        })
    }

    /// SHA-256, in lower-case hexadecimal, of what each image is for: sorted lines `source/id=split`.
    pub(crate) fn split_hash(&self) -> String {
        let line = |source: &Source, image: &PoolImage| {
            format!(
                "{}/{}={}\n",
                source.config.name, image.labelled.id, image.split
            )
        };
        let mut lines: Vec<String> = self
            .sources
            .iter()
            .flat_map(|source| source.images.iter().map(move |image| line(source, image)))
            .collect();
        lines.sort();
        digest(lines.concat().as_bytes())
    }

    /// Runs `work` on an image's pixels. A file that cannot be decoded is reported once and gives
    /// `None`: one broken file must not end a long run.
    ///
    /// Images stay decoded while the budget lasts. As access is random, keeping the first ones
    /// serves as many requests as any other choice.
    ///
    /// # Errors
    /// If the masks do not lie on the image, for then other labels are wrong as well.
    pub(crate) fn with_pixels<T>(
        &self,
        image: &PoolImage,
        work: impl FnOnce(&RgbImage) -> T,
    ) -> Result<Option<T>> {
        if let Some(pixels) = image.decoded.get() {
            return Ok(Some(work(pixels)));
        }
        let order = Ordering::Relaxed;
        if image.broken.load(order) {
            return Ok(None);
        }
        let pixels = match decode_file(&image.labelled.path, &DecodeOptions::default()) {
            Ok(frame) => frame.pixels,
            Err(error) => {
                image.leave_out(&error);
                return Ok(None);
            }
        };
        image.labelled.check(pixels.width(), pixels.height())?;
        let result = work(&pixels);
        let bytes = pixels.as_raw().len();
        let reserve = |left: usize| left.checked_sub(bytes);
        if self.budget.fetch_update(order, order, reserve).is_ok()
            && image.decoded.set(pixels).is_err()
        {
            self.budget.fetch_add(bytes, order);
        }
        Ok(Some(result))
    }
}

impl PoolImage {
    /// Treats the image as if it were not there from now on, because it cannot be read; reports that once.
    pub(crate) fn leave_out(&self, error: &DecodeError) {
        if !self.broken.swap(true, Ordering::Relaxed) {
            log::warn!("{error}; left out");
        }
    }
}

impl Source {
    /// The images of one split.
    pub(crate) fn of(&self, split: Split) -> impl Iterator<Item = &PoolImage> {
        self.images.iter().filter(move |image| image.split == split)
    }
}

/// Checks that no file serves two purposes, as it could where two sources name one folder.
fn check_apart(sources: &[Source]) -> Result<()> {
    let mut seen: BTreeMap<&Path, Split> = BTreeMap::new();
    for image in sources.iter().flat_map(|source| &source.images) {
        let path = image.labelled.path.as_path();
        if let Some(other) = seen.insert(path, image.split) {
            ensure!(
                other == image.split,
                "{} is for {other} and for {}: two [[data]] folders disagree",
                path.display(),
                image.split
            );
        }
    }
    Ok(())
}

/// What each image of a folder is for: by the config's id prefixes first, then by the file that
/// `split` names. Without one, what the folder's `split.csv` sets aside is halved between tuning and
/// testing in the order of ids, and the rest is for training.
fn assign(config: &DataRoot, images: Vec<LabelledImage>) -> Result<Vec<PoolImage>> {
    let listed =
        |prefixes: &[String], id: &str| prefixes.iter().any(|p| id.starts_with(p.as_str()));
    let file = config.split.as_deref().map(SplitFile::read).transpose()?;
    let mut set_aside = 0;
    let mut split = |image: &LabelledImage| -> Result<Split> {
        let from_file = file.as_ref().map(|file| file.of(&image.id)).transpose()?;
        let tests = listed(&config.test, &image.id);
        if listed(&config.tune, &image.id) {
            ensure!(
                !tests && from_file != Some(Split::Test),
                "`tune` of data `{}` claims {}, which is set aside for testing: nothing is tuned on that",
                config.name,
                image.id
            );
            return Ok(Split::Tune);
        }
        if config.held_out || tests {
            return Ok(Split::Test);
        }
        if let Some(split) = from_file {
            return Ok(split);
        }
        if image.split.as_deref().is_none_or(|split| split == "train") {
            return Ok(Split::Train);
        }
        set_aside += 1;
        Ok(match set_aside % 2 {
            0 => Split::Test,
            _ => Split::Tune,
        })
    };
    images
        .into_iter()
        .map(|labelled| {
            Ok(PoolImage {
                split: split(&labelled)?,
                labelled,
                decoded: OnceLock::new(),
                broken: AtomicBool::new(false),
            })
        })
        .collect()
}

/// A CSV that `train split` wrote.
struct SplitFile<'a> {
    path: &'a Path,
    splits: BTreeMap<String, Split>,
}

/// One row of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SplitRow {
    #[serde(rename = "ImageId")]
    id: String,
    split: Split,
}

impl<'a> SplitFile<'a> {
    fn read(path: &'a Path) -> Result<Self> {
        let context = || path.display().to_string();
        let mut splits = BTreeMap::new();
        let reader = csv::Reader::from_path(path).with_context(context)?;
        for row in reader.into_deserialize() {
            let SplitRow { id, split } = row.map_err(|error| DatasetError::of_csv(path, error))?;
            if let Some(other) = splits.insert(id.clone(), split) {
                ensure!(
                    other == split,
                    "{}: {id} is for {other} and for {split}",
                    path.display()
                );
            }
        }
        Ok(Self { path, splits })
    }

    fn of(&self, id: &str) -> Result<Split> {
        self.splits.get(id).copied().with_context(|| {
            format!(
                "{}: says nothing of {id}: write it anew by `train split`",
                self.path.display()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::data::sample::fixtures;

    fn opened(change: impl FnOnce(&mut DataRoot)) -> Result<Pool> {
        let dir = tempfile::tempdir().expect("folder");
        let mut config = fixtures::pool(dir.path()).sources.remove(0).config;
        fs::write(
            dir.path().join("s.csv"),
            "ImageId,split\na.png,tune\nb.png,test\n",
        )
        .expect("csv");
        fs::write(dir.path().join("part.csv"), "ImageId,split\na.png,tune\n").expect("csv");
        fs::write(dir.path().join("bad.csv"), "ImageId,split\na.png,valid\n").expect("csv");
        change(&mut config);
        Pool::open(&[config], 1)
    }

    fn splits(pool: &Pool) -> Vec<Split> {
        pool.sources[0]
            .images
            .iter()
            .map(|image| image.split)
            .collect()
    }

    #[test]
    fn a_split_file_decides_unless_a_prefix_does() {
        let pool = opened(|config| config.split = Some(config.root.join("s.csv"))).expect("opens");
        assert_eq!(splits(&pool), [Split::Tune, Split::Test]);
        let pool = opened(|config| {
            config.split = Some(config.root.join("s.csv"));
            config.test = vec!["a".into()];
        });
        assert_eq!(splits(&pool.expect("opens")), [Split::Test, Split::Test]);
        let pool = opened(|config| config.held_out = true).expect("opens");
        assert_eq!(splits(&pool), [Split::Test, Split::Test]);
    }

    #[test]
    fn nothing_is_tuned_on_what_is_set_aside_for_testing() {
        for change in [
            &|config: &mut DataRoot| config.split = Some(config.root.join("s.csv")),
            &|config: &mut DataRoot| config.test = vec!["b.p".into()],
        ] as [&dyn Fn(&mut DataRoot); 2]
        {
            let pool = opened(|config| {
                change(config);
                config.tune = vec!["b".into()];
            });
            let Err(error) = pool else {
                panic!("b.png was taken for tuning");
            };
            assert!(error.to_string().contains("claims b.png"), "{error}");
        }
    }

    #[test]
    fn a_split_file_that_does_not_fit_is_named() {
        for (file, word) in [
            ("part.csv", "b.png"),
            ("bad.csv", "valid"),
            ("none.csv", "none.csv"),
        ] {
            let Err(error) = opened(|config| config.split = Some(config.root.join(file))) else {
                panic!("{file} was taken");
            };
            let error = format!("{error:#}");
            assert!(error.contains(word) && error.contains(file), "{error}");
        }
    }

    #[test]
    fn the_split_hash_changes_with_the_split_alone() {
        let train = opened(|_| ()).expect("opens").split_hash();
        assert_eq!(
            opened(|config| config.weight = 2.0)
                .expect("opens")
                .split_hash(),
            train
        );
        // SHA-256 of "white ships/a.png=train\nwhite ships/b.png=train\n", by sha256sum.
        assert_eq!(
            train,
            "0956be6d8de2b82d48f0f55c1c1a0920d3a04adcebe698d14321de35de7e6ffa"
        );
        let held_out = opened(|config| config.held_out = true)
            .expect("opens")
            .split_hash();
        assert_ne!(held_out, train);
    }

    #[test]
    fn one_file_cannot_serve_two_splits() {
        let dir = tempfile::tempdir().expect("folder");
        let first = fixtures::pool(dir.path()).sources.remove(0).config;
        let mut second = first.clone();
        second.name = "the same again".into();
        second.test = vec!["b".into()];
        let Err(error) = Pool::open(&[first.clone(), second.clone()], 1) else {
            panic!("b.png was taken for training and for testing");
        };
        let error = error.to_string();
        assert!(
            error.contains("b.png") && error.contains("train and for test"),
            "{error}"
        );
        second.test.clear();
        Pool::open(&[first, second], 1).expect("twice for training is no harm");
    }
}

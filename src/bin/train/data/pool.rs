//! The images of a run: which serve what, decoded once as far as memory allows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result, bail, ensure};
use image::RgbImage;
use shipwatch::dataset::{Dataset, DatasetError, LabelledImage, read_splits};
use shipwatch::model::{Manifest, digest};
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
        let mut folders = Vec::new();
        for config in roots {
            let data = open(&config.root)?;
            check_starts(config, &data)?;
            folders.push((config, data));
        }
        let files = split_files(&folders)?;
        let mut sources = Vec::new();
        for (config, data) in folders {
            let file = config.split.as_deref().map(|path| &files[path]);
            sources.push(Source {
                config: config.clone(),
                images: assign(config, file, data.images)?,
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
        self.digest_of(|image| Some(image.split.to_string()))
    }

    /// Whether a bundle says that it was trained by another split than this, so that images which are
    /// for tuning and testing here may be such as it was trained on.
    pub(crate) fn differs_from(&self, manifest: &Manifest) -> bool {
        let theirs = manifest.run.as_ref().and_then(|run| run.split.as_ref());
        theirs.is_some_and(|split| *split != self.split_hash())
    }

    /// SHA-256, in lower-case hexadecimal, of the ships that are trained and tuned on: sorted lines
    /// `source/id=` and the run lengths of the image's ships, with semicolons between.
    pub(crate) fn label_hash(&self) -> String {
        self.digest_of(|image| {
            let ships = image.labelled.ships.iter().map(|ship| ship.to_string());
            (image.split != Split::Test).then(|| ships.collect::<Vec<_>>().join(";"))
        })
    }

    fn digest_of(&self, what: impl Fn(&PoolImage) -> Option<String>) -> String {
        let mut lines = Vec::new();
        for source in &self.sources {
            for image in &source.images {
                if let Some(what) = what(image) {
                    lines.push(format!(
                        "{}/{}={what}\n",
                        source.config.name, image.labelled.id
                    ));
                }
            }
        }
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

/// Checks that what `tune` and `test` name is there: what a slip of the pen means would be trained on.
fn check_starts(config: &DataRoot, data: &Dataset) -> Result<()> {
    for (key, starts) in [("tune", &config.tune), ("test", &config.test)] {
        for start in starts {
            ensure!(
                ids(data).any(|id| id.starts_with(start.as_str())),
                "`{key}` of data `{}` names `{start}`, with which no image's id starts: correct it, or take it out",
                config.name
            );
        }
    }
    Ok(())
}

/// Every image that a folder's CSV names.
fn ids(data: &Dataset) -> impl Iterator<Item = &String> {
    let there = data.images.iter().map(|image| &image.id);
    there.chain(&data.missing)
}

/// The files that `split` names, each of one folder or of several.
fn split_files<'a>(
    folders: &[(&'a DataRoot, Dataset)],
) -> Result<BTreeMap<&'a Path, SplitFile<'a>>> {
    let mut known: BTreeMap<&Path, BTreeSet<&String>> = BTreeMap::new();
    for (config, data) in folders {
        if let Some(path) = &config.split {
            known.entry(path).or_default().extend(ids(data));
        }
    }
    let mut files = BTreeMap::new();
    for (path, known) in known {
        let file = SplitFile::read(path)?;
        if let Some((id, (_, line))) = file.splits.iter().find(|(id, _)| !known.contains(id)) {
            let users = folders.iter().map(|(config, _)| *config);
            let names: Vec<&str> = users
                .filter(|config| config.split.as_deref() == Some(path))
                .map(|config| config.name.as_str())
                .collect();
            bail!(
                "{}:{line}: no image of data `{}` is called {id}: correct the id, or write the file anew by `train split`",
                path.display(),
                names.join("`, `")
            );
        }
        files.insert(path, file);
    }
    Ok(files)
}

/// What each image of a folder is for: by the config's id prefixes first, then by the file that
/// `split` names. Without one, what the folder's `split.csv` sets aside is halved between tuning and
/// testing in the order of ids, and the rest is for training.
fn assign(
    config: &DataRoot,
    file: Option<&SplitFile>,
    images: Vec<LabelledImage>,
) -> Result<Vec<PoolImage>> {
    let listed =
        |prefixes: &[String], id: &str| prefixes.iter().any(|p| id.starts_with(p.as_str()));
    let mut set_aside = 0;
    let mut split = |image: &LabelledImage| -> Result<Split> {
        let from_file = file.map(|file| file.of(&image.id)).transpose()?;
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
    /// What each image is for, and the line that says so.
    splits: BTreeMap<String, (Split, u64)>,
}

impl<'a> SplitFile<'a> {
    fn read(path: &'a Path) -> Result<Self, DatasetError> {
        let words = Split::ALL.map(|split| (split.name(), split));
        let splits = read_splits(path, &words)?;
        Ok(Self { path, splits })
    }

    fn of(&self, id: &str) -> Result<Split> {
        let found = self.splits.get(id).map(|(split, _)| *split);
        found.with_context(|| {
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

    use shipwatch::mask::Rle;

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
        let more = "ImageId,split\na.png,tune\nb.png,test\nc.png,test\n";
        fs::write(dir.path().join("more.csv"), more).expect("csv");
        fs::write(dir.path().join("bad.csv"), "ImageId,split\na.png,valid\n").expect("csv");
        let twice = "ImageId,split\na.png,tune\nb.png,test\na.png,test\n";
        fs::write(dir.path().join("twice.csv"), twice).expect("csv");
        fs::write(dir.path().join("wide.csv"), "ImageId,split,why\n").expect("csv");
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
            (
                "bad.csv",
                ":2: a.png is for `valid`, which is none of train, tune, test",
            ),
            (
                "twice.csv",
                ":4: a.png is for `test`, and for something else by line 2",
            ),
            ("wide.csv", ":1: the columns are ImageId, split, why"),
            ("none.csv", "none.csv"),
            (
                "more.csv",
                ":4: no image of data `white ships` is called c.png",
            ),
        ] {
            let Err(error) = opened(|config| config.split = Some(config.root.join(file))) else {
                panic!("{file} was taken");
            };
            let error = format!("{error:#}");
            assert!(error.contains(word) && error.contains(file), "{error}");
        }
    }

    #[test]
    fn what_names_no_image_is_refused() {
        for (key, change) in [
            ("tune", &|config: &mut DataRoot| {
                config.tune = vec!["a".into(), "B".into()]
            }),
            ("test", &|config: &mut DataRoot| {
                config.test = vec!["B".into()]
            }),
        ] as [(&str, &dyn Fn(&mut DataRoot)); 2]
        {
            let Err(error) = opened(change) else {
                panic!("what `{key}` means to set aside went into training");
            };
            let error = error.to_string();
            let wanted = format!("`{key}` of data `white ships` names `B`");
            assert!(error.contains(&wanted), "{error}");
        }
    }

    #[test]
    fn a_split_file_may_serve_several_folders() {
        let dirs = [(); 2].map(|()| tempfile::tempdir().expect("folder"));
        let mut configs = dirs.each_ref().map(|dir| {
            let config = fixtures::pool(dir.path()).sources.remove(0).config;
            DataRoot {
                split: Some(dirs[0].path().join("shared.csv")),
                ..config
            }
        });
        let rename = |file: &str, from: &str, to: &str| {
            let path = dirs[1].path().join(file);
            let text = fs::read_to_string(&path).expect("reads");
            fs::write(&path, text.replace(from, to)).expect("writes");
        };
        rename("ship_segmentations.csv", "b.png", "c.png");
        let images = dirs[1].path().join("images");
        fs::rename(images.join("b.png"), images.join("c.png")).expect("renames");
        let csv = "ImageId,split\na.png,train\nb.png,tune\nc.png,test\n";
        fs::write(dirs[0].path().join("shared.csv"), csv).expect("csv");
        configs[1].name = "more".into();
        let pool = Pool::open(&configs, 1).expect("each id is in one of the two");
        assert_eq!(splits(&pool), [Split::Train, Split::Tune]);
        assert_eq!(pool.sources[1].images[1].split, Split::Test);
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
    fn the_label_hash_changes_with_the_labels_that_are_learnt_from() {
        let ship = |runs: &[(u64, u64)]| Rle::new(runs.iter().copied()).expect("increasing");
        let hash = |split| {
            let mut pool = opened(|_| ()).expect("opens");
            let [a, b] = &mut pool.sources[0].images[..] else {
                panic!("two images");
            };
            a.labelled.ships = vec![ship(&[(1, 2), (9, 3)]), ship(&[(20, 1)])];
            b.labelled.ships = Vec::new();
            b.split = split;
            pool.label_hash()
        };
        // SHA-256 of "white ships/a.png=1 2 9 3;20 1\nwhite ships/b.png=\n" and of its first line, by
        // sha256sum.
        assert_eq!(
            hash(Split::Tune),
            "bd08dfd62238781c0ce7e1e70b600626eca680e5f792d291d6a8e83b81942b72"
        );
        assert_eq!(
            hash(Split::Test),
            "1028d05f011fed2e20c9b301d3aa56249a70f1634c62f9db3536aefe0924d8ae"
        );
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

//! Sets images aside for tuning and testing so that no scene is on two sides.

mod fingerprint;
mod groups;
mod matching;
mod plane;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rayon::prelude::*;
use serde::Deserialize;
use shipwatch::dataset::{DatasetError, LabelledImage};
use shipwatch::source::decode::{DecodeOptions, decode_file};

use crate::data::{Split, open};
use crate::files::replace;
use crate::progress::count;
use fingerprint::look;
use groups::{Shares, assign, groups};
use matching::Pair;

/// Groups of which the first images are named.
const NAMED: usize = 8;

/// Splits data sets into scenes for training, tuning and testing.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folders in the challenge's layout. What a split.csv there sets aside is never trained on.
    #[arg(required = true)]
    data: Vec<PathBuf>,
    /// CSV to write: ImageId and train, tune or test.
    #[arg(long)]
    out: PathBuf,
    /// Share of each folder's images for tuning.
    #[arg(long, default_value_t = 0.11)]
    tune: f64,
    /// Share of each folder's images for testing.
    #[arg(long, default_value_t = 0.11)]
    test: f64,
    /// Which scenes are set aside follows from it.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// CSV to write with the pairs of images that show one scene.
    #[arg(long)]
    pairs: Option<PathBuf>,
    /// CSV of further pairs, found by eye: ImageId and SameScene.
    #[arg(long)]
    ties: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    for (key, share) in [("--tune", args.tune), ("--test", args.test)] {
        ensure!(
            (0.0..1.0).contains(&share),
            "{key} {share}: must be 0 or more, and below 1"
        );
    }
    ensure!(
        args.tune + args.test < 1.0,
        "--tune and --test together leave nothing to train on"
    );
    let (folders, images) = gather(&args.data)?;
    let pairs = matching::pairs(&fingerprints(&images)?);
    let mut ties: Vec<_> = pairs.iter().map(|pair| pair.images).collect();
    if let Some(path) = &args.ties {
        ties.extend(read_ties(path, &images)?);
    }
    let groups = groups(images.len(), &ties);
    let shares = Shares {
        tune: args.tune,
        test: args.test,
    };

    let mut splits = vec![Split::Train; images.len()];
    for folder in &folders {
        // A group belongs to the folder of its first image.
        let own: Vec<Vec<usize>> = groups
            .iter()
            .filter(|group| folder.contains(&group[0]))
            .cloned()
            .collect();
        let members: Vec<usize> = own.iter().flatten().copied().collect();
        let place: BTreeMap<usize, usize> = members.iter().copied().zip(0..).collect();
        let local: Vec<Vec<usize>> = own
            .iter()
            .map(|group| group.iter().map(|image| place[image]).collect())
            .collect();
        let aside: Vec<bool> = members
            .iter()
            .map(|&image| is_set_aside(&images[image]))
            .collect();
        for (image, split) in members
            .iter()
            .zip(assign(&local, &aside, shares, args.seed))
        {
            splits[*image] = split;
        }
    }
    print!("{}", report(&images, &groups, &splits));
    write(
        &args.out,
        ["ImageId", "split"],
        images
            .iter()
            .zip(&splits)
            .map(|(image, split)| [image.id.clone(), split.to_string()]),
    )?;
    if let Some(path) = &args.pairs {
        let row = |pair: &Pair| {
            let (a, b) = pair.images;
            let likeness = format!("{:.3}", pair.likeness);
            [
                images[a].id.clone(),
                images[b].id.clone(),
                pair.places.to_string(),
                likeness,
            ]
        };
        let header = ["ImageId", "SameScene", "Places", "Likeness"];
        write(path, header, pairs.iter().map(row))?;
    }
    Ok(())
}

/// All images, and which of them each folder holds.
fn gather(folders: &[PathBuf]) -> Result<(Vec<std::ops::Range<usize>>, Vec<LabelledImage>)> {
    let (mut ranges, mut images) = (Vec::new(), Vec::<LabelledImage>::new());
    let mut seen: BTreeMap<String, PathBuf> = BTreeMap::new();
    for folder in folders {
        let start = images.len();
        for image in open(folder)?.images {
            if let Some(other) = seen.insert(image.id.clone(), folder.clone()) {
                bail!(
                    "{} is in {} and in {}: split folders that share names one by one",
                    image.id,
                    other.display(),
                    folder.display()
                );
            }
            images.push(image);
        }
        ranges.push(start..images.len());
    }
    Ok((ranges, images))
}

/// One row of `--ties`.
#[derive(Deserialize)]
struct Tie {
    #[serde(rename = "ImageId")]
    id: String,
    #[serde(rename = "SameScene")]
    other: String,
}

fn read_ties(path: &Path, images: &[LabelledImage]) -> Result<Vec<(usize, usize)>> {
    let context = || path.display().to_string();
    let ids = images.iter().map(|image| image.id.as_str());
    let places: BTreeMap<&str, usize> = ids.zip(0..).collect();
    let place = |id: &str| {
        let found = places.get(id).copied();
        found.with_context(|| format!("{}: {id} is in none of the folders", path.display()))
    };
    let reader = csv::Reader::from_path(path).with_context(context)?;
    reader
        .into_deserialize()
        .map(|row| {
            let Tie { id, other } = row.map_err(|error| DatasetError::of_csv(path, error))?;
            Ok((place(&id)?, place(&other)?))
        })
        .collect()
}

/// The striking places of each image; none of one that cannot be read, which is reported.
///
/// # Errors
/// If a mask does not lie on its image.
fn fingerprints(images: &[LabelledImage]) -> Result<Vec<fingerprint::Look>> {
    let bar = count("looking at images", images.len());
    let one = |image: &LabelledImage| -> Result<fingerprint::Look> {
        let found = match decode_file(&image.path, &DecodeOptions::default()) {
            Ok(frame) => {
                image.check(frame.pixels.width(), frame.pixels.height())?;
                look(&frame.pixels)
            }
            Err(error) => {
                bar.suspend(|| log::warn!("{error}; left out"));
                look(&image::RgbImage::new(1, 1))
            }
        };
        bar.inc(1);
        Ok(found)
    };
    let found: Result<_> = images.par_iter().map(one).collect();
    bar.finish_and_clear();
    found
}

fn is_set_aside(image: &LabelledImage) -> bool {
    image.split.as_deref().is_some_and(|split| split != "train")
}

/// What was found and decided, as text.
fn report(images: &[LabelledImage], groups: &[Vec<usize>], splits: &[Split]) -> String {
    let shared: Vec<&Vec<usize>> = groups.iter().filter(|group| group.len() > 1).collect();
    let tied: usize = shared.iter().map(|group| group.len()).sum();
    let straddling = shared.iter().filter(|group| {
        let aside = group
            .iter()
            .filter(|&&image| is_set_aside(&images[image]))
            .count();
        aside > 0 && aside < group.len()
    });
    let mut text = format!(
        "{} images, {} scenes; {tied} images share {} scenes with others, {} of which a split.csv cuts\n",
        images.len(),
        groups.len(),
        shared.len(),
        straddling.count()
    );
    for split in Split::ALL {
        let of = || images.iter().zip(splits).filter(move |(_, s)| **s == split);
        let ships = of().filter(|(image, _)| !image.ships.is_empty()).count();
        let scenes = groups
            .iter()
            .filter(|group| splits[group[0]] == split)
            .count();
        text += &format!(
            "{split:<5} {:>7} images ({:.1} %), {ships} with ships, {scenes} scenes\n",
            of().count(),
            of().count() as f64 / images.len().max(1) as f64 * 100.0
        );
    }
    let mut largest = shared;
    largest.sort_by_key(|group| std::cmp::Reverse(group.len()));
    for group in largest.iter().take(NAMED) {
        let names: Vec<&str> = group
            .iter()
            .take(NAMED)
            .map(|&i| images[i].id.as_str())
            .collect();
        let more = if group.len() > NAMED { ", ..." } else { "" };
        text += &format!(
            "{:>3} images of one scene: {}{more}\n",
            group.len(),
            names.join(", ")
        );
    }
    text
}

fn write<const N: usize>(
    path: &Path,
    header: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> Result<()> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(header)?;
    for row in rows {
        csv.write_record(row)?;
    }
    replace(path, &csv.into_inner()?).with_context(|| path.display().to_string())
}

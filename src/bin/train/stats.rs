//! What data sets hold: images, ships, their sizes, and how little of it all is ship.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail, ensure};
use rayon::prelude::*;
use shipwatch::dataset::{DatasetError, LabelledImage};
use shipwatch::metrics::mean;
use shipwatch::source::decode::read_size;

use crate::config::Config;
use crate::data::{Pool, open, ship_length};
use crate::grid::grid;
use crate::plot::Chart;
use crate::progress::count;

/// Upper ends of the classes of ships per image; one more class lies above.
const PER_IMAGE: [usize; 8] = [0, 1, 2, 3, 5, 10, 20, 50];

/// Upper ends of the classes of lengths in pixels; one more class lies above.
const LENGTHS: [f64; 12] = [
    6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0, 192.0, 256.0,
];

/// Upper ends of the classes of an image's share of ship pixels, in percent; one more lies above.
const SHARES: [f64; 8] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

/// Counts what data sets hold.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folders in the challenge's layout.
    #[arg(required_unless_present = "config")]
    data: Vec<PathBuf>,
    /// A config whose folders are counted, split as it says.
    #[arg(long, conflicts_with = "data")]
    config: Option<PathBuf>,
    /// Folder for plots as PNG.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// One image, counted.
struct Counted {
    pixels: u64,
    size: (u32, u32),
    ship_pixels: u64,
    /// Length of each ship in pixels.
    lengths: Vec<f64>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let groups = match &args.config {
        Some(config) => of_config(&Config::load(config)?)?,
        None => of_folders(&args.data)?,
    };
    let images: usize = groups.values().map(Vec::len).sum();
    let bar = count("counting", images);
    let misfits = AtomicUsize::new(0);
    let counted: BTreeMap<(String, String), Vec<Counted>> = groups
        .into_iter()
        .map(|(name, images)| {
            let one = |image: &LabelledImage| {
                let counted = Counted::of(image);
                bar.inc(1);
                match counted {
                    Ok(counted) => Some(counted),
                    Err(error) => {
                        let wrong = error.is::<DatasetError>();
                        misfits.fetch_add(usize::from(wrong), Ordering::Relaxed);
                        bar.suspend(|| log::warn!("{error}; left out"));
                        None
                    }
                }
            };
            (name, images.par_iter().filter_map(one).collect())
        })
        .collect();
    bar.finish_and_clear();
    ensure!(
        counted.values().any(|images| !images.is_empty()),
        "no image can be read"
    );
    let mut text = String::new();
    table(&mut text, &counted)?;
    print!("{text}");
    if let Some(folder) = &args.out {
        plots(folder, &counted.values().flatten().collect::<Vec<_>>())?;
    }
    match misfits.into_inner() {
        0 => Ok(()),
        misfits => bail!(
            "{misfits} of {images} images do not fit their masks and were left out: correct the CSV, or put back the images"
        ),
    }
}

/// Images by set and split.
type Groups = BTreeMap<(String, String), Vec<LabelledImage>>;

fn of_config(config: &Config) -> Result<Groups> {
    let mut groups = Groups::new();
    for source in Pool::open(&config.data, 0)?.sources {
        for image in source.images {
            let key = (source.config.name.clone(), image.split.to_string());
            groups.entry(key).or_default().push(image.labelled);
        }
    }
    Ok(groups)
}

fn of_folders(folders: &[PathBuf]) -> Result<Groups> {
    let mut groups = Groups::new();
    for folder in folders {
        for image in open(folder)?.images {
            let split = image.split.clone().unwrap_or("-".to_owned());
            let key = (folder.display().to_string(), split);
            groups.entry(key).or_default().push(image);
        }
    }
    Ok(groups)
}

impl Counted {
    /// Reads no more of the file than its header.
    fn of(image: &LabelledImage) -> Result<Self> {
        let size = read_size(&image.path)?;
        image.check(size.0, size.1)?;
        let pixels = u64::from(size.0) * u64::from(size.1);
        Ok(Self {
            pixels,
            size,
            ship_pixels: image.ships.iter().map(|ship| ship.area()).sum(),
            lengths: image
                .ships
                .iter()
                .map(|ship| ship_length(ship, size.1))
                .collect(),
        })
    }
}

fn table(
    text: &mut String,
    counted: &BTreeMap<(String, String), Vec<Counted>>,
) -> std::fmt::Result {
    let head = [
        "set",
        "split",
        "images",
        "without ships",
        "ships",
        "an image with",
        "most",
        "length 5 %",
        "50 %",
        "95 %",
        "ship pixels",
        "sizes",
    ];
    let rows = counted.iter().map(|((set, split), images)| {
        let all = images.len();
        let empty = images
            .iter()
            .filter(|image| image.lengths.is_empty())
            .count();
        let mut lengths: Vec<f64> = images
            .iter()
            .flat_map(|image| &image.lengths)
            .copied()
            .collect();
        lengths.sort_by(f64::total_cmp);
        let length = |share: f64| {
            let at = (share * lengths.len().saturating_sub(1) as f64).round() as usize;
            lengths
                .get(at)
                .map_or("-".to_owned(), |length| format!("{length:.0}"))
        };
        let (ship, whole) = images.iter().fold((0, 0), |(ship, whole), image| {
            (ship + image.ship_pixels, whole + image.pixels)
        });
        let some = images.iter().filter(|image| !image.lengths.is_empty());
        let per = mean(some.map(|image| image.lengths.len() as f64));
        let most = images
            .iter()
            .map(|image| image.lengths.len())
            .max()
            .unwrap_or(0);
        vec![
            set.clone(),
            split.clone(),
            all.to_string(),
            format!(
                "{empty} ({:.0} %)",
                empty as f64 / all.max(1) as f64 * 100.0
            ),
            lengths.len().to_string(),
            per.map_or("-".to_owned(), |per| format!("{per:.1}")),
            most.to_string(),
            length(0.05),
            length(0.5),
            length(0.95),
            format!("{:.3} %", ship as f64 / (whole as f64).max(1.0) * 100.0),
            sizes(images),
        ]
    });
    grid(text, &head, rows)
}

/// The commonest size, and how many others there are.
fn sizes(images: &[Counted]) -> String {
    let mut sizes: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    for image in images {
        *sizes.entry(image.size).or_default() += 1;
    }
    let Some((&(width, height), _)) = sizes.iter().max_by_key(|(_, count)| **count) else {
        return "-".to_owned();
    };
    match sizes.len() - 1 {
        0 => format!("{width}x{height}"),
        others => format!("{width}x{height} and {others} more"),
    }
}

fn plots(folder: &PathBuf, images: &[&Counted]) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let per_image = images.iter().map(|image| image.lengths.len() as f64);
    let ends: Vec<f64> = PER_IMAGE.iter().map(|&end| end as f64).collect();
    Chart::new("Ships per image", "ships", "images")
        .bars(&whole_classes(per_image, &ends))
        .log_y()
        .save(&folder.join("ships-per-image.png"))?;
    let lengths = images.iter().flat_map(|image| &image.lengths).copied();
    Chart::new("Length of ships", "pixels", "ships")
        .bars(&classes(lengths, &LENGTHS))
        .save(&folder.join("ship-lengths.png"))?;
    let some = images.iter().filter(|image| image.ship_pixels > 0);
    let shares = some.map(|image| image.ship_pixels as f64 / image.pixels as f64 * 100.0);
    Chart::new(
        "Ship pixels of images with ships",
        "percent of the image",
        "images",
    )
    .bars(&classes(shares, &SHARES))
    .save(&folder.join("ship-pixels.png"))
}

/// How many values lie in each class: below the first end, from there to below the second, and so on.
fn classes(values: impl Iterator<Item = f64>, ends: &[f64]) -> Vec<(String, f64)> {
    let mut counts = vec![0.0; ends.len() + 1];
    values.for_each(|value| counts[ends.partition_point(|&end| end <= value)] += 1.0);
    let last = ends.len();
    let name = |class: usize| match class {
        0 => format!("<{}", ends[0]),
        _ if class == last => format!("{}+", ends[last - 1]),
        _ => format!("{}-{}", ends[class - 1], ends[class]),
    };
    counts
        .into_iter()
        .enumerate()
        .map(|(class, count)| (name(class), count))
        .collect()
}

/// [`classes`] of whole numbers, each up to its end and with it.
fn whole_classes(values: impl Iterator<Item = f64>, ends: &[f64]) -> Vec<(String, f64)> {
    let counts = classes(
        values,
        &ends.iter().map(|end| end + 1.0).collect::<Vec<_>>(),
    );
    let name = |class: usize| match ends.get(class) {
        None => format!("{}+", ends[class - 1] + 1.0),
        Some(end) if class == 0 || ends[class - 1] + 1.0 == *end => end.to_string(),
        Some(end) => format!("{}-{end}", ends[class - 1] + 1.0),
    };
    counts
        .into_iter()
        .enumerate()
        .map(|(class, (_, count))| (name(class), count))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::fixtures;

    #[test]
    fn images_that_do_not_fit_their_masks_are_no_success() {
        let dir = tempfile::tempdir().expect("folder");
        fixtures::pool(dir.path());
        let args = Args {
            data: vec![dir.path().to_owned()],
            config: None,
            out: None,
        };
        run(&args).expect("all fit");
        let csv = dir.path().join("ship_segmentations.csv");
        let text = fs::read_to_string(&csv).expect("csv");
        fs::write(&csv, format!("{text}b.png,1999 3\n")).expect("csv");
        let error = run(&args).expect_err("b.png has 2000 pixels").to_string();
        assert!(error.starts_with("1 of 2 images"), "{error}");
    }

    #[test]
    fn each_value_falls_into_one_class() {
        let found = classes([0.5, 1.0, 1.9, 2.0, 7.0].into_iter(), &[1.0, 2.0]);
        let want = [("<1", 1.0), ("1-2", 2.0), ("2+", 2.0)];
        assert_eq!(found, want.map(|(name, count)| (name.to_owned(), count)));
        let found = whole_classes([0.0, 1.0, 2.0, 3.0, 9.0].into_iter(), &[0.0, 1.0, 3.0]);
        let want = [("0", 1.0), ("1", 1.0), ("2-3", 2.0), ("4+", 1.0)];
        assert_eq!(found, want.map(|(name, count)| (name.to_owned(), count)));
    }
}

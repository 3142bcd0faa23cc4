//! The Airbus challenge's folder layout: images beside a CSV of run-length masks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::mask::{Rle, RleError};

/// Folders that may hold the images, in order of preference.
const IMAGE_FOLDERS: [&str; 3] = ["images", "train_v2", "train"];

/// Names of the CSV, in order of preference.
const CSV_NAMES: [&str; 2] = ["ship_segmentations.csv", "train_ship_segmentations_v2.csv"];

/// Images with their ships.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// The folder that was opened.
    pub root: PathBuf,
    /// Every image that the CSV names and the disk holds, sorted by id.
    pub images: Vec<LabelledImage>,
    /// Ids that the CSV names but the disk does not hold.
    pub missing: Vec<String>,
}

/// One image and the ships in it.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledImage {
    /// File name, as the CSV gives it.
    pub id: String,
    /// Where the file is.
    pub path: PathBuf,
    /// One mask per ship; none for an image without ships.
    pub ships: Vec<Rle>,
    /// What a `split.csv` beside the masks says of the image.
    pub split: Option<String>,
}

/// Why a data set could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A file or folder could not be read.
    #[error("{path}: {source}")]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// None of the known names is there.
    #[error("{root}: holds none of {expected}; expected the challenge's layout")]
    Layout {
        /// The folder that was opened.
        root: PathBuf,
        /// What was looked for.
        expected: String,
    },
    /// Not CSV, or other columns than expected.
    #[error("{path}: {source}")]
    Csv {
        /// The CSV.
        path: PathBuf,
        /// What is wrong, with the line.
        source: csv::Error,
    },
    /// A field does not hold run lengths.
    #[error("{path}:{line}: EncodedPixels of {id}: {source}")]
    Rle {
        /// The CSV.
        path: PathBuf,
        /// Line in it, from 1.
        line: u64,
        /// The image.
        id: String,
        /// What is wrong.
        source: RleError,
    },
}

/// One row of the masks' CSV.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MaskRow {
    #[serde(rename = "ImageId")]
    id: String,
    #[serde(rename = "EncodedPixels")]
    runs: String,
}

/// One row of `split.csv`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SplitRow {
    #[serde(rename = "ImageId")]
    id: String,
    split: String,
}

impl Dataset {
    /// Reads the CSV below `root` and matches it with the images there. No image is decoded.
    ///
    /// # Errors
    /// If the CSV or the folder of images is not there, or one of the CSVs cannot be read.
    pub fn open(root: &Path) -> Result<Self, DatasetError> {
        let csv = find(root, &CSV_NAMES)?;
        let folder = find(root, &IMAGE_FOLDERS)?;
        let io = |source| DatasetError::Io {
            path: folder.clone(),
            source,
        };
        let mut present = BTreeSet::new();
        for entry in fs::read_dir(&folder).map_err(io)? {
            present.insert(entry.map_err(io)?.file_name());
        }
        let split_csv = root.join("split.csv");
        let splits = if split_csv.exists() {
            read_splits(&split_csv)?
        } else {
            BTreeMap::new()
        };
        let (mut images, mut missing) = (Vec::new(), Vec::new());
        for (id, ships) in read_masks(&csv)? {
            if present.contains(Path::new(&id).as_os_str()) {
                let split = splits.get(&id).cloned();
                images.push(LabelledImage {
                    path: folder.join(&id),
                    id,
                    ships,
                    split,
                });
            } else {
                missing.push(id);
            }
        }
        Ok(Self {
            root: root.to_owned(),
            images,
            missing,
        })
    }
}

/// The first of `names` that exists below `root`.
fn find(root: &Path, names: &[&str]) -> Result<PathBuf, DatasetError> {
    names
        .iter()
        .map(|name| root.join(name))
        .find(|path| path.exists())
        .ok_or_else(|| DatasetError::Layout {
            root: root.to_owned(),
            expected: names.join(", "),
        })
}

/// Ships by image id.
fn read_masks(path: &Path) -> Result<BTreeMap<String, Vec<Rle>>, DatasetError> {
    let csv_error = |source| DatasetError::Csv {
        path: path.to_owned(),
        source,
    };
    let mut reader = csv::Reader::from_path(path).map_err(csv_error)?;
    let headers = reader.headers().map_err(csv_error)?.clone();
    let mut images: BTreeMap<String, Vec<Rle>> = BTreeMap::new();
    for record in reader.records() {
        let record = record.map_err(csv_error)?;
        let row: MaskRow = record.deserialize(Some(&headers)).map_err(csv_error)?;
        let ships = images.entry(row.id.clone()).or_default();
        let rle: Rle = row.runs.parse().map_err(|source| DatasetError::Rle {
            path: path.to_owned(),
            line: record.position().map_or(0, |position| position.line()),
            id: row.id,
            source,
        })?;
        if !rle.is_empty() {
            ships.push(rle);
        }
    }
    Ok(images)
}

/// Split names by image id.
fn read_splits(path: &Path) -> Result<BTreeMap<String, String>, DatasetError> {
    let csv_error = |source| DatasetError::Csv {
        path: path.to_owned(),
        source,
    };
    csv::Reader::from_path(path)
        .map_err(csv_error)?
        .into_deserialize()
        .map(|row| {
            row.map(|SplitRow { id, split }| (id, split))
                .map_err(csv_error)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(csv: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("temporary folder");
        fs::create_dir(dir.path().join("images")).expect("folder");
        for name in ["a.jpg", "b.jpg"] {
            fs::write(dir.path().join("images").join(name), "").expect("file");
        }
        fs::write(dir.path().join("ship_segmentations.csv"), csv).expect("csv");
        dir
    }

    #[test]
    fn gathers_rows_of_one_image_and_keeps_images_without_ships() {
        let dir = layout("ImageId,EncodedPixels\nb.jpg,\na.jpg,1 2\na.jpg,9 1\ngone.jpg,\n");
        fs::write(dir.path().join("split.csv"), "ImageId,split\nb.jpg,valid\n").expect("split");
        let data = Dataset::open(dir.path()).expect("opens");
        let ships: Vec<_> = data
            .images
            .iter()
            .map(|i| (i.id.as_str(), i.ships.len()))
            .collect();
        assert_eq!(ships, [("a.jpg", 2), ("b.jpg", 0)]);
        assert_eq!(data.images[1].split.as_deref(), Some("valid"));
        assert_eq!(data.missing, ["gone.jpg"]);
    }

    #[test]
    fn reads_csv_as_other_programs_write_it() {
        let plain = layout("ImageId,EncodedPixels\na.jpg,1 2\na.jpg,9 1\nb.jpg,\n");
        let want = Dataset::open(plain.path()).expect("opens").images;
        let ships = |images: &[LabelledImage]| -> Vec<(String, Vec<Rle>)> {
            let pair = |i: &LabelledImage| (i.id.clone(), i.ships.clone());
            images.iter().map(pair).collect()
        };
        for csv in [
            "\u{feff}ImageId,EncodedPixels\r\na.jpg,1 2\r\na.jpg,9 1\r\nb.jpg,\r\n",
            "\"EncodedPixels\",\"ImageId\"\n\"1 2\",a.jpg\n 9 1 ,\"a.jpg\"\n\"\",b.jpg",
        ] {
            let dir = layout(csv);
            let got = Dataset::open(dir.path()).expect("opens").images;
            assert_eq!(ships(&got), ships(&want), "{csv:?}");
        }
    }

    #[test]
    fn names_file_line_and_image_of_a_bad_mask() {
        let dir = layout("ImageId,EncodedPixels\na.jpg,1 2\na.jpg,3\n");
        let error = Dataset::open(dir.path())
            .expect_err("odd count")
            .to_string();
        assert!(error.contains("ship_segmentations.csv:3"), "{error}");
        assert!(error.contains("a.jpg"), "{error}");
    }

    #[test]
    fn refuses_other_columns_and_other_layouts() {
        let dir = layout("ImageId,Pixels\na.jpg,1 2\n");
        assert!(matches!(
            Dataset::open(dir.path()),
            Err(DatasetError::Csv { .. })
        ));
        let empty = tempfile::tempdir().expect("temporary folder");
        assert!(matches!(
            Dataset::open(empty.path()),
            Err(DatasetError::Layout { .. })
        ));
    }
}

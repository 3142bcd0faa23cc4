//! The Airbus challenge's folder layout: images beside a CSV of run-length masks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use csv::{ErrorKind, StringRecord};

use crate::mask::{Rle, RleError};

/// Folders that may hold the images, in order of preference.
const IMAGE_FOLDERS: [&str; 3] = ["images", "train_v2", "train"];

/// Names of the CSV, in order of preference.
const CSV_NAMES: [&str; 2] = ["ship_segmentations.csv", CHALLENGE_CSV];

/// What a `split.csv` may call an image's purpose.
const SPLITS: [&str; 6] = ["train", "tune", "val", "valid", "validation", "test"];

/// The challenge's own CSV, and the size of all images that it speaks of.
const CHALLENGE_CSV: &str = "train_ship_segmentations_v2.csv";
const CHALLENGE_SIZE: (u32, u32) = (768, 768);

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
    /// One mask per ship; none for an image without ships. No two of them share a pixel.
    pub ships: Vec<Rle>,
    /// Line of each ship in the CSV, from 1.
    pub lines: Vec<u64>,
    /// The CSV.
    pub csv: Arc<Path>,
    /// What a `split.csv` beside the masks says of the image: `train`, `tune`, `val`, `valid`,
    /// `validation` or `test`.
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
    /// Not CSV, or not of the expected form.
    #[error("{path}:{line}: {problem}")]
    Csv {
        /// The CSV.
        path: PathBuf,
        /// Line in it, from 1.
        line: u64,
        /// What is wrong.
        problem: String,
    },
    /// A row that says of which image it speaks by nothing.
    #[error("{path}:{line}: the ImageId is empty")]
    NoId {
        /// The CSV.
        path: PathBuf,
        /// Line in it, from 1.
        line: u64,
    },
    /// An image that has ships by one row and none by another.
    #[error(
        "{path}:{line}: {id} has no ship by this line, or one by line {ship}: take one of them out"
    )]
    Contradiction {
        /// The CSV.
        path: PathBuf,
        /// Line without a mask, from 1.
        line: u64,
        /// The image.
        id: String,
        /// Line with a mask.
        ship: u64,
    },
    /// Other columns than expected.
    #[error("{path}:1: the columns are {found}, but {expected} are expected")]
    Columns {
        /// The CSV.
        path: PathBuf,
        /// Its columns.
        found: String,
        /// What they should be.
        expected: String,
    },
    /// A split calls an image's purpose by an unknown name.
    #[error("{path}:{line}: {id} is for `{word}`, which is none of {known}")]
    Split {
        /// The CSV.
        path: PathBuf,
        /// Line in it, from 1.
        line: u64,
        /// The image.
        id: String,
        /// What the file says.
        word: String,
        /// What it could say.
        known: String,
    },
    /// By a split an image has two purposes.
    #[error(
        "{path}:{line}: {id} is for `{word}`, and for something else by line {other}: take one of them out"
    )]
    TwoSplits {
        /// The CSV.
        path: PathBuf,
        /// Line in it, from 1.
        line: u64,
        /// The image.
        id: String,
        /// What this line says.
        word: String,
        /// The line that says otherwise.
        other: u64,
    },
    /// A `split.csv` speaks of an image that there is none of.
    #[error(
        "{path}:{line}: the CSV of masks names no image {id}: correct the id, or take the line out"
    )]
    SplitOfNothing {
        /// The `split.csv`.
        path: PathBuf,
        /// Line in it, from 1.
        line: u64,
        /// The id.
        id: String,
    },
    /// No image that the CSV names is there.
    #[error("{folder}: holds none of the {named} images that {csv} names")]
    NoImages {
        /// The folder of images.
        folder: PathBuf,
        /// The CSV.
        csv: PathBuf,
        /// How many it names.
        named: usize,
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
    /// Two ships of an image share a pixel.
    #[error(
        "{path}:{line}: pixel {pixel} of {id} belongs to another ship already, that of line {other}"
    )]
    Overlap {
        /// The CSV.
        path: PathBuf,
        /// Line in it, from 1.
        line: u64,
        /// The image.
        id: String,
        /// The pixel's number, as in run lengths.
        pixel: u64,
        /// The other ship's line.
        other: u64,
    },
    /// A mask leaves its image.
    #[error(
        "{path}:{line}: a mask reaches pixel {pixel} of {id}, which has {width}x{height}: it is of another image"
    )]
    OutOfRange {
        /// The CSV.
        path: PathBuf,
        /// Line in it, from 1.
        line: u64,
        /// The image.
        id: String,
        /// The mask's last pixel.
        pixel: u64,
        /// Columns of the image.
        width: u32,
        /// Rows of the image.
        height: u32,
    },
    /// The challenge's masks with images of another size: run lengths depend on it.
    #[error(
        "{image}: is {width}x{height}, but {csv} speaks of images of 768x768: its masks would lie elsewhere"
    )]
    Size {
        /// The image.
        image: PathBuf,
        /// The CSV.
        csv: PathBuf,
        /// Columns of the image.
        width: u32,
        /// Rows of the image.
        height: u32,
    },
}

impl DatasetError {
    /// What is wrong with a CSV, by the line.
    pub fn of_csv(path: &Path, error: csv::Error) -> Self {
        let path = path.to_owned();
        let line = error.position().map_or(1, csv::Position::line);
        let problem = match error.into_kind() {
            ErrorKind::Io(source) => return Self::Io { path, source },
            ErrorKind::UnequalLengths {
                expected_len, len, ..
            } => format!("{len} fields, but the first line has {expected_len}"),
            ErrorKind::Utf8 { err, .. } => format!("no UTF-8: {err}"),
            ErrorKind::Deserialize { err, .. } => err.to_string(),
            other => format!("{other:?}"),
        };
        Self::Csv {
            path,
            line,
            problem,
        }
    }
}

impl LabelledImage {
    /// Checks that the masks can be of this image, once its size is known.
    ///
    /// # Errors
    /// [`DatasetError::OutOfRange`] and [`DatasetError::Size`].
    pub fn check(&self, width: u32, height: u32) -> Result<(), DatasetError> {
        let challenge = self
            .csv
            .file_name()
            .is_some_and(|name| name == CHALLENGE_CSV);
        if challenge && (width, height) != CHALLENGE_SIZE {
            return Err(DatasetError::Size {
                image: self.path.clone(),
                csv: self.csv.to_path_buf(),
                width,
                height,
            });
        }
        let pixels = u64::from(width) * u64::from(height);
        for (ship, &line) in self.ships.iter().zip(&self.lines) {
            let pixel = ship
                .runs()
                .last()
                .map_or(0, |(start, length)| start + length - 1);
            if pixel > pixels {
                return Err(DatasetError::OutOfRange {
                    path: self.csv.to_path_buf(),
                    line,
                    id: self.id.clone(),
                    pixel,
                    width,
                    height,
                });
            }
        }
        Ok(())
    }
}

impl Dataset {
    /// Reads the CSV below `root` and matches it with the images there. No image is decoded.
    ///
    /// # Errors
    /// If the CSV or the folder of images is not there or holds none of them, one of the CSVs cannot be
    /// read, two ships share a pixel, or a `split.csv` holds an unknown word or id or contradicts itself.
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
        let masks = read_masks(&csv)?;
        let split_csv = root.join("split.csv");
        let splits = if split_csv.exists() {
            read_splits(&split_csv, &SPLITS.map(|word| (word, word)))?
        } else {
            BTreeMap::new()
        };
        if let Some((id, &(_, line))) = splits.iter().find(|(id, _)| !masks.contains_key(*id)) {
            return Err(DatasetError::SplitOfNothing {
                path: split_csv,
                line,
                id: id.clone(),
            });
        }
        let (mut images, mut missing) = (Vec::new(), Vec::new());
        let (named, csv): (usize, Arc<Path>) = (masks.len(), csv.into());
        for (id, rows) in masks {
            if present.contains(Path::new(&id).as_os_str()) {
                let (ships, lines) = rows.ships.into_iter().unzip();
                images.push(LabelledImage {
                    path: folder.join(&id),
                    split: splits.get(&id).map(|&(word, _)| word.to_owned()),
                    id,
                    ships,
                    lines,
                    csv: csv.clone(),
                });
            } else {
                missing.push(id);
            }
        }
        if images.is_empty() {
            return Err(DatasetError::NoImages {
                folder,
                csv: csv.to_path_buf(),
                named,
            });
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

/// What a CSV of masks says of an image.
#[derive(Default)]
struct Rows {
    /// Each ship with its line.
    ships: Vec<(Rle, u64)>,
    /// The line by which there is none.
    empty: Option<u64>,
}

/// What the CSV says, by image id.
fn read_masks(path: &Path) -> Result<BTreeMap<String, Rows>, DatasetError> {
    let mut images: BTreeMap<String, Rows> = BTreeMap::new();
    for_each_row(path, ["ImageId", "EncodedPixels"], |[id, runs], line| {
        let rows = images.entry(id.to_owned()).or_default();
        let rle: Rle = runs.parse().map_err(|source| DatasetError::Rle {
            path: path.to_owned(),
            line,
            id: id.to_owned(),
            source,
        })?;
        if rle.is_empty() {
            rows.empty = Some(line);
        } else {
            rows.ships.push((rle, line));
        }
        Ok(())
    })?;
    for (id, rows) in &images {
        if let (Some(line), Some(&(_, ship))) = (rows.empty, rows.ships.first()) {
            return Err(DatasetError::Contradiction {
                path: path.to_owned(),
                line,
                id: id.clone(),
                ship,
            });
        }
        check_apart(path, id, &rows.ships)?;
    }
    Ok(images)
}

/// Checks that no pixel belongs to two ships.
fn check_apart(path: &Path, id: &str, ships: &[(Rle, u64)]) -> Result<(), DatasetError> {
    let mut runs: Vec<(u64, u64, u64)> = ships
        .iter()
        .flat_map(|(rle, line)| {
            rle.runs()
                .iter()
                .map(|&(start, length)| (start, start + length, *line))
        })
        .collect();
    runs.sort_unstable();
    // Runs of one ship lie apart, so it is enough to look at neighbours.
    let meets = |pair: &&[(u64, u64, u64)]| pair[1].0 < pair[0].1;
    match runs.windows(2).find(meets) {
        Some(pair) => Err(DatasetError::Overlap {
            path: path.to_owned(),
            line: pair[0].2.max(pair[1].2),
            id: id.to_owned(),
            pixel: pair[1].0,
            other: pair[0].2.min(pair[1].2),
        }),
        None => Ok(()),
    }
}

/// What each image is for by a CSV with the columns `ImageId` and `split`, and the line that says so,
/// from 1. `words` are the names of purposes, and what they mean.
///
/// # Errors
/// If the file cannot be read, has other columns, or uses another word, for an image whose purpose is
/// misspelt would be trained on; or if it says two things of an image.
pub fn read_splits<T: Copy + PartialEq>(
    path: &Path,
    words: &[(&str, T)],
) -> Result<BTreeMap<String, (T, u64)>, DatasetError> {
    let mut splits = BTreeMap::new();
    for_each_row(path, ["ImageId", "split"], |[id, word], line| {
        let (path, id, said) = (path.to_owned(), id.to_owned(), word.to_owned());
        let Some(&(_, split)) = words.iter().find(|(known, _)| *known == word) else {
            let known: Vec<&str> = words.iter().map(|(known, _)| *known).collect();
            return Err(DatasetError::Split {
                path,
                line,
                id,
                word: said,
                known: known.join(", "),
            });
        };
        match *splits.entry(id.clone()).or_insert((split, line)) {
            (other, _) if other == split => Ok(()),
            (_, other) => Err(DatasetError::TwoSplits {
                path,
                line,
                id,
                word: said,
                other,
            }),
        }
    })?;
    Ok(splits)
}

/// Calls back with the two columns of each row, in the order of `columns`, and its line. The first of
/// them names an image.
fn for_each_row(
    path: &Path,
    columns: [&str; 2],
    mut call: impl FnMut([&str; 2], u64) -> Result<(), DatasetError>,
) -> Result<(), DatasetError> {
    let csv_error = |error| DatasetError::of_csv(path, error);
    let mut reader = csv::Reader::from_path(path).map_err(csv_error)?;
    let headers = reader.headers().map_err(csv_error)?;
    let place = |column: &str| headers.iter().position(|header| header == column);
    let (Some(first), Some(second), 2) = (place(columns[0]), place(columns[1]), headers.len())
    else {
        return Err(DatasetError::Columns {
            path: path.to_owned(),
            found: headers.iter().collect::<Vec<_>>().join(", "),
            expected: columns.join(", "),
        });
    };
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).map_err(csv_error)? {
        let line = record.position().map_or(0, |position| position.line());
        if record[first].trim().is_empty() {
            return Err(DatasetError::NoId {
                path: path.to_owned(),
                line,
            });
        }
        call([&record[first], &record[second]], line)?;
    }
    Ok(())
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
    fn names_the_line_of_a_split_that_makes_no_sense() {
        let dir = layout("ImageId,EncodedPixels\na.jpg,1 2\ngone.jpg,\n");
        let error = |row: &str| {
            let csv = format!("ImageId,split\ngone.jpg,test\n{row}\n");
            fs::write(dir.path().join("split.csv"), csv).expect("split");
            Dataset::open(dir.path()).expect_err(row).to_string()
        };
        for (row, word) in [
            (
                "a.jpg,vaild",
                "split.csv:3: a.jpg is for `vaild`, which is none of train, tune, val",
            ),
            ("a.jpg,", "split.csv:3: a.jpg is for ``"),
            (",test", "split.csv:3: the ImageId is empty"),
            ("a.jpg", "split.csv:3: 1 fields"),
            (
                "a.jpg,test\ngone.jpg,train",
                "split.csv:4: gone.jpg is for `train`, and for something else by line 2",
            ),
            (
                "a.jgp,valid",
                "split.csv:3: the CSV of masks names no image a.jgp",
            ),
        ] {
            let error = error(row);
            assert!(error.contains(word), "{error}");
        }
        // To say one thing twice is no contradiction.
        let csv = "split,ImageId\ntest,a.jpg\ntest,a.jpg\n";
        fs::write(dir.path().join("split.csv"), csv).expect("split");
        let data = Dataset::open(dir.path()).expect("opens");
        assert_eq!(data.images[0].split.as_deref(), Some("test"));
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
    fn rows_that_say_nothing_or_too_much_are_named() {
        for (rows, wanted) in [
            (&b"a.jpg,1 2\n,5 1\n"[..], ":3: the ImageId is empty"),
            (b"a.jpg,1 2\n  ,\n", ":3: the ImageId is empty"),
            (
                b"a.jpg,1 2\nb.jpg,\na.jpg,\n",
                ":4: a.jpg has no ship by this line, or one by line 2",
            ),
            (
                b"a.jpg,\nb.jpg,\na.jpg,1 2\n",
                ":2: a.jpg has no ship by this line, or one by line 4",
            ),
            (b"a.jpg,1 2\nb\xff.jpg,\n", ":3: no UTF-8"),
            (b"a.jpg,1 2\na.jpg,3 1,ship\n", ":3: 3 fields"),
        ] {
            let dir = layout("");
            let csv = [b"ImageId,EncodedPixels\n", rows].concat();
            fs::write(dir.path().join("ship_segmentations.csv"), csv).expect("csv");
            let error = Dataset::open(dir.path()).expect_err(wanted).to_string();
            assert!(
                error.contains(&format!("ship_segmentations.csv{wanted}")),
                "{error}"
            );
            assert!(!error.contains("record"), "{error}");
        }
        // To say twice that there is none is no contradiction.
        let dir = layout("ImageId,EncodedPixels\na.jpg,\na.jpg,\n");
        assert!(
            Dataset::open(dir.path()).expect("opens").images[0]
                .ships
                .is_empty()
        );
    }

    #[test]
    fn names_the_lines_of_ships_that_share_a_pixel() {
        let dir = layout("ImageId,EncodedPixels\na.jpg,1 2 7 2\nb.jpg,\na.jpg,4 1 8 5\n");
        let error = Dataset::open(dir.path()).expect_err("pixel 8").to_string();
        assert!(error.contains("ship_segmentations.csv:4"), "{error}");
        assert!(
            error.contains("pixel 8 of a.jpg") && error.contains("line 2"),
            "{error}"
        );
        // What only touches is fine, as are ships of two images.
        let dir = layout("ImageId,EncodedPixels\na.jpg,1 2\na.jpg,3 1\nb.jpg,1 2\n");
        assert_eq!(
            Dataset::open(dir.path()).expect("opens").images[0].lines,
            [2, 3]
        );
    }

    #[test]
    fn masks_must_be_of_an_image_of_that_size() {
        let dir = layout("ImageId,EncodedPixels\na.jpg,1 2\na.jpg,9 4\n");
        let image = &Dataset::open(dir.path()).expect("opens").images[0];
        image.check(4, 3).expect("ends at pixel 12 of 12");
        let error = image.check(11, 1).expect_err("leaves").to_string();
        assert!(
            error.contains("ship_segmentations.csv:3: a mask reaches pixel 12 of a.jpg"),
            "{error}"
        );
        // The challenge's own CSV is of images of one size.
        let root = dir.path();
        fs::rename(
            root.join("ship_segmentations.csv"),
            root.join(CHALLENGE_CSV),
        )
        .expect("renames");
        let image = &Dataset::open(root).expect("opens").images[0];
        image.check(768, 768).expect("the challenge's");
        let error = image.check(768, 767).expect_err("another size").to_string();
        assert!(error.contains("a.jpg: is 768x767"), "{error}");
    }

    #[test]
    fn an_empty_folder_of_images_is_named() {
        let dir = layout("ImageId,EncodedPixels\nc.jpg,1 2\n");
        let error = Dataset::open(dir.path()).expect_err("no c.jpg").to_string();
        assert!(
            error.contains("images: holds none of the 1 images"),
            "{error}"
        );
        assert!(error.contains("ship_segmentations.csv"), "{error}");
    }

    #[test]
    fn refuses_other_columns_and_other_layouts() {
        for (csv, found) in [
            ("ImageId,Pixels\na.jpg,1 2\n", "ImageId, Pixels"),
            (
                "ImageId,EncodedPixels,Class\n",
                "ImageId, EncodedPixels, Class",
            ),
            ("", "EncodedPixels"),
        ] {
            let error = Dataset::open(layout(csv).path())
                .expect_err(csv)
                .to_string();
            assert!(
                error.contains("ship_segmentations.csv:1") && error.contains(found),
                "{error}"
            );
        }
        let dir = layout("ImageId,EncodedPixels\na.jpg,1 2\n");
        fs::write(dir.path().join("split.csv"), "Id,split\na.jpg,train\n").expect("split");
        let error = Dataset::open(dir.path())
            .expect_err("no ImageId")
            .to_string();
        assert!(error.contains("split.csv:1"), "{error}");
        let dir = layout("ImageId,EncodedPixels\na.jpg,1 2\nb.jpg\n");
        let error = Dataset::open(dir.path())
            .expect_err("a short row")
            .to_string();
        assert!(
            error.ends_with("ship_segmentations.csv:3: 1 fields, but the first line has 2"),
            "{error}"
        );
        let empty = tempfile::tempdir().expect("temporary folder");
        assert!(matches!(
            Dataset::open(empty.path()),
            Err(DatasetError::Layout { .. })
        ));
    }
}

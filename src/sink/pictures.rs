//! Pictures of frames, as files in a folder.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use image::codecs::png::PngEncoder;
use image::{ImageError, ImageResult, RgbImage};

use super::{CROP, OVERLAY};
use crate::record::FrameRecord;

/// Makes pictures of a frame.
pub trait Draw: Send + Sync {
    /// How the names of its files end.
    fn suffix(&self) -> &'static str;

    /// Pictures of a frame of the source of that number, each drawn when it is asked for.
    ///
    /// # Panics
    /// If the record speaks of a frame of another size, or there is no such source.
    fn draw<'a>(
        &'a self,
        source: usize,
        pixels: &'a RgbImage,
        record: &'a FrameRecord,
    ) -> Drawn<'a>;
}

/// Pictures, one after another.
pub type Drawn<'a> = Box<dyn Iterator<Item = RgbImage> + 'a>;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The folder cannot be made or read.
    #[error("cannot use the folder {folder} for pictures: {source}")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be created.
    #[error("cannot create {file}: {source}")]
    Create {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {file}: {source}")]
    Write {
        /// The file.
        file: PathBuf,
        /// Why.
        source: ImageError,
    },
}

/// Pictures of one kind in one folder.
pub struct Pictures {
    folder: PathBuf,
    draw: Box<dyn Draw>,
    kept: Option<Mutex<Kept>>,
}

/// What lies in the folder, from the oldest on.
struct Kept {
    files: VecDeque<(PathBuf, u64)>,
    bytes: u64,
    most: u64,
}

impl Pictures {
    /// Pictures in `folder`, which is created where it is missing.
    ///
    /// # Errors
    /// [`PictureError::Folder`].
    pub fn new(folder: &Path, draw: Box<dyn Draw>) -> Result<Self, PictureError> {
        let created = fs::create_dir_all(folder);
        created.map_err(|source| PictureError::Folder {
            folder: folder.to_owned(),
            source,
        })?;
        Ok(Self {
            folder: folder.to_owned(),
            draw,
            kept: None,
        })
    }

    /// Where they go.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Lets the folder's pictures of this kind take so many bytes at most: the oldest go for new ones.
    ///
    /// # Errors
    /// [`PictureError::Folder`].
    pub fn bounded(self, most: u64) -> Result<Self, PictureError> {
        let kept = Kept::list(&self.folder, self.draw.suffix(), most);
        let kept = kept.map_err(|source| PictureError::Folder {
            folder: self.folder.clone(),
            source,
        })?;
        Ok(Self {
            kept: Some(Mutex::new(kept)),
            ..self
        })
    }

    /// Writes pictures of a frame of the source of that number, as PNG, and returns the files' paths.
    ///
    /// Files are named after the frame. With a `tag`, which tells the frame from others of its name, they are written
    /// over; without one, a number is added rather than an existing file overwritten.
    ///
    /// # Errors
    /// [`PictureError::Create`] and [`PictureError::Write`].
    ///
    /// # Panics
    /// If the record speaks of a frame of another size, or there is no such source.
    pub fn write(
        &self,
        source: usize,
        pixels: &RgbImage,
        record: &FrameRecord,
        tag: Option<&str>,
    ) -> Result<Vec<PathBuf>, PictureError> {
        let pictures = self.draw.draw(source, pixels, record);
        let write = |(nth, picture)| self.write_one(&picture, nth, &record.frame, tag);
        pictures.enumerate().map(write).collect()
    }

    fn write_one(
        &self,
        picture: &RgbImage,
        nth: usize,
        frame: &str,
        tag: Option<&str>,
    ) -> Result<PathBuf, PictureError> {
        let (path, file) = match tag {
            Some(tag) => {
                let number = (nth > 0).then(|| format!(".{}", nth + 1));
                let number = number.unwrap_or_default();
                self.create(self.path(frame, &format!("-{tag}{number}")))?
            }
            None => self.create_new(frame)?,
        };
        if let Err(source) = encode(picture, file) {
            // Half a picture helps nobody; what went wrong is told already if this fails too.
            let _ = fs::remove_file(&path);
            return Err(PictureError::Write { file: path, source });
        }
        if let Some(kept) = &self.kept {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.add(&path);
        }
        Ok(path)
    }

    fn create_new(&self, frame: &str) -> Result<(PathBuf, File), PictureError> {
        let mut number = 1;
        loop {
            let path = match number {
                1 => self.path(frame, ""),
                _ => self.path(frame, &format!(".{number}")),
            };
            match File::create_new(&path) {
                Ok(file) => return Ok((path, file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(source) => return Err(PictureError::Create { file: path, source }),
            }
        }
    }

    fn create(&self, path: PathBuf) -> Result<(PathBuf, File), PictureError> {
        match File::create(&path) {
            Ok(file) => Ok((path, file)),
            Err(source) => Err(PictureError::Create { file: path, source }),
        }
    }

    /// Of a length that file systems take.
    fn path(&self, frame: &str, end: &str) -> PathBuf {
        const LONGEST: usize = 255;
        let end = format!("{end}{}", self.draw.suffix());
        let stem = frame.replace(['/', '\\'], "_");
        let stem = &stem[..stem.floor_char_boundary(LONGEST - end.len())];
        self.folder.join(format!("{stem}{end}"))
    }
}

impl Kept {
    fn list(folder: &Path, suffix: &str, most: u64) -> io::Result<Self> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if ends_with(&entry.file_name(), suffix) {
                let metadata = entry.metadata()?;
                files.push((metadata.modified()?, entry.path(), metadata.len()));
            }
        }
        files.sort();
        let mut kept = Self {
            bytes: files.iter().map(|(_, _, bytes)| bytes).sum(),
            files: files
                .into_iter()
                .map(|(_, path, bytes)| (path, bytes))
                .collect(),
            most,
        };
        kept.shrink();
        Ok(kept)
    }

    fn add(&mut self, path: &Path) {
        let bytes = path.metadata().map_or(0, |metadata| metadata.len());
        if let Some(nth) = self.files.iter().rposition(|(other, _)| other == path)
            && let Some((_, before)) = self.files.remove(nth)
        {
            self.bytes -= before;
        }
        self.files.push_back((path.to_owned(), bytes));
        self.bytes += bytes;
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.bytes > self.most
            && let Some((path, bytes)) = self.files.pop_front()
        {
            // Others may have taken it away.
            let _ = fs::remove_file(path);
            self.bytes -= bytes;
        }
    }
}

/// Whether a file's name is that of a picture, so that searches can pass over it.
pub(crate) fn is_name(name: &OsStr) -> bool {
    ends_with(name, OVERLAY) || ends_with(name, CROP)
}

fn ends_with(name: &OsStr, suffix: &str) -> bool {
    name.as_encoded_bytes().ends_with(suffix.as_bytes())
}

/// Writes PNG through to the end: dropping a buffer would hide that its last bytes found no room.
fn encode(image: &RgbImage, writer: impl Write) -> ImageResult<()> {
    let mut writer = BufWriter::new(writer);
    image.write_with_encoder(PngEncoder::new(&mut writer))?;
    Ok(writer.flush()?)
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;
    use crate::sink::{Crops, sample_record};

    /// The frame itself, as often as it has ships.
    struct Copies;

    impl Draw for Copies {
        fn suffix(&self) -> &'static str {
            OVERLAY
        }

        fn draw<'a>(
            &'a self,
            _: usize,
            pixels: &'a RgbImage,
            record: &'a FrameRecord,
        ) -> Drawn<'a> {
            Box::new(record.ships.iter().map(|_| pixels.clone()))
        }
    }

    fn grey() -> RgbImage {
        RgbImage::from_pixel(8, 8, Rgb([90; 3]))
    }

    fn names(paths: Vec<PathBuf>) -> Vec<String> {
        let name = |path: PathBuf| {
            path.file_name()
                .expect("a name")
                .to_str()
                .map(str::to_owned)
        };
        paths.into_iter().filter_map(name).collect()
    }

    #[test]
    fn without_a_tag_no_file_is_written_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let pictures = Pictures::new(&folder.path().join("new"), Box::new(Copies));
        let pictures = pictures.expect("creates the folder");
        let record = sample_record("sub/a.png", &["19 2 27 2"]);
        let write = |tag| names(pictures.write(0, &grey(), &record, tag).expect("writes"));
        assert_eq!(write(None), ["sub_a.png.overlay.png"]);
        assert_eq!(write(None), ["sub_a.png.2.overlay.png"]);
        for _ in 0..2 {
            assert_eq!(write(Some("1f")), ["sub_a.png-1f.overlay.png"]);
        }
        let count = fs::read_dir(folder.path().join("new")).expect("lists");
        assert_eq!(count.count(), 3);
        let long = sample_record(&"ä".repeat(200), &["1 1", "2 1"]);
        let paths = pictures.write(0, &grey(), &long, Some("1f"));
        assert_eq!(paths.expect("writes").len(), 2);
    }

    #[test]
    fn the_oldest_go_for_new_ones_and_nothing_else_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = |most| {
            let pictures = Pictures::new(folder.path(), Box::new(Copies)).expect("is there");
            pictures.bounded(most).expect("lists")
        };
        fs::write(folder.path().join("mine.png"), [0; 1000]).expect("writes");
        let pictures = open(u64::MAX);
        let write = |pictures: &Pictures, name: &str| {
            let record = sample_record(name, &["1 1"]);
            let paths = pictures.write(0, &grey(), &record, Some("1f"));
            paths.expect("writes")[0]
                .metadata()
                .expect("is there")
                .len()
        };
        let size = write(&pictures, "0");
        for nth in 1..5 {
            write(&pictures, &format!("{nth}"));
        }
        let there = || {
            let mut names: Vec<_> = fs::read_dir(folder.path())
                .expect("lists")
                .map(|file| file.expect("is").file_name().into_string().expect("UTF-8"))
                .collect();
            names.sort();
            names
        };
        assert_eq!(there().len(), 6);
        // A new start has to learn what lies there; written again, a file is new.
        let pictures = open(5 * size);
        write(&pictures, "0");
        write(&pictures, "5");
        write(&pictures, "6");
        let ends = ["0", "3", "4", "5", "6"].map(|name| format!("{name}-1f.overlay.png"));
        assert_eq!(there()[..5], ends);
        assert_eq!(there()[5], "mine.png");
        drop(open(0));
        assert_eq!(there(), ["mine.png"]);
    }

    #[test]
    fn pictures_are_known_by_their_names() {
        for draw in [Box::new(Copies) as Box<dyn Draw>, Box::new(Crops)] {
            assert!(is_name(OsStr::new(&format!("a.jpg{}", draw.suffix()))));
        }
        assert!(!is_name(OsStr::new("overlay.png")));
    }

    #[test]
    fn a_small_picture_that_finds_no_room_is_an_error() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let error = encode(&grey(), Full).expect_err("no room");
        assert!(matches!(error, ImageError::IoError(e) if e.kind() == io::ErrorKind::StorageFull));
    }
}

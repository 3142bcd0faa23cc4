//! Which files of a folder are images to look at.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::sink::is_name;

/// What lies in a folder.
#[derive(Debug, Default)]
pub struct Found {
    /// Paths of its images, each beginning with the folder as it was named.
    pub images: BTreeSet<PathBuf>,
    /// Folders below that could not be read, and why.
    pub unreadable: Vec<(PathBuf, io::Error)>,
}

/// Searches `folder` and, if `recursive`, those below it.
///
/// Files count by their names, see [`is_image`]. Of links only those to files are followed, so that
/// no circle of folders is walked.
///
/// # Errors
/// What the system says of `folder` itself.
pub fn search(folder: &Path, recursive: bool) -> io::Result<Found> {
    let mut found = Found::default();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if recursive && !is_hidden(&name) {
                match search(&path, recursive) {
                    Ok(below) => {
                        found.images.extend(below.images);
                        found.unreadable.extend(below.unreadable);
                    }
                    Err(error) => found.unreadable.push((path, error)),
                }
            }
        } else if is_image(&name) && !path.is_dir() {
            found.images.insert(path);
        }
    }
    Ok(found)
}

/// Whether a file of this name counts where folders are searched: it has the usual extension of a
/// format that is read, and is neither hidden nor an overlay.
pub fn is_image(name: &OsStr) -> bool {
    const EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "jpe", "png", "tif", "tiff", "webp", "bmp"];
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    !is_hidden(name)
        && !is_name(name)
        && extension.is_some_and(|extension| {
            EXTENSIONS
                .iter()
                .any(|known| extension.eq_ignore_ascii_case(known))
        })
}

/// Whether a name begins with a dot.
pub(super) fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_counts() {
        for name in ["a.jpg", "b.TIFF", "c.webp", "d.e.Png", "overlay.png"] {
            assert!(is_image(name.as_ref()), "{name}");
        }
        for name in [
            "a",
            "jpg",
            "a.txt",
            "a.jpg.part",
            ".a.jpg",
            ".png",
            "a.png.overlay.png",
        ] {
            assert!(!is_image(name.as_ref()), "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_circle_of_links_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        fs::write(root.join("a.png"), "").expect("a file");
        fs::create_dir(root.join("folder.png")).expect("a folder");
        std::os::unix::fs::symlink(root, root.join("circle")).expect("a link");
        std::os::unix::fs::symlink(root, root.join("circle.png")).expect("a link");
        std::os::unix::fs::symlink(root.join("a.png"), root.join("b.png")).expect("a link");
        let found = search(root, true).expect("searches");
        let expected = ["a.png", "b.png"].map(|name| root.join(name));
        assert_eq!(found.images, BTreeSet::from(expected));
        assert!(found.unreadable.is_empty());
    }
}

//! From paths as typed to files to read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use shipwatch::source::decode::has_image_extension;

/// A file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Input {
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// What its record is called: the file's name, after its folders below the folder that was typed.
    pub(crate) name: String,
}

/// Why paths gave no files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error("{}: {source}", path.display())]
    Path { path: PathBuf, source: io::Error },
    #[error("{}: no image in this folder{hint}", path.display())]
    NoImage { path: PathBuf, hint: &'static str },
}

/// The files that `paths` name, in the order typed, folders in the order of their files' paths.
///
/// A file that was typed is taken whatever its name; in folders, files count by their extension, and
/// hidden ones do not.
pub(crate) fn list(paths: &[PathBuf], recursive: bool) -> Result<Vec<Input>, InputError> {
    let mut inputs = Vec::new();
    for path in paths {
        let wrap = |source| InputError::Path {
            path: path.clone(),
            source,
        };
        if !fs::metadata(path).map_err(wrap)?.is_dir() {
            let name = path
                .file_name()
                .unwrap_or(path.as_os_str())
                .to_string_lossy()
                .into_owned();
            inputs.push(Input {
                path: path.clone(),
                name,
            });
            continue;
        }
        let mut files = Vec::new();
        search(path, recursive, &mut files)?;
        if files.is_empty() {
            let hint = if recursive {
                ""
            } else {
                "; --recursive searches the folders below"
            };
            return Err(InputError::NoImage {
                path: path.clone(),
                hint,
            });
        }
        files.sort_unstable();
        inputs.extend(files.into_iter().map(|file| Input {
            name: name_below(path, &file),
            path: file,
        }));
    }
    Ok(inputs)
}

/// Collects the images in `folder`.
fn search(folder: &Path, recursive: bool, files: &mut Vec<PathBuf>) -> Result<(), InputError> {
    let wrap = |source| InputError::Path {
        path: folder.to_owned(),
        source,
    };
    for entry in fs::read_dir(folder).map_err(wrap)? {
        let entry = entry.map_err(wrap)?;
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // Of the links only those to files are followed, so that no circle of folders is walked.
        if entry.file_type().map_err(wrap)?.is_dir() {
            if recursive {
                search(&path, recursive, files)?;
            }
        } else if has_image_extension(&path) && !path.is_dir() {
            files.push(path);
        }
    }
    Ok(())
}

/// The path of `file` below `folder`, with slashes on every system.
fn name_below(folder: &Path, file: &Path) -> String {
    let parts = file.strip_prefix(folder).unwrap_or(file).iter();
    parts
        .map(|part| part.to_string_lossy())
        .collect::<Vec<_>>()
        .join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(inputs: &[Input]) -> Vec<&str> {
        inputs.iter().map(|input| input.name.as_str()).collect()
    }

    #[test]
    fn folders_give_their_images_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        fs::create_dir_all(root.join("below/deeper")).expect("folders");
        for name in [
            "b.PNG",
            "a.jpg",
            ".hidden.png",
            "notes.txt",
            "below/c.tif",
            "below/deeper/d.webp",
        ] {
            fs::write(root.join(name), "").expect("a file");
        }
        let paths = [root.to_owned()];
        assert_eq!(
            names(&list(&paths, false).expect("lists")),
            ["a.jpg", "b.PNG"]
        );
        let all = list(&paths, true).expect("lists");
        assert_eq!(
            names(&all),
            ["a.jpg", "b.PNG", "below/c.tif", "below/deeper/d.webp"]
        );
        // A file that was named needs no extension.
        let named = list(&[root.join("notes.txt")], false).expect("lists");
        assert_eq!(names(&named), ["notes.txt"]);
    }

    #[test]
    fn nothing_to_read_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let empty = [folder.path().to_owned()];
        assert!(matches!(
            list(&empty, false),
            Err(InputError::NoImage { .. })
        ));
        let missing = [folder.path().join("missing")];
        assert!(matches!(
            list(&missing, false),
            Err(InputError::Path { .. })
        ));
    }

    #[cfg(unix)]
    #[test]
    fn a_circle_of_links_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        fs::write(root.join("a.png"), "").expect("a file");
        std::os::unix::fs::symlink(root, root.join("circle")).expect("a link");
        std::os::unix::fs::symlink(root.join("a.png"), root.join("b.png")).expect("a link");
        let found = list(&[root.to_owned()], true).expect("lists");
        assert_eq!(names(&found), ["a.png", "b.png"]);
    }
}

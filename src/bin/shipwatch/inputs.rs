//! From paths as typed to files to read.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use shipwatch::source::search::search;

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

/// The files that `paths` name, in the order typed, folders in the order of their files' paths, and
/// each once.
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
        let found = search(path, recursive).map_err(wrap)?;
        if let Some((path, source)) = found.unreadable.into_iter().next() {
            return Err(InputError::Path { path, source });
        }
        if found.images.is_empty() {
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
        inputs.extend(found.images.into_iter().map(|file| Input {
            name: name_below(path, &file),
            path: file,
        }));
    }
    let mut listed = HashSet::new();
    inputs.retain(|input| listed.insert(place(&input.path)));
    Ok(inputs)
}

/// The path of a file without detours, so that two names of one place are told to be the same. A link
/// is a file of its own.
fn place(file: &Path) -> PathBuf {
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    match (file.parent().map(fs::canonicalize), file.file_name()) {
        (Some(Ok(folder)), Some(name)) => folder.join(name),
        _ => file,
    }
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
    fn a_file_that_is_named_twice_counts_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        fs::create_dir(root.join("below")).expect("a folder");
        for name in ["a.png", "below/a.png"] {
            fs::write(root.join(name), "").expect("a file");
        }
        let paths = [
            root.join("below/../a.png"),
            root.to_owned(),
            root.join("below"),
        ];
        let inputs = list(&paths, true).expect("lists");
        assert_eq!(names(&inputs), ["a.png", "below/a.png"]);
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
}

//! What becomes of a file once its frame is done.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::ledger::Digest;

/// What becomes of a file once its frame is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// It stays.
    Keep,
    /// It is deleted.
    Delete,
    /// It moves to this folder, into folders like those that it lay in.
    Move(PathBuf),
}

impl Finish {
    /// Does it to the file at `path`, whose name below its folder is `name` and whose content has `digest`. What a
    /// crash interrupted is gone on with: a copy that is whole already is not made again.
    ///
    /// A file of another content never gives way: the moved one gets a number then.
    ///
    /// # Errors
    /// What the system says; the file is then still at `path`.
    pub fn finish(&self, path: &Path, name: &Path, digest: &Digest) -> io::Result<()> {
        match self {
            Self::Keep => Ok(()),
            Self::Delete => ignoring_missing(fs::remove_file(path)),
            Self::Move(folder) => {
                let to = folder.join(name);
                fs::create_dir_all(to.parent().unwrap_or(folder))?;
                ignoring_missing(move_file(path, &to, digest))
            }
        }
    }
}

/// Moves a file that is no frame into `folder`, as [`Finish::Move`] does, with a note beside it that says why.
///
/// # Errors
/// What the system says; the file is then still at `path`.
pub fn set_aside(
    path: &Path,
    name: &Path,
    digest: &Digest,
    folder: &Path,
    reason: &str,
) -> io::Result<()> {
    let mut note = folder.join(name).into_os_string();
    note.push(".reason.txt");
    let note = PathBuf::from(note);
    fs::create_dir_all(note.parent().unwrap_or(folder))?;
    fs::write(&note, format!("{reason}\n"))?;
    Finish::Move(folder.to_owned()).finish(path, name, digest)
}

fn move_file(path: &Path, to: &Path, digest: &Digest) -> io::Result<()> {
    let mut number = 0;
    let to = loop {
        let to = match number {
            0 => to.to_owned(),
            _ => numbered(to, number),
        };
        match digest_of(&to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => break to,
            Ok(there) if there == *digest => return fs::remove_file(path),
            _ => number += 1,
        }
    };
    match fs::rename(path, &to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            // Hidden until it is whole.
            let mut name = std::ffi::OsString::from(".");
            name.push(to.file_name().unwrap_or_default());
            let unfinished = to.with_file_name(name);
            fs::copy(path, &unfinished)?;
            File::open(&unfinished)?.sync_all()?;
            fs::rename(&unfinished, &to)?;
            sync_folder(&to)?;
            fs::remove_file(path)
        }
        moved => moved,
    }
}

/// The name with a number before its ending.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{number}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// Writes the list of names of a file's folder through to the disk.
pub(crate) fn sync_folder(file: &Path) -> io::Result<()> {
    match file.parent() {
        Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// What is gone needs nothing done to it.
fn ignoring_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// SHA-256 of a file's content.
pub(super) fn digest_of(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; 64 * 1024];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hasher.finalize().into()),
            count => hasher.update(&block[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folders(tempfile::TempDir);

    impl Folders {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("folder"))
        }

        /// Writes a file and moves it from `in` to `done`.
        fn file(&self, name: &str, content: &str) {
            let path = self.0.path().join("in").join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("creates");
            fs::write(&path, content).expect("writes");
            let digest = digest_of(&path).expect("reads");
            Finish::Move(self.0.path().join("done"))
                .finish(&path, Path::new(name), &digest)
                .expect("moves");
            assert!(!path.exists());
        }

        fn done(&self, name: &str) -> String {
            fs::read_to_string(self.0.path().join("done").join(name)).unwrap_or_default()
        }
    }

    #[test]
    fn moved_files_keep_their_folders_and_give_way_to_none() {
        let folders = Folders::new();
        folders.file("a/x.png", "1");
        folders.file("a/x.png", "2");
        folders.file("a/x.png", "3");
        // The same once more, as after a crash between copying and removing.
        folders.file("a/x.png", "2");
        let found = ["a/x.png", "a/x-1.png", "a/x-2.png", "a/x-3.png"].map(|x| folders.done(x));
        assert_eq!(found, ["1", "2", "3", ""]);
    }

    #[test]
    fn files_move_to_another_file_system() {
        let other = Path::new("/dev/shm");
        let folder = tempfile::tempdir().expect("folder");
        let Ok(far) = tempfile::tempdir_in(other) else {
            println!("SKIPPED: there is no {} here", other.display());
            return;
        };
        let path = folder.path().join("x.png");
        fs::write(&path, "1").expect("writes");
        let to = far.path().join("x.png");
        let rename = fs::rename(&path, &to);
        if rename.is_ok() {
            println!("SKIPPED: {} is on the same file system", other.display());
            return;
        }
        let digest = digest_of(&path).expect("reads");
        let finish = Finish::Move(far.path().to_owned());
        finish
            .finish(&path, Path::new("x.png"), &digest)
            .expect("moves");
        assert_eq!(fs::read_to_string(&to).expect("reads"), "1");
        assert!(!path.exists());
        assert_eq!(fs::read_dir(far.path()).expect("lists").count(), 1);
    }

    #[test]
    fn what_is_gone_is_finished() {
        let folder = tempfile::tempdir().expect("folder");
        let gone = folder.path().join("gone.png");
        for finish in [
            Finish::Keep,
            Finish::Delete,
            Finish::Move(folder.path().join("done")),
        ] {
            finish
                .finish(&gone, Path::new("gone.png"), &[0; 32])
                .expect("nothing to do");
        }
        fs::write(&gone, "1").expect("writes");
        Finish::Delete
            .finish(&gone, Path::new("gone.png"), &[0; 32])
            .expect("deletes");
        assert!(!gone.exists());
    }
}

//! What becomes of a file once its frame is done.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::stamp::Stamp;
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
    /// Does it to the file at `path`, whose name below its folder is `name` and whose content has `digest`, as long
    /// as it has `stamp`: one that changed is another file, and is left alone. What a crash interrupted is gone
    /// on with: a copy that is whole already is not made again.
    ///
    /// A file of another content never gives way: the moved one gets a part of its digest into its name then.
    ///
    /// # Errors
    /// What the system says; the file is then still at `path`.
    pub fn finish(
        &self,
        path: &Path,
        name: &Path,
        digest: &Digest,
        stamp: &Stamp,
    ) -> io::Result<()> {
        let file = Finished {
            path,
            digest,
            stamp,
        };
        match self {
            Self::Keep => Ok(()),
            Self::Delete => file.remove(),
            Self::Move(folder) => {
                let to = folder.join(name);
                fs::create_dir_all(to.parent().unwrap_or(folder))?;
                file.move_to(file.place(&to)?)
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
    stamp: &Stamp,
    folder: &Path,
    reason: &str,
) -> io::Result<()> {
    let to = folder.join(name);
    fs::create_dir_all(to.parent().unwrap_or(folder))?;
    let file = Finished {
        path,
        digest,
        stamp,
    };
    let place = file.place(&to)?;
    let mut note = place.path.clone().into_os_string();
    note.push(".reason.txt");
    fs::write(note, format!("{reason}\n"))?;
    file.move_to(place)
}

/// A file whose frame is done.
struct Finished<'a> {
    path: &'a Path,
    digest: &'a Digest,
    stamp: &'a Stamp,
}

/// Where a file goes.
struct Place {
    path: PathBuf,
    /// Whether it lies there already.
    taken: bool,
}

impl Finished<'_> {
    fn is_unchanged(&self) -> bool {
        Stamp::of(self.path).as_ref() == Some(self.stamp)
    }

    /// Removes it, if it is still what it was.
    fn remove(&self) -> io::Result<()> {
        match self.is_unchanged() {
            true => ignoring_missing(fs::remove_file(self.path)),
            false => Ok(()),
        }
    }

    /// Where it goes: where it is wanted, unless a file of other content lies there.
    fn place(&self, wanted: &Path) -> io::Result<Place> {
        let mut name = wanted.file_stem().unwrap_or_default().to_owned();
        let [a, b, c, d, ..] = self.digest;
        name.push(format!("-{a:02x}{b:02x}{c:02x}{d:02x}"));
        if let Some(extension) = wanted.extension() {
            name.push(".");
            name.push(extension);
        }
        for path in [wanted.to_owned(), wanted.with_file_name(name)] {
            if let Some(taken) = self.lies_at(&path)? {
                return Ok(Place { path, taken });
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("other files lie at {} and beside it", wanted.display()),
        ))
    }

    /// Whether it lies there; none if something else does.
    fn lies_at(&self, path: &Path) -> io::Result<Option<bool>> {
        match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(false)),
            Err(error) => Err(error),
            Ok(there) if !there.is_file() || there.len() != self.stamp.length => Ok(None),
            Ok(_) => Ok((digest_of(path)? == *self.digest).then_some(true)),
        }
    }

    fn move_to(&self, Place { path: to, taken }: Place) -> io::Result<()> {
        if taken {
            if fs::canonicalize(&to)? == fs::canonicalize(self.path)? {
                // Another name of the folder that it lies in: it is where it should be.
                return Ok(());
            }
            // A copy of before a crash, perhaps, of which not all was on the disk.
            File::open(&to)?.sync_all()?;
            sync_folder(&to)?;
            return self.remove();
        }
        if !self.is_unchanged() {
            return Ok(());
        }
        match fs::rename(self.path, &to) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => self.copy_to(&to),
            moved => ignoring_missing(moved),
        }
    }

    fn copy_to(&self, to: &Path) -> io::Result<()> {
        // Hidden until it is whole.
        let mut name = OsString::from(".");
        name.push(to.file_name().unwrap_or_default());
        let unfinished = to.with_file_name(name);
        // Of a copy that a crash cut off, whose rights may forbid to write over it.
        ignoring_missing(fs::remove_file(&unfinished))?;
        let copied = fs::copy(self.path, &unfinished)
            .and_then(|_| File::open(&unfinished)?.sync_all())
            .and_then(|()| fs::rename(&unfinished, to));
        if copied.is_err() || !self.is_unchanged() {
            // What is copied of a file that changed meanwhile is neither of the two.
            let _ = fs::remove_file(if copied.is_ok() { to } else { &unfinished });
            return copied;
        }
        sync_folder(to)?;
        self.remove()
    }
}

/// Writes the list of names of a file's folder through to the disk.
pub(crate) fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    match cfg!(unix) {
        true => File::open(folder.unwrap_or(Path::new(".")))?.sync_all(),
        false => Ok(()),
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
            let stamp = Stamp::of(&path).expect("is there");
            Finish::Move(self.0.path().join("done"))
                .finish(&path, Path::new(name), &digest, &stamp)
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
        // The same once more, as after a crash between copying and removing.
        folders.file("a/x.png", "1");
        folders.file("a/x.png", "2");
        // SHA-256 of "2" begins with these.
        let found = ["a/x.png", "a/x-d4735e3a.png"].map(|name| folders.done(name));
        assert_eq!(found, ["1", "2"]);
        let count = fs::read_dir(folders.0.path().join("done/a"))
            .expect("lists")
            .count();
        assert_eq!(count, 2);
    }

    #[test]
    fn a_file_that_changed_or_is_there_already_is_left_alone() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("x.png");
        fs::write(&path, "1").expect("writes");
        let digest = digest_of(&path).expect("reads");
        let stamp = Stamp::of(&path).expect("is there");
        let alias = folder.path().join("alias");
        std::os::unix::fs::symlink(folder.path(), &alias).expect("links");
        for same in [folder.path(), &alias, &alias.join(".")] {
            let finish = Finish::Move(same.to_owned());
            finish
                .finish(&path, Path::new("x.png"), &digest, &stamp)
                .expect("is there");
            assert_eq!(fs::read_to_string(&path).expect("is there"), "1");
        }
        fs::write(&path, "22").expect("writes");
        for finish in [Finish::Delete, Finish::Move(folder.path().join("done"))] {
            finish
                .finish(&path, Path::new("x.png"), &digest, &stamp)
                .expect("is another");
            assert_eq!(fs::read_to_string(&path).expect("is there"), "22");
        }
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
        let stamp = Stamp::of(&path).expect("is there");
        // What a crash left of a copy that may not be written over.
        let left = far.path().join(".x.png");
        fs::write(&left, "").expect("writes");
        let mut rights = left.metadata().expect("is there").permissions();
        rights.set_readonly(true);
        fs::set_permissions(&left, rights).expect("sets");
        let finish = Finish::Move(far.path().to_owned());
        finish
            .finish(&path, Path::new("x.png"), &digest, &stamp)
            .expect("moves");
        assert_eq!(fs::read_to_string(&to).expect("reads"), "1");
        assert!(!path.exists());
        assert_eq!(fs::read_dir(far.path()).expect("lists").count(), 1);
    }

    #[test]
    fn what_is_gone_is_finished() {
        let folder = tempfile::tempdir().expect("folder");
        let gone = folder.path().join("gone.png");
        fs::write(&gone, "1").expect("writes");
        let stamp = Stamp::of(&gone).expect("is there");
        fs::remove_file(&gone).expect("removes");
        for finish in [
            Finish::Keep,
            Finish::Delete,
            Finish::Move(folder.path().join("done")),
        ] {
            finish
                .finish(&gone, Path::new("gone.png"), &[0; 32], &stamp)
                .expect("nothing to do");
        }
        fs::write(&gone, "1").expect("writes");
        let stamp = Stamp::of(&gone).expect("is there");
        Finish::Delete
            .finish(&gone, Path::new("gone.png"), &[0; 32], &stamp)
            .expect("deletes");
        assert!(!gone.exists());
    }
}

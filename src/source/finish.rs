//! What becomes of a file once its frame is done.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::stamp::Stamp;
use crate::ledger::Digest;

/// Bytes of the longest name that file systems take.
const LONGEST: usize = 255;

/// What the name of a note ends with, behind that of its file.
const NOTE: &str = ".reason.txt";

/// What becomes of a file once its frame is done. Of a link the link itself is moved or deleted, never what it
/// leads to.
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
    /// A file of another content never gives way: the moved one gets a part of its digest into its name then. A
    /// link leads where it led from its new place too.
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
                file.move_to(file.place(&to, LONGEST)?)
            }
        }
    }
}

/// Moves a file that is no frame into `folder`, as [`Finish::Move`] does, with a note beside it that says why.
/// A name that leaves no room for that of the note is cut.
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
    let place = file.place(&to, LONGEST - NOTE.len())?;
    let mut note = place.path.clone().into_os_string();
    note.push(NOTE);
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

    /// Where it goes: where it is wanted, unless the name has more than `longest` bytes or a file of other content
    /// lies there.
    fn place(&self, wanted: &Path, longest: usize) -> io::Result<Place> {
        let name = wanted.file_name().unwrap_or_default();
        let fits = name.len() <= longest;
        let other = wanted.with_file_name(self.other_name(wanted, longest));
        for path in fits.then(|| wanted.to_owned()).into_iter().chain([other]) {
            if let Some(taken) = self.lies_at(&path)? {
                return Ok(Place { path, taken });
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("other files lie at {} and beside it", wanted.display()),
        ))
    }

    /// Its name with a part of its digest, cut before that to `longest` bytes.
    fn other_name(&self, wanted: &Path, longest: usize) -> OsString {
        let [a, b, c, d, ..] = self.digest;
        let mut end = OsString::from(format!("-{a:02x}{b:02x}{c:02x}{d:02x}"));
        if let Some(extension) = wanted.extension() {
            end.push(".");
            end.push(extension);
        }
        let stem = wanted.file_stem().unwrap_or_default();
        let mut name = cut(stem, longest.saturating_sub(end.len()));
        name.push(end);
        name
    }

    /// Whether it lies there; none if something else does.
    fn lies_at(&self, path: &Path) -> io::Result<Option<bool>> {
        match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(false)),
            Err(error) => Err(error),
            Ok(there) if there.is_symlink() => {
                let same = matches!((target(path), target(self.path)), (Ok(a), Ok(b)) if a == b);
                Ok(same.then_some(true))
            }
            Ok(there) if !there.is_file() || there.len() != self.stamp.length => Ok(None),
            Ok(_) => Ok((digest_of(path)? == *self.digest).then_some(true)),
        }
    }

    fn move_to(&self, Place { path: to, taken }: Place) -> io::Result<()> {
        if taken {
            if is_same(&to, self.path)? {
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
        if self.path.is_symlink() {
            return self.link_at(&to);
        }
        match fs::rename(self.path, &to) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => self.copy_to(&to),
            moved => ignoring_missing(moved),
        }
    }

    /// Moves a link, which may name what it leads to as seen from its old place.
    #[cfg(unix)]
    fn link_at(&self, to: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(target(self.path)?, to)?;
        sync_folder(to)?;
        self.remove()
    }

    /// Moves a link as it is.
    #[cfg(not(unix))]
    fn link_at(&self, to: &Path) -> io::Result<()> {
        ignoring_missing(fs::rename(self.path, to))
    }

    fn copy_to(&self, to: &Path) -> io::Result<()> {
        // Hidden until it is whole.
        let mut name = OsString::from(".");
        name.push(cut(to.file_name().unwrap_or_default(), LONGEST - 1));
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

/// Where a link leads, from any folder; not followed further.
pub(crate) fn target(link: &Path) -> io::Result<PathBuf> {
    let folder = link
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new(".")).canonicalize()?;
    Ok(folder.join(link.read_link()?))
}

/// Whether two paths name one file: removing it by one of them might remove it by the other.
#[cfg(unix)]
fn is_same(a: &Path, b: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (a, b) = (a.symlink_metadata()?, b.symlink_metadata()?);
    Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
}

/// Whether two paths name one file: removing it by one of them might remove it by the other.
#[cfg(not(unix))]
fn is_same(a: &Path, b: &Path) -> io::Result<bool> {
    Ok(fs::canonicalize(a)? == fs::canonicalize(b)?)
}

/// The first bytes of a name, of whole characters.
fn cut(name: &OsStr, most: usize) -> OsString {
    if name.len() <= most {
        return name.to_owned();
    }
    match name.to_str() {
        Some(text) => text[..text.floor_char_boundary(most)].into(),
        None => cut_bytes(name, most),
    }
}

#[cfg(unix)]
fn cut_bytes(name: &OsStr, most: usize) -> OsString {
    use std::os::unix::ffi::OsStrExt;
    OsStr::from_bytes(&name.as_bytes()[..most]).to_owned()
}

#[cfg(not(unix))]
fn cut_bytes(name: &OsStr, most: usize) -> OsString {
    let text = name.to_string_lossy();
    text[..text.floor_char_boundary(most)].into()
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
pub(crate) fn ignoring_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// SHA-256 of a file's content.
fn digest_of(path: &Path) -> io::Result<Digest> {
    digest(File::open(path)?)
}

/// SHA-256 of what is left to read.
pub(super) fn digest(mut file: impl Read) -> io::Result<Digest> {
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
    fn names_are_cut_where_there_is_no_room() {
        let folders = Folders::new();
        let long = format!("{}.png", "é".repeat(125) + "x");
        assert_eq!(long.len(), 255);
        folders.file(&long, "1");
        folders.file(&long, "2");
        let cut = format!("{}-d4735e3a.png", "é".repeat(121));
        assert_eq!(
            [folders.done(&long), folders.done(&cut)],
            ["1".to_owned(), "2".to_owned()]
        );

        let path = folders.0.path().join(&long);
        fs::write(&path, "2").expect("writes");
        let digest = digest_of(&path).expect("reads");
        let stamp = Stamp::of(&path).expect("is there");
        let failed = folders.0.path().join("failed");
        set_aside(&path, Path::new(&long), &digest, &stamp, &failed, "odd").expect("moves");
        let cut = format!("{}-d4735e3a.png", "é".repeat(115));
        assert_eq!(fs::read_to_string(failed.join(&cut)).expect("moved"), "2");
        let note = fs::read_to_string(failed.join(format!("{cut}.reason.txt")));
        assert_eq!(note.expect("a note"), "odd\n");
        assert!(!path.exists());
    }

    #[test]
    #[cfg(unix)]
    fn a_link_is_moved_or_deleted_and_never_what_it_leads_to() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().expect("folder");
        let root = folder.path();
        fs::create_dir(root.join("in")).expect("creates");
        fs::write(root.join("far.png"), "1").expect("writes");
        let digest = digest_of(&root.join("far.png")).expect("reads");
        let name = Path::new("x.png");
        let path = root.join("in/x.png");
        let done = root.join("done");
        for finish in [
            Finish::Move(done.clone()),
            Finish::Move(done.clone()),
            Finish::Delete,
        ] {
            symlink("../far.png", &path).expect("links");
            let stamp = Stamp::of(&path).expect("leads somewhere");
            finish
                .finish(&path, name, &digest, &stamp)
                .expect("is done");
            assert!(path.symlink_metadata().is_err(), "{finish:?}");
            assert_eq!(
                fs::read_to_string(root.join("far.png")).expect("is there"),
                "1"
            );
            // Twice the same: as if a crash had come between making the new link and removing the old one.
            assert_eq!(fs::read_dir(&done).expect("lists").count(), 1);
            assert!(done.join(name).is_symlink());
            assert_eq!(
                fs::read_to_string(done.join(name)).expect("leads there"),
                "1"
            );
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

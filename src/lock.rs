//! Files that one process has for itself.

use std::fs::{File, TryLockError};
use std::thread::sleep;
use std::time::Duration;

/// Another process has the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken;

/// Locks a file until it is closed.
///
/// A child that has not yet become its program holds what its parent has locked, for a moment: so a file that is taken
/// is tried again a few times. Where the file system knows no locks, one process is trusted to be alone.
///
/// # Errors
/// [`Taken`].
pub fn lock(file: &File) -> Result<(), Taken> {
    const TRIES: u32 = 20;
    for _ in 0..TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => sleep(Duration::from_millis(10)),
            Err(TryLockError::Error(_)) | Ok(()) => return Ok(()),
        }
    }
    Err(Taken)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn one_has_it_and_who_goes_soon_is_waited_for() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("lock");
        let open = || File::create(&path).expect("opens");
        let (first, second) = (open(), open());
        assert_eq!(lock(&first), Ok(()));
        assert_eq!(lock(&second), Err(Taken));
        thread::spawn(move || {
            sleep(Duration::from_millis(30));
            drop(first);
        });
        assert_eq!(lock(&second), Ok(()));
    }
}

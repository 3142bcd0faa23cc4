//! Room on disks, of which some is never used.

use std::path::{Path, PathBuf};

/// Bytes that a disk has left for this process; none where the system does not say.
pub fn available(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|path| path.exists());
    let existing = existing.unwrap_or(Path::new("."));
    #[cfg(unix)]
    return rustix::fs::statvfs(existing)
        .ok()
        // Not what lies in memory without a limit, or where nobody counts.
        .filter(|disk| disk.f_blocks > 0)
        .map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    #[cfg(not(unix))]
    return None;
}

/// A disk that has less room left than is kept in reserve.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path}: its disk has {available} MB left, and {reserve} are never used \
     (`retention.reserve-megabytes`): make room",
    path = .path.display(), available = .available / 1_000_000, reserve = .reserve / 1_000_000
)]
pub struct Short {
    /// What lies on it.
    pub path: PathBuf,
    /// Bytes that are left.
    pub available: u64,
    /// Bytes that are never used.
    pub reserve: u64,
}

/// Whether the disks of all of these have more room than `reserve`.
///
/// # Errors
/// [`Short`] names the first that has not.
pub fn check<'a>(paths: impl IntoIterator<Item = &'a Path>, reserve: u64) -> Result<(), Short> {
    for path in paths {
        match available(path) {
            Some(available) if available < reserve => {
                return Err(Short {
                    path: path.to_owned(),
                    available,
                    reserve,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_disk_never_has_all_bytes_that_can_be_counted() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("not/there");
        assert!(available(&path).expect("the system says") > 0);
        assert!(check([&*path], 0).is_ok());
        let short = check([&*path], u64::MAX).expect_err("has less");
        assert!(short.to_string().contains("not/there"), "{short}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn where_nobody_counts_there_is_room() {
        let uncounted = Path::new("/proc/self");
        assert_eq!(available(uncounted), None);
        assert!(check([uncounted], u64::MAX).is_ok());
    }
}

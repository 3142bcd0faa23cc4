//! What the journal of systemd wants of a line.

use log::Level;

/// Whether standard error goes to the journal: the variable names its device and inode, as systemd.exec(5) says, and
/// is inherited by those whose standard error goes elsewhere.
#[cfg(unix)]
pub(super) fn reads_stderr() -> bool {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let stderr = io::stderr().as_fd().try_clone_to_owned();
    let stderr = stderr.and_then(|stderr| File::from(stderr).metadata());
    stderr.is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}

#[cfg(not(unix))]
pub(super) fn reads_stderr() -> bool {
    false
}

/// The priority of syslog(3) that a line begins with.
pub(super) fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

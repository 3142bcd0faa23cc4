//! Commands that the daemon starts.

use std::ffi::OsStr;
use std::process::Command;

/// What systemd tells the daemon alone; sd_notify(3).
const OWN: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// A command that does not speak to the service manager in the daemon's name.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for variable in OWN {
        command.env_remove(variable);
    }
    command
}

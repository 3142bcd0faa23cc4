//! A command whose output is read, with all the processes that it starts.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::mem;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use log::debug;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::process;

/// How long a command may take to end once its output has, or it is told to.
const GRACE: Duration = Duration::from_secs(2);
/// How often it is asked meanwhile.
const POLL: Duration = Duration::from_millis(10);

/// Bytes that are read at once of what it writes for people.
const CHUNK: usize = 4 << 10;
/// Bytes that wait there at most: a pipe's, on Linux.
const PIPE: usize = 64 << 10;

/// A command that runs. Its processes are ended when it is dropped.
#[derive(Debug)]
pub(super) struct Program {
    /// What it is called; not what it is told, for that may hold a password.
    name: String,
    child: Child,
    group: Pid,
    /// Whether its processes were ended: their numbers may be those of others soon.
    ended: bool,
    said: Said,
}

/// What became of a command.
#[derive(Debug)]
pub(super) struct Epitaph {
    /// How it ended.
    pub(super) how: String,
    /// Its last words, to follow what happened; empty if there are none.
    pub(super) said: String,
}

impl Program {
    /// Starts a command without a shell; its output is what is read from the file.
    pub(super) fn start(command: &[String]) -> io::Result<(Self, File)> {
        let (name, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut child = process::command(name)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let output = child.stdout.take().map(OwnedFd::from);
        let output = output.ok_or(io::ErrorKind::BrokenPipe)?;
        let program = Self {
            name: name.clone(),
            group: Pid::from_child(&child),
            ended: false,
            said: Said::new(name.clone()),
            child,
        };
        Ok((program, output.into()))
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it writes for people, unless that has ended.
    pub(super) fn stderr(&self) -> Option<&ChildStderr> {
        self.child.stderr.as_ref()
    }

    /// Takes in what it wrote for people, of which there must be something, or its end.
    pub(super) fn listen(&mut self) {
        let mut bytes = [0; CHUNK];
        let Some(stderr) = &mut self.child.stderr else {
            return;
        };
        match stderr.read(&mut bytes) {
            Ok(count @ 1..) => self.said.hear(&bytes[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => self.child.stderr = None,
        }
    }

    /// Whether the process that was started has ended. Its number stays its own until it is waited for.
    pub(super) fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        !matches!(waitid(WaitId::Pid(self.group), options), Ok(None))
    }

    /// Gives it time to end by itself, if its output has, ends it, and says how it ended.
    pub(super) fn close(
        mut self,
        output_ended: bool,
        still_readable: impl Fn(&ChildStderr) -> bool,
    ) -> Epitaph {
        if output_ended {
            self.wait(GRACE);
        }
        self.end();
        // What left the group may write on.
        for _ in 0..PIPE / CHUNK {
            if self.child.stderr.as_ref().is_some_and(&still_readable) {
                self.listen();
            }
        }
        let how = match self.child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        Epitaph {
            how: format!("{} ended, {how}", self.name),
            said: self.said.last_lines(),
        }
    }

    fn wait(&self, timeout: Duration) {
        let start = Instant::now();
        while !self.has_ended() && start.elapsed() < timeout {
            sleep(POLL);
        }
    }

    fn end(&mut self) {
        if mem::replace(&mut self.ended, true) {
            return;
        }
        // Fails where all of them have ended, which is as well.
        if !self.has_ended() {
            let _ = kill_process_group(self.group, Signal::TERM);
            self.wait(GRACE);
        }
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
        let _ = self.child.wait();
    }
}

/// The last lines that a program wrote for people.
#[derive(Debug)]
struct Said {
    name: String,
    lines: VecDeque<String>,
    line: Vec<u8>,
}

impl Said {
    const LINES: usize = 3;
    /// Bytes of a line; more are left out.
    const LENGTH: usize = 200;

    fn new(name: String) -> Self {
        Self {
            name,
            lines: VecDeque::new(),
            line: Vec::new(),
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' | b'\r' => self.end_line(),
                _ if self.line.len() < Self::LENGTH => self.line.push(byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self) {
        let line = mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        let line: String = line.chars().filter(|c| !c.is_control()).collect();
        let line = without_secrets(line.trim());
        if line.is_empty() {
            return;
        }
        debug!("{}: {line}", self.name);
        if self.lines.len() == Self::LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Empty, or the last lines, to follow what happened.
    fn last_lines(&mut self) -> String {
        self.end_line();
        let mut text = String::new();
        for (nth, line) in self.lines.iter().enumerate() {
            let before = if nth == 0 { "; it said: " } else { " / " };
            // Writing to a string does not fail.
            let _ = write!(text, "{before}{line}");
        }
        text
    }
}

/// Without the user and the password of addresses, as in `rtsp://admin:1234@camera/`.
fn without_secrets(line: &str) -> String {
    let mut parts = line.split("://");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let host_ends = |c: char| c == '/' || c.is_whitespace() || c == '\'' || c == '"';
        let host = &part[..part.find(host_ends).unwrap_or(part.len())];
        let secret = host.rfind('@').map_or(0, |at| at + 1);
        clean.push_str("://");
        clean.push_str(&part[secret..]);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_is_bounded_and_told_without_passwords() {
        let mut said = Said::new("ffmpeg".into());
        said.hear(b"frame=1\rframe=2\r\n\n");
        said.hear("x".repeat(10_000).as_bytes());
        said.hear(b"\n\x1b[31mrtsp://admin:se@cret@10.0.0.9/1: no route");
        let text = said.last_lines();
        let long = "x".repeat(Said::LENGTH);
        assert_eq!(
            text,
            format!("; it said: frame=2 / {long} / [31mrtsp://10.0.0.9/1: no route")
        );
        for (line, clean) in [
            ("no address", "no address"),
            ("http://a/b@c", "http://a/b@c"),
            ("'rtsp://u:p@h' and rtsp://v@i/", "'rtsp://h' and rtsp://i/"),
            ("://", "://"),
        ] {
            assert_eq!(without_secrets(line), clean);
        }
    }
}

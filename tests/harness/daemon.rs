//! A running `shipwatch run`.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use shipwatch::record::FrameRecord;

use crate::harness::{Dir, bright_models};

/// Less than the pause between two searches of the folder: what is tested is the watching.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running `shipwatch run` that watches `in`; killed if a test fails before it stopped.
pub(crate) struct Daemon<'a> {
    dir: &'a Dir,
    pub(crate) child: Child,
}

impl<'a> Daemon<'a> {
    pub(crate) fn start(dir: &'a Dir, args: &[&str]) -> Self {
        Self::of(dir, &mut Self::command(dir, args))
    }

    pub(crate) fn command(dir: &Dir, args: &[&str]) -> Command {
        let models = bright_models();
        let run = [
            "run",
            "--models",
            &models,
            "--folder",
            "in",
            "--output",
            "out.jsonl",
        ];
        dir.shipwatch(&[&run, args].concat())
    }

    pub(crate) fn of(dir: &'a Dir, command: &mut Command) -> Self {
        let child = command.stderr(Stdio::piped()).spawn();
        let child = child.expect("the binary starts");
        Self { dir, child }
    }

    pub(crate) fn records(&self) -> Vec<FrameRecord> {
        let text = fs::read_to_string(self.dir.path("out.jsonl")).unwrap_or_default();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        text[..whole]
            .lines()
            .map(|line| serde_json::from_str(line).expect("a record"))
            .collect()
    }

    /// Waits for `count` records.
    pub(crate) fn wait(&self, count: usize) -> Vec<FrameRecord> {
        let start = Instant::now();
        loop {
            let records = self.records();
            if records.len() >= count {
                return records;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{} of {count} records",
                records.len()
            );
            sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill")
            .args([signal, &id])
            .status()
            .expect("kill starts");
        assert!(status.success());
    }

    /// Waits for the process to end by itself; its exit code and what it said.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let start = Instant::now();
        while self.child.try_wait().expect("waits").is_none() {
            assert!(start.elapsed() < PATIENCE, "the daemon does not end");
            sleep(Duration::from_millis(20));
        }
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().expect("piped");
        stderr.read_to_string(&mut said).expect("UTF-8");
        (self.child.wait().expect("waits").code(), said)
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        // Fails where the process has ended, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

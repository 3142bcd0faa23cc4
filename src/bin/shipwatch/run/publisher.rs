//! Keeps the status file up to date.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use log::warn;
use shipwatch::daemon::status::Board;

/// How old the status file may be.
const INTERVAL: Duration = Duration::from_secs(2);

/// Writes the status file, in a thread of its own, as long as it lives.
pub(super) struct Publisher {
    alive: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Publisher {
    pub(super) fn start(board: Arc<Board>, folder: &Path) -> Self {
        let folder = folder.to_owned();
        let (alive, ended) = mpsc::channel();
        let publish = move || {
            let mut trouble = false;
            loop {
                let published = board.publish(&folder);
                if let Err(error) = &published
                    && !trouble
                {
                    warn!("{}: there is no status: {error}", folder.display());
                }
                trouble = published.is_err();
                if ended.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                    // The last word.
                    let _ = board.publish(&folder);
                    break;
                }
            }
        };
        Self {
            alive: Some(alive),
            thread: Some(thread::spawn(publish)),
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.alive = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

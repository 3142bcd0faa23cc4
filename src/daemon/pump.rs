//! The threads in which sources fill their lanes.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use log::warn;

use super::queue::{Policy, Queue};
use super::status::Board;
use super::{POLL, RunError};
use crate::contain::contain;
use crate::source::finish::Finish;
use crate::source::{Next, Source};

/// How long sources are waited for in the end. One that hangs in the kernel, on a network that is gone, may never
/// come back.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where frames come from, and what becomes of them.
pub struct Feed {
    /// What people call it.
    pub name: String,
    /// Gives frames, in a thread of its own.
    pub source: Box<dyn Source + Send>,
    /// Frames that may wait, unless they take too much memory: see [`super::queue::BUDGET`].
    pub waiting: usize,
    /// What happens to more.
    pub policy: Policy,
    /// Least time from one frame of files to the next; other sources keep theirs themselves.
    pub interval: Duration,
    /// What becomes of a file, once its record is written.
    pub finish: Finish,
    /// Where files are set aside that are no frames, each with a note that says why.
    pub failed: Option<PathBuf>,
}

/// What a source's thread hands to the loop.
pub(super) type Arrival = Result<Next, RunError>;

/// Sources, each in its thread.
pub(super) struct Pumps {
    queue: Arc<Queue<Arrival>>,
    threads: Vec<(String, JoinHandle<Box<dyn Source + Send>>)>,
}

impl Pumps {
    pub(super) fn start(
        sources: impl IntoIterator<Item = (String, Box<dyn Source + Send>, Duration)>,
        queue: &Arc<Queue<Arrival>>,
        board: &Arc<Board>,
    ) -> Self {
        let threads = sources.into_iter().enumerate();
        let threads = threads.map(|(lane, (name, source, interval))| {
            let (queue, board) = (Arc::clone(queue), Arc::clone(board));
            (
                name,
                thread::spawn(move || pump(source, &queue, &board, lane, interval)),
            )
        });
        Self {
            threads: threads.collect(),
            queue: Arc::clone(queue),
        }
    }

    /// Lets all sources end, and gives them back, each in its place; none for one that does not end.
    pub(super) fn stop(&mut self) -> Vec<Option<Box<dyn Source + Send>>> {
        self.queue.close();
        let deadline = Instant::now() + PATIENCE;
        let sources = self.threads.drain(..).map(|(name, thread)| {
            while !thread.is_finished() && Instant::now() < deadline {
                sleep(Duration::from_millis(5));
            }
            if !thread.is_finished() {
                warn!("{name}: does not end, and is left behind");
                return None;
            }
            thread.join().ok()
        });
        sources.collect()
    }
}

impl Drop for Pumps {
    fn drop(&mut self) {
        // Whatever happened to the loop, nobody takes from the lanes any more.
        self.queue.close();
    }
}

/// Lets a source fill its lane, until it ends or nobody takes any more.
fn pump(
    mut source: Box<dyn Source + Send>,
    queue: &Queue<Arrival>,
    board: &Board,
    lane: usize,
    interval: Duration,
) -> Box<dyn Source + Send> {
    let mut due = Instant::now();
    while queue.wait_for_room(lane) {
        let early = due.saturating_duration_since(Instant::now());
        if !early.is_zero() {
            sleep(early.min(POLL));
            continue;
        }
        let next = contain(|| source.next(POLL));
        queue.note_dropped(lane, source.take_dropped());
        let (trouble, backlog) = (source.trouble(), source.backlog());
        // A source that was left behind has no place on the board of those after it.
        if !queue.is_closed() {
            board.update(|status| {
                let source = &mut status.sources[lane];
                source.trouble = trouble;
                source.backlog = backlog;
            });
        }
        match next {
            Some(Ok(Next::Idle)) => {}
            Some(Ok(Next::End)) => break,
            Some(Ok(next)) => {
                if matches!(next, Next::Frame { .. }) {
                    due = Instant::now() + interval;
                }
                let bytes = next.bytes();
                if !queue.push(lane, Ok(next), bytes) {
                    break;
                }
            }
            Some(Err(error)) => {
                queue.put(lane, Err(error.into()));
                break;
            }
            None => {
                queue.put(lane, Err(RunError::Source));
                break;
            }
        }
    }
    queue.end(lane);
    source
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::status::SourceStatus;
    use crate::ledger::LedgerError;

    /// Comes back when the loop is gone, and its place on the board is another's.
    struct Late(Arc<Queue<Arrival>>, Arc<Board>);

    impl Source for Late {
        fn next(&mut self, _: Duration) -> Result<Next, LedgerError> {
            self.0.close();
            self.1
                .update(|status| status.sources[0].name = "other".into());
            Ok(Next::Idle)
        }

        fn trouble(&self) -> Option<String> {
            Some("was gone for long".into())
        }
    }

    #[test]
    fn a_source_that_was_left_behind_tells_nothing_of_what_came_after() {
        let board = Arc::new(Board::default());
        board.update(|status| status.sources.push(SourceStatus::default()));
        let queue = Arc::new(Queue::new([(1, Policy::Block)]));
        let late = Late(Arc::clone(&queue), Arc::clone(&board));
        pump(Box::new(late), &queue, &board, 0, Duration::ZERO);
        let other = &board.status().sources[0];
        assert_eq!((other.name.as_str(), &other.trouble), ("other", &None));
    }
}

//! What sources hand to the loop: a lane for each, of bounded length, with a policy for what does not fit.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

/// What happens where a lane is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// The source waits. Nothing is lost of a folder, whose files wait as well.
    Block,
    /// What has waited longest is dropped: the newest counts.
    DropOldest,
    /// What comes is dropped: the first of an event counts.
    DropNewest,
}

/// Lanes that several threads fill and one empties, each lane in turn.
#[derive(Debug)]
pub struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    lanes: Vec<Lane<T>>,
    /// The lane that is asked first.
    turn: usize,
    closed: bool,
}

#[derive(Debug)]
struct Lane<T> {
    items: VecDeque<T>,
    capacity: usize,
    policy: Policy,
    dropped: u64,
    ended: bool,
}

/// What [`Queue::pop`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Popped<T> {
    /// An item and its lane.
    Item(usize, T),
    /// Nothing came in time.
    Idle,
    /// Nothing will come any more.
    Ended,
}

impl<T> Queue<T> {
    /// Lanes of so many items each, at least one.
    pub fn new(lanes: impl IntoIterator<Item = (usize, Policy)>) -> Self {
        let lane = |(capacity, policy): (usize, Policy)| Lane {
            items: VecDeque::new(),
            capacity: capacity.max(1),
            policy,
            dropped: 0,
            ended: false,
        };
        Self {
            state: Mutex::new(State {
                lanes: lanes.into_iter().map(lane).collect(),
                turn: 0,
                closed: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Puts an item into a lane, or drops one as the lane's policy has it. False where nobody takes any more:
    /// the item is gone then, uncounted.
    ///
    /// # Panics
    /// If there is no such lane.
    pub fn push(&self, lane: usize, item: T) -> bool {
        let mut state = self.lock();
        loop {
            if state.closed {
                return false;
            }
            let Lane {
                items,
                capacity,
                policy,
                dropped,
                ..
            } = &mut state.lanes[lane];
            if items.len() >= *capacity {
                match policy {
                    Policy::Block => {
                        state = self
                            .changed
                            .wait(state)
                            .unwrap_or_else(PoisonError::into_inner);
                        continue;
                    }
                    Policy::DropOldest => {
                        items.pop_front();
                        *dropped += 1;
                    }
                    Policy::DropNewest => {
                        *dropped += 1;
                        return true;
                    }
                }
            }
            items.push_back(item);
            self.changed.notify_all();
            return true;
        }
    }

    /// Puts an item into a lane whether it fits or not.
    ///
    /// # Panics
    /// If there is no such lane.
    pub fn put(&self, lane: usize, item: T) {
        self.lock().lanes[lane].items.push_back(item);
        self.changed.notify_all();
    }

    /// Says that a lane gets nothing more.
    ///
    /// # Panics
    /// If there is no such lane.
    pub fn end(&self, lane: usize) {
        self.lock().lanes[lane].ended = true;
        self.changed.notify_all();
    }

    /// The oldest item of the lane whose turn it is, or of the next one that has any.
    pub fn pop(&self, timeout: Duration) -> Popped<T> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            let count = state.lanes.len();
            for lane in (state.turn..count).chain(0..state.turn) {
                if let Some(item) = state.lanes[lane].items.pop_front() {
                    state.turn = (lane + 1) % count;
                    self.changed.notify_all();
                    return Popped::Item(lane, item);
                }
            }
            if state.lanes.iter().all(|lane| lane.ended) {
                return Popped::Ended;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Popped::Idle;
            }
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes no more: who waits to push is sent away.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Whether it takes no more.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Items of a lane that wait.
    ///
    /// # Panics
    /// If there is no such lane.
    pub fn waiting(&self, lane: usize) -> usize {
        self.lock().lanes[lane].items.len()
    }

    /// Counts items as dropped that never came to a lane.
    ///
    /// # Panics
    /// If there is no such lane.
    pub fn note_dropped(&self, lane: usize, count: u64) {
        self.lock().lanes[lane].dropped += count;
    }

    /// Items of a lane that were dropped since this was asked last.
    ///
    /// # Panics
    /// If there is no such lane.
    pub fn take_dropped(&self, lane: usize) -> u64 {
        mem::take(&mut self.lock().lanes[lane].dropped)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No state is ever left half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread::{scope, sleep};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);
    const NOW: Duration = Duration::ZERO;

    fn drain(queue: &Queue<u32>) -> Vec<(usize, u32)> {
        let mut items = Vec::new();
        while let Popped::Item(lane, item) = queue.pop(NOW) {
            items.push((lane, item));
        }
        items
    }

    #[test]
    fn a_full_lane_does_as_its_policy_says() {
        let queue = Queue::new([(2, Policy::DropOldest), (2, Policy::DropNewest)]);
        for item in 1..=4 {
            assert!(queue.push(0, item) && queue.push(1, item));
        }
        assert_eq!(drain(&queue), [(0, 3), (1, 1), (0, 4), (1, 2)]);
        assert_eq!([0, 1].map(|lane| queue.take_dropped(lane)), [2, 2]);
        assert_eq!(queue.pop(NOW), Popped::Idle);
        (5..9).for_each(|item| queue.put(1, item));
        assert_eq!(drain(&queue), [(1, 5), (1, 6), (1, 7), (1, 8)]);
    }

    #[test]
    fn a_source_that_waits_loses_nothing() {
        let queue = Queue::new([(2, Policy::Block)]);
        scope(|threads| {
            threads.spawn(|| {
                (0..100).for_each(|item| assert!(queue.push(0, item)));
                queue.end(0);
            });
            for item in 0..100 {
                assert_eq!(queue.pop(SOON), Popped::Item(0, item));
            }
            assert_eq!(queue.pop(SOON), Popped::Ended);
        });
        assert_eq!(queue.take_dropped(0), 0);
    }

    #[test]
    fn lanes_take_turns_and_end_when_all_have() {
        let queue = Queue::new([(9, Policy::Block); 3]);
        for (lane, item) in [(0, 1), (0, 2), (0, 3), (2, 4), (2, 5)] {
            queue.push(lane, item);
        }
        queue.end(0);
        queue.end(1);
        assert_eq!(drain(&queue), [(0, 1), (2, 4), (0, 2), (2, 5), (0, 3)]);
        assert_eq!(queue.pop(NOW), Popped::Idle);
        queue.end(2);
        assert_eq!(queue.pop(NOW), Popped::Ended);
    }

    #[test]
    fn who_waits_is_sent_away_when_it_closes() {
        let queue = Queue::new([(1, Policy::Block)]);
        assert!(queue.push(0, 1));
        scope(|threads| {
            let waits = threads.spawn(|| queue.push(0, 2));
            sleep(Duration::from_millis(50));
            queue.close();
            assert!(!waits.join().expect("no panic"));
        });
        assert_eq!(drain(&queue), [(0, 1)]);
    }
}

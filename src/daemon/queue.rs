//! What sources hand to the loop: a lane for each, of bounded length, with a policy for what does not fit.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

/// Bytes that wait in a lane, unless its first item alone has more.
pub const BUDGET: u64 = 256 << 20;

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
    /// With the bytes that each takes.
    items: VecDeque<(T, u64)>,
    bytes: u64,
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
    /// Lanes of so many items each, at least one, and of [`BUDGET`] bytes.
    pub fn new(lanes: impl IntoIterator<Item = (usize, Policy)>) -> Self {
        let lane = |(capacity, policy): (usize, Policy)| Lane {
            items: VecDeque::new(),
            bytes: 0,
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

    /// Puts an item of so many bytes into a lane, or drops what its policy says. False where nobody waits for
    /// more: the item is then left there for who empties the lanes.
    ///
    /// # Panics
    /// If there is no such lane.
    pub fn push(&self, lane: usize, item: T, bytes: u64) -> bool {
        let mut state = self.lock();
        loop {
            let closed = state.closed;
            let lane = &mut state.lanes[lane];
            if closed || lane.fits(bytes) {
                lane.put(item, bytes);
                self.changed.notify_all();
                return !closed;
            }
            match lane.policy {
                Policy::Block => state = self.wait(state),
                Policy::DropOldest => {
                    lane.take();
                    lane.dropped += 1;
                }
                Policy::DropNewest => {
                    lane.dropped += 1;
                    return true;
                }
            }
        }
    }

    /// Waits until another item may fit into a lane whose source waits, so that it need not make one that then has
    /// no room. False where nobody takes any more.
    ///
    /// # Panics
    /// If there is no such lane.
    pub fn wait_for_room(&self, lane: usize) -> bool {
        let mut state = self.lock();
        while !state.closed {
            let lane = &state.lanes[lane];
            if lane.policy != Policy::Block || lane.fits(1) {
                return true;
            }
            state = self.wait(state);
        }
        false
    }

    /// Puts an item into a lane whether it fits or not.
    ///
    /// # Panics
    /// If there is no such lane.
    pub fn put(&self, lane: usize, item: T) {
        self.lock().lanes[lane].put(item, 0);
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
                if let Some(item) = state.lanes[lane].take() {
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

    fn wait<'a>(&self, state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        let woken = self.changed.wait(state);
        woken.unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No state is ever left half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Lane<T> {
    fn fits(&self, bytes: u64) -> bool {
        let fits = self.items.is_empty() || self.bytes + bytes <= BUDGET;
        fits && self.items.len() < self.capacity
    }

    fn put(&mut self, item: T, bytes: u64) {
        self.items.push_back((item, bytes));
        self.bytes += bytes;
    }

    fn take(&mut self) -> Option<T> {
        let (item, bytes) = self.items.pop_front()?;
        self.bytes -= bytes;
        Some(item)
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
            assert!(queue.push(0, item, 1) && queue.push(1, item, 1));
        }
        assert_eq!(drain(&queue), [(0, 3), (1, 1), (0, 4), (1, 2)]);
        assert_eq!([0, 1].map(|lane| queue.take_dropped(lane)), [2, 2]);
        assert_eq!(queue.pop(NOW), Popped::Idle);
        (5..9).for_each(|item| queue.put(1, item));
        assert_eq!(drain(&queue), [(1, 5), (1, 6), (1, 7), (1, 8)]);
    }

    #[test]
    fn large_items_fill_a_lane_before_it_has_many() {
        let queue = Queue::new([
            (9, Policy::DropOldest),
            (9, Policy::DropNewest),
            (9, Policy::Block),
        ]);
        let third = BUDGET / 3;
        for item in 1..=4 {
            assert!(queue.push(0, item, third) && queue.push(1, item, third));
        }
        // One always fits, whatever room it takes; and it takes the room of all others.
        assert!(queue.push(0, 5, 2 * BUDGET) && queue.push(2, 6, 2 * BUDGET));
        assert_eq!(drain(&queue), [(0, 5), (1, 1), (2, 6), (1, 2), (1, 3)]);
        assert_eq!([0, 1].map(|lane| queue.take_dropped(lane)), [4, 1]);
        assert!(queue.push(2, 7, BUDGET));
        scope(|threads| {
            let waits = threads.spawn(|| queue.wait_for_room(2) && queue.push(2, 8, BUDGET));
            assert_eq!(queue.pop(SOON), Popped::Item(2, 7));
            assert_eq!(queue.pop(SOON), Popped::Item(2, 8));
            assert!(waits.join().expect("no panic"));
            assert!(queue.push(2, 9, BUDGET) && queue.wait_for_room(0));
            let waits = threads.spawn(|| queue.wait_for_room(2));
            queue.close();
            assert!(!waits.join().expect("no panic"));
        });
    }

    #[test]
    fn a_source_that_waits_loses_nothing() {
        let queue = Queue::new([(2, Policy::Block)]);
        scope(|threads| {
            threads.spawn(|| {
                (0..100).for_each(|item| assert!(queue.push(0, item, 1)));
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
            queue.push(lane, item, 1);
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
        assert!(queue.push(0, 1, 1));
        scope(|threads| {
            let waits = threads.spawn(|| queue.push(0, 2, 1));
            sleep(Duration::from_millis(50));
            queue.close();
            assert!(!waits.join().expect("no panic"));
        });
        assert_eq!(drain(&queue), [(0, 1), (0, 2)]);
    }
}

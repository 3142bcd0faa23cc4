//! What the thread that reads hands to the one that decodes: a frame at a time, at the pace that is asked for.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::split::Encoded;
use crate::source::live::{Moment, Pace, Trouble};

/// Damaged frames that may wait.
const BROKEN: usize = 16;

/// What came of a stream.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Item {
    Frame(Encoded, Moment),
    Broken(String),
}

/// What [`Desk::take`] found.
#[derive(Debug, PartialEq)]
pub(super) enum Taken {
    Item(Item),
    Idle,
    Ended,
}

/// Where one thread puts and another takes.
#[derive(Debug)]
pub(super) struct Desk {
    start: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// One frame at most.
    waiting: VecDeque<Item>,
    keep_all: bool,
    pace: Pace,
    dropped: u64,
    ended: bool,
    closed: bool,
    trouble: Option<Trouble>,
}

impl Desk {
    pub(super) fn new(interval: Duration, keep_all: bool) -> Self {
        Self {
            start: Instant::now(),
            state: Mutex::new(State::new(interval, keep_all)),
            changed: Condvar::new(),
        }
    }

    /// Puts something there. Waits for room for a frame if all are kept; else it replaces the one that waits.
    /// False where nobody takes any more.
    pub(super) fn put(&self, item: Item) -> bool {
        let mut state = self.lock();
        while !state.closed && !state.has_room(&item) {
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return false;
        }
        state.put(item, self.start.elapsed());
        self.changed.notify_all();
        true
    }

    /// Waits for something that is due, `timeout` at most.
    pub(super) fn take(&self, timeout: Duration) -> Taken {
        let deadline = self.start.elapsed().saturating_add(timeout);
        let mut state = self.lock();
        loop {
            let now = self.start.elapsed();
            if let Some(item) = state.take(now) {
                self.changed.notify_all();
                return Taken::Item(item);
            }
            if state.ended && state.waiting.is_empty() {
                return Taken::Ended;
            }
            let mut left = deadline.saturating_sub(now);
            if left.is_zero() {
                return Taken::Idle;
            }
            if !state.waiting.is_empty() {
                left = left.min(state.pace.wait(now));
            }
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until nobody takes any more, `timeout` at most.
    pub(super) fn sleep(&self, timeout: Duration) {
        let asleep = |state: &mut State| !state.closed;
        let woken = self
            .changed
            .wait_timeout_while(self.lock(), timeout, asleep);
        drop(woken);
    }

    /// Says that nothing more will be put there.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.lock().ended
    }

    /// Says that nobody takes any more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Notes what is wrong, until a frame comes.
    pub(super) fn note(&self, problem: String, retry: Option<Duration>) {
        let mut state = self.lock();
        let before = state.trouble.take();
        state.trouble = Some(Trouble {
            problem,
            since: before.map_or_else(SystemTime::now, |it| it.since),
            retry,
        });
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.lock().trouble.as_ref().map(ToString::to_string)
    }

    /// Frames that were due and made way for others, since this was asked last.
    pub(super) fn take_dropped(&self) -> u64 {
        mem::take(&mut self.lock().dropped)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No state is ever left half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(interval: Duration, keep_all: bool) -> Self {
        Self {
            waiting: VecDeque::new(),
            keep_all,
            pace: Pace::new(interval),
            dropped: 0,
            ended: false,
            closed: false,
            trouble: None,
        }
    }

    fn has_room(&self, item: &Item) -> bool {
        match item {
            Item::Frame(..) if self.keep_all => self.frame().is_none(),
            Item::Frame(..) => true,
            Item::Broken(_) => self.waiting.len() < BROKEN,
        }
    }

    fn frame(&self) -> Option<usize> {
        let is_frame = |item: &Item| matches!(item, Item::Frame(..));
        self.waiting.iter().position(is_frame)
    }

    fn put(&mut self, item: Item, now: Duration) {
        if let Item::Frame(..) = item {
            self.trouble = None;
            if let Some(before) = self.frame() {
                self.waiting.remove(before);
                // One that was not due yet is left out because of the pace.
                self.dropped += u64::from(self.pace.is_due(now));
            }
        }
        self.waiting.push_back(item);
    }

    fn take(&mut self, now: Duration) -> Option<Item> {
        match self.waiting.front()? {
            Item::Frame(..) if !self.pace.is_due(now) => return None,
            Item::Frame(..) => self.pace.took(now),
            Item::Broken(_) => {}
        }
        self.waiting.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::thread::scope;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn frame(sequence: u64) -> Item {
        let moment = Moment {
            opening: 1,
            sequence,
            captured: SystemTime::UNIX_EPOCH,
        };
        Item::Frame(Encoded::Jpeg(Vec::new()), moment)
    }

    fn broken() -> Item {
        Item::Broken("damaged".to_owned())
    }

    fn second(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn the_newest_counts_and_what_it_replaces_is_dropped() {
        let mut state = State::new(Duration::ZERO, false);
        for item in [frame(0), broken(), frame(1), frame(2)] {
            assert!(state.has_room(&item));
            state.put(item, second(1));
        }
        assert_eq!(state.dropped, 2);
        assert_eq!(state.take(second(1)), Some(broken()));
        assert_eq!(state.take(second(1)), Some(frame(2)));
        assert_eq!(state.take(second(1)), None);
    }

    #[test]
    fn what_the_pace_leaves_out_is_not_dropped() {
        let mut state = State::new(second(10), false);
        state.put(frame(0), second(1));
        assert_eq!(state.take(second(1)), Some(frame(0)));
        // Nine a second apart, and what is damaged waits for nothing.
        for nth in 1..10 {
            state.put(frame(nth), second(1 + nth));
            assert_eq!(state.take(second(1 + nth)), None);
        }
        state.put(broken(), second(10));
        assert_eq!(
            state.take(second(11)),
            Some(frame(9)),
            "the newest, when due"
        );
        assert_eq!(state.take(second(11)), Some(broken()));
        assert_eq!(state.dropped, 0);
        // Due, but nobody came for it before the next.
        state.put(frame(20), second(21));
        state.put(frame(21), second(22));
        assert_eq!(state.dropped, 1);
        assert_eq!(state.take(second(22)), Some(frame(21)));
    }

    #[test]
    fn all_are_kept_in_turn_where_that_is_asked_for() {
        let desk = Desk::new(Duration::ZERO, true);
        let items = || (0..50).map(|nth| if nth % 7 == 3 { broken() } else { frame(nth) });
        scope(|threads| {
            threads.spawn(|| {
                for item in items() {
                    assert!(desk.put(item));
                }
                desk.end();
            });
            for item in items() {
                assert_eq!(desk.take(SOON), Taken::Item(item));
            }
            assert_eq!(desk.take(SOON), Taken::Ended);
        });
        assert_eq!(desk.take_dropped(), 0);
    }

    #[test]
    fn nobody_waits_for_who_has_gone() {
        let desk = Desk::new(Duration::ZERO, true);
        assert!(desk.put(frame(0)));
        scope(|threads| {
            let full = threads.spawn(|| desk.put(frame(1)));
            let asleep = threads.spawn(|| desk.sleep(Duration::MAX));
            desk.close();
            assert!(!full.join().expect("no panic"));
            asleep.join().expect("no panic");
        });
        assert_eq!(
            Desk::new(Duration::ZERO, false).take(Duration::ZERO),
            Taken::Idle
        );
    }

    #[test]
    fn damaged_frames_do_not_pile_up() {
        let mut state = State::new(Duration::ZERO, false);
        while state.has_room(&broken()) {
            state.put(broken(), Duration::ZERO);
        }
        assert_eq!(state.waiting.len(), BROKEN);
        state.put(frame(0), Duration::ZERO);
        assert!(!state.has_room(&broken()));
    }

    #[test]
    fn trouble_lasts_until_a_frame_comes() {
        let desk = Desk::new(Duration::ZERO, false);
        assert_eq!(desk.trouble(), None);
        desk.note("ended".to_owned(), Some(second(2)));
        let trouble = desk.trouble().expect("some");
        assert!(
            trouble.starts_with("ended; since 2") && trouble.ends_with("every 2 s"),
            "{trouble}"
        );
        assert!(desk.put(broken()) && desk.trouble().is_some());
        assert!(desk.put(frame(0)));
        assert_eq!(desk.trouble(), None);
    }
}

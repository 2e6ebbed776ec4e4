//! One call of `flush`: a token sits on each batch that was incomplete when it began, and the last
//! token's drop ends it.
//!
//! The flushing thread makes the tokens and waits. The sender counts records off as it completes a
//! batch; the callback executor counts callbacks off and drops the tokens.

use std::time::Duration;

use crate::claims;
use crate::error::Error;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Condvar, Mutex};
use crate::time::{Clock, MonoTime};

/// What the flushing thread holds.
#[derive(Debug, Default)]
pub(crate) struct FlushWait {
    state: Arc<FlushState>,
}

/// A batch's share in a flush.
#[derive(Debug)]
pub(crate) struct FlushToken {
    state: Arc<FlushState>,
    /// Records of the batch that are not completed.
    records: usize,
    /// Callbacks of the batch that have not run.
    callbacks: usize,
}

/// Counters are free to be read at any time; `over` pairs with the last token's drop.
#[derive(Debug, Default)]
struct FlushState {
    records: AtomicUsize,
    callbacks: AtomicUsize,
    tokens: AtomicUsize,
    lock: Mutex<()>,
    over: Condvar,
}

impl FlushWait {
    /// A flush that waits for nothing yet.
    pub(crate) fn begin() -> Self {
        Self::default()
    }

    /// A token for a batch of so many records, of which so many have callbacks. Make all tokens
    /// before waiting.
    pub(crate) fn token(&self, records: usize, callbacks: usize) -> FlushToken {
        FlushToken::new(&self.state, records, callbacks)
    }

    /// Whether all that the flush waits for has come to pass.
    pub(crate) fn is_over(&self) -> bool {
        self.state.tokens.load(Ordering::Acquire) == 0
    }

    /// In a model: moves time on, and ends the waits whose time is over by then.
    #[cfg(all(test, loom))]
    pub(super) fn time_passes(&self, advance: impl FnOnce()) {
        let _leaf = self.state.lock.lock();
        advance();
        self.state.over.notify_all();
    }

    /// Blocks until the last token is dropped.
    ///
    /// # Errors
    /// [`Error::FlushTimeout`] at the deadline, with what is left. The batches go on.
    pub(crate) fn wait(&self, clock: &Clock, deadline: MonoTime) -> Result<(), Error> {
        let mut leaf = self.state.lock.lock();
        while !self.is_over() {
            let left = deadline.since(clock.now());
            if left == Duration::ZERO {
                return Err(Error::FlushTimeout {
                    records: self.state.records.load(Ordering::Acquire),
                    callbacks: self.state.callbacks.load(Ordering::Acquire),
                });
            }
            self.state.over.wait_for(&mut leaf, left);
        }
        self.state.invariants_at_end();
        Ok(())
    }
}

impl FlushState {
    /// Once the last token is gone nothing is counted any more. While there are some, each counts
    /// for itself, and [`take_off`] sees to it that no count falls below what is left.
    fn invariants_at_end(&self) {
        debug_assert_eq!(self.records.load(Ordering::Acquire), 0, "records of no token");
        debug_assert_eq!(self.callbacks.load(Ordering::Acquire), 0, "callbacks of no token");
    }
}

/// Counts so many off.
fn take_off(count: &AtomicUsize, done: usize) {
    let before = count.fetch_sub(done, Ordering::AcqRel);
    debug_assert!(before >= done, "{done} of {before} are done");
}

impl FlushToken {
    fn new(state: &Arc<FlushState>, records: usize, callbacks: usize) -> Self {
        state.tokens.fetch_add(1, Ordering::AcqRel);
        state.records.fetch_add(records, Ordering::AcqRel);
        state.callbacks.fetch_add(callbacks, Ordering::AcqRel);
        let token = Self { state: state.clone(), records, callbacks };
        token.invariants();
        token
    }

    /// Whatever others count off, the flush waits for this token and for what it stands for.
    fn invariants(&self) {
        if !claims::are_checked() {
            return;
        }
        let state = &*self.state;
        assert!(state.records.load(Ordering::Acquire) >= self.records, "{self:?}");
        assert!(state.callbacks.load(Ordering::Acquire) >= self.callbacks, "{self:?}");
        assert!(state.tokens.load(Ordering::Acquire) > 0, "{self:?}");
    }

    /// A token of the same flush for another batch.
    pub(crate) fn sibling(&self, records: usize, callbacks: usize) -> Self {
        Self::new(&self.state, records, callbacks)
    }

    /// So many of the batch's records are completed. More than the token covers is all of them:
    /// the batch may have grown since.
    pub(crate) fn on_completed(&mut self, records: usize) {
        let done = records.min(self.records);
        self.records -= done;
        take_off(&self.state.records, done);
        self.invariants();
    }

    /// One of the batch's callbacks has run, or never will.
    pub(crate) fn on_callback(&mut self) {
        let done = self.callbacks.min(1);
        self.callbacks -= done;
        take_off(&self.state.callbacks, done);
        self.invariants();
    }

    /// For a batch that is split: a token for a part of so many records and callbacks, which this
    /// one covers no longer.
    pub(crate) fn split_off(&mut self, records: usize, callbacks: usize) -> Self {
        let (records, callbacks) = (records.min(self.records), callbacks.min(self.callbacks));
        let part = Self::new(&self.state, records, callbacks);
        self.records -= records;
        self.callbacks -= callbacks;
        take_off(&self.state.records, records);
        take_off(&self.state.callbacks, callbacks);
        self.invariants();
        part
    }
}

impl Drop for FlushToken {
    fn drop(&mut self) {
        take_off(&self.state.records, self.records);
        take_off(&self.state.callbacks, self.callbacks);
        // What was done before is for the waiter to see; the last token has no use for it.
        if self.state.tokens.fetch_sub(1, Ordering::Release) == 1 {
            // Through the lock: a waiter that saw the token is asleep before it is woken.
            drop(self.state.lock.lock());
            self.state.over.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::super::racing::{self, Begun};
    use super::*;

    const SOON: Duration = Duration::from_millis(1);

    fn left(flush: &FlushWait) -> Option<(usize, usize)> {
        let clock = Clock::system();
        match flush.wait(&clock, clock.now() + SOON) {
            Err(Error::FlushTimeout { records, callbacks }) => Some((records, callbacks)),
            other => {
                assert!(other.is_ok(), "{other:?}");
                None
            }
        }
    }

    #[test]
    fn a_flush_of_nothing_ends_at_once() {
        assert_eq!(left(&FlushWait::begin()), None);
    }

    #[test]
    fn a_time_out_tells_what_is_left() {
        let flush = FlushWait::begin();
        let (mut a, mut b) = (flush.token(10, 4), flush.token(5, 0));
        assert_eq!(left(&flush), Some((15, 4)));
        a.on_completed(10);
        a.on_callback();
        assert_eq!(left(&flush), Some((5, 3)));
        b.on_completed(8);
        assert_eq!(left(&flush), Some((0, 3)), "records that came later do not count");
        drop(a);
        assert_eq!(left(&flush), Some((0, 0)));
        drop(b);
        assert_eq!(left(&flush), None);
    }

    #[test]
    fn a_split_batch_is_waited_for_part_by_part() {
        let flush = FlushWait::begin();
        let mut whole = flush.token(10, 3);
        let part = whole.split_off(4, 2);
        assert_eq!(left(&flush), Some((10, 3)));
        drop(whole);
        assert_eq!(left(&flush), Some((4, 2)));
        drop(part);
        assert_eq!(left(&flush), None);
    }

    #[test]
    fn the_last_token_wakes_the_waiter() {
        for round in 0..racing::ROUNDS {
            let flush = FlushWait::begin();
            let [first, last] = [flush.token(1, 0), flush.token(1, 1)];
            drop(first);
            let begun = Arc::new(Begun::default());
            let waiter = thread::spawn({
                let begun = begun.clone();
                move || {
                    let clock = Clock::system();
                    begun.set();
                    racing::in_time(|| flush.wait(&clock, clock.now() + racing::LIMIT))
                }
            });
            racing::meet(round, || begun.is_set());
            drop(last);
            assert!(waiter.join().unwrap().is_ok());
        }
    }
}

//! The bound on callbacks that are accepted and not yet begun: `callback.max.pending`.
//!
//! User threads take a slot a record before they append it; the executor frees it as the callback
//! begins. Taking and freeing are one atomic each while nobody waits.

use std::time::Duration;

use super::callback::in_callback;
use crate::error::Error;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Condvar, Mutex};
use crate::time::{Clock, MonoTime};

/// The slots of one producer.
#[derive(Debug)]
pub(crate) struct Slots {
    max: usize,
    used: AtomicUsize,
    /// Threads in [`Slots::acquire`]. Both this and `used` are `SeqCst`: either the waiter sees
    /// the slot that was freed, or whoever freed it sees the waiter.
    waiting: AtomicUsize,
    /// `Relaxed`: who waits sees it by the lock, which a close takes before it wakes anybody; and a
    /// record that slips past it is refused by its queue.
    closed: AtomicBool,
    lock: Mutex<()>,
    freed: Condvar,
}

/// A slot that was taken; given back if the record isn't accepted in the end.
#[must_use]
#[derive(Debug)]
pub(crate) struct Slot<'a>(&'a Slots);

/// A wait for a slot, to be stepped until it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotWait {
    began: MonoTime,
    deadline: MonoTime,
}

impl Slots {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            used: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            lock: Mutex::new(()),
            freed: Condvar::new(),
        }
    }

    /// A slot, if one is free now.
    pub(crate) fn try_acquire(&self) -> Option<Slot<'_>> {
        let one_more = |used| (used < self.max).then_some(used + 1);
        let taken = self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more);
        self.invariants();
        // Lazily: a `Slot` made in vain would free one as it is dropped.
        taken.is_ok().then(|| Slot(self))
    }

    /// Waits for a slot until `deadline`; inside a callback, which may be what frees the next
    /// slot, not at all.
    ///
    /// # Errors
    /// [`Error::CallbackBacklogFull`] if none came free, [`Error::Closed`] if the producer was
    /// closed meanwhile.
    pub(crate) fn acquire(&self, clock: &Clock, deadline: MonoTime) -> Result<Slot<'_>, Error> {
        if let Some(slot) = self.try_acquire() {
            return Ok(slot);
        }
        if in_callback() {
            return Err(Error::CallbackBacklogFull { waited: Duration::ZERO });
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let wait = SlotWait::new(clock.now(), deadline);
        let mut leaf = self.lock.lock();
        let end = loop {
            let now = clock.now();
            if let Some(end) = wait.step(self, now) {
                break end;
            }
            self.freed.wait_for(&mut leaf, deadline.since(now));
        };
        let waiting = self.waiting.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(waiting > 0, "somebody waits who is not counted");
        end
    }

    /// How many slots are taken.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }

    /// In a model: moves time on, and ends the waits whose time is over by then.
    #[cfg(all(test, loom))]
    pub(super) fn time_passes(&self, advance: impl FnOnce()) {
        let _leaf = self.lock.lock();
        advance();
        self.freed.notify_all();
    }

    /// Ends each wait for a slot with [`Error::Closed`].
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        drop(self.lock.lock());
        self.freed.notify_all();
    }

    /// Whether the producer is closed, or has failed. Costs one load.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Frees the slot of a callback that begins, or that will never run.
    pub(super) fn release(&self) {
        self.used.fetch_sub(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            // Through the lock: a waiter that found no slot is asleep before it is woken.
            drop(self.lock.lock());
            self.freed.notify_one();
        }
        self.invariants();
    }

    /// No more slots are taken than there are; less than none would be a great many.
    fn invariants(&self) {
        debug_assert!(self.used.load(Ordering::SeqCst) <= self.max, "{self:?}");
    }
}

impl SlotWait {
    pub(crate) fn new(began: MonoTime, deadline: MonoTime) -> Self {
        Self { began, deadline }
    }

    /// How the wait ends, or `None` if it goes on until a slot is freed or the deadline comes.
    pub(crate) fn step<'a>(
        &self,
        slots: &'a Slots,
        now: MonoTime,
    ) -> Option<Result<Slot<'a>, Error>> {
        if slots.is_closed() {
            return Some(Err(Error::Closed));
        }
        if let Some(slot) = slots.try_acquire() {
            return Some(Ok(slot));
        }
        let waited = now.since(self.began);
        (now >= self.deadline).then_some(Err(Error::CallbackBacklogFull { waited }))
    }
}

impl Slot<'_> {
    /// Leaves the slot to the record's callback: the executor frees it.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::super::callback::Context;
    use super::super::racing;
    use super::*;
    use crate::sync::Arc;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn no_more_slots_than_allowed_are_given() {
        let slots = Slots::new(2);
        let first = slots.try_acquire().unwrap();
        slots.try_acquire().unwrap().keep();
        assert!(slots.try_acquire().is_none());
        drop(first);
        assert_eq!(slots.used(), 1, "the kept one stays taken");
        assert!(slots.try_acquire().is_some());
    }

    #[test]
    fn a_wait_ends_at_its_deadline_and_tells_how_long_it_was() {
        let slots = Slots::new(1);
        slots.try_acquire().unwrap().keep();
        let at = |millis| MonoTime::ZERO + Duration::from_millis(millis);
        let wait = SlotWait::new(at(5), at(20));
        assert!(wait.step(&slots, at(19)).is_none());
        let Some(Err(Error::CallbackBacklogFull { waited })) = wait.step(&slots, at(20)) else {
            panic!("it goes on");
        };
        assert_eq!(waited, Duration::from_millis(15));
        slots.release();
        assert!(matches!(wait.step(&slots, at(20)), Some(Ok(_))), "a free slot comes first");
        slots.close();
        assert!(matches!(wait.step(&slots, at(6)), Some(Err(Error::Closed))));
    }

    #[test]
    fn a_callback_does_not_wait_for_a_slot() {
        let slots = Slots::new(1);
        let clock = Clock::system();
        let _inside = Context::Callback.enter();
        slots.acquire(&clock, clock.now() + LONG).unwrap().keep();
        let refused = slots.acquire(&clock, clock.now() + LONG);
        assert!(matches!(refused, Err(Error::CallbackBacklogFull { waited: Duration::ZERO })));
    }

    #[test]
    fn each_freed_slot_finds_its_waiter() {
        const THREADS: usize = 4;
        const ROUNDS: usize = 2_000;
        let slots = Slots::new(2);
        let clock = Clock::system();
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        let slot = slots.acquire(&clock, clock.now() + LONG).unwrap();
                        let now_inside = inside.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now_inside, Ordering::SeqCst);
                        thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(slot);
                    }
                });
            }
        });
        assert_eq!(slots.used(), 0);
        assert!(most.into_inner() <= 2);
    }

    #[test]
    fn a_slot_freed_between_check_and_sleep_wakes_its_waiter() {
        for round in 0..racing::ROUNDS {
            let slots = Arc::new(Slots::new(1));
            slots.try_acquire().unwrap().keep();
            let waiter = thread::spawn({
                let slots = slots.clone();
                move || {
                    let clock = Clock::system();
                    let deadline = clock.now() + racing::LIMIT;
                    racing::in_time(|| slots.acquire(&clock, deadline).map(Slot::keep))
                }
            });
            racing::meet(round, || slots.waiting.load(Ordering::SeqCst) > 0);
            slots.release();
            assert!(waiter.join().unwrap().is_ok());
        }
    }

    #[test]
    fn close_wakes_whoever_waits() {
        for _ in 0..500 {
            let slots = Arc::new(Slots::new(0));
            let waiter = {
                let slots = slots.clone();
                thread::spawn(move || {
                    let clock = Clock::system();
                    slots.acquire(&clock, clock.now() + LONG).map(Slot::keep)
                })
            };
            slots.close();
            assert!(matches!(waiter.join().unwrap(), Err(Error::Closed)));
        }
    }
}

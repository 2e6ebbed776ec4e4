//! For tests of wake-ups: two threads are brought together so closely, and in so many ways, that a
//! notification sent without the lock meets a waiter between its last look and its sleep.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::time::Clock;

/// How often a race is run: a missing lock shows within the first few hundred rounds.
pub(super) const ROUNDS: u32 = 3_000;

/// The time-out of the waits that are raced: only a lost wake-up lasts so long.
pub(super) const LIMIT: Duration = Duration::from_secs(20);

/// Set by a waiter that is about to look for the last time.
#[derive(Default)]
pub(super) struct Begun(AtomicBool);

impl Begun {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Returns as soon as `begun` holds, and a moment more, which differs from round to round.
pub(super) fn meet(round: u32, begun: impl Fn() -> bool) {
    let mut spins = 0_u32;
    while !begun() {
        spins += 1;
        // On a busy machine the waiter may need this very core.
        if spins % 1_024 == 0 { thread::yield_now() } else { std::hint::spin_loop() }
    }
    (0..round % 64).for_each(|_| std::hint::spin_loop());
}

/// Runs a wait whose time-out is [`LIMIT`], and fails if it ended by that and not by a wake-up.
pub(super) fn in_time<T>(wait: impl FnOnce() -> T) -> T {
    let clock = Clock::system();
    let start = clock.now();
    let outcome = wait();
    assert!(clock.now().since(start) < LIMIT / 2, "slept over its wake-up");
    outcome
}

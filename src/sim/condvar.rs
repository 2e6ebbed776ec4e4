//! The condition variable of tests: on a simulated thread a wait parks the thread in the
//! simulator, until a notification or a moment of virtual time; elsewhere it is the real one.

use std::time::Duration;

use super::world::{On, seat};
use crate::sync::MutexGuard;
use crate::time::MonoTime;

#[derive(Debug, Default)]
pub(crate) struct Condvar {
    real: parking_lot::Condvar,
}

/// How a bounded wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waited(bool);

impl Waited {
    pub(crate) fn timed_out(self) -> bool {
        self.0
    }
}

impl Condvar {
    pub(crate) const fn new() -> Self {
        Self { real: parking_lot::Condvar::new() }
    }

    /// What tells it apart from others while somebody waits; it is only compared.
    fn key(&self) -> On {
        On::Condvar(std::ptr::from_ref(self).addr())
    }

    pub(crate) fn notify_one(&self) {
        if let Some(seat) = seat() {
            seat.notify(self.key(), 1);
        }
        self.real.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        if let Some(seat) = seat() {
            seat.notify(self.key(), usize::MAX);
        }
        self.real.notify_all();
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        match seat() {
            None => self.real.wait(guard),
            Some(seat) => MutexGuard::unlocked(guard, || {
                seat.park(self.key(), MonoTime::MAX);
            }),
        }
    }

    pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, time: Duration) -> Waited {
        match seat() {
            None => Waited(self.real.wait_for(guard, time).timed_out()),
            Some(seat) => {
                let until = seat.now() + time;
                MutexGuard::unlocked(guard, || Waited(seat.park(self.key(), until)))
            }
        }
    }

    pub(crate) fn wait_while<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        mut goes_on: impl FnMut(&mut T) -> bool,
    ) {
        while goes_on(guard) {
            self.wait(guard);
        }
    }

    pub(crate) fn wait_while_for<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        mut goes_on: impl FnMut(&mut T) -> bool,
        time: Duration,
    ) -> Waited {
        let Some(seat) = seat() else {
            return Waited(self.real.wait_while_for(guard, goes_on, time).timed_out());
        };
        let until = seat.now() + time;
        while goes_on(guard) {
            let left = until.since(seat.now());
            if left.is_zero() || self.wait_for(guard, left).timed_out() {
                return Waited(goes_on(guard));
            }
        }
        Waited(false)
    }
}

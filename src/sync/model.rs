//! Loom's locks, atomics and threads behind the faces that this crate knows.
//!
//! Three things are not as in the world. A wait with a time-out ends by a notification only, save
//! that one of no time at all does not begin: a model plays the clock by a thread that moves a
//! manual one under the lock and notifies. `SeqCst` is made of a fence before each such operation,
//! since loom knows it in no other form: one behind it, too, would order what comes next and is no
//! part of it. A channel is a queue under a lock, for the order of its calls and not for its own
//! inside.

use std::collections::VecDeque;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use loom::sync as looms;

/// Loom's, without the word for what is made at compile time, which it can't be.
macro_rules! modelled {
    (static $name:ident: $value:ty = const { $init:expr };) => {
        loom::thread_local! { static $name: $value = $init; }
    };
}
pub(crate) use modelled as thread_local;

/// Words of a modelled thread's stack; loom's own default is too small for ours.
const STACK: usize = 0x8000;

/// Runs `body` once for each order of things that differs, with at most `preemptions` switches
/// away from a thread that could go on; `LOOM_MAX_PREEMPTIONS` overrides it. Threads that wait for
/// ever fail the model, which is how a lost wake-up shows.
pub(crate) fn explore(preemptions: usize, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.max_branches = 50_000;
    let body = Arc::new(body);
    builder.check(move || {
        let body = Arc::clone(&body);
        join(spawn(move || body()));
    });
}

/// A thread of the model. There are four at most, the one that runs the model's body included.
pub(crate) fn spawn<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    loom::thread::Builder::new().stack_size(STACK).spawn(body).expect("loom has threads")
}

/// Waits for a thread's end and gives its result.
pub(crate) fn join<T>(thread: thread::JoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The sender's poll, of which a model needs no more than its sleep and its waker.
#[derive(Debug, Default)]
pub(crate) struct Poll {
    woken: Mutex<bool>,
    bell: Condvar,
}

impl Poll {
    /// Ends the current wait or the next one.
    pub(crate) fn wake(&self) {
        *self.woken.lock() = true;
        self.bell.notify_one();
    }

    pub(crate) fn wait(&self) {
        let mut woken = self.woken.lock();
        self.bell.wait_while(&mut woken, |woken| !*woken);
        *woken = false;
    }
}

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(looms::Mutex<T>);

pub(crate) struct MutexGuard<'a, T> {
    lock: &'a Mutex<T>,
    /// None only while the lock is given up.
    held: Option<looms::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(looms::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { lock: self, held: Some(self.0.lock().unwrap()) }
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap()
    }
}

impl<T> MutexGuard<'_, T> {
    pub(crate) fn unlocked<R>(guard: &mut Self, body: impl FnOnce() -> R) -> R {
        guard.held = None;
        let result = body();
        guard.held = Some(guard.lock.0.lock().unwrap());
        result
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().expect("the lock is held")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().expect("the lock is held")
    }
}

#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(looms::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(looms::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> looms::RwLockReadGuard<'_, T> {
        self.0.read().unwrap()
    }

    pub(crate) fn write(&self) -> looms::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Condvar(looms::Condvar);

/// Whether a wait ended by its time.
pub(crate) struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub(crate) fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.held.take().expect("the lock is held");
        guard.held = Some(self.0.wait(held).unwrap());
    }

    pub(crate) fn wait_for<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        timeout: Duration,
    ) -> WaitTimeoutResult {
        if timeout > Duration::ZERO {
            self.wait(guard);
        }
        WaitTimeoutResult(timeout == Duration::ZERO)
    }

    pub(crate) fn wait_while<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) {
        while condition(guard) {
            self.wait(guard);
        }
    }

    pub(crate) fn wait_while_for<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        mut condition: impl FnMut(&mut T) -> bool,
        timeout: Duration,
    ) -> WaitTimeoutResult {
        while condition(guard) {
            if self.wait_for(guard, timeout).timed_out() {
                return WaitTimeoutResult(condition(guard));
            }
        }
        WaitTimeoutResult(false)
    }
}

/// Std's, between a flag that loom sees and a lock that whoever fills it holds.
pub(crate) struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    is_full: looms::atomic::AtomicBool,
    filling: looms::Mutex<()>,
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self {
            value: std::sync::OnceLock::new(),
            is_full: looms::atomic::AtomicBool::new(false),
            filling: looms::Mutex::new(()),
        }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        // Without the flag the value is not seen yet, though it may be there.
        self.value.get().filter(|_| self.is_full.load(looms::atomic::Ordering::Acquire))
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let _filling = self.filling.lock().unwrap();
        let is_first = self.value.set(value);
        self.is_full.store(true, looms::atomic::Ordering::Release);
        is_first
    }

    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if let Some(value) = self.get() {
            return value;
        }
        let _filling = self.filling.lock().unwrap();
        if self.value.get().is_none() {
            let is_first = self.value.set(make());
            assert!(is_first.is_ok(), "filled by whoever holds the lock");
            self.is_full.store(true, looms::atomic::Ordering::Release);
        }
        self.value.get().expect("it was filled")
    }

    pub(crate) fn take(&mut self) -> Option<T> {
        self.is_full = looms::atomic::AtomicBool::new(false);
        self.value.take()
    }
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for OnceLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

pub(crate) mod thread {
    pub(crate) use loom::thread::JoinHandle;

    /// Threads with a stack of our size.
    pub(crate) struct Builder;

    impl Builder {
        pub(crate) fn new() -> Self {
            Self
        }

        pub(crate) fn name(self, _name: String) -> Self {
            self
        }

        pub(crate) fn spawn<T: Send + 'static>(
            self,
            body: impl FnOnce() -> T + Send + 'static,
        ) -> std::io::Result<JoinHandle<T>> {
            Ok(super::spawn(body))
        }
    }
}

pub(crate) mod channel {
    use super::{Arc, Mutex, VecDeque};

    pub(crate) fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
        let shared = Arc::new(Shared { queue: Mutex::new(VecDeque::new()), capacity });
        (Sender(Arc::clone(&shared)), Receiver(shared))
    }

    #[derive(Debug)]
    struct Shared<T> {
        queue: Mutex<VecDeque<T>>,
        capacity: usize,
    }

    #[derive(Debug)]
    pub(crate) struct Sender<T>(Arc<Shared<T>>);

    #[derive(Debug)]
    pub(crate) struct Receiver<T>(Arc<Shared<T>>);

    impl<T> Sender<T> {
        pub(crate) fn try_send(&self, value: T) -> Result<(), T> {
            let mut queue = self.0.queue.lock();
            if queue.len() == self.0.capacity {
                return Err(value);
            }
            queue.push_back(value);
            Ok(())
        }

        pub(crate) fn is_full(&self) -> bool {
            self.0.queue.lock().len() == self.0.capacity
        }
    }

    impl<T> Receiver<T> {
        pub(crate) fn try_iter(&self) -> impl Iterator<Item = T> + '_ {
            std::iter::from_fn(|| self.0.queue.lock().pop_front())
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.0.queue.lock().is_empty()
        }
    }
}

pub(crate) mod atomic {
    use loom::sync::atomic as looms;

    pub(crate) use std::sync::atomic::Ordering;

    /// As a `SeqCst` operation would stand in the one order of all of them.
    fn fence(order: Ordering) {
        if order == Ordering::SeqCst {
            looms::fence(order);
        }
    }

    macro_rules! atomics {
        ($($name:ident: $value:ty { $($method:ident)* };)*) => { $(
            #[derive(Debug, Default)]
            pub(crate) struct $name(looms::$name);

            #[allow(dead_code, reason = "each has the same methods")]
            impl $name {
                pub(crate) fn new(value: $value) -> Self {
                    Self(looms::$name::new(value))
                }

                pub(crate) fn into_inner(self) -> $value {
                    self.0.into_inner()
                }

                pub(crate) fn load(&self, order: Ordering) -> $value {
                    fence(order);
                    self.0.load(order)
                }

                pub(crate) fn store(&self, value: $value, order: Ordering) {
                    fence(order);
                    // Loom would let a later swap miss a plain store beside another swap, as if a
                    // read and its write could come apart. Swaps are in one order.
                    self.0.swap(value, order);
                }

                pub(crate) fn compare_exchange(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    fence(success);
                    self.0.compare_exchange(current, new, success, failure)
                }

                pub(crate) fn fetch_update(
                    &self,
                    set: Ordering,
                    fetch: Ordering,
                    mut change: impl FnMut($value) -> Option<$value>,
                ) -> Result<$value, $value> {
                    let mut before = self.load(fetch);
                    while let Some(new) = change(before) {
                        match self.compare_exchange(before, new, set, fetch) {
                            Err(now) => before = now,
                            done => return done,
                        }
                    }
                    Err(before)
                }

                $(pub(crate) fn $method(&self, value: $value, order: Ordering) -> $value {
                    fence(order);
                    self.0.$method(value, order)
                })*
            }
        )* };
    }

    atomics! {
        AtomicBool: bool { swap };
        AtomicI32: i32 { swap fetch_add fetch_sub fetch_max };
        AtomicU32: u32 { swap fetch_add fetch_sub fetch_max };
        AtomicU64: u64 { swap fetch_add fetch_sub fetch_max };
        AtomicUsize: usize { swap fetch_add fetch_sub fetch_max };
    }
}

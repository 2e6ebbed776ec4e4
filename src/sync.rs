//! The one door to locks, condition variables, atomics, channels and threads, so that a model
//! checker can stand in for all of them: with `--cfg loom` the tests of this crate get those of
//! `model`, and what is named `loom` among them explores every interleaving.
//!
//! Lock order (the whole of it): a partition's queue, then nothing. The buffer pool, the sender's
//! inbox, metadata and delivery state are leaves: each is taken with no other lock held.

#[cfg(all(test, loom))]
pub(crate) mod model;

/// Counts references and nothing else: no code of this crate relies on the order that its counts
/// bring, so that it need not be modelled.
pub(crate) use std::sync::Arc;

#[cfg(all(test, loom))]
pub(crate) use self::model::{
    Condvar, Mutex, MutexGuard, OnceLock, RwLock, atomic, channel, thread, thread_local,
};

/// For what is only counted: nothing that a thread does follows from it, so that models are spared
/// its interleavings.
pub(crate) use parking_lot::Mutex as UnmodelledMutex;

#[cfg(not(test))]
pub(crate) use parking_lot::Condvar;
#[cfg(not(all(test, loom)))]
pub(crate) use {
    parking_lot::{Mutex, MutexGuard, RwLock},
    std::{sync::OnceLock, thread_local},
};

/// Waits in the simulator, on its threads.
#[cfg(all(test, not(loom)))]
pub(crate) use crate::sim::condvar::Condvar;

/// Atomics; a `static` takes std's own, which can be made at compile time.
#[cfg(not(all(test, loom)))]
pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{
        AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering,
    };
}

/// Bounded channels.
#[cfg(not(all(test, loom)))]
pub(crate) mod channel {
    pub(crate) use crossbeam_channel::{Receiver, Sender, bounded};
}

/// For [`crate::threads`], which starts all of them.
#[cfg(not(all(test, loom)))]
pub(crate) mod thread {
    pub(crate) use std::thread::{Builder, JoinHandle};
}

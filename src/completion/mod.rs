//! The end of a record's way: how its fate reaches the user.
//!
//! The sender fills one [`BatchResult`] a batch. A [`Delivery`] is a record's view of it, read by
//! whichever thread waits. Callbacks go, one [`CompletedBatch`] a batch, to the
//! [`CallbackExecutor`], whose threads are the only ones that run user code. Nothing here knows
//! another station: the sender hands in plain values.

mod callback; // callbacks as values; whether this thread is inside one
mod events; // the listener for what no record's outcome tells of
mod executor; // CallbackExecutor: submit, log, close; the user's Executor
mod flush; // tokens that a flush waits for
mod future; // BatchResult and Delivery
mod lane; // a partition's queue of decided batches
mod log_relay; // the sender's log lines and events
mod panics; // user code's panics end here
mod pool; // run queue, threads, accounts
mod record_metadata;
mod slots; // callback.max.pending

#[cfg(test)]
mod executor_tests;
#[cfg(all(test, loom))]
mod loom_models;
#[cfg(test)]
mod racing; // wake-ups, raced

#[cfg(feature = "testing")]
pub(crate) use self::callback::run_here;
#[allow(unused_imports)]
pub(crate) use self::{
    callback::{
        Callback, CompletedBatch, PendingCallback, UserCallback, Watched, in_callback,
        in_inline_callback, refuse_in_callback, refuse_in_inline_callback,
    },
    events::{EventListener, Guests},
    executor::{CallbackExecutor, CallbacksLeft, ExecutorKind},
    flush::{FlushToken, FlushWait},
    future::{BatchResult, Outcome, RecordErrors, SplitPart, WaitListener},
    lane::Lane,
    log_relay::{LogEvent, log_now},
    panics::guarded,
    record_metadata::RecordFacts,
    slots::{Slot, SlotWait, Slots},
};
pub use self::{
    executor::{CallbackTask, Executor},
    future::Delivery,
    record_metadata::RecordMetadata,
};

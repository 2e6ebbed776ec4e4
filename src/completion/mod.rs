//! The end of a record's way: how its fate reaches the user.
//!
//! The sender fills one [`BatchResult`] a batch. A [`Delivery`] is a record's view of it, read by
//! whichever thread waits. Callbacks go, one [`CompletedBatch`] a batch, to the
//! [`CallbackExecutor`], whose threads are the only ones that run user code. Nothing here knows
//! another station: the sender hands in plain values.

mod callback;
mod flush;
mod future;
mod record_metadata;

#[allow(unused_imports)]
pub(crate) use callback::{
    Callback, CompletedBatch, PendingCallback, in_callback, refuse_in_callback,
};
#[allow(unused_imports)]
pub(crate) use flush::{FlushToken, FlushWait};
pub use future::Delivery;
#[allow(unused_imports)]
pub(crate) use future::{BatchResult, Outcome, RecordErrors, SplitPart, WaitListener};
pub use record_metadata::RecordMetadata;

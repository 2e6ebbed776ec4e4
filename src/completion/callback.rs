//! Callbacks as values, and the knowledge of whether this thread is inside one.

use std::cell::Cell;
use std::fmt;

use super::flush::FlushToken;
use super::future::BatchResult;
use super::record_metadata::{RecordFacts, RecordMetadata};
use crate::error::Error;
use crate::sync::{Arc, thread_local};

/// The user's closure, told of the record's fate.
pub(crate) type UserCallback = Box<dyn FnOnce(Result<&RecordMetadata, &Error>) + Send>;

/// What is to be done once a record is decided.
pub(crate) enum Callback {
    /// The user's closure: called, or dropped where a close has given up.
    User(UserCallback),
    /// The same, with somebody beside it who hears of the record's fate in either case.
    Watched(Box<Watched>),
}

/// A callback and who watches over it.
pub(crate) struct Watched {
    /// Called first, and also if the callback is dropped.
    pub(crate) watcher: UserCallback,
    pub(crate) callback: Option<Callback>,
}

impl Callback {
    /// The callback's turn has come.
    pub(crate) fn call(self, fate: Result<&RecordMetadata, &Error>) {
        match self {
            Self::User(callback) => callback(fate),
            Self::Watched(watched) => {
                (watched.watcher)(fate);
                if let Some(callback) = watched.callback {
                    callback.call(fate);
                }
            }
        }
    }

    /// The callback is dropped without having been called. Runs its user's code all the same: the
    /// watcher, and what the closure holds.
    pub(super) fn give_up(self, fate: Result<&RecordMetadata, &Error>) {
        if let Self::Watched(watched) = self {
            (watched.watcher)(fate);
            if let Some(callback) = watched.callback {
                callback.give_up(fate);
            }
        }
    }
}

impl From<UserCallback> for Callback {
    #[inline]
    fn from(callback: UserCallback) -> Self {
        Self::User(callback)
    }
}

/// A record's callback while the record is under way. Owns one of the backlog's slots.
pub(crate) struct PendingCallback {
    pub(crate) record: RecordFacts,
    pub(crate) run: Callback,
}

impl PendingCallback {
    #[inline]
    pub(crate) fn new(record: RecordFacts, run: Callback) -> Self {
        Self { record, run }
    }
}

impl fmt::Debug for PendingCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PendingCallback({})", self.record.index)
    }
}

/// One decided batch on its way from the sender to the callback executor.
#[derive(Debug)]
pub(crate) struct CompletedBatch {
    /// The batch's result, completed already and not a split: the parts' callbacks are theirs.
    pub(crate) result: Arc<BatchResult>,
    /// In the order in which they are to run: that of the records.
    pub(crate) callbacks: Vec<PendingCallback>,
    /// The flushes that wait for this batch: dropped once its callbacks have run.
    pub(crate) flush: Vec<FlushToken>,
}

/// On whose behalf this thread runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    /// User code outside any callback, or a thread of our own between callbacks.
    Outside,
    /// A callback on an executor's thread.
    Callback,
    /// A callback on the sender's own thread: to wait here is to wait for oneself.
    Inline,
}

thread_local! {
    static CONTEXT: Cell<Context> = const { Cell::new(Context::Outside) };
}

/// Marks this thread as inside callbacks until it is dropped.
pub(super) struct Entered(Context);

impl Context {
    pub(super) fn enter(self) -> Entered {
        Entered(CONTEXT.with(|context| context.replace(self)))
    }

    fn current() -> Self {
        CONTEXT.with(Cell::get)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CONTEXT.with(|context| context.set(self.0));
    }
}

/// Runs a callback on this thread as an executor's thread would, but for its panics.
#[cfg(feature = "testing")]
pub(crate) fn run_here(callback: Callback, fate: Result<&RecordMetadata, &Error>) {
    let _inside = Context::Callback.enter();
    callback.call(fate);
}

/// Whether this thread runs a callback now, under whichever executor.
pub(crate) fn in_callback() -> bool {
    Context::current() != Context::Outside
}

/// Whether this thread runs a callback on the sender's own thread, where nothing may be waited for.
pub(crate) fn in_inline_callback() -> bool {
    Context::current() == Context::Inline
}

/// For calls that would wait for the callback that makes them.
///
/// # Errors
/// [`Error::InCallback`] inside a callback.
pub(crate) fn refuse_in_callback(call: &'static str) -> Result<(), Error> {
    if in_callback() { Err(Error::InCallback { call }) } else { Ok(()) }
}

/// For calls that wait for the sender: only a callback on its own thread is in their way.
///
/// # Errors
/// [`Error::InCallback`] inside such a callback.
pub(crate) fn refuse_in_inline_callback(call: &'static str) -> Result<(), Error> {
    if in_inline_callback() { Err(Error::InCallback { call }) } else { Ok(()) }
}

//! The callback executor: the only place where user code meets this crate's threads.
//!
//! The sender submits a batch and goes on; threads of the executor, or the user's own pool, run
//! its callbacks. The owner of the producer closes it, after the sender has submitted its last.

use std::fmt;
use std::io;
use std::process;
use std::time::Duration;

use super::callback::{CompletedBatch, Context, in_callback};
use super::events::Guests;
use super::flush::FlushToken;
use super::lane::Lane;
use super::log_relay::LogEvent;
use super::pool::{Limits, Pool, ThreadState};
use super::slots::Slots;
use crate::claims;
use crate::event::ProducerEvent;
use crate::sync::thread::JoinHandle;
use crate::sync::{Arc, Mutex};
use crate::threads::spawn_named;
use crate::time::Clock;
#[cfg(test)]
use crate::time::MonoTime;

/// A thread pool of the program's own, to run callbacks on in place of the producer's threads.
///
/// `execute` is called on a thread of the producer that does nothing else, with the callbacks of
/// one batch at a time. It may run the task at once or hand it to another thread. A partition's
/// next task comes only after its last one has run, so callbacks of one partition keep their order
/// on any pool. A task that is dropped counts as run: its callbacks are dropped with it, and
/// counted in [`CloseReport::callbacks_left`](crate::CloseReport::callbacks_left) and in the
/// metrics.
///
/// ```
/// use kafka_producer::{CallbackTask, Executor};
/// use std::sync::mpsc;
///
/// /// Hands tasks to whoever reads the channel.
/// struct Channel(mpsc::Sender<CallbackTask>);
///
/// impl Executor for Channel {
///     fn execute(&self, task: CallbackTask) {
///         // Should the reader be gone, the task is dropped, and its callbacks with it.
///         let _ = self.0.send(task);
///     }
/// }
///
/// let (tasks, work) = mpsc::channel();
/// let executor = Channel(tasks);
/// # drop(executor);
/// std::thread::spawn(move || work.into_iter().for_each(CallbackTask::run)).join().unwrap();
/// ```
pub trait Executor: Send + Sync {
    /// Runs the task, or has it run.
    fn execute(&self, task: CallbackTask);
}

/// The callbacks of one batch of records, ready to be run by an [`Executor`].
pub struct CallbackTask {
    pool: Arc<Pool>,
    lane: Arc<Lane>,
    /// `None` once it has been run.
    batch: Option<CompletedBatch>,
}

impl CallbackTask {
    pub(super) fn new(pool: Arc<Pool>, lane: Arc<Lane>, batch: CompletedBatch) -> Self {
        Self { pool, lane, batch: Some(batch) }
    }

    /// Runs the callbacks, one after another, on this thread. Their panics are caught. If the
    /// producer's close has given up waiting for them, they are dropped instead.
    pub fn run(mut self) {
        if let Some(batch) = self.batch.take() {
            self.pool.run(batch, Context::Callback);
        }
    }

    /// How many callbacks this task has.
    pub fn callbacks(&self) -> usize {
        self.batch.as_ref().map_or(0, |batch| batch.callbacks.len())
    }
}

/// Run or not, the partition's next batch gets its turn.
impl Drop for CallbackTask {
    fn drop(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.pool.discard(batch);
        }
        if self.lane.finish() {
            self.pool.schedule(self.lane.clone());
        }
    }
}

impl fmt::Debug for CallbackTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallbackTask").field("callbacks", &self.callbacks()).finish()
    }
}

/// Who runs callbacks.
#[derive(Clone)]
pub(crate) enum ExecutorKind {
    /// So many threads of the producer's own.
    Threads(usize),
    /// The sender's thread, which sends nothing meanwhile: what Java does, kept to show it.
    Inline,
    /// The user's pool, fed by one thread of the producer's own.
    Custom(Arc<dyn Executor>),
}

impl fmt::Debug for ExecutorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Threads(threads) => write!(f, "Threads({threads})"),
            Self::Inline => f.write_str("Inline"),
            Self::Custom(_) => f.write_str("Custom"),
        }
    }
}

/// What `close` left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CallbacksLeft {
    /// Callbacks that had not finished at the deadline; those not begun never will be. And all that
    /// were dropped before, as by the user's executor.
    pub(crate) callbacks: usize,
    /// Threads that were in user code at the deadline and were detached.
    pub(crate) threads_stuck: usize,
}

/// Runs callbacks away from the sender.
pub(crate) struct CallbackExecutor {
    pool: Arc<Pool>,
    is_inline: bool,
    /// Without threads, until the end: what they would have.
    guests: Mutex<Guests>,
    has_listener: bool,
    threads: Mutex<Vec<JoinHandle<()>>>,
    clock: Clock,
    /// The process whose threads they are; a forked child has none of them.
    process: u32,
}

impl CallbackExecutor {
    /// Close gives up on callbacks this long before its deadline, or an eighth of its time if
    /// that is less, so that a thread in a short callback still ends within the deadline.
    const LAST_CALL: Duration = Duration::from_millis(100);

    /// Starts the threads, named `<name>-callback-<number>`. `slots` are freed as callbacks begin.
    ///
    /// # Errors
    /// The operating system's, if it has no thread to give.
    pub(crate) fn start(
        kind: ExecutorKind,
        guests: Guests,
        name: &str,
        slots: Arc<Slots>,
    ) -> io::Result<Self> {
        let (threads, custom) = match kind {
            ExecutorKind::Threads(threads) => (threads.max(1), None),
            ExecutorKind::Inline => (0, None),
            ExecutorKind::Custom(executor) => (1, Some(executor)),
        };
        let executor = Self {
            pool: Arc::new(Pool::new(threads, slots)),
            is_inline: threads == 0,
            guests: Mutex::new(if threads == 0 { guests.clone() } else { Guests::default() }),
            has_listener: guests.listener.is_some(),
            threads: Mutex::new(Vec::with_capacity(threads)),
            clock: Clock::system(),
            process: process::id(),
        };
        // Should one of them fail to start, dropping the executor ends those before it.
        for number in 0..threads {
            let (pool, custom, guests) = (executor.pool.clone(), custom.clone(), guests.clone());
            let body = move || pool.serve(number, custom, guests);
            let thread = spawn_named(format!("{name}-callback-{number}"), body)?;
            executor.threads.lock().push(thread);
        }
        executor.invariants();
        Ok(executor)
    }

    /// Until they are joined there are as many threads as the pool has places, and only where
    /// there are none does it keep itself what they would drop.
    fn invariants(&self) {
        if !claims::are_checked() {
            return;
        }
        let threads = self.threads.lock().len();
        assert!(threads == 0 || threads == self.pool.thread_count(), "{threads} threads");
        assert_eq!(self.is_inline, self.pool.thread_count() == 0);
        let guests = self.guests.lock();
        let is_host = guests.listener.is_some() || guests.kept.is_some();
        assert!(self.is_inline || !is_host, "guests that the threads have, too");
    }

    /// Hands a decided batch over; [`tell`](Self::tell) has it looked at. Never blocks and, save
    /// under [`ExecutorKind::Inline`], runs no user code. Flushes that wait for a batch without
    /// callbacks wait for it no longer.
    pub(crate) fn submit(&self, lane: &Arc<Lane>, batch: CompletedBatch) {
        if batch.callbacks.is_empty() {
            return;
        }
        debug_assert!(batch.result.is_done(), "{:?} has no outcome yet", batch.result);
        self.pool.on_submitted(batch.callbacks.len());
        if self.is_inline {
            self.pool.run(batch, Context::Inline);
        } else if lane.push(batch) {
            self.pool.schedule_untold(lane.clone());
        }
    }

    /// Wakes the threads for what was submitted: once a turn, since it costs more than a callback.
    pub(crate) fn tell(&self) {
        self.pool.tell();
    }

    /// Has a flush wait for a partition's callbacks that were submitted before it began.
    pub(crate) fn join_flush(&self, lane: &Lane, flush: &FlushToken) {
        lane.join(flush);
    }

    /// Has a line logged on the executor's side, in order. Never blocks; if the log can't keep up,
    /// lines are lost, and their number is logged.
    pub(crate) fn log(&self, event: LogEvent) {
        if self.pool.logs.push(event) {
            self.drain_logs();
        }
    }

    /// Has the program's listener told, if there is one, in order with the log.
    pub(crate) fn tell_event(&self, event: ProducerEvent) {
        if self.has_listener && self.pool.logs.push_event(event) {
            self.drain_logs();
        }
    }

    fn drain_logs(&self) {
        if self.is_inline {
            let _inside = Context::Inline.enter();
            let listener = self.guests.lock().listener.clone();
            self.pool.logs.drain_rest(listener.as_ref());
        } else {
            self.pool.schedule_logs();
        }
    }

    /// The bound on callbacks not yet begun.
    pub(crate) fn slots(&self) -> &Arc<Slots> {
        self.pool.slots()
    }

    /// Callbacks submitted that have neither finished nor been dropped.
    pub(crate) fn outstanding(&self) -> usize {
        self.pool.outstanding()
    }

    /// Panics of callbacks, and of the user's executor, caught so far.
    pub(crate) fn panicked(&self) -> u64 {
        self.pool.panicked()
    }

    /// Callbacks dropped without having been run, so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.pool.dropped()
    }

    /// The sender's last act: no batch is submitted any more. Lets the threads end by themselves
    /// once all callbacks have run. Waits for nothing.
    pub(crate) fn expect_no_more(&self) {
        self.pool.expect_no_more();
        let guests = std::mem::take(&mut *self.guests.lock());
        if self.is_inline {
            let _inside = Context::Inline.enter();
            self.pool.drop_guests(guests);
        }
    }

    /// Waits until the sender has submitted its last, all callbacks have run, and the threads have
    /// ended. At the deadline the remaining callbacks are given up, and a thread in user code is
    /// detached. Of several calls at the same time the earliest deadline counts for all; a later
    /// one finds nothing to do.
    ///
    /// Call it outside callbacks.
    pub(crate) fn close(&self, timeout: Duration) -> CallbacksLeft {
        debug_assert!(!in_callback(), "a callback would wait for itself");
        if self.is_foreign() {
            return CallbacksLeft::default();
        }
        let begun = self.clock.now();
        let last_call = Self::LAST_CALL.min(timeout / 8);
        self.pool.limit(Limits { last_call: begun + (timeout - last_call), end: begun + timeout });
        if !self.pool.wait_for_end(&self.clock, |limits| limits.last_call) {
            self.pool.abandon();
            self.pool.wait_for_end(&self.clock, |limits| limits.end);
        }
        // Should the sender itself be stuck, in a callback under `Inline`, it finds the end there.
        self.pool.abandon();
        let threads = self.pool.wait_for_idle_threads();
        self.join_ended(&threads);
        let dropped = usize::try_from(self.pool.dropped()).unwrap_or(usize::MAX);
        CallbacksLeft {
            callbacks: self.pool.outstanding().saturating_add(dropped),
            threads_stuck: threads.iter().filter(|state| state.may_be_in_user_code()).count(),
        }
    }

    /// Whether a close waits, or has waited.
    #[cfg(test)]
    pub(super) fn is_being_closed(&self) -> bool {
        self.pool.limits().end < MonoTime::MAX
    }

    /// In a model: waits until all threads have ended, detached ones too.
    #[cfg(all(test, loom))]
    pub(super) fn wait_for_threads(&self) {
        assert!(self.pool.wait_for_end(&self.clock, |_| MonoTime::MAX));
    }

    /// Joins the threads that have ended and detaches the others, if no other call has done so.
    fn join_ended(&self, states: &[ThreadState]) {
        let threads = std::mem::take(&mut *self.threads.lock());
        self.invariants();
        for (thread, state) in threads.into_iter().zip(states) {
            if *state == ThreadState::Ended && thread.join().is_err() {
                debug_assert!(false, "user code's panics are caught, and ours are defects");
            }
        }
    }

    fn is_foreign(&self) -> bool {
        process::id() != self.process
    }
}

/// Waits for nothing: the threads end once all callbacks have run.
impl Drop for CallbackExecutor {
    fn drop(&mut self) {
        if self.is_foreign() {
            // The handles name threads that do not exist here, and a lock may be held by one.
            std::mem::forget(std::mem::take(self.threads.get_mut()));
        } else {
            self.pool.expect_no_more();
        }
    }
}

impl fmt::Debug for CallbackExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallbackExecutor({} outstanding)", self.outstanding())
    }
}

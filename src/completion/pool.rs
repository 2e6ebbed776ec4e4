//! The executor's inside: the run queue, the threads that serve it, and the accounts.
//!
//! The sender puts lanes into the run queue; a thread takes a lane, runs one batch of it, and puts
//! it back if it has more, so that no partition starves another. Locks are held for a push or a
//! pop, and never while user code runs.

use std::collections::VecDeque;
use std::time::Duration;

use super::callback::{Callback, CompletedBatch, Context, PendingCallback};
use super::events::Guests;
use super::executor::{CallbackTask, Executor};
use super::flush::FlushToken;
use super::future::BatchResult;
use super::lane::Lane;
use super::log_relay::{LogRelay, log_now};
use super::panics::guarded;
use super::record_metadata::RecordMetadata;
use super::slots::Slots;
use crate::claims;
use crate::error::Error;
use crate::planted::{Defect, is_planted};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Arc, Condvar, Mutex};
use crate::time::{Clock, MonoTime};

/// What the executor and its threads share. A thread that is stuck for ever keeps this alive, and
/// nothing else of the producer.
#[derive(Debug)]
pub(super) struct Pool {
    run_queue: Mutex<RunQueue>,
    /// Signalled when there is work, or the end.
    work: Condvar,
    /// Work was queued of which no thread was told. `Relaxed`: it is set after the work was queued,
    /// under a lock that whoever takes the mark off takes next.
    untold: AtomicBool,
    /// Signalled when a thread changes its state while the pool ends.
    ending: Condvar,
    slots: Arc<Slots>,
    pub(super) logs: LogRelay,
    /// Callbacks submitted that have neither finished nor been dropped.
    outstanding: AtomicUsize,
    /// The sender has submitted its last batch: no thread ends before, so that what comes late has
    /// one to go to. `SeqCst`, as `outstanding` and `abandoned`: whichever of the last callback,
    /// the last batch and the end of a close's time comes last sees the others, and stops the
    /// threads.
    complete: AtomicBool,
    /// A close's time is up: callbacks are dropped, not run.
    abandoned: AtomicBool,
    panicked: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct RunQueue {
    ready: VecDeque<Work>,
    /// Threads end once `ready` is empty.
    stopping: bool,
    threads: Vec<ThreadState>,
    limits: Limits,
}

/// Until when a close waits; of several at the same time, the earliest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Callbacks that have not begun by then are given up.
    pub(super) last_call: MonoTime,
    /// Threads that have not ended by then are left to themselves.
    pub(super) end: MonoTime,
}

#[derive(Debug)]
enum Work {
    Lane(Arc<Lane>),
    Logs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ThreadState {
    /// Waits for work, or is about to look for some.
    Idle,
    /// May be in user code.
    Busy,
    /// Serves no more; may still be dropping the user's executor.
    Leaving,
    Ended,
}

impl RunQueue {
    /// A lane is here once, whatever is queued has a thread to serve it, and no thread leaves
    /// before its time. Looked at for what was queued last.
    fn invariants(&self) {
        if !claims::are_checked() || is_planted(Defect::TwoInOneLane) {
            return;
        }
        let same = |a: &Work| match (a, self.ready.back()) {
            (Work::Lane(a), Some(Work::Lane(b))) => Arc::ptr_eq(a, b),
            (Work::Logs, Some(Work::Logs)) => true,
            _ => false,
        };
        assert!(self.ready.iter().filter(|work| same(work)).count() <= 1, "queued twice");
        let serving = self.threads.iter().any(|state| !state.serves_no_more());
        assert!(serving || self.ready.is_empty(), "nobody serves {:?}", self.ready);
        assert!(self.stopping || !self.threads.contains(&ThreadState::Leaving), "{self:?}");
        assert!(self.limits.last_call <= self.limits.end, "{:?}", self.limits);
    }
}

impl ThreadState {
    fn serves_no_more(self) -> bool {
        matches!(self, Self::Leaving | Self::Ended)
    }

    pub(super) fn may_be_in_user_code(self) -> bool {
        matches!(self, Self::Busy | Self::Leaving)
    }
}

impl Pool {
    /// What a thread gets for its last steps.
    const LEAVE: Duration = Duration::from_millis(100);

    pub(super) fn new(threads: usize, slots: Arc<Slots>) -> Self {
        let run_queue = RunQueue {
            ready: VecDeque::new(),
            stopping: false,
            threads: vec![ThreadState::Idle; threads],
            limits: Limits { last_call: MonoTime::MAX, end: MonoTime::MAX },
        };
        Self {
            run_queue: Mutex::new(run_queue),
            work: Condvar::new(),
            untold: AtomicBool::new(false),
            ending: Condvar::new(),
            slots,
            logs: LogRelay::new(),
            outstanding: AtomicUsize::new(0),
            complete: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            panicked: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// How many threads serve, or have served.
    pub(super) fn thread_count(&self) -> usize {
        self.run_queue.lock().threads.len()
    }

    pub(super) fn slots(&self) -> &Arc<Slots> {
        &self.slots
    }

    pub(super) fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::SeqCst)
    }

    pub(super) fn panicked(&self) -> u64 {
        self.panicked.load(Ordering::Relaxed)
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::SeqCst)
    }

    /// Counts callbacks in, before their lane is scheduled.
    pub(super) fn on_submitted(&self, callbacks: usize) {
        self.outstanding.fetch_add(callbacks, Ordering::SeqCst);
    }

    /// Has a lane served. With no thread left to do so its batches are dropped here, which is on a
    /// thread of the user's pool: ours outlive the sender, unless a defect ends them.
    pub(super) fn schedule(self: &Arc<Self>, lane: Arc<Lane>) {
        self.schedule_untold(lane);
        self.tell();
    }

    /// As [`schedule`](Self::schedule), but wakes nobody: [`tell`](Self::tell) does.
    pub(super) fn schedule_untold(self: &Arc<Self>, lane: Arc<Lane>) {
        if let Some(Work::Lane(lane)) = self.push(Work::Lane(lane)) {
            let mut has_more = true;
            while has_more {
                lane.take().into_iter().for_each(|batch| self.discard(batch));
                has_more = lane.finish();
            }
        }
    }

    /// Has the log relay drained.
    pub(super) fn schedule_logs(&self) {
        self.push(Work::Logs);
        self.tell();
    }

    /// Wakes as many threads as there is work for. A busy one looks for more by itself.
    pub(super) fn tell(&self) {
        if !self.untold.swap(false, Ordering::Relaxed) {
            return;
        }
        let queue = self.run_queue.lock();
        let idle = queue.threads.iter().filter(|state| **state == ThreadState::Idle).count();
        let wanted = queue.ready.len().min(idle);
        drop(queue);
        for _ in 0..wanted {
            self.work.notify_one();
        }
    }

    /// Gives the work back if all threads have ended.
    fn push(&self, work: Work) -> Option<Work> {
        {
            let mut queue = self.run_queue.lock();
            if queue.threads.iter().all(|state| state.serves_no_more()) {
                return Some(work);
            }
            queue.ready.push_back(work);
            self.invariants(&queue);
        }
        self.untold.store(true, Ordering::Relaxed);
        None
    }

    /// A thread's life: serves the run queue until the pool stops. With a user's executor, one
    /// thread hands batches on to it.
    pub(super) fn serve(
        self: &Arc<Self>,
        me: usize,
        executor: Option<Arc<dyn Executor>>,
        guests: Guests,
    ) {
        let _ended = EndedWhenDropped { pool: self, me };
        while let Some(work) = self.next(me) {
            match work {
                Work::Lane(lane) => self.serve_lane(lane, executor.as_deref()),
                Work::Logs => {
                    let _inside = Context::Callback.enter();
                    if self.logs.drain_turn(guests.listener.as_ref()) {
                        self.schedule_logs();
                    }
                }
            }
        }
        let _inside = Context::Callback.enter();
        if let Err(panic) = guarded(|| drop(executor)) {
            self.on_panic(&format!("the callback executor panicked: {panic}"));
        }
        self.drop_guests(guests);
    }

    /// Where user code may run.
    pub(super) fn drop_guests(&self, guests: Guests) {
        let Guests { listener, kept } = guests;
        if let Err(panic) = guarded(|| drop((listener, kept))) {
            self.on_panic(&format!(
                "a closure of the program's panicked as it was dropped: {panic}"
            ));
        }
    }

    fn serve_lane(self: &Arc<Self>, lane: Arc<Lane>, executor: Option<&dyn Executor>) {
        let Some(batch) = lane.take() else {
            debug_assert!(false, "an empty lane was scheduled");
            return;
        };
        let task = CallbackTask::new(self.clone(), lane, batch);
        match executor {
            Some(executor) if !self.is_abandoned() => {
                if let Err(panic) = guarded(|| executor.execute(task)) {
                    self.on_panic(&format!("the callback executor panicked: {panic}"));
                }
            }
            _ => task.run(),
        }
    }

    /// The next piece of work, or `None` once there is none and the pool stops.
    fn next(&self, me: usize) -> Option<Work> {
        let mut queue = self.run_queue.lock();
        queue.threads[me] = ThreadState::Idle;
        loop {
            let work = queue.ready.pop_front();
            if work.is_none() && !queue.stopping {
                self.work.wait(&mut queue);
                continue;
            }
            let state = if work.is_some() { ThreadState::Busy } else { ThreadState::Leaving };
            queue.threads[me] = state;
            self.invariants(&queue);
            if queue.stopping {
                self.ending.notify_all();
            }
            return work;
        }
    }

    /// Runs a batch's callbacks on this thread; drops them instead once the pool is abandoned.
    pub(super) fn run(&self, batch: CompletedBatch, context: Context) {
        let _inside = context.enter();
        self.settle(batch, |result, callback| {
            if self.is_abandoned() {
                self.drop_one(result, callback);
            } else {
                self.call(result, callback);
            }
        });
    }

    /// Drops a batch's callbacks without running them.
    pub(super) fn discard(&self, batch: CompletedBatch) {
        let _inside = Context::Callback.enter();
        self.settle(batch, |result, callback| self.drop_one(result, callback));
    }

    /// Takes each callback of a batch off the accounts: its slot before `end`, the rest after.
    fn settle(&self, batch: CompletedBatch, end: impl Fn(&BatchResult, PendingCallback)) {
        let CompletedBatch { result, callbacks, mut flush } = batch;
        for callback in callbacks {
            self.slots.release();
            end(&result, callback);
            flush.iter_mut().for_each(FlushToken::on_callback);
            self.on_finished();
        }
    }

    fn call(&self, result: &BatchResult, callback: PendingCallback) {
        if let Err(panic) = told_of(callback, result, Callback::call) {
            let (topic, partition) = (result.topic(), result.partition());
            self.on_panic(&format!("a callback of {topic}-{partition} panicked: {panic}"));
        }
    }

    fn drop_one(&self, result: &BatchResult, callback: PendingCallback) {
        if let Err(panic) = told_of(callback, result, Callback::give_up) {
            self.on_panic(&format!("a callback that was dropped panicked: {panic}"));
        }
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }

    fn on_panic(&self, text: &str) {
        self.panicked.fetch_add(1, Ordering::Relaxed);
        log_now(log::Level::Error, text);
    }

    fn on_finished(&self) {
        let before = self.outstanding.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before > 0);
        if before == 1 && self.complete.load(Ordering::SeqCst) {
            self.stop_if_due();
        }
    }

    /// No more batches come: the threads end once all callbacks have run. Waits for nothing.
    pub(super) fn expect_no_more(&self) {
        self.complete.store(true, Ordering::SeqCst);
        self.tell();
        self.stop_if_due();
    }

    fn stop_if_due(&self) {
        let has_all = self.complete.load(Ordering::SeqCst);
        if has_all && (self.outstanding() == 0 || self.is_abandoned()) {
            let mut queue = self.run_queue.lock();
            queue.stopping = true;
            self.invariants(&queue);
            drop(queue);
            self.work.notify_all();
        }
    }

    /// Threads are stopped once nothing comes any more, and nothing is left that is to be run.
    fn invariants(&self, queue: &RunQueue) {
        if !claims::are_checked() {
            return;
        }
        queue.invariants();
        let may_stop = || {
            let has_all = self.complete.load(Ordering::SeqCst);
            has_all && (self.outstanding() == 0 || self.is_abandoned())
        };
        assert!(!queue.stopping || may_stop(), "stopped with {} to be run", self.outstanding());
    }

    /// From now on callbacks are dropped and not run.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
        self.stop_if_due();
    }

    fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::SeqCst)
    }

    /// Has every close wait no longer than this.
    pub(super) fn limit(&self, limits: Limits) {
        let mut queue = self.run_queue.lock();
        queue.limits.last_call = queue.limits.last_call.min(limits.last_call);
        queue.limits.end = queue.limits.end.min(limits.end);
        self.invariants(&queue);
        drop(queue);
        self.ending.notify_all();
    }

    #[cfg(test)]
    pub(super) fn limits(&self) -> Limits {
        self.run_queue.lock().limits
    }

    /// Waits until all threads have ended; false if some have not by that one of the limits.
    pub(super) fn wait_for_end(&self, clock: &Clock, until: impl Fn(&Limits) -> MonoTime) -> bool {
        let mut queue = self.run_queue.lock();
        while queue.threads.iter().any(|state| *state != ThreadState::Ended) {
            let left = until(&queue.limits).since(clock.now());
            if left.is_zero() {
                return false;
            }
            self.ending.wait_for(&mut queue, left);
        }
        true
    }

    /// After [`abandon`](Self::abandon): waits until each thread has ended or is in user code. That
    /// takes no more than a thread's wake-up, or [`LEAVE`](Self::LEAVE) if the user's executor
    /// hangs while it is dropped. While the sender may still submit none ends, nor is waited for.
    pub(super) fn wait_for_idle_threads(&self) -> Vec<ThreadState> {
        let mut queue = self.run_queue.lock();
        let any_is =
            |state| move |queue: &mut RunQueue| queue.stopping && queue.threads.contains(&state);
        self.ending.wait_while(&mut queue, any_is(ThreadState::Idle));
        self.ending.wait_while_for(&mut queue, any_is(ThreadState::Leaving), Self::LEAVE);
        queue.threads.clone()
    }
}

/// Ends a callback with its record's fate. `Err` has the panic's message if that panicked.
fn told_of(
    callback: PendingCallback,
    result: &BatchResult,
    end: impl FnOnce(Callback, Result<&RecordMetadata, &Error>),
) -> Result<(), String> {
    let undecided;
    let fate = match result.fate_of(callback.record) {
        Some(fate) => fate,
        None => {
            debug_assert!(false, "{result:?}: callbacks belong to a decided batch");
            undecided = Error::Fatal("a callback was due before its record was decided".into());
            Err(&undecided)
        }
    };
    guarded(|| match &fate {
        Ok(metadata) => end(callback.run, Ok(metadata)),
        Err(error) => end(callback.run, Err(error)),
    })
}

/// Tells that a thread has ended, also if a defect of ours made it panic.
struct EndedWhenDropped<'a> {
    pool: &'a Pool,
    me: usize,
}

impl Drop for EndedWhenDropped<'_> {
    fn drop(&mut self) {
        self.pool.run_queue.lock().threads[self.me] = ThreadState::Ended;
        self.pool.ending.notify_all();
    }
}

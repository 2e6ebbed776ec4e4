//! The shared result of a batch, and a record's handle on it.
//!
//! The sender fills a [`BatchResult`] once; user threads read or await it through [`Delivery`].
//! Completing a batch costs one lock, whatever the number of its records; a handle that nobody
//! waits on costs nothing then. The lock is a leaf, and is held for no user code.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::callback::refuse_in_inline_callback;
use super::record_metadata::{RecordFacts, RecordMetadata};
use crate::claims;
use crate::error::Error;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::{Arc, Condvar, Mutex, OnceLock};
use crate::time::{Clock, MonoTime};

/// Hears that a thread begins to wait for a record, so that the sender may end its batch's linger.
/// Called on the waiting thread with no lock held, once a wait.
pub(crate) trait WaitListener: Send + Sync {
    /// Refuses a wait that could never end, as in a forked child, where no sender runs.
    fn may_wait(&self) -> Result<(), Error> {
        Ok(())
    }

    /// A thread has been counted as a waiter and is about to block.
    fn on_wait(&self);
}

/// What became of a batch.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is in the log (or, with acks=0, was written to the socket).
    Delivered {
        /// The first record's offset; -1 if it isn't known (acks=0, a forgotten duplicate).
        base_offset: i64,
        /// The broker's time in milliseconds, if the topic's timestamps are the broker's.
        log_append_time: Option<i64>,
    },
    /// All records share one failure.
    Failed(Error),
    /// The broker named the records at fault (KIP-467): they have errors of their own.
    FailedEach(Box<RecordErrors>),
    /// The batch was too large and was split: a record's fate is decided by the part that holds
    /// it, which may be split again. Parts are in order; the first one's `first` is 0.
    Split(Arc<[SplitPart]>),
}

impl Outcome {
    /// The failure of a record; none if it was delivered, or is another batch's by now.
    fn error_of(&self, index: u32) -> Option<&Error> {
        match self {
            Self::Delivered { .. } | Self::Split(_) => None,
            Self::Failed(error) => Some(error),
            Self::FailedEach(errors) => Some(errors.named.get(&index).unwrap_or(&errors.rest)),
        }
    }
}

/// The failures of a batch whose guilty records are known.
#[derive(Debug)]
pub(crate) struct RecordErrors {
    /// The failure of each record that isn't named.
    pub(crate) rest: Error,
    /// The failures of named records, by index in the batch.
    pub(crate) named: BTreeMap<u32, Error>,
}

/// A part of a split batch.
#[derive(Debug)]
pub(crate) struct SplitPart {
    /// The index, in the batch that was split, of this part's first record.
    pub(crate) first: u32,
    /// The part's own result.
    pub(crate) result: Arc<BatchResult>,
}

/// What the records of a batch share: filled once by the sender.
pub(crate) struct BatchResult {
    topic: Arc<str>,
    partition: i32,
    listener: Arc<dyn WaitListener>,
    /// Written under `lock`, so that a waiter that found it empty there is asleep when it is told.
    outcome: OnceLock<Outcome>,
    lock: Mutex<()>,
    decided: Condvar,
    /// Threads that wait now. `Relaxed`: the listener orders it, as a queue does by its lock, which
    /// a thread that was counted takes to tell, and the sender to look.
    waiters: AtomicU32,
    /// As the how manyth of a simulation's batches it was decided, and when.
    #[cfg(all(test, not(loom)))]
    decided_as: OnceLock<(u64, MonoTime)>,
}

impl BatchResult {
    pub(crate) fn new(topic: Arc<str>, partition: i32, listener: Arc<dyn WaitListener>) -> Self {
        Self {
            topic,
            partition,
            listener,
            outcome: OnceLock::new(),
            lock: Mutex::new(()),
            decided: Condvar::new(),
            waiters: AtomicU32::new(0),
            #[cfg(all(test, not(loom)))]
            decided_as: OnceLock::new(),
        }
    }

    /// Decides the batch and wakes whoever waits for it. Exactly once: a second call is a defect,
    /// and does nothing outside debug builds.
    pub(crate) fn complete(&self, outcome: Outcome) {
        let is_first = {
            let _leaf = self.lock.lock();
            self.outcome.set(outcome).is_ok()
        };
        #[cfg(all(test, not(loom)))]
        crate::sim::on_decided(is_first).map(|decision| self.decided_as.set(decision));
        debug_assert!(is_first, "{self:?} completed twice");
        self.invariants();
        self.decided.notify_all();
    }

    /// Parts begin with the first record, come in order, and are of the same partition.
    fn invariants(&self) {
        if !claims::are_checked() {
            return;
        }
        if let Some(Outcome::Split(parts)) = self.outcome.get() {
            assert!(parts.first().is_some_and(|part| part.first == 0), "{self:?}");
            assert!(parts.is_sorted_by(|a, b| a.first < b.first), "{self:?}");
            let place = |result: &Self| (Arc::clone(&result.topic), result.partition);
            assert!(parts.iter().all(|part| place(&part.result) == place(self)), "{self:?}");
        }
    }

    /// How many threads wait for a record of this batch now.
    pub(crate) fn waiters(&self) -> u32 {
        self.waiters.load(Ordering::Relaxed)
    }

    /// Whether the batch is decided. Costs one load.
    pub(crate) fn is_done(&self) -> bool {
        self.outcome.get().is_some()
    }

    pub(crate) fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    pub(crate) fn partition(&self) -> i32 {
        self.partition
    }

    /// Follows a record through splits to where it is decided, or is still to be. A loop, since a
    /// record may be split off as often as there are records.
    fn trace(&self, index: u32) -> Fate<'_> {
        let (mut result, mut index) = (self, index);
        loop {
            match result.outcome.get() {
                None => return Fate::Open(result),
                Some(Outcome::Split(parts)) => {
                    let after = parts.partition_point(|part| part.first <= index);
                    let part = &parts[after.saturating_sub(1)];
                    index -= part.first;
                    result = &part.result;
                }
                Some(outcome) => return Fate::Decided { outcome, index },
            }
        }
    }

    /// The fate of one record, or `None` while it is open.
    pub(super) fn fate_of(&self, record: RecordFacts) -> Option<Result<RecordMetadata, &Error>> {
        let Fate::Decided { outcome, index } = self.trace(record.index) else { return None };
        Some(match outcome {
            Outcome::Delivered { base_offset, log_append_time } => Ok(RecordMetadata::new(
                self.topic.clone(),
                self.partition,
                *base_offset,
                *log_append_time,
                RecordFacts { index, ..record },
            )),
            failed => Err(failed.error_of(index)?),
        })
    }

    /// Blocks until this batch is decided. Errors: the listener's, or [`Error::WaitTimeout`].
    fn block(&self, limit: Option<&Limit>) -> Result<(), Error> {
        self.listener.may_wait()?;
        let _counted = Waiting::count(&self.waiters);
        self.listener.on_wait();
        let mut leaf = self.lock.lock();
        while !self.is_done() {
            match limit.map(Limit::left) {
                None => self.decided.wait(&mut leaf),
                Some(Duration::ZERO) => return Err(Error::WaitTimeout),
                Some(left) => {
                    self.decided.wait_for(&mut leaf, left);
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for BatchResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = if self.is_done() { "decided" } else { "open" };
        write!(f, "BatchResult({}-{}, {done})", self.topic, self.partition)
    }
}

/// Takes nested parts apart in a loop: a batch that was split again and again would otherwise be
/// dropped by as deep a recursion.
impl Drop for BatchResult {
    fn drop(&mut self) {
        let Some(Outcome::Split(parts)) = self.outcome.take() else { return };
        let mut nested = vec![parts];
        while let Some(mut parts) = nested.pop() {
            for part in Arc::get_mut(&mut parts).into_iter().flatten() {
                let alone = Arc::get_mut(&mut part.result);
                if let Some(Outcome::Split(deeper)) = alone.and_then(|r| r.outcome.take()) {
                    nested.push(deeper);
                }
            }
        }
    }
}

/// Where following a record through splits ended.
enum Fate<'a> {
    Open(&'a BatchResult),
    Decided { outcome: &'a Outcome, index: u32 },
}

/// Counts a waiting thread for as long as it waits.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn count(waiters: &'a AtomicU32) -> Self {
        waiters.fetch_add(1, Ordering::Relaxed);
        Self(waiters)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The end of a wait that may pass from a batch to a part of it.
struct Limit {
    clock: Clock,
    deadline: MonoTime,
}

impl Limit {
    fn after(timeout: Duration) -> Self {
        let clock = Clock::system();
        let deadline = clock.now() + timeout;
        Self { clock, deadline }
    }

    fn left(&self) -> Duration {
        self.deadline.since(self.clock.now())
    }
}

/// A handle on an accepted record: tells whether, and where, it was delivered.
///
/// It can be sent to and shared between threads. Dropping it cancels nothing: the record goes its
/// way, and the handle that nobody waits on has cost nothing.
#[derive(Debug)]
pub struct Delivery {
    result: Arc<BatchResult>,
    record: RecordFacts,
}

impl Delivery {
    #[inline]
    pub(crate) fn new(result: Arc<BatchResult>, record: RecordFacts) -> Self {
        Self { result, record }
    }

    /// Waits until the record is delivered or has failed. That takes `delivery.timeout.ms` at
    /// most, as each record is decided by then; a batch that lingers is sent early if each of its
    /// records is waited for.
    ///
    /// On a callback thread this works, but holds up the callbacks behind it; with the inline
    /// executor, where it would wait for itself, it is refused unless the record is decided.
    ///
    /// # Errors
    /// [`Error::Delivery`] if the record failed, [`Error::InCallback`] as said above, and
    /// [`Error::Forked`] in a child process, where nobody would ever decide it.
    pub fn wait(&self) -> Result<RecordMetadata, Error> {
        self.wait_within(None)
    }

    /// Like [`wait`](Self::wait), for `timeout` at most.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and [`Error::WaitTimeout`] if the record is not decided by then;
    /// it is still on its way.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<RecordMetadata, Error> {
        self.wait_within(Some(timeout))
    }

    /// The record's fate if it is decided, without waiting; `None` while it is on its way.
    pub fn try_get(&self) -> Option<Result<RecordMetadata, Error>> {
        self.result.fate_of(self.record).map(|fate| fate.map_err(Error::clone))
    }

    /// Whether the record was delivered, if that is decided; `None` while it is on its way. As
    /// [`try_get`](Self::try_get) without where the record lies: for loops that look after many
    /// handles, since it copies nothing.
    #[inline]
    pub fn check(&self) -> Option<Result<(), &Error>> {
        match self.result.outcome.get() {
            None => None,
            Some(Outcome::Delivered { .. }) => Some(Ok(())),
            Some(_) => self.check_whole(),
        }
    }

    /// As [`check`](Self::check), also where a record's fate is not its batch's.
    #[inline(never)]
    fn check_whole(&self) -> Option<Result<(), &Error>> {
        match self.result.trace(self.record.index) {
            Fate::Open(_) => None,
            Fate::Decided { outcome, index } => Some(outcome.error_of(index).map_or(Ok(()), Err)),
        }
    }

    /// In a simulation: as the how manyth of all batches the record's was decided, and when.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn decided_as(&self) -> Option<(u64, MonoTime)> {
        let (mut result, mut index) = (&self.result, self.record.index);
        while let Some(Outcome::Split(parts)) = result.outcome.get() {
            let part = &parts[parts.partition_point(|part| part.first <= index) - 1];
            index -= part.first;
            result = &part.result;
        }
        result.decided_as.get().copied()
    }

    /// The topic that the record was sent to.
    pub fn topic(&self) -> &str {
        &self.result.topic
    }

    /// The partition that the record was given.
    pub fn partition(&self) -> i32 {
        self.result.partition
    }

    /// The timestamp that the record was given, in milliseconds since 1970. The log's may differ:
    /// see [`RecordMetadata::timestamp`].
    pub fn timestamp(&self) -> i64 {
        self.record.timestamp
    }

    fn wait_within(&self, timeout: Option<Duration>) -> Result<RecordMetadata, Error> {
        if let Some(fate) = self.try_get() {
            return fate;
        }
        refuse_in_inline_callback("wait")?;
        self.wait_until(timeout.map(Limit::after).as_ref())
    }

    /// Waits from batch to part, as often as the record's is split, within one limit.
    fn wait_until(&self, limit: Option<&Limit>) -> Result<RecordMetadata, Error> {
        loop {
            match self.result.trace(self.record.index) {
                Fate::Open(result) => result.block(limit)?,
                Fate::Decided { .. } => {
                    if let Some(fate) = self.try_get() {
                        return fate;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::super::racing::{self, Begun};
    use super::*;
    use crate::time::ManualClock;

    /// Tells a channel of each wait, and of the lock's being free then.
    struct Listening(mpsc::SyncSender<()>);

    impl WaitListener for Listening {
        fn on_wait(&self) {
            let _ = self.0.try_send(());
        }
    }

    impl WaitListener for Begun {
        fn on_wait(&self) {
            self.set();
        }
    }

    struct Forked;

    impl WaitListener for Forked {
        fn may_wait(&self) -> Result<(), Error> {
            Err(Error::Forked)
        }
        fn on_wait(&self) {
            unreachable!("the wait is refused before")
        }
    }

    fn batch() -> (Arc<BatchResult>, mpsc::Receiver<()>) {
        let (told, waits) = mpsc::sync_channel(64);
        (Arc::new(BatchResult::new("t".into(), 3, Arc::new(Listening(told)))), waits)
    }

    fn record(result: &Arc<BatchResult>, index: u32) -> Delivery {
        Delivery::new(result.clone(), RecordFacts::new(index, 1_000, None, Some(&[])))
    }

    fn delivered(base_offset: i64) -> Outcome {
        Outcome::Delivered { base_offset, log_append_time: None }
    }

    fn config_error(text: &str) -> Error {
        Error::Config(text.into())
    }

    fn text(delivery: &Delivery) -> String {
        let text = delivery.try_get().unwrap().unwrap_err().to_string();
        assert_eq!(delivery.check().unwrap().unwrap_err().to_string(), text);
        text
    }

    #[test]
    fn handles_are_small_and_can_cross_threads() {
        fn crosses<T: Send + Sync + 'static>() {}
        crosses::<Delivery>();
        crosses::<Arc<BatchResult>>();
        assert!(size_of::<Delivery>() <= 40, "{} bytes", size_of::<Delivery>());
    }

    /// PB-16.
    #[test]
    fn a_success_tells_offset_timestamp_and_sizes() {
        let (result, _waits) = batch();
        let delivery = record(&result, 5);
        assert_eq!((delivery.topic(), delivery.partition(), delivery.timestamp()), ("t", 3, 1_000));
        assert!(delivery.try_get().is_none() && delivery.check().is_none());
        result.complete(delivered(100));
        let metadata = delivery.wait().unwrap();
        assert_eq!(metadata.offset(), Some(105));
        assert_eq!(metadata.timestamp(), 1_000);
        assert_eq!((metadata.key_size(), metadata.value_size()), (None, Some(0)));
        assert_eq!(metadata.to_string(), "t-3@105");
        assert_eq!(delivery.try_get().unwrap().unwrap(), metadata, "it can be asked again");
        assert!(matches!(delivery.check(), Some(Ok(()))));
    }

    /// PB-16.
    #[test]
    fn the_brokers_time_and_an_unknown_offset_are_told_as_such() {
        let (result, _waits) = batch();
        let outcome = Outcome::Delivered { base_offset: -1, log_append_time: Some(7) };
        result.complete(outcome);
        let metadata = record(&result, 5).wait().unwrap();
        assert_eq!((metadata.offset(), metadata.timestamp()), (None, 7));
        let (result, _waits) = batch();
        result.complete(delivered(i64::MAX));
        assert_eq!(record(&result, 1).wait().unwrap().offset(), None, "no overflow");
    }

    /// PB-09.
    #[test]
    fn guilty_records_have_errors_of_their_own() {
        let (result, _waits) = batch();
        let named = BTreeMap::from([(1, config_error("guilty"))]);
        let errors = RecordErrors { rest: config_error("rest"), named };
        result.complete(Outcome::FailedEach(Box::new(errors)));
        assert_eq!(text(&record(&result, 0)), config_error("rest").to_string());
        assert_eq!(text(&record(&result, 1)), config_error("guilty").to_string());
    }

    #[test]
    fn a_record_is_followed_through_splits() {
        let (whole, _waits) = batch();
        let (left, _waits) = batch();
        let (right, _waits) = batch();
        let (right_left, _waits) = batch();
        let (right_right, _waits) = batch();
        let split = |parts: [(u32, &Arc<BatchResult>); 2]| {
            let part = |(first, result): (u32, &Arc<BatchResult>)| SplitPart {
                first,
                result: result.clone(),
            };
            Outcome::Split(Arc::new(parts.map(part)))
        };
        let all: Vec<_> = (0..10).map(|index| record(&whole, index)).collect();
        whole.complete(split([(0, &left), (4, &right)]));
        right.complete(split([(0, &right_left), (3, &right_right)]));
        assert!(all.iter().all(|delivery| delivery.try_get().is_none()));
        left.complete(delivered(0));
        right_left.complete(Outcome::Failed(config_error("middle")));
        right_right.complete(delivered(50));
        let offset = |delivery: &Delivery| delivery.wait().ok().and_then(|m| m.offset());
        let offsets: Vec<_> = all.iter().map(offset).collect();
        let [a, b, c, d] = [0, 1, 2, 3].map(Some);
        let [h, i, j] = [50, 51, 52].map(Some);
        assert_eq!(offsets, [a, b, c, d, None, None, None, h, i, j]);
    }

    #[test]
    fn a_batch_split_a_hundred_thousand_times_is_read_and_dropped_on_a_small_stack() {
        let deep = || {
            let (first, _waits) = batch();
            let delivery = record(&first, 0);
            let mut last = first;
            for _ in 0..100_000 {
                let (next, _waits) = batch();
                let part = SplitPart { first: 0, result: next.clone() };
                last.complete(Outcome::Split(Arc::new([part])));
                last = next;
            }
            last.complete(delivered(9));
            drop(last);
            delivery.wait().unwrap().offset()
        };
        let thread = thread::Builder::new().stack_size(128 << 10).spawn(deep).unwrap();
        assert_eq!(thread.join().unwrap(), Some(9));
    }

    /// PB-13.
    #[test]
    fn waiters_are_counted_told_of_and_woken() {
        let (result, waits) = batch();
        thread::scope(|scope| {
            let waiting: Vec<_> = (0..8)
                .map(|index| {
                    let delivery = record(&result, index);
                    scope.spawn(move || delivery.wait())
                })
                .collect();
            (0..8).for_each(|_| waits.recv().unwrap());
            assert_eq!(result.waiters(), 8);
            result.complete(delivered(10));
            for (index, thread) in waiting.into_iter().enumerate() {
                assert_eq!(thread.join().unwrap().unwrap().offset(), Some(10 + index as i64));
            }
        });
        let (failing, waits) = batch();
        thread::scope(|scope| {
            let delivery = record(&failing, 0);
            let waiting = scope.spawn(move || delivery.wait());
            waits.recv().unwrap();
            failing.complete(Outcome::Failed(config_error("lost")));
            let error = waiting.join().unwrap().unwrap_err();
            assert_eq!(error.to_string(), config_error("lost").to_string());
        });
        assert_eq!(result.waiters(), 0);
        assert!(waits.try_recv().is_err(), "once a wait");
    }

    #[test]
    fn no_wake_up_is_lost_between_check_and_sleep() {
        for round in 0..racing::ROUNDS {
            let begun = Arc::new(Begun::default());
            let result = Arc::new(BatchResult::new("t".into(), 0, begun.clone()));
            let delivery = record(&result, 0);
            let wait = move || delivery.wait_timeout(racing::LIMIT).unwrap().offset();
            let waiter = thread::spawn(|| racing::in_time(wait));
            racing::meet(round, || begun.is_set());
            result.complete(delivered(round.into()));
            assert_eq!(waiter.join().unwrap(), Some(round.into()));
        }
    }

    #[test]
    fn a_waiter_passes_on_to_the_part_that_holds_its_record() {
        let (whole, whole_waits) = batch();
        let (part, part_waits) = batch();
        let delivery = record(&whole, 0);
        let waiter = thread::spawn(move || delivery.wait_timeout(Duration::from_secs(600)));
        whole_waits.recv().unwrap();
        let parts = [SplitPart { first: 0, result: part.clone() }];
        whole.complete(Outcome::Split(Arc::new(parts)));
        part_waits.recv().unwrap();
        part.complete(delivered(77));
        assert_eq!(waiter.join().unwrap().unwrap().offset(), Some(77));
    }

    /// PB-12.
    #[test]
    fn a_wait_times_out_and_may_be_repeated() {
        let (result, waits) = batch();
        let delivery = record(&result, 3);
        let early = delivery.wait_timeout(Duration::from_millis(1));
        assert!(matches!(early, Err(Error::WaitTimeout)));
        assert!(waits.try_recv().is_ok());
        assert_eq!(result.waiters(), 0);
        result.complete(delivered(10));
        assert_eq!(delivery.wait_timeout(Duration::ZERO).unwrap().offset(), Some(13));
    }

    /// PB-14.
    #[test]
    fn a_wait_that_passes_on_to_a_part_keeps_its_deadline() {
        let (whole, waits) = batch();
        let (part, _part_waits) = batch();
        let delivery = record(&whole, 0);
        let parts = [SplitPart { first: 0, result: part }];
        let manual = ManualClock::new();
        let clock = Clock::Manual(Arc::clone(&manual));
        let limit = Limit { deadline: clock.now() + Duration::from_secs(600), clock };
        let (told, outcome) = mpsc::channel();
        thread::spawn(move || told.send(delivery.wait_until(Some(&limit))));
        waits.recv().unwrap();
        manual.advance(Duration::from_secs(601));
        whole.complete(Outcome::Split(Arc::new(parts)));
        let outcome = outcome.recv_timeout(racing::LIMIT).expect("the wait is over");
        assert!(matches!(outcome, Err(Error::WaitTimeout)));
    }

    #[test]
    fn a_wait_that_could_never_end_is_refused() {
        let result = Arc::new(BatchResult::new("t".into(), 0, Arc::new(Forked)));
        assert!(matches!(record(&result, 0).wait(), Err(Error::Forked)));
        result.complete(delivered(0));
        assert!(record(&result, 0).wait().is_ok(), "what is decided can be read");
    }

    /// PB-02, PB-03.
    #[test]
    fn a_batch_is_completed_once_and_its_first_outcome_stays() {
        let failed = || Outcome::Failed(config_error("first"));
        for (first, second) in
            [(delivered(0), delivered(1)), (failed(), delivered(1)), (delivered(0), failed())]
        {
            let (result, _waits) = batch();
            let delivery = record(&result, 0);
            result.complete(first);
            let before = format!("{:?}", delivery.wait());
            let again = std::panic::AssertUnwindSafe(|| result.complete(second));
            // Only debug builds tell of the defect.
            assert_eq!(std::panic::catch_unwind(again).is_err(), cfg!(debug_assertions));
            assert_eq!(format!("{:?}", delivery.wait()), before);
        }
    }
}

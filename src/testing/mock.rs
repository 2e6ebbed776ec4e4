//! A producer that sends nothing: for unit tests of programs that use one.
//!
//! No thread, no clock, no cluster. Records are kept as they come; the test, or the send itself,
//! decides what becomes of them, on whichever thread asks for it and with no lock held.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::claims;
use crate::completion::{
    BatchResult, Callback, Delivery, Outcome, RecordFacts, WaitListener, run_here,
};
use crate::error::{DeliveryCause, DeliveryError, Error, Persisted, TimeSpent};
use crate::metrics::Metrics;
use crate::producer::key_hash::murmur2_partition;
use crate::producer::partitioner::{ClusterView, PartitionInput, Partitioner, ask};
use crate::producer::record::validate_topic;
use crate::producer::{
    BoxedCallback, CloseReport, OwnedRecord, PartitionInfo, Producer, ProducerRecord, Purge,
    Refused, RefusedWith,
};
use crate::record::estimate_size_upper_bound;
use crate::sync::{Arc, Mutex};
use crate::types::TopicPartition;

/// A stand-in for [`KafkaProducer`](crate::KafkaProducer) behind the trait [`Producer`], after
/// Java's `MockProducer`.
///
/// It accepts what the real one would, keeps it in a [`history`](Self::history), and delivers each
/// record at once, or, [manually](MockProducerBuilder::manual), when the test says so. Outcomes are
/// told as by the real one: offsets count from 0 in each partition, failures are
/// [`Error::Delivery`]. Callbacks run on the thread that completes the record, and their panics go
/// through to it, so that a test may assert inside them. Calls that the real producer refuses
/// inside a callback are refused here too.
///
/// Records that are undecided when the last clone is dropped fail with cause
/// [`Closed`](DeliveryCause::Closed).
///
/// What there is no mock of: waiting, memory, batches, retries. For those there is
/// [`TestCluster`](super::TestCluster).
///
/// ```
/// use kafka_producer::testing::MockProducer;
/// use kafka_producer::{DeliveryCause, Persisted, Producer, ProducerRecord};
///
/// let mock = MockProducer::builder().topic("orders", 3).manual().build();
/// let first = mock.send(ProducerRecord::new("orders", "paid").partition(2))?;
/// let second = mock.send(ProducerRecord::new("orders", "sent").partition(2))?;
/// assert!(first.try_get().is_none());
///
/// assert!(mock.complete_next());
/// assert_eq!(first.wait()?.offset(), Some(0));
/// assert!(mock.error_next(DeliveryCause::Timeout, Persisted::Unknown));
/// assert!(second.wait().is_err());
/// # Ok::<(), kafka_producer::Error>(())
/// ```
#[derive(Clone)]
pub struct MockProducer {
    shared: Arc<Shared>,
}

/// What a [`MockProducer`] is like.
#[derive(Default)]
#[must_use = "nothing is made before `build`"]
pub struct MockProducerBuilder {
    manual: bool,
    topics: BTreeMap<String, Topic>,
    partitioner: Option<Arc<dyn Partitioner>>,
}

struct Topic {
    partition_count: i32,
    available: Vec<i32>,
}

struct Shared {
    made: MockProducerBuilder,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    history: Vec<OwnedRecord>,
    /// Accepted and not decided, in order.
    pending: VecDeque<Pending>,
    next_offsets: BTreeMap<(Arc<str>, i32), i64>,
    flushes: usize,
    closed: bool,
    /// What the first close achieved.
    report: Option<CloseReport>,
    /// What calls are to fail with.
    sends: Option<Error>,
    flush: Option<Error>,
    partitions: Option<Error>,
}

impl State {
    /// As many offsets are given as there are records, and once a close has told what it achieved
    /// nothing is undecided any more.
    fn invariants(&self) {
        if claims::are_checked() {
            let offsets: i64 = self.next_offsets.values().sum();
            assert_eq!(usize::try_from(offsets), Ok(self.history.len()), "offsets and records");
            let is_over = self.report.is_none() || (self.closed && self.pending.is_empty());
            assert!(is_over, "{} records are undecided after the end", self.pending.len());
        }
    }
}

/// A record that is owed its outcome.
struct Pending {
    result: Arc<BatchResult>,
    facts: RecordFacts,
    record: OwnedRecord,
    offset: i64,
    callback: Option<Callback>,
}

/// Nobody's linger depends on it.
struct Unheard;

impl WaitListener for Unheard {
    fn on_wait(&self) {}
}

impl MockProducerBuilder {
    /// A topic of the cluster, with so many partitions, at least one, all with a leader. Topics
    /// that are not named have one partition.
    pub fn topic(self, name: &str, partition_count: i32) -> Self {
        let all: Vec<i32> = (0..partition_count).collect();
        self.topic_with_leaders(name, partition_count, &all)
    }

    /// As [`topic`](Self::topic), where only the partitions of `available` have a leader.
    pub fn topic_with_leaders(
        mut self,
        name: &str,
        partition_count: i32,
        available: &[i32],
    ) -> Self {
        let topic =
            Topic { partition_count: partition_count.max(1), available: available.to_vec() };
        self.topics.insert(name.to_owned(), topic);
        self
    }

    /// Records stay undecided until [`MockProducer::complete_next`], `error_next`, `flush` or
    /// `close`. Without it each is delivered as it is sent.
    pub fn manual(mut self) -> Self {
        self.manual = true;
        self
    }

    /// Chooses the partitions of records that name none. Without it those with a key go where
    /// Kafka's default rule sends them, and those without one to partition 0.
    pub fn partition_by(mut self, partitioner: impl Partitioner + 'static) -> Self {
        self.partitioner = Some(Arc::new(partitioner));
        self
    }

    /// The producer.
    pub fn build(self) -> MockProducer {
        MockProducer { shared: Arc::new(Shared { made: self, state: Mutex::default() }) }
    }
}

impl MockProducer {
    /// One that delivers each record as it is sent.
    #[expect(clippy::new_without_default, reason = "a producer is made on purpose")]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// A builder.
    pub fn builder() -> MockProducerBuilder {
        MockProducerBuilder::default()
    }

    /// All records accepted so far, in order, whatever became of them. Records that set no
    /// timestamp have 0.
    pub fn history(&self) -> Vec<OwnedRecord> {
        self.shared.state.lock().history.clone()
    }

    /// Forgets the history, and counts offsets from 0 again.
    pub fn clear(&self) {
        let mut state = self.shared.state.lock();
        state.history.clear();
        state.next_offsets.clear();
        state.invariants();
    }

    /// How many records are not decided.
    pub fn pending(&self) -> usize {
        self.shared.state.lock().pending.len()
    }

    /// How many calls of `flush` have succeeded.
    pub fn flush_count(&self) -> usize {
        self.shared.state.lock().flushes
    }

    /// Whether `close` was called.
    pub fn is_closed(&self) -> bool {
        self.shared.state.lock().closed
    }

    /// Delivers the oldest undecided record; false if there is none. Its callback runs here.
    pub fn complete_next(&self) -> bool {
        let next = self.shared.state.lock().pending.pop_front();
        next.map(Pending::deliver).is_some()
    }

    /// Fails the oldest undecided record with an [`Error::Delivery`] of this cause; false if there
    /// is none. Its callback runs here.
    pub fn error_next(&self, cause: DeliveryCause, persisted: Persisted) -> bool {
        let next = self.shared.state.lock().pending.pop_front();
        next.map(|next| next.fail(cause, persisted)).is_some()
    }

    /// Has each send refused with this error, until `None` is set.
    pub fn refuse_sends(&self, error: impl Into<Option<Error>>) {
        self.shared.state.lock().sends = error.into();
    }

    /// Has `flush` fail with this error, deciding nothing, until `None` is set.
    pub fn refuse_flush(&self, error: impl Into<Option<Error>>) {
        self.shared.state.lock().flush = error.into();
    }

    /// Has `partitions_for` and `wait_ready` fail with this error, until `None` is set.
    pub fn refuse_metadata(&self, error: impl Into<Option<Error>>) {
        self.shared.state.lock().partitions = error.into();
    }

    /// All of a send: what the real producer checks, the partition, the history, the outcome. The
    /// callback is taken if the record is in.
    fn accept(
        &self,
        record: &ProducerRecord<'_>,
        callback: &mut Option<Callback>,
    ) -> Result<Delivery, Error> {
        validate_topic(record.topic())?;
        record.without_topic().validate()?;
        check_size(record)?;
        // Before the lock is taken: it may be the user's rule.
        let partition = self.shared.made.partition(record);
        let mut state = self.shared.state.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        if let Some(error) = &state.sends {
            return Err(error.clone());
        }
        let partition = partition?;
        let topic: Arc<str> = record.topic().into();
        let timestamp = record.explicit_timestamp().unwrap_or(0);
        let owned = OwnedRecord {
            topic: Arc::clone(&topic),
            partition,
            key: record.key_bytes().map(<[u8]>::to_vec),
            value: record.value_bytes().map(<[u8]>::to_vec),
            headers: record.header_list().clone().into_owned(),
            timestamp,
        };
        state.history.push(owned.clone());
        let next = state.next_offsets.entry((Arc::clone(&topic), partition)).or_default();
        let offset = *next;
        *next += 1;
        let facts = RecordFacts::new(0, timestamp, record.key_bytes(), record.value_bytes());
        let result = Arc::new(BatchResult::new(topic, partition, Arc::new(Unheard)));
        let delivery = Delivery::new(Arc::clone(&result), facts);
        let callback = callback.take();
        let pending = Pending { result, facts, record: owned, offset, callback };
        state.invariants();
        if self.shared.made.manual {
            state.pending.push_back(pending);
        } else {
            drop(state);
            pending.deliver();
        }
        Ok(delivery)
    }

    /// Whether calls for metadata are to fail.
    fn check_metadata(&self) -> Result<(), Error> {
        let state = self.shared.state.lock();
        let ended = state.closed.then_some(Error::Closed);
        ended.or_else(|| state.partitions.clone()).map_or(Ok(()), Err)
    }

    /// Fails what is undecided and named, and gives it back in the order in which it was sent.
    fn give_up(&self, what: Purge<'_>) -> Vec<OwnedRecord> {
        let purged: Vec<_> = {
            let mut state = self.shared.state.lock();
            let all = std::mem::take(&mut state.pending).into_iter();
            let (purged, kept) = all.partition(|pending| pending.is_named_by(what));
            state.pending = kept;
            purged.into()
        };
        purged.into_iter().map(|pending| pending.give_up(DeliveryCause::Purged)).collect()
    }

    /// Delivers all undecided records, or fails them where there is no time at all, as the real one
    /// does. A second call tells the same as the first, and gives nothing back.
    fn end(&self, timeout: Duration, gives_back: bool) -> CloseReport {
        let mut report = CloseReport::default();
        if let Err(refused) = crate::completion::refuse_in_callback("close") {
            report.refused = Some(refused);
            return report;
        }
        {
            let mut state = self.shared.state.lock();
            state.closed = true;
            if let Some(report) = &state.report {
                return report.clone();
            }
        }
        let mut given_up = Vec::new();
        for pending in self.take_all() {
            if timeout.is_zero() {
                report.aborted_records += 1;
                given_up.push(pending.give_up(DeliveryCause::Closed));
            } else {
                report.delivered += 1;
                pending.deliver();
            }
        }
        let mut state = self.shared.state.lock();
        let mut report = state.report.get_or_insert(report).clone();
        state.invariants();
        drop(state);
        if gives_back {
            report.not_sent = given_up;
        }
        report
    }

    fn take_all(&self) -> VecDeque<Pending> {
        std::mem::take(&mut self.shared.state.lock().pending)
    }
}

/// As the real producer does with the default of `max.request.size`.
fn check_size(record: &ProducerRecord<'_>) -> Result<(), Error> {
    const LIMIT: usize = 1_048_576;
    let length = |bytes: Option<&[u8]>| bytes.map(<[u8]>::len);
    let (key, value) = (length(record.key_bytes()), length(record.value_bytes()));
    let size = estimate_size_upper_bound(key, value, record.header_list().as_slice());
    let setting = "max.request.size";
    if size > LIMIT { Err(Error::RecordTooLarge { size, limit: LIMIT, setting }) } else { Ok(()) }
}

impl MockProducerBuilder {
    fn partition_count(&self, topic: &str) -> i32 {
        self.topics.get(topic).map_or(1, |topic| topic.partition_count)
    }

    fn partition(&self, record: &ProducerRecord<'_>) -> Result<i32, Error> {
        let name = record.topic();
        let count = self.partition_count(name);
        if let Some(partition) = record.explicit_partition() {
            let cause = || format!("it has no partition {partition}, only {count}");
            return (partition < count).then_some(partition).ok_or_else(|| {
                let waited = Duration::ZERO;
                Error::MetadataTimeout { topic: name.into(), waited, cause: cause().into() }
            });
        }
        let available = self.topics.get(name).map_or(&[0][..], |topic| &topic.available);
        match &self.partitioner {
            Some(partitioner) => {
                let input = PartitionInput::new(name, record.key_bytes(), record.value_bytes())
                    .with_headers(record.header_list());
                ask(&**partitioner, &input, &ClusterView::new(count, available))
            }
            None => Ok(record.key_bytes().map_or(0, |key| murmur2_partition(key, count))),
        }
    }
}

impl Pending {
    fn deliver(mut self) {
        let base_offset = self.offset;
        self.decide(Outcome::Delivered { base_offset, log_append_time: None });
    }

    fn fail(mut self, cause: DeliveryCause, persisted: Persisted) {
        self.fail_here(cause, persisted);
    }

    /// Fails it as surely not in the log; gives it back.
    fn give_up(self, cause: DeliveryCause) -> OwnedRecord {
        let record = self.record.clone();
        self.fail(cause, Persisted::No);
        record
    }

    fn is_named_by(&self, what: Purge<'_>) -> bool {
        match what {
            Purge::All => true,
            Purge::Topic(topic) => *self.record.topic == *topic,
            Purge::Partition(topic, partition) => {
                *self.record.topic == *topic && self.record.partition == partition
            }
        }
    }

    fn fail_here(&mut self, cause: DeliveryCause, persisted: Persisted) {
        let topic_partition = TopicPartition {
            topic: Arc::clone(self.result.topic()),
            partition: self.result.partition(),
        };
        self.decide(Outcome::Failed(Error::Delivery(Arc::new(DeliveryError {
            topic_partition,
            cause,
            last: None,
            attempts: 1,
            broker: None,
            elapsed: Duration::ZERO,
            spent: TimeSpent::default(),
            persisted,
        }))));
    }

    fn decide(&mut self, outcome: Outcome) {
        self.result.complete(outcome);
        let fate = Delivery::new(Arc::clone(&self.result), self.facts).try_get();
        // Where a callback has panicked no other one is called: a second panic would be the last.
        let callback = self.callback.take().filter(|_| !std::thread::panicking());
        if let (Some(callback), Some(fate)) = (callback, fate) {
            run_here(callback, fate.as_ref());
        }
    }
}

/// Nobody waits for ever: neither for a producer that is gone, nor where a callback that panicked
/// kept the next records from being decided.
impl Drop for Pending {
    fn drop(&mut self) {
        if !self.result.is_done() {
            self.fail_here(DeliveryCause::Closed, Persisted::No);
        }
    }
}

impl Producer for MockProducer {
    fn send(&self, record: ProducerRecord<'_>) -> Result<Delivery, Error> {
        self.accept(&record, &mut None)
    }

    fn send_with(&self, record: ProducerRecord<'_>, callback: BoxedCallback) -> Result<(), Error> {
        self.accept(&record, &mut Some(Callback::User(callback))).map(drop)
    }

    fn send_timeout(&self, record: ProducerRecord<'_>, _: Duration) -> Result<Delivery, Error> {
        self.accept(&record, &mut None)
    }

    fn send_with_timeout(
        &self,
        record: ProducerRecord<'_>,
        callback: BoxedCallback,
        _: Duration,
    ) -> Result<(), Error> {
        self.send_with(record, callback)
    }

    fn try_send<'a>(&self, record: ProducerRecord<'a>) -> Result<Delivery, Refused<'a>> {
        self.accept(&record, &mut None).map_err(|error| Refused::new(record, error))
    }

    fn try_send_with<'a>(
        &self,
        record: ProducerRecord<'a>,
        callback: BoxedCallback,
    ) -> Result<(), RefusedWith<'a>> {
        let mut callback = Some(Callback::User(callback));
        let sent = self.accept(&record, &mut callback);
        sent.map(drop).map_err(|error| RefusedWith::new(record, callback, error))
    }

    /// Delivers all undecided records.
    fn flush(&self, _timeout: Duration) -> Result<(), Error> {
        crate::completion::refuse_in_callback("flush")?;
        if let Some(error) = &self.shared.state.lock().flush {
            return Err(error.clone());
        }
        self.take_all().into_iter().for_each(Pending::deliver);
        self.shared.state.lock().flushes += 1;
        Ok(())
    }

    fn partitions_for(&self, topic: &str) -> Result<Vec<PartitionInfo>, Error> {
        validate_topic(topic)?;
        self.check_metadata()?;
        let name: Arc<str> = topic.into();
        let available = self.shared.made.topics.get(topic).map_or(&[0][..], |t| &t.available);
        let info = |partition| PartitionInfo {
            topic_partition: TopicPartition { topic: Arc::clone(&name), partition },
            leader: available.contains(&partition).then_some(1),
            leader_epoch: None,
        };
        Ok((0..self.shared.made.partition_count(topic)).map(info).collect())
    }

    fn wait_ready(&self, topics: &[&str], _timeout: Duration) -> Result<(), Error> {
        self.check_metadata()?;
        topics.iter().try_for_each(|topic| self.partitions_for(topic).map(drop))
    }

    /// There is nothing to measure: those of a producer that has done nothing.
    fn metrics(&self) -> Metrics {
        Metrics::default()
    }

    fn purge(&self, what: Purge<'_>) -> Result<usize, Error> {
        Ok(self.give_up(what).len())
    }

    fn purge_and_return(&self, what: Purge<'_>) -> Result<Vec<OwnedRecord>, Error> {
        Ok(self.give_up(what))
    }

    /// Delivers all undecided records; with no time at all, fails them instead, as the real one
    /// does. A second call tells the same as the first.
    fn close(&self, timeout: Duration) -> CloseReport {
        self.end(timeout, false)
    }

    fn close_and_return(&self, timeout: Duration) -> CloseReport {
        self.end(timeout, true)
    }
}

impl std::fmt::Debug for MockProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MockProducer").field("pending", &self.pending()).finish_non_exhaustive()
    }
}

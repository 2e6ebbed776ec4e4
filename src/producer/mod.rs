//! The user's side: handles, records, and the calls that bring one to the other.
//!
//! - here: [`KafkaProducer`], its sends, `flush` and `close`
//! - `core`: the way of a record up to its batch
//! - `topic`: a handle that has looked its topic up
//! - `record`: what is sent
//! - `owned`: the same with bytes of its own
//! - `interface`: these calls as a trait
//! - `interceptor`: who sees it first
//! - `partitioner`: where it goes
//! - `serializer`, `typed`: from values to bytes
//! - `refused`: what a refusal gives back
//! - `metrics`: what there is to count
//! - `purge`: giving up what was not sent
//! - `close`: the end
//! - `build`: from configuration to threads
//!
//! All of it runs on users' threads, which may wait here, always with a deadline, and never touch
//! a socket.

mod build;
mod close;
mod core;
mod interceptor;
mod interface;
pub(crate) mod key_hash;
mod metrics;
mod owned;
pub(crate) mod partitioner;
mod purge;
pub(crate) mod record;
mod refused;
mod serializer;
mod topic;
mod typed;

use std::fmt;
use std::time::Duration;

pub use self::build::Callbacks;
pub(crate) use self::build::Parts;
#[cfg(test)]
pub(crate) use self::build::Surroundings;
pub use self::close::CloseReport;
use self::core::Core;
pub use self::interceptor::{
    Acknowledgement, InterceptedRecord, InterceptorError, ProducerInterceptor,
};
pub use self::interface::{BoxedCallback, Producer};
pub use self::owned::OwnedRecord;
pub use self::purge::Purge;
pub use self::record::{ProducerRecord, TopicRecord};
pub use self::refused::{Partial, Refused, RefusedWith};
pub use self::serializer::{
    BooleanSerializer, BytesSerializer, DoubleSerializer, FloatSerializer, IntegerSerializer,
    ListSerializer, LongSerializer, SerializeError, Serializer, ShortSerializer, StringSerializer,
    UuidSerializer, VoidSerializer,
};
pub use self::topic::TopicProducer;
pub use self::typed::{TypedProducer, TypedRecord};
use crate::accumulator::Patience;
use crate::accumulator::inbox::Event;
use crate::completion::{Callback, Delivery, RecordMetadata, refuse_in_inline_callback};
use crate::error::Error;
use crate::metadata::{LeaderWait, ReadyWait};
use crate::metrics::Metrics;
use crate::sync::Arc;
use crate::types::TopicPartition;
#[cfg(test)]
use crate::{accumulator::RecordAccumulator, completion::CallbackExecutor};

/// A producer: sends records to a Kafka cluster, from any number of threads.
///
/// A cheap handle: clone it and give it to threads. All clones share one buffer, one sender thread
/// and the callback threads. When the last one is dropped the producer closes, within
/// `close.on.drop.timeout.ms`; call [`close`](Self::close) to know how that went.
///
/// ```
/// # use kafka_producer::testing::TestCluster;
/// use kafka_producer::{KafkaProducer, ProducerRecord};
/// use std::time::Duration;
///
/// # let cluster = TestCluster::start();
/// # let servers = cluster.bootstrap_servers();
/// let producer = KafkaProducer::builder().bootstrap_servers(servers).build()?;
/// let delivery = producer.send(ProducerRecord::new("orders", "paid").key("k1"))?;
/// let metadata = delivery.wait()?;
/// assert_eq!(metadata.offset(), Some(0));
/// assert!(producer.close(Duration::from_secs(10)).is_clean());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct KafkaProducer {
    handle: Arc<Handle>,
}

/// Closes the producer when the last clone of it goes.
struct Handle {
    core: Arc<Core>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.on_last_drop();
    }
}

/// A partition of a topic, as the cluster last told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionInfo {
    /// The topic and the partition's number.
    pub topic_partition: TopicPartition,
    /// The broker that leads it; `None` while there is none.
    pub leader: Option<i32>,
    /// The leader's epoch, if the brokers tell it.
    pub leader_epoch: Option<i32>,
}

impl KafkaProducer {
    /// Sends a record. Returns when it lies in the buffer; the handle tells when it is delivered.
    ///
    /// Waits up to `max.block.ms` for the topic's metadata and for memory together. Dropping the
    /// handle cancels nothing.
    ///
    /// # Errors
    /// An error means that the record was not accepted: [`Error::InvalidTopic`],
    /// [`Error::InvalidRecord`], [`Error::RecordTooLarge`], [`Error::Authorization`],
    /// [`Error::MetadataTimeout`], [`Error::UnsupportedVersion`], [`Error::BufferExhausted`],
    /// [`Error::BufferShareExhausted`], [`Error::Closed`], [`Error::Forked`], [`Error::Fatal`];
    /// with interceptors [`Error::CallbackBacklogFull`] too; inside a callback on the sender's own
    /// thread, where it would wait, [`Error::InCallback`]. What fails later is the handle's to
    /// tell.
    pub fn send(&self, record: ProducerRecord<'_>) -> Result<Delivery, Error> {
        let core = &self.handle.core;
        core.send(record.topic(), record.without_topic(), &mut core.patience())
    }

    /// As [`send`](Self::send), with a budget of this call's own in place of `max.block.ms`. With
    /// none at all it still asks for a topic that is not known, so that a later call may find it.
    ///
    /// # Errors
    /// As [`send`](Self::send), after `timeout` at the latest.
    pub fn send_timeout(
        &self,
        record: ProducerRecord<'_>,
        timeout: Duration,
    ) -> Result<Delivery, Error> {
        let core = &self.handle.core;
        core.send(record.topic(), record.without_topic(), &mut Patience::For(timeout))
    }

    /// Sends a record and has `callback` told of its fate, on a callback thread.
    ///
    /// Callbacks of one partition run one at a time, in the order of its records; a slow one delays
    /// others of its kind and never the sending. It may send again. At `callback.max.pending`
    /// callbacks that have not begun, this waits, within `max.block.ms`; inside a callback it
    /// doesn't.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`Error::CallbackBacklogFull`]. The callback never runs then.
    pub fn send_with(
        &self,
        record: ProducerRecord<'_>,
        callback: impl FnOnce(Result<&RecordMetadata, &Error>) + Send + 'static,
    ) -> Result<(), Error> {
        let core = &self.handle.core;
        let (name, record) = (record.topic(), record.without_topic());
        let mut callback = Some(Callback::User(Box::new(callback)));
        core.send_with(name, record, &mut callback, &mut core.patience())
    }

    /// As [`send_with`](Self::send_with), with a budget of this call's own in place of
    /// `max.block.ms`, as [`send_timeout`](Self::send_timeout) has it.
    ///
    /// # Errors
    /// As [`send_with`](Self::send_with), after `timeout` at the latest. The callback never runs
    /// then.
    pub fn send_with_timeout(
        &self,
        record: ProducerRecord<'_>,
        callback: impl FnOnce(Result<&RecordMetadata, &Error>) + Send + 'static,
        timeout: Duration,
    ) -> Result<(), Error> {
        let core = &self.handle.core;
        let mut callback = Some(Callback::User(Box::new(callback)));
        let (name, record) = (record.topic(), record.without_topic());
        core.send_with(name, record, &mut callback, &mut Patience::For(timeout))
    }

    /// As [`send_with`](Self::send_with), with a handle for a test to look at.
    #[cfg(test)]
    pub(crate) fn send_observed(
        &self,
        record: ProducerRecord<'_>,
        callback: Callback,
    ) -> Result<Delivery, Error> {
        let core = &self.handle.core;
        let (name, record) = (record.topic(), record.without_topic());
        core.send_observed(name, record, callback, &mut core.patience())
    }

    /// What the threads of this producer share, for a test to look at when it is closed.
    #[cfg(test)]
    pub(crate) fn insides(&self) -> (Arc<RecordAccumulator>, Arc<CallbackExecutor>) {
        let core = &self.handle.core;
        (Arc::clone(&core.accumulator), Arc::clone(&core.executor))
    }

    /// Sends a record if that takes no waiting. A refusal carries the record.
    ///
    /// # Errors
    /// As [`send`](Self::send), at once; [`Error::NotReady`] if the topic's metadata is not known
    /// yet: it is asked for, so that a later call may succeed.
    pub fn try_send<'a>(&self, record: ProducerRecord<'a>) -> Result<Delivery, Refused<'a>> {
        let core = &self.handle.core;
        let sent = core.send(record.topic(), record.without_topic(), &mut Patience::None);
        sent.map_err(|error| Refused::new(record, error))
    }

    /// As [`send_with`](Self::send_with), if that takes no waiting. A refusal carries the record
    /// and the callback, which comes in a box so that it can be given back.
    ///
    /// # Errors
    /// As [`send_with`](Self::send_with), at once: [`Error::CallbackBacklogFull`] where it would
    /// wait for a callback to begin; [`Error::NotReady`] as from [`try_send`](Self::try_send).
    pub fn try_send_with<'a>(
        &self,
        record: ProducerRecord<'a>,
        callback: BoxedCallback,
    ) -> Result<(), RefusedWith<'a>> {
        let mut callback = Some(Callback::User(callback));
        let (name, sent) = (record.topic(), record.without_topic());
        let sent = self.handle.core.send_with(name, sent, &mut callback, &mut Patience::None);
        sent.map_err(|error| RefusedWith::new(record, callback, error))
    }

    /// Sends records one after the other until one is refused.
    ///
    /// # Errors
    /// [`Partial`]: the handles of those accepted before, and the error of the one that wasn't.
    pub fn send_all(&self, records: &[ProducerRecord<'_>]) -> Result<Vec<Delivery>, Partial> {
        let core = &self.handle.core;
        let mut accepted = Vec::with_capacity(records.len());
        let mut patience = core.patience();
        for record in records {
            match core.send(record.topic(), record.without_topic(), &mut patience) {
                Ok(delivery) => accepted.push(delivery),
                Err(error) => return Err(Partial { accepted, error }),
            }
        }
        Ok(accepted)
    }

    /// A handle for sending to one topic, which is looked up here and not for each record.
    ///
    /// # Errors
    /// As [`send`](Self::send) for what concerns the topic; waits up to `max.block.ms`.
    pub fn topic(&self, name: &str) -> Result<TopicProducer, Error> {
        let core = &self.handle.core;
        let topic = core.find_topic(name, None, &mut core.patience())?;
        Ok(TopicProducer::new(Arc::clone(core), topic))
    }

    /// A view of this producer that takes typed keys and values.
    ///
    /// ```
    /// # use kafka_producer::testing::TestCluster;
    /// # let cluster = TestCluster::start();
    /// # let servers = cluster.bootstrap_servers();
    /// use kafka_producer::{KafkaProducer, StringSerializer, TypedRecord, UuidSerializer};
    ///
    /// let producer = KafkaProducer::builder().bootstrap_servers(servers).build()?;
    /// let orders = producer.typed(UuidSerializer, StringSerializer);
    /// let id = kafka_producer::Uuid([7; 16]);
    /// orders.send(TypedRecord::new("orders", "paid").key(&id))?.wait()?;
    /// # Ok::<(), kafka_producer::Error>(())
    /// ```
    pub fn typed<K: Serializer, V: Serializer>(
        &self,
        key: K,
        value: V,
    ) -> TypedProducer<Self, K, V> {
        TypedProducer::new(self.clone(), key, value)
    }

    /// Has everything sent that was accepted before, without linger, and returns when all of it is
    /// decided and its callbacks have run.
    ///
    /// # Errors
    /// [`Error::FlushTimeout`], with what is left, when `timeout` is over; everything goes on.
    /// [`Error::InCallback`] inside a callback, [`Error::Forked`] in a forked child.
    pub fn flush(&self, timeout: Duration) -> Result<(), Error> {
        self.handle.core.flush(timeout)
    }

    /// The topic's partitions. Waits up to `max.block.ms` for the topic's metadata.
    ///
    /// # Errors
    /// As [`send`](Self::send) for what concerns the topic.
    pub fn partitions_for(&self, topic: &str) -> Result<Vec<PartitionInfo>, Error> {
        let core = &self.handle.core;
        let metadata = core.wait_for_topic(topic, None, &mut core.patience())?;
        let info = |(partition, known): (i32, &crate::metadata::PartitionMetadata)| PartitionInfo {
            topic_partition: TopicPartition { topic: Arc::clone(&metadata.name), partition },
            leader: known.leader.map(|node| node.0),
            leader_epoch: Some(known.leader_epoch).filter(|epoch| *epoch >= 0),
        };
        Ok((0..).zip(&metadata.partitions).map(info).collect())
    }

    /// Waits until a broker answers, and until each of the topics can be sent to: a partition of it
    /// has a leader, and a connection to such a leader was made, at the address that the cluster
    /// advertises. One that was made before counts, until it is lost.
    ///
    /// # Errors
    /// [`Error::MetadataTimeout`] when `timeout` is over: its cause says what is wrong, as a name
    /// that does not resolve, a connection that is refused, `advertised.listeners` that lead
    /// nowhere, or partitions without a leader. [`Error::InvalidTopic`],
    /// [`Error::Authorization`] and [`Error::UnsupportedVersion`] as soon as they are known.
    /// [`Error::Closed`], also if the producer is closed meanwhile; [`Error::Fatal`];
    /// [`Error::Forked`] in a forked child; [`Error::InCallback`] inside a callback on the sender's
    /// own thread.
    pub fn wait_ready(&self, topics: &[&str], timeout: Duration) -> Result<(), Error> {
        let core = &self.handle.core;
        core.process.check()?;
        refuse_in_inline_callback("wait_ready")?;
        let begun = core.clock.now();
        let deadline = begun + timeout;
        if topics.is_empty() {
            return ReadyWait::new(begun, deadline).wait(&core.metadata, &core.clock);
        }
        let inbox = &core.accumulator.inbox;
        for topic in topics {
            record::validate_topic(topic)?;
            let wake =
                || inbox.push(Event::LeaderWanted { topic: Arc::from(*topic), until: deadline });
            LeaderWait::new(topic, begun, deadline).wait(&core.metadata, &core.clock, &wake)?;
        }
        Ok(())
    }

    /// What the producer did and does, in numbers: rates, latencies, backlogs, by broker and by
    /// topic. Waits for nobody, and works after `close` too.
    ///
    /// It looks through all partitions' queues: ask every few seconds, not for each record. In a
    /// forked child it is empty.
    pub fn metrics(&self) -> Metrics {
        self.handle.core.metrics()
    }

    /// Closes the producer: refuses new records, has those accepted delivered and their callbacks
    /// run, and ends all threads. What is not delivered shortly before `timeout` is over (an eighth
    /// of it, half a second at most) fails with cause `Closed`, which its callbacks are told of in
    /// the time that is left, or in a quarter of a second; zero gives up at once. Calling it again
    /// returns the same report.
    pub fn close(&self, timeout: Duration) -> CloseReport {
        self.handle.core.close(timeout, false)
    }

    /// As [`close`](Self::close), and gives back the records that were given up, or reached
    /// `delivery.timeout.ms` meanwhile, and are surely not in the log, in
    /// [`CloseReport::not_sent`]: for a program that keeps them for its next start, or has another
    /// cluster to send them to. Their handles and callbacks are told as ever. Costs a copy of those
    /// records' memory.
    pub fn close_and_return(&self, timeout: Duration) -> CloseReport {
        self.handle.core.close(timeout, true)
    }
}

impl fmt::Debug for KafkaProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaProducer").finish_non_exhaustive()
    }
}

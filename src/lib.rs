//! A Kafka producer for programs that run on plain threads: no async runtime, no C in the default
//! build. It mirrors the Java client's design and names.
//!
//! A [`KafkaProducer`] is a cheap handle, to be cloned and used from any number of threads. Behind
//! it are a buffer of records, one thread that talks to the brokers, and threads that run
//! callbacks. Build one for a cluster and keep it: all threads that share it share its batches.
//!
//! ```
//! use kafka_producer::{KafkaProducer, ProducerRecord};
//! use std::time::Duration;
//!
//! # let cluster = kafka_producer::testing::TestCluster::start();
//! # let servers = cluster.bootstrap_servers();
//! let producer = KafkaProducer::builder().bootstrap_servers(servers).build()?;
//!
//! let mut deliveries = Vec::new();
//! for number in 0..100 {
//!     let (key, value) = (number.to_string(), format!("order {number}"));
//!     deliveries.push(producer.send(ProducerRecord::new("orders", &value).key(&key))?);
//! }
//! for delivery in deliveries {
//!     let metadata = delivery.wait()?;
//!     assert_eq!(metadata.topic(), "orders");
//! }
//!
//! assert!(producer.close(Duration::from_secs(10)).is_clean());
//! # assert_eq!(cluster.count("orders"), 100);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Sending
//!
//! [`send`](KafkaProducer::send) puts the record into the buffer and returns; the sender's thread
//! gathers records into batches and batches into requests. `Err` means that the record was not
//! accepted, and nothing will ever happen to it. `Ok` means that it was, and then its fate is
//! decided exactly once: it is delivered, or it fails. The [`Delivery`] tells which. Dropping it
//! cancels nothing.
//!
//! `send` waits only while it doesn't know the topic yet, or while the buffer is full, and then for
//! `max.block.ms` at most. [`try_send`](KafkaProducer::try_send) never waits: it gives the record
//! back instead, and [`try_send_with`](KafkaProducer::try_send_with) the callback too.
//! [`send_timeout`](KafkaProducer::send_timeout) has a budget of its own.
//! [`topic`](KafkaProducer::topic) looks a topic up once, for loops that send to it.
//!
//! # Acknowledgements
//!
//! With `acks=all`, the default, a record counts as delivered when all in-sync replicas have it.
//! With `acks=1` the leader's word is enough, and with `acks=0` the socket's: such records have no
//! offset, and the producer doesn't hear of refusals. See [`Acks`].
//!
//! A batch that failed for a reason that may pass is sent again, for as long as
//! `delivery.timeout.ms` allows; `retries` is best left alone.
//!
//! # Batches and linger
//!
//! Each partition has a batch that is being filled. It is sent when it has reached `batch.size`, or
//! when its first record has waited for `linger.ms`, whichever is sooner. A longer linger makes
//! fewer, larger requests. A batch is sent at once if each of its records has a thread that waits
//! for it, so that sending one record and waiting for it costs no linger (`wait.ends.linger`).
//!
//! # Memory
//!
//! Records that wait for delivery hold at most `buffer.memory` bytes. At the bound `send` waits for
//! memory, first come, first served, and fails with [`Error::BufferExhausted`] after
//! `max.block.ms`. A batch is charged for what it holds, so that many quiet partitions don't use
//! the buffer up. A partition or broker that takes records too slowly, or not at all, holds half of
//! it at most while others are in use (`buffer.memory.partition.share`,
//! `buffer.memory.broker.share`): beyond that, only what is meant for it waits, and
//! [`try_send`](KafkaProducer::try_send) says [`Error::BufferShareExhausted`].
//!
//! # Idempotence and order
//!
//! With `enable.idempotence`, the default, batches are numbered: a broker that gets one twice keeps
//! one copy, and a partition's records are stored in the order in which they were accepted. Without
//! it retries can make duplicates, and order is kept only with
//! `max.in.flight.requests.per.connection=1`. What the program sends twice by itself is two records
//! in any case.
//!
//! # Callbacks
//!
//! [`send_with`](KafkaProducer::send_with) takes a closure that is called when the record's fate is
//! decided. It runs on a thread of its own kind, and never on the one that sends: a slow callback
//! delays other callbacks and no record. Callbacks of one partition run one at a time and in order,
//! also with several `callback.threads`. At most `callback.max.pending` records have a callback
//! that has not begun; past that `send_with` waits. A program's own thread pool can take the place
//! of these threads: see [`Executor`].
//!
//! ```
//! use kafka_producer::{KafkaProducer, ProducerRecord};
//! use std::sync::mpsc;
//! use std::time::Duration;
//!
//! # let cluster = kafka_producer::testing::TestCluster::start();
//! # let servers = cluster.bootstrap_servers();
//! let producer = KafkaProducer::builder()
//!     .bootstrap_servers(servers)
//!     .callback_threads(2)
//!     .linger(Duration::from_millis(5))
//!     .build()?;
//! let (failures, failed) = mpsc::channel();
//! for number in 0..10 {
//!     let failures = failures.clone();
//!     let value = format!("order {number}");
//!     producer.send_with(ProducerRecord::new("orders", &value), move |result| {
//!         if let Err(error) = result {
//!             let _ = failures.send((number, error.clone()));
//!         }
//!     })?;
//! }
//! // Returns when all of it is decided and all callbacks have run.
//! producer.flush(Duration::from_secs(10))?;
//! assert!(failed.try_recv().is_err(), "all ten were delivered");
//! # assert_eq!(cluster.count("orders"), 10);
//! # Ok::<(), kafka_producer::Error>(())
//! ```
//!
//! # Typed records
//!
//! [`KafkaProducer::typed`] puts serializers before a producer, for keys and values that are no
//! bytes yet. Those of Kafka's Java client are here, byte for byte; [`Serializer`] is for others.
//!
//! # Interceptors
//!
//! [`ProducerBuilder::interceptor`] adds user code that sees each record first, may change it, and
//! hears of its end exactly once: for tracing, auditing, metrics. See [`ProducerInterceptor`].
//!
//! # Events
//!
//! A broker may lose what it acknowledged, and show it. [`ProducerBuilder::on_event`] has a closure
//! told of it ([`ProducerEvent`]), beside a warning in the log and a metric.
//!
//! # Errors
//!
//! There is one [`Error`] for every call. [`Error::class`] tells what can be done about it. A
//! failed delivery is [`Error::Delivery`], with its cause, the attempts made, and whether the
//! record may be in the log all the same ([`Persisted`]): only what is surely not there can be sent
//! again without fear of a duplicate.
//!
//! ```
//! use kafka_producer::{Error, KafkaProducer, ProducerRecord};
//!
//! let error = KafkaProducer::builder().property("batch.sise", "1000").build().unwrap_err();
//! assert!(error.to_string().contains("batch.size"), "it names the nearest key: {error}");
//!
//! # let cluster = kafka_producer::testing::TestCluster::start();
//! # let servers = cluster.bootstrap_servers();
//! let producer = KafkaProducer::builder().bootstrap_servers(servers).build()?;
//! let record = ProducerRecord::new("orders", "paid");
//! match producer.try_send(record) {
//!     Ok(delivery) => println!("{}", delivery.wait()?),
//!     Err(refused) => {
//!         // Nothing is known of the topic yet. It has been asked for: try again in a moment.
//!         assert!(matches!(refused.error(), Error::NotReady { .. }));
//!         let (record, _) = refused.into_parts();
//!         producer.send(record)?.wait()?;
//!     }
//! }
//! # Ok::<(), Error>(())
//! ```
//!
//! # Closing
//!
//! [`close`](KafkaProducer::close) refuses new records, has the accepted ones delivered and their
//! callbacks run, and ends all threads, within the time it is given. What is not delivered by then
//! fails. Its [`CloseReport`] says what was left undone;
//! [`close_and_return`](KafkaProducer::close_and_return) hands back what is surely not in the log.
//! [`purge`](KafkaProducer::purge) gives up what was not sent before. Dropping the last handle
//! closes as well, within `close.on.drop.timeout.ms`, and logs what was left.
//!
//! # Metrics
//!
//! [`KafkaProducer::metrics`] gives a snapshot in numbers, by producer, broker and topic, under the
//! names of Kafka's Java client; [`Metrics::to_prometheus`] gives it as text.
//!
//! # Settings
//!
//! [`KafkaProducer::builder`] has typed setters, and takes Kafka's own keys by
//! [`property`](ProducerBuilder::property) and
//! [`properties_text`](ProducerBuilder::properties_text). An unknown key, or one that this crate
//! does not support, is an error. The [`config`] module tells of each key.
//!
//! # Testing your program
//!
//! With the feature `testing`, the module `testing` has a Kafka cluster that runs inside the
//! process and can be told to misbehave. The examples above were run against it.
//!
//! # How it works
//!
//! `ARCHITECTURE.md`, beside the crate's sources, tells the way of a record from station to
//! station, the threads, the order of locks, and what has gone wrong before.

#![forbid(unsafe_code)]

// The stations of a record; ARCHITECTURE.md tells its way through them.
mod accumulator; // user thread: append under the partition's lock; buffer pool
mod client; // connections, in-flight requests, API versions, time-outs
mod completion; // delivery handles, callback executor
mod metadata; // cluster snapshots, refresh
mod network; // selector, channels, frames; mio behind a seam
mod producer; // user thread: send, metadata wait, partitioner, size checks
#[cfg_attr(not(feature = "__internal"), allow(dead_code, unused_imports))] // both directions
#[allow(clippy::missing_errors_doc)] // every decoder fails alike, as `DecodeError` says
mod protocol; // one file an API (pure)
#[cfg_attr(not(feature = "__internal"), allow(dead_code, unused_imports))] // both directions
#[allow(clippy::missing_errors_doc)] // as above
mod record; // record batch v2 (pure)
mod sender; // sender thread: ready, drain, expire, send, verdicts
mod transaction; // producer id, epoch, sequences

// Beside the way.
mod claims; // of our own state, looked at in debug builds
pub mod config;
mod error;
mod event;
mod metrics; // what the producer does, in numbers
mod planted; // mistakes for the simulator to find, in tests only
mod random;
mod sync;
mod threads; // named threads without signals
mod time;
mod types;

#[cfg(all(test, not(loom)))]
mod sim; // the producer in a simulated world
#[cfg(feature = "testing")]
pub mod testing;

// The public interface.
pub use crate::completion::{CallbackTask, Delivery, Executor, RecordMetadata};
pub use crate::config::{
    Acks, ConfigKey, HostPort, Importance, MetadataRecoveryStrategy, PartitionerKind,
    ProducerBuilder, ProducerConfig, RecordingLevel, Support, ValueOrigin, ValueType,
};
pub use crate::error::{
    DeliveryCause, DeliveryError, Error, ErrorClass, Persisted, RecordPart, TimeSpent,
};
pub use crate::event::ProducerEvent;
pub use crate::metrics::{
    Average, IoTime, Meter, Metric, MetricKind, Metrics, NodeMetrics, Percentiles, ProducerMetrics,
    TopicMetrics, TrafficMetrics, prometheus_text,
};
pub use crate::producer::key_hash::{crc32_partition, fnv1a_partition, murmur2, murmur2_partition};
pub use crate::producer::partitioner::{ClusterView, PartitionError, PartitionInput, Partitioner};
pub use crate::producer::record::{Header, Headers, ProducerRecord};
pub use crate::producer::{
    Acknowledgement, BooleanSerializer, BoxedCallback, BytesSerializer, Callbacks, CloseReport,
    DoubleSerializer, FloatSerializer, IntegerSerializer, InterceptedRecord, InterceptorError,
    KafkaProducer, ListSerializer, LongSerializer, OwnedRecord, Partial, PartitionInfo, Producer,
    ProducerInterceptor, Purge, Refused, RefusedWith, SerializeError, Serializer, ShortSerializer,
    StringSerializer, TopicProducer, TopicRecord, TypedProducer, TypedRecord, UuidSerializer,
    VoidSerializer,
};
pub use crate::protocol::ErrorCode;
pub use crate::types::{TopicPartition, Uuid};

/// Inner parts for benches, fuzz targets and tests of the wire format; no promise of stability.
#[cfg(feature = "__internal")]
#[doc(hidden)]
#[allow(clippy::missing_errors_doc, clippy::missing_panics_doc)]
pub mod internal {
    #[allow(unused_imports)]
    pub mod protocol {
        pub use crate::protocol::*;
    }
    #[allow(unused_imports)]
    pub mod record {
        pub use crate::record::*;
    }

    /// Bytes from a peer that may be none of ours, for fuzzing.
    pub mod peer {
        pub use crate::client::fed::{Fed, feed_connection};
        #[cfg(feature = "testing")]
        pub use crate::testing::fed::{Heard, feed_broker};

        /// Cuts `bytes`, which arrive in pieces of so many, into frames of `max` bytes at most;
        /// the lengths of those that were whole.
        pub fn read_frames(bytes: &[u8], piece: usize, max: usize) -> Vec<usize> {
            let mut reader = crate::network::FrameReader::new(max);
            let mut lengths = Vec::new();
            for piece in bytes.chunks(piece.max(1)) {
                if reader.feed(piece, |body| lengths.push(body.len())).is_err() {
                    break;
                }
            }
            lengths
        }
    }

    /// Private parts in wrappers, for benches.
    pub mod parts {
        use crate::accumulator::buffer_pool::{Allocation, BufferPool};
        use crate::accumulator::shares::ShareLimits;
        use crate::completion::*;
        use crate::sync::Arc;

        /// The memory of batches.
        pub struct Pool(BufferPool);

        impl Pool {
            pub fn new(total: usize, poolable: usize) -> Self {
                Self(BufferPool::new(total, poolable, ShareLimits::none()))
            }

            /// Memory, if there is some without a wait.
            pub fn take(&self, size: usize) -> Option<Vec<u8>> {
                match self.0.begin_uncharged(size).ok()? {
                    Allocation::Granted(memory) => Some(memory),
                    Allocation::Refused(_) => None,
                }
            }

            pub fn give_back(&self, memory: Vec<u8>) {
                self.0.release_uncharged([memory]);
            }
        }

        /// The threads that run callbacks, and a partition's queue to them.
        pub struct Callbacks(CallbackExecutor, Arc<Lane>);

        /// A delivered batch whose callbacks have not been handed over.
        pub struct Decided(CompletedBatch);

        /// Nobody cares who waits.
        struct Unheard;

        impl WaitListener for Unheard {
            fn on_wait(&self) {}
        }

        impl Callbacks {
            pub fn start(threads: usize) -> std::io::Result<Self> {
                let slots = Arc::new(Slots::new(usize::MAX));
                let kind = ExecutorKind::Threads(threads);
                let executor = CallbackExecutor::start(kind, Guests::default(), "bench", slots)?;
                Ok(Self(executor, Arc::new(Lane::new())))
            }

            /// A batch of records with these callbacks, each of which has taken its slot.
            pub fn decide<F: FnOnce() + Send + 'static>(
                &self,
                callbacks: impl Iterator<Item = F>,
            ) -> Decided {
                let result = Arc::new(BatchResult::new("t".into(), 0, Arc::new(Unheard)));
                result.complete(Outcome::Delivered { base_offset: 0, log_append_time: None });
                let pending = |(index, callback): (usize, F)| {
                    self.0.slots().try_acquire().into_iter().for_each(Slot::keep);
                    let run = Callback::User(Box::new(move |_| callback()));
                    let facts = RecordFacts::new(index as u32, 0, None, Some(&[0; 100]));
                    PendingCallback::new(facts, run)
                };
                let callbacks = callbacks.enumerate().map(pending).collect();
                Decided(CompletedBatch { result, callbacks, flush: Vec::new() })
            }

            pub fn hand_over(&self, batch: Decided) {
                self.0.submit(&self.1, batch.0);
                self.0.tell();
            }
        }
    }
}

//! What can go wrong, for whom, and what to do about it.
//!
//! One enum for every public call. An `Err` from any form of `send` means that the record was not
//! accepted and no callback will run; what goes wrong afterwards reaches the delivery handle or
//! the callback as [`Error::Delivery`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::protocol::ErrorCode;
use crate::types::TopicPartition;

/// Every failure of this crate's public calls. Cheap to clone.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is wrong; from `build` and `from_properties` only. The text names the key.
    Config(Arc<str>),
    /// A topic's name is empty, longer than 249 bytes, `.` or `..`, or has a character outside
    /// `[a-zA-Z0-9._-]`; or the broker calls it invalid. Correct the name.
    InvalidTopic {
        /// The name as it was given.
        topic: Arc<str>,
        /// What is wrong with it.
        reason: Arc<str>,
    },
    /// A record can't be sent as it was built: a negative partition or timestamp, or a partitioner
    /// that chose a partition that does not exist. Correct the record.
    InvalidRecord(Arc<str>),
    /// A serializer failed or panicked. Correct the value, or the serializer.
    Serialization {
        /// The topic that the record was for.
        topic: Arc<str>,
        /// Which serializer.
        part: RecordPart,
        /// What it said.
        reason: Arc<str>,
    },
    /// The record is larger than `max.request.size` or `buffer.memory` allows. Raise the named
    /// setting (and the broker's `message.max.bytes`), or send a smaller record.
    RecordTooLarge {
        /// The record's size in bytes, as Kafka estimates it with all overhead.
        size: usize,
        /// The bound in bytes.
        limit: usize,
        /// The setting that holds the bound.
        setting: &'static str,
    },
    /// The topic's metadata, or the record's partition, did not appear within `max.block.ms`.
    /// Check that the topic exists, that the partition does, and that the brokers can be reached.
    MetadataTimeout {
        /// The topic.
        topic: Arc<str>,
        /// How long the call waited.
        waited: Duration,
        /// What is known of the cause: the last error of the brokers or of the network.
        cause: Arc<str>,
    },
    /// Of all brokers that are known none speaks a version of a request that this crate needs: they
    /// are older than Kafka 0.11, or the listener is not one for clients. Correct
    /// `bootstrap.servers`, or have the brokers upgraded.
    UnsupportedVersion {
        /// The broker that was asked last.
        broker: Arc<str>,
        /// The request.
        api: &'static str,
        /// The lowest and the highest version that this crate speaks.
        client: (i16, i16),
        /// The same of the broker; none if it does not take the request at all.
        offered: Option<(i16, i16)>,
        /// All this in words.
        text: Arc<str>,
    },
    /// No buffer memory came free within `max.block.ms`: records are produced faster than they are
    /// delivered. Slow down, or raise `buffer.memory` or `max.block.ms`.
    BufferExhausted {
        /// How long the call waited.
        waited: Duration,
    },
    /// The record's partition, or the broker that leads it, holds as much of the buffer as it may
    /// while others use it too: it takes records more slowly than they are sent, or not at all.
    /// From `try_send` at once, from `send` after `max.block.ms`. Records for others are not held
    /// up. Slow down there, send elsewhere, or raise the named setting.
    BufferShareExhausted {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// The setting that holds the bound: `buffer.memory.partition.share` or
        /// `buffer.memory.broker.share`.
        setting: &'static str,
        /// How long the call waited.
        waited: Duration,
    },
    /// As many callbacks are outstanding as `callback.max.pending` allows. Make callbacks faster,
    /// raise `callback.threads`, or slow down.
    CallbackBacklogFull {
        /// How long the call waited; zero in a callback, which never waits for a slot.
        waited: Duration,
    },
    /// `try_send` would have had to wait: the topic's metadata is not known yet. It has been asked
    /// for; try again later, or call `send`.
    NotReady {
        /// The topic.
        topic: Arc<str>,
    },
    /// The cluster refused access to the topic or the cluster. Have the ACLs changed.
    Authorization {
        /// The broker's error.
        code: ErrorCode,
        /// The topic, or what else was refused.
        resource: Arc<str>,
    },
    /// The producer is closed, or was closed while the call waited.
    Closed,
    /// The call was made inside a callback, where it would wait for itself. Make it elsewhere.
    InCallback {
        /// The call.
        call: &'static str,
    },
    /// The process is a forked child of the one that built the producer, where its threads do not
    /// exist. Build a producer of the child's own.
    Forked,
    /// The delivery was not decided within the time that `wait_timeout` was given. The record is
    /// still on its way: wait again. Or a `purge` was not done in time; it will be.
    WaitTimeout,
    /// `flush` ran out of time; everything goes on. Flush again, or allow more time.
    FlushTimeout {
        /// Records accepted before the call and not yet completed.
        records: usize,
        /// Callbacks of such records that have not finished yet.
        callbacks: usize,
    },
    /// An accepted record was not delivered; the failure of a handle or a callback.
    Delivery(Arc<DeliveryError>),
    /// The sender thread met a defect of this crate and stopped; every pending and later call
    /// fails with this. Please report it. Build a new producer.
    Fatal(Arc<str>),
}

/// What of a record a serializer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordPart {
    /// The key.
    Key,
    /// The value.
    Value,
}

impl fmt::Display for RecordPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Value => "value",
        })
    }
}

/// Why an accepted record failed.
#[derive(Clone, Debug)]
pub struct DeliveryError {
    /// The topic and partition that the record was meant for.
    pub topic_partition: TopicPartition,
    /// What ended the delivery.
    pub cause: DeliveryCause,
    /// The last failure before, where the cause tells nothing of it: what the attempts met, or why
    /// there were none.
    pub last: Option<DeliveryCause>,
    /// How often the record's batch was handed to a connection.
    pub attempts: u32,
    /// The broker that the last attempt went to, as `host:port (id 1)`; none if there was none.
    pub broker: Option<Arc<str>>,
    /// The time from the batch's start to the failure.
    pub elapsed: Duration,
    /// Where that time went.
    pub spent: TimeSpent,
    /// Whether the record may be in the log all the same.
    pub persisted: Persisted,
}

/// Where a failed record's time went, from the start of its batch. The four add up to
/// [`DeliveryError::elapsed`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeSpent {
    /// The partition had no leader that was known: an election went on, or no metadata could be
    /// had.
    pub metadata: Duration,
    /// It waited in line for any other reason: linger, `max.in.flight.requests.per.connection`, a
    /// producer id, or a leader that could not be reached.
    pub queued: Duration,
    /// A request carried it.
    pub in_flight: Duration,
    /// It waited for `retry.backoff.ms` after a failed attempt.
    pub backoff: Duration,
}

/// The event that ended a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeliveryCause {
    /// The broker answered with an error that more attempts can't mend, or all `retries` are used.
    Broker {
        /// The error.
        code: ErrorCode,
        /// The broker's own words, or the usual text of the error.
        message: Arc<str>,
    },
    /// The broker refused the whole batch because of other records in it, whose errors name them
    /// (KIP-467). This one was at no fault and is not in the log: send it again.
    BatchRejected {
        /// The error of the batch.
        code: ErrorCode,
    },
    /// `delivery.timeout.ms` passed before an answer came.
    Timeout,
    /// The connection was lost while the request was under way, and no retries are left.
    Disconnected,
    /// `request.timeout.ms` passed without an answer, and no retries are left.
    RequestTimeout,
    /// There was no way to the partition's leader; only ever the [`last`](DeliveryError::last)
    /// failure before the end. Says what stood in the way: correct that.
    Unreachable(Arc<str>),
    /// There was no producer id to send it with, which `enable.idempotence` needs: what the last
    /// attempt to get one met. Only ever the [`last`](DeliveryError::last) failure before the end.
    NoProducerId(Arc<DeliveryCause>),
    /// The partition's leader wanted to be left alone for that long, as it does where a quota is
    /// exceeded (KIP-219); only ever the [`last`](DeliveryError::last) failure before the end. Send
    /// less, or have the quota raised.
    Throttled {
        /// What it asked for.
        delay: Duration,
    },
    /// The broker supports no version of the request that this client knows.
    UnsupportedVersion(Arc<str>),
    /// The broker's answer could not be read or did not match the request.
    BadResponse(Arc<str>),
    /// The producer was closed before the record was delivered.
    Closed,
    /// The program had it given up before it was sent, by
    /// [`purge`](crate::KafkaProducer::purge).
    Purged,
    /// The sender thread met a defect of this crate and stopped.
    Fatal(Arc<str>),
}

impl DeliveryCause {
    /// A name for it, for figures: the error's own, if a broker sent one.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Broker { code, .. } => code.name(),
            Self::BatchRejected { code, .. } => code.name(),
            Self::Timeout => "DELIVERY_TIMEOUT",
            Self::Disconnected => "DISCONNECTED",
            Self::Unreachable(_) => "UNREACHABLE",
            Self::NoProducerId(_) => "NO_PRODUCER_ID",
            Self::Throttled { .. } => "THROTTLED",
            Self::RequestTimeout => "REQUEST_TIMEOUT",
            Self::UnsupportedVersion(_) => "UNSUPPORTED_VERSION",
            Self::BadResponse(_) => "BAD_RESPONSE",
            Self::Closed => "CLOSED",
            Self::Purged => "PURGED",
            Self::Fatal(_) => "FATAL",
        }
    }
}

/// Whether a record that failed may be in the log all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persisted {
    /// It is not: each attempt either put no byte on a socket or was answered by an error that
    /// proves that nothing was appended. Sending it again makes no duplicate.
    No,
    /// It may be: an answer is missing.
    Unknown,
}

/// What kind of reaction an error calls for, after KIP-1050.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorClass {
    /// The same call may succeed later.
    Retriable,
    /// The same call may succeed once metadata was refreshed, which happens by itself.
    RefreshRetriable,
    /// The record or the call is at fault: correct it.
    ApplicationRecoverable,
    /// The configuration, of this client or of the cluster, is at fault.
    InvalidConfiguration,
    /// This producer is of no more use.
    Fatal,
}

impl Error {
    /// The kind of reaction that this error calls for.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Config(_)
            | Self::RecordTooLarge { .. }
            | Self::UnsupportedVersion { .. }
            | Self::Authorization { .. } => ErrorClass::InvalidConfiguration,
            Self::InvalidTopic { .. }
            | Self::InvalidRecord(_)
            | Self::Serialization { .. }
            | Self::InCallback { .. } => ErrorClass::ApplicationRecoverable,
            Self::MetadataTimeout { .. } | Self::NotReady { .. } => ErrorClass::RefreshRetriable,
            Self::BufferExhausted { .. }
            | Self::BufferShareExhausted { .. }
            | Self::CallbackBacklogFull { .. }
            | Self::WaitTimeout
            | Self::FlushTimeout { .. } => ErrorClass::Retriable,
            Self::Closed | Self::Forked | Self::Fatal(_) => ErrorClass::Fatal,
            Self::Delivery(e) => e.cause.class(),
        }
    }

    /// Whether the same call may succeed later without a change.
    pub fn is_retriable(&self) -> bool {
        matches!(self.class(), ErrorClass::Retriable | ErrorClass::RefreshRetriable)
    }
}

impl DeliveryCause {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Broker { code, .. } => code.class(),
            Self::BatchRejected { .. }
            | Self::Timeout
            | Self::Disconnected
            | Self::RequestTimeout
            | Self::Unreachable(_)
            | Self::NoProducerId(_)
            | Self::Throttled { .. } => ErrorClass::Retriable,
            Self::UnsupportedVersion(_) => ErrorClass::InvalidConfiguration,
            Self::BadResponse(_) => ErrorClass::Retriable,
            Self::Purged => ErrorClass::ApplicationRecoverable,
            Self::Closed | Self::Fatal(_) => ErrorClass::Fatal,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(text) => write!(f, "invalid configuration: {text}"),
            Self::InvalidTopic { topic, reason } => write!(f, "invalid topic {topic:?}: {reason}"),
            Self::InvalidRecord(text) => write!(f, "invalid record: {text}"),
            Self::Serialization { topic, part, reason } => {
                write!(f, "the {part} of a record for {topic} can't be serialized: {reason}")
            }
            Self::RecordTooLarge { size, limit, setting } => {
                write!(f, "the record is {size} bytes, more than the {limit} of {setting}")
            }
            Self::MetadataTimeout { topic, waited, cause } => {
                write!(f, "no metadata of topic {topic} after {} ms: {cause}", waited.as_millis())
            }
            Self::UnsupportedVersion { text, .. } => f.write_str(text),
            Self::BufferExhausted { waited } => {
                write!(f, "no buffer memory came free within {} ms", waited.as_millis())
            }
            Self::BufferShareExhausted { topic, partition, setting, waited } => {
                let waited = waited.as_millis();
                write!(f, "{topic}-{partition} has used up {setting}, for {waited} ms")
            }
            Self::CallbackBacklogFull { waited } => {
                write!(f, "callback.max.pending reached for {} ms", waited.as_millis())
            }
            Self::NotReady { topic } => write!(f, "metadata of topic {topic} is not known yet"),
            Self::Authorization { code, resource } => {
                write!(f, "{code}: {} {resource}", code.message())
            }
            Self::Closed => f.write_str("the producer is closed"),
            Self::InCallback { call } => write!(f, "{call} was called inside a callback"),
            Self::Forked => f.write_str("the producer belongs to the parent of this process"),
            Self::WaitTimeout => f.write_str("the delivery is not decided yet"),
            Self::FlushTimeout { records, callbacks } => {
                write!(f, "flush timed out with {records} records and {callbacks} callbacks left")
            }
            Self::Delivery(e) => e.fmt(f),
            Self::Fatal(text) => write!(f, "the sender thread has failed: {text}"),
        }
    }
}

impl fmt::Display for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "delivery to {} failed after {} attempt{}",
            self.topic_partition,
            self.attempts,
            if self.attempts == 1 { "" } else { "s" },
        )?;
        if let Some(broker) = &self.broker {
            write!(f, ", the last to {broker},")?;
        }
        write!(f, " and {} ms ({}): {}", self.elapsed.as_millis(), self.spent, self.cause)?;
        if let Some(last) = &self.last {
            write!(f, " (before that: {last})")?;
        }
        match self.persisted {
            Persisted::No => f.write_str("; the record is not in the log"),
            Persisted::Unknown => f.write_str("; the record may be in the log"),
        }
    }
}

impl fmt::Display for TimeSpent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [metadata, queued, in_flight, backoff] =
            [self.metadata, self.queued, self.in_flight, self.backoff].map(|d| d.as_millis());
        write!(
            f,
            "without a leader {metadata}, queued {queued}, in flight {in_flight}, \
             in backoff {backoff}"
        )
    }
}

impl fmt::Display for DeliveryCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker { code, message } => write!(f, "{code}: {message}"),
            Self::BatchRejected { code } => {
                write!(f, "{code}: the batch was refused because of other records in it")
            }
            Self::Timeout => f.write_str("delivery.timeout.ms has passed"),
            Self::Disconnected => f.write_str("the connection was lost"),
            Self::RequestTimeout => f.write_str("no answer within request.timeout.ms"),
            Self::Unreachable(text) | Self::UnsupportedVersion(text) | Self::BadResponse(text) => {
                f.write_str(text)
            }
            Self::NoProducerId(why) => write!(f, "no producer id yet: {why}"),
            Self::Throttled { delay } => write!(
                f,
                "the leader asked to be sent nothing for {} ms, as where a quota is exceeded",
                delay.as_millis()
            ),
            Self::Closed => f.write_str("the producer was closed"),
            Self::Purged => f.write_str("the program had it given up"),
            Self::Fatal(text) => write!(f, "the sender thread has failed: {text}"),
        }
    }
}

/// Each tells the whole of it by itself: a source would have chains of errors say it twice.
impl std::error::Error for Error {}

impl std::error::Error for DeliveryError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_small_and_can_cross_threads() {
        fn crosses<T: Clone + Send + Sync + 'static>() {}
        crosses::<Error>();
        assert!(size_of::<Error>() <= 64, "{} bytes", size_of::<Error>());
    }

    #[test]
    fn a_chain_of_errors_says_nothing_twice() {
        let failure = DeliveryError {
            topic_partition: TopicPartition { topic: "t".into(), partition: 0 },
            cause: DeliveryCause::Timeout,
            last: Some(DeliveryCause::Disconnected),
            attempts: 1,
            broker: None,
            elapsed: Duration::ZERO,
            spent: TimeSpent::default(),
            persisted: Persisted::Unknown,
        };
        let error = Error::Delivery(Arc::new(failure.clone()));
        assert_eq!(error.to_string(), failure.to_string());
        assert!(std::error::Error::source(&error).is_none());
    }
}

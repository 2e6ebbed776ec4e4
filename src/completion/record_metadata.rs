//! What is known of a delivered record; built on the thread that asks for it.

use std::fmt;
use std::sync::Arc;

/// Where a record went: what a [`Delivery`](crate::Delivery) or a callback tells of a success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordMetadata {
    topic: Arc<str>,
    partition: i32,
    offset: Option<i64>,
    timestamp: i64,
    key_size: i32,
    value_size: i32,
}

/// What a record knows of itself: its place in its batch, timestamp and sizes (-1: null).
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordFacts {
    pub(crate) index: u32,
    pub(super) timestamp: i64,
    pub(super) key_size: i32,
    pub(super) value_size: i32,
}

impl RecordFacts {
    /// `timestamp` in milliseconds since 1970.
    #[inline]
    pub(crate) fn new(
        index: u32,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Self {
        // Records are no larger than `max.request.size`, an i32.
        let size = |bytes: Option<&[u8]>| bytes.map_or(-1, |b| b.len() as i32);
        Self { index, timestamp, key_size: size(key), value_size: size(value) }
    }

    #[inline]
    pub(crate) fn timestamp(&self) -> i64 {
        self.timestamp
    }
}

impl RecordMetadata {
    /// `base_offset` below 0 stands for "unknown", as in the protocol; `append_time` is the
    /// broker's clock, told for topics with `message.timestamp.type=LogAppendTime`.
    pub(super) fn new(
        topic: Arc<str>,
        partition: i32,
        base_offset: i64,
        append_time: Option<i64>,
        record: RecordFacts,
    ) -> Self {
        let offset =
            if base_offset < 0 { None } else { base_offset.checked_add(record.index.into()) };
        let timestamp = append_time.unwrap_or(record.timestamp);
        let RecordFacts { key_size, value_size, .. } = record;
        Self { topic, partition, offset, timestamp, key_size, value_size }
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The partition's number, from 0.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// The record's offset in its partition. `None` if the broker did not tell: always with
    /// `acks=0`, and after a retry that the broker took for a duplicate it no longer remembers.
    pub fn offset(&self) -> Option<i64> {
        self.offset
    }

    /// The record's timestamp in the log, in milliseconds since 1970: its own, or the broker's
    /// time of appending if the topic has `message.timestamp.type=LogAppendTime`.
    pub fn timestamp(&self) -> i64 {
        self.timestamp
    }

    /// The serialized key's length in bytes; `None` if the key is null.
    pub fn key_size(&self) -> Option<usize> {
        usize::try_from(self.key_size).ok()
    }

    /// The serialized value's length in bytes; `None` if the value is null.
    pub fn value_size(&self) -> Option<usize> {
        usize::try_from(self.value_size).ok()
    }
}

/// `topic-partition@offset`, as Kafka's own client prints it.
impl fmt::Display for RecordMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.offset {
            Some(offset) => write!(f, "{}-{}@{offset}", self.topic, self.partition),
            None => write!(f, "{}-{}@unknown", self.topic, self.partition),
        }
    }
}

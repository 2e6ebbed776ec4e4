//! A handle for one topic: the look-up is done once, which is worth it for many small records.

use std::borrow::Cow;
use std::fmt;

use super::core::{Core, RecordParts};
use super::record::{Headers, validate_numbers};
use crate::accumulator::Patience;
use crate::accumulator::topic_map::Topic;
use crate::completion::{Delivery, RecordMetadata};
use crate::error::Error;
use crate::sync::Arc;

/// Sends to one topic. Made by [`KafkaProducer::topic`](super::KafkaProducer::topic).
///
/// It does not keep the producer open: once the last [`KafkaProducer`](super::KafkaProducer) is
/// dropped or closed, sends fail with [`Error::Closed`].
#[derive(Clone)]
pub struct TopicProducer {
    core: Arc<Core>,
    topic: Arc<Topic>,
}

/// A record for a [`TopicProducer`]: as [`ProducerRecord`](crate::ProducerRecord), without the
/// topic.
#[derive(Clone, Debug, Default)]
#[must_use = "a record does nothing until it is sent"]
pub struct TopicRecord<'a> {
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Headers<'a>,
    partition: Option<i32>,
    timestamp: Option<i64>,
}

impl<'a> TopicRecord<'a> {
    /// A record with this value, possibly empty, never null.
    #[inline]
    pub fn new<V: AsRef<[u8]> + ?Sized>(value: &'a V) -> Self {
        Self { value: Some(value.as_ref()), ..Self::default() }
    }

    /// A record whose value is null, which in a compacted topic deletes its key.
    pub fn tombstone() -> Self {
        Self::default()
    }

    /// Sets the key.
    #[inline]
    pub fn key<K: AsRef<[u8]> + ?Sized>(mut self, key: &'a K) -> Self {
        self.key = Some(key.as_ref());
        self
    }

    /// Adds a header after those already there. A name may occur more than once.
    pub fn header<V: AsRef<[u8]> + ?Sized>(
        mut self,
        name: impl Into<Cow<'a, str>>,
        value: &'a V,
    ) -> Self {
        self.headers.push(name, value.as_ref());
        self
    }

    /// Adds a header whose value is null.
    pub fn null_header(mut self, name: impl Into<Cow<'a, str>>) -> Self {
        self.headers.push_null(name);
        self
    }

    /// Names the partition; a negative one is refused by `send`.
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Sets the timestamp, in milliseconds since 1970; a negative one is refused by `send`.
    pub fn timestamp(mut self, millis: i64) -> Self {
        self.timestamp = Some(millis);
        self
    }

    fn parts(&self) -> RecordParts<'_> {
        let Self { key, value, ref headers, partition, timestamp } = *self;
        RecordParts { key, value, headers, partition, timestamp }
    }
}

impl TopicProducer {
    pub(super) fn new(core: Arc<Core>, topic: Arc<Topic>) -> Self {
        Self { core, topic }
    }

    /// The topic's name.
    pub fn name(&self) -> &str {
        &self.topic.name
    }

    /// As [`KafkaProducer::send`](super::KafkaProducer::send).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn send(&self, record: TopicRecord<'_>) -> Result<Delivery, Error> {
        validate_numbers(record.partition, record.timestamp)?;
        self.core.send_to(&self.topic, record.parts(), None, &mut self.core.patience())
    }

    /// As [`KafkaProducer::send_with`](super::KafkaProducer::send_with).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn send_with(
        &self,
        record: TopicRecord<'_>,
        callback: impl FnOnce(Result<&RecordMetadata, &Error>) + Send + 'static,
    ) -> Result<(), Error> {
        validate_numbers(record.partition, record.timestamp)?;
        let callback = Some(Box::new(callback) as _);
        self.core.send_to(&self.topic, record.parts(), callback, &mut self.core.patience())?;
        Ok(())
    }

    /// As [`KafkaProducer::try_send`](super::KafkaProducer::try_send); a refusal leaves the record
    /// with the caller, who lends it only.
    ///
    /// # Errors
    /// As there.
    pub fn try_send(&self, record: &TopicRecord<'_>) -> Result<Delivery, Error> {
        validate_numbers(record.partition, record.timestamp)?;
        self.core.send_to(&self.topic, record.parts(), None, &mut Patience::None)
    }
}

impl fmt::Debug for TopicProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TopicProducer").field(&self.topic.name).finish()
    }
}

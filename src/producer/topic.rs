//! A handle for one topic: the look-up is done once, which is worth it for many small records.

use std::fmt;
use std::time::Duration;

use super::core::Core;
use super::record::TopicRecord;
use crate::accumulator::Patience;
use crate::accumulator::topic_map::Topic;
use crate::completion::{Callback, Delivery, RecordMetadata};
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
        self.core.send_to(&self.topic, &record, &mut self.core.patience())
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
        let mut callback = Some(Callback::User(Box::new(callback)));
        self.core.send_to_with(&self.topic, &record, &mut callback, &mut self.core.patience())
    }

    /// As [`KafkaProducer::send_timeout`](super::KafkaProducer::send_timeout).
    ///
    /// # Errors
    /// As there.
    pub fn send_timeout(
        &self,
        record: TopicRecord<'_>,
        timeout: Duration,
    ) -> Result<Delivery, Error> {
        self.core.send_to(&self.topic, &record, &mut Patience::For(timeout))
    }

    /// As [`KafkaProducer::send_with_timeout`](super::KafkaProducer::send_with_timeout).
    ///
    /// # Errors
    /// As there.
    pub fn send_with_timeout(
        &self,
        record: TopicRecord<'_>,
        callback: impl FnOnce(Result<&RecordMetadata, &Error>) + Send + 'static,
        timeout: Duration,
    ) -> Result<(), Error> {
        let mut callback = Some(Callback::User(Box::new(callback)));
        self.core.send_to_with(&self.topic, &record, &mut callback, &mut Patience::For(timeout))
    }

    /// As [`KafkaProducer::try_send`](super::KafkaProducer::try_send); a refusal leaves the record
    /// with the caller, who lends it only.
    ///
    /// # Errors
    /// As there.
    pub fn try_send(&self, record: &TopicRecord<'_>) -> Result<Delivery, Error> {
        self.core.send_to(&self.topic, record, &mut Patience::None)
    }
}

impl fmt::Debug for TopicProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TopicProducer").field(&self.topic.name).finish()
    }
}

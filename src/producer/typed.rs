//! Records of typed keys and values, on top of any producer.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use super::interface::Producer;
use super::record::{Headers, ProducerRecord, TopicRecord};
use super::serializer::{SerializeError, Serializer};
use crate::completion::{Delivery, RecordMetadata, guarded};
use crate::error::{Error, RecordPart};

/// A producer of records whose keys and values go through serializers; made by
/// [`KafkaProducer::typed`](crate::KafkaProducer::typed), or over any other [`Producer`].
///
/// Interceptors and partitioners see the bytes. What has no typed form here is called on the
/// [`producer`](Self::producer) beneath.
///
/// ```
/// use kafka_producer::testing::MockProducer;
/// use kafka_producer::{LongSerializer, StringSerializer, TypedProducer, TypedRecord};
///
/// let mock = MockProducer::new();
/// let orders = TypedProducer::new(mock.clone(), LongSerializer, StringSerializer);
/// orders.send(TypedRecord::new("orders", "paid").key(&4711))?;
/// assert_eq!(mock.history()[0].key.as_deref(), Some(&4711i64.to_be_bytes()[..]));
/// # Ok::<(), kafka_producer::Error>(())
/// ```
#[derive(Clone)]
pub struct TypedProducer<P, K, V> {
    producer: P,
    key: K,
    value: V,
}

/// A record for a [`TypedProducer`]. It borrows its key and value.
#[must_use = "a record does nothing until it is sent"]
pub struct TypedRecord<'a, K: ?Sized, V: ?Sized> {
    topic: &'a str,
    key: Option<&'a K>,
    value: Option<&'a V>,
    headers: Headers<'a>,
    partition: Option<i32>,
    timestamp: Option<i64>,
}

impl<'a, K: ?Sized, V: ?Sized> TypedRecord<'a, K, V> {
    /// A record with this value.
    pub fn new(topic: &'a str, value: &'a V) -> Self {
        Self { value: Some(value), ..Self::tombstone(topic) }
    }

    /// A record whose value is null, which in a compacted topic deletes its key.
    pub fn tombstone(topic: &'a str) -> Self {
        let headers = Headers::new();
        Self { topic, key: None, value: None, headers, partition: None, timestamp: None }
    }

    /// Sets the key; without it the key is null.
    pub fn key(mut self, key: &'a K) -> Self {
        self.key = Some(key);
        self
    }

    /// Adds a header after those already there. A name may occur more than once.
    pub fn header<H: AsRef<[u8]> + ?Sized>(
        mut self,
        name: impl Into<Cow<'a, str>>,
        value: &'a H,
    ) -> Self {
        self.headers.push(name, value.as_ref());
        self
    }

    /// Replaces all headers.
    pub fn headers(mut self, headers: Headers<'a>) -> Self {
        self.headers = headers;
        self
    }

    /// Names the partition, as [`ProducerRecord::partition`].
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Sets the timestamp, as [`ProducerRecord::timestamp`].
    pub fn timestamp(mut self, millis: i64) -> Self {
        self.timestamp = Some(millis);
        self
    }
}

impl<K: ?Sized, V: ?Sized> Clone for TypedRecord<'_, K, V> {
    fn clone(&self) -> Self {
        Self { headers: self.headers.clone(), ..*self }
    }
}

impl<K: ?Sized, V: ?Sized> fmt::Debug for TypedRecord<'_, K, V> {
    /// No payload: records end up in log lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedRecord").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl<P: Producer, K: Serializer, V: Serializer> TypedProducer<P, K, V> {
    /// One that sends by `producer`.
    pub fn new(producer: P, key: K, value: V) -> Self {
        Self { producer, key, value }
    }

    /// The producer beneath.
    pub fn producer(&self) -> &P {
        &self.producer
    }

    /// As [`KafkaProducer::send`](crate::KafkaProducer::send).
    ///
    /// # Errors
    /// As there, and [`Error::Serialization`].
    pub fn send(&self, record: TypedRecord<'_, K::Input, V::Input>) -> Result<Delivery, Error> {
        self.serialized(record, |record| self.producer.send(record))
    }

    /// As [`KafkaProducer::send_with`](crate::KafkaProducer::send_with).
    ///
    /// # Errors
    /// As there, and [`Error::Serialization`]. The callback never runs then.
    pub fn send_with(
        &self,
        record: TypedRecord<'_, K::Input, V::Input>,
        callback: impl FnOnce(Result<&RecordMetadata, &Error>) + Send + 'static,
    ) -> Result<(), Error> {
        self.serialized(record, |record| self.producer.send_with(record, Box::new(callback)))
    }

    /// As [`KafkaProducer::send_timeout`](crate::KafkaProducer::send_timeout).
    ///
    /// # Errors
    /// As there, and [`Error::Serialization`].
    pub fn send_timeout(
        &self,
        record: TypedRecord<'_, K::Input, V::Input>,
        timeout: Duration,
    ) -> Result<Delivery, Error> {
        self.serialized(record, |record| self.producer.send_timeout(record, timeout))
    }

    /// As [`KafkaProducer::send_with_timeout`](crate::KafkaProducer::send_with_timeout).
    ///
    /// # Errors
    /// As there, and [`Error::Serialization`]. The callback never runs then.
    pub fn send_with_timeout(
        &self,
        record: TypedRecord<'_, K::Input, V::Input>,
        callback: impl FnOnce(Result<&RecordMetadata, &Error>) + Send + 'static,
        timeout: Duration,
    ) -> Result<(), Error> {
        let callback = Box::new(callback);
        self.serialized(record, |record| self.producer.send_with_timeout(record, callback, timeout))
    }

    /// As [`KafkaProducer::try_send`](crate::KafkaProducer::try_send); a refusal leaves the record
    /// with the caller, who lends it only.
    ///
    /// # Errors
    /// As there, and [`Error::Serialization`].
    pub fn try_send(
        &self,
        record: &TypedRecord<'_, K::Input, V::Input>,
    ) -> Result<Delivery, Error> {
        self.serialized(record.clone(), |record| Ok(self.producer.try_send(record)?))
    }

    /// Hands the record on as bytes.
    fn serialized<R>(
        &self,
        record: TypedRecord<'_, K::Input, V::Input>,
        send: impl FnOnce(ProducerRecord<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let TypedRecord { topic, key, value, mut headers, partition, timestamp } = record;
        let (mut of_key, mut of_value) = (Vec::new(), Vec::new());
        let failed = |part, why: String| Error::Serialization {
            topic: topic.into(),
            part,
            reason: why.into(),
        };
        let key = serialize(&self.key, topic, &mut headers, key, &mut of_key)
            .map_err(|why| failed(RecordPart::Key, why))?;
        let value = serialize(&self.value, topic, &mut headers, value, &mut of_value)
            .map_err(|why| failed(RecordPart::Value, why))?;
        let record = TopicRecord { key, value, headers, partition, timestamp };
        send(ProducerRecord::of(topic, record))
    }
}

/// Null stays null; a panic is as good as an error.
fn serialize<'s, S: Serializer>(
    serializer: &S,
    topic: &str,
    headers: &mut Headers<'_>,
    data: Option<&'s S::Input>,
    scratch: &'s mut Vec<u8>,
) -> Result<Option<&'s [u8]>, String> {
    let Some(data) = data else { return Ok(None) };
    let mut bytes: Result<_, SerializeError> = Ok(&[][..]);
    guarded(|| bytes = serializer.serialize(topic, headers, data, scratch))
        .map_err(|panic| format!("the serializer panicked: {panic}"))?;
    bytes.map(Some).map_err(|error| error.to_string())
}

impl<P: fmt::Debug, K, V> fmt::Debug for TypedProducer<P, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedProducer").field(&self.producer).finish()
    }
}

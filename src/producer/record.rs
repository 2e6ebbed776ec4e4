//! What a user hands to `send`: a record that borrows its bytes, and the rules it must keep.
//!
//! Runs on the user's thread. Nothing is copied here: the bytes go from where they lie straight
//! into the batch, under the partition's lock (`accumulator`).

use std::borrow::Cow;
use std::fmt;

use crate::error::Error;

/// A record to be sent. It borrows its topic and bytes; building one without headers allocates
/// nothing.
///
/// Key, value and header values are optional bytes: absent (Kafka's null) and empty are different
/// things to Kafka, and stay different here.
///
/// ```
/// use kafka_producer::ProducerRecord;
///
/// let record = ProducerRecord::new("orders", "paid").key(b"k1").header("trace", "4f2a");
/// assert_eq!(record.topic(), "orders");
/// assert_eq!(record.key_bytes(), Some(&b"k1"[..]));
/// ```
#[derive(Clone, PartialEq, Eq)]
#[must_use = "a record does nothing until it is sent"]
pub struct ProducerRecord<'a> {
    topic: &'a str,
    record: TopicRecord<'a>,
}

/// A record for a [`TopicProducer`](crate::TopicProducer): as [`ProducerRecord`], without the
/// topic.
#[derive(Clone, Default, PartialEq, Eq)]
#[must_use = "a record does nothing until it is sent"]
pub struct TopicRecord<'a> {
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: Headers<'a>,
    pub(super) partition: Option<i32>,
    pub(super) timestamp: Option<i64>,
}

impl<'a> ProducerRecord<'a> {
    /// A record with this value (possibly empty, never null) for this topic.
    pub fn new<V: AsRef<[u8]> + ?Sized>(topic: &'a str, value: &'a V) -> Self {
        Self { topic, record: TopicRecord::new(value) }
    }

    /// A record whose value is null, which in a compacted topic deletes its key.
    pub fn tombstone(topic: &'a str) -> Self {
        Self { topic, record: TopicRecord::tombstone() }
    }

    /// Sets the key. Records with equal keys go to the same partition, as long as the topic's
    /// number of partitions stays the same.
    pub fn key<K: AsRef<[u8]> + ?Sized>(mut self, key: &'a K) -> Self {
        self.record = self.record.key(key);
        self
    }

    /// Adds a header after those already there. A name may occur more than once.
    pub fn header<V: AsRef<[u8]> + ?Sized>(
        mut self,
        name: impl Into<Cow<'a, str>>,
        value: &'a V,
    ) -> Self {
        self.record = self.record.header(name, value);
        self
    }

    /// Adds a header that owns its value.
    pub fn owned_header(mut self, name: impl Into<Cow<'a, str>>, value: Vec<u8>) -> Self {
        self.record.headers.push(name, value);
        self
    }

    /// Adds a header whose value is null.
    pub fn null_header(mut self, name: impl Into<Cow<'a, str>>) -> Self {
        self.record = self.record.null_header(name);
        self
    }

    /// Replaces all headers.
    pub fn headers(mut self, headers: Headers<'a>) -> Self {
        self.record.headers = headers;
        self
    }

    /// Sends the record to this partition; no partitioner is asked. The number counts from 0: a
    /// negative one makes `send` fail with [`Error::InvalidRecord`].
    pub fn partition(mut self, partition: i32) -> Self {
        self.record = self.record.partition(partition);
        self
    }

    /// Sets the record's timestamp, in milliseconds since 1970 (UTC); without it, the record gets
    /// the time of `send`. A negative one makes `send` fail with [`Error::InvalidRecord`]. A topic
    /// with `message.timestamp.type=LogAppendTime` replaces it.
    pub fn timestamp(mut self, millis: i64) -> Self {
        self.record = self.record.timestamp(millis);
        self
    }

    /// The topic's name.
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// The key; `None` is Kafka's null.
    pub fn key_bytes(&self) -> Option<&'a [u8]> {
        self.record.key
    }

    /// The value; `None` is Kafka's null, a tombstone.
    pub fn value_bytes(&self) -> Option<&'a [u8]> {
        self.record.value
    }

    /// The headers, in order.
    pub fn header_list(&self) -> &Headers<'a> {
        &self.record.headers
    }

    /// The headers, for interceptors and serializers that add some.
    pub fn header_list_mut(&mut self) -> &mut Headers<'a> {
        &mut self.record.headers
    }

    /// The partition that was asked for, if one was.
    pub fn explicit_partition(&self) -> Option<i32> {
        self.record.partition
    }

    /// The timestamp that was set, if one was, in milliseconds since 1970 (UTC).
    pub fn explicit_timestamp(&self) -> Option<i64> {
        self.record.timestamp
    }

    /// From its two parts.
    pub(super) fn of(topic: &'a str, record: TopicRecord<'a>) -> Self {
        Self { topic, record }
    }

    /// All of it but the topic.
    #[inline]
    pub(crate) fn without_topic(&self) -> &TopicRecord<'a> {
        &self.record
    }
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

    fn describe<'t, 'x, 'y>(
        &self,
        text: &'t mut fmt::DebugStruct<'x, 'y>,
    ) -> &'t mut fmt::DebugStruct<'x, 'y> {
        text.field("partition", &self.partition)
            .field("timestamp", &self.timestamp)
            .field("key_size", &self.key.map(<[u8]>::len))
            .field("value_size", &self.value.map(<[u8]>::len))
            .field("headers", &self.headers.len())
    }

    /// Refuses what can't be sent whatever the cluster looks like.
    ///
    /// # Errors
    /// [`Error::InvalidRecord`] if the partition or the timestamp is negative.
    #[inline]
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let (partition, timestamp) = (self.partition.unwrap_or(0), self.timestamp.unwrap_or(0));
        if i64::from(partition) | timestamp >= 0 {
            return Ok(());
        }
        match partition {
            ..0 => refuse_negative("partition", partition.into()),
            _ => refuse_negative("timestamp", timestamp),
        }
    }
}

#[cold]
fn refuse_negative(what: &str, value: i64) -> Result<(), Error> {
    Err(Error::InvalidRecord(format!("the {what} must not be negative, but is {value}").into()))
}

impl fmt::Debug for ProducerRecord<'_> {
    /// Sizes instead of payloads: records end up in log lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("ProducerRecord");
        self.record.describe(text.field("topic", &self.topic)).finish()
    }
}

impl fmt::Debug for TopicRecord<'_> {
    /// Sizes instead of payloads, as of a [`ProducerRecord`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe(&mut f.debug_struct("TopicRecord")).finish()
    }
}

/// A record's headers: names with optional values, in order, duplicates kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers<'a>(Vec<Header<'a>>);

pub use crate::record::Header;

impl<'a> Headers<'a> {
    /// No headers; allocates nothing.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a header at the end.
    pub fn push(&mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, [u8]>>) {
        self.0.push(Header { name: name.into(), value: Some(value.into()) });
    }

    /// Adds a header with a null value at the end.
    pub fn push_null(&mut self, name: impl Into<Cow<'a, str>>) {
        self.0.push(Header { name: name.into(), value: None });
    }

    /// Removes all headers of this name; says how many there were.
    pub fn remove(&mut self, name: &str) -> usize {
        let before = self.0.len();
        self.0.retain(|h| h.name != name);
        before - self.0.len()
    }

    /// The same headers with names and values of their own.
    pub fn into_owned(self) -> Headers<'static> {
        let own = |header: Header<'a>| Header {
            name: Cow::Owned(header.name.into_owned()),
            value: header.value.map(|value| Cow::Owned(value.into_owned())),
        };
        self.0.into_iter().map(own).collect()
    }

    /// The same headers, which borrow all from these.
    pub(super) fn lend(&self) -> Headers<'_> {
        fn lent<'h>(header: &'h Header<'_>) -> Header<'h> {
            let value = header.value.as_deref().map(Cow::Borrowed);
            Header { name: Cow::Borrowed(&*header.name), value }
        }
        self.0.iter().map(lent).collect()
    }

    /// The last header of this name, which is the one that consumers look at by convention.
    pub fn last(&self, name: &str) -> Option<&Header<'a>> {
        self.0.iter().rev().find(|h| h.name == name)
    }

    /// The headers in order.
    pub fn as_slice(&self) -> &[Header<'a>] {
        &self.0
    }

    /// The headers in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Header<'a>> {
        self.0.iter()
    }

    /// How many there are, duplicates counted.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'h, 'a> IntoIterator for &'h Headers<'a> {
    type Item = &'h Header<'a>;
    type IntoIter = std::slice::Iter<'h, Header<'a>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<'a> FromIterator<Header<'a>> for Headers<'a> {
    fn from_iter<I: IntoIterator<Item = Header<'a>>>(headers: I) -> Self {
        Self(headers.into_iter().collect())
    }
}

/// The longest topic name, in bytes: a partition's folder (`name-12345`) must fit a file name.
const MAX_TOPIC_LENGTH: usize = 249;

/// Applies the brokers' rules for topic names, so that a wrong name fails at once and not after a
/// round trip.
///
/// # Errors
/// [`Error::InvalidTopic`] if the name is empty, `.`, `..`, longer than 249 bytes, or has a
/// character other than ASCII letters, digits, `.`, `_` and `-`.
pub(crate) fn validate_topic(name: &str) -> Result<(), Error> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let reason = match name {
        "" => "the name is empty",
        "." | ".." => "the names '.' and '..' are reserved",
        _ if !name.bytes().all(legal) => {
            "only ASCII letters, digits, '.', '_' and '-' are allowed in a topic's name"
        }
        _ if name.len() > MAX_TOPIC_LENGTH => "the name is longer than 249 characters",
        _ => return Ok(()),
    };
    Err(Error::InvalidTopic { topic: name.into(), reason: reason.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_empty_stay_distinct() {
        let empty = ProducerRecord::new("t", "").key("").header("h", "");
        assert_eq!(empty.key_bytes(), Some(&[][..]));
        assert_eq!(empty.value_bytes(), Some(&[][..]));
        assert_eq!(empty.header_list().as_slice()[0].value.as_deref(), Some(&[][..]));

        let null = ProducerRecord::tombstone("t").null_header("h");
        assert_eq!(null.key_bytes(), None);
        assert_eq!(null.value_bytes(), None);
        assert_eq!(null.header_list().as_slice()[0].value, None);
    }

    /// HDR-01, HDR-02.
    #[test]
    fn headers_keep_order_and_duplicates() {
        let name = String::from("made-up");
        let mut record = ProducerRecord::new("t", b"v")
            .header("a", b"1")
            .header(name, "2")
            .owned_header("a", vec![b'3'])
            .null_header("b");
        let names: Vec<_> = record.header_list().iter().map(|h| &*h.name).collect();
        assert_eq!(names, ["a", "made-up", "a", "b"]);
        assert_eq!(record.header_list().last("a").unwrap().value.as_deref(), Some(&b"3"[..]));
        let copy = record.clone();
        assert_eq!(record.header_list_mut().remove("a"), 2);
        assert_eq!(record.header_list_mut().remove("none"), 0);
        let names: Vec<_> = record.header_list().iter().map(|h| &*h.name).collect();
        assert_eq!(names, ["made-up", "b"]);
        assert_eq!(copy.header_list().len(), 4, "a copy is its own");
    }

    /// PB-15.
    #[test]
    fn records_are_equal_if_all_of_them_is() {
        let record = || ProducerRecord::new("t", "v").key("k").partition(1).timestamp(2);
        assert_eq!(record(), record());
        assert_eq!(ProducerRecord::tombstone("t"), ProducerRecord::tombstone("t"));
        let others = [
            ProducerRecord::new("u", "v").key("k").partition(1).timestamp(2),
            ProducerRecord::new("t", "w").key("k").partition(1).timestamp(2),
            ProducerRecord::tombstone("t").key("k").partition(1).timestamp(2),
            ProducerRecord::new("t", "v").partition(1).timestamp(2),
            record().key(""),
            record().partition(0),
            record().timestamp(3),
            record().header("h", "x"),
            record().null_header("h"),
        ];
        for (i, other) in others.iter().enumerate() {
            assert_ne!(*other, record(), "{i}");
        }
    }

    #[test]
    fn values_of_many_kinds_are_taken_as_bytes() {
        let text = String::from("text");
        let bytes = vec![1, 2, 3];
        assert_eq!(ProducerRecord::new("t", &text).value_bytes(), Some(&b"text"[..]));
        assert_eq!(
            ProducerRecord::new("t", &bytes).key(&bytes[..2]).key_bytes(),
            Some(&[1, 2][..])
        );
        assert_eq!(ProducerRecord::new("t", b"array").value_bytes(), Some(&b"array"[..]));
    }

    #[test]
    fn negative_partitions_and_timestamps_are_refused() {
        let record = || ProducerRecord::new("t", "v");
        assert!(record().partition(0).timestamp(0).without_topic().validate().is_ok());
        for wrong in [record().partition(-1), record().timestamp(-1)] {
            assert!(
                matches!(wrong.without_topic().validate(), Err(Error::InvalidRecord(_))),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn debug_shows_sizes_and_no_payload() {
        let record = ProducerRecord::new("t", "secret").key("hidden");
        for text in [format!("{record:?}"), format!("{:?}", record.without_topic())] {
            assert!(text.contains("value_size: Some(6)"), "{text}");
            assert!(!text.contains("secret") && !text.contains("hidden"), "{text}");
        }
    }

    #[test]
    fn topic_names_follow_the_brokers_rules() {
        let longest = "a".repeat(249);
        for good in ["a", "...", ".a", "A-z_0.9", "__consumer_offsets", &longest] {
            assert!(validate_topic(good).is_ok(), "{good}");
        }
        let too_long = "a".repeat(250);
        for bad in ["", ".", "..", "a b", "a/b", "a\n", "a:b", "tschüß", &too_long] {
            let error = validate_topic(bad).unwrap_err();
            assert!(matches!(error, Error::InvalidTopic { .. }), "{bad:?}: {error}");
        }
    }
}

//! A record that owns its bytes: what is given back, or kept, after the caller's own are gone.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::record::{Headers, ProducerRecord, TopicRecord};
use crate::record::Header;

/// A record that was accepted, with bytes of its own.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnedRecord {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition that the record was given, whether it asked for one or not.
    pub partition: i32,
    /// The key; `None` is Kafka's null.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is Kafka's null, a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers, in order.
    pub headers: Headers<'static>,
    /// The timestamp that the record was given, in milliseconds since 1970.
    pub timestamp: i64,
}

impl OwnedRecord {
    /// The record, to be sent again: with its timestamp, and without a partition, which is chosen
    /// anew. To ask for the one that it had add `.partition(owned.partition)`.
    pub fn to_record(&self) -> ProducerRecord<'_> {
        let record = TopicRecord {
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: self.headers.iter().map(lend).collect(),
            partition: None,
            timestamp: Some(self.timestamp),
        };
        ProducerRecord::of(&self.topic, record)
    }
}

fn lend<'h>(header: &'h Header<'static>) -> Header<'h> {
    Header { name: Cow::Borrowed(&header.name), value: header.value.as_deref().map(Cow::Borrowed) }
}

impl fmt::Debug for OwnedRecord {
    /// Sizes instead of payloads, as of a [`ProducerRecord`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedRecord")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("timestamp", &self.timestamp)
            .field("key_size", &self.key.as_ref().map(Vec::len))
            .field("value_size", &self.value.as_ref().map(Vec::len))
            .field("headers", &self.headers.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_sent_again_is_the_same_but_for_its_partition() {
        let first = ProducerRecord::new("t", "v").key("").header("h", "1").null_header("n");
        let owned = OwnedRecord {
            topic: "t".into(),
            partition: 4,
            key: first.key_bytes().map(<[u8]>::to_vec),
            value: first.value_bytes().map(<[u8]>::to_vec),
            headers: first.header_list().clone().into_owned(),
            timestamp: 17,
        };
        assert_eq!(owned.to_record(), first.timestamp(17));
        let text = format!("{owned:?}");
        assert!(text.contains("value_size: Some(1)") && text.contains("partition: 4"), "{text}");
    }
}

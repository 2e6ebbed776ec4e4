//! Produce (key 0), versions 3 to 13: record batches for partitions, and the verdicts on them.
//!
//! The request is the one message that carries the user's data, so it is written around the
//! batches: [`ProduceRequestEncoder`] makes the bytes before, between and after them, and says
//! where each batch goes. The connection writes both with vectored I/O. From version 13 on topics
//! go by id instead of by name (KIP-516).

use std::sync::Arc;

use super::header::encode_request_header;
use super::wire::{Decoded, Reader, Writer};
use super::{ApiKey, ErrorCode};
use crate::types::Uuid;

/// The first version in which topics go by id.
const TOPIC_IDS_FROM: i16 = 13;

/// A topic in a produce request: by name up to version 12, by id from version 13 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TopicRef<'a> {
    /// The topic's name.
    Name(&'a str),
    /// The topic's id.
    Id(Uuid),
}

/// A topic in a produce response: by name up to version 12, by id from version 13 on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TopicKey {
    /// The topic's name.
    Name(Arc<str>),
    /// The topic's id.
    Id(Uuid),
}

impl TopicKey {
    /// The same without a claim to the name.
    pub fn as_ref(&self) -> TopicRef<'_> {
        match self {
            Self::Name(name) => TopicRef::Name(name),
            Self::Id(id) => TopicRef::Id(*id),
        }
    }
}

impl From<TopicRef<'_>> for TopicKey {
    fn from(topic: TopicRef<'_>) -> Self {
        match topic {
            TopicRef::Name(name) => Self::Name(name.into()),
            TopicRef::Id(id) => Self::Id(id),
        }
    }
}

impl<'a> TopicRef<'a> {
    fn encode(self, version: i16, w: &mut Writer<'_>) {
        debug_assert_eq!(matches!(self, Self::Id(_)), version >= TOPIC_IDS_FROM);
        match self {
            Self::Name(name) => w.string(name),
            Self::Id(id) => w.uuid(id),
        }
    }

    fn decode(r: &mut Reader<'a>, version: i16) -> Decoded<Self> {
        if version >= TOPIC_IDS_FROM { r.uuid().map(Self::Id) } else { r.string().map(Self::Name) }
    }
}

/// What a produce request says beside topics and records.
#[derive(Clone, Copy, Debug)]
pub struct ProduceRequestParams<'a> {
    /// The version to encode.
    pub version: i16,
    /// What the response will repeat.
    pub correlation_id: i32,
    /// The client's name, at most 32,767 bytes.
    pub client_id: Option<&'a str>,
    /// The transactional id; none if the producer is only idempotent, or not even that.
    pub transactional_id: Option<&'a str>,
    /// 0 for no acknowledgement, 1 for the leader's, -1 for that of all in-sync replicas.
    pub acks: i16,
    /// How long the broker may wait for the in-sync replicas.
    pub timeout_ms: i32,
}

/// Writes a produce request around its batches, into two reused vectors and without any other
/// allocation.
///
/// Call [`topic`](Self::topic), then [`partition`](Self::partition) for each of its partitions, and
/// so on, and at last [`finish`](Self::finish). On the wire then go, for each `i`, the bytes of
/// `head` up to `splits[i]` that have not gone yet, and the records of the `i`th call of
/// `partition`; and in the end the rest of `head`, which may be empty.
#[derive(Debug)]
pub struct ProduceRequestEncoder<'a> {
    version: i16,
    head: &'a mut Vec<u8>,
    splits: &'a mut Vec<usize>,
    records_len: usize,
    topics_left: usize,
    partitions_left: usize,
}

impl<'a> ProduceRequestEncoder<'a> {
    /// Starts a request of so many topics. Both vectors are cleared first.
    pub fn start(
        params: &ProduceRequestParams<'_>,
        topics: usize,
        head: &'a mut Vec<u8>,
        splits: &'a mut Vec<usize>,
    ) -> Self {
        let version = params.version;
        head.clear();
        splits.clear();
        head.extend_from_slice(&[0; 4]);
        let (correlation_id, client_id) = (params.correlation_id, params.client_id);
        encode_request_header(ApiKey::Produce, version, correlation_id, client_id, head);
        let mut encoder =
            Self { version, head, splits, records_len: 0, topics_left: topics, partitions_left: 0 };
        let mut w = encoder.writer();
        w.nullable_string(params.transactional_id);
        w.i16(params.acks);
        w.i32(params.timeout_ms);
        w.length(Some(topics));
        encoder
    }

    fn writer(&mut self) -> Writer<'_> {
        Writer::new(self.head, ApiKey::Produce.is_flexible(self.version))
    }

    /// Starts a topic of so many partitions, at least one. The version decides whether it is
    /// named or goes by its id.
    pub fn topic(&mut self, topic: TopicRef<'_>, partitions: usize) {
        debug_assert!(self.partitions_left == 0 && self.topics_left > 0 && partitions > 0);
        self.topics_left -= 1;
        self.partitions_left = partitions;
        let version = self.version;
        let mut w = self.writer();
        topic.encode(version, &mut w);
        w.length(Some(partitions));
    }

    /// Adds a partition of the last topic, with records of so many bytes.
    pub fn partition(&mut self, index: i32, records_len: usize) {
        debug_assert!(self.partitions_left > 0);
        self.partitions_left -= 1;
        self.records_len += records_len;
        let mut w = self.writer();
        w.i32(index);
        w.length(Some(records_len));
        self.splits.push(self.head.len());
        // What ends a partition, and a topic, comes after the records.
        let last = self.partitions_left == 0;
        let mut w = self.writer();
        w.no_tagged_fields();
        if last {
            w.no_tagged_fields();
        }
    }

    /// Ends the request. Gives the number of bytes that go on the wire, the frame's length field
    /// included.
    pub fn finish(mut self) -> usize {
        debug_assert!(self.partitions_left == 0 && self.topics_left == 0);
        self.writer().no_tagged_fields();
        let total = self.head.len() + self.records_len;
        debug_assert!(i32::try_from(total).is_ok(), "a frame of {total} bytes");
        self.head[..4].copy_from_slice(&((total - 4) as u32).to_be_bytes());
        total
    }
}

/// A produce request as a broker reads it, the records still in the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceRequest<'a> {
    /// The transactional id.
    pub transactional_id: Option<&'a str>,
    /// 0 for no acknowledgement (and no response), 1 for the leader's, -1 for all in-sync replicas.
    pub acks: i16,
    /// How long the broker may wait for the in-sync replicas.
    pub timeout_ms: i32,
    /// The topics.
    pub topics: Vec<TopicProduceData<'a>>,
}

/// The records for a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicProduceData<'a> {
    /// The topic.
    pub topic: TopicRef<'a>,
    /// Its partitions.
    pub partitions: Vec<PartitionProduceData<'a>>,
}

/// The records for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionProduceData<'a> {
    /// The partition's number.
    pub index: i32,
    /// One record batch, not checked yet.
    pub records: Option<&'a [u8]>,
}

impl<'a> ProduceRequest<'a> {
    /// Reads the request's body.
    pub fn decode(r: &mut Reader<'a>, version: i16) -> Decoded<Self> {
        r.set_flexible(ApiKey::Produce.is_flexible(version));
        let transactional_id = r.nullable_string()?;
        let (acks, timeout_ms) = (r.i16()?, r.i32()?);
        let topics = r.array(|r| {
            let topic = TopicRef::decode(r, version)?;
            let partitions = r.array(|r| {
                let (index, records) = (r.i32()?, r.nullable_bytes()?);
                r.skip_tagged_fields()?;
                Ok(PartitionProduceData { index, records })
            })?;
            r.skip_tagged_fields()?;
            Ok(TopicProduceData { topic, partitions })
        })?;
        r.skip_tagged_fields()?;
        Ok(Self { transactional_id, acks, timeout_ms, topics })
    }
}

/// The verdicts on a request's batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceResponse {
    /// The topics.
    pub topics: Vec<TopicProduceResponse>,
    /// Milliseconds for which the client is to leave the broker alone.
    pub throttle_time_ms: i32,
    /// Addresses of the leaders in `current_leader` (version 10 and later, KIP-951).
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// The verdicts on a topic's batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicProduceResponse {
    /// The topic.
    pub topic: TopicKey,
    /// Its partitions.
    pub partitions: Vec<PartitionProduceResponse>,
}

/// The verdict on a partition's batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionProduceResponse {
    /// The partition's number.
    pub index: i32,
    /// What went wrong, or `NONE`.
    pub error_code: ErrorCode,
    /// The offset of the batch's first record, or -1.
    pub base_offset: i64,
    /// The timestamp that the broker gave the records, if the topic has LogAppendTime, or -1.
    pub log_append_time_ms: i64,
    /// The first offset that the partition still has, or -1 (version 5 and later).
    pub log_start_offset: i64,
    /// The records that made the broker refuse the batch (version 8 and later, KIP-467).
    pub record_errors: Vec<RecordError>,
    /// The broker's words on the error (version 8 and later).
    pub error_message: Option<Arc<str>>,
    /// The new leader, with `NOT_LEADER_OR_FOLLOWER` (version 10 and later, KIP-951).
    pub current_leader: Option<LeaderIdAndEpoch>,
}

/// A record that made the broker refuse its batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordError {
    /// The record's place in the batch, from 0.
    pub batch_index: i32,
    /// What is wrong with it.
    pub message: Option<Arc<str>>,
}

/// A partition's leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderIdAndEpoch {
    /// The leader's node id, or -1 if the broker knows none.
    pub leader_id: i32,
    /// The leader's epoch, or -1.
    pub leader_epoch: i32,
}

/// A leader's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEndpoint {
    /// The broker's node id.
    pub node_id: i32,
    /// The host to connect to.
    pub host: Arc<str>,
    /// The port to connect to.
    pub port: i32,
    /// The broker's rack.
    pub rack: Option<Arc<str>>,
}

impl ProduceResponse {
    /// Appends the response's body.
    pub fn encode(&self, version: i16, out: &mut Vec<u8>) {
        let mut w = Writer::new(out, ApiKey::Produce.is_flexible(version));
        w.array(&self.topics, |w, topic| {
            topic.topic.as_ref().encode(version, w);
            w.array(&topic.partitions, |w, partition| partition.encode(version, w));
            w.no_tagged_fields();
        });
        w.i32(self.throttle_time_ms);
        if version < 10 || self.node_endpoints.is_empty() {
            return w.no_tagged_fields();
        }
        w.tagged_field_count(1);
        w.tagged_field(0, |w| {
            w.array(&self.node_endpoints, |w, node| {
                w.i32(node.node_id);
                w.string(&node.host);
                w.i32(node.port);
                w.nullable_string(node.rack.as_deref());
                w.no_tagged_fields();
            });
        });
    }

    /// Reads the response's body; what the version lacks is -1, empty or `None`.
    pub fn decode(r: &mut Reader<'_>, version: i16) -> Decoded<Self> {
        r.set_flexible(ApiKey::Produce.is_flexible(version));
        let topics = r.array(|r| {
            let topic = TopicRef::decode(r, version)?.into();
            let partitions = r.array(|r| PartitionProduceResponse::decode(r, version))?;
            r.skip_tagged_fields()?;
            Ok(TopicProduceResponse { topic, partitions })
        })?;
        let throttle_time_ms = r.i32()?;
        let mut node_endpoints = Vec::new();
        r.tagged_fields(|tag, r| {
            if tag == 0 && version >= 10 {
                node_endpoints = r.array(node_endpoint)?;
            }
            Ok(())
        })?;
        Ok(Self { topics, throttle_time_ms, node_endpoints })
    }
}

impl PartitionProduceResponse {
    fn encode(&self, version: i16, w: &mut Writer<'_>) {
        w.i32(self.index);
        w.i16(self.error_code.0);
        w.i64(self.base_offset);
        w.i64(self.log_append_time_ms);
        if version >= 5 {
            w.i64(self.log_start_offset);
        }
        if version >= 8 {
            w.array(&self.record_errors, |w, error| {
                w.i32(error.batch_index);
                w.nullable_string(error.message.as_deref());
                w.no_tagged_fields();
            });
            w.nullable_string(self.error_message.as_deref());
        }
        match self.current_leader {
            Some(leader) if version >= 10 => {
                w.tagged_field_count(1);
                w.tagged_field(0, |w| {
                    w.i32(leader.leader_id);
                    w.i32(leader.leader_epoch);
                    w.no_tagged_fields();
                });
            }
            _ => w.no_tagged_fields(),
        }
    }

    fn decode(r: &mut Reader<'_>, version: i16) -> Decoded<Self> {
        let mut partition = Self {
            index: r.i32()?,
            error_code: ErrorCode(r.i16()?),
            base_offset: r.i64()?,
            log_append_time_ms: r.i64()?,
            log_start_offset: if version >= 5 { r.i64()? } else { -1 },
            record_errors: if version >= 8 { r.array(record_error)? } else { Vec::new() },
            error_message: if version >= 8 { r.nullable_text()? } else { None },
            current_leader: None,
        };
        r.tagged_fields(|tag, r| {
            if tag == 0 && version >= 10 {
                let (leader_id, leader_epoch) = (r.i32()?, r.i32()?);
                r.skip_tagged_fields()?;
                partition.current_leader = Some(LeaderIdAndEpoch { leader_id, leader_epoch });
            }
            Ok(())
        })?;
        Ok(partition)
    }
}

fn record_error(r: &mut Reader<'_>) -> Decoded<RecordError> {
    let (batch_index, message) = (r.i32()?, r.nullable_text()?);
    r.skip_tagged_fields()?;
    Ok(RecordError { batch_index, message })
}

fn node_endpoint(r: &mut Reader<'_>) -> Decoded<NodeEndpoint> {
    let (node_id, host, port) = (r.i32()?, r.text()?, r.i32()?);
    let rack = r.nullable_text()?;
    r.skip_tagged_fields()?;
    Ok(NodeEndpoint { node_id, host, port, rack })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::header::RequestHeader;

    fn params(version: i16) -> ProduceRequestParams<'static> {
        ProduceRequestParams {
            version,
            correlation_id: 7,
            client_id: Some("c"),
            transactional_id: None,
            acks: -1,
            timeout_ms: 30_000,
        }
    }

    /// Puts head and batches together as the connection does.
    fn on_the_wire(head: &[u8], splits: &[usize], batches: &[&[u8]]) -> Vec<u8> {
        assert_eq!(splits.len(), batches.len());
        let mut wire = Vec::new();
        let mut from = 0;
        for (&split, batch) in splits.iter().zip(batches) {
            wire.extend_from_slice(&head[from..split]);
            wire.extend_from_slice(batch);
            from = split;
        }
        wire.extend_from_slice(&head[from..]);
        wire
    }

    /// WIRE-01, WIRE-04.
    #[test]
    fn head_and_batches_make_the_request_that_was_meant() {
        let id = Uuid([3; 16]);
        let batches: [&[u8]; 3] = [b"first", &[1; 300], b""];
        let (mut head, mut splits) = (vec![9, 9], vec![9]);
        for version in ApiKey::Produce.supported().min..=ApiKey::Produce.supported().max {
            let name = |n| if version >= 13 { TopicRef::Id(id) } else { TopicRef::Name(n) };
            let mut encoder =
                ProduceRequestEncoder::start(&params(version), 2, &mut head, &mut splits);
            encoder.topic(name("a"), 2);
            encoder.partition(0, batches[0].len());
            encoder.partition(4, batches[1].len());
            encoder.topic(name("b"), 1);
            encoder.partition(1, batches[2].len());
            let total = encoder.finish();

            let wire = on_the_wire(&head, &splits, &batches);
            assert_eq!(wire.len(), total);
            assert_eq!(wire[..4], (total as u32 - 4).to_be_bytes());
            let mut r = Reader::new(&wire[4..]);
            let header = RequestHeader::decode(&mut r).unwrap();
            assert_eq!((header.api_version, header.correlation_id), (version, 7));
            let request = ProduceRequest::decode(&mut r, version).unwrap();
            r.expect_end().unwrap();
            assert_eq!((request.acks, request.timeout_ms), (-1, 30_000));
            assert_eq!(request.topics[0].topic, name("a"));
            assert_eq!(request.topics[0].partitions[1].index, 4);
            let records = request.topics.iter().flat_map(|t| &t.partitions).map(|p| p.records);
            assert_eq!(records.collect::<Vec<_>>(), batches.map(Some));
        }
    }

    #[test]
    fn a_request_is_encoded_without_allocation_once_the_vectors_have_grown() {
        let (mut head, mut splits) = (Vec::with_capacity(256), Vec::with_capacity(4));
        let before = (head.as_ptr(), splits.as_ptr());
        for _ in 0..2 {
            let mut encoder = ProduceRequestEncoder::start(&params(12), 1, &mut head, &mut splits);
            encoder.topic(TopicRef::Name("orders"), 2);
            encoder.partition(0, 16_384);
            encoder.partition(1, 16_384);
            encoder.finish();
        }
        assert_eq!((head.as_ptr(), splits.as_ptr()), before);
    }
}

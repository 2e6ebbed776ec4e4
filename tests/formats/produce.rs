//! Produce: requests written around their batches, and the verdicts.

use kafka_producer::internal::protocol::{
    ApiKey, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceData, PartitionProduceResponse,
    ProduceRequest, ProduceRequestEncoder, ProduceRequestParams, ProduceResponse, Reader,
    RecordError, TopicKey, TopicProduceData, TopicProduceResponse, TopicRef,
};
use kafka_producer::{ErrorCode, Uuid};
use kafka_protocol::messages::{self, BrokerId, TopicName, TransactionalId};
use kafka_protocol::messages::{produce_request, produce_response as theirs};
use kafka_protocol::protocol::{Decodable, decode_request_header_from_buffer};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::{Pair, id, text, their_id, versions, witnessed};

/// The first version in which topics go by id.
const TOPIC_IDS_FROM: i16 = 13;

/// A topic that can go by its name or by its id.
#[derive(Clone, Debug)]
struct Topic<P> {
    name: String,
    id: [u8; 16],
    partitions: Vec<P>,
}

fn topics<P: std::fmt::Debug>(
    partition: impl Strategy<Value = P>,
) -> impl Strategy<Value = Vec<Topic<P>>> {
    let topic = (text(), id(), vec(partition, 1..4));
    vec(topic.prop_map(|(name, id, partitions)| Topic { name, id, partitions }), 0..4)
}

impl<P> Topic<P> {
    fn topic_ref(&self, version: i16) -> TopicRef<'_> {
        if version >= TOPIC_IDS_FROM {
            TopicRef::Id(Uuid(self.id))
        } else {
            TopicRef::Name(&self.name)
        }
    }

    /// The name, if the version has names.
    fn their_name(&self, version: i16) -> TopicName {
        let name = if version >= TOPIC_IDS_FROM { "" } else { &self.name };
        TopicName(name.to_owned().into())
    }

    /// The id, if the version has ids.
    fn carried_id(&self, version: i16) -> [u8; 16] {
        if version >= TOPIC_IDS_FROM { self.id } else { [0; 16] }
    }
}

/// An index and what stands for a batch; some lengths take two bytes.
fn records() -> impl Strategy<Value = (i32, Vec<u8>)> {
    (any::<i32>(), prop_oneof![vec(any::<u8>(), 0..5), vec(any::<u8>(), 120..140)])
}

/// Writes the request as the sender and the connection do.
fn on_the_wire(params: &ProduceRequestParams<'_>, topics: &[Topic<(i32, Vec<u8>)>]) -> Vec<u8> {
    let (mut head, mut splits) = (Vec::new(), Vec::new());
    let mut encoder = ProduceRequestEncoder::start(params, topics.len(), &mut head, &mut splits);
    for topic in topics {
        encoder.topic(topic.topic_ref(params.version), topic.partitions.len());
        for (index, records) in &topic.partitions {
            encoder.partition(*index, records.len());
        }
    }
    let total = encoder.finish();
    let mut wire = Vec::new();
    let mut sent = 0;
    let batches = topics.iter().flat_map(|topic| &topic.partitions);
    for (split, (_, records)) in splits.iter().zip(batches) {
        wire.extend_from_slice(&head[sent..*split]);
        wire.extend_from_slice(records);
        sent = *split;
    }
    wire.extend_from_slice(&head[sent..]);
    assert_eq!(wire.len(), total);
    wire
}

fn their_request(
    params: &ProduceRequestParams<'_>,
    topics: &[Topic<(i32, Vec<u8>)>],
) -> messages::ProduceRequest {
    let version = params.version;
    let topics = topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|(index, records)| {
            produce_request::PartitionProduceData::default()
                .with_index(*index)
                .with_records(Some(records.clone().into()))
        });
        produce_request::TopicProduceData::default()
            .with_name(topic.their_name(version))
            .with_topic_id(their_id(topic.carried_id(version)))
            .with_partition_data(partitions.collect())
    });
    let transactional_id = params.transactional_id;
    messages::ProduceRequest::default()
        .with_transactional_id(transactional_id.map(|id| TransactionalId(id.to_owned().into())))
        .with_acks(params.acks)
        .with_timeout_ms(params.timeout_ms)
        .with_topic_data(topics.collect())
}

prop_compose! {
    fn partition_response()(
        (index, error_code, base_offset, log_append_time_ms, log_start_offset)
            in any::<(i32, i16, i64, i64, i64)>(),
        record_errors in vec((any::<i32>(), option::of(text())), 0..3),
        error_message in option::of(text()),
        // Both at -1 is the same as no leader to the witness.
        current_leader in option::of((0..i32::MAX, any::<i32>())),
    ) -> PartitionProduceResponse {
        let record_errors = record_errors.into_iter().map(|(batch_index, message)| {
            RecordError { batch_index, message: message.map(Into::into) }
        });
        PartitionProduceResponse {
            index,
            error_code: ErrorCode(error_code),
            base_offset,
            log_append_time_ms,
            log_start_offset,
            record_errors: record_errors.collect(),
            error_message: error_message.map(Into::into),
            current_leader: current_leader
                .map(|(leader_id, leader_epoch)| LeaderIdAndEpoch { leader_id, leader_epoch }),
        }
    }
}

prop_compose! {
    fn node_endpoint()(
        (node_id, port) in any::<(i32, i32)>(),
        host in text(),
        rack in option::of(text()),
    ) -> NodeEndpoint {
        NodeEndpoint { node_id, host: host.into(), port, rack: rack.map(Into::into) }
    }
}

/// The verdict as the version carries it.
fn carried(full: &PartitionProduceResponse, version: i16) -> PartitionProduceResponse {
    let mut partition = full.clone();
    if version < 5 {
        partition.log_start_offset = -1;
    }
    if version < 8 {
        partition.record_errors.clear();
        partition.error_message = None;
    }
    if version < 10 {
        partition.current_leader = None;
    }
    partition
}

fn their_partition(ours: &PartitionProduceResponse) -> theirs::PartitionProduceResponse {
    let record_errors = ours.record_errors.iter().map(|error| {
        theirs::BatchIndexAndErrorMessage::default()
            .with_batch_index(error.batch_index)
            .with_batch_index_error_message(error.message.as_ref().map(|m| m.to_string().into()))
    });
    let leader = ours.current_leader.map(|leader| {
        theirs::LeaderIdAndEpoch::default()
            .with_leader_id(BrokerId(leader.leader_id))
            .with_leader_epoch(leader.leader_epoch)
    });
    theirs::PartitionProduceResponse::default()
        .with_index(ours.index)
        .with_error_code(ours.error_code.0)
        .with_base_offset(ours.base_offset)
        .with_log_append_time_ms(ours.log_append_time_ms)
        .with_log_start_offset(ours.log_start_offset)
        .with_record_errors(record_errors.collect())
        .with_error_message(ours.error_message.as_ref().map(|m| m.to_string().into()))
        .with_current_leader(leader.unwrap_or_default())
}

fn response_pair(
    topics: &[Topic<PartitionProduceResponse>],
    throttle_time_ms: i32,
    endpoints: &[NodeEndpoint],
    version: i16,
) -> Pair<ProduceResponse, messages::ProduceResponse> {
    let node_endpoints = if version >= 10 { endpoints } else { &[] };
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for topic in topics {
        let partitions: Vec<_> = topic.partitions.iter().map(|p| carried(p, version)).collect();
        theirs.push(
            theirs::TopicProduceResponse::default()
                .with_name(topic.their_name(version))
                .with_topic_id(their_id(topic.carried_id(version)))
                .with_partition_responses(partitions.iter().map(their_partition).collect()),
        );
        let topic = TopicKey::from(topic.topic_ref(version));
        ours.push(TopicProduceResponse { topic, partitions });
    }
    let their_endpoints = node_endpoints.iter().map(|node| {
        theirs::NodeEndpoint::default()
            .with_node_id(BrokerId(node.node_id))
            .with_host(node.host.to_string().into())
            .with_port(node.port)
            .with_rack(node.rack.as_ref().map(|rack| rack.to_string().into()))
    });
    let theirs = messages::ProduceResponse::default()
        .with_responses(theirs)
        .with_throttle_time_ms(throttle_time_ms)
        .with_node_endpoints(their_endpoints.collect());
    let node_endpoints = node_endpoints.to_vec();
    Pair {
        ours: ProduceResponse { topics: ours, throttle_time_ms, node_endpoints },
        theirs,
        version,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// WIRE-01, WIRE-04.
    #[test]
    fn requests(
        (correlation_id, acks, timeout_ms) in any::<(i32, i16, i32)>(),
        client_id in option::of(text()),
        transactional_id in option::of(text()),
        topics in topics(records()),
    ) {
        for version in versions(ApiKey::Produce) {
            let params = ProduceRequestParams {
                version,
                correlation_id,
                client_id: client_id.as_deref(),
                transactional_id: transactional_id.as_deref(),
                acks,
                timeout_ms,
            };
            let wire = on_the_wire(&params, &topics);
            prop_assert_eq!(&wire[..4], &(wire.len() as u32 - 4).to_be_bytes());
            let mut rest = &wire[4..];
            let header = decode_request_header_from_buffer(&mut rest).unwrap();
            prop_assert_eq!(header.correlation_id, correlation_id);
            prop_assert_eq!(header.client_id.as_deref(), client_id.as_deref());

            let body = rest;
            let expected = their_request(&params, &topics);
            let theirs = messages::ProduceRequest::decode(&mut rest, version).unwrap();
            prop_assert_eq!(&theirs, &expected);
            prop_assert_eq!(rest.len(), 0);
            prop_assert_eq!(body, witnessed(&expected, version));

            let mut reader = Reader::new(body);
            let ours = ProduceRequest::decode(&mut reader, version).unwrap();
            prop_assert_eq!(reader.expect_end(), Ok(()));
            let expected = ProduceRequest {
                transactional_id: params.transactional_id,
                acks,
                timeout_ms,
                topics: topics.iter().map(|topic| TopicProduceData {
                    topic: topic.topic_ref(version),
                    partitions: topic.partitions.iter().map(|(index, records)| {
                        PartitionProduceData { index: *index, records: Some(records) }
                    }).collect(),
                }).collect(),
            };
            prop_assert_eq!(ours, expected);
        }
    }

    /// WIRE-05, WIRE-06, WIRE-18.
    #[test]
    fn responses(
        topics in topics(partition_response()),
        throttle_time_ms: i32,
        endpoints in vec(node_endpoint(), 0..3),
    ) {
        for version in versions(ApiKey::Produce) {
            let mut pair = response_pair(&topics, throttle_time_ms, &endpoints, version);
            pair.agree(ProduceResponse::encode, ProduceResponse::decode)?;
            if version >= 9 {
                pair.theirs.unknown_tagged_fields.insert(40, vec![1].into());
                for topic in &mut pair.theirs.responses {
                    for partition in &mut topic.partition_responses {
                        partition.unknown_tagged_fields.insert(41, vec![2; 3].into());
                    }
                }
                let bytes = witnessed(&pair.theirs, version);
                pair.is_read(&bytes, ProduceResponse::decode)?;
            }
        }
    }
}

//! Writes the corpora: `cargo run --bin make_corpus`, in this folder. Small and whole inputs, made
//! by the crate's own encoders, one a file, for a fuzzer to begin with.

use std::fs;
use std::path::Path;

use kafka_producer::internal::peer::{feed_broker, feed_connection};
use kafka_producer::internal::protocol::{
    ApiKey, ApiVersion, ApiVersionsRequest, ApiVersionsResponse, ErrorCode, InitProducerIdRequest,
    InitProducerIdResponse, LeaderIdAndEpoch, MetadataRequest, MetadataResponse,
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic, NodeEndpoint,
    PartitionProduceResponse, ProduceRequestEncoder, ProduceRequestParams, ProduceResponse, Reader,
    RecordError, RequestHeader, TopicKey, TopicProduceResponse, TopicRef, encode_request,
    encode_response,
};
use kafka_producer::internal::record::{RecordBatchBuilder, RecordData};

fn main() {
    protocol();
    records();
    frames();
    properties();
    connection();
    broker();
}

fn write(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new("corpus").join(target);
    fs::create_dir_all(&folder).expect("a folder for the corpus");
    fs::write(folder.join(name), bytes).expect("a file in it");
}

/// The oldest version, the newest one, and those where the form changes.
fn versions(key: ApiKey) -> impl Iterator<Item = i16> {
    let range = key.supported();
    let mut versions = vec![range.min, key.flexible_from(), range.max];
    versions.sort_unstable();
    versions.dedup();
    versions.into_iter()
}

fn protocol() {
    for (index, key) in ApiKey::ALL.into_iter().enumerate() {
        for version in versions(key) {
            for (direction, name) in ["request", "response"].into_iter().enumerate() {
                let body =
                    if direction == 0 { request(key, version) } else { response(key, version) };
                let mut bytes = vec![(index * 2 + direction) as u8];
                bytes.push((version - key.supported().min) as u8);
                bytes.extend(body);
                write("protocol", &format!("{}-{name}-{version}", key.name()), &bytes);
            }
        }
    }
}

fn request(key: ApiKey, version: i16) -> Vec<u8> {
    let mut out = Vec::new();
    match key {
        ApiKey::Produce => {
            return produce_request(version, kafka_producer::Uuid([7; 16]), &batch(2));
        }
        ApiKey::Metadata => {
            let topics = Some(vec!["orders".into()]);
            MetadataRequest { topics, allow_auto_topic_creation: true }.encode(version, &mut out);
        }
        ApiKey::ApiVersions => {
            let request = ApiVersionsRequest {
                client_software_name: "client".into(),
                client_software_version: "1".into(),
            };
            request.encode(version, &mut out);
        }
        ApiKey::InitProducerId => {
            let request = InitProducerIdRequest {
                transactional_id: None,
                transaction_timeout_ms: i32::MAX,
                producer_id: -1,
                producer_epoch: -1,
            };
            request.encode(version, &mut out);
        }
    }
    out
}

/// A body without the frame's length and header.
fn produce_request(version: i16, id: kafka_producer::Uuid, batch: &[u8]) -> Vec<u8> {
    let params = ProduceRequestParams {
        version,
        correlation_id: 1,
        client_id: Some("me"),
        transactional_id: None,
        acks: -1,
        timeout_ms: 1000,
    };
    let (mut head, mut splits) = (Vec::new(), Vec::new());
    let mut encoder = ProduceRequestEncoder::start(&params, 1, &mut head, &mut splits);
    encoder.topic(if version > 12 { TopicRef::Id(id) } else { TopicRef::Name("orders") }, 1);
    encoder.partition(0, batch.len());
    encoder.finish();
    let at = splits[0];
    let mut frame = head[..at].to_vec();
    frame.extend(batch);
    frame.extend(&head[at..]);
    let mut reader = Reader::new(&frame[4..]);
    RequestHeader::decode(&mut reader).expect("a header");
    frame[frame.len() - reader.remaining()..].to_vec()
}

fn response(key: ApiKey, version: i16) -> Vec<u8> {
    let mut out = Vec::new();
    match key {
        ApiKey::Produce => produce_response(version).encode(version, &mut out),
        ApiKey::Metadata => metadata().encode(version, &mut out),
        ApiKey::ApiVersions => api_versions().encode(version, &mut out),
        ApiKey::InitProducerId => {
            let response = InitProducerIdResponse {
                throttle_time_ms: 0,
                error_code: ErrorCode::NONE,
                producer_id: 4000,
                producer_epoch: 0,
            };
            response.encode(version, &mut out);
        }
    }
    out
}

fn produce_response(version: i16) -> ProduceResponse {
    let partition = PartitionProduceResponse {
        index: 0,
        error_code: ErrorCode::INVALID_RECORD,
        base_offset: 5,
        log_append_time_ms: -1,
        log_start_offset: 0,
        record_errors: vec![RecordError { batch_index: 1, message: Some("bad".into()) }],
        error_message: Some("a record is bad".into()),
        current_leader: Some(LeaderIdAndEpoch { leader_id: 2, leader_epoch: 3 }),
    };
    let id = kafka_producer::Uuid([7; 16]);
    let topic = if version > 12 { TopicKey::Id(id) } else { TopicKey::Name("orders".into()) };
    ProduceResponse {
        topics: vec![TopicProduceResponse { topic, partitions: vec![partition] }],
        throttle_time_ms: 1,
        node_endpoints: vec![NodeEndpoint {
            node_id: 2,
            host: "broker".into(),
            port: 9092,
            rack: None,
        }],
    }
}

fn metadata() -> MetadataResponse {
    MetadataResponse {
        throttle_time_ms: 0,
        brokers: vec![MetadataResponseBroker {
            node_id: 1,
            host: "broker".into(),
            port: 9092,
            rack: Some("r".into()),
        }],
        cluster_id: Some("cluster".into()),
        controller_id: 1,
        topics: vec![MetadataResponseTopic {
            error_code: ErrorCode::NONE,
            name: Some("orders".into()),
            topic_id: kafka_producer::Uuid([7; 16]),
            is_internal: false,
            partitions: vec![MetadataResponsePartition {
                error_code: ErrorCode::NONE,
                partition_index: 0,
                leader_id: 1,
                leader_epoch: 0,
                replica_nodes: vec![1, 2],
                isr_nodes: vec![1],
                offline_replicas: vec![2],
            }],
        }],
        error_code: ErrorCode::NONE,
    }
}

fn api_versions() -> ApiVersionsResponse {
    let of = |key: ApiKey| ApiVersion { api_key: key.code(), versions: key.supported() };
    ApiVersionsResponse {
        api_keys: ApiKey::ALL.into_iter().map(of).collect(),
        throttle_time_ms: 0,
        error_code: ErrorCode::NONE,
        supported_features: Vec::new(),
        finalized_features_epoch: -1,
        finalized_features: Vec::new(),
    }
}

/// A sealed batch of so many records, of a producer with an id.
fn batch(records: usize) -> Vec<u8> {
    batch_of((4000, 1, 7), records)
}

fn batch_of((id, epoch, sequence): (i64, i16, i32), records: usize) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new(Vec::with_capacity(1024));
    for i in 0..records {
        let value = [b'v'; 10];
        let key = (i % 2 == 0).then_some(&b"key"[..]);
        let data = RecordData { key, value: Some(&value), headers: &[], timestamp: 1000 };
        builder.try_append(&data).expect("there is room");
    }
    builder.finish(id, epoch, sequence, false);
    let mut segments = Vec::new();
    builder.move_segments(&mut segments);
    segments.concat()
}

fn records() {
    write("records", "one", &batch(1));
    write("records", "many", &batch(12));
    write("records", "two-batches", &[batch(2), batch(3)].concat());
    write("records", "cut", &batch(3)[..80]);
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u32).to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

fn frames() {
    let stream = [frame(b"one"), frame(b""), frame(&[7; 300])].concat();
    for piece in [1, 3, 255] {
        let mut bytes = vec![piece];
        bytes.extend(&stream);
        write("frames", &format!("in-pieces-of-{piece}"), &bytes);
    }
    write("frames", "negative-length", &[9, 0xff, 0xff, 0xff, 0xff]);
    write("frames", "too-long", &[9, 0x7f, 0xff, 0xff, 0xff, 1]);
}

fn properties() {
    let texts = [
        ("plain", "bootstrap.servers=localhost:9092\nlinger.ms = 5\n"),
        ("escapes", "# a comment\n! one more\nclient.id:a\\u0041\\n\\\n  continued\r\nacks all"),
        ("lists", "bootstrap.servers=[::1]:9092,host:1\ncompression.type=none\nretries=3\n"),
        ("wrong", "batch.sise=1\nlinger.ms=-4\nclient.id=\\uD800"),
    ];
    for (name, text) in texts {
        write("properties", name, text.as_bytes());
    }
}

fn connection() {
    // The client's own ApiVersions comes first and has the first id.
    let of = |key: ApiKey, version: i16, id: i32| {
        let mut bytes = Vec::new();
        let body = response(key, version);
        encode_response(key, version, id, &mut bytes, |out| out.extend(&body));
        bytes
    };
    let newest = |key: ApiKey, id| of(key, key.supported().max, id);
    let stream = [
        newest(ApiKey::ApiVersions, 0),
        newest(ApiKey::Metadata, 1),
        newest(ApiKey::InitProducerId, 2),
        newest(ApiKey::Produce, 3),
        newest(ApiKey::Metadata, 4),
    ]
    .concat();
    for piece in [1, 60, 127] {
        let mut bytes = vec![0x80 | piece];
        bytes.extend(&stream);
        let fed = feed_connection(&bytes);
        assert!(fed.connected == 1 && fed.understood >= 4, "not understood: {fed:?}");
        write("connection", &format!("in-pieces-of-{piece}"), &bytes);
    }
    write("connection", "closed-at-once", &[1]);
}

fn broker() {
    // As the model of a cluster numbers its topics.
    let first_topic = kafka_producer::Uuid(*b"topic-id\0\0\0\0\0\0\0\x01");
    // As a producer begins, in the newest versions and in the oldest.
    for (release, name) in [(0, "newest"), (0x80, "oldest")] {
        let version = |key: ApiKey| {
            let range = key.supported();
            if release == 0 { range.max } else { range.min }
        };
        let of = |key: ApiKey, id: i32| {
            let mut bytes = Vec::new();
            let body = match key {
                // Whoever has no id may write at once.
                ApiKey::Produce => {
                    produce_request(version(key), first_topic, &batch_of((-1, -1, -1), 2))
                }
                _ => request(key, version(key)),
            };
            encode_request(key, version(key), id, Some("me"), &mut bytes, |out| out.extend(&body));
            bytes
        };
        let keys = [ApiKey::ApiVersions, ApiKey::Metadata, ApiKey::InitProducerId, ApiKey::Produce];
        let stream: Vec<u8> = (0..).zip(keys).flat_map(|(id, key)| of(key, id)).collect();
        for piece in [1, 127] {
            let bytes = [&[release | piece][..], &stream].concat();
            let heard = feed_broker(&bytes);
            assert_eq!((heard.requests, heard.answered), (4, 4), "{heard:?}");
            assert!(heard.appended > 0, "{heard:?}");
            write("broker", &format!("{name}-in-pieces-of-{piece}"), &bytes);
        }
    }
    write("broker", "no-request", &[9, 0, 0, 0, 9, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    write("broker", "too-long", &[9, 0x06, 0x40, 0, 1, 1]);
}

//! What one broker answers to requests alone: versions, malformed batches, sequences, epochs.

use std::time::Instant;

use kafka_producer::ErrorCode;
use kafka_producer::internal::protocol::{
    ApiKey, PartitionProduceResponse, TopicRef, encode_request_header,
};

use crate::raw::{Batch, Connection, PATIENCE, Produce};

const NONE: ErrorCode = ErrorCode::NONE;
/// Topics that either broker has: with the defaults; with `max.message.bytes=1000`; compacted;
/// with LogAppendTime; with `min.insync.replicas=2` though there is one replica; and one that takes
/// batches larger than its segments, of 1 MiB.
pub const TOPICS: [&str; 6] =
    ["plain", "small", "compacted", "append-time", "two-in-sync", "small-segments"];

pub fn run(port: u16) {
    api_versions(port);
    metadata(port);
    producer_ids(port);
    every_produce_version(port);
    topics_and_acks(port);
    malformed_batches(port);
    sizes_and_times(port);
    sequences(port);
    epochs(port);
    requests_that_end_the_connection(port);
}

/// Sends records to "plain" and gives the verdict.
pub fn produce(connection: &mut Connection, batch: &Batch) -> PartitionProduceResponse {
    produce_to(connection, &Produce::to("plain", 0), &batch.encode())
}

pub fn produce_to(
    connection: &mut Connection,
    to: &Produce<'_>,
    records: &[u8],
) -> PartitionProduceResponse {
    connection.produce(to, records).expect("the connection stays open")
}

/// Sends a batch that must be refused with this code.
pub fn refused(connection: &mut Connection, what: &str, batch: &Batch, code: ErrorCode) {
    refused_bytes(connection, what, &batch.encode(), code);
}

fn refused_bytes(connection: &mut Connection, what: &str, records: &[u8], code: ErrorCode) {
    let verdict = produce_to(connection, &Produce::to("plain", 0), records);
    assert_eq!(verdict.error_code, code, "{what}");
    assert_eq!((verdict.base_offset, verdict.log_append_time_ms), (-1, -1), "{what}");
}

fn api_versions(port: u16) {
    for version in 0..=4 {
        let response = Connection::open(port).api_versions(version);
        assert_eq!(response.error_code, NONE, "version {version}");
        let range = |key| response.versions(key).map(|range| (range.min, range.max));
        assert_eq!(range(ApiKey::Produce), Some((0, 13)));
        assert_eq!(range(ApiKey::ApiVersions), Some((0, 4)));
        assert_eq!(range(ApiKey::InitProducerId), Some((0, 5)));
        assert_eq!(range(ApiKey::Metadata).map(|(_, max)| max), Some(13));
    }
    for version in [5, 9, 100] {
        let mut connection = Connection::open(port);
        let mut frame = vec![0; 4];
        frame.extend([0, 18, 0, version, 0, 0, 0, 0, 0, 1, b'r', 0]); // header v2
        frame.extend([2, b'n', 2, b'v', 0]);
        frame[3] = frame.len() as u8 - 4;
        connection.write(&frame);
        let answer = connection.read_frame().expect("an answer");
        // In the form of version 0: error 35 and the range of ApiVersions alone.
        assert_eq!(answer[4..], [0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4], "version {version}");
    }
}

fn metadata(port: u16) {
    let mut connection = Connection::open(port);
    let code = |response: &kafka_producer::internal::protocol::MetadataResponse| {
        response.topics.first().map(|topic| topic.error_code)
    };
    let long = "x".repeat(250);
    for invalid in ["", ".", "..", "a b", "a/b", "größe", &long] {
        for create in [false, true] {
            let response = connection.metadata(Some(&[invalid]), create);
            assert_eq!(code(&response), Some(ErrorCode::INVALID_TOPIC_EXCEPTION), "{invalid:?}");
        }
    }
    let unknown = Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(code(&connection.metadata(Some(&["made"]), false)), unknown);
    assert_eq!(code(&connection.metadata(Some(&["made"]), true)), unknown);
    let deadline = Instant::now() + PATIENCE;
    let made = loop {
        let response = connection.metadata(Some(&["made"]), false);
        if code(&response) == Some(NONE) && response.topics[0].partitions[0].leader_id == 1 {
            break response;
        }
        assert!(Instant::now() < deadline, "{response:?}");
    };
    assert!(made.topics[0].topic_id.is_known());
    assert_eq!(made.topics[0].partitions.len(), 1);
    assert_eq!(connection.metadata(Some(&[]), false).topics, []);
    let all = connection.metadata(None, false);
    for topic in TOPICS {
        assert!(all.topics.iter().any(|t| t.name.as_deref() == Some(topic)), "{topic}");
    }
}

fn producer_ids(port: u16) {
    let mut connection = Connection::open(port);
    let deadline = Instant::now() + PATIENCE;
    let first = loop {
        let response = connection.init_producer_id(-1, -1);
        // A broker that has just started may still be fetching its first block of ids.
        if response.error_code != ErrorCode::COORDINATOR_LOAD_IN_PROGRESS {
            break response;
        }
        assert!(Instant::now() < deadline, "no producer ids");
    };
    assert_eq!((first.error_code, first.producer_epoch), (NONE, 0));
    // Without a transactional id, a given id and epoch are not bumped: there is a new id.
    let second = connection.init_producer_id(first.producer_id, 0);
    assert_eq!((second.error_code, second.producer_epoch), (NONE, 0));
    assert_ne!(second.producer_id, first.producer_id);
    for (id, epoch) in [(-1, 0), (first.producer_id, -1)] {
        let response = connection.init_producer_id(id, epoch);
        assert_eq!(response.error_code, ErrorCode::INVALID_REQUEST, "{id} {epoch}");
        assert_eq!((response.producer_id, response.producer_epoch), (-1, -1));
    }
}

fn every_produce_version(port: u16) {
    let mut connection = Connection::open(port);
    let id = connection.metadata(Some(&["plain"]), false).topics[0].topic_id;
    let batch = Batch::of(&["a", "b"]).encode();
    let mut next_offset = produce_to(&mut connection, &Produce::to("plain", 0), &batch).base_offset;
    for version in 3..=13 {
        next_offset += 2;
        let topic = if version < 13 { TopicRef::Name("plain") } else { TopicRef::Id(id) };
        let to = Produce { version, topic, ..Produce::to("plain", 0) };
        let verdict = produce_to(&mut connection, &to, &batch);
        assert_eq!(verdict.error_code, NONE, "version {version}");
        assert_eq!(verdict.base_offset, next_offset, "version {version}");
        assert_eq!(verdict.log_append_time_ms, -1);
        assert_eq!(verdict.log_start_offset, if version < 5 { -1 } else { 0 });
    }
}

fn topics_and_acks(port: u16) {
    let mut connection = Connection::open(port);
    let plain = connection.metadata(Some(&["plain"]), false).topics[0].topic_id;
    let mut unknown = plain;
    unknown.0[0] ^= 1;
    let (name, id) = (TopicRef::Name, TopicRef::Id);
    let no_partition = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
    let invalid_acks = ErrorCode::INVALID_REQUIRED_ACKS;
    let steps = [
        ("acks=1", 12, name("plain"), 0, 1, NONE),
        ("acks=all", 12, name("plain"), 0, -1, NONE),
        ("acks=2", 12, name("plain"), 0, 2, invalid_acks),
        ("acks=-2", 12, name("plain"), 0, -2, invalid_acks),
        ("unknown topic", 12, name("nowhere"), 0, -1, no_partition),
        ("unknown topic and acks", 12, name("nowhere"), 0, 2, no_partition),
        ("invalid topic", 12, name("a b"), 0, -1, no_partition),
        ("unknown partition", 12, name("plain"), 1, -1, no_partition),
        ("negative partition", 12, name("plain"), -1, -1, no_partition),
        ("unknown id", 13, id(unknown), 0, -1, ErrorCode::UNKNOWN_TOPIC_ID),
        ("unknown partition by id", 13, id(plain), 1, -1, no_partition),
        // Kafka never asks for more replicas in sync than there are.
        ("min.insync.replicas", 12, name("two-in-sync"), 0, -1, NONE),
    ];
    let batch = Batch::of(&["a"]).encode();
    for (what, version, topic, partition, acks, code) in steps {
        let to = Produce { version, acks, topic, ..Produce::to("plain", partition) };
        let verdict = produce_to(&mut connection, &to, &batch);
        assert_eq!(verdict.error_code, code, "{what}");
        assert_eq!(verdict.index, partition, "{what}");
        assert_eq!(verdict.base_offset == -1, code != NONE, "{what}");
    }
}

fn malformed_batches(port: u16) {
    let mut connection = Connection::open(port);
    let c = &mut connection;
    let good = Batch::of(&["a", "b"]);
    let (corrupt, invalid) = (ErrorCode::CORRUPT_MESSAGE, ErrorCode::INVALID_RECORD);
    refused_bytes(c, "no bytes", &[], invalid);
    refused_bytes(c, "a few bytes", &good.encode()[..11], invalid);
    refused_bytes(c, "half a batch", &good.encode()[..40], invalid);
    refused_bytes(c, "two batches", &[good.encode(), good.encode()].concat(), invalid);
    refused(c, "a length too great", &Batch { length_error: 1, ..good.clone() }, invalid);
    refused(c, "a length too small", &Batch { length_error: -60, ..good.clone() }, corrupt);
    refused(c, "a negative length", &Batch { length_error: i32::MIN, ..good.clone() }, corrupt);
    refused(c, "message format 1", &Batch { magic: 1, ..good.clone() }, invalid);
    refused(c, "message format 3", &Batch { magic: 3, ..good.clone() }, corrupt);
    refused(c, "a wrong checksum", &Batch { crc_error: 1, ..good.clone() }, corrupt);
    refused(c, "an offset of its own", &Batch { base_offset: 1, ..good.clone() }, invalid);
    refused(c, "a last offset too great", &with_last_offset(&good, 2), invalid);
    refused(c, "a last offset below the first", &with_last_offset(&good, -1), invalid);
    refused(c, "no records by count", &with_count(&good, 0), invalid);
    refused(c, "a negative count", &with_count(&good, -1), invalid);
    refused(c, "fewer by count", &with_count(&good, 1), invalid);
    refused(c, "more by count", &with_count(&good, 3), invalid);
    refused(c, "fewer than there are", &with_last_offset(&with_count(&good, 1), 0), invalid);
    refused(c, "more than there are", &with_last_offset(&with_count(&good, 3), 2), invalid);
    refused(c, "bytes after the records", &Batch { tail: vec![0], ..good.clone() }, invalid);
    refused(c, "no records", &Batch { records: Vec::new(), ..good.clone() }, invalid);
    refused(c, "a control batch", &Batch { attributes: 0x20, ..good.clone() }, invalid);
    let forbidden = ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
    refused(c, "a transaction's", &Batch { attributes: 0x10, ..good.clone() }, forbidden);
    let both = Batch { crc_error: 1, ..with_count(&good, 1) };
    refused(c, "checksum and count", &both, corrupt);
    let both = Batch { crc_error: 1, base_offset: 1, ..good.clone() };
    refused(c, "offset and checksum", &both, invalid);

    let zstd = Batch { attributes: 4, ..good.clone() }.encode();
    let old = Produce { version: 6, ..Produce::to("plain", 0) };
    let verdict = produce_to(c, &old, &zstd);
    assert_eq!(verdict.error_code, ErrorCode::UNSUPPORTED_COMPRESSION_TYPE);

    let cut_off = [good.encode(), good.encode()[..30].to_vec()].concat();
    let verdict = produce_to(c, &Produce::to("plain", 0), &cut_off);
    assert_eq!(verdict.error_code, NONE, "part of a second batch is ignored");
    let next = produce(c, &good);
    assert_eq!(next.base_offset, verdict.base_offset + 2);

    let wrong_acks = Produce { acks: 2, ..Produce::to("plain", 0) };
    let verdict = produce_to(c, &wrong_acks, &Batch { magic: 1, ..good.clone() }.encode());
    assert_eq!(verdict.error_code, invalid, "the format is checked before acks");
    let verdict = produce_to(c, &wrong_acks, &Batch { crc_error: 1, ..good }.encode());
    assert_eq!(verdict.error_code, ErrorCode::INVALID_REQUIRED_ACKS, "the checksum after it");
}

fn with_count(batch: &Batch, count: i32) -> Batch {
    let last = batch.records.len() as i32 - 1;
    let last_offset_delta = batch.last_offset_delta.or(Some(last));
    Batch { count: Some(count), last_offset_delta, ..batch.clone() }
}

fn with_last_offset(batch: &Batch, delta: i32) -> Batch {
    Batch { last_offset_delta: Some(delta), ..batch.clone() }
}

fn sizes_and_times(port: u16) {
    let mut connection = Connection::open(port);
    let c = &mut connection;
    let small = Produce::to("small", 0);
    let value = "v".repeat(2000);
    // 61 bytes of header, 2 of length, and 7 around the value of the only record.
    let fits = Batch::of(&[&value[..1000 - 61 - 2 - 7]]).encode();
    assert_eq!(fits.len(), 1000);
    assert_eq!(produce_to(c, &small, &fits).error_code, NONE);
    let over = Batch::of(&[&value[..1001 - 61 - 2 - 7]]);
    let verdict = produce_to(c, &small, &over.encode());
    assert_eq!(verdict.error_code, ErrorCode::MESSAGE_TOO_LARGE);
    assert_eq!(verdict.log_start_offset, -1);
    let verdict = produce_to(c, &small, &Batch { crc_error: 1, ..over }.encode());
    assert_eq!(verdict.error_code, ErrorCode::MESSAGE_TOO_LARGE, "size is checked first");

    let segments = Produce::to("small-segments", 0);
    let large = Batch::of(&[&"v".repeat(1 << 20)]).encode();
    let verdict = produce_to(c, &segments, &large);
    assert_eq!(verdict.error_code, ErrorCode::RECORD_LIST_TOO_LARGE);
    assert_eq!(verdict.log_start_offset, -1);
    let larger = Batch::of(&[&"v".repeat(3 << 20)]).encode();
    assert_eq!(produce_to(c, &segments, &larger).error_code, ErrorCode::MESSAGE_TOO_LARGE);

    let now = Batch::of(&["a", "b", "c"]);
    let hour = 3_600_000;
    let mut ahead = now.clone();
    ahead.records[1].timestamp_delta = hour + 60_000;
    let verdict = produce(c, &ahead);
    assert_eq!(verdict.error_code, ErrorCode::INVALID_TIMESTAMP);
    let indexes: Vec<_> = verdict.record_errors.iter().map(|e| e.batch_index).collect();
    assert_eq!(indexes, [1]);
    assert!(verdict.error_message.is_some());
    ahead.records[1].timestamp_delta = hour - 60_000;
    assert_eq!(produce(c, &ahead).error_code, NONE);
    assert_eq!(produce(c, &Batch { base_timestamp: 0, ..now.clone() }).error_code, NONE);
    assert_eq!(produce(c, &Batch { base_timestamp: -1, ..now.clone() }).error_code, NONE);

    let verdict = produce_to(c, &Produce::to("compacted", 0), &now.encode());
    assert_eq!(verdict.error_code, ErrorCode::INVALID_RECORD);
    let indexes: Vec<_> = verdict.record_errors.iter().map(|e| e.batch_index).collect();
    assert_eq!(indexes, [0, 1, 2]);

    ahead.records[1].timestamp_delta = 1000 * hour;
    let verdict = produce_to(c, &Produce::to("append-time", 0), &ahead.encode());
    assert_eq!(verdict.error_code, NONE, "LogAppendTime ignores the producer's times");
    assert!(verdict.log_append_time_ms >= now.base_timestamp);
}

fn sequences(port: u16) {
    let mut connection = Connection::open(port);
    let c = &mut connection;
    let id = c.init_producer_id(-1, -1).producer_id;
    let out_of_order = ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER;
    let batch = |sequence, count| Batch::idempotent(id, 0, sequence, count);
    let first = batch(0, 2);
    let verdict = produce(c, &first);
    assert_eq!((verdict.error_code, verdict.log_append_time_ms), (NONE, -1));
    let base = verdict.base_offset;

    refused(c, "a gap", &batch(3, 1), out_of_order);
    refused(c, "an overlap", &batch(1, 2), out_of_order);
    refused(c, "a part of what is there", &batch(0, 1), out_of_order);
    refused(c, "a negative sequence", &batch(-1, 1), ErrorCode::INVALID_RECORD);
    let again = produce(c, &first);
    assert_eq!((again.error_code, again.base_offset), (NONE, base), "a duplicate");
    assert_eq!(again.log_append_time_ms, first.base_timestamp);
    for sequence in 2..6 {
        assert_eq!(produce(c, &batch(sequence, 1)).base_offset, base + i64::from(sequence));
    }
    assert_eq!(produce(c, &first).base_offset, base, "the oldest of five");
    assert_eq!(produce(c, &batch(6, 1)).base_offset, base + 6);
    refused(c, "the sixth but last", &first, out_of_order);
    assert_eq!(produce(c, &batch(2, 1)).base_offset, base + 2, "a duplicate inside the window");
    for acks in [0, 1] {
        // Idempotence does not need acks=all, as far as the broker is concerned.
        let to = Produce { acks, ..Produce::to("plain", 0) };
        c.send_produce(&to, &batch(7 + i32::from(acks), 1).encode());
        let answered = acks == 0 || c.response(ApiKey::Produce, to.version).is_some();
        assert!(answered);
    }
    assert_eq!(produce(c, &batch(9, 1)).base_offset, base + 9);

    let late = Batch::idempotent(id + 1_000_000, 3, 77, 1);
    assert_eq!(produce(c, &late).error_code, NONE, "an unknown producer may start anywhere");
    let gap = Batch { base_sequence: 79, ..late };
    refused(c, "and then has to go on there", &gap, out_of_order);

    let id = id + 1_000_001;
    let wrap = |sequence, count| Batch::idempotent(id, 0, sequence, count);
    let across = produce(c, &wrap(i32::MAX, 3));
    assert_eq!(across.error_code, NONE, "a batch across the greatest sequence");
    assert_eq!(produce(c, &wrap(i32::MAX, 3)).base_offset, across.base_offset);
    refused(c, "a gap after it", &wrap(3, 1), out_of_order);
    assert_eq!(produce(c, &wrap(2, 1)).base_offset, across.base_offset + 3);

    let id = id + 1;
    let wrap = |sequence, count| Batch::idempotent(id, 0, sequence, count);
    assert_eq!(produce(c, &wrap(i32::MAX - 1, 2)).error_code, NONE, "up to the greatest one");
    refused(c, "after it comes 0", &wrap(1, 1), out_of_order);
    assert_eq!(produce(c, &wrap(0, 1)).error_code, NONE);
}

fn epochs(port: u16) {
    let mut connection = Connection::open(port);
    let c = &mut connection;
    let id = c.init_producer_id(-1, -1).producer_id;
    let batch = |epoch, sequence, count| Batch::idempotent(id, epoch, sequence, count);
    let first = batch(0, 0, 2);
    let base = produce(c, &first).base_offset;
    let out_of_order = ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER;
    refused(c, "a new epoch starts at 0", &batch(1, 2, 1), out_of_order);
    assert_eq!(produce(c, &batch(0, 2, 1)).base_offset, base + 2, "and was not taken note of");
    assert_eq!(produce(c, &batch(5, 0, 1)).base_offset, base + 3);
    let fenced = ErrorCode::INVALID_PRODUCER_EPOCH;
    refused(c, "the old epoch's next", &batch(0, 3, 1), fenced);
    refused(c, "the old epoch's duplicate", &first, fenced);
    refused(c, "an epoch between", &batch(4, 0, 1), fenced);
    refused(c, "the new epoch goes on", &batch(5, 2, 1), out_of_order);
    assert_eq!(produce(c, &batch(5, 1, 1)).base_offset, base + 4);
    // A refused batch tells where the log starts, unless it was refused for its bytes.
    let verdict = produce(c, &first);
    assert_eq!((verdict.error_code, verdict.log_start_offset), (fenced, 0));
    let verdict = produce(c, &Batch { crc_error: 1, ..first });
    assert_eq!(verdict.log_start_offset, -1);
}

fn requests_that_end_the_connection(port: u16) {
    let good = Batch::of(&["a"]).encode();
    let mut connection = Connection::open(port);
    let to = |acks, partition| Produce { acks, ..Produce::to("plain", partition) };
    connection.send_produce(&to(0, 0), &good);
    connection.metadata(None, false); // the next answer is to the next request
    assert_eq!(connection.produce(&to(0, 7), &good), None, "acks=0 and no such partition");

    for (what, key, version) in [("Produce v2", 0, 2), ("Produce v14", 0, 14), ("no API", 999, 0)] {
        let mut frame = Vec::new();
        encode_request_header(ApiKey::Produce, 3, 1, Some("raw"), &mut frame);
        frame[..2].copy_from_slice(&i16::to_be_bytes(key));
        frame[2..4].copy_from_slice(&i16::to_be_bytes(version));
        frame.extend([0; 64]);
        assert_eq!(answer_to(port, &frame), None, "{what}");
    }
    let whole = Produce::to("plain", 0).frame(1, &good);
    assert_eq!(answer_to(port, &whole[4..whole.len() - good.len()]), None, "a cut-off request");
    assert_eq!(answer_to(port, &[]), None, "an empty frame");

    let mut connection = Connection::open(port);
    connection.write(&i32::MAX.to_be_bytes());
    assert_eq!(connection.read_frame(), None, "a frame of two gigabytes");
}

fn answer_to(port: u16, frame: &[u8]) -> Option<Vec<u8>> {
    let mut connection = Connection::open(port);
    connection.write(&(frame.len() as u32).to_be_bytes());
    connection.write(frame);
    connection.read_frame()
}

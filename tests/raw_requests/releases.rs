//! What brokers of older releases answer otherwise than 4.3.1: versions, codes, and what they make
//! of producers that they do not know.

use kafka_producer::ErrorCode;
use kafka_producer::internal::protocol::{ApiKey, PartitionProduceResponse, TopicRef};
use kafka_producer::testing::Release;

use crate::raw::{Batch, Connection, Produce};
use crate::world::{new_producer_id, wait_until};

const NONE: ErrorCode = ErrorCode::NONE;
const OUT_OF_ORDER: ErrorCode = ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER;

/// The release that a version is of.
pub fn named(version: &str) -> Release {
    let release = version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
    match release.as_str() {
        "0.11" => Release::V0_11,
        "1.0" => Release::V1_0,
        "1.1" => Release::V1_1,
        "2.0" => Release::V2_0,
        "2.8" => Release::V2_8,
        "3.9" => Release::V3_9,
        "4.0" => Release::V4_0,
        "4.3" => Release::V4_3,
        _ => panic!("no such release: {version}"),
    }
}

/// The highest versions of Produce, Metadata, ApiVersions and InitProducerId.
fn versions(release: Release) -> [i16; 4] {
    match release {
        Release::V0_11 => [3, 4, 1, 0],
        Release::V1_0 | Release::V1_1 => [5, 5, 1, 0],
        Release::V2_0 => [6, 6, 2, 1],
        Release::V2_8 => [9, 11, 3, 4],
        Release::V3_9 => [11, 12, 4, 5],
        Release::V4_0 => [12, 13, 4, 5],
        _ => [13, 13, 4, 5],
    }
}

/// A broker, and how to speak to it.
struct Broker {
    release: Release,
    connection: Connection,
    produce: Produce<'static>,
}

impl Broker {
    fn send(&mut self, batch: &Batch) -> PartitionProduceResponse {
        let records = batch.encode();
        self.connection.produce(&self.produce, &records).expect("the connection stays open")
    }

    fn send_code(&mut self, batch: &Batch) -> ErrorCode {
        self.send(batch).error_code
    }
}

pub fn run(port: u16, release: Release) {
    offered_versions(port, release);
    let [produce, metadata, _, init_producer_id] = versions(release);
    let mut connection = Connection::open(port);
    connection.metadata_version = metadata;
    connection.init_producer_id_version = init_producer_id;
    let version = produce.min(12); // by name
    let produce = Produce { version, ..Produce::to("older", 0) };
    let mut broker = Broker { release, connection, produce };
    creation(&mut broker);
    unknown_producers(&mut broker);
    duplicates(&mut broker);
    epochs(&mut broker);
    codes(&mut broker);
}

fn offered_versions(port: u16, release: Release) {
    let keys = [ApiKey::Produce, ApiKey::Metadata, ApiKey::ApiVersions, ApiKey::InitProducerId];
    let offered = Connection::open(port).api_versions(0);
    for (key, max) in keys.into_iter().zip(versions(release)) {
        let range = offered.versions(key).expect("it is offered");
        assert_eq!(range.max, max, "{release:?} {key:?}");
        assert!(range.min == 0 || key == ApiKey::Metadata, "{release:?} {key:?}");
    }
    let mut connection = Connection::open(port);
    let mut frame = vec![0, 0, 0, 0, 0, 18, 0, 9, 0, 0, 0, 0, 0, 1, b'r', 0]; // header v2
    frame.extend([2, b'n', 2, b'v', 0]);
    frame[3] = frame.len() as u8 - 4;
    connection.write(&frame);
    let answer = connection.read_frame().expect("an answer");
    let [_, _, own, _] = versions(release);
    let expected: &[u8] = match release {
        Release::V0_11 | Release::V1_0 | Release::V1_1 | Release::V2_0 => &[0, 35, 0, 0, 0, 0],
        _ => &[0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, own as u8],
    };
    assert_eq!(answer[4..], *expected, "{release:?}");
}

fn creation(broker: &mut Broker) {
    let release = broker.release;
    let created = broker.connection.metadata(Some(&["older"]), true).topics.remove(0);
    let expected = if release < Release::V3_9 {
        ErrorCode::LEADER_NOT_AVAILABLE
    } else {
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
    };
    assert_eq!(created.error_code, expected, "{release:?}");
    wait_until("the topic is there", || {
        let topic = broker.connection.metadata(Some(&["older"]), false).topics.remove(0);
        topic.error_code == NONE && topic.partitions[0].error_code == NONE
    });
    wait_until("the broker leads it", || broker.send_code(&Batch::of(&["v"])) == NONE);
}

fn unknown_producers(broker: &mut Broker) {
    let release = broker.release;
    let id = new_producer_id(&mut broker.connection);
    let expected = match release {
        Release::V0_11 => OUT_OF_ORDER,
        Release::V1_0 | Release::V1_1 | Release::V2_0 => ErrorCode::UNKNOWN_PRODUCER_ID,
        _ => NONE,
    };
    let verdict = broker.send(&Batch::idempotent(id + 500, 0, 77, 1));
    assert_eq!(verdict.error_code, expected, "{release:?}");
    if broker.produce.version >= 5 {
        assert_eq!(verdict.log_start_offset, 0, "{release:?}");
    }
    assert_eq!(broker.send_code(&Batch::idempotent(id, 0, 0, 1)), NONE, "{release:?}");
}

fn duplicates(broker: &mut Broker) {
    let release = broker.release;
    let id = new_producer_id(&mut broker.connection);
    let batch = |sequence| Batch::idempotent(id, 0, sequence, 1);
    let base = broker.send(&batch(0)).base_offset;
    for sequence in 1..8 {
        assert_eq!(broker.send(&batch(sequence)).base_offset, base + i64::from(sequence));
    }
    let again = broker.send(&batch(7));
    assert_eq!((again.error_code, again.base_offset), (NONE, base + 7), "{release:?}");
    let remembered = if release == Release::V0_11 { 1 } else { 5 };
    for sequence in (8 - remembered)..8 {
        assert_eq!(broker.send_code(&batch(sequence)), NONE, "{release:?} {sequence}");
    }
    let older = match release {
        Release::V1_0 => ErrorCode::DUPLICATE_SEQUENCE_NUMBER,
        _ => OUT_OF_ORDER,
    };
    for sequence in 1..(8 - remembered) {
        assert_eq!(broker.send_code(&batch(sequence)), older, "{release:?} {sequence}");
    }
    assert_eq!(broker.send_code(&batch(0)), OUT_OF_ORDER, "{release:?}, of which 1.0 has no idea");
    assert_eq!(broker.send_code(&batch(9)), OUT_OF_ORDER, "{release:?}");
    assert_eq!(broker.send(&batch(8)).base_offset, base + 8, "{release:?}");
}

fn epochs(broker: &mut Broker) {
    let release = broker.release;
    let id = new_producer_id(&mut broker.connection);
    let batch = |epoch, sequence| Batch::idempotent(id, epoch, sequence, 1);
    assert_eq!(broker.send_code(&batch(0, 0)), NONE);
    assert_eq!(broker.send_code(&batch(1, 1)), OUT_OF_ORDER, "{release:?}");
    assert_eq!(broker.send_code(&batch(1, 0)), NONE, "{release:?}");
    let fenced = ErrorCode::INVALID_PRODUCER_EPOCH;
    assert_eq!(broker.send_code(&batch(0, 0)), fenced, "{release:?}");
    assert_eq!(broker.send_code(&batch(0, 1)), fenced, "{release:?}");
    assert_eq!(broker.send_code(&batch(1, 1)), NONE, "{release:?}");
}

fn codes(broker: &mut Broker) {
    let release = broker.release;
    let good = Batch::of(&["v"]);
    let invalid = if release < Release::V2_8 {
        ErrorCode::CORRUPT_MESSAGE
    } else {
        ErrorCode::INVALID_RECORD
    };
    let offset = Batch { base_offset: 1, ..good.clone() };
    assert_eq!(broker.send_code(&offset), invalid, "{release:?}");
    let corrupt = Batch { crc_error: 1, ..good.clone() };
    assert_eq!(broker.send_code(&corrupt), ErrorCode::CORRUPT_MESSAGE, "{release:?}");
    let mut ahead = good;
    ahead.records[0].timestamp_delta = 7_200_000;
    let refused = broker.send_code(&ahead) == ErrorCode::INVALID_TIMESTAMP;
    assert_eq!(refused, release >= Release::V4_0, "{release:?}");
    let unknown = Produce { topic: TopicRef::Name("nowhere"), ..broker.produce };
    let verdict = broker.connection.produce(&unknown, &Batch::of(&["v"]).encode()).unwrap();
    assert_eq!(verdict.error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "{release:?}");
}

//! What becomes of idempotent producers as time passes, topics come and go, records are deleted,
//! and a broker restarts.

use std::time::{Duration, Instant};

use kafka_producer::ErrorCode;
use kafka_producer::internal::protocol::TopicRef;

use crate::raw::{Batch, Connection, Produce};
use crate::script::{produce, produce_to, refused};
use crate::world::{World, leader_of, new_producer_id, wait_until};

const NONE: ErrorCode = ErrorCode::NONE;
const OUT_OF_ORDER: ErrorCode = ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER;

pub fn run(world: &impl World) {
    expiry(world);
    deleted_records(world);
    recreated_topic(world);
    restarts(world);
    quota(world);
}

/// Brokers look every second; what counts is the time of the records, not that of the write.
fn expiry(world: &impl World) {
    let mut connection = Connection::open(world.port(1));
    let c = &mut connection;
    let (young, old) = (new_producer_id(c), new_producer_id(c));
    let day_ms = 86_400_000;
    let dated = |id, sequence, age_ms| {
        let batch = Batch::idempotent(id, 0, sequence, 1);
        Batch { base_timestamp: batch.base_timestamp - age_ms, ..batch }
    };
    assert_eq!(produce(c, &dated(young, 0, day_ms - 600_000)).error_code, NONE);
    assert_eq!(produce(c, &dated(old, 0, day_ms)).error_code, NONE);
    wait_until("the producer is forgotten", || produce(c, &dated(old, 5, 0)).error_code == NONE);
    refused(c, "now it is known again", &dated(old, 7, 0), OUT_OF_ORDER);
    refused(c, "the younger one has been known all the time", &dated(young, 5, 0), OUT_OF_ORDER);
    assert_eq!(produce(c, &dated(young, 1, 0)).error_code, NONE);
}

/// Since KIP-360 a producer whose records are deleted is still known.
fn deleted_records(world: &impl World) {
    let mut connection = Connection::open(world.port(1));
    let c = &mut connection;
    let id = new_producer_id(c);
    let first = Batch::idempotent(id, 0, 0, 2);
    let base = produce(c, &first).base_offset;
    world.delete_records("plain", base + 2);
    let again = produce(c, &first);
    assert_eq!((again.error_code, again.base_offset), (NONE, base), "a duplicate of what is gone");
    assert_eq!(again.log_start_offset, base + 2);
    let gap = produce(c, &Batch::idempotent(id, 0, 3, 1));
    assert_eq!((gap.error_code, gap.log_start_offset), (OUT_OF_ORDER, base + 2));
    assert_eq!(produce(c, &Batch::idempotent(id, 0, 2, 1)).base_offset, base + 2);
}

/// The new topic has another id and knows no producers.
fn recreated_topic(world: &impl World) {
    let mut connection = Connection::open(world.port(1));
    let c = &mut connection;
    let id = new_producer_id(c);
    let old = c.metadata(Some(&["plain"]), false).topics.remove(0);
    assert_eq!(produce(c, &Batch::idempotent(id, 0, 0, 1)).error_code, NONE);
    world.recreate("plain");
    let mut new = old.clone();
    wait_until("the topic is there again", || {
        new = c.metadata(Some(&["plain"]), false).topics.remove(0);
        new.error_code == NONE && new.partitions.first().is_some_and(|p| p.leader_id == 1)
    });
    assert_ne!(new.topic_id, old.topic_id);
    assert_eq!(new.partitions[0].leader_epoch, 0);
    let by_id = |topic_id| {
        let topic = TopicRef::Id(topic_id);
        Produce { version: 13, topic, ..Produce::to("plain", 0) }
    };
    let batch = Batch::idempotent(id, 0, 1, 1).encode();
    let verdict = produce_to(c, &by_id(old.topic_id), &batch);
    assert_eq!(verdict.error_code, ErrorCode::UNKNOWN_TOPIC_ID);
    let verdict = produce_to(c, &by_id(new.topic_id), &batch);
    assert_eq!((verdict.error_code, verdict.base_offset), (NONE, 0), "nobody is known there");
    let verdict = produce(c, &Batch::idempotent(id, 0, 2, 1));
    assert_eq!((verdict.error_code, verdict.base_offset), (NONE, 1), "by name it is the new one");
}

/// A broker that was shut down has a snapshot of its producers, in which each has its last batch
/// alone; one that was killed makes such a snapshot as it recovers.
fn restarts(world: &impl World) {
    let mut connection = Connection::open(world.port(1));
    let c = &mut connection;
    let id = new_producer_id(c);
    let batch = |sequence| Batch::idempotent(id, 0, sequence, 1);
    let base = produce(c, &batch(0)).base_offset;
    for sequence in 1..3 {
        produce(c, &batch(sequence));
    }
    for (last, crash) in [(2, false), (4, true)] {
        if crash {
            world.crash(1)
        } else {
            world.restart(1)
        }
        let c = &mut leader_of(world.port(1), "plain");
        let offset = |sequence| base + i64::from(sequence);
        refused(c, "the last batch but one", &batch(last - 1), OUT_OF_ORDER);
        assert_eq!(produce(c, &batch(last)).base_offset, offset(last), "the last batch");
        assert_eq!(produce(c, &batch(last + 1)).base_offset, offset(last + 1));
        assert_eq!(produce(c, &batch(last)).base_offset, offset(last), "remembered from then on");
        assert_eq!(produce(c, &batch(last + 2)).base_offset, offset(last + 2));
    }
}

/// The answer comes at once and says for how long the broker will not listen (KIP-219).
fn quota(world: &impl World) {
    world.limit_producers(10_000);
    let mut connection = Connection::open(world.port(1));
    let c = &mut connection;
    let large = Batch::of(&[&"v".repeat(30_000)]).encode();
    let mut throttle = Duration::ZERO;
    wait_until("the broker throttles", || {
        let response = c.produce_whole(&Produce::to("plain", 0), &large).expect("an answer");
        assert_eq!(response.topics[0].partitions[0].error_code, NONE);
        throttle = Duration::from_millis(response.throttle_time_ms as u64);
        !throttle.is_zero()
    });
    let told = Instant::now();
    c.metadata(Some(&[]), false);
    // Brokers count in whole milliseconds.
    assert!(told.elapsed() + Duration::from_millis(50) >= throttle, "not for {throttle:?}");
    assert!(throttle < Duration::from_secs(60), "{throttle:?}");
}

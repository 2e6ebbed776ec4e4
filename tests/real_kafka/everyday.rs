//! What programs rely on day by day: order, flush, close, limits; as Kafka's own tests check them.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use kafka_producer::{
    Acks, DeliveryCause, Error, ErrorCode, Persisted, ProducerBuilder, ProducerRecord,
};

use crate::kafka_harness::{Cluster, ConsumedRecord};
use crate::support::{LONG, guarded_broker, one_broker, producer, within};

const HOUR: i64 = 3_600_000;

/// Nothing would be sent in a test's time but for what ends the linger.
fn endless_linger(cluster: &Cluster) -> ProducerBuilder {
    producer(cluster).linger(LONG * 10).delivery_timeout(LONG * 20)
}

fn values(log: &[ConsumedRecord], partition: i32) -> Vec<String> {
    let of = log.iter().filter(|r| r.partition == partition);
    of.map(|r| String::from_utf8(r.value.clone().expect("a value")).expect("text")).collect()
}

fn broker_code(verdict: Result<kafka_producer::RecordMetadata, Error>) -> ErrorCode {
    match verdict {
        Err(Error::Delivery(error)) => match &error.cause {
            DeliveryCause::Broker { code, .. } => {
                assert_eq!(error.persisted, Persisted::No, "{error}");
                *code
            }
            _ => panic!("{error}"),
        },
        other => panic!("{other:?}"),
    }
}

/// INT-02, INT-05.
#[test]
fn callbacks_and_offsets_of_a_partition_follow_its_records() {
    let test = "callbacks_and_offsets_of_a_partition_follow_its_records";
    let Some(cluster) = one_broker(test) else { return };
    cluster.create_topic("in-order", 3, 1, &[]);
    let producer = producer(cluster).batch_size(200).build().unwrap();
    let (called, calls) = mpsc::channel();
    for i in 0..300 {
        let (called, value) = (called.clone(), i.to_string());
        let record = ProducerRecord::new("in-order", &value).partition(i % 3).timestamp(7);
        let tell = move |result: Result<&kafka_producer::RecordMetadata, &Error>| {
            let metadata = result.expect("delivered");
            called.send((i, metadata.partition(), metadata.offset())).expect("the test waits");
        };
        producer.send_with(record, tell).expect("accepted");
    }
    drop(called);
    assert!(producer.close(LONG).is_clean());
    let calls: Vec<_> = calls.iter().collect();
    let log = cluster.consume("in-order", usize::MAX);
    for partition in 0..3 {
        let of: Vec<_> = calls.iter().filter(|(_, p, _)| *p == partition).collect();
        let expected: Vec<_> =
            (0..100).map(|n| (3 * n + partition, partition, Some(i64::from(n)))).collect();
        assert_eq!(of, expected.iter().collect::<Vec<_>>());
        let sent: Vec<_> = expected.iter().map(|(i, ..)| i.to_string()).collect();
        assert_eq!(values(&log, partition), sent);
    }
    assert!(log.iter().all(|record| record.timestamp == 7));
}

/// INT-08.
#[test]
fn each_of_fifty_flushes_delivers_what_lingers_and_nothing_goes_before() {
    let test = "each_of_fifty_flushes_delivers_what_lingers_and_nothing_goes_before";
    let Some(cluster) = one_broker(test) else { return };
    cluster.create_topic("flushed", 2, 1, &[]);
    let producer = endless_linger(cluster).build().unwrap();
    let other = endless_linger(cluster).linger(Duration::ZERO).build().unwrap();
    for _ in 0..50 {
        let sent: Vec<_> = (0..100)
            .map(|i| producer.send(ProducerRecord::new("flushed", "x").partition(i % 2)).unwrap())
            .collect();
        // In the time in which what does not linger is delivered.
        let meanwhile = other.send(ProducerRecord::new("not-flushed", "x")).unwrap();
        meanwhile.wait_timeout(LONG).unwrap();
        assert!(sent.iter().all(|delivery| delivery.try_get().is_none()), "sent before the flush");
        producer.flush(LONG).unwrap();
        assert!(sent.iter().all(|delivery| delivery.try_get().unwrap().is_ok()));
    }
    assert_eq!(cluster.consume("flushed", usize::MAX).len(), 5_000);
}

/// INT-04, INT-20.
#[test]
fn a_close_delivers_what_lingers_and_ends_the_sending() {
    let test = "a_close_delivers_what_lingers_and_ends_the_sending";
    let Some(cluster) = one_broker(test) else { return };
    cluster.create_topic("closed", 1, 1, &[]);
    let producer = endless_linger(cluster).build().unwrap();
    let sent: Vec<_> =
        (0..100).map(|_| producer.send(ProducerRecord::new("closed", "x")).unwrap()).collect();
    assert!(producer.close(LONG).is_clean());
    for (offset, delivery) in (0..).zip(&sent) {
        assert_eq!(delivery.try_get().unwrap().unwrap().offset(), Some(offset));
    }
    let late = producer.send(ProducerRecord::new("closed", "x"));
    assert!(matches!(late, Err(Error::Closed)), "{late:?}");
    assert_eq!(cluster.consume("closed", usize::MAX).len(), 100);
}

/// INT-09.
#[test]
fn a_close_of_no_time_gives_up_what_lingers_and_the_broker_has_none_of_it() {
    let test = "a_close_of_no_time_gives_up_what_lingers_and_the_broker_has_none_of_it";
    let Some(cluster) = one_broker(test) else { return };
    cluster.create_topic("given-up", 1, 1, &[]);
    let producer = endless_linger(cluster).build().unwrap();
    let sent: Vec<_> =
        (0..100).map(|_| producer.send(ProducerRecord::new("given-up", "x")).unwrap()).collect();
    let report = within(Duration::ZERO, "close", || producer.close(Duration::ZERO));
    assert_eq!(report.aborted_records, 100, "{report:?}");
    for delivery in &sent {
        let Err(Error::Delivery(error)) = delivery.try_get().unwrap() else { panic!("delivered") };
        assert_eq!((&error.cause, error.persisted), (&DeliveryCause::Closed, Persisted::No));
    }
    assert_eq!(cluster.consume("given-up", usize::MAX).len(), 0);
}

/// INT-10: where Java gives up what is buffered, this is refused and costs nothing.
#[test]
fn a_close_inside_a_callback_is_refused_and_costs_no_record() {
    let test = "a_close_inside_a_callback_is_refused_and_costs_no_record";
    let Some(cluster) = one_broker(test) else { return };
    cluster.create_topic("inside", 1, 1, &[]);
    let producer = producer(cluster).build().unwrap();
    let (report, reports) = mpsc::channel();
    for timeout in [Duration::ZERO, LONG] {
        let (inner, report) = (producer.clone(), report.clone());
        let close = move |_: Result<&kafka_producer::RecordMetadata, &Error>| {
            report.send(inner.close(timeout)).expect("the test waits");
        };
        producer.send_with(ProducerRecord::new("inside", "x"), close).unwrap();
        let refused = reports.recv_timeout(LONG).unwrap().refused;
        assert!(matches!(refused, Some(Error::InCallback { .. })), "{refused:?}");
        let next = producer.send(ProducerRecord::new("inside", "x")).unwrap();
        assert!(next.wait_timeout(LONG).is_ok());
    }
    assert!(producer.close(LONG).is_clean());
    assert_eq!(cluster.consume("inside", usize::MAX).len(), 4);
}

/// INT-12: with and without key and partition.
#[test]
fn a_batch_size_of_zero_gives_each_record_a_batch() {
    let test = "a_batch_size_of_zero_gives_each_record_a_batch";
    let Some(cluster) = one_broker(test) else { return };
    cluster.create_topic("unbatched", 2, 1, &[]);
    let producer = producer(cluster).batch_size(0).build().unwrap();
    let mut sent = Vec::new();
    for i in 0..60 {
        let record = ProducerRecord::new("unbatched", "x");
        let record = match i % 3 {
            0 => record,
            1 => record.key("k"),
            _ => record.partition(1),
        };
        sent.push(producer.send(record).unwrap());
    }
    assert!(sent.iter().all(|delivery| delivery.wait_timeout(LONG).is_ok()));
    assert_eq!(cluster.consume("unbatched", usize::MAX).len(), 60);
    let batches = |partition| {
        let leader = cluster.leader("unbatched", partition).expect("a leader");
        let dump = cluster.dump_log(leader, "unbatched", partition);
        dump.iter().filter(|line| line.starts_with("baseOffset:")).count()
    };
    assert_eq!(batches(0) + batches(1), 60);
}

/// INT-07, INT-19: the missing partition.
#[test]
fn a_partition_that_is_missing_is_told_of_and_sent_to_once_it_is_there() {
    let test = "a_partition_that_is_missing_is_told_of_and_sent_to_once_it_is_there";
    let Some(cluster) = one_broker(test) else { return };
    cluster.create_topic("grows", 1, 1, &[]);
    let wait = Duration::from_millis(700);
    let producer = producer(cluster).build().unwrap();
    let record = || ProducerRecord::new("grows", "x").partition(4);
    let refused = within(wait, "send", || producer.send_timeout(record(), wait));
    let Err(Error::MetadataTimeout { cause, .. }) = refused else { panic!("{refused:?}") };
    assert!(cause.contains("1 partitions"), "{cause}");
    cluster.grow_topic("grows", 5);
    let metadata = producer.send(record()).unwrap().wait_timeout(LONG).unwrap();
    assert_eq!((metadata.partition(), metadata.offset()), (4, Some(0)));
}

/// INT-14.
#[test]
fn timestamps_are_refused_outside_the_topics_limits_and_not_inside() {
    let test = "timestamps_are_refused_outside_the_topics_limits_and_not_inside";
    let Some(cluster) = one_broker(test) else { return };
    let hour = HOUR.to_string();
    let limits =
        [("message.timestamp.before.max.ms", &*hour), ("message.timestamp.after.max.ms", &*hour)];
    cluster.create_topic("limits", 1, 1, &limits);
    let producer = producer(cluster).build().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_millis()).unwrap();
    let minute = HOUR / 60;
    for (off, accepted) in
        [(HOUR - minute, true), (HOUR + minute, false), (minute - HOUR, true), (-HOUR - 1, false)]
    {
        let record = ProducerRecord::new("limits", "x").timestamp(now + off);
        let verdict = producer.send(record).unwrap().wait_timeout(LONG);
        match accepted {
            true => assert_eq!(verdict.unwrap().timestamp(), now + off),
            false => assert_eq!(broker_code(verdict), ErrorCode::INVALID_TIMESTAMP, "{off}"),
        }
    }
}

/// INT-15.
#[test]
fn a_producer_that_may_not_wait_fails_at_once() {
    let Some(cluster) = one_broker("a_producer_that_may_not_wait_fails_at_once") else { return };
    cluster.create_topic("hasty", 1, 1, &[]);
    let builder = endless_linger(cluster).buffer_memory(5_000).batch_size(5_000);
    let producer = builder.max_block(Duration::ZERO).build().unwrap();
    let record = |value: &'static [u8]| ProducerRecord::new("hasty", value);
    let unknown = within(Duration::ZERO, "send", || producer.send(record(b"x")));
    assert!(matches!(unknown, Err(Error::MetadataTimeout { .. })), "{unknown:?}");
    producer.wait_ready(&["hasty"], LONG).unwrap();
    let sent = producer.send(record(&[b'x'; 4_000])).unwrap();
    let full = within(Duration::ZERO, "send", || producer.send(record(&[b'y'; 4_000])));
    assert!(matches!(full, Err(Error::BufferExhausted { .. })), "{full:?}");
    assert!(producer.close(LONG).is_clean());
    assert!(sent.try_get().unwrap().is_ok());
    assert_eq!(cluster.consume("hasty", usize::MAX).len(), 1);
}

/// INT-16, INT-17, INT-18.
#[test]
fn a_record_of_the_topics_limit_passes_and_one_byte_more_is_too_large() {
    let test = "a_record_of_the_topics_limit_passes_and_one_byte_more_is_too_large";
    let Some(cluster) = one_broker(test) else { return };
    cluster.create_topic("sized", 1, 1, &[("max.message.bytes", "10000")]);
    // The broker weighs the batch: 61 bytes of its own, and 11 of the record's beside the value.
    let value = vec![b'x'; 10_000 - 61 - 11 + 1];
    for acks in [Acks::All, Acks::Leader] {
        let producer = producer(cluster).acks(acks).build().unwrap();
        let fits = producer.send(ProducerRecord::new("sized", &value[1..])).unwrap();
        fits.wait_timeout(LONG).unwrap();
        let too_large = producer.send(ProducerRecord::new("sized", &value)).unwrap();
        let code = broker_code(too_large.wait_timeout(LONG));
        assert_eq!(code, ErrorCode::MESSAGE_TOO_LARGE, "{acks:?}");
    }
    // Nobody hears what the broker makes of it.
    let producer = producer(cluster).acks(Acks::None).build().unwrap();
    let unheard = producer.send(ProducerRecord::new("sized", &value)).unwrap();
    assert_eq!(unheard.wait_timeout(LONG).unwrap().offset(), None);
    assert!(producer.close(LONG).is_clean());
    assert_eq!(cluster.consume("sized", usize::MAX).len(), 2);
}

/// INT-21.
#[test]
fn an_internal_topic_takes_no_records() {
    let Some(cluster) = one_broker("an_internal_topic_takes_no_records") else { return };
    let producer = producer(cluster).build().unwrap();
    let sent = producer.send(ProducerRecord::new("__consumer_offsets", "x")).unwrap();
    let code = broker_code(sent.wait_timeout(LONG));
    assert_eq!(code, ErrorCode::INVALID_TOPIC_EXCEPTION);
}

/// INT-24: made on demand, and its first leader epoch is lower than the last one's, which a restart
/// has raised.
#[test]
fn a_topic_that_is_deleted_under_a_stream_is_made_anew_and_sent_to() {
    let test = "a_topic_that_is_deleted_under_a_stream_is_made_anew_and_sent_to";
    let Some(cluster) = guarded_broker(test) else { return };
    let producer = producer(&cluster).build().unwrap();
    let epoch = || producer.partitions_for("short-lived").unwrap()[0].leader_epoch;
    let send = || {
        let record = ProducerRecord::new("short-lived", "x").partition(0);
        producer.send(record).expect("accepted").wait_timeout(LONG).map(|m| m.offset())
    };
    assert_eq!(send().unwrap(), Some(0));
    cluster.restart(1);
    for offset in 1..50 {
        assert_eq!(send().unwrap(), Some(offset));
    }
    assert!(epoch() > Some(0), "{:?}", epoch());
    cluster.delete_topic("short-lived");
    // The broker takes records until it has heard; what it is asked in between may fail.
    let deadline = Instant::now() + LONG;
    while !matches!(send(), Ok(Some(0..40))) {
        assert!(Instant::now() < deadline, "it never recovers");
    }
    let first = send().expect("delivered").expect("an offset");
    for offset in first + 1..first + 10 {
        assert_eq!(send().unwrap(), Some(offset));
    }
    assert_eq!(epoch(), Some(0));
    assert!(producer.close(LONG).is_clean());
}

/// INT-27: brokers forget a producer whose last records are old by their own timestamps.
#[test]
fn a_producer_that_the_broker_has_forgotten_goes_on() {
    let test = "a_producer_that_the_broker_has_forgotten_goes_on";
    let Some(cluster) = one_broker(test) else { return };
    cluster.create_topic("forgetful", 1, 1, &[]);
    let producer = producer(cluster).build().unwrap();
    let deadline = Instant::now() + LONG;
    for offset in 0..3 {
        let record = ProducerRecord::new("forgetful", "x").timestamp(1_000);
        let metadata = producer.send(record).unwrap().wait_timeout(LONG).unwrap();
        assert_eq!(metadata.offset(), Some(offset));
        while !cluster.producer_ids("forgetful").is_empty() {
            assert!(Instant::now() < deadline, "the broker never forgets");
        }
    }
    assert!(producer.close(LONG).is_clean());
    assert_eq!(cluster.consume("forgetful", usize::MAX).len(), 3);
}

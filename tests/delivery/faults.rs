//! Brokers that misbehave: what is accepted is in the log once, in order, and told of rightly.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kafka_producer::testing::{Fault, FaultBuilder, TestCluster, TopicConfig};
use kafka_producer::{
    DeliveryCause, ErrorCode, KafkaProducer, Persisted, ProducerBuilder, ProducerRecord,
};

use crate::common::{LONG, builder, close, delivered, failure, ms, values};

/// Batches of three records or so, often several of a partition in flight.
fn small_batches(cluster: &TestCluster) -> ProducerBuilder {
    builder(cluster).batch_size(120).linger(ms(0)).request_timeout(ms(400))
}

/// Sends 200 records to two partitions, and has all of them in the log: once, in order, and where
/// the handles say. An offset may be unknown.
#[track_caller]
fn assert_survives(cluster: &TestCluster, producer: &KafkaProducer, name: &str) {
    let deliveries: Vec<_> = (0..200)
        .map(|i| {
            let value = i.to_string();
            producer.send(ProducerRecord::new("t", &value).partition(i % 2)).unwrap()
        })
        .collect();
    for (i, delivery) in (0..).zip(&deliveries) {
        let metadata = delivered(delivery);
        let known = metadata.offset().is_none_or(|offset| offset == i / 2);
        assert!(known, "{name}: record {i} is said to be at {:?}", metadata.offset());
    }
    for partition in 0..2 {
        let expected: Vec<_> = (0..100).map(|i| (2 * i + partition).to_string()).collect();
        assert_eq!(values(cluster, "t", partition), expected, "{name}");
    }
}

/// A fault, made of whichever requests it is to meet.
type Harm = fn(FaultBuilder) -> Fault;

#[track_caller]
fn assert_harmless(harms: &[(&str, Harm)]) {
    for (name, harm) in harms {
        for place in [0, 1, 5] {
            let cluster = TestCluster::builder().topic("t", 2).start();
            let fault = cluster.inject(harm(Fault::produce().partition(1).skip(place)));
            let producer = small_batches(&cluster).build().unwrap();
            let name = format!("{name} at request {place}");
            assert_survives(&cluster, &producer, &name);
            assert_eq!(cluster.fired(fault), 1, "{name}");
            close(&producer);
        }
    }
}

#[test]
fn errors_that_pass_lose_and_double_nothing() {
    assert_harmless(&[
        ("NOT_ENOUGH_REPLICAS", |f| f.error(ErrorCode::NOT_ENOUGH_REPLICAS)),
        ("NOT_LEADER", |f| f.error(ErrorCode::NOT_LEADER_OR_FOLLOWER)),
        ("NOT_LEADER after the append", |f| f.error_after(ErrorCode::NOT_LEADER_OR_FOLLOWER)),
        ("AFTER_APPEND", |f| f.error_after(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND)),
        ("REQUEST_TIMED_OUT", |f| f.error_after(ErrorCode::REQUEST_TIMED_OUT)),
        ("KAFKA_STORAGE_ERROR", |f| f.error(ErrorCode::KAFKA_STORAGE_ERROR)),
        ("UNKNOWN_TOPIC", |f| f.error(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)),
        ("CORRUPT_MESSAGE", |f| f.error(ErrorCode::CORRUPT_MESSAGE)),
    ]);
}

#[test]
fn lost_connections_lose_and_double_nothing() {
    assert_harmless(&[
        ("hung up before the append", |f| f.disconnect()),
        ("hung up after the append", |f| f.disconnect_after()),
        ("cut off in the length", |f| f.truncate(2)),
        ("cut off in the header", |f| f.truncate(7)),
        ("cut off in the answer", |f| f.truncate(20)),
    ]);
}

#[test]
fn silence_is_given_up_and_loses_and_doubles_nothing() {
    assert_harmless(&[
        ("silent before the append", |f| f.silence()),
        ("silent after the append", |f| f.silence_after()),
    ]);
}

#[test]
fn answers_that_make_no_sense_lose_and_double_nothing() {
    assert_harmless(&[("garbage", |f| f.garbage()), ("oversized", |f| f.oversize())]);
}

#[test]
fn slow_answers_lose_and_double_nothing() {
    assert_harmless(&[
        ("late", |f| f.delay(ms(100))),
        ("answered late", |f| f.delay_response(ms(100))),
        ("throttled", |f| f.throttle(ms(100))),
    ]);
}

#[test]
fn refused_sequences_lose_and_double_nothing() {
    assert_harmless(&[
        ("UNKNOWN_PRODUCER_ID", |f| f.error(ErrorCode::UNKNOWN_PRODUCER_ID)),
        ("OUT_OF_ORDER", |f| f.error(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER)),
        ("INVALID_PRODUCER_EPOCH", |f| f.error(ErrorCode::INVALID_PRODUCER_EPOCH)),
        ("DUPLICATE", |f| f.error_after(ErrorCode::DUPLICATE_SEQUENCE_NUMBER)),
    ]);
}

#[test]
fn a_storm_of_faults_loses_and_doubles_nothing() {
    let cluster = TestCluster::builder().brokers(2).topic("t", 2).start();
    let faults = || Fault::produce().times(4);
    cluster.inject(faults().skip(2).disconnect_after());
    cluster.inject(faults().skip(7).error(ErrorCode::NOT_ENOUGH_REPLICAS));
    cluster.inject(faults().skip(9).error_after(ErrorCode::REQUEST_TIMED_OUT));
    cluster.inject(faults().skip(12).silence_after());
    cluster.inject(faults().skip(16).garbage());
    cluster.inject(faults().skip(20).disconnect());
    cluster.inject(Fault::metadata().times(3).disconnect());
    cluster.inject(Fault::init_producer_id().times(2).disconnect_after());
    cluster.inject(Fault::api_versions().skip(1).times(2).disconnect());
    let producer = small_batches(&cluster).build().unwrap();
    assert_survives(&cluster, &producer, "storm");
    close(&producer);
}

#[test]
fn the_producer_id_is_asked_for_until_it_is_there() {
    let cluster = TestCluster::builder().topic("t", 2).start();
    cluster.inject(Fault::init_producer_id().error(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS));
    cluster.inject(Fault::init_producer_id().skip(1).garbage());
    cluster.inject(Fault::init_producer_id().skip(2).silence());
    let producer = small_batches(&cluster).build().unwrap();
    assert_survives(&cluster, &producer, "no producer id at first");
}

#[test]
fn producers_that_brokers_forget_go_on() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster).build().unwrap();
    for round in 0..5 {
        for i in 0..10 {
            producer.send(ProducerRecord::new("t", &(round * 10 + i).to_string())).unwrap();
        }
        producer.flush(LONG).unwrap();
        cluster.forget_producers();
    }
    let expected: Vec<_> = (0..50).map(|i| i.to_string()).collect();
    assert_eq!(values(&cluster, "t", 0), expected);
}

/// Without idempotence, one request at a time is what keeps the order.
#[test]
fn one_request_in_flight_keeps_the_order_without_idempotence() {
    for acks in [kafka_producer::Acks::Leader, kafka_producer::Acks::All] {
        let cluster = TestCluster::builder().topic("t", 2).start();
        let errors = || Fault::produce().error(ErrorCode::NOT_ENOUGH_REPLICAS);
        cluster.inject(errors());
        cluster.inject(Fault::produce().skip(3).times(2).disconnect());
        cluster.inject(Fault::produce().skip(8).error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
        let producer = small_batches(&cluster)
            .acks(acks)
            .enable_idempotence(false)
            .max_in_flight(1)
            .build()
            .unwrap();
        assert_survives(&cluster, &producer, "one in flight");
        assert!(cluster.records("t", 0).iter().all(|record| record.producer_id == -1));
    }
}

#[test]
fn retries_that_are_used_up_fail_with_the_brokers_error() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let code = ErrorCode::NOT_ENOUGH_REPLICAS;
    let fault = cluster.inject(Fault::produce().always().error(code));
    let producer = small_batches(&cluster).retries(2).build().unwrap();
    let error = failure(&producer.send(ProducerRecord::new("t", "v")).unwrap());
    assert!(matches!(&error.cause, DeliveryCause::Broker { code: c, .. } if *c == code));
    assert_eq!((error.attempts, error.persisted), (3, Persisted::No), "{error}");
    assert_eq!(cluster.fired(fault), 3);
    cluster.clear_faults();
    let next = delivered(&producer.send(ProducerRecord::new("t", "next")).unwrap());
    assert_eq!(next.offset(), Some(0));
}

#[test]
fn a_lost_answer_without_retries_leaves_the_record_in_doubt() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    cluster.inject(Fault::produce().disconnect_after());
    let producer = small_batches(&cluster).retries(0).build().unwrap();
    let error = failure(&producer.send(ProducerRecord::new("t", "v")).unwrap());
    assert_eq!(error.cause, DeliveryCause::Disconnected);
    assert_eq!((error.attempts, error.persisted), (1, Persisted::Unknown));
    assert_eq!(values(&cluster, "t", 0), ["v"]);
}

#[test]
fn a_refusal_for_good_fails_the_batch_and_not_those_after_it() {
    for code in [
        ErrorCode::TOPIC_AUTHORIZATION_FAILED,
        ErrorCode::INVALID_TIMESTAMP,
        ErrorCode::MESSAGE_TOO_LARGE,
    ] {
        let cluster = TestCluster::builder().topic("t", 2).start();
        let producer = small_batches(&cluster).build().unwrap();
        cluster.inject(Fault::produce().partition(0).error(code));
        let record = ProducerRecord::new("t", "refused").partition(0);
        let error = failure(&producer.send(record).unwrap());
        assert!(matches!(&error.cause, DeliveryCause::Broker { code: c, .. } if *c == code));
        assert_eq!((error.attempts, error.persisted), (1, Persisted::No));
        assert_survives(&cluster, &producer, "after a refusal");
    }
}

#[test]
fn a_batch_that_is_too_large_goes_on_in_parts() {
    let config = TopicConfig::new(1).max_message_bytes(600);
    let cluster = TestCluster::builder().topic("t", config).start();
    let producer = builder(&cluster).linger(ms(50)).build().unwrap();
    let called = Arc::new(AtomicUsize::new(0));
    let text = |i: u64| format!("{i:0100}");
    let deliveries: Vec<_> = (0..300)
        .map(|i| {
            let (value, called) = (text(i), Arc::clone(&called));
            if i % 3 == 0 {
                let told = move |result: Result<&kafka_producer::RecordMetadata, &_>| {
                    assert_eq!(result.unwrap().offset(), i64::try_from(i).ok());
                    called.fetch_add(1, Ordering::Relaxed);
                };
                producer.send_with(ProducerRecord::new("t", &value), told).unwrap();
                None
            } else {
                Some(producer.send(ProducerRecord::new("t", &value)).unwrap())
            }
        })
        .collect();
    producer.flush(LONG).unwrap();
    assert_eq!(called.load(Ordering::Relaxed), 100);
    for (i, delivery) in (0..).zip(&deliveries) {
        if let Some(delivery) = delivery {
            assert_eq!(delivered(delivery).offset(), Some(i));
        }
    }
    let expected: Vec<_> = (0..300).map(text).collect();
    assert_eq!(values(&cluster, "t", 0), expected);
    close(&producer);
}

#[test]
fn a_record_that_is_too_large_by_itself_fails_and_leaves_the_others() {
    let config = TopicConfig::new(1).max_message_bytes(600);
    let cluster = TestCluster::builder().topic("t", config).start();
    let producer = builder(&cluster).linger(ms(50)).build().unwrap();
    let send = |value: &str| producer.send(ProducerRecord::new("t", value)).unwrap();
    let before: Vec<_> = (0..20).map(|i| send(&i.to_string())).collect();
    let large = send(&"x".repeat(700));
    let after: Vec<_> = (20..40).map(|i| send(&i.to_string())).collect();
    let error = failure(&large);
    let code = ErrorCode::MESSAGE_TOO_LARGE;
    assert!(matches!(&error.cause, DeliveryCause::Broker { code: c, .. } if *c == code));
    assert_eq!(error.persisted, Persisted::No);
    before.iter().chain(&after).for_each(|delivery| drop(delivered(delivery)));
    let expected: Vec<_> = (0..40).map(|i| i.to_string()).collect();
    assert_eq!(values(&cluster, "t", 0), expected);
}

#[test]
fn the_record_at_fault_is_told_apart_from_those_beside_it() {
    let cluster = TestCluster::builder().topic("t", TopicConfig::new(1).compacted()).start();
    let producer = builder(&cluster).linger(ms(100)).build().unwrap();
    let keyed = || ProducerRecord::new("t", "v").key("k");
    let [first, guilty, last] = [keyed(), ProducerRecord::new("t", "no key"), keyed()]
        .map(|record| producer.send(record).unwrap());
    let errors = [&first, &guilty, &last].map(failure);
    assert!(errors.iter().all(|error| error.persisted == Persisted::No));
    let [first, guilty, last] = errors.each_ref().map(|error| &error.cause);
    let code = ErrorCode::INVALID_RECORD;
    assert!(matches!(guilty, DeliveryCause::Broker { code: c, .. } if *c == code));
    assert_eq!([first, last], [&DeliveryCause::BatchRejected { code }; 2]);
    assert_eq!(delivered(&producer.send(keyed()).unwrap()).offset(), Some(0));
}

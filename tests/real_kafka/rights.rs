//! What a producer may and may not do, by access rules.

use std::time::Instant;

use kafka_producer::{DeliveryCause, Error, ErrorCode, KafkaProducer, Persisted, ProducerRecord};

use crate::kafka_harness::Cluster;
use crate::support::{LONG, guarded_broker, producer};

/// What the broker said to one record; none if it took it.
fn told(producer: &KafkaProducer, topic: &str) -> Option<ErrorCode> {
    let sent = producer.send(ProducerRecord::new(topic, "x"));
    match sent.expect("accepted").wait_timeout(LONG) {
        Ok(_) => None,
        Err(Error::Delivery(error)) => {
            assert_eq!(&*error.topic_partition.topic, topic);
            assert_eq!(error.persisted, Persisted::No, "{error}");
            match error.cause {
                DeliveryCause::Broker { code, .. } => Some(code),
                _ => panic!("{error}"),
            }
        }
        Err(error) => panic!("{error}"),
    }
}

/// Rules reach the broker a moment after they are made: another producer looks until they have.
fn wait_until_told(cluster: &Cluster, topic: &str, expected: Option<ErrorCode>) {
    let probe = producer(cluster).enable_idempotence(false).build().unwrap();
    let deadline = Instant::now() + LONG;
    while told(&probe, topic) != expected {
        assert!(Instant::now() < deadline, "{topic}: never {expected:?}");
    }
}

const TOPIC_REFUSED: Option<ErrorCode> = Some(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
const CLUSTER_REFUSED: Option<ErrorCode> = Some(ErrorCode::CLUSTER_AUTHORIZATION_FAILED);

/// INT-48, INT-52.
#[test]
fn a_topic_that_may_not_be_written_to_refuses_each_record_and_no_other_topics() {
    let test = "a_topic_that_may_not_be_written_to_refuses_each_record_and_no_other_topics";
    let Some(cluster) = guarded_broker(test) else { return };
    for topic in ["secret", "public"] {
        cluster.create_topic(topic, 1, 1, &[]);
    }
    let producer = producer(&cluster).build().unwrap();
    assert_eq!(told(&producer, "secret"), None, "the producer has its id by now");
    cluster.add_acls(&["deny topic secret write"]);
    wait_until_told(&cluster, "secret", TOPIC_REFUSED);
    for _ in 0..3 {
        assert_eq!(told(&producer, "secret"), TOPIC_REFUSED);
        assert_eq!(told(&producer, "public"), None);
    }
    cluster.deny_nothing();
    wait_until_told(&cluster, "secret", None);
    assert_eq!(told(&producer, "secret"), None);
    assert!(producer.close(LONG).is_clean());
}

/// INT-51, INT-53: whoever may write to no topic gets no producer id, which is told each time, and
/// gets one as soon as that changes.
#[test]
fn a_producer_id_that_is_refused_fails_records_until_it_is_given() {
    let test = "a_producer_id_that_is_refused_fails_records_until_it_is_given";
    let Some(cluster) = guarded_broker(test) else { return };
    cluster.create_topic("closed", 1, 1, &[]);
    cluster.add_acls(&["deny topic * write", "deny cluster kafka-cluster idempotent_write"]);
    wait_until_told(&cluster, "closed", TOPIC_REFUSED);
    let producer = producer(&cluster).build().unwrap();
    for _ in 0..2 {
        assert_eq!(told(&producer, "closed"), CLUSTER_REFUSED);
    }
    cluster.deny_nothing();
    wait_until_told(&cluster, "closed", None);
    let deadline = Instant::now() + LONG;
    while let Some(code) = told(&producer, "closed") {
        assert_eq!(Some(code), CLUSTER_REFUSED, "the rules go one by one");
        assert!(Instant::now() < deadline, "it never recovers");
    }
    assert!(producer.close(LONG).is_clean());
}

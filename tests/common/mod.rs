//! What the tests of the producer on the test cluster share.

#![allow(dead_code)] // each test binary uses a part of it

pub mod asleep;
pub mod stranger;

use std::time::{Duration, Instant};

use kafka_producer::testing::TestCluster;
use kafka_producer::{
    Delivery, DeliveryError, Error, KafkaProducer, ProducerBuilder, RecordMetadata,
};

/// The end of every wait that is not to come to its end.
pub const LONG: Duration = Duration::from_secs(30);

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A builder for a producer that tries again soon.
pub fn builder(cluster: &TestCluster) -> ProducerBuilder {
    impatient(&cluster.bootstrap_servers())
}

pub fn impatient(servers: &str) -> ProducerBuilder {
    KafkaProducer::builder()
        .bootstrap_servers(servers)
        .retry_backoff(ms(5))
        .retry_backoff_max(ms(50))
        .reconnect_backoff(ms(5))
        .reconnect_backoff_max(ms(50))
}

/// The values in a partition's log, oldest first.
pub fn values(cluster: &TestCluster, topic: &str, partition: i32) -> Vec<String> {
    let text = |value: Option<Vec<u8>>| String::from_utf8(value.unwrap()).unwrap();
    cluster.records(topic, partition).into_iter().map(|record| text(record.value)).collect()
}

/// What the handle tells, which has to come in time.
#[track_caller]
pub fn fate(delivery: &Delivery) -> Result<RecordMetadata, Error> {
    let fate = delivery.wait_timeout(LONG);
    assert!(!matches!(fate, Err(Error::WaitTimeout)), "not decided in time");
    fate
}

#[track_caller]
pub fn delivered(delivery: &Delivery) -> RecordMetadata {
    fate(delivery).unwrap_or_else(|error| panic!("not delivered: {error}"))
}

#[track_caller]
pub fn failure(delivery: &Delivery) -> DeliveryError {
    match fate(delivery) {
        Err(Error::Delivery(error)) => (*error).clone(),
        other => panic!("no failure of a delivery: {other:?}"),
    }
}

/// Closes the producer, which has to be clean.
#[track_caller]
pub fn close(producer: &KafkaProducer) {
    let report = producer.close(LONG);
    assert!(report.is_clean(), "{report:?}");
}

/// What `action` gives, and how long it took.
pub fn timed<T>(action: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = action();
    (result, start.elapsed())
}

/// Asserts that something took at least `least`, and not so long that it was something else that
/// ended it.
#[track_caller]
pub fn assert_took(time: Duration, least: Duration) {
    let most = least + Duration::from_secs(4);
    assert!((least..most).contains(&time), "took {time:?}, not {least:?}");
}

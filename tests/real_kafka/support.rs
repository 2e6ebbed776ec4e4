//! The clusters that the tests share, and how what was reported is compared with what is there.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use kafka_producer::{
    Delivery, Error, KafkaProducer, Persisted, ProducerBuilder, ProducerRecord, RecordMetadata,
};
use parking_lot::{Mutex, MutexGuard};

use crate::kafka_harness::{Cluster, ConsumedRecord, TimestampType};

/// Longer than anything here takes that goes well.
pub const LONG: Duration = Duration::from_secs(90);

/// What a busy machine may add to a time-out that is kept.
pub const SLACK: Duration = Duration::from_secs(2);

/// A broker that creates the topics it is asked for. No test disturbs it.
pub fn one_broker(test: &str) -> Option<&'static Cluster> {
    static STARTING: Mutex<()> = Mutex::new(());
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    let _alone = STARTING.lock();
    if CLUSTER.get().is_none() {
        let configs = [
            ("auto.create.topics.enable", "true"),
            ("num.partitions", "3"),
            ("producer.id.expiration.check.interval.ms", "500"),
        ];
        let started = Cluster::start_or_skip(test, 1, &configs)?;
        return Some(CLUSTER.get_or_init(|| started));
    }
    CLUSTER.get()
}

/// Three brokers without automatic topics, all of them up, for one test at a time, which may kill
/// and pause them.
pub fn three_brokers(test: &str) -> Option<MutexGuard<'static, Cluster>> {
    static CLUSTER: OnceLock<Mutex<Cluster>> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock();
    if CLUSTER.get().is_none() {
        let started = Cluster::start_or_skip(test, 3, &[])?;
        CLUSTER.get_or_init(|| Mutex::new(started));
    }
    drop(turn);
    let cluster = CLUSTER.get()?.lock();
    cluster.mend(); // the test before may have failed half-way
    Some(cluster)
}

/// A broker with an authorizer, where everybody may do everything but what a test forbids; for one
/// test at a time, which may kill it.
pub fn guarded_broker(test: &str) -> Option<MutexGuard<'static, Cluster>> {
    static CLUSTER: OnceLock<Mutex<Cluster>> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock();
    if CLUSTER.get().is_none() {
        let authorizer = "org.apache.kafka.metadata.authorizer.StandardAuthorizer";
        let configs = [
            ("authorizer.class.name", authorizer),
            ("super.users", ""),
            ("auto.create.topics.enable", "true"),
            ("allow.everyone.if.no.acl.found", "true"),
        ];
        let started = Cluster::start_or_skip(test, 1, &configs)?;
        started.add_acls(&[
            "allow cluster kafka-cluster all",
            "allow topic * all",
            "allow group * all",
        ]);
        CLUSTER.get_or_init(|| Mutex::new(started));
    }
    drop(turn);
    let cluster = CLUSTER.get()?.lock();
    cluster.mend(); // the test before may have failed half-way
    cluster.deny_nothing();
    Some(cluster)
}

pub fn producer(cluster: &Cluster) -> ProducerBuilder {
    let _ = env_logger::builder().is_test(true).try_init();
    KafkaProducer::builder().bootstrap_servers(cluster.bootstrap())
}

/// How the log has to show a record that was reported at this place.
pub fn in_the_log(record: &ProducerRecord<'_>, metadata: &RecordMetadata) -> ConsumedRecord {
    let header = |h: &kafka_producer::Header<'_>| {
        (h.name.clone().into_owned(), h.value.as_deref().map(<[u8]>::to_vec))
    };
    ConsumedRecord {
        partition: metadata.partition(),
        offset: metadata.offset().unwrap_or(-1),
        timestamp: metadata.timestamp(),
        timestamp_type: TimestampType::CreateTime,
        headers: record.header_list().iter().map(header).collect(),
        key: record.key_bytes().map(<[u8]>::to_vec),
        value: record.value_bytes().map(<[u8]>::to_vec),
    }
}

/// Every record of the log, at its place, is the one that was reported there, and there are no
/// others.
pub fn assert_same(log: &[ConsumedRecord], mut reported: Vec<ConsumedRecord>) {
    reported.sort_by_key(|r| (r.partition, r.offset));
    for (logged, reported) in log.iter().zip(&reported) {
        assert_eq!(logged, reported, "left: the log; right: what was reported");
    }
    assert_eq!(log.len(), reported.len(), "records in the log, and reported");
}

/// What the topic holds once it holds so many records: the one way to wait for records of which
/// nobody is told that they arrived (`acks=0`).
pub fn consume_all(cluster: &Cluster, topic: &str, records: usize) -> Vec<ConsumedRecord> {
    let deadline = Instant::now() + LONG;
    loop {
        let log = cluster.consume(topic, usize::MAX);
        if log.len() >= records || Instant::now() > deadline {
            return log;
        }
    }
}

/// Runs `f`; it must end within `limit`, save what a busy machine adds.
pub fn within<T>(limit: Duration, what: &str, f: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = f();
    let taken = begun.elapsed();
    assert!(taken <= limit + SLACK, "{what} took {taken:?} with a time-out of {limit:?}");
    result
}

/// A record of a stream, by the thread that sent it and its number there. The record's value is
/// this, so that the log can be compared with what the thread was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Numbered {
    pub thread: u32,
    pub number: u32,
}

impl Numbered {
    pub fn value(self) -> String {
        format!("{}-{}", self.thread, self.number)
    }

    pub fn parse(value: &[u8]) -> Self {
        let text = std::str::from_utf8(value).expect("UTF-8");
        let (thread, number) = text.split_once('-').expect("thread-number");
        Self { thread: thread.parse().expect("digits"), number: number.parse().expect("digits") }
    }
}

/// What a thread was told of its records.
pub struct Told {
    pub record: Numbered,
    pub partition: i32,
    pub verdict: Result<RecordMetadata, Error>,
}

impl Told {
    /// Waits for the verdict.
    pub fn of(record: Numbered, delivery: &Delivery) -> Self {
        let verdict = delivery.wait_timeout(LONG);
        if let Err(Error::WaitTimeout) = verdict {
            panic!("{record:?} was never decided");
        }
        Self { record, partition: delivery.partition(), verdict }
    }

    /// Of a failure: whether the record may be in the log.
    pub fn persisted(&self) -> Option<Persisted> {
        match &self.verdict {
            Ok(_) => None,
            Err(Error::Delivery(error)) => Some(error.persisted),
            Err(other) => panic!("{:?}: {other}", self.record),
        }
    }
}

/// The log of a stream against what its threads were told: each record at most once, in its
/// thread's order within its partition; what was delivered at the offset that was told; nothing
/// that was reported as not persisted.
pub fn assert_truthful(log: &[ConsumedRecord], told: &[Told]) {
    let mut places = BTreeMap::new();
    let mut last = BTreeMap::new();
    for logged in log {
        let record = Numbered::parse(logged.value.as_deref().expect("a value"));
        let place = (logged.partition, logged.offset);
        if let Some(before) = places.insert(record, place) {
            panic!("{record:?} is in the log twice: {before:?} and {place:?}");
        }
        if let Some(before) = last.insert((logged.partition, record.thread), record.number) {
            assert!(before < record.number, "{record:?} at {place:?} comes after number {before}");
        }
    }
    for told in told {
        let place = places.remove(&told.record);
        match &told.verdict {
            Ok(metadata) => {
                let (partition, offset) =
                    place.unwrap_or_else(|| panic!("{:?}: acknowledged and lost", told.record));
                assert_eq!(partition, told.partition, "{:?}", told.record);
                assert_eq!(metadata.offset(), Some(offset), "{:?}", told.record);
            }
            Err(error) if told.persisted() == Some(Persisted::No) => {
                assert_eq!(place, None, "{:?}: in the log, and yet told: {error}", told.record);
            }
            Err(_) => {}
        }
    }
    assert!(places.is_empty(), "nobody sent these: {places:?}");
}

/// The comparison itself: each kind of lie is found.
mod comparison {
    use std::sync::Arc;

    use kafka_producer::{DeliveryCause, DeliveryError, TimeSpent, TopicPartition};

    use super::*;

    fn logged(offset: i64, number: u32) -> ConsumedRecord {
        ConsumedRecord {
            partition: 0,
            offset,
            timestamp: 0,
            timestamp_type: TimestampType::CreateTime,
            headers: Vec::new(),
            key: None,
            value: Some(Numbered { thread: 0, number }.value().into_bytes()),
        }
    }

    fn failed(number: u32, persisted: Persisted) -> Told {
        let error = DeliveryError {
            topic_partition: TopicPartition { topic: "t".into(), partition: 0 },
            cause: DeliveryCause::Timeout,
            last: None,
            attempts: 1,
            broker: None,
            elapsed: Duration::ZERO,
            spent: TimeSpent::default(),
            persisted,
        };
        let verdict = Err(Error::Delivery(Arc::new(error)));
        Told { record: Numbered { thread: 0, number }, partition: 0, verdict }
    }

    #[test]
    fn passes_what_may_be() {
        let told = [Persisted::Unknown, Persisted::No, Persisted::Unknown];
        let told: Vec<_> = (0..).zip(told).map(|(i, persisted)| failed(i, persisted)).collect();
        assert_truthful(&[logged(0, 0), logged(1, 2)], &told);
        assert_truthful(&[], &told);
    }

    #[test]
    #[should_panic(expected = "is in the log twice")]
    fn finds_a_duplicate() {
        assert_truthful(&[logged(0, 0), logged(1, 0)], &[failed(0, Persisted::Unknown)]);
    }

    #[test]
    #[should_panic(expected = "comes after number 1")]
    fn finds_a_wrong_order() {
        let told = [failed(0, Persisted::Unknown), failed(1, Persisted::Unknown)];
        assert_truthful(&[logged(0, 1), logged(1, 0)], &told);
    }

    #[test]
    #[should_panic(expected = "in the log, and yet told")]
    fn finds_a_record_that_was_said_to_be_absent() {
        assert_truthful(&[logged(0, 0)], &[failed(0, Persisted::No)]);
    }

    #[test]
    #[should_panic(expected = "nobody sent these")]
    fn finds_a_record_of_nobody() {
        assert_truthful(&[logged(0, 0)], &[]);
    }
}

//! The mock producer, and the trait that it shares with the real one.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{LONG, builder};
use kafka_producer::testing::{MockProducer, TestCluster};
use kafka_producer::{
    BoxedCallback, ClusterView, Delivery, DeliveryCause, Error, Metrics, OwnedRecord,
    PartitionError, PartitionInfo, PartitionInput, Persisted, Producer, ProducerRecord, Purge,
    RecordMetadata, murmur2_partition,
};

type Told = Arc<Mutex<Vec<Result<RecordMetadata, Error>>>>;

fn told() -> (Told, impl Fn() -> BoxedCallback) {
    let told = Told::default();
    let calls = Arc::clone(&told);
    let make = move || -> BoxedCallback {
        let calls = Arc::clone(&calls);
        Box::new(move |fate| calls.lock().unwrap().push(fate.cloned().map_err(Error::clone)))
    };
    (told, make)
}

/// MOCK-01: without more ado each record is delivered as it is sent, and the history has them in
/// order.
#[test]
fn each_record_is_delivered_as_it_is_sent() {
    let mock = MockProducer::builder().topic("t", 2).build();
    let (told, callback) = told();
    let first = mock.send(ProducerRecord::new("t", "a").key("k").partition(1)).unwrap();
    mock.send_with(ProducerRecord::tombstone("t").partition(1).timestamp(7), callback()).unwrap();
    assert_eq!(first.try_get().unwrap().unwrap().offset(), Some(0));
    let told = told.lock().unwrap();
    let second = told[0].as_ref().unwrap();
    assert_eq!((second.topic(), second.partition(), second.offset()), ("t", 1, Some(1)));
    assert_eq!((second.timestamp(), second.value_size()), (7, None));

    let history = mock.history();
    let parts: Vec<_> = history.iter().map(|r| (r.key.as_deref(), r.value.as_deref())).collect();
    assert_eq!(parts, [(Some(&b"k"[..]), Some(&b"a"[..])), (None, None)]);
    assert_eq!(mock.send(history[0].to_record()).unwrap().partition(), {
        murmur2_partition(b"k", 2)
    });
    mock.clear();
    assert!(mock.history().is_empty());
}

/// MOCK-02: in manual mode the test decides the oldest record by each call, and a flush delivers
/// all.
#[test]
fn in_manual_mode_the_test_decides() {
    let mock = MockProducer::builder().manual().build();
    let sent: Vec<_> = (0..4).map(|_| mock.send(ProducerRecord::new("t", "v")).unwrap()).collect();
    assert!(sent.iter().all(|delivery| delivery.try_get().is_none()));
    assert!(mock.complete_next());
    assert_eq!(sent[0].try_get().unwrap().unwrap().offset(), Some(0));
    assert!(mock.error_next(DeliveryCause::Disconnected, Persisted::Unknown));
    let Some(Err(Error::Delivery(failure))) = sent[1].try_get() else { panic!("not failed") };
    assert_eq!(failure.cause, DeliveryCause::Disconnected);
    assert_eq!(failure.persisted, Persisted::Unknown);
    assert_eq!((mock.pending(), mock.flush_count()), (2, 0));
    mock.flush(LONG).unwrap();
    assert!(sent[2..].iter().all(|delivery| delivery.try_get().unwrap().is_ok()));
    assert_eq!((mock.pending(), mock.flush_count()), (0, 1));
    assert!(!mock.complete_next() && !mock.error_next(DeliveryCause::Closed, Persisted::No));
}

/// MOCK-03: the partition is the given partitioner's choice over the given cluster.
#[test]
fn the_partitioner_sees_the_given_cluster() {
    let last_with_leader = |input: &PartitionInput<'_>, cluster: &ClusterView<'_>| {
        assert_eq!((input.topic, input.key), ("t", Some(&b"k"[..])));
        assert_eq!(cluster.partition_count(), 5);
        cluster.available().last().copied().ok_or(PartitionError::from("none has a leader"))
    };
    let mock = MockProducer::builder()
        .topic_with_leaders("t", 5, &[0, 3])
        .topic_with_leaders("dark", 5, &[])
        .partition_by(last_with_leader)
        .build();
    assert_eq!(mock.send(ProducerRecord::new("t", "v").key("k")).unwrap().partition(), 3);
    let leader = |info: &PartitionInfo| info.leader.is_some();
    let led: Vec<_> = mock.partitions_for("t").unwrap().iter().map(leader).collect();
    assert_eq!(led, [true, false, false, true, false]);

    let plain = MockProducer::builder().topic("t", 7).build();
    let chosen = plain.send(ProducerRecord::new("t", "v").key("k")).unwrap().partition();
    assert_eq!(chosen, murmur2_partition(b"k", 7));
    let missing = plain.send(ProducerRecord::new("t", "v").partition(7));
    assert!(matches!(missing, Err(Error::MetadataTimeout { .. })), "{missing:?}");
}

/// MOCK-04: a callback of a record that failed is told of the error alone, which names the topic
/// and the partition; there is no metadata with placeholders.
#[test]
fn a_failure_names_where_the_record_was_to_go() {
    let mock = MockProducer::builder().topic("t", 3).manual().build();
    let (told, callback) = told();
    mock.send_with(ProducerRecord::new("t", "v").partition(2), callback()).unwrap();
    assert!(mock.error_next(DeliveryCause::Timeout, Persisted::No));
    let told = told.lock().unwrap();
    let Err(Error::Delivery(failure)) = &told[0] else { panic!("{told:?}") };
    assert_eq!(failure.topic_partition.to_string(), "t-2");
}

#[test]
fn calls_fail_on_demand() {
    let mock = MockProducer::new();
    mock.refuse_sends(Error::BufferExhausted { waited: LONG });
    let record = ProducerRecord::new("t", "v");
    let refused = mock.try_send(record.clone()).unwrap_err();
    assert_eq!(refused.record(), &record);
    assert!(matches!(refused.error(), Error::BufferExhausted { .. }));
    let (told, callback) = told();
    let refused = mock.try_send_with(record.clone(), callback()).unwrap_err();
    assert!(matches!(refused.error(), Error::BufferExhausted { .. }));
    let (_, callback, _) = refused.into_parts();
    assert!(mock.send_timeout(record.clone(), LONG).is_err());
    assert!(mock.send_with_timeout(record.clone(), Box::new(|_| ()), LONG).is_err());
    let partial = mock.send_all(std::slice::from_ref(&record)).unwrap_err();
    assert!(partial.accepted.is_empty());
    assert!(mock.history().is_empty(), "a refused record is no history");
    mock.refuse_sends(None);
    mock.try_send_with(record.clone(), callback).unwrap();
    assert!(told.lock().unwrap()[0].is_ok(), "the callback is as it was");
    assert_eq!(mock.send_all(&[record.clone(), record]).unwrap().len(), 2);

    mock.refuse_flush(Error::FlushTimeout { records: 1, callbacks: 0 });
    assert!(matches!(mock.flush(LONG), Err(Error::FlushTimeout { .. })));
    mock.refuse_metadata(Error::Closed);
    assert!(matches!(mock.partitions_for("t"), Err(Error::Closed)));
    assert!(matches!(mock.wait_ready(&["t"], LONG), Err(Error::Closed)));
}

#[test]
fn the_mock_refuses_what_the_real_one_does() {
    let mock = MockProducer::new();
    let send = |record| mock.send(record).unwrap_err();
    assert!(matches!(send(ProducerRecord::new("a b", "v")), Error::InvalidTopic { .. }));
    let negative = ProducerRecord::new("t", "v").timestamp(-1);
    assert!(matches!(send(negative), Error::InvalidRecord(_)));
    let large = vec![0; 1_048_576];
    assert!(matches!(send(ProducerRecord::new("t", &large)), Error::RecordTooLarge { .. }));
    let inside = mock.clone();
    mock.send_with(
        ProducerRecord::new("t", "v"),
        Box::new(move |_| {
            assert!(matches!(inside.flush(LONG), Err(Error::InCallback { .. })));
            assert!(inside.close(LONG).refused.is_some());
            inside.send(ProducerRecord::new("t", "from a callback")).unwrap();
        }),
    )
    .unwrap();
    assert_eq!(mock.history().len(), 2);
    assert!(mock.close(LONG).is_clean() && mock.is_closed());
    assert!(matches!(send(ProducerRecord::new("t", "v")), Error::Closed));
    assert!(matches!(mock.partitions_for("t"), Err(Error::Closed)));
    assert!(matches!(mock.wait_ready(&[], LONG), Err(Error::Closed)));
}

#[test]
fn a_close_delivers_and_one_without_time_gives_up() {
    for (timeout, aborted) in [(LONG, 0), (Duration::ZERO, 1)] {
        let mock = MockProducer::builder().manual().build();
        let delivery = mock.send(ProducerRecord::new("t", "v")).unwrap();
        let report = mock.close(timeout);
        assert_eq!((report.aborted_records, report.delivered), (aborted, 1 - aborted));
        assert_eq!(delivery.try_get().unwrap().is_err(), aborted == 1);
        assert_eq!(format!("{:?}", mock.close(LONG)), format!("{report:?}"));
    }
}

#[test]
fn nobody_waits_for_a_mock_that_is_gone() {
    let mock = MockProducer::builder().manual().build();
    let (told, callback) = told();
    let delivery = mock.send(ProducerRecord::new("t", "v")).unwrap();
    mock.send_with(ProducerRecord::new("t", "v"), callback()).unwrap();
    drop(mock);
    let Err(Error::Delivery(failure)) = delivery.wait() else { panic!("delivered") };
    assert_eq!((&failure.cause, failure.persisted), (&DeliveryCause::Closed, Persisted::No));
    assert!(told.lock().unwrap()[0].is_err());
}

#[test]
fn a_callback_that_panics_leaves_no_record_undecided() {
    let mock = MockProducer::builder().manual().build();
    mock.send_with(ProducerRecord::new("t", "v"), Box::new(|_| panic!("on purpose"))).unwrap();
    let (told, callback) = told();
    mock.send_with(ProducerRecord::new("t", "v"), callback()).unwrap();
    let delivery = mock.send(ProducerRecord::new("t", "v")).unwrap();
    let flushing = std::panic::AssertUnwindSafe(|| mock.flush(LONG));
    assert!(std::panic::catch_unwind(flushing).is_err());
    assert!(delivery.wait().is_err());
    assert!(told.lock().unwrap().is_empty(), "it is dropped");
}

/// A program's own code, which knows no more than the trait.
struct Shop<P> {
    producer: P,
}

impl<P: Producer> Shop<P> {
    fn sell(&self, callback: BoxedCallback) -> Result<i64, Error> {
        let record = || ProducerRecord::new("orders", "paid").partition(1);
        self.producer.wait_ready(&["orders"], LONG)?;
        assert_eq!(self.producer.partitions_for("orders")?.len(), 2);
        let first = self.producer.send(record())?;
        let second = self.producer.try_send(record())?;
        self.producer.send_with(record(), callback)?;
        let third = self.producer.send_timeout(record(), LONG)?;
        let nothing: BoxedCallback = Box::new(|_| ());
        self.producer.try_send_with(record(), nothing)?;
        self.producer.send_with_timeout(record(), Box::new(|_| ()), LONG)?;
        assert_eq!(third.wait()?.offset(), Some(3));
        let rest = self.producer.send_all(&[record(), record()])?;
        self.producer.flush(LONG)?;
        first.wait()?;
        second.wait()?;
        let last = rest[1].wait()?.offset();
        assert!(self.producer.close(LONG).is_clean());
        Ok(last.unwrap_or(-1))
    }
}

#[test]
fn the_real_producer_and_the_mock_do_the_same_behind_the_trait() {
    let cluster = TestCluster::builder().topic("orders", 2).start();
    let real = builder(&cluster).build().unwrap();
    let mock = MockProducer::builder().topic("orders", 2).build();
    let shared: Arc<dyn Producer> = Arc::new(mock.clone());
    for producer in [&real as &dyn Producer, &shared] {
        let (told, callback) = told();
        assert_eq!(Shop { producer }.sell(callback()).unwrap(), 7);
        let told = told.lock().unwrap();
        assert_eq!(told[0].as_ref().unwrap().offset(), Some(2));
    }
    assert_eq!((cluster.count("orders"), mock.history().len()), (8, 8));
}

/// What is lost and what comes back, by a program that knows no more than the trait.
fn given_back(producer: &dyn Producer) -> [Vec<OwnedRecord>; 3] {
    let send = |partition, value| {
        let record = ProducerRecord::new("t", value).partition(partition).key("k").timestamp(5);
        producer.send(record).unwrap()
    };
    let cause = |delivery: &Delivery| match delivery.try_get() {
        Some(Err(Error::Delivery(failure))) => (failure.cause.clone(), failure.persisted),
        fate => panic!("not failed: {fate:?}"),
    };
    let purged = [send(0, "a"), send(1, "b"), send(0, "c")];
    assert_eq!(producer.purge(Purge::Topic("u")).unwrap(), 0);
    assert_eq!(producer.purge(Purge::Partition("t", 1)).unwrap(), 1);
    assert!(purged[0].try_get().is_none());
    let back = producer.purge_and_return(Purge::Topic("t")).unwrap();
    assert!(purged.iter().all(|d| cause(d) == (DeliveryCause::Purged, Persisted::No)));
    let closed = send(1, "d");
    let first = producer.close_and_return(Duration::ZERO);
    assert_eq!((first.aborted_records, first.unknown, first.delivered), (1, 0, 0));
    assert_eq!(cause(&closed), (DeliveryCause::Closed, Persisted::No));
    let again = producer.close_and_return(LONG);
    assert_eq!(again.aborted_records, 1);
    assert!(producer.purge_and_return(Purge::All).unwrap().is_empty());
    [back, first.not_sent, again.not_sent]
}

#[test]
fn the_real_producer_and_the_mock_give_the_same_back() {
    let cluster = TestCluster::builder().topic("t", 2).start();
    let real = builder(&cluster).linger(LONG).build().unwrap();
    real.wait_ready(&["t"], LONG).unwrap();
    let mock = MockProducer::builder().topic("t", 2).manual().build();
    let shared: Arc<dyn Producer> = Arc::new(mock);
    let back = given_back(&shared);
    let values = |records: &[OwnedRecord]| -> Vec<_> {
        records.iter().map(|record| record.value.clone().unwrap()).collect()
    };
    assert_eq!(
        back.each_ref().map(|b| values(b)),
        [vec![b"a".to_vec(), b"c".to_vec()], vec![b"d".to_vec()], vec![]]
    );
    assert_eq!(given_back(&real), back);
    assert_eq!(cluster.count("t"), 0);
    assert_eq!(shared.metrics(), Metrics::default());
}

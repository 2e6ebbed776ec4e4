//! What was accepted and not sent: purged by the program's wish, or given back by a close.

mod common;

use std::sync::mpsc;
use std::time::Duration;

use common::{LONG, builder, close, delivered, failure, ms};
use kafka_producer::testing::{Fault, TestCluster};
use kafka_producer::{
    DeliveryCause, Error, KafkaProducer, OwnedRecord, Persisted, ProducerRecord, Purge,
};

fn to<'a>(topic: &'a str, partition: i32, value: &'a str) -> ProducerRecord<'a> {
    ProducerRecord::new(topic, value).partition(partition)
}

fn partition_of(error: &Error) -> i32 {
    let Error::Delivery(failure) = error else { panic!("{error}") };
    failure.topic_partition.partition
}

fn lingering(cluster: &TestCluster) -> KafkaProducer {
    let producer = builder(cluster).linger(LONG).batch_size(1 << 20).build().unwrap();
    producer.wait_ready(&["t", "u"], LONG).unwrap();
    producer
}

#[test]
fn what_is_purged_fails_at_once_and_its_callbacks_are_told() {
    let cluster = TestCluster::builder().topic("t", 2).topic("u", 1).start();
    let producer = lingering(&cluster);
    let handles: Vec<_> = [("t", 0), ("t", 1), ("u", 0)]
        .map(|(topic, partition)| producer.send(to(topic, partition, "v")).unwrap())
        .into();
    let (told, hears) = mpsc::channel();
    for partition in [0, 1] {
        let told = told.clone();
        let tell = move |fate: Result<&_, &Error>| told.send(fate.unwrap_err().clone()).unwrap();
        producer.send_with(to("t", partition, "v"), tell).unwrap();
    }
    assert_eq!(producer.purge(Purge::Topic("missing")).unwrap(), 0);
    assert_eq!(producer.purge(Purge::Partition("t", 1)).unwrap(), 2);
    let error = failure(&handles[1]);
    assert_eq!((&error.cause, error.persisted), (&DeliveryCause::Purged, Persisted::No));
    assert_eq!(partition_of(&hears.recv().unwrap()), 1);
    assert!(handles[0].try_get().is_none() && handles[2].try_get().is_none());
    assert_eq!(producer.purge(Purge::Topic("t")).unwrap(), 2);
    assert_eq!(partition_of(&hears.recv().unwrap()), 0);
    assert_eq!(producer.purge(Purge::All).unwrap(), 1);
    assert_eq!(failure(&handles[2]).cause, DeliveryCause::Purged);
    // It goes on as if nothing had been.
    let after = producer.send(to("t", 1, "after")).unwrap();
    assert_eq!(delivered(&after).offset(), Some(0));
    close(&producer);
    assert_eq!(producer.purge(Purge::All).unwrap(), 0);
    assert_eq!((cluster.count("t"), cluster.count("u")), (1, 0));
}

#[test]
fn what_is_purged_can_be_had_back() {
    let cluster = TestCluster::builder().topic("t", 2).topic("u", 1).start();
    let producer = lingering(&cluster);
    let sent = [
        to("t", 0, "a").key("k").header("h", "1").timestamp(5),
        to("t", 1, "b").timestamp(6),
        to("t", 0, "c").timestamp(7),
    ];
    let handles = producer.send_all(&sent).unwrap();
    let other = producer.send(to("u", 0, "v")).unwrap();
    let back = producer.purge_and_return(Purge::Topic("t")).unwrap();
    let again: Vec<_> = back.iter().map(|r| r.to_record().partition(r.partition)).collect();
    let [a, b, c] = sent;
    assert_eq!(again, [a, c, b], "each partition's in their order");
    for handle in &handles {
        assert_eq!(failure(handle).cause, DeliveryCause::Purged);
    }
    assert!(other.try_get().is_none());
    assert!(producer.purge_and_return(Purge::Topic("t")).unwrap().is_empty(), "once");
    let sent = producer.send_all(&again).unwrap();
    close(&producer);
    assert!(sent.iter().all(|handle| handle.try_get().is_some_and(|fate| fate.is_ok())));
    assert_eq!((cluster.count("t"), cluster.count("u")), (3, 1));
    assert!(producer.purge_and_return(Purge::All).unwrap().is_empty());
}

/// Time to drain is longer than the records' own: it is theirs that is over.
#[test]
fn a_close_gives_back_what_expires_meanwhile() {
    let cluster = TestCluster::builder().topic("t", 1).topic("u", 1).start();
    let builder = builder(&cluster).request_timeout(ms(200)).delivery_timeout(ms(400));
    let producer = builder.linger(Duration::ZERO).build().unwrap();
    producer.wait_ready(&["t", "u"], LONG).unwrap();
    let silence = cluster.inject(Fault::produce().topic("u").always().silence());
    let in_doubt = producer.send(to("u", 0, "in doubt")).unwrap();
    assert!(cluster.wait_for_fault(silence, 1, LONG), "nothing is sent");
    cluster.stop_broker(1);
    let values = ["a", "b", "c"];
    let handles = producer.send_all(&values.map(|value| to("t", 0, value))).unwrap();
    let report = producer.close_and_return(LONG);
    assert_eq!((report.failed, report.aborted_records), (4, 0), "{report:?}");
    let back = report.not_sent.iter().map(|record| record.value.as_deref().unwrap());
    assert!(back.eq(values.map(str::as_bytes)), "{:?}", report.not_sent);
    for handle in &handles {
        let error = failure(handle);
        assert_eq!((&error.cause, error.persisted), (&DeliveryCause::Timeout, Persisted::No));
    }
    assert_eq!(failure(&in_doubt).persisted, Persisted::Unknown);
}

#[test]
fn a_callback_may_purge() {
    let cluster = TestCluster::builder().topic("t", 1).topic("u", 1).start();
    let producer = lingering(&cluster);
    let waits = producer.send(to("u", 0, "v")).unwrap();
    let (told, hears) = mpsc::channel();
    let inside = producer.clone();
    let purge = move |_: Result<&_, &Error>| told.send(inside.purge(Purge::Topic("u"))).unwrap();
    producer.send_with(to("t", 0, "v"), purge).unwrap();
    assert_eq!(producer.purge(Purge::Topic("t")).unwrap(), 1);
    assert_eq!(hears.recv().unwrap().unwrap(), 1);
    assert_eq!(failure(&waits).cause, DeliveryCause::Purged);
    close(&producer);
}

#[test]
fn a_close_gives_back_what_is_surely_not_in_the_log() {
    let cluster = TestCluster::builder().topic("t", 2).topic("u", 1).start();
    let producer = builder(&cluster).linger(Duration::ZERO).build().unwrap();
    producer.wait_ready(&["t", "u"], LONG).unwrap();
    delivered(&producer.send(to("t", 0, "before")).unwrap());
    let silence = cluster.inject(Fault::produce().always().silence());
    // The first is sent and never answered; the others have nowhere to go.
    let under_way = producer.send(to("t", 0, "under way")).unwrap();
    assert!(cluster.wait_for_fault(silence, 1, LONG), "nothing is sent");
    let first = to("t", 1, "first").header("h", "1").null_header("n").timestamp(5);
    let records = [
        first.clone(),
        ProducerRecord::tombstone("t").key("k").partition(1).timestamp(6),
        to("u", 0, "other").timestamp(7),
    ];
    cluster.stop_broker(1);
    assert_eq!(failure_after_close(&producer, &cluster, &records, &under_way), records.len());
}

/// Closes with what can't be sent any more; how many records come back.
fn failure_after_close(
    producer: &KafkaProducer,
    cluster: &TestCluster,
    records: &[ProducerRecord<'_>],
    under_way: &kafka_producer::Delivery,
) -> usize {
    let handles = producer.send_all(records).unwrap();
    let report = producer.close_and_return(ms(300));
    let given_back: Vec<_> = report.not_sent.iter().map(OwnedRecord::to_record).collect();
    let without_partition: Vec<_> = records
        .iter()
        .map(|record| {
            let timestamp = record.explicit_timestamp().unwrap();
            let (topic, headers) = (record.topic(), record.header_list().clone());
            let value = record.value_bytes();
            let same = match value {
                Some(value) => ProducerRecord::new(topic, value),
                None => ProducerRecord::tombstone(topic),
            };
            let same = same.headers(headers).timestamp(timestamp);
            match record.key_bytes() {
                Some(key) => same.key(key),
                None => same,
            }
        })
        .collect();
    assert_eq!(given_back, without_partition);
    let partitions: Vec<_> = report.not_sent.iter().map(|record| record.partition).collect();
    assert_eq!(partitions, [1, 1, 0]);
    assert_eq!((report.aborted_records, report.unknown), (4, 1));
    for handle in &handles {
        let error = failure(handle);
        assert_eq!((&error.cause, error.persisted), (&DeliveryCause::Closed, Persisted::No));
    }
    assert_eq!(failure(under_way).persisted, Persisted::Unknown);
    // Once: the report is the same, the records are gone.
    let again = producer.close_and_return(ms(300));
    assert_eq!((again.aborted_records, again.not_sent.len()), (4, 0));

    // They are what another producer can send.
    cluster.start_broker(1).unwrap();
    cluster.clear_faults();
    let other = builder(cluster).build().unwrap();
    for record in &given_back {
        delivered(&other.send(record.clone()).unwrap());
    }
    close(&other);
    given_back.len()
}

#[test]
fn a_close_counts_what_it_delivers() {
    let cluster = TestCluster::builder().topic("t", 1).topic("u", 1).start();
    let producer = lingering(&cluster);
    producer.send_all(&[to("t", 0, "a"), to("t", 0, "b"), to("u", 0, "c")]).unwrap();
    cluster.inject(
        Fault::produce().topic("u").times(1).error(kafka_producer::ErrorCode::INVALID_RECORD),
    );
    let report = producer.close_and_return(LONG);
    assert_eq!((report.delivered, report.failed, report.aborted_records), (2, 1, 0));
    assert!(report.is_clean() && report.not_sent.is_empty());
}

//! Accepted records reach the log: once, in order, and told of rightly, whatever happens.

#[path = "../common/mod.rs"]
mod common;

mod after_failures; // what comes after records that failed
mod cluster_changes; // brokers and topics come and go
mod faults; // brokers that misbehave
mod limits; // time and memory run out
mod metadata; // what is asked of the cluster first
mod placing; // partitions, batches, requests
mod recovery; // how soon records flow again
mod shares; // one slow leader among others
mod spreading; // records without a key
mod waiting; // who waits is not kept waiting

use kafka_producer::testing::TestCluster;
use kafka_producer::{Acks, ProducerRecord, TopicRecord};

use common::{LONG, builder, close, delivered, values};

#[test]
fn a_record_reaches_the_log_as_it_was_sent() {
    let cluster = TestCluster::start();
    let producer = builder(&cluster).build().unwrap();
    let record = ProducerRecord::new("orders", "paid")
        .key("k1")
        .header("trace", "4f2a")
        .null_header("trace")
        .header("", "")
        .timestamp(1_234_567);
    let metadata = delivered(&producer.send(record).unwrap());
    assert_eq!((metadata.topic(), metadata.partition()), ("orders", 0));
    assert_eq!((metadata.offset(), metadata.timestamp()), (Some(0), 1_234_567));
    assert_eq!((metadata.key_size(), metadata.value_size()), (Some(2), Some(4)));
    let [stored] = &cluster.records("orders", 0)[..] else { panic!("not one record") };
    assert_eq!(stored.value.as_deref(), Some(&b"paid"[..]));
    assert_eq!(stored.key.as_deref(), Some(&b"k1"[..]));
    assert_eq!(stored.timestamp, 1_234_567);
    let header = |name: &str, value: Option<&str>| (name.to_owned(), value.map(Vec::from));
    let headers = [header("trace", Some("4f2a")), header("trace", None), header("", Some(""))];
    assert_eq!(stored.headers, headers);
    close(&producer);
}

#[test]
fn null_and_empty_stay_apart() {
    let cluster = TestCluster::start();
    let producer = builder(&cluster).build().unwrap();
    producer.send(ProducerRecord::tombstone("t").key("")).unwrap();
    producer.send(ProducerRecord::new("t", "")).unwrap();
    producer.flush(LONG).unwrap();
    let stored = cluster.records("t", 0);
    assert_eq!((&stored[0].key, &stored[0].value), (&Some(Vec::new()), &None));
    assert_eq!((&stored[1].key, &stored[1].value), (&None, &Some(Vec::new())));
}

#[test]
fn every_level_of_acks_delivers() {
    for acks in [Acks::None, Acks::Leader, Acks::All] {
        let cluster = TestCluster::start();
        let producer = builder(&cluster).acks(acks).build().unwrap();
        let deliveries: Vec<_> = (0..500)
            .map(|i| producer.send(ProducerRecord::new("t", &i.to_string())).unwrap())
            .collect();
        producer.flush(LONG).unwrap();
        assert!(cluster.wait_for_count("t", 500, LONG), "{acks:?}");
        for (i, delivery) in (0..).zip(&deliveries) {
            // The flush was over only once each was decided.
            let metadata = delivery.try_get().unwrap().unwrap();
            let offset = (acks != Acks::None).then_some(i);
            assert_eq!(metadata.offset(), offset, "{acks:?}");
        }
        let expected: Vec<_> = (0..500).map(|i| i.to_string()).collect();
        assert_eq!(values(&cluster, "t", 0), expected, "{acks:?}");
        close(&producer);
    }
}

/// RA-09.
#[test]
fn records_of_many_threads_arrive_once_and_in_each_threads_order() {
    const THREADS: usize = 8;
    const EACH: usize = 10_000;
    let cluster = TestCluster::builder().brokers(3).topic("many", 6).start();
    let producer = builder(&cluster).build().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let producer = producer.clone();
            scope.spawn(move || {
                let topic = producer.topic("many").unwrap();
                let mut last = None;
                for i in 0..EACH {
                    let value = format!("{thread} {i}");
                    last = Some(topic.send(TopicRecord::new(&value)).unwrap());
                }
                delivered(&last.unwrap());
            });
        }
    });
    close(&producer);
    let mut total = 0;
    let mut seen = vec![vec![false; EACH]; THREADS];
    for partition in 0..6 {
        let mut last = [None; THREADS];
        for value in values(&cluster, "many", partition) {
            let (thread, i) = value.split_once(' ').unwrap();
            let (thread, i): (usize, usize) = (thread.parse().unwrap(), i.parse().unwrap());
            assert!(last[thread].replace(i) < Some(i), "{value} is out of order");
            seen[thread][i] = true;
            total += 1;
        }
    }
    assert_eq!(total, THREADS * EACH);
    assert!(seen.iter().flatten().all(|seen| *seen));
}

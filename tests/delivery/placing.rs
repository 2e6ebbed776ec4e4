//! Where records go: partitions, batches, requests.

use std::collections::BTreeSet;
use std::time::SystemTime;

use kafka_producer::testing::{Api, TestCluster, TopicConfig};
use kafka_producer::{PartitionerKind, ProducerRecord, murmur2_partition};

use crate::common::{LONG, assert_took, builder, close, delivered, ms, timed, values};

#[test]
fn handles_tell_where_each_record_lies() {
    let cluster = TestCluster::builder().brokers(2).topic("t", 3).start();
    let producer = builder(&cluster).batch_size(300).build().unwrap();
    let deliveries: Vec<_> = (0..900)
        .map(|i| {
            let text = i.to_string();
            let record = ProducerRecord::new("t", &text).partition(i % 3);
            (text.clone(), producer.send(record).unwrap())
        })
        .collect();
    let logs: Vec<_> = {
        producer.flush(LONG).unwrap();
        (0..3).map(|partition| values(&cluster, "t", partition)).collect()
    };
    for (i, (text, delivery)) in (0..).zip(&deliveries) {
        let metadata = delivered(delivery);
        assert_eq!(metadata.partition(), i % 3);
        let offset = usize::try_from(metadata.offset().unwrap()).unwrap();
        assert_eq!(&logs[metadata.partition() as usize][offset], text);
    }
    assert_eq!(logs.iter().map(Vec::len).collect::<Vec<_>>(), [300; 3]);
}

#[test]
fn keys_choose_partitions_as_in_java() {
    let cluster = TestCluster::builder().topic("t", 7).start();
    let producer = builder(&cluster).build().unwrap();
    for i in 0..200 {
        let key = format!("key-{i}");
        producer.send(ProducerRecord::new("t", &key).key(&key)).unwrap();
    }
    producer.flush(LONG).unwrap();
    for partition in 0..7 {
        let records = values(&cluster, "t", partition);
        assert!(!records.is_empty());
        for key in records {
            assert_eq!(murmur2_partition(key.as_bytes(), 7), partition, "{key}");
        }
    }
    // Kafka's own test vectors, to have a witness beside our own function.
    for (key, partition) in [("21", 3), ("foobar", 0), ("abc", 4)] {
        let delivery = producer.send(ProducerRecord::new("t", "v").key(key)).unwrap();
        assert_eq!(delivered(&delivery).partition(), partition, "{key}");
    }
}

/// Each name of a `partitioner.class` is its hash's; figures by other programs' CRC-32, FNV-1a and
/// murmur2.
#[test]
fn each_name_of_a_partitioner_stands_for_its_hash() {
    let cluster = TestCluster::builder().topic("t", 7).start();
    let names = [
        ("consistent", 6, Some(0)),
        ("consistent_random", 6, None),
        ("murmur2", 0, Some(2)),
        ("murmur2_random", 0, None),
        ("fnv1a", 4, Some(2)),
        ("fnv1a_random", 4, None),
    ];
    for (name, keyed, without_key) in names {
        let producer = builder(&cluster).batch_size(1).property("partitioner.class", name);
        let producer = producer.build().unwrap();
        let sent =
            |record: ProducerRecord<'_>| delivered(&producer.send(record).unwrap()).partition();
        assert_eq!(sent(ProducerRecord::new("t", "v").key("foobar")), keyed, "{name}");
        let others: BTreeSet<_> = (0..60).map(|_| sent(ProducerRecord::new("t", "v"))).collect();
        match without_key {
            Some(one) => assert_eq!(others, [one].into(), "{name}"),
            None => assert!(others.len() > 1, "{name}: {others:?}"),
        }
        close(&producer);
    }
}

/// PART-15.
#[test]
fn keys_that_are_to_be_ignored_don_t_hold_records_together() {
    let cluster = TestCluster::builder().topic("t", 3).start();
    let producer = builder(&cluster).batch_size(1).property("partitioner.ignore.keys", "true");
    let producer = producer.build().unwrap();
    for _ in 0..90 {
        producer.send(ProducerRecord::new("t", "v").key("same")).unwrap();
    }
    close(&producer);
    let counts = [0, 1, 2].map(|partition| values(&cluster, "t", partition).len());
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    let keys: Vec<_> = cluster.records("t", 0).into_iter().map(|record| record.key).collect();
    assert!(keys.iter().all(|key| key.as_deref() == Some(b"same")), "they are sent all the same");
}

/// PART-12: keys don't matter, and what goes to another topic takes no turns of this one.
#[test]
fn round_robin_gives_each_partition_its_turn() {
    let cluster = TestCluster::builder().topic("t", 3).topic("other", 3).start();
    let producer = builder(&cluster).partitioner(PartitionerKind::RoundRobin).build().unwrap();
    for i in 0..30 {
        let value = i.to_string();
        let record = ProducerRecord::new("t", &value);
        let record = if i % 2 == 0 { record.key("same") } else { record };
        producer.send(record).unwrap();
        (0..i % 3).for_each(|_| drop(producer.send(ProducerRecord::new("other", &value)).unwrap()));
    }
    close(&producer);
    let count = |topic| [0, 1, 2].map(|partition| cluster.records(topic, partition).len());
    assert_eq!((count("t"), count("other")), ([10; 3], [10; 3]));
}

#[test]
fn linger_gathers_records_into_one_request() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster).linger(ms(300)).build().unwrap();
    producer.wait_ready(&["t"], LONG).unwrap();
    let (first, time) = timed(|| {
        let deliveries: Vec<_> = (0..50)
            .map(|i| producer.send(ProducerRecord::new("t", &i.to_string())).unwrap())
            .collect();
        assert!(cluster.wait_for_count("t", 50, LONG));
        deliveries.into_iter().next().unwrap()
    });
    assert_took(time, ms(300));
    delivered(&first);
    assert_eq!(cluster.counters().requests(Api::Produce), 1);
}

#[test]
fn a_full_batch_does_not_linger() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer =
        builder(&cluster).linger(LONG * 2).delivery_timeout(LONG * 4).batch_size(1_000).build();
    let producer = producer.unwrap();
    for _ in 0..20 {
        producer.send(ProducerRecord::new("t", &[b'x'; 100])).unwrap();
    }
    assert!(cluster.wait_for_count("t", 14, LONG / 2));
}

/// PART-06, REC-21: it is as good as 1.
#[test]
fn a_batch_size_of_zero_sends_each_record_by_itself() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster).batch_size(0).build().unwrap();
    for i in 0..20 {
        producer.send(ProducerRecord::new("t", &i.to_string())).unwrap();
    }
    close(&producer);
    assert_eq!(cluster.counters().requests(Api::Produce), 20);
    assert_eq!(cluster.count("t"), 20);
}

#[test]
fn a_record_larger_than_a_batch_has_one_of_its_own() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster).batch_size(1_000).build().unwrap();
    let large = vec![b'x'; 500_000];
    let sent = [&b"before"[..], &large, b"after"];
    for value in sent {
        producer.send(ProducerRecord::new("t", value)).unwrap();
    }
    close(&producer);
    let stored = cluster.records("t", 0);
    assert!(stored.iter().map(|record| record.value.as_deref().unwrap()).eq(sent));
}

#[test]
fn the_brokers_clock_is_told_where_it_counts() {
    let config = TopicConfig::new(1).log_append_time();
    let cluster = TestCluster::builder().topic("t", config).start();
    let producer = builder(&cluster).build().unwrap();
    let before = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let delivery = producer.send(ProducerRecord::new("t", "v").timestamp(5)).unwrap();
    let metadata = delivered(&delivery);
    assert!(u128::try_from(metadata.timestamp()).unwrap() >= before.as_millis());
    assert_eq!(metadata.timestamp(), cluster.records("t", 0)[0].timestamp);
}

#[test]
fn a_batch_that_a_record_fills_to_the_last_byte_goes_out_at_once() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    // 61 bytes of header, 7 a record beside its value.
    let producer = builder(&cluster).batch_size(61 + 3 * 17).linger(LONG * 4).build().unwrap();
    for _ in 0..3 {
        producer.send(ProducerRecord::new("t", "ten bytes.").timestamp(1)).unwrap();
    }
    assert!(cluster.wait_for_count("t", 3, LONG), "it lingers");
    close(&producer);
}

#[test]
fn a_batch_size_beyond_all_memory_is_as_good_as_all_memory() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer =
        builder(&cluster).buffer_memory(2_000).batch_size(100_000).linger(ms(0)).build().unwrap();
    for _ in 0..100 {
        producer.send(ProducerRecord::new("t", &[7; 150])).unwrap();
    }
    close(&producer);
    assert_eq!(cluster.count("t"), 100);
}

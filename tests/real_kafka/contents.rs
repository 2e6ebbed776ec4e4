//! What was sent is what Kafka's consumer reads: byte for byte, in order, at the reported places.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use kafka_producer::{Acks, KafkaProducer, ProducerRecord, TopicRecord};

use crate::kafka_harness::{Cluster, TimestampType};
use crate::support::{
    LONG, Numbered, Told, assert_same, assert_truthful, consume_all, in_the_log, one_broker,
    producer, three_brokers,
};

/// Null, empty, and more bytes than one batch of the default size holds.
fn payloads() -> [Option<Vec<u8>>; 5] {
    let long: Vec<u8> = (0..20_000_u32).map(|i| (i % 251) as u8).collect();
    [None, Some(Vec::new()), Some(vec![0]), Some(b"plain".to_vec()), Some(long)]
}

fn record<'a>(
    topic: &'a str,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
) -> ProducerRecord<'a> {
    let record = match value {
        Some(value) => ProducerRecord::new(topic, value),
        None => ProducerRecord::tombstone(topic),
    };
    match key {
        Some(key) => record.key(key),
        None => record,
    }
}

/// INT-01, INT-03, INT-05.
#[test]
fn keys_values_headers_and_timestamps_arrive_as_they_were_given() {
    let test = "keys_values_headers_and_timestamps_arrive_as_they_were_given";
    let Some(cluster) = one_broker(test) else { return };
    cluster.create_topic("shapes", 3, 1, &[]);
    let producer = producer(cluster).build().unwrap();
    let payloads = payloads();
    let mut records = Vec::new();
    for key in &payloads {
        for value in &payloads {
            let plain = record("shapes", key.as_deref(), value.as_deref());
            records.push(plain.clone());
            records.push(plain.clone().timestamp(0));
            records.push(plain.clone().timestamp(1_234_567_890_123));
            records.push(plain.clone().partition(2).header("one", "value"));
            let many = plain
                .header("b", "2")
                .header("a", "1")
                .null_header("b")
                .header("größer", "")
                .header("a", &[0, 255][..])
                .header("", "a header's name may be empty");
            records.push(many);
        }
    }
    let before = now_ms();
    let deliveries: Vec<_> =
        records.iter().map(|r| producer.send(r.clone()).expect("accepted")).collect();
    let mut reported = Vec::new();
    for (record, delivery) in records.iter().zip(&deliveries) {
        let metadata = delivery.wait_timeout(LONG).unwrap();
        assert_eq!(metadata.key_size(), record.key_bytes().map(<[u8]>::len));
        assert_eq!(metadata.value_size(), record.value_bytes().map(<[u8]>::len));
        match record.explicit_timestamp() {
            Some(given) => assert_eq!(metadata.timestamp(), given),
            None => {
                let told = metadata.timestamp();
                assert!((before - 50..=now_ms()).contains(&told), "{told}, sent at {before}");
            }
        }
        if let Some(asked) = record.explicit_partition() {
            assert_eq!(metadata.partition(), asked);
        }
        reported.push(in_the_log(record, &metadata));
    }
    assert!(producer.close(LONG).is_clean());
    assert_same(&cluster.consume("shapes", usize::MAX), reported);
}

/// INT-03.
#[test]
fn the_brokers_own_timestamps_are_reported() {
    let test = "the_brokers_own_timestamps_are_reported";
    let Some(cluster) = one_broker(test) else { return };
    cluster.create_topic("append-time", 1, 1, &[("message.timestamp.type", "LogAppendTime")]);
    let producer = producer(cluster).build().unwrap();
    let delivery = producer.send(ProducerRecord::new("append-time", "x").timestamp(7)).unwrap();
    let told = delivery.wait_timeout(LONG).unwrap().timestamp();
    let log = cluster.consume("append-time", usize::MAX);
    assert_eq!((log[0].timestamp, log[0].timestamp_type), (told, TimestampType::LogAppendTime));
    assert!(told > 1_600_000_000_000, "{told}");
}

#[test]
fn every_acks_value_on_one_broker() {
    let Some(cluster) = one_broker("every_acks_value_on_one_broker") else { return };
    every_acks_value(cluster, 1);
}

#[test]
fn every_acks_value_on_three_brokers() {
    let Some(cluster) = three_brokers("every_acks_value_on_three_brokers") else { return };
    every_acks_value(&cluster, 3);
}

/// One thread, and one request in flight or idempotence, so that every record's offset is known
/// beforehand, also where nobody tells it (`acks=0`).
fn every_acks_value(cluster: &Cluster, replication: usize) {
    const RECORDS: usize = 3_000;
    cluster.create_topic("acks", 3, replication, &[]);
    cluster.wait_in_sync("acks", replication);
    let mut next = BTreeMap::new();
    let mut expected = Vec::new();
    // The first one waits for answers: by then every leader knows the topic.
    let kinds = [(Acks::All, true), (Acks::All, false), (Acks::Leader, false), (Acks::None, false)];
    for (acks, idempotent) in kinds {
        let builder = producer(cluster).acks(acks).enable_idempotence(idempotent);
        let producer = builder.max_in_flight(if idempotent { 5 } else { 1 }).build().unwrap();
        let values: Vec<_> = (0..RECORDS).map(|i| format!("{acks:?} {idempotent} {i}")).collect();
        let partition = |i| i % 3;
        let records: Vec<_> = (0..)
            .zip(&values)
            .map(|(i, value)| ProducerRecord::new("acks", value).partition(partition(i)))
            .collect();
        let deliveries = producer.send_all(&records).expect("accepted");
        for (record, delivery) in records.iter().zip(&deliveries) {
            let metadata = delivery.wait_timeout(LONG).unwrap();
            let offset = next.entry(metadata.partition()).or_insert(0_i64);
            let told = Some(*offset).filter(|_| acks != Acks::None);
            assert_eq!(metadata.offset(), told, "{acks:?}, idempotent {idempotent}");
            let mut logged = in_the_log(record, &metadata);
            logged.offset = *offset;
            expected.push(logged);
            *offset += 1;
        }
        assert!(producer.close(LONG).is_clean());
    }
    assert_same(&consume_all(cluster, "acks", expected.len()), expected);
    let leader = cluster.leader("acks", 0).expect("a leader");
    let (own_id, no_id) = batches_with_and_without_producer_id(cluster, leader);
    assert!(own_id > 0 && no_id > 0, "{own_id} idempotent batches and {no_id} others");
}

/// Counts the batches of the first partition; each has to be valid to Kafka's own eyes.
fn batches_with_and_without_producer_id(cluster: &Cluster, broker: i32) -> (usize, usize) {
    let dump = cluster.dump_log(broker, "acks", 0);
    let batches: Vec<_> = dump.iter().filter(|l| l.starts_with("baseOffset:")).collect();
    assert!(batches.iter().all(|l| l.contains("isvalid: true")), "{batches:#?}");
    let without = batches.iter().filter(|l| l.contains("producerId: -1 ")).count();
    (batches.len() - without, without)
}

#[test]
fn a_hundred_thousand_records_from_eight_threads_on_one_broker() {
    let test = "a_hundred_thousand_records_from_eight_threads_on_one_broker";
    let Some(cluster) = one_broker(test) else { return };
    cluster.create_topic("many", 6, 1, &[]);
    let producer = producer(cluster).build().unwrap();
    send_from_eight_threads(cluster, &producer, 12_500);
}

/// INT-23.
#[test]
fn a_hundred_thousand_records_from_eight_threads_on_three_brokers() {
    let test = "a_hundred_thousand_records_from_eight_threads_on_three_brokers";
    let Some(cluster) = three_brokers(test) else { return };
    cluster.create_topic("many", 6, 3, &[("min.insync.replicas", "2")]);
    let producer = producer(&cluster).build().unwrap();
    send_from_eight_threads(&cluster, &producer, 12_500);
}

/// Half of the records have a key, and each thread's records of one partition keep their order.
fn send_from_eight_threads(cluster: &Cluster, producer: &KafkaProducer, each: u32) {
    let send_all = |thread| {
        let topic = producer.topic("many").expect("the topic is there");
        let send = |number| {
            let record = Numbered { thread, number };
            let (key, value) = (key_of(record), record.value());
            let mut sent = TopicRecord::new(&value);
            if let Some(key) = &key {
                sent = sent.key(key);
            }
            (record, topic.send(sent).expect("accepted"))
        };
        let sent: Vec<_> = (0..each).map(send).collect();
        let told = sent.iter().map(|(record, delivery)| Told::of(*record, delivery));
        told.collect::<Vec<_>>()
    };
    let told: Vec<Told> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|t| scope.spawn(move || send_all(t))).collect();
        threads.into_iter().flat_map(|t| t.join().expect("no panic")).collect()
    });
    assert!(producer.close(LONG).is_clean());
    let failures = told.iter().filter(|t| t.verdict.is_err()).count();
    assert_eq!(failures, 0, "{:?}", told.iter().find_map(|t| t.verdict.as_ref().err()));
    let log = cluster.consume("many", usize::MAX);
    assert_eq!(log.len(), 100_000);
    assert_truthful(&log, &told);
    let mut partition_of = BTreeMap::new();
    for logged in &log {
        let record = Numbered::parse(logged.value.as_deref().expect("a value"));
        let key = key_of(record);
        assert_eq!(logged.key.as_deref(), key.as_ref().map(String::as_bytes), "{record:?}");
        if let Some(key) = key {
            let before = *partition_of.entry(key).or_insert(logged.partition);
            assert_eq!(logged.partition, before, "{record:?}: a key stays in its partition");
        }
    }
}

/// Every second record has one.
fn key_of(record: Numbered) -> Option<String> {
    (record.number % 2 == 0).then(|| format!("key {}", record.number % 100))
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_millis()).expect("this century")
}

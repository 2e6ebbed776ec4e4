//! The whole way, shortest form: a record from a plain thread to a broker and back.

use std::time::Duration;

use kafka_producer::testing::TestCluster;
use kafka_producer::{KafkaProducer, ProducerRecord};

const LONG: Duration = Duration::from_secs(30);

fn producer(cluster: &TestCluster) -> KafkaProducer {
    KafkaProducer::builder().bootstrap_servers(cluster.bootstrap_servers()).build().unwrap()
}

#[test]
fn a_record_reaches_the_log_and_its_handle_is_told() {
    let _ = env_logger::builder().is_test(true).try_init();
    let cluster = TestCluster::start();
    let producer = producer(&cluster);
    let delivery = producer.send(ProducerRecord::new("orders", "paid").key("k1")).unwrap();
    let metadata = delivery.wait_timeout(LONG).unwrap();
    assert_eq!(metadata.offset(), Some(0));
    let records = cluster.records("orders", metadata.partition());
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].value.as_deref(), Some(&b"paid"[..]));
    let report = producer.close(LONG);
    assert!(report.is_clean(), "{report:?}");
}

#[test]
fn a_callback_runs_off_the_sender_thread() {
    let cluster = TestCluster::start();
    let producer = producer(&cluster);
    let (told, hear) = std::sync::mpsc::channel();
    producer
        .send_with(ProducerRecord::new("orders", "paid"), move |result| {
            let name = std::thread::current().name().map(str::to_owned);
            told.send((result.map(|m| m.offset()).map_err(Clone::clone), name)).unwrap();
        })
        .unwrap();
    let (result, name) = hear.recv_timeout(LONG).unwrap();
    assert_eq!(result.unwrap(), Some(0));
    assert!(name.unwrap().contains("-callback-"));
    producer.flush(LONG).unwrap();
}

#[test]
fn ten_thousand_records_from_eight_threads_arrive_once_each() {
    let cluster = TestCluster::start();
    let producer = producer(&cluster);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let producer = producer.clone();
            scope.spawn(move || {
                let topic = producer.topic("many").unwrap();
                let mut last = None;
                for i in 0..10_000 {
                    let value = format!("{thread}-{i}");
                    let record = kafka_producer::TopicRecord::new(&value);
                    last = Some(topic.send(record).unwrap());
                }
                last.unwrap().wait_timeout(LONG).unwrap();
            });
        }
    });
    producer.flush(LONG).unwrap();
    let partitions = producer.partitions_for("many").unwrap();
    let mut seen = std::collections::BTreeSet::new();
    let mut total = 0;
    for p in partitions {
        for r in cluster.records("many", p.topic_partition.partition) {
            seen.insert(r.value.unwrap().to_vec());
            total += 1;
        }
    }
    assert_eq!((seen.len(), total), (80_000, 80_000));
}

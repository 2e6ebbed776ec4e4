//! Brokers stop and start, leaders move, topics grow, go and come back.

use kafka_producer::testing::{Api, TestCluster, TopicConfig};
use kafka_producer::{KafkaProducer, ProducerRecord};

use crate::common::{LONG, builder, close, delivered, ms, values};

#[track_caller]
fn send(producer: &KafkaProducer, value: &str, partition: i32) -> kafka_producer::RecordMetadata {
    let record = ProducerRecord::new("t", value).partition(partition);
    delivered(&producer.send(record).unwrap())
}

#[test]
fn a_leader_that_moved_is_followed() {
    let cluster = TestCluster::builder().brokers(3).topic("t", 1).start();
    let producer = builder(&cluster).build().unwrap();
    for (i, leader) in [2, 3, 1, 3].into_iter().enumerate() {
        send(&producer, &i.to_string(), 0);
        assert!(cluster.move_leader("t", 0, Some(leader)));
    }
    send(&producer, "4", 0);
    assert_eq!(values(&cluster, "t", 0), ["0", "1", "2", "3", "4"]);
    assert_eq!(cluster.leader("t", 0).unwrap().0, 3);
}

#[test]
fn brokers_that_stop_and_start_lose_and_double_nothing() {
    const THREADS: i32 = 4;
    let cluster = TestCluster::builder().brokers(3).topic("t", THREADS).start();
    let producer = builder(&cluster).batch_size(500).build().unwrap();
    let sent = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|partition| {
                let producer = producer.clone();
                let cluster = &cluster;
                scope.spawn(move || {
                    // Until the brokers have been through it all.
                    let mut sent = Vec::new();
                    while cluster.leader("done", 0).is_none() || sent.len() < 500 {
                        let value = sent.len().to_string();
                        let record = ProducerRecord::new("t", &value).partition(partition);
                        let delivery = producer.send(record).unwrap();
                        if sent.len() % 50 == 0 {
                            delivered(&delivery);
                        }
                        sent.push(delivery);
                    }
                    sent.iter().for_each(|delivery| drop(delivered(delivery)));
                    sent.len()
                })
            })
            .collect();
        for broker in [1, 2, 3, 1] {
            let before = cluster.count("t");
            assert!(cluster.wait_for_count("t", before + 500, LONG));
            cluster.stop_broker(broker);
            let before = cluster.count("t");
            assert!(cluster.wait_for_count("t", before + 500, LONG), "goes on without {broker}");
            cluster.start_broker(broker).unwrap();
            for partition in 0..THREADS {
                cluster.set_in_sync_replicas("t", partition, &[1, 2, 3]);
            }
        }
        assert!(cluster.create_topic("done", 1));
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    close(&producer);
    for (partition, sent) in (0..).zip(sent) {
        let expected: Vec<_> = (0..sent).map(|i| i.to_string()).collect();
        assert_eq!(values(&cluster, "t", partition), expected);
    }
}

#[test]
fn records_wait_for_the_only_broker_to_come_back() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster).build().unwrap();
    send(&producer, "0", 0);
    cluster.stop_broker(1);
    let record = ProducerRecord::new("t", "1").partition(0);
    let delivery = producer.send(record).unwrap();
    assert!(delivery.wait_timeout(ms(200)).is_err());
    cluster.start_broker(1).unwrap();
    assert_eq!(delivered(&delivery).offset(), Some(1));
    assert_eq!(values(&cluster, "t", 0), ["0", "1"]);
}

#[test]
fn a_partition_without_a_leader_is_waited_for() {
    let cluster = TestCluster::builder().brokers(2).topic("t", 2).start();
    let producer = builder(&cluster).build().unwrap();
    send(&producer, "0", 0);
    assert!(cluster.move_leader("t", 0, None));
    let record = ProducerRecord::new("t", "1").partition(0);
    let delivery = producer.send(record).unwrap();
    // The other partition is none the worse for it.
    send(&producer, "other", 1);
    assert!(delivery.try_get().is_none());
    assert!(cluster.move_leader("t", 0, Some(2)));
    assert_eq!(delivered(&delivery).offset(), Some(1));
}

#[test]
fn a_partition_that_is_added_can_be_sent_to_at_once() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster).build().unwrap();
    send(&producer, "0", 0);
    assert!(cluster.add_partitions("t", 3));
    assert_eq!(send(&producer, "1", 2).offset(), Some(0));
    assert_eq!(producer.partitions_for("t").unwrap().len(), 3);
}

#[test]
fn partitions_that_are_added_get_their_share_without_being_named() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster).metadata_max_age(ms(50)).batch_size(0).build().unwrap();
    send(&producer, "0", 0);
    let asked = cluster.counters().requests(Api::Metadata);
    assert!(cluster.add_partitions("t", 4));
    assert!(cluster.wait_for_requests(Api::Metadata, asked + 2, LONG));
    for _ in 0..400 {
        delivered(&producer.send(ProducerRecord::new("t", "v")).unwrap());
    }
    let counts: Vec<_> = (0..4).map(|partition| cluster.records("t", partition).len()).collect();
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn a_topic_that_was_deleted_and_made_again_is_sent_to() {
    let cluster = TestCluster::builder().auto_create(false).topic("t", 1).start();
    let producer = builder(&cluster).build().unwrap();
    for i in 0..3 {
        send(&producer, &i.to_string(), 0);
    }
    assert!(cluster.delete_topic("t"));
    let record = ProducerRecord::new("t", "new").partition(0);
    let delivery = producer.send(record).unwrap();
    assert!(delivery.wait_timeout(ms(100)).is_err());
    assert!(cluster.create_topic("t", 1));
    assert_eq!(delivered(&delivery).offset(), Some(0));
    assert_eq!(send(&producer, "next", 0).offset(), Some(1));
    assert_eq!(values(&cluster, "t", 0), ["new", "next"]);
}

#[test]
fn too_few_replicas_in_sync_hold_records_back_until_there_are_enough() {
    let config = TopicConfig::new(1).min_insync_replicas(2);
    let cluster = TestCluster::builder().brokers(3).topic("t", config).start();
    let producer = builder(&cluster).build().unwrap();
    cluster.set_in_sync_replicas("t", 0, &[1]);
    let delivery = producer.send(ProducerRecord::new("t", "v")).unwrap();
    assert!(cluster.wait_for_requests(Api::Produce, 2, LONG), "it is tried again");
    assert!(delivery.try_get().is_none());
    cluster.set_in_sync_replicas("t", 0, &[1, 2]);
    assert_eq!(delivered(&delivery).offset(), Some(0));
}

//! `send` as a whole, to a broker in another process: by one thread and by several, by topic
//! handle, by name and with a callback; and the wait for a record's delivery.
//!
//! With several threads the figures are one thread's.

use std::hint::black_box;
use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use kafka_producer::{ProducerRecord, TopicRecord};

use super::broker::{Broker, TOPIC};

/// Records that are timed at once: many times what `buffer.memory` holds, since the sender catches
/// up between two samples, which nobody times.
const RECORDS: usize = 500_000;
const VALUE: [u8; 100] = [b'x'; 100];
const LONG: Duration = Duration::from_secs(60);

#[divan::bench(threads = [1, 2, 8], sample_count = 10, max_time = 8)]
fn append(bencher: Bencher) {
    let broker = Broker::start();
    let producer = broker.producer().build().unwrap();
    let topic = producer.topic(TOPIC).unwrap();
    bencher.counter(ItemsCount::new(RECORDS)).bench(|| {
        for _ in 0..RECORDS {
            black_box(topic.send(TopicRecord::new(black_box(&VALUE))).unwrap());
        }
    });
    assert!(producer.close(LONG).is_clean());
}

#[divan::bench(sample_count = 10, max_time = 8)]
fn append_by_name(bencher: Bencher) {
    let broker = Broker::start();
    let producer = broker.producer().build().unwrap();
    bencher.counter(ItemsCount::new(RECORDS)).bench_local(|| {
        for _ in 0..RECORDS {
            black_box(producer.send(ProducerRecord::new(TOPIC, black_box(&VALUE))).unwrap());
        }
    });
    assert!(producer.close(LONG).is_clean());
}

#[divan::bench(sample_count = 10, max_time = 8)]
fn append_with_callback(bencher: Bencher) {
    let broker = Broker::start();
    let producer = broker.producer().build().unwrap();
    let topic = producer.topic(TOPIC).unwrap();
    bencher.counter(ItemsCount::new(RECORDS)).bench_local(|| {
        for _ in 0..RECORDS {
            let record = TopicRecord::new(black_box(&VALUE));
            topic.send_with(record, |result| assert!(black_box(result).is_ok())).unwrap();
        }
    });
    assert!(producer.close(LONG).is_clean());
}

/// One record at a time, each waited for: the way to the broker and back.
#[divan::bench(min_time = 2, max_time = 3)]
fn send_and_wait(bencher: Bencher) {
    let broker = Broker::start();
    let producer = broker.producer().build().unwrap();
    let topic = producer.topic(TOPIC).unwrap();
    bencher.bench_local(|| topic.send(TopicRecord::new(&VALUE)).unwrap().wait().unwrap());
    assert!(producer.close(LONG).is_clean());
}

/// The wait on a handle whose record has been delivered.
#[divan::bench]
fn wait_for_what_is_delivered(bencher: Bencher) {
    let broker = Broker::start();
    let producer = broker.producer().build().unwrap();
    let delivery = producer.send(ProducerRecord::new(TOPIC, &VALUE)).unwrap();
    delivery.wait().unwrap();
    bencher.bench_local(|| black_box(&delivery).wait().unwrap());
    assert!(producer.close(LONG).is_clean());
}

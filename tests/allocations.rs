//! In steady state records cost no allocation of their own: what is allocated is a few blocks for
//! each batch. All threads of the producer are counted; the broker is a process of its own.

#![allow(clippy::print_stdout, reason = "figures are for reading")]

mod alone;
mod common;

use std::alloc::System;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use alone::{Alone, alone};
use common::{LONG, close, delivered, impatient};
use kafka_producer::testing::TestCluster;
use kafka_producer::{Error, KafkaProducer, ProducerRecord, RecordMetadata, TopicRecord};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const RECORDS: usize = 200_000;
/// Batches of 150 records, so that this is seven blocks a batch.
const ALLOWED: f64 = 0.05;
/// The same, and the box that a callback is in.
const ALLOWED_WITH_CALLBACK: f64 = 1.05;

#[test]
fn a_record_costs_no_allocation() {
    let discarding = || TestCluster::builder().topic("t", 1).discard(false).start();
    alone("a_record_costs_no_allocation", discarding, count_allocations);
}

/// Allocations for each record, from `send` to the broker's answer, once all is warm.
fn allocations(producer: &KafkaProducer, mut send: impl FnMut(usize)) -> f64 {
    // A flush would leave a mark in each batch of a backlog: it begins when there is none.
    let mut send_all = || {
        (0..RECORDS).for_each(&mut send);
        delivered(&producer.send(ProducerRecord::new("t", "last")).unwrap());
        producer.flush(LONG).unwrap();
    };
    send_all();
    let region = Region::new(COUNTED);
    send_all();
    let counted = region.change();
    (counted.allocations + counted.reallocations) as f64 / RECORDS as f64
}

fn count_allocations(alone: &Alone<'_>) {
    let mut broker = alone.start_broker();
    let producer = impatient(&broker.address).batch_size(16_384).build().unwrap();
    let topic = producer.topic("t").unwrap();
    let value = [b'x'; 100];
    // Once all of the memory is taken, so that none is new later on.
    broker.freeze();
    while topic.try_send(&TopicRecord::new(&value)).is_ok() {}
    broker.thaw();
    producer.flush(LONG).unwrap();

    let forgotten = allocations(&producer, |_| drop(topic.send(TopicRecord::new(&value)).unwrap()));
    let by_name = allocations(&producer, |i| {
        let record = ProducerRecord::new("t", &value).key(&value[..i % 16]);
        drop(producer.send(record).unwrap());
    });
    let mut handles = Vec::with_capacity(2 * RECORDS);
    let kept = allocations(&producer, |_| {
        handles.push(topic.send(TopicRecord::new(&value)).unwrap());
    });
    assert!(handles.iter().all(|handle| handle.try_get().is_some_and(|fate| fate.is_ok())));
    let called = Arc::new(AtomicUsize::new(0));
    let with_callback = allocations(&producer, |_| {
        let called = Arc::clone(&called);
        let count = move |fate: Result<&RecordMetadata, &Error>| {
            called.fetch_add(usize::from(fate.is_ok()), Ordering::Relaxed);
        };
        topic.send_with(TopicRecord::new(&value), count).unwrap();
    });
    assert_eq!(called.load(Ordering::Relaxed), 2 * RECORDS);
    close(&producer);
    for (how, cost, allowed) in [
        ("forgotten", forgotten, ALLOWED),
        ("by name", by_name, ALLOWED),
        ("handles kept", kept, ALLOWED),
        ("with callback", with_callback, ALLOWED_WITH_CALLBACK),
    ] {
        println!("{how}: {cost:.4} allocations a record");
        // Were nothing counted, nothing would be proven: a batch costs something.
        assert!(cost > 0.0 && cost < allowed, "{how}: {cost} allocations a record");
    }
}

//! Whoever waits is not kept waiting.

use std::time::{Duration, Instant};

use kafka_producer::testing::{Api, Fault, TestCluster};
use kafka_producer::{Error, ProducerBuilder, ProducerRecord};

use crate::common::asleep::Thread;
use crate::common::{LONG, assert_took, builder, delivered, ms, timed};

/// Nothing would be sent in a test's time but for what ends the linger.
fn endless_linger(cluster: &TestCluster) -> ProducerBuilder {
    builder(cluster).linger(LONG * 4).delivery_timeout(LONG * 10)
}

const SOON: Duration = Duration::from_secs(15);

#[test]
fn a_wait_ends_the_linger() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = endless_linger(&cluster).build().unwrap();
    for i in 0..20 {
        let delivery = producer.send(ProducerRecord::new("t", "v")).unwrap();
        assert_eq!(delivery.wait_timeout(SOON).unwrap().offset(), Some(i));
    }
}

/// The median of many: what a busy machine does to a few of them is no matter.
#[track_caller]
fn assert_mostly_soon(mut times: Vec<Duration>) {
    times.sort();
    assert!(times[times.len() / 2] < ms(5), "{times:?}");
}

#[test]
fn a_record_wakes_a_sender_that_sleeps() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster).client_id("sleeps").linger(ms(0)).build().unwrap();
    producer.wait_ready(&["t"], LONG).unwrap();
    let sender = Thread::named("sleeps-sender").expect("it has brought metadata");
    let times = (1..=100).map(|count| {
        let begun = Instant::now();
        while !sender.is_asleep() {
            assert!(begun.elapsed() < LONG, "the sender comes to no rest");
        }
        let (arrived, time) = timed(|| {
            producer.send(ProducerRecord::new("t", "v")).unwrap();
            cluster.wait_for_count("t", count, LONG)
        });
        assert!(arrived);
        time
    });
    assert_mostly_soon(times.collect());
}

#[test]
fn memory_that_comes_back_wakes_who_waits_for_it() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster).buffer_memory(1_000).batch_size(1_000).max_block(LONG);
    let producer = producer.build().unwrap();
    cluster.inject(Fault::produce().always().delay_response(ms(5)));
    let value = [b'x'; 900];
    let mut held = producer.send(ProducerRecord::new("t", &value)).unwrap();
    let times = (0..100).map(|_| {
        let (next, sent, told) = std::thread::scope(|scope| {
            let told = scope.spawn(|| {
                delivered(&held);
                Instant::now()
            });
            // There is no room before the first one is delivered.
            let next = producer.send(ProducerRecord::new("t", &value)).unwrap();
            (next, Instant::now(), told.join().unwrap())
        });
        held = next;
        sent.saturating_duration_since(told)
    });
    assert_mostly_soon(times.collect());
}

#[test]
fn threads_that_wait_share_batches() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = endless_linger(&cluster).build().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let producer = producer.clone();
            scope.spawn(move || {
                for _ in 0..100 {
                    let delivery = producer.send(ProducerRecord::new("t", "v")).unwrap();
                    delivery.wait_timeout(SOON).unwrap();
                }
            });
        }
    });
    let requests = cluster.counters().requests(Api::Produce);
    assert_eq!(cluster.count("t"), 800);
    assert!(requests < 600, "{requests} requests");
}

#[test]
fn a_record_that_nobody_waits_for_keeps_its_batch_lingering() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = endless_linger(&cluster).linger(ms(400)).build().unwrap();
    producer.wait_ready(&["t"], LONG).unwrap();
    let (delivery, time) = timed(|| {
        let _alone = producer.send(ProducerRecord::new("t", "nobody waits")).unwrap();
        delivered(&producer.send(ProducerRecord::new("t", "v")).unwrap())
    });
    assert_took(time, ms(400));
    assert_eq!(delivery.offset(), Some(1));
    assert_eq!(cluster.counters().requests(Api::Produce), 1);
}

#[test]
fn a_wait_ends_no_linger_where_it_is_told_not_to() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer =
        endless_linger(&cluster).linger(ms(400)).wait_ends_linger(false).build().unwrap();
    producer.wait_ready(&["t"], LONG).unwrap();
    let delivery = producer.send(ProducerRecord::new("t", "v")).unwrap();
    let (_, time) = timed(|| delivered(&delivery));
    assert!(time >= ms(300), "{time:?}");
}

/// KP-21.
#[test]
fn a_flush_ends_the_linger_of_all_partitions() {
    let cluster = TestCluster::builder().topic("t", 3).start();
    let producer = endless_linger(&cluster).build().unwrap();
    let send = |partition| producer.send(ProducerRecord::new("t", "v").partition(partition));
    let deliveries = [0, 1, 2].map(|partition| send(partition).unwrap());
    producer.flush(SOON).unwrap();
    assert!(deliveries.iter().all(|delivery| delivery.try_get().unwrap().is_ok()));
    // What comes after it lingers again.
    let next = send(0).unwrap();
    assert_eq!(cluster.count("t"), 3);
    assert!(next.try_get().is_none());
}

#[test]
fn a_wait_that_timed_out_can_be_taken_up_again() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster).build().unwrap();
    producer.wait_ready(&["t"], LONG).unwrap();
    cluster.freeze_broker(1);
    let delivery = producer.send(ProducerRecord::new("t", "v")).unwrap();
    let (early, time) = timed(|| delivery.wait_timeout(ms(200)));
    assert!(matches!(early, Err(Error::WaitTimeout)));
    assert_took(time, ms(200));
    assert!(matches!(delivery.wait_timeout(Duration::ZERO), Err(Error::WaitTimeout)));
    cluster.thaw_broker(1);
    assert_eq!(delivered(&delivery).offset(), Some(0));
    assert_eq!(delivery.wait_timeout(Duration::ZERO).unwrap().offset(), Some(0));
}

#[test]
fn a_flush_that_times_out_tells_what_is_left_and_everything_goes_on() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster).build().unwrap();
    producer.wait_ready(&["t"], LONG).unwrap();
    cluster.freeze_broker(1);
    for _ in 0..3 {
        producer.send(ProducerRecord::new("t", "v")).unwrap();
    }
    producer.send_with(ProducerRecord::new("t", "v"), |_| ()).unwrap();
    let (late, time) = timed(|| producer.flush(ms(300)));
    assert_took(time, ms(300));
    let Err(Error::FlushTimeout { records, callbacks }) = late else { panic!("{late:?}") };
    assert_eq!((records, callbacks), (4, 1));
    cluster.thaw_broker(1);
    producer.flush(LONG).unwrap();
    assert_eq!(cluster.count("t"), 4);
}

#[test]
fn a_send_that_never_waits_asks_for_the_topic_and_succeeds_later() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster).build().unwrap();
    let refused = producer.try_send(ProducerRecord::new("t", "v")).unwrap_err();
    assert!(matches!(refused.error(), Error::NotReady { .. }), "{refused}");
    // It has asked: nobody else does here.
    let start = Instant::now();
    let delivery = loop {
        match producer.try_send(ProducerRecord::new("t", "v")) {
            Ok(delivery) => break delivery,
            Err(refused) => assert!(matches!(refused.error(), Error::NotReady { .. })),
        }
        assert!(start.elapsed() < LONG);
        std::thread::yield_now();
    };
    assert_eq!(delivered(&delivery).offset(), Some(0));
}

#[test]
fn a_slice_of_records_is_accepted_in_order() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster).build().unwrap();
    let values: Vec<_> = (0..100).map(|i| i.to_string()).collect();
    let records: Vec<_> = values.iter().map(|value| ProducerRecord::new("t", value)).collect();
    let deliveries = producer.send_all(&records).unwrap();
    for (i, delivery) in (0..).zip(&deliveries) {
        assert_eq!(delivered(delivery).offset(), Some(i));
    }
    let bad = [
        ProducerRecord::new("t", "fine"),
        ProducerRecord::new("no topic", "v"),
        ProducerRecord::new("t", "never"),
    ];
    let partial = producer.send_all(&bad).unwrap_err();
    assert!(matches!(partial.error, Error::InvalidTopic { .. }));
    assert_eq!(partial.accepted.len(), 1);
    assert_eq!(delivered(&partial.accepted[0]).offset(), Some(100));
    producer.flush(LONG).unwrap();
    assert_eq!(cluster.count("t"), 101);
}

/// KP-22.
#[test]
fn a_flush_of_nothing_needs_no_time() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster).build().unwrap();
    for _ in 0..10 {
        producer.flush(Duration::from_secs(5)).unwrap();
    }
    let delivery = producer.send(ProducerRecord::new("t", "v")).unwrap();
    delivered(&delivery);
    let (flushed, time) = timed(|| producer.flush(LONG));
    assert!(flushed.is_ok() && time < LONG / 3, "{time:?}");
}

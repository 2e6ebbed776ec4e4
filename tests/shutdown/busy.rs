//! Closed while other threads send and wait: nobody is left waiting, and each accepted record is
//! told of once.

use std::sync::mpsc;
use std::time::Duration;

use kafka_producer::testing::{Fault, TestCluster};
use kafka_producer::{Error, KafkaProducer, ProducerRecord, TopicRecord};

use crate::common::asleep::Thread;
use crate::common::{LONG, builder, delivered, fate, ms};
use crate::{
    assert_threads_end, endless_linger, eventually, is_closed, is_given_up, send_with, telling,
};

/// Closes, once `is_time`, while eight threads send; gives how many records were accepted,
/// delivered, given up.
fn close_amid_sends(
    cluster: &TestCluster,
    timeout: Duration,
    is_time: impl Fn() -> bool,
) -> [usize; 3] {
    let producer = builder(cluster).client_id("amid").batch_size(2_000).build().unwrap();
    producer.wait_ready(&["t"], LONG).unwrap();
    let (told, results) = telling();
    let (accepted, deliveries, report) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let (producer, told) = (producer.clone(), told.clone());
                scope.spawn(move || {
                    let topic = producer.topic("t").unwrap();
                    let (mut called, mut deliveries) = (0, Vec::new());
                    loop {
                        let sent = match thread % 3 {
                            0 => topic.send(TopicRecord::new("v")).map(|d| deliveries.push(d)),
                            1 => send_with(&producer, &told).map(|()| called += 1),
                            _ => match producer.try_send(ProducerRecord::new("t", "v")) {
                                Ok(delivery) => {
                                    deliveries.push(delivery);
                                    Ok(())
                                }
                                Err(refused) => Err(refused.into()),
                            },
                        };
                        match sent {
                            Ok(()) => {}
                            Err(Error::Closed) => return (called, deliveries),
                            Err(Error::BufferExhausted { .. }) => std::thread::yield_now(),
                            Err(error) => panic!("{error}"),
                        }
                    }
                })
            })
            .collect();
        assert!(cluster.wait_for_count("t", 2_000, LONG));
        eventually("time to close", is_time);
        let report = producer.close(timeout);
        let mut all = (0, Vec::new());
        for thread in threads {
            let (called, deliveries) = thread.join().unwrap();
            all.0 += called;
            all.1.extend(deliveries);
        }
        (all.0 + all.1.len(), all.1, report)
    });
    drop(told);
    assert_eq!((report.callbacks_left, report.threads_stuck), (0, 0), "{report:?}");
    let mut outcome = [accepted, 0, 0];
    let mut count = |result: Result<(), Error>| match result {
        Ok(()) => outcome[1] += 1,
        Err(error) => {
            assert!(is_given_up(&error), "{error}");
            outcome[2] += 1;
        }
    };
    for delivery in &deliveries {
        count(delivery.try_get().expect("decided when close returns").map(drop));
    }
    while let Some(result) = results.next() {
        count(result.map(drop));
    }
    assert_eq!(report.aborted_records, outcome[2], "{report:?}");
    assert_threads_end("amid");
    outcome
}

#[test]
fn a_close_amid_sends_delivers_all_that_was_accepted() {
    let cluster = TestCluster::builder().brokers(2).topic("t", 4).start();
    let [accepted, delivered, given_up] = close_amid_sends(&cluster, LONG, || true);
    assert_eq!((delivered, given_up), (accepted, 0));
    assert_eq!(cluster.count("t"), accepted as u64);
}

#[test]
fn a_close_amid_sends_that_gives_up_tells_of_each_record_once() {
    let cluster = TestCluster::builder().brokers(2).topic("t", 4).start();
    let silence = cluster.inject(Fault::produce().broker(2).skip(20).always().silence());
    let is_silent = || cluster.fired(silence) > 0;
    let [accepted, delivered, given_up] = close_amid_sends(&cluster, ms(1_500), is_silent);
    assert_eq!(delivered + given_up, accepted);
    assert!(delivered > 0 && given_up > 0, "{delivered} of {accepted}");
    assert!(cluster.count("t") >= delivered as u64);
}

/// Runs `calls`, each in a thread; closes when all of them sleep and `is_time`. What they came to,
/// and then `go_on`, where the close has to wait for that.
fn close_during<const N: usize>(
    producer: &KafkaProducer,
    timeout: Duration,
    mut is_time: impl FnMut() -> bool,
    calls: [&(dyn Fn() -> Result<(), Error> + Sync); N],
    go_on: impl FnOnce(),
) -> [Result<(), Error>; N] {
    std::thread::scope(|scope| {
        let (threads, results): (Vec<_>, Vec<_>) = calls
            .map(|call| {
                let ((begins, thread), (done, result)) = (mpsc::channel(), mpsc::channel());
                scope.spawn(move || {
                    begins.send(Thread::current()).unwrap();
                    done.send(call()).unwrap();
                });
                (thread.recv().unwrap(), result)
            })
            .into_iter()
            .unzip();
        eventually("they all wait", || threads.iter().all(Thread::is_asleep) && is_time());
        assert!(results.iter().all(|result| result.try_recv().is_err()), "one did not wait");
        scope.spawn(|| producer.close(timeout));
        let result = |i: usize| results[i].recv_timeout(LONG).expect("it waits still");
        let results = std::array::from_fn(result);
        go_on();
        results
    })
}

#[test]
fn who_waits_for_memory_is_told() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster)
        .buffer_memory(4_000)
        .batch_size(1_000)
        .max_block(LONG * 10)
        .build()
        .unwrap();
    producer.wait_ready(&["t"], LONG).unwrap();
    cluster.freeze_broker(1);
    let value = [b'x'; 900];
    let record = || ProducerRecord::new("t", &value);
    let mut deliveries = Vec::new();
    while let Ok(delivery) = producer.try_send(record()) {
        deliveries.push(delivery);
    }
    let is_waiting = || producer.metrics().producer.waiting_threads == 1;
    let send = || producer.send(record()).map(drop);
    let go_on = || cluster.thaw_broker(1);
    let [refused] = close_during(&producer, LONG, is_waiting, [&send], go_on);
    assert!(is_closed(&refused), "{refused:?}");
    assert!(deliveries.iter().all(|delivery| fate(delivery).is_ok()));
}

/// KP-15.
#[test]
fn who_waits_for_metadata_is_told() {
    for timeout in [Duration::ZERO, LONG] {
        who_waits_for_metadata_is_told_by_a_close_of(timeout);
    }
}

fn who_waits_for_metadata_is_told_by_a_close_of(timeout: Duration) {
    let cluster = TestCluster::builder().auto_create(false).topic("t", 1).start();
    let producer = builder(&cluster).max_block(LONG * 10).build().unwrap();
    producer.wait_ready(&["t"], LONG).unwrap();
    let asked = cluster.counters().requests(kafka_producer::testing::Api::Metadata);
    let is_asked =
        || cluster.counters().requests(kafka_producer::testing::Api::Metadata) >= asked + 4;
    let unknown = || ProducerRecord::new("unknown", "v");
    let results = close_during(
        &producer,
        timeout,
        is_asked,
        [
            &|| producer.send(unknown()).map(drop),
            &|| producer.send(ProducerRecord::new("t", "v").partition(5)).map(drop),
            &|| producer.send_with(unknown(), |_| panic!("not accepted")),
            &|| producer.partitions_for("unknown").map(drop),
            &|| producer.topic("unknown").map(drop),
            &|| producer.wait_ready(&["t", "unknown"], LONG * 10),
        ],
        || (),
    );
    assert!(results.iter().all(is_closed), "{results:?}");
}

#[test]
fn who_waits_for_the_backlog_of_callbacks_is_told() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster).callback_max_pending(1).max_block(LONG * 10).build().unwrap();
    producer.wait_ready(&["t"], LONG).unwrap();
    cluster.freeze_broker(1);
    let (told, results) = telling();
    send_with(&producer, &told).unwrap();
    let send = || send_with(&producer, &told);
    // The slot comes free only when the waiter has been told.
    let go_on = || cluster.thaw_broker(1);
    let [refused] = close_during(&producer, LONG, || true, [&send], go_on);
    assert!(is_closed(&refused), "{refused:?}");
    drop(told);
    assert!(results.next().unwrap().is_ok());
    assert!(results.next().is_none());
}

#[test]
fn who_waits_for_a_delivery_or_a_flush_is_told() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = endless_linger(&cluster).wait_ends_linger(false).build().unwrap();
    producer.wait_ready(&["t"], LONG).unwrap();
    let delivery = producer.send(ProducerRecord::new("t", "v")).unwrap();
    let wait = || delivery.wait_timeout(LONG * 10).map(drop);
    let [waited] = close_during(&producer, LONG, || true, [&wait], || ());
    waited.unwrap();
    assert_eq!(delivered(&delivery).offset(), Some(0));

    let producer = endless_linger(&cluster).build().unwrap();
    producer.wait_ready(&["t"], LONG).unwrap();
    cluster.freeze_broker(1);
    let delivery = producer.send(ProducerRecord::new("t", "v")).unwrap();
    let flush = || producer.flush(LONG * 10);
    let wait = || delivery.wait_timeout(LONG * 10).map(drop);
    let [flushed, waited] = close_during(&producer, ms(300), || true, [&flush, &wait], || ());
    flushed.unwrap();
    assert!(is_given_up(&waited.unwrap_err()));
}

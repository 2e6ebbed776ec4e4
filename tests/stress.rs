//! Many threads on one producer, all calls at once, against the test broker. It is short: what it
//! is for is a run under ThreadSanitizer (`.ci/tsan`), which sees races that no outcome shows.

mod common;

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::{LONG, builder, close, delivered, fate, ms};
use kafka_producer::testing::{Fault, TestCluster};
use kafka_producer::{Callbacks, Delivery, Error, KafkaProducer, ProducerRecord};

const THREADS: usize = 6;
const EACH: usize = 1_500;

/// What the threads have seen.
#[derive(Default)]
struct Seen {
    accepted: AtomicUsize,
    refused: AtomicUsize,
    with_callback: AtomicUsize,
    called: AtomicUsize,
}

/// One thread's share: sends by every call, waits now and then, drops most handles.
fn use_producer(producer: &KafkaProducer, seen: &'static Seen, number: usize) -> Vec<Delivery> {
    let mut kept = Vec::new();
    for i in 0..EACH {
        let value = vec![b'v'; 1 + (number * 31 + i * 17) % 400];
        let record = ProducerRecord::new("t", &value);
        let record = if i % 3 == 0 { record } else { record.partition((i % 4) as i32) };
        let sent = match i % 4 {
            0 => {
                let call = move |_: Result<&_, &Error>| {
                    seen.called.fetch_add(1, Ordering::Relaxed);
                };
                let sent = producer.send_with(record, call).map(|_| None);
                seen.with_callback.fetch_add(usize::from(sent.is_ok()), Ordering::Relaxed);
                sent
            }
            1 => producer.try_send(record).map(Some).map_err(|refused| refused.into_parts().1),
            _ => producer.send(record).map(Some),
        };
        match sent {
            Ok(delivery) => {
                seen.accepted.fetch_add(1, Ordering::Relaxed);
                match delivery {
                    Some(delivery) if i % 40 == 2 => drop(fate(&delivery)),
                    Some(delivery) if i % 10 == 3 => kept.push(delivery),
                    _ => {}
                }
            }
            Err(_) => drop(seen.refused.fetch_add(1, Ordering::Relaxed)),
        }
        if i % 100 == 99 {
            let _ = producer.flush(LONG);
        }
    }
    kept
}

fn all_at_once(producer: KafkaProducer, seen: &'static Seen, closes: bool) -> Vec<Delivery> {
    let start = Barrier::new(THREADS + usize::from(closes));
    thread::scope(|scope| {
        let user = |number| {
            let (producer, start) = (producer.clone(), &start);
            scope.spawn(move || {
                start.wait();
                use_producer(&producer, seen, number)
            })
        };
        let users: Vec<_> = (0..THREADS).map(user).collect();
        if closes {
            start.wait();
            while seen.accepted.load(Ordering::Relaxed) < EACH {
                thread::yield_now();
            }
            producer.close(LONG);
        }
        users.into_iter().flat_map(|user| user.join().unwrap()).collect()
    })
}

fn seen() -> &'static Seen {
    Box::leak(Box::default())
}

#[test]
fn all_that_is_accepted_is_delivered_once() {
    let cluster = TestCluster::builder().brokers(2).topic("t", 4).start();
    cluster.inject(Fault::produce().skip(5).times(3).disconnect_after());
    let producer = builder(&cluster)
        .batch_size(600)
        .buffer_memory(10_000)
        .linger(ms(1))
        .callback_threads(2)
        .build()
        .unwrap();
    let seen = seen();
    let kept = all_at_once(producer.clone(), seen, false);
    close(&producer);
    kept.iter().for_each(|delivery| drop(delivered(delivery)));
    assert_eq!(cluster.count("t") as usize, seen.accepted.load(Ordering::Relaxed));
    assert_eq!(seen.called.load(Ordering::Relaxed), seen.with_callback.load(Ordering::Relaxed));
}

#[test]
fn close_decides_what_was_accepted_and_refuses_the_rest() {
    let cluster = TestCluster::builder().topic("t", 4).start();
    let producer = builder(&cluster).batch_size(600).buffer_memory(10_000).build().unwrap();
    let seen = seen();
    let kept = all_at_once(producer.clone(), seen, true);
    assert!(producer.close(LONG).is_clean());
    assert!(kept.iter().all(|delivery| delivery.try_get().is_some()));
    assert!(seen.refused.load(Ordering::Relaxed) > 0, "nobody met the close");
    assert_eq!(cluster.count("t") as usize, seen.accepted.load(Ordering::Relaxed));
    assert_eq!(seen.called.load(Ordering::Relaxed), seen.with_callback.load(Ordering::Relaxed));
}

#[test]
fn the_last_handle_closes_under_the_callbacks_of_another() {
    let cluster = TestCluster::builder().topic("t", 4).start();
    for callbacks in [Callbacks::Threads(1), Callbacks::Inline] {
        let producer = builder(&cluster).callbacks(callbacks).build().unwrap();
        let seen = seen();
        drop(all_at_once(producer, seen, false));
        assert_eq!(seen.called.load(Ordering::Relaxed), seen.with_callback.load(Ordering::Relaxed));
    }
}

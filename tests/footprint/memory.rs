//! Memory of a producer under more load than its broker takes, and afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread::sleep;
use std::time::{Duration, Instant};

use kafka_producer::{
    Delivery, Error, KafkaProducer, ProducerBuilder, RecordMetadata, TopicProducer, TopicRecord,
};

use crate::alone::{Alone, Broker, alone};
use crate::common::{LONG, close, delivered, failure, ms};
use crate::discarding;
use crate::measure::{KB, MB, allocated, peak, resident, until_still};

/// `buffer.memory` as it is by default.
const BUFFER: u64 = 32 * MB;
/// Resident beside it.
const BESIDE: u64 = 16 * MB;
/// For each of `callback.max.pending`, of which there are so many by default.
const EACH_CALLBACK: u64 = 160;
const CALLBACKS: usize = 100_000;
/// By then all that the load has taken is free again.
const BACK: Duration = Duration::from_secs(5);
/// What may stay for the next time: maps and queues that keep a little room.
const KEPT: usize = 32 * KB as usize;

/// A producer that has delivered a record and is at rest, and what it takes then.
struct Loaded {
    broker: Broker,
    producer: KafkaProducer,
    topic: TopicProducer,
    resident_without: u64,
    allocated_idle: usize,
}

impl Loaded {
    fn start(alone: &Alone<'_>, settings: impl FnOnce(ProducerBuilder) -> ProducerBuilder) -> Self {
        let broker = alone.start_broker();
        let _ = resident();
        let resident_without = resident();
        let builder = KafkaProducer::builder().bootstrap_servers(&broker.address);
        let producer = settings(builder.max_block(ms(500))).build().unwrap();
        producer.wait_ready(&["t"], LONG).unwrap();
        let topic = producer.topic("t").unwrap();
        (0..4).for_each(|partition| {
            delivered(&topic.send(TopicRecord::new("first").partition(partition)).unwrap());
        });
        let allocated_idle = until_still(allocated);
        Self { broker, producer, topic, resident_without, allocated_idle }
    }

    /// Sends until there is no memory left; gives how many records were accepted.
    fn saturate(&self, value: &[u8], mut keep: impl FnMut(Delivery)) -> usize {
        let mut accepted = 0;
        loop {
            match self.topic.send(TopicRecord::new(value)) {
                Ok(delivery) => keep(delivery),
                Err(Error::BufferExhausted { .. }) => return accepted,
                Err(other) => panic!("{other}"),
            }
            accepted += 1;
        }
    }

    /// The most that the load has taken, less what the test itself holds.
    fn assert_peak(&self, what: &str, own: usize, bound: u64) {
        let grown = peak() - self.resident_without;
        let beside = (grown as i64 - BUFFER as i64 - own as i64) / KB as i64;
        println!("{what}: at most {} KB resident: {beside} KB beside the buffer", grown / KB);
        assert!(grown < bound + own as u64, "{what}: {grown} bytes");
    }

    /// What was allocated is free again in time.
    fn assert_back(&self, what: &str) {
        let start = Instant::now();
        let excess = || allocated() as i64 - self.allocated_idle as i64;
        while excess() > KEPT as i64 && start.elapsed() < BACK {
            sleep(ms(20));
        }
        let (excess, took) = (excess(), start.elapsed());
        let left = (resident() - self.resident_without) / KB;
        let idle = self.allocated_idle;
        println!("{what}: after {took:?} {excess:+} bytes beside {idle}, {left} KB resident");
        assert!(excess <= KEPT as i64, "{what}: {excess} bytes are not free after {took:?}");
    }

    /// From a broker that answers nothing to one that does, and on.
    fn recover(&mut self, value: &[u8]) {
        self.broker.thaw();
        for _ in 0..200_000 {
            // In its own time: it may still be busy with the backlog.
            match self.topic.send(TopicRecord::new(value)) {
                Ok(_) | Err(Error::BufferExhausted { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        self.producer.flush(LONG).unwrap();
    }
}

#[test]
fn forgotten_records_take_the_buffer_and_little_beside() {
    alone("memory::forgotten_records_take_the_buffer_and_little_beside", discarding, forgotten);
}

fn forgotten(alone: &Alone<'_>) {
    let mut loaded = Loaded::start(alone, |builder| builder);
    loaded.broker.freeze();
    let accepted = loaded.saturate(&[b'x'; 100], drop);
    assert!(accepted > 200_000, "saturated by {accepted}");
    loaded.assert_peak("forgotten", 0, BUFFER + BESIDE);
    loaded.recover(&[b'x'; 100]);
    loaded.assert_peak("forgotten and on", 0, BUFFER + BESIDE);
    loaded.assert_back("forgotten");
    close(&loaded.producer);
}

#[test]
fn handles_of_many_threads_take_the_buffer_and_little_beside() {
    alone("memory::handles_of_many_threads_take_the_buffer_and_little_beside", discarding, handles);
}

fn handles(alone: &Alone<'_>) {
    const THREADS: usize = 8;
    let mut loaded = Loaded::start(alone, |builder| builder.batch_size(128 * KB as usize));
    loaded.broker.freeze();
    let saturate = || {
        let mut kept = Vec::with_capacity(400_000);
        loaded.saturate(&[b'x'; 100], |delivery| kept.push(delivery));
        kept
    };
    let kept: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(saturate)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let count: usize = kept.iter().map(Vec::len).sum();
    assert!(count > 200_000, "saturated by {count}");
    let own = count * size_of::<Delivery>();
    println!("handles: {count} of {} bytes", size_of::<Delivery>());
    loaded.assert_peak("handles", own, BUFFER + BESIDE);
    loaded.recover(&[b'x'; 100]);
    loaded.assert_peak("handles and on", own, BUFFER + BESIDE);
    kept.iter().flatten().for_each(|delivery| assert!(delivery.try_get().unwrap().is_ok()));
    drop(kept);
    loaded.assert_back("handles");
    close(&loaded.producer);
}

#[test]
fn callbacks_take_little_more() {
    alone("memory::callbacks_take_little_more", discarding, callbacks);
}

fn callbacks(alone: &Alone<'_>) {
    const VALUE: &[u8] = &[b'x'; 300];
    let mut loaded = Loaded::start(alone, |builder| builder);
    let bound = BUFFER + BESIDE + EACH_CALLBACK * CALLBACKS as u64;
    let called = Arc::new(AtomicUsize::new(0));
    let submit = || {
        let mut accepted = 0;
        loop {
            let called = Arc::clone(&called);
            let count = move |fate: Result<&RecordMetadata, &Error>| {
                called.fetch_add(usize::from(fate.is_ok()), Ordering::Relaxed);
            };
            match loaded.topic.send_with(TopicRecord::new(VALUE), count) {
                Ok(()) => accepted += 1,
                Err(Error::CallbackBacklogFull { .. } | Error::BufferExhausted { .. }) => {
                    return accepted;
                }
                Err(other) => panic!("{other}"),
            }
        }
    };
    // Until the callback threads are let go, all callbacks wait for them.
    let (gate, opened) = channel::<()>();
    let stuck = move |_: Result<&RecordMetadata, &Error>| {
        opened.recv().unwrap_err();
    };
    loaded.topic.send_with(TopicRecord::new(VALUE), stuck).unwrap();
    loaded.producer.flush(ms(200)).unwrap_err();
    let accepted = submit();
    assert_eq!(accepted, CALLBACKS, "the first one has begun");
    loaded.broker.freeze();
    let beside = loaded.saturate(VALUE, drop);
    assert!(beside > 80_000, "saturated by {beside}");
    loaded.assert_peak("callbacks", 0, bound);
    drop(gate);
    loaded.broker.thaw();
    loaded.producer.flush(LONG).unwrap();
    // With the records' own batches, and the broker's answers the only thing that is missing.
    loaded.broker.freeze();
    let again = submit();
    loaded.saturate(VALUE, drop);
    loaded.assert_peak("callbacks again", 0, bound);
    loaded.broker.thaw();
    loaded.producer.flush(LONG).unwrap();
    assert_eq!(called.load(Ordering::Relaxed), accepted + again);
    loaded.assert_back("callbacks");
    close(&loaded.producer);
}

#[test]
fn records_that_expire_unsent_leave_no_memory_behind() {
    alone("memory::records_that_expire_unsent_leave_no_memory_behind", discarding, expired);
}

fn expired(alone: &Alone<'_>) {
    const PATIENCE: Duration = ms(1500);
    let quick = |builder: ProducerBuilder| {
        builder.linger(ms(0)).request_timeout(PATIENCE).delivery_timeout(PATIENCE)
    };
    let mut loaded = Loaded::start(alone, quick);
    loaded.broker.stop();
    let mut last = None;
    let accepted = loaded.saturate(&[b'x'; 100], |delivery| last = Some(delivery));
    assert!(accepted > 200_000, "saturated by {accepted}");
    failure(&last.unwrap());
    loaded.assert_peak("expired", 0, BUFFER + BESIDE);
    loaded.assert_back("expired");
    // There is nobody left to deliver anything to, and nothing to be delivered.
    close(&loaded.producer);
}

//! The whole way of a record under many interleavings: the real sender, accumulator, metadata and
//! executor between a played broker and users' threads. Since no time passes, whoever waits is
//! woken by another thread or the model fails: no linger, time-out or retry covers for a wake-up
//! that was lost.

use std::time::Duration;

use super::loom_client::PlayedClient;
use super::{Sender, SenderConfig};
use crate::accumulator::inbox::{Event, Inbox};
use crate::accumulator::queue::Append;
use crate::accumulator::shares::ShareLimits;
use crate::accumulator::topic_map::Placing;
use crate::accumulator::{AccumulatorConfig, Patience, RecordAccumulator};
use crate::completion::{
    Callback, CallbackExecutor, CallbacksLeft, Delivery, ExecutorKind, FlushWait, Guests, Slots,
};
use crate::error::Error;
use crate::metadata::{Metadata, MetadataCell, MetadataSettings, TopicWait};
use crate::random::Random;
use crate::record::RecordData;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::model::{Poll, explore, join, spawn};
use crate::sync::thread::JoinHandle;
use crate::threads::Process;
use crate::time::{Clock, ManualClock, MonoTime};

const HOUR: Duration = Duration::from_secs(3600);

/// What users' threads share with the sender's.
struct Shared {
    accumulator: Arc<RecordAccumulator>,
    metadata: Arc<MetadataCell>,
    executor: Arc<CallbackExecutor>,
}

impl Shared {
    /// What `send` comes to: wait for the topic, append, wait for memory.
    fn send(&self, value: &[u8], callback: Option<Callback>) -> Result<Delivery, Error> {
        self.send_to(0, value, callback, Patience::For(HOUR))
    }

    fn send_to(
        &self,
        partition: u32,
        value: &[u8],
        mut callback: Option<Callback>,
        mut patience: Patience,
    ) -> Result<Delivery, Error> {
        let clock = &self.accumulator.clock;
        let wake = || self.accumulator.inbox.push(Event::MetadataWanted);
        let mut wait = TopicWait::new("t", None, clock.now(), MonoTime::MAX);
        wait.wait(&self.metadata, clock, &wake)?;
        let topic = self.accumulator.topics.find_or_add("t");
        let data = RecordData { key: None, value: Some(value), headers: &[], timestamp: 0 };
        let mut append = Append { data, own_timestamp: true, sticky: false };
        self.accumulator.append(&topic, partition, &mut append, &mut callback, &mut patience)
    }

    fn flush(&self) {
        let flush = FlushWait::begin();
        self.accumulator.inbox.push(Event::Flush(flush.token(0, 0)));
        flush.wait(&self.accumulator.clock, MonoTime::MAX).unwrap();
    }

    fn close(&self) {
        self.metadata.close();
        self.accumulator.inbox.push(Event::Close { timeout: HOUR, keeps_unsent: false });
    }
}

/// What a model begins with.
#[derive(Clone, Copy)]
struct Setup {
    /// `buffer.memory`, in bytes.
    memory: usize,
    batch_size: usize,
    shares: ShareLimits,
    /// The topic's metadata are there before users' threads are.
    knows_topic: bool,
}

const RUNNING: Setup =
    Setup { memory: 2_000, batch_size: 200, shares: ShareLimits::none(), knows_topic: true };
const START: Setup = Setup { knows_topic: false, ..RUNNING };
/// There is memory for one batch, and a record or two don't fill it.
const SCARCE: Setup = Setup { memory: 600, batch_size: 600, ..RUNNING };
/// There is enough, but in company a partition may have no second buffer.
const SHARED: Setup = Setup {
    batch_size: 2_000,
    shares: ShareLimits { partition: 1, broker: usize::MAX, in_use_for: HOUR },
    ..RUNNING
};

/// A producer that lingers for an hour. The sender runs on the model's own thread until the
/// producer is closed.
fn produce<const USERS: usize>(
    setup: Setup,
    kind: ExecutorKind,
    start_users: impl FnOnce(&Arc<Shared>) -> [JoinHandle<()>; USERS],
) {
    let poll = Arc::new(Poll::default());
    let bell = {
        let poll = Arc::clone(&poll);
        Arc::new(move || poll.wake())
    };
    let inbox = Arc::new(Inbox::new(bell, Process::current()));
    let clock = Clock::Manual(ManualClock::new());
    let slots = Arc::new(Slots::new(10));
    let executor =
        Arc::new(CallbackExecutor::start(kind, Guests::default(), "model", slots).unwrap());
    let settings = MetadataSettings {
        bootstrap: vec![("bootstrap".into(), 9092)],
        max_age: HOUR,
        max_idle: HOUR,
        retry_backoff: HOUR,
        retry_backoff_max: HOUR,
        auto_create: true,
        unknown_topic_timeout: None,
        rebootstrap_trigger: None,
    };
    let metadata = Metadata::new(settings, Random::new(8));
    let config = SenderConfig {
        acks: -1,
        idempotent: false,
        one_in_flight: false,
        max_request_size: 1_000_000,
        request_timeout: HOUR,
        delivery_timeout: 10 * HOUR,
        linger: HOUR,
        retries: 0,
        retry_backoff: HOUR,
        retry_backoff_max: HOUR,
        wait_ends_linger: true,
        availability_timeout: Duration::ZERO,
    };
    let accumulator = AccumulatorConfig {
        batch_size: setup.batch_size,
        linger: config.linger,
        memory: setup.memory,
        shares: setup.shares,
        placing: Placing { adaptive: false, seed: 0 },
    };
    let accumulator = RecordAccumulator::new(accumulator, inbox, clock);
    let shared = Arc::new(Shared {
        accumulator: Arc::new(accumulator),
        metadata: Arc::clone(metadata.cell()),
        executor: Arc::clone(&executor),
    });
    let accumulator = Arc::clone(&shared.accumulator);
    let client = PlayedClient::new(poll);
    let random = Random::new(1);
    let mut sender = Sender::new(config, accumulator, client, metadata, executor, random);
    let mut now = MonoTime::ZERO;
    if setup.knows_topic {
        shared.metadata.add_topic("t");
        now = sender.run_once(now).unwrap();
    }
    let users = start_users(&shared);
    while !sender.has_ended() {
        now = sender.run_once(now).unwrap();
    }
    sender.end(now);
    drop(sender);
    users.into_iter().for_each(join);
    shared.executor.expect_no_more();
    assert_eq!(shared.executor.close(HOUR), CallbacksLeft::default());
    let pool = &shared.accumulator.pool;
    assert_eq!(pool.available(), pool.total());
    assert!(!pool.has_waiters());
}

/// Two users that send and wait; the second one closes the producer when both are done.
fn two_that_wait(shared: &Arc<Shared>) -> [JoinHandle<()>; 1] {
    let send_and_wait = |shared: &Shared| drop(shared.send(b"v", None).unwrap().wait().unwrap());
    let first = spawn({
        let shared = Arc::clone(shared);
        move || send_and_wait(&shared)
    });
    let shared = Arc::clone(shared);
    [spawn(move || {
        send_and_wait(&shared);
        join(first);
        shared.close();
    })]
}

#[test]
fn a_topic_that_two_threads_wait_for_is_found() {
    explore(1, || produce(START, ExecutorKind::Inline, two_that_wait));
}

#[test]
fn records_that_are_waited_for_are_delivered_without_linger() {
    explore(1, || produce(RUNNING, ExecutorKind::Inline, two_that_wait));
}

/// Sends to a partition, waits for memory if need be, and lets go of the record.
fn leave(shared: &Shared, partition: u32, value: &[u8]) {
    drop(shared.send_to(partition, value, None, Patience::For(HOUR)).unwrap());
}

#[test]
fn memory_that_is_waited_for_is_brought_back_without_linger() {
    explore(2, || {
        produce(SCARCE, ExecutorKind::Inline, |shared| {
            let first = spawn({
                let shared = Arc::clone(shared);
                move || leave(&shared, 0, b"v")
            });
            let shared = Arc::clone(shared);
            [spawn(move || {
                leave(&shared, 1, b"v");
                join(first);
                shared.close();
            })]
        });
    });
}

#[test]
fn memory_is_brought_back_each_time() {
    explore(2, || {
        produce(SCARCE, ExecutorKind::Inline, |shared| {
            let shared = Arc::clone(shared);
            [spawn(move || {
                // Each finds what the one before it holds.
                [0, 1, 0].into_iter().for_each(|partition| leave(&shared, partition, b"v"));
                shared.close();
            })]
        });
    });
}

#[test]
fn who_is_refused_memory_has_what_lingers_sent() {
    explore(2, || {
        produce(SCARCE, ExecutorKind::Inline, |shared| {
            let shared = Arc::clone(shared);
            [spawn(move || {
                let decided = Arc::new(Poll::default());
                let tell = Arc::clone(&decided);
                shared.executor.slots().try_acquire().unwrap().keep();
                let callback = Callback::User(Box::new(move |_| tell.wake()));
                shared.send(b"v", Some(callback)).map(drop).unwrap();
                let refused = shared.send_to(1, b"v", None, Patience::None);
                assert!(matches!(refused, Err(Error::BufferExhausted { .. })));
                decided.wait();
                shared.close();
            })]
        });
    });
}

#[test]
fn a_share_that_is_waited_for_is_brought_back_without_linger() {
    explore(1, || {
        produce(SHARED, ExecutorKind::Inline, |shared| {
            // So that the others' partition is in company.
            leave(shared, 1, b"v");
            // What a record leaves of its buffer is too little for another one.
            let first = spawn({
                let shared = Arc::clone(shared);
                move || leave(&shared, 0, &[b'v'; 300])
            });
            let shared = Arc::clone(shared);
            [spawn(move || {
                leave(&shared, 0, &[b'v'; 300]);
                join(first);
                shared.close();
            })]
        });
    });
}

#[test]
fn a_flush_knows_of_a_batch_that_its_first_user_has_not_told_of() {
    explore(1, || {
        produce(RUNNING, ExecutorKind::Inline, |shared| {
            let beginner = spawn({
                let shared = Arc::clone(shared);
                move || leave(&shared, 0, b"v")
            });
            let shared = Arc::clone(shared);
            [spawn(move || {
                let delivery = shared.send(b"v", None).unwrap();
                shared.flush();
                assert!(delivery.check().is_some(), "the flush passed it over");
                join(beginner);
                shared.close();
            })]
        });
    });
}

#[test]
fn a_flush_ends_when_records_and_callbacks_of_others_have() {
    explore(1, || {
        let ran = Arc::new(AtomicUsize::new(0));
        produce(RUNNING, ExecutorKind::Threads(1), |shared| {
            let user = spawn({
                let (shared, ran) = (Arc::clone(shared), Arc::clone(&ran));
                move || {
                    // Without an order of its own: what callbacks did is to be seen all the same.
                    let count = move || {
                        ran.fetch_add(1, Ordering::Relaxed);
                    };
                    shared.executor.slots().try_acquire().unwrap().keep();
                    let callback = Callback::User(Box::new(move |_| count()));
                    // It is decided before its callback has run.
                    drop(shared.send(b"v", Some(callback)).unwrap().wait().unwrap());
                }
            });
            let (shared, ran) = (Arc::clone(shared), Arc::clone(&ran));
            [spawn(move || {
                shared.flush();
                join(user);
                shared.flush();
                assert_eq!(ran.load(Ordering::Relaxed), 1, "the flush did not wait");
                shared.close();
            })]
        });
    });
}

#[test]
fn what_is_sent_while_the_producer_closes_is_refused_or_delivered() {
    explore(3, || {
        produce(RUNNING, ExecutorKind::Inline, |shared| {
            let [user, closer] = [(); 2].map(|()| Arc::clone(shared));
            let user = spawn(move || match user.send(b"v", None) {
                Ok(delivery) => drop(delivery.wait().unwrap()),
                Err(error) => assert!(matches!(error, Error::Closed), "{error}"),
            });
            [user, spawn(move || closer.close())]
        });
    });
}

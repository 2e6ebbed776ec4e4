//! Callbacks: each one is called once, away from the sending, in order, and whatever it does
//! harms no other.

mod common;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::{LONG, assert_took, builder, close, delivered, ms, timed};
use kafka_producer::testing::{Fault, TestCluster};
use kafka_producer::{
    CallbackTask, Callbacks, DeliveryCause, Error, Executor, InterceptedRecord, InterceptorError,
    KafkaProducer, Producer, ProducerEvent, ProducerInterceptor, ProducerRecord, RecordMetadata,
    StringSerializer, TopicRecord, TypedRecord,
};

fn to<'a>(partition: i32, value: &'a str) -> ProducerRecord<'a> {
    ProducerRecord::new("t", value).partition(partition)
}

/// Tells the name of the thread that drops it, and panics there.
struct Dropped(mpsc::Sender<String>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(std::thread::current().name().unwrap_or_default().to_owned());
        assert!(std::thread::panicking(), "what a destructor may do");
    }
}

/// The program keeps neither the builder nor the closures, so that they end with the producer.
#[test]
fn what_the_program_gave_is_dropped_where_its_code_may_run() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let address: std::net::SocketAddr = cluster.bootstrap_servers().parse().unwrap();
    let (told, names) = mpsc::channel();
    let (listener, lookup) = (Dropped(told.clone()), Dropped(told.clone()));
    let named = || common::impatient("kafka.example:1").client_id("own").linger(ms(60_000));
    let resolves = |last: Dropped| {
        move |_: &str, _: u16| {
            let _kept = &last;
            Ok(vec![address])
        }
    };
    let resolve = resolves(Dropped(told));
    let listen = move |_: &ProducerEvent| {
        let _kept = &listener;
    };
    let producer = named().resolve_with(resolve).on_event(listen).build().unwrap();
    producer.send(to(0, "given back")).unwrap();
    let report = producer.close_and_return(Duration::ZERO);
    assert_eq!((report.threads_stuck, report.not_sent.len()), (0, 1), "{report:?}");
    let name = |names: &mpsc::Receiver<String>| names.recv_timeout(LONG).unwrap();
    assert_eq!([name(&names), name(&names)], ["own-callback-0"; 2]);

    // The producer ends inside a callback, and leaves the sender behind.
    let producer = named().resolve_with(resolves(lookup)).linger(ms(0)).build().unwrap();
    let (give, given) = mpsc::channel::<KafkaProducer>();
    let last = move |_: Result<&_, &Error>| drop(given.recv());
    producer.send_with(to(0, "v"), last).unwrap();
    give.send(producer).unwrap();
    assert_eq!(name(&names), "own-callback-0");
}

#[test]
fn callbacks_run_on_threads_of_their_own_that_bear_the_producers_name() {
    let cluster = TestCluster::builder().topic("t", 4).start();
    let producer =
        builder(&cluster).client_id("named").batch_size(1).callback_threads(3).build().unwrap();
    let (told, names) = mpsc::channel();
    for i in 0..200 {
        let told = told.clone();
        let tell = move |_: Result<&_, &Error>| {
            told.send(std::thread::current().name().unwrap().to_owned()).unwrap();
        };
        producer.send_with(to(i % 4, "v"), tell).unwrap();
    }
    close(&producer);
    drop(told);
    let names: Vec<_> = names.iter().collect();
    assert_eq!(names.len(), 200);
    let allowed: BTreeSet<_> = (0..3).map(|i| format!("named-callback-{i}")).collect();
    assert!(names.iter().all(|name| allowed.contains(name)), "{names:?}");
}

#[test]
fn callbacks_of_a_partition_keep_its_order_on_several_threads() {
    const EACH: usize = 2_000;
    let cluster = TestCluster::builder().brokers(2).topic("t", 4).start();
    // What is sent again comes again in order, too.
    cluster.inject(Fault::produce().skip(3).times(3).disconnect_after());
    let producer = builder(&cluster).batch_size(500).callback_threads(4).build().unwrap();
    let seen: Arc<[Mutex<Vec<usize>>; 4]> = Arc::default();
    for i in 0..EACH {
        for partition in 0..4 {
            let seen = Arc::clone(&seen);
            let see = move |result: Result<&RecordMetadata, &Error>| {
                let metadata = result.unwrap();
                assert_eq!(metadata.partition(), partition);
                // Nobody else is in here: callbacks of a partition run one at a time.
                seen[partition as usize].try_lock().unwrap().push(i);
            };
            producer.send_with(to(partition, "v"), see).unwrap();
        }
    }
    close(&producer);
    for partition in &*seen {
        assert!(partition.lock().unwrap().iter().copied().eq(0..EACH));
    }
}

#[test]
fn several_partitions_have_callbacks_at_the_same_time() {
    let cluster = TestCluster::builder().topic("t", 3).start();
    let producer = builder(&cluster).callback_threads(3).build().unwrap();
    // Each waits until all are there.
    let meeting = Arc::new((Mutex::new(0), std::sync::Condvar::new()));
    let (told, met) = mpsc::channel();
    for partition in 0..3 {
        let (meeting, told) = (Arc::clone(&meeting), told.clone());
        let meet = move |_: Result<&_, &Error>| {
            let (present, came) = &*meeting;
            let mut present = present.lock().unwrap();
            *present += 1;
            came.notify_all();
            let all = came.wait_timeout_while(present, LONG, |present| *present < 3).unwrap();
            told.send(!all.1.timed_out()).unwrap();
        };
        producer.send_with(to(partition, "v"), meet).unwrap();
    }
    assert!((0..3).all(|_| met.recv_timeout(LONG * 2).unwrap()), "one waited in vain");
}

#[test]
fn a_callback_that_panics_or_is_dropped_harms_no_other() {
    struct PanicsWhenDropped;
    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            assert!(std::thread::panicking(), "dropped");
        }
    }
    for callbacks in [Callbacks::Threads(1), Callbacks::Inline] {
        let cluster = TestCluster::builder().topic("t", 1).start();
        let producer = builder(&cluster).callbacks(callbacks).build().unwrap();
        let called = Arc::new(AtomicUsize::new(0));
        for i in 0..100 {
            let called = Arc::clone(&called);
            let act = move |_: Result<&_, &Error>| {
                called.fetch_add(1, Ordering::SeqCst);
                match i % 3 {
                    0 => panic!("as planned"),
                    1 => drop(PanicsWhenDropped),
                    _ => {}
                }
            };
            producer.send_with(to(0, "v"), act).unwrap();
        }
        producer.flush(LONG).unwrap();
        assert_eq!(called.load(Ordering::SeqCst), 100);
        delivered(&producer.send(to(0, "after")).unwrap());
        close(&producer);
    }
}

#[test]
fn a_callback_may_send_and_wait_for_other_records() {
    let cluster = TestCluster::builder().topic("t", 2).start();
    let producer = builder(&cluster).linger(LONG * 4).delivery_timeout(LONG * 10).build().unwrap();
    let (told, results) = mpsc::channel();
    let inner = producer.clone();
    producer
        .send_with(to(0, "first"), move |_| {
            let other = inner.send(to(1, "second")).unwrap();
            let waited = other.wait_timeout(LONG);
            inner
                .send_with(to(0, "third"), move |result| {
                    told.send((waited, result.map(|m| m.offset()).map_err(Clone::clone))).unwrap();
                })
                .unwrap();
            // Nothing else ends this one's linger.
            inner.send(to(0, "fourth")).unwrap();
        })
        .unwrap();
    producer.flush(LONG).unwrap();
    producer.flush(LONG).unwrap();
    let (second, third) = results.recv_timeout(LONG).unwrap();
    assert_eq!((second.unwrap().offset(), third.unwrap()), (Some(0), Some(1)));
    assert_eq!(cluster.count("t"), 4);
}

/// KAFKA-10335: with callbacks on the sending thread this comes to a stop.
#[test]
fn a_stream_that_callbacks_forward_goes_through_a_buffer_of_one_batch() {
    const RECORDS: usize = 50_000;
    let cluster = TestCluster::builder().topic("t", 2).discard(false).start();
    let producer = builder(&cluster).buffer_memory(2_000).batch_size(2_000).build().unwrap();
    let forwarded = Arc::new(AtomicUsize::new(0));
    for _ in 0..RECORDS {
        let (inner, forwarded) = (producer.clone(), Arc::clone(&forwarded));
        let forward = move |result: Result<&_, &Error>| {
            assert!(result.is_ok(), "{result:?}");
            inner
                .send_with(to(1, "v"), move |result| {
                    forwarded.fetch_add(usize::from(result.is_ok()), Ordering::Relaxed);
                })
                .unwrap();
        };
        producer.send_with(to(0, "v"), forward).unwrap();
    }
    producer.flush(LONG).unwrap();
    producer.flush(LONG).unwrap();
    assert_eq!(forwarded.load(Ordering::Relaxed), RECORDS);
}

#[test]
fn a_callback_on_the_senders_thread_is_refused_what_it_would_wait_for() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster)
        .callbacks(Callbacks::Inline)
        .buffer_memory(2_000)
        .batch_size(1_000)
        .build()
        .unwrap();
    let (told, results) = mpsc::channel();
    let inner = producer.clone();
    producer
        .send_with(to(0, "v"), move |_| {
            assert!(std::thread::current().name().unwrap().ends_with("-sender"));
            let known = inner.send(to(0, "v")).unwrap();
            let waited = known.wait_timeout(LONG);
            let unknown = inner.send(ProducerRecord::new("unknown", "v"));
            let fill = std::iter::repeat_with(|| inner.send(to(0, &"x".repeat(900))));
            let full = fill.take(10).find_map(Result::err);
            let ready = inner.wait_ready(&["unknown"], LONG);
            let reached = inner.wait_ready(&[], LONG);
            told.send([waited.err(), unknown.err(), full, ready.err(), reached.err()]).unwrap();
        })
        .unwrap();
    for refused in results.recv_timeout(LONG).unwrap() {
        assert!(matches!(refused, Some(Error::InCallback { .. })), "{refused:?}");
    }
    close(&producer);
}

#[test]
fn the_backlog_is_bounded_and_a_slot_is_free_as_its_callback_begins() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster).callback_max_pending(3).max_block(ms(300)).build().unwrap();
    let (go_on, stuck) = mpsc::channel::<()>();
    let (told, began) = mpsc::channel();
    let inner = producer.clone();
    producer
        .send_with(to(0, "v"), move |_| {
            // Its own slot is free again: three more find room, and the fourth does not wait.
            let sent: Vec<_> = (0..4).map(|_| inner.send_with(to(0, "v"), |_| ())).collect();
            told.send(sent).unwrap();
            let _ = stuck.recv();
        })
        .unwrap();
    let (mut sent, time) = timed(|| began.recv_timeout(LONG).unwrap());
    assert!(time < LONG / 3, "{time:?}");
    let refused = sent.pop().unwrap();
    let zero = Duration::ZERO;
    assert!(matches!(refused, Err(Error::CallbackBacklogFull { waited }) if waited == zero));
    assert!(sent.iter().all(Result::is_ok), "{sent:?}");
    // Outside it waits, within its time; who wants no callback needs no slot.
    let (refused, time) = timed(|| producer.send_with(to(0, "v"), |_| panic!("not accepted")));
    assert_took(time, ms(300));
    assert!(
        matches!(refused, Err(Error::CallbackBacklogFull { waited }) if waited >= ms(300)),
        "{refused:?}"
    );
    delivered(&producer.send(to(0, "v")).unwrap());
    go_on.send(()).unwrap();
    producer.flush(LONG).unwrap();
    producer.send_with(to(0, "v"), |_| ()).unwrap();
    close(&producer);
    assert_eq!(cluster.count("t"), 6);
}

/// Nothing of a refused callback is spent, whoever has seen the record before.
#[test]
fn a_refused_callback_is_given_back_and_can_be_sent_again() {
    struct Looks;
    impl ProducerInterceptor for Looks {
        type State = ();

        fn on_send(&self, _: &mut InterceptedRecord<'_>) -> Result<(), InterceptorError> {
            Ok(())
        }
    }
    for intercepted in [false, true] {
        let cluster = TestCluster::builder().topic("t", 1).start();
        let builder = builder(&cluster).callback_max_pending(1).max_block(LONG);
        let builder = if intercepted { builder.interceptor(Looks) } else { builder };
        let producer = builder.build().unwrap();
        let (told, results) = mpsc::channel();
        let tell = Box::new(move |fate: Result<&RecordMetadata, &Error>| {
            told.send(fate.unwrap().offset()).unwrap();
        });
        let (refused, time) = timed(|| producer.try_send_with(to(0, "v"), tell).unwrap_err());
        assert!(time < LONG / 3, "{time:?}");
        assert!(matches!(refused.error(), Error::NotReady { .. }), "{refused:?}");
        producer.wait_ready(&["t"], LONG).unwrap();

        // One callback is stuck, and another one fills the backlog.
        let (go_on, stuck) = mpsc::channel::<()>();
        let (began, begins) = mpsc::channel();
        let wait = move |_: Result<&_, &Error>| {
            began.send(()).unwrap();
            let _ = stuck.recv();
        };
        producer.send_with(to(0, "stuck"), wait).unwrap();
        begins.recv_timeout(LONG).unwrap();
        producer.send_with(to(0, "fills"), |_| ()).unwrap();
        let (record, tell, _) = refused.into_parts();
        assert_eq!(record, to(0, "v"));
        let (refused, time) = timed(|| producer.try_send_with(record, tell).unwrap_err());
        assert!(time < LONG / 3, "{time:?}");
        assert!(matches!(refused.error(), Error::CallbackBacklogFull { .. }), "{refused:?}");
        go_on.send(()).unwrap();
        producer.flush(LONG).unwrap();

        let (record, tell, _) = refused.into_parts();
        producer.try_send_with(record, tell).unwrap();
        assert_eq!(results.recv_timeout(LONG).unwrap(), Some(2));
        close(&producer);
    }
}

#[test]
fn a_send_with_a_callback_may_have_a_budget_of_its_own() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster).callback_max_pending(1).max_block(LONG).build().unwrap();
    let topic = producer.topic("t").unwrap();
    let typed = producer.typed(StringSerializer, StringSerializer);
    let (go_on, stuck) = mpsc::channel::<()>();
    let (began, begins) = mpsc::channel();
    let wait = move |_: Result<&_, &Error>| {
        began.send(()).unwrap();
        let _ = stuck.recv();
    };
    producer.send_with_timeout(to(0, "stuck"), wait, LONG).unwrap();
    begins.recv_timeout(LONG).unwrap();
    producer.send_with(to(0, "fills"), |_| ()).unwrap();
    let sends: [&dyn Fn() -> Result<(), Error>; 4] = [
        &|| producer.send_with_timeout(to(0, "v"), |_| panic!("refused"), ms(300)),
        &|| topic.send_with_timeout(TopicRecord::new("v"), |_| panic!("refused"), ms(300)),
        &|| typed.send_with_timeout(TypedRecord::new("t", "v"), |_| panic!("refused"), ms(300)),
        &|| {
            let producer: &dyn Producer = &producer;
            producer.send_with_timeout(to(0, "v"), Box::new(|_| panic!("refused")), ms(300))
        },
    ];
    for send in sends {
        let (refused, time) = timed(send);
        assert_took(time, ms(300));
        assert!(matches!(refused, Err(Error::CallbackBacklogFull { .. })), "{refused:?}");
    }
    // The same for handles: a record with its own partition waits for that to exist.
    let unknown = TopicRecord::new("v").partition(7);
    let (refused, time) = timed(|| topic.send_timeout(unknown, ms(300)));
    assert_took(time, ms(300));
    assert!(matches!(refused, Err(Error::MetadataTimeout { .. })), "{refused:?}");
    let unknown = TypedRecord::new("t", "v").partition(7);
    let (refused, time) = timed(|| typed.send_timeout(unknown, ms(300)));
    assert_took(time, ms(300));
    assert!(matches!(refused, Err(Error::MetadataTimeout { .. })), "{refused:?}");
    go_on.send(()).unwrap();
    close(&producer);
    assert_eq!(cluster.count("t"), 2);
}

#[test]
fn a_send_that_waits_for_the_backlog_goes_on_as_callbacks_begin() {
    let cluster = TestCluster::builder().topic("t", 2).start();
    let producer = builder(&cluster).callback_max_pending(5).max_block(LONG).build().unwrap();
    let called = Arc::new(AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (producer, called) = (producer.clone(), Arc::clone(&called));
            scope.spawn(move || {
                for _ in 0..500 {
                    let called = Arc::clone(&called);
                    let call = move |_: Result<&_, &Error>| {
                        called.fetch_add(1, Ordering::SeqCst);
                    };
                    producer.send_with(to(thread % 2, "v"), call).unwrap();
                }
            });
        }
    });
    close(&producer);
    assert_eq!(called.load(Ordering::SeqCst), 8 * 500);
}

/// Runs tasks on a thread of the test's, or does with them what `fate` says.
struct OwnPool {
    tasks: Mutex<mpsc::Sender<CallbackTask>>,
    fate: fn(usize) -> Fate,
    seen: AtomicUsize,
}

enum Fate {
    HandedOn,
    RunAtOnce,
    Dropped,
    Panics,
}

impl Executor for OwnPool {
    fn execute(&self, task: CallbackTask) {
        match (self.fate)(self.seen.fetch_add(1, Ordering::SeqCst)) {
            Fate::HandedOn => drop(self.tasks.lock().unwrap().send(task)),
            Fate::RunAtOnce => task.run(),
            Fate::Dropped => drop(task),
            Fate::Panics => panic!("as planned"),
        }
    }
}

fn own_pool(cluster: &TestCluster, fate: fn(usize) -> Fate) -> KafkaProducer {
    let (tasks, work) = mpsc::channel::<CallbackTask>();
    let run = move || work.into_iter().for_each(CallbackTask::run);
    std::thread::Builder::new().name("own".into()).spawn(run).unwrap();
    let pool = OwnPool { tasks: Mutex::new(tasks), fate, seen: AtomicUsize::new(0) };
    let callbacks = Callbacks::Executor(Arc::new(pool));
    builder(cluster).callbacks(callbacks).batch_size(1).callback_max_pending(10).build().unwrap()
}

/// Sends so many records; gives how many callbacks ran, and on which threads.
fn called_on(producer: &KafkaProducer, records: usize) -> (usize, BTreeSet<String>) {
    let (told, names) = mpsc::channel();
    for _ in 0..records {
        let told = told.clone();
        let tell = move |_: Result<&_, &Error>| {
            told.send(std::thread::current().name().unwrap().to_owned()).unwrap();
        };
        producer.send_with(to(0, "v"), tell).unwrap();
    }
    producer.flush(LONG).unwrap();
    drop(told);
    let names: Vec<_> = names.iter().collect();
    (names.len(), names.into_iter().collect())
}

#[test]
fn the_programs_own_pool_runs_callbacks_on_its_own_thread() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = own_pool(&cluster, |_| Fate::HandedOn);
    assert_eq!(called_on(&producer, 100), (100, BTreeSet::from(["own".to_owned()])));
    close(&producer);
}

#[test]
fn a_pool_that_drops_tasks_or_panics_frees_their_slots_and_is_told_of() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let fates = |task| match task % 4 {
        0 => Fate::HandedOn,
        1 => Fate::Dropped,
        2 => Fate::RunAtOnce,
        _ => Fate::Panics,
    };
    let producer = own_pool(&cluster, fates);
    // More than there are slots: those of dropped tasks come back.
    let (called, threads) = called_on(&producer, 100);
    assert!((1..100).contains(&called), "{called}");
    assert!(threads.contains("own"));
    delivered(&producer.send(to(0, "after")).unwrap());
    let report = producer.close(LONG);
    assert_eq!((report.aborted_records, report.threads_stuck), (0, 0));
    assert_eq!(report.callbacks_left, 100 - called, "the dropped ones");
    assert_eq!(cluster.count("t"), 101);
}

/// The incident that this crate exists for, scaled down; gives how many callbacks were told of a
/// success, and how many of the end of their time.
fn storm(callbacks: Callbacks, each: usize, delivery_timeout: Duration) -> (usize, usize) {
    const THREADS: usize = 50;
    let cluster = TestCluster::builder().topic("t", 16).start();
    let producer = builder(&cluster)
        .callbacks(callbacks)
        .batch_size(200)
        .request_timeout(delivery_timeout / 2)
        .delivery_timeout(delivery_timeout)
        .max_block(LONG)
        .build()
        .unwrap();
    let counts: Arc<[AtomicUsize; 2]> = Arc::default();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (producer, counts) = (producer.clone(), Arc::clone(&counts));
            scope.spawn(move || {
                for i in 0..each {
                    let counts = Arc::clone(&counts);
                    let store = move |result: Result<&_, &Error>| {
                        // The database.
                        std::thread::sleep(ms(1));
                        let failed = result.is_err_and(|error| {
                            let is_late = |cause: &_| *cause == DeliveryCause::Timeout;
                            assert!(matches!(error, Error::Delivery(e) if is_late(&e.cause)));
                            true
                        });
                        counts[usize::from(failed)].fetch_add(1, Ordering::SeqCst);
                    };
                    producer.send_with(to(((thread + i) % 16) as i32, "v"), store).unwrap();
                }
            });
        }
    });
    close(&producer);
    let [succeeded, failed] = [0, 1].map(|i| counts[i].load(Ordering::SeqCst));
    assert_eq!(succeeded + failed, THREADS * each);
    (succeeded, failed)
}

#[test]
fn slow_callbacks_cost_no_record() {
    assert_eq!(storm(Callbacks::Threads(16), 200, ms(10_000)), (10_000, 0));
    // With one thread they take far longer than a delivery may.
    assert_eq!(storm(Callbacks::Threads(1), 60, ms(2_000)), (3_000, 0));
}

#[test]
fn slow_callbacks_on_the_senders_thread_cost_records_as_in_java() {
    let (succeeded, failed) = storm(Callbacks::Inline, 60, ms(600));
    assert!(succeeded > 0 && failed > 0, "{succeeded} delivered, {failed} failed");
}

//! The end of a producer: in time, in any world, and with every accepted record told of.

#[path = "../common/mod.rs"]
mod common;

mod bad_worlds; // brokers that don't answer, callbacks that don't return
mod busy; // closed while others send and wait
mod callbacks; // closed, flushed and dropped inside callbacks

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use kafka_producer::testing::TestCluster;
use kafka_producer::{
    CallbackTask, Callbacks, DeliveryCause, Error, Executor, KafkaProducer, ProducerBuilder,
    ProducerRecord,
};

use common::{LONG, builder, close, delivered, failure, ms, timed, values};

/// The threads of the producer named `id`, a name that must be short: Linux keeps 15 bytes.
#[cfg(target_os = "linux")]
fn threads(id: &str) -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // A thread may be gone before its name is read.
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    };
    let prefix = format!("{id}-");
    let mut names: Vec<_> = tasks
        .filter_map(name)
        .map(|name| name.trim_end().to_owned())
        .filter(|name| name.starts_with(&prefix))
        .collect();
    names.sort();
    names
}

/// Looks until what is to come about has.
#[track_caller]
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LONG, "{what}");
        std::thread::yield_now();
    }
}

/// The kernel forgets a thread a moment after it was joined.
#[track_caller]
fn assert_threads_end(id: &str) {
    #[cfg(target_os = "linux")]
    eventually("threads are left", || threads(id).is_empty());
    #[cfg(not(target_os = "linux"))]
    let _ = id;
}

/// What callbacks were told, in order.
struct Told(mpsc::Receiver<Result<Option<i64>, Error>>);

/// Sends a record with a callback, and counts it in.
fn send_with(
    producer: &KafkaProducer,
    told: &mpsc::Sender<Result<Option<i64>, Error>>,
) -> Result<(), Error> {
    let told = told.clone();
    producer.send_with(ProducerRecord::new("t", "v"), move |result| {
        let _ = told.send(result.map(|metadata| metadata.offset()).map_err(Clone::clone));
    })
}

fn telling() -> (mpsc::Sender<Result<Option<i64>, Error>>, Told) {
    let (sender, receiver) = mpsc::channel();
    (sender, Told(receiver))
}

impl Told {
    /// What the next callback was told; `None` if the last one was dropped.
    #[track_caller]
    fn next(&self) -> Option<Result<Option<i64>, Error>> {
        match self.0.recv_timeout(LONG) {
            Ok(told) => Some(told),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("not called in time"),
        }
    }
}

fn is_closed<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Closed))
}

/// A record that was given up at the end.
fn is_given_up(error: &Error) -> bool {
    matches!(error, Error::Delivery(error) if error.cause == DeliveryCause::Closed)
}

/// Nothing would be sent in a test's time but for what ends the linger.
fn endless_linger(cluster: &TestCluster) -> ProducerBuilder {
    builder(cluster).linger(LONG * 4).delivery_timeout(LONG * 10)
}

/// KP-14, CFG-25.
#[test]
fn close_delivers_what_was_accepted_runs_the_callbacks_and_ends_the_threads() {
    let cluster = TestCluster::builder().brokers(2).topic("t", 2).start();
    let producer = endless_linger(&cluster).client_id("ends").callback_threads(2).build().unwrap();
    let called = Arc::new(AtomicUsize::new(0));
    let deliveries: Vec<_> = (0..100)
        .map(|i| {
            let called = Arc::clone(&called);
            let count = move |result: Result<&_, &Error>| {
                assert!(result.is_ok());
                called.fetch_add(1, Ordering::SeqCst);
            };
            let record = || ProducerRecord::new("t", "v").partition(i % 2);
            producer.send_with(record(), count).unwrap();
            producer.send(record()).unwrap()
        })
        .collect();
    // Each names itself when it gets to run.
    #[cfg(target_os = "linux")]
    eventually("three threads with their names", || {
        threads("ends") == ["ends-callback-0", "ends-callback-1", "ends-sender"].map(cut)
    });
    close(&producer);
    assert_threads_end("ends");
    assert_eq!(called.load(Ordering::SeqCst), 100);
    assert_eq!(cluster.count("t"), 200);
    for delivery in &deliveries {
        assert!(delivery.try_get().unwrap().is_ok());
    }
}

/// As Linux cuts a thread's name.
#[cfg(target_os = "linux")]
fn cut(name: &str) -> String {
    name.chars().take(15).collect()
}

#[test]
fn a_producer_that_was_never_used_closes_at_once() {
    let cluster = TestCluster::start();
    for servers in
        [cluster.bootstrap_servers(), "127.0.0.1:1".into(), "no.such.host.invalid:9".into()]
    {
        let producer =
            KafkaProducer::builder().bootstrap_servers(servers).client_id("idle").build().unwrap();
        let (report, time) = timed(|| producer.close(LONG));
        assert!(report.is_clean(), "{report:?}");
        assert!(time < LONG / 3, "{time:?}");
        assert_threads_end("idle");
    }
}

/// CFG-23: nothing is begun before all is checked.
#[test]
fn a_producer_that_cannot_be_built_leaves_no_thread() {
    let executor = Arc::new(Unused);
    let built = KafkaProducer::builder()
        .bootstrap_servers("127.0.0.1:1")
        .client_id("unbuilt")
        .callbacks(Callbacks::Executor(Arc::clone(&executor) as _))
        .acks(kafka_producer::Acks::None)
        .enable_idempotence(true)
        .build();
    let Err(Error::Config(text)) = built else { panic!("{built:?}") };
    assert!(text.contains("enable.idempotence"), "{text}");
    // A thread that was begun may not have its name yet. It would hold what callbacks run on.
    assert_eq!(Arc::strong_count(&executor), 1);
    assert_threads_end("unbuilt");
}

/// An executor that no callback comes to.
struct Unused;

impl Executor for Unused {
    fn execute(&self, _: CallbackTask) {
        panic!("nothing was sent");
    }
}

/// CFG-25: two of them never share one.
#[test]
fn a_producer_without_a_name_makes_one_up() {
    let build = || KafkaProducer::builder().bootstrap_servers("127.0.0.1:1").build().unwrap();
    let producers = [build(), build()];
    let names = producers.each_ref().map(|producer| producer.metrics().client_id);
    assert!(names.iter().all(|name| !name.is_empty()));
    assert_ne!(names[0], names[1]);
    for (producer, name) in producers.iter().zip(&names) {
        #[cfg(target_os = "linux")]
        eventually("the sender bears the name", || {
            threads(name).contains(&cut(&format!("{name}-sender")))
        });
        close(producer);
        assert_threads_end(name);
    }
}

#[test]
fn after_close_every_call_says_so() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster).build().unwrap();
    let topic = producer.topic("t").unwrap();
    let before = producer.send(ProducerRecord::new("t", "before")).unwrap();
    let clone = producer.clone();
    close(&producer);
    let record = || ProducerRecord::new("t", "after");
    let short = kafka_producer::TopicRecord::new("after");
    for producer in [&producer, &clone] {
        assert!(is_closed(&producer.send(record())));
        assert!(is_closed(&producer.send(ProducerRecord::new("unknown", "after"))));
        assert!(is_closed(&producer.send(record().partition(7))));
        assert!(is_closed(&producer.send_with(record(), |_| panic!("it was not accepted"))));
        let (given_back, error) = producer.try_send(record()).unwrap_err().into_parts();
        assert!(matches!(error, Error::Closed), "{error}");
        assert_eq!(given_back.value_bytes(), Some(&b"after"[..]));
        let partial = producer.send_all(&[record(), record()]).unwrap_err();
        assert!(matches!(partial.error, Error::Closed) && partial.accepted.is_empty());
        assert!(is_closed(&producer.partitions_for("t")));
        assert!(is_closed(&producer.topic("t").map(drop)));
        assert!(is_closed(&producer.wait_ready(&["t"], LONG)));
        assert!(is_closed(&producer.wait_ready(&[], LONG)));
        // All that was accepted is decided.
        producer.flush(Duration::ZERO).unwrap();
    }
    assert!(is_closed(&topic.send(short.clone())));
    assert!(is_closed(&topic.send_with(short.clone(), |_| panic!("it was not accepted"))));
    assert!(is_closed(&topic.try_send(&short)));
    assert_eq!(delivered(&before).offset(), Some(0));
    assert_eq!(values(&cluster, "t", 0), ["before"]);
}

#[test]
fn the_last_clone_that_is_dropped_closes_and_no_other() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = endless_linger(&cluster).client_id("dropped").build().unwrap();
    let topic = producer.topic("t").unwrap();
    let clone = producer.clone();
    let delivery = clone.send(ProducerRecord::new("t", "0")).unwrap();
    drop(producer);
    assert!(delivery.try_get().is_none(), "it lingers still");
    clone.send(ProducerRecord::new("t", "1")).unwrap();
    drop(clone);
    assert!(delivery.try_get().unwrap().is_ok());
    assert_eq!(values(&cluster, "t", 0), ["0", "1"]);
    // A topic's handle keeps nothing alive.
    assert_threads_end("dropped");
    assert!(is_closed(&topic.send(kafka_producer::TopicRecord::new("2"))));
}

/// Nobody has to call `close` for what was accepted to arrive.
#[test]
fn a_drop_right_behind_ten_thousand_records_delivers_them() {
    let cluster = TestCluster::builder().topic("t", 3).start();
    let producer = builder(&cluster).build().unwrap();
    let topic = producer.topic("t").unwrap();
    for i in 0..10_000 {
        topic.send(kafka_producer::TopicRecord::new(&i.to_string())).unwrap();
    }
    drop(producer);
    assert_eq!(cluster.count("t"), 10_000);
}

/// KP-12.
#[test]
fn a_second_close_tells_the_same_at_once() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster).build().unwrap();
    producer.wait_ready(&["t"], LONG).unwrap();
    cluster.freeze_broker(1);
    let deliveries: Vec<_> =
        (0..3).map(|_| producer.send(ProducerRecord::new("t", "v")).unwrap()).collect();
    let first = producer.close(ms(200));
    assert_eq!((first.aborted_records, first.callbacks_left), (3, 0), "{first:?}");
    assert!(!first.is_clean() && first.refused.is_none());
    let (second, time) = timed(|| producer.close(LONG));
    assert_eq!(format!("{first:?}"), format!("{second:?}"));
    assert!(time < ms(1_000), "{time:?}");
    for delivery in &deliveries {
        assert_eq!(failure(delivery).cause, DeliveryCause::Closed);
    }
}

/// A callback that does not return keeps only those waiting who have the time.
#[test]
fn a_close_without_patience_ends_one_that_has_more() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster).client_id("hurry").build().unwrap();
    let (begun, begins) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let stuck = move |_: Result<&_, &Error>| {
        begun.send(()).unwrap();
        let _ = released.recv();
    };
    producer.send_with(ProducerRecord::new("t", "v"), stuck).unwrap();
    begins.recv_timeout(LONG).unwrap();
    let (patient, hurried) = std::thread::scope(|scope| {
        let patient = scope.spawn(|| timed(|| producer.close(LONG * 20)));
        let hurried = producer.close(Duration::ZERO);
        (patient.join().unwrap(), hurried)
    });
    let (report, time) = patient;
    assert!(time < LONG, "{time:?}");
    assert_eq!((hurried.callbacks_left, hurried.threads_stuck), (1, 1), "{hurried:?}");
    assert_eq!(format!("{report:?}"), format!("{hurried:?}"));
    drop(release);
    assert_threads_end("hurry");
}

#[test]
fn closes_at_the_same_time_agree() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = endless_linger(&cluster).client_id("agree").build().unwrap();
    let (told, results) = telling();
    for _ in 0..50 {
        send_with(&producer, &told).unwrap();
    }
    drop(told);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| close(&producer));
        }
    });
    assert!((0..50).all(|_| results.next().unwrap().is_ok()));
    assert!(results.next().is_none(), "each callback is called once");
    assert_threads_end("agree");
}

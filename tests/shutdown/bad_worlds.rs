//! Brokers that don't answer, and callbacks that don't return: the end comes in time all the same.

use std::sync::mpsc;
use std::time::Duration;

use kafka_producer::testing::{Fault, TestCluster};
use kafka_producer::{
    CallbackTask, Callbacks, DeliveryCause, Error, ErrorCode, Executor, KafkaProducer, Persisted,
    ProducerRecord,
};

use crate::common::{LONG, assert_took, builder, failure, impatient, ms, timed};
use crate::{assert_threads_end, eventually, is_given_up, send_with, telling};

/// What keeps records from being delivered for ever.
type Harm = fn(&TestCluster);

/// What it may come to, and what may be told of the records then.
const WORLDS: [(&str, Harm, &[Persisted]); 4] = [
    ("frozen", |cluster| cluster.freeze_broker(1), &[Persisted::Unknown]),
    // The first may go into a connection of which nobody has heard yet that it has ended.
    ("stopped", |cluster| cluster.stop_broker(1), &[Persisted::No, Persisted::Unknown]),
    (
        "silent",
        |cluster| {
            cluster.inject(Fault::produce().always().silence());
        },
        &[Persisted::Unknown],
    ),
    (
        "refusing",
        |cluster| {
            cluster.inject(Fault::produce().always().error(ErrorCode::NOT_ENOUGH_REPLICAS));
        },
        &[Persisted::No],
    ),
];

/// A producer that knows topic `t`, in a world where nothing is delivered any more.
fn stranded(harm: Harm, id: &str) -> (TestCluster, KafkaProducer) {
    let cluster = TestCluster::builder().topic("t", 2).start();
    let producer = builder(&cluster)
        .client_id(id)
        .linger(ms(0))
        .close_on_drop_timeout(ms(400))
        .build()
        .unwrap();
    producer.wait_ready(&["t"], LONG).unwrap();
    // One record through to each partition, so that a producer id is there, the connection stands,
    // and the next batches need not travel alone.
    for partition in 0..2 {
        let first = ProducerRecord::new("t", "first").partition(partition);
        producer.send(first).unwrap().wait_timeout(LONG).unwrap();
    }
    harm(&cluster);
    (cluster, producer)
}

#[test]
fn close_ends_in_time_and_every_record_and_callback_is_told() {
    for (world, harm, persisted) in WORLDS {
        let (_cluster, producer) = stranded(harm, "told");
        let (told, results) = telling();
        let deliveries = [0, 1, 0].map(|partition| {
            producer.send(ProducerRecord::new("t", "v").partition(partition)).unwrap()
        });
        for _ in 0..5 {
            send_with(&producer, &told).unwrap();
        }
        drop(told);
        let (report, time) = timed(|| producer.close(ms(600)));
        assert!(time >= ms(300), "{world}: given up after {time:?}");
        assert!(time < ms(4_600), "{world}: {time:?}");
        assert_eq!(report.aborted_records, 8, "{world}: {report:?}");
        assert_eq!((report.callbacks_left, report.threads_stuck), (0, 0), "{world}");
        for delivery in &deliveries {
            let error = failure(delivery);
            assert_eq!(error.cause, DeliveryCause::Closed, "{world}");
            assert!(persisted.contains(&error.persisted), "{world}: {error}");
        }
        for _ in 0..5 {
            let error = results.next().expect("it was dropped, not called").unwrap_err();
            assert!(is_given_up(&error), "{world}: {error}");
        }
        assert!(results.next().is_none(), "{world}: called twice");
        assert_threads_end("told");
    }
}

#[test]
fn a_close_of_no_time_gives_up_at_once_and_tells_everybody() {
    for (world, harm, _) in WORLDS {
        let (_cluster, producer) = stranded(harm, "zero");
        let (told, results) = telling();
        let delivery = producer.send(ProducerRecord::new("t", "v")).unwrap();
        send_with(&producer, &told).unwrap();
        drop(told);
        let (report, time) = timed(|| producer.close(Duration::ZERO));
        assert!(time < ms(4_000), "{world}: {time:?}");
        assert_eq!(report.aborted_records, 2, "{world}: {report:?}");
        assert_eq!((report.callbacks_left, report.threads_stuck), (0, 0), "{world}");
        assert_eq!(failure(&delivery).cause, DeliveryCause::Closed, "{world}");
        let error = results.next().expect("it was dropped, not called").unwrap_err();
        assert!(is_given_up(&error), "{world}: {error}");
        assert_threads_end("zero");
    }
}

#[test]
fn a_drop_ends_in_time_and_tells_everybody() {
    for (world, harm, _) in WORLDS {
        let (_cluster, producer) = stranded(harm, "drop");
        let (told, results) = telling();
        let delivery = producer.send(ProducerRecord::new("t", "v")).unwrap();
        send_with(&producer, &told).unwrap();
        drop(told);
        let ((), time) = timed(|| drop(producer));
        assert!((ms(200)..ms(4_400)).contains(&time), "{world}: {time:?}");
        assert_eq!(failure(&delivery).cause, DeliveryCause::Closed, "{world}");
        let error = results.next().expect("it was dropped, not called").unwrap_err();
        assert!(is_given_up(&error), "{world}: {error}");
        assert_threads_end("drop");
    }
}

#[test]
fn flush_ends_in_time_and_says_what_is_left() {
    for (world, harm, _) in WORLDS {
        let (_cluster, producer) = stranded(harm, "flush");
        let (told, _results) = telling();
        producer.send(ProducerRecord::new("t", "v").partition(0)).unwrap();
        producer.send(ProducerRecord::new("t", "v").partition(1)).unwrap();
        send_with(&producer, &told).unwrap();
        let (late, time) = timed(|| producer.flush(ms(300)));
        assert_took(time, ms(300));
        let Err(Error::FlushTimeout { records, callbacks }) = late else {
            panic!("{world}: {late:?}")
        };
        assert_eq!((records, callbacks), (3, 1), "{world}");
        assert_eq!(producer.close(Duration::ZERO).aborted_records, 3, "{world}");
    }
}

#[test]
fn where_no_broker_is_nothing_is_accepted_and_nothing_waits() {
    let producer = impatient("127.0.0.1:1").client_id("none").max_block(ms(200)).build().unwrap();
    let refused = producer.send(ProducerRecord::new("t", "v"));
    assert!(matches!(refused, Err(Error::MetadataTimeout { .. })), "{refused:?}");
    producer.flush(Duration::from_secs(5)).unwrap();
    let (report, time) = timed(|| producer.close(LONG));
    assert!(report.is_clean() && time < LONG / 3, "{report:?} {time:?}");
    assert_threads_end("none");
}

#[test]
fn a_broker_that_comes_back_while_the_producer_closes_gets_everything() {
    let (cluster, producer) = stranded(|cluster| cluster.stop_broker(1), "back");
    let deliveries = [0, 1].map(|partition| {
        producer.send(ProducerRecord::new("t", "v").partition(partition)).unwrap()
    });
    let report = std::thread::scope(|scope| {
        let closing = scope.spawn(|| producer.close(LONG));
        let is_closed = || matches!(producer.partitions_for("t"), Err(Error::Closed));
        eventually("it does not close", is_closed);
        cluster.start_broker(1).unwrap();
        closing.join().unwrap()
    });
    assert!(report.is_clean(), "{report:?}");
    assert!(deliveries.iter().all(|delivery| delivery.try_get().unwrap().is_ok()));
    assert_eq!(cluster.count("t"), 4);
}

#[test]
fn a_callback_that_is_stuck_delays_no_close_and_is_told_of() {
    let cluster = TestCluster::builder().topic("t", 2).start();
    let producer = builder(&cluster).client_id("stuck").build().unwrap();
    let (go_on, stuck) = mpsc::channel::<()>();
    let (begun, has_begun) = mpsc::channel();
    let (told, results) = telling();
    let last = told.clone();
    producer
        .send_with(ProducerRecord::new("t", "v"), move |_| {
            begun.send(()).unwrap();
            let _ = stuck.recv();
            last.send(Ok(None)).unwrap();
        })
        .unwrap();
    has_begun.recv_timeout(LONG).unwrap();
    // Decided before the flush begins, whose callbacks it waits for all the same.
    let delivery = producer.send(ProducerRecord::new("t", "v")).unwrap();
    for _ in 0..10 {
        send_with(&producer, &told).unwrap();
    }
    drop(told);
    producer.send(ProducerRecord::new("t", "v")).unwrap().wait_timeout(LONG).unwrap();
    let (late, time) = timed(|| producer.flush(ms(300)));
    assert_took(time, ms(300));
    assert!(matches!(late, Err(Error::FlushTimeout { records: 0, callbacks: 11 })), "{late:?}");
    let (report, time) = timed(|| producer.close(ms(400)));
    assert_took(time, ms(350));
    assert_eq!(report.aborted_records, 0, "the sender was not held up: {report:?}");
    assert_eq!((report.callbacks_left, report.threads_stuck), (11, 1), "{report:?}");
    assert!(delivery.try_get().unwrap().is_ok());
    let late = producer.flush(ms(20));
    assert!(matches!(late, Err(Error::FlushTimeout { records: 0, callbacks: 1.. })), "{late:?}");
    // It comes back when nobody counts on it any more: the others are still not called.
    go_on.send(()).unwrap();
    assert_eq!(results.next().unwrap().unwrap(), None);
    assert!(results.next().is_none(), "one was called after the report");
    producer.flush(LONG).unwrap();
    assert_threads_end("stuck");
}

#[test]
fn a_callback_stuck_on_the_senders_own_thread_is_told_of_too() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer =
        builder(&cluster).client_id("inline").callbacks(Callbacks::Inline).build().unwrap();
    let (go_on, stuck) = mpsc::channel::<()>();
    let (begun, has_begun) = mpsc::channel();
    producer
        .send_with(ProducerRecord::new("t", "v"), move |_| {
            begun.send(()).unwrap();
            let _ = stuck.recv();
        })
        .unwrap();
    has_begun.recv_timeout(LONG).unwrap();
    let (told, results) = telling();
    send_with(&producer, &told).unwrap();
    drop(told);
    let (report, time) = timed(|| producer.close(ms(200)));
    assert_took(time, ms(150));
    assert_eq!(report.threads_stuck, 1, "{report:?}");
    assert!(report.callbacks_left >= 1 && !report.is_clean(), "{report:?}");
    go_on.send(()).unwrap();
    assert!(results.next().is_none(), "it was called after the report");
    assert_threads_end("inline");
}

/// Keeps every task, and hangs when it is dropped.
struct HangsWhenDropped(mpsc::Receiver<()>, mpsc::Sender<CallbackTask>);

impl Executor for Shared {
    fn execute(&self, task: CallbackTask) {
        self.0.lock().unwrap().1.send(task).unwrap();
    }
}

struct Shared(std::sync::Mutex<HangsWhenDropped>);

impl Drop for HangsWhenDropped {
    fn drop(&mut self) {
        let _ = self.0.recv();
    }
}

#[test]
fn an_executor_that_hangs_while_it_is_dropped_delays_no_close() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let (go_on, stuck) = mpsc::channel();
    let (tasks, work) = mpsc::channel();
    let executor = Shared(std::sync::Mutex::new(HangsWhenDropped(stuck, tasks)));
    // The builder goes, so that the producer's thread has the executor to itself.
    let producer = builder(&cluster)
        .client_id("hangs")
        .callbacks(Callbacks::Executor(std::sync::Arc::new(executor)))
        .build()
        .unwrap();
    let (told, results) = telling();
    send_with(&producer, &told).unwrap();
    work.recv_timeout(LONG).unwrap().run();
    assert!(results.next().unwrap().is_ok());
    let (closed, is_closed) = mpsc::channel();
    let closing = std::thread::spawn(move || closed.send(producer.close(ms(300))).unwrap());
    let report = is_closed.recv_timeout(ms(5_000)).expect("close waits for the executor");
    assert_eq!((report.callbacks_left, report.threads_stuck), (0, 1), "{report:?}");
    go_on.send(()).unwrap();
    closing.join().unwrap();
    assert_threads_end("hangs");
}

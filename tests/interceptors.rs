//! Interceptors: they see each record first, may change it, and hear of its end exactly once,
//! whatever that is; what they do wrong harms nobody.

mod common;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::{LONG, builder, close, delivered, failure, ms};
use kafka_producer::testing::{Fault, TestCluster};
use kafka_producer::{
    Acknowledgement, Callbacks, ClusterView, DeliveryCause, Error, ErrorCode, InterceptedRecord,
    InterceptorError, KafkaProducer, PartitionError, PartitionInput, Partitioner,
    ProducerInterceptor, ProducerRecord, TopicRecord,
};

/// Keeps what it is told. It numbers records from 1.
#[derive(Clone, Default)]
struct Witness {
    next: Arc<AtomicU64>,
    acks: Arc<Mutex<Vec<Ack>>>,
    closed: Arc<AtomicUsize>,
}

#[derive(Clone, Debug, PartialEq)]
struct Ack {
    number: Option<u64>,
    topic: String,
    partition: Option<i32>,
    offset: Option<i64>,
    error: Option<String>,
    thread: String,
}

impl Witness {
    fn acks(&self) -> Vec<Ack> {
        self.acks.lock().unwrap().clone()
    }

    /// Each record that was seen was told of once.
    #[track_caller]
    fn assert_each_once(&self, seen: u64) {
        let mut numbers: Vec<_> = self.acks().iter().map(|ack| ack.number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=seen).map(Some).collect::<Vec<_>>());
        assert_eq!(self.next.load(Ordering::SeqCst), seen);
    }
}

impl ProducerInterceptor for Witness {
    type State = u64;

    fn on_send(&self, _: &mut InterceptedRecord<'_>) -> Result<u64, InterceptorError> {
        Ok(self.next.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn on_acknowledgement(&self, number: Option<u64>, ack: &Acknowledgement<'_>) {
        self.acks.lock().unwrap().push(Ack {
            number,
            topic: ack.topic.to_owned(),
            partition: ack.partition,
            offset: ack.result.ok().and_then(|metadata| metadata.offset()),
            error: ack.result.err().map(ToString::to_string),
            thread: std::thread::current().name().unwrap_or_default().to_owned(),
        });
    }

    fn on_close(&self) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
}

/// An interceptor that only changes records.
struct Change<F>(F);

impl<F> ProducerInterceptor for Change<F>
where
    F: Fn(&mut InterceptedRecord<'_>) -> Result<(), InterceptorError> + Send + Sync,
{
    type State = ();

    fn on_send(&self, record: &mut InterceptedRecord<'_>) -> Result<(), InterceptorError> {
        (self.0)(record)
    }
}

/// Adds its mark to the value, and so tells what it got.
fn mark(mark: &'static str) -> impl ProducerInterceptor {
    Change(move |record: &mut InterceptedRecord<'_>| {
        let value = record.value.as_deref().unwrap_or_default();
        record.value = Some([value, mark.as_bytes()].concat().into());
        Ok(())
    })
}

fn one_broker() -> TestCluster {
    TestCluster::builder().topic("t", 2).start()
}

fn to_one(value: &str) -> ProducerRecord<'_> {
    ProducerRecord::new("t", value).partition(1)
}

/// PB-17: each interceptor gets what the one before it made of the record, whichever way it is
/// sent.
#[test]
fn the_chain_passes_records_on_in_every_form_of_send() {
    let cluster = one_broker();
    let producer = builder(&cluster).interceptor(mark("1")).interceptor(mark("2")).build().unwrap();
    delivered(&producer.send(to_one("send")).unwrap());
    delivered(&producer.try_send(to_one("try")).unwrap());
    producer.send_all(&[to_one("all"), to_one("all")]).unwrap();
    producer.send_with(to_one("with"), |_| ()).unwrap();
    let topic = producer.topic("t").unwrap();
    topic.send(TopicRecord::new("topic").partition(1)).unwrap();
    topic.try_send(&TopicRecord::new("lent").partition(1)).unwrap();
    topic.send_with(TopicRecord::new("both").partition(1), |_| ()).unwrap();
    close(&producer);
    let expected = ["send12", "try12", "all12", "all12", "with12", "topic12", "lent12", "both12"];
    assert_eq!(common::values(&cluster, "t", 1), expected);
}

#[test]
fn a_record_may_be_changed_in_every_respect() {
    let cluster = TestCluster::builder().topic("elsewhere", 3).start();
    let change = Change(|record: &mut InterceptedRecord<'_>| {
        assert_eq!((&*record.topic, record.partition, record.timestamp), ("t", None, Some(5)));
        assert_eq!(record.headers.remove("old"), 1);
        record.topic = "elsewhere".into();
        record.partition = Some(2);
        record.key = Some(b"key".into());
        record.value = None;
        record.headers.push("new", vec![1]);
        record.timestamp = Some(77);
        Ok(())
    });
    let producer = builder(&cluster).interceptor(change).build().unwrap();
    let record = ProducerRecord::new("t", "v").header("old", "h").timestamp(5);
    let metadata = delivered(&producer.send(record).unwrap());
    assert_eq!((metadata.topic(), metadata.partition()), ("elsewhere", 2));
    let stored = cluster.records("elsewhere", 2).remove(0);
    assert_eq!((stored.key.as_deref(), stored.value), (Some(&b"key"[..]), None));
    assert_eq!((stored.headers, stored.timestamp), (vec![("new".into(), Some(vec![1]))], 77));
    close(&producer);
}

/// PB-18: an interceptor that fails or panics in `on_send` is passed over: the record goes on as it
/// was before, without what that one had done to it.
#[test]
fn an_interceptor_that_fails_is_passed_over() {
    let cluster = one_broker();
    let half = |end: fn() -> Result<(), InterceptorError>| {
        Change(move |record: &mut InterceptedRecord<'_>| {
            record.value = None;
            record.headers.push("half", b"done");
            end()
        })
    };
    let witness = Witness::default();
    let producer = builder(&cluster)
        .interceptor(mark("1"))
        .interceptor(half(|| Err("no".into())))
        .interceptor(half(|| panic!("on purpose")))
        .interceptor(mark("2"))
        .interceptor(witness.clone())
        .build()
        .unwrap();
    delivered(&producer.send(to_one("v")).unwrap());
    close(&producer);
    let stored = cluster.records("t", 1).remove(0);
    assert_eq!((stored.value.as_deref(), stored.headers.len()), (Some(&b"v12"[..]), 0));
    witness.assert_each_once(1);
}

/// Where a value lies tells whether it was copied: not even for the sake of a later interceptor,
/// which might fail and spoil it.
#[test]
fn what_an_interceptor_made_of_a_value_is_not_copied_for_the_next() {
    let cluster = one_broker();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let look = || {
        let seen = Arc::clone(&seen);
        Change(move |record: &mut InterceptedRecord<'_>| {
            let value = record.value.as_deref().unwrap();
            seen.lock().unwrap().push((value.as_ptr() as usize, value.len()));
            record.value = None;
            Err("no".into())
        })
    };
    let producer =
        builder(&cluster).interceptor(mark("1")).interceptor(look()).interceptor(look()).build();
    let producer = producer.unwrap();
    delivered(&producer.send(to_one(&"v".repeat(10_000))).unwrap());
    close(&producer);
    let seen = seen.lock().unwrap();
    assert_eq!((seen[0], seen[0].1), (seen[1], 10_001));
}

/// Panics in every acknowledgement.
struct Panics;

impl ProducerInterceptor for Panics {
    type State = ();

    fn on_send(&self, _: &mut InterceptedRecord<'_>) -> Result<(), InterceptorError> {
        Ok(())
    }

    fn on_acknowledgement(&self, _: Option<()>, _: &Acknowledgement<'_>) {
        panic!("on purpose");
    }
}

/// PB-19: what an acknowledgement does wrong is swallowed; the other interceptors are told, and the
/// record's own callback after them, on the threads of callbacks.
#[test]
fn acknowledgements_come_before_the_callback_and_panic_for_themselves() {
    let cluster = one_broker();
    let witness = Witness::default();
    let producer = builder(&cluster)
        .client_id("acks")
        .interceptor(Panics)
        .interceptor(witness.clone())
        .build()
        .unwrap();
    let (told, seen) = mpsc::channel();
    for _ in 0..50 {
        let (told, witness) = (told.clone(), witness.clone());
        let tell = move |fate: Result<&kafka_producer::RecordMetadata, &Error>| {
            told.send((fate.unwrap().offset(), witness.acks().pop())).unwrap();
        };
        producer.send_with(to_one("v"), tell).unwrap();
    }
    producer.flush(LONG).unwrap();
    for number in 0..50 {
        let (offset, last) = seen.try_recv().unwrap();
        let last = last.unwrap();
        let numbered = Some(number as u64 + 1);
        assert_eq!((offset, last.offset, last.number), (Some(number), offset, numbered));
        assert_eq!((last.topic.as_str(), last.partition, last.error), ("t", Some(1), None));
        assert_eq!(last.thread, "acks-callback-0");
    }
    close(&producer);
    witness.assert_each_once(50);
}

/// KP-25: a record that is refused before it is in a batch is told of once, on the thread that
/// sends.
///
/// PB-20: the topic is always told, and the partition if the record had or asked for one.
#[test]
fn a_refused_record_is_told_of_once() {
    let cluster = TestCluster::builder().topic("t", 2).auto_create(false).start();
    let witness = Witness::default();
    let no_choice = |_: &PartitionInput<'_>, _: &ClusterView<'_>| Err(PartitionError::from("none"));
    let producer = builder(&cluster)
        .max_block(ms(50))
        .interceptor(witness.clone())
        .partition_by(no_choice)
        .build()
        .unwrap();
    let refused = producer.try_send(to_one("v")).unwrap_err();
    assert!(matches!(refused.error(), Error::NotReady { .. }), "{refused}");
    producer.wait_ready(&["t"], LONG).unwrap();
    let mut errors = vec![refused.error().to_string()];
    for record in [
        ProducerRecord::new("t", "no partitioner chooses"),
        ProducerRecord::new("a b", "no such name"),
        ProducerRecord::new("missing", "no such topic"),
        to_one("negative").timestamp(-1),
        ProducerRecord::new("t", "no such partition").partition(2),
    ] {
        errors.push(producer.send(record).unwrap_err().to_string());
    }
    let never = |_: Result<&_, &_>| panic!("the callback of a refused record was called");
    errors.push(producer.send_with(to_one("v").partition(-3), never).unwrap_err().to_string());
    close(&producer);
    let refused = producer.send(to_one("closed")).unwrap_err();
    assert!(matches!(refused, Error::Closed), "no interceptor sees it: {refused}");

    let acks = witness.acks();
    let told: Vec<_> = acks.iter().map(|ack| ack.error.clone().unwrap()).collect();
    assert_eq!(told, errors);
    let places: Vec<_> = acks.iter().map(|ack| (&*ack.topic, ack.partition)).collect();
    let expected = [
        ("t", Some(1)),
        ("t", None),
        ("a b", None),
        ("missing", None),
        ("t", Some(1)),
        ("t", Some(2)),
        ("t", Some(-3)),
    ];
    assert_eq!(places, expected);
    let here = std::thread::current().name().unwrap().to_owned();
    assert!(acks.iter().all(|ack| ack.thread == here), "{acks:?}");
    witness.assert_each_once(7);
}

/// KP-23: of a record larger than `max.request.size` interceptors are told with its topic and
/// partition.
#[test]
fn a_record_that_is_too_large_is_told_of_with_its_partition() {
    let cluster = one_broker();
    let witness = Witness::default();
    let producer =
        builder(&cluster).max_request_size(1_000).interceptor(witness.clone()).build().unwrap();
    let error = producer.send(to_one(&"x".repeat(2_000))).unwrap_err();
    assert!(matches!(error, Error::RecordTooLarge { .. }), "{error}");
    let [ack] = &witness.acks()[..] else { panic!("{:?}", witness.acks()) };
    assert_eq!((&*ack.topic, ack.partition), ("t", Some(1)));
    assert_eq!(ack.error, Some(error.to_string()));
    close(&producer);
}

/// KP-24: callbacks and interceptors of a record that failed learn the topic and the partition that
/// it was meant for; the error takes the place of metadata full of placeholders.
#[test]
fn a_record_that_fails_is_told_of_once_with_its_place() {
    let cluster = one_broker();
    cluster.inject(Fault::produce().times(1).error(ErrorCode::INVALID_RECORD));
    let witness = Witness::default();
    let producer = builder(&cluster).interceptor(witness.clone()).build().unwrap();
    let (told, hears) = mpsc::channel();
    let tell = move |fate: Result<&_, &Error>| told.send(fate.map(drop).map_err(Error::clone));
    producer.send_with(to_one("v"), move |fate| tell(fate).unwrap()).unwrap();
    let Err(Error::Delivery(failure)) = hears.recv().unwrap() else { panic!("delivered") };
    assert_eq!(failure.topic_partition.to_string(), "t-1");
    close(&producer);
    let ack = witness.acks().remove(0);
    assert_eq!((&*ack.topic, ack.partition, ack.offset), ("t", Some(1), None));
    witness.assert_each_once(1);
}

#[test]
fn records_that_expire_or_are_given_up_are_told_of_once() {
    for cause in [DeliveryCause::Timeout, DeliveryCause::Closed] {
        let cluster = one_broker();
        cluster.inject(Fault::produce().always().silence());
        let (witness, closes) = (Witness::default(), cause == DeliveryCause::Closed);
        let producer = builder(&cluster)
            .linger(Duration::ZERO)
            .request_timeout(ms(100))
            .delivery_timeout(if closes { LONG } else { ms(300) })
            .interceptor(witness.clone())
            .build()
            .unwrap();
        let sent: Vec<_> = (0..5).map(|_| producer.send(to_one("v")).unwrap()).collect();
        if closes {
            assert_eq!(producer.close(Duration::ZERO).aborted_records, 5);
        }
        for delivery in &sent {
            assert_eq!(failure(delivery).cause, cause);
        }
        producer.close(LONG);
        witness.assert_each_once(5);
        assert!(witness.acks().iter().all(|ack| ack.error.is_some()));
    }
}

/// A callback that is stuck keeps others from being called: a close gives those up, and their
/// interceptors are told as the callbacks are dropped. The records were delivered all the same.
#[test]
fn callbacks_that_are_dropped_at_close_are_told_of_once() {
    let cluster = TestCluster::builder().topic("t", 4).start();
    let witness = Witness::default();
    let producer = builder(&cluster).batch_size(1).interceptor(witness.clone()).build().unwrap();
    let (begun, begins) = mpsc::channel();
    let (free, stuck) = mpsc::channel::<()>();
    let hold = move |_: Result<&_, &_>| {
        begun.send(()).unwrap();
        let _ = stuck.recv();
    };
    producer.send_with(to_one("stuck"), hold).unwrap();
    begins.recv_timeout(LONG).unwrap();
    for partition in [0, 2, 3] {
        delivered(&producer.send(ProducerRecord::new("t", "v").partition(partition)).unwrap());
    }
    let report = producer.close(ms(300));
    assert_eq!((report.callbacks_left, report.threads_stuck), (4, 1));
    let insight = witness.clone();
    free.send(()).unwrap();
    drop(producer);
    let until = std::time::Instant::now() + LONG;
    while insight.acks().len() < 4 && std::time::Instant::now() < until {
        std::thread::yield_now();
    }
    witness.assert_each_once(4);
    let fates = witness.acks().into_iter().skip(1);
    let mut fates: Vec<_> = fates.map(|ack| (ack.partition, ack.offset, ack.error)).collect();
    fates.sort();
    assert_eq!(fates, [0, 2, 3].map(|partition| (Some(partition), Some(0), None)));
}

#[test]
fn acknowledgements_count_as_callbacks() {
    let cluster = one_broker();
    let (free, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    struct Holds(Mutex<mpsc::Receiver<()>>);
    impl ProducerInterceptor for Holds {
        type State = ();

        fn on_send(&self, _: &mut InterceptedRecord<'_>) -> Result<(), InterceptorError> {
            Ok(())
        }

        fn on_acknowledgement(&self, _: Option<()>, ack: &Acknowledgement<'_>) {
            if ack.result.is_ok() {
                let _ = self.0.lock().unwrap().recv();
            }
        }
    }
    let producer = builder(&cluster)
        .callback_max_pending(2)
        .max_block(ms(50))
        .batch_size(1)
        .interceptor(Holds(held))
        .build()
        .unwrap();
    // One is held in the first acknowledgement, whose slot is free by then; two more wait for it.
    let sent = (0..20).map(|_| producer.send(to_one("v"))).find_map(Result::err);
    assert!(matches!(sent, Some(Error::CallbackBacklogFull { .. })), "{sent:?}");
    let left = producer.flush(ms(20)).unwrap_err();
    assert!(matches!(left, Error::FlushTimeout { callbacks: 1.., .. }), "{left}");
    drop(free);
    close(&producer);
}

/// A partitioner that counts its end.
struct Counted(Arc<AtomicUsize>);

impl Partitioner for Counted {
    fn partition(
        &self,
        _: &PartitionInput<'_>,
        _: &ClusterView<'_>,
    ) -> Result<i32, PartitionError> {
        Ok(0)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// KP-18: an interceptor is told of the close once, however often the producer is closed, and the
/// partitioner is dropped once, with the producer.
#[test]
fn the_users_parts_end_once() {
    let cluster = one_broker();
    let (witness, dropped) = (Witness::default(), Arc::new(AtomicUsize::new(0)));
    let building =
        builder(&cluster).interceptor(witness.clone()).partition_by(Counted(Arc::clone(&dropped)));
    let producer = building.build().unwrap();
    drop(building);
    producer.send(ProducerRecord::new("t", "v")).unwrap();
    assert_eq!(witness.closed.load(Ordering::SeqCst), 0);
    close(&producer);
    assert_eq!(witness.acks().len(), 1, "the last acknowledgement comes before the end");
    close(&producer);
    assert_eq!(witness.closed.load(Ordering::SeqCst), 1);
    assert_eq!(dropped.load(Ordering::SeqCst), 0);
    drop(producer);
    assert_eq!((witness.closed.load(Ordering::SeqCst), dropped.load(Ordering::SeqCst)), (1, 1));
}

/// KP-11: headers are the record's own until it is sent, and nothing changes them afterwards: not
/// what interceptors add on the way, should the record be refused and sent again.
#[test]
fn a_record_that_is_refused_keeps_its_headers() {
    let cluster = one_broker();
    let add = Change(|record: &mut InterceptedRecord<'_>| {
        record.headers.push("added", b"once");
        Ok(())
    });
    let producer = builder(&cluster).interceptor(add).build().unwrap();
    let mut record = to_one("v").header("own", "1");
    record.header_list_mut().push("late", b"2");
    let refused = producer.try_send(record).unwrap_err();
    let (record, _) = refused.into_parts();
    assert_eq!(record.header_list().len(), 2);
    delivered(&producer.send(record).unwrap());
    let lent = TopicRecord::new("v").partition(1).header("own", "1");
    let topic = producer.topic("t").unwrap();
    (0..2).for_each(|_| drop(delivered(&topic.try_send(&lent).unwrap())));
    close(&producer);
    let names = |record: kafka_producer::testing::StoredRecord| {
        record.headers.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    let stored: Vec<_> = cluster.records("t", 1).into_iter().map(names).collect();
    assert_eq!(stored[0], ["own", "late", "added"]);
    assert_eq!(stored[1..], [["own", "added"], ["own", "added"]]);
}

#[test]
fn with_inline_callbacks_acknowledgements_run_where_those_do() {
    let cluster = one_broker();
    let witness = Witness::default();
    let producer: KafkaProducer = builder(&cluster)
        .client_id("inline")
        .callbacks(Callbacks::Inline)
        .interceptor(witness.clone())
        .build()
        .unwrap();
    producer.send(to_one("v")).unwrap();
    close(&producer);
    assert_eq!(witness.acks()[0].thread, "inline-sender");
}

//! What a send asks of the cluster before its record has a place: once, and as long as it takes.

use kafka_producer::testing::{Api, Fault, TestCluster};
use kafka_producer::{Error, ErrorCode, ProducerRecord};

use crate::common::{LONG, assert_took, builder, close, delivered, ms, timed};

/// KP-01.
#[test]
fn an_unknown_topic_is_asked_for_once_and_a_known_one_not_at_all() {
    let cluster = TestCluster::builder().topic("t", 2).topic("u", 1).start();
    let producer = builder(&cluster).build().unwrap();
    producer.wait_ready(&[], LONG).unwrap();
    let asked = || cluster.counters().requests(Api::Metadata);
    let before = asked();
    delivered(&producer.send(ProducerRecord::new("t", "v")).unwrap());
    assert_eq!(asked(), before + 1);
    // One by one, so that any further request would have its answer meanwhile.
    for i in 0..100 {
        delivered(&producer.send(ProducerRecord::new("t", "v").partition(i % 2)).unwrap());
        assert_eq!(producer.partitions_for("t").unwrap().len(), 2);
    }
    assert_eq!(asked(), before + 1);
    delivered(&producer.send(ProducerRecord::new("u", "v")).unwrap());
    assert_eq!(asked(), before + 2);
    close(&producer);
}

/// KP-04: it is asked for again until it is there.
#[test]
fn a_partition_that_is_not_there_yet_is_waited_for() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster).max_block(LONG).build().unwrap();
    producer.wait_ready(&["t"], LONG).unwrap();
    let delivery = std::thread::scope(|scope| {
        let sending = scope.spawn(|| producer.send(ProducerRecord::new("t", "v").partition(3)));
        let asked = cluster.counters().requests(Api::Metadata);
        assert!(cluster.wait_for_requests(Api::Metadata, asked + 3, LONG));
        assert!(!sending.is_finished());
        assert!(cluster.add_partitions("t", 4));
        sending.join().unwrap().unwrap()
    });
    assert_eq!((delivery.partition(), delivered(&delivery).offset()), (3, Some(0)));
}

/// KP-09: what the wait for metadata took, the wait for memory has no more.
#[test]
fn one_budget_covers_the_waits_for_metadata_and_for_memory() {
    let cluster = TestCluster::builder().auto_create(false).topic("t", 1).start();
    let producer = builder(&cluster)
        .buffer_memory(5_000)
        .batch_size(1_000)
        .max_block(ms(4_000))
        .build()
        .unwrap();
    producer.wait_ready(&["t"], LONG).unwrap();
    let value = [b'x'; 900];
    let code = ErrorCode::NOT_ENOUGH_REPLICAS;
    let refusing = cluster.inject(Fault::produce().always().error(code));
    while producer.try_send(ProducerRecord::new("t", &value)).is_ok() {}
    let asked = cluster.counters().requests(Api::Metadata);
    let (sent, time) = timed(|| {
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| producer.send(ProducerRecord::new("u", &value)));
            let begun = std::time::Instant::now();
            assert!(cluster.wait_for_requests(Api::Metadata, asked + 1, LONG));
            while begun.elapsed() < ms(2_500) {
                std::thread::yield_now();
            }
            assert!(cluster.create_topic("u", 1));
            sending.join().unwrap()
        })
    });
    assert!(matches!(sent, Err(Error::BufferExhausted { .. })), "{sent:?}");
    // With a budget for each of the two it would take 6.5 s.
    assert!(time >= ms(4_000) && time < ms(6_000), "{time:?}");
    cluster.remove_fault(refusing);
    close(&producer);
}

/// KP-27.
#[test]
fn a_topic_that_the_brokers_call_invalid_is_told_of_at_once() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let code = ErrorCode::INVALID_TOPIC_EXCEPTION;
    let fault = cluster.inject(Fault::metadata().topic("t").always().error(code));
    let producer = builder(&cluster).max_block(LONG).build().unwrap();
    for _ in 0..2 {
        let (refused, time) = timed(|| producer.send(ProducerRecord::new("t", "v")));
        let Err(Error::InvalidTopic { topic, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(&*topic, "t");
        assert!(time < LONG / 3, "{time:?}");
    }
    cluster.remove_fault(fault);
    delivered(&producer.send(ProducerRecord::new("t", "v")).unwrap());
}

/// KP-06: the call's time, and the brokers' reason.
#[test]
fn the_partitions_of_a_topic_that_does_not_exist_are_waited_for() {
    let cluster = TestCluster::builder().auto_create(false).topic("other", 1).start();
    let producer = builder(&cluster).max_block(ms(300)).build().unwrap();
    let (refused, time) = timed(|| producer.partitions_for("t"));
    assert_took(time, ms(300));
    let Err(Error::MetadataTimeout { topic, cause, .. }) = refused else { panic!("{refused:?}") };
    assert!(&*topic == "t" && cause.contains("UNKNOWN_TOPIC_OR_PARTITION"), "{cause}");
    assert!(cluster.create_topic("t", 3));
    assert_eq!(producer.partitions_for("t").unwrap().len(), 3);
}

/// One call's own budget for all that it waits for.
#[test]
fn a_send_with_a_time_of_its_own_keeps_to_it() {
    let cluster = TestCluster::builder().auto_create(false).topic("t", 1).start();
    let producer = builder(&cluster)
        .buffer_memory(4_000)
        .batch_size(1_000)
        .max_block(LONG * 4)
        .build()
        .unwrap();
    producer.wait_ready(&["t"], LONG).unwrap();
    let value = [b'x'; 900];
    let unknown = || ProducerRecord::new("u", &value);
    let (refused, time) = timed(|| producer.send_timeout(unknown(), ms(300)));
    assert_took(time, ms(300));
    assert!(matches!(refused, Err(Error::MetadataTimeout { .. })), "{refused:?}");
    cluster.freeze_broker(1);
    while producer.try_send(ProducerRecord::new("t", &value)).is_ok() {}
    let (refused, time) =
        timed(|| producer.send_timeout(ProducerRecord::new("t", &value), ms(300)));
    assert_took(time, ms(300));
    assert!(matches!(refused, Err(Error::BufferExhausted { .. })), "{refused:?}");
    cluster.thaw_broker(1);
    delivered(&producer.send_timeout(ProducerRecord::new("t", &value), LONG).unwrap());
}

/// How often this thread has waited for anything.
fn waits() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

/// Whatever the network does: nobody listens, the name server hangs, a topic is unknown, the
/// broker answers nothing.
#[test]
fn a_send_that_never_waits_returns_at_once_in_any_world() {
    let cluster = TestCluster::builder().auto_create(false).topic("t", 1).start();
    let frozen = builder(&cluster).buffer_memory(20_000).build().unwrap();
    frozen.wait_ready(&["t"], LONG).unwrap();
    cluster.freeze_broker(1);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap().to_string();
    let elsewhere = ["127.0.0.1:1", "no-such-host.invalid:9092", &silent]
        .map(|servers| crate::common::impatient(servers).build().unwrap());
    for producer in [&frozen].into_iter().chain(&elsewhere) {
        const CALLS: u32 = 10_000;
        let waits_before = waits();
        let times = (0..CALLS).map(|i| {
            let topic = if i % 2 == 0 { "t" } else { "unknown" };
            timed(|| producer.try_send(ProducerRecord::new(topic, "value")).is_ok()).1
        });
        let (sum, longest) =
            times.fold((ms(0), ms(0)), |(sum, longest), time| (sum + time, longest.max(time)));
        assert!(sum < ms(1_000), "{CALLS} calls took {sum:?}");
        assert!(longest < ms(1_000), "{longest:?}");
        // A busy machine interrupts calls. How often the thread gave its core away by itself tells
        // more: now and then it meets another at a lock; what would wait, waits in every call.
        let waits = waits() - waits_before;
        assert!(waits <= u64::from(CALLS) / 100, "waited {waits} times in {CALLS} calls");
        producer.close(ms(0));
    }
}

#[test]
fn a_topic_is_not_created_for_a_producer_that_does_not_want_it() {
    let cluster = TestCluster::start();
    let send = |allow| {
        let producer = builder(&cluster).max_block(ms(300)).allow_auto_create_topics(allow);
        let producer = producer.build().unwrap();
        let sent = producer.send(ProducerRecord::new("new", "v")).map(|d| drop(delivered(&d)));
        close(&producer);
        sent
    };
    let error = send(false).unwrap_err();
    assert!(error.to_string().contains("UNKNOWN_TOPIC_OR_PARTITION"), "{error}");
    assert_eq!(cluster.leader("new", 0), None);
    send(true).unwrap();
}

#[test]
fn a_topic_that_does_not_exist_may_be_waited_for_less_long_than_another() {
    let cluster = TestCluster::builder().auto_create(false).start();
    let producer = builder(&cluster).max_block(LONG).unknown_topic_timeout(ms(100));
    let producer = producer.build().unwrap();
    for _ in 0..2 {
        let (refused, time) = timed(|| producer.send(ProducerRecord::new("t", "v")).map(drop));
        let error = refused.unwrap_err();
        assert!(matches!(error, Error::MetadataTimeout { .. }), "{error}");
        assert_took(time, ms(100));
    }
    cluster.create_topic("t", 1);
    delivered(&producer.send(ProducerRecord::new("t", "v")).unwrap());
    // Where nobody says that it does not exist, max.block.ms counts.
    let fault = cluster.inject(Fault::metadata().times(1).delay(ms(400)));
    cluster.create_topic("slow", 1);
    delivered(&producer.send(ProducerRecord::new("slow", "v")).unwrap());
    assert_eq!(cluster.fired(fault), 1);
    close(&producer);
}

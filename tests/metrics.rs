//! The producer's metrics, as a program sees them.

mod common;

use std::sync::mpsc;
use std::time::Duration;

use common::{LONG, builder, close, delivered, ms};
use kafka_producer::testing::{Fault, TestCluster};
use kafka_producer::{
    Error, ErrorCode, KafkaProducer, Metrics, ProducerRecord, RecordingLevel, TopicMetrics,
};

fn topic<'a>(metrics: &'a Metrics, name: &str) -> &'a TopicMetrics {
    metrics.topics.iter().find(|topic| &*topic.name == name).expect("a topic's metrics")
}

#[test]
fn what_was_sent_shows_in_all_three_groups() {
    let cluster = TestCluster::start();
    let producer = builder(&cluster).client_id("shop").build().unwrap();
    assert_eq!(producer.metrics().topics, []);
    for _ in 0..3 {
        delivered(&producer.send(ProducerRecord::new("orders", "paid").key("k1")).unwrap());
    }
    delivered(&producer.send(ProducerRecord::new("returns", "r")).unwrap());
    let metrics = producer.metrics();
    let all = &metrics.producer;
    assert_eq!((&*metrics.client_id, all.record_send.total), ("shop", 4));
    assert!(metrics.start_time_ms > 1_600_000_000_000);
    assert_eq!(topic(&metrics, "orders").record_send.total, 3);
    assert_eq!(topic(&metrics, "returns").record_send.total, 1);
    // The cluster's one broker, met as a bootstrap server first.
    let [node] = &metrics.nodes[..] else { panic!("not one broker: {:?}", metrics.nodes) };
    let counters = cluster.counters();
    assert!(node.traffic.request.total >= 4, "{node:?}");
    assert_eq!(
        all.traffic.outgoing_byte.total,
        counters.request_bytes() + 4 * all.traffic.request.total
    );
    assert!(all.record_send.rate > 0.0 && node.request_latency.avg > Some(0.0));
    assert!(all.delivery_time_percentiles.p50 <= all.delivery_time_percentiles.p999);
    assert!(all.metadata_age.is_some_and(|age| age < LONG.as_secs_f64()));
    assert_eq!((all.queued_records, all.oldest_record_age), (0, None));
    let text = metrics.to_prometheus();
    let line = "kafka_producer_topic_record_send_total{client_id=\"shop\",topic=\"orders\"} 3\n";
    assert!(text.contains(line), "{text}");
    close(&producer);
    let all = producer.metrics().producer;
    assert_eq!(all.buffer_available_bytes, all.buffer_total_bytes);
}

/// KP-22, KP-42: the times that calls wait are summed up, each call adding to them; a flush with
/// nothing to wait for adds next to nothing.
#[test]
fn the_times_of_flushes_and_of_waits_for_metadata_add_up() {
    let cluster = TestCluster::start();
    let producer = builder(&cluster).build().unwrap();
    let flushes = |producer: &KafkaProducer| producer.metrics().producer.flush_time_ns_total;
    let waits = |producer: &KafkaProducer| producer.metrics().producer.metadata_wait_time_ns_total;
    assert_eq!((flushes(&producer), waits(&producer)), (0, 0));
    producer.flush(LONG).unwrap();
    let first = flushes(&producer);
    assert!(first > 0 && first < LONG.as_nanos() as u64 / 10, "{first}");
    cluster.inject(Fault::produce().delay_response(ms(50)));
    producer.send(ProducerRecord::new("a", "x")).unwrap();
    producer.flush(LONG).unwrap();
    let second = flushes(&producer);
    assert!(second >= first + 50_000_000, "{first}, {second}");
    producer.flush(LONG).unwrap();
    assert!(flushes(&producer) > second, "a short one adds to a long one");
    let one = waits(&producer);
    assert!(one > 0);
    producer.send(ProducerRecord::new("a", "x")).unwrap();
    assert_eq!(waits(&producer), one, "what is known is not waited for");
    producer.partitions_for("b").unwrap();
    assert!(waits(&producer) > one);
    close(&producer);
}

/// KP-43: a snapshot is registered nowhere, so that a close leaves nothing behind; what was counted
/// can still be read.
#[test]
fn the_last_figures_can_be_read_after_the_close() {
    let cluster = TestCluster::start();
    let producer = builder(&cluster).build().unwrap();
    producer.send(ProducerRecord::new("t", "x")).unwrap();
    close(&producer);
    let metrics = producer.metrics();
    assert_eq!(topic(&metrics, "t").record_send.total, 1);
    assert_eq!((metrics.producer.connection_count, metrics.producer.requests_in_flight), (0, 0));
    assert_eq!(metrics.producer.connection_creation.total, metrics.producer.connection_close.total);
    let other = builder(&cluster).build().unwrap();
    assert_eq!(other.metrics().topics, [], "nobody else's");
}

/// KP-47: the level is INFO unless it is set, and decides what is recorded.
#[test]
fn the_recording_level_decides_on_each_brokers_percentiles() {
    let cluster = TestCluster::start();
    for (level, recorded) in [
        (None, false),
        (Some(RecordingLevel::Info), false),
        (Some(RecordingLevel::Debug), true),
        (Some(RecordingLevel::Trace), true),
    ] {
        let builder = builder(&cluster);
        let builder = match level {
            Some(level) => builder.metrics_recording_level(level),
            None => builder,
        };
        let producer = builder.build().unwrap();
        delivered(&producer.send(ProducerRecord::new("t", "x")).unwrap());
        let node = producer.metrics().nodes[0].clone();
        assert_eq!(node.request_latency_percentiles.p99.is_some(), recorded, "{level:?}");
        assert!(node.request_latency.max.is_some());
        close(&producer);
    }
}

#[test]
fn waits_for_memory_are_counted_and_the_memory_is_whole_after_them() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster)
        .buffer_memory(2_000)
        .batch_size(1_000)
        .max_block(ms(300))
        .build()
        .unwrap();
    producer.partitions_for("t").unwrap();
    let value = [b'x'; 900];
    let slow = cluster.inject(Fault::produce().always().silence());
    let send = || producer.send(ProducerRecord::new("t", &value[..]));
    let sent = [send().unwrap(), send().unwrap()];
    assert!(matches!(send(), Err(Error::BufferExhausted { .. })));
    let full = producer.metrics().producer;
    assert_eq!((full.buffer_total_bytes, full.buffer_exhausted.total), (2_000, 1));
    assert!(full.buffer_available_bytes < 1_000, "{}", full.buffer_available_bytes);
    assert!(full.bufferpool_wait_time_ns_total >= 300_000_000);
    assert!(full.bufferpool_wait_ratio > 0.3 / 61.0 && full.oldest_record_age > Some(300.0));
    assert_eq!((full.record_error.total, full.record_refused.total), (1, 1));
    // A call that never waits is refused too, and that is no error.
    let refused = producer.try_send(ProducerRecord::new("t", &value[..]));
    assert!(matches!(refused.map_err(Error::from), Err(Error::BufferExhausted { .. })));
    let full = producer.metrics().producer;
    assert_eq!((full.record_error.total, full.record_refused.total), (1, 2));
    cluster.remove_fault(slow);
    drop(sent);
    assert!(!producer.close(ms(200)).is_clean(), "the first two were never answered");
    let end = producer.metrics().producer;
    assert_eq!(end.buffer_available_bytes, 2_000);
    assert_eq!((end.record_error.total, end.waiting_threads), (3, 0));
}

#[test]
fn a_backlog_of_callbacks_shows_while_it_is_there() {
    let cluster = TestCluster::start();
    let producer = builder(&cluster).build().unwrap();
    let (begun, has_begun) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let hold = move || {
        begun.send(()).unwrap();
        let _ = may_go.recv_timeout(LONG);
    };
    producer.send_with(ProducerRecord::new("t", "a"), move |_| hold()).unwrap();
    producer.send_with(ProducerRecord::new("t", "b"), |_| panic!("on purpose")).unwrap();
    has_begun.recv_timeout(LONG).unwrap();
    let handle = producer.send(ProducerRecord::new("t", "c")).unwrap();
    delivered(&handle);
    let during = producer.metrics().producer;
    assert!((1..=2).contains(&during.callback_backlog), "{}", during.callback_backlog);
    assert_eq!((during.callbacks_pending, during.callback_panic_total), (1, 0));
    drop(go);
    close(&producer);
    let after = producer.metrics().producer;
    assert_eq!((after.callback_backlog, after.callbacks_pending), (0, 0));
    assert_eq!((after.callback_panic_total, after.callback_dropped_total), (1, 0));
}

#[test]
fn retries_tell_their_cause_and_throttling_its_time() {
    let cluster = TestCluster::start();
    let producer = builder(&cluster).build().unwrap();
    cluster.inject(Fault::produce().error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    delivered(&producer.send(ProducerRecord::new("t", "x")).unwrap());
    cluster.inject(Fault::produce().throttle(ms(20)));
    delivered(&producer.send(ProducerRecord::new("t", "x")).unwrap());
    let metrics = producer.metrics().producer;
    assert_eq!(metrics.retries_by_cause, [("NOT_LEADER_OR_FOLLOWER", 1)].into());
    assert_eq!((metrics.record_retry.total, metrics.throttle_time_ms_total), (1, 20));
    assert_eq!(metrics.produce_throttle_time.max, Some(20.0));
    close(&producer);
}

#[test]
fn windows_are_as_long_as_they_are_set_to_be() {
    let cluster = TestCluster::start();
    let builder = builder(&cluster).metrics_num_samples(3);
    let producer = builder.metrics_sample_window(Duration::from_secs(1000)).build().unwrap();
    delivered(&producer.send(ProducerRecord::new("t", "x")).unwrap());
    // Two samples are taken as given, beside what there is of the first.
    let rate = producer.metrics().producer.record_send.rate;
    assert!((1.0 / 2030.0..=1.0 / 2000.0).contains(&rate), "{rate}");
    close(&producer);
}

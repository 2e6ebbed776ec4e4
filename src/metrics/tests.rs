//! The catalogue against Kafka's own, and each of its rows against what was recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::time::MonoTime;
use crate::types::NodeId;

/// The metrics of Kafka's Java client 4.3.1, as its `KafkaProducer::metrics` lists them.
const OF_JAVA: &str = "
    batch-size-avg batch-size-max batch-split-rate batch-split-total buffer-available-bytes
    buffer-exhausted-rate buffer-exhausted-total buffer-total-bytes bufferpool-wait-ratio
    bufferpool-wait-time-ns-total compression-rate-avg connection-close-rate
    connection-close-total connection-count connection-creation-rate connection-creation-total
    failed-authentication-rate failed-authentication-total failed-reauthentication-rate
    failed-reauthentication-total flush-time-ns-total incoming-byte-rate incoming-byte-total
    io-ratio io-time-ns-avg io-time-ns-total io-wait-ratio io-wait-time-ns-avg
    io-wait-time-ns-total metadata-age metadata-wait-time-ns-total network-io-rate
    network-io-total outgoing-byte-rate outgoing-byte-total produce-throttle-time-avg
    produce-throttle-time-max reauthentication-latency-avg reauthentication-latency-max
    record-error-rate record-error-total record-queue-time-avg record-queue-time-max
    record-retry-rate record-retry-total record-send-rate record-send-total record-size-avg
    record-size-max records-per-request-avg request-latency-avg request-latency-max request-rate
    request-size-avg request-size-max request-total requests-in-flight response-rate
    response-total select-rate select-total successful-authentication-no-reauth-total
    successful-authentication-rate successful-authentication-total
    successful-reauthentication-rate successful-reauthentication-total txn-abort-time-ns-total
    txn-begin-time-ns-total txn-commit-time-ns-total txn-init-time-ns-total
    txn-prepare-time-ns-total txn-send-offsets-time-ns-total waiting-threads";

const OF_JAVAS_NODES: &str = "
    incoming-byte-rate incoming-byte-total outgoing-byte-rate outgoing-byte-total
    request-latency-avg request-latency-max request-rate request-size-avg request-size-max
    request-total response-rate response-total";

const OF_JAVAS_TOPICS: &str = "
    byte-rate byte-total compression-rate record-error-rate record-error-total record-retry-rate
    record-retry-total record-send-rate record-send-total";

/// What this crate has not: SASL, transactions, compression.
const OUT_OF_PLACE: [&str; 4] = ["authentication", "reauth", "txn-", "compression-"];

fn names(metrics: &Metrics, group: &str) -> BTreeSet<&'static str> {
    metrics.iter().filter(|metric| metric.group == group).map(|metric| metric.name).collect()
}

const fn at(ms: u64) -> MonoTime {
    MonoTime::from_nanos(ms * 1_000_000)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Everything recorded once, each with a number of its own.
fn snapshot() -> Metrics {
    let settings = SensorSettings { detailed: true, ..SensorSettings::default() };
    let sensors = SharedSensors::new(settings);
    let now = at(10_000);
    sensors.with(|sensors| record_network(sensors, now));
    sensors.with(|sensors| record_batches(sensors, now));
    sensors.with(|sensors| record_failures(sensors, now));
    let queued = |records, bytes| Queued { records, bytes, oldest: None };
    let gauges = Gauges {
        queues: [("t".into(), queued(149, 151)), ("u".into(), queued(8, 9))].into(),
        buffer_total: 163,
        buffer_available: 167,
        waiting_threads: 169,
        callbacks_pending: 173,
        callback_backlog: 179,
        callback_panics: 181,
        callbacks_dropped: 191,
    };
    let mut metrics = sensors.measure(&gauges, at(10_500));
    metrics.client_id = "c".into();
    metrics
}

fn record_network(s: &mut Sensors, now: MonoTime) {
    let traffic = |base: u64| Traffic {
        sent: base + 1,
        received: base + 2,
        requests: base + 3,
        request_bytes: 6 * base + 15,
        largest_request: base + 5,
        responses: base + 6,
        operations: base + 7,
    };
    s.on_connected(NodeId(3), now);
    for _ in 0..52 {
        s.on_connected(NodeId(4), now);
    }
    s.on_closed(59, now);
    s.on_turn(61, 67);
    s.on_traffic(Some(NodeId(3)), &traffic(10_000), now);
    s.on_traffic(None, &traffic(20_000), now);
    s.on_select(ms(71), ms(73), now);
    s.on_select(ms(0), ms(0), now);
}

fn record_batches(s: &mut Sensors, now: MonoTime) {
    let batch = BatchSent {
        records: 4,
        bytes: 6101,
        record_bytes: 6004,
        largest_record: 1700,
        waited: ms(9),
        is_first: false,
    };
    let topic = "t".into();
    s.on_metadata(at(10_000 - 79));
    s.on_request(1, at(10_000 - 83), 89, now);
    s.on_request(2, now, 97, now);
    s.on_batch_sent(batch, now);
    s.on_batch_sent(BatchSent { bytes: 8101, waited: ms(14), ..batch }, now);
    s.on_topic_sent(&topic, 101, 103, now);
    for (records, milli) in [(989, 20), (8, 28), (3, 36)] {
        s.on_delivered(records, ms(milli), now);
        let batch = BatchSent { records, waited: ms(milli * 30), is_first: true, ..batch };
        s.on_batch_sent(batch, now);
    }
    for tag in 10..1010 {
        let latency = ms(match tag {
            10..20 => 430,
            20..60 => 390,
            _ => 170,
        });
        let node = NodeId(if tag % 2 == 0 { 3 } else { 4 });
        s.on_request_end(tag, node, Some(latency * if tag == 11 { 3 } else { 1 }), 1, now);
    }
}

fn record_failures(s: &mut Sensors, now: MonoTime) {
    let topic = "t".into();
    s.on_retry(&topic, 107, "A", now);
    s.on_retry(&"u".into(), 6, "B", now);
    s.on_failed(&topic, 109, now);
    s.on_failed(&"u".into(), 20, now);
    (0..7).for_each(|_| s.on_split(now));
    (0..3).for_each(|_| s.on_loss());
    s.on_throttle(NodeId(3), 127, now);
    s.on_throttle(NodeId(4), 132, now);
    s.on_buffer_wait(ms(131), true, now);
    (0..12).for_each(|_| s.on_buffer_wait(Duration::ZERO, true, now));
    (0..17).for_each(|_| s.on_refused(false, now));
    s.on_flush(ms(137));
    s.on_metadata_wait(ms(139));
}

/// SND-75: no metric of Kafka's own client is missing that could have a value here.
#[test]
fn every_metric_of_kafkas_client_is_there() {
    let metrics = snapshot();
    for (group, theirs) in [
        ("producer-metrics", OF_JAVA),
        ("producer-node-metrics", OF_JAVAS_NODES),
        ("producer-topic-metrics", OF_JAVAS_TOPICS),
    ] {
        let ours = names(&metrics, group);
        for name in theirs.split_whitespace() {
            let expected = !OUT_OF_PLACE.iter().any(|part| name.contains(part));
            assert_eq!(ours.contains(name), expected, "{group}: {name}");
        }
    }
}

#[test]
fn each_metric_has_one_row_with_a_meaning_and_a_value_of_its_own() {
    let metrics = snapshot();
    let (mut keys, mut values) = (BTreeSet::new(), BTreeMap::new());
    for metric in metrics.iter() {
        let key = format!("{} {} {:?}", metric.group, metric.name, metric.tags);
        assert!(keys.insert(key.clone()), "twice: {key}");
        assert_eq!(metric.tags[0], ("client-id", "c".into()), "{key}");
        assert!(metric.description.ends_with('.'), "{key}");
        let counts = metric.name.ends_with("-total");
        assert_eq!(metric.kind == MetricKind::Counter, counts, "{key}");
        let of_one = metric.tags.iter().all(|(_, of)| !matches!(&**of, "node-4" | "u"));
        // These repeat sums or other distributions of the same numbers.
        let repeats = ["record-retry-by-cause-total", "request-latency-p"];
        let repeats = repeats.iter().any(|name| metric.name.starts_with(name));
        if metric.group == "app-info" || repeats || !of_one {
            continue;
        }
        assert!(metric.value > 0.0, "{key}: nothing was recorded");
        let other = values.insert(metric.value.to_bits(), key.clone());
        assert_eq!(other, None, "{key} is {} too", metric.value);
    }
}

#[test]
fn figures_stand_under_their_names() {
    let metrics = snapshot();
    let value = |group: &str, name: &str| {
        let mut found = metrics.iter().filter(|m| {
            let of_other = m.tags.iter().any(|(_, of)| matches!(&**of, "node-4" | "u"));
            m.group == group && m.name == name && !of_other
        });
        found.next().unwrap_or_else(|| panic!("{name}")).value
    };
    let is = |group: &str, name: &str, expected: f64| {
        let value = value(group, name);
        assert!((value / expected - 1.0).abs() < 1e-9, "{name}: {value}, not {expected}");
    };
    let of_all = |name, expected| is("producer-metrics", name, expected);
    // Half a second after the start of the first sample, one more is taken as given.
    of_all("record-send-total", 186.0);
    of_all("record-send-rate", 186.0 / 30.5);
    of_all("records-per-request-avg", 93.0);
    of_all("produce-throttle-time-avg", 129.5);
    of_all("produce-throttle-time-max", 132.0);
    of_all("bufferpool-wait-ratio", 0.131 / 30.5);
    of_all("bufferpool-wait-time-ns-total", 131e6);
    of_all("io-wait-time-ns-avg", 35.5e6);
    of_all("io-time-ns-total", 73e6);
    of_all("io-ratio", 0.073 / 30.5);
    of_all("metadata-age", 0.579);
    of_all("oldest-record-age", 583.0);
    of_all("outgoing-byte-total", 10_001.0 + 20_001.0);
    of_all("queued-bytes", 160.0);
    of_all("flush-time-ns-total", 137e6);
    is("producer-node-metrics", "request-total", 10_003.0);
    is("producer-node-metrics", "throttle-time-ms-total", 127.0);
    is("producer-topic-metrics", "byte-total", 103.0);
    is("producer-topic-metrics", "record-error-total", 109.0);
    let by_cause = metrics.iter().filter(|m| m.name == "record-retry-by-cause-total");
    let by_cause: Vec<_> = by_cause.map(|m| (m.tags[1].1.to_string(), m.value)).collect();
    assert_eq!(by_cause, [("A".to_owned(), 107.0), ("B".to_owned(), 6.0)]);
    let tags = |group| metrics.iter().find(|m| m.group == group).map(|m| m.tags[1].clone());
    assert_eq!(tags("producer-node-metrics"), Some(("node-id", "node-3".into())));
    assert_eq!(tags("producer-topic-metrics"), Some(("topic", "t".into())));
}

#[test]
fn percentiles_of_a_broker_are_recorded_from_debug_on() {
    let measure = |detailed| {
        let sensors = SharedSensors::new(SensorSettings { detailed, ..SensorSettings::default() });
        sensors.with(|s| {
            s.on_connected(NodeId(1), MonoTime::ZERO);
            s.on_request_end(1, NodeId(1), Some(Duration::from_millis(5)), 1, MonoTime::ZERO);
        });
        sensors.measure(&Gauges::default(), MonoTime::ZERO).nodes[0].clone()
    };
    assert_eq!(measure(false).request_latency_percentiles, Percentiles::default());
    let detailed = measure(true).request_latency_percentiles;
    assert!(detailed.p50.is_some_and(|p50| (5.0..5.5).contains(&p50)), "{detailed:?}");
    assert_eq!(measure(false).request_latency, measure(true).request_latency);
}

//! Each metric's group, name, unit and meaning, and where its value stands in a snapshot.
//!
//! Names and groups are those of Kafka's Java client 4.3.1 where it has the metric. Left out are
//! those of what this crate has not: authentication (SASL), transactions, compression, JMX.

use std::borrow::Cow;
use std::iter::once;

use super::figures::Average;
use super::snapshot::{Metrics, NodeMetrics, ProducerMetrics, TopicMetrics, TrafficMetrics};

/// One metric of a snapshot. Made by [`Metrics::iter`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Metric<'a> {
    /// `producer-metrics`, `producer-node-metrics`, `producer-topic-metrics` or `app-info`.
    pub group: &'static str,
    /// The name, as Kafka's clients write it: `record-send-rate`.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub description: &'static str,
    /// What it counts or is measured in: `records`, `bytes`, `ms`.
    pub unit: &'static str,
    /// How it moves.
    pub kind: MetricKind,
    /// What it is of: `client-id` always, and `node-id`, `topic`, `cause` or `version`.
    pub tags: Vec<(&'static str, Cow<'a, str>)>,
    /// The value; not a number where nothing was recorded in the window.
    pub value: f64,
}

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// It only grows. A topic's begins anew once the metadata has forgotten the topic, a broker's
    /// once the broker has left the cluster.
    Counter,
    /// It goes up and down.
    Gauge,
}

pub(super) const PRODUCER_GROUP: &str = "producer-metrics";
pub(super) const NODE_GROUP: &str = "producer-node-metrics";
pub(super) const TOPIC_GROUP: &str = "producer-topic-metrics";
pub(super) const APP_GROUP: &str = "app-info";

/// A metric, and its value in a part of the snapshot.
struct Row<T> {
    name: &'static str,
    unit: &'static str,
    kind: MetricKind,
    about: &'static str,
    value: fn(&T) -> f64,
}

const fn gauge<T>(
    name: &'static str,
    unit: &'static str,
    about: &'static str,
    value: fn(&T) -> f64,
) -> Row<T> {
    Row { name, unit, kind: MetricKind::Gauge, about, value }
}

const fn counter<T>(
    name: &'static str,
    unit: &'static str,
    about: &'static str,
    value: fn(&T) -> f64,
) -> Row<T> {
    Row { name, unit, kind: MetricKind::Counter, about, value }
}

fn or_nan(value: Option<f64>) -> f64 {
    value.unwrap_or(f64::NAN)
}

fn avg(average: &Average) -> f64 {
    or_nan(average.avg)
}

fn max(average: &Average) -> f64 {
    or_nan(average.max)
}

impl Metrics {
    /// All metrics, one by one.
    ///
    /// ```
    /// # use kafka_producer::testing::TestCluster;
    /// # use kafka_producer::{KafkaProducer, ProducerRecord};
    /// # let cluster = TestCluster::start();
    /// # let servers = cluster.bootstrap_servers();
    /// let producer = KafkaProducer::builder().bootstrap_servers(servers).build()?;
    /// producer.send(ProducerRecord::new("orders", "paid"))?.wait()?;
    /// let metrics = producer.metrics();
    /// let sent = metrics.iter().find(|m| {
    ///     m.name == "record-send-total" && m.tags.iter().any(|(_, topic)| topic == "orders")
    /// });
    /// assert_eq!(sent.map(|m| m.value), Some(1.0));
    /// # Ok::<(), kafka_producer::Error>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = Metric<'_>> {
        let producer = move |row| self.metric(PRODUCER_GROUP, row, &self.producer, None);
        let causes = self.producer.retries_by_cause.iter().map(|(cause, records)| {
            let tag = ("cause", Cow::Borrowed(*cause));
            Metric {
                value: *records as f64,
                ..self.metric(PRODUCER_GROUP, &BY_CAUSE, &(), Some(tag))
            }
        });
        let nodes = self.nodes.iter().flat_map(move |node| {
            let tag = ("node-id", Cow::Owned(format!("node-{}", node.id)));
            let of_node = tag.clone();
            let own =
                NODE.iter().map(move |row| self.metric(NODE_GROUP, row, node, Some(tag.clone())));
            own.chain(
                TRAFFIC.iter().map(move |row| {
                    self.metric(NODE_GROUP, row, &node.traffic, Some(of_node.clone()))
                }),
            )
        });
        let topics = self.topics.iter().flat_map(move |topic| {
            let tag = ("topic", Cow::Borrowed(&*topic.name));
            TOPIC.iter().map(move |row| self.metric(TOPIC_GROUP, row, topic, Some(tag.clone())))
        });
        let traffic = &self.producer.traffic;
        let version = ("version", Cow::Borrowed(env!("CARGO_PKG_VERSION")));
        PRODUCER
            .iter()
            .map(producer)
            .chain(TRAFFIC.iter().map(move |row| self.metric(PRODUCER_GROUP, row, traffic, None)))
            .chain(causes)
            .chain(nodes)
            .chain(topics)
            .chain(once(self.metric(APP_GROUP, &START, self, None)))
            .chain(once(self.metric(APP_GROUP, &VERSION, &(), Some(version))))
    }

    fn metric<'a, T>(
        &'a self,
        group: &'static str,
        row: &Row<T>,
        of: &T,
        tag: Option<(&'static str, Cow<'a, str>)>,
    ) -> Metric<'a> {
        Metric {
            group,
            name: row.name,
            description: row.about,
            unit: row.unit,
            kind: row.kind,
            tags: once(("client-id", Cow::Borrowed(&*self.client_id))).chain(tag).collect(),
            value: (row.value)(of),
        }
    }
}

const BY_CAUSE: Row<()> = counter(
    "record-retry-by-cause-total",
    "records",
    "Records to be sent again, by what the attempt before met.",
    |()| f64::NAN,
);

const START: Row<Metrics> = gauge(
    "start-time-ms",
    "ms",
    "When the producer was started, in milliseconds since 1970.",
    |m| m.start_time_ms as f64,
);

const VERSION: Row<()> = gauge("version", "", "The client's version, as a tag.", |()| 1.0);

const PRODUCER: &[Row<ProducerMetrics>] = &[
    gauge("record-send-rate", "records/s", "Records sent a second.", |m| m.record_send.rate),
    counter("record-send-total", "records", "Records sent; those sent again count again.", |m| {
        m.record_send.total as f64
    }),
    gauge("record-retry-rate", "records/s", "Records to be sent again a second.", |m| {
        m.record_retry.rate
    }),
    counter("record-retry-total", "records", "Records to be sent again.", |m| {
        m.record_retry.total as f64
    }),
    gauge("record-error-rate", "records/s", "Records that failed or were refused a second.", |m| {
        m.record_error.rate
    }),
    counter(
        "record-error-total",
        "records",
        "Records that failed, or that a call which may wait refused.",
        |m| m.record_error.total as f64,
    ),
    gauge("record-refused-rate", "records/s", "Records that a send refused a second.", |m| {
        m.record_refused.rate
    }),
    counter("record-refused-total", "records", "Records that a send refused.", |m| {
        m.record_refused.total as f64
    }),
    gauge("records-per-request-avg", "records", "The mean number of records in a request.", |m| {
        avg(&m.records_per_request)
    }),
    gauge("record-size-avg", "bytes", "The mean size of a record as it lies in its batch.", |m| {
        avg(&m.record_size)
    }),
    gauge(
        "record-size-max",
        "bytes",
        "The size of the largest record as it lies in its batch.",
        |m| max(&m.record_size),
    ),
    gauge("batch-size-avg", "bytes", "The mean size of a batch sent.", |m| avg(&m.batch_size)),
    gauge("batch-size-max", "bytes", "The size of the largest batch sent.", |m| max(&m.batch_size)),
    gauge("batch-split-rate", "batches/s", "Batches split for being too large a second.", |m| {
        m.batch_split.rate
    }),
    counter("batch-split-total", "batches", "Batches split for being too large.", |m| {
        m.batch_split.total as f64
    }),
    gauge(
        "record-queue-time-avg",
        "ms",
        "The mean time from a batch's first record to its request.",
        |m| avg(&m.record_queue_time),
    ),
    gauge(
        "record-queue-time-max",
        "ms",
        "The longest time from a batch's first record to its request.",
        |m| max(&m.record_queue_time),
    ),
    gauge(
        "record-queue-time-p50",
        "ms",
        "The time from a batch's first record to its first request: Half of all took no longer.",
        |m| or_nan(m.queue_time_percentiles.p50),
    ),
    gauge(
        "record-queue-time-p99",
        "ms",
        "The time from a batch's first record to its first request: 99 of 100 took no longer.",
        |m| or_nan(m.queue_time_percentiles.p99),
    ),
    gauge(
        "record-queue-time-p999",
        "ms",
        "The time from a batch's first record to its first request: 999 of 1000 took no longer.",
        |m| or_nan(m.queue_time_percentiles.p999),
    ),
    gauge(
        "request-latency-avg",
        "ms",
        "The mean time from a produce request to its answer.",
        |m| avg(&m.request_latency),
    ),
    gauge(
        "request-latency-max",
        "ms",
        "The longest time from a produce request to its answer.",
        |m| max(&m.request_latency),
    ),
    gauge(
        "record-in-flight-time-p50",
        "ms",
        "The time from a record's request to its answer: Half of all took no longer.",
        |m| or_nan(m.in_flight_time_percentiles.p50),
    ),
    gauge(
        "record-in-flight-time-p99",
        "ms",
        "The time from a record's request to its answer: 99 of 100 took no longer.",
        |m| or_nan(m.in_flight_time_percentiles.p99),
    ),
    gauge(
        "record-in-flight-time-p999",
        "ms",
        "The time from a record's request to its answer: 999 of 1000 took no longer.",
        |m| or_nan(m.in_flight_time_percentiles.p999),
    ),
    gauge(
        "record-delivery-time-p50",
        "ms",
        "The time from a batch's first record to its delivery: Half of all took no longer.",
        |m| or_nan(m.delivery_time_percentiles.p50),
    ),
    gauge(
        "record-delivery-time-p99",
        "ms",
        "The time from a batch's first record to its delivery: 99 of 100 took no longer.",
        |m| or_nan(m.delivery_time_percentiles.p99),
    ),
    gauge(
        "record-delivery-time-p999",
        "ms",
        "The time from a batch's first record to its delivery: 999 of 1000 took no longer.",
        |m| or_nan(m.delivery_time_percentiles.p999),
    ),
    gauge(
        "produce-throttle-time-avg",
        "ms",
        "The mean time that a response was held up for a quota.",
        |m| avg(&m.produce_throttle_time),
    ),
    gauge(
        "produce-throttle-time-max",
        "ms",
        "The longest time that a response was held up for a quota.",
        |m| max(&m.produce_throttle_time),
    ),
    counter(
        "throttle-time-ms-total",
        "ms",
        "The time that responses were held up for a quota.",
        |m| m.throttle_time_ms_total as f64,
    ),
    counter(
        "acknowledged-loss-total",
        "batches",
        "Refusals that show that a broker lost what it had acknowledged.",
        |m| m.acknowledged_loss_total as f64,
    ),
    gauge("queued-records", "records", "Records that wait to be sent, or to be sent again.", |m| {
        m.queued_records as f64
    }),
    gauge(
        "queued-bytes",
        "bytes",
        "The bytes of batches that wait to be sent, or to be sent again.",
        |m| m.queued_bytes as f64,
    ),
    gauge(
        "oldest-record-age",
        "ms",
        "The age of the oldest record that is not decided yet.",
        |m| or_nan(m.oldest_record_age),
    ),
    gauge("requests-in-flight", "requests", "Requests without an answer.", |m| {
        m.requests_in_flight as f64
    }),
    gauge("metadata-age", "s", "The time since the brokers last told of the cluster.", |m| {
        or_nan(m.metadata_age)
    }),
    gauge("callbacks-pending", "records", "Records with a callback that has not begun.", |m| {
        m.callbacks_pending as f64
    }),
    gauge(
        "callback-backlog",
        "callbacks",
        "Callbacks of decided records that have not finished.",
        |m| m.callback_backlog as f64,
    ),
    counter("callback-panic-total", "panics", "Panics of callbacks.", |m| {
        m.callback_panic_total as f64
    }),
    counter("callback-dropped-total", "callbacks", "Callbacks that were never run.", |m| {
        m.callback_dropped_total as f64
    }),
    gauge("buffer-total-bytes", "bytes", "The memory for batches.", |m| {
        m.buffer_total_bytes as f64
    }),
    gauge("buffer-available-bytes", "bytes", "The memory for batches that is free.", |m| {
        m.buffer_available_bytes as f64
    }),
    gauge("waiting-threads", "threads", "Threads that wait for memory.", |m| {
        m.waiting_threads as f64
    }),
    gauge(
        "bufferpool-wait-ratio",
        "ratio",
        "The part of the time that threads waited for memory.",
        |m| m.bufferpool_wait_ratio,
    ),
    counter(
        "bufferpool-wait-time-ns-total",
        "ns",
        "The time that threads waited for memory.",
        |m| m.bufferpool_wait_time_ns_total as f64,
    ),
    gauge(
        "buffer-exhausted-rate",
        "records/s",
        "Records refused for want of memory a second.",
        |m| m.buffer_exhausted.rate,
    ),
    counter("buffer-exhausted-total", "records", "Records refused for want of memory.", |m| {
        m.buffer_exhausted.total as f64
    }),
    counter("flush-time-ns-total", "ns", "The time that calls of flush took.", |m| {
        m.flush_time_ns_total as f64
    }),
    counter(
        "metadata-wait-time-ns-total",
        "ns",
        "The time that calls waited for metadata of topics.",
        |m| m.metadata_wait_time_ns_total as f64,
    ),
    gauge("connection-count", "connections", "Connections, those being made included.", |m| {
        m.connection_count as f64
    }),
    gauge(
        "connection-creation-rate",
        "connections/s",
        "Connections that came to stand a second.",
        |m| m.connection_creation.rate,
    ),
    counter("connection-creation-total", "connections", "Connections that came to stand.", |m| {
        m.connection_creation.total as f64
    }),
    gauge("connection-close-rate", "connections/s", "Connections closed a second.", |m| {
        m.connection_close.rate
    }),
    counter("connection-close-total", "connections", "Connections closed.", |m| {
        m.connection_close.total as f64
    }),
    gauge("network-io-rate", "operations/s", "Reads and writes a second.", |m| m.network_io.rate),
    counter("network-io-total", "operations", "Reads and writes.", |m| m.network_io.total as f64),
    gauge(
        "select-rate",
        "polls/s",
        "Times that the sender looked for something to read or write a second.",
        |m| m.select.rate,
    ),
    counter(
        "select-total",
        "polls",
        "Times that the sender looked for something to read or write.",
        |m| m.select.total as f64,
    ),
    gauge(
        "io-wait-ratio",
        "ratio",
        "The part of the time that the sender waited for something to do.",
        |m| m.io_wait.ratio,
    ),
    gauge(
        "io-wait-time-ns-avg",
        "ns",
        "The mean time that the sender waited for something to do, each time it looked.",
        |m| or_nan(m.io_wait.avg_ns),
    ),
    counter(
        "io-wait-time-ns-total",
        "ns",
        "The time that the sender waited for something to do.",
        |m| m.io_wait.total_ns as f64,
    ),
    gauge("io-ratio", "ratio", "The part of the time that the sender was busy.", |m| m.io.ratio),
    gauge(
        "io-time-ns-avg",
        "ns",
        "The mean time that the sender was busy, each time it looked.",
        |m| or_nan(m.io.avg_ns),
    ),
    counter("io-time-ns-total", "ns", "The time that the sender was busy.", |m| {
        m.io.total_ns as f64
    }),
];

/// Of all connections, or of one broker's.
const TRAFFIC: &[Row<TrafficMetrics>] =
    &[
        gauge("outgoing-byte-rate", "bytes/s", "Bytes written a second.", |m| m.outgoing_byte.rate),
        counter("outgoing-byte-total", "bytes", "Bytes written.", |m| m.outgoing_byte.total as f64),
        gauge("incoming-byte-rate", "bytes/s", "Bytes read a second.", |m| m.incoming_byte.rate),
        counter("incoming-byte-total", "bytes", "Bytes read.", |m| m.incoming_byte.total as f64),
        gauge("request-rate", "requests/s", "Requests written a second.", |m| m.request.rate),
        counter("request-total", "requests", "Requests written.", |m| m.request.total as f64),
        gauge("request-size-avg", "bytes", "The mean size of a request.", |m| avg(&m.request_size)),
        gauge("request-size-max", "bytes", "The size of the largest request.", |m| {
            max(&m.request_size)
        }),
        gauge("response-rate", "responses/s", "Responses read a second.", |m| m.response.rate),
        counter("response-total", "responses", "Responses read.", |m| m.response.total as f64),
    ];

const NODE: &[Row<NodeMetrics>] = &[
    gauge(
        "request-latency-avg",
        "ms",
        "The mean time from a produce request to its answer.",
        |m| avg(&m.request_latency),
    ),
    gauge(
        "request-latency-max",
        "ms",
        "The longest time from a produce request to its answer.",
        |m| max(&m.request_latency),
    ),
    gauge(
        "request-latency-p50",
        "ms",
        "The time from a produce request to its answer: Half of all took no longer.",
        |m| or_nan(m.request_latency_percentiles.p50),
    ),
    gauge(
        "request-latency-p99",
        "ms",
        "The time from a produce request to its answer: 99 of 100 took no longer.",
        |m| or_nan(m.request_latency_percentiles.p99),
    ),
    gauge(
        "request-latency-p999",
        "ms",
        "The time from a produce request to its answer: 999 of 1000 took no longer.",
        |m| or_nan(m.request_latency_percentiles.p999),
    ),
    gauge(
        "connection-creation-rate",
        "connections/s",
        "Connections that came to stand a second.",
        |m| m.connection_creation.rate,
    ),
    counter("connection-creation-total", "connections", "Connections that came to stand.", |m| {
        m.connection_creation.total as f64
    }),
    counter(
        "throttle-time-ms-total",
        "ms",
        "The time that responses were held up for a quota.",
        |m| m.throttle_time_ms_total as f64,
    ),
];

const TOPIC: &[Row<TopicMetrics>] = &[
    gauge("record-send-rate", "records/s", "Records sent a second.", |m| m.record_send.rate),
    counter("record-send-total", "records", "Records sent; those sent again count again.", |m| {
        m.record_send.total as f64
    }),
    gauge("byte-rate", "bytes/s", "Bytes of batches sent a second.", |m| m.byte.rate),
    counter("byte-total", "bytes", "Bytes of batches sent.", |m| m.byte.total as f64),
    gauge("record-retry-rate", "records/s", "Records to be sent again a second.", |m| {
        m.record_retry.rate
    }),
    counter("record-retry-total", "records", "Records to be sent again.", |m| {
        m.record_retry.total as f64
    }),
    gauge("record-error-rate", "records/s", "Records that failed a second.", |m| {
        m.record_error.rate
    }),
    counter("record-error-total", "records", "Records that failed.", |m| {
        m.record_error.total as f64
    }),
    gauge("queued-records", "records", "Records that wait to be sent, or to be sent again.", |m| {
        m.queued_records as f64
    }),
    gauge(
        "queued-bytes",
        "bytes",
        "The bytes of batches that wait to be sent, or to be sent again.",
        |m| m.queued_bytes as f64,
    ),
];

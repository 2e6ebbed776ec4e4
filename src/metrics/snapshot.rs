//! The metrics as a reader gets them: typed, and measured at one moment.

use std::collections::BTreeMap;

use super::figures::{Average, IoTime, Meter, Percentiles};
use super::sensors::{
    NodeSensors, Sensors, SharedSensors, SpanSensors, TopicSensors, TrafficSensors,
};
use super::stats::Window;
use crate::sync::Arc;
use crate::time::MonoTime;
use crate::types::NodeId;

/// What a producer did and does, measured at one moment. Made by
/// [`KafkaProducer::metrics`](crate::KafkaProducer::metrics).
///
/// Names are those of Kafka's Java client 4.3.1 wherever it has the metric, windows and rates are
/// defined as there. [`iter`](Self::iter) gives all of them with their names and meanings,
/// [`to_prometheus`](Self::to_prometheus) the same as text.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Metrics {
    /// `client.id`, or the name that was made up for it; the tag `client-id` of each metric.
    pub client_id: Arc<str>,
    /// When the producer was started, in milliseconds since 1970.
    pub start_time_ms: i64,
    /// Of the whole producer.
    pub producer: ProducerMetrics,
    /// Of each broker that the producer has connected to and still knows, by id.
    pub nodes: Vec<NodeMetrics>,
    /// Of each topic that the producer has sent to and has not forgotten since
    /// (`metadata.max.idle.ms`), by name.
    pub topics: Vec<TopicMetrics>,
}

/// The metrics of a whole producer (`producer-metrics`).
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ProducerMetrics {
    /// Records sent; those sent again count again: `record-send-rate`, `record-send-total`.
    pub record_send: Meter,
    /// Records to be sent again: `record-retry-rate`, `record-retry-total`.
    pub record_retry: Meter,
    /// The same, by what the attempt before met: `record-retry-by-cause-total`.
    pub retries_by_cause: BTreeMap<&'static str, u64>,
    /// Records that failed, or that a call which may wait refused: `record-error-rate`,
    /// `record-error-total`.
    pub record_error: Meter,
    /// Records that `send` or `try_send` refused: `record-refused-rate`, `record-refused-total`.
    pub record_refused: Meter,
    /// Records in a request; `records-per-request-avg`.
    pub records_per_request: Average,
    /// Bytes of a record as it lies in its batch: `record-size-avg`, `record-size-max`.
    pub record_size: Average,
    /// Bytes of a batch: `batch-size-avg`, `batch-size-max`.
    pub batch_size: Average,
    /// Batches that a broker found too large: `batch-split-rate`, `batch-split-total`.
    pub batch_split: Meter,
    /// Milliseconds from a batch's first record to its request: `record-queue-time-avg`,
    /// `record-queue-time-max`.
    pub record_queue_time: Average,
    /// Milliseconds from a produce request to its answer: `request-latency-avg`,
    /// `request-latency-max`.
    pub request_latency: Average,
    /// Milliseconds that a response was held up for, for a quota: `produce-throttle-time-avg`,
    /// `produce-throttle-time-max`.
    pub produce_throttle_time: Average,
    /// The sum of those milliseconds: `throttle-time-ms-total`.
    pub throttle_time_ms_total: u64,
    /// Refusals that show that a broker lost what it had acknowledged: `acknowledged-loss-total`.
    pub acknowledged_loss_total: u64,

    /// Phase 1, queued: milliseconds from a batch's first record to its first request, by record.
    pub queue_time_percentiles: Percentiles,
    /// Phase 2, in flight: milliseconds from a request to its answer, by record.
    pub in_flight_time_percentiles: Percentiles,
    /// The whole: milliseconds from a batch's first record to its delivery, by record.
    pub delivery_time_percentiles: Percentiles,

    /// Records accepted that wait to be sent, or to be sent again: `queued-records`.
    pub queued_records: u64,
    /// The bytes of their batches so far: `queued-bytes`.
    pub queued_bytes: u64,
    /// Milliseconds since the oldest record that is not decided yet was appended:
    /// `oldest-record-age`; `None` if there is none.
    pub oldest_record_age: Option<f64>,
    /// Requests without an answer, of all kinds: `requests-in-flight`.
    pub requests_in_flight: u64,
    /// Seconds since the brokers last told of the cluster: `metadata-age`; `None` before that.
    pub metadata_age: Option<f64>,

    /// Records with a callback that has not begun (`callback.max.pending`): `callbacks-pending`.
    pub callbacks_pending: u64,
    /// Callbacks of decided records that have not finished: `callback-backlog`.
    pub callback_backlog: u64,
    /// Panics of callbacks: `callback-panic-total`.
    pub callback_panic_total: u64,
    /// Callbacks that were never run: `callback-dropped-total`.
    pub callback_dropped_total: u64,

    /// `buffer.memory`: `buffer-total-bytes`.
    pub buffer_total_bytes: u64,
    /// What of it is free: `buffer-available-bytes`.
    pub buffer_available_bytes: u64,
    /// Threads that wait for some: `waiting-threads`.
    pub waiting_threads: u64,
    /// The part of the time that threads waited for it; more than 1 if several did:
    /// `bufferpool-wait-ratio`.
    pub bufferpool_wait_ratio: f64,
    /// Nanoseconds that threads waited for it: `bufferpool-wait-time-ns-total`.
    pub bufferpool_wait_time_ns_total: u64,
    /// Records refused for want of it: `buffer-exhausted-rate`, `buffer-exhausted-total`.
    pub buffer_exhausted: Meter,
    /// Nanoseconds that calls of `flush` took: `flush-time-ns-total`.
    pub flush_time_ns_total: u64,
    /// Nanoseconds that calls waited for topics' metadata: `metadata-wait-time-ns-total`.
    pub metadata_wait_time_ns_total: u64,

    /// Connections, those being made included: `connection-count`.
    pub connection_count: u64,
    /// Connections that came to stand: `connection-creation-rate`, `connection-creation-total`.
    pub connection_creation: Meter,
    /// Connections closed: `connection-close-rate`, `connection-close-total`.
    pub connection_close: Meter,
    /// What the connections carried.
    pub traffic: TrafficMetrics,
    /// Reads and writes: `network-io-rate`, `network-io-total`.
    pub network_io: Meter,
    /// Times that the sender's thread looked for something to read or write: `select-rate`,
    /// `select-total`.
    pub select: Meter,
    /// The thread's rest: `io-wait-ratio`, `io-wait-time-ns-avg`, `io-wait-time-ns-total`.
    pub io_wait: IoTime,
    /// The thread's work, all of it: `io-ratio`, `io-time-ns-avg`, `io-time-ns-total`.
    pub io: IoTime,
}

/// What connections carried.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct TrafficMetrics {
    /// Bytes written: `outgoing-byte-rate`, `outgoing-byte-total`.
    pub outgoing_byte: Meter,
    /// Bytes read: `incoming-byte-rate`, `incoming-byte-total`.
    pub incoming_byte: Meter,
    /// Requests whose last byte was written: `request-rate`, `request-total`.
    pub request: Meter,
    /// Their bytes: `request-size-avg`, `request-size-max`.
    pub request_size: Average,
    /// Responses whose last byte was read: `response-rate`, `response-total`.
    pub response: Meter,
}

/// The metrics of one broker (`producer-node-metrics`).
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct NodeMetrics {
    /// The broker's id; bootstrap servers, whose ids are not known yet, have negative ones.
    pub id: i32,
    /// What its connections carried.
    pub traffic: TrafficMetrics,
    /// Milliseconds from a produce request to its answer: `request-latency-avg`,
    /// `request-latency-max`.
    pub request_latency: Average,
    /// The same as percentiles, by request; recorded if `metrics.recording.level` is `DEBUG`.
    pub request_latency_percentiles: Percentiles,
    /// Connections that came to stand: `connection-creation-rate`, `connection-creation-total`.
    pub connection_creation: Meter,
    /// Milliseconds that its responses were held up for, for a quota: `throttle-time-ms-total`.
    pub throttle_time_ms_total: u64,
}

/// The metrics of one topic (`producer-topic-metrics`).
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct TopicMetrics {
    /// The topic.
    pub name: Arc<str>,
    /// Records sent; those sent again count again: `record-send-rate`, `record-send-total`.
    pub record_send: Meter,
    /// The bytes of their batches: `byte-rate`, `byte-total`.
    pub byte: Meter,
    /// Records to be sent again: `record-retry-rate`, `record-retry-total`.
    pub record_retry: Meter,
    /// Records that failed: `record-error-rate`, `record-error-total`.
    pub record_error: Meter,
    /// Records accepted that wait to be sent, or to be sent again: `queued-records`.
    pub queued_records: u64,
    /// The bytes of their batches so far: `queued-bytes`.
    pub queued_bytes: u64,
}

/// What is not recorded but asked for when somebody reads.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) queues: BTreeMap<Arc<str>, Queued>,
    pub(crate) buffer_total: usize,
    pub(crate) buffer_available: usize,
    pub(crate) waiting_threads: usize,
    pub(crate) callbacks_pending: usize,
    pub(crate) callback_backlog: usize,
    pub(crate) callback_panics: u64,
    pub(crate) callbacks_dropped: u64,
}

/// What waits in a topic's queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// When the oldest of the records was appended.
    pub(crate) oldest: Option<MonoTime>,
}

impl SharedSensors {
    /// All of it, measured at `now`. The name and the start are still to be filled in. The lock is
    /// held for what was recorded only.
    pub(crate) fn measure(&self, gauges: &Gauges, now: MonoTime) -> Metrics {
        let (mut metrics, under_way) = self.with(|sensors| {
            let under_way = sensors.sending.under_way.iter().map(|(_, oldest)| *oldest).min();
            (sensors.measure(now), under_way)
        });
        metrics.topics = with_queued(metrics.topics, &gauges.queues);
        metrics.producer = gauges.among(metrics.producer, under_way, now);
        metrics
    }
}

/// The topics with what waits in their queues, by name; also those that have nothing else.
fn with_queued(
    recorded: Vec<TopicMetrics>,
    queues: &BTreeMap<Arc<str>, Queued>,
) -> Vec<TopicMetrics> {
    let named = |topic: TopicMetrics| (Arc::clone(&topic.name), topic);
    let mut topics: BTreeMap<_, _> = recorded.into_iter().map(named).collect();
    for (name, queued) in queues.iter().filter(|(_, queued)| queued.records > 0) {
        let topic = topics
            .entry(Arc::clone(name))
            .or_insert_with(|| TopicMetrics { name: Arc::clone(name), ..TopicMetrics::default() });
        (topic.queued_records, topic.queued_bytes) = (queued.records, queued.bytes);
    }
    topics.into_values().collect()
}

impl Gauges {
    /// The producer's metrics with these. `under_way`: when the oldest record that is under way
    /// was appended.
    fn among(
        &self,
        recorded: ProducerMetrics,
        under_way: Option<MonoTime>,
        now: MonoTime,
    ) -> ProducerMetrics {
        let queued = || self.queues.values();
        let oldest = queued().filter_map(|queue| queue.oldest).chain(under_way).min();
        ProducerMetrics {
            queued_records: queued().map(|queue| queue.records).sum(),
            queued_bytes: queued().map(|queue| queue.bytes).sum(),
            oldest_record_age: oldest.map(|oldest| now.since(oldest).as_secs_f64() * 1000.0),
            callbacks_pending: self.callbacks_pending as u64,
            callback_backlog: self.callback_backlog as u64,
            callback_panic_total: self.callback_panics,
            callback_dropped_total: self.callbacks_dropped,
            buffer_total_bytes: self.buffer_total as u64,
            buffer_available_bytes: self.buffer_available as u64,
            waiting_threads: self.waiting_threads as u64,
            ..recorded
        }
    }
}

impl Sensors {
    /// All that was recorded.
    fn measure(&self, now: MonoTime) -> Metrics {
        let window = &self.settings.window;
        let node = |(id, sensors): (&NodeId, &NodeSensors)| sensors.measure(*id, window, now);
        let topic = |(name, sensors): (&Arc<str>, &TopicSensors)| TopicMetrics {
            name: Arc::clone(name),
            ..sensors.measure(window, now)
        };
        Metrics {
            producer: self.measure_producer(now),
            nodes: self.nodes.iter().map(node).collect(),
            topics: self.topics.iter().map(topic).collect(),
            ..Metrics::default()
        }
    }

    fn measure_producer(&self, now: MonoTime) -> ProducerMetrics {
        let (sending, calls) = (&self.sending, &self.calls);
        let window = &self.settings.window;
        let wait = calls.buffer_wait.measure(window, now);
        ProducerMetrics {
            record_send: sending.record_send.measure(window, now),
            record_retry: sending.record_retry.measure(window, now),
            retries_by_cause: sending.retries_by_cause.clone(),
            record_error: sending.record_error.measure(window, now),
            record_refused: calls.record_refused.measure(window, now),
            records_per_request: sending.records_per_request.measure(window, now),
            record_size: sending.record_size.measure(window, now),
            batch_size: sending.batch_size.measure(window, now),
            batch_split: sending.batch_split.measure(window, now),
            record_queue_time: sending.queue_time.measure(window, now),
            request_latency: sending.request_latency.measure(window, now),
            produce_throttle_time: sending.throttle_time.measure(window, now),
            throttle_time_ms_total: sending.throttled_ms,
            acknowledged_loss_total: sending.losses,
            queue_time_percentiles: sending.queued.measure(window, now),
            in_flight_time_percentiles: sending.in_flight.measure(window, now),
            delivery_time_percentiles: sending.delivery.measure(window, now),
            metadata_age: sending.metadata_updated.map(|at| now.since(at).as_secs_f64()),
            bufferpool_wait_ratio: wait.rate * NANO,
            bufferpool_wait_time_ns_total: wait.total,
            buffer_exhausted: calls.buffer_exhausted.measure(window, now),
            flush_time_ns_total: calls.flush_nanos,
            metadata_wait_time_ns_total: calls.metadata_wait_nanos,
            ..self.measure_network(now)
        }
    }

    fn measure_network(&self, now: MonoTime) -> ProducerMetrics {
        let (network, window) = (&self.network, &self.settings.window);
        ProducerMetrics {
            requests_in_flight: network.requests_in_flight as u64,
            connection_count: network.connections as u64,
            connection_creation: network.connection_creation.measure(window, now),
            connection_close: network.connection_close.measure(window, now),
            traffic: network.traffic.measure(window, now),
            network_io: network.network_io.measure(window, now),
            select: network.select.measure(window, now),
            io_wait: network.waiting.measure(window, now),
            io: network.busy.measure(window, now),
            ..ProducerMetrics::default()
        }
    }
}

/// Seconds in a nanosecond.
const NANO: f64 = 1e-9;

impl TrafficSensors {
    fn measure(&self, window: &Window, now: MonoTime) -> TrafficMetrics {
        TrafficMetrics {
            outgoing_byte: self.outgoing_byte.measure(window, now),
            incoming_byte: self.incoming_byte.measure(window, now),
            request: self.request.measure(window, now),
            request_size: self.request_size.measure(window, now),
            response: self.response.measure(window, now),
        }
    }
}

impl SpanSensors {
    fn measure(&self, window: &Window, now: MonoTime) -> IoTime {
        let nanos = self.nanos.measure(window, now);
        let avg_ns = self.average.measure(window, now).avg;
        IoTime { ratio: nanos.rate * NANO, avg_ns, total_ns: nanos.total }
    }
}

impl NodeSensors {
    fn measure(&self, id: NodeId, window: &Window, now: MonoTime) -> NodeMetrics {
        NodeMetrics {
            id: id.0,
            traffic: self.traffic.measure(window, now),
            request_latency: self.request_latency.measure(window, now),
            request_latency_percentiles: self.latencies.measure(window, now),
            connection_creation: self.connection_creation.measure(window, now),
            throttle_time_ms_total: self.throttled_ms,
        }
    }
}

impl TopicSensors {
    fn measure(&self, window: &Window, now: MonoTime) -> TopicMetrics {
        TopicMetrics {
            record_send: self.record_send.measure(window, now),
            byte: self.byte.measure(window, now),
            record_retry: self.record_retry.measure(window, now),
            record_error: self.record_error.measure(window, now),
            ..TopicMetrics::default()
        }
    }
}

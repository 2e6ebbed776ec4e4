//! Where what happens is recorded. The sender's thread records what it sends, hears and decides,
//! and users' threads how long they waited; readers measure.
//!
//! One leaf lock is around all of it. The client takes it once or twice a turn, the sender once a
//! request, once an answer, and once a batch that fails or is sent again, a user's thread after a
//! wait: it is free as a rule, and nobody waits long for it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::histogram::Histogram;
use super::stats::{AverageStat, MeterStat, Window};
use crate::claims;
use crate::sync::{Arc, UnmodelledMutex};
use crate::time::MonoTime;
use crate::types::NodeId;

/// What of the configuration concerns metrics.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SensorSettings {
    pub(crate) window: Window,
    /// `metrics.recording.level` is DEBUG or below: percentiles for each broker too.
    pub(crate) detailed: bool,
}

/// The sensors and their lock.
#[derive(Debug, Default)]
pub(crate) struct SharedSensors(UnmodelledMutex<Sensors>);

impl SharedSensors {
    pub(crate) fn new(settings: SensorSettings) -> Self {
        Self(UnmodelledMutex::new(Sensors { settings, ..Sensors::default() }))
    }

    /// Records, or reads. `with` takes no other lock.
    #[inline]
    pub(crate) fn with<R>(&self, with: impl FnOnce(&mut Sensors) -> R) -> R {
        with(&mut self.0.lock())
    }
}

/// All that is recorded.
#[derive(Debug, Default)]
pub(crate) struct Sensors {
    pub(super) settings: SensorSettings,
    pub(super) sending: Sending,
    pub(super) network: Network,
    pub(super) calls: Calls,
    pub(super) topics: BTreeMap<Arc<str>, TopicSensors>,
    pub(super) nodes: BTreeMap<NodeId, NodeSensors>,
}

/// What the sender does with batches.
#[derive(Debug, Default)]
pub(super) struct Sending {
    pub(super) record_send: MeterStat,
    pub(super) records_per_request: AverageStat,
    pub(super) batch_size: AverageStat,
    pub(super) record_size: AverageStat,
    pub(super) queue_time: AverageStat,
    pub(super) request_latency: AverageStat,
    pub(super) throttle_time: AverageStat,
    pub(super) throttled_ms: u64,
    pub(super) record_retry: MeterStat,
    pub(super) retries_by_cause: BTreeMap<&'static str, u64>,
    pub(super) record_error: MeterStat,
    pub(super) batch_split: MeterStat,
    pub(super) losses: u64,
    pub(super) queued: Histogram,
    pub(super) in_flight: Histogram,
    pub(super) delivery: Histogram,
    /// When the oldest record of each produce request under way was appended, by the request's tag.
    /// Few at a time; a map would allocate with each request.
    pub(super) under_way: Vec<(u64, MonoTime)>,
    pub(super) metadata_updated: Option<MonoTime>,
}

impl Sending {
    /// The oldest record that is under way in a request; none if there is none any more.
    fn set_oldest(&mut self, tag: u64, oldest: Option<MonoTime>) {
        self.under_way.retain(|(other, _)| *other != tag);
        self.under_way.extend(oldest.map(|oldest| (tag, oldest)));
        self.invariants();
    }

    /// A request is under way once, and each record that is sent again is so for some cause.
    fn invariants(&self) {
        if !claims::are_checked() {
            return;
        }
        let last = self.under_way.last().map(|(tag, _)| *tag);
        let same = self.under_way.iter().filter(|(tag, _)| Some(*tag) == last);
        assert!(same.count() <= 1, "request {last:?} is under way twice");
        let by_cause: u64 = self.retries_by_cause.values().sum();
        assert_eq!(by_cause, self.record_retry.total(), "{:?}", self.retries_by_cause);
    }
}

/// What the client does with connections.
#[derive(Debug, Default)]
pub(super) struct Network {
    pub(super) traffic: TrafficSensors,
    pub(super) network_io: MeterStat,
    pub(super) connection_creation: MeterStat,
    pub(super) connection_close: MeterStat,
    pub(super) connections: usize,
    pub(super) requests_in_flight: usize,
    pub(super) select: MeterStat,
    pub(super) waiting: SpanSensors,
    pub(super) busy: SpanSensors,
}

/// What users' threads wait for.
#[derive(Debug, Default)]
pub(super) struct Calls {
    pub(super) buffer_wait: MeterStat,
    pub(super) buffer_exhausted: MeterStat,
    pub(super) record_refused: MeterStat,
    pub(super) flush_nanos: u64,
    pub(super) metadata_wait_nanos: u64,
}

#[derive(Debug, Default)]
pub(super) struct TopicSensors {
    pub(super) record_send: MeterStat,
    pub(super) byte: MeterStat,
    pub(super) record_retry: MeterStat,
    pub(super) record_error: MeterStat,
}

#[derive(Debug, Default)]
pub(super) struct NodeSensors {
    pub(super) traffic: TrafficSensors,
    pub(super) request_latency: AverageStat,
    /// Recorded at DEBUG only.
    pub(super) latencies: Histogram,
    pub(super) connection_creation: MeterStat,
    pub(super) throttled_ms: u64,
}

#[derive(Debug, Default)]
pub(super) struct TrafficSensors {
    pub(super) outgoing_byte: MeterStat,
    pub(super) request: MeterStat,
    pub(super) request_size: AverageStat,
    pub(super) incoming_byte: MeterStat,
    pub(super) response: MeterStat,
}

/// Spans of the sender's time.
#[derive(Debug, Default)]
pub(super) struct SpanSensors {
    pub(super) nanos: MeterStat,
    pub(super) average: AverageStat,
}

/// What a connection has carried since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Requests whose last byte went out, and the bytes of all and of the largest of them.
    pub(crate) requests: u64,
    pub(crate) request_bytes: u64,
    pub(crate) largest_request: u64,
    /// Responses whose last byte has come.
    pub(crate) responses: u64,
    /// Reads and writes that moved something.
    pub(crate) operations: u64,
}

impl Traffic {
    /// A request's last byte went out.
    pub(crate) fn on_request(&mut self, bytes: u64) {
        self.requests += 1;
        self.request_bytes += bytes;
        self.largest_request = self.largest_request.max(bytes);
    }
}

/// A batch as it goes into a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchSent {
    pub(crate) records: u32,
    pub(crate) bytes: usize,
    /// Of the records alone.
    pub(crate) record_bytes: usize,
    pub(crate) largest_record: usize,
    /// Since its first record was appended.
    pub(crate) waited: Duration,
    /// It has not been under way before.
    pub(crate) is_first: bool,
}

/// The sender's part.
impl Sensors {
    /// A request with so many records goes out; the oldest of them was appended at `oldest`.
    pub(crate) fn on_request(&mut self, tag: u64, oldest: MonoTime, records: u64, now: MonoTime) {
        let (window, sending) = (&self.settings.window, &mut self.sending);
        sending.record_send.record(window, records, now);
        sending.records_per_request.record(window, records as f64, now);
        sending.set_oldest(tag, Some(oldest));
    }

    /// A batch of that request.
    pub(crate) fn on_batch_sent(&mut self, batch: BatchSent, now: MonoTime) {
        let (window, sending) = (&self.settings.window, &mut self.sending);
        let (sum, max) = (batch.record_bytes as f64, batch.largest_record as f64);
        sending.batch_size.record(window, batch.bytes as f64, now);
        sending.record_size.record_sum(window, sum, u64::from(batch.records), max, now);
        sending.queue_time.record(window, millis(batch.waited), now);
        if batch.is_first {
            sending.queued.record(window, batch.waited, batch.records, now);
        }
    }

    /// A topic's batches of that request: their records and bytes.
    pub(crate) fn on_topic_sent(
        &mut self,
        topic: &Arc<str>,
        records: u64,
        bytes: u64,
        now: MonoTime,
    ) {
        let window = &self.settings.window;
        let topic = sensors_of(&mut self.topics, topic);
        topic.record_send.record(window, records, now);
        topic.byte.record(window, bytes, now);
    }

    /// The request is over. `latency`: it was answered after so long.
    pub(crate) fn on_request_end(
        &mut self,
        tag: u64,
        node: NodeId,
        latency: Option<Duration>,
        records: u32,
        now: MonoTime,
    ) {
        let (window, sending) = (&self.settings.window, &mut self.sending);
        sending.set_oldest(tag, None);
        let Some(latency) = latency else { return };
        sending.request_latency.record(window, millis(latency), now);
        sending.in_flight.record(window, latency, records, now);
        if let Some(node) = self.nodes.get_mut(&node) {
            node.request_latency.record(window, millis(latency), now);
            if self.settings.detailed {
                node.latencies.record(window, latency, 1, now);
            }
        }
    }

    /// Some of a request's records were given up while it is under way; these are left.
    pub(crate) fn on_expired_under_way(&mut self, tag: u64, oldest: Option<MonoTime>) {
        self.sending.set_oldest(tag, oldest);
    }

    /// A batch was delivered, so long after its first record was appended.
    pub(crate) fn on_delivered(&mut self, records: u32, took: Duration, now: MonoTime) {
        self.sending.delivery.record(&self.settings.window, took, records, now);
    }

    /// A batch is to be sent again.
    pub(crate) fn on_retry(
        &mut self,
        topic: &Arc<str>,
        records: u32,
        cause: &'static str,
        now: MonoTime,
    ) {
        let (window, records) = (&self.settings.window, u64::from(records));
        self.sending.record_retry.record(window, records, now);
        *self.sending.retries_by_cause.entry(cause).or_default() += records;
        self.sending.invariants();
        sensors_of(&mut self.topics, topic).record_retry.record(window, records, now);
    }

    /// A batch has failed.
    pub(crate) fn on_failed(&mut self, topic: &Arc<str>, records: u32, now: MonoTime) {
        let (window, records) = (&self.settings.window, u64::from(records));
        self.sending.record_error.record(window, records, now);
        sensors_of(&mut self.topics, topic).record_error.record(window, records, now);
    }

    /// A batch was split.
    pub(crate) fn on_split(&mut self, now: MonoTime) {
        self.sending.batch_split.record(&self.settings.window, 1, now);
    }

    /// A broker seems to have lost what it had acknowledged.
    pub(crate) fn on_loss(&mut self) {
        self.sending.losses += 1;
    }

    /// A response said how long it, or what follows it, was held up for a quota.
    pub(crate) fn on_throttle(&mut self, node: NodeId, ms: i32, now: MonoTime) {
        let ms = u64::try_from(ms).unwrap_or(0);
        self.sending.throttle_time.record(&self.settings.window, ms as f64, now);
        self.sending.throttled_ms += ms;
        if let Some(node) = self.nodes.get_mut(&node) {
            node.throttled_ms += ms;
        }
    }

    /// The brokers told of the cluster.
    pub(crate) fn on_metadata(&mut self, now: MonoTime) {
        self.sending.metadata_updated = Some(now);
    }

    /// Forgets the topics that are no longer known.
    pub(crate) fn retain_topics(&mut self, mut is_known: impl FnMut(&Arc<str>) -> bool) {
        self.topics.retain(|topic, _| is_known(topic));
    }
}

/// The client's part.
impl Sensors {
    /// What a connection carried; `node` is whose it is, if it is anybody's still.
    pub(crate) fn on_traffic(&mut self, node: Option<NodeId>, traffic: &Traffic, now: MonoTime) {
        let window = &self.settings.window;
        self.network.network_io.record(window, traffic.operations, now);
        self.network.traffic.record(window, traffic, now);
        if let Some(node) = node {
            self.nodes.entry(node).or_default().traffic.record(window, traffic, now);
        }
    }

    /// A connection came to stand.
    pub(crate) fn on_connected(&mut self, node: NodeId, now: MonoTime) {
        let window = &self.settings.window;
        self.network.connection_creation.record(window, 1, now);
        self.nodes.entry(node).or_default().connection_creation.record(window, 1, now);
    }

    /// So many connections, standing or being made, were closed.
    pub(crate) fn on_closed(&mut self, connections: u64, now: MonoTime) {
        self.network.connection_close.record(&self.settings.window, connections, now);
    }

    /// How many connections there are, and requests on them.
    pub(crate) fn on_turn(&mut self, connections: usize, requests: usize) {
        self.network.connections = connections;
        self.network.requests_in_flight = requests;
    }

    /// The thread looked for something to do, for which it waited so long, after it was busy so
    /// long.
    pub(crate) fn on_select(&mut self, waited: Duration, busy: Duration, now: MonoTime) {
        let (window, network) = (&self.settings.window, &mut self.network);
        network.select.record(window, 1, now);
        network.waiting.record(window, waited, now);
        network.busy.record(window, busy, now);
    }

    /// Forgets a broker.
    pub(crate) fn forget_node(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }
}

/// The users' part.
impl Sensors {
    /// A thread waited for memory, and did not get any if it is `exhausted`.
    pub(crate) fn on_buffer_wait(&mut self, waited: Duration, exhausted: bool, now: MonoTime) {
        let (window, calls) = (&self.settings.window, &mut self.calls);
        if !waited.is_zero() {
            calls.buffer_wait.record(window, nanos(waited), now);
        }
        if exhausted {
            calls.buffer_exhausted.record(window, 1, now);
        }
    }

    /// A send was refused. `is_error`: not for want of something that a call that never waits might
    /// find the next time.
    pub(crate) fn on_refused(&mut self, is_error: bool, now: MonoTime) {
        let window = &self.settings.window;
        self.calls.record_refused.record(window, 1, now);
        if is_error {
            self.sending.record_error.record(window, 1, now);
        }
    }

    /// A flush has taken so long.
    pub(crate) fn on_flush(&mut self, took: Duration) {
        self.calls.flush_nanos += nanos(took);
    }

    /// A call has waited so long for a topic's metadata.
    pub(crate) fn on_metadata_wait(&mut self, took: Duration) {
        self.calls.metadata_wait_nanos += nanos(took);
    }
}

impl TrafficSensors {
    fn record(&mut self, window: &Window, traffic: &Traffic, now: MonoTime) {
        if traffic.sent > 0 {
            self.outgoing_byte.record(window, traffic.sent, now);
        }
        if traffic.requests > 0 {
            let (sum, max) = (traffic.request_bytes as f64, traffic.largest_request as f64);
            self.request.record(window, traffic.requests, now);
            self.request_size.record_sum(window, sum, traffic.requests, max, now);
        }
        if traffic.received > 0 {
            self.incoming_byte.record(window, traffic.received, now);
        }
        if traffic.responses > 0 {
            self.response.record(window, traffic.responses, now);
        }
    }
}

impl SpanSensors {
    fn record(&mut self, window: &Window, took: Duration, now: MonoTime) {
        self.nanos.record(window, nanos(took), now);
        self.average.record(window, nanos(took) as f64, now);
    }
}

/// The topic's sensors, which begin with what is first recorded.
fn sensors_of<'a>(
    topics: &'a mut BTreeMap<Arc<str>, TopicSensors>,
    topic: &Arc<str>,
) -> &'a mut TopicSensors {
    topics.entry(Arc::clone(topic)).or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

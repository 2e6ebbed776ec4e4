//! Answers to produce requests: each batch gets its bytes back, its verdict, and what follows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Sender;
use super::in_flight::Part;
use super::verdict::{Facts, Verdict, delivers, verdict};
use crate::accumulator::batch::ProducerBatch;
use crate::accumulator::inbox::PartitionId;
use crate::client::{ClientResponse, KafkaClient, RequestFailure, ResponseBody};
use crate::completion::{Outcome, RecordErrors};
use crate::error::{DeliveryCause, Error};
use crate::event::ProducerEvent;
use crate::metadata::LeaderChange;
use crate::metrics::Sensors;
use crate::planted::{Defect, is_planted};
use crate::protocol::Reader;
use crate::protocol::{ApiKey, ErrorCode};
use crate::protocol::{PartitionProduceResponse, ProduceResponse, TopicRef};
use crate::time::MonoTime;
use crate::types::{NodeId, Uuid};

/// What one part of a request met.
enum Answer<'a> {
    /// The broker's answer for the partition.
    Partition(&'a PartitionProduceResponse),
    /// acks=0: there is none, and the bytes are in the socket.
    Written,
    /// There is none because of this; `sent` tells whether any byte went out, `stale` whether it
    /// was the connection's age alone that ended it.
    None { cause: DeliveryCause, sent: bool, stale: bool },
}

impl<C: KafkaClient> Sender<C> {
    pub(super) fn hear_response(&mut self, response: ClientResponse, now: MonoTime) {
        if self.upkeep.is_waiting_for(response.tag) {
            return self.hear_upkeep(response, now);
        }
        let Some(mut parts) = self.flights.remove(response.tag) else {
            debug_assert!(false, "an answer to no request");
            return;
        };
        let ClientResponse { node, tag, version, mut frame, outcome, sent, created_at, .. } =
            response;
        self.unload(&mut parts, &mut frame.segments);
        let stale = outcome == Err(RequestFailure::Stale);
        let request = (tag, node);
        match read(outcome, version) {
            Ok(Some(response)) => {
                let mut order = Matcher::new(&response);
                let answered = Some((now.since(created_at), response.throttle_time_ms));
                let mut delivered = |part: &Part| {
                    let answer = order.find(self.part_key(part));
                    answer.is_some_and(|answer| delivers(answer.error_code, part.stamp.is_some()))
                };
                self.record_end(request, answered, &parts, &mut delivered, now);
                self.pause(node, (ApiKey::Produce, version), response.throttle_time_ms, now);
                self.take_leader_hints(&parts, &response, now);
                order.next = 0;
                for part in parts.drain(..) {
                    match order.find(self.part_key(&part)) {
                        Some(answer) => {
                            self.settle(tag, part, &Answer::Partition(answer), now);
                        }
                        None => {
                            let text = "the response leaves the partition out";
                            let cause = DeliveryCause::BadResponse(text.into());
                            let answer = Answer::None { cause, sent, stale };
                            self.settle(tag, part, &answer, now);
                        }
                    }
                }
            }
            Ok(None) => {
                self.record_end(request, None, &parts, &mut |_| true, now);
                for part in parts.drain(..) {
                    self.settle(tag, part, &Answer::Written, now);
                }
            }
            Err(cause) => {
                self.record_end(request, None, &parts, &mut |_| false, now);
                if matches!(cause, DeliveryCause::BadResponse(_)) {
                    // What follows on this connection can't be trusted either.
                    self.cut(node, now);
                }
                for part in parts.drain(..) {
                    let answer = Answer::None { cause: cause.clone(), sent, stale };
                    self.settle(tag, part, &answer, now);
                }
            }
        }
        self.scratch.recycle(frame, parts);
    }

    /// Records the end of a request and of what it delivered, in one turn of the lock, before
    /// anybody is told. `answered`: after how long, and with which pause.
    fn record_end(
        &self,
        (tag, node): (u64, NodeId),
        answered: Option<(Duration, i32)>,
        parts: &[Part],
        is_delivered: &mut dyn FnMut(&Part) -> bool,
        now: MonoTime,
    ) {
        let batches = || parts.iter().filter_map(|part| Some((part, part.batch.as_ref()?)));
        let records = batches().map(|(_, batch)| batch.record_count()).sum();
        self.accumulator.sensors.with(|sensors| {
            let latency = answered.map(|(latency, _)| latency);
            sensors.on_request_end(tag, node, latency, records, now);
            if let Some((_, throttle_ms)) = answered {
                sensors.on_throttle(node, throttle_ms, now);
            }
            for (part, batch) in batches() {
                if is_delivered(part) {
                    sensors.on_delivered(batch.record_count(), now.since(batch.created), now);
                }
            }
        });
    }

    /// Gives each batch its bytes back; those of expired ones go to the pool.
    fn unload(&mut self, parts: &mut [Part], segments: &mut Vec<Vec<u8>>) {
        let mut segments = segments.drain(..);
        for part in parts {
            let own = segments.by_ref().take(part.segments);
            match &mut part.batch {
                Some(batch) => batch.builder.restore_segments(own),
                None if part.pooled => self.freed.extend(own.map(|memory| (part.id, memory))),
                None => own.for_each(drop),
            }
        }
    }

    fn part_key(&self, part: &Part) -> (&Arc<str>, Uuid, i32) {
        let queue = &self.index.partition(part.id).queue;
        (&queue.topic, part.topic_id, queue.partition)
    }

    /// Settles one batch, and looks at its partition again.
    fn settle(&mut self, tag: u64, part: Part, answer: &Answer<'_>, now: MonoTime) {
        #[cfg(all(test, not(loom)))]
        crate::sim::cover(way(&part, answer));
        let Part { id, batch, stamp, .. } = part;
        self.index.partition_mut(id).in_flight.retain(|seat| seat.tag != tag);
        match batch {
            Some(batch) => self.judge(id, batch, answer, now),
            // The batch has expired: only its sequence is still to be settled.
            None => {
                if let Some(stamp) = stamp {
                    let sequences = &mut self.index.partition_mut(id).sequences;
                    let delivered = matches!(answer, Answer::Partition(response)
                        if delivers(response.error_code, true));
                    if delivered {
                        sequences.on_delivered(&stamp);
                    } else {
                        sequences.on_given_up(&stamp);
                    }
                }
            }
        }
        // After the end what comes back is only counted off.
        if !self.has_ended() {
            self.look_after_answer(id, now);
        }
    }

    fn judge(
        &mut self,
        id: PartitionId,
        mut batch: Box<ProducerBatch>,
        answer: &Answer<'_>,
        now: MonoTime,
    ) {
        batch.phases.come_back(now);
        let response = match answer {
            Answer::Partition(response) => response,
            Answer::Written => {
                let outcome = Outcome::Delivered { base_offset: -1, log_append_time: None };
                return self.complete(id, batch, outcome);
            }
            Answer::None { cause, sent, stale } => {
                batch.maybe_persisted |= sent;
                batch.last_cause = Some(cause.clone());
                self.metadata.request_update();
                return if self.retries_left(&batch) {
                    self.retry(id, batch, !stale, now);
                } else {
                    self.give_up(id, batch, cause.clone(), now);
                };
            }
        };
        let facts = self.facts(id, &batch, response);
        let code = response.error_code;
        if !code.is_none() {
            batch.maybe_persisted |= !code.proves_not_appended();
            batch.last_cause = Some(cause_of(response));
        }
        if code.is_invalid_metadata() {
            self.metadata.request_update();
        }
        match verdict(&facts) {
            Verdict::Delivered => {
                self.deliver(id, batch, response.base_offset, response.log_append_time_ms);
            }
            Verdict::Duplicate => self.deliver(id, batch, -1, -1),
            Verdict::Retry => self.retry(id, batch, true, now),
            Verdict::RetryAfterBump => {
                self.tell_loss(id, &batch, code);
                self.index.partition_mut(id).sequences.require_bump();
                self.retry(id, batch, true, now);
            }
            Verdict::Split => self.split(id, batch, now),
            Verdict::Fail => self.fail_by_answer(id, batch, response, now),
        }
    }

    fn facts(
        &self,
        id: PartitionId,
        batch: &ProducerBatch,
        response: &PartitionProduceResponse,
    ) -> Facts {
        let sequences = &self.index.partition(id).sequences;
        Facts {
            code: response.error_code,
            stamped: batch.stamp.is_some(),
            first_outstanding: batch.stamp.is_some_and(|stamp| sequences.is_first(&stamp)),
            maybe_persisted: batch.maybe_persisted,
            retries_left: self.retries_left(batch),
            divisible: batch.record_count() > 1,
            log_start_known: response.log_start_offset >= 0,
        }
    }

    /// The first attempt is not a retry.
    fn retries_left(&self, batch: &ProducerBatch) -> bool {
        batch.tries() <= self.config.retries
    }

    fn deliver(&mut self, id: PartitionId, batch: Box<ProducerBatch>, base_offset: i64, time: i64) {
        if let Some(stamp) = &batch.stamp {
            self.index.partition_mut(id).sequences.on_delivered(stamp);
        }
        // Kafka 4.3.1 answers a duplicate with the batch's largest timestamp in this place, also
        // where the topic keeps the records' own.
        let own = batch.tries() > 1 && time == batch.builder.max_timestamp();
        let log_append_time = (time >= 0 && !own).then_some(time);
        self.complete(id, batch, Outcome::Delivered { base_offset, log_append_time });
    }

    /// Puts the batch back in line, not before its backoff is over, if there is to be one.
    fn retry(
        &mut self,
        id: PartitionId,
        mut batch: Box<ProducerBatch>,
        backs_off: bool,
        now: MonoTime,
    ) {
        debug_assert!(!self.has_ended(), "all batches are given up by then");
        debug_assert!(batch.last_cause.is_some(), "a retry without a cause");
        if batch.deadline(self.config.delivery_timeout) <= now {
            return self.give_up(id, batch, DeliveryCause::Timeout, now);
        }
        let backoff = self.retry_backoff(batch.tries());
        batch.retry_at = if backs_off { now + backoff } else { now };
        let records = batch.record_count();
        let cause = batch.last_cause.as_ref().map_or("", DeliveryCause::label);
        let topic = &self.index.partition(id).queue.topic;
        let sensors = &self.accumulator.sensors;
        sensors.with(|sensors| sensors.on_retry(topic, records, cause, now));
        self.index.put_back(id, std::iter::once(batch));
    }

    /// Fails the batch; with the guilty records named, where the broker names them (KIP-467).
    fn fail_by_answer(
        &mut self,
        id: PartitionId,
        batch: Box<ProducerBatch>,
        response: &PartitionProduceResponse,
        now: MonoTime,
    ) {
        if let Some(stamp) = &batch.stamp {
            self.index.partition_mut(id).sequences.on_given_up(stamp);
        }
        let cause = cause_of(response);
        if response.record_errors.is_empty() {
            return self.fail(id, batch, cause, now);
        }
        let mut named = BTreeMap::new();
        for record in &response.record_errors {
            let Ok(index) = u32::try_from(record.batch_index) else { continue };
            let message = record.message.clone().or_else(|| response.error_message.clone());
            let cause = DeliveryCause::Broker {
                code: response.error_code,
                message: message.unwrap_or_else(|| response.error_code.message().into()),
            };
            named.insert(index, self.delivery_error(id, &batch, cause, now));
        }
        let rest = if named.len() == batch.record_count() as usize {
            self.delivery_error(id, &batch, cause, now)
        } else {
            self.innocent(id, &batch, response.error_code, now)
        };
        self.record_failure(id, &batch, now);
        self.complete(id, batch, Outcome::FailedEach(Box::new(RecordErrors { rest, named })));
    }

    /// The error of a record that only shared a batch with a guilty one.
    fn innocent(
        &self,
        id: PartitionId,
        batch: &ProducerBatch,
        code: ErrorCode,
        now: MonoTime,
    ) -> Error {
        self.delivery_error(id, batch, DeliveryCause::BatchRejected { code }, now)
    }

    /// A refusal right behind the last acknowledged batch means that the broker has lost data or
    /// state that it had acknowledged.
    fn tell_loss(&self, id: PartitionId, batch: &ProducerBatch, code: ErrorCode) {
        let partition = self.index.partition(id);
        if batch.stamp.is_some_and(|stamp| partition.sequences.follows_last_acked(&stamp)) {
            let (topic, partition) =
                (Arc::clone(&partition.queue.topic), partition.queue.partition);
            self.accumulator.sensors.with(Sensors::on_loss);
            let event = ProducerEvent::AcknowledgedLoss { topic, partition, code };
            self.log(log::Level::Warn, || event.to_string());
            self.executor.tell_event(event);
        }
    }

    /// The broker asks for a pause (KIP-219), in an answer to whatever request.
    pub(super) fn pause(
        &mut self,
        node: NodeId,
        (api, version): (ApiKey, i16),
        throttle_ms: i32,
        now: MonoTime,
    ) {
        if is_planted(Defect::ThrottleIgnored) {
            return;
        }
        let is_ours = version >= api.client_throttles_from();
        if let (Ok(ms @ 1..), true) = (u64::try_from(throttle_ms), is_ours) {
            let delay = Duration::from_millis(ms);
            self.reach.on_throttle(node, delay, now);
            self.client.throttle(node, delay, now);
        }
    }

    /// The new leaders that the answer tells of (KIP-951).
    fn take_leader_hints(&mut self, parts: &[Part], response: &ProduceResponse, now: MonoTime) {
        let mut answers = response.topics.iter().flat_map(|topic| &topic.partitions);
        if answers.all(|answer| answer.current_leader.is_none()) {
            return;
        }
        let mut keys = Vec::new();
        let mut order = Matcher::new(response);
        for part in parts {
            let key = self.part_key(part);
            let leader = order.find(key).and_then(|answer| answer.current_leader);
            if let Some(leader) = leader.filter(|leader| leader.leader_id >= 0) {
                let (topic, _, partition) = key;
                keys.push((Arc::clone(topic), partition, leader));
            }
        }
        if keys.is_empty() {
            return;
        }
        let changes: Vec<_> = keys
            .iter()
            .map(|(topic, partition, leader)| LeaderChange {
                topic,
                partition: *partition,
                leader: NodeId(leader.leader_id),
                leader_epoch: leader.leader_epoch,
            })
            .collect();
        let before = Arc::clone(self.metadata.cluster());
        let changed = self.metadata.update_leaders(&changes, &response.node_endpoints);
        if self.metadata.cluster().nodes != before.nodes {
            self.hand_nodes_to_client(now);
        }
        self.on_leaders_changed(&changed, now);
    }
}

fn cause_of(response: &PartitionProduceResponse) -> DeliveryCause {
    let code = response.error_code;
    let message = response.error_message.clone().unwrap_or_else(|| code.message().into());
    DeliveryCause::Broker { code, message }
}

/// The response, `None` with acks=0, or why there is none that can be read.
fn read(
    outcome: Result<ResponseBody, RequestFailure>,
    version: i16,
) -> Result<Option<ProduceResponse>, DeliveryCause> {
    match outcome {
        Ok(ResponseBody::None) => Ok(None),
        Ok(ResponseBody::Bytes(bytes)) => {
            ProduceResponse::decode(&mut Reader::new(&bytes), version)
                .map(Some)
                .map_err(|error| DeliveryCause::BadResponse(error.to_string().into()))
        }
        Err(failure) => Err(failure_cause(failure)),
    }
}

/// Why there is no response, as users are told it.
pub(super) fn failure_cause(failure: RequestFailure) -> DeliveryCause {
    match failure {
        RequestFailure::Disconnected | RequestFailure::Stale => DeliveryCause::Disconnected,
        RequestFailure::TimedOut => DeliveryCause::RequestTimeout,
        RequestFailure::BadResponse(text) => DeliveryCause::BadResponse(text.into()),
    }
}

/// Finds partitions in a response. Brokers answer in the order of the request as a rule, so that
/// each search begins where the last one ended.
struct Matcher<'a> {
    answers: Vec<(TopicRef<'a>, &'a PartitionProduceResponse)>,
    next: usize,
}

impl<'a> Matcher<'a> {
    fn new(response: &'a ProduceResponse) -> Self {
        let topics = response.topics.iter();
        let answers =
            topics.flat_map(|t| t.partitions.iter().map(move |p| (t.topic.as_ref(), p))).collect();
        Self { answers, next: 0 }
    }

    fn find(
        &mut self,
        (name, topic_id, partition): (&Arc<str>, Uuid, i32),
    ) -> Option<&'a PartitionProduceResponse> {
        let matches = |(topic, answer): &(TopicRef<'_>, &PartitionProduceResponse)| {
            let same_topic = match topic {
                TopicRef::Name(n) => **n == **name,
                TopicRef::Id(id) => *id == topic_id,
            };
            same_topic && answer.index == partition
        };
        let from = self.next.min(self.answers.len());
        let (before, after) = self.answers.split_at(from);
        let found = after.iter().position(matches).map(|i| i + from);
        let found = found.or_else(|| before.iter().position(matches))?;
        self.next = found + 1;
        Some(self.answers[found].1)
    }
}

/// What came of a batch's request, for the simulator to see that all of it happens.
#[cfg(all(test, not(loom)))]
fn way(part: &Part, answer: &Answer<'_>) -> &'static str {
    match (part.batch.is_some(), answer) {
        (true, Answer::Partition(_)) => "answered",
        (true, Answer::Written) => "written, and no answer is wanted",
        (true, Answer::None { stale: true, .. }) => "the connection was too old",
        (true, Answer::None { sent: true, .. }) => "no answer",
        (true, Answer::None { sent: false, .. }) => "not sent",
        (false, Answer::Partition(it)) if delivers(it.error_code, true) => "expired, and delivered",
        (false, Answer::Partition(_)) => "expired, and refused",
        (false, _) => "expired, and no answer",
    }
}

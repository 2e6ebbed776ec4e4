//! The Produce API: a verdict for each partition of a request.

use crate::protocol::ErrorCode;
use crate::protocol::{
    NodeEndpoint, PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse,
    RecordError, TopicProduceResponse, TopicRef,
};
use crate::testing::faults::Plan;

use super::Model;
use super::batch::{Refusal, is_transactional, only_batch};
use super::log::{Appended, Terms};
use super::release::Release;

/// A partition's part of a request, and how to read it.
struct Attempt<'a> {
    broker: i32,
    release: Release,
    version: i16,
    acks: i16,
    now_ms: i64,
    topic: &'a str,
    data: &'a PartitionProduceData<'a>,
}

/// What became of a request.
pub(crate) struct Outcome {
    topics: Vec<TopicProduceResponse>,
    node_endpoints: Vec<NodeEndpoint>,
}

impl Outcome {
    pub(crate) fn has_error(&self) -> bool {
        let mut partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.any(|partition| partition.error_code != ErrorCode::NONE)
    }

    pub(crate) fn into_response(self, throttle_time_ms: i32) -> ProduceResponse {
        let Self { topics, node_endpoints } = self;
        ProduceResponse { topics, throttle_time_ms, node_endpoints }
    }
}

/// A partition's verdict: where its batch is, or why it is refused.
struct Verdict {
    result: Result<Appended, Refusal>,
    /// What went wrong after the append: an error that yet tells the offset, as in Kafka.
    afterwards: Option<ErrorCode>,
    log_start_offset: i64,
}

impl Verdict {
    /// A refusal that a broker makes without a look at the log.
    fn refused(code: ErrorCode) -> Self {
        Self { result: Err(code.into()), afterwards: None, log_start_offset: -1 }
    }
}

impl Model {
    /// Carries a produce request out as `broker` would.
    pub(super) fn produce(
        &mut self,
        broker: i32,
        version: i16,
        request: &ProduceRequest<'_>,
        now_ms: i64,
        plan: &Plan,
    ) -> Outcome {
        let release = self.release(broker);
        let forbidden = request.transactional_id.is_none() && has_transactional_batch(request);
        let mut outcome = Outcome { topics: Vec::new(), node_endpoints: Vec::new() };
        for topic in &request.topics {
            let name = self.name_known_to(broker, topic.topic).cloned();
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for data in &topic.partitions {
                let verdict = match (&name, topic.topic) {
                    _ if forbidden => {
                        Verdict::refused(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
                    }
                    (None, TopicRef::Name(_)) => {
                        Verdict::refused(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
                    }
                    (None, TopicRef::Id(_)) => Verdict::refused(ErrorCode::UNKNOWN_TOPIC_ID),
                    (Some(topic), _) => {
                        let acks = request.acks;
                        let attempt =
                            Attempt { broker, release, version, acks, now_ms, topic, data };
                        self.append_as_planned(&attempt, plan)
                    }
                };
                let mut response = response(data.index, verdict);
                if matches!(
                    response.error_code,
                    ErrorCode::NOT_LEADER_OR_FOLLOWER | ErrorCode::FENCED_LEADER_EPOCH
                ) {
                    let endpoints = &mut outcome.node_endpoints;
                    self.tell_leader(broker, name.as_deref(), &mut response, endpoints);
                }
                response.error_code = release.produce_code(response.error_code, version);
                partitions.push(response);
            }
            outcome.topics.push(TopicProduceResponse { topic: topic.topic.into(), partitions });
        }
        outcome
    }

    fn append_as_planned(&mut self, attempt: &Attempt<'_>, plan: &Plan) -> Verdict {
        let injected = plan.error_for(attempt.topic, Some(attempt.data.index));
        if let Some(injected) = injected.filter(|injected| !injected.after) {
            return Verdict::refused(injected.code);
        }
        let mut verdict = self.append(attempt);
        if verdict.result.is_ok() {
            verdict.afterwards = injected.map(|injected| injected.code);
            // What is told to be a duplicate is acknowledged, too.
            let is_acknowledged =
                matches!(verdict.afterwards, None | Some(ErrorCode::DUPLICATE_SEQUENCE_NUMBER));
            if is_acknowledged && plan.cut_after.is_none() {
                self.replicate(attempt);
            }
        }
        verdict
    }

    /// What is acknowledged for all replicas, they have; so has a leader that is alone. The high
    /// watermark stands still while too few replicas are in sync (KIP-966).
    fn replicate(&mut self, attempt: &Attempt<'_>) {
        let Some(topic) = self.topics.get_mut(attempt.topic) else { return };
        let index = usize::try_from(attempt.data.index).ok();
        if let Some(partition) = index.and_then(|index| topic.partitions.get_mut(index)) {
            let (in_sync, needed) = (partition.in_sync.len(), partition.min_in_sync(&topic.config));
            if in_sync >= needed && (attempt.acks == -1 || in_sync <= 1) {
                partition.log.replicated();
            }
        }
    }

    /// The checks, in Kafka's order.
    fn append(&mut self, attempt: &Attempt<'_>) -> Verdict {
        let keep = self.settings.keep;
        let Some(index) = usize::try_from(attempt.data.index).ok() else {
            return Verdict::refused(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        };
        let is_known = self.is_known_to(attempt.broker, attempt.topic, attempt.data.index);
        let topic = self.topics.get_mut(attempt.topic).filter(|_| is_known);
        let Some((config, partition)) =
            topic.and_then(|t| Some((&t.config, t.partitions.get_mut(index)?)))
        else {
            return Verdict::refused(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        };
        let batch = match only_batch(attempt.data.records.unwrap_or_default(), attempt.version) {
            Ok(batch) => batch,
            Err(code) => return Verdict::refused(code),
        };
        if !(-1..=1).contains(&attempt.acks) {
            return Verdict::refused(ErrorCode::INVALID_REQUIRED_ACKS);
        }
        if partition.leader != Some(attempt.broker) {
            return Verdict::refused(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        }
        let log_start_offset = partition.log.start_offset;
        if attempt.acks == -1 && partition.in_sync.len() < partition.min_in_sync(config) {
            let refused = Verdict::refused(ErrorCode::NOT_ENOUGH_REPLICAS);
            return Verdict { log_start_offset, ..refused };
        }
        let &Attempt { release, now_ms, .. } = attempt;
        match partition.log.append(batch, &Terms { config, release, keep, now_ms }) {
            // These a broker reports without the log's start.
            Err(Refusal {
                code:
                    code @ (ErrorCode::MESSAGE_TOO_LARGE
                    | ErrorCode::RECORD_LIST_TOO_LARGE
                    | ErrorCode::CORRUPT_MESSAGE),
                ..
            }) => Verdict::refused(code),
            result => Verdict { result, afterwards: None, log_start_offset },
        }
    }

    /// Names the new leader and its address, as far as `broker` knows them (KIP-951).
    fn tell_leader(
        &self,
        broker: i32,
        topic: Option<&str>,
        response: &mut PartitionProduceResponse,
        endpoints: &mut Vec<NodeEndpoint>,
    ) {
        let known = topic.and_then(|topic| self.leader_known_to(broker, topic, response.index));
        let Some((leader, address)) = known else { return };
        response.current_leader = Some(leader);
        if !endpoints.iter().any(|node| node.node_id == leader.leader_id) {
            endpoints.extend(address);
        }
    }
}

fn has_transactional_batch(request: &ProduceRequest<'_>) -> bool {
    let mut data = request.topics.iter().flat_map(|topic| &topic.partitions);
    data.any(|data| data.records.is_some_and(is_transactional))
}

fn response(index: i32, verdict: Verdict) -> PartitionProduceResponse {
    let mut response = PartitionProduceResponse {
        index,
        error_code: ErrorCode::NONE,
        base_offset: -1,
        log_append_time_ms: -1,
        log_start_offset: verdict.log_start_offset,
        record_errors: Vec::new(),
        error_message: None,
        current_leader: None,
    };
    match verdict.result {
        Ok(appended) => {
            response.error_code = verdict.afterwards.unwrap_or(ErrorCode::NONE);
            response.base_offset = appended.base_offset;
            response.log_append_time_ms = appended.log_append_time_ms;
        }
        Err(refusal) => {
            response.error_code = refusal.code;
            if !refusal.records.is_empty() {
                response.error_message = Some("one or more records have been rejected".into());
            }
            let records = refusal.records.into_iter();
            response.record_errors = records
                .map(|(batch_index, message)| RecordError {
                    batch_index,
                    message: Some(message.into()),
                })
                .collect();
        }
    }
    response
}

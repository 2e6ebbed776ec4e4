//! The Produce API: a verdict for each partition of a request.

use std::sync::Arc;

use crate::protocol::ErrorCode;
use crate::protocol::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionProduceData, PartitionProduceResponse, ProduceRequest,
    ProduceResponse, RecordError, TopicProduceResponse, TopicRef,
};
use crate::testing::faults::Plan;

use super::Model;
use super::batch::{Refusal, is_transactional, only_batch};
use super::topic::Appended;

/// A partition's part of a request, and how to read it.
struct Attempt<'a> {
    broker: i32,
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
    log_start_offset: i64,
}

impl Verdict {
    /// A refusal that a broker makes without a look at the log.
    fn refused(code: ErrorCode) -> Self {
        Self { result: Err(code.into()), log_start_offset: -1 }
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
        let forbidden = request.transactional_id.is_none() && has_transactional_batch(request);
        let mut outcome = Outcome { topics: Vec::new(), node_endpoints: Vec::new() };
        for topic in &request.topics {
            let name: Option<Arc<str>> = match topic.topic {
                TopicRef::Name(name) => {
                    self.topics.get_key_value(name).map(|(name, _)| name.clone())
                }
                TopicRef::Id(id) => self.name_of(id).cloned(),
            };
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
                        let attempt = Attempt { broker, version, acks, now_ms, topic, data };
                        self.append_as_planned(&attempt, plan)
                    }
                };
                let mut response = response(data.index, verdict);
                if response.error_code == ErrorCode::NOT_LEADER_OR_FOLLOWER {
                    self.tell_leader(name.as_deref(), &mut response, &mut outcome.node_endpoints);
                }
                partitions.push(response);
            }
            outcome.topics.push(TopicProduceResponse { topic: topic.topic.into(), partitions });
        }
        outcome
    }

    fn append_as_planned(&mut self, attempt: &Attempt<'_>, plan: &Plan) -> Verdict {
        let Some(injected) = plan.error_for(attempt.topic, Some(attempt.data.index)) else {
            return self.append(attempt);
        };
        if injected.after {
            self.append(attempt);
        }
        Verdict::refused(injected.code)
    }

    /// The checks, in Kafka's order.
    fn append(&mut self, attempt: &Attempt<'_>) -> Verdict {
        let keep = self.settings.keep;
        let Some(index) = usize::try_from(attempt.data.index).ok() else {
            return Verdict::refused(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        };
        let topic = self.topics.get_mut(attempt.topic);
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
        let needed = config.min_insync_replicas.min(partition.replicas.len());
        let log_start_offset = partition.log.start_offset;
        if attempt.acks == -1 && partition.in_sync.len() < needed {
            let result = Err(ErrorCode::NOT_ENOUGH_REPLICAS.into());
            return Verdict { result, log_start_offset };
        }
        match partition.log.append(batch, config, keep, attempt.now_ms) {
            // These two a broker reports without the log's start.
            Err(Refusal {
                code: code @ (ErrorCode::MESSAGE_TOO_LARGE | ErrorCode::CORRUPT_MESSAGE),
                ..
            }) => Verdict::refused(code),
            result => Verdict { result, log_start_offset },
        }
    }

    /// Names the new leader and its address (KIP-951).
    fn tell_leader(
        &self,
        topic: Option<&str>,
        response: &mut PartitionProduceResponse,
        endpoints: &mut Vec<NodeEndpoint>,
    ) {
        let Some(partition) = topic.and_then(|topic| self.partition(topic, response.index)) else {
            return;
        };
        let leader_id = partition.leader.unwrap_or(-1);
        let leader_epoch = partition.leader_epoch;
        response.current_leader = Some(LeaderIdAndEpoch { leader_id, leader_epoch });
        let known = endpoints.iter().any(|node| node.node_id == leader_id);
        if let Some(broker) = self.brokers.get(&leader_id).filter(|b| b.alive && !known) {
            endpoints.push(NodeEndpoint {
                node_id: leader_id,
                host: Arc::clone(&broker.host),
                port: broker.port.into(),
                rack: broker.rack.clone(),
            });
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

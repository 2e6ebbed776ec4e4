//! A client for models: one broker that leads two partitions, and answers each request at the next
//! poll. Its poll sleeps until it is woken, as long as it may: no time passes in a model.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use crate::client::{
    ClientEvent, ClientRequest, ClientResponse, KafkaClient, NodeAddress, ResponseBody,
    VersionError,
};
use crate::protocol::{
    ApiKey, ErrorCode, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic, PartitionProduceResponse, ProduceResponse, TopicKey,
    TopicProduceResponse,
};
use crate::sync::Arc;
use crate::sync::model::Poll;
use crate::time::MonoTime;
use crate::types::{NodeId, Uuid};

const OK: ErrorCode = ErrorCode::NONE;

pub(super) struct PlayedClient {
    poll: Arc<Poll>,
    answers: VecDeque<ClientEvent>,
}

impl PlayedClient {
    pub(super) fn new(poll: Arc<Poll>) -> Self {
        Self { poll, answers: VecDeque::new() }
    }
}

fn answer(request: &ClientRequest) -> Vec<u8> {
    let mut bytes = Vec::new();
    match request.api {
        ApiKey::Metadata => metadata().encode(request.version, &mut bytes),
        ApiKey::Produce => {
            // Both are told of whichever was sent: the sender looks for those that it asked for.
            let partition = |index| PartitionProduceResponse {
                index,
                error_code: OK,
                base_offset: 0,
                log_append_time_ms: -1,
                log_start_offset: -1,
                record_errors: Vec::new(),
                error_message: None,
                current_leader: None,
            };
            let topic = TopicKey::Name("t".into());
            let topics =
                vec![TopicProduceResponse { topic, partitions: [0, 1].map(partition).into() }];
            let response =
                ProduceResponse { topics, throttle_time_ms: 0, node_endpoints: Vec::new() };
            response.encode(request.version, &mut bytes);
        }
        other => panic!("{other:?} is not asked without idempotence"),
    }
    bytes
}

fn metadata() -> MetadataResponse {
    let partition = |partition_index| MetadataResponsePartition {
        error_code: OK,
        partition_index,
        leader_id: 1,
        leader_epoch: 0,
        replica_nodes: Vec::new(),
        isr_nodes: Vec::new(),
        offline_replicas: Vec::new(),
    };
    MetadataResponse {
        throttle_time_ms: 0,
        brokers: vec![MetadataResponseBroker {
            node_id: 1,
            host: "broker".into(),
            port: 9092,
            rack: None,
        }],
        cluster_id: None,
        controller_id: 1,
        topics: vec![MetadataResponseTopic {
            error_code: OK,
            name: Some("t".into()),
            topic_id: Uuid::ZERO,
            is_internal: false,
            partitions: [0, 1].map(partition).into(),
        }],
        error_code: OK,
    }
}

impl KafkaClient for PlayedClient {
    fn set_nodes(&mut self, _nodes: Vec<NodeAddress>, _now: MonoTime) {}

    fn ready(&mut self, _node: NodeId, _now: MonoTime) -> bool {
        true
    }

    fn is_ready(&self, _node: NodeId, _now: MonoTime) -> bool {
        true
    }

    fn ready_delay(&self, _node: NodeId, _now: MonoTime) -> Duration {
        Duration::MAX
    }

    fn least_loaded_node(&mut self, _now: MonoTime) -> Option<NodeId> {
        Some(NodeId(1))
    }

    fn any_node_available(&self, _now: MonoTime) -> bool {
        true
    }

    fn api_version(&self, _node: NodeId, api: ApiKey) -> Result<i16, VersionError> {
        // Topics by name.
        Ok(api.supported().max.min(12))
    }

    fn finalized_feature(&self, _name: &str) -> Option<i16> {
        None
    }

    fn next_correlation_id(&mut self) -> i32 {
        0
    }

    fn client_id(&self) -> &str {
        "model"
    }

    fn send(&mut self, request: ClientRequest, now: MonoTime) {
        let bytes = answer(&request);
        let ClientRequest { node, api, version, frame, tag, .. } = request;
        self.answers.push_back(ClientEvent::Response(ClientResponse {
            node,
            tag,
            api,
            version,
            frame,
            outcome: Ok(ResponseBody::Bytes(bytes)),
            sent: true,
            created_at: now,
        }));
    }

    fn throttle(&mut self, _node: NodeId, _duration: Duration, _now: MonoTime) {}

    fn disconnect(&mut self, _node: NodeId, _now: MonoTime) {}

    fn poll(
        &mut self,
        timeout: Option<Duration>,
        now: MonoTime,
        events: &mut Vec<ClientEvent>,
    ) -> io::Result<MonoTime> {
        if self.answers.is_empty() && timeout != Some(Duration::ZERO) {
            self.poll.wait();
        }
        events.extend(self.answers.drain(..));
        Ok(now)
    }

    fn close(&mut self, _now: MonoTime, events: &mut Vec<ClientEvent>) {
        events.extend(self.answers.drain(..));
    }
}

//! What the sender needs to do its work: metadata and the producer id.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Sender;
use super::answer::failure_cause;
use super::index::leader_of;
use super::reach::Subject;
use crate::accumulator::inbox::PartitionId;
use crate::accumulator::topic_map::Topic;
use crate::claims;
use crate::client::{
    ClientRequest, ClientResponse, KafkaClient, NodeAddress, ResponseBody, Stage, VersionError,
};
use crate::error::DeliveryCause;
use crate::metadata::{Cluster, Metadata, Update};
use crate::network::OutFrame;
use crate::protocol::MetadataResponse;
use crate::protocol::Reader;
use crate::protocol::{ApiKey, ErrorCode, encode_request};
use crate::protocol::{InitProducerIdRequest, InitProducerIdResponse};
use crate::sync::Arc;
use crate::time::MonoTime;
use crate::transaction::{ProducerIdAndEpoch, TransactionManager};
use crate::types::{NodeId, TopicPartition};

/// Failures that are no one broker's.
const PRODUCER_ID: (Subject, NodeId) = (Subject::ProducerId, NodeId(0));
const REBOOTSTRAP: (Subject, NodeId) = (Subject::Rebootstrap, NodeId(0));

/// From Kafka 3.0 on the right to write to a topic is enough (KIP-679).
const NEEDS_IDEMPOTENT_WRITE: &str = "No producer id for this client: with enable.idempotence it \
    needs the right to write to a topic, and before Kafka 3.0 IdempotentWrite on the cluster.";

/// Requests of the sender's own, and what they are for.
#[derive(Default)]
pub(super) struct Upkeep {
    /// The tag of the metadata request under way.
    metadata_request: Option<u64>,
    /// The tag of the InitProducerId request under way.
    id_request: Option<u64>,
    /// Somebody is to send: a producer id is needed.
    id_wanted: bool,
    /// What the last attempt to get one met, if it is to be tried again.
    id_failure: Option<Arc<DeliveryCause>>,
    /// The nodes that speak no version that we do.
    too_old: BTreeSet<NodeId>,
    /// The nodes were handed to the client.
    started: bool,
}

impl Upkeep {
    pub(super) fn want_producer_id(&mut self) {
        self.id_wanted = true;
    }

    /// Why there is no producer id yet, if getting one has failed.
    pub(super) fn id_failure(&self) -> Option<DeliveryCause> {
        self.id_failure.clone().map(DeliveryCause::NoProducerId)
    }

    pub(super) fn is_waiting_for(&self, tag: u64) -> bool {
        self.metadata_request == Some(tag) || self.id_request == Some(tag)
    }

    /// Between turns: what is asked for is under way, and nothing else is; a failure is told of
    /// only where there is one; and all nodes that were found too old are there.
    pub(super) fn invariants(&self, metadata: &Metadata, transaction: Option<&TransactionManager>) {
        if !claims::are_checked() {
            return;
        }
        assert_eq!(self.metadata_request.is_some(), metadata.is_asking(), "metadata's request");
        let is_initializing = transaction.is_some_and(TransactionManager::is_initializing);
        assert_eq!(self.id_request.is_some(), is_initializing, "the producer id's request");
        let has_failed = transaction.is_some_and(|t| t.failures() > 0);
        assert!(has_failed || self.id_failure.is_none(), "{:?}", self.id_failure);
        let nodes = &metadata.cluster().nodes;
        assert!(self.too_old.iter().all(|node| nodes.contains_key(node)), "{:?}", self.too_old);
    }
}

impl<C: KafkaClient> Sender<C> {
    /// Asks for metadata and for a producer id where that is due.
    pub(super) fn keep_up(&mut self, now: MonoTime) {
        if !self.upkeep.started {
            self.upkeep.started = true;
            self.hand_nodes_to_client(now);
        }
        if self.metadata.due(now).is_zero() {
            self.ask_for_metadata(now);
        }
        if self.wants_producer_id(now) {
            self.ask_for_producer_id(now);
        }
        self.connect_to_wanted_leaders(now);
    }

    /// When upkeep wants the next turn.
    pub(super) fn upkeep_deadline(&mut self, now: MonoTime) -> MonoTime {
        let metadata = now + self.metadata.due(now);
        let id = self.transaction.as_ref().and_then(|t| t.wants_id_at());
        let id = id.filter(|_| self.upkeep.id_wanted).unwrap_or(MonoTime::MAX);
        let leaders = self.wanted_leaders_deadline(now);
        let until = metadata.min(id);
        if until > now {
            return until.min(leaders);
        }
        // Due already: since this turn's upkeep, or no node could take it and the question is when
        // one will.
        let wait = match self.client.least_loaded_node(now) {
            Some(node) if self.client.is_ready(node, now) => Duration::ZERO,
            Some(node) => self.client.ready_delay(node, now),
            None => self.nearest_node_delay(now),
        };
        leaders.min(now + wait)
    }

    /// How long until some node may be connected to again.
    fn nearest_node_delay(&self, now: MonoTime) -> Duration {
        let nodes = self.metadata.cluster().nodes.keys();
        nodes.map(|node| self.client.ready_delay(*node, now)).min().unwrap_or(Duration::MAX)
    }

    fn wants_producer_id(&self, now: MonoTime) -> bool {
        let due = self.transaction.as_ref().and_then(|t| t.wants_id_at());
        self.upkeep.id_wanted && due.is_some_and(|at| at <= now)
    }

    fn ask_for_metadata(&mut self, now: MonoTime) {
        let out_of_reach =
            self.metadata.rebootstrap_due(now) || !self.client.any_node_available(now);
        if out_of_reach && self.metadata.rebootstrap(now) {
            let text = "no known broker can be reached: starting anew from bootstrap.servers";
            self.log_failure(log::Level::Info, REBOOTSTRAP, || text.into(), now);
            self.hand_nodes_to_client(now);
        }
        let Some(node) = self.client.least_loaded_node(now) else { return };
        if !self.client.ready(node, now) {
            return;
        }
        let version = match self.client.api_version(node, ApiKey::Metadata) {
            Ok(version) => version,
            Err(error) => return self.unusable(node, &error, now),
        };
        let request = self.metadata.next_request(now);
        let tag = self.send_small(node, ApiKey::Metadata, version, now, |out| {
            request.encode(version, out);
        });
        self.upkeep.metadata_request = Some(tag);
    }

    fn ask_for_producer_id(&mut self, now: MonoTime) {
        let Some(node) = self.client.least_loaded_node(now) else { return };
        if !self.client.ready(node, now) {
            return;
        }
        let version = match self.client.api_version(node, ApiKey::InitProducerId) {
            Ok(version) => version,
            Err(VersionError::NotReady) => return,
            Err(VersionError::Unsupported(unsupported)) => {
                let cause = DeliveryCause::UnsupportedVersion(unsupported.to_string().into());
                self.on_no_producer_id(&cause, now);
                return;
            }
        };
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: i32::MAX,
            producer_id: -1,
            producer_epoch: -1,
        };
        let tag = self.send_small(node, ApiKey::InitProducerId, version, now, |out| {
            request.encode(version, out);
        });
        self.upkeep.id_request = Some(tag);
        if let Some(transaction) = &mut self.transaction {
            transaction.on_id_requested();
        }
    }

    fn send_small(
        &mut self,
        node: NodeId,
        api: ApiKey,
        version: i16,
        now: MonoTime,
        body: impl FnOnce(&mut Vec<u8>),
    ) -> u64 {
        let tag = self.next_tag;
        self.next_tag += 1;
        let correlation_id = self.client.next_correlation_id();
        let mut head = Vec::new();
        encode_request(
            api,
            version,
            correlation_id,
            Some(self.client.client_id()),
            &mut head,
            body,
        );
        let request = ClientRequest {
            node,
            api,
            version,
            frame: OutFrame::from_head(head),
            correlation_id,
            expects_response: true,
            timeout: self.config.request_timeout,
            tag,
        };
        self.client.send(request, now);
        tag
    }

    /// Takes in an answer to one of our own requests.
    pub(super) fn hear_upkeep(&mut self, response: ClientResponse, now: MonoTime) {
        let ClientResponse { node, tag, version, outcome, .. } = response;
        let bytes = match outcome {
            Ok(ResponseBody::Bytes(bytes)) => Ok(bytes),
            // Ours all have an answer.
            Ok(ResponseBody::None) => Err(DeliveryCause::Disconnected),
            Err(failure) => Err(failure_cause(failure)),
        };
        if self.upkeep.metadata_request == Some(tag) {
            self.upkeep.metadata_request = None;
            self.hear_metadata(node, version, bytes.ok().as_deref(), now);
        } else {
            self.upkeep.id_request = None;
            self.hear_producer_id(node, version, bytes, now);
        }
    }

    fn hear_metadata(&mut self, node: NodeId, version: i16, bytes: Option<&[u8]>, now: MonoTime) {
        let Some(bytes) = bytes else {
            return self.metadata.handle_failure(now);
        };
        let response = match MetadataResponse::decode(&mut Reader::new(bytes), version) {
            Ok(response) => response,
            Err(error) => {
                let text = format!("broker {node} sent metadata that can't be read: {error}");
                self.metadata.cell().set_trouble(text);
                self.metadata.handle_failure(now);
                self.cut(node, now);
                return;
            }
        };
        let api = (ApiKey::Metadata, version);
        self.heed_throttle(node, api, response.throttle_time_ms, now);
        self.note_used_topics();
        let index = &self.index;
        let active = index.active();
        let pending = |topic: &str| {
            active.iter().any(|id| {
                let partition = index.partition(*id);
                *partition.queue.topic == *topic
                    && (!partition.in_flight.is_empty()
                        || !partition.queue.lock().batches.is_empty())
            })
        };
        let update = self.metadata.handle_response(&response, version, now, &pending);
        match update {
            Update::Applied => {
                self.reach.on_metadata(node);
                let metadata = &self.metadata;
                self.accumulator.sensors.with(|sensors| {
                    sensors.on_metadata(now);
                    sensors.retain_topics(|topic| metadata.knows(topic));
                });
                self.on_cluster_changed(now);
                self.ask_on_for_leaders();
            }
            Update::Refused(reason) => {
                let what = (Subject::Metadata, node);
                self.log_failure(log::Level::Warn, what, || reason.to_string(), now);
            }
            Update::Rebootstrap => self.hand_nodes_to_client(now),
        }
    }

    /// Batches that still have no leader want the next answer, also where no error called for it;
    /// and so do calls that wait for one.
    fn ask_on_for_leaders(&mut self) {
        let waits = |id: &PartitionId| {
            let partition = self.index.partition(*id);
            partition.leader.is_none() && !partition.queue.lock().batches.is_empty()
        };
        if self.lacks_wanted_leader() || self.index.active().iter().any(waits) {
            self.metadata.request_update();
        }
    }

    /// Tells the metadata which topics records went to.
    fn note_used_topics(&mut self) {
        for topic in self.accumulator.topics.all() {
            if topic.partition_count() > 0 {
                self.metadata.touch(&topic.name, topic.last_used());
            }
        }
    }

    fn hear_producer_id(
        &mut self,
        node: NodeId,
        version: i16,
        bytes: Result<Vec<u8>, DeliveryCause>,
        now: MonoTime,
    ) {
        let response = bytes.and_then(|bytes| {
            InitProducerIdResponse::decode(&mut Reader::new(&bytes), version)
                .map_err(|error| DeliveryCause::BadResponse(error.to_string().into()))
        });
        if let Ok(response) = &response {
            let api = (ApiKey::InitProducerId, version);
            self.heed_throttle(node, api, response.throttle_time_ms, now);
        }
        let Some(transaction) = &mut self.transaction else { return };
        match response {
            Ok(r) if r.error_code.is_none() => {
                let producer = ProducerIdAndEpoch { id: r.producer_id, epoch: r.producer_epoch };
                transaction.on_id(producer);
                (self.upkeep.id_wanted, self.upkeep.id_failure) = (false, None);
                for id in self.index.active() {
                    self.look(id, now);
                }
            }
            Ok(r) => {
                let retriable = r.error_code.is_retriable()
                    || r.error_code == ErrorCode::COORDINATOR_LOAD_IN_PROGRESS;
                let message = match r.error_code {
                    ErrorCode::CLUSTER_AUTHORIZATION_FAILED => NEEDS_IDEMPOTENT_WRITE,
                    code => code.message(),
                };
                let cause = DeliveryCause::Broker { code: r.error_code, message: message.into() };
                if retriable {
                    self.on_id_failure(cause, now);
                } else {
                    self.producer_id_backoff(now);
                    self.on_no_producer_id(&cause, now);
                }
            }
            Err(cause) => {
                if matches!(cause, DeliveryCause::BadResponse(_)) {
                    self.cut(node, now);
                }
                self.on_id_failure(cause, now);
            }
        }
    }

    /// An attempt to get a producer id was in vain; another follows.
    fn on_id_failure(&mut self, cause: DeliveryCause, now: MonoTime) {
        self.producer_id_backoff(now);
        let text = || format!("no producer id yet: {cause}");
        self.log_failure(log::Level::Info, PRODUCER_ID, text, now);
        self.upkeep.id_failure = Some(Arc::new(cause));
    }

    fn heed_throttle(&mut self, node: NodeId, api: (ApiKey, i16), ms: i32, now: MonoTime) {
        self.accumulator.sensors.with(|sensors| sensors.on_throttle(node, ms, now));
        self.pause(node, api, ms, now);
    }

    fn producer_id_backoff(&mut self, now: MonoTime) {
        let failures = self.transaction.as_ref().map_or(0, |t| t.failures());
        let backoff = self.retry_backoff(failures + 1);
        if let Some(transaction) = &mut self.transaction {
            transaction.on_id_failed(now, backoff);
        }
    }

    /// The cluster gives no producer id: the records that need one fail, and the next ones try
    /// again. Not fatal: the cluster's configuration may be mended.
    fn on_no_producer_id(&mut self, cause: &DeliveryCause, now: MonoTime) {
        self.log_failure(log::Level::Warn, PRODUCER_ID, || format!("no producer id: {cause}"), now);
        (self.upkeep.id_wanted, self.upkeep.id_failure) = (false, None);
        for id in self.index.active() {
            let mut without = Vec::new();
            {
                let mut queue = self.index.partition(id).queue.lock();
                let stamped = queue.batches.iter().take_while(|b| b.stamp.is_some()).count();
                without.extend(queue.batches.drain(stamped..));
                queue.invariants();
            }
            if without.is_empty() {
                continue;
            }
            for mut batch in without {
                batch.last_cause = Some(cause.clone());
                self.give_up(id, batch, cause.clone(), now);
            }
            self.look(id, now);
        }
    }

    /// The broker can't be asked in any version that we speak.
    fn unusable(&mut self, node: NodeId, error: &VersionError, now: MonoTime) {
        if let VersionError::Unsupported(unsupported) = error {
            self.metadata.cell().set_trouble(unsupported.to_string());
            self.upkeep.too_old.insert(node);
            let nodes = &self.metadata.cluster().nodes;
            if nodes.keys().all(|id| self.upkeep.too_old.contains(id)) {
                self.metadata.cell().fail_waiting(unsupported.into());
            }
            self.metadata.handle_failure(now);
            self.cut(node, now);
        }
    }

    pub(super) fn hear_connected(&mut self, node: NodeId) {
        // It may have left the cluster meanwhile, and is cut off again.
        if self.metadata.cluster().nodes.contains_key(&node) {
            self.reach.on_connected(node);
            self.tell_reach();
        }
        if node.0 >= 0 {
            self.metadata.on_broker_reached();
        }
    }

    /// A connection that stood has ended.
    pub(super) fn hear_disconnect(
        &mut self,
        node: NodeId,
        stage: Stage,
        reason: &str,
        now: MonoTime,
    ) {
        let is_idle = stage == Stage::Idle;
        if !is_idle {
            self.metadata.cell().set_trouble(reason);
            self.reach.on_lost(node);
            self.tell_reach();
            self.suspect_leader(node);
        }
        // Brokers and load balancers cut what is not used: nothing that anybody need care for.
        let level = if is_idle { log::Level::Debug } else { log::Level::Info };
        let what = (Subject::Connection, node);
        self.log_failure(level, what, || format!("disconnected: {reason}"), now);
    }

    /// Ends a connection whose answers can't be trusted any more.
    pub(super) fn cut(&mut self, node: NodeId, now: MonoTime) {
        self.client.disconnect(node, now);
        self.reach.on_lost(node);
        self.tell_reach();
    }

    /// An attempt to connect has failed.
    pub(super) fn hear_unreachable(&mut self, node: NodeId, reason: &str, now: MonoTime) {
        let reason = self.reach.on_unreachable(node, reason);
        self.metadata.cell().set_trouble(Arc::clone(&reason));
        self.tell_reach();
        let what = (Subject::Connection, node);
        self.log_failure(log::Level::Warn, what, || format!("no connection: {reason}"), now);
        self.suspect_leader(node);
    }

    /// A leader that went away may have been replaced.
    fn suspect_leader(&mut self, node: NodeId) {
        let leads = self.metadata.cluster().nodes.contains_key(&node);
        if leads && !self.metadata.cluster().bootstrap {
            self.metadata.request_update();
        }
    }

    pub(super) fn hand_nodes_to_client(&mut self, now: MonoTime) {
        let nodes = self.metadata.cluster().nodes.values();
        let addresses =
            nodes.map(|n| NodeAddress { id: n.id, host: Arc::clone(&n.host), port: n.port });
        let addresses: Vec<_> = addresses.collect();
        if self.reach.set_nodes(&addresses) {
            self.tell_reach();
        }
        self.upkeep.too_old.clear();
        self.client.set_nodes(addresses, now);
    }

    /// A new snapshot: nodes, partition counts and leaders may have changed.
    pub(super) fn on_cluster_changed(&mut self, now: MonoTime) {
        self.hand_nodes_to_client(now);
        let cluster = Arc::clone(self.metadata.cluster());
        for topic in self.accumulator.topics.all() {
            tell_users(&topic, &cluster);
        }
        for id in self.index.ids() {
            self.follow_leader(id, &cluster, now);
        }
        if self.upkeep.id_wanted {
            return;
        }
        self.upkeep.id_wanted = self.index.len() > 0
            && self.transaction.as_ref().is_some_and(|t| t.producer().is_none());
    }

    /// These partitions have new leaders, and nothing else is new.
    pub(super) fn on_leaders_changed(&mut self, changed: &[TopicPartition], now: MonoTime) {
        let cluster = Arc::clone(self.metadata.cluster());
        for of_topic in changed.chunk_by(|a, b| a.topic == b.topic) {
            let Some(topic) = self.accumulator.topics.find(&of_topic[0].topic) else { continue };
            tell_users(&topic, &cluster);
            for TopicPartition { partition, .. } in of_topic {
                let queue = u32::try_from(*partition).ok().and_then(|p| topic.find_queue(p));
                if let Some(id) = queue.map(|queue| queue.id) {
                    self.follow_leader(id, &cluster, now);
                }
            }
        }
    }

    /// Takes over who leads a partition.
    fn follow_leader(&mut self, id: PartitionId, cluster: &Cluster, now: MonoTime) {
        let partition = self.index.partition(id);
        let (leader, epoch) = leader_of(cluster, &partition.queue);
        if (leader, epoch) != (partition.leader, partition.leader_epoch) {
            self.set_leader(id, leader, epoch, now);
            self.look(id, now);
        }
    }

    /// `retry.backoff.ms` doubled for each attempt but the first, up to its bound, with jitter.
    pub(super) fn retry_backoff(&mut self, attempts: u32) -> Duration {
        let (base, max) = (self.config.retry_backoff, self.config.retry_backoff_max);
        self.random.backoff(base, max, attempts.saturating_sub(1))
    }
}

/// Tells users' threads what the snapshot says of a topic.
fn tell_users(topic: &Topic, cluster: &Cluster) {
    match cluster.topic(&topic.name) {
        Some(known) => {
            let count = u32::try_from(known.partition_count()).unwrap_or(0);
            topic.update(count, known.available.as_slice().into());
        }
        None => topic.update(0, Arc::new([])),
    }
}

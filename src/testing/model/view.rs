//! What a broker knows of the cluster. As a rule that is how the cluster is; a broker can also be
//! made to lag behind, as a broker does that has not yet heard of the latest changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::protocol::{
    ErrorCode, LeaderIdAndEpoch, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic, NodeEndpoint, TopicRef,
};

use super::{Model, Topic};

/// The cluster as a broker describes it.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) brokers: Vec<MetadataResponseBroker>,
    pub(super) topics: BTreeMap<Arc<str>, MetadataResponseTopic>,
}

impl View {
    /// The leader of a partition and its address, as a refusal names them (KIP-951).
    fn leader(&self, topic: &str, index: i32) -> Option<(LeaderIdAndEpoch, Option<NodeEndpoint>)> {
        let partitions = &self.topics.get(topic)?.partitions;
        let partition = partitions.iter().find(|p| p.partition_index == index)?;
        let (leader_id, leader_epoch) = (partition.leader_id, partition.leader_epoch);
        let broker = self.brokers.iter().find(|broker| broker.node_id == leader_id);
        Some((LeaderIdAndEpoch { leader_id, leader_epoch }, broker.map(endpoint)))
    }
}

impl Model {
    /// Makes a broker tell of the cluster as it is now until it catches up. Records for topics and
    /// partitions that are newer it refuses; what it does about others is up to date.
    pub(crate) fn hold_view(&mut self, broker: i32) {
        let topics = self.topics.iter();
        let topics = topics.map(|(name, topic)| (Arc::clone(name), self.describe(name, topic)));
        let view = View { brokers: self.alive_brokers(), topics: topics.collect() };
        self.views.insert(broker, view);
    }

    /// The broker has caught up with the cluster; gives whether it lagged behind.
    pub(crate) fn release_view(&mut self, broker: i32) -> bool {
        self.views.remove(&broker).is_some()
    }

    /// The name of a topic that a request is for, if `broker` has heard of it.
    pub(super) fn name_known_to(&self, broker: i32, topic: TopicRef<'_>) -> Option<&Arc<str>> {
        let (name, id) = match topic {
            TopicRef::Name(name) => (self.topics.get_key_value(name)?.0, None),
            TopicRef::Id(id) => (self.name_of(id)?, Some(id)),
        };
        let known = self.views.get(&broker).is_none_or(|view| {
            let topic = view.topics.get(name);
            topic.is_some_and(|topic| id.is_none_or(|id| topic.topic_id == id))
        });
        known.then_some(name)
    }

    /// Whether `broker` has heard of a partition, if there is one.
    pub(super) fn is_known_to(&self, broker: i32, topic: &str, index: i32) -> bool {
        self.views.get(&broker).is_none_or(|view| view.leader(topic, index).is_some())
    }

    /// The leader of a partition and its address, as `broker` knows them.
    pub(super) fn leader_known_to(
        &self,
        broker: i32,
        topic: &str,
        index: i32,
    ) -> Option<(LeaderIdAndEpoch, Option<NodeEndpoint>)> {
        if let Some(view) = self.views.get(&broker) {
            return view.leader(topic, index);
        }
        let partition = self.partition(topic, index)?;
        let leader_id = partition.leader.unwrap_or(-1);
        let leader_epoch = partition.leader_epoch;
        let address = self.brokers.get(&leader_id).filter(|broker| broker.alive);
        let address = address.map(|broker| NodeEndpoint {
            node_id: leader_id,
            host: Arc::clone(&broker.host),
            port: broker.port.into(),
            rack: broker.rack.clone(),
        });
        Some((LeaderIdAndEpoch { leader_id, leader_epoch }, address))
    }

    pub(super) fn alive_brokers(&self) -> Vec<MetadataResponseBroker> {
        let alive = self.brokers.iter().filter(|(_, broker)| broker.alive);
        let described = alive.map(|(id, broker)| MetadataResponseBroker {
            node_id: *id,
            host: Arc::clone(&broker.host),
            port: broker.port.into(),
            rack: broker.rack.clone(),
        });
        described.collect()
    }

    pub(super) fn describe(&self, name: &Arc<str>, topic: &Topic) -> MetadataResponseTopic {
        let partitions = (0..).zip(&topic.partitions).map(|(partition_index, partition)| {
            let alive = |id: &i32| self.brokers.get(id).is_some_and(|broker| broker.alive);
            let leader = partition.leader.filter(alive);
            let error_code = match leader {
                Some(_) => ErrorCode::NONE,
                None => ErrorCode::LEADER_NOT_AVAILABLE,
            };
            // The last to go is an eligible leader, and no longer in sync (KIP-966).
            let in_sync =
                partition.in_sync.iter().copied().filter(|id| leader.is_some() || alive(id));
            let offline = partition.replicas.iter().copied().filter(|id| !alive(id));
            MetadataResponsePartition {
                error_code,
                partition_index,
                leader_id: leader.unwrap_or(-1),
                leader_epoch: partition.leader_epoch,
                replica_nodes: partition.replicas.clone(),
                isr_nodes: in_sync.collect(),
                offline_replicas: offline.collect(),
            }
        });
        MetadataResponseTopic {
            error_code: ErrorCode::NONE,
            name: Some(Arc::clone(name)),
            topic_id: topic.id,
            is_internal: false,
            partitions: partitions.collect(),
        }
    }
}

fn endpoint(broker: &MetadataResponseBroker) -> NodeEndpoint {
    NodeEndpoint {
        node_id: broker.node_id,
        host: Arc::clone(&broker.host),
        port: broker.port,
        rack: broker.rack.clone(),
    }
}

//! How a response becomes a snapshot: what is merged, which leader epochs count, which errors call
//! for another update. Runs on the sender thread, inside `Metadata::handle_response`.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::snapshot::{Cluster, Node, PartitionMetadata, TopicMetadata};
use super::updates::{Metadata, Tracked};
use crate::error::ErrorClass;
use crate::planted::{Defect, is_planted};
use crate::protocol::{
    ErrorCode, MetadataResponse, MetadataResponsePartition, MetadataResponseTopic,
};
use crate::types::NodeId;

/// The highest partition number that is believed: far above what clusters bear, and low enough
/// that a wrong number can't exhaust the memory.
const MAX_PARTITION: i32 = 1_000_000;

/// The first version whose leader epochs can be relied on: older brokers may send an outdated one
/// after a reassignment (KAFKA-9212).
const RELIABLE_EPOCHS: i16 = 9;

/// What a response made of the metadata.
pub(super) struct Outcome {
    pub(super) cluster: Cluster,
    /// The topics in it that can't be sent to.
    pub(super) errors: Vec<(Arc<str>, ErrorCode)>,
    /// Whether something in it is known to be temporary, so that all topics are to be asked again.
    pub(super) refresh: bool,
    /// Whether a topic is different from before.
    pub(super) learned: bool,
}

/// Refuses a response that tells nothing, as of a broker that is still starting, or nonsense.
pub(super) fn check(response: &MetadataResponse) -> Result<(), Arc<str>> {
    if response.error_code != ErrorCode::NONE {
        return Err(format!("a broker refused metadata: {}", response.error_code).into());
    }
    if !response.brokers.iter().any(|b| Node::new(b.node_id, &b.host, b.port, &b.rack).is_some()) {
        return Err("a broker answered without naming any broker".into());
    }
    let mut names = BTreeSet::new();
    for topic in &response.topics {
        let name = topic.name.as_deref().unwrap_or_default();
        if topic.name.is_some() && !names.insert(name) {
            return Err(format!("a broker named topic {name} twice").into());
        }
        check_partitions(name, topic)?;
    }
    Ok(())
}

fn check_partitions(name: &str, topic: &MetadataResponseTopic) -> Result<(), Arc<str>> {
    let mut seen = BTreeSet::new();
    for number in topic.partitions.iter().map(|p| p.partition_index) {
        if !(0..=MAX_PARTITION).contains(&number) {
            return Err(format!("a broker named partition {number} of topic {name}").into());
        }
        if !seen.insert(number) {
            return Err(format!("a broker named partition {number} of topic {name} twice").into());
        }
    }
    Ok(())
}

impl Node {
    /// A broker as it is named on the wire; none if nobody can connect to it: its partitions then
    /// count as leaderless.
    pub(super) fn new(
        id: i32,
        host: &Arc<str>,
        port: i32,
        rack: &Option<Arc<str>>,
    ) -> Option<Self> {
        let port = u16::try_from(port).ok().filter(|p| *p != 0)?;
        let (host, rack) = (Arc::clone(host), rack.clone());
        (id >= 0 && !host.is_empty()).then_some(Self { id: NodeId(id), host, port, rack })
    }
}

impl Metadata {
    /// Merges a response that has passed [`check`]. After one of all topics only what it names
    /// stays; after one of new topics the others stay too, on the new nodes.
    pub(super) fn apply(
        &mut self,
        response: &MetadataResponse,
        version: i16,
        full: bool,
    ) -> Outcome {
        let mut cluster = Cluster::clone(&self.cluster);
        cluster.topics.retain(|name, _| self.topics.contains_key(name));
        if full {
            let named = response.topics.iter().filter_map(|t| t.name.as_deref());
            let named: BTreeSet<&str> = named.collect();
            cluster.topics.retain(|name, _| named.contains(&**name));
        }
        let brokers = response.brokers.iter();
        let nodes = brokers.filter_map(|b| Node::new(b.node_id, &b.host, b.port, &b.rack));
        cluster.set_nodes(nodes.map(|n| (n.id, n)).collect());
        cluster.cluster_id = response.cluster_id.clone();
        cluster.controller = Some(NodeId(response.controller_id)).filter(|id| id.0 >= 0);
        cluster.bootstrap = false;

        let mut out = Outcome { cluster, errors: Vec::new(), refresh: false, learned: false };
        for topic in &response.topics {
            self.apply_topic(topic, version, &mut out);
        }
        out
    }

    /// Takes in one topic, if it is one of ours.
    fn apply_topic(&mut self, topic: &MetadataResponseTopic, version: i16, out: &mut Outcome) {
        let Some(name) = topic.name.as_deref() else { return };
        let Some((name, _)) = self.topics.get_key_value(name) else { return };
        let name = Arc::clone(name);
        let old = self.cluster.topic(&name);
        let Some(tracked) = self.topics.get_mut(&name) else { return };
        tracked.is_new = false;
        if topic.error_code != ErrorCode::NONE {
            out.refresh |= is_temporary(topic.error_code);
            out.cluster.topics.remove(&name);
            out.errors.push((name, topic.error_code));
            return;
        }
        let partitions = tracked.accept_partitions(topic, version, old.map(|t| &**t));
        let errors = topic.partitions.iter().map(|p| p.error_code);
        out.refresh |= errors.into_iter().any(is_temporary);
        if partitions.is_empty() {
            // A topic that is being created: there is nothing to choose a partition from yet.
            out.refresh = true;
            out.cluster.topics.remove(&name);
            out.errors.push((name, ErrorCode::LEADER_NOT_AVAILABLE));
            return;
        }
        let (id, internal) = (topic.topic_id, topic.is_internal);
        let new = TopicMetadata::new(Arc::clone(&name), id, internal, partitions);
        out.cluster.insert_topic(new);
        out.learned |= out.cluster.topic(&name) != old;
    }
}

impl Tracked {
    /// The partitions as they are to be seen from now on. A leader of an older epoch is not taken
    /// back, unless the topic is another one of the same name.
    fn accept_partitions(
        &mut self,
        topic: &MetadataResponseTopic,
        version: i16,
        old: Option<&TopicMetadata>,
    ) -> Vec<PartitionMetadata> {
        if topic.topic_id.is_known() && topic.topic_id != self.id {
            self.id = topic.topic_id;
            self.epochs.clear();
        }
        let named = topic.partitions.iter().map(|p| p.partition_index + 1).max();
        let count = usize::try_from(named.unwrap_or(0)).unwrap_or(0);
        if self.epochs.len() < count {
            self.epochs.resize(count, -1);
        }
        let mut partitions = vec![PartitionMetadata::UNKNOWN; count];
        for partition in &topic.partitions {
            let Ok(index) = usize::try_from(partition.partition_index) else { continue };
            let known = old.and_then(|t| t.partitions.get(index)).copied();
            let seen = self.epochs[index];
            partitions[index] = accept(&mut self.epochs[index], partition, version, known);
            let now_seen = self.epochs[index];
            debug_assert!(now_seen < 0 || now_seen >= seen, "an older leader is believed");
        }
        partitions
    }
}

/// The partition as it is to be seen from now on, and its last seen epoch.
fn accept(
    seen: &mut i32,
    partition: &MetadataResponsePartition,
    version: i16,
    known: Option<PartitionMetadata>,
) -> PartitionMetadata {
    let leader = Some(NodeId(partition.leader_id)).filter(|id| id.0 >= 0);
    let epoch = partition.leader_epoch;
    if version < RELIABLE_EPOCHS || epoch < 0 {
        *seen = -1;
        return PartitionMetadata { leader, leader_epoch: -1 };
    }
    if epoch < *seen && !is_planted(Defect::OldMetadata) {
        // A broker that lags behind. Without an earlier answer to fall back on, the leader stays
        // unknown until a newer one comes.
        return known.unwrap_or(PartitionMetadata::UNKNOWN);
    }
    *seen = epoch;
    PartitionMetadata { leader, leader_epoch: epoch }
}

/// Whether an error goes away with newer metadata.
fn is_temporary(code: ErrorCode) -> bool {
    code != ErrorCode::NONE && code.class() == ErrorClass::RefreshRetriable
}

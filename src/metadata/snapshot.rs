//! `Cluster`: what the cluster looked like at one moment. Immutable, shared as an `Arc` by user
//! threads and the sender; a change makes a new one, in which unchanged topics share their `Arc`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::claims;
use crate::types::{HostAndPort, NodeId, Uuid};

/// A broker's address as its cluster advertises it, or one of the bootstrap servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// The broker's id; negative for a bootstrap server, whose id is not known yet.
    pub(crate) id: NodeId,
    /// A name still to be resolved, or an address.
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
    pub(crate) rack: Option<Arc<str>>,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (id {})", HostAndPort(&self.host, self.port), self.id)
    }
}

/// What is known of one partition; its number is its place in [`TopicMetadata::partitions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartitionMetadata {
    /// The leader, always one of [`Cluster::nodes`]. None while an election goes on, or while the
    /// leader's address is unknown.
    pub(crate) leader: Option<NodeId>,
    /// How many elections there were; -1 if the brokers did not say (before Kafka 2.4) or if the
    /// number belongs to another cluster or another topic of this name.
    pub(crate) leader_epoch: i32,
}

impl PartitionMetadata {
    /// A partition of which no more is known than that it exists.
    pub(crate) const UNKNOWN: Self = Self { leader: None, leader_epoch: -1 };
}

/// What is known of one topic that can be sent to: it has at least one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicMetadata {
    pub(crate) name: Arc<str>,
    /// [`Uuid::ZERO`] if the brokers have no topic ids (before Kafka 2.8).
    pub(crate) id: Uuid,
    /// All partitions, in the order of their numbers.
    pub(crate) partitions: Vec<PartitionMetadata>,
    /// The numbers of the partitions that have a leader, ascending; derived from `partitions`.
    pub(crate) available: Vec<i32>,
    pub(crate) internal: bool,
}

impl TopicMetadata {
    /// A topic of these partitions.
    pub(crate) fn new(
        name: Arc<str>,
        id: Uuid,
        internal: bool,
        partitions: Vec<PartitionMetadata>,
    ) -> Self {
        let mut topic = Self { name, id, partitions, available: Vec::new(), internal };
        topic.derive_available();
        topic
    }

    /// How many partitions there are; at least one.
    pub(crate) fn partition_count(&self) -> i32 {
        // Bounded where responses are read.
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }

    /// What is known of this partition, if it exists.
    pub(crate) fn partition(&self, partition: i32) -> Option<&PartitionMetadata> {
        self.partitions.get(usize::try_from(partition).ok()?)
    }

    fn derive_available(&mut self) {
        let numbers = (0..).zip(&self.partitions);
        self.available = numbers.filter(|(_, p)| p.leader.is_some()).map(|(n, _)| n).collect();
    }
}

/// A snapshot of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// The brokers, or the bootstrap servers until the first response. Ascending ids.
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    /// The topics that this producer uses and that can be sent to.
    pub(crate) topics: BTreeMap<Arc<str>, Arc<TopicMetadata>>,
    pub(crate) cluster_id: Option<Arc<str>>,
    pub(crate) controller: Option<NodeId>,
    /// Whether `nodes` are the configured bootstrap servers, with made-up negative ids.
    pub(crate) bootstrap: bool,
}

impl Cluster {
    /// The cluster before anything was heard of it: the bootstrap servers as nodes -1, -2, ...
    pub(crate) fn of_bootstrap_servers(servers: &[(Arc<str>, u16)]) -> Self {
        let node = |(i, (host, port)): (i32, &(Arc<str>, u16))| {
            let id = NodeId(-1 - i);
            (id, Node { id, host: Arc::clone(host), port: *port, rack: None })
        };
        let nodes = (0..).zip(servers).map(node).collect();
        Self { nodes, bootstrap: true, ..Self::default() }
    }

    /// What a node is called in errors and in the log.
    pub(crate) fn name_of(&self, node: NodeId) -> String {
        self.nodes.get(&node).map_or_else(|| format!("broker {node}"), Node::to_string)
    }

    /// The topic, if it is known and can be sent to.
    pub(crate) fn topic(&self, name: &str) -> Option<&Arc<TopicMetadata>> {
        self.topics.get(name)
    }

    /// The node that leads this partition, if topic, partition and leader are known.
    #[cfg(test)]
    pub(crate) fn leader(&self, topic: &str, partition: i32) -> Option<&Node> {
        self.nodes.get(&self.topic(topic)?.partition(partition)?.leader?)
    }

    /// Replaces the nodes. A leader that is not among them counts as unknown from here on: its
    /// partition can't be sent to before another response names a leader.
    pub(crate) fn set_nodes(&mut self, nodes: BTreeMap<NodeId, Node>) {
        self.nodes = nodes;
        for topic in self.topics.values_mut() {
            let gone =
                |p: &PartitionMetadata| p.leader.is_some_and(|l| !self.nodes.contains_key(&l));
            if topic.partitions.iter().any(gone) {
                let topic = Arc::make_mut(topic);
                for partition in topic.partitions.iter_mut().filter(|p| gone(p)) {
                    partition.leader = None;
                }
                topic.derive_available();
            }
        }
    }

    /// Adds or replaces a topic. A leader that is not among the nodes counts as unknown.
    pub(crate) fn insert_topic(&mut self, mut topic: TopicMetadata) {
        debug_assert!(!topic.partitions.is_empty());
        for partition in &mut topic.partitions {
            partition.leader = partition.leader.filter(|l| self.nodes.contains_key(l));
        }
        topic.derive_available();
        match self.topics.get(&topic.name) {
            Some(known) if **known == topic => {}
            _ => {
                self.topics.insert(Arc::clone(&topic.name), Arc::new(topic));
            }
        }
    }

    /// Sets the leaders of known partitions of a topic, by their places, to known nodes.
    pub(crate) fn set_leaders(&mut self, topic: &str, leaders: &[(usize, PartitionMetadata)]) {
        let Some(topic) = self.topics.get_mut(topic) else { return };
        let topic = Arc::make_mut(topic);
        for (partition, to) in leaders {
            debug_assert!(to.leader.is_none_or(|l| self.nodes.contains_key(&l)));
            if let Some(known) = topic.partitions.get_mut(*partition) {
                *known = *to;
            }
        }
        topic.derive_available();
    }

    /// Makes every leader and epoch unknown; the topics and their partitions stay known.
    pub(crate) fn forget_leaders(&mut self) {
        for topic in self.topics.values_mut() {
            let topic = Arc::make_mut(topic);
            topic.partitions.fill(PartitionMetadata::UNKNOWN);
            topic.derive_available();
        }
    }

    /// Claims that hold for every snapshot; called when one is published in debug builds.
    pub(crate) fn invariants(&self) {
        if !claims::are_checked() {
            return;
        }
        assert!(self.nodes.iter().all(|(id, node)| *id == node.id));
        assert!(!self.bootstrap || self.nodes.keys().all(|id| id.0 < 0));
        for (name, topic) in &self.topics {
            assert_eq!(name, &topic.name);
            assert!(!topic.partitions.is_empty(), "{name} has no partitions");
            let leaders = topic.partitions.iter().filter_map(|p| p.leader);
            assert!(leaders.clone().all(|l| self.nodes.contains_key(&l)), "{name}: unknown leader");
            assert_eq!(leaders.count(), topic.available.len(), "{name}: stale list");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: i32) -> (NodeId, Node) {
        let id = NodeId(id);
        (id, Node { id, host: "h".into(), port: 9092, rack: None })
    }

    fn led_by(leaders: &[i32]) -> Vec<PartitionMetadata> {
        let of = |l: &i32| PartitionMetadata { leader: Some(NodeId(*l)), leader_epoch: 0 };
        leaders.iter().map(of).collect()
    }

    fn cluster(nodes: &[i32], leaders: &[i32]) -> Cluster {
        let mut cluster = Cluster::default();
        cluster.set_nodes(nodes.iter().copied().map(node).collect());
        cluster.insert_topic(TopicMetadata::new("t".into(), Uuid::ZERO, false, led_by(leaders)));
        cluster.invariants();
        cluster
    }

    #[test]
    fn bootstrap_servers_get_negative_ids_in_their_order() {
        let cluster = Cluster::of_bootstrap_servers(&[("a".into(), 1), ("::1".into(), 2)]);
        cluster.invariants();
        assert!(cluster.bootstrap);
        assert_eq!(cluster.nodes[&NodeId(-1)].to_string(), "a:1 (id -1)");
        assert_eq!(cluster.nodes[&NodeId(-2)].to_string(), "[::1]:2 (id -2)");
    }

    /// MD-29.
    #[test]
    fn a_leader_that_is_no_known_node_is_absent() {
        let cluster = cluster(&[1], &[1, 7, 1]);
        let topic = cluster.topic("t").unwrap();
        assert_eq!(topic.available, [0, 2]);
        assert_eq!(cluster.leader("t", 0).unwrap().id, NodeId(1));
        assert_eq!(cluster.leader("t", 1), None);
        for (topic, partition) in [("t", 3), ("t", -1), ("u", 0)] {
            assert_eq!(cluster.leader(topic, partition), None);
        }
    }

    #[test]
    fn a_node_that_goes_takes_its_leaderships_along() {
        let mut cluster = cluster(&[1, 2], &[1, 2]);
        cluster.set_nodes([node(2)].into());
        cluster.invariants();
        assert_eq!(cluster.topic("t").unwrap().available, [1]);
    }

    #[test]
    fn an_unchanged_topic_is_shared_with_the_snapshot_before() {
        let before = cluster(&[1], &[1]);
        let mut after = before.clone();
        after.insert_topic(TopicMetadata::new("t".into(), Uuid::ZERO, false, led_by(&[1])));
        assert!(Arc::ptr_eq(&before.topics["t"], &after.topics["t"]));
        after.insert_topic(TopicMetadata::new("t".into(), Uuid::ZERO, false, led_by(&[1, 1])));
        assert!(!Arc::ptr_eq(&before.topics["t"], &after.topics["t"]));
    }
}

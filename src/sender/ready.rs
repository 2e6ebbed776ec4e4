//! Leaders that somebody waits for: the sender connects to those of a topic until one is reached,
//! and users' threads learn of it, or of what stands in the way, at `MetadataCell`.

use super::Sender;
use crate::client::KafkaClient;
use crate::metadata::Cluster;
use crate::sync::Arc;
use crate::time::MonoTime;
use crate::types::NodeId;

/// The topics a leader of which is waited for, and until when.
#[derive(Default)]
pub(super) struct LeadersWanted(Vec<(Arc<str>, MonoTime)>);

impl LeadersWanted {
    pub(super) fn want(&mut self, topic: Arc<str>, until: MonoTime) {
        match self.0.iter_mut().find(|(wanted, _)| *wanted == topic) {
            Some((_, latest)) => *latest = until.max(*latest),
            None => self.0.push((topic, until)),
        }
        self.invariants();
    }

    /// A topic is here once. Looked at for the last one.
    fn invariants(&self) {
        let same = |(topic, _): &&(Arc<str>, MonoTime)| {
            self.0.last().is_some_and(|(last, _)| last == topic)
        };
        debug_assert!(self.0.iter().filter(same).count() <= 1, "{:?}", self.0);
    }
}

impl<C: KafkaClient> Sender<C> {
    /// Begins to connect to leaders that are waited for, where none of their topic is reached.
    pub(super) fn connect_to_wanted_leaders(&mut self, now: MonoTime) {
        if self.leaders_wanted.0.is_empty() {
            return;
        }
        let cluster = Arc::clone(self.metadata.cluster());
        let reach = &self.reach;
        self.leaders_wanted.0.retain(|(topic, until)| {
            *until > now && !leaders(&cluster, topic).any(|node| reach.is_reached(node))
        });
        let mut is_news = false;
        for (topic, _) in &self.leaders_wanted.0 {
            for node in leaders(&cluster, topic) {
                // A broker that left the cluster and came back may still have its connection.
                if self.client.ready(node, now) {
                    self.reach.on_connected(node);
                    is_news = true;
                }
            }
        }
        if is_news {
            self.tell_reach();
        }
    }

    /// Whether a leader is waited for where there is none: the next answer may name one.
    pub(super) fn lacks_wanted_leader(&self) -> bool {
        let cluster = self.metadata.cluster();
        self.leaders_wanted.0.iter().any(|(topic, _)| {
            cluster.topic(topic).is_some() && leaders(cluster, topic).next().is_none()
        })
    }

    /// When some such leader may be connected to again.
    pub(super) fn wanted_leaders_deadline(&self, now: MonoTime) -> MonoTime {
        let wanted = self.leaders_wanted.0.iter();
        let nodes = wanted.flat_map(|(topic, _)| leaders(self.metadata.cluster(), topic));
        let nodes = nodes.filter(|node| !self.reach.is_reached(*node));
        nodes.map(|node| now + self.client.ready_delay(node, now)).min().unwrap_or(MonoTime::MAX)
    }

    /// Publishes which brokers are reached, for those who wait.
    pub(super) fn tell_reach(&self) {
        self.metadata.cell().set_reached(self.reach.all());
    }
}

fn leaders<'c>(cluster: &'c Cluster, topic: &str) -> impl Iterator<Item = NodeId> + use<'c> {
    let partitions = cluster.topic(topic).map(|topic| &topic.partitions[..]).unwrap_or_default();
    partitions.iter().filter_map(|partition| partition.leader)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_waited_for_once_until_the_last_has_no_more_time() {
        let mut wanted = LeadersWanted::default();
        let at = MonoTime::from_nanos;
        for (topic, until) in [("a", 5), ("b", 1), ("a", 3), ("b", 4)] {
            wanted.want(topic.into(), at(until));
        }
        assert_eq!(wanted.0, [("a".into(), at(5)), ("b".into(), at(4))]);
    }
}

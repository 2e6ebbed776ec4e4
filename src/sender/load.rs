//! How loaded partitions are, for whoever chooses a topic's next sticky partition (KIP-794).
//!
//! A topic whose sticky partition moves asks for it; while nobody asks nothing is looked at. Then
//! it has its answer at the end of the turn, and rests for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Sender;
use super::due::owes_answer;
use crate::accumulator::inbox::PartitionId;
use crate::accumulator::load::PartitionLoad;
use crate::accumulator::topic_map::Topic;
use crate::claims;
use crate::client::KafkaClient;
use crate::sync::Arc;
use crate::time::MonoTime;
use crate::types::NodeId;

/// Who has asked, and which brokers don't take what there is for them.
#[derive(Default)]
pub(super) struct Loads {
    wanted: Vec<Arc<str>>,
    /// Topics whose load was published, and until when it is good enough.
    resting: Vec<(MonoTime, Arc<Topic>)>,
    /// Brokers that take nothing of what there is for them; with an availability time-out only.
    waiting: BTreeMap<NodeId, Waiting>,
}

/// Batches that wait for a broker.
struct Waiting {
    since: MonoTime,
    /// They wait not in the broker's line but behind answers to this partition's earlier ones.
    behind: Option<PartitionId>,
}

impl Loads {
    pub(super) fn want(&mut self, topic: Arc<str>) {
        self.wanted.push(topic);
        self.invariants();
    }

    /// A topic asks again only after its rest. Looked at for the last one to ask.
    fn invariants(&self) {
        if !claims::are_checked() {
            return;
        }
        let Some((last, others)) = self.wanted.split_last() else { return };
        assert!(!others.contains(last), "{last} asks twice");
        let rests = |(_, topic): &(MonoTime, Arc<Topic>)| topic.name == *last;
        assert!(!self.resting.iter().any(rests), "{last} asks while it rests");
    }
}

impl<C: KafkaClient> Sender<C> {
    /// There is something that the broker does not take; see [`Waiting`]. The time counts from the
    /// first turn in which that is so.
    pub(super) fn note_waiting(
        &mut self,
        node: NodeId,
        behind: Option<PartitionId>,
        now: MonoTime,
    ) {
        if !self.config.availability_timeout.is_zero() {
            let new = Waiting { since: now, behind };
            let waiting = self.loads.waiting.entry(node).or_insert(new);
            waiting.behind = behind.or(waiting.behind);
        }
    }

    /// The broker has taken some of what there is for it.
    pub(super) fn note_taken(&mut self, node: NodeId) {
        self.loads.waiting.remove(&node);
    }

    /// Tells the topics that have asked.
    pub(super) fn publish_loads(&mut self, now: MonoTime) {
        let rests = |(until, topic): &(MonoTime, Arc<Topic>)| {
            let rests = *until > now;
            if !rests {
                topic.sticky.rested();
            }
            rests
        };
        self.loads.resting.retain(rests);
        // What waited has gone or expired: the broker is to be tried again.
        let (index, flights) = (&self.index, &self.flights);
        self.loads.waiting.retain(|node, waiting| {
            let is_held_up =
                |id| !index.partition(id).quiet && owes_answer(index, flights, id) == Some(*node);
            index.has_ready_for(*node) || waiting.behind.is_some_and(is_held_up)
        });
        for name in std::mem::take(&mut self.loads.wanted) {
            let Some(topic) = self.accumulator.topics.find(&name) else { continue };
            topic.sticky.set_load(self.measure(&topic, now));
            let until = now + rest_after(topic.partition_count());
            self.loads.resting.push((until, topic));
        }
    }

    fn measure(&self, topic: &Topic, now: MonoTime) -> Option<PartitionLoad> {
        let known = self.metadata.cluster().topic(&topic.name)?;
        let count = topic.partition_count();
        let mut queues = Vec::with_capacity(count as usize);
        for partition in 0..count {
            let leader = known.partition(partition as i32).and_then(|p| p.leader);
            let Some(leader) = leader else { continue };
            if self.takes_nothing(leader, now) {
                continue;
            }
            queues.push((partition as i32, self.backlog(topic, partition)));
        }
        PartitionLoad::new(&queues, count)
    }

    fn takes_nothing(&self, leader: NodeId, now: MonoTime) -> bool {
        let waiting = self.loads.waiting.get(&leader);
        waiting.is_some_and(|waiting| now.since(waiting.since) > self.config.availability_timeout)
    }

    /// How many batches wait. The last one does not count, as it may still be filling: without a
    /// backlog partitions are equal, and get equal shares.
    fn backlog(&self, topic: &Topic, partition: u32) -> u32 {
        let Some(queue) = topic.find_queue(partition) else { return 0 };
        if (queue.id.0 as usize) < self.index.len() && self.index.partition(queue.id).quiet {
            // Nothing there is due, so that there is no more than a batch that fills.
            return 0;
        }
        let batches = queue.lock().batches.len();
        u32::try_from(batches).unwrap_or(u32::MAX).saturating_sub(1)
    }
}

/// A look costs about a tenth of a microsecond a partition: a hundredth of the time at most.
fn rest_after(partitions: u32) -> Duration {
    Duration::from_micros(10) * partitions
}

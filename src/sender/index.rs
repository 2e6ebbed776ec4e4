//! What the sender knows of each partition, and which of them are due: an index, so that a turn
//! looks at what happened and not at all partitions.
//!
//! A partition is looked at when a user's thread tells of it, when its timer fires, and when an
//! answer or the metadata concerns it. Then it is in its leader's ready line, or has a timer, or
//! waits for something that will make the sender look again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use super::in_flight::Seat;
use crate::accumulator::batch::ProducerBatch;
use crate::accumulator::inbox::PartitionId;
use crate::accumulator::phases::Vacancies;
use crate::accumulator::queue::{PartitionQueue, Told};
use crate::claims;
use crate::metadata::Cluster;
use crate::sync::Arc;
use crate::time::MonoTime;
use crate::transaction::partition::Sequences;
use crate::types::NodeId;

/// A partition as the sender sees it.
pub(super) struct Partition {
    pub(super) queue: Arc<PartitionQueue>,
    /// Who leads it, as far as is known.
    pub(super) leader: Option<NodeId>,
    pub(super) leader_epoch: i32,
    pub(super) vacancies: Vacancies,
    pub(super) sequences: Sequences,
    /// The requests under way with a batch of this partition, oldest first.
    pub(super) in_flight: VecDeque<Seat>,
    /// Nothing in its queue is due before the timer fires or a user's thread tells of it. So there
    /// is no need to lock it, which users' threads do for each record.
    pub(super) quiet: bool,
    /// In whose ready line it stands.
    ready_at: Option<NodeId>,
    /// When its timer fires; `MAX` if it has none.
    timer: MonoTime,
}

/// All partitions by id, the ready lines of the brokers, and the timers.
#[derive(Default)]
pub(super) struct Index {
    partitions: Vec<Partition>,
    /// First come, first served: a partition with more to send goes to the end of the line.
    ready: BTreeMap<NodeId, VecDeque<PartitionId>>,
    timers: BTreeSet<(MonoTime, PartitionId)>,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.partitions.len()
    }

    pub(super) fn add(&mut self, queue: Arc<PartitionQueue>) {
        debug_assert_eq!(queue.id.0 as usize, self.partitions.len());
        self.partitions.push(Partition {
            queue,
            leader: None,
            leader_epoch: -1,
            vacancies: Vacancies::default(),
            sequences: Sequences::default(),
            in_flight: VecDeque::new(),
            quiet: false,
            ready_at: None,
            timer: MonoTime::MAX,
        });
    }

    pub(super) fn partition(&self, id: PartitionId) -> &Partition {
        &self.partitions[id.0 as usize]
    }

    pub(super) fn partition_mut(&mut self, id: PartitionId) -> &mut Partition {
        &mut self.partitions[id.0 as usize]
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = PartitionId> + use<> {
        (0..u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)).map(PartitionId)
    }

    /// Puts batches back that are to be tried again, the last one first: without stamps each goes
    /// to the front.
    pub(super) fn put_back(
        &mut self,
        id: PartitionId,
        batches: impl DoubleEndedIterator<Item = Box<ProducerBatch>>,
    ) {
        let partition = self.partition_mut(id);
        partition.quiet = false;
        let mut queue = partition.queue.lock();
        batches.rev().for_each(|batch| queue.put_back(batch));
    }

    /// The partitions that have a timer: all that have a batch, and some that had.
    pub(super) fn active(&self) -> Vec<PartitionId> {
        self.timers.iter().map(|(_, id)| *id).collect()
    }

    /// Those of them that these brokers lead.
    pub(super) fn active_at(&self, brokers: &BTreeSet<NodeId>) -> Vec<PartitionId> {
        let is_led =
            |id: &PartitionId| self.partition(*id).leader.is_some_and(|l| brokers.contains(&l));
        self.timers.iter().map(|(_, id)| *id).filter(is_led).collect()
    }

    /// Whether the partition is known, and has nothing under way or in line.
    pub(super) fn is_idle(&self, id: PartitionId) -> bool {
        let partition = self.partitions.get(id.0 as usize);
        partition.is_some_and(|p| p.in_flight.is_empty() && p.ready_at.is_none())
    }

    /// Puts the partition at the end of its leader's line, unless it stands there already.
    pub(super) fn set_ready(&mut self, id: PartitionId) {
        let partition = &mut self.partitions[id.0 as usize];
        let Some(leader) = partition.leader else { return };
        if partition.ready_at != Some(leader) {
            partition.ready_at = Some(leader);
            self.ready.entry(leader).or_default().push_back(id);
        }
    }

    /// Whether the partition is known, with its leader, and its sequences go on.
    pub(super) fn may_be_drained(&self, id: PartitionId) -> bool {
        let partition = self.partitions.get(id.0 as usize);
        partition.is_some_and(|p| p.leader.is_some() && !p.sequences.is_bump_due())
    }

    /// The first in the line of `node`.
    pub(super) fn next_ready(&mut self, node: NodeId) -> Option<PartitionId> {
        let line = self.ready.get_mut(&node)?;
        while let Some(id) = line.pop_front() {
            let partition = &mut self.partitions[id.0 as usize];
            // Whoever has moved to another leader since has left this line.
            if partition.ready_at == Some(node) {
                partition.ready_at = None;
                return Some(id);
            }
        }
        None
    }

    /// Puts the partition back at the head of the line: the next request begins with it.
    pub(super) fn put_back_ready(&mut self, node: NodeId, id: PartitionId) {
        self.partitions[id.0 as usize].ready_at = Some(node);
        self.ready.entry(node).or_default().push_front(id);
    }

    /// The next broker after `last`, or the first one, in whose line somebody stands.
    pub(super) fn next_ready_node(&self, last: Option<NodeId>) -> Option<NodeId> {
        let after = last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut lines = self.ready.range((after, Bound::Unbounded));
        lines.find(|(_, line)| !line.is_empty()).map(|(node, _)| *node)
    }

    /// The brokers in whose line somebody stands.
    pub(super) fn ready_nodes(&self) -> impl Iterator<Item = NodeId> {
        std::iter::successors(self.next_ready_node(None), |last| self.next_ready_node(Some(*last)))
    }

    pub(super) fn has_ready_for(&self, node: NodeId) -> bool {
        self.ready.get(&node).is_some_and(|line| !line.is_empty())
    }

    /// Takes over who leads the partition. Says whether that is another one than before.
    pub(super) fn set_leader(
        &mut self,
        id: PartitionId,
        leader: Option<NodeId>,
        epoch: i32,
        now: MonoTime,
    ) -> bool {
        let partition = &mut self.partitions[id.0 as usize];
        partition.vacancies.note(leader.is_none(), now);
        partition.leader_epoch = epoch;
        let is_moved = partition.leader != leader;
        if is_moved {
            partition.leader = leader;
            self.leave_line(id);
        }
        is_moved
    }

    /// Not left behind in a leader's line: if that broker is gone nobody would ever take it out,
    /// and the line would count as work that is about to be done.
    pub(super) fn leave_line(&mut self, id: PartitionId) {
        let place = self.partitions[id.0 as usize].ready_at.take();
        if let Some(line) = place.and_then(|node| self.ready.get_mut(&node)) {
            line.retain(|other| *other != id);
        }
    }

    /// Has the partition looked at no later than at `at`. A timer that fires early does no harm,
    /// so that a later moment than the one already set changes nothing.
    pub(super) fn look_at(&mut self, id: PartitionId, at: MonoTime) {
        let partition = &mut self.partitions[id.0 as usize];
        if at >= partition.timer {
            return;
        }
        if partition.timer != MonoTime::MAX {
            self.timers.remove(&(partition.timer, id));
        }
        partition.timer = at;
        self.timers.insert((at, id));
    }

    /// The next partition whose timer has fired by `now`.
    pub(super) fn next_fired(&mut self, now: MonoTime) -> Option<PartitionId> {
        let (at, id) = *self.timers.first()?;
        if at > now {
            return None;
        }
        self.timers.pop_first();
        self.partitions[id.0 as usize].timer = MonoTime::MAX;
        Some(id)
    }

    /// When the next timer fires.
    pub(super) fn next_timer(&self) -> MonoTime {
        self.timers.first().map_or(MonoTime::MAX, |(at, _)| *at)
    }

    /// Whether a timer will have the partition looked at.
    pub(super) fn has_timer(&self, id: PartitionId) -> bool {
        self.timer(id) != MonoTime::MAX
    }

    /// Each partition has at most the one timer that it knows of, each line holds who claims to
    /// stand in it and nobody else, and whatever a quiet partition holds will be heard of.
    pub(super) fn invariants(&self) {
        if !claims::are_checked() || self.partitions.len() > 64 {
            return;
        }
        let set = self.partitions.iter().filter(|p| p.timer != MonoTime::MAX).count();
        assert_eq!(set, self.timers.len(), "a timer that no partition knows of");
        let mut standing = 0;
        for (id, partition) in self.ids().zip(&self.partitions) {
            if partition.quiet {
                let queue = partition.queue.lock();
                assert!(queue.batches.is_empty() || queue.told != Told::Nothing, "untold");
            }
            if let Some(node) = partition.ready_at {
                standing += 1;
                assert_eq!(partition.leader, Some(node), "in another's line");
                let line = self.ready.get(&node);
                assert!(line.is_some_and(|l| l.contains(&id)), "not in line");
            }
            let seats = || partition.in_flight.iter().map(|seat| seat.tag);
            assert!(seats().is_sorted_by(|a, b| a < b), "the oldest seat is not the first");
        }
        let in_line: usize = self.ready.values().map(VecDeque::len).sum();
        assert_eq!(in_line, standing, "a place in line that nobody claims");
    }

    /// By when the partition will be looked at; `MAX` if only news will have it looked at.
    pub(super) fn timer(&self, id: PartitionId) -> MonoTime {
        self.partition(id).timer
    }
}

/// Who leads the partition as far as the snapshot tells, and since which epoch.
pub(super) fn leader_of(cluster: &Cluster, queue: &PartitionQueue) -> (Option<NodeId>, i32) {
    let topic = cluster.topic(&queue.topic);
    let metadata = topic.and_then(|t| t.partition(queue.partition));
    metadata.map_or((None, -1), |m| (m.leader, m.leader_epoch))
}

//! A topic, its partitions, and who leads them.

use std::collections::BTreeMap;

use crate::types::Uuid;

use super::log::Log;

/// What distinguishes one topic from another. `TopicConfig::from(3)` is a plain one with three
/// partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    pub(crate) partitions: i32,
    pub(crate) replication_factor: Option<usize>,
    pub(crate) min_insync_replicas: usize,
    pub(crate) max_message_bytes: usize,
    pub(crate) segment_bytes: usize,
    pub(crate) log_append_time: bool,
    pub(crate) compacted: bool,
}

impl TopicConfig {
    /// A topic with so many partitions, replicated to three brokers, or to all if there are fewer.
    pub fn new(partitions: i32) -> Self {
        Self {
            partitions: partitions.max(1),
            replication_factor: None,
            min_insync_replicas: 1,
            max_message_bytes: 1_048_588,
            segment_bytes: 1 << 30,
            log_append_time: false,
            compacted: false,
        }
    }

    /// On how many brokers each partition is; at most on all.
    pub fn replication_factor(mut self, brokers: usize) -> Self {
        self.replication_factor = Some(brokers.max(1));
        self
    }

    /// `min.insync.replicas`: with fewer, `acks=all` is answered with `NOT_ENOUGH_REPLICAS`.
    pub fn min_insync_replicas(mut self, replicas: usize) -> Self {
        self.min_insync_replicas = replicas;
        self
    }

    /// `max.message.bytes`: a larger batch is answered with `MESSAGE_TOO_LARGE`.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes;
        self
    }

    /// `segment.bytes`: a larger batch is answered with `RECORD_LIST_TOO_LARGE`, if it is within
    /// `max.message.bytes`.
    pub fn segment_bytes(mut self, bytes: usize) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// `message.timestamp.type=LogAppendTime`: records get the broker's time in place of their own.
    pub fn log_append_time(mut self) -> Self {
        self.log_append_time = true;
        self
    }

    /// `cleanup.policy=compact`: a record without a key is refused. (Nothing is ever compacted.)
    pub fn compacted(mut self) -> Self {
        self.compacted = true;
        self
    }
}

impl From<i32> for TopicConfig {
    fn from(partitions: i32) -> Self {
        Self::new(partitions)
    }
}

/// A topic.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    pub(crate) id: Uuid,
    pub(crate) config: TopicConfig,
    pub(crate) partitions: Vec<Partition>,
}

/// A partition: where it is and what is in it.
#[derive(Clone, Debug)]
pub(crate) struct Partition {
    /// The brokers that hold it; the first is the preferred leader.
    pub(crate) replicas: Vec<i32>,
    /// Those of them that are in sync.
    pub(crate) in_sync: Vec<i32>,
    /// Those that are not in sync and yet have all that was acknowledged, since too few others
    /// were in sync for more: the eligible leader replicas of KIP-966.
    eligible: Vec<i32>,
    pub(crate) leader: Option<i32>,
    /// Goes up with every change of leader.
    pub(crate) leader_epoch: i32,
    pub(crate) log: Log,
    /// Where the log ended when a broker went that has been down since its first start.
    went_at: BTreeMap<i32, i64>,
}

impl Partition {
    pub(crate) fn new(replicas: Vec<i32>) -> Self {
        let leader = replicas.first().copied();
        let in_sync = replicas.clone();
        Self {
            replicas,
            in_sync,
            eligible: Vec::new(),
            leader,
            leader_epoch: 0,
            log: Log::default(),
            went_at: BTreeMap::new(),
        }
    }

    /// How many replicas have to be in sync for an append with acks=all; never more than there are.
    pub(crate) fn min_in_sync(&self, config: &TopicConfig) -> usize {
        config.min_insync_replicas.min(self.replicas.len())
    }

    /// A new leader, if it is another one, that has all records.
    pub(crate) fn lead_by(&mut self, leader: Option<i32>) {
        if self.leader != leader {
            self.leader = leader;
            self.leader_epoch += 1;
            self.read_producers();
        }
    }

    /// The producers become those that the leader knows: if it has been down, only the last batch
    /// of each from before that, since its snapshot has no more.
    fn read_producers(&mut self) {
        if let Some(leader) = self.leader {
            let went_at = self.went_at.get(&leader).copied().unwrap_or(0);
            self.log.read_producers(went_at);
        }
    }

    /// A new leader whose copy of the log ends at `end_offset`: what the old one has beyond that
    /// is lost. If it is below the high watermark the election is unclean: acknowledged records
    /// are lost, and the new leader is alone in sync.
    pub(crate) fn fail_over(&mut self, leader: i32, end_offset: i64) {
        if end_offset < self.log.high_watermark() {
            self.set_in_sync(vec![leader], 1);
        }
        self.leader = Some(leader);
        self.leader_epoch += 1;
        self.log.truncate(end_offset);
        self.read_producers();
    }

    /// Says which replicas are in sync, of which `needed` have to be for acks=all. If they become
    /// too few, those that fall out still have all that was acknowledged.
    pub(crate) fn set_in_sync(&mut self, in_sync: Vec<i32>, needed: usize) {
        if in_sync.len() >= needed {
            self.eligible.clear();
        } else {
            let fallen = self.in_sync.iter().filter(|id| !in_sync.contains(id));
            self.eligible.extend(fallen);
        }
        self.eligible.retain(|id| !in_sync.contains(id));
        self.in_sync = in_sync;
    }

    /// The brokers that hold it have other ids from now on.
    #[cfg(test)]
    pub(super) fn renumber(&mut self, by: i32) {
        let held = [&mut self.replicas, &mut self.in_sync, &mut self.eligible];
        held.into_iter().flatten().chain(&mut self.leader).for_each(|id| *id += by);
        let went_at = std::mem::take(&mut self.went_at);
        self.went_at = went_at.into_iter().map(|(id, offset)| (id + by, offset)).collect();
        self.leader_epoch += 1;
    }

    /// A broker has gone: it is no longer in sync, unless it was the last, and its leadership goes
    /// to one that is, or to one that has all that was acknowledged.
    pub(crate) fn broker_gone(&mut self, broker: i32, alive: &[i32], needed: usize) {
        self.went_at.insert(broker, self.log.end_offset);
        let others: Vec<_> = self.in_sync.iter().copied().filter(|id| *id != broker).collect();
        if !others.is_empty() {
            self.set_in_sync(others, needed);
        }
        if self.leader == Some(broker) {
            self.leader = None;
            if !self.elect(alive) {
                self.leader_epoch += 1;
            }
        }
    }

    /// A broker has come back. If there is a leader it catches up and is in sync. If there is none
    /// it may lead, and the others follow it; if it lacks what was acknowledged it may not, for
    /// that would be an unclean election ([`fail_over`](Self::fail_over)).
    pub(crate) fn broker_back(&mut self, broker: i32, alive: &[i32], needed: usize) {
        let elected = self.leader.is_none() && self.elect(alive);
        let catches_up = |id: &i32| {
            (elected && alive.contains(id)) || *id == broker || self.in_sync.contains(id)
        };
        if self.leader.is_some() {
            let in_sync = self.replicas.iter().copied().filter(catches_up).collect();
            self.set_in_sync(in_sync, needed);
        }
    }

    /// Finds a leader that has all that was acknowledged; gives whether there is one.
    fn elect(&mut self, alive: &[i32]) -> bool {
        let is_alive = |id: &&i32| alive.contains(id);
        if let Some(leader) = self.in_sync.iter().find(is_alive).copied() {
            self.lead_by(Some(leader));
        } else if let Some(leader) = self.eligible.iter().find(is_alive).copied() {
            self.set_in_sync(vec![leader], 1);
            self.fail_over(leader, self.log.high_watermark());
        }
        self.leader.is_some()
    }
}

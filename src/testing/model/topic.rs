//! A topic, its partitions, and who leads them.

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
    pub(crate) leader: Option<i32>,
    /// Goes up with every change of leader.
    pub(crate) leader_epoch: i32,
    pub(crate) log: Log,
}

impl Partition {
    pub(crate) fn new(replicas: Vec<i32>) -> Self {
        let leader = replicas.first().copied();
        let in_sync = replicas.clone();
        Self { replicas, in_sync, leader, leader_epoch: 0, log: Log::default() }
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
        }
    }

    /// A new leader whose copy of the log ends at `end_offset`: what the old one has beyond that
    /// is lost. If it is below the high watermark the election is unclean: acknowledged records
    /// are lost, and the new leader is alone in sync.
    pub(crate) fn fail_over(&mut self, leader: i32, end_offset: i64) {
        if end_offset < self.log.high_watermark() {
            self.in_sync = vec![leader];
        }
        self.leader = Some(leader);
        self.leader_epoch += 1;
        self.log.truncate(end_offset);
    }

    /// A broker has gone: it is no longer in sync, and its leadership goes to one that is.
    pub(crate) fn broker_gone(&mut self, broker: i32) {
        if self.in_sync.len() > 1 {
            self.in_sync.retain(|id| *id != broker);
        }
        if self.leader == Some(broker) {
            self.lead_by(self.in_sync.iter().copied().find(|id| *id != broker));
        }
    }

    /// A broker has come back; `alive` are all that are there now.
    ///
    /// If there is a leader it catches up and is in sync. If there is none it leads, and the others
    /// follow it, but only if it was in sync when the last leader went: anything else would be an
    /// unclean election ([`fail_over`](Self::fail_over)).
    pub(crate) fn broker_back(&mut self, broker: i32, alive: &[i32]) {
        if !self.replicas.contains(&broker) {
            return;
        }
        if self.leader.is_none() && self.in_sync.contains(&broker) {
            self.lead_by(Some(broker));
            self.in_sync = self.replicas.clone();
            self.in_sync.retain(|id| alive.contains(id));
        } else if self.leader.is_some() && !self.in_sync.contains(&broker) {
            self.in_sync.push(broker);
        }
    }
}

//! A topic, its partitions and their logs.

use crate::protocol::ErrorCode;
use crate::record::{BatchError, Header, RecordBatch, RecordBatchHeader};
use crate::types::Uuid;

use super::batch::{BatchLimits, Refusal, check_batch};
use super::producer_state::{ProducerBatch, ProducerStates, Verdict, sequence_after};

/// What distinguishes one topic from another. `TopicConfig::from(3)` is a plain one with three
/// partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    pub(crate) partitions: i32,
    pub(crate) replication_factor: Option<usize>,
    pub(crate) min_insync_replicas: usize,
    pub(crate) max_message_bytes: usize,
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

    fn limits(&self) -> BatchLimits {
        BatchLimits {
            max_message_bytes: self.max_message_bytes,
            // Kafka's defaults: an hour ahead, any time back, and no say in LogAppendTime topics.
            timestamp_after_max_ms: if self.log_append_time { i64::MAX } else { 3_600_000 },
            compacted: self.compacted,
        }
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

    pub(crate) fn lead_by(&mut self, leader: Option<i32>) {
        if self.leader != leader {
            self.leader = leader;
            self.leader_epoch += 1;
        }
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

    /// A broker has come back and caught up.
    pub(crate) fn broker_back(&mut self, broker: i32) {
        if !self.replicas.contains(&broker) {
            return;
        }
        if !self.in_sync.contains(&broker) {
            self.in_sync.push(broker);
        }
        if self.leader.is_none() {
            self.lead_by(Some(broker));
        }
    }
}

/// The log of a partition. There is one for all replicas: acknowledged records are never lost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    batches: Vec<StoredBatch>,
    pub(crate) start_offset: i64,
    pub(crate) end_offset: i64,
    pub(crate) producers: ProducerStates,
}

/// A batch in the log, as it came, and what the broker added to it.
#[derive(Clone, Debug)]
struct StoredBatch {
    base_offset: i64,
    /// Milliseconds since 1970, in a topic with LogAppendTime.
    log_append_time_ms: Option<i64>,
    bytes: Vec<u8>,
}

/// A record in the log of a test broker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredRecord {
    /// Its place in the partition.
    pub offset: i64,
    /// Milliseconds since 1970: the producer's, or the broker's in a topic with LogAppendTime.
    pub timestamp: i64,
    /// The key; `None` is null, which is not the same as empty.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is null (a tombstone).
    pub value: Option<Vec<u8>>,
    /// The headers, in order, duplicates included.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The id of the idempotent producer that wrote it, or -1.
    pub producer_id: i64,
    /// That producer's epoch, or -1.
    pub producer_epoch: i16,
    /// The record's own sequence number, or -1.
    pub sequence: i32,
}

impl StoredBatch {
    /// Appends the batch's records from `start_offset` on to `out`.
    fn read_into(&self, start_offset: i64, out: &mut Vec<StoredRecord>) -> Result<(), BatchError> {
        let (batch, _) = RecordBatch::split_first(&self.bytes)?;
        let header = batch.header();
        for (index, record) in (0..).zip(batch.records()?) {
            let record = record?;
            let offset = self.base_offset + i64::from(index);
            if offset < start_offset {
                continue;
            }
            let has_sequence = header.producer_id >= 0;
            let owned = |header: Header<'_>| {
                (header.name.into_owned(), header.value.map(|value| value.into_owned()))
            };
            out.push(StoredRecord {
                offset,
                timestamp: self.log_append_time_ms.unwrap_or(record.timestamp),
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: record.headers.into_iter().map(owned).collect(),
                producer_id: header.producer_id,
                producer_epoch: header.producer_epoch,
                sequence: if has_sequence {
                    sequence_after(header.base_sequence, index)
                } else {
                    -1
                },
            });
        }
        Ok(())
    }
}

/// Where a batch is in the log, as the response tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) base_offset: i64,
    pub(crate) log_append_time_ms: i64,
}

/// How a broker treats what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Checks everything, keeps every batch.
    Records,
    /// Checks the headers and sequences, keeps offsets only.
    Counts {
        /// Whether to verify the checksums all the same.
        checksums: bool,
    },
}

impl Log {
    /// Appends a batch, if all is well with it.
    pub(crate) fn append(
        &mut self,
        batch: &[u8],
        config: &TopicConfig,
        keep: Keep,
        now_ms: i64,
    ) -> Result<Appended, Refusal> {
        let header = check_batch(batch, &config.limits(), now_ms, keep)?;
        if header.is_transactional() {
            // Transactions are not modelled, so no partition is ever part of one.
            return Err(ErrorCode::INVALID_TXN_STATE.into());
        }
        let producer = producer_part(&header);
        if let Some(producer) = producer {
            match self.producers.judge(producer) {
                Verdict::Append => {}
                Verdict::Refuse(code) => return Err(code.into()),
                Verdict::Duplicate(known) => {
                    return Ok(Appended {
                        base_offset: known.base_offset,
                        log_append_time_ms: known.max_timestamp,
                    });
                }
            }
        }
        let base_offset = self.end_offset;
        let log_append_time_ms = config.log_append_time.then_some(now_ms);
        if let Some(producer) = producer {
            let max_timestamp = log_append_time_ms.unwrap_or(header.max_timestamp);
            self.producers.appended(producer, base_offset, max_timestamp);
        }
        self.end_offset += i64::from(header.record_count);
        if keep == Keep::Records {
            self.batches.push(StoredBatch {
                base_offset,
                log_append_time_ms,
                bytes: batch.to_vec(),
            });
        }
        Ok(Appended { base_offset, log_append_time_ms: log_append_time_ms.unwrap_or(-1) })
    }

    /// The records, oldest first.
    pub(crate) fn records(&self) -> Vec<StoredRecord> {
        let mut records = Vec::new();
        for batch in &self.batches {
            let read = batch.read_into(self.start_offset, &mut records);
            debug_assert!(read.is_ok(), "only checked batches are stored");
        }
        records
    }

    /// Deletes the records before `offset`, as `kafka-delete-records` does.
    pub(crate) fn delete_before(&mut self, offset: i64) {
        self.start_offset = offset.clamp(self.start_offset, self.end_offset);
    }
}

fn producer_part(header: &RecordBatchHeader) -> Option<ProducerBatch> {
    (header.producer_id >= 0).then(|| ProducerBatch {
        producer_id: header.producer_id,
        epoch: header.producer_epoch,
        first_sequence: header.base_sequence,
        last_sequence: sequence_after(header.base_sequence, header.last_offset_delta),
    })
}

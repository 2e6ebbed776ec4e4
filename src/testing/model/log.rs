//! A partition's log: appends, truncation, and what a checker reads from it.

use crate::protocol::ErrorCode;
use crate::record::{BatchError, Header, RecordBatch, RecordBatchHeader};

use super::batch::{BatchLimits, Refusal, check_batch};
use super::producer_state::{ProducerBatch, ProducerStates, Verdict, sequence_after};
use super::release::Release;
use super::topic::TopicConfig;

/// The log of a partition, as its leader has it.
///
/// The replicas share it. What they have for certain ends at the high watermark; where a new leader
/// begins is said when it is elected.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    batches: Vec<StoredBatch>,
    pub(crate) start_offset: i64,
    pub(crate) end_offset: i64,
    high_watermark: i64,
    pub(crate) producers: ProducerStates,
    /// Batches that truncations took away, in the order in which they went.
    cut: Vec<StoredBatch>,
}

/// A batch in the log, as it came, and what the broker added to it.
#[derive(Clone, Debug)]
struct StoredBatch {
    base_offset: i64,
    /// Milliseconds since 1970, in a topic with LogAppendTime.
    log_append_time_ms: Option<i64>,
    header: RecordBatchHeader,
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
    /// The offset after its last record.
    fn end_offset(&self) -> i64 {
        self.base_offset + i64::from(self.header.record_count)
    }

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

/// What a leader goes by when it appends.
pub(crate) struct Terms<'a> {
    pub(crate) config: &'a TopicConfig,
    pub(crate) release: Release,
    pub(crate) keep: Keep,
    /// Milliseconds since 1970.
    pub(crate) now_ms: i64,
}

impl Terms<'_> {
    fn limits(&self) -> BatchLimits {
        let release_ms = self.release.timestamp_after_max_ms();
        BatchLimits {
            max_message_bytes: self.config.max_message_bytes,
            // Kafka's defaults: any time back, and no say in LogAppendTime topics.
            timestamp_after_max_ms: if self.config.log_append_time { i64::MAX } else { release_ms },
            compacted: self.config.compacted,
        }
    }
}

impl Log {
    /// Appends a batch, if all is well with it.
    pub(crate) fn append(&mut self, batch: &[u8], terms: &Terms<'_>) -> Result<Appended, Refusal> {
        let &Terms { config, release, keep, now_ms } = terms;
        let header = check_batch(batch, &terms.limits(), now_ms, keep)?;
        if batch.len() > config.segment_bytes {
            return Err(ErrorCode::RECORD_LIST_TOO_LARGE.into());
        }
        if header.is_transactional() {
            // Transactions are not modelled, so no partition is ever part of one.
            return Err(ErrorCode::INVALID_TXN_STATE.into());
        }
        let producer = producer_part(&header);
        if let Some(producer) = producer {
            match self.producers.judge(producer, &release.producer_rules(), self.start_offset) {
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
            let bytes = batch.to_vec();
            self.batches.push(StoredBatch { base_offset, log_append_time_ms, header, bytes });
        }
        Ok(Appended { base_offset, log_append_time_ms: log_append_time_ms.unwrap_or(-1) })
    }

    /// Up to where all replicas that are in sync have the log for certain.
    pub(crate) fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// All replicas that are in sync have caught up.
    pub(crate) fn replicated(&mut self) {
        self.high_watermark = self.end_offset;
    }

    /// Cuts off the records from `offset` on, and with them the whole batches that they are in.
    /// What is known of producers becomes what the remaining log tells; if it keeps no records,
    /// nothing.
    pub(crate) fn truncate(&mut self, offset: i64) {
        if offset >= self.end_offset {
            return;
        }
        let kept = self.batches.partition_point(|batch| batch.end_offset() <= offset);
        self.end_offset = match self.batches.get(kept) {
            Some(first_cut) => first_cut.base_offset,
            None => offset.max(self.start_offset),
        };
        self.cut.extend(self.batches.drain(kept..));
        self.start_offset = self.start_offset.min(self.end_offset);
        self.high_watermark = self.high_watermark.min(self.end_offset);
        self.producers.forget_all();
        self.read_producers(0);
    }

    /// What is known of producers becomes what a broker knows that has a snapshot of them as of
    /// `snapshot_offset`, with the last batch of each, and has read what follows. (A log that keeps
    /// no records tells nothing, and changes nothing.)
    pub(crate) fn read_producers(&mut self, snapshot_offset: i64) {
        if self.batches.is_empty() {
            return;
        }
        self.producers.forget_all();
        let within = self.batches.partition_point(|batch| batch.base_offset < snapshot_offset);
        for (index, batch) in self.batches.iter().enumerate() {
            if index == within {
                self.producers.keep_last_batches();
            }
            if let Some(producer) = producer_part(&batch.header) {
                let max_timestamp = batch.log_append_time_ms.unwrap_or(batch.header.max_timestamp);
                self.producers.appended(producer, batch.base_offset, max_timestamp);
            }
        }
        if within == self.batches.len() {
            self.producers.keep_last_batches();
        }
    }

    /// The records, oldest first.
    pub(crate) fn records(&self) -> Vec<StoredRecord> {
        read(&self.batches, self.start_offset)
    }

    /// The records that truncations took away, in the order in which they went; offsets may repeat.
    pub(crate) fn cut_records(&self) -> Vec<StoredRecord> {
        read(&self.cut, 0)
    }

    /// Deletes the records before `offset`, as `kafka-delete-records` does.
    pub(crate) fn delete_before(&mut self, offset: i64) {
        self.start_offset = offset.clamp(self.start_offset, self.end_offset);
    }
}

fn read(batches: &[StoredBatch], start_offset: i64) -> Vec<StoredRecord> {
    let mut records = Vec::new();
    for batch in batches {
        let read = batch.read_into(start_offset, &mut records);
        debug_assert!(read.is_ok(), "only checked batches are stored");
    }
    records
}

fn producer_part(header: &RecordBatchHeader) -> Option<ProducerBatch> {
    (header.producer_id >= 0).then(|| ProducerBatch {
        producer_id: header.producer_id,
        epoch: header.producer_epoch,
        first_sequence: header.base_sequence,
        last_sequence: sequence_after(header.base_sequence, header.last_offset_delta),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::model::tests::batch;

    fn log_of(batches: &[Vec<u8>]) -> Log {
        let mut log = Log::default();
        let config = TopicConfig::new(1);
        let release = Release::default();
        let terms = Terms { config: &config, release, keep: Keep::Records, now_ms: 0 };
        for batch in batches {
            assert!(log.append(batch, &terms).is_ok());
        }
        log
    }

    fn judge(log: &Log, producer_id: i64, sequence: i32) -> Verdict {
        let (first_sequence, last_sequence) = (sequence, sequence);
        let batch = ProducerBatch { producer_id, epoch: 0, first_sequence, last_sequence };
        log.producers.judge(batch, &Release::default().producer_rules(), log.start_offset)
    }

    #[test]
    fn truncation_takes_whole_batches_and_what_they_told_of_producers() {
        let one = |id, sequence| batch(id, 0, sequence, &["v"]);
        let mut log = log_of(&[one(1, 0), batch(1, 0, 1, &["a", "b"]), one(2, 0), one(1, 3)]);
        log.truncate(2); // in the middle of the second batch
        assert_eq!((log.end_offset, log.high_watermark()), (1, 0));
        assert_eq!(log.records().len(), 1);
        let cut: Vec<_> = log.cut_records().iter().map(|r| (r.producer_id, r.sequence)).collect();
        assert_eq!(cut, [(1, 1), (1, 2), (2, 0), (1, 3)]);
        let refused = Verdict::Refuse(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        assert!(matches!(judge(&log, 1, 0), Verdict::Duplicate(_)));
        assert_eq!(judge(&log, 1, 4), refused);
        assert_eq!(judge(&log, 1, 1), Verdict::Append);
        assert_eq!(judge(&log, 2, 5), Verdict::Append, "the second producer is unknown again");
    }

    #[test]
    fn truncation_beyond_the_end_changes_nothing() {
        let mut log = log_of(&[batch(1, 0, 0, &["v"])]);
        log.replicated();
        log.truncate(1);
        assert_eq!((log.end_offset, log.high_watermark()), (1, 1));
        assert!(log.cut_records().is_empty());
    }
}

//! A produced record batch as a broker judges it before it looks at its log: bytes in, a header or
//! the error code out.
//!
//! The checks and their order are those of Kafka 4.x, so that a batch with two faults gets the
//! same code here as there. Two stages, since a broker checks `acks`, leadership and the in-sync
//! replicas between them.

use crate::protocol::ErrorCode;
use crate::record::{RecordBatch, RecordBatchHeader};

use super::log::Keep;

const LENGTH_AT: usize = 8;
/// Where the bytes begin that the length counts.
const LENGTH_COUNTS_FROM: usize = 12;
const MAGIC_AT: usize = 16;
/// The first byte that the checksum covers.
const ATTRIBUTES_AT: usize = 21;
/// The smallest length that any message format knows; Kafka's `LegacyRecord.RECORD_OVERHEAD_V0`.
const SMALLEST_LENGTH: i32 = 14;

/// The lowest three bits of the attributes' low byte are the compression.
const ZSTD: u8 = 4;
/// Produce version from which a broker takes zstd (KIP-110).
const ZSTD_SINCE: i16 = 7;

/// What a topic demands of a batch.
#[derive(Clone, Debug)]
pub(crate) struct BatchLimits {
    /// `max.message.bytes`: the largest batch, in bytes with its header.
    pub(crate) max_message_bytes: usize,
    /// `message.timestamp.after.max.ms`: how far ahead of the broker's clock a record may be dated.
    pub(crate) timestamp_after_max_ms: i64,
    /// `cleanup.policy=compact`: every record needs a key.
    pub(crate) compacted: bool,
}

/// Why a batch is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    /// Index in the batch and message of each record at fault (KIP-467).
    pub(crate) records: Vec<(i32, &'static str)>,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self { code, records: Vec::new() }
    }
}

/// The first stage: finds the one batch in a partition's part of a request of `version`.
pub(crate) fn only_batch(records: &[u8], version: i16) -> Result<&[u8], ErrorCode> {
    let Some(batch) = next_batch(records)? else {
        return Err(ErrorCode::INVALID_RECORD);
    };
    if batch[MAGIC_AT] != 2 {
        return Err(ErrorCode::INVALID_RECORD);
    }
    let attributes = batch.get(ATTRIBUTES_AT + 1).copied().unwrap_or_default();
    if version < ZSTD_SINCE && attributes & 7 == ZSTD {
        return Err(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE);
    }
    // What is too short to be a batch is cut off in silence, as a broker does.
    match next_batch(&records[batch.len()..])? {
        None => Ok(batch),
        Some(_) => Err(ErrorCode::INVALID_RECORD),
    }
}

/// The batch at the start of `bytes`; `None` if there is no whole one.
fn next_batch(bytes: &[u8]) -> Result<Option<&[u8]>, ErrorCode> {
    let Some(length) = bytes.get(LENGTH_AT..LENGTH_COUNTS_FROM) else {
        return Ok(None);
    };
    let length = i32::from_be_bytes([length[0], length[1], length[2], length[3]]);
    if length < SMALLEST_LENGTH {
        return Err(ErrorCode::CORRUPT_MESSAGE);
    }
    match bytes.get(MAGIC_AT) {
        None => return Ok(None),
        Some(0..=2) => {}
        Some(_) => return Err(ErrorCode::CORRUPT_MESSAGE),
    }
    Ok(bytes.get(..LENGTH_COUNTS_FROM + length.unsigned_abs() as usize))
}

/// Whether the first batch says that it belongs to a transaction.
pub(crate) fn is_transactional(records: &[u8]) -> bool {
    let header = RecordBatchHeader::decode(records);
    header.is_ok_and(|header| header.magic == 2 && header.is_transactional())
}

/// The second stage: size, checksum, counts, and each record.
pub(crate) fn check_batch(
    batch: &[u8],
    limits: &BatchLimits,
    now_ms: i64,
    keep: Keep,
) -> Result<RecordBatchHeader, Refusal> {
    if !batch.starts_with(&[0; 8]) {
        return Err(ErrorCode::INVALID_RECORD.into()); // the base offset is the broker's to give
    }
    if batch.len() > limits.max_message_bytes {
        return Err(ErrorCode::MESSAGE_TOO_LARGE.into());
    }
    let header = RecordBatchHeader::decode(batch).map_err(|_| ErrorCode::CORRUPT_MESSAGE)?;
    let checksums = keep != Keep::Counts { checksums: false };
    if checksums && header.crc != crc32c::crc32c(&batch[ATTRIBUTES_AT..]) {
        return Err(ErrorCode::CORRUPT_MESSAGE.into());
    }
    if header.record_count <= 0
        || i64::from(header.last_offset_delta) + 1 != i64::from(header.record_count)
        || header.is_control()
        || (header.producer_id >= 0 && header.base_sequence < 0)
    {
        return Err(ErrorCode::INVALID_RECORD.into());
    }
    if keep == Keep::Records {
        if header.is_compressed() {
            // Not modelled: what can't be read back would be missing in a test's comparison.
            return Err(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE.into());
        }
        check_records(batch, limits, now_ms)?;
    }
    Ok(header)
}

/// Looks at each record. In one point this is stricter than Kafka, which does not look at the
/// offset that a record of an uncompressed batch gives itself.
fn check_records(batch: &[u8], limits: &BatchLimits, now_ms: i64) -> Result<(), Refusal> {
    let invalid = |_| Refusal::from(ErrorCode::INVALID_RECORD);
    let (batch, _) = RecordBatch::split_first(batch).map_err(invalid)?;
    batch.validate().map_err(invalid)?;
    let mut refusal = Refusal::from(ErrorCode::INVALID_RECORD);
    for (index, record) in (0..).zip(batch.records().map_err(invalid)?) {
        let record = record.map_err(invalid)?;
        let ahead_ms = record.timestamp.saturating_sub(now_ms);
        if limits.compacted && record.key.is_none() {
            refusal.records.push((index, "a compacted topic needs keys"));
        } else if record.timestamp != -1 && ahead_ms > limits.timestamp_after_max_ms {
            refusal.code = ErrorCode::INVALID_TIMESTAMP;
            refusal.records.push((index, "the timestamp is too far ahead"));
        }
    }
    if refusal.records.is_empty() { Ok(()) } else { Err(refusal) }
}

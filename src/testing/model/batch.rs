//! A produced record batch as a broker judges it before it looks at its log: bytes in, a header or
//! the error code out.
//!
//! The checks and their order are those of Kafka 4.x, so that a batch with two faults gets the
//! same code here as there. Two stages, since a broker checks `acks`, leadership and the in-sync
//! replicas between them.

use crate::protocol::ErrorCode;

use super::records::{Record, read_records};
use super::topic::Keep;

/// Offsets of the fields of a batch in format v2.
const LENGTH_AT: usize = 8;
/// Where the bytes begin that the length counts.
const LENGTH_COUNTS_FROM: usize = 12;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
/// Where the records begin.
pub(crate) const HEADER_LEN: usize = 61;
/// The smallest length that any message format knows; Kafka's `LegacyRecord.RECORD_OVERHEAD_V0`.
const SMALLEST_LENGTH: i32 = 14;

/// Bits of the attributes' low byte; the lowest three are the compression.
const TRANSACTIONAL: u8 = 0x10;
const CONTROL: u8 = 0x20;
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
    records.get(MAGIC_AT) == Some(&2)
        && records.get(ATTRIBUTES_AT + 1).is_some_and(|attributes| attributes & TRANSACTIONAL != 0)
}

/// The fields of a batch's header that a broker looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    attributes: u8,
    pub(crate) last_offset_delta: i32,
    /// Milliseconds since 1970, as the next one.
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    pub(crate) records_count: i32,
}

impl BatchHeader {
    /// Reads the header; `None` if the batch is too short to have one.
    pub(crate) fn read(batch: &[u8]) -> Option<Self> {
        Some(Self {
            attributes: *batch.get(ATTRIBUTES_AT + 1)?,
            last_offset_delta: i32::from_be_bytes(field(batch, 23)?),
            base_timestamp: i64::from_be_bytes(field(batch, 27)?),
            max_timestamp: i64::from_be_bytes(field(batch, 35)?),
            producer_id: i64::from_be_bytes(field(batch, 43)?),
            producer_epoch: i16::from_be_bytes(field(batch, 51)?),
            base_sequence: i32::from_be_bytes(field(batch, 53)?),
            records_count: i32::from_be_bytes(field(batch, 57)?),
        })
    }

    pub(crate) fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    fn is_compressed(&self) -> bool {
        self.attributes & 7 != 0
    }

    fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }
}

fn field<const N: usize>(batch: &[u8], at: usize) -> Option<[u8; N]> {
    batch.get(at..at + N)?.try_into().ok()
}

fn checksum_is_right(batch: &[u8]) -> bool {
    field(batch, CRC_AT).map(u32::from_be_bytes) == Some(crc32c::crc32c(&batch[ATTRIBUTES_AT..]))
}

/// The second stage: size, checksum, counts, and each record.
pub(crate) fn check_batch(
    batch: &[u8],
    limits: &BatchLimits,
    now_ms: i64,
    keep: Keep,
) -> Result<BatchHeader, Refusal> {
    if !batch.starts_with(&[0; 8]) {
        return Err(ErrorCode::INVALID_RECORD.into()); // the base offset is the broker's to give
    }
    if batch.len() > limits.max_message_bytes {
        return Err(ErrorCode::MESSAGE_TOO_LARGE.into());
    }
    let header = BatchHeader::read(batch).ok_or(ErrorCode::CORRUPT_MESSAGE)?;
    if keep != (Keep::Counts { checksums: false }) && !checksum_is_right(batch) {
        return Err(ErrorCode::CORRUPT_MESSAGE.into());
    }
    if header.records_count <= 0
        || i64::from(header.last_offset_delta) + 1 != i64::from(header.records_count)
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
        check_records(batch, &header, limits, now_ms)?;
    }
    Ok(header)
}

fn check_records(
    batch: &[u8],
    header: &BatchHeader,
    limits: &BatchLimits,
    now_ms: i64,
) -> Result<(), Refusal> {
    let mut refusal = Refusal::from(ErrorCode::INVALID_RECORD);
    read_records(&batch[HEADER_LEN..], header.records_count, |index, record| {
        if limits.compacted && record.key.is_none() {
            refusal.records.push((index, "a compacted topic needs keys"));
        } else if is_too_early(header, record, limits, now_ms) {
            refusal.code = ErrorCode::INVALID_TIMESTAMP;
            refusal.records.push((index, "the timestamp is too far ahead"));
        }
    })
    .map_err(|_| ErrorCode::INVALID_RECORD)?;
    if refusal.records.is_empty() { Ok(()) } else { Err(refusal) }
}

fn is_too_early(
    header: &BatchHeader,
    record: &Record<'_>,
    limits: &BatchLimits,
    now_ms: i64,
) -> bool {
    let timestamp = header.base_timestamp.wrapping_add(record.timestamp_delta);
    timestamp != -1 && timestamp.saturating_sub(now_ms) > limits.timestamp_after_max_ms
}

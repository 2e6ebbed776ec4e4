//! Reading record batches: the header's layout, the records, and the checks a broker makes.
//!
//! Nothing here is trusted: lengths and counts are checked against the bytes that are there before
//! anything is allocated.

use std::borrow::Cow;
use std::fmt;

use super::{Header, RECORD_BATCH_OVERHEAD, varint};

/// Where the fields of a batch's header begin.
pub(super) mod offset {
    pub const BASE_OFFSET: usize = 0;
    /// Counts the bytes after itself.
    pub const BATCH_LENGTH: usize = 8;
    pub const PARTITION_LEADER_EPOCH: usize = 12;
    pub const MAGIC: usize = 16;
    pub const CRC: usize = 17;
    /// The first byte that the checksum covers.
    pub const ATTRIBUTES: usize = 21;
    pub const LAST_OFFSET_DELTA: usize = 23;
    pub const BASE_TIMESTAMP: usize = 27;
    pub const MAX_TIMESTAMP: usize = 35;
    pub const PRODUCER_ID: usize = 43;
    pub const PRODUCER_EPOCH: usize = 51;
    pub const BASE_SEQUENCE: usize = 53;
    pub const RECORD_COUNT: usize = 57;
}

/// Bits of the attributes.
pub(super) const COMPRESSION: i16 = 0b111;
pub(super) const LOG_APPEND_TIME: i16 = 1 << 3;
pub(super) const TRANSACTIONAL: i16 = 1 << 4;
pub(super) const CONTROL: i16 = 1 << 5;

/// The only message format that is read here.
pub(super) const MAGIC: u8 = 2;

/// A batch's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordBatchHeader {
    /// The first record's offset; 0 until a broker sets it.
    pub base_offset: i64,
    /// The bytes that follow this field.
    pub batch_length: i32,
    /// The leader's epoch at the append; -1 until a broker sets it.
    pub partition_leader_epoch: i32,
    /// The message format: 2.
    pub magic: u8,
    /// The CRC-32C of all that follows this field.
    pub crc: u32,
    /// Compression, timestamp type, transactional and control bits.
    pub attributes: i16,
    /// The last record's offset, less the first one's.
    pub last_offset_delta: i32,
    /// The first record's timestamp in ms since 1970.
    pub base_timestamp: i64,
    /// The latest timestamp in ms since 1970.
    pub max_timestamp: i64,
    /// The producer's id, or -1 if it is not idempotent.
    pub producer_id: i64,
    /// The producer's epoch, or -1.
    pub producer_epoch: i16,
    /// The first record's sequence number, or -1.
    pub base_sequence: i32,
    /// The number of records.
    pub record_count: i32,
}

/// What a batch's timestamps are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's times.
    CreateTime,
    /// The broker's time of the append.
    LogAppendTime,
}

/// Why bytes are not a valid record batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchError {
    /// The bytes end before the batch does.
    Truncated {
        /// The bytes that the batch should have, at the least.
        needed: usize,
        /// The bytes that are there.
        available: usize,
    },
    /// The length field is too small for a header.
    Length(i32),
    /// Another message format than 2.
    Magic(u8),
    /// The checksum is not that of the bytes.
    Checksum {
        /// The one in the header.
        stored: u32,
        /// The one of the bytes.
        computed: u32,
    },
    /// The count is negative, or more than the bytes can hold, or does not fit the last offset.
    Count {
        /// The number of records that the header tells.
        record_count: i32,
        /// The last record's offset, less the first one's.
        last_offset_delta: i32,
    },
    /// The records are compressed, and this reader can't decompress.
    Compressed,
    /// A record is malformed; this is its place in the batch.
    Record(u32),
    /// Bytes follow the last record.
    TrailingBytes(usize),
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { needed, available } => {
                write!(f, "a batch of {needed} bytes, of which {available} are there")
            }
            Self::Length(length) => write!(f, "a batch length of {length}"),
            Self::Magic(magic) => write!(f, "message format {magic}"),
            Self::Checksum { stored, computed } => {
                write!(f, "checksum {stored:08x}, but the bytes have {computed:08x}")
            }
            Self::Count { record_count, last_offset_delta } => {
                write!(f, "{record_count} records, the last at {last_offset_delta}")
            }
            Self::Compressed => f.write_str("compressed records"),
            Self::Record(index) => write!(f, "record {index} is malformed"),
            Self::TrailingBytes(count) => write!(f, "{count} bytes after the last record"),
        }
    }
}

impl std::error::Error for BatchError {}

impl RecordBatchHeader {
    /// Reads a header, without checking what it says.
    pub fn decode(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(bytes) = bytes.first_chunk::<RECORD_BATCH_OVERHEAD>() else {
            let (needed, available) = (RECORD_BATCH_OVERHEAD, bytes.len());
            return Err(BatchError::Truncated { needed, available });
        };
        Ok(Self {
            base_offset: i64::from_be_bytes(field(bytes, offset::BASE_OFFSET)),
            batch_length: i32::from_be_bytes(field(bytes, offset::BATCH_LENGTH)),
            partition_leader_epoch: i32::from_be_bytes(field(
                bytes,
                offset::PARTITION_LEADER_EPOCH,
            )),
            magic: bytes[offset::MAGIC],
            crc: u32::from_be_bytes(field(bytes, offset::CRC)),
            attributes: i16::from_be_bytes(field(bytes, offset::ATTRIBUTES)),
            last_offset_delta: i32::from_be_bytes(field(bytes, offset::LAST_OFFSET_DELTA)),
            base_timestamp: i64::from_be_bytes(field(bytes, offset::BASE_TIMESTAMP)),
            max_timestamp: i64::from_be_bytes(field(bytes, offset::MAX_TIMESTAMP)),
            producer_id: i64::from_be_bytes(field(bytes, offset::PRODUCER_ID)),
            producer_epoch: i16::from_be_bytes(field(bytes, offset::PRODUCER_EPOCH)),
            base_sequence: i32::from_be_bytes(field(bytes, offset::BASE_SEQUENCE)),
            record_count: i32::from_be_bytes(field(bytes, offset::RECORD_COUNT)),
        })
    }

    /// Whether the records are compressed.
    pub fn is_compressed(&self) -> bool {
        self.attributes & COMPRESSION != 0
    }

    /// Whether the batch is part of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether the batch is a transaction marker, which no client may write.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// What the timestamps are.
    pub fn timestamp_type(&self) -> TimestampType {
        match self.attributes & LOG_APPEND_TIME {
            0 => TimestampType::CreateTime,
            _ => TimestampType::LogAppendTime,
        }
    }
}

/// The bytes of a field; a position in [`offset`] and the field's width never leave the header.
fn field<const N: usize>(header: &[u8; RECORD_BATCH_OVERHEAD], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&header[at..at + N]);
    value
}

/// A record batch in a buffer.
#[derive(Clone, Copy, Debug)]
pub struct RecordBatch<'a> {
    header: RecordBatchHeader,
    bytes: &'a [u8],
}

impl<'a> RecordBatch<'a> {
    /// Takes the first batch off `bytes`; gives it and what follows it. Checks sizes and format
    /// only: see [`validate`](Self::validate).
    pub fn split_first(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), BatchError> {
        let header = RecordBatchHeader::decode(bytes)?;
        if header.magic != MAGIC {
            return Err(BatchError::Magic(header.magic));
        }
        let after_length = offset::BATCH_LENGTH + 4;
        let size = usize::try_from(header.batch_length).ok().map(|length| length + after_length);
        let size = size.filter(|size| *size >= RECORD_BATCH_OVERHEAD);
        let size = size.ok_or(BatchError::Length(header.batch_length))?;
        match bytes.split_at_checked(size) {
            Some((bytes, rest)) => Ok((Self { header, bytes }, rest)),
            None => Err(BatchError::Truncated { needed: size, available: bytes.len() }),
        }
    }

    /// The header.
    pub fn header(&self) -> &RecordBatchHeader {
        &self.header
    }

    /// The whole batch.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Checks all that a broker checks before it appends: checksum, counts and offsets, and that
    /// the bytes hold just the records that the header tells.
    pub fn validate(&self) -> Result<(), BatchError> {
        let computed = crc32c::crc32c(&self.bytes[offset::ATTRIBUTES..]);
        if computed != self.header.crc {
            return Err(BatchError::Checksum { stored: self.header.crc, computed });
        }
        let RecordBatchHeader { record_count, last_offset_delta, .. } = self.header;
        if record_count < 1 || last_offset_delta != record_count - 1 {
            return Err(BatchError::Count { record_count, last_offset_delta });
        }
        let mut records = self.records()?;
        for record in &mut records {
            record?;
        }
        match records.bytes.len() {
            0 => Ok(()),
            left => Err(BatchError::TrailingBytes(left)),
        }
    }

    /// The records, in order. Each must be at the offset that follows the one before.
    pub fn records(&self) -> Result<Records<'a>, BatchError> {
        if self.header.is_compressed() {
            return Err(BatchError::Compressed);
        }
        let RecordBatchHeader { record_count, last_offset_delta, .. } = self.header;
        let (bytes, base) = (&self.bytes[RECORD_BATCH_OVERHEAD..], &self.header);
        match u32::try_from(record_count) {
            Ok(count) if count as usize <= bytes.len() / MIN_RECORD_SIZE => {
                Ok(Records::new([bytes, &[]], &[], count, base.base_offset, base.base_timestamp))
            }
            _ => Err(BatchError::Count { record_count, last_offset_delta }),
        }
    }
}

/// Length, attributes, two deltas, two lengths and a count, of a byte each.
const MIN_RECORD_SIZE: usize = 7;

/// A record in a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The record's offset.
    pub offset: i64,
    /// The record's timestamp in ms since 1970.
    pub timestamp: i64,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
    /// The headers, in order.
    pub headers: Vec<Header<'a>>,
}

/// The records of a batch. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    /// Segments that follow `bytes`, then the last one; a record lies wholly in one.
    segments: &'a [Vec<u8>],
    last: &'a [u8],
    /// The places in the batch of the records that are still to come.
    indexes: std::ops::Range<u32>,
    base_offset: i64,
    base_timestamp: i64,
}

impl<'a> Records<'a> {
    /// Reads `count` records from the first bytes, the segments after them, and the last ones.
    pub(super) fn new(
        [bytes, last]: [&'a [u8]; 2],
        segments: &'a [Vec<u8>],
        count: u32,
        base_offset: i64,
        base_timestamp: i64,
    ) -> Self {
        Self { bytes, segments, last, indexes: 0..count, base_offset, base_timestamp }
    }

    /// The record at this place in the batch, which is next in the bytes. `None` if malformed.
    fn take_record(&mut self, index: u32) -> Option<Record<'a>> {
        let length = usize::try_from(varint::take(&mut self.bytes)?).ok()?;
        let (mut body, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        let (_attributes, after) = body.split_first()?;
        body = after;
        let timestamp_delta = varint::take_long(&mut body)?;
        let offset_delta = varint::take(&mut body)?;
        if i64::from(offset_delta) != i64::from(index) {
            return None;
        }
        let key = take_bytes(&mut body)?;
        let value = take_bytes(&mut body)?;
        let headers = take_headers(&mut body)?;
        // A record's length must be the sum of its parts.
        body.is_empty().then_some(Record {
            offset: self.base_offset.wrapping_add(offset_delta.into()),
            timestamp: self.base_timestamp.wrapping_add(timestamp_delta),
            key,
            value,
            headers,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.indexes.next()?;
        while self.bytes.is_empty() {
            match self.segments.split_first() {
                Some((next, rest)) => (self.bytes, self.segments) = (next, rest),
                None if self.last.is_empty() => break,
                None => self.bytes = std::mem::take(&mut self.last),
            }
        }
        let record = self.take_record(index);
        if record.is_none() {
            self.indexes = 0..0;
        }
        Some(record.ok_or(BatchError::Record(index)))
    }
}

/// Bytes after their length, which is -1 for null. The outer `None` is an error.
fn take_bytes<'a>(body: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = varint::take(body)?;
    if length == -1 {
        return Some(None);
    }
    let (taken, rest) = body.split_at_checked(usize::try_from(length).ok()?)?;
    *body = rest;
    Some(Some(taken))
}

fn take_headers<'a>(body: &mut &'a [u8]) -> Option<Vec<Header<'a>>> {
    let count = usize::try_from(varint::take(body)?).ok()?;
    // A header takes two bytes at the least; and no count can make us reserve more than is here.
    if count > body.len() / 2 {
        return None;
    }
    let mut headers = Vec::with_capacity(count.min(body.len() / size_of::<Header<'_>>()));
    for _ in 0..count {
        let name = std::str::from_utf8(take_bytes(body)??).ok()?;
        let value = take_bytes(body)?.map(Cow::Borrowed);
        headers.push(Header { name: Cow::Borrowed(name), value });
    }
    Some(headers)
}

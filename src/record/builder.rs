//! Encoding records in place, the one copy that a record sees on its way.
//!
//! Owned by a batch of the accumulator: the user's thread appends under the partition's lock. The
//! sender thread then completes the header, with the checksum, and once more if the batch gets
//! another epoch or sequence. Memory comes in segments of fixed capacity and never grows here.

use super::batch::{self, Records, offset};
use super::{Header, RECORD_BATCH_OVERHEAD, varint};

/// What a record holds, borrowed from the caller.
#[derive(Clone, Copy, Debug)]
pub struct RecordData<'a> {
    /// The key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is null.
    pub value: Option<&'a [u8]>,
    /// The headers, in order.
    pub headers: &'a [Header<'a>],
    /// Milliseconds since 1970.
    pub timestamp: i64,
}

impl RecordData<'_> {
    /// The size of a batch that holds nothing but this record.
    pub fn size_alone(&self) -> usize {
        let body = body_size(self, 0, 0);
        RECORD_BATCH_OVERHEAD + varint::length_size(body) + body
    }
}

/// A batch under construction.
#[derive(Clone, Debug)]
#[repr(C)] // what each append needs, then what it doesn't
pub struct RecordBatchBuilder {
    /// The segment that records are added to.
    last: Vec<u8>,
    /// Bytes in all segments, also while they are moved out.
    size: usize,
    count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
    /// The bytes of the largest record.
    largest: usize,
    /// The segments before it. The first one of all begins with the header; a record lies wholly
    /// in one.
    full: Vec<Vec<u8>>,
}

impl RecordBatchBuilder {
    /// Starts a batch in a segment that has capacity for at least the header. What the segment
    /// holds is dropped.
    pub fn new(mut first_segment: Vec<u8>) -> Self {
        debug_assert!(first_segment.capacity() >= RECORD_BATCH_OVERHEAD);
        first_segment.clear();
        first_segment.extend_from_slice(&[0; RECORD_BATCH_OVERHEAD]);
        Self {
            last: first_segment,
            full: Vec::new(),
            size: RECORD_BATCH_OVERHEAD,
            count: 0,
            base_timestamp: -1,
            max_timestamp: -1,
            largest: 0,
        }
    }

    /// Adds a record; gives its place in the batch. `None` if the last segment has no room for it:
    /// nothing is written then, and [`add_segment`](Self::add_segment) makes room.
    #[inline(always)]
    pub fn try_append(&mut self, record: &RecordData<'_>) -> Option<u32> {
        let index = self.count;
        let delta = self.timestamp_delta(record.timestamp);
        let size = match append_fast(&mut self.last, record, delta, index) {
            Some(size) => size,
            None => append_any(&mut self.last, record, delta, index)?,
        };
        self.size += size;
        if size > self.largest {
            self.largest = size;
        }
        if index == 0 {
            (self.base_timestamp, self.max_timestamp) = (record.timestamp, record.timestamp);
        } else {
            self.max_timestamp = self.max_timestamp.max(record.timestamp);
        }
        self.count = index + 1;
        if cfg!(debug_assertions) {
            self.invariants();
        }
        Some(index)
    }

    /// How many bytes the record would take as the next one of this batch.
    pub fn record_size(&self, record: &RecordData<'_>) -> usize {
        let body = body_size(record, self.timestamp_delta(record.timestamp), self.count);
        varint::length_size(body) + body
    }

    /// The first record sets the base.
    #[inline]
    fn timestamp_delta(&self, timestamp: i64) -> i64 {
        if self.count == 0 { 0 } else { timestamp.wrapping_sub(self.base_timestamp) }
    }

    /// Adds memory, for the records that come. What the segment holds is dropped.
    pub fn add_segment(&mut self, mut segment: Vec<u8>) {
        segment.clear();
        self.full.push(std::mem::replace(&mut self.last, segment));
        self.invariants();
    }

    /// The batch's bytes so far, the header included.
    #[inline]
    pub fn size(&self) -> usize {
        self.size
    }

    /// The bytes that the last segment has left.
    pub fn room(&self) -> usize {
        self.last.capacity() - self.last.len()
    }

    /// The bytes of the largest record, its length field included; 0 if there is none.
    pub fn largest_record(&self) -> usize {
        self.largest
    }

    /// The number of records.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The first record's timestamp; -1 if there is none.
    pub fn base_timestamp(&self) -> i64 {
        self.base_timestamp
    }

    /// The latest timestamp; -1 if there is no record.
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// Writes the header, for a batch with at least one record. A producer that is not idempotent
    /// has -1 for id, epoch and sequence. May be called again with others.
    pub fn finish(
        &mut self,
        producer_id: i64,
        producer_epoch: i16,
        base_sequence: i32,
        transactional: bool,
    ) {
        debug_assert!(self.count > 0, "a batch has at least one record");
        let size = self.size();
        debug_assert!(i32::try_from(size).is_ok(), "a batch of {size} bytes");
        let attributes = if transactional { batch::TRANSACTIONAL } else { 0 };
        let header = self.full.first_mut().unwrap_or(&mut self.last);

        // The base offset, 0, is the broker's to set, as is the leader epoch.
        let batch_length = (size - offset::PARTITION_LEADER_EPOCH) as i32;
        set(header, offset::BATCH_LENGTH, batch_length.to_be_bytes());
        set(header, offset::PARTITION_LEADER_EPOCH, (-1i32).to_be_bytes());
        header[offset::MAGIC] = batch::MAGIC;
        set(header, offset::ATTRIBUTES, attributes.to_be_bytes());
        set(header, offset::LAST_OFFSET_DELTA, (self.count - 1).to_be_bytes());
        set(header, offset::BASE_TIMESTAMP, self.base_timestamp.to_be_bytes());
        set(header, offset::MAX_TIMESTAMP, self.max_timestamp.to_be_bytes());
        set(header, offset::PRODUCER_ID, producer_id.to_be_bytes());
        set(header, offset::PRODUCER_EPOCH, producer_epoch.to_be_bytes());
        set(header, offset::BASE_SEQUENCE, base_sequence.to_be_bytes());
        set(header, offset::RECORD_COUNT, self.count.to_be_bytes());

        let mut skip = offset::ATTRIBUTES;
        let crc = self.segments().fold(0, |crc, segment| {
            crc32c::crc32c_append(crc, &segment[std::mem::take(&mut skip)..])
        });
        let header = self.full.first_mut().unwrap_or(&mut self.last);
        set(header, offset::CRC, crc.to_be_bytes());
    }

    /// The batch's bytes, in order.
    pub fn segments(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.full.iter().chain(std::iter::once(&self.last))
    }

    /// Moves the batch's bytes out, for a request that owns them while it is under way.
    pub fn move_segments(&mut self, into: &mut Vec<Vec<u8>>) {
        into.append(&mut self.full);
        into.push(std::mem::take(&mut self.last));
        self.invariants();
    }

    /// Takes the bytes back that [`move_segments`](Self::move_segments) gave away.
    pub fn restore_segments(&mut self, segments: impl IntoIterator<Item = Vec<u8>>) {
        debug_assert!(self.last.capacity() == 0 && self.full.is_empty(), "it has its bytes");
        for segment in segments {
            if self.last.capacity() > 0 {
                self.full.push(std::mem::take(&mut self.last));
            }
            self.last = segment;
        }
        self.invariants();
    }

    /// Whether its bytes are here, and not moved out.
    pub(crate) fn has_bytes(&self) -> bool {
        self.last.capacity() > 0
    }

    /// The segments hold the bytes that are counted, unless they are moved out, and the largest
    /// record is as large as those bytes and their number allow.
    pub(crate) fn invariants(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        if self.has_bytes() {
            let held: usize = self.segments().map(Vec::len).sum();
            assert_eq!(held, self.size, "bytes are miscounted");
        } else {
            assert!(self.full.is_empty(), "some of the bytes are moved out");
        }
        let records = self.size - RECORD_BATCH_OVERHEAD;
        let (least, most) = (self.largest, self.largest.saturating_mul(self.count as usize));
        assert!(least <= records && records <= most, "{records} bytes, the largest {least}");
        assert!(self.base_timestamp <= self.max_timestamp, "the latest is before the first");
    }

    /// The memory, to be used again.
    pub fn into_segments(self) -> impl Iterator<Item = Vec<u8>> {
        self.full.into_iter().chain(std::iter::once(self.last))
    }

    /// The records again, for splitting the batch or handing them back; their offsets are their
    /// places in it.
    pub fn records(&self) -> Records<'_> {
        let (first, full, last) = match self.full.split_first() {
            Some((first, full)) => (first, full, &self.last[..]),
            None => (&self.last, &[][..], &[][..]),
        };
        // Nothing while the bytes are moved out.
        let first = first.get(RECORD_BATCH_OVERHEAD..).unwrap_or_default();
        Records::new([first, last], full, self.count, 0, self.base_timestamp)
    }
}

/// Writes `value` into the header at a position of [`offset`].
fn set<const N: usize>(header: &mut [u8], at: usize, value: [u8; N]) {
    header[at..at + N].copy_from_slice(&value);
}

/// The bytes after a record's length field.
#[inline]
fn body_size(record: &RecordData<'_>, timestamp_delta: i64, index: u32) -> usize {
    let headers = if record.headers.is_empty() { 1 } else { headers_size(record.headers) };
    1 + varint::size(timestamp_delta)
        + varint::size(index.into())
        + bytes_size(record.key.map(<[u8]>::len))
        + bytes_size(record.value.map(<[u8]>::len))
        + headers
}

/// The bytes of a key or value of this length, with the length field.
#[inline]
fn bytes_size(length: Option<usize>) -> usize {
    length.map_or(NULL_SIZE, |length| varint::length_size(length) + length)
}

/// The bytes of the length -1, which stands for null.
const NULL_SIZE: usize = 1;

fn headers_size(headers: &[Header<'_>]) -> usize {
    headers.iter().fold(varint::length_size(headers.len()), |size, header| {
        let value = header.value.as_deref().map(<[u8]>::len);
        size + bytes_size(Some(header.name.len())) + bytes_size(value)
    })
}

/// [`length_or_null`], zigzagged.
#[inline]
fn zigzag_length(bytes: Option<&[u8]>) -> u64 {
    bytes.map_or(1, |bytes| (bytes.len() as u64) << 1)
}

#[inline]
fn length_or_null(bytes: Option<&[u8]>) -> i64 {
    bytes.map_or(-1, |bytes| bytes.len() as i64)
}

/// The fast way for a record without headers whose numbers are short, into a segment that is not
/// nearly full. Gives the bytes written, or writes nothing.
#[inline(always)]
fn append_fast(
    segment: &mut Vec<u8>,
    record: &RecordData<'_>,
    delta: i64,
    index: u32,
) -> Option<usize> {
    // Of the bytes that are stored only to be taken back, and of the record's length.
    const SLACK: usize = 16;
    let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
    let (key_len, value_len) = (zigzag_length(record.key), zigzag_length(record.value));
    let (delta, index) = (varint::zigzag(delta), u64::from(index) << 1);
    if (key_len | value_len | delta | index) > varint::SHORT_MAX || !record.headers.is_empty() {
        return None;
    }
    let (delta, delta_size) = varint::short(delta);
    let (index, index_size) = varint::short(index);
    let (key_len, key_len_size) = varint::short(key_len);
    let (value_len, value_len_size) = varint::short(value_len);
    let sizes = 2 + delta_size + index_size + key_len_size + value_len_size;
    let body = sizes as usize + key.len() + value.len();
    if body as u64 > varint::SHORT_MAX / 2 || segment.capacity() - segment.len() < body + SLACK {
        return None;
    }
    let (length, length_size) = varint::short((body as u64) << 1);
    // One byte of attributes, zero, between the two.
    let first = length | delta << (8 * (length_size + 1));
    varint::append_bits(first, length_size + 1 + delta_size, segment);
    let second = index | key_len << (8 * index_size);
    if record.key.is_none() {
        let third_at = index_size + key_len_size;
        varint::append_bits(
            second | value_len << (8 * third_at),
            third_at + value_len_size,
            segment,
        );
    } else {
        varint::append_bits(second, index_size + key_len_size, segment);
        segment.extend_from_slice(key);
        varint::append_bits(value_len, value_len_size, segment);
    }
    segment.extend_from_slice(value);
    segment.push(0);
    Some(length_size as usize + body)
}

/// The way for all records. Gives the bytes written, or writes nothing if there is no room.
#[inline(never)]
fn append_any(
    segment: &mut Vec<u8>,
    record: &RecordData<'_>,
    delta: i64,
    index: u32,
) -> Option<usize> {
    let body = body_size(record, delta, index);
    let size = varint::length_size(body) + body;
    if size > segment.capacity() - segment.len() {
        return None;
    }
    varint::write(body as i64, segment);
    segment.push(0);
    varint::write(delta, segment);
    varint::write(index.into(), segment);
    for bytes in [record.key, record.value] {
        varint::write(length_or_null(bytes), segment);
        segment.extend_from_slice(bytes.unwrap_or_default());
    }
    push_headers(segment, record.headers);
    Some(size)
}

fn push_headers(segment: &mut Vec<u8>, headers: &[Header<'_>]) {
    varint::write(headers.len() as i64, segment);
    for header in headers {
        let value = header.value.as_deref();
        varint::write(header.name.len() as i64, segment);
        segment.extend_from_slice(header.name.as_bytes());
        varint::write(length_or_null(value), segment);
        segment.extend_from_slice(value.unwrap_or_default());
    }
}

/// The largest size of a batch that holds one such record: what size checks compare with
/// `max.request.size` and `buffer.memory`, before the record's place in a batch is known. The same
/// as Java's `estimateSizeInBytesUpperBound`.
pub fn estimate_size_upper_bound(
    key_len: Option<usize>,
    value_len: Option<usize>,
    headers: &[Header<'_>],
) -> usize {
    // Length and offset take 5 bytes at the most, the timestamp 10, the attributes 1.
    const MAX_RECORD_OVERHEAD: usize = 21;
    RECORD_BATCH_OVERHEAD
        + MAX_RECORD_OVERHEAD
        + bytes_size(key_len)
        + bytes_size(value_len)
        + headers_size(headers)
}

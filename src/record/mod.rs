//! Record batches of message format v2 (magic 2), the one that Kafka has had since 0.11.
//!
//! Pure: bytes in, bytes out. A [`RecordBatchBuilder`] encodes records in place, on the user's
//! thread under the partition's lock; the sender thread completes the header when the batch is
//! drained. [`RecordBatch`] reads and checks batches, for the test broker and for splitting.

mod batch; // the header's layout, reading and checking
mod builder; // encoding in place
mod varint; // zigzag numbers of variable length

pub use self::batch::{BatchError, Record, RecordBatch, RecordBatchHeader, Records, TimestampType};
pub use self::builder::{RecordBatchBuilder, RecordData, estimate_size_upper_bound};

use std::borrow::Cow;

/// Bytes of a batch before its first record.
pub const RECORD_BATCH_OVERHEAD: usize = 61;

/// One header of a record; its parts are borrowed or owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name; may be empty.
    pub name: Cow<'a, str>,
    /// The value; `None` is Kafka's null, which differs from an empty value.
    pub value: Option<Cow<'a, [u8]>>,
}

#[cfg(test)]
mod tests;

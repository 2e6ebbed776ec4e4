//! A batch on its way: the records' bytes, who waits for them, and what the attempts met.

use std::ops::Deref;
use std::time::Duration;

use crate::accumulator::phases::Phases;
use crate::claims;
use crate::completion::{
    BatchResult, Callback, Delivery, FlushToken, Outcome, PendingCallback, RecordFacts,
};
use crate::error::{DeliveryCause, Error};
use crate::metrics::BatchSent;
use crate::planted::{Defect, is_planted};
use crate::record::{RECORD_BATCH_OVERHEAD, RecordBatchBuilder};
use crate::sync::Arc;
use crate::time::MonoTime;
use crate::transaction::Stamp;
use crate::types::NodeId;

/// A copy of a batch that is surely not in the log, for whoever wants its records back.
#[derive(Clone, Debug)]
pub(crate) struct UnsentBatch {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) records: RecordBatchBuilder,
}

impl UnsentBatch {
    /// Of a batch that has its bytes: no request is under way.
    pub(crate) fn of(batch: &ProducerBatch) -> Self {
        debug_assert!(!batch.maybe_persisted, "it may be in the log");
        Self {
            topic: Arc::clone(batch.result.topic()),
            partition: batch.result.partition(),
            records: batch.builder.clone(),
        }
    }
}

/// Records of one partition that travel, succeed and fail together.
///
/// Filled by users' threads under the partition's lock, then owned by the sender. While a request
/// is under way its bytes belong to the request's frame, and `builder` holds none.
///
/// What each append reads and writes comes first, in two cache lines: with thousands of active
/// partitions their number is what an append costs.
#[repr(C)]
pub(crate) struct ProducerBatch {
    pub(crate) builder: RecordBatchBuilder,
    pub(crate) result: Owed,
    /// What the wall clock said when it was last read for a record, or as the batch was started; no
    /// record that we stamp later on is earlier.
    pub(crate) wall: i64,
    /// No more appends: full, flushed, or taken by the sender.
    pub(crate) closed: bool,
    /// The bytes are the pool's; those of a split batch's parts are not.
    pub(crate) pooled: bool,
    /// Some attempt's bytes were written and never answered by a proof that nothing was appended.
    pub(crate) maybe_persisted: bool,
    pub(crate) callbacks: Vec<PendingCallback>,
    pub(crate) flushes: Vec<FlushToken>,
    /// When the first record was appended: linger and delivery time-out count from here.
    pub(crate) created: MonoTime,
    /// Producer id, epoch and base sequence, from the first drain on.
    pub(crate) stamp: Option<Stamp>,
    /// How often the batch was handed to a connection.
    pub(crate) attempts: u32,
    /// Those of them that told of the size, when the batch was still part of a larger one: they
    /// count neither as retries nor for the backoff.
    pub(crate) splits: u32,
    /// Not to be sent again before this moment.
    pub(crate) retry_at: MonoTime,
    /// The newest leader epoch that an attempt was sent under; -1 while none is known.
    pub(crate) leader_epoch: i32,
    /// What the last attempt met.
    pub(crate) last_cause: Option<DeliveryCause>,
    /// The broker of the last attempt.
    pub(crate) node: Option<NodeId>,
    pub(crate) phases: Phases,
}

/// A batch's result, which is owed to whoever waits for it: should the batch be lost on its way by
/// a defect of ours, it has failed.
pub(crate) struct Owed(Arc<BatchResult>);

impl Deref for Owed {
    type Target = Arc<BatchResult>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if !self.0.is_done() {
            let lost = "a defect of this crate: the batch was lost on its way";
            self.0.complete(Outcome::Failed(Error::Fatal(lost.into())));
        }
    }
}

impl ProducerBatch {
    pub(crate) fn new(
        memory: Vec<u8>,
        result: Arc<BatchResult>,
        created: MonoTime,
        wall: i64,
    ) -> Self {
        Self {
            builder: RecordBatchBuilder::new(memory),
            result: Owed(result),
            callbacks: Vec::new(),
            flushes: Vec::new(),
            created,
            wall,
            closed: false,
            stamp: None,
            attempts: 0,
            splits: 0,
            retry_at: MonoTime::ZERO,
            leader_epoch: -1,
            maybe_persisted: false,
            last_cause: None,
            node: None,
            phases: Phases::new(created),
            pooled: true,
        }
    }

    /// A part of a batch that was split: of the same age, with the earlier attempts behind it, but
    /// in memory of its own.
    pub(crate) fn part_of(
        whole: &Self,
        builder: RecordBatchBuilder,
        result: Arc<BatchResult>,
        stamp: Option<Stamp>,
    ) -> Self {
        Self {
            builder,
            result: Owed(result),
            callbacks: Vec::new(),
            flushes: Vec::new(),
            closed: true,
            stamp,
            splits: whole.splits + 1,
            retry_at: MonoTime::ZERO,
            last_cause: whole.last_cause.clone(),
            pooled: false,
            ..*whole
        }
    }

    /// Notes who is to hear of a record.
    pub(crate) fn enter(
        &mut self,
        record: RecordFacts,
        callback: &mut Option<Callback>,
    ) -> Delivery {
        if let Some(run) = callback.take() {
            self.callbacks.push(PendingCallback::new(record, run));
        }
        Delivery::new(Arc::clone(&self.result), record)
    }

    pub(crate) fn record_count(&self) -> u32 {
        self.builder.count()
    }

    /// What no attempt has carried bears no trace of one, and whoever is to hear of a record is
    /// there for a record that is. Looked at for the last callback; the others were it once.
    pub(crate) fn invariants(&self) {
        if !claims::are_checked() {
            return;
        }
        let (count, attempts) = (self.record_count(), self.attempts);
        assert!(count > 0 && !self.result.is_done(), "{:?} is nobody's", *self.result);
        let is_tried = attempts > 0;
        assert!(
            is_tried || !(self.maybe_persisted || self.node.is_some()),
            "sent, and never tried"
        );
        assert!(is_tried || self.retry_at == MonoTime::ZERO, "a backoff after nothing");
        assert!(self.closed || !(is_tried || self.stamp.is_some()), "open, and known to a broker");
        assert!(self.splits <= attempts, "split {} times by {attempts} answers", self.splits);
        assert_eq!(self.pooled, self.splits == 0, "whose memory is it?");
        let mut indexes = self.callbacks.iter().rev().map(|callback| callback.record.index);
        let (last, before) = (indexes.next(), indexes.next());
        assert!(last.is_none_or(|last| last < count), "a callback of no record");
        assert!(before < last || last.is_none(), "callbacks out of order");
        self.phases.invariants(self.created);
    }

    /// The attempts that count, against `retries` and for the backoff.
    pub(crate) fn tries(&self) -> u32 {
        self.attempts.saturating_sub(self.splits)
    }

    /// When the batch fails if it is not delivered before.
    pub(crate) fn deadline(&self, delivery_timeout: Duration) -> MonoTime {
        if is_planted(Defect::DeadlineSkipsBackoff) && self.attempts > 0 {
            return (self.created + delivery_timeout).max(self.retry_at + delivery_timeout / 2);
        }
        self.created + delivery_timeout
    }

    /// What is recorded of it as it goes into a request.
    pub(crate) fn as_sent(&self, now: MonoTime) -> BatchSent {
        let bytes = self.builder.size();
        BatchSent {
            records: self.record_count(),
            bytes,
            record_bytes: bytes - RECORD_BATCH_OVERHEAD,
            largest_record: self.builder.largest_record(),
            waited: now.since(self.created),
            is_first: self.attempts == 0,
        }
    }

    /// Whether each of the records has a thread that waits for it.
    pub(crate) fn fully_awaited(&self) -> bool {
        self.result.waiters() >= self.record_count()
    }
}

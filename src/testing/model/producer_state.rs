//! What a partition remembers of each idempotent producer: its epoch and its last five batches.
//!
//! The rules are those of Kafka 4.x (`ProducerStateEntry` and `ProducerAppendInfo` there, KIP-98
//! and KIP-360), which the broker applies to a batch that has passed every other check.

use std::collections::{BTreeMap, VecDeque};

use crate::protocol::ErrorCode;

/// How many batches a partition remembers of a producer; also the most that a producer may have
/// in flight to it (`max.in.flight.requests.per.connection`).
pub(crate) const BATCHES_REMEMBERED: usize = 5;

/// The idempotent part of a batch about to be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerBatch {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) first_sequence: i32,
    pub(crate) last_sequence: i32,
}

/// A batch that is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AppendedBatch {
    pub(crate) first_sequence: i32,
    pub(crate) last_sequence: i32,
    pub(crate) base_offset: i64,
    /// The batch's largest timestamp, in milliseconds. A broker answers a duplicate with it, as if
    /// it were the log append time.
    pub(crate) max_timestamp: i64,
}

/// What is to be done with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It comes next.
    Append,
    /// It is in the log already: answer as if it had just been appended there.
    Duplicate(AppendedBatch),
    /// It is refused.
    Refuse(ErrorCode),
}

#[derive(Clone, Debug)]
struct Producer {
    epoch: i16,
    /// Oldest first, all of `epoch`, one to [`BATCHES_REMEMBERED`] of them.
    batches: VecDeque<AppendedBatch>,
}

/// The producers that a partition knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProducerStates {
    by_id: BTreeMap<i64, Producer>,
}

impl ProducerStates {
    /// Decides about a batch without changing anything.
    ///
    /// A producer that the partition does not know may start with any sequence: the broker can't
    /// tell a new one from one whose records were deleted (KAFKA-6817, KIP-360).
    pub(crate) fn judge(&self, batch: ProducerBatch) -> Verdict {
        let Some(known) = self.by_id.get(&batch.producer_id) else {
            return Verdict::Append;
        };
        if batch.epoch == known.epoch {
            if let Some(duplicate) = known.batches.iter().find(|b| {
                b.first_sequence == batch.first_sequence && b.last_sequence == batch.last_sequence
            }) {
                return Verdict::Duplicate(*duplicate);
            }
        }
        if batch.epoch < known.epoch {
            return Verdict::Refuse(ErrorCode::INVALID_PRODUCER_EPOCH);
        }
        let expected = match known.batches.back() {
            Some(last) if batch.epoch == known.epoch => sequence_after(last.last_sequence, 1),
            _ => 0,
        };
        if batch.first_sequence == expected {
            Verdict::Append
        } else {
            Verdict::Refuse(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER)
        }
    }

    /// Remembers a batch that [`judge`](Self::judge) let pass and that is now in the log.
    pub(crate) fn appended(&mut self, batch: ProducerBatch, base_offset: i64, max_timestamp: i64) {
        let known = self
            .by_id
            .entry(batch.producer_id)
            .or_insert_with(|| Producer { epoch: batch.epoch, batches: VecDeque::new() });
        if known.epoch != batch.epoch {
            known.epoch = batch.epoch;
            known.batches.clear();
        }
        if known.batches.len() == BATCHES_REMEMBERED {
            known.batches.pop_front();
        }
        known.batches.push_back(AppendedBatch {
            first_sequence: batch.first_sequence,
            last_sequence: batch.last_sequence,
            base_offset,
            max_timestamp,
        });
    }

    /// Forgets every producer, as a broker does `producer.id.expiration.ms` after their last write.
    pub(crate) fn forget_all(&mut self) {
        self.by_id.clear();
    }
}

/// The sequence number `by` records after `sequence`; after `i32::MAX` comes 0.
pub(crate) fn sequence_after(sequence: i32, by: i32) -> i32 {
    let sum = i64::from(sequence) + i64::from(by);
    i32::try_from(sum % (i64::from(i32::MAX) + 1)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(epoch: i16, first: i32, count: i32) -> ProducerBatch {
        let last_sequence = sequence_after(first, count - 1);
        ProducerBatch { producer_id: 7, epoch, first_sequence: first, last_sequence }
    }

    /// Judges and, if it may, appends; the base offset is the number of the append.
    fn append(states: &mut ProducerStates, offset: i64, b: ProducerBatch) -> Verdict {
        let verdict = states.judge(b);
        if verdict == Verdict::Append {
            states.appended(b, offset, 0);
        }
        verdict
    }

    #[test]
    fn a_gap_is_refused_and_the_next_in_line_accepted() {
        let mut states = ProducerStates::default();
        assert_eq!(append(&mut states, 0, batch(0, 0, 10)), Verdict::Append);
        let refused = Verdict::Refuse(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        assert_eq!(append(&mut states, 10, batch(0, 11, 1)), refused);
        assert_eq!(append(&mut states, 10, batch(0, 9, 1)), refused);
        assert_eq!(append(&mut states, 10, batch(0, 10, 1)), Verdict::Append);
    }

    #[test]
    fn only_the_last_five_batches_are_known_as_duplicates() {
        let mut states = ProducerStates::default();
        for i in 0..6 {
            assert_eq!(append(&mut states, i.into(), batch(0, i, 1)), Verdict::Append);
        }
        for i in 1..6 {
            let verdict = states.judge(batch(0, i, 1));
            assert!(
                matches!(verdict, Verdict::Duplicate(d) if d.base_offset == i64::from(i)),
                "{i}: {verdict:?}"
            );
        }
        let refused = Verdict::Refuse(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        assert_eq!(states.judge(batch(0, 0, 1)), refused);
        assert_eq!(states.judge(batch(0, 4, 2)), refused, "another range is no duplicate");
    }

    #[test]
    fn a_new_epoch_starts_at_zero_and_fences_the_old_one() {
        let mut states = ProducerStates::default();
        append(&mut states, 0, batch(3, 0, 5));
        let refused = Verdict::Refuse(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        assert_eq!(append(&mut states, 5, batch(4, 5, 1)), refused);
        assert_eq!(append(&mut states, 5, batch(4, 0, 5)), Verdict::Append);
        let fenced = Verdict::Refuse(ErrorCode::INVALID_PRODUCER_EPOCH);
        assert_eq!(append(&mut states, 10, batch(3, 0, 5)), fenced);
        assert_eq!(append(&mut states, 10, batch(4, 5, 1)), Verdict::Append);
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let mut states = ProducerStates::default();
        assert_eq!(append(&mut states, 0, batch(0, i32::MAX - 1, 2)), Verdict::Append);
        assert_eq!(append(&mut states, 2, batch(0, 0, 3)), Verdict::Append);
        let across = batch(0, i32::MAX - 2, 5);
        assert_eq!(across.last_sequence, 1);
        let mut states = ProducerStates::default();
        assert_eq!(append(&mut states, 0, across), Verdict::Append);
        assert_eq!(append(&mut states, 5, batch(0, 2, 1)), Verdict::Append);
        assert!(matches!(states.judge(across), Verdict::Duplicate(_)));
    }

    #[test]
    fn an_unknown_producer_may_start_anywhere() {
        let mut states = ProducerStates::default();
        assert_eq!(append(&mut states, 0, batch(0, 0, 1)), Verdict::Append);
        states.forget_all();
        assert_eq!(append(&mut states, 1, batch(0, 77, 1)), Verdict::Append);
    }
}

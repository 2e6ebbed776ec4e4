//! What a partition remembers of each idempotent producer: its epoch and its last five batches.
//!
//! The rules are those of Kafka 4.x (`ProducerStateEntry` and `ProducerAppendInfo` there, KIP-98
//! and KIP-360), or of an older leader ([`ProducerRules`]). The broker applies them to a batch that
//! has passed every other check.

use std::collections::{BTreeMap, VecDeque};

use crate::protocol::ErrorCode;

use super::release::ProducerRules;

/// How many batches a partition remembers of a producer; also the most that a producer may have
/// in flight to it (`max.in.flight.requests.per.connection`).
const BATCHES_REMEMBERED: usize = 5;

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

impl AppendedBatch {
    fn last_offset(&self) -> i64 {
        let records_less_one = self.last_sequence.wrapping_sub(self.first_sequence) & i32::MAX;
        self.base_offset + i64::from(records_less_one)
    }
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
    /// One of them was forgotten for its age.
    has_expired: bool,
}

impl ProducerStates {
    /// Decides about a batch, by the rules of the partition's leader, without changing anything.
    ///
    /// With those of 4.3.1 a producer that the partition does not know may start with any sequence:
    /// the broker can't tell a new one from one whose records were deleted (KAFKA-6817, KIP-360).
    pub(crate) fn judge(
        &self,
        batch: ProducerBatch,
        rules: &ProducerRules,
        log_start_offset: i64,
    ) -> Verdict {
        let kept = |producer: &&Producer| {
            let last = producer.batches.back().map_or(-1, AppendedBatch::last_offset);
            !rules.deletion_forgets || last >= log_start_offset
        };
        let Some(known) = self.by_id.get(&batch.producer_id).filter(kept) else {
            return match rules.unknown {
                Some(code) if batch.first_sequence != 0 => Verdict::Refuse(code),
                _ => Verdict::Append,
            };
        };
        if batch.epoch < known.epoch {
            return Verdict::Refuse(ErrorCode::INVALID_PRODUCER_EPOCH);
        }
        if batch.epoch > known.epoch {
            return expect(0, &batch);
        }
        let forgotten = known.batches.len().saturating_sub(rules.remembered);
        let remembered = || known.batches.iter().skip(forgotten);
        let is_duplicate = |known: &&AppendedBatch| {
            (known.first_sequence, known.last_sequence)
                == (batch.first_sequence, batch.last_sequence)
        };
        if let Some(duplicate) = remembered().find(is_duplicate) {
            return Verdict::Duplicate(*duplicate);
        }
        let is_older = |oldest: &AppendedBatch| {
            batch.last_sequence != 0
                && oldest.first_sequence != i32::MAX
                && batch.last_sequence < oldest.first_sequence
        };
        if rules.older_is_duplicate && remembered().next().is_some_and(is_older) {
            return Verdict::Refuse(ErrorCode::DUPLICATE_SEQUENCE_NUMBER);
        }
        let last = known.batches.back().map_or(-1, |last| last.last_sequence);
        expect(sequence_after(last, 1), &batch)
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

    /// Whether it has ever forgotten a producer for its age.
    #[cfg(test)]
    pub(crate) fn has_expired(&self) -> bool {
        self.has_expired
    }

    /// Whether it knows a producer, and whether it knows more than the last batch of one.
    #[cfg(test)]
    pub(crate) fn knows(&self) -> (bool, bool) {
        let several = self.by_id.values().any(|producer| producer.batches.len() > 1);
        (!self.by_id.is_empty(), several)
    }

    /// Forgets the producers whose last batch is dated `age_ms` or more before `now_ms`: what
    /// counts is the records' own time, not when they were written.
    pub(crate) fn forget_older(&mut self, now_ms: i64, age_ms: i64) {
        let known = self.by_id.len();
        self.by_id.retain(|_, producer| {
            let last = producer.batches.back().map_or(-1, |last| last.max_timestamp);
            now_ms.saturating_sub(last) < age_ms
        });
        self.has_expired |= self.by_id.len() < known;
    }

    /// Keeps of each producer the last batch alone, as a broker does that was shut down and has
    /// read its snapshot back.
    pub(crate) fn keep_last_batches(&mut self) {
        for producer in self.by_id.values_mut() {
            let all_but_last = producer.batches.len().saturating_sub(1);
            producer.batches.drain(..all_but_last);
        }
    }
}

fn expect(sequence: i32, batch: &ProducerBatch) -> Verdict {
    if batch.first_sequence == sequence {
        Verdict::Append
    } else {
        Verdict::Refuse(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER)
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

    fn judge(states: &ProducerStates, b: ProducerBatch) -> Verdict {
        states.judge(b, &ProducerRules::LATEST, 0)
    }

    /// Judges and, if it may, appends; the base offset is the number of the append.
    fn append(states: &mut ProducerStates, offset: i64, b: ProducerBatch) -> Verdict {
        let verdict = judge(states, b);
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
            let verdict = judge(&states, batch(0, i, 1));
            assert!(
                matches!(verdict, Verdict::Duplicate(d) if d.base_offset == i64::from(i)),
                "{i}: {verdict:?}"
            );
        }
        let refused = Verdict::Refuse(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        assert_eq!(judge(&states, batch(0, 0, 1)), refused);
        assert_eq!(judge(&states, batch(0, 4, 2)), refused, "another range is no duplicate");
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
        assert!(matches!(judge(&states, across), Verdict::Duplicate(_)));
    }

    #[test]
    fn an_unknown_producer_may_start_anywhere() {
        let mut states = ProducerStates::default();
        assert_eq!(append(&mut states, 0, batch(0, 0, 1)), Verdict::Append);
        states.forget_all();
        assert_eq!(append(&mut states, 1, batch(0, 77, 1)), Verdict::Append);
    }

    #[test]
    fn a_producer_is_forgotten_by_the_time_of_its_last_records() {
        let mut states = ProducerStates::default();
        states.appended(batch(0, 0, 1), 0, 5_000);
        states.appended(batch(0, 1, 1), 1, 1_000);
        states.forget_older(2_999, 2_000);
        let refused = Verdict::Refuse(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        assert_eq!(judge(&states, batch(0, 9, 1)), refused);
        states.forget_older(3_000, 2_000);
        assert_eq!(judge(&states, batch(0, 9, 1)), Verdict::Append);
    }

    #[test]
    fn a_snapshot_has_the_last_batch_alone() {
        let mut states = ProducerStates::default();
        append(&mut states, 0, batch(0, 0, 1));
        append(&mut states, 1, batch(0, 1, 1));
        states.keep_last_batches();
        assert!(matches!(judge(&states, batch(0, 1, 1)), Verdict::Duplicate(_)));
        let refused = Verdict::Refuse(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        assert_eq!(judge(&states, batch(0, 0, 1)), refused);
        assert_eq!(judge(&states, batch(0, 2, 1)), Verdict::Append);
    }

    #[test]
    fn older_leaders_judge_by_their_own_rules() {
        use crate::testing::model::Release;
        let mut states = ProducerStates::default();
        for i in 0..6 {
            append(&mut states, i.into(), batch(0, i, 1));
        }
        let out_of_order = Verdict::Refuse(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        let duplicate = Verdict::Refuse(ErrorCode::DUPLICATE_SEQUENCE_NUMBER);
        let unknown = Verdict::Refuse(ErrorCode::UNKNOWN_PRODUCER_ID);
        let stranger = ProducerBatch { producer_id: 8, ..batch(0, 3, 1) };
        let outside = batch(0, 0, 2);
        for (release, of_outside, of_stranger) in [
            (Release::V0_11, out_of_order, out_of_order),
            (Release::V1_0, out_of_order, unknown),
            (Release::V1_1, out_of_order, unknown),
            (Release::V2_0, out_of_order, unknown),
            (Release::V2_8, out_of_order, Verdict::Append),
        ] {
            let rules = release.producer_rules();
            assert_eq!(states.judge(outside, &rules, 0), of_outside, "{release:?}");
            assert_eq!(states.judge(stranger, &rules, 0), of_stranger, "{release:?}");
            let within = states.judge(batch(0, 3, 1), &rules, 0);
            let remembers_one = release == Release::V0_11;
            assert_eq!(matches!(within, Verdict::Duplicate(_)), !remembers_one, "{release:?}");
            // The records up to 5 are deleted, and with them all that the producer wrote.
            let forgotten = states.judge(batch(0, 9, 1), &rules, 6);
            let accepts = release >= Release::V2_8;
            assert_eq!(forgotten, if accepts { out_of_order } else { of_stranger }, "{release:?}");
        }
        let rules = Release::V1_0.producer_rules();
        states.appended(batch(0, 6, 1), 6, 0);
        assert_eq!(states.judge(batch(0, 1, 1), &rules, 0), duplicate);
        assert_eq!(states.judge(batch(0, 0, 1), &rules, 0), out_of_order, "0 is not compared");
    }
}

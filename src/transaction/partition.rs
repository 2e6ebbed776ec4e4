//! One partition's sequences: which were given, which are outstanding, and whether a new
//! beginning is due. Pure: the sender asks and tells.
//!
//! A batch is outstanding from the moment it gets its sequence until it is delivered or given up,
//! also while it waits in the queue to be tried again. The broker remembers the last five batches
//! of a producer, so no more than five are outstanding: a sixth would push the first one's memory
//! out, and its retry could no longer be told from new data.

use std::collections::VecDeque;

use super::{ProducerIdAndEpoch, Stamp};
use crate::claims;
use crate::planted::{Defect, is_planted};

/// As many batches as a broker remembers of one producer.
pub(crate) const MAX_OUTSTANDING: usize = 5;

/// The sequences of one partition.
#[derive(Debug, Default)]
pub(crate) struct Sequences {
    producer: Option<ProducerIdAndEpoch>,
    generation: u32,
    next: i32,
    /// The last sequence that is known to be in the log; `None` at a new beginning.
    last_acked: Option<i32>,
    /// The stamped batches that are neither delivered nor given up, in sequence order.
    outstanding: VecDeque<Outstanding>,
    /// A sequence may be missing in the log for good: nothing new goes out under this epoch.
    bump_due: bool,
}

#[derive(Debug)]
struct Outstanding {
    stamp: Stamp,
    count: u32,
    /// The batch has expired while its request was under way; the request's end settles it.
    expired: bool,
}

impl Sequences {
    /// The stamp for a batch of `count` records that has none, if it may have one now.
    pub(crate) fn stamp(&mut self, producer: ProducerIdAndEpoch, count: u32) -> Option<Stamp> {
        if !self.may_stamp() {
            return None;
        }
        if self.producer != Some(producer) && self.outstanding.is_empty() {
            self.begin_anew(producer);
        }
        let producer = self.producer?;
        let stamp = Stamp { producer, base_sequence: self.next, generation: self.generation };
        self.next = advance(self.next, count);
        self.outstanding.push_back(Outstanding { stamp, count, expired: false });
        self.invariants();
        Some(stamp)
    }

    /// Whether a batch without a sequence may be given one.
    ///
    /// The first one travels alone: a broker that knows nothing of the producer accepts any
    /// sequence, so that a second batch could be appended before a first one that was refused, and
    /// would get ahead of it for good (KAFKA-14359).
    pub(crate) fn may_stamp(&self) -> bool {
        let most = if self.last_acked.is_some() { MAX_OUTSTANDING } else { 1 };
        !self.bump_due && !self.is_unresolved() && self.outstanding.len() < most
    }

    /// Whether a batch with this stamp may be sent again: only the first of all outstanding ones,
    /// since later ones would be refused until it is in the log.
    pub(crate) fn may_retry(&self, stamp: &Stamp) -> bool {
        self.outstanding.front().is_some_and(|first| first.stamp == *stamp)
    }

    /// Whether nothing outstanding comes before the batch: no answer that is still to come could
    /// make the broker accept it.
    pub(crate) fn is_first(&self, stamp: &Stamp) -> bool {
        self.may_retry(stamp)
    }

    /// Whether the batch is the one right behind the last that is known to be in the log.
    pub(crate) fn follows_last_acked(&self, stamp: &Stamp) -> bool {
        self.last_acked.map_or(0, |last| advance(last, 1)) == stamp.base_sequence
            && stamp.generation == self.generation
    }

    /// An expired batch's fate is open.
    pub(crate) fn is_unresolved(&self) -> bool {
        self.outstanding.iter().any(|o| o.expired)
    }

    pub(crate) fn is_bump_due(&self) -> bool {
        self.bump_due
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    pub(crate) fn producer(&self) -> Option<ProducerIdAndEpoch> {
        self.producer
    }

    /// The batch is in the log, as its own answer or a late one for an expired batch says.
    pub(crate) fn on_delivered(&mut self, stamp: &Stamp) {
        let Some(gone) = self.remove(stamp) else { return };
        let last = advance(stamp.base_sequence, gone.count.saturating_sub(1));
        // A later batch's answer may have come first: never go back.
        let forward = self.last_acked.is_none_or(|acked| is_past(last, acked));
        if stamp.generation == self.generation && forward {
            self.last_acked = Some(last);
        }
        self.invariants();
    }

    /// The batch has expired while its request is under way.
    pub(crate) fn on_expired_in_flight(&mut self, stamp: &Stamp) {
        if is_planted(Defect::ExpiredUnaccounted) && self.outstanding.len() == 1 {
            self.remove(stamp);
            self.next = stamp.base_sequence;
            return;
        }
        if let Some(o) = self.outstanding.iter_mut().find(|o| o.stamp == *stamp) {
            o.expired = true;
        }
        self.invariants();
    }

    /// The batch is given up and its sequence may be missing in the log: a new beginning is due,
    /// unless the broker has accepted a later sequence and thus has no gap.
    pub(crate) fn on_given_up(&mut self, stamp: &Stamp) {
        if self.remove(stamp).is_none() || stamp.generation != self.generation {
            return;
        }
        let has_passed = |acked| is_past(acked, stamp.base_sequence);
        self.bump_due |= !self.last_acked.is_some_and(has_passed);
        self.invariants();
    }

    /// The broker refused the first outstanding batch for its sequence, id or epoch: nothing of
    /// this epoch will be accepted any more.
    pub(crate) fn require_bump(&mut self) {
        self.bump_due = true;
        self.invariants();
    }

    /// The batch was split into parts of so many records, which share its sequences.
    pub(crate) fn on_split(
        &mut self,
        stamp: &Stamp,
        counts: impl Iterator<Item = u32>,
    ) -> Vec<Stamp> {
        let place = self.outstanding.iter().position(|o| o.stamp == *stamp);
        let place = place.unwrap_or(self.outstanding.len());
        self.outstanding.remove(place);
        let mut next = *stamp;
        let parts = counts.enumerate().map(|(i, count)| {
            let part = next;
            if !is_planted(Defect::SplitSharesSequence) {
                next.base_sequence = advance(next.base_sequence, count);
            }
            let outstanding = Outstanding { stamp: part, count, expired: false };
            self.outstanding.insert(place + i, outstanding);
            part
        });
        let parts = parts.collect();
        self.invariants();
        parts
    }

    /// Takes the stamp off a batch that is surely not in the log, at a new beginning.
    pub(crate) fn on_unstamped(&mut self, stamp: &Stamp) {
        debug_assert!(self.bump_due, "a stamp is taken off only at a new beginning");
        self.remove(stamp);
        self.invariants();
    }

    /// All of the partition's requests are settled and no stamp is left: begin with sequence 0
    /// under whatever epoch the next batch is given.
    pub(crate) fn on_bumped(&mut self) {
        debug_assert!(self.bump_due && self.outstanding.is_empty());
        self.bump_due = false;
        self.producer = None;
        self.last_acked = None;
        self.invariants();
    }

    fn begin_anew(&mut self, producer: ProducerIdAndEpoch) {
        self.generation = self.generation.wrapping_add(1);
        self.producer = Some(producer);
        self.next = 0;
        self.last_acked = None;
    }

    fn remove(&mut self, stamp: &Stamp) -> Option<Outstanding> {
        let place = self.outstanding.iter().position(|o| o.stamp == *stamp)?;
        self.outstanding.remove(place)
    }

    /// Outstanding batches are in order, of one beginning, and share no sequence; what was given is
    /// outstanding, or in the log, or a new beginning is due. They may be more than a broker
    /// remembers only after a split, whose parts go out one by one.
    pub(crate) fn invariants(&self) {
        if !claims::are_checked() {
            return;
        }
        let present = self.outstanding.iter().map(|o| (o.stamp.producer, o.stamp.generation));
        let mut others = present.map(|(p, generation)| (Some(p), generation));
        assert!(others.all(|own| own == (self.producer, self.generation)), "{self:?}");
        let pairs = self.outstanding.iter().zip(self.outstanding.iter().skip(1));
        let mut apart = pairs
            .map(|(a, b)| is_past(b.stamp.base_sequence, advance(a.stamp.base_sequence, a.count)));
        assert!(apart.all(|apart| apart), "{self:?}");
        if self.producer.is_none() {
            assert!(self.outstanding.is_empty() && self.last_acked.is_none(), "{self:?}");
        } else if self.outstanding.is_empty() && !self.bump_due {
            let end = self.last_acked.map_or(0, |last| advance(last, 1));
            assert_eq!(end, self.next, "a sequence is missing: {self:?}");
        }
    }
}

/// Whether `sequence` is `other` or comes later, by less than half of all sequences.
fn is_past(sequence: i32, other: i32) -> bool {
    sequence.wrapping_sub(other) & i32::MAX < i32::MAX / 2
}

/// The sequence `by` records later; 0 follows `i32::MAX`.
fn advance(sequence: i32, by: u32) -> i32 {
    let sum = i64::from(sequence) + i64::from(by);
    i32::try_from(sum % (i64::from(i32::MAX) + 1)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: ProducerIdAndEpoch = ProducerIdAndEpoch { id: 7, epoch: 0 };
    const SECOND: ProducerIdAndEpoch = ProducerIdAndEpoch { id: 7, epoch: 1 };

    /// Past its first batch, of one record.
    fn under_way() -> Sequences {
        let mut s = Sequences::default();
        let first = s.stamp(FIRST, 1).unwrap();
        s.on_delivered(&first);
        s
    }

    #[test]
    fn the_first_batch_of_a_beginning_travels_alone() {
        let mut s = Sequences::default();
        let first = s.stamp(FIRST, 1).unwrap();
        assert_eq!(s.stamp(FIRST, 1), None);
        s.on_delivered(&first);
        assert!(s.stamp(FIRST, 1).is_some() && s.stamp(FIRST, 1).is_some());
    }

    /// REC-03, REC-04.
    #[test]
    fn sequences_count_records_and_wrap_to_zero() {
        let mut s = Sequences::default();
        let first = s.stamp(FIRST, 3).unwrap();
        assert_eq!(first.base_sequence, 0);
        s.on_delivered(&first);
        let second = s.stamp(FIRST, 1).unwrap();
        assert_eq!(second.base_sequence, 3);
        s.outstanding.clear();
        s.next = i32::MAX - 1;
        assert_eq!(s.stamp(FIRST, 3).unwrap().base_sequence, i32::MAX - 1);
        assert_eq!(s.stamp(FIRST, 1).unwrap().base_sequence, 1);
        let sums = [(i32::MAX, 1), (i32::MAX - 5, 10), (i32::MAX, 100), (7, 0)];
        assert_eq!(sums.map(|(sequence, by)| advance(sequence, by)), [0, 4, 99, 7]);
    }

    #[test]
    fn no_more_are_outstanding_than_a_broker_remembers() {
        let mut s = under_way();
        let stamps: Vec<_> = (0..5).map(|_| s.stamp(FIRST, 1).unwrap()).collect();
        assert_eq!(s.stamp(FIRST, 1), None);
        s.on_delivered(&stamps[2]);
        assert!(s.stamp(FIRST, 1).is_some());
    }

    #[test]
    fn a_retry_waits_until_it_is_the_first_outstanding() {
        let mut s = under_way();
        let (a, b) = (s.stamp(FIRST, 1).unwrap(), s.stamp(FIRST, 1).unwrap());
        assert!(s.may_retry(&a) && !s.may_retry(&b));
        s.on_delivered(&a);
        assert!(s.may_retry(&b));
    }

    /// SND-23.
    #[test]
    fn last_acked_never_goes_back() {
        let mut s = under_way();
        let (a, b) = (s.stamp(FIRST, 2).unwrap(), s.stamp(FIRST, 2).unwrap());
        s.on_delivered(&b);
        assert_eq!(s.last_acked, Some(4));
        s.on_delivered(&a);
        assert_eq!(s.last_acked, Some(4));
    }

    #[test]
    fn an_expired_batch_holds_new_ones_until_its_request_is_settled() {
        let mut s = under_way();
        let a = s.stamp(FIRST, 1).unwrap();
        s.on_expired_in_flight(&a);
        assert!(s.is_unresolved() && s.stamp(FIRST, 1).is_none());
        s.on_delivered(&a);
        assert_eq!(s.stamp(FIRST, 1).unwrap().base_sequence, 2);
    }

    #[test]
    fn a_gap_ends_in_a_new_beginning_once_nothing_is_outstanding() {
        let mut s = under_way();
        let (a, b) = (s.stamp(FIRST, 1).unwrap(), s.stamp(FIRST, 1).unwrap());
        s.on_given_up(&a);
        assert!(s.is_bump_due() && s.stamp(FIRST, 1).is_none());
        s.on_unstamped(&b);
        s.on_bumped();
        let c = s.stamp(SECOND, 1).unwrap();
        assert_eq!((c.base_sequence, c.producer), (0, SECOND));
        assert!(b.precedes(&c));
        assert!(s.follows_last_acked(&c));
    }

    /// SND-25.
    #[test]
    fn a_batch_given_up_before_one_that_was_accepted_leaves_no_gap() {
        let mut s = under_way();
        let (a, b) = (s.stamp(FIRST, 2).unwrap(), s.stamp(FIRST, 1).unwrap());
        s.on_expired_in_flight(&a);
        s.on_delivered(&b);
        s.on_given_up(&a);
        assert!(!s.is_bump_due());
        assert_eq!(s.stamp(FIRST, 1).unwrap().base_sequence, 4);
    }

    #[test]
    fn another_partitions_bump_is_taken_over_when_nothing_is_outstanding() {
        let mut s = under_way();
        let a = s.stamp(FIRST, 4).unwrap();
        assert_eq!(s.stamp(SECOND, 1).unwrap().producer, FIRST);
        s.on_delivered(&a);
        let rest = s.outstanding.front().unwrap().stamp;
        s.on_delivered(&rest);
        let b = s.stamp(SECOND, 1).unwrap();
        assert_eq!((b.producer, b.base_sequence), (SECOND, 0));
    }
}

//! Where a batch's time went: under way, without a leader, in backoff, or in line.
//!
//! The sender thread keeps these beside its batches and partitions, a step a request; users see
//! them as [`TimeSpent`] in the error of a record that failed.

use std::collections::VecDeque;
use std::time::Duration;

use crate::claims;
use crate::error::TimeSpent;
use crate::time::MonoTime;

/// A batch's times, by phase.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Phases {
    /// When the present phase began.
    since: MonoTime,
    /// A request carries the batch; else it waits in its queue.
    under_way: bool,
    /// What is over; `queued` stays zero, being what remains of the whole.
    spent: TimeSpent,
}

impl Phases {
    /// Those of a batch that was started at `created` and waits.
    pub(crate) fn new(created: MonoTime) -> Self {
        Self { since: created, under_way: false, spent: TimeSpent::default() }
    }

    /// A request takes the batch. `retry_at`: the end of its backoff.
    pub(crate) fn depart(&mut self, vacancies: &Vacancies, retry_at: MonoTime, now: MonoTime) {
        self.end(vacancies, retry_at, now);
        self.under_way = true;
    }

    /// The request has ended.
    pub(crate) fn come_back(&mut self, now: MonoTime) {
        self.end(&Vacancies::default(), MonoTime::ZERO, now);
        self.under_way = false;
    }

    pub(crate) fn is_under_way(&self) -> bool {
        self.under_way
    }

    /// No time is counted twice: the phases of a batch that was started at `created` come to no
    /// more than has passed by the present one's start.
    pub(super) fn invariants(&self, created: MonoTime) {
        debug_assert!(self.told() <= self.since.since(created), "{self:?}, since {created:?}");
        debug_assert!(self.spent.queued.is_zero(), "{self:?}");
    }

    /// All that is over and was not spent in line.
    fn told(&self) -> Duration {
        self.spent.metadata + self.spent.in_flight + self.spent.backoff
    }

    /// The whole, for a batch that was started at `created` and ends now.
    pub(crate) fn spent(
        mut self,
        created: MonoTime,
        vacancies: &Vacancies,
        retry_at: MonoTime,
        now: MonoTime,
    ) -> TimeSpent {
        self.end(vacancies, retry_at, now);
        let queued = now.since(created).saturating_sub(self.told());
        TimeSpent { queued, ..self.spent }
    }

    fn end(&mut self, vacancies: &Vacancies, retry_at: MonoTime, now: MonoTime) {
        // The batch may have been started in the midst of the sender's turn.
        let now = now.max(self.since);
        let since = std::mem::replace(&mut self.since, now);
        if self.under_way {
            self.spent.in_flight += now.since(since);
            return;
        }
        self.spent.metadata += vacancies.within(since, now);
        if retry_at > since {
            // A backoff without a leader would have ended early had there been one.
            let until = retry_at.min(now);
            self.spent.backoff += until.since(since).saturating_sub(vacancies.within(since, until));
        }
    }
}

/// When a partition had no leader that is known: what of a wait is metadata's fault.
#[derive(Debug, Default)]
pub(crate) struct Vacancies {
    /// The present one's start.
    since: Option<MonoTime>,
    /// Earlier ones, the oldest first.
    past: VecDeque<(MonoTime, MonoTime)>,
}

impl Vacancies {
    /// More are forgotten; they are as good as never met within one batch's time.
    const REMEMBERED: usize = 8;

    /// Takes note of whether there is a leader from now on.
    pub(crate) fn note(&mut self, is_vacant: bool, now: MonoTime) {
        match (self.since, is_vacant) {
            (None, true) => self.since = Some(now),
            (Some(since), false) => {
                self.since = None;
                if self.past.len() == Self::REMEMBERED {
                    self.past.pop_front();
                }
                self.past.push_back((since, now));
            }
            _ => {}
        }
        self.invariants();
    }

    /// They are in order and apart, and no more are remembered than are told of.
    fn invariants(&self) {
        if !claims::are_checked() {
            return;
        }
        assert!(self.past.len() <= Self::REMEMBERED, "{self:?}");
        let moments = self.past.iter().flat_map(|(begin, end)| [*begin, *end]);
        assert!(moments.chain(self.since).is_sorted(), "{self:?}");
    }

    /// How much of the time from `from` to `to` there was no leader.
    fn within(&self, from: MonoTime, to: MonoTime) -> Duration {
        if self.since.is_none() && self.past.is_empty() {
            return Duration::ZERO;
        }
        let present = self.since.map(|since| (since, to));
        let spans = self.past.iter().copied().chain(present);
        spans.map(|(begin, end)| end.min(to).since(begin.max(from))).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> MonoTime {
        MonoTime::ZERO + Duration::from_secs(seconds)
    }

    fn seconds(spent: TimeSpent) -> [u64; 4] {
        [spent.metadata, spent.queued, spent.in_flight, spent.backoff].map(|d| d.as_secs())
    }

    #[test]
    fn the_phases_add_up_to_the_whole() {
        let mut vacancies = Vacancies::default();
        let mut phases = Phases::new(at(10));
        vacancies.note(true, at(5));
        vacancies.note(false, at(13));
        // Three without a leader, one in line, five under way.
        phases.depart(&vacancies, MonoTime::ZERO, at(14));
        phases.come_back(at(19));
        // Two in backoff, one in line, four under way again.
        phases.depart(&vacancies, at(21), at(22));
        assert_eq!(seconds(phases.spent(at(10), &vacancies, at(21), at(26))), [3, 2, 9, 2]);
        phases.come_back(at(26));
        // A backoff of ten, of which four are without a leader.
        vacancies.note(true, at(30));
        assert_eq!(seconds(phases.spent(at(10), &vacancies, at(36), at(34))), [7, 2, 9, 6]);
    }

    #[test]
    fn many_vacancies_are_forgotten_and_not_kept_for_ever() {
        let mut vacancies = Vacancies::default();
        for i in 0..100 {
            vacancies.note(true, at(10 * i));
            vacancies.note(false, at(10 * i + 1));
        }
        assert_eq!(vacancies.past.len(), Vacancies::REMEMBERED);
        assert_eq!(vacancies.within(at(930), at(1000)), Duration::from_secs(7));
    }
}

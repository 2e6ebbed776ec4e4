//! When to ask for metadata again: age, back-off after failures, back-off while answers bring
//! nothing new. Pure; the sender's `Metadata` owns it.

use std::time::Duration;

use crate::random::Random;
use crate::time::MonoTime;

/// The times that decide when the next update is due.
#[derive(Debug)]
pub(super) struct Schedule {
    /// `retry.backoff.ms`: the first back-off; each further one is twice as long.
    backoff: Duration,
    /// `retry.backoff.max.ms`.
    backoff_max: Duration,
    /// `metadata.max.age.ms`.
    max_age: Duration,
    /// Failures since the last success.
    failures: u32,
    /// Successes in a row that brought nothing new.
    equivalents: u32,
    /// No update before this: at least one back-off lies between updates.
    not_before: MonoTime,
    /// No update before this unless the metadata is too old: grows with `equivalents`.
    not_before_while_equivalent: MonoTime,
    /// The last success that refreshed all topics.
    refreshed: Option<MonoTime>,
    random: Random,
}

impl Schedule {
    /// A schedule that allows an update at once.
    pub(super) fn new(
        backoff: Duration,
        backoff_max: Duration,
        max_age: Duration,
        random: Random,
    ) -> Self {
        Self {
            backoff,
            backoff_max,
            max_age,
            failures: 0,
            equivalents: 0,
            not_before: MonoTime::ZERO,
            not_before_while_equivalent: MonoTime::ZERO,
            refreshed: None,
            random,
        }
    }

    /// Whether all topics are to be refreshed because the metadata is too old.
    pub(super) fn is_aged(&self, now: MonoTime) -> bool {
        self.refreshed.is_some_and(|t| t + self.max_age <= now)
    }

    /// The time until the next update, zero if it is due. `wanted`: somebody asked for one.
    pub(super) fn wait(&self, wanted: bool, now: MonoTime) -> Duration {
        let aged = self.refreshed.map_or(MonoTime::MAX, |t| t + self.max_age);
        let mut allowed = self.not_before;
        if aged > now {
            allowed = allowed.max(self.not_before_while_equivalent);
        }
        let due = if wanted { allowed } else { allowed.max(aged) };
        due.since(now)
    }

    /// A topic that was never asked for must not wait for a back-off that others caused.
    pub(super) fn on_new_topic(&mut self) {
        self.not_before = MonoTime::ZERO;
        self.forget_equivalents();
        self.invariants();
    }

    /// A request goes out. One that was due by age does not count as asking again and again.
    pub(super) fn on_request(&mut self, now: MonoTime) {
        if self.is_aged(now) {
            self.forget_equivalents();
        }
    }

    /// A response was applied. `full`: it covered all topics; `learned`: it brought news.
    pub(super) fn on_success(&mut self, full: bool, learned: bool, now: MonoTime) {
        self.failures = 0;
        self.not_before = now + self.backoff(0);
        if full {
            self.refreshed = Some(now);
        }
        if learned {
            self.forget_equivalents();
        } else {
            let backoff = self.backoff(self.equivalents);
            self.equivalents = self.equivalents.saturating_add(1);
            self.not_before_while_equivalent = now + backoff;
        }
        self.invariants();
    }

    /// A request failed, or could not be sent.
    pub(super) fn on_failure(&mut self, now: MonoTime) {
        self.not_before = now + self.backoff(self.failures);
        self.failures = self.failures.saturating_add(1);
        self.forget_equivalents();
        self.invariants();
    }

    /// Failures and answers without news are counted from the last of the other kind, and only the
    /// latter hold an update back that is wanted.
    fn invariants(&self) {
        debug_assert!(self.failures == 0 || self.equivalents == 0, "{self:?}");
        let is_held = self.not_before_while_equivalent != MonoTime::ZERO;
        debug_assert!(self.equivalents > 0 || !is_held, "{self:?}");
    }

    fn forget_equivalents(&mut self) {
        self.equivalents = 0;
        self.not_before_while_equivalent = MonoTime::ZERO;
    }

    /// The back-off after `earlier` ones, as KIP-580.
    pub(super) fn backoff(&mut self, earlier: u32) -> Duration {
        self.random.backoff(self.backoff, self.backoff_max, earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Duration = Duration::from_millis(100);
    const MAX_AGE: Duration = Duration::from_secs(300);

    fn schedule() -> Schedule {
        Schedule::new(BACKOFF, Duration::from_secs(1), MAX_AGE, Random::steady())
    }

    fn at(millis: u64) -> MonoTime {
        MonoTime::ZERO + Duration::from_millis(millis)
    }

    fn waits(schedule: &Schedule, now: MonoTime) -> (u128, u128) {
        (schedule.wait(true, now).as_millis(), schedule.wait(false, now).as_millis())
    }

    #[test]
    fn the_first_update_is_allowed_at_once() {
        assert_eq!(schedule().wait(true, at(0)), Duration::ZERO);
    }

    /// MD-02, MD-03.
    #[test]
    fn without_a_request_the_next_update_is_due_by_age_and_with_one_after_the_backoff() {
        let mut schedule = schedule();
        schedule.on_success(true, true, at(1000));
        assert_eq!(waits(&schedule, at(1000)), (100, 300_000));
        assert_eq!(waits(&schedule, at(1040)), (60, 299_960));
        assert_eq!(waits(&schedule, at(301_000)), (0, 0));
        assert!(schedule.is_aged(at(301_000)) && !schedule.is_aged(at(300_999)));
    }

    #[test]
    fn partial_updates_do_not_postpone_the_full_one() {
        let mut schedule = schedule();
        schedule.on_success(true, true, at(0));
        schedule.on_success(false, true, at(5000));
        assert_eq!(schedule.wait(false, at(5000)), MAX_AGE - Duration::from_secs(5));
    }

    /// MD-05.
    #[test]
    fn failures_double_the_backoff_up_to_its_bound_and_leave_the_last_success() {
        let mut schedule = schedule();
        schedule.on_success(true, true, at(0));
        for expected in [100, 200, 400, 800, 1000, 1000] {
            schedule.on_failure(at(1000));
            assert_eq!(schedule.wait(true, at(1000)).as_millis(), expected);
        }
        assert_eq!(schedule.wait(false, at(1000)).as_millis(), 299_000);
        schedule.on_success(true, true, at(2000));
        schedule.on_failure(at(3000));
        assert_eq!(schedule.wait(true, at(3000)), BACKOFF);
    }

    /// MD-06.
    #[test]
    fn answers_without_news_double_the_backoff_until_there_is_news() {
        let mut schedule = schedule();
        for expected in [100, 200, 400, 800, 1000] {
            schedule.on_success(true, false, at(0));
            assert_eq!(schedule.wait(true, at(0)).as_millis(), expected);
        }
        schedule.on_success(true, true, at(0));
        assert_eq!(schedule.wait(true, at(0)), BACKOFF);
    }

    #[test]
    fn a_new_topic_overrides_every_backoff() {
        let mut schedule = schedule();
        schedule.on_success(true, false, at(0));
        schedule.on_success(true, false, at(0));
        schedule.on_failure(at(0));
        schedule.on_new_topic();
        assert_eq!(schedule.wait(true, at(0)), Duration::ZERO);
    }

    #[test]
    fn an_update_by_age_is_not_held_back_by_answers_without_news() {
        let second = Duration::from_secs(1);
        let mut schedule = Schedule::new(BACKOFF, second * 60, second, Random::steady());
        for _ in 0..6 {
            schedule.on_success(true, false, at(0));
        }
        assert_eq!(schedule.wait(true, at(0)), BACKOFF * 32);
        assert_eq!(schedule.wait(true, at(1000)), Duration::ZERO);
        schedule.on_request(at(1000));
        schedule.on_success(true, false, at(1000));
        assert_eq!(schedule.wait(true, at(1000)), BACKOFF);
    }

    /// MD-04.
    #[test]
    fn jitter_spreads_the_backoff_within_its_bound() {
        let max = Duration::from_secs(1);
        let mut schedule = Schedule::new(BACKOFF, max, MAX_AGE, Random::new(5));
        for nominal in [100, 200, 400, 800, 1000, 1000, 1000] {
            schedule.on_failure(at(0));
            let wait = schedule.wait(true, at(0));
            let nominal = Duration::from_millis(nominal);
            assert!(wait >= nominal * 8 / 10 && wait <= (nominal * 12 / 10).min(max), "{wait:?}");
            assert!(wait != nominal || nominal == max, "there is no jitter");
        }
    }
}

//! Statistics over a window of time that moves in samples, with the definitions of Kafka's clients:
//! `metrics.num.samples` samples of `metrics.sample.window.ms` each. Pure: `now` is an argument,
//! and whoever reads changes nothing, so that two readers see what one would.

use std::time::Duration;

use super::figures::{Average, Meter};
use crate::claims;
use crate::time::MonoTime;

/// How long is looked back, and in how many steps the past is forgotten.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// `metrics.num.samples`, at least 1.
    pub(crate) samples: usize,
    /// `metrics.sample.window.ms`.
    pub(crate) span: Duration,
}

impl Window {
    /// What is older than this is forgotten.
    fn length(&self) -> Duration {
        self.span.saturating_mul(u32::try_from(self.samples).unwrap_or(u32::MAX))
    }
}

impl Default for Window {
    fn default() -> Self {
        Self { samples: 2, span: Duration::from_secs(30) }
    }
}

/// What was recorded, sample by sample.
///
/// A sample begins with the first thing recorded in it, and the next one with the first thing
/// recorded after its span: silence begins none. One more is kept than the window has, since the
/// oldest may lie in it with a part only.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples<T> {
    ring: Vec<Sample<T>>,
    current: usize,
}

#[derive(Clone, Debug)]
struct Sample<T> {
    start: MonoTime,
    /// What comes from here on begins the next one.
    end: MonoTime,
    /// When something was last recorded in it.
    last: MonoTime,
    tally: T,
}

/// What a sample holds.
pub(super) trait Tally: Default {
    /// As new, with the memory kept.
    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl<T: Tally> Samples<T> {
    /// The sample that is to be added to.
    pub(super) fn at(&mut self, window: &Window, now: MonoTime) -> &mut T {
        let is_over = |sample: &Sample<T>| now >= sample.end;
        if self.ring.get(self.current).is_none_or(is_over) {
            self.advance(window, now);
        }
        let sample = &mut self.ring[self.current];
        sample.last = sample.last.max(now);
        debug_assert!(sample.start <= sample.last && sample.last <= sample.end);
        &mut sample.tally
    }

    /// No more is kept than the window needs, and the current sample began when all others were
    /// over. Looked at as one begins.
    fn invariants(&self, window: &Window) {
        if claims::are_checked() {
            assert!(self.ring.len() <= window.samples.saturating_add(1), "{}", self.ring.len());
            let start = self.ring[self.current].start;
            let mut others = self.ring.iter().enumerate().filter(|(at, _)| *at != self.current);
            assert!(others.all(|(_, other)| other.end <= start), "two samples at a time");
        }
    }

    #[cold]
    fn advance(&mut self, window: &Window, now: MonoTime) {
        let end = now + window.span;
        if !self.ring.is_empty() {
            self.current = (self.current + 1) % window.samples.saturating_add(1);
        }
        match self.ring.get_mut(self.current) {
            Some(sample) => {
                (sample.start, sample.end, sample.last) = (now, end, now);
                sample.tally.clear();
            }
            None => self.ring.push(Sample { start: now, end, last: now, tally: T::default() }),
        }
        self.invariants(window);
    }

    /// What the current sample holds.
    fn current(&self) -> Option<&T> {
        self.ring.get(self.current).map(|sample| &sample.tally)
    }

    /// The samples that the window reaches.
    pub(super) fn within(&self, window: &Window, now: MonoTime) -> impl Iterator<Item = &T> {
        self.live(window, now).map(|sample| &sample.tally)
    }

    fn live(&self, window: &Window, now: MonoTime) -> impl Iterator<Item = &Sample<T>> {
        let length = window.length();
        self.ring.iter().filter(move |sample| now.since(sample.last) < length)
    }

    /// The time that a rate is over: since the oldest sample's start, but as if all samples of the
    /// window but the current one had been complete, so that the first second of a producer does
    /// not show as a rate thirty times too high.
    fn elapsed(&self, window: &Window, now: MonoTime) -> Duration {
        let oldest = self.live(window, now).map(|sample| sample.start).min();
        let elapsed = oldest.map_or(Duration::ZERO, |start| now.since(start));
        let complete = elapsed.as_nanos().checked_div(window.span.as_nanos()).unwrap_or(u128::MAX);
        let missing = (window.samples as u128 - 1).saturating_sub(complete);
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        let elapsed = elapsed.saturating_add(window.span.saturating_mul(missing));
        elapsed.max(Duration::from_millis(1))
    }
}

/// A sum and how fast it grows.
#[derive(Clone, Debug, Default)]
pub(crate) struct MeterStat {
    total: u64,
    sums: Samples<u64>,
}

impl Tally for u64 {}

impl MeterStat {
    pub(crate) fn record(&mut self, window: &Window, value: u64, now: MonoTime) {
        self.total += value;
        *self.sums.at(window, now) += value;
        self.invariants();
    }

    /// What was recorded of late is part of all.
    fn invariants(&self) {
        if claims::are_checked() {
            let late = self.sums.current().copied().unwrap_or_default();
            assert!(late <= self.total, "{late} of {}", self.total);
        }
    }

    /// All that was recorded.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The total, and the rate a second.
    pub(crate) fn measure(&self, window: &Window, now: MonoTime) -> Meter {
        let sum: u64 = self.sums.within(window, now).sum();
        let rate = sum as f64 / self.sums.elapsed(window, now).as_secs_f64();
        Meter { rate, total: self.total }
    }
}

/// The mean and the largest of what was recorded.
#[derive(Clone, Debug, Default)]
pub(crate) struct AverageStat(Samples<Spread>);

#[derive(Clone, Debug, Default)]
struct Spread {
    sum: f64,
    count: u64,
    max: f64,
}

impl Tally for Spread {}

impl AverageStat {
    /// `value` is not negative.
    pub(crate) fn record(&mut self, window: &Window, value: f64, now: MonoTime) {
        self.record_sum(window, value, 1, value, now);
    }

    /// As [`record`](Self::record), for `count` values at once, whose largest is `max`.
    pub(crate) fn record_sum(
        &mut self,
        window: &Window,
        sum: f64,
        count: u64,
        max: f64,
        now: MonoTime,
    ) {
        let spread = self.0.at(window, now);
        spread.sum += sum;
        spread.count += count;
        spread.max = spread.max.max(max);
        self.invariants();
    }

    /// The largest is one of so many that come to the sum, but for what is lost in adding them up.
    fn invariants(&self) {
        if claims::are_checked() {
            const LOST: f64 = 1e-6;
            let Some(Spread { sum, count, max }) = self.0.current() else { return };
            assert!(*max <= sum * (1.0 + LOST), "{max} of {sum}");
            assert!(*sum <= max * *count as f64 * (1.0 + LOST), "{sum} by {count} of {max}");
        }
    }

    /// Nothing if nothing was recorded in the window.
    pub(crate) fn measure(&self, window: &Window, now: MonoTime) -> Average {
        let (mut sum, mut count, mut max) = (0.0, 0, 0.0_f64);
        for spread in self.0.within(window, now) {
            sum += spread.sum;
            count += spread.count;
            max = max.max(spread.max);
        }
        if count == 0 {
            return Average::default();
        }
        Average { avg: Some(sum / count as f64), max: Some(max) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two samples of thirty seconds, as by default.
    const WINDOW: Window = Window { samples: 2, span: Duration::from_secs(30) };

    fn at(seconds: f64) -> MonoTime {
        MonoTime::ZERO + Duration::from_secs_f64(1000.0 + seconds)
    }

    fn close(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-9, "{got}, not {expected}");
    }

    #[test]
    fn a_young_rate_is_over_the_samples_that_are_to_come_too() {
        let mut meter = MeterStat::default();
        close(meter.measure(&WINDOW, at(0.0)).rate, 0.0);
        meter.record(&WINDOW, 300, at(0.0));
        // One complete sample is taken as given, and half a second of the current one.
        close(meter.measure(&WINDOW, at(0.5)).rate, 300.0 / 30.5);
        // A sample's span later nothing is added any more.
        close(meter.measure(&WINDOW, at(30.0)).rate, 300.0 / 30.0);
        close(meter.measure(&WINDOW, at(45.0)).rate, 300.0 / 45.0);
        assert_eq!(meter.measure(&WINDOW, at(45.0)).total, 300);
    }

    #[test]
    fn a_sample_that_the_window_still_reaches_counts_whole() {
        let mut meter = MeterStat::default();
        meter.record(&WINDOW, 10, at(0.0));
        meter.record(&WINDOW, 20, at(29.0));
        meter.record(&WINDOW, 40, at(30.0)); // the second sample
        meter.record(&WINDOW, 80, at(61.0)); // the third one, beside the two of the window
        // The first sample's last event is 36 s old, less than a minute: it counts from its start.
        close(meter.measure(&WINDOW, at(65.0)).rate, 150.0 / 65.0);
        // A minute after that event it is gone, and the rate is over what began at 30 s.
        close(meter.measure(&WINDOW, at(89.0)).rate, 120.0 / 59.0);
        // The fourth takes the place of the first.
        meter.record(&WINDOW, 160, at(91.0));
        close(meter.measure(&WINDOW, at(91.0)).rate, 240.0 / 30.0);
        assert_eq!(meter.measure(&WINDOW, at(91.0)).total, 310);
    }

    #[test]
    fn silence_ends_a_rate_and_keeps_its_total() {
        let mut meter = MeterStat::default();
        meter.record(&WINDOW, 6000, at(0.0));
        let just_before = meter.measure(&WINDOW, at(59.999)).rate;
        close(just_before, 6000.0 / 59.999);
        assert_eq!(meter.measure(&WINDOW, at(60.0)), Meter { rate: 0.0, total: 6000 });
        // The next sample begins with what is recorded, not where the silence did.
        meter.record(&WINDOW, 60, at(600.0));
        close(meter.measure(&WINDOW, at(601.0)).rate, 60.0 / 31.0);
    }

    #[test]
    fn readers_change_nothing() {
        let mut meter = MeterStat::default();
        meter.record(&WINDOW, 60, at(0.0));
        for second in 0..600 {
            meter.measure(&WINDOW, at(f64::from(second)));
        }
        meter.record(&WINDOW, 60, at(600.0));
        close(meter.measure(&WINDOW, at(600.0)).rate, 60.0 / 30.0);
    }

    #[test]
    fn an_average_and_a_maximum_are_of_the_window() {
        let mut average = AverageStat::default();
        assert_eq!(average.measure(&WINDOW, at(0.0)), Average::default());
        average.record(&WINDOW, 9.0, at(0.0));
        average.record(&WINDOW, 1.0, at(31.0));
        average.record_sum(&WINDOW, 5.0, 4, 2.0, at(32.0));
        let all = average.measure(&WINDOW, at(32.0));
        assert_eq!(all, Average { avg: Some(15.0 / 6.0), max: Some(9.0) });
        let later = average.measure(&WINDOW, at(60.0));
        assert_eq!(later, Average { avg: Some(6.0 / 5.0), max: Some(2.0) });
        assert_eq!(average.measure(&WINDOW, at(92.0)), Average::default());
    }

    #[test]
    fn one_sample_and_samples_without_a_span_are_windows_too() {
        let one = Window { samples: 1, span: Duration::from_secs(10) };
        let mut meter = MeterStat::default();
        meter.record(&one, 8, at(0.0));
        // There is no complete sample to take as given.
        close(meter.measure(&one, at(4.0)).rate, 2.0);
        close(meter.measure(&one, at(0.0)).rate, 8.0 / 0.001);
        let none = Window { samples: 3, span: Duration::ZERO };
        let mut meter = MeterStat::default();
        meter.record(&none, 8, at(0.0));
        meter.record(&none, 8, at(0.0));
        assert_eq!(meter.measure(&none, at(1.0)), Meter { rate: 0.0, total: 16 });
    }

    #[test]
    fn a_clock_behind_the_recorders_does_no_harm() {
        let mut meter = MeterStat::default();
        meter.record(&WINDOW, 30, at(5.0));
        close(meter.measure(&WINDOW, at(4.0)).rate, 1.0);
        meter.record(&WINDOW, 30, at(4.0));
        close(meter.measure(&WINDOW, at(5.0)).rate, 2.0);
    }
}

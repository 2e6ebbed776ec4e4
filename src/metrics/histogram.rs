//! Percentiles over the window: durations counted in buckets whose width grows with the duration,
//! so that each is known to a sixteenth, from a microsecond to over an hour, in two kilobytes.

use std::time::Duration;

use super::figures::Percentiles;
use super::stats::{Samples, Tally, Window};
use crate::time::MonoTime;

/// Buckets of one width: the durations below that many microseconds are exact.
const STEPS: u64 = 16;
/// Each doubling of the duration has `STEPS` buckets; the last one takes all that is longer.
const DOUBLINGS: u64 = 28;
const BUCKETS: usize = (STEPS * (DOUBLINGS + 1)) as usize;

/// A distribution of durations.
#[derive(Clone, Debug, Default)]
pub(crate) struct Histogram(Samples<Counts>);

/// How many durations fell into each bucket; empty until there is one.
#[derive(Clone, Debug, Default)]
struct Counts(Vec<u32>);

impl Tally for Counts {
    fn clear(&mut self) {
        self.0.fill(0);
    }
}

impl Histogram {
    /// Counts this duration so many times.
    pub(crate) fn record(&mut self, window: &Window, took: Duration, times: u32, now: MonoTime) {
        let counts = &mut self.0.at(window, now).0;
        if counts.is_empty() {
            counts.resize(BUCKETS, 0);
        }
        let count = &mut counts[bucket(took)];
        *count = count.saturating_add(times);
    }

    /// Nothing if nothing was recorded in the window.
    pub(crate) fn measure(&self, window: &Window, now: MonoTime) -> Percentiles {
        let mut sums = vec![0_u64; BUCKETS];
        for counts in self.0.within(window, now) {
            for (sum, count) in sums.iter_mut().zip(&counts.0) {
                *sum += u64::from(*count);
            }
        }
        let all: u64 = sums.iter().sum();
        // The least duration that so many thousandths of all don't exceed.
        let at = |thousandths: u64| {
            let rank = (u128::from(all) * u128::from(thousandths)).div_ceil(1000) as u64;
            let mut seen = 0;
            let reached = |sum: &u64| {
                seen += sum;
                seen >= rank
            };
            let found = sums.iter().position(reached).filter(|_| all > 0)?;
            Some(upper_bound(found).as_secs_f64() * 1000.0)
        };
        Percentiles { p50: at(500), p99: at(990), p999: at(999) }
    }
}

fn bucket(took: Duration) -> usize {
    let micros = took.as_secs().saturating_mul(1_000_000);
    let micros = micros.saturating_add(took.subsec_micros().into());
    if micros < STEPS {
        return micros as usize;
    }
    // The leading bit tells the doubling, the four below it the step.
    let doubling = u64::from(micros.ilog2() - STEPS.ilog2());
    let step = (micros >> doubling) - STEPS;
    usize::try_from((doubling + 1) * STEPS + step).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The longest duration of a bucket.
fn upper_bound(bucket: usize) -> Duration {
    let (doubling, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    let next = match doubling.checked_sub(1) {
        None => step + 1,
        Some(shift) => (STEPS + step + 1) << shift,
    };
    Duration::from_micros(next) - Duration::from_nanos(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window { samples: 2, span: Duration::from_secs(30) };

    fn at(seconds: u64) -> MonoTime {
        MonoTime::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn buckets_follow_each_other_without_gaps_and_are_a_sixteenth_wide() {
        for bucket_no in 0..BUCKETS - 1 {
            let end = upper_bound(bucket_no);
            assert_eq!(bucket(end), bucket_no, "{end:?}");
            let next = end + Duration::from_nanos(1);
            assert_eq!(bucket(next), bucket_no + 1, "{next:?}");
            let width = upper_bound(bucket_no + 1) - end;
            assert!(width <= Duration::from_micros(1).max(end / 15), "{end:?}: {width:?}");
        }
        assert!(upper_bound(BUCKETS - 1) > Duration::from_secs(3600));
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_of_what_was_counted_in_the_window() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.measure(&WINDOW, at(0)), Percentiles::default());
        // 0.1 ms to 100 ms in equal steps.
        for tenths in 1..=1000 {
            histogram.record(&WINDOW, Duration::from_micros(100) * tenths, 1, at(0));
        }
        let close = |got: Option<f64>, expected: f64| {
            let got = got.unwrap();
            assert!((expected..=expected * 1.07).contains(&got), "{got}, not {expected}");
        };
        let percentiles = histogram.measure(&WINDOW, at(1));
        close(percentiles.p50, 50.0);
        close(percentiles.p99, 99.0);
        close(percentiles.p999, 99.9);
        // Nine times as many of a second, later: those from before are a tenth.
        histogram.record(&WINDOW, Duration::from_secs(1), 9000, at(40));
        close(histogram.measure(&WINDOW, at(40)).p50, 1000.0);
        histogram.record(&WINDOW, Duration::from_millis(5), 1, at(100));
        close(histogram.measure(&WINDOW, at(101)).p999, 5.0);
    }
}

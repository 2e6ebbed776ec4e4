//! The one door to clocks. Elsewhere `now` is an argument.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment on the producer's monotonic clock, in nanoseconds since the clock was made.
///
/// Arithmetic saturates: a user's thread may have read the clock later than the sender did.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct MonoTime(u64);

impl MonoTime {
    /// The moment at which the clock was made.
    pub(crate) const ZERO: Self = Self(0);
    /// Later than any deadline: "never".
    pub(crate) const MAX: Self = Self(u64::MAX);

    pub(crate) const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub(crate) const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero if `earlier` is the later one.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for MonoTime {
    type Output = Self;
    fn add(self, d: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for MonoTime {
    type Output = Self;
    fn sub(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Debug for MonoTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", Duration::from_nanos(self.0))
    }
}

/// Monotonic and wall time; real, or moved by hand in tests.
#[derive(Clone, Debug)]
pub(crate) enum Clock {
    System {
        start: Instant,
    },
    #[cfg_attr(not(test), allow(dead_code, reason = "tests move time by hand"))]
    Manual(Arc<ManualClock>),
}

impl Clock {
    /// The machine's clock; the simulated one on a simulated thread.
    pub(crate) fn system() -> Self {
        #[cfg(all(test, not(loom)))]
        if let Some(clock) = crate::sim::clock() {
            return clock;
        }
        Self::System { start: Instant::now() }
    }

    /// The monotonic time, exact.
    pub(crate) fn now(&self) -> MonoTime {
        match self {
            Self::System { start } => MonoTime::ZERO + start.elapsed(),
            Self::Manual(clock) => MonoTime(clock.nanos.load(Ordering::Acquire)),
        }
    }

    /// The wall clock in milliseconds since 1970, exact.
    pub(crate) fn wall_millis(&self) -> i64 {
        match self {
            Self::System { .. } => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
            }
            Self::Manual(clock) => clock.wall_millis(),
        }
    }

    /// The wall clock as of the kernel's last tick (4 ms steps on most machines), read without a
    /// counter: a third of the exact clock's cost. Where there is none, the exact clock.
    #[inline]
    pub(crate) fn coarse_wall_millis(&self) -> i64 {
        match self {
            #[cfg(target_os = "linux")]
            Self::System { .. } => {
                match nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME_COARSE) {
                    Ok(t) => t.tv_sec() * 1000 + t.tv_nsec() / 1_000_000,
                    Err(_) => self.wall_millis(),
                }
            }
            _ => self.wall_millis(),
        }
    }
}

/// A clock that moves only when told to; its wall time starts at [`ManualClock::WALL_START`].
#[derive(Debug, Default)]
pub(crate) struct ManualClock {
    nanos: AtomicU64,
}

#[cfg_attr(not(test), allow(dead_code))]
impl ManualClock {
    /// 2023-11-14T22:13:20Z.
    pub(crate) const WALL_START: i64 = 1_700_000_000_000;

    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(by, Ordering::AcqRel);
    }

    fn wall_millis(&self) -> i64 {
        let millis = self.nanos.load(Ordering::Acquire) / 1_000_000;
        Self::WALL_START.saturating_add_unsigned(millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// UTIL-02.
    #[test]
    fn differences_saturate_when_clocks_disagree() {
        let (a, b) = (MonoTime::from_nanos(5), MonoTime::from_nanos(9));
        assert_eq!(a.since(b), Duration::ZERO);
        assert_eq!(b.since(a), Duration::from_nanos(4));
        assert_eq!(MonoTime::MAX + Duration::from_secs(1), MonoTime::MAX);
        assert_eq!(a - Duration::from_secs(1), MonoTime::ZERO);
    }

    #[test]
    fn a_manual_clock_moves_when_told_to() {
        let manual = ManualClock::new();
        let clock = Clock::Manual(Arc::clone(&manual));
        manual.advance(Duration::from_millis(1500));
        assert_eq!(clock.now(), MonoTime::ZERO + Duration::from_millis(1500));
        assert_eq!(clock.wall_millis(), ManualClock::WALL_START + 1500);
        assert_eq!(clock.coarse_wall_millis(), clock.wall_millis());
    }

    #[test]
    fn the_coarse_clock_follows_the_exact_one() {
        let clock = Clock::system();
        let apart = clock.wall_millis() - clock.coarse_wall_millis();
        assert!((-1..1000).contains(&apart), "{apart} ms apart");
    }
}

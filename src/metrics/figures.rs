//! The values that metrics consist of, as they are handed out.

/// A sum, and how fast it grows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Meter {
    /// A second, over the window that `metrics.num.samples` and `metrics.sample.window.ms` span.
    pub rate: f64,
    /// Since the producer was started; of a topic or a broker, since it was last met for the first
    /// time.
    pub total: u64,
}

/// A mean and a maximum over the window; `None` if nothing was recorded in it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Average {
    /// The mean.
    pub avg: Option<f64>,
    /// The largest.
    pub max: Option<f64>,
}

/// A distribution of durations over the window, in milliseconds and a sixteenth too large at most;
/// `None` if nothing was recorded in it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Percentiles {
    /// Half of all took no longer.
    pub p50: Option<f64>,
    /// 99 of 100 took no longer.
    pub p99: Option<f64>,
    /// 999 of 1000 took no longer.
    pub p999: Option<f64>,
}

/// What the sender's thread does with its time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct IoTime {
    /// The part of the time, over the window: 1 for all of it.
    pub ratio: f64,
    /// Nanoseconds for each time that the thread looked for something to read or write; `None` if
    /// it did not in the window.
    pub avg_ns: Option<f64>,
    /// Nanoseconds since the producer was started.
    pub total_ns: u64,
}

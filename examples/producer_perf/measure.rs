//! What a run measures: outcomes, latencies, CPU, and the lines that tell of them, in the words of
//! Kafka's tool. All threads of the run share one [`Totals`].

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use kafka_producer::Error;

/// Outcomes and latencies of the whole run.
pub struct Totals {
    delivered: AtomicU64,
    failed: AtomicU64,
    first_error: OnceLock<String>,
    /// When the first record after the warm-up was sent.
    steady_from: OnceLock<Instant>,
    latencies: Mutex<Latencies>,
}

/// In nanoseconds.
struct Latencies {
    all: Histogram<u64>,
    steady: Histogram<u64>,
    window: Window,
}

/// Since the last line of progress.
#[derive(Default)]
struct Window {
    latencies: u64,
    sum: u64,
    max: u64,
}

/// What came of some records.
#[derive(Default)]
pub struct Tally {
    pub delivered: u64,
    pub failed: u64,
}

impl Totals {
    pub fn new() -> Result<Self, hdrhistogram::CreationError> {
        let histogram = || Histogram::new_with_bounds(1, 1_000_000_000_000, 3);
        let latencies =
            Latencies { all: histogram()?, steady: histogram()?, window: Window::default() };
        Ok(Self {
            delivered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            first_error: OnceLock::new(),
            steady_from: OnceLock::new(),
            latencies: Mutex::new(latencies),
        })
    }

    #[inline]
    pub fn count<T>(&self, outcome: Result<T, &Error>) {
        match outcome {
            Ok(_) => self.delivered.fetch_add(1, Relaxed),
            Err(error) => {
                self.first_error.get_or_init(|| error.to_string());
                self.failed.fetch_add(1, Relaxed)
            }
        };
    }

    /// As [`count`](Self::count), for later.
    #[inline]
    pub fn note<T>(&self, outcome: Result<T, &Error>, tally: &mut Tally) {
        match outcome {
            Ok(_) => tally.delivered += 1,
            Err(error) => {
                self.first_error.get_or_init(|| error.to_string());
                tally.failed += 1;
            }
        }
    }

    pub fn add(&self, tally: &Tally) {
        self.delivered.fetch_add(tally.delivered, Relaxed);
        self.failed.fetch_add(tally.failed, Relaxed);
    }

    pub fn start_steady_state(&self, now: Instant) {
        self.steady_from.get_or_init(|| now);
    }

    pub fn record_latency(&self, took: Duration, steady: bool) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let mut latencies = self.latencies();
        latencies.all.saturating_record(nanos);
        if steady {
            latencies.steady.saturating_record(nanos);
        }
        let window = &mut latencies.window;
        window.latencies += 1;
        window.sum += nanos;
        window.max = window.max.max(nanos);
    }

    fn latencies(&self) -> MutexGuard<'_, Latencies> {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn delivered(&self) -> u64 {
        self.delivered.load(Relaxed)
    }

    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    pub fn first_error(&self) -> Option<&str> {
        self.first_error.get().map(String::as_str)
    }

    /// A line about the records delivered since the last one.
    pub fn window_line(&self, records: u64, mean_bytes: f64, took: Duration) -> String {
        let window = std::mem::take(&mut self.latencies().window);
        let (rate, megabytes) = rates(records, mean_bytes, took);
        let mean = millis(window.sum) / window.latencies.max(1) as f64;
        format!(
            "{records} records sent, {rate:.1} records/sec ({megabytes:.2} MB/sec), \
             {mean:.1} ms avg latency, {:.1} ms max latency.",
            millis(window.max)
        )
    }

    /// The line about the whole run.
    pub fn total_line(&self, records: u64, mean_bytes: f64, took: Duration) -> String {
        summary("", records, mean_bytes, took, &self.latencies().all)
    }

    /// The line about what came after `warm_up` records; `None` if there was no warm-up.
    pub fn steady_line(
        &self,
        records: u64,
        warm_up: u64,
        mean_bytes: f64,
        end: Instant,
    ) -> Option<String> {
        let from = self.steady_from.get()?;
        let (records, took) = (records.saturating_sub(warm_up), end - *from);
        let latencies = self.latencies();
        Some(summary(" steady state", records, mean_bytes, took, &latencies.steady))
    }

    /// The last line: for scripts, in microseconds.
    pub fn result_line(&self, sent: u64, tally: &Tally, cpu: Option<Duration>) -> String {
        let latencies = self.latencies();
        let micros = |q| latencies.all.value_at_quantile(q) as f64 / 1e3;
        let cpu = match cpu {
            Some(cpu) => format!("{:.4}", cpu.as_secs_f64() * 1e6 / sent.max(1) as f64),
            None => "unknown".to_owned(),
        };
        format!(
            "sent={sent} delivered={} failed={} cpu_us_per_record={cpu} \
             p50_us={:.1} p99_us={:.1} p999_us={:.1}",
            tally.delivered,
            tally.failed,
            micros(0.5),
            micros(0.99),
            micros(0.999)
        )
    }
}

fn summary(
    which: &str,
    records: u64,
    mean_bytes: f64,
    took: Duration,
    latencies: &Histogram<u64>,
) -> String {
    let (rate, megabytes) = rates(records, mean_bytes, took);
    let at = |q| millis(latencies.value_at_quantile(q)).round();
    format!(
        "{records}{which} records sent, {rate:.6} records/sec ({megabytes:.2} MB/sec), \
         {:.2} ms avg latency, {:.2} ms max latency, \
         {} ms 50th, {} ms 95th, {} ms 99th, {} ms 99.9th.",
        latencies.mean() / 1e6,
        millis(latencies.max()),
        at(0.5),
        at(0.95),
        at(0.99),
        at(0.999)
    )
}

/// Records and megabytes a second.
fn rates(records: u64, mean_bytes: f64, took: Duration) -> (f64, f64) {
    let rate = records as f64 / took.as_secs_f64().max(1e-9);
    (rate, rate * mean_bytes / (1024.0 * 1024.0))
}

fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

/// User and system time of this process so far, where the system tells it.
#[cfg(unix)]
pub fn cpu_time() -> Option<Duration> {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeVal;

    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let duration = |time: TimeVal| {
        let seconds = u64::try_from(time.tv_sec()).ok()?;
        Some(Duration::from_secs(seconds) + Duration::from_micros(time.tv_usec().unsigned_abs()))
    };
    Some(duration(usage.user_time())? + duration(usage.system_time())?)
}

#[cfg(not(unix))]
pub fn cpu_time() -> Option<Duration> {
    None
}

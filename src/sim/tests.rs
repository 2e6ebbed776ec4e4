//! Seeds, run: a fixed set and fresh ones by `cargo test`, or by hand as many as one likes.
//!
//! `SIM_SEEDS=N SIM_FROM=S cargo test --release --lib sim::tests::seeds -- --nocapture` runs N
//! seeds from S on and prints figures; `SIM_SEED=X` in their place replays one, with a log of all
//! that happens.

#![allow(clippy::print_stdout, reason = "figures and logs, asked for by hand")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::faults::Kind;
use super::run::{Report, run};
use crate::sync::Mutex;
use crate::time::Clock;

/// What many runs came to.
#[derive(Default)]
struct Sum {
    runs: u64,
    lasted: Duration,
    records: usize,
    struck: BTreeMap<Kind, u64>,
    failures: Vec<(u64, String)>,
}

impl Sum {
    fn add(&mut self, report: Report) {
        self.runs += 1;
        self.lasted += report.lasted;
        self.records += report.records;
        for (kind, times) in report.struck {
            *self.struck.entry(kind).or_default() += times;
        }
        self.failures.extend(report.failure.map(|failure| (report.seed, failure)));
    }

    fn tell(&self, took: Duration) -> String {
        let minutes = took.as_secs_f64() / 60.0;
        let hours = self.lasted.as_secs_f64() / 3600.0;
        format!(
            "{} seeds in {took:.1?}, {:.0} a minute; {hours:.1} simulated hours, {} records; \
             faults: {:?}; {} failures",
            self.runs,
            self.runs as f64 / minutes,
            self.records,
            self.struck,
            self.failures.len()
        )
    }
}

/// Runs seeds on two threads until there is no more time or too much is wrong.
fn run_all(from: u64, many: u64, at_most: Duration) -> Sum {
    let clock = Clock::system();
    let deadline = clock.now() + at_most;
    let (next, sum) = (AtomicU64::new(from), Mutex::new(Sum::default()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let over = clock.now() > deadline || sum.lock().failures.len() >= 100;
                    if seed >= from + many || over {
                        return;
                    }
                    let report = run(seed, false);
                    sum.lock().add(report);
                }
            });
        }
    });
    sum.into_inner()
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn seeds() {
    if let Some(seed) = variable("SIM_SEED") {
        let report = run(seed, true);
        report.log.iter().for_each(|line| println!("{line}"));
        assert_eq!(report.failure, None, "seed {seed}");
        return;
    }
    let clock = Clock::system();
    let begun = clock.now();
    let many = variable("SIM_SEEDS").unwrap_or(300);
    let sum = run_all(variable("SIM_FROM").unwrap_or(0), many, Duration::from_secs(3600));
    println!("{}", sum.tell(clock.now().since(begun)));
    let failures: Vec<_> =
        sum.failures.iter().map(|(seed, text)| format!("{seed}: {text}")).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn two_runs_of_a_seed_agree() {
    for seed in 0..20 {
        let (first, second) = (run(seed, false), run(seed, false));
        assert_eq!(first.digest, second.digest, "seed {seed}");
    }
}

//! Seeds, run: a fixed set and fresh ones by `cargo test`, or by hand as many as one likes.
//!
//! `SIM_SEEDS=N SIM_FROM=S cargo test --release --lib sim::tests::seeds -- --nocapture` runs N
//! seeds from S on and prints figures; `SIM_SEED=X` in their place replays one, with a log of all
//! that happens. `SIM_DEFECT=NAME` has `every_planted_defect_is_found` look for that one alone.

#![allow(clippy::print_stdout, reason = "figures and logs, asked for by hand")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::faults::Kind;
use super::plan::{FAULTS, Plan, WORK};
use super::run::{Report, run};
use crate::planted::Defect;
use crate::sync::Mutex;
use crate::time::Clock;

/// What many runs came to.
#[derive(Default)]
struct Sum {
    runs: u64,
    lasted: Duration,
    records: usize,
    struck: BTreeMap<Kind, u64>,
    covered: BTreeMap<&'static str, u64>,
    busiest_second: u64,
    /// Seeds with less work than each is to have.
    idle: Vec<u64>,
    failures: Vec<(u64, String)>,
}

impl Sum {
    fn add(&mut self, report: Report) {
        self.runs += 1;
        self.lasted += report.lasted;
        self.records += report.records;
        if report.records < WORK || report.struck.values().sum::<u64>() < FAULTS as u64 {
            self.idle.push(report.seed);
        }
        for (kind, times) in report.struck {
            *self.struck.entry(kind).or_default() += times;
        }
        for (branch, times) in report.covered {
            *self.covered.entry(branch).or_default() += times;
        }
        self.busiest_second = self.busiest_second.max(report.busiest_second);
        self.failures.extend(report.failure.map(|failure| (report.seed, failure)));
    }

    fn assert_well(&self) {
        // Again, with a log of what happened.
        let explained = self.failures.iter().map(|(seed, _)| run(*seed, true, None).explained());
        let failures: Vec<_> = explained.collect();
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        let idle = &self.idle;
        assert!(idle.is_empty(), "fewer than {WORK} sends or {FAULTS} faults: seeds {idle:?}");
    }

    fn tell(&self, took: Duration) -> String {
        let minutes = took.as_secs_f64() / 60.0;
        let hours = self.lasted.as_secs_f64() / 3600.0;
        format!(
            "{} seeds in {took:.1?}, {:.0} a minute; {hours:.1} simulated hours, {} records; \
             faults: {:?}; verdicts: {:?}; most turns a second: {}; {} failures",
            self.runs,
            self.runs as f64 / minutes,
            self.records,
            self.struck,
            self.covered,
            self.busiest_second,
            self.failures.len()
        )
    }
}

/// Keeps this thread, and those that it starts, on one core: a world's threads take turns, and one
/// on another core would have to be woken there, which costs several times what its turn does.
#[cfg(target_os = "linux")]
fn stay_on_a_core(number: usize) {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    let this = nix::unistd::Pid::from_raw(0);
    let Ok(allowed) = sched_getaffinity(this) else { return };
    let cores: Vec<_> =
        (0..CpuSet::count()).filter(|core| allowed.is_set(*core) == Ok(true)).collect();
    let mut only = CpuSet::new();
    let chosen = cores.get(number % cores.len().max(1)).map(|core| only.set(*core));
    if chosen == Some(Ok(())) {
        // A seed runs as well without it.
        let _ = sched_setaffinity(this, &only);
    }
}

#[cfg(not(target_os = "linux"))]
fn stay_on_a_core(_: usize) {}

/// Runs seeds on two threads until there is no more time or too much is wrong.
fn run_all(
    from: u64,
    many: u64,
    at_most: Duration,
    most_failures: usize,
    defect: Option<Defect>,
) -> Sum {
    let clock = Clock::system();
    let deadline = clock.now() + at_most;
    let (next, sum) = (AtomicU64::new(from), Mutex::new(Sum::default()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let over = clock.now() > deadline || sum.lock().failures.len() >= most_failures;
            if seed >= from + many || over {
                return;
            }
            let report = run(seed, false, defect);
            sum.lock().add(report);
        }
    };
    std::thread::scope(|scope| {
        for core in 0..2 {
            let work = &work;
            scope.spawn(move || {
                stay_on_a_core(core);
                work();
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
        println!("{:?}", Plan::of(seed));
        let report = run(seed, true, None);
        report.log.iter().for_each(|line| println!("{line}"));
        assert!(report.failure.is_none(), "{}", report.explained());
        return;
    }
    let clock = Clock::system();
    let begun = clock.now();
    if let Some(many) = variable("SIM_SEEDS") {
        let from = variable("SIM_FROM").unwrap_or(0);
        let sum = run_all(from, many, Duration::MAX, 100, None);
        println!("{}", sum.tell(clock.now().since(begun)));
        return sum.assert_well();
    }
    let sum = run_all(0, FIXED, Duration::MAX, 20, None);
    println!("{}", sum.tell(clock.now().since(begun)));
    sum.assert_well();
    assert_eq!(sum.covered.len(), WAYS, "not every way to a verdict was taken: {:?}", sum.covered);
    assert_eq!(sum.struck.len(), Kind::ALL.len(), "not every fault has struck: {:?}", sum.struck);
    // Others each time.
    let fresh = clock.wall_millis().unsigned_abs() * 1000;
    run_all(fresh, u64::MAX - fresh, FRESH, 20, None).assert_well();
}

/// Seeds that every `cargo test` runs.
const FIXED: u64 = 2000;
/// How long fresh ones are run for.
const FRESH: Duration = Duration::from_secs(20);
/// Ways in which `verdict` comes to its verdict.
const WAYS: usize = 9;

#[test]
fn every_planted_defect_is_found() {
    let many = variable("SIM_SEEDS").unwrap_or(2000);
    let only = std::env::var("SIM_DEFECT").ok();
    let is_asked =
        |defect: &Defect| only.as_ref().is_none_or(|name| *name == format!("{defect:?}"));
    let mut missed = Vec::new();
    for defect in Defect::ALL.into_iter().filter(is_asked) {
        let sum = run_all(0, many, Duration::MAX, 1, Some(defect));
        match sum.failures.first() {
            Some((seed, text)) => println!("{defect:?}: seed {seed}, {} runs: {text}", sum.runs),
            None => missed.push(defect),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn two_runs_of_a_seed_agree() {
    for seed in 0..20 {
        let (first, second) = (run(seed, false, None), run(seed, false, None));
        assert_eq!(first.digest, second.digest, "seed {seed}");
    }
}

//! Seeds, run: a fixed set and fresh ones by `cargo test`, or by hand as many as one likes.
//!
//! `SIM_SEEDS=N SIM_FROM=S cargo test --release --lib sim` runs N seeds from S on; `SIM_SEED=X` in
//! their place replays one, with a log of all that happens. Figures and logs go to the terminal.
//! `SIM_DEFECT=NAME` has `every_planted_defect_is_found` look for that one alone, and a replay make
//! that mistake.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::effects::Felt;
use super::faults::Kind;
use super::plan::{FAULTS, Plan, WORK};
use super::run::{Report, run};
use crate::planted::Defect;
use crate::protocol::ApiKey;
use crate::sync::Mutex;
use crate::time::Clock;

/// What many runs came to.
#[derive(Default)]
struct Sum {
    runs: u64,
    lasted: Duration,
    records: usize,
    /// Of all runs: the fewest records.
    least_work: usize,
    /// Records sent when all was well, those of them that had to be delivered, and runs where that
    /// were all of them.
    calm: usize,
    demanded: usize,
    strict: u64,
    /// Runs that see all well.
    calmed: u64,
    /// Faults: in plans, and those that something felt, the fewest of a seed and by kind.
    due: usize,
    fewest: u64,
    struck: BTreeMap<Kind, Felt>,
    covered: BTreeMap<&'static str, u64>,
    spoken: BTreeMap<(ApiKey, i16), u64>,
    met: BTreeMap<&'static str, u64>,
    busiest_second: u64,
    /// Seeds with less work than each is to have.
    idle: Vec<String>,
    failures: Vec<(u64, String)>,
}

impl Sum {
    fn add(&mut self, report: Report) {
        self.runs += 1;
        self.lasted += report.lasted;
        self.records += report.records;
        self.least_work =
            if self.runs == 1 { report.records } else { self.least_work.min(report.records) };
        self.calm += report.calm;
        self.demanded += report.demanded;
        self.calmed += u64::from(report.calm > 0);
        self.strict += u64::from(report.calm > 0 && report.calm == report.demanded);
        let struck = report.struck.values().map(|felt| felt.faults).sum::<u64>();
        if report.records < WORK || struck < FAULTS as u64 {
            let (seed, records) = (report.seed, report.records);
            self.idle.push(format!("{seed}: {records} records, {:?}", report.struck));
        }
        self.due += report.due;
        self.fewest = if self.runs == 1 { struck } else { self.fewest.min(struck) };
        for (kind, times) in report.struck {
            *self.struck.entry(kind).or_default() += times;
        }
        for (branch, times) in report.covered {
            *self.covered.entry(branch).or_default() += times;
        }
        for (request, times) in report.spoken {
            *self.spoken.entry(request).or_default() += times;
        }
        for (moment, times) in report.met {
            *self.met.entry(moment).or_default() += times;
        }
        self.busiest_second = self.busiest_second.max(report.busiest_second);
        self.failures.extend(report.failure.map(|failure| (report.seed, failure)));
    }

    fn assert_well(&self) {
        // Again, with a log of what happened.
        let explained = |(seed, text): &(u64, String)| {
            let again = run(*seed, true, None);
            if again.failure.is_none() {
                return format!("seed {seed}: {text} (and not when it is run again)");
            }
            again.explained()
        };
        let failures: Vec<_> = self.failures.iter().map(explained).collect();
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        let idle = &self.idle;
        assert!(idle.is_empty(), "fewer than {WORK} records or {FAULTS} faults: {idle:#?}");
    }

    fn tell(&self, took: Duration) -> String {
        let minutes = took.as_secs_f64() / 60.0;
        let hours = self.lasted.as_secs_f64() / 3600.0;
        format!(
            "{} seeds in {took:.1?}, {:.0} a minute; {hours:.1} simulated hours, \
             {} records, {} or more a seed; \
             {} worlds of {} and {} of {} records strict when all is well; \
             {} faults of {}, {} or more a seed: {:?}; \
             verdicts: {:?}; early ends: {:?}; most turns a second: {}; {} failures",
            self.runs,
            self.runs as f64 / minutes,
            self.records,
            self.least_work,
            self.strict,
            self.calmed,
            self.demanded,
            self.calm,
            self.struck.values().map(|felt| felt.faults).sum::<u64>(),
            self.due,
            self.fewest,
            self.struck,
            self.covered,
            self.met,
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

/// Not through `println!`, of which nothing is seen where all is well.
fn say(line: impl std::fmt::Display) {
    // Whoever closed the terminal does not want to know.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Tests that use both cores take turns: rates are to mean something.
static ALONE: Mutex<()> = Mutex::new(());

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn seeds() {
    let _alone = ALONE.lock();
    if let Some(seed) = variable("SIM_SEED") {
        say(format_args!("{:?}", Plan::of(seed)));
        let report = run(seed, true, Defect::ALL.into_iter().find(|d| asked_for(d) == Some(true)));
        report.log.iter().for_each(say);
        assert!(report.failure.is_none(), "{}", report.explained());
        return;
    }
    let clock = Clock::system();
    let begun = clock.now();
    if let Some(many) = variable("SIM_SEEDS") {
        let from = variable("SIM_FROM").unwrap_or(0);
        let sum = run_all(from, many, Duration::MAX, 100, None);
        say(sum.tell(clock.now().since(begun)));
        return sum.assert_well();
    }
    let sum = run_all(0, FIXED, Duration::MAX, 20, None);
    say(sum.tell(clock.now().since(begun)));
    sum.assert_well();
    assert_eq!(sum.covered.len(), WAYS, "not every way to a verdict was taken: {:?}", sum.covered);
    assert_eq!(sum.struck.len(), Kind::ALL.len(), "not every fault has struck: {:?}", sum.struck);
    let (strict, calmed) = (sum.strict, sum.calmed);
    assert!(strict * 100 >= calmed * STRICT, "{strict} worlds of {calmed} are strict");
    assert_eq!(unspoken(&sum), [], "no broker was asked in these: {:?}", sum.spoken);
    let unmet: Vec<_> = ENDS.iter().filter(|moment| !sum.met.contains_key(*moment)).collect();
    assert!(unmet.is_empty(), "no producer ended so: {unmet:?} ({:?})", sum.met);
    // Others each time.
    let fresh = clock.wall_millis().unsigned_abs() * 1000;
    let sum = run_all(fresh, u64::MAX - fresh, FRESH, 20, None);
    say(format_args!("from seed {fresh} on: {}", sum.tell(FRESH)));
    sum.assert_well();
}

/// Versions that the crate can speak, and in which no request was carried out.
fn unspoken(sum: &Sum) -> Vec<(ApiKey, i16)> {
    let versions = |key: ApiKey| (key.supported().min..=key.supported().max).map(move |v| (key, v));
    let all = ApiKey::ALL.into_iter().flat_map(versions);
    all.filter(|request| !sum.spoken.contains_key(request)).collect()
}

/// Seeds that every `cargo test` runs.
const FIXED: u64 = 2000;
/// How many of a hundred have to deliver all that is sent when all is well.
const STRICT: u64 = 60;
/// How long fresh ones are run for.
const FRESH: Duration = Duration::from_secs(20);
/// Moments at which a producer is to end: what was not known by then, which calls were under way.
const ENDS: [&str; 9] = [
    "before metadata",
    "before a producer id",
    "memory is waited for",
    "drop",
    "close",
    "flush",
    "wait_ready",
    "send",
    "wait",
];
/// What may come of a request, and the ways in which `verdict` comes to its verdict.
const WAYS: usize = 18;

/// Whether it is this mistake that is asked for, if one is.
fn asked_for(defect: &Defect) -> Option<bool> {
    std::env::var("SIM_DEFECT").ok().map(|name| name == format!("{defect:?}"))
}

#[test]
fn every_planted_defect_is_found() {
    let _alone = ALONE.lock();
    let mut missed = Vec::new();
    for defect in Defect::ALL.into_iter().filter(|defect| asked_for(defect) != Some(false)) {
        let sum = run_all(0, FIXED, Duration::MAX, 1, Some(defect));
        match sum.failures.first() {
            Some((seed, text)) => {
                say(format_args!("{defect:?}: seed {seed}, {} runs: {text}", sum.runs));
            }
            None => missed.push(defect),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn two_runs_of_a_seed_agree() {
    for seed in 0..20 {
        // One of them with a log, as when a failure is replayed.
        let (first, second) = (run(seed, false, None), run(seed, true, None));
        assert_eq!(first.digest, second.digest, "seed {seed}");
        assert!(first.log.is_empty() && !second.log.is_empty());
    }
}

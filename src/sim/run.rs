//! One seed: its world is built, run, and judged.

use std::time::Duration;

use super::checks::{Evidence, check};
use super::cluster::{PORT, host};
use super::ledger::Ledger;
use super::net::{SimBell, SimNet};
use super::plan::Plan;
use super::users::User;
use super::world::World;
use crate::KafkaProducer;
use crate::client::ThreadResolver;
use crate::network::Wake;
use crate::producer::Surroundings;
use crate::sync::{Arc, Mutex};
use crate::threads::spawn_named;
use crate::time::MonoTime;

/// What became of a run.
pub(super) struct Report {
    pub(super) seed: u64,
    pub(super) digest: u64,
    /// Virtual time.
    pub(super) lasted: Duration,
    pub(super) records: usize,
    /// What was wrong, if anything was.
    pub(super) failure: Option<String>,
    pub(super) log: Vec<String>,
}

/// Runs a seed; `logs` for a line on everything that happens.
pub(super) fn run(seed: u64, logs: bool) -> Report {
    let plan = Arc::new(Plan::of(seed));
    let world = World::new(&plan, logs);
    let ledger = Ledger::default();
    let refused = Arc::new(Mutex::new(None));
    {
        let (world, plan, ledger) = (Arc::clone(&world), Arc::clone(&plan), ledger.clone());
        let refused = Arc::clone(&refused);
        Arc::clone(&world).run(move || {
            let begun = begin(&world, &plan, &ledger);
            *refused.lock() = begun.err();
        });
    }
    let state = world.lock();
    let entries = ledger.lock();
    let mut failure = state.failure.clone();
    if failure.is_none() {
        failure = refused.lock().take();
    }
    if failure.is_none() {
        let evidence = Evidence { plan: &plan, state: &state, entries: &entries };
        failure = check(&evidence).err().map(|finding| finding.0);
    }
    Report {
        seed,
        digest: state.trace.digest(),
        lasted: state.now.since(MonoTime::ZERO),
        records: entries.entries.len(),
        failure,
        log: state.trace.lines().iter().map(ToString::to_string).collect(),
    }
}

/// The first user's life: builds the producer, shares it with the others, and ends it.
fn begin(world: &Arc<World>, plan: &Arc<Plan>, ledger: &Ledger) -> Result<(), String> {
    let producer = build(world, plan).map_err(|error| error.to_string())?;
    let mut threads = Vec::new();
    for number in 1..plan.users as u64 {
        let (producer, plan, ledger) = (producer.clone(), Arc::clone(plan), ledger.clone());
        let body = move || User::new(number, producer, &plan, &ledger).work();
        threads.push(spawn_named(format!("user-{number}"), body));
    }
    User::new(0, producer.clone(), plan, ledger).work();
    drop(threads);
    producer.flush(Duration::from_secs(60)).map_err(|error| error.to_string())?;
    let report = producer.close(Duration::from_secs(30));
    if report.is_clean() { Ok(()) } else { Err(format!("{report:?}")) }
}

fn build(world: &Arc<World>, plan: &Plan) -> Result<KafkaProducer, crate::Error> {
    let servers: Vec<_> = (1..=plan.brokers).map(|id| format!("{}:{PORT}", host(id))).collect();
    let builder = KafkaProducer::builder()
        .bootstrap_servers(servers.join(","))
        .client_id("sim")
        .linger(Duration::from_millis(2));
    let waker: Arc<dyn Wake> = Arc::new(SimBell(Arc::clone(world)));
    let lookup = |_: &str, _: u16| Err(std::io::ErrorKind::NotFound.into());
    builder.build_in(Surroundings {
        clock: world.clock(),
        net: SimNet(Arc::clone(world)),
        resolver: ThreadResolver::with_lookup(Arc::clone(&waker), Box::new(lookup)),
        waker,
        seed: plan.seed,
    })
}

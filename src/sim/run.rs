//! One seed: its world is built, run, and judged.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use super::checks::{Evidence, check};
use super::cluster::{PORT, bootstrap_host, look_up};
use super::demands::Demands;
use super::effects::Felt;
use super::ends::{Close, end_early};
use super::faults::Kind;
use super::ledger::Ledger;
use super::net::{SimBell, SimNet};
use super::plan::{CallbackKind, MS, Plan, SECOND};
use super::trace::Line;
use super::users::{Crowd, User};
use super::world::{Seat, World, seat};
use crate::accumulator::RecordAccumulator;
use crate::client::ThreadResolver;
use crate::completion::CallbackExecutor;
use crate::network::Wake;
use crate::planted::Defect;
use crate::producer::Surroundings;
use crate::protocol::ApiKey;
use crate::sync::{Arc, Condvar, Mutex, MutexGuard};
use crate::threads::spawn_named;
use crate::time::MonoTime;
use crate::{CallbackTask, Callbacks, Executor, KafkaProducer};

/// What became of a run.
pub(super) struct Report {
    pub(super) seed: u64,
    pub(super) digest: u64,
    /// Virtual time.
    pub(super) lasted: Duration,
    /// Records that were accepted.
    pub(super) records: usize,
    /// Those sent when all was well, and of those which had to be delivered.
    pub(super) calm: usize,
    pub(super) demanded: usize,
    /// The plan's faults, and those that something felt.
    pub(super) due: usize,
    pub(super) struck: BTreeMap<Kind, Felt>,
    pub(super) covered: BTreeMap<&'static str, u64>,
    pub(super) spoken: BTreeMap<(ApiKey, i16), u64>,
    pub(super) met: BTreeMap<&'static str, u64>,
    pub(super) busiest_second: u64,
    /// What was wrong, if anything was.
    pub(super) failure: Option<String>,
    /// All that happened, if it was asked for.
    pub(super) log: Vec<Line>,
}

impl Report {
    /// The failure, and the last that happened to the partition or connection in question.
    pub(super) fn explained(&self) -> String {
        const MOST: usize = 14;
        let failure = self.failure.as_deref().unwrap_or_default();
        let record = failure
            .find("RecordId(")
            .and_then(|at| failure[at..].find(')').map(|end| &failure[at..=at + end]));
        let of_record = |name| self.log.iter().find(|line| line.text.contains(name));
        // Or what the text begins with: a connection or a partition.
        let named = failure.split(':').next();
        let named = named.filter(|name| self.log.iter().any(|line| line.subject == **name));
        let subject = match record.and_then(of_record) {
            Some(line) => Some(line.subject.as_str()),
            None => named,
        };
        let concerned = |line: &&Line| subject.is_none_or(|s| s == line.subject);
        let lines: Vec<_> = self.log.iter().filter(concerned).collect();
        let last = &lines[lines.len().saturating_sub(MOST)..];
        let last: Vec<_> = last.iter().map(|line| format!("\n    {line}")).collect();
        format!("seed {}: {failure}{}", self.seed, last.concat())
    }
}

/// What is left of the producer when it is gone.
pub(super) type Remains = (Arc<RecordAccumulator>, Arc<CallbackExecutor>);

/// Runs a seed; `logs` for a line on everything that happens, `defect` for a mistake to find.
pub(super) fn run(seed: u64, logs: bool, defect: Option<Defect>) -> Report {
    let plan = Arc::new(Plan::of(seed));
    let world = World::new(&plan, logs, defect);
    let ledger = Ledger::default();
    let remains = Arc::new(Mutex::new(Vec::new()));
    {
        let (plan, ledger) = (Arc::clone(&plan), ledger.clone());
        let (within, remains) = (Arc::clone(&world), Arc::clone(&remains));
        world.run(move || {
            for life in 0..plan.lives().len() {
                let crowd = Crowd::new(&plan, &ledger, life);
                match build(&within, &plan, life) {
                    Ok(producer) => {
                        remains.lock().push(producer.insides());
                        live(producer, &crowd);
                    }
                    Err(error) => ledger.find(format!("build: {error}")),
                }
            }
        });
    }
    let state = world.lock();
    let entries = ledger.lock();
    let mut failure = state.failure.clone();
    if failure.is_none() {
        let remains = std::mem::take(&mut *remains.lock());
        let evidence = Evidence { plan: &plan, state: &state, entries: &entries, remains };
        failure = check(&evidence).err();
    }
    let demands = Demands::new(&plan, &state, &entries.entries);
    let calm: Vec<_> = entries.entries.iter().filter(|entry| entry.calm).collect();
    Report {
        seed,
        digest: state.trace.digest(),
        lasted: state.now.since(MonoTime::ZERO),
        records: entries.work(),
        calm: calm.len(),
        demanded: calm.iter().filter(|entry| demands.of(entry)).count(),
        due: plan.faults.len(),
        struck: state.effects.by_kind(&plan),
        covered: state.covered.clone(),
        spoken: state.spoken.clone(),
        met: state.met.clone(),
        busiest_second: state.watch.busiest_second,
        failure,
        log: state.trace.lines().to_vec(),
    }
}

/// The first user's life: shares the producer with the others, and ends it.
fn live(producer: KafkaProducer, crowd: &Arc<Crowd>) {
    let plan = Arc::clone(&crowd.plan);
    for number in 0..plan.users as u64 {
        let user = User::new(number, producer.clone(), crowd);
        if spawn_named(format!("user-{number}"), move || user.work()).is_err() {
            crowd.ledger.find("no thread for a user".to_owned());
        }
    }
    if let Some(ending) = &crowd.ending {
        return end_early(producer, crowd, ending);
    }
    crowd.wait_for_all();
    if !crowd.flush(&producer, 60 * SECOND) {
        crowd.ledger.find("all is well, and a flush does not end".to_owned());
    }
    if !plan.ends_by_drop {
        crowd.close(&producer, Close::within(30 * SECOND));
    }
    crowd.drop_handle(producer);
}

fn build(world: &Arc<World>, plan: &Plan, life: usize) -> Result<KafkaProducer, crate::Error> {
    let server = |place| format!("{}:{PORT}", bootstrap_host(place, plan.has_names));
    let servers: Vec<_> = (1..=plan.brokers()).map(server).collect();
    let c = &plan.config;
    let millis = |time: Duration| time.as_millis().to_string();
    let [partition_share, broker_share] = plan.shares();
    let mut properties = vec![
        ("bootstrap.servers", servers.join(",")),
        ("client.id", "sim".to_owned()),
        ("acks", c.acks.to_string()),
        ("enable.idempotence", c.idempotent.to_string()),
        ("max.in.flight.requests.per.connection", c.max_in_flight.to_string()),
        ("batch.size", c.batch_size.to_string()),
        ("linger.ms", millis(c.linger)),
        ("buffer.memory", c.memory.to_string()),
        ("buffer.memory.partition.share", partition_share.to_owned()),
        ("buffer.memory.broker.share", broker_share.to_owned()),
        ("max.request.size", c.max_request.to_string()),
        ("request.timeout.ms", millis(c.request_timeout)),
        ("delivery.timeout.ms", millis(c.delivery_timeout)),
        ("retry.backoff.ms", millis(c.retry_backoff.0)),
        ("retry.backoff.max.ms", millis(c.retry_backoff.1)),
        ("reconnect.backoff.ms", millis(c.reconnect_backoff.0)),
        ("reconnect.backoff.max.ms", millis(c.reconnect_backoff.1)),
        ("socket.connection.setup.timeout.ms", millis(c.setup_timeout.0)),
        ("socket.connection.setup.timeout.max.ms", millis(c.setup_timeout.1)),
        ("metadata.max.age.ms", millis(c.metadata_max_age)),
        ("metadata.max.idle.ms", millis(c.metadata_max_idle)),
        ("connections.max.idle.ms", millis(c.max_idle)),
        ("max.block.ms", millis(c.max_block)),
        ("callback.max.pending", c.max_pending.to_string()),
        ("wait.ends.linger", c.wait_ends_linger.to_string()),
    ];
    let strategy = if c.rebootstrap.is_some() { "rebootstrap" } else { "none" };
    properties.push(("metadata.recovery.strategy", strategy.to_owned()));
    let trigger = c.rebootstrap.map(millis);
    properties.extend(trigger.map(|trigger| ("metadata.recovery.rebootstrap.trigger.ms", trigger)));
    properties.extend(c.retries.map(|retries| ("retries", retries.to_string())));
    if let Some(ending) = plan.lives()[life] {
        properties.push(("close.on.drop.timeout.ms", millis(ending.on_drop)));
    }
    let callbacks = match c.callbacks {
        CallbackKind::Threads(threads) => Callbacks::Threads(threads),
        CallbackKind::Inline => Callbacks::Inline,
        CallbackKind::Custom => Callbacks::Executor(Arc::new(Elsewhere::default())),
    };
    let builder = KafkaProducer::builder().properties(properties).callbacks(callbacks);
    let waker: Arc<dyn Wake> = Arc::new(SimBell(Arc::clone(world)));
    let lookup = |name: &str, _: u16| match seat() {
        Some(seat) => seat.look_up(name),
        None => Err(ErrorKind::NotFound.into()),
    };
    builder.build_in(Surroundings {
        clock: world.clock(),
        net: SimNet(Arc::clone(world)),
        resolver: ThreadResolver::with_lookup(Arc::clone(&waker), Box::new(lookup)),
        waker,
        seed: plan.seed + life as u64,
    })
}

/// Runs each task on a thread of its own, or on one that has just done with another: threads are
/// dear.
#[derive(Clone, Default)]
struct Elsewhere(Arc<Crew>);

#[derive(Default)]
struct Crew {
    state: Mutex<Shift>,
    come: Condvar,
}

#[derive(Default)]
struct Shift {
    tasks: VecDeque<CallbackTask>,
    /// Threads that wait for one.
    idle: usize,
}

impl Executor for Elsewhere {
    fn execute(&self, task: CallbackTask) {
        let mut shift = self.0.state.lock();
        shift.tasks.push_back(task);
        if shift.tasks.len() <= shift.idle {
            return self.0.come.notify_one();
        }
        drop(shift);
        let crew = Arc::clone(&self.0);
        let begun = spawn_named("elsewhere".to_owned(), move || crew.serve());
        debug_assert!(begun.is_ok(), "no thread for a callback");
    }
}

impl Crew {
    fn serve(&self) {
        let mut shift = self.state.lock();
        loop {
            while let Some(task) = shift.tasks.pop_front() {
                MutexGuard::unlocked(&mut shift, || task.run());
            }
            shift.idle += 1;
            self.come.wait_for(&mut shift, 50 * MS);
            shift.idle -= 1;
            if shift.tasks.is_empty() {
                return;
            }
        }
    }
}

impl Seat {
    /// Asks for a name, which takes a while.
    fn look_up(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        let (latency, until) = {
            let mut state = self.world.lock();
            (state.latency() * 2, state.cluster.no_names_until)
        };
        self.sleep(latency);
        let is_lost = self.now() < until;
        if is_lost {
            let mut state = self.world.lock();
            let by = state.effects.no_names;
            by.into_iter().for_each(|by| state.felt(by));
        }
        let found = look_up(name).filter(|_| !is_lost);
        found.map(|address| vec![address]).ok_or_else(|| ErrorKind::NotFound.into())
    }
}

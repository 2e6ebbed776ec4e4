//! The scheduler: real threads, of which one at a time runs; a virtual clock, which moves when none
//! can; and the events of network and cluster, in the order of their moments.
//!
//! There is no thread of the world's own. Whoever parks decides who is next, and if nobody can run
//! makes time pass until somebody can. All choices come from the seed, so that the same seed gives
//! the same run.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread as OsThread;
use std::time::Duration;

use super::cluster::Cluster;
use super::effects::Effects;
use super::faults::Kind;
use super::net::Network;
use super::plan::Plan;
use super::trace::Trace;
use super::watch::Watch;
use crate::claims;
use crate::planted::Defect;
use crate::protocol::ApiKey;
use crate::random::Random;
use crate::sync::{Arc, Mutex, MutexGuard};
use crate::time::{Clock, ManualClock, MonoTime};

thread_local! {
    static SEAT: RefCell<Option<Seat>> = const { RefCell::new(None) };
}

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    /// Time alone.
    Time,
    /// A condition variable, by its address.
    Condvar(usize),
    /// Edges of the network, or its bell.
    Net,
}

/// What the world does by itself, at its moment.
pub(super) enum Event {
    Net(super::net::NetEvent),
    Cluster(super::cluster::ClusterEvent),
    Fault(usize),
    Mend(super::strikes::Mend),
    Calm,
}

/// A thread's place in a world.
#[derive(Clone)]
pub(super) struct Seat {
    pub(super) world: Arc<World>,
    me: usize,
}

/// This thread's place; none on threads outside of any simulation.
pub(super) fn seat() -> Option<Seat> {
    SEAT.with_borrow(Clone::clone)
}

/// The simulated clock, on a simulated thread.
pub(crate) fn clock() -> Option<Clock> {
    seat().map(|seat| seat.world.clock())
}

/// Notes that a batch is decided; once, or again by mistake. Gives its number and the moment.
pub(crate) fn on_decided(is_first: bool) -> Option<(u64, MonoTime)> {
    let seat = seat()?;
    let mut state = seat.world.lock();
    if !is_first {
        state.fail(|| "a batch was completed twice".to_owned());
    }
    state.decided += 1;
    state.net.acted = true;
    Some((state.decided, state.now))
}

/// Makes a new thread's body part of the world that its creator lives in, if any.
pub(crate) fn adopt<T>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> impl FnOnce() -> T + Send + 'static {
    let seat = seat().map(|creator| creator.world.register(name));
    move || match seat {
        None => body(),
        Some(seat) => seat.live(body),
    }
}

/// Whether a mistake is to be made in the world that this thread is in.
pub(crate) fn is_planted(defect: Defect) -> bool {
    SEAT.with_borrow(|seat| seat.as_ref().is_some_and(|seat| seat.world.defect == Some(defect)))
}

/// Notes the way that a verdict on a response was come to.
pub(crate) fn cover(branch: &'static str) {
    if let Some(seat) = seat() {
        *seat.world.lock().covered.entry(branch).or_default() += 1;
    }
}

/// Something came that is no response, or none to what was asked.
pub(crate) fn on_nonsense(what: &str) {
    if let Some(seat) = seat() {
        let mut state = seat.world.lock();
        if !state.plan.strikes(Kind::Mangle) {
            state.fail(|| format!("brokers sent no nonsense, and some was heard: {what}"));
        }
    }
}

/// A simulated world.
pub(super) struct World {
    /// The mistake that is made in it.
    defect: Option<Defect>,
    state: Mutex<State>,
    clock: Arc<ManualClock>,
    over: AtomicBool,
    /// The thread outside that waits for the end.
    outside: OsThread,
}

/// All that one thread at a time looks at.
pub(super) struct State {
    pub(super) now: MonoTime,
    pub(super) random: Random,
    pub(super) trace: Trace,
    pub(super) net: Network,
    pub(super) cluster: Cluster,
    pub(super) failure: Option<String>,
    pub(super) plan: Arc<Plan>,
    /// There are no more faults.
    pub(super) calm: bool,
    /// What the faults did.
    pub(super) effects: Effects,
    /// How often each way to a verdict was taken.
    pub(super) covered: BTreeMap<&'static str, u64>,
    /// How many requests of each API and version were carried out.
    pub(super) spoken: BTreeMap<(ApiKey, i16), u64>,
    /// How often a producer ended at a moment of each kind.
    pub(super) met: BTreeMap<&'static str, u64>,
    pub(super) watch: Watch,
    /// Batches that were decided.
    decided: u64,
    threads: Vec<Thread>,
    events: BTreeMap<(MonoTime, u64), Event>,
    made: u64,
    parks: u64,
    /// No run lasts longer.
    limit: MonoTime,
}

struct Thread {
    name: String,
    baton: Arc<Baton>,
    state: ThreadState,
    timed_out: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ThreadState {
    Runnable,
    Parked { on: On, until: MonoTime, since: u64 },
    Ended,
}

/// The right to run, as it is handed to one thread.
#[derive(Default)]
struct Baton {
    given: AtomicBool,
    thread: OnceLock<OsThread>,
}

impl Baton {
    fn give(&self) {
        self.given.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn await_turn(&self) {
        self.thread.get_or_init(std::thread::current);
        while !self.given.swap(false, Ordering::SeqCst) {
            std::thread::park();
        }
    }
}

enum Next {
    Run(usize),
    Over,
}

impl World {
    pub(super) fn new(plan: &Arc<Plan>, logs: bool, defect: Option<Defect>) -> Arc<Self> {
        let mut state = State {
            now: MonoTime::ZERO,
            random: Random::new(plan.seed ^ 0x51D),
            trace: Trace::new(logs),
            net: Network::new(plan),
            cluster: Cluster::new(plan),
            failure: None,
            plan: Arc::clone(plan),
            calm: false,
            effects: Effects::default(),
            covered: BTreeMap::new(),
            spoken: BTreeMap::new(),
            met: BTreeMap::new(),
            watch: Watch::new(plan),
            decided: 0,
            threads: Vec::new(),
            events: BTreeMap::new(),
            made: 0,
            parks: 0,
            limit: MonoTime::ZERO + plan.limit(),
        };
        for (index, (at, _)) in plan.faults.iter().enumerate() {
            state.schedule(*at, Event::Fault(index));
        }
        state.schedule(plan.calm_at, Event::Calm);
        Arc::new(Self {
            defect,
            state: Mutex::new(state),
            clock: ManualClock::new(),
            over: AtomicBool::new(false),
            outside: std::thread::current(),
        })
    }

    pub(super) fn clock(&self) -> Clock {
        Clock::Manual(Arc::clone(&self.clock))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Time passes, whoever could run.
    pub(super) fn pass(&self, state: &mut State, time: Duration) {
        state.pass_until(state.now + time, &self.clock);
    }

    fn register(self: &Arc<Self>, name: &str) -> Seat {
        let mut state = self.lock();
        let me = state.threads.len();
        state.threads.push(Thread {
            name: name.to_owned(),
            baton: Arc::default(),
            state: ThreadState::Runnable,
            timed_out: false,
        });
        Seat { world: Arc::clone(self), me }
    }

    /// Runs the world: `first` on a thread of its own, and whatever it starts. Returns when all
    /// threads have ended, or at the first failure, which leaves them parked for ever.
    pub(super) fn run(self: &Arc<Self>, first: impl FnOnce() + Send + 'static) {
        let seat = self.register("first");
        let baton = Arc::clone(&self.lock().threads[seat.me].baton);
        let thread = std::thread::Builder::new().spawn(move || seat.live(first));
        thread.expect("a thread");
        baton.give();
        while !self.over.load(Ordering::SeqCst) {
            std::thread::park();
        }
    }

    fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.outside.unpark();
    }
}

impl Seat {
    pub(super) fn now(&self) -> MonoTime {
        self.world.clock().now()
    }

    /// A thread's life, from its first turn on.
    fn live<T>(self, body: impl FnOnce() -> T) -> T {
        let baton = Arc::clone(&self.world.lock().threads[self.me].baton);
        baton.await_turn();
        if self.world.defect.is_some() {
            // A mistake is to be found by what it does.
            claims::give_up();
        }
        SEAT.set(Some(self.clone()));
        let result = catch_unwind(AssertUnwindSafe(body));
        SEAT.set(None);
        match result {
            Ok(value) => {
                let mut state = self.world.lock();
                state.threads[self.me].state = ThreadState::Ended;
                match state.next(&self.world.clock) {
                    Next::Over => self.world.end(),
                    Next::Run(next) => state.threads[next].baton.give(),
                }
                value
            }
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
                let text = text.unwrap_or_default();
                let mut state = self.world.lock();
                let name = state.threads[self.me].name.clone();
                state.fail(|| format!("thread {name} panicked: {text}"));
                self.world.end();
                drop(state);
                loop {
                    std::thread::park();
                }
            }
        }
    }

    /// Waits until `on` is notified or until a moment; true if that came first.
    pub(super) fn park(&self, on: On, until: MonoTime) -> bool {
        let mut state = self.world.lock();
        state.parks += 1;
        let since = state.parks;
        let thread = &mut state.threads[self.me];
        thread.timed_out = false;
        thread.state = ThreadState::Parked { on, until, since };
        self.switch(state);
        self.world.lock().threads[self.me].timed_out
    }

    pub(super) fn sleep(&self, time: Duration) {
        self.park(On::Time, self.now() + time);
    }

    /// The other threads that have not ended.
    pub(super) fn others(&self) -> Vec<String> {
        let state = self.world.lock();
        let threads = state.threads.iter().enumerate();
        threads
            .filter(|(id, thread)| *id != self.me && thread.state != ThreadState::Ended)
            .map(|(_, thread)| thread.name.clone())
            .collect()
    }

    /// Lets others run, if chance has it.
    pub(super) fn yield_now(&self) {
        let state = self.world.lock();
        self.switch(state);
    }

    /// Goes on once it is this thread's turn.
    fn switch(&self, mut state: MutexGuard<'_, State>) {
        match state.next(&self.world.clock) {
            Next::Run(next) if next == self.me => {}
            Next::Run(next) => {
                let own = Arc::clone(&state.threads[self.me].baton);
                let next = Arc::clone(&state.threads[next].baton);
                drop(state);
                next.give();
                own.await_turn();
            }
            Next::Over => {
                drop(state);
                self.world.end();
                loop {
                    std::thread::park();
                }
            }
        }
    }

    /// Makes up to `most` threads that wait for `on` runnable, in the order in which they came.
    pub(super) fn notify(&self, on: On, most: usize) {
        self.world.lock().notify(on, most);
    }
}

impl State {
    pub(super) fn fail(&mut self, text: impl FnOnce() -> String) {
        if self.failure.is_none() {
            self.failure = Some(text());
        }
    }

    /// Has something happen, `after` from now.
    pub(super) fn schedule(&mut self, after: Duration, event: Event) {
        self.schedule_at(self.now + after, event);
    }

    pub(super) fn schedule_at(&mut self, at: MonoTime, event: Event) {
        self.made += 1;
        self.events.insert((at, self.made), event);
    }

    pub(super) fn notify(&mut self, on: On, most: usize) {
        for _ in 0..most {
            let waiting = self.threads.iter_mut().filter_map(|thread| match thread.state {
                ThreadState::Parked { on: its, since, .. } if its == on => Some((since, thread)),
                _ => None,
            });
            let Some((_, thread)) = waiting.min_by_key(|(since, _)| *since) else { return };
            thread.state = ThreadState::Runnable;
        }
    }

    /// Who runs next, time passing until somebody can.
    fn next(&mut self, clock: &ManualClock) -> Next {
        loop {
            if self.failure.is_some() {
                return Next::Over;
            }
            let is_runnable = |thread: &Thread| thread.state == ThreadState::Runnable;
            let runnable = self.threads.iter().filter(|thread| is_runnable(thread)).count();
            if runnable > 0 {
                let chosen = self.random.below(runnable);
                let mut ids = (0..self.threads.len()).filter(|id| is_runnable(&self.threads[*id]));
                return Next::Run(ids.nth(chosen).unwrap_or_default());
            }
            if self.threads.iter().all(|thread| thread.state == ThreadState::Ended) {
                return Next::Over;
            }
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let next = event.unwrap_or(MonoTime::MAX).min(self.first_deadline());
            if next == MonoTime::MAX {
                self.fail_stuck("nothing is left to happen");
            } else if next > self.limit {
                self.fail_stuck("it does not come to an end");
            } else {
                self.pass_until(next, clock);
            }
        }
    }

    fn first_deadline(&self) -> MonoTime {
        let deadlines = self.threads.iter().map(|thread| match thread.state {
            ThreadState::Parked { until, .. } => until,
            _ => MonoTime::MAX,
        });
        deadlines.min().unwrap_or(MonoTime::MAX)
    }

    fn pass_until(&mut self, moment: MonoTime, clock: &ManualClock) {
        clock.advance(moment.since(self.now));
        self.now = self.now.max(moment);
        while let Some(entry) = self.events.first_entry().filter(|e| e.key().0 <= self.now) {
            match entry.remove() {
                Event::Net(event) => self.on_net_event(event),
                Event::Cluster(event) => self.on_cluster_event(event),
                Event::Fault(index) => {
                    let fault = self.plan.faults[index].1.clone();
                    self.strike(&fault);
                }
                Event::Mend(_) if self.calm => {}
                Event::Mend(mend) => self.mend(&mend),
                Event::Calm => {
                    let plan = Arc::clone(&self.plan);
                    self.calm_down(&plan);
                }
            }
        }
        for thread in &mut self.threads {
            if matches!(thread.state, ThreadState::Parked { until, .. } if until <= self.now) {
                thread.state = ThreadState::Runnable;
                thread.timed_out = true;
            }
        }
    }

    fn fail_stuck(&mut self, text: &str) {
        let waiting = self.threads.iter().filter_map(|thread| match thread.state {
            ThreadState::Parked { on, until, .. } => {
                let kind = match on {
                    On::Time => "time",
                    On::Condvar(_) => "a notification",
                    On::Net => "the network",
                };
                Some(format!("{} waits for {kind} until {until:?}", thread.name))
            }
            _ => None,
        });
        let waiting: Vec<_> = waiting.collect();
        self.fail(|| format!("{text}: {}", waiting.join(", ")));
    }
}

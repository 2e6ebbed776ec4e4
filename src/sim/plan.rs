//! What a seed chooses: the cluster, the network, the producer's configuration, the users' work
//! and the faults.

use std::time::Duration;

use super::ends::Ending;
use super::faults::{Fault, Kind};
use super::net::Weather;
use super::offers::{Offer, offers};
use crate::random::Random;
use crate::testing::TopicConfig;

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
/// `metadata.recovery.rebootstrap.trigger.ms`, where it is short.
const REBOOTSTRAP: Duration = Duration::from_secs(2);
/// `metadata.max.age.ms`, where it is over before anything is sent when all is well.
const SOON: Duration = Duration::from_secs(20);
/// What a record takes beside its value, and its part of its batch's head.
const OVERHEAD: usize = 70;
/// Records that are accepted in a seed, at least,
pub(super) const WORK: usize = 500;
/// and faults that something feels.
pub(super) const FAULTS: usize = 3;

#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    /// Brokers have the ids 1 to n.
    pub(super) offers: Vec<Offer>,
    pub(super) topics: Vec<(String, TopicConfig)>,
    pub(super) weather: Weather,
    /// The least and the most that a broker works on a request.
    pub(super) work: (Duration, Duration),
    /// What age producers are forgotten from, and how often brokers look, if that is soon.
    pub(super) expiry: Option<(Duration, Duration)>,
    /// The epoch of a new producer id: not far from the last one, perhaps.
    pub(super) first_epoch: i16,
    /// `producer_byte_rate`.
    pub(super) quota: Option<u32>,
    pub(super) config: Config,
    pub(super) users: usize,
    /// Sends of all users together: while there are faults, and when all is well.
    pub(super) records: (usize, usize),
    /// What users think between two calls, at most.
    pub(super) think: Duration,
    /// The largest value.
    pub(super) value: usize,
    /// A callback is slow for as long, at most.
    pub(super) slow_callback: Duration,
    /// Brokers have names, which have to be looked up.
    pub(super) has_names: bool,
    /// Each fault at its moment.
    pub(super) faults: Vec<(Duration, Fault)>,
    /// When all is well again.
    pub(super) calm_at: Duration,
    /// A producer before the one that does the world's work, which ends as soon as that.
    pub(super) first: Option<Ending>,
    /// How the producer ends under its users' hands, once it has had its `WORK`.
    pub(super) early_close: Option<Ending>,
    /// The last handle is dropped in place of a close.
    pub(super) ends_by_drop: bool,
}

/// Who runs callbacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallbackKind {
    Threads(usize),
    Inline,
    /// A pool of the program's own.
    Custom,
}

impl CallbackKind {
    const ALL: [Self; 8] = [
        Self::Threads(1),
        Self::Threads(1),
        Self::Threads(2),
        Self::Threads(2),
        Self::Threads(3),
        Self::Threads(3),
        Self::Inline,
        Self::Custom,
    ];
}

/// The producer's settings.
#[derive(Clone, Debug)]
pub(super) struct Config {
    /// -1 for all.
    pub(super) acks: i16,
    pub(super) idempotent: bool,
    pub(super) max_in_flight: usize,
    pub(super) retries: Option<usize>,
    pub(super) batch_size: usize,
    pub(super) linger: Duration,
    pub(super) memory: usize,
    pub(super) max_request: usize,
    pub(super) request_timeout: Duration,
    pub(super) delivery_timeout: Duration,
    pub(super) retry_backoff: (Duration, Duration),
    pub(super) reconnect_backoff: (Duration, Duration),
    pub(super) setup_timeout: (Duration, Duration),
    pub(super) metadata_max_age: Duration,
    /// Of topics.
    pub(super) metadata_max_idle: Duration,
    pub(super) max_idle: Duration,
    pub(super) max_block: Duration,
    pub(super) callbacks: CallbackKind,
    pub(super) max_pending: usize,
    pub(super) wait_ends_linger: bool,
    /// `metadata.recovery.strategy` is `rebootstrap`, and this is its trigger.
    pub(super) rebootstrap: Option<Duration>,
}

impl Plan {
    pub(super) fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let random = &mut random;
        let brokers = pick(random, &[1, 2, 3, 3, 3, 4, 5, 6, 7]);
        let config = Config::of(random);
        // Faults come one after the other only where a request that is lost is given up in between.
        let calm_at = (pick(random, &[2, 4, 8, 16]) * SECOND).max(3 * config.request_timeout);
        let early = random.below(6) == 0;
        let close_at = between(random, calm_at / 8, calm_at);
        let ends = &mut Random::new(seed ^ 0xE17D);
        // Where it is closed early there are some left for a producer that is closed.
        let records = if early { (WORK + 100, 0) } else { (WORK, 40) };
        let users = pick(random, &[2, 3, 4, 6]);
        let think = calm_at.mul_f64(1.6) * users as u32 / records.0 as u32;
        let mut plan = Self {
            seed,
            offers: offers(random, brokers),
            topics: topics(random, config.batch_size),
            weather: weather(random, &config),
            work: (MS / 20, pick(random, &[MS / 10, MS, 20 * MS]).min(config.request_timeout / 20)),
            expiry: None,
            first_epoch: 0,
            quota: (random.below(8) == 0).then(|| pick(random, &[4_000, 20_000])),
            users,
            records,
            think,
            value: pick(random, &[8, 60, 300, 1500]).min(config.memory / 4),
            slow_callback: match config.callbacks {
                // On the sender's thread it would hold the sender up.
                CallbackKind::Inline => Duration::ZERO,
                _ => pick(random, &[Duration::ZERO, MS, 30 * MS]),
            },
            has_names: random.below(4) == 0,
            faults: Vec::new(),
            calm_at,
            first: None,
            early_close: early.then(|| Ending::of(ends, close_at)),
            ends_by_drop: random.below(5) == 0,
            config,
        };
        if plan.has_names {
            // Each look-up is a thread's work: thousands a second would take most of a run's time.
            let (first, last) = &mut plan.config.reconnect_backoff;
            (*first, *last) = ((*first).max(10 * MS), (*last).max(10 * MS));
        }
        // Before 2.0 brokers held responses back for longer than requests have time, and what was
        // sent again used more of the quota: no end of that is in sight (KIP-219).
        if !plan.offers.iter().all(Offer::tells_pauses) {
            plan.quota = None;
        }
        if ends.below(3) == 0 {
            plan.begin_with(Ending::soon(ends, &plan));
        }
        plan.faults = faults(random, &plan);
        if random.below(5) == 0 && plan.quota.is_none() {
            // Later than anything sent within its time can arrive: no duplicate is taken for new.
            // A pause for a quota would make it later still.
            let age = plan.config.delivery_timeout + 10 * SECOND;
            plan.expiry = Some((age, pick(random, &[MS * 100, SECOND])));
        }
        if random.below(8) == 0 {
            plan.first_epoch = i16::MAX - 4;
        }
        if plan.strikes(Kind::Replace) {
            // Else nobody might ever hear of the new brokers: as long as some old one is being
            // connected to, the bootstrap servers are not asked before the trigger.
            plan.config.rebootstrap = Some(REBOOTSTRAP);
            if plan.config.max_block >= 3 * SECOND {
                plan.config.max_block += plan.search();
                plan.config.delivery_timeout += plan.search();
            }
        }
        plan
    }

    /// Has another producer come first. All else is later by as much.
    fn begin_with(&mut self, ending: Ending) {
        let time = ending.time(&self.config);
        self.think = self.think.mul_f64(1.0 + time.as_secs_f64() / self.calm_at.as_secs_f64());
        self.calm_at += time;
        self.early_close.iter_mut().for_each(|later| later.at += time);
        self.first = Some(ending);
    }

    /// The producers of this world, one after the other: how each ends, if that is early.
    pub(super) fn lives(&self) -> Vec<Option<&Ending>> {
        let first = self.first.iter().map(Some);
        first.chain([self.early_close.as_ref()]).collect()
    }

    /// Whether the producer of this number ends before all of its records are decided.
    pub(super) fn ends_early(&self, life: usize) -> bool {
        self.lives().get(life).is_some_and(Option::is_some)
    }

    /// Nothing takes longer than this once all is well, for a record that is sent then.
    pub(super) fn patience(&self) -> Duration {
        self.config.linger + 5 * SECOND + 20 * self.work.1 + self.search()
    }

    /// What it may take to find brokers that have replaced all others.
    fn search(&self) -> Duration {
        if self.strikes(Kind::Replace) { REBOOTSTRAP + SECOND } else { Duration::ZERO }
    }

    pub(super) fn calm_sends_at(&self) -> Duration {
        let c = &self.config;
        let settled = c.delivery_timeout + c.request_timeout + c.reconnect_backoff.1 + 2 * SECOND;
        // By then producers are forgotten, if they ever are.
        let expired = self.expiry.map_or(Duration::ZERO, |(age, _)| age);
        let learnt = if self.forgets() {
            c.metadata_max_age.min(SOON) + self.search() + SECOND
        } else {
            Duration::ZERO
        };
        self.calm_at + settled + expired + learnt
    }

    /// Whether a producer of a partition that forgot it, or lost records, knows who leads that one
    /// before it sends there when all is well.
    pub(super) fn learns_leaders(&self) -> bool {
        self.config.metadata_max_age <= SOON
    }

    /// No run lasts longer.
    pub(super) fn limit(&self) -> Duration {
        self.calm_sends_at() + 400 * SECOND
    }

    pub(super) fn brokers(&self) -> i32 {
        self.offers.len() as i32
    }

    /// A partition's and a broker's share of the buffer: from one batch at a time to all of it.
    pub(super) fn shares(&self) -> [&'static str; 2] {
        let share = |number: u64| ["0.0", "0.25", "0.5", "1.0"][(number % 4) as usize];
        [share(self.seed), share(self.seed / 4)]
    }

    pub(super) fn partitions(&self, topic: usize) -> i32 {
        self.topics[topic].1.partitions
    }

    /// Whether a partition may lose what it knew of a producer.
    pub(super) fn forgets(&self) -> bool {
        let kinds = [Kind::Unclean, Kind::ForgetProducers, Kind::Recreate];
        self.expiry.is_some() || kinds.into_iter().any(|kind| self.strikes(kind))
    }

    /// Whether settings leave time enough for every record to be delivered once all is well.
    pub(super) fn has_time(&self) -> bool {
        let c = &self.config;
        let time = c.delivery_timeout.saturating_sub(c.linger + self.search());
        // Where batches go one at a time, users wait for each other's.
        let turns = if self.shares().contains(&"0.0") { self.users as u32 } else { 1 };
        let to_wait = turns * 500 * MS + self.search();
        c.retries.is_none() && time > 1200 * MS && c.max_block >= to_wait && self.quota.is_none()
    }

    /// How many records of its partition a record may find before it, so that its time is enough
    /// even if they go one batch at a time and each takes as long as the network may. A batch is
    /// half full at least, as a rule.
    pub(super) fn most_before(&self) -> usize {
        let c = &self.config;
        let round = 2 * self.weather.latency.1 + self.work.1;
        let rounds = c.delivery_timeout.as_nanos() / 2 / round.as_nanos().max(1);
        let in_a_batch = (c.batch_size / (2 * (self.value + OVERHEAD))).max(1);
        rounds as usize * in_a_batch
    }

    pub(super) fn strikes(&self, kind: Kind) -> bool {
        self.faults.iter().any(|(_, fault)| fault.kind == kind)
    }
}

impl Config {
    fn of(random: &mut Random) -> Self {
        let acks = pick(random, &[-1, -1, -1, -1, -1, -1, 1, 0]);
        let idempotent = acks == -1 && random.below(6) > 0;
        let in_flight: &[usize] = if idempotent { &[1, 2, 5, 5, 5] } else { &[1, 1, 5, 10] };
        let batch_size = pick(random, &[1, 200, 500, 2_000, 16_384]);
        let linger = pick(random, &[0, 0, 1, 5, 50]) * MS;
        let request_timeout = pick(random, &[100, 300, 1000, 3000]) * MS;
        // Mostly there is time for all, if all is well; where there is not other things happen.
        let is_tight = random.below(6) == 0;
        let delivery: &[u32] =
            if is_tight { &[0, 200, 1000, 5000, 30_000] } else { &[1200, 5000, 5000, 30_000] };
        let delivery = pick(random, delivery) * MS;
        let blocks: &[u32] = if is_tight { &[0, 50, 500, 3000] } else { &[3000, 6000] };
        let retries = (is_tight && random.below(2) == 0).then(|| random.below(4));
        let backoff = pick(random, &[1, 10, 100]) * MS;
        let reconnect = pick(random, &[1, 10, 50]) * MS;
        let setup = pick(random, &[200, 1000]) * MS;
        Self {
            acks,
            idempotent,
            max_in_flight: pick(random, in_flight),
            retries: retries.map(|retries| retries + usize::from(idempotent)),
            batch_size,
            linger,
            memory: pick(random, &[4, 16, 64, 4096]) * batch_size.max(1024),
            max_request: pick(random, &[4_096, 20_000, 1_048_576]),
            request_timeout,
            delivery_timeout: linger + request_timeout + delivery,
            retry_backoff: (backoff, backoff * pick(random, &[1, 4, 10])),
            reconnect_backoff: (reconnect, reconnect * pick(random, &[1, 4, 20])),
            setup_timeout: (setup, setup * pick(random, &[1, 3])),
            metadata_max_age: pick(random, &[1, 20, 300]) * SECOND,
            metadata_max_idle: pick(random, &[5, 300]) * SECOND,
            max_idle: pick(random, &[1, 30, 540]) * SECOND,
            max_block: pick(random, blocks) * MS,
            callbacks: pick(random, &CallbackKind::ALL),
            max_pending: pick(random, &[3, 50, 100_000]),
            wait_ends_linger: random.below(2) == 0,
            rebootstrap: (random.below(4) > 0).then(|| pick(random, &[REBOOTSTRAP, 300 * SECOND])),
        }
    }
}

pub(super) fn pick<T: Copy>(random: &mut Random, choices: &[T]) -> T {
    choices[random.below(choices.len())]
}

pub(super) fn between(random: &mut Random, least: Duration, most: Duration) -> Duration {
    let spread = most.saturating_sub(least).as_nanos() as usize;
    least + Duration::from_nanos(random.below(spread + 1) as u64)
}

fn topics(random: &mut Random, batch_size: usize) -> Vec<(String, TopicConfig)> {
    let topic = |name: &str, random: &mut Random| {
        let mut config = TopicConfig::new(pick(random, &[1, 2, 3, 6]))
            .replication_factor(pick(random, &[1, 2, 3, 3]))
            .min_insync_replicas(pick(random, &[1, 1, 2]));
        if random.below(6) == 0 {
            config = config.max_message_bytes((batch_size / 3).max(2000));
        }
        if random.below(6) == 0 {
            config = config.log_append_time();
        }
        (name.to_owned(), config)
    };
    ["a", "b", "c"].iter().take(1 + random.below(3)).map(|name| topic(name, random)).collect()
}

fn weather(random: &mut Random, config: &Config) -> Weather {
    let least = pick(random, &[5, 50, 500]) * MS / 100;
    // All goes well within the time-outs unless a fault strikes.
    let most = (least * pick(random, &[1, 3, 20]))
        .min(config.request_timeout.min(config.setup_timeout.0) / 20);
    let rooms: &[usize] =
        if most > MS / 5 { &[32_768, 262_144] } else { &[100, 1_000, 16_384, 262_144] };
    Weather {
        latency: (least.min(most), most),
        room: pick(random, rooms),
        short: pick(random, &[0, 2, 8, 30]),
        spurious: pick(random, &[0, 20, 200]),
        memory: pick(random, &[3600, 3600, 12]) * SECOND,
        preempt: pick(random, &[0, 3, 10]),
    }
}

/// What finds somebody to feel it in nearly every world, and soon.
const SURE: [Kind; 4] = [Kind::Reset, Kind::Close, Kind::Spike, Kind::Stall];

/// A few kinds of fault, each perhaps often. Some may find nothing to strike: so there are more
/// than a seed is to have, and more than that of sure ones.
fn faults(random: &mut Random, plan: &Plan) -> Vec<(Duration, Fault)> {
    let all: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| kind.can_strike(plan)).collect();
    let kinds: Vec<Kind> = (0..3 + random.below(4)).map(|_| pick(random, &all)).collect();
    let most = pick(random, &[3, 10, 25]);
    let count = 3 * FAULTS + random.below(most);
    let until = plan.early_close.as_ref().map_or(plan.calm_at.mul_f64(0.9), |ending| ending.at);
    let mut faults: Vec<_> = (0..count)
        .map(|number| {
            let is_sure = number < FAULTS + 2;
            let kind = if is_sure { pick(random, &SURE) } else { pick(random, &kinds) };
            // Most of them strike the producer that does the world's work.
            let first = plan.first.as_ref().filter(|_| random.below(3) > 0);
            let from = first.map_or(Duration::ZERO, |ending| ending.time(&plan.config));
            // It may be long before a producer meets anything again whose brokers are all replaced.
            let from = if kind == Kind::Replace { until / 2 } else { from };
            let last = if is_sure { until / 2 } else { until };
            let at = between(random, from.min(last), last);
            (at, Fault::of(kind, random, plan))
        })
        .collect();
    faults.sort_by_key(|(at, _)| *at);
    (0..).zip(&mut faults).for_each(|(number, (_, fault))| fault.number = number);
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plans() -> impl Iterator<Item = Plan> {
        (0..2000).map(Plan::of)
    }

    #[test]
    fn no_quota_makes_brokers_hold_responses_back() {
        let limited: Vec<Plan> = plans().filter(|plan| plan.quota.is_some()).collect();
        let holds_back = |plan: &Plan| !plan.offers.iter().all(Offer::tells_pauses);
        assert!(limited.len() > 20 && !limited.iter().any(holds_back));
    }

    /// What a broker reads after a pause is from long ago: it must still know the producer.
    #[test]
    fn no_producer_expires_while_its_requests_lie_at_the_broker() {
        let expires: Vec<Plan> = plans().filter(|plan| plan.expiry.is_some()).collect();
        assert!(expires.len() > 20 && expires.iter().all(|plan| plan.quota.is_none()));
    }

    /// An answer about old brokers starts the search for new ones only after its trigger; and each
    /// attempt at a name is a thread's work.
    #[test]
    fn brokers_that_are_replaced_can_be_found() {
        let replaced: Vec<Plan> = plans().filter(|plan| plan.strikes(Kind::Replace)).collect();
        let is_short = |plan: &Plan| plan.config.rebootstrap == Some(REBOOTSTRAP);
        assert!(replaced.len() > 20 && replaced.iter().all(is_short));
        let named: Vec<Plan> = plans().filter(|plan| plan.has_names).collect();
        let is_calm = |plan: &Plan| plan.config.reconnect_backoff.0 >= 10 * MS;
        assert!(named.len() > 20 && named.iter().all(is_calm));
    }
}

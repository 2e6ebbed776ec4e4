//! What goes wrong: kinds of fault, what a seed makes of them, and how they strike.

use std::io::ErrorKind;
use std::time::Duration;

use super::cluster::ServerEnd;
use super::plan::{MS, Plan, SECOND, between, pick};
use super::world::{Event, State};
use crate::protocol::ErrorCode;
use crate::random::Random;
use crate::testing::faults::FaultBuilder;
use crate::testing::{Fault as RequestFault, Release};

/// The kinds of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A connection is reset.
    Reset,
    /// The broker closes a connection.
    Close,
    /// A write is cut short by a reset, so that a part of a request arrives, or none.
    CutWrite,
    /// Nothing gets through a connection any more.
    BlackHole,
    /// The broker forgets a connection; the client is not told.
    HalfOpen,
    /// A broker refuses connections.
    Refuse,
    /// Attempts to connect to a broker never end.
    HangConnect,
    /// A broker stops, and comes back later.
    BrokerDown,
    /// A broker's host vanishes from the network, and comes back later.
    Isolate,
    /// A broker stops, and comes back as one of a later release.
    Upgrade,
    /// All brokers go for good; others take their place, to which only the bootstrap servers'
    /// addresses lead.
    Replace,
    /// Another broker leads a partition.
    MoveLeader,
    /// Another broker leads a partition, without what was not replicated.
    FailOver,
    /// Another broker leads a partition; acknowledged records are lost.
    Unclean,
    /// Partitions forget the producers that they know.
    ForgetProducers,
    /// A partition remembers the last batch of each producer alone.
    ReloadProducers,
    /// A broker tells of the cluster as it was.
    StaleView,
    /// Produce requests are answered with an error that may pass; nothing is appended.
    ProduceError,
    /// Produce requests are answered with an error though the batch was appended.
    ErrorAfterAppend,
    /// Produce requests are answered with an error that is final.
    FatalError,
    /// Other requests are answered with errors.
    UpkeepError,
    /// Requests are held back.
    Delay,
    /// Responses are held back.
    DelayResponse,
    /// The connection ends before a request is carried out.
    CutBefore,
    /// The connection ends after a request was carried out.
    CutAfter,
    /// From a request on a connection is silent.
    Silence,
    /// Responses ask for a pause.
    Throttle,
    /// Responses are nonsense, or end early.
    Mangle,
    /// A topic takes only small batches.
    ShrinkMessages,
    /// A topic is deleted and made anew.
    Recreate,
    /// A topic gets more partitions.
    AddPartitions,
    /// The network is slow.
    Spike,
    /// The sender's thread gets no processor.
    Stall,
    /// Names are not found.
    NoNames,
}

impl Kind {
    pub(super) const ALL: [Self; 34] = [
        Self::Reset,
        Self::Close,
        Self::CutWrite,
        Self::BlackHole,
        Self::HalfOpen,
        Self::Refuse,
        Self::HangConnect,
        Self::BrokerDown,
        Self::Isolate,
        Self::Upgrade,
        Self::Replace,
        Self::MoveLeader,
        Self::FailOver,
        Self::Unclean,
        Self::ForgetProducers,
        Self::ReloadProducers,
        Self::StaleView,
        Self::ProduceError,
        Self::ErrorAfterAppend,
        Self::FatalError,
        Self::UpkeepError,
        Self::Delay,
        Self::DelayResponse,
        Self::CutBefore,
        Self::CutAfter,
        Self::Silence,
        Self::Throttle,
        Self::Mangle,
        Self::ShrinkMessages,
        Self::Recreate,
        Self::AddPartitions,
        Self::Spike,
        Self::Stall,
        Self::NoNames,
    ];
}

/// A fault, as the seed chose it.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    broker: i32,
    topic: usize,
    partition: i32,
    /// How long it lasts, or what it delays by.
    time: Duration,
    /// How many requests it meets, or how much else there is of it.
    times: usize,
    code: ErrorCode,
    draw: u64,
}

const PASSING: &[ErrorCode] = &[
    ErrorCode::NOT_LEADER_OR_FOLLOWER,
    ErrorCode::NOT_ENOUGH_REPLICAS,
    ErrorCode::KAFKA_STORAGE_ERROR,
    ErrorCode::LEADER_NOT_AVAILABLE,
    ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
    ErrorCode::CORRUPT_MESSAGE,
];
const AFTER: &[ErrorCode] = &[
    ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    ErrorCode::REQUEST_TIMED_OUT,
    ErrorCode::NOT_LEADER_OR_FOLLOWER,
];
const FINAL: &[ErrorCode] = &[
    ErrorCode::TOPIC_AUTHORIZATION_FAILED,
    ErrorCode::INVALID_RECORD,
    ErrorCode::POLICY_VIOLATION,
];
const UPKEEP: &[ErrorCode] = &[
    ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
    ErrorCode::LEADER_NOT_AVAILABLE,
    ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode::CLUSTER_AUTHORIZATION_FAILED,
];

impl Fault {
    pub(super) fn of(kind: Kind, random: &mut Random, plan: &Plan) -> Self {
        let topic = random.below(plan.topics.len());
        let codes = match kind {
            // An answer of Kafka 1.0 to what it has appended before.
            Kind::ErrorAfterAppend if plan.config.idempotent && random.below(4) == 0 => {
                &[ErrorCode::DUPLICATE_SEQUENCE_NUMBER]
            }
            Kind::ErrorAfterAppend => AFTER,
            Kind::FatalError => FINAL,
            Kind::UpkeepError => UPKEEP,
            _ => PASSING,
        };
        let longest = match kind {
            Kind::Delay | Kind::DelayResponse => plan.config.request_timeout * 2,
            Kind::Throttle => SECOND,
            Kind::Stall => 200 * MS,
            _ => plan.calm_at / 4,
        };
        let most = pick(random, &[1, 3, 20]);
        Self {
            kind,
            broker: 1 + random.below(plan.releases.len()) as i32,
            topic,
            partition: random.below(plan.topics[topic].1.partitions as usize) as i32,
            time: between(random, MS, longest),
            times: 1 + random.below(most),
            code: pick(random, codes),
            draw: random.next_u64(),
        }
    }
}

impl Fault {
    /// It may take records out of the partition's log.
    pub(super) fn takes_records_of(&self, topic: usize, partition: i32) -> bool {
        let cuts =
            matches!(self.kind, Kind::Unclean | Kind::FailOver) && self.partition == partition;
        (cuts || self.kind == Kind::Recreate) && self.topic == topic
    }
}

/// The end of a fault that lasts.
pub(super) enum Mend {
    Connects(i32),
    Broker(i32),
    View(i32),
    Messages(usize, usize),
    Latency((Duration, Duration)),
}

impl State {
    /// A fault's moment has come.
    pub(super) fn strike(&mut self, fault: &Fault) {
        let fault = &Fault { broker: self.cluster.successor(fault.broker), ..fault.clone() };
        *self.struck.entry(fault.kind).or_default() += 1;
        let now = self.now;
        self.trace
            .note(now, "fault", [fault.kind as u64, 0], || ("world".into(), format!("{fault:?}")));
        match fault.kind {
            Kind::Reset => self.each_chosen(fault, |state, conn| {
                state.break_down(conn);
            }),
            Kind::Close => {
                self.each_chosen(fault, |state, conn| state.end_down(conn, Duration::ZERO, Ok(())));
            }
            Kind::CutWrite => self.net.cut_writes += fault.times.min(3),
            Kind::BlackHole => self.each_chosen(fault, |state, conn| state.conn(conn).hole = true),
            Kind::HalfOpen => self.each_chosen(fault, |state, conn| {
                state.conn(conn).server = None;
            }),
            Kind::Refuse | Kind::HangConnect => {
                let hangs = fault.kind == Kind::HangConnect;
                self.cluster.closed_doors.insert(fault.broker, hangs);
                self.mend_after(fault.time, Mend::Connects(fault.broker));
            }
            Kind::BrokerDown | Kind::Isolate => self.take_down(fault),
            Kind::Upgrade => {
                self.take_down(fault);
                let release = self.cluster.model.release(fault.broker);
                let later: Vec<_> = Release::ALL.into_iter().filter(|it| *it > release).collect();
                let to = later.get(fault.draw as usize % later.len().max(1));
                self.cluster.model.upgrade(fault.broker, *to.unwrap_or(&release));
            }
            Kind::Replace => self.replace_brokers(fault),
            Kind::Spike => {
                // Spikes that overlap are no slower than one.
                let latency = self.plan.weather.latency;
                self.net.weather.latency = (latency.0 * 20, latency.1 * 20 + fault.time / 10);
                self.mend_after(fault.time, Mend::Latency(latency));
            }
            Kind::Stall => self.net.stall = fault.time,
            Kind::NoNames => self.cluster.no_names_until = self.now + fault.time,
            Kind::CutBefore
            | Kind::CutAfter
            | Kind::Silence
            | Kind::Throttle
            | Kind::Mangle
            | Kind::Delay
            | Kind::DelayResponse
            | Kind::ProduceError
            | Kind::ErrorAfterAppend
            | Kind::FatalError
            | Kind::UpkeepError => self.strike_requests(fault),
            _ => self.strike_logs(fault),
        }
    }

    /// Faults that meet the next requests.
    fn strike_requests(&mut self, fault: &Fault) {
        let times = fault.times as u64;
        let produce = || RequestFault::produce().times(times);
        let any = || RequestFault::any().times(times);
        let some: fn(u64) -> FaultBuilder = |draw| match draw % 3 {
            0 => RequestFault::any(),
            _ => RequestFault::produce(),
        };
        let (topic, partition) = (self.cluster.names[fault.topic].clone(), fault.partition);
        let to_one = |builder: FaultBuilder| match fault.draw % 2 {
            0 => builder.topic(&topic).partition(partition),
            _ => builder,
        };
        let made = match fault.kind {
            Kind::CutBefore => some(fault.draw).disconnect(),
            Kind::CutAfter => some(fault.draw).disconnect_after(),
            Kind::Silence if fault.draw % 2 == 0 => some(fault.draw).silence(),
            Kind::Silence => some(fault.draw).silence_after(),
            Kind::Throttle => produce().throttle(fault.time),
            Kind::Mangle => match fault.draw % 3 {
                0 => some(fault.draw / 3).garbage(),
                1 => some(fault.draw / 3).truncate(fault.times),
                _ => some(fault.draw / 3).oversize(),
            },
            Kind::Delay => any().delay(fault.time),
            Kind::DelayResponse => any().delay_response(fault.time),
            Kind::ErrorAfterAppend => to_one(produce()).error_after(fault.code),
            Kind::UpkeepError => match fault.draw % 2 {
                0 => RequestFault::metadata().times(times).error(fault.code),
                _ => RequestFault::init_producer_id().times(times).error(fault.code),
            },
            // By a broker that loses the partition as it answers, and knows no start of its log.
            Kind::ProduceError if self.plan.config.idempotent && fault.draw / 2 % 4 == 0 => {
                to_one(produce()).error(ErrorCode::UNKNOWN_PRODUCER_ID)
            }
            _ => to_one(produce()).error(fault.code),
        };
        self.cluster.faults.inject(made);
    }

    /// Faults of partitions and what brokers know.
    fn strike_logs(&mut self, fault: &Fault) {
        let name = self.cluster.names[fault.topic].clone();
        let model = &mut self.cluster.model;
        match fault.kind {
            Kind::ForgetProducers => model.forget_producers(),
            Kind::ReloadProducers => {
                model.reload_producers(&name, fault.partition);
            }
            Kind::StaleView => {
                model.hold_view(fault.broker);
                // So that there is something that it has not heard of.
                self.strike_leader(&Fault { kind: Kind::MoveLeader, ..fault.clone() }, &name);
                self.mend_after(fault.time, Mend::View(fault.broker));
            }
            // New partitions are put on brokers that are there.
            Kind::Recreate | Kind::AddPartitions if !model.brokers().values().all(|b| b.alive) => {}
            Kind::Recreate => {
                if let Some(config) = model.topic(&name).map(|topic| topic.config.clone()) {
                    model.delete_topic(&name);
                    model.create_topic(&name, config);
                }
            }
            Kind::AddPartitions => {
                let count = model.topic(&name).map_or(0, |topic| topic.partitions.len() as i32);
                if count < 10 {
                    model.add_partitions(&name, count + 1);
                }
            }
            Kind::ShrinkMessages => {
                if let Some(topic) = model.topic_mut(&name) {
                    let limit = topic.config.max_message_bytes;
                    topic.config.max_message_bytes = 150 + (fault.draw % 600) as usize;
                    self.mend_after(fault.time, Mend::Messages(fault.topic, limit));
                }
            }
            _ => self.strike_leader(fault, &name),
        }
    }

    fn strike_leader(&mut self, fault: &Fault, name: &str) {
        let model = &mut self.cluster.model;
        let alive: Vec<i32> =
            model.brokers().iter().filter(|(_, b)| b.alive).map(|(id, _)| *id).collect();
        let Some(partition) = model.partition_mut(name, fault.partition) else { return };
        let others: Vec<i32> = partition
            .replicas
            .iter()
            .copied()
            .filter(|id| alive.contains(id) && partition.leader != Some(*id))
            .collect();
        let to = others.get(fault.draw as usize % others.len().max(1)).copied();
        let (watermark, end) = (partition.log.high_watermark(), partition.log.end_offset);
        match (fault.kind, to) {
            (Kind::MoveLeader, Some(to)) => partition.lead_by(Some(to)),
            (Kind::MoveLeader, None) => {
                // As long as nobody is elected.
                let leader = partition.leader;
                partition.lead_by(None);
                partition.leader = leader;
            }
            (Kind::FailOver, Some(to)) => partition.fail_over(to, watermark),
            (_, Some(to)) => partition.fail_over(to, end - (fault.times as i64).min(end)),
            (_, None) => {}
        }
    }

    fn take_down(&mut self, fault: &Fault) {
        let broker = fault.broker;
        let silent = fault.kind == Kind::Isolate;
        self.cluster.closed_doors.insert(broker, silent);
        // The cluster hears at once of a broker that stops.
        if !silent || fault.draw % 2 == 0 {
            self.cluster.model.broker_gone(broker);
        }
        let its = self.net.conns.iter().filter(|(_, conn)| conn.broker == broker);
        let its: Vec<usize> = its.map(|(id, _)| *id).collect();
        for conn in its {
            if silent {
                self.conn(conn).hole = true;
                self.conn(conn).server = None;
            } else {
                self.break_down(conn);
            }
        }
        self.mend_after(fault.time, Mend::Broker(broker));
    }

    /// All brokers give way to others. Who wants to connect to an old one is refused, or waits for
    /// ever.
    fn replace_brokers(&mut self, fault: &Fault) {
        let old: Vec<i32> = self.cluster.model.brokers().keys().copied().collect();
        let all_alive = self.cluster.model.brokers().values().all(|broker| broker.alive);
        if !all_alive || !self.cluster.replace_brokers(self.plan.has_names) {
            return;
        }
        let conns: Vec<usize> = self.net.conns.keys().copied().collect();
        for conn in conns {
            if fault.draw % 3 == 0 {
                self.conn(conn).hole = true;
                self.conn(conn).server = None;
            } else {
                self.break_down(conn);
            }
        }
        if fault.draw % 2 == 0 {
            self.cluster.closed_doors.extend(old.into_iter().map(|id| (id, true)));
        }
    }

    /// The connection is reset from the broker's side.
    pub(super) fn break_down(&mut self, conn: usize) {
        self.end_down(conn, Duration::ZERO, Err(ErrorKind::ConnectionReset));
    }

    /// Some of the open connections, one at least.
    fn each_chosen(&mut self, fault: &Fault, action: impl Fn(&mut Self, usize)) {
        let open = self.net.conns.iter().filter(|(_, conn)| conn.server.is_some());
        let open: Vec<usize> = open.map(|(id, _)| *id).collect();
        let first = fault.draw as usize % open.len().max(1);
        for conn in open.iter().cycle().skip(first).take(fault.times.min(open.len())) {
            action(self, *conn);
        }
    }

    fn mend_after(&mut self, time: Duration, mend: Mend) {
        self.schedule(time, Event::Mend(mend));
    }

    pub(super) fn mend(&mut self, mend: &Mend) {
        match mend {
            Mend::Connects(broker) => {
                let alive = self.cluster.model.brokers().get(broker).is_some_and(|b| b.alive);
                if alive {
                    self.cluster.closed_doors.remove(broker);
                }
            }
            Mend::Broker(broker) => {
                self.cluster.closed_doors.remove(broker);
                self.cluster.model.broker_back(*broker);
            }
            Mend::View(broker) => {
                self.cluster.model.release_view(*broker);
            }
            Mend::Messages(topic, limit) => {
                let name = self.cluster.names[*topic].clone();
                if let Some(topic) = self.cluster.model.topic_mut(&name) {
                    topic.config.max_message_bytes = *limit;
                }
            }
            Mend::Latency(latency) => self.net.weather.latency = *latency,
        }
    }

    /// All is well from now on.
    pub(super) fn calm_down(&mut self, plan: &Plan) {
        let now = self.now;
        self.trace.note(now, "calm", [0, 0], || ("world".into(), String::new()));
        self.calm = true;
        self.cluster.faults.clear();
        self.cluster.closed_doors.clear();
        self.cluster.no_names_until = now;
        self.net.cut_writes = 0;
        self.net.stall = Duration::ZERO;
        self.net.weather.latency = plan.weather.latency;
        for (index, (_, config)) in plan.topics.iter().enumerate() {
            self.mend(&Mend::Messages(index, config.max_message_bytes));
        }
        let brokers: Vec<i32> = self.cluster.model.brokers().keys().copied().collect();
        for broker in brokers {
            self.cluster.model.release_view(broker);
            self.cluster.model.broker_back(broker);
        }
        self.cluster.all_in_sync();
        // Whoever is in between forgets, too; and delays add up behind each other, to minutes where
        // no answer is waited for.
        let delays = plan.strikes(Kind::Delay) || plan.strikes(Kind::DelayResponse);
        let holes = self.net.conns.iter_mut().filter(|(_, conn)| {
            let stands = conn.client.as_ref().is_some_and(|c| c.connected == Some(Ok(())));
            let is_stuck = |server: &ServerEnd| server.silent || (delays && server.busy);
            stands && (conn.hole || conn.server.as_ref().is_none_or(is_stuck))
        });
        let holes: Vec<usize> = holes.map(|(id, _)| *id).collect();
        for conn in holes {
            self.conn(conn).hole = false;
            self.break_down(conn);
        }
    }
}

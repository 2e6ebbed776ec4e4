//! How faults strike, and how what lasts of them ends.
//!
//! A fault strikes what is there for it: the connection, broker or partition that it names, or else
//! the next one that it can do something to. If nothing felt it, it tries again a little later.

use std::io::ErrorKind;
use std::time::Duration;

use super::cluster::ServerEnd;
use super::faults::{Fault, Kind};
use super::net::Conn;
use super::plan::Plan;
use super::world::{Event, State};
use crate::protocol::ErrorCode;
use crate::testing::faults::FaultBuilder;
use crate::testing::model::Partition;
use crate::testing::{Fault as RequestFault, Release};

/// Why nobody can connect to a broker.
pub(super) struct Door {
    /// Attempts never end; else they are refused.
    pub(super) hangs: bool,
    /// The fault that closed it.
    pub(super) by: usize,
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
    /// A fault's moment has come, for the first time or again.
    pub(super) fn strike(&mut self, fault: &Fault) {
        if self.calm || self.effects.is_felt(fault.number) {
            return;
        }
        let tries = self.effects.tries.entry(fault.number).or_default();
        let again = *tries;
        *tries += 1;
        let mut fault = fault.clone();
        fault.broker = self.cluster.successor(fault.broker);
        // Not where it was in vain.
        fault.draw = fault.draw.wrapping_add(again);
        fault.partition += again as i32;
        let now = self.now;
        self.trace
            .note(now, "fault", [fault.kind as u64, 0], || ("world".into(), format!("{fault:?}")));
        let waits = self.finds_a_victim(&fault);
        let patience = self.plan.calm_at / if waits { 8 } else { 20 };
        self.schedule(patience, Event::Fault(fault.number));
    }

    /// Strikes, or lies in wait for what comes; false if there is nothing to strike.
    fn finds_a_victim(&mut self, fault: &Fault) -> bool {
        match fault.kind {
            Kind::Reset => return self.each_chosen(fault, Self::reset),
            Kind::Close => {
                return self.each_chosen(fault, |state, conn| {
                    state.end_down(conn, Duration::ZERO, Ok(()));
                });
            }
            Kind::BlackHole => {
                return self.each_chosen(fault, |state, conn| state.conn(conn).hole = true);
            }
            Kind::HalfOpen => {
                return self.each_chosen(fault, |state, conn| state.conn(conn).server = None);
            }
            Kind::Refuse | Kind::HangConnect => return self.close_door(fault),
            Kind::BrokerDown | Kind::Isolate | Kind::Upgrade => return self.take_down(fault),
            Kind::Replace => return self.replace_brokers(fault),
            Kind::CutWrite if self.net.cut_writes.contains(&fault.number) => {}
            Kind::CutWrite => {
                let writes = std::iter::repeat_n(fault.number, fault.times.min(3));
                self.net.cut_writes.extend(writes);
            }
            Kind::Spike => {
                // Spikes that overlap are no slower than one.
                let latency = self.plan.weather.latency;
                self.net.weather.latency = (latency.0 * 20, latency.1 * 20 + fault.time / 10);
                self.effects.spike = Some(fault.number);
                self.mend_after(fault.time, Mend::Latency(latency));
            }
            Kind::Stall => self.net.stall = Some((fault.time, fault.number)),
            Kind::NoNames => {
                self.cluster.no_names_until = self.now + fault.time;
                self.effects.no_names = Some(fault.number);
                self.have_them_knock(fault, fault.broker);
            }
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
            Kind::ForgetProducers
            | Kind::ReloadProducers
            | Kind::Recreate
            | Kind::AddPartitions
            | Kind::ShrinkMessages => return self.strike_logs(fault),
            Kind::MoveLeader | Kind::FailOver | Kind::Unclean => {
                let is_done = self.elect(fault, fault.kind);
                if is_done {
                    self.felt(fault.number);
                }
                return is_done;
            }
            Kind::StaleView => return self.hold_view(fault),
        }
        true
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
        // Without acknowledgements there is no answer to produce to spoil.
        let has_acks = self.plan.config.acks != 0;
        let answered = if has_acks { some } else { |_| RequestFault::metadata() };
        let made = match fault.kind {
            Kind::CutBefore => some(fault.draw).disconnect(),
            Kind::CutAfter => some(fault.draw).disconnect_after(),
            Kind::Silence if fault.cuts_after() == Some(false) => some(fault.draw).silence(),
            Kind::Silence => some(fault.draw).silence_after(),
            Kind::Throttle => produce().throttle(fault.time),
            Kind::Mangle => match fault.draw % 3 {
                0 => answered(fault.draw / 3).garbage(),
                1 => answered(fault.draw / 3).truncate(fault.times),
                _ => answered(fault.draw / 3).oversize(),
            },
            Kind::Delay => any().delay(fault.time),
            Kind::DelayResponse => any().delay_response(fault.time),
            Kind::ErrorAfterAppend => to_one(produce()).error_after(fault.code),
            Kind::UpkeepError => match fault.draw % 2 {
                1 if self.plan.config.idempotent => {
                    RequestFault::init_producer_id().times(times).error(fault.code)
                }
                _ => RequestFault::metadata().times(times).error(fault.code),
            },
            // By a broker that loses the partition as it answers, and knows no start of its log.
            Kind::ProduceError if self.plan.config.idempotent && fault.draw / 2 % 4 == 0 => {
                to_one(produce()).error(ErrorCode::UNKNOWN_PRODUCER_ID)
            }
            _ => to_one(produce()).error(fault.code),
        };
        if fault.kind == Kind::UpkeepError || !has_acks {
            self.have_them_ask(fault);
        }
        if let Some(id) = self.effects.stop_waiting(fault.number) {
            self.cluster.faults.remove(id);
        }
        let id = self.cluster.faults.inject(made);
        self.effects.in_wait.insert(id, fault.number);
    }

    /// Faults of logs and topics.
    fn strike_logs(&mut self, fault: &Fault) -> bool {
        let model = &mut self.cluster.model;
        let name = self.cluster.names[fault.topic].clone();
        let all_alive = model.brokers().values().all(|broker| broker.alive);
        match fault.kind {
            Kind::ForgetProducers => {
                let knowing = self.places_where(fault, |it| it.log.producers.knows().0);
                if knowing.is_empty() {
                    return false;
                }
                for (topic, index) in knowing {
                    let partition = self.cluster.model.partition(&self.cluster.names[topic], index);
                    let end = partition.map_or(0, |partition| partition.log.end_offset);
                    self.effects.forgot.insert((topic, index), end);
                }
                self.cluster.model.forget_producers();
            }
            Kind::ReloadProducers => {
                let knowing = self.places_where(fault, |it| it.log.producers.knows().1);
                let Some((topic, index)) = knowing.first() else { return false };
                self.cluster.model.reload_producers(&self.cluster.names[*topic], *index);
            }
            // New partitions are put on brokers that are there.
            Kind::Recreate if all_alive => {
                if let Some(config) = model.topic(&name).map(|topic| topic.config.clone()) {
                    // Of the new one's records none are from before anything was forgotten.
                    let its =
                        self.effects.forgot.iter_mut().filter(|((t, _), _)| *t == fault.topic);
                    its.for_each(|(_, end)| *end = 0);
                    model.delete_topic(&name);
                    model.create_topic(&name, config);
                }
            }
            Kind::AddPartitions if all_alive => {
                let count = model.topic(&name).map_or(0, |topic| topic.partitions.len() as i32);
                if count >= 10 {
                    return false;
                }
                model.add_partitions(&name, count + 1);
            }
            Kind::ShrinkMessages => {
                let Some(topic) = model.topic_mut(&name) else { return false };
                let limit = self.plan.topics[fault.topic].1.max_message_bytes;
                topic.config.max_message_bytes = 150 + (fault.draw % 600) as usize;
                self.effects.shrunk.insert(fault.topic, fault.number);
                self.mend_after(fault.time, Mend::Messages(fault.topic, limit));
                return true;
            }
            _ => return false,
        }
        self.felt(fault.number);
        true
    }

    /// The partitions of this kind, from the one that the fault names on.
    fn places_where(&self, fault: &Fault, is_it: impl Fn(&Partition) -> bool) -> Vec<(usize, i32)> {
        let topics = self.cluster.names.iter().map(|name| self.cluster.model.topic(name));
        let places = topics.enumerate().flat_map(|(number, topic)| {
            let partitions = topic.map_or(&[][..], |topic| &topic.partitions);
            (0..).zip(partitions).map(move |(index, it)| ((number, index), it))
        });
        let mut places: Vec<_> =
            places.filter(|(_, it)| is_it(it)).map(|(place, _)| place).collect();
        let first = places.partition_point(|place| *place < (fault.topic, fault.partition));
        places.rotate_left(first);
        places
    }

    /// Another broker leads a partition; false if there is none where that can be.
    fn elect(&mut self, fault: &Fault, kind: Kind) -> bool {
        let brokers = self.cluster.model.brokers().iter();
        let alive: Vec<i32> = brokers.filter(|(_, b)| b.alive).map(|(id, _)| *id).collect();
        let others = |partition: &Partition| -> Vec<i32> {
            let replicas = partition.replicas.iter().copied();
            replicas.filter(|id| alive.contains(id) && partition.leader != Some(*id)).collect()
        };
        // What is lost has to be there.
        let has_any = |it: &Partition| kind != Kind::Unclean || it.log.end_offset > 0;
        let mut places = self.places_where(fault, |it| has_any(it) && !others(it).is_empty());
        if places.is_empty() && kind == Kind::MoveLeader {
            // Nobody else can: the same leader, in another epoch.
            places = self.places_where(fault, |it| it.leader.is_some());
        }
        let Some((topic, index)) = places.first().copied() else { return false };
        let name = &self.cluster.names[topic];
        let Some(partition) = self.cluster.model.partition_mut(name, index) else { return false };
        let others = others(partition);
        let to = others.get(fault.draw as usize % others.len().max(1)).copied();
        let (watermark, end) = (partition.log.high_watermark(), partition.log.end_offset);
        match (kind, to) {
            (Kind::MoveLeader, Some(to)) => partition.lead_by(Some(to)),
            (Kind::FailOver, Some(to)) => partition.fail_over(to, watermark),
            (_, Some(to)) => {
                self.effects.unclean.insert((topic, index));
                partition.fail_over(to, end - (fault.times as i64).min(end));
            }
            (_, None) => {
                let leader = partition.leader;
                partition.lead_by(None);
                partition.leader = leader;
            }
        }
        true
    }

    /// A broker tells of the cluster as it was, and there is something that it has not heard of.
    fn hold_view(&mut self, fault: &Fault) -> bool {
        let Some(broker) = self.one_up(fault, |_| true) else { return false };
        self.cluster.model.hold_view(broker);
        let is_behind = self.elect(fault, Kind::MoveLeader);
        self.effects.lagging.insert(broker, fault.number);
        self.mend_after(fault.time, Mend::View(broker));
        is_behind
    }

    /// A broker of this kind that can be connected to, from the one that the fault names on.
    fn one_up(&self, fault: &Fault, is_it: impl Fn(Release) -> bool) -> Option<i32> {
        let doors = &self.cluster.closed_doors;
        let brokers = self.cluster.model.brokers().iter();
        let up: Vec<i32> = brokers
            .filter(|(id, broker)| broker.alive && !doors.contains_key(id) && is_it(broker.release))
            .map(|(id, _)| *id)
            .collect();
        // One that somebody is connected to, if there is any.
        let is_used = |id: &i32| self.net.conns.values().any(|c| c.broker == *id && c.is_open());
        let (used, idle): (Vec<i32>, Vec<i32>) = up.iter().partition(|id| is_used(id));
        let one_of =
            |ids: Vec<i32>| ids.iter().find(|id| **id >= fault.broker).or(ids.first()).copied();
        one_of(used).or(one_of(idle))
    }

    fn close_door(&mut self, fault: &Fault) -> bool {
        let Some(broker) = self.one_up(fault, |_| true) else { return false };
        let hangs = fault.kind == Kind::HangConnect;
        self.cluster.closed_doors.insert(broker, Door { hangs, by: fault.number });
        self.have_them_knock(fault, broker);
        self.mend_after(fault.time, Mend::Connects(broker));
        true
    }

    /// The connections end that there are, so that somebody connects anew.
    fn have_them_knock(&mut self, fault: &Fault, broker: i32) {
        if fault.draw % 4 > 0 {
            let its = self.conns_of(broker);
            its.into_iter().for_each(|conn| self.break_down(conn));
        }
    }

    /// A connection ends, so that somebody asks for metadata. Without acknowledgements nobody ever
    /// gives up one that leads nowhere, but for the kernel in the end.
    fn have_them_ask(&mut self, fault: &Fault) {
        if fault.draw % 2 == 0 {
            return;
        }
        let is_stuck = |conn: &Conn| conn.stands() && !conn.is_open();
        let stuck = self.net.conns.iter_mut().filter(|(_, conn)| is_stuck(conn));
        let stuck = stuck.map(|(id, _)| *id).next();
        let open = self.net.conns.iter().find(|(_, conn)| conn.is_open()).map(|(id, _)| *id);
        if let Some(conn) = stuck.or(open) {
            self.conn(conn).hole = false;
            self.break_down(conn);
        }
    }

    fn conns_of(&self, broker: i32) -> Vec<usize> {
        let its = self.net.conns.iter().filter(|(_, conn)| conn.broker == broker);
        its.map(|(id, _)| *id).collect()
    }

    fn take_down(&mut self, fault: &Fault) -> bool {
        let upgrades = fault.kind == Kind::Upgrade;
        let is_old = |release| !upgrades || release < Release::default();
        let Some(broker) = self.one_up(fault, is_old) else { return false };
        let silent = fault.kind == Kind::Isolate;
        self.cluster.closed_doors.insert(broker, Door { hangs: silent, by: fault.number });
        let its = self.conns_of(broker);
        // The cluster hears at once of a broker that stops.
        if !silent || fault.draw % 2 == 0 {
            self.cluster.model.broker_gone(broker);
            self.felt(fault.number);
        } else if its.iter().any(|conn| self.conn(*conn).is_open()) {
            self.felt(fault.number);
        }
        for conn in its {
            if silent {
                self.conn(conn).hole = true;
                self.conn(conn).server = None;
            } else {
                self.break_down(conn);
            }
        }
        if upgrades {
            let release = self.cluster.model.release(broker);
            let later: Vec<_> = Release::ALL.into_iter().filter(|it| *it > release).collect();
            let to = later.get(fault.draw as usize % later.len().max(1));
            self.cluster.model.upgrade(broker, *to.unwrap_or(&release));
        }
        self.mend_after(fault.time, Mend::Broker(broker));
        true
    }

    /// All brokers give way to others. Who wants to connect to an old one is refused, or waits for
    /// ever.
    fn replace_brokers(&mut self, fault: &Fault) -> bool {
        let old: Vec<i32> = self.cluster.model.brokers().keys().copied().collect();
        let all_alive = self.cluster.model.brokers().values().all(|broker| broker.alive);
        if !all_alive || !self.cluster.replace_brokers(self.plan.has_names) {
            return false;
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
            let door = |id| (id, Door { hangs: true, by: fault.number });
            self.cluster.closed_doors.extend(old.into_iter().map(door));
        }
        self.felt(fault.number);
        true
    }

    /// The connection is reset from the broker's side.
    pub(super) fn break_down(&mut self, conn: usize) {
        self.end_down(conn, Duration::ZERO, Err(ErrorKind::ConnectionReset));
    }

    /// As that, in the middle of a request, perhaps, which is carried out all the same.
    fn reset(&mut self, conn: usize) {
        let finishes = self.chance(2);
        self.conn(conn).finishes = finishes;
        self.break_down(conn);
    }

    /// Some of the open connections, and of silent ones if they are to end; false if there is none.
    fn each_chosen(&mut self, fault: &Fault, action: impl Fn(&mut Self, usize)) -> bool {
        let ends = matches!(fault.kind, Kind::Reset | Kind::Close);
        let is_meant = |conn: &Conn| if ends { conn.can_end() } else { conn.is_open() };
        let open = self.net.conns.iter().filter(|(_, conn)| is_meant(conn));
        let open: Vec<usize> = open.map(|(id, _)| *id).collect();
        let first = fault.draw as usize % open.len().max(1);
        for conn in open.iter().cycle().skip(first).take(fault.times.min(open.len())) {
            action(self, *conn);
            self.felt(fault.number);
        }
        if open.is_empty() && self.plan.config.acks == 0 {
            self.have_them_ask(fault);
        }
        !open.is_empty()
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
                self.effects.lagging.remove(broker);
            }
            Mend::Messages(topic, limit) => {
                let name = self.cluster.names[*topic].clone();
                if let Some(topic) = self.cluster.model.topic_mut(&name) {
                    topic.config.max_message_bytes = *limit;
                }
                self.effects.shrunk.remove(topic);
            }
            Mend::Latency(latency) => {
                self.net.weather.latency = *latency;
                self.effects.spike = None;
            }
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
        self.net.cut_writes.clear();
        self.net.stall = None;
        self.mend(&Mend::Latency(plan.weather.latency));
        for (index, (_, config)) in plan.topics.iter().enumerate() {
            self.mend(&Mend::Messages(index, config.max_message_bytes));
        }
        let brokers: Vec<i32> = self.cluster.model.brokers().keys().copied().collect();
        for broker in brokers {
            self.mend(&Mend::View(broker));
            self.mend(&Mend::Broker(broker));
        }
        self.cluster.all_in_sync();
        // As a rule it is for the producer to give up what is stuck. But delays add up behind each
        // other, to minutes where no answer is waited for; and where partitions forget producers a
        // batch fails that may be in the log: there whoever is in between forgets, too.
        let is_called_off = plan.config.acks == 0 || plan.forgets();
        let delays = plan.strikes(Kind::Delay) || plan.strikes(Kind::DelayResponse);
        let holes = self.net.conns.iter_mut().filter(|(_, conn)| {
            let is_stuck = |server: &ServerEnd| server.silent || (delays && server.busy);
            is_called_off
                && conn.stands()
                && (conn.hole || conn.server.as_ref().is_none_or(is_stuck))
        });
        let holes: Vec<usize> = holes.map(|(id, _)| *id).collect();
        for conn in holes {
            self.conn(conn).hole = false;
            self.break_down(conn);
        }
    }
}

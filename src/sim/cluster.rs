//! The brokers: the pure model of `testing`, which is checked against a real Kafka, behind
//! simulated connections. Requests of a connection are carried out one after the other.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::offers::Offer;
use super::plan::Plan;
use super::strikes::Door;
use super::world::{Event, State};
use crate::protocol::{ApiKey, ErrorCode, MetadataResponse, ProduceResponse, Reader, TopicRef};
use crate::testing::faults::{Cut, Faults, Mangle, Plan as FaultPlan};
use crate::testing::model::{Broker, Model, Reply, Settings, parse};
use crate::time::{ManualClock, MonoTime};

/// The port that all brokers listen at.
pub(super) const PORT: u16 = 9092;

/// What brokers do at a moment.
pub(super) enum ClusterEvent {
    /// A request's turn has come.
    Execute { conn: usize, frame: Vec<u8>, orders: Box<Orders>, heard: Option<u64> },
    /// The last request is dealt with, and the next one may be read.
    Next { conn: usize },
}

/// What is to happen to a request, and the faults that say so.
pub(super) struct Orders {
    plan: FaultPlan,
    met: Vec<usize>,
}

/// A broker's end of a connection.
#[derive(Default)]
pub(super) struct ServerEnd {
    /// Bytes that have come and are not used yet.
    unread: Vec<u8>,
    /// A request is being carried out, or the client is being paused.
    pub(super) busy: bool,
    /// Responses sent.
    answered: u64,
    /// One of them was nonsense: what comes after it may be dropped with the connection.
    mangled: bool,
    /// Takes what comes and does nothing about it.
    pub(super) silent: bool,
}

pub(super) struct Cluster {
    pub(super) model: Model,
    pub(super) faults: Faults,
    /// Topics by their number in the plan.
    pub(super) names: Vec<String>,
    /// Names are not found before this moment.
    pub(super) no_names_until: MonoTime,
    /// Brokers that nobody can connect to.
    pub(super) closed_doors: BTreeMap<i32, Door>,
    /// How many brokers there are at a time, and how often all of them were replaced.
    size: i32,
    generation: i32,
    /// The least and the most that a request takes.
    work: (Duration, Duration),
}

/// The broker's address, or the name that stands for it: its id is the last part.
pub(super) fn host(broker: i32, has_names: bool) -> String {
    if has_names { format!("broker.{broker}") } else { format!("10.0.0.{broker}") }
}

/// A bootstrap server's address, or name: it leads to a broker, whichever takes that place now.
pub(super) fn bootstrap_host(place: i32, has_names: bool) -> String {
    if has_names { format!("bootstrap.{place}") } else { format!("10.0.1.{place}") }
}

/// Whether it is a bootstrap server's.
pub(super) fn is_bootstrap(addr: SocketAddr) -> bool {
    matches!(addr.ip(), IpAddr::V4(ip) if ip.octets()[2] == 1)
}

/// What a name stands for.
pub(super) fn look_up(name: &str) -> Option<SocketAddr> {
    let (kind, number) = name.split_once('.')?;
    let net = match kind {
        "broker" => 0,
        "bootstrap" => 1,
        _ => return None,
    };
    Some(SocketAddr::from(([10, 0, net, number.parse().ok()?], PORT)))
}

impl Cluster {
    pub(super) fn new(plan: &Plan) -> Self {
        let broker = |(id, offer): (i32, &Offer)| {
            let mut broker = Broker::new(offer.release, &host(id, plan.has_names), PORT);
            offer.at_most.iter().for_each(|(key, max)| broker.offer_at_most(*key, *max));
            (id, broker)
        };
        let brokers: BTreeMap<_, _> = (1..).zip(&plan.offers).map(broker).collect();
        let producer_byte_rate = plan.quota;
        let mut settings = Settings {
            auto_create: false,
            producer_byte_rate,
            first_epoch: plan.first_epoch,
            ..Settings::default()
        };
        if let Some((age, interval)) = plan.expiry {
            settings.producer_id_expiration_ms = age.as_millis() as i64;
            settings.producer_id_check_interval_ms = interval.as_millis() as i64;
        }
        let mut model = Model::new(settings, brokers);
        for (name, config) in &plan.topics {
            model.create_topic(name, config.clone());
        }
        let names = plan.topics.iter().map(|(name, _)| name.clone()).collect();
        let (faults, closed_doors) = (Faults::default(), BTreeMap::new());
        Self {
            model,
            faults,
            names,
            no_names_until: MonoTime::ZERO,
            closed_doors,
            size: plan.brokers(),
            generation: 0,
            work: plan.work,
        }
    }

    /// Whoever has this broker's place now.
    pub(super) fn successor(&self, broker: i32) -> i32 {
        broker + self.generation * self.size
    }

    /// The broker that an address leads to.
    pub(super) fn broker_at(&self, addr: SocketAddr) -> i32 {
        match addr.ip() {
            IpAddr::V4(ip) => match ip.octets() {
                [10, 0, 0, id] => i32::from(id),
                [10, 0, 1, place] => self.successor(place.into()),
                _ => -1,
            },
            IpAddr::V6(_) => -1,
        }
    }

    /// Other brokers take all places; false once addresses run out.
    pub(super) fn replace_brokers(&mut self, has_names: bool) -> bool {
        if self.generation == 10 {
            return false;
        }
        self.generation += 1;
        self.model.replace_brokers(self.size, |id| host(id, has_names));
        true
    }

    /// Each partition is led, and all its replicas have all of it.
    pub(super) fn all_in_sync(&mut self) {
        for name in &self.names {
            let Some(topic) = self.model.topic_mut(name) else { continue };
            for partition in &mut topic.partitions {
                partition.in_sync = partition.replicas.clone();
                if partition.leader.is_none() {
                    partition.lead_by(partition.replicas.first().copied());
                }
            }
        }
    }
}

impl State {
    /// What becomes of an attempt to connect; none if it never ends.
    pub(super) fn answer_to_connect(&mut self, broker: i32) -> Option<Result<(), ErrorKind>> {
        if let Some(Door { hangs, by }) = self.cluster.closed_doors.get(&broker) {
            let (hangs, by) = (*hangs, *by);
            self.felt(by);
            return (!hangs).then_some(Err(ErrorKind::ConnectionRefused));
        }
        let is_there = self.cluster.model.brokers().contains_key(&broker);
        Some(is_there.then_some(()).ok_or(ErrorKind::ConnectionRefused))
    }

    /// The brokers' clocks.
    fn wall_millis(&self) -> i64 {
        ManualClock::WALL_START + (self.now.as_nanos() / 1_000_000) as i64
    }

    fn server(&mut self, conn: usize) -> Option<&mut ServerEnd> {
        self.net.conns.get_mut(&conn)?.server.as_mut()
    }

    /// Bytes of a client have come.
    pub(super) fn on_bytes(&mut self, conn: usize, bytes: Vec<u8>) {
        let count = bytes.len();
        // Where producers are forgotten a batch fails that may be in the log: nobody is cut there.
        let memory = if self.plan.forgets() { Duration::MAX } else { self.net.weather.memory };
        let now = self.now;
        let idle = now.since(std::mem::replace(&mut self.conn(conn).used_at, now));
        if idle >= memory {
            return self.break_down(conn);
        }
        match self.server(conn) {
            // The broker knows of no such connection.
            None => self.end_down(conn, Duration::ZERO, Err(ErrorKind::ConnectionReset)),
            Some(server) => {
                server.unread.extend(bytes);
                self.give_room(conn, count);
                self.read_request(conn);
            }
        }
    }

    pub(super) fn on_client_gone(&mut self, conn: usize) {
        // Requests that have come whole are carried out all the same.
        let is_busy = self.server(conn).is_some_and(|server| server.busy);
        if !is_busy {
            if let Some(conn) = self.net.conns.get_mut(&conn) {
                conn.server = None;
            }
        }
    }

    /// Takes the next request up, if it is there and it is its turn.
    fn read_request(&mut self, conn: usize) {
        let broker = self.net.conns.get(&conn).map_or(-1, |conn| conn.broker);
        let Some(server) = self.server(conn).filter(|s| !s.busy && !s.silent) else { return };
        let Some(length) = server.unread.first_chunk::<4>() else { return };
        let length = u32::from_be_bytes(*length) as usize;
        if server.unread.len() < 4 + length {
            return;
        }
        server.busy = true;
        let frame = server.unread[4..4 + length].to_vec();
        server.unread.drain(..4 + length);
        let Some(parsed) = parse(&self.cluster.model, broker, &frame) else {
            if self.cluster.model.brokers().contains_key(&broker) {
                self.fail(|| format!("c{conn}: no request that broker {broker} can read"));
            }
            return self.end_down(conn, Duration::ZERO, Ok(()));
        };
        let target = parsed.target(&self.cluster.model, broker);
        let (mut plan, met) = self.effects.meet(&mut self.cluster.faults, &target);
        let now_ms = self.wall_millis();
        self.cluster.model.throttle(broker, &parsed, frame.len(), now_ms, &mut plan);
        let (least, most) = self.cluster.work;
        let spread = usize::try_from((most - least).as_nanos()).unwrap_or(usize::MAX);
        let work = least + Duration::from_nanos(self.random.below(spread + 1) as u64);
        // Several delays of one request are not to outlast the broker's memory of a producer.
        plan.delay_before = plan.delay_before.min(self.plan.config.request_timeout * 2);
        let after = work + plan.delay_before;
        let heard = self.conn(conn).frames.take_request();
        let orders = Box::new(Orders { plan, met });
        let event = ClusterEvent::Execute { conn, frame, orders, heard };
        self.schedule(after, Event::Cluster(event));
    }

    pub(super) fn on_cluster_event(&mut self, event: ClusterEvent) {
        match event {
            ClusterEvent::Execute { conn, frame, orders, heard } => {
                self.execute(conn, &frame, &orders, heard);
            }
            ClusterEvent::Next { conn } => {
                if let Some(server) = self.server(conn) {
                    server.busy = false;
                    self.read_request(conn);
                }
            }
        }
    }

    fn execute(&mut self, conn: usize, frame: &[u8], orders: &Orders, heard: Option<u64>) {
        let Orders { plan, met } = orders;
        let broker = self.net.conns.get(&conn).map_or(-1, |conn| conn.broker);
        let is_gone = self.server(conn).is_none();
        let is_alive =
            |state: &Self| state.cluster.model.brokers().get(&broker).is_some_and(|b| b.alive);
        if is_gone && !(self.conn(conn).finishes && is_alive(self)) {
            return;
        }
        if let Some(cut) = plan.cut_before {
            self.feel_before(met);
            return self.cut(conn, cut);
        }
        let Some(parsed) = parse(&self.cluster.model, broker, frame) else {
            return self.end_down(conn, Duration::ZERO, Ok(()));
        };
        let version = i16::from_be_bytes([frame[2], frame[3]]);
        *self.spoken.entry((parsed.key, version)).or_default() += 1;
        let (now, now_ms) = (self.now, self.wall_millis());
        self.trace.note(now, "request", [conn as u64, frame.len() as u64], || {
            (format!("c{conn}"), format!("broker {broker}: {:?}", parsed.key))
        });
        self.watch_request(&parsed.request, broker, heard);
        let reply = self.cluster.model.answer(broker, &parsed, now_ms, plan);
        if !is_gone {
            self.feel(met, plan.cut_after.is_some(), &parsed.request, &reply);
        }
        self.note_answer(parsed.key, version, broker, met, &reply);
        if is_gone {
            return;
        }
        let is_paused = parsed.key == ApiKey::Produce && version >= 6 && !plan.mute.is_zero();
        if let Some(cut) = plan.cut_after {
            return self.cut(conn, cut);
        }
        if let (Reply::Frame(_), Some(server)) = (&reply, self.server(conn)) {
            server.answered += 1;
            server.mangled |= plan.mangle.is_some();
            let number = server.answered;
            if parsed.key == ApiKey::Metadata && plan.mangle.is_none() {
                let asked_at = heard.filter(|_| !server.mangled);
                self.note_metadata(conn, number, version, &reply, asked_at);
            }
            if is_paused && plan.mangle.is_none() {
                // It is told in milliseconds.
                let told = Duration::from_millis(plan.mute.as_millis() as u64);
                self.conn(conn).frames.on_pause(number, told);
            }
        }
        self.reply(conn, reply, plan);
    }

    /// Notes what the client is about to hear of leaders.
    fn note_metadata(
        &mut self,
        conn: usize,
        number: u64,
        version: i16,
        reply: &Reply,
        asked_at: Option<u64>,
    ) {
        let Reply::Frame(frame) = reply else { return };
        let body = frame.get(8 + usize::from(version >= 9)..).unwrap_or_default();
        let response = MetadataResponse::decode(&mut Reader::new(body), version);
        let Some(response) = response.ok().filter(|response| !response.brokers.is_empty()) else {
            return;
        };
        let broker = self.conn(conn).broker;
        let lag = self.effects.lagging.get(&broker).copied();
        lag.into_iter().for_each(|by| self.felt(by));
        let news = self.watch.leaders.tell(&response, version, asked_at);
        self.conn(conn).frames.on_news(number, news);
    }

    /// Notes what a request to produce came to, whether or not the client hears of it.
    fn note_answer(
        &mut self,
        key: ApiKey,
        version: i16,
        broker: i32,
        met: &[usize],
        reply: &Reply,
    ) {
        let Reply::Frame(frame) = reply else { return };
        if key != ApiKey::Produce {
            return;
        }
        let body = frame.get(8 + usize::from(version >= 9)..).unwrap_or_default();
        let Ok(response) = ProduceResponse::decode(&mut Reader::new(body), version) else { return };
        let now = self.now;
        for (at, topic) in response.topics.iter().enumerate() {
            let name = match &topic.topic.as_ref() {
                TopicRef::Name(name) => (*name).to_owned(),
                TopicRef::Id(id) => {
                    let name = self.cluster.model.name_of(*id);
                    name.map_or_else(|| format!("{id:?}"), ToString::to_string)
                }
            };
            self.watch.leaders.tell_in_refusal(&response, &name, at);
            self.feel_answer(met, broker, &name, topic);
            for it in &topic.partitions {
                let numbers = [it.error_code.0 as u64, it.base_offset as u64];
                if let Some(text) = unprovoked(it.error_code, met, &self.plan) {
                    self.fail(|| format!("{name}-{}: {text}", it.index));
                }
                self.trace.note(now, "answer", numbers, || {
                    let text = format!("{}, offset {}", it.error_code, it.base_offset);
                    (format!("{name}-{}", it.index), text)
                });
            }
        }
    }

    fn cut(&mut self, conn: usize, cut: Cut) {
        match cut {
            Cut::Disconnect => self.end_down(conn, Duration::ZERO, Ok(())),
            Cut::Silence => {
                if let Some(server) = self.server(conn) {
                    server.silent = true;
                }
            }
        }
    }

    fn reply(&mut self, conn: usize, reply: Reply, plan: &FaultPlan) {
        let after = plan.delay_after;
        match reply {
            Reply::Frame(mut frame) => match plan.mangle {
                Some(Mangle::Truncate(bytes)) => {
                    frame.truncate(bytes);
                    self.send_down(conn, after, frame);
                    return self.end_down(conn, after, Ok(()));
                }
                Some(Mangle::Garbage) => {
                    frame.iter_mut().skip(8).for_each(|byte| *byte = 0xff);
                    self.send_down(conn, after, frame);
                }
                Some(Mangle::Oversize) => {
                    self.send_down(conn, after, i32::MAX.to_be_bytes().to_vec());
                }
                None => self.send_down(conn, after, frame),
            },
            Reply::Nothing => {}
            Reply::Close => return self.end_down(conn, after, Ok(())),
        }
        self.schedule(after + plan.mute, Event::Cluster(ClusterEvent::Next { conn }));
    }
}

/// What a broker says of a batch that is not as it was made, or was not made as it should: only a
/// fault may have it say so.
fn unprovoked(code: ErrorCode, met: &[usize], plan: &Plan) -> Option<String> {
    const CORRUPT_MESSAGE: ErrorCode = ErrorCode::CORRUPT_MESSAGE;
    const INVALID_RECORD: ErrorCode = ErrorCode::INVALID_RECORD;
    let blames = matches!(
        code,
        CORRUPT_MESSAGE
            | INVALID_RECORD
            | ErrorCode::INVALID_REQUEST
            | ErrorCode::INVALID_REQUIRED_ACKS
            | ErrorCode::INVALID_TIMESTAMP
            | ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT
            | ErrorCode::UNSUPPORTED_VERSION
    );
    // Brokers before 2.8 have one code for both.
    let is_meant = |its| its == code || (its, code) == (INVALID_RECORD, CORRUPT_MESSAGE);
    let says = |number: &usize| is_meant(plan.faults[*number].1.code);
    (blames && !met.iter().any(says)).then(|| format!("a batch is refused with {code}"))
}

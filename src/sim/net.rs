//! `Net` as TCP behaves: each direction of a connection an ordered stream of bytes that takes its
//! time, a send buffer that fills up, edges that are told once, and the ways in which connections
//! end. The brokers at the other end are in `cluster`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind, IoSlice, Read};
use std::net::SocketAddr;
use std::time::Duration;

use super::cluster::is_bootstrap;
use super::plan::{MS, Plan, SECOND};
use super::watch::Frames;
use super::world::{Event, On, State, World, seat};
use crate::network::{ConnectionId, Net, Readiness, SocketOptions, Wake};
use crate::sync::Arc;
use crate::time::MonoTime;

/// What happens to a connection at a moment.
pub(super) enum NetEvent {
    /// The attempt to connect is decided.
    Connected { conn: usize, result: Result<(), ErrorKind> },
    /// Bytes of the client's reach the broker.
    Arrive { conn: usize, bytes: Vec<u8> },
    /// Bytes of the broker's reach the client.
    Deliver { conn: usize, bytes: Vec<u8> },
    /// The broker's end of the stream, or a reset, reaches the client.
    End { conn: usize, end: Result<(), ErrorKind> },
    /// The connection breaks, as it is seen where the broker is.
    Break { conn: usize },
    /// The client's end of the stream reaches the broker.
    ClientGone { conn: usize },
}

/// How the network is: chosen by the seed.
#[derive(Clone, Debug)]
pub(super) struct Weather {
    /// The least and the most that bytes take one way.
    pub(super) latency: (Duration, Duration),
    /// Bytes that a connection holds between the client's write and the broker's read.
    pub(super) room: usize,
    /// One call in so many writes or reads less than it could; 0 for none.
    pub(super) short: usize,
    /// One poll in so many tells an edge that is none; 0 for none.
    pub(super) spurious: usize,
    /// After so long without a byte whoever is in between forgets a connection: what is sent then
    /// is answered with a reset.
    pub(super) memory: Duration,
    /// One call in so many lets other threads run in the middle of the sender's turn; 0 for none.
    pub(super) preempt: usize,
}

/// All connections, by id.
pub(super) struct Network {
    pub(super) weather: Weather,
    pub(super) conns: BTreeMap<usize, Conn>,
    /// Those that the client has not closed: few, where there may be thousands of others.
    held: BTreeSet<usize>,
    made: usize,
    /// The bell was rung since the last poll.
    rung: bool,
    /// Something was written since the last poll.
    wrote: bool,
    /// The last poll ended by time alone, and something has come of that: a write, a connection, an
    /// end of either or of a batch.
    slept: bool,
    pub(super) acted: bool,
    /// The next writes are cut short by a reset, each by this fault.
    pub(super) cut_writes: VecDeque<usize>,
    /// The sender's thread gets no processor for so long, by this fault.
    pub(super) stall: Option<(Duration, usize)>,
}

/// One connection, both its ends.
pub(super) struct Conn {
    pub(super) broker: i32,
    pub(super) client: Option<ClientEnd>,
    pub(super) server: Option<super::cluster::ServerEnd>,
    /// It was reset as the broker carried a request out, which does that to the end.
    pub(super) finishes: bool,
    /// Nothing gets through any more, in either direction.
    pub(super) hole: bool,
    /// A write has failed.
    broken: bool,
    pub(super) frames: Frames,
    /// When the last bytes sent will have arrived, up and down: order is kept.
    up_until: MonoTime,
    down_until: MonoTime,
    /// When bytes of the client's arrived last.
    pub(super) used_at: MonoTime,
}

/// What the client's kernel knows.
pub(super) struct ClientEnd {
    /// None until the attempt is decided.
    pub(super) connected: Option<Result<(), ErrorKind>>,
    pub(super) inbound: VecDeque<u8>,
    end: Option<Result<(), ErrorKind>>,
    /// Bytes that a write may still put into the send buffer.
    room: usize,
    /// The last read, or write, said `WouldBlock`: an edge may come.
    read_blocked: bool,
    write_blocked: bool,
    readable_edge: bool,
    writable_edge: bool,
}

/// No run needs more: brokers that are out of reach for long see some thousands, or tens of them
/// with the shortest backoff.
fn most_connections(plan: &Plan) -> usize {
    if plan.config.reconnect_backoff.1 < 10 * MS { 100_000 } else { 10_000 }
}

impl Conn {
    /// The client takes it for one.
    pub(super) fn stands(&self) -> bool {
        self.client.as_ref().is_some_and(|client| client.connected == Some(Ok(())))
    }

    /// Both ends take part in it.
    pub(super) fn is_open(&self) -> bool {
        self.can_end() && self.server.as_ref().is_some_and(|server| !server.silent)
    }

    /// The client can be told of its end: it may wait for an answer that will never come.
    pub(super) fn can_end(&self) -> bool {
        self.stands()
            && self.client.as_ref().is_some_and(|client| client.end.is_none())
            && self.server.is_some()
            && !self.hole
    }
}

impl ClientEnd {
    fn readable(&mut self) {
        self.readable_edge |= std::mem::take(&mut self.read_blocked);
    }

    fn writable(&mut self) {
        self.writable_edge |= std::mem::take(&mut self.write_blocked);
    }
}

impl Network {
    /// Whether the producer has a connection.
    pub(super) fn is_in_use(&self) -> bool {
        !self.held.is_empty()
    }

    /// The connections that the client has not closed.
    pub(super) fn held(&self) -> impl Iterator<Item = (usize, &Conn)> {
        self.held.iter().filter_map(|id| Some((*id, self.conns.get(id)?)))
    }

    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            weather: plan.weather.clone(),
            conns: BTreeMap::new(),
            held: BTreeSet::new(),
            made: 0,
            rung: false,
            wrote: false,
            slept: false,
            acted: false,
            cut_writes: VecDeque::new(),
            stall: None,
        }
    }
}

/// A port on the world, as the selector has it.
pub(super) struct SimNet(pub(super) Arc<World>);

/// What ends the sender's poll.
pub(super) struct SimBell(pub(super) Arc<World>);

impl Wake for SimBell {
    fn wake(&self) {
        let mut state = self.0.lock();
        state.net.rung = true;
        state.notify(On::Net, 1);
    }
}

impl SimNet {
    /// In the middle of the sender's turn other threads may run.
    fn preempt(&self) {
        let preempted = {
            let mut state = self.0.lock();
            let one_in = state.net.weather.preempt;
            one_in > 0 && state.random.below(one_in) == 0
        };
        if let (true, Some(seat)) = (preempted, seat()) {
            seat.yield_now();
        }
    }

    fn with<R>(
        &self,
        id: ConnectionId,
        f: impl FnOnce(&mut State, usize) -> io::Result<R>,
    ) -> io::Result<R> {
        f(&mut self.0.lock(), id.0)
    }
}

impl Net for SimNet {
    fn connect(&mut self, addr: SocketAddr, _: &SocketOptions) -> io::Result<ConnectionId> {
        self.preempt();
        let mut state = self.0.lock();
        state.connect(addr)
    }

    fn finish_connect(&mut self, id: ConnectionId) -> io::Result<bool> {
        self.with(id, |state, id| match state.client(id).connected {
            None => Ok(false),
            Some(Ok(())) => Ok(true),
            Some(Err(kind)) => Err(kind.into()),
        })
    }

    fn read(&mut self, id: ConnectionId, buf: &mut [u8]) -> io::Result<usize> {
        self.preempt();
        self.with(id, |state, id| state.read(id, buf))
    }

    fn write_vectored(&mut self, id: ConnectionId, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.preempt();
        self.with(id, |state, id| state.write(id, bufs))
    }

    fn close(&mut self, id: ConnectionId) {
        self.0.lock().close(id.0);
    }

    fn poll(
        &mut self,
        timeout: Option<Duration>,
        ready: &mut Vec<Readiness>,
    ) -> io::Result<MonoTime> {
        let Some(seat) = seat() else { return Err(ErrorKind::Other.into()) };
        let stall = self.0.lock().take_stall();
        stall.into_iter().for_each(|stall| seat.sleep(stall));
        let until = {
            let mut state = self.0.lock();
            // A turn takes its time.
            let took = Duration::from_nanos(state.random.below(20_000) as u64);
            self.0.pass(&mut state, took);
            state.note_poll(timeout);
            let slept = std::mem::take(&mut state.net.slept);
            let acted = std::mem::take(&mut state.net.acted);
            state.watch_wakeup(slept, acted);
            timeout.map_or(MonoTime::MAX, |timeout| state.now + timeout)
        };
        let blocks = {
            let state = self.0.lock();
            !state.net.rung && state.now < until && !state.has_edges()
        };
        let mut by_time = false;
        if blocks {
            let early = self.0.lock().perhaps_early(until);
            by_time = seat.park(On::Net, early);
            self.0.lock().watch_overdue();
        } else {
            seat.yield_now();
        }
        let mut state = self.0.lock();
        let rung = std::mem::take(&mut state.net.rung);
        state.take_edges(ready);
        let wrote = std::mem::take(&mut state.net.wrote);
        let called = rung || wrote || blocks || !ready.is_empty();
        state.net.slept = by_time && ready.is_empty() && !rung;
        state.watch_turn(called);
        Ok(state.now)
    }
}

impl State {
    pub(super) fn conn(&mut self, id: usize) -> &mut Conn {
        self.net.conns.get_mut(&id).expect("a connection that was made")
    }

    fn client(&mut self, id: usize) -> &mut ClientEnd {
        self.conn(id).client.as_mut().expect("a connection that the client has not closed")
    }

    /// A poll may end before its time, and for nothing.
    fn perhaps_early(&mut self, until: MonoTime) -> MonoTime {
        let spurious = self.net.weather.spurious;
        if !self.chance(spurious) {
            return until;
        }
        let left = until.since(self.now).min(SECOND);
        self.now + Duration::from_nanos(self.random.below(left.as_nanos() as usize + 1) as u64)
    }

    fn take_stall(&mut self) -> Option<Duration> {
        let (stall, by) = self.net.stall.take()?;
        self.felt(by);
        self.effects.stalls.push((self.now, self.now + stall));
        Some(stall)
    }

    /// How long bytes take one way, this time.
    pub(super) fn latency(&mut self) -> Duration {
        if let Some(by) = self.effects.spike {
            self.felt(by);
        }
        let (least, most) = self.net.weather.latency;
        let spread = usize::try_from((most - least).as_nanos()).unwrap_or(usize::MAX);
        least + Duration::from_nanos(self.random.below(spread + 1) as u64)
    }

    pub(super) fn chance(&mut self, one_in: usize) -> bool {
        one_in > 0 && self.random.below(one_in) == 0
    }

    fn connect(&mut self, addr: SocketAddr) -> io::Result<ConnectionId> {
        self.net.made += 1;
        self.net.acted = true;
        let id = self.net.made;
        if self.net.made > most_connections(&self.plan) {
            self.fail(|| "it connects again and again".to_owned());
        }
        let broker = self.cluster.broker_at(addr);
        if is_bootstrap(addr) {
            self.watch.leaders.begin_anew();
        }
        let now = self.now;
        let room = self.net.weather.room;
        self.trace.note(now, "connect", [id as u64, 0], || {
            (format!("c{id}"), format!("to broker {broker}"))
        });
        let client = ClientEnd {
            connected: None,
            inbound: VecDeque::new(),
            end: None,
            room,
            read_blocked: true,
            write_blocked: true,
            readable_edge: false,
            writable_edge: false,
        };
        let conn = Conn {
            broker,
            client: Some(client),
            server: None,
            finishes: false,
            hole: false,
            broken: false,
            frames: Frames::default(),
            up_until: now,
            down_until: now,
            used_at: now,
        };
        self.net.conns.insert(id, conn);
        self.net.held.insert(id);
        let round_trip = self.latency() + self.latency();
        if let Some(result) = self.answer_to_connect(broker) {
            let event = NetEvent::Connected { conn: id, result };
            self.schedule(round_trip, Event::Net(event));
        }
        Ok(ConnectionId(id))
    }

    fn read(&mut self, id: usize, buf: &mut [u8]) -> io::Result<usize> {
        let short = self.net.weather.short;
        let is_short = self.chance(short);
        let draw = self.random.next_u64() as usize;
        let now = self.now;
        let client = self.client(id);
        if client.inbound.is_empty() {
            return match client.end {
                Some(Ok(())) => Ok(0),
                Some(Err(kind)) => Err(kind.into()),
                None => {
                    client.read_blocked = true;
                    Err(ErrorKind::WouldBlock.into())
                }
            };
        }
        let mut n = buf.len().min(client.inbound.len());
        if is_short {
            n = 1 + draw % n;
        }
        client.inbound.read_exact(&mut buf[..n])?;
        self.conn(id).frames.on_read(&buf[..n], now);
        while let Some(news) = self.conn(id).frames.take_news() {
            // What comes after a failed write may be dropped with the connection.
            if !self.conn(id).broken {
                self.watch.leaders.hear(news);
            }
        }
        self.trace
            .note(now, "read", [id as u64, n as u64], || (format!("c{id}"), format!("{n} bytes")));
        Ok(n)
    }

    fn write(&mut self, id: usize, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let short = self.net.weather.short;
        let is_short = self.chance(short);
        let draw = self.random.next_u64() as usize;
        let latency = self.latency();
        let now = self.now;
        let is_cut = !self.net.cut_writes.is_empty();
        let heard = self.watch.leaders.heard;
        let (acks, most_in_flight) = (self.plan.config.acks, self.plan.config.max_in_flight);
        let conn = self.conn(id);
        let hole = conn.hole;
        let client = conn.client.as_mut().expect("a connection that the client has not closed");
        if let Some(Err(kind)) = client.end {
            conn.broken = true;
            return Err(if kind == ErrorKind::ConnectionReset {
                ErrorKind::BrokenPipe
            } else {
                kind
            }
            .into());
        }
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        let mut n = total.min(client.room);
        if n == 0 {
            client.write_blocked = true;
            conn.frames.settled = false;
            return Err(ErrorKind::WouldBlock.into());
        }
        if is_short {
            n = 1 + draw % n;
        }
        client.room -= n;
        (self.net.wrote, self.net.acted) = (true, true);
        let conn = self.conn(id);
        let mut bytes = Vec::with_capacity(n);
        for buf in bufs {
            let take = buf.len().min(n - bytes.len());
            bytes.extend_from_slice(&buf[..take]);
        }
        let most = (acks != 0).then_some(most_in_flight);
        let watched = conn.frames.on_write(&bytes, n == total, heard, now, most);
        let at = (now + latency).max(conn.up_until);
        conn.up_until = at;
        if let Err(text) = watched {
            self.fail(|| format!("c{id}: {text}"));
        }
        if !hole && is_cut {
            let by = self.net.cut_writes.pop_front();
            by.into_iter().for_each(|by| self.felt(by));
            bytes.truncate(draw % (n + 1));
        }
        if !hole && !bytes.is_empty() {
            self.schedule_at(at, Event::Net(NetEvent::Arrive { conn: id, bytes }));
        }
        if !hole && is_cut {
            self.schedule_at(at, Event::Net(NetEvent::Break { conn: id }));
        }
        self.trace.note(now, "write", [id as u64, n as u64], || {
            (format!("c{id}"), format!("{n} of {total} bytes"))
        });
        Ok(n)
    }

    /// The client closes: what it has sent still arrives.
    fn close(&mut self, id: usize) {
        let now = self.now;
        let latency = self.latency();
        self.trace.note(now, "close", [id as u64, 0], || (format!("c{id}"), String::new()));
        self.net.held.remove(&id);
        self.net.acted = true;
        let conn = self.conn(id);
        conn.client = None;
        let at = (now + latency).max(conn.up_until);
        if !conn.hole {
            self.schedule_at(at, Event::Net(NetEvent::ClientGone { conn: id }));
        }
    }

    /// The broker sends bytes, `after` from now.
    pub(super) fn send_down(&mut self, id: usize, after: Duration, bytes: Vec<u8>) {
        if let Some(at) = self.down_at(id, after) {
            self.schedule_at(at, Event::Net(NetEvent::Deliver { conn: id, bytes }));
        }
    }

    /// The broker closes (`Ok`) or resets the connection, `after` from now.
    pub(super) fn end_down(&mut self, id: usize, after: Duration, end: Result<(), ErrorKind>) {
        self.conn(id).server = None;
        if let Some(at) = self.down_at(id, after) {
            self.schedule_at(at, Event::Net(NetEvent::End { conn: id, end }));
        }
    }

    fn down_at(&mut self, id: usize, after: Duration) -> Option<MonoTime> {
        let at = self.now + after + self.latency();
        let conn = self.conn(id);
        conn.down_until = conn.down_until.max(at);
        (!conn.hole).then_some(conn.down_until)
    }

    /// The broker has read so many bytes: the client may write as many more.
    pub(super) fn give_room(&mut self, id: usize, bytes: usize) {
        if let Some(client) = &mut self.conn(id).client {
            client.room += bytes;
            client.writable();
            self.edges_came();
        }
    }

    pub(super) fn on_net_event(&mut self, event: NetEvent) {
        match event {
            NetEvent::Connected { conn, result } => self.on_connected(conn, result),
            NetEvent::Arrive { conn, bytes } => {
                if !self.conn(conn).hole {
                    self.on_bytes(conn, bytes);
                }
            }
            NetEvent::ClientGone { conn } => self.on_client_gone(conn),
            NetEvent::Break { conn } => self.break_down(conn),
            NetEvent::Deliver { conn, bytes } => {
                let it = self.conn(conn);
                if let (false, Some(client)) = (it.hole, &mut it.client) {
                    if client.end.is_none() {
                        client.inbound.extend(bytes);
                        client.readable();
                    }
                }
            }
            NetEvent::End { conn, end } => {
                let it = self.conn(conn);
                if let (false, Some(client)) = (it.hole, &mut it.client) {
                    if client.end.is_none() {
                        if end.is_err() {
                            // A reset drops what was not read yet.
                            client.inbound.clear();
                        }
                        client.end = Some(end);
                        client.readable();
                        client.writable();
                    }
                }
                let now = self.now;
                self.trace.note(now, "end", [conn as u64, 0], || {
                    (format!("c{conn}"), format!("{end:?}"))
                });
            }
        }
        self.edges_came();
    }

    fn on_connected(&mut self, conn: usize, result: Result<(), ErrorKind>) {
        let it = self.conn(conn);
        let broker = it.broker;
        let Some(client) = &mut it.client else { return };
        client.connected = Some(result);
        client.readable_edge = result.is_err();
        client.writable_edge = true;
        if result.is_ok() {
            it.server = Some(super::cluster::ServerEnd::default());
        }
        let now = self.now;
        self.trace.note(now, "connected", [conn as u64, u64::from(result.is_ok())], || {
            (format!("c{conn}"), format!("to broker {broker}: {result:?}"))
        });
    }

    fn edges_came(&mut self) {
        if self.has_edges() {
            self.notify(On::Net, 1);
        }
    }

    fn has_edges(&self) -> bool {
        let mut clients = self.net.held().filter_map(|(_, conn)| conn.client.as_ref());
        clients.any(|client| client.readable_edge || client.writable_edge)
    }

    fn take_edges(&mut self, ready: &mut Vec<Readiness>) {
        let spurious = self.net.weather.spurious;
        let spurious = self.chance(spurious);
        for id in &self.net.held {
            let client = self.net.conns.get_mut(id).and_then(|conn| conn.client.as_mut());
            let Some(client) = client else { continue };
            let readable = std::mem::take(&mut client.readable_edge);
            let writable = std::mem::take(&mut client.writable_edge);
            if readable || writable || spurious {
                let (readable, writable) = (readable || spurious, writable || spurious);
                ready.push(Readiness { id: ConnectionId(*id), readable, writable });
            }
        }
    }

    fn note_poll(&mut self, timeout: Option<Duration>) {
        let now = self.now;
        let nanos = timeout.map_or(u64::MAX, |timeout| timeout.as_nanos() as u64);
        self.trace.note(now, "poll", [nanos, 0], || ("sender".into(), format!("{timeout:?}")));
        self.watch_overdue();
    }
}

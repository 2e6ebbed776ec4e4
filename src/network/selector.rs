//! The selector: all connections of a client, driven by one poll.
//!
//! The client calls it on the sender thread: `connect`, `send`, `poll`, and takes what has
//! completed. Reads go before writes, so that answers which a broker gave before it closed are
//! delivered before the close is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use std::vec::Drain;

use super::channel::{ChannelState, KafkaChannel};
use super::frame::{FrameError, OutFrame};
use super::transport::Transport;
use super::{ConnectionId, Net, Readiness, SocketOptions};
use crate::claims;
use crate::metrics::Traffic;
use crate::time::MonoTime;

/// The read buffer, shared by all connections: a response is copied out of it once.
const READ_BUFFER: usize = 64 * 1024;

/// What has happened on the connections. Take the kinds in the order of the fields: an answer is
/// never reported before its request's last byte, nor a connection's end before its last answer.
#[derive(Debug, Default)]
pub(crate) struct Completions {
    /// Connections that reached [`ChannelState::Negotiating`].
    pub(crate) connected: Vec<ConnectionId>,
    /// Frames whose last byte is in the socket, other than those that `send` gave back itself.
    pub(crate) sends: Vec<(ConnectionId, u64, OutFrame)>,
    /// Frames received, without their length.
    pub(crate) receives: Vec<(ConnectionId, Vec<u8>)>,
    /// Connections that ended, other than by `close`.
    pub(crate) disconnected: Vec<Disconnection>,
}

impl Completions {
    fn is_empty(&self) -> bool {
        self.connected.is_empty()
            && self.sends.is_empty()
            && self.receives.is_empty()
            && self.disconnected.is_empty()
    }
}

/// A frame whose connection ended before the frame was given back in another way.
#[derive(Debug)]
pub(crate) struct ReturnedFrame {
    pub(crate) tag: u64,
    pub(crate) frame: OutFrame,
    /// Whether any byte of it was put on the socket.
    pub(crate) started: bool,
}

/// A connection's end.
#[derive(Debug)]
pub(crate) struct Disconnection {
    pub(crate) id: ConnectionId,
    pub(crate) cause: DisconnectCause,
    /// Frames not wholly written, oldest first.
    pub(crate) unsent: Vec<ReturnedFrame>,
}

/// Why a connection ended.
#[derive(Debug)]
pub(crate) enum DisconnectCause {
    /// It never came to stand.
    ConnectFailed(io::Error),
    /// The peer closed it.
    Closed {
        /// Within a frame.
        mid_frame: bool,
    },
    /// A read, write or handshake failed.
    Failed(io::Error),
    /// What came is not a frame.
    BadFrame(FrameError),
    /// Nothing happened on it for `connections.max.idle.ms`.
    Idle,
}

impl fmt::Display for DisconnectCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectFailed(error) => write!(f, "it can't be reached: {error}"),
            Self::Closed { mid_frame: false } => f.write_str("it closed the connection"),
            Self::Closed { mid_frame: true } => {
                f.write_str("it closed the connection within a response")
            }
            Self::Failed(error) => write!(f, "the connection broke: {error}"),
            Self::BadFrame(error) => write!(f, "it sent {error}"),
            Self::Idle => f.write_str("the connection was idle"),
        }
    }
}

/// All connections of a client.
pub(crate) struct Selector<N> {
    net: N,
    channels: BTreeMap<ConnectionId, KafkaChannel>,
    /// The channels that have something to do without a further edge.
    ready: BTreeSet<ConnectionId>,
    /// What happened outside `poll`; given out by the next one.
    completed: Completions,
    max_idle: Option<Duration>,
    /// No connection is idle for too long before this.
    next_idle_check: MonoTime,
    scratch: Vec<u8>,
    readiness: Vec<Readiness>,
    turn: Vec<ConnectionId>,
    /// What connections carried since it was last taken; one may be there more than once.
    traffic: Vec<(ConnectionId, Traffic)>,
    /// Connections closed since then.
    closed: u64,
}

impl<N: Net> Selector<N> {
    /// `max_idle`: `connections.max.idle.ms`; `None` for no limit.
    pub(crate) fn new(net: N, max_idle: Option<Duration>) -> Self {
        Self {
            net,
            channels: BTreeMap::new(),
            ready: BTreeSet::new(),
            completed: Completions::default(),
            max_idle,
            next_idle_check: MonoTime::MAX,
            scratch: vec![0; READ_BUFFER],
            readiness: Vec::new(),
            turn: Vec::new(),
            traffic: Vec::new(),
            closed: 0,
        }
    }

    /// Begins to connect. A connection that can't even begin is an error; one that fails later is
    /// reported as a [`Disconnection`].
    pub(crate) fn connect(
        &mut self,
        addr: SocketAddr,
        options: &SocketOptions,
        now: MonoTime,
    ) -> io::Result<ConnectionId> {
        let id = self.net.connect(addr, options)?;
        self.channels.insert(id, KafkaChannel::new(id, Transport::Plaintext, now));
        if let Some(max_idle) = self.max_idle {
            self.next_idle_check = self.next_idle_check.min(now + max_idle);
        }
        Ok(id)
    }

    /// Whether the connection stands or is being made. One that has ended in the poll whose
    /// completions are being handled does not.
    pub(crate) fn is_open(&self, id: ConnectionId) -> bool {
        self.channels.contains_key(&id)
    }

    /// The API versions are agreed on: any request may go.
    pub(crate) fn on_negotiated(&mut self, id: ConnectionId) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.transition_to(ChannelState::Ready);
        }
    }

    /// Queues a frame and writes what the socket takes now. Gives the frame back if that was all
    /// of it; else it comes with the completed sends, or with the connection's end.
    pub(crate) fn send(
        &mut self,
        id: ConnectionId,
        tag: u64,
        frame: OutFrame,
        now: MonoTime,
    ) -> Option<OutFrame> {
        let Some(channel) = self.channels.get_mut(&id) else {
            // It broke since the last poll; the caller is about to hear of it.
            self.hand_back(id, ReturnedFrame { tag, frame, started: false });
            return None;
        };
        channel.last_active = now;
        channel.enqueue(tag, frame);
        let (mut own, sends) = (None, &mut self.completed.sends);
        let result = channel.write(&mut self.net, |done, frame| {
            if done == tag { own = Some(frame) } else { sends.push((id, done, frame)) }
        });
        match result {
            Ok(()) => self.note_ready(id),
            Err(error) => self.on_broken(id, error),
        }
        self.invariants();
        own
    }

    fn hand_back(&mut self, id: ConnectionId, unsent: ReturnedFrame) {
        match self.completed.disconnected.iter_mut().find(|d| d.id == id) {
            Some(disconnection) => disconnection.unsent.push(unsent),
            None => {
                debug_assert!(false, "a frame for {id:?}, which is closed");
                let cause = DisconnectCause::Closed { mid_frame: false };
                self.completed.disconnected.push(Disconnection { id, cause, unsent: vec![unsent] });
            }
        }
    }

    /// A write failed. What the broker answered before that may still be there to be read.
    fn on_broken(&mut self, id: ConnectionId, error: io::Error) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.on_edge(true, false);
            let receives = &mut self.completed.receives;
            // Whatever ends the reading, the failed write is the cause.
            let _ = channel.read(&mut self.net, &mut self.scratch, |body| {
                receives.push((id, body));
            });
        }
        self.disconnect(id, DisconnectCause::Failed(error));
    }

    fn disconnect(&mut self, id: ConnectionId, cause: DisconnectCause) {
        let unsent = self.remove(id);
        self.completed.disconnected.push(Disconnection { id, cause, unsent });
    }

    fn remove(&mut self, id: ConnectionId) -> Vec<ReturnedFrame> {
        self.note_traffic(id);
        let Some(channel) = self.channels.remove(&id) else { return Vec::new() };
        self.closed += 1;
        self.ready.remove(&id);
        self.net.close(id);
        channel.into_unsent()
    }

    /// Closes a connection and forgets what happened on it. Gives back the frames that it still
    /// holds, oldest first.
    pub(crate) fn close(&mut self, id: ConnectionId) -> Vec<ReturnedFrame> {
        // A frame is parked only while its socket is full, and a poll writes until it is full
        // again: between polls no completed frame is left here.
        debug_assert!(self.completed.sends.iter().all(|(of, ..)| *of != id));
        let mut returned = self.remove(id);
        self.completed.receives.retain(|(of, _)| *of != id);
        let ended = &mut self.completed.disconnected;
        if let Some(i) = ended.iter().position(|d| d.id == id) {
            returned.extend(ended.remove(i).unsent);
        }
        returned
    }

    fn note_traffic(&mut self, id: ConnectionId) {
        let carried = self.channels.get_mut(&id).map(KafkaChannel::take_traffic);
        let carried = carried.filter(|traffic| *traffic != Traffic::default());
        self.traffic.extend(carried.map(|traffic| (id, traffic)));
    }

    /// What connections carried since the last time, and how many were closed.
    pub(crate) fn take_traffic(&mut self) -> (Drain<'_, (ConnectionId, Traffic)>, u64) {
        (self.traffic.drain(..), std::mem::take(&mut self.closed))
    }

    /// Whether there is something to take.
    pub(crate) fn has_traffic(&self) -> bool {
        !self.traffic.is_empty() || self.closed > 0
    }

    /// Connections that stand or are being made.
    pub(crate) fn connection_count(&self) -> usize {
        self.channels.len()
    }

    /// How long the last poll waited.
    pub(crate) fn waited(&self) -> Duration {
        self.net.waited()
    }

    /// While muted, a connection isn't read from.
    #[cfg(test)]
    pub(crate) fn set_muted(&mut self, id: ConnectionId, muted: bool) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.set_muted(muted);
            self.note_ready(id);
        }
    }

    /// Keeps the ready set true to the channel, and notes what it has carried.
    fn note_ready(&mut self, id: ConnectionId) {
        self.note_traffic(id);
        if self.channels.get(&id).is_some_and(KafkaChannel::wants_turn) {
            self.ready.insert(id);
        } else {
            self.ready.remove(&id);
        }
    }

    /// Waits for something to happen, up to `timeout` (`None`: for ever), gives each connection
    /// with something to do a turn, and exchanges `out` for what has completed.
    pub(crate) fn poll(
        &mut self,
        timeout: Option<Duration>,
        now: MonoTime,
        out: &mut Completions,
    ) -> io::Result<MonoTime> {
        debug_assert!(out.is_empty(), "completions of the last poll were not taken");
        let timeout = self.poll_timeout(timeout, now);
        self.readiness.clear();
        let now = self.net.poll(timeout, &mut self.readiness)?;
        for edge in &self.readiness {
            if let Some(channel) = self.channels.get_mut(&edge.id) {
                channel.on_edge(edge.readable, edge.writable);
                if channel.wants_turn() {
                    self.ready.insert(edge.id);
                }
            }
        }
        let mut turn = std::mem::take(&mut self.turn);
        turn.extend(self.ready.iter().copied());
        for id in turn.drain(..) {
            self.take_turn(id, now);
        }
        self.turn = turn;
        self.close_idle(now);
        self.invariants();
        std::mem::swap(&mut self.completed, out);
        Ok(now)
    }

    /// Between polls: a connection is looked at without an edge if it has something to do, and
    /// only then; and none will be idle for too long unseen.
    fn invariants(&self) {
        if !claims::are_checked() {
            return;
        }
        for (id, channel) in &self.channels {
            assert_eq!(self.ready.contains(id), channel.wants_turn(), "{channel:?}");
            channel.invariants();
            let idle_at = self.max_idle.map_or(MonoTime::MAX, |idle| channel.last_active + idle);
            assert!(self.next_idle_check <= idle_at, "nobody sees it idle: {channel:?}");
        }
        assert!(self.ready.iter().all(|id| self.channels.contains_key(id)), "gone, and ready");
        let mut ended = self.completed.disconnected.iter();
        assert!(ended.all(|ended| !self.channels.contains_key(&ended.id)), "ended, and open");
    }

    fn poll_timeout(&self, timeout: Option<Duration>, now: MonoTime) -> Option<Duration> {
        if !self.ready.is_empty() || !self.completed.is_empty() {
            return Some(Duration::ZERO);
        }
        if self.next_idle_check == MonoTime::MAX {
            return timeout;
        }
        let idle = self.next_idle_check.since(now);
        Some(timeout.map_or(idle, |timeout| timeout.min(idle)))
    }

    fn take_turn(&mut self, id: ConnectionId, now: MonoTime) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        channel.last_active = now;
        if !matches!(
            channel.state(),
            ChannelState::Negotiating | ChannelState::Ready | ChannelState::Reauthenticating
        ) {
            match channel.establish(&mut self.net) {
                Ok(true) => self.completed.connected.push(id),
                Ok(false) => {}
                Err(cause) => return self.disconnect(id, cause),
            }
            return self.note_ready(id);
        }
        let receives = &mut self.completed.receives;
        let read = channel.read(&mut self.net, &mut self.scratch, |body| receives.push((id, body)));
        if let Err(cause) = read {
            return self.disconnect(id, cause);
        }
        let sends = &mut self.completed.sends;
        let written = channel.write(&mut self.net, |tag, frame| sends.push((id, tag, frame)));
        match written {
            Ok(()) => self.note_ready(id),
            Err(error) => self.on_broken(id, error),
        }
    }

    /// Closes what has been idle for too long. Connections are looked through only when the one
    /// idle for longest may have reached the limit.
    fn close_idle(&mut self, now: MonoTime) {
        let Some(max_idle) = self.max_idle else { return };
        if now < self.next_idle_check {
            return;
        }
        let mut next = MonoTime::MAX;
        let mut idle = Vec::new();
        for (id, channel) in &self.channels {
            let limit = channel.last_active + max_idle;
            if limit <= now { idle.push(*id) } else { next = next.min(limit) }
        }
        self.next_idle_check = next;
        for id in idle {
            self.disconnect(id, DisconnectCause::Idle);
        }
    }
}

#[cfg(test)]
#[path = "selector_tests.rs"]
mod tests;

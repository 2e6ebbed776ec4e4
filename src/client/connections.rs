//! One node as the client knows it: the state of its connection, its backoff, its addresses.
//!
//! An attempt to connect looks the name up anew and tries all its addresses: one after the other,
//! but a slow one is not waited for, and the first that comes to stand goes on (RFC 8305). Only
//! when none of them led to a ready connection has the attempt failed, and the backoff grows. The
//! client keeps these values on the sender thread.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::api_versions::NodeApiVersions;
use super::in_flight::InFlightRequests;
use super::{ClientConfig, NodeAddress};
use crate::claims;
use crate::network::ConnectionId;
use crate::random::Random;
use crate::time::MonoTime;

/// Where a node's connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionState {
    /// There is none; an attempt may begin at the node's `not_before`.
    Disconnected,
    /// The name is being looked up.
    Resolving { deadline: MonoTime },
    /// Addresses are being connected to: [`Node::racing`].
    Connecting,
    /// ApiVersions, of this version, is under way.
    Negotiating { id: ConnectionId, deadline: MonoTime, asked: i16, correlation_id: i32 },
    /// Requests may be sent.
    Ready { id: ConnectionId },
}

/// How long an address has for itself before the next one is tried beside it: as RFC 8305 has it.
const HEAD_START: Duration = Duration::from_millis(250);

/// No middlebox that is in its right mind cuts a connection sooner for want of use.
const STALE_AFTER: Duration = Duration::from_secs(10);

/// An address that is being connected to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Racer {
    pub(super) id: ConnectionId,
    pub(super) address: SocketAddr,
    /// When it has taken too long.
    pub(super) deadline: MonoTime,
}

/// A node and its connection.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) address: NodeAddress,
    state: ConnectionState,
    /// No longer in the set: ends with its last request in flight.
    pub(super) is_retiring: bool,
    /// Ends of the connection or of attempts since it was last ready; the backoff's exponent.
    failures: u32,
    /// Attempts failed since it was last ready; the set-up time-out's exponent.
    failed_setups: u32,
    /// No attempt before this: the backoff's end.
    not_before: MonoTime,
    pub(super) last_attempt: Option<MonoTime>,
    pub(super) throttled_until: MonoTime,
    /// The addresses still to be tried in this attempt.
    pub(super) addresses: VecDeque<SocketAddr>,
    /// Those that are being connected to.
    racing: Vec<Racer>,
    /// When the next address is to be tried beside them.
    next_racer_at: MonoTime,
    pub(super) last_address: Option<SocketAddr>,
    /// What became of the addresses tried in this attempt.
    pub(super) address_failures: Vec<String>,
    /// The connection has served a request of the caller's: see [`Node::on_used`].
    pub(super) has_served: bool,
    /// When the connection was last of use; since it was ready.
    last_used: MonoTime,
    /// Known while it is ready.
    pub(super) versions: Option<NodeApiVersions>,
    pub(super) in_flight: InFlightRequests,
}

impl Node {
    pub(super) fn new(address: NodeAddress) -> Self {
        Self {
            address,
            state: ConnectionState::Disconnected,
            is_retiring: false,
            failures: 0,
            failed_setups: 0,
            not_before: MonoTime::ZERO,
            last_attempt: None,
            throttled_until: MonoTime::ZERO,
            addresses: VecDeque::new(),
            racing: Vec::new(),
            next_racer_at: MonoTime::MAX,
            last_address: None,
            address_failures: Vec::new(),
            has_served: false,
            last_used: MonoTime::ZERO,
            versions: None,
            in_flight: InFlightRequests::default(),
        }
    }

    pub(super) fn state(&self) -> ConnectionState {
        self.state
    }

    /// The ids of all its sockets.
    pub(super) fn connections(&self) -> impl Iterator<Item = ConnectionId> {
        let (won, racing) = match self.state {
            ConnectionState::Negotiating { id, .. } | ConnectionState::Ready { id } => {
                (Some(id), &[][..])
            }
            _ => (None, &self.racing[..]),
        };
        won.into_iter().chain(racing.iter().map(|racer| racer.id))
    }

    /// The same, which are to be closed: the racers are forgotten.
    pub(super) fn take_connections(&mut self) -> Vec<ConnectionId> {
        let connections = self.connections().collect();
        self.racing.clear();
        connections
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.state, ConnectionState::Ready { .. })
    }

    /// An attempt is under way.
    pub(super) fn is_preparing(&self) -> bool {
        !self.is_ready() && self.state != ConnectionState::Disconnected
    }

    pub(super) fn is_throttled(&self, now: MonoTime) -> bool {
        now < self.throttled_until
    }

    pub(super) fn can_send(&self, max_in_flight: usize, now: MonoTime) -> bool {
        self.is_ready()
            && !self.is_retiring
            && !self.is_throttled(now)
            && self.in_flight.len() < max_in_flight
    }

    pub(super) fn can_connect(&self, now: MonoTime) -> bool {
        self.state == ConnectionState::Disconnected && !self.is_retiring && now >= self.not_before
    }

    /// How long until `can_connect` or `can_send` may change with nothing but time.
    pub(super) fn delay(&self, now: MonoTime) -> Duration {
        match self.state {
            ConnectionState::Disconnected => self.not_before.since(now),
            ConnectionState::Ready { .. } if self.is_throttled(now) => {
                self.throttled_until.since(now)
            }
            _ => Duration::MAX,
        }
    }

    /// When something has taken too long: the set-up, or a request.
    pub(super) fn next_deadline(&self) -> Option<MonoTime> {
        match self.state {
            ConnectionState::Disconnected => None,
            ConnectionState::Resolving { deadline }
            | ConnectionState::Negotiating { deadline, .. } => Some(deadline),
            ConnectionState::Connecting => {
                let next = Some(self.next_racer_at).filter(|_| !self.addresses.is_empty());
                self.racing.iter().map(|racer| racer.deadline).chain(next).min()
            }
            ConnectionState::Ready { .. } => self.in_flight.next_deadline(),
        }
    }

    /// How it is called in errors.
    pub(super) fn name(&self) -> String {
        self.address.name()
    }

    /// The set-up of one address, or the look-up of the name, may take until the time returned.
    pub(super) fn setup_deadline(
        &self,
        config: &ClientConfig,
        random: &mut Random,
        now: MonoTime,
    ) -> MonoTime {
        let (base, max) = (config.connection_setup_timeout, config.connection_setup_timeout_max);
        now + random.backoff(base, max, self.failed_setups)
    }

    pub(super) fn on_attempt(&mut self, deadline: MonoTime, now: MonoTime) {
        debug_assert!(self.can_connect(now), "{self:?}");
        self.state = ConnectionState::Resolving { deadline };
        self.last_attempt = Some(now);
        self.address_failures.clear();
    }

    /// The addresses of this attempt. The one tried last comes last: it may be the one that fails.
    /// IPv4 and IPv6 take turns, lest one that leads nowhere hold the other up (RFC 8305).
    pub(super) fn on_resolved(&mut self, mut addresses: Vec<SocketAddr>) {
        if addresses.first() == self.last_address.as_ref() && !addresses.is_empty() {
            addresses.rotate_left(1);
        }
        let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
        let (mut ours, mut others): (VecDeque<_>, VecDeque<_>) =
            addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
        self.addresses.clear();
        while !ours.is_empty() || !others.is_empty() {
            self.addresses.extend(ours.pop_front());
            self.addresses.extend(others.pop_front());
        }
    }

    /// An address is being connected to, beside those that are already.
    pub(super) fn on_connecting(&mut self, racer: Racer, now: MonoTime) {
        debug_assert!(self.is_preparing(), "{self:?}");
        self.state = ConnectionState::Connecting;
        self.last_address = Some(racer.address);
        self.racing.push(racer);
        self.next_racer_at = now + HEAD_START;
    }

    pub(super) fn is_racing(&self) -> bool {
        !self.racing.is_empty()
    }

    /// Takes a racer out that has failed.
    pub(super) fn on_racer_failed(&mut self, id: ConnectionId) -> Option<Racer> {
        let place = self.racing.iter().position(|racer| racer.id == id)?;
        Some(self.racing.remove(place))
    }

    /// The racers that have taken too long.
    pub(super) fn late_racers(&self, now: MonoTime) -> Vec<ConnectionId> {
        let late = self.racing.iter().filter(|racer| racer.deadline <= now);
        late.map(|racer| racer.id).collect()
    }

    /// Whether the next address is to be tried, beside those being tried.
    pub(super) fn wants_racer(&self, now: MonoTime) -> bool {
        self.next_racer_at <= now && !self.addresses.is_empty()
    }

    /// A racer has come to stand. Gives the others, to be closed; their addresses are the next to
    /// be tried should this one be of no use.
    pub(super) fn on_won(&mut self, id: ConnectionId) -> Option<(Racer, Vec<ConnectionId>)> {
        let winner = self.on_racer_failed(id)?;
        self.last_address = Some(winner.address);
        let others: Vec<Racer> = self.racing.drain(..).collect();
        for other in others.iter().rev() {
            self.addresses.push_front(other.address);
        }
        Some((winner, others.iter().map(|other| other.id).collect()))
    }

    pub(super) fn on_asked(
        &mut self,
        id: ConnectionId,
        deadline: MonoTime,
        asked: i16,
        correlation_id: i32,
    ) {
        debug_assert!(self.is_preparing(), "{self:?}");
        self.state = ConnectionState::Negotiating { id, deadline, asked, correlation_id };
    }

    pub(super) fn on_ready(&mut self, id: ConnectionId, versions: NodeApiVersions, now: MonoTime) {
        debug_assert!(matches!(self.state, ConnectionState::Negotiating { .. }), "{self:?}");
        self.state = ConnectionState::Ready { id };
        self.versions = Some(versions);
        (self.has_served, self.last_used) = (false, now);
        (self.failures, self.failed_setups) = (0, 0);
        self.addresses.clear();
        self.address_failures.clear();
    }

    /// The connection ended, or an attempt to make one: the backoff begins.
    pub(super) fn on_disconnected(
        &mut self,
        config: &ClientConfig,
        random: &mut Random,
        now: MonoTime,
    ) {
        let (base, max) = (config.reconnect_backoff, config.reconnect_backoff_max);
        self.not_before = now + random.backoff(base, max, self.failures);
        self.failures = self.failures.saturating_add(1);
        if self.is_preparing() {
            self.failed_setups = self.failed_setups.saturating_add(1);
        }
        self.forget_connection();
    }

    /// A request was answered, or taken whole where it wants no answer (acks=0).
    pub(super) fn on_used(&mut self, now: MonoTime) {
        (self.has_served, self.last_used) = (true, now);
    }

    /// Whether the connection, which has just ended, had been of no use for so long that it may
    /// have been dead since: load balancers and firewalls cut such connections, often in silence.
    /// What is under way on it was sent after that time.
    pub(super) fn was_stale(&self, now: MonoTime) -> bool {
        let next_use = self.in_flight.oldest().map_or(now, |request| request.created_at);
        self.is_ready() && next_use.since(self.last_used) >= STALE_AFTER
    }

    /// The connection was given up for want of use: a new one may be made at once.
    pub(super) fn on_idle(&mut self) {
        self.forget_connection();
    }

    /// Between calls: versions are known, and requests in flight, only where a connection is ready;
    /// addresses are raced for while it connects, and only then; who has left ends with its last
    /// request.
    pub(super) fn invariants(&self) {
        if !claims::are_checked() {
            return;
        }
        assert_eq!(self.versions.is_some(), self.is_ready(), "{self:?}");
        assert!(self.is_ready() || self.in_flight.is_empty(), "{self:?}");
        assert!(self.is_preparing() || self.addresses.is_empty(), "{self:?}");
        assert_eq!(self.state == ConnectionState::Connecting, self.is_racing(), "{self:?}");
        assert!(!self.is_ready() || self.address_failures.is_empty(), "{self:?}");
        assert!(self.failed_setups <= self.failures, "{self:?}");
        let is_leaving = self.is_retiring && self.is_ready();
        assert!(!is_leaving || !self.in_flight.is_empty(), "it stays: {self:?}");
    }

    fn forget_connection(&mut self) {
        debug_assert!(self.racing.is_empty(), "{self:?}");
        self.state = ConnectionState::Disconnected;
        self.versions = None;
        self.addresses.clear();
    }
}

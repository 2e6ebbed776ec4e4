//! The real [`KafkaClient`]: nodes over a selector, driven by `poll` on the sender thread.
//!
//! What the sender asks for is answered here; what the network brings is in [`super::events`].
//! All waiting is one deadline, `timers_due`: set-up time-outs and request time-outs.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::api_versions::FinalizedFeatures;
use super::connections::{ConnectionState, Node};
use super::in_flight::InFlight;
use super::resolver::{Resolved, Resolver};
use super::{
    ClientConfig, ClientEvent, ClientRequest, ClientResponse, KafkaClient, NodeAddress,
    RequestFailure, ResponseBody, UnsupportedVersion, VersionError,
};
use crate::claims;
use crate::metrics::{Sensors, SharedSensors};
use crate::network::{Completions, ConnectionId, Net, OutFrame, ReturnedFrame, Selector};
use crate::protocol::ApiKey;
use crate::random::Random;
use crate::time::MonoTime;
use crate::types::NodeId;

/// Correlation ids from here on are kept for the authentication's own requests, which a response
/// to an older request must not be taken for.
const FIRST_RESERVED_CORRELATION_ID: i32 = i32::MAX - 7;

/// How a connection ended, as far as its requests are concerned.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Lost,
    /// It had not been used for long.
    Stale,
    /// By now a request has taken too long; perhaps not all have.
    Overdue(MonoTime),
}

/// Connections to all nodes, and the requests on them.
pub(crate) struct NetworkClient<N, R> {
    pub(super) config: ClientConfig,
    pub(super) selector: Selector<N>,
    pub(super) resolver: R,
    pub(super) random: Random,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    /// Whose a connection is; holds exactly the nodes' connections.
    pub(super) owners: BTreeMap<ConnectionId, NodeId>,
    pub(super) features: FinalizedFeatures,
    next_correlation_id: i32,
    in_flight_total: usize,
    /// What has happened and was not yet told.
    pub(super) events: Vec<ClientEvent>,
    /// Nothing times out before this.
    pub(super) timers_due: MonoTime,
    /// Reused from poll to poll.
    pub(super) completions: Completions,
    pub(super) resolved: Vec<Resolved>,
    pub(super) sensors: Arc<SharedSensors>,
    /// When the last poll ended, which is the time since.
    polled_at: MonoTime,
    /// Connections and requests as the sensors know them.
    counts: (usize, usize),
}

impl<N: Net, R: Resolver> NetworkClient<N, R> {
    pub(crate) fn new(net: N, resolver: R, config: ClientConfig) -> Self {
        Self {
            selector: Selector::new(net, config.connections_max_idle),
            resolver,
            random: Random::new(config.seed),
            config,
            nodes: BTreeMap::new(),
            owners: BTreeMap::new(),
            features: FinalizedFeatures::default(),
            next_correlation_id: 0,
            in_flight_total: 0,
            events: Vec::new(),
            timers_due: MonoTime::MAX,
            completions: Completions::default(),
            resolved: Vec::new(),
            sensors: Arc::default(),
            polled_at: MonoTime::ZERO,
            counts: (0, 0),
        }
    }

    /// Has what the connections carry recorded there.
    pub(crate) fn recording_to(self, sensors: Arc<SharedSensors>) -> Self {
        Self { sensors, ..self }
    }

    /// Records what the connections have carried, and how many there are and requests on them.
    /// Before a connection's owner is forgotten, so that it counts as the owner's. With what else
    /// there is to record, in one turn of the sensors' lock.
    fn record(&mut self, also: impl FnOnce(&mut Sensors)) {
        let now = self.polled_at;
        let (connections, requests) = self.counts();
        self.counts = (connections, requests);
        let (traffic, closed) = self.selector.take_traffic();
        self.sensors.with(|sensors| {
            also(sensors);
            for (id, traffic) in traffic {
                sensors.on_traffic(self.owners.get(&id).copied(), &traffic, now);
            }
            if closed > 0 {
                sensors.on_closed(closed, now);
            }
            sensors.on_turn(connections, requests);
        });
    }

    /// Whether the sensors are behind.
    fn has_news(&self) -> bool {
        self.selector.has_traffic() || self.counts != self.counts()
    }

    /// How many connections there are, and requests on them.
    fn counts(&self) -> (usize, usize) {
        (self.selector.connection_count(), self.in_flight_total)
    }

    #[cfg(test)]
    pub(super) fn set_next_correlation_id(&mut self, id: i32) {
        self.next_correlation_id = id;
    }

    /// The caller's requests to `node` that have not ended.
    #[cfg(test)]
    pub(super) fn in_flight_count(&self, node: NodeId) -> usize {
        self.nodes.get(&node).map_or(0, |node| node.in_flight.len())
    }

    /// The caller's requests that have not ended.
    #[cfg(test)]
    pub(super) fn in_flight_total(&self) -> usize {
        self.in_flight_total
    }

    pub(super) fn note_deadline(&mut self, deadline: MonoTime) {
        self.timers_due = self.timers_due.min(deadline);
    }

    /// The thread was busy since the last poll, but for the time that this one waited.
    fn on_polled(&mut self, now: MonoTime) {
        let waited = self.selector.waited();
        let busy = now.since(self.polled_at).saturating_sub(waited);
        self.polled_at = now;
        self.record(|sensors| sensors.on_select(waited, busy, now));
    }

    /// A request has ended.
    pub(super) fn finish(
        &mut self,
        node: NodeId,
        request: InFlight,
        outcome: Result<ResponseBody, RequestFailure>,
    ) {
        self.in_flight_total -= 1;
        self.events.push(request.into_event(node, outcome));
    }

    /// A connection gives a frame back after its last byte was written.
    pub(super) fn on_written(&mut self, node: NodeId, tag: u64, frame: OutFrame, now: MonoTime) {
        let Some(state) = self.nodes.get_mut(&node) else { return };
        if let Some(request) = state.in_flight.on_frame_back(id_of(tag), frame, true, true) {
            state.on_used(now);
            self.finish(node, request, Ok(ResponseBody::None));
            self.retire(node);
        }
    }

    /// Ends all requests of a node whose connection is gone, in the order in which they were sent.
    pub(super) fn fail_in_flight(&mut self, node: NodeId, returned: Vec<ReturnedFrame>, end: End) {
        let Some(state) = self.nodes.get_mut(&node) else { return };
        for ReturnedFrame { tag, frame, started } in returned {
            state.in_flight.on_frame_back(id_of(tag), frame, started, false);
        }
        for request in state.in_flight.take() {
            let failure = match end {
                End::Overdue(now) if request.deadline <= now => RequestFailure::TimedOut,
                End::Overdue(_) | End::Lost => RequestFailure::Disconnected,
                End::Stale => RequestFailure::Stale,
            };
            self.finish(node, request, Err(failure));
        }
    }

    /// Between calls: each connection is one node's, requests are in flight where a connection is
    /// ready, no more than allowed, and nothing times out unseen.
    fn invariants(&self) {
        if !claims::are_checked() {
            return;
        }
        let mut in_flight = 0;
        let mut connections = 0;
        for (id, node) in &self.nodes {
            node.invariants();
            assert_eq!(node.address.id, *id, "{node:?}");
            for connection in node.connections() {
                connections += 1;
                assert_eq!(self.owners.get(&connection), Some(id), "not its own: {node:?}");
            }
            in_flight += node.in_flight.len();
            assert!(node.in_flight.len() <= self.config.max_in_flight, "too many: {node:?}");
            let due = node.next_deadline().unwrap_or(MonoTime::MAX);
            assert!(self.timers_due <= due, "a deadline that nobody awaits: {node:?}");
        }
        assert_eq!(connections, self.owners.len(), "connections of nobody");
        // One that has broken since the last poll is gone, and will be told of.
        assert!(self.selector.connection_count() <= connections, "a socket of nobody");
        assert!(self.next_correlation_id < FIRST_RESERVED_CORRELATION_ID, "an id of others");
        assert_eq!(in_flight, self.in_flight_total, "requests are miscounted");
    }

    /// Closes a node's connection, if there is one, and ends its requests.
    pub(super) fn cut(&mut self, node: NodeId, end: End) {
        let connections = self.nodes.get_mut(&node).map(Node::take_connections);
        self.record(|_| ());
        for id in connections.into_iter().flatten() {
            self.owners.remove(&id);
            let returned = self.selector.close(id);
            self.fail_in_flight(node, returned, end);
        }
    }

    /// Forgets a node that left the set, once it has nothing in flight.
    pub(super) fn retire(&mut self, node: NodeId) {
        if self.nodes.get(&node).is_some_and(|n| n.is_retiring && n.in_flight.is_empty()) {
            self.cut(node, End::Lost);
            self.nodes.remove(&node);
            self.sensors.with(|sensors| sensors.forget_node(node));
        }
    }

    /// A request that can't go anywhere.
    fn refuse(&mut self, request: ClientRequest, now: MonoTime) {
        debug_assert!(false, "a request to {}, which is not ready", request.node);
        self.events.push(ClientEvent::Response(ClientResponse {
            node: request.node,
            tag: request.tag,
            api: request.api,
            version: request.version,
            frame: request.frame,
            outcome: Err(RequestFailure::Disconnected),
            sent: false,
            created_at: now,
        }));
    }
}

/// The selector's tag of a request is its correlation id.
pub(super) fn tag_of(correlation_id: i32) -> u64 {
    u64::from(correlation_id.unsigned_abs())
}

fn id_of(tag: u64) -> i32 {
    i32::try_from(tag).unwrap_or(-1)
}

impl<N: Net, R: Resolver> KafkaClient for NetworkClient<N, R> {
    fn set_nodes(&mut self, nodes: Vec<NodeAddress>, _now: MonoTime) {
        for node in self.nodes.values_mut() {
            node.is_retiring = true;
        }
        for address in nodes {
            let id = address.id;
            match self.nodes.get_mut(&id) {
                Some(node) if node.address == address => node.is_retiring = false,
                _ => {
                    self.cut(id, End::Lost);
                    self.nodes.insert(id, Node::new(address));
                }
            }
        }
        let retiring = self.nodes.iter().filter(|(_, node)| node.is_retiring);
        for id in retiring.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.retire(id);
        }
        self.invariants();
    }

    fn ready(&mut self, node: NodeId, now: MonoTime) -> bool {
        let Some(state) = self.nodes.get(&node) else { return false };
        if state.can_connect(now) {
            self.begin_attempt(node, now);
            self.invariants();
        }
        self.is_ready(node, now)
    }

    fn is_ready(&self, node: NodeId, now: MonoTime) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.can_send(self.config.max_in_flight, now))
    }

    fn ready_delay(&self, node: NodeId, now: MonoTime) -> Duration {
        self.nodes.get(&node).map_or(Duration::MAX, |node| node.delay(now))
    }

    fn least_loaded_node(&mut self, now: MonoTime) -> Option<NodeId> {
        let start = self.random.below(self.nodes.len());
        let (mut ready, mut preparing, mut connectable) = (None, None, None);
        // From a random node on, so that equals share the load.
        for (id, node) in self.nodes.iter().cycle().skip(start).take(self.nodes.len()) {
            if node.can_send(self.config.max_in_flight, now) {
                let load = node.in_flight.len();
                if ready.is_none_or(|(least, _)| load < least) {
                    ready = Some((load, *id));
                }
            } else if node.is_preparing() && !node.is_retiring {
                preparing = Some(*id);
            } else if node.can_connect(now)
                && connectable.is_none_or(|(oldest, _)| node.last_attempt < oldest)
            {
                connectable = Some((node.last_attempt, *id));
            }
        }
        ready.map(|(_, id)| id).or(preparing).or(connectable.map(|(_, id)| id))
    }

    fn any_node_available(&self, now: MonoTime) -> bool {
        let mut nodes = self.nodes.values().filter(|node| !node.is_retiring);
        nodes.any(|node| node.is_ready() || node.is_preparing() || node.can_connect(now))
    }

    fn api_version(&self, node: NodeId, api: ApiKey) -> Result<i16, VersionError> {
        let versions = self.nodes.get(&node).and_then(|node| node.versions.as_ref());
        let versions = versions.ok_or(VersionError::NotReady)?;
        versions.highest_common(api).ok_or_else(|| {
            let (client, broker) = (api.supported(), versions.of(api));
            let node = self.nodes.get(&node).map(Node::name).unwrap_or_default();
            VersionError::Unsupported(UnsupportedVersion { node, api, client, broker })
        })
    }

    fn finalized_feature(&self, name: &str) -> Option<i16> {
        self.features.level(name)
    }

    fn next_correlation_id(&mut self) -> i32 {
        let id = self.next_correlation_id;
        self.next_correlation_id = if id + 1 == FIRST_RESERVED_CORRELATION_ID { 0 } else { id + 1 };
        id
    }

    fn client_id(&self) -> &str {
        &self.config.client_id
    }

    fn send(&mut self, request: ClientRequest, now: MonoTime) {
        let Some(node) = self.nodes.get_mut(&request.node) else {
            return self.refuse(request, now);
        };
        let ConnectionState::Ready { id } = node.state() else {
            return self.refuse(request, now);
        };
        debug_assert!(node.in_flight.len() < self.config.max_in_flight, "more than allowed");
        let deadline = now + request.timeout;
        node.in_flight.push(InFlight {
            correlation_id: request.correlation_id,
            api: request.api,
            version: request.version,
            tag: request.tag,
            expects_response: request.expects_response,
            created_at: now,
            deadline,
            frame: None,
            sent: false,
        });
        self.in_flight_total += 1;
        self.note_deadline(deadline);
        let tag = tag_of(request.correlation_id);
        if let Some(frame) = self.selector.send(id, tag, request.frame, now) {
            self.on_written(request.node, tag, frame, now);
        }
        self.invariants();
    }

    fn throttle(&mut self, node: NodeId, duration: Duration, now: MonoTime) {
        if duration.is_zero() {
            return;
        }
        if let Some(node) = self.nodes.get_mut(&node) {
            node.throttled_until = node.throttled_until.max(now + duration);
            node.in_flight.postpone(duration);
        }
        self.invariants();
    }

    fn disconnect(&mut self, node: NodeId, now: MonoTime) {
        let Some(state) = self.nodes.get(&node) else { return };
        if state.state() == ConnectionState::Disconnected {
            return;
        }
        self.cut(node, End::Lost);
        if let Some(state) = self.nodes.get_mut(&node) {
            state.on_disconnected(&self.config, &mut self.random, now);
        }
        self.retire(node);
        self.invariants();
    }

    fn poll(
        &mut self,
        timeout: Option<Duration>,
        now: MonoTime,
        events: &mut Vec<ClientEvent>,
    ) -> io::Result<MonoTime> {
        let timeout = if !self.events.is_empty() {
            Some(Duration::ZERO)
        } else if self.timers_due == MonoTime::MAX {
            timeout
        } else {
            let due = self.timers_due.since(now);
            Some(timeout.map_or(due, |timeout| timeout.min(due)))
        };
        if timeout != Some(Duration::ZERO) && self.has_news() {
            // It may be long until the poll is over.
            self.record(|_| ());
        }
        let mut completions = std::mem::take(&mut self.completions);
        let now = self.selector.poll(timeout, now, &mut completions)?;
        self.on_polled(now);
        self.handle_completions(&mut completions, now);
        self.completions = completions;
        self.handle_resolved(now);
        self.handle_timers(now);
        self.invariants();
        events.append(&mut self.events);
        Ok(now)
    }

    fn close(&mut self, _now: MonoTime, events: &mut Vec<ClientEvent>) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.cut(id, End::Lost);
        }
        self.nodes.clear();
        self.record(|_| ());
        self.invariants();
        events.append(&mut self.events);
    }
}

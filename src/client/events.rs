//! What the network brings the client: connections that come to stand, answers, ends, time-outs.
//!
//! All of it is called by [`NetworkClient`]'s `poll`, save `begin_attempt`, with which `ready`
//! starts a connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::api_versions::{self, Negotiation};
use super::connections::{ConnectionState, Node, Racer};
use super::network_client::{End, NetworkClient, tag_of};
use super::request::{request_frame, split_response};
use super::resolver::{Resolved, Resolver};
use super::{ClientEvent, KafkaClient, RequestFailure, ResponseBody, Stage};
use crate::network::{Completions, ConnectionId, DisconnectCause, Disconnection, Net};
use crate::protocol::{ApiKey, VersionRange};
use crate::time::MonoTime;
use crate::types::NodeId;

/// A listener that expects TLS ends the connection when it reads ApiVersions. So does a broker
/// before Kafka 0.10, or it never answers, and thus tells nobody its versions; they are known all
/// the same.
fn without_api_versions() -> String {
    let VersionRange { min, max } = ApiKey::Produce.supported();
    format!(
        " (a broker older than Kafka 0.10, with Produce v0-v1 where v{min}-v{max} is needed, or a \
         listener that expects TLS?)"
    )
}

/// A listener that expects SASL tells its API versions to everybody, and nothing else.
const CLOSED_ON_FIRST_REQUEST: &str =
    " before it answered a single request (does its listener expect SASL?)";

impl<N: Net, R: Resolver> NetworkClient<N, R> {
    /// Begins to connect to a node: first its name is looked up, then its addresses are tried.
    pub(super) fn begin_attempt(&mut self, node: NodeId, now: MonoTime) {
        let Some(state) = self.nodes.get_mut(&node) else { return };
        let deadline = state.setup_deadline(&self.config, &mut self.random, now);
        state.on_attempt(deadline, now);
        let (host, port) = (state.address.host.clone(), state.address.port);
        self.note_deadline(deadline);
        self.resolver.resolve(&host, port);
        // The answer may be there already.
        self.handle_resolved(now);
    }

    pub(super) fn handle_resolved(&mut self, now: MonoTime) {
        let mut resolved = std::mem::take(&mut self.resolved);
        self.resolver.poll(&mut resolved);
        for Resolved { host, port, result } in resolved.drain(..) {
            let waiting: Vec<NodeId> = self
                .nodes
                .iter()
                .filter(|(_, node)| matches!(node.state(), ConnectionState::Resolving { .. }))
                .filter(|(_, node)| node.address.host == host && node.address.port == port)
                .map(|(id, _)| *id)
                .collect();
            for node in waiting {
                self.on_resolved(node, &result, now);
            }
        }
        self.resolved = resolved;
    }

    fn on_resolved(&mut self, node: NodeId, result: &io::Result<Vec<SocketAddr>>, now: MonoTime) {
        let Some(state) = self.nodes.get_mut(&node) else { return };
        match result {
            Ok(addresses) => state.on_resolved(addresses.clone()),
            Err(error) => {
                state.address_failures.push(format!("its name can't be resolved: {error}"));
            }
        }
        self.try_next_address(node, now);
    }

    /// Connects to the next address of the attempt; if there is none left and none is being
    /// connected to, the attempt has failed.
    fn try_next_address(&mut self, node: NodeId, now: MonoTime) {
        let Some(state) = self.nodes.get_mut(&node) else { return };
        while let Some(address) = state.addresses.pop_front() {
            match self.selector.connect(address, &self.config.socket, now) {
                Ok(id) => {
                    let deadline = state.setup_deadline(&self.config, &mut self.random, now);
                    state.on_connecting(Racer { id, address, deadline }, now);
                    self.owners.insert(id, node);
                    let due = state.next_deadline().unwrap_or(deadline);
                    return self.note_deadline(due);
                }
                Err(error) => {
                    let cause = DisconnectCause::ConnectFailed(error);
                    state.address_failures.push(format!("{address}: {cause}"));
                }
            }
        }
        if state.is_racing() {
            return;
        }
        // Names are answered with their addresses in turns; the same failures read the same.
        state.address_failures.sort_unstable();
        let failures = match &state.address_failures[..] {
            [] => "its name has no address".to_owned(),
            failures => failures.join("; "),
        };
        let reason = format!("{}: {failures}", state.name());
        state.on_disconnected(&self.config, &mut self.random, now);
        let stage = Stage::Connecting;
        self.events.push(ClientEvent::Disconnected { node, stage, reason });
        self.retire(node);
    }

    /// An address leads nowhere; its connection is gone.
    fn on_address_failed(&mut self, node: NodeId, id: ConnectionId, why: &str, now: MonoTime) {
        let Some(state) = self.nodes.get_mut(&node) else { return };
        let racer = state.on_racer_failed(id).map(|racer| racer.address);
        let address = racer.or(state.last_address).map(|address| format!("{address}: "));
        state.address_failures.push(format!("{}{why}", address.unwrap_or_default()));
        self.try_next_address(node, now);
    }

    /// A connection stands: those to the node's other addresses are given up.
    fn on_established(&mut self, id: ConnectionId, now: MonoTime) {
        let Some(node) = self.owners.get(&id).copied() else { return };
        self.sensors.with(|sensors| sensors.on_connected(node, now));
        let won = self.nodes.get_mut(&node).and_then(|state| state.on_won(id));
        let Some((winner, others)) = won else { return };
        for other in others {
            self.owners.remove(&other);
            self.selector.close(other);
        }
        self.ask_api_versions(node, id, api_versions::first_version(), winner.deadline, now);
    }

    /// A connection that was ready is gone, and its requests have been ended.
    fn on_lost(&mut self, node: NodeId, why: &str, stage: Stage, end: End, now: MonoTime) {
        let Some(state) = self.nodes.get_mut(&node) else { return };
        let reason = format!("{}: {why}", state.name());
        match end {
            End::Stale => state.on_idle(),
            _ => state.on_disconnected(&self.config, &mut self.random, now),
        }
        self.events.push(ClientEvent::Disconnected { node, stage, reason });
        self.retire(node);
    }

    pub(super) fn handle_completions(&mut self, completions: &mut Completions, now: MonoTime) {
        for id in completions.connected.drain(..) {
            self.on_established(id, now);
        }
        for (id, tag, frame) in completions.sends.drain(..) {
            if let Some(node) = self.owners.get(&id).copied() {
                self.on_written(node, tag, frame, now);
            }
        }
        // Connections that sent what is not an answer. They are closed only after the ends of
        // others are handled, since the frames that they still hold may be among those.
        let mut condemned: Vec<(ConnectionId, String)> = Vec::new();
        for (id, frame) in completions.receives.drain(..) {
            if condemned.iter().any(|(of, _)| *of == id) {
                continue;
            }
            if let Err(why) = self.on_frame(id, frame, now) {
                condemned.push((id, why));
            }
        }
        for disconnection in completions.disconnected.drain(..) {
            self.on_disconnection(disconnection, now);
        }
        for (id, why) in condemned {
            if let Some(node) = self.owners.get(&id).copied() {
                self.hang_up(node, &why, End::Lost, now);
            }
        }
    }

    /// Closes a node's connection for a fault of the other side's.
    fn hang_up(&mut self, node: NodeId, why: &str, end: End, now: MonoTime) {
        let Some(state) = self.nodes.get(&node) else { return };
        match state.state() {
            ConnectionState::Ready { .. } => {
                self.cut(node, end);
                self.on_lost(node, why, Stage::InUse, end, now);
            }
            ConnectionState::Negotiating { id, .. } => {
                self.cut(node, end);
                self.on_address_failed(node, id, why, now);
            }
            _ => {}
        }
    }

    fn on_disconnection(&mut self, disconnection: Disconnection, now: MonoTime) {
        let Disconnection { id, cause, unsent } = disconnection;
        let Some(node) = self.owners.remove(&id) else { return };
        let Some(state) = self.nodes.get_mut(&node) else { return };
        let (before, was_asked) = (state.state(), !state.in_flight.is_empty());
        let has_served = state.has_served;
        // Whoever cuts a connection for want of use says nothing on it.
        let is_silent = matches!(
            cause,
            DisconnectCause::Closed { mid_frame: false } | DisconnectCause::Failed(_)
        );
        let end = if is_silent && state.was_stale(now) { End::Stale } else { End::Lost };
        let stage = match end {
            End::Stale if !was_asked => Stage::Idle,
            _ => Stage::InUse,
        };
        self.fail_in_flight(node, unsent, end);
        let why = cause.to_string();
        #[cfg(all(test, not(loom)))]
        if let DisconnectCause::BadFrame(_) = &cause {
            crate::sim::on_nonsense(&why);
        }
        match (before, &cause) {
            (ConnectionState::Ready { .. }, DisconnectCause::Idle) => {
                if let Some(state) = self.nodes.get_mut(&node) {
                    state.on_idle();
                }
                self.retire(node);
            }
            (ConnectionState::Ready { .. }, DisconnectCause::Closed { mid_frame: false })
                if was_asked && !has_served =>
            {
                self.on_lost(node, &(why + CLOSED_ON_FIRST_REQUEST), stage, end, now);
            }
            (ConnectionState::Ready { .. }, _) => self.on_lost(node, &why, stage, end, now),
            (ConnectionState::Negotiating { .. }, DisconnectCause::Closed { .. }) => {
                let why = why + " when asked for its API versions" + &without_api_versions();
                self.on_address_failed(node, id, &why, now);
            }
            _ => self.on_address_failed(node, id, &why, now),
        }
    }

    /// `deadline`: the set-up's time goes on; it bounds the whole way of one address to readiness.
    fn ask_api_versions(
        &mut self,
        node: NodeId,
        id: ConnectionId,
        asked: i16,
        deadline: MonoTime,
        now: MonoTime,
    ) {
        if !self.selector.is_open(id) {
            // The broker closed right after its refusal: what follows is the connection's end.
            return;
        }
        let correlation_id = self.next_correlation_id();
        let Some(state) = self.nodes.get_mut(&node) else { return };
        state.on_asked(id, deadline, asked, correlation_id);
        let client_id = &self.config.client_id;
        let frame = request_frame(ApiKey::ApiVersions, asked, correlation_id, client_id, |out| {
            api_versions::encode_request(asked, out);
        });
        self.selector.send(id, tag_of(correlation_id), frame, now);
    }

    /// A frame has arrived. An error says why the connection can't be used any longer.
    fn on_frame(&mut self, id: ConnectionId, frame: Vec<u8>, now: MonoTime) -> Result<(), String> {
        let Some(node) = self.owners.get(&id).copied() else { return Ok(()) };
        let Some(state) = self.nodes.get(&node) else { return Ok(()) };
        match state.state() {
            ConnectionState::Negotiating { asked, correlation_id, .. } => {
                let (answers, body) = split_response(ApiKey::ApiVersions, asked, frame)
                    .map_err(|error| bad_response(ApiKey::ApiVersions, &error.to_string()))?;
                if answers != correlation_id {
                    let what = format!("it answers request {answers}, not {correlation_id}");
                    return Err(bad_response(ApiKey::ApiVersions, &what));
                }
                self.on_api_versions(node, id, asked, &body, now)
            }
            _ => self.on_response(node, frame, now),
        }
    }

    fn on_api_versions(
        &mut self,
        node: NodeId,
        id: ConnectionId,
        asked: i16,
        body: &[u8],
        now: MonoTime,
    ) -> Result<(), String> {
        let response = api_versions::decode_response(asked, body)
            .map_err(|error| bad_response(ApiKey::ApiVersions, &error.to_string()))?;
        match api_versions::judge(asked, &response) {
            Negotiation::AskAgain(version) => {
                let deadline = self.nodes.get(&node).and_then(Node::next_deadline);
                self.ask_api_versions(node, id, version, deadline.unwrap_or(now), now);
            }
            Negotiation::Refused(why) => return Err(why),
            Negotiation::Agreed(versions) => {
                let Some(state) = self.nodes.get_mut(&node) else { return Ok(()) };
                state.on_ready(id, versions, now);
                self.selector.on_negotiated(id);
                self.features.update(&response);
                if asked >= ApiKey::ApiVersions.client_throttles_from() {
                    let millis = u64::try_from(response.throttle_time_ms).unwrap_or(0);
                    let ms = response.throttle_time_ms;
                    self.sensors.with(|sensors| sensors.on_throttle(node, ms, now));
                    self.throttle(node, Duration::from_millis(millis), now);
                }
                self.events.push(ClientEvent::Connected { node });
            }
        }
        Ok(())
    }

    /// A response for the oldest request in flight, or so it must be.
    fn on_response(&mut self, node: NodeId, frame: Vec<u8>, now: MonoTime) -> Result<(), String> {
        let Some(state) = self.nodes.get_mut(&node) else { return Ok(()) };
        let due = state.in_flight.oldest().filter(|r| r.expects_response && r.frame.is_some());
        let Some(due) = due else {
            return Err("it sent a response to no request".to_owned());
        };
        let (api, expected) = (due.api, due.correlation_id);
        let outcome = match split_response(api, due.version, frame) {
            Ok((answers, body)) if answers == expected => Ok(ResponseBody::Bytes(body)),
            Ok((answers, _)) => Err(format!("it answers request {answers}, not {expected}")),
            Err(error) => Err(error.to_string()),
        };
        let why = outcome.as_ref().err().map(|what| bad_response(api, what));
        state.on_used(now);
        if let Some(request) = state.in_flight.pop_oldest() {
            self.finish(node, request, outcome.map_err(RequestFailure::BadResponse));
        }
        self.retire(node);
        why.map_or(Ok(()), Err)
    }

    /// Ends what has taken too long: look-ups, set-ups, requests.
    pub(super) fn handle_timers(&mut self, now: MonoTime) {
        if now < self.timers_due {
            return;
        }
        self.timers_due = MonoTime::MAX;
        let mut due = Vec::new();
        for (id, node) in &self.nodes {
            match node.next_deadline() {
                Some(deadline) if deadline <= now => due.push(*id),
                Some(deadline) => self.timers_due = self.timers_due.min(deadline),
                None => {}
            }
        }
        for node in due {
            self.on_deadline(node, now);
        }
    }

    fn on_deadline(&mut self, node: NodeId, now: MonoTime) {
        let Some(state) = self.nodes.get_mut(&node) else { return };
        match state.state() {
            ConnectionState::Disconnected => {}
            ConnectionState::Resolving { .. } => {
                state.address_failures.push("its name was not resolved in time".to_owned());
                self.try_next_address(node, now);
            }
            ConnectionState::Connecting => {
                let late = state.late_racers(now);
                if state.wants_racer(now) && late.is_empty() {
                    self.try_next_address(node, now);
                }
                for id in late {
                    self.owners.remove(&id);
                    self.selector.close(id);
                    let why = "no connection came to stand in time";
                    self.on_address_failed(node, id, why, now);
                }
            }
            ConnectionState::Negotiating { .. } => {
                let why = "it did not tell its API versions in time".to_owned();
                self.hang_up(node, &(why + &without_api_versions()), End::Lost, now);
            }
            ConnectionState::Ready { .. } => {
                let late = state.in_flight.timed_out(now);
                let what = late.map_or("a request", |request| request.api.name());
                let why = format!("it did not answer {what} in time");
                self.hang_up(node, &why, End::Overdue(now), now);
            }
        }
        if let Some(next) = self.nodes.get(&node).and_then(Node::next_deadline) {
            self.note_deadline(next);
        }
    }
}

fn bad_response(api: ApiKey, what: &str) -> String {
    #[cfg(all(test, not(loom)))]
    crate::sim::on_nonsense(what);
    format!("it sent a response that is none to {}: {what}", api.name())
}

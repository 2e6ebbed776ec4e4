//! The client over a scripted network and a resolver that answers by hand.

mod connecting; // names, addresses, set-up, API versions, backoff
mod conservation; // under any faults, each request ends once
mod metrics; // what is counted
mod nodes; // the set of nodes, choice among them, idleness
mod real; // the same over real sockets
mod requests; // responses, time-outs, ends

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::network::testing::{Dial, FakeNet};
use crate::protocol::{self, ApiVersion, ApiVersionsResponse, ErrorCode, RequestHeader};

/// Answers what it knows at once; the rest when told.
#[derive(Clone, Default)]
struct ManualResolver(Rc<RefCell<Names>>);

#[derive(Default)]
struct Names {
    known: BTreeMap<String, Vec<SocketAddr>>,
    asked: Vec<Arc<str>>,
    answers: Vec<Resolved>,
}

impl Resolver for ManualResolver {
    fn resolve(&mut self, host: &Arc<str>, port: u16) {
        let mut names = self.0.borrow_mut();
        names.asked.push(Arc::clone(host));
        if let Some(addresses) = names.known.get(&**host).cloned() {
            names.answers.push(Resolved { host: Arc::clone(host), port, result: Ok(addresses) });
        }
    }

    fn poll(&mut self, out: &mut Vec<Resolved>) {
        out.append(&mut self.0.borrow_mut().answers);
    }
}

impl ManualResolver {
    fn know(&self, host: &str, addresses: &[SocketAddr]) {
        self.0.borrow_mut().known.insert(host.to_owned(), addresses.to_vec());
    }

    fn answer(&self, host: &str, port: u16, result: io::Result<Vec<SocketAddr>>) {
        self.0.borrow_mut().answers.push(Resolved { host: Arc::from(host), port, result });
    }

    fn asked(&self) -> usize {
        self.0.borrow().asked.len()
    }
}

const MS: Duration = Duration::from_millis(1);
const NODE: NodeId = NodeId(0);

/// Node `n` is `host-n:9092` at 10.0.0.`n`.
fn host_address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 9092))
}

fn node_address(n: i32) -> NodeAddress {
    NodeAddress { id: NodeId(n), host: format!("host-{n}").into(), port: 9092 }
}

fn config() -> ClientConfig {
    ClientConfig {
        client_id: Arc::from("me"),
        max_in_flight: 3,
        reconnect_backoff: 50 * MS,
        reconnect_backoff_max: 1000 * MS,
        connection_setup_timeout: 10_000 * MS,
        connection_setup_timeout_max: 30_000 * MS,
        connections_max_idle: Some(540_000 * MS),
        socket: SocketOptions::default(),
        seed: 1,
    }
}

struct Bench {
    net: FakeNet,
    names: ManualResolver,
    client: NetworkClient<FakeNet, ManualResolver>,
    now: MonoTime,
    next_tag: u64,
    /// By socket, the beginning of a request that has not all arrived.
    unfinished: BTreeMap<usize, Vec<u8>>,
}

impl Bench {
    /// With `nodes` nodes whose names are known.
    fn new(nodes: i32) -> Self {
        Self::with_config(nodes, config())
    }

    fn with_config(nodes: i32, config: ClientConfig) -> Self {
        let (net, names) = (FakeNet::default(), ManualResolver::default());
        for n in 0..nodes {
            names.know(&format!("host-{n}"), &[host_address(n as u8)]);
        }
        let mut client = NetworkClient::new(net.clone(), names.clone(), config);
        client.set_nodes((0..nodes).map(node_address).collect(), MonoTime::ZERO);
        Self { net, names, client, now: MonoTime::ZERO, next_tag: 0, unfinished: BTreeMap::new() }
    }

    fn poll(&mut self) -> Vec<ClientEvent> {
        self.poll_for(Duration::ZERO)
    }

    fn poll_for(&mut self, timeout: Duration) -> Vec<ClientEvent> {
        let mut events = Vec::new();
        self.now = self.client.poll(Some(timeout), self.now, &mut events).unwrap();
        events
    }

    /// Polls until something happens, or `timeout` has passed.
    fn wait(&mut self, timeout: Duration) -> Vec<ClientEvent> {
        let until = self.now + timeout;
        loop {
            let events = self.poll_for(until.since(self.now));
            if !events.is_empty() || self.now >= until {
                return events;
            }
        }
    }

    /// Polls until `by` has passed; nothing may happen meanwhile.
    fn pass(&mut self, by: Duration) {
        let until = self.now + by;
        while self.now < until {
            let events = self.poll_for(until.since(self.now));
            assert!(events.is_empty(), "{events:?}");
        }
    }

    fn ready(&mut self, node: NodeId) -> bool {
        self.client.ready(node, self.now)
    }

    /// Begins to connect, and goes on until ApiVersions is asked; returns the socket.
    fn negotiating(&mut self, node: NodeId) -> usize {
        assert!(!self.ready(node));
        let socket = self.net.attempts().len();
        assert!(self.poll().is_empty());
        assert_eq!(self.take_requests(socket).len(), 1, "ApiVersions goes first");
        socket
    }

    /// A ready connection; returns its socket.
    fn connected(&mut self, node: NodeId) -> usize {
        let correlation_id = self.client.clone_next_correlation_id();
        let socket = self.negotiating(node);
        let answer = api_versions(ErrorCode::NONE, &[(0, 0, 9), (3, 0, 12), (18, 0, 4)]);
        self.net.deliver(socket, &encode(&answer, 4, correlation_id));
        let events = self.poll();
        assert!(matches!(events[..], [ClientEvent::Connected { .. }]), "{events:?}");
        socket
    }

    /// The requests that arrived at the other end of a socket: API key, version, correlation id.
    fn take_requests(&mut self, socket: usize) -> Vec<(i16, i16, i32)> {
        let requests = self.take_whole_requests(socket);
        assert!(self.unfinished.remove(&socket).is_none_or(|rest| rest.is_empty()));
        requests
    }

    /// The same, leaving a request that has not all arrived for later.
    fn take_whole_requests(&mut self, socket: usize) -> Vec<(i16, i16, i32)> {
        let (bytes, mut requests) = (self.unfinished.entry(socket).or_default(), Vec::new());
        bytes.extend(self.net.take_sent(socket));
        while bytes.len() >= 4 {
            let length = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
            if bytes.len() < 4 + length {
                break;
            }
            let mut reader = protocol::Reader::new(&bytes[4..4 + length]);
            let header = RequestHeader::decode(&mut reader).unwrap();
            assert_eq!(header.client_id, Some("me"));
            requests.push((header.api_key, header.api_version, header.correlation_id));
            bytes.drain(..4 + length);
        }
        requests
    }

    fn request(&mut self, node: NodeId) -> ClientRequest {
        let correlation_id = self.client.next_correlation_id();
        let frame = request_frame(ApiKey::Produce, 9, correlation_id, "me", |out| {
            out.extend_from_slice(b"some records");
        });
        let tag = self.next_tag;
        self.next_tag += 1;
        let (api, version, timeout) = (ApiKey::Produce, 9, 30_000 * MS);
        let expects_response = true;
        ClientRequest { node, api, version, frame, correlation_id, expects_response, timeout, tag }
    }

    /// Sends a request; returns its correlation id.
    fn send(&mut self, node: NodeId) -> i32 {
        let request = self.request(node);
        let id = request.correlation_id;
        assert!(self.ready(node));
        self.client.send(request, self.now);
        id
    }

    /// The broker answers a Produce v9.
    fn answer(&mut self, socket: usize, correlation_id: i32, body: &[u8]) {
        let mut out = Vec::new();
        protocol::encode_response(ApiKey::Produce, 9, correlation_id, &mut out, |out| {
            out.extend_from_slice(body);
        });
        self.net.deliver(socket, &out);
    }
}

impl<N: crate::network::Net, R: Resolver> NetworkClient<N, R> {
    /// The id that the next request will get.
    fn clone_next_correlation_id(&mut self) -> i32 {
        let id = self.next_correlation_id();
        self.set_next_correlation_id(id);
        id
    }
}

fn api_versions(error_code: ErrorCode, keys: &[(i16, i16, i16)]) -> ApiVersionsResponse {
    let api = |(api_key, min, max): &(i16, i16, i16)| ApiVersion {
        api_key: *api_key,
        versions: VersionRange { min: *min, max: *max },
    };
    ApiVersionsResponse {
        error_code,
        api_keys: keys.iter().map(api).collect(),
        throttle_time_ms: 0,
        supported_features: Vec::new(),
        finalized_features_epoch: -1,
        finalized_features: Vec::new(),
    }
}

fn encode(response: &ApiVersionsResponse, version: i16, correlation_id: i32) -> Vec<u8> {
    let mut out = Vec::new();
    protocol::encode_response(ApiKey::ApiVersions, version, correlation_id, &mut out, |out| {
        response.encode(version, out);
    });
    out
}

/// What the events say, in short.
fn told(events: &[ClientEvent]) -> Vec<String> {
    let tell = |event: &ClientEvent| match event {
        ClientEvent::Connected { node } => format!("connected {node}"),
        ClientEvent::Disconnected { node, stage: Stage::Connecting, .. } => {
            format!("failed {node}")
        }
        ClientEvent::Disconnected { node, .. } => format!("lost {node}"),
        ClientEvent::Response(r) => {
            let outcome = match &r.outcome {
                Ok(ResponseBody::Bytes(body)) => String::from_utf8_lossy(body).into_owned(),
                Ok(ResponseBody::None) => "done".to_owned(),
                Err(RequestFailure::BadResponse(_)) => "bad response".to_owned(),
                Err(failure) => format!("{failure:?}"),
            };
            format!("{}: {outcome}{}", r.tag, if r.sent { "" } else { ", never sent" })
        }
    };
    events.iter().map(tell).collect()
}

fn reason(events: &[ClientEvent]) -> &str {
    match events.last() {
        Some(ClientEvent::Disconnected { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

fn stage(events: &[ClientEvent]) -> Stage {
    match events.last() {
        Some(ClientEvent::Disconnected { stage, .. }) => *stage,
        other => panic!("{other:?}"),
    }
}

//! For fuzzing: the client over connections whose peer says whatever it was given to say.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, IoSlice};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::request::request_frame;
use super::resolver::{Resolved, Resolver};
use super::{
    ClientConfig, ClientEvent, ClientRequest, KafkaClient, NetworkClient, NodeAddress, ResponseBody,
};
use crate::network::{ConnectionId, Net, Readiness, SocketOptions};
use crate::protocol::{
    ApiKey, InitProducerIdRequest, InitProducerIdResponse, MetadataRequest, MetadataResponse,
    ProduceResponse, Reader,
};
use crate::time::MonoTime;
use crate::types::NodeId;

const NODE: NodeId = NodeId(1);
const TURN: Duration = Duration::from_millis(100);

/// What came of a peer's bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fed {
    /// Connections that got as far as to take requests.
    pub connected: usize,
    /// Requests that were sent, and as many that ended.
    pub requests: usize,
    /// Responses whose body could be read.
    pub understood: usize,
}

/// Connects, sends requests as soon as it may, and reads what the peer says: `bytes`, on one
/// connection after another until there are no more. The first one tells the size of the pieces
/// that arrive (its low seven bits), and whether the peer says a frame only when it was written to.
#[allow(clippy::missing_panics_doc)] // that is what fuzzing looks for
pub fn feed_connection(bytes: &[u8]) -> Fed {
    let (piece, feed) = bytes.split_first().map_or((1, bytes), |(n, rest)| (*n, rest));
    let net = FedNet {
        feed: feed.iter().copied().collect(),
        piece: usize::from(piece & 0x7f).max(1),
        answers_only: piece & 0x80 != 0,
        frame_left: 0,
        sockets: BTreeMap::new(),
        next: 0,
        now: MonoTime::ZERO,
    };
    let turns = 50 + feed.len() / net.piece * 2;
    let mut client = NetworkClient::new(net, AtOnce::default(), config());
    let node = NodeAddress { id: NODE, host: "host".into(), port: 9092 };
    client.set_nodes(vec![node], MonoTime::ZERO);
    let (mut now, mut events, mut fed) = (MonoTime::ZERO, Vec::new(), Fed::default());
    let mut ended = 0;
    for _ in 0..turns {
        if client.ready(NODE, now) {
            fed.requests += ask(&mut client, fed.requests as u64, now);
        }
        match client.poll(Some(TURN), now, &mut events) {
            Ok(later) => now = later,
            Err(_) => break,
        }
        hear(&mut events, &mut fed, &mut ended);
    }
    client.close(now, &mut events);
    hear(&mut events, &mut fed, &mut ended);
    assert_eq!(ended, fed.requests, "each request ends once");
    fed
}

fn config() -> ClientConfig {
    ClientConfig {
        client_id: "fed".into(),
        max_in_flight: 5,
        reconnect_backoff: TURN,
        reconnect_backoff_max: TURN,
        connection_setup_timeout: 10 * TURN,
        connection_setup_timeout_max: 10 * TURN,
        connections_max_idle: None,
        socket: SocketOptions::default(),
        seed: 1,
    }
}

/// Sends the next request, if the broker speaks its API; the number of requests sent.
fn ask(client: &mut NetworkClient<FedNet, AtOnce>, tag: u64, now: MonoTime) -> usize {
    let api = [ApiKey::Metadata, ApiKey::InitProducerId, ApiKey::Produce][tag as usize % 3];
    let Ok(version) = client.api_version(NODE, api) else { return 0 };
    let correlation_id = client.next_correlation_id();
    let frame = request_frame(api, version, correlation_id, "fed", |out| match api {
        ApiKey::Metadata => {
            let topics = Some(vec!["t".into()]);
            MetadataRequest { topics, allow_auto_topic_creation: true }.encode(version, out);
        }
        ApiKey::InitProducerId => {
            let request = InitProducerIdRequest {
                transactional_id: None,
                transaction_timeout_ms: 0,
                producer_id: -1,
                producer_epoch: -1,
            };
            request.encode(version, out);
        }
        // The peer reads nothing of it.
        _ => {}
    });
    let (expects_response, timeout) = (true, 20 * TURN);
    let node = NODE;
    let request =
        ClientRequest { node, api, version, frame, correlation_id, expects_response, timeout, tag };
    client.send(request, now);
    1
}

fn hear(events: &mut Vec<ClientEvent>, fed: &mut Fed, ended: &mut usize) {
    for event in events.drain(..) {
        match event {
            ClientEvent::Response(response) => {
                *ended += 1;
                if let Ok(ResponseBody::Bytes(body)) = &response.outcome {
                    let (mut r, version) = (Reader::new(body), response.version);
                    fed.understood += usize::from(match response.api {
                        ApiKey::Metadata => MetadataResponse::decode(&mut r, version).is_ok(),
                        ApiKey::Produce => ProduceResponse::decode(&mut r, version).is_ok(),
                        _ => InitProducerIdResponse::decode(&mut r, version).is_ok(),
                    });
                }
            }
            ClientEvent::Connected { .. } => fed.connected += 1,
            ClientEvent::Disconnected { .. } => {}
        }
    }
}

/// Every name is this machine's.
#[derive(Default)]
struct AtOnce(Vec<Resolved>);

impl Resolver for AtOnce {
    fn resolve(&mut self, host: &Arc<str>, port: u16) {
        let result = Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))]);
        self.0.push(Resolved { host: Arc::clone(host), port, result });
    }

    fn poll(&mut self, out: &mut Vec<Resolved>) {
        out.append(&mut self.0);
    }
}

/// Takes what is written and says what it was given to say; closes when that is over.
struct FedNet {
    feed: VecDeque<u8>,
    /// How many bytes arrive at a time.
    piece: usize,
    /// The peer says one frame for each write.
    answers_only: bool,
    /// What of a frame it is still to say.
    frame_left: usize,
    sockets: BTreeMap<usize, Socket>,
    next: usize,
    now: MonoTime,
}

struct Socket {
    /// Edges that were earned and not reported.
    readable: bool,
    writable: bool,
    /// The next read says `WouldBlock`.
    blocks: bool,
}

impl FedNet {
    fn socket(&mut self, id: ConnectionId) -> io::Result<&mut Socket> {
        self.sockets.get_mut(&id.0).ok_or_else(|| ErrorKind::NotConnected.into())
    }
}

impl Net for FedNet {
    fn connect(&mut self, _: SocketAddr, _: &SocketOptions) -> io::Result<ConnectionId> {
        self.next += 1;
        self.sockets.insert(self.next, Socket { readable: true, writable: true, blocks: false });
        Ok(ConnectionId(self.next))
    }

    fn finish_connect(&mut self, id: ConnectionId) -> io::Result<bool> {
        self.socket(id).map(|_| true)
    }

    fn read(&mut self, id: ConnectionId, buf: &mut [u8]) -> io::Result<usize> {
        let socket = self.socket(id)?;
        // A piece, then a block that ends with the next poll, and so on.
        socket.readable = socket.blocks;
        socket.blocks = !socket.blocks;
        if socket.readable {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut n = buf.len().min(self.piece).min(self.feed.len());
        if self.answers_only && n > 0 {
            n = n.min(self.frame_left);
            self.frame_left -= n;
            if n == 0 {
                // The next write is the edge.
                return Err(ErrorKind::WouldBlock.into());
            }
        }
        for (to, from) in buf.iter_mut().zip(self.feed.drain(..n)) {
            *to = from;
        }
        Ok(n)
    }

    fn write_vectored(&mut self, id: ConnectionId, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.socket(id)?.readable = true;
        if self.frame_left == 0 {
            let mut length = [0; 4];
            length.iter_mut().zip(&self.feed).for_each(|(to, from)| *to = *from);
            self.frame_left = (u32::from_be_bytes(length) as usize).saturating_add(4);
        }
        Ok(bufs.iter().map(|buf| buf.len()).sum())
    }

    fn close(&mut self, id: ConnectionId) {
        self.sockets.remove(&id.0);
    }

    fn poll(
        &mut self,
        timeout: Option<Duration>,
        ready: &mut Vec<Readiness>,
    ) -> io::Result<MonoTime> {
        let before = ready.len();
        for (id, socket) in &mut self.sockets {
            let Socket { readable, writable, .. } = *socket;
            if readable || writable {
                ready.push(Readiness { id: ConnectionId(*id), readable, writable });
            }
            (socket.readable, socket.writable) = (false, false);
        }
        if ready.len() == before {
            self.now = self.now + timeout.unwrap_or(TURN);
        }
        Ok(self.now)
    }
}

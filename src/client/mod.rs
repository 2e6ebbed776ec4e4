//! The client: which broker can take a request now, and what became of the requests sent.
//!
//! [`KafkaClient`] is what the sender sees, and the seam for its tests; [`NetworkClient`] is the
//! real one. It runs on the sender thread, opens connections, negotiates API versions, keeps the
//! requests in flight with their time-outs, and reports everything as [`ClientEvent`]s out of
//! `poll`. It decodes no response but ApiVersions, and decides nothing about records.

mod api_versions;
mod connections;
mod events;
#[cfg(feature = "__internal")]
pub(crate) mod fed;
mod in_flight;
mod network_client;
mod request;
mod resolver;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::network::{OutFrame, SocketOptions};
use crate::protocol::{ApiKey, VersionRange};
use crate::time::MonoTime;
use crate::types::{HostAndPort, NodeId};

pub(crate) use network_client::NetworkClient;
#[cfg(test)]
use request::request_frame;
pub(crate) use resolver::{Lookup, ResolverThread, ThreadResolver};
#[cfg(test)]
use resolver::{Resolved, Resolver};

/// What the client needs to know of the producer's configuration.
#[derive(Clone, Debug)]
pub(crate) struct ClientConfig {
    /// `client.id`, in every request's header.
    pub(crate) client_id: Arc<str>,
    /// `max.in.flight.requests.per.connection`, at least 1.
    pub(crate) max_in_flight: usize,
    /// `reconnect.backoff.ms`: how long a node is left alone after its connection ended; doubles
    /// with each further failure.
    pub(crate) reconnect_backoff: Duration,
    /// `reconnect.backoff.max.ms`.
    pub(crate) reconnect_backoff_max: Duration,
    /// `socket.connection.setup.timeout.ms`: how long one address may take from the connect to
    /// the broker's API versions; doubles with each failed attempt.
    pub(crate) connection_setup_timeout: Duration,
    /// `socket.connection.setup.timeout.max.ms`.
    pub(crate) connection_setup_timeout_max: Duration,
    /// `connections.max.idle.ms`; `None` for no limit.
    pub(crate) connections_max_idle: Option<Duration>,
    /// `send.buffer.bytes`, `receive.buffer.bytes`; as `user_timeout`, `request.timeout.ms` fits.
    pub(crate) socket: SocketOptions,
    /// Decides jitter and the choice between equal nodes.
    pub(crate) seed: u64,
}

/// A broker and where it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeAddress {
    /// Negative for bootstrap servers, whose ids are not known yet.
    pub(crate) id: NodeId,
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
}

impl NodeAddress {
    /// What the node is called in errors.
    pub(crate) fn name(&self) -> String {
        if self.id.0 < 0 {
            format!("bootstrap server {self}")
        } else {
            format!("broker {} at {self}", self.id)
        }
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HostAndPort(&self.host, self.port).fmt(f)
    }
}

/// A request to one broker, encoded.
#[derive(Debug)]
pub(crate) struct ClientRequest {
    pub(crate) node: NodeId,
    pub(crate) api: ApiKey,
    pub(crate) version: i16,
    /// The whole frame, with length and request header.
    pub(crate) frame: OutFrame,
    /// As in the frame's header; from [`KafkaClient::next_correlation_id`].
    pub(crate) correlation_id: i32,
    /// False only for Produce with acks=0, which is complete when its last byte is in the socket.
    pub(crate) expects_response: bool,
    /// From `send` to the response; when it is over, the connection is closed.
    pub(crate) timeout: Duration,
    /// The caller's own mark, given back with the outcome.
    pub(crate) tag: u64,
}

/// What happened since the last `poll`, in order.
#[derive(Debug)]
pub(crate) enum ClientEvent {
    /// A request's end; each request sent has exactly one.
    Response(ClientResponse),
    /// A connection, or the attempt to make one, has ended, other than by idleness, by `disconnect`
    /// or because the node left the set. Comes after the outcomes of the connection's requests.
    Disconnected {
        node: NodeId,
        stage: Stage,
        /// What happened to whom, for logs and errors.
        reason: String,
    },
    /// A connection is ready, its API versions known.
    Connected { node: NodeId },
}

/// How far a connection had come when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It had not become ready: nothing of the caller's was sent.
    Connecting,
    /// It was in use, or had been a moment ago.
    InUse,
    /// Nothing was under way on it, nor had been for long: the broker, or something in between,
    /// cut it for that.
    Idle,
}

/// A request's end.
#[derive(Debug)]
#[allow(dead_code, reason = "api serves logs")]
pub(crate) struct ClientResponse {
    pub(crate) node: NodeId,
    pub(crate) tag: u64,
    pub(crate) api: ApiKey,
    pub(crate) version: i16,
    /// The request's frame, given back with the bytes it owned.
    pub(crate) frame: OutFrame,
    pub(crate) outcome: Result<ResponseBody, RequestFailure>,
    /// Whether any byte of the request was put on a socket.
    pub(crate) sent: bool,
    /// When `send` was called.
    pub(crate) created_at: MonoTime,
}

/// What a broker answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ResponseBody {
    /// The response, after its header.
    Bytes(Vec<u8>),
    /// None is due (acks=0): the request's last byte is in the socket.
    None,
}

/// Why there is no response. The broker may have acted on the request all the same, if any of it
/// was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RequestFailure {
    /// The connection ended first.
    Disconnected,
    /// The same, of a connection that had not been used for long: something in between had most
    /// likely cut it, and the broker may be as well as ever. No backoff is called for.
    Stale,
    /// The request's own time was over; the connection was closed for it.
    TimedOut,
    /// What came back at this request's turn is not a response to it; the connection was closed.
    BadResponse(String),
}

/// Why a request can't be built for a node now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VersionError {
    /// The node's versions are not known: it is not connected.
    NotReady,
    /// There is no version that both sides speak; trying again won't help.
    Unsupported(UnsupportedVersion),
}

/// An API of which the client and the broker share no version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnsupportedVersion {
    /// What the node is called in errors.
    pub(crate) node: String,
    pub(crate) api: ApiKey,
    /// What this client speaks.
    pub(crate) client: VersionRange,
    /// What the broker speaks; `None` if it doesn't offer the API.
    pub(crate) broker: Option<VersionRange>,
}

impl From<&UnsupportedVersion> for Error {
    fn from(unsupported: &UnsupportedVersion) -> Self {
        let UnsupportedVersion { node, api, client, broker } = unsupported;
        Self::UnsupportedVersion {
            broker: node.as_str().into(),
            api: api.name(),
            client: (client.min, client.max),
            offered: broker.map(|range| (range.min, range.max)),
            text: unsupported.to_string().into(),
        }
    }
}

impl fmt::Display for UnsupportedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let VersionRange { min, max } = self.client;
        write!(f, "{} v{min}-v{max} is needed, and {} offers ", self.api.name(), self.node)?;
        match self.broker {
            Some(broker) => {
                write!(f, "v{}-v{}", broker.min, broker.max)?;
                let old = " (it is too old: Kafka 0.11 is the first that will do)";
                f.write_str(if broker.max < min { old } else { "" })
            }
            None => f.write_str("none of it (is it a listener for clients, or a controller's?)"),
        }
    }
}

/// Connections to brokers, as the sender sees them.
///
/// Nothing here blocks but `poll`. Outcomes come out of `poll` only, also those of requests that
/// `disconnect`, `set_nodes` or `close` cut off.
pub(crate) trait KafkaClient {
    /// The full set of nodes: the bootstrap servers at first, the cluster's brokers once known.
    ///
    /// A node that is no longer among them takes no new request; its connection is closed when its
    /// requests in flight have ended. One whose host or port changed is cut off at once.
    fn set_nodes(&mut self, nodes: Vec<NodeAddress>, now: MonoTime);

    /// Whether a request may be sent to `node` now; if it isn't connected, begins to connect when
    /// its backoff allows. False for nodes that are not in the set.
    fn ready(&mut self, node: NodeId, now: MonoTime) -> bool;

    /// As `ready`, without beginning anything: connected, not throttled, and fewer requests in
    /// flight than `max.in.flight.requests.per.connection`.
    fn is_ready(&self, node: NodeId, now: MonoTime) -> bool;

    /// How long until `ready` may change by itself: a backoff or a throttle that ends.
    /// [`Duration::MAX`] if only an event can change it.
    fn ready_delay(&self, node: NodeId, now: MonoTime) -> Duration;

    /// The node for a request that any broker can answer: a ready one with the fewest in flight,
    /// else one that is connecting, else the one whose last attempt is the longest ago of those
    /// that may be connected to now. Follow it with `ready`.
    fn least_loaded_node(&mut self, now: MonoTime) -> Option<NodeId>;

    /// Whether any node could take a request now or soon: one is connected (if with all its slots
    /// in use), connecting, or may be connected to now. If not, it may be time to re-bootstrap.
    fn any_node_available(&self, now: MonoTime) -> bool;

    /// The highest version of `api` that both sides speak. Known only while `node` is connected.
    fn api_version(&self, node: NodeId, api: ApiKey) -> Result<i16, VersionError>;

    /// The level of a feature that the cluster has finalized, by the newest answer of any broker.
    #[allow(dead_code, reason = "transactions will ask (KIP-890)")]
    fn finalized_feature(&self, name: &str) -> Option<i16>;

    /// A fresh correlation id for a request's header.
    fn next_correlation_id(&mut self) -> i32;

    /// `client.id`, for request headers.
    fn client_id(&self) -> &str;

    /// Sends a request. The node must be ready.
    fn send(&mut self, request: ClientRequest, now: MonoTime);

    /// Sends nothing to `node` for `duration`, as it asked for (KIP-219). Not where it did so by
    /// an answer of a version before [`ApiKey::client_throttles_from`].
    fn throttle(&mut self, node: NodeId, duration: Duration, now: MonoTime);

    /// Closes the connection to `node`, if there is one; a reconnect waits for its backoff.
    fn disconnect(&mut self, node: NodeId, now: MonoTime);

    /// Does all that is due, waits up to `timeout` (`None`: for ever) for something to happen
    /// unless events are waiting already, appends what happened, and returns the new time.
    ///
    /// An error means that the system refused to poll at all: the client is of no more use.
    fn poll(
        &mut self,
        timeout: Option<Duration>,
        now: MonoTime,
        events: &mut Vec<ClientEvent>,
    ) -> io::Result<MonoTime>;

    /// Closes all connections for good and appends the outcomes of all requests in flight.
    fn close(&mut self, now: MonoTime, events: &mut Vec<ClientEvent>);
}

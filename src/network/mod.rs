//! Sockets, and whole frames over them. Everything here runs on the sender thread.
//!
//! [`Net`] is the seam to the world: below it are mio and the kernel, or a simulated network; above
//! it all is deterministic. [`selector`] owns the connections and is what the client calls;
//! [`channel`] is one connection, [`transport`] what its bytes pass through, [`frame`] what it
//! carries. Of Kafka's protocol this module knows no more than the length before each frame.

mod channel;
mod frame;
mod mio_net;
mod selector;
#[cfg(test)]
pub(crate) mod testing;
mod transport;

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

use crate::time::MonoTime;

#[cfg(feature = "__internal")]
pub(crate) use frame::FrameReader;
pub(crate) use frame::{OutFrame, Piece};
pub(crate) use mio_net::MioNet;
pub(crate) use selector::{Completions, DisconnectCause, Disconnection, ReturnedFrame, Selector};

/// One connection's name. A closed connection's id is not given to another one, so that readiness
/// reported late can't reach the wrong connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub(crate) struct ConnectionId(pub(crate) usize);

/// What [`Net::poll`] tells of a connection: edges, each reported once.
///
/// An error or the peer's close shows as both; the next read or write tells which it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Readiness {
    pub(crate) id: ConnectionId,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

/// How a connection's socket is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SocketOptions {
    /// `SO_SNDBUF` in bytes; `None` leaves it to the kernel.
    pub(crate) send_buffer: Option<usize>,
    /// `SO_RCVBUF` in bytes; `None` leaves it to the kernel.
    pub(crate) receive_buffer: Option<usize>,
    /// Silence after which the kernel probes the peer; `None` turns keep-alive off.
    pub(crate) keep_alive: Option<Duration>,
    /// How long sent bytes may stay unacknowledged before the kernel gives the connection up
    /// (`TCP_USER_TIMEOUT`); Linux only, `None` leaves it to the kernel's retransmissions.
    pub(crate) user_timeout: Option<Duration>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            send_buffer: None,
            receive_buffer: None,
            keep_alive: Some(Duration::from_secs(60)),
            user_timeout: None,
        }
    }
}

/// The network, as the sender's side sees it: non-blocking byte streams with edge-triggered
/// readiness.
///
/// A call that would block returns [`io::ErrorKind::WouldBlock`]; from then on, and not before, the
/// next edge is reported. `Interrupted` never comes out.
pub(crate) trait Net {
    /// Begins to connect. The outcome shows as an edge; then ask [`Net::finish_connect`].
    fn connect(&mut self, addr: SocketAddr, options: &SocketOptions) -> io::Result<ConnectionId>;

    /// After an edge: `Ok(true)` if the connection stands, `Ok(false)` if it is still being made,
    /// an error if it failed.
    fn finish_connect(&mut self, id: ConnectionId) -> io::Result<bool>;

    /// Reads what is there; `Ok(0)` is the peer's orderly close (`buf` is never empty).
    fn read(&mut self, id: ConnectionId, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes as much as fits and says how much that was.
    fn write_vectored(&mut self, id: ConnectionId, bufs: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Forgets the connection and closes its socket.
    fn close(&mut self, id: ConnectionId);

    /// Waits until something is ready, a [`Wake`] was called, or the time is over (`None`: for
    /// ever), and appends what is ready. Returns the time: the sender's clock advances here only.
    fn poll(
        &mut self,
        timeout: Option<Duration>,
        ready: &mut Vec<Readiness>,
    ) -> io::Result<MonoTime>;

    /// How long the last poll waited; what else the thread does with its time is its work.
    fn waited(&self) -> Duration {
        Duration::ZERO
    }
}

/// Ends the sender's current or next [`Net::poll`], from any thread.
pub(crate) trait Wake: Send + Sync {
    fn wake(&self);
}

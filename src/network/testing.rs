//! A network for tests: scripted by hand, deterministic, and as edge-triggered as epoll may be.
//!
//! An edge is reported once, and only after the call that said `WouldBlock`: code that forgets an
//! edge, or waits for one that it has not earned, hangs here every time.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::{ConnectionId, Net, Readiness, SocketOptions};
use crate::time::MonoTime;

/// What becomes of a connection attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dial {
    Accept,
    Refuse,
    /// No answer, ever.
    Hang,
    /// The system refuses to begin.
    CannotBegin,
}

struct Socket {
    dial: Dial,
    inbound: VecDeque<u8>,
    /// After `inbound`: the peer closed, or the connection broke.
    end: Option<Result<(), ErrorKind>>,
    outbound: Vec<u8>,
    /// Bytes that the socket still takes.
    room: usize,
    broken_writes: bool,
    /// The last read, or write, said `WouldBlock` (or there was none yet): an edge may come.
    read_blocked: bool,
    write_blocked: bool,
    readable_edge: bool,
    writable_edge: bool,
}

#[derive(Default)]
struct Inner {
    now: MonoTime,
    sockets: BTreeMap<usize, Socket>,
    dials: BTreeMap<SocketAddr, Dial>,
    /// Every attempt to connect, in order.
    attempts: Vec<SocketAddr>,
    /// The room of a new socket.
    room: Option<usize>,
    polls: usize,
    writes: usize,
    /// How long the last poll waited.
    waited: Duration,
}

/// A handle on the network; the selector has one, the test another.
#[derive(Clone, Default)]
pub(crate) struct FakeNet(Rc<RefCell<Inner>>);

impl FakeNet {
    /// What attempts to reach `addr` come to from now on; `Accept` unless told.
    pub(crate) fn dial(&self, addr: SocketAddr, dial: Dial) {
        self.0.borrow_mut().dials.insert(addr, dial);
    }

    pub(crate) fn attempts(&self) -> Vec<SocketAddr> {
        self.0.borrow().attempts.clone()
    }

    pub(crate) fn polls(&self) -> usize {
        self.0.borrow().polls
    }

    /// Time passes while the thread is busy.
    pub(crate) fn work(&self, by: Duration) {
        let mut inner = self.0.borrow_mut();
        inner.now = inner.now + by;
    }

    pub(crate) fn writes(&self) -> usize {
        self.0.borrow().writes
    }

    /// The room of sockets opened from now on.
    pub(crate) fn limit_new_sockets(&self, room: usize) {
        self.0.borrow_mut().room = Some(room);
    }

    /// Lets the socket take `bytes` more.
    pub(crate) fn give_room(&self, id: usize, bytes: usize) {
        self.with(id, |socket| {
            socket.room = socket.room.saturating_add(bytes);
            socket.writable_edge |= std::mem::take(&mut socket.write_blocked);
        });
    }

    /// Lets the socket take nothing more.
    pub(crate) fn stop(&self, id: usize) {
        self.with(id, |socket| socket.room = 0);
    }

    /// The peer sends `bytes`.
    pub(crate) fn deliver(&self, id: usize, bytes: &[u8]) {
        self.with(id, |socket| {
            socket.inbound.extend(bytes);
            socket.readable_edge |= std::mem::take(&mut socket.read_blocked);
        });
    }

    /// The peer closes, or breaks the connection, after what it has sent.
    pub(crate) fn end(&self, id: usize, end: Result<(), ErrorKind>) {
        self.with(id, |socket| {
            socket.end = Some(end);
            socket.readable_edge |= std::mem::take(&mut socket.read_blocked);
        });
    }

    /// Writes fail from now on.
    pub(crate) fn break_writes(&self, id: usize) {
        self.with(id, |socket| socket.broken_writes = true);
    }

    /// Takes what was written to the socket.
    pub(crate) fn take_sent(&self, id: usize) -> Vec<u8> {
        self.with(id, |socket| std::mem::take(&mut socket.outbound))
    }

    pub(crate) fn open_sockets(&self) -> Vec<usize> {
        self.0.borrow().sockets.keys().copied().collect()
    }

    fn with<R>(&self, id: usize, f: impl FnOnce(&mut Socket) -> R) -> R {
        f(self.0.borrow_mut().sockets.get_mut(&id).expect("an open socket"))
    }
}

impl Net for FakeNet {
    fn connect(&mut self, addr: SocketAddr, _: &SocketOptions) -> io::Result<ConnectionId> {
        let mut inner = self.0.borrow_mut();
        inner.attempts.push(addr);
        let id = inner.attempts.len();
        let dial = inner.dials.get(&addr).copied().unwrap_or(Dial::Accept);
        if dial == Dial::CannotBegin {
            return Err(ErrorKind::NetworkUnreachable.into());
        }
        let settled = dial != Dial::Hang;
        let socket = Socket {
            dial,
            inbound: VecDeque::new(),
            end: None,
            outbound: Vec::new(),
            room: inner.room.unwrap_or(usize::MAX),
            broken_writes: false,
            read_blocked: true,
            write_blocked: false,
            readable_edge: false,
            writable_edge: settled,
        };
        inner.sockets.insert(id, socket);
        Ok(ConnectionId(id))
    }

    fn finish_connect(&mut self, id: ConnectionId) -> io::Result<bool> {
        self.with(id.0, |socket| match socket.dial {
            Dial::Accept => Ok(true),
            Dial::Hang => Ok(false),
            Dial::Refuse | Dial::CannotBegin => Err(ErrorKind::ConnectionRefused.into()),
        })
    }

    fn read(&mut self, id: ConnectionId, buf: &mut [u8]) -> io::Result<usize> {
        self.with(id.0, |socket| {
            if socket.inbound.is_empty() {
                match socket.end {
                    Some(Ok(())) => return Ok(0),
                    Some(Err(kind)) => return Err(kind.into()),
                    None => {
                        socket.read_blocked = true;
                        return Err(ErrorKind::WouldBlock.into());
                    }
                }
            }
            let n = buf.len().min(socket.inbound.len());
            for (to, from) in buf.iter_mut().zip(socket.inbound.drain(..n)) {
                *to = from;
            }
            Ok(n)
        })
    }

    fn write_vectored(&mut self, id: ConnectionId, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.borrow_mut().writes += 1;
        self.with(id.0, |socket| {
            if socket.broken_writes {
                return Err(ErrorKind::BrokenPipe.into());
            }
            let all = bufs.iter().flat_map(|buf| buf.iter().copied());
            let before = socket.outbound.len();
            socket.outbound.extend(all.take(socket.room));
            let n = socket.outbound.len() - before;
            socket.room -= n;
            if n == 0 {
                socket.write_blocked = true;
                return Err(ErrorKind::WouldBlock.into());
            }
            Ok(n)
        })
    }

    fn close(&mut self, id: ConnectionId) {
        self.0.borrow_mut().sockets.remove(&id.0).expect("an open socket");
    }

    fn poll(
        &mut self,
        timeout: Option<Duration>,
        ready: &mut Vec<Readiness>,
    ) -> io::Result<MonoTime> {
        let mut inner = self.0.borrow_mut();
        inner.polls += 1;
        let before = ready.len();
        for (id, socket) in &mut inner.sockets {
            let readable = std::mem::take(&mut socket.readable_edge);
            let writable = std::mem::take(&mut socket.writable_edge);
            if readable || writable {
                ready.push(Readiness { id: ConnectionId(*id), readable, writable });
            }
        }
        inner.waited = Duration::ZERO;
        if ready.len() == before {
            inner.waited = timeout.expect("a poll that would wait for ever");
            inner.now = inner.now + inner.waited;
        }
        Ok(inner.now)
    }

    fn waited(&self) -> Duration {
        self.0.borrow().waited
    }
}

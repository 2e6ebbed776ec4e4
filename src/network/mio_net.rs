//! The real network: the only file that knows mio.
//!
//! Sockets are made by socket2 (options go in before the connect) and polled by mio. All but
//! [`Wake::wake`] is called by the sender thread.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use super::{ConnectionId, Net, Readiness, SocketOptions, Wake};
use crate::time::{Clock, MonoTime};

/// The waker's token; connections count up from 0.
const WAKE: Token = Token(usize::MAX);

/// Readiness taken in one poll; what is left over comes with the next.
const EVENTS: usize = 256;

/// Longer waits are cut to this: nothing is due so late that an early end of the poll would hurt,
/// and no system call's integer overflows.
const LONGEST_POLL: Duration = Duration::from_secs(3600);

/// Slices that a system call takes (`IOV_MAX`, and Windows' own bound).
const MAX_SLICES: usize = 1024;

/// `MSG_NOSIGNAL`: a write to a closed connection must not raise SIGPIPE in the host process.
/// Apple's systems have a socket option instead, Windows has no such signal.
#[cfg(any(target_os = "linux", target_os = "android"))]
const SEND_FLAGS: i32 = 0x4000;
#[cfg(target_os = "freebsd")]
const SEND_FLAGS: i32 = 0x20000;
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
const SEND_FLAGS: i32 = 0;

/// Sockets behind mio's poll.
pub(crate) struct MioNet {
    clock: Clock,
    poll: Poll,
    events: Events,
    streams: BTreeMap<usize, TcpStream>,
    /// The next connection's id; never given twice.
    next_id: usize,
    /// How long the last poll waited.
    waited: Duration,
}

struct MioWake(Waker);

impl Wake for MioWake {
    fn wake(&self) {
        // Fails only if the poll is gone, and then nobody needs waking.
        let _ = self.0.wake();
    }
}

impl MioNet {
    /// A poll of its own and the handle that ends its waits. An error is the system's refusal of
    /// a file descriptor.
    pub(crate) fn new(clock: Clock) -> io::Result<(Self, Arc<dyn Wake>)> {
        let poll = Poll::new()?;
        let wake = MioWake(Waker::new(poll.registry(), WAKE)?);
        let events = Events::with_capacity(EVENTS);
        let (streams, waited) = (BTreeMap::new(), Duration::ZERO);
        let net = Self { clock, poll, events, streams, next_id: 0, waited };
        Ok((net, Arc::new(wake)))
    }

    fn stream(&mut self, id: ConnectionId) -> io::Result<&mut TcpStream> {
        self.streams.get_mut(&id.0).ok_or_else(|| ErrorKind::NotConnected.into())
    }

    /// The next id is nobody's and never was, nor is it the waker's.
    fn invariants(&self) {
        let last = self.streams.last_key_value().map(|(id, _)| *id);
        debug_assert!(last < Some(self.next_id) && self.next_id < WAKE.0, "{last:?} is open");
    }
}

impl Net for MioNet {
    fn connect(&mut self, addr: SocketAddr, options: &SocketOptions) -> io::Result<ConnectionId> {
        let socket = open(addr, options)?;
        match socket.connect(&SockAddr::from(addr)) {
            Err(error) if !is_in_progress(&error) => return Err(error),
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
        let id = self.next_id;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(id), interest)?;
        self.streams.insert(id, stream);
        self.next_id += 1;
        self.invariants();
        Ok(ConnectionId(id))
    }

    fn finish_connect(&mut self, id: ConnectionId) -> io::Result<bool> {
        let stream = self.stream(id)?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        match stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn read(&mut self, id: ConnectionId, buf: &mut [u8]) -> io::Result<usize> {
        let stream = self.stream(id)?;
        uninterrupted(|| stream.read(buf))
    }

    fn write_vectored(&mut self, id: ConnectionId, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let stream = self.stream(id)?;
        let bufs = &bufs[..bufs.len().min(MAX_SLICES)];
        let send = || SockRef::from(&*stream).send_vectored_with_flags(bufs, SEND_FLAGS);
        uninterrupted(|| stream.try_io(send))
    }

    fn close(&mut self, id: ConnectionId) {
        if let Some(mut stream) = self.streams.remove(&id.0) {
            // Closing takes it off the poll in any case.
            let _ = self.poll.registry().deregister(&mut stream);
        }
    }

    fn poll(
        &mut self,
        timeout: Option<Duration>,
        ready: &mut Vec<Readiness>,
    ) -> io::Result<MonoTime> {
        // A poll that waits for nothing is not worth a second reading of the clock.
        let before = (timeout != Some(Duration::ZERO)).then(|| self.clock.now());
        match self.poll.poll(&mut self.events, Some(poll_time(timeout))) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => self.events.clear(),
            Err(error) => return Err(error),
        }
        for event in &self.events {
            let Token(id) = event.token();
            if event.token() == WAKE || !self.streams.contains_key(&id) {
                continue;
            }
            let over = event.is_error();
            ready.push(Readiness {
                id: ConnectionId(id),
                readable: over || event.is_readable() || event.is_read_closed(),
                writable: over || event.is_writable() || event.is_write_closed(),
            });
        }
        let now = self.clock.now();
        self.waited = before.map_or(Duration::ZERO, |before| now.since(before));
        Ok(now)
    }

    fn waited(&self) -> Duration {
        self.waited
    }
}

/// A non-blocking socket with its options set.
fn open(addr: SocketAddr, options: &SocketOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    #[cfg(target_vendor = "apple")]
    socket.set_nosigpipe(true)?;
    if let Some(bytes) = options.send_buffer {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(time) = options.keep_alive {
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(time))?;
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if options.user_timeout.is_some() {
        socket.set_tcp_user_timeout(options.user_timeout)?;
    }
    Ok(socket)
}

/// Whether a non-blocking connect has merely not finished yet.
fn is_in_progress(error: &io::Error) -> bool {
    #[cfg(unix)]
    if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) {
        return true;
    }
    // Windows; and on unix a connect cut by a signal goes on by itself.
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn uninterrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Whole milliseconds, rounded up: a poll that ends before the deadline it waits for would be
/// repeated, busily, until the deadline is there.
fn poll_time(timeout: Option<Duration>) -> Duration {
    let timeout = timeout.map_or(LONGEST_POLL, |timeout| timeout.min(LONGEST_POLL));
    let up = if timeout.subsec_nanos() % 1_000_000 == 0 { 0 } else { 1 };
    Duration::from_millis(timeout.as_millis() as u64 + up)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    use super::*;

    const FOREVER: Option<Duration> = Some(Duration::from_secs(20));

    fn wait_for(net: &mut MioNet, id: ConnectionId, what: impl Fn(&Readiness) -> bool) {
        let mut ready = Vec::new();
        while !ready.iter().any(|r: &Readiness| r.id == id && what(r)) {
            ready.clear();
            net.poll(FOREVER, &mut ready).unwrap();
            assert!(!ready.is_empty(), "nothing happened");
        }
    }

    fn connected(net: &mut MioNet, listener: &TcpListener) -> ConnectionId {
        let options = SocketOptions {
            send_buffer: Some(32 * 1024),
            receive_buffer: Some(32 * 1024),
            user_timeout: Some(Duration::from_secs(30)),
            ..SocketOptions::default()
        };
        let id = net.connect(listener.local_addr().unwrap(), &options).unwrap();
        wait_for(net, id, |r| r.writable);
        assert!(net.finish_connect(id).unwrap());
        id
    }

    fn listener() -> TcpListener {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
    }

    #[test]
    fn bytes_go_out_and_come_back_in_order_through_full_sockets() {
        let listener = listener();
        let (mut net, _wake) = MioNet::new(Clock::system()).unwrap();
        let id = connected(&mut net, &listener);
        let (mut peer, _) = listener.accept().unwrap();
        let mut peer_back = peer.try_clone().unwrap();
        let echo = thread::spawn(move || {
            io::copy(&mut peer, &mut peer_back).unwrap();
        });
        // More slices and more bytes than one system call takes.
        let data: Vec<u8> = (0..4_000_000_u32).map(|i| (i % 251) as u8).collect();
        let (mut written, mut back, mut buf) = (0, Vec::new(), vec![0; 64 * 1024]);
        let (mut ready, mut can_write, mut can_read) = (Vec::new(), true, true);
        while back.len() < data.len() {
            if can_write && written < data.len() {
                let slices: Vec<_> =
                    data[written..].chunks(7).take(2000).map(IoSlice::new).collect();
                match net.write_vectored(id, &slices) {
                    Ok(n) => written += n,
                    Err(e) => {
                        assert_eq!(e.kind(), ErrorKind::WouldBlock);
                        can_write = false;
                    }
                }
            }
            match if can_read { net.read(id, &mut buf) } else { Err(ErrorKind::WouldBlock.into()) }
            {
                Ok(n) => back.extend_from_slice(&buf[..n]),
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::WouldBlock);
                    can_read = false;
                }
            }
            if !can_read && (!can_write || written == data.len()) {
                ready.clear();
                net.poll(FOREVER, &mut ready).unwrap();
                can_read |= ready.iter().any(|r| r.readable);
                can_write |= ready.iter().any(|r| r.writable);
            }
        }
        assert_eq!(back, data);
        net.close(id);
        echo.join().unwrap();
    }

    #[test]
    fn a_close_by_the_peer_is_an_edge_and_then_an_end() {
        let listener = listener();
        let (mut net, _wake) = MioNet::new(Clock::system()).unwrap();
        let id = connected(&mut net, &listener);
        let mut buf = [0; 8];
        assert_eq!(net.read(id, &mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"bye").unwrap();
        drop(peer);
        wait_for(&mut net, id, |r| r.readable);
        assert_eq!(net.read(id, &mut buf).unwrap(), 3);
        loop {
            match net.read(id, &mut buf) {
                Ok(n) => break assert_eq!(n, 0),
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::WouldBlock);
                    wait_for(&mut net, id, |r| r.readable);
                }
            }
        }
    }

    #[test]
    fn a_refused_connection_is_an_error_and_ids_are_not_reused() {
        let listener = listener();
        let addr = listener.local_addr().unwrap();
        let (mut net, _wake) = MioNet::new(Clock::system()).unwrap();
        let first = connected(&mut net, &listener);
        net.close(first);
        assert_eq!(net.read(first, &mut [0]).unwrap_err().kind(), ErrorKind::NotConnected);
        drop(listener);
        let second = net.connect(addr, &SocketOptions::default()).unwrap();
        assert_ne!(first, second);
        wait_for(&mut net, second, |r| r.writable);
        assert_eq!(net.finish_connect(second).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_socket_notices_by_itself_that_its_peer_is_gone() {
        let second = Duration::from_secs(1);
        let options = SocketOptions { user_timeout: Some(30 * second), ..SocketOptions::default() };
        let socket = open(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), &options).unwrap();
        assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), 60 * second);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(30 * second));
    }

    /// SEL-24: nothing is left of a socket that can't be set up. As many as a process may have by
    /// default would be missed.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_socket_that_cannot_be_set_up_is_closed() {
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let (mut net, _wake) = MioNet::new(Clock::system()).unwrap();
        // Linux takes 32767 seconds at most.
        let too_long = Some(Duration::from_secs(100_000));
        let options = SocketOptions { keep_alive: too_long, ..SocketOptions::default() };
        let listener = listener();
        let before = open();
        for _ in 0..1_000 {
            let refused = net.connect(listener.local_addr().unwrap(), &options).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        }
        // Other tests of this process have theirs.
        assert!(open() < before + 500, "{before} were open, and now {}", open());
    }

    #[test]
    fn a_wake_ends_the_poll_now_or_next() {
        let (mut net, wake) = MioNet::new(Clock::system()).unwrap();
        let mut ready = Vec::new();
        for _ in 0..2 {
            let start = Clock::system();
            let waker = Arc::clone(&wake);
            let thread = thread::spawn(move || waker.wake());
            net.poll(FOREVER, &mut ready).unwrap();
            assert!(start.now() < MonoTime::ZERO + Duration::from_secs(10), "it was not woken");
            thread.join().unwrap();
        }
        assert_eq!(ready, []);
    }

    #[test]
    fn waits_are_rounded_up_and_bounded() {
        let ms = Duration::from_millis;
        assert_eq!(poll_time(Some(Duration::ZERO)), ms(0));
        assert_eq!(poll_time(Some(Duration::from_nanos(1))), ms(1));
        assert_eq!(poll_time(Some(ms(5))), ms(5));
        assert_eq!(poll_time(Some(ms(5) + Duration::from_nanos(1))), ms(6));
        assert_eq!(poll_time(Some(Duration::MAX)), LONGEST_POLL);
        assert_eq!(poll_time(None), LONGEST_POLL);
    }
}

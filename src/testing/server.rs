//! The model behind TCP: one thread a broker that accepts, one a connection that reads a request,
//! lets the model answer it, and writes the response.
//!
//! Requests of one connection are carried out and answered one after the other, as in Kafka. All
//! threads share one [`Shared`]; they block in `accept`, in `read` or on its condition variable,
//! and are ended by closing their socket and a notification, never by polling.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::protocol::ApiKey;
use crate::sync::{Arc, Condvar, Mutex, MutexGuard};
use crate::time::{Clock, MonoTime};

use super::faults::{Cut, Faults, Mangle, Plan};
use super::incoming::Incoming;
use super::model::{Model, Reply, parse};

/// What the threads of all brokers share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Notified on every change of the state.
    changed: Condvar,
    pub(super) clock: Clock,
}

/// The cluster and its connections.
#[derive(Debug)]
pub(super) struct State {
    pub(super) model: Model,
    pub(super) faults: Faults,
    pub(super) links: BTreeMap<i32, Link>,
}

/// A broker's side of the network.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) mode: Mode,
    pub(super) counters: Counters,
    /// Open connections, by their number.
    streams: BTreeMap<u64, TcpStream>,
    /// Keeps the port while the broker is stopped: bound, but not listening.
    reserved: Option<Socket>,
    acceptor: Option<JoinHandle<()>>,
}

/// Whether a broker does anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    Running,
    /// Takes connections and what they send, and does nothing about it.
    Frozen,
    #[default]
    Stopped,
}

/// What a broker has been asked so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub(super) connections: u64,
    pub(super) requests: BTreeMap<ApiKey, u64>,
    pub(super) request_bytes: u64,
}

impl Shared {
    pub(super) fn new(model: Model) -> Arc<Self> {
        let links = model.brokers().keys().map(|id| (*id, Link::default())).collect();
        let state = Mutex::new(State { model, faults: Faults::default(), links });
        Arc::new(Self { state, changed: Condvar::new(), clock: Clock::system() })
    }

    /// The state, to look at.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Changes the state and tells every thread that waits for a change.
    pub(super) fn change<T>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        let result = action(&mut self.state.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until `ready` gives a value; `None` if it has not by `timeout`.
    pub(super) fn wait_for<T>(
        &self,
        timeout: Duration,
        mut ready: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        let deadline = self.clock.now() + timeout;
        let mut state = self.state.lock();
        loop {
            if let Some(value) = ready(&mut state) {
                return Some(value);
            }
            let left = deadline.since(self.clock.now());
            if left.is_zero() {
                return None;
            }
            if deadline == MonoTime::MAX {
                self.changed.wait(&mut state);
            } else {
                self.changed.wait_for(&mut state, left);
            }
        }
    }

    /// Starts a broker: on the port it had, or on a free one.
    pub(super) fn start(self: &Arc<Self>, id: i32) -> io::Result<()> {
        let reserved = match self.change(|state| state.links.get_mut(&id)?.reserved.take()) {
            Some(socket) => socket,
            None => bound_socket(0)?,
        };
        reserved.listen(128)?;
        let listener = TcpListener::from(reserved);
        let port = listener.local_addr()?.port();
        let shared = Arc::clone(self);
        let name = format!("test-broker-{id}");
        self.change(|state| {
            if let Some(broker) = state.model.broker_mut(id) {
                broker.port = port;
            }
            state.model.broker_back(id);
            state.links.entry(id).or_default().mode = Mode::Running;
        });
        let acceptor = thread::Builder::new()
            .name(name)
            .spawn(move || accept_until_stopped(&shared, id, listener))?;
        self.change(|state| state.links.entry(id).or_default().acceptor = Some(acceptor));
        Ok(())
    }

    /// Stops a broker: closes its connections, refuses new ones, ends its threads.
    pub(super) fn stop(&self, id: i32) {
        let acceptor = self.change(|state| {
            state.model.broker_gone(id);
            let port = state.model.brokers().get(&id).map_or(0, |broker| broker.port);
            let link = state.links.get_mut(&id)?;
            link.mode = Mode::Stopped;
            for stream in link.streams.values() {
                // It may have been closed by the client in the meantime.
                let _ = stream.shutdown(Shutdown::Both);
            }
            Some((link.acceptor.take()?, port))
        });
        if let Some((acceptor, port)) = acceptor {
            // Wakes the thread from `accept`; it sees that it is to end.
            let _ = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
            let ended = acceptor.join();
            debug_assert!(ended.is_ok() || thread::panicking(), "a thread of broker {id} panicked");
            let reserved = bound_socket(port).ok();
            self.change(|state| state.links.entry(id).or_default().reserved = reserved);
        }
    }
}

/// A socket on the loopback interface; port 0 means any.
fn bound_socket(port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    Ok(socket)
}

/// The body of a broker's own thread. Ends once all threads of its connections have.
fn accept_until_stopped(shared: &Arc<Shared>, id: i32, listener: TcpListener) {
    let mut connections: Vec<JoinHandle<()>> = Vec::new();
    for number in 0.. {
        let accepted = listener.accept();
        let registered = shared.change(|state| {
            let link = state.links.get_mut(&id).filter(|link| link.mode != Mode::Stopped)?;
            // A failed accept (a client that has gone again) is none of our business.
            let Ok((stream, _)) = accepted else { return Some(None) };
            let Ok(clone) = stream.try_clone() else { return Some(None) };
            link.counters.connections += 1;
            link.streams.insert(number, clone);
            Some(Some(stream))
        });
        let Some(stream) = registered else { break };
        connections.retain(|connection| !connection.is_finished());
        let Some(stream) = stream else { continue };
        let shared_by_thread = Arc::clone(shared);
        let spawned =
            thread::Builder::new().name(format!("test-broker-{id}-{number}")).spawn(move || {
                // An I/O error is the end of a connection, like any other end.
                let _ = Connection::new(&shared_by_thread, id, stream).serve();
                shared_by_thread.change(|state| {
                    state.links.get_mut(&id).map(|link| link.streams.remove(&number))
                });
            });
        connections.extend(spawned.ok());
    }
    drop(listener);
    for connection in connections {
        let ended = connection.join();
        debug_assert!(
            ended.is_ok() || thread::panicking(),
            "a connection's thread of broker {id} panicked"
        );
    }
}

/// What follows a request.
enum Next {
    Read,
    Close,
}

/// What is to be done with the connection once a request has been dealt with.
enum Step {
    Reply(Reply, Plan),
    Cut(Cut),
}

/// One client's connection, in its own thread.
struct Connection<'a> {
    shared: &'a Shared,
    broker: i32,
    stream: TcpStream,
    incoming: Incoming,
}

impl<'a> Connection<'a> {
    fn new(shared: &'a Shared, broker: i32, stream: TcpStream) -> Self {
        Self { shared, broker, stream, incoming: Incoming::new() }
    }

    fn serve(&mut self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        while let Some(frame) = self.incoming.next(&mut self.stream)? {
            if !self.wait_while_frozen() {
                break;
            }
            match self.handle_frame(frame)? {
                Next::Read => {}
                Next::Close => break,
            }
        }
        Ok(())
    }

    /// Gives whether the broker still runs.
    fn wait_while_frozen(&self) -> bool {
        let broker = self.broker;
        let mode = self.shared.wait_for(Duration::MAX, |state| {
            state.links.get(&broker).map(|link| link.mode).filter(|mode| *mode != Mode::Frozen)
        });
        mode == Some(Mode::Running)
    }

    /// Waits, unless the broker is stopped; gives whether it still runs.
    fn pause(&self, time: Duration) -> bool {
        let broker = self.broker;
        let stopped = |state: &mut State| {
            state.links.get(&broker).is_none_or(|link| link.mode == Mode::Stopped).then_some(())
        };
        time.is_zero() || self.shared.wait_for(time, stopped).is_none()
    }

    fn handle_frame(&mut self, frame: Range<usize>) -> io::Result<Next> {
        match self.carry_out(self.incoming.frame(frame)) {
            Step::Reply(reply, plan) => self.reply(reply, &plan),
            Step::Cut(Cut::Disconnect) => Ok(Next::Close),
            Step::Cut(Cut::Silence) => {
                self.incoming.ignore_rest(&mut self.stream)?;
                Ok(Next::Close)
            }
        }
    }

    /// Does what the request asks for, and what the faults do to it, up to the response.
    fn carry_out(&self, frame: &[u8]) -> Step {
        let now_ms = self.shared.clock.wall_millis();
        let planned = self.shared.change(|state| {
            let parsed = parse(&state.model, self.broker, frame)?;
            let link = state.links.get_mut(&self.broker)?;
            *link.counters.requests.entry(parsed.key).or_default() += 1;
            link.counters.request_bytes += frame.len() as u64;
            let mut plan = if state.faults.is_empty() {
                Plan::default()
            } else {
                state.faults.plan(&parsed.target(&state.model, self.broker))
            };
            state.model.throttle(self.broker, &parsed, frame.len(), now_ms, &mut plan);
            Some((parsed, plan))
        });
        let Some((parsed, plan)) = planned else {
            return Step::Cut(Cut::Disconnect);
        };
        if !self.pause(plan.delay_before) {
            return Step::Cut(Cut::Disconnect);
        }
        if let Some(cut) = plan.cut_before {
            return Step::Cut(cut);
        }
        let now_ms = self.shared.clock.wall_millis();
        let answer = |state: &mut State| state.model.answer(self.broker, &parsed, now_ms, &plan);
        let reply = self.shared.change(answer);
        if !self.pause(plan.delay_after) {
            return Step::Cut(Cut::Disconnect);
        }
        match plan.cut_after {
            Some(cut) => Step::Cut(cut),
            None => Step::Reply(reply, plan),
        }
    }

    fn reply(&mut self, reply: Reply, plan: &Plan) -> io::Result<Next> {
        let mut frame = match reply {
            Reply::Frame(frame) => frame,
            Reply::Nothing => return Ok(Next::Read),
            Reply::Close => return Ok(Next::Close),
        };
        match plan.mangle {
            None => {}
            Some(Mangle::Garbage) => frame.iter_mut().skip(8).for_each(|byte| *byte = 0xff),
            Some(Mangle::Oversize) => frame = i32::MAX.to_be_bytes().to_vec(),
            Some(Mangle::Truncate(bytes)) => {
                frame.truncate(bytes);
                self.stream.write_all(&frame)?;
                return Ok(Next::Close);
            }
        }
        self.stream.write_all(&frame)?;
        Ok(if self.pause(plan.mute) { Next::Read } else { Next::Close })
    }
}

//! Names to addresses, without ever holding up the sender thread.
//!
//! [`Resolver`] is the seam. [`ThreadResolver`] asks the system (`getaddrinfo`, through std) on a
//! thread that exists only while there is something to ask; an address given as such is answered
//! at once. One thread asks for one name at a time: a name server that hangs delays other names,
//! but no connection that stands.
//!
//! All addresses of a name are given, in the system's order of preference, for both values of
//! `client.dns.lookup`. `resolve_canonical_bootstrap_servers_only` would also look up the
//! addresses' canonical names, which Kerberos alone needs and std can't do.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use crate::claims;
use crate::network::Wake;
use crate::sync::thread::JoinHandle;
use crate::sync::{Condvar, Mutex};
use crate::threads::spawn_named;
use crate::time::{Clock, MonoTime};

/// A name's addresses, or why there are none.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
    pub(crate) result: io::Result<Vec<SocketAddr>>,
}

/// Looks names up. Neither call blocks.
pub(crate) trait Resolver {
    /// Begins to look a name up; each call is answered through `poll`, together with others for
    /// the same host and port.
    fn resolve(&mut self, host: &Arc<str>, port: u16);

    /// Appends the answers that have come.
    fn poll(&mut self, out: &mut Vec<Resolved>);
}

/// How a name is looked up; may take its time.
pub(crate) type Lookup = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The system's resolver, asked on a thread of its own.
pub(crate) struct ThreadResolver {
    shared: Arc<Shared>,
    /// Perhaps the program's, and dropped where the resolver is: whoever waits for the thread's end
    /// has no part in it.
    lookup: Arc<Lookup>,
}

struct Shared {
    state: Mutex<State>,
    /// Signalled when the thread has nothing more to do.
    ended: Condvar,
    wake: Arc<dyn Wake>,
}

struct State {
    wanted: VecDeque<(Arc<str>, u16)>,
    done: Vec<Resolved>,
    /// The thread is asking, or about to look for a name to ask for.
    is_running: bool,
    thread: Option<JoinHandle<()>>,
    is_closed: bool,
    /// Until when the thread's end is waited for, by all that do.
    deadline: MonoTime,
}

impl Default for State {
    fn default() -> Self {
        Self {
            wanted: VecDeque::new(),
            done: Vec::new(),
            is_running: false,
            thread: None,
            is_closed: false,
            deadline: MonoTime::MAX,
        }
    }
}

impl ThreadResolver {
    /// Asks the system; `wake` is called when an answer is there.
    pub(crate) fn new(wake: Arc<dyn Wake>) -> Self {
        Self::with_lookup(
            wake,
            Box::new(|host, port| Ok((host, port).to_socket_addrs()?.collect())),
        )
    }

    /// Asks `lookup` instead of the system.
    pub(crate) fn with_lookup(wake: Arc<dyn Wake>, lookup: Box<Lookup>) -> Self {
        let (state, ended) = (Mutex::default(), Condvar::new());
        Self { shared: Arc::new(Shared { state, ended, wake }), lookup: lookup.into() }
    }

    /// A handle for whoever waits for the thread's end.
    pub(crate) fn thread(&self) -> ResolverThread {
        ResolverThread(Arc::clone(&self.shared))
    }
}

/// The resolver's thread, as seen by a thread that waits for its end.
pub(crate) struct ResolverThread(Arc<Shared>);

impl ResolverThread {
    /// Waits for the thread's end; false if it is still stuck in a lookup at the deadline, which
    /// is that of all who wait if theirs is earlier. It then ends by itself when the system lets go
    /// of it. Call it after the resolver was dropped.
    pub(crate) fn wait_ended(&self, clock: &Clock, deadline: MonoTime) -> bool {
        let mut state = self.0.state.lock();
        state.deadline = state.deadline.min(deadline);
        self.0.ended.notify_all();
        while state.is_running {
            let left = state.deadline.since(clock.now());
            if left.is_zero() {
                return false;
            }
            self.0.ended.wait_for(&mut state, left);
        }
        let thread = state.thread.take();
        state.invariants();
        drop(state);
        // All that is left of it is its return.
        thread.is_none_or(|thread| thread.join().is_ok())
    }
}

impl Resolver for ThreadResolver {
    fn resolve(&mut self, host: &Arc<str>, port: u16) {
        let mut state = self.shared.state.lock();
        if let Some(ip) = literal(host) {
            let result = Ok(vec![SocketAddr::new(ip, port)]);
            state.done.push(Resolved { host: Arc::clone(host), port, result });
            return;
        }
        if state.wanted.iter().any(|(h, p)| h == host && *p == port) {
            return;
        }
        state.wanted.push_back((Arc::clone(host), port));
        if state.is_running {
            return state.invariants();
        }
        state.is_running = true;
        let (shared, lookup) = (Arc::clone(&self.shared), Arc::clone(&self.lookup));
        match spawn_named("kafka-producer-resolver".to_owned(), move || run(&shared, &*lookup)) {
            Ok(thread) => state.thread = Some(thread),
            Err(error) => {
                state.is_running = false;
                state.wanted.clear();
                let host = Arc::clone(host);
                state.done.push(Resolved { host, port, result: Err(error) });
            }
        }
        state.invariants();
    }

    fn poll(&mut self, out: &mut Vec<Resolved>) {
        out.append(&mut self.shared.state.lock().done);
    }
}

impl Drop for ThreadResolver {
    fn drop(&mut self) {
        self.shared.state.lock().is_closed = true;
    }
}

/// The thread: asks for names until there is none left.
fn run(shared: &Shared, lookup: &Lookup) {
    let mut state = shared.state.lock();
    while !state.is_closed {
        let Some((host, port)) = state.wanted.pop_front() else { break };
        drop(state);
        let result = lookup(&host, port);
        state = shared.state.lock();
        state.done.push(Resolved { host, port, result });
        shared.wake.wake();
    }
    state.is_running = false;
    state.invariants();
    shared.ended.notify_all();
}

impl State {
    /// What is asked for has a thread that asks, unless nobody wants to know any more, and is asked
    /// for once. Looked at for the last name.
    fn invariants(&self) {
        if !claims::are_checked() {
            return;
        }
        assert!(self.is_running || self.is_closed || self.wanted.is_empty(), "{:?}", self.wanted);
        assert!(!self.is_running || self.thread.is_some(), "nobody asks");
        let same = self.wanted.iter().filter(|name| Some(*name) == self.wanted.back());
        assert!(same.count() <= 1, "asked for twice: {:?}", self.wanted);
    }
}

/// An address that stands for itself; IPv6 ones may be in brackets.
fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    bare.unwrap_or(host).parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::{Receiver, Sender, unbounded};

    use super::*;

    struct Woken(Sender<()>);

    impl Wake for Woken {
        fn wake(&self) {
            let _ = self.0.send(());
        }
    }

    const LONG: Duration = Duration::from_secs(20);

    /// A resolver whose lookups wait for the test's word, and what tells of its wake-ups; a lookup
    /// of "stuck" is told of as it begins, in the same way.
    fn resolver() -> (ThreadResolver, Sender<()>, Receiver<()>) {
        let ((go, wait), (woken, wake)) = (unbounded::<()>(), unbounded());
        let began = woken.clone();
        let lookup = move |host: &str, port| {
            if host == "stuck" {
                let _ = began.send(());
            }
            let _ = wait.recv();
            match host {
                "nowhere" => Err(io::ErrorKind::NotFound.into()),
                _ => Ok(vec![SocketAddr::from(([10, 0, 0, host.len() as u8], port))]),
            }
        };
        (ThreadResolver::with_lookup(Arc::new(Woken(woken)), Box::new(lookup)), go, wake)
    }

    fn wait_ended(thread: &ResolverThread, timeout: Duration) -> bool {
        let clock = Clock::system();
        thread.wait_ended(&clock, clock.now() + timeout)
    }

    fn answers(resolver: &mut ThreadResolver) -> Vec<String> {
        let mut out = Vec::new();
        resolver.poll(&mut out);
        let text = |r: Resolved| format!("{} {:?}", r.host, r.result.map_err(|e| e.kind()));
        out.into_iter().map(text).collect()
    }

    #[test]
    fn addresses_are_answered_at_once_without_a_thread() {
        let (mut resolver, _go, _wake) = resolver();
        resolver.resolve(&Arc::from("127.0.0.1"), 9092);
        resolver.resolve(&Arc::from("[::1]"), 1);
        assert_eq!(
            answers(&mut resolver),
            ["127.0.0.1 Ok([127.0.0.1:9092])", "[::1] Ok([[::1]:1])"]
        );
        assert!(resolver.shared.state.lock().thread.is_none());
    }

    #[test]
    fn names_are_looked_up_elsewhere_and_the_poll_is_woken() {
        let (mut resolver, go, wake) = resolver();
        for host in ["one", "nowhere", "three"] {
            resolver.resolve(&Arc::from(host), 5);
        }
        assert_eq!(answers(&mut resolver), Vec::<String>::new());
        for expected in ["one Ok([10.0.0.3:5])", "nowhere Err(NotFound)", "three Ok([10.0.0.5:5])"]
        {
            go.send(()).unwrap();
            wake.recv_timeout(LONG).unwrap();
            assert_eq!(answers(&mut resolver), [expected]);
        }
        assert!(wait_ended(&resolver.thread(), LONG), "the thread ends when nothing is wanted");
        resolver.resolve(&Arc::from("again"), 5);
        go.send(()).unwrap();
        wake.recv_timeout(LONG).unwrap();
        assert_eq!(answers(&mut resolver), ["again Ok([10.0.0.5:5])"]);
    }

    #[test]
    fn a_stuck_lookup_is_left_behind_and_the_rest_is_dropped() {
        let (mut resolver, go, wake) = resolver();
        resolver.resolve(&Arc::from("stuck"), 5);
        resolver.resolve(&Arc::from("waiting"), 5);
        let thread = resolver.thread();
        wake.recv_timeout(LONG).unwrap();
        drop(resolver);
        assert!(!wait_ended(&thread, Duration::from_millis(1)));
        go.send(()).unwrap();
        let its = thread.0.state.lock().thread.take();
        its.unwrap().join().unwrap();
        assert!(wait_ended(&thread, Duration::ZERO));
        assert_eq!(wake.try_iter().count(), 1, "only the stuck name was asked for");
    }

    /// A close with no time cuts one short that has plenty, also where that waits for a name.
    #[test]
    fn who_waits_for_a_stuck_lookup_goes_with_the_first_whose_time_is_up() {
        let (mut resolver, _go, wake) = resolver();
        resolver.resolve(&Arc::from("stuck"), 5);
        let thread = resolver.thread();
        wake.recv_timeout(LONG).unwrap();
        let begun = Clock::system().now();
        std::thread::scope(|scope| {
            let patient = scope.spawn(|| wait_ended(&thread, LONG));
            assert!(!wait_ended(&thread, Duration::from_millis(20)));
            assert!(!patient.join().unwrap());
        });
        assert!(Clock::system().now().since(begun) < LONG / 2);
    }

    #[test]
    fn the_system_knows_localhost() {
        let (woken, wake) = unbounded();
        let mut resolver = ThreadResolver::new(Arc::new(Woken(woken)));
        resolver.resolve(&Arc::from("localhost"), 80);
        wake.recv_timeout(LONG).unwrap();
        let mut out = Vec::new();
        resolver.poll(&mut out);
        let addresses = out.remove(0).result.unwrap();
        assert!(addresses.iter().all(|a| a.ip().is_loopback() && a.port() == 80), "{addresses:?}");
    }
}

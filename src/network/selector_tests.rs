//! The selector and its channels over a scripted network.

use std::io::ErrorKind;

use super::*;
use crate::network::Piece;
use crate::network::frame::MAX_FRAME_SIZE;
use crate::network::testing::{Dial, FakeNet};

const IDLE: Duration = Duration::from_secs(540);

struct Bench {
    net: FakeNet,
    selector: Selector<FakeNet>,
    now: MonoTime,
}

fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A frame whose body is `batch` between a head byte before and one behind.
fn frame(batch: &[u8]) -> OutFrame {
    let length = batch.len() as u32 + 2;
    let mut head = length.to_be_bytes().to_vec();
    head.extend_from_slice(b"<>");
    OutFrame {
        head,
        pieces: vec![Piece::Head(5), Piece::Segment(0), Piece::Head(6)],
        segments: vec![batch.to_vec()],
    }
}

fn bytes(frame: &OutFrame) -> Vec<u8> {
    [&frame.head[..5], &frame.segments[0], &frame.head[5..]].concat()
}

fn response(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes(), body].concat()
}

impl Bench {
    fn new() -> Self {
        let net = FakeNet::default();
        let selector = Selector::new(net.clone(), Some(IDLE));
        Self { net, selector, now: MonoTime::ZERO }
    }

    fn connect(&mut self, port: u16) -> ConnectionId {
        self.selector.connect(addr(port), &SocketOptions::default(), self.now).unwrap()
    }

    fn ready(&mut self, port: u16) -> ConnectionId {
        let id = self.connect(port);
        assert_eq!(self.poll().connected, [id]);
        self.selector.on_negotiated(id);
        id
    }

    fn send(&mut self, id: ConnectionId, tag: u64, frame: OutFrame) -> Option<OutFrame> {
        self.selector.send(id, tag, frame, self.now)
    }

    fn poll(&mut self) -> Completions {
        self.poll_for(Duration::from_millis(10))
    }

    fn poll_for(&mut self, timeout: Duration) -> Completions {
        let mut out = Completions::default();
        self.now = self.selector.poll(Some(timeout), self.now, &mut out).unwrap();
        out
    }
}

#[test]
fn a_frame_that_fits_is_written_at_once_and_given_back() {
    let mut b = Bench::new();
    let id = b.ready(1);
    let sent = b.send(id, 7, frame(b"records")).expect("written at once");
    assert_eq!(sent.segments, [b"records".to_vec()]);
    assert_eq!(b.net.take_sent(id.0), bytes(&sent));
    assert_eq!(b.net.writes(), 1);
}

/// SEL-02, SEL-22.
#[test]
fn a_full_socket_parks_frames_and_loses_no_byte_and_no_order() {
    let mut b = Bench::new();
    b.net.limit_new_sockets(9);
    let id = b.ready(1);
    for tag in 0..3 {
        assert!(b.send(id, tag, frame(format!("records {tag}").as_bytes())).is_none());
    }
    let (mut sent, mut done) = (b.net.take_sent(id.0), Vec::new());
    assert_eq!(sent.len(), 9);
    for _ in 0..20 {
        b.net.give_room(id.0, 4);
        done.extend(b.poll().sends.into_iter().map(|(_, tag, frame)| (tag, bytes(&frame))));
        sent.extend(b.net.take_sent(id.0));
    }
    assert_eq!(done.iter().map(|(tag, _)| *tag).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(sent, done.into_iter().flat_map(|(_, bytes)| bytes).collect::<Vec<_>>());
}

#[test]
fn an_idle_turn_waits_instead_of_spinning() {
    let mut b = Bench::new();
    let id = b.ready(1);
    b.poll();
    let (polls, start) = (b.net.polls(), b.now);
    b.poll_for(Duration::from_secs(5));
    assert_eq!((b.net.polls() - polls, b.now.since(start)), (1, Duration::from_secs(5)));
    // A frame waiting for room is no reason to spin either.
    b.net.limit_new_sockets(0);
    let full = b.ready(2);
    assert!(b.send(full, 1, frame(b"x")).is_none());
    let start = b.now;
    b.poll_for(Duration::from_secs(5));
    assert_eq!(b.now.since(start), Duration::from_secs(5));
    assert_eq!(b.net.open_sockets(), [id.0, full.0]);
}

/// SEL-08, SEL-23.
#[test]
fn responses_arrive_whole_however_they_are_cut() {
    let mut b = Bench::new();
    let (one, two) = (b.ready(1), b.ready(2));
    let big = vec![5; 3 * READ_BUFFER + 17];
    let stream = [response(b"first"), response(b""), response(&big)].concat();
    b.net.deliver(two.0, &response(b"other"));
    let mut got = Vec::new();
    for part in stream.chunks(READ_BUFFER / 2 + 1) {
        b.net.deliver(one.0, part);
        got.extend(b.poll().receives);
    }
    let expected = [(two, b"other".to_vec()), (one, b"first".to_vec()), (one, vec![]), (one, big)];
    got.sort_by_key(|(id, _)| *id != two);
    assert_eq!(got, expected);
}

/// SEL-20.
#[test]
fn a_channel_with_much_to_read_keeps_its_turn_without_a_new_edge() {
    let mut b = Bench::new();
    let (id, other) = (b.ready(1), b.ready(2));
    let body = vec![1; 60 * READ_BUFFER];
    b.net.deliver(id.0, &response(&body));
    b.net.deliver(other.0, &response(b"small"));
    assert_eq!(b.poll().receives, [(other, b"small".to_vec())], "all that the first turn brings");
    let mut turns = 1;
    loop {
        turns += 1;
        let receives = b.poll().receives;
        if let Some((from, got)) = receives.first() {
            assert_eq!((*from, got.len()), (id, body.len()));
            break;
        }
        assert_eq!(b.now, MonoTime::ZERO, "it waited though there is more to read");
    }
    assert_eq!(turns, 4, "one turn must not read without bound");
}

/// SEL-01, SEL-13, SEL-14.
#[test]
fn answers_given_before_a_close_come_before_the_close() {
    for end in [Ok(()), Err(ErrorKind::ConnectionReset)] {
        let mut b = Bench::new();
        let id = b.ready(1);
        b.net.deliver(id.0, &[response(b"a"), response(b"b"), vec![0, 0]].concat());
        b.net.end(id.0, end);
        let out = b.poll();
        assert_eq!(out.receives, [(id, b"a".to_vec()), (id, b"b".to_vec())]);
        let [d] = &out.disconnected[..] else { panic!("{out:?}") };
        match (end, &d.cause) {
            (Ok(()), DisconnectCause::Closed { mid_frame: true }) => {}
            (Err(kind), DisconnectCause::Failed(error)) if error.kind() == kind => {}
            (_, other) => panic!("{other:?}"),
        }
        assert_eq!(b.net.open_sockets(), []);
    }
}

#[test]
fn a_failed_write_hands_back_what_was_not_written_and_reads_the_last_answers() {
    let mut b = Bench::new();
    b.net.limit_new_sockets(10);
    let id = b.ready(1);
    assert!(b.send(id, 1, frame(b"x")).is_some(), "seven bytes fit into ten");
    assert!(b.send(id, 2, frame(b"yyyy")).is_none());
    b.net.deliver(id.0, &response(b"answer to 1"));
    b.net.break_writes(id.0);
    b.net.give_room(id.0, 1000);
    let out = b.poll();
    assert_eq!(out.receives, [(id, b"answer to 1".to_vec())]);
    let [d] = &out.disconnected[..] else { panic!("{out:?}") };
    assert!(matches!(&d.cause, DisconnectCause::Failed(e) if e.kind() == ErrorKind::BrokenPipe));
    assert_eq!(d.unsent.iter().map(|u| (u.tag, u.started)).collect::<Vec<_>>(), [(2, true)]);
}

/// SEL-03.
#[test]
fn frames_sent_into_a_connection_that_just_broke_come_back_unstarted() {
    let mut b = Bench::new();
    let id = b.ready(1);
    b.net.deliver(id.0, &response(b"last words"));
    b.net.break_writes(id.0);
    assert!(b.send(id, 1, frame(b"x")).is_none());
    assert!(b.send(id, 2, frame(b"y")).is_none());
    let start = b.now;
    let out = b.poll();
    assert_eq!(b.now, start, "an outcome is waiting, and the poll waited too");
    assert_eq!(out.receives, [(id, b"last words".to_vec())], "though their edge was never polled");
    let [d] = &out.disconnected[..] else { panic!("{out:?}") };
    let unsent: Vec<_> = d.unsent.iter().map(|u| (u.tag, u.started)).collect();
    assert_eq!(unsent, [(1, false), (2, false)]);
    assert!(b.poll().disconnected.is_empty());
}

#[test]
fn close_gives_frames_back_even_if_the_connection_had_ended() {
    let mut b = Bench::new();
    b.net.limit_new_sockets(8);
    let (standing, broken) = (b.ready(1), b.ready(2));
    assert!(b.send(standing, 1, frame(b"1234")).is_none());
    b.net.break_writes(broken.0);
    assert!(b.send(broken, 2, frame(b"1234")).is_none());
    let unsent =
        |list: Vec<ReturnedFrame>| list.iter().map(|u| (u.tag, u.started)).collect::<Vec<_>>();
    assert_eq!(unsent(b.selector.close(standing)), [(1, true)]);
    assert_eq!(unsent(b.selector.close(broken)), [(2, false)]);
    let out = b.poll();
    assert!(out.disconnected.is_empty(), "a close by the owner is not reported: {out:?}");
    assert_eq!(b.net.open_sockets(), []);
}

/// SEL-04, SEL-05, SEL-16.
#[test]
fn attempts_end_as_the_network_says() {
    let mut b = Bench::new();
    for (port, dial) in [(1, Dial::Refuse), (2, Dial::Hang), (3, Dial::CannotBegin)] {
        b.net.dial(addr(port), dial);
    }
    assert!(b.selector.connect(addr(3), &SocketOptions::default(), b.now).is_err());
    let (refused, hanging) = (b.connect(1), b.connect(2));
    let out = b.poll();
    assert_eq!(out.connected, []);
    let [d] = &out.disconnected[..] else { panic!("{out:?}") };
    assert_eq!(d.id, refused);
    assert!(matches!(d.cause, DisconnectCause::ConnectFailed(_)), "{:?}", d.cause);
    assert!(b.poll().disconnected.is_empty());
    b.selector.close(hanging);
    assert_eq!(b.net.open_sockets(), []);
}

/// SEL-10.
#[test]
fn a_muted_connection_is_not_read_and_misses_nothing() {
    let mut b = Bench::new();
    let (muted, other) = (b.ready(1), b.ready(2));
    b.selector.set_muted(muted, true);
    b.net.deliver(muted.0, &response(b"late"));
    b.net.deliver(other.0, &response(b"now"));
    assert_eq!(b.poll().receives, [(other, b"now".to_vec())]);
    let start = b.now;
    assert!(b.poll().receives.is_empty());
    assert!(b.now > start, "a muted channel keeps the poll from waiting");
    b.selector.set_muted(muted, false);
    assert_eq!(b.poll().receives, [(muted, b"late".to_vec())]);
}

/// SEL-11.
#[test]
fn only_the_connections_idle_for_too_long_are_closed() {
    let mut b = Bench::new();
    let (idle, busy) = (b.ready(1), b.ready(2));
    b.poll_for(Duration::from_secs(300));
    assert!(b.send(busy, 1, frame(b"x")).is_some());
    let out = b.poll_for(Duration::from_secs(1000));
    assert_eq!(b.now.since(MonoTime::ZERO), IDLE, "the limit ends the poll");
    let [d] = &out.disconnected[..] else { panic!("{out:?}") };
    assert!(d.id == idle && matches!(d.cause, DisconnectCause::Idle), "{d:?}");
    let out = b.poll_for(Duration::from_secs(1000));
    assert_eq!(b.now.since(MonoTime::ZERO), Duration::from_secs(300) + IDLE);
    assert_eq!(out.disconnected[0].id, busy);
}

#[test]
fn a_frame_too_long_to_be_one_ends_the_connection() {
    let mut b = Bench::new();
    let id = b.ready(1);
    b.net.deliver(id.0, &(MAX_FRAME_SIZE as u32 + 1).to_be_bytes());
    let out = b.poll();
    assert!(matches!(out.disconnected[0].cause, DisconnectCause::BadFrame(_)), "{out:?}");
    assert_eq!(b.net.open_sockets(), []);
}

/// SEL-09.
#[test]
fn a_poll_tells_what_is_new_and_tells_it_once() {
    let mut b = Bench::new();
    let id = b.ready(1);
    b.net.deliver(id.0, &response(b"a"));
    b.net.stop(id.0);
    assert!(b.send(id, 1, frame(b"x")).is_none());
    b.net.give_room(id.0, 100);
    let out = b.poll();
    assert_eq!((out.sends.len(), out.receives), (1, vec![(id, b"a".to_vec())]));
    assert!(b.poll().is_empty(), "nothing has happened since");
    b.net.deliver(id.0, &response(b"b"));
    let out = b.poll();
    assert_eq!((out.sends.len(), out.receives), (0, vec![(id, b"b".to_vec())]));
}

/// SEL-12: what came while nobody looked is given out, and then the connection is not idle; what a
/// muted one has not read keeps it from nothing.
#[test]
fn what_was_received_comes_before_an_end_for_idleness() {
    let mut b = Bench::new();
    let (fresh, muted) = (b.ready(1), b.ready(2));
    b.selector.set_muted(muted, true);
    b.net.deliver(muted.0, &response(b"never read"));
    b.poll();
    b.poll_for(IDLE - Duration::from_millis(20));
    b.net.deliver(fresh.0, &[response(b"late"), response(b"later")].concat());
    let out = b.poll_for(Duration::ZERO);
    assert_eq!(out.receives, [(fresh, b"late".to_vec()), (fresh, b"later".to_vec())]);
    let out = b.poll_for(Duration::from_secs(60));
    assert!(out.receives.is_empty());
    assert_eq!(out.disconnected.iter().map(|d| d.id).collect::<Vec<_>>(), [muted]);
    assert!(matches!(out.disconnected[0].cause, DisconnectCause::Idle));
    assert_eq!(b.net.open_sockets(), [fresh.0]);
}

/// SEL-15: a connection that stands before the first poll is told of by that poll; closed before
/// it, it leaves nothing behind.
#[test]
fn a_connection_that_stands_at_once_is_told_of_by_the_next_poll() {
    let mut b = Bench::new();
    let (kept, closed) = (b.connect(1), b.connect(2));
    assert!(b.selector.close(closed).is_empty());
    let out = b.poll();
    assert_eq!(out.connected, [kept]);
    assert!(out.disconnected.is_empty());
    assert_eq!(b.net.open_sockets(), [kept.0]);
    assert!(b.poll().is_empty());
}

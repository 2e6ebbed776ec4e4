use std::io::ErrorKind;

use super::*;

fn response(event: &ClientEvent) -> &ClientResponse {
    match event {
        ClientEvent::Response(response) => response,
        other => panic!("{other:?}"),
    }
}

/// NC-02, NC-35.
#[test]
fn requests_are_pipelined_up_to_the_limit_and_answered_in_order() {
    let mut b = Bench::new(1);
    let socket = b.connected(NODE);
    b.pass(5 * MS);
    let sent_at = b.now;
    let ids: Vec<i32> = (0..3).map(|_| b.send(NODE)).collect();
    assert!(!b.ready(NODE), "all slots are in use");
    assert_eq!((b.client.in_flight_count(NODE), b.client.in_flight_total()), (3, 3));
    let arrived: Vec<i32> = b.take_requests(socket).iter().map(|r| r.2).collect();
    assert_eq!(arrived, ids);
    b.answer(socket, ids[0], b"first");
    b.answer(socket, ids[1], b"second");
    let events = b.poll();
    assert_eq!(told(&events), ["0: first", "1: second"]);
    let first = response(&events[0]);
    assert!(first.frame.head.ends_with(b"some records"), "the frame comes back");
    assert_eq!((first.created_at, first.node, first.version), (sent_at, NODE, 9));
    assert!(b.ready(NODE));
    assert_eq!(b.client.in_flight_total(), 1);
}

/// NC-35.
#[test]
fn without_a_response_due_a_request_ends_with_its_last_byte() {
    let mut b = Bench::new(1);
    b.net.limit_new_sockets(200);
    let socket = b.connected(NODE);
    let with_response = b.send(NODE);
    for _ in 0..2 {
        let request = ClientRequest { expects_response: false, ..b.request(NODE) };
        assert!(b.ready(NODE));
        b.client.send(request, b.now);
        // The second one doesn't fit any more.
        let used = b.net.take_sent(socket).len();
        b.net.give_room(socket, used.saturating_sub(5));
    }
    let request = ClientRequest { expects_response: false, ..b.request(NODE) };
    b.net.stop(socket);
    b.client.send(request, b.now);
    assert_eq!(told(&b.poll()), ["1: done", "2: done"]);
    assert!(b.poll().is_empty());
    b.net.give_room(socket, 10);
    assert!(b.poll().is_empty());
    b.net.give_room(socket, 1000);
    assert_eq!(told(&b.poll()), ["3: done"]);
    b.answer(socket, with_response, b"answered");
    assert_eq!(told(&b.poll()), ["0: answered"]);
}

/// NC-09, NC-18, NC-36.
#[test]
fn an_overdue_request_ends_its_connection_and_all_on_it() {
    let mut b = Bench::new(2);
    let _other = (b.connected(NodeId(1)), b.send(NodeId(1)));
    b.pass(1000 * MS);
    b.connected(NODE);
    for timeout in [29_500, 29_000, 60_000] {
        let request = ClientRequest { timeout: timeout * MS, ..b.request(NODE) };
        b.client.send(request, b.now);
        b.pass(100 * MS);
    }
    // The first to be due is the other node's, whose time began a second earlier.
    let events = b.wait(100_000 * MS);
    assert_eq!(b.now, MonoTime::ZERO + 30_000 * MS);
    assert_eq!(told(&events), ["0: TimedOut", "lost 1"]);
    assert!(reason(&events).contains("did not answer Produce in time"), "{events:?}");
    let events = b.wait(100_000 * MS);
    assert_eq!(b.now, MonoTime::ZERO + 30_100 * MS);
    assert_eq!(told(&events), ["1: Disconnected", "2: TimedOut", "3: Disconnected", "lost 0"]);
    assert!(b.net.open_sockets().is_empty());
    assert!(!b.ready(NODE), "the backoff has begun");
}

/// NC-12, NC-14, NC-15.
#[test]
fn throttled_time_keeps_requests_away_and_does_not_count_as_theirs() {
    let mut b = Bench::new(1);
    let socket = b.connected(NODE);
    let id = b.send(NODE);
    b.client.throttle(NODE, Duration::ZERO, b.now);
    assert!(b.ready(NODE));
    b.client.throttle(NODE, 5000 * MS, b.now);
    b.client.throttle(NODE, 1000 * MS, b.now);
    assert!(!b.ready(NODE));
    assert_eq!(b.client.ready_delay(NODE, b.now), 5000 * MS);
    assert_eq!(b.client.least_loaded_node(b.now), None, "throttled is not available");
    b.pass(5000 * MS);
    assert!(b.ready(NODE));
    b.pass(30_000 * MS);
    b.answer(socket, id, b"late but in time");
    assert_eq!(told(&b.poll()), ["0: late but in time"]);
}

/// NC-22, NC-24.
#[test]
fn a_lost_connection_ends_its_requests_in_order_and_says_what_was_sent() {
    let mut b = Bench::new(1);
    b.net.limit_new_sockets(150);
    let socket = b.connected(NODE);
    let first = b.send(NODE);
    b.net.stop(socket);
    b.net.give_room(socket, 1);
    b.send(NODE);
    b.send(NODE);
    b.answer(socket, first, b"answered");
    b.net.end(socket, Err(ErrorKind::ConnectionReset));
    let events = b.poll();
    let expected = ["0: answered", "1: Disconnected", "2: Disconnected, never sent", "lost 0"];
    assert_eq!(told(&events), expected);
    assert!(response(&events[2]).frame.head.ends_with(b"some records"));
    assert_eq!(b.client.in_flight_total(), 0);
}

#[test]
fn a_write_that_fails_at_once_is_told_by_the_next_poll_without_waiting() {
    let mut b = Bench::new(1);
    let socket = b.connected(NODE);
    b.net.break_writes(socket);
    b.send(NODE);
    b.send(NODE);
    let (now, events) = (b.now, b.wait(1000 * MS));
    let expected = ["0: Disconnected, never sent", "1: Disconnected, never sent", "lost 0"];
    assert_eq!(told(&events), expected);
    assert_eq!(b.now, now);
}

/// NC-02, SEL-18.
#[test]
fn what_is_not_the_answer_due_ends_the_connection() {
    let wrong_id = |b: &mut Bench, socket, id: i32| b.answer(socket, id + 1, b"");
    let truncated = |b: &mut Bench, socket, _| b.net.deliver(socket, &[0, 0, 0, 1, 9]);
    for bad in [wrong_id as fn(&mut Bench, usize, i32), truncated] {
        let mut b = Bench::new(1);
        let socket = b.connected(NODE);
        let (first, second) = (b.send(NODE), b.send(NODE));
        bad(&mut b, socket, first);
        b.answer(socket, second, b"nobody listens any more");
        let events = b.poll();
        assert_eq!(told(&events), ["0: bad response", "1: Disconnected", "lost 0"]);
        assert!(reason(&events).contains("none to Produce"), "{events:?}");
        assert!(b.net.open_sockets().is_empty());
    }
    // The same when the connection ends in the same turn.
    let mut b = Bench::new(1);
    let socket = b.connected(NODE);
    let id = b.send(NODE);
    b.send(NODE);
    b.answer(socket, id + 7, b"");
    b.net.end(socket, Ok(()));
    assert_eq!(told(&b.poll()), ["0: bad response", "1: Disconnected", "lost 0"]);
}

/// NC-35.
#[test]
fn an_answer_that_nobody_asked_for_ends_the_connection() {
    let mut b = Bench::new(1);
    let socket = b.connected(NODE);
    b.answer(socket, 5, b"");
    assert_eq!(told(&b.poll()), ["lost 0"]);
    // Nor may an answer come before its request is all sent.
    b.pass(b.client.ready_delay(NODE, b.now));
    let socket = b.connected(NODE);
    b.net.stop(socket);
    b.net.give_room(socket, 20);
    let id = b.send(NODE);
    b.answer(socket, id, b"");
    assert_eq!(told(&b.poll()), ["0: Disconnected", "lost 0"]);
}

/// With acks=0 the end of the connection is all that a broker says of an error.
#[test]
fn a_close_behind_requests_without_answers_is_a_loss_like_any_other() {
    let mut b = Bench::new(1);
    let socket = b.connected(NODE);
    for tag in 0..30 {
        b.pass(1000 * MS);
        let request = ClientRequest { expects_response: false, ..b.request(NODE) };
        assert!(b.ready(NODE));
        b.client.send(request, b.now);
        assert_eq!(told(&b.poll()), [format!("{tag}: done")]);
    }
    b.net.stop(socket);
    let request = ClientRequest { expects_response: false, ..b.request(NODE) };
    b.client.send(request, b.now);
    b.net.end(socket, Ok(()));
    let events = b.poll();
    assert_eq!(told(&events), ["30: Disconnected, never sent", "lost 0"]);
    assert_eq!(stage(&events), Stage::InUse);
    assert!(!reason(&events).contains("SASL"), "{events:?}");
    assert!(b.client.ready_delay(NODE, b.now) >= 40 * MS, "it was in use a moment ago");

    b.pass(b.client.ready_delay(NODE, b.now));
    let socket = b.connected(NODE);
    b.pass(60_000 * MS);
    let request = ClientRequest { expects_response: false, ..b.request(NODE) };
    b.client.send(request, b.now);
    b.net.end(socket, Ok(()));
    let events = b.poll();
    assert_eq!(told(&events), ["31: done", "lost 0"]);
    assert_eq!(stage(&events), Stage::InUse, "the request may be lost");
}

#[test]
fn a_peer_that_talks_nonsense_was_not_cut_for_want_of_use() {
    let no_request = |b: &mut Bench, socket| b.answer(socket, 5, b"");
    let bad_answer = |b: &mut Bench, socket| {
        let id = b.send(NODE);
        b.answer(socket, id + 1, b"");
    };
    let no_frame = |b: &mut Bench, socket| b.net.deliver(socket, &[255; 4]);
    let half_a_frame = |b: &mut Bench, socket| {
        b.net.deliver(socket, &[0; 2]);
        b.net.end(socket, Ok(()));
    };
    for nonsense in [no_request as fn(&mut Bench, usize), bad_answer, no_frame, half_a_frame] {
        let mut b = Bench::new(1);
        let socket = b.connected(NODE);
        b.pass(60_000 * MS);
        nonsense(&mut b, socket);
        let events = b.poll();
        assert_eq!(told(&events).last().map(String::as_str), Some("lost 0"));
        assert_eq!(stage(&events), Stage::InUse, "{events:?}");
        assert!(b.client.ready_delay(NODE, b.now) >= 40 * MS, "{events:?}");
    }
}

/// NC-04, NC-24, NC-25.
#[test]
fn disconnect_ends_requests_in_order_and_starts_one_backoff() {
    let mut b = Bench::new(1);
    b.connected(NODE);
    for _ in 0..3 {
        b.send(NODE);
    }
    b.client.disconnect(NODE, b.now);
    assert!(b.net.open_sockets().is_empty());
    let delay = b.client.ready_delay(NODE, b.now);
    let events = b.poll();
    assert_eq!(told(&events), ["0: Disconnected", "1: Disconnected", "2: Disconnected"]);
    b.pass(delay / 2);
    b.client.disconnect(NODE, b.now);
    assert_eq!(b.client.ready_delay(NODE, b.now), delay - delay / 2, "not restarted");
    b.pass(delay - delay / 2);
    b.connected(NODE);
}

/// SEL-19.
#[test]
fn close_ends_everything() {
    let mut b = Bench::new(3);
    b.connected(NodeId(0));
    b.send(NodeId(0));
    b.negotiating(NodeId(1));
    b.connected(NodeId(2));
    b.send(NodeId(2));
    let mut events = Vec::new();
    b.client.close(b.now, &mut events);
    assert_eq!(told(&events), ["0: Disconnected", "1: Disconnected"]);
    assert!(b.net.open_sockets().is_empty() && !b.ready(NODE));
    assert_eq!(b.client.in_flight_total(), 0);
    assert!(b.poll().is_empty());
}

/// NC-26.
#[test]
fn correlation_ids_wrap_below_the_reserved_ones() {
    let mut b = Bench::new(1);
    b.connected(NODE);
    let ids: Vec<i32> = (0..3).map(|_| b.send(NODE)).collect();
    assert_eq!((ids[1], ids[2]), (ids[0] + 1, ids[0] + 2));
    b.client.set_next_correlation_id(i32::MAX - 8);
    assert_eq!(b.client.next_correlation_id(), i32::MAX - 8);
    assert_eq!(b.client.next_correlation_id(), 0);
}

#[test]
fn waiting_for_an_answer_takes_no_needless_polls() {
    let mut b = Bench::new(1);
    b.connected(NODE);
    b.send(NODE);
    let polls = b.net.polls();
    assert!(b.wait(29_000 * MS).is_empty());
    assert_eq!(b.now, MonoTime::ZERO + 29_000 * MS);
    // One more is left from the set-up's deadline, which is passed unnoticed.
    assert_eq!(b.net.polls() - polls, 2);
}

/// NC-01: whoever sends without asking whether the node is ready has a defect.
#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "which is not ready")]
fn a_request_to_a_node_that_is_not_ready_is_a_defect() {
    let mut b = Bench::new(1);
    b.negotiating(NODE);
    let request = b.request(NODE);
    b.client.send(request, b.now);
}

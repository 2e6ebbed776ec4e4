use std::io::ErrorKind;

use super::*;

#[test]
fn a_node_that_leaves_finishes_its_requests_first() {
    let mut b = Bench::new(2);
    let socket = b.connected(NODE);
    b.connected(NodeId(1));
    let ids = [b.send(NODE), b.send(NODE)];
    b.client.set_nodes(vec![node_address(7)], b.now);
    assert_eq!(b.net.open_sockets(), [socket], "the idle one is closed at once");
    assert!(!b.ready(NODE) && !b.ready(NodeId(1)));
    b.answer(socket, ids[0], b"a");
    assert_eq!(told(&b.poll()), ["0: a"]);
    b.answer(socket, ids[1], b"b");
    assert_eq!(told(&b.poll()), ["1: b"]);
    assert!(b.net.open_sockets().is_empty());
    assert_eq!(b.client.in_flight_count(NODE), 0);
}

/// Its last request may be one that is over with its last byte.
#[test]
fn a_node_that_leaves_goes_once_all_is_written_that_wants_no_answer() {
    let mut b = Bench::new(1);
    b.net.limit_new_sockets(200);
    let socket = b.connected(NODE);
    b.net.stop(socket);
    let request = ClientRequest { expects_response: false, ..b.request(NODE) };
    b.client.send(request, b.now);
    b.client.set_nodes(vec![node_address(7)], b.now);
    assert_eq!(b.net.open_sockets(), [socket]);
    b.net.give_room(socket, 1000);
    assert_eq!(told(&b.poll()), ["0: done"]);
    assert!(b.net.open_sockets().is_empty());
}

#[test]
fn a_node_that_comes_back_in_time_keeps_its_connection() {
    let mut b = Bench::new(1);
    let socket = b.connected(NODE);
    let id = b.send(NODE);
    b.client.set_nodes(vec![], b.now);
    b.client.set_nodes(vec![node_address(0)], b.now);
    b.answer(socket, id, b"a");
    assert_eq!(told(&b.poll()), ["0: a"]);
    assert!(b.ready(NODE));
    assert_eq!(b.net.attempts().len(), 1);
}

#[test]
fn a_leaving_node_that_never_answers_is_given_up_when_its_request_is_overdue() {
    let mut b = Bench::new(1);
    b.connected(NODE);
    b.send(NODE);
    b.client.set_nodes(vec![], b.now);
    assert_eq!(told(&b.wait(40_000 * MS)), ["0: TimedOut", "lost 0"]);
    assert!(!b.client.any_node_available(b.now));
}

/// NC-30.
#[test]
fn a_node_that_moved_is_cut_off_and_connected_to_at_its_new_place_at_once() {
    let mut b = Bench::new(2);
    b.connected(NODE);
    b.send(NODE);
    let moved = NodeAddress { id: NODE, ..node_address(1) };
    b.client.set_nodes(vec![moved], b.now);
    assert!(b.net.open_sockets().is_empty());
    assert_eq!(told(&b.poll()), ["0: Disconnected"]);
    b.connected(NODE);
    assert_eq!(b.net.attempts().last(), Some(&host_address(1)));
}

/// NC-34.
#[test]
fn a_node_taken_out_and_put_back_has_no_backoff() {
    let mut b = Bench::new(1);
    b.net.dial(host_address(0), Dial::Refuse);
    b.ready(NODE);
    assert_eq!(told(&b.poll()), ["failed 0"]);
    assert!(b.client.ready_delay(NODE, b.now) > Duration::ZERO);
    b.client.set_nodes(vec![], b.now);
    b.client.set_nodes(vec![node_address(0)], b.now);
    assert_eq!(b.client.ready_delay(NODE, b.now), Duration::ZERO);
}

/// NC-32.
#[test]
fn closing_a_node_while_it_connects_is_safe() {
    let mut b = Bench::new(1);
    b.ready(NODE);
    b.client.disconnect(NODE, b.now);
    assert!(b.net.open_sockets().is_empty());
    b.pass(b.client.ready_delay(NODE, b.now));
    b.connected(NODE);
}

/// NC-15.
#[test]
fn the_least_loaded_node_is_ready_and_has_the_fewest_in_flight() {
    let mut b = Bench::new(3);
    for n in 0..3 {
        b.connected(NodeId(n));
        for _ in 0..n {
            b.send(NodeId(n));
        }
    }
    for _ in 0..20 {
        assert_eq!(b.client.least_loaded_node(b.now), Some(NODE));
    }
    b.send(NODE);
    b.send(NODE);
    assert_eq!(b.client.least_loaded_node(b.now), Some(NodeId(1)));
    b.client.throttle(NodeId(1), 100 * MS, b.now);
    assert!([0, 2].map(|n| Some(NodeId(n))).contains(&b.client.least_loaded_node(b.now)));
}

/// NC-15, NC-17.
#[test]
fn without_a_ready_node_a_connecting_one_is_least_loaded_and_then_the_longest_untried() {
    let mut b = Bench::new(3);
    let mut tried = Vec::new();
    for _ in 0..3 {
        let node = b.client.least_loaded_node(b.now).unwrap();
        b.net.dial(host_address(node.0 as u8), Dial::Refuse);
        assert!(!b.ready(node));
        assert_eq!(b.client.least_loaded_node(b.now), Some(node), "it is connecting");
        assert_eq!(told(&b.poll()), [format!("failed {node}")]);
        tried.push(node);
    }
    let mut all = tried.clone();
    all.sort();
    assert_eq!(all, [0, 1, 2].map(NodeId), "each is tried before one is tried again");
    assert_eq!(b.client.least_loaded_node(b.now), None, "all are in backoff");
    assert!(!b.client.any_node_available(b.now));
    b.pass(1000 * MS);
    assert!(b.client.any_node_available(b.now));
}

/// NC-17.
#[test]
fn nodes_that_fail_are_tried_round_and_round() {
    let none = Duration::ZERO;
    let config = ClientConfig { reconnect_backoff: none, reconnect_backoff_max: none, ..config() };
    let mut b = Bench::with_config(3, config);
    let mut tried = Vec::new();
    for _ in 0..9 {
        let node = b.client.least_loaded_node(b.now).unwrap();
        b.net.dial(host_address(node.0 as u8), Dial::Refuse);
        assert!(!b.ready(node));
        assert_eq!(told(&b.poll()), [format!("failed {node}")]);
        b.pass(MS);
        tried.push(node);
    }
    assert_eq!((&tried[3..6], &tried[6..]), (&tried[..3], &tried[..3]));
    tried.truncate(3);
    tried.sort();
    assert_eq!(tried, [0, 1, 2].map(NodeId));
}

/// NC-16.
#[test]
fn a_full_node_is_not_least_loaded_but_the_cluster_is_reachable() {
    let mut b = Bench::new(1);
    b.connected(NODE);
    for _ in 0..3 {
        b.send(NODE);
    }
    assert_eq!(b.client.least_loaded_node(b.now), None);
    assert!(b.client.any_node_available(b.now));
}

#[test]
fn an_idle_connection_is_closed_in_silence_and_made_again_at_once() {
    let mut b = Bench::new(1);
    b.connected(NODE);
    b.pass(540_000 * MS);
    assert!(b.net.open_sockets().is_empty());
    assert_eq!(b.client.ready_delay(NODE, b.now), Duration::ZERO);
    b.connected(NODE);
}

#[test]
fn names_and_answers_reach_every_node_that_waits_for_them() {
    let mut b = Bench::new(0);
    let at = |id, host: &str| NodeAddress { id: NodeId(id), host: Arc::from(host), port: 9092 };
    b.client.set_nodes(vec![at(1, "same"), at(2, "same"), at(3, "other")], b.now);
    for n in 1..=3 {
        b.ready(NodeId(n));
    }
    b.names.answer("same", 9092, Ok(vec![host_address(9)]));
    b.poll();
    assert_eq!(b.net.attempts(), [host_address(9); 2]);
}

/// NC-19: a node's delay is none at first, without end while it is connected or that is being
/// tried, and what is left of the backoff once it was lost.
#[test]
fn the_delay_of_a_node_tells_when_it_is_worth_asking_again() {
    let mut b = Bench::new(1);
    assert_eq!(b.client.ready_delay(NODE, b.now), Duration::ZERO);
    let socket = b.negotiating(NODE);
    assert_eq!(b.client.ready_delay(NODE, b.now), Duration::MAX);
    let answer = api_versions(ErrorCode::NONE, &[(0, 0, 9)]);
    b.net.deliver(socket, &encode(&answer, 4, 0));
    assert_eq!(told(&b.poll()), ["connected 0"]);
    assert_eq!(b.client.ready_delay(NODE, b.now), Duration::MAX);
    b.net.end(socket, Ok(()));
    assert_eq!(told(&b.poll()), ["lost 0"]);
    let delay = b.client.ready_delay(NODE, b.now);
    assert!(delay >= 40 * MS && delay <= 60 * MS, "{delay:?}");
    b.pass(delay / 4);
    assert_eq!(b.client.ready_delay(NODE, b.now), delay - delay / 4);
    assert_eq!(b.client.ready_delay(NodeId(9), b.now), Duration::MAX, "a stranger");
}

#[test]
fn a_connection_that_was_cut_for_want_of_use_is_made_again_at_once() {
    for unused in [false, true] {
        let mut b = Bench::new(1);
        let socket = b.connected(NODE);
        b.pass(60_000 * MS);
        if !unused {
            b.send(NODE);
        }
        b.net.end(socket, Err(ErrorKind::ConnectionReset));
        let expected = if unused { &["lost 0"][..] } else { &["0: Stale", "lost 0"] };
        let events = b.poll();
        assert_eq!(told(&events), expected);
        assert_eq!(stage(&events), if unused { Stage::Idle } else { Stage::InUse });
        assert_eq!(b.client.ready_delay(NODE, b.now), Duration::ZERO);
        // One that is cut as soon as it stands is another matter.
        let socket = b.connected(NODE);
        b.send(NODE);
        b.net.end(socket, Err(ErrorKind::ConnectionReset));
        assert_eq!(told(&b.poll()).last().map(String::as_str), Some("lost 0"));
        assert!(b.client.ready_delay(NODE, b.now) >= 40 * MS);
    }
}

#[test]
fn a_name_that_leads_elsewhere_is_followed_within_the_reconnect_backoff() {
    let mut b = Bench::new(1);
    let socket = b.connected(NODE);
    b.names.know("host-0", &[host_address(77)]);
    b.net.dial(host_address(0), Dial::Hang);
    b.net.end(socket, Err(ErrorKind::ConnectionReset));
    assert_eq!(told(&b.poll()), ["lost 0"]);
    let lost = b.now;
    b.pass(b.client.ready_delay(NODE, b.now));
    b.connected(NODE);
    assert_eq!(b.net.attempts().last(), Some(&host_address(77)));
    assert!(b.now.since(lost) <= 60 * MS, "{:?}", b.now.since(lost));
}

use std::io::ErrorKind;

use super::*;

/// NC-06, NC-37, NC-38.
#[test]
fn a_node_is_ready_only_after_it_told_its_api_versions() {
    let mut b = Bench::new(1);
    assert_eq!(b.client.api_version(NODE, ApiKey::Produce), Err(VersionError::NotReady));
    let socket = b.negotiating(NODE);
    assert!(!b.ready(NODE) && b.client.ready_delay(NODE, b.now) == Duration::MAX);
    let answer = api_versions(ErrorCode::NONE, &[(0, 0, 9), (3, 99, 100), (18, 0, 4), (777, 1, 2)]);
    b.net.deliver(socket, &encode(&answer, 4, 0));
    assert_eq!(told(&b.poll()), ["connected 0"]);
    assert!(b.ready(NODE));
    assert_eq!(b.client.api_version(NODE, ApiKey::Produce), Ok(9));
    let no_version = |api| match b.client.api_version(NODE, api) {
        Err(VersionError::Unsupported(unsupported)) => unsupported.to_string(),
        other => panic!("{other:?}"),
    };
    let text = no_version(ApiKey::Metadata);
    assert!(text.starts_with("Metadata v4-v13 is needed, and broker 0 at "), "{text}");
    assert!(text.ends_with(" offers v99-v100"), "{text}");
    assert!(no_version(ApiKey::InitProducerId).contains("offers none of it"));
}

/// NC-08.
#[test]
fn an_unsupported_api_versions_is_asked_again_lower() {
    for (named, expected) in [(vec![(18, 0, 3)], 3), (vec![], 0)] {
        let mut b = Bench::new(1);
        let socket = b.negotiating(NODE);
        let refusal = api_versions(ErrorCode::UNSUPPORTED_VERSION, &named);
        b.net.deliver(socket, &encode(&refusal, 0, 0));
        assert!(b.poll().is_empty());
        assert_eq!(b.take_requests(socket), [(18, expected, 1)]);
        let answer = api_versions(ErrorCode::NONE, &[(0, 0, 9)]);
        b.net.deliver(socket, &encode(&answer, expected, 1));
        assert_eq!(told(&b.poll()), ["connected 0"]);
    }
}

#[test]
fn a_broker_that_refuses_a_version_and_closes_is_not_asked_again() {
    let mut b = Bench::new(1);
    let socket = b.negotiating(NODE);
    let refusal = api_versions(ErrorCode::UNSUPPORTED_VERSION, &[(18, 0, 3)]);
    b.net.deliver(socket, &encode(&refusal, 0, 0));
    // Both are heard in one poll: there is no connection to ask on any more.
    b.net.end(socket, Ok(()));
    assert_eq!(told(&b.poll()), ["failed 0"]);
    assert!(b.net.open_sockets().is_empty());
    assert!(b.poll().is_empty());
}

/// NC-07.
#[test]
fn a_broker_that_refuses_api_versions_is_not_used_and_says_why() {
    let mut b = Bench::new(1);
    let socket = b.negotiating(NODE);
    let refusal = api_versions(ErrorCode::INVALID_REQUEST, &[]);
    b.net.deliver(socket, &encode(&refusal, 4, 0));
    let events = b.poll();
    assert_eq!(told(&events), ["failed 0"]);
    assert!(reason(&events).contains("INVALID_REQUEST"), "{}", reason(&events));
    assert!(!b.ready(NODE));
    assert!(b.net.open_sockets().is_empty());

    b.pass(b.client.ready_delay(NODE, b.now));
    let socket = b.negotiating(NODE);
    b.net.end(socket, Ok(()));
    let events = b.poll();
    assert!(
        reason(&events).contains("older than Kafka 0.10, with Produce v0-v1 "),
        "{}",
        reason(&events)
    );
    let text = "broker 0 at host-0:9092: 10.0.0.0:9092: it closed the connection when asked";
    assert!(reason(&events).starts_with(text), "{}", reason(&events));
}

#[test]
fn garbage_instead_of_api_versions_ends_the_attempt() {
    let other_request = encode(&api_versions(ErrorCode::NONE, &[]), 4, 9);
    for garbage in [&b"HTTP/1.1 400 Bad Request"[..], &[0, 0, 0, 2, 0, 0], &other_request] {
        let mut b = Bench::new(1);
        let socket = b.negotiating(NODE);
        b.net.deliver(socket, garbage);
        assert_eq!(told(&b.poll()), ["failed 0"]);
        assert!(b.net.open_sockets().is_empty());
    }
}

/// NC-27, NC-28, NC-29.
#[test]
fn all_addresses_of_a_name_are_tried_in_turn_before_the_attempt_fails() {
    let mut b = Bench::new(1);
    let addresses = [host_address(10), host_address(11), host_address(12)];
    b.names.know("host-0", &addresses);
    b.net.dial(addresses[0], Dial::CannotBegin);
    b.net.dial(addresses[1], Dial::Refuse);
    b.net.dial(addresses[2], Dial::Refuse);
    assert!(!b.ready(NODE));
    let mut events = b.poll();
    events.extend(b.poll());
    assert_eq!(told(&events), ["failed 0"]);
    let text = reason(&events);
    assert!(addresses.iter().all(|a| text.contains(&a.to_string())), "{text}");
    assert_eq!(b.net.attempts(), addresses);
    assert_eq!(b.names.asked(), 1);

    // The name is asked for anew, and the address that failed last is now the last choice.
    b.names.know("host-0", &[host_address(12), host_address(13)]);
    b.pass(b.client.ready_delay(NODE, b.now));
    let socket = b.connected(NODE);
    assert_eq!(b.names.asked(), 2);
    assert_eq!(b.net.attempts().last(), Some(&host_address(13)));

    // The name leads elsewhere by now: where the first new address fails, the next one is tried.
    b.names.know("host-0", &[host_address(14), host_address(15)]);
    b.net.dial(host_address(14), Dial::Refuse);
    b.net.end(socket, Ok(()));
    assert_eq!(told(&b.poll()), ["lost 0"]);
    b.pass(b.client.ready_delay(NODE, b.now));
    assert!(!b.ready(NODE));
    assert!(b.poll().is_empty());
    assert_eq!(b.net.attempts()[4..], [host_address(14), host_address(15)]);
    assert_eq!(b.names.asked(), 3);
}

#[test]
fn a_slow_address_is_not_waited_for_and_the_first_that_stands_is_used() {
    let mut b = Bench::new(1);
    let addresses = [host_address(10), host_address(11), host_address(12)];
    b.names.know("host-0", &addresses);
    b.net.dial(addresses[0], Dial::Hang);
    b.net.dial(addresses[1], Dial::Hang);
    assert!(!b.ready(NODE));
    b.pass(249 * MS);
    assert_eq!(b.net.attempts(), addresses[..1]);
    b.pass(MS);
    assert_eq!(b.net.attempts(), addresses[..2], "beside the first one");
    b.pass(250 * MS);
    assert_eq!(b.net.attempts(), addresses);
    b.pass(MS);
    assert_eq!(b.take_requests(3).len(), 1, "ApiVersions goes to the one that stands");
    assert_eq!(b.net.open_sockets(), [3], "and the others are given up");
    // If that one is of no use the others are tried again.
    b.net.end(3, Ok(()));
    b.net.dial(addresses[0], Dial::Accept);
    b.poll();
    b.poll();
    assert_eq!(b.net.attempts()[3..], addresses[..1]);
    assert_eq!(b.take_requests(4).len(), 1);
}

#[test]
fn an_attempt_fails_when_the_last_of_its_addresses_has_failed() {
    let mut b = Bench::new(1);
    let addresses = [host_address(10), host_address(11)];
    b.names.know("host-0", &addresses);
    b.net.dial(addresses[0], Dial::Hang);
    b.net.dial(addresses[1], Dial::Refuse);
    assert!(!b.ready(NODE));
    // The first one may still come to stand.
    b.pass(2_000 * MS);
    let events = b.wait(60_000 * MS);
    assert_eq!(told(&events), ["failed 0"]);
    let text = reason(&events);
    assert!(text.contains("10.0.0.11:9092: it can't be reached"), "{text}");
    assert!(text.contains("10.0.0.10:9092: no connection came to stand in time"), "{text}");
    assert!(b.net.open_sockets().is_empty());
}

#[test]
fn the_same_failures_read_the_same_in_whatever_order_a_name_is_answered() {
    let mut b = Bench::new(1);
    let addresses = [host_address(10), host_address(11), host_address(12)];
    addresses.iter().for_each(|address| b.net.dial(*address, Dial::Refuse));
    let mut fail = |first: usize| {
        let mut addresses = addresses;
        addresses.rotate_left(first);
        b.names.know("host-0", &addresses);
        assert!(!b.ready(NODE));
        let events = b.wait(1000 * MS);
        assert_eq!(told(&events), ["failed 0"]);
        b.pass(b.client.ready_delay(NODE, b.now));
        reason(&events).to_owned()
    };
    let reasons = [fail(0), fail(1), fail(2)];
    assert!(reasons.iter().all(|reason| *reason == reasons[0]), "{reasons:#?}");
}

#[test]
fn an_ipv6_address_is_told_in_brackets() {
    for (id, name) in [(-1, "bootstrap server [::1]:9092: "), (1, "broker 1 at [::1]:9092: ")] {
        let mut b = Bench::new(0);
        let id = NodeId(id);
        b.client.set_nodes(vec![NodeAddress { id, host: "::1".into(), port: 9092 }], b.now);
        b.names.know("::1", &[]);
        assert!(!b.ready(id));
        let events = b.poll();
        assert!(reason(&events).starts_with(name), "{events:?}");
    }
}

#[test]
fn ipv4_and_ipv6_addresses_take_turns() {
    let mut b = Bench::new(1);
    let v6 = |n| SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, n], 9092));
    b.names.know("host-0", &[v6(1), v6(2), host_address(10), host_address(11)]);
    for address in [v6(1), v6(2), host_address(10), host_address(11)] {
        b.net.dial(address, Dial::Hang);
    }
    assert!(!b.ready(NODE));
    b.pass(1_000 * MS);
    assert_eq!(b.net.attempts(), [v6(1), host_address(10), v6(2), host_address(11)]);
}

/// NC-03.
#[test]
fn an_unresolvable_name_fails_the_attempt_and_nothing_else() {
    let mut b = Bench::new(0);
    b.client
        .set_nodes(vec![node_address(7), NodeAddress { id: NodeId(-1), ..node_address(8) }], b.now);
    let (node, bootstrap) = (NodeId(7), NodeId(-1));
    assert!(!b.ready(node) && !b.ready(node) && !b.ready(bootstrap));
    assert_eq!(b.names.asked(), 2);
    assert!(b.poll().is_empty());
    b.names.answer("host-7", 9092, Err(ErrorKind::NotFound.into()));
    b.names.answer("host-8", 9092, Ok(vec![]));
    let events = b.poll();
    assert_eq!(told(&events), ["failed 7", "failed -1"]);
    let text = "bootstrap server host-8:9092: its name has no address";
    assert_eq!(reason(&events), text);
    assert!(b.net.attempts().is_empty());
    // A late answer for an attempt that is over changes nothing.
    b.names.answer("host-7", 9092, Ok(vec![host_address(1)]));
    assert!(b.poll().is_empty() && b.net.attempts().is_empty());
}

/// NC-10, NC-11.
#[test]
fn every_stage_of_the_set_up_is_bounded_and_the_bound_grows() {
    let within = |took: Duration, nominal: Duration| {
        assert!(took >= nominal.mul_f64(0.8) && took <= nominal.mul_f64(1.2), "{took:?}");
        // Of the seed's jitters none is so small.
        assert!(took.abs_diff(nominal) > 100 * MS, "there is no jitter: {took:?}");
    };
    // Stuck in the look-up of the name.
    let mut b = Bench::new(0);
    b.client.set_nodes(vec![node_address(0)], b.now);
    b.ready(NODE);
    let events = b.wait(60_000 * MS);
    assert!(reason(&events).contains("not resolved in time"), "{events:?}");
    within(b.now.since(MonoTime::ZERO), 10_000 * MS);
    // Stuck in the connect: the second bound.
    b.names.know("host-0", &[host_address(0)]);
    b.net.dial(host_address(0), Dial::Hang);
    b.pass(b.client.ready_delay(NODE, b.now));
    let start = b.now;
    b.ready(NODE);
    let events = b.wait(60_000 * MS);
    assert!(reason(&events).contains("no connection came to stand"), "{events:?}");
    within(b.now.since(start), 20_000 * MS);
    // Stuck in ApiVersions: the third, at its maximum.
    b.net.dial(host_address(0), Dial::Accept);
    b.pass(b.client.ready_delay(NODE, b.now));
    let start = b.now;
    b.negotiating(NODE);
    let events = b.wait(60_000 * MS);
    assert!(reason(&events).contains("did not tell its API versions"), "{events:?}");
    assert!(b.now.since(start) <= 30_000 * MS && b.now.since(start) >= 24_000 * MS);
    assert!(b.net.open_sockets().is_empty());
    // A set-up that went well sets the bound back.
    b.pass(b.client.ready_delay(NODE, b.now));
    let socket = b.connected(NODE);
    b.net.end(socket, Ok(()));
    assert_eq!(told(&b.poll()), ["lost 0"]);
    b.pass(b.client.ready_delay(NODE, b.now));
    let start = b.now;
    b.negotiating(NODE);
    assert_eq!(told(&b.wait(60_000 * MS)), ["failed 0"]);
    within(b.now.since(start), 10_000 * MS);
}

/// NC-19, NC-20.
#[test]
fn the_backoff_grows_with_each_failure_and_starts_anew_after_success() {
    let mut b = Bench::new(1);
    b.net.dial(host_address(0), Dial::Refuse);
    let fail = |b: &mut Bench, nominal: f64| {
        assert!(!b.ready(NODE));
        assert_eq!(told(&b.poll()), ["failed 0"]);
        let delay = b.client.ready_delay(NODE, b.now);
        let ms = delay.as_secs_f64() * 1000.0;
        assert!(ms >= 0.8 * nominal && ms <= (1.2 * nominal).min(1000.0), "{ms} for {nominal}");
        let attempts = b.net.attempts().len();
        b.pass(delay - MS);
        assert!(!b.ready(NODE) && b.net.attempts().len() == attempts, "too early");
        b.pass(MS);
        assert_eq!(b.client.ready_delay(NODE, b.now), Duration::ZERO);
    };
    for nominal in [50.0, 100.0, 200.0, 400.0, 800.0, 1000.0, 1000.0] {
        fail(&mut b, nominal);
    }
    b.net.dial(host_address(0), Dial::Accept);
    let socket = b.connected(NODE);
    b.net.end(socket, Err(ErrorKind::ConnectionReset));
    assert_eq!(told(&b.poll()), ["lost 0"]);
    let delay = b.client.ready_delay(NODE, b.now);
    assert!(delay >= 40 * MS && delay <= 60 * MS, "{delay:?}");
}

/// NC-21, NC-23.
#[test]
fn a_failure_during_api_versions_makes_the_backoff_grow_too() {
    let mut b = Bench::new(1);
    let mut last = Duration::ZERO;
    for _ in 0..3 {
        let socket = b.negotiating(NODE);
        b.net.end(socket, Ok(()));
        assert_eq!(told(&b.poll()), ["failed 0"]);
        let delay = b.client.ready_delay(NODE, b.now);
        assert!(delay > last, "{delay:?} after {last:?}");
        last = delay;
        b.pass(delay);
    }
}

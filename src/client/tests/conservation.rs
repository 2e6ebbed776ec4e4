use std::io::ErrorKind;

use super::*;
use crate::random::Random;

/// What a run keeps account of.
#[derive(Default)]
struct Ledger {
    /// The bytes of each request sent, by tag.
    sent: BTreeMap<u64, Vec<u8>>,
    ended: BTreeMap<u64, &'static str>,
}

impl Ledger {
    fn take(&mut self, events: Vec<ClientEvent>) {
        for event in events {
            let ClientEvent::Response(response) = event else { continue };
            let kind = match response.outcome {
                Ok(_) => "answered",
                Err(RequestFailure::Disconnected | RequestFailure::Stale) => "disconnected",
                Err(RequestFailure::TimedOut) => "timed out",
                Err(RequestFailure::BadResponse(_)) => "bad",
            };
            assert_eq!(self.sent[&response.tag], response.frame.head, "its own frame comes back");
            let before = self.ended.insert(response.tag, kind);
            assert_eq!(before, None, "request {} ended twice", response.tag);
        }
    }
}

fn step(b: &mut Bench, random: &mut Random, ledger: &mut Ledger) {
    let node = NodeId(random.below(3) as i32);
    let sockets = b.net.open_sockets();
    let socket = sockets.get(random.below(sockets.len())).copied();
    match (random.below(14), socket) {
        (0..=4, _) => {
            if b.ready(node) {
                let expects_response = random.below(4) > 0;
                let timeout = MS * random.below(3000) as u32;
                let request = ClientRequest { expects_response, timeout, ..b.request(node) };
                ledger.sent.insert(request.tag, request.frame.head.clone());
                b.client.send(request, b.now);
            }
        }
        (5..=8, Some(socket)) => {
            let room = random.below(300);
            b.net.give_room(socket, room);
            for (api, version, id) in b.take_whole_requests(socket) {
                if api == ApiKey::ApiVersions.code() {
                    let answer = api_versions(ErrorCode::NONE, &[(0, 0, 9)]);
                    b.net.deliver(socket, &encode(&answer, version, id));
                } else {
                    let wrong = i32::from(random.below(40) == 0);
                    b.answer(socket, id + wrong, b"ok");
                }
            }
        }
        (9, Some(socket)) if random.below(4) == 0 => b.net.end(socket, Ok(())),
        (9, Some(socket)) if random.below(3) == 0 => {
            b.net.end(socket, Err(ErrorKind::ConnectionReset));
        }
        (9, Some(socket)) if random.below(2) == 0 => b.net.break_writes(socket),
        (10, _) if random.below(6) == 0 => b.client.disconnect(node, b.now),
        (11, _) if random.below(6) == 0 => {
            let mut nodes: Vec<_> = (0..3).map(node_address).collect();
            nodes.remove(random.below(3));
            nodes[0].port += random.below(2) as u16;
            b.client.set_nodes(nodes, b.now);
        }
        (11, _) => b.client.set_nodes((0..3).map(node_address).collect(), b.now),
        (12, _) => b.client.throttle(node, MS * random.below(50) as u32, b.now),
        _ => {
            let events = b.poll_for(MS * random.below(300) as u32);
            ledger.take(events);
        }
    }
}

#[test]
fn under_any_faults_each_request_ends_once_with_its_own_frame() {
    let mut kinds = BTreeMap::<&str, usize>::new();
    for seed in 0..300 {
        let mut b = Bench::with_config(3, ClientConfig { seed, ..config() });
        b.net.limit_new_sockets(120);
        let (mut random, mut ledger) = (Random::new(seed), Ledger::default());
        for _ in 0..400 {
            step(&mut b, &mut random, &mut ledger);
            let open = ledger.sent.len() - ledger.ended.len();
            assert!(b.client.in_flight_total() <= open, "seed {seed}");
        }
        let mut events = Vec::new();
        b.client.close(b.now, &mut events);
        ledger.take(events);
        assert_eq!(ledger.ended.len(), ledger.sent.len(), "seed {seed}: a request has no end");
        assert_eq!(b.client.in_flight_total(), 0, "seed {seed}");
        assert!(b.net.open_sockets().is_empty(), "seed {seed}");
        for kind in ledger.ended.into_values() {
            *kinds.entry(kind).or_default() += 1;
        }
    }
    let common = ["answered", "bad", "disconnected", "timed out"];
    assert!(common.iter().all(|k| kinds.get(k).is_some_and(|n| *n > 50)), "{kinds:?}");
}

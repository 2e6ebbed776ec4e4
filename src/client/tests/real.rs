use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::thread;

use super::*;
use crate::network::MioNet;
use crate::time::Clock;

/// A broker of one connection: tells its API versions, echoes the bodies of what else it is asked,
/// and ends with the connection.
fn serve(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut length = [0; 4];
    while stream.read_exact(&mut length).is_ok() {
        let mut request = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut request).unwrap();
        let mut reader = protocol::Reader::new(&request);
        let header = RequestHeader::decode(&mut reader).unwrap();
        let mut out = Vec::new();
        if header.api_key == ApiKey::ApiVersions.code() {
            out = encode(&api_versions(ErrorCode::NONE, &[(0, 0, 9)]), 4, header.correlation_id);
        } else {
            let body = &request[request.len() - reader.remaining()..];
            protocol::encode_response(ApiKey::Produce, 9, header.correlation_id, &mut out, |out| {
                out.extend_from_slice(body);
            });
        }
        stream.write_all(&out).unwrap();
    }
}

/// Sends a Produce request of this body, which is a segment of its frame.
fn send<N: crate::network::Net, R: Resolver>(
    client: &mut NetworkClient<N, R>,
    node: NodeId,
    tag: u64,
    body: Vec<u8>,
    now: MonoTime,
) {
    let (api, version, correlation_id) = (ApiKey::Produce, 9, client.next_correlation_id());
    let mut frame = request_frame(api, version, correlation_id, "me", |_| {});
    let total = (frame.head.len() - 4 + body.len()) as u32;
    frame.head[..4].copy_from_slice(&total.to_be_bytes());
    frame.pieces.push(crate::network::Piece::Segment(0));
    frame.segments.push(body);
    let (expects_response, timeout) = (true, 30_000 * MS);
    let request =
        ClientRequest { node, api, version, frame, correlation_id, expects_response, timeout, tag };
    client.send(request, now);
}

/// Polls until `count` events have come.
fn wait_for<N: crate::network::Net, R: Resolver>(
    client: &mut NetworkClient<N, R>,
    now: &mut MonoTime,
    count: usize,
) -> Vec<ClientEvent> {
    let mut events = Vec::new();
    while events.len() < count {
        let before = *now;
        *now = client.poll(Some(20_000 * MS), *now, &mut events).unwrap();
        assert!(now.since(before) < 10_000 * MS, "nothing happens: {events:?}");
    }
    events
}

/// SEL-07.
#[test]
fn the_real_network_and_resolver_carry_requests_and_answers() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (net, wake) = MioNet::new(Clock::system()).unwrap();
    let resolver = ThreadResolver::with_lookup(
        wake,
        Box::new(|_, port| Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))])),
    );
    let mut client = NetworkClient::new(net, resolver, config());
    let (mut now, node) = (MonoTime::ZERO, NodeId(1));
    client.set_nodes(vec![NodeAddress { id: node, host: Arc::from("broker"), port }], now);
    let broker = thread::spawn(move || serve(&listener));
    assert!(!client.ready(node, now));
    assert_eq!(told(&wait_for(&mut client, &mut now, 1)), ["connected 1"]);

    // Batches far larger than any socket's buffer, so that writes are short.
    let mut sent = Vec::new();
    for tag in 0..3 {
        let batch: Vec<u8> = (0..5_000_000_u32).map(|i| (i % 241 + tag) as u8).collect();
        sent.push(batch.clone());
        assert!(client.ready(node, now));
        send(&mut client, node, tag.into(), batch, now);
    }
    for (event, batch) in wait_for(&mut client, &mut now, 3).into_iter().zip(sent) {
        let ClientEvent::Response(response) = event else { panic!("{event:?}") };
        assert_eq!(response.frame.segments, std::slice::from_ref(&batch));
        assert!(response.outcome == Ok(ResponseBody::Bytes(batch)), "other bytes came back");
    }
    client.close(now, &mut Vec::new());
    broker.join().unwrap();
}

/// SEL-06: each connection has its own order, and no other's answers.
#[test]
fn five_brokers_answer_five_hundred_requests_each_in_order() {
    const BROKERS: i32 = 5;
    const REQUESTS: u64 = 500;
    let (net, wake) = MioNet::new(Clock::system()).unwrap();
    let mut client = NetworkClient::new(net, ThreadResolver::new(wake), config());
    let (mut now, mut addresses, mut brokers) = (MonoTime::ZERO, Vec::new(), Vec::new());
    for id in (0..BROKERS).map(NodeId) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        addresses.push(NodeAddress { id, host: Arc::from("127.0.0.1"), port });
        brokers.push(thread::spawn(move || serve(&listener)));
    }
    client.set_nodes(addresses, now);
    let (mut sent, mut answered) = (BTreeMap::<i32, u64>::new(), BTreeMap::<i32, u64>::new());
    let body = |node: i32, number: u64| format!("{node}:{number}").into_bytes();
    while answered.values().sum::<u64>() < REQUESTS * BROKERS as u64 {
        for node in 0..BROKERS {
            let number = sent.entry(node).or_default();
            while *number < REQUESTS && client.ready(NodeId(node), now) {
                send(&mut client, NodeId(node), *number, body(node, *number), now);
                *number += 1;
            }
        }
        for event in wait_for(&mut client, &mut now, 1) {
            let ClientEvent::Response(response) = event else { continue };
            let next = answered.entry(response.node.0).or_default();
            assert_eq!(response.tag, *next, "out of order");
            let expected = ResponseBody::Bytes(body(response.node.0, *next));
            assert_eq!(response.outcome, Ok(expected), "another's answer");
            *next += 1;
        }
    }
    client.close(now, &mut Vec::new());
    brokers.into_iter().for_each(|broker| broker.join().unwrap());
}

//! What connections carry, as it is counted.

use super::*;
use crate::metrics::{Gauges, Meter, Metrics};

impl Bench {
    fn metrics(&mut self) -> Metrics {
        // What was sent since the last poll is counted with the next one.
        self.poll();
        let now = self.now;
        self.client.sensors.measure(&Gauges::default(), now)
    }
}

fn total(meter: Meter) -> u64 {
    meter.total
}

/// SEL-21: bytes are counted as they move, a request or a response once it is whole.
#[test]
fn bytes_count_as_they_move_and_requests_once_they_are_whole() {
    let mut b = Bench::new(1);
    let socket = b.connected(NODE);
    let before = b.metrics().nodes[0].clone();
    assert_eq!((total(before.traffic.request), total(before.traffic.response)), (1, 1));
    b.net.stop(socket);
    let id = b.send(NODE);
    let mut whole = 0;
    for sent in 1.. {
        b.net.give_room(socket, 1);
        let traffic = b.metrics().nodes[0].traffic.clone();
        assert_eq!(total(traffic.outgoing_byte), total(before.traffic.outgoing_byte) + sent);
        if total(traffic.request) > 1 {
            whole = sent;
            break;
        }
    }
    let bytes = b.net.take_sent(socket);
    assert_eq!(bytes.len() as u64, whole, "counted as soon as the last byte is out");
    let traffic = b.metrics().nodes[0].traffic.clone();
    let mean = (before.traffic.request_size.avg.unwrap() + whole as f64) / 2.0;
    assert_eq!(traffic.request_size.avg, Some(mean));
    assert_eq!(total(traffic.request), 2);

    let mut answer = Vec::new();
    protocol::encode_response(ApiKey::Produce, 9, id, &mut answer, |out| out.push(b'x'));
    let (last, first) = answer.split_last().unwrap();
    b.net.deliver(socket, first);
    let traffic = b.metrics().nodes[0].traffic.clone();
    let received = total(before.traffic.incoming_byte) + first.len() as u64;
    assert_eq!((total(traffic.incoming_byte), total(traffic.response)), (received, 1));
    b.net.deliver(socket, &[*last]);
    let metrics = b.metrics();
    let traffic = &metrics.nodes[0].traffic;
    assert_eq!((total(traffic.incoming_byte), total(traffic.response)), (received + 1, 2));
    assert_eq!(metrics.producer.traffic, *traffic, "there is no other connection");
}

#[test]
fn connections_are_counted_as_they_come_and_go() {
    let mut b = Bench::new(2);
    b.net.dial(host_address(1), Dial::Refuse);
    let socket = b.connected(NODE);
    assert!(!b.ready(NodeId(1)));
    let metrics = b.metrics().producer;
    assert_eq!((metrics.connection_count, total(metrics.connection_creation)), (1, 1));
    assert_eq!(total(metrics.connection_close), 1, "the refused one");
    b.send(NODE);
    let in_flight = b.metrics().producer;
    assert_eq!((in_flight.requests_in_flight, total(in_flight.network_io)), (1, 3));
    b.net.end(socket, Ok(()));
    let after = b.metrics().producer;
    assert_eq!((after.connection_count, total(after.connection_close)), (0, 2));
    let after = b.metrics().producer;
    assert_eq!(after.requests_in_flight, 0);
}

#[test]
fn a_brokers_metrics_go_with_the_broker_and_the_sums_stay() {
    let mut b = Bench::new(2);
    b.connected(NODE);
    b.connected(NodeId(1));
    let before = b.metrics();
    let ids = |metrics: &Metrics| metrics.nodes.iter().map(|node| node.id).collect::<Vec<_>>();
    assert_eq!(ids(&before), [0, 1]);
    assert_eq!(before.nodes[1].connection_creation.total, 1);
    b.client.set_nodes(vec![node_address(1)], b.now);
    let after = b.metrics();
    assert_eq!(ids(&after), [1]);
    assert_eq!(after.producer.traffic.request.total, 2);
}

/// SND-03: the answer to ApiVersions counts as well.
#[test]
fn a_throttled_connection_counts_from_its_first_answer() {
    let mut b = Bench::new(1);
    let correlation_id = b.client.clone_next_correlation_id();
    let socket = b.negotiating(NODE);
    let answer = api_versions(ErrorCode::NONE, &[(0, 0, 9), (18, 0, 4)]);
    let answer = ApiVersionsResponse { throttle_time_ms: 70, ..answer };
    b.net.deliver(socket, &encode(&answer, 4, correlation_id));
    let metrics = b.metrics();
    assert_eq!(metrics.producer.produce_throttle_time.max, Some(70.0));
    assert_eq!(metrics.nodes[0].throttle_time_ms_total, 70);
    assert_eq!(metrics.producer.throttle_time_ms_total, 70);
}

#[test]
fn the_threads_time_is_rest_or_work() {
    let mut b = Bench::new(1);
    b.poll_for(300 * MS);
    let metrics = b.metrics().producer;
    assert_eq!((metrics.io_wait.total_ns, metrics.io.total_ns), (300_000_000, 0));
    assert_eq!((metrics.io_wait.avg_ns, total(metrics.select)), (Some(150_000_000.0), 2));
    assert!((metrics.io_wait.ratio - 0.3 / 30.0).abs() < 1e-9, "{:?}", metrics.io_wait);
    b.net.work(100 * MS);
    let metrics = b.metrics().producer;
    assert_eq!((metrics.io_wait.total_ns, metrics.io.total_ns), (300_000_000, 100_000_000));
}

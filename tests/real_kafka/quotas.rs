//! Quotas of a real broker, as the producer's metrics tell of them (KIP-219).

use kafka_producer::ProducerRecord;

use crate::support::{LONG, one_broker, producer};

/// INT-59: with a small quota the client is throttled and its metrics say so; with a large one
/// they say that it is not.
#[test]
fn a_small_quota_throttles_and_a_large_one_does_not() {
    let Some(cluster) = one_broker("a_small_quota_throttles_and_a_large_one_does_not") else {
        return;
    };
    cluster.create_topic("quotas", 1, 1, &[]);
    let value = [b'x'; 10_000];
    for (client, rate, throttled) in [("slow", 20_000, true), ("fast", 1_000_000_000, false)] {
        cluster.limit_client(client, rate);
        let producer = producer(cluster).client_id(client).build().unwrap();
        // The broker reckons over eleven seconds, and hears of a quota a moment after it was set:
        // how many records pass before it throttles is its affair.
        for _ in 0..if throttled { 1_000 } else { 40 } {
            let sent = producer.send(ProducerRecord::new("quotas", &value[..])).unwrap();
            sent.wait_timeout(LONG).unwrap();
            if producer.metrics().producer.throttle_time_ms_total > 0 {
                break;
            }
        }
        let metrics = producer.metrics();
        let all = &metrics.producer;
        assert_eq!(all.throttle_time_ms_total > 0, throttled, "{client}: {all:?}");
        assert_eq!(all.produce_throttle_time.max > Some(0.0), throttled, "{client}");
        let by_node: u64 = metrics.nodes.iter().map(|node| node.throttle_time_ms_total).sum();
        assert_eq!(by_node, all.throttle_time_ms_total);
        assert!(producer.close(LONG).is_clean());
    }
}

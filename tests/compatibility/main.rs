//! The main path against brokers of other versions, each read back by the broker's own tools.
//!
//! `cargo test` runs a few of them. All, which takes a few minutes:
//!
//!     KAFKA_VERSIONS=all cargo test --test compatibility -- --test-threads=1 --nocapture
//!
//! `KAFKA_VERSIONS=2.0.1,3.9.1` names others. `kafka_harness` says what these tests need.

#![cfg(unix)]
#![allow(clippy::print_stdout)] // what became of each version

use std::time::Duration;

use kafka_producer::{Acks, Error, KafkaProducer, ProducerBuilder, ProducerRecord};

use crate::kafka_harness::{OldBroker, chosen_versions};

#[path = "../kafka_harness/mod.rs"]
#[allow(dead_code, unused_imports)] // most of it serves tests on clusters
mod kafka_harness;

const LONG: Duration = Duration::from_secs(60);

/// What README.md has a line of.
const DELIVER: &[&str] =
    &["0.11.0.3", "1.0.0", "1.1.1", "2.0.1", "2.8.2", "3.9.1", "4.0.1", "4.3.1"];
const TOO_OLD: &[&str] = &["0.8.2.2", "0.9.0.1", "0.10.2.2"];

fn producer(broker: &OldBroker) -> ProducerBuilder {
    KafkaProducer::builder().bootstrap_servers(broker.bootstrap()).max_block(LONG)
}

/// Sends so many records with these acks; gives what is to be in the log, from offset `first` on.
fn send(broker: &OldBroker, acks: Acks, first: i64, records: i64) -> Vec<(i64, String)> {
    let producer = producer(broker).acks(acks).build().unwrap();
    let expected: Vec<_> = (first..)
        .take(records as usize)
        .map(|offset| (offset, format!("value-{offset}")))
        .collect();
    let deliveries: Vec<_> = expected
        .iter()
        .map(|(_, value)| {
            let record = ProducerRecord::new("t", value).key("k").header("h", "v");
            producer.send(record.partition(1)).unwrap()
        })
        .collect();
    for (delivery, (offset, _)) in deliveries.iter().zip(&expected) {
        let told = delivery.wait_timeout(LONG).unwrap().offset();
        assert_eq!(told, Some(*offset).filter(|_| acks != Acks::None));
    }
    assert!(producer.close(LONG).is_clean());
    expected
}

/// Sends records to partition 1 of a topic that does not exist yet, and compares what is stored.
fn deliver(broker: &OldBroker) {
    let mut expected = send(broker, Acks::All, 0, 500);
    expected.extend(send(broker, Acks::Leader, 500, 50));
    expected.extend(send(broker, Acks::None, 550, 50));
    let mut stored = broker.dump("t", 1);
    // Nobody tells when records without an acknowledgement are there.
    for _ in 0..20 {
        if stored.len() >= expected.len() {
            break;
        }
        stored = broker.dump("t", 1);
    }
    assert_eq!(stored, expected);
    assert_eq!(broker.dump("t", 0), []);
}

#[test]
fn brokers_from_0_11_on_store_what_was_sent() {
    let test = "brokers_from_0_11_on_store_what_was_sent";
    for version in chosen_versions(DELIVER, &["0.11.0.3", "2.8.2"]) {
        let Some(broker) = OldBroker::start_or_skip(test, version) else { return };
        deliver(&broker);
        println!("{version}: delivers");
    }
}

#[test]
fn older_brokers_are_refused_with_the_versions_of_both_sides() {
    let test = "older_brokers_are_refused_with_the_versions_of_both_sides";
    for version in chosen_versions(TOO_OLD, &["0.10.2.2"]) {
        let Some(broker) = OldBroker::start_or_skip(test, version) else { return };
        let producer = producer(&broker)
            .max_block(Duration::from_secs(5))
            .socket_connection_setup_timeout(Duration::from_secs(2))
            .build()
            .unwrap();
        let error = producer.send(ProducerRecord::new("t", "v")).map(drop).unwrap_err();
        println!("{version}: {error}");
        if version.starts_with("0.10") {
            let Error::UnsupportedVersion { client, offered, .. } = error else {
                panic!("{version}: {error}")
            };
            assert!(offered.is_some_and(|(_, max)| max < client.0), "{client:?} {offered:?}");
        } else {
            // It hangs up when it is asked for its versions, or says nothing: it never tells them.
            let text = error.to_string();
            assert!(text.contains("with Produce v0-v1 where v3-v13 is"), "{version}: {text}");
        }
        assert!(producer.close(LONG).is_clean());
    }
}

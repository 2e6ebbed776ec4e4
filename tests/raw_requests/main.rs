//! Scripts of raw requests, right and wrong, against the test broker and against real ones.
//!
//! Every step says what it expects, so both brokers give the same error codes and offsets, and what
//! this crate's tests learn from the test broker holds for Kafka too.
//!
//! - `script`: what one broker answers to requests alone
//! - `history`: what becomes of producers as time passes, topics come and go, and brokers restart
//! - `changes`: what becomes of topics that grow, get other limits, or go
//! - `elections`: three brokers, of which some hang or die
//! - `releases`: what older brokers answer otherwise
//! - `world`: what the scripts need beside requests, for the test broker and for Kafka
//!
//! `kafka_harness` says what the runs against Kafka need, how to skip or require them, and how to
//! choose the older releases.

#![cfg(unix)]

#[allow(dead_code, unused_imports)] // a part of it is used here
#[path = "../kafka_harness/mod.rs"]
mod kafka_harness;
#[path = "../raw/mod.rs"]
mod raw;

mod changes;
mod elections;
mod history;
mod releases;
mod script;
mod world;

use std::time::Duration;

use kafka_producer::testing::{Release, TestCluster, TopicConfig};

use script::TOPICS;
use world::{Simulated, World};

const DAY: Duration = Duration::from_secs(86_400);
/// How often brokers look for producer ids that have expired, after a day as by default.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

#[test]
fn the_test_broker_keeps_to_the_script() {
    let one = TopicConfig::new(1);
    let cluster = TestCluster::builder()
        .topic(TOPICS[0], one.clone())
        .topic(TOPICS[1], one.clone().max_message_bytes(1000))
        .topic(TOPICS[2], one.clone().compacted())
        .topic(TOPICS[3], one.clone().log_append_time())
        .topic(TOPICS[4], one.clone().min_insync_replicas(2))
        .topic(TOPICS[5], one.max_message_bytes(3 << 20).segment_bytes(1 << 20))
        .producer_id_expiration(DAY, CHECK_INTERVAL)
        .start();
    let world = Simulated { cluster };
    script::run(world.port(1));
    history::run(&world);
}

/// INT-60: checksums.
#[test]
fn kafka_keeps_to_the_script() {
    let test = "kafka_keeps_to_the_script";
    let configs = [
        ("auto.create.topics.enable", "true"),
        ("producer.id.expiration.check.interval.ms", "1000"),
    ];
    let Some(cluster) = kafka_harness::Cluster::start_or_skip(test, 1, &configs) else {
        return;
    };
    let configs: [&[_]; 6] = [
        &[],
        &[("max.message.bytes", "1000")],
        &[("cleanup.policy", "compact")],
        &[("message.timestamp.type", "LogAppendTime")],
        &[("min.insync.replicas", "2")],
        &[("max.message.bytes", "3145728"), ("segment.bytes", "1048576")],
    ];
    for (topic, config) in TOPICS.into_iter().zip(configs) {
        cluster.create_topic(topic, 1, 1, config);
    }
    script::run(cluster.port(1));
    history::run(&cluster);
}

#[test]
fn the_test_broker_keeps_to_the_script_of_changes() {
    let mut builder = TestCluster::builder().auto_create(false);
    for topic in [changes::GROWS, changes::RESIZED, changes::GOES] {
        builder = builder.topic(topic, 1);
    }
    changes::run(&Simulated { cluster: builder.start() });
}

#[test]
fn kafka_keeps_to_the_script_of_changes() {
    let test = "kafka_keeps_to_the_script_of_changes";
    let Some(cluster) = kafka_harness::Cluster::start_or_skip(test, 1, &[]) else {
        return;
    };
    for topic in [changes::GROWS, changes::RESIZED, changes::GOES] {
        cluster.create_topic(topic, 1, 1, &[]);
    }
    changes::run(&cluster);
}

#[test]
fn the_test_broker_keeps_to_the_script_of_elections() {
    let two = TopicConfig::new(1).replication_factor(2);
    let cluster = TestCluster::builder()
        .brokers(3)
        .topic(elections::STRICT, two.clone().min_insync_replicas(2))
        .topic(elections::UNCLEAN, two)
        .topic(elections::SINGLE, TopicConfig::new(1).replication_factor(1))
        .start();
    elections::run(&Simulated { cluster });
}

/// INT-60: brokers that do not lead.
#[test]
fn kafka_keeps_to_the_script_of_elections() {
    let test = "kafka_keeps_to_the_script_of_elections";
    let Some(cluster) = kafka_harness::Cluster::start_or_skip(test, 3, &[]) else {
        return;
    };
    cluster.create_topic(elections::STRICT, 1, 2, &[("min.insync.replicas", "2")]);
    let unclean = [("unclean.leader.election.enable", "true")];
    cluster.create_topic(elections::UNCLEAN, 1, 2, &unclean);
    cluster.create_topic(elections::SINGLE, 1, 1, &[]);
    elections::run(&cluster);
}

#[test]
fn test_brokers_of_older_releases_keep_to_their_script() {
    for release in Release::ALL {
        let cluster = TestCluster::builder().release(release).start();
        releases::run(cluster.port(1).expect("a port"), release);
    }
}

/// Each release that the test broker can be. `cargo test` runs two, which other tests fetch too.
#[test]
fn older_kafkas_keep_to_their_script() {
    let test = "older_kafkas_keep_to_their_script";
    let known = ["0.11.0.3", "1.0.0", "1.1.1", "2.0.1", "2.8.2", "3.9.1", "4.0.1", "4.3.1"];
    for version in kafka_harness::chosen_versions(&known, &["0.11.0.3", "2.8.2"]) {
        let Some(broker) = kafka_harness::OldBroker::start_or_skip(test, version) else { return };
        releases::run(broker.port(), releases::named(version));
    }
}

//! Throwaway Apache Kafka clusters for tests: real KRaft brokers on loopback ports, and Kafka's own
//! clients and tools to look at what they hold.
//!
//! `installation` finds Java and brings the jars here through Maven, once; `process` starts a
//! broker so that it cannot outlive the test; `cluster` formats, starts, kills, pauses and restarts
//! brokers; `tools` talks to one helper JVM (`KafkaTools.java`), which creates topics and reads
//! records back with Kafka's own consumer; `old` is one broker of any other version. Nothing in
//! here uses the crate under test.
//!
//!     let Some(cluster) = Cluster::start_or_skip("name_of_the_test", 3, &[]) else { return };
//!     cluster.create_topic("t", 6, 3, &[("min.insync.replicas", "2")]);
//!     ... produce to cluster.bootstrap() ...
//!     cluster.kill(cluster.leader("t", 0).expect("a leader"));
//!     let records = cluster.consume("t", usize::MAX);
//!
//! Environment: `KAFKA_VERSIONS=all`, or `2.0.1,3.9.1`, runs tests of old versions against
//! them; `KAFKA_TESTS=require` turns a skip into a failure, `KAFKA_TESTS=skip` skips without
//! looking; `KAFKA_HOME` is an unpacked Kafka to use in place of Maven; `KAFKA_PRODUCER_CACHE` is
//! where the jars are kept (default: the build's own folder for tests); `JAVA_HOME` as everywhere.

mod cluster;
mod installation;
#[allow(dead_code)] // some test binaries alone run old brokers
mod old;
mod process;
mod tools;

pub use cluster::Cluster;
#[allow(unused_imports)]
pub use old::{OldBroker, chosen_versions};
pub use tools::{ConsumedRecord, TimestampType};

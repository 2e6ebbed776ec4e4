//! What the scripts need beside requests: brokers that restart, hang and die, and what an
//! administrator does. The test broker and Kafka each do it in their own way.

use std::time::{Duration, Instant};

use kafka_producer::ErrorCode;
use kafka_producer::internal::protocol::{MetadataResponsePartition, Writer};
use kafka_producer::testing::{Fault, TestCluster};

use crate::kafka_harness::Cluster;
use crate::raw::{Batch, Connection, PATIENCE, Produce};

/// A cluster whose brokers are numbered from 1.
pub trait World {
    fn port(&self, broker: i32) -> u16;

    /// Creates a topic with one partition and the defaults.
    fn create(&self, topic: &str);

    /// Returns once the brokers have heard that the topic is gone.
    fn delete(&self, topic: &str);

    /// Deletes a topic and makes it anew.
    fn recreate(&self, topic: &str) {
        self.delete(topic);
        self.create(topic);
    }

    /// Adds partitions until there are `total`.
    fn grow(&self, topic: &str, total: i32);

    /// Sets a topic's `max.message.bytes`.
    fn limit_batches(&self, topic: &str, bytes: usize);

    /// Deletes the records of partition 0 before this offset.
    fn delete_records(&self, topic: &str, before: i64);

    /// Gives each client a quota of so many bytes a second in Produce requests.
    fn limit_producers(&self, bytes: u32);

    /// Shuts a broker down and starts it again.
    fn restart(&self, broker: i32);

    /// Kills a broker and starts it again.
    fn crash(&self, broker: i32);

    fn kill(&self, broker: i32);

    /// Starts a broker that was killed.
    fn start(&self, broker: i32);

    /// Starts a broker that was killed, in a topic where it will be elected though its log ends at
    /// `end_offset`.
    fn start_uncleanly(&self, broker: i32, topic: &str, end_offset: i64);

    /// Stops a broker, with its connections open, until it is resumed.
    fn hang(&self, broker: i32);

    fn resume(&self, broker: i32);

    /// Creates a topic with one partition, and adds a second one to another topic, both on this
    /// broker where that matters.
    fn extend(&self, created: &str, grown: &str, on: i32);

    /// Makes the preferred replica lead partition 0, which must be in sync.
    fn prefer(&self, topic: &str, replica: i32);

    /// Another broker is the active controller.
    fn hand_control_over(&self, broker: i32);

    /// From here on a broker hears of nothing, nor does it answer.
    fn hold_back(&self, broker: i32);

    /// A broker that was held back answers, and no other does, so that it learns nothing.
    fn wake_alone(&self, broker: i32);

    /// The others answer again, and tell it everything.
    fn inform(&self, broker: i32);

    // What a real cluster notices by itself; the test broker, which never waits, has to be told.

    /// The next request will wait in vain for a follower that hangs.
    fn times_out(&self, topic: &str);

    /// Only the leader is in sync.
    fn fall_behind(&self, topic: &str);

    /// The follower is in sync again.
    fn catch_up(&self, follower: i32, topic: &str);
}

/// The test broker.
pub struct Simulated {
    pub cluster: TestCluster,
}

impl World for Simulated {
    fn port(&self, broker: i32) -> u16 {
        self.cluster.port(broker).expect("a broker")
    }

    fn create(&self, topic: &str) {
        assert!(self.cluster.create_topic(topic, 1));
    }

    fn delete(&self, topic: &str) {
        assert!(self.cluster.delete_topic(topic));
    }

    fn grow(&self, topic: &str, total: i32) {
        assert!(self.cluster.add_partitions(topic, total));
    }

    fn limit_batches(&self, topic: &str, bytes: usize) {
        assert!(self.cluster.set_max_message_bytes(topic, bytes));
    }

    fn delete_records(&self, topic: &str, before: i64) {
        self.cluster.delete_records(topic, 0, before);
    }

    fn limit_producers(&self, bytes: u32) {
        self.cluster.set_producer_byte_rate(Some(bytes));
    }

    fn restart(&self, broker: i32) {
        self.kill(broker);
        self.start(broker);
    }

    fn crash(&self, broker: i32) {
        self.restart(broker);
    }

    fn kill(&self, broker: i32) {
        self.cluster.stop_broker(broker);
    }

    fn start(&self, broker: i32) {
        self.cluster.start_broker(broker).expect("its port is its own");
    }

    fn start_uncleanly(&self, broker: i32, topic: &str, end_offset: i64) {
        self.start(broker);
        assert!(self.cluster.fail_over(topic, 0, broker, end_offset));
    }

    fn hang(&self, _broker: i32) {}

    fn resume(&self, _broker: i32) {}

    fn extend(&self, created: &str, grown: &str, _on: i32) {
        self.create(created);
        self.grow(grown, 2);
    }

    fn prefer(&self, topic: &str, replica: i32) {
        assert!(self.cluster.move_leader(topic, 0, Some(replica)));
    }

    fn hand_control_over(&self, _broker: i32) {}

    fn hold_back(&self, broker: i32) {
        self.cluster.hold_back_broker(broker);
    }

    fn wake_alone(&self, _broker: i32) {}

    fn inform(&self, broker: i32) {
        self.cluster.catch_up_broker(broker);
    }

    fn times_out(&self, topic: &str) {
        let late = Fault::produce().topic(topic).error_after(ErrorCode::REQUEST_TIMED_OUT);
        self.cluster.inject(late);
    }

    fn fall_behind(&self, topic: &str) {
        let (leader, _) = self.cluster.leader(topic, 0).expect("a leader");
        assert!(self.cluster.set_in_sync_replicas(topic, 0, &[leader]));
    }

    fn catch_up(&self, follower: i32, topic: &str) {
        let (leader, _) = self.cluster.leader(topic, 0).expect("a leader");
        assert!(self.cluster.set_in_sync_replicas(topic, 0, &[leader, follower]));
    }
}

impl World for Cluster {
    fn port(&self, broker: i32) -> u16 {
        let all = self.bootstrap();
        let address = all.split(',').nth(broker as usize - 1).expect("a broker");
        address.rsplit(':').next().expect("host:port").parse().expect("a port")
    }

    fn create(&self, topic: &str) {
        self.create_topic(topic, 1, 1, &[]);
    }

    fn delete(&self, topic: &str) {
        // DeleteTopics v1: names and a time-out; the answer is an array of name and error.
        let answer = admin(self.port(1), (20, 1), |w| {
            w.array(&[topic], |w, name| w.string(name));
            w.i32(10_000);
        });
        assert_eq!(answer[answer.len() - 2..], [0, 0], "{topic} is not deleted");
        // The name is free once the broker has heard of it.
        let mut connection = Connection::open(self.port(1));
        wait_until("the topic is gone", || {
            let response = connection.metadata(Some(&[topic]), false);
            response.topics[0].error_code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        });
    }

    fn grow(&self, topic: &str, total: i32) {
        self.grow_topic(topic, total as usize);
    }

    fn limit_batches(&self, topic: &str, bytes: usize) {
        set_max_message_bytes(self.port(1), topic, bytes);
    }

    fn delete_records(&self, topic: &str, before: i64) {
        // DeleteRecords v0: topics with partitions and offsets, and a time-out.
        let answer = admin(self.port(1), (21, 0), |w| {
            w.array(&[topic], |w, name| {
                w.string(name);
                w.array(&[before], |w, offset| {
                    w.i32(0);
                    w.i64(*offset);
                });
            });
            w.i32(10_000);
        });
        assert_eq!(answer[answer.len() - 2..], [0, 0], "the records are not deleted");
    }

    fn limit_producers(&self, bytes: u32) {
        // AlterClientQuotas v0: of entities, here the default client id, the operations.
        let answer = admin(self.port(1), (49, 0), |w| {
            w.array(&["client-id"], |w, kind| {
                w.array(&[*kind], |w, kind| {
                    w.string(kind);
                    w.nullable_string(None);
                });
                w.array(&["producer_byte_rate"], |w, key| {
                    w.string(key);
                    w.i64(f64::from(bytes).to_bits() as i64);
                    w.bool(false); // no removal
                });
            });
            w.bool(false); // not only a check
        });
        // After the correlation id and the throttle time, of one entry: the error.
        assert_eq!(answer[8..14], [0, 0, 0, 1, 0, 0], "the quota is not set");
    }

    fn restart(&self, broker: i32) {
        Cluster::restart(self, broker);
    }

    fn crash(&self, broker: i32) {
        Cluster::kill(self, broker);
        Cluster::restart(self, broker);
    }

    fn kill(&self, broker: i32) {
        Cluster::kill(self, broker);
    }

    fn start(&self, broker: i32) {
        Cluster::restart(self, broker);
    }

    fn start_uncleanly(&self, broker: i32, _topic: &str, _end_offset: i64) {
        Cluster::restart(self, broker);
    }

    fn hang(&self, broker: i32) {
        self.pause(broker);
    }

    fn resume(&self, broker: i32) {
        Cluster::resume(self, broker);
    }

    fn extend(&self, created: &str, grown: &str, on: i32) {
        // CreateTopics v2, with the replicas instead of their number; no configs.
        let answer = admin(self.port(on), (19, 2), |w| {
            w.array(&[created], |w, name| {
                w.string(name);
                w.i32(-1);
                w.i16(-1);
                w.array(&[0], |w, partition| {
                    w.i32(*partition);
                    w.array(&[on], |w, id| w.i32(*id));
                });
                w.i32(0);
            });
            w.i32(10_000);
            w.bool(false);
        });
        // Of the only topic: the error, and no message.
        assert_eq!(answer[answer.len() - 4..], [0, 0, 0xff, 0xff], "{created} is not created");
        // CreatePartitions v0, with the replicas of each new one.
        let answer = admin(self.port(on), (37, 0), |w| {
            w.array(&[grown], |w, name| {
                w.string(name);
                w.i32(2);
                w.array(&[on], |w, id| w.array(&[*id], |w, id| w.i32(*id)));
            });
            w.i32(10_000);
            w.bool(false);
        });
        assert_eq!(answer[answer.len() - 4..], [0, 0, 0xff, 0xff], "{grown} does not grow");
    }

    fn prefer(&self, topic: &str, replica: i32) {
        // ElectLeaders v0: topics with partitions, and a time-out.
        let answer = admin(self.port(replica), (43, 0), |w| {
            w.array(&[topic], |w, name| {
                w.string(name);
                w.array(&[0], |w, partition| w.i32(*partition));
            });
            w.i32(10_000);
        });
        // Of the only partition: the error, and no message.
        assert_eq!(answer[answer.len() - 4..], [0, 0, 0xff, 0xff], "{topic} is not led by it");
    }

    fn hand_control_over(&self, broker: i32) {
        for _ in 0..5 {
            if active_controller(self.port(broker)) != broker {
                break;
            }
            Cluster::restart(self, broker);
        }
        assert_ne!(active_controller(self.port(broker)), broker, "it is elected again and again");
        // What the others are asked to change they forward to the controller that they knew last,
        // and learn by its refusal that there is another.
        for other in (1..=3).filter(|id| *id != broker) {
            set_max_message_bytes(self.port(other), "strict", 1_048_588);
        }
    }

    fn hold_back(&self, broker: i32) {
        self.pause(broker);
        // It has asked the controller for news already; these are what the answer tells, or older.
        set_max_message_bytes(self.port(1 + broker % 3), "strict", 1_048_588);
        set_max_message_bytes(self.port(1 + broker % 3), "strict", 1_048_588);
    }

    fn wake_alone(&self, broker: i32) {
        (1..=3).filter(|id| *id != broker).for_each(|id| self.pause(id));
        Cluster::resume(self, broker);
    }

    fn inform(&self, broker: i32) {
        (1..=3).filter(|id| *id != broker).for_each(|id| Cluster::resume(self, id));
    }

    fn times_out(&self, _topic: &str) {}

    fn fall_behind(&self, _topic: &str) {}

    fn catch_up(&self, _follower: i32, _topic: &str) {}
}

fn set_max_message_bytes(port: u16, topic: &str, bytes: usize) {
    // IncrementalAlterConfigs v0: resources with their configs, and whether only to check.
    let answer = admin(port, (44, 0), |w| {
        w.array(&[topic], |w, name| {
            w.unsigned_varint(2); // a byte: a topic
            w.string(name);
            w.array(&[bytes.to_string()], |w, value| {
                w.string("max.message.bytes");
                w.unsigned_varint(0); // a byte: to set it
                w.nullable_string(Some(value));
            });
        });
        w.bool(false);
    });
    // After the correlation id and the throttle time, of one resource: the error.
    assert_eq!(answer[8..14], [0, 0, 0, 1, 0, 0], "the limit is not set");
}

/// Which broker is the active controller, as this one knows or hears.
fn active_controller(port: u16) -> i32 {
    let mut leader = -1;
    wait_until("there is a controller", || {
        // DescribeQuorum v0, of the only log. It is flexible, so that its header has tags; those of
        // the partition, the topic and the request are none, too.
        let answer = admin(port, (55, 0), |w| {
            w.unsigned_varint(0);
            w.unsigned_varint(2);
            w.unsigned_varint(1 + METADATA_LOG.len() as u32);
            METADATA_LOG.bytes().for_each(|byte| w.unsigned_varint(byte.into()));
            w.unsigned_varint(2);
            w.i32(0);
            (0..3).for_each(|_| w.unsigned_varint(0));
        });
        // The correlation id, tags, no error, an array with one topic of that name, in it an array
        // with one partition: its number, no error, and the leader.
        let at = 4 + 1 + 2 + 1 + 1 + METADATA_LOG.len() + 1 + 4;
        let found = answer.get(at..at + 6).filter(|found| found[..2] == [0, 0]);
        let id = found.map(|found| i32::from_be_bytes([found[2], found[3], found[4], found[5]]));
        leader = id.unwrap_or(-1);
        leader > 0
    });
    leader
}

const METADATA_LOG: &str = "__cluster_metadata";

/// Sends a request of an API that the crate does not speak, with header v1, and gives the whole
/// answer.
fn admin(port: u16, (key, version): (i16, i16), body: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut frame = Vec::new();
    let mut w = Writer::new(&mut frame, false);
    w.i16(key);
    w.i16(version);
    w.i32(1);
    w.nullable_string(Some("raw"));
    body(&mut w);
    let mut connection = Connection::open(port);
    connection.write(&(frame.len() as u32).to_be_bytes());
    connection.write(&frame);
    connection.read_frame().expect("an answer")
}

/// A topic's partition 0 as this broker sees it, once it is as wanted.
pub fn partition_when(
    port: u16,
    topic: &str,
    what: &str,
    wanted: impl Fn(&MetadataResponsePartition) -> bool,
) -> MetadataResponsePartition {
    let mut found = None;
    let mut connection = Connection::open(port);
    wait_until(what, || {
        let response = connection.metadata(Some(&[topic]), false);
        found = response.topics[0].partitions.first().cloned().filter(&wanted);
        found.is_some()
    });
    found.expect("it was just found")
}

/// A new producer id; a broker that has just started may still be fetching its first block of them.
pub fn new_producer_id(connection: &mut Connection) -> i64 {
    let mut id = -1;
    wait_until("there are producer ids", || {
        let response = connection.init_producer_id(-1, -1);
        id = response.producer_id;
        response.error_code == ErrorCode::NONE
    });
    id
}

/// A connection to a broker once it leads the topic: its metadata may tell so a moment earlier.
pub fn leader_of(port: u16, topic: &str) -> Connection {
    leader_of_partition(port, topic, 0)
}

/// The same for a partition other than 0.
pub fn leader_of_partition(port: u16, topic: &str, partition: i32) -> Connection {
    let mut connection = Connection::open(port);
    let to = Produce { acks: 1, ..Produce::to(topic, partition) };
    // Nobody but a leader looks at it so closely.
    let invalid = Batch { last_offset_delta: Some(-1), ..Batch::of(&["v"]) }.encode();
    wait_until("the broker leads", || {
        let verdict = connection.produce(&to, &invalid).expect("the connection stays open");
        verdict.error_code == ErrorCode::INVALID_RECORD
    });
    connection
}

/// Returns once a broker that led the topic does not any more: its metadata may tell so earlier.
pub fn steps_down(port: u16, topic: &str) {
    let mut connection = Connection::open(port);
    let to = Produce { acks: 1, ..Produce::to(topic, 0) };
    let invalid = Batch { last_offset_delta: Some(-1), ..Batch::of(&["v"]) }.encode();
    wait_until("the broker does not lead", || {
        let verdict = connection.produce(&to, &invalid).expect("the connection stays open");
        verdict.error_code == ErrorCode::NOT_LEADER_OR_FOLLOWER
    });
}

/// Asks again and again, since a real cluster takes its time.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + 3 * PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

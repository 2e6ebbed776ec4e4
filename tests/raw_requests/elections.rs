//! A partition on two of three brokers: who leads it, whom it waits for, and what is lost.

use kafka_producer::internal::protocol::{
    MetadataResponsePartition, PartitionProduceResponse, TopicRef,
};
use kafka_producer::{ErrorCode, Uuid};

use crate::raw::{Batch, Connection, Produce};
use crate::world::{World, leader_of, new_producer_id, partition_when, steps_down, wait_until};

const NONE: ErrorCode = ErrorCode::NONE;
const OUT_OF_ORDER: ErrorCode = ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER;

/// Topics of one partition and two replicas: with `min.insync.replicas=2`; and one whose leader may
/// be elected uncleanly.
pub const STRICT: &str = "strict";
pub const UNCLEAN: &str = "unclean";
/// A topic with one replica.
pub const SINGLE: &str = "single";
/// One that is not there at first.
const LATE: &str = "late";

pub fn run(world: &impl World) {
    hints(world);
    too_few_replicas(world);
    clean_election(world);
    old_view(world);
    restarted_follower(world);
    eligible_replica(world);
    no_leader(world);
    unclean_election(world);
}

/// The partition, once all is well, and its follower; as the broker `at` sees it.
fn healthy(world: &impl World, topic: &str, at: i32) -> (MetadataResponsePartition, i32) {
    let two = |p: &MetadataResponsePartition| p.leader_id >= 0 && p.isr_nodes.len() == 2;
    let partition = partition_when(world.port(at), topic, "two replicas are in sync", two);
    let others = partition.replica_nodes.iter().filter(|id| **id != partition.leader_id);
    let follower = others.copied().next().expect("two replicas");
    (partition, follower)
}

fn send(c: &mut Connection, to: &Produce<'_>, batch: &Batch) -> PartitionProduceResponse {
    c.produce(to, &batch.encode()).expect("the connection stays open")
}

/// Whoever does not lead the partition says who does (KIP-951), by name and by id of the topic.
fn hints(world: &impl World) {
    let (partition, follower) = healthy(world, STRICT, 1);
    let leader = partition.leader_id;
    let stranger = 6 - leader - follower; // of 1, 2 and 3
    let id =
        Connection::open(world.port(leader)).metadata(Some(&[STRICT]), false).topics[0].topic_id;
    for broker in [follower, stranger] {
        refers(world, broker, id, &partition);
    }
}

/// A broker that does not lead the partition refuses its records, and names this leader.
fn refers(world: &impl World, broker: i32, id: Uuid, partition: &MetadataResponsePartition) {
    let leader = partition.leader_id;
    for (version, topic) in
        [(9, TopicRef::Name(STRICT)), (12, TopicRef::Name(STRICT)), (13, TopicRef::Id(id))]
    {
        let to = Produce { version, topic, ..Produce::to(STRICT, 0) };
        let mut connection = Connection::open(world.port(broker));
        let response = connection.produce_whole(&to, &Batch::of(&["v"]).encode()).unwrap();
        let verdict = &response.topics[0].partitions[0];
        assert_eq!(verdict.error_code, ErrorCode::NOT_LEADER_OR_FOLLOWER, "broker {broker}");
        assert_eq!((verdict.base_offset, verdict.log_start_offset), (-1, -1));
        let hint = verdict.current_leader.map(|hint| (hint.leader_id, hint.leader_epoch));
        let endpoints = response.node_endpoints.iter();
        let endpoints: Vec<_> = endpoints.map(|node| (node.node_id, node.port)).collect();
        if version < 10 {
            assert_eq!((hint, endpoints), (None, vec![]), "broker {broker}");
        } else {
            assert_eq!(hint, Some((leader, partition.leader_epoch)), "broker {broker}");
            assert_eq!(endpoints, [(leader, i32::from(world.port(leader)))], "broker {broker}");
        }
    }
}

/// acks=all waits for the replicas in sync, and is not appended once there are too few of them.
/// (`NOT_ENOUGH_REPLICAS_AFTER_APPEND` is what brokers answered before KIP-966: now the high
/// watermark stands still in the meantime, and the wait ends with its time.)
fn too_few_replicas(world: &impl World) {
    let (partition, follower) = healthy(world, STRICT, 1);
    let leader = partition.leader_id;
    let mut connection = Connection::open(world.port(leader));
    let c = &mut connection;
    let id = new_producer_id(c);
    let batch = |sequence| Batch::idempotent(id, 0, sequence, 1);
    let all = Produce::to(STRICT, 0);
    let base = send(c, &all, &batch(0)).base_offset;

    let timed_out = ErrorCode::REQUEST_TIMED_OUT;
    world.hang(follower);
    world.times_out(STRICT);
    let hasty = Produce { timeout_ms: 300, ..all };
    let verdict = send(c, &hasty, &batch(1));
    // The records are in the leader's log, and the answer says where.
    assert_eq!((verdict.error_code, verdict.base_offset), (timed_out, base + 1));
    world.fall_behind(STRICT);

    let alone = |p: &MetadataResponsePartition| p.isr_nodes == [leader];
    partition_when(world.port(leader), STRICT, "the leader is alone in sync", alone);
    let too_few = ErrorCode::NOT_ENOUGH_REPLICAS;
    // Its metadata tells that a moment earlier than it goes by it.
    wait_until("the leader goes by that", || send(c, &hasty, &batch(0)).error_code == too_few);
    for sequence in [1, 2] {
        // Before it is known for a duplicate.
        let verdict = send(c, &all, &batch(sequence));
        assert_eq!((verdict.error_code, verdict.base_offset), (too_few, -1));
        assert_eq!(verdict.log_start_offset, 0);
    }
    let one = Produce { acks: 1, ..all };
    let verdict = send(c, &one, &batch(1));
    assert_eq!((verdict.error_code, verdict.base_offset), (NONE, base + 1));

    world.resume(follower);
    world.catch_up(follower, STRICT);
    healthy(world, STRICT, leader);
    wait_until("the leader goes by that", || send(c, &hasty, &batch(0)).error_code == NONE);
    for sequence in [1, 2, 1] {
        let verdict = send(c, &all, &batch(sequence));
        let offset = base + i64::from(sequence);
        assert_eq!((verdict.error_code, verdict.base_offset), (NONE, offset), "{sequence}");
    }
}

/// The new leader has the records and knows the producers' last batches.
fn clean_election(world: &impl World) {
    let (before, follower) = healthy(world, STRICT, 1);
    let old_leader = before.leader_id;
    let mut connection = Connection::open(world.port(old_leader));
    let id = new_producer_id(&mut connection);
    let batch = |sequence| Batch::idempotent(id, 0, sequence, 1);
    let to = Produce { acks: 1, ..Produce::to(STRICT, 0) };
    let all = Produce::to(STRICT, 0);
    let base = send(&mut connection, &all, &batch(0)).base_offset;
    send(&mut connection, &all, &batch(1));
    world.kill(old_leader);
    let elected = |p: &MetadataResponsePartition| p.leader_id == follower;
    let after = partition_when(world.port(follower), STRICT, "the follower leads", elected);
    assert!(after.leader_epoch > before.leader_epoch);
    assert_eq!(after.isr_nodes, [follower]);
    let c = &mut leader_of(world.port(follower), STRICT);
    goes_on_after(c, &to, base, 2, batch);
    world.start(old_leader);
    let (after, _) = healthy(world, STRICT, follower);
    assert_eq!(after.leader_id, follower, "the old leader follows");
}

/// A new leader knows the first batches of one record, from this offset on, takes the next one, and
/// none behind a gap.
fn goes_on_after(
    c: &mut Connection,
    to: &Produce<'_>,
    base: i64,
    first: i32,
    batch: impl Fn(i32) -> Batch,
) {
    for sequence in 0..=first {
        let verdict = send(c, to, &batch(sequence));
        let offset = base + i64::from(sequence);
        assert_eq!((verdict.error_code, verdict.base_offset), (NONE, offset), "{sequence}");
    }
    assert_eq!(send(c, to, &batch(first + 2)).error_code, OUT_OF_ORDER);
}

/// Another leader is elected while the old one is well; it knows the producers as that one did. The
/// third broker, which has not heard of it, names the old one, and knows no later topics and
/// partitions.
fn old_view(world: &impl World) {
    let (before, preferred) = healthy(world, STRICT, 1);
    let leader = before.leader_id;
    assert_eq!(before.replica_nodes, [preferred, leader], "the last election moved it");
    let behind = 6 - leader - preferred; // of 1, 2 and 3
    world.hand_control_over(behind); // elections have to go on without it
    let led = |p: &MetadataResponsePartition| p.leader_id >= 0;
    partition_when(world.port(behind), SINGLE, "it is led", led);
    healthy(world, STRICT, behind);
    let c = &mut Connection::open(world.port(leader));
    let topic = c.metadata(Some(&[STRICT]), false).topics[0].topic_id;
    let id = new_producer_id(c);
    let batch = |sequence| Batch::idempotent(id, 0, sequence, 1);
    let all = Produce::to(STRICT, 0);
    let base = send(c, &all, &batch(0)).base_offset;
    for sequence in 1..3 {
        assert_eq!(send(c, &all, &batch(sequence)).base_offset, base + i64::from(sequence));
    }
    let only = Connection::open(world.port(behind)).metadata(Some(&[SINGLE]), false);
    assert_eq!(only.topics[0].partitions.len(), 1);

    world.hold_back(behind);
    world.prefer(STRICT, preferred);
    let elected = |p: &MetadataResponsePartition| p.leader_id == preferred;
    let after = partition_when(world.port(leader), STRICT, "the preferred one leads", elected);
    assert_eq!(after.leader_epoch, before.leader_epoch + 1);
    assert_eq!(after.isr_nodes.len(), 2);
    steps_down(world.port(leader), STRICT);
    refers(world, leader, topic, &after);
    let c = &mut leader_of(world.port(preferred), STRICT);
    goes_on_after(c, &all, base, 3, batch);
    world.extend(LATE, SINGLE, preferred);
    partition_when(world.port(preferred), LATE, "there is a topic more", led);
    let late = c.metadata(Some(&[LATE]), false).topics[0].topic_id;

    world.wake_alone(behind);
    let c = &mut Connection::open(world.port(behind));
    let told = c.metadata(Some(&[STRICT, SINGLE]), false);
    assert_eq!(told.brokers.len(), 3, "for all it knows they are there");
    let partitions_of = |name| {
        let topic = told.topics.iter().find(|topic| topic.name.as_deref() == Some(name));
        &topic.expect("it is there").partitions[..]
    };
    assert_eq!(partitions_of(STRICT), std::slice::from_ref(&before));
    assert_eq!(partitions_of(SINGLE), &only.topics[0].partitions[..]);
    let told = c.metadata(Some(&[LATE]), false).topics.remove(0);
    let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
    assert_eq!((told.error_code, told.topic_id), (unknown, Uuid::ZERO));
    refers(world, behind, topic, &before);
    let by_name = Produce::to(LATE, 0);
    let by_id = Produce { version: 13, topic: TopicRef::Id(late), ..by_name };
    let new_partition = Produce::to(SINGLE, 1);
    let codes = [by_name, by_id, new_partition].map(|to| {
        let verdict = send(c, &to, &Batch::of(&["v"]));
        (verdict.error_code, verdict.current_leader)
    });
    assert_eq!(codes, [(unknown, None), (ErrorCode::UNKNOWN_TOPIC_ID, None), (unknown, None)]);

    world.inform(behind);
    partition_when(world.port(behind), STRICT, "it has heard of the leader", elected);
    refers(world, behind, topic, &after);
    healthy(world, STRICT, behind);
}

/// A follower that was started anew knows of producers what its snapshot has, and what it has
/// copied since then.
fn restarted_follower(world: &impl World) {
    let (before, follower) = healthy(world, STRICT, 1);
    let leader = before.leader_id;
    let mut connection = Connection::open(world.port(leader));
    let c = &mut connection;
    let id = new_producer_id(c);
    let batch = |sequence| Batch::idempotent(id, 0, sequence, 1);
    let all = Produce::to(STRICT, 0);
    let base = send(c, &all, &batch(0)).base_offset;
    assert_eq!(send(c, &all, &batch(1)).base_offset, base + 1);
    world.restart(follower);
    healthy(world, STRICT, leader);
    assert_eq!(send(c, &all, &batch(2)).base_offset, base + 2);
    world.kill(leader);
    let c = &mut leader_of(world.port(follower), STRICT);
    let one = Produce { acks: 1, ..all };
    assert_eq!(send(c, &one, &batch(0)).error_code, OUT_OF_ORDER);
    assert_eq!(send(c, &one, &batch(1)).base_offset, base + 1, "the last of the snapshot");
    assert_eq!(send(c, &one, &batch(2)).base_offset, base + 2);
    world.start(leader);
    healthy(world, STRICT, follower);
}

/// With fewer in sync than `min.insync.replicas` nothing is acknowledged by all, so that one who
/// fell out may lead all the same (KIP-966), and only what the leader alone acknowledged is lost.
fn eligible_replica(world: &impl World) {
    let (before, follower) = healthy(world, STRICT, 1);
    let leader = before.leader_id;
    let mut connection = Connection::open(world.port(leader));
    let c = &mut connection;
    let id = new_producer_id(c);
    let batch = |sequence| Batch::idempotent(id, 0, sequence, 1);
    let base = send(c, &Produce::to(STRICT, 0), &batch(0)).base_offset;
    world.hang(follower);
    world.fall_behind(STRICT);
    let alone = |p: &MetadataResponsePartition| p.isr_nodes == [leader];
    partition_when(world.port(leader), STRICT, "the leader is alone in sync", alone);
    let one = Produce { acks: 1, ..Produce::to(STRICT, 0) };
    assert_eq!(send(c, &one, &batch(1)).base_offset, base + 1);
    world.kill(leader);
    world.resume(follower);
    let c = &mut leader_of(world.port(follower), STRICT);
    assert_eq!(send(c, &one, &batch(2)).error_code, OUT_OF_ORDER, "1 is missing");
    assert_eq!(send(c, &one, &batch(0)).base_offset, base, "a duplicate");
    assert_eq!(send(c, &one, &batch(1)).base_offset, base + 1, "none any more");
    world.start(leader);
    healthy(world, STRICT, follower);
}

/// Where the only replica is down nobody leads, and whoever is asked says so.
fn no_leader(world: &impl World) {
    let led = |p: &MetadataResponsePartition| p.leader_id >= 0;
    let before = partition_when(world.port(1), SINGLE, "it is led", led);
    let leader = before.leader_id;
    let other = 1 + leader % 3;
    world.kill(leader);
    let orphaned = |p: &MetadataResponsePartition| p.leader_id < 0;
    let after = partition_when(world.port(other), SINGLE, "nobody leads", orphaned);
    assert_eq!((after.error_code, after.leader_id), (ErrorCode::LEADER_NOT_AVAILABLE, -1));
    assert_eq!(after.leader_epoch, before.leader_epoch + 1);
    assert_eq!((&after.isr_nodes, &after.offline_replicas), (&vec![], &vec![leader]));
    let mut connection = Connection::open(world.port(other));
    let records = Batch::of(&["v"]).encode();
    let response = connection.produce_whole(&Produce::to(SINGLE, 0), &records).expect("an answer");
    let verdict = &response.topics[0].partitions[0];
    assert_eq!(verdict.error_code, ErrorCode::NOT_LEADER_OR_FOLLOWER);
    let hint = verdict.current_leader.map(|hint| (hint.leader_id, hint.leader_epoch));
    assert_eq!((hint, &response.node_endpoints[..]), (Some((-1, after.leader_epoch)), &[][..]));
    world.start(leader);
    let again = partition_when(world.port(other), SINGLE, "it is led again", led);
    assert_eq!((again.leader_id, again.leader_epoch), (leader, after.leader_epoch + 1));
    leader_of(world.port(leader), SINGLE);
}

/// A leader that was not in sync lacks what was acknowledged without it, and knows the producers as
/// its own log shows them.
fn unclean_election(world: &impl World) {
    let (partition, behind) = healthy(world, UNCLEAN, 1);
    let leader = partition.leader_id;
    let mut connection = Connection::open(world.port(leader));
    let c = &mut connection;
    let (one, other) = (new_producer_id(c), new_producer_id(c));
    let batch = |sequence| Batch::idempotent(one, 0, sequence, 1);
    let all = Produce::to(UNCLEAN, 0);
    assert_eq!(send(c, &all, &batch(0)).base_offset, 0);
    world.kill(behind);
    let alone = |p: &MetadataResponsePartition| p.isr_nodes == [leader];
    partition_when(world.port(leader), UNCLEAN, "the leader is alone in sync", alone);
    assert_eq!(send(c, &all, &batch(1)).base_offset, 1);
    assert_eq!(send(c, &all, &batch(2)).base_offset, 2);
    assert_eq!(send(c, &all, &Batch::idempotent(other, 0, 0, 1)).base_offset, 3);
    world.kill(leader);
    world.start_uncleanly(behind, UNCLEAN, 1);
    let elected = |p: &MetadataResponsePartition| p.leader_id == behind;
    let after = partition_when(world.port(behind), UNCLEAN, "the other one leads", elected);
    assert_eq!(after.isr_nodes, [behind]);
    // One more or two: there may have been no leader in between.
    assert!(after.leader_epoch > partition.leader_epoch, "a new leader without a new epoch");

    let c = &mut leader_of(world.port(behind), UNCLEAN);
    let verdict = send(c, &all, &batch(3));
    assert_eq!((verdict.error_code, verdict.log_start_offset), (OUT_OF_ORDER, 0), "1 is missing");
    assert_eq!(send(c, &all, &batch(0)).base_offset, 0, "a duplicate still");
    for sequence in [1, 2] {
        // Acknowledged once, lost, and now appended for a second time.
        assert_eq!(send(c, &all, &batch(sequence)).base_offset, i64::from(sequence));
    }
    let verdict = send(c, &all, &Batch::idempotent(other, 0, 9, 1));
    assert_eq!((verdict.error_code, verdict.base_offset), (NONE, 3), "the other is not known");

    world.start(leader);
    let (after, _) = healthy(world, UNCLEAN, behind);
    assert_eq!(after.leader_id, behind);
    assert_eq!(send(c, &all, &batch(3)).base_offset, 4, "the old leader cut its log");
}

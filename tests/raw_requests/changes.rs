//! Topics that change while producers write to them: they get partitions, other limits, or go.

use kafka_producer::internal::protocol::{
    MetadataResponseTopic, PartitionProduceResponse, TopicRef,
};
use kafka_producer::{ErrorCode, Uuid};

use crate::raw::{Batch, Connection, Produce};
use crate::script::produce_to;
use crate::world::{World, leader_of_partition, new_producer_id, wait_until};

const NONE: ErrorCode = ErrorCode::NONE;
const OUT_OF_ORDER: ErrorCode = ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER;
const NO_PARTITION: ErrorCode = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
const TOO_LARGE: ErrorCode = ErrorCode::MESSAGE_TOO_LARGE;

/// Topics of one partition and with the defaults: it grows; its batches may be smaller, and then
/// larger; and it is deleted.
pub const GROWS: &str = "grows";
pub const RESIZED: &str = "resized";
pub const GOES: &str = "goes";

pub fn run(world: &impl World) {
    growth(world);
    largest_batch(world);
    deletion(world);
}

/// A topic's partitions as they are told: index, error, leader and epoch; all on broker 1.
fn told(topic: &MetadataResponseTopic) -> Vec<(i32, ErrorCode, i32, i32)> {
    for partition in &topic.partitions {
        let replicas = [&partition.replica_nodes, &partition.isr_nodes];
        assert_eq!(replicas, [&[1], &[1]], "{partition:?}");
        assert!(partition.offline_replicas.is_empty(), "{partition:?}");
    }
    let partitions = topic.partitions.iter();
    let mut told: Vec<_> = partitions
        .map(|p| (p.partition_index, p.error_code, p.leader_id, p.leader_epoch))
        .collect();
    told.sort_unstable_by_key(|(index, ..)| *index);
    told
}

/// What a broker says of a batch for a partition that it does not know: nothing else.
fn not_known(c: &mut Connection, to: &Produce<'_>, batch: &Batch, code: ErrorCode) {
    let response = c.produce_whole(to, &batch.encode()).expect("the connection stays open");
    let verdict = &response.topics[0].partitions[0];
    assert_eq!((verdict.index, verdict.error_code), (to.partition, code), "{to:?}");
    let PartitionProduceResponse { base_offset, log_append_time_ms, log_start_offset, .. } =
        *verdict;
    assert_eq!((base_offset, log_append_time_ms, log_start_offset), (-1, -1, -1), "{to:?}");
    assert_eq!((verdict.current_leader, &response.node_endpoints[..]), (None, &[][..]), "{to:?}");
}

/// A new partition begins at 0 in epoch 0, and knows nothing of the producers of the others.
fn growth(world: &impl World) {
    let c = &mut Connection::open(world.port(1));
    let (id, other) = (new_producer_id(c), new_producer_id(c));
    let before = c.metadata(Some(&[GROWS]), false).topics.remove(0);
    assert_eq!(told(&before), [(0, NONE, 1, 0)]);
    let batch = |epoch, sequence| Batch::idempotent(id, epoch, sequence, 1);
    let to = |partition| Produce::to(GROWS, partition);
    let by_id = |partition| {
        let topic = TopicRef::Id(before.topic_id);
        Produce { version: 13, topic, ..to(partition) }
    };
    for sequence in 0..2 {
        let verdict = produce_to(c, &to(0), &batch(0, sequence).encode());
        assert_eq!((verdict.error_code, verdict.base_offset), (NONE, sequence.into()));
    }
    not_known(c, &to(1), &batch(0, 0), NO_PARTITION);
    not_known(c, &by_id(1), &batch(0, 0), NO_PARTITION);

    world.grow(GROWS, 3);
    let mut after = before.clone();
    wait_until("the new partitions are there", || {
        after = c.metadata(Some(&[GROWS]), false).topics.remove(0);
        after.partitions.len() == 3 && after.partitions.iter().all(|p| p.leader_id == 1)
    });
    assert_eq!(after.topic_id, before.topic_id, "it is the same topic");
    assert_eq!(told(&after), [(0, NONE, 1, 0), (1, NONE, 1, 0), (2, NONE, 1, 0)]);
    for partition in [1, 2] {
        leader_of_partition(world.port(1), GROWS, partition);
    }
    not_known(c, &to(3), &batch(0, 0), NO_PARTITION);

    let mut send = |to: &Produce<'_>, batch: &Batch| {
        let verdict = produce_to(c, to, &batch.encode());
        assert_eq!(verdict.log_start_offset, 0, "{to:?}");
        (verdict.error_code, verdict.base_offset)
    };
    // It goes by the producer's sequences in this partition, which are none so far.
    assert_eq!(send(&by_id(1), &batch(0, 0)), (NONE, 0));
    assert_eq!(send(&to(1), &batch(0, 2)), (OUT_OF_ORDER, -1));
    assert_eq!(send(&to(1), &batch(0, 1)), (NONE, 1));
    assert_eq!(send(&to(1), &batch(0, 0)), (NONE, 0), "a duplicate");
    assert_eq!(send(&to(2), &batch(3, 7)), (NONE, 0), "an unknown one may start anywhere");
    assert_eq!(send(&to(2), &batch(3, 9)), (OUT_OF_ORDER, -1));
    let fenced = ErrorCode::INVALID_PRODUCER_EPOCH;
    assert_eq!(send(&to(2), &batch(0, 8)), (fenced, -1), "the epoch is older in this partition");
    assert_eq!(send(&to(1), &batch(0, 2)), (NONE, 2), "and not in that one");
    // The old partition goes on as if nothing had been.
    assert_eq!(send(&to(0), &batch(0, 3)), (OUT_OF_ORDER, -1));
    assert_eq!(send(&to(0), &batch(0, 1)), (NONE, 1), "a duplicate");
    assert_eq!(send(&to(0), &batch(0, 2)), (NONE, 2));
    assert_eq!(send(&to(0), &Batch::idempotent(other, 0, 0, 1)), (NONE, 3));
}

/// What counts is the limit at the moment, even for what was appended before; and a batch that is
/// refused for its size leaves no trace in what is known of its producer.
fn largest_batch(world: &impl World) {
    let c = &mut Connection::open(world.port(1));
    let id = new_producer_id(c);
    let of_size = |sequence, size| of_size(Batch::idempotent(id, 0, sequence, 1), size);
    let to = Produce::to(RESIZED, 0);
    let send = |c: &mut Connection, batch: &Batch| {
        let verdict = produce_to(c, &to, &batch.encode());
        let PartitionProduceResponse { error_code, base_offset, log_start_offset, .. } = verdict;
        (error_code, base_offset, log_start_offset)
    };
    let refused = (TOO_LARGE, -1, -1);
    assert_eq!(send(c, &of_size(0, 2000)), (NONE, 0, 0));
    assert_eq!(send(c, &of_size(0, 2000)), (NONE, 0, 0), "a duplicate");

    limit(world, c, 1200);
    assert_eq!(send(c, &of_size(0, 2000)), refused, "the same, now that it is too large");
    assert_eq!(send(c, &of_size(1, 1201)), refused);
    assert_eq!(send(c, &of_size(7, 1201)), refused, "the size is looked at before the sequence");
    let wrong_acks = Produce { acks: 2, ..to };
    let verdict = produce_to(c, &wrong_acks, &of_size(1, 1201).encode());
    assert_eq!(verdict.error_code, ErrorCode::INVALID_REQUIRED_ACKS, "and after the acks");
    let bumped = Batch { producer_epoch: 1, ..of_size(0, 1201) };
    assert_eq!(send(c, &bumped), refused);
    assert_eq!(send(c, &of_size(2, 1200)), (OUT_OF_ORDER, -1, 0), "1 is missing");
    // The epoch is still the old one, and the sequence free for the parts of what was refused.
    assert_eq!(send(c, &of_size(1, 1200)), (NONE, 1, 0));
    assert_eq!(send(c, &of_size(2, 1200)), (NONE, 2, 0));
    assert_eq!(send(c, &of_size(1, 1201)), refused, "the sequence is another batch's, too");

    limit(world, c, 2000);
    assert_eq!(send(c, &of_size(3, 2001)), refused);
    assert_eq!(send(c, &of_size(3, 2000)), (NONE, 3, 0), "larger ones again");
    assert_eq!(send(c, &of_size(0, 2000)), (NONE, 0, 0), "and the first is a duplicate still");

    let default = 1_048_588;
    limit(world, c, 2 * default);
    assert_eq!(send(c, &of_size(4, default + 1)), (NONE, 4, 0), "more than by default");
    limit(world, c, default);
    assert_eq!(send(c, &of_size(4, default + 1)), refused, "though it is there");
    assert_eq!(send(c, &of_size(5, default)), (NONE, 5, 0));
}

/// Returns once the broker, which hears of it a moment later, goes by this `max.message.bytes`.
fn limit(world: &impl World, c: &mut Connection, bytes: usize) {
    world.limit_batches(RESIZED, bytes);
    let mut ahead = Batch::of(&["v"]);
    ahead.records[0].timestamp_delta = 7_200_000; // what is wrong if the size is not
    wait_until("the limit is there", || {
        let codes = [bytes, bytes + 1].map(|size| {
            let records = of_size(ahead.clone(), size).encode();
            produce_to(c, &Produce::to(RESIZED, 0), &records).error_code
        });
        codes == [ErrorCode::INVALID_TIMESTAMP, TOO_LARGE]
    });
}

/// A batch of one record with a value that makes it so large, header included.
fn of_size(mut batch: Batch, size: usize) -> Batch {
    for _ in 0..2 {
        let value = batch.records[0].value.as_ref().map_or(0, Vec::len);
        let length = (value + size).saturating_sub(batch.encode().len());
        batch.records[0].value = Some(vec![b'v'; length]);
    }
    assert_eq!(batch.encode().len(), size);
    batch
}

/// A topic that is gone is unknown by name in one way and by id in another; so is what was there
/// once a smaller one has its name.
fn deletion(world: &impl World) {
    let c = &mut Connection::open(world.port(1));
    let id = new_producer_id(c);
    let batch = |sequence| Batch::idempotent(id, 0, sequence, 1);
    world.grow(GOES, 2);
    leader_of_partition(world.port(1), GOES, 1);
    let by_name = |version, partition| Produce { version, ..Produce::to(GOES, partition) };
    let by_id = |topic_id, partition| {
        let topic = TopicRef::Id(topic_id);
        Produce { version: 13, topic, ..Produce::to(GOES, partition) }
    };
    let old = c.metadata(Some(&[GOES]), false).topics[0].topic_id;
    for partition in [0, 1] {
        let verdict = produce_to(c, &by_id(old, partition), &batch(0).encode());
        assert_eq!((verdict.error_code, verdict.base_offset), (NONE, 0));
    }

    world.delete(GOES);
    let unknown_id = ErrorCode::UNKNOWN_TOPIC_ID;
    let told = c.metadata(Some(&[GOES]), false).topics.remove(0);
    assert_eq!((told.error_code, &told.partitions[..]), (NO_PARTITION, &[][..]));
    assert_eq!((told.name.as_deref(), told.topic_id), (Some(GOES), Uuid::ZERO));
    let all = c.metadata(None, false).topics;
    assert!(all.iter().all(|topic| topic.name.as_deref() != Some(GOES)));
    for partition in [0, 1, 2] {
        for version in [9, 12] {
            not_known(c, &by_name(version, partition), &batch(1), NO_PARTITION);
        }
        not_known(c, &by_id(old, partition), &batch(1), unknown_id);
    }
    not_known(c, &by_id(Uuid::ZERO, 0), &batch(1), unknown_id);
    // There is no topic to be wrong for.
    let wrong = Batch { magic: 1, ..batch(1) };
    not_known(c, &Produce { acks: 2, ..by_name(12, 0) }, &wrong, NO_PARTITION);
    not_known(c, &Produce { acks: 2, ..by_id(old, 0) }, &wrong, unknown_id);
    for to in [by_name(12, 0), by_id(old, 0)] {
        let mut other = Connection::open(world.port(1));
        other.send_produce(&Produce { acks: 0, ..to }, &batch(1).encode());
        assert_eq!(other.read_frame(), None, "who wants no answer loses the connection");
    }

    world.create(GOES);
    let mut new = told;
    wait_until("the topic is there again", || {
        new = c.metadata(Some(&[GOES]), false).topics.remove(0);
        new.error_code == NONE && new.partitions.iter().all(|p| p.leader_id == 1)
    });
    leader_of_partition(world.port(1), GOES, 0);
    assert_ne!(new.topic_id, old);
    for partition in [0, 1] {
        not_known(c, &by_id(old, partition), &batch(1), unknown_id);
    }
    not_known(c, &by_name(12, 1), &batch(1), NO_PARTITION);
    not_known(c, &by_id(new.topic_id, 1), &batch(1), NO_PARTITION);
    let verdict = produce_to(c, &by_id(new.topic_id, 0), &batch(1).encode());
    let told = (verdict.error_code, verdict.base_offset, verdict.log_start_offset);
    assert_eq!(told, (NONE, 0, 0), "a log that knows nobody");
    let verdict = produce_to(c, &by_name(12, 0), &batch(0).encode());
    assert_eq!((verdict.error_code, verdict.base_offset), (OUT_OF_ORDER, -1), "and then does");
}

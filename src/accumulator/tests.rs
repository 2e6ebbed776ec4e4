//! Where records without a key gather, by way of the accumulator and without a sender.

use super::topic_map::Placing;
use super::*;
use crate::record::RecordData;
use crate::threads::Process;
use crate::time::ManualClock;

fn accumulator(batch_size: usize) -> (RecordAccumulator, Arc<Topic>) {
    let config = AccumulatorConfig {
        batch_size,
        linger: Duration::from_secs(3600),
        memory: 1_000_000,
        placing: Placing { adaptive: true, seed: 0 },
    };
    let inbox = Arc::new(Inbox::new(Arc::new(|| ()), Process::current()));
    let clock = Clock::Manual(ManualClock::new());
    let accumulator = RecordAccumulator::new(config, inbox, clock);
    let topic = accumulator.topics.find_or_add("t");
    topic.update(4, Arc::new([0, 1, 2, 3]));
    (accumulator, topic)
}

/// Appends a record of so many bytes, 7 of them its own overhead, to the sticky partition.
fn append(accumulator: &RecordAccumulator, topic: &Topic, size: usize) -> Delivery {
    let value = vec![b'x'; size - 7];
    let data = RecordData { key: None, value: Some(&value), headers: &[], timestamp: 0 };
    let mut append = Append { data, own_timestamp: true, sticky: true };
    let partition = topic.sticky_partition();
    accumulator
        .append(topic, partition, &mut append, &mut None, &mut Patience::None)
        .expect("there is room")
}

/// The batch that is being filled is over: flushed, or sent by its linger.
fn end_batch(topic: &Topic, partition: i32) {
    if let Some(last) = topic.queue(partition as u32).lock().batches.back_mut() {
        last.closed = true;
    }
}

/// PART-16, PART-20, PART-21: bytes count, not batches. A partition stays until the next record
/// would start a batch that takes it past `batch.size`; that record goes to another one, and its
/// handle tells which from the beginning.
#[test]
fn a_partition_stays_for_as_many_bytes_as_a_batch_holds() {
    let (accumulator, topic) = accumulator(600);
    let places: Vec<i32> = (0..60)
        .map(|_| {
            let delivery = append(&accumulator, &topic, 100);
            assert!(delivery.try_get().is_none());
            end_batch(&topic, delivery.partition());
            delivery.partition()
        })
        .collect();
    let runs: Vec<_> = places.chunk_by(|a, b| a == b).map(<[i32]>::len).collect();
    assert_eq!(runs, [5; 12], "{places:?}");
}

/// PART-19: with a long linger batches are full, or nearly so, as they are left behind.
#[test]
fn no_batch_is_left_half_filled() {
    let (accumulator, topic) = accumulator(1_000);
    for i in 0..500 {
        append(&accumulator, &topic, 20 + i * 37 % 200);
    }
    let mut left = 0;
    for partition in 0..4 {
        let queue = topic.queue(partition).lock();
        for batch in queue.batches.iter().filter(|batch| batch.closed) {
            let size = batch.builder.size();
            assert!(size > 500, "{size} bytes");
            left += 1;
        }
    }
    assert!(left > 30, "{left} batches");
}

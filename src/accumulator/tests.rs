//! Where records without a key gather, by way of the accumulator and without a sender.

use super::buffer_pool::Place;
use super::inbox::PartitionId;
use super::topic_map::Placing;
use super::*;
use crate::record::RecordData;
use crate::threads::Process;
use crate::time::ManualClock;

fn accumulator(batch_size: usize) -> (RecordAccumulator, Arc<Topic>) {
    accumulator_with(batch_size, ShareLimits::none())
}

fn accumulator_with(batch_size: usize, shares: ShareLimits) -> (RecordAccumulator, Arc<Topic>) {
    let config = AccumulatorConfig {
        batch_size,
        linger: Duration::from_secs(3600),
        memory: 1_000_000,
        shares,
        placing: Placing { adaptive: true, seed: 0 },
    };
    let inbox = Arc::new(Inbox::new(Arc::new(|| ()), Process::current()));
    let clock = Clock::Manual(ManualClock::new());
    let accumulator = RecordAccumulator::new(config, inbox, clock);
    let topic = accumulator.topics.find_or_add("t");
    topic.update(4, Arc::new([0, 1, 2, 3]));
    (accumulator, topic)
}

/// A pool of 100 bytes, of which a partition may hold 50 and a broker 60.
fn pool() -> BufferPool {
    BufferPool::new(100, 10, ShareLimits { partition: 50, broker: 60, in_use_for: HOUR })
}

const HOUR: Duration = Duration::from_secs(3600);
const P: [PartitionId; 3] = [PartitionId(0), PartitionId(1), PartitionId(2)];

fn granted(pool: &BufferPool, id: PartitionId, size: usize) -> Vec<u8> {
    match pool.begin(id, size, MonoTime::ZERO) {
        Ok(Allocation::Granted(memory)) => memory,
        _ => panic!("not granted"),
    }
}

fn refused(pool: &BufferPool, id: PartitionId, size: usize) -> Option<Share> {
    match pool.begin(id, size, MonoTime::ZERO) {
        Ok(Allocation::Refused(used_up)) => used_up,
        _ => panic!("not refused"),
    }
}

fn queued(pool: &BufferPool, id: PartitionId, size: usize) -> Place {
    refused(pool, id, size);
    pool.queue_up(vec![Want { id: Some(id), size }]).expect("open")
}

/// What the thread waits for, if it has come.
fn got(pool: &BufferPool, place: &Place) -> Option<Vec<u8>> {
    pool.poll(place).map(|outcome| outcome.expect("open").1)
}

/// A thread that waits no longer; why in vain.
fn give_up(pool: &BufferPool, place: Place) -> PoolError {
    let clock = Clock::Manual(ManualClock::new());
    pool.wait(place, &clock, MonoTime::ZERO).expect_err("there is none")
}

#[test]
fn a_thread_that_waits_for_its_share_holds_up_nobody() {
    let pool = pool();
    let other = granted(&pool, P[1], 10);
    let own = granted(&pool, P[0], 55);
    let (large, small) = (queued(&pool, P[0], 30), queued(&pool, P[0], 1));
    assert_eq!(refused(&pool, P[0], 1), Some(Share::Partition(P[0])));
    assert!(!pool.has_waiters(), "nobody else's memory would help");
    pool.release(P[1], other);
    assert!(pool.poll(&large).is_none(), "another partition's memory");
    let other = granted(&pool, P[1], 40);
    pool.release(P[0], own);
    let large = got(&pool, &large).unwrap();
    let small = got(&pool, &small).unwrap();
    pool.release_all([(P[0], large), (P[0], small), (P[1], other)]);
    assert_eq!((pool.available(), pool.held()), (100, 0));
}

#[test]
fn who_has_its_share_again_waits_for_memory_in_its_turn() {
    let pool = pool();
    let first = granted(&pool, P[1], 10);
    let own = granted(&pool, P[0], 50);
    let waits_for_share = queued(&pool, P[0], 20);
    let rest = granted(&pool, P[2], 40);
    let waits_for_memory = queued(&pool, P[1], 30);
    assert!(pool.has_waiters());
    assert_eq!(refused(&pool, P[1], 30), None);
    pool.release(P[0], own);
    // It came first, and its share allows it now.
    let own = got(&pool, &waits_for_share).unwrap();
    let second = got(&pool, &waits_for_memory).unwrap();
    pool.release_all([(P[0], own), (P[1], first), (P[1], second), (P[2], rest)]);
    assert_eq!((pool.available(), pool.held(), pool.has_waiters()), (100, 0, false));
}

#[test]
fn a_thread_that_waits_holds_nothing_and_leaves_nothing_behind() {
    let pool = pool();
    let all = [granted(&pool, P[1], 45), granted(&pool, P[0], 45)];
    let (first, second) = (queued(&pool, P[0], 30), queued(&pool, P[0], 30));
    assert_eq!((pool.available(), pool.held()), (10, 90));
    assert_eq!(refused(&pool, P[2], 1), None, "the ten bytes are for who waits longest");
    assert_eq!(give_up(&pool, second), PoolError::Exhausted(None));
    assert_eq!(give_up(&pool, first), PoolError::Exhausted(None));
    assert_eq!((pool.available(), pool.held()), (10, 90));
    let waits = queued(&pool, P[0], 30);
    pool.close();
    assert_eq!(pool.poll(&waits), Some(Err(PoolError::Closed)));
    let [first, second] = all;
    pool.release_all([(P[1], first), (P[0], second)]);
    assert_eq!((pool.available(), pool.held()), (100, 0));
}

#[test]
fn two_threads_that_wait_cannot_hold_all_of_it_between_them() {
    let pool = pool();
    let company = granted(&pool, P[1], 1);
    pool.release(P[1], company);
    let (own, other) = (granted(&pool, P[0], 55), granted(&pool, P[2], 45));
    // The first one is passed over, until its share comes back when the second one waits.
    let (first, second) = (queued(&pool, P[0], 60), queued(&pool, P[1], 60));
    pool.release(P[2], other);
    assert!(pool.poll(&first).is_none() && pool.poll(&second).is_none());
    pool.release(P[0], own);
    let memory = got(&pool, &first).expect("there is enough for one");
    pool.release(P[0], memory);
    let memory = got(&pool, &second).unwrap();
    pool.release(P[1], memory);
    assert_eq!((pool.available(), pool.held()), (100, 0));
}

#[test]
fn who_waits_while_another_one_takes_the_share_is_told_of_that_share() {
    let pool = pool();
    let rest = [granted(&pool, P[1], 45), granted(&pool, P[2], 45)];
    let (first, second) = (queued(&pool, P[0], 50), queued(&pool, P[0], 20));
    assert_eq!(pool.waiting_threads(), 2);
    let [one, two] = rest;
    pool.release(P[1], one);
    let memory = got(&pool, &first).unwrap();
    assert!(!pool.has_waiters(), "it waits for its share alone now");
    assert_eq!(give_up(&pool, second), PoolError::Exhausted(Some(Share::Partition(P[0]))));
    pool.release_all([(P[0], memory), (P[2], two)]);
    assert_eq!((pool.available(), pool.held()), (100, 0));
}

#[test]
fn without_shares_who_lacks_memory_lacks_no_share() {
    let half = ShareLimits::bytes(100, 1.0);
    let shares = ShareLimits { partition: half, broker: half, in_use_for: HOUR };
    let pool = BufferPool::new(100, 10, shares);
    let company = granted(&pool, P[1], 10);
    let own = granted(&pool, P[0], 90);
    pool.release(P[1], company);
    let rest = granted(&pool, P[0], 10);
    let waits = [queued(&pool, P[0], 60), queued(&pool, P[0], 60), queued(&pool, P[0], 60)];
    assert_eq!(refused(&pool, P[0], 1), None);
    assert!(pool.has_waiters());
    for place in waits {
        assert_eq!(give_up(&pool, place), PoolError::Exhausted(None));
    }
    pool.release_all([(P[0], own), (P[0], rest)]);
    assert_eq!((pool.available(), pool.held()), (100, 0));
}

#[test]
fn a_share_moves_with_the_leader_and_whoever_waits_for_it_goes_on() {
    use crate::types::NodeId;
    let pool = pool();
    for (id, node) in P.into_iter().zip([1, 1, 2]) {
        pool.set_leader(id, Some(NodeId(node)));
    }
    let memory = [granted(&pool, P[2], 10), granted(&pool, P[0], 40), granted(&pool, P[1], 20)];
    let place = queued(&pool, P[1], 10);
    assert_eq!(refused(&pool, P[1], 10), Some(Share::Broker(NodeId(1))));
    assert!(pool.poll(&place).is_none());
    pool.set_leader(P[0], Some(NodeId(2)));
    pool.release(P[1], got(&pool, &place).unwrap());
    P[2..].iter().chain(&P[..2]).zip(memory).for_each(|(id, memory)| pool.release(*id, memory));
    assert_eq!((pool.available(), pool.held()), (100, 0));
}

/// Appends a record of so many bytes, 7 of them its own overhead, to the sticky partition.
fn append(accumulator: &RecordAccumulator, topic: &Topic, size: usize) -> Delivery {
    try_append(accumulator, topic, None, size).expect("there is room")
}

/// The same, to this partition if one is given.
fn try_append(
    accumulator: &RecordAccumulator,
    topic: &Topic,
    partition: Option<u32>,
    size: usize,
) -> Result<Delivery, Error> {
    send(accumulator, topic, partition, size, Patience::None)
}

fn send(
    accumulator: &RecordAccumulator,
    topic: &Topic,
    partition: Option<u32>,
    size: usize,
    mut patience: Patience,
) -> Result<Delivery, Error> {
    let value = vec![b'x'; size - 7];
    let data = RecordData { key: None, value: Some(&value), headers: &[], timestamp: 0 };
    let mut append = Append { data, own_timestamp: true, sticky: partition.is_none() };
    let partition = partition.unwrap_or_else(|| topic.sticky_partition());
    accumulator.append(topic, partition, &mut append, &mut None, &mut patience)
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

#[test]
fn a_partition_that_has_used_up_its_share_is_refused_and_others_are_not() {
    let shares = ShareLimits { partition: 3_000, broker: 1_000_000, in_use_for: HOUR };
    let (accumulator, topic) = accumulator_with(1_000, shares);
    assert!(try_append(&accumulator, &topic, Some(0), 100).is_ok());
    let error = loop {
        match try_append(&accumulator, &topic, Some(1), 500) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    let expected = "t-1 has used up buffer.memory.partition.share, for 0 ms";
    assert_eq!(error.to_string(), expected);
    assert!(matches!(error, Error::BufferShareExhausted { partition: 1, .. }), "{error:?}");
    assert!(error.is_retriable());
    assert!(try_append(&accumulator, &topic, Some(2), 500).is_ok());
    let wanted = accumulator.pool.take_wanted();
    assert_eq!(wanted.shares, [Share::Partition(topic.queue(1).id)].into());
    assert!(!wanted.any && !accumulator.pool.is_wanted(), "told once of who does not wait");
}

#[test]
fn records_without_a_key_go_where_there_is_a_share_left() {
    let shares = ShareLimits { partition: 3_000, broker: 1_000_000, in_use_for: HOUR };
    let (accumulator, topic) = accumulator_with(1_000, shares);
    assert!(try_append(&accumulator, &topic, Some(2), 100).is_ok());
    for full in [3, 1, 0] {
        while try_append(&accumulator, &topic, Some(full), 500).is_ok() {}
    }
    let mut accepted = 0;
    let refused = loop {
        match try_append(&accumulator, &topic, None, 500) {
            Ok(delivery) => accepted += usize::from(delivery.partition() == 2),
            Err(error) => break error,
        }
    };
    assert!(accepted >= 3, "{accepted}");
    assert!(matches!(refused, Error::BufferShareExhausted { .. }), "{refused:?}");
}

/// A record without a key goes to whichever partition of those that have no share left gets some of
/// it back first, also where the last one tried does not.
#[test]
fn a_record_without_a_key_waits_for_no_one_partition() {
    let shares = ShareLimits { partition: 3_000, broker: 1_000_000, in_use_for: HOUR };
    for first_back in 0..4 {
        let (accumulator, topic) = accumulator_with(1_000, shares);
        // In company from the beginning.
        (0..4).for_each(|part| drop(try_append(&accumulator, &topic, Some(part), 100).unwrap()));
        for full in 0..4 {
            while try_append(&accumulator, &topic, Some(full), 900).is_ok() {}
        }
        let memory = {
            let queue = topic.queue(first_back);
            let first = queue.lock().batches.pop_front().expect("it is full");
            first.builder.into_segments().map(|memory| (queue.id, memory)).collect::<Vec<_>>()
        };
        std::thread::scope(|scope| {
            let sent = scope.spawn(|| send(&accumulator, &topic, None, 900, Patience::For(HOUR)));
            while accumulator.pool.waiting_threads() == 0 {
                std::thread::yield_now();
            }
            accumulator.pool.release_all(memory);
            // By a clock that stands still: it would wait for ever.
            assert_eq!(sent.join().unwrap().unwrap().partition(), first_back as i32);
        });
    }
}

/// It has found no memory at all, and its partition's share is used up by who waits before it.
#[test]
fn a_record_without_a_key_that_waits_for_memory_does_not_come_to_wait_for_a_share() {
    let shares = ShareLimits { partition: 400_000, broker: 1_000_000, in_use_for: HOUR };
    let (accumulator, topic) = accumulator_with(1_000, shares);
    let sticky = topic.sticky_partition();
    let other = (sticky + 1) % 4;
    let take = |partition: u32, size: usize| {
        let id = topic.queue(partition).id;
        match accumulator.pool.begin(id, size, MonoTime::ZERO) {
            Ok(Allocation::Granted(memory)) => (id, memory),
            _ => panic!("refused"),
        }
    };
    drop(take(other, 1));
    let held = [take(sticky, 399_000), take(other, 350_000), take((sticky + 2) % 4, 250_000)];
    let first = [Want { id: Some(topic.queue(sticky).id), size: 2_000 }];
    let first = accumulator.pool.queue_up(first.to_vec()).unwrap();
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| send(&accumulator, &topic, None, 900, Patience::For(HOUR)));
        while accumulator.pool.waiting_threads() < 2 {
            std::thread::yield_now();
        }
        let [_, (id, memory), _] = held;
        accumulator.pool.release(id, memory);
        assert!(got(&accumulator.pool, &first).is_some());
        assert_ne!(sent.join().unwrap().unwrap().partition(), sticky as i32);
    });
}

#[test]
fn a_turn_that_a_used_up_share_has_ended_begins_anew_when_it_comes_again() {
    let shares = ShareLimits { partition: 2_000, broker: 1_000_000, in_use_for: HOUR };
    let (accumulator, topic) = accumulator_with(1_000, shares);
    assert!(try_append(&accumulator, &topic, Some(2), 100).is_ok());
    let left = topic.sticky_partition();
    append(&accumulator, &topic, 500);
    while try_append(&accumulator, &topic, Some(left), 900).is_ok() {}
    end_batch(&topic, left as i32);
    let next = append(&accumulator, &topic, 400).partition();
    assert_ne!(next, left as i32, "its share is used up");
    // Its batches are delivered, and it is chosen again.
    let queue = topic.queue(left);
    let batches = std::mem::take(&mut queue.lock().batches);
    for batch in batches {
        batch.builder.into_segments().for_each(|memory| accumulator.pool.release(queue.id, memory));
    }
    while topic.sticky_partition() != left {
        topic.move_sticky(topic.sticky_partition());
    }
    let places = [(); 2].map(|()| append(&accumulator, &topic, 450).partition());
    assert_eq!(places, [left as i32; 2], "a whole turn");
}

/// Who has waited for memory of a partition whose turn is over by then would have waited in vain.
#[test]
fn a_record_with_memory_stays_where_it_has_it() {
    let (accumulator, topic) = accumulator(1_000);
    let sticky = topic.sticky_partition();
    append(&accumulator, &topic, 800);
    let queue = topic.queue(sticky);
    let value = vec![b'x'; 500];
    let data = RecordData { key: None, value: Some(&value), headers: &[], timestamp: 0 };
    let mut append = Append { data, own_timestamp: true, sticky: true };
    let mut memory = None;
    let mut go = |memory: &mut _| queue.append(&mut append, &mut None, memory, &accumulator.clock);
    assert!(matches!(go(&mut memory), Appended::NextPartition));
    memory = Some(Vec::with_capacity(1_000));
    queue.lock().batches.iter_mut().for_each(|batch| batch.closed = true);
    assert!(matches!(go(&mut memory), Appended::Done(_)));
    assert_eq!(memory, None);
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

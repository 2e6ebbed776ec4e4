//! Threads that wait for their share of the memory: what lingers goes out where that brings some of
//! it back, for as long as they wait.

use super::*;
use crate::accumulator::buffer_pool::{Allocation, Place, Want};
use crate::types::NodeId;

/// Records of 900 bytes linger in batches of about as many, those of 960 fill one.
const PART: usize = 900;
const FULL: usize = 960;

/// Partitions 0 to 2 on one broker, 3 on another; all have been asked for.
fn sharing(partition: usize, broker: usize) -> Scenario {
    let mut s = Scenario::new(|setup| {
        setup.sender.idempotent = false;
        setup.sender.linger = 60 * SECOND;
        (setup.batch_size, setup.memory) = (1024, 100_000);
        setup.leaders = vec![(1, 0), (1, 0), (1, 0), (2, 0)];
        setup.shares = Some(ShareLimits { partition, broker, in_use_for: 3600 * SECOND });
    });
    (0..4).for_each(|partition| s.put(partition, 1));
    let _flush = s.flush();
    for sent in s.sent() {
        s.answer(&sent, OK, 0);
    }
    assert!(s.memory_is_whole());
    s.put(3, 1);
    s
}

impl Scenario {
    fn put(&self, partition: u32, size: usize) {
        self.append(partition, &"v".repeat(size));
    }

    /// A thread waits for memory of this partition.
    fn wants(&self, partition: u32) -> Place {
        let id = self.accumulator.topics.find_or_add("t").queue(partition).id;
        let place = self.accumulator.pool.queue_up(vec![Want { id: Some(id), size: 600 }]).unwrap();
        self.accumulator.inbox.push(Event::MemoryWanted);
        place
    }

    fn is_served(&self, place: &Place) -> bool {
        self.accumulator.pool.poll(place).is_some_and(|outcome| outcome.is_ok())
    }

    /// Whether the partition has a batch that is still being filled.
    fn lingers(&self, partition: u32) -> bool {
        let topic = self.accumulator.topics.find_or_add("t");
        topic.queue(partition).lock().batches.back().is_some_and(|last| !last.closed)
    }

    fn has_line(&self, node: i32) -> bool {
        self.sender.index.has_ready_for(NodeId(node))
    }
}

#[test]
fn who_waits_for_a_broker_ends_its_lingers_and_no_others() {
    let mut s = sharing(usize::MAX, 900);
    s.put(1, 100);
    s.put(0, PART);
    assert!(s.sent().is_empty());
    let place = s.wants(2);
    let sent = s.sent_one();
    assert_eq!(sent.partitions(), [0, 1]);
    assert!(s.lingers(3));
    s.answer(&sent, OK, 0);
    assert!(s.is_served(&place));
}

#[test]
fn who_waits_for_a_partition_ends_its_linger_and_no_others() {
    let mut s = sharing(900, usize::MAX);
    s.put(0, PART);
    s.put(1, PART);
    assert!(s.sent().is_empty());
    let place = s.wants(0);
    let sent = s.sent_one();
    assert_eq!(sent.partitions(), [0]);
    assert!(s.lingers(1));
    s.answer(&sent, OK, 0);
    assert!(s.is_served(&place));
}

/// One that was told of while nothing could be done is not forgotten.
#[test]
fn lingers_end_once_what_was_under_way_has_brought_too_little_of_the_share() {
    let mut s = sharing(usize::MAX, 900);
    s.put(0, 100);
    let _flush = s.flush();
    let sent = s.sent().into_iter().find(|sent| sent.node == 1).expect("flushed");
    s.put(1, PART);
    let places = [s.wants(2), s.wants(2)];
    assert!(s.sent().is_empty() && s.lingers(1), "what is under way may bring enough");
    s.answer(&sent, OK, 0);
    assert!(!s.is_served(&places[0]));
    let sent = s.sent_one();
    assert_eq!(sent.partitions(), [1]);
    s.answer(&sent, OK, 0);
    assert!(places.iter().all(|place| s.is_served(place)));
}

#[test]
fn a_batch_that_lingers_after_the_thread_has_begun_to_wait_goes_out_too() {
    let mut s = sharing(500, usize::MAX);
    let id = s.accumulator.topics.find_or_add("t").queue(0).id;
    // Granted before, and held by a thread that has yet to append.
    let memory = match s.accumulator.pool.begin(id, 512, s.now()) {
        Ok(Allocation::Granted(memory)) => memory,
        _ => panic!("refused"),
    };
    let place = s.wants(0);
    assert!(s.sent().is_empty());
    let topic = s.accumulator.topics.find_or_add("t");
    let data = RecordData { key: None, value: Some(b"late"), headers: &[], timestamp: 0 };
    let mut append = Append { data, own_timestamp: true, sticky: false };
    let clock = &s.accumulator.clock;
    topic.queue(0).append(&mut append, &mut None, &mut Some(memory), clock);
    let sent = s.sent_one();
    assert_eq!(sent.partitions(), [0]);
    s.answer(&sent, OK, 0);
    assert!(s.is_served(&place));
}

/// Two wait for a share. The first one starts a batch that would linger, and by now the sender
/// sleeps.
#[test]
fn whoever_starts_a_batch_wakes_the_sender_for_those_who_still_wait() {
    let mut s = sharing(500, usize::MAX);
    let id = s.accumulator.topics.find_or_add("t").queue(0).id;
    let Ok(Allocation::Granted(memory)) = s.accumulator.pool.begin(id, 512, s.now()) else {
        panic!("refused")
    };
    let accumulator = Arc::clone(&s.accumulator);
    let first = std::thread::spawn(move || {
        let topic = accumulator.topics.find_or_add("t");
        let data = RecordData { key: None, value: Some(b"first"), headers: &[], timestamp: 0 };
        let mut append = Append { data, own_timestamp: true, sticky: false };
        let mut patience = Patience::For(3600 * SECOND);
        accumulator.append(&topic, 0, &mut append, &mut None, &mut patience).map(drop)
    });
    while s.accumulator.pool.waiting_threads() == 0 {
        std::thread::yield_now();
    }
    let place = s.wants(0);
    s.settle();
    let rung = s.rung.load(Ordering::Relaxed);
    s.accumulator.pool.release(id, memory);
    first.join().unwrap().unwrap();
    assert!(s.rung.load(Ordering::Relaxed) > rung, "it would sleep for the whole linger");
    let sent = s.sent_one();
    assert_eq!(sent.partitions(), [0]);
    s.answer(&sent, OK, 0);
    assert!(s.is_served(&place));
}

/// A line is what begins a connection.
#[test]
fn who_waits_for_a_broker_that_is_not_connected_has_it_connected_to() {
    let mut s = sharing(usize::MAX, 900);
    s.client.0.borrow_mut().down.insert(NodeId(1), MonoTime::MAX);
    s.put(0, PART);
    s.settle();
    assert!(!s.has_line(1));
    let place = s.wants(2);
    s.settle();
    assert!(s.has_line(1));
    s.client.0.borrow_mut().down.clear();
    let sent = s.sent_one();
    s.answer(&sent, OK, 0);
    assert!(s.is_served(&place));
}

#[test]
fn a_full_batch_in_line_is_enough() {
    let mut s = sharing(usize::MAX, 900);
    s.client.0.borrow_mut().down.insert(NodeId(1), MonoTime::MAX);
    s.put(1, 100);
    s.put(0, FULL);
    s.settle();
    assert!(s.has_line(1));
    let _place = s.wants(2);
    s.settle();
    assert!(s.lingers(1), "a small batch more");
}

#[test]
fn a_call_that_finds_its_share_used_up_and_does_not_wait_ends_the_linger() {
    let mut s = sharing(900, usize::MAX);
    s.put(0, PART);
    assert!(s.sent().is_empty());
    let refused = s.try_append(0, &"v".repeat(PART), None);
    assert!(matches!(refused, Err(Error::BufferShareExhausted { .. })));
    let sent = s.sent_one();
    s.answer(&sent, OK, 0);
    s.put(0, PART);
    s.settle();
    assert!(s.lingers(0), "nobody waits any more");
}

#[test]
fn a_partition_that_the_sender_has_not_met_is_no_matter() {
    let mut s = sharing(1, usize::MAX);
    // Its metadata is not there yet.
    let id = s.accumulator.topics.find_or_add("t").queue(7).id;
    let memory = match s.accumulator.pool.begin(id, 512, s.now()) {
        Ok(Allocation::Granted(memory)) => memory,
        _ => panic!("refused"),
    };
    let place = s.wants(7);
    s.settle();
    assert!(!s.is_served(&place));
    s.accumulator.pool.release(id, memory);
    assert!(s.is_served(&place));
}

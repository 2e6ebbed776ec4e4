//! What is purged, what is not, and what goes on behind it.

use super::*;
use crate::accumulator::inbox::{Event, PurgeOrder};
use crate::error::Persisted;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::transaction::ProducerIdAndEpoch;
use crate::types::NodeId;

/// Has the sender purge; how many records that were.
fn purge(s: &mut Scenario, topic: Option<&str>, partition: Option<i32>) -> usize {
    let (done, purged) = (FlushWait::begin(), Arc::new(AtomicUsize::new(0)));
    let topic = topic.map(Arc::from);
    let order = PurgeOrder {
        topic,
        partition,
        purged: Arc::clone(&purged),
        kept: None,
        done: done.token(0, 0),
    };
    s.accumulator.inbox.push(Event::Purge(order));
    s.settle();
    assert!(done.is_over());
    purged.load(Ordering::Acquire)
}

#[track_caller]
fn assert_purged(delivery: &Delivery) {
    let error = failure(delivery);
    assert_eq!((&error.cause, error.persisted), (&DeliveryCause::Purged, Persisted::No));
    assert_eq!(error.attempts, 0);
}

#[test]
fn what_was_sent_is_left_alone_and_the_sequences_go_on() {
    let mut s = Scenario::begun(|s| s.max_in_flight = 10);
    let records: Vec<_> = (0..7).map(|_| s.append(0, "a")).collect();
    // Five are outstanding at the most: the rest waits.
    let sent = s.sent();
    assert_eq!(sent.len(), 5);
    let flush = s.flush();
    assert_eq!(purge(&mut s, None, None), 2);
    records[5..].iter().for_each(assert_purged);
    assert!(records[..5].iter().all(is_open));
    for (offset, sent) in (1..).zip(&sent) {
        s.answer(sent, OK, offset);
    }
    assert_eq!(offset(&records[4]), Some(5));
    assert!(flush.is_over(), "what is purged is flushed");
    s.append(0, "b");
    assert_eq!(s.told(), [told(0, 6, "b")], "no epoch and no sequence is lost");
}

#[test]
fn what_lingers_is_purged_by_topic_and_partition() {
    let mut s = Scenario::new(|s| {
        s.leaders = vec![(1, 0); 3];
        s.batch_size = 1000;
        s.sender.linger = 60 * SECOND;
    });
    let records: Vec<_> = (0..3).map(|partition| s.append(partition, "a")).collect();
    assert_eq!(purge(&mut s, Some("other"), None), 0);
    assert_eq!(purge(&mut s, Some("t"), Some(1)), 1);
    assert_purged(&records[1]);
    assert!(is_open(&records[0]) && is_open(&records[2]));
    assert_eq!(purge(&mut s, Some("t"), None), 2);
    records.iter().for_each(assert_purged);
    assert!(s.memory_is_whole());
    // The batch was open: what comes now begins a new one.
    let next = s.append(1, "b");
    s.advance(60 * SECOND);
    let sent = s.sent_one();
    s.answer(&sent, OK, 0);
    assert_eq!(offset(&next), Some(0));
}

#[test]
fn what_waits_to_be_tried_again_is_left_alone() {
    let mut s = Scenario::begun(|_| {});
    let delivery = s.append(0, "a");
    let sent = s.sent_one();
    s.answer(&sent, ErrorCode::NOT_ENOUGH_REPLICAS, -1);
    let behind = s.append(0, "b");
    assert_eq!(purge(&mut s, None, None), 1);
    assert_purged(&behind);
    assert!(is_open(&delivery));
    let (_, again) = s.until_sent();
    s.answer(&again, OK, 3);
    assert_eq!(offset(&delivery), Some(3));
    assert!(s.memory_is_whole());
}

/// Whoever was in line for a broker out of reach, and has nothing left to send, waits for it no
/// longer: it is not connected to, and not left out of the choice of partitions.
#[test]
fn what_is_purged_leaves_its_place_in_line() {
    let mut s = Scenario::new(|s| s.sender.availability_timeout = 100 * MS);
    s.client.0.borrow_mut().down.insert(NodeId(1), s.now() + 50 * MS);
    let record = s.append(0, "a");
    assert_eq!(s.settle(), Some(50 * MS), "it is to be tried again");
    assert_eq!(purge(&mut s, None, None), 1);
    assert_purged(&record);
    assert!(!s.sender.index.has_ready_for(NodeId(1)));
    assert!(s.settle().is_none_or(|slept| slept > 50 * MS));
}

/// The same of records that fail as there is no producer id for them.
#[test]
fn what_fails_for_want_of_a_producer_id_leaves_its_place_in_line() {
    let mut s = Scenario::unconnected(|_| {});
    s.next_id = Some((70, i16::MAX));
    s.settle();
    s.client.0.borrow_mut().down.insert(NodeId(1), MonoTime::MAX);
    let record = s.append(0, "a");
    s.settle();
    assert!(s.sender.index.has_ready_for(NodeId(1)));
    // The last epoch of that id is over.
    s.next_id = None;
    let producer = ProducerIdAndEpoch { id: 70, epoch: i16::MAX };
    s.sender.transaction.as_mut().expect("idempotent").bump(producer);
    s.accumulator.inbox.push(Event::MetadataWanted);
    s.settle();
    s.answer_id(ErrorCode::CLUSTER_AUTHORIZATION_FAILED, -1, -1);
    assert_eq!(failure_code(&record), Some(ErrorCode::CLUSTER_AUTHORIZATION_FAILED));
    assert!(!s.sender.index.has_ready_for(NodeId(1)));
}

#[test]
fn a_sender_that_has_ended_has_nothing_to_purge() {
    let mut s = Scenario::new(|_| {});
    s.close(SECOND);
    s.settle();
    let now = s.now();
    s.sender.end(now);
    let (done, purged) = (FlushWait::begin(), Arc::new(AtomicUsize::new(0)));
    let order =
        PurgeOrder { topic: None, partition: None, purged, kept: None, done: done.token(0, 0) };
    s.accumulator.inbox.push(Event::Purge(order));
    assert!(done.is_over());
}

/// The parts of a batch that was split were sent as a whole.
#[test]
fn parts_of_a_batch_that_was_sent_are_left_alone() {
    let mut s = Scenario::begun(|s| {
        (s.batch_size, s.sender.linger, s.sender.idempotent) = (10_000, SECOND, false);
    });
    let records = [s.append(0, "a"), s.append(0, "b")];
    s.flush();
    let whole = s.sent_one();
    s.client.0.borrow_mut().max_in_flight = 0;
    s.answer(&whole, ErrorCode::MESSAGE_TOO_LARGE, -1);
    assert_eq!(purge(&mut s, None, None), 0);
    assert!(records.iter().all(is_open));
}

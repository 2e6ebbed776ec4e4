//! What the sender has not been told of yet, memory that somebody wants, and defects of our own.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::accumulator::buffer_pool::Want;
use crate::accumulator::inbox::PartitionId;

const LINGER: Duration = Duration::from_secs(60);

/// Records of 900 bytes linger in batches that grow to their size, those of 960 fill one.
fn lingering(memory: usize, leaders: &[(i32, i32)]) -> Scenario {
    Scenario::new(|setup| {
        setup.sender.idempotent = false;
        setup.sender.linger = LINGER;
        (setup.batch_size, setup.memory) = (1024, memory);
        setup.leaders = leaders.to_vec();
    })
}

/// A user's thread was interrupted before it could tell the sender what it has appended.
fn hold_news_back(s: &Scenario) {
    s.accumulator.inbox.take(&mut Vec::new());
}

#[test]
fn a_flush_covers_a_batch_that_the_sender_has_not_heard_of() {
    let mut s = lingering(1_000_000, &[(1, 0)]);
    let delivery = s.append(0, "accepted");
    hold_news_back(&s);
    let flush = s.flush();
    let sent = s.sent_one();
    assert!(!flush.is_over() && is_open(&delivery));
    s.answer(&sent, OK, 0);
    assert!(flush.is_over());
    assert_eq!(offset(&delivery), Some(0));
}

#[test]
fn close_sends_at_once_what_the_sender_has_not_heard_of() {
    let mut s = lingering(1_000_000, &[(1, 0)]);
    s.append(0, "v");
    hold_news_back(&s);
    s.close(SECOND);
    let begun = s.metadata_requests;
    s.turn();
    assert_eq!(s.client.0.borrow_mut().sent().len(), 1);
    assert_eq!(s.metadata_requests, begun, "the leader is known");
}

/// SND-08.
#[test]
fn a_topic_given_up_as_a_record_came_is_asked_for_again() {
    let mut s = Scenario::new(|setup| {
        setup.sender.delivery_timeout = 3_000 * SECOND;
    });
    let delivery = s.append(0, "v");
    hold_news_back(&s);
    // Idle for long enough, as far as the sender knows.
    for _ in 0..4 {
        s.advance(200 * SECOND);
        s.settle();
    }
    assert!(s.sender.metadata.cluster().topic("t").is_none(), "it was to be given up");
    s.accumulator.inbox.push(Event::Partition(PartitionId(0), MonoTime::ZERO));
    let (time, sent) = s.until_sent();
    assert!(time < 5 * SECOND, "{time:?}");
    s.answer(&sent, OK, 6);
    assert_eq!(offset(&delivery), Some(6));
}

#[test]
fn lingering_batches_go_out_once_what_was_under_way_brought_too_little_memory() {
    let mut s = lingering(4096, &[(1, 0); 3]);
    let (full, part) = ("x".repeat(960), "x".repeat(900));
    s.append(0, &full);
    let sent = s.sent_one();
    s.append(1, &part);
    s.append(2, &part);
    assert!(s.sent().is_empty(), "they linger");
    let place = s.accumulator.pool.queue_up(vec![Want { id: None, size: 3000 }]).unwrap();
    s.accumulator.inbox.push(Event::MemoryWanted);
    assert!(s.sent().is_empty(), "what is under way may bring enough");
    s.answer(&sent, OK, 0);
    assert!(s.accumulator.pool.poll(&place).is_none());
    let sent = s.sent_one();
    assert_eq!(sent.partitions(), [1, 2]);
    s.answer(&sent, OK, 0);
    assert!(s.accumulator.pool.poll(&place).is_some_and(|memory| memory.is_ok()));
}

#[test]
fn lingering_batches_go_out_for_a_call_that_found_no_memory_and_does_not_wait() {
    let mut s = lingering(2048, &[(1, 0); 3]);
    let part = "x".repeat(900);
    s.append(0, &part);
    s.append(1, &part);
    assert!(s.sent().is_empty());
    assert!(matches!(s.try_append(2, &part, None), Err(Error::BufferExhausted { .. })));
    let sent = s.sent_one();
    assert_eq!(sent.partitions(), [0, 1]);
    s.answer(&sent, OK, 0);
    s.append(2, &part);
}

#[test]
fn whoever_left_the_line_of_a_broker_out_of_reach_is_not_waited_for() {
    let mut s = lingering(2048, &[(1, 0), (2, 0), (2, 0)]);
    let (full, part) = ("x".repeat(960), "x".repeat(900));
    s.client.0.borrow_mut().down.insert(crate::types::NodeId(1), MonoTime::MAX);
    s.append(0, &full);
    assert!(s.sent().is_empty());
    s.leaders[0] = (2, 1);
    s.sender.metadata.request_update();
    let (_, sent) = s.until_sent();
    s.answer(&sent, OK, 0);
    s.append(1, &part);
    s.append(2, &part);
    assert!(matches!(s.try_append(0, &part, None), Err(Error::BufferExhausted { .. })));
    assert_eq!(s.sent_one().partitions(), [1, 2]);
}

#[test]
fn a_defect_while_batches_change_hands_leaves_no_handle_waiting() {
    let mut s = Scenario::new(|_| {});
    let delivery = s.append(0, "v");
    s.client.0.borrow_mut().panics = true;
    let now = s.now();
    assert!(catch_unwind(AssertUnwindSafe(|| s.sender.run_once(now))).is_err());
    s.sender.poison("a defect", now);
    assert!(matches!(delivery.try_get(), Some(Err(Error::Fatal(_)))), "{:?}", delivery.try_get());
}

/// The timestamp of a record of so many bytes that is not given one.
fn stamp(s: &Scenario, size: usize) -> i64 {
    let topic = s.accumulator.topics.find_or_add("t");
    let value = vec![b'v'; size];
    let data = RecordData { key: None, value: Some(&value), headers: &[], timestamp: 0 };
    let mut append = Append { data, own_timestamp: false, sticky: false };
    let sent = s.accumulator.append(&topic, 0, &mut append, &mut None, &mut Patience::None);
    sent.unwrap().timestamp() - ManualClock::WALL_START
}

/// Nobody takes the batches.
fn unreachable(linger: Duration) -> Scenario {
    let s = Scenario::new(|setup| {
        (setup.batch_size, setup.sender.linger) = (10_000, linger);
    });
    s.client.0.borrow_mut().down.insert(crate::types::NodeId(1), MonoTime::MAX);
    s
}

/// The timestamps of three records: the second 3 ms after the first, the third when the sender has
/// looked after the linger's end, 13 ms after the first.
fn stamps(linger: Duration) -> [i64; 3] {
    let mut s = unreachable(linger);
    let first = stamp(&s, 1);
    s.advance(3 * MS);
    let second = stamp(&s, 1);
    s.advance(5 * MS);
    s.settle();
    s.advance(5 * MS);
    [first, second, stamp(&s, 1)]
}

#[test]
fn records_share_a_reading_of_the_clock_no_longer_than_a_short_linger() {
    assert_eq!(stamps(5 * MS), [0, 0, 13]);
    assert_eq!(stamps(6 * MS), [0, 3, 13]);
}

#[test]
fn a_batch_that_waits_for_a_broker_out_of_reach_gets_no_old_timestamps() {
    for linger in [Duration::ZERO, 5 * MS] {
        let mut s = unreachable(linger);
        s.advance(SECOND);
        stamp(&s, 300);
        s.advance(linger);
        s.settle();
        // It needs more memory, which is news again.
        stamp(&s, 300);
        s.settle();
        s.advance(10 * SECOND);
        assert_eq!(stamp(&s, 1), 11_000 + linger.as_millis() as i64);
    }
}

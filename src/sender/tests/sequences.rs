//! Sequences and epochs: what batches are stamped with, when a partition begins anew, and what is
//! never renumbered.

use super::*;
use crate::error::Persisted;
use crate::types::NodeId;

const RETRIABLE: ErrorCode = ErrorCode::NOT_ENOUGH_REPLICAS;
const OUT_OF_ORDER: ErrorCode = ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER;
const UNKNOWN_PRODUCER: ErrorCode = ErrorCode::UNKNOWN_PRODUCER_ID;
const REFUSED: ErrorCode = ErrorCode::TOPIC_AUTHORIZATION_FAILED;

/// Two partitions of one broker, both begun.
fn two_partitions(change: impl FnOnce(&mut Setup)) -> Scenario {
    Scenario::begun(|s| {
        s.leaders = vec![(1, 0); 2];
        change(s);
    })
}

/// SND-14, SND-43.
#[test]
fn sequences_grow_by_the_records_of_each_batch() {
    let mut s = Scenario::begun(|s| {
        s.batch_size = 1000;
        s.sender.linger = SECOND;
    });
    for values in [&["a", "b", "c"][..], &["d"], &["e", "f"], &["g"]] {
        values.iter().for_each(|value| drop(s.append(0, value)));
        s.flush();
        s.settle();
    }
    let expected = [told(0, 1, "a b c"), told(0, 4, "d"), told(0, 5, "e f"), told(0, 7, "g")];
    assert_eq!(s.told(), expected);
}

#[test]
fn the_first_batch_of_an_epoch_travels_alone() {
    let mut s = Scenario::new(|_| {});
    s.append(0, "a");
    s.append(0, "b");
    s.append(0, "c");
    let first = s.sent_one();
    s.answer(&first, OK, 0);
    assert_eq!(s.told(), [told(0, 1, "b"), told(0, 2, "c")]);
}

/// SND-15, SND-16.
#[test]
fn no_more_than_five_are_outstanding_answered_or_to_be_retried() {
    let mut s = Scenario::begun(|s| s.max_in_flight = 10);
    for value in ["a", "b", "c", "d", "e", "f", "g"] {
        s.append(0, value);
    }
    let sent = s.sent();
    assert_eq!(sent.len(), 5);
    s.answer(&sent[0], RETRIABLE, -1);
    s.answer(&sent[1], OUT_OF_ORDER, -1);
    s.advance(SECOND);
    assert_eq!(s.sent().len(), 0, "a retry beside others");
    for later in &sent[2..] {
        s.answer(later, OUT_OF_ORDER, -1);
    }
    s.advance(SECOND);
    for (sequence, value) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
        let (_, again) = s.until_sent();
        assert_eq!(again.told(), told(0, sequence, value));
        s.answer(&again, OK, 0);
    }
    assert_eq!(s.told(), [told(0, 5, "e"), told(0, 6, "f"), told(0, 7, "g")]);
}

/// SND-18, SND-35, SND-38: an unknown producer may also be one whose batches the log has lost at
/// its start.
#[test]
fn a_refusal_right_behind_the_last_acknowledged_batch_begins_anew() {
    let refusals = [
        (OUT_OF_ORDER, 0),
        (UNKNOWN_PRODUCER, 0),
        (UNKNOWN_PRODUCER, 10),
        (ErrorCode::INVALID_PRODUCER_EPOCH, 0),
    ];
    for (code, log_start_offset) in refusals {
        let mut s = Scenario::begun(|_| {});
        let delivery = s.append(0, "a");
        let sent = s.sent_one();
        assert_eq!(sent.told(), told(0, 1, "a"));
        s.answer_with(&sent, &PartitionProduceResponse { log_start_offset, ..verdict(code, -1) });
        let (_, again) = s.until_sent();
        assert_eq!((again.told(), s.id_requests), (told(1, 0, "a"), 1), "{code}");
        s.answer(&again, OK, 1);
        assert_eq!(offset(&delivery), Some(1));
    }
}

/// SND-45.
#[test]
fn the_very_first_batch_may_be_refused_for_its_sequence_too() {
    let mut s = Scenario::new(|_| {});
    s.append(0, "a");
    let sent = s.sent_one();
    s.answer(&sent, OUT_OF_ORDER, -1);
    assert_eq!(s.until_sent().1.told(), told(1, 0, "a"));
}

/// SND-17.
#[test]
fn behind_a_batch_that_fails_for_good_the_next_ones_begin_anew() {
    let mut s = Scenario::begun(|_| {});
    let (first, second) = (s.append(0, "a"), s.append(0, "b"));
    let sent = s.sent();
    s.answer(&sent[0], REFUSED, -1);
    assert_eq!(failure(&first).persisted, Persisted::No);
    s.append(0, "c");
    assert_eq!(s.sent().len(), 0, "a new sequence behind a gap");
    s.answer(&sent[1], OUT_OF_ORDER, -1);
    let (_, again) = s.until_sent();
    assert_eq!(again.told(), told(1, 0, "b"));
    s.answer(&again, OK, 1);
    assert_eq!(s.told(), [told(1, 1, "c")]);
    assert_eq!(offset(&second), Some(1));
}

#[test]
fn nothing_is_renumbered_while_an_answer_is_still_to_come() {
    let mut s = Scenario::begun(|_| {});
    s.append(0, "a");
    let second = s.append(0, "b");
    let sent = s.sent();
    s.answer(&sent[0], UNKNOWN_PRODUCER, -1);
    s.advance(10 * SECOND);
    assert_eq!(s.sent().len(), 0);
    s.answer(&sent[1], OK, 7);
    assert_eq!(offset(&second), Some(7));
    assert_eq!(s.told(), [told(1, 0, "a")]);
}

/// Java renumbers the second one too, and has it in the log twice.
#[test]
fn a_first_batch_that_is_refused_does_not_renumber_a_second_one_that_is_lost() {
    let mut s = Scenario::begun(|_| {});
    let (first, second) = (s.append(0, "a"), s.append(0, "b"));
    let sent = s.sent();
    s.answer(&sent[0], UNKNOWN_PRODUCER, -1);
    s.time_out(&sent[1]);
    let error = failure(&second);
    let expected = (&DeliveryCause::RequestTimeout, Persisted::Unknown);
    assert_eq!((&error.cause, error.persisted), expected);
    let (_, again) = s.until_sent();
    assert_eq!(again.told(), told(1, 0, "a"));
    s.answer(&again, OK, 1);
    assert_eq!(offset(&first), Some(1));
    s.advance(10 * SECOND);
    assert_eq!(s.sent().len(), 0);
    assert!(s.memory_is_whole());
}

#[test]
fn a_lost_batch_that_is_refused_when_it_is_first_fails_and_may_be_in_the_log() {
    let mut s = Scenario::begun(|_| {});
    let first = s.append(0, "a");
    s.append(0, "b");
    let sent = s.sent();
    s.time_out(&sent[0]);
    s.answer(&sent[1], OUT_OF_ORDER, -1);
    let (_, again) = s.until_sent();
    assert_eq!(again.told(), told(0, 1, "a"));
    s.answer(&again, OUT_OF_ORDER, -1);
    let error = failure(&first);
    assert_eq!((&error.cause, error.persisted), (&broker_error(OUT_OF_ORDER), Persisted::Unknown));
    assert_eq!(s.until_sent().1.told(), told(1, 0, "b"));
}

#[test]
fn a_proof_of_absence_does_not_undo_the_doubt_of_an_earlier_attempt() {
    let mut s = Scenario::begun(|_| {});
    let delivery = s.append(0, "a");
    let sent = s.sent_one();
    s.time_out(&sent);
    let (_, again) = s.until_sent();
    s.answer(&again, RETRIABLE, -1);
    let (_, again) = s.until_sent();
    s.answer(&again, UNKNOWN_PRODUCER, -1);
    assert_eq!(failure(&delivery).persisted, Persisted::Unknown);
}

/// Such a batch is in neither a queue nor a flight while its request is made.
#[test]
fn a_lost_batch_is_sent_once_more_under_its_own_epoch_while_a_new_beginning_is_due() {
    let mut s = Scenario::begun(|_| {});
    let (first, second) = (s.append(0, "a"), s.append(0, "b"));
    let sent = s.sent();
    s.answer(&sent[1], REFUSED, -1);
    assert!(!is_open(&second));
    s.time_out(&sent[0]);
    let third = s.append(0, "c");
    let (_, again) = s.until_sent();
    assert_eq!(again.told(), told(0, 1, "a"));
    assert!(is_open(&first));
    s.answer(&again, ErrorCode::DUPLICATE_SEQUENCE_NUMBER, -1);
    assert_eq!(offset(&first), None);
    let last = s.sent_one();
    assert_eq!(last.told(), told(1, 0, "c"));
    s.answer(&last, OK, 3);
    assert_eq!(offset(&third), Some(3));
    assert!(s.memory_is_whole());
}

/// SND-33.
#[test]
fn a_duplicate_is_delivered_at_an_offset_that_nobody_knows() {
    let mut s = Scenario::begun(|_| {});
    let delivery = s.append(0, "a");
    let sent = s.sent_one();
    s.time_out(&sent);
    let (_, again) = s.until_sent();
    s.answer(&again, ErrorCode::DUPLICATE_SEQUENCE_NUMBER, -1);
    assert_eq!(offset(&delivery), None);
    s.append(0, "b");
    assert_eq!(s.told(), [told(0, 2, "b")]);
}

/// SND-37.
#[test]
fn two_batches_of_an_unknown_producer_begin_anew_together() {
    let mut s = Scenario::begun(|_| {});
    s.append(0, "a");
    s.append(0, "b");
    let sent = s.sent();
    s.answer(&sent[0], UNKNOWN_PRODUCER, -1);
    s.answer(&sent[1], UNKNOWN_PRODUCER, -1);
    let (_, again) = s.until_sent();
    assert_eq!(again.told(), told(1, 0, "a"));
    s.advance(10 * SECOND);
    assert_eq!(s.sent().len(), 0, "the first one of the epoch is not alone");
    s.answer(&again, OK, 1);
    assert_eq!(s.told(), [told(1, 1, "b")]);
}

/// Kafka's tests have the like for the second of five: the first one is in the log, and the broker
/// forgets the producer.
#[test]
fn an_unknown_producer_behind_the_first_of_five_renumbers_the_other_four() {
    let mut s = Scenario::begun(|_| {});
    let values = ["a", "b", "c", "d", "e"];
    let deliveries = values.map(|value| s.append(0, value));
    let sent = s.sent();
    assert_eq!(sent.iter().map(|sent| sent.told().1).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    s.answer(&sent[0], OK, 1);
    for later in &sent[1..] {
        s.advance(SECOND);
        assert_eq!(s.sent().len(), 0, "before all requests of the old epoch are answered");
        let code = if later.told().1 == 2 { UNKNOWN_PRODUCER } else { OUT_OF_ORDER };
        s.answer(later, code, -1);
    }
    let (_, second) = s.until_sent();
    assert_eq!(second.told(), told(1, 0, "b"));
    s.advance(10 * SECOND);
    assert_eq!(s.sent().len(), 0, "the first one of the epoch is not alone");
    s.answer(&second, OK, 2);
    let rest = s.sent();
    let stamps = [told(1, 1, "c"), told(1, 2, "d"), told(1, 3, "e")];
    assert_eq!(rest.iter().map(Sent::told).collect::<Vec<_>>(), stamps);
    (3..).zip(&rest).for_each(|(at, sent)| s.answer(sent, OK, at));
    assert_eq!(deliveries.each_ref().map(offset), [1, 2, 3, 4, 5].map(Some));
    assert_eq!(s.id_requests, 1);
    assert!(s.memory_is_whole());
}

#[test]
fn one_bump_serves_all_partitions() {
    let mut s = two_partitions(|_| {});
    s.append(0, "a");
    s.append(1, "x");
    let sent = s.sent_one();
    s.answer(&sent, UNKNOWN_PRODUCER, -1);
    s.advance(SECOND);
    let again = s.sent_one();
    let stamps: Vec<_> = again.batches.iter().map(|b| (b.epoch, b.sequence)).collect();
    assert_eq!((stamps, s.id_requests), (vec![(1, 0); 2], 1));
}

/// SND-20, SND-21, SND-32.
#[test]
fn another_partitions_bump_is_taken_over_with_the_next_batch_but_not_by_retries() {
    for code in [OK, REFUSED] {
        let mut s = two_partitions(|_| {});
        s.append(0, "a");
        let sent = s.sent_one();
        s.append(1, "x");
        let other = s.sent_one();
        s.answer(&sent, OUT_OF_ORDER, -1);
        let (_, again) = s.until_sent();
        assert_eq!(again.told(), told(1, 0, "a"));
        s.answer(&again, OK, 1);
        let mut last = other;
        for _ in 0..3 {
            s.answer(&last, RETRIABLE, -1);
            last = s.until_sent().1;
            assert_eq!(last.told(), told(0, 1, "x"));
        }
        s.answer(&last, code, 1);
        s.append(1, "z");
        assert_eq!(s.told(), [told(1, 0, "z")], "{code}");
    }
}

/// SND-19.
#[test]
fn a_partition_at_rest_begins_anew_with_its_next_batch_after_anothers_bump() {
    let mut s = two_partitions(|_| {});
    s.append(0, "a");
    let sent = s.sent_one();
    s.answer(&sent, OUT_OF_ORDER, -1);
    let (_, again) = s.until_sent();
    s.answer(&again, OK, 1);
    for (sequence, value) in [(0, "x"), (1, "y")] {
        s.append(1, value);
        let sent = s.sent_one();
        assert_eq!((sent.partitions(), sent.told()), (vec![1], told(1, sequence, value)));
        s.answer(&sent, OK, 1);
    }
}

/// SND-36: such a broker has lost the partition while it answered. The new leader knows the
/// producer.
#[test]
fn an_unknown_producer_at_a_broker_without_the_log_is_a_plain_retry() {
    let mut s = Scenario::begun(|_| {});
    let (lost, next) = (s.append(0, "a"), s.append(0, "b"));
    let sent = s.sent();
    s.time_out(&sent[0]);
    let gone = PartitionProduceResponse { log_start_offset: -1, ..verdict(UNKNOWN_PRODUCER, -1) };
    s.answer_with(&sent[1], &gone);
    let (_, again) = s.until_sent();
    assert_eq!(again.told(), told(0, 1, "a"));
    s.answer_with(&again, &gone);
    assert!(is_open(&lost));
    for (sequence, value) in [(1, "a"), (2, "b")] {
        let (_, again) = s.until_sent();
        assert_eq!(again.told(), told(0, sequence, value));
        s.answer(&again, OK, i64::from(sequence));
    }
    assert_eq!((offset(&lost), offset(&next)), (Some(1), Some(2)));
}

/// SND-29, SND-44.
#[test]
fn a_used_up_epoch_needs_a_new_id_and_stamped_batches_go_on_meanwhile() {
    for is_lost in [false, true] {
        let mut s = two_partitions_of_the_last_epoch();
        s.append(0, "a");
        let sent = s.sent_one();
        s.append(1, "x");
        let other = s.sent_one();
        s.next_id = None;
        s.answer(&sent, OUT_OF_ORDER, -1);
        assert!(s.asks_for_id());
        match is_lost {
            true => s.time_out(&other),
            false => s.answer(&other, RETRIABLE, -1),
        }
        let waiting = s.append(1, "y");
        let (_, again) = s.until_sent();
        assert_eq!((again.batch().producer_id, again.told()), (70, told(LAST_EPOCH, 1, "x")));
        s.answer(&again, OK, 1);
        s.advance(SECOND);
        assert_eq!(s.sent().len(), 0, "a new batch without an id");
        s.answer_id(OK, 71, 0);
        let again = s.sent_one();
        let stamps = again.batches.iter().map(|b| (b.producer_id, b.epoch, b.sequence));
        assert_eq!(stamps.collect::<Vec<_>>(), [(71, 0, 0); 2]);
        s.answer(&again, OK, 5);
        assert_eq!(offset(&waiting), Some(5));
    }
}

/// RA-20.
#[test]
fn a_refused_id_fails_what_has_no_sequence_and_leaves_the_rest() {
    let mut s = two_partitions_of_the_last_epoch();
    s.append(0, "a");
    let sent = s.sent_one();
    let stamped = s.append(1, "x");
    let other = s.sent_one();
    s.next_id = None;
    s.answer(&sent, REFUSED, -1);
    s.answer(&other, RETRIABLE, -1);
    let unstamped = [s.append(0, "b"), s.append(1, "y")];
    s.settle();
    let code = ErrorCode::CLUSTER_AUTHORIZATION_FAILED;
    s.answer_id(code, -1, -1);
    for delivery in &unstamped {
        assert_eq!(failure_code(delivery), Some(code));
        assert_eq!(failure(delivery).persisted, Persisted::No);
    }
    let (_, again) = s.until_sent();
    assert_eq!(again.told(), told(LAST_EPOCH, 1, "x"));
    s.answer(&again, OK, 1);
    assert_eq!(offset(&stamped), Some(1));
}

/// The partition that used the epoch up has nothing more to send; another one, which waits for its
/// broker, has.
#[test]
fn a_new_id_is_asked_for_as_soon_as_anybody_needs_one() {
    let mut s = two_partitions_of_the_last_epoch();
    s.append(0, "a");
    let sent = s.sent_one();
    s.client.0.borrow_mut().down.insert(NodeId(1), MonoTime::MAX);
    s.append(1, "x");
    s.answer(&sent, REFUSED, -1);
    assert_eq!((s.sent().len(), s.id_requests), (0, 1));
    s.client.0.borrow_mut().down.clear();
    let next = s.sent_one();
    assert_eq!((next.batch().producer_id, next.told(), s.id_requests), (71, told(0, 0, "x"), 2));
}

/// The broker keeps the greatest number for itself.
const LAST_EPOCH: i16 = i16::MAX - 1;

fn two_partitions_of_the_last_epoch() -> Scenario {
    let mut s = Scenario::unconnected(|s| s.leaders = vec![(1, 0); 2]);
    s.next_id = Some((70, LAST_EPOCH));
    for partition in [0, 1] {
        s.append(partition, "begun");
    }
    let sent = s.sent_one();
    s.answer(&sent, OK, 0);
    s
}

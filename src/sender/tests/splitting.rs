//! Batches that the broker finds too large: they go on in parts.

use super::*;
use crate::protocol::RecordError;
use crate::sync::Mutex;

const TOO_LARGE: ErrorCode = ErrorCode::MESSAGE_TOO_LARGE;

/// One batch of these records, refused for its size.
fn split(values: &[&str], change: impl FnOnce(&mut Setup)) -> (Scenario, Vec<Delivery>) {
    let mut s = Scenario::begun(|s| {
        s.batch_size = 10_000;
        s.sender.linger = SECOND;
        change(s);
    });
    let deliveries = values.iter().map(|value| s.append(0, value)).collect();
    s.advance(SECOND);
    let sent = s.sent_one();
    assert_eq!(sent.batch().values, values);
    s.answer(&sent, TOO_LARGE, -1);
    (s, deliveries)
}

/// RA-28, RA-29, SND-46, SND-64.
#[test]
fn the_parts_follow_one_by_one_with_the_sequences_of_the_whole() {
    let (mut s, deliveries) = split(&["a", "b", "c", "d"], |_| {});
    assert!(s.memory_is_whole(), "parts are not the pool's");
    let first = s.sent_one();
    assert_eq!(first.told(), told(0, 1, "a b"));
    s.answer(&first, OK, 100);
    let second = s.sent_one();
    assert_eq!(second.told(), told(0, 3, "c d"));
    assert!(is_open(&deliveries[2]));
    s.answer(&second, OK, 200);
    let offsets: Vec<_> = deliveries.iter().map(|d| offset(d).unwrap()).collect();
    assert_eq!(offsets, [100, 101, 200, 201]);
    assert!(s.memory_is_whole());
    s.append(0, "e");
    s.advance(SECOND);
    assert_eq!(s.told(), [told(0, 5, "e")]);
    // Nothing is left of the whole that could expire.
    s.advance(200 * SECOND);
    s.settle();
    assert_eq!(offset(&deliveries[0]), Some(100));
}

#[test]
fn parts_are_split_again_down_to_single_records_which_fail() {
    let (mut s, deliveries) = split(&["a", "b", "c"], |_| {});
    let first = s.sent_one();
    assert_eq!(first.told(), told(0, 1, "a"));
    s.answer(&first, TOO_LARGE, -1);
    assert_eq!(failure(&deliveries[0]).cause, broker_error(TOO_LARGE));
    assert!(is_open(&deliveries[1]) && is_open(&deliveries[2]));
    // The gap ends the epoch.
    for (sequence, value) in [(0, "b"), (1, "c")] {
        let (_, sent) = s.until_sent();
        assert_eq!(sent.told(), told(1, sequence, value));
        s.answer(&sent, OK, 0);
    }
}

#[test]
fn a_part_that_is_split_again_keeps_its_handles() {
    let (mut s, deliveries) = split(&["a", "b", "c", "d"], |_| {});
    let first = s.sent_one();
    s.answer(&first, TOO_LARGE, -1);
    for (index, value) in ["a", "b", "c d"].iter().enumerate() {
        let sent = s.sent_one();
        assert_eq!(sent.batch().values.join(" "), *value);
        s.answer(&sent, OK, 10 * index as i64);
    }
    let offsets: Vec<_> = deliveries.iter().map(|d| offset(d).unwrap()).collect();
    assert_eq!(offsets, [0, 10, 20, 21]);
}

/// SND-48.
#[test]
fn a_split_is_no_retry_and_the_parts_have_theirs() {
    for (retries, answers) in [(0, 1), (1, 2)] {
        let (mut s, deliveries) = split(&["a", "b"], |s| s.sender.retries = retries);
        for _ in 0..answers {
            let (_, part) = s.until_sent();
            assert_eq!(part.told(), told(0, 1, "a"));
            assert!(is_open(&deliveries[0]));
            s.answer(&part, ErrorCode::NOT_ENOUGH_REPLICAS, -1);
        }
        assert_eq!(failure(&deliveries[0]).attempts, answers + 1, "as a part of the whole too");
    }
}

/// RA-28.
#[test]
fn without_sequences_the_parts_keep_their_order_too() {
    let (mut s, deliveries) = split(&["a", "b", "c"], |s| {
        s.sender.idempotent = false;
        s.sender.one_in_flight = true;
    });
    for (index, value) in ["a", "b", "c"].iter().enumerate() {
        let sent = s.sent_one();
        assert_eq!(sent.told(), told(-1, -1, value));
        s.answer(&sent, OK, index as i64);
        assert_eq!(offset(&deliveries[index]), Some(index as i64));
    }
}

#[test]
fn later_batches_in_flight_come_after_the_parts() {
    let mut s = Scenario::begun(|s| {
        s.batch_size = 10_000;
        s.sender.linger = SECOND;
    });
    s.append(0, "a");
    s.append(0, "b");
    s.flush();
    s.settle();
    s.append(0, "c");
    s.flush();
    let sent = s.sent();
    s.answer(&sent[0], TOO_LARGE, -1);
    assert_eq!(s.sent().len(), 0, "a part overtakes what is in flight");
    s.answer(&sent[1], ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, -1);
    for (sequence, value) in [(1, "a"), (2, "b"), (3, "c")] {
        let (_, again) = s.until_sent();
        assert_eq!(again.told(), told(0, sequence, value));
        s.answer(&again, OK, 0);
    }
    assert_eq!(s.id_requests, 1);
}

/// RA-28.
#[test]
fn callbacks_and_flushes_go_with_the_parts() {
    let mut s = Scenario::begun(|s| {
        s.batch_size = 10_000;
        s.sender.linger = SECOND;
    });
    let told_of = Arc::new(Mutex::new(Vec::new()));
    for value in ["a", "b", "c", "d"] {
        let told_of = Arc::clone(&told_of);
        let callback = move |result: Result<&RecordMetadata, &Error>| {
            let is_named = |error: &Error| {
                let Error::Delivery(error) = error else { panic!("{error}") };
                matches!(error.cause, DeliveryCause::Broker { .. })
            };
            told_of.lock().push((value, result.map(|m| m.offset()).map_err(is_named)));
        };
        s.append_with(value, Box::new(callback));
    }
    let flush = s.flush();
    let sent = s.sent_one();
    s.answer(&sent, TOO_LARGE, -1);
    let first = s.sent_one();
    s.answer(&first, OK, 10);
    assert_eq!(*told_of.lock(), [("a", Ok(Some(10))), ("b", Ok(Some(11)))]);
    assert!(!flush.is_over());
    let second = s.sent_one();
    let code = ErrorCode::INVALID_RECORD;
    let record_errors = vec![RecordError { batch_index: 1, message: None }];
    s.answer_with(&second, &PartitionProduceResponse { record_errors, ..verdict(code, -1) });
    assert_eq!(told_of.lock()[2..], [("c", Err(false)), ("d", Err(true))]);
    assert!(flush.is_over());
    assert_eq!(s.slots.used(), 0);
}

#[test]
fn parts_are_as_old_as_the_whole() {
    let (mut s, deliveries) = split(&["a", "b"], |_| {});
    s.advance(50 * SECOND);
    let first = s.sent_one();
    s.advance(69 * SECOND - MS);
    s.settle();
    assert!(deliveries.iter().all(is_open));
    s.advance(MS);
    s.settle();
    assert!(deliveries.iter().all(|d| failure(d).cause == DeliveryCause::Timeout));
    s.answer(&first, OK, 0);
    assert!(s.memory_is_whole());
    assert_eq!(s.sent().len(), 0);
}

//! `delivery.timeout.ms`: who is told, when; where the bytes and the sequence are meanwhile.

use super::*;
use crate::client::{ClientEvent, Stage};
use crate::error::Persisted;
use crate::types::NodeId;

const TIMEOUT: Duration = Duration::from_secs(120);
const OUT_OF_ORDER: ErrorCode = ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER;

fn reach(s: &Scenario, node: i32) {
    s.client.0.borrow_mut().down.remove(&NodeId(node));
}

fn lose(s: &Scenario, node: i32) {
    s.client.0.borrow_mut().down.insert(NodeId(node), MonoTime::MAX);
}

/// An attempt to connect to `node` fails.
fn refuse(s: &mut Scenario, node: i32) {
    let (stage, reason) = (Stage::Connecting, format!("broker {node}: refused"));
    let event = ClientEvent::Disconnected { node: NodeId(node), stage, reason };
    s.client.0.borrow_mut().events.push(event);
    s.settle();
}

/// PB-06, RA-21, SND-24, SND-55.
#[test]
fn an_unsent_batch_expires_at_its_deadline_and_leaves_no_gap() {
    let mut s = Scenario::new(|_| {});
    lose(&s, 1);
    let delivery = s.append(0, "a");
    assert_eq!(s.settle(), Some(TIMEOUT));
    s.advance(TIMEOUT - MS);
    assert_eq!(s.settle(), Some(MS));
    assert!(is_open(&delivery));
    s.advance(MS);
    let slept = s.settle();
    assert!(slept.is_none_or(|slept| slept > Duration::ZERO), "{slept:?}");
    let error = failure(&delivery);
    assert_eq!((&error.cause, error.attempts), (&DeliveryCause::Timeout, 0));
    assert!(error.last.is_none());
    assert_eq!((error.persisted, error.elapsed), (Persisted::No, TIMEOUT));
    assert!(s.memory_is_whole());
    reach(&s, 1);
    s.append(0, "b");
    assert_eq!(s.told(), [told(0, 0, "b")]);
}

/// SND-56.
#[test]
fn batches_of_several_partitions_expire_together() {
    let mut s = Scenario::new(|s| s.leaders = vec![(1, 0), (2, 0), (1, 0)]);
    lose(&s, 1);
    let deliveries = [0, 1, 2].map(|p| s.append(p, "a"));
    assert_eq!(s.sent_one().partitions(), [1]);
    s.advance(TIMEOUT);
    s.settle();
    for delivery in &deliveries {
        assert_eq!(failure(delivery).cause, DeliveryCause::Timeout);
    }
    assert_eq!(failure(&deliveries[1]).persisted, Persisted::Unknown);
    assert_eq!(failure(&deliveries[0]).persisted, Persisted::No);
}

/// SND-49: KAFKA-19012: an expired batch's buffer must not be reused while it is still being
/// written.
#[test]
fn an_expired_batchs_bytes_stay_with_the_request_until_its_end() {
    let mut s = Scenario::new(|_| {});
    let delivery = s.append(0, "precious");
    let sent = s.sent_one();
    let before = s.accumulator.pool.available();
    s.advance(TIMEOUT);
    s.settle();
    assert_eq!(failure(&delivery).cause, DeliveryCause::Timeout);
    assert_eq!(s.accumulator.pool.available(), before, "freed while it may be written");
    assert_eq!(s.client.0.borrow().under_way[0].frame.segments.len(), 1);
    s.client.0.borrow_mut().unseen.push(sent.tag);
    assert_eq!(s.sent_one().told(), sent.told(), "the bytes have changed");
    s.answer(&sent, OK, 3);
    assert!(s.memory_is_whole(), "freed not once");
    assert_eq!(failure(&delivery).cause, DeliveryCause::Timeout);
}

/// SND-50.
#[test]
fn a_good_answer_in_the_turn_of_the_deadline_comes_too_late() {
    let mut s = Scenario::new(|_| {});
    let delivery = s.append(0, "a");
    let sent = s.sent_one();
    s.advance(TIMEOUT);
    s.answer(&sent, OK, 3);
    assert_eq!(failure(&delivery).cause, DeliveryCause::Timeout);
    assert!(s.memory_is_whole());
}

#[test]
fn a_late_success_of_an_expired_batch_lets_the_next_one_go_on_in_sequence() {
    let mut s = Scenario::new(|_| {});
    s.append(0, "a");
    let sent = s.sent_one();
    s.advance(TIMEOUT);
    s.settle();
    let next = s.append(0, "b");
    assert_eq!(s.sent().len(), 0, "a new sequence while an old one is unresolved");
    s.answer(&sent, OK, 0);
    let sent = s.sent_one();
    assert_eq!(sent.told(), told(0, 1, "b"));
    s.answer(&sent, OK, 1);
    assert_eq!(offset(&next), Some(1));
}

/// SND-25.
#[test]
fn an_expired_first_whose_fate_stays_unknown_is_in_the_log_if_a_later_one_is() {
    let mut s = Scenario::begun(|_| {});
    s.append(0, "a");
    let sent_first = s.sent_one();
    s.advance(50 * SECOND);
    s.append(0, "b");
    let sent_second = s.sent_one();
    s.advance(70 * SECOND);
    s.settle();
    s.answer(&sent_second, OK, 2);
    s.append(0, "c");
    assert_eq!(s.sent().len(), 0);
    s.time_out(&sent_first);
    assert_eq!(s.told(), [told(0, 3, "c")], "the broker has no gap");
}

/// SND-28.
#[test]
fn an_expired_batch_whose_fate_stays_unknown_ends_the_epoch() {
    let mut s = Scenario::new(|_| {});
    s.append(0, "a");
    let sent = s.sent_one();
    s.advance(TIMEOUT);
    s.append(0, "b");
    assert_eq!(s.sent().len(), 0);
    s.time_out(&sent);
    assert_eq!(s.told(), [told(1, 0, "b")]);
    assert_eq!(s.id_requests, 1, "a bump is the client's own");
}

/// SND-25.
#[test]
fn an_expired_first_with_a_later_success_needs_no_new_epoch_if_it_is_in_the_log() {
    let mut s = Scenario::begun(|_| {});
    let first = s.append(0, "a");
    let sent_first = s.sent_one();
    s.advance(50 * SECOND);
    let second = s.append(0, "b");
    let sent_second = s.sent_one();
    s.advance(70 * SECOND);
    s.settle();
    assert!(!is_open(&first) && is_open(&second));
    s.append(0, "c");
    s.answer(&sent_second, OK, 1);
    assert_eq!(offset(&second), Some(1));
    assert_eq!(s.sent().len(), 0, "the first one's fate is open");
    s.answer(&sent_first, OK, 0);
    assert_eq!(s.told(), [told(0, 3, "c")]);
}

/// SND-26.
#[test]
fn an_expired_first_that_is_lost_has_the_later_one_renumbered_after_its_own_refusal() {
    let mut s = Scenario::begun(|_| {});
    s.append(0, "a");
    let sent_first = s.sent_one();
    s.advance(50 * SECOND);
    let second = s.append(0, "b");
    let sent_second = s.sent_one();
    s.advance(70 * SECOND);
    let third = s.append(0, "c");
    s.answer(&sent_second, OUT_OF_ORDER, -1);
    assert_eq!(s.sent().len(), 0);
    s.time_out(&sent_first);
    s.advance(SECOND);
    for (sequence, value) in [(0, "b"), (1, "c")] {
        let again = s.sent_one();
        assert_eq!(again.told(), told(1, sequence, value));
        s.answer(&again, OK, i64::from(sequence));
    }
    assert_eq!((offset(&second), offset(&third)), (Some(0), Some(1)));
    assert!(s.memory_is_whole());
}

/// SND-53, SND-54.
#[test]
fn an_expired_batch_is_neither_retried_nor_split() {
    for code in [ErrorCode::NOT_ENOUGH_REPLICAS, ErrorCode::MESSAGE_TOO_LARGE] {
        let mut s = Scenario::new(|s| {
            s.batch_size = 1000;
            s.sender.linger = SECOND;
        });
        let deliveries = [s.append(0, "a"), s.append(0, "b")];
        s.advance(SECOND);
        let sent = s.sent_one();
        s.advance(TIMEOUT);
        s.answer(&sent, code, -1);
        s.advance(10 * SECOND);
        assert_eq!(s.sent().len(), 0, "{code}");
        assert!(deliveries.iter().all(|d| failure(d).cause == DeliveryCause::Timeout));
        assert!(s.memory_is_whole());
    }
}

/// SND-52.
#[test]
fn with_one_request_in_flight_an_expired_batch_holds_the_partition_until_its_answer() {
    let mut s = Scenario::new(|s| {
        s.sender.one_in_flight = true;
        s.sender.idempotent = false;
    });
    s.append(0, "a");
    let sent = s.sent_one();
    s.advance(TIMEOUT);
    s.append(0, "b");
    assert_eq!(s.sent().len(), 0);
    s.answer(&sent, OK, 0);
    assert_eq!(s.sent_one().batch().values, ["b"]);
}

/// RA-23, RA-24.
#[test]
fn a_retry_keeps_the_age_of_its_batch_and_expires_while_it_waits() {
    let mut s = Scenario::new(|s| {
        s.sender.retry_backoff = 50 * SECOND;
        s.sender.retry_backoff_max = 50 * SECOND;
    });
    let delivery = s.append(0, "a");
    let sent = s.sent_one();
    s.advance(100 * SECOND);
    s.answer(&sent, ErrorCode::NOT_ENOUGH_REPLICAS, -1);
    s.advance(20 * SECOND - MS);
    assert_eq!(s.settle(), Some(MS));
    s.advance(MS);
    s.settle();
    let error = failure(&delivery);
    assert_eq!((&error.cause, error.persisted), (&DeliveryCause::Timeout, Persisted::No));
    assert_eq!(error.last, Some(broker_error(ErrorCode::NOT_ENOUGH_REPLICAS)));
    assert_eq!((error.spent.in_flight, error.spent.backoff), (100 * SECOND, 20 * SECOND));
    assert!(error.broker.as_deref().is_some_and(|name| name.ends_with("(id 1)")), "{error}");
    let text = error.to_string();
    assert!(text.contains("queued 0, in flight 100000, in backoff 20000"), "{text}");
    s.append(0, "b");
    assert_eq!(s.told(), [told(1, 0, "b")]);
}

#[test]
fn time_without_a_leader_and_time_in_line_are_told_apart() {
    let mut s = Scenario::new(|s| s.leaders = vec![(1, 0), (2, 0)]);
    lose(&s, 1);
    let waits = s.append(0, "in line");
    s.settle();
    s.advance(30 * SECOND);
    s.leaders[0] = (-1, 1);
    s.sender.metadata.request_update();
    s.settle();
    s.advance(90 * SECOND);
    s.settle();
    let error = failure(&waits);
    assert_eq!((error.spent.queued, error.spent.metadata), (30 * SECOND, 90 * SECOND), "{error}");
}

#[test]
fn a_record_that_never_got_away_tells_what_stood_in_the_way() {
    let mut s = Scenario::new(|_| {});
    lose(&s, 1);
    let delivery = s.append(0, "a");
    s.settle();
    refuse(&mut s, 1);
    s.advance(TIMEOUT);
    s.settle();
    let error = failure(&delivery);
    let Some(DeliveryCause::Unreachable(why)) = &error.last else { panic!("{error}") };
    assert!(why.starts_with("broker 1: refused (broker 1 advertised "), "{why}");
    assert_eq!((error.attempts, &error.broker, error.persisted), (0, &None, Persisted::No));
}

#[test]
fn a_broker_that_was_out_of_reach_once_is_not_blamed_while_another_answers() {
    let mut s = Scenario::new(|s| s.leaders = vec![(1, 0), (2, 0)]);
    refuse(&mut s, 2);
    s.brokers.remove(&2);
    s.leaders.pop();
    s.advance(SECOND);
    let delivery = s.append(0, "a");
    let sent = s.sent_one();
    s.leaders = vec![(-1, 0)];
    s.advance(SECOND);
    s.answer(&sent, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, -1);
    s.advance(TIMEOUT);
    s.settle();
    let error = failure(&delivery);
    assert_eq!(error.last, Some(broker_error(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)), "{error}");
}

/// RA-23.
#[test]
fn neither_linger_nor_a_requests_own_time_expires_a_batch() {
    let mut s = Scenario::new(|s| {
        s.batch_size = 1000;
        s.sender.linger = 10 * SECOND;
    });
    let delivery = s.append(0, "a");
    s.advance(10 * SECOND);
    let sent = s.sent_one();
    s.advance(30 * SECOND);
    s.time_out(&sent);
    s.advance(SECOND);
    assert_eq!(s.sent_one().told(), told(0, 0, "a"));
    assert!(is_open(&delivery));
}

/// RA-22.
#[test]
fn a_deadline_of_the_longest_time_out_does_not_overflow() {
    let mut s =
        Scenario::new(|s| s.sender.delivery_timeout = Duration::from_millis(i32::MAX as u64));
    lose(&s, 1);
    let delivery = s.append(0, "a");
    s.advance(1_000_000 * SECOND);
    s.settle();
    assert!(is_open(&delivery));
}

/// SND-07.
#[test]
fn a_callback_of_an_expired_batch_may_send_again() {
    let mut s = Scenario::begun(|_| {});
    lose(&s, 1);
    let again = Arc::clone(&s.accumulator);
    s.append_with(
        "a",
        Box::new(move |result| {
            assert!(result.is_err());
            let topic = again.topics.find("t").unwrap();
            let data = RecordData { key: None, value: Some(b"b"), headers: &[], timestamp: 0 };
            let mut append = Append { data, own_timestamp: true, sticky: false };
            again.append(&topic, 0, &mut append, &mut None, &mut Patience::None).unwrap();
        }),
    );
    s.advance(TIMEOUT);
    s.settle();
    reach(&s, 1);
    s.append(0, "c");
    assert_eq!(s.told(), [told(0, 1, "b"), told(0, 2, "c")]);
}

/// RA-21.
#[test]
fn a_batch_behind_a_request_under_way_expires_at_its_own_time() {
    let mut s = Scenario::new(|s| {
        s.sender.one_in_flight = true;
        s.sender.idempotent = false;
    });
    let first = s.append(0, "a");
    s.sent_one();
    s.advance(50 * SECOND);
    let second = s.append(0, "b");
    s.advance(TIMEOUT - MS);
    s.settle();
    assert!(!is_open(&first) && is_open(&second));
    assert_eq!(s.settle(), Some(MS));
    s.advance(MS);
    assert_eq!(s.sent().len(), 0);
    let error = failure(&second);
    assert_eq!((&error.cause, error.persisted), (&DeliveryCause::Timeout, Persisted::No));
}

/// RA-31.
#[test]
fn a_batch_that_is_nearly_over_time_is_sent_all_the_same() {
    let mut s = Scenario::new(|_| {});
    lose(&s, 1);
    let delivery = s.append(0, "a");
    s.advance(TIMEOUT - MS);
    assert_eq!(s.settle(), Some(MS));
    reach(&s, 1);
    assert_eq!(s.sent_one().told(), told(0, 0, "a"));
    assert_eq!(s.settle(), Some(MS));
    s.advance(MS);
    s.settle();
    assert_eq!(failure(&delivery).persisted, Persisted::Unknown);
}

/// PB-06, PB-07: a user's clock may be ahead of the sender's.
#[test]
fn a_record_from_the_future_does_not_expire() {
    let mut s = Scenario::new(|_| {});
    s.advance(10 * TIMEOUT);
    let delivery = s.append(0, "a");
    for _ in 0..3 {
        s.sender.run_once(MonoTime::ZERO).unwrap();
    }
    let sent = s.client.0.borrow_mut().sent().remove(0);
    s.client.0.borrow_mut().answer(&sent, |_| verdict(ErrorCode::NOT_ENOUGH_REPLICAS, -1));
    for _ in 0..3 {
        s.sender.run_once(MonoTime::ZERO).unwrap();
    }
    assert!(is_open(&delivery));
    let (_, again) = s.until_sent();
    s.answer(&again, OK, 3);
    assert_eq!(offset(&delivery), Some(3));
}

/// PB-01.
#[test]
fn a_callback_runs_once_though_an_expired_batch_is_answered_later() {
    for code in [OK, ErrorCode::TOPIC_AUTHORIZATION_FAILED, ErrorCode::NOT_ENOUGH_REPLICAS] {
        let mut s = Scenario::new(|_| {});
        let told_of = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told_of);
        let callback = move |result: Result<&RecordMetadata, &Error>| {
            assert!(matches!(result, Err(Error::Delivery(e)) if e.cause == DeliveryCause::Timeout));
            count.fetch_add(1, Ordering::Relaxed);
        };
        let delivery = s.append_with("a", Box::new(callback));
        let sent = s.sent_one();
        s.advance(TIMEOUT);
        s.settle();
        assert_eq!(told_of.load(Ordering::Relaxed), 1);
        s.answer(&sent, code, 5);
        s.advance(TIMEOUT);
        s.settle();
        assert_eq!(told_of.load(Ordering::Relaxed), 1);
        assert_eq!(failure(&delivery).cause, DeliveryCause::Timeout);
    }
}

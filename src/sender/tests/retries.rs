//! Errors: what is tried again, when, and what its user is told.

use super::mock::moved_to;
use super::*;
use crate::client::RequestFailure;
use crate::error::Persisted;
use crate::protocol::RecordError;
use crate::types::NodeId;

const RETRIABLE: ErrorCode = ErrorCode::NOT_ENOUGH_REPLICAS;
const NOT_LEADER: ErrorCode = ErrorCode::NOT_LEADER_OR_FOLLOWER;

fn without_ids(s: &mut Setup) {
    s.sender.idempotent = false;
}

/// SND-04, SND-05.
#[test]
fn a_lost_connection_is_one_attempt_and_the_sequence_stays() {
    let mut s = Scenario::new(|s| s.sender.retries = 1);
    let delivery = s.append(0, "a");
    let first = s.sent_one();
    s.cut(1);
    assert!(is_open(&delivery));
    let (_, again) = s.until_sent();
    assert_eq!(again.told(), first.told());
    s.answer(&again, OK, 3);
    assert_eq!(offset(&delivery), Some(3));
    assert!(s.memory_is_whole());
}

/// SND-04.
#[test]
fn when_retries_are_used_up_the_last_failure_is_told() {
    let mut s = Scenario::new(|s| s.sender.retries = 1);
    let delivery = s.append(0, "a");
    for _ in 0..2 {
        s.until_sent();
        s.cut(1);
    }
    let error = failure(&delivery);
    assert_eq!((&error.cause, error.attempts), (&DeliveryCause::Disconnected, 2));
    assert_eq!(error.persisted, Persisted::Unknown);
    assert!(s.memory_is_whole());
}

#[test]
fn bytes_that_never_left_prove_that_nothing_is_in_the_log() {
    let mut s = Scenario::new(|s| s.sender.retries = 0);
    let delivery = s.append(0, "a");
    let sent = s.sent_one();
    s.client.0.borrow_mut().end(sent.tag, Err(RequestFailure::Disconnected), false);
    s.settle();
    assert_eq!(failure(&delivery).persisted, Persisted::No);
}

/// RA-12, UTIL-01.
#[test]
fn the_backoff_doubles_with_jitter_and_never_exceeds_its_bound() {
    let mut s = Scenario::new(|_| {});
    s.append(0, "a");
    let mut sent = s.sent_one();
    let mut ever_differs = false;
    for expected in [100, 200, 400, 800].into_iter().chain([1000; 16]) {
        s.answer(&sent, RETRIABLE, -1);
        let (took, again) = s.until_sent();
        let expected = Duration::from_millis(expected);
        assert!(took >= expected * 8 / 10, "{took:?} of {expected:?}");
        assert!(took <= (expected * 12 / 10).min(SECOND), "{took:?} of {expected:?}");
        ever_differs |= took != expected;
        sent = again;
    }
    assert!(ever_differs, "there is no jitter");
}

/// RA-11.
#[test]
fn a_partition_in_backoff_holds_up_no_other_one() {
    let mut s = Scenario::new(|s| s.leaders = vec![(1, 0); 2]);
    s.append(0, "a");
    let sent = s.sent_one();
    s.answer(&sent, RETRIABLE, -1);
    s.append(0, "b");
    s.append(1, "c");
    assert_eq!(s.sent_one().told(), told(0, 0, "c"));
    assert_eq!(s.until_sent().1.told(), told(0, 0, "a"));
}

/// RA-15, SND-72.
#[test]
fn a_moved_leader_is_asked_for_and_the_same_one_is_tried_after_the_backoff() {
    let mut s = Scenario::new(|_| {});
    s.append(0, "a");
    let sent = s.sent_one();
    let before = s.metadata_requests;
    s.advance(SECOND);
    s.answer(&sent, NOT_LEADER, -1);
    assert_eq!(s.metadata_requests, before + 1);
    let (took, again) = s.until_sent();
    assert!(took >= 80 * MS && again.node == 1, "{took:?}");
}

/// PB-10, RA-14, SND-70.
#[test]
fn only_a_leader_newer_than_that_of_the_last_attempt_ends_the_backoff() {
    let mut s = Scenario::new(|_| {});
    s.append(0, "a");
    let sent = s.sent_one();
    s.advance(SECOND);
    s.leaders = vec![(2, 1)];
    s.answer(&sent, NOT_LEADER, -1);
    let again = s.sent_one();
    assert_eq!((again.node, s.now()), (2, MonoTime::ZERO + SECOND));
    s.advance(SECOND);
    s.answer(&again, NOT_LEADER, -1);
    let (took, third) = s.until_sent();
    assert!(took >= 160 * MS && third.node == 2, "{took:?}");
}

/// PB-11.
#[test]
fn an_epoch_that_was_met_is_not_forgotten_where_metadata_has_none() {
    let mut s = Scenario::new(|s| s.leaders = vec![(1, 3)]);
    s.append(0, "a");
    let sent = s.sent_one();
    s.advance(SECOND);
    s.leaders = vec![(2, -1)];
    s.answer(&sent, NOT_LEADER, -1);
    let (took, again) = s.until_sent();
    assert!(took >= 80 * MS && again.node == 2, "{took:?}");
    s.advance(SECOND);
    s.leaders = vec![(1, 4)];
    let begun = s.now();
    s.answer(&again, NOT_LEADER, -1);
    assert_eq!((s.sent_one().node, s.now()), (1, begun));
}

/// RA-13.
#[test]
fn a_backoff_goes_on_over_a_move_without_a_newer_epoch() {
    let mut s = Scenario::new(|s| s.leaders = vec![(1, -1)]);
    s.append(0, "a");
    let sent = s.sent_one();
    s.advance(SECOND);
    s.leaders = vec![(2, -1)];
    s.answer(&sent, NOT_LEADER, -1);
    assert_eq!(s.sent().len(), 0);
    let (took, again) = s.until_sent();
    assert!(took >= 80 * MS && again.node == 2, "{took:?}");
}

/// SND-73.
#[test]
fn a_leader_named_in_the_answer_is_tried_at_once() {
    let mut s = Scenario::new(|_| {});
    s.append(0, "a");
    let sent = s.sent_one();
    s.answers_metadata = false;
    let handed_over = s.client.0.borrow().handed_over;
    s.answer_with(&sent, &moved_to(2, 5));
    let again = s.sent_one();
    assert_eq!((again.node, again.told()), (2, sent.told()));
    assert_eq!(s.client.0.borrow().handed_over, handed_over, "its address was known");
    // A broker not met yet, whose address comes along.
    let topics = vec![crate::protocol::TopicProduceResponse {
        topic: again.batch().topic.clone(),
        partitions: vec![moved_to(7, 6)],
    }];
    let endpoint =
        crate::protocol::NodeEndpoint { node_id: 7, host: "seven".into(), port: 9097, rack: None };
    let response = crate::protocol::ProduceResponse {
        topics,
        throttle_time_ms: 0,
        node_endpoints: vec![endpoint],
    };
    s.client.0.borrow_mut().respond(&again, &response);
    let third = s.sent_one();
    assert_eq!((third.node, third.told()), (7, sent.told()));
    assert_eq!(s.now(), MonoTime::ZERO);
}

/// SND-74.
#[test]
fn each_partition_of_an_answer_is_handled_by_its_own_code() {
    let mut s = Scenario::new(|s| s.leaders = vec![(1, 0); 3]);
    let deliveries = [0, 1, 2].map(|p| s.append(p, "a"));
    let sent = s.sent_one();
    let codes = [OK, ErrorCode::TOPIC_AUTHORIZATION_FAILED, RETRIABLE];
    s.client.0.borrow_mut().answer(&sent, |b| verdict(codes[b.partition as usize], 8));
    s.settle();
    assert_eq!(offset(&deliveries[0]), Some(8));
    let error = failure(&deliveries[1]);
    assert_eq!(error.cause, broker_error(ErrorCode::TOPIC_AUTHORIZATION_FAILED));
    assert_eq!(error.persisted, Persisted::No);
    assert!(is_open(&deliveries[2]));
    assert_eq!(s.until_sent().1.partitions(), [2]);
}

/// SND-13.
#[test]
fn a_refusal_without_idempotence_fails_at_once() {
    let mut s = Scenario::new(without_ids);
    let delivery = s.append(0, "a");
    let sent = s.sent_one();
    s.answer(&sent, ErrorCode::TOPIC_AUTHORIZATION_FAILED, -1);
    assert_eq!(failure(&delivery).attempts, 1);
    assert!(s.memory_is_whole());
    s.advance(10 * SECOND);
    assert_eq!((sent.batch().producer_id, s.sent().len()), (-1, 0));
}

/// SND-39, SND-40, SND-41: Java's producer is of no more use after the first one.
#[test]
fn a_refusal_for_good_ends_nothing_but_its_batch() {
    use ErrorCode as Code;
    for code in [Code::CLUSTER_AUTHORIZATION_FAILED, Code::UNSUPPORTED_FOR_MESSAGE_FORMAT] {
        let mut s = Scenario::begun(|s| s.leaders = vec![(1, 0); 2]);
        let delivery = s.append(0, "a");
        let sent = s.sent_one();
        let other = s.append(1, "x");
        let sent_other = s.sent_one();
        s.answer(&sent, code, -1);
        assert_eq!(failure(&delivery).cause, broker_error(code));
        s.answer(&sent_other, OK, 4);
        assert_eq!(offset(&other), Some(4));
        let next = s.append(0, "b");
        let sent = s.sent_one();
        assert_eq!(sent.told(), told(1, 0, "b"));
        s.answer(&sent, OK, 5);
        assert_eq!(offset(&next), Some(5));
    }
}

/// SND-65.
#[test]
fn the_brokers_words_go_before_the_usual_ones() {
    let mut s = Scenario::new(without_ids);
    for message in [None, Some("no room at the inn")] {
        let delivery = s.append(0, "a");
        let sent = s.sent_one();
        let code = ErrorCode::INVALID_REQUIRED_ACKS;
        let error_message = message.map(Into::into);
        s.answer_with(&sent, &PartitionProduceResponse { error_message, ..verdict(code, -1) });
        let message = message.unwrap_or(code.message()).into();
        assert_eq!(failure(&delivery).cause, DeliveryCause::Broker { code, message });
    }
}

/// PB-09, SND-51.
#[test]
fn records_that_the_broker_names_get_its_words_and_the_others_are_told_apart() {
    let mut s = Scenario::new(|s| {
        s.batch_size = 1000;
        s.sender.linger = SECOND;
    });
    let deliveries = ["a", "b", "c"].map(|v| s.append(0, v));
    s.advance(SECOND);
    let sent = s.sent_one();
    let code = ErrorCode::INVALID_RECORD;
    let named = |index, message: Option<&str>| RecordError {
        batch_index: index,
        message: message.map(Into::into),
    };
    let record_errors = vec![named(0, Some("no key")), named(2, None)];
    let error_message = Some("bad batch".into());
    let answer = PartitionProduceResponse { record_errors, error_message, ..verdict(code, -1) };
    s.answer_with(&sent, &answer);
    let message = |i: usize| match &failure(&deliveries[i]).cause {
        DeliveryCause::Broker { message, .. } => message.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!((message(0).as_str(), message(2).as_str()), ("no key", "bad batch"));
    assert_eq!(failure(&deliveries[1]).cause, DeliveryCause::BatchRejected { code });
    assert!(deliveries.iter().all(|d| failure(d).persisted == Persisted::No));
}

#[test]
fn an_answer_that_cant_be_read_costs_the_connection_and_one_that_omits_a_batch_a_retry() {
    let mut s = Scenario::new(|_| {});
    let delivery = s.append(0, "a");
    let sent = s.sent_one();
    s.client.0.borrow_mut().end(sent.tag, Ok(ResponseBody::Bytes(vec![1, 2])), true);
    s.settle();
    assert_eq!(s.client.0.borrow().disconnected, [NodeId(1)]);
    let (_, again) = s.until_sent();
    let nothing = Sent { batches: Vec::new(), ..again };
    s.answer(&nothing, OK, 0);
    let (_, third) = s.until_sent();
    assert_eq!(third.told(), sent.told());
    s.answer(&third, OK, 0);
    assert_eq!(offset(&delivery), Some(0));
}

/// SND-16, SND-22.
#[test]
fn answers_out_of_order_are_retried_in_the_order_of_sequences_one_at_a_time() {
    let mut s = Scenario::begun(|_| {});
    let deliveries = ["a", "b", "c"].map(|v| s.append(0, v));
    let sent = s.sent();
    assert_eq!(sent.len(), 3);
    s.answer(&sent[2], ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, -1);
    s.answer(&sent[1], ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, -1);
    let fourth = s.append(0, "d");
    assert_eq!(s.sent().len(), 0, "a new sequence while older ones are to be retried");
    s.answer(&sent[0], RETRIABLE, -1);
    for (sequence, value) in [(1, "a"), (2, "b")] {
        let (_, again) = s.until_sent();
        assert_eq!(again.told(), told(0, sequence, value));
        s.advance(SECOND);
        assert_eq!(s.sent().len(), 0, "more than one in flight while retrying");
        s.answer(&again, OK, i64::from(sequence));
    }
    let last = s.sent();
    let expected = [told(0, 3, "c"), told(0, 4, "d")];
    assert_eq!(last.iter().map(Sent::told).collect::<Vec<_>>(), expected);
    s.answer(&last[0], OK, 3);
    s.answer(&last[1], OK, 4);
    assert_eq!(deliveries.iter().map(|d| offset(d).unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(offset(&fourth), Some(4));
    assert_eq!(s.id_requests, 1);
}

/// SND-23.
#[test]
fn a_second_batch_that_is_in_the_log_first_does_not_renumber_the_first() {
    let mut s = Scenario::begun(|_| {});
    let (first, second) = (s.append(0, "a"), s.append(0, "b"));
    let sent = s.sent();
    s.answer(&sent[1], OK, 1);
    assert_eq!(offset(&second), Some(1));
    s.client.0.borrow_mut().end(sent[0].tag, Err(RequestFailure::TimedOut), true);
    let (_, again) = s.until_sent();
    assert_eq!(again.told(), told(0, 1, "a"));
    s.answer(&again, OK, 0);
    assert_eq!(offset(&first), Some(0));
    s.append(0, "c");
    assert_eq!(s.told(), [told(0, 3, "c")]);
}

/// SND-42.
#[test]
fn a_broker_that_speaks_no_version_of_ours_fails_the_batch_and_the_next_has_its_chance() {
    let mut s = Scenario::new(|_| {});
    s.client.0.borrow_mut().unsupported.insert(ApiKey::Produce.code());
    let delivery = s.append(0, "a");
    s.settle();
    assert!(matches!(failure(&delivery).cause, DeliveryCause::UnsupportedVersion(_)));
    assert_eq!(failure(&delivery).persisted, Persisted::No);
    assert!(s.memory_is_whole());
    s.client.0.borrow_mut().unsupported.clear();
    s.append(0, "b");
    assert_eq!(s.sent_one().batch().values, ["b"]);
}

/// Without sequences no order is promised, but the first to expire must be seen first.
#[test]
fn lost_batches_without_sequences_are_tried_again_in_their_order_and_expire_by_their_age() {
    let mut s = Scenario::new(without_ids);
    let first = s.append(0, "a");
    s.advance(50 * SECOND);
    let second = s.append(0, "b");
    let sent = s.sent();
    assert_eq!(sent.len(), 2);
    s.client.0.borrow_mut().down.insert(NodeId(1), MonoTime::MAX);
    s.cut(1);
    s.advance(70 * SECOND);
    s.settle();
    assert!(!is_open(&first) && is_open(&second));
    s.client.0.borrow_mut().down.clear();
    assert_eq!(s.sent_one().batch().values, ["b"]);
}

#[test]
fn a_batch_that_met_a_connection_cut_for_want_of_use_goes_again_at_once() {
    let mut s = Scenario::new(|_| {});
    let delivery = s.append(0, "a");
    let sent = s.sent_one();
    s.client.0.borrow_mut().end(sent.tag, Err(RequestFailure::Stale), true);
    let (waited, again) = s.until_sent();
    assert_eq!((waited, again.told()), (Duration::ZERO, sent.told()), "the same, without backoff");
    s.answer(&again, OK, 0);
    assert!(delivery.wait().is_ok());
}

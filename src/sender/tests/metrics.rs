//! What the sender counts, and when.

use super::*;
use crate::metrics::{Average, Gauges, Metrics, ProducerMetrics, TopicMetrics};
use crate::protocol::{ProduceResponse, TopicProduceResponse};

const NOT_LEADER: ErrorCode = ErrorCode::NOT_LEADER_OR_FOLLOWER;

impl Scenario {
    fn metrics(&self) -> Metrics {
        let gauges = Gauges { queues: self.accumulator.backlog(), ..Gauges::default() };
        let now = self.now();
        self.accumulator.sensors.measure(&gauges, now)
    }

    fn figures(&self) -> ProducerMetrics {
        self.metrics().producer
    }
}

fn lingering(s: &mut Setup) {
    (s.batch_size, s.sender.linger) = (10_000, 20 * MS);
}

fn exactly(avg: f64, max: f64) -> Average {
    let mut average = Average::default();
    (average.avg, average.max) = (Some(avg), Some(max));
    average
}

/// A sixteenth more at most.
#[track_caller]
fn about(got: Option<f64>, expected: f64) {
    let got = got.expect("a figure");
    assert!((expected..=expected * 1.07).contains(&got), "{got}, not {expected}");
}

#[test]
fn a_request_counts_by_record_batch_and_phase() {
    let mut s = Scenario::new(lingering);
    s.append(0, "abc");
    s.advance(5 * MS);
    s.append(0, "abcdefgh");
    let before = s.figures();
    assert_eq!((before.queued_records, before.record_send.total), (2, 0));
    assert_eq!(before.oldest_record_age, Some(5.0));
    s.advance(15 * MS);
    let sent = s.sent_one();
    let under_way = s.figures();
    assert_eq!((under_way.queued_records, under_way.record_send.total), (0, 2));
    assert_eq!(under_way.oldest_record_age, Some(20.0), "it is not decided yet");
    assert_eq!(under_way.request_latency, Average::default());
    s.advance(40 * MS);
    s.answer(&sent, OK, 0);
    let after = s.figures();
    assert_eq!(after.oldest_record_age, None);
    // A record of 3 bytes without a key takes 7 more, and the batch's header 61.
    assert_eq!(after.record_size, exactly(12.5, 15.0));
    assert_eq!(after.batch_size, exactly(61.0 + 25.0, 86.0));
    assert_eq!(after.records_per_request, exactly(2.0, 2.0));
    assert_eq!(after.record_queue_time, exactly(20.0, 20.0));
    assert_eq!(after.request_latency, exactly(40.0, 40.0));
    about(after.queue_time_percentiles.p50, 20.0);
    about(after.in_flight_time_percentiles.p99, 40.0);
    about(after.delivery_time_percentiles.p999, 60.0);
    // 40 ms of the first sample, and the one that is taken as given.
    assert!((after.record_send.rate - 2.0 / 30.04).abs() < 1e-9, "{:?}", after.record_send);
}

/// SND-75: a topic's metrics begin with its first request.
#[test]
fn a_topics_metrics_appear_with_its_first_request() {
    let mut s = Scenario::new(|_| {});
    assert!(s.metrics().topics.is_empty());
    s.append(0, "abc");
    assert_eq!(s.metrics().topics[0].queued_records, 1, "what waits shows at once");
    let sent = s.sent_one();
    let [topic] = &s.metrics().topics[..] else { panic!("not one topic") };
    assert_eq!((&*topic.name, topic.record_send.total, topic.byte.total), ("t", 1, 71));
    s.answer(&sent, ErrorCode::INVALID_RECORD, -1);
    let [topic] = &s.metrics().topics[..] else { panic!("not one topic") };
    assert_eq!((topic.record_error.total, topic.record_retry.total), (1, 0));
    assert_eq!(s.figures().record_error.total, 1);
}

#[test]
fn a_topic_that_is_forgotten_has_no_metrics() {
    let mut s = Scenario::begun(|s| s.max_age = 60 * SECOND);
    assert_eq!(s.metrics().topics.len(), 1);
    for _ in 0..4 {
        s.advance(60 * SECOND);
        s.settle();
    }
    assert_eq!(s.metrics().topics.len(), 1);
    s.advance(61 * SECOND);
    s.settle();
    assert_eq!(s.metrics().topics, []);
}

#[test]
fn retries_are_counted_by_cause_and_errors_once() {
    let mut s = Scenario::begun(|s| s.sender.retries = 2);
    let delivery = s.append(0, "a");
    let sent = s.sent_one();
    s.answer(&sent, NOT_LEADER, -1);
    let (_, sent) = s.until_sent();
    s.cut(1);
    assert!(is_open(&delivery));
    let (_, again) = s.until_sent();
    s.answer(&again, NOT_LEADER, -1);
    assert_ne!(sent.tag, again.tag);
    assert_eq!(failure(&delivery).cause, broker_error(NOT_LEADER));
    let figures = s.figures();
    assert_eq!(figures.record_send.total, 1 + 3, "each attempt counts");
    assert_eq!((figures.record_retry.total, figures.record_error.total), (2, 1));
    let causes = [("DISCONNECTED", 1), ("NOT_LEADER_OR_FOLLOWER", 1)];
    assert_eq!(figures.retries_by_cause, causes.into());
    let topic = &s.metrics().topics[0];
    assert_eq!((topic.record_retry.total, topic.record_error.total), (2, 1));
}

/// SND-47.
#[test]
fn a_split_is_counted_and_a_loss_that_shows_too() {
    let mut s = Scenario::begun(lingering);
    s.append(0, "a");
    s.append(0, "b");
    s.advance(20 * MS);
    let sent = s.sent_one();
    s.answer(&sent, ErrorCode::MESSAGE_TOO_LARGE, -1);
    assert_eq!(s.figures().batch_split.total, 1);
    let part = s.sent_one();
    assert_eq!(s.figures().acknowledged_loss_total, 0);
    // What came before this one was acknowledged.
    s.answer(&part, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, -1);
    assert_eq!(s.figures().acknowledged_loss_total, 1);
}

/// SND-03: what responses say of throttling is averaged over all of them, and added up.
#[test]
fn throttling_is_told_by_its_mean_its_maximum_and_its_sum() {
    let mut s = Scenario::new(|_| {});
    let before = s.figures().produce_throttle_time;
    assert_eq!(before, exactly(0.0, 0.0), "those of metadata and of the producer id count too");
    for (offset, throttle_time_ms) in [(0, 250), (1, 50)] {
        s.append(0, "a");
        let sent = s.sent_one();
        let partitions = vec![verdict(OK, offset)];
        let topics = vec![TopicProduceResponse { topic: sent.batch().topic.clone(), partitions }];
        let response = ProduceResponse { topics, throttle_time_ms, node_endpoints: Vec::new() };
        s.client.0.borrow_mut().respond(&sent, &response);
        s.settle();
    }
    let figures = s.figures();
    assert_eq!(figures.throttle_time_ms_total, 300);
    let others = s.metadata_requests + s.id_requests;
    assert_eq!(figures.produce_throttle_time, exactly(300.0 / (2 + others) as f64, 250.0));
}

#[test]
fn the_oldest_record_is_no_older_than_the_oldest_that_is_not_decided() {
    let timeout = 120 * SECOND;
    let mut s = Scenario::begun(|s| s.leaders = vec![(1, 0), (1, 0)]);
    s.append(0, "old");
    s.sent_one();
    s.advance(SECOND);
    s.append(1, "young");
    s.sent_one();
    s.advance(timeout - SECOND - MS);
    s.settle();
    assert_eq!(s.figures().oldest_record_age, Some(119_999.0));
    s.advance(MS);
    s.settle();
    assert_eq!(s.figures().oldest_record_age, Some(119_000.0), "the first has expired");
    s.advance(SECOND);
    s.settle();
    assert_eq!(s.figures().oldest_record_age, None);
    assert_eq!(s.figures().record_error.total, 2);
}

#[test]
fn metadata_is_as_old_as_the_last_answer() {
    let mut s = Scenario::unconnected(|_| {});
    assert_eq!(s.figures().metadata_age, None);
    s.settle();
    s.advance(7 * SECOND);
    assert_eq!(s.figures().metadata_age, Some(7.0));
}

#[test]
fn what_a_closing_producer_gives_up_counts_as_failed() {
    let mut s = Scenario::begun(|_| {});
    s.append(0, "a");
    s.sent_one();
    s.append(0, "b");
    s.close(Duration::ZERO);
    s.settle();
    assert!(s.sender.has_ended());
    let now = s.now();
    s.sender.end(now);
    let TopicMetrics { record_error, .. } = s.metrics().topics[0];
    assert_eq!((record_error.total, s.figures().record_error.total), (2, 2));
    assert_eq!(s.figures().oldest_record_age, None);
}

/// A part is sent for the second time: its records have waited for their first request but once.
#[test]
fn the_parts_of_a_batch_have_been_queued_before() {
    let mut s = Scenario::begun(lingering);
    s.append(0, "a");
    s.append(0, "b");
    s.advance(20 * MS);
    let whole = s.sent_one();
    s.advance(500 * MS);
    s.answer(&whole, ErrorCode::MESSAGE_TOO_LARGE, -1);
    for _ in 0..2 {
        let (_, part) = s.until_sent();
        s.answer(&part, OK, 0);
    }
    let queued = s.figures().queue_time_percentiles;
    about(queued.p999, 20.0);
}

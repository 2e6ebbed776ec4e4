//! The model through whole requests and responses.

use std::time::Duration;

use crate::protocol::{
    ApiKey, ErrorCode, InitProducerIdRequest, InitProducerIdResponse, MetadataRequest,
    MetadataResponse, PartitionProduceResponse, ProduceRequestEncoder, ProduceRequestParams,
    ProduceResponse, Reader, TopicRef, decode_response_header, encode_request,
};
use crate::record::{RecordBatchBuilder, RecordData};
use crate::testing::faults::{Fault, Faults, Plan};

use super::{Broker, Model, Release, Reply, Settings, TopicConfig, parse};

const NOW_MS: i64 = 1_000_000;

/// A batch of an idempotent producer, with a record for each value.
pub(super) fn batch(id: i64, epoch: i16, sequence: i32, values: &[&str]) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new(Vec::with_capacity(1 << 20));
    for value in values {
        let value = Some(value.as_bytes());
        let record = RecordData { key: None, value, headers: &[], timestamp: NOW_MS };
        assert!(builder.try_append(&record).is_some());
    }
    builder.finish(id, epoch, sequence, false);
    builder.into_segments().flatten().collect()
}

fn cluster(releases: &[Release]) -> Model {
    cluster_with(releases, Settings::default())
}

/// Brokers with ids from 1 on, and a topic "t" of one partition that broker 1 leads.
fn cluster_with(releases: &[Release], settings: Settings) -> Model {
    let brokers = (1..).zip(releases).map(|(id, r)| (id, Broker::new(*r, "h", 9000 + id as u16)));
    let mut model = Model::new(settings, brokers.collect());
    assert!(model.create_topic("t", TopicConfig::new(1)));
    model
}

/// Sends a request and gives the response's body.
fn exchange(
    model: &mut Model,
    (broker, now_ms): (i32, i64),
    key: ApiKey,
    version: i16,
    frame: &[u8],
    mut plan: Plan,
) -> Vec<u8> {
    let parsed = parse(model, broker, &frame[4..]).expect("a supported request");
    model.throttle(broker, &parsed, frame.len(), now_ms, &mut plan);
    let Reply::Frame(answer) = model.answer(broker, &parsed, now_ms, &plan) else {
        panic!("no answer");
    };
    let mut reader = Reader::new(&answer[4..]);
    assert_eq!(decode_response_header(key, version, &mut reader), Ok(1));
    answer[answer.len() - reader.remaining()..].to_vec()
}

/// Sends records to "t", in the broker's highest version, and gives the whole answer.
fn produce_whole(
    model: &mut Model,
    (broker, now_ms): (i32, i64),
    acks: i16,
    records: &[u8],
    plan: Plan,
) -> ProduceResponse {
    let offered = model.brokers()[&broker].versions[&ApiKey::Produce];
    let version = ApiKey::Produce.supported().highest_common(offered).expect("a version");
    let topic = match model.topic("t") {
        Some(topic) if version >= 13 => TopicRef::Id(topic.id),
        _ => TopicRef::Name("t"),
    };
    let params = ProduceRequestParams {
        version,
        correlation_id: 1,
        client_id: None,
        transactional_id: None,
        acks,
        timeout_ms: 1_000,
    };
    let (mut head, mut splits) = (Vec::new(), Vec::new());
    let mut encoder = ProduceRequestEncoder::start(&params, 1, &mut head, &mut splits);
    encoder.topic(topic, 1);
    encoder.partition(0, records.len());
    encoder.finish();
    let (before, after) = head.split_at(splits[0]);
    let frame = [before, records, after].concat();
    let body = exchange(model, (broker, now_ms), ApiKey::Produce, version, &frame, plan);
    ProduceResponse::decode(&mut Reader::new(&body), version).expect("a response")
}

fn produce(model: &mut Model, broker: i32, records: &[u8]) -> PartitionProduceResponse {
    produce_planned(model, broker, records, Plan::default())
}

fn produce_planned(
    model: &mut Model,
    broker: i32,
    records: &[u8],
    plan: Plan,
) -> PartitionProduceResponse {
    let response = produce_whole(model, (broker, NOW_MS), -1, records, plan);
    response.topics[0].partitions[0].clone()
}

/// What a fault makes of a Produce request.
fn planned(fault: Fault) -> Plan {
    use crate::testing::faults::Target;
    let mut faults = Faults::default();
    faults.inject(fault);
    faults.plan(&Target { api: ApiKey::Produce, broker: 1, partitions: Vec::new() })
}

fn metadata(model: &mut Model, broker: i32, topic: &str) -> MetadataResponse {
    let offered = model.brokers()[&broker].versions[&ApiKey::Metadata];
    let version = ApiKey::Metadata.supported().highest_common(offered).expect("a version");
    let request =
        MetadataRequest { topics: Some(vec![topic.into()]), allow_auto_topic_creation: true };
    let mut frame = Vec::new();
    encode_request(ApiKey::Metadata, version, 1, None, &mut frame, |out| {
        request.encode(version, out);
    });
    let at = (broker, NOW_MS);
    let body = exchange(model, at, ApiKey::Metadata, version, &frame, Plan::default());
    MetadataResponse::decode(&mut Reader::new(&body), version).expect("a response")
}

fn code(response: &PartitionProduceResponse) -> ErrorCode {
    response.error_code
}

const LATEST: Release = Release::V4_3;

#[test]
fn an_unclean_election_loses_acknowledged_records_and_what_is_known_of_producers() {
    let mut model = cluster(&[LATEST; 3]);
    for sequence in 0..3 {
        assert_eq!(code(&produce(&mut model, 1, &batch(7, 0, sequence, &["v"]))), ErrorCode::NONE);
    }
    let partition = model.partition_mut("t", 0).unwrap();
    assert_eq!(partition.log.high_watermark(), 3);
    partition.fail_over(2, 1);
    assert_eq!((partition.leader, partition.leader_epoch), (Some(2), 1));
    assert_eq!(partition.in_sync, [2]);
    let lost: Vec<_> = partition.log.cut_records().iter().map(|record| record.sequence).collect();
    assert_eq!(lost, [1, 2]);
    let out_of_order = produce(&mut model, 2, &batch(7, 0, 3, &["v"]));
    assert_eq!(code(&out_of_order), ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    let again = produce(&mut model, 2, &batch(7, 0, 1, &["v"]));
    assert_eq!((code(&again), again.base_offset), (ErrorCode::NONE, 1));
}

#[test]
fn what_was_not_acknowledged_by_all_can_be_lost_in_a_clean_election() {
    let mut model = cluster(&[LATEST; 3]);
    produce(&mut model, 1, &batch(7, 0, 0, &["v"]));
    let late = Fault::produce().error_after(ErrorCode::REQUEST_TIMED_OUT);
    let response = produce_planned(&mut model, 1, &batch(7, 0, 1, &["v"]), planned(late));
    // As in Kafka, an error after the append tells the offset all the same.
    assert_eq!((code(&response), response.base_offset), (ErrorCode::REQUEST_TIMED_OUT, 1));
    let partition = model.partition_mut("t", 0).unwrap();
    assert_eq!((partition.log.high_watermark(), partition.log.end_offset), (1, 2));
    partition.fail_over(2, 1);
    assert_eq!(partition.in_sync, [1, 2, 3], "the election was clean");
    assert_eq!(partition.log.cut_records().len(), 1);
    let again = produce(&mut model, 2, &batch(7, 0, 1, &["v"]));
    assert_eq!((code(&again), again.base_offset), (ErrorCode::NONE, 1));
}

#[test]
fn what_is_told_to_be_a_duplicate_all_have() {
    let mut model = cluster(&[LATEST; 3]);
    let again = Fault::produce().error_after(ErrorCode::DUPLICATE_SEQUENCE_NUMBER);
    produce_planned(&mut model, 1, &batch(7, 0, 0, &["v"]), planned(again));
    // A producer takes that for an acknowledgement.
    assert_eq!(model.partition("t", 0).unwrap().log.high_watermark(), 1);
}

#[test]
fn only_who_was_last_in_sync_may_lead_again() {
    let mut model = cluster(&[LATEST; 2]);
    let leader = |model: &Model| model.partition("t", 0).unwrap().leader;
    model.broker_gone(1);
    assert_eq!(leader(&model), Some(2));
    model.broker_gone(2);
    model.broker_back(1);
    assert_eq!(leader(&model), None, "broker 1 lacks what broker 2 wrote alone");
    model.broker_back(2);
    assert_eq!(leader(&model), Some(2));
    assert_eq!(model.partition("t", 0).unwrap().in_sync, [1, 2]);
}

/// KIP-966: nothing was acknowledged without it, so it may lead.
#[test]
fn who_fell_out_of_too_few_in_sync_may_lead() {
    let mut model = cluster(&[LATEST; 2]);
    model.delete_topic("t");
    model.create_topic("t", TopicConfig::new(1).min_insync_replicas(2));
    produce(&mut model, 1, &batch(7, 0, 0, &["v"]));
    assert!(model.set_in_sync("t", 0, vec![1]));
    produce_whole(&mut model, (1, NOW_MS), 1, &batch(7, 0, 1, &["v"]), Plan::default());
    model.broker_gone(1);
    let partition = model.partition("t", 0).unwrap();
    assert_eq!((partition.leader, partition.leader_epoch), (Some(2), 1));
    assert_eq!(partition.in_sync, [2]);
    assert_eq!((partition.log.end_offset, partition.log.cut_records().len()), (1, 1));
    model.broker_back(1);
    assert_eq!(model.partition("t", 0).unwrap().in_sync, [1, 2]);
}

#[test]
fn a_leader_that_has_been_down_knows_the_last_batches_from_before_alone() {
    let mut model = cluster(&[LATEST; 2]);
    let send = |model: &mut Model, broker, sequence| {
        code(&produce(model, broker, &batch(7, 0, sequence, &["v"])))
    };
    for sequence in 0..3 {
        assert_eq!(send(&mut model, 1, sequence), ErrorCode::NONE);
    }
    model.broker_gone(2);
    assert_eq!(send(&mut model, 1, 3), ErrorCode::NONE);
    model.broker_back(2);
    model.partition_mut("t", 0).unwrap().lead_by(Some(2));
    let known = |model: &mut Model, broker| [1, 2, 3].map(|s| send(model, broker, s));
    let refused = ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER;
    assert_eq!(known(&mut model, 2), [refused, ErrorCode::NONE, ErrorCode::NONE]);
    model.partition_mut("t", 0).unwrap().lead_by(Some(1));
    assert_eq!(known(&mut model, 1), [ErrorCode::NONE; 3]);
}

#[test]
fn a_lonely_leader_that_was_down_has_its_snapshot() {
    let mut model = cluster(&[Release::V1_0]);
    for sequence in 0..3 {
        produce(&mut model, 1, &batch(7, 0, sequence, &["v"]));
    }
    model.broker_gone(1);
    model.broker_back(1);
    let again =
        |model: &mut Model, sequence| code(&produce(model, 1, &batch(7, 0, sequence, &["v"])));
    assert_eq!(again(&mut model, 1), ErrorCode::DUPLICATE_SEQUENCE_NUMBER);
    assert_eq!(again(&mut model, 2), ErrorCode::NONE);
}

#[test]
fn an_upgraded_broker_offers_and_follows_the_new_release() {
    let mut model = cluster(&[Release::V1_1]);
    let stranger = |sequence| batch(7, 0, sequence, &["v"]);
    let refused = produce(&mut model, 1, &stranger(3));
    assert_eq!(code(&refused), ErrorCode::UNKNOWN_PRODUCER_ID);
    model.upgrade(1, LATEST);
    assert_eq!(model.brokers()[&1].versions[&ApiKey::Produce].max, 13);
    assert_eq!(code(&produce(&mut model, 1, &stranger(3))), ErrorCode::NONE);
}

#[test]
fn acks_1_leaves_the_high_watermark_to_the_followers() {
    let mut model = cluster(&[LATEST; 2]);
    produce_whole(&mut model, (1, NOW_MS), 1, &batch(7, 0, 0, &["v"]), Plan::default());
    assert_eq!(model.partition("t", 0).unwrap().log.high_watermark(), 0);
    model.partition_mut("t", 0).unwrap().in_sync = vec![1];
    produce_whole(&mut model, (1, NOW_MS), 1, &batch(7, 0, 1, &["v"]), Plan::default());
    assert_eq!(model.partition("t", 0).unwrap().log.high_watermark(), 2, "the leader is alone");
}

#[test]
fn the_high_watermark_stands_still_while_too_few_are_in_sync() {
    let mut model = cluster(&[LATEST; 2]);
    model.delete_topic("t");
    model.create_topic("t", TopicConfig::new(1).min_insync_replicas(2));
    model.broker_gone(2);
    produce_whole(&mut model, (1, NOW_MS), 1, &batch(7, 0, 0, &["v"]), Plan::default());
    let log = |model: &Model| {
        let log = &model.partition("t", 0).unwrap().log;
        (log.high_watermark(), log.end_offset)
    };
    assert_eq!(log(&model), (0, 1));
    model.broker_back(2);
    produce(&mut model, 1, &batch(7, 0, 1, &["v"]));
    assert_eq!(log(&model), (2, 2));
}

#[test]
fn a_refused_batch_is_not_made_to_look_appended() {
    let mut model = cluster(&[LATEST; 2]);
    let late = Fault::produce().error_after(ErrorCode::REQUEST_TIMED_OUT);
    let response = produce_planned(&mut model, 2, &batch(7, 0, 0, &["v"]), planned(late));
    assert_eq!(code(&response), ErrorCode::NOT_LEADER_OR_FOLLOWER);
}

#[test]
fn a_refusal_names_the_leader_as_far_as_the_broker_knows() {
    let mut model = cluster(&[LATEST; 3]);
    model.hold_view(3);
    model.partition_mut("t", 0).unwrap().lead_by(Some(2));
    let plan = Plan::default();
    let records = batch(7, 0, 0, &["v"]);
    let response = produce_whole(&mut model, (1, NOW_MS), -1, &records, plan.clone());
    let leader = response.topics[0].partitions[0].current_leader.unwrap();
    assert_eq!((leader.leader_id, leader.leader_epoch), (2, 1));
    assert_eq!((response.node_endpoints[0].node_id, response.node_endpoints[0].port), (2, 9002));
    let response = produce_whole(&mut model, (3, NOW_MS), -1, &records, plan);
    let leader = response.topics[0].partitions[0].current_leader.unwrap();
    assert_eq!((leader.leader_id, leader.leader_epoch), (1, 0), "broker 3 lags behind");
    let fenced = Fault::produce().error(ErrorCode::FENCED_LEADER_EPOCH);
    let response = produce_planned(&mut model, 2, &records, planned(fenced));
    assert_eq!(response.current_leader.map(|leader| leader.leader_id), Some(2));
}

#[test]
fn a_broker_that_lags_tells_of_the_cluster_as_it_was() {
    let mut model = cluster(&[LATEST; 2]);
    model.hold_view(2);
    let old_id = model.topic("t").unwrap().id;
    assert!(model.delete_topic("t") && model.create_topic("t", TopicConfig::new(2)));
    model.partition_mut("t", 0).unwrap().lead_by(Some(2));
    let seen = |model: &mut Model, broker| {
        let topic = metadata(model, broker, "t").topics.remove(0);
        (topic.topic_id, topic.partitions.len(), topic.partitions[0].leader_id)
    };
    let new_id = model.topic("t").unwrap().id;
    assert_eq!(seen(&mut model, 1), (new_id, 2, 2));
    assert_eq!(seen(&mut model, 2), (old_id, 1, 1));
    let unknown = metadata(&mut model, 2, "new").topics.remove(0);
    assert_eq!(unknown.error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert!(model.topic("new").is_none(), "it creates nothing");
    assert!(model.release_view(2));
    assert_eq!(seen(&mut model, 2), (new_id, 2, 2));
}

/// Kafka 4.3.1 answers so where a broker, paused meanwhile, is the only one to be awake.
#[test]
fn a_broker_that_lags_refuses_what_it_has_not_heard_of() {
    for (release, by_id) in [(LATEST, true), (Release::V3_9, false)] {
        let mut model = cluster(&[release; 2]);
        let refusal = if by_id {
            model.hold_view(2);
            assert!(model.delete_topic("t"));
            ErrorCode::UNKNOWN_TOPIC_ID
        } else {
            assert!(model.delete_topic("t"));
            model.hold_view(2);
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        };
        assert!(model.create_topic("t", TopicConfig::new(2)));
        model.partition_mut("t", 0).unwrap().lead_by(Some(2));
        let records = batch(7, 0, 0, &["v"]);
        assert_eq!(code(&produce(&mut model, 2, &records)), refusal);
        assert!(!model.is_known_to(2, "t", 1), "a partition more than it has heard of");
        assert!(model.release_view(2));
        assert_eq!(code(&produce(&mut model, 2, &records)), ErrorCode::NONE);
    }
}

#[test]
fn a_deleted_topic_is_kept_for_those_who_check() {
    let mut model = cluster(&[LATEST]);
    produce(&mut model, 1, &batch(7, 0, 0, &["v"]));
    model.delete_topic("t");
    let (name, topic) = &model.deleted_topics()[0];
    assert_eq!((&**name, topic.partitions[0].log.records().len()), ("t", 1));
}

#[test]
fn producers_are_forgotten_when_brokers_look_and_not_before() {
    let settings = Settings {
        producer_id_expiration_ms: 1_000,
        producer_id_check_interval_ms: 500,
        ..Settings::default()
    };
    let mut model = cluster_with(&[LATEST], settings);
    let send = |model: &mut Model, after_ms, sequence| {
        let records = batch(7, 0, sequence, &["v"]);
        let at = (1, NOW_MS + after_ms);
        let response = produce_whole(model, at, -1, &records, Plan::default());
        response.topics[0].partitions[0].error_code
    };
    let refused = ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER;
    assert_eq!(send(&mut model, 0, 0), ErrorCode::NONE);
    assert_eq!(send(&mut model, 999, 9), refused, "looked at, and young");
    assert_eq!(send(&mut model, 1_400, 9), refused, "old, and not looked at");
    assert_eq!(send(&mut model, 1_499, 9), ErrorCode::NONE);
}

#[test]
fn a_broker_that_was_started_anew_knows_the_last_batch_alone() {
    let mut model = cluster(&[LATEST]);
    produce(&mut model, 1, &batch(7, 0, 0, &["v"]));
    produce(&mut model, 1, &batch(7, 0, 1, &["v"]));
    assert!(model.reload_producers("t", 0));
    assert!(!model.reload_producers("t", 1));
    let first = produce(&mut model, 1, &batch(7, 0, 0, &["v"]));
    assert_eq!(code(&first), ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    let second = produce(&mut model, 1, &batch(7, 0, 1, &["v"]));
    assert_eq!((code(&second), second.base_offset), (ErrorCode::NONE, 1));
}

#[test]
fn a_used_up_quota_throttles_and_wears_off() {
    let settings = Settings { producer_byte_rate: Some(1_000), ..Settings::default() };
    let mut model = cluster_with(&[LATEST, Release::V1_1], settings);
    let value = "x".repeat(12_000);
    let records = batch(-1, -1, -1, &[&value]);
    let send = |model: &mut Model, after_ms| {
        let at = (1, NOW_MS + after_ms);
        produce_whole(model, at, -1, &records, Plan::default()).throttle_time_ms
    };
    let first = send(&mut model, 0);
    assert!((2_000..3_000).contains(&first), "{first} ms");
    assert!(send(&mut model, 100) > first);
    assert_eq!(send(&mut model, 60_000), first);
}

#[test]
fn only_new_brokers_are_silent_after_a_throttled_response() {
    let mut model = cluster(&[LATEST, Release::V1_1]);
    let second = Duration::from_secs(1);
    for (broker, mute, delay) in [(1, second, Duration::ZERO), (2, Duration::ZERO, second)] {
        let mut frame = Vec::new();
        encode_request(ApiKey::ApiVersions, 0, 1, None, &mut frame, |_| {});
        let mut plan = planned(Fault::produce().throttle(second));
        let parsed = parse(&model, broker, &frame[4..]).unwrap();
        model.throttle(broker, &parsed, frame.len(), NOW_MS, &mut plan);
        assert_eq!((plan.mute, plan.delay_after), (mute, delay), "broker {broker}");
    }
}

#[test]
fn brokers_of_one_cluster_may_be_of_different_releases() {
    let mut model = cluster(&Release::ALL);
    model.partition_mut("t", 0).unwrap().in_sync = (1..=8).collect();
    for (broker, release) in (1..).zip(Release::ALL) {
        model.partition_mut("t", 0).unwrap().lead_by(Some(broker));
        let response = produce(&mut model, broker, &batch(7, broker as i16, 0, &["v"]));
        assert_eq!(code(&response), ErrorCode::NONE, "{release:?}");
        let stranger = produce(&mut model, broker, &batch(100 + i64::from(broker), 0, 3, &["v"]));
        let expected = match release {
            Release::V0_11 => ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
            Release::V1_0 | Release::V1_1 | Release::V2_0 => ErrorCode::UNKNOWN_PRODUCER_ID,
            _ => ErrorCode::NONE,
        };
        assert_eq!(code(&stranger), expected, "{release:?}");
        let mut damaged = batch(-1, -1, -1, &["v"]);
        damaged[0] = 1;
        let invalid = produce(&mut model, broker, &damaged);
        let old = release < Release::V2_8;
        let expected = if old { ErrorCode::CORRUPT_MESSAGE } else { ErrorCode::INVALID_RECORD };
        assert_eq!(code(&invalid), expected, "{release:?}");
        let created = metadata(&mut model, broker, &format!("new-{broker}"));
        let expected = if release < Release::V3_9 {
            ErrorCode::LEADER_NOT_AVAILABLE
        } else {
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        };
        assert_eq!(created.topics[0].error_code, expected, "{release:?}");
    }
}

#[test]
fn epochs_may_begin_near_their_end() {
    let settings = Settings { first_epoch: i16::MAX - 2, ..Settings::default() };
    let mut model = cluster_with(&[LATEST], settings);
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: 1,
        producer_id: -1,
        producer_epoch: -1,
    };
    let mut frame = Vec::new();
    encode_request(ApiKey::InitProducerId, 4, 1, None, &mut frame, |out| request.encode(4, out));
    let at = (1, NOW_MS);
    let body = exchange(&mut model, at, ApiKey::InitProducerId, 4, &frame, Plan::default());
    let response = InitProducerIdResponse::decode(&mut Reader::new(&body), 4).unwrap();
    assert_eq!((response.error_code, response.producer_epoch), (ErrorCode::NONE, i16::MAX - 2));
}

#[test]
fn a_batch_larger_than_a_segment_is_refused() {
    let mut model = cluster(&[LATEST]);
    model.delete_topic("t");
    model.create_topic("t", TopicConfig::new(1).segment_bytes(100));
    let response = produce(&mut model, 1, &batch(7, 0, 0, &["v"]));
    assert_eq!(code(&response), ErrorCode::NONE);
    let large = batch(7, 0, 1, &[&"v".repeat(100)]);
    let response = produce(&mut model, 1, &large);
    assert_eq!(
        (code(&response), response.log_start_offset),
        (ErrorCode::RECORD_LIST_TOO_LARGE, -1)
    );
}

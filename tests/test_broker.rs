//! The test broker's own behaviour, seen through Kafka's protocol.

mod raw;

use std::time::{Duration, Instant};

use kafka_producer::ErrorCode;
use kafka_producer::internal::protocol::{ApiKey, TopicRef};
use kafka_producer::testing::{Api, Fault, TestCluster, TopicConfig};

use raw::{Batch, Connection, PATIENCE, Produce, Record};

fn connect(cluster: &TestCluster, broker: i32) -> Connection {
    Connection::open(cluster.port(broker).unwrap())
}

#[test]
fn records_are_kept_as_they_were_sent() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let mut connection = connect(&cluster, 1);
    let mut batch = Batch::idempotent(7, 2, 41, 1);
    batch.base_timestamp = 1_000;
    batch.records.push(Record {
        timestamp_delta: -5,
        key: Some(Vec::new()),
        value: None,
        headers: vec![
            ("h".into(), Some(b"1".to_vec())),
            ("h".into(), None),
            ("".into(), Some(Vec::new())),
        ],
    });
    let verdict = connection.produce(&Produce::to("t", 0), &batch.encode()).unwrap();
    assert_eq!((verdict.error_code, verdict.base_offset), (ErrorCode::NONE, 0));

    let stored = cluster.records("t", 0);
    assert_eq!(stored.len(), 2);
    assert_eq!((stored[0].offset, stored[0].timestamp, stored[0].sequence), (0, 1_000, 41));
    assert_eq!((&stored[0].key, stored[0].value.as_deref()), (&None, Some(&b"v"[..])));
    let second = &stored[1];
    assert_eq!((second.offset, second.timestamp, second.sequence), (1, 995, 42));
    assert_eq!((second.producer_id, second.producer_epoch), (7, 2));
    assert_eq!((second.key.as_deref(), &second.value), (Some(&b""[..]), &None));
    assert_eq!(second.headers, batch.records[1].headers);
    assert_eq!(cluster.count("t"), 2);
}

#[test]
fn a_topic_is_created_when_asked_for_and_there_at_the_next_request() {
    let cluster = TestCluster::builder().brokers(3).default_topic(4).start();
    let mut connection = connect(&cluster, 2);
    let unknown = connection.metadata(Some(&["new"]), false);
    assert_eq!(unknown.topics[0].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let created = connection.metadata(Some(&["new"]), true);
    assert_eq!(created.topics[0].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let there = connection.metadata(Some(&["new"]), false);
    assert_eq!(there.topics[0].error_code, ErrorCode::NONE);
    let leaders: Vec<_> = there.topics[0].partitions.iter().map(|p| p.leader_id).collect();
    assert_eq!(leaders, [1, 2, 3, 1]);
    let ports: Vec<_> = there.brokers.iter().map(|b| b.port as u16).collect();
    assert_eq!(ports, [1, 2, 3].map(|id| cluster.port(id).unwrap()));
}

#[test]
fn a_deleted_topic_comes_back_under_another_id() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let mut connection = connect(&cluster, 1);
    let id = connection.metadata(Some(&["t"]), false).topics[0].topic_id;
    let by_id = |id| Produce { version: 13, topic: TopicRef::Id(id), ..Produce::to("", 0) };
    let batch = Batch::of(&["a"]).encode();
    assert_eq!(connection.produce(&by_id(id), &batch).unwrap().error_code, ErrorCode::NONE);
    assert!(cluster.delete_topic("t"));
    let verdict = connection.produce(&by_id(id), &batch).unwrap();
    assert_eq!(verdict.error_code, ErrorCode::UNKNOWN_TOPIC_ID);
    assert!(cluster.create_topic("t", 1));
    let next = connection.metadata(Some(&["t"]), false).topics[0].topic_id;
    assert_ne!(next, id);
    assert_eq!(connection.produce(&by_id(next), &batch).unwrap().base_offset, 0);
}

#[test]
fn a_moved_leader_is_named_by_the_old_one() {
    let cluster = TestCluster::builder().brokers(2).topic("t", 1).start();
    assert_eq!(cluster.leader("t", 0), Some((1, 0)));
    assert!(cluster.move_leader("t", 0, Some(2)));
    let verdict =
        connect(&cluster, 1).produce(&Produce::to("t", 0), &Batch::of(&["a"]).encode()).unwrap();
    assert_eq!(verdict.error_code, ErrorCode::NOT_LEADER_OR_FOLLOWER);
    let leader = verdict.current_leader.unwrap();
    assert_eq!((leader.leader_id, leader.leader_epoch), (2, 1));
    let verdict =
        connect(&cluster, 2).produce(&Produce::to("t", 0), &Batch::of(&["a"]).encode()).unwrap();
    assert_eq!(verdict.error_code, ErrorCode::NONE);
}

#[test]
fn requests_of_one_connection_are_answered_in_order() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    cluster.inject(Fault::produce().delay(Duration::from_millis(50)));
    let mut connection = connect(&cluster, 1);
    let to = Produce::to("t", 0);
    let batch = Batch::of(&["a"]).encode();
    let frames: Vec<_> = (1..=5).flat_map(|id| to.frame(id, &batch)).collect();
    connection.write(&frames);
    for id in 1..=5_i32 {
        let frame = connection.read_frame().unwrap();
        assert_eq!(frame[..4], id.to_be_bytes());
    }
    assert_eq!(cluster.count("t"), 5);
}

#[test]
fn a_stopped_broker_refuses_and_comes_back_on_its_port() {
    let cluster = TestCluster::builder().brokers(2).topic("t", 2).start();
    let port = cluster.port(1).unwrap();
    let mut connection = connect(&cluster, 1);
    connection.api_versions(3);
    cluster.stop_broker(1);
    assert_eq!(connection.read_frame(), None, "the connection is closed");
    let refused = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(cluster.leader("t", 0), Some((2, 1)));
    let metadata = connect(&cluster, 2).metadata(Some(&["t"]), false);
    assert_eq!(metadata.brokers.len(), 1);
    assert_eq!(metadata.topics[0].partitions[0].offline_replicas, [1]);

    cluster.start_broker(1).unwrap();
    assert_eq!(cluster.port(1), Some(port));
    assert_eq!(connect(&cluster, 1).metadata(None, false).brokers.len(), 2);
}

#[test]
fn the_only_replica_of_a_partition_leads_again_when_it_is_back() {
    let config = TopicConfig::new(1).replication_factor(1);
    let cluster = TestCluster::builder().brokers(2).topic("t", config).start();
    cluster.stop_broker(1);
    let partition = &connect(&cluster, 2).metadata(Some(&["t"]), false).topics[0].partitions[0];
    assert_eq!(partition.error_code, ErrorCode::LEADER_NOT_AVAILABLE);
    assert_eq!(partition.leader_id, -1);
    cluster.start_broker(1).unwrap();
    assert_eq!(cluster.leader("t", 0), Some((1, 2)));
}

#[test]
fn a_frozen_broker_answers_only_once_it_is_thawed() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let mut connection = connect(&cluster, 1);
    cluster.freeze_broker(1);
    connection.send_produce(&Produce::to("t", 0), &Batch::of(&["a"]).encode());
    let mut other = connect(&cluster, 1);
    other.send_produce(&Produce::to("t", 0), &Batch::of(&["a"]).encode());
    assert!(other.is_silent_for(Duration::from_millis(50)));
    assert_eq!(cluster.count("t"), 0);
    cluster.thaw_broker(1);
    assert!(connection.response(ApiKey::Produce, 12).is_some());
    assert!(cluster.wait_for_count("t", 2, PATIENCE));
}

#[test]
fn an_error_is_answered_before_or_after_the_append() {
    let cluster = TestCluster::builder().topic("t", 2).start();
    let code = ErrorCode::NOT_ENOUGH_REPLICAS;
    let before = cluster.inject(Fault::produce().topic("t").partition(0).error(code));
    cluster.inject(Fault::produce().partition(1).skip(1).error_after(code));
    let mut connection = connect(&cluster, 1);
    let batch = Batch::of(&["a"]).encode();
    let mut codes = |partition| {
        let to = Produce::to("t", partition);
        [(); 3].map(|()| connection.produce(&to, &batch).unwrap().error_code)
    };
    assert_eq!(codes(0), [code, ErrorCode::NONE, ErrorCode::NONE]);
    assert_eq!(codes(1), [ErrorCode::NONE, code, ErrorCode::NONE]);
    assert_eq!(cluster.fired(before), 1);
    let count = |partition| cluster.records("t", partition).len();
    assert_eq!([count(0), count(1)], [2, 3]);
}

#[test]
fn a_connection_is_dropped_before_or_after_the_append() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let batch = Batch::of(&["a"]).encode();
    cluster.inject(Fault::produce().disconnect());
    assert_eq!(connect(&cluster, 1).produce(&Produce::to("t", 0), &batch), None);
    assert_eq!(cluster.count("t"), 0);
    cluster.inject(Fault::produce().disconnect_after());
    assert_eq!(connect(&cluster, 1).produce(&Produce::to("t", 0), &batch), None);
    assert_eq!(cluster.count("t"), 1);
    assert_eq!(cluster.counters().connections(), 2);
}

#[test]
fn a_silenced_connection_answers_nothing_more() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let fault = cluster.inject(Fault::produce().silence_after());
    let mut connection = connect(&cluster, 1);
    connection.send_produce(&Produce::to("t", 0), &Batch::of(&["a"]).encode());
    assert!(cluster.wait_for_fault(fault, 1, PATIENCE));
    connection.send_produce(&Produce::to("t", 0), &Batch::of(&["b"]).encode());
    assert!(connection.is_silent_for(Duration::from_millis(50)));
    assert!(cluster.wait_for_count("t", 1, PATIENCE));
    assert_eq!(cluster.counters().requests(Api::Produce), 1);
}

#[test]
fn throttling_is_told_and_carried_out() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let time = Duration::from_millis(200);
    cluster.inject(Fault::metadata().throttle(time));
    let mut connection = connect(&cluster, 1);
    let start = Instant::now();
    assert_eq!(connection.metadata(None, false).throttle_time_ms, 200);
    assert_eq!(connection.metadata(None, false).throttle_time_ms, 0);
    assert!(start.elapsed() >= time);
}

#[test]
fn responses_can_be_spoilt() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let to = Produce::to("t", 0);
    let batch = Batch::of(&["a"]).encode();

    cluster.inject(Fault::produce().garbage());
    let mut connection = connect(&cluster, 1);
    connection.send_produce(&to, &batch);
    let frame = connection.read_frame().unwrap();
    assert_eq!(frame[..4], 1_i32.to_be_bytes());
    assert!(frame[4..].iter().all(|byte| *byte == 0xff));

    cluster.inject(Fault::produce().truncate(10));
    let mut connection = connect(&cluster, 1);
    connection.send_produce(&to, &batch);
    assert_eq!(connection.read_frame(), None);

    cluster.inject(Fault::produce().oversize());
    let mut connection = connect(&cluster, 1);
    connection.send_produce(&to, &batch);
    let mut length = [0; 4];
    connection.read_exact(&mut length);
    assert_eq!(i32::from_be_bytes(length), i32::MAX);
}

#[test]
fn metadata_and_producer_ids_can_be_refused() {
    let cluster = TestCluster::builder().topic("a", 1).topic("b", 1).start();
    let mut connection = connect(&cluster, 1);
    let code = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
    cluster.inject(Fault::metadata().topic("b").error(code));
    let topics = connection.metadata(Some(&["a", "b"]), false).topics;
    assert_eq!([topics[0].error_code, topics[1].error_code], [ErrorCode::NONE, code]);

    let code = ErrorCode::CLUSTER_AUTHORIZATION_FAILED;
    cluster.inject(Fault::init_producer_id().error(code));
    assert_eq!(connection.init_producer_id(-1, -1).error_code, code);
    let first = connection.init_producer_id(-1, -1);
    let second = connection.init_producer_id(-1, -1);
    assert_eq!((first.error_code, first.producer_epoch), (ErrorCode::NONE, 0));
    assert_ne!(first.producer_id, second.producer_id);
}

#[test]
fn an_older_broker_closes_on_what_it_does_not_offer() {
    let cluster = TestCluster::builder().topic("t", 1).max_version(Api::Produce, 11).start();
    let mut connection = connect(&cluster, 1);
    let offered = connection.api_versions(3).versions(ApiKey::Produce).unwrap();
    assert_eq!((offered.min, offered.max), (0, 11));
    let batch = Batch::of(&["a"]).encode();
    let to = |version| Produce { version, ..Produce::to("t", 0) };
    assert_eq!(connection.produce(&to(11), &batch).unwrap().error_code, ErrorCode::NONE);
    assert_eq!(connection.produce(&to(12), &batch), None);
}

#[test]
fn without_acknowledgement_only_an_error_is_noticed() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let mut connection = connect(&cluster, 1);
    let to = |partition| Produce { acks: 0, ..Produce::to("t", partition) };
    connection.send_produce(&to(0), &Batch::of(&["a"]).encode());
    // The next response is to the next request.
    connection.metadata(None, false);
    assert_eq!(cluster.count("t"), 1);
    assert_eq!(connection.produce(&to(1), &Batch::of(&["a"]).encode()), None);
}

#[test]
fn a_discarding_cluster_counts_and_keeps_nothing() {
    let cluster = TestCluster::builder().topic("t", 1).discard(true).start();
    let mut connection = connect(&cluster, 1);
    let to = Produce::to("t", 0);
    assert_eq!(connection.produce(&to, &Batch::of(&["a", "b"]).encode()).unwrap().base_offset, 0);
    assert_eq!(connection.produce(&to, &Batch::of(&["c"]).encode()).unwrap().base_offset, 2);
    let corrupt = Batch { crc_error: 1, ..Batch::of(&["d"]) };
    let verdict = connection.produce(&to, &corrupt.encode()).unwrap();
    assert_eq!(verdict.error_code, ErrorCode::CORRUPT_MESSAGE);
    assert_eq!(cluster.count("t"), 3);
    assert!(cluster.records("t", 0).is_empty());
}

#[test]
fn topics_grow_and_logs_shrink() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    assert!(cluster.add_partitions("t", 3));
    let mut connection = connect(&cluster, 1);
    assert_eq!(connection.metadata(Some(&["t"]), false).topics[0].partitions.len(), 3);
    let to = Produce::to("t", 2);
    connection.produce(&to, &Batch::of(&["a", "b", "c"]).encode());
    cluster.delete_records("t", 2, 2);
    assert_eq!(cluster.count("t"), 1);
    assert_eq!(cluster.records("t", 2)[0].offset, 2);
    let verdict = connection.produce(&to, &Batch::of(&["d"]).encode()).unwrap();
    assert_eq!((verdict.base_offset, verdict.log_start_offset), (3, 2));
}

#[test]
fn log_append_time_replaces_the_records_own() {
    let config = TopicConfig::new(1).log_append_time();
    let cluster = TestCluster::builder().topic("t", config).start();
    let mut batch = Batch::of(&["a"]);
    let sent_at = batch.base_timestamp;
    batch.base_timestamp = 5;
    let verdict = connect(&cluster, 1).produce(&Produce::to("t", 0), &batch.encode()).unwrap();
    assert!(verdict.log_append_time_ms >= sent_at);
    assert_eq!(cluster.records("t", 0)[0].timestamp, verdict.log_append_time_ms);
}

#[test]
fn dropping_the_cluster_ends_every_connection() {
    let cluster = TestCluster::builder().brokers(2).topic("t", 1).start();
    cluster.inject(Fault::any().broker(1).always().delay(Duration::from_secs(3600)));
    let mut delayed = connect(&cluster, 1);
    delayed.send_produce(&Produce::to("t", 0), &Batch::of(&["a"]).encode());
    let mut idle = connect(&cluster, 2);
    idle.api_versions(0);
    assert!(cluster.wait_for_requests(Api::Produce, 1, PATIENCE));
    drop(cluster);
    assert_eq!(delayed.read_frame(), None);
    assert_eq!(idle.read_frame(), None);
}

#[test]
fn topics_that_cannot_be_are_told_why() {
    let two = TestCluster::builder().topic("a", 1).topic("a", 2).try_start();
    assert!(two.err().unwrap().to_string().contains("two topics \"a\""));
    let odd = TestCluster::builder().topic("a b", 1).try_start().err().unwrap().to_string();
    assert!(odd.contains("\"a b\"") && odd.contains("allowed"), "{odd}");
}

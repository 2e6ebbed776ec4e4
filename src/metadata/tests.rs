//! The sender's side of the metadata, driven by responses made by hand.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::ProducerConfig;
use crate::error::Error;
use crate::protocol::{
    ErrorCode, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic, NodeEndpoint,
};
use crate::random::Random;
use crate::time::MonoTime;
use crate::types::{NodeId, Uuid};

const LATEST: i16 = 13;
const ID: Uuid = Uuid([1; 16]);
const OTHER_ID: Uuid = Uuid([2; 16]);

/// The metadata with a clock, and no jitter.
struct Rig {
    metadata: Metadata,
    now: MonoTime,
}

impl Rig {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(entries: &[(&str, &str)]) -> Self {
        Self::with_random(entries, Random::steady())
    }

    fn with_random(entries: &[(&str, &str)], random: Random) -> Self {
        let servers = [("bootstrap.servers", "a:1,b:2")];
        let config = ProducerConfig::from_properties(servers.iter().chain(entries).copied());
        let settings = MetadataSettings::from(&config.unwrap());
        let metadata = Metadata::new(settings, random);
        Self { metadata, now: MonoTime::ZERO + Duration::from_secs(1) }
    }

    /// With these topics known, of one partition each, led by broker 1 in epoch 5.
    fn knowing(names: &[&str]) -> Self {
        let mut rig = Self::new();
        rig.add(names);
        rig.answer(names.iter().map(|name| topic(name, &[(1, 5)])).collect());
        rig.pass_ms(10_000);
        rig
    }

    fn add(&mut self, names: &[&str]) {
        for name in names {
            self.metadata.cell().add_topic(name);
        }
    }

    fn pass_ms(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
    }

    fn due_ms(&mut self) -> u128 {
        self.metadata.due(self.now).as_millis()
    }

    /// The names that the next request asks for.
    fn request(&mut self) -> Vec<Arc<str>> {
        self.metadata.due(self.now);
        let request = self.metadata.next_request(self.now);
        assert!(request.allow_auto_topic_creation);
        request.topics.unwrap()
    }

    fn respond(&mut self, response: &MetadataResponse, version: i16) -> Update {
        self.metadata.handle_response(response, version, self.now, &|_| false)
    }

    /// Asks, and has the latest version answered with these topics.
    fn answer(&mut self, topics: Vec<MetadataResponseTopic>) {
        self.request();
        assert_eq!(self.respond(&response(topics), LATEST), Update::Applied);
    }

    fn fail(&mut self) {
        self.metadata.handle_failure(self.now);
    }

    fn leader(&self, name: &str, partition: i32) -> Option<(i32, i32)> {
        let cluster = self.metadata.cell().cluster();
        let known = cluster.topic(name)?.partition(partition)?;
        Some((known.leader?.0, known.leader_epoch))
    }

    fn knows(&self, name: &str) -> bool {
        self.metadata.cell().cluster().topic(name).is_some()
    }

    fn change(&mut self, partition: i32, leader: i32, leader_epoch: i32) -> usize {
        let leader = NodeId(leader);
        let change = LeaderChange { topic: "t", partition, leader, leader_epoch };
        self.metadata.update_leaders(&[change], &[]).len()
    }
}

fn response(topics: Vec<MetadataResponseTopic>) -> MetadataResponse {
    MetadataResponse {
        throttle_time_ms: 0,
        brokers: vec![broker(1, 9092), broker(2, 9092)],
        cluster_id: Some("cluster".into()),
        controller_id: 2,
        topics,
        error_code: ErrorCode::NONE,
    }
}

fn broker(node_id: i32, port: i32) -> MetadataResponseBroker {
    MetadataResponseBroker { node_id, host: "h".into(), port, rack: None }
}

/// A topic with the leader and epoch of each partition.
fn topic(name: &str, leaders: &[(i32, i32)]) -> MetadataResponseTopic {
    let partition = |(partition_index, &(leader_id, leader_epoch))| MetadataResponsePartition {
        error_code: ErrorCode::NONE,
        partition_index,
        leader_id,
        leader_epoch,
        replica_nodes: vec![1, 2],
        isr_nodes: vec![1],
        offline_replicas: vec![],
    };
    MetadataResponseTopic {
        error_code: ErrorCode::NONE,
        name: Some(name.into()),
        topic_id: ID,
        is_internal: false,
        partitions: (0..).zip(leaders).map(partition).collect(),
    }
}

fn of_id(topic_id: Uuid, topic: MetadataResponseTopic) -> MetadataResponseTopic {
    MetadataResponseTopic { topic_id, ..topic }
}

fn failed(name: &str, error_code: ErrorCode) -> MetadataResponseTopic {
    MetadataResponseTopic { error_code, ..topic(name, &[]) }
}

fn names(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().map(|n| Arc::from(*n)).collect()
}

/// MD-07.
#[test]
fn after_bootstrap_an_update_is_due_at_once() {
    let mut rig = Rig::new();
    let cluster = rig.metadata.cell().cluster();
    assert!(cluster.bootstrap && cluster.nodes.contains_key(&NodeId(-2)));
    assert_eq!(rig.due_ms(), 0);
    assert_eq!(rig.request(), names(&[]));
    assert_eq!(rig.metadata.due(rig.now), Duration::MAX);
}

/// MD-01.
#[test]
fn a_new_topic_is_asked_for_at_once_and_a_known_one_is_not() {
    let mut rig = Rig::knowing(&["t"]);
    rig.answer(vec![topic("t", &[(1, 5)])]);
    rig.add(&["t"]);
    assert_eq!(rig.due_ms(), 300_000);
    rig.add(&["u"]);
    assert_eq!(rig.due_ms(), 0);
}

/// MD-02.
#[test]
fn a_requested_update_waits_for_the_backoff() {
    let mut rig = Rig::knowing(&["t"]);
    rig.answer(vec![topic("t", &[(1, 6)])]);
    assert!(rig.metadata.cell().request_update());
    assert_eq!(rig.due_ms(), 100);
    rig.pass_ms(100);
    assert_eq!(rig.due_ms(), 0);
}

/// MD-04.
#[test]
fn a_failed_update_is_tried_again_after_the_backoff_whatever_is_requested() {
    let mut rig = Rig::knowing(&["t"]);
    rig.metadata.request_update();
    rig.request();
    rig.fail();
    rig.metadata.request_update();
    assert_eq!(rig.due_ms(), 100);
    rig.pass_ms(100);
    assert_eq!(rig.request(), names(&["t"]));
    rig.fail();
    assert_eq!(rig.due_ms(), 200);
}

/// MD-06.
#[test]
fn answers_without_news_grow_the_backoff() {
    let mut rig = Rig::knowing(&["t"]);
    for backoff in [100, 200, 400] {
        rig.metadata.request_update();
        rig.answer(vec![topic("t", &[(1, 5)])]);
        rig.metadata.request_update();
        assert_eq!(rig.due_ms(), backoff);
        rig.pass_ms(1000);
    }
    rig.answer(vec![topic("t", &[(2, 6)])]);
    rig.metadata.request_update();
    assert_eq!(rig.due_ms(), 100);
}

/// MD-15, MD-16.
#[test]
fn new_topics_are_asked_for_alone_until_they_are_named() {
    let mut rig = Rig::knowing(&["t"]);
    rig.add(&["u", "v"]);
    assert_eq!(rig.request(), names(&["u", "v"]));
    rig.add(&["w"]);
    rig.respond(&response(vec![topic("u", &[(1, 0)])]), LATEST);
    assert!(rig.knows("t") && rig.knows("u"));
    assert_eq!(rig.request(), names(&["v", "w"]));
}

/// MD-16.
#[test]
fn a_missing_topic_that_was_named_before_is_asked_for_with_all_others() {
    let mut rig = Rig::knowing(&["t"]);
    rig.add(&["u"]);
    rig.answer(vec![failed("u", ErrorCode::TOPIC_AUTHORIZATION_FAILED)]);
    rig.pass_ms(10_000);
    assert!(rig.metadata.cell().try_topic("u", None).unwrap_err().wake);
    assert_eq!(rig.request(), names(&["t", "u"]));
}

/// MD-17.
#[test]
fn all_topics_are_asked_for_if_that_is_wanted_or_the_metadata_is_old() {
    let mut rig = Rig::knowing(&["t"]);
    rig.add(&["u"]);
    rig.metadata.request_update();
    assert_eq!(rig.request(), names(&["t", "u"]));

    let mut rig = Rig::knowing(&["t"]);
    rig.metadata.touch(&"t".into(), rig.now + Duration::from_secs(300));
    rig.pass_ms(300_000);
    rig.add(&["u"]);
    assert_eq!(rig.request(), names(&["t", "u"]));
}

/// MD-16, MD-18.
#[test]
fn an_update_requested_while_one_is_in_flight_stays_wanted() {
    let mut rig = Rig::knowing(&["t"]);
    rig.metadata.request_update();
    rig.request();
    rig.metadata.request_update();
    rig.respond(&response(vec![topic("t", &[(1, 6)])]), LATEST);
    assert_eq!(rig.due_ms(), 100);

    // One of new topics alone is no answer to it either.
    let mut rig = Rig::knowing(&["t"]);
    rig.add(&["u"]);
    assert_eq!(rig.request(), names(&["u"]));
    rig.metadata.request_update();
    rig.respond(&response(vec![topic("u", &[(1, 0)])]), LATEST);
    rig.pass_ms(1000);
    assert_eq!(rig.request(), names(&["t", "u"]));
}

#[test]
fn a_failed_full_update_stays_wanted() {
    let mut rig = Rig::knowing(&["t"]);
    rig.metadata.request_update();
    rig.request();
    rig.fail();
    rig.pass_ms(1000);
    assert_eq!(rig.due_ms(), 0);
    assert_eq!(rig.request(), names(&["t"]));
}

/// MD-19.
#[test]
fn epochs_of_brokers_before_version_9_do_not_count() {
    let mut rig = Rig::knowing(&["t"]);
    rig.request();
    rig.respond(&response(vec![topic("t", &[(2, 3)])]), 8);
    assert_eq!(rig.leader("t", 0), Some((2, -1)));
}

/// MD-20.
#[test]
fn a_leader_of_an_older_epoch_is_not_taken_back() {
    let mut rig = Rig::knowing(&["t"]);
    rig.answer(vec![topic("t", &[(2, 4)])]);
    assert_eq!(rig.leader("t", 0), Some((1, 5)));
    rig.answer(vec![topic("t", &[(2, 5)])]);
    assert_eq!(rig.leader("t", 0), Some((2, 5)));
    rig.answer(vec![topic("t", &[(1, 6)])]);
    assert_eq!(rig.leader("t", 0), Some((1, 6)));
}

/// MD-21.
#[test]
fn the_epoch_of_a_topic_is_remembered_while_it_is_missing() {
    let mut rig = Rig::knowing(&["t"]);
    rig.answer(vec![failed("t", ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)]);
    assert!(!rig.knows("t"));
    rig.answer(vec![topic("t", &[(2, 4)])]);
    assert!(rig.knows("t"));
    assert_eq!(rig.leader("t", 0), None);
    rig.answer(vec![topic("t", &[(2, 6)])]);
    assert_eq!(rig.leader("t", 0), Some((2, 6)));
}

/// MD-22.
#[test]
fn a_topic_of_another_id_begins_its_epochs_anew() {
    let mut rig = Rig::knowing(&["t"]);
    rig.answer(vec![of_id(OTHER_ID, topic("t", &[(2, 0)]))]);
    assert_eq!(rig.leader("t", 0), Some((2, 0)));
    assert_eq!(rig.metadata.cluster().topic("t").unwrap().id, OTHER_ID);
}

/// MD-23.
#[test]
fn a_first_id_overrides_the_epochs_seen_before() {
    let mut rig = Rig::new();
    rig.add(&["t"]);
    rig.answer(vec![of_id(Uuid::ZERO, topic("t", &[(1, 5)]))]);
    rig.answer(vec![topic("t", &[(2, 3)])]);
    assert_eq!(rig.leader("t", 0), Some((2, 3)));
}

/// MD-32.
#[test]
fn an_id_that_brokers_no_longer_send_becomes_zero() {
    let mut rig = Rig::knowing(&["t"]);
    rig.answer(vec![of_id(Uuid::ZERO, topic("t", &[(1, 5)]))]);
    assert_eq!(rig.metadata.cluster().topic("t").unwrap().id, Uuid::ZERO);
}

/// MD-25.
#[test]
fn partitions_without_epochs_work() {
    let mut rig = Rig::new();
    rig.add(&["t"]);
    for leader in [1, 2] {
        rig.answer(vec![topic("t", &[(leader, -1), (-1, -1)])]);
        assert_eq!(rig.leader("t", 0), Some((leader, -1)));
        assert_eq!(rig.leader("t", 1), None);
    }
}

/// MD-26.
#[test]
fn the_snapshot_shows_what_the_brokers_said() {
    let mut rig = Rig::new();
    rig.add(&["t", "bad"]);
    let internal = MetadataResponseTopic { is_internal: true, ..topic("t", &[(1, 0), (7, 0)]) };
    let foreign = topic("foreign", &[(1, 0)]);
    rig.answer(vec![internal, foreign, failed("bad", ErrorCode::INVALID_TOPIC_EXCEPTION)]);

    let cluster = rig.metadata.cell().cluster();
    assert!(!cluster.bootstrap);
    assert_eq!(cluster.nodes.keys().copied().collect::<Vec<_>>(), [NodeId(1), NodeId(2)]);
    assert_eq!(cluster.cluster_id.as_deref(), Some("cluster"));
    assert_eq!(cluster.controller, Some(NodeId(2)));
    assert_eq!(cluster.topics.len(), 1);
    let known = cluster.topic("t").unwrap();
    assert!(known.internal);
    assert_eq!((known.partition_count(), &known.available[..]), (2, &[0][..]));
}

/// MD-29.
#[test]
fn a_broker_that_nobody_can_connect_to_is_no_leader() {
    let mut rig = Rig::new();
    rig.add(&["t"]);
    rig.request();
    let mut response = response(vec![topic("t", &[(1, 0), (3, 0)])]);
    response.brokers.push(broker(3, 0));
    assert_eq!(rig.respond(&response, LATEST), Update::Applied);
    assert_eq!(rig.leader("t", 0), Some((1, 0)));
    assert_eq!(rig.leader("t", 1), None);
}

/// MD-31.
#[test]
fn a_partial_update_keeps_other_topics_on_the_new_nodes() {
    let mut rig = Rig::knowing(&["t", "u"]);
    rig.answer(vec![topic("t", &[(1, 5)]), topic("u", &[(2, 5)])]);
    rig.add(&["v"]);
    rig.request();
    let mut response = response(vec![topic("v", &[(2, 0)])]);
    response.brokers.remove(0);
    response.cluster_id = None;
    rig.respond(&response, LATEST);
    assert!(rig.knows("t"));
    assert_eq!(rig.leader("t", 0), None);
    assert_eq!(rig.leader("u", 0), Some((2, 5)));
    assert_eq!(rig.leader("v", 0), Some((2, 0)));
    assert_eq!(rig.metadata.cluster().cluster_id, None);
}

/// MD-31.
#[test]
fn a_full_update_drops_topics_that_it_does_not_name() {
    let mut rig = Rig::knowing(&["t", "u"]);
    rig.metadata.request_update();
    rig.answer(vec![topic("u", &[(1, 5)])]);
    assert!(!rig.knows("t") && rig.knows("u"));
}

#[test]
fn errors_that_pass_call_for_another_update_and_others_do_not() {
    for (code, again) in [
        (ErrorCode::LEADER_NOT_AVAILABLE, true),
        (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, true),
        (ErrorCode::TOPIC_AUTHORIZATION_FAILED, false),
        (ErrorCode::INVALID_TOPIC_EXCEPTION, false),
    ] {
        let mut rig = Rig::knowing(&["t"]);
        rig.add(&["u"]);
        rig.answer(vec![failed("u", code)]);
        rig.pass_ms(5_000);
        assert_eq!(rig.due_ms() == 0, again, "topic: {code}");

        let mut rig = Rig::knowing(&["t"]);
        let mut broken = topic("t", &[(-1, 6)]);
        broken.partitions[0].error_code = code;
        rig.answer(vec![broken]);
        rig.pass_ms(5_000);
        assert_eq!(rig.due_ms() == 0, again, "partition: {code}");
    }
}

#[test]
fn a_topic_without_partitions_is_asked_for_again() {
    let mut rig = Rig::new();
    rig.add(&["t"]);
    rig.answer(vec![topic("t", &[])]);
    assert!(!rig.knows("t"));
    assert_eq!(rig.due_ms(), 100);
}

/// MD-24, MD-33.
#[test]
fn a_produce_response_moves_one_partition_to_a_newer_leader() {
    let mut rig = Rig::new();
    rig.add(&["t", "u"]);
    rig.answer(vec![topic("t", &[(1, 5), (1, 5)]), topic("u", &[(1, 5)])]);
    let before = rig.metadata.cell().cluster();
    let host = "new".into();
    let endpoint = NodeEndpoint { node_id: 3, host, port: 9093, rack: None };
    let leader = NodeId(3);
    let change = LeaderChange { topic: "t", partition: 1, leader, leader_epoch: 6 };
    let changed = rig.metadata.update_leaders(&[change], &[endpoint]);
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0].to_string(), "t-1");
    assert_eq!(rig.leader("t", 1), Some((3, 6)));
    assert_eq!(rig.leader("t", 0), Some((1, 5)));
    let after = rig.metadata.cell().cluster();
    assert_eq!(after.nodes[&NodeId(3)].host, "new".into());
    assert!(Arc::ptr_eq(&before.topics["u"], &after.topics["u"]));
    // A metadata response that is older than this can't take it back, not even one whose broker
    // does not know of the new leader at all.
    let mut old = response(vec![topic("t", &[(1, 5), (1, 5)])]);
    old.brokers.push(broker(3, 9093));
    rig.request();
    assert_eq!(rig.respond(&old, LATEST), Update::Applied);
    assert_eq!(rig.leader("t", 1), Some((3, 6)));
    rig.answer(vec![topic("t", &[(1, 5), (1, 5)])]);
    assert_eq!(rig.leader("t", 1), None);
    // One that has caught up tells who leads.
    rig.answer(vec![topic("t", &[(1, 5), (2, 6)])]);
    assert_eq!(rig.leader("t", 1), Some((2, 6)));
}

/// MD-25.
#[test]
fn a_leader_that_is_not_newer_or_not_known_is_ignored() {
    let mut rig = Rig::knowing(&["t"]);
    let before = rig.metadata.cell().version();
    assert_eq!(rig.change(0, 2, 5), 0, "the same epoch");
    assert_eq!(rig.change(0, 2, -1), 0, "no epoch");
    assert_eq!(rig.change(0, 9, 6), 0, "an unknown node");
    assert_eq!(rig.change(0, -1, 6), 0, "no leader");
    assert_eq!(rig.change(1, 2, 6), 0, "an unknown partition");
    assert_eq!(rig.change(-1, 2, 6), 0, "no partition");
    assert_eq!(rig.metadata.cell().version(), before);
    assert_eq!(rig.change(0, 2, 6), 1);
    assert_eq!(rig.leader("t", 0), Some((2, 6)));
}

/// MD-13.
#[test]
fn an_idle_topic_is_dropped_at_the_next_update_and_use_renews_it() {
    let mut rig = Rig::knowing(&["idle", "used"]);
    rig.pass_ms(200_000);
    rig.metadata.touch(&"used".into(), rig.now);
    rig.pass_ms(100_000);
    assert_eq!(rig.request(), names(&["idle", "used"]));
    rig.respond(&response(vec![topic("idle", &[(1, 5)]), topic("used", &[(1, 5)])]), LATEST);
    assert!(!rig.knows("idle") && rig.knows("used"));
    rig.metadata.request_update();
    assert_eq!(rig.request(), names(&["used"]));
    assert!(rig.metadata.cell().add_topic("idle"));
}

#[test]
fn an_idle_topic_with_records_pending_stays() {
    let mut rig = Rig::knowing(&["t", "u"]);
    rig.pass_ms(300_000);
    rig.request();
    let response = response(vec![topic("t", &[(1, 5)]), topic("u", &[(1, 5)])]);
    let pending = |name: &str| name == "t";
    rig.metadata.handle_response(&response, LATEST, rig.now, &pending);
    assert!(rig.knows("t") && !rig.knows("u"));
}

/// MD-14.
#[test]
fn a_topic_that_was_never_named_does_not_expire() {
    let mut rig = Rig::new();
    rig.add(&["t"]);
    rig.request();
    rig.pass_ms(1_000_000);
    rig.respond(&response(vec![]), LATEST);
    assert_eq!(rig.request(), names(&["t"]));
}

#[test]
fn an_answer_of_no_use_counts_as_a_failure_and_changes_nothing() {
    let mut nobody = response(vec![]);
    nobody.brokers.clear();
    let mut error = response(vec![topic("t", &[(2, 9)])]);
    error.error_code = ErrorCode::UNKNOWN_SERVER_ERROR;
    let mut nonsense = response(vec![topic("t", &[(2, 9)])]);
    nonsense.topics[0].partitions[0].partition_index = -1;
    let mut vast = nonsense.clone();
    vast.topics[0].partitions[0].partition_index = i32::MAX;
    let mut twice = response(vec![topic("t", &[(2, 9)]), topic("t", &[(1, 9)])]);
    twice.topics[0].error_code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
    let mut twice_a_partition = response(vec![topic("t", &[(2, 9), (2, 8)])]);
    twice_a_partition.topics[0].partitions[1].partition_index = 0;
    for useless in [nobody, error, nonsense, vast, twice, twice_a_partition] {
        let mut rig = Rig::knowing(&["t"]);
        let before = rig.metadata.cell().version();
        rig.metadata.request_update();
        rig.request();
        assert!(matches!(rig.respond(&useless, LATEST), Update::Refused(_)));
        assert_eq!(rig.metadata.cell().version(), before);
        assert_eq!(rig.due_ms(), 100);
        rig.pass_ms(100);
        assert_eq!(rig.request(), names(&["t"]));
    }
}

#[test]
fn a_cluster_can_send_the_client_back_to_the_bootstrap_servers() {
    let mut required = response(vec![]);
    required.error_code = ErrorCode::REBOOTSTRAP_REQUIRED;
    let mut rig = Rig::knowing(&["t"]);
    rig.request();
    assert_eq!(rig.respond(&required, LATEST), Update::Rebootstrap);
    assert!(rig.metadata.cluster().bootstrap);
    assert_eq!(rig.due_ms(), 100);
    // Bootstrap servers that say so too are no way out: no endless round of reconnecting.
    rig.request();
    assert!(matches!(rig.respond(&required, LATEST), Update::Refused(_)));

    let mut rig = Rig::with(&[("metadata.recovery.strategy", "none")]);
    rig.answer(vec![]);
    rig.request();
    assert!(matches!(rig.respond(&required, LATEST), Update::Refused(_)));
}

#[test]
fn a_rebootstrap_keeps_topics_and_forgets_leaders() {
    let mut rig = Rig::new();
    rig.add(&["t"]);
    // Without an id that would tell the clusters' topics apart.
    rig.answer(vec![of_id(Uuid::ZERO, topic("t", &[(1, 5)]))]);
    rig.pass_ms(10_000);
    assert!(rig.metadata.rebootstrap(rig.now));
    let cluster = rig.metadata.cell().cluster();
    assert_eq!(cluster.nodes.len(), 2);
    assert!(cluster.nodes.keys().all(|id| id.0 < 0));
    assert_eq!(cluster.topic("t").unwrap().partition_count(), 1);
    assert_eq!(rig.leader("t", 0), None);
    assert_eq!(rig.due_ms(), 0);
    assert_eq!(rig.request(), names(&["t"]));
    // Perhaps another cluster, in which the topic is young.
    rig.respond(&response(vec![of_id(Uuid::ZERO, topic("t", &[(2, 0)]))]), LATEST);
    assert_eq!(rig.leader("t", 0), Some((2, 0)));
    rig.metadata.on_broker_reached();
    assert!(rig.metadata.rebootstrap(rig.now));
    rig.pass_ms(10_000);
    assert!(!rig.metadata.rebootstrap(rig.now), "there is nothing to go back to");
}

#[test]
fn bootstrap_servers_whose_brokers_are_never_reached_are_gone_back_to_ever_more_rarely() {
    let mut rig = Rig::new();
    let mut waits = Vec::new();
    for _ in 0..6 {
        rig.answer(vec![]);
        let mut waited = 0;
        while !rig.metadata.rebootstrap(rig.now) {
            rig.pass_ms(1);
            waited += 1;
        }
        waits.push(waited);
        rig.pass_ms(1);
    }
    assert_eq!(waits[0], 0);
    assert!(waits[1..].is_sorted() && waits[4..].iter().all(|ms| *ms > 500), "{waits:?}");
    rig.answer(vec![]);
    rig.metadata.on_broker_reached();
    assert!(rig.metadata.rebootstrap(rig.now), "after that it is as at first");
}

#[test]
fn clients_that_lost_their_brokers_together_do_not_go_back_together() {
    let wait = |seed| {
        let mut rig = Rig::with_random(&[], Random::new(seed));
        rig.answer(vec![]);
        assert!(rig.metadata.rebootstrap(rig.now));
        rig.answer(vec![]);
        let mut waited = 0;
        while !rig.metadata.rebootstrap(rig.now) {
            rig.pass_ms(1);
            waited += 1;
        }
        waited
    };
    let waits: Vec<u32> = (0..10).map(wait).collect();
    assert!(waits.iter().all(|ms| (80..=120).contains(ms)), "{waits:?}");
    assert!(waits.iter().any(|ms| *ms != waits[0]), "{waits:?}");
}

#[test]
fn a_rebootstrap_is_due_when_no_update_succeeds_for_long() {
    let trigger = ("metadata.recovery.rebootstrap.trigger.ms", "5000");
    let mut rig = Rig::with(&[trigger]);
    rig.answer(vec![]);
    rig.pass_ms(10_000);
    assert!(!rig.metadata.rebootstrap_due(rig.now), "nothing was wanted");
    rig.metadata.request_update();
    rig.request();
    rig.pass_ms(3000);
    rig.fail();
    rig.pass_ms(1999);
    assert!(!rig.metadata.rebootstrap_due(rig.now));
    rig.pass_ms(1);
    assert!(rig.metadata.rebootstrap_due(rig.now));
    assert!(rig.metadata.rebootstrap(rig.now));
    assert!(!rig.metadata.rebootstrap_due(rig.now + Duration::from_secs(60)));
    rig.answer(vec![]);
    rig.metadata.request_update();
    rig.pass_ms(4999);
    rig.due_ms();
    assert!(!rig.metadata.rebootstrap_due(rig.now), "an answer begins the time anew");

    let mut rig = Rig::with(&[trigger, ("metadata.recovery.strategy", "none")]);
    rig.answer(vec![]);
    rig.metadata.request_update();
    rig.due_ms();
    assert!(!rig.metadata.rebootstrap_due(rig.now + Duration::from_secs(60)));
    assert!(!rig.metadata.rebootstrap(rig.now));
}

/// MD-27, MD-28.
#[test]
fn a_topics_error_is_gone_with_the_next_good_answer() {
    let mut rig = Rig::new();
    rig.add(&["t"]);
    rig.answer(vec![failed("t", ErrorCode::TOPIC_AUTHORIZATION_FAILED)]);
    let refusal = rig.metadata.cell().try_topic("t", None).unwrap_err();
    assert!(matches!(refusal.error, Error::Authorization { .. }));
    let refusal = rig.metadata.cell().try_topic("u", None).unwrap_err();
    assert!(matches!(refusal.error, Error::NotReady { .. }));
    rig.answer(vec![topic("t", &[(1, 0)])]);
    assert!(rig.metadata.cell().try_topic("t", None).is_ok());
}

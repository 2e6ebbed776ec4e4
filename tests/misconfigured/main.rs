//! What a user reads when something is set wrong: the whole text, for each of the usual mistakes.
//! `*` in what is expected stands for numbers and words of the system's own.

use kafka_producer::testing::{Api, Fault, TestCluster};
use kafka_producer::{ErrorCode, KafkaProducer, ProducerBuilder, ProducerRecord};

use crate::common::stranger::{Manner, Stranger};
use crate::common::{LONG, delivered, failure, impatient, ms};

#[path = "../common/mod.rs"]
mod common;

fn hasty(servers: &str) -> ProducerBuilder {
    impatient(servers)
        .max_block(ms(300))
        .request_timeout(ms(200))
        .delivery_timeout(ms(400))
        .linger(ms(0))
        .socket_connection_setup_timeout(ms(150))
        .socket_connection_setup_timeout_max(ms(150))
}

/// What a send says that is refused.
fn refusal(producer: &KafkaProducer) -> String {
    let error = producer.send(ProducerRecord::new("t", "value")).map(drop).unwrap_err();
    assert!(producer.close(LONG).is_clean());
    error.to_string()
}

/// What a delivery says that fails.
fn failed(producer: &KafkaProducer) -> String {
    let error = failure(&producer.send(ProducerRecord::new("t", "value")).unwrap());
    producer.close(LONG);
    error.to_string()
}

/// Whether `text` is `pattern`, where `*` stands for anything.
fn is_like(text: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => text == pattern,
        Some((before, pattern)) => text.strip_prefix(before).is_some_and(|rest| {
            let mut ends = rest.char_indices().map(|(i, _)| i).chain([rest.len()]);
            ends.any(|end| is_like(&rest[end..], pattern))
        }),
    }
}

#[track_caller]
fn assert_reads(text: &str, pattern: &str) {
    assert!(is_like(text, pattern), "it reads:\n{text}\nand not:\n{pattern}");
}

/// What is said where this listens in place of a broker.
fn met(manner: Manner) -> (String, String) {
    let stranger = Stranger::new(manner);
    let address = stranger.address();
    (refusal(&hasty(&address).build().unwrap()), address)
}

#[test]
fn the_comparison_itself() {
    assert!(is_like("after 12 ms", "after * ms") && is_like("ab", "*b") && is_like("ab", "a*"));
    assert!(!is_like("after 12 ms!", "after * ms") && !is_like("b", "a*"));
}

#[test]
fn a_closed_port() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_reads(
        &refusal(&hasty(&format!("127.0.0.1:{port}")).build().unwrap()),
        &format!(
            "no metadata of topic t after * ms: bootstrap server 127.0.0.1:{port}: \
             127.0.0.1:{port}: it can't be reached: *refused*"
        ),
    );
}

#[test]
fn a_name_that_does_not_resolve() {
    assert_reads(
        &refusal(&hasty("no-such-host.invalid:9092").max_block(LONG / 3).build().unwrap()),
        "no metadata of topic t after * ms: bootstrap server no-such-host.invalid:9092: its name \
         can't be resolved: *",
    );
}

#[test]
fn a_black_hole() {
    let (text, address) = met(Manner::Silent);
    assert_reads(
        &text,
        &format!(
            "no metadata of topic t after * ms: bootstrap server {address}: {address}: it did not \
             tell its API versions in time (a broker older than Kafka 0.10, with Produce v0-v1 \
             where v3-v13 is needed, or a listener that expects TLS?)"
        ),
    );
}

#[test]
fn an_http_server() {
    let (text, address) = met(Manner::Says(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    assert_reads(
        &text,
        &format!(
            "no metadata of topic t after * ms: bootstrap server {address}: {address}: it sent a \
             frame of 1213486160 bytes, above the bound of * (it is an HTTP server)"
        ),
    );
}

#[test]
fn a_plaintext_client_at_a_tls_listener_that_says_so() {
    let (text, address) = met(Manner::Says(&[0x15, 3, 3, 0, 2, 2, 0x46]));
    assert_reads(
        &text,
        &format!(
            "no metadata of topic t after * ms: bootstrap server {address}: {address}: it sent a \
             frame of * bytes, above the bound of * (it speaks TLS: its listener is not a \
             plaintext one)"
        ),
    );
}

#[test]
fn a_tls_listener_or_an_ancient_broker_that_just_hangs_up() {
    let (text, address) = met(Manner::HangsUp);
    // A reset may come before the answer's absence is known.
    assert_reads(&text, &format!("no metadata of topic t after * ms: * {address}: {address}: *"));
}

#[test]
fn a_tls_client() {
    let error = hasty("localhost:9092").property("security.protocol", "SSL").build().unwrap_err();
    assert_reads(
        &error.to_string(),
        "invalid configuration: security.protocol: known to Kafka, not supported here: this \
         version speaks PLAINTEXT only",
    );
}

#[test]
fn a_listener_that_expects_sasl() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    cluster.inject(Fault::metadata().always().disconnect());
    let address = cluster.bootstrap_servers();
    assert_reads(
        &refusal(&hasty(&address).build().unwrap()),
        &format!(
            "no metadata of topic t after * ms: bootstrap server {address}: it closed the \
             connection before it answered a single request (does its listener expect SASL?)"
        ),
    );
}

#[test]
fn a_broker_that_advertises_localhost() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let stranger = Stranger::new(Manner::Advertises("localhost", gone));
    let address = stranger.address();
    assert_reads(
        &failed(&hasty(&address).build().unwrap()),
        &format!(
            "delivery to t-0 failed after 0 attempts and * ms (without a leader *, queued *, in \
             flight 0, in backoff 0): delivery.timeout.ms has passed (before that: broker 1 at \
             localhost:{gone}: *: it can't be reached: *refused* (broker 1 advertised \
             localhost:{gone} via bootstrap server {address}, and was never reached there: if it \
             runs, check its advertised.listeners)); the record is not in the log"
        ),
    );
}

/// What waiting for topic `t` says.
fn not_ready(servers: &str) -> String {
    let producer = hasty(servers).build().unwrap();
    let error = producer.wait_ready(&["t"], ms(300)).unwrap_err();
    assert!(producer.close(LONG).is_clean());
    error.to_string()
}

#[test]
fn a_broker_that_advertises_localhost_is_not_ready() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let stranger = Stranger::new(Manner::Advertises("localhost", gone));
    let address = stranger.address();
    assert_reads(
        &not_ready(&address),
        &format!(
            "no metadata of topic t after * ms: broker 1 at localhost:{gone}: *: it can't be \
             reached: *refused* (broker 1 advertised localhost:{gone} via bootstrap server \
             {address}, and was never reached there: if it runs, check its advertised.listeners)"
        ),
    );
}

#[test]
fn a_topic_without_a_leader_is_not_ready() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    assert!(cluster.move_leader("t", 0, None));
    assert_reads(
        &not_ready(&cluster.bootstrap_servers()),
        "no metadata of topic t after * ms: none of its partitions has a leader (1 in all): are \
         brokers down?",
    );
}

#[test]
fn brokers_that_are_too_old() {
    let cluster = TestCluster::builder().topic("t", 1).max_version(Api::Metadata, 2).start();
    let address = cluster.bootstrap_servers();
    assert_reads(
        &refusal(&hasty(&address).build().unwrap()),
        &format!(
            "Metadata v4-v13 is needed, and bootstrap server {address} offers v0-v2 (it is too \
             old: Kafka 0.11 is the first that will do)"
        ),
    );
}

#[test]
fn a_topic_that_does_not_exist() {
    let cluster = TestCluster::builder().auto_create(false).start();
    assert_reads(
        &refusal(&hasty(&cluster.bootstrap_servers()).build().unwrap()),
        "no metadata of topic t after * ms: the brokers answer UNKNOWN_TOPIC_OR_PARTITION (3) (it \
         does not exist, and auto.create.topics.enable is off)",
    );
}

#[test]
fn too_few_replicas() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    cluster.inject(Fault::produce().always().error(ErrorCode::NOT_ENOUGH_REPLICAS));
    assert_reads(
        &failed(&hasty(&cluster.bootstrap_servers()).build().unwrap()),
        "delivery to t-0 failed after * attempts, the last to 127.0.0.1:* (id 1), and * ms \
         (without a leader *, queued *, in flight *, in backoff *): delivery.timeout.ms has passed \
         (before that: NOT_ENOUGH_REPLICAS (19): Fewer replicas are in sync than \
         min.insync.replicas.); the record is not in the log",
    );
}

#[test]
fn a_leader_that_does_not_answer() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    cluster.inject(Fault::produce().always().silence());
    assert_reads(
        &failed(&hasty(&cluster.bootstrap_servers()).build().unwrap()),
        "delivery to t-0 failed after * attempt*, the last to 127.0.0.1:* (id 1), and * ms \
         (without a leader *, queued *, in flight *, in backoff *): delivery.timeout.ms has passed \
         (before that: no answer within request.timeout.ms); the record may be in the log",
    );
}

#[test]
fn a_cluster_that_has_no_producer_id_to_give() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let loading = ErrorCode::COORDINATOR_LOAD_IN_PROGRESS;
    cluster.inject(Fault::init_producer_id().always().error(loading));
    assert_reads(
        &failed(&hasty(&cluster.bootstrap_servers()).build().unwrap()),
        "delivery to t-0 failed after 0 attempts and * ms (*): delivery.timeout.ms has passed \
         (before that: no producer id yet: COORDINATOR_LOAD_IN_PROGRESS (14): *); the record is \
         not in the log",
    );
}

#[test]
fn a_question_for_a_producer_id_that_is_never_answered() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    cluster.inject(Fault::init_producer_id().always().silence());
    assert_reads(
        &failed(&hasty(&cluster.bootstrap_servers()).build().unwrap()),
        "delivery to t-0 failed after 0 attempts and * ms (*): delivery.timeout.ms has passed \
         (before that: no producer id yet: *); the record is not in the log",
    );
}

#[test]
fn a_quota_that_is_exceeded() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    cluster.inject(Fault::produce().times(1).throttle(LONG));
    let producer = hasty(&cluster.bootstrap_servers()).build().unwrap();
    delivered(&producer.send(ProducerRecord::new("t", "value")).unwrap());
    assert_reads(
        &failed(&producer),
        &format!(
            "delivery to t-0 failed after 0 attempts and * ms (*): delivery.timeout.ms has passed \
             (before that: the leader asked to be sent nothing for {} ms, as where a quota is \
             exceeded); the record is not in the log",
            LONG.as_millis()
        ),
    );
}

#[test]
fn a_record_larger_than_the_client_allows() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = hasty(&cluster.bootstrap_servers()).max_request_size(50).build().unwrap();
    assert_reads(
        &refusal(&producer),
        "the record is * bytes, more than the 50 of max.request.size",
    );
}

#[test]
fn a_record_larger_than_the_broker_allows() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    cluster.inject(Fault::produce().always().error(ErrorCode::MESSAGE_TOO_LARGE));
    assert_reads(
        &failed(&hasty(&cluster.bootstrap_servers()).build().unwrap()),
        "delivery to t-0 failed after 1 attempt, the last to 127.0.0.1:* (id 1), and * ms (*): \
         MESSAGE_TOO_LARGE (10): The batch is larger than max.message.bytes allows.; the record is \
         not in the log",
    );
}

#[test]
fn a_topic_that_is_forbidden() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    cluster.inject(Fault::metadata().always().error(ErrorCode::TOPIC_AUTHORIZATION_FAILED));
    assert_reads(
        &refusal(&hasty(&cluster.bootstrap_servers()).build().unwrap()),
        "TOPIC_AUTHORIZATION_FAILED (29): Access to the topic is denied. t",
    );
}

#[test]
fn idempotence_that_is_forbidden() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let denied = ErrorCode::CLUSTER_AUTHORIZATION_FAILED;
    cluster.inject(Fault::init_producer_id().always().error(denied));
    assert_reads(
        &failed(&hasty(&cluster.bootstrap_servers()).build().unwrap()),
        "delivery to t-0 failed after 0 attempts and * ms (*): CLUSTER_AUTHORIZATION_FAILED (31): \
         No producer id for this client: with enable.idempotence it needs the right to write to a \
         topic, and before Kafka 3.0 IdempotentWrite on the cluster.; the record is not in the log",
    );
}

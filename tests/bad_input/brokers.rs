//! Addresses where no broker is, and things that answer there which are none.

use std::net::TcpListener;
use std::sync::Arc;

use kafka_producer::testing::{Api, Fault, FaultBuilder, TestCluster};
use kafka_producer::{
    DeliveryCause, Error, ErrorClass, Persisted, ProducerBuilder, ProducerRecord,
};

use crate::common::stranger::{Manner, Stranger};
use crate::common::{
    LONG, assert_took, builder, close, delivered, failure, impatient, ms, timed, values,
};

const STRANGERS: [(&str, Manner); 7] = [
    ("silent", Manner::Silent),
    ("hangs up", Manner::HangsUp),
    ("HTTP", Manner::Says(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
    ("TLS", Manner::Says(&[0x15, 3, 3, 0, 2, 2, 0x46, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
    ("an empty frame", Manner::Says(&[0; 64])),
    ("a negative length", Manner::Says(&[0xff; 64])),
    ("another's answer", Manner::Says(&[0, 0, 0, 8, 0x7f, 1, 2, 3, 0, 35, 0, 0])),
];

fn short_of_patience(servers: &str) -> ProducerBuilder {
    impatient(servers)
        .max_block(ms(300))
        .request_timeout(ms(200))
        .socket_connection_setup_timeout(ms(150))
        .socket_connection_setup_timeout_max(ms(150))
}

/// Where nothing answers: every waiting call says so in its time, and the end comes at once.
#[track_caller]
fn assert_told(name: &str, servers: &str, why: &[&str]) {
    let (producer, time) = timed(|| short_of_patience(servers).build().unwrap());
    assert!(time < ms(2_000), "{name}: built in {time:?}");
    let (ready, time) = timed(|| producer.wait_ready(&["t"], ms(500)));
    assert_took(time, ms(500));
    let (nothing, _) = timed(|| producer.wait_ready(&[], ms(100)));
    let (sent, time) = timed(|| producer.send(ProducerRecord::new("t", "v")).map(drop));
    assert_took(time, ms(300));
    let partitions = producer.partitions_for("t").map(drop);
    for result in [ready, nothing, sent, partitions] {
        let error = result.unwrap_err();
        let Error::MetadataTimeout { cause, .. } = &error else { panic!("{name}: {error}") };
        assert!(why.iter().all(|part| cause.contains(part)), "{name}: {cause}");
        assert!(error.is_retriable());
    }
    let refused = producer.try_send(ProducerRecord::new("t", "v")).unwrap_err();
    assert!(matches!(refused.error(), Error::NotReady { .. }), "{name}: {refused}");
    let (report, time) = timed(|| producer.close(LONG));
    assert!(report.is_clean() && time < LONG / 3, "{name}: {report:?} in {time:?}");
}

/// CFG-27.
#[test]
fn no_broker_at_all_is_told_of_in_time_with_the_reason() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    assert_told("nobody listens", &gone, &[&gone, "refused"]);
    assert_told("no such name", "no-such-host.invalid:9092", &["no-such-host.invalid", "resolve"]);
}

#[test]
fn strangers_are_told_of_in_time_with_their_address() {
    for (name, manner) in STRANGERS {
        let stranger = Stranger::new(manner);
        assert_told(name, &stranger.address(), &[&stranger.address()]);
    }
}

#[test]
fn one_broker_among_strangers_is_enough() {
    for (name, manner) in STRANGERS {
        let cluster = TestCluster::builder().topic("t", 1).start();
        let stranger = Stranger::new(manner);
        let servers = format!(
            "{},no-such-host.invalid:9092,127.0.0.1:1,{}",
            stranger.address(),
            cluster.bootstrap_servers()
        );
        let producer = short_of_patience(&servers).max_block(LONG).build().unwrap();
        for i in 0..10 {
            producer.send(ProducerRecord::new("t", &i.to_string())).expect(name);
        }
        producer.flush(LONG).expect(name);
        let expected: Vec<_> = (0..10).map(|i| i.to_string()).collect();
        assert_eq!(values(&cluster, "t", 0), expected, "{name}");
        close(&producer);
    }
}

/// A fault, made of whichever requests it is to meet.
type Harm = fn(FaultBuilder) -> Fault;
type Meets = fn() -> FaultBuilder;

/// The requests that are not the records' own, and how each can go wrong.
#[test]
fn answers_that_make_no_sense_hold_records_back_and_lose_none() {
    let requests: [(&str, Meets); 3] = [
        ("ApiVersions", Fault::api_versions),
        ("Metadata", Fault::metadata),
        ("InitProducerId", Fault::init_producer_id),
    ];
    let harms: [(&str, Harm); 6] = [
        ("garbage", |f| f.garbage()),
        ("oversized", |f| f.oversize()),
        ("cut off in the length", |f| f.truncate(3)),
        ("cut off in the answer", |f| f.truncate(15)),
        ("hung up", |f| f.disconnect()),
        ("silent", |f| f.silence()),
    ];
    for (request, meets) in requests {
        for (harm, spoil) in harms {
            let name = format!("{request} {harm}");
            let cluster = TestCluster::builder().topic("t", 1).start();
            let fault = cluster.inject(spoil(meets().times(2)));
            let servers = cluster.bootstrap_servers();
            let producer = short_of_patience(&servers).max_block(LONG).build().unwrap();
            let deliveries: Vec<_> = (0..10)
                .map(|i| producer.send(ProducerRecord::new("t", &i.to_string())).expect(&name))
                .collect();
            for (i, delivery) in (0..).zip(&deliveries) {
                assert_eq!(delivered(delivery).offset(), Some(i), "{name}");
            }
            assert_eq!(cluster.fired(fault), 2, "{name}");
            assert_eq!(cluster.count("t"), 10, "{name}");
            close(&producer);
        }
    }
}

/// WIRE-04.
#[test]
fn a_broker_that_is_too_old_is_told_of_and_is_not_asked_for_ever() {
    let cluster = TestCluster::builder().topic("t", 1).max_version(Api::Produce, 2).start();
    let producer = builder(&cluster).build().unwrap();
    for _ in 0..2 {
        let error = failure(&producer.send(ProducerRecord::new("t", "v")).unwrap());
        let DeliveryCause::UnsupportedVersion(text) = &error.cause else { panic!("{error}") };
        assert!(text.contains("Produce v3") && text.contains("-v2"), "{text}");
        assert_eq!(error.persisted, Persisted::No);
        let class = Error::Delivery(Arc::new(error)).class();
        assert_eq!(class, ErrorClass::InvalidConfiguration);
    }
    close(&producer);
    assert_eq!(cluster.counters().requests(Api::Produce), 0);
}

/// NC-05.
#[test]
fn a_cluster_that_is_too_old_to_describe_itself_is_told_of() {
    let cluster = TestCluster::builder().topic("t", 1).max_version(Api::Metadata, 3).start();
    let producer = builder(&cluster).max_block(LONG).build().unwrap();
    for _ in 0..2 {
        // Long before max.block.ms: waiting brings nothing.
        let (refused, time) = timed(|| producer.send(ProducerRecord::new("t", "v")));
        assert!(time < LONG / 2, "{time:?}");
        let error = refused.map(drop).unwrap_err();
        let Error::UnsupportedVersion { api, client, offered, .. } = &error else {
            panic!("{error:?}")
        };
        assert_eq!((*api, client.0, *offered), ("Metadata", 4, Some((0, 3))));
        assert_eq!(error.class(), ErrorClass::InvalidConfiguration);
    }
    close(&producer);
}

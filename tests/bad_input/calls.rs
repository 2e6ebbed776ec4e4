//! Records, topics and settings that can't be.

use std::time::Duration;

use kafka_producer::testing::{Api, Fault, TestCluster};
use kafka_producer::{
    ClusterView, Error, ErrorClass, ErrorCode, KafkaProducer, PartitionError, PartitionInput,
    Partitioner, ProducerRecord, TopicRecord,
};

use crate::common::{LONG, assert_took, builder, close, delivered, ms, timed, values};

#[track_caller]
fn configuration(result: Result<KafkaProducer, Error>) -> String {
    match result {
        Err(error @ Error::Config(_)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_wrong_configuration_builds_nothing_and_names_the_key() {
    let text = configuration(KafkaProducer::builder().build());
    assert!(text.contains("bootstrap.servers"), "{text}");
    for (entries, parts) in [
        (vec![("bootstrap.servers", "")], vec!["bootstrap.servers"]),
        (vec![("bootstrap.servers", "host:65536")], vec!["bootstrap.servers", "65536"]),
        (vec![("bootstrap.servers", "host")], vec!["bootstrap.servers", "host"]),
        (vec![("bootstrap.servers", "h:1"), ("acsk", "1")], vec!["acsk", "`acks`"]),
        (
            vec![("bootstrap.servers", "h:1"), ("acks", "1"), ("enable.idempotence", "true")],
            vec!["enable.idempotence", "acks must be all"],
        ),
        (
            vec![("bootstrap.servers", "h:1"), ("delivery.timeout.ms", "5")],
            vec!["delivery.timeout.ms", "linger.ms + request.timeout.ms"],
        ),
    ] {
        let text = configuration(KafkaProducer::from_properties(entries));
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
}

/// KP-08.
#[test]
fn no_form_of_send_takes_a_topic_with_an_impossible_name() {
    let cluster = TestCluster::start();
    let producer = builder(&cluster).max_block(LONG).build().unwrap();
    let long = "x".repeat(250);
    for name in ["", ".", "..", "a b", "a/b", "caf\u{e9}", "a\0", &long] {
        let record = || ProducerRecord::new(name, "v");
        let (refusals, time) = timed(|| {
            let (given_back, refusal) = producer.try_send(record()).unwrap_err().into_parts();
            assert_eq!(given_back.topic(), name);
            [
                producer.send(record()).map(drop),
                producer.send_with(record(), |_| panic!("it was not accepted")),
                Err(refusal),
                producer.topic(name).map(drop),
                producer.partitions_for(name).map(drop),
                producer.wait_ready(&["fine", name], LONG),
            ]
        });
        for refusal in refusals {
            let error = refusal.unwrap_err();
            assert!(matches!(&error, Error::InvalidTopic { topic, .. } if **topic == *name));
            assert_eq!(error.class(), ErrorClass::ApplicationRecoverable);
        }
        assert!(time < LONG / 3, "{time:?}");
    }
    let longest = "x".repeat(249);
    delivered(&producer.send(ProducerRecord::new(&longest, "v")).unwrap());
}

/// KP-28.
#[test]
fn a_negative_partition_or_timestamp_is_refused_at_once() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster).build().unwrap();
    let topic = producer.topic("t").unwrap();
    let record = || ProducerRecord::new("t", "v");
    let short = || TopicRecord::new("v");
    let refusals = [
        producer.send(record().partition(-1)).map(drop),
        producer.send(record().partition(i32::MIN)).map(drop),
        producer.send(record().timestamp(-1)).map(drop),
        producer.send_with(record().partition(-1), |_| panic!("it was not accepted")),
        producer.try_send(record().timestamp(i64::MIN)).map(drop).map_err(Error::from),
        topic.send(short().partition(-1)).map(drop),
        topic.send_with(short().timestamp(-1), |_| panic!("it was not accepted")),
        topic.try_send(&short().partition(-2)).map(drop),
    ];
    for refusal in refusals {
        assert!(matches!(refusal, Err(Error::InvalidRecord(_))), "{refusal:?}");
    }
    close(&producer);
    assert_eq!(cluster.count("t"), 0);
}

/// KP-05.
#[test]
fn a_partition_that_does_not_exist_is_waited_for_and_then_told_of() {
    let cluster = TestCluster::builder().topic("t", 2).start();
    let producer = builder(&cluster).max_block(ms(300)).build().unwrap();
    producer.wait_ready(&["t"], LONG).unwrap();
    for partition in [2, i32::MAX] {
        let record = || ProducerRecord::new("t", "v").partition(partition);
        let (refused, time) = timed(|| producer.send(record()));
        assert_took(time, ms(300));
        let Err(Error::MetadataTimeout { topic, waited, cause }) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(&*topic, "t");
        assert!(waited >= ms(300) && cause.contains("2 partitions"), "{cause}");
        let refused = producer.try_send(record()).unwrap_err();
        assert!(matches!(refused.error(), Error::NotReady { .. }), "{refused}");
    }
    // Once it is there it is found, by a topic's handle too.
    assert!(cluster.add_partitions("t", 3));
    let topic = producer.topic("t").unwrap();
    delivered(&topic.send(TopicRecord::new("v").partition(2)).unwrap());
    assert_eq!(cluster.records("t", 2).len(), 1);
}

/// KP-03.
#[test]
fn a_topic_that_does_not_exist_is_waited_for_and_then_told_of() {
    let cluster = TestCluster::builder().auto_create(false).topic("other", 1).start();
    let producer = builder(&cluster).max_block(ms(300)).build().unwrap();
    producer.wait_ready(&["other"], LONG).unwrap();
    let (refused, time) = timed(|| producer.send(ProducerRecord::new("t", "v")));
    assert_took(time, ms(300));
    let Err(Error::MetadataTimeout { topic, cause, .. }) = refused else { panic!("{refused:?}") };
    assert!(&*topic == "t" && cause.contains("UNKNOWN_TOPIC_OR_PARTITION"), "{cause}");
    // Others are none the worse for it.
    delivered(&producer.send(ProducerRecord::new("other", "v")).unwrap());
    assert!(cluster.create_topic("t", 1));
    delivered(&producer.send(ProducerRecord::new("t", "v")).unwrap());
}

#[test]
fn a_topic_that_is_forbidden_is_told_of_at_once_and_works_once_it_is_allowed() {
    let cluster = TestCluster::builder().topic("t", 1).topic("other", 1).start();
    let code = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
    let fault = cluster.inject(Fault::metadata().topic("t").always().error(code));
    let producer = builder(&cluster).max_block(LONG).build().unwrap();
    for _ in 0..2 {
        let (refused, time) = timed(|| producer.send(ProducerRecord::new("t", "v")));
        let Err(Error::Authorization { code: told, resource }) = &refused else {
            panic!("{refused:?}")
        };
        assert!(*told == code && resource.contains('t'));
        assert!(time < LONG / 3, "{time:?}");
    }
    assert!(matches!(producer.wait_ready(&["t"], LONG), Err(Error::Authorization { .. })));
    delivered(&producer.send(ProducerRecord::new("other", "v")).unwrap());
    cluster.remove_fault(fault);
    delivered(&producer.send(ProducerRecord::new("t", "v")).unwrap());
}

#[test]
fn a_record_that_is_too_large_names_the_setting_and_harms_no_other() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    for (request, memory, limit, name) in
        [(5_000, 100_000, 5_000, "max.request.size"), (100_000, 5_000, 5_000, "buffer.memory")]
    {
        let producer = builder(&cluster)
            .max_request_size(request)
            .buffer_memory(memory)
            .batch_size(1_000)
            .max_block(LONG)
            .build()
            .unwrap();
        let topic = producer.topic("t").unwrap();
        let before = producer.send(ProducerRecord::new("t", "before")).unwrap();
        let (value, half) = (vec![b'x'; 5_000], vec![b'x'; 2_500]);
        let halves = || ProducerRecord::new("t", &half).key(&half);
        let header = || TopicRecord::new(&half).header("h", &half);
        let refusals = [
            producer.send(ProducerRecord::new("t", &value)).map(drop),
            producer.send_with(halves(), |_| panic!("it was not accepted")),
            producer.try_send(halves()).map(drop).map_err(Error::from),
            topic.send(header()).map(drop),
            topic.try_send(&header()).map(drop),
        ];
        for refusal in refusals {
            let Err(Error::RecordTooLarge { size, limit: told, setting }) = refusal else {
                panic!("{refusal:?}")
            };
            assert_eq!((told, setting), (limit, name));
            assert!((5_001..5_200).contains(&size), "{size}");
        }
        // One that only just fits is none too large.
        let fits = vec![b'x'; 4_900];
        let after = producer.send(ProducerRecord::new("t", &fits)).unwrap();
        delivered(&before);
        delivered(&after);
        close(&producer);
    }
    assert_eq!(cluster.count("t"), 4);
}

/// Chooses what the value says.
struct Obedient;

impl Partitioner for Obedient {
    fn partition(
        &self,
        input: &PartitionInput<'_>,
        _cluster: &ClusterView<'_>,
    ) -> Result<i32, PartitionError> {
        let text = std::str::from_utf8(input.value.unwrap()).unwrap();
        assert_ne!(text, "panic");
        Ok(text.parse::<i32>()?)
    }
}

/// KP-26.
#[test]
fn a_users_partitioner_that_fails_fails_its_own_send_only() {
    let cluster = TestCluster::builder().topic("orders", 2).start();
    let producer = builder(&cluster).partition_by(Obedient).build().unwrap();
    for wrong in ["panic", "2", "-1", "nonsense"] {
        let refused = producer.send(ProducerRecord::new("orders", wrong));
        let Err(Error::InvalidRecord(text)) = refused else { panic!("{wrong}: {refused:?}") };
        let names_them = text.contains("the partitioner") && text.contains("orders");
        assert!(names_them, "{wrong}: {text}");
        let refused =
            producer.send_with(ProducerRecord::new("orders", wrong), |_| panic!("accepted"));
        assert!(matches!(refused, Err(Error::InvalidRecord(_))), "{wrong}: {refused:?}");
    }
    delivered(&producer.send(ProducerRecord::new("orders", "1")).unwrap());
    close(&producer);
    assert_eq!(values(&cluster, "orders", 1), ["1"]);
    assert_eq!(cluster.counters().requests(Api::Produce), 1);
}

/// As any text may be, it is only a name.
#[test]
fn a_client_id_may_have_any_character_and_not_every_length() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let most = "x".repeat(32_767);
    for id in ["a\0b", "Łódź 🦀\n", &most] {
        let producer = builder(&cluster).client_id(id).build().unwrap();
        delivered(&producer.send(ProducerRecord::new("t", "v")).unwrap());
        close(&producer);
    }
    let text = configuration(builder(&cluster).client_id(format!("{most}x")).build());
    assert!(text.contains("client.id") && text.contains("32767"), "{text}");
}

#[test]
fn a_time_without_end_is_as_good_as_any() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster).build().unwrap();
    producer.wait_ready(&["t"], Duration::MAX).unwrap();
    let delivery = producer.send_timeout(ProducerRecord::new("t", "v"), Duration::MAX).unwrap();
    delivery.wait_timeout(Duration::MAX).unwrap();
    producer.flush(Duration::MAX).unwrap();
    assert!(producer.close(Duration::MAX).is_clean());
}

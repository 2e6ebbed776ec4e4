//! What brokers refuse, and what the producer tells of it.

use std::time::Duration;

use kafka_producer::{
    DeliveryCause, DeliveryError, Error, ErrorCode, KafkaProducer, Persisted, ProducerRecord,
};

use crate::support::{LONG, assert_same, in_the_log, one_broker, producer, three_brokers, within};

/// Long enough that everything sent in one go lies in one batch a partition.
const LINGER: Duration = Duration::from_millis(300);

/// INT-19.
#[test]
fn a_topic_that_does_not_exist_is_named_with_the_brokers_error() {
    let test = "a_topic_that_does_not_exist_is_named_with_the_brokers_error";
    let Some(cluster) = three_brokers(test) else { return };
    let wait = Duration::from_secs(1);
    let producer = producer(&cluster).max_block(wait).build().unwrap();
    let record = ProducerRecord::new("nowhere", "x");
    let sent = within(wait, "send", || producer.send(record.clone()));
    assert_names_unknown_topic(sent.unwrap_err());
    let ready = within(wait, "wait_ready", || producer.wait_ready(&["nowhere"], wait));
    assert_names_unknown_topic(ready.unwrap_err());
    assert_names_unknown_topic(producer.partitions_for("nowhere").unwrap_err());
    let refused = producer.try_send(record).unwrap_err();
    assert!(matches!(refused.error(), Error::NotReady { .. }), "{}", refused.error());
}

fn assert_names_unknown_topic(error: Error) {
    let Error::MetadataTimeout { topic, cause, .. } = &error else { panic!("{error}") };
    assert_eq!(&**topic, "nowhere");
    assert!(cause.contains("UNKNOWN_TOPIC_OR_PARTITION"), "{error}");
}

/// INT-07.
#[test]
fn a_send_waits_for_its_topic_and_its_partition_to_appear() {
    let test = "a_send_waits_for_its_topic_and_its_partition_to_appear";
    let Some(cluster) = three_brokers(test) else { return };
    let producer = producer(&cluster).build().unwrap();
    let send = |partition| {
        let record = ProducerRecord::new("awaited", "x").partition(partition);
        producer.send(record).expect("accepted").wait_timeout(LONG).expect("delivered")
    };
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| send(0));
        cluster.create_topic("awaited", 1, 3, &[]);
        assert_eq!(sending.join().unwrap().offset(), Some(0));
        let sending = scope.spawn(|| send(4));
        cluster.grow_topic("awaited", 5);
        assert_eq!(sending.join().unwrap().partition(), 4);
    });
    assert_eq!(producer.partitions_for("awaited").unwrap().len(), 5);
}

/// INT-13.
#[test]
fn topics_are_made_on_demand_where_the_brokers_allow_it() {
    let test = "topics_are_made_on_demand_where_the_brokers_allow_it";
    let Some(cluster) = one_broker(test) else { return };
    let producer = producer(cluster).build().unwrap();
    let record = ProducerRecord::new("made-on-demand", "x");
    let metadata = producer.send(record.clone()).unwrap().wait_timeout(LONG).unwrap();
    assert_eq!(producer.partitions_for("made-on-demand").unwrap().len(), 3);
    let log = cluster.consume("made-on-demand", usize::MAX);
    assert_same(&log, vec![in_the_log(&record, &metadata)]);
}

#[test]
fn a_batch_that_is_too_large_for_the_topic_is_split() {
    let test = "a_batch_that_is_too_large_for_the_topic_is_split";
    let Some(cluster) = one_broker(test) else { return };
    cluster.create_topic("split", 1, 1, &[("max.message.bytes", "1000")]);
    let producer = lingering(cluster);
    let values: Vec<_> = (0..100).map(|i| format!("{i:0>90}")).collect();
    let mut records: Vec<_> = values.iter().map(|v| ProducerRecord::new("split", v)).collect();
    let too_large = [b'x'; 3000];
    records.insert(50, ProducerRecord::new("split", &too_large));
    let verdicts = send_and_flush(&producer, &records);

    let mut reported = Vec::new();
    for (i, (record, verdict)) in records.iter().zip(verdicts).enumerate() {
        match verdict {
            Ok(metadata) => reported.push(in_the_log(record, &metadata)),
            Err(error) => {
                assert_eq!(i, 50, "{error}");
                let error = delivery_error(&error);
                assert_eq!(code(error), Some(ErrorCode::MESSAGE_TOO_LARGE), "{error}");
                assert_eq!(error.persisted, Persisted::No);
            }
        }
    }
    assert_eq!(reported.len(), 100);
    let log = cluster.consume("split", usize::MAX);
    let in_order: Vec<_> = log.iter().map(|r| r.value.as_deref().expect("a value")).collect();
    assert!(in_order.iter().zip(&values).all(|(logged, sent)| *logged == sent.as_bytes()));
    assert_same(&log, reported);
}

#[test]
fn records_that_a_broker_calls_invalid_are_named_and_the_next_ones_arrive() {
    let test = "records_that_a_broker_calls_invalid_are_named_and_the_next_ones_arrive";
    let Some(cluster) = one_broker(test) else { return };
    cluster.create_topic("compacted", 1, 1, &[("cleanup.policy", "compact")]);
    let producer = lingering(cluster);
    let good = ProducerRecord::new("compacted", "value").key("key");
    let without_key = ProducerRecord::new("compacted", "value");
    let mut reported = Vec::new();
    for _ in 0..3 {
        let batch = [good.clone(), without_key.clone(), good.clone()];
        let verdicts = send_and_flush(&producer, &batch);
        for (i, verdict) in verdicts.iter().enumerate() {
            let error = delivery_error(verdict.as_ref().expect_err("all or none are appended"));
            assert_eq!(error.persisted, Persisted::No, "{i}: {error}");
            let rejected = DeliveryCause::BatchRejected { code: ErrorCode::INVALID_RECORD };
            match i {
                1 => assert_eq!(code(error), Some(ErrorCode::INVALID_RECORD), "{error}"),
                _ => assert_eq!(error.cause, rejected, "only the one at fault is named"),
            }
        }
        let verdicts = send_and_flush(&producer, &[good.clone(), good.clone()]);
        reported.extend(verdicts.iter().map(|v| in_the_log(&good, v.as_ref().unwrap())));
    }
    assert_same(&cluster.consume("compacted", usize::MAX), reported);
}

#[test]
fn a_timestamp_too_far_ahead_is_refused() {
    let Some(cluster) = one_broker("a_timestamp_too_far_ahead_is_refused") else { return };
    cluster.create_topic("ahead", 1, 1, &[]);
    let producer = lingering(cluster);
    let record = ProducerRecord::new("ahead", "x").timestamp(4_000_000_000_000);
    let verdicts = send_and_flush(&producer, &[record]);
    let error = delivery_error(verdicts[0].as_ref().unwrap_err());
    assert_eq!(code(error), Some(ErrorCode::INVALID_TIMESTAMP), "{error}");
    assert_eq!((error.persisted, error.attempts), (Persisted::No, 1));
    let verdicts = send_and_flush(&producer, &[ProducerRecord::new("ahead", "x")]);
    assert_eq!(verdicts[0].as_ref().unwrap().offset(), Some(0));
}

fn lingering(cluster: &crate::kafka_harness::Cluster) -> KafkaProducer {
    producer(cluster).linger(LINGER).batch_size(100_000).build().unwrap()
}

type Verdict = Result<kafka_producer::RecordMetadata, Error>;

fn send_and_flush(producer: &KafkaProducer, records: &[ProducerRecord<'_>]) -> Vec<Verdict> {
    let deliveries = producer.send_all(records).expect("accepted");
    producer.flush(LONG).expect("all is decided");
    deliveries.iter().map(|d| d.try_get().expect("decided")).collect()
}

fn delivery_error(error: &Error) -> &DeliveryError {
    let Error::Delivery(error) = error else { panic!("{error}") };
    error
}

fn code(error: &DeliveryError) -> Option<ErrorCode> {
    match error.cause {
        DeliveryCause::Broker { code, .. } => Some(code),
        _ => None,
    }
}

//! Time and memory run out.

use kafka_producer::testing::{Fault, TestCluster};
use kafka_producer::{DeliveryCause, Error, ErrorCode, Persisted, ProducerRecord, TopicRecord};

use crate::common::{LONG, assert_took, builder, close, delivered, failure, ms, timed, values};

#[test]
fn a_record_that_was_never_sent_expires_and_is_surely_not_in_the_log() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer =
        builder(&cluster).delivery_timeout(ms(500)).request_timeout(ms(200)).build().unwrap();
    producer.wait_ready(&["t"], LONG).unwrap();
    cluster.move_leader("t", 0, None);
    // The sender learns of it by being refused.
    let error = failure(&producer.send(ProducerRecord::new("t", "first")).unwrap());
    assert_eq!(error.cause, DeliveryCause::Timeout);
    let (error, time) =
        timed(|| failure(&producer.send(ProducerRecord::new("t", "second")).unwrap()));
    assert_took(time, ms(500));
    assert_eq!(error.cause, DeliveryCause::Timeout);
    assert_eq!((error.attempts, error.persisted), (0, Persisted::No), "{error}");
    assert!(error.elapsed >= ms(500));
    cluster.move_leader("t", 0, Some(1));
    assert_eq!(
        delivered(&producer.send(ProducerRecord::new("t", "third")).unwrap()).offset(),
        Some(0)
    );
    assert_eq!(values(&cluster, "t", 0), ["third"]);
}

#[test]
fn a_record_whose_answer_is_missing_expires_in_doubt() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer =
        builder(&cluster).delivery_timeout(ms(700)).request_timeout(ms(300)).build().unwrap();
    producer.wait_ready(&["t"], LONG).unwrap();
    let fault = cluster.inject(Fault::produce().always().silence());
    let (error, time) =
        timed(|| failure(&producer.send(ProducerRecord::new("t", "first")).unwrap()));
    assert_took(time, ms(700));
    assert_eq!((&error.cause, error.persisted), (&DeliveryCause::Timeout, Persisted::Unknown));
    assert_eq!(error.last, Some(DeliveryCause::RequestTimeout), "{error}");
    assert!(error.attempts >= 2);
    cluster.remove_fault(fault);
    assert_eq!(
        delivered(&producer.send(ProducerRecord::new("t", "next")).unwrap()).offset(),
        Some(0)
    );
    assert_eq!(values(&cluster, "t", 0), ["next"]);
}

#[test]
fn refusals_that_prove_nothing_was_appended_are_no_doubt() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    cluster.inject(Fault::produce().always().error(ErrorCode::NOT_ENOUGH_REPLICAS));
    // The third attempt would be too late, and the second is long over by then: one that waits for
    // its answer would be a doubt.
    let producer = builder(&cluster)
        .delivery_timeout(ms(2_000))
        .request_timeout(ms(1_900))
        .retry_backoff(ms(1_000))
        .retry_backoff_max(ms(10_000))
        .build()
        .unwrap();
    let error = failure(&producer.send(ProducerRecord::new("t", "v")).unwrap());
    assert_eq!((&error.cause, error.persisted), (&DeliveryCause::Timeout, Persisted::No));
    assert_eq!(error.attempts, 2);
    let last = error.last.as_ref().unwrap();
    assert!(matches!(last, DeliveryCause::Broker { code: ErrorCode::NOT_ENOUGH_REPLICAS, .. }));
}

/// The first answer comes too late for its request, the second one, in time for its own, too late
/// for the record. What is sent later must neither be refused for a gap nor be taken for a
/// duplicate of it.
#[test]
fn a_late_success_of_an_expired_record_leaves_no_gap() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster)
        .delivery_timeout(ms(1_500))
        .request_timeout(ms(1_000))
        .linger(ms(0))
        .build()
        .unwrap();
    producer.wait_ready(&["t"], LONG).unwrap();
    cluster.inject(Fault::produce().delay_response(ms(1_500)));
    cluster.inject(Fault::produce().skip(1).delay_response(ms(750)));
    let first = producer.send(ProducerRecord::new("t", "first")).unwrap();
    assert_eq!(failure(&first).persisted, Persisted::Unknown);
    for i in 0..5 {
        delivered(&producer.send(ProducerRecord::new("t", &i.to_string())).unwrap());
    }
    assert_eq!(values(&cluster, "t", 0), ["first", "0", "1", "2", "3", "4"]);
}

#[test]
fn little_memory_and_many_threads_deliver_everything() {
    let cluster = TestCluster::builder().topic("t", 4).start();
    let producer =
        builder(&cluster).buffer_memory(8_000).batch_size(1_000).linger(ms(20)).build().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let producer = producer.clone();
            scope.spawn(move || {
                let topic = producer.topic("t").unwrap();
                for i in 0..500 {
                    let value = format!("{thread}-{i}-{}", "x".repeat(i % 200));
                    topic.send(TopicRecord::new(&value)).unwrap();
                }
            });
        }
    });
    close(&producer);
    assert_eq!(cluster.count("t"), 16 * 500);
}

/// BP-07, BP-08.
#[test]
fn memory_that_stays_taken_ends_a_send_after_max_block() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster)
        .buffer_memory(5_000)
        .batch_size(1_000)
        .max_block(ms(300))
        .build()
        .unwrap();
    producer.wait_ready(&["t"], LONG).unwrap();
    cluster.freeze_broker(1);
    let value = [b'x'; 900];
    let mut accepted = Vec::new();
    let (error, time) = loop {
        let (sent, time) = timed(|| producer.send(ProducerRecord::new("t", &value)));
        match sent {
            Ok(delivery) => accepted.push(delivery),
            Err(error) => break (error, time),
        }
    };
    assert!(accepted.len() >= 3, "{}", accepted.len());
    assert_took(time, ms(300));
    assert!(matches!(error, Error::BufferExhausted { waited } if waited >= ms(300)), "{error}");
    // One that never waits is refused at once, and gets its record back.
    let refused = producer.try_send(ProducerRecord::new("t", &value).key("k")).unwrap_err();
    assert!(matches!(refused.error(), Error::BufferExhausted { .. }));
    assert_eq!(refused.into_parts().0.key_bytes(), Some(&b"k"[..]));
    cluster.thaw_broker(1);
    accepted.iter().for_each(|delivery| drop(delivered(delivery)));
    delivered(&producer.send(ProducerRecord::new("t", &value)).unwrap());
    assert_eq!(cluster.count("t"), accepted.len() as u64 + 1);
}

//! Closed, flushed and dropped inside callbacks, where to wait would be to wait for oneself.

use std::sync::mpsc;

use kafka_producer::testing::TestCluster;
use kafka_producer::{Callbacks, Error, ProducerRecord};

use crate::common::{LONG, builder, close, ms, values};
use crate::{assert_threads_end, endless_linger, send_with, telling};

#[test]
fn close_and_flush_are_refused_inside_a_callback() {
    for callbacks in [Callbacks::Threads(1), Callbacks::Inline] {
        let cluster = TestCluster::builder().topic("t", 1).start();
        let producer = builder(&cluster).callbacks(callbacks).build().unwrap();
        let (answer, answers) = mpsc::channel();
        let inner = producer.clone();
        producer
            .send_with(ProducerRecord::new("t", "v"), move |_| {
                answer.send((inner.flush(LONG), inner.close(LONG))).unwrap();
            })
            .unwrap();
        let (flushed, report) = answers.recv_timeout(LONG).unwrap();
        assert!(matches!(flushed, Err(Error::InCallback { call: "flush" })), "{flushed:?}");
        assert!(matches!(report.refused, Some(Error::InCallback { call: "close" })), "{report:?}");
        assert!(!report.is_clean());
        // Nothing has come of it.
        let delivery = producer.send(ProducerRecord::new("t", "next")).unwrap();
        assert_eq!(delivery.wait_timeout(LONG).unwrap().offset(), Some(1));
        close(&producer);
    }
}

#[test]
fn the_last_handle_may_be_dropped_inside_a_callback() {
    for (id, callbacks) in [("in-pool", Callbacks::Threads(1)), ("in-line", Callbacks::Inline)] {
        let cluster = TestCluster::builder().topic("t", 1).start();
        let producer = endless_linger(&cluster).client_id(id).callbacks(callbacks).build().unwrap();
        producer.wait_ready(&["t"], LONG).unwrap();
        let (told, results) = telling();
        let (give, given) = mpsc::channel::<kafka_producer::KafkaProducer>();
        let dropped = told.clone();
        let topic = producer.topic("t").unwrap();
        producer
            .send_with(ProducerRecord::new("t", "0"), move |_| {
                let producer = given.recv_timeout(LONG).unwrap();
                producer.send(ProducerRecord::new("t", "1")).unwrap();
                send_with(&producer, &dropped).unwrap();
                drop(producer);
                dropped.send(Ok(None)).unwrap();
            })
            .unwrap();
        drop(told);
        // A flush by another thread sets it off; the handle is given away meanwhile.
        let flushing = producer.clone();
        let flush = std::thread::spawn(move || drop(flushing.flush(ms(1))));
        flush.join().unwrap();
        give.send(producer).unwrap();
        assert_eq!(results.next().unwrap().unwrap(), None, "the drop waits for itself");
        assert_eq!(results.next().unwrap().unwrap(), Some(2), "what it sent before is delivered");
        assert!(results.next().is_none());
        assert_eq!(values(&cluster, "t", 0), ["0", "1", "v"]);
        assert_threads_end(id);
        let refused = topic.send(kafka_producer::TopicRecord::new("3"));
        assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    }
}

#[test]
fn a_handle_that_a_callback_holds_does_not_keep_a_close_from_ending() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster).client_id("held").build().unwrap();
    let (told, results) = telling();
    for _ in 0..100 {
        let (inner, told) = (producer.clone(), told.clone());
        producer
            .send_with(ProducerRecord::new("t", "v"), move |result| {
                let offset = result.unwrap().offset();
                drop(inner);
                told.send(Ok(offset)).unwrap();
            })
            .unwrap();
    }
    drop((producer, told));
    for i in 0..100 {
        assert_eq!(results.next().unwrap().unwrap(), Some(i));
    }
    assert!(results.next().is_none());
    assert_threads_end("held");
}

#[test]
fn records_that_callbacks_send_while_the_producer_closes_are_delivered_or_refused() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = endless_linger(&cluster).client_id("chain").build().unwrap();
    let (told, results) = telling();
    for _ in 0..50 {
        let (inner, told) = (producer.clone(), told.clone());
        producer
            .send_with(ProducerRecord::new("t", "v"), move |_| {
                let sent = send_with(&inner, &told);
                told.send(sent.map(|()| None)).unwrap();
            })
            .unwrap();
    }
    drop(told);
    close(&producer);
    let (mut accepted, mut refused, mut called) = (0, 0, 0);
    while let Some(result) = results.next() {
        match result {
            Ok(None) => accepted += 1,
            Ok(Some(_)) => called += 1,
            Err(Error::Closed) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((accepted + refused, called), (50, accepted));
    assert_eq!(cluster.count("t"), 50 + accepted);
    assert_threads_end("chain");
}

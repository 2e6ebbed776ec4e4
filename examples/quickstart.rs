//! The first steps: send, wait, see where each record went, close.
//!
//!     cargo run --example quickstart
//!     cargo run --example quickstart -- --bootstrap-server localhost:9092 --topic quickstart
//!
//! Without a server it starts the test broker inside this process, so that it runs anywhere.
//! Unfit for production: it waits for its records right after sending them. A service keeps one
//! producer for its whole life, goes on sending, and hears of failures by callbacks or from the
//! handles that it keeps.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

mod support;

use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use kafka_producer::testing::TestCluster;
use kafka_producer::{KafkaProducer, ProducerRecord};
use support::{Args, Outcome, Spec, one};

static SPEC: Spec = Spec {
    about: "Sends a few records, waits for them, and prints where each one went.",
    options: &[
        one(
            &["--bootstrap-server"],
            "HOST:PORT",
            "the broker to start from; without it, a test broker inside this process",
        ),
        one(&["--topic"], "NAME", "the topic to send to").default("quickstart"),
    ],
};

fn main() -> ExitCode {
    support::main(&SPEC, run)
}

fn run(args: &Args) -> Outcome {
    let topic = args.required("--topic")?;
    let cluster; // lives as long as the producer
    let servers = match args.value("--bootstrap-server") {
        Some(servers) => servers.to_owned(),
        None => {
            cluster = TestCluster::builder().topic(topic, 3).try_start()?;
            cluster.bootstrap_servers()
        }
    };

    let producer = KafkaProducer::builder().bootstrap_servers(servers).build()?;
    // `build` connects to nothing. Who wants to know at once whether a broker answers, asks.
    producer.wait_ready(&[topic], Duration::from_secs(10))?;

    // `send` returns as soon as the record lies in the producer's buffer...
    let mut deliveries = Vec::new();
    for order in 1..=9 {
        let key = format!("customer-{}", order % 3);
        let value = format!("order {order}");
        let record = ProducerRecord::new(topic, &value).key(&key).header("source", "quickstart");
        let delivery = producer.send(record)?;
        deliveries.push((key, value, delivery));
    }
    // ...and its handle tells what became of it.
    let (mut delivered, mut failed) = (0, 0);
    for (key, value, delivery) in &deliveries {
        match delivery.wait() {
            Ok(metadata) => {
                delivered += 1;
                println!("{key}: {value} is at {metadata} (topic-partition@offset)");
            }
            Err(error) => {
                failed += 1;
                println!("{key}: {value} failed: {error}");
            }
        }
    }

    // Or a callback does: on a thread of the producer's, never on the one that sends.
    let (told, hears) = mpsc::channel();
    producer.send_with(ProducerRecord::new(topic, "by callback"), move |result| {
        let _ = told.send(result.map(ToString::to_string).map_err(ToString::to_string));
    })?;
    // An accepted record is decided within delivery.timeout.ms, so that this ends.
    match hears.recv()? {
        Ok(place) => {
            delivered += 1;
            println!("the callback was told of {place}");
        }
        Err(error) => {
            failed += 1;
            println!("the callback was told of a failure: {error}");
        }
    }

    // Has everything delivered that was accepted, or says what was not.
    let report = producer.close(Duration::from_secs(10));
    if !report.is_clean() {
        eprintln!("the producer did not close cleanly: {report:?}");
    }
    let sent = deliveries.len() + 1;
    println!("sent={sent} delivered={delivered} failed={failed}");
    Ok(failed == 0 && report.is_clean())
}

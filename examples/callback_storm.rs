//! The load that this crate exists for: 50 threads send 1,000 records each, and every callback does
//! a small database write.
//!
//!     cargo run --release --example callback_storm
//!     cargo run --release --example callback_storm -- --executor inline
//!
//! With callback threads, the default, every record arrives however slow the callbacks are: they
//! run beside the sending. With `inline` they run on the sending thread, as Java's client has it:
//! while one waits for its database nothing is sent, and records that wait in the buffer reach
//! delivery.timeout.ms. The tally of errors at the end shows it.
//! Unfit for production: the database is a sleep, `inline` exists to be looked at, and a failed
//! record is only counted.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

mod support;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use kafka_producer::testing::TestCluster;
use kafka_producer::{Callbacks, Error, KafkaProducer, ProducerRecord, RecordMetadata};
use support::{Args, Outcome, Progress, Spec, Usage, one};

static SPEC: Spec = Spec {
    about: "A service's many threads send records whose callbacks do a small database write.",
    options: &[
        one(
            &["--bootstrap-server"],
            "HOST:PORT",
            "the broker to start from; without it, a test broker inside this process",
        ),
        one(&["--topic"], "NAME", "the topic to send to").default("callback-storm"),
        one(&["--threads"], "N", "the service's threads").default("50"),
        one(&["--records"], "N", "records that each thread sends").default("1000"),
        one(&["--value-bytes"], "N", "the size of a record's value").default("1000"),
        one(&["--partitions"], "N", "the topic's partitions").default("16"),
        one(&["--callback-ms"], "N", "how long a callback's database write takes").default("2"),
        one(&["--delivery-timeout-ms"], "N", "delivery.timeout.ms").default("10000"),
        one(
            &["--executor"],
            "threads:N|inline",
            "who runs callbacks: threads of their own, or the sending thread",
        )
        .default("threads:16"),
    ],
};

/// `linger.ms`, Kafka's default.
const LINGER: Duration = Duration::from_millis(5);

/// Long enough for all callbacks to run one after the other, as they do with `inline`.
const PATIENCE: Duration = Duration::from_secs(600);

fn main() -> ExitCode {
    support::main(&SPEC, run)
}

struct Storm<'a> {
    topic: &'a str,
    threads: u64,
    records: u64,
    value: Vec<u8>,
    callback_time: Duration,
}

fn run(args: &Args) -> Outcome {
    let partitions: i32 = args.number("--partitions", 1..=10_000)?;
    let storm = Storm {
        topic: args.required("--topic")?,
        threads: args.number("--threads", 1..=10_000)?,
        records: args.number("--records", 1..=1_000_000_000)?,
        value: vec![b'x'; args.number("--value-bytes", 0..=1_000_000)?],
        callback_time: Duration::from_millis(args.number("--callback-ms", 0..=60_000)?),
    };
    let cluster = match args.value("--bootstrap-server") {
        Some(_) => None,
        None => Some(TestCluster::builder().topic(storm.topic, partitions).try_start()?),
    };
    let test_broker = cluster.as_ref().map(TestCluster::bootstrap_servers).unwrap_or_default();
    let servers = args.value("--bootstrap-server").unwrap_or(&test_broker);
    let producer = build(args, servers)?;
    check_topic(&producer, servers, storm.topic, partitions)?;

    let start = Instant::now();
    let counts = Arc::new(Counts::new(storm.threads * storm.records));
    storm.rage(&producer, &counts);
    let report = producer.close(PATIENCE);
    let seconds = start.elapsed().as_secs_f64();
    counts.progress.finish();

    counts.explain();
    if !report.is_clean() {
        println!("the producer did not close cleanly: {report:?}");
    }
    let mut all_arrived = counts.all_arrived() && report.is_clean();
    if let Some(cluster) = cluster {
        let logged = cluster.count(storm.topic);
        println!("the broker's own log has {logged} records");
        all_arrived &= logged == counts.delivered.load(Relaxed);
    }
    println!("{} seconds={seconds:.1}", counts.line());
    Ok(all_arrived)
}

fn build(args: &Args, servers: &str) -> Result<KafkaProducer, Box<dyn std::error::Error>> {
    let delivery_timeout = args.number("--delivery-timeout-ms", 6..=i32::MAX as u64)?;
    let delivery_timeout = Duration::from_millis(delivery_timeout);
    // A record's time for all attempts must have room for one.
    let request_timeout = (delivery_timeout - LINGER).min(Duration::from_secs(30));
    let builder = KafkaProducer::builder()
        .bootstrap_servers(servers)
        .client_id("callback-storm")
        .linger(LINGER)
        .delivery_timeout(delivery_timeout)
        .request_timeout(request_timeout)
        // The storm is larger than the buffer: `send` is to wait for room and not to refuse.
        .max_block(PATIENCE)
        .callbacks(executor(args.required("--executor")?)?);
    Ok(builder.build()?)
}

fn executor(text: &str) -> Result<Callbacks, Usage> {
    let threads = |text: &str| text.strip_prefix("threads:")?.parse().ok();
    match threads(text) {
        Some(n @ 1..=1024) => Ok(Callbacks::Threads(n)),
        None if text == "inline" => Ok(Callbacks::Inline),
        _ => Err(Usage(format!("--executor takes threads:N, N from 1 to 1024, or inline: {text}"))),
    }
}

/// On a real cluster somebody has to create the topic; says how.
fn check_topic(
    producer: &KafkaProducer,
    servers: &str,
    topic: &str,
    partitions: i32,
) -> Result<(), Box<dyn std::error::Error>> {
    let how = format!(
        "create the topic with\n  kafka-topics.sh --bootstrap-server {servers} --create \
         --topic {topic} --partitions {partitions}"
    );
    if let Err(error) = producer.wait_ready(&[topic], Duration::from_secs(10)) {
        return Err(format!("{error}\nif the broker answers, {how}").into());
    }
    let there = producer.partitions_for(topic)?.len();
    if there != partitions.unsigned_abs() as usize {
        eprintln!("topic {topic} has {there} partitions, not {partitions}; to change that, {how}");
    }
    Ok(())
}

impl Storm<'_> {
    /// All threads send at once; returns when the last record is sent, not when it has arrived.
    fn rage(&self, producer: &KafkaProducer, counts: &Arc<Counts>) {
        thread::scope(|service| {
            for _ in 0..self.threads {
                service.spawn(|| self.send_all(producer, counts));
            }
        });
    }

    fn send_all(&self, producer: &KafkaProducer, counts: &Arc<Counts>) {
        let database_write = self.callback_time;
        for _ in 0..self.records {
            let (record, heard) = (ProducerRecord::new(self.topic, &self.value), counts.clone());
            let sent = producer.send_with(record, move |result| {
                heard.on_completion(result);
                thread::sleep(database_write);
                heard.callbacks.fetch_add(1, Relaxed);
                heard.progress.add(1);
            });
            match sent {
                Ok(()) => counts.sent.fetch_add(1, Relaxed),
                Err(error) => counts.on_refusal(&error),
            };
        }
    }
}

/// What became of the records, as `send_with` and the callbacks tell it.
#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    refused: AtomicU64,
    delivered: AtomicU64,
    failed: AtomicU64,
    callbacks: AtomicU64,
    errors: Mutex<Errors>,
    progress: Progress,
}

#[derive(Default)]
struct Errors {
    /// How often each cause was met.
    tally: BTreeMap<String, u64>,
    /// All that the first one says.
    first: Option<String>,
}

impl Counts {
    fn new(records: u64) -> Self {
        Self { progress: Progress::new(records, "callbacks"), ..Self::default() }
    }

    fn on_completion(&self, result: Result<&RecordMetadata, &Error>) {
        match result {
            Ok(_) => self.delivered.fetch_add(1, Relaxed),
            Err(error) => {
                self.note(error);
                self.failed.fetch_add(1, Relaxed)
            }
        };
    }

    fn on_refusal(&self, error: &Error) -> u64 {
        self.note(error);
        self.refused.fetch_add(1, Relaxed)
    }

    fn note(&self, error: &Error) {
        let cause = match error {
            Error::Delivery(failure) => format!("not delivered: {}", failure.cause),
            other => format!("not accepted: {other}"),
        };
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        *errors.tally.entry(cause).or_default() += 1;
        errors.first.get_or_insert_with(|| error.to_string());
    }

    fn explain(&self) {
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        for (cause, times) in &errors.tally {
            println!("{times} records {cause}");
        }
        if let Some(first) = &errors.first {
            println!("the first error: {first}");
        }
    }

    fn all_arrived(&self) -> bool {
        self.failed.load(Relaxed) == 0 && self.refused.load(Relaxed) == 0
    }

    fn line(&self) -> String {
        let n = |counter: &AtomicU64| counter.load(Relaxed);
        format!(
            "sent={} delivered={} failed={} refused={} callbacks={}",
            n(&self.sent),
            n(&self.delivered),
            n(&self.failed),
            n(&self.refused),
            n(&self.callbacks)
        )
    }
}

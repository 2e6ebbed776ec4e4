//! Measures throughput and latency: the options and the output of Kafka's own
//! kafka-producer-perf-test.sh, and some more.
//!
//!     cargo run --release --example producer_perf -- --num-records 10000000 --record-size 100
//!     cargo run --release --example producer_perf -- --bootstrap-server localhost:9092 \
//!         --topic perf --num-records 1000000 --record-size 100 --throughput -1 \
//!         --command-property linger.ms=5 batch.size=131072
//!
//! Without a server it sends to a test broker inside this process that discards what it gets; CPU
//! then counts the broker's work too. Latency is that of every 64th record, all outcomes are
//! counted. After the last line of Kafka's tool comes one for scripts.
//! Unfit for production: values are all the same, `--delivery none` looks at no outcome, and the
//! counters live for ever (`Box::leak`), so that a callback need not own a share of them.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

#[path = "producer_perf/load.rs"]
mod load;
#[path = "producer_perf/measure.rs"]
mod measure;
mod support;

use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use kafka_producer::testing::TestCluster;
use kafka_producer::{KafkaProducer, ProducerBuilder, TopicProducer};
use load::{How, PATIENCE, Payload, Sent, Share};
use measure::{Tally, Totals};
use support::{Args, Opt, Outcome, Progress, Spec, Usage, flag, one, some};

static SPEC: Spec = Spec {
    about: "Sends records as fast as they go, or as told, and prints rates and latencies.",
    options: OPTIONS,
};

const OPTIONS: &[Opt] = &[
    one(
        &["--bootstrap-server"],
        "HOST:PORT",
        "the broker to start from; if neither this nor a property nor a file names one,\n\
         a test broker inside this process that discards what it gets",
    ),
    one(&["--topic"], "NAME", "the topic to send to").default("perf"),
    one(&["--num-records"], "N", "how many records to send").default("1000000"),
    one(&["--record-size"], "BYTES", "values of this size, 100 if nothing else is said"),
    one(&["--payload-file"], "FILE", "values are taken from this file, by chance"),
    one(&["--payload-delimiter"], "TEXT", "what parts the file's values").default("\\n"),
    flag(&["--payload-monotonic"], "values are the records' numbers"),
    one(&["--throughput"], "RATE", "records a second, about; -1: as many as possible")
        .default("-1"),
    some(
        &["--command-property", "--producer-property", "--producer-props"],
        "KEY=VALUE",
        "properties of the producer; they go before those of a file",
    ),
    one(&["--command-config", "--producer.config"], "FILE", "a file of the producer's properties"),
    one(&["--warmup-records"], "N", "so many first records are not in the steady state's line")
        .default("0"),
    one(&["--reporting-interval"], "MS", "the time between lines of progress").default("5000"),
    flag(&["--print-metrics"], "print the producer's metrics at the end, as Prometheus reads them"),
    one(&["--transactional-id"], "ID", "not supported"),
    one(&["--transaction-duration-ms"], "MS", "not supported"),
    one(&["--threads"], "N", "threads that send, with one producer").default("1"),
    one(
        &["--delivery"],
        "none|handle|callback",
        "how outcomes are heard of: none trusts in flush, the others count each record's",
    )
    .default("handle"),
    flag(&["--sync"], "waits for each record before it sends the next"),
    one(
        &["--latency-sample"],
        "N",
        "times the way of every N-th record; if not given, of some 4,000 (all, with --sync)",
    ),
];

fn main() -> ExitCode {
    support::main(&SPEC, run)
}

/// So many records have their way timed if nothing else is asked for: enough for the percentiles,
/// and few enough to cost little beside those that are not.
const SAMPLES: u64 = 4_000;

/// What the options ask for.
struct Plan {
    how: How,
    payload: Payload,
    records: u64,
    warm_up: u64,
    sample: u64,
    threads: u64,
    throughput: Option<f64>,
    reporting_interval: Duration,
}

fn run(args: &Args) -> Outcome {
    let plan = Plan::new(args)?;
    let (builder, _cluster) = configure(args)?;
    let config = builder.build_config()?;
    let producer = builder.build()?;
    let totals: &'static Totals = Box::leak(Box::new(Totals::new()?));

    let (start, cpu) = (Instant::now(), measure::cpu_time());
    let topic = producer.topic(args.required("--topic")?)?;
    let partitions = producer.partitions_for(topic.name())?.len();
    let batch_size = config.value("batch.size").and_then(|size| size.parse().ok()).unwrap_or(0);
    let handles = load::window(partitions, batch_size, plan.payload.mean_bytes(plan.records));
    let sent = plan.send(&producer, &topic, handles, totals);
    let flushed = producer.flush(PATIENCE);
    let end = Instant::now();
    let metrics = args.flag("--print-metrics").then(|| producer.metrics());
    let report = producer.close(PATIENCE);
    let cpu = measure::cpu_time().zip(cpu).map(|(after, before)| after.saturating_sub(before));

    for error in sent.refused.iter().chain(flushed.as_ref().err()) {
        eprintln!("error: {error}");
    }
    if !report.is_clean() {
        eprintln!("the producer did not close cleanly: {report:?}");
    }
    if let Some(error) = totals.first_error() {
        eprintln!("the first failure: {error}");
    }
    let tally = plan.tally(&sent, totals, flushed.is_ok());
    let mean_bytes = sent.bytes as f64 / sent.records.max(1) as f64;
    println!("{}", totals.total_line(tally.delivered, mean_bytes, end - start));
    if plan.warm_up > 0 {
        let line = totals.steady_line(tally.delivered, plan.warm_up, mean_bytes, end);
        line.into_iter().for_each(|line| println!("{line}"));
    }
    println!("{}", totals.result_line(sent.records, &tally, cpu));
    if let Some(metrics) = metrics {
        print!("{}", metrics.to_prometheus());
    }
    Ok(tally.delivered == plan.records && flushed.is_ok() && report.is_clean())
}

/// The producer's settings, the later ones going before: file, properties, server. The test broker
/// lives as long as it is kept.
fn configure(
    args: &Args,
) -> Result<(ProducerBuilder, Option<TestCluster>), Box<dyn std::error::Error>> {
    let mut builder = KafkaProducer::builder().client_id("perf-producer-client");
    let file = args.value("--command-config");
    if let Some(file) = file {
        let text = std::fs::read_to_string(file).map_err(|e| Usage(format!("{file}: {e}")))?;
        builder = builder.properties_text(&text)?;
    }
    let properties = args.pairs("--command-property")?;
    let named = properties.iter().any(|(key, _)| *key == "bootstrap.servers");
    builder = builder.properties(properties);
    if let Some(servers) = args.value("--bootstrap-server") {
        return Ok((builder.bootstrap_servers(servers), None));
    }
    if named || file.is_some() {
        return Ok((builder, None));
    }
    let topic = args.required("--topic")?;
    let cluster = TestCluster::builder().topic(topic, 4).discard(false).try_start()?;
    Ok((builder.bootstrap_servers(cluster.bootstrap_servers()), Some(cluster)))
}

impl Plan {
    fn new(args: &Args) -> Result<Self, Usage> {
        for option in ["--transactional-id", "--transaction-duration-ms"] {
            if args.flag(option) {
                return Err(Usage(format!("{option}: this producer has no transactions")));
            }
        }
        let how = match args.required("--delivery")? {
            _ if args.flag("--sync") => How::Sync,
            "none" => How::None,
            "handle" => How::Handle,
            "callback" => How::Callback,
            other => {
                let text = format!("--delivery takes none, handle or callback, not {other:?}");
                return Err(Usage(text));
            }
        };
        let throughput: f64 = args.number("--throughput", -1.0..=1e12)?;
        if throughput == 0.0 {
            return Err(Usage("--throughput 0 would never end".to_owned()));
        }
        let records = args.number("--num-records", 1..=u64::MAX)?;
        let warm_up = args.number("--warmup-records", 0..=u64::MAX)?;
        if warm_up >= records {
            return Err(Usage("--warmup-records must be less than --num-records".to_owned()));
        }
        let sample = match args.given("--latency-sample") {
            Some(_) => args.number("--latency-sample", 1..=u64::MAX)?,
            None => {
                if how == How::Sync {
                    1
                } else {
                    (records / SAMPLES).max(1)
                }
            }
        };
        Ok(Self {
            how,
            payload: payload(args)?,
            records,
            warm_up,
            sample,
            threads: args.number("--threads", 1..=10_000)?,
            throughput: (throughput > 0.0).then_some(throughput),
            reporting_interval: Duration::from_millis(
                args.number("--reporting-interval", 1..=1_000_000_000)?,
            ),
        })
    }

    /// All threads send their shares; another one reports.
    fn send(
        &self,
        producer: &KafkaProducer,
        topic: &TopicProducer,
        handles: usize,
        totals: &'static Totals,
    ) -> Sent {
        let (running, ended) = channel::<()>();
        let send = |share: Share| load::send_share(producer, topic, &share, &self.payload, totals);
        thread::scope(|scope| {
            scope.spawn(|| self.report(ended, totals));
            let shares = (0..self.threads).map(|n| self.share(n, handles));
            let senders: Vec<_> = shares.map(|share| scope.spawn(move || send(share))).collect();
            let mut total = Sent::default();
            for sender in senders {
                match sender.join() {
                    Ok(sent) => total.add(sent),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            drop(running); // ends the report
            total
        })
    }

    /// The n-th thread's part of the whole; parts differ by one record at most.
    fn share(&self, n: u64, handles: usize) -> Share {
        let before = |whole: u64, n: u64| {
            (u128::from(whole) * u128::from(n) / u128::from(self.threads)) as u64 // <= whole
        };
        let of = |whole| before(whole, n + 1) - before(whole, n);
        Share {
            how: self.how,
            first: before(self.records, n),
            records: of(self.records),
            warm_up: of(self.warm_up),
            sample: self.sample,
            throughput: self.throughput.map(|rate| rate / self.threads as f64),
            handles,
        }
    }

    /// Lines about what has gone on, until the other end of the channel is gone.
    fn report(&self, ended: Receiver<()>, totals: &Totals) {
        let progress = Progress::new(self.records, "delivered");
        let look = Duration::from_millis(if progress.is_shown() { 200 } else { u64::MAX });
        let mean_bytes = self.payload.mean_bytes(self.records);
        let (mut since, mut before) = (Instant::now(), 0);
        let next = look.min(self.reporting_interval);
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(next) {
            let now = self.seen(totals);
            progress.set(now);
            let took = since.elapsed();
            if took >= self.reporting_interval {
                let line = totals.window_line(now - before, mean_bytes, took);
                progress.suspend(|| println!("{line}"));
                (since, before) = (Instant::now(), now);
            }
        }
    }

    /// Records known to be delivered; with no outcomes, as the timed ones tell.
    fn seen(&self, totals: &Totals) -> u64 {
        let scale = if self.how == How::None { self.sample } else { 1 };
        totals.delivered().saturating_mul(scale).min(self.records)
    }

    fn tally(&self, sent: &Sent, totals: &Totals, flushed: bool) -> Tally {
        let (known, failed) = (totals.delivered(), totals.failed());
        // With no outcomes: flush has seen all of them, and no timed record failed that isn't here.
        let delivered = match self.how {
            How::None if flushed => sent.records - failed,
            _ => known,
        };
        Tally { delivered, failed }
    }
}

fn payload(args: &Args) -> Result<Payload, Usage> {
    let (size, file) = (args.given("--record-size"), args.given("--payload-file"));
    match (size, file, args.flag("--payload-monotonic")) {
        (None, None, true) => Ok(Payload::Counter),
        (None, Some(file), false) => {
            let delimiter = args.required("--payload-delimiter")?.replace("\\n", "\n");
            println!("Reading payloads from: {file}");
            let values = load::read_values(file, &delimiter)?;
            println!("Number of records read: {}", values.len());
            Ok(Payload::OneOf(values))
        }
        (None, None, false) => Ok(Payload::letters(100)),
        (Some(_), None, false) => {
            Ok(Payload::letters(args.number("--record-size", 1..=i32::MAX as usize)?))
        }
        _ => Err(Usage(
            "only one of --record-size, --payload-file and --payload-monotonic".to_owned(),
        )),
    }
}

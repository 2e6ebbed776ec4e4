//! An interceptor for tracing: each record carries the trace of the thread that sent it, in a
//! `traceparent` header (W3C Trace Context), and tells how long its delivery took.
//!
//!     cargo run --example traceparent
//!
//! Runs against the test broker inside this process. Unfit for production: a program that traces
//! asks its tracing library for the current span and hands ended ones to it; here a thread-local
//! and a line on the terminal stand for those.

#![allow(clippy::print_stdout, reason = "a program for a terminal")]

mod support;

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use kafka_producer::testing::TestCluster;
use kafka_producer::{
    Acknowledgement, InterceptedRecord, InterceptorError, KafkaProducer, ProducerInterceptor,
    ProducerRecord,
};
use support::{Args, Outcome, Spec};

const HEADER: &str = "traceparent";

thread_local! {
    /// The trace that this thread works for.
    static TRACE: Cell<Option<u128>> = const { Cell::new(None) };
}

/// Injects the context, and times deliveries.
struct Tracing;

impl ProducerInterceptor for Tracing {
    /// Travels with the record; a program that traces would keep the span here.
    type State = Instant;

    fn on_send(&self, record: &mut InterceptedRecord<'_>) -> Result<Instant, InterceptorError> {
        // A record that comes from elsewhere keeps the trace that it has.
        if record.headers.last(HEADER).is_none() {
            let trace = TRACE.get().ok_or("this thread has no trace")?;
            let span = random();
            record.headers.push(HEADER, format!("00-{trace:032x}-{span:016x}-01").into_bytes());
        }
        Ok(Instant::now())
    }

    fn on_acknowledgement(&self, sent: Option<Instant>, ack: &Acknowledgement<'_>) {
        // Records that `on_send` failed for have no trace, and no state.
        let Some(took) = sent.map(|sent| sent.elapsed()) else { return };
        match ack.result {
            Ok(metadata) => println!("{metadata} was delivered after {took:?}"),
            Err(error) => println!("a record for {} failed after {took:?}: {error}", ack.topic),
        }
    }
}

/// A number that is not 0, which the specification calls invalid.
fn random() -> u64 {
    RandomState::new().hash_one(0) | 1
}

static SPEC: Spec = Spec {
    about: "Sends records whose headers carry the trace of the thread that sent them.",
    options: &[],
};

fn main() -> ExitCode {
    support::main(&SPEC, run)
}

fn run(_: &Args) -> Outcome {
    let cluster = TestCluster::start();
    let producer = KafkaProducer::builder()
        .bootstrap_servers(cluster.bootstrap_servers())
        .interceptor(Tracing)
        .build()?;
    TRACE.set(Some(u128::from(random()) << 64 | u128::from(random())));
    for order in ["paid", "packed", "sent"] {
        producer.send(ProducerRecord::new("orders", order))?;
    }
    let forwarded = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    producer.send(ProducerRecord::new("orders", "returned").header(HEADER, forwarded))?;
    // Acknowledgements count as callbacks: a close waits for them.
    let report = producer.close(Duration::from_secs(10));
    for record in cluster.records("orders", 0) {
        let value = String::from_utf8(record.value.unwrap_or_default())?;
        let traces = record.headers.iter().filter(|(name, _)| name == HEADER);
        let traces: Vec<_> = traces.filter_map(|(_, trace)| trace.as_deref()).collect();
        println!("{value}: {}", String::from_utf8(traces.concat())?);
    }
    Ok(report.is_clean())
}

//! Lines from standard input become records: the options of Kafka's own kafka-console-producer.sh.
//!
//!     printf 'k1\tpaid\nk2\tshipped\n' | cargo run --example console_producer -- \
//!         --bootstrap-server localhost:9092 --topic orders --reader-property parse.key=true
//!
//! Each record that fails is told on stderr with its line's number, and the exit status says
//! whether there was one; Kafka's tool exits with 0.
//! Unfit for production: it goes on after failures, so that records of one key may be missing in
//! the middle, and a line that can't be read ends it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

#[path = "console_producer/line_reader.rs"]
mod line_reader;
mod support;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use kafka_producer::{Error, ErrorClass, KafkaProducer, ProducerBuilder, ProducerRecord};
use line_reader::{Line, LineFormat};
use support::{Args, Opt, Outcome, Spec, Usage, flag, many, one, optional};

static SPEC: Spec =
    Spec { about: "Reads lines from standard input and sends each as a record.", options: OPTIONS };

const OPTIONS: &[Opt] = &[
    one(
        &["--bootstrap-server"],
        "HOST:PORT",
        "the brokers to start from, commas between; required",
    ),
    one(&["--topic"], "NAME", "the topic to send to; required"),
    flag(&["--sync"], "waits for each record before it reads the next line"),
    many(
        &["--reader-property", "--property"],
        "KEY=VALUE",
        "how lines are read, with the defaults:\n\
         parse.key=false, key.separator=TAB, parse.headers=false, headers.delimiter=TAB,\n\
         headers.separator=, headers.key.separator=: ignore.error=false,\n\
         null.marker=... (a key, a value or a header's value equal to it is null).\n\
         A line is: headers, delimiter, key, separator, value: h1:v1,h2:v2<TAB>key<TAB>value",
    ),
    many(
        &["--command-property", "--producer-property"],
        "KEY=VALUE",
        "a property of the producer; goes before those of a file",
    ),
    one(&["--command-config", "--producer.config"], "FILE", "a file of the producer's properties"),
    one(&["--timeout"], "MS", "linger.ms").default("1000"),
    one(&["--request-required-acks"], "ACKS", "acks").default("-1"),
    one(&["--request-timeout-ms"], "MS", "request.timeout.ms").default("1500"),
    one(&["--message-send-max-retries"], "N", "retries").default("3"),
    one(&["--retry-backoff-ms"], "MS", "retry.backoff.ms").default("100"),
    one(&["--socket-buffer-size"], "BYTES", "send.buffer.bytes").default("102400"),
    one(&["--max-memory-bytes"], "BYTES", "buffer.memory").default("33554432"),
    one(&["--batch-size", "--max-partition-memory-bytes"], "BYTES", "batch.size").default("16384"),
    one(&["--metadata-expiry-ms"], "MS", "metadata.max.age.ms").default("300000"),
    one(&["--max-block-ms"], "MS", "max.block.ms").default("60000"),
    optional(&["--compression-codec"], "CODEC", "gzip", "compression.type; so far only none works"),
    one(&["--line-reader"], "CLASS", "not supported but for Kafka's own LineMessageReader"),
    one(&["--reader-config"], "FILE", "not supported: use --reader-property"),
];

/// Options that are a producer's property each: `--command-property` and files go before their
/// defaults, and after what is given.
const SETTINGS: &[(&str, &str)] = &[
    ("--timeout", "linger.ms"),
    ("--request-required-acks", "acks"),
    ("--request-timeout-ms", "request.timeout.ms"),
    ("--message-send-max-retries", "retries"),
    ("--retry-backoff-ms", "retry.backoff.ms"),
    ("--socket-buffer-size", "send.buffer.bytes"),
    ("--max-memory-bytes", "buffer.memory"),
    ("--batch-size", "batch.size"),
    ("--metadata-expiry-ms", "metadata.max.age.ms"),
    ("--max-block-ms", "max.block.ms"),
];

/// The wait for what is still on its way at the end of the input.
const PATIENCE: Duration = Duration::from_secs(600);

fn main() -> ExitCode {
    support::main(&SPEC, run)
}

fn run(args: &Args) -> Outcome {
    let topic = args.required("--topic")?;
    let format = line_format(args)?;
    let producer = configure(args)?.build()?;
    let console = Console { producer, topic, sync: args.flag("--sync"), failed: Arc::default() };
    let read = console.send_lines(&format, &mut io::stdin().lock());
    // Whatever ended the reading: what was sent before it is delivered.
    let report = console.producer.close(PATIENCE);
    if !report.is_clean() {
        eprintln!("the producer did not close cleanly: {report:?}");
    }
    read?;
    Ok(console.failed.load(Relaxed) == 0 && report.is_clean())
}

fn line_format(args: &Args) -> Result<LineFormat, Usage> {
    if args.flag("--reader-config") {
        return Err(Usage("--reader-config is not supported: use --reader-property".to_owned()));
    }
    match args.value("--line-reader") {
        None | Some("org.apache.kafka.tools.LineMessageReader") => {}
        Some(class) => return Err(Usage(format!("--line-reader: there is no {class} here"))),
    }
    LineFormat::new(&args.pairs("--reader-property")?).map_err(Usage)
}

/// The producer's settings, the later ones going before.
fn configure(args: &Args) -> Result<ProducerBuilder, Box<dyn std::error::Error>> {
    let mut builder = KafkaProducer::builder().client_id("console-producer");
    for (option, key) in SETTINGS {
        builder = builder.property(*key, args.value(option).unwrap_or_default());
    }
    if let Some(file) = args.value("--command-config") {
        let text = std::fs::read_to_string(file).map_err(|e| Usage(format!("{file}: {e}")))?;
        builder = builder.properties_text(&text)?;
    }
    builder = builder.properties(args.pairs("--command-property")?);
    for (option, key) in SETTINGS {
        if let Some(value) = args.given(option) {
            builder = builder.property(*key, value);
        }
    }
    if let Some(codec) = args.given("--compression-codec") {
        builder = builder.property("compression.type", codec);
    }
    Ok(builder.bootstrap_servers(args.required("--bootstrap-server")?))
}

struct Console<'a> {
    producer: KafkaProducer,
    topic: &'a str,
    sync: bool,
    failed: Arc<AtomicU64>,
}

impl Console<'_> {
    /// Sends line after line until the input ends, a line can't be read, or the producer is of no
    /// more use.
    fn send_lines(&self, format: &LineFormat, input: &mut impl io::BufRead) -> Outcome {
        let prompts = io::stdin().is_terminal() && io::stdout().is_terminal();
        let mut bytes = Vec::new();
        for number in 1.. {
            if prompts {
                print!(">");
                io::stdout().flush()?;
            }
            if !line_reader::read_line(input, &mut bytes)? {
                break;
            }
            let line = format.parse(&bytes).map_err(|why| {
                format!("line {number}: {why}: {:?}", String::from_utf8_lossy(&bytes))
            })?;
            if let Err(error) = self.send(number, self.record(line)) {
                failed(&self.failed, number, &error);
                if error.class() == ErrorClass::Fatal {
                    return Err(error.into());
                }
            }
        }
        Ok(true)
    }

    fn record<'a>(&'a self, line: Line<'a>) -> ProducerRecord<'a> {
        let mut record = match line.value {
            Some(value) => ProducerRecord::new(self.topic, value),
            None => ProducerRecord::tombstone(self.topic),
        };
        if let Some(key) = line.key {
            record = record.key(key);
        }
        for (name, value) in line.headers {
            record = match value {
                Some(value) => record.header(name, value),
                None => record.null_header(name),
            };
        }
        record
    }

    /// An error is a refusal, or with `--sync` a failure; without, failures come later.
    fn send(&self, number: u64, record: ProducerRecord<'_>) -> Result<(), Error> {
        if self.sync {
            return self.producer.send(record)?.wait().map(drop);
        }
        let failures = Arc::clone(&self.failed);
        self.producer.send_with(record, move |result| {
            if let Err(error) = result {
                failed(&failures, number, error);
            }
        })
    }
}

fn failed(failures: &AtomicU64, line: u64, error: &Error) {
    failures.fetch_add(1, Relaxed);
    eprintln!("line {line}: {error}");
}

//! Store and forward: what can't be delivered before the program ends is kept in a file, and sent
//! at its next start.
//!
//!     cargo run --example spool
//!
//! Runs twice against a test broker inside this process, which is down the first time. Unfit for
//! production: nothing makes the file safe against a crash, and a crash of the program itself loses
//! what lies in the buffer. Records of which nobody knows whether they arrived are not kept: to
//! send them again might make duplicates.

#![allow(clippy::print_stdout, reason = "a program for a terminal")]

mod support;

use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Result, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use kafka_producer::testing::TestCluster;
use kafka_producer::{KafkaProducer, OwnedRecord, ProducerRecord};
use support::{Args, Outcome, Spec};

/// Optional bytes: their length, -1 for null, then themselves.
fn put(file: &mut impl Write, bytes: Option<&[u8]>) -> Result<()> {
    let length = bytes.map_or(-1, |bytes| bytes.len() as i64);
    file.write_all(&length.to_be_bytes())?;
    file.write_all(bytes.unwrap_or_default())
}

fn get(file: &mut impl Read) -> Result<Option<Vec<u8>>> {
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let Ok(length) = usize::try_from(i64::from_be_bytes(length)) else { return Ok(None) };
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes).map(|()| Some(bytes))
}

fn store(path: &Path, records: &[OwnedRecord]) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for record in records {
        put(&mut file, Some(record.topic.as_bytes()))?;
        put(&mut file, Some(&record.timestamp.to_be_bytes()))?;
        put(&mut file, record.key.as_deref())?;
        put(&mut file, record.value.as_deref())?;
    }
    file.flush()
}

/// Sends what the file holds; the program's own records come after.
fn forward(path: &Path, producer: &KafkaProducer) -> Outcome {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        opened => BufReader::new(opened?),
    };
    while let Ok(Some(topic)) = get(&mut file) {
        let topic = String::from_utf8(topic)?;
        let millis = get(&mut file)?.and_then(|bytes| bytes.first_chunk().copied());
        let (key, value) = (get(&mut file)?, get(&mut file)?);
        let record = match &value {
            Some(value) => ProducerRecord::new(&topic, value),
            None => ProducerRecord::tombstone(&topic),
        };
        let record = record.timestamp(millis.map_or(0, i64::from_be_bytes));
        let record = key.iter().fold(record, |record, key| record.key(key));
        producer.send(record)?;
    }
    Ok(true)
}

static SPEC: Spec = Spec { about: "Keeps what can't be sent for the next start.", options: &[] };

fn main() -> ExitCode {
    support::main(&SPEC, run)
}

fn run(_: &Args) -> Outcome {
    let cluster = TestCluster::builder().topic("orders", 1).start();
    let path = std::env::temp_dir().join(format!("spool-{}", std::process::id()));
    for day in 1..=2 {
        let servers = cluster.bootstrap_servers();
        let producer = KafkaProducer::builder().bootstrap_servers(servers).build()?;
        producer.wait_ready(&["orders"], Duration::from_secs(10))?;
        forward(&path, &producer)?;
        if day == 1 {
            cluster.stop_broker(1);
        }
        for order in 0..3 {
            let value = format!("order {order} of day {day}");
            producer.send(ProducerRecord::new("orders", &value).key("till-7"))?;
        }
        let report = producer.close_and_return(Duration::from_secs(2));
        println!("day {day}: {} delivered, {} kept", report.delivered, report.not_sent.len());
        store(&path, &report.not_sent)?;
        cluster.start_broker(1)?;
    }
    std::fs::remove_file(&path)?;
    Ok(cluster.count("orders") == 6)
}

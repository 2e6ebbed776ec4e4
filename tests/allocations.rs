//! In steady state records cost no allocation of their own: what is allocated is a few blocks for
//! each batch. All threads of the producer are counted; the broker is a process of its own.

mod common;

use std::alloc::System;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use common::{LONG, close, impatient};
use kafka_producer::testing::TestCluster;
use kafka_producer::{KafkaProducer, ProducerRecord, TopicRecord};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const RECORDS: usize = 200_000;
/// Batches of 150 records, so that this is seven blocks a batch.
const ALLOWED: f64 = 0.05;
const SIGN: &str = "the broker listens at ";

/// A broker in another process; it ends when its input does.
struct Broker {
    process: Child,
    /// Kept open, for the process to write to until its end.
    output: BufReader<ChildStdout>,
    address: String,
}

impl Broker {
    fn start() -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "a_broker_that_discards_until_its_input_ends"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut lines = output.by_ref().lines().map_while(Result::ok);
        let told = lines.find_map(|line| Some(line.split_once(SIGN)?.1.to_owned()));
        let address = told.expect("the broker does not start");
        Self { process, output, address }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.output.read_to_end(&mut Vec::new());
        let _ = self.process.wait();
    }
}

#[test]
#[ignore = "run by the other test, in a process of its own"]
fn a_broker_that_discards_until_its_input_ends() {
    let cluster = TestCluster::builder().topic("t", 1).discard(false).start();
    let mut out = std::io::stdout();
    writeln!(out, "\n{SIGN}{}", cluster.bootstrap_servers()).unwrap();
    out.flush().unwrap();
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    // Without a parent that sends there is nothing to see: run by hand, it has no input.
    assert_eq!(cluster.records("t", 0).len(), 0);
}

/// Allocations for each record, from `send` to the broker's answer, once all is warm.
fn allocations(producer: &KafkaProducer, mut send: impl FnMut(usize)) -> f64 {
    (0..RECORDS).for_each(&mut send);
    producer.flush(LONG).unwrap();
    let region = Region::new(COUNTED);
    (0..RECORDS).for_each(&mut send);
    producer.flush(LONG).unwrap();
    let counted = region.change();
    (counted.allocations + counted.reallocations) as f64 / RECORDS as f64
}

#[test]
fn a_record_costs_no_allocation() {
    let broker = Broker::start();
    let producer = impatient(&broker.address).batch_size(16_384).build().unwrap();
    let topic = producer.topic("t").unwrap();
    let value = [b'x'; 100];

    let forgotten = allocations(&producer, |_| drop(topic.send(TopicRecord::new(&value)).unwrap()));
    let by_name = allocations(&producer, |i| {
        let record = ProducerRecord::new("t", &value).key(&value[..i % 16]);
        drop(producer.send(record).unwrap());
    });
    let mut handles = Vec::with_capacity(2 * RECORDS);
    let kept = allocations(&producer, |_| {
        handles.push(topic.send(TopicRecord::new(&value)).unwrap());
    });
    assert!(handles.iter().all(|handle| handle.try_get().is_some_and(|fate| fate.is_ok())));
    close(&producer);
    for (how, cost) in [("forgotten", forgotten), ("by name", by_name), ("handles kept", kept)] {
        // Were nothing counted, nothing would be proven: a batch costs something.
        assert!(cost > 0.0 && cost < ALLOWED, "{how}: {cost} allocations a record");
    }
}

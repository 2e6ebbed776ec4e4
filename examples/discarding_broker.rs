//! A broker that counts records and keeps none, for measurements: what runs against it shows the
//! cost of the producer, in a process of its own, and little else.
//!
//!     cargo run --release --example discarding_broker -- --topic perf --partitions 4
//!
//! It prints its address, serves until its input ends, and then prints how many records it has got.
//! Unfit for anything that wants its records back.

#![allow(clippy::print_stdout, reason = "a program for a terminal")]

mod support;

use std::io::{Read, stdin};
use std::process::ExitCode;

use kafka_producer::testing::TestCluster;
use support::{Args, Opt, Outcome, Spec, flag, one};

static SPEC: Spec = Spec {
    about: "A broker that counts records and keeps none. It ends when its input does.",
    options: OPTIONS,
};

const OPTIONS: &[Opt] = &[
    one(&["--topic"], "NAME", "the topic that there is").default("perf"),
    one(&["--partitions"], "N", "the topic's partitions").default("4"),
    flag(&["--checksums"], "verifies each batch's checksum"),
];

fn main() -> ExitCode {
    support::main(&SPEC, run)
}

fn run(args: &Args) -> Outcome {
    let topic = args.required("--topic")?;
    let partitions: i32 = args.number("--partitions", 1..=100_000)?;
    let cluster = TestCluster::builder()
        .auto_create(false)
        .topic(topic, partitions)
        .discard(args.flag("--checksums"))
        .try_start()?;
    println!("listening={}", cluster.bootstrap_servers());
    stdin().read_to_end(&mut Vec::new())?;
    println!("records={}", cluster.count(topic));
    Ok(true)
}

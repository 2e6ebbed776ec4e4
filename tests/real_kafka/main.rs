//! Real Kafka brokers, and Kafka's own tools as the witness of what was written.
//!
//! - `harness`: the harness itself, proven with Kafka's own producer
//! - `contents`: records of every shape, every acks value, many threads; read back one by one
//! - `everyday`: order, flush, close and limits, as Kafka's own tests check them
//! - `rights`: access rules
//! - `refusals`: what brokers refuse, and what the producer tells of it
//! - `failures`: brokers that die, come back or stand still in mid-stream
//! - `quotas`: brokers that throttle, and what the metrics tell of it
//! - `examples`: the example programs, with Kafka's tools looking at what they wrote
//! - `support`: the three clusters that the tests share, and how logs are compared
//!
//! `kafka_harness` says what these tests need and which environment variables skip or require them.

#![cfg(unix)]

#[path = "../kafka_harness/mod.rs"]
mod kafka_harness;

mod contents;
mod everyday;
mod examples;
mod failures;
mod harness;
mod quotas;
mod refusals;
mod rights;
mod support;

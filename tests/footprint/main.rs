//! What a producer takes of the machine beside the time for its records: memory at rest and under
//! load, wake-ups and CPU when there is nothing to do or nobody to talk to.
//!
//! Each figure is of a whole process, which is the test binary once more (see `alone`); the figures
//! are printed. Linux tells them in `/proc`; nowhere else is anything measured.

#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, reason = "figures are for reading")]

#[path = "../alone/mod.rs"]
mod alone;
#[path = "../common/mod.rs"]
mod common;
mod measure;
mod memory;
mod quiet;

use std::alloc::System;

use kafka_producer::testing::TestCluster;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn discarding() -> TestCluster {
    TestCluster::builder().topic("t", 4).discard(false).start()
}

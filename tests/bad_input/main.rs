//! Wrong input, and a world that is wrong: a typed error at the right place, in time, and nothing
//! lost once all is well again.

#[path = "../common/mod.rs"]
mod common;

mod brokers; // addresses and brokers that are none
mod calls; // records and topics that can't be

//! (being built)

pub mod partitioner;
pub mod record;

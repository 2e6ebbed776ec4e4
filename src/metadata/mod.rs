//! What is known of the cluster: brokers, topics, partitions and their leaders.
//!
//! The sender owns [`Metadata`] and keeps it up to date; user threads see it through the
//! [`MetadataCell`], as immutable [`Cluster`] snapshots, and wait there for topics they need.

mod apply; // how a response becomes a snapshot
mod cell; // what user threads and the sender share
#[cfg(all(test, loom))]
mod loom_models;
mod schedule; // when to ask again
mod snapshot; // the cluster at one moment
mod updates; // the sender's side: when to ask, what for, taking in answers
mod wait; // a user thread's waits

#[cfg(test)]
mod tests;

pub(crate) use self::cell::MetadataCell;
pub(crate) use self::snapshot::{Cluster, PartitionMetadata, TopicMetadata};
pub(crate) use self::updates::{LeaderChange, Metadata, MetadataSettings, Update};
pub(crate) use self::wait::{LeaderWait, ReadyWait, TopicWait};

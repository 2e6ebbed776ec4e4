//! (being built)

pub(crate) mod snapshot;

pub(crate) use snapshot::{Cluster, Node, PartitionMetadata, TopicMetadata};

//! A Kafka producer for programs that run on plain threads.

#![forbid(unsafe_code)]

// The stations of a record; ARCHITECTURE.md tells its way through them.
mod accumulator; // user thread: append under the partition's lock; buffer pool
mod client; // connections, in-flight requests, API versions, time-outs
mod completion; // delivery handles, callback executor
mod metadata; // cluster snapshots, refresh
mod network; // selector, channels, frames; mio behind a seam
mod producer; // user thread: send, metadata wait, partitioner, size checks
#[cfg_attr(not(feature = "__internal"), allow(dead_code, unused_imports))] // both directions
mod protocol; // one file an API (pure)
#[cfg_attr(not(feature = "__internal"), allow(dead_code, unused_imports))] // both directions
mod record; // record batch v2 (pure)
mod sender; // sender thread: ready, drain, expire, send, verdicts
mod transaction; // producer id, epoch, sequences

// Beside the way.
pub mod config;
mod error;
mod random;
mod sync;
mod threads; // named threads without signals
mod time;
mod types;

#[cfg(feature = "testing")]
pub mod testing;

// The public interface.
pub use crate::completion::{CallbackTask, Delivery, Executor, RecordMetadata};
pub use crate::config::{
    Acks, ConfigKey, HostPort, Importance, MetadataRecoveryStrategy, PartitionerKind,
    ProducerBuilder, ProducerConfig, Support, ValueType,
};
pub use crate::error::{DeliveryCause, DeliveryError, Error, ErrorClass, Persisted};
pub use crate::producer::partitioner::{
    ClusterView, PartitionError, PartitionInput, Partitioner, crc32_partition, fnv1a_partition,
    murmur2, murmur2_partition,
};
pub use crate::producer::record::{Header, Headers, ProducerRecord};
pub use crate::producer::{
    Callbacks, CloseReport, KafkaProducer, Partial, PartitionInfo, Refused, TopicProducer,
    TopicRecord,
};
pub use crate::protocol::ErrorCode;
pub use crate::types::{TopicPartition, Uuid};

/// Inner parts for benches, fuzz targets and tests of the wire format; no promise of stability.
#[cfg(feature = "__internal")]
#[doc(hidden)]
pub mod internal {
    #[allow(unused_imports)]
    pub mod protocol {
        pub use crate::protocol::*;
    }
    #[allow(unused_imports)]
    pub mod record {
        pub use crate::record::*;
    }
}

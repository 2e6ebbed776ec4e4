//! Configuration: one table of keys, two faces (typed builder, Kafka's own keys).
//!
//! Pure and on the user's thread: text comes in, a checked [`ProducerConfig`] goes out. Nothing
//! here resolves names or opens sockets. The way of a setting: [`ProducerBuilder`] keeps it as
//! text, `settings` reads it against the table in `keys`, `checks` compares settings with each
//! other as Java's `ProducerConfig` does, and [`ProducerConfig`] holds the typed outcome.

mod builder;
mod checks;
mod host_port;
mod key;
mod keys;
mod kinds;
mod producer_config;
mod properties;
mod settings;
mod suggest;
mod value;

pub use builder::ProducerBuilder;
pub use host_port::HostPort;
pub use key::{ConfigKey, Importance, Support, ValueType};
pub use kinds::{Acks, MetadataRecoveryStrategy, PartitionerKind, RecordingLevel};
pub use producer_config::ProducerConfig;
pub use settings::ValueOrigin;
